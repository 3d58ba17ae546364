#include "merge.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../lib/facts.h"
#include "unit.h"

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		buf_add(ctx, v[i].p, v[i].len);
	return 0;
}

static int fd_of(const struct buf *b)
{
	int fd = memfd_create("merge", MFD_CLOEXEC);

	CHECK(fd >= 0 && write(fd, b->p, b->len) == (ssize_t)b->len && lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

/* ---- streams ---- */

static void begin(struct stream_out *o, struct buf *b, const char *const *members)
{
	static const char *const one[] = {"", NULL};
	struct err e = {0};
	struct record r = {.type = REC_IMAGE};

	*o = (struct stream_out){.sink = into_buf, .ctx = b};
	CHECK_OK(stream_begin(o, KIND_CHANGE, &e) || stream_put(o, &r, &e), e);
	for (members = members ? members : one; *members; members++) {
		r = (struct record){.type = REC_MEMBER, .u.member = {1, span_cstr(*members), span_cstr("/srv")}};
		CHECK_OK(stream_put(o, &r, &e), e);
	}
}

static void end(struct stream_out *o)
{
	struct record r = {.type = REC_END};
	struct err e = {0};

	CHECK_OK(stream_put(o, &r, &e) || stream_finish(o, &e), e);
	stream_out_free(o);
}

static struct record dir(uint64_t ref, uint64_t parent, const char *name)
{
	return (struct record){.type = REC_DIR, .u.dir = {ref, parent, span_cstr(name)}};
}

static struct record changed(uint64_t parent, uint8_t flags, const char *name)
{
	return (struct record){.type = REC_CHANGED, .u.changed = {parent, flags, span_cstr(name)}};
}

static struct record gap_in(uint64_t ref, const char *reason)
{
	return (struct record){.type = REC_GAP, .u.gap = {ref, span_cstr(reason)}};
}

static struct record region(uint64_t file)
{
	static const uint8_t rows[17] = {1};

	return (struct record){.type = REC_REGION, .u.region = {file, 4096, span_of(rows, sizeof rows)}};
}

#define LIST(b, ...) \
	do { \
		const struct record of[] = {__VA_ARGS__}; \
		make_list(b, of, sizeof of / sizeof *of); \
	} while (0)

static void make_list(struct buf *b, const struct record *r, size_t n)
{
	struct stream_out o;
	struct err e = {0};

	buf_reset(b);
	begin(&o, b, NULL);
	for (size_t i = 0; i < n; i++)
		CHECK_OK(stream_put(&o, &r[i], &e), e);
	end(&o);
}

/* ---- merging ---- */

/* 0: out holds what came of it. */
static int merge_bufs(const struct buf *in, size_t n, const char *prefix, bool by_member, struct buf *out, struct err *e)
{
	struct merge_source *s = xalloc(n * sizeof *s);
	int *fds = xalloc(n * sizeof *fds), rc = 0;
	struct stream_out o;
	struct changes_out c = {.o = &o};
	struct merge m = {.sources = s, .n = n, .prefix = span_cstr(prefix), .out = &c};

	for (size_t i = 0; i < n; i++) {
		fds[i] = fd_of(&in[i]);
		if (!rc)
			rc = merge_open(&s[i], fds[i], "list", e);
		s[i].by_member = by_member;
	}
	begin(&o, out, NULL);
	changes_enter(&c, (struct span){0}, 0);
	if (!rc)
		rc = merge_run(&m, e);
	changes_free(&c);
	end(&o);
	for (size_t i = 0; i < n; i++) {
		merge_close(&s[i]);
		close_fd(&fds[i]);
	}
	free(s);
	free(fds);
	return rc;
}

static void merged(struct facts *f, const struct buf *in, size_t n)
{
	AUTO_BUF struct buf out = {0};
	struct err e = {0};

	CHECK_OK(merge_bufs(in, n, "", false, &out, &e), e);
	*f = (struct facts){0};
	CHECK(facts_read(f, span_of(out.p, out.len)) && f->is_ordered && !facts_waste(f));
}

static const struct fact *find(struct facts *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->v[i].path, path))
			return &f->v[i];
	return NULL;
}

static bool has(struct facts *f, const char *path, uint8_t flags, bool is_whole)
{
	const struct fact *x = find(f, path);

	return x && x->flags == flags && x->is_whole == is_whole;
}

