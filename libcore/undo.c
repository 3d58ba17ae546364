#include "undo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "content.h"
#include "file.h"
#include "numbers.h"
#include "redo.h"
#include "shifts.h"
#include "sink.h"

struct undo {
	struct plan *p;
	struct stream_out o;
	struct sink sink;
	struct numbers refs;   /* object -> its number in the stream */
	struct numbers placed; /* directories that stand where the base has them */
	uint64_t next_ref;
	struct buf added;      /* rows of name, u32 its length, u64 directory: for reading from the end */
	struct buf path;
	uint8_t *data, *fresh; /* REC_DATA_MAX each */
};

static int put(struct undo *u, const struct record *r, struct err *e) { return stream_put(&u->o, r, e); }

/* ---- the two images ---- */

static int base_get(struct undo *u, uint64_t no, struct object *o, struct err *e)
{
	plan_see_base(u->p, true);
	int got = catalog_get(u->p->r->cat, no, o, e);
	plan_see_base(u->p, false);
	return got;
}

static int base_name(struct undo *u, uint64_t no, uint64_t *dir, struct buf *name, struct err *e)
{
	plan_see_base(u->p, true);
	int got = catalog_name(u->p->r->cat, no, dir, name, e);
	plan_see_base(u->p, false);
	return got;
}

static int has(struct undo *u, bool in_base, uint64_t no, struct err *e)
{
	struct object o = {0};
	int got = in_base ? base_get(u, no, &o, e) : catalog_get(u->p->next, no, &o, e);

	object_free(&o);
	return got;
}

static int lost(const struct undo *u, struct err *e)
{
	return catalog_damaged(u->p->r->cat, "it lacks an object that it should have, or its name", e);
}

/* ---- numbers in the stream ---- */

static uint64_t new_ref(struct undo *u, uint64_t no) { return *numbers_at(&u->refs, no) = u->next_ref++; }

/* The objects above one of the plan's target that have no number yet, it first. */
static int chain_up(struct undo *u, uint64_t no, struct buf *chain, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	while (!numbers_get(&u->refs, no)) {
		wr_u64(chain, no);
		if (catalog_name(u->p->next, no, &no, &name, e) != 1)
			return e->kind ? -1 : lost(u, e);
	}
	return 0;
}

/* The number of an object that the target has. Given by its name there, so not after that name was detached; it is then the
 * current object. */
static int ref_of(struct undo *u, uint64_t no, uint64_t *ref, struct err *e)
{
	AUTO_BUF struct buf chain = {0}, name = {0};

	if (chain_up(u, no, &chain, e))
		return -1;
	for (size_t at = chain.len; at; at -= 8) {
		uint64_t dir, one = get_le64(chain.p + at - 8);
		if (catalog_name(u->p->next, one, &dir, &name, e) != 1)
			return e->kind ? -1 : lost(u, e);
		struct record r = {.type = REC_BASE};
		uint64_t parent = numbers_get(&u->refs, dir);
		r.u.base = (struct r_base){new_ref(u, one), parent, 0, span_of(name.p, name.len)};
		if (put(u, &r, e))
			return -1;
	}
	*ref = numbers_get(&u->refs, no);
	return 0;
}

/* ---- what the plan made goes ---- */

static int collect(void *ctx, const struct record *rec, struct err *e)
{
	struct undo *u = ctx;
	uint64_t parent, no;
	struct span name;

	if (rec->type == REC_CREATE && rec->u.create.ref != REF_ROOT) {
		parent = image_ref(&u->p->loader, rec->u.create.parent);
		name = rec->u.create.name;
	} else if (rec->type == REC_ATTACH) {
		parent = image_ref(&u->p->loader, rec->u.attach.parent);
		name = rec->u.attach.name;
	} else {
		return 0;
	}
	int got = catalog_lookup(u->p->next, parent, name, &no, NULL, e);
	if (got != 1) /* dropped again */
		return got;
	/* What is new in a new directory goes with it. */
	if ((got = has(u, true, parent, e)) == 0)
		got = has(u, true, no, e);
	if (got <= 0)
		return got;
	wr_raw(&u->added, name.p, name.len);
	wr_u32(&u->added, (uint32_t)name.len);
	wr_u64(&u->added, parent);
	return 0;
}

