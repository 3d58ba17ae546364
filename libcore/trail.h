/*
 * trail: the way from the root of a catalog down to a directory, as a path.
 *
 * A catalog knows of each directory the one above it. Who asks for the paths of many, one after the other, asks for neighbours mostly:
 * the way to the last one is kept, and only what is not part of it is looked up. Else each would take as many look-ups as it lies
 * deep, which runaway scripts, and attackers, make thousands.
 *
 * May use: rows, bytes, err.
 */
#ifndef REPL_TRAIL_H
#define REPL_TRAIL_H

#include "bytes.h"
#include "rows.h"

#define TRAIL_SLOTS 1024u
struct trail { /* {0} is a trail to the root */
	struct buf path;
	/* the directories on the way, below the root: number and where their name ends in path, u64 each */
	struct buf steps;
	uint32_t slot[TRAIL_SLOTS]; /* by number: which step it is, if it is one */
};
/* Leads to this directory. The path is good until the next call. */
int trail_to(struct trail *t, struct store *s, uint64_t dir, struct err *e);
uint64_t trail_depth(const struct trail *t); /* the root's: 0 */
/* To be called when a directory may have another name now. */
void trail_forget(struct trail *t);
void trail_free(struct trail *t);

#endif
