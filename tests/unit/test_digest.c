#include "digest.h"
#include "lanes.h"

#include <stdlib.h>

#include "bytes.h"
#include "unit.h"

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		p[i] = (uint8_t)(seed >> 56);
	}
}

static void flat(struct digest *out, const char *person, const void *p, size_t n)
{
	struct digest_run r;

	digest_run_init(&r, person, NULL, 0);
	digest_run_add(&r, p, n);
	digest_run_end(&r, out);
}

/* The words of digest.h again, level by level, with no thought for memory. */
static void tree_of(struct digest *out, const struct digest *leaves, size_t n)
{
	struct digest *d = xdup(leaves, n * sizeof *leaves);

	while (n > 1) {
		size_t up = 0;
		for (size_t i = 0; i < n; i += 4, up++) {
			size_t k = n - i < 4 ? n - i : 4;
			struct digest node;
			if (k == 1)
				node = d[i];
			else
				flat(&node, "repl-node-v1", &d[i], k * sizeof *d);
			d[up] = node;
		}
		n = up;
	}
	*out = d[0];
	free(d);
}

static void slow(struct digest *out, const uint8_t *p, size_t len)
{
	size_t n = len ? (len + DIGEST_LEAF - 1) / DIGEST_LEAF : 1;
	struct digest *leaves = xalloc(n * sizeof *leaves);

	for (size_t i = 0; i < n; i++)
		flat(&leaves[i], "repl-leaf-v1", p + i * DIGEST_LEAF, i + 1 < n ? DIGEST_LEAF : len - i * DIGEST_LEAF);
	tree_of(out, leaves, n);
	free(leaves);
}

static const size_t lengths[] = {0, 1, 4095, 4096, 4097, 8192, 12288, 12289, 16383, 16384, 16385, 20480, 20481, 65535,
	65536, 65537, 69632, 81920, 81921, 262144, 262145, 266240, 278528, 327680, 1048576, 1048577, 1064960, 1310720,
	1310721, 1052672 + 5};
#define LEN_MOST ((size_t)1310721)

static void test_known(void)
{
	struct digest d;
	char text[2 * DIGEST_LEN + 1];
	struct digest_run r;

	/* From Python: hashlib.blake2b(b"abc", digest_size=32, person=b"repl-leaf-v1").hexdigest(), and so on. */
	digest_bytes(&d, "abc", 3);
	hex(text, d.b, DIGEST_LEN);
	CHECK_EQ_STR(text, "279de343e624d9fe083e354c0150f584ae993f7013062ff00134fbb44bc9f4fd");
	digest_zeros(&d, 5 * DIGEST_LEAF);
	hex(text, d.b, DIGEST_LEN);
	CHECK_EQ_STR(text, "cd9a192498e4b89b7bc5e78ac90ef943237564bd75e97d6b057a666b64c11639");
	digest_run_init(&r, "repl-mac-v1", "secret", 6);
	digest_run_add(&r, "abc", 3);
	digest_run_end(&r, &d);
	hex(text, d.b, DIGEST_LEN);
	CHECK_EQ_STR(text, "eb68760ac79932597e79f72ac55e50fd92b071a69cadd70d5bb4581502966b51");
	CHECK(!digest_is_zero(&d) && digest_eq(&d, &d));
	struct digest z = {{0}};
	CHECK(digest_is_zero(&z) && !digest_eq(&d, &z));
}

static void test_tree(void)
{
	uint8_t *p = xalloc(LEN_MOST), *zero = xalloc(LEN_MOST);
	struct digest want, got;

	fill(p, LEN_MOST, 1);
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		slow(&want, p, lengths[i]);
		digest_bytes(&got, p, lengths[i]);
		if (!CHECK(digest_eq(&want, &got)))
			fprintf(stderr, "\tof %zu bytes\n", lengths[i]);
		slow(&want, zero, lengths[i]);
		digest_zeros(&got, lengths[i]);
		if (!CHECK(digest_eq(&want, &got)))
			fprintf(stderr, "\tof %zu zeros\n", lengths[i]);
	}
	free(p);
	free(zero);
}

