#include "heard.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "changes.h"
#include "clock.h"
#include "path.h"

#define PATHS_MAX (4u * 1024 * 1024) /* bytes of directories' paths in one batch */
#define INODE_LEN 28u
#define INODES_MAX 16384u
#define GATHER_EACH 32u              /* names between two looks at the event queue */

/* A directory in which something changed, or a gap. */
struct place {
	uint32_t path, len;   /* in paths */
	uint32_t first, n;    /* of its names in order */
	const char *gap;      /* why; NULL: none. Borrowed from gaps */
};
struct heard_work {
	uint32_t *order, *starts;
	size_t n_order, cap_order;
	struct place *places;
	size_t n, cap;
	struct buf paths;
	struct buf known; /* bits: objects whose only name is among those that were heard */
	unsigned since_gather;
	/* of the directory that is being found */
	uint32_t dir;
	bool is_checked;
	/* of the one that is being written */
	struct journal_batch to;
	struct level *levels;
	size_t depth, cap_levels;
	struct buf way, skipped; /* path of the innermost level; path below which everything was said */
	bool has_skipped;
};

void heard_changed(struct heard *b, uint32_t dir, struct span name, uint8_t flags, uint32_t obj, bool is_written)
{
	if (!dir) {
		bits_put(&b->suspects, obj);
		return;
	}
	struct names_row *r = names_put(&b->names, dir, name);
	r->flags |= flags;
	r->is_written = is_written;
	/* Another object under the same name: the first one may have other names. */
	if (r->obj && obj && r->obj != obj)
		bits_put(&b->suspects, r->obj);
	if (obj)
		r->obj = obj;
}

static void gap_everywhere(struct heard *b, const char *reason)
{
	for (size_t i = 0; i < b->watch->n_paths; i++)
		gaps_put(&b->gaps, b->watch->paths[i], reason);
}

void heard_inode(struct heard *b, const struct r_inode *ino)
{
	AUTO_BUF struct buf key = {0};

	if (b->inodes.n >= INODES_MAX) {
		gap_everywhere(b, "too many files with several names changed");
		return;
	}
	wr_u64(&key, ino->dev);
	wr_u64(&key, ino->ino);
	wr_i64(&key, ino->btime_s);
	wr_u32(&key, ino->btime_ns);
	words_put(&b->inodes, span_of(key.p, key.len));
}

void heard_file(struct heard *b, struct span path) { words_put(&b->files, path); }

bool heard_is_empty(const struct heard *b)
{
	return !names_count(&b->names) && !b->suspects.len && !b->inodes.n && !b->files.n && !b->gaps.n;
}

size_t heard_size(const struct heard *b)
{
	return names_size(&b->names) + b->suspects.cap + words_size(&b->inodes) + words_size(&b->files) + watch_size(b->watch);
}

/* ---- finding ---- */

static int add_place(struct heard_work *k, struct span path, uint32_t first, uint32_t n, const char *gap)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? k->cap + k->cap / 2 : 64;
		k->places = xrealloc(k->places, k->cap * sizeof *k->places);
	}
	k->places[k->n++] = (struct place){(uint32_t)k->paths.len, (uint32_t)path.len, first, n, gap};
	buf_add(&k->paths, path.p, path.len);
	return 0;
}

static int cmp_name(const void *x, const void *y, void *ctx)
{
	const struct heard *b = ctx;
	uint32_t dir;
	struct span p = names_at(&b->names, *(const uint32_t *)x, &dir), q = names_at(&b->names, *(const uint32_t *)y, &dir);

	return span_cmp(p, q);
}

static void suspect(struct heard *b, uint32_t obj)
{
	struct r_inode ino;
	int got = watch_object(b->watch, obj, &ino);

	if (got == 1)
		heard_inode(b, &ino);
	else if (got)
		gap_everywhere(b, "a file changed that cannot be found");
}

