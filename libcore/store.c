#include "store.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pages.h"

/* Rows written between commits of a private store. It bounds the dirty pages, which lie in memory and may be one for each row (8,000 took
 * 30 MB where names went here and there), and those that lie unused in the file: what one commit leaves the one after the next takes. They
 * are not synced and cost little. */
#define BATCH_OPS 4000u
#define BATCH_PAGE 16u          /* what one counts that has a page of its own */
#define TRIM_OPS 256u           /* look-ups between checks of how much of the file is mapped into our memory */
/* More than so much is given back. It is page cache and costs nobody else anything, but is shown as ours; to map it again is most of
 * what a small change of a large tree costs (100 of 1,000,000 files: 0.95 s at 12 MiB, 0.61 s at 48;
 * on another day 0.80 s at 48, 0.74 s where nothing was given back: 74 MB were mapped at most). */
#define TRIM_BYTES (128u << 20)
#define AHEAD_ROWS 256u         /* most that a walk reads ahead */
#define AHEAD_BYTES (64u << 10)

static const char *const table_names[STORE_TABLES] = {
	"names", "links", "objects", "blocks", "inodes", "facts", "dirty", "dirtyq", "orphans", "spread", "loose",
};
#define CHECK_LEN 4u
_Static_assert(STORE_AHEAD_MAX <= PAGES_AHEAD_MAX, "what is asked for goes down the trees at once");
#define OWN_PAGE 2048u          /* bytes in a value beyond which LMDB does not put it into a page with others */

/* Where this thread is inside LMDB, the line for store_at_work. A signal handler has nobody to ask: hence no member of anything. */
static _Thread_local const char *volatile at_work;

struct store {
	MDB_env *env;
	MDB_txn *read, *write;
	MDB_dbi t[STORE_TABLES], main; /* main: LMDB's list of tables */
	enum store_mode mode;
	bool is_new, see_base;
	unsigned ops, looks;
	uint64_t writes, put; /* put: bytes, by the open change */
	struct pages pages; /* of the file before the open change */
	struct pages_tree trees[STORE_TABLES];
	int statm; /* -1: not open */
	void *map; /* LMDB's mapping, for madvise; NULL: not found */
	size_t map_len;
	struct store *next_open;
	struct buf got; /* what was handed out last */
	char *path, *advice;
	char *broken; /* the line for store_at_work */
};

/* All that are open: what is mapped of them counts together. */
static struct store *all_open;
static pthread_mutex_t all_open_lock = PTHREAD_MUTEX_INITIALIZER;

const char *store_at_work(void) { return at_work; }

/* Else LMDB prints what it asserted before it aborts. */
static void on_assert(MDB_env *env, const char *text)
{
	(void)env;
	(void)text;
	raise(SIGABRT);
}

/* Around each call of LMDB that may look at a page of the file. */
static void enter(const struct store *s) { at_work = s->broken; }

static int leave(int rc)
{
	at_work = NULL;
	return rc;
}

static bool is_damage(int rc)
{
	/* EINVAL: a table's head has flags that none of ours has. */
	return rc == EINVAL || rc == MDB_NOTFOUND || rc == MDB_CORRUPTED || rc == MDB_PAGE_NOTFOUND || rc == MDB_INVALID ||
		rc == MDB_VERSION_MISMATCH || rc == MDB_PANIC || rc == MDB_CURSOR_FULL || rc == MDB_INCOMPATIBLE ||
		rc == MDB_BAD_TXN || rc == MDB_BAD_VALSIZE || rc == MDB_BAD_DBI;
}

static int fail(const struct store *s, int rc, const char *what, struct err *e)
{
	if (is_damage(rc))
		return store_damaged(s, rc == MDB_NOTFOUND ? "it lacks a table" : mdb_strerror(rc), e);
	if (rc > 0) {
		errno = rc;
		return err_sys(e, "cannot %s the catalog '%s'", what, s->path);
	}
	return err_set(e, ERR_SYSTEM, "cannot %s the catalog '%s': %s", what, s->path, mdb_strerror(rc));
}

