#include "chunks.h"

#define HAS_SUM 0x80u
#define ENTRY_MAX (1 + DIGESTS_ROW)

struct chunk {
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW]; /* of those that are not kept: zeros */
	size_t n;                                /* that are kept */
};
struct loose { /* of one chunk, in the order of their blocks */
	size_t n;
	struct {
		size_t at; /* in the chunk */
		uint8_t row[DIGESTS_ROW];
	} v[LOOSE_MOST];
};

/* ---- loose rows ---- */

static size_t encode(uint8_t out[LOOSE_MOST * ENTRY_MAX], const struct loose *l)
{
	size_t len = 0;

	for (size_t i = 0; i < l->n; i++) {
		bool has_sum = !is_zero(l->v[i].row + DIGEST_LEN, DIGESTS_ROW - DIGEST_LEN);
		size_t n = has_sum ? DIGESTS_ROW : DIGEST_LEN;
		out[len++] = (uint8_t)(l->v[i].at | (has_sum ? HAS_SUM : 0));
		memcpy(out + len, l->v[i].row, n);
		len += n;
	}
	return len;
}

static bool decode(struct loose *l, struct span value)
{
	struct rd r = rd_of(value.p, value.len);

	for (l->n = 0; r.len && !r.bad; l->n++) {
		uint8_t head = rd_u8(&r);
		size_t at = head & ~HAS_SUM;
		if (l->n == LOOSE_MOST || at >= BLOCKS_ROWS || (l->n && at <= l->v[l->n - 1].at))
			return false;
		l->v[l->n].at = at;
		memset(l->v[l->n].row, 0, DIGESTS_ROW);
		rd_copy(&r, l->v[l->n].row, head & HAS_SUM ? DIGESTS_ROW : DIGEST_LEN);
	}
	return l->n && rd_done(&r);
}

/* No rows: there are none. */
static int get_loose(struct store *s, const struct rows_key *k, struct loose *l, struct err *e)
{
	struct span v;
	int got = store_get(s, STORE_LOOSE, rows_span(k), &v, e);

	l->n = 0;
	return got == 1 && !decode(l, v) ? store_damaged(s, NULL, e) : got < 0 ? -1 : 0;
}

static int put_loose(struct store *s, const struct rows_key *k, const struct loose *l, struct err *e)
{
	uint8_t value[LOOSE_MOST * ENTRY_MAX];

	return store_put(s, STORE_LOOSE, rows_span(k), span_of(value, encode(value, l)), e);
}

/* The row of one block is this from now on; false: there is no room for it. */
static bool add(struct loose *l, size_t at, const uint8_t *row)
{
	size_t i = 0;

	while (i < l->n && l->v[i].at < at)
		i++;
	if (i == l->n || l->v[i].at != at) {
		if (l->n == LOOSE_MOST)
			return false;
		memmove(l->v + i + 1, l->v + i, (l->n++ - i) * sizeof l->v[0]);
		l->v[i].at = at;
	}
	memcpy(l->v[i].row, row, DIGESTS_ROW);
	return true;
}

static void lay_over(struct chunk *c, const struct loose *l)
{
	for (size_t i = 0; i < l->n; i++)
		memcpy(c->rows + l->v[i].at * DIGESTS_ROW, l->v[i].row, DIGESTS_ROW);
}

/* ---- chunks ---- */

static struct rows_key key_of(uint64_t no, uint64_t block) { return rows_key_two(no, block / BLOCKS_ROWS); }

/* Without what is loose. */
static int get(struct store *s, const struct rows_key *k, struct chunk *c, struct err *e)
{
	struct span v;
	int got = store_get(s, STORE_BLOCKS, rows_span(k), &v, e);

	c->n = got == 1 ? blocks_decode(c->rows, v) : 0;
	if (got == 1 && !c->n)
		return store_damaged(s, NULL, e);
	memset(c->rows + c->n * DIGESTS_ROW, 0, (BLOCKS_ROWS - c->n) * DIGESTS_ROW);
	return got < 0 ? -1 : 0;
}

static int set(struct store *s, const struct rows_key *k, const uint8_t *rows, size_t n, struct err *e)
{
	uint8_t value[BLOCKS_MAX];

	return store_put(s, STORE_BLOCKS, rows_span(k), span_of(value, blocks_encode(value, rows, n)), e);
}

/* 1: the chunk has all the rows that it may have; 0, -1. */
static int is_full(struct store *s, const struct rows_key *k, struct err *e)
{
	struct span v;
	int got = store_get(s, STORE_BLOCKS, rows_span(k), &v, e);

	return got == 1 ? v.len && v.p[0] == BLOCKS_ROWS : got;
}

int chunks_next(struct store *s, uint64_t no, uint64_t *block, struct err *e)
{
	const struct rows_key k = key_of(no, *block);
	struct span at_key, value;
	int got = store_seek(s, STORE_BLOCKS, rows_span(&k), 8, &at_key, &value, e);

	if (got > 0 && at_key.len != 16)
		return store_damaged(s, NULL, e);
	if (got > 0)
		*block = max_u64(*block, get_be64(at_key.p + 8) * BLOCKS_ROWS);
	return got;
}

