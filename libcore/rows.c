#include "rows.h"

#include <stdlib.h>

#define NAME_ROW (8 + 1 + DIGEST_LEN)

struct rows_key rows_key_no(uint64_t no)
{
	struct rows_key k = {.n = 8};

	put_be64(k.b, no);
	return k;
}

struct rows_key rows_key_two(uint64_t a, uint64_t b)
{
	struct rows_key k = {.n = 16};

	put_be64(k.b, a);
	put_be64(k.b + 8, b);
	return k;
}

static void add_name(struct rows_key *k, struct span name)
{
	if (name.len)
		memcpy(k->b + k->n, name.p, name.len);
	k->n += name.len;
}

struct rows_key rows_key_name(uint64_t dir, struct span name)
{
	struct rows_key k = rows_key_no(dir);

	add_name(&k, name);
	return k;
}

static struct rows_key key_link(uint64_t no, uint64_t dir, struct span name)
{
	struct rows_key k = rows_key_two(no, dir);

	add_name(&k, name);
	return k;
}

/* Birth time folded to 64 bits: a fold that collides is found out by comparing the object. */
static struct rows_key key_inode(const struct r_hint *h)
{
	struct rows_key k = rows_key_two(h->ino, (uint64_t)h->btime_s * 1000000000u + h->btime_ns);

	put_be64(k.b + 16, h->dev);
	k.n = 24;
	return k;
}

/* ---- what is needed next ---- */

