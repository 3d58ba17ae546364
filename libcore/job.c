#include "job.h"

#include <grp.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "confine.h"

/* ---- losses ---- */

static void count_loss(void *ctx, const char *kind, const char *text)
{
	struct job *j = ctx;
	size_t i = 0;

	while (i < j->n_losses && strcmp(j->losses[i].kind, kind))
		i++;
	if (i == j->n_losses && i < MAX_LOSSES) {
		snprintf(j->losses[i].kind, sizeof j->losses[i].kind, "%s", kind);
		snprintf(j->losses[i].example, sizeof j->losses[i].example, "%s", text);
		j->n_losses++;
	}
	if (i < j->n_losses)
		j->losses[i].count++;
	if (j->a->warn && j->a->warn->say)
		j->a->warn->say(j->a->warn->ctx, kind, text);
}

int job_acknowledge(struct job *j, uint8_t action, const struct digest *id, uint64_t created, uint64_t changed,
	uint64_t removed, uint64_t bytes, struct err *e)
{
	struct stream_out *o = j->a->ack;
	struct record r = {.type = REC_ACK};

	if (j->a->dry || !o) {
		j->n_losses = 0;
		return 0;
	}
	r.u.ack = (struct r_ack){.id = *id, .base = j->base, .time_ns = j->time_ns, .seq = j->seq, .action = action,
		.created = created, .changed = changed, .removed = removed, .bytes = bytes};
	memcpy(r.u.ack.instance, j->instance, 16);
	if (stream_begin(o, KIND_ACK, e) || stream_put(o, &r, e))
		return -1;
	for (size_t i = 0; i < j->n_losses; i++) {
		r = (struct record){.type = REC_LOSS};
		r.u.loss = (struct r_loss){span_cstr(j->losses[i].kind), j->losses[i].count, span_cstr(j->losses[i].example)};
		if (stream_put(o, &r, e))
			return -1;
	}
	j->n_losses = 0;
	return stream_finish(o, e);
}

void job_say(struct job *j, const char *text)
{
	if (j->a->note)
		j->a->note(j->a->ctx, text);
}

/* ---- giving up what is not needed ---- */

/* Looks up who does not exist, so that the C library loads all that it asks for names while it still can. */
static void load_name_services(void)
{
	char text[4096];
	struct passwd p, *user;
	struct group g, *group;

	getpwnam_r("repl-apply?", &p, text, sizeof text, &user);
	getgrnam_r("repl-apply?", &g, text, sizeof text, &group);
}

/* The directory, or the one that it will be made in; copy: room for the latter's name. */
static const char *made_in(const char *path, char *copy) { return access(path, F_OK) == 0 ? path : dirname(copy); }

/* While they can still be looked for. */
static int load_places(struct job *j, struct err *e)
{
	const struct apply *a = j->a;

	if (where_load(&j->r.where, a->path, e))
		return -1;
	for (size_t i = 0; i < a->n_places; i++)
		if (where_add(&j->r.where, a->places[i], !a->dry, e))
			return -1;
	return 0;
}

/* From here on there is the replica and `into` (NULL: none), and the folder for temporary files; and the process may look at
 * itself, as sanitizers do. */
int job_confine(struct job *j, const char *into, struct err *e)
{
	struct apply *a = j->a;
	bool no_nodes = a->policy.no_devices;
	AUTO_FREE char *copy = xstrdup(a->path), *copy_into = xstrdup(into ? into : a->path);
	const struct where *w = &j->r.where;
	struct confine_dir few[] = {{made_in(a->path, copy), false, no_nodes},
		{made_in(into ? into : a->path, copy_into), false, no_nodes}, {a->tmpdir, false, true}, {"/proc/self", true, true},
		{"/etc/passwd", true, true}, {"/etc/group", true, true}, {"/etc/nsswitch.conf", true, true}};
	size_t n = sizeof few / sizeof few[0] - (a->map_names ? 0 : 3);
	char text[64];

	if (load_places(j, e))
		return -1;
	if (!a->confine)
		return 0;
	if (a->map_names)
		load_name_services();
	AUTO_FREE struct confine_dir *dirs = xalloc((n + w->n) * sizeof *dirs);
	memcpy(dirs, few, n * sizeof *dirs);
	for (size_t i = 0; i < w->n; i++)
		dirs[n + i] = (struct confine_dir){w->v[i].path, false, no_nodes || !w->v[i].is_tree};
	int abi = confine_to(dirs, n + w->n, e);
	if (abi < 0)
		return -1;
	snprintf(text, sizeof text, abi ? "confined to the replica (Landlock ABI %d)" : "not confined: no Landlock here", abi);
	job_say(j, text);
	return 0;
}

/* ---- beginning and end ---- */

void job_start(struct job *j, struct apply *a)
{
	*j = (struct job){.a = a, .plan_fd = -1, .stage = {.fd = -1, .src_fd = -1, .base_fd = -1}, .warn = {count_loss, j},
		.r = REPLICA_CLOSED};
}

/* What was not decided goes at once, so that a full disk is freed; but part of a delta may wait for its rest. */
int job_end(struct job *j, int rc)
{
	if (rc && !j->a->dry && j->r.room.stage >= 0 && j->r.cat && !replica_has(&j->r, "commit")) {
		struct err ignored = {0};
		stage_free(&j->stage);
		replica_drop(&j->r, "plan.new", &ignored);
		if (j->is_staged || !replica_has(&j->r, "partial"))
			replica_discard(&j->r, &ignored);
	}
	stage_free(&j->stage);
	sink_free(&j->sink);
	stream_out_free(&j->plan);
	close_fd(&j->plan_fd);
	free(j->refs);
	replica_close(&j->r);
	return rc;
}
