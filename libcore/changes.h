/*
 * changes: reads a change stream and looks at what it names; and writes one.
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

/* Writing: the caller enters and leaves all directories, depth first; those in which nothing is named stay out of the stream.
 * {.o = stream} is ready: its head was written by the caller, who finishes it too. */
struct changes_out {
	struct stream_out *o;
	/* private */
	struct changes_level *levels;
	size_t n, cap;
	uint64_t last_ref, n_changed;
};
/* dir: what the base has there, for changes_dir. The first one is the root, without a name. */
void changes_enter(struct changes_out *c, struct span name, uint64_t dir);
void changes_leave(struct changes_out *c);
bool changes_is_inside(const struct changes_out *c); /* a directory was entered */
uint64_t changes_dir(const struct changes_out *c);   /* of the innermost directory */
/* A name of the innermost directory; empty: that directory itself. */
int changes_put(struct changes_out *c, uint8_t flags, struct span name, struct err *e);
/* Block numbers of the name that was put last. */
int changes_region(struct changes_out *c, uint32_t grain, struct span rows, struct err *e);
/* The innermost directory is to be compared with all below it. Nothing of its inside was put yet, nor will be. */
int changes_gap(struct changes_out *c, struct span reason, struct err *e);
/* Names the innermost directory, also when nothing will be put in it. */
int changes_say(struct changes_out *c, struct err *e);
void changes_free(struct changes_out *c);

#endif
