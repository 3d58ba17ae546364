#include "catalog.h"

#include <assert.h>
#include <stdlib.h>

#include "chunks.h"
#include "seal.h"
#include "trail.h"

#define VERSION 5u /* 1: rows without a check; 2, 3: other values of block rows; 4: no loose ones */
#define LARGE (16u << 20)

struct catalog {
	struct store *s;
	enum catalog_mode mode;
	uint64_t next_no;
	struct trail trail[2]; /* of what the open change, or there is none, has; of the base */
};

/* ---- transactions ---- */

static int load_next(struct catalog *c, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	int got = catalog_fact(c, "next", &b, e);
	if (got < 0)
		return -1;
	c->next_no = got && b.len == 8 ? get_le64(b.p) : CATALOG_ROOT + 1;
	return 0;
}

/* The image is the root's digest: what holds another root, or none, is not what was sealed. */
static int check_root(struct catalog *c, struct err *e)
{
	struct object root = {0};
	struct digest id, is = {{0}};
	int got = catalog_id(c, &id, e) ? -1 : rows_get(c->s, CATALOG_ROOT, &root, e);

	if (got == 1)
		object_digest(&root, &is);
	object_free(&root);
	if (got < 0 || digest_eq(&id, &is))
		return got < 0 ? -1 : 0;
	return store_damaged(c->s, "its root is not what its id says", e);
}

int catalog_open(struct catalog **out, const char *path, enum catalog_mode mode, struct err *e)
{
	return catalog_open_at(out, path, mode, NULL, e);
}

int catalog_open_at(struct catalog **out, const char *path, enum catalog_mode mode, const char *advice, struct err *e)
{
	static const enum store_mode as[] = {
		[CATALOG_READ] = STORE_READ, [CATALOG_LIVE] = STORE_LIVE, [CATALOG_PRIVATE] = STORE_PRIVATE,
	};
	struct catalog *c = xalloc(sizeof *c);
	AUTO_BUF struct buf b = {0};
	int rc = -1;

	c->mode = mode;
	if (store_open(&c->s, path, as[mode], advice, e) || catalog_fact(c, "version", &b, e) < 0)
		goto out;
	if (b.len && (b.len != 4 || b.p[0] != VERSION)) {
		err_set(e, ERR_SYSTEM, "the catalog '%s' was written by %s version of this program%s%s", path,
			b.p[0] < VERSION ? "an older" : "a newer", b.p[0] < VERSION && advice ? ": " : "",
			b.p[0] < VERSION && advice ? advice : "");
		goto out;
	}
	if (load_next(c, e) || (mode != CATALOG_PRIVATE && check_root(c, e)))
		goto out;
	*out = c;
	c = NULL;
	rc = 0;
out:
	catalog_close(&c);
	return rc;
}

void catalog_close(struct catalog **cp)
{
	if (*cp) {
		store_close(&(*cp)->s);
		trail_free(&(*cp)->trail[0]);
		trail_free(&(*cp)->trail[1]);
	}
	free(*cp);
	*cp = NULL;
}

static void forget(struct catalog *c)
{
	trail_forget(&c->trail[0]);
	trail_forget(&c->trail[1]);
}

int catalog_begin(struct catalog *c, struct err *e)
{
	forget(c);
	return store_begin(c->s, e);
}

/* What is kept between openings, into the open transaction. */
static int put_head(struct catalog *c, struct err *e)
{
	uint8_t next[8], version[4] = {VERSION, 0, 0, 0};

	put_le64(next, c->next_no);
	return catalog_set_fact(c, "next", next, sizeof next, e) || catalog_set_fact(c, "version", version, sizeof version, e) ?
		-1 : 0;
}

bool catalog_is_large(const struct catalog *c) { return store_held(c->s) > LARGE; }

int catalog_commit(struct catalog *c, struct err *e)
{
	forget(c);
	return put_head(c, e) || store_commit(c->s, e) ? -1 : 0;
}

