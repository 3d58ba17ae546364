#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define SHOWN 300

/* stat(2) has a device for each subvolume of a btrfs: the mount knows the filesystem. What is mounted nowhere, as a pipe, is no matter. */
static int device_of(const struct mounts *m, int fd, uint64_t *dev)
{
	uint64_t id = mounts_id(fd);
	struct stat st;

	if (fstat(fd, &st))
		return -1;
	*dev = st.st_dev;
	for (size_t i = 0; id && i < m->n; i++)
		if (m->v[i].id == id)
			*dev = m->v[i].dev;
	return 0;
}

int freeze_add(struct freeze *f, int fd, struct span name, struct err *e)
{
	struct freeze_fs fs = {0};
	char text[SHOWN];

	esc_cut(text, sizeof text, name);
	if (!f->mounts.n && mounts_read(&f->mounts, e))
		return -1;
	if (device_of(&f->mounts, fd, &fs.dev))
		return err_sys(e, "cannot look at '%s'", text);
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].dev == fs.dev)
			return 0;
	if (f->n == FREEZE_MAX)
		return err_set(e, ERR_REFUSED, "will not freeze more than %u filesystems", FREEZE_MAX);
	fs.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fs.fd < 0)
		return err_sys(e, "cannot hold '%s' open", text);
	fs.name = xstrdup(text);
	f->v = xrealloc(f->v, (f->n + 1) * sizeof *f->v);
	f->v[f->n++] = fs;
	return 0;
}

int freeze_spare(const struct freeze *f, int fd, const char *what, struct err *e)
{
	uint64_t dev;

	if (device_of(&f->mounts, fd, &dev))
		return err_sys(e, "cannot look at %s", what);
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].dev == dev)
			return err_set(e, ERR_REFUSED, "will not freeze the filesystem of '%s': %s is on it, and who writes there while it "
				"is frozen cannot thaw it", f->v[i].name, what);
	return 0;
}

int freeze_one(const struct freeze *f, size_t i, struct err *e)
{
	const char *why = "";

	if (!ioctl(f->v[i].fd, FIFREEZE, 0))
		return 0;
	if (errno == EPERM)
		why = " (only root may)";
	else if (errno == EBUSY)
		why = " (somebody else has frozen it)";
	else if (errno == EOPNOTSUPP || errno == ENOTTY)
		why = " (it is of a kind that cannot be frozen)";
	return err_sys(e, "cannot freeze the filesystem of '%s'%s", f->v[i].name, why);
}

int freeze_thaw(const struct freeze *f, size_t i) { return ioctl(f->v[i].fd, FITHAW, 0) ? errno : 0; }

void freeze_free(struct freeze *f)
{
	for (size_t i = 0; i < f->n; i++) {
		close_fd(&f->v[i].fd);
		free(f->v[i].name);
	}
	free(f->v);
	mounts_free(&f->mounts);
	*f = (struct freeze){0};
}
