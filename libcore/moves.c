#include "moves.h"

#include <stdlib.h>

static int depth_of(struct catalog *c, uint64_t dir, uint32_t *depth, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	for (*depth = 0; dir != CATALOG_ROOT; ++*depth) {
		int got = catalog_name(c, dir, &dir, &name, e);
		if (got != 1)
			return got ? -1 : catalog_damaged(c, "a directory in it has no name", e);
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
	uint64_t *known = numbers_at(&m->attached, no);

	if (!*known) /* once, however many names it gets */
		wr_u64(&m->moved, no);
	*known = 1;
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
			return got ? -1 : catalog_damaged(m->base, "a directory in it has no name", e);
	}
	return 0;
}

int moves_rescue(struct moves *m, struct err *e)
{
	struct catalog_names n = {0};
	struct rd r = rd_of(m->moved.p, m->moved.len);
	int got = 0;

	while (r.len && got >= 0) {
		uint64_t no = rd_u64(&r);
		catalog_names_start(&n, m->base, no);
		while ((got = catalog_names_next(&n, e)) == 1) {
			bool dead;
			if (moves_is_dead(m, n.dir, &dead, e) || (dead && moves_gone(m, n.dir, n.name, no, e))) {
				got = -1;
				break;
			}
		}
	}
	catalog_names_free(&n);
	return got;
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
