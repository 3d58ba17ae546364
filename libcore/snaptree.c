#include "snaptree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "attr.h"
#include "control.h"
#include "entry.h"
#include "meta.h"
#include "numbers.h"
#include "path.h"
#include "walk.h"

#define SHOWN 300
#define TRIES 3 /* of what changes while it is looked at */

/* A tree in the making. */
struct copy {
	const struct provider_root *r;
	struct path_cache *to;  /* its directories */
	struct numbers links;   /* inode of what has several names: 1 + where the first one is in names */
	struct buf names;       /* paths, each with a zero byte */
	struct warn warn;
	struct err *e;          /* what a warning was about */
	bool was_replaced;      /* a directory, by another one, before it was read */
};

/* ---- can there be one ---- */

static int can(const struct provider_root *r, bool *is_possible, char reason[512])
{
	char text[SHOWN];
	AUTO_CLOSE int from = openat(r->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	AUTO_CLOSE int to = from < 0 ? -1 : openat(r->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	*is_possible = to >= 0 && write(from, "x", 1) == 1 && !ioctl(to, FICLONE, from);
	if (!*is_possible)
		snprintf(reason, 512, "no clones can be made in '%s': %s", esc_cut(text, sizeof text, r->path), strerror(errno));
	return *is_possible;
}

/* ---- one object ---- */

/* What is lost on the way would look like a change. What went away meanwhile is no loss. */
static void on_warning(void *ctx, const char *kind, const char *text)
{
	struct copy *c = ctx;

	if (strcmp(kind, "vanished"))
		err_set(c->e, ERR_SYSTEM, "cannot take an image of clones: %s", text);
}

static int failed(const struct copy *c, const char *what, struct span path)
{
	char root[SHOWN], text[SHOWN];

	return err_sys(c->e, "cannot %s '%s/%s'", what, esc_cut(root, sizeof root, c->r->path), esc_cut(text, sizeof text, path));
}

static int keep_meta(struct copy *c, int dir, const char *name, int fd, struct span path, const struct attr *a)
{
	AUTO_BUF struct buf label = {0};

	buf_add(&label, path.p, path.len);
	const struct meta_policy p = {.numeric = true, .label = path.len ? buf_cstr(&label) : ".", .warn = &c->warn};
	return meta_restore(dir, name, fd, a->type, &a->meta, &p, c->e) || c->e->kind ? -1 : 0;
}

/* The content of the file in fd, and what it says of itself, of the same instant; somebody who never stops writing to it may have the
 * time of an earlier one. */
static int clone_content(int fd, int to, struct attr *a, struct copy *c)
{
	for (unsigned i = 0; i < TRIES; i++) {
		struct attr after = {0};
		if (attr_stat(a, fd, NULL, c->e) || attr_rest(a, fd, NULL, &c->warn, c->e))
			return -1;
		/* Some flags can only be set while there is nothing in it. */
		if (ftruncate(to, 0))
			return -1;
		meta_early(to, &a->meta);
		if (ioctl(to, FICLONE, fd) || attr_stat(&after, fd, NULL, c->e))
			return -1;
		bool is_same = after.hint.ctime_s == a->hint.ctime_s && after.hint.ctime_ns == a->hint.ctime_ns;
		attr_free(&after);
		if (is_same)
			break;
	}
	return 0;
}

/* 1: done; 0: something else has the name by now; -1. */
static int copy_file(struct copy *c, int from, int dir, const char *name, struct span path, struct attr *a)
{
	AUTO_CLOSE int fd = path_open_at(from, name, O_RDONLY, 0);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return errno == ENOENT || errno == ELOOP || errno == ENXIO ? 0 : failed(c, "open", path);
	if (!S_ISREG(st.st_mode))
		return 0;
	AUTO_CLOSE int to = openat(dir, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (to < 0)
		return failed(c, "make a clone of", path);
	if (clone_content(fd, to, a, c))
		return c->e->kind ? -1 : failed(c, "make a clone of", path);
	return keep_meta(c, dir, name, to, path, a) ? -1 : 1;
}

/* The same for what has no content. */
static int copy_other(struct copy *c, int from, int dir, const char *name, struct span path, struct attr *a)
{
	static const mode_t kinds[] = {[OBJ_FIFO] = S_IFIFO, [OBJ_CHAR] = S_IFCHR, [OBJ_BLOCK] = S_IFBLK};
	AUTO_BUF struct buf target = {0};
	struct err why = {0};

	if (a->type == OBJ_SOCKET)
		return 1;
	if (attr_rest(a, from, name, &c->warn, &why))
		return why.sys == ENOENT || why.sys == EINVAL ? 0 : err_set(c->e, why.kind, "%s", why.text);
	buf_add(&target, a->meta.target.p, a->meta.target.len);
	if (a->type == OBJ_LINK ? symlinkat(buf_cstr(&target), dir, name) :
			mknodat(dir, name, kinds[a->type] | 0600, makedev(a->meta.major, a->meta.minor)))
		return failed(c, "make a copy of", path);
	return keep_meta(c, dir, name, -1, path, a) ? -1 : 1;
}

/* A further name of what the tree has: 1; 0: it has not. */
static int copy_link(struct copy *c, int dir, const char *name, struct span path, const struct attr *a)
{
	uint64_t at = a->hint.nlink > 1 ? numbers_get(&c->links, a->hint.ino) : 0;
	struct span first, above, last;
	struct err gone = {0};
	char old[256];

	if (!at)
		return 0;
	first = span_cstr((const char *)c->names.p + at - 1);
	AUTO_CLOSE int to = fcntl(dir, F_DUPFD_CLOEXEC, 3); /* looking for the first name may close it */
	path_split(first, &above, &last);
	span_name(old, last);
	int from = to < 0 ? -1 : path_cached(c->to, above, &gone);
	if (from >= 0 && !entry_link(from, old, to, name))
		return 1;
	/* The directory that it was in has gone, and with it its copy. */
	if (to >= 0 && (from < 0 ? gone.sys : errno) == ENOENT)
		return 0;
	return from < 0 && gone.kind ? err_set(c->e, gone.kind, "%s", gone.text) : failed(c, "make a link of", path);
}

static void remember_link(struct copy *c, struct span path, const struct attr *a)
{
	if (a->hint.nlink < 2)
		return;
	*numbers_at(&c->links, a->hint.ino) = c->names.len + 1;
	buf_add(&c->names, path.p, path.len);
	wr_u8(&c->names, 0);
}

/* What changes its type all the time is left out, like what has gone. */
static int copy_entry(struct copy *c, const struct walk_entry *en)
{
	struct span above, last;
	char name[256];
	int got = 0;

	path_split(en->path, &above, &last);
	span_name(name, last);
	int dir = path_cached(c->to, above, c->e);
	for (unsigned i = 0; i < TRIES && dir >= 0 && !got; i++) {
		struct attr a = {0};
		struct err gone = {0};
		if (attr_stat(&a, en->dirfd, name, &gone))
			return gone.sys == ENOENT ? 0 : err_set(c->e, gone.kind, "%s", gone.text);
		got = a.type == OBJ_DIR ? 0 : copy_link(c, dir, name, en->path, &a);
		if (!got && a.type == OBJ_FILE)
			got = copy_file(c, en->dirfd, dir, name, en->path, &a);
		else if (!got && a.type != OBJ_DIR)
			got = copy_other(c, en->dirfd, dir, name, en->path, &a);
		if (got == 1)
			remember_link(c, en->path, &a);
		attr_free(&a);
	}
	return dir < 0 || got < 0 ? -1 : 0;
}

/* ---- directories ---- */

static bool is_pruned(const struct copy *c, const struct walk_entry *en)
{
	return c->r->prune_ino && en->attr->hint.ino == c->r->prune_ino && en->attr->hint.dev == c->r->prune_dev;
}

static int enter_dir(struct copy *c, const struct walk_entry *en)
{
	struct span above, last;
	char name[256];

	if (!en->depth)
		return 0;
	path_split(en->path, &above, &last);
	span_name(name, last);
	int dir = path_cached(c->to, above, c->e);
	if (dir < 0)
		return -1;
	return mkdirat(dir, name, 0700) ? failed(c, "make a copy of", en->path) : 0;
}

/* One that was not read has gone, or another one stands in its place, of which an empty copy would say that all in it is gone. */
static int drop_dir(struct copy *c, const struct walk_entry *en)
{
	struct span above, last;
	struct err gone = {0};
	struct stat st;
	char name[256];

	path_split(en->path, &above, &last);
	span_name(name, last);
	AUTO_CLOSE int up = path_dir(c->r->fd, above, &gone);
	c->was_replaced |= up >= 0 && !fstatat(up, name, &st, AT_SYMLINK_NOFOLLOW);
	path_cache_drop(c->to, en->path);
	int dir = path_cached(c->to, above, c->e);
	return dir < 0 ? -1 : path_remove(dir, name, c->e);
}

/* What is in it stands, and moves its times no more. */
static int leave_dir(struct copy *c, const struct walk_entry *en)
{
	if (en->unreadable && en->depth && !en->is_mount)
		return drop_dir(c, en);
	int to = path_cached(c->to, en->path, c->e);

	if (to < 0 || (en->dirfd >= 0 && attr_rest(en->attr, en->dirfd, NULL, &c->warn, c->e)))
		return -1;
	return keep_meta(c, -1, "", to, en->path, en->attr);
}

static int on_event(struct copy *c, struct walk *w, const struct walk_entry *en)
{
	if (en->event == WALK_ENTRY)
		return copy_entry(c, en);
	if (is_pruned(c, en)) {
		if (en->event == WALK_DIR)
			walk_skip(w);
		return 0;
	}
	return en->event == WALK_DIR ? enter_dir(c, en) : leave_dir(c, en);
}

static int copy_tree(struct copy *c)
{
	const struct walk_root root = {"", c->r->fd};
	const struct walk_options o = {.one_file_system = true, .threads = 1, .warn = &c->warn};
	struct walk_entry en;
	struct walk *w = NULL;
	int rc = walk_open(&w, &root, 1, &o, c->e);

	while (!rc && !(rc = walk_next(w, &en, c->e)) && !c->e->kind && en.event != WALK_END)
		rc = on_event(c, w, &en);
	walk_close(&w);
	return rc || c->e->kind ? -1 : 0;
}

/* ---- a volume ---- */

/* In a directory of the snapshot's name, under its own, as others that lie there may be. */
static int take_file(const struct provider_root *r, int dir, const char *name, struct err *e)
{
	struct copy c = {.r = r, .warn = {on_warning, &c}, .e = e};
	struct attr a = {0};
	AUTO_CLOSE int at = control_below(dir, name, true);
	int got = at < 0 ? failed(&c, "make a clone of", span_cstr(r->file)) : copy_file(&c, r->fd, at, r->file, span_cstr(r->file), &a);

	attr_free(&a);
	if (!got)
		got = err_set(e, ERR_SYSTEM, "something else stands in the place of a volume: take a new image");
	if (got > 0 && syncfs(at))
		got = err_sys(e, "cannot sync the filesystem of a clone");
	return got;
}

/* ---- the provider ---- */

/* 1: it is there; 0: not all of it; -1. */
static int try_it(const struct provider_root *r, int dir, const char *name, struct err *e)
{
	struct copy c = {.r = r, .warn = {on_warning, &c}, .e = e};
	char text[SHOWN];

	esc_cut(text, sizeof text, r->path);
	AUTO_CLOSE int tree = mkdirat(dir, name, 0700) ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (tree < 0)
		return err_sys(e, "cannot make '%s/.repl/" PROVIDER_DIR "/%s'", text, name);
	c.to = path_cache_new(tree);
	int rc = copy_tree(&c);
	path_cache_free(&c.to);
	numbers_free(&c.links);
	buf_free(&c.names);
	if (!rc && !c.was_replaced && syncfs(tree))
		rc = err_sys(e, "cannot sync the filesystem of '%s'", text);
	return rc ? -1 : !c.was_replaced;
}

static int take(const struct provider_root *r, const char *name, char reason[512], struct err *e)
{
	char text[SHOWN];
	int got = 0;

	(void)reason;
	esc_cut(text, sizeof text, r->path);
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, true);
	if (dir < 0)
		return err_sys(e, "cannot open '%s/.repl/" PROVIDER_DIR "'", text);
	if (r->file)
		return take_file(r, dir, name, e);
	for (unsigned i = 0; i < TRIES && !got; i++)
		got = i && path_remove(dir, name, e) ? -1 : try_it(r, dir, name, e);
	return got ? got : err_set(e, ERR_SYSTEM, "cannot take an image of clones: directories in '%s' are replaced all the time", text);
}

static int open_it(const struct provider_root *r, const char *name, struct err *e)
{
	char text[SHOWN];
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);
	AUTO_CLOSE int at = dir < 0 || !r->file ? -1 : control_below(dir, name, false);
	int tree = r->file ? path_open_at(at, r->file, O_RDONLY, 0) :
		dir < 0 ? -1 : openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (tree < 0 && errno != ENOENT)
		return err_sys(e, "cannot open '%s/.repl/" PROVIDER_DIR "/%s'", esc_cut(text, sizeof text, r->path), name);
	return tree < 0 ? provider_refuse(r, name, "is gone", e) : tree;
}

static int drop(const struct provider_root *r, const char *name, struct err *e)
{
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);

	return dir < 0 ? 0 : path_remove(dir, name, e);
}

const struct provider snaptree_provider = {.name = "reflink", .takes_volumes = true, .can = can, .take = take, .open = open_it, .drop = drop};
