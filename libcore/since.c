#include "since.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "attr.h"
#include "image.h"
#include "merge.h"
#include "path.h"
#include "prefetch.h"
#include "scan.h"

/* ---- is there a list ---- */

static int because(struct since *s, const char *reason)
{
	snprintf(s->reason, sizeof s->reason, "%s", reason);
	return 0;
}

/* Are the roots the directories that they were? 1, 0, -1. */
static int same_roots(struct since *s, struct err *e)
{
	struct object o = {0};
	struct attr a = {0};
	int got = 1;
	bool same = true;

	for (size_t i = 0; i < s->head->n_members && same && got == 1; i++) {
		uint64_t no = CATALOG_ROOT;
		if (s->head->members[i].name.len)
			got = catalog_lookup(s->base, CATALOG_ROOT, s->head->members[i].name, &no, NULL, e);
		if (got == 1)
			got = catalog_get(s->base, no, &o, e);
		if (got == 1 && attr_stat(&a, s->roots[i].fd, NULL, e))
			got = -1;
		same = got == 1 && o.hint.ino == a.hint.ino && o.hint.btime_s == a.hint.btime_s &&
			o.hint.btime_ns == a.hint.btime_ns;
	}
	object_free(&o);
	attr_free(&a);
	return got < 0 ? -1 : same;
}

/* 1: the journal goes on where the base ends. */
static int fits(struct since *s, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct head base = {0};

	if (catalog_is_empty(s->base))
		return because(s, "there is no base yet");
	int got = image_cursor(s->base, &s->from, &store, e);
	if (got != 1 || is_zero(s->from.journal, sizeof s->from.journal))
		return got < 0 ? -1 : because(s, "the base does not say how far the recorder was");
	s->from.consumer = (struct span){0};
	if (memcmp(s->from.journal, s->cut.journal, sizeof s->from.journal))
		return because(s, "the recorder was started anew");
	if ((got = head_of(&base, s->base, e)) < 0)
		return -1;
	bool same = got && head_same_members(&base, s->head);
	head_free(&base);
	if (!same)
		return because(s, "the base is of other directories");
	got = same_roots(s, e);
	return got ? got : because(s, "another directory stands where one of the base's stood");
}

/* What the recorder must keep for us. That it cannot be told costs a comparison, some day. */
static void tell(struct since *s, const struct r_cursor *c)
{
	struct err ignored = {0};
	char name[33];

	hex(name, s->instance, 16);
	journal_consumer_set(&s->j, name, c->journal, c->seq, &ignored);
}

int since_ask(struct since *s, struct err *e)
{
	const struct head *h = s->head;

	s->has_cursor = h->has_cursor;
	s->cursor = h->cursor;
	s->cursor.consumer = (struct span){0};
	if (!tap_try_cut(s->journal, s->cut_timeout_ms, &s->cut, s->reason))
		return 0;
	/* One that was asked for after the instant serves as well where the trees are looked at as they are after it. */
	if (!h->has_cursor || memcmp(h->cursor.journal, s->cut.journal, sizeof s->cut.journal)) {
		s->has_cursor = h->stamps.provider == PROV_LIVE;
		s->cursor = (struct r_cursor){.seq = s->cut.seq};
		memcpy(s->cursor.journal, s->cut.journal, sizeof s->cut.journal);
	}
	if (!journal_open(&s->j, s->journal, s->reason))
		return 0;
	int got = fits(s, e);
	if (got == 1)
		tell(s, s->keeps ? s->keeps : &s->from);
	else if (!got && s->has_cursor)
		tell(s, &s->cursor);
	return got;
}

/* ---- names to be added ---- */

/* All names of an object that has more than one. */
static int add_names(struct since *s, uint64_t no, bool also_one, struct err *e)
{
	struct catalog_names n = {0};
	struct object o = {0};
	int got = catalog_get(s->base, no, &o, e);
	bool wanted = got == 1 && o.type != OBJ_DIR && (o.nlink > 1 || also_one);

	object_free(&o);
	if (!wanted)
		return got < 0 ? -1 : 0;
	catalog_names_start(&n, s->base, no);
	while ((got = catalog_names_next(&n, e)) == 1) {
		if (named_add_name(&s->named, s->base, n.dir, n.name, CHANGED_CONTENT, e)) {
			got = -1;
			break;
		}
	}
	catalog_names_free(&n);
	return got;
}

