#include "words.h"

#include <stdlib.h>

#define KEEP (1u << 20) /* bytes of text that a reset keeps */

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	h ^= h >> 32;
	h *= UINT64_C(0xd6e8feb86659fd93);
	return h ^ h >> 32;
}

static uint32_t hash(const struct words *w, struct span s)
{
	uint64_t h = mix(w->seed ^ s.len);

	for (; s.len >= 8; s.p += 8, s.len -= 8)
		h = mix(h ^ get_le64(s.p));
	for (uint64_t tail = 0; s.len; s.len--) {
		tail = tail << 8 | s.p[s.len - 1];
		if (s.len == 1)
			h = mix(h ^ tail);
	}
	return (uint32_t)h;
}

struct span words_get(const struct words *w, uint32_t no)
{
	uint32_t from = no > 1 ? w->ends[no - 2] : 0;

	return span_of(w->text.p + from, w->ends[no - 1] - from);
}

/* Where the word stands in the index, or where it would. */
static uint32_t place(const struct words *w, struct span word)
{
	uint32_t i = hash(w, word) & (w->n_index - 1);

	while (w->index[i] && !span_eq(words_get(w, w->index[i]), word))
		i = (i + 1) & (w->n_index - 1);
	return i;
}

static void grow(struct words *w)
{
	w->n_index = w->n_index ? w->n_index * 2 : 256;
	free(w->index);
	w->index = xalloc(w->n_index * sizeof *w->index);
	for (uint32_t no = 1; no <= w->n; no++)
		w->index[place(w, words_get(w, no))] = no;
}

uint32_t words_find(const struct words *w, struct span word)
{
	return w->n_index ? w->index[place(w, word)] : 0;
}

uint32_t words_put(struct words *w, struct span word)
{
	/* At most three quarters are taken. */
	if (w->n >= w->n_index / 4 * 3)
		grow(w);
	uint32_t i = place(w, word);
	if (w->index[i])
		return w->index[i];
	if (w->n == w->cap) {
		w->cap = w->cap ? w->cap + w->cap / 2 : 64;
		w->ends = xrealloc(w->ends, w->cap * sizeof *w->ends);
	}
	buf_add(&w->text, word.p, word.len);
	w->ends[w->n++] = (uint32_t)w->text.len;
	w->index[i] = w->n;
	return w->n;
}

size_t words_size(const struct words *w)
{
	return w->text.cap + (w->cap + (size_t)w->n_index) * sizeof *w->index;
}

void words_reset(struct words *w)
{
	if (w->text.cap > KEEP) {
		words_free(w);
		return;
	}
	w->n = 0;
	buf_reset(&w->text);
	if (w->n_index)
		memset(w->index, 0, w->n_index * sizeof *w->index);
}

void words_free(struct words *w)
{
	buf_free(&w->text);
	free(w->ends);
	free(w->index);
	*w = (struct words){.seed = w->seed};
}
