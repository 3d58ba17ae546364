/*
 * subvol: snapshots of btrfs subvolumes (linux/btrfs.h). On other filesystems nothing is a subvolume.
 *
 * May use: bytes; makes system calls.
 */
#ifndef REPL_SUBVOL_H
#define REPL_SUBVOL_H

#include <stdbool.h>
#include <stdint.h>

/* The directory is the root of a subvolume, and we may remove what we make of it. */
bool subvol_is(int fd);
/* A snapshot of `from` as name in dir; sealed: nobody can write to it. On the disk when it returns. 0, or -1 with errno. */
int subvol_snapshot(int from, int dir, const char *name, bool is_sealed);
/* From now on nobody writes to it. */
int subvol_seal(int fd);
/* Removes the subvolume `name` of dir. -1 with errno: ENOENT, or ENOTDIR or EINVAL when it is none. */
int subvol_remove(int dir, const char *name);

struct subvol_info {
	uint64_t id;
	uint64_t made, changed; /* transactions: of the snapshot, and the last that changed something in it */
	bool is_sealed;
	uint8_t uuid[16], origin[16]; /* origin: of what it is a snapshot of; zero: of nothing */
};
/* fd: the root of a subvolume. -1 with errno: ENOTTY when it is none. Linux 4.18 and later. */
int subvol_ask(int fd, struct subvol_info *s);
/* A snapshot that is what it was when it was made. */
bool subvol_is_intact(const struct subvol_info *s);

/* A subvolume that lies in another one. */
struct subvol_inner {
	uint64_t id;
	uint64_t dir;       /* inode of the directory that it is in */
	char path[4096];    /* below the root of the outer one; empty: not known */
};
/* The first one inside that fn says true to, into *found: 1, 0 when there is none, -1 with errno. fd: the root. */
int subvol_inside(int fd, bool (*fn)(void *ctx, uint64_t dir), void *ctx, struct subvol_inner *found);

#endif
