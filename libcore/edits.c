#include "edits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attr.h"
#include "entry.h"
#include "file.h"
#include "fit.h"
#include "inode.h"
#include "path.h"

#define NAMED 4u /* edits that the message names */
#define MOUNTED_DEPTH 100u /* so deep in what is to go nobody has mounted anything */

struct finder {
	struct plan *p;
	enum edits_mode mode;
	struct buf whole;  /* bits: objects that the delta has whole, so that what stands there need not be right */
	struct buf changed; /* bits: these, others that change in place, and those that get names */
	struct buf wanted; /* bits: objects that are replaced whatever stands there */
	struct buf *doubtful; /* see edits_find */
	struct buf strays; /* rows of u64 directory, str name: what stands there goes */
	uint64_t n, n_needed;
	struct buf named, needed; /* for the message */
	struct buf rows;
	int fd;            /* .repl/edits, once there is one */
	struct fit fit;    /* of the room of the last new name */
};

/* ---- one edit ---- */

static int flush_rows(struct finder *x, struct err *e)
{
	struct replica *r = x->p->r;

	if (x->fd < 0)
		x->fd = openat(r->ctl, "edits", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (x->fd < 0 || file_write(x->fd, x->rows.p, x->rows.len))
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/edits'", r->path);
	buf_reset(&x->rows);
	return 0;
}

enum cause {
	NEEDED,   /* the delta needs what was there, or has only changes to it */
	GOES,     /* it is replaced whole, or removed */
	OBSTRUCTS /* it stands where the delta makes something */
};

static void name_it(struct buf *b, uint64_t n, struct span path)
{
	char text[160];

	if (n <= NAMED)
		buf_fmt(b, "%s'%s'", n > 1 ? ", " : "", esc_cut(text, sizeof text, path));
}

static int found(struct finder *x, struct span path, enum cause why, struct err *e)
{
	name_it(&x->named, ++x->n, path);
	if (why == NEEDED)
		name_it(&x->needed, ++x->n_needed, path);
	/* Overruled, what is replaced or removed needs no help. */
	if (x->mode == EDITS_REFUSE || why == NEEDED || (x->mode == EDITS_OVERRULE && why != OBSTRUCTS))
		return 0;
	wr_u8(&x->rows, (uint8_t)x->mode);
	wr_str(&x->rows, path.p, path.len);
	return x->rows.len > 65536 ? flush_rows(x, e) : 0;
}

static int refuse(struct finder *x, struct buf *names, uint64_t n, const char *what_to_do, struct err *e)
{
	if (n > NAMED)
		buf_fmt(names, " and %llu more", (unsigned long long)(n - NAMED));
	return err_set(e, ERR_REFUSED, "edited on the replica '%s': %s; %s", x->p->r->path, buf_cstr(names), what_to_do);
}

static int verdict(struct finder *x, struct err *e)
{
	if (x->n_needed)
		return refuse(x, &x->needed, x->n_needed, "the delta has only changes to that: mend the replica first, see repl(7)", e);
	if (x->n && x->mode == EDITS_REFUSE)
		return refuse(x, &x->named, x->n, "--edited=keep puts that aside, --edited=overrule does without it", e);
	return x->rows.len ? flush_rows(x, e) : 0;
}

/* ---- names that the delta takes or changes ---- */

#define MANY_NAMES 32u /* some filesystems stop at 65000 hard links, some at a few dozens in one directory */

/* Nodes, long targets and very many names may have been impossible to make here; elsewhere than on Linux's own filesystems, all but files
 * and directories. */
static bool may_be_missing(const struct room *m, const struct object *o)
{
	return (!m->takes_all && o->type != OBJ_DIR && o->type != OBJ_FILE) || o->type == OBJ_CHAR || o->type == OBJ_BLOCK ||
		o->meta.target.len > 1023 || o->nlink > MANY_NAMES;
}

static int same_target(const struct object *o, struct attr *a, int dirfd, const char *name, struct err *e)
{
	const struct warn nobody = {0};

	return attr_rest(a, dirfd, name, &nobody, e) ? -1 : span_eq(a->meta.target, o->meta.target);
}

/* The object under this name is the catalog's: 1, 0, -1. m: where it stands. may_be_gone: nothing is lost when there is none. *touched: its
 * stat is not what it was. */
static int is_as_known(const struct room *m, const struct object *o, bool may_be_gone, int dirfd, const char *name, bool *touched,
	struct err *e)
{
	struct attr a = {0};
	struct err why = {0};
	int rc = 0;

	bool is_there = !attr_stat(&a, dirfd, name, &why);
	*touched = is_there && replica_is_touched(o, &a);
	if (!is_there) {
		rc = why.sys == ENOENT ? may_be_gone || may_be_missing(m, o) : -1;
		if (rc < 0)
			*e = why;
	} else if (a.type == o->type && o->type == OBJ_LINK && *touched) {
		rc = same_target(o, &a, dirfd, name, e);
	} else if (a.type == o->type && o->type == OBJ_FILE && a.size == o->size && *touched) {
		AUTO_CLOSE int fd = path_open_at(dirfd, name, O_RDONLY, 0);
		rc = fd < 0 ? 0 : replica_is_intact(o, &a, fd, e);
	} else {
		rc = a.type == o->type && (o->type != OBJ_FILE || a.size == o->size);
	}
	attr_free(&a);
	return rc;
}

static int base_object(struct plan *p, uint64_t no, struct object *o, struct err *e)
{
	plan_see_base(p, true);
	int got = catalog_get(p->r->cat, no, o, e);
	plan_see_base(p, false);
	return got;
}

static int base_lookup(struct plan *p, uint64_t dir, struct span name, uint64_t *no, struct err *e)
{
	plan_see_base(p, true);
	int got = catalog_lookup(p->r->cat, dir, name, no, NULL, e);
	plan_see_base(p, false);
	return got;
}

/* Lives on in the target. 1, 0, -1. */
static int is_alive(struct plan *p, uint64_t no, struct err *e)
{
	struct object o = {0};
	int got = catalog_get(p->next, no, &o, e);

	object_free(&o);
	return got;
}

static bool is_stray(const struct finder *x, uint64_t parent, struct span name)
{
	for (struct rd r = rd_of(x->strays.p, x->strays.len); r.len;) {
		uint64_t dir = rd_u64(&r);
		if (span_eq(rd_str(&r, REC_NAME_MAX), name) && dir == parent)
			return true;
	}
	return false;
}

/* ---- what is mounted ----
 *
 * Nothing can be moved to or from it: once decided, the delta could never be finished. */

static int is_mounted(struct span path, struct err *e)
{
	char text[512];

	return err_set(e, ERR_REFUSED, "'%s' is on another filesystem than the replica: unmount it", esc_cut(text, sizeof text, path));
}

/* fd: of the directory that plan_base_dir gave; name: in it, or NULL for itself. */
static int find_mounted(const struct finder *x, int fd, const char *name, struct err *e)
{
	return room_is_apart(x->p->room, fd, name) ? is_mounted(name ? span_cstr(name) : span_of(x->p->path.p, x->p->path.len), e) : 0;
}

/* In what nobody knows and is to go: a name in dirfd, and below. */
static int find_mounted_below(const struct finder *x, int dirfd, const char *name, unsigned depth, struct err *e)
{
	if (find_mounted(x, dirfd, name, e))
		return -1;
	AUTO_CLOSE int fd = depth < MOUNTED_DEPTH ? path_open_at(dirfd, name, O_RDONLY | O_DIRECTORY, 0) : -1;
	DIR *d = fd < 0 ? NULL : file_list(fd);
	int rc = 0;

	for (const struct dirent *de; !rc && d && (de = readdir(d));)
		rc = file_is_dots(de->d_name) ? 0 : find_mounted_below(x, fd, de->d_name, depth + 1, e);
	if (d)
		closedir(d);
	return rc;
}

/* ---- what is in a directory that goes ---- */

static int look_inside(struct finder *x, struct buf *todo, uint64_t dir, struct span path, const char *name, int fd, struct err *e)
{
	AUTO_BUF struct buf whole = {0};
	const struct room *m = replica_room(x->p->r, path);
	struct object o = {0};
	uint64_t no;
	int got = base_lookup(x->p, dir, span_cstr(name), &no, e), rc = -1;

	buf_add(&whole, path.p, path.len);
	path_push(&whole, span_cstr(name));
	if (room_is_apart(m, fd, name))
		return is_mounted(span_of(whole.p, whole.len), e);
	if (got == 0)
		return is_stray(x, dir, span_cstr(name)) ? 0 : found(x, span_of(whole.p, whole.len), GOES, e);
	if (got < 0 || base_object(x->p, no, &o, e) < 0)
		return -1;
	int alive = is_alive(x->p, no, e); /* then it has a record of its own */
	bool unused;
	int known = alive || bits_has(&x->wanted, no) ? 1 : is_as_known(m, &o, true, fd, name, &unused, e);
	if (alive >= 0 && known == 0)
		rc = found(x, span_of(whole.p, whole.len), GOES, e);
	else if (alive >= 0 && known > 0)
		rc = 0;
	struct stat st;
	if (!rc && !alive && known && o.type == OBJ_DIR && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode)) {
		wr_u64(todo, no);
		wr_str(todo, whole.p, whole.len);
		wr_u32(todo, (uint32_t)whole.len);
	}
	object_free(&o);
	return rc;
}

