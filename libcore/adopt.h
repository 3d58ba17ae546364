/*
 * adopt: a directory as it is becomes a replica, or a replica without a catalog gets one: what it holds is its image from then on.
 *
 * May use: job, rewind, source, head, diff, where, err; makes system calls.
 */
#ifndef REPL_ADOPT_H
#define REPL_ADOPT_H

#include "job.h"

/* Takes a directory with content as it is, also a replica that was edited: digests it into a catalog, acknowledges what it holds.
 * Members elsewhere (a->places) are taken as they are as well, whoever had them before. */
int adopt_run(struct apply *a, struct err *e);

#endif
