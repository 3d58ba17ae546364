#include "digest.h"

#include <assert.h>
#include <blake2.h>
#include <pthread.h>
#include <string.h>

#include "bytes.h"
#include "lanes.h"

static_assert(sizeof(blake2b_state) <= sizeof(struct digest_run), "room for libb2's state");

bool digest_eq(const struct digest *a, const struct digest *b) { return !memcmp(a->b, b->b, DIGEST_LEN); }
bool digest_is_zero(const struct digest *d) { return is_zero(d->b, DIGEST_LEN); }

bool digest_is_grain(uint64_t n)
{
	return n == 4096 || n == 16384 || n == 65536 || n == 262144 || n == 1048576;
}

void digest_run_init(struct digest_run *r, const char *person, const void *key, size_t key_len)
{
	blake2b_param p;
	blake2b_state *s = (void *)r->opaque;

	memset(&p, 0, sizeof p);
	p.digest_length = DIGEST_LEN;
	p.key_length = (uint8_t)key_len;
	p.fanout = 1;
	p.depth = 1;
	size_t n = strlen(person);
	memcpy(p.personal, person, n < sizeof p.personal ? n : sizeof p.personal);
	blake2b_init_param(s, &p);
	if (key_len) {
		/* RFC 7693, 2.5: the key, padded to a block, is hashed first. */
		uint8_t block[BLAKE2B_BLOCKBYTES] = {0};
		memcpy(block, key, key_len);
		blake2b_update(s, block, sizeof block);
	}
}

void digest_run_add(struct digest_run *r, const void *p, size_t n)
{
	if (n)
		blake2b_update((void *)r->opaque, p, n);
}

void digest_run_end(struct digest_run *r, struct digest *out)
{
	blake2b_final((void *)r->opaque, out->b, DIGEST_LEN);
}

void digest_run_peek(const struct digest_run *r, struct digest *out)
{
	struct digest_run copy = *r;

	digest_run_end(&copy, out);
}

static void digest_leaf(struct digest *out, const void *p, size_t n)
{
	struct digest_run r;

	digest_run_init(&r, "repl-leaf-v1", NULL, 0);
	digest_run_add(&r, p, n);
	digest_run_end(&r, out);
}

static const uint8_t node_person[16] = "repl-node-v1";

static void digest_node(struct digest *out, const struct digest *child, unsigned n)
{
	struct digest_run r;

	if (n == 1) {
		*out = child[0];
		return;
	}
	digest_run_init(&r, "repl-node-v1", NULL, 0);
	digest_run_add(&r, child, n * sizeof *child);
	digest_run_end(&r, out);
}

#define BATCH 64u /* leaves whose digests are made at a time: of a block of 256 KiB */

static void full_leaves(struct digest *out, const uint8_t *p, size_t n)
{
	static const uint8_t person[16] = "repl-leaf-v1";

	for (unsigned width = lanes_width(); width > 1; width = width > 4 ? 4 : 1)
		for (; n >= width; n -= width, p += (size_t)width * DIGEST_LEAF, out += width)
			lanes_hash(width, person, p, DIGEST_LEAF, out->b);
	for (; n; n--, p += DIGEST_LEAF)
		digest_leaf(out++, p, DIGEST_LEAF);
}

void digest_blocks(struct digest *out, const void *p, size_t n, size_t grain)
{
	const uint8_t *b = p;
	const size_t per = grain / DIGEST_LEAF;
	struct digest leaf[BATCH];
	struct digest_tree t;
	size_t at = 0, len;

	digest_tree_init(&t);
	do {
		len = n - at < sizeof leaf / DIGEST_LEN * DIGEST_LEAF ? n - at : (size_t)BATCH * DIGEST_LEAF;
		size_t m = len / DIGEST_LEAF, k;
		full_leaves(leaf, b + at, m);
		if (len % DIGEST_LEAF || !n) {
			digest_leaf(&leaf[m], b + at + m * DIGEST_LEAF, len % DIGEST_LEAF);
			m++;
		}
		if (per == 1) {
			memcpy(out, leaf, m * sizeof *leaf);
			out += m;
		}
		for (size_t i = 0; per > 1 && i < m; i += k) {
			size_t before = at / DIGEST_LEAF + i;
			k = m - i < per - before % per ? m - i : per - before % per;
			digest_tree_add(&t, &leaf[i], k);
			if ((before + k) % per == 0 || (i + k == m && at + len == n)) {
				digest_tree_root(&t, out++);
				digest_tree_init(&t);
			}
		}
		at += len;
	} while (at < n);
}

void digest_bytes(struct digest *out, const void *p, size_t n) { digest_blocks(out, p, n, SIZE_MAX); }

