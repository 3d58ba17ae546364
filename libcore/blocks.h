/*
 * blocks: rows of consecutive blocks (digest, rolling sum) as one value of the catalog, and which blocks have a sum.
 *
 *   u8 n; a bit for each row, low bits first: it has a sum; n digests; the sums, u64
 *
 * A sum costs a quarter of a digest, and moved content is found as well when not each page begins with one: of most blocks there is
 * none. In blocks of 4 KiB the rows take 0.9% of the data.
 *
 * May use: digest, record, bytes. Does no I/O.
 */
#ifndef REPL_BLOCKS_H
#define REPL_BLOCKS_H

#include "digest.h"
#include "record.h"

/* So many rows fill a value: with its key and check it has one page of the file, 4 KiB, where few of the rows have a sum. (Two in a
 * page with other rows would leave half of it free when they come in order.) A multiple of four, as the digest tree groups them. */
#define BLOCKS_ROWS 112u
#define BLOCKS_MAX (1 + (BLOCKS_ROWS + 7) / 8 + BLOCKS_ROWS * DIGESTS_ROW) /* bytes in a value at most */

/* Bytes in out; n: 1 to BLOCKS_ROWS. */
size_t blocks_encode(uint8_t out[BLOCKS_MAX], const uint8_t *rows, size_t n);
/* The number of rows; 0: it is no such value. rows: room for BLOCKS_ROWS. */
size_t blocks_decode(uint8_t *rows, struct span value);
/* The row of block number `block` of a file. p: its bytes, the first leaf at least where it is as long as one. */
void blocks_row(uint8_t row[DIGESTS_ROW], uint64_t block, const struct digest *d, const uint8_t *p, uint64_t len);
/* How many of the first n blocks of a file have a sum. */
uint64_t blocks_sums(uint64_t n);

#endif
