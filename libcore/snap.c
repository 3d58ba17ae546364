#include "snap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backlog.h"
#include "clock.h"
#include "clones.h"
#include "freeze.h"
#include "guard.h"
#include "image.h"
#include "input.h"
#include "json.h"
#include "pending.h"
#include "providers.h"
#include "replica.h"
#include "snapshots.h"
#include "source.h"
#include "stamp.h"
#include "tap.h"
#include "volume.h"

#define SHOWN 300
#define NS ((int64_t)CLOCK_S)

void snap_free(struct snap *s) { head_free(&s->head); }

/* ---- members ---- */

struct member {
	char *name, *path;
	uint8_t kind;
};

static int member_cmp(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return span_cmp(span_cstr(x->name), span_cstr(y->name));
}

/* "NAME=ROOT" when what is before the first '=' could be a name; a path with one is written ./a=b. */
static int parse_member(struct member *m, const char *arg, bool is_only, struct err *e)
{
	const char *eq = strchr(arg, '=');
	bool is_named = eq && name_is_sane(span_of(arg, (size_t)(eq - arg)));
	const char *root = is_named ? eq + 1 : arg;
	struct stat st;
	char text[SHOWN];

	m->path = realpath(root, NULL);
	if (!m->path)
		return err_sys(e, "cannot find '%s'", esc_cut(text, sizeof text, span_cstr(root)));
	if (stat(m->path, &st))
		return err_sys(e, "cannot look at '%s'", esc_cut(text, sizeof text, span_cstr(root)));
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_USAGE, "'%s' is neither a directory nor a volume: a file or a block device",
			esc_cut(text, sizeof text, span_cstr(root)));
	m->kind = S_ISDIR(st.st_mode) ? MEMBER_TREE : MEMBER_VOLUME;
	if (strlen(m->path) > REC_TARGET_MAX)
		return err_set(e, ERR_USAGE, "the path of '%s' is too long", esc_cut(text, sizeof text, span_cstr(root)));
	if (is_named) {
		size_t n = (size_t)(eq - arg);
		m->name = xalloc(n + 1);
		memcpy(m->name, arg, n);
	} else {
		m->name = xstrdup(is_only && m->kind == MEMBER_TREE ? "" : strrchr(m->path, '/') + 1);
	}
	if (!is_only && !m->name[0])
		return err_set(e, ERR_USAGE, "'%s' needs a name: NAME=%s", root, root);
	if (!strcmp(m->name, ".repl"))
		return err_set(e, ERR_USAGE, "a member cannot have the name '.repl', which the replica needs: NAME=%s", root);
	return 0;
}

int snap_members(struct snap *s, const char *const *args, size_t n, struct err *e)
{
	struct member *m = xalloc((n + 1) * sizeof *m);
	char text[SHOWN];
	int rc = n ? 0 : err_set(e, ERR_USAGE, "which directory? give a ROOT");

	for (size_t i = 0; i < n && !rc; i++)
		rc = parse_member(&m[i], args[i], n == 1, e);
	if (!rc)
		qsort(m, n, sizeof *m, member_cmp);
	for (size_t i = 1; i < n && !rc; i++)
		if (!strcmp(m[i - 1].name, m[i].name))
			rc = err_set(e, ERR_USAGE, "two members have the name '%s': give one another with NAME=ROOT",
				esc_cut(text, sizeof text, span_cstr(m[i].name)));
	for (size_t i = 0; i < n; i++) {
		struct record r = {.type = REC_MEMBER};
		if (!rc) {
			r.u.member = (struct r_member){m[i].kind, span_cstr(m[i].name), span_cstr(m[i].path)};
			head_take(&s->head, &r);
		}
	}
	for (size_t i = 0; i < n; i++) {
		free(m[i].name);
		free(m[i].path);
	}
	free(m);
	return rc;
}

/* ---- the instant ---- */

static int sync_mounted(void *ctx, const char *point, struct err *e)
{
	AUTO_CLOSE int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[SHOWN];

	(void)ctx;
	return fd < 0 || syncfs(fd) ? err_sys(e, "cannot sync '%s'", esc_cut(text, sizeof text, span_cstr(point))) : 0;
}

