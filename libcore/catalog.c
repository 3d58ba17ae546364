#include "catalog.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define CHUNK_ROWS 48u          /* 48 * 40 bytes + key: two chunks fill an LMDB leaf of 4 KiB */
#define BATCH_OPS 2000u         /* changes between commits of a private catalog: bounds the dirty pages */
#define TRIM_OPS 256u           /* look-ups between checks of how much of the file is mapped into our memory */
#define TRIM_BYTES (12u << 20)  /* more than so much is given back */
#define KEY_MAX (16 + REC_NAME_MAX)
#define VERSION 1u

enum { T_NAMES, T_LINKS, T_OBJECTS, T_BLOCKS, T_INODES, T_FACTS, T_DIRTY, T_DIRTYQ, T_ORPHANS, N_TABLES };
static const char *const table_names[N_TABLES] = {
	"names", "links", "objects", "blocks", "inodes", "facts", "dirty", "dirtyq", "orphans",
};

struct catalog {
	MDB_env *env;
	MDB_txn *read, *write;
	MDB_dbi t[N_TABLES];
	enum catalog_mode mode;
	bool see_base;
	unsigned ops, looks;
	uint64_t next_no;
	int statm; /* -1: not open */
	void *map; /* LMDB's mapping, for madvise */
	size_t map_len;
	char *path;
};

static int fail(struct catalog *c, int rc, const char *what, struct err *e)
{
	if (rc > 0) {
		errno = rc;
		return err_sys(e, "cannot %s the catalog '%s'", what, c->path);
	}
	return err_set(e, ERR_SYSTEM, "cannot %s the catalog '%s': %s", what, c->path, mdb_strerror(rc));
}

/* ---- objects ---- */

void object_free(struct object *o)
{
	buf_free(&o->store);
	*o = (struct object){0};
}

static void encode_meta(struct buf *b, const struct r_meta *m)
{
	struct record r = {.type = REC_META, .u.meta = *m};
	struct buf t = {0};

	rec_encode(&t, &r);
	buf_add(b, t.p + 8, t.len - 8);
	buf_free(&t);
}

static bool decode_meta(struct object *o)
{
	struct record r;
	struct err e = {0};

	if (rec_decode(&r, REC_META, 0, o->store.p, o->store.len, &e))
		return false;
	o->meta = r.u.meta;
	return true;
}

void object_set_meta(struct object *o, const struct r_meta *m)
{
	struct buf fresh = {0};

	encode_meta(&fresh, m);
	buf_free(&o->store);
	o->store = fresh;
	bool ok = decode_meta(o);
	assert(ok);
	(void)ok;
}

uint64_t object_blocks(uint64_t size, uint32_t grain)
{
	return grain ? size / grain + (size % grain != 0) : 0;
}

static void put_row(struct buf *b, const struct object *o)
{
	wr_u8(b, o->type);
	wr_u32(b, o->nlink);
	wr_u64(b, o->size);
	wr_raw(b, o->content.b, DIGEST_LEN);
	wr_u32(b, o->grain);
	wr_u8(b, o->flags);
	wr_u64(b, o->hint.dev);
	wr_u64(b, o->hint.ino);
	wr_i64(b, o->hint.ctime_s);
	wr_u32(b, o->hint.ctime_ns);
	wr_i64(b, o->hint.btime_s);
	wr_u32(b, o->hint.btime_ns);
	wr_u32(b, o->hint.nlink);
	wr_u8(b, o->hint.flags);
	wr_raw(b, o->store.p, o->store.len);
}

static bool get_row(struct object *o, uint64_t no, const MDB_val *v)
{
	struct rd r = rd_of(v->mv_data, v->mv_size);
	struct buf store = o->store;

	*o = (struct object){.no = no, .store = store};
	o->type = rd_u8(&r);
	o->nlink = rd_u32(&r);
	o->size = rd_u64(&r);
	rd_copy(&r, o->content.b, DIGEST_LEN);
	o->grain = rd_u32(&r);
	o->flags = rd_u8(&r);
	o->hint.dev = rd_u64(&r);
	o->hint.ino = rd_u64(&r);
	o->hint.ctime_s = rd_i64(&r);
	o->hint.ctime_ns = rd_u32(&r);
	o->hint.btime_s = rd_i64(&r);
	o->hint.btime_ns = rd_u32(&r);
	o->hint.nlink = rd_u32(&r);
	o->hint.flags = rd_u8(&r);
	struct span meta = rd_raw(&r, r.len);
	buf_reset(&o->store);
	buf_add(&o->store, meta.p, meta.len);
	return rd_done(&r) && decode_meta(o);
}

/* O of repl-stream(5), "DIGESTS". */
static void object_digest(const struct object *o, struct digest *d)
{
	struct digest_run r;
	AUTO_BUF struct buf b = {0};

	digest_run_init(&r, "repl-object-v1", NULL, 0);
	wr_u8(&b, o->type);
	wr_u32(&b, o->nlink);
	digest_run_add(&r, b.p, b.len);
	digest_run_add(&r, o->store.p, o->store.len);
	buf_reset(&b);
	wr_u64(&b, o->size);
	wr_raw(&b, o->content.b, DIGEST_LEN);
	digest_run_add(&r, b.p, b.len);
	digest_run_end(&r, d);
}

