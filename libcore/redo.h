/*
 * redo: the pieces in which a staged patch differs from the base's file, whose list goes with it until the delta is decided.
 *
 *   stage/N          the long pieces at their own offsets, in a sparse file; or all in a clone of the base's file, which is the new
 *                    one then
 *   stage/N.short    of a sparse file: the short pieces one behind the other. An extent for each page would be long to free.
 *   stage/N.redo     of a sparse file: rows of u64 offset, u64 length, u8 kind
 *   stage/N.pieces   the same of a clone
 *
 * Where filesystems cannot share extents a patched copy would cost the whole file: there the pieces are written into the base's
 * file after the delta was decided, which can be repeated after a crash. Of a clone the list says what to keep for the way back.
 * What comes by redo_write are whole pages of 4 KiB in the end: what a delta changes inside one is completed from the base first.
 *
 * May use: file, path, writeback, bytes, err; makes system calls.
 */
#ifndef REPL_REDO_H
#define REPL_REDO_H

#include "bytes.h"
#include "err.h"

#define REDO_PAGE 4096u
#define REDO_RECENT 1024u /* pieces that redo_read still knows: more than twice the pages in the largest block, 1 MiB */

enum { REDO_DATA, REDO_HOLE, REDO_SHORT };
struct redo_piece {
	uint64_t off, len;
	uint64_t at;          /* where it is kept: of a short one in its file, else off */
	uint8_t kind;
};
struct redo {
	int fd, base;         /* borrowed: stage/N; the base's file */
	bool is_clone;        /* stage/N began as one of the base's file */
	uint64_t bytes;       /* out: in pieces that are no holes */
	/* private */
	int rows, shorts;     /* shorts: -1 of a clone */
	uint64_t shorts_end;
	struct redo_piece recent[REDO_RECENT];
	unsigned n;           /* pieces so far; the newest is recent[(n - 1) % REDO_RECENT] */
	struct buf pending;   /* rows not yet written */
};
/* d: {0} but for fd, base and is_clone. Makes the list. */
int redo_begin(struct redo *d, int stage, const char *name, struct err *e);
/* Pieces in ascending order. */
int redo_write(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e);
int redo_hole(struct redo *d, uint64_t off, uint64_t len, struct err *e);
/* Of a clone: this range got other content by other means. */
int redo_replaced(struct redo *d, uint64_t off, uint64_t len, struct err *e);
/* The file as it will be, where no more than REDO_RECENT pieces begin behind off. Zeros beyond its end. */
int redo_read(struct redo *d, void *p, size_t n, uint64_t off, struct err *e);
/* Where the short pieces are; -1: there are none. Borrowed. */
int redo_shorts(const struct redo *d);
int redo_end(struct redo *d, struct err *e);
/* What is written so far, for redo_load in a later process, and what is not: rows go out first. */
int redo_save(struct redo *d, struct buf *out, struct err *e);
/* As redo_begin, but goes on after redo_save; pos: where the pieces end. What was written after it is forgotten. */
int redo_load(struct redo *d, int stage, const char *name, struct rd *in, uint64_t pos, struct err *e);
void redo_free(struct redo *d);

/* The pieces of a staged file, one after the other. {0} is closed. */
struct redo_reader {
	struct redo_piece now;
	/* private */
	int fd, rows, shorts; /* shorts: -1 of a clone */
	uint64_t shorts_end;
	bool is_open;
	uint8_t buf[17 * 256];
	size_t at, len;
};
/* 1; 0: there is no list; -1. */
int redo_open(struct redo_reader *x, int stage, const char *name, struct err *e);
/* 1, 0 at the end, -1. */
int redo_next(struct redo_reader *x, struct err *e);
/* [off, off + n) of the file, which lies in the piece that is now. */
int redo_now(const struct redo_reader *x, void *p, size_t n, uint64_t off, struct err *e);
void redo_close(struct redo_reader *x);

/* Of a staged file: is it nothing but pieces? */
bool redo_is(int stage, const char *name);
/* Writes the pieces into fd and gives it its size. May be repeated. */
int redo_replay(int stage, const char *name, int fd, uint64_t size, struct err *e);
/* Completes stage/<name> from the base's file, so that it is an ordinary staged file of this size. May be repeated. */
int redo_fill(int stage, const char *name, int base, uint64_t size, struct err *e);

#endif
