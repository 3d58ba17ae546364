#include "chunks.h"

struct chunk {
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW]; /* of those that are not kept: zeros */
	size_t n;                                /* that are kept */
	bool loose[BLOCKS_ROWS];
	size_t n_loose;
};

static uint64_t start_of(uint64_t block) { return block - block % BLOCKS_ROWS; }

/* ---- loose rows ---- */

/* The row, without its sum where it has none. */
static int put_loose(struct store *s, uint64_t no, uint64_t block, const uint8_t *row, struct err *e)
{
	struct rows_key k = rows_key_two(no, block);
	bool has_sum = !is_zero(row + DIGEST_LEN, DIGESTS_ROW - DIGEST_LEN);

	return store_put(s, STORE_LOOSE, rows_span(&k), span_of(row, has_sum ? DIGESTS_ROW : DIGEST_LEN), e);
}

static bool decode_loose(uint8_t row[DIGESTS_ROW], struct span value)
{
	if (value.len != DIGEST_LEN && value.len != DIGESTS_ROW)
		return false;
	memset(row, 0, DIGESTS_ROW);
	memcpy(row, value.p, value.len);
	return true;
}

/* The object's first loose row from a block on, UINT64_MAX: there is none. */
static int next_loose(struct store *s, uint64_t no, uint64_t from, uint64_t *block, uint8_t row[DIGESTS_ROW], struct err *e)
{
	struct rows_key k = rows_key_two(no, from);
	struct span key, value;
	int got = store_seek(s, STORE_LOOSE, rows_span(&k), 8, &key, &value, e);

	*block = UINT64_MAX;
	if (got != 1)
		return got;
	if (key.len != 16 || !decode_loose(row, value))
		return store_damaged(s, NULL, e);
	*block = get_be64(key.p + 8);
	return 0;
}

/* Which rows of the chunk that begins with a block are loose, and what they are. *next: the first one behind the chunk. */
static int find_loose(struct store *s, uint64_t no, uint64_t start, struct chunk *c, uint64_t *next, struct err *e)
{
	uint8_t row[DIGESTS_ROW];

	c->n_loose = 0;
	memset(c->loose, 0, sizeof c->loose);
	if (next_loose(s, no, start, next, row, e))
		return -1;
	while (*next < start + BLOCKS_ROWS) {
		size_t i = (size_t)(*next - start);
		memcpy(c->rows + i * DIGESTS_ROW, row, DIGESTS_ROW);
		c->loose[i] = true;
		c->n_loose++;
		if (next_loose(s, no, *next + 1, next, row, e))
			return -1;
	}
	return 0;
}

/* Those of one chunk: it says itself what its rows are. */
static int drop_loose(struct store *s, uint64_t no, uint64_t start, const struct chunk *c, struct err *e)
{
	for (size_t i = 0, n = c->n_loose; n; i++) {
		struct rows_key k = rows_key_two(no, start + i);
		if (!c->loose[i])
			continue;
		if (store_del(s, STORE_LOOSE, rows_span(&k), e))
			return -1;
		n--;
	}
	return 0;
}

/* ---- chunks ---- */

/* next: as far as is known no row before this one is loose. */
static int get(struct store *s, uint64_t no, uint64_t start, struct chunk *c, uint64_t *next, struct err *e)
{
	struct rows_key k = rows_key_two(no, start / BLOCKS_ROWS);
	struct span v;
	int got = store_get(s, STORE_BLOCKS, rows_span(&k), &v, e);

	c->n = got == 1 ? blocks_decode(c->rows, v) : 0;
	c->n_loose = 0;
	if (got == 1 && !c->n)
		return store_damaged(s, NULL, e);
	memset(c->rows + c->n * DIGESTS_ROW, 0, (BLOCKS_ROWS - c->n) * DIGESTS_ROW);
	if (got < 0 || c->n < BLOCKS_ROWS || *next >= start + BLOCKS_ROWS)
		return got < 0 ? -1 : 0;
	return find_loose(s, no, start, c, next, e);
}

static int set(struct store *s, uint64_t no, uint64_t start, const uint8_t *rows, size_t n, struct err *e)
{
	struct rows_key k = rows_key_two(no, start / BLOCKS_ROWS);
	uint8_t value[BLOCKS_MAX];

	return store_put(s, STORE_BLOCKS, rows_span(&k), span_of(value, blocks_encode(value, rows, n)), e);
}

int chunks_get(struct store *s, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e)
{
	struct chunk c;
	uint64_t next = 0;

	while (n) {
		size_t at = first % BLOCKS_ROWS, take = BLOCKS_ROWS - at < n ? BLOCKS_ROWS - at : n;
		if (get(s, no, start_of(first), &c, &next, e))
			return -1;
		memcpy(rows, c.rows + at * DIGESTS_ROW, take * DIGESTS_ROW);
		rows += take * DIGESTS_ROW;
		first += take;
		n -= take;
	}
	return 0;
}