static void test_pairs(void)
{
	struct buf in[2] = {{0}, {0}};
	struct facts f;

	/* A name here, a directory there. */
	LIST(&in[0], changed(1, CHANGED_META, "d"), changed(1, CHANGED_CONTENT, "f"));
	LIST(&in[1], dir(2, 1, "d"), changed(2, CHANGED_NEW, "x"), changed(1, CHANGED_META, "f"));
	merged(&f, in, 2);
	CHECK(has(&f, "d", CHANGED_META, false) && has(&f, "d/x", CHANGED_NEW, false) &&
		has(&f, "f", CHANGED_META | CHANGED_CONTENT, false) && f.n == 3);
	facts_free(&f);
	/* The same with subtree: nothing below it. */
	LIST(&in[0], changed(1, CHANGED_NEW | CHANGED_SUBTREE, "d"));
	merged(&f, in, 2);
	CHECK(has(&f, "d", CHANGED_NEW | CHANGED_SUBTREE, true) && !find(&f, "d/x") && find(&f, "f") && f.n == 2);
	facts_free(&f);
	/* A gap there. */
	LIST(&in[0], dir(2, 1, "d"), gap_in(2, "because"), changed(2, 0, ""), changed(2, CHANGED_META, "z"));
	merged(&f, in, 2);
	CHECK(has(&f, "d", 0, true) && find(&f, "f") && f.n == 2);
	facts_free(&f);
	/* The directory itself, in both ways to say it. */
	LIST(&in[0], dir(2, 1, "d"), changed(2, CHANGED_META, ""), changed(2, CHANGED_GONE, ""), dir(3, 2, "e"));
	merged(&f, in, 2);
	CHECK(has(&f, "d", CHANGED_META | CHANGED_GONE, false) && has(&f, "d/e", 0, false) && find(&f, "d/x"));
	facts_free(&f);
	/* The root, and a gap of it. */
	LIST(&in[0], changed(1, CHANGED_META, ""));
	merged(&f, in, 2);
	CHECK(has(&f, "", CHANGED_META, false) && find(&f, "d/x") && f.n == 4);
	facts_free(&f);
	LIST(&in[0], gap_in(1, "because"), changed(1, CHANGED_META, "a"));
	merged(&f, in, 2);
	CHECK(has(&f, "", 0, true) && f.n == 1);
	facts_free(&f);
	/* Nothing in one of them; in both; in none. */
	LIST(&in[0], changed(1, CHANGED_META, "a"));
	make_list(&in[1], NULL, 0);
	merged(&f, in, 2);
	CHECK(has(&f, "a", CHANGED_META, false) && f.n == 1);
	facts_free(&f);
	merged(&f, &in[1], 1);
	CHECK(!f.n);
	facts_free(&f);
	merged(&f, in, 0);
	CHECK(!f.n);
	facts_free(&f);
	/* Names that begin alike. */
	LIST(&in[0], dir(2, 1, "a"), changed(2, 1, "z"), dir(3, 1, "a.b"), changed(3, 1, "z"));
	LIST(&in[1], dir(2, 1, "a"), changed(2, 1, "y"), changed(1, 1, "a-b"), dir(3, 1, "ab"), changed(3, 1, "z"));
	merged(&f, in, 2);
	CHECK(f.n == 8 && find(&f, "a/z") && find(&f, "a/y") && find(&f, "a.b/z") && find(&f, "ab/z") && find(&f, "a-b"));
	facts_free(&f);
	buf_free(&in[0]);
	buf_free(&in[1]);
}

/* Block numbers stay where one input alone speaks of the name, and are numbered anew. */
static void test_regions(void)
{
	struct buf in[2] = {{0}, {0}};
	AUTO_BUF struct buf out = {0};
	struct stream_in s = {0};
	struct err e = {0};
	uint64_t n = 0, files[4] = {0};
	size_t room, n_files = 0;
	int got;

	LIST(&in[0], changed(1, 4, "a"), region(0), changed(1, 4, "b"), region(1), changed(1, 4, "d"), region(2), region(2),
		changed(1, 4, "e"), region(0));
	LIST(&in[1], changed(1, 4, "a"), dir(2, 1, "b"), changed(2, 4, "x"), region(1), changed(1, 4, "c"));
	CHECK_OK(merge_bufs(in, 2, "", false, &out, &e), e);
	memcpy(stream_space(&s, out.len, &room), out.p, out.len);
	stream_fed(&s, out.len);
	while ((got = stream_next(&s, &e)) > 0 && got != STREAM_END) {
		if (got == STREAM_RECORD && s.rec.type == REC_CHANGED)
			n++;
		if (got == STREAM_RECORD && s.rec.type == REC_REGION) {
			CHECK(s.rec.u.region.file == n - 1 && s.rec.u.region.grain == 4096 && s.rec.u.region.rows.len == 17);
			if (n_files < 4)
				files[n_files++] = s.rec.u.region.file;
		}
	}
	/* a, b itself, b/x, c, d, e: b/x of the second list, d twice. */
	CHECK(n_files == 3 && files[0] == 2 && files[1] == 4 && files[2] == 4);
	stream_in_free(&s);
	buf_free(&in[0]);
	buf_free(&in[1]);
}