static int by_number(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

size_t rows_sort(uint64_t *no, size_t n)
{
	size_t each = 0;

	qsort(no, n, sizeof *no, by_number);
	for (size_t i = 0; i < n; i++)
		if (!i || no[i] != no[each - 1])
			no[each++] = no[i];
	return each;
}

void rows_ahead(struct store *s, enum store_table t, const uint64_t *no, size_t n)
{
	uint8_t key[STORE_AHEAD_MAX][8];
	struct span keys[STORE_AHEAD_MAX];

	/* All rows of a number lie between two keys. */
	for (size_t i = 0; i < 2 * n; i++) {
		put_be64(key[i], no[i / 2] + i % 2);
		keys[i] = span_of(key[i], sizeof key[i]);
	}
	store_ahead(s, t, keys, 2 * n, false);
}

void rows_names_ahead(struct store *s, const struct rows_place *v, size_t n)
{
	struct rows_key key[ROWS_AHEAD_MAX];
	struct span keys[ROWS_AHEAD_MAX];

	for (size_t i = 0; i < n; i++) {
		key[i] = rows_key_name(v[i].dir, v[i].name);
		keys[i] = rows_span(&key[i]);
	}
	store_ahead(s, STORE_NAMES, keys, n, false);
}

void rows_inodes_ahead(struct store *s, const struct r_hint *v, size_t n)
{
	struct rows_key key[ROWS_AHEAD_MAX];
	struct span keys[ROWS_AHEAD_MAX];

	for (size_t i = 0; i < n; i++) {
		key[i] = key_inode(&v[i]);
		keys[i] = rows_span(&key[i]);
	}
	store_ahead(s, STORE_INODES, keys, n, true);
}

/* ---- objects ---- */

int rows_get(struct store *s, uint64_t no, struct object *o, struct err *e)
{
	struct rows_key k = rows_key_no(no);
	struct span v;
	int got = store_get(s, STORE_OBJECTS, rows_span(&k), &v, e);

	return got == 1 && !object_decode(o, no, v) ? store_damaged(s, NULL, e) : got;
}

int rows_put(struct store *s, const struct object *o, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct rows_key k = rows_key_no(o->no);

	object_encode(&b, o);
	return store_put(s, STORE_OBJECTS, rows_span(&k), span_of(b.p, b.len), e);
}

/* ---- names ---- */

bool rows_name_decode(struct rows_name *n, struct span value)
{
	struct rd r = rd_of(value.p, value.len);

	n->no = rd_u64(&r);
	n->type = rd_u8(&r);
	rd_copy(&r, n->digest.b, DIGEST_LEN);
	return rd_done(&r);
}

int rows_name_get(struct store *s, uint64_t dir, struct span name, struct rows_name *n, struct err *e)
{
	struct rows_key k = rows_key_name(dir, name);
	struct span v;
	int got = store_get(s, STORE_NAMES, rows_span(&k), &v, e);

	return got == 1 && !rows_name_decode(n, v) ? store_damaged(s, NULL, e) : got;
}

int rows_name_put(struct store *s, uint64_t dir, struct span name, const struct rows_name *n, struct err *e)
{
	struct rows_key k = rows_key_name(dir, name);
	uint8_t row[NAME_ROW];

	put_le64(row, n->no);
	row[8] = n->type;
	memcpy(row + 9, n->digest.b, DIGEST_LEN);
	return store_put(s, STORE_NAMES, rows_span(&k), span_of(row, sizeof row), e);
}

int rows_name_del(struct store *s, uint64_t dir, struct span name, struct err *e)
{
	struct rows_key k = rows_key_name(dir, name);

	return store_del(s, STORE_NAMES, rows_span(&k), e);
}

/* ---- links ---- */

int rows_link_put(struct store *s, uint64_t no, uint64_t dir, struct span name, struct err *e)
{
	struct rows_key k = key_link(no, dir, name);

	return store_put(s, STORE_LINKS, rows_span(&k), span_cstr(""), e);
}

int rows_link_del(struct store *s, uint64_t no, uint64_t dir, struct span name, struct err *e)
{
	struct rows_key k = key_link(no, dir, name);

	return store_del(s, STORE_LINKS, rows_span(&k), e);
}

int rows_link_first(struct store *s, uint64_t no, uint64_t *dir, struct buf *name, struct err *e)
{
	struct rows_key k = rows_key_no(no);
	struct span key;
	int got = store_seek(s, STORE_LINKS, rows_span(&k), k.n, &key, NULL, e);

	if (got != 1)
		return got;
	if (key.len <= 16)
		return store_damaged(s, NULL, e);
	*dir = get_be64(key.p + 8);
	buf_reset(name);
	buf_add(name, key.p + 16, key.len - 16);
	return 1;
}

void rows_link_start(struct store_walk *w, struct store *s, uint64_t no)
{
	struct rows_key k = rows_key_no(no);

	store_walk_start(w, s, STORE_LINKS, rows_span(&k), k.n, false);
}

int rows_link_next(struct store_walk *w, uint64_t *dir, struct span *name, struct err *e)
{
	int got = store_walk_next(w, e);

	if (got != 1)
		return got;
	if (w->key.len <= 16)
		return store_damaged(w->s, NULL, e);
	*dir = get_be64(w->key.p + 8);
	*name = span_of(w->key.p + 16, w->key.len - 16);
	return 1;
}

/* ---- inodes ---- */

int rows_inode_get(struct store *s, const struct r_hint *h, uint64_t *no, struct err *e)
{
	struct rows_key k = key_inode(h);
	struct span v;
	int got = h->ino ? store_get(s, STORE_INODES, rows_span(&k), &v, e) : 0;

	*no = got == 1 && v.len == 8 ? get_le64(v.p) : 0;
	return got;
}

int rows_inode_put(struct store *s, const struct object *o, struct err *e)
{
	struct rows_key k = key_inode(&o->hint);
	uint8_t no[8];

	put_le64(no, o->no);
	return o->hint.ino ? store_put(s, STORE_INODES, rows_span(&k), span_of(no, sizeof no), e) : 0;
}

int rows_inode_del(struct store *s, const struct r_hint *h, uint64_t no, struct err *e)
{
	struct rows_key k = key_inode(h);
	uint64_t whose;
	int got = rows_inode_get(s, h, &whose, e);

	return got != 1 || whose != no ? (got < 0 ? -1 : 0) : store_del(s, STORE_INODES, rows_span(&k), e);
}
