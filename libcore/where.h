/*
 * where: members of a replica that stand elsewhere than in its directory: a volume on a block device or in a file outside of it, a
 * tree in a directory of its own, such as one of another filesystem.
 *
 *   .repl/where             rows of str name, str path, str id: 16 bytes of a tree, none of a volume
 *   PATH/.repl/member       of a tree: its id, in hexadecimal. A directory that lacks it is not the one, but what it was mounted on
 *   PATH/.repl/stage slots  as the replica's own (room.h)
 *
 * In the replica's directory there is a link with the member's name. A tree lands there as it would in the replica, through its own
 * room; nothing goes from one tree to another. A volume is written in place, after the delta was decided; only one that the replica
 * does not have yet is written while it comes. Who writes there has it alone: a volume from which something is mounted is refused.
 * Its owner, mode and times are not touched, and what somebody else writes to it shows only to repl-apply --verify.
 *
 * May use: room, volume, file, bytes, err; makes system calls.
 */
#ifndef REPL_WHERE_H
#define REPL_WHERE_H

#include "bytes.h"
#include "err.h"
#include "room.h"

struct where_row {
	char *name, *path;   /* absolute */
	char *mounted;       /* here something is mounted from it; NULL: nowhere */
	bool is_new;         /* not in .repl/where with this path */
	bool is_tree;        /* else a volume */
	bool is_open;        /* a tree: room is there to be used */
	struct room room;
	bool is_device;      /* once where_fits was called */
	/* private */
	bool is_named;       /* by where_add */
	uint8_t id[16];
	int root, ctl;       /* of a tree; owned */
	uint64_t has;        /* bytes; 0: not known yet */
	int fd;              /* for writing; -1: not open */
	bool is_dirty;
};
struct where {
	struct where_row *v;
	size_t n;
	bool is_loaded;
	bool has_tree;       /* one of them is a tree */
};
/* What is known of the replica in this directory, and of each place whether it is in use. Nothing is opened. */
int where_load(struct where *w, const char *replica, struct err *e);
/* One more, "NAME=PATH", or another place for one: of a tree when PATH is a directory. make: when there is nothing under PATH yet, a
 * file, or a directory when it ends in a slash. ERR_USAGE; ERR_REFUSED: a directory with content that is no tree of a replica. */
int where_add(struct where *w, const char *arg, bool make, struct err *e);
/* ctl: .repl of the replica. */
int where_save(struct where *w, int ctl, struct err *e);
void where_free(struct where *w);
/* What stands elsewhere of this path in the replica; NULL: it does not. */
struct where_row *where_find(const struct where *w, struct span path);
/* The same of the tree that a path in the replica begins with, and *below: the rest. */
struct where_row *where_tree(const struct where *w, struct span path, struct span *below);
/* Opens the trees; write: with room for what is on its way there. may_wait: those that where_add named and that are not there yet
 * wait for where_make. ERR_REFUSED: the directory is not the one, as when nothing is mounted there. */
int where_open(struct where *w, bool write, bool may_wait, struct err *e);
/* Could it become the tree's? ERR_REFUSED. */
int where_is_free(const struct where_row *row, struct err *e);
/* It is taken as it is: under the id that it has, if it has one. ERR_REFUSED: it is a replica. */
int where_adopt(struct where_row *row, struct err *e);
/* The directory becomes the tree's: after where_save, which has its id by then. */
int where_make(struct where_row *row, struct err *e);

/* Volumes. Owned. */
int where_read(const struct where_row *row, struct err *e);
/* Borrowed. ERR_REFUSED: mounted, or neither a file nor a block device; ERR_BUSY: somebody has it for himself. */
int where_write(struct where_row *row, struct err *e);
/* So many bytes have room there: any number in a file. ERR_REFUSED. */
int where_fits(struct where_row *row, uint64_t need, struct err *e);
/* What was written is durable, in trees too. */
int where_sync(struct where *w, struct err *e);

#endif
