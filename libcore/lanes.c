#include "lanes.h"

#include <assert.h>

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define DIGEST 32u

/* RFC 7693, 2.6 and 2.5: the initial state is this, with the parameters (32 bytes of digest, no key, fanout and depth 1, the
 * person) xored into it. */
static const uint64_t iv[8] = {
	0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
	0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
};
#define PARAMETERS UINT64_C(0x01010020)

static void start(uint64_t h[8], const uint8_t person[16])
{
	uint64_t word[2];

	memcpy(word, person, sizeof word); /* the processors that have these lanes are little-endian */
	memcpy(h, iv, sizeof iv);
	h[0] ^= PARAMETERS;
	h[6] ^= word[0];
	h[7] ^= word[1];
}

/* RFC 7693, 3.1 and 2.7, for a type of N lanes: the operations are those of vector types, the rotations are spelled out for each. */
#define G(N, a, b, c, d, x, y) \
	v[a] += v[b] + m[x]; \
	v[d] = right32_##N(v[d] ^ v[a]); \
	v[c] += v[d]; \
	v[b] = right24_##N(v[b] ^ v[c]); \
	v[a] += v[b] + m[y]; \
	v[d] = right16_##N(v[d] ^ v[a]); \
	v[c] += v[d]; \
	v[b] = right63_##N(v[b] ^ v[c])

#define ROUND(N, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
	do { \
		G(N, 0, 4, 8, 12, s0, s1); \
		G(N, 1, 5, 9, 13, s2, s3); \
		G(N, 2, 6, 10, 14, s4, s5); \
		G(N, 3, 7, 11, 15, s6, s7); \
		G(N, 0, 5, 10, 15, s8, s9); \
		G(N, 1, 6, 11, 12, s10, s11); \
		G(N, 2, 7, 8, 13, s12, s13); \
		G(N, 3, 4, 9, 14, s14, s15); \
	} while (0)

#define ROUNDS(N) \
	ROUND(N, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
	ROUND(N, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3); \
	ROUND(N, 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4); \
	ROUND(N, 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8); \
	ROUND(N, 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13); \
	ROUND(N, 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9); \
	ROUND(N, 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11); \
	ROUND(N, 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10); \
	ROUND(N, 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5); \
	ROUND(N, 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0); \
	ROUND(N, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); \
	ROUND(N, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)

/* Lane i of every vector belongs to message i. load_N transposes N words of N messages. */
#define HASH(N, lanes) \
	do { \
		uint64_t first[8]; \
		lanes h[8], m[16], v[16]; \
		start(first, person); \
		for (unsigned i = 0; i < 8; i++) \
			h[i] = (lanes){0} + first[i]; \
		for (size_t at = 0; at < len; at += LANES_BLOCK) { \
			for (unsigned i = 0; i < 16; i += (N)) \
				load_##N(m + i, p + at + (size_t)i * 8, len); \
			for (unsigned i = 0; i < 8; i++) { \
				v[i] = h[i]; \
				v[8 + i] = (lanes){0} + iv[i]; \
			} \
			v[12] ^= (lanes){0} + (uint64_t)(at + LANES_BLOCK); \
			if (at + LANES_BLOCK == len) \
				v[14] = ~v[14]; \
			ROUNDS(N); \
			for (unsigned i = 0; i < 8; i++) \
				h[i] ^= v[i] ^ v[8 + i]; \
		} \
		for (unsigned i = 0; i < (N); i++) { \
			uint64_t word[DIGEST / 8]; \
			for (unsigned k = 0; k < DIGEST / 8; k++) \
				word[k] = h[k][i]; \
			memcpy(out + (size_t)i * DIGEST, word, DIGEST); \
		} \
	} while (0)

/* ---- four lanes ---- */

typedef uint64_t lanes4 __attribute__((vector_size(32)));
#define WITH4 __attribute__((target("avx2")))

WITH4 static inline lanes4 right32_4(lanes4 x) { return (lanes4)_mm256_shuffle_epi32((__m256i)x, 0xb1); }
WITH4 static inline lanes4 right24_4(lanes4 x)
{
	const __m256i bytes = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10,
		3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);

	return (lanes4)_mm256_shuffle_epi8((__m256i)x, bytes);
}
WITH4 static inline lanes4 right16_4(lanes4 x)
{
	const __m256i bytes = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9,
		2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);

	return (lanes4)_mm256_shuffle_epi8((__m256i)x, bytes);
}
WITH4 static inline lanes4 right63_4(lanes4 x) { return (x >> 63) ^ (x + x); }