/* What a store left in a page that was dirty already shows in no stat until the page is clean: clean them all. */
static int sync_members(const struct head *h, struct err *e)
{
	struct walk_root *roots = NULL;
	AUTO_FREE dev_t *devs = xalloc((h->n_members + 1) * sizeof *devs);
	size_t n_devs = 0;
	char text[SHOWN];
	int rc = head_open_live(h, &roots, e);

	for (size_t i = 0; i < h->n_members && !rc; i++) {
		struct stat st;
		size_t d = 0;
		if (fstat(roots[i].fd, &st)) {
			rc = err_sys(e, "cannot look at '%s'", esc_cut(text, sizeof text, h->members[i].path));
			break;
		}
		if (h->members[i].kind == MEMBER_VOLUME && (rc = volume_mounts(roots[i].fd, true, sync_mounted, NULL, e)))
			break;
		if (S_ISBLK(st.st_mode)) { /* what is written to a device is in its own pages, not in those of its node's filesystem */
			if (fsync(roots[i].fd))
				rc = err_sys(e, "cannot sync '%s'", esc_cut(text, sizeof text, h->members[i].path));
			continue;
		}
		while (d < n_devs && devs[d] != st.st_dev)
			d++;
		if (d < n_devs)
			continue;
		devs[n_devs++] = st.st_dev;
		if (syncfs(roots[i].fd))
			rc = err_sys(e, "cannot sync the filesystem of '%s'", esc_cut(text, sizeof text, h->members[i].path));
	}
	head_close_roots(&roots, h->n_members);
	return rc;
}

static int number_image(struct snap *s, struct r_image *i, struct err *e)
{
	struct catalog *c = NULL;

	memcpy(i->instance, s->state->instance, sizeof i->instance);
	if (state_catalog(s->state, CATALOG_READ, &c, e))
		return -1;
	int rc = catalog_id(c, &i->parent, e);
	catalog_close(&c);
	if (s->backlog.after)
		i->parent = s->backlog.after_id;
	return rc || state_next_seq(s->state, &i->seq, e) ? -1 : 0;
}

static void note(const struct snap *s, int level, const char *what, const char *why)
{
	AUTO_BUF struct buf text = {0};

	buf_fmt(&text, "%s: %s", what, why);
	if (s->note)
		s->note(s->ctx, level, buf_cstr(&text));
}

/* How far the recorder is. What it has not seen by now happens after this, and so perhaps after the image. */
static int ask_recorder(struct snap *s, struct err *e)
{
	AUTO_FREE char *journal = NULL;
	struct record r = {.type = REC_CURSOR};
	struct tap_cut cut;
	char reason[256];

	if (state_journal(s->state, &journal, e))
		return -1;
	if (!journal)
		return 0;
	if (tap_try_cut(journal, s->cut_timeout_ms, &cut, reason)) {
		memcpy(r.u.cursor.journal, cut.journal, sizeof cut.journal);
		r.u.cursor.seq = cut.seq;
		head_take(&s->head, &r);
	} else {
		note(s, 1, "the image does not say how far the recorder is", reason);
	}
	return 0;
}

struct mounted {
	const struct snap *s;
	const struct r_member *member;
};

/* What is read of a filesystem while it is written to is none: some of it is of one moment, and some of another. */
static int on_mounted(void *ctx, const char *point, struct err *e)
{
	const struct mounted *m = ctx;
	char text[SHOWN], where[SHOWN], what[2 * SHOWN + 64];

	esc_cut(text, sizeof text, m->member->path);
	esc_cut(where, sizeof where, span_cstr(point));
	snprintf(what, sizeof what, "'%s' is mounted on '%s' and may change while it is read", text, where);
	if (m->s->provider != SNAP_LIVE)
		return err_set(e, ERR_REFUSED, "%s: unmount it, or say --provider=live", what);
	note(m->s, 0, "torn, perhaps", what);
	return 0;
}

static int check_volumes(const struct snap *s, struct err *e)
{
	struct walk_root *roots = NULL;
	int rc = head_open_live(&s->head, &roots, e);

	for (size_t i = 0; i < s->head.n_members && !rc; i++) {
		struct mounted m = {s, &s->head.members[i]};
		if (m.member->kind == MEMBER_VOLUME)
			rc = volume_mounts(roots[i].fd, true, on_mounted, &m, e);
	}
	head_close_roots(&roots, s->head.n_members);
	return rc;
}

