#include "moves.h"

#include <stdlib.h>

static int depth_of(struct catalog *c, uint64_t dir, uint32_t *depth, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	for (*depth = 0; dir != CATALOG_ROOT; ++*depth) {
		int got = catalog_name(c, dir, &dir, &name, e);
		if (got != 1)
			return got ? -1 : err_set(e, ERR_SYSTEM, "the catalog is damaged: a directory without a name");
	}
	return 0;
}

int moves_gone(struct moves *m, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	uint32_t depth;

	if (depth_of(m->base, dir, &depth, e))
		return -1;
	wr_u32(&m->gone, depth);
	wr_u64(&m->gone, dir);
	wr_u64(&m->gone, no);
	wr_str(&m->gone, name.p, name.len);
	m->n_gone++;
	*numbers_at(&m->detached, no) = 1;
	return 0;
}

void moves_attached(struct moves *m, uint64_t no)
{
	*numbers_at(&m->attached, no) = 1;
	wr_u64(&m->moved, no);
}

bool moves_is_attached(const struct moves *m, uint64_t no) { return numbers_get(&m->attached, no); }

bool moves_is_empty(const struct moves *m) { return !m->n_gone && !m->moved.len; }

int moves_is_dead(struct moves *m, uint64_t dir, bool *dead, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	for (*dead = false; dir != CATALOG_ROOT;) {
		/* Attached anywhere it lives, whatever becomes of the directory that it was in. */
		if (numbers_get(&m->attached, dir))
			return 0;
		if (numbers_get(&m->detached, dir)) {
			*dead = true;
			return 0;
		}
		int got = catalog_name(m->base, dir, &dir, &name, e);
		if (got != 1)
			return got ? -1 : err_set(e, ERR_SYSTEM, "the catalog is damaged: a directory without a name");
	}
	return 0;
}

int moves_rescue(struct moves *m, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct rd r = rd_of(m->moved.p, m->moved.len);

	while (r.len) {
		uint64_t no = rd_u64(&r), dir;
		int got;
		for (unsigned nth = 0; (got = catalog_nth_name(m->base, no, nth, &dir, &name, e)) == 1; nth++) {
			bool dead;
			if (moves_is_dead(m, dir, &dead, e))
				return -1;
			if (dead && moves_gone(m, dir, span_of(name.p, name.len), no, e))
				return -1;
		}
		if (got < 0)
			return -1;
	}
	return 0;
}

struct rd moves_rows(const struct moves *m) { return rd_of(m->gone.p, m->gone.len); }

static struct moves_row take(struct rd *r)
{
	struct moves_row row;

	row.depth = rd_u32(r);
	row.dir = rd_u64(r);
	row.no = rd_u64(r);
	row.name = rd_str(r, REC_NAME_MAX);
	return row;
}

bool moves_next(struct rd *rest, struct moves_row *row)
{
	if (!rest->len)
		return false;
	*row = take(rest);
	return true;
}

static int row_cmp(const void *a, const void *b)
{
	struct rd x = *(const struct rd *)a, y = *(const struct rd *)b;
	struct moves_row p = take(&x), q = take(&y);

	if (p.depth != q.depth)
		return p.depth < q.depth ? 1 : -1; /* deepest first */
	if (p.dir != q.dir)
		return p.dir < q.dir ? -1 : 1;
	return span_cmp(p.name, q.name);
}

int moves_each(const struct moves *m, int (*fn)(void *ctx, const struct moves_row *row, struct err *e), void *ctx,
	struct err *e)
{
	AUTO_FREE struct rd *rows = xalloc((m->n_gone + 1) * sizeof *rows);
	struct rd r = moves_rows(m);

	for (size_t i = 0; i < m->n_gone; i++) {
		rows[i] = r;
		take(&r);
	}
	qsort(rows, m->n_gone, sizeof *rows, row_cmp);
	for (size_t i = 0; i < m->n_gone; i++) {
		if (i && !row_cmp(&rows[i - 1], &rows[i]))
			continue;
		struct rd at = rows[i];
		struct moves_row row = take(&at);
		if (fn(ctx, &row, e))
			return -1;
	}
	return 0;
}

void moves_reset(struct moves *m)
{
	numbers_free(&m->detached);
	numbers_free(&m->attached);
	buf_reset(&m->gone);
	buf_reset(&m->moved);
	m->n_gone = 0;
}

void moves_free(struct moves *m)
{
	moves_reset(m);
	buf_free(&m->gone);
	buf_free(&m->moved);
}