/* The deepest first: a plan names parents before what is in them. */
static int detach_added(struct undo *u, struct err *e)
{
	while (u->added.len) {
		struct rd tail = rd_of(u->added.p + u->added.len - 12, 12);
		size_t n = rd_u32(&tail);
		uint64_t dir = rd_u64(&tail), no, parent;
		u->added.len -= 12 + n;
		struct span name = span_of(u->added.p + u->added.len, n);
		if (ref_of(u, dir, &parent, e) || catalog_lookup(u->p->next, dir, name, &no, NULL, e) != 1)
			return e->kind ? -1 : lost(u, e);
		uint64_t ref = numbers_get(&u->refs, no);
		struct record r = {.type = REC_BASE};
		r.u.base = (struct r_base){ref ? ref : new_ref(u, no), parent, BASE_DETACH, name};
		if (put(u, &r, e))
			return -1;
	}
	return 0;
}

/* ---- content ---- */

/* Consecutive blocks of the old content that the target does not have. */
struct run {
	uint64_t start; /* bytes of the file */
	size_t at, len; /* in undo.data */
};
struct blocks {
	struct object *old, *now; /* now: {0} when there is no such file in the target */
	int fd;
	struct redo_reader pieces; /* what the delta replaces, when that is known */
	bool has_pieces;           /* one that is not passed yet */
	struct shift *shifts;      /* what the target has at other places */
	size_t n_shifts;
	struct shift copy;         /* one that may still grow; len 0: none */
	uint8_t old_rows[BLOCKS_ROWS * DIGESTS_ROW], now_rows[BLOCKS_ROWS * DIGESTS_ROW];
	/* Runs that are not yet written, one behind the other in undo.data: many small ones are read and hashed together. */
	struct run runs[REC_DATA_MAX / DIGEST_LEAF];
	struct digest digests[REC_DATA_MAX / DIGEST_LEAF]; /* of their blocks */
	size_t n_runs, len;
};

/* [from, to) of undo.data, which is of this run. d: its digest, NULL: not known. */
static int put_data(struct undo *u, const struct run *x, size_t from, size_t to, const struct digest *d, struct err *e)
{
	struct record r = {.type = REC_DATA, .u.data = {.off = x->start + (from - x->at), .bytes = span_of(u->data + from, to - from)}};

	if (d)
		r.u.data.digest = *d;
	else
		digest_bytes(&r.u.data.digest, u->data + from, to - from);
	return put(u, &r, e);
}

/* Where the pages of a run end that differ from what will be there (differ), or those that do not. Pages of the file. */
static size_t pages_end(const struct undo *u, const struct run *x, size_t at, size_t to, bool differ)
{
	while (at < to) {
		size_t n = (size_t)min_u64(REDO_PAGE - (x->start + (at - x->at)) % REDO_PAGE, to - at);
		if ((memcmp(u->data + at, u->fresh + at, n) != 0) != differ)
			break;
		at += n;
	}
	return at;
}

/* What the delta puts there was written a moment ago, so it costs little to leave out what is the same all the same. */
static int put_piece(struct undo *u, const struct blocks *b, const struct run *x, size_t from, size_t to, struct err *e)
{
	if (redo_now(&b->pieces, u->fresh + from, to - from, x->start + (from - x->at), e))
		return -1;
	for (size_t at = from, end; at < to; at = end) {
		at = pages_end(u, x, at, to, false);
		end = pages_end(u, x, at, to, true);
		if (at < end && put_data(u, x, at, end, NULL, e))
			return -1;
	}
	return 0;
}

/* Of the blocks of a run only what the delta replaces or cuts off: the way back is as short as the way there. */
static int put_pieces(struct undo *u, struct blocks *b, const struct run *x, struct err *e)
{
	const uint64_t end = x->start + x->len, stop = min_u64(end, max_u64(b->now->size, x->start));
	const struct redo_piece *p = &b->pieces.now;

	while (b->has_pieces && p->off < stop) {
		uint64_t from = max_u64(p->off, x->start), to = min_u64(p->off + p->len, stop);
		if (from < to && put_piece(u, b, x, x->at + (size_t)(from - x->start), x->at + (size_t)(to - x->start), e))
			return -1;
		if (p->off + p->len > stop)
			break;
		int got = redo_next(&b->pieces, e);
		if (got < 0)
			return -1;
		b->has_pieces = got;
	}
	return stop < end ? put_data(u, x, x->at + (size_t)(stop - x->start), x->at + x->len, NULL, e) : 0;
}

static int put_run(struct undo *u, struct blocks *b, const struct run *x, struct err *e)
{
	struct digest_tree t;
	struct digest whole;

	if (b->pieces.is_open)
		return put_pieces(u, b, x, e);
	digest_tree_init(&t);
	digest_tree_add(&t, &b->digests[x->at / b->old->grain], object_blocks(x->len, b->old->grain));
	digest_tree_root(&t, &whole);
	return put_data(u, x, x->at, x->at + x->len, &whole, e);
}

