#include "entry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inode.h"
#include "path.h"

void entry_open_up(int dirfd)
{
	struct stat st;

	inode_unlock(dirfd);
	if (geteuid() && fstat(dirfd, &st) == 0 && (st.st_mode & 0700) != 0700)
		fchmod(dirfd, (st.st_mode & 07777) | 0700);
}

void entry_unlock(int dirfd, const char *name)
{
	AUTO_CLOSE int fd = path_open_at(dirfd, name, O_RDONLY, 0);

	if (fd >= 0)
		inode_unlock(fd);
}

/* A directory that we may not write cannot get another parent: its ".." changes. */
static bool open_up_at(int dirfd, const char *name)
{
	struct stat st;

	entry_unlock(dirfd, name);
	return geteuid() && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
		fchmodat(dirfd, name, (st.st_mode & 07777) | 0700, AT_SYMLINK_NOFOLLOW) == 0;
}

int entry_move(int from_dir, const char *from, int to_dir, const char *to)
{
	if (renameat(from_dir, from, to_dir, to) == 0)
		return 0;
	if (errno != EPERM && errno != EACCES)
		return -1;
	open_up_at(from_dir, from);
	return renameat(from_dir, from, to_dir, to);
}

int entry_link(int from_dir, const char *from, int to_dir, const char *to)
{
	if (linkat(from_dir, from, to_dir, to, 0) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	entry_unlock(from_dir, from);
	return linkat(from_dir, from, to_dir, to, 0);
}

int entry_remove(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	entry_unlock(dirfd, name);
	return unlinkat(dirfd, name, 0);
}