/* For a source that does not know objects. */
static void suspect_name(struct heard *b, int dirfd, struct span name)
{
	char text[256];
	struct statx sx;

	span_name(text, name);
	if (statx(dirfd, text, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_BTIME, &sx)) {
		gap_everywhere(b, "a file was written under a name that it no longer has");
		return;
	}
	struct r_inode ino = {makedev(sx.stx_dev_major, sx.stx_dev_minor), sx.stx_ino, 0, 0};
	if (sx.stx_mask & STATX_BTIME) {
		ino.btime_s = sx.stx_btime.tv_sec;
		ino.btime_ns = sx.stx_btime.tv_nsec;
	}
	heard_inode(b, &ino);
}

static int breathe(struct heard *b, struct err *e)
{
	if (++b->work->since_gather < GATHER_EACH)
		return 0;
	b->work->since_gather = 0;
	return watch_gather(b->watch, e);
}

/* Does each name lead to the object that changed, and is it the only one? fd -1: the directory is nowhere. What was written under
 * one name and renamed is named by the other: only an object of which no name told all is suspected in the end. */
static int check_objects(struct heard *b, uint32_t dir, int fd, struct err *e)
{
	struct heard_work *k = b->work;

	for (uint32_t i = k->starts[dir]; i < k->starts[dir + 1]; i++) {
		const struct names_row *r = &b->names.rows[k->order[i]];
		uint32_t d;
		struct span name = names_at(&b->names, k->order[i], &d);
		if (!name.len || (!r->obj && !r->is_written))
			continue;
		if (breathe(b, e))
			return -1;
		bool is_only = fd >= 0 && watch_is_only_name(b->watch, fd, name, r->obj);
		if (r->obj)
			bits_put(is_only ? &k->known : &b->suspects, r->obj);
		else if (fd >= 0 && !is_only)
			suspect_name(b, fd, name);
	}
	return 0;
}

/* A path itself, or a directory above one, got or lost its name. */
static void check_paths(struct heard *b, struct span dir)
{
	struct heard_work *k = b->work;
	AUTO_BUF struct buf full = {0};

	for (size_t p = 0; p < b->watch->n_paths; p++) {
		struct span path = span_cstr(b->watch->paths[p]);
		if (!mounts_below(path, dir) || path.len == dir.len)
			continue;
		for (uint32_t i = k->starts[k->dir]; i < k->starts[k->dir + 1]; i++) {
			uint32_t d;
			struct span name = names_at(&b->names, k->order[i], &d);
			buf_reset(&full);
			buf_add(&full, dir.p, dir.len);
			path_push(&full, name);
			if (b->names.rows[k->order[i]].flags & (CHANGED_NEW | CHANGED_GONE) &&
					mounts_below(path, span_of(full.p, full.len)))
				gaps_put(&b->gaps, b->watch->paths[p], "it was renamed, replaced or made anew");
		}
	}
}

static int on_place(void *ctx, struct span path, int fd, struct err *e)
{
	struct heard *b = ctx;
	struct heard_work *k = b->work;
	uint32_t first = k->starts[k->dir], n = k->starts[k->dir + 1] - first;

	if (!k->is_checked && check_objects(b, k->dir, fd, e))
		return -1;
	k->is_checked = true;
	if (watch_is_inside(b->watch, path))
		return add_place(k, path, first, n, NULL);
	check_paths(b, path);
	return 0;
}

/* ---- writing ---- */

struct level {
	size_t path_len;
	const uint32_t *names;
	uint32_t n, at;
	bool has_own; /* a name in it may be one of ours */
};

static int cmp_path(struct span a, struct span b)
{
	size_t n = a.len < b.len ? a.len : b.len;

	/* As a tree is gone through: a slash comes before every other byte. */
	for (size_t i = 0; i < n; i++) {
		if (a.p[i] == b.p[i])
			continue;
		int x = a.p[i] == '/' ? 0 : a.p[i], y = b.p[i] == '/' ? 0 : b.p[i];
		return x - y;
	}
	return a.len < b.len ? -1 : a.len > b.len;
}

static struct span place_path(const struct heard_work *k, const struct place *p) { return span_of(k->paths.p + p->path, p->len); }

static int cmp_place(const void *x, const void *y, void *ctx)
{
	const struct place *p = x, *q = y;
	int c = cmp_path(place_path(ctx, p), place_path(ctx, q));

	/* The gap first: it says all that there is to say. */
	return c ? c : (p->gap == NULL) - (q->gap == NULL);
}

