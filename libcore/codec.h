/*
 * codec: zstd, and the container of a packed stream. The only module that names libzstd.
 *
 * A packed stream is a valid zstd file (repl-stream(5), "PACKED STREAMS"):
 *   head   skippable frame 0x184D2A5B: "replpack" u16 version u16 reserved
 *   chunk  skippable frame 0x184D2A5C: u32 packed length u32 plain length u32 reserved, then one zstd frame, which
 *          needs no other frame to be decoded
 *   index  skippable frame 0x184D2A5D: u64 plain offset of the first chunk listed, u64 file offset of the index
 *          before (all ones: none), u32 n, n * (u32 packed length with its 20 bytes in front, u32 plain length), "RIDX"
 * Offsets count from the head. An index follows at most 1024 chunks and ends the file, so a file that lost its end
 * is known as such, and whoever reads the last four bytes can seek. Several packed streams may follow each other.
 *
 * May use: pool, bytes, err. No descriptors, no clock, no environment: bytes come through a callback.
 * Invariant: no length is believed before it was compared with a ceiling; no buffer grows before its bytes came,
 * except the plain side of one chunk, which is at most CODEC_CHUNK_MAX.
 */
#ifndef REPL_CODEC_H
#define REPL_CODEC_H

#include "bytes.h"
#include "err.h"

/* Plain bytes in a chunk, unless told otherwise: two of the largest DATA records, so that they are not cut where a large file has been. */
#define CODEC_CHUNK (2 * (1048576u + 48u))
#define CODEC_CHUNK_RESUMED 262144u                   /* the same of a rest */
#define CODEC_CHUNK_MIN 4096u
#define CODEC_CHUNK_MAX 8388608u                      /* most plain bytes in a chunk */
#define CODEC_FRAME_MAX (2 * CODEC_CHUNK_MAX + 1024u) /* most packed bytes of a chunk */
#define CODEC_CHUNK_HEAD 20u                          /* what stands in front of a chunk's frame */
#define CODEC_INDEX_MAX 1024u                         /* most chunks in one index */
#define CODEC_LONG_MIN 10u                            /* --long takes logarithms in this range */
#define CODEC_LONG_MAX 27u
#define CODEC_WINDOW_MAX 27                           /* logarithm; ordinary zstd files may ask for so much */

/* True when these bytes (at least 4) start a zstd file, packed by us or not. */
bool codec_is_zstd(const void *p, size_t n);
/* The levels that libzstd offers. */
int codec_level_min(void);
int codec_level_max(void);

/* ---- making frames ---- */

/* Lists chunks for the next index frame. Start with codec_head. */
struct codec_index {
	uint64_t plain_off, file_off; /* where the next chunk will stand */
	uint64_t first, prev;         /* plain offset of the first chunk listed; file offset of the index before */
	uint32_t n;
	struct buf rows;
};
/* Appends the head frame and begins a file. */
void codec_head(struct codec_index *x, struct buf *out);
/* Lists one chunk; `packed` counts CODEC_CHUNK_HEAD. */
void codec_index_add(struct codec_index *x, uint32_t packed, uint32_t plain);
/* Appends the index frame and begins the next one. */
void codec_index_put(struct codec_index *x, struct buf *out);
void codec_index_free(struct codec_index *x);

/* Compresses chunks, one after the other, on one thread; memory is used again. */
struct codec_packer;
/* long_log: 0, or the logarithm of the reach of long distance matching. Owned. ERR_SYSTEM. */
int codec_packer_open(struct codec_packer **p, unsigned long_log, struct err *e);
/* Makes the chunk (head and frame) of 1 to CODEC_CHUNK_MAX plain bytes, in place of what was in out. *is_raw: it did not compress and
 * is kept as it is: `out` has only what stands between its blocks. ERR_SYSTEM. */
int codec_pack(struct codec_packer *p, int level, struct span plain, struct buf *out, bool *is_raw, struct err *e);
/* What to write of such a chunk, in order, from where it lies; returns how many spans. *len: bytes in all. */
#define CODEC_SPANS (2 * (CODEC_CHUNK_MAX / 131072u))
int codec_spans(struct span v[CODEC_SPANS], const struct buf *out, struct span plain, bool is_raw, uint32_t *len);
/* Does the higher level make less of these bytes, by 3% at least, as far as a sample of them tells? Where hardly anything is found twice it
 * may make more: digits at random take 2% more at levels 4 to 8 of zstd 1.5 than at 3. */
bool codec_gains(struct codec_packer *p, int low, int high, struct span plain);
void codec_packer_close(struct codec_packer **p);

/* ---- reading packed streams ---- */

/* Stores 1 to n bytes; *got 0: end of input. Called on another thread when the reader has one. */
typedef int (*codec_fill)(void *ctx, void *p, size_t n, size_t *got, struct err *e);
struct codec_reader;
/* threads 0: one per processor, 4 at most; 1: none extra. */
int codec_reader_open(struct codec_reader **r, codec_fill fill, void *ctx, unsigned threads, struct err *e);
/* 1 to n plain bytes; *got 0: a clean end. A chunk is handed out only when what follows it (index or next chunk) came
 * too, so the end of a packed stream is not seen before its index was. ERR_STREAM, or what fill said. */
int codec_reader_read(struct codec_reader *r, void *p, size_t n, size_t *got, struct err *e);
/* A fill that waits must have been made to return by the caller. */
void codec_reader_close(struct codec_reader **r);

#endif
