/*
 * anchors: an index of where the base's blocks start, by the rolling sum of their first 4 KiB (digest.h).
 *
 * Who looks for moved content asks for each position of a file, and finds next to nothing: a filter of four bytes or more for each start
 * says so in most cases, and can be asked for ahead. Where there are too many starts some are left out, chosen by content.
 *
 * May use: catalog, digest, bytes, err. Memory: as much as is in it, 14 MiB at most.
 */
#ifndef REPL_ANCHORS_H
#define REPL_ANCHORS_H

#include "catalog.h"

struct anchor {
	uint64_t weak, no, block;
};
struct anchors {
	uint64_t only;   /* all are of this object; 0: of several, or there are none */
	/* private */
	void *memory;    /* of both tables */
	struct anchor *slot;
	uint64_t *bloom; /* of each sum three bits of one word */
	size_t n, n_slots, n_words; /* powers of two */
	uint64_t sample; /* only sums with these bits clear are kept */
};

/* Of one object, or of all. Owned. */
int anchors_own(struct anchors **out, struct catalog *base, const struct object *o, struct err *e);
int anchors_all(struct anchors **out, struct catalog *base, struct err *e);
void anchors_free(struct anchors **a);
/* The first block that starts with this sum; NULL: none that is known. Borrowed. a: NULL has nothing, here and below. */
const struct anchor *anchors_find(const struct anchors *a, uint64_t weak);

static inline size_t anchors_word(const struct anchors *a, uint64_t weak) { return (size_t)(weak >> 47) & (a->n_words - 1); }

static inline uint64_t anchors_bits(uint64_t weak)
{
	return UINT64_C(1) << (weak >> 41 & 63) | UINT64_C(1) << (weak >> 35 & 63) | UINT64_C(1) << (weak >> 29 & 63);
}

/* anchors_may_have will be asked soon. */
static inline void anchors_prefetch(const struct anchors *a, uint64_t weak)
{
	if (a)
		__builtin_prefetch(&a->bloom[anchors_word(a, weak)]);
}

/* False for most of what is not there. */
static inline bool anchors_may_have(const struct anchors *a, uint64_t weak)
{
	uint64_t bits = anchors_bits(weak);

	return a && (a->bloom[anchors_word(a, weak)] & bits) == bits && !(weak & a->sample);
}

#endif
