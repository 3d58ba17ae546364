#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../lib/facts.h"
#include "batches.h"
#include "path.h"
#include "unit.h"

/* A tree, and a journal beside it. */
struct place {
	char top[200], dir[256], tree[256];
	int fd;
};

static void open_place(struct place *p)
{
	AUTO_FREE char *real = NULL;

	p->fd = unit_tmpdir(p->top, sizeof p->top);
	real = realpath(p->top, NULL);
	CHECK(real && strlen(real) < sizeof p->top);
	snprintf(p->top, sizeof p->top, "%s", real ? real : "/");
	snprintf(p->dir, sizeof p->dir, "%s/journal", p->top);
	snprintf(p->tree, sizeof p->tree, "%s/tree", p->top);
	CHECK(!mkdir(p->tree, 0700));
}

static void close_place(struct place *p)
{
	struct err e = {0};
	const char *name = strrchr(p->top, '/') + 1;
	int fd = openat(p->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	close_fd(&p->fd);
	CHECK_OK(path_remove(fd, name, &e), e);
	close_fd(&fd);
}

static void start(struct journal *j, const struct place *p)
{
	const char *root = p->tree;
	struct err e = {0};

	*j = JOURNAL_NONE;
	CHECK_OK(journal_create(j, p->dir, &root, 1, &e), e);
}

static void enter_path(struct changes_out *c, const char *path)
{
	while (*path == '/') {
		size_t n = strcspn(path + 1, "/");
		changes_enter(c, span_of(path + 1, n), 0);
		path += n + 1;
	}
}

/* One batch of these names in the tree, in order. */
static void put_batch(struct journal *j, const struct place *p, const char *const *names, size_t n)
{
	struct journal_batch b = {.fd = -1};
	struct err e = {0};

	CHECK_OK(journal_begin_batch(j, &b, 1000, &e), e);
	enter_path(&b.out, p->tree);
	for (size_t i = 0; i < n; i++)
		CHECK_OK(changes_put(&b.out, CHANGED_CONTENT, span_cstr(names[i]), &e), e);
	uint64_t seq = b.seq;
	CHECK_OK(journal_end_batch(j, &b, &e), e);
	CHECK(j->last == seq && b.fd == -1);
}

#define BATCH(j, p, ...) \
	do { \
		const char *const names[] = {__VA_ARGS__}; \
		put_batch(j, p, names, sizeof names / sizeof *names); \
	} while (0)

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		buf_add(ctx, v[i].p, v[i].len);
	return 0;
}

struct listed {
	int got;
	char reason[JOURNAL_REASON];
	struct facts facts;
	bool is_clean; /* nothing was written when it could not tell */
};

static struct listed list(struct journal *j, const uint8_t *uuid, uint64_t after, uint64_t upto, const struct r_member *m, size_t n)
{
	struct listed l = {.is_clean = true};
	AUTO_BUF struct buf b = {0};
	struct stream_out o = {.sink = into_buf, .ctx = &b};
	struct changes_out c = {.o = &o};
	struct record end = {.type = REC_END};
	struct err e = {0};

	CHECK_OK(stream_begin(&o, KIND_CHANGE, &e), e);
	size_t before = b.len;
	l.got = journal_list(j, uuid, after, upto, m, n, &c, l.reason, &e);
	CHECK(l.got >= 0);
	if (l.got == 0)
		l.is_clean = b.len == before && !c.n && l.reason[0];
	changes_free(&c);
	CHECK_OK(stream_put(&o, &end, &e) || stream_finish(&o, &e), e);
	stream_out_free(&o);
	CHECK(facts_read(&l.facts, span_of(b.p, b.len)) && l.facts.is_ordered);
	return l;
}

static bool says(const struct facts *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->v[i].path, path))
			return true;
	return false;
}

/* Batches after+1 to upto of the whole tree. */
static struct listed list_tree(const struct place *p, uint64_t after, uint64_t upto)
{
	struct journal j = JOURNAL_NONE;
	const struct r_member m = {.kind = 1, .path = span_cstr(p->tree)};
	struct listed l = {.is_clean = true};

