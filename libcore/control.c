#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bytes.h"

int control_below(int at, const char *name, bool make)
{
	struct stat st;

	if (make && mkdirat(at, name, 0700) && errno != EEXIST)
		return -1;
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st))
		return -1;
	if (st.st_uid != geteuid() || st.st_mode & 022) {
		errno = EPERM;
		return -1;
	}
	int mine = fd;
	fd = -1;
	return mine;
}

int control_open(int root, const char *name, bool make)
{
	struct stat st;
	bool is_new = make && faccessat(root, ".repl", F_OK, AT_SYMLINK_NOFOLLOW) && !fstat(root, &st);
	AUTO_CLOSE int ctl = control_below(root, ".repl", make);

	/* What is ours leaves no trace in the image. */
	if (is_new && ctl >= 0)
		futimens(root, (struct timespec[]){{.tv_nsec = UTIME_OMIT}, st.st_mtim});
	return ctl < 0 ? -1 : control_below(ctl, name, make);
}

void control_drop(int root, const char *name)
{
	AUTO_CLOSE int ctl = control_below(root, ".repl", false);

	if (ctl >= 0)
		unlinkat(ctl, name, AT_REMOVEDIR);
}