/* ---- transactions ---- */

static MDB_txn *seen(struct catalog *c)
{
	return c->write && !c->see_base ? c->write : c->read;
}

/* Finds the mapping that holds p, once: LMDB tells its address only for fixed maps. */
static void find_map(struct catalog *c, const void *p)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];

	while (f && fgets(line, sizeof line, f)) {
		unsigned long lo, hi;
		char perm[8];
		/* Only the shared mapping of the file: a page that a transaction has changed lies in our own memory. */
		if (sscanf(line, "%lx-%lx %7s", &lo, &hi, perm) == 3 && (uintptr_t)p >= lo && (uintptr_t)p < hi &&
				perm[3] == 's' && perm[1] == '-') {
			c->map = (void *)(uintptr_t)lo;
			c->map_len = hi - lo;
			break;
		}
	}
	if (f)
		fclose(f);
}

/* A read-only shared mapping loses nothing by MADV_DONTNEED: the pages stay in the page cache (madvise(2)). */
static void trim(struct catalog *c)
{
	char key[] = "version";
	MDB_val k = {sizeof key - 1, key}, v;

	if (++c->looks < TRIM_OPS)
		return;
	c->looks = 0;
	if (c->statm < 0)
		c->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	/* size, resident, and of that: pages of files. One fault may map two megabytes (large folios, since Linux 6.18), so that
	 * counting look-ups would say little. */
	char text[128] = "";
	unsigned long long pages = 0;
	if (c->statm < 0 || pread(c->statm, text, sizeof text - 1, 0) <= 0 || sscanf(text, "%*u %*u %llu", &pages) != 1 ||
			pages * (unsigned long long)sysconf(_SC_PAGESIZE) < TRIM_BYTES)
		return;
	/* A value that the read transaction sees lies in the mapping for certain. */
	if (!c->map && mdb_get(c->read, c->t[T_FACTS], &k, &v) == 0)
		find_map(c, v.mv_data);
	if (c->map)
		madvise(c->map, c->map_len, MADV_DONTNEED);
}

static int begin_read(struct catalog *c, struct err *e)
{
	int rc = mdb_txn_begin(c->env, NULL, MDB_RDONLY, &c->read);

	return rc ? fail(c, rc, "read", e) : 0;
}

static int load_next(struct catalog *c, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	int got = catalog_fact(c, "next", &b, e);
	if (got < 0)
		return -1;
	c->next_no = got && b.len == 8 ? get_le64(b.p) : CATALOG_ROOT + 1;
	return 0;
}

int catalog_open(struct catalog **out, const char *path, enum catalog_mode mode, struct err *e)
{
	struct catalog *c = xalloc(sizeof *c);
	unsigned flags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
	size_t map = (size_t)1 << 40;
	int rc;

	c->mode = mode;
	c->statm = -1;
	c->path = xstrdup(path);
	if (mode == CATALOG_READ)
		flags |= MDB_RDONLY;
	if (mode == CATALOG_PRIVATE)
		flags |= MDB_NOSYNC;
	for (;; map /= 4) { /* address space may be limited: take what there is */
		if ((rc = mdb_env_create(&c->env)))
			break;
		mdb_env_set_maxdbs(c->env, N_TABLES);
		mdb_env_set_mapsize(c->env, map);
		rc = mdb_env_open(c->env, path, flags, 0600);
		if (rc != ENOMEM || map < ((size_t)1 << 28))
			break;
		mdb_env_close(c->env);
		c->env = NULL;
	}
	if (rc) {
		fail(c, rc, "open", e);
		catalog_close(&c);
		return -1;
	}
	MDB_txn *txn;
	rc = mdb_txn_begin(c->env, NULL, mode == CATALOG_READ ? MDB_RDONLY : 0, &txn);
	for (unsigned i = 0; !rc && i < N_TABLES; i++)
		rc = mdb_dbi_open(txn, table_names[i], mode == CATALOG_READ ? 0 : MDB_CREATE, &c->t[i]);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else if (txn)
		mdb_txn_abort(txn);
	if (rc) {
		fail(c, rc, "open", e);
		catalog_close(&c);
		return -1;
	}
	AUTO_BUF struct buf b = {0};
	if (begin_read(c, e) || catalog_fact(c, "version", &b, e) < 0 || load_next(c, e)) {
		catalog_close(&c);
		return -1;
	}
	if (b.len && (b.len != 4 || b.p[0] != VERSION)) {
		err_set(e, ERR_SYSTEM, "the catalog '%s' was written by a newer program", path);
		catalog_close(&c);
		return -1;
	}
	if (mode == CATALOG_PRIVATE && catalog_begin(c, e)) {
		catalog_close(&c);
		return -1;
	}
	*out = c;
	return 0;
}

void catalog_close(struct catalog **cp)
{
	struct catalog *c = *cp;

	if (!c)
		return;
	if (c->write)
		mdb_txn_abort(c->write);
	if (c->read)
		mdb_txn_abort(c->read);
	if (c->env)
		mdb_env_close(c->env);
	close_fd(&c->statm);
	free(c->path);
	free(c);
	*cp = NULL;
}