static struct level *top(struct heard_work *k) { return &k->levels[k->depth - 1]; }

static bool is_ours(struct heard *b, struct span name)
{
	AUTO_BUF struct buf full = {0};

	if (!top(b->work)->has_own || !name.len)
		return false;
	buf_add(&full, b->work->way.p, b->work->way.len);
	buf_str(&full, "/");
	buf_add(&full, name.p, name.len);
	return !watch_is_inside(b->watch, span_of(full.p, full.len));
}

/* The flags of all rows with the name that comes next. */
static uint8_t take_name(struct heard *b, struct span *name)
{
	struct level *l = top(b->work);
	uint8_t flags = 0;
	uint32_t dir;

	*name = names_at(&b->names, l->names[l->at], &dir);
	for (; l->at < l->n && span_eq(names_at(&b->names, l->names[l->at], &dir), *name); l->at++)
		flags |= b->names.rows[l->names[l->at]].flags;
	return flags;
}

/* Writes the names of the innermost directory below `before`, or all that are left. */
static int put_names(struct heard *b, const struct span *before, struct err *e)
{
	struct level *l = top(b->work);
	uint32_t dir;

	while (l->at < l->n) {
		if (before && span_cmp(names_at(&b->names, l->names[l->at], &dir), *before) >= 0)
			return 0;
		struct span name;
		uint8_t flags = take_name(b, &name);
		if (is_ours(b, name))
			continue;
		b->n_names++;
		if (changes_put(&b->work->to.out, flags, name, e) || breathe(b, e))
			return -1;
	}
	return 0;
}

static int leave(struct heard *b, struct err *e)
{
	struct heard_work *k = b->work;

	if (put_names(b, NULL, e))
		return -1;
	if (k->depth-- > 1) {
		changes_leave(&k->to.out);
		k->way.len = top(k)->path_len;
	}
	return 0;
}

static void enter(struct heard *b, struct span name)
{
	struct heard_work *k = b->work;

	if (k->depth == k->cap_levels) {
		k->cap_levels = k->cap_levels ? k->cap_levels * 2 : 32;
		k->levels = xrealloc(k->levels, k->cap_levels * sizeof *k->levels);
	}
	if (k->depth) {
		buf_str(&k->way, "/");
		buf_add(&k->way, name.p, name.len);
		changes_enter(&k->to.out, name, 0); /* in '/' it stands from the beginning */
	}
	k->levels[k->depth++] = (struct level){.path_len = k->way.len};
}

static void skip(struct heard_work *k, struct span path)
{
	buf_reset(&k->skipped);
	buf_add(&k->skipped, path.p, path.len);
	k->has_skipped = true;
}

/* One more component of the way down. 0: it was entered; 1: everything below was said. */
static int step(struct heard *b, struct span name, struct err *e)
{
	struct heard_work *k = b->work;
	struct level *l = top(k);
	uint8_t flags = 0;
	uint32_t dir;
	struct span got = name;

	if (put_names(b, &name, e))
		return -1;
	if (l->at < l->n && span_eq(names_at(&b->names, l->names[l->at], &dir), name))
		flags = take_name(b, &got);
	if (flags & CHANGED_SUBTREE) {
		AUTO_BUF struct buf path = {0};
		buf_add(&path, k->way.p, k->way.len);
		buf_str(&path, "/");
		buf_add(&path, name.p, name.len);
		skip(k, span_of(path.p, path.len));
		b->n_names++;
		return changes_put(&k->to.out, flags, got, e) ? -1 : 1;
	}
	enter(b, name);
	if (!flags)
		return 0;
	b->n_names++;
	return changes_put(&k->to.out, flags, (struct span){0}, e);
}

static bool has_own(const struct heard *b, struct span path)
{
	const char *own = b->watch->own;

	for (size_t i = 0; i < b->watch->n_paths; i++)
		if (span_eq(path, span_cstr(b->watch->paths[i])))
			return true;
	return own && mounts_below(span_cstr(own), path);
}

