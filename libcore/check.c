#include "check.h"

#include <string.h>

struct list {
	struct plan *p;
	check_item item;
	void *ctx;
	struct check_counts *n;
	uint64_t n_strays;
};

static char letter(uint8_t type)
{
	return type == OBJ_FILE ? 'f' : type == OBJ_DIR ? 'd' : type == OBJ_LINK ? 'L' : type == OBJ_FIFO ? 'S' : 'D';
}

static int list_object(void *ctx, const struct plan_object *po, struct err *e)
{
	struct list *l = ctx;
	struct object o = {0};
	AUTO_BUF struct buf path = {0};
	char code[12] = "cL.........";

	int got = catalog_get(l->p->next, po->no, &o, e);
	uint8_t type = o.type;
	object_free(&o);
	if (got != 1)
		return got;
	po->is_new ? l->n->created++ : l->n->changed++;
	if (!l->item)
		return 0;
	code[0] = po->staged ? '>' : po->is_new ? 'c' : '.';
	code[1] = letter(type);
	memcpy(code + 2, po->is_new ? "+++++++++" : po->staged ? "cst......" : "..tpoguax", 9);
	if (po->no != CATALOG_ROOT && catalog_object_path(l->p->next, po->no, &path, e))
		return -1;
	l->item(l->ctx, code, path.len ? span_of(path.p, path.len) : span_cstr("."));
	return 0;
}

static int list_detach(void *ctx, const struct r_base *b, struct err *e)
{
	struct list *l = ctx;
	struct plan *p = l->p;
	struct object o = {0};

	if (!l->item)
		return 0;
	int alive = catalog_get(p->next, image_ref(&p->loader, b->ref), &o, e);
	object_free(&o);
	if (alive)
		return alive < 0 ? -1 : 0;
	if (plan_base_path(p, image_ref(&p->loader, b->parent), b->name, e))
		return -1;
	l->item(l->ctx, "*deleting  ", span_of(p->path.p, p->path.len));
	return 0;
}

static int list_attach(void *ctx, const struct r_attach *a, struct err *e)
{
	struct list *l = ctx;
	AUTO_BUF struct buf path = {0};

	l->n->changed++;
	if (!l->item)
		return 0;
	if (catalog_path(l->p->next, image_ref(&l->p->loader, a->parent), a->name, &path, e))
		return -1;
	l->item(l->ctx, "hf.........", span_of(path.p, path.len));
	return 0;
}

static int list_stray(void *ctx, const struct record *rec, struct err *e)
{
	struct list *l = ctx;

	if (rec->type != REC_STRAY)
		return 0;
	l->n_strays++;
	if (!l->item)
		return 0;
	if (plan_base_path(l->p, image_ref(&l->p->loader, rec->u.stray.parent), rec->u.stray.name, e))
		return -1;
	l->item(l->ctx, "*deleting  ", span_of(l->p->path.p, l->p->path.len));
	return 0;
}

int check_list(struct plan *p, check_item item, void *ctx, struct check_counts *n, struct err *e)
{
	struct list l = {.p = p, .item = item, .ctx = ctx, .n = n};
	uint64_t before = 0, after = 0;

	if (plan_walk(p, &(struct plan_visit){.object = list_object, .detach = list_detach, .attach = list_attach,
			.record = list_stray, .ctx = &l}, e))
		return -1;
	plan_see_base(p, true);
	int rc = catalog_count(p->r->cat, &before, e);
	plan_see_base(p, false);
	if (rc || catalog_count(p->next, &after, e))
		return -1;
	/* Those in directories that go are among them. */
	n->before = before;
	n->removed = (before + n->created > after ? before + n->created - after : 0) + l.n_strays;
	return 0;
}

int check_deletes(const struct check_counts *n, uint64_t max, unsigned percent, struct err *e)
{
	if (n->removed > max || (percent < 100 && n->removed * 100 > n->before * percent))
		return err_set(e, ERR_REFUSED, "the delta removes %llu of %llu objects: --max-delete has to allow it",
			(unsigned long long)n->removed, (unsigned long long)n->before);
	return 0;
}
