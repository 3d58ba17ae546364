#include "check.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attr.h"

/* ---- edits ---- */

/* Does the base have this name? parent_known: or at least its directory. */
static int in_base(struct plan *p, uint64_t parent, struct span name, bool *parent_known, struct err *e)
{
	struct object o = {0};
	uint64_t known;

	plan_see_base(p, true);
	int got = catalog_get(p->r->cat, parent, &o, e);
	*parent_known = got == 1;
	if (got == 1)
		got = catalog_lookup(p->r->cat, parent, name, &known, NULL, e);
	plan_see_base(p, false);
	object_free(&o);
	return got;
}

/* Nothing can be moved to or from what is mounted in the replica: once decided, the delta could never be finished. */
static int check_mounted(const struct plan *p, int fd, struct span path, struct err *e)
{
	struct stat here, there;
	char text[512];

	if (fstat(p->r->root, &here) || fstat(fd, &there))
		return err_sys(e, "cannot read the replica '%s'", p->r->path);
	return here.st_dev == there.st_dev ? 0 : err_set(e, ERR_REFUSED, "'%s' is on another filesystem than the replica: unmount it",
		path.len ? esc_cut(text, sizeof text, path) : ".");
}

/* Where something new is to stand there must be nothing that the catalog does not know. */
static int check_free(struct plan *p, uint64_t parent, struct span name, struct err *e)
{
	char cname[REC_NAME_MAX + 1], text[512];
	bool parent_known;
	struct err why = {0};
	int fd = p->r->root;

	int got = in_base(p, parent, name, &parent_known, e);
	/* The root of a first image is there before the catalog knows it. */
	if (got || (!parent_known && parent != CATALOG_ROOT))
		return got < 0 ? -1 : 0;
	if (parent == CATALOG_ROOT && span_eq(name, span_cstr(REPLICA_CTL)))
		return err_set(e, ERR_STREAM, "the stream names the replica's own directory '" REPLICA_CTL "'");
	if (parent_known && (fd = plan_base_dir(p, parent, &why)) < 0)
		return err_set(e, ERR_REFUSED, "the directory '%s' is gone from the replica: it was edited",
			esc_cut(text, sizeof text, span_of(p->path.p, p->path.len)));
	if (parent_known && check_mounted(p, fd, span_of(p->path.p, p->path.len), e))
		return -1;
	span_name(cname, name);
	if (faccessat(fd, cname, F_OK, AT_SYMLINK_NOFOLLOW) == 0 && strcmp(cname, "lost+found"))
		return err_set(e, ERR_REFUSED, "'%s' stands in the replica where the stream makes something new: "
			"move it away", esc_cut(text, sizeof text, name));
	return 0;
}

#define MANY_NAMES 32u /* some filesystems stop at 65000 hard links, some at a few dozens in one directory */

/* Nodes, long targets and very many names may have been impossible to make here. */
static bool may_be_missing(const struct object *o)
{
	return o->type == OBJ_CHAR || o->type == OBJ_BLOCK || o->meta.target.len > 1023 || o->nlink > MANY_NAMES;
}

static bool is_as_known(const struct object *o, const struct attr *a)
{
	return a->type == o->type && (o->type != OBJ_FILE || (a->size == o->size && a->meta.mtime_s == o->meta.mtime_s &&
		a->meta.mtime_ns == o->meta.mtime_ns));
}

/* A name that goes or whose object changes must be what the catalog says it is. */
static int check_known(struct plan *p, const struct r_base *b, struct err *e)
{
	struct object o = {0};
	struct attr a = {0};
	struct err why = {0};
	char name[REC_NAME_MAX + 1], text[512];
	int rc = -1;

	plan_see_base(p, true);
	int got = catalog_get(p->r->cat, image_ref(&p->loader, b->ref), &o, e);
	plan_see_base(p, false);
	if (got != 1)
		goto out;
	span_name(name, b->name);
	uint64_t dir = image_ref(&p->loader, b->parent);
	int fd = plan_base_dir(p, dir, &why);
	bool is_right = fd >= 0 && (attr_stat(&a, fd, name, &why) == 0 ? is_as_known(&o, &a) : may_be_missing(&o));
	if (!is_right) {
		plan_base_path(p, dir, b->name, &why);
		err_set(e, ERR_REFUSED, "'%s' was edited on the replica: it is not what the image says",
			esc_cut(text, sizeof text, span_of(p->path.p, p->path.len)));
		goto out;
	}
	if (check_mounted(p, fd, span_of(p->path.p, p->path.len), e))
		goto out;
	if (o.type == OBJ_DIR) {
		AUTO_CLOSE int dir_fd = path_open_at(fd, name, O_RDONLY | O_DIRECTORY, 0);
		if (dir_fd >= 0 && (plan_base_path(p, dir, b->name, e) ||
				check_mounted(p, dir_fd, span_of(p->path.p, p->path.len), e)))
			goto out;
	}
	rc = 0;
out:
	object_free(&o);
	attr_free(&a);
	return rc;
}

static int edits_record(void *ctx, const struct record *rec, struct err *e)
{
	struct plan *p = ctx;

	switch ((enum rec_type)rec->type) {
	case REC_BASE:
		return check_known(p, &rec->u.base, e);
	case REC_CREATE:
		return rec->u.create.ref == REF_ROOT ? 0 :
			check_free(p, image_ref(&p->loader, rec->u.create.parent), rec->u.create.name, e);
	case REC_ATTACH:
		return check_free(p, image_ref(&p->loader, rec->u.attach.parent), rec->u.attach.name, e);
	default:
		return 0;
	}
}

int check_edits(struct plan *p, struct err *e)
{
	return plan_walk(p, &(struct plan_visit){.record = edits_record, .ctx = p}, e);
}

/* ---- itemizing ---- */

struct list {
	struct plan *p;
	check_item item;
	void *ctx;
	struct check_counts *n;
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

int check_list(struct plan *p, check_item item, void *ctx, struct check_counts *n, struct err *e)
{
	struct list l = {p, item, ctx, n};
	uint64_t before = 0, after = 0;

	if (plan_walk(p, &(struct plan_visit){.object = list_object, .detach = list_detach, .attach = list_attach, .ctx = &l}, e))
		return -1;
	plan_see_base(p, true);
	int rc = catalog_count(p->r->cat, &before, e);
	plan_see_base(p, false);
	if (rc || catalog_count(p->next, &after, e))
		return -1;
	/* Those in directories that go are among them. */
	n->before = before;
	n->removed = before + n->created > after ? before + n->created - after : 0;
	return 0;
}

int check_deletes(const struct check_counts *n, uint64_t max, unsigned percent, struct err *e)
{
	if (n->removed > max || (percent < 100 && n->removed * 100 > n->before * percent))
		return err_set(e, ERR_REFUSED, "the delta removes %llu of %llu objects: --max-delete has to allow it",
			(unsigned long long)n->removed, (unsigned long long)n->before);
	return 0;
}
