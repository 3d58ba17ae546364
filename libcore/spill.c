#include "spill.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"

enum {
	WRITE_LEN = 64 * 1024,
	READ_LEN = 64 * 1024, /* buffer of one run at most, */
	READ_MIN = 1024,      /* and at least */
	RUNS_LEN = 8 * 1024 * 1024, /* buffers of all runs together while they are merged */
};

struct spill_file {
	const char *dir;
	pthread_mutex_t lock;
	int fd;
	uint64_t end;
	size_t users; /* directories that have runs in it */
};

struct run { /* sorted names in the temporary file: u8 length, bytes */
	uint64_t off, at, end;
	uint8_t *buf;
	size_t have, pos; /* the current name's length byte is buf[pos] */
};
struct spill {
	struct spill_file *file;
	struct run *runs;
	size_t n_runs, n_names, room; /* room: of one run's buffer */
	size_t *heap, n_heap;         /* runs, the one with the least name first */
	uint8_t last[SORTED_LEN_MAX];  /* name given last: a directory that changes may list one twice */
	size_t last_len;
};

struct spill_file *spill_open(const char *dir)
{
	struct spill_file *f = xalloc(sizeof *f);

	*f = (struct spill_file){.dir = dir, .lock = PTHREAD_MUTEX_INITIALIZER, .fd = -1};
	return f;
}

void spill_close(struct spill_file **fp)
{
	struct spill_file *f = *fp;

	*fp = NULL;
	if (!f)
		return;
	close_fd(&f->fd);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

/* Room in the file for one more run of len bytes, for a directory that has none yet when is_first. */
static int run_place(struct spill_file *f, struct run *r, uint64_t len, bool is_first)
{
	int sys = 0;

	pthread_mutex_lock(&f->lock);
	if (f->fd < 0)
		f->fd = file_temp(f->dir);
	if (f->fd < 0) {
		sys = errno;
	} else {
		f->users += is_first;
		r->off = r->at = f->end;
		r->end = f->end += len;
	}
	pthread_mutex_unlock(&f->lock);
	return sys;
}

int spill_add(struct spill_file *f, struct spill **sp, struct sorted *m)
{
	AUTO_BUF struct buf out = {0};
	struct spill *s;
	struct run r = {0};
	uint64_t len = 0, at;
	int sys;

	sorted_sort(m);
	for (size_t i = 0; i < m->n; i++)
		len += 1 + (uint64_t)m->keys[i].len;
	if ((sys = run_place(f, &r, len, !*sp)) != 0)
		return sys;
	if (!*sp) {
		*sp = xalloc(sizeof **sp);
		(*sp)->file = f;
	}
	s = *sp;
	s->runs = xrealloc(s->runs, (s->n_runs + 1) * sizeof *s->runs);
	s->runs[s->n_runs++] = r;
	s->n_names += m->n;
	at = r.off;
	for (size_t i = 0; i < m->n; i++) {
		wr_u8(&out, (uint8_t)m->keys[i].len);
		buf_add(&out, sorted_at(m, i), m->keys[i].len);
		if (out.len < WRITE_LEN && i + 1 < m->n)
			continue;
		if (file_write_at(f->fd, out.p, out.len, at) < 0)
			return errno;
		at += out.len;
		buf_reset(&out);
	}
	sorted_reset(m);
	return 0;
}

size_t spill_count(const struct spill *s) { return s->n_names; }

/* Makes the current name of the run whole in its buffer; errno, or 0. EIO when the file lost it. */
static int run_fill(const struct spill *s, struct run *r)
{
	if (r->pos < r->have && r->pos + 1 + r->buf[r->pos] <= r->have)
		return 0;
	if (!r->buf)
		r->buf = xalloc(s->room);
	memmove(r->buf, r->buf + r->pos, r->have - r->pos);
	r->have -= r->pos;
	r->pos = 0;
	while (r->have < s->room && r->at < r->end) {
		size_t want = (size_t)min_u64(s->room - r->have, r->end - r->at);
		ssize_t got = pread(s->file->fd, r->buf + r->have, want, (off_t)r->at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? errno : EIO;
		r->have += (size_t)got;
		r->at += (uint64_t)got;
	}
	if (r->have && 1 + (size_t)r->buf[0] > r->have)
		return EIO;
	return 0;
}

static struct span run_name(const struct spill *s, size_t slot)
{
	const struct run *r = &s->runs[s->heap[slot]];

	return span_of(r->buf + r->pos + 1, r->buf[r->pos]);
}

static void heap_sink(struct spill *s, size_t i)
{
	for (;;) {
		size_t least = i, child = 2 * i + 1;

		for (size_t c = child; c < child + 2 && c < s->n_heap; c++)
			if (span_cmp(run_name(s, c), run_name(s, least)) < 0)
				least = c;
		if (least == i)
			return;
		size_t t = s->heap[i];
		s->heap[i] = s->heap[least];
		s->heap[least] = t;
		i = least;
	}
}

static int merge_begin(struct spill *s)
{
	int sys;

	s->room = RUNS_LEN / s->n_runs;
	s->room = s->room > READ_LEN ? READ_LEN : s->room < READ_MIN ? READ_MIN : s->room;
	s->heap = xalloc(s->n_runs * sizeof *s->heap);
	for (size_t i = 0; i < s->n_runs; i++) {
		if ((sys = run_fill(s, &s->runs[i])) != 0)
			return sys;
		if (s->runs[i].have)
			s->heap[s->n_heap++] = i;
	}
	for (size_t i = s->n_heap / 2; i-- > 0;)
		heap_sink(s, i);
	return 0;
}

int spill_next(struct spill *s, struct sorted *m, size_t max)
{
	int sys;

	if (!s->heap && (sys = merge_begin(s)) != 0)
		return sys;
	while (s->n_heap && m->n < max) {
		struct run *r = &s->runs[s->heap[0]];
		struct span name = run_name(s, 0);

		if (!span_eq(span_of(s->last, s->last_len), name)) {
			sorted_add(m, (const char *)name.p, name.len);
			memcpy(s->last, name.p, name.len);
			s->last_len = name.len;
		}
		r->pos += 1 + name.len;
		if ((sys = run_fill(s, r)) != 0)
			return sys;
		if (r->pos == r->have)
			s->heap[0] = s->heap[--s->n_heap];
		heap_sink(s, 0);
	}
	return 0;
}

void spill_free(struct spill **sp)
{
	struct spill *s = *sp;
	struct spill_file *f;

	*sp = NULL;
	if (!s)
		return;
	f = s->file;
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct run *r = &s->runs[i];

		/* only space is lost when the filesystem cannot */
		(void)fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)(r->end - r->off));
		free(r->buf);
	}
	free(s->runs);
	free(s->heap);
	free(s);
	pthread_mutex_lock(&f->lock);
	if (--f->users == 0 && ftruncate(f->fd, 0) == 0)
		f->end = 0;
	pthread_mutex_unlock(&f->lock);
}
