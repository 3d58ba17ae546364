/*
 * Patterns: text up to the first NUL byte, a path behind it. A path is accepted exactly when it and every directory above it
 * is; and a pattern that was quoted byte by byte matches itself.
 */
#include <stdlib.h>

#include "dense.h"
#include "filter.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool accepted_step_by_step(const struct filter *f, struct span path)
{
	for (size_t i = 1; i < path.len; i++)
		if (path.p[i] == '/' && !filter_accepts_child(f, span_of(path.p, i), true))
			return false;
	return filter_accepts_child(f, path, false);
}

static bool is_path(struct span p)
{
	for (size_t from = 0, i = 0; p.p && i <= p.len; i++) {
		if (i < p.len && p.p[i] != '/')
			continue;
		if (!name_is_sane(span_of(p.p + from, i - from)))
			return false;
		from = i + 1;
	}
	return p.len > 0;
}

static void check_quoted(struct span path)
{
	struct filter f = {0};
	AUTO_BUF struct buf b = {0};

	buf_str(&b, "/");
	for (size_t i = 0; i < path.len; i++) {
		if (path.p[i] != '/')
			buf_str(&b, "\\");
		buf_add(&b, path.p + i, 1);
	}
	filter_add(&f, false, span_of(b.p, b.len));
	dense_must(!filter_accepts_child(&f, path, false), "a quoted path that does not match itself");
	filter_free(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
	size_t n = nul ? (size_t)(nul - data) : size;
	struct span path = nul ? span_of(nul + 1, size - n - 1) : (struct span){0};
	struct filter f = {0};
	struct err e = {0};

	if (filter_parse(&f, span_of(data, n), "patterns", &e)) {
		dense_must(e.kind == ERR_USAGE && e.text[0], "an error without a cause");
	} else if (is_path(path)) {
		dense_must(filter_accepts(&f, path, false) == accepted_step_by_step(&f, path), "two answers for one path");
		filter_accepts(&f, path, true);
		check_quoted(path);
	}
	filter_free(&f);
	return 0;
}
