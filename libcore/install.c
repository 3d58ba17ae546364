#include "install.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "attr.h"
#include "entry.h"
#include "file.h"
#include "inode.h"
#include "path.h"
#include "redo.h"

void install_slot(char out[32], uint64_t no) { snprintf(out, 32, "%llu", (unsigned long long)no); }

int install_fail(struct install *p, const char *what, const char *name, struct err *e)
{
	char text[300];
	int sys = errno;

	esc_cut(text, sizeof text, span_cstr(name));
	errno = sys;
	return err_sys(e, "cannot %s '%s' in the replica '%s'", what, text, p->plan->r->path);
}

void install_touch(struct install *p, uint64_t dir)
{
	if (dir == p->last_touched)
		return;
	p->last_touched = dir;
	wr_u64(&p->touched, dir);
}

void install_enter(struct install *p, uint64_t dir, int fd)
{
	if (dir != p->last_entered)
		entry_open_up(fd);
	p->last_entered = dir;
	install_touch(p, dir);
}

int install_remove(struct install *p, int dirfd, const char *name)
{
	int old = freeing_hold(dirfd, name), rc = entry_remove(dirfd, name), sys = errno;

	freeing_gone(&p->freeing, old);
	errno = sys;
	return rc;
}

int install_displace(struct install *p, int dirfd, const char *name, struct err *e)
{
	int slots = p->plan->room->slots;
	char slot[32];

	do /* some may be from before a crash */
		snprintf(slot, sizeof slot, "over-%llu", (unsigned long long)++p->n_displaced);
	while (faccessat(slots, slot, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
	if (entry_move(dirfd, name, slots, slot))
		return errno == ENOENT ? 1 : install_fail(p, "move", name, e);
	return 0;
}

static int restore(struct install *p, int dirfd, const char *name, int fd, const struct object *o, uint32_t without,
	struct err *e)
{
	struct r_meta m = o->meta;
	struct meta_policy policy = p->policy;

	buf_reset(&p->label);
	if (o->no != CATALOG_ROOT && catalog_object_path(p->plan->next, o->no, &p->label, e))
		return -1;
	policy.label = p->label.len ? buf_cstr(&p->label) : ".";
	owners_map(&p->owners, &m);
	m.attr &= ~without;
	return meta_restore(dirfd, name, fd, o->type, &m, &policy, e);
}

/* Hints of the replica's own filesystem: how an edit made behind our back is noticed. */
static int put_hint(struct install *p, struct object *o, const struct attr *a, struct err *e)
{
	o->hint = attr_settled(a, o->nlink);
	return catalog_put(p->plan->next, o, e);
}

int install_hint(struct install *p, struct object *o, int dirfd, const char *name, struct err *e)
{
	struct attr a = {0};
	int rc = attr_stat(&a, dirfd, name, e) || put_hint(p, o, &a, e) ? -1 : 0;

	attr_free(&a);
	return rc;
}

/* What attr_stat says is all there is about something that was staged, and it is right. */
static bool is_done(struct install *p, const struct attr *a, const struct object *o)
{
	struct r_meta want = o->meta;

	owners_map(&p->owners, &want);
	return p->plan->room->is_bare && !p->policy.no_owner && a->type == o->type && attr_same(&a->meta, &want);
}

/* It was given all its metadata when it was staged. */
static bool is_dressed(struct install *p, const char *staged, const struct object *o)
{
	struct attr a = {0};
	struct err ignored = {0};
	bool is_it = o->type == OBJ_FILE && !attr_stat(&a, p->plan->room->stage, staged, &ignored) && is_done(p, &a, o);

	attr_free(&a);
	return is_it;
}

static int make_special(struct install *p, const struct object *o, const char *staged, struct err *e)
{
	int stage = p->plan->room->stage;
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
	bool is_never = errno == EPERM || errno == EOPNOTSUPP || errno == EINVAL || errno == ENAMETOOLONG || errno == ENOSYS;
	if (is_never || (errno == EIO && !p->plan->room->takes_all)) { /* exfat-fuse says so */
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
	return install_fail(p, o->type == OBJ_LINK ? "make the link" : "make the node", staged, e);
}

/* Puts a finished object over a name: by way of the stage, so that the name is never absent. 1: it is not in the stage, so it is
 * in its place already. */
static int put_over(struct install *p, const char *staged, int dirfd, const char *name, struct err *e)
{
	int stage = p->plan->room->stage, old = freeing_hold(dirfd, name), rc = entry_move(stage, staged, dirfd, name);

	if (rc && errno == EPERM) { /* what stands there is immutable */
		entry_unlock(dirfd, name);
		rc = entry_move(stage, staged, dirfd, name);
	}
	int sys = errno;
	freeing_gone(&p->freeing, old);
	if (!rc)
		return 0;
	errno = sys;
	if (errno == EISDIR) { /* what is wanted has a directory in its place */
		if (install_displace(p, dirfd, name, e) < 0)
			return -1;
		if (entry_move(stage, staged, dirfd, name) == 0)
			return 0;
	}
	return errno == ENOENT ? 1 : install_fail(p, "place", name, e);
}

/* The same where nothing has the name, as far as is known. */
static int put_new(struct install *p, const char *staged, int dirfd, const char *name, struct err *e)
{
	return renameat2(p->plan->room->stage, staged, dirfd, name, RENAME_NOREPLACE) ? put_over(p, staged, dirfd, name, e) : 0;
}

static int target_dir(struct install *p, const struct install_target *t, struct err *e) { return plan_dir(p->plan, t->dir, e); }

int install_find_name(struct install *p, struct install_target *t, struct err *e)
{
	struct catalog_names n = {0};
	uint32_t left = t->o.nlink;
	int got;

	catalog_names_start(&n, p->plan->next, t->o.no);
	while ((got = catalog_names_next(&n, e)) == 1) {
		t->dir = n.dir;
		span_name(t->name, n.name);
		if (--left == 0)
			break;
		int fd = target_dir(p, t, e);
		if (fd < 0)
			got = -1;
		if (fd < 0 || faccessat(fd, t->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			break;
	}
	catalog_names_free(&n);
	return got == 1 ? 0 : got < 0 ? -1 : catalog_damaged(p->plan->next, "an object in it lacks a name", e);
}

bool install_cannot_link(int sys) { return sys == EMLINK || sys == EXDEV || sys == EPERM || sys == EOPNOTSUPP || sys == ENOSYS; }

int install_not_linked(struct install *p, uint64_t no, int sys, struct err *e)
{
	char text[300];

	buf_reset(&p->label);
	if (catalog_object_path(p->plan->next, no, &p->label, e))
		return -1;
	warn_say(p->warn, "link", "a hard link to '%s' was not made: %s", esc_cut(text, sizeof text, span_of(p->label.p, p->label.len)),
		strerror(sys));
	return 0;
}

int install_copy(struct install *p, const struct object *o, int from_dir, const char *from, int to_dir, const char *name,
	struct err *e)
{
	int stage = p->plan->room->stage, sys = errno;
	char text[300];

	if (p->plan->room->takes_all || o->type != OBJ_FILE)
		return sys;
	AUTO_CLOSE int in = path_open_at(from_dir, from, O_RDONLY, 0);
	AUTO_CLOSE int out = in < 0 ? -1 : openat(stage, "link", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0 || file_clone(in, out, o->size))
		return install_fail(p, "copy", from, e);
	if (restore(p, stage, "link", out, o, 0, e) || put_over(p, "link", to_dir, name, e) < 0)
		return -1;
	warn_say(p->warn, "link", "'%s' is a copy of another file, no hard link to it: %s",
		esc_cut(text, sizeof text, span_cstr(name)), strerror(sys));
	return 0;
}

/* One more name, replaced in one step. Positive: the errno of a filesystem that does not allow it. */
static int link_over(struct install *p, const struct install_target *t, uint64_t dir, const char *name, struct err *e)
{
	int fd = target_dir(p, t, e), stage = p->plan->room->stage;
	struct err why = {0};

	if (fd < 0)
		return -1;
	unlinkat(stage, "link", 0);
	if (entry_link(fd, t->name, stage, "link")) {
		if (!install_cannot_link(errno))
			return install_fail(p, "link", t->name, e);
		int sys = errno;
		AUTO_CLOSE int from = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		int to = from < 0 ? -1 : plan_dir(p->plan, dir, e);
		errno = sys;
		return to < 0 ? -1 : install_copy(p, &t->o, from, t->name, to, name, e);
	}
	if ((fd = plan_dir(p->plan, dir, e)) < 0)
		return -1;
	int rc = put_over(p, "link", fd, name, &why);
	unlinkat(stage, "link", 0); /* rename(2) of two names of one file does nothing */
	if (rc < 0 && why.sys == EMLINK) /* btrfs has a limit for each directory */
		return EMLINK;
	if (rc < 0)
		*e = why;
	return rc < 0 ? -1 : 0;
}

static int link_other(struct install *p, const struct install_target *t, uint64_t other, const char *name, struct err *e)
{
	int fd = plan_dir(p->plan, other, e);

	if (fd < 0)
		return -1;
	install_enter(p, other, fd);
	int rc = link_over(p, t, other, name, e);
	if (rc <= 0)
		return rc;
	if ((fd = plan_dir(p->plan, other, e)) < 0)
		return -1;
	/* It must not go on being a name of what it was. */
	if (entry_remove(fd, name) && errno != ENOENT)
		return install_fail(p, "remove", name, e);
	return install_not_linked(p, t->o.no, rc, e);
}

/* The other names follow the first. */
static int link_others(struct install *p, const struct install_target *t, struct err *e)
{
	struct catalog_names n = {0};
	char name[256];
	int got = 0;

	if (t->o.nlink < 2)
		return 0;
	catalog_names_start(&n, p->plan->next, t->o.no);
	while ((got = catalog_names_next(&n, e)) == 1) {
		span_name(name, n.name);
		if ((n.dir != t->dir || strcmp(name, t->name)) && link_other(p, t, n.dir, name, e)) {
			got = -1;
			break;
		}
	}
	catalog_names_free(&n);
	return got;
}

/* Opens it where it stands, and up if need be. Owned; -1. */
static int open_target(struct install *p, const struct install_target *t, int flags, struct err *e)
{
	int dirfd = target_dir(p, t, e), fd;

	if (dirfd < 0)
		return -1;
	fd = path_open_at(dirfd, t->name, flags, 0);
	if (fd < 0 && errno == EPERM) {
		entry_unlock(dirfd, t->name);
		fd = path_open_at(dirfd, t->name, flags, 0);
	}
	if (fd < 0 && errno == EACCES && geteuid() && fchmodat(dirfd, t->name, 0600, AT_SYMLINK_NOFOLLOW) == 0)
		fd = path_open_at(dirfd, t->name, flags, 0);
	return fd < 0 ? install_fail(p, "open", t->name, e) : fd;
}

int install_restore(struct install *p, const struct install_target *t, struct err *e)
{
	AUTO_CLOSE int fd = -1;

	if (t->o.type == OBJ_FILE && (fd = open_target(p, t, O_RDONLY, e)) < 0)
		return -1;
	int dirfd = target_dir(p, t, e);
	return dirfd < 0 ? -1 : restore(p, dirfd, t->name, fd, &t->o, 0, e);
}

/* Owned; -1 with errno. It may have its mode already, which need not let us in. */
static int open_staged(int stage, const char *staged)
{
	int fd = path_open_at(stage, staged, O_RDWR, 0);

	if (fd < 0 && errno == EACCES && fchmodat(stage, staged, 0600, AT_SYMLINK_NOFOLLOW) == 0)
		fd = path_open_at(stage, staged, O_RDWR, 0);
	return fd;
}

/* Its metadata while it is staged. 1: it is not, so repeating it is in its place already. */
static int dress(struct install *p, const struct install_target *t, const char *staged, struct err *e)
{
	int stage = p->plan->room->stage;
	AUTO_CLOSE int fd = t->o.type == OBJ_FILE ? open_staged(stage, staged) : -1;

	if (t->o.type == OBJ_FILE && fd < 0)
		return errno == ENOENT ? 1 : install_fail(p, "open the staged", t->name, e);
	/* The locks only once the object has its last name. */
	return restore(p, stage, staged, fd, &t->o, INODE_LOCKS, e);
}

/* A staged or new object takes the place of whatever has its names. */
static int replace(struct install *p, const struct install_target *t, const char *staged, bool is_new, struct err *e)
{
	int absent = is_dressed(p, staged, &t->o) ? 0 : dress(p, t, staged, e), dirfd = absent < 0 ? -1 : target_dir(p, t, e);

	if (dirfd < 0)
		return -1;
	install_enter(p, t->dir, dirfd);
	int rc = is_new ? put_new(p, staged, dirfd, t->name, e) : put_over(p, staged, dirfd, t->name, e);
	if (rc < 0 || link_others(p, t, e))
		return -1;
	return absent || t->o.meta.attr & INODE_LOCKS ? install_restore(p, t, e) : 0;
}

/* It came with its directory. 1: it did not. */
static int came_along(struct install *p, const struct install_target *t, struct err *e)
{
	int dirfd = target_dir(p, t, e);
	struct attr a = {0};
	struct err why = {0};

	if (dirfd < 0)
		return -1;
	int rc = attr_stat(&a, dirfd, t->name, &why);
	bool is_right = !rc && is_done(p, &a, &t->o);
	attr_free(&a);
	if (!rc)
		return link_others(p, t, e) || (!is_right && install_restore(p, t, e)) ? -1 : 0; /* what is immutable gets no more names */
	if (why.sys != ENOENT)
		*e = why;
	return why.sys == ENOENT ? 1 : -1;
}

/* Changes a file in place, while nobody can see it: with a write lease on it, which nobody gets who shares it, others wait in
 * open(2) (fcntl(2), at most /proc/sys/fs/lease-break-time seconds). 1: somebody has it open, or a hard link to it that is not
 * of the image; nothing was changed. */
static int patch_in_place(struct install *p, const struct install_target *t, const char *staged, struct err *e)
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
	if (redo_replay(p->plan->room->stage, staged, fd, t->o.size, e))
		return -1;
	int dirfd = target_dir(p, t, e);
	return dirfd < 0 ? -1 : restore(p, dirfd, t->name, fd, &t->o, 0, e);
}

static int put_file(struct install *p, const struct install_target *t, const char *staged, struct err *e)
{
	if (!redo_is(p->plan->room->stage, staged))
		return replace(p, t, staged, false, e);
	int rc = patch_in_place(p, t, staged, e);
	if (rc <= 0)
		return rc;
	AUTO_CLOSE int fd = open_target(p, t, O_RDONLY, e);
	return fd < 0 || redo_fill(p->plan->room->stage, staged, fd, t->o.size, e) ? -1 : replace(p, t, staged, false, e);
}

int install_link(struct install *p, const struct where_row *row, struct err *e)
{
	int dirfd = plan_dir(p->plan, CATALOG_ROOT, e), stage = p->plan->room->stage;
	AUTO_FREE char *have = xalloc(REC_TARGET_MAX + 1);

	if (dirfd < 0)
		return -1;
	ssize_t n = readlinkat(dirfd, row->name, have, REC_TARGET_MAX);
	if (n < 0 && errno == EINVAL) {
		warn_say(p->warn, "edited", "'%s' in the replica '%s' is no link, which would lead to where the member stands: left alone",
			row->name, p->plan->r->path);
		return 0;
	}
	if (n >= 0 && span_eq(span_of(have, (size_t)n), span_cstr(row->path)))
		return 0;
	unlinkat(stage, "link", 0);
	if (symlinkat(row->path, stage, "link"))
		return install_fail(p, "make the link", row->name, e);
	install_enter(p, CATALOG_ROOT, dirfd);
	return put_over(p, "link", dirfd, row->name, e) < 0 ? -1 : 0;
}

/* Nobody has a file like that open as they have those of the replica: nothing is replaced. What is not staged is there already. */
static int put_elsewhere(struct install *p, const struct install_target *t, struct where_row *row, const char *staged, struct err *e)
{
	int stage = p->plan->room->stage;
	AUTO_CLOSE int from = path_open_at(stage, staged, O_RDONLY, 0);
	int to = from < 0 && errno == ENOENT ? -1 : where_write(row, e);

	if (to < 0 && (from >= 0 || errno != ENOENT))
		return from < 0 ? install_fail(p, "open the staged", t->name, e) : -1;
	if (to >= 0 && redo_is(stage, staged) && redo_replay(stage, staged, to, t->o.size, e))
		return -1;
	if (to >= 0 && !redo_is(stage, staged) && file_overwrite(from, to, t->o.size))
		return install_fail(p, "write", t->name, e);
	return 0;
}

/* By its first name, or by one that stands. */
static int choose_name(struct install *p, const struct plan_object *po, struct install_target *t, struct err *e)
{
	if (!po->is_new)
		return install_find_name(p, t, e);
	t->dir = po->parent;
	memcpy(t->name, po->name, sizeof t->name);
	return 0;
}

static int install_file(struct install *p, const struct plan_object *po, const struct install_target *t, struct err *e)
{
	char staged[32];

	if (!po->staged && !po->is_new)
		return install_restore(p, t, e) || (!p->plan->room->takes_all && link_others(p, t, e)) ? -1 : 0;
	int rc = po->is_new && bits_has(&p->whole, t->dir) ? came_along(p, t, e) : 1;
	if (rc <= 0)
		return rc;
	snprintf(staged, sizeof staged, "%llu", (unsigned long long)po->staged);
	/* What is new is no patch. */
	return po->is_new ? replace(p, t, staged, true, e) : put_file(p, t, staged, e);
}

int install_lost(struct install *p, uint64_t no, int rc, struct err *e)
{
	char text[300];

	if (rc >= 0 || e->sys != ENOENT)
		return rc;
	*e = (struct err){0};
	buf_reset(&p->label);
	if (catalog_object_path(p->plan->next, no, &p->label, e))
		return -1;
	warn_say(p->warn, "edited", "'%s' is gone from the replica: repl-apply --verify tells what is missing",
		esc_cut(text, sizeof text, span_of(p->label.p, p->label.len)));
	return 0;
}

int install_object(struct install *p, const struct plan_object *po, struct err *e)
{
	struct install_target t = {0};
	char staged[32];
	int rc = catalog_get(p->plan->next, po->no, &t.o, e);

	if (rc != 1) /* dropped again */
		goto out;
	if (t.o.type == OBJ_DIR) {
		install_touch(p, t.o.no);
		rc = 0;
		goto out;
	}
	rc = -1;
	if (choose_name(p, po, &t, e) || plan_find_room(p->plan, t.o.no, e))
		goto out;
	struct where_row *row = t.dir == CATALOG_ROOT ? where_find(&p->plan->r->where, span_cstr(t.name)) : NULL;
	if (row) {
		snprintf(staged, sizeof staged, "%llu", (unsigned long long)po->staged);
		rc = put_elsewhere(p, &t, row, staged, e);
		goto out;
	}
	if (t.o.type != OBJ_FILE) {
		/* A link's target and a node's number cannot be changed, only replaced. */
		snprintf(staged, sizeof staged, "s%llu", (unsigned long long)t.o.no);
		if ((rc = make_special(p, &t.o, staged, e)) != 0) {
			rc = rc < 0 ? -1 : 0;
			goto out;
		}
		rc = replace(p, &t, staged, po->is_new, e);
	} else {
		rc = install_file(p, po, &t, e);
	}
	if (!rc) {
		int dirfd = target_dir(p, &t, e);
		rc = dirfd < 0 ? -1 : install_hint(p, &t.o, dirfd, t.name, e);
	}
out:
	object_free(&t.o);
	return install_lost(p, po->no, rc, e);
}

int install_missing(struct install *p, int dirfd, const char *name, const struct object *o, struct err *e)
{
	char staged[32];

	snprintf(staged, sizeof staged, "s%llu", (unsigned long long)o->no);
	int lost = make_special(p, o, staged, e);
	if (lost)
		return lost;
	entry_open_up(dirfd);
	return put_over(p, staged, dirfd, name, e);
}

int install_dir(struct install *p, int fd, struct object *o, struct err *e)
{
	return restore(p, fd, NULL, fd, o, 0, e) || install_hint(p, o, fd, NULL, e) ? -1 : 0;
}

/* ---- in place already ---- */

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

int install_again(struct install *p, int dirfd, const char *name, struct object *o, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	int there = stands(o, dirfd, name);

	if (there == 0) {
		int rc = install_missing(p, dirfd, name, o, e);
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
	return restore(p, dirfd, name, o->type == OBJ_DIR ? dirfd : fd, o, 0, e) || install_hint(p, o, dirfd, name, e) ? -1 : 0;
}

void install_start(struct install *p, struct plan *plan, const struct owner_rule *rules, size_t n)
{
	p->plan = plan;
	for (size_t i = 0; i < n; i++)
		owners_add(&p->owners, rules[i]);
}

void install_free(struct install *p)
{
	freeing_end(&p->freeing);
	owners_free(&p->owners);
	buf_free(&p->touched);
	buf_free(&p->whole);
	buf_free(&p->renewed);
	buf_free(&p->label);
	free(p->stood);
	p->stood = NULL;
}