WITH4 static inline __m256i load256(const uint8_t *p)
{
	__m256i x;

	memcpy(&x, p, sizeof x);
	return x;
}

WITH4 static inline void load_4(lanes4 *m, const uint8_t *p, size_t len)
{
	__m256i a = load256(p), b = load256(p + len), c = load256(p + 2 * len), d = load256(p + 3 * len);
	__m256i ab0 = _mm256_unpacklo_epi64(a, b), ab1 = _mm256_unpackhi_epi64(a, b);
	__m256i cd0 = _mm256_unpacklo_epi64(c, d), cd1 = _mm256_unpackhi_epi64(c, d);

	m[0] = (lanes4)_mm256_permute2x128_si256(ab0, cd0, 0x20);
	m[1] = (lanes4)_mm256_permute2x128_si256(ab1, cd1, 0x20);
	m[2] = (lanes4)_mm256_permute2x128_si256(ab0, cd0, 0x31);
	m[3] = (lanes4)_mm256_permute2x128_si256(ab1, cd1, 0x31);
}

WITH4 static void hash4(const uint8_t person[16], const uint8_t *p, size_t len, uint8_t *out) { HASH(4, lanes4); }

/* ---- eight lanes ---- */

typedef uint64_t lanes8 __attribute__((vector_size(64)));
#define WITH8 __attribute__((target("avx512f")))

WITH8 static inline lanes8 right32_8(lanes8 x) { return (lanes8)_mm512_ror_epi64((__m512i)x, 32); }
WITH8 static inline lanes8 right24_8(lanes8 x) { return (lanes8)_mm512_ror_epi64((__m512i)x, 24); }
WITH8 static inline lanes8 right16_8(lanes8 x) { return (lanes8)_mm512_ror_epi64((__m512i)x, 16); }
WITH8 static inline lanes8 right63_8(lanes8 x) { return (lanes8)_mm512_ror_epi64((__m512i)x, 63); }

/* Words 0 and 1, 2 and 3, ... of messages a, b, c, d stand in the 128-bit quarters of x and y: two of them to one vector. */
WITH8 static inline void load_8(lanes8 *m, const uint8_t *p, size_t len)
{
	__m512i row[8], low[4], high[4];

	for (unsigned i = 0; i < 8; i++)
		memcpy(&row[i], p + i * len, sizeof row[i]);
	for (unsigned i = 0; i < 4; i++) {
		low[i] = _mm512_unpacklo_epi64(row[2 * i], row[2 * i + 1]);
		high[i] = _mm512_unpackhi_epi64(row[2 * i], row[2 * i + 1]);
	}
	for (unsigned odd = 0; odd < 2; odd++) {
		const __m512i *x = odd ? high : low;
		/* Quarters 0 and 2, 1 and 3 of the first two pairs, and of the last two. */
		__m512i a = _mm512_shuffle_i64x2(x[0], x[1], 0x88), b = _mm512_shuffle_i64x2(x[0], x[1], 0xdd);
		__m512i c = _mm512_shuffle_i64x2(x[2], x[3], 0x88), d = _mm512_shuffle_i64x2(x[2], x[3], 0xdd);
		m[0 + odd] = (lanes8)_mm512_shuffle_i64x2(a, c, 0x88);
		m[4 + odd] = (lanes8)_mm512_shuffle_i64x2(a, c, 0xdd);
		m[2 + odd] = (lanes8)_mm512_shuffle_i64x2(b, d, 0x88);
		m[6 + odd] = (lanes8)_mm512_shuffle_i64x2(b, d, 0xdd);
	}
}

WITH8 static void hash8(const uint8_t person[16], const uint8_t *p, size_t len, uint8_t *out) { HASH(8, lanes8); }

unsigned lanes_width(void)
{
	return __builtin_cpu_supports("avx512f") ? 8 : __builtin_cpu_supports("avx2") ? 4 : 1;
}

void lanes_hash(unsigned width, const uint8_t person[16], const uint8_t *p, size_t len, uint8_t *out)
{
	assert((width == 4 || width == 8) && width <= lanes_width() && len && len % LANES_BLOCK == 0);
	if (width == 8)
		hash8(person, p, len, out);
	else
		hash4(person, p, len, out);
}

#else

unsigned lanes_width(void) { return 1; }

void lanes_hash(unsigned width, const uint8_t person[16], const uint8_t *p, size_t len, uint8_t *out)
{
	(void)person, (void)p, (void)len, (void)out;
	assert(width != width); /* nobody may call it: lanes_width is 1 */
}

#endif
