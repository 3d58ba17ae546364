/*
 * redo: the changed pieces of a large file, kept beside it until the delta is decided and then written into it.
 *
 * For filesystems that cannot share extents: there a patched copy would cost the whole file. The pieces lie at their own offsets
 * in the sparse file stage/N, and stage/N.redo lists them (rows of u64 offset, u64 length, u8 1 for a hole), so that writing them
 * can be repeated after a crash. They are whole pages of 4 KiB: what a delta changes inside one is completed from the base first.
 *
 * May use: replica, path, err; makes system calls.
 */
#ifndef REPL_REDO_H
#define REPL_REDO_H

#include "replica.h"

#define REDO_PAGE 4096u
#define REDO_RECENT 512u /* pieces that redo_read still knows: more than there are pages in the largest block, 1 MiB */

struct redo_piece {
	uint64_t off, len;
	uint8_t hole;
};
struct redo {
	int fd, base;         /* borrowed: stage/N; the base's file */
	uint64_t base_size;
	uint64_t bytes;       /* out: in pieces that are no holes */
	/* private */
	int rows;
	struct redo_piece recent[REDO_RECENT];
	unsigned n;           /* pieces so far; the newest is recent[(n - 1) % REDO_RECENT] */
	struct buf pending;   /* rows not yet written */
};
/* fd: stage/<name>, empty. Makes stage/<name>.redo. */
int redo_begin(struct redo *d, const struct replica *r, const char *name, int fd, int base, uint64_t base_size, struct err *e);
/* Pieces in ascending order. */
int redo_write(struct redo *d, const void *p, size_t n, uint64_t off, struct err *e);
int redo_hole(struct redo *d, uint64_t off, uint64_t len, struct err *e);
/* The file as it will be; off not more than 1 MiB before the end of the last piece. Zeros beyond its end. */
int redo_read(struct redo *d, void *p, size_t n, uint64_t off, struct err *e);
int redo_end(struct redo *d, struct err *e);
/* What is written so far, for redo_load in a later process, and what is not: rows go out first. */
int redo_save(struct redo *d, struct buf *out, struct err *e);
/* As redo_begin, but goes on after redo_save; pos: where the pieces end. What was written after it is forgotten. */
int redo_load(struct redo *d, const struct replica *r, const char *name, struct rd *in, uint64_t pos, struct err *e);
void redo_free(struct redo *d);

/* Of a staged file: is it a list of pieces? */
bool redo_is(const struct replica *r, const char *name);
/* Writes the pieces into fd and gives it its size. May be repeated. */
int redo_replay(const struct replica *r, const char *name, int fd, uint64_t size, struct err *e);
/* Completes stage/<name> from the base's file, so that it is an ordinary staged file of this size. May be repeated. */
int redo_fill(const struct replica *r, const char *name, int base, uint64_t size, struct err *e);

#endif
