/*
 * lock: a file that whoever changes something keeps flock(2)ed; it holds the process number as text, for the eye.
 *
 * The lock goes with its descriptor, however the process ends.
 * May use: bytes, err; makes system calls.
 */
#ifndef REPL_LOCK_H
#define REPL_LOCK_H

struct err;

/* Locks the file in dirfd, which is made (0600) when it is missing. wait: seconds to wait for another holder (0: none). `held` says
 * what it means that somebody has it: "the queue 'x' is in use"; ERR_BUSY adds by which process. Owned. */
int lock_take(int dirfd, const char *file, const char *held, unsigned wait, int *fd, struct err *e);
/* -1: not held. */
void lock_drop(int *fd);

#endif
