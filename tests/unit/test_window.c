#include "window.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bytes.h"
#include "unit.h"

#define SIZE (21 * (size_t)WINDOW_PIECE + 12345)

static uint64_t state = 1;

static uint64_t dice(uint64_t sides)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (state >> 33) % sides;
}

struct file {
	uint8_t *p;
	int fd;
	size_t size;
};

static struct file make_file(void)
{
	struct file f = {xalloc(SIZE), -1, SIZE};
	char path[300];
	int dir = unit_tmpdir(path, sizeof path);

	for (size_t i = 0; i < SIZE; i++)
		f.p[i] = (uint8_t)dice(256);
	f.fd = openat(dir, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unlinkat(dir, "file", 0);
	rmdir(path);
	close(dir);
	CHECK(f.fd >= 0 && write(f.fd, f.p, SIZE) == (ssize_t)SIZE);
	return f;
}

/* The piece at hand is that of the file, and so is all that is said to be behind it. */
static bool is_true(const struct window *w, const struct file *f, uint32_t grain)
{
	struct digest want[WINDOW_PIECE / DIGEST_GRAIN_MIN];
	size_t len = (size_t)(w->end - w->off);

	digest_blocks(want, f->p + w->off, len, grain);
	return !memcmp(w->bytes, f->p + w->off, (size_t)(w->until - w->off)) &&
		!memcmp(w->digests, want, (len + grain - 1) / grain * sizeof *want);
}

/* All of the file in pieces of any length, with gaps or none, as far ahead as there is room. */
static void read_all(struct window *w, const struct file *f, uint32_t grain, bool needs_next, bool gaps)
{
	uint64_t offs[1 << 14], ends[1 << 14], planned = 0, sum = 0;
	size_t n = 0, at = 0;
	struct err e = {0};

	window_start(w, f->fd, grain, needs_next);
	CHECK_OK(window_begin(w, f->size, &e), e);
	for (;;) {
		while (planned < f->size) {
			uint64_t len = min_u64((1 + dice(WINDOW_PIECE / grain)) * grain, f->size - planned);
			if (!window_expect(w, planned, planned + len))
				break;
			offs[n] = planned;
			ends[n++] = planned += len;
			sum += len;
			planned += gaps && dice(3) == 0 ? dice(9) * grain : 0;
		}
		if (at == n)
			break;
		CHECK_OK(window_step(w, &e), e);
		if (e.kind || w->is_short)
			return;
		bool has_next = needs_next && at + 1 < n && offs[at + 1] == ends[at];
		CHECK_EQ_U64(w->off, offs[at]);
		CHECK_EQ_U64(w->end, ends[at]);
		CHECK_EQ_U64(w->until, ends[at + has_next]);
		CHECK(is_true(w, f, grain));
		at++;
	}
	CHECK(planned >= f->size);
	CHECK_EQ_U64(w->read, sum);
}

/* With threads or without, whatever the window looked at before. */
static void test_pieces(const struct file *f)
{
	static const uint32_t grains[] = {4096, 16384, 65536, WINDOW_PIECE};
	static const unsigned threads[] = {0, 1, 2, 5};

	for (size_t t = 0; t < 4; t++) {
		struct window w = {.threads = threads[t]};
		for (int i = 0; i < 24; i++) {
			struct file part = *f;
			part.size = (size_t)(i & 4 ? 1 + dice(3 * WINDOW_PIECE) : SIZE); /* some are too small for threads */
			read_all(&w, &part, grains[dice(4)], i & 1, i & 2);
		}
		window_free(&w);
		window_free(&w);
	}
}

/* What is not looked at is given up, threads or not. */
static void test_left(const struct file *f)
{
	struct window w = {.threads = 3};
	struct err e = {0};

	for (int i = 0; i < 50; i++) {
		window_start(&w, f->fd, 4096, true);
		CHECK_OK(window_begin(&w, i % 3 ? SIZE : WINDOW_PIECE, &e), e);
		for (uint64_t off = 0; window_expect(&w, off, off + WINDOW_PIECE / 2); off += WINDOW_PIECE / 2)
			;
		for (uint64_t steps = dice(4); steps; steps--)
			CHECK(!window_step(&w, &e) && is_true(&w, f, 4096));
	}
	read_all(&w, f, 4096, true, true);
	window_free(&w);
}

/* A file that became shorter; and one that cannot be read. */
static void test_bad(const struct file *f)
{
	for (unsigned threads = 0; threads < 4; threads += 3) {
		struct window w = {.threads = threads};
		struct err e = {0};
		window_start(&w, f->fd, 4096, false);
		CHECK_OK(window_begin(&w, SIZE, &e), e);
		window_expect(&w, SIZE - 12345, SIZE - 12345 + 16384);
		CHECK(window_step(&w, &e) && w.is_short && !e.kind);
		CHECK_EQ_U64(w.read, 12345);
		read_all(&w, f, 4096, false, false);
		CHECK(!w.is_short);
		AUTO_CLOSE int dir = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		window_start(&w, dir, 4096, false);
		CHECK_OK(window_begin(&w, SIZE, &e), e);
		window_expect(&w, 0, WINDOW_PIECE);
		CHECK(window_step(&w, &e) && !w.is_short);
		CHECK(e.kind == ERR_SYSTEM);
		window_free(&w);
	}
}

int unit_window(void)
{
	unsigned long before = unit_failures;
	struct file f = make_file();
	test_pieces(&f);
	test_left(&f);
	test_bad(&f);
	free(f.p);
	close(f.fd);
	return (int)(unit_failures - before);
}
