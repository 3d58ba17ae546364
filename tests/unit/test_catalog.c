/* The catalog from inside: what a change costs in rows written, files that are damaged. */
#include "unit.h"

#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "content.h"
#include "image.h"
#include "store.h"

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

/* ---- content that is taken back ---- */

static int put(struct image_loader *l, uint16_t type, struct record r)
{
	r.type = type;
	e = (struct err){0};
	return image_load(l, &r, &e);
}

static struct record named(uint64_t ref, const char *name)
{
	return (struct record){.u.base = {.ref = ref, .parent = REF_ROOT, .name = span_cstr(name)}};
}

static struct record content(uint8_t flags) { return (struct record){.u.content = {flags, 4096}}; }

static struct record rows_at(uint64_t first, uint8_t byte)
{
	static uint8_t row[DIGESTS_ROW];

	memset(row, byte, sizeof row);
	return (struct record){.u.digests = {first, span_of(row, sizeof row)}};
}

static void taken_back(const char *tmp)
{
	struct catalog *c = open_at(tmp, "back", CATALOG_PRIVATE);
	struct image_loader l = {0};
	struct object o = {0};
	struct digest id;
	uint64_t root, no;

	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "f", OBJ_FILE, &no);
	CHECK_OK(catalog_get(c, no, &o, &e) != 1, e);
	o.size = 2 * 4096;
	o.grain = 4096;
	digest_zeros(&o.content, o.size);
	CHECK_OK(catalog_put(c, &o, &e), e);
	CHECK(content_rows_fit(c, &o, &e) == 1);
	seal(c);
	image_load_start(&l, c);
	/* A patch that grew, then one that did not: nothing is left of what the first put behind the end. */
	CHECK_OK(put(&l, REC_BASE, named(2, "f")) || put(&l, REC_CONTENT, content(CONTENT_PATCH)) ||
		put(&l, REC_DIGESTS, rows_at(5, 1)) || put(&l, REC_CONTENT, content(CONTENT_PATCH)), e);
	o.size = 6 * 4096;
	digest_zeros(&o.content, o.size);
	CHECK_OK(put(&l, REC_SEAL, (struct record){.u.seal = {o.size, o.content, 0}}), e);
	/* A new file, whose content begins again without its first row; then with another's name in between. */
	struct record new = {.u.create = {.ref = 3, .parent = REF_ROOT, .type = OBJ_FILE, .name = span_cstr("new")}};
	CHECK_OK(put(&l, REC_CREATE, new) || put(&l, REC_META, (struct record){.u.meta = plain}) ||
		put(&l, REC_CONTENT, content(0)) || put(&l, REC_DIGESTS, rows_at(0, 1)) || put(&l, REC_CONTENT, content(0)) ||
		put(&l, REC_SEAL, (struct record){.u.seal = {o.size, o.content, 0}}), e);
	new.u.create.ref = 4;
	new.u.create.name = span_cstr("gone");
	CHECK_OK(put(&l, REC_CREATE, new) || put(&l, REC_META, (struct record){.u.meta = plain}) ||
		put(&l, REC_CONTENT, content(0)) || put(&l, REC_BASE, named(5, "f")) ||
		put(&l, REC_OBJECT, (struct record){.u.object.ref = 4}) || put(&l, REC_DROP, (struct record){0}), e);
	/* It has no number any more, and there is only one of it to drop. */
	CHECK(put(&l, REC_ATTACH, (struct record){.u.attach = {4, REF_ROOT, span_cstr("again")}}) == -1 && e.kind == ERR_STREAM);
	CHECK(put(&l, REC_DROP, (struct record){0}) == -1 && e.kind == ERR_STREAM);
	CHECK(put(&l, REC_OBJECT, (struct record){.u.object.ref = 2}) == 0 && put(&l, REC_DROP, (struct record){0}) == -1);
	e = (struct err){0};
	CHECK_OK(image_load_end(&l, &id, &e), e);
	image_loader_free(&l);
	CHECK(catalog_lookup(c, root, span_cstr("gone"), &no, NULL, &e) == 0);
	for (const char *const *name = (const char *const[]){"f", "new", NULL}; *name; name++) {
		CHECK(catalog_lookup(c, root, span_cstr(*name), &no, NULL, &e) == 1 && catalog_get(c, no, &o, &e) == 1);
		CHECK_EQ_U64(o.size, 6 * 4096);
		CHECK(content_rows_fit(c, &o, &e) == 1);
	}
	CHECK_OK(catalog_blocks_put(c, no, 3, 1, rows_at(3, 1).u.digests.rows.p, &e), e);
	CHECK(content_rows_fit(c, &o, &e) == 0);
	object_free(&o);
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
	CHECK(!mdb_env_set_maxdbs(env, 16) && !mdb_env_set_mapsize(env, 1 << 26) && !mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOLOCK, 0600) &&
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