void catalog_abort(struct catalog *c)
{
	struct err ignored = {0};

	forget(c);
	store_abort(c->s);
	load_next(c, &ignored);
}

int catalog_settle(struct catalog *c, struct err *e)
{
	return (store_is_changing(c->s) && put_head(c, e)) || store_sync(c->s, e) ? -1 : 0;
}

int catalog_copy(struct catalog *c, const char *path, struct err *e)
{
	if (c->mode == CATALOG_PRIVATE && store_is_changing(c->s) && catalog_commit(c, e))
		return -1;
	return store_copy(c->s, path, e);
}

int catalog_damaged(const struct catalog *c, const char *what, struct err *e) { return store_damaged(c->s, what, e); }

void catalog_see_base(struct catalog *c, bool base) { store_see_base(c->s, base); }

/* ---- look-ups ---- */

int catalog_lookup(struct catalog *c, uint64_t dir, struct span name, uint64_t *no, uint8_t *type, struct err *e)
{
	struct rows_name row;
	int got = rows_name_get(c->s, dir, name, &row, e);

	if (got != 1)
		return got;
	*no = row.no;
	if (type)
		*type = row.type;
	return 1;
}

int catalog_get(struct catalog *c, uint64_t no, struct object *o, struct err *e) { return rows_get(c->s, no, o, e); }

int catalog_get_sealed(struct catalog *c, uint64_t no, struct object *o, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct rows_name row;
	struct digest is;
	uint64_t dir;
	int got = rows_get(c->s, no, o, e);

	if (got == 1 && no == CATALOG_ROOT)
		got = catalog_id(c, &row.digest, e) ? -1 : 1;
	else if (got == 1 && (got = rows_link_first(c->s, no, &dir, &name, e)) == 1)
		got = rows_name_get(c->s, dir, span_of(name.p, name.len), &row, e);
	if (got != 1)
		return got ? -1 : store_damaged(c->s, "it lacks an object that it should have, or its name", e);
	object_digest(o, &is);
	return digest_eq(&is, &row.digest) ? 0 : store_damaged(c->s, "an object in it is not what its name says", e);
}

bool catalog_is_empty(struct catalog *c)
{
	struct rows_key k = rows_key_no(CATALOG_ROOT);
	struct err e = {0};

	return store_get(c->s, STORE_OBJECTS, rows_span(&k), NULL, &e) == 0;
}

void catalog_ahead_names(struct catalog *c, const struct rows_place *v, size_t n) { rows_names_ahead(c->s, v, n); }

void catalog_ahead_objects(struct catalog *c, const uint64_t *no, size_t n)
{
	rows_ahead(c->s, STORE_OBJECTS, no, n);
	rows_ahead(c->s, STORE_LINKS, no, n);
}

void catalog_ahead_inodes(struct catalog *c, const struct r_hint *v, size_t n) { rows_inodes_ahead(c->s, v, n); }

int catalog_by_inode(struct catalog *c, const struct r_hint *h, uint64_t *no, struct err *e)
{
	return rows_inode_get(c->s, h, no, e);
}

int catalog_name(struct catalog *c, uint64_t no, uint64_t *dir, struct buf *name, struct err *e)
{
	return rows_link_first(c->s, no, dir, name, e);
}

static struct trail *trail_of(struct catalog *c) { return &c->trail[store_sees_base(c->s)]; }

int catalog_path(struct catalog *c, uint64_t dir, struct span name, struct buf *path, struct err *e)
{
	struct trail *t = trail_of(c);

	if (trail_to(t, c->s, dir, e))
		return -1;
	if (path->len && t->path.len)
		wr_u8(path, '/');
	wr_raw(path, t->path.p, t->path.len);
	if (path->len && name.len)
		wr_u8(path, '/');
	wr_raw(path, name.p, name.len);
	return 0;
}

int catalog_depth(struct catalog *c, uint64_t dir, uint64_t *depth, struct err *e)
{
	if (trail_to(trail_of(c), c->s, dir, e))
		return -1;
	*depth = trail_depth(trail_of(c));
	return 0;
}

