/*
 * freeing: gives the blocks of what was replaced or removed back on a thread of its own.
 *
 * The last name that goes, in rename(2) or unlink(2), frees the file's blocks there and then, unless somebody has it open (measured: one
 * of 80,000 extents on btrfs 0.3 s; 2,000 of 64 KiB on ext4 without a journal 0.35 s of 2.2 that they took to land). So it is open for
 * so long, and closed here.
 *
 * May use: pool, err, threads; makes system calls.
 */
#ifndef REPL_FREEING_H
#define REPL_FREEING_H

struct freeing;
/* Before what has this name goes: a descriptor of it, for freeing_gone; -1 when there is nothing to hold, which is no error. */
int freeing_hold(int dirfd, const char *name);
/* It has gone. Takes the descriptor; -1 is allowed. *f: NULL before the first call. When too many wait it is closed at once. */
void freeing_gone(struct freeing **f, int fd);
/* Waits until all are closed. */
void freeing_end(struct freeing **f);

#endif
