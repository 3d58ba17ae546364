#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bytes.h"

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
