/*
 * mounts: what is mounted where, as /proc/self/mountinfo tells (proc(5)).
 *
 * May use: bytes, err; reads /proc.
 */
#ifndef REPL_MOUNTS_H
#define REPL_MOUNTS_H

#include "bytes.h"
#include "err.h"

struct mount {
	uint64_t id;       /* may be given again after an unmount */
	uint64_t dev;      /* of the superblock; on btrfs not what stat says of what lies in a subvolume */
	char *point, *type;
	char *source;      /* a device, or whatever the filesystem has instead */
	bool is_read_only; /* the superblock */
};
struct mounts {
	struct mount *v;
	size_t n;
};
/* Owned; mounts_free. */
int mounts_read(struct mounts *m, struct err *e);
void mounts_free(struct mounts *m);
/* The path is this directory or lies below it. Both absolute, without a slash at the end (but "/"). */
bool mounts_below(struct span path, struct span dir);
/* One that is mounted below this directory (not at it); NULL: nothing is. Borrowed. */
const struct mount *mounts_inside(const struct mounts *m, struct span dir);
/* The id of the mount that this is in (struct mount); 0: none, or the kernel does not say (before Linux 5.8). */
uint64_t mounts_id(int fd);

#endif