/* Of everything that the base has in this directory. */
static int add_below(struct since *s, uint64_t top, struct err *e)
{
	AUTO_BUF struct buf stack = {0};
	struct catalog_iter it = {0};
	int got = 0;

	wr_u64(&stack, top);
	while (stack.len && got >= 0) {
		stack.len -= 8;
		catalog_iter_start(&it, s->base, get_le64(stack.p + stack.len));
		while ((got = catalog_iter_next(&it, e)) == 1 && !named_is_full(&s->named)) {
			if (it.type == OBJ_DIR)
				wr_u64(&stack, it.no);
			else if (add_names(s, it.no, false, e))
				got = -1;
			if (got < 0)
				break;
		}
	}
	catalog_iter_free(&it);
	return got < 0 ? -1 : 0;
}

/* ---- the recorder's list, gone through ---- */

struct since_frame {
	uint64_t ref, dir; /* dir: what the base has there; 0: none */
	size_t path_len;
};

static int go_to(struct since *s, uint64_t ref, struct err *e)
{
	while (s->n && s->frames[s->n - 1].ref != ref)
		s->n--;
	s->path.len = s->n ? s->frames[s->n - 1].path_len : 0;
	return s->n ? 0 : err_set(e, ERR_SYSTEM, "the recorder's list is out of order");
}

static void push(struct since *s, uint64_t ref, struct span name, uint64_t dir)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16;
		s->frames = xrealloc(s->frames, s->cap * sizeof *s->frames);
	}
	if (name.len)
		path_push(&s->path, name);
	s->frames[s->n++] = (struct since_frame){ref, dir, s->path.len};
}

/* An object of the base that has this name is looked at under all that it has: the change may have come by another one, and this
 * one may not be its own any more. */
static int on_name(struct since *s, struct span name, uint8_t flags, uint64_t *no, struct err *e)
{
	uint64_t dir = s->frames[s->n - 1].dir;
	uint8_t type = OBJ_NONE;

	*no = 0;
	int got = dir && name.len ? catalog_lookup(s->base, dir, name, no, &type, e) : 0;
	if (got != 1)
		return got;
	if (type != OBJ_DIR) {
		got = add_names(s, *no, false, e);
		*no = 0;
		return got;
	}
	return flags & (CHANGED_NEW | CHANGED_GONE | CHANGED_SUBTREE) ? add_below(s, *no, e) : 0;
}

static int on_inode(struct since *s, const struct r_inode *i, struct err *e)
{
	struct r_hint h = {.ino = i->ino, .btime_s = i->btime_s, .btime_ns = i->btime_ns};
	struct attr a = {0};
	uint64_t no = 0;
	int rc = 0;

	for (unsigned root = 0; root < s->head->n_members && !rc; root++) {
		rc = attr_stat(&a, s->roots[root].fd, NULL, e);
		h.dev = scan_dev(i->dev, a.hint.dev, root);
		if (!rc && catalog_by_inode(s->base, &h, &no, e) < 0)
			rc = -1;
		if (!rc && no)
			rc = add_names(s, no, true, e);
	}
	attr_free(&a);
	return rc;
}

static int on_record(struct since *s, const struct record *r, struct err *e)
{
	uint64_t no;

	if (r->type == REC_INODE)
		return on_inode(s, &r->u.inode, e);
	if (r->type == REC_CHANGED) {
		s->names++;
		return go_to(s, r->u.changed.parent, e) || on_name(s, r->u.changed.name, r->u.changed.flags, &no, e) ? -1 : 0;
	}
	if (r->type == REC_DIR) {
		if (go_to(s, r->u.dir.parent, e) || on_name(s, r->u.dir.name, 0, &no, e))
			return -1;
		push(s, r->u.dir.ref, r->u.dir.name, no);
		return 0;
	}
	if (r->type != REC_GAP)
		return 0;
	if (go_to(s, r->u.gap.ref, e))
		return -1;
	if (s->gap)
		s->gap(s->ctx, span_of(s->path.p, s->path.len), r->u.gap.reason);
	no = s->frames[s->n - 1].dir;
	return no && no != CATALOG_ROOT ? add_below(s, no, e) : 0;
}