/* Nor on how many blocks are added at a time. */
static void test_several(void)
{
	struct digest *d = xalloc(3000 * sizeof *d), one, many;
	struct digest_tree t;
	size_t n;

	fill((uint8_t *)d, 3000 * sizeof *d, 3);
	digest_tree_init(&t);
	for (size_t i = 0; i < 3000; i++)
		digest_tree_add(&t, &d[i], 1);
	digest_tree_root(&t, &one);
	for (unsigned step = 1; step < 200; step += 7) {
		digest_tree_init(&t);
		for (size_t i = 0; i < 3000; i += n) {
			n = step + i % 5 < 3000 - i ? step + i % 5 : 3000 - i;
			digest_tree_add(&t, &d[i], n);
		}
		digest_tree_root(&t, &many);
		CHECK(digest_eq(&one, &many));
	}
	free(d);
}

/* A file's digest does not depend on the block size that its tree is built from. */
static void test_grain(void)
{
	uint8_t *p = xalloc(LEN_MOST);
	struct digest want, got, block;
	struct digest_tree t;

	fill(p, LEN_MOST, 2);
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
		digest_bytes(&want, p, lengths[i]);
		for (size_t grain = DIGEST_GRAIN_MIN; grain <= DIGEST_GRAIN_MAX; grain *= 4) {
			CHECK(digest_is_grain(grain));
			digest_tree_init(&t);
			for (size_t at = 0; at < lengths[i]; at += grain) {
				digest_bytes(&block, p + at, lengths[i] - at < grain ? lengths[i] - at : grain);
				digest_tree_add(&t, &block, 1);
			}
			digest_tree_root(&t, &got);
			if (!CHECK(digest_eq(&want, &got)))
				fprintf(stderr, "\t%zu bytes in blocks of %zu\n", lengths[i], grain);
		}
	}
	CHECK(!digest_is_grain(0) && !digest_is_grain(2048) && !digest_is_grain(8192) && !digest_is_grain(4194304));
	free(p);
}

static void test_repeat(void)
{
	enum { MOST = 700 };
	struct digest same, other, want, got, *all = xalloc((2 * MOST + 8) * sizeof *all);
	struct digest_tree t;

	flat(&same, "same", "", 0);
	flat(&other, "other", "", 0);
	/* Some blocks before, a run, some after: every way in which a run can lie in the tree. */
	for (unsigned before = 0; before < 70; before += before < 18 ? 1 : 13) {
		for (unsigned n = 0; n < MOST; n += n < 90 ? 1 : 47) {
			for (unsigned after = 0; after < 3; after++) {
				unsigned k = 0;
				digest_tree_init(&t);
				for (unsigned i = 0; i < before; i++, k++) {
					all[k] = other;
					digest_tree_add(&t, &other, 1);
				}
				for (unsigned i = 0; i < n; i++, k++)
					all[k] = same;
				digest_tree_repeat(&t, &same, n);
				for (unsigned i = 0; i < after; i++, k++) {
					all[k] = other;
					digest_tree_add(&t, &other, 1);
				}
				if (!k)
					continue;
				CHECK_EQ_U64(t.count, k);
				tree_of(&want, all, k);
				digest_tree_root(&t, &got);
				if (!CHECK(digest_eq(&want, &got)))
					fprintf(stderr, "\t%u + %u + %u blocks\n", before, n, after);
			}
		}
	}
	free(all);
	/* As large as a file can be, in no time; and a run in two halves is the same run. */
	struct digest a, b;
	digest_zeros(&a, UINT64_C(1) << 62);
	digest_tree_init(&t);
	digest_zeros(&same, DIGEST_LEAF);
	digest_tree_repeat(&t, &same, 12345678901);
	digest_tree_repeat(&t, &same, (UINT64_C(1) << 50) - 12345678901);
	digest_tree_root(&t, &b);
	CHECK(digest_eq(&a, &b));
	digest_zeros(&b, (UINT64_C(1) << 62) - 1);
	CHECK(!digest_eq(&a, &b));
	/* No blocks: the digest of no bytes. */
	digest_tree_init(&t);
	digest_tree_root(&t, &a);
	digest_bytes(&b, "", 0);
	CHECK(digest_eq(&a, &b));
}

