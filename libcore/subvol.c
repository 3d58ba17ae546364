#include "subvol.h"

#include <errno.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define ROOT_INODE 256u /* BTRFS_FIRST_FREE_OBJECTID: of every subvolume's root */

bool subvol_is(int fd)
{
	struct statfs fs;
	struct stat st;

	return geteuid() == 0 && fstatfs(fd, &fs) == 0 && fs.f_type == BTRFS_SUPER_MAGIC && fstat(fd, &st) == 0 &&
		st.st_ino == ROOT_INODE;
}

int subvol_snapshot(int from, int dir, const char *name)
{
	struct btrfs_ioctl_vol_args_v2 a = {.fd = from};

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
