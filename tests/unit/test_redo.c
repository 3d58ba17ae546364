#include "redo.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "unit.h"

#define MOST (1u << 20)
#define NAME "7"

static uint64_t state = 1;

static uint64_t dice(uint64_t sides)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (state >> 33) % sides;
}

/* The file as it has to come out, beside what redo has of it. */
struct trial {
	int stage, base;
	size_t base_len, len; /* of the base's file; as far as it is described */
	uint8_t *want;        /* MOST bytes: zeros behind the base */
	uint8_t *noise;       /* as many */
	struct redo d;
};

static int make(int dir, const char *name, const uint8_t *p, size_t n)
{
	int fd = openat(dir, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK(fd >= 0 && file_write(fd, p, n) == 0);
	return fd;
}

static void start(struct trial *t, bool is_clone)
{
	struct err e = {0};

	t->base_len = dice(4) ? dice(MOST) : dice(3 * REDO_PAGE);
	t->len = 0;
	for (size_t i = 0; i < MOST; i++) {
		t->noise[i] = (uint8_t)dice(256);
		t->want[i] = i < t->base_len ? (uint8_t)dice(256) : 0;
	}
	t->base = make(t->stage, "base", t->want, t->base_len);
	t->d = (struct redo){.fd = make(t->stage, NAME, t->want, is_clone ? t->base_len : 0), .base = t->base, .is_clone = is_clone};
	CHECK_OK(redo_begin(&t->d, t->stage, NAME, &e), e);
}

/* One extent behind all before; is_told: the model hears of it. */
static void extend(struct trial *t, bool is_told)
{
	static const size_t lengths[] = {1, 17, REDO_PAGE, 5000, 20000, 140000};
	struct err e = {0};
	size_t off = t->len + (dice(3) ? dice(lengths[dice(6)]) : 0), n = 1 + dice(lengths[dice(6)]);

	if (dice(2)) { /* on the grid */
		off = (off + REDO_PAGE - 1) / REDO_PAGE * REDO_PAGE;
		n = (n + REDO_PAGE - 1) / REDO_PAGE * REDO_PAGE;
	}
	if (off + n > MOST)
		return;
	bool is_hole = !dice(4);
	if (is_hole)
		CHECK_OK(redo_hole(&t->d, off, n, &e), e);
	else
		CHECK_OK(redo_write(&t->d, t->noise + (off ^ 1) % (MOST - n), n, off, &e), e);
	if (!is_told)
		return;
	if (is_hole)
		memset(t->want + off, 0, n);
	else
		memcpy(t->want + off, t->noise + (off ^ 1) % (MOST - n), n);
	t->len = off + n;
}

static void read_back(struct trial *t)
{
	uint8_t got[3 * REDO_PAGE];
	struct err e = {0};
	size_t off = t->len - min_u64(t->len, dice(sizeof got)), n = min_u64(1 + dice(sizeof got), MOST - off);

	CHECK_OK(redo_read(&t->d, got, n, off, &e), e);
	CHECK(!memcmp(got, t->want + off, n));
}

/* Saved; more is written; the process is gone, and the next one knows nothing of that. */
static void interrupt(struct trial *t)
{
	AUTO_BUF struct buf kept = {0};
	struct err e = {0};
	int fd = t->d.fd;
	bool is_clone = t->d.is_clone;

	CHECK_OK(redo_save(&t->d, &kept, &e), e);
	if (!is_clone && dice(2))
		extend(t, false);
	redo_free(&t->d);
	t->d = (struct redo){.fd = fd, .base = t->base, .is_clone = is_clone};
	struct rd in = rd_of(kept.p, kept.len);
	CHECK_OK(redo_load(&t->d, t->stage, NAME, &in, t->len, &e), e);
	CHECK(!in.bad && !in.len);
}

static bool holds(int fd, const struct trial *t, size_t size)
{
	AUTO_FREE uint8_t *have = xalloc(MOST);
	struct stat st;

	return CHECK(!fstat(fd, &st)) && (size_t)st.st_size == size && !file_read_at(fd, have, size, 0) && !memcmp(have, t->want, size);
}

/* Whatever is not in a piece is the base's. */
static void check_pieces(struct trial *t)
{
	struct redo_reader x;
	struct err e = {0};
	AUTO_FREE uint8_t *base = xalloc(MOST);
	size_t pos = 0;
	int got = redo_open(&x, t->stage, NAME, &e);

	CHECK(got == 1 && !file_read_at(t->base, base, MOST, 0));
	while (got == 1 && (got = redo_next(&x, &e)) == 1) {
		CHECK(x.now.off >= pos && !memcmp(base + pos, t->want + pos, x.now.off - pos));
		pos = x.now.off + x.now.len;
	}
	CHECK(got == 0 && pos <= MOST + REDO_PAGE);
	if (pos < MOST)
		CHECK(!memcmp(base + pos, t->want + pos, MOST - pos));
	redo_close(&x);
}

static void finish(struct trial *t)
{
	struct err e = {0};
	int fd = t->d.fd;
	bool is_clone = t->d.is_clone;
	size_t size = t->len + dice(MOST - t->len + 1);

	CHECK_OK(redo_end(&t->d, &e), e);
	redo_free(&t->d);
	memset(t->want + size, 0, MOST - size);
	CHECK(redo_is(t->stage, NAME) == !is_clone);
	if (is_clone) {
		CHECK(!file_resize(fd, size) && holds(fd, t, size));
	} else if (dice(2)) {
		if (size >= t->base_len)
			check_pieces(t);
		CHECK_OK(redo_replay(t->stage, NAME, t->base, size, &e), e);
		CHECK(holds(t->base, t, size));
		CHECK_OK(redo_replay(t->stage, NAME, t->base, size, &e), e);
		CHECK(holds(t->base, t, size));
	} else {
		CHECK_OK(redo_fill(t->stage, NAME, t->base, size, &e), e);
		CHECK(holds(fd, t, size));
		CHECK(!redo_is(t->stage, NAME));
	}
	close(fd);
	close(t->base);
	static const char *const files[] = {NAME, NAME ".redo", NAME ".short", NAME ".pieces", "base"};
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		unlinkat(t->stage, files[i], 0);
}

int unit_redo(void)
{
	unsigned long before = unit_failures;
	char path[300];
	struct trial t = {.stage = unit_tmpdir(path, sizeof path), .want = xalloc(MOST), .noise = xalloc(MOST)};

	for (int round = 0; round < 60; round++) {
		start(&t, round % 3 == 2);
		for (uint64_t n = dice(80); n; n--) {
			extend(&t, true);
			if (!dice(3))
				read_back(&t);
			if (!dice(12))
				interrupt(&t);
		}
		finish(&t);
	}
	free(t.want);
	free(t.noise);
	close(t.stage);
	CHECK(!rmdir(path));
	return (int)(unit_failures - before);
}