static int put_place(struct heard *b, const struct place *p, struct err *e)
{
	struct heard_work *k = b->work;
	struct span path = place_path(k, p);

	if (path.len == 1) /* "/": the way to it is empty */
		path.len = 0;
	if (k->has_skipped && (!k->skipped.len || mounts_below(path, span_of(k->skipped.p, k->skipped.len))))
		return 0;
	while (k->depth > 1 && !mounts_below(path, span_of(k->way.p, k->way.len)))
		if (leave(b, e))
			return -1;
	while (k->way.len < path.len) {
		size_t from = k->way.len + 1;
		const uint8_t *slash = memchr(path.p + from, '/', path.len - from);
		size_t to = slash ? (size_t)(slash - path.p) : path.len;
		int got = step(b, span_of(path.p + from, to - from), e);
		if (got)
			return got < 0 ? -1 : 0;
	}
	if (p->gap) {
		skip(k, path);
		return changes_gap(&k->to.out, span_cstr(p->gap), e);
	}
	struct level *l = top(k);
	l->names = &k->order[p->first];
	l->n = p->n;
	l->at = 0;
	l->has_own = has_own(b, place_path(k, p));
	return 0;
}

/* Two directories that had the same path one after the other, while they were looked up: their names become one list. */
static void join_equal(struct heard *b)
{
	struct heard_work *k = b->work;
	size_t kept = 0;

	for (size_t i = 0; i < k->n; i++) {
		struct place *p = &k->places[i], *q = kept ? &k->places[kept - 1] : NULL;
		if (!q || !span_eq(place_path(k, p), place_path(k, q))) {
			k->places[kept++] = *p;
			continue;
		}
		if (q->gap)
			continue;
		size_t end = k->n_order, n = (size_t)q->n + p->n;
		if (end + n > k->cap_order) {
			k->cap_order = end + n + k->cap_order / 2;
			k->order = xrealloc(k->order, k->cap_order * sizeof *k->order);
		}
		memcpy(&k->order[end], &k->order[q->first], q->n * sizeof *k->order);
		memcpy(&k->order[end + q->n], &k->order[p->first], p->n * sizeof *k->order);
		q->first = (uint32_t)end;
		q->n = (uint32_t)n;
		k->n_order += n;
		qsort_r(&k->order[q->first], q->n, sizeof *k->order, cmp_name, b);
	}
	k->n = kept;
}

static int cmp_inode(const void *x, const void *y) { return memcmp(x, y, 16); }

static int put_inodes(struct heard *b, struct stream_out *o, struct err *e)
{
	uint32_t n = b->inodes.n;
	AUTO_FREE uint8_t *keys = xalloc(n * INODE_LEN + 1);

	/* By device and inode, so that streams can be joined. */
	for (uint32_t i = 0; i < n; i++) {
		struct span s = words_get(&b->inodes, i + 1);
		memcpy(keys + i * INODE_LEN, s.p, INODE_LEN);
		put_be64(keys + i * INODE_LEN, get_le64(s.p));
		put_be64(keys + i * INODE_LEN + 8, get_le64(s.p + 8));
	}
	qsort(keys, n, INODE_LEN, cmp_inode);
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *p = keys + i * INODE_LEN;
		struct rd r = rd_of(p + 16, 12);
		struct record rec = {.type = REC_INODE, .u.inode = {.dev = get_be64(p), .ino = get_be64(p + 8)}};
		rec.u.inode.btime_s = rd_i64(&r);
		rec.u.inode.btime_ns = rd_u32(&r);
		if (stream_put(o, &rec, e))
			return -1;
	}
	b->n_inodes += n;
	return 0;
}

static int put_all(struct heard *b, struct err *e)
{
	struct heard_work *k = b->work;

	enter(b, (struct span){0});
	int rc = put_inodes(b, &k->to.stream, e);
	for (size_t i = 0; i < k->n && !rc; i++)
		rc = put_place(b, &k->places[i], e);
	while (k->depth && !rc)
		rc = leave(b, e);
	k->depth = 0;
	return rc;
}

