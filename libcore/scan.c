#include "scan.h"

#include <stdlib.h>

/* Objects with several names that this scan has met, by inode. */
struct link_row {
	uint64_t dev, ino, base, id;
};
struct scan_links {
	struct link_row *rows; /* id - 1 is the index */
	size_t n, cap;
	uint32_t *by_inode; /* open hash table of index + 1 */
	size_t mask;
};

static void links_grow(struct scan_links *l)
{
	if (l->n == l->cap) {
		l->cap = l->cap ? l->cap * 2 : 64;
		l->rows = xrealloc(l->rows, l->cap * sizeof *l->rows);
	}
	if (l->by_inode && (l->n + 1) * 2 <= l->mask + 1)
		return;
	l->mask = l->by_inode ? l->mask * 2 + 1 : 127;
	free(l->by_inode);
	l->by_inode = xalloc((l->mask + 1) * sizeof *l->by_inode);
	for (size_t i = 0; i < l->n; i++) {
		size_t at = (size_t)((l->rows[i].ino ^ l->rows[i].dev << 40) * ROLL_P >> 20) & l->mask;
		while (l->by_inode[at])
			at = (at + 1) & l->mask;
		l->by_inode[at] = (uint32_t)i + 1;
	}
}

static struct link_row *link_by_inode(struct scan_links *l, uint64_t dev, uint64_t ino)
{
	if (!l->by_inode)
		return NULL;
	size_t at = (size_t)((ino ^ dev << 40) * ROLL_P >> 20) & l->mask;
	for (; l->by_inode[at]; at = (at + 1) & l->mask) {
		struct link_row *r = &l->rows[l->by_inode[at] - 1];
		if (r->ino == ino && r->dev == dev)
			return r;
	}
	return NULL;
}

static struct link_row *link_add(struct scan_links *l, uint64_t dev, uint64_t ino, uint64_t base)
{
	links_grow(l);
	size_t i = l->n++;
	l->rows[i] = (struct link_row){dev, ino, base, i + 1};
	size_t at = (size_t)((ino ^ dev << 40) * ROLL_P >> 20) & l->mask;
	while (l->by_inode[at])
		at = (at + 1) & l->mask;
	l->by_inode[at] = (uint32_t)i + 1;
	return &l->rows[i];
}

void scan_free(struct scan *s)
{
	if (s->links) {
		free(s->links->rows);
		free(s->links->by_inode);
		free(s->links);
		s->links = NULL;
	}
	buf_free(&s->claimed);
}

uint64_t scan_dev(uint64_t dev, uint64_t root_dev, unsigned root)
{
	return dev == root_dev ? root : dev | UINT64_C(1) << 63;
}

bool scan_unchanged(const struct object *b, const struct attr *a)
{
	const struct r_hint *h = &b->hint;

	return h->ino && (h->flags & HINT_SETTLED) && object_same_inode(h, &a->hint) && b->type == a->type &&
		h->ctime_s == a->hint.ctime_s && h->ctime_ns == a->hint.ctime_ns &&
		b->meta.mtime_s == a->meta.mtime_s && b->meta.mtime_ns == a->meta.mtime_ns &&
		(a->type != OBJ_FILE || b->size == a->size);
}

static struct span first_name(struct span path)
{
	const uint8_t *slash = path.len ? memchr(path.p, '/', path.len) : NULL;

	return slash ? span_of(path.p, (size_t)(slash - path.p)) : path;
}

/* The base has the object below the root that this entry is below: 1, 0, -1. */
static int is_at_home(struct scan *s, const struct scan_item *it, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	if (!s->is_group)
		return 1;
	if (catalog_object_path(s->base, no, &path, e))
		return -1;
	return span_eq(first_name(span_of(path.p, path.len)), first_name(it->path));
}

/* The base object that this entry is, and what the base has under its name (0: nothing). */
static int match(struct scan *s, uint64_t dir, const struct scan_item *it, uint64_t *self, uint64_t *at_name, struct object *o,
	struct err *e)
{
	const struct attr *a = it->attr;
	uint64_t b = 0, no = 0;
	bool same_type = false;
	int got;