static int flush_runs(struct undo *u, struct blocks *b, struct err *e)
{
	struct digest have[REC_DATA_MAX / DIGEST_LEAF];
	size_t n = b->n_runs, len = b->len;

	b->n_runs = b->len = 0;
	if (!n)
		return 0;
	/* Nobody has looked there for a while: the kernel reads them all while the first is waited for. */
	for (size_t i = 0; n > 1 && i < n; i++)
		posix_fadvise(b->fd, (off_t)b->runs[i].start, (off_t)b->runs[i].len, POSIX_FADV_WILLNEED);
	for (size_t i = 0; i < n; i++)
		if (file_read_at(b->fd, u->data + b->runs[i].at, b->runs[i].len, b->runs[i].start))
			return err_sys(e, "cannot read a file of '%s' for its undo", u->p->r->path);
	/* Only the last block of the file may be shorter than the others. */
	digest_blocks(have, u->data, len, b->old->grain);
	if (memcmp(have, b->digests, object_blocks(len, b->old->grain) * sizeof *have))
		return err_set(e, ERR_REFUSED, "a file of '%s' is not what its image says, there is no way back to it: "
			"repl-apply --verify names it, --keep=0 goes on without", u->p->r->path);
	for (size_t i = 0; i < n; i++)
		if (put_run(u, b, &b->runs[i], e))
			return -1;
	return 0;
}

static int flush_copy(struct undo *u, struct blocks *b, struct err *e)
{
	const struct shift *x = &b->copy;
	struct record r = {.type = REC_COPY, .u.copy = {x->src, x->len, numbers_get(&u->refs, b->old->no), x->off}};

	if (!x->len)
		return 0;
	b->copy.len = 0;
	return put(u, &r, e);
}

/* What the delta took from here to another place of the file comes back from there; that it is the same was proved when it was
 * staged. */
static int put_copy(struct undo *u, struct blocks *b, const struct shift *x, uint64_t src, uint64_t len, struct err *e)
{
	struct shift *c = &b->copy;
	uint64_t off = x->off + (src - x->src);

	if (c->len && c->src + c->len == src && c->off + c->len == off) {
		c->len += len;
		return 0;
	}
	if (flush_runs(u, b, e) || flush_copy(u, b, e))
		return -1;
	*c = (struct shift){off, len, src};
	return 0;
}

static int put_hole(struct undo *u, uint64_t off, uint64_t len, struct err *e)
{
	struct record r = {.type = REC_HOLE, .u.hole = {off, len}};

	return put(u, &r, e);
}

static int put_block(struct undo *u, struct blocks *b, uint64_t block, const uint8_t *row, struct err *e)
{
	uint64_t off = block * b->old->grain, len = min_u64(b->old->grain, b->old->size - off);
	bool is_hole = is_zero(row, DIGESTS_ROW) && b->old->size >= DIGEST_LEAF;
	const struct shift *x = is_hole ? NULL : shifts_find(b->shifts, b->n_shifts, off, len);

	if (x)
		return put_copy(u, b, x, off, len, e);
	if (flush_copy(u, b, e))
		return -1;
	if (is_hole)
		return flush_runs(u, b, e) || put_hole(u, off, len, e) ? -1 : 0;
	if (b->len + len > REC_DATA_MAX && flush_runs(u, b, e))
		return -1;
	struct run *run = b->n_runs ? &b->runs[b->n_runs - 1] : NULL;
	if (!run || run->start + run->len != off) {
		run = &b->runs[b->n_runs++];
		*run = (struct run){off, b->len, 0};
	}
	struct digest *d = &b->digests[b->len / b->old->grain];
	if (b->old->size < DIGEST_LEAF)
		*d = b->old->content;
	else
		memcpy(d->b, row, DIGEST_LEN);
	run->len += (size_t)len;
	b->len += (size_t)len;
	return 0;
}

static int rows_of(struct undo *u, const struct object *o, bool in_base, uint64_t block, size_t n, uint8_t *rows, struct err *e)
{
	struct catalog *c = in_base ? u->p->r->cat : u->p->next;

	plan_see_base(u->p, in_base);
	int rc = catalog_blocks(c, o->no, block, n, rows, e);
	plan_see_base(u->p, false);
	return rc;
}

