/*
 * chunks: the block rows of a file, as they lie in the tables of a store.
 *
 *   blocks  object number, chunk number -> BLOCKS_ROWS rows, fewer in a file's last chunk (blocks.h)
 *   loose   object number, chunk number -> rows newer than those in the chunk, LOOSE_MOST at most, in order. Each: u8 place in the
 *           chunk, high bit: it has a sum; digest; sum, u64
 *
 * A chunk has a page of the file to itself. Of a file whose blocks are rewritten here and there each chunk would be written again for a
 * row or two, and a catalog that has most of its pages changed takes as long to write as the content. So a row that changes lies loose
 * until LOOSE_MOST of its chunk do. (4 GiB, 1% of its 4 KiB pages rewritten: 27 MB of chunks, or 0.6 MB of loose rows.) Only a chunk
 * that is full has any.
 *
 * May use: store, rows, blocks, digest, bytes.
 */
#ifndef REPL_CHUNKS_H
#define REPL_CHUNKS_H

#include "blocks.h"
#include "rows.h"

/* More of them would be fewer chunks to write and a larger file: 8 take a tenth of what their chunk does at most. */
#define LOOSE_MOST 8u

/* As the functions of the catalog with such names (catalog.h). */
int chunks_get(struct store *s, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e);
int chunks_next(struct store *s, uint64_t no, uint64_t *block, struct err *e);
int chunks_put(struct store *s, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e);
int chunks_cut(struct store *s, uint64_t no, uint64_t first, struct err *e);
int chunks_all(struct store *s, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row), void *ctx, struct err *e);

#endif
