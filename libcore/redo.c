#include "redo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "path.h"
#include "writeback.h"

#define ROW 17u
#define PIECE (256u * 1024)
#define SEND_MIN (8u * 1024 * 1024) /* written before it is sent to the disk beside */
#define LONG (64u * 1024) /* what comes at once with so many bytes is kept at its own offset */

static int fail(const char *what, struct err *e) { return err_sys(e, "cannot %s a staged file", what); }

static void rows_name(char out[40], const char *name, bool is_clone)
{
	snprintf(out, 40, "%.30s.%s", name, is_clone ? "pieces" : "redo");
}

static void shorts_name(char out[40], const char *name) { snprintf(out, 40, "%.30s.short", name); }

static int open_both(struct redo *d, int stage, const char *name, int flags)
{
	char rows[40], shorts[40];

	rows_name(rows, name, d->is_clone);
	shorts_name(shorts, name);
	d->shorts = -1;
	d->rows = openat(stage, rows, flags | O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (d->rows >= 0 && !d->is_clone)
		d->shorts = openat(stage, shorts, flags | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
	return d->rows < 0 || (d->shorts < 0 && !d->is_clone) ? -1 : 0;
}

int redo_begin(struct redo *d, int stage, const char *name, struct err *e)
{
	return open_both(d, stage, name, O_CREAT | O_TRUNC) ? fail("make", e) : 0;
}

static void close_both(struct redo *d)
{
	if (d->rows > 0)
		close_fd(&d->rows);
	if (d->shorts > 0)
		close_fd(&d->shorts);
}

void redo_free(struct redo *d)
{
	close_both(d);
	buf_free(&d->pending);
	*d = (struct redo){0};
}

/* ---- writing ---- */

static int punch(int fd, uint64_t off, uint64_t len, struct err *e)
{
	return file_zero(fd, off, len) ? fail("punch a hole into", e) : 0;
}

static int flush_rows(struct redo *d, struct err *e)
{
	if (file_write(d->rows, d->pending.p, d->pending.len))
		return fail("write", e);
	buf_reset(&d->pending);
	return 0;
}

static void put_row(struct redo *d, const struct redo_piece *x)
{
	wr_u64(&d->pending, x->off);
	wr_u64(&d->pending, x->len);
	wr_u8(&d->pending, x->kind);
}

static struct redo_piece *newest(struct redo *d) { return d->n ? &d->recent[(d->n - 1) % REDO_RECENT] : NULL; }

/* The newest piece, if what begins at off goes on with it. */
static struct redo_piece *newest_at(struct redo *d, uint64_t off)
{
	struct redo_piece *x = newest(d);

	return x && x->off + x->len >= off ? x : NULL;
}

/* The piece of this kind that has [off, off + len) in the end; a page that two extents share counts once. NULL on error. */
static struct redo_piece *add_piece(struct redo *d, uint64_t off, uint64_t len, uint8_t kind, struct err *e)
{
	struct redo_piece *x = newest_at(d, off);

	if (!x || x->kind != kind) {
		if (d->n)
			put_row(d, newest(d));
		if (d->pending.len >= ROW * 1024 && flush_rows(d, e))
			return NULL;
		x = &d->recent[d->n++ % REDO_RECENT];
		*x = (struct redo_piece){off, 0, kind == REDO_SHORT ? d->shorts_end : off, kind};
	}
	x->len = max_u64(x->len, off + len - x->off);
	if (kind == REDO_SHORT)
		d->shorts_end = x->at + x->len;
	return x;
}

int redo_replaced(struct redo *d, uint64_t off, uint64_t len, struct err *e) { return add_piece(d, off, len, REDO_DATA, e) ? 0 : -1; }

static int put(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e)
{
	const struct redo_piece *x = newest_at(d, off);
	bool is_long = d->is_clone || n >= LONG || (x && x->kind == REDO_DATA);

	d->bytes += n;
	x = add_piece(d, off, n, is_long ? REDO_DATA : REDO_SHORT, e);
	if (!x)
		return -1;
	return file_write_at(is_long ? d->fd : d->shorts, p, n, x->at + (off - x->off)) ? fail("write", e) : 0;
}

/* n bytes inside one page, completed with what the page holds else. */
static int put_part(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e)
{
	uint8_t page[REDO_PAGE];
	uint64_t start = off - off % REDO_PAGE;

	if (redo_read(d, page, sizeof page, start, e))
		return -1;
	if (p)
		memcpy(page + (off - start), p, n);
	else
		memset(page + (off - start), 0, n);
	return put(d, page, sizeof page, start, e);
}

/* Bytes before the next border of a page, when off or the end lies inside one. */
static size_t part_at(uint64_t off, uint64_t n)
{
	uint64_t in = off % REDO_PAGE;

	return in || n < REDO_PAGE ? (size_t)min_u64(n, REDO_PAGE - in) : 0;
}

int redo_write(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e)
{
	for (const uint8_t *at = p; n;) {
		size_t part = part_at(off, n), m = part ? part : n - n % REDO_PAGE;
		if (part ? put_part(d, at, m, off, e) : put(d, at, m, off, e))
			return -1;
		at += m;
		off += m;
		n -= m;
	}
	return 0;
}

int redo_hole(struct redo *d, uint64_t off, uint64_t len, struct err *e)
{
	while (len) {
		uint64_t part = part_at(off, len), m = part ? part : len - len % REDO_PAGE;
		if (part ? put_part(d, NULL, part, off, e) : (d->is_clone && punch(d->fd, off, m, e)) || !add_piece(d, off, m, REDO_HOLE, e))
			return -1;
		off += m;
		len -= m;
	}
	return 0;
}

/* The piece that covers off, or NULL; *end: how far that answer holds. */
static const struct redo_piece *piece_at(const struct redo *d, uint64_t off, uint64_t *end)
{
	*end = UINT64_MAX;
	for (unsigned i = d->n; i > 0 && d->n - i < REDO_RECENT; i--) {
		const struct redo_piece *x = &d->recent[(i - 1) % REDO_RECENT];
		if (off >= x->off + x->len)
			return NULL;
		*end = x->off;
		if (off >= x->off) {
			*end = x->off + x->len;
			return x;
		}
	}
	return NULL;
}

static int read_piece(const struct redo_piece *x, int fd, int shorts, void *p, size_t n, uint64_t off, struct err *e)
{
	if (x->kind == REDO_HOLE)
		memset(p, 0, n);
	else if (file_read_at(x->kind == REDO_SHORT ? shorts : fd, p, n, x->at + (off - x->off)))
		return fail("read", e);
	return 0;
}

int redo_read(struct redo *d, void *out, size_t n, uint64_t off, struct err *e)
{
	const uint64_t stop = off + n;
	uint64_t end;
	uint8_t *p = out;
	const struct redo_piece *x = piece_at(d, off, &end);

	/* All of the base's in one call: what is between two pieces is little. */
	if ((!x || end < stop) && file_read_at(d->base, p, n, off))
		return fail("read", e);
	for (; off < stop; p += min_u64(end, stop) - off, off = min_u64(end, stop)) {
		x = piece_at(d, off, &end);
		size_t m = (size_t)(min_u64(end, stop) - off);
		if (x && read_piece(x, d->fd, d->shorts, p, m, off, e))
			return -1;
	}
	return 0;
}

int redo_shorts(const struct redo *d) { return d->shorts > 0 ? d->shorts : -1; }

/* The newest piece may still grow: it is kept beside the rows. */
int redo_save(struct redo *d, struct buf *out, struct err *e)
{
	struct stat st;

	if (flush_rows(d, e))
		return -1;
	if (fstat(d->rows, &st))
		return fail("look at", e);
	wr_u64(out, (uint64_t)st.st_size);
	wr_u64(out, d->bytes);
	wr_u64(out, d->shorts_end);
	wr_u32(out, d->n);
	for (unsigned i = d->n > REDO_RECENT ? d->n - REDO_RECENT : 0; i < d->n; i++) {
		const struct redo_piece *x = &d->recent[i % REDO_RECENT];
		wr_u64(out, x->off);
		wr_u64(out, x->len);
		wr_u64(out, x->at);
		wr_u8(out, x->kind);
	}
	return 0;
}

/* A run that was killed may have filled the rest of the page that pos lies in: it holds what the base has there again. And it may have kept
 * long pieces behind, where there will be holes now. */
static int forget_after(struct redo *d, uint64_t pos, struct err *e)
{
	const struct redo_piece *last = newest(d);
	uint8_t rest[REDO_PAGE];
	uint64_t end = last && last->kind != REDO_HOLE ? last->off + last->len : 0;

	if (ftruncate(d->fd, (off_t)max_u64(pos, end)))
		return fail("size", e);
	if (end <= pos || end - pos > sizeof rest)
		return 0;
	if (file_read_at(d->base, rest, (size_t)(end - pos), pos))
		return fail("read for", e);
	int fd = last->kind == REDO_SHORT ? d->shorts : d->fd;
	return file_write_at(fd, rest, (size_t)(end - pos), last->at + (pos - last->off)) ? fail("write", e) : 0;
}

int redo_load(struct redo *d, int stage, const char *name, struct rd *in, uint64_t pos, struct err *e)
{
	uint64_t size = rd_u64(in);

	d->bytes = rd_u64(in);
	d->shorts_end = rd_u64(in);
	d->n = rd_u32(in);
	for (unsigned i = d->n > REDO_RECENT ? d->n - REDO_RECENT : 0; i < d->n && !in->bad; i++) {
		struct redo_piece *x = &d->recent[i % REDO_RECENT];
		x->off = rd_u64(in);
		x->len = rd_u64(in);
		x->at = rd_u64(in);
		x->kind = rd_u8(in);
	}
	if (open_both(d, stage, name, 0) || ftruncate(d->rows, (off_t)size))
		return fail("open", e);
	return d->is_clone ? 0 : forget_after(d, pos, e);
}

int redo_end(struct redo *d, struct err *e)
{
	if (d->n)
		put_row(d, newest(d));
	int rc = flush_rows(d, e);
	close_both(d);
	return rc;
}

/* ---- using ---- */

bool redo_is(int stage, const char *name)
{
	char rows[40];

	rows_name(rows, name, false);
	return faccessat(stage, rows, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int redo_open(struct redo_reader *x, int stage, const char *name, struct err *e)
{
	char rows[40], shorts[40];

	*x = (struct redo_reader){.rows = -1, .shorts = -1};
	for (int is_clone = 0; is_clone < 2 && x->rows < 0; is_clone++) {
		rows_name(rows, name, is_clone);
		x->rows = path_open_at(stage, rows, O_RDONLY, 0);
		if (x->rows < 0 && errno != ENOENT)
			return fail("open", e);
	}
	if (x->rows < 0)
		return 0;
	x->is_open = true;
	x->fd = path_open_at(stage, name, O_RDWR, 0);
	shorts_name(shorts, name);
	x->shorts = path_open_at(stage, shorts, O_RDONLY, 0);
	return x->fd < 0 || (x->shorts < 0 && errno != ENOENT) ? fail("open", e) : 1;
}

void redo_close(struct redo_reader *x)
{
	if (!x->is_open)
		return;
	close_fd(&x->fd);
	close_fd(&x->shorts);
	close_fd(&x->rows);
	x->is_open = false;
}

int redo_next(struct redo_reader *x, struct err *e)
{
	if (x->at == x->len) {
		ssize_t n = read(x->rows, x->buf, sizeof x->buf);
		if (n < 0 || n % ROW)
			return fail("read", e);
		x->len = (size_t)n;
		x->at = 0;
		if (!n)
			return 0;
	}
	struct rd row = rd_of(x->buf + x->at, ROW);
	x->now.off = x->now.at = rd_u64(&row);
	x->now.len = rd_u64(&row);
	x->now.kind = rd_u8(&row);
	x->at += ROW;
	if (x->now.kind == REDO_SHORT) {
		x->now.at = x->shorts_end;
		x->shorts_end += x->now.len;
	}
	return 1;
}

int redo_now(const struct redo_reader *x, void *p, size_t n, uint64_t off, struct err *e)
{
	return read_piece(&x->now, x->fd, x->shorts, p, n, off, e);
}

/* The piece as far as end. buf: PIECE bytes. */
static int copy(const struct redo_reader *x, int to, uint64_t end, uint8_t *buf, struct err *e)
{
	for (uint64_t off = x->now.off; off < end;) {
		size_t n = (size_t)min_u64(end - off, PIECE);
		if (redo_now(x, buf, n, off, e))
			return -1;
		if (file_write_at(to, buf, n, off))
			return fail("copy", e);
		off += n;
	}
	return 0;
}

/* One that has to be there: of a sparse file. */
static int open_list(struct redo_reader *x, int stage, const char *name, struct err *e)
{
	int got = redo_open(x, stage, name, e);

	errno = ENOENT;
	return got ? got : fail("open the list of", e);
}

int redo_replay(int stage, const char *name, int fd, uint64_t size, struct err *e)
{
	struct redo_reader p;
	struct writeback *beside = NULL;
	uint64_t unsent = 0;
	int got = open_list(&p, stage, name, e);
	off_t was = lseek(fd, 0, SEEK_END); /* also of a block device */
	AUTO_FREE uint8_t *buf = xalloc(PIECE);

	if (got > 0 && was < 0)
		got = fail("size", e);
	while (got > 0 && (got = redo_next(&p, e)) > 0) {
		uint64_t end = min_u64(p.now.off + p.now.len, size);
		if (p.now.off >= end)
			continue;
		/* Beyond the old end everything is a hole already. */
		bool is_hole = p.now.kind == REDO_HOLE;
		if (is_hole && p.now.off >= (uint64_t)was)
			continue;
		if (is_hole ? punch(fd, p.now.off, end - p.now.off, e) : copy(&p, fd, end, buf, e))
			got = -1;
		unsent += is_hole ? 0 : end - p.now.off;
		if (unsent >= SEND_MIN && writeback_files(&beside, fd, -1))
			unsent = 0;
	}
	redo_close(&p);
	writeback_end(&beside);
	if (got < 0)
		return -1;
	return file_resize(fd, size) ? fail("size", e) : 0;
}

int redo_fill(int stage, const char *name, int base, uint64_t size, struct err *e)
{
	struct redo_reader p;
	struct stat st = {0};
	uint64_t pos = 0;
	char rows[40];
	AUTO_FREE uint8_t *buf = xalloc(PIECE);
	int got = open_list(&p, stage, name, e);

	if (got > 0 && fstat(base, &st))
		got = fail("stat", e);
	uint64_t stop = min_u64(size, (uint64_t)st.st_size);
	while (got > 0 && (got = redo_next(&p, e)) >= 0) {
		uint64_t end = got ? min_u64(p.now.off, stop) : stop;
		if (pos < end && file_copy(base, p.fd, pos, end))
			got = fail("complete", e);
		if (got <= 0)
			break;
		pos = p.now.off + p.now.len;
		if (p.now.kind == REDO_SHORT && copy(&p, p.fd, pos, buf, e))
			got = -1;
	}
	if (got == 0 && ftruncate(p.fd, (off_t)size))
		got = fail("size", e);
	/* Without its rows it counts as whole, after a power cut too. */
	if (got == 0 && fsync(p.fd))
		got = fail("sync", e);
	redo_close(&p);
	rows_name(rows, name, false);
	/* The short pieces stay as long as the stage: should a power cut bring the list back, it is filled once more. */
	if (got == 0 && unlinkat(stage, rows, 0))
		got = fail("finish", e);
	return got;
}
