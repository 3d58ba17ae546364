#include "named.h"

#include <stdlib.h>
#include <string.h>

#include "changes.h"
#include "image.h"
#include "tape.h"

bool named_is_full(const struct named *n) { return n->rows.len > NAMED_MAX; }

/* Rows of u8 flags, str path: the names of the path with zeros between them, so that memcmp gives the order of the stream. */
void named_add(struct named *n, struct span path, uint8_t flags)
{
	if (named_is_full(n))
		return;
	wr_u64(&n->starts, n->rows.len);
	wr_u8(&n->rows, flags);
	wr_u32(&n->rows, (uint32_t)path.len);
	for (size_t i = 0; i < path.len; i++)
		wr_u8(&n->rows, path.p[i] == '/' ? 0 : path.p[i]);
}

int named_add_name(struct named *n, struct catalog *c, uint64_t dir, struct span name, uint8_t flags, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	if (named_is_full(n))
		return 0;
	if (catalog_path(c, dir, name, &path, e))
		return -1;
	named_add(n, span_of(path.p, path.len), flags);
	return 0;
}

struct adding {
	struct named *n;
	struct catalog *c;
};

static int add_again(void *ctx, const struct image_again *a, struct err *e)
{
	const struct adding *to = ctx;
	struct object o = {0};
	AUTO_BUF struct buf name = {0};
	uint64_t dir = a->dir;
	int got = catalog_get(to->c, dir, &o, e);

	object_free(&o);
	if (got != 1)
		return got;
	if (a->name.len)
		return named_add_name(to->n, to->c, dir, a->name, CHANGED_UNSETTLED, e);
	if (dir == CATALOG_ROOT) {
		to->n->rows.len = NAMED_MAX + 1;
		return 0;
	}
	got = catalog_name(to->c, dir, &dir, &name, e);
	return got != 1 ? got :
		named_add_name(to->n, to->c, dir, span_of(name.p, name.len), CHANGED_UNSETTLED | CHANGED_SUBTREE, e);
}

int named_add_again(struct named *n, struct catalog *c, struct err *e)
{
	struct adding to = {n, c};

	return image_again_each(c, add_again, &to, e);
}

/* ---- in order ---- */

static struct span row_at(const struct named *n, uint64_t start, uint8_t *flags)
{
	struct rd r = rd_of(n->rows.p + start, n->rows.len - start);

	*flags = rd_u8(&r);
	return rd_str(&r, UINT32_MAX);
}

static int row_cmp(const void *a, const void *b, void *ctx)
{
	uint8_t ignored;

	return span_cmp(row_at(ctx, get_le64(a), &ignored), row_at(ctx, get_le64(b), &ignored));
}

static bool is_below(struct span path, struct span dir)
{
	return !dir.len || (path.len > dir.len && !path.p[dir.len] && !memcmp(path.p, dir.p, dir.len));
}

static size_t last_name(struct span path)
{
	const uint8_t *zero = path.len ? memrchr(path.p, 0, path.len) : NULL;

	return zero ? (size_t)(zero - path.p) + 1 : 0;
}

/* From the directory at hand to the one that the path has until there. */
static void go_down(struct changes_out *c, struct buf *dir, struct span path, size_t until)
{
	while (!is_below(path, span_of(dir->p, dir->len))) {
		size_t at = last_name(span_of(dir->p, dir->len));
		dir->len = at ? at - 1 : 0;
		changes_leave(c);
	}
	while (dir->len + (dir->len > 0) < until) {
		size_t from = dir->len + (dir->len > 0), len = strnlen((const char *)path.p + from, path.len - from);
		changes_enter(c, span_of(path.p + from, len), 0);
		dir->len = 0;
		buf_add(dir, path.p, from + len);
	}
}

static int put_rows(struct named *n, struct changes_out *c, struct err *e)
{
	AUTO_BUF struct buf dir = {0}, whole = {0};
	size_t count = n->starts.len / 8;

	for (size_t i = 0; i < count; i++) {
		uint8_t flags, more;
		struct span path = row_at(n, get_le64(n->starts.p + i * 8), &flags), next = {0};
		for (; i + 1 < count; i++) {
			next = row_at(n, get_le64(n->starts.p + (i + 1) * 8), &more);
			if (!span_eq(next, path))
				break;
			flags |= more;
		}
		if (whole.len && is_below(path, span_of(whole.p, whole.len)))
			continue;
		/* With something in it, it is a directory, and its own change has no name there. */
		bool is_dir = i + 1 < count && !(flags & CHANGED_SUBTREE) && is_below(next, path);
		size_t at = is_dir ? path.len : last_name(path);
		go_down(c, &dir, path, at);
		if (changes_put(c, flags, span_of(path.p + at, path.len - at), e))
			return -1;
		buf_reset(&whole);
		if (flags & CHANGED_SUBTREE)
			buf_add(&whole, path.p, path.len);
	}
	return 0;
}

int named_write(struct named *n, struct tape *t, struct err *e)
{
	struct changes_out c = {.o = &t->out};

	if (n->starts.len)
		qsort_r(n->starts.p, n->starts.len / 8, 8, row_cmp, n);
	changes_enter(&c, (struct span){0}, 0);
	int rc = put_rows(n, &c, e);
	changes_free(&c);
	return rc || tape_close(t, e) ? -1 : 0;
}

void named_free(struct named *n)
{
	buf_free(&n->rows);
	buf_free(&n->starts);
	*n = (struct named){0};
}
