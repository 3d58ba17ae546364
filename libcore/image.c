#include "image.h"

#include <stdlib.h>
#include <unistd.h>

#include "input.h"
#include "numbers.h"

void image_load_start(struct image_loader *l, struct catalog *cat)
{
	image_loader_free(l);
	l->cat = cat;
	l->refs = xalloc(16 * sizeof *l->refs);
	l->cap_refs = 16;
	l->refs[REF_ROOT] = catalog_is_empty(cat) ? 0 : CATALOG_ROOT;
	l->n_refs = 2;
}

void image_loader_free(struct image_loader *l)
{
	free(l->refs);
	buf_free(&l->store);
	buf_free(&l->members);
	buf_free(&l->cursor);
	buf_free(&l->again);
	buf_free(&l->cur_name);
	object_free(&l->cur);
	*l = (struct image_loader){0};
}

uint64_t image_ref(const struct image_loader *l, uint64_t ref)
{
	if (l->local && ref & REF_LOCAL)
		return ref & ~REF_LOCAL;
	return ref < l->n_refs ? l->refs[ref] : 0;
}

/* Numbers come in ascending order without holes, so that a reader's memory follows the records it was sent. */
static int set_ref(struct image_loader *l, uint64_t ref, uint64_t no, struct err *e)
{
	if (ref == REF_NONE || (l->local && ref == (no | REF_LOCAL)))
		return 0;
	if (ref < l->n_refs && (l->refs[ref] == no || (ref == REF_ROOT && !l->refs[ref]))) {
		l->refs[ref] = no;
		return 0;
	}
	if (ref != l->n_refs)
		return err_set(e, ERR_STREAM, "object number %llu is out of order", (unsigned long long)ref);
	if (l->n_refs == l->cap_refs) {
		l->cap_refs *= 2;
		l->refs = xrealloc(l->refs, l->cap_refs * sizeof *l->refs);
	}
	l->refs[l->n_refs++] = no;
	return 0;
}

static int known(const struct image_loader *l, uint64_t ref, uint64_t *no, struct err *e)
{
	*no = image_ref(l, ref);
	return *no ? 0 : err_set(e, ERR_STREAM, "object number %llu was never given", (unsigned long long)ref);
}

/* Content that nobody sealed is not known to be what it should: only DROP and another CONTENT do without. */
static int need_sealed(const struct image_loader *l, struct err *e)
{
	return l->open ? err_set(e, ERR_STREAM, "content without a seal") : 0;
}

/* Writes the current object. */
static int flush(struct image_loader *l, struct err *e)
{
	if (!l->has_cur)
		return 0;
	l->has_cur = false;
	if (l->is_new && !l->cur.store.len)
		return err_set(e, ERR_STREAM, "an object was created without META");
	if (l->is_new && l->cur.no != CATALOG_ROOT) {
		if (l->cur.type == OBJ_FILE && !l->was_sealed && l->open != l->cur.no)
			return err_set(e, ERR_STREAM, "a file was created without content");
		return catalog_create(l->cat, l->cur_dir, span_of(l->cur_name.p, l->cur_name.len), &l->cur, e);
	}
	return catalog_put(l->cat, &l->cur, e);
}

static int make_current(struct image_loader *l, uint64_t no, struct err *e)
{
	if (flush(l, e))
		return -1;
	int got = catalog_get(l->cat, no, &l->cur, e);
	if (got != 1)
		return got ? -1 : err_set(e, ERR_STREAM, "a record speaks of an object that is gone");
	l->has_cur = true;
	l->is_new = false;
	return 0;
}

static int need_dir(struct image_loader *l, uint64_t no, struct err *e)
{
	struct object o = {0};
	int got = catalog_get(l->cat, no, &o, e);
	uint8_t type = o.type;

	object_free(&o);
	if (got < 0)
		return -1;
	return got && type == OBJ_DIR ? 0 : err_set(e, ERR_STREAM, "a name was put below what is not a directory");
}