	if (dir && catalog_lookup(s->base, dir, it->name, &b, NULL, e) < 0)
		return -1;
	*at_name = b;
	*self = 0;
	if (b) {
		if ((got = catalog_get(s->base, b, o, e)) < 0)
			return -1;
		/* Without hints the name decides; with them the inode does. */
		if (got && o->type == a->type && (s->by_name || !o->hint.ino || object_same_inode(&o->hint, &a->hint)))
			no = b;
		same_type = got && o->type == a->type;
		/* What the base has there is hidden, not gone. */
		if (same_type && it->is_mount)
			no = b;
	}
	if (!no && !s->by_name) {
		if (catalog_by_inode(s->base, &a->hint, &no, e) < 0)
			return -1;
		if (!no && s->guess)
			no = s->guess(s->ctx, a);
		if (!no && it->replaced && same_type)
			no = b;
		if (no && (got = catalog_get(s->base, no, o, e)) < 0)
			return -1;
		if (no && (!got || o->type != a->type || no == CATALOG_ROOT))
			no = 0;
		if (no && no != b && (got = is_at_home(s, it, no, e)) <= 0) {
			no = 0;
			if (got < 0)
				return -1;
		}
	}
	*self = no;
	return 0;
}

static void say_hidden(const struct scan *s, const struct scan_item *it)
{
	char text[512];

	warn_say(s->warn, "note", "'%s' is on another filesystem now: what the base has there stays", esc_cut(text, sizeof text, it->path));
}

int scan_classify(struct scan *s, uint64_t dir, unsigned root, struct scan_item *it, struct err *e)
{
	struct object o = {0};
	struct attr *a = it->attr;
	uint64_t self, at_name;
	int rc = -1;

	s->entries++;
	a->hint.dev = scan_dev(a->hint.dev, s->root_dev[root], root);
	it->root = root;
	if (match(s, dir, it, &self, &at_name, &o, e))
		goto out;
	struct link_row *r = NULL;
	bool several = a->type != OBJ_DIR && (a->hint.nlink > 1 || (self && o.nlink > 1));
	if (several && !s->links)
		s->links = xalloc(sizeof *s->links);
	if (several)
		r = link_by_inode(s->links, a->hint.dev, a->hint.ino);
	if (r && s->by_name && !r->base && self && bits_put(&s->claimed, self)) {
		r->base = self; /* the name that was met first is none of the base's */
	} else if (r) {
		it->again = true;
		self = r->base;
	} else if (self && !bits_put(&s->claimed, self)) {
		/* No base object is two: renamed while we walked and seen at both places, or guessed and then met. */
		self = 0;
	}
	if (several && !r)
		r = link_add(s->links, a->hint.dev, a->hint.ino, self);
	if (r)
		it->link = r->id;
	if (r && self && catalog_get(s->base, self, &o, e) < 0)
		goto out;
	it->base = self;
	it->replaced = self && o.no == self && o.hint.ino && !object_same_inode(&o.hint, &a->hint);
	it->prior = at_name != self ? at_name : 0;
	if (it->is_mount && it->replaced)
		say_hidden(s, it);
	if (at_name && at_name != self && s->gone(s->ctx, dir, it->name, at_name, e))
		goto out;
	if (!self)
		it->how = SCAN_NEW;
	else if (at_name != self)
		it->how = SCAN_ATTACH;
	else if (it->is_mount && it->replaced)
		it->how = SCAN_SAME;
	else if (scan_unchanged(&o, a) && !(s->checksum && a->type == OBJ_FILE))
		it->how = SCAN_SAME;
	else
		it->how = SCAN_SUSPECT;
	rc = 0;
out:
	object_free(&o);
	return rc;
}

/* ---- whole directories ---- */

struct frame {
	uint64_t dir;   /* of the base; 0: none */
	bool has_row;   /* the iterator stands on a row that was not used yet */
	bool done, unsure, is_mount;
	bool replaced;  /* the directory is another inode than the base's */
	struct catalog_iter it;
};

struct run {
	struct scan *s;
	struct frame *frames;
	size_t n, cap;
	struct buf prefix, path;
};

static void push(struct run *r, uint64_t dir)
{
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 16;
		r->frames = xrealloc(r->frames, r->cap * sizeof *r->frames);
	}
	r->frames[r->n] = (struct frame){.dir = dir, .done = dir == 0};
	catalog_iter_start(&r->frames[r->n].it, r->s->base, dir);
	r->n++;
}

