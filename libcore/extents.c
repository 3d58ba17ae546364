#include "extents.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bytes.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#ifndef STATX_ATTR_DAX
#define STATX_ATTR_DAX 0x00200000
#endif

/* ---- two maps ---- */

/* What a list says about off: the extent that covers it, or NULL for a hole; *end: how far that holds. */
static const struct extent *at(const struct extent **e, const struct extent *stop, uint64_t off, uint64_t *end)
{
	while (*e < stop && (*e)->off + (*e)->len <= off)
		++*e;
	if (*e == stop)
		return NULL;
	if ((*e)->off > off) {
		*end = min_u64(*end, (*e)->off);
		return NULL;
	}
	*end = min_u64(*end, (*e)->off + (*e)->len);
	return *e;
}

static bool is_same(const struct extent *a, const struct extent *b, uint64_t off)
{
	enum extent_kind ka = a ? a->kind : EXTENT_ZEROS, kb = b ? b->kind : EXTENT_ZEROS;

	if (ka != kb || ka == EXTENT_OPAQUE)
		return false;
	return ka == EXTENT_ZEROS || (a->whole == b->whole && a->at + (off - a->off) == b->at + (off - b->off));
}

size_t extents_merge(const struct extent *a, size_t n_a, const struct extent *b, size_t n_b, uint64_t from, uint64_t to,
	struct extents_range *out)
{
	const struct extent *a_stop = a + n_a, *b_stop = b + n_b;
	size_t n = 0;

	for (uint64_t off = from; off < to;) {
		uint64_t end = to;
		const struct extent *x = at(&a, a_stop, off, &end), *y = at(&b, b_stop, off, &end);
		if (!is_same(x, y, off))
			;
		else if (n && out[n - 1].off + out[n - 1].len == off)
			out[n - 1].len += end - off;
		else
			out[n++] = (struct extents_range){off, end - off};
		off = end;
	}
	return n;
}

/* ---- one map ---- */

/* What FIEMAP says without taking anything back. */
#define HARMLESS (FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_UNWRITTEN | FIEMAP_EXTENT_SHARED | FIEMAP_EXTENT_MERGED)

static int by_fiemap(int fd, uint64_t *pos, bool sync, struct extent *out, size_t n)
{
	AUTO_FREE struct fiemap *f = xalloc(sizeof *f + n * sizeof f->fm_extents[0]);

	f->fm_start = *pos;
	f->fm_length = FIEMAP_MAX_OFFSET - *pos;
	f->fm_flags = sync ? FIEMAP_FLAG_SYNC : 0;
	f->fm_extent_count = (uint32_t)n;
	if (ioctl(fd, FS_IOC_FIEMAP, f))
		return -1;
	size_t got = f->fm_mapped_extents;
	*pos = UINT64_MAX;
	for (size_t i = 0; i < got; i++) {
		const struct fiemap_extent *x = &f->fm_extents[i];
		enum extent_kind kind = x->fe_flags & ~(uint32_t)HARMLESS ? EXTENT_OPAQUE :
			x->fe_flags & FIEMAP_EXTENT_UNWRITTEN ? EXTENT_ZEROS : EXTENT_STORED;
		out[i] = (struct extent){.off = x->fe_logical, .len = x->fe_length, .kind = kind, .at = x->fe_physical};
		*pos = got < n || x->fe_flags & FIEMAP_EXTENT_LAST ? UINT64_MAX : x->fe_logical + x->fe_length;
	}
	return (int)got;
}

bool extents_are_many(int fd, uint64_t most)
{
	struct fiemap f = {.fm_length = FIEMAP_MAX_OFFSET};
	struct statfs fs;

	return !fstatfs(fd, &fs) && (uint64_t)fs.f_type == XFS_SUPER_MAGIC && !ioctl(fd, FS_IOC_FIEMAP, &f) && f.fm_mapped_extents > most;
}

/* An EXTENT_DATA item: struct btrfs_file_extent_item, little-endian, packed. */
enum { ITEM_RAM = 8, ITEM_ENCODING = 16, ITEM_TYPE = 20, ITEM_PLACE = 21, ITEM_AT = 37, ITEM_LEN = 45, ITEM_SIZE = 53 };

static struct extent of_item(uint64_t off, const uint8_t *p, size_t len)
{
	struct extent x = {.off = off, .len = 4096, .kind = EXTENT_OPAQUE};