int catalog_begin(struct catalog *c, struct err *e)
{
	assert(!c->write && c->mode != CATALOG_READ);
	int rc = mdb_txn_begin(c->env, NULL, 0, &c->write);
	if (rc)
		return fail(c, rc, "change", e);
	c->ops = 0;
	return 0;
}

static int end_write(struct catalog *c, struct err *e)
{
	uint8_t next[8], version[4] = {VERSION, 0, 0, 0};

	put_le64(next, c->next_no);
	if (catalog_set_fact(c, "next", next, sizeof next, e) ||
			catalog_set_fact(c, "version", version, sizeof version, e))
		return -1;
	int rc = mdb_txn_commit(c->write);
	c->write = NULL;
	if (rc)
		return fail(c, rc, "write", e);
	/* The read transaction follows. */
	mdb_txn_abort(c->read);
	c->read = NULL;
	return begin_read(c, e);
}

int catalog_commit(struct catalog *c, struct err *e)
{
	assert(c->write);
	c->see_base = false;
	if (end_write(c, e))
		return -1;
	return c->mode == CATALOG_PRIVATE ? catalog_begin(c, e) : 0;
}

void catalog_abort(struct catalog *c)
{
	if (c->write)
		mdb_txn_abort(c->write);
	c->write = NULL;
	c->see_base = false;
	struct err ignored = {0};
	load_next(c, &ignored);
}

int catalog_settle(struct catalog *c, struct err *e)
{
	if (c->write && end_write(c, e))
		return -1;
	int rc = mdb_env_sync(c->env, 1);
	return rc ? fail(c, rc, "sync", e) : 0;
}

int catalog_copy(struct catalog *c, const char *path, struct err *e)
{
	if (c->mode == CATALOG_PRIVATE && c->write && catalog_commit(c, e))
		return -1;
	int rc = mdb_env_copy2(c->env, path, 0);
	return rc ? fail(c, rc, "copy", e) : 0;
}

void catalog_see_base(struct catalog *c, bool base) { c->see_base = base; }

/* A change was made: let a private catalog breathe. */
static int changed(struct catalog *c, struct err *e)
{
	if (c->mode != CATALOG_PRIVATE || ++c->ops < BATCH_OPS)
		return 0;
	return catalog_commit(c, e);
}

/* ---- rows ---- */

static int db_get(struct catalog *c, int table, MDB_val k, MDB_val *v, struct err *e)
{
	int rc = mdb_get(seen(c), c->t[table], &k, v);

	if (rc == MDB_NOTFOUND)
		return 0;
	if (rc)
		return fail(c, rc, "read", e);
	trim(c);
	return 1;
}

static int db_put(struct catalog *c, int table, MDB_val k, const void *p, size_t n, struct err *e)
{
	union {
		const void *c;
		void *p;
	} cast = {.c = p};
	MDB_val v = {n, cast.p};

	assert(c->write);
	int rc = mdb_put(c->write, c->t[table], &k, &v, 0);
	return rc ? fail(c, rc, "write", e) : 0;
}

static int db_del(struct catalog *c, int table, MDB_val k, struct err *e)
{
	assert(c->write);
	int rc = mdb_del(c->write, c->t[table], &k, NULL);
	return rc && rc != MDB_NOTFOUND ? fail(c, rc, "write", e) : 0;
}

struct key {
	uint8_t b[KEY_MAX];
	size_t n;
};
static MDB_val key_val(struct key *k) { return (MDB_val){k->n, k->b}; }

static struct key key_no(uint64_t no)
{
	struct key k = {.n = 8};

	put_be64(k.b, no);
	return k;
}

static struct key key_two(uint64_t a, uint64_t b)
{
	struct key k = {.n = 16};

	put_be64(k.b, a);
	put_be64(k.b + 8, b);
	return k;
}

static struct key key_name(uint64_t dir, struct span name)
{
	struct key k = {.n = 8 + name.len};

	put_be64(k.b, dir);
	if (name.len) /* an iterator starts before the first name */
		memcpy(k.b + 8, name.p, name.len);
	return k;
}

static struct key key_link(uint64_t no, uint64_t dir, struct span name)
{
	struct key k = key_two(no, dir);

	if (name.len)
		memcpy(k.b + 16, name.p, name.len);
	k.n += name.len;
	return k;
}

/* inode, birth time folded to 64 bits, device: a fold that collides is found out by comparing the object. */
static struct key key_inode(const struct r_hint *h)
{
	struct key k = key_two(h->ino, (uint64_t)h->btime_s * 1000000000u + h->btime_ns);

	put_be64(k.b + 16, h->dev);
	k.n = 24;
	return k;
}

#define NAME_ROW (8 + 1 + DIGEST_LEN)

int catalog_lookup(struct catalog *c, uint64_t dir, struct span name, uint64_t *no, uint8_t *type, struct err *e)
{
	struct key k = key_name(dir, name);
	MDB_val v;
	int got = db_get(c, T_NAMES, key_val(&k), &v, e);

	if (got != 1)
		return got;
	if (v.mv_size != NAME_ROW)
		return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged", c->path);
	*no = get_le64(v.mv_data);
	if (type)
		*type = ((const uint8_t *)v.mv_data)[8];
	return 1;
}

