#include "names.h"

#include <assert.h>
#include <stdlib.h>

struct names_row *names_put(struct names *s, uint32_t dir, struct span name)
{
	uint8_t key[4 + 255];

	assert(name.len <= 255);
	memcpy(key, &dir, 4);
	if (name.len)
		memcpy(key + 4, name.p, name.len);
	uint32_t before = s->words.n, no = words_put(&s->words, span_of(key, 4 + name.len));
	if (no > s->cap) {
		s->cap = s->cap ? s->cap + s->cap / 2 : 64;
		s->rows = xrealloc(s->rows, s->cap * sizeof *s->rows);
	}
	if (no > before)
		s->rows[no - 1] = (struct names_row){0};
	return &s->rows[no - 1];
}

struct span names_at(const struct names *s, uint32_t i, uint32_t *dir)
{
	struct span key = words_get(&s->words, i + 1);

	memcpy(dir, key.p, 4);
	return span_of(key.p + 4, key.len - 4);
}

size_t names_size(const struct names *s) { return words_size(&s->words) + s->cap * sizeof *s->rows; }

void names_reset(struct names *s)
{
	words_reset(&s->words);
	if (!s->words.cap) {
		free(s->rows);
		s->rows = NULL;
		s->cap = 0;
	}
}

void names_free(struct names *s)
{
	words_free(&s->words);
	free(s->rows);
	s->rows = NULL;
	s->cap = 0;
}

uint32_t *names_by_dir(const struct names *s, uint32_t n_dirs, uint32_t **starts)
{
	uint32_t n = names_count(s), dir;
	uint32_t *at = xalloc((n_dirs + 2) * sizeof *at), *order = xalloc((n + 1) * sizeof *order);

	/* A counting sort: at[d + 1] counts, then says where the next one of d goes. */
	for (uint32_t i = 0; i < n; i++) {
		names_at(s, i, &dir);
		assert(dir && dir <= n_dirs);
		at[dir + 1]++;
	}
	for (uint32_t d = 1; d <= n_dirs + 1; d++)
		at[d] += at[d - 1];
	for (uint32_t i = 0; i < n; i++) {
		names_at(s, i, &dir);
		order[at[dir]++] = i;
	}
	for (uint32_t d = n_dirs + 1; d; d--)
		at[d] = at[d - 1];
	at[0] = 0;
	*starts = at;
	return order;
}