	if (!journal_open(&j, p->dir, l.reason))
		return l;
	l = list(&j, j.uuid, after, upto, &m, 1);
	journal_close(&j);
	return l;
}

static bool cannot_tell(const struct place *p, uint64_t after, uint64_t upto, const char *why)
{
	struct listed l = list_tree(p, after, upto);
	bool good = l.got == 0 && l.is_clean && strstr(l.reason, why);

	if (!good)
		fprintf(stderr, "\tgot %d, '%s', not '%s'\n", l.got, l.reason, why);
	facts_free(&l.facts);
	return good;
}

static void batch_path(char out[512], const struct place *p, uint64_t first, uint64_t last)
{
	char name[BATCHES_NAME];

	batches_name(name, first, last);
	snprintf(out, 512, "%s/batches/%s", p->dir, name);
}

static size_t read_file(const char *path, uint8_t *out, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, room);

	close_fd(&fd);
	CHECK(n > 0);
	return n > 0 ? (size_t)n : 0;
}

static void write_file(const char *path, const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close_fd(&fd);
}

/* ---- the directory ---- */

static void test_directory(void)
{
	static const char *const roots[] = {"/", "/srv/a\nb", "/srv/it's \\ \xff"};
	struct place p;
	struct journal j = JOURNAL_NONE, again = JOURNAL_NONE;
	char reason[JOURNAL_REASON], path[512];
	struct err e = {0};
	struct stat st;

	open_place(&p);
	CHECK(!journal_open(&j, p.dir, reason) && strstr(reason, "no journal"));
	CHECK_OK(journal_create(&j, p.dir, roots, 3, &e), e);
	CHECK(!stat(p.dir, &st) && (st.st_mode & 07777) == 0700);
	CHECK(journal_open(&again, p.dir, reason));
	CHECK(again.n_roots == 3 && !memcmp(again.uuid, j.uuid, 16) && again.lock == -1);
	for (size_t i = 0; i < again.n_roots; i++)
		CHECK_EQ_STR(again.roots[i], roots[i]);
	journal_close(&again);
	journal_close(&again);
	/* One at a time. */
	CHECK(journal_create(&again, p.dir, roots, 1, &e) == -1 && e.kind == ERR_BUSY && strstr(e.text, "process "));
	CHECK(again.dir == -1);
	/* The next one takes it over, and keeps nothing. */
	BATCH(&j, &p, "a");
	BATCH(&j, &p, "b");
	char name[] = "0123456789abcdef0123456789abcdef";
	e = (struct err){0};
	CHECK_OK(journal_consumer_set(&j, name, j.uuid, 1, &e), e);
	snprintf(path, sizeof path, "%s/batches/other", p.dir);
	write_file(path, "x", 1);
	uint8_t uuid[16];
	memcpy(uuid, j.uuid, 16);
	journal_close(&j);
	start(&j, &p);
	CHECK(memcmp(uuid, j.uuid, 16) && j.last == 0 && j.n_roots == 1);
	CHECK(!access(path, F_OK));
	batch_path(path, &p, 1, 1);
	CHECK(access(path, F_OK));
	snprintf(path, sizeof path, "%s/consumers/%s", p.dir, name);
	CHECK(access(path, F_OK));
	/* Also when it is damaged, or was begun and not finished. */
	journal_close(&j);
	snprintf(path, sizeof path, "%s/journal", p.dir);
	write_file(path, "damaged", 7);
	CHECK(!journal_open(&again, p.dir, reason) && strstr(reason, "damaged"));
	start(&j, &p);
	journal_close(&j);
	CHECK(!unlink(path));
	start(&j, &p);
	journal_close(&j);
	/* What is something else stays what it is. */
	const char *root = p.tree;
	snprintf(path, sizeof path, "%s/file", p.tree);
	write_file(path, "precious", 8);
	CHECK(journal_create(&j, p.tree, &root, 1, &e) == -1 && e.kind == ERR_USAGE && strstr(e.text, "not a journal"));
	snprintf(path, sizeof path, "%s/lock", p.tree);
	CHECK(access(path, F_OK));
	e = (struct err){0};
	snprintf(path, sizeof path, "%s/file", p.tree);
	CHECK(journal_create(&j, path, &root, 1, &e) == -1 && e.kind == ERR_SYSTEM);
	close_place(&p);
}

