#include "track.h"

#include <stdio.h>
#include <stdlib.h>

#include "changes.h"
#include "generations.h"
#include "head.h"
#include "image.h"
#include "pending.h"
#include "since.h"

struct tracker {
	struct track *t;
	struct catalog *base;
	struct changes_out out;
	/* A base name that is gone, held back: when the tree has something else there, one record speaks of both. */
	bool has_gone;
	struct buf gone;
};

static int put_gap(struct track *t, const char *reason, struct err *e)
{
	struct record r = {.type = REC_GAP, .u.gap = {REF_ROOT, span_cstr(reason)}};

	return stream_put(t->out, &r, e);
}

static int put_changed(struct tracker *k, uint8_t flags, struct span name, struct err *e)
{
	k->t->changed++;
	return changes_put(&k->out, flags, name, e);
}

static int flush_gone(struct tracker *k, struct err *e)
{
	if (!k->has_gone)
		return 0;
	k->has_gone = false;
	return put_changed(k, CHANGED_GONE, span_of(k->gone.p, k->gone.len), e);
}

static int on_gone(void *ctx, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct tracker *k = ctx;

	(void)no;
	/* The old name of what moved here: it is met where it was, or by who reads this. */
	if (!changes_is_inside(&k->out) || changes_dir(&k->out) != dir)
		return 0;
	if (flush_gone(k, e))
		return -1;
	buf_reset(&k->gone);
	buf_add(&k->gone, name.p, name.len);
	k->has_gone = true;
	return 0;
}

static bool is_inside_skipped(const struct scan_item *it) { return it->how == SCAN_NEW || it->how == SCAN_ATTACH; }

static bool on_skip(void *ctx, const struct scan_item *it)
{
	(void)ctx;
	return is_inside_skipped(it);
}

/* The scan suspects the image's root always. */
static int is_root_same(struct tracker *k, const struct scan_item *it, bool *same, struct err *e)
{
	struct object o = {0};
	int got = catalog_get(k->base, CATALOG_ROOT, &o, e);

	*same = got == 1 && (scan_unchanged(&o, it->attr) || !it->attr->hint.ino);
	object_free(&o);
	return got < 0 ? -1 : 0;
}

static int on_item(void *ctx, const struct scan_item *it, struct err *e)
{
	struct tracker *k = ctx;
	bool is_same = it->how == SCAN_SAME;

	if (it->kind == SCAN_LEAVE) {
		if (flush_gone(k, e))
			return -1;
		changes_leave(&k->out);
		return 0;
	}
	if (k->t->progress)
		k->t->progress(k->t->ctx, k->t->entries++);
	if (k->has_gone && span_eq(span_of(k->gone.p, k->gone.len), it->name))
		k->has_gone = false;
	if (flush_gone(k, e))
		return -1;
	if (is_inside_skipped(it) && changes_is_inside(&k->out)) {
		uint8_t flags = CHANGED_NEW;
		if (it->kind == SCAN_ENTER)
			flags |= CHANGED_SUBTREE;
		if (it->how == SCAN_ATTACH)
			flags |= CHANGED_CONTENT;
		if (put_changed(k, flags, it->name, e))
			return -1;
	} else if (!is_same && it->kind == SCAN_ENTRY) {
		uint8_t flags = it->attr->type == OBJ_FILE ? CHANGED_CONTENT : CHANGED_META;
		if (put_changed(k, flags, it->name, e))
			return -1;
	}
	if (it->kind == SCAN_ENTRY)
		return 0;
	if (!changes_is_inside(&k->out) && is_root_same(k, it, &is_same, e))
		return -1;
	changes_enter(&k->out, it->name, it->base);
	/* A directory of the base speaks for itself once it has a number: its inside may follow. */
	if (!is_same && !is_inside_skipped(it))
		return put_changed(k, CHANGED_META, (struct span){0}, e);
	return 0;
}

static int scan(struct track *t, struct catalog *base, const struct walk_root *roots, size_t n, struct err *e)
{
	struct tracker k = {.t = t, .base = base, .out = {.o = t->out}};
	uint64_t *devs = xalloc(n * sizeof *devs);
	struct scan s = {.base = base, .prune_dev = t->state->dev, .prune_ino = t->state->ino, .root_dev = devs,
		.threads = t->threads, .is_group = n && roots[0].name[0], .by_name = head_is_copy(t->head), .tmpdir = t->tmpdir,
		.warn = t->warn, .item = on_item, .gone = on_gone, .skip = on_skip, .ctx = &k};
	int rc = head_device(t->head, roots, &s.prune_dev, e);

	for (size_t i = 0; i < n && !rc; i++) {
		struct attr a = {0};
		rc = attr_stat(&a, roots[i].fd, NULL, e);
		devs[i] = a.hint.dev;
		attr_free(&a);
	}
	if (!rc)
		rc = scan_tree(&s, roots, n, e);
	t->entries = s.entries;
	changes_free(&k.out);
	buf_free(&k.gone);
	scan_free(&s);
	free(devs);
	return rc;
}

/* ---- what a recorder knows ---- */

