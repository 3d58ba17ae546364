/*
 * digest: BLAKE2b-256 as a tree, the keyed trailer, and the rolling sum. The only module that names libb2.
 *
 * The digest of n bytes is a tree over leaves of 4 KiB (the last one shorter; no bytes: one empty leaf):
 *   leaf  = BLAKE2b-256(person "repl-leaf-v1", bytes)
 *   node  = BLAKE2b-256(person "repl-node-v1", 2 to 4 child digests); a single child stands for itself
 * Children are grouped by four, level by level, until one digest remains. So the digest of an aligned
 * block of 4 KiB * 4^k is an inner node of the whole file's tree, the digest of a file does not depend on
 * the block size somebody chose to remember, and one node is one BLAKE2b compression (4 * 32 = 128 bytes).
 *
 * May use: lanes, bytes. Invariant: memory is O(log n).
 */
#ifndef REPL_DIGEST_H
#define REPL_DIGEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DIGEST_LEN 32
#define DIGEST_LEAF 4096u
#define DIGEST_GRAIN_MIN 4096u
#define DIGEST_GRAIN_MAX (1024u * 1024u)

struct digest {
	uint8_t b[DIGEST_LEN];
};
bool digest_eq(const struct digest *a, const struct digest *b);
bool digest_is_zero(const struct digest *d);

/* A block size that the tree has nodes for: 4 KiB, 16 KiB, 64 KiB, 256 KiB or 1 MiB. */
bool digest_is_grain(uint64_t n);

/* Tree digest of n bytes. */
void digest_bytes(struct digest *out, const void *p, size_t n);
/* Tree digests of consecutive blocks of grain bytes, a multiple of DIGEST_LEAF; the last one may be shorter. Sooner than one after
 * the other where blocks have few leaves (lanes.h). No bytes: one block. */
void digest_blocks(struct digest *out, const void *p, size_t n, size_t grain);
/* Tree digest of n zero bytes, in O(log n) work. */
void digest_zeros(struct digest *out, uint64_t n);

/* Builds a tree from digests of consecutive blocks of one grain (all full but the last). */
struct digest_tree {
	struct digest level[34][4];
	uint8_t n[34];
	uint64_t count;
};
void digest_tree_init(struct digest_tree *t);
/* Of n blocks one after the other: sooner than one at a time (lanes.h). */
void digest_tree_add(struct digest_tree *t, const struct digest *blocks, size_t n);
/* Adds n equal, full blocks (long holes). */
void digest_tree_repeat(struct digest_tree *t, const struct digest *block, uint64_t n);
/* The root; a tree without blocks is the digest of no bytes. t is spent. */
void digest_tree_root(struct digest_tree *t, struct digest *out);

/* A flat running BLAKE2b-256 with a personalisation of at most 16 bytes, keyed when key_len > 0 (<= 64). */
struct digest_run {
	_Alignas(64) unsigned char opaque[512];
};
void digest_run_init(struct digest_run *r, const char *person, const void *key, size_t key_len);
void digest_run_add(struct digest_run *r, const void *p, size_t n);
void digest_run_end(struct digest_run *r, struct digest *out);
/* What digest_run_end would give now. r goes on; it holds no pointers: its bytes may be kept and used by another process on this
 * machine, if this then gives the digest that it gave before (another libb2 could keep other bytes). */
void digest_run_peek(const struct digest_run *r, struct digest *out);

/* Rolling sum of a window of DIGEST_LEAF bytes: sum(b[i] * P^(n-1-i)) mod 2^64. Never 0 for a real
 * window (0 is replaced by 1), so that 0 can mean "none". */
uint64_t roll_sum(const void *p); /* of DIGEST_LEAF bytes */
struct roll {
	uint64_t h;
};
static inline void roll_start(struct roll *r, uint64_t raw) { r->h = raw; }
uint64_t roll_raw(const void *p); /* the unreplaced sum, to start a roll */
extern const uint64_t *roll_out_table(void); /* 256 entries: byte * P^n */
#define ROLL_P 0x9E3779B97F4A7C15ull
static inline uint64_t roll_step(uint64_t h, uint8_t in, uint8_t out, const uint64_t *tab)
{
	return h * ROLL_P + in - tab[out];
}

#endif
