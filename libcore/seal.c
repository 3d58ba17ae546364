#include "seal.h"

#include "chunks.h"

#define LOST_NAME "it lacks a name that it should have"

/* Depth of every dirty directory is kept, so that sealing works from the deepest up. Ancestors become dirty too. */
int seal_dirty(struct store *s, uint64_t dir, struct err *e)
{
	AUTO_BUF struct buf chain = {0}, name = {0};
	uint64_t depth = 0;

	for (;;) {
		struct rows_key k = rows_key_no(dir);
		struct span v;
		int got = store_get(s, STORE_DIRTY, rows_span(&k), &v, e);
		if (got < 0)
			return -1;
		if (got) {
			if (v.len != 8)
				return store_damaged(s, NULL, e);
			depth = get_le64(v.p) + 1;
			break;
		}
		wr_u64(&chain, dir);
		if (dir == SEAL_ROOT)
			break;
		got = rows_link_first(s, dir, &dir, &name, e);
		if (got < 0)
			return -1;
		if (!got) /* detached: whoever names it again marks it, and an orphan needs no digest */
			return 0;
	}
	for (size_t at = chain.len; at; at -= 8, depth++) {
		uint64_t no = get_le64(chain.p + at - 8);
		struct rows_key k = rows_key_no(no), q = rows_key_two(~depth, no);
		uint8_t d[8];
		put_le64(d, depth);
		if (store_put(s, STORE_DIRTY, rows_span(&k), span_of(d, sizeof d), e) ||
				store_put(s, STORE_DIRTYQ, rows_span(&q), span_cstr(""), e))
			return -1;
	}
	return 0;
}

/* Notes an object in a table, when it is not there yet. */
static int note(struct store *s, enum store_table t, uint64_t no, struct err *e)
{
	struct rows_key k = rows_key_no(no);
	int got = store_get(s, t, rows_span(&k), NULL, e);

	return got < 0 || (!got && store_put(s, t, rows_span(&k), span_cstr(""), e)) ? -1 : 0;
}

int seal_changed(struct store *s, uint64_t no, struct err *e) { return note(s, STORE_SPREAD, no, e); }

int seal_found(struct store *s, uint64_t no, struct err *e)
{
	struct rows_key k = rows_key_no(no);

	return store_del(s, STORE_ORPHANS, rows_span(&k), e);
}

int seal_unname(struct store *s, uint64_t dir, struct span name, struct err *e)
{
	struct object o = {0};
	struct rows_name row;
	int rc = -1;

	if (rows_name_get(s, dir, name, &row, e) != 1 || rows_get(s, row.no, &o, e) != 1 || !o.nlink) {
		store_damaged(s, LOST_NAME, e);
		goto out;
	}
	o.nlink--;
	if (rows_name_del(s, dir, name, e) || rows_link_del(s, o.no, dir, name, e) || rows_put(s, &o, e))
		goto out;
	rc = o.nlink == 0 ? note(s, STORE_ORPHANS, o.no, e) : seal_changed(s, o.no, e);
out:
	object_free(&o);
	return rc;
}

/* Removes one orphan; a directory's children lose their name and may become orphans in turn. */
static int bury(struct store *s, uint64_t no, struct err *e)
{
	struct object o = {0};
	struct store_walk w = {0};
	struct rows_key k = rows_key_no(no);
	int rc = -1, got = rows_get(s, no, &o, e);

	if (got < 0)
		goto out;
	if (got && o.type == OBJ_DIR) {
		store_walk_start(&w, s, STORE_NAMES, rows_span(&k), k.n, false);
		while ((got = store_walk_next(&w, e)) == 1)
			if (seal_unname(s, no, span_of(w.key.p + 8, w.key.len - 8), e))
				goto out;
		if (got < 0)
			goto out;
	}
	if (o.type == OBJ_FILE && chunks_cut(s, no, 0, e))
		goto out;
	if (o.hint.ino && rows_inode_del(s, &o.hint, no, e))
		goto out;
	rc = store_del(s, STORE_OBJECTS, rows_span(&k), e) || seal_found(s, no, e) ? -1 : 0;
out:
	store_walk_free(&w);
	object_free(&o);
	return rc;
}

/* The digest of one object to each of its names that has another one. */
static int spread(struct store *s, uint64_t no, struct err *e)
{
	struct object o = {0};
	struct rows_name is = {.no = no}, was;
	struct store_walk w = {0};
	struct span name;
	uint64_t dir;
	int got = rows_get(s, no, &o, e);

	if (got == 1) {
		is.type = o.type;
		object_digest(&o, &is.digest);
		rows_link_start(&w, s, no);
		while ((got = rows_link_next(&w, &dir, &name, e)) == 1) {
			got = rows_name_get(s, dir, name, &was, e);
			if (got == 1 && digest_eq(&was.digest, &is.digest))
				continue;
			if (got == 0)
				got = store_damaged(s, LOST_NAME, e);
			if (got < 0 || rows_name_put(s, dir, name, &is, e) || seal_dirty(s, dir, e)) {
				got = -1;
				break;
			}
		}
	}
	store_walk_free(&w);
	object_free(&o);
	return got;
}

