/*
 * prefetch: asks the disk for the rows of a catalog that the records which came already will be looked up by.
 *
 * The catalog of a large tree is not in memory when it was not used for long, and a change of it goes to rows here and there: each would
 * be waited for by itself, a thousand times for a hundred files. What a reader of records has in its buffer tells what will be asked
 * for: names, directory below directory, and then the objects that have them.
 *
 * May use: catalog, rows, stream.
 */
#ifndef REPL_PREFETCH_H
#define REPL_PREFETCH_H

#include "catalog.h"
#include "stream.h"

struct prefetch {
	/* Set by the caller. Number in the catalog of the directory that the stream has numbered so; 0: none, or not known. */
	uint64_t (*known)(const void *ctx, uint64_t ref);
	const void *ctx;
	bool inodes; /* what is found will be replaced: its row of inodes as well */
	uint64_t until; /* so far into the stream the records were looked at */
};
/* Before a record is looked at that came by s. Changes nothing but what is in memory, and says nothing of errors: whoever looks for a row
 * in earnest will meet them. */
void prefetch_run(struct prefetch *p, struct catalog *c, const struct stream_in *s);

#endif
