/*
 * shifts: where a staged file has content of the base's file at another place, so that the way back can take it from there.
 *
 *   stage/N.shifts   rows of u64 offset in the staged file, u64 length, u64 offset in the base's file
 *
 * May use: file, bytes, err; makes system calls. Memory: 24 bytes for each row, SHIFTS_MAX of them; what goes beyond is not listed.
 */
#ifndef REPL_SHIFTS_H
#define REPL_SHIFTS_H

#include "bytes.h"
#include "err.h"

#define SHIFTS_MAX 65536u

struct shift {
	uint64_t off, len, src; /* bytes; off: in the staged file, src: in the base's */
};

/* The list of one file while it is made; {0} is an empty one. There is no file before the first row is written. */
struct shifts {
	struct shift last;   /* may still grow */
	uint64_t n, written; /* rows: the last included; in the file */
	struct buf rows;     /* not yet written */
};
/* In ascending order of off. */
void shifts_add(struct shifts *s, const struct shift *x);
int shifts_end(struct shifts *s, int stage, const char *name, struct err *e);
/* What is there so far, for shifts_load in a later process. Rows go out first. */
int shifts_save(struct shifts *s, int stage, const char *name, struct buf *out, struct err *e);
int shifts_load(struct shifts *s, int stage, const char *name, struct rd *in, struct err *e);
void shifts_free(struct shifts *s);

/* The rows of a staged file in ascending order of src; none when it has no list. Owned. */
int shifts_read(struct shift **v, size_t *n, int stage, const char *name, struct err *e);
/* One that has all of these bytes of the base's file; NULL: none is known. */
const struct shift *shifts_find(const struct shift *v, size_t n, uint64_t src, uint64_t len);

#endif