static void test_deep(void)
{
	enum { DEEP = 6000 };
	struct buf in[3] = {{0}, {0}, {0}};
	AUTO_BUF struct buf out = {0};
	struct stream_in s = {0};
	struct err e = {0};
	size_t room, n_dirs = 0, n_names = 0;
	int got;

	for (int k = 0; k < 2; k++) {
		struct stream_out o;
		struct changes_out c = {.o = &o};
		begin(&o, &in[k], NULL);
		changes_enter(&c, (struct span){0}, 0);
		for (int i = 0; i < DEEP; i++)
			changes_enter(&c, span_cstr("d"), 0);
		CHECK_OK(changes_put(&c, CHANGED_NEW, span_cstr(k ? "x" : "y"), &e), e);
		for (int i = 0; i < DEEP; i++) {
			changes_leave(&c);
			if (i % 2 == k)
				CHECK_OK(changes_put(&c, CHANGED_META, span_cstr("e"), &e), e);
		}
		changes_free(&c);
		end(&o);
	}
	make_list(&in[2], NULL, 0);
	CHECK_OK(merge_bufs(in, 3, "", false, &out, &e), e);
	memcpy(stream_space(&s, out.len, &room), out.p, out.len);
	stream_fed(&s, out.len);
	while ((got = stream_next(&s, &e)) > 0 && got != STREAM_END) {
		n_dirs += got == STREAM_RECORD && s.rec.type == REC_DIR;
		n_names += got == STREAM_RECORD && s.rec.type == REC_CHANGED;
	}
	CHECK(got == STREAM_END && n_dirs == DEEP && n_names == DEEP + 2);
	stream_in_free(&s);
	for (int k = 0; k < 3; k++)
		buf_free(&in[k]);
}

/* ---- what is refused ---- */

static void refused(const struct buf *bad, const char *what)
{
	AUTO_BUF struct buf good = {0}, out = {0};

	LIST(&good, dir(2, 1, "d"), changed(2, 1, "x"));
	/* Alone, and where the other one swallows it or not. */
	for (int i = 0; i < 3; i++) {
		struct buf in[2] = {*bad, good};
		struct err e = {0};
		if (i == 2)
			LIST(&good, gap_in(1, "all"));
		in[1] = good;
		buf_reset(&out);
		int rc = merge_bufs(in, i ? 2 : 1, "", false, &out, &e);
		if (!CHECK(rc == -1 && e.kind == ERR_STREAM && strstr(e.text, "'list': ") == e.text))
			fprintf(stderr, "\t%s, %d: %s\n", what, i, e.text);
	}
}