/* Parents come before what is in them: then each name can be made where it belongs, and no directory gets below itself. */
static int need_place(struct image_loader *l, uint64_t dir, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	uint64_t up;

	for (up = dir; up != CATALOG_ROOT && l->reachable[up % IMAGE_REACHABLE] != up;) {
		int got = catalog_name(l->cat, up, &up, &name, e);
		if (got != 1)
			return got ? -1 : err_set(e, ERR_STREAM, "a name was put below a directory that has no place yet");
	}
	/* What has its place keeps it: nothing is detached any more. */
	for (uint64_t next; dir != up; dir = next) {
		if (catalog_name(l->cat, dir, &next, &name, e) != 1)
			return -1;
		l->reachable[dir % IMAGE_REACHABLE] = dir;
	}
	return 0;
}

static int free_name(struct image_loader *l, uint64_t dir, struct span name, struct err *e)
{
	uint64_t no;
	char text[300];

	if (need_dir(l, dir, e))
		return -1;
	int got = catalog_lookup(l->cat, dir, name, &no, NULL, e);
	if (got == 1)
		return err_set(e, ERR_MISMATCH, "the name '%s' is taken in the base", esc_cut(text, sizeof text, name));
	return got;
}

/* A place for an object; from here on names only come. */
static int free_place(struct image_loader *l, uint64_t dir, struct span name, struct err *e)
{
	l->has_placed = true;
	return free_name(l, dir, name, e) || need_place(l, dir, e) ? -1 : 0;
}

static int load_base(struct image_loader *l, const struct r_base *b, struct err *e)
{
	uint64_t dir, no;
	char text[300];

	if (flush(l, e) || known(l, b->parent, &dir, e))
		return -1;
	int got = catalog_lookup(l->cat, dir, b->name, &no, NULL, e);
	if (got < 0)
		return -1;
	if (!got)
		return err_set(e, ERR_MISMATCH, "the base has no '%s' where the delta changes it",
			esc_cut(text, sizeof text, b->name));
	if (set_ref(l, b->ref, no, e))
		return -1;
	if (!(b->flags & BASE_DETACH))
		return make_current(l, no, e);
	if (l->has_placed)
		return err_set(e, ERR_STREAM, "a name was detached after others were made");
	l->has_moved = true;
	return catalog_remove_name(l->cat, dir, b->name, e);
}

static int load_create(struct image_loader *l, const struct r_create *c, struct err *e)
{
	uint64_t dir = 0, no = CATALOG_ROOT;

	if (need_sealed(l, e) || flush(l, e))
		return -1;
	if (c->ref == REF_ROOT) {
		if (c->type != OBJ_DIR)
			return err_set(e, ERR_STREAM, "a root that is not a directory");
		if (image_ref(l, REF_ROOT))
			return err_set(e, ERR_MISMATCH, "the stream starts from nothing, but there is an image already");
	} else if (known(l, c->parent, &dir, e) || free_place(l, dir, c->name, e) || catalog_alloc(l->cat, &no, e)) {
		return -1;
	}
	if (set_ref(l, c->ref, no, e))
		return -1;
	l->created = no;
	l->created_ref = c->ref;
	object_free(&l->cur);
	l->cur.no = no;
	l->cur.type = c->type;
	l->cur.nlink = 1;
	l->cur_dir = dir;
	buf_reset(&l->cur_name);
	buf_add(&l->cur_name, c->name.p, c->name.len);
	l->has_cur = l->is_new = true;
	l->was_sealed = false;
	return 0;
}

static uint64_t row_blocks(uint64_t size, uint32_t grain) { return size < DIGEST_LEAF ? 0 : object_blocks(size, grain); }

