#include "attach.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "entry.h"
#include "inode.h"

static bool is_dir(int dirfd, const char *name)
{
	struct stat st;
	int sys = errno;
	bool is = fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);

	errno = sys;
	return is;
}

/* 0 done, 1 the source is not there, -1. */
static int link_name(struct install *p, uint64_t no, int from_dir, const char *from, int to_dir, const char *to, struct err *e)
{
	if (entry_link(from_dir, from, to_dir, to) == 0 || errno == EEXIST)
		return 0;
	if (errno == EPERM && is_dir(from_dir, from)) /* it was edited here, and comes whole */
		return 1;
	if (install_cannot_link(errno)) {
		struct object o = {0};
		int sys = errno, rc = catalog_get(p->plan->next, no, &o, e) != 1 ? -1 : 0;
		errno = sys;
		rc = rc ? rc : install_copy(p, &o, from_dir, from, to_dir, to, e);
		object_free(&o);
		return rc > 0 ? install_not_linked(p, no, rc, e) : rc;
	}
	return errno == ENOENT ? 1 : install_fail(p, "link", to, e);
}

/* As link_name. */
static int link_between(struct install *p, uint64_t no, uint64_t from_no, const char *from, uint64_t to_no, const char *to,
	struct err *e)
{
	int shared = plan_dir(p->plan, from_no, e);

	if (shared < 0)
		return -1;
	AUTO_CLOSE int from_dir = fcntl(shared, F_DUPFD_CLOEXEC, 0);
	if (from_dir < 0)
		return install_fail(p, "open", from, e);
	int to_dir = plan_dir(p->plan, to_no, e);
	return to_dir < 0 ? -1 : link_name(p, no, from_dir, from, to_dir, to, e);
}

/* From one of the names that it has elsewhere. Which one stood is remembered for some objects: there may be many that do not yet,
 * and as many to make. */
static int link_from_other(struct install *p, uint64_t no, uint64_t parent, struct span to, struct err *e)
{
	struct catalog_names n = {0};
	struct install_stood *known;
	char cname[256];
	int got, rc = 1;

	if (!p->stood)
		p->stood = xalloc(INSTALL_STOOD * sizeof *p->stood);
	known = &p->stood[no % INSTALL_STOOD];
	span_name(cname, to);
	if (known->no == no && (known->dir != parent || strcmp(known->name, cname)))
		rc = link_between(p, no, known->dir, known->name, parent, cname, e);
	if (rc <= 0)
		return rc;
	catalog_names_start(&n, p->plan->next, no);
	while ((got = catalog_names_next(&n, e)) == 1) {
		if (n.dir == parent && span_eq(n.name, to))
			continue;
		*known = (struct install_stood){.no = no, .dir = n.dir};
		span_name(known->name, n.name);
		rc = link_between(p, no, known->dir, known->name, parent, cname, e);
		if (rc <= 0)
			break;
	}
	if (rc)
		known->no = 0;
	catalog_names_free(&n);
	/* None: they come later in the plan, and will link to this one's content when that is placed. */
	return got < 0 || rc < 0 ? -1 : 0;
}

static bool is_doubtful(const struct install *p, uint64_t no) { return !p->doubtful || bits_has(p->doubtful, no); }

/* Moved, and nothing else: what was changed here about its metadata would go on being so, unnoticed, as the hint is a new one. */
static int settle_name(struct install *p, struct object *o, uint64_t dir, const char *name, bool is_new, struct err *e)
{
	struct install_target t = {.o = *o, .dir = dir}; /* borrows from o */

	snprintf(t.name, sizeof t.name, "%s", name);
	if ((is_new || is_doubtful(p, o->no)) && install_restore(p, &t, e))
		return -1;
	int fd = plan_dir(p->plan, dir, e);
	return fd < 0 ? -1 : install_hint(p, o, fd, name, e);
}

