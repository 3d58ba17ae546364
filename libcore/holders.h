/*
 * holders: files that can change without an event, now: those that some process holds open for writing or has mapped shared, and
 * those behind loop devices.
 *
 * The kernel tells of a store through a mapping, of an asynchronous write (io_submit(2)) and of a write through a loop device only
 * when the last reference to the open file goes: until then such a file is named each time. A mapping that may only be read counts
 * as well, for mprotect(2) can make it writable and back. Not only regular files: what is written to a FIFO or a block device sets the
 * modification time of its name. Without privilege only the caller's own processes can be looked into.
 *
 * May use: volume (its loop devices), record, bytes, err; reads /proc and /sys.
 */
#ifndef REPL_HOLDERS_H
#define REPL_HOLDERS_H

#include "record.h"

struct holders {
	/* No directory. path: as its holder knows it, empty when that is not known; it may lead elsewhere: who uses it compares. */
	void (*file)(void *ctx, struct span path, const struct r_inode *ino);
	int (*breathe)(void *ctx, struct err *e); /* called between two processes */
	void *ctx;
	/* Is this device (st_dev, or the superblock's where is_super) of interest? */
	bool (*is_device)(void *ctx, uint64_t dev, bool is_super);
	/* out */
	uint64_t processes, refused, files; /* refused: that could not be looked into */
};
int holders_find(struct holders *h, struct err *e);

#endif
