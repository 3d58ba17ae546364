#include "../../libcore/filter.h"

#include <time.h>

#include "unit.h"

static bool one(const char *pattern, const char *path, bool is_dir)
{
	struct filter f = {0};
	filter_add(&f, false, span_cstr(pattern));
	bool excluded = !filter_accepts_child(&f, span_cstr(path), is_dir);
	filter_free(&f);
	return excluded;
}

static void patterns(void)
{
	static const struct {
		const char *pattern, *path;
		bool is_dir, matches;
	} t[] = {
		/* without a slash: the last component, at any depth */
		{"a", "a", false, true}, {"a", "x/y/a", false, true}, {"a", "a/b", false, false}, {"a", "ab", false, false},
		{"*.o", "x/y.o", false, true}, {"*.o", "x.o/y", false, false}, {"*", "x/y", false, true},
		{"?", "a", false, true}, {"?", "", false, false}, {"?", "ab", false, false}, {"a?c", "abc", false, true},
		{"**.o", "x/y.o", false, true}, {"a*", "a", false, true}, {"*a", "a", false, true},
		/* with one: the whole path */
		{"/a", "a", false, true}, {"/a", "x/a", false, false}, {"x/a", "x/a", false, true},
		{"x/a", "y/x/a", false, false}, {"x/*", "x/a", false, true}, {"x/*", "x/a/b", false, false},
		{"x/?", "x/a", false, true}, {"x?a", "x/a", false, false}, {"*/a", "x/a", false, true}, {"*/a", "a", false, false},
		{"*/a", "x/y/a", false, false},
		/* directories only */
		{"a/", "a", true, true}, {"a/", "a", false, false}, {"a/", "x/a", true, true}, {"/a/", "x/a", true, false},
		{"x/a/", "x/a", true, true}, {"a//", "a", true, true},
		/* two stars */
		{"**/a", "a", false, true}, {"**/a", "x/y/a", false, true}, {"**/a", "xa", false, false},
		{"**/a", "x/ya", false, false}, {"a/**", "a/b", false, true}, {"a/**", "a/b/c", false, true},
		{"a/**", "a", true, false}, {"a/**", "ab/c", false, false}, {"a/**/b", "a/b", false, true},
		{"a/**/b", "a/x/b", false, true}, {"a/**/b", "a/x/y/b", false, true}, {"a/**/b", "a/xb", false, false},
		{"a/**/b", "ab", false, false}, {"a/**/b/**/c", "a/b/c", false, true}, {"a/**/b/**/c", "a/1/b/2/3/c", false, true},
		{"a/**/b/**/c", "a/1/c/2/3/c", false, false}, {"/a**z", "a/b/z", false, true}, {"/a**z", "az", false, true},
		{"/**", "a/b", false, true}, {"/***/a", "x/a", false, true}, {"/a*b/**/c*d", "a1b/x/c2d", false, true},
		{"/a*b/**/c*d", "a1/b/x/c2d", false, false}, {"**/x*y/z", "a/x/y/z", false, false},
		{"**/x*y/z", "xy/xay/z", false, true}, {"**/x*y/z", "x/xy/xay/z", false, true},
		/* classes and quotes */
		{"[a-c]", "b", false, true}, {"[a-c]", "d", false, false}, {"[!a-c]", "d", false, true}, {"[^a-c]", "a", false, false},
		{"[]x]", "]", false, true}, {"[!]x]", "]", false, false}, {"[a-]", "-", false, true}, {"[-a]", "-", false, true},
		{"[", "[", false, true}, {"[ab", "[ab", false, true}, {"x[", "x[", false, true}, {"/x[!a]y", "x/y", false, false},
		{"/x[.-0]y", "x/y", false, false}, {"[\\]]", "]", false, true}, {"[a\\-z]", "b", false, false},
		{"[[:digit:]]", "7", false, true}, {"[[:digit:]]", "x", false, false}, {"[[:alpha:]_]*", "_x", false, true},
		{"[![:space:]]", " ", false, false}, {"[[:none:]]", "n", false, false},
		{"\\*", "*", false, true}, {"\\*", "a", false, false}, {"a\\", "a\\", false, true}, {"\\!x", "!x", false, true},
		{"\\[a]", "[a]", false, true}, {"\\\\", "\\", false, true}, {"\xff*", "\xff\xfe", false, true},
		{"[\x80-\xff]", "\xc3", false, true}, {"a\nb", "a\nb", false, true}, {"", "a", false, false}, {"/", "a", true, false},
	};
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (!CHECK(one(t[i].pattern, t[i].path, t[i].is_dir) == t[i].matches))
			fprintf(stderr, "\tpattern '%s', path '%s'\n", t[i].pattern, t[i].path);
}

