#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attr.h"
#include "content.h"
#include "extents.h"
#include "file.h"
#include "meta.h"
#include "path.h"
#include "writeback.h"

#define PIECE (1024u * 1024)
#define CLONED_MOST 16384u /* extents */
#define SEND_MIN (8u * 1024 * 1024)
#define SEND_SEALED (32u * 1024 * 1024) /* of many files: a filesystem has more to do for them */
#define FLUSH_MIN (1024u * 1024) /* less is written as quickly when it is waited for */
#define REDO_MIN (1024u * 1024) /* smaller files are copied: then a reader that has one open keeps the old one */

void stage_start(struct stage *s, struct replica *r)
{
	s->r = r;
	s->fd = s->src_fd = s->base_fd = -1;
}

void stage_free(struct stage *s)
{
	close_fd(&s->fd);
	close_fd(&s->src_fd);
	close_fd(&s->base_fd);
	writeback_end(&s->writeback);
	redo_free(&s->redo);
	shifts_free(&s->shifts);
	object_free(&s->old);
	object_free(&s->src);
	free(s->buf);
	free(s->waiting);
	s->buf = NULL;
	s->waiting = NULL;
	s->is_open = false;
}

static int fail(struct stage *s, const char *what, struct err *e)
{
	return err_sys(e, "cannot %s a staged file in '%s'", what, s->r->path);
}

static int write_at(struct stage *s, const uint8_t *p, size_t n, uint64_t off, struct err *e)
{
	s->bytes_written += n;
	s->unsent += n;
	/* What is written goes on its way to the disk: else all of it waits there when the delta is decided. */
	if (s->unsent >= SEND_MIN && writeback_files(&s->writeback, s->fd, s->has_pieces ? redo_shorts(&s->redo) : -1))
		s->unsent = 0;
	if (s->has_pieces)
		return redo_write(&s->redo, p, n, off, e);
	return file_write_at(s->fd, p, n, off) ? fail(s, "write", e) : 0;
}

/* Of the file as it will be. */
static int read_back(struct stage *s, uint8_t *p, size_t n, uint64_t off, struct err *e)
{
	s->bytes_read += n;
	if (s->has_pieces)
		return redo_read(&s->redo, p, n, off, e);
	return file_read_at(s->fd, p, n, off) ? fail(s, "read", e) : 0;
}

static int open_old(struct stage *s, uint64_t no, struct err *e)
{
	if (catalog_get(s->r->cat, no, &s->old, e) != 1)
		return catalog_damaged(s->r->cat, "it lacks an object that it should have", e);
	/* Remembered in blocks of another size, the rows say nothing about ours: what is kept is read. */
	s->is_foreign = s->old.grain != s->grain;
	s->old_blocks = s->is_foreign ? 0 : object_blocks(s->old.size, s->grain);
	s->base_fd = replica_open_base(s->r, &s->old, e);
	return s->base_fd < 0 ? -1 : 0;
}

/* A clone takes as long as the file has extents, each page that is written to one makes another, and so it gets worse from image to
 * image: on XFS 80,000 of them took 1.4 s. On btrfs it was not found to. */
static bool is_scattered(const struct stage *s)
{
	return s->old.size >= REDO_MIN && extents_are_many(s->base_fd, CLONED_MOST);
}

/* The base file as a start: one clone; for a large one nothing but what will change in it; else its data extents copied. */
static int start_patch(struct stage *s, struct err *e)
{
	bool is_clone = !s->place && !is_scattered(s) && ioctl(s->fd, FICLONE, s->base_fd) == 0;

	s->is_redo = !is_clone && (s->place || s->old.size >= REDO_MIN);
	if (!is_clone && !s->is_redo) {
		s->bytes_written += s->old.size;
		return file_clone(s->base_fd, s->fd, s->old.size) ? fail(s, "copy the base of", e) : 0;
	}
	/* Of blocks that are single pages their digests say what changed. */
	s->has_pieces = s->is_redo || s->grain > REDO_PAGE;
	s->redo = (struct redo){.fd = s->fd, .base = s->base_fd, .is_clone = is_clone};
	return s->has_pieces ? redo_begin(&s->redo, s->room->stage, s->name, e) : 0;
}

