#include "content.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "anchors.h"
#include "extents.h"

#define CHUNK WINDOW_PIECE
#define PAGE 4096u
#define STRETCHES 32u         /* that are read, or holes, known ahead */
#define QUEUE 256u            /* ranges that are shared, known ahead */
#define QUEUE_BYTES (8u << 20) /* between them, on their way from the disk */
#define PROOFS 32u            /* blocks of a copy whose digests are made at a time */
#define SEARCH_MIN 16384u     /* bytes */
#define AHEAD 32u             /* sums that are made before the first is looked up */

uint32_t content_grain(uint64_t size)
{
	/* What is rewritten in place is rewritten in pages of 4 KiB. Their rows are 0.9% of the data: of a very large file that is too much
	 * for a guess. */
	return size <= UINT64_C(16) << 30 ? 4096 : 16384;
}

void content_row_digest(const uint8_t *row, uint64_t len, struct digest *d)
{
	if (is_zero(row, DIGESTS_ROW))
		digest_zeros(d, len);
	else
		memcpy(d->b, row, DIGEST_LEN);
}

static uint64_t block_len(uint64_t size, uint32_t grain, uint64_t block)
{
	return min_u64(grain, size - block * grain);
}

/* However many blocks of zeros there are, they are one step. */
static void add_zeros(struct content_rows *x)
{
	struct digest d;

	if (!x->zeros)
		return;
	digest_zeros(&d, x->grain);
	digest_tree_repeat(x->tree, &d, x->zeros);
	x->zeros = 0;
}

static void add_rows(struct content_rows *x, const uint8_t *rows, size_t n, uint64_t first)
{
	struct digest d[BLOCKS_ROWS];
	size_t some = 0; /* digests that are not in the tree yet */

	for (size_t i = 0; i < n; i++, rows += DIGESTS_ROW) {
		uint64_t len = block_len(x->size, x->grain, first + i);
		bool is_zeros = len == x->grain && is_zero(rows, DIGESTS_ROW);
		if (some == BLOCKS_ROWS || (is_zeros && some)) {
			digest_tree_add(x->tree, d, some);
			some = 0;
		}
		if (is_zeros) {
			x->zeros++;
			continue;
		}
		add_zeros(x);
		content_row_digest(rows, len, &d[some++]);
	}
	digest_tree_add(x->tree, d, some);
}

/* Blocks first to stop have no rows. */
static void add_none(struct content_rows *x, uint64_t first, uint64_t stop)
{
	static const uint8_t none[DIGESTS_ROW];
	bool is_cut = first < stop && block_len(x->size, x->grain, stop - 1) < x->grain;

	x->zeros += stop - first - is_cut;
	if (is_cut)
		add_rows(x, none, 1, stop - 1);
}

int content_rows(struct content_rows *x, uint64_t first, uint64_t stop, struct err *e)
{
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	uint64_t at = first;
	int n;

	for (; (n = catalog_blocks_some(x->cat, x->no, &at, stop, rows, e)) > 0; at = first) {
		add_none(x, first, at);
		add_rows(x, rows, (size_t)n, at);
		if (x->each && x->each(x->ctx, at, (size_t)n, rows, e))
			return -1;
		first = at + (uint64_t)n;
	}
	if (n < 0)
		return -1;
	add_none(x, first, stop);
	add_zeros(x);
	return 0;
}

int content_rows_fit(struct catalog *c, const struct object *o, struct err *e)
{
	struct digest_tree t;
	struct digest d;

	if (o->size < DIGEST_LEAF)
		return 1;
	if (!o->grain)
		return 0;
	digest_tree_init(&t);
	struct content_rows x = {.cat = c, .no = o->no, .size = o->size, .grain = o->grain, .tree = &t};
	if (content_rows(&x, 0, object_blocks(o->size, o->grain), e))
		return -1;
	digest_tree_root(&t, &d);
	return digest_eq(&d, &o->content);
}

/* ---- one file ---- */

