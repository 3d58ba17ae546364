#include "window.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bytes.h"
#include "pool.h"

#define ALONE (2 * (size_t)WINDOW_PIECE) /* the ring: a piece and the next */
#define TOGETHER (8 * (size_t)WINDOW_PIECE)
#define THREADS_MIN (4 * (uint64_t)WINDOW_PIECE) /* what is shorter is read by the time that a thread has woken up */
#define HANDED_MIN (128u * 1024)
#define PART (256u * 1024)

struct window_piece {
	uint64_t off, end;
	uint8_t *bytes;
	bool is_handed;  /* to a thread */
	/* what became of it */
	size_t read;
	int sys;
	struct digest digests[WINDOW_PIECE / DIGEST_GRAIN_MIN];
};

static struct window_piece *piece(const struct window *w, uint64_t i) { return &w->pieces[i % WINDOW_PIECES]; }

/* Whether all of it is there; x->sys if not. */
static bool read_part(const struct window *w, struct window_piece *x, size_t to)
{
	while (x->read < to) {
		ssize_t n = pread(w->fd, x->bytes + x->read, to - x->read, (off_t)(x->off + x->read));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			x->sys = errno;
		if (n <= 0)
			return false;
		x->read += (size_t)n;
	}
	return true;
}

/* On any thread. In parts, which are hashed before they have left the processor's cache. */
static void load(const struct window *w, struct window_piece *x)
{
	size_t len = (size_t)(x->end - x->off), part = w->grain > PART ? w->grain : PART;

	x->sys = 0;
	x->read = 0;
	for (size_t at = 0; at < len; at += part) {
		size_t n = len - at < part ? len - at : part;
		if (!read_part(w, x, at + n))
			return;
		digest_blocks(x->digests + at / w->grain, x->bytes + at, n, w->grain);
	}
}

static void work(void *ctx, unsigned worker, struct pool_job *job)
{
	(void)worker;
	load(ctx, job->what);
}

/* The oldest piece that is not in memory yet. */
static void take(struct window *w)
{
	struct window_piece *x = piece(w, w->loaded++);

	if (x->is_handed) {
		pool_take(w->pool, NULL);
		pool_taken(w->pool);
	} else {
		load(w, x);
	}
}

/* What threads were told to do they do to the end. */
static void drop(struct window *w)
{
	for (; w->loaded < w->last; w->loaded++)
		if (piece(w, w->loaded)->is_handed) {
			pool_take(w->pool, NULL);
			pool_taken(w->pool);
		}
	w->first = w->last;
	w->has_first = false;
	w->pos = 0;
}

static void unmap(struct window *w)
{
	if (w->ring)
		munmap(w->ring, w->size + ALONE);
	w->ring = NULL;
}

/* The ring, and behind it its beginning once more, as far as a piece and the next can reach. */
static int map(struct window *w, size_t size, struct err *e)
{
	if (w->ring && w->size >= size)
		return 0;
	unmap(w);
	AUTO_CLOSE int fd = memfd_create("window", MFD_CLOEXEC);
	uint8_t *p = fd < 0 || ftruncate(fd, (off_t)size) ? MAP_FAILED :
		mmap(NULL, size + ALONE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return err_sys(e, "cannot make room to read files");
	w->ring = p;
	w->size = size;
	if (mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
			mmap(p + size, ALONE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		err_sys(e, "cannot make room to read files");
		unmap(w);
		return -1;
	}
	return 0;
}

void window_start(struct window *w, int fd, uint32_t grain, bool needs_next)
{
	if (!w->pieces)
		w->pieces = xalloc(WINDOW_PIECES * sizeof *w->pieces);
	drop(w);
	w->fd = fd;
	w->grain = grain;
	w->needs_next = needs_next;
	w->is_short = false;
	w->read = 0;
}

int window_begin(struct window *w, uint64_t len, struct err *e)
{
	struct err why = {0};

	drop(w);
	w->with_threads = w->threads > 1 && len >= THREADS_MIN;
	if (w->with_threads && !w->pool && pool_open(&w->pool, w->threads, WINDOW_PIECES, work, w, &why))
		w->with_threads = false; /* then without */
	return map(w, w->with_threads ? TOGETHER : ALONE, e);
}

bool window_expect(struct window *w, uint64_t off, uint64_t end)
{
	size_t used = 0, len = (size_t)(end - off);

	if (w->last - w->first == WINDOW_PIECES)
		return false;
	for (uint64_t i = w->first; i < w->last; i++)
		used += (size_t)(piece(w, i)->end - piece(w, i)->off);
	/* Alone nothing is gained by more than the next. */
	if (used + len > (w->with_threads ? w->size : ALONE))
		return false;
	struct window_piece *x = piece(w, w->last++);
	x->off = off;
	x->end = end;
	x->bytes = w->ring + w->pos;
	x->is_handed = w->with_threads && len >= HANDED_MIN;
	w->pos = (w->pos + len) % w->size;
	if (x->is_handed) {
		pool_fill(w->pool)->what = x;
		pool_filled(w->pool);
	}
	return true;
}

static int fail(struct window *w, const struct window_piece *x, struct err *e)
{
	if (x->sys) {
		errno = x->sys;
		return err_sys(e, "cannot read");
	}
	w->is_short = true;
	return -1;
}

int window_step(struct window *w, struct err *e)
{
	w->first += w->has_first;
	w->has_first = true;
	const struct window_piece *x = piece(w, w->first), *next = piece(w, w->first + 1);
	bool has_next = w->needs_next && w->first + 1 < w->last && next->off == x->end;
	while (w->loaded < w->first + 1 + has_next) {
		const struct window_piece *fresh = piece(w, w->loaded);
		take(w);
		w->read += fresh->read;
		if (fresh->read < fresh->end - fresh->off)
			return fail(w, fresh, e);
	}
	w->off = x->off;
	w->end = x->end;
	w->until = has_next ? next->end : x->end;
	w->bytes = x->bytes;
	w->digests = x->digests;
	return 0;
}

void window_free(struct window *w)
{
	if (w->pieces)
		drop(w);
	pool_close(&w->pool);
	unmap(w);
	free(w->pieces);
	w->pieces = NULL;
}
