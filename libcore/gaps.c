#include "gaps.h"

#include <stdlib.h>

#include "mounts.h"

static void row_free(struct gaps_row *r)
{
	free(r->path);
	free(r->reason);
}

void gaps_put(struct gaps *g, const char *path, const char *reason)
{
	if (g->n == GAPS_MAX)
		path = "/";
	for (size_t i = 0; i < g->n; i++)
		if (mounts_below(span_cstr(path), span_cstr(g->rows[i].path)))
			return;
	for (size_t i = g->n; i-- > 0;) {
		if (!mounts_below(span_cstr(g->rows[i].path), span_cstr(path)))
			continue;
		row_free(&g->rows[i]);
		g->rows[i] = g->rows[--g->n];
	}
	g->rows = xrealloc(g->rows, (g->n + 1) * sizeof *g->rows);
	g->rows[g->n++] = (struct gaps_row){xstrdup(path), xstrdup(reason)};
}

void gaps_move(struct gaps *g, struct gaps *from)
{
	for (size_t i = 0; i < from->n; i++)
		gaps_put(g, from->rows[i].path, from->rows[i].reason);
	gaps_free(from);
}

void gaps_free(struct gaps *g)
{
	while (g->n)
		row_free(&g->rows[--g->n]);
	free(g->rows);
	*g = (struct gaps){0};
}
