/*
 * named: a set of names that may have changed, in any order, which becomes a change stream.
 *
 * May use: catalog, image, changes, tape, path, err. Memory: the names, NAMED_MAX bytes and a little more.
 */
#ifndef REPL_NAMED_H
#define REPL_NAMED_H

#include "bytes.h"
#include "err.h"

#define NAMED_MAX (16u << 20)

struct catalog;
struct tape;

struct named { /* {0} is empty; named_free */
	struct buf rows; /* empty: no names */
	struct buf starts; /* private */
};
/* flags: CHANGED_…, or-ed where a path comes again. An empty path is the root's. */
void named_add(struct named *n, struct span path, uint8_t flags);
/* A name in a directory of the catalog. */
int named_add_name(struct named *n, struct catalog *c, uint64_t dir, struct span name, uint8_t flags, struct err *e);
/* What could not be taken when the catalog's image was made. */
int named_add_again(struct named *n, struct catalog *c, struct err *e);
/* What came after it was full is not in it. */
bool named_is_full(const struct named *n);
/* As records on a tape that was opened, and closes it. What lies below a CHANGED_SUBTREE is left out. */
int named_write(struct named *n, struct tape *t, struct err *e);
void named_free(struct named *n);

#endif
