#include "filter.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

struct filter_rule {
	bool include;
	bool dir_only;
	bool whole; /* matched against the path from the root, not its last component */
	uint8_t *pattern;
	size_t len;
};

void filter_free(struct filter *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->rules[i].pattern);
	free(f->rules);
	*f = (struct filter){0};
}

void filter_text(const struct filter *f, struct buf *text)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct filter_rule *r = &f->rules[i];
		wr_u8(text, (uint8_t)(r->include | r->dir_only << 1 | r->whole << 2));
		wr_str(text, r->pattern, r->len);
	}
}

static bool is_quoted(struct span s, size_t at)
{
	size_t n = 0;
	while (n < at && s.p[at - 1 - n] == '\\')
		n++;
	return n % 2;
}

void filter_add(struct filter *f, bool include, struct span pattern)
{
	struct filter_rule r = {.include = include};
	while (pattern.len > 1 && pattern.p[pattern.len - 1] == '/' && !is_quoted(pattern, pattern.len - 1)) {
		r.dir_only = true;
		pattern.len--;
	}
	r.whole = pattern.len && memchr(pattern.p, '/', pattern.len);
	while (pattern.len && pattern.p[0] == '/')
		pattern = span_of(pattern.p + 1, pattern.len - 1);
	r.pattern = xdup(pattern.p, pattern.len);
	r.len = pattern.len;
	f->rules = xrealloc(f->rules, (f->n + 1) * sizeof(r));
	f->rules[f->n++] = r;
}

static bool starts(struct span s, const char *with)
{
	size_t n = strlen(with);
	return s.len >= n && !memcmp(s.p, with, n);
}

int filter_parse(struct filter *f, struct span text, const char *name, struct err *e)
{
	struct filter got = {0};
	for (unsigned long line = 1; text.len; line++) {
		const uint8_t *nl = memchr(text.p, '\n', text.len);
		struct span s = span_of(text.p, nl ? (size_t)(nl - text.p) : text.len);
		size_t used = s.len + (nl ? 1 : 0);
		text = span_of(text.p + used, text.len - used);
		bool include = false;
		size_t skip = 0;
		if (s.len == 0 || s.p[0] == '#')
			continue;
		if (starts(s, "!")) {
			include = true;
			skip = 1;
		} else if (starts(s, "+ ")) {
			include = true;
			skip = 2;
		} else if (starts(s, "- ")) {
			skip = 2;
		}
		s = span_of(s.p + skip, s.len - skip);
		const char *wrong = NULL;
		if (s.len == 0 || (s.len == 1 && s.p[0] == '/'))
			wrong = "no pattern";
		else if (memchr(s.p, 0, s.len))
			wrong = "a NUL byte in a pattern";
		if (wrong) {
			filter_free(&got);
			return err_set(e, ERR_USAGE, "%s, line %lu: %s", name, line, wrong);
		}
		filter_add(&got, include, s);
	}
	/* All or nothing: a file with a mistake adds no rule. */
	if (got.n) {
		f->rules = xrealloc(f->rules, (f->n + got.n) * sizeof(*f->rules));
		memcpy(f->rules + f->n, got.rules, got.n * sizeof(*f->rules));
		f->n += got.n;
	}
	free(got.rules);
	return 0;
}

static bool in_named_class(struct span name, uint8_t c)
{
	bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z', digit = c >= '0' && c <= '9';
	bool hex_digit = digit || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
	bool graph = c > ' ' && c < 0x7f;
	bool space = c == ' ' || (c >= '\t' && c <= '\r');
	const struct {
		const char *name;
		bool is_in;
	} t[] = {
		{"alpha", lower || upper}, {"digit", digit}, {"alnum", lower || upper || digit}, {"lower", lower},
		{"upper", upper}, {"xdigit", hex_digit}, {"space", space}, {"blank", c == ' ' || c == '\t'},
		{"punct", graph && !lower && !upper && !digit}, {"print", graph || c == ' '}, {"graph", graph},
		{"cntrl", c < ' ' || c == 0x7f},
	};
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (span_eq(name, span_cstr(t[i].name)))
			return t[i].is_in;
	return false;
}

/* The class that begins at pattern[at] == '['. *next: behind it, or at itself when it never ends and is no class. */
static bool in_class(struct span pattern, size_t at, uint8_t c, size_t *next)
{
	size_t i = at + 1;
	bool negate = false, found = false;
	*next = at;
	if (i < pattern.len && (pattern.p[i] == '!' || pattern.p[i] == '^')) {
		negate = true;
		i++;
	}
	for (size_t first = i; i < pattern.len; i++) {
		if (pattern.p[i] == ']' && i > first) {
			*next = i + 1;
			return found != negate && c != '/';
		}
		if (pattern.p[i] == '[' && i + 1 < pattern.len && pattern.p[i + 1] == ':') {
			size_t end = i + 2;
			while (end + 1 < pattern.len && pattern.p[end] >= 'a' && pattern.p[end] <= 'z')
				end++;
			if (end + 1 < pattern.len && pattern.p[end] == ':' && pattern.p[end + 1] == ']') {
				found |= in_named_class(span_of(pattern.p + i + 2, end - i - 2), c);
				i = end + 1;
				continue;
			}
		}
		if (pattern.p[i] == '\\' && i + 1 < pattern.len)
			i++;
		uint8_t low = pattern.p[i], high = low;
		if (i + 2 < pattern.len && pattern.p[i + 1] == '-' && pattern.p[i + 2] != ']') {
			i += 2;
			if (pattern.p[i] == '\\' && i + 1 < pattern.len)
				i++;
			high = pattern.p[i];
		}
		found |= c >= low && c <= high;
	}
	return false;
}

