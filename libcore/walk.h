/*
 * walk: goes through a directory tree depth first, names in byte order, on several threads.
 *
 * The caller sees one entry after the other in a fixed order, whatever the threads do; listing and stat of the
 * directories ahead happen in the background (ahead). Memory is bounded: listings that nobody consumed yet are limited,
 * and a directory larger than the limit is sorted through a temporary file.
 *
 * May use: ahead, listing, attr, path, bytes, err. Follows no links; never opens anything but directories.
 */
#ifndef REPL_WALK_H
#define REPL_WALK_H

#include "attr.h"

struct walk_root {
	const char *name; /* borrowed: name of the member below the image's root; "" for the only root */
	int fd;           /* borrowed: open directory; or a volume, of a name: a file or block device, which is one entry */
};
struct walk_options {
	unsigned threads;     /* in the background; 0: one per processor; 1: none, the caller's thread does it all */
	bool one_file_system; /* a directory on another device is reported (WALK_DIR with is_mount) but not entered */
	/* Called once on the consumer's thread for each entry below a root before it is reported, parent before child; false
	 * leaves the entry (and all below) out. Directories may be asked about before their elder siblings. path: the
	 * whole relative path. May be NULL. */
	bool (*accept)(void *ctx, struct span path, uint8_t type);
	void *ctx;
	const struct warn *warn; /* "unreadable": a directory or entry that could not be listed or statted; "vanished":
	                            left out because it went away, or a directory that something else has replaced
	                            (reported as unreadable). Only from within walk_next. */
	const char *tmpdir;   /* borrowed until walk_open returns; for directories too large for memory; NULL: /tmp */
	size_t spill_at;      /* names in one directory that go there; 0: 128 Ki */
};
enum walk_event {
	WALK_END = 0,
	WALK_DIR,   /* a directory, before what is in it; walk_skip() now leaves its inside out */
	WALK_ENTRY, /* anything else */
	WALK_LEAVE, /* a directory, after what was in it */
};
struct walk_entry {
	enum walk_event event;
	struct span name;    /* last component; empty for a root named "" */
	struct span path;    /* whole relative path, no leading slash; borrowed until the next call */
	unsigned depth;      /* 0: a root */
	unsigned root;       /* index into the roots */
	struct attr *attr;   /* attr_stat done; borrowed until the next call */
	int dirfd;           /* open O_RDONLY descriptor of the parent directory (or, at WALK_LEAVE and for roots, of the
	                        directory itself; -1 there when it is a mount or could not be opened); borrowed until
	                        the next call; its read position is not the caller's */
	bool is_mount;       /* not entered: other device */
	bool unreadable;     /* WALK_DIR and WALK_LEAVE: could not be listed, or not completely: what is missing proves nothing */
};
struct walk;
/* The name ".repl" directly below a root is the toolkit's own and never reported.
 * Roots in the order given (already sorted by name by the caller). Owned; walk_close. */
int walk_open(struct walk **w, const struct walk_root *roots, size_t n, const struct walk_options *o, struct err *e);
/* The next event into *en; -1 on an error that ends the walk (no descriptors, no memory for threads). */
int walk_next(struct walk *w, struct walk_entry *en, struct err *e);
/* After WALK_DIR: do not enter. A WALK_LEAVE still follows. */
void walk_skip(struct walk *w);
void walk_close(struct walk **w);

#endif
