#include "shifts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

#define ROW 24u

static int fail(const char *what, struct err *e) { return err_sys(e, "cannot %s the list of a staged file", what); }

static void rows_name(char out[40], const char *name) { snprintf(out, 40, "%.30s.shifts", name); }

static int open_rows(int stage, const char *name, int flags)
{
	char rows[40];

	rows_name(rows, name);
	return openat(stage, rows, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
}

void shifts_free(struct shifts *s)
{
	buf_free(&s->rows);
	*s = (struct shifts){0};
}

/* ---- writing ---- */

static void put_row(struct shifts *s)
{
	if (!s->last.len)
		return;
	wr_u64(&s->rows, s->last.off);
	wr_u64(&s->rows, s->last.len);
	wr_u64(&s->rows, s->last.src);
	s->last.len = 0;
}

void shifts_add(struct shifts *s, const struct shift *x)
{
	struct shift *last = &s->last;

	if (last->len && last->off + last->len == x->off && last->src + last->len == x->src) {
		last->len += x->len;
		return;
	}
	put_row(s);
	if (s->n == SHIFTS_MAX)
		return;
	s->n++;
	*last = *x;
}

static int flush(struct shifts *s, int stage, const char *name, struct err *e)
{
	if (!s->rows.len)
		return 0;
	AUTO_CLOSE int fd = open_rows(stage, name, O_WRONLY | O_CREAT | (s->written ? 0 : O_TRUNC));
	if (fd < 0 || file_write_at(fd, s->rows.p, s->rows.len, s->written * ROW))
		return fail("write", e);
	s->written += s->rows.len / ROW;
	buf_reset(&s->rows);
	return 0;
}

int shifts_end(struct shifts *s, int stage, const char *name, struct err *e)
{
	put_row(s);
	return flush(s, stage, name, e);
}

int shifts_save(struct shifts *s, int stage, const char *name, struct buf *out, struct err *e)
{
	if (flush(s, stage, name, e))
		return -1;
	wr_u64(out, s->n);
	wr_u64(out, s->last.off);
	wr_u64(out, s->last.len);
	wr_u64(out, s->last.src);
	return 0;
}

int shifts_load(struct shifts *s, int stage, const char *name, struct rd *in, struct err *e)
{
	s->n = rd_u64(in);
	s->last.off = rd_u64(in);
	s->last.len = rd_u64(in);
	s->last.src = rd_u64(in);
	s->written = s->n - (s->n && s->last.len);
	if (in->bad || s->n > SHIFTS_MAX)
		return 0; /* the caller asks */
	AUTO_CLOSE int fd = open_rows(stage, name, O_WRONLY);
	if (fd < 0 && errno == ENOENT && !s->written)
		return 0;
	/* What came after the place where it goes on is forgotten. */
	return fd < 0 || ftruncate(fd, (off_t)(s->written * ROW)) ? fail("open", e) : 0;
}

/* ---- using ---- */

static int by_src(const void *a, const void *b)
{
	const struct shift *x = a, *y = b;

	return x->src < y->src ? -1 : x->src > y->src;
}

int shifts_read(struct shift **v, size_t *n, int stage, const char *name, struct err *e)
{
	struct stat st;
	AUTO_CLOSE int fd = open_rows(stage, name, O_RDONLY);

	*v = NULL;
	*n = 0;
	if (fd < 0)
		return errno == ENOENT ? 0 : fail("open", e);
	if (fstat(fd, &st))
		return fail("look at", e);
	*n = (size_t)min_u64((uint64_t)st.st_size / ROW, SHIFTS_MAX);
	AUTO_FREE uint8_t *rows = xalloc(*n * ROW + 1);
	if (file_read_at(fd, rows, *n * ROW, 0))
		return fail("read", e);
	*v = xalloc(*n * sizeof **v + 1);
	struct rd in = rd_of(rows, *n * ROW);
	for (size_t i = 0; i < *n; i++) {
		(*v)[i].off = rd_u64(&in);
		(*v)[i].len = rd_u64(&in);
		(*v)[i].src = rd_u64(&in);
	}
	qsort(*v, *n, sizeof **v, by_src);
	return 0;
}

const struct shift *shifts_find(const struct shift *v, size_t n, uint64_t src, uint64_t len)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (v[mid].src <= src)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && src + len <= v[lo - 1].src + v[lo - 1].len ? &v[lo - 1] : NULL;
}