void digest_zeros(struct digest *out, uint64_t n)
{
	static const uint8_t zero[DIGEST_LEAF];
	struct digest full;
	struct digest_tree t;

	digest_tree_init(&t);
	digest_leaf(&full, zero, DIGEST_LEAF);
	digest_tree_repeat(&t, &full, n / DIGEST_LEAF);
	if (n % DIGEST_LEAF || !n) {
		struct digest tail;
		digest_leaf(&tail, zero, n % DIGEST_LEAF);
		digest_tree_add(&t, &tail, 1);
	}
	digest_tree_root(&t, out);
}

void digest_tree_init(struct digest_tree *t)
{
	memset(t->n, 0, sizeof t->n);
	t->count = 0;
}

static void tree_push(struct digest_tree *t, unsigned level, const struct digest *d)
{
	struct digest cur = *d;

	for (;; level++) {
		t->level[level][t->n[level]++] = cur;
		if (t->n[level] < 4)
			return;
		digest_node(&cur, t->level[level], 4);
		t->n[level] = 0;
	}
}

void digest_tree_add(struct digest_tree *t, const struct digest *blocks, size_t n)
{
	struct digest up[LANES_MOST];
	unsigned width = lanes_width();

	t->count += n;
	while (n) {
		if (width == 1 || t->n[0] || n < 4 * width) {
			tree_push(t, 0, blocks++);
			n--;
			continue;
		}
		/* The nodes above whole groups of four, side by side. */
		lanes_hash(width, node_person, blocks->b, 4 * DIGEST_LEN, up->b);
		for (unsigned i = 0; i < width; i++)
			tree_push(t, 1, &up[i]);
		blocks += 4 * width;
		n -= 4 * width;
	}
}

void digest_tree_repeat(struct digest_tree *t, const struct digest *block, uint64_t n)
{
	struct digest cur = *block;
	unsigned level = 0;
	uint64_t span = 1; /* blocks that one node of this level covers */

	/* Up while the tree is aligned for a larger node, then down with what is left. */
	while (n) {
		while (level < 31 && t->n[level] == 0 && n >= span * 4 && t->count % (span * 4) == 0) {
			struct digest four[4] = {cur, cur, cur, cur};
			digest_node(&cur, four, 4);
			level++;
			span *= 4;
		}
		if (n < span) {
			/* start again from the block: cheap, at most once a level */
			cur = *block;
			level = 0;
			span = 1;
			while (n >= span * 4 && t->count % (span * 4) == 0) {
				struct digest four[4] = {cur, cur, cur, cur};
				digest_node(&cur, four, 4);
				level++;
				span *= 4;
			}
		}
		tree_push(t, level, &cur);
		t->count += span;
		n -= span;
	}
}

void digest_tree_root(struct digest_tree *t, struct digest *out)
{
	struct digest cur;
	bool have = false;

	if (!t->count) {
		digest_leaf(out, "", 0);
		return;
	}
	for (unsigned level = 0; level < 34; level++) {
		if (have)
			t->level[level][t->n[level]++] = cur;
		if (!t->n[level])
			continue;
		bool more = false;
		for (unsigned up = level + 1; up < 34; up++)
			more |= t->n[up] != 0;
		digest_node(&cur, t->level[level], t->n[level]);
		have = true;
		if (!more)
			break;
	}
	*out = cur;
}

uint64_t roll_raw(const void *p)
{
	const uint8_t *b = p;
	uint64_t h = 0;

	for (size_t i = 0; i < DIGEST_LEAF; i++)
		h = h * ROLL_P + b[i];
	return h;
}

uint64_t roll_sum(const void *p)
{
	/* Four quarters side by side: each waits for its own multiplications only. */
	const size_t q = DIGEST_LEAF / 4;
	const uint8_t *b0 = p, *b1 = b0 + q, *b2 = b1 + q, *b3 = b2 + q;
	uint64_t h0 = 0, h1 = 0, h2 = 0, h3 = 0, pq = ROLL_P;

	for (size_t n = 1; n < q; n *= 2)
		pq *= pq; /* to the power of q */
	for (size_t i = 0; i < q; i++) {
		h0 = h0 * ROLL_P + b0[i];
		h1 = h1 * ROLL_P + b1[i];
		h2 = h2 * ROLL_P + b2[i];
		h3 = h3 * ROLL_P + b3[i];
	}
	uint64_t v = ((h0 * pq + h1) * pq + h2) * pq + h3;
	return v ? v : 1;
}

static uint64_t roll_tab[256];

static void roll_fill(void)
{
	uint64_t pn = 1;

	for (size_t i = 0; i < DIGEST_LEAF; i++)
		pn *= ROLL_P;
	for (unsigned c = 0; c < 256; c++)
		roll_tab[c] = pn * c;
}

const uint64_t *roll_out_table(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, roll_fill);
	return roll_tab;
}