static void test_marker(void)
{
	struct place p;
	struct journal j;
	char reason[JOURNAL_REASON], path[512];
	uint8_t bytes[4096];

	open_place(&p);
	start(&j, &p);
	journal_close(&j);
	snprintf(path, sizeof path, "%s/journal", p.dir);
	size_t n = read_file(path, bytes, sizeof bytes);
	for (size_t i = 0; i < n; i++) {
		bytes[i] ^= 1;
		write_file(path, bytes, n);
		CHECK(!journal_open(&j, p.dir, reason) && strstr(reason, "damaged"));
		bytes[i] ^= 1;
		write_file(path, bytes, i);
		CHECK(!journal_open(&j, p.dir, reason) && strstr(reason, "damaged"));
	}
	write_file(path, bytes, n);
	CHECK(journal_open(&j, p.dir, reason));
	journal_close(&j);
	CHECK(!unlink(path) && !symlink("elsewhere", path));
	CHECK(!journal_open(&j, p.dir, reason) && strstr(reason, "damaged"));
	close_place(&p);
}

/* ---- lists ---- */

static void test_list(void)
{
	struct place p;
	struct journal j;
	struct listed l;
	uint8_t other[16] = {1};
	char path[512];

	open_place(&p);
	start(&j, &p);
	BATCH(&j, &p, "a", "b");
	BATCH(&j, &p, "b", "c");
	BATCH(&j, &p, "d");
	l = list_tree(&p, 0, 3);
	CHECK(l.got == 1 && l.facts.n == 4 && says(&l.facts, "a") && says(&l.facts, "d"));
	facts_free(&l.facts);
	l = list_tree(&p, 1, 3);
	CHECK(l.got == 1 && l.facts.n == 3 && !says(&l.facts, "a"));
	facts_free(&l.facts);
	l = list_tree(&p, 1, 2);
	CHECK(l.got == 1 && l.facts.n == 2 && !says(&l.facts, "d"));
	facts_free(&l.facts);
	l = list_tree(&p, 3, 3);
	CHECK(l.got == 1 && !l.facts.n);
	facts_free(&l.facts);
	CHECK(cannot_tell(&p, 4, 3, "ends before"));
	CHECK(cannot_tell(&p, 2, 5, "batch 4 of the journal is missing"));
	CHECK(cannot_tell(&p, 0, UINT64_MAX, "batch 4 of the journal is missing"));
	/* Everything, as it is. */
	l = list(&j, j.uuid, 0, 3, NULL, 0);
	snprintf(path, sizeof path, "%s/a", p.tree + 1);
	CHECK(l.got == 1 && says(&l.facts, path) && says(&l.facts, "tmp") == !strncmp(p.tree, "/tmp/", 5));
	facts_free(&l.facts);
	/* Somebody else's place. */
	const struct r_member tree = {.kind = 1, .path = span_cstr(p.tree)};
	l = list(&j, other, 0, 3, &tree, 1);
	CHECK(!l.got && l.is_clean && strstr(l.reason, "anew"));
	facts_free(&l.facts);
	/* Trees that are in none of the recorded ones; ways that are not the real ones. */
	char sub[512], file[512], link[512], dots[600];
	snprintf(sub, sizeof sub, "%s/b", p.tree);
	snprintf(file, sizeof file, "%s/c", p.tree);
	snprintf(link, sizeof link, "%s/link", p.tree);
	snprintf(dots, sizeof dots, "%s/b/.", p.tree);
	CHECK(!mkdir(sub, 0700) && !symlink("b", link));
	const char *const wrong[] = {p.top, "/", dots, link, "/no/such/tree", "tree", ""};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct r_member m = {.kind = 1, .path = span_cstr(wrong[i])};
		l = list(&j, j.uuid, 0, 3, &m, 1);
		if (!CHECK(!l.got && l.is_clean && (strstr(l.reason, "not recorded") || strstr(l.reason, "not the real path"))))
			fprintf(stderr, "\t%s: %s\n", wrong[i], l.reason);
		facts_free(&l.facts);
	}
	/* A tree in the tree, of which it is said that it changed itself; two at a time. */
	struct r_member m = {.kind = 1, .path = span_cstr(sub)};
	l = list(&j, j.uuid, 0, 3, &m, 1);
	CHECK(l.got == 1 && l.facts.n == 1 && says(&l.facts, "") && !l.facts.v[0].is_whole);
	facts_free(&l.facts);
	const struct r_member two[] = {
		{.kind = 1, .name = span_cstr("inner"), .path = span_cstr(sub)},
		{.kind = 1, .name = span_cstr("outer"), .path = span_cstr(p.tree)},
	};
	l = list(&j, j.uuid, 0, 3, two, 2);
	CHECK(l.got == 1 && l.facts.n == 6 && says(&l.facts, "inner") && says(&l.facts, "outer/a") && says(&l.facts, "outer/b"));
	facts_free(&l.facts);
	journal_close(&j);
	close_place(&p);
}

