#include "apply.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "diff.h"
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

/* ---- adopting ---- */

static int drop_bytes(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)ctx;
	(void)v;
	(void)n;
	(void)e;
	return 0;
}

static int adopt_next(void *ctx, uint64_t items, uint64_t bytes, struct catalog **next, struct err *e)
{
	struct job *j = ctx;
	AUTO_FREE char *path = replica_file(&j->r, "next");

	(void)items;
	(void)bytes;
	if (catalog_open(&j->next, path, CATALOG_PRIVATE, e))
		return -1;
	*next = j->next;
	return 0;
}

/* A delta that was decided is finished first, or it would be finished later on top of what was adopted. Without the catalog that it
 * started from it cannot be; then what it moved out of the way goes. The record of it goes first: what is left is a tree without a
 * catalog, which nobody takes for a replica. */
static int settle_decided(struct job *j, struct err *e)
{
	struct replica *r = &j->r;

	if (!replica_has(r, "commit") && !replica_has(r, "goal"))
		return 0;
	if (replica_has(r, "catalog")) {
		int rc = rewind_recover(j, e);
		catalog_close(&r->cat);
		return rc;
	}
	job_say(j, "discarded a delta that had been interrupted");
	return replica_drop(r, "commit", e) || replica_drop(r, "goal", e) || fsync(r->ctl) || replica_drop(r, "detached", e) ||
		replica_discard(r, e) ? -1 : 0;
}

int apply_adopt(struct apply *a, struct err *e)
{
	struct job j;
	struct stream_out null_a = {.sink = drop_bytes}, null_b = {.sink = drop_bytes};
	struct catalog *empty = NULL;
	AUTO_FREE char *base_path = NULL, *next_path = NULL;
	int rc = -1;

	job_start(&j, a);
	if (job_confine(&j, NULL, e) || replica_open(&j.r, a->path, REPLICA_ADOPT, e) || settle_decided(&j, e))
		goto out;
	if (j.r.where.n) {
		err_set(e, ERR_REFUSED, "'%s' has volumes that stand elsewhere, and cannot be adopted: begin another replica with --where "
			"and a full copy", a->path);
		goto out;
	}
	base_path = replica_file(&j.r, "empty");
	next_path = replica_file(&j.r, "next");
	unlink(base_path);
	unlink(next_path);
	if (catalog_open(&empty, base_path, CATALOG_PRIVATE, e))
		goto out;
	struct walk_root root = {"", j.r.root};
	struct r_member member = {.kind = MEMBER_TREE};
	struct diff d = {.base = empty, .roots = &root, .n_roots = 1, .members = &member, .out = &null_a, .plan = &null_b,
		.next = adopt_next, .ctx = &j, .tmpdir = a->tmpdir, .warn = &j.warn, .image_only = true};
	if (diff_run(&d, e))
		goto out;
	if (catalog_settle(j.next, e))
		goto out;
	catalog_close(&j.next);
	if (replica_replace(&j.r, &d.id, e))
		goto out;
	a->n_created = d.n_created;
	rc = job_acknowledge(&j, ACK_ADOPTED, &d.id, d.n_created, 0, 0, 0, e);
out:
	catalog_close(&empty);
	catalog_close(&j.next);
	if (base_path)
		unlink(base_path);
	if (rc && next_path)
		unlink(next_path);
	stream_out_free(&null_a);
	stream_out_free(&null_b);
	return job_end(&j, rc);
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
