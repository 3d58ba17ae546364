/*
 * pending: what was sent and waits for the replica's answer, and what an answer does to the state.
 *
 *   plan             the delta last made, without content: what `catalog` becomes when the replica acknowledges it
 *   plan-ID          earlier plans from the same base that no answer came for: the replica may hold what they lead to
 *   next             the catalog after `plan`, where the change was large; else absent and the plan is applied on commit
 *
 * `plan` appears last, after `next` was settled: without a plan, next means nothing. Whoever changes anything holds the state's
 * lock.
 *
 * May use: state, catalog, image, input, head, err; makes system calls.
 */
#ifndef REPL_PENDING_H
#define REPL_PENDING_H

#include "digest.h"

struct err;
struct state;

/* The delta that waits for its acknowledgement: it leads from base to id. */
struct pending {
	struct digest base, id;
	uint64_t seq; /* of the image */
};
/* 1, 0 when there is none, -1. Reads the plan through. */
int pending_read(const struct state *s, struct pending *p, struct err *e);
/* The whole plan in fd, which is the file at path tmp in the state directory, becomes the pending one. The one before is kept
 * under the id it leads to (the last few of them). Durable when it returns. */
int pending_put(struct state *s, int fd, const char *tmp, struct err *e);
/* The acknowledgement: the plan's target becomes the base. ERR_MISMATCH when the plan leads elsewhere; 0 and *done=false when the
 * base is that image already. Durable when it returns. */
int pending_commit(struct state *s, const struct digest *id, bool *done, struct err *e);
/* The catalog in the file `next` becomes the base, what is pending is forgotten: 1; 0 when it holds another image than id; -1. */
int pending_take_next(struct state *s, const struct digest *id, struct err *e);
/* Forgets image and next; the plan is kept as above, should its answer still come. */
int pending_abort(struct state *s, struct err *e);

#endif
