#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "bytes.h"
#include "err.h"

static int busy(int fd, const char *held, struct err *e)
{
	char text[32];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	text[strspn(text, "0123456789")] = '\0';
	return err_set(e, ERR_BUSY, "%s by process %s", held, text[0] ? text : "unknown");
}

int lock_take(int dirfd, const char *file, const char *held, unsigned wait, int *out, struct err *e)
{
	AUTO_CLOSE int fd = openat(dirfd, file, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	const struct timespec tick = {0, 50000000};
	uint64_t left = (uint64_t)wait * 20;
	char text[32];

	if (fd < 0)
		return err_sys(e, "cannot open the lock '%s'", file);
	/* flock(2) knows no time limit, and a signal to end it would be the whole program's. */
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return err_sys(e, "cannot take the lock '%s'", file);
		if (!left--)
			return busy(fd, held, e);
		nanosleep(&tick, NULL);
	}
	int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return err_sys(e, "cannot write the lock '%s'", file);
	*out = fd;
	fd = -1;
	return 0;
}

void lock_drop(int *fd)
{
	if (*fd < 0)
		return;
	/* Only for the eye: the lock itself goes with the descriptor. */
	if (ftruncate(*fd, 0))
		errno = 0;
	close_fd(fd);
}
