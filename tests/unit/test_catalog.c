/* The catalog from inside: what a change costs in rows written, files that are damaged. */
#include "unit.h"

#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <unistd.h>

#include "catalog.h"

static struct err e;

static const struct r_meta plain = {.mode = 0644, .mtime_s = 1000000000};

static void make(struct catalog *c, uint64_t dir, const char *name, uint8_t type, uint64_t *no)
{
	struct object o = {.type = type};

	CHECK_OK(catalog_alloc(c, &o.no, &e), e);
	if (!dir)
		o.no = CATALOG_ROOT;
	object_set_meta(&o, &plain);
	o.nlink = 1;
	o.hint = (struct r_hint){.ino = 1000 + o.no, .ctime_s = 7};
	CHECK_OK(dir ? catalog_create(c, dir, span_cstr(name), &o, &e) : catalog_put(c, &o, &e), e);
	*no = o.no;
	object_free(&o);
}

static struct digest seal(struct catalog *c)
{
	struct digest id = {{0}};

	CHECK_OK(catalog_seal(c, &id, &e), e);
	return id;
}

static struct catalog *open_at(const char *dir, const char *name, enum catalog_mode mode)
{
	AUTO_BUF struct buf path = {0};
	struct catalog *c = NULL;

	e = (struct err){0};
	buf_fmt(&path, "%s/%s", dir, name);
	CHECK_OK(catalog_open(&c, buf_cstr(&path), mode, &e), e);
	return c;
}

/* ---- links ---- */

/* Rows written for so many names of one file, made and taken away again. The catalog is as before. */
static uint64_t links_cost(struct catalog *c, uint64_t dir, uint64_t file, unsigned n)
{
	uint64_t before = catalog_writes(c);
	struct digest id = seal(c), other;
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "link%u", i);
		CHECK_OK(catalog_add_name(c, dir, span_cstr(name), file, &e), e);
	}
	other = seal(c);
	CHECK(!digest_eq(&id, &other));
	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof name, "link%u", i);
		CHECK_OK(catalog_remove_name(c, dir, span_cstr(name), &e), e);
	}
	other = seal(c);
	CHECK(digest_eq(&id, &other));
	return catalog_writes(c) - before;
}

static void many_links(const char *tmp)
{
	struct catalog *c = open_at(tmp, "links", CATALOG_PRIVATE);
	uint64_t root, dir, file;

	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "dir", OBJ_DIR, &dir);
	make(c, root, "file", OBJ_FILE, &file);
	seal(c);
	uint64_t some = links_cost(c, dir, file, 5000), many = links_cost(c, dir, file, 20000);
	CHECK(some > 20000);
	CHECK(many < some * 4 + 100);
	catalog_close(&c);
}

/* A stored digest of one name equals what the object says now: the id of a catalog that was built at once is the same. */
static void every_name_counts(const char *tmp)
{
	struct catalog *a = open_at(tmp, "a", CATALOG_PRIVATE), *b = open_at(tmp, "b", CATALOG_PRIVATE);
	struct catalog *both[] = {a, b};
	struct object o = {0};
	uint64_t root, x, y, file;

	for (int i = 0; i < 2; i++) {
		make(both[i], 0, "", OBJ_DIR, &root);
		make(both[i], root, "x", OBJ_DIR, &x);
		make(both[i], root, "y", OBJ_DIR, &y);
		make(both[i], x, "one", OBJ_FILE, &file);
		CHECK_OK(catalog_add_name(both[i], y, span_cstr("two"), file, &e), e);
		if (i)
			seal(b); /* b changes in a second step */
		CHECK(catalog_get(both[i], file, &o, &e) == 1);
		o.size = 5;
		CHECK_OK(catalog_put(both[i], &o, &e), e);
	}
	struct digest ia = seal(a), ib = seal(b);
	CHECK(digest_eq(&ia, &ib));
	object_free(&o);
	catalog_close(&a);
	catalog_close(&b);
}

/* ---- what did not change ---- */

static void same_again(const char *tmp)
{
	struct catalog *c = open_at(tmp, "same", CATALOG_LIVE);
	struct object o = {0};
	uint64_t root, file, found;

	CHECK_OK(catalog_begin(c, &e), e);
	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "file", OBJ_FILE, &file);
	struct digest id = seal(c), now;
	uint64_t start = catalog_writes(c);
	CHECK(catalog_get(c, file, &o, &e) == 1);
	CHECK_OK(catalog_put(c, &o, &e), e);
	CHECK_EQ_U64(catalog_writes(c), start);
	/* Another time: its row alone. */
	o.hint.ctime_s++;
	CHECK_OK(catalog_put(c, &o, &e), e);
	now = seal(c);
	CHECK(digest_eq(&id, &now));
	CHECK_EQ_U64(catalog_writes(c), start + 1);
	/* Another inode: its row, the old inode's and the new one's. */
	struct r_hint old = o.hint;
	o.hint.ino++;
	CHECK_OK(catalog_put(c, &o, &e), e);
	now = seal(c);
	CHECK(digest_eq(&id, &now));
	CHECK_EQ_U64(catalog_writes(c), start + 4);
	CHECK(catalog_by_inode(c, &old, &found, &e) == 0);
	CHECK(catalog_by_inode(c, &o.hint, &found, &e) == 1 && found == file);
	/* Content: the directory above is new as well. */
	o.size = 1;
	CHECK_OK(catalog_put(c, &o, &e), e);
	now = seal(c);
	CHECK(!digest_eq(&id, &now));
	object_free(&o);
	CHECK_OK(catalog_commit(c, &e), e);
	catalog_close(&c);
}

