/*
 * spool: the items of a scan in a temporary file, to be gone through again as often as needed.
 *
 * Only what is new or may have changed is kept, with the directories on the way to it. Paths are not in the file: a replay puts
 * them together from the directories that it passes. Memory: the way down.
 *
 * May use: scan, attr, file, path, record, bytes, err.
 */
#ifndef REPL_SPOOL_H
#define REPL_SPOOL_H

#include <stdio.h>

#include "scan.h"

struct spool {
	const char *tmpdir; /* borrowed */
	bool all_dirs;      /* keep the directories as well in which nothing changed */
	/* private */
	FILE *f;
	struct buf pending; /* directories that were entered and not yet written: nothing in them has changed so far */
	struct buf starts;  /* u64 of each where it starts in pending */
};
/* tmpdir and all_dirs are set. ERR_SYSTEM. */
int spool_open(struct spool *s, struct err *e);
/* The next item of the scan. was_same: the scan called it SAME, though it->how says otherwise now. A directory that was not all
 * seen is kept, whatever it is. */
int spool_put(struct spool *s, const struct scan_item *it, bool was_same, struct err *e);
/* Forgets all items. */
int spool_reset(struct spool *s, struct err *e);
void spool_free(struct spool *s);

struct spool_item { /* as in struct scan_item; all of it lives until the callback returns */
	enum scan_kind kind;
	enum scan_how how;
	uint8_t type;
	bool again, was_same;
	bool unsure;    /* at a LEAVE: not all of the directory's inside was seen */
	uint64_t base, link, prior;
	unsigned root;
	size_t depth;   /* directories above it; 0: the image's root */
	struct span name, path;
	struct attr a;  /* size; mode, owner, mtime, rdev of meta; dev and ino of hint. None at a LEAVE of a directory */
};
/* All items in order; what fn changes in an item is not kept. fn must not put any. Stops at the first -1. */
int spool_replay(struct spool *s, int (*fn)(void *ctx, struct spool_item *it, struct err *e), void *ctx, struct err *e);

#endif
