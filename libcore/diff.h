/*
 * diff: makes the delta that turns a base into a tree as it is now.
 *
 * First the names (a scan of the tree, or of what a change stream names), then, in the target's order, metadata and content of
 * what is new or suspect. Every record goes to the delta, to the plan (the delta without content, with digests and hints, which
 * the source keeps until the replica acknowledged) and into a second catalog, whose id at the end is the target's.
 *
 * What could not be taken (it went away, could not be read, did not hold still) the plan names, so that the next run looks at it
 * whether or not it changes again.
 *
 * May use: scan, changes, tape, spool, moves, guess, target, ship, emit, catalog, attr, input, stream, numbers.
 */
#ifndef REPL_DIFF_H
#define REPL_DIFF_H

#include "catalog.h"
#include "input.h"
#include "scan.h"
#include "ship.h"

struct diff {
	struct catalog *base;           /* borrowed; may be empty */
	const struct walk_root *roots;  /* sorted by name */
	size_t n_roots;
	struct r_image stamps;          /* of the target */
	const struct r_member *members; /* one for each root */
	struct input *changes;          /* a change stream after its MEMBER records, or NULL: look at everything */
	bool everything;                /* there is more to look at than changes says: it is only read to its end */
	const struct r_cursor *cursor;  /* kept in the plan; NULL: none */
	bool mends;                     /* changes says what a replica of the base lacks: that is sent whole */
	struct stream_out *out;         /* the delta */
	struct stream_out *plan;
	/* Called once the extent of the change is known: a catalog that holds the base and may be changed. `items`: names that are
	 * new or suspect. Either base itself (LIVE, begun) or a private copy. Borrowed. */
	int (*next)(void *ctx, uint64_t items, struct catalog **next, struct err *e);
	/* As that of emit. */
	int (*outgrown)(void *ctx, struct image_loader *l, uint64_t records, struct catalog **next, struct err *e);
	/* Called before the delta's trailer goes out, when the plan is complete: the moment to make it durable. May be NULL. */
	int (*ready)(void *ctx, const struct digest *id, struct err *e);
	void (*progress)(void *ctx, uint64_t bytes, uint64_t total, uint64_t items);
	void *ctx;
	const struct filter *filter;
	uint64_t prune_dev, prune_ino;
	const char *tmpdir;
	unsigned threads;
	uint32_t grain;                 /* 0: chosen per file */
	bool one_file_system, checksum, no_copies, ship_unsettled;
	bool image_only;                /* no content: rows and seals alone (out gets an image) */
	int64_t edge_ns;                /* wall clock before the tree was looked at: what changed after it is not settled */
	bool no_hints;                  /* of a tree whose inodes mean nothing to the one it will be compared with */
	const struct buf *key;          /* signs the delta; NULL or empty: not */
	const struct warn *warn;
	struct ship_still still;
	bool by_name;                   /* names say who was who, though the base has hints */
	bool are_roots_still;           /* they are snapshots: nobody writes to what is read */
	/* out */
	struct digest base_id, id;
	uint64_t n_looked_at;           /* names */
	uint64_t n_created, n_changed, n_removed, n_moved, bytes_sent, n_unsettled;
	uint64_t bytes_looked_at, bytes_read; /* of content: looked at, and read for that */
};
/* The caller closes or commits `next`. On an error nothing was promised: the delta has no trailer. */
int diff_run(struct diff *d, struct err *e);

#endif
