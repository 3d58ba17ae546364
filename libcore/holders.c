#include "holders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "volume.h"

#define MAPS_CHUNK 65536u

static struct r_inode inode_of(const struct statx *sx)
{
	struct r_inode ino = {.dev = makedev(sx->stx_dev_major, sx->stx_dev_minor), .ino = sx->stx_ino};

	if (sx->stx_mask & STATX_BTIME) {
		ino.btime_s = sx->stx_btime.tv_sec;
		ino.btime_ns = sx->stx_btime.tv_nsec;
	}
	return ino;
}

/* Follows: at the end of path is one of /proc's links, or a file's own path. */
static bool look(int at, const char *path, struct statx *sx)
{
	return !statx(at, path, AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_BTIME, sx) && sx->stx_nlink;
}

static void found(struct holders *h, struct span path, const struct statx *sx)
{
	struct r_inode ino = inode_of(sx);

	h->files++;
	h->file(h->ctx, path, &ino);
}

/* ---- open files ---- */

/* Is the open file fit for writing? fdinfo has its flags in octal: proc(5). */
static bool is_for_writing(int infos, const char *fd)
{
	char text[256];
	AUTO_CLOSE int file = openat(infos, fd, O_RDONLY | O_CLOEXEC);
	ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);

	if (n <= 0)
		return false;
	text[n] = '\0';
	const char *flags = strstr(text, "flags:");
	unsigned long v = flags ? strtoul(flags + 6, NULL, 8) : 0;
	return (v & O_ACCMODE) != O_RDONLY && !(v & O_PATH);
}

static void look_at_files(struct holders *h, int proc)
{
	int own = openat(proc, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Else it has just ended. */
	bool is_refused = own < 0 && (errno == EACCES || errno == EPERM);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	AUTO_CLOSE int infos = openat(proc, "fdinfo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const struct dirent *en;

	if (!d) {
		close_fd(&own);
		h->refused += is_refused;
		return;
	}
	while ((en = readdir(d))) {
		char link[PATH_MAX];
		struct statx sx;
		if (en->d_name[0] == '.')
			continue;
		ssize_t n = readlinkat(dirfd(d), en->d_name, link, sizeof link);
		/* Pipes, sockets and the like begin otherwise. A path that is too long for us is a file's all the same. */
		if (n < 0 ? errno != ENAMETOOLONG : link[0] != '/' || (n > 4 && !memcmp(link, "/dev/", 5)))
			continue;
		if (!look(dirfd(d), en->d_name, &sx) ||
				!h->is_device(h->ctx, makedev(sx.stx_dev_major, sx.stx_dev_minor), false) || !is_for_writing(infos, en->d_name))
			continue;
		found(h, span_of(link, n < 0 || n == sizeof link ? 0 : (size_t)n), &sx);
	}
	closedir(d);
}

/* ---- mappings ---- */

static void look_at_map(struct holders *h, int proc, char *line)
{
	char range[64], perms[8], link[128];
	unsigned major, minor;
	unsigned long long ino;
	int at = 0;
	struct statx sx;

	if (sscanf(line, "%63s %7s %*x %x:%x %llu %n", range, perms, &major, &minor, &ino, &at) != 5 || !ino || perms[3] != 's' ||
			!h->is_device(h->ctx, makedev(major, minor), true))
		return;
	line[strcspn(line, "\n")] = '\0';
	snprintf(link, sizeof link, "map_files/%s", range);
	const char *path = at ? line + at : "";
	/* Only the privileged may look there; others have the path. */
	if (look(proc, link, &sx) || (path[0] == '/' && look(AT_FDCWD, path, &sx) && sx.stx_ino == ino))
		found(h, span_cstr(path), &sx);
}

static void look_at_maps(struct holders *h, int proc)
{
	int own = openat(proc, "maps", O_RDONLY | O_CLOEXEC);
	FILE *f = own < 0 ? NULL : fdopen(own, "r");
	AUTO_FREE char *line = NULL;
	size_t cap = 0;

	if (!f) {
		close_fd(&own);
		return;
	}
	setvbuf(f, NULL, _IOFBF, MAPS_CHUNK);
	while (getline(&line, &cap, f) > 0)
		look_at_map(h, proc, line);
	fclose(f);
}

/* ---- loop devices ---- */

static void look_at_loop(void *ctx, int at, const char *name, const char *backing)
{
	struct holders *h = ctx;
	struct statx sx;

	(void)at;
	(void)name;
	if (look(AT_FDCWD, backing, &sx) && h->is_device(h->ctx, makedev(sx.stx_dev_major, sx.stx_dev_minor), false))
		found(h, span_cstr(backing), &sx);
}

static int look_at_loops(struct holders *h, struct err *e)
{
	return volume_loops(look_at_loop, h) ? err_sys(e, "cannot read '/sys/block'") : 0;
}

int holders_find(struct holders *h, struct err *e)
{
	DIR *d = opendir("/proc");
	const struct dirent *en;
	pid_t self = getpid();

	h->processes = h->refused = h->files = 0;
	if (!d)
		return err_sys(e, "cannot read '/proc'");
	int rc = 0;
	for (errno = 0; !rc && (en = readdir(d)); errno = 0) {
		if (en->d_name[0] < '1' || en->d_name[0] > '9' || strtol(en->d_name, NULL, 10) == self)
			continue;
		AUTO_CLOSE int proc = openat(dirfd(d), en->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (proc < 0)
			continue;
		h->processes++;
		look_at_files(h, proc);
		look_at_maps(h, proc);
		rc = h->breathe(h->ctx, e);
	}
	if (!rc && errno)
		rc = err_sys(e, "cannot read '/proc'");
	closedir(d);
	return rc ? -1 : look_at_loops(h, e);
}