/* The obvious matcher: slow, and too simple to be wrong in the same way. */
static bool slow(const char *start, const char *p, const char *t)
{
	if (!*p)
		return !*t;
	if (p[0] == '*' && p[1] == '*') {
		const char *rest = p + 2;
		while (*rest == '*')
			rest++;
		bool whole = (p == start || p[-1] == '/') && *rest == '/';
		if (whole) {
			if (slow(start, rest + 1, t))
				return true;
			for (; *t; t++)
				if (*t == '/' && slow(start, rest + 1, t + 1))
					return true;
			return false;
		}
		for (;; t++) {
			if (slow(start, rest, t))
				return true;
			if (!*t)
				return false;
		}
	}
	if (p[0] == '*') {
		for (;; t++) {
			if (slow(start, p + 1, t))
				return true;
			if (!*t || *t == '/')
				return false;
		}
	}
	if (!*t || (*p == '?' ? *t == '/' : *p != *t))
		return false;
	return slow(start, p + 1, t + 1);
}

static void against_slow(void)
{
	static const char p_letters[] = "ab/**?/*", t_letters[] = "ab/a/b";
	uint64_t seed = 0x5eed;
	unsigned hits = 0;
	for (int round = 0; round < 200000; round++) {
		char p[12], t[14];
		size_t np = 0, nt = 0;
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		uint64_t r = seed >> 8;
		for (size_t n = 1 + r % 9; np < n; np++, r = r * 0x9E3779B97F4A7C15u + 7)
			p[np] = p_letters[(r >> 40) % (sizeof(p_letters) - 1)];
		for (size_t n = 1 + (r >> 50) % 12; nt < n; nt++, r = r * 0x9E3779B97F4A7C15u + 7)
			t[nt] = t_letters[(r >> 40) % (sizeof(t_letters) - 1)];
		p[np] = t[nt] = '\0';
		/* What filter_add would rewrite is another pattern. */
		if (p[0] == '/' || p[np - 1] == '/' || !strchr(p, '/'))
			continue;
		bool want = slow(p, p, t);
		hits += want;
		if (one(p, t, true) != want) {
			unit_check(false, __FILE__, __LINE__, "the fast matcher agrees with the slow one");
			fprintf(stderr, "\tpattern '%s', path '%s', want %d\n", p, t, want);
			return;
		}
	}
	CHECK(hits > 1000);
}

static void order(void)
{
	struct filter f = {0};
	struct err e = {0};
	CHECK(filter_accepts(&f, span_cstr("x"), false));
	CHECK_OK(filter_parse(&f, span_cstr("# notes\n\n!keep.o\n+ also.o\n- *.o\nbuild/\n\\#x\nlast"), "rules", &e), e);
	CHECK_EQ_U64(f.n, 6);
	CHECK(filter_accepts(&f, span_cstr("a/keep.o"), false));
	CHECK(filter_accepts(&f, span_cstr("also.o"), false));
	CHECK(!filter_accepts(&f, span_cstr("other.o"), false));
	CHECK(!filter_accepts(&f, span_cstr("a/build"), true));
	CHECK(filter_accepts(&f, span_cstr("a/build"), false));
	CHECK(!filter_accepts(&f, span_cstr("a/build/deep/keep.o"), false));
	CHECK(filter_accepts_child(&f, span_cstr("a/build/deep/keep.o"), false));
	CHECK(!filter_accepts(&f, span_cstr("#x"), false));
	CHECK(!filter_accepts(&f, span_cstr("last"), false));
	CHECK(filter_accepts(&f, span_cstr("notes"), false));
	CHECK(filter_accepts(&f, span_cstr(""), true));

	CHECK(filter_parse(&f, span_cstr("fine\n- \n"), "rules", &e) == -1);
	CHECK(e.kind == ERR_USAGE && strstr(e.text, "line 2"));
	CHECK_EQ_U64(f.n, 6);
	err_clear(&e);
	CHECK(filter_parse(&f, span_cstr("!\n"), "rules", &e) == -1);
	err_clear(&e);
	CHECK(filter_parse(&f, span_of("a\0b\n", 4), "rules", &e) == -1);
	err_clear(&e);
	CHECK_OK(filter_parse(&f, span_of("", 0), "rules", &e), e);
	filter_free(&f);
	filter_free(&f);
}

/* Patterns that make a recursive matcher run for years. */
static void effort(void)
{
	struct timespec a, b;
	char text[4096], bad[128];
	struct filter f = {0};
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	memset(text, 'a', sizeof(text) - 1);
	for (size_t i = 200; i < sizeof(text); i += 200)
		text[i] = '/';
	text[sizeof(text) - 1] = '\0';
	for (size_t i = 0; i + 2 < sizeof(bad); i += 2)
		memcpy(bad + i, "a*", 2);
	memcpy(bad + sizeof(bad) - 2, "b", 2);
	filter_add(&f, false, span_cstr(bad));
	filter_add(&f, false, span_cstr("**/a*a*a*a*a*/**/a*a*a*a*b"));
	filter_add(&f, false, span_cstr("/**a**a**a**a**a**a**a**b"));
	CHECK(filter_accepts_child(&f, span_cstr(text), false));
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	CHECK(b.tv_sec - a.tv_sec < 3);
	filter_free(&f);
}

int unit_filter(void)
{
	unsigned long before = unit_failures;
	patterns();
	against_slow();
	order();
	effort();
	return (int)(unit_failures - before);
}