/* What is wrong with a batch is found, and nothing gets out. */
static void test_damage(void)
{
	struct place p, q;
	struct journal j, other;
	char path[512], second[512], third[512], from[512];
	uint8_t bytes[4096], foreign[4096];

	open_place(&p);
	open_place(&q);
	start(&j, &p);
	start(&other, &q);
	BATCH(&j, &p, "a", "b");
	BATCH(&j, &p, "c");
	BATCH(&j, &p, "d");
	BATCH(&other, &q, "a", "b");
	BATCH(&other, &q, "c");
	batch_path(path, &p, 1, 1);
	batch_path(second, &p, 2, 2);
	batch_path(third, &p, 3, 3);
	size_t n = read_file(second, bytes, sizeof bytes);
	for (size_t i = 0; i < n; i++) {
		bytes[i] ^= 0x40;
		write_file(second, bytes, n);
		CHECK(cannot_tell(&p, 0, 3, "0000000000000002"));
		bytes[i] ^= 0x40;
		write_file(second, bytes, i);
		CHECK(cannot_tell(&p, 0, 3, "0000000000000002"));
	}
	/* Who does not need it does not care. */
	struct listed l = list_tree(&p, 2, 3);
	CHECK(l.got == 1 && l.facts.n == 1);
	facts_free(&l.facts);
	/* Something behind it. */
	write_file(second, bytes, n);
	int fd = open(second, O_WRONLY | O_APPEND | O_CLOEXEC);
	CHECK(write(fd, bytes, n) == (ssize_t)n);
	close_fd(&fd);
	CHECK(cannot_tell(&p, 0, 3, "another stream"));
	/* Gone; a directory, a link, a fifo in its place. */
	CHECK(!unlink(second));
	CHECK(cannot_tell(&p, 0, 3, "batch 2 of the journal is missing"));
	CHECK(!mkdir(second, 0700) && cannot_tell(&p, 0, 3, "0000000000000002") && !rmdir(second));
	CHECK(!symlink(third, second) && cannot_tell(&p, 0, 3, "0000000000000002") && !unlink(second));
	CHECK(!mkfifo(second, 0600) && cannot_tell(&p, 0, 3, "0000000000000002") && !unlink(second));
	/* Another one under its name; one that claims to be more. */
	CHECK(!link(third, second) && cannot_tell(&p, 0, 3, "not what its name says") && !unlink(second));
	batch_path(from, &p, 2, 3);
	CHECK(!rename(third, from) && cannot_tell(&p, 0, 3, "not what its name says"));
	CHECK(!rename(from, third));
	/* Of another journal. */
	batch_path(from, &q, 2, 2);
	size_t n_foreign = read_file(from, foreign, sizeof foreign);
	write_file(second, foreign, n_foreign);
	CHECK(cannot_tell(&p, 0, 3, "another journal"));
	write_file(second, bytes, n);
	l = list_tree(&p, 0, 3);
	CHECK(l.got == 1 && l.facts.n == 4);
	facts_free(&l.facts);
	/* Names are taken as they are or not at all. */
	static const char *const names[] = {"2-2.repl", "0000000000000002-0000000000000002", "0000000000000002-0000000000000002.repl~",
		"000000000000002x-0000000000000002.repl", " 000000000000002-0000000000000002.repl",
		"0000000000000003-0000000000000002.repl", "0000000000000000-0000000000000002.repl",
		"0000000000000002_0000000000000002.repl", "0000000000000002-0000000000000002.REPL", ""};
	struct batch b;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		CHECK(!batches_parse(names[i], &b));
	CHECK(batches_parse("0000000000000002-9999999999999999.repl", &b) && b.first == 2 && b.last == UINT64_C(9999999999999999));
	journal_close(&j);
	journal_close(&other);
	close_place(&p);
	close_place(&q);
}

