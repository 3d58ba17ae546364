#include "store.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define BATCH_OPS 8000u         /* rows written between commits of a private store: bounds the dirty pages */
#define TRIM_OPS 256u           /* look-ups between checks of how much of the file is mapped into our memory */
#define TRIM_BYTES (12u << 20)  /* more than so much is given back */
#define AHEAD_ROWS 256u         /* most that a walk reads ahead */
#define AHEAD_BYTES (64u << 10)

static const char *const table_names[STORE_TABLES] = {
	"names", "links", "objects", "blocks", "inodes", "facts", "dirty", "dirtyq", "orphans", "spread",
};
#define FIRST_LATER STORE_SPREAD /* the tables from here on came later */
#define NO_TABLE ((MDB_dbi)-1)

struct store {
	MDB_env *env;
	MDB_txn *read, *write;
	MDB_dbi t[STORE_TABLES], main; /* main: LMDB's list of tables */
	enum store_mode mode;
	bool see_base;
	unsigned ops, looks;
	uint64_t writes;
	int statm; /* -1: not open */
	void *map; /* LMDB's mapping, for madvise */
	size_t map_len;
	struct buf got; /* what was handed out last */
	char *path;
};

static int fail(const struct store *s, int rc, const char *what, struct err *e)
{
	if (rc > 0) {
		errno = rc;
		return err_sys(e, "cannot %s the catalog '%s'", what, s->path);
	}
	return err_set(e, ERR_SYSTEM, "cannot %s the catalog '%s': %s", what, s->path, mdb_strerror(rc));
}

int store_damaged(const struct store *s, const char *what, struct err *e)
{
	return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged%s%s", s->path, what ? ": " : "", what ? what : "");
}

/* LMDB does not write to what it is handed; its struct has no const. */
static MDB_val val(struct span s)
{
	union {
		const void *c;
		void *p;
	} cast = {.c = s.p};

	return (MDB_val){s.len, cast.p};
}
static struct span span_val(MDB_val v) { return span_of(v.mv_data, v.mv_size); }

/* ---- memory ---- */

static MDB_txn *seen(struct store *s)
{
	return s->write && !s->see_base ? s->write : s->read;
}

/* Finds the mapping that holds p, once: LMDB tells its address only for fixed maps. */
static void find_map(struct store *s, const void *p)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	while (f && fgets(line, sizeof line, f)) {
		unsigned long lo, hi;
		char perm[8];
		/* Only the shared mapping of the file: a page that a transaction has changed lies in our own memory. */
		if (sscanf(line, "%lx-%lx %7s", &lo, &hi, perm) == 3 && (uintptr_t)p >= lo && (uintptr_t)p < hi &&
				perm[3] == 's' && perm[1] == '-') {
			s->map = (void *)(uintptr_t)lo;
			s->map_len = hi - lo;
			break;
		}
	}
	if (f)
		fclose(f);
}

/* A read-only shared mapping loses nothing by MADV_DONTNEED: the pages stay in the page cache (madvise(2)). */
static void trim(struct store *s)
{
	MDB_val k = val(span_cstr(table_names[0])), v;

	if (++s->looks < TRIM_OPS)
		return;
	s->looks = 0;
	if (s->statm < 0)
		s->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	/* size, resident, and of that: pages of files. One fault may map two megabytes (large folios, since Linux 6.18), so that
	 * counting look-ups would say little. */
	char text[128] = "";
	unsigned long long pages = 0;
	if (s->statm < 0 || pread(s->statm, text, sizeof text - 1, 0) <= 0 || sscanf(text, "%*u %*u %llu", &pages) != 1 ||
			pages * (unsigned long long)sysconf(_SC_PAGESIZE) < TRIM_BYTES)
		return;
	/* A value that the read transaction sees lies in the mapping for certain. */
	if (!s->map && mdb_get(s->read, s->main, &k, &v) == 0)
		find_map(s, v.mv_data);
	if (s->map)
		madvise(s->map, s->map_len, MADV_DONTNEED);
}

/* ---- transactions ---- */

static int begin_read(struct store *s, struct err *e)
{
	int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read);

	return rc ? fail(s, rc, "read", e) : 0;
}

static int open_env(struct store *s, struct err *e)
{
	unsigned flags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
	size_t map = (size_t)1 << 40;
	int rc;

	if (s->mode == STORE_READ)
		flags |= MDB_RDONLY;
	if (s->mode == STORE_PRIVATE)
		flags |= MDB_NOSYNC;
	for (;; map /= 4) { /* address space may be limited: take what there is */
		if ((rc = mdb_env_create(&s->env)))
			break;
		mdb_env_set_maxdbs(s->env, STORE_TABLES);
		mdb_env_set_mapsize(s->env, map);
		rc = mdb_env_open(s->env, s->path, flags, 0600);
		if (rc != ENOMEM || map < ((size_t)1 << 28))
			break;
		mdb_env_close(s->env);
		s->env = NULL;
	}
	return rc ? fail(s, rc, "open", e) : 0;
}

