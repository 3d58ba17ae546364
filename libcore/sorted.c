#include "sorted.h"

#include <stdlib.h>

enum { KEPT = 4096 }; /* names that sorted_shrink leaves the room for */

static int key_cmp(const void *pa, const void *pb, void *text)
{
	const struct sorted_key *a = pa, *b = pb;
	const char *t = text;

	if (a->head != b->head)
		return a->head < b->head ? -1 : 1;
	return span_cmp(span_of(t + a->at, a->len), span_of(t + b->at, b->len));
}

void sorted_add(struct sorted *m, const char *name, size_t len)
{
	uint8_t head[8] = {0};

	if (m->n == m->cap) {
		m->cap = m->cap ? 2 * m->cap : 256;
		m->keys = xrealloc(m->keys, m->cap * sizeof *m->keys);
	}
	memcpy(head, name, len < sizeof head ? len : sizeof head);
	m->keys[m->n++] = (struct sorted_key){get_be64(head), (uint32_t)m->text.len, (uint32_t)len};
	buf_add(&m->text, name, len);
	buf_add(&m->text, "", 1);
}

void sorted_sort(struct sorted *m)
{
	size_t out = 0;

	if (m->n < 2)
		return;
	qsort_r(m->keys, m->n, sizeof *m->keys, key_cmp, m->text.p);
	for (size_t i = 1; i < m->n; i++)
		if (key_cmp(&m->keys[out], &m->keys[i], m->text.p) != 0)
			m->keys[++out] = m->keys[i];
	m->n = out + 1;
}

const char *sorted_at(const struct sorted *m, size_t i)
{
	return (const char *)m->text.p + m->keys[i].at;
}

void sorted_reset(struct sorted *m)
{
	m->n = 0;
	buf_reset(&m->text);
}

void sorted_shrink(struct sorted *m)
{
	sorted_reset(m);
	if (m->cap > KEPT)
		sorted_free(m);
}

void sorted_free(struct sorted *m)
{
	buf_free(&m->text);
	free(m->keys);
	*m = (struct sorted){0};
}