static int look_at_dir(struct finder *x, struct buf *todo, uint64_t no, struct span path, struct err *e)
{
	char text[300];
	int fd = path_cached(x->p->base_dirs, path, e);
	DIR *d = fd < 0 ? NULL : file_list(fd);
	int rc = 0;

	if (!d)
		return err_sys(e, "cannot list '%s' in the replica", esc_cut(text, sizeof text, path));
	/* At the top of a tree that stands elsewhere there is what is ours, and what a fresh filesystem has. */
	bool is_top = where_find(&x->p->r->where, path);
	for (struct dirent *de; !rc && (de = readdir(d));)
		if (is_top ? !room_is_ours(de->d_name) : !file_is_dots(de->d_name))
			rc = look_inside(x, todo, no, path, de->d_name, dirfd(d), e);
	closedir(d);
	return rc;
}

static int look_below(struct finder *x, uint64_t no, struct span path, struct err *e)
{
	AUTO_BUF struct buf todo = {0}, now = {0};
	int rc = 0;

	wr_u64(&todo, no);
	wr_str(&todo, path.p, path.len);
	wr_u32(&todo, (uint32_t)path.len);
	while (!rc && todo.len) {
		struct rd end = rd_of(todo.p + todo.len - 4, 4);
		size_t n = 8 + 4 + (size_t)rd_u32(&end) + 4;
		buf_reset(&now);
		buf_add(&now, todo.p + todo.len - n, n);
		todo.len -= n;
		struct rd r = rd_of(now.p, now.len);
		no = rd_u64(&r);
		rc = look_at_dir(x, &todo, no, rd_str(&r, UINT32_MAX), e);
	}
	return rc;
}