static void test_writing(void)
{
	struct place p;
	struct journal j;
	struct journal_batch b = {.fd = -1};
	struct err e = {0};
	char path[512];

	open_place(&p);
	start(&j, &p);
	journal_drop_batch(&j, &b);
	/* One that is given up leaves nothing, and its number is used again. */
	CHECK_OK(journal_begin_batch(&j, &b, 0, &e), e);
	CHECK_OK(changes_gap(&b.out, span_cstr("lost"), &e), e);
	journal_drop_batch(&j, &b);
	journal_drop_batch(&j, &b);
	CHECK(j.last == 0);
	snprintf(path, sizeof path, "%s/batches/new", p.dir);
	CHECK(access(path, F_OK));
	CHECK_OK(journal_begin_batch(&j, &b, 0, &e), e);
	CHECK(b.seq == 1);
	CHECK_OK(changes_gap(&b.out, span_cstr("lost"), &e), e);
	CHECK_OK(journal_end_batch(&j, &b, &e), e);
	struct listed l = list_tree(&p, 0, 1);
	CHECK(l.got == 1 && l.facts.n == 1 && l.facts.v[0].is_whole);
	facts_free(&l.facts);
	/* A directory that cannot take one. */
	CHECK_OK(journal_begin_batch(&j, &b, 0, &e), e);
	snprintf(path, sizeof path, "%s/batches/0000000000000002-0000000000000002.repl", p.dir);
	CHECK(!mkdir(path, 0700));
	CHECK(journal_end_batch(&j, &b, &e) == -1 && e.kind == ERR_SYSTEM && j.last == 1 && b.fd == -1);
	CHECK(!rmdir(path));
	journal_close(&j);
	close_place(&p);
}

/* ---- tending ---- */

static void consumer(struct journal *j, unsigned no, uint64_t seq)
{
	char name[33];
	struct err e = {0};

	snprintf(name, sizeof name, "%032x", no);
	CHECK_OK(journal_consumer_set(j, name, j->uuid, seq, &e), e);
}

static void tend(struct journal *j, uint64_t limit, int want)
{
	struct err e = {0};
	int got = journal_tend(j, limit, &e);

	if (!CHECK(got == want))
		fprintf(stderr, "\t%d: %s\n", got, e.text);
}