static int open_tables(struct store *s, struct err *e)
{
	MDB_txn *txn = NULL;
	int rc = mdb_txn_begin(s->env, NULL, s->mode == STORE_READ ? MDB_RDONLY : 0, &txn);

	for (unsigned i = 0; !rc && i < STORE_TABLES; i++) {
		rc = mdb_dbi_open(txn, table_names[i], s->mode == STORE_READ ? 0 : MDB_CREATE, &s->t[i]);
		if (rc == MDB_NOTFOUND && i >= FIRST_LATER) {
			s->t[i] = NO_TABLE;
			rc = 0;
		}
	}
	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &s->main);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else if (txn)
		mdb_txn_abort(txn);
	return rc ? fail(s, rc, "open", e) : 0;
}

int store_open(struct store **out, const char *path, enum store_mode mode, struct err *e)
{
	struct store *s = xalloc(sizeof *s);

	s->mode = mode;
	s->statm = -1;
	s->path = xstrdup(path);
	if (open_env(s, e) || open_tables(s, e) || begin_read(s, e) || (mode == STORE_PRIVATE && store_begin(s, e))) {
		store_close(&s);
		return -1;
	}
	*out = s;
	return 0;
}

void store_close(struct store **sp)
{
	struct store *s = *sp;

	if (!s)
		return;
	if (s->write)
		mdb_txn_abort(s->write);
	if (s->read)
		mdb_txn_abort(s->read);
	if (s->env)
		mdb_env_close(s->env);
	close_fd(&s->statm);
	buf_free(&s->got);
	free(s->path);
	free(s);
	*sp = NULL;
}

int store_begin(struct store *s, struct err *e)
{
	assert(!s->write && s->mode != STORE_READ);
	int rc = mdb_txn_begin(s->env, NULL, 0, &s->write);
	if (rc)
		return fail(s, rc, "change", e);
	s->ops = 0;
	return 0;
}

static int end_write(struct store *s, struct err *e)
{
	int rc = mdb_txn_commit(s->write);

	s->write = NULL;
	s->see_base = false;
	if (rc)
		return fail(s, rc, "write", e);
	/* The read transaction follows. */
	mdb_txn_abort(s->read);
	s->read = NULL;
	return begin_read(s, e);
}

int store_commit(struct store *s, struct err *e)
{
	assert(s->write);
	if (end_write(s, e))
		return -1;
	return s->mode == STORE_PRIVATE ? store_begin(s, e) : 0;
}

void store_abort(struct store *s)
{
	if (s->write)
		mdb_txn_abort(s->write);
	s->write = NULL;
	s->see_base = false;
}

int store_sync(struct store *s, struct err *e)
{
	if (s->write && end_write(s, e))
		return -1;
	int rc = mdb_env_sync(s->env, 1);
	return rc ? fail(s, rc, "sync", e) : 0;
}

int store_copy(struct store *s, const char *path, struct err *e)
{
	int rc = mdb_env_copy2(s->env, path, 0);

	return rc ? fail(s, rc, "copy", e) : 0;
}

void store_see_base(struct store *s, bool base) { s->see_base = base; }
bool store_is_changing(const struct store *s) { return s->write; }

/* ---- rows ---- */

static void hand_out(struct store *s, MDB_val k, MDB_val v, struct span *key, struct span *value)
{
	buf_reset(&s->got);
	buf_add(&s->got, k.mv_data, k.mv_size);
	buf_add(&s->got, v.mv_data, v.mv_size);
	if (key)
		*key = span_of(s->got.p, k.mv_size);
	if (value)
		*value = span_of(s->got.p + k.mv_size, v.mv_size);
	trim(s);
}

int store_get(struct store *s, enum store_table t, struct span key, struct span *value, struct err *e)
{
	MDB_val k = val(key), v;
	int rc = s->t[t] == NO_TABLE ? MDB_NOTFOUND : mdb_get(seen(s), s->t[t], &k, &v);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return fail(s, rc, "read", e);
	hand_out(s, (MDB_val){0}, v, NULL, value);
	return 1;
}

static bool is_of(MDB_val k, struct span from, size_t n_same)
{
	return !n_same || (k.mv_size >= n_same && !memcmp(k.mv_data, from.p, n_same));
}

int store_seek(struct store *s, enum store_table t, struct span from, size_t n_same, struct span *key, struct span *value,
	struct err *e)
{
	MDB_val k = val(from), v;
	MDB_cursor *cur;
	int got = 0;

