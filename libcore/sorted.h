/*
 * sorted: names of one directory in memory: gathered in any order, then sorted by their bytes, each once.
 *
 * May use: bytes. Invariant: a name has 1 to SORTED_LEN_MAX bytes, none of them NUL.
 */
#ifndef REPL_SORTED_H
#define REPL_SORTED_H

#include "bytes.h"

enum { SORTED_LEN_MAX = 255 };

struct sorted_key { /* what sorting moves */
	uint64_t head; /* first eight bytes, big-endian, zero-padded: a shorter name comes first */
	uint32_t at;   /* of the name in text */
	uint32_t len;
};
/* {0} is empty and valid. Text grows; what points into it holds until the next sorted_add. */
struct sorted {
	struct buf text; /* NUL-terminated, one behind the other */
	struct sorted_key *keys;
	size_t n, cap;
};
void sorted_add(struct sorted *m, const char *name, size_t len);
/* In order, each name once. */
void sorted_sort(struct sorted *m);
/* Borrowed; keys[i].len bytes and a NUL. */
const char *sorted_at(const struct sorted *m, size_t i);
/* Forgets the names and keeps the room for as many. */
void sorted_reset(struct sorted *m);
/* The same, but one large directory is not remembered for ever. */
void sorted_shrink(struct sorted *m);
void sorted_free(struct sorted *m);

#endif