struct pass {
	struct content *c;
	struct content_file *f;
	struct digest_tree tree;
	uint64_t old_blocks;
	/* the window's piece, and what comes behind it up to `planned` */
	uint64_t chunk;
	struct stretch {
		uint64_t off, end;
		bool is_hole;
	} next[STRETCHES];
	size_t next_at, next_n;
	uint64_t planned;
	/* a proved copy: target bytes up to `until` equal base bytes of object no at (offset + shift) */
	uint64_t copy_no, copy_until, copy_shift;
	struct object src;
	uint8_t src_rows[BLOCKS_ROWS * DIGESTS_ROW];
	uint64_t src_first, src_n;
	bool has_src_rows;
	/* of the target's blocks from proof_off on, as the source is cut: some more each time, as long as they prove right */
	struct digest proof[PROOFS];
	uint64_t proof_off, proof_n, proof_next;
	int64_t credit; /* bytes that failing proofs may still hash */
	bool grew;         /* all of the old version is where it was; this lies behind it */
	bool holes;        /* the filesystem tells where they are */
	uint64_t data_end; /* data as far as is known */
	/* what is shared: the next ranges, and of the chunk at hand the pages */
	struct next_range {
		struct extents_range r;
		uint64_t before; /* bytes between it and the one before */
	} queue[QUEUE];
	size_t queue_at, queue_n;
	uint64_t announced; /* up to here; */
	uint64_t coming;    /* bytes of it between ranges of the queue */
	bool is_end;
	bool page_shared[CHUNK / PAGE];
};

static const uint8_t *at(const struct pass *p, uint64_t off) { return p->c->window.bytes + (off - p->c->window.off); }

/* The digest of so many bytes from off on, of one block of the source, which the window holds. */
static const struct digest *prove(struct pass *p, uint64_t off, uint64_t len)
{
	uint32_t grain = p->src.grain;
	uint64_t i = (off - p->proof_off) / grain, n = 1;

	if (off >= p->proof_off && i < p->proof_n && p->proof_off + i * grain == off && len == grain)
		return &p->proof[i];
	if (len == grain)
		n = max_u64(1, min_u64(min_u64(p->proof_next, CHUNK / 2 / grain), (p->c->window.until - off) / grain));
	digest_blocks(p->proof, at(p, off), (size_t)(n * len), grain);
	p->proof_off = off;
	p->proof_n = n;
	p->proof_next = min_u64(2 * n, PROOFS);
	return p->proof;
}

/* Proves the copy for one more block of the source from target offset off on. */
static bool copy_extend(struct pass *p, uint64_t off, struct err *e)
{
	uint64_t src = off + p->copy_shift, block = src / p->src.grain;
	struct digest want;

	if (src % p->src.grain || block >= object_blocks(p->src.size, p->src.grain))
		return false;
	uint64_t len = block_len(p->src.size, p->src.grain, block);
	if (off + len > p->c->window.until)
		return false;
	if (!p->has_src_rows || block < p->src_first || block >= p->src_first + p->src_n) {
		p->src_first = block;
		p->src_n = min_u64(BLOCKS_ROWS, object_blocks(p->src.size, p->src.grain) - block);
		if (catalog_blocks(p->c->base, p->src.no, block, (size_t)p->src_n, p->src_rows, e))
			return false;
		p->has_src_rows = true;
	}
	const uint8_t *row = p->src_rows + (block - p->src_first) * DIGESTS_ROW;
	if (is_zero(row, DIGESTS_ROW))
		return false;
	memcpy(want.b, row, DIGEST_LEN);
	if (!digest_eq(prove(p, off, len), &want))
		return false;
	p->copy_until = off + len;
	return true;
}