static bool must_be_snapshots(const struct snap *s) { return s->provider != SNAP_AUTO && s->provider != SNAP_LIVE; }

/* What makes the image's snapshots into *number: PROV_LIVE: there will be none. */
static int choose_provider(struct snap *s, uint8_t *number, struct err *e)
{
	static const uint8_t numbers[] = {[SNAP_AUTO] = PROV_BTRFS, [SNAP_BTRFS] = PROV_BTRFS,
		[SNAP_REFLINK] = PROV_REFLINK, [SNAP_EXEC] = PROV_EXEC};
	char reason[512];
	bool is_possible = false;

	*number = PROV_LIVE;
	if (!s->state || s->provider == SNAP_LIVE)
		return check_volumes(s, e);
	/* Of volumes clones are wanted, where there can be any: each is of one instant. */
	bool is_auto_clone = s->provider == SNAP_AUTO && head_has_only_volumes(&s->head);
	uint8_t how = is_auto_clone ? PROV_REFLINK : numbers[s->provider];
	int can = snapshots_can(providers_of(how), &s->head, &is_possible, reason, e);
	if (can < 0)
		return -1;
	if (!can && !must_be_snapshots(s)) {
		note(s, 1, "a live image", reason);
		return check_volumes(s, e);
	}
	if (!can && !is_possible)
		return err_set(e, ERR_USAGE, "%s", reason);
	if (!can)
		note(s, 0, "not in the image", reason);
	*number = how;
	return 0;
}

/* 1: the image is snapshots now; 0. */
static int take_snapshots(struct snap *s, const struct provider_run *run, struct err *e)
{
	char reason[512];
	int got = snapshots_take(s->state, &s->head, run, reason, e);

	if (got)
		return got;
	if (must_be_snapshots(s))
		return err_set(e, ERR_SYSTEM, "%s", reason);
	note(s, 1, "a live image", reason);
	return 0;
}

static int stamp(struct snap *s, uint8_t provider, struct err *e)
{
	struct record r = {.type = REC_IMAGE};
	char host[256] = "";

	if (gethostname(host, sizeof host - 1))
		host[0] = '\0';
	r.u.image = (struct r_image){.time_ns = clock_wall(), .provider = provider,
		.consistency = CONS_LIVE, .host = span_cstr(host)};
	if (s->bookmark)
		r.u.image.bookmark = span_cstr(s->bookmark);
	if (s->group)
		r.u.image.group = span_cstr(s->group);
	/* A time to come would make what is written until then look old. */
	if (s->has_time && s->time_ns > r.u.image.time_ns)
		return err_set(e, ERR_USAGE, "the image's time lies in the future");
	if (s->has_time)
		r.u.image.time_ns = s->time_ns;
	head_take(&s->head, &r);
	return 0;
}

/* Of a volume not the filesystem that it lies on, but what is mounted from it. */
static int freeze_mounted(void *ctx, const char *point, struct err *e)
{
	AUTO_CLOSE int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[SHOWN];

	if (fd < 0)
		return err_sys(e, "cannot open '%s'", esc_cut(text, sizeof text, span_cstr(point)));
	return freeze_add(ctx, fd, span_cstr(point), e);
}

/* What is to be frozen, and that nothing of ours is on it. */
static int plan_freeze(const struct snap *s, struct freeze *f, struct err *e)
{
	struct walk_root *roots = NULL;
	int rc = head_open_live(&s->head, &roots, e);

	for (size_t i = 0; i < s->head.n_members && !rc; i++)
		rc = s->head.members[i].kind == MEMBER_VOLUME ? volume_mounts(roots[i].fd, true, freeze_mounted, f, e) :
			freeze_add(f, roots[i].fd, s->head.members[i].path, e);
	head_close_roots(&roots, s->head.n_members);
	if (rc || (s->state && freeze_spare(f, s->state->fd, "the state directory", e)))
		return -1;
	return freeze_spare(f, s->out_fd, "the output", e) || freeze_spare(f, s->log_fd, "what standard error goes to", e) ? -1 : 0;
}