static int put_list(struct track *t, struct tape *list, struct err *e)
{
	struct input in = {0};
	int got = STREAM_RECORD;

	if (tape_read(list, &in, e))
		return -1;
	for (; got == STREAM_RECORD && in.s.rec.type != REC_END; got = input_next(&in, e)) {
		bool is_head = in.s.rec.type == REC_IMAGE || in.s.rec.type == REC_MEMBER;
		t->changed += in.s.rec.type == REC_CHANGED;
		if (!is_head && stream_pass(t->out, in.s.raw, e)) {
			got = -1;
			break;
		}
	}
	input_close(&in);
	return got < 0 ? -1 : 0;
}

/* The list, if there is one; the head goes out with how far it reaches. */
static int ask(struct track *t, struct catalog *base, const struct walk_root *roots, struct tape *list, struct err *e)
{
	struct since s = {.base = base, .head = t->head, .roots = roots, .journal = t->journal, .instance = t->state->instance,
		.keeps = t->keeps, .cut_timeout_ms = t->cut_timeout_ms, .tmpdir = t->tmpdir ? t->tmpdir : "/tmp", .gap = t->gap,
		.ctx = t->ctx, .j = JOURNAL_NONE};
	struct head h = *t->head; /* borrows */
	int got = t->journal ? since_ask(&s, e) : 0;

	if (got == 1)
		got = since_list(&s, list, e);
	if (t->journal) {
		h.has_cursor = s.has_cursor;
		h.cursor = s.cursor;
	}
	if (!got && t->journal && (t->has_base || !s.has_cursor))
		snprintf(t->reason, sizeof t->reason, "%s", s.reason);
	t->is_recorded = got == 1;
	since_free(&s);
	return got < 0 ? -1 : head_put(&h, t->out, KIND_CHANGE, e);
}

/* What the trees of the snapshots know: 1 with the list, 0, -1. */
static int search(struct track *t, struct catalog *base, const struct walk_root *roots, struct tape *list, struct err *e)
{
	struct generations g = {.base = base, .head = t->head, .roots = roots, .tmpdir = t->tmpdir ? t->tmpdir : "/tmp"};
	int got = generations_list(&g, list, e);

	t->is_searched = got == 1;
	t->inodes = g.inodes;
	snprintf(t->no_search, sizeof t->no_search, "%s", g.reason);
	generations_free(&g);
	return got;
}

/* The base needs what it needs of the journal, should we go back to it. */
static int take_cursor(struct track *t, const struct state *s, struct r_cursor *keeps, struct buf *store, struct err *e)
{
	struct catalog *c = NULL;
	int got = state_catalog(s, CATALOG_READ, &c, e) ? -1 : image_cursor(c, keeps, store, e);

	catalog_close(&c);
	keeps->consumer = (struct span){0};
	t->keeps = got > 0 ? keeps : NULL;
	return got < 0 ? -1 : 0;
}

int track_begin(struct track *t, struct state *s, unsigned lock_wait, struct r_cursor *keeps, struct buf *store, struct err *e)
{
	bool is_tip = false;

	if (state_lock(s, lock_wait, e))
		return -1;
	int rc = pending_base(s, t->head->stamps.seq, &is_tip, e) || (is_tip && take_cursor(t, s, keeps, store, e)) ? -1 : 0;
	state_unlock(s);
	t->file = is_tip ? "tip" : NULL;
	return rc;
}

int track_run(struct track *t, struct err *e)
{
	const struct head *h = t->head;
	struct walk_root *roots = NULL;
	struct catalog *base = NULL;
	struct record end = {.type = REC_END};
	struct tape list = {.fd = -1};

	if (!is_zero(h->stamps.instance, sizeof h->stamps.instance) &&
			memcmp(h->stamps.instance, t->state->instance, sizeof h->stamps.instance))
		return err_set(e, ERR_MISMATCH, "the image was opened with another state directory than '%s'", t->state->path);
	AUTO_FREE char *path = t->file ? state_file(t->state, t->file) : NULL;
	if (path ? catalog_open(&base, path, CATALOG_READ, e) : state_catalog(t->state, CATALOG_READ, &base, e))
		return -1;
	t->entries = t->changed = 0;
	t->reason[0] = t->no_search[0] = '\0';
	t->is_searched = false;
	t->has_base = !catalog_is_empty(base);
	int rc = head_open_roots(h, &roots, e);
	/* The recorder first: what it has not heard of by now happens while the trees are looked at, or later. */
	if (!rc)
		rc = ask(t, base, roots, &list, e);
	if (!rc && !t->is_recorded && t->has_base)
		rc = search(t, base, roots, &list, e) < 0 ? -1 : 0;
	if (!rc && (t->is_recorded || t->is_searched))
		rc = put_list(t, &list, e);
	else if (!rc)
		rc = t->has_base ? scan(t, base, roots, h->n_members, e) : put_gap(t, "no base image", e);
	tape_free(&list);
	head_close_roots(&roots, h->n_members);
	catalog_close(&base);
	return rc || stream_put(t->out, &end, e) || stream_finish(t->out, e) ? -1 : 0;
}