int catalog_object_path(struct catalog *c, uint64_t no, struct buf *path, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	uint64_t dir;

	if (no == CATALOG_ROOT)
		return 0;
	int got = catalog_name(c, no, &dir, &name, e);
	if (got == 0)
		return store_damaged(c->s, "an object in it has no name", e);
	return got < 0 ? -1 : catalog_path(c, dir, span_of(name.p, name.len), path, e);
}

/* ---- children ---- */

void catalog_iter_start(struct catalog_iter *it, struct catalog *c, uint64_t dir)
{
	catalog_iter_after(it, c, dir, (struct span){0});
}

void catalog_iter_after(struct catalog_iter *it, struct catalog *c, uint64_t dir, struct span name)
{
	struct rows_key k = rows_key_name(dir, name);

	store_walk_start(&it->walk, c->s, STORE_NAMES, rows_span(&k), 8, true);
}

void catalog_iter_free(struct catalog_iter *it) { store_walk_free(&it->walk); }

int catalog_iter_next(struct catalog_iter *it, struct err *e)
{
	struct rows_name row;
	int got = store_walk_next(&it->walk, e);

	if (got != 1)
		return got;
	if (it->walk.key.len <= 8 || !rows_name_decode(&row, it->walk.value))
		return store_damaged(it->walk.s, NULL, e);
	it->no = row.no;
	it->type = row.type;
	it->name = span_of(it->walk.key.p + 8, it->walk.key.len - 8);
	return 1;
}

/* ---- names of an object ---- */

void catalog_names_start(struct catalog_names *n, struct catalog *c, uint64_t no) { rows_link_start(&n->walk, c->s, no); }
void catalog_names_free(struct catalog_names *n) { store_walk_free(&n->walk); }

int catalog_names_next(struct catalog_names *n, struct err *e)
{
	return rows_link_next(&n->walk, &n->dir, &n->name, e);
}

/* ---- blocks ---- */

int catalog_blocks(struct catalog *c, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e)
{
	return chunks_get(c->s, no, first, n, rows, e);
}

int catalog_blocks_next(struct catalog *c, uint64_t no, uint64_t *block, struct err *e) { return chunks_next(c->s, no, block, e); }

int catalog_blocks_some(struct catalog *c, uint64_t no, uint64_t *first, uint64_t stop, uint8_t *rows, struct err *e)
{
	int got = *first < stop ? chunks_next(c->s, no, first, e) : 0;

	if (got <= 0 || *first >= stop)
		return got < 0 ? -1 : 0;
	size_t n = (size_t)min_u64(BLOCKS_ROWS - *first % BLOCKS_ROWS, stop - *first);
	return chunks_get(c->s, no, *first, n, rows, e) ? -1 : (int)n;
}

int catalog_blocks_put(struct catalog *c, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	return chunks_put(c->s, no, first, n, rows, e);
}

int catalog_blocks_cut(struct catalog *c, uint64_t no, uint64_t first, struct err *e) { return chunks_cut(c->s, no, first, e); }
int catalog_blocks_clear(struct catalog *c, uint64_t no, struct err *e) { return chunks_cut(c->s, no, 0, e); }

int catalog_blocks_all(struct catalog *c, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row),
	void *ctx, struct err *e)
{
	return chunks_all(c->s, fn, ctx, e);
}

/* ---- changes ---- */

int catalog_alloc(struct catalog *c, uint64_t *no, struct err *e)
{
	(void)e;
	*no = c->next_no++;
	return 0;
}

