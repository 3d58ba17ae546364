/*
 * dense: any string of bytes as a sequence of records that are well formed, so that mutations of it reach what lies behind the
 * parser: small numbers, names from a pool, few bytes a field. It knows no record by itself, but goes by rec_rows.
 */
#ifndef REPL_DENSE_H
#define REPL_DENSE_H

#include "record.h"

#define DENSE_ROOM (512u * 1024)

struct dense {
	const uint8_t *p;
	size_t len;
	/* What DIGEST fields choose from; 0 is always the zero digest. */
	const struct digest *digests;
	size_t n_digests;
	const char *const *names; /* what names, texts and targets choose from; NULL ends it; the first is "" */
	/* private */
	uint8_t *room; /* what spans point into; DENSE_ROOM bytes */
	size_t used;
};
void dense_start(struct dense *d, const uint8_t *p, size_t len);
void dense_free(struct dense *d);
/* The next record of a type that may stand in streams of this kind (never TRAILER); false at the end. Its spans live until the
 * second dense_start or dense_free. It decodes, but rec_check may refuse it. */
bool dense_next(struct dense *d, enum stream_kind kind, struct record *r);
uint8_t dense_byte(struct dense *d);

/* Fails loudly: prints what and aborts. */
void dense_must(bool ok, const char *what);
/* A stream_sink into a struct buf. */
int dense_sink(void *ctx, const struct span *v, int n, struct err *e);
/* A descriptor that reads these bytes. Owned. */
int dense_fd(struct span bytes);
/* Writes the stream to the file that FUZZ_STREAM names in the environment, for a look with repl-show. */
void dense_keep(struct span stream);
/* A directory of our own, on a filesystem in memory where there is one; removed when the process ends. */
const char *dense_work(void);

#endif