static void pop(struct run *r) { catalog_iter_free(&r->frames[--r->n].it); }

static void run_free(struct run *r)
{
	while (r->n)
		pop(r);
	free(r->frames);
	buf_free(&r->prefix);
	buf_free(&r->path);
}

static struct span full_path(struct run *r, struct span dir, struct span name)
{
	buf_reset(&r->path);
	buf_add(&r->path, r->prefix.p, r->prefix.len);
	if (dir.len && r->path.len)
		wr_u8(&r->path, '/');
	buf_add(&r->path, dir.p, dir.len);
	if (name.len && r->path.len)
		wr_u8(&r->path, '/');
	buf_add(&r->path, name.p, name.len);
	return span_of(r->path.p, r->path.len);
}

/* Base names before `until` (NULL: all that are left) that the tree no longer has. */
static int gone_before(struct run *r, struct span dir_path, const struct span *until, struct err *e)
{
	struct frame *f = &r->frames[r->n - 1];
	struct scan *s = r->s;

	while (!f->done) {
		if (!f->has_row) {
			int got = catalog_iter_next(&f->it, e);
			if (got < 0)
				return -1;
			f->done = !got;
			f->has_row = got;
			if (!got)
				return 0;
		}
		int c = until ? span_cmp(f->it.name, *until) : -1;
		if (c > 0)
			return 0;
		f->has_row = false;
		if (c == 0)
			return 0;
		if (f->unsure || f->is_mount)
			continue;
		/* What is excluded now is neither updated nor deleted. */
		if (s->filter && !filter_accepts(s->filter, full_path(r, dir_path, f->it.name), f->it.type == OBJ_DIR))
			continue;
		if (s->gone(s->ctx, f->dir, f->it.name, f->it.no, e))
			return -1;
	}
	return 0;
}

static bool accept(void *ctx, struct span path, uint8_t type)
{
	struct run *r = ctx;

	return !r->s->filter || filter_accepts(r->s->filter, full_path(r, path, (struct span){0}), type == OBJ_DIR);
}

static struct span dirname_of(struct span path, struct span name)
{
	size_t cut = path.len - name.len;

	return span_of(path.p, cut ? cut - 1 : 0);
}

static int on_entry(struct run *r, struct walk *w, const struct walk_entry *en, bool is_top, unsigned root, struct err *e)
{
	struct scan *s = r->s;
	struct frame *f = r->n ? &r->frames[r->n - 1] : NULL;
	struct scan_item it = {.kind = en->event == WALK_DIR ? SCAN_ENTER : SCAN_ENTRY, .name = en->name, .attr = en->attr};
	AUTO_BUF struct buf copy = {0};

	if (en->event == WALK_DIR && s->prune_ino && en->attr->hint.ino == s->prune_ino && en->attr->hint.dev == s->prune_dev) {
		walk_skip(w);
		push(r, 0);
		r->frames[r->n - 1].unsure = true;
		r->frames[r->n - 1].has_row = true; /* marks it as never reported */
		return 0;
	}
	if (en->attr->type == OBJ_SOCKET) {
		s->sockets++;
		warn_say(s->warn, "socket", "left out the socket '%.*s'", (int)min_u64(en->path.len, 400), (const char *)en->path.p);
		return 0;
	}
	struct span p = full_path(r, en->path, (struct span){0});
	if (is_top) { /* the image's root */
		it.base = catalog_is_empty(s->base) ? 0 : CATALOG_ROOT;
		en->attr->hint.dev = scan_dev(en->attr->hint.dev, s->root_dev[root], root);
		it.how = it.base ? SCAN_SUSPECT : SCAN_NEW;
		it.root = root;
		s->entries++;
	} else {
		if (f && gone_before(r, dirname_of(en->path, en->name), &en->name, e))
			return -1;
		it.replaced = f && f->replaced;
		it.is_mount = en->is_mount;
		it.path = full_path(r, en->path, (struct span){0});
		if (scan_classify(s, f ? f->dir : 0, root, &it, e))
			return -1;
		p = full_path(r, en->path, (struct span){0});
	}
	buf_add(&copy, p.p, p.len);
	it.path = span_of(copy.p, copy.len);
	it.unsure = en->unreadable;
	if (s->item(s->ctx, &it, e))
		return -1;
	if (en->event != WALK_DIR)
		return 0;
	push(r, it.base);
	r->frames[r->n - 1].replaced = it.replaced;
	r->frames[r->n - 1].unsure = it.unsure;
	r->frames[r->n - 1].is_mount = it.is_mount;
	if (s->skip && s->skip(s->ctx, &it)) {
		r->frames[r->n - 1].done = true;
		walk_skip(w);
	}
	return 0;
}