/* ---- records ---- */

/* What is to be replaced or removed can be: not so a mount, and never our own directory. */
static int find_movable(struct finder *x, uint64_t parent, struct span name, bool goes, struct err *e)
{
	struct err why = {0};
	char cname[REC_NAME_MAX + 1];

	if (parent == CATALOG_ROOT && span_eq(name, span_cstr(REPLICA_CTL)))
		return err_set(e, ERR_STREAM, "the stream names the replica's own directory '" REPLICA_CTL "'");
	int fd = plan_base_dir(x->p, parent, &why);
	span_name(cname, name);
	return fd < 0 ? 0 : goes ? find_mounted_below(x, fd, cname, 0, e) : find_mounted(x, fd, cname, e);
}

/* What stands elsewhere can be made, changed and given up there, but neither be something else nor get there by a name. From here
 * on we have it alone, or nothing is decided. */
static int find_placed(const struct finder *x, uint64_t parent, struct span name, uint8_t type, bool changes, struct err *e)
{
	struct where_row *row = parent == CATALOG_ROOT ? where_find(&x->p->r->where, name) : NULL;

	if (!row)
		return 0;
	if (type == (row->is_tree ? OBJ_DIR : OBJ_FILE))
		return changes && !row->is_tree && where_write(row, e) < 0 ? -1 : 0;
	return err_set(e, ERR_REFUSED, "the member '%s' is to stand at '%s', and is no %s, or one that had another name: that is for "
		"another replica", row->name, row->path, row->is_tree ? "tree" : "volume");
}

