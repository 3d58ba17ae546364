/*
 * numbers: what belongs to a number (an object's, a size, a hash): a small map in memory, 64 bytes for each number at worst.
 *
 * May use: bytes.
 */
#ifndef REPL_NUMBERS_H
#define REPL_NUMBERS_H

#include <stddef.h>
#include <stdint.h>

struct numbers { /* {0} is empty */
	uint64_t *rows; /* number, value; number 0: free */
	size_t n, cap;
};
/* The place of its value, 0 when it is new; good until the next call. no is not 0. */
uint64_t *numbers_at(struct numbers *m, uint64_t no);
/* Its value, 0 when there is none. */
uint64_t numbers_get(const struct numbers *m, uint64_t no);
void numbers_free(struct numbers *m);

#endif