/* Some rows of one chunk. */
static int put_some(struct store *s, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, uint64_t *next, struct err *e)
{
	const uint64_t start = start_of(first);
	const size_t at = (size_t)(first - start);
	struct chunk c;
	size_t n_loose = 0;

	if (get(s, no, start, &c, next, e))
		return -1;
	for (size_t i = 0; i < BLOCKS_ROWS; i++)
		n_loose += (c.n_loose && c.loose[i]) || (i >= at && i < at + n);
	if (c.n < BLOCKS_ROWS || n_loose > LOOSE_MOST) {
		memcpy(c.rows + at * DIGESTS_ROW, rows, n * DIGESTS_ROW);
		return set(s, no, start, c.rows, c.n > at + n ? c.n : at + n, e) || drop_loose(s, no, start, &c, e) ? -1 : 0;
	}
	for (size_t i = 0; i < n; i++, rows += DIGESTS_ROW)
		if (memcmp(c.rows + (at + i) * DIGESTS_ROW, rows, DIGESTS_ROW) && put_loose(s, no, first + i, rows, e))
			return -1;
	return 0;
}

static int put_whole(struct store *s, uint64_t no, uint64_t start, const uint8_t *rows, uint64_t *next, struct err *e)
{
	struct chunk c = {.n_loose = 0};

	if (*next < start + BLOCKS_ROWS && find_loose(s, no, start, &c, next, e))
		return -1;
	return set(s, no, start, rows, BLOCKS_ROWS, e) || drop_loose(s, no, start, &c, e) ? -1 : 0;
}

int chunks_put(struct store *s, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	uint64_t next = 0;

	while (n) {
		size_t at = first % BLOCKS_ROWS, take = BLOCKS_ROWS - at < n ? BLOCKS_ROWS - at : n;
		int rc = take == BLOCKS_ROWS ? put_whole(s, no, first, rows, &next, e) : put_some(s, no, first, take, rows, &next, e);
		if (rc)
			return rc;
		rows += take * DIGESTS_ROW;
		first += take;
		n -= take;
	}
	return 0;
}

int chunks_cut(struct store *s, uint64_t no, uint64_t first, struct err *e)
{
	const uint64_t start = start_of(first);
	const size_t keep = (size_t)(first - start);
	struct rows_key chunk = rows_key_two(no, start / BLOCKS_ROWS + (keep != 0)), loose = rows_key_two(no, start);
	struct chunk c;
	uint64_t next = 0;

	if (keep && (get(s, no, start, &c, &next, e) || (c.n > keep && set(s, no, start, c.rows, keep, e))))
		return -1;
	return store_del_from(s, STORE_BLOCKS, rows_span(&chunk), 8, e) || store_del_from(s, STORE_LOOSE, rows_span(&loose), 8, e) ?
		-1 : 0;
}

/* The rows of one chunk; l stands at the first loose row from it on, *more: there is one. */
static int each_row(struct store_walk *w, struct store_walk *l, int *more, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row),
	void *ctx, struct err *e)
{
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	const size_t n = w->key.len == 16 ? blocks_decode(rows, w->value) : 0;
	const uint64_t no = n ? get_be64(w->key.p) : 0, start = n ? get_be64(w->key.p + 8) * BLOCKS_ROWS : 0;

	for (size_t i = 0; i < n; i++) {
		struct rows_key k = rows_key_two(no, start + i);
		int cmp = *more == 1 ? span_cmp(l->key, rows_span(&k)) : 1;
		if (cmp < 0 || (!cmp && !decode_loose(rows + i * DIGESTS_ROW, l->value)))
			return store_damaged(w->s, NULL, e);
		if (!cmp && (*more = store_walk_next(l, e)) < 0)
			return -1;
		int stop = fn(ctx, no, start + i, rows + i * DIGESTS_ROW);
		if (stop)
			return stop;
	}
	return n ? 0 : store_damaged(w->s, NULL, e);
}

int chunks_all(struct store *s, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row), void *ctx, struct err *e)
{
	struct store_walk w = {0}, l = {0};
	int got = 0, rc = 0;

	store_walk_start(&w, s, STORE_BLOCKS, (struct span){0}, 0, false);
	store_walk_start(&l, s, STORE_LOOSE, (struct span){0}, 0, false);
	int more = store_walk_next(&l, e);
	while (more >= 0 && !rc && (got = store_walk_next(&w, e)) == 1)
		rc = each_row(&w, &l, &more, fn, ctx, e);
	if (more < 0 || got < 0)
		rc = -1;
	else if (!rc && more)
		rc = store_damaged(s, NULL, e);
	store_walk_free(&w);
	store_walk_free(&l);
	return rc;
}