/* 1: the applications are still; 0: nobody asked, or they need not be; -1. */
static int quiesce(const struct snap *s, struct guard *g, struct err *e)
{
	struct err why = {0};

	if (!guard_quiesce(g, &why))
		return s->quiesce != NULL;
	if (!s->is_crash_enough)
		return err_set(e, why.kind, "no image: %s", why.text);
	note(s, 0, "the applications are not quiesced", why.text);
	return 0;
}

static struct provider_run run_of(const struct snap *s, const struct guard *g)
{
	struct provider_run run = s->state && s->state->run ? *s->state->run : (struct provider_run){0};

	run.program = s->program;
	run.running = g->shared ? guard_running(g) : NULL;
	return run;
}

/* What a snapshot of all members is worth: of one instant, unless there are several and they were not still. */
static void say_consistency(struct snap *s, bool is_still, bool is_frozen)
{
	const struct provider *p = providers_of(s->head.stamps.provider);
	bool is_one = p->is_of_one_instant || head_has_only_volumes(&s->head);
	struct r_image *i = &s->head.stamps;

	i->consistency = is_still ? CONS_APP : is_one && (is_frozen || s->head.n_members == 1) ? CONS_CRASH : CONS_LIVE;
	if (i->consistency != CONS_LIVE)
		return;
	note(s, 1, "a live image", is_one ? "the members' snapshots are not of one instant" :
		"each file of the snapshot is of one instant, not all of them");
}

/* The image's instant, at which it gets its number and time; 1: it is snapshots. */
static int take_instant(struct snap *s, struct guard *g, struct err *e)
{
	const struct provider *p = providers_of(s->head.stamps.provider);
	bool has_guard = g->quiesce || g->resume || g->freeze || (p && p->runs_programs);
	int is_still = 0;

	if (has_guard && (guard_start(g, e) || (is_still = quiesce(s, g, e)) < 0))
		return -1;
	if (s->state && number_image(s, &s->head.stamps, e))
		return -1;
	const struct provider_run run = run_of(s, g);
	if (p && snapshots_prepare(s->state, &s->head, &run, e))
		return -1;
	if (g->freeze && guard_freeze(g, e))
		return -1;
	if (!s->has_time)
		s->head.stamps.time_ns = clock_wall();
	if (!p)
		return 0;
	int got = take_snapshots(s, &run, e);
	if (got == 1)
		say_consistency(s, is_still, g->freeze != NULL);
	return got;
}

/* The same with all that holds still round it. */
static int hold_instant(struct snap *s, struct err *e)
{
	struct freeze f = {0};
	struct guard g = {.quiesce = s->quiesce, .resume = s->resume, .command_ms = s->quiesce_ms, .freeze_ms = s->freeze_ms,
		.log_fd = s->log_fd, .lock_fd = s->state ? s->state->lock_fd : -1};
	int got = -1;

	const struct provider *p = providers_of(s->head.stamps.provider);

	/* Of a volume the filesystem on it is frozen, not the one that the clone is made in. */
	if (s->is_freeze && p && !p->can_be_frozen && !head_has_only_volumes(&s->head))
		note(s, 1, "not frozen", p->is_of_one_instant ?
			"a btrfs snapshot is of one instant by itself, and none can be taken while the filesystem is frozen" :
			"no clones can be made while the filesystem is frozen");
	else if (s->is_freeze)
		g.freeze = &f;
	if (!g.freeze || !plan_freeze(s, &f, e))
		got = take_instant(s, &g, e);
	if (guard_end(&g, &s->undone, e))
		got = -1;
	freeze_free(&f);
	s->quiesced_ns = g.quiesced_ns;
	s->frozen_ns = g.frozen_ns;
	return got;
}

static int open_image(struct snap *s, struct err *e)
{
	if (s->state && ask_recorder(s, e))
		return -1;
	uint8_t provider;
	if (choose_provider(s, &provider, e))
		return -1;
	/* Of a snapshot nothing moves its instant away from the clock, and nothing is frozen for long: what is dirty goes to the disk
	 * before. Of a live image the clock is read first: what is written while the sync runs counts as written after the image. */
	if (((provider != PROV_LIVE || s->is_freeze) && sync_members(&s->head, e)) || stamp(s, provider, e))
		return -1;
	int is_snapshot = hold_instant(s, e);
	if (is_snapshot < 0)
		return -1;
	if (!is_snapshot) {
		s->head.stamps.provider = PROV_LIVE;
		s->head.stamps.consistency = CONS_LIVE;
		if (sync_members(&s->head, e))
			return -1;
	} else if (snapshots_settle(s->state, &s->head, e)) {
		return -1;
	}
	return s->state ? state_save_image(s->state, &s->head, e) : 0;
}