/* Nothing is renamed or linked from one filesystem to another. Our own programs never ask for it: to them each tree of a group is one
 * of its own. */
static int find_crossing(struct finder *x, uint64_t no, uint64_t parent, struct span name, struct err *e)
{
	struct plan *p = x->p;
	struct object o = {0};
	char text[300];

	if (!p->r->where.has_tree)
		return 0;
	int alive = is_alive(p, no, e);
	if (alive <= 0)
		return alive;
	buf_reset(&p->path);
	if (catalog_path(p->next, parent, (struct span){0}, &p->path, e))
		return -1;
	const struct room *to = replica_room(p->r, span_of(p->path.p, p->path.len)), *from = NULL;
	/* By one of its names in the target, and by one in the base: all of them are alike, or one was refused. */
	if (plan_find_room(p, no, e))
		return -1;
	bool is_apart = p->room != to;
	int was = base_object(p, no, &o, e);
	object_free(&o);
	buf_reset(&p->path);
	plan_see_base(p, true);
	if (was == 1 && !catalog_object_path(p->r->cat, no, &p->path, e))
		from = replica_room(p->r, span_of(p->path.p, p->path.len));
	plan_see_base(p, false);
	if (was < 0 || e->kind)
		return -1;
	if (!is_apart && (!from || from == to))
		return 0;
	return err_set(e, ERR_REFUSED, "the delta moves or links '%s' from one tree to another, and one of them stands elsewhere: that is for "
		"another replica", esc_cut(text, sizeof text, name));
}