static uint64_t next(void)
{
	static uint64_t x = 1;

	x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return x >> 33;
}

/* Rows in the order of a file, and where that starts anywhere, end anywhere: what was put is there, and the file is little more than
 * that. */
static void blocks(const char *tmp)
{
	enum { N = 50000 };
	struct catalog *c = open_at(tmp, "blocks", CATALOG_PRIVATE);
	static uint8_t rows[N * DIGESTS_ROW], got[N * DIGESTS_ROW];
	struct stat st;
	uint64_t root, no, at = 0;

	make(c, 0, "", OBJ_DIR, &root);
	make(c, root, "f", OBJ_FILE, &no);
	for (size_t i = 0; i < N; i++) {
		struct digest d;
		uint8_t leaf[DIGEST_LEAF];
		memset(leaf, (int)i, sizeof leaf);
		for (size_t k = 0; k < sizeof d; k++)
			d.b[k] = (uint8_t)(next() | 1);
		blocks_row(rows + i * DIGESTS_ROW, i, &d, leaf, sizeof leaf);
	}
	while (at < N) {
		size_t n = (size_t)min_u64(1 + next() % (3 * BLOCKS_ROWS), N - at);
		CHECK_OK(catalog_blocks_put(c, no, at, n, rows + at * DIGESTS_ROW, &e), e);
		at += n;
	}
	CHECK_OK(catalog_blocks(c, no, 0, N, got, &e), e);
	CHECK(!memcmp(rows, got, sizeof rows));
	for (unsigned i = 0; i < 500; i++) {
		uint64_t from = next() % N;
		size_t n = (size_t)min_u64(next() % (3 * BLOCKS_ROWS), N - from);
		CHECK_OK(catalog_blocks(c, no, from, n, got, &e), e);
		CHECK(!memcmp(rows + from * DIGESTS_ROW, got, n * DIGESTS_ROW));
	}
	CHECK_OK(catalog_blocks_cut(c, no, 1000, &e), e);
	CHECK_OK(catalog_blocks(c, no, 900, 200, got, &e), e);
	CHECK(!memcmp(rows + 900 * DIGESTS_ROW, got, 100 * DIGESTS_ROW) && is_zero(got + 100 * DIGESTS_ROW, 100 * DIGESTS_ROW));
	CHECK_OK(catalog_settle(c, &e), e);
	catalog_close(&c);
	AUTO_BUF struct buf path = {0};
	buf_fmt(&path, "%s/blocks", tmp);
	CHECK(!stat(buf_cstr(&path), &st) && (size_t)st.st_size < (size_t)N * DIGEST_LEAF / 100);
}

