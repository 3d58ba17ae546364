#include "where.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "record.h"
#include "volume.h"

#define SHOWN 300
#define ROWS_MAX (1u << 20) /* bytes */

static struct where_row *add_row(struct where *w, struct span name)
{
	w->v = xrealloc(w->v, (w->n + 1) * sizeof *w->v);
	struct where_row *row = &w->v[w->n++];
	*row = (struct where_row){.name = xalloc(name.len + 1), .fd = -1};
	memcpy(row->name, name.p, name.len);
	return row;
}

static void free_row(struct where_row *row)
{
	close_fd(&row->fd);
	free(row->path);
	free(row->mounted);
	row->path = row->mounted = NULL;
}

void where_free(struct where *w)
{
	for (size_t i = 0; i < w->n; i++) {
		free_row(&w->v[i]);
		free(w->v[i].name);
	}
	free(w->v);
	*w = (struct where){0};
}

struct where_row *where_find(const struct where *w, struct span path)
{
	for (size_t i = 0; i < w->n; i++)
		if (span_eq(path, span_cstr(w->v[i].name)))
			return &w->v[i];
	return NULL;
}

static int note_mount(void *ctx, const char *point, struct err *e)
{
	struct where_row *row = ctx;

	(void)e;
	if (!row->mounted)
		row->mounted = xstrdup(point);
	return 0;
}

/* Before the process gives up the right to look around. */
static int look(struct where_row *row, struct err *e)
{
	AUTO_CLOSE int fd = open(row->path, O_PATH | O_CLOEXEC);

	/* What is not there is told when it is needed. */
	return fd < 0 ? 0 : volume_mounts(fd, false, note_mount, row, e);
}