int catalog_get(struct catalog *c, uint64_t no, struct object *o, struct err *e)
{
	struct key k = key_no(no);
	MDB_val v;
	int got = db_get(c, T_OBJECTS, key_val(&k), &v, e);

	if (got == 1 && !get_row(o, no, &v))
		return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged", c->path);
	return got;
}

bool catalog_is_empty(struct catalog *c)
{
	struct key k = key_no(CATALOG_ROOT);
	MDB_val v;
	struct err e = {0};

	return db_get(c, T_OBJECTS, key_val(&k), &v, &e) != 1;
}

int catalog_by_inode(struct catalog *c, const struct r_hint *h, uint64_t *no, struct err *e)
{
	struct key k = key_inode(h);
	MDB_val v;
	int got = h->ino ? db_get(c, T_INODES, key_val(&k), &v, e) : 0;

	*no = got == 1 && v.mv_size == 8 ? get_le64(v.mv_data) : 0;
	return got;
}

int catalog_nth_name(struct catalog *c, uint64_t no, unsigned nth, uint64_t *dir, struct buf *name, struct err *e)
{
	struct key k = key_no(no);
	MDB_val kv = key_val(&k), v;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(seen(c), c->t[T_LINKS], &cur);

	if (rc)
		return fail(c, rc, "read", e);
	rc = mdb_cursor_get(cur, &kv, &v, MDB_SET_RANGE);
	while (!rc && nth--)
		rc = mdb_cursor_get(cur, &kv, &v, MDB_NEXT);
	int got = 0;
	if (!rc && kv.mv_size > 16 && get_be64(kv.mv_data) == no) {
		const uint8_t *p = kv.mv_data;
		*dir = get_be64(p + 8);
		buf_reset(name);
		buf_add(name, p + 16, kv.mv_size - 16);
		got = 1;
	} else if (rc && rc != MDB_NOTFOUND) {
		got = fail(c, rc, "read", e);
	}
	mdb_cursor_close(cur);
	return got;
}

int catalog_name(struct catalog *c, uint64_t no, uint64_t *dir, struct buf *name, struct err *e)
{
	return catalog_nth_name(c, no, 0, dir, name, e);
}

int catalog_path(struct catalog *c, uint64_t dir, struct span name, struct buf *path, struct err *e)
{
	AUTO_BUF struct buf rev = {0}, part = {0};

	/* Components from the leaf up, each with its length behind it; then the other way round. */
	wr_raw(&rev, name.p, name.len);
	wr_u32(&rev, (uint32_t)name.len);
	while (dir != CATALOG_ROOT) {
		uint64_t up;
		int got = catalog_name(c, dir, &up, &part, e);
		if (got < 0)
			return -1;
		if (!got || rev.len > 256u * 1024 * 1024)
			return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged: a directory without a name", c->path);
		wr_raw(&rev, part.p, part.len);
		wr_u32(&rev, (uint32_t)part.len);
		dir = up;
	}
	for (size_t at = rev.len; at;) {
		struct rd r = rd_of(rev.p + at - 4, 4);
		size_t n = rd_u32(&r);
		at -= 4 + n;
		if (!n)
			continue;
		if (path->len)
			wr_u8(path, '/');
		wr_raw(path, rev.p + at, n);
	}
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
		return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged: an object without a name", c->path);
	return got < 0 ? -1 : catalog_path(c, dir, span_of(name.p, name.len), path, e);
}

/* ---- children ---- */

void catalog_iter_start(struct catalog_iter *it, struct catalog *c, uint64_t dir)
{
	struct buf batch = it->batch, last = it->last;

	*it = (struct catalog_iter){.c = c, .dir = dir, .batch = batch, .last = last, .more = true};
	buf_reset(&it->batch);
	buf_reset(&it->last);
}

void catalog_iter_after(struct catalog_iter *it, struct catalog *c, uint64_t dir, struct span name)
{
	catalog_iter_start(it, c, dir);
	buf_add(&it->last, name.p, name.len);
}

void catalog_iter_free(struct catalog_iter *it)
{
	buf_free(&it->batch);
	buf_free(&it->last);
}

