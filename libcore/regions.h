/*
 * regions: which blocks of a changed file may have changed, written behind the file's name in a change stream.
 *
 * For each file that a change stream names, of which the base's content is kept (clones.h, snapshots.h) and shares extents with what the file is
 * now, the blocks of 4 KiB that are not proved to be shared: REGION records. They are hints for who reads the stream;
 * repl-diff finds out by itself, from a copy that holds still.
 *
 * May use: clones, snapshots, extents, state, head, catalog, input, stream, path, walk (its roots), err.
 */
#ifndef REPL_REGIONS_H
#define REPL_REGIONS_H

#include "stream.h"

struct catalog;
struct clones;
struct head;
struct snapshots;
struct state;
struct walk_root;

struct regions {
	/* out */
	uint64_t files, blocks; /* that have a table, and its rows */
	/* private */
	struct catalog *base;
	const struct walk_root *roots;
	size_t n_roots;
	const struct clones *clones;
	const struct snapshots *was;
};
/* Copies the change stream in fd to out, with the tables. It leads from the state's base, or from the catalog in this file of the state,
 * to the image of this head. */
int regions_add(struct regions *g, const struct state *s, const char *file, const struct head *h, int fd, struct stream_out *out,
	struct err *e);

#endif