static int dir_digest(struct store *s, uint64_t dir, struct digest *out, struct err *e)
{
	struct rows_key k = rows_key_no(dir);
	struct store_walk w = {0};
	struct digest_run r;
	int got;

	digest_run_init(&r, "repl-dir-v1", NULL, 0);
	store_walk_start(&w, s, STORE_NAMES, rows_span(&k), k.n, false);
	while ((got = store_walk_next(&w, e)) == 1) {
		struct rows_name row;
		if (w.key.len <= 8 || !rows_name_decode(&row, w.value)) {
			got = store_damaged(s, NULL, e);
			break;
		}
		uint32_t n = (uint32_t)(w.key.len - 8);
		uint8_t len[4] = {(uint8_t)n, (uint8_t)(n >> 8), 0, 0};
		digest_run_add(&r, len, sizeof len);
		digest_run_add(&r, w.key.p + 8, n);
		digest_run_add(&r, row.digest.b, DIGEST_LEN);
	}
	store_walk_free(&w);
	digest_run_end(&r, out);
	return got;
}

/* Seals one directory that is no longer noted: its digest into its row, and that of its row into its name. */
static int seal_dir(struct store *s, struct object *o, struct digest *id, bool *is_new, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct rows_name row = {.no = o->no, .type = OBJ_DIR};
	uint64_t up;

	if (dir_digest(s, o->no, &o->content, e) || rows_put(s, o, e))
		return -1;
	object_digest(o, &row.digest);
	if (o->no == SEAL_ROOT) {
		*id = row.digest;
		*is_new = true;
		return 0;
	}
	int got = rows_link_first(s, o->no, &up, &name, e);
	if (got != 1)
		return got;
	/* A directory that moved after it was marked may come out of order: its parent is looked at again. */
	return rows_name_put(s, up, span_of(name.p, name.len), &row, e) || seal_dirty(s, up, e) ? -1 : 0;
}

/* ---- what is needed next ---- */

#define AHEAD_UP 64u /* directories above each other; who has more waits for the disk */

/* Digests spread upwards from the objects that changed. Of a large catalog that was not looked at for long each step would wait for the
 * disk, several times: so it is asked for what all of them need, directory above directory. */
static int look_ahead(struct store *s, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct store_walk w = {0};
	uint64_t no[ROWS_AHEAD_MAX];
	size_t n = 0;
	int got = 0;

	if (!store_asks(s))
		return 0;
	store_walk_start(&w, s, STORE_SPREAD, (struct span){0}, 0, false);
	while (n < ROWS_AHEAD_MAX && (got = store_walk_next(&w, e)) == 1)
		no[n++] = get_be64(w.key.p);
	store_walk_free(&w);
	for (unsigned up = 0; n && up < AHEAD_UP && got >= 0; up++) {
		size_t dirs = 0;
		rows_ahead(s, STORE_LINKS, no, n);
		if (up) {
			rows_ahead(s, STORE_OBJECTS, no, n);
			rows_ahead(s, STORE_NAMES, no, n);
		}
		for (size_t i = 0; i < n && got >= 0; i++) {
			got = rows_link_first(s, no[i], &no[dirs], &name, e);
			dirs += got == 1 && no[dirs] != SEAL_ROOT;
		}
		n = rows_sort(no, dirs);
	}
	return got < 0 ? -1 : 0;
}

int seal_run(struct store *s, struct digest *id, bool *is_new, struct err *e)
{
	struct object o = {0};
	struct span key;
	unsigned n = 0;
	int got;

	*is_new = false;
	while ((got = store_seek(s, STORE_ORPHANS, (struct span){0}, 0, &key, NULL, e)) == 1)
		if (bury(s, get_be64(key.p), e))
			return -1;
	while (got == 0 && (got = store_seek(s, STORE_SPREAD, (struct span){0}, 0, &key, NULL, e)) == 1) {
		struct rows_key k = rows_key_no(get_be64(key.p));
		if (n++ % ROWS_AHEAD_MAX == 0 && look_ahead(s, e))
			return -1;
		got = spread(s, get_be64(k.b), e) || store_del(s, STORE_SPREAD, rows_span(&k), e) ? -1 : 0;
	}
	while (got == 0 && (got = store_seek(s, STORE_DIRTYQ, (struct span){0}, 0, &key, NULL, e)) == 1) {
		struct rows_key q = rows_key_two(get_be64(key.p), get_be64(key.p + 8)), k = rows_key_no(get_be64(key.p + 8));
		if (store_del(s, STORE_DIRTYQ, rows_span(&q), e) || store_del(s, STORE_DIRTY, rows_span(&k), e))
			got = -1;
		else if ((got = rows_get(s, get_be64(k.b), &o, e)) == 1)
			got = seal_dir(s, &o, id, is_new, e);
	}
	object_free(&o);
	return got;
}
