#include "entry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "attr.h"
#include "file.h"
#include "inode.h"
#include "meta.h"
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

/* ---- what renames do not cross within one filesystem ---- */

#define PROJECT_DEPTH 64 /* of what lies deeper the number stays: it counts to another quota, and moves all the same */

static bool join_project(int dirfd, const char *name, uint32_t project, unsigned depth);

static void join_below(int fd, uint32_t project, unsigned depth)
{
	DIR *d = depth < PROJECT_DEPTH ? file_list(fd) : NULL;

	for (const struct dirent *de; d && (de = readdir(d));)
		if (!file_is_dots(de->d_name))
			join_project(fd, de->d_name, project, depth + 1);
	if (d)
		closedir(d);
}

/* True when the object has another number now. Else errno: EXDEV when that is not what keeps it. */
static bool join_project(int dirfd, const char *name, uint32_t project, unsigned depth)
{
	AUTO_CLOSE int fd = path_open_at(dirfd, name, O_RDONLY, 0);
	struct fsxattr x;
	struct stat st;

	if (fd < 0 || ioctl(fd, FS_IOC_FSGETXATTR, &x) || x.fsx_projid == project || fstat(fd, &st)) {
		errno = EXDEV;
		return false;
	}
	x.fsx_projid = project;
	if (S_ISDIR(st.st_mode)) {
		x.fsx_xflags |= FS_XFLAG_PROJINHERIT;
		join_below(fd, project, depth);
	}
	return !ioctl(fd, FS_IOC_FSSETXATTR, &x);
}

/* A directory that hands its project on to what is made in it takes nothing of another one (XFS and ext4). As join_project. */
static bool join_project_of(int to_dir, int from_dir, const char *from)
{
	struct fsxattr x;

	if (!ioctl(to_dir, FS_IOC_FSGETXATTR, &x) && x.fsx_xflags & FS_XFLAG_PROJINHERIT)
		return join_project(from_dir, from, x.fsx_projid, 0);
	errno = EXDEV;
	return false;
}

static int take_metadata(int from_dir, const char *from, int from_fd, int to_dir, const char *to, int to_fd)
{
	const struct meta_policy policy = {.warn = NULL}; /* what is lost, is lost again, and said, where it gets what it should have */
	struct attr a = {0};
	struct err e = {0};

	int rc = attr_stat(&a, from_dir, from, &e) || attr_rest(&a, from_fd < 0 ? from_dir : from_fd, from, NULL, &e) ||
		meta_restore(to_dir, to, to_fd, a.type, &a.meta, &policy, &e) ? -1 : 0;
	attr_free(&a);
	errno = e.sys;
	return rc;
}

/* What cannot be opened has no project that could be changed (before Linux 6.17): it is made again. */
static int make_again(int from_dir, const char *from, int to_dir, const char *to, const struct stat *st)
{
	char target[PATH_MAX];
	ssize_t n = S_ISLNK(st->st_mode) ? readlinkat(from_dir, from, target, sizeof target - 1) : 0;

	if (n < 0 || (unlinkat(to_dir, to, 0) && errno != ENOENT))
		return -1;
	target[n] = 0;
	if (S_ISLNK(st->st_mode) ? symlinkat(target, to_dir, to) : mknodat(to_dir, to, st->st_mode, st->st_rdev))
		return -1;
	return take_metadata(from_dir, from, -1, to_dir, to, -1) || unlinkat(from_dir, from, 0) ? -1 : 0;
}

static int carry(int from_dir, const char *from, int to_dir, const char *to);

/* A directory of overlayfs that is not of its upper layer alone: name by name. Repeating, some of them are there. */
static int carry_dir(int from_dir, const char *from, int to_dir, const char *to)
{
	AUTO_CLOSE int in = path_open_at(from_dir, from, O_RDONLY | O_DIRECTORY, 0);

	if (in < 0 || (mkdirat(to_dir, to, 0700) && errno != EEXIST))
		return -1;
	AUTO_CLOSE int out = path_open_at(to_dir, to, O_RDONLY | O_DIRECTORY, 0);
	DIR *d = out < 0 ? NULL : file_list(in);
	int rc = d ? 0 : -1;

	for (const struct dirent *de; !rc && (de = readdir(d));)
		if (!file_is_dots(de->d_name))
			rc = carry(in, de->d_name, out, de->d_name);
	int sys = errno;
	if (d)
		closedir(d);
	errno = sys;
	return rc || take_metadata(from_dir, from, in, to_dir, to, out) || unlinkat(from_dir, from, AT_REMOVEDIR) ? -1 : 0;
}

static int carry(int from_dir, const char *from, int to_dir, const char *to)
{
	struct stat st;

	if (renameat(from_dir, from, to_dir, to) == 0)
		return 0;
	if (errno == EXDEV && join_project_of(to_dir, from_dir, from) && renameat(from_dir, from, to_dir, to) == 0)
		return 0;
	if (errno != EXDEV || fstatat(from_dir, from, &st, AT_SYMLINK_NOFOLLOW) || S_ISREG(st.st_mode))
		return -1;
	return S_ISDIR(st.st_mode) ? carry_dir(from_dir, from, to_dir, to) : make_again(from_dir, from, to_dir, to, &st);
}

/* ---- names ---- */

int entry_move(int from_dir, const char *from, int to_dir, const char *to)
{
	if (renameat(from_dir, from, to_dir, to) == 0)
		return 0;
	if (errno != EPERM && errno != EACCES && errno != EXDEV)
		return -1;
	if (errno != EXDEV)
		open_up_at(from_dir, from);
	return carry(from_dir, from, to_dir, to);
}

int entry_link(int from_dir, const char *from, int to_dir, const char *to)
{
	if (linkat(from_dir, from, to_dir, to, 0) == 0)
		return 0;
	if (errno == EPERM)
		entry_unlock(from_dir, from);
	else if (errno != EXDEV || !join_project_of(to_dir, from_dir, from))
		return -1;
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