/* Its number goes as well. It is in the catalog already when something else was current since. */
static int load_drop(struct image_loader *l, struct err *e)
{
	if (l->cur.no != l->created || l->cur.nlink != 1 || l->cur.type == OBJ_DIR)
		return err_set(e, ERR_STREAM, "only what was just created can be dropped");
	if (l->open != l->cur.no && need_sealed(l, e))
		return -1;
	l->has_cur = false;
	l->has_dropped = true;
	l->open = l->created = l->refs[l->created_ref] = 0;
	if (!l->is_new && catalog_remove_name(l->cat, l->cur_dir, span_of(l->cur_name.p, l->cur_name.len), e))
		return -1;
	return catalog_blocks_clear(l->cat, l->cur.no, e);
}

static int load_content(struct image_loader *l, const struct r_content *c, struct err *e)
{
	struct object *o = &l->cur;
	bool is_again = l->open == o->no;

	if (o->type != OBJ_FILE)
		return err_set(e, ERR_STREAM, "content for what is not a file");
	if (!is_again && need_sealed(l, e))
		return -1;
	l->open = o->no;
	bool starts = !(c->flags & CONTENT_PATCH) || o->grain != c->grain;
	o->grain = c->grain;
	if (starts)
		return l->is_new && !is_again ? 0 : catalog_blocks_clear(l->cat, o->no, e);
	/* What the one before changed of the base's rows: all that it has come again. */
	return is_again ? catalog_blocks_clear(l->cat, o->no, e) : 0;
}

static int load_attach(struct image_loader *l, const struct r_attach *a, struct err *e)
{
	uint64_t dir, no;

	if (need_sealed(l, e) || flush(l, e) || known(l, a->parent, &dir, e) || known(l, a->ref, &no, e) || free_place(l, dir, a->name, e))
		return -1;
	struct object o = {0};
	int got = catalog_get(l->cat, no, &o, e);
	bool is_second = o.type == OBJ_DIR && o.nlink;
	object_free(&o);
	if (got != 1)
		return got ? -1 : err_set(e, ERR_STREAM, "a record speaks of an object that is gone");
	if (is_second)
		return err_set(e, ERR_STREAM, "a second name for a directory");
	l->has_moved = true;
	return catalog_add_name(l->cat, dir, a->name, no, e);
}

/* Nothing that an image knows: only that there really is no such name. */
static int load_stray(struct image_loader *l, const struct r_stray *s, struct err *e)
{
	uint64_t dir;

	l->has_moved = true;
	return flush(l, e) || known(l, s->parent, &dir, e) ? -1 : free_name(l, dir, s->name, e);
}

static int load_current(struct image_loader *l, const struct record *r, struct err *e)
{
	struct object *o = &l->cur;

	if (!l->has_cur)
		return err_set(e, ERR_STREAM, "a '%s' record without an object", rec_row(r->type)->name);
	switch ((enum rec_type)r->type) {
	case REC_META:
		/* Found out here, before anything is decided: the target is what a link consists of. */
		if ((o->type == OBJ_LINK) != (r->u.meta.target.len > 0))
			return err_set(e, ERR_STREAM, o->type == OBJ_LINK ? "a symbolic link without a target" :
				"a target for what is no symbolic link");
		if (o->type != OBJ_CHAR && o->type != OBJ_BLOCK && (r->u.meta.major || r->u.meta.minor))
			return err_set(e, ERR_STREAM, "a device number for what is no device");
		object_set_meta(o, &r->u.meta);
		return 0;
	case REC_HINT:
		o->hint = r->u.hint;
		return 0;
	case REC_DROP:
		return load_drop(l, e);
	case REC_CONTENT:
		return load_content(l, &r->u.content, e);
	case REC_DIGESTS:
		if (o->type != OBJ_FILE || !o->grain)
			return err_set(e, ERR_STREAM, "digests without content");
		return catalog_blocks_put(l->cat, o->no, r->u.digests.first, r->u.digests.rows.len / DIGESTS_ROW,
			r->u.digests.rows.p, e);
	case REC_SEAL:
		if (l->open != o->no)
			return err_set(e, ERR_STREAM, "a seal without content");
		l->open = 0;
		l->was_sealed = true;
		if (!l->is_new && o->size > r->u.seal.size && catalog_blocks_cut(l->cat, o->no, row_blocks(r->u.seal.size, o->grain), e))
			return -1;
		o->size = r->u.seal.size;
		o->content = r->u.seal.digest;
		o->flags = r->u.seal.flags;
		return 0;
	default:
		return err_set(e, ERR_STREAM, "a '%s' record has no place here", rec_row(r->type)->name);
	}
}

