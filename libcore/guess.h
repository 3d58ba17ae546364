/*
 * guess: renames that no inode tells.
 *
 * A base without hints (an image of the replica, another directory) says nothing about who was who. What is gone is listed by
 * size and digest; new files of such a size are read, and where the digest is the same they are taken for the gone one. A new
 * directory is taken for the gone one that most of its children came from. The scan is then run once more with these guesses. A
 * wrong one costs bytes, never content: that is compared either way.
 *
 * May use: catalog, content, moves, numbers, spool, target, attr, digest, bytes, err. Memory is ∝ what is gone and what is new.
 */
#ifndef REPL_GUESS_H
#define REPL_GUESS_H

#include "content.h"
#include "moves.h"
#include "spool.h"
#include "target.h"

struct guess { /* all borrowed */
	struct catalog *base;
	struct spool *items;
	struct moves *moves;
	struct target *target;
	struct content *content;
	/* private */
	struct numbers sizes, digests; /* of what is gone */
	struct numbers taken;          /* inodes for base objects */
	struct guess_vote *votes;      /* of each directory on the way down */
	size_t cap_votes;
};
/* After a scan that filled items and moves. 1: it is worth another scan that asks guess_at; 0: nothing was found. */
int guess_run(struct guess *g, struct err *e);
/* The base object that this one may be, or 0; dev as catalogs keep it. */
uint64_t guess_at(const struct guess *g, const struct attr *a);
void guess_free(struct guess *g);

#endif
