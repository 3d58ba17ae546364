/*
 * batches: the change streams that a journal is made of, each a file FIRST-LAST.repl of the numbers it stands for.
 *
 * 16 decimal digits each. A batch is of the member '/'; in IMAGE it has its time, and FIRST as seq; in CURSOR the journal's uuid
 * and LAST. So it is known for what it is, whatever its file is called, and whole by its trailer. Files with other names are
 * nobody's: where one is missing for them, that shows.
 *
 * May use: merge, changes, sink, stream, err; makes system calls.
 */
#ifndef REPL_BATCHES_H
#define REPL_BATCHES_H

#include "merge.h"
#include "sink.h"

#define BATCHES_NAME 40u /* room for the name of one */

struct batch {
	uint64_t first, last, size;
};
struct batches {
	int dir;             /* where they are; borrowed, as the journal's uuid is */
	const uint8_t *uuid;
	struct batch *v;     /* by first, the longest first */
	size_t n, cap;
};
void batches_name(char out[BATCHES_NAME], uint64_t first, uint64_t last);
/* Exactly such a name. */
bool batches_parse(const char *name, struct batch *b);
/* Lists the directory, from scratch. */
int batches_list(struct batches *l, struct err *e);
void batches_free(struct batches *l);
int batches_remove(const struct batches *l, const struct batch *b, struct err *e);

/* A new file that is no batch yet; what had the name goes. Owned, for writing; -1. */
int batches_new(int dir, const char *name, struct err *e);
/* What comes before the names, and after them. */
int batches_begin(struct stream_out *o, const uint8_t uuid[16], uint64_t first, uint64_t last, int64_t time_ns, struct err *e);
int batches_end(struct stream_out *o, struct sink *s, struct err *e);

/* A file of the journal, for reading. Owned; -1: there is none, or something that is no file has its name. */
int batches_file(int dir, const char *name, struct err *e);
/* A batch that was read through and is what it should be: a descriptor at its start, owned; -1: ERR_STREAM when it is damaged or
 * of another journal. */
int batches_open(const struct batches *l, const struct batch *b, struct err *e);
/* Writes one that holds what n of them (at most MERGE_MAX), neighbours, say. ERR_STREAM as above; what was written is of no
 * use then. */
int batches_join(const struct batches *l, const struct batch *b, size_t n, int to, struct err *e);
/* The same for MERGE_MAX open ones, which are taken: one without a name in fds[0], the others are -1. On failure all are. */
int batches_shrink(const struct batches *l, int fds[MERGE_MAX], struct err *e);

#endif
