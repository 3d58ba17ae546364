/*
 * window: a part of one file in memory, and the digests of its blocks, read and hashed ahead of who looks at it.
 *
 * What is to be looked at is said beforehand, piece by piece in ascending order (window_expect), and comes in that order
 * (window_step). Where the pieces are large several threads read and hash what was said, while the caller looks at the first;
 * else each is read when it is wanted. A piece, and the one that follows without a gap, lie in one stretch of memory: the ring
 * has its beginning mapped behind its end as well.
 *
 * May use: pool, digest, err; reads one descriptor. Memory: 2 MiB, with threads 8 MiB.
 */
#ifndef REPL_WINDOW_H
#define REPL_WINDOW_H

#include "digest.h"
#include "err.h"

#define WINDOW_PIECE (1024u * 1024) /* at most this long, and of so many blocks */
#define WINDOW_PIECES 16u           /* at most so many are expected */

struct pool;
struct window_piece;

struct window {
	unsigned threads;             /* pool_threads(); below 2: none */
	/* the piece at hand: offsets in the file */
	uint64_t off, end;
	uint64_t until;               /* end of what is in memory: with the next piece, if one follows */
	const uint8_t *bytes;         /* at off */
	const struct digest *digests; /* of the blocks from off on */
	uint64_t read;                /* bytes since window_start */
	bool is_short;                /* the file ended early */
	/* private */
	int fd;
	uint32_t grain;
	bool needs_next, with_threads;
	uint8_t *ring;
	size_t size, pos;             /* of the ring; where the next piece goes */
	struct window_piece *pieces;  /* number i stands at i % WINDOW_PIECES */
	uint64_t first, loaded, last; /* the piece at hand; as far as they are in memory; as far as they are expected */
	bool has_first;
	struct pool *pool;
};

/* The window looks at another file, which fd is borrowed for; digests are those of blocks of grain bytes. needs_next: together with
 * a piece the one behind it is in memory. */
void window_start(struct window *w, int fd, uint32_t grain, bool needs_next);
/* What is expected next is this long, all in all: worth a thread or not. Nothing is under way. ERR_SYSTEM. */
int window_begin(struct window *w, uint64_t len, struct err *e);
/* The next piece, of whole blocks unless the file ends with it. False: there is no room before the next step. */
bool window_expect(struct window *w, uint64_t off, uint64_t end);
/* Gives up the piece at hand for the next one, which is expected. -1 without an error: is_short. */
int window_step(struct window *w, struct err *e);
void window_free(struct window *w);

#endif