int store_damaged(const struct store *s, const char *what, struct err *e)
{
	char shown[300];

	return err_set(e, ERR_SYSTEM, "the catalog '%s' is damaged, %s%s", esc_cut(shown, sizeof shown, span_cstr(s->path)),
		what ? what : "a row in it makes no sense", s->advice);
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

/* ---- what stands behind each value: a check of the row ----
 *
 * Each step is a bijection of h for one word and of the word for one h. It is there for broken disks, not against people. */

static uint64_t mix(uint64_t h, uint64_t word)
{
	h = (h ^ word) * UINT64_C(0x9e3779b97f4a7c15);
	return h ^ h >> 32;
}

static uint64_t mix_bytes(uint64_t h, const uint8_t *p, size_t n)
{
	uint64_t word;

	/* Not get_le64: there are hundreds of thousands of rows in a run. */
	for (h = mix(h, n); n >= sizeof word; n -= sizeof word, p += sizeof word) {
		memcpy(&word, p, sizeof word);
		h = mix(h, le64toh(word));
	}
	word = 0;
	if (n)
		memcpy(&word, p, n);
	return mix(h, le64toh(word));
}

static void row_check(uint8_t out[CHECK_LEN], enum store_table t, MDB_val k, const void *value, size_t n)
{
	uint64_t h = mix_bytes(mix_bytes((uint64_t)t + 1, k.mv_data, k.mv_size), value, n);

	for (size_t i = 0; i < CHECK_LEN; i++)
		out[i] = (uint8_t)(h >> 8 * i);
}

/* The value without its check. */
static int checked(const struct store *s, enum store_table t, MDB_val k, MDB_val *v, struct err *e)
{
	uint8_t want[CHECK_LEN];

	if (k.mv_size <= STORE_KEY_MAX && v->mv_size >= CHECK_LEN) {
		v->mv_size -= CHECK_LEN;
		row_check(want, t, k, v->mv_data, v->mv_size);
		if (!memcmp(want, (const uint8_t *)v->mv_data + v->mv_size, CHECK_LEN))
			return 0;
	}
	return store_damaged(s, "a row in it is not what was written", e);
}

static int disorder(const struct store *s, struct err *e) { return store_damaged(s, "its rows are out of order", e); }

/* ---- memory ---- */

static MDB_txn *seen(struct store *s)
{
	return s->write && !s->see_base ? s->write : s->read;
}

/* Finds the mapping of the file: LMDB tells its address only for fixed maps. A value that the read transaction sees lies in it for
 * certain. */
static void find_map(struct store *s)
{
	FILE *f = fopen("/proc/self/maps", "re");
	MDB_val k = val(span_cstr(table_names[0])), v;
	char line[512];

	enter(s);
	const uintptr_t p = leave(mdb_get(s->read, s->main, &k, &v)) ? 0 : (uintptr_t)v.mv_data;
	while (f && !s->map && fgets(line, sizeof line, f)) {
		unsigned long lo, hi;
		char perm[8];
		if (sscanf(line, "%lx-%lx %7s", &lo, &hi, perm) == 3 && p >= lo && p < hi && perm[3] == 's' && perm[1] == '-') {
			s->map = (void *)(uintptr_t)lo;
			s->map_len = hi - lo;
		}
	}
	if (f)
		fclose(f);
}

static void join_open(struct store *s)
{
	find_map(s);
	pthread_mutex_lock(&all_open_lock);
	s->next_open = all_open;
	all_open = s;
	pthread_mutex_unlock(&all_open_lock);
}

static void leave_open(struct store *s)
{
	pthread_mutex_lock(&all_open_lock);
	for (struct store **at = &all_open; *at; at = &(*at)->next_open)
		if (*at == s) {
			*at = s->next_open;
			break;
		}
	pthread_mutex_unlock(&all_open_lock);
}

/* A read-only shared mapping loses nothing by MADV_DONTNEED: the pages stay in the page cache (madvise(2)). All of them: most of it
 * may belong to one that nobody looks at any more, and to give back only what is in use would help for a moment, again and again. */
static void trim(struct store *s)
{
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
	pthread_mutex_lock(&all_open_lock);
	for (struct store *x = all_open; x; x = x->next_open)
		if (x->map)
			madvise(x->map, x->map_len, MADV_DONTNEED);
	pthread_mutex_unlock(&all_open_lock);
}

/* ---- what a change may touch ---- */

static int unsound(const struct store *s, struct err *e) { return store_damaged(s, "a page of it makes no sense", e); }

static bool open_pages(struct store *s)
{
	MDB_stat page;
	int fd;
	bool ok = !mdb_env_stat(s->env, &page) && !mdb_env_get_fd(s->env, &fd) && pages_open(&s->pages, fd, page.ms_psize);

	for (size_t i = 0; ok && i < STORE_TABLES; i++) {
		MDB_val k = val(span_cstr(table_names[i])), v;
		ok = mdb_get(s->read, s->main, &k, &v) == 0 && pages_tree_of(span_val(v), &s->trees[i]);
	}
	return ok;
}

/* A private file was just copied whole, or is small: it is looked at whole as well. */
static int look_before(struct store *s, struct err *e)
{
	if (!pages_are_known())
		return 0;
	pages_close(&s->pages);
	bool ok = open_pages(s) && pages_lists_are_sound(&s->pages);
	for (size_t i = 0; ok && s->mode == STORE_PRIVATE && i < STORE_TABLES; i++)
		ok = pages_tree_is_sound(&s->pages, s->trees[i].root);
	return ok ? 0 : unsound(s, e);
}

static int look_at(struct store *s, enum store_table t, struct span key, bool shrinks, struct err *e)
{
	return !s->pages.seen || pages_are_sound(&s->pages, s->trees[t].root, key, shrinks) ? 0 : unsound(s, e);
}

/* ---- transactions ---- */

static int begin_read(struct store *s, struct err *e)
{
	enter(s);
	int rc = leave(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read));

	return rc ? fail(s, rc, "read", e) : 0;
}

