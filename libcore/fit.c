#include "fit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bytes.h"
#include "file.h"

#define DIR_NAME "fit"

#ifndef XFS_SUPER_MAGIC /* linux/magic.h has it since Linux 5.6 */
#define XFS_SUPER_MAGIC 0x58465342
#endif

bool fit_takes_all(int fd)
{
	struct statfs s;

	return !fstatfs(fd, &s) && (s.f_type == EXT4_SUPER_MAGIC || s.f_type == BTRFS_SUPER_MAGIC || s.f_type == XFS_SUPER_MAGIC ||
		s.f_type == TMPFS_MAGIC);
}

static void forget(struct fit *f)
{
	DIR *d = f->dir < 0 ? NULL : file_list(f->dir);

	for (const struct dirent *de; d && (de = readdir(d));)
		if (!file_is_dots(de->d_name))
			unlinkat(f->dir, de->d_name, 0);
	if (d)
		closedir(d);
}

static int make(const struct fit *f, const char *name)
{
	AUTO_CLOSE int fd = openat(f->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -1 : 0;
}

static int begin(struct fit *f)
{
	if (mkdirat(f->stage, DIR_NAME, 0700) && errno != EEXIST)
		return -1;
	f->dir = openat(f->stage, DIR_NAME, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (f->dir < 0)
		return -1;
	forget(f);
	if (make(f, "a"))
		return -1;
	f->folds = faccessat(f->dir, "A", F_OK, 0) == 0;
	forget(f);
	return 0;
}

/* No filesystem that tells "a" from "A" has anything against such a name. */
static bool is_plain(const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");

	return !name[n] && n <= 64 && name[n - 1] != '.';
}

int fit_name(struct fit *f, uint64_t parent, const char *name)
{
	if (f->dir < 0 && begin(f))
		return -1;
	if (!f->folds && is_plain(name))
		return 0;
	if (parent != f->parent)
		forget(f);
	f->parent = parent;
	return make(f, name);
}

void fit_end(struct fit *f)
{
	if (f->dir < 0)
		return;
	forget(f);
	close_fd(&f->dir);
	unlinkat(f->stage, DIR_NAME, AT_REMOVEDIR);
}
