/*
 * changes: reads a change stream and looks at what it names.
 *
 * The names are a hint: each is looked up in the tree and in the base, and what comes out are the same items as a scan's, in
 * the same order. A gap makes it a scan of what lies below. Records stand in depth-first order, names ascending, each at most once
 * in its directory. May use: scan, input, path, attr, filter, err.
 */
#ifndef REPL_CHANGES_H
#define REPL_CHANGES_H

#include "input.h"
#include "path.h"
#include "scan.h"

/* IMAGE and MEMBER records were read by the caller, and the record after them, which in->s.rec still shows; reads on
 * to the end. The roots are those of the stream's members, caches[i] stands on roots[i]. s->base is not empty.
 * ERR_STREAM when the order makes no sense or the end is missing. */
int changes_scan(struct scan *s, struct input *in, const struct walk_root *roots, size_t n_roots, struct path_cache **caches,
	struct err *e);

#endif