/* Copies the next rows out, so that no cursor outlives a call (a private catalog may commit in between). */
static int iter_fill(struct catalog_iter *it, struct err *e)
{
	struct catalog *c = it->c;
	struct key k = key_name(it->dir, span_of(it->last.p, it->last.len));
	MDB_val kv = key_val(&k), v;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(seen(c), c->t[T_NAMES], &cur);

	if (rc)
		return fail(c, rc, "read", e);
	buf_reset(&it->batch);
	it->at = 0;
	it->want = it->want ? it->want * 4 : 16;
	if (it->want > 256)
		it->want = 256;
	rc = mdb_cursor_get(cur, &kv, &v, MDB_SET_RANGE);
	if (!rc && it->last.len && kv.mv_size == k.n && !memcmp(kv.mv_data, k.b, k.n))
		rc = mdb_cursor_get(cur, &kv, &v, MDB_NEXT);
	it->more = false;
	for (unsigned i = 0; !rc && kv.mv_size > 8 && get_be64(kv.mv_data) == it->dir && v.mv_size == NAME_ROW; i++) {
		if (i == it->want) {
			it->more = true;
			break;
		}
		const uint8_t *p = kv.mv_data;
		wr_raw(&it->batch, v.mv_data, 9);
		wr_str(&it->batch, p + 8, kv.mv_size - 8);
		buf_reset(&it->last);
		wr_raw(&it->last, p + 8, kv.mv_size - 8);
		trim(c);
		rc = mdb_cursor_get(cur, &kv, &v, MDB_NEXT);
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? fail(c, rc, "read", e) : 0;
}

int catalog_iter_next(struct catalog_iter *it, struct err *e)
{
	if (it->at == it->batch.len) {
		if (!it->more)
			return 0;
		if (iter_fill(it, e))
			return -1;
		if (!it->batch.len)
			return 0;
	}
	struct rd r = rd_of(it->batch.p + it->at, it->batch.len - it->at);
	it->no = rd_u64(&r);
	it->type = rd_u8(&r);
	it->name = rd_str(&r, REC_NAME_MAX);
	it->at = it->batch.len - r.len;
	return 1;
}

/* ---- blocks ---- */

int catalog_blocks(struct catalog *c, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e)
{
	memset(rows, 0, n * DIGESTS_ROW);
	while (n) {
		struct key k = key_two(no, first / CHUNK_ROWS);
		size_t at = first % CHUNK_ROWS, take = CHUNK_ROWS - at < n ? CHUNK_ROWS - at : n;
		MDB_val v;
		int got = db_get(c, T_BLOCKS, key_val(&k), &v, e);
		if (got < 0)
			return -1;
		if (got && v.mv_size > at * DIGESTS_ROW) {
			size_t have = v.mv_size / DIGESTS_ROW - at;
			memcpy(rows, (const uint8_t *)v.mv_data + at * DIGESTS_ROW,
				(have < take ? have : take) * DIGESTS_ROW);
		}
		rows += take * DIGESTS_ROW;
		first += take;
		n -= take;
	}
	return 0;
}

int catalog_blocks_put(struct catalog *c, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	while (n) {
		struct key k = key_two(no, first / CHUNK_ROWS);
		size_t at = first % CHUNK_ROWS, take = CHUNK_ROWS - at < n ? CHUNK_ROWS - at : n;
		uint8_t chunk[CHUNK_ROWS * DIGESTS_ROW] = {0};
		size_t len = (at + take) * DIGESTS_ROW;
		MDB_val v;
		int got = at || take < CHUNK_ROWS ? db_get(c, T_BLOCKS, key_val(&k), &v, e) : 0;
		if (got < 0)
			return -1;
		if (got) {
			size_t have = v.mv_size < sizeof chunk ? v.mv_size : sizeof chunk;
			memcpy(chunk, v.mv_data, have);
			len = have > len ? have : len;
		}
		memcpy(chunk + at * DIGESTS_ROW, rows, take * DIGESTS_ROW);
		if (db_put(c, T_BLOCKS, key_val(&k), chunk, len, e) || changed(c, e))
			return -1;
		rows += take * DIGESTS_ROW;
		first += take;
		n -= take;
	}
	return 0;
}

/* Deletes the block rows of an object from this chunk on. */
static int delete_chunks(struct catalog *c, uint64_t no, uint64_t chunk, struct err *e)
{
	const int table = T_BLOCKS;
	bool more = true;

	while (more) {
		struct key k = key_two(no, chunk);
		MDB_val kv = key_val(&k), v;
		MDB_cursor *cur;
		int rc = mdb_cursor_open(c->write, c->t[table], &cur);
		if (rc)
			return fail(c, rc, "write", e);
		rc = mdb_cursor_get(cur, &kv, &v, MDB_SET_RANGE);
		unsigned n = 0;
		more = false;
		while (!rc && kv.mv_size >= 8 && get_be64(kv.mv_data) == no) {
			if (n++ == 512) {
				more = true;
				break;
			}
			rc = mdb_cursor_del(cur, 0);
			if (!rc)
				rc = mdb_cursor_get(cur, &kv, &v, MDB_GET_CURRENT);
			if (rc == EINVAL) /* the cursor stands behind the last row */
				rc = MDB_NOTFOUND;
		}
		mdb_cursor_close(cur);
		if (rc && rc != MDB_NOTFOUND)
			return fail(c, rc, "write", e);
		if (changed(c, e))
			return -1;
	}
	return 0;
}

int catalog_blocks_clear(struct catalog *c, uint64_t no, struct err *e)
{
	return delete_chunks(c, no, 0, e);
}

int catalog_blocks_cut(struct catalog *c, uint64_t no, uint64_t first, struct err *e)
{
	struct key k = key_two(no, first / CHUNK_ROWS);
	uint8_t chunk[CHUNK_ROWS * DIGESTS_ROW];
	size_t keep = first % CHUNK_ROWS * DIGESTS_ROW;
	MDB_val v;

	if (keep) {
		int got = db_get(c, T_BLOCKS, key_val(&k), &v, e);
		if (got < 0)
			return -1;
		if (got && v.mv_size > keep) {
			memcpy(chunk, v.mv_data, keep);
			if (db_put(c, T_BLOCKS, key_val(&k), chunk, keep, e))
				return -1;
		}
	}
	return delete_chunks(c, no, first / CHUNK_ROWS + (keep != 0), e);
}

int catalog_blocks_all(struct catalog *c, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row),
	void *ctx, struct err *e)
{
	MDB_cursor *cur;
	MDB_val k, v;
	int rc = mdb_cursor_open(seen(c), c->t[T_BLOCKS], &cur);

	if (rc)
		return fail(c, rc, "read", e);
	int stop = 0;
	for (rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST); !rc && !stop; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
		const uint8_t *p = k.mv_data, *row = v.mv_data;
		if (k.mv_size != 16)
			continue;
		for (size_t i = 0; !stop && i + DIGESTS_ROW <= v.mv_size; i += DIGESTS_ROW)
			stop = fn(ctx, get_be64(p), get_be64(p + 8) * CHUNK_ROWS + i / DIGESTS_ROW, row + i);
		trim(c);
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? fail(c, rc, "read", e) : 0;
}