static int open_env(struct store *s, struct err *e)
{
	unsigned flags = MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD;
	size_t map = (size_t)1 << 40;
	int rc;

	enter(s);
	if (s->mode == STORE_READ)
		flags |= MDB_RDONLY;
	if (s->mode == STORE_PRIVATE)
		flags |= MDB_NOSYNC;
	for (;; map /= 4) { /* address space may be limited: take what there is */
		if ((rc = mdb_env_create(&s->env)))
			break;
		mdb_env_set_assert(s->env, on_assert);
		mdb_env_set_maxdbs(s->env, STORE_TABLES);
		mdb_env_set_mapsize(s->env, map);
		rc = mdb_env_open(s->env, s->path, flags, 0600);
		if (rc != ENOMEM || map < ((size_t)1 << 28))
			break;
		mdb_env_close(s->env);
		s->env = NULL;
	}
	return leave(rc) ? fail(s, rc, "open", e) : 0;
}

/* LMDB makes an empty file a new one, and finds out that one was cut short where it happens to look. */
static int look(struct store *s, struct err *e)
{
	struct stat st;

	if (stat(s->path, &st)) {
		s->is_new = s->mode != STORE_READ && errno == ENOENT;
		return s->is_new ? 0 : fail(s, errno, "open", e);
	}
	return st.st_size ? 0 : store_damaged(s, "it is empty", e);
}

/* Pages that came and went within a change are not in the file, but they are never that many. */
#define GONE_PAGES (1u << 18)

static int look_behind(const struct store *s, struct err *e)
{
	struct stat st;
	MDB_envinfo i;
	MDB_stat page;
	int fd, rc = mdb_env_info(s->env, &i);

	if (rc || (rc = mdb_env_stat(s->env, &page)) || (rc = mdb_env_get_fd(s->env, &fd)) || (rc = fstat(fd, &st) ? errno : 0))
		return fail(s, rc, "open", e);
	return i.me_last_pgno / 2 > (uint64_t)st.st_size / page.ms_psize / 2 + GONE_PAGES ? store_damaged(s, "it was cut short", e) : 0;
}

/* The first version of the file had no checks: its version stands there without one. */
static bool is_older(MDB_txn *txn, MDB_dbi facts)
{
	MDB_val k = val(span_cstr("version")), v;

	return mdb_get(txn, facts, &k, &v) == 0 && v.mv_size == 4;
}

