#include "plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "input.h"

int plan_open(struct plan *p, struct replica *r, const char *name, struct err *e)
{
	*p = (struct plan){.r = r, .room = &r->room, .fd = openat(r->ctl, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)};
	if (p->fd < 0)
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/%s'", r->path, name);
	p->base_dirs = replica_dirs(r);
	p->dirs = replica_dirs(r);
	return 0;
}

void plan_hold(struct plan *p, struct replica *r)
{
	*p = (struct plan){.r = r, .room = &r->room, .fd = -1, .next = r->cat, .base_dirs = replica_dirs(r), .dirs = replica_dirs(r)};
}

void plan_close(struct plan *p)
{
	if (p->next && p->next != p->r->cat)
		catalog_close(&p->next);
	else if (p->next)
		catalog_abort(p->r->cat);
	p->next = NULL;
	path_cache_free(&p->base_dirs);
	path_cache_free(&p->dirs);
	image_loader_free(&p->loader);
	buf_free(&p->path);
	close_fd(&p->fd);
}

/* What fn returns ends it where that is not 0. */
static int each(struct plan *p, int (*fn)(void *ctx, const struct record *rec, struct err *e), void *ctx, struct err *e)
{
	struct input in = {0};
	int got;

	if (lseek(p->fd, 0, SEEK_SET) < 0)
		return err_sys(e, "cannot read the plan");
	if (input_open(&in, p->fd, 1, e))
		return -1;
	int rc = 0;
	while (!rc && (got = input_next(&in, e)) > 0 && got != STREAM_END)
		rc = got == STREAM_RECORD ? fn(ctx, &in.s.rec, e) : 0;
	input_close(&in);
	return got < 0 ? -1 : rc;
}

static int find_ids(void *ctx, const struct record *rec, struct err *e)
{
	struct digest *ids = ctx;

	(void)e;
	if (rec->type == REC_DELTA)
		ids[0] = rec->u.delta.base;
	else if (rec->type == REC_END)
		ids[1] = rec->u.end.id;
	return 0;
}

int plan_promise(struct plan *p, struct digest *base, struct digest *id, struct err *e)
{
	struct digest ids[2] = {0};

	if (each(p, find_ids, ids, e))
		return -1;
	*base = ids[0];
	*id = ids[1];
	return 0;
}

static void start_load(struct plan *p, struct catalog *next)
{
	p->next = next;
	image_load_start(&p->loader, next);
	p->loader.local = true;
}

int plan_load_into(struct plan *p, struct catalog *next, struct digest *id, struct err *e)
{
	start_load(p, next);
	return image_load_plan(&p->loader, p->fd, false, e) || image_load_end(&p->loader, id, e) ? -1 : 0;
}

/* In a transaction of the replica's own catalog. 1: it got too large, and was taken back. */
static int load_live(struct plan *p, struct digest *id, struct err *e)
{
	if (catalog_begin(p->r->cat, e))
		return -1;
	start_load(p, p->r->cat);
	int rc = image_load_plan(&p->loader, p->fd, true, e);
	if (rc == 1) {
		p->next = NULL;
		image_loader_free(&p->loader);
		catalog_abort(p->r->cat);
		return 1;
	}
	return rc || image_load_end(&p->loader, id, e) ? -1 : 0;
}

int plan_load(struct plan *p, struct digest *id, struct err *e)
{
	struct replica *r = p->r;
	struct stat st;

	if (fstat(p->fd, &st))
		return err_sys(e, "cannot read the plan");
	int rc = (uint64_t)st.st_size <= CATALOG_PLAN_MAX ? load_live(p, id, e) : 1;
	if (rc != 1)
		return rc;
	AUTO_FREE char *path = replica_file(r, "next");
	if (replica_drop(r, "next", e) || catalog_copy(r->cat, path, e) ||
			catalog_open(&p->next, path, CATALOG_PRIVATE, e))
		return -1;
	return plan_load_into(p, p->next, id, e);
}

int plan_commit(struct plan *p, struct err *e)
{
	struct replica *r = p->r;
	bool is_live = p->next == r->cat;

	if (is_live) {
		p->next = NULL;
		return catalog_commit(r->cat, e);
	}
	if (catalog_settle(p->next, e))
		return -1;
	catalog_close(&p->next);
	catalog_close(&r->cat);
	if (renameat(r->ctl, "next", r->ctl, "catalog") || fsync(r->ctl))
		return err_sys(e, "cannot replace the catalog of '%s'", r->path);
	return replica_catalog(r, CATALOG_LIVE, e);
}

/* ---- walking ---- */

struct walker {
	struct plan *p;
	const struct plan_visit *v;
	struct plan_object cur; /* no 0: none */
	uint64_t n_content;
};

