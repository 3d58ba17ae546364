#include "volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "mounts.h"

/* Device numbers. */
struct devices {
	dev_t *v;
	size_t n;
};

static void add(struct devices *d, dev_t dev)
{
	d->v = xrealloc(d->v, (d->n + 1) * sizeof *d->v);
	d->v[d->n++] = dev;
}

static bool has(const struct devices *d, dev_t dev)
{
	for (size_t i = 0; i < d->n; i++)
		if (d->v[i] == dev)
			return true;
	return false;
}

/* The line that a file of sysfs holds; false: there is no such file. */
static bool line_of(int at, const char *name, char *line, size_t size)
{
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, line, size - 1);

	if (n <= 0)
		return false;
	n -= line[n - 1] == '\n';
	line[n] = '\0';
	return true;
}

/* The device whose directory in sysfs this is, and its partitions. */
static void add_device(struct devices *d, int at, const char *name)
{
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char line[64];
	unsigned major, minor;

	if (fd < 0 || !line_of(fd, "dev", line, sizeof line) || sscanf(line, "%u:%u", &major, &minor) != 2)
		return;
	add(d, makedev(major, minor));
	DIR *dir = fdopendir(dup(fd));
	const struct dirent *en;
	while (dir && (en = readdir(dir))) {
		char path[NAME_MAX + 16];
		snprintf(path, sizeof path, "%s/partition", en->d_name);
		if (en->d_name[0] == '.' || faccessat(fd, path, F_OK, 0))
			continue;
		snprintf(path, sizeof path, "%s/dev", en->d_name);
		if (line_of(fd, path, line, sizeof line) && sscanf(line, "%u:%u", &major, &minor) == 2)
			add(d, makedev(major, minor));
	}
	if (dir)
		closedir(dir);
}

int volume_loops(void (*fn)(void *ctx, int at, const char *name, const char *backing), void *ctx)
{
	DIR *dir = opendir("/sys/block");
	const struct dirent *en;

	if (!dir)
		return errno == ENOENT ? 0 : -1; /* no sysfs: no loop devices that one could set up either */
	while ((en = readdir(dir))) {
		char path[NAME_MAX + 32], backing[PATH_MAX + 1];
		snprintf(path, sizeof path, "%s/loop/backing_file", en->d_name);
		if (!strncmp(en->d_name, "loop", 4) && line_of(dirfd(dir), path, backing, sizeof backing))
			fn(ctx, dirfd(dir), en->d_name, backing);
	}
	closedir(dir);
	return 0;
}

struct behind {
	struct devices *d;
	const struct stat *file;
};

static void add_if_behind(void *ctx, int at, const char *name, const char *backing)
{
	const struct behind *b = ctx;
	struct stat st;

	if (!stat(backing, &st) && st.st_dev == b->file->st_dev && st.st_ino == b->file->st_ino)
		add_device(b->d, at, name);
}

/* Of a btrfs the mount has a number of its own; its source says the device. */
static bool is_on(const struct mount *m, const struct devices *d)
{
	struct stat st;

	if (has(d, m->dev))
		return true;
	return m->source[0] == '/' && !stat(m->source, &st) && S_ISBLK(st.st_mode) && has(d, st.st_rdev);
}

void volume_fresh(int fd)
{
	struct stat st;

	if (!fstat(fd, &st) && S_ISBLK(st.st_mode))
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

int volume_place(int fd, struct buf *dir, struct buf *file)
{
	char name[64], path[PATH_MAX];
	struct stat st, there;
	bool is_file = !fstat(fd, &st) && S_ISREG(st.st_mode);

	if (is_file) {
		snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(name, path, sizeof path - 1);
		path[n > 0 ? n : 0] = '\0';
	} else {
		snprintf(name, sizeof name, "/sys/dev/block/%u:%u/loop/backing_file", major(st.st_rdev), minor(st.st_rdev));
		if (!S_ISBLK(st.st_mode) || !line_of(AT_FDCWD, name, path, sizeof path))
			return -1;
	}
	/* Deleted, or another file by now: then there is no such place. */
	char *last = strrchr(path, '/');
	if (!last || stat(path, &there) || !S_ISREG(there.st_mode) || (is_file && (there.st_dev != st.st_dev || there.st_ino != st.st_ino)))
		return -1;
	if (file) {
		buf_reset(file);
		buf_str(file, last + 1);
	}
	last[last == path] = '\0';
	if (dir) {
		buf_reset(dir);
		buf_str(dir, path);
	}
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int volume_mounts(int fd, bool writable, int (*fn)(void *ctx, const char *point, struct err *e), void *ctx, struct err *e)
{
	struct devices d = {0};
	struct mounts m = {0};
	struct stat st;
	char path[64];
	int rc = 0;

	if (fstat(fd, &st))
		return err_sys(e, "cannot look at a volume");
	if (S_ISBLK(st.st_mode)) {
		snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(st.st_rdev), minor(st.st_rdev));
		add_device(&d, AT_FDCWD, path);
	} else if (volume_loops(add_if_behind, &(struct behind){&d, &st})) {
		return err_sys(e, "cannot read '/sys/block'");
	}
	if (d.n)
		rc = mounts_read(&m, e);
	for (size_t i = 0; i < m.n && !rc; i++)
		if (!(writable && m.v[i].is_read_only) && is_on(&m.v[i], &d))
			rc = fn(ctx, m.v[i].point, e);
	mounts_free(&m);
	free(d.v);
	return rc ? -1 : 0;
}
