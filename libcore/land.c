#include "land.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "image.h"
#include "input.h"
#include "path.h"

#define LIVE_BYTES (256u * 1024) /* larger plans go into a private copy of the catalog, so that memory stays bounded */

struct run {
	struct land *l;
	struct catalog *next; /* the target; r->cat shows the base */
	struct image_loader loader;
	struct path_cache *base_dirs, *dirs;
	struct buf touched;   /* u64 numbers of directories whose entries changed, with repeats */
	uint64_t last_touched;
	struct owner_rule *rules;
	size_t n_rules;
	struct buf path, label, xattrs;
	/* the object that records speak of */
	uint64_t cur, n_content, staged;
	bool is_new, has_meta;
};

/* ---- reading the plan ---- */

typedef int (*each_fn)(struct run *r, const struct record *rec, struct err *e);

static int each(struct run *r, int fd, each_fn fn, struct err *e)
{
	struct input in = {0};
	int got;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(e, "cannot read the plan");
	if (input_open(&in, fd, 1, e))
		return -1;
	while ((got = input_next(&in, e)) > 0 && got != STREAM_END)
		if (got == STREAM_RECORD && fn(r, &in.s.rec, e)) {
			got = -1;
			break;
		}
	input_close(&in);
	return got < 0 ? -1 : 0;
}

static int load_record(struct run *r, const struct record *rec, struct err *e)
{
	return image_load(&r->loader, rec, e);
}

/* ---- where things are ---- */

static bool in_base(struct run *r) { return r->l->r->cat == r->next; }

static int base_path(struct run *r, uint64_t dir, struct span name, struct err *e)
{
	buf_reset(&r->path);
	catalog_see_base(r->l->r->cat, in_base(r));
	int rc = catalog_path(r->l->r->cat, dir, name, &r->path, e);
	catalog_see_base(r->l->r->cat, false);
	return rc;
}

static int next_dir(struct run *r, uint64_t dir, struct err *e)
{
	buf_reset(&r->path);
	if (catalog_path(r->next, dir, (struct span){0}, &r->path, e))
		return -1;
	return path_cached(r->dirs, span_of(r->path.p, r->path.len), e);
}

static void slot_name(char out[32], uint64_t no) { snprintf(out, 32, "%llu", (unsigned long long)no); }

static void c_name(char out[256], struct span name)
{
	memcpy(out, name.p, name.len);
	out[name.len] = 0;
}

static int fail(struct run *r, const char *what, const char *name, struct err *e)
{
	char text[300];
	int sys = errno;

	esc_cut(text, sizeof text, span_cstr(name));
	errno = sys;
	return err_sys(e, "cannot %s '%s' in the replica '%s'", what, text, r->l->r->path);
}

/* A directory without write permission, or with immutable or append-only set, is opened up for us; its metadata is put
 * back with all touched directories. */
static void open_up(int dirfd)
{
	struct stat st;

	attr_unlock(dirfd);
	if (geteuid() && fstat(dirfd, &st) == 0 && (st.st_mode & 0700) != 0700)
		fchmod(dirfd, (st.st_mode & 07777) | 0700);
}

static void touch(struct run *r, uint64_t dir)
{
	if (dir == r->last_touched)
		return;
	r->last_touched = dir;
	wr_u64(&r->touched, dir);
}

static void unlock_at(int dirfd, const char *name)
{
	AUTO_CLOSE int fd = path_open_at(dirfd, name, O_RDONLY, 0);

	if (fd >= 0)
		attr_unlock(fd);
}