static int open_tables(struct store *s, struct err *e)
{
	MDB_txn *txn = NULL;
	bool older = false;
	enter(s);
	int rc = mdb_txn_begin(s->env, NULL, s->is_new ? 0 : MDB_RDONLY, &txn);

	for (unsigned i = 0; !rc && i < STORE_TABLES; i++) {
		rc = mdb_dbi_open(txn, table_names[i], s->is_new ? MDB_CREATE : 0, &s->t[i]);
		/* Earlier versions had all but this. */
		older = rc == MDB_NOTFOUND && i == STORE_LOOSE;
	}
	if (!rc)
		rc = mdb_dbi_open(txn, NULL, 0, &s->main);
	if (rc == 0) {
		older = is_older(txn, s->t[STORE_FACTS]);
		rc = mdb_txn_commit(txn);
	} else if (txn) {
		mdb_txn_abort(txn);
	}
	leave(0);
	if (older)
		return err_set(e, ERR_SYSTEM, "the catalog '%s' was written by an older version of this program%s", s->path, s->advice);
	return rc ? fail(s, rc, "open", e) : 0;
}

/* Made now: where it is needed nothing can be made any more. */
static char *broken_line(const struct store *s)
{
	struct err e = {0};

	store_damaged(s, "LMDB cannot make sense of it", &e);
	return xstrdup(e.text);
}

static int begin_private(struct store *s, struct err *e)
{
	enter(s);
	int rc = leave(look_before(s, e));

	pages_close(&s->pages);
	return rc || store_begin(s, e) ? -1 : 0;
}

int store_open(struct store **out, const char *path, enum store_mode mode, const char *advice, struct err *e)
{
	struct store *s = xalloc(sizeof *s);
	AUTO_BUF struct buf text = {0};

	s->mode = mode;
	s->statm = -1;
	s->path = xstrdup(path);
	if (advice)
		buf_fmt(&text, ": %s", advice);
	s->advice = xstrdup(buf_cstr(&text));
	s->broken = broken_line(s);
	if (look(s, e) || open_env(s, e) || look_behind(s, e) || open_tables(s, e) || begin_read(s, e) || (mode == STORE_PRIVATE && begin_private(s, e))) {
		store_close(&s);
		return -1;
	}
	join_open(s);
	*out = s;
	return 0;
}

void store_close(struct store **sp)
{
	struct store *s = *sp;

	if (!s)
		return;
	leave_open(s);
	enter(s);
	if (s->write)
		mdb_txn_abort(s->write);
	if (s->read)
		mdb_txn_abort(s->read);
	if (s->env)
		mdb_env_close(s->env);
	leave(0);
	pages_close(&s->pages);
	close_fd(&s->statm);
	buf_free(&s->got);
	free(s->path);
	free(s->advice);
	free(s->broken);
	free(s);
	*sp = NULL;
}

int store_begin(struct store *s, struct err *e)
{
	assert(!s->write && s->mode != STORE_READ);
	enter(s);
	int rc = s->mode == STORE_LIVE ? look_before(s, e) : 0;
	if (leave(rc))
		return -1;
	enter(s);
	rc = leave(mdb_txn_begin(s->env, NULL, 0, &s->write));
	if (rc)
		return fail(s, rc, "change", e);
	s->ops = 0;
	s->put = 0;
	return 0;
}

static int end_write(struct store *s, struct err *e)
{
	enter(s);
	int rc = leave(mdb_txn_commit(s->write));

	s->write = NULL;
	s->see_base = false;
	pages_close(&s->pages);
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
	enter(s);
	if (s->write)
		mdb_txn_abort(s->write);
	leave(0);
	s->write = NULL;
	s->see_base = false;
	pages_close(&s->pages);
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
	/* By its name LMDB would write past the page cache, and what is worked on next would have to come from the disk. */
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return fail(s, errno, "copy", e);
	enter(s);
	int rc = leave(mdb_env_copyfd2(s->env, fd, 0));
	return rc ? fail(s, rc, "copy", e) : 0;
}