/* Any rows come back as they were, with a sum or without; what was cut, or is too long, is told. */
static void values(void)
{
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW], got[sizeof rows], value[BLOCKS_MAX + 1], row[DIGESTS_ROW], leaf[DIGEST_LEAF] = {1};

	for (size_t n = 1; n <= BLOCKS_ROWS; n++) {
		for (size_t i = 0; i < n * DIGESTS_ROW; i++)
			rows[i] = next() % 3 ? (uint8_t)next() : 0;
		for (size_t i = 0; i < n; i++)
			if (next() & 1)
				memset(rows + i * DIGESTS_ROW + (next() & 1 ? DIGEST_LEN : 0), 0, DIGESTS_ROW - DIGEST_LEN);
		size_t len = blocks_encode(value, rows, n);
		CHECK(len <= BLOCKS_MAX && blocks_decode(got, span_of(value, len)) == n && !memcmp(rows, got, n * DIGESTS_ROW));
		CHECK(!blocks_decode(got, span_of(value, len - 1)) && !blocks_decode(got, span_of(value, len + 1)));
	}
	CHECK(!blocks_decode(got, (struct span){0}));
	memset(value, 0, sizeof value);
	CHECK(!blocks_decode(got, span_of(value, sizeof value)));
	value[0] = BLOCKS_ROWS + 1;
	CHECK(!blocks_decode(got, span_of(value, sizeof value)));
	/* What a file begins with is known, of each block; then every fourth one, and none that is shorter than a leaf. */
	for (uint64_t block = 0, sums = 0; block < 1024; block++) {
		blocks_row(row, block, &(struct digest){{1}}, leaf, sizeof leaf);
		sums += !is_zero(row + DIGEST_LEN, 8);
		CHECK(row[0] == 1 && sums == blocks_sums(block + 1) && sums == (block < 32 ? block + 1 : 32 + block / 4 - 7));
	}
	blocks_row(row, 0, &(struct digest){{1}}, leaf, sizeof leaf - 1);
	CHECK(is_zero(row + DIGEST_LEN, 8));
}

/* Of another version: nobody reads rows that lie elsewhere than they think. */
/* ---- paths ---- */

#define PATH_DIRS 400u

/* As catalog_path finds it, and by asking for each name. */
static void same_path(struct catalog *c, uint64_t no)
{
	AUTO_BUF struct buf path = {0}, want = {0}, name = {0};
	uint64_t depth, n = 0;

	CHECK_OK(catalog_depth(c, no, &depth, &e), e);
	CHECK_OK(catalog_path(c, no, span_cstr("file"), &path, &e), e);
	buf_str(&want, "file");
	for (uint64_t up = no; up != CATALOG_ROOT; n++) {
		AUTO_BUF struct buf below = {0};
		if (!CHECK(catalog_name(c, up, &up, &name, &e) == 1))
			return;
		buf_add(&below, want.p, want.len);
		buf_reset(&want);
		buf_add(&want, name.p, name.len);
		buf_str(&want, "/");
		buf_add(&want, below.p, below.len);
	}
	CHECK_EQ_STR(buf_cstr(&path), buf_cstr(&want));
	CHECK_EQ_U64(depth, n);
}

static bool lies_below(struct catalog *c, uint64_t no, uint64_t dir)
{
	AUTO_BUF struct buf name = {0};

	while (no != dir && no != CATALOG_ROOT)
		if (!CHECK(catalog_name(c, no, &no, &name, &e) == 1))
			return true;
	return no == dir;
}