/* The first block from `at` on that may have a row; `stop` when there is none before it. */
static int next_row(struct undo *u, const struct object *o, bool in_base, uint64_t at, uint64_t *stop, struct err *e)
{
	struct catalog *c = in_base ? u->p->r->cat : u->p->next;

	plan_see_base(u->p, in_base);
	int got = at < *stop ? catalog_blocks_next(c, o->no, &at, e) : 0;
	plan_see_base(u->p, false);
	if (got > 0)
		*stop = min_u64(*stop, at);
	return got < 0 ? -1 : 0;
}

static int differing_blocks(struct undo *u, struct blocks *b, bool is_patch, struct err *e)
{
	const uint32_t grain = b->old->grain;
	const bool has_rows = b->old->size >= DIGEST_LEAF;
	const uint64_t n = object_blocks(b->old->size, grain);
	/* Blocks that both have in full length, comparable by their rows; and where the way back begins with a hole: all of a file that is
	 * written anew, else what lies behind the target's end. */
	const uint64_t same = is_patch ? min_u64(b->old->size, b->now->size) / grain : 0;
	const uint64_t hole = is_patch ? object_blocks(b->now->size, grain) : 0;

	for (uint64_t at = 0, take; at < n; at += take) {
		/* To the next that may be something else: in a hole of an exbibyte there are too many to look at each. */
		uint64_t stop = at <= same && same < hole ? min_u64(same, n) : n;
		if (has_rows && (next_row(u, b->old, true, at, &stop, e) || (at < same && next_row(u, b->now, false, at, &stop, e))))
			return -1;
		at = has_rows ? stop : at;
		take = min_u64(BLOCKS_ROWS - at % BLOCKS_ROWS, n - at);
		const uint64_t known = at < same ? min_u64(take, same - at) : 0;
		if (rows_of(u, b->old, true, at, (size_t)take, b->old_rows, e) ||
				(known && rows_of(u, b->now, false, at, (size_t)known, b->now_rows, e)))
			return -1;
		for (uint64_t i = 0; i < take; i++) {
			const uint8_t *row = b->old_rows + i * DIGESTS_ROW;
			if (i < known && !memcmp(row, b->now_rows + i * DIGESTS_ROW, DIGEST_LEN))
				continue;
			if (at + i >= hole && has_rows && is_zero(row, DIGESTS_ROW))
				continue;
			if (put_block(u, b, at + i, row, e))
				return -1;
		}
	}
	return flush_copy(u, b, e) || flush_runs(u, b, e) ? -1 : 0;
}

/* What of the base's content the staged file replaces, if it has a list of that. Of blocks that are single pages their digests say it
 * sooner. */
static int open_pieces(struct blocks *b, int stage, const char *name, struct err *e)
{
	int got = b->old->grain > REDO_PAGE ? redo_open(&b->pieces, stage, name, e) : 0;

	if (got > 0)
		got = redo_next(&b->pieces, e);
	b->has_pieces = got > 0;
	return got < 0 ? -1 : 0;
}

/* The base's content of the current object. now, staged: as the target has it, NULL when it does not. */
static int put_content(struct undo *u, struct object *old, struct object *now, uint64_t staged, struct err *e)
{
	struct record r = {.type = REC_CONTENT};
	struct object none = {0};
	struct blocks b = {.old = old, .now = now ? now : &none};
	char name[32];

	if (!old->grain)
		old->grain = DIGEST_GRAIN_MIN;
	bool is_patch = now && now->grain == old->grain && now->size >= DIGEST_LEAF && old->size >= DIGEST_LEAF;
	r.u.content = (struct r_content){is_patch ? CONTENT_PATCH : 0, old->grain};
	snprintf(name, sizeof name, "%llu", (unsigned long long)staged);
	plan_see_base(u->p, true);
	AUTO_CLOSE int fd = replica_open_base(u->p->r, old, e);
	const struct room *room = fd < 0 ? NULL : replica_room_of(u->p->r, old->no, e);
	plan_see_base(u->p, false);
	b.fd = fd;
	int rc = !room || put(u, &r, e) || (now && shifts_read(&b.shifts, &b.n_shifts, room->stage, name, e)) ||
		(is_patch && open_pieces(&b, room->stage, name, e)) || differing_blocks(u, &b, is_patch, e);
	free(b.shifts);
	redo_close(&b.pieces);
	if (rc)
		return -1;
	r = (struct record){.type = REC_SEAL, .u.seal = {old->size, old->content, old->flags}};
	return put(u, &r, e);
}

/* ---- what the plan removed comes back ---- */

