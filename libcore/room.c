#include "room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "bytes.h"
#include "file.h"
#include "fit.h"
#include "meta.h"
#include "path.h"

#define EMPTY_MAX 65536 /* bytes of a directory that is as good as new when it is empty */

void room_new_dir(char out[32], uint64_t ref) { snprintf(out, 32, "d%llu", (unsigned long long)ref); }

bool room_is_ours(const char *name)
{
	return file_is_dots(name) || !strcmp(name, ROOM_CTL) || !strcmp(name, "lost+found");
}

int room_is_empty_dir(int fd)
{
	DIR *d = file_list(fd);
	const struct dirent *de;
	int empty = 1;

	if (!d)
		return -1;
	while (empty && (de = readdir(d)))
		empty = room_is_ours(de->d_name);
	closedir(d);
	return empty;
}

int room_at(struct room *m, const char *name, const char *path, int root, int ctl, struct err *e)
{
	struct statx sx;

	*m = (struct room)ROOM_CLOSED;
	if (statx(root, "", AT_EMPTY_PATH, STATX_TYPE | STATX_MNT_ID, &sx))
		return err_sys(e, "cannot read '%s'", path);
	m->dev = makedev(sx.stx_dev_major, sx.stx_dev_minor);
	m->mount = sx.stx_mask & STATX_MNT_ID ? sx.stx_mnt_id : 0;
	m->name = name;
	m->path = path;
	m->root = root;
	m->ctl = ctl;
	return 0;
}

bool room_is_apart(const struct room *m, int dirfd, const char *name)
{
	int flags = (name ? 0 : AT_EMPTY_PATH) | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
	struct statx sx;

	if (statx(dirfd, name ? name : "", flags, STATX_TYPE | STATX_MNT_ID, &sx))
		return false;
	bool tells = m->mount && sx.stx_mask & STATX_MNT_ID;
	if (tells && sx.stx_mnt_id != m->mount)
		return true;
	/* Files of overlayfs have the numbers of its layers. */
	return makedev(sx.stx_dev_major, sx.stx_dev_minor) != m->dev && (!tells || S_ISDIR(sx.stx_mode));
}

static int sub_dir(const struct room *m, const char *name, int *fd, struct err *e)
{
	if (mkdirat(m->ctl, name, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '%s/" ROOM_CTL "/%s'", m->path, name);
	*fd = openat(m->ctl, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *fd < 0 ? err_sys(e, "cannot open '%s/" ROOM_CTL "/%s'", m->path, name) : 0;
}

int room_open(struct room *m, struct err *e)
{
	if (room_is_apart(m, m->ctl, NULL))
		return err_set(e, ERR_REFUSED, "'%s/" ROOM_CTL "' is on another filesystem or mount than '%s': nothing can be renamed from there",
			m->path, m->path);
	if (sub_dir(m, "stage", &m->stage, e) || sub_dir(m, "slots", &m->slots, e))
		return -1;
	m->is_bare = meta_is_bare(m->stage);
	m->takes_all = fit_takes_all(m->stage);
	return 0;
}

/* A directory that held many names keeps its blocks on ext4, and each look into it reads them all. */
static bool is_as_new(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_size <= EMPTY_MAX && room_is_empty_dir(fd) == 1;
}

static int empty_sub(const struct room *m, const char *name, int *fd, struct err *e)
{
	if (is_as_new(*fd))
		return 0;
	close_fd(fd);
	return path_remove(m->ctl, name, e) || sub_dir(m, name, fd, e) ? -1 : 0;
}

int room_empty(struct room *m, struct err *e)
{
	if (empty_sub(m, "stage", &m->stage, e) || empty_sub(m, "slots", &m->slots, e))
		return -1;
	m->is_bare = meta_is_bare(m->stage); /* it may have been made anew */
	return 0;
}

void room_close(struct room *m)
{
	close_fd(&m->stage);
	close_fd(&m->slots);
	m->root = m->ctl = -1;
}