/* The way to the last one is kept: whatever is moved, seen from the base or taken back meanwhile, no path is another one. */
static void paths(const char *tmp)
{
	struct catalog *c = open_at(tmp, "paths", CATALOG_LIVE);
	uint64_t no[PATH_DIRS];
	char name[32];

	CHECK_OK(catalog_begin(c, &e), e);
	make(c, 0, "", OBJ_DIR, &no[0]);
	for (unsigned i = 1; i < PATH_DIRS; i++) {
		snprintf(name, sizeof name, "d%u", i);
		/* A long way down, with others beside it; more than there are slots for at the same places. */
		make(c, no[next() % 4 ? i - 1 : next() % i], name, OBJ_DIR, &no[i]);
	}
	seal(c);
	CHECK_OK(catalog_commit(c, &e), e);
	for (unsigned round = 0; round < 40; round++) {
		catalog_see_base(c, round % 3 == 0);
		CHECK_OK(catalog_begin(c, &e), e);
		same_path(c, no[(unsigned)next() % PATH_DIRS]);
		catalog_see_base(c, false);
		for (unsigned k = 0; k < 50; k++) {
			unsigned i = 1 + (unsigned)next() % (PATH_DIRS - 1), to = (unsigned)next() % PATH_DIRS;
			AUTO_BUF struct buf was = {0};
			uint64_t dir;
			if (next() % 8 == 0 && !lies_below(c, no[to], no[i])) {
				CHECK(catalog_name(c, no[i], &dir, &was, &e) == 1);
				CHECK_OK(catalog_remove_name(c, dir, span_of(was.p, was.len), &e), e);
				snprintf(name, sizeof name, "m%u,%u,%u", round, k, i);
				CHECK_OK(catalog_add_name(c, no[to], span_cstr(name), no[i], &e), e);
			}
			same_path(c, no[(unsigned)next() % PATH_DIRS]);
			catalog_see_base(c, true);
			same_path(c, no[(unsigned)next() % PATH_DIRS]);
			same_path(c, no[i]);
			catalog_see_base(c, false);
			same_path(c, no[i]);
		}
		if (round % 2) {
			seal(c);
			CHECK_OK(catalog_commit(c, &e), e);
		} else {
			catalog_abort(c);
		}
		same_path(c, no[(unsigned)next() % PATH_DIRS]);
	}
	catalog_close(&c);
}

static void versions(const char *tmp)
{
	static const char *const says[] = {"by an older version of this program: mend it", "by a newer version of this program"};
	AUTO_BUF struct buf path = {0};

	buf_fmt(&path, "%s/version", tmp);
	for (size_t i = 0; i < 2; i++) {
		struct catalog *c = open_at(tmp, "version", CATALOG_PRIVATE);
		uint8_t version[4] = {i ? 255 : 2, 0, 0, 0};
		struct store *s = NULL;
		uint64_t root;
		make(c, 0, "", OBJ_DIR, &root);
		CHECK_OK(catalog_settle(c, &e), e);
		catalog_close(&c);
		CHECK_OK(store_open(&s, buf_cstr(&path), STORE_PRIVATE, NULL, &e), e);
		CHECK_OK(store_put(s, STORE_FACTS, span_cstr("version"), span_of(version, sizeof version), &e), e);
		CHECK_OK(store_sync(s, &e), e);
		store_close(&s);
		CHECK(catalog_open_at(&c, buf_cstr(&path), CATALOG_READ, "mend it", &e) == -1 && strstr(e.text, says[i]));
		unlink(buf_cstr(&path));
	}
	/* It lacks the table that came last. */
	struct catalog *c = open_at(tmp, "version", CATALOG_PRIVATE);
	catalog_close(&c);
	drop_table(buf_cstr(&path), "loose");
	CHECK(catalog_open_at(&c, buf_cstr(&path), CATALOG_READ, "mend it", &e) == -1 && strstr(e.text, says[0]));
	unlink(buf_cstr(&path));
}

int unit_catalog(void)
{
	unsigned long before = unit_failures;
	char tmp[300];
	int fd = unit_tmpdir(tmp, sizeof tmp);

	if (fd < 0)
		return 1;
	values();
	many_links(tmp);
	every_name_counts(tmp);
	same_again(tmp);
	all_names(tmp);
	taken_back(tmp);
	damaged(tmp);
	blocks(tmp);
	paths(tmp);
	versions(tmp);
	static const char *const files[] = {"links", "a", "b", "same", "names", "back", "damaged", "blocks", "paths"};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		unlinkat(fd, files[i], 0);
	close(fd);
	CHECK(rmdir(tmp) == 0);
	return (int)(unit_failures - before);
}