static void test_trim(void)
{
	static const char *const damaged[] = {"", "\n", "x\n", "%s 9", "%s\n", "%s  9\n", "%s 9\n\n", "%s +9\n", "%s 9x\n", " %s 9\n",
		"%s 99999999999999999999\n", "%s -9\n"};
	struct place p;
	struct journal j;
	struct err e = {0};
	char path[512], text[128], id[33];

	open_place(&p);
	start(&j, &p);
	for (int i = 0; i < 10; i++)
		BATCH(&j, &p, "a");
	/* Nobody reads: then nobody has read it. */
	tend(&j, 0, 1);
	CHECK(j.tended.files == 10 && !j.tended.trimmed && !j.tended.consumers);
	consumer(&j, 1, 7);
	consumer(&j, 2, 4);
	/* Of another journal, and damaged ones. */
	uint8_t other[16] = {9};
	CHECK_OK(journal_consumer_set(&j, "000000000000000000000000000000aa", other, 1, &e), e);
	hex(id, j.uuid, 16);
	snprintf(path, sizeof path, "%s/consumers/000000000000000000000000000000bb", p.dir);
	for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
		const char *at = strstr(damaged[i], "%s");
		int n = at ? snprintf(text, sizeof text, "%.*s%s%s", (int)(at - damaged[i]), damaged[i], id, at + 2) :
			snprintf(text, sizeof text, "%s", damaged[i]);
		write_file(path, text, (size_t)n);
		tend(&j, 0, 1);
		CHECK(j.tended.consumers == 2 && j.tended.slowest == 4);
	}
	CHECK(j.tended.files == 6);
	CHECK(cannot_tell(&p, 3, 10, "batch 4 of the journal is missing"));
	struct listed l = list_tree(&p, 4, 10);
	CHECK(l.got == 1);
	facts_free(&l.facts);
	CHECK_OK(journal_consumer_drop(&j, "00000000000000000000000000000002", &e), e);
	CHECK_OK(journal_consumer_drop(&j, "00000000000000000000000000000002", &e), e);
	/* Not while a reader is at work. */
	int fd = open(p.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), batches = openat(fd, "batches", O_RDONLY | O_CLOEXEC);
	CHECK(!flock(batches, LOCK_SH));
	tend(&j, 0, 0);
	CHECK(j.tended.files == 6 && !j.tended.trimmed);
	CHECK(!flock(batches, LOCK_UN));
	close_fd(&batches);
	close_fd(&fd);
	tend(&j, 0, 1);
	CHECK(j.tended.files == 3 && j.tended.trimmed == 3 && j.tended.slowest == 7);
	consumer(&j, 1, 10);
	tend(&j, 0, 1);
	CHECK(!j.tended.files && !j.tended.bytes);
	journal_close(&j);
	close_place(&p);
}

static void test_limit(void)
{
	struct place p;
	struct journal j;
	char many[200][24];
	const char *names[200];

	open_place(&p);
	start(&j, &p);
	consumer(&j, 1, 0);
	for (size_t i = 0; i < 200; i++)
		names[i] = many[i];
	/* The same names again and again take their place once. */
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 200; k++)
			snprintf(many[k], sizeof many[k], "name-%06d", k);
		put_batch(&j, &p, names, 200);
		tend(&j, 20000, 1);
		CHECK(j.tended.bytes <= 20000 && !j.tended.dropped);
	}
	struct listed l = list_tree(&p, 0, 20);
	CHECK(l.got == 1 && l.facts.n == 200);
	facts_free(&l.facts);
	/* Other names are too much one day: the oldest go, which shows. */
	bool is_dropped = false;
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 200; k++)
			snprintf(many[k], sizeof many[k], "name-%06d", 200 * i + k);
		put_batch(&j, &p, names, 200);
		tend(&j, 20000, 1);
		CHECK(j.tended.bytes <= 20000);
		is_dropped = is_dropped || j.tended.dropped;
	}
	CHECK(is_dropped);
	CHECK(cannot_tell(&p, 0, 40, "is missing"));
	/* One that is too large by itself. */
	put_batch(&j, &p, names, 200);
	tend(&j, 100, 1);
	CHECK(!j.tended.files && cannot_tell(&p, 40, 41, "batch 41 of the journal is missing"));
	journal_close(&j);
	close_place(&p);
}

