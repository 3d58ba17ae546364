#include "apply.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "partial.h"
#include "restore.h"
#include "rewind.h"

int apply_run(struct apply *a, struct err *e)
{
	struct job j;
	int got, rc = -1;

	job_start(&j, a);
	j.checkpoint = a->dry ? 0 : a->checkpoint;
	j.landed = rewind_prune;
	a->in->s.ignore_data_digest = true; /* the stage checks it while it hashes the file's blocks: once */
	bool is_there = access(a->path, F_OK) == 0;
	if (job_confine(&j, NULL, e))
		goto out;
	/* The first event comes before the replica is touched: no input, no directory. */
	got = input_next(a->in, e);
	if (got <= 0)
		goto out;
	if (a->in->s.kind == KIND_DELTA && (rewind_open(&j, REPLICA_APPLY, e) || (!is_there && job_confine(&j, NULL, e))))
		goto out;
	rc = receive_run(&j, got, e);
	if (rc)
		receive_keep_part(&j, e);
	else if (!a->n_deltas)
		rc = rewind_prune(&j, e);
out:
	return job_end(&j, rc);
}

/* ---- what it has ---- */

int apply_answer(struct apply *a, struct err *e)
{
	struct job j;

	job_start(&j, a);
	int rc = job_confine(&j, NULL, e) || rewind_open(&j, REPLICA_CHANGE, e) || catalog_id(j.r.cat, &j.current, e) ? -1 : 0;
	if (!rc && digest_is_zero(&j.current))
		rc = err_set(e, ERR_MISMATCH, "the replica '%s' is empty: there is nothing to acknowledge, send everything", a->path);
	else if (!rc)
		rc = receive_tell(&j, e);
	return job_end(&j, rc);
}

int apply_token(struct apply *a, struct token *t, struct err *e)
{
	struct job j;
	struct partial p = {0};
	int got = -1;

	job_start(&j, a);
	if (!job_confine(&j, NULL, e) && !rewind_open(&j, REPLICA_CHANGE, e) && !catalog_id(j.r.cat, &j.current, e))
		got = partial_load(&j.r, &p, e);
	if (!got || (got > 0 && !digest_eq(&p.base, &j.current)))
		got = err_set(e, ERR_MISMATCH, "the replica '%s' keeps no part of a delta: there is nothing to resume, send the delta "
			"from its start", a->path);
	if (got > 0)
		*t = token_of(p.place.off, &p.base, &p.head);
	partial_free(&p);
	return job_end(&j, got > 0 ? 0 : -1);
}

/* ---- metadata ---- */

int apply_restore(struct apply *a, struct err *e)
{
	struct job j;
	struct restore s = {.r = &j.r, .policy = a->policy, .owners = a->owners, .n_owners = a->n_owners, .warn = &j.warn};
	char text[64];
	int rc = -1;

	job_start(&j, a);
	s.policy.warn = &j.warn;
	if (!job_confine(&j, NULL, e) && !rewind_open(&j, REPLICA_CHANGE, e))
		rc = restore_run(&s, e);
	if (!rc) {
		snprintf(text, sizeof text, "%llu names looked at", (unsigned long long)s.n_objects);
		job_say(&j, text);
	}
	return job_end(&j, rc);
}