void store_see_base(struct store *s, bool base) { s->see_base = base; }
bool store_sees_base(const struct store *s) { return s->write && s->see_base; }
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
	int got = 0;

	enter(s);
	int rc = mdb_get(seen(s), s->t[t], &k, &v);
	if (!rc) {
		got = checked(s, t, k, &v, e) ? -1 : 1;
		if (got == 1)
			hand_out(s, (MDB_val){0}, v, NULL, value);
	}
	return leave(rc) && rc != MDB_NOTFOUND ? fail(s, rc, "read", e) : got;
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

	enter(s);
	int rc = mdb_cursor_open(seen(s), s->t[t], &cur);
	if (leave(rc))
		return fail(s, rc, "read", e);
	enter(s);
	rc = mdb_cursor_get(cur, &k, &v, from.len ? MDB_SET_RANGE : MDB_FIRST);
	if (!rc && span_cmp(span_val(k), from) < 0)
		got = disorder(s, e);
	else if (!rc && is_of(k, from, n_same))
		got = checked(s, t, k, &v, e) ? -1 : 1;
	if (got == 1)
		hand_out(s, k, v, key, value);
	mdb_cursor_close(cur);
	return leave(rc) && rc != MDB_NOTFOUND ? fail(s, rc, "read", e) : got;
}

bool store_asks(const struct store *s) { return s->mode != STORE_PRIVATE && pages_are_known(); }

void store_ahead(struct store *s, enum store_table t, const struct span *keys, size_t n, bool shrinks)
{
	if (!store_asks(s))
		return;
	enter(s);
	if (s->pages.seen || open_pages(s))
		pages_ahead(&s->pages, &s->trees[t], keys, n, shrinks);
	leave(0);
}

int store_count(struct store *s, enum store_table t, uint64_t *rows, struct err *e)
{
	MDB_stat st = {0};
	enter(s);
	int rc = leave(mdb_stat(seen(s), s->t[t], &st));

	if (rc)
		return fail(s, rc, "read", e);
	*rows = st.ms_entries;
	return 0;
}

uint64_t store_writes(const struct store *s) { return s->writes; }

uint64_t store_held(const struct store *s)
{
	/* Where nothing is known of pages: a row changes one, as a rule. */
	return s->put + (s->pages.seen ? s->pages.n_seen * s->pages.page : s->ops * (uint64_t)sysconf(_SC_PAGESIZE));
}

/* Rows were written: let a private store breathe. */
static int changed(struct store *s, unsigned n, struct err *e)
{
	s->writes += n;
	s->ops += n;
	return s->mode == STORE_PRIVATE && s->ops >= BATCH_OPS ? store_commit(s, e) : 0;
}

int store_put(struct store *s, enum store_table t, struct span key, struct span value, struct err *e)
{
	MDB_val k = val(key), v = {value.len + CHECK_LEN, NULL};

	assert(s->write);
	enter(s);
	int rc = look_at(s, t, key, false, e);
	if (rc)
		return leave(rc);
	rc = mdb_put(s->write, s->t[t], &k, &v, MDB_RESERVE);
	if (!rc) {
		if (value.len)
			memcpy(v.mv_data, value.p, value.len);
		row_check((uint8_t *)v.mv_data + value.len, t, k, value.p, value.len);
	}
	s->put += key.len + value.len;
	if (value.len > OWN_PAGE)
		s->ops += BATCH_PAGE - 1;
	return leave(rc) ? fail(s, rc, "write", e) : changed(s, 1, e);
}

int store_del(struct store *s, enum store_table t, struct span key, struct err *e)
{
	MDB_val k = val(key);

	assert(s->write);
	enter(s);
	if (look_at(s, t, key, true, e))
		return leave(-1);
	int rc = leave(mdb_del(s->write, s->t[t], &k, NULL));
	if (rc == MDB_NOTFOUND)
		return 0;
	return rc ? fail(s, rc, "write", e) : changed(s, 1, e);
}

/* Up to so many rows. last: the key of the one deleted last, to see that it goes on. */
#define DELETES 512u