static int on_leave(struct run *r, const struct walk_entry *en, unsigned root, struct err *e)
{
	struct scan *s = r->s;
	struct frame *f = &r->frames[r->n - 1];
	AUTO_BUF struct buf copy = {0};

	if (f->unsure && f->has_row && f->dir == 0 && f->done) { /* pruned: nobody heard of it */
		pop(r);
		return 0;
	}
	f->unsure |= en->unreadable;
	if (gone_before(r, en->path, NULL, e))
		return -1;
	struct span p = full_path(r, en->path, (struct span){0});
	buf_add(&copy, p.p, p.len);
	struct scan_item it = {.kind = SCAN_LEAVE, .base = f->dir, .name = en->name, .path = span_of(copy.p, copy.len),
		.attr = en->attr, .unsure = f->unsure, .is_mount = f->is_mount, .root = root};
	pop(r);
	return s->item(s->ctx, &it, e);
}

static int run_walk(struct run *r, const struct walk_root *roots, size_t n, bool named, unsigned root0, bool inside,
	struct err *e)
{
	struct scan *s = r->s;
	struct walk_options wo = {.threads = s->threads, .one_file_system = s->one_file_system, .accept = accept, .ctx = r,
		.warn = s->warn, .tmpdir = s->tmpdir};
	struct walk *w = NULL;
	struct walk_entry en;
	int got;

	if (walk_open(&w, roots, n, &wo, e))
		return -1;
	while ((got = walk_next(w, &en, e)) == 0 && en.event != WALK_END) {
		unsigned root = root0 + en.root;
		bool is_top = en.depth == 0 && !named;
		if (is_top && inside) { /* the directory itself was reported by the caller */
			r->frames[0].unsure |= en.unreadable;
			continue;
		}
		got = en.event == WALK_LEAVE ? on_leave(r, &en, root, e) : on_entry(r, w, &en, is_top, root, e);
		if (got)
			break;
	}
	walk_close(&w);
	return got < 0 ? -1 : 0;
}

void scan_group_attr(struct attr *a)
{
	a->type = OBJ_DIR;
	a->meta = (struct r_meta){.mode = 0755};
	a->hint = (struct r_hint){0};
	a->size = 0;
}

int scan_tree(struct scan *s, const struct walk_root *roots, size_t n, struct err *e)
{
	struct run r = {.s = s};
	struct attr a = {0};
	int rc;

	if (n == 1 && !roots[0].name[0]) {
		rc = run_walk(&r, roots, n, false, 0, false, e);
		run_free(&r);
		return rc;
	}
	scan_group_attr(&a);
	uint64_t base = catalog_is_empty(s->base) ? 0 : CATALOG_ROOT;
	struct scan_item it = {.kind = SCAN_ENTER, .how = base ? SCAN_SUSPECT : SCAN_NEW, .base = base, .attr = &a};
	rc = s->item(s->ctx, &it, e);
	if (!rc) {
		push(&r, base);
		rc = run_walk(&r, roots, n, true, 0, false, e);
	}
	if (!rc)
		rc = gone_before(&r, (struct span){0}, NULL, e);
	if (!rc) {
		it.kind = SCAN_LEAVE;
		rc = s->item(s->ctx, &it, e);
	}
	run_free(&r);
	attr_free(&a);
	return rc;
}

int scan_below(struct scan *s, int fd, const struct scan_item *dir, struct span path, bool *unsure, struct err *e)
{
	struct run r = {.s = s};
	struct walk_root wr = {"", fd};

	buf_add(&r.prefix, path.p, path.len);
	push(&r, dir->base);
	r.frames[0].replaced = dir->replaced;
	int rc = run_walk(&r, &wr, 1, false, dir->root, true, e);
	if (!rc)
		rc = gone_before(&r, (struct span){0}, NULL, e);
	*unsure |= r.frames[0].unsure;
	run_free(&r);
	return rc;
}