int catalog_put(struct catalog *c, const struct object *o, struct err *e)
{
	struct object old = {0};
	AUTO_BUF struct buf was = {0}, is = {0};
	int got = catalog_get(c, o->no, &old, e), rc = -1;
	bool has_old = got == 1, same_inode = has_old && object_same_inode(&old.hint, &o->hint);

	if (has_old)
		object_encode(&was, &old);
	object_encode(&is, o);
	if (got < 0)
		goto out;
	rc = 0;
	if (has_old && span_eq(span_of(was.p, was.len), span_of(is.p, is.len)))
		goto out;
	if (has_old && !same_inode && old.hint.ino)
		rc = rows_inode_del(c->s, &old.hint, o->no, e);
	if (rc || rows_put(c->s, o, e) || (!same_inode && rows_inode_put(c->s, o, e)))
		rc = -1;
	/* A hint is nothing that a digest covers. */
	else if (!has_old || !object_same(&old, o))
		rc = o->type == OBJ_DIR ? seal_dirty(c->s, o->no, e) : seal_changed(c->s, o->no, e);
out:
	object_free(&old);
	return rc;
}

int catalog_create(struct catalog *c, uint64_t dir, struct span name, struct object *o, struct err *e)
{
	struct rows_name row = {.no = o->no, .type = o->type};

	o->nlink = 1;
	if (o->type != OBJ_DIR)
		object_digest(o, &row.digest);
	return rows_name_put(c->s, dir, name, &row, e) || rows_link_put(c->s, o->no, dir, name, e) ||
		rows_put(c->s, o, e) || rows_inode_put(c->s, o, e) ||
		seal_dirty(c->s, o->type == OBJ_DIR ? o->no : dir, e) ? -1 : 0;
}

int catalog_add_name(struct catalog *c, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct object o = {0};
	struct rows_name row = {.no = no};
	int rc = -1;

	trail_forget(&c->trail[0]);
	if (catalog_get(c, no, &o, e) != 1) {
		store_damaged(c->s, "it lacks an object that it should have", e);
		goto out;
	}
	row.type = o.type;
	if (o.nlink == 0 && seal_found(c->s, no, e))
		goto out;
	o.nlink++;
	if (o.type != OBJ_DIR && o.nlink == 1)
		object_digest(&o, &row.digest);
	if (rows_name_put(c->s, dir, name, &row, e) || rows_link_put(c->s, no, dir, name, e) || rows_put(c->s, &o, e))
		goto out;
	rc = seal_dirty(c->s, o.type == OBJ_DIR ? no : dir, e) || (o.nlink > 1 && seal_changed(c->s, no, e)) ? -1 : 0;
out:
	object_free(&o);
	return rc;
}

int catalog_remove_name(struct catalog *c, uint64_t dir, struct span name, struct err *e)
{
	trail_forget(&c->trail[0]);
	return seal_unname(c->s, dir, name, e) || seal_dirty(c->s, dir, e) ? -1 : 0;
}

int catalog_seal(struct catalog *c, struct digest *id, struct err *e)
{
	struct digest fresh;
	bool is_new;

	trail_forget(&c->trail[0]);
	if (seal_run(c->s, &fresh, &is_new, e) || (is_new && catalog_set_fact(c, "id", fresh.b, DIGEST_LEN, e)))
		return -1;
	return catalog_id(c, id, e);
}

uint64_t catalog_writes(const struct catalog *c) { return store_writes(c->s); }

/* ---- facts ---- */

int catalog_fact(struct catalog *c, const char *key, struct buf *out, struct err *e)
{
	struct span v;
	int got = store_get(c->s, STORE_FACTS, span_cstr(key), &v, e);

	if (got == 1)
		buf_add(out, v.p, v.len);
	return got;
}

int catalog_set_fact(struct catalog *c, const char *key, const void *p, size_t n, struct err *e)
{
	return store_put(c->s, STORE_FACTS, span_cstr(key), span_of(p, n), e);
}

int catalog_id(struct catalog *c, struct digest *id, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	int got = catalog_fact(c, "id", &b, e);

	memset(id, 0, sizeof *id);
	if (got == 1 && b.len == DIGEST_LEN)
		memcpy(id, b.p, DIGEST_LEN);
	return got < 0 ? -1 : 0;
}

int catalog_count(struct catalog *c, uint64_t *objects, struct err *e)
{
	return store_count(c->s, STORE_OBJECTS, objects, e);
}