	if (len < ITEM_SIZE || (p[ITEM_TYPE] != BTRFS_FILE_EXTENT_REG && p[ITEM_TYPE] != BTRFS_FILE_EXTENT_PREALLOC)) {
		/* Inline: as long as what it decodes to, up to the end of its block. */
		x.len = len >= ITEM_PLACE ? max_u64(get_le64(p + ITEM_RAM), 4096) : x.len;
		return x;
	}
	uint64_t place = get_le64(p + ITEM_PLACE), in = get_le64(p + ITEM_AT);
	x.len = get_le64(p + ITEM_LEN);
	if (!place || p[ITEM_TYPE] == BTRFS_FILE_EXTENT_PREALLOC)
		x.kind = EXTENT_ZEROS;
	else
		x.kind = EXTENT_STORED;
	bool is_encoded = p[ITEM_ENCODING] || p[ITEM_ENCODING + 1] || p[ITEM_ENCODING + 2] || p[ITEM_ENCODING + 3];
	x.whole = is_encoded ? place : 0;
	x.at = is_encoded ? in : place + in;
	return x;
}

/* From the item that starts at *pos or behind it. */
static int by_search(int fd, uint64_t *pos, struct extent *out, size_t n)
{
	size_t room = n * (sizeof(struct btrfs_ioctl_search_header) + ITEM_SIZE);
	AUTO_FREE struct btrfs_ioctl_search_args_v2 *s = xalloc(sizeof *s + room);
	struct stat st;
	size_t got = 0;

	if (fstat(fd, &st))
		return -1;
	/* Tree 0: the one that the file is in. */
	s->key = (struct btrfs_ioctl_search_key){.min_objectid = st.st_ino, .max_objectid = st.st_ino,
		.min_type = BTRFS_EXTENT_DATA_KEY, .max_type = BTRFS_EXTENT_DATA_KEY, .min_offset = *pos, .max_offset = UINT64_MAX,
		.max_transid = UINT64_MAX, .nr_items = (uint32_t)n};
	s->buf_size = room;
	if (ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, s))
		return -1;
	const uint8_t *p = (const uint8_t *)s->buf, *stop = p + room;
	for (uint32_t i = 0; i < s->key.nr_items && got < n; i++) {
		struct btrfs_ioctl_search_header h;
		if ((size_t)(stop - p) < sizeof h)
			break;
		memcpy(&h, p, sizeof h);
		p += sizeof h;
		if (h.len > (size_t)(stop - p))
			break;
		out[got++] = of_item(h.offset, p, h.len);
		*pos = h.offset + 1;
		p += h.len;
	}
	/* It stops before it has found as many as were wanted at the end of the map, or when there is no room for another one. */
	if (got < n && (size_t)(stop - p) >= sizeof(struct btrfs_ioctl_search_header) + ITEM_SIZE)
		*pos = UINT64_MAX;
	return (int)got;
}

enum way { WAY_NONE, WAY_FIEMAP, WAY_SEARCH };

static enum way way_of(int fd)
{
	struct statfs fs;
	struct extent x;
	uint64_t pos = 0;

	if (fstatfs(fd, &fs))
		return WAY_NONE;
	if (fs.f_type == BTRFS_SUPER_MAGIC)
		return by_search(fd, &pos, &x, 1) < 0 ? WAY_FIEMAP : WAY_SEARCH;
	struct fsxattr xa;
	struct statx sx;
	if ((uint64_t)fs.f_type != XFS_SUPER_MAGIC || ioctl(fd, FS_IOC_FSGETXATTR, &xa) || xa.fsx_xflags & FS_XFLAG_REALTIME ||
			statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &sx) || sx.stx_attributes & STATX_ATTR_DAX)
		return WAY_NONE;
	return WAY_FIEMAP;
}