static int del_some(struct store *s, enum store_table t, struct span from, size_t n_same, struct buf *last, unsigned *n, struct err *e)
{
	MDB_val k = val(from), v;
	MDB_cursor *cur;
	bool ok = true;
	int rc = mdb_cursor_open(s->write, s->t[t], &cur);

	if (rc)
		return fail(s, rc, "write", e);
	rc = mdb_cursor_get(cur, &k, &v, from.len ? MDB_SET_RANGE : MDB_FIRST);
	for (*n = 0; !rc && *n < DELETES && is_of(k, from, n_same); ++*n) {
		ok = last->len ? span_cmp(span_val(k), span_of(last->p, last->len)) > 0 : span_cmp(span_val(k), from) >= 0;
		if (!ok)
			break;
		buf_reset(last);
		buf_add(last, k.mv_data, k.mv_size);
		ok = !look_at(s, t, span_of(last->p, last->len), true, e);
		if (!ok)
			break;
		rc = mdb_cursor_del(cur, 0);
		if (!rc)
			rc = mdb_cursor_get(cur, &k, &v, MDB_GET_CURRENT);
		if (rc == EINVAL) /* the cursor stands behind the last row */
			rc = MDB_NOTFOUND;
	}
	mdb_cursor_close(cur);
	if (!ok)
		return disorder(s, e);
	return rc && rc != MDB_NOTFOUND ? fail(s, rc, "write", e) : 0;
}

int store_del_from(struct store *s, enum store_table t, struct span from, size_t n_same, struct err *e)
{
	AUTO_BUF struct buf last = {0};
	unsigned n = DELETES;

	assert(s->write);
	while (n == DELETES) {
		enter(s);
		int rc = leave(del_some(s, t, from, n_same, &last, &n, e));
		if (rc || changed(s, n, e))
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

/* The rows from the cursor's on into the batch. last: where the last of them begins in it. 0, or an error of LMDB; *ok: they are
 * what was written. */
static int fill(struct store_walk *w, MDB_cursor *cur, size_t *last, bool *ok, struct err *e)
{
	struct span before = span_of(w->from.p, w->from.len);
	MDB_val k = val(before), v;
	int rc = mdb_cursor_get(cur, &k, &v, before.len ? MDB_SET_RANGE : MDB_FIRST);

	if (!rc && w->is_behind && span_eq(span_val(k), before))
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	for (unsigned i = 0; !rc && is_of(k, span_of(w->from.p, w->from.len), w->n_same); i++) {
		int cmp = span_cmp(span_val(k), before);
		*ok = cmp > 0 || (cmp == 0 && !i && !w->is_behind) ? !checked(w->s, w->t, k, &v, e) : disorder(w->s, e) == 0;
		if (!*ok)
			return 0;
		if (i == w->want || w->batch.len > AHEAD_BYTES) {
			w->is_over = false;
			return 0;
		}
		*last = w->batch.len;
		wr_str(&w->batch, k.mv_data, k.mv_size);
		wr_str(&w->batch, v.mv_data, v.mv_size);
		before = span_of(w->batch.p + *last + 4, k.mv_size);
		trim(w->s);
		rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT);
	}
	return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Copies the next rows out, so that no cursor outlives a call (a private store may commit in between). */
static int read_ahead(struct store_walk *w, struct err *e)
{
	struct store *s = w->s;
	MDB_cursor *cur;
	size_t last = 0;
	bool ok = true;

	buf_reset(&w->batch);
	w->at = 0;
	w->is_over = true;
	enter(s);
	int rc = mdb_cursor_open(seen(s), s->t[w->t], &cur);
	if (leave(rc))
		return fail(s, rc, "read", e);
	w->want = w->want ? w->want * 4 : 16;
	if (w->want > AHEAD_ROWS)
		w->want = AHEAD_ROWS;
	enter(s);
	rc = fill(w, cur, &last, &ok, e);
	mdb_cursor_close(cur);
	leave(0);
	if (rc || !ok)
		return rc ? fail(s, rc, "read", e) : -1;
	if (!w->is_over) {
		struct rd r = rd_of(w->batch.p + last, w->batch.len - last);
		struct span key = rd_str(&r, STORE_KEY_MAX);
		buf_reset(&w->from);
		buf_add(&w->from, key.p, key.len);
		w->is_behind = true;
	}
	return 0;
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
