/* Tables in a file, and what is noticed when the file is not what was written. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <unistd.h>

#include "store.h"

static struct err e;

static struct store *open_at(const char *path, enum store_mode mode)
{
	struct store *s = NULL;

	e = (struct err){0};
	CHECK_OK(store_open(&s, path, mode, "mend it", &e), e);
	return s;
}

/* Behind the store's back: a row as LMDB has it; len 0: only a look, else a new value. */
static size_t raw(const char *path, const char *table, struct span key, uint8_t *value, size_t len)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val k, v;
	AUTO_BUF struct buf copy = {0};
	size_t n = 0;

	buf_add(&copy, key.p, key.len);
	k = (MDB_val){copy.len, copy.p};
	v = (MDB_val){len, value};
	if (!CHECK(!mdb_env_create(&env)))
		return 0;
	if (!CHECK(!mdb_env_set_maxdbs(env, 16) && !mdb_env_set_mapsize(env, 1 << 26) && !mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600)) ||
			!CHECK(!mdb_txn_begin(env, NULL, 0, &txn)) || !CHECK(!mdb_dbi_open(txn, table, 0, &dbi)))
		return 0;
	CHECK(!(len ? mdb_put(txn, dbi, &k, &v, 0) : mdb_get(txn, dbi, &k, &v)));
	n = v.mv_size;
	if (!len)
		memcpy(value, v.mv_data, n);
	CHECK(!mdb_txn_commit(txn));
	mdb_env_close(env);
	return n;
}

static void put(struct store *s, enum store_table t, const char *key, const char *value)
{
	CHECK_OK(store_put(s, t, span_cstr(key), span_cstr(value), &e), e);
}

static bool says(const char *path, const char *what)
{
	bool ok = e.kind == ERR_SYSTEM && strstr(e.text, path) && strstr(e.text, what) && strstr(e.text, ": mend it");

	if (!ok)
		fprintf(stderr, "\t%s\n", e.text);
	e = (struct err){0};
	return ok;
}

static void there_and_back(const char *path)
{
	struct store *s = open_at(path, STORE_LIVE);
	struct store_walk w = {0};
	struct span v;
	uint64_t n = 0;

	CHECK_OK(store_begin(s, &e), e);
	put(s, STORE_NAMES, "one", "first");
	put(s, STORE_NAMES, "two", "");
	put(s, STORE_NAMES, "two and more", "12345678");
	put(s, STORE_LINKS, "one", "first");
	CHECK_OK(store_commit(s, &e), e);
	CHECK(store_get(s, STORE_NAMES, span_cstr("one"), &v, &e) == 1 && span_eq(v, span_cstr("first")));
	CHECK(store_get(s, STORE_NAMES, span_cstr("two"), &v, &e) == 1 && v.len == 0);
	CHECK(store_get(s, STORE_NAMES, span_cstr("three"), &v, &e) == 0);
	store_walk_start(&w, s, STORE_NAMES, span_cstr("two"), 3, false);
	while (store_walk_next(&w, &e) == 1)
		n += 1 + w.value.len;
	CHECK_EQ_U64(n, 10);
	store_walk_free(&w);
	CHECK(!store_at_work());
	store_close(&s);
}