/* What was found so far becomes a batch. */
static int write_places(struct heard *b, struct err *e)
{
	struct heard_work *k = b->work;

	for (size_t i = 0; i < b->gaps.n; i++)
		add_place(k, span_cstr(b->gaps.rows[i].path), 0, 0, b->gaps.rows[i].reason);
	if (!k->n && !b->inodes.n)
		return 0;
	if (k->n)
		qsort_r(k->places, k->n, sizeof *k->places, cmp_place, k);
	join_equal(b);
	k->has_skipped = false;
	buf_reset(&k->way);
	if (journal_begin_batch(b->journal, &k->to, clock_wall(), e))
		return -1;
	if (put_all(b, e)) {
		journal_drop_batch(b->journal, &k->to);
		return -1;
	}
	if (journal_end_batch(b->journal, &k->to, e))
		return -1;
	k->n = 0;
	buf_reset(&k->paths);
	return 0;
}

/* Files that no event told of stand under directories that the source has no number for. */
static void add_files(struct heard *b, struct words *dirs)
{
	uint32_t known = watch_dirs(b->watch);

	for (uint32_t no = 1; no <= b->files.n; no++) {
		struct span dir, name, path = words_get(&b->files, no);
		path_split(path, &dir, &name);
		names_put(&b->names, known + words_put(dirs, dir), name)->flags |= CHANGED_CONTENT;
	}
}

static int find_all(struct heard *b, uint32_t n_dirs, const struct words *file_dirs, struct err *e)
{
	struct heard_work *k = b->work;
	const struct watch_where where = {on_place, b};

	for (k->dir = 1; k->dir <= n_dirs; k->dir++) {
		uint32_t first = k->starts[k->dir], n = k->starts[k->dir + 1] - first;
		if (!n)
			continue;
		qsort_r(&k->order[first], n, sizeof *k->order, cmp_name, b);
		k->is_checked = false;
		int got = watch_find(b->watch, k->dir, &where, e);
		if (got < 0 || (!k->is_checked && check_objects(b, k->dir, -1, e)) || breathe(b, e))
			return -1;
		if (k->paths.len > PATHS_MAX && write_places(b, e))
			return -1;
	}
	for (uint32_t obj = 1; obj < b->suspects.len * 8; obj++) {
		if (!bits_has(&b->suspects, obj) || bits_has(&k->known, obj))
			continue;
		suspect(b, obj);
		if (breathe(b, e))
			return -1;
	}
	for (uint32_t no = 1; no <= file_dirs->n; no++) {
		uint32_t first = k->starts[n_dirs + no], n = k->starts[n_dirs + no + 1] - first;
		qsort_r(&k->order[first], n, sizeof *k->order, cmp_name, b);
		add_place(k, words_get(file_dirs, no), first, n, NULL);
	}
	return 0;
}

int heard_write(struct heard *b, struct err *e)
{
	struct heard_work k = {0};
	struct words file_dirs = {.seed = b->files.seed};
	uint32_t n_dirs = watch_dirs(b->watch);

	b->work = &k;
	b->n_names = b->n_inodes = 0;
	add_files(b, &file_dirs);
	k.order = names_by_dir(&b->names, n_dirs + file_dirs.n, &k.starts);
	k.n_order = k.cap_order = names_count(&b->names);
	int rc = find_all(b, n_dirs, &file_dirs, e) || write_places(b, e) ? -1 : 0;
	words_free(&file_dirs);
	free(k.order);
	free(k.starts);
	free(k.places);
	free(k.levels);
	buf_free(&k.paths);
	buf_free(&k.known);
	buf_free(&k.way);
	buf_free(&k.skipped);
	b->work = NULL;
	if (!rc)
		heard_reset(b);
	return rc;
}

void heard_reset(struct heard *b)
{
	names_reset(&b->names);
	buf_free(&b->suspects);
	words_reset(&b->inodes);
	words_reset(&b->files);
	gaps_free(&b->gaps);
	watch_forget(b->watch);
}

void heard_free(struct heard *b)
{
	names_free(&b->names);
	buf_free(&b->suspects);
	words_free(&b->inodes);
	words_free(&b->files);
	gaps_free(&b->gaps);
}