static void test_roll(void)
{
	const size_t len = 3 * DIGEST_LEAF;
	uint8_t *p = xalloc(len);
	const uint64_t *tab = roll_out_table();

	for (unsigned how = 0; how < 3; how++) {
		if (how == 0)
			fill(p, len, 3);
		else
			memset(p, how == 1 ? 0xff : 0, len);
		uint64_t h = roll_raw(p);
		bool good = true;
		for (size_t at = 0; at + DIGEST_LEAF < len; at++) {
			good &= roll_sum(p + at) == (h ? h : 1) && roll_raw(p + at) == h;
			h = roll_step(h, p[at + DIGEST_LEAF], p[at], tab);
		}
		CHECK(good);
	}
	CHECK_EQ_U64(roll_sum(p), 1); /* zeros: 0 means "none" */
	CHECK(tab == roll_out_table() && tab[0] == 0);
	free(p);
}

/* What several lanes give is what libb2 gives for each message. */
static void test_lanes(void)
{
	static const uint8_t person[16] = "repl-leaf-v1";
	static const size_t sizes[] = {LANES_BLOCK, 2 * LANES_BLOCK, 3 * LANES_BLOCK, DIGEST_LEAF, DIGEST_LEAF + LANES_BLOCK};
	uint8_t *p = xalloc(LANES_MOST * (DIGEST_LEAF + LANES_BLOCK)), out[LANES_MOST * DIGEST_LEN];

	if (lanes_width() == 1)
		unit_skip("digest", "no vector lanes on this machine");
	for (unsigned width = 4; width <= lanes_width(); width *= 2)
		for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
			fill(p, width * sizes[i], width + i);
			lanes_hash(width, person, p, sizes[i], out);
			for (unsigned k = 0; k < width; k++) {
				struct digest_run r;
				struct digest want;
				digest_run_init(&r, "repl-leaf-v1", NULL, 0);
				digest_run_add(&r, p + k * sizes[i], sizes[i]);
				digest_run_end(&r, &want);
				if (!CHECK(!memcmp(want.b, out + k * DIGEST_LEN, DIGEST_LEN)))
					fprintf(stderr, "\tmessage %u of %u, %zu bytes\n", k, width, sizes[i]);
			}
		}
	free(p);
}

/* Many blocks at once are the blocks one by one. */
static void test_blocks(void)
{
	uint8_t *p = xalloc(LEN_MOST);
	struct digest *blocks = xalloc((LEN_MOST / DIGEST_GRAIN_MIN + 1) * sizeof *blocks), want;

	fill(p, LEN_MOST, 4);
	for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++)
		for (size_t grain = DIGEST_GRAIN_MIN; grain <= DIGEST_GRAIN_MAX; grain *= 4) {
			size_t k = 0, at = 0;
			digest_blocks(blocks, p, lengths[i], grain);
			do {
				slow(&want, p + at, lengths[i] - at < grain ? lengths[i] - at : grain);
				if (!CHECK(digest_eq(&want, &blocks[k++])))
					fprintf(stderr, "\tblock %zu of %zu bytes in blocks of %zu\n", k - 1, lengths[i], grain);
				at += grain;
			} while (at < lengths[i]);
		}
	free(p);
	free(blocks);
}

int unit_digest(void)
{
	unsigned long before = unit_failures;

	test_known();
	test_tree();
	test_grain();
	test_several();
	test_lanes();
	test_blocks();
	test_repeat();
	test_roll();
	return (int)(unit_failures - before);
}
