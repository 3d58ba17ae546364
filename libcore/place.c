#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "path.h"
#include "redo.h"

#define LOCKS 0x30u /* FS_IMMUTABLE_FL, FS_APPEND_FL: only once the object has its last name */

/* ---- places ---- */

static void slot_name(char out[32], uint64_t no) { snprintf(out, 32, "%llu", (unsigned long long)no); }

static int fail(struct place *p, const char *what, const char *name, struct err *e)
{
	char text[300];
	int sys = errno;

	esc_cut(text, sizeof text, span_cstr(name));
	errno = sys;
	return err_sys(e, "cannot %s '%s' in the replica '%s'", what, text, p->plan->r->path);
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

static void touch(struct place *p, uint64_t dir)
{
	if (dir == p->last_touched)
		return;
	p->last_touched = dir;
	wr_u64(&p->touched, dir);
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

/* ---- detaching ---- */

/* Renames; a directory that we may not write cannot get another parent (its ".." changes), an immutable file no other name.
 * 0, or -1 with errno. */
static int move(int from_dir, const char *from, int to_dir, const char *to)
{
	if (renameat(from_dir, from, to_dir, to) == 0)
		return 0;
	if (errno != EPERM && errno != EACCES)
		return -1;
	open_up_at(from_dir, from);
	return renameat(from_dir, from, to_dir, to);
}

/* The same for one more name. */
static int link_to(int from_dir, const char *from, int to_dir, const char *to)
{
	if (linkat(from_dir, from, to_dir, to, 0) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	unlock_at(from_dir, from);
	return linkat(from_dir, from, to_dir, to, 0);
}

static int remove_name(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0)
		return 0;
	if (errno != EPERM)
		return -1;
	unlock_at(dirfd, name);
	return unlinkat(dirfd, name, 0);
}

/* Moves what has no business under a name into a slot of its own, where it is removed in the end. 1: there is nothing. */
static int displace(struct place *p, int dirfd, const char *name, struct err *e)
{
	int slots = p->plan->r->slots;
	char slot[32];

	do /* some may be from before a crash */
		snprintf(slot, sizeof slot, "over-%llu", (unsigned long long)++p->n_displaced);
	while (faccessat(slots, slot, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
	if (move(dirfd, name, slots, slot))
		return errno == ENOENT ? 1 : fail(p, "move", name, e);
	return 0;
}

/* The way there is gone, or something else stands in it: nothing of ours is left behind it. */
static bool is_way_gone(int sys) { return sys == ENOENT || sys == ENOTDIR || sys == ELOOP; }

static int remove_stray(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;
	struct err why = {0};
	char name[REC_NAME_MAX + 1];

	if (rec->type != REC_STRAY)
		return 0;
	uint64_t dir = image_ref(&p->plan->loader, rec->u.stray.parent);
	int fd = plan_base_dir(p->plan, dir, &why);
	if (fd < 0) {
		if (!is_way_gone(why.sys))
			*e = why;
		return is_way_gone(why.sys) ? 0 : -1;
	}
	span_name(name, rec->u.stray.name);
	open_up(fd);
	touch(p, dir);
	return displace(p, fd, name, e) < 0 ? -1 : 0;
}

static int detach(void *ctx, const struct r_base *b, struct err *e)
{
	struct place *p = ctx;
	struct plan *plan = p->plan;
	struct replica *rp = plan->r;
	struct object o = {0};
	struct err why = {0};
	char name[256], slot[32];

	uint64_t dir = image_ref(&plan->loader, b->parent), no = image_ref(&plan->loader, b->ref);
	int alive = catalog_get(plan->next, no, &o, e);
	bool is_dir = o.type == OBJ_DIR;
	object_free(&o);
	if (alive < 0)
		return -1;
	int fd = plan_base_dir(plan, dir, &why);
	if (fd < 0) {
		/* Repeating: the directory is in its slot already, and all its names went before it. */
		if (!is_way_gone(why.sys))
			*e = why;
		return is_way_gone(why.sys) ? 0 : -1;
	}
	span_name(name, b->name);
	slot_name(slot, no);
	open_up(fd);
	if (plan_base_path(plan, dir, b->name, e))
		return -1;
	path_cache_drop(plan->base_dirs, span_of(plan->path.p, plan->path.len));
	if (!alive && remove_name(fd, name) == 0)
		return 0;
	/* A further name of an object that has a slot. */
	if (alive && !is_dir && faccessat(rp->slots, slot, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return remove_name(fd, name) && errno != ENOENT ? fail(p, "remove", name, e) : 0;
	return move(fd, name, rp->slots, slot) && errno != ENOENT ? fail(p, "move", name, e) : 0;
}

int place_detach(struct place *p, struct err *e)
{
	open_up(p->plan->r->root);
	return plan_walk(p->plan, &(struct plan_visit){.detach = detach, .record = remove_stray, .ctx = p}, e);
}

/* ---- owners ---- */

static void add_rule(struct place *p, struct owner_rule rule)
{
	p->rules = xrealloc(p->rules, (p->n_rules + 1) * sizeof *p->rules);
	p->rules[p->n_rules++] = rule;
}

static int take_owner(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;
	const struct r_owner *o = &rec->u.owner;
	char name[300], text[4096];
	uint32_t to = o->id;

	(void)e;
	if (rec->type != REC_OWNER || o->name.len >= sizeof name)
		return 0;
	memcpy(name, o->name.p, o->name.len);
	name[o->name.len] = 0;
	if (o->is_group) {
		struct group g, *found = NULL;
		if (!getgrnam_r(name, &g, text, sizeof text, &found) && found)
			to = found->gr_gid;
	} else {
		struct passwd pw, *found = NULL;
		if (!getpwnam_r(name, &pw, text, sizeof text, &found) && found)
			to = found->pw_uid;
	}
	if (to == o->id)
		return 0;
	add_rule(p, (struct owner_rule){o->is_group, o->id, to});
	return 0;
}

static uint32_t mapped(const struct place *p, bool is_group, uint32_t id)
{
	for (size_t i = 0; i < p->n_rules; i++)
		if (p->rules[i].is_group == is_group && p->rules[i].from == id)
			return p->rules[i].to;
	return id;
}

/* Numbers in POSIX ACLs follow the owners: rows of u16 tag, u16 permissions, u32 id behind a u32 version. */
static void map_acls(struct place *p, struct r_meta *m)
{
	struct span name, value;

	buf_reset(&p->xattrs);
	buf_add(&p->xattrs, m->xattrs.p, m->xattrs.len);
	struct rd rows = rd_of(p->xattrs.p, p->xattrs.len);
	while (xattr_next(&rows, &name, &value)) {
		if (!span_eq(name, span_cstr("system.posix_acl_access")) && !span_eq(name, span_cstr("system.posix_acl_default")))
			continue;
		uint8_t *v = p->xattrs.p + (value.p - p->xattrs.p);
		for (size_t at = 4; at + 8 <= value.len; at += 8) {
			struct rd row = rd_of(v + at, 8);
			unsigned tag = rd_u16(&row);
			rd_u16(&row);
			if (tag != 0x02 && tag != 0x08) /* a named user, a named group */
				continue;
			uint32_t id = mapped(p, tag == 0x08, rd_u32(&row));
			for (unsigned i = 0; i < 4; i++)
				v[at + 4 + i] = (uint8_t)(id >> 8 * i);
		}
	}
	m->xattrs = span_of(p->xattrs.p, p->xattrs.len);
}

/* ---- one object ---- */

static int restore(struct place *p, int dirfd, const char *name, int fd, const struct object *o, uint32_t without, struct err *e)
{
	struct r_meta m = o->meta;
	struct attr_policy policy = p->policy;

	buf_reset(&p->label);
	if (o->no != CATALOG_ROOT && catalog_object_path(p->plan->next, o->no, &p->label, e))
		return -1;
	policy.label = p->label.len ? buf_cstr(&p->label) : ".";
	if (p->n_rules && m.xattrs.len)
		map_acls(p, &m);
	m.attr &= ~without;
	m.uid = mapped(p, false, m.uid);
	m.gid = mapped(p, true, m.gid);
	return attr_restore(dirfd, name, fd, o->type, &m, &policy, e);
}

/* Hints of the replica's own filesystem: how an edit made behind our back is noticed. */
static int refresh_hint(struct place *p, struct object *o, int dirfd, const char *name, struct err *e)
{
	struct attr a = {0};
	int rc = attr_stat(&a, dirfd, name, e);

	if (!rc) {
		o->hint = a.hint;
		o->hint.dev = 0;
		o->hint.flags = o->nlink == 1 ? HINT_SETTLED : 0;
		rc = catalog_put(p->plan->next, o, e);
	}
	attr_free(&a);
	return rc;
}

static int make_special(struct place *p, const struct object *o, const char *staged, struct err *e)
{
	int stage = p->plan->r->stage;
	mode_t type = o->type == OBJ_FIFO ? S_IFIFO : o->type == OBJ_CHAR ? S_IFCHR : S_IFBLK;

	unlinkat(stage, staged, 0);
	if (o->type == OBJ_LINK) {
		AUTO_BUF struct buf t = {0};
		buf_add(&t, o->meta.target.p, o->meta.target.len);
		if (symlinkat(buf_cstr(&t), stage, staged) == 0)
			return 0;
	} else if (o->type != OBJ_FIFO && p->policy.no_devices) {
		errno = EPERM;
	} else if (mknodat(stage, staged, type | 0600, makedev(o->meta.major, o->meta.minor)) == 0) {
		return 0;
	}
	/* No such nodes, numbers or targets as long as that here: it will never work, and what was decided must come to an end. */
	if (errno == EPERM || errno == EOPNOTSUPP || errno == EINVAL || errno == ENAMETOOLONG) {
		char text[300];
		int sys = errno;
		buf_reset(&p->label);
		if (catalog_object_path(p->plan->next, o->no, &p->label, e))
			return -1;
		warn_say(p->warn, o->type == OBJ_LINK ? "link" : "device", "%s '%s' was not made: %s",
			o->type == OBJ_LINK ? "the link" : "the node",
			esc_cut(text, sizeof text, span_of(p->label.p, p->label.len)), strerror(sys));
		return 1;
	}
	return fail(p, o->type == OBJ_LINK ? "make the link" : "make the node", staged, e);
}

/* Puts a finished object over a name: by way of the stage, so that the name is never absent. 1: it is not in the stage, so it is
 * in its place already. */
static int put_over(struct place *p, const char *staged, int dirfd, const char *name, struct err *e)
{
	int stage = p->plan->r->stage;

	if (renameat(stage, staged, dirfd, name) == 0)
		return 0;
	if (errno == EPERM) { /* what stands there is immutable */
		unlock_at(dirfd, name);
		if (renameat(stage, staged, dirfd, name) == 0)
			return 0;
	}
	if (errno == EISDIR) { /* what is wanted has a directory in its place */
		if (displace(p, dirfd, name, e) < 0)
			return -1;
		if (renameat(stage, staged, dirfd, name) == 0)
			return 0;
	}
	return errno == ENOENT ? 1 : fail(p, "place", name, e);
}

/* An object and the name that it is reached by while it is worked on. */
struct target {
	struct object o;
	uint64_t dir;
	char name[256];
};

static int target_dir(struct place *p, const struct target *t, struct err *e) { return plan_dir(p->plan, t->dir, e); }

/* The name that stands already: others of its names may be attached later in the plan. */
static int find_name(struct place *p, struct target *t, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	for (unsigned nth = 0; nth < t->o.nlink; nth++) {
		if (catalog_nth_name(p->plan->next, t->o.no, nth, &t->dir, &name, e) != 1)
			return -1;
		span_name(t->name, span_of(name.p, name.len));
		if (nth + 1 == t->o.nlink)
			break;
		int fd = target_dir(p, t, e);
		if (fd < 0)
			return -1;
		if (faccessat(fd, t->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			break;
	}
	return 0;
}

/* This filesystem allows no more names for one object: it will never work, and what was decided must come to an end. */
static int too_many_names(struct place *p, uint64_t no, struct err *e)
{
	char text[300];

	buf_reset(&p->label);
	if (catalog_object_path(p->plan->next, no, &p->label, e))
		return -1;
	warn_say(p->warn, "link", "a hard link to '%s' was not made: %s", esc_cut(text, sizeof text, span_of(p->label.p, p->label.len)),
		strerror(EMLINK));
	return 0;
}

/* One more name, replaced in one step. 1: the filesystem allows no more of them. */
static int link_over(struct place *p, const struct target *t, uint64_t dir, const char *name, struct err *e)
{
	int stage = p->plan->r->stage, fd = target_dir(p, t, e);
	struct err why = {0};

	if (fd < 0)
		return -1;
	unlinkat(stage, "link", 0);
	if (link_to(fd, t->name, stage, "link"))
		return errno == EMLINK ? 1 : fail(p, "link", t->name, e);
	if ((fd = plan_dir(p->plan, dir, e)) < 0)
		return -1;
	int rc = put_over(p, "link", fd, name, &why);
	unlinkat(stage, "link", 0); /* rename(2) of two names of one file does nothing */
	if (rc < 0 && why.sys == EMLINK) /* btrfs has a limit for each directory */
		return 1;
	if (rc < 0)
		*e = why;
	return rc < 0 ? -1 : 0;
}

/* The other names follow the first. */
static int link_others(struct place *p, const struct target *t, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	for (unsigned nth = 0; nth < t->o.nlink; nth++) {
		uint64_t other;
		char oname[256];
		if (catalog_nth_name(p->plan->next, t->o.no, nth, &other, &name, e) != 1)
			return -1;
		span_name(oname, span_of(name.p, name.len));
		if (other == t->dir && !strcmp(oname, t->name))
			continue;
		int fd = plan_dir(p->plan, other, e);
		if (fd < 0)
			return -1;
		open_up(fd);
		touch(p, other);
		int rc = link_over(p, t, other, oname, e);
		if (rc == 1) {
			if ((fd = plan_dir(p->plan, other, e)) < 0)
				return -1;
			/* It must not go on being a name of what it was. */
			if (remove_name(fd, oname) && errno != ENOENT)
				return fail(p, "remove", oname, e);
			rc = too_many_names(p, t->o.no, e);
		}
		if (rc)
			return -1;
	}
	return 0;
}

/* Opens it where it stands, and up if need be. Owned; -1. */
static int open_target(struct place *p, const struct target *t, int flags, struct err *e)
{
	int dirfd = target_dir(p, t, e), fd;

	if (dirfd < 0)
		return -1;
	fd = path_open_at(dirfd, t->name, flags, 0);
	if (fd < 0 && errno == EPERM) {
		unlock_at(dirfd, t->name);
		fd = path_open_at(dirfd, t->name, flags, 0);
	}
	if (fd < 0 && errno == EACCES && geteuid() && fchmodat(dirfd, t->name, 0600, AT_SYMLINK_NOFOLLOW) == 0)
		fd = path_open_at(dirfd, t->name, flags, 0);
	return fd < 0 ? fail(p, "open", t->name, e) : fd;
}

/* Metadata of what stands in its place. */
static int restore_in_place(struct place *p, const struct target *t, struct err *e)
{
	AUTO_CLOSE int fd = -1;

	if (t->o.type == OBJ_FILE && (fd = open_target(p, t, O_RDONLY, e)) < 0)
		return -1;
	int dirfd = target_dir(p, t, e);
	return dirfd < 0 ? -1 : restore(p, dirfd, t->name, fd, &t->o, 0, e);
}

/* A staged or new object takes the place of whatever has its names. */
static int replace(struct place *p, const struct target *t, const char *staged, struct err *e)
{
	int stage = p->plan->r->stage;
	AUTO_CLOSE int fd = t->o.type == OBJ_FILE ? path_open_at(stage, staged, O_RDWR, 0) : -1;

	/* Absent: repeating, and it is in its place already. */
	if (t->o.type == OBJ_FILE && fd < 0 && errno != ENOENT)
		return fail(p, "open the staged", t->name, e);
	if ((t->o.type != OBJ_FILE || fd >= 0) && restore(p, stage, staged, fd, &t->o, LOCKS, e))
		return -1;
	int dirfd = target_dir(p, t, e);
	if (dirfd < 0)
		return -1;
	open_up(dirfd);
	touch(p, t->dir);
	if (put_over(p, staged, dirfd, t->name, e) < 0 || link_others(p, t, e))
		return -1;
	return t->o.meta.attr & LOCKS ? restore_in_place(p, t, e) : 0;
}

/* Changes a file in place, while nobody can see it: with a write lease on it, which nobody gets who shares it, others wait in
 * open(2) (fcntl(2), at most /proc/sys/fs/lease-break-time seconds). 1: somebody has it open, or a hard link to it that is not
 * of the image; nothing was changed. */
static int patch_in_place(struct place *p, const struct target *t, const char *staged, struct err *e)
{
	struct err why = {0};
	AUTO_CLOSE int fd = open_target(p, t, O_RDWR, &why);
	struct stat st;

	if (fd < 0 && why.sys == ETXTBSY) /* a program that is running */
		return 1;
	if (fd < 0) {
		*e = why;
		return -1;
	}
	/* SIGURG instead of SIGIO, which would end the process, when somebody waits. */
	if (fstat(fd, &st) || st.st_nlink != t->o.nlink || fcntl(fd, F_SETSIG, SIGURG) || fcntl(fd, F_SETLEASE, F_WRLCK))
		return 1;
	if (redo_replay(p->plan->r, staged, fd, t->o.size, e))
		return -1;
	int dirfd = target_dir(p, t, e);
	return dirfd < 0 ? -1 : restore(p, dirfd, t->name, fd, &t->o, 0, e);
}

static int place_file(struct place *p, const struct target *t, const char *staged, struct err *e)
{
	if (!redo_is(p->plan->r, staged))
		return replace(p, t, staged, e);
	int rc = patch_in_place(p, t, staged, e);
	if (rc <= 0)
		return rc;
	AUTO_CLOSE int fd = open_target(p, t, O_RDONLY, e);
	return fd < 0 || redo_fill(p->plan->r, staged, fd, t->o.size, e) ? -1 : replace(p, t, staged, e);
}

/* Everything about an object but its directory's times happens here. */
static int place_object(void *ctx, const struct plan_object *po, struct err *e)
{
	struct place *p = ctx;
	struct target t = {0};
	char staged[32];
	int rc = catalog_get(p->plan->next, po->no, &t.o, e);

	if (rc != 1) /* dropped again */
		goto out;
	if (t.o.type == OBJ_DIR) {
		touch(p, t.o.no);
		rc = 0;
		goto out;
	}
	rc = -1;
	if (find_name(p, &t, e))
		goto out;
	if (t.o.type != OBJ_FILE) {
		/* A link's target and a node's number cannot be changed, only replaced. */
		snprintf(staged, sizeof staged, "s%llu", (unsigned long long)t.o.no);
		if ((rc = make_special(p, &t.o, staged, e)) != 0) {
			rc = rc < 0 ? -1 : 0;
			goto out;
		}
		rc = replace(p, &t, staged, e);
	} else if (po->staged || po->is_new) {
		snprintf(staged, sizeof staged, "%llu", (unsigned long long)po->staged);
		rc = place_file(p, &t, staged, e);
	} else {
		rc = restore_in_place(p, &t, e);
	}
	if (!rc) {
		int dirfd = target_dir(p, &t, e);
		rc = dirfd < 0 ? -1 : refresh_hint(p, &t.o, dirfd, t.name, e);
	}
out:
	object_free(&t.o);
	return rc;
}

/* ---- further names ---- */

/* 0 done, 1 the source is not there, -1. */
static int link_name(struct place *p, uint64_t no, int from_dir, const char *from, int to_dir, const char *to, struct err *e)
{
	if (link_to(from_dir, from, to_dir, to) == 0 || errno == EEXIST)
		return 0;
	if (errno == EMLINK)
		return too_many_names(p, no, e);
	return errno == ENOENT ? 1 : fail(p, "link", to, e);
}

/* From one of the names that it has elsewhere. */
static int link_from_other(struct place *p, uint64_t no, uint64_t parent, struct span to, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	char from[256], cname[256];
	uint64_t dir;
	int got;

	span_name(cname, to);
	for (unsigned nth = 0; (got = catalog_nth_name(p->plan->next, no, nth, &dir, &name, e)) == 1; nth++) {
		if (dir == parent && span_eq(span_of(name.p, name.len), to))
			continue;
		span_name(from, span_of(name.p, name.len));
		int shared = plan_dir(p->plan, dir, e);
		if (shared < 0)
			return -1;
		AUTO_CLOSE int from_dir = fcntl(shared, F_DUPFD_CLOEXEC, 0);
		if (from_dir < 0)
			return fail(p, "open", from, e);
		int to_dir = plan_dir(p->plan, parent, e);
		int rc = to_dir < 0 ? -1 : link_name(p, no, from_dir, from, to_dir, cname, e);
		if (rc <= 0)
			return rc;
	}
	/* Its other names come later in the plan; they will link to this one's content when that is placed. */
	return got < 0 ? -1 : 0;
}

static int attach_file(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;
	int slots = p->plan->r->slots;
	uint64_t parent = image_ref(&p->plan->loader, a->parent), no = image_ref(&p->plan->loader, a->ref);
	struct object o = {0};
	char name[256], slot[32];
	int rc = catalog_get(p->plan->next, no, &o, e);

	if (rc != 1 || o.type == OBJ_DIR) {
		rc = rc < 0 ? -1 : 0;
		goto out;
	}
	rc = -1;
	int fd = plan_dir(p->plan, parent, e);
	if (fd < 0)
		goto out;
	span_name(name, a->name);
	slot_name(slot, no);
	open_up(fd);
	touch(p, parent);
	if (o.nlink == 1) {
		if (move(slots, slot, fd, name) && errno != ENOENT)
			fail(p, "move", name, e);
		else
			rc = refresh_hint(p, &o, fd, name, e);
	} else {
		rc = link_name(p, no, slots, slot, fd, name, e);
		/* Not detached: it keeps a name somewhere; or it is new, and the name it was created under stands. */
		if (rc == 1)
			rc = link_from_other(p, no, parent, a->name, e);
	}
out:
	object_free(&o);
	return rc;
}

/* ---- what names that go and come do to others ---- */

/* An immutable object was opened up to be moved, or to get or lose a name: with all its names it is closed again. */
static int relock(struct place *p, uint64_t no, struct err *e)
{
	struct target t = {0};
	char slot[32];
	int rc = catalog_get(p->plan->next, no, &t.o, e);

	if (rc != 1 || t.o.type != OBJ_FILE || !(t.o.meta.attr & LOCKS)) {
		rc = rc < 0 ? -1 : 0;
		goto out;
	}
	/* What is left in its slot is a name that it lost while it kept others. */
	slot_name(slot, no);
	if (remove_name(p->plan->r->slots, slot) && errno != ENOENT)
		rc = fail(p, "remove", slot, e);
	else
		rc = find_name(p, &t, e) || restore_in_place(p, &t, e) ? -1 : 0;
	if (!rc) {
		int dirfd = target_dir(p, &t, e);
		rc = dirfd < 0 ? -1 : refresh_hint(p, &t.o, dirfd, t.name, e);
	}
out:
	object_free(&t.o);
	return rc;
}

static int settle_attached(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;

	return relock(p, image_ref(&p->plan->loader, a->ref), e);
}

/* Its directory gets its times back also when the name went in a run that was interrupted. */
static int settle_detached(void *ctx, const struct r_base *b, struct err *e)
{
	struct place *p = ctx;

	touch(p, image_ref(&p->plan->loader, b->parent));
	return relock(p, image_ref(&p->plan->loader, b->ref), e);
}

/* ---- directories ---- */

/* A wanted directory, where it is not or something else is. */
static int ensure_dir(struct place *p, int dirfd, const char *name, struct err *e)
{
	struct stat st;

	if (mkdirat(dirfd, name, 0700) == 0)
		return 0;
	if (errno == EEXIST && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
		return 0;
	if (errno == EEXIST && displace(p, dirfd, name, e) < 0)
		return -1;
	return mkdirat(dirfd, name, 0700) ? fail(p, "make", name, e) : 0;
}

static int wanted_dir(void *ctx, const struct plan_object *po, struct err *e)
{
	struct place *p = ctx;
	struct object o = {0};
	AUTO_BUF struct buf name = {0};
	char cname[REC_NAME_MAX + 1];
	uint64_t parent;

	if (po->no == CATALOG_ROOT || !bits_has(&p->wanted, po->no))
		return 0;
	int got = catalog_get(p->plan->next, po->no, &o, e);
	bool is_dir = got == 1 && o.type == OBJ_DIR;
	object_free(&o);
	if (!is_dir)
		return got < 0 ? -1 : 0;
	if (catalog_name(p->plan->next, po->no, &parent, &name, e) != 1)
		return -1;
	int fd = plan_dir(p->plan, parent, e);
	if (fd < 0)
		return -1;
	span_name(cname, span_of(name.p, name.len));
	open_up(fd);
	touch(p, parent);
	return ensure_dir(p, fd, cname, e);
}

static int make_dir(struct place *p, const struct r_create *c, struct err *e)
{
	uint64_t parent = image_ref(&p->plan->loader, c->parent);
	int fd = plan_dir(p->plan, parent, e);
	char name[256];

	if (fd < 0)
		return -1;
	span_name(name, c->name);
	open_up(fd);
	touch(p, parent);
	return mkdirat(fd, name, 0700) && errno != EEXIST ? fail(p, "make", name, e) : 0;
}

static int attach_dir(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;
	uint64_t parent = image_ref(&p->plan->loader, a->parent), no = image_ref(&p->plan->loader, a->ref);
	struct object o = {0};
	char name[256], slot[32];
	int got = catalog_get(p->plan->next, no, &o, e);
	bool is_dir = got == 1 && o.type == OBJ_DIR;

	object_free(&o);
	if (!is_dir)
		return got < 0 ? -1 : 0;
	int fd = plan_dir(p->plan, parent, e);
	if (fd < 0)
		return -1;
	span_name(name, a->name);
	slot_name(slot, no);
	open_up(fd);
	touch(p, parent);
	touch(p, no);
	return move(p->plan->r->slots, slot, fd, name) && errno != ENOENT ? fail(p, "move", name, e) : 0;
}

static int dirs_record(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;
	const struct r_create *c = &rec->u.create;

	if (rec->type == REC_BASE && rec->u.base.flags & BASE_WANTED)
		bits_put(&p->wanted, image_ref(&p->plan->loader, rec->u.base.ref));
	/* After a crash, what detaching touched is not remembered. */
	if (rec->type == REC_STRAY)
		touch(p, image_ref(&p->plan->loader, rec->u.stray.parent));
	else if (rec->type == REC_BASE && rec->u.base.flags & BASE_DETACH)
		touch(p, image_ref(&p->plan->loader, rec->u.base.parent));
	return rec->type == REC_CREATE && c->type == OBJ_DIR && c->ref != REF_ROOT ? make_dir(ctx, c, e) : 0;
}

static int by_depth(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	if (x[1] != y[1])
		return x[1] < y[1] ? 1 : -1;
	return (x[0] > y[0]) - (x[0] < y[0]);
}

/* Directories last, the deepest first: nothing below them changes any more. */
static int finish_dirs(struct place *p, struct err *e)
{
	size_t n = p->touched.len / 8;
	AUTO_FREE uint64_t *rows = xalloc((n + 1) * 2 * sizeof *rows);
	AUTO_BUF struct buf name = {0};
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t no = get_le64(p->touched.p + 8 * i), up = no, depth = 0;
		int got = 1;
		struct object o = {0};
		got = catalog_get(p->plan->next, no, &o, e);
		object_free(&o);
		if (got < 0)
			return -1;
		if (!got) /* it went */
			continue;
		for (; up != CATALOG_ROOT; depth++)
			if ((got = catalog_name(p->plan->next, up, &up, &name, e)) != 1)
				return got < 0 ? -1 : err_set(e, ERR_SYSTEM, "the catalog is damaged: a directory without a name");
		rows[2 * used] = no;
		rows[2 * used++ + 1] = depth;
	}
	qsort(rows, used, 2 * sizeof *rows, by_depth);
	for (size_t i = 0; i < used; i++) {
		struct object o = {0};
		if (i && rows[2 * i] == rows[2 * i - 2])
			continue;
		int fd = plan_dir(p->plan, rows[2 * i], e);
		if (fd < 0 || catalog_get(p->plan->next, rows[2 * i], &o, e) != 1 || restore(p, fd, NULL, fd, &o, 0, e) ||
				refresh_hint(p, &o, fd, NULL, e)) {
			object_free(&o);
			return -1;
		}
		object_free(&o);
	}
	return 0;
}

int place_all(struct place *p, struct err *e)
{
	const struct plan_visit owners = {.record = take_owner, .ctx = p};
	const struct plan_visit dirs = {.record = dirs_record, .attach = attach_dir, .object = wanted_dir, .ctx = p};
	const struct plan_visit files = {.object = place_object, .attach = attach_file, .ctx = p};
	const struct plan_visit settle = {.detach = settle_detached, .attach = settle_attached, .ctx = p};

	open_up(p->plan->r->root);
	if (p->map_names && plan_walk(p->plan, &owners, e))
		return -1;
	return plan_walk(p->plan, &dirs, e) || plan_walk(p->plan, &files, e) || plan_walk(p->plan, &settle, e) ||
		finish_dirs(p, e) ? -1 : 0;
}

/* 1: it stands there, 0: nothing does, and it is of a kind that may be missing; else it was edited: -1. */
static int stands(const struct object *o, int dirfd, const char *name)
{
	struct attr a = {0};
	struct err why = {0};

	if (attr_stat(&a, dirfd, name, &why))
		return why.sys == ENOENT && o->type != OBJ_FILE && o->type != OBJ_DIR ? 0 : -1;
	bool is_same = a.type == o->type && (o->type != OBJ_FILE || a.size == o->size);
	attr_free(&a);
	return is_same ? 1 : -1;
}

static int make_missing(struct place *p, int dirfd, const char *name, const struct object *o, struct err *e)
{
	char staged[32];

	snprintf(staged, sizeof staged, "s%llu", (unsigned long long)o->no);
	int lost = make_special(p, o, staged, e);
	if (lost)
		return lost;
	open_up(dirfd);
	return put_over(p, staged, dirfd, name, e);
}

int place_again(struct place *p, int dirfd, const char *name, struct object *o, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	int there = stands(o, dirfd, name);

	if (there == 0) {
		int rc = make_missing(p, dirfd, name, o, e);
		if (rc)
			return rc < 0 ? -1 : 0;
	}
	if (there >= 0 && o->type == OBJ_FILE)
		fd = path_open_at(dirfd, name, O_RDONLY, 0);
	if (there < 0 || (o->type == OBJ_FILE && fd < 0)) {
		char text[300];
		buf_reset(&p->label);
		if (catalog_object_path(p->plan->next, o->no, &p->label, e))
			return -1;
		warn_say(p->warn, "edited", "'%s' is not what the image says: left alone",
			esc_cut(text, sizeof text, span_of(p->label.p, p->label.len)));
		return 0;
	}
	return restore(p, dirfd, name, o->type == OBJ_DIR ? dirfd : fd, o, 0, e) || refresh_hint(p, o, dirfd, name, e) ? -1 : 0;
}

void place_free(struct place *p)
{
	buf_free(&p->touched);
	buf_free(&p->wanted);
	buf_free(&p->label);
	buf_free(&p->xattrs);
	free(p->rules);
	p->rules = NULL;
}

void place_start(struct place *p, struct plan *plan, const struct owner_rule *rules, size_t n)
{
	p->plan = plan;
	for (size_t i = 0; i < n; i++)
		add_rule(p, rules[i]);
}
