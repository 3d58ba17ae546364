/*
 * outbox: what repl-pack does with a queue: packs deltas into it, and sends what waits there.
 *
 * May use: pack, queue, state, pending, stream, err; makes system calls.
 */
#ifndef REPL_OUTBOX_H
#define REPL_OUTBOX_H

#include "pack.h"
#include "queue.h"

struct outbox {
	const char *queue;    /* its directory */
	const char *state;    /* the state directory whose deltas go through it; NULL: nobody knows */
	/* What is done otherwise than one may think; level as in cli_say. */
	void (*note)(void *ctx, int level, const char *text);
	void *ctx;
	bool may_make;        /* outbox_send: a queue that is not there is an empty one */
	/* out */
	uint64_t deltas, replaced;
	/* private */
	struct queue q;
	uint64_t seq;
	uint8_t instance[16];
	struct digest base, id;
	bool has_base, has_id;
};
/* Each delta of the input becomes a file of the queue, once it is whole and on the disk. ERR_STREAM as of pack_run, or it is no delta. */
int outbox_fill(struct outbox *b, int in, const struct pack_settings *o, struct pack_stats *n, struct err *e);
/* Writes what waits, in order, as far as one delta follows the other: from the base on, or without a state from where the first
 * begins. Nothing: a question (pack_question). They stay in the queue. ERR_BUSY: somebody else sends; ERR_STREAM: a file is damaged. */
int outbox_send(struct outbox *b, int out, const struct pack_settings *o, struct pack_stats *n, struct err *e);

#endif
