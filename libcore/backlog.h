/*
 * backlog: what waits in the queue of a state, as far as images are concerned: whether there may be another one, what it follows, and
 * what an answer makes superfluous.
 *
 * May use: queue, pending, state, head, mounts (its paths), stamp, bytes, err; makes system calls.
 */
#ifndef REPL_BACKLOG_H
#define REPL_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "digest.h"

struct buf;
struct err;
struct head;
struct state;

struct backlog {
	const char *queue;     /* that deltas of this state go through; NULL: none */
	uint64_t files, bytes; /* when so much waits there is no image; 0: no limit */
	bool is_chained;       /* the image follows the last one that waits there, so each stays an image of its own */
	/* out */
	uint64_t after;        /* the image that the next one follows; 0: the base */
	struct digest after_id;
};
/* Before an image of these members, under the state's lock. ERR_REFUSED: so much waits that there is none; ERR_USAGE: the queue lies in a
 * member, and not in the state directory. */
int backlog_ask(struct backlog *b, const struct state *s, const struct head *h, struct err *e);
/* What the base has passed goes, under the state's lock; also where the base is what it was: a run before may have been broken off
 * here. Adds to *removed. */
int backlog_forget(const char *queue, const struct state *s, uint64_t *removed, struct err *e);
/* How much waits and since when, as a line of text or the beginning of a JSON object's members. */
int backlog_list(const char *queue, bool json, struct buf *out, struct err *e);

#endif