/* A link or a node needs nothing of what stood there. */
static int make_again(struct install *p, struct object *o, uint64_t dir, const char *name, struct err *e)
{
	*e = (struct err){0};

	int fd = plan_dir(p->plan, dir, e), lost = fd < 0 ? -1 : install_missing(p, fd, name, o, e);
	return lost ? (lost < 0 ? -1 : 0) : settle_name(p, o, dir, name, true, e);
}

int attach_name(struct install *p, uint64_t no, uint64_t parent, struct span to, struct err *e)
{
	struct object o = {0};
	char name[256], slot[32];
	int rc = catalog_get(p->plan->next, no, &o, e);

	if (rc != 1 || o.type == OBJ_DIR) {
		rc = rc < 0 ? -1 : 0;
		goto out;
	}
	if (o.nlink == 1 && bits_has(&p->renewed, no)) {
		rc = 0;
		goto out;
	}
	rc = -1;
	int fd = plan_dir(p->plan, parent, e);
	if (fd < 0)
		goto out;
	int slots = p->plan->room->slots;
	span_name(name, to);
	install_slot(slot, no);
	install_enter(p, parent, fd);
	if (o.nlink == 1) {
		if (entry_move(slots, slot, fd, name) && errno != ENOENT)
			install_fail(p, "move", name, e);
		else
			rc = settle_name(p, &o, parent, name, false, e);
		if (rc && e->sys == ENOENT && o.type != OBJ_FILE)
			rc = make_again(p, &o, parent, name, e);
	} else {
		rc = link_name(p, no, slots, slot, fd, name, e);
		/* Not detached: it keeps a name somewhere; or it is new, and the name it was created under stands. */
		if (rc == 1)
			rc = link_from_other(p, no, parent, to, e);
	}
out:
	object_free(&o);
	return install_lost(p, no, rc, e);
}

/* ---- after the last name ---- */

/* What is left in its slot is a name that it lost while it kept others; or all there is of it, where there are no hard links. 1: there
 * was something; 0; -1. */
static int empty_slot(struct install *p, struct install_target *t, struct err *e)
{
	char slot[32];

	install_slot(slot, t->o.no);
	if (plan_find_room(p->plan, t->o.no, e))
		return -1;
	int slots = p->plan->room->slots;
	if (t->o.type == OBJ_DIR || faccessat(slots, slot, F_OK, AT_SYMLINK_NOFOLLOW))
		return 0;
	int dirfd = install_find_name(p, t, e) ? -1 : plan_dir(p->plan, t->dir, e);
	if (dirfd < 0)
		return -1;
	if (faccessat(dirfd, t->name, F_OK, AT_SYMLINK_NOFOLLOW) && entry_move(slots, slot, dirfd, t->name))
		return install_fail(p, "move", t->name, e);
	return entry_remove(slots, slot) && errno != ENOENT ? install_fail(p, "remove", slot, e) : 1;
}

int attach_settle(struct install *p, uint64_t no, struct err *e)
{
	struct install_target t = {0};
	int rc = catalog_get(p->plan->next, no, &t.o, e);

	int was = rc == 1 ? empty_slot(p, &t, e) : 0;
	bool is_locked = t.o.meta.attr & INODE_LOCKS;
	if (was < 0)
		rc = -1;
	if (rc != 1 || t.o.type != OBJ_FILE || (!is_locked && t.o.nlink == 1 && (!was || is_doubtful(p, no)))) {
		rc = rc < 0 ? -1 : 0;
		goto out;
	}
	rc = install_find_name(p, &t, e) || ((is_locked || is_doubtful(p, no)) && install_restore(p, &t, e)) ? -1 : 0;
	if (!rc) {
		int dirfd = plan_dir(p->plan, t.dir, e);
		rc = dirfd < 0 ? -1 : install_hint(p, &t.o, dirfd, t.name, e);
	}
out:
	object_free(&t.o);
	return install_lost(p, no, rc, e);
}
