/*
 * past: the images before the current one: which they are, back to one of them, or one of them beside the replica.
 *
 * May use: rewind, job, replica, where, history, image, land, plan, stamp, json, err.
 */
#ifndef REPL_PAST_H
#define REPL_PAST_H

#include "job.h"

/* The image in place, then those before it, the newest first, each with what its undo takes on disk. Recovers like any run, unless
 * somebody is at work on the replica: then it is what that began with. */
int past_list(struct apply *a, bool json, struct buf *out, struct err *e);

/* Recovers like any run, then says what the run before left, which image is in place and how old, what waits for its rest, and what
 * the history takes. ERR_MISMATCH when there is no image, or one older than max_age seconds (0: any age). */
int past_status(struct apply *a, int64_t now_ns, int64_t max_age, bool json, struct buf *out, struct err *e);
/* The image that `which` names (see history_find) takes the place of the current one; the way there is kept as a way back.
 * time_ns: what `which` says when it is a time, else 0. */
int past_rollback(struct apply *a, const char *which, int64_t time_ns, struct err *e);
/* The same image as a replica of its own in `into`, missing or empty; nothing of the replica changes. */
int past_at(struct apply *a, const char *which, int64_t time_ns, const char *into, struct err *e);

#endif