/* One byte against the pattern at `at`, which is not a star. *next: where the pattern goes on. */
static bool match_byte(struct span pattern, size_t at, uint8_t c, size_t *next)
{
	uint8_t p = pattern.p[at];
	*next = at + 1;
	if (p == '?')
		return c != '/';
	if (p == '[') {
		size_t behind;
		bool in = in_class(pattern, at, c, &behind);
		if (behind != at) {
			*next = behind;
			return in;
		}
	}
	if (p == '\\' && at + 1 < pattern.len) {
		*next = at + 2;
		p = pattern.p[at + 1];
	}
	return p == c;
}

/*
 * Two places to come back to are enough: the last '*' and the last '**'. A star takes as little as it can; what the
 * last one leaves is the most that any choice of the ones before could leave, because a '*' stays inside its
 * component and so the slashes of pattern and text pair up the same way. Hence no choice is made twice for the same
 * star and place: the work is polynomial, at most pattern * text * longest component.
 */
static bool matches(struct span pattern, struct span text)
{
	struct again {
		bool set, by_component; /* by_component: "**" + "/" takes whole directories only */
		size_t pattern, text;
	} star = {0}, stars = {0};
	size_t p = 0, t = 0;

	for (;;) {
		if (p < pattern.len && pattern.p[p] == '*') {
			size_t n = p;
			while (n < pattern.len && pattern.p[n] == '*')
				n++;
			if (n - p == 1) {
				star = (struct again){.set = true, .pattern = n, .text = t};
			} else {
				bool whole = (p == 0 || pattern.p[p - 1] == '/') && n < pattern.len && pattern.p[n] == '/';
				n += whole ? 1 : 0;
				stars = (struct again){.set = true, .by_component = whole, .pattern = n, .text = t};
				star.set = false;
			}
			p = n;
			continue;
		}
		size_t next;
		if (p < pattern.len && t < text.len && match_byte(pattern, p, text.p[t], &next)) {
			p = next;
			t++;
			continue;
		}
		if (p == pattern.len && t == text.len)
			return true;
		if (star.set && star.text < text.len && text.p[star.text] != '/') {
			p = star.pattern;
			t = ++star.text;
			continue;
		}
		star.set = false;
		if (!stars.set)
			return false;
		if (stars.by_component) {
			while (stars.text < text.len && text.p[stars.text] != '/')
				stars.text++;
		}
		if (stars.text == text.len)
			return false;
		p = stars.pattern;
		t = ++stars.text;
	}
}

static bool accepts_one(const struct filter *f, struct span path, struct span name, bool is_dir)
{
	for (size_t i = 0; i < f->n; i++) {
		const struct filter_rule *r = &f->rules[i];
		if (r->dir_only && !is_dir)
			continue;
		if (r->len && matches(span_of(r->pattern, r->len), r->whole ? path : name))
			return r->include;
	}
	return true;
}

static size_t name_at(struct span path)
{
	size_t n = path.len;
	while (n > 0 && path.p[n - 1] != '/')
		n--;
	return n;
}

bool filter_accepts_child(const struct filter *f, struct span path, bool is_dir)
{
	size_t at = name_at(path);
	if (!f->n || !path.len)
		return true;
	return accepts_one(f, path, span_of(path.p + at, path.len - at), is_dir);
}

bool filter_accepts(const struct filter *f, struct span path, bool is_dir)
{
	if (!f->n || !path.len)
		return true;
	for (size_t from = 0, at = 0; at < path.len; at++) {
		if (path.p[at] != '/')
			continue;
		if (!accepts_one(f, span_of(path.p, at), span_of(path.p + from, at - from), true))
			return false;
		from = at + 1;
	}
	return filter_accepts_child(f, path, is_dir);
}

static int add_file(struct filter *f, const char *path, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n;

	if (fd < 0)
		return err_sys(e, "cannot read '%s'", path);
	do {
		buf_reserve(&b, 4096);
		n = read(fd, b.p + b.len, 4096);
		if (n < 0)
			return err_sys(e, "cannot read '%s'", path);
		b.len += (size_t)n;
	} while (n);
	return filter_parse(f, span_of(b.p, b.len), path, e);
}

int filter_options(struct filter *f, const char *const *v, const char *tags, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		if (tags[i] == 'f') {
			if (add_file(f, v[i], e))
				return -1;
		} else {
			filter_add(f, tags[i] == '+', span_cstr(v[i]));
		}
	}
	return 0;
}