static uint64_t known(const void *ctx, uint64_t ref)
{
	const struct since *s = ctx;

	for (size_t i = s->n; i--;)
		if (s->frames[i].ref == ref)
			return s->frames[i].dir;
	return 0;
}

/* What the recorder knows, into `to`, but for objects without a name, which are given theirs. */
static int complete(struct since *s, struct tape *from, struct tape *to, struct err *e)
{
	struct prefetch soon = {.known = known, .ctx = s};
	struct input in = {0};
	int got = STREAM_RECORD;

	if (tape_read(from, &in, e))
		return -1;
	push(s, REF_ROOT, (struct span){0}, CATALOG_ROOT);
	for (; got == STREAM_RECORD && in.s.rec.type != REC_END; got = input_next(&in, e)) {
		bool is_said = in.s.rec.type != REC_INODE;
		prefetch_run(&soon, s->base, &in.s);
		if (on_record(s, &in.s.rec, e) || (is_said && stream_pass(&to->out, in.s.raw, e)))
			got = -1;
		if (got < 0)
			break;
	}
	input_close(&in);
	return got < 0 || named_add_again(&s->named, s->base, e) || tape_close(to, e) ? -1 : 0;
}

/* ---- both together ---- */

static int open_tape(struct since *s, struct tape *t, struct err *e)
{
	struct record r = {.type = REC_IMAGE};

	if (tape_open(t, s->tmpdir, e) || stream_put(&t->out, &r, e))
		return -1;
	for (size_t i = 0; i < s->head->n_members; i++) {
		r = (struct record){.type = REC_MEMBER, .u.member = s->head->members[i]};
		if (stream_put(&t->out, &r, e))
			return -1;
	}
	return 0;
}

static int join(struct tape *a, struct tape *b, struct tape *to, struct err *e)
{
	struct merge_source both[2] = {{.n = 0}, {.n = 0}};
	struct changes_out c = {.o = &to->out};
	struct merge m = {.sources = both, .n = 2, .out = &c};
	int rc = -1;

	if (lseek(a->fd, 0, SEEK_SET) || lseek(b->fd, 0, SEEK_SET)) {
		err_sys(e, "cannot read a temporary file");
	} else if (!merge_open(&both[0], a->fd, "the recorder's list", e) && !merge_open(&both[1], b->fd, "names to look at again", e)) {
		changes_enter(&c, (struct span){0}, 0);
		rc = merge_run(&m, e);
	}
	changes_free(&c);
	merge_close(&both[0]);
	merge_close(&both[1]);
	return rc || tape_close(to, e) ? -1 : 0;
}

int since_list(struct since *s, struct tape *list, struct err *e)
{
	struct tape said = {.fd = -1}, named = {.fd = -1}, added = {.fd = -1};
	struct changes_out c = {.o = &said.out};
	int got = -1;

	if (!tape_open(&said, s->tmpdir, e))
		got = journal_list(&s->j, s->from.journal, s->from.seq, s->cut.seq, s->head->members, s->head->n_members, &c, s->reason,
			e);
	changes_free(&c);
	if (got == 1 && (tape_close(&said, e) || open_tape(s, &named, e) || complete(s, &said, &named, e)))
		got = -1;
	if (got == 1 && named_is_full(&s->named))
		got = because(s, "too much has to be looked at again");
	if (got == 1 && !s->named.rows.len) {
		list->fd = named.fd;
		named.fd = -1;
	} else if (got == 1) {
		if (open_tape(s, &added, e) || named_write(&s->named, &added, e) || open_tape(s, list, e) || join(&named, &added, list, e))
			got = -1;
	}
	tape_free(&said);
	tape_free(&named);
	tape_free(&added);
	return got;
}

void since_free(struct since *s)
{
	journal_close(&s->j);
	named_free(&s->named);
	buf_free(&s->path);
	free(s->frames);
	s->frames = NULL;
	s->n = s->cap = 0;
}