#define AGAIN_MAX (1u << 20) /* bytes; when there is more to look at again, everything is */

static int load_again(struct image_loader *l, uint64_t ref, struct span name, struct err *e)
{
	uint64_t dir;

	if (known(l, ref, &dir, e))
		return -1;
	if (l->again.len + name.len + 12 > AGAIN_MAX) {
		buf_reset(&l->again);
		dir = CATALOG_ROOT;
		name = (struct span){0};
	}
	wr_u64(&l->again, dir);
	wr_str(&l->again, name.p, name.len);
	return 0;
}

int image_load(struct image_loader *l, const struct record *r, struct err *e)
{
	uint64_t no;

	switch ((enum rec_type)r->type) {
	case REC_IMAGE:
		buf_reset(&l->store);
		buf_reset(&l->members);
		buf_reset(&l->cursor);
		buf_reset(&l->again);
		rec_encode(&l->store, r);
		l->has_image = true;
		return 0;
	case REC_BASE:
		return load_base(l, &r->u.base, e);
	case REC_CREATE:
		return load_create(l, &r->u.create, e);
	case REC_STRAY:
		return load_stray(l, &r->u.stray, e);
	case REC_ATTACH:
		return load_attach(l, &r->u.attach, e);
	case REC_OBJECT:
		return known(l, r->u.object.ref, &no, e) ? -1 : make_current(l, no, e);
	case REC_META:
	case REC_HINT:
	case REC_DROP:
	case REC_CONTENT:
	case REC_DIGESTS:
	case REC_SEAL:
		return load_current(l, r, e);
	case REC_MEMBER:
		rec_encode(&l->members, r);
		return 0;
	case REC_CURSOR:
		buf_reset(&l->cursor);
		rec_encode(&l->cursor, r);
		return 0;
	case REC_DELTA:
	case REC_OWNER:
	case REC_DATA:
	case REC_COPY:
	case REC_HOLE:
	case REC_END:
	case REC_BEAT:
	case REC_TRAILER:
		return 0;
	case REC_CHANGED:
		if (!l->local)
			break;
		return load_again(l, r->u.changed.parent, r->u.changed.name, e);
	case REC_GAP:
		if (!l->local)
			break;
		return load_again(l, r->u.gap.ref, (struct span){0}, e);
	case REC_DIR:
	case REC_REGION:
	case REC_INODE:
	case REC_ACK:
	case REC_LOSS:
	case REC_WRITE:
	case REC_MARK:
	case REC_RESUME:
		break;
	}
	return err_set(e, ERR_STREAM, "record type 0x%02x has no place in an image", r->type);
}

