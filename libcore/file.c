#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"
#include "err.h"

int file_read_at(int fd, void *out, size_t n, uint64_t off)
{
	for (uint8_t *p = out; n;) {
		ssize_t got = pread(fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0) {
			memset(p, 0, n);
			return 0;
		}
		p += got;
		n -= (size_t)got;
		off += (uint64_t)got;
	}
	return 0;
}

int file_write_at(int fd, const void *in, size_t n, uint64_t off)
{
	for (const uint8_t *p = in; n;) {
		ssize_t got = pwrite(fd, p, n, (off_t)off);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		p += got;
		n -= (size_t)got;
		off += (uint64_t)got;
	}
	return 0;
}

int file_write(int fd, const void *in, size_t n)
{
	for (const uint8_t *p = in; n;) {
		ssize_t got = write(fd, p, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		p += got;
		n -= (size_t)got;
	}
	return 0;
}

static int copy_piece(int from, int to, uint64_t off, uint64_t end)
{
	uint8_t buf[64 * 1024];

	while (off < end) {
		off_t in = (off_t)off, out = in;
		ssize_t n = copy_file_range(from, &in, to, &out, (size_t)(end - off < 1u << 30 ? end - off : 1u << 30), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* not between these filesystems */
			break;
		off += (uint64_t)n;
	}
	while (off < end) {
		size_t n = end - off < sizeof buf ? (size_t)(end - off) : sizeof buf;
		if (file_read_at(from, buf, n, off) || file_write_at(to, buf, n, off))
			return -1;
		off += n;
	}
	return 0;
}

int file_copy(int from, int to, uint64_t off, uint64_t end)
{
	while (off < end) {
		off_t data = lseek(from, (off_t)off, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		uint64_t start = data < 0 ? off : (uint64_t)data;
		off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
		uint64_t stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
		if (start < stop && copy_piece(from, to, start, stop))
			return -1;
		off = stop > start ? stop : start;
	}
	return 0;
}

int file_resize(int fd, uint64_t size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -1;
	return S_ISBLK(st.st_mode) || (uint64_t)st.st_size == size ? 0 : ftruncate(fd, (off_t)size);
}

int file_clone(int from, int to, uint64_t size)
{
	if (ioctl(to, FICLONE, from) == 0)
		return 0;
	return file_copy(from, to, 0, size) || file_resize(to, size) ? -1 : 0;
}

int file_zero(int fd, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[64 * 1024];

	if (!len || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	/* EINVAL: of a block device no part of a sector. */
	if (errno != EOPNOTSUPP && errno != EINVAL)
		return -1;
	for (uint64_t at = 0; at < len; at += sizeof zeros)
		if (file_write_at(fd, zeros, len - at < sizeof zeros ? (size_t)(len - at) : sizeof zeros, off + at))
			return -1;
	return 0;
}

int file_overwrite(int from, int to, uint64_t size)
{
	uint64_t pos = 0;

	if (file_resize(to, size))
		return -1;
	while (pos < size) {
		off_t data = lseek(from, (off_t)pos, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			return -1;
		uint64_t start = data < 0 || (uint64_t)data > size ? size : (uint64_t)data;
		off_t hole = start < size ? lseek(from, data, SEEK_HOLE) : 0;
		uint64_t stop = start == size || (uint64_t)hole > size ? size : (uint64_t)hole;
		if (hole < 0 || file_zero(to, pos, start - pos) || copy_piece(from, to, start, stop))
			return -1;
		pos = stop;
	}
	return 0;
}

int file_temp(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0) { /* not every filesystem knows O_TMPFILE */
		AUTO_BUF struct buf name = {0};

		buf_fmt(&name, "%s/repl-XXXXXX", dir);
		buf_add(&name, "", 1);
		fd = mkostemp((char *)name.p, O_CLOEXEC);
		if (fd >= 0)
			unlink((const char *)name.p);
	}
	return fd;
}

bool file_is_trusted(const struct stat *st) { return (!st->st_uid || st->st_uid == geteuid()) && !(st->st_mode & 022); }

DIR *file_list(int dirfd)
{
	int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);

	if (!d)
		close_fd(&copy);
	return d;
}

bool file_is_dots(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

/* write NAME.new, fsync   a crash leaves the old file and a NAME.new that the next run overwrites
 * rename over NAME        a crash leaves the old file or the new one
 * fsync the directory     the new one stands for good */
int file_replace(int dirfd, const char *name, const void *p, size_t n, struct err *e)
{
	AUTO_BUF struct buf tmp = {0};

	buf_fmt(&tmp, "%s.new", name);
	int fd = openat(dirfd, buf_cstr(&tmp), O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_sys(e, "cannot create '%s'", buf_cstr(&tmp));
	if (file_write(fd, p, n) || fsync(fd)) {
		err_sys(e, "cannot write '%s'", buf_cstr(&tmp));
		close(fd);
		return -1;
	}
	if (close(fd))
		return err_sys(e, "cannot write '%s'", buf_cstr(&tmp));
	if (renameat(dirfd, buf_cstr(&tmp), dirfd, name) || fsync(dirfd))
		return err_sys(e, "cannot replace '%s'", name);
	return 0;
}
