/*
 * state: the source's memory for one destination: the base's catalog, the image that is being sent, what is pending.
 *
 *   repl-state       marker: "repl-state 1\n" and the instance, 32 hex digits
 *   lock             flock(2)ed by whoever changes anything; holds the process number as text
 *   catalog          the base: the image that the replica is known to hold
 *   image            the image that the running pipeline sends: an image stream of IMAGE and MEMBER records
 *   plan             the delta last made, without content: what `catalog` becomes when the replica acknowledges it
 *   plan-ID          earlier plans from the same base that no answer came for: the replica may hold what they lead to
 *   next             the catalog after it, where the change was large; else absent and plan is applied on commit
 *   seq              the number of the last image, decimal
 *
 * Every file is replaced whole (temporary, fsync, rename, fsync of the directory). Losing the directory costs one full
 * comparison, never data. `plan` appears last, after `next` was settled: without a plan, next means nothing.
 * May use: catalog, file, image, input, head, err; makes system calls.
 */
#ifndef REPL_STATE_H
#define REPL_STATE_H

#include "catalog.h"

struct head;

struct state {
	int fd;             /* the directory */
	int lock_fd;        /* -1: not held */
	char *path;
	uint64_t dev, ino;  /* of the directory, so that a scan leaves it out */
	uint8_t instance[16];
};
/* create: makes the directory (0700) and the marker when missing; else a missing one is ERR_USAGE with advice. A non-empty
 * directory without the marker is refused. */
int state_open(struct state *s, const char *path, bool create, struct err *e);
/* ERR_BUSY naming the holder's process number. wait: seconds to wait for it (0: none). */
int state_lock(struct state *s, unsigned wait, struct err *e);
void state_unlock(struct state *s);
void state_close(struct state *s);
/* Owned path of a file in it. */
char *state_file(const struct state *s, const char *name);
int state_catalog(const struct state *s, enum catalog_mode mode, struct catalog **c, struct err *e);
/* The next number, written to seq durably. */
int state_next_seq(struct state *s, uint64_t *seq, struct err *e);
int state_save_image(struct state *s, const struct head *h, struct err *e);
/* ERR_USAGE "run repl-snap first" when there is none. */
int state_load_image(const struct state *s, struct head *h, struct err *e);

/* The acknowledgement: the plan's target becomes the base. ERR_MISMATCH when the plan leads elsewhere; 0 and *done=false when the
 * base is that image already. Durable when it returns. */
int state_commit(struct state *s, const struct digest *id, bool *done, struct err *e);
/* The catalog in the file `next` becomes the base, what is pending is forgotten: 1; 0 when it holds another image than id; -1. */
int state_take_next(struct state *s, const struct digest *id, struct err *e);
/* A new plan is about to replace the pending one: keeps that under the id it leads to (the last few of them). */
int state_keep_plan(struct state *s, struct err *e);
/* Forgets image and next; the plan is kept as above, should its answer still come. */
int state_abort(struct state *s, struct err *e);
/* The delta that waits for its acknowledgement: 1, 0 when there is none, -1. Reads the plan through. */
struct state_plan {
	struct digest base, id;
};
int state_plan(const struct state *s, struct state_plan *p, struct err *e);
/* The number of the last image; 0: none yet. */
int state_seq(const struct state *s, uint64_t *seq, struct err *e);

#endif
