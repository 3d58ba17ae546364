/*
 * target: the tree as it is now, object by object: opens what a scan found a moment ago, if it is still what it was.
 *
 * May use: spool, walk, path, attr, record, bytes, err.
 */
#ifndef REPL_TARGET_H
#define REPL_TARGET_H

#include "path.h"
#include "spool.h"

struct target {
	const struct walk_root *roots; /* borrowed */
	size_t n_roots;
	const struct warn *warn;       /* may be NULL */
	/* out of target_start */
	struct path_cache **caches;    /* caches[i] stands on roots[i] */
	uint64_t *devs;                /* st_dev of each root */
};
/* ERR_SYSTEM. */
int target_start(struct target *t, struct err *e);
/* 1: *a is all that the filesystem says of the object, and *fd an open descriptor when it is a file or directory (owned), else -1.
 * 0: it went away, became something else or cannot be read, which a warning says ("vanished", "unreadable"); *fd is -1 and
 * *a is not to be used. -1: an error; *fd is the caller's as well. */
int target_get(struct target *t, const struct spool_item *it, int *fd, struct attr *a, struct err *e);
void target_free(struct target *t);

#endif