/* Snapshots that nobody needs go before there are more, and once this image has replaced the one that was under way. */
int snap_open_image(struct snap *s, struct err *e)
{
	if (!s->state)
		return open_image(s, e);
	if (state_lock(s->state, s->lock_wait, e))
		return -1;
	snapshots_tend(s->state);
	snapshots_settle_base(s->state);
	bool is_follower = s->state->follow_fd >= 0;
	int rc = (!is_follower && state_follow(s->state, e)) || backlog_ask(&s->backlog, s->state, &s->head, e) || open_image(s, e) ? -1 : 0;
	/* In this order: as long as an image is the one under way, what it follows is known. */
	if (!rc && !is_follower)
		rc = pending_follows(s->state, s->head.stamps.seq, s->backlog.after, e);
	if (!is_follower)
		state_unfollow(s->state);
	snapshots_tend(s->state);
	state_unlock(s->state);
	return rc;
}

/* ---- whole images ---- */

int snap_write_image(struct catalog *c, const struct head *h, struct stream_out *o, struct err *e)
{
	struct head with_id = *h; /* borrows */

	return catalog_id(c, &with_id.stamps.id, e) || head_put(&with_id, o, KIND_IMAGE, e) || image_write(c, o, false, e) ? -1 : 0;
}

static int write_catalog(struct catalog *c, const char *path, struct stream_out *o, struct err *e)
{
	struct head h = {0};
	struct record r = {.type = REC_IMAGE};
	AUTO_BUF struct buf store = {0};
	AUTO_FREE char *real = realpath(path, NULL);
	int got = image_stamps(c, &r.u.image, &store, e);

	if (got < 0)
		return -1;
	head_take(&h, &r);
	r = (struct record){.type = REC_MEMBER, .u.member = {.kind = MEMBER_TREE, .path = span_cstr(real ? real : path)}};
	head_take(&h, &r);
	int rc = snap_write_image(c, &h, o, e);
	head_free(&h);
	return rc;
}

int snap_replica_image(const char *path, struct stream_out *o, struct err *e)
{
	AUTO_BUF struct buf file = {0};
	struct replica r = {0};
	char text[SHOWN];

	buf_fmt(&file, "%s/" REPLICA_CTL "/catalog", path);
	if (access(buf_cstr(&file), F_OK)) {
		if (errno == ENOENT || errno == ENOTDIR)
			return 0;
		return err_sys(e, "cannot look at the replica '%s'", esc_cut(text, sizeof text, span_cstr(path)));
	}
	/* Nobody may land an image while its catalog is read. */
	int rc = replica_open(&r, path, REPLICA_READ, e) || replica_share(&r, e) || replica_catalog(&r, CATALOG_READ, e) ||
		write_catalog(r.cat, path, o, e);
	/* Before the stream is whole: who waits for its end may be about to change the replica. */
	replica_close(&r);
	return rc || stream_finish(o, e) ? -1 : 1;
}

/* ---- acknowledgements ---- */

/* Where the base's members are, which may be others from now on. */
static void base_head(const struct state *s, struct head *h)
{
	struct catalog *c = NULL;
	struct err ignored = {0};

	if (!state_catalog(s, CATALOG_READ, &c, &ignored))
		head_of(h, c, &ignored);
	catalog_close(&c);
}

static int commit_all(struct state *s, const struct buf *ids, unsigned wait, struct snap_acks *acks, struct err *e)
{
	struct rd r = rd_of(ids->p, ids->len);
	struct head was = {0};
	int rc = ids->len ? state_lock(s, wait, e) : 0;

	if (!rc && ids->len)
		base_head(s, &was);

	while (!rc && r.len) {
		struct digest id;
		bool done = false;
		rd_copy(&r, id.b, sizeof id.b);
		uint64_t seq = rd_u64(&r);
		rc = pending_commit(s, &id, seq, &done, e);
		if (!rc)
			++*(done ? &acks->committed : &acks->already);
	}
	if (!rc && ids->len) {
		clones_tend(s, &was, false);
		snapshots_tend(s);
		rc = backlog_forget(acks->queue, s, &acks->removed, e);
	}
	head_free(&was);
	state_unlock(s);
	return rc;
}