int image_load_plan(struct image_loader *l, int fd, bool is_live, struct err *e)
{
	struct input in = {0};
	int got, rc = 0;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_sys(e, "cannot read a plan");
	if (input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_mac = true;
	while (!rc && (got = input_next(&in, e)) != STREAM_END) {
		if (!got)
			rc = err_set(e, ERR_STREAM, "a plan is not whole");
		else if (got < 0 || (got == STREAM_RECORD && image_load(l, &in.s.rec, e)))
			rc = -1;
		else if (is_live && catalog_is_large(l->cat))
			rc = 1;
	}
	input_close(&in);
	return rc;
}

int image_load_end(struct image_loader *l, struct digest *id, struct err *e)
{
	if (need_sealed(l, e) || flush(l, e))
		return -1;
	if (l->has_image && (catalog_set_fact(l->cat, "stamps", l->store.p, l->store.len, e) ||
			catalog_set_fact(l->cat, "members", l->members.p, l->members.len, e) ||
			catalog_set_fact(l->cat, "cursor", l->cursor.p, l->cursor.len, e) ||
			catalog_set_fact(l->cat, "again", l->again.p, l->again.len, e)))
		return -1;
	return catalog_seal(l->cat, id, e);
}

int image_stamps(struct catalog *cat, struct r_image *r, struct buf *store, struct err *e)
{
	struct record rec;

	struct err why = {0};

	buf_reset(store);
	int got = catalog_fact(cat, "stamps", store, e);
	if (got != 1)
		return got;
	if (store->len < 8 || rec_decode(&rec, REC_IMAGE, 0, store->p + 8, store->len - 8, &why))
		return catalog_damaged(cat, "its stamps make no sense", e);
	*r = rec.u.image;
	return 1;
}

int image_members(struct catalog *cat, struct buf *rows, struct err *e)
{
	buf_reset(rows);
	int got = catalog_fact(cat, "members", rows, e);
	return got == 1 && !rows->len ? 0 : got;
}

int image_cursor(struct catalog *cat, struct r_cursor *r, struct buf *store, struct err *e)
{
	struct record rec;

	struct err why = {0};

	buf_reset(store);
	int got = catalog_fact(cat, "cursor", store, e);
	if (got != 1 || !store->len)
		return got < 0 ? -1 : 0;
	if (store->len < 8 || rec_decode(&rec, REC_CURSOR, REC_OPTIONAL, store->p + 8, store->len - 8, &why))
		return catalog_damaged(cat, "its cursor makes no sense", e);
	*r = rec.u.cursor;
	return 1;
}

int image_again_each(struct catalog *cat, int (*fn)(void *ctx, const struct image_again *a, struct err *e), void *ctx,
	struct err *e)
{
	AUTO_BUF struct buf rows = {0};
	int got = catalog_fact(cat, "again", &rows, e);

	if (got != 1)
		return got;
	for (struct rd r = rd_of(rows.p, rows.len); r.len;) {
		struct image_again a = {.dir = rd_u64(&r)};
		a.name = rd_str(&r, REC_NAME_MAX);
		if (r.bad)
			return catalog_damaged(cat, "its list of what to look at again makes no sense", e);
		if (fn(ctx, &a, e))
			return -1;
	}
	return 0;
}

int image_set_stamps(struct catalog *cat, const struct r_image *r, struct err *e)
{
	struct record rec = {.type = REC_IMAGE, .u.image = *r};
	AUTO_BUF struct buf b = {0};

	rec_encode(&b, &rec);
	return catalog_set_fact(cat, "stamps", b.p, b.len, e);
}

/* ---- a catalog out as records ---- */

struct writer {
	struct catalog *cat;
	struct stream_out *o;
	bool hints;
	uint64_t next_ref, entries, bytes;
	struct numbers links; /* refs of objects with several names */
};

/* What no row covers is zeros: of a hole there is nothing to say, however large it is. */
static int write_rows(struct writer *w, uint64_t first, const uint8_t *rows, size_t n, struct err *e)
{
	for (size_t i = 0, end; i < n; i = end) {
		bool is_hole = is_zero(rows + i * DIGESTS_ROW, DIGESTS_ROW);
		for (end = i + 1; end < n && is_zero(rows + end * DIGESTS_ROW, DIGESTS_ROW) == is_hole; end++)
			;
		struct record r = {.type = REC_DIGESTS, .u.digests = {first + i, span_of(rows + i * DIGESTS_ROW, (end - i) * DIGESTS_ROW)}};
		if (!is_hole && stream_put(w->o, &r, e))
			return -1;
	}
	return 0;
}

static int write_content(struct writer *w, const struct object *o, struct err *e)
{
	struct record r = {.type = REC_CONTENT};
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];

	r.u.content.grain = o->grain ? o->grain : DIGEST_GRAIN_MIN;
	if (stream_put(w->o, &r, e))
		return -1;
	uint64_t n = object_blocks(o->size, r.u.content.grain);
	int got = 0;
	for (uint64_t at = 0; o->size >= DIGEST_LEAF && (got = catalog_blocks_some(w->cat, o->no, &at, n, rows, e)) > 0; at += (uint64_t)got)
		if (write_rows(w, at, rows, (size_t)got, e))
			return -1;
	if (got < 0)
		return -1;
	r = (struct record){.type = REC_SEAL};
	r.u.seal.size = o->size;
	r.u.seal.digest = o->content;
	r.u.seal.flags = o->flags;
	w->bytes += o->size;
	return stream_put(w->o, &r, e);
}

