#include "where.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
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
	*row = (struct where_row){.name = xalloc(name.len + 1), .fd = -1, .root = -1, .ctl = -1, .room = ROOM_CLOSED};
	memcpy(row->name, name.p, name.len);
	return row;
}

static void free_row(struct where_row *row)
{
	room_close(&row->room);
	close_fd(&row->fd);
	close_fd(&row->root);
	close_fd(&row->ctl);
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

struct where_row *where_tree(const struct where *w, struct span path, struct span *below)
{
	for (size_t i = 0; i < w->n; i++) {
		size_t n = strlen(w->v[i].name);
		if (!w->v[i].is_tree || path.len < n || memcmp(path.p, w->v[i].name, n) || (path.len > n && path.p[n] != '/'))
			continue;
		n += path.len > n;
		*below = span_of(path.p + n, path.len - n);
		return &w->v[i];
	}
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
	AUTO_CLOSE int fd = row->is_tree ? -1 : open(row->path, O_PATH | O_CLOEXEC);

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
		struct span name = rd_str(&r, REC_NAME_MAX), to = rd_str(&r, REC_TARGET_MAX),
			id = rd_str(&r, sizeof w->v->id);
		if (r.bad || (id.len && id.len != sizeof w->v->id))
			return err_set(e, ERR_SYSTEM, "'%s' is damaged: remove it, and name the places again with --where", buf_cstr(&path));
		struct where_row *row = add_row(w, name);
		row->is_tree = id.len;
		w->has_tree |= row->is_tree;
		if (id.len)
			memcpy(row->id, id.p, id.len);
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
	while (b.len > 1 && b.p[b.len - 1] == '/')
		b.len--;
	return xstrdup(buf_cstr(&b));
}

/* What stands at the path, made if it may be: 1 a tree, 0 a volume. */
static int look_at(const char *path, bool make, struct err *e)
{
	size_t len = strlen(path);
	bool wants_dir = path[len - 1] == '/';
	char text[SHOWN];
	struct stat st;

	esc_cut(text, sizeof text, span_cstr(path));
	if (make && wants_dir && mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '%s'", text);
	AUTO_CLOSE int fd = make && !wants_dir ? open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	if (make && !wants_dir && fd < 0 && errno != EEXIST)
		return err_sys(e, "cannot make '%s'", text);
	if (stat(path, &st))
		return make || errno != ENOENT ? err_sys(e, "cannot use '%s'", text) : wants_dir;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_USAGE, "--where: '%s' is neither a directory for a tree, nor a file or a block device for a volume", text);
	return S_ISDIR(st.st_mode);
}

int where_add(struct where *w, const char *arg, bool make, struct err *e)
{
	const char *eq = strchr(arg, '=');
	char text[SHOWN];

	if (!eq || !name_is_sane(span_of(arg, (size_t)(eq - arg))) || !eq[1])
		return err_set(e, ERR_USAGE, "--where wants NAME=PATH, not '%s'", esc_cut(text, sizeof text, span_cstr(arg)));
	int is_tree = look_at(eq + 1, make, e);
	if (is_tree < 0)
		return -1;
	AUTO_FREE char *path = absolute(eq + 1);
	struct where_row *row = where_find(w, span_of(arg, (size_t)(eq - arg)));
	bool is_same = row && row->is_tree == is_tree && !strcmp(row->path, path);
	if (row && !is_same)
		free_row(row);
	else if (!row)
		row = add_row(w, span_of(arg, (size_t)(eq - arg)));
	row->is_named = true;
	if (is_same)
		return 0;
	row->path = xstrdup(path);
	row->is_new = true;
	/* A tree that moves keeps its id. */
	if (is_tree && !row->is_tree && getrandom(row->id, sizeof row->id, 0) != (ssize_t)sizeof row->id)
		return err_sys(e, "cannot get random bytes");
	row->is_tree = is_tree;
	w->has_tree |= is_tree;
	return look(row, e);
}

int where_save(struct where *w, int ctl, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	for (size_t i = 0; i < w->n; i++) {
		wr_str(&b, w->v[i].name, strlen(w->v[i].name));
		wr_str(&b, w->v[i].path, strlen(w->v[i].path));
		wr_str(&b, w->v[i].id, w->v[i].is_tree ? sizeof w->v[i].id : 0);
	}
	if (file_replace(ctl, "where", b.p, b.len, e))
		return -1;
	for (size_t i = 0; i < w->n; i++)
		w->v[i].is_new = false;
	return 0;
}

static int fail(const struct where_row *row, const char *what, struct err *e)
{
	char text[SHOWN];
	int sys = errno;

	esc_cut(text, sizeof text, span_cstr(row->path));
	errno = sys;
	return err_sys(e, "cannot %s '%s', where the %s '%s' stands", what, text, row->is_tree ? "tree" : "volume", row->name);
}

/* ---- trees ---- */

#define MEMBER "member"
#define ANOTHERS "it belongs to another member or another replica"

/* The id that the directory has: 1, 0: none, -1. */
static int read_id(const struct where_row *row, uint8_t id[16], struct err *e)
{
	char text[2 * 16 + 1] = "";
	AUTO_CLOSE int fd = row->ctl < 0 ? -1 : openat(row->ctl, MEMBER, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return row->ctl < 0 || errno == ENOENT ? 0 : fail(row, "read", e);
	if (file_read_at(fd, text, sizeof text - 1, 0))
		return fail(row, "read", e);
	return unhex(id, 16, text) ? 1 : err_set(e, ERR_SYSTEM, "'%s/" ROOM_CTL "/" MEMBER "' is damaged", row->path);
}

/* What the directory says whose tree it is: 1 this one's, 0 nobody's, 2 another one's; -1. */
static int whose(const struct where_row *row, struct err *e)
{
	uint8_t id[16];
	int got = read_id(row, id, e);

	return got == 1 && memcmp(id, row->id, sizeof id) ? 2 : got;
}

static int open_dirs(struct where_row *row, struct err *e)
{
	close_fd(&row->root);
	close_fd(&row->ctl);
	row->root = open(row->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (row->root < 0)
		return fail(row, "open", e);
	row->ctl = openat(row->root, ROOM_CTL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return row->ctl < 0 && errno != ENOENT ? fail(row, "open", e) : 0;
}

static int refuse(const struct where_row *row, const char *why, struct err *e)
{
	char text[SHOWN];

	return err_set(e, ERR_REFUSED, "'%s' is not where the tree '%s' of the replica stands: %s",
		esc_cut(text, sizeof text, span_cstr(row->path)), row->name, why);
}

static int use(struct where_row *row, bool write, struct err *e)
{
	if (room_at(&row->room, row->name, row->path, row->root, row->ctl, e) || (write && room_open(&row->room, e)))
		return -1;
	row->is_open = true;
	return 0;
}

int where_open(struct where *w, bool write, bool may_wait, struct err *e)
{
	for (size_t i = 0; i < w->n; i++) {
		struct where_row *row = &w->v[i];
		if (!row->is_tree || row->is_open)
			continue;
		if (open_dirs(row, e))
			return -1;
		int got = whose(row, e);
		if (got < 0 || (got == 1 && use(row, write, e)))
			return -1;
		if (got != 1 && !(may_wait && row->is_named))
			return refuse(row, got ? ANOTHERS : "is it mounted?", e);
	}
	return 0;
}

static int hold_replica(const struct where_row *row, struct err *e)
{
	bool is_one = row->ctl >= 0 && faccessat(row->ctl, "catalog", F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	return is_one ? refuse(row, "it is a replica itself", e) : 0;
}

/* It may have been begun before. */
int where_is_free(const struct where_row *row, struct err *e)
{
	int is_empty = room_is_empty_dir(row->root), got = whose(row, e);

	if (is_empty < 0)
		return fail(row, "read", e);
	if (got < 0 || hold_replica(row, e))
		return -1;
	if (got == 2)
		return refuse(row, ANOTHERS, e);
	return is_empty ? 0 : refuse(row, "it has content, and a tree begins in an empty directory", e);
}

int where_adopt(struct where_row *row, struct err *e)
{
	return hold_replica(row, e) || read_id(row, row->id, e) < 0 ? -1 : 0;
}

int where_make(struct where_row *row, struct err *e)
{
	AUTO_BUF struct buf text = {0};
	char id[2 * sizeof row->id + 1];

	if (mkdirat(row->root, ROOM_CTL, 0700) && errno != EEXIST)
		return fail(row, "make '" ROOM_CTL "' in", e);
	if (open_dirs(row, e))
		return -1;
	hex(id, row->id, sizeof row->id);
	buf_fmt(&text, "%s\n", id);
	return file_replace(row->ctl, MEMBER, text.p, text.len, e) || use(row, true, e) ? -1 : 0;
}

/* ---- volumes ---- */

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

	if (!row->has) {
		bool is_device = false;
		AUTO_CLOSE int fd = where_read(row, e);
		off_t end = fd < 0 || !is_volume(fd, &is_device) ? -1 : lseek(fd, 0, SEEK_END);
		if (end < 0)
			return fd < 0 ? -1 : fail(row, "size", e);
		row->is_device = is_device;
		row->has = is_device ? (uint64_t)end : UINT64_MAX;
	}
	if (row->has < need)
		return err_set(e, ERR_REFUSED, "'%s' is too small: it has %llu bytes, the volume '%s' has more: at least %llu",
			esc_cut(text, sizeof text, span_cstr(row->path)), (unsigned long long)row->has, row->name,
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
		/* Reports write-back errors since Linux 5.8 (syncfs(2)). */
		if (row->is_open && syncfs(row->ctl))
			return fail(row, "make durable", e);
	}
	return 0;
}
