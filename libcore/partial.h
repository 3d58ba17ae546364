/*
 * partial: how much of a delta came before the input broke off, so that another run can go on from there.
 *
 * It is a checkpoint of .repl/stage and .repl/plan at a border between two records: both may have grown since, what it does not
 * count is undone when it is used. It is written after what it counts was made durable, and removed before that is.
 *
 * May use: replica, path, file, stream, err; makes system calls.
 */
#ifndef REPL_PARTIAL_H
#define REPL_PARTIAL_H

#include "replica.h"
#include "stream.h"

struct partial {
	struct digest base;        /* of the delta */
	struct digest head;        /* of the stream as far as place */
	struct stream_place place;
	uint64_t plan_len;
	uint64_t content;          /* what it brought so far, copies too, for the limit */
	struct buf stage;          /* what stage_save said */
};
/* Makes everything in the replica durable, then this. head is set. */
int partial_save(struct replica *r, struct partial *p, struct err *e);
/* 1; 0: there is none; -1, ERR_SYSTEM: it cannot be used. p is empty before. */
int partial_load(const struct replica *r, struct partial *p, struct err *e);
/* What was staged behind content n goes, lists and all: another rest of the delta may follow. But what stands in new directories stays.
 * is_ours: what stays has no owner but us any more. */
int partial_forget(struct replica *r, uint64_t n, bool is_ours, struct err *e);
void partial_free(struct partial *p);

#endif