/* ---- changes ---- */

int catalog_alloc(struct catalog *c, uint64_t *no, struct err *e)
{
	(void)e;
	*no = c->next_no++;
	return 0;
}

/* Depth of every dirty directory is kept, so that sealing works from the deepest up. Ancestors become dirty too. */
static int mark_dirty(struct catalog *c, uint64_t dir, struct err *e)
{
	AUTO_BUF struct buf chain = {0}, name = {0};
	uint64_t depth = 0;

	for (;;) {
		struct key k = key_no(dir);
		MDB_val v;
		int got = db_get(c, T_DIRTY, key_val(&k), &v, e);
		if (got < 0)
			return -1;
		if (got) {
			depth = get_le64(v.mv_data) + 1;
			break;
		}
		wr_u64(&chain, dir);
		if (dir == CATALOG_ROOT)
			break;
		got = catalog_name(c, dir, &dir, &name, e);
		if (got < 0)
			return -1;
		if (!got) /* detached: whoever names it again marks it, and an orphan needs no digest */
			return 0;
	}
	for (size_t at = chain.len; at; at -= 8, depth++) {
		uint64_t no = get_le64(chain.p + at - 8);
		struct key k = key_no(no), q = key_two(~depth, no);
		uint8_t d[8];
		put_le64(d, depth);
		if (db_put(c, T_DIRTY, key_val(&k), d, sizeof d, e) || db_put(c, T_DIRTYQ, key_val(&q), "", 0, e))
			return -1;
	}
	return 0;
}

/* Writes the object's digest at each of its names; dirties the directories that hold them. */
static int spread(struct catalog *c, const struct object *o, struct err *e)
{
	uint8_t row[NAME_ROW];
	struct digest d = {{0}};
	struct key at = key_no(o->no);
	MDB_cursor *cur;
	int rc = 0;

	if (o->type == OBJ_DIR)
		return 0;
	object_digest(o, &d);
	put_le64(row, o->no);
	row[8] = o->type;
	memcpy(row + 9, d.b, DIGEST_LEN);
	if ((rc = mdb_cursor_open(c->write, c->t[T_LINKS], &cur)))
		return fail(c, rc, "read", e);
	/* From name to name by key: an object may have many, and what lies between writes does not stay where it was. */
	for (bool is_first = true;; is_first = false) {
		MDB_val kv = key_val(&at), v;
		rc = mdb_cursor_get(cur, &kv, &v, MDB_SET_RANGE);
		if (!rc && !is_first)
			rc = mdb_cursor_get(cur, &kv, &v, MDB_NEXT);
		if (rc || kv.mv_size <= 16 || kv.mv_size > sizeof at.b || get_be64(kv.mv_data) != o->no)
			break;
		at.n = kv.mv_size;
		memcpy(at.b, kv.mv_data, kv.mv_size);
		uint64_t dir = get_be64(at.b + 8);
		struct key k = key_name(dir, span_of(at.b + 16, at.n - 16));
		if (db_put(c, T_NAMES, key_val(&k), row, sizeof row, e) || mark_dirty(c, dir, e)) {
			mdb_cursor_close(cur);
			return -1;
		}
	}
	mdb_cursor_close(cur);
	return rc && rc != MDB_NOTFOUND ? fail(c, rc, "read", e) : 0;
}

static int put_object(struct catalog *c, const struct object *o, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct key k = key_no(o->no);

	put_row(&b, o);
	return db_put(c, T_OBJECTS, key_val(&k), b.p, b.len, e);
}

static int put_inode(struct catalog *c, const struct object *o, struct err *e)
{
	struct key k = key_inode(&o->hint);
	uint8_t no[8];

	put_le64(no, o->no);
	return o->hint.ino ? db_put(c, T_INODES, key_val(&k), no, sizeof no, e) : 0;
}

