#include "snapbtrfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "subvol.h"

#define SHOWN 300

/* Inodes of directories in which the toolkit's own subvolumes are: snapshots of images here, and of a replica's history. */
struct own {
	uint64_t dirs[3];
	size_t n;
};

static void own_dirs(int root, struct own *o)
{
	static const char *const names[] = {".repl", (".repl/" PROVIDER_DIR), ".repl/history"};
	struct stat st;

	o->n = 0;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (!fstatat(root, names[i], &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode))
			o->dirs[o->n++] = st.st_ino;
}

static bool is_foreign(void *ctx, uint64_t dir)
{
	const struct own *o = ctx;

	for (size_t i = 0; i < o->n; i++)
		if (o->dirs[i] == dir)
			return false;
	return true;
}

static int can(const struct provider_root *r, bool *is_possible, char reason[512])
{
	struct own own;
	struct subvol_info info;
	AUTO_FREE struct subvol_inner *inner = xalloc(sizeof *inner);
	char text[SHOWN], below[SHOWN];

	*is_possible = subvol_is(r->fd) && !subvol_ask(r->fd, &info);
	esc_cut(text, sizeof text, r->path);
	if (!*is_possible) {
		snprintf(reason, 512, "'%s' is not the root of a btrfs subvolume that snapshots can be taken of%s", text,
			geteuid() ? ", or only root may" : "");
		return 0;
	}
	own_dirs(r->fd, &own);
	int got = subvol_inside(r->fd, is_foreign, &own, inner);
	if (got)
		snprintf(reason, 512, "'%s' holds the subvolume '%s', which a snapshot leaves out", text,
			got < 0 ? "?" : esc_cut(below, sizeof below, span_cstr(inner->path)));
	return !got;
}

/* What will not go away by itself, and is no failure of the disk. */
static bool is_forbidden(int sys) { return sys == EROFS || sys == EPERM || sys == EACCES || sys == ETXTBSY; }

static int take(const struct provider_root *r, const char *name, char reason[512], struct err *e)
{
	char text[SHOWN];

	esc_cut(text, sizeof text, r->path);
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, true);
	if (dir >= 0 && !subvol_snapshot(r->fd, dir, name, true))
		return 1;
	if (!is_forbidden(errno))
		return err_sys(e, "cannot take a snapshot of '%s'", text);
	snprintf(reason, 512, "no snapshot can be taken of '%s': %s", text, strerror(errno));
	return 0;
}

static int open_it(const struct provider_root *r, const char *name, struct err *e)
{
	char text[SHOWN];
	struct subvol_info s;

	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);
	AUTO_CLOSE int snapshot = dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (snapshot < 0 && errno != ENOENT)
		return err_sys(e, "cannot open '%s/.repl/" PROVIDER_DIR "/%s'", esc_cut(text, sizeof text, r->path), name);
	/* What is inside another snapshot stands there as an empty directory. */
	if (snapshot < 0 || subvol_ask(snapshot, &s))
		return provider_refuse(r, name, "is gone", e);
	if (!subvol_is_intact(&s))
		return provider_refuse(r, name, "was written to", e);
	int mine = snapshot;
	snapshot = -1;
	return mine;
}

static int drop(const struct provider_root *r, const char *name, struct err *e)
{
	char text[SHOWN];
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);

	/* A copy of this directory that another snapshot holds has an empty directory in its place. */
	if (dir >= 0 && subvol_remove(dir, name) && unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s/.repl/" PROVIDER_DIR "/%s'", esc_cut(text, sizeof text, r->path), name);
	return 0;
}

const struct provider snapbtrfs_provider = {.name = "btrfs", .is_of_one_instant = true, .can = can, .take = take, .open = open_it, .drop = drop};
