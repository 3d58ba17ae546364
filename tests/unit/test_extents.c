#include "extents.h"

#include <stdlib.h>

#include "unit.h"

#define K 4096u

static size_t merge(const struct extent *a, size_t n_a, const struct extent *b, size_t n_b, uint64_t from, uint64_t to,
	struct extents_range out[16])
{
	return extents_merge(a, n_a, b, n_b, from, to, out);
}

static struct extent at(uint64_t off, uint64_t len, uint64_t place)
{
	return (struct extent){.off = off * K, .len = len * K, .kind = EXTENT_STORED, .at = place * K};
}

static void is(const struct extents_range *r, uint64_t off, uint64_t len)
{
	CHECK_EQ_U64(r->off, off * K);
	CHECK_EQ_U64(r->len, len * K);
}

static void test_places(void)
{
	struct extents_range r[16];
	const struct extent a[] = {at(0, 10, 100), at(10, 10, 200)}, b[] = {at(0, 4, 100), at(4, 1, 300), at(5, 5, 105), at(10, 10, 201)};

	CHECK_EQ_U64(merge(a, 2, a, 2, 0, 20 * K, r), 1);
	is(&r[0], 0, 20);
	CHECK_EQ_U64(merge(a, 2, b, 4, 0, 20 * K, r), 2);
	is(&r[0], 0, 4);
	is(&r[1], 5, 5);
	/* Only what was asked for, wherever the extents begin and end. */
	CHECK_EQ_U64(merge(a, 2, b, 4, 2 * K, 7 * K, r), 2);
	is(&r[0], 2, 2);
	is(&r[1], 5, 2);
	CHECK_EQ_U64(merge(a, 2, b, 4, 4 * K, 5 * K, r), 0);
	CHECK_EQ_U64(merge(a, 2, b, 4, 0, 0, r), 0);
	CHECK_EQ_U64(merge(a, 2, b, 4, 1, 2, r), 1);
	CHECK_EQ_U64(r[0].off, 1);
	CHECK_EQ_U64(r[0].len, 1);
}

static void test_holes(void)
{
	struct extents_range r[16];
	struct extent a[] = {at(2, 2, 100), at(6, 2, 300)}, zeros = {.off = 0, .len = 6 * K, .kind = EXTENT_ZEROS};

	/* Nothing at all is one hole. */
	CHECK_EQ_U64(merge(NULL, 0, NULL, 0, 0, 9 * K, r), 1);
	is(&r[0], 0, 9);
	CHECK_EQ_U64(merge(a, 2, NULL, 0, 0, 9 * K, r), 3);
	is(&r[0], 0, 2);
	is(&r[1], 4, 2);
	is(&r[2], 8, 1);
	/* Never written reads as a hole does, whatever place was set aside for it. */
	zeros.at = 100 * K;
	CHECK_EQ_U64(merge(a, 2, &zeros, 1, 0, 9 * K, r), 3);
	is(&r[0], 0, 2);
	a[0].kind = EXTENT_ZEROS;
	CHECK_EQ_U64(merge(a, 2, &zeros, 1, 0, 9 * K, r), 2);
	is(&r[0], 0, 6);
	is(&r[1], 8, 1);
}

static void test_nothing_proved(void)
{
	struct extents_range r[16];
	struct extent a = at(0, 8, 100), b = a;

	/* Not even the same place, not even to itself. */
	a.kind = b.kind = EXTENT_OPAQUE;
	CHECK_EQ_U64(merge(&a, 1, &b, 1, 0, 8 * K, r), 0);
	a.kind = EXTENT_STORED;
	CHECK_EQ_U64(merge(&a, 1, &b, 1, 0, 8 * K, r), 0);
	CHECK_EQ_U64(merge(&b, 1, NULL, 0, 0, 8 * K, r), 0);
}

static void test_encoded(void)
{
	struct extents_range r[16];
	struct extent a = at(0, 32, 0), b[] = {at(0, 3, 0), at(3, 1, 7), at(4, 28, 4)};

	a.whole = b[0].whole = b[2].whole = 4711;
	CHECK_EQ_U64(merge(&a, 1, b, 3, 0, 32 * K, r), 2);
	is(&r[0], 0, 3);
	is(&r[1], 4, 28);
	/* Another part of the same stored extent, the same part of another one, the same number as a plain address. */
	b[2].at += K;
	CHECK_EQ_U64(merge(&a, 1, b, 3, 0, 32 * K, r), 1);
	b[2].at -= K;
	b[2].whole = 4712;
	CHECK_EQ_U64(merge(&a, 1, b, 3, 0, 32 * K, r), 1);
	b[2].whole = 0;
	CHECK_EQ_U64(merge(&a, 1, b, 3, 0, 32 * K, r), 1);
}

/* Against a look at each block by itself. */
static void test_random(void)
{
	unsigned seed = 20260711;

	for (unsigned round = 0; round < 2000; round++) {
		struct extent x[2][8];
		struct extents_range r[17];
		uint64_t place[2][64] = {{0}}; /* 0: zeros; 1: opaque */
		size_t n[2] = {0};
		bool same[64] = {0};
		for (unsigned side = 0; side < 2; side++) {
			for (uint64_t off = 0; n[side] < 8;) {
				seed = seed * 1103515245 + 12345;
				off += seed >> 16 & 3;
				uint64_t len = 1 + (seed >> 20 & 7), base = 2 + (seed >> 24 & 1) * 100 + off;
				if (off + len > 64)
					break;
				struct extent *e = &x[side][n[side]++];
				*e = at(off, len, base);
				e->kind = (seed >> 26 & 7) == 0 ? EXTENT_ZEROS : (seed >> 26 & 7) == 1 ? EXTENT_OPAQUE : EXTENT_STORED;
				for (uint64_t i = 0; i < len; i++)
					place[side][off + i] = e->kind == EXTENT_ZEROS ? 0 : e->kind == EXTENT_OPAQUE ? 1 : base + i;
				off += len;
			}
		}
		size_t got = extents_merge(x[0], n[0], x[1], n[1], 0, 64 * K, r);
		for (size_t i = 0; i < got; i++) {
			CHECK(r[i].len && (!i || r[i - 1].off + r[i - 1].len < r[i].off));
			for (uint64_t b = r[i].off / K; b < (r[i].off + r[i].len) / K; b++)
				same[b] = true;
		}
		for (unsigned b = 0; b < 64; b++)
			if (!CHECK(same[b] == (place[0][b] == place[1][b] && place[0][b] != 1)))
				return;
	}
}

int unit_extents(void)
{
	unsigned long before = unit_failures;

	test_places();
	test_holes();
	test_nothing_proved();
	test_encoded();
	test_random();
	return (int)(unit_failures - before);
}
