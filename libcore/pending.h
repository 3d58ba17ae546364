/*
 * pending: what was sent and waits for the replica's answer, and what an answer does to the state.
 *
 *   plans/SEQ-BASESEQ-ID  a delta without content: what the catalog of image BASESEQ becomes when the replica acknowledges image SEQ,
 *                         whose id is ID. Both numbers are 16 hexadecimal digits;
 *                         BASESEQ is 0 for an image that is not of this state
 *   next                  the catalog after the last plan that was made from `catalog`, where the change was large; else absent
 *   tip                   while deltas follow each other: the catalog after the last of them
 *   after                 "SEQ OTHER\n": image SEQ, if it is the one under way, follows image OTHER, which waits for its answer
 *
 * Plans hang together by their numbers: those whose BASESEQ is the base's own begin at it, others at an image that another plan
 * leads to. So there may be a chain of deltas that no answer came for, and beside it plans of earlier runs, which the replica may
 * have got all the same: an answer to any of them commits all that lead to it. Plans give objects by their numbers in the catalog,
 * so none is ever used with another catalog than the one it was made from, whatever the ids say.
 *
 * A plan appears whole, `next` is settled before it. Without a plan that leads to what it holds next means nothing; tip
 * is whatever image it says, and made again where another is wanted. Whoever changes anything holds the state's lock.
 *
 * May use: state, catalog, image, head, file, err; makes system calls.
 */
#ifndef REPL_PENDING_H
#define REPL_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "digest.h"

#define PENDING_MAX 4000u                        /* deltas of a chain without an answer: then the sender waits */
#define PENDING_BYTES_MAX (UINT64_C(1) << 30)    /* and so many bytes of plans */

struct err;
struct state;

/* A delta that waits for its acknowledgement: it leads from image base_seq to image seq, which is id. */
struct pending {
	uint64_t seq, base_seq;
	struct digest id;
};
/* The last one: 1, 0 when there is none, -1. */
int pending_last(const struct state *s, struct pending *p, struct err *e);
/* The whole plan in fd, which is the file at path tmp in the state directory, waits for its answer. Those with a number that is not
 * below its own are forgotten, and so are the oldest of earlier runs when there are many. Durable when it returns. */
int pending_put(struct state *s, const struct pending *p, int fd, const char *tmp, struct err *e);
/* The acknowledgement: the image becomes the base. seq: its number where the answer says it, else 0: several may have the same id. ERR_MISMATCH when no plan leads to it; 0 and *done=false when the base is that
 * image already. Durable when it returns. */
int pending_commit(struct state *s, const struct digest *id, uint64_t seq, bool *done, struct err *e);
/* The catalog in the file `next` becomes the base, what is pending is forgotten: 1; 0 when it holds another image than id; -1. */
int pending_take_next(struct state *s, const struct digest *id, struct err *e);
/* Forgets image, next and tip; the plans are kept, should their answer still come. */
int pending_abort(struct state *s, struct err *e);

/* The chain goes on from image seq: makes `tip` the catalog of that. ERR_MISMATCH: neither the base nor any plan leads there. */
int pending_tip(struct state *s, uint64_t seq, struct err *e);
/* The image under way, which was saved already, follows image `after`; 0: the base. Durable when it returns, if it is not 0. */
int pending_follows(struct state *s, uint64_t seq, uint64_t after, struct err *e);
/* What image seq follows; *is_tip: not the base; then `tip` is the catalog of that. ERR_MISMATCH as above. */
int pending_base(struct state *s, uint64_t seq, bool *is_tip, struct err *e);
/* The image at the end of plans from the base on: 1 with its id; 0: none lead there, or it is the base; -1. */
int pending_leads(const struct state *s, uint64_t seq, struct digest *id, struct err *e);
/* No answer to this image will come: its delta was never sent. */
int pending_drop(const struct state *s, uint64_t seq, struct err *e);
/* *has_room: the chain may grow by one. Needs no lock. */
int pending_room(const struct state *s, bool *has_room, struct err *e);

#endif