static int on_base(struct finder *x, const struct r_base *b, struct err *e)
{
	struct plan *p = x->p;
	struct object o = {0};
	struct err why = {0};
	AUTO_BUF struct buf path = {0};
	char name[REC_NAME_MAX + 1];
	uint64_t dir = image_ref(&p->loader, b->parent), no = image_ref(&p->loader, b->ref);
	int rc = -1;

	if (b->flags & BASE_WANTED) {
		bits_put(&x->wanted, no);
		bits_put(x->doubtful, no);
		return find_movable(x, dir, b->name, false, e);
	}
	int alive = is_alive(p, no, e);
	if (alive < 0 || base_object(p, no, &o, e) != 1 || plan_base_path(p, dir, b->name, e))
		goto out;
	bool detaches = b->flags & BASE_DETACH;
	if (find_placed(x, dir, b->name, detaches && alive ? 0 : o.type, bits_has(&x->changed, no), e))
		goto out;
	if (!detaches && o.type != OBJ_DIR && !bits_has(&x->changed, no)) { /* the source of a copy, which was looked at then */
		rc = 0;
		goto out;
	}
	buf_add(&path, p->path.p, p->path.len);
	span_name(name, b->name);
	int fd = plan_base_dir(p, dir, &why);
	if (fd >= 0 && (find_mounted(x, fd, NULL, e) || find_mounted(x, fd, name, e)))
		goto out;
	bool goes = !alive || bits_has(&x->whole, no), touched = false;
	int known = where_find(&p->r->where, span_of(path.p, path.len)) ? 1 : fd < 0 ? !alive :
		is_as_known(p->room, &o, !alive, fd, name, &touched, e);
	if (known < 0)
		goto out;
	if (touched)
		bits_put(x->doubtful, no);
	rc = 0;
	if (!known)
		rc = found(x, span_of(path.p, path.len), fd >= 0 && goes ? GOES : NEEDED, e);
	else if (fd >= 0 && detaches && !alive && o.type == OBJ_DIR && faccessat(fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		rc = look_below(x, no, span_of(path.p, path.len), e);
out:
	object_free(&o);
	return rc;
}

static int on_stray(struct finder *x, uint64_t parent, struct span name, struct err *e)
{
	wr_u64(&x->strays, parent);
	wr_str(&x->strays, name.p, name.len);
	return find_movable(x, parent, name, true, e);
}

static int does_not_fit(const struct room *m, struct span path, int sys, struct err *e)
{
	char text[512];

	return err_set(e, ERR_REFUSED, "'%s' cannot stand on the filesystem of the replica '%s' (%s): leave it out at the source, see --exclude",
		esc_cut(text, sizeof text, path), m->path, sys == EEXIST ? "it is the same as another name there" : strerror(sys));
}

/* No delta is decided that has names which cannot stand here. */
static int find_fitting(struct finder *x, uint64_t parent, struct span name, struct err *e)
{
	struct plan *p = x->p;
	char cname[REC_NAME_MAX + 1];

	if (p->r->room.takes_all && !p->r->where.has_tree)
		return 0;
	buf_reset(&p->path);
	if (catalog_path(p->next, parent, name, &p->path, e))
		return -1;
	const struct room *m = replica_room(p->r, span_of(p->path.p, p->path.len));
	if (m->takes_all)
		return 0;
	if (x->fit.stage != m->stage) {
		fit_end(&x->fit);
		x->fit = (struct fit)FIT_AT(m->stage);
	}
	span_name(cname, name);
	if (!fit_name(&x->fit, parent, cname))
		return 0;
	if (errno != ENOSPC && errno != EDQUOT && errno != EIO && errno != EROFS)
		return does_not_fit(m, span_of(p->path.p, p->path.len), errno, e);
	return err_sys(e, "cannot try the names of a delta in the replica '%s'", p->r->path);
}

/* It stands there, and not only under another spelling. */
static bool is_spelled(int dirfd, const char *name)
{
	DIR *d = file_list(dirfd);
	bool is = !d;

	for (const struct dirent *de; !is && (de = readdir(d));)
		is = !strcmp(de->d_name, name);
	if (d)
		closedir(d);
	return is;
}

/* Where something new is to stand there must be nothing that the catalog does not know. */
static int on_new(struct finder *x, uint64_t parent, struct span name, struct err *e)
{
	struct plan *p = x->p;
	struct object o = {0};
	struct err why = {0};
	char cname[REC_NAME_MAX + 1];
	uint64_t known;
	int fd = p->r->root;

	if (find_fitting(x, parent, name, e))
		return -1;
	int has_parent = base_object(p, parent, &o, e);
	object_free(&o);
	int taken = has_parent == 1 ? base_lookup(p, parent, name, &known, e) : 0;
	if (has_parent < 0 || taken)
		return has_parent < 0 || taken < 0 ? -1 : 0;
	/* The root of a first image is there before the catalog knows it. */
	if (!has_parent && parent != CATALOG_ROOT)
		return 0;
	if (parent == CATALOG_ROOT && span_eq(name, span_cstr(REPLICA_CTL)))
		return err_set(e, ERR_STREAM, "the stream names the replica's own directory '" REPLICA_CTL "'");
	if (has_parent && (fd = plan_base_dir(p, parent, &why)) < 0)
		return bits_has(&x->wanted, parent) ? 0 : found(x, span_of(p->path.p, p->path.len), NEEDED, e);
	if (has_parent && find_mounted(x, fd, NULL, e))
		return -1;
	span_name(cname, name);
	if (faccessat(fd, cname, F_OK, AT_SYMLINK_NOFOLLOW) || !strcmp(cname, "lost+found") || is_stray(x, parent, name))
		return 0;
	if (!has_parent)
		return found(x, name, OBSTRUCTS, e);
	if (plan_base_path(p, parent, name, e))
		return -1;
	if (!p->room->takes_all && !is_spelled(fd, cname))
		return does_not_fit(p->room, span_of(p->path.p, p->path.len), EEXIST, e);
	return found(x, span_of(p->path.p, p->path.len), OBSTRUCTS, e);
}

static int on_record(void *ctx, const struct record *rec, struct err *e)
{
	struct finder *x = ctx;
	const struct image_loader *l = &x->p->loader;

	switch ((enum rec_type)rec->type) {
	case REC_BASE:
		return on_base(x, &rec->u.base, e);
	case REC_STRAY:
		return on_stray(x, image_ref(l, rec->u.stray.parent), rec->u.stray.name, e);
	case REC_CREATE:
		if (rec->u.create.ref == REF_ROOT)
			return 0;
		if (find_placed(x, image_ref(l, rec->u.create.parent), rec->u.create.name, rec->u.create.type, true, e) ||
				(rec->u.create.type != OBJ_DIR && rec->u.create.ref != REF_NONE &&
				find_crossing(x, image_ref(l, rec->u.create.ref), image_ref(l, rec->u.create.parent),
					rec->u.create.name, e)))
			return -1;
		return on_new(x, image_ref(l, rec->u.create.parent), rec->u.create.name, e);
	case REC_ATTACH:
		if (find_placed(x, image_ref(l, rec->u.attach.parent), rec->u.attach.name, 0, false, e) ||
				find_crossing(x, image_ref(l, rec->u.attach.ref), image_ref(l, rec->u.attach.parent),
					rec->u.attach.name, e))
			return -1;
		return on_new(x, image_ref(l, rec->u.attach.parent), rec->u.attach.name, e);
	default:
		return 0;
	}
}

static int note_whole(void *ctx, const struct plan_object *po, struct err *e)
{
	struct finder *x = ctx;
	struct object o = {0};
	int got = catalog_get(x->p->next, po->no, &o, e);

	/* Content is staged by now: what it took from the base was right. Links and nodes are made anew. */
	bits_put(&x->changed, po->no);
	if (got == 1 && (po->staged || (o.type != OBJ_FILE && o.type != OBJ_DIR)))
		bits_put(&x->whole, po->no);
	object_free(&o);
	return got < 0 ? -1 : 0;
}

static int note_named(void *ctx, const struct r_attach *a, struct err *e)
{
	struct finder *x = ctx;

	(void)e;
	bits_put(&x->changed, image_ref(&x->p->loader, a->ref));
	return 0;
}

int edits_find(struct plan *p, enum edits_mode mode, bool *has_base, struct buf *doubtful, struct err *e)
{
	struct finder x = {.p = p, .mode = mode, .fd = -1, .doubtful = doubtful, .fit = FIT_AT(-1)};

	int rc = replica_drop(p->r, "edits", e) || plan_walk(p, &(struct plan_visit){.object = note_whole, .attach = note_named, .ctx = &x}, e) ||
		plan_walk(p, &(struct plan_visit){.record = on_record, .ctx = &x}, e) || verdict(&x, e) ? -1 : 0;
	*has_base = !x.n && !x.wanted.len;
	close_fd(&x.fd);
	fit_end(&x.fit);
	buf_free(&x.whole);
	buf_free(&x.changed);
	buf_free(&x.wanted);
	buf_free(&x.strays);
	buf_free(&x.named);
	buf_free(&x.needed);
	buf_free(&x.rows);
	return rc;
}

/* ---- after the decision ---- */

/* The directory for PATH's last name below top, made as far as it is missing. Owned. */
static int make_way(int top, struct span dir, struct err *e)
{
	char name[REC_NAME_MAX + 1];
	int fd = fcntl(top, F_DUPFD_CLOEXEC, 3);

	for (size_t at = 0; fd >= 0 && at < dir.len;) {
		const uint8_t *slash = memchr(dir.p + at, '/', dir.len - at);
		size_t n = slash ? (size_t)(slash - dir.p) - at : dir.len - at;
		span_name(name, span_of(dir.p + at, n));
		int next = mkdirat(fd, name, 0700) && errno != EEXIST ? -1 : path_open_at(fd, name, O_RDONLY | O_DIRECTORY, 0);
		int sys = errno;
		close_fd(&fd);
		errno = sys;
		fd = next;
		at += n + 1;
	}
	return fd < 0 ? err_sys(e, "cannot make a directory in '" REPLICA_CTL "/aside'") : fd;
}

struct settler {
	struct replica *r;
	char id[65];
	const struct room *room; /* of the edit at hand */
	void (*kept)(void *ctx, struct span path, const char *to);
	void *ctx;
	uint64_t n;
};

/* path: in the replica. */
static int keep(struct settler *s, int from_dir, const char *name, struct span path, struct err *e)
{
	struct span dir, last;
	AUTO_BUF struct buf way = {0}, to = {0}, where = {0};

	path_split(path, &dir, &last);
	buf_fmt(&way, "aside/%s%s", s->id, dir.len ? "/" : "");
	buf_add(&way, dir.p, dir.len);
	AUTO_CLOSE int to_dir = make_way(s->room->ctl, span_of(way.p, way.len), e);
	if (to_dir < 0)
		return -1;
	buf_add(&to, last.p, last.len);
	/* Two of one name: one of them stood where a directory of the other's way is. */
	for (unsigned n = 1; faccessat(to_dir, buf_cstr(&to), F_OK, AT_SYMLINK_NOFOLLOW) == 0; n++) {
		buf_reset(&to);
		buf_fmt(&to, "%.240s~%u", name, n);
	}
	if (entry_move(from_dir, name, to_dir, buf_cstr(&to)))
		return err_sys(e, "cannot put an edited file aside in '%s'", s->room->path);
	buf_fmt(&where, "%s/" REPLICA_CTL "/", s->room->path);
	buf_add(&where, way.p, way.len);
	buf_str(&where, "/");
	buf_add(&where, to.p, to.len);
	if (s->kept)
		s->kept(s->ctx, path, buf_cstr(&where));
	return 0;
}

static int settle_one(struct settler *s, enum edits_mode mode, struct span path, struct err *e)
{
	struct err why = {0};
	char name[REC_NAME_MAX + 1], slot[40];
	struct span below = path;
	const struct where_row *tree = where_tree(&s->r->where, path, &below);
	s->room = tree ? &tree->room : &s->r->room;
	AUTO_CLOSE int dirfd = path_parent(s->room->root, below, name, &why);

	s->n++;
	/* Gone from the start, or repeating. */
	if (dirfd < 0 || faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	inode_unlock(dirfd);
	if (mode == EDITS_KEEP)
		return keep(s, dirfd, name, path, e);
	snprintf(slot, sizeof slot, "edit-%llu", (unsigned long long)s->n);
	return entry_move(dirfd, name, s->room->slots, slot) ? err_sys(e, "cannot move an edited file in '%s'", s->room->path) : 0;
}

int edits_settle(struct replica *r, const struct digest *id, void (*kept)(void *ctx, struct span path, const char *to), void *ctx,
	struct err *e)
{
	struct settler s = {.r = r, .kept = kept, .ctx = ctx};
	AUTO_CLOSE int fd = openat(r->ctl, "edits", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	FILE *f = fd < 0 ? NULL : fdopen(fd, "r");
	AUTO_BUF struct buf row = {0};
	uint8_t head[5];
	int rc = 0;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (!f)
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/edits'", r->path);
	fd = -1;
	hex(s.id, id->b, 8);
	while (!rc && fread(head, 1, sizeof head, f) == sizeof head) {
		struct rd h = rd_of(head, sizeof head);
		enum edits_mode mode = (enum edits_mode)rd_u8(&h);
		size_t n = rd_u32(&h);
		buf_reset(&row);
		buf_reserve(&row, n);
		row.len = fread(row.p, 1, n, f);
		if (row.len != n)
			rc = err_set(e, ERR_SYSTEM, "'%s/" REPLICA_CTL "/edits' is damaged", r->path);
		else
			rc = settle_one(&s, mode, span_of(row.p, row.len), e);
	}
	if (!rc && ferror(f))
		rc = err_sys(e, "cannot read '%s/" REPLICA_CTL "/edits'", r->path);
	fclose(f);
	return rc;
}
