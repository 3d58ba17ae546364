#include "place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach.h"
#include "entry.h"
#include "file.h"
#include "inode.h"
#include "path.h"
#include "redo.h"

/* ---- detaching ---- */

static int detach_record(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;
	struct err why = {0};
	char name[REC_NAME_MAX + 1];

	if (rec->type == REC_BASE && rec->u.base.flags & BASE_WANTED)
		bits_put(&p->wanted, image_ref(&p->to.plan->loader, rec->u.base.ref));
	if (rec->type != REC_STRAY)
		return 0;
	uint64_t dir = image_ref(&p->to.plan->loader, rec->u.stray.parent);
	int fd = plan_base_dir(p->to.plan, dir, &why);
	if (fd < 0) {
		if (!path_is_gone(why.sys))
			*e = why;
		return path_is_gone(why.sys) ? 0 : -1;
	}
	span_name(name, rec->u.stray.name);
	install_enter(&p->to, dir, fd);
	return install_displace(&p->to, fd, name, e) < 0 ? -1 : 0;
}

/* A directory goes by its name, with all that is in it; of a tree that stands elsewhere the directory stays, and what is in it goes. */
static int clear_tree(struct place *p, const struct where_row *row, struct err *e)
{
	DIR *d = file_list(row->room.root);
	int rc = 0;

	if (!d)
		return install_fail(&p->to, "list", row->name, e);
	p->to.plan->room = &row->room;
	entry_open_up(dirfd(d));
	for (const struct dirent *de; !rc && (de = readdir(d));)
		if (!room_is_ours(de->d_name))
			rc = install_displace(&p->to, dirfd(d), de->d_name, e) < 0 ? -1 : 0;
	closedir(d);
	return rc;
}

/* Something stands there, and is of another type. */
static bool is_other(int dirfd, const char *name, uint8_t type)
{
	struct stat st;

	return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && inode_type(st.st_mode) != type;
}