static int attach(struct undo *u, uint64_t no, uint64_t parent, struct span name, struct err *e)
{
	struct record r = {.type = REC_ATTACH};

	if (ref_of(u, no, &r.u.attach.ref, e))
		return -1;
	r.u.attach.parent = parent;
	r.u.attach.name = name;
	return put(u, &r, e);
}

/* An object that the target does not have, or one more name of it. */
static int create(struct undo *u, uint64_t no, uint64_t parent, struct span name, struct err *e)
{
	struct object o = {0};
	struct record r = {.type = REC_CREATE};
	int rc = -1;

	if (base_get(u, no, &o, e) != 1) {
		rc = e->kind ? -1 : lost(u, e);
		goto out;
	}
	uint64_t ref = numbers_get(&u->refs, no);
	if (ref) {
		rc = attach(u, no, parent, name, e);
		goto out;
	}
	ref = o.type == OBJ_DIR || o.nlink > 1 ? new_ref(u, no) : REF_NONE;
	r.u.create = (struct r_create){ref, parent, o.type, name};
	if (put(u, &r, e))
		goto out;
	r = (struct record){.type = REC_META, .u.meta = o.meta};
	rc = put(u, &r, e) || (o.type == OBJ_FILE && put_content(u, &o, NULL, 0, e)) ? -1 : 0;
out:
	object_free(&o);
	return rc;
}

/* All below a directory that comes back: objects that the target has elsewhere, and those that went with it. */
static int create_below(struct undo *u, uint64_t top, struct err *e)
{
	struct catalog_iter it = {0};
	AUTO_BUF struct buf stack = {0}, name = {0};
	uint64_t dir = top;
	int rc = -1;

	catalog_iter_start(&it, u->p->r->cat, dir);
	for (;;) {
		plan_see_base(u->p, true);
		int got = catalog_iter_next(&it, e);
		plan_see_base(u->p, false);
		if (got < 0)
			goto out;
		if (got) {
			uint64_t no = it.no, parent = numbers_get(&u->refs, dir);
			int alive = has(u, false, no, e);
			if (alive < 0 || (alive ? attach(u, no, parent, it.name, e) : create(u, no, parent, it.name, e)))
				goto out;
			if (it.type != OBJ_DIR)
				continue;
			*numbers_at(&u->placed, no) = 1;
			if (alive)
				continue;
			wr_raw(&stack, it.name.p, it.name.len);
			wr_u32(&stack, (uint32_t)it.name.len);
			wr_u64(&stack, dir);
			dir = no;
			catalog_iter_start(&it, u->p->r->cat, dir);
			continue;
		}
		if (!stack.len)
			break;
		struct rd r = rd_of(stack.p + stack.len - 12, 12);
		size_t n = rd_u32(&r);
		dir = rd_u64(&r);
		stack.len -= 12 + n;
		buf_reset(&name);
		buf_add(&name, stack.p + stack.len, n);
		catalog_iter_after(&it, u->p->r->cat, dir, span_of(name.p, name.len));
	}
	rc = 0;
out:
	catalog_iter_free(&it);
	return rc;
}

/* One directory whose parent stands where it should. */
static int place_one(struct undo *u, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf was = {0}, is = {0};
	uint64_t was_in, is_in, parent;

	*numbers_at(&u->placed, no) = 1;
	if (base_name(u, no, &was_in, &was, e) != 1)
		return e->kind ? -1 : lost(u, e);
	struct span name = span_of(was.p, was.len);
	int alive = has(u, false, no, e);
	if (alive < 0)
		return -1;
	if (alive) {
		if (catalog_name(u->p->next, no, &is_in, &is, e) != 1)
			return e->kind ? -1 : lost(u, e);
		if (is_in == was_in && span_eq(name, span_of(is.p, is.len)))
			return 0;
	}
	if (ref_of(u, was_in, &parent, e))
		return -1;
	if (alive)
		return attach(u, no, parent, name, e);
	return create(u, no, parent, name, e) || create_below(u, no, e) ? -1 : 0;
}

/* The directory and all above it, from the top. */
static int place(struct undo *u, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf chain = {0}, name = {0};

	while (no != CATALOG_ROOT && !numbers_get(&u->placed, no)) {
		wr_u64(&chain, no);
		if (base_name(u, no, &no, &name, e) != 1)
			return e->kind ? -1 : lost(u, e);
	}
	for (size_t at = chain.len; at; at -= 8) {
		uint64_t one = get_le64(chain.p + at - 8);
		if (!numbers_get(&u->placed, one) && place_one(u, one, e))
			return -1;
	}
	return 0;
}

