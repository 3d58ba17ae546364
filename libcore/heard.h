/*
 * heard: turns what an event source told into the records of one batch of the journal.
 *
 * Directories are looked up only here: where they are now is where their changes are named. What is not below the paths is left
 * out; gaps swallow what lies below them. An object that changed under a name which does not lead to it, or which is not its only
 * one, is named by its inode.
 *
 * May use: watch, names, gaps, journal, changes, clock, err.
 */
#ifndef REPL_HEARD_H
#define REPL_HEARD_H

#include "gaps.h"
#include "journal.h"
#include "names.h"
#include "watch.h"

struct heard {
	struct watch *watch;     /* borrowed; what it loses meanwhile comes into gaps */
	struct journal *journal; /* borrowed */
	struct names names;
	struct buf suspects;     /* bits: objects that changed under a name that is not known */
	struct words inodes;     /* r_inode, encoded: of objects */
	struct words files;      /* paths of files that may have changed without an event */
	struct gaps gaps;
	/* out */
	uint64_t n_names, n_inodes; /* written by the last heard_write */
	/* private */
	struct heard_work *work;
};
/* One event, as hear.changed tells it. */
void heard_changed(struct heard *b, uint32_t dir, struct span name, uint8_t flags, uint32_t obj, bool is_written);
void heard_inode(struct heard *b, const struct r_inode *ino);
/* A file that may have changed though no event told: an absolute path. */
void heard_file(struct heard *b, struct span path);
bool heard_is_empty(const struct heard *b);
/* Bytes of memory. */
size_t heard_size(const struct heard *b);
/* Writes it, as several batches when paths are long, as none when there is nothing to say; then b is empty. On an error it is as it
 * was, and a part of it may have been written. */
int heard_write(struct heard *b, struct err *e);
/* Forgets all. */
void heard_reset(struct heard *b);
void heard_free(struct heard *b);

#endif
