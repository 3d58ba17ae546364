#include "numbers.h"

#include <stdlib.h>

#include "bytes.h"

/* Of the row that has this number, or of the free one where it belongs. */
static size_t find(const struct numbers *m, uint64_t no)
{
	/* From the middle of the product: its low bits know nothing of what sizes that end in zeros differ in. */
	size_t i = (size_t)(no * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (m->cap - 1);

	while (m->rows[2 * i] && m->rows[2 * i] != no)
		i = (i + 1) & (m->cap - 1);
	return i;
}

static void grow(struct numbers *m)
{
	struct numbers was = *m;

	m->cap = was.cap ? was.cap * 2 : 64;
	m->rows = xalloc(m->cap * 2 * sizeof *m->rows);
	for (size_t i = 0; i < was.cap; i++) {
		if (!was.rows[2 * i])
			continue;
		size_t to = find(m, was.rows[2 * i]);
		m->rows[2 * to] = was.rows[2 * i];
		m->rows[2 * to + 1] = was.rows[2 * i + 1];
	}
	free(was.rows);
}

uint64_t *numbers_at(struct numbers *m, uint64_t no)
{
	if (m->n * 2 >= m->cap)
		grow(m);
	size_t i = find(m, no);
	m->n += !m->rows[2 * i];
	m->rows[2 * i] = no;
	return &m->rows[2 * i + 1];
}

uint64_t numbers_get(const struct numbers *m, uint64_t no)
{
	if (!m->cap)
		return 0;
	size_t i = find(m, no);
	return m->rows[2 * i] ? m->rows[2 * i + 1] : 0;
}

void numbers_free(struct numbers *m)
{
	free(m->rows);
	*m = (struct numbers){0};
}