/* The current object is complete. */
static int end_object(struct walker *w, struct err *e)
{
	const struct plan_object o = w->cur;

	w->cur = (struct plan_object){0};
	if (!o.no || !w->v->object || (!o.is_new && !o.has_meta && !o.staged))
		return 0;
	return w->v->object(w->v->ctx, &o, e);
}

static int create(struct walker *w, const struct r_create *c, struct err *e)
{
	w->cur.is_new = true;
	if (c->ref == REF_ROOT) {
		w->cur.no = CATALOG_ROOT;
		return 0;
	}
	w->cur.parent = image_ref(&w->p->loader, c->parent);
	span_name(w->cur.name, c->name);
	/* Its number: by name, as files that nobody links to have none in the stream. It has none when it was dropped again. */
	return catalog_lookup(w->p->next, w->cur.parent, c->name, &w->cur.no, NULL, e) < 0 ? -1 : 0;
}

/* The current object may go on being so: a file that is the source of its own copies gets a number between them. */
static bool begins_other(const struct walker *w, const struct record *rec)
{
	const struct image_loader *l = &w->p->loader;

	switch ((enum rec_type)rec->type) {
	case REC_BASE:
		return rec->u.base.flags & BASE_DETACH || image_ref(l, rec->u.base.ref) != w->cur.no;
	case REC_OBJECT:
		return image_ref(l, rec->u.object.ref) != w->cur.no;
	case REC_CREATE:
	case REC_ATTACH:
	case REC_END:
		return true;
	default:
		return false;
	}
}

static int on_record(void *ctx, const struct record *rec, struct err *e)
{
	struct walker *w = ctx;
	const struct plan_visit *v = w->v;
	bool is_gone;

	/* Who visits records and objects gets them in the order of the plan: a directory before what is in it. */
	if (begins_other(w, rec) && end_object(w, e))
		return -1;
	if (v->record && v->record(v->ctx, rec, e))
		return -1;
	switch ((enum rec_type)rec->type) {
	case REC_BASE:
		is_gone = rec->u.base.flags & BASE_DETACH;
		if (!is_gone)
			w->cur.no = image_ref(&w->p->loader, rec->u.base.ref);
		return is_gone && v->detach ? v->detach(v->ctx, &rec->u.base, e) : 0;
	case REC_OBJECT:
		w->cur.no = image_ref(&w->p->loader, rec->u.object.ref);
		return 0;
	case REC_CREATE:
		return create(w, &rec->u.create, e);
	case REC_ATTACH:
		return v->attach ? v->attach(v->ctx, &rec->u.attach, e) : 0;
	case REC_META:
		w->cur.has_meta = true;
		w->cur.has_hint = false;
		return 0;
	case REC_CONTENT:
		w->cur.staged = ++w->n_content;
		w->cur.has_hint = false;
		return 0;
	case REC_HINT:
		w->cur.has_hint = true;
		return 0;
	case REC_DROP:
		w->cur.no = 0;
		return 0;
	default:
		return 0;
	}
}

int plan_walk(struct plan *p, const struct plan_visit *v, struct err *e)
{
	struct walker w = {.p = p, .v = v};

	return each(p, on_record, &w, e);
}

/* ---- where things are ---- */

void plan_see_base(const struct plan *p, bool base)
{
	catalog_see_base(p->r->cat, base && p->r->cat == p->next);
}

int plan_base_path(struct plan *p, uint64_t dir, struct span name, struct err *e)
{
	buf_reset(&p->path);
	plan_see_base(p, true);
	int rc = catalog_path(p->r->cat, dir, name, &p->path, e);
	plan_see_base(p, false);
	return rc;
}

int plan_base_dir(struct plan *p, uint64_t dir, struct err *e)
{
	if (plan_base_path(p, dir, (struct span){0}, e))
		return -1;
	p->room = replica_room(p->r, span_of(p->path.p, p->path.len));
	return path_cached(p->base_dirs, span_of(p->path.p, p->path.len), e);
}

int plan_dir(struct plan *p, uint64_t dir, struct err *e)
{
	buf_reset(&p->path);
	if (catalog_path(p->next, dir, (struct span){0}, &p->path, e))
		return -1;
	p->room = replica_room(p->r, span_of(p->path.p, p->path.len));
	return path_cached(p->dirs, span_of(p->path.p, p->path.len), e);
}

int plan_find_room(struct plan *p, uint64_t no, struct err *e)
{
	p->room = &p->r->room;
	if (!p->r->where.has_tree)
		return 0;
	buf_reset(&p->path);
	if (catalog_object_path(p->next, no, &p->path, e))
		return -1;
	p->room = replica_room(p->r, span_of(p->path.p, p->path.len));
	return 0;
}
