#include "restore.h"

#define BATCH 4096 /* objects in one transaction: what changes in the catalog is only the hints */

struct walk {
	struct restore *s;
	struct plan plan;
	struct install install;
	struct catalog_iter it;
	struct buf stack; /* for each directory above the current one: its last name, u32 length of it, u64 number */
	unsigned n_batch;
};

static int one(struct walk *w, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct catalog *c = w->s->r->cat;
	struct object o = {0};
	char cname[256];

	if (++w->n_batch == BATCH) {
		if (catalog_commit(c, e) || catalog_begin(c, e))
			return -1;
		w->n_batch = 0;
	}
	w->s->n_objects++;
	if (name.len) /* a directory itself has none here */
		span_name(cname, name);
	int rc = -1;
	if (dir == CATALOG_ROOT && where_find(&w->s->r->where, name)) {
		rc = 0;
	} else if (catalog_get(c, no, &o, e) == 1) {
		int fd = plan_dir(&w->plan, dir, e);
		rc = fd < 0 ? -1 : install_again(&w->install, fd, name.len ? cname : NULL, &o, e);
	}
	object_free(&o);
	return rc;
}

/* A directory after what is in it: making something there changes its time. */
static int leave(struct walk *w, uint64_t *dir, struct err *e)
{
	if (one(w, *dir, (struct span){0}, *dir, e))
		return -1;
	if (!w->stack.len)
		return 0;
	struct rd r = rd_of(w->stack.p + w->stack.len - 12, 12);
	size_t n = rd_u32(&r);
	*dir = rd_u64(&r);
	w->stack.len -= 12 + n;
	catalog_iter_after(&w->it, w->s->r->cat, *dir, span_of(w->stack.p + w->stack.len, n));
	return 1;
}

static void enter(struct walk *w, uint64_t *dir)
{
	wr_raw(&w->stack, w->it.name.p, w->it.name.len);
	wr_u32(&w->stack, (uint32_t)w->it.name.len);
	wr_u64(&w->stack, *dir);
	*dir = w->it.no;
	catalog_iter_start(&w->it, w->s->r->cat, *dir);
}

static int whole(struct walk *w, struct err *e)
{
	uint64_t dir = CATALOG_ROOT;
	int got;

	catalog_iter_start(&w->it, w->s->r->cat, dir);
	for (;;) {
		while ((got = catalog_iter_next(&w->it, e)) == 1) {
			if (w->it.type == OBJ_DIR)
				enter(w, &dir);
			else if (one(w, dir, w->it.name, w->it.no, e))
				return -1;
		}
		if (got < 0 || (got = leave(w, &dir, e)) < 0)
			return -1;
		if (!got)
			return 0;
	}
}

int restore_run(struct restore *s, struct err *e)
{
	struct walk w = {.s = s, .install = {.policy = s->policy, .warn = s->warn}};
	struct replica *r = s->r;

	if (catalog_is_empty(r->cat))
		return 0;
	plan_hold(&w.plan, r);
	install_start(&w.install, &w.plan, s->owners, s->n_owners);
	int rc = catalog_begin(r->cat, e) || whole(&w, e) || replica_sync(r, e) || catalog_commit(r->cat, e) ? -1 : 0;
	if (rc)
		catalog_abort(r->cat);
	install_free(&w.install);
	catalog_iter_free(&w.it);
	buf_free(&w.stack);
	plan_close(&w.plan);
	return rc;
}
