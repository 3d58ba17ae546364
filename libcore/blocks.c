#include "blocks.h"

#include <string.h>

#define ALL_BELOW 32u /* blocks of a small file: each may be what another one begins with */
#define EVERY 4u

size_t blocks_encode(uint8_t out[BLOCKS_MAX], const uint8_t *rows, size_t n)
{
	uint8_t *bits = out + 1, *digest = bits + (n + 7) / 8, *sum = digest + n * DIGEST_LEN;

	out[0] = (uint8_t)n;
	memset(bits, 0, (n + 7) / 8);
	for (size_t i = 0; i < n; i++, rows += DIGESTS_ROW) {
		memcpy(digest + i * DIGEST_LEN, rows, DIGEST_LEN);
		if (is_zero(rows + DIGEST_LEN, DIGESTS_ROW - DIGEST_LEN))
			continue;
		bits[i / 8] |= (uint8_t)(1 << i % 8);
		memcpy(sum, rows + DIGEST_LEN, DIGESTS_ROW - DIGEST_LEN);
		sum += DIGESTS_ROW - DIGEST_LEN;
	}
	return (size_t)(sum - out);
}

size_t blocks_decode(uint8_t *rows, struct span value)
{
	const size_t n = value.len ? value.p[0] : 0, head = 1 + (n + 7) / 8 + n * DIGEST_LEN;

	if (!n || n > BLOCKS_ROWS || value.len < head)
		return 0;
	const uint8_t *bits = value.p + 1, *digest = bits + (n + 7) / 8, *sum = value.p + head, *end = value.p + value.len;
	for (size_t i = 0; i < n; i++, rows += DIGESTS_ROW) {
		memcpy(rows, digest + i * DIGEST_LEN, DIGEST_LEN);
		memset(rows + DIGEST_LEN, 0, DIGESTS_ROW - DIGEST_LEN);
		if (!(bits[i / 8] >> i % 8 & 1))
			continue;
		if (end - sum < (ptrdiff_t)(DIGESTS_ROW - DIGEST_LEN))
			return 0;
		memcpy(rows + DIGEST_LEN, sum, DIGESTS_ROW - DIGEST_LEN);
		sum += DIGESTS_ROW - DIGEST_LEN;
	}
	return sum == end ? n : 0;
}

void blocks_row(uint8_t row[DIGESTS_ROW], uint64_t block, const struct digest *d, const uint8_t *p, uint64_t len)
{
	bool has_sum = len >= DIGEST_LEAF && (block < ALL_BELOW || block % EVERY == 0);

	memcpy(row, d->b, DIGEST_LEN);
	put_le64(row + DIGEST_LEN, has_sum ? roll_sum(p) : 0);
}

uint64_t blocks_sums(uint64_t n)
{
	return n <= ALL_BELOW ? n : ALL_BELOW + (n - ALL_BELOW + EVERY - 1) / EVERY;
}
