/*
 * past: what a replica holds and where it can go back to, for people and scripts.
 *
 * May use: replica, history, image, stamp, err. Changes nothing.
 */
#ifndef REPL_PAST_H
#define REPL_PAST_H

#include "replica.h"

/* The image in place, then those before it, the newest first, each with what its undo takes on disk. */
int past_list(const char *path, bool json, struct buf *out, struct err *e);

#endif