static void test_join_damage(void)
{
	struct place p;
	struct journal j;
	char path[512];

	open_place(&p);
	start(&j, &p);
	for (int i = 0; i < 33; i++)
		BATCH(&j, &p, "a");
	batch_path(path, &p, 20, 20);
	CHECK(!truncate(path, 100));
	tend(&j, 0, 1);
	CHECK(j.tended.dropped && !j.tended.joined);
	CHECK(cannot_tell(&p, 0, 33, "is missing"));
	BATCH(&j, &p, "b");
	struct listed l = list_tree(&p, 33, 34);
	CHECK(l.got == 1 && l.facts.n == 1);
	facts_free(&l.facts);
	/* A hole is not joined over. */
	for (int i = 0; i < 40; i++)
		BATCH(&j, &p, "a");
	batch_path(path, &p, 50, 50);
	CHECK(!unlink(path));
	tend(&j, 0, 1);
	CHECK(j.tended.joined && cannot_tell(&p, 33, 74, "batch 50 of the journal is missing"));
	l = list_tree(&p, 50, 74);
	CHECK(l.got == 1);
	facts_free(&l.facts);
	/* Left over from a join that could not remove them. */
	batch_path(path, &p, 74, 74);
	uint64_t files = j.tended.files;
	write_file(path, "x", 1);
	tend(&j, 0, 1);
	CHECK(j.tended.files == files && j.tended.trimmed == 1);
	journal_close(&j);
	close_place(&p);
}

/* More batches than are merged at a time. */
static void test_many(void)
{
	struct place p;
	struct journal j;
	char name[24];
	const char *names = name;

	open_place(&p);
	start(&j, &p);
	for (unsigned i = 1; i <= 200; i++) {
		snprintf(name, sizeof name, "name-%u", i);
		put_batch(&j, &p, &names, 1);
		consumer(&j, i, i);
	}
	consumer(&j, 0, 0);
	tend(&j, 0, 1);
	CHECK(j.tended.files == 200 && !j.tended.joined);
	struct listed l = list_tree(&p, 0, 200);
	CHECK(l.got == 1 && l.facts.n == 200 && says(&l.facts, "name-1") && says(&l.facts, "name-200"));
	facts_free(&l.facts);
	char path[512];
	batch_path(path, &p, 130, 130);
	CHECK(!truncate(path, 50));
	CHECK(cannot_tell(&p, 0, 200, "130"));
	journal_close(&j);
	close_place(&p);
}

/* ---- at random ---- */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33);
}

enum { NAMES = 30, BATCHES = 120, CONSUMERS = 4 };

/* What was told in each batch, a bit a name. */
struct model {
	uint32_t told[BATCHES + 1];
	uint64_t at[CONSUMERS];
	uint64_t last;
};

static void put_random(struct journal *j, const struct place *p, struct model *m, uint64_t *seed)
{
	struct journal_batch b = {.fd = -1};
	struct err e = {0};
	char name[16];
	uint32_t told = 0;

	CHECK_OK(journal_begin_batch(j, &b, 0, &e), e);
	enter_path(&b.out, p->tree);
	for (unsigned d = 0; d < NAMES / 5; d++) {
		uint32_t some = next_random(seed) & next_random(seed) & 31;
		if (!some)
			continue;
		told |= some << 5 * d;
		snprintf(name, sizeof name, "dir%u", d);
		changes_enter(&b.out, span_cstr(name), 0);
		if (some == 31 && next_random(seed) % 2) {
			CHECK_OK(changes_gap(&b.out, span_cstr("all"), &e), e);
			some = 0;
		}
		for (unsigned k = 0; k < 5; k++) {
			if (!(some >> k & 1))
				continue;
			snprintf(name, sizeof name, "name%u", k);
			CHECK_OK(changes_put(&b.out, CHANGED_META, span_cstr(name), &e), e);
		}
		changes_leave(&b.out);
	}
	m->told[++m->last] = told;
	CHECK_OK(journal_end_batch(j, &b, &e), e);
}

static bool covers(const struct facts *f, const struct model *m, uint64_t after)
{
	char path[40];

	for (uint64_t i = after + 1; i <= m->last; i++) {
		for (unsigned k = 0; k < NAMES; k++) {
			snprintf(path, sizeof path, "dir%u/name%u", k / 5, k % 5);
			struct fact x = {.path = path};
			if (m->told[i] >> k & 1 && !facts_cover(f, &x))
				return false;
		}
	}
	return true;
}