static bool copy_start(struct pass *p, const struct anchor *a, uint64_t off, struct err *e)
{
	if (p->src.no != a->no || !p->src.grain) {
		p->has_src_rows = false;
		if (catalog_get(p->c->base, a->no, &p->src, e) != 1 || p->src.type != OBJ_FILE || !p->src.grain) {
			p->src.no = 0;
			return false;
		}
	}
	p->copy_shift = a->block * p->src.grain - off;
	if (p->f->old && a->no == p->f->old->no && p->copy_shift == 0)
		return false;
	p->proof_n = 0;
	p->proof_next = 1;
	if (!copy_extend(p, off, e))
		return false;
	p->copy_no = a->no;
	return true;
}

/* Where content repeats itself, in runs of zeros say, a block may seem to start at every byte and never prove right: what is hashed
 * in vain stays in proportion to what was searched. */
#define CREDIT_PER_BYTE 2
#define CREDIT_MAX (4 << 20)

static bool copy_try(struct pass *p, const struct anchor *a, uint64_t off, struct err *e)
{
	if (p->credit < 0)
		return false;
	if (copy_start(p, a, off, e))
		return true;
	p->credit -= p->src.grain;
	return false;
}

static int put_data(struct pass *p, uint64_t from, uint64_t to, struct err *e)
{
	struct content_file *f = p->f;
	struct digest d;

	if (from == to)
		return 0;
	size_t len = (size_t)(to - from);
	if (from % f->grain == 0 && (to % f->grain == 0 || to == f->size)) {
		struct digest_tree t;
		digest_tree_init(&t);
		digest_tree_add(&t, &p->c->window.digests[(from - p->chunk) / f->grain], object_blocks(to - from, f->grain));
		digest_tree_root(&t, &d);
	} else {
		digest_bytes(&d, at(p, from), len);
	}
	f->differs = true;
	return p->c->data(p->c->ctx, from, &d, span_of(at(p, from), len), e);
}

/* A block of the base starts here, and is proved. */
static bool match(struct pass *p, uint64_t weak, uint64_t off, struct err *e)
{
	const struct anchor *a = anchors_find(p->c->own, weak);

	if (!a)
		a = anchors_find(p->c->all, weak);
	return a && copy_try(p, a, off, e);
}

static void earn(struct pass *p, uint64_t bytes)
{
	p->credit += (int64_t)(CREDIT_PER_BYTE * bytes);
	if (p->credit > CREDIT_MAX)
		p->credit = CREDIT_MAX;
}

/* Next position from off on, before `to`, where a block of the base starts and is proved; `to` when there is none. */
static int search(struct pass *p, uint64_t off, uint64_t to, uint64_t *hit, struct err *e)
{
	const struct anchors *own = p->c->own, *all = p->c->all;
	const uint64_t *tab = roll_out_table();
	uint64_t until = p->c->window.until, from = off;

	*hit = to;
	if (until < DIGEST_LEAF || off + DIGEST_LEAF > until)
		return 0;
	uint64_t last = min_u64(to, until - DIGEST_LEAF + 1), weak[AHEAD];
	const uint8_t *b = at(p, off);
	for (uint64_t h = roll_raw(b); off < last;) {
		size_t n = (size_t)min_u64(AHEAD, last - off);
		/* Where they stand is asked for before the first of them is needed. */
		for (size_t i = 0; i < n; i++, b++) {
			weak[i] = h ? h : 1;
			anchors_prefetch(own, weak[i]);
			anchors_prefetch(all, weak[i]);
			if (off + i + 1 < last)
				h = roll_step(h, b[DIGEST_LEAF], b[0], tab);
		}
		for (size_t i = 0; i < n; i++, off++) {
			if (!anchors_may_have(own, weak[i]) && !anchors_may_have(all, weak[i]))
				continue;
			earn(p, off - from);
			from = off;
			if (match(p, weak[i], off, e)) {
				*hit = off;
				return 0;
			}
			if (e->kind)
				return -1;
		}
	}
	earn(p, off - from);
	return 0;
}

/* A few pages between blocks that stayed, or that are shared: were content moved there, more than that would differ. Not worth the index
 * of a large file, which it costs to look. */