int catalog_put(struct catalog *c, const struct object *o, struct err *e)
{
	struct object old = {0};
	int got = catalog_get(c, o->no, &old, e);

	if (got == 1 && old.hint.ino && (old.hint.ino != o->hint.ino || old.hint.dev != o->hint.dev ||
			old.hint.btime_s != o->hint.btime_s || old.hint.btime_ns != o->hint.btime_ns)) {
		struct key k = key_inode(&old.hint);
		uint64_t whose;
		got = catalog_by_inode(c, &old.hint, &whose, e);
		if (got == 1 && whose == o->no && db_del(c, T_INODES, key_val(&k), e))
			got = -1;
	}
	object_free(&old);
	if (got < 0 || put_object(c, o, e))
		return -1;
	if (put_inode(c, o, e))
		return -1;
	if (spread(c, o, e) || (o->type == OBJ_DIR && mark_dirty(c, o->no, e)))
		return -1;
	return changed(c, e);
}

static int set_orphan(struct catalog *c, uint64_t no, bool is_orphan, struct err *e)
{
	struct key k = key_no(no);

	return is_orphan ? db_put(c, T_ORPHANS, key_val(&k), "", 0, e) : db_del(c, T_ORPHANS, key_val(&k), e);
}

int catalog_create(struct catalog *c, uint64_t dir, struct span name, struct object *o, struct err *e)
{
	struct key k = key_name(dir, name), l = key_link(o->no, dir, name);
	uint8_t row[NAME_ROW];
	struct digest d = {{0}};

	o->nlink = 1;
	if (o->type != OBJ_DIR)
		object_digest(o, &d);
	put_le64(row, o->no);
	row[8] = o->type;
	memcpy(row + 9, d.b, DIGEST_LEN);
	if (db_put(c, T_NAMES, key_val(&k), row, sizeof row, e) || db_put(c, T_LINKS, key_val(&l), "", 0, e) ||
			put_object(c, o, e) || put_inode(c, o, e) ||
			mark_dirty(c, o->type == OBJ_DIR ? o->no : dir, e))
		return -1;
	return changed(c, e);
}

int catalog_add_name(struct catalog *c, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct object o = {0};
	struct key k = key_name(dir, name), l = key_link(no, dir, name);
	uint8_t row[NAME_ROW] = {0};
	int rc = -1;

	if (catalog_get(c, no, &o, e) != 1) {
		err_set(e, ERR_SYSTEM, "the catalog '%s' has no object %llu", c->path, (unsigned long long)no);
		goto out;
	}
	put_le64(row, no);
	row[8] = o.type;
	if (o.nlink == 0 && set_orphan(c, no, false, e))
		goto out;
	o.nlink++;
	if (db_put(c, T_NAMES, key_val(&k), row, sizeof row, e) || db_put(c, T_LINKS, key_val(&l), "", 0, e) ||
			put_object(c, &o, e) || mark_dirty(c, o.type == OBJ_DIR ? no : dir, e) || spread(c, &o, e))
		goto out;
	rc = changed(c, e);
out:
	object_free(&o);
	return rc;
}

int catalog_remove_name(struct catalog *c, uint64_t dir, struct span name, struct err *e)
{
	struct object o = {0};
	struct key k = key_name(dir, name);
	uint64_t no;
	int rc = -1;

	if (catalog_lookup(c, dir, name, &no, NULL, e) != 1 || catalog_get(c, no, &o, e) != 1) {
		err_set(e, ERR_SYSTEM, "the catalog '%s' lacks a name it should have", c->path);
		goto out;
	}
	struct key l = key_link(no, dir, name);
	o.nlink--;
	if (db_del(c, T_NAMES, key_val(&k), e) || db_del(c, T_LINKS, key_val(&l), e) || put_object(c, &o, e) ||
			mark_dirty(c, dir, e))
		goto out;
	if (o.nlink == 0 ? set_orphan(c, no, true, e) : spread(c, &o, e))
		goto out;
	rc = changed(c, e);
out:
	object_free(&o);
	return rc;
}

/* Removes one orphan; a directory's children lose their name and may become orphans in turn. */
static int bury(struct catalog *c, uint64_t no, struct err *e)
{
	struct object o = {0};
	struct catalog_iter it = {0};
	struct key k = key_no(no);
	int rc = -1, got = catalog_get(c, no, &o, e);

	if (got < 0)
		goto out;
	if (got && o.type == OBJ_DIR) {
		for (;;) {
			/* From the start each time: what was seen is gone. */
			catalog_iter_start(&it, c, no);
			got = catalog_iter_next(&it, e);
			if (got < 0)
				goto out;
			if (!got)
				break;
			do {
				if (catalog_remove_name(c, no, it.name, e))
					goto out;
			} while (it.at < it.batch.len && catalog_iter_next(&it, e) == 1);
		}
	}
	if (o.type == OBJ_FILE && catalog_blocks_clear(c, no, e))
		goto out;
	if (o.hint.ino) {
		uint64_t whose;
		struct key ik = key_inode(&o.hint);
		if (catalog_by_inode(c, &o.hint, &whose, e) < 0 || (whose == no && db_del(c, T_INODES, key_val(&ik), e)))
			goto out;
	}
	if (db_del(c, T_OBJECTS, key_val(&k), e) || set_orphan(c, no, false, e))
		goto out;
	rc = changed(c, e);
out:
	catalog_iter_free(&it);
	object_free(&o);
	return rc;
}

