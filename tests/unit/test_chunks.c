/* Block rows against a model: three files with neighbouring numbers, written to, cut and read anywhere. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chunks.h"
#include "unit.h"

#define FILES 3u
#define MOST 1000u

static struct err e;
static uint64_t seed;
static uint8_t model[FILES][MOST][DIGESTS_ROW];
static size_t kept[FILES]; /* rows from the first one to the last that was put */

static uint64_t next(uint64_t below)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % below;
}

static void new_row(uint8_t row[DIGESTS_ROW])
{
	memset(row, 0, DIGESTS_ROW);
	for (size_t i = 0; i < (next(4) ? DIGEST_LEN : DIGESTS_ROW); i++)
		row[i] = (uint8_t)(next(255) + 1);
}

static uint64_t number(size_t f) { return 7 + f; }

static void put(struct store *s, size_t f)
{
	size_t at = (size_t)next(kept[f] + 1), n = 1 + (size_t)next(next(4) ? 6 : 3 * BLOCKS_ROWS);

	if (next(8) == 0)
		at -= at % BLOCKS_ROWS;
	n = (size_t)min_u64(n, MOST - at);
	for (size_t i = 0; i < n; i++)
		if (next(5))
			new_row(model[f][at + i]);
	CHECK_OK(chunks_put(s, number(f), at, n, model[f][at], &e), e);
	if (n && at + n > kept[f])
		kept[f] = at + n;
}

static void cut(struct store *s, size_t f)
{
	size_t at = (size_t)next(kept[f] + 1);

	CHECK_OK(chunks_cut(s, number(f), at, &e), e);
	memset(model[f][at], 0, (MOST - at) * DIGESTS_ROW);
	kept[f] = at;
}

static void get(struct store *s, size_t f, size_t at, size_t n)
{
	static uint8_t got[MOST * DIGESTS_ROW];

	CHECK_OK(chunks_get(s, number(f), at, n, got, &e), e);
	CHECK(!memcmp(got, model[f][at], n * DIGESTS_ROW));
}

struct all {
	size_t f, at;
};

static int is_next(void *ctx, uint64_t no, uint64_t block, const uint8_t *row)
{
	struct all *a = ctx;

	while (a->f < FILES && a->at == kept[a->f])
		*a = (struct all){a->f + 1, 0};
	return !CHECK(a->f < FILES && no == number(a->f) && block == a->at && !memcmp(row, model[a->f][a->at++], DIGESTS_ROW));
}

static void all(struct store *s)
{
	struct all a = {0, 0};

	CHECK(chunks_all(s, is_next, &a, &e) == 0);
	while (a.f < FILES && a.at == kept[a.f])
		a = (struct all){a.f + 1, 0};
	CHECK_EQ_U64(a.f, FILES);
}

static void rounds(const char *path, uint64_t of)
{
	struct store *s = NULL;

	seed = of;
	memset(model, 0, sizeof model);
	memset(kept, 0, sizeof kept);
	CHECK_OK(store_open(&s, path, STORE_PRIVATE, NULL, &e), e);
	for (size_t i = 0; i < 400; i++) {
		size_t f = (size_t)next(FILES), at = (size_t)next(MOST);
		if (next(25))
			put(s, f);
		else
			cut(s, f);
		get(s, f, at, (size_t)next(MOST - at + 1));
		if (i % 40 == 0)
			all(s);
	}
	for (size_t f = 0; f < FILES; f++)
		get(s, f, 0, MOST);
	all(s);
	store_close(&s);
	unlink(path);
}

/* What one row in a hundred costs, and that nothing is left over of a file that goes. */
static void costs(const char *path)
{
	enum { CHUNKS = 50 };
	static uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	struct store *s = NULL;
	uint64_t n_loose, n_chunks;

	CHECK_OK(store_open(&s, path, STORE_PRIVATE, NULL, &e), e);
	for (size_t i = 0; i < BLOCKS_ROWS; i++)
		new_row(rows + i * DIGESTS_ROW);
	for (uint64_t i = 0; i < CHUNKS; i++)
		CHECK_OK(chunks_put(s, 1, i * BLOCKS_ROWS, BLOCKS_ROWS, rows, &e), e);
	uint64_t writes = store_writes(s);
	for (uint64_t i = 0; i < CHUNKS * LOOSE_MOST; i++) {
		new_row(rows);
		CHECK_OK(chunks_put(s, 1, i % CHUNKS * BLOCKS_ROWS + i / CHUNKS * 3, 1, rows, &e), e);
	}
	CHECK_EQ_U64(store_writes(s) - writes, CHUNKS * LOOSE_MOST);
	CHECK_OK(store_count(s, STORE_LOOSE, &n_loose, &e), e);
	CHECK_EQ_U64(n_loose, CHUNKS);
	/* The same row again takes no room; one more, and the chunk takes its own. */
	for (unsigned i = 0; i < 2; i++) {
		new_row(rows);
		CHECK_OK(chunks_put(s, 1, i ? BLOCKS_ROWS - 1 : 0, 1, rows, &e), e);
		CHECK_OK(store_count(s, STORE_LOOSE, &n_loose, &e), e);
		CHECK_EQ_U64(n_loose, CHUNKS - i);
	}
	CHECK_OK(chunks_cut(s, 1, 0, &e), e);
	CHECK(!store_count(s, STORE_LOOSE, &n_loose, &e) && !store_count(s, STORE_BLOCKS, &n_chunks, &e) && !n_loose && !n_chunks);
	store_close(&s);
	unlink(path);
}

static int never(void *ctx, uint64_t no, uint64_t block, const uint8_t *row)
{
	(void)ctx;
	(void)no;
	(void)block;
	(void)row;
	return 0;
}

/* A loose row whose chunk is not there: older rows than that would be taken for what the files hold. */
static void lost(const char *path)
{
	static const uint64_t at[] = {0, 3, 9};
	static uint8_t rows[5 * BLOCKS_ROWS * DIGESTS_ROW];

	for (size_t i = 0; i < 3; i++) {
		struct rows_key k = rows_key_two(5, at[i]);
		struct store *s = NULL;
		CHECK_OK(store_open(&s, path, STORE_PRIVATE, NULL, &e), e);
		memset(rows, 1, sizeof rows);
		CHECK_OK(chunks_put(s, 4, BLOCKS_ROWS, 5 * BLOCKS_ROWS, rows, &e) || chunks_put(s, 6, 0, 3, rows, &e), e);
		CHECK_OK(store_put(s, STORE_LOOSE, rows_span(&k), span_of(rows, 1 + DIGEST_LEN), &e), e);
		CHECK(chunks_all(s, never, NULL, &e) == -1 && strstr(e.text, "is damaged"));
		store_close(&s);
		unlink(path);
	}
}

int unit_chunks(void)
{
	unsigned long before = unit_failures;
	const char *n = getenv("UNIT_ROUNDS"), *from = getenv("UNIT_SEED");
	uint64_t first = from ? strtoull(from, NULL, 10) : 1, last = first + (n ? strtoull(n, NULL, 10) : 20);
	char tmp[300], path[320];
	int fd = unit_tmpdir(tmp, sizeof tmp);

	if (fd < 0)
		return 1;
	snprintf(path, sizeof path, "%s/store", tmp);
	for (uint64_t i = first; i < last && unit_failures == before; i++) {
		rounds(path, i);
		if (unit_failures != before)
			fprintf(stderr, "\tUNIT_SEED=%" PRIu64 "\n", i);
	}
	costs(path);
	lost(path);
	close(fd);
	rmdir(tmp);
	return (int)(unit_failures - before);
}