static bool is_rewritten(const struct pass *p, uint64_t from, uint64_t to)
{
	return p->f->old && !p->copy_no && from > 0 && to < p->f->size && to - from < SEARCH_MIN;
}

#define GROWN_MIN 1048576u /* bytes: the index of a smaller one costs nothing */

/* A log: what came behind all that is still in its place is not looked for in there. The larger the file, the more the index of it
 * would cost, and each time. */
static bool is_grown(struct pass *p, uint64_t from)
{
	const struct content_file *f = p->f;

	if (f->old && f->old->size >= GROWN_MIN && !f->is_prior && !f->differs && from >= f->old->size - f->old->size % f->grain)
		p->grew = true;
	return p->grew;
}

static int literal(struct pass *p, uint64_t from, uint64_t to, struct err *e)
{
	struct content *c = p->c;
	uint64_t off = from, lit = from;

	if (!c->copies || catalog_is_empty(c->base) || is_rewritten(p, from, to) || is_grown(p, from))
		return put_data(p, from, to, e);
	if (!c->all && c->everywhere && anchors_all(&c->all, c->base, e))
		return -1;
	bool is_in_all = c->all && p->f->old && c->all->only == p->f->old->no;
	if (!c->own && p->f->old && p->old_blocks > 1 && !is_in_all && anchors_own(&c->own, c->base, p->f->old, e))
		return -1;
	while (off < to) {
		if (p->copy_no && p->copy_until == off && !copy_extend(p, off, e))
			p->copy_no = 0;
		if (e->kind)
			return -1;
		if (p->copy_no && p->copy_until > off) {
			uint64_t n = min_u64(p->copy_until, to) - off;
			if (put_data(p, lit, off, e) || c->copy(c->ctx, off, n, p->copy_no, off + p->copy_shift, e))
				return -1;
			p->f->differs = true;
			off += n;
			lit = off;
			continue;
		}
		p->copy_no = 0;
		if (search(p, off, to, &off, e))
			return -1;
	}
	return put_data(p, lit, to, e);
}

/* Blocks that differ, without the pages of them that are shared all the same. */
static int differing(struct pass *p, uint64_t from, uint64_t to, struct err *e)
{
	const struct content_file *f = p->f;

	if (!f->shared)
		return literal(p, from, to, e);
	for (uint64_t off = from; off < to;) {
		bool is_shared = p->page_shared[(off - p->chunk) / PAGE];
		uint64_t end = off;
		while (end < to && p->page_shared[(end - p->chunk) / PAGE] == is_shared)
			end = min_u64(end + PAGE, to);
		if (is_shared && f->is_prior && p->c->copy(p->c->ctx, off, end - off, f->old->no, off, e))
			return -1;
		if (!is_shared && literal(p, off, end, e))
			return -1;
		off = end;
	}
	return 0;
}

/* The next blocks before `stop` of which the old version may have something else than a hole, and their rows: how many; 0; -1. */
static int next_told(struct pass *p, uint64_t *at, uint64_t stop, bool is_cut, uint8_t *rows, struct err *e)
{
	const struct object *old = p->f->old;
	uint64_t next = *at;
	int n = old->size < DIGEST_LEAF ? 0 : catalog_blocks_some(p->c->base, old->no, &next, stop, rows, e);

	/* No row says whether the last block, when that is shorter, is as long in both; and of a single small one there is no row. */
	if (n == 0 && (is_cut || old->size < DIGEST_LEAF) && *at < stop) {
		memset(rows, 0, DIGESTS_ROW);
		next = stop - 1;
		n = 1;
	}
	*at = next;
	return n;
}

/* Where the old version has something else than this hole, say so; a last, shorter block always. Without an old version that is how
 * the content starts. */