/* Written twice, the pieces of a redo must not cost more than the whole file written once. */
static int end_redo(struct stage *s, uint64_t size, struct err *e)
{
	if (redo_end(&s->redo, e))
		return -1;
	if (!s->is_redo || s->place || s->redo.bytes <= size / 2)
		return 0;
	s->bytes_written += size - min_u64(size, s->redo.bytes);
	return redo_fill(s->room->stage, s->name, s->base_fd, size, e);
}

static void make_buffers(struct stage *s)
{
	if (s->buf)
		return;
	s->buf = xalloc(PIECE);
	s->waiting = xalloc(STAGE_WAITING * sizeof *s->waiting);
}

/* The bytes up to `end` fit where they will be. */
static int check_room(const struct stage *s, uint64_t end, struct err *e)
{
	return s->place ? where_fits(s->place, end, e) : 0;
}

/* Nothing that was there shows through: what no extent names is made zeros as it is passed. */
static int begin_direct(struct stage *s, struct err *e)
{
	int fd = where_write(s->place, e);

	if (fd < 0)
		return -1;
	s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return s->fd < 0 ? fail(s, "open", e) : 0;
}

/* Nobody else gets to it in there, and we always do. */
static int make_file(const struct stage *s)
{
	mode_t mode = s->is_plain ? (s->meta.mode & 0777) | 0600 : 0600;

	return openat(s->room->stage, s->name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
}

/* In a new directory: which is made with its first file. */
static int make_in_dir(struct stage *s, const struct stage_file *f)
{
	char dir[32];

	room_new_dir(dir, f->dir);
	snprintf(s->name, sizeof s->name, "%s/%.*s", dir, (int)f->in_dir.len, (const char *)f->in_dir.p);
	int fd = make_file(s);
	if (fd < 0 && errno == ENOENT && mkdirat(s->room->stage, dir, 0700) == 0)
		fd = make_file(s);
	/* From a run that broke off behind what we go on from; it may not let us in. */
	if (fd < 0 && errno == EACCES && unlinkat(s->room->stage, s->name, 0) == 0)
		fd = make_file(s);
	return fd;
}

static int begin_file(struct stage *s, const struct stage_file *f, struct err *e)
{
	s->fd = f->dir ? make_in_dir(s, f) : make_file(s);
	if (s->fd < 0)
		return fail(s, "make", e);
	if (s->meta.attr)
		meta_early(s->fd, &s->meta);
	return 0;
}

static int find_place(struct stage *s, const struct stage_file *f, struct err *e)
{
	s->place = f->old ? replica_elsewhere(s->r, f->old->no, e) : f->place;
	s->is_direct = !f->old && f->place && f->is_direct;
	if (!s->place && e->kind)
		return -1;
	s->room = f->old ? replica_room_of(s->r, f->old->no, e) : f->room;
	return s->room ? 0 : -1;
}

int stage_begin(struct stage *s, uint64_t n, const struct r_content *c, const struct stage_file *f, struct err *e)
{
	uint64_t of = f->old ? f->old->no : 0;

	make_buffers(s);
	s->is_again = s->is_open && s->of == of;
	s->of = of;
	close_fd(&s->fd);
	close_fd(&s->base_fd);
	redo_free(&s->redo);
	shifts_free(&s->shifts);
	s->is_open = s->is_redo = s->has_pieces = false;
	s->n_waiting = 0;
	s->is_patch = c->flags & CONTENT_PATCH;
	s->meta = *f->meta;
	s->meta.xattrs = s->meta.target = (struct span){0};
	s->is_plain = f->is_plain;
	s->is_in_dir = f->dir;
	if (s->is_patch && !f->old)
		return err_set(e, ERR_STREAM, "a patch of content that the base does not have");
	snprintf(s->name, sizeof s->name, "%llu", (unsigned long long)n);
	if (find_place(s, f, e) || (s->is_direct ? begin_direct(s, e) : begin_file(s, f, e)))
		return -1;
	object_free(&s->old);
	s->grain = c->grain;
	s->pos = s->unsent = s->block = s->old_blocks = 0;
	s->touched = s->is_foreign = false;
	s->tail_len = 0;
	s->row_n = 0;
	digest_tree_init(&s->tree);
	if (s->is_patch && (open_old(s, f->old->no, e) || start_patch(s, e)))
		return -1;
	s->is_open = true;
	return 0;
}

static int flush_rows(struct stage *s, struct err *e)
{
	size_t n = s->row_n;

	s->row_n = 0;
	return n ? s->rows(s->ctx, s->row_first, n, s->row_buf, e) : 0;
}

static int put_row(struct stage *s, uint64_t block, const uint8_t *row, struct err *e)
{
	if (s->row_n && (s->row_n == BLOCKS_ROWS || s->row_first + s->row_n != block) && flush_rows(s, e))
		return -1;
	if (!s->row_n)
		s->row_first = block;
	memcpy(s->row_buf + s->row_n++ * DIGESTS_ROW, row, DIGESTS_ROW);
	return 0;
}

static int close_row(struct stage *s, uint64_t block, const uint8_t *row, struct err *e)
{
	struct digest d;

	content_row_digest(row, s->grain, &d);
	digest_tree_add(&s->tree, &d, 1);
	return put_row(s, block, row, e);
}

/* n blocks from this one on, the last of which may be shorter: len bytes, no more than a piece. */
static int close_read(struct stage *s, uint64_t block, size_t n, size_t len, struct err *e)
{
	struct digest d[PIECE / DIGEST_GRAIN_MIN];
	uint8_t row[DIGESTS_ROW];

	if (read_back(s, s->buf, len, block * s->grain, e))
		return -1;
	digest_blocks(d, s->buf, len, s->grain);
	for (size_t i = 0; i < n; i++) {
		size_t at = i * s->grain;
		blocks_row(row, block + i, &d[i], s->buf + at, min_u64(s->grain, len - at));
		if (close_row(s, block + i, row, e))
			return -1;
	}
	return 0;
}

static int put_rows(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	for (size_t i = 0; i < n; i++)
		if (put_row(ctx, first + i, rows + i * DIGESTS_ROW, e))
			return -1;
	return 0;
}

static int close_kept(struct stage *s, const struct stage_closing *c, struct err *e)
{
	/* All of them have their full length. */
	struct content_rows x = {.cat = s->r->cat, .no = s->old.no, .size = UINT64_MAX, .grain = s->grain, .tree = &s->tree, .ctx = s};

	if (s->is_again)
		x.each = put_rows;
	return content_rows(&x, c->first, c->first + c->n, e);
}

static int close_one(struct stage *s, const struct stage_closing *c, struct err *e)
{
	struct digest zero;

	if (c->has_row)
		return close_row(s, c->first, c->row, e);
	if (c->is_kept)
		return close_kept(s, c, e);
	digest_zeros(&zero, s->grain);
	digest_tree_repeat(&s->tree, &zero, c->n);
	return 0;
}

static int close_first(struct stage *s, size_t n, struct err *e)
{
	size_t k;

	for (size_t i = 0; i < n; i += k) {
		const struct stage_closing *c = &s->waiting[i];
		size_t len = c->len;
		for (k = 1; len && i + k < n && c[k].len && len % s->grain == 0 && len + c[k].len <= PIECE; k++)
			len += c[k].len;
		if (len ? close_read(s, c->first, k, len, e) : close_one(s, c, e))
			return -1;
	}
	s->n_waiting -= n;
	memmove(s->waiting, s->waiting + n, s->n_waiting * sizeof *s->waiting);
	return 0;
}

static int close_waiting(struct stage *s, struct err *e) { return close_first(s, s->n_waiting, e); }

/* The next blocks are finished. Once one has to be read the others wait with it, so that the kernel can read many at a time; while
 * the older half is looked at it reads the rest. */
static int close_next(struct stage *s, struct stage_closing c, struct err *e)
{
	c.first = s->block;
	s->block += c.n;
	s->touched = false;
	s->tail_len = 0;
	if (!s->n_waiting && !c.len)
		return close_one(s, &c, e);
	if (c.is_cold)
		posix_fadvise(s->has_pieces ? s->base_fd : s->fd, (off_t)(c.first * s->grain), c.len, POSIX_FADV_WILLNEED);
	c.pieces = s->redo.n;
	s->waiting[s->n_waiting++] = c;
	bool is_full = s->n_waiting == STAGE_WAITING || s->redo.n - s->waiting->pieces >= REDO_RECENT / 4;
	return is_full ? close_first(s, (s->n_waiting + 1) / 2, e) : 0;
}

/* The next block has this digest. p: its first leaf at least, when it is as long as one. */
static int close_block(struct stage *s, const struct digest *d, const uint8_t *p, uint64_t len, struct err *e)
{
	struct stage_closing c = {.n = 1, .has_row = true};

	blocks_row(c.row, s->block, d, p, len);
	return close_next(s, c, e);
}

static int reread_block(struct stage *s, uint64_t len, bool is_cold, struct err *e)
{
	return close_next(s, (struct stage_closing){.n = 1, .len = (uint32_t)len, .is_cold = is_cold}, e);
}

static int close_zeros(struct stage *s, uint64_t n, struct err *e)
{
	return close_next(s, (struct stage_closing){.n = n}, e);
}

/* Blocks that no extent touched, up to block `end`: as in the base, or zeros. All of full length. */
static int keep_blocks(struct stage *s, uint64_t end, struct err *e)
{
	const uint64_t kept = min_u64(end, s->old.size / s->grain);

	if (s->is_patch && !s->is_foreign && s->block < kept &&
			close_next(s, (struct stage_closing){.n = kept - s->block, .is_kept = true}, e))
		return -1;
	/* The base's short last block, longer now; or all that its rows say nothing about. */
	while (s->is_patch && s->block < end && s->block * s->grain < s->old.size)
		if (reread_block(s, s->grain, true, e))
			return -1;
	return s->block < end ? close_zeros(s, end - s->block, e) : 0;
}

/* Everything before off is described: finishes the blocks that end there or before. */
static int advance(struct stage *s, uint64_t off, struct err *e)
{
	uint64_t end = off / s->grain;

	if (s->block < end && s->touched && reread_block(s, s->grain, s->is_patch, e))
		return -1;
	return s->block < end ? keep_blocks(s, end, e) : 0;
}

/* Up to off nothing is said. In a file there are zeros where nothing was; at a place elsewhere, whatever was left there. */
static int pass_gap(struct stage *s, uint64_t off, struct err *e)
{
	if (s->is_direct)
		return file_zero(s->fd, s->pos, off - s->pos) ? fail(s, "punch a hole into", e) : 0;
	uint64_t from = max_u64(s->pos, s->old.size);
	return s->place && s->is_patch && from < off ? redo_hole(&s->redo, from, off - from, e) : 0;
}

static int extent(struct stage *s, uint64_t off, uint64_t len, struct err *e)
{
	if (!s->is_open)
		return err_set(e, ERR_STREAM, "an extent without content");
	if (off < s->pos)
		return err_set(e, ERR_STREAM, "extents out of order or overlapping");
	if (check_room(s, off + len, e) || pass_gap(s, off, e) || advance(s, off, e))
		return -1;
	s->pos = off + len;
	return 0;
}

/* Something was written up to end that began inside a block: the blocks that it finished have to be read. */
static int close_crossed(struct stage *s, uint64_t end, bool is_cold, struct err *e)
{
	s->touched = true;
	s->tail_len = 0;
	while ((s->block + 1) * s->grain <= end)
		if (reread_block(s, s->grain, is_cold, e))
			return -1;
	s->touched = end > s->block * s->grain;
	return 0;
}

/* Whole blocks from the next one on have these digests; the last may be shorter, if the file ends with it. */
static int close_hashed(struct stage *s, const struct digest *blocks, const uint8_t *p, size_t len, struct err *e)
{
	for (; len >= s->grain; blocks++, p += s->grain, len -= s->grain)
		if (close_block(s, blocks, p, s->grain, e))
			return -1;
	if (len) {
		s->touched = true;
		s->tail = *blocks;
		s->tail_len = len;
	}
	return 0;
}

int stage_data(struct stage *s, const struct r_data *d, struct err *e)
{
	const uint8_t *p = d->bytes.p;
	const size_t len = d->bytes.len;
	AUTO_FREE struct digest *blocks = NULL;
	struct digest whole;

	if (extent(s, d->off, len, e))
		return -1;
	bool is_on_grid = d->off % s->grain == 0;
	if (is_on_grid) {
		/* Hash the grid's blocks; the record's digest is the tree over them. */
		struct digest_tree t;
		size_t n = (size_t)object_blocks(len, s->grain);
		blocks = xalloc(n * sizeof *blocks);
		digest_tree_init(&t);
		digest_blocks(blocks, p, len, s->grain);
		digest_tree_add(&t, blocks, n);
		digest_tree_root(&t, &whole);
	} else {
		digest_bytes(&whole, p, len);
	}
	if (!digest_eq(&whole, &d->digest))
		return err_set(e, ERR_STREAM, "content does not match its digest");
	if (write_at(s, p, len, d->off, e))
		return -1;
	return is_on_grid ? close_hashed(s, blocks, p, len, e) : close_crossed(s, d->off + len, false, e);
}

/* ---- copies ---- */

static int open_source(struct stage *s, uint64_t src, struct err *e)
{
	if (s->src_fd >= 0 && s->src.no == src)
		return 0;
	close_fd(&s->src_fd);
	int got = catalog_get(s->r->cat, src, &s->src, e);
	if (got != 1 || s->src.type != OBJ_FILE)
		return err_set(e, ERR_STREAM, "a copy from what is not a file of the base");
	s->src_fd = replica_open_base(s->r, &s->src, e);
	return s->src_fd < 0 ? -1 : 0;
}

static bool share(const struct stage *s, const struct r_copy *c)
{
	struct file_clone_range cr = {.src_fd = s->src_fd, .src_offset = c->src, .src_length = c->len, .dest_offset = c->off};

	return !s->is_redo && c->src % 4096 == 0 && c->off % 4096 == 0 && c->len % 4096 == 0 && ioctl(s->fd, FICLONERANGE, &cr) == 0;
}

/* Hashed on its way, if it begins with a block. n: at most a piece, to a block's end or the copy's. */
static int copy_piece(struct stage *s, uint64_t src, uint64_t off, size_t n, struct err *e)
{
	struct digest blocks[PIECE / DIGEST_GRAIN_MIN];

	/* They are read into the same buffer. */
	if (close_waiting(s, e))
		return -1;
	s->bytes_read += n;
	if (file_read_at(s->src_fd, s->buf, n, src))
		return fail(s, "read for", e);
	if (write_at(s, s->buf, n, off, e))
		return -1;
	if (off % s->grain)
		return close_crossed(s, off + n, false, e);
	digest_blocks(blocks, s->buf, n, s->grain);
	return close_hashed(s, blocks, s->buf, n, e);
}

int stage_copy(struct stage *s, const struct r_copy *c, uint64_t src, struct err *e)
{
	const uint64_t end = c->off + c->len;

	if (extent(s, c->off, c->len, e) || open_source(s, src, e))
		return -1;
	if (c->src + c->len > s->src.size)
		return err_set(e, ERR_STREAM, "a copy from beyond the end of its source");
	s->tail_len = 0;
	if (src == s->of)
		shifts_add(&s->shifts, &(struct shift){c->off, c->len, c->src});
	if (share(s, c))
		return (s->has_pieces && redo_replaced(&s->redo, c->off, c->len, e)) || close_crossed(s, end, true, e) ? -1 : 0;
	for (uint64_t off = c->off; off < end;) {
		uint64_t in = off % s->grain, n = min_u64(end - off, in ? s->grain - in : PIECE);
		if (copy_piece(s, c->src + (off - c->off), off, (size_t)n, e))
			return -1;
		off += n;
	}
	return 0;
}

/* Up to block `stop` there are zeros now. Only what has a row needs another. */
static int replace_rows(struct stage *s, uint64_t stop, struct err *e)
{
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	int n;

	for (uint64_t at = s->block; (n = catalog_blocks_some(s->r->cat, s->old.no, &at, stop, rows, e)) > 0; at += (uint64_t)n) {
		if (s->block < at && close_zeros(s, at - s->block, e))
			return -1;
		for (int i = 0; i < n; i++)
			if (close_next(s, (struct stage_closing){.n = 1, .has_row = true}, e))
				return -1;
	}
	return n;
}

int stage_hole(struct stage *s, const struct r_hole *h, struct err *e)
{
	uint64_t end = h->off + h->len;

	if (extent(s, h->off, h->len, e))
		return -1;
	uint64_t stop = s->place ? end : min_u64(end, s->old.size);
	if (s->is_patch && h->off < stop) {
		uint64_t len = stop - h->off;
		if (s->has_pieces) {
			if (redo_hole(&s->redo, h->off, len, e))
				return -1;
		} else if (file_zero(s->fd, h->off, len)) {
			return fail(s, "punch a hole into", e);
		}
	}
	if (s->is_direct && file_zero(s->fd, h->off, h->len))
		return fail(s, "punch a hole into", e);
	s->tail_len = 0;
	if (h->off % s->grain) {
		s->touched = true;
		if (end >= (s->block + 1) * s->grain && reread_block(s, s->grain, s->is_patch, e))
			return -1;
	}
	uint64_t full = end / s->grain;
	if (s->block < full && replace_rows(s, min_u64(full, s->old_blocks), e))
		return -1;
	if (s->block < full && close_zeros(s, full - s->block, e))
		return -1;
	s->touched = end > s->block * s->grain;
	return 0;
}

/* It moves with its directory, which changes nothing about it. */
static void take_hint(struct stage *s)
{
	struct attr a = {0};
	struct err ignored = {0};

	if (!attr_stat(&a, s->fd, NULL, &ignored) && attr_same(&a.meta, &s->meta))
		s->hint = attr_settled(&a, 1);
	attr_free(&a);
}

static void flush_sealed(struct stage *s, uint64_t least)
{
	if (s->unsent_sealed >= least && writeback_all(&s->writeback, s->room->stage))
		s->unsent_sealed = 0;
}

void stage_end(struct stage *s)
{
	close_fd(&s->src_fd);
	if (s->room)
		flush_sealed(s, FLUSH_MIN);
}

int stage_seal(struct stage *s, const struct r_seal *seal, struct err *e)
{
	struct digest d;
	char want[65], have[65];

	if (!s->is_open)
		return err_set(e, ERR_STREAM, "a seal without content");
	s->is_open = false;
	if (seal->size < s->pos)
		return err_set(e, ERR_STREAM, "content beyond the end of its file");
	if (check_room(s, seal->size, e) || pass_gap(s, seal->size, e))
		return -1;
	if (!s->is_redo && file_resize(s->fd, seal->size))
		return fail(s, "size", e);
	if (advance(s, seal->size, e) || close_waiting(s, e))
		return -1;
	uint64_t tail = seal->size % s->grain;
	if (tail) {
		if (s->tail_len == tail && s->pos == seal->size) {
			uint64_t start = s->block * s->grain;
			if (tail >= DIGEST_LEAF && read_back(s, s->buf, DIGEST_LEAF, start, e))
				return -1;
			if (close_block(s, &s->tail, s->buf, tail, e))
				return -1;
		} else if (!s->touched && s->is_patch && s->block + 1 == s->old_blocks && s->old.size == seal->size) {
			uint8_t row[DIGESTS_ROW];
			if (catalog_blocks(s->r->cat, s->old.no, s->block, 1, row, e))
				return -1;
			if (s->old.size < DIGEST_LEAF)
				d = s->old.content;
			else
				content_row_digest(row, tail, &d);
			digest_tree_add(&s->tree, &d, 1);
			if (s->is_again && put_row(s, s->block, row, e))
				return -1;
		} else if (reread_block(s, tail, s->is_patch, e)) {
			return -1;
		}
	}
	if (close_waiting(s, e))
		return -1;
	if (seal->size < DIGEST_LEAF)
		s->row_n = 0; /* the object's digest says it all */
	if (flush_rows(s, e))
		return -1;
	digest_tree_root(&s->tree, &d);
	if (!digest_eq(&d, &seal->digest)) {
		hex(want, seal->digest.b, 8);
		hex(have, d.b, 8);
		return err_set(e, s->is_patch || s->src_fd >= 0 ? ERR_REFUSED : ERR_STREAM,
			"content came out as %s, not %s%s", have, want,
			s->is_patch ? ": the replica's file was edited, which repl-apply --verify tells, or a catalog is damaged, see repl(7)" : "");
	}
	if (shifts_end(&s->shifts, s->room->stage, s->name, e) || (s->has_pieces && end_redo(s, seal->size, e)))
		return -1;
	close_fd(&s->base_fd);
	/* While it is open: when the delta is decided, little is left to do. */
	memset(&s->hint, 0, sizeof s->hint);
	if (s->is_plain && s->room->is_bare && !s->is_redo && !s->place && meta_dress(s->fd, &s->meta) && s->is_in_dir)
		take_hint(s);
	int fd = s->fd;
	s->fd = -1;
	s->unsent_sealed += s->unsent;
	s->unsent = 0;
	flush_sealed(s, SEND_SEALED);
	return close(fd) ? fail(s, "close", e) : 0;
}

/* ---- going on in another process ---- */

static void save_tree(const struct digest_tree *t, struct buf *out)
{
	wr_u64(out, t->count);
	for (size_t i = 0; i < sizeof t->n; i++) {
		wr_u8(out, t->n[i]);
		wr_raw(out, t->level[i], t->n[i] * sizeof t->level[i][0]);
	}
}

static void load_tree(struct digest_tree *t, struct rd *in)
{
	t->count = rd_u64(in);
	for (size_t i = 0; i < sizeof t->n; i++) {
		t->n[i] = rd_u8(in);
		if (t->n[i] > 3)
			in->bad = true;
		if (!in->bad)
			rd_copy(in, t->level[i], t->n[i] * sizeof t->level[i][0]);
	}
}

int stage_save(struct stage *s, struct buf *out, struct err *e)
{
	wr_u8(out, s->is_open);
	if (!s->is_open)
		return 0;
	/* Rows of a file shorter than a leaf are not wanted in the plan, but such a file has none before its seal. */
	if (close_waiting(s, e) || flush_rows(s, e))
		return -1;
	wr_str(out, s->name, strlen(s->name));
	wr_u32(out, s->meta.attr);
	wr_u32(out, s->grain);
	wr_u64(out, s->of);
	wr_u8(out, s->is_again);
	wr_u8(out, s->is_patch);
	wr_u8(out, s->is_redo);
	wr_u8(out, s->has_pieces);
	wr_u8(out, s->touched);
	wr_str(out, s->place ? s->place->name : "", s->place ? strlen(s->place->name) : 0);
	wr_u8(out, s->is_direct);
	wr_str(out, s->room->name, strlen(s->room->name));
	wr_u64(out, s->old.no);
	wr_u64(out, s->pos);
	wr_u64(out, s->block);
	wr_u64(out, s->tail_len);
	wr_raw(out, &s->tail, sizeof s->tail);
	save_tree(&s->tree, out);
	return shifts_save(&s->shifts, s->room->stage, s->name, out, e) || (s->has_pieces && redo_save(&s->redo, out, e)) ? -1 : 0;
}

/* The base's file as stage_begin started with it, from pos on. */
static int restore_rest(struct stage *s, struct err *e)
{
	uint64_t from = s->pos + (REDO_PAGE - s->pos % REDO_PAGE) % REDO_PAGE;
	struct file_clone_range cr = {.src_fd = s->base_fd, .src_offset = from, .dest_offset = from};

	if (ftruncate(s->fd, (off_t)s->pos))
		return fail(s, "size", e);
	if (!s->is_patch || s->pos >= s->old.size)
		return 0;
	if (from < s->old.size && ioctl(s->fd, FICLONERANGE, &cr) == 0)
		return file_copy(s->base_fd, s->fd, s->pos, from) ? fail(s, "copy the base of", e) : 0;
	return file_copy(s->base_fd, s->fd, s->pos, s->old.size) || ftruncate(s->fd, (off_t)s->old.size) ?
		fail(s, "copy the base of", e) : 0;
}

static int open_again(struct stage *s, struct rd *in, struct err *e)
{
	if (shifts_load(&s->shifts, s->room->stage, s->name, in, e))
		return -1;
	if (s->is_direct)
		return begin_direct(s, e);
	s->fd = openat(s->room->stage, s->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (s->fd < 0)
		return fail(s, "open", e);
	if (s->is_patch && open_old(s, s->old.no, e))
		return -1;
	if (!s->is_redo && restore_rest(s, e))
		return -1;
	s->redo = (struct redo){.fd = s->fd, .base = s->base_fd, .is_clone = !s->is_redo};
	return !s->has_pieces ? 0 : redo_load(&s->redo, s->room->stage, s->name, in, s->pos, e);
}

int stage_load(struct stage *s, struct rd *in, struct err *e)
{
	if (!rd_u8(in))
		return 0;
	struct span name = rd_str(in, sizeof s->name - 1);
	snprintf(s->name, sizeof s->name, "%.*s", (int)name.len, (const char *)name.p);
	s->meta = (struct r_meta){.attr = rd_u32(in)};
	s->is_plain = false;
	s->grain = rd_u32(in);
	s->of = rd_u64(in);
	s->is_again = rd_u8(in);
	s->is_patch = rd_u8(in);
	s->is_redo = rd_u8(in);
	s->has_pieces = rd_u8(in);
	s->touched = rd_u8(in);
	struct span place = rd_str(in, REC_NAME_MAX);
	s->place = place.len ? where_find(&s->r->where, place) : NULL;
	in->bad |= place.len && !s->place;
	s->is_direct = rd_u8(in);
	s->room = replica_room(s->r, rd_str(in, REC_NAME_MAX));
	s->old.no = rd_u64(in);
	s->pos = rd_u64(in);
	s->block = rd_u64(in);
	s->tail_len = rd_u64(in);
	rd_copy(in, &s->tail, sizeof s->tail);
	load_tree(&s->tree, in);
	if (in->bad)
		return 0; /* the caller asks */
	make_buffers(s);
	s->is_open = true;
	return open_again(s, in, e);
}