/* Each bit of a row's value and of its check; and a sound row that belongs elsewhere. */
static void other_rows(const char *path)
{
	uint8_t was[64], now[64];
	struct span key = span_cstr("one"), v;
	size_t len = raw(path, "names", key, was, 0);

	for (size_t bit = 0; bit < len * 8; bit++) {
		memcpy(now, was, len);
		now[bit / 8] ^= (uint8_t)(1u << bit % 8);
		raw(path, "names", key, now, len);
		struct store *s = open_at(path, STORE_READ);
		CHECK(store_get(s, STORE_NAMES, key, &v, &e) == -1 && says(path, "a row in it is not what was written"));
		store_close(&s);
	}
	struct store *s = open_at(path, STORE_READ);
	struct store_walk w = {0};
	struct span k;
	CHECK(store_seek(s, STORE_NAMES, (struct span){0}, 0, &k, &v, &e) == -1 && says(path, "a row"));
	CHECK(store_seek(s, STORE_NAMES, span_cstr("two"), 0, &k, &v, &e) == 1 && span_eq(k, span_cstr("two")));
	store_walk_start(&w, s, STORE_NAMES, (struct span){0}, 0, false);
	CHECK(store_walk_next(&w, &e) == -1 && says(path, "a row"));
	store_walk_free(&w);
	store_close(&s);
	/* One too short for a check, one of another table, one of another key. */
	static const struct {
		const char *table, *key;
	} from[] = {{"links", "one"}, {"names", "two and more"}};
	raw(path, "names", key, now, 3);
	for (size_t i = 0; i < 3; i++) {
		s = open_at(path, STORE_READ);
		CHECK(store_get(s, STORE_NAMES, key, &v, &e) == -1 && says(path, "a row in it is not what was written"));
		store_close(&s);
		if (i < 2)
			raw(path, "names", key, now, raw(path, from[i].table, span_cstr(from[i].key), now, 0));
	}
	raw(path, "names", key, was, len);
	s = open_at(path, STORE_READ);
	CHECK(store_get(s, STORE_NAMES, key, &v, &e) == 1 && span_eq(v, span_cstr("first")));
	store_close(&s);
}

static void other_files(const char *path)
{
	struct store *s = NULL;
	uint8_t version[4] = {1};

	raw(path, "facts", span_cstr("version"), version, sizeof version);
	CHECK(store_open(&s, path, STORE_READ, "mend it", &e) == -1 && says(path, "was written by an older version"));
	CHECK(!truncate(path, 0));
	for (enum store_mode m = STORE_READ; m <= STORE_PRIVATE; m++)
		CHECK(store_open(&s, path, m, "mend it", &e) == -1 && says(path, "is damaged, it is empty"));
	CHECK(!truncate(path, 100000));
	CHECK(store_open(&s, path, STORE_LIVE, "mend it", &e) == -1 && says(path, "is damaged, "));
	CHECK(!unlink(path));
	CHECK(store_open(&s, path, STORE_READ, NULL, &e) == -1 && e.sys == ENOENT);
}

static uint64_t mapped(void)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	CHECK(f && fscanf(f, "%*u %*u %llu", &pages) == 1);
	if (f)
		fclose(f);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* What is mapped of one that nobody looks at any more is given back as well: else what is in use would be, again and again. */
static void two_large(const char *path, const char *other)
{
	const size_t rows = 250, len = 700000;
	AUTO_FREE char *value = xalloc(len + 1);
	struct store *large = open_at(path, STORE_PRIVATE), *small = open_at(other, STORE_PRIVATE);
	struct span v;
	char key[16];

	memset(value, 'x', len);
	put(small, STORE_FACTS, "one", "row");
	CHECK_OK(store_sync(small, &e), e);
	for (size_t i = 0; i < rows; i++) {
		snprintf(key, sizeof key, "%zu", i);
		put(large, STORE_FACTS, key, value);
	}
	CHECK_OK(store_sync(large, &e), e);
	/* All of it, in fewer looks than somebody cares how much that is. */
	for (size_t i = 0; i < rows; i++) {
		snprintf(key, sizeof key, "%zu", i);
		CHECK(store_get(large, STORE_FACTS, span_cstr(key), &v, &e) == 1);
	}
	CHECK(mapped() > 140u << 20);
	for (unsigned i = 0; i < 1000; i++)
		CHECK(store_get(small, STORE_FACTS, span_cstr("one"), &v, &e) == 1);
	CHECK(mapped() < 64u << 20);
	store_close(&large);
	store_close(&small);
	unlink(path);
	unlink(other);
}

int unit_store(void)
{
	unsigned long before = unit_failures;
	AUTO_BUF struct buf path = {0}, other = {0};
	char tmp[300];
	int fd = unit_tmpdir(tmp, sizeof tmp);

	if (fd < 0)
		return 1;
	buf_fmt(&path, "%s/store", tmp);
	there_and_back(buf_cstr(&path));
	other_rows(buf_cstr(&path));
	other_files(buf_cstr(&path));
	buf_fmt(&other, "%s/other", tmp);
	two_large(buf_cstr(&path), buf_cstr(&other));
	close(fd);
	CHECK(rmdir(tmp) == 0);
	return (int)(unit_failures - before);
}