static int tell_hole(struct pass *p, uint64_t off, uint64_t end, struct err *e)
{
	static const uint8_t zero_row[DIGESTS_ROW];
	struct content_file *f = p->f;
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	uint64_t from = 0, to = 0; /* not yet said */
	int n;

	if (!f->old || f->is_prior)
		return 0;
	const uint64_t all = object_blocks(end, f->grain), stop = min_u64(all, p->old_blocks);
	const bool is_cut = stop == all && end % f->grain;
	for (uint64_t at = off / f->grain; (n = next_told(p, &at, stop, is_cut, rows, e)) > 0; at += (uint64_t)n) {
		for (size_t k = 0; k < (size_t)n; k++) {
			uint64_t block = at + k, len = min_u64(f->grain, end - block * f->grain);
			if (is_zero(rows + k * DIGESTS_ROW, DIGESTS_ROW) && f->old->size >= DIGEST_LEAF &&
					(len == f->grain || block_len(f->old->size, f->grain, block) == len))
				continue;
			f->differs = true;
			if (block * f->grain != to) {
				if (from < to && p->c->hole(p->c->ctx, from, to - from, e))
					return -1;
				from = block * f->grain;
			}
			to = block * f->grain + len;
			if (p->c->rows(p->c->ctx, block, 1, zero_row, e))
				return -1;
		}
	}
	return n < 0 || (from < to && p->c->hole(p->c->ctx, from, to - from, e)) ? -1 : 0;
}

static int chunk(struct pass *p, uint64_t off, uint64_t end, struct err *e)
{
	struct content_file *f = p->f;
	size_t n = (size_t)((end - off + f->grain - 1) / f->grain);
	uint64_t first = off / f->grain;
	const struct digest *digests = p->c->window.digests;
	AUTO_FREE uint8_t *old = xalloc(n * DIGESTS_ROW), *fresh = xalloc(n * DIGESTS_ROW);
	AUTO_FREE bool *same = xalloc(n * sizeof *same), *holes = xalloc(n * sizeof *holes); /* that the old version does not have there */

	p->chunk = off;
	digest_tree_add(&p->tree, digests, n);
	if (f->old && first < p->old_blocks &&
			catalog_blocks(p->c->base, f->old->no, first, (size_t)min_u64(n, p->old_blocks - first), old, e))
		return -1;
	for (size_t i = 0; i < n; i++) {
		uint64_t len = min_u64(f->grain, end - off - i * f->grain);
		const uint8_t *b = at(p, off + i * f->grain);
		if (f->old && first + i < p->old_blocks && block_len(f->old->size, f->grain, first + i) == len) {
			struct digest was;
			if (f->old->size < DIGEST_LEAF)
				was = f->old->content;
			else
				content_row_digest(old + i * DIGESTS_ROW, len, &was);
			same[i] = digest_eq(&was, &digests[i]);
		}
		holes[i] = f->zeros_are_holes && !same[i] && is_zero(b, (size_t)len);
		if (!same[i] || f->is_prior)
			blocks_row(fresh + i * DIGESTS_ROW, first + i, &digests[i], b, len);
	}
	if (f->only_digest)
		return 0;
	for (size_t i = 0; i < n;) {
		size_t j = i;
		while (j < n && same[j] == same[i] && holes[j] == holes[i])
			j++;
		uint64_t from = off + i * f->grain, to = min_u64(off + j * f->grain, end);
		if (holes[i]) {
			if (tell_hole(p, from, to, e))
				return -1;
			i = j;
			continue;
		}
		if (same[i] && f->is_prior) {
			f->differs = true;
			if (p->c->copy(p->c->ctx, from, to - from, f->old->no, from, e))
				return -1;
		}
		if (!same[i] && differing(p, from, to, e))
			return -1;
		if (!same[i] || f->is_prior) {
			if (f->size >= DIGEST_LEAF && p->c->rows(p->c->ctx, first + i, j - i, fresh + i * DIGESTS_ROW, e))
				return -1;
		}
		i = j;
	}
	return 0;
}