	if (s->t[t] == NO_TABLE)
		return 0;
	int rc = mdb_cursor_open(seen(s), s->t[t], &cur);
	if (rc)
		return fail(s, rc, "read", e);
	rc = mdb_cursor_get(cur, &k, &v, from.len ? MDB_SET_RANGE : MDB_FIRST);
	if (!rc && is_of(k, from, n_same)) {
		hand_out(s, k, v, key, value);
		got = 1;
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? fail(s, rc, "read", e) : got;
}

int store_count(struct store *s, enum store_table t, uint64_t *rows, struct err *e)
{
	MDB_stat st = {0};
	int rc = s->t[t] == NO_TABLE ? 0 : mdb_stat(seen(s), s->t[t], &st);

	if (rc)
		return fail(s, rc, "read", e);
	*rows = st.ms_entries;
	return 0;
}

uint64_t store_writes(const struct store *s) { return s->writes; }

/* Rows were written: let a private store breathe. */
static int changed(struct store *s, unsigned n, struct err *e)
{
	s->writes += n;
	s->ops += n;
	return s->mode == STORE_PRIVATE && s->ops >= BATCH_OPS ? store_commit(s, e) : 0;
}

int store_put(struct store *s, enum store_table t, struct span key, struct span value, struct err *e)
{
	MDB_val k = val(key), v = val(value);

	assert(s->write);
	int rc = mdb_put(s->write, s->t[t], &k, &v, 0);
	return rc ? fail(s, rc, "write", e) : changed(s, 1, e);
}

int store_del(struct store *s, enum store_table t, struct span key, struct err *e)
{
	MDB_val k = val(key);

	assert(s->write);
	int rc = mdb_del(s->write, s->t[t], &k, NULL);
	if (rc == MDB_NOTFOUND)
		return 0;
	return rc ? fail(s, rc, "write", e) : changed(s, 1, e);
}

int store_del_from(struct store *s, enum store_table t, struct span from, size_t n_same, struct err *e)
{
	bool more = true;

	assert(s->write);
	while (more) {
		MDB_val k = val(from), v;
		MDB_cursor *cur;
		int rc = mdb_cursor_open(s->write, s->t[t], &cur);
		if (rc)
			return fail(s, rc, "write", e);
		rc = mdb_cursor_get(cur, &k, &v, from.len ? MDB_SET_RANGE : MDB_FIRST);
		unsigned n = 0;
		more = false;
		while (!rc && is_of(k, from, n_same)) {
			if (n++ == 512) {
				more = true;
				break;
			}
			rc = mdb_cursor_del(cur, 0);
			if (!rc)
				rc = mdb_cursor_get(cur, &k, &v, MDB_GET_CURRENT);
			if (rc == EINVAL) /* the cursor stands behind the last row */
				rc = MDB_NOTFOUND;
		}
		mdb_cursor_close(cur);
		if (rc && rc != MDB_NOTFOUND)
			return fail(s, rc, "write", e);
		if (changed(s, n, e))
			return -1;
	}
	return 0;
}

/* ---- walks ---- */

void store_walk_start(struct store_walk *w, struct store *s, enum store_table t, struct span from, size_t n_same, bool behind)
{
	struct buf batch = w->batch, key = w->from;

	*w = (struct store_walk){.s = s, .t = t, .n_same = n_same, .batch = batch, .from = key, .is_behind = behind};
	buf_reset(&w->batch);
	buf_reset(&w->from);
	buf_add(&w->from, from.p, from.len);
}

void store_walk_free(struct store_walk *w)
{
	buf_free(&w->batch);
	buf_free(&w->from);
}

/* Copies the next rows out, so that no cursor outlives a call (a private store may commit in between). */
static int read_ahead(struct store_walk *w, struct err *e)
{
	struct store *s = w->s;
	struct span from = span_of(w->from.p, w->from.len);
	MDB_val k = val(from), v;
	MDB_cursor *cur;

	buf_reset(&w->batch);
	w->at = 0;
	w->is_over = true;
	if (s->t[w->t] == NO_TABLE)
		return 0;
	int rc = mdb_cursor_open(seen(s), s->t[w->t], &cur);
	if (rc)
		return fail(s, rc, "read", e);
	w->want = w->want ? w->want * 4 : 16;
	if (w->want > AHEAD_ROWS)
		w->want = AHEAD_ROWS;
	rc = mdb_cursor_get(cur, &k, &v, from.len ? MDB_SET_RANGE : MDB_FIRST);
	if (!rc && w->is_behind && span_eq(span_val(k), from))
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	size_t last = 0;
	for (unsigned i = 0; !rc && is_of(k, from, w->n_same); i++) {
		if (i == w->want || w->batch.len > AHEAD_BYTES) {
			w->is_over = false;
			break;
		}
		last = w->batch.len;
		wr_str(&w->batch, k.mv_data, k.mv_size);
		wr_str(&w->batch, v.mv_data, v.mv_size);
		trim(s);
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	if (!w->is_over) {
		struct rd r = rd_of(w->batch.p + last, w->batch.len - last);
		struct span key = rd_str(&r, STORE_KEY_MAX);
		buf_reset(&w->from);
		buf_add(&w->from, key.p, key.len);
		w->is_behind = true;
	}
	return rc && rc != MDB_NOTFOUND ? fail(s, rc, "read", e) : 0;
}

int store_walk_next(struct store_walk *w, struct err *e)
{
	if (w->at == w->batch.len) {
		if (w->is_over)
			return 0;
		if (read_ahead(w, e))
			return -1;
		if (!w->batch.len)
			return 0;
	}
	struct rd r = rd_of(w->batch.p + w->at, w->batch.len - w->at);
	w->key = rd_str(&r, STORE_KEY_MAX);
	w->value = rd_str(&r, UINT32_MAX);
	w->at = w->batch.len - r.len;
	return 1;
}