static int bring_back(void *ctx, const struct r_base *b, struct err *e)
{
	struct undo *u = ctx;
	uint64_t dir = image_ref(&u->p->loader, b->parent), no = image_ref(&u->p->loader, b->ref), parent;
	struct object o = {0};
	int got = base_get(u, no, &o, e);
	uint8_t type = o.type;

	object_free(&o);
	if (got != 1)
		return e->kind ? -1 : lost(u, e);
	if (place(u, dir, e))
		return -1;
	if (type == OBJ_DIR)
		return place(u, no, e);
	int alive = has(u, false, no, e), parent_alive = has(u, false, dir, e);
	if (alive < 0 || parent_alive <= 0) /* it came with its directory */
		return alive < 0 ? -1 : parent_alive;
	if (ref_of(u, dir, &parent, e))
		return -1;
	return alive ? attach(u, no, parent, b->name, e) : create(u, no, parent, b->name, e);
}

/* ---- what the plan changed ---- */

static int change_back(void *ctx, const struct plan_object *po, struct err *e)
{
	struct undo *u = ctx;
	struct object old = {0}, now = {0};
	struct record r = {.type = REC_OBJECT};
	int rc = po->is_new ? 0 : base_get(u, po->no, &old, e);

	if (rc == 1)
		rc = catalog_get(u->p->next, po->no, &now, e);
	if (rc != 1)
		goto out;
	rc = -1;
	bool is_known = numbers_get(&u->refs, po->no);
	if (ref_of(u, po->no, &r.u.object.ref, e) || (is_known && put(u, &r, e)))
		goto out;
	r = (struct record){.type = REC_META, .u.meta = old.meta};
	rc = put(u, &r, e) || (po->staged && old.type == OBJ_FILE && put_content(u, &old, &now, po->staged, e)) ? -1 : 0;
out:
	object_free(&old);
	object_free(&now);
	return rc;
}

/* ---- the stream ---- */

static int put_head(struct undo *u, const struct digest *target, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct record r = {.type = REC_IMAGE};

	plan_see_base(u->p, true);
	int got = image_stamps(u->p->r->cat, &r.u.image, &store, e);
	int rc = got < 0 ? -1 : catalog_id(u->p->r->cat, &r.u.image.id, e);
	plan_see_base(u->p, false);
	if (rc || put(u, &r, e))
		return -1;
	r = (struct record){.type = REC_DELTA, .u.delta = {.base = *target}};
	return put(u, &r, e);
}

static int put_end(struct undo *u, struct err *e)
{
	struct record r = {.type = REC_END};

	plan_see_base(u->p, true);
	int rc = catalog_id(u->p->r->cat, &r.u.end.id, e) || catalog_count(u->p->r->cat, &r.u.end.entries, e) ? -1 : 0;
	plan_see_base(u->p, false);
	r.u.end.bytes = u->o.at.bytes;
	return rc || put(u, &r, e) ? -1 : 0;
}

int undo_make(struct plan *p, const struct digest *target, struct err *e)
{
	AUTO_CLOSE int fd = openat(p->r->ctl, "undo", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	struct undo u = {.p = p, .next_ref = REF_ROOT + 1, .sink = {.fd = fd, .name = "the undo"}};

	if (fd < 0)
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/undo'", p->r->path);
	u.o = (struct stream_out){.sink = sink_write, .ctx = &u.sink};
	u.data = xalloc(REC_DATA_MAX);
	u.fresh = xalloc(REC_DATA_MAX);
	*numbers_at(&u.refs, CATALOG_ROOT) = REF_ROOT;
	int rc = stream_begin(&u.o, KIND_DELTA, e) || put_head(&u, target, e) ||
		plan_walk(p, &(struct plan_visit){.record = collect, .ctx = &u}, e) || detach_added(&u, e) ||
		plan_walk(p, &(struct plan_visit){.detach = bring_back, .ctx = &u}, e) ||
		plan_walk(p, &(struct plan_visit){.object = change_back, .ctx = &u}, e) ||
		put_end(&u, e) || stream_finish(&u.o, e) || sink_flush(&u.sink, e) ? -1 : 0;
	stream_out_free(&u.o);
	sink_free(&u.sink);
	numbers_free(&u.refs);
	numbers_free(&u.placed);
	buf_free(&u.added);
	buf_free(&u.path);
	free(u.data);
	free(u.fresh);
	return rc;
}