#define REFUSED(...) \
	do { \
		AUTO_BUF struct buf bad = {0}; \
		LIST(&bad, __VA_ARGS__); \
		refused(&bad, #__VA_ARGS__); \
	} while (0)

static void test_refused(void)
{
	REFUSED(changed(1, 1, "b"), changed(1, 1, "a"));
	REFUSED(changed(1, 1, "a"), changed(1, 1, "a"));
	REFUSED(dir(2, 1, "a"), changed(1, 1, "a"));
	REFUSED(dir(2, 1, "a"), dir(3, 1, "a"));
	REFUSED(dir(2, 1, "a"), dir(2, 1, "b"));
	REFUSED(dir(3, 1, "a"), dir(2, 1, "b"));
	REFUSED(changed(2, 1, "a"));
	REFUSED(dir(2, 3, "a"));
	REFUSED(gap_in(2, "where"));
	REFUSED(dir(2, 1, "a"), changed(1, 1, "b"), changed(2, 1, "late"));
	REFUSED(dir(2, 1, "a"), dir(3, 2, "b"), changed(2, 1, "c"), changed(3, 1, "late"));
	REFUSED(changed(1, 1, "a"), gap_in(1, "late"));
	REFUSED(gap_in(1, "one"), gap_in(1, "two"));
	REFUSED(changed(1, 1, "a"), changed(1, 1, ""));
	REFUSED(dir(2, 1, "a"), changed(2, 1, "x"), changed(2, 1, ""));
	REFUSED(dir(2, 1, "a"), changed(2, 1, "x"), gap_in(2, "late"));
	REFUSED(changed(1, CHANGED_WANTED, "a"));
	REFUSED(changed(1, CHANGED_STRAY, "a"));
	REFUSED((struct record){.type = REC_IMAGE});
	REFUSED((struct record){.type = REC_END});
	REFUSED(changed(1, 1, "a"), (struct record){.type = REC_CURSOR});

	AUTO_BUF struct buf b = {0}, twice = {0};
	LIST(&b, dir(2, 1, "d"), changed(2, CHANGED_META, "x"), changed(1, CHANGED_META, "y"));
	buf_add(&twice, b.p, b.len);
	buf_add(&twice, b.p, b.len);
	refused(&twice, "two streams");
	/* Each prefix, and each byte flipped. */
	for (size_t n = 0; n < b.len; n++) {
		struct buf cut = {b.p, n, n};
		struct err e = {0};
		AUTO_BUF struct buf out = {0};
		CHECK(merge_bufs(&cut, 1, "", false, &out, &e) == -1 && e.kind == ERR_STREAM);
		b.p[n] ^= 0x10;
		e = (struct err){0};
		buf_reset(&out);
		CHECK(merge_bufs(&b, 1, "", false, &out, &e) == -1 && e.kind == ERR_STREAM);
		b.p[n] ^= 0x10;
	}
	/* Another kind, and one without a head. */
	for (int kind = KIND_IMAGE; kind <= KIND_CHANGE; kind++) {
		struct stream_out o = {.sink = into_buf, .ctx = &b};
		struct record r = {.type = REC_END};
		struct err e = {0};
		buf_reset(&b);
		CHECK_OK(stream_begin(&o, kind, &e) || stream_put(&o, &r, &e) || stream_finish(&o, &e), e);
		stream_out_free(&o);
		refused(&b, "no head");
	}
}

static void test_members(void)
{
	static const char *const ab[] = {"a", "b", NULL}, *const c[] = {"c", NULL};
	struct buf in[2] = {{0}, {0}};
	AUTO_BUF struct buf out = {0};
	struct facts f = {0};
	struct stream_out o;
	struct record r = gap_in(1, "all of it");
	struct err e = {0};

	begin(&o, &in[0], ab);
	CHECK_OK(stream_put(&o, &r, &e), e);
	end(&o);
	begin(&o, &in[1], c);
	r = dir(2, 1, "c");
	CHECK_OK(stream_put(&o, &r, &e), e);
	r = changed(2, CHANGED_META, "x");
	CHECK_OK(stream_put(&o, &r, &e), e);
	end(&o);
	CHECK_OK(merge_bufs(in, 2, "", true, &out, &e), e);
	CHECK(facts_read(&f, span_of(out.p, out.len)) && f.is_ordered);
	CHECK(f.n == 4 && has(&f, "a", 0, true) && has(&f, "b", 0, true) && has(&f, "c", 0, false) && find(&f, "c/x"));
	facts_free(&f);
	buf_free(&in[0]);
	buf_free(&in[1]);
}

/* ---- any lists at all ---- */

static uint32_t next_random(uint64_t *seed)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33);
}

static void fill(struct changes_out *c, uint64_t *seed, int depth)
{
	static const char *const names[] = {"\x01", "a", "a.", "aa", "b", "\xff"};
	static const uint8_t flags[] = {0, CHANGED_NEW, CHANGED_GONE, CHANGED_CONTENT, CHANGED_META, CHANGED_SUBTREE,
		CHANGED_NEW | CHANGED_SUBTREE, CHANGED_UNSETTLED | CHANGED_CONTENT};
	struct err e = {0};

	if (next_random(seed) % 4 == 0)
		CHECK_OK(changes_put(c, flags[next_random(seed) % 5], (struct span){0}, &e), e);
	if (next_random(seed) % 16 == 0) {
		CHECK_OK(changes_gap(c, span_cstr("by chance"), &e), e);
		if (next_random(seed) % 2)
			return;
	}
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		uint32_t what = next_random(seed) % 6;
		if (what < 2) {
			CHECK_OK(changes_put(c, flags[next_random(seed) % 8], span_cstr(names[i]), &e), e);
		} else if (what == 2 && depth < 4) {
			changes_enter(c, span_cstr(names[i]), 0);
			CHECK_OK(changes_say(c, &e), e);
			fill(c, seed, depth + 1);
			changes_leave(c);
		}
	}
}

static void random_list(struct buf *b, uint64_t *seed)
{
	struct stream_out o;
	struct changes_out c = {.o = &o};

	buf_reset(b);
	begin(&o, b, NULL);
	changes_enter(&c, (struct span){0}, 0);
	if (next_random(seed) % 16)
		fill(&c, seed, 0);
	changes_free(&c);
	end(&o);
}

