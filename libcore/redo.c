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

#define ROW 17u
#define PIECE (256u * 1024)

static int fail(const char *what, struct err *e) { return err_sys(e, "cannot %s a staged file", what); }

static void rows_name(char out[40], const char *name, bool is_clone)
{
	snprintf(out, 40, "%.30s.%s", name, is_clone ? "pieces" : "redo");
}

int redo_begin(struct redo *d, int stage, const char *name, struct err *e)
{
	char rows[40];

	rows_name(rows, name, d->is_clone);
	d->rows = openat(stage, rows, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return d->rows < 0 ? fail("make", e) : 0;
}

void redo_free(struct redo *d)
{
	if (d->rows > 0)
		close_fd(&d->rows);
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
	wr_u8(&d->pending, x->hole);
}

static int add_piece(struct redo *d, uint64_t off, uint64_t len, bool hole, struct err *e)
{
	struct redo_piece *last = d->n ? &d->recent[(d->n - 1) % REDO_RECENT] : NULL;

	if (last && last->hole == hole && last->off + last->len >= off) { /* a page that two extents share counts once */
		last->len = max_u64(last->len, off + len - last->off);
		return 0;
	}
	if (last)
		put_row(d, last);
	d->recent[d->n++ % REDO_RECENT] = (struct redo_piece){off, len, hole};
	return d->pending.len >= ROW * 1024 ? flush_rows(d, e) : 0;
}

int redo_replaced(struct redo *d, uint64_t off, uint64_t len, struct err *e) { return add_piece(d, off, len, false, e); }

static int put(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e)
{
	d->bytes += n;
	return file_write_at(d->fd, p, n, off) ? fail("write", e) : add_piece(d, off, n, false, e);
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
		if (part ? put_part(d, NULL, part, off, e) : (d->is_clone && punch(d->fd, off, m, e)) || add_piece(d, off, m, true, e))
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
		if (x && x->hole)
			memset(p, 0, m);
		else if (x && file_read_at(d->fd, p, m, off))
			return fail("read", e);
	}
	return 0;
}

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
	wr_u32(out, d->n);
	for (unsigned i = d->n > REDO_RECENT ? d->n - REDO_RECENT : 0; i < d->n; i++) {
		const struct redo_piece *x = &d->recent[i % REDO_RECENT];
		wr_u64(out, x->off);
		wr_u64(out, x->len);
		wr_u8(out, x->hole);
	}
	return 0;
}

/* A later run may have filled the rest of the page that pos lies in: it holds what the base has there again. */
static int forget_after(struct redo *d, uint64_t pos, struct err *e)
{
	const struct redo_piece *last = d->n ? &d->recent[(d->n - 1) % REDO_RECENT] : NULL;
	uint8_t rest[REDO_PAGE];
	uint64_t end = last && !last->hole ? last->off + last->len : 0;

	if (end <= pos || end - pos > sizeof rest)
		return 0;
	if (file_read_at(d->base, rest, (size_t)(end - pos), pos))
		return fail("read for", e);
	return file_write_at(d->fd, rest, (size_t)(end - pos), pos) ? fail("write", e) : 0;
}

int redo_load(struct redo *d, int stage, const char *name, struct rd *in, uint64_t pos, struct err *e)
{
	char rows[40];
	uint64_t size = rd_u64(in);

	d->bytes = rd_u64(in);
	d->n = rd_u32(in);
	for (unsigned i = d->n > REDO_RECENT ? d->n - REDO_RECENT : 0; i < d->n && !in->bad; i++) {
		struct redo_piece *x = &d->recent[i % REDO_RECENT];
		x->off = rd_u64(in);
		x->len = rd_u64(in);
		x->hole = rd_u8(in);
	}
	rows_name(rows, name, d->is_clone);
	d->rows = openat(stage, rows, O_RDWR | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
	if (d->rows < 0 || ftruncate(d->rows, (off_t)size))
		return fail("open", e);
	return d->is_clone ? 0 : forget_after(d, pos, e);
}

int redo_end(struct redo *d, struct err *e)
{
	if (d->n)
		put_row(d, &d->recent[(d->n - 1) % REDO_RECENT]);
	int rc = flush_rows(d, e);
	close_fd(&d->rows);
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
	char rows[40];

	*x = (struct redo_reader){.rows = -1};
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
	return x->fd < 0 ? fail("open", e) : 1;
}

void redo_close(struct redo_reader *x)
{
	if (!x->is_open)
		return;
	close_fd(&x->fd);
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
	x->now.off = rd_u64(&row);
	x->now.len = rd_u64(&row);
	x->now.hole = rd_u8(&row);
	x->at += ROW;
	return 1;
}

static int copy(int from, int to, uint64_t off, uint64_t len, struct err *e)
{
	AUTO_FREE uint8_t *buf = xalloc(PIECE);

	while (len) {
		size_t n = (size_t)min_u64(len, PIECE);
		if (file_read_at(from, buf, n, off) || file_write_at(to, buf, n, off))
			return fail("copy", e);
		off += n;
		len -= n;
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
	int got = open_list(&p, stage, name, e);
	off_t was = lseek(fd, 0, SEEK_END); /* also of a block device */

	if (got > 0 && was < 0)
		got = fail("size", e);
	while (got > 0 && (got = redo_next(&p, e)) > 0) {
		uint64_t end = min_u64(p.now.off + p.now.len, size);
		if (p.now.off >= end)
			continue;
		/* Beyond the old end everything is a hole already. */
		if (p.now.hole && p.now.off >= (uint64_t)was)
			continue;
		if (p.now.hole ? punch(fd, p.now.off, end - p.now.off, e) : copy(p.fd, fd, p.now.off, end - p.now.off, e))
			got = -1;
	}
	redo_close(&p);
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
	}
	if (got == 0 && ftruncate(p.fd, (off_t)size))
		got = fail("size", e);
	/* Without its rows it counts as whole, after a power cut too. */
	if (got == 0 && fsync(p.fd))
		got = fail("sync", e);
	redo_close(&p);
	rows_name(rows, name, false);
	if (got == 0 && unlinkat(stage, rows, 0))
		got = fail("finish", e);
	return got;
}