int chunks_get(struct store *s, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e)
{
	struct span at_key, value;
	struct chunk c;
	struct loose l;
	int more = 1;
	uint64_t next = 0; /* the first chunk from here on that has loose rows; unknown where it lies behind */

	for (size_t take; n; rows += take * DIGESTS_ROW, first += take, n -= take) {
		const struct rows_key k = key_of(no, first);
		const uint64_t chunk = first / BLOCKS_ROWS;
		const size_t at = first % BLOCKS_ROWS;
		take = BLOCKS_ROWS - at < n ? BLOCKS_ROWS - at : n;
		if (get(s, &k, &c, e))
			return -1;
		if (more && next <= chunk) {
			more = store_seek(s, STORE_LOOSE, rows_span(&k), 8, &at_key, &value, e);
			if (more < 0 || (more && (at_key.len != 16 || !decode(&l, value))))
				return more < 0 ? -1 : store_damaged(s, NULL, e);
			next = more ? get_be64(at_key.p + 8) : 0;
		}
		if (more && next == chunk)
			lay_over(&c, &l);
		memcpy(rows, c.rows + at * DIGESTS_ROW, take * DIGESTS_ROW);
	}
	return 0;
}

/* Into the chunk itself, with all that was loose. */
static int settle(struct store *s, const struct rows_key *k, const struct loose *l, size_t at, size_t n, const uint8_t *rows, struct err *e)
{
	struct chunk c;

	if (get(s, k, &c, e))
		return -1;
	lay_over(&c, l);
	memcpy(c.rows + at * DIGESTS_ROW, rows, n * DIGESTS_ROW);
	return set(s, k, c.rows, c.n > at + n ? c.n : at + n, e) || (l->n && store_del(s, STORE_LOOSE, rows_span(k), e)) ? -1 : 0;
}

/* Some rows of one chunk. */
static int put_some(struct store *s, const struct rows_key *k, size_t at, size_t n, const uint8_t *rows, struct err *e)
{
	struct loose is, was;
	bool fits = true;

	if (get_loose(s, k, &was, e))
		return -1;
	is = was;
	for (size_t i = 0; i < n && fits; i++)
		fits = add(&is, at + i, rows + i * DIGESTS_ROW);
	/* What has loose rows is full. */
	int full = !fits || was.n ? fits : is_full(s, k, e);
	return full < 0 ? -1 : full ? put_loose(s, k, &is, e) : settle(s, k, &was, at, n, rows, e);
}

int chunks_put(struct store *s, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	for (size_t take; n; rows += take * DIGESTS_ROW, first += take, n -= take) {
		const struct rows_key k = key_of(no, first);
		const size_t at = first % BLOCKS_ROWS;
		take = BLOCKS_ROWS - at < n ? BLOCKS_ROWS - at : n;
		int rc = take < BLOCKS_ROWS ? put_some(s, &k, at, take, rows, e) :
			set(s, &k, rows, take, e) || store_del(s, STORE_LOOSE, rows_span(&k), e) ? -1 : 0;
		if (rc)
			return -1;
	}
	return 0;
}

int chunks_cut(struct store *s, uint64_t no, uint64_t first, struct err *e)
{
	const size_t keep = first % BLOCKS_ROWS;
	const struct rows_key k = key_of(no, first), behind = rows_key_two(no, first / BLOCKS_ROWS + (keep != 0));
	struct chunk c;
	struct loose l;

	if (keep) {
		if (get(s, &k, &c, e) || get_loose(s, &k, &l, e))
			return -1;
		lay_over(&c, &l);
		if (c.n > keep && set(s, &k, c.rows, keep, e))
			return -1;
	}
	return store_del_from(s, STORE_BLOCKS, rows_span(&behind), 8, e) || store_del_from(s, STORE_LOOSE, rows_span(&k), 8, e) ? -1 : 0;
}

/* The rows of one chunk; `loose` stands at the first one from it on that has loose rows, *more: there is one. */
static int each_row(struct store_walk *w, struct store_walk *loose, int *more,
	int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row), void *ctx, struct err *e)
{
	struct chunk c;
	struct loose l;
	int cmp = *more ? span_cmp(loose->key, w->key) : 1, stop = 0;

	c.n = w->key.len == 16 ? blocks_decode(c.rows, w->value) : 0;
	if (!c.n || cmp < 0 || (!cmp && !decode(&l, loose->value)))
		return store_damaged(w->s, NULL, e);
	if (!cmp) {
		lay_over(&c, &l);
		if ((*more = store_walk_next(loose, e)) < 0)
			return -1;
	}
	for (size_t i = 0; i < c.n && !stop; i++)
		stop = fn(ctx, get_be64(w->key.p), get_be64(w->key.p + 8) * BLOCKS_ROWS + i, c.rows + i * DIGESTS_ROW);
	return stop;
}

int chunks_all(struct store *s, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row), void *ctx, struct err *e)
{
	struct store_walk w = {0}, loose = {0};
	int got = 0, rc = 0;

	store_walk_start(&w, s, STORE_BLOCKS, (struct span){0}, 0, false);
	store_walk_start(&loose, s, STORE_LOOSE, (struct span){0}, 0, false);
	int more = store_walk_next(&loose, e);
	while (more >= 0 && !rc && (got = store_walk_next(&w, e)) == 1)
		rc = each_row(&w, &loose, &more, fn, ctx, e);
	if (more < 0 || got < 0)
		rc = -1;
	else if (!rc && more)
		rc = store_damaged(s, NULL, e);
	store_walk_free(&w);
	store_walk_free(&loose);
	return rc;
}