int extents_map(int fd, uint64_t *pos, bool sync, struct extent *out, size_t n)
{
	enum way w = way_of(fd);

	if (w == WAY_NONE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	if (w == WAY_FIEMAP)
		return by_fiemap(fd, pos, sync, out, n);
	if (sync && fsync(fd))
		return -1;
	return by_search(fd, pos, out, n);
}

/* ---- the iteration ---- */

struct side {
	int fd;
	uint64_t first;  /* SEARCH: where the item starts that the window's beginning lies in */
	struct extent *x;
	size_t n;
	uint64_t known;  /* what the window does not name below this is a hole */
};

struct extents {
	enum way way;
	uint64_t pos, end;
	struct side old, now, again;
	struct extents_range *ranges, last;
	size_t at, n;
	bool has_last;
};

static uint64_t end_of(const struct extent *x) { return x->off + x->len; }

/* The window that begins at pos. */
static int map(struct extents *x, struct side *s, uint64_t pos)
{
	bool is_search = x->way == WAY_SEARCH;
	uint64_t next = is_search ? s->first : pos;
	int got = is_search ? by_search(s->fd, &next, s->x, EXTENTS_WINDOW) :
		by_fiemap(s->fd, &next, pos == 0, s->x, EXTENTS_WINDOW);

	if (got < 0)
		return -1;
	s->n = (size_t)got;
	s->known = next == UINT64_MAX || !got ? UINT64_MAX : end_of(&s->x[s->n - 1]);
	/* It stood where the last window saw it, or what is before the first one is not known to be a hole. */
	if (is_search && s->first && (!got || s->x[0].off != s->first))
		return -1;
	return 0;
}

/* The search for the next window begins with the last item that starts at or before pos. */
static void step(struct side *s, uint64_t pos)
{
	for (size_t i = 0; i < s->n && s->x[i].off <= pos; i++)
		s->first = s->x[i].off;
}

static bool is_stable(const struct side *a, const struct side *b)
{
	if (a->n != b->n || a->known != b->known)
		return false;
	for (size_t i = 0; i < a->n; i++) {
		const struct extent *x = &a->x[i], *y = &b->x[i];
		if (x->off != y->off || x->len != y->len || x->kind != y->kind || x->whole != y->whole || x->at != y->at)
			return false;
	}
	return true;
}

static bool next_window(struct extents *x)
{
	x->again.first = x->old.first;
	if (x->pos >= x->end || map(x, &x->old, x->pos) || map(x, &x->now, x->pos) || map(x, &x->again, x->pos))
		return false;
	uint64_t to = min_u64(min_u64(x->old.known, x->now.known), x->end);
	if (to <= x->pos) /* an item that ends before it starts: damaged */
		return false;
	x->at = 0;
	x->n = is_stable(&x->old, &x->again) ?
		extents_merge(x->old.x, x->old.n, x->now.x, x->now.n, x->pos, to, x->ranges) : 0;
	step(&x->old, to);
	step(&x->now, to);
	x->pos = to;
	return true;
}

bool extents_next(struct extents *x, struct extents_range *r)
{
	for (;;) {
		if (x->at == x->n) {
			if (next_window(x))
				continue;
			x->pos = x->end; /* for good */
			*r = x->last;
			bool had = x->has_last;
			x->has_last = false;
			return had;
		}
		struct extents_range one = x->ranges[x->at++];
		if (x->has_last && x->last.off + x->last.len == one.off) {
			x->last.len += one.len;
			continue;
		}
		struct extents_range before = x->last;
		bool had = x->has_last;
		x->last = one;
		x->has_last = true;
		if (had) {
			*r = before;
			return true;
		}
	}
}

static bool is_same_filesystem(int a, int b, enum way w)
{
	struct btrfs_ioctl_fs_info_args fa = {0}, fb = {0};
	struct stat sa, sb;

	if (fstat(a, &sa) || fstat(b, &sb))
		return false;
	if (sa.st_dev == sb.st_dev)
		return true;
	/* Each subvolume has a device number of its own. */
	return w != WAY_NONE && !ioctl(a, BTRFS_IOC_FS_INFO, &fa) && !ioctl(b, BTRFS_IOC_FS_INFO, &fb) &&
		!memcmp(fa.fsid, fb.fsid, sizeof fa.fsid);
}

struct extents *extents_open(int old, int now, uint64_t end)
{
	enum way w = way_of(now);

	if (w == WAY_NONE || way_of(old) != w || !is_same_filesystem(old, now, w))
		return NULL;
	struct extents *x = xalloc(sizeof *x);
	*x = (struct extents){.way = w, .end = end, .old.fd = old, .now.fd = now, .again.fd = old};
	x->old.x = xalloc(EXTENTS_WINDOW * sizeof *x->old.x);
	x->now.x = xalloc(EXTENTS_WINDOW * sizeof *x->now.x);
	x->again.x = xalloc(EXTENTS_WINDOW * sizeof *x->again.x);
	x->ranges = xalloc((2 * EXTENTS_WINDOW + 1) * sizeof *x->ranges);
	return x;
}

void extents_close(struct extents **x)
{
	if (!*x)
		return;
	free((*x)->old.x);
	free((*x)->now.x);
	free((*x)->again.x);
	free((*x)->ranges);
	free(*x);
	*x = NULL;
}