/* The same for an object by its name: the ".." of a directory that we may not write cannot change either. */
static bool open_up_at(int dirfd, const char *name)
{
	struct stat st;

	unlock_at(dirfd, name);
	return geteuid() && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
		fchmodat(dirfd, name, (st.st_mode & 07777) | 0700, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- 4: detach ---- */

static int detach_one(struct run *r, const struct record *rec, struct err *e)
{
	const struct r_base *b = &rec->u.base;
	struct replica *rp = r->l->r;
	struct object o = {0};
	char name[256], slot[32];
	int rc = -1;

	if (rec->type != REC_BASE || !(b->flags & BASE_DETACH))
		return 0;
	uint64_t dir = image_ref(&r->loader, b->parent), no = image_ref(&r->loader, b->ref);
	int alive = catalog_get(r->next, no, &o, e);
	if (alive < 0)
		goto out;
	if (base_path(r, dir, (struct span){0}, e))
		goto out;
	struct err why = {0};
	int fd = path_cached(r->base_dirs, span_of(r->path.p, r->path.len), &why);
	if (fd < 0) {
		/* Repeating: the directory is in its slot already, and all its names went before it. */
		rc = why.sys == ENOENT ? 0 : -1;
		if (rc)
			*e = why;
		goto out;
	}
	c_name(name, b->name);
	slot_name(slot, no);
	open_up(fd);
	touch(r, dir);
	buf_reset(&r->path);
	if (base_path(r, dir, b->name, e))
		goto out;
	path_cache_drop(r->base_dirs, span_of(r->path.p, r->path.len));
	if (!alive && unlinkat(fd, name, 0) == 0) {
		rc = 0;
		goto out;
	}
	if (!alive && errno == EPERM) {
		unlock_at(fd, name);
		if (unlinkat(fd, name, 0) == 0) {
			rc = 0;
			goto out;
		}
	}
	if (alive && o.type != OBJ_DIR && faccessat(rp->slots, slot, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		/* a further name of an object that has a slot */
		rc = unlinkat(fd, name, 0) && errno != ENOENT ? fail(r, "remove", name, e) : 0;
		goto out;
	}
	if (renameat(fd, name, rp->slots, slot)) {
		if (errno == EPERM || errno == EACCES) {
			open_up_at(fd, name);
			if (renameat(fd, name, rp->slots, slot) == 0) {
				rc = 0;
				goto out;
			}
		}
		if (errno != ENOENT) {
			fail(r, "move", name, e);
			goto out;
		}
	}
	rc = 0;
out:
	object_free(&o);
	return rc;
}

/* ---- 6: place ---- */

static int place_dirs(struct run *r, const struct record *rec, struct err *e)
{
	struct replica *rp = r->l->r;
	uint64_t parent, no;
	struct span name;
	char cname[256], slot[32];

	if (rec->type == REC_CREATE && rec->u.create.type == OBJ_DIR && rec->u.create.ref != REF_ROOT) {
		parent = image_ref(&r->loader, rec->u.create.parent);
		no = 0;
		name = rec->u.create.name;
	} else if (rec->type == REC_ATTACH) {
		struct object o = {0};
		parent = image_ref(&r->loader, rec->u.attach.parent);
		no = image_ref(&r->loader, rec->u.attach.ref);
		name = rec->u.attach.name;
		int got = catalog_get(r->next, no, &o, e);
		bool is_dir = got == 1 && o.type == OBJ_DIR;
		object_free(&o);
		if (got < 0)
			return -1;
		if (!is_dir)
			return 0;
	} else {
		return 0;
	}
	int fd = next_dir(r, parent, e);
	if (fd < 0)
		return -1;
	c_name(cname, name);
	open_up(fd);
	touch(r, parent);
	if (!no) {
		if (mkdirat(fd, cname, 0700) && errno != EEXIST)
			return fail(r, "make", cname, e);
		return 0;
	}
	touch(r, no);
	slot_name(slot, no);
	if (renameat(rp->slots, slot, fd, cname)) {
		if (errno == EACCES) { /* a directory that we may not write cannot get another parent: its ".." changes */
			open_up_at(rp->slots, slot);
			if (renameat(rp->slots, slot, fd, cname) == 0)
				return 0;
		}
		if (errno != ENOENT)
			return fail(r, "move", cname, e);
	}
	return 0;
}

static uint32_t mapped(const struct run *r, bool is_group, uint32_t id)
{
	for (size_t i = 0; i < r->n_rules; i++)
		if (r->rules[i].is_group == is_group && r->rules[i].from == id)
			return r->rules[i].to;
	return id;
}

/* Numbers in POSIX ACLs follow the owners: rows of u16 tag, u16 permissions, u32 id behind a u32 version. */
static void map_acls(struct run *r, struct r_meta *m)
{
	struct span name, value;

	buf_reset(&r->xattrs);
	buf_add(&r->xattrs, m->xattrs.p, m->xattrs.len);
	struct rd rows = rd_of(r->xattrs.p, r->xattrs.len);
	while (xattr_next(&rows, &name, &value)) {
		if (!span_eq(name, span_cstr("system.posix_acl_access")) && !span_eq(name, span_cstr("system.posix_acl_default")))
			continue;
		uint8_t *v = r->xattrs.p + (value.p - r->xattrs.p);
		for (size_t at = 4; at + 8 <= value.len; at += 8) {
			struct rd row = rd_of(v + at, 8);
			unsigned tag = rd_u16(&row);
			rd_u16(&row);
			if (tag != 0x02 && tag != 0x08) /* a named user, a named group */
				continue;
			uint32_t id = mapped(r, tag == 0x08, rd_u32(&row));
			for (unsigned i = 0; i < 4; i++)
				v[at + 4 + i] = (uint8_t)(id >> 8 * i);
		}
	}
	m->xattrs = span_of(r->xattrs.p, r->xattrs.len);
}

static int restore(struct run *r, int dirfd, const char *name, int fd, const struct object *o, uint32_t without, struct err *e)
{
	struct r_meta m = o->meta;
	struct attr_policy p = r->l->policy;

	buf_reset(&r->label);
	if (o->no != CATALOG_ROOT && catalog_object_path(r->next, o->no, &r->label, e))
		return -1;
	p.label = r->label.len ? buf_cstr(&r->label) : ".";
	if (r->n_rules && m.xattrs.len)
		map_acls(r, &m);
	m.attr &= ~without;
	m.uid = mapped(r, false, m.uid);
	m.gid = mapped(r, true, m.gid);
	return attr_restore(dirfd, name, fd, o->type, &m, &p, e);
}

/* Puts a finished object over a name: by way of the stage, so that the name is never absent. */
static int put_over(struct run *r, const char *staged, int dirfd, const char *name, struct err *e)
{
	struct replica *rp = r->l->r;

	if (renameat(rp->stage, staged, dirfd, name) == 0)
		return 0;
	if (errno == EPERM) { /* what stands there is immutable */
		unlock_at(dirfd, name);
		if (renameat(rp->stage, staged, dirfd, name) == 0)
			return 0;
	}
	return errno == ENOENT ? 1 : fail(r, "place", name, e);
}

#define LOCKS 0x30u /* FS_IMMUTABLE_FL, FS_APPEND_FL: only once the object has its last name */

/* Hints of the replica's own filesystem: how an edit made behind our back is noticed. */
static int refresh_hint(struct run *r, struct object *o, int dirfd, const char *name, struct err *e)
{
	struct attr a = {0};
	int rc = attr_stat(&a, dirfd, name, e);

	if (!rc) {
		o->hint = a.hint;
		o->hint.dev = 0;
		o->hint.flags = o->nlink == 1 ? HINT_SETTLED : 0;
		rc = catalog_put(r->next, o, e);
	}
	attr_free(&a);
	return rc;
}

static int make_special(struct run *r, const struct object *o, const char *staged, struct err *e)
{
	struct replica *rp = r->l->r;
	mode_t type = o->type == OBJ_FIFO ? S_IFIFO : o->type == OBJ_CHAR ? S_IFCHR : S_IFBLK;

	unlinkat(rp->stage, staged, 0);
	if (o->type == OBJ_LINK) {
		AUTO_BUF struct buf t = {0};
		buf_add(&t, o->meta.target.p, o->meta.target.len);
		if (symlinkat(buf_cstr(&t), rp->stage, staged) == 0)
			return 0;
	} else if (o->type != OBJ_FIFO && r->l->policy.no_devices) {
		errno = EPERM;
	} else if (mknodat(rp->stage, staged, type | 0600, makedev(o->meta.major, o->meta.minor)) == 0) {
		return 0;
	}
	/* No such nodes, numbers or targets as long as that here: it will never work, and what was decided must come to an end. */
	if (errno == EPERM || errno == EOPNOTSUPP || errno == EINVAL || errno == ENAMETOOLONG) {
		char text[300];
		int sys = errno;
		buf_reset(&r->label);
		if (catalog_object_path(r->next, o->no, &r->label, e))
			return -1;
		warn_say(r->l->warn, o->type == OBJ_LINK ? "link" : "device", "%s '%s' was not made: %s",
			o->type == OBJ_LINK ? "the link" : "the node",
			esc_cut(text, sizeof text, span_of(r->label.p, r->label.len)), strerror(sys));
		return 1;
	}
	return fail(r, o->type == OBJ_LINK ? "make the link" : "make the node", staged, e);
}

/* The current object is complete in the plan: everything about it but its directory's times happens here. */
static int place_object(struct run *r, struct err *e)
{
	struct replica *rp = r->l->r;
	struct object o = {0};
	AUTO_BUF struct buf name = {0};
	AUTO_CLOSE int fd = -1;
	char cname[256], staged[32];
	uint64_t dir;
	int rc = -1, lost = 0;

	if (!r->cur || (!r->is_new && !r->has_meta && !r->staged))
		return 0;
	int got = catalog_get(r->next, r->cur, &o, e);
	if (got != 1) { /* dropped again */
		rc = got;
		goto out;
	}
	if (o.type == OBJ_DIR) {
		touch(r, o.no);
		rc = 0;
		goto out;
	}
	/* By the name that stands already: others of its names may be attached later in the plan. */
	for (unsigned nth = 0; nth < o.nlink; nth++) {
		if (catalog_nth_name(r->next, o.no, nth, &dir, &name, e) != 1)
			goto out;
		c_name(cname, span_of(name.p, name.len));
		int fd_dir = nth + 1 < o.nlink ? next_dir(r, dir, e) : 0;
		if (fd_dir < 0)
			goto out;
		if (nth + 1 < o.nlink && faccessat(fd_dir, cname, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			break;
	}
	snprintf(staged, sizeof staged, "%llu", (unsigned long long)r->staged);
	/* A link's target and a node's number cannot be changed, only replaced. */
	bool replace = r->staged || r->is_new || o.type != OBJ_FILE;
	if (replace) {
		if (o.type != OBJ_FILE) {
			snprintf(staged, sizeof staged, "s%llu", (unsigned long long)o.no);
			lost = make_special(r, &o, staged, e);
			if (lost) {
				rc = lost < 0 ? -1 : 0;
				goto out;
			}
		} else {
			fd = path_open_at(rp->stage, staged, O_RDWR, 0);
		}
		/* Absent: repeating, and it is in its place already. */
		if ((o.type != OBJ_FILE || fd >= 0) && restore(r, rp->stage, staged, fd, &o, LOCKS, e))
			goto out;
		close_fd(&fd);
		int dirfd = next_dir(r, dir, e);
		if (dirfd < 0)
			goto out;
		open_up(dirfd);
		touch(r, dir);
		if (put_over(r, staged, dirfd, cname, e) < 0)
			goto out;
		/* The other names follow, each replaced in one step. */
		for (unsigned nth = 0; nth < o.nlink; nth++) {
			uint64_t other;
			char oname[256];
			got = catalog_nth_name(r->next, o.no, nth, &other, &name, e);
			if (got != 1)
				goto out;
			c_name(oname, span_of(name.p, name.len));
			if (other == dir && !strcmp(oname, cname))
				continue;
			unlinkat(rp->stage, "link", 0);
			dirfd = next_dir(r, dir, e);
			if (dirfd < 0)
				goto out;
			if (linkat(dirfd, cname, rp->stage, "link", 0)) {
				fail(r, "link", cname, e);
				goto out;
			}
			dirfd = next_dir(r, other, e);
			if (dirfd < 0)
				goto out;
			open_up(dirfd);
			touch(r, other);
			if (put_over(r, "link", dirfd, oname, e) < 0)
				goto out;
			unlinkat(rp->stage, "link", 0); /* rename(2) of two names of one file does nothing */
		}
	}
	int dirfd = next_dir(r, dir, e);
	if (dirfd < 0)
		goto out;
	bool again = !replace || o.meta.attr & LOCKS;
	if (again && o.type == OBJ_FILE) {
		fd = path_open_at(dirfd, cname, O_RDONLY, 0);
		if (fd < 0 && errno == EACCES && geteuid()) {
			if (fchmodat(dirfd, cname, 0600, 0) == 0)
				fd = path_open_at(dirfd, cname, O_RDONLY, 0);
		}
		if (fd < 0) {
			fail(r, "open", cname, e);
			goto out;
		}
	}
	if (again && restore(r, dirfd, cname, fd, &o, 0, e))
		goto out;
	rc = refresh_hint(r, &o, dirfd, cname, e);
out:
	object_free(&o);
	return rc;
}

static int attach_file(struct run *r, const struct r_attach *a, struct err *e)
{
	struct replica *rp = r->l->r;
	uint64_t parent = image_ref(&r->loader, a->parent), no = image_ref(&r->loader, a->ref), dir;
	struct object o = {0};
	AUTO_BUF struct buf name = {0};
	char cname[256], slot[32];
	int rc = -1;

	int got = catalog_get(r->next, no, &o, e);
	if (got != 1 || o.type == OBJ_DIR) {
		rc = got < 0 ? -1 : 0;
		goto out;
	}
	c_name(cname, a->name);
	slot_name(slot, no);
	int fd = next_dir(r, parent, e);
	if (fd < 0)
		goto out;
	open_up(fd);
	touch(r, parent);
	if (o.nlink == 1) {
		if (renameat(rp->slots, slot, fd, cname) && errno != ENOENT) {
			unlock_at(rp->slots, slot);
			if (renameat(rp->slots, slot, fd, cname)) {
				fail(r, "move", cname, e);
				goto out;
			}
		}
		rc = refresh_hint(r, &o, fd, cname, e);
		goto out;
	}
	if (linkat(rp->slots, slot, fd, cname, 0) == 0 || errno == EEXIST) {
		rc = 0;
		goto out;
	}
	if (errno == EPERM) {
		unlock_at(rp->slots, slot);
		if (linkat(rp->slots, slot, fd, cname, 0) == 0) {
			rc = 0;
			goto out;
		}
	}
	if (errno != ENOENT) {
		fail(r, "link", cname, e);
		goto out;
	}
	/* Not detached: it keeps a name somewhere; or it is new, and the name it was created under stands. */
	for (unsigned nth = 0; (got = catalog_nth_name(r->next, no, nth, &dir, &name, e)) == 1; nth++) {
		char oname[256];
		if (dir == parent && span_eq(span_of(name.p, name.len), a->name))
			continue;
		c_name(oname, span_of(name.p, name.len));
		AUTO_CLOSE int from = -1;
		int shared = next_dir(r, dir, e);
		if (shared < 0)
			goto out;
		from = fcntl(shared, F_DUPFD_CLOEXEC, 0);
		if (from < 0) {
			fail(r, "open", oname, e);
			goto out;
		}
		fd = next_dir(r, parent, e);
		if (fd < 0)
			goto out;
		if (linkat(from, oname, fd, cname, 0) == 0 || errno == EEXIST) {
			rc = 0;
			goto out;
		}
		if (errno == EPERM) {
			unlock_at(from, oname);
			if (linkat(from, oname, fd, cname, 0) == 0) {
				rc = 0;
				goto out;
			}
		}
		if (errno != ENOENT) {
			fail(r, "link", cname, e);
			goto out;
		}
	}
	/* Its other names come later in the plan; they will link to this one's content when that is placed. */
	rc = got < 0 ? -1 : 0;
out:
	object_free(&o);
	return rc;
}

static int set_cur(struct run *r, uint64_t no, bool is_new, struct err *e)
{
	int rc = place_object(r, e);

	r->cur = no;
	r->is_new = is_new;
	r->has_meta = false;
	r->staged = 0;
	return rc;
}

static int place_files(struct run *r, const struct record *rec, struct err *e)
{
	switch ((enum rec_type)rec->type) {
	case REC_BASE:
		return set_cur(r, rec->u.base.flags & BASE_DETACH ? 0 : image_ref(&r->loader, rec->u.base.ref), false, e);
	case REC_OBJECT:
		/* The one that is current may go on being so: a copy's source came between. */
		if (image_ref(&r->loader, rec->u.object.ref) == r->cur)
			return 0;
		return set_cur(r, image_ref(&r->loader, rec->u.object.ref), false, e);
	case REC_CREATE:
		if (set_cur(r, 0, true, e))
			return -1;
		/* Its number: by name, as files that nobody links to have none in the stream. */
		if (rec->u.create.ref == REF_ROOT) {
			r->cur = CATALOG_ROOT;
		} else {
			uint64_t parent = image_ref(&r->loader, rec->u.create.parent);
			int got = catalog_lookup(r->next, parent, rec->u.create.name, &r->cur, NULL, e);
			if (got < 0)
				return -1;
			if (!got)
				r->cur = 0;
		}
		return 0;
	case REC_ATTACH:
		return set_cur(r, 0, false, e) || attach_file(r, &rec->u.attach, e) ? -1 : 0;
	case REC_META:
		r->has_meta = true;
		return 0;
	case REC_CONTENT:
		r->staged = ++r->n_content;
		return 0;
	case REC_DROP:
		r->cur = 0;
		return 0;
	case REC_END:
		return set_cur(r, 0, false, e);
	default:
		return 0;
	}
}

static int by_depth(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	if (x[1] != y[1])
		return x[1] < y[1] ? 1 : -1;
	return (x[0] > y[0]) - (x[0] < y[0]);
}

/* Directories last, the deepest first: nothing below them changes any more. */
static int finish_dirs(struct run *r, struct err *e)
{
	size_t n = r->touched.len / 8;
	AUTO_FREE uint64_t *rows = xalloc((n + 1) * 2 * sizeof *rows);
	AUTO_BUF struct buf name = {0};
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t no = get_le64(r->touched.p + 8 * i), up = no, depth = 0;
		int got = 1;
		struct object o = {0};
		got = catalog_get(r->next, no, &o, e);
		object_free(&o);
		if (got < 0)
			return -1;
		if (!got) /* it went */
			continue;
		for (; up != CATALOG_ROOT; depth++)
			if ((got = catalog_name(r->next, up, &up, &name, e)) != 1)
				return got < 0 ? -1 : err_set(e, ERR_SYSTEM, "the catalog is damaged: a directory without a name");
		rows[2 * used] = no;
		rows[2 * used++ + 1] = depth;
	}
	qsort(rows, used, 2 * sizeof *rows, by_depth);
	for (size_t i = 0; i < used; i++) {
		struct object o = {0};
		if (i && rows[2 * i] == rows[2 * i - 2])
			continue;
		int fd = next_dir(r, rows[2 * i], e);
		if (fd < 0 || catalog_get(r->next, rows[2 * i], &o, e) != 1 || restore(r, fd, NULL, fd, &o, 0, e) ||
				refresh_hint(r, &o, fd, NULL, e)) {
			object_free(&o);
			return -1;
		}
		object_free(&o);
	}
	return 0;
}

/* ---- owners by name ---- */

static int take_owner(struct run *r, const struct record *rec, struct err *e)
{
	const struct r_owner *o = &rec->u.owner;
	char name[300], text[4096];
	uint32_t to = o->id;

	(void)e;
	if (rec->type != REC_OWNER || !r->l->map_names || o->name.len >= sizeof name)
		return 0;
	memcpy(name, o->name.p, o->name.len);
	name[o->name.len] = 0;
	if (o->is_group) {
		struct group g, *found = NULL;
		if (!getgrnam_r(name, &g, text, sizeof text, &found) && found)
			to = found->gr_gid;
	} else {
		struct passwd p, *found = NULL;
		if (!getpwnam_r(name, &p, text, sizeof text, &found) && found)
			to = found->pw_uid;
	}
	if (to == o->id)
		return 0;
	r->rules = xrealloc(r->rules, (r->n_rules + 1) * sizeof *r->rules);
	r->rules[r->n_rules++] = (struct owner_rule){o->is_group, o->id, to};
	return 0;
}

/* ---- itemizing ---- */

static int report(struct run *r, uint64_t no, const char *code, struct err *e)
{
	buf_reset(&r->path);
	if (no != CATALOG_ROOT && catalog_object_path(r->next, no, &r->path, e))
		return -1;
	r->l->item(r->l->ctx, code, r->path.len ? span_of(r->path.p, r->path.len) : span_cstr("."));
	return 0;
}

static char letter(uint8_t type)
{
	return type == OBJ_FILE ? 'f' : type == OBJ_DIR ? 'd' : type == OBJ_LINK ? 'L' : type == OBJ_FIFO ? 'S' : 'D';
}

/* One line for the object whose records just ended. */
static int item_end(struct run *r, struct err *e)
{
	struct object o = {0};
	char code[12] = "cL.........";

	if (!r->cur || (!r->is_new && !r->has_meta && !r->staged))
		return 0;
	int got = catalog_get(r->next, r->cur, &o, e);
	if (got == 1) {
		code[0] = r->staged ? '>' : r->is_new ? 'c' : '.';
		code[1] = letter(o.type);
		if (r->is_new)
			memset(code + 2, '+', 9);
		else if (r->staged)
			memcpy(code + 2, "cst......", 9);
		else
			memcpy(code + 2, "..tpoguax", 9);
		r->is_new ? r->l->n_created++ : r->l->n_changed++;
		got = r->l->item ? report(r, r->cur, code, e) : 0;
	}
	object_free(&o);
	return got < 0 ? -1 : 0;
}

static int itemize(struct run *r, const struct record *rec, struct err *e)
{
	uint64_t no;

	switch ((enum rec_type)rec->type) {
	case REC_BASE:
	case REC_OBJECT:
		no = image_ref(&r->loader, rec->type == REC_BASE ? rec->u.base.ref : rec->u.object.ref);
		if (rec->type == REC_OBJECT && no == r->cur)
			return 0;
		if (item_end(r, e))
			return -1;
		r->cur = no;
		r->is_new = r->has_meta = false;
		r->staged = 0;
		if (rec->type == REC_BASE && rec->u.base.flags & BASE_DETACH) {
			struct object o = {0};
			int alive = catalog_get(r->next, no, &o, e);
			object_free(&o);
			r->cur = 0;
			if (alive < 0)
				return -1;
			if (alive)
				return 0;
			if (!r->l->item)
				return 0;
			if (base_path(r, image_ref(&r->loader, rec->u.base.parent), rec->u.base.name, e))
				return -1;
			r->l->item(r->l->ctx, "*deleting  ", span_of(r->path.p, r->path.len));
		}
		return 0;
	case REC_CREATE:
		if (item_end(r, e))
			return -1;
		r->is_new = true;
		r->has_meta = false;
		r->staged = 0;
		r->cur = 0;
		if (rec->u.create.ref == REF_ROOT)
			r->cur = CATALOG_ROOT;
		else if (catalog_lookup(r->next, image_ref(&r->loader, rec->u.create.parent), rec->u.create.name, &r->cur,
				NULL, e) < 0)
			return -1;
		return 0;
	case REC_ATTACH:
		if (item_end(r, e))
			return -1;
		r->cur = 0;
		r->l->n_changed++;
		if (!r->l->item)
			return 0;
		buf_reset(&r->path);
		if (catalog_path(r->next, image_ref(&r->loader, rec->u.attach.parent), rec->u.attach.name, &r->path, e))
			return -1;
		r->l->item(r->l->ctx, "hf.........", span_of(r->path.p, r->path.len));
		return 0;
	case REC_META:
		r->has_meta = true;
		return 0;
	case REC_CONTENT:
		r->staged = 1;
		return 0;
	case REC_DROP:
		r->cur = 0;
		return 0;
	case REC_END: {
		int rc = item_end(r, e);
		r->cur = 0;
		return rc;
	}
	default:
		return 0;
	}
}

/* Where something new is to stand there must be nothing that the catalog does not know. */
static int check_free(struct run *r, const struct record *rec, struct err *e)
{
	struct replica *rp = r->l->r;
	uint64_t parent, known;
	struct span name;
	struct object o = {0};
	char cname[256], text[512];
	struct err why = {0};

	if (rec->type == REC_CREATE && rec->u.create.ref != REF_ROOT) {
		parent = image_ref(&r->loader, rec->u.create.parent);
		name = rec->u.create.name;
	} else if (rec->type == REC_ATTACH) {
		parent = image_ref(&r->loader, rec->u.attach.parent);
		name = rec->u.attach.name;
	} else {
		return 0;
	}
	catalog_see_base(rp->cat, in_base(r));
	int is_base = catalog_get(rp->cat, parent, &o, e);
	int taken = is_base == 1 ? catalog_lookup(rp->cat, parent, name, &known, NULL, e) : 0;
	catalog_see_base(rp->cat, false);
	object_free(&o);
	if (is_base < 0 || taken < 0)
		return -1;
	/* The root of a first image is there before the catalog knows it. */
	if ((!is_base && parent != CATALOG_ROOT) || taken)
		return 0;
	if (parent == CATALOG_ROOT && span_eq(name, span_cstr(REPLICA_CTL)))
		return err_set(e, ERR_STREAM, "the stream names the replica's own directory '" REPLICA_CTL "'");
	if (is_base && base_path(r, parent, (struct span){0}, e))
		return -1;
	int fd = is_base ? path_cached(r->base_dirs, span_of(r->path.p, r->path.len), &why) : rp->root;
	if (fd < 0) {
		err_set(e, ERR_REFUSED, "the directory '%s' is gone from the replica: it was edited",
			esc_cut(text, sizeof text, span_of(r->path.p, r->path.len)));
		return -1;
	}
	c_name(cname, name);
	if (faccessat(fd, cname, F_OK, AT_SYMLINK_NOFOLLOW) == 0 && strcmp(cname, "lost+found"))
		return err_set(e, ERR_REFUSED, "'%s' stands in the replica where the stream makes something new: "
			"move it away", esc_cut(text, sizeof text, name));
	return 0;
}

/* A name that goes must be what the catalog says it is. */
static int check_gone(struct run *r, const struct record *rec, struct err *e)
{
	struct replica *rp = r->l->r;
	const struct r_base *b = &rec->u.base;
	struct object o = {0};
	struct attr a = {0};
	struct err why = {0};
	char cname[256], text[512];
	int rc = -1;

	if (rec->type != REC_BASE)
		return 0;
	uint64_t dir = image_ref(&r->loader, b->parent), no = image_ref(&r->loader, b->ref);
	catalog_see_base(rp->cat, in_base(r));
	int got = catalog_get(rp->cat, no, &o, e);
	catalog_see_base(rp->cat, false);
	if (got != 1 || base_path(r, dir, (struct span){0}, e))
		goto out;
	c_name(cname, b->name);
	int fd = path_cached(r->base_dirs, span_of(r->path.p, r->path.len), &why);
	if (fd < 0 || attr_stat(&a, fd, cname, &why) || a.type != o.type || (o.type == OBJ_FILE && (a.size != o.size ||
			a.meta.mtime_s != o.meta.mtime_s || a.meta.mtime_ns != o.meta.mtime_ns))) {
		bool is_lossy = (o.type == OBJ_CHAR || o.type == OBJ_BLOCK || o.meta.target.len > 1023) && fd >= 0;
		if (!is_lossy) {
			buf_reset(&r->path);
			base_path(r, dir, b->name, &why);
			err_set(e, ERR_REFUSED, "'%s' was edited on the replica: it is not what the image says",
				esc_cut(text, sizeof text, span_of(r->path.p, r->path.len)));
			goto out;
		}
	}
	rc = 0;
out:
	object_free(&o);
	attr_free(&a);
	return rc;
}

static int check_edits(struct run *r, const struct record *rec, struct err *e)
{
	return check_gone(r, rec, e) || check_free(r, rec, e) ? -1 : 0;
}

/* Objects that the delta takes away, those in directories that go included. */
static int check_deletes(struct run *r, struct err *e)
{
	struct land *l = r->l;
	uint64_t before = 0, after = 0;

	catalog_see_base(l->r->cat, in_base(r));
	int rc = catalog_count(l->r->cat, &before, e);
	catalog_see_base(l->r->cat, false);
	if (rc || catalog_count(r->next, &after, e))
		return -1;
	l->n_removed = before + l->n_created > after ? before + l->n_created - after : 0;
	if (l->n_removed > l->max_delete ||
			(l->max_delete_percent < 100 && l->n_removed * 100 > before * l->max_delete_percent))
		return err_set(e, ERR_REFUSED, "the delta removes %llu of %llu objects: --max-delete has to allow it",
			(unsigned long long)l->n_removed, (unsigned long long)before);
	return 0;
}

/* ---- the steps ---- */

static void run_free(struct run *r)
{
	path_cache_free(&r->base_dirs);
	path_cache_free(&r->dirs);
	image_loader_free(&r->loader);
	buf_free(&r->touched);
	buf_free(&r->path);
	buf_free(&r->label);
	buf_free(&r->xattrs);
	free(r->rules);
}

static int load_plan(struct run *r, int fd, const struct digest *want, struct err *e)
{
	struct land *l = r->l;
	char a[65], b[65];

	image_load_start(&r->loader, r->next);
	if (each(r, fd, load_record, e) || image_load_end(&r->loader, &l->id, e))
		return -1;
	if (!digest_eq(&l->id, want)) {
		hex(a, want->b, 8);
		hex(b, l->id.b, 8);
		return err_set(e, ERR_STREAM, "the delta promises the image %s but makes %s", a, b);
	}
	for (size_t i = 0; i < l->n_owners; i++) {
		r->rules = xrealloc(r->rules, (r->n_rules + 1) * sizeof *r->rules);
		r->rules[r->n_rules++] = l->owners[i];
	}
	return each(r, fd, take_owner, e);
}

static int drop_file(struct replica *rp, const char *name, struct err *e)
{
	return unlinkat(rp->ctl, name, 0) && errno != ENOENT ?
		err_sys(e, "cannot remove '%s/" REPLICA_CTL "/%s'", rp->path, name) : 0;
}

static int clean(struct replica *rp, struct err *e)
{
	if (drop_file(rp, "commit", e) || fsync(rp->ctl) || drop_file(rp, "detached", e))
		return -1;
	return replica_discard(rp, e);
}

/* Chooses where the target's catalog grows: a transaction on the live one, or a private copy. */
static int open_next(struct run *r, int fd, struct err *e)
{
	struct replica *rp = r->l->r;
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(e, "cannot read the plan");
	if (st.st_size <= LIVE_BYTES) {
		r->next = rp->cat;
		return catalog_begin(rp->cat, e);
	}
	AUTO_FREE char *path = replica_file(rp, "next");
	if (drop_file(rp, "next", e) || catalog_copy(rp->cat, path, e))
		return -1;
	return catalog_open(&r->next, path, CATALOG_PRIVATE, e);
}

static int commit_next(struct run *r, struct err *e)
{
	struct replica *rp = r->l->r;

	if (r->next == rp->cat)
		return catalog_commit(rp->cat, e);
	if (catalog_settle(r->next, e))
		return -1;
	catalog_close(&r->next);
	catalog_close(&rp->cat);
	if (renameat(rp->ctl, "next", rp->ctl, "catalog") || fsync(rp->ctl))
		return err_sys(e, "cannot replace the catalog of '%s'", rp->path);
	return replica_catalog(rp, CATALOG_LIVE, e);
}

static int mark(struct replica *rp, struct err *e)
{
	AUTO_CLOSE int fd = openat(rp->ctl, "detached", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0 || fsync(fd) || fsync(rp->ctl))
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/detached'", rp->path);
	return 0;
}

/* From the decision on. fd: the plan; loaded. */
static int forward(struct run *r, int fd, struct err *e)
{
	struct replica *rp = r->l->r;

	open_up(rp->root);
	if (!replica_has(rp, "detached") && (each(r, fd, detach_one, e) || replica_sync(rp, e) || mark(rp, e)))
		return -1;
	if (each(r, fd, place_dirs, e) || each(r, fd, place_files, e) || finish_dirs(r, e) || replica_sync(rp, e))
		return -1;
	return commit_next(r, e) || clean(rp, e) ? -1 : 0;
}

static void start(struct run *r)
{
	r->base_dirs = path_cache_new(r->l->r->root);
	r->dirs = path_cache_new(r->l->r->root);
}

static void stop(struct run *r)
{
	struct replica *rp = r->l->r;

	if (r->next && r->next != rp->cat)
		catalog_close(&r->next);
	else if (r->next)
		catalog_abort(rp->cat);
	run_free(r);
}

int land_run(struct land *l, const struct digest *want, struct err *e)
{
	struct run r = {.l = l};
	struct replica *rp = l->r;
	AUTO_CLOSE int fd = openat(rp->ctl, "plan", O_RDONLY | O_CLOEXEC);
	int rc = -1;

	if (fd < 0)
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/plan'", rp->path);
	start(&r);
	if (open_next(&r, fd, e) || load_plan(&r, fd, want, e) || each(&r, fd, check_edits, e) ||
			each(&r, fd, itemize, e) || check_deletes(&r, e))
		goto out;
	r.cur = 0;
	if (replica_sync(rp, e))
		goto out;
	if (renameat(rp->ctl, "plan", rp->ctl, "commit") || fsync(rp->ctl)) {
		err_sys(e, "cannot write '%s/" REPLICA_CTL "/commit'", rp->path);
		goto out;
	}
	r.staged = 0;
	r.is_new = r.has_meta = false;
	rc = forward(&r, fd, e);
out:
	stop(&r);
	return rc;
}

int land_dry(struct land *l, int plan_fd, struct catalog *cat, const struct digest *want, struct err *e)
{
	struct run r = {.l = l, .next = cat};
	int rc = load_plan(&r, plan_fd, want, e);

	if (!rc)
		rc = each(&r, plan_fd, itemize, e) || check_deletes(&r, e) ? -1 : 0;
	run_free(&r);
	return rc;
}

static int find_end(struct run *r, const struct record *rec, struct err *e)
{
	(void)e;
	if (rec->type == REC_END)
		r->l->id = rec->u.end.id;
	return 0;
}

int land_recover(struct land *l, bool *finished, struct err *e)
{
	struct replica *rp = l->r;
	struct run r = {.l = l};
	struct digest want, have;
	int rc = -1;

	*finished = false;
	if (!replica_has(rp, "commit"))
		return drop_file(rp, "detached", e) || replica_discard(rp, e) ? -1 : 0;
	AUTO_CLOSE int fd = openat(rp->ctl, "commit", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/commit'", rp->path);
	start(&r);
	if (each(&r, fd, find_end, e))
		goto out;
	want = l->id;
	if (catalog_id(rp->cat, &have, e))
		goto out;
	*finished = true;
	if (digest_eq(&want, &have)) {
		rc = clean(rp, e);
		goto out;
	}
	if (open_next(&r, fd, e) || load_plan(&r, fd, &want, e))
		goto out;
	rc = forward(&r, fd, e);
out:
	stop(&r);
	return rc;
}