enum { LISTS = 5 };

/* What is said is covered, what is not said is not, and flags are those of all. */
static bool is_union(const struct facts *in, size_t n, const struct facts *out)
{
	bool good = true;

	for (size_t k = 0; k < n; k++)
		for (size_t i = 0; i < in[k].n; i++)
			/* The root is looked at always. */
			good = good && (facts_cover(out, &in[k].v[i]) || (!*in[k].v[i].path && !in[k].v[i].flags && !in[k].v[i].is_whole));
	for (size_t i = 0; i < out->n; i++) {
		const struct fact *x = &out->v[i];
		bool is_said = false;
		uint8_t flags = 0;
		for (size_t k = 0; k < n; k++)
			for (size_t m = 0; m < in[k].n; m++)
				if (!strcmp(in[k].v[m].path, x->path)) {
					is_said = is_said || in[k].v[m].is_whole == x->is_whole;
					flags |= in[k].v[m].flags;
				}
		good = good && is_said && (x->is_whole || x->flags == flags);
	}
	return good;
}

/* The part of the facts below the prefix; false: all may have changed there. */
static bool restrict_facts(const struct facts *in, const char *prefix, struct facts *out)
{
	const uint8_t comes = CHANGED_NEW | CHANGED_GONE;
	size_t len = strlen(prefix);
	bool good = true;

	for (size_t i = 0; i < in->n; i++) {
		const struct fact *x = &in->v[i];
		if (facts_below(prefix, x->path))
			good = good && !x->is_whole && !(*x->path && x->flags & comes);
		/* The root: who says that it came is not believed to mean all, but a prefix is a directory below it. */
		if (!*x->path && x->flags & comes)
			good = false;
		if (!facts_below(x->path, prefix))
			continue;
		struct fact *y = facts_at(out, x->path[len] ? x->path + len + 1 : "");
		y->flags |= x->flags;
		y->is_whole = y->is_whole || x->is_whole;
	}
	return good;
}

static void test_random(void)
{
	static const char *const prefixes[] = {"a", "a/b", "\x01/a/aa", "b/\xff", "missing/at/all"};

	for (uint64_t start = 1; start <= 400; start++) {
		struct buf in[LISTS] = {{0}};
		struct facts facts[LISTS] = {{0}}, out = {0};
		AUTO_BUF struct buf b = {0};
		struct err e = {0};
		uint64_t seed = start * UINT64_C(0x9e3779b97f4a7c15);
		size_t n = 1 + next_random(&seed) % LISTS;
		for (size_t i = 0; i < n; i++) {
			random_list(&in[i], &seed);
			CHECK(facts_read(&facts[i], span_of(in[i].p, in[i].len)) && facts[i].is_ordered);
		}
		bool good = CHECK(merge_bufs(in, n, "", false, &b, &e) == 0) && CHECK(facts_read(&out, span_of(b.p, b.len))) &&
			CHECK(out.is_ordered) && CHECK(!facts_waste(&out)) && CHECK(is_union(facts, n, &out));
		facts_free(&out);
		/* What came of it is a list as any other: once more it is the same. */
		AUTO_BUF struct buf again = {0};
		good = good && CHECK(merge_bufs(&b, 1, "", false, &again, &e) == 0) &&
			CHECK(span_eq(span_of(b.p, b.len), span_of(again.p, again.len)));

		const char *prefix = prefixes[start % 5];
		struct facts parts[LISTS] = {{0}};
		bool is_known = true;
		for (size_t i = 0; i < n; i++)
			is_known = restrict_facts(&facts[i], prefix, &parts[i]) && is_known;
		buf_reset(&b);
		good = good && CHECK(merge_bufs(in, n, prefix, false, &b, &e) == 0) && CHECK(facts_read(&out, span_of(b.p, b.len))) &&
			CHECK(out.is_ordered);
		if (is_known)
			good = good && CHECK(is_union(parts, n, &out));
		else
			good = good && CHECK(out.n == 1 && out.v[0].is_whole && !*out.v[0].path);
		if (!good)
			fprintf(stderr, "\tseed %" PRIu64 ", prefix '%s': %s\n", start, prefix, e.text);
		facts_free(&out);
		for (size_t i = 0; i < LISTS; i++) {
			facts_free(&facts[i]);
			facts_free(&parts[i]);
			buf_free(&in[i]);
		}
	}
}

int unit_merge(void)
{
	unsigned long before = unit_failures;

	test_pairs();
	test_regions();
	test_deep();
	test_refused();
	test_members();
	test_random();
	return (int)(unit_failures - before);
}
