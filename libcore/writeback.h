/*
 * writeback: makes what is staged durable on a thread of its own while more is written, so that little is left to wait for when a
 * delta is decided.
 *
 * It is a help, not a promise: what counts is the sync at the decision, which also reports what went wrong before (syncfs(2),
 * since Linux 5.8). It waits for the disk's own cache too, which sync_file_range(2) does not: of 1 GiB written at 1.7 GB/s half
 * was left there.
 *
 * May use: pool, err, threads; makes system calls.
 */
#ifndef REPL_WRITEBACK_H
#define REPL_WRITEBACK_H

#include <stdbool.h>

struct writeback;
/* What is written to these files (-1: none) goes to the disk now. False: earlier ones are still under way, or there can be no
 * thread; ask again later. Descriptors are borrowed until this returns. *w: NULL before the first call. */
bool writeback_files(struct writeback **w, int a, int b);
/* The same for all that was written to the filesystem of this one. */
bool writeback_all(struct writeback **w, int fd);
/* Waits until nothing is under way. */
void writeback_end(struct writeback **w);

#endif
