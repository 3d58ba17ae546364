/*
 * words: numbers for byte strings: the same number for the same bytes, from 1 in the order in which they came.
 *
 * May use: bytes. Memory: the bytes, and about 12 for each of them. {0} is empty. Not for more than 4 GiB of text.
 */
#ifndef REPL_WORDS_H
#define REPL_WORDS_H

#include "bytes.h"

struct words {
	uint64_t seed;     /* anything that others cannot guess: who chooses the strings must not choose the order of look-ups */
	uint32_t n;
	/* private */
	struct buf text;
	uint32_t *ends, cap;
	uint32_t *index, n_index;
};
uint32_t words_put(struct words *w, struct span word);
/* 0: it has no number. */
uint32_t words_find(const struct words *w, struct span word);
/* Borrowed until the next put. */
struct span words_get(const struct words *w, uint32_t no);
/* Bytes of memory that it takes. */
size_t words_size(const struct words *w);
/* Forgets all; keeps some of the memory. */
void words_reset(struct words *w);
void words_free(struct words *w);

#endif
