/*
 * replica: the directory a delta is applied to, and its control directory `.repl`.
 *
 *   .repl/lock       flock(2)ed while anything is changed
 *   .repl/catalog    the current image
 *   .repl/stage/N    the content of the N-th CONTENT record of the delta being received
 *   .repl/plan       the delta being received, without content; plan.new while it is not known whether it fits
 *   .repl/partial    how much of it came, when the input broke off (see partial.h)
 *   .repl/commit     the commit record: plan, renamed. While it stands the delta is decided and will be finished
 *   .repl/policy     how it was decided to land it (see land.c)
 *   .repl/detached   marker: every name that goes is gone (see land.h)
 *   .repl/slots/N    objects between their old name and their new one, by catalog number
 *   .repl/undo       the way back from the delta being received
 *   .repl/history/   the ways back from earlier ones (see history.h)
 *   .repl/goal       the image that a rollback of several steps is on its way to
 *   .repl/edits      what was decided about local edits (edits.h), and .repl/aside, where they are kept
 *   .repl/next       the catalog after the delta, when the change is large
 *   .repl/where      members that stand elsewhere (see where.h)
 *
 * May use: room, where, content, catalog, attr, path, err; makes system calls.
 */
#ifndef REPL_REPLICA_H
#define REPL_REPLICA_H

#include "attr.h"
#include "catalog.h"
#include "path.h"
#include "where.h"

#define REPLICA_CTL ".repl"
/* When its catalog is damaged. */
#define REPLICA_ADVICE "remove it and run repl-apply --adopt, see repl(7), \"A catalog is damaged\""

struct replica {
	char *path;
	int root, ctl, lock; /* -1: not open */
	struct room room;   /* of all that stands in the replica's own directory */
	struct catalog *cat;
	struct where where; /* {0}, or loaded and added to already, before the replica is opened */
	bool read_only;
};
#define REPLICA_CLOSED {.root = -1, .ctl = -1, .lock = -1, .room = ROOM_CLOSED}
enum replica_open {
	REPLICA_READ,   /* must be one; nothing is written, and where_open is left to the caller */
	REPLICA_APPLY,  /* a missing or empty directory becomes one */
	REPLICA_CHANGE, /* must be one */
	REPLICA_ADOPT,  /* a directory with content, replica or not: the caller makes the catalog */
};
/* ERR_REFUSED for a directory with content that is no replica; ERR_BUSY when somebody holds the lock. */
int replica_open(struct replica *r, const char *path, enum replica_open how, struct err *e);
void replica_close(struct replica *r);
/* After REPLICA_READ: nobody may change the replica until it is closed. ERR_BUSY. */
int replica_share(struct replica *r, struct err *e);
/* The room of what stands in this directory, a path in the replica; borrowed. */
const struct room *replica_room(const struct replica *r, struct span dir);
/* That of an object, by where the catalog has it. NULL. */
const struct room *replica_room_of(const struct replica *r, uint64_t no, struct err *e);
/* All of them, from 0 on; NULL at the end. */
struct room *replica_rooms(struct replica *r, size_t i);
/* Directories by their path in the replica, wherever they stand. Owned; path_cache_free. */
struct path_cache *replica_dirs(const struct replica *r);
/* Owned path of a file in the control directory. */
char *replica_file(const struct replica *r, const char *name);
/* The catalog is now that of the image in place, while `commit` still stands: notes which that is. */
int replica_landed(const struct replica *r, struct err *e);
/* The settled catalog in .repl/next takes the place of whatever was there; id: of it. No catalog is open. */
int replica_replace(const struct replica *r, const struct digest *id, struct err *e);
/* Opens (again) the catalog; LIVE makes it when there is none. Unless a delta is decided, one of another image than was landed last is
 * taken for damaged: an older copy would have it that nothing was edited. */
int replica_catalog(struct replica *r, enum catalog_mode mode, struct err *e);
bool replica_has(const struct replica *r, const char *name);
/* Keeps the image in place as a snapshot, .repl/undo, when the replica is a btrfs subvolume and all stands in it: 1; else 0; -1. */
int replica_snapshot(const struct replica *r, struct err *e);
/* Removes a file, or a snapshot, of the control directory, if it is there. */
int replica_drop(const struct replica *r, const char *name, struct err *e);
/* Removes partial, stage, plan and slots of an apply that was not decided. */
int replica_discard(struct replica *r, struct err *e);
/* Makes everything below it durable. */
int replica_sync(struct replica *r, struct err *e);
/* The stat says that it was changed since it was placed; of a replica that was itself copied it says so everywhere. */
bool replica_is_touched(const struct object *o, const struct attr *a);
/* A file that may have been touched: what it holds is what the catalog says. 1, 0, -1. Where the stat is as it was nothing is
 * read. a: its stat; fd: open. */
int replica_is_intact(const struct object *o, const struct attr *a, int fd, struct err *e);
/* The place of an object that stands elsewhere; NULL: it does not, or e says why nobody knows. */
struct where_row *replica_elsewhere(const struct replica *r, uint64_t no, struct err *e);
/* Opens the content of a base file for reading, checked against the catalog: ERR_REFUSED when it was edited. Owned. */
int replica_open_base(struct replica *r, const struct object *o, struct err *e);

#endif
