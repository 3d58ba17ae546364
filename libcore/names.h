/*
 * names: names of one directory in memory: gathered in any order, then sorted by their bytes, each once.
 *
 * May use: bytes. Invariant: a name has 1 to NAMES_LEN_MAX bytes, none of them NUL.
 */
#ifndef REPL_NAMES_H
#define REPL_NAMES_H

#include "bytes.h"

enum { NAMES_LEN_MAX = 255 };

struct names_key { /* what sorting moves */
	uint64_t head; /* first eight bytes, big-endian, zero-padded: a shorter name comes first */
	uint32_t at;   /* of the name in text */
	uint32_t len;
};
/* {0} is empty and valid. Text grows; what points into it holds until the next names_add. */
struct names {
	struct buf text; /* NUL-terminated, one behind the other */
	struct names_key *keys;
	size_t n, cap;
};
void names_add(struct names *m, const char *name, size_t len);
/* In order, each name once. */
void names_sort(struct names *m);
/* Borrowed; keys[i].len bytes and a NUL. */
const char *names_at(const struct names *m, size_t i);
/* Forgets the names and keeps the room for as many. */
void names_reset(struct names *m);
/* The same, but one large directory is not remembered for ever. */
void names_shrink(struct names *m);
void names_free(struct names *m);

#endif