/* First key of a table into k; 1, 0, -1. */
static int first_key(struct catalog *c, int table, struct key *k, struct err *e)
{
	MDB_cursor *cur;
	MDB_val kv, v;
	int rc = mdb_cursor_open(c->write, c->t[table], &cur);

	if (rc)
		return fail(c, rc, "read", e);
	rc = mdb_cursor_get(cur, &kv, &v, MDB_FIRST);
	if (!rc) {
		k->n = kv.mv_size;
		memcpy(k->b, kv.mv_data, kv.mv_size);
	}
	mdb_cursor_close(cur);
	if (rc && rc != MDB_NOTFOUND)
		return fail(c, rc, "read", e);
	return !rc;
}

static int dir_digest(struct catalog *c, uint64_t dir, struct digest *out, struct err *e)
{
	struct digest_run r;
	struct key k = key_no(dir);
	MDB_val kv = key_val(&k), v;
	MDB_cursor *cur;
	int rc = mdb_cursor_open(seen(c), c->t[T_NAMES], &cur);

	if (rc)
		return fail(c, rc, "read", e);
	digest_run_init(&r, "repl-dir-v1", NULL, 0);
	for (rc = mdb_cursor_get(cur, &kv, &v, MDB_SET_RANGE); !rc; rc = mdb_cursor_get(cur, &kv, &v, MDB_NEXT)) {
		const uint8_t *p = kv.mv_data, *row = v.mv_data;
		if (kv.mv_size <= 8 || get_be64(p) != dir || v.mv_size != NAME_ROW)
			break;
		uint32_t n = (uint32_t)(kv.mv_size - 8);
		uint8_t len[4] = {(uint8_t)n, (uint8_t)(n >> 8), 0, 0};
		digest_run_add(&r, len, sizeof len);
		digest_run_add(&r, p + 8, n);
		digest_run_add(&r, row + 9, DIGEST_LEN);
		trim(c);
	}
	mdb_cursor_close(cur);
	digest_run_end(&r, out);
	return rc && rc != MDB_NOTFOUND ? fail(c, rc, "read", e) : 0;
}

int catalog_seal(struct catalog *c, struct digest *id, struct err *e)
{
	struct key k;
	struct object o = {0};
	int got;

	while ((got = first_key(c, T_ORPHANS, &k, e)) == 1)
		if (bury(c, get_be64(k.b), e))
			return -1;
	if (got < 0)
		return -1;
	while ((got = first_key(c, T_DIRTYQ, &k, e)) == 1) {
		uint64_t dir = get_be64(k.b + 8), up;
		struct key dk = key_no(dir);
		struct digest d;
		AUTO_BUF struct buf name = {0};
		if (db_del(c, T_DIRTYQ, key_val(&k), e) || db_del(c, T_DIRTY, key_val(&dk), e))
			goto out;
		got = catalog_get(c, dir, &o, e);
		if (got < 0)
			goto out;
		if (!got)
			continue;
		if (dir_digest(c, dir, &o.content, e) || put_object(c, &o, e))
			goto out;
		object_digest(&o, &d);
		if (dir == CATALOG_ROOT) {
			if (catalog_set_fact(c, "id", d.b, DIGEST_LEN, e))
				goto out;
			continue;
		}
		got = catalog_name(c, dir, &up, &name, e);
		if (got < 0)
			goto out;
		if (got) {
			uint8_t row[NAME_ROW];
			struct key nk = key_name(up, span_of(name.p, name.len));
			put_le64(row, dir);
			row[8] = OBJ_DIR;
			memcpy(row + 9, d.b, DIGEST_LEN);
			/* A directory that moved after it was marked may come out of order: its parent is looked at again. */
			if (db_put(c, T_NAMES, key_val(&nk), row, sizeof row, e) || mark_dirty(c, up, e))
				goto out;
		}
		if (changed(c, e))
			goto out;
	}
	if (got < 0)
		goto out;
	object_free(&o);
	return catalog_id(c, id, e);
out:
	object_free(&o);
	return -1;
}

/* ---- facts ---- */

int catalog_fact(struct catalog *c, const char *key, struct buf *out, struct err *e)
{
	struct key k = {.n = strlen(key)};
	MDB_val v;

	memcpy(k.b, key, k.n);
	int got = db_get(c, T_FACTS, key_val(&k), &v, e);
	if (got == 1)
		buf_add(out, v.mv_data, v.mv_size);
	return got;
}

int catalog_set_fact(struct catalog *c, const char *key, const void *p, size_t n, struct err *e)
{
	struct key k = {.n = strlen(key)};

	memcpy(k.b, key, k.n);
	return db_put(c, T_FACTS, key_val(&k), p, n, e);
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
	MDB_stat st;
	int rc = mdb_stat(seen(c), c->t[T_OBJECTS], &st);

	if (rc)
		return fail(c, rc, "read", e);
	*objects = st.ms_entries;
	return 0;
}