static int write_object(struct writer *w, uint64_t parent, struct span name, uint64_t no, uint64_t *ref, struct err *e)
{
	struct object o = {0};
	struct record r = {0};
	uint64_t *link = NULL;
	int rc = -1;

	*ref = REF_NONE;
	int got = catalog_get(w->cat, no, &o, e);
	if (got != 1) {
		catalog_damaged(w->cat, "it lacks an object that it should have", e);
		goto out;
	}
	if (o.type != OBJ_DIR && o.nlink > 1)
		link = numbers_at(&w->links, no);
	if (link && *link) {
		r.type = REC_ATTACH;
		r.u.attach = (struct r_attach){*link, parent, name};
		rc = stream_put(w->o, &r, e);
		goto out;
	}
	if (o.type == OBJ_DIR || link)
		*ref = w->next_ref++;
	if (link)
		*link = *ref;
	w->entries++;
	r.type = REC_CREATE;
	r.u.create = (struct r_create){*ref, parent, o.type, name};
	if (stream_put(w->o, &r, e))
		goto out;
	r = (struct record){.type = REC_META, .u.meta = o.meta};
	if (stream_put(w->o, &r, e) || (o.type == OBJ_FILE && write_content(w, &o, e)))
		goto out;
	r = (struct record){.type = REC_HINT, .u.hint = o.hint};
	rc = w->hints && o.hint.ino ? stream_put(w->o, &r, e) : 0;
out:
	object_free(&o);
	return rc;
}

int image_write(struct catalog *cat, struct stream_out *o, bool hints, struct err *e)
{
	struct writer w = {.cat = cat, .o = o, .hints = hints, .next_ref = REF_ROOT};
	struct catalog_iter it = {0};
	/* The way down: directory, its ref, and where to go on in the one above it. */
	AUTO_BUF struct buf stack = {0};
	struct record end = {.type = REC_END};
	uint64_t dir = CATALOG_ROOT, ref;
	int rc = -1;

	if (catalog_is_empty(cat)) {
		rc = stream_put(o, &end, e);
		goto out;
	}
	if (write_object(&w, REF_NONE, (struct span){0}, CATALOG_ROOT, &ref, e))
		goto out;
	catalog_iter_start(&it, cat, dir);
	for (;;) {
		int got = catalog_iter_next(&it, e);
		if (got < 0)
			goto out;
		if (got) {
			uint64_t child;
			if (write_object(&w, ref, it.name, it.no, &child, e))
				goto out;
			if (it.type != OBJ_DIR)
				continue;
			wr_raw(&stack, it.name.p, it.name.len);
			wr_u32(&stack, (uint32_t)it.name.len);
			wr_u64(&stack, dir);
			wr_u64(&stack, ref);
			dir = it.no;
			ref = child;
			catalog_iter_start(&it, cat, dir);
			continue;
		}
		if (!stack.len)
			break;
		struct rd r = rd_of(stack.p + stack.len - 20, 20);
		size_t n = rd_u32(&r);
		dir = rd_u64(&r);
		ref = rd_u64(&r);
		stack.len -= 20 + n;
		catalog_iter_after(&it, cat, dir, span_of(stack.p + stack.len, n));
	}
	if (catalog_id(cat, &end.u.end.id, e))
		goto out;
	end.u.end.entries = w.entries;
	end.u.end.bytes = w.bytes;
	rc = stream_put(o, &end, e);
out:
	catalog_iter_free(&it);
	numbers_free(&w.links);
	return rc;
}