static void say_loss(const struct warn *w, const struct r_loss *l)
{
	char kind[64], example[SHOWN];

	esc_cut(kind, sizeof kind, l->kind);
	esc_cut(example, sizeof example, l->example);
	warn_say(w, "loss", "the replica could not keep '%s' of %" PRIu64 " objects, such as '%s'", kind, l->count, example);
}

#define ACKS_MAX 65536u /* repl-apply writes one in a stream */
#define ACK_LEN (DIGEST_LEN + 8u)

static void keep_answer(const struct state *s, const struct r_ack *a, struct buf *ids)
{
	buf_add(ids, a->id.b, sizeof a->id.b);
	wr_u64(ids, memcmp(a->instance, s->instance, sizeof a->instance) ? 0 : a->seq);
}

int snap_commit(struct state *s, int fd, unsigned wait, const struct warn *warn, struct snap_acks *acks, struct err *e)
{
	AUTO_BUF struct buf ids = {0};
	struct input in = {.timeout_ms = acks->timeout_ms};
	int got;

	if (input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_mac = true; /* it came back over the connection that we opened */
	while ((got = input_next(&in, e)) > 0) {
		const struct record *r = &in.s.rec;
		if (got == STREAM_BEGIN && in.s.kind != KIND_ACK) {
			got = err_set(e, ERR_STREAM, "this is a stream of kind '%s': repl-snap --commit reads what repl-apply answers",
				kind_name(in.s.kind));
			break;
		}
		if (got == STREAM_RECORD && r->type == REC_ACK) {
			if (r->u.ack.action == ACK_HELD)
				acks->held++;
			else if (ids.len < ACKS_MAX * ACK_LEN)
				keep_answer(s, &r->u.ack, &ids);
			else
				got = err_set(e, ERR_STREAM, "more than %u answers in one stream", ACKS_MAX);
		} else if (got == STREAM_RECORD && r->type == REC_LOSS) {
			say_loss(warn, &r->u.loss);
		} else if (got == STREAM_END) {
			if (commit_all(s, &ids, wait, acks, e)) {
				got = -1;
				break;
			}
			buf_reset(&ids);
		}
		if (got < 0)
			break;
	}
	input_close(&in);
	if (!got && !acks->committed && !acks->already && !acks->held)
		return err_set(e, ERR_STREAM, "the answer acknowledges no image");
	return got < 0 ? -1 : 0;
}

int snap_adopt(struct state *s, int fd, unsigned wait, struct digest *id, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "next");
	struct catalog *c = NULL;
	struct input in = {0};
	int rc = -1;

	if (state_lock(s, wait, e) || input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_mac = true; /* it came over a connection that we opened */
	if (unlink(path) && errno != ENOENT)
		err_sys(e, "cannot remove '%s'", path);
	else if (!catalog_open(&c, path, CATALOG_PRIVATE, e) && !source_load(c, &in, e) && !catalog_id(c, id, e))
		rc = catalog_settle(c, e);
	catalog_close(&c);
	input_close(&in);
	if (rc)
		unlink(path);
	if (rc || pending_take_next(s, id, e) < 0)
		return -1;
	snapshots_tend(s);
	return 0;
}

int snap_again(struct state *s, unsigned wait, struct head *h, struct err *e)
{
	struct walk_root *roots = NULL;
	struct err why = {0};

	if (state_load_image(s, h, e))
		return -1;
	/* Whether it can be read is for who reads it; only what can be helped is helped here. */
	if (head_is_still(h) && head_open_roots(h, &roots, &why)) {
		if (state_lock(s, wait, e))
			return -1;
		int rc = snapshots_settle(s, h, e);
		state_unlock(s);
		return rc;
	}
	head_close_roots(&roots, h->n_members);
	return 0;
}

int snap_abort(struct state *s, unsigned wait, struct err *e)
{
	if (state_lock(s, wait, e))
		return -1;
	clones_tend(s, NULL, true);
	if (pending_abort(s, e))
		return -1;
	snapshots_tend(s);
	return 0;
}

/* ---- the list ---- */

struct row {
	const char *what;
	bool is_there, has_id;
	struct digest id;
	struct r_image stamps;
};

static void put_row(struct buf *b, const struct row *w, bool json)
{
	const struct digest *id = w->has_id ? &w->id : NULL;

	if (!w->is_there)
		buf_fmt(b, json ? "\"%s\":null" : "%-8s none\n", w->what);
	else if (json)
		stamp_json(b, w->what, id, &w->stamps);
	else
		stamp_text(b, w->what, id, &w->stamps);
}

static int base_row(const struct state *s, struct row *w, struct buf *store, struct err *e)
{
	struct catalog *c = NULL;

	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	w->is_there = w->has_id = !catalog_is_empty(c);
	int rc = w->is_there && (catalog_id(c, &w->id, e) || image_stamps(c, &w->stamps, store, e) < 0) ? -1 : 0;
	catalog_close(&c);
	return rc;
}

static int pending_row(const struct state *s, struct row *w, struct head *h, struct err *e)
{
	struct pending p;
	int got = pending_last(s, &p, e);

	if (got < 0 || !state_has(s, "image"))
		return got < 0 ? -1 : 0;
	if (state_load_image(s, h, e))
		return -1;
	w->is_there = true;
	w->stamps = h->stamps;
	w->has_id = got && p.seq == h->stamps.seq;
	w->id = p.id;
	return 0;
}

struct shown {
	struct buf *out;
	bool json;
	size_t n;
};

static void show_snapshot(void *ctx, const struct snapshots_one *one)
{
	struct shown *v = ctx;

	if (v->json) {
		buf_fmt(v->out, "%s{\"seq\":%" PRIu64 ",\"provider\":", v->n++ ? "," : "", one->seq);
		json_string(v->out, span_cstr(one->provider));
		buf_str(v->out, ",\"path\":");
		json_string(v->out, span_cstr(one->path));
		buf_str(v->out, "}");
		return;
	}
	buf_fmt(v->out, "snapshot seq %" PRIu64 " ", one->seq);
	esc_name(v->out, span_cstr(one->provider));
	buf_str(v->out, " ");
	esc_name(v->out, span_cstr(one->path));
	buf_str(v->out, "\n");
}

/* How old what the replica has is, and how much older than the image that is on its way. */
static void put_lag(struct buf *out, const struct row *base, const struct row *pending, bool json)
{
	const int64_t then = base->stamps.time_ns, sent = pending->stamps.time_ns;

	if (!base->is_there || !then) {
		buf_str(out, json ? "\"age\":null,\"lag\":null," : "");
		return;
	}
	int64_t age = clock_wall() / NS - then / NS, lag = pending->is_there && sent ? (sent - then) / NS : 0;
	buf_fmt(out, json ? "\"age\":%" PRId64 ",\"lag\":%" PRId64 "," : "age      %" PRId64 " s\nlag      %" PRId64 " s\n", age, lag);
}

int snap_list(const struct state *s, const char *queue, bool json, struct buf *out, struct err *e)
{
	struct row base = {.what = "base"}, pending = {.what = "pending"};
	struct head h = {0};
	AUTO_BUF struct buf store = {0};
	char id[2 * sizeof s->instance + 1];
	uint64_t seq;
	int rc = base_row(s, &base, &store, e) || pending_row(s, &pending, &h, e) || state_seq(s, &seq, e) ? -1 : 0;

	if (!rc) {
		hex(id, s->instance, sizeof s->instance);
		buf_fmt(out, json ? "{\"instance\":\"%s\",\"seq\":%" PRIu64 "," : "instance %s\nseq      %" PRIu64 "\n", id, seq);
		put_row(out, &base, json);
		if (json)
			buf_str(out, ",");
		put_row(out, &pending, json);
		if (json)
			buf_str(out, ",");
		put_lag(out, &base, &pending, json);
		struct shown v = {out, json, 0};
		rc = backlog_list(queue, json, out, e);
		buf_str(out, json ? "\"snapshots\":[" : "");
		if (!rc)
			rc = snapshots_each(s, show_snapshot, &v, e);
		buf_str(out, json ? "]}\n" : "");
	}
	head_free(&h);
	return rc;
}