/* ---- names ---- */

static void all_names(const char *tmp)
{
	struct catalog *c = open_at(tmp, "names", CATALOG_PRIVATE);
	struct catalog_names n = {0};
	uint64_t root, dir, file, other, seen = 0;
	char name[32];
	int got;

	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "dir", OBJ_DIR, &dir);
	make(c, root, "one", OBJ_FILE, &file);
	make(c, root, "other", OBJ_FILE, &other);
	for (unsigned i = 0; i < 600; i++) {
		snprintf(name, sizeof name, "n%03u", i);
		CHECK_OK(catalog_add_name(c, dir, span_cstr(name), file, &e), e);
	}
	catalog_names_start(&n, c, file);
	while ((got = catalog_names_next(&n, &e)) == 1) {
		if (!seen)
			CHECK(n.dir == root && span_eq(n.name, span_cstr("one")));
		else
			CHECK(n.dir == dir);
		seen++;
		/* What was met goes on the way. */
		if (n.dir == dir)
			CHECK_OK(catalog_remove_name(c, n.dir, n.name, &e), e);
	}
	CHECK(got == 0);
	CHECK_EQ_U64(seen, 601);
	catalog_names_start(&n, c, file);
	for (seen = 0; catalog_names_next(&n, &e) == 1; seen++)
		;
	CHECK_EQ_U64(seen, 1);
	catalog_names_start(&n, c, root);
	CHECK(catalog_names_next(&n, &e) == 0);
	catalog_names_free(&n);
	catalog_close(&c);
}

/* ---- damage ---- */

static void drop_table(const char *path, const char *name)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;

	if (!CHECK(!mdb_env_create(&env)))
		return;
	CHECK(!mdb_env_set_maxdbs(env, 16) && !mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600) &&
		!mdb_txn_begin(env, NULL, 0, &txn) && !mdb_dbi_open(txn, name, 0, &dbi) && !mdb_drop(txn, dbi, 1) &&
		!mdb_txn_commit(txn));
	mdb_env_close(env);
}

/* What does not hold together is found where it is opened, or looked at. */
static void damaged(const char *tmp)
{
	AUTO_BUF struct buf path = {0};
	struct catalog *c = open_at(tmp, "damaged", CATALOG_LIVE);
	struct object o = {0};
	uint64_t root, file;

	buf_fmt(&path, "%s/damaged", tmp);
	CHECK_OK(catalog_begin(c, &e), e);
	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "file", OBJ_FILE, &file);
	struct digest id = seal(c), other = {{1}};
	CHECK_OK(catalog_commit(c, &e), e);
	CHECK_OK(catalog_get_sealed(c, root, &o, &e), e);
	CHECK_OK(catalog_get_sealed(c, file, &o, &e), e);
	/* An object that is another one than its name says, as of an earlier image. */
	CHECK_OK(catalog_begin(c, &e), e);
	o.size = 77;
	CHECK_OK(catalog_put(c, &o, &e), e);
	CHECK_OK(catalog_commit(c, &e), e);
	CHECK(catalog_get_sealed(c, file, &o, &e) == -1 && strstr(e.text, "an object in it is not what its name says"));
	e = (struct err){0};
	CHECK(catalog_get_sealed(c, 4711, &o, &e) == -1 && strstr(e.text, "it lacks an object"));
	e = (struct err){0};
	object_free(&o);
	/* The id of another image. */
	CHECK_OK(catalog_begin(c, &e), e);
	CHECK_OK(catalog_set_fact(c, "id", other.b, sizeof other.b, &e), e);
	CHECK_OK(catalog_commit(c, &e), e);
	catalog_close(&c);
	CHECK(catalog_open_at(&c, buf_cstr(&path), CATALOG_READ, "mend it", &e) == -1 && e.kind == ERR_SYSTEM);
	CHECK(strstr(e.text, buf_cstr(&path)) && strstr(e.text, "its root is not what its id says: mend it"));
	c = open_at(tmp, "damaged", CATALOG_PRIVATE);
	CHECK_OK(catalog_set_fact(c, "id", id.b, sizeof id.b, &e), e);
	CHECK_OK(catalog_settle(c, &e), e);
	catalog_close(&c);
	c = open_at(tmp, "damaged", CATALOG_READ);
	catalog_close(&c);
	/* A table is missing: it is not made anew. */
	drop_table(buf_cstr(&path), "objects");
	for (enum catalog_mode m = CATALOG_READ; m <= CATALOG_PRIVATE; m++) {
		e = (struct err){0};
		CHECK(catalog_open(&c, buf_cstr(&path), m, &e) == -1 && e.kind == ERR_SYSTEM && strstr(e.text, "it lacks a table"));
	}
}

int unit_catalog(void)
{
	unsigned long before = unit_failures;
	char tmp[300];
	int fd = unit_tmpdir(tmp, sizeof tmp);

	if (fd < 0)
		return 1;
	many_links(tmp);
	every_name_counts(tmp);
	same_again(tmp);
	all_names(tmp);
	damaged(tmp);
	static const char *const files[] = {"links", "a", "b", "same", "names", "damaged"};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		unlinkat(fd, files[i], 0);
	close(fd);
	CHECK(rmdir(tmp) == 0);
	return (int)(unit_failures - before);
}