/* [off, end) is a hole on the grid. */
static int hole(struct pass *p, uint64_t off, uint64_t end, struct err *e)
{
	struct content_file *f = p->f;
	uint64_t full = (end - off) / f->grain;
	struct digest d;

	if (full) {
		digest_zeros(&d, f->grain);
		digest_tree_repeat(&p->tree, &d, full);
	}
	if ((end - off) % f->grain) {
		digest_zeros(&d, (end - off) % f->grain);
		digest_tree_add(&p->tree, &d, 1);
	}
	return f->only_digest ? 0 : tell_hole(p, off, end, e);
}

static uint64_t round_up(uint64_t n, uint64_t to) { return n + (to - n % to) % to; }

/* The i-th range from here on; NULL: there are no more, or so many are not known ahead. As many are as the disk can read at a time. */
static const struct extents_range *range_at(struct pass *p, size_t i)
{
	while (p->queue_n < QUEUE && !p->is_end && (p->queue_n <= i || p->coming < QUEUE_BYTES)) {
		struct next_range *n = &p->queue[(p->queue_at + p->queue_n) % QUEUE];
		p->is_end = !extents_next(p->f->shared, &n->r);
		uint64_t from = p->announced - p->announced % p->f->grain, to = p->is_end ? p->f->size : n->r.off;
		/* What lies between two of them will be read, in whole blocks; not all of a large stretch at once. */
		if (to > p->announced)
			posix_fadvise(p->f->fd, (off_t)from, (off_t)min_u64(round_up(to, p->f->grain) - from, CHUNK), POSIX_FADV_WILLNEED);
		if (!p->is_end) {
			n->before = to - p->announced;
			p->coming += n->before;
			p->announced = n->r.off + n->r.len;
			p->queue_n++;
		}
	}
	return i < p->queue_n ? &p->queue[(p->queue_at + i) % QUEUE].r : NULL;
}

static void drop_range(struct pass *p)
{
	p->coming -= p->queue[p->queue_at].before;
	p->queue_at = (p->queue_at + 1) % QUEUE;
	p->queue_n--;
}

static void mark_pages(struct pass *p, uint64_t off, uint64_t end)
{
	const struct extents_range *r;

	memset(p->page_shared, 0, sizeof p->page_shared);
	for (size_t i = 0; (r = range_at(p, i)) && r->off < end; i++) {
		uint64_t from = max_u64(round_up(r->off, PAGE), off), to = min_u64(r->off + r->len, end);
		for (uint64_t at = from; at < to && min_u64(at + PAGE, end) <= to; at += PAGE)
			p->page_shared[(at - off) / PAGE] = true;
	}
}

/* How far the hole reaches that begins here, where there is one. */
static uint64_t hole_end(struct pass *p, uint64_t off, uint64_t to)
{
	struct content_file *f = p->f;

	if (!p->holes || off < p->data_end)
		return off;
	off_t data = lseek(f->fd, (off_t)off, SEEK_DATA);
	if (data < 0 && errno != ENXIO) {
		p->holes = false; /* the filesystem cannot tell */
		return off;
	}
	uint64_t next = data < 0 ? f->size : min_u64((uint64_t)data, f->size);
	next = next == f->size ? next : next - next % f->grain;
	if (next > off)
		return min_u64(next, to);
	off_t end = lseek(f->fd, data, SEEK_HOLE);
	p->data_end = end < 0 ? f->size : round_up((uint64_t)end, f->grain);
	return off;
}

/* Finds out what comes next, up to `to`, as far as there is room to read it ahead. */
static void look_ahead(struct pass *p, uint64_t to)
{
	while (p->planned < to && p->next_n < STRETCHES) {
		struct stretch s = {p->planned, hole_end(p, p->planned, to), true};
		if (s.end == s.off) {
			s.is_hole = false;
			s.end = min_u64(s.off - s.off % CHUNK + CHUNK, to);
			if (p->holes)
				s.end = min_u64(s.end, p->data_end);
			if (!window_expect(&p->c->window, s.off, s.end))
				return;
		}
		p->next[(p->next_at + p->next_n++) % STRETCHES] = s;
		p->planned = s.end;
	}
}

