/*
 * where: volumes of a replica that stand elsewhere than in its directory: on a block device, or in a file outside of it.
 *
 *   .repl/where   rows of str name, str path
 *
 * In the replica's directory there is a link with the member's name. What stands elsewhere is written in place, after the delta was
 * decided; only a volume that the replica does not have yet is written while it comes. Who writes there has it alone: a volume from
 * which something is mounted is refused. Its owner, mode and times are not touched, and what somebody else writes to it shows only
 * to repl-apply --verify.
 *
 * May use: volume, file, bytes, err; makes system calls.
 */
#ifndef REPL_WHERE_H
#define REPL_WHERE_H

#include "bytes.h"
#include "err.h"

struct where_row {
	char *name, *path;   /* absolute */
	char *mounted;       /* here something is mounted from it; NULL: nowhere */
	bool is_new;         /* not in .repl/where with this path */
	bool is_device;      /* once where_fits was called */
	/* private */
	uint64_t room;       /* bytes; 0: not known yet */
	int fd;              /* for writing; -1: not open */
	bool is_dirty;
};
struct where {
	struct where_row *v;
	size_t n;
	bool is_loaded;
};
/* What is known of the replica in this directory, and of each place whether it is in use. Nothing is opened. */
int where_load(struct where *w, const char *replica, struct err *e);
/* One more, "NAME=PATH", or another place for one. make: when there is nothing under PATH yet, a file. ERR_USAGE. */
int where_add(struct where *w, const char *arg, bool make, struct err *e);
/* ctl: .repl of the replica. */
int where_save(struct where *w, int ctl, struct err *e);
void where_free(struct where *w);
/* What stands elsewhere of this path in the replica; NULL: it does not. */
struct where_row *where_find(const struct where *w, struct span path);
/* Owned. */
int where_read(const struct where_row *row, struct err *e);
/* Borrowed. ERR_REFUSED: mounted, or neither a file nor a block device; ERR_BUSY: somebody has it for himself. */
int where_write(struct where_row *row, struct err *e);
/* So many bytes have room there: any number in a file. ERR_REFUSED. */
int where_fits(struct where_row *row, uint64_t need, struct err *e);
/* What was written is durable. */
int where_sync(struct where *w, struct err *e);

#endif
