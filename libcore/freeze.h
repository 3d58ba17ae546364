/*
 * freeze: stops all writing to filesystems and lets it go on (FIFREEZE and FITHAW of ioctl_fs, "man 8 fsfreeze").
 *
 * Whoever writes to a frozen filesystem waits until it is thawed, in the kernel, and not even SIGKILL ends that wait; so never may
 * anything be frozen that whoever is to thaw it may write to. Reading goes on. Freezing twice is an error (EBUSY), and so is thawing
 * what is not frozen (EINVAL).
 *
 * May use: mounts, bytes, err; makes system calls.
 */
#ifndef REPL_FREEZE_H
#define REPL_FREEZE_H

#include "mounts.h"

#define FREEZE_MAX 64u /* filesystems */

struct freeze {
	struct freeze_fs {
		uint64_t dev; /* the superblock's */
		int fd;
		char *name;
	} *v;
	size_t n;
	struct mounts mounts; /* private */
};
/* The filesystem of this directory, once however often it is named; a copy of fd is kept. Nothing is frozen yet. */
int freeze_add(struct freeze *f, int fd, struct span name, struct err *e);
/* ERR_REFUSED when this lies on one of them. `what`: "the state directory". */
int freeze_spare(const struct freeze *f, int fd, const char *what, struct err *e);
/* Freezes number i: 0, or -1 with the reason. */
int freeze_one(const struct freeze *f, size_t i, struct err *e);
/* 0 or errno. */
int freeze_thaw(const struct freeze *f, size_t i);
void freeze_free(struct freeze *f);

#endif
