#include "subvol.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bytes.h"

#define ROOT_INODE 256u /* BTRFS_FIRST_FREE_OBJECTID: of every subvolume's root */

bool subvol_is(int fd)
{
	struct statfs fs;
	struct stat st;

	return geteuid() == 0 && fstatfs(fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC && fstat(fd, &st) == 0 &&
		st.st_ino == ROOT_INODE;
}

int subvol_snapshot(int from, int dir, const char *name, bool is_sealed)
{
	struct btrfs_ioctl_vol_args_v2 a = {.fd = from, .flags = is_sealed ? BTRFS_SUBVOL_RDONLY : 0};

	snprintf(a.name, sizeof a.name, "%s", name);
	return ioctl(dir, BTRFS_IOC_SNAP_CREATE_V2, &a);
}

int subvol_seal(int fd)
{
	unsigned long long flags = BTRFS_SUBVOL_RDONLY;

	return ioctl(fd, BTRFS_IOC_SUBVOL_SETFLAGS, &flags);
}

int subvol_remove(int dir, const char *name)
{
	struct btrfs_ioctl_vol_args a = {0};

	snprintf(a.name, sizeof a.name, "%s", name);
	return ioctl(dir, BTRFS_IOC_SNAP_DESTROY, &a);
}

int subvol_ask(int fd, struct subvol_info *s)
{
	struct btrfs_ioctl_get_subvol_info_args a = {0};
	struct stat st;

	/* Its status is that of its last look-up in the kernel: 1 is no failure (Linux 6.18). */
	if (fstat(fd, &st) || ioctl(fd, BTRFS_IOC_GET_SUBVOL_INFO, &a) < 0)
		return -1;
	/* It answers for whatever subvolume the directory is in. */
	if (st.st_ino != ROOT_INODE) {
		errno = ENOTTY;
		return -1;
	}
	*s = (struct subvol_info){.id = a.treeid, .made = a.otransid, .changed = a.ctransid,
		.is_sealed = a.flags & BTRFS_ROOT_SUBVOL_RDONLY};
	memcpy(s->uuid, a.uuid, sizeof s->uuid);
	memcpy(s->origin, a.parent_uuid, sizeof s->origin);
	return 0;
}

/* Making a snapshot ends a transaction: what changes in it later does so in a later one. */
bool subvol_is_intact(const struct subvol_info *s)
{
	return s->is_sealed && s->changed <= s->made && !is_zero(s->origin, sizeof s->origin);
}

static void inner_path(int fd, struct subvol_inner *in)
{
	struct btrfs_ioctl_ino_lookup_user_args a = {.dirid = in->dir, .treeid = in->id};

	/* The path of the directory ends in a slash, or is empty. */
	if (!ioctl(fd, BTRFS_IOC_INO_LOOKUP_USER, &a))
		snprintf(in->path, sizeof in->path, "%.*s%.*s", (int)sizeof a.path - 1, a.path, BTRFS_VOL_NAME_MAX, a.name);
}

int subvol_inside(int fd, bool (*fn)(void *ctx, uint64_t dir), void *ctx, struct subvol_inner *found)
{
	struct btrfs_ioctl_get_subvol_rootref_args a = {0};

	for (bool is_more = true; is_more;) {
		/* EOVERFLOW: as many as there is room for, and min_treeid has moved on. */
		int got = ioctl(fd, BTRFS_IOC_GET_SUBVOL_ROOTREF, &a);
		if (got < 0 && errno != EOVERFLOW)
			return -1;
		is_more = got < 0;
		for (unsigned i = 0; i < a.num_items; i++) {
			if (!fn(ctx, a.rootref[i].dirid))
				continue;
			*found = (struct subvol_inner){.id = a.rootref[i].treeid, .dir = a.rootref[i].dirid};
			inner_path(fd, found);
			return 1;
		}
	}
	return 0;
}
