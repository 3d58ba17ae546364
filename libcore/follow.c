#include "follow.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "image.h"
#include "input.h"
#include "path.h"
#include "pending.h"
#include "sink.h"
#include "tap.h"
#include "track.h"

#define ASK_MS 1000u      /* so long we wait for the recorder before we look whether anybody still listens */
#define AGAIN_MS 5000u    /* a recorder that does not answer is asked again after this */
#define UNSETTLED_MS 2000u /* where writing goes on for so long, an image is opened all the same */
#define TICK_MS 10u
#define SLOW_TICK_MS 100u
#define COPY_LEN 65536u

static void sleep_ms(uint64_t ms)
{
	const struct timespec t = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

/* ---- waiting ---- */

/* What is known of the last image: when it was, and how far the recorder was then. */
struct last {
	bool is_there, has_cursor;
	uint64_t at_ms;
	struct tap_cut cut;
};

static void take_last(struct last *l, const struct head *h)
{
	l->is_there = true;
	l->at_ms = h->stamps.time_ns > 0 ? (uint64_t)h->stamps.time_ns / 1000000 : 0;
	if (!h->has_cursor)
		return;
	l->has_cursor = true;
	l->cut.seq = h->cursor.seq;
	memcpy(l->cut.journal, h->cursor.journal, sizeof l->cut.journal);
}

/* One that is under way counts: where its answer does not come the caller must not be sent to try again at once. */
static int find_last(struct state *s, struct last *l, struct err *e)
{
	struct catalog *c = NULL;
	struct head h = {0};
	int got;

	*l = (struct last){0};
	if (state_lock(s, 10, e))
		return -1;
	got = state_catalog(s, CATALOG_READ, &c, e) ? -1 : head_of(&h, c, e);
	catalog_close(&c);
	if (got > 0)
		take_last(l, &h);
	head_free(&h);
	if (got >= 0 && state_has(s, "image")) {
		got = state_load_image(s, &h, e);
		if (!got)
			take_last(l, &h);
		head_free(&h);
	}
	state_unlock(s);
	return got < 0 ? -1 : 0;
}

static bool is_enough(struct follow_wait *w, const struct last *l, const struct tap_wait *t)
{
	w->got_names = t->got_names;
	w->got_bytes = t->got_bytes;
	return memcmp(t->now.journal, l->cut.journal, sizeof l->cut.journal) || (w->names && t->got_names >= w->names) ||
		(w->bytes && t->got_bytes >= w->bytes);
}

int follow_wait(struct follow_wait *w, struct err *e)
{
	AUTO_FREE char *journal = NULL;
	struct last l;
	bool wants_record = w->names || w->bytes;
	char said[256] = "", reason[256];

	if (find_last(w->state, &l, e) || state_journal(w->state, &journal, e))
		return -1;
	if (!journal && wants_record && !w->interval_ms)
		return err_set(e, ERR_GAP, "nobody records what changes: give repl-track -j JOURNAL once, or an interval");
	if (!l.is_there)
		return 0;
	for (;;) {
		uint64_t now = (uint64_t)clock_wall() / 1000000, left = ASK_MS * 60;
		/* A clock that was set back must not make us wait for longer. */
		uint64_t since = min_u64(l.at_ms, now);
		if (w->interval_ms && now - since >= w->interval_ms)
			return 0;
		if (w->interval_ms)
			left = min_u64(left, w->interval_ms - (now - since));
		if (!journal || !wants_record) {
			sleep_ms(left);
			continue;
		}
		struct tap_wait t = {.since = l.cut, .names = w->names, .bytes = w->bytes, .max_ms = left};
		int got = tap_wait(journal, &t, reason, e);
		if (got < 0)
			return -1;
		if (got && (!l.has_cursor || is_enough(w, &l, &t)))
			return 0;
		if (got)
			continue;
		if (!w->interval_ms)
			return err_set(e, ERR_GAP, "there is no record: %s", reason);
		if (strcmp(said, reason))
			w->say(w->ctx, 1, reason);
		memcpy(said, reason, sizeof said);
		sleep_ms(min_u64(left, AGAIN_MS));
	}
}

/* ---- following: who listens ---- */

/* Waits; ERR_SYSTEM with EPIPE as soon as nobody reads any more. */
static int rest(const struct follow *f, uint64_t ms, struct err *e)
{
	struct pollfd out = {.fd = f->out->fd};

	if (poll(&out, 1, (int)min_u64(ms, 3600000)) <= 0 || !(out.revents & (POLLERR | POLLHUP)))
		return 0;
	errno = EPIPE;
	return err_sys(e, "cannot write %s", f->out->name);
}

/* Until repl-diff has made its delta of the last image: then there is a plan for it, or it is the base already. */
static int wait_for_delta(struct follow *f, struct err *e)
{
	uint64_t began = clock_ms();

	while (!f->has_delta) {
		struct pending p = {0};
		int got = pending_last(f->state, &p, e);
		if (got < 0)
			return -1;
		f->has_delta = (got && p.seq >= f->last.stamps.seq) || !state_has(f->state, "image");
		if (!f->has_delta && rest(f, clock_ms() - began < 1000 ? TICK_MS : SLOW_TICK_MS, e))
			return -1;
	}
	return 0;
}

/* ---- following: what changed ---- */

/* The catalog of the last image; and what the base needs of the journal, should we be broken off. */
static int open_tip(struct follow *f, struct err *e)
{
	struct catalog *c = NULL;
	AUTO_BUF struct buf store = {0};

	if (state_lock(f->state, f->snap.lock_wait, e))
		return -1;
	int rc = pending_tip(f->state, f->last.stamps.seq, e) || state_catalog(f->state, CATALOG_READ, &c, e) ? -1 : 0;
	int got = rc ? -1 : image_cursor(c, &f->keeps, &store, e);
	f->keeps.consumer = (struct span){0};
	f->has_keeps = got == 1;
	catalog_close(&c);
	state_unlock(f->state);
	return got < 0 ? -1 : 0;
}

/* The list of what changed since the last image, which is the base the first time. */
static int list(struct follow *f, const struct head *h, int fd, const char *journal, struct err *e)
{
	struct sink sink = {.fd = fd, .name = f->out->name};
	struct stream_out out = {.sink = sink_write, .ctx = &sink};
	struct track *t = f->track;
	bool is_first = !f->last.has_image;

	t->state = f->state;
	t->head = h;
	t->journal = journal;
	t->out = &out;
	t->file = is_first ? NULL : "tip";
	t->keeps = !is_first && f->has_keeps ? &f->keeps : NULL;
	int rc = track_run(t, e) || sink_flush(&sink, e) ? -1 : 0;
	stream_out_free(&out);
	sink_free(&sink);
	return rc;
}

/* The way of the state directory in the streams' names, when it lies in a member. */
static bool own_path(const struct follow *f, struct buf *path)
{
	AUTO_FREE char *real = realpath(f->state->path, NULL);

	for (size_t i = 0; real && i < f->last.n_members; i++) {
		const struct r_member *m = &f->last.members[i];
		size_t n = m->path.len == 1 ? 0 : m->path.len;
		if (strncmp(real, (const char *)m->path.p, n) || real[n] != '/')
			continue;
		buf_reset(path);
		buf_add(path, m->name.p, m->name.len);
		path_push(path, span_cstr(real + n + 1));
		return true;
	}
	return false;
}

struct level {
	uint64_t ref;
	size_t len; /* of its path */
};

/* *found: the stream names something that is not below `own`. */
static int look(int fd, struct span own, bool *found, struct err *e)
{
	struct input in = {0};
	AUTO_BUF struct buf levels = {0}, path = {0};
	int got;

	if (lseek(fd, 0, SEEK_SET) || input_open(&in, fd, 1, e))
		return e->kind ? -1 : err_sys(e, "cannot read a temporary file");
	while ((got = input_next(&in, e)) > 0 && got != STREAM_END && !*found) {
		const struct record *r = &in.s.rec;
		bool is_name = got == STREAM_RECORD && (r->type == REC_DIR || r->type == REC_CHANGED);
		*found = got == STREAM_RECORD && (r->type == REC_GAP || r->type == REC_INODE);
		if (!is_name)
			continue;
		uint64_t parent = r->type == REC_DIR ? r->u.dir.parent : r->u.changed.parent;
		struct level l = {0};
		while (levels.len) {
			memcpy(&l, levels.p + levels.len - sizeof l, sizeof l);
			if (l.ref == parent)
				break;
			levels.len -= sizeof l;
		}
		path.len = levels.len ? l.len : 0;
		struct span name = r->type == REC_DIR ? r->u.dir.name : r->u.changed.name;
		if (name.len)
			path_push(&path, name);
		if (r->type == REC_DIR) {
			l = (struct level){r->u.dir.ref, path.len};
			buf_add(&levels, &l, sizeof l);
		} else {
			*found = path.len < own.len || memcmp(path.p, own.p, own.len) || (path.len > own.len && path.p[own.len] != '/');
		}
	}
	input_close(&in);
	return got < 0 ? -1 : 0;
}

/* Where the state lies in the tree, every image changes it, and that must not be the reason for the next one. */
static int is_worth_it(struct follow *f, const char *journal, struct span own, bool *is, struct err *e)
{
	AUTO_CLOSE int fd = file_temp(f->track->tmpdir);
	if (fd < 0)
		return err_sys(e, "cannot make a temporary file");
	*is = false;
	return list(f, &f->last, fd, journal, e) || look(fd, own, is, e) ? -1 : 0;
}

static void say_why(struct follow *f, const char *reason)
{
	AUTO_BUF struct buf text = {0};

	if (!strcmp(f->reason, reason))
		return;
	snprintf(f->reason, sizeof f->reason, "%s", reason);
	buf_fmt(&text, "%s: looking every %.1f s instead", reason, (double)f->interval_ms / 1000);
	f->say(f->ctx, 0, buf_cstr(&text));
}

static void on_note(void *ctx, int level, const char *text)
{
	(void)level;
	say_why(ctx, text);
}

/* Asks the recorder until there is a change since `cut`, which settles. 1; 0: it does not answer, or time is up; -1. */
static int hear(struct follow *f, const char *journal, const struct tap_cut *cut, uint64_t until, struct err *e)
{
	char reason[256];

	for (;;) {
		uint64_t now = clock_ms();
		struct tap_wait w = {.since = *cut, .names = 1, .max_ms = min_u64(ASK_MS, until > now ? until - now : 0)};
		int got = rest(f, 0, e) ? -1 : tap_wait(journal, &w, reason, e);
		if (got == 1 && !w.got_names && !memcmp(w.now.journal, cut->journal, sizeof cut->journal)) {
			if (clock_ms() >= until)
				return 0;
			continue;
		}
		if (got == 1) {
			w.settle_ms = f->settle_ms;
			w.max_ms = UNSETTLED_MS;
			got = f->settle_ms ? tap_wait(journal, &w, reason, e) : 1;
		}
		if (got == 1)
			f->reason[0] = '\0';
		else if (!got)
			say_why(f, reason);
		return got;
	}
}

/* Until there is something to open an image for. *is_due: whatever changed, the other end has to hear of us. */
static int wait_for_change(struct follow *f, const char *journal, bool *is_due, struct err *e)
{
	uint64_t began = clock_ms(), until = f->alive_ms ? began + f->alive_ms : UINT64_MAX;
	struct tap_cut cut = {.seq = f->last.cursor.seq};
	AUTO_BUF struct buf own = {0};
	bool is_worth = false, is_inside = own_path(f, &own);
	char reason[256];

	memcpy(cut.journal, f->last.cursor.journal, sizeof cut.journal);
	*is_due = false;
	while (!is_worth) {
		int got = journal && f->last.has_cursor ? hear(f, journal, &cut, until, e) : 0;
		*is_due = clock_ms() >= until;
		if (got < 0)
			return -1;
		if (*is_due)
			return 0;
		/* Without a recorder: it is looked at, whether something changed or not. */
		if (!got)
			return rest(f, min_u64(f->interval_ms, until - clock_ms()), e);
		if (!is_inside || !tap_try_cut(journal, f->snap.cut_timeout_ms, &cut, reason))
			return 0;
		if (is_worth_it(f, journal, span_of(own.p, own.len), &is_worth, e))
			return -1;
	}
	return 0;
}

/* ---- following: images ---- */

static void copy_members(struct head *to, const struct head *from)
{
	for (size_t i = 0; i < from->n_members; i++)
		head_take(to, &(struct record){.type = REC_MEMBER, .u.member = from->members[i]});
}

static int pass_on(struct follow *f, int fd, struct err *e)
{
	uint8_t *p = xalloc(COPY_LEN);
	struct span v = {.p = p};
	ssize_t n = 0;
	int rc = lseek(fd, 0, SEEK_SET) ? -1 : 0;

	while (!rc && (n = read(fd, p, COPY_LEN)) > 0) {
		v.len = (size_t)n;
		rc = sink_write(f->out, &v, 1, e);
	}
	if (!e->kind && (rc || n < 0))
		rc = err_sys(e, "cannot read a temporary file");
	free(p);
	return rc || sink_flush(f->out, e) ? -1 : 0;
}

/* The list is kept back until it is known to be worth sending: what nobody recorded had to be looked for first. */
static int next_list(struct follow *f, const struct head *h, const char *journal, bool is_due, bool *is_sent, struct err *e)
{
	AUTO_CLOSE int fd = -1;

	*is_sent = true;
	if (!f->last.has_image)
		return list(f, h, f->out->fd, journal, e);
	if ((fd = file_temp(f->track->tmpdir)) < 0)
		return err_sys(e, "cannot make a temporary file");
	if (list(f, h, fd, journal, e))
		return -1;
	*is_sent = is_due || f->track->is_recorded || f->track->changed;
	return *is_sent ? pass_on(f, fd, e) : 0;
}

static void say_sent(struct follow *f)
{
	AUTO_BUF struct buf text = {0};

	buf_fmt(&text, "image %" PRIu64 ": %" PRIu64 " names that may have changed, %s", f->last.stamps.seq, f->track->changed,
		f->track->is_recorded ? "as recorded" : "as compared");
	f->say(f->ctx, 1, buf_cstr(&text));
}

static int one(struct follow *f, struct err *e)
{
	AUTO_FREE char *journal = NULL;
	struct snap s = f->snap; /* borrows */
	bool is_due = false, is_sent = false;

	s.state = f->state;
	s.provider = SNAP_LIVE; /* several snapshots a second would cost the filesystem more than they give */
	s.note = on_note;
	s.ctx = f;
	s.head = (struct head){0};
	if (state_journal(f->state, &journal, e))
		return -1;
	if (f->last.has_image && (wait_for_delta(f, e) || open_tip(f, e) || wait_for_change(f, journal, &is_due, e)))
		return -1;
	copy_members(&s.head, &f->snap.head);
	int rc = snap_open_image(&s, e) || next_list(f, &s.head, journal, is_due, &is_sent, e) ? -1 : 0;
	if (rc || !is_sent) {
		snap_free(&s);
		return rc;
	}
	f->images++;
	head_free(&f->last);
	f->last = s.head;
	f->has_delta = false;
	say_sent(f);
	return 0;
}

static int members_of_base(struct follow *f, struct err *e)
{
	struct catalog *c = NULL;

	if (state_catalog(f->state, CATALOG_READ, &c, e))
		return -1;
	struct head h = {0};
	int got = head_of(&h, c, e);
	catalog_close(&c);
	if (!got)
		got = err_set(e, ERR_USAGE, "which directory? there is no base yet that says it: give a ROOT");
	copy_members(&f->snap.head, &h);
	head_free(&h);
	return got < 0 ? -1 : 0;
}

int follow_run(struct follow *f, struct err *e)
{
	if (state_follow(f->state, e) || (!f->snap.head.n_members && members_of_base(f, e)))
		return -1;
	AUTO_FREE char *journal = NULL;
	if (state_journal(f->state, &journal, e))
		return -1;
	if (!journal)
		say_why(f, "nobody records what changes");
	while (!one(f, e))
		;
	return -1;
}

void follow_free(struct follow *f)
{
	head_free(&f->last);
	snap_free(&f->snap);
}
