/*
 * receive: the deltas of one input onto the replica of a job, each staged, verified, landed and acknowledged on its own.
 *
 * What came of a delta whose input breaks off is kept, so that only the rest need come again. Nothing outside .repl changes before a
 * delta is whole and verified.
 *
 * May use: job, charge, input, stage, partial, undo, land, replica, history, image, stream, clock, err.
 */
#ifndef REPL_RECEIVE_H
#define REPL_RECEIVE_H

#include "job.h"

/* All deltas of a->in, of which the first event, got, came already. */
int receive_run(struct job *j, int got, struct err *e);
/* After an error: keeps what came, when it can be gone on with, and says so in the error. */
void receive_keep_part(struct job *j, struct err *e);
/* Acknowledges j->current, the image that is here. */
int receive_tell(struct job *j, struct err *e);
/* How this job lands a delta. */
struct land receive_landing(struct job *j);

#endif