static int detach(void *ctx, const struct r_base *b, struct err *e)
{
	struct place *p = ctx;
	struct plan *plan = p->to.plan;
	struct object o = {0};
	struct err why = {0};
	char name[256], slot[32];

	uint64_t dir = image_ref(&plan->loader, b->parent), no = image_ref(&plan->loader, b->ref);
	int alive = catalog_get(plan->next, no, &o, e);
	bool is_dir = o.type == OBJ_DIR, goes = !alive || (o.nlink == 1 && bits_has(&p->to.renewed, no));
	/* What comes whole may have been edited here. A directory that is none is found out when it is attached. */
	bool may_be_other = alive && !is_dir && (goes || o.nlink > 1 || bits_has(&p->wanted, no));
	uint8_t type = o.type;
	object_free(&o);
	if (alive < 0)
		return -1;
	int fd = plan_base_dir(plan, dir, &why);
	if (fd < 0) {
		/* Repeating: the directory is in its slot already, and all its names went before it. */
		if (!path_is_gone(why.sys))
			*e = why;
		return path_is_gone(why.sys) ? 0 : -1;
	}
	int slots = plan->room->slots;
	span_name(name, b->name);
	install_slot(slot, no);
	entry_open_up(fd);
	if (plan_base_path(plan, dir, b->name, e))
		return -1;
	path_cache_drop(plan->base_dirs, span_of(plan->path.p, plan->path.len));
	const struct where_row *row = !alive && dir == CATALOG_ROOT ? where_find(&plan->r->where, b->name) : NULL;
	if (row && row->is_tree && clear_tree(p, row, e))
		return -1;
	if (goes && install_remove(&p->to, fd, name) == 0)
		return 0;
	if (may_be_other && is_other(fd, name, type))
		return install_displace(&p->to, fd, name, e) < 0 ? -1 : 0;
	/* A further name of an object that has a slot. */
	if (alive && !is_dir && faccessat(slots, slot, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return entry_remove(fd, name) && errno != ENOENT ? install_fail(&p->to, "remove", name, e) : 0;
	return entry_move(fd, name, slots, slot) && errno != ENOENT ? install_fail(&p->to, "move", name, e) : 0;
}

static int note_renewed(void *ctx, const struct plan_object *po, struct err *e)
{
	struct place *p = ctx;
	char staged[32];

	if (!po->staged || po->is_new)
		return 0;
	if (plan_find_room(p->to.plan, po->no, e))
		return -1;
	int stage = p->to.plan->room->stage;
	snprintf(staged, sizeof staged, "%llu", (unsigned long long)po->staged);
	if (redo_is(stage, staged))
		bits_put(&p->patched, po->no);
	else if (p->is_fresh || faccessat(stage, staged, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		bits_put(&p->to.renewed, po->no);
	return 0;
}

/* Of what a file is staged for, and that gets another name, the old file goes instead of moving. It is the same after a crash: what is
 * not staged any more stands. */
static int find_renewed(struct place *p, struct err *e)
{
	struct plan *plan = p->to.plan;

	if (p->knows_renewed || !plan->loader.has_moved)
		return 0;
	p->knows_renewed = true;
	if (plan_walk(plan, &(struct plan_visit){.object = note_renewed, .ctx = p}, e))
		return -1;
	for (size_t i = 0; i < p->patched.len && i < p->to.renewed.len; i++)
		p->to.renewed.p[i] &= (uint8_t)~p->patched.p[i];
	return 0;
}

int place_detach(struct place *p, struct err *e)
{
	entry_open_up(p->to.plan->r->root);
	if (find_renewed(p, e))
		return -1;
	return !p->to.plan->loader.has_moved ? 0 : plan_walk(p->to.plan, &(struct plan_visit){.detach = detach, .record = detach_record, .ctx = p}, e);
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
	if (errno == EEXIST && install_displace(&p->to, dirfd, name, e) < 0)
		return -1;
	return mkdirat(dirfd, name, 0700) ? install_fail(&p->to, "make", name, e) : 0;
}

/* The directory under this name of the root is a tree that stands elsewhere. */
static bool is_elsewhere(const struct place *p, uint64_t parent, struct span name)
{
	return parent == CATALOG_ROOT && where_find(&p->to.plan->r->where, name);
}

/* Of all members that do, whatever somebody made of their links. */
static int link_places(struct place *p, struct err *e)
{
	const struct where *w = &p->to.plan->r->where;
	uint64_t no;

	for (size_t i = 0; i < w->n; i++) {
		int got = catalog_lookup(p->to.plan->next, CATALOG_ROOT, span_cstr(w->v[i].name), &no, NULL, e);
		if (got < 0 || (got && install_link(&p->to, &w->v[i], e)))
			return -1;
	}
	return 0;
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
	int got = catalog_get(p->to.plan->next, po->no, &o, e);
	bool is_dir = got == 1 && o.type == OBJ_DIR;
	object_free(&o);
	if (!is_dir)
		return got < 0 ? -1 : 0;
	if (catalog_name(p->to.plan->next, po->no, &parent, &name, e) != 1)
		return -1;
	if (is_elsewhere(p, parent, span_of(name.p, name.len)))
		return 0;
	int fd = plan_dir(p->to.plan, parent, e);
	if (fd < 0)
		return install_lost(&p->to, po->no, -1, e);
	span_name(cname, span_of(name.p, name.len));
	install_enter(&p->to, parent, fd);
	return ensure_dir(p, fd, cname, e);
}

/* 1: a new file has this name in the target; 0. */
static int is_new_file(const struct place *p, uint64_t dir, const char *name, struct err *e)
{
	struct plan *plan = p->to.plan;
	struct object old = {0};
	uint8_t type = OBJ_NONE;
	uint64_t no;
	int got = catalog_lookup(plan->next, dir, span_cstr(name), &no, &type, e);

	if (got <= 0 || type != OBJ_FILE)
		return got < 0 ? -1 : 0;
	plan_see_base(plan, true);
	got = catalog_get(plan->r->cat, no, &old, e);
	plan_see_base(plan, false);
	object_free(&old);
	return got < 0 ? -1 : !got;
}

/* What is staged in a new directory but is no new file of the image goes: it was dropped again, or staged behind the place from which a
 * delta that broke off went on otherwise. */
static int strip_dir(struct place *p, const char *staged, uint64_t no, struct err *e)
{
	AUTO_CLOSE int fd = path_open_at(p->to.plan->room->stage, staged, O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : file_list(fd);
	int got = 0;

	if (!d && fd < 0 && errno == ENOENT)
		return 0;
	if (!d)
		return install_fail(&p->to, "list", "a staged directory", e);
	for (const struct dirent *de; got >= 0 && (de = readdir(d));) {
		if (file_is_dots(de->d_name))
			continue;
		got = is_new_file(p, no, de->d_name, e);
		if (!got && unlinkat(fd, de->d_name, 0))
			got = install_fail(&p->to, "remove the staged", de->d_name, e);
	}
	closedir(d);
	return got < 0 ? -1 : 0;
}

/* A new directory with what was staged in it. 1: nothing is. */
static int bring_dir(struct place *p, const struct r_create *c, int fd, const char *name, struct err *e)
{
	int stage = p->to.plan->room->stage;
	char staged[32];

	if (c->ref == REF_NONE)
		return 1;
	room_new_dir(staged, c->ref);
	uint64_t no = image_ref(&p->to.plan->loader, c->ref);
	bool is_clean = p->is_fresh && !p->to.plan->loader.has_dropped;
	if (!is_clean && strip_dir(p, staged, no, e))
		return -1;
	int rc = entry_move(stage, staged, fd, name);
	if (rc && (errno == ENOTDIR || errno == ENOTEMPTY || errno == EEXIST))
		rc = install_displace(&p->to, fd, name, e) < 0 ? -1 : entry_move(stage, staged, fd, name);
	if (rc)
		return e->kind ? -1 : errno == ENOENT ? 1 : install_fail(&p->to, "place", name, e);
	bits_put(&p->to.whole, no);
	return 0;
}

static int make_dir(struct place *p, const struct r_create *c, struct err *e)
{
	uint64_t parent = image_ref(&p->to.plan->loader, c->parent);
	char name[256];

	if (is_elsewhere(p, parent, c->name))
		return 0;
	int fd = plan_dir(p->to.plan, parent, e);
	if (fd < 0)
		return install_lost(&p->to, image_ref(&p->to.plan->loader, c->ref), -1, e);
	span_name(name, c->name);
	install_enter(&p->to, parent, fd);
	int rc = bring_dir(p, c, fd, name, e);
	if (rc <= 0)
		return rc;
	return mkdirat(fd, name, 0700) && errno != EEXIST ? install_fail(&p->to, "make", name, e) : 0;
}

static int attach_dir(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;
	uint64_t parent = image_ref(&p->to.plan->loader, a->parent), no = image_ref(&p->to.plan->loader, a->ref);
	struct object o = {0};
	char name[256], slot[32];
	int got = catalog_get(p->to.plan->next, no, &o, e);
	bool is_dir = got == 1 && o.type == OBJ_DIR;

	object_free(&o);
	bits_put(&p->named, no);
	if (!is_dir)
		return got < 0 ? -1 : 0;
	int fd = plan_dir(p->to.plan, parent, e);
	if (fd < 0)
		return install_lost(&p->to, no, -1, e);
	span_name(name, a->name);
	install_slot(slot, no);
	install_enter(&p->to, parent, fd);
	install_touch(&p->to, no);
	return entry_move(p->to.plan->room->slots, slot, fd, name) && errno != ENOENT ? install_fail(&p->to, "move", name, e) : 0;
}

static int dirs_record(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;
	const struct r_create *c = &rec->u.create;

	if (rec->type == REC_BASE && rec->u.base.flags & BASE_WANTED)
		bits_put(&p->wanted, image_ref(&p->to.plan->loader, rec->u.base.ref));
	/* After a crash, what detaching touched is not remembered. */
	if (rec->type == REC_STRAY)
		install_touch(&p->to, image_ref(&p->to.plan->loader, rec->u.stray.parent));
	else if (rec->type == REC_BASE && rec->u.base.flags & BASE_DETACH)
		install_touch(&p->to, image_ref(&p->to.plan->loader, rec->u.base.parent));
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
	size_t n = p->to.touched.len / 8;
	AUTO_FREE uint64_t *rows = xalloc((n + 1) * 2 * sizeof *rows);
	struct catalog *c = p->to.plan->next;
	size_t used = 0;

	for (size_t i = 0; i < n; i++) {
		const uint64_t no = get_le64(p->to.touched.p + 8 * i);
		struct object o = {0};
		int got = catalog_get(c, no, &o, e);
		object_free(&o);
		if (got < 0 || (got > 0 && catalog_depth(c, no, &rows[2 * used + 1], e)))
			return -1;
		rows[2 * used] = no;
		used += got > 0; /* else it went */
	}
	qsort(rows, used, 2 * sizeof *rows, by_depth);
	for (size_t i = 0; i < used; i++) {
		struct object o = {0};
		if (i && rows[2 * i] == rows[2 * i - 2])
			continue;
		int fd = plan_dir(p->to.plan, rows[2 * i], e);
		int rc = fd < 0 || catalog_get(c, rows[2 * i], &o, e) != 1 || install_dir(&p->to, fd, &o, e) ? -1 : 0;
		object_free(&o);
		if (install_lost(&p->to, rows[2 * i], rc, e))
			return -1;
	}
	return 0;
}

/* ---- all in order ---- */

static int take_owner(void *ctx, const struct record *rec, struct err *e)
{
	struct place *p = ctx;

	(void)e;
	if (rec->type == REC_OWNER)
		owners_take(&p->to.owners, &rec->u.owner);
	return 0;
}

static int place_object(void *ctx, const struct plan_object *po, struct err *e)
{
	struct place *p = ctx;
	bool has_come = po->is_new && po->has_hint && p->is_fresh && bits_has(&p->to.whole, po->parent) && !bits_has(&p->named, po->no);

	return has_come ? 0 : install_object(&p->to, po, e);
}

static int attach_file(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;
	const struct image_loader *l = &p->to.plan->loader;

	return attach_name(&p->to, image_ref(l, a->ref), image_ref(l, a->parent), a->name, e);
}

static int settle_attached(void *ctx, const struct r_attach *a, struct err *e)
{
	struct place *p = ctx;

	return attach_settle(&p->to, image_ref(&p->to.plan->loader, a->ref), e);
}

/* Its directory gets its times back also when the name went in a run that was interrupted. */
static int settle_detached(void *ctx, const struct r_base *b, struct err *e)
{
	struct place *p = ctx;

	install_touch(&p->to, image_ref(&p->to.plan->loader, b->parent));
	return attach_settle(&p->to, image_ref(&p->to.plan->loader, b->ref), e);
}

int place_all(struct place *p, struct err *e)
{
	const struct plan_visit owners = {.record = take_owner, .ctx = p};
	const struct plan_visit dirs = {.record = dirs_record, .attach = attach_dir, .object = wanted_dir, .ctx = p};
	const struct plan_visit files = {.object = place_object, .attach = attach_file, .ctx = p};
	const struct plan_visit settle = {.detach = settle_detached, .attach = settle_attached, .ctx = p};

	entry_open_up(p->to.plan->r->root);
	if (p->map_names && plan_walk(p->to.plan, &owners, e))
		return -1;
	return find_renewed(p, e) || link_places(p, e) || plan_walk(p->to.plan, &dirs, e) || plan_walk(p->to.plan, &files, e) ||
		(p->to.plan->loader.has_moved && plan_walk(p->to.plan, &settle, e)) || finish_dirs(p, e) ? -1 : 0;
}

void place_free(struct place *p)
{
	install_free(&p->to);
	buf_free(&p->wanted);
	buf_free(&p->named);
	buf_free(&p->patched);
}

void place_start(struct place *p, struct plan *plan, const struct owner_rule *rules, size_t n)
{
	install_start(&p->to, plan, rules, n);
}