/* Whatever is joined, trimmed and dropped: a consumer hears all that it has not heard, or that it cannot be told. */
static void test_random(void)
{
	for (uint64_t start_seed = 1; start_seed <= 12; start_seed++) {
		struct place p;
		struct journal j;
		struct model m = {.last = 0};
		uint64_t seed = start_seed * UINT64_C(0x9e3779b97f4a7c15), limit = start_seed % 3 ? 0 : 30000;
		bool good = true;
		unsigned told = 0;

		open_place(&p);
		start(&j, &p);
		for (unsigned c = 0; c < CONSUMERS; c++)
			consumer(&j, c, 0);
		while (m.last < BATCHES) {
			put_random(&j, &p, &m, &seed);
			if (next_random(&seed) % 3 == 0)
				tend(&j, limit, 1);
			if (next_random(&seed) % 8)
				continue;
			unsigned c = next_random(&seed) % CONSUMERS;
			struct listed l = list_tree(&p, m.at[c], m.last);
			good = good && CHECK(l.is_clean) && CHECK(l.got ? covers(&l.facts, &m, m.at[c]) : limit != 0);
			told += l.got == 1;
			facts_free(&l.facts);
			/* Some stay where they are for long. */
			if (c) {
				m.at[c] = m.last;
				consumer(&j, c, m.last);
			}
		}
		tend(&j, limit, 1);
		good = good && CHECK(limit || j.tended.files <= 32 + 2 * CONSUMERS) && CHECK(told > 0);
		if (!good)
			fprintf(stderr, "\tseed %" PRIu64 "\n", start_seed);
		journal_close(&j);
		close_place(&p);
	}
}

/* One process writes and tends, others read: none of them is ever told less than there is, and none that it cannot be told. */
static void test_together(void)
{
	enum { READERS = 3, ROUNDS = 400 };
	struct place p;
	struct journal j;
	pid_t readers[READERS];
	int go[2];

	open_place(&p);
	start(&j, &p);
	consumer(&j, 1, 0);
	BATCH(&j, &p, "name0");
	CHECK(!pipe(go));
	fflush(NULL);
	for (int i = 0; i < READERS; i++) {
		readers[i] = fork();
		if (readers[i])
			continue;
		/* Until the writer is gone. */
		char c;
		int bad = 0;
		close(go[1]);
		fcntl(go[0], F_SETFL, O_NONBLOCK);
		for (unsigned n = 0; !bad && (n < 10 || (read(go[0], &c, 1) < 0 && errno == EAGAIN)); n++) {
			struct journal r = JOURNAL_NONE;
			uint64_t after, upto;
			char reason[JOURNAL_REASON];
			if (!journal_open(&r, p.dir, reason) || !journal_range(&r, &after, &upto, reason) || after) {
				bad = 1;
				continue;
			}
			journal_close(&r);
			struct listed l = list_tree(&p, 0, upto);
			for (uint64_t k = 0; k < min_u64(upto, 50) && !bad; k++) {
				char name[24];
				snprintf(name, sizeof name, "name%" PRIu64, k);
				bad = !says(&l.facts, name);
			}
			if (bad || l.got != 1)
				fprintf(stderr, "\treader %d, round %u, upto %" PRIu64 ": %d %s\n", i, n, upto, l.got, l.reason);
			bad = bad || l.got != 1;
			facts_free(&l.facts);
		}
		_exit(bad);
	}
	close(go[0]);
	unsigned joined = 0;
	for (unsigned n = 1; n < ROUNDS; n++) {
		char name[24];
		const char *names = name;
		struct err e = {0};
		snprintf(name, sizeof name, "name%u", n % 50);
		put_batch(&j, &p, &names, 1);
		CHECK(journal_tend(&j, 0, &e) >= 0);
		joined += j.tended.joined > 0;
	}
	CHECK(joined > 0);
	close(go[1]);
	for (int i = 0; i < READERS; i++) {
		int status = -1;
		CHECK(waitpid(readers[i], &status, 0) == readers[i] && status == 0);
	}
	journal_close(&j);
	close_place(&p);
}

int unit_journal(void)
{
	unsigned long before = unit_failures;

	test_directory();
	test_marker();
	test_list();
	test_damage();
	test_writing();
	test_trim();
	test_limit();
	test_join_damage();
	test_many();
	test_random();
	test_together();
	return (int)(unit_failures - before);
}