static int piece(struct pass *p, const struct stretch *s, struct err *e)
{
	struct window *w = &p->c->window;

	if (p->f->shared)
		mark_pages(p, s->off, s->end);
	return window_step(w, e) ? -1 : chunk(p, s->off, s->end, e);
}

/* [off, to), read and compared. */
static int look_at(struct pass *p, uint64_t off, uint64_t to, struct err *e)
{
	if (window_begin(&p->c->window, to - off, e))
		return -1;
	p->planned = off;
	p->next_n = 0;
	for (look_ahead(p, to); p->next_n; look_ahead(p, to)) {
		struct stretch s = p->next[p->next_at];
		p->next_at = (p->next_at + 1) % STRETCHES;
		p->next_n--;
		if (s.is_hole ? hole(p, s.off, s.end, e) : piece(p, &s, e))
			return -1;
	}
	return 0;
}

/* [off, end) is shared, in blocks that are the same ones in both: the base's rows say it all. */
static int keep(struct pass *p, uint64_t off, uint64_t end, struct err *e)
{
	struct content_file *f = p->f;
	struct content_rows x = {.cat = p->c->base, .no = f->old->no, .size = f->size, .grain = f->grain, .tree = &p->tree};

	if (f->is_prior && !f->only_digest) {
		x.each = p->c->rows;
		x.ctx = p->c->ctx;
	}
	if (content_rows(&x, off / f->grain, object_blocks(end, f->grain), e))
		return -1;
	if (!f->is_prior || f->only_digest)
		return 0;
	f->differs = true;
	return p->c->copy(p->c->ctx, off, end - off, f->old->no, off, e);
}

/* Where the blocks end that lie whole in the range. */
static uint64_t whole_end(const struct pass *p, const struct extents_range *r)
{
	uint64_t end = r->off + r->len, size = p->f->size;

	return end >= size && p->f->old->size == size ? size : end - end % p->f->grain;
}

/* Where the next block begins, from off on, that is shared whole. */
static uint64_t next_kept(struct pass *p, uint64_t off)
{
	uint32_t grain = p->f->grain;
	uint64_t last = off;

	for (size_t i = 0; i < QUEUE; i++) {
		const struct extents_range *r = range_at(p, i);
		if (!r)
			return p->f->size;
		uint64_t start = max_u64(round_up(r->off, grain), off);
		if (start < whole_end(p, r))
			return start;
		last = r->off - r->off % grain;
	}
	return max_u64(last, min_u64(off + grain, p->f->size));
}

static int run(struct pass *p, struct err *e)
{
	struct content_file *f = p->f;
	const struct extents_range *r;

	if (!f->shared)
		return look_at(p, 0, f->size, e);
	for (uint64_t off = 0; off < f->size;) {
		while ((r = range_at(p, 0)) && r->off + r->len <= off)
			drop_range(p);
		uint64_t end = r && r->off <= off ? whole_end(p, r) : off;
		if (end > off ? keep(p, off, end, e) : look_at(p, off, end = next_kept(p, off), e))
			return -1;
		off = end;
	}
	return 0;
}

int content_run(struct content *c, struct content_file *f, struct err *e)
{
	struct pass p = {.c = c, .f = f, .credit = CREDIT_MAX, .holes = true};

	f->differs = false;
	anchors_free(&c->own);
	/* What moved is looked for, and proved, across the end of a piece. */
	window_start(&c->window, f->fd, f->grain, c->copies && !f->only_digest && !catalog_is_empty(c->base));
	if (f->old && f->old->grain == f->grain)
		p.old_blocks = object_blocks(f->old->size, f->grain);
	digest_tree_init(&p.tree);
	int rc = run(&p, e);
	if (!rc)
		digest_tree_root(&p.tree, &f->digest);
	f->read = c->window.read;
	f->is_short = c->window.is_short;
	object_free(&p.src);
	return rc;
}

void content_free(struct content *c)
{
	window_free(&c->window);
	anchors_free(&c->all);
	anchors_free(&c->own);
}
