/*
 * subvol: snapshots of btrfs subvolumes (linux/btrfs.h). On other filesystems nothing is a subvolume.
 *
 * May use: err; makes system calls.
 */
#ifndef REPL_SUBVOL_H
#define REPL_SUBVOL_H

#include <stdbool.h>

/* The directory is the root of a subvolume, and we may remove what we make of it. */
bool subvol_is(int fd);
/* A writable snapshot of `from` as name in dir. 0, or -1 with errno. */
int subvol_snapshot(int from, int dir, const char *name);
/* From now on nobody writes to it. */
int subvol_seal(int fd);
/* Removes the subvolume `name` of dir. -1 with errno: ENOENT, or ENOTDIR or EINVAL when it is none. */
int subvol_remove(int dir, const char *name);

#endif