int where_load(struct where *w, const char *replica, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	struct stat st;

	if (w->is_loaded)
		return 0;
	w->is_loaded = true;
	buf_fmt(&path, "%s/.repl/where", replica);
	AUTO_CLOSE int fd = open(buf_cstr(&path), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (fd < 0 || fstat(fd, &st) || st.st_size > ROWS_MAX)
		return err_sys(e, "cannot read '%s'", buf_cstr(&path));
	AUTO_FREE uint8_t *p = xalloc((size_t)st.st_size + 1);
	if (file_read_at(fd, p, (size_t)st.st_size, 0))
		return err_sys(e, "cannot read '%s'", buf_cstr(&path));
	for (struct rd r = rd_of(p, (size_t)st.st_size); r.len && !r.bad;) {
		struct span name = rd_str(&r, REC_NAME_MAX), to = rd_str(&r, REC_TARGET_MAX);
		if (r.bad)
			return err_set(e, ERR_SYSTEM, "'%s' is damaged: remove it, and name the places again with --where", buf_cstr(&path));
		struct where_row *row = add_row(w, name);
		row->path = xalloc(to.len + 1);
		memcpy(row->path, to.p, to.len);
		if (look(row, e))
			return -1;
	}
	return 0;
}

/* A link to a device keeps its name, as the device's own may be another one tomorrow. */
static char *absolute(const char *path)
{
	AUTO_BUF struct buf b = {0};
	AUTO_FREE char *here = path[0] == '/' ? NULL : getcwd(NULL, 0);

	buf_fmt(&b, "%s%s%s", here ? here : "", here ? "/" : "", path);
	return xstrdup(buf_cstr(&b));
}

int where_add(struct where *w, const char *arg, bool make, struct err *e)
{
	const char *eq = strchr(arg, '=');
	char text[SHOWN];
	struct stat st;

	if (!eq || !name_is_sane(span_of(arg, (size_t)(eq - arg))) || !eq[1])
		return err_set(e, ERR_USAGE, "--where wants NAME=PATH, not '%s'", esc_cut(text, sizeof text, span_cstr(arg)));
	AUTO_CLOSE int fd = make ? open(eq + 1, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	if (make && fd < 0 && errno != EEXIST)
		return err_sys(e, "cannot make '%s'", esc_cut(text, sizeof text, span_cstr(eq + 1)));
	if (stat(eq + 1, &st) ? make || errno != ENOENT : !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_USAGE, "--where: '%s' is neither a file nor a block device: a volume can stand there, a tree only in the "
			"replica", esc_cut(text, sizeof text, span_cstr(eq + 1)));
	AUTO_FREE char *path = absolute(eq + 1);
	struct where_row *row = where_find(w, span_of(arg, (size_t)(eq - arg)));
	if (row && !strcmp(row->path, path))
		return 0;
	if (row)
		free_row(row);
	else
		row = add_row(w, span_of(arg, (size_t)(eq - arg)));
	row->path = xstrdup(path);
	row->is_new = true;
	return look(row, e);
}

int where_save(struct where *w, int ctl, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	for (size_t i = 0; i < w->n; i++) {
		wr_str(&b, w->v[i].name, strlen(w->v[i].name));
		wr_str(&b, w->v[i].path, strlen(w->v[i].path));
	}
	if (file_replace(ctl, "where", b.p, b.len, e))
		return -1;
	for (size_t i = 0; i < w->n; i++)
		w->v[i].is_new = false;
	return 0;
}

/* ---- opened ---- */

static int fail(const struct where_row *row, const char *what, struct err *e)
{
	char text[SHOWN];
	int sys = errno;

	esc_cut(text, sizeof text, span_cstr(row->path));
	errno = sys;
	return err_sys(e, "cannot %s '%s', where the volume '%s' stands", what, text, row->name);
}

static bool is_volume(int fd, bool *is_device)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	*is_device = S_ISBLK(st.st_mode);
	return *is_device || S_ISREG(st.st_mode);
}

int where_read(const struct where_row *row, struct err *e)
{
	AUTO_CLOSE int fd = open(row->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool is_device;

	if (fd < 0 || !is_volume(fd, &is_device))
		return fail(row, "read", e);
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Of a block device O_EXCL means: unless it is mounted, swapped to, part of another one, or somebody has it so (open(2)). */
int where_write(struct where_row *row, struct err *e)
{
	char path[SHOWN], at[SHOWN];
	bool is_device = false;

	if (row->fd >= 0) {
		row->is_dirty = true;
		return row->fd;
	}
	esc_cut(path, sizeof path, span_cstr(row->path));
	if (row->mounted)
		return err_set(e, ERR_REFUSED, "'%s' is not written to, what is on it is mounted at '%s': unmount that", path,
			esc_cut(at, sizeof at, span_cstr(row->mounted)));
	row->fd = open(row->path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (row->fd < 0)
		return fail(row, "write", e);
	if (!is_volume(row->fd, &is_device)) {
		close_fd(&row->fd);
		return err_set(e, ERR_REFUSED, "'%s', where the volume '%s' stands, is no file and no block device any more", path, row->name);
	}
	if (is_device) {
		close_fd(&row->fd);
		row->fd = open(row->path, O_RDWR | O_EXCL | O_CLOEXEC);
		if (row->fd < 0 && errno == EBUSY)
			return err_set(e, ERR_BUSY, "'%s', where the volume '%s' stands, is in use: mounted, part of another device, or being "
				"written by somebody else", path, row->name);
		if (row->fd < 0)
			return fail(row, "write", e);
	}
	row->is_dirty = true;
	return row->fd;
}

int where_fits(struct where_row *row, uint64_t need, struct err *e)
{
	char text[SHOWN];

	if (!row->room) {
		bool is_device = false;
		AUTO_CLOSE int fd = where_read(row, e);
		off_t end = fd < 0 || !is_volume(fd, &is_device) ? -1 : lseek(fd, 0, SEEK_END);
		if (end < 0)
			return fd < 0 ? -1 : fail(row, "size", e);
		row->is_device = is_device;
		row->room = is_device ? (uint64_t)end : UINT64_MAX;
	}
	if (row->room < need)
		return err_set(e, ERR_REFUSED, "'%s' is too small: it has %llu bytes, the volume '%s' has more: at least %llu",
			esc_cut(text, sizeof text, span_cstr(row->path)), (unsigned long long)row->room, row->name,
			(unsigned long long)need);
	return 0;
}

int where_sync(struct where *w, struct err *e)
{
	for (size_t i = 0; i < w->n; i++) {
		struct where_row *row = &w->v[i];
		if (row->is_dirty && fsync(row->fd))
			return fail(row, "make durable", e);
		row->is_dirty = false;
	}
	return 0;
}
