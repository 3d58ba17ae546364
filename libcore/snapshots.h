/*
 * snapshots: images that are snapshots of their members; the keeper of what providers leave behind.
 *
 *   ROOT/.repl/images/INSTANCE-SEQ   member ROOT as image SEQ of the state INSTANCE has it, or a file that stands for it (snapexec.h)
 *   STATE/snapshots                  where some may be, in rows
 *
 * A row is written before the first of its snapshots is made, so that one that a run which was killed has left is found:
 *
 *   ID PATH 0              in the directory PATH are some: directories called INSTANCE-SEQ
 *   ID @SEQ PATH 0 PROGRAM 0   the one of image SEQ of the directory PATH is in the hands of this program
 *
 * ID, 32 hex digits, says which directory it was: a subvolume's uuid, else its inode and time of birth. While another filesystem stands
 * at the path, or none, the row stays.
 *
 * Kept are those of the base, of the image under way and of the plan that waits for its answer. All others of the state go when an
 * image is opened, acknowledged or forgotten. A row goes when nothing of it is left.
 *
 * May use: state, pending, head, catalog, control, subvol, providers, mounts, path, file, attr, walk (its roots), err; makes system
 * calls. Programs are run as the state says (struct state).
 */
#ifndef REPL_SNAPSHOTS_H
#define REPL_SNAPSHOTS_H

#include "catalog.h"

#define SNAPSHOTS_MAX 8u /* of a state in one root: where so many cannot be removed there are no new ones */

struct head;
struct provider;
struct provider_run;
struct state;
struct walk_root;

/* What a snapshot of the members would be: 1; 0: not the trees that their paths show, reason says why in one phrase; -1.
 * is_possible: yet there can be one. */
int snapshots_can(const struct provider *p, const struct head *h, bool *is_possible, char reason[512], struct err *e);
/* The image that the head is numbered as, with the provider that its stamps name, is made in three steps; the caller holds the state's
 * lock, and saves the image after. run: with the program, where that provider runs one.
 *
 * Writes the rows, durably, and makes ready what cannot be made ready while filesystems are frozen. ERR_REFUSED: too many snapshots are
 * left over. */
int snapshots_prepare(const struct state *s, const struct head *h, const struct provider_run *run, struct err *e);
/* The instant: takes a snapshot of each member, durably. 1; 0: it is not allowed, reason; -1. */
int snapshots_take(const struct state *s, const struct head *h, const struct provider_run *run, char reason[512], struct err *e);
/* Afterwards, and whenever they may not be found any more, as after a restart of the machine: makes them ones that head_open_roots
 * opens. */
int snapshots_settle(const struct state *s, const struct head *h, struct err *e);
/* The same for the base's, when they are not found. Trouble costs reading. */
void snapshots_settle_base(const struct state *s);
/* Removes what is not kept. The caller holds the lock. Trouble means that something stays until the next time. */
void snapshots_tend(const struct state *s);

struct snapshots_one {
	uint64_t seq;
	const char *provider; /* "btrfs", "reflink", or "exec:" and the program */
	const char *path;     /* in ROOT/.repl/images */
};
/* Those that there are. */
int snapshots_each(const struct state *s, void (*fn)(void *ctx, const struct snapshots_one *one), void *ctx, struct err *e);

/* The base's, while they are there and are what they were. {0} is none. */
struct snapshots {
	struct catalog *base; /* borrowed */
	struct walk_root *roots;
	size_t n;
	bool are_clones; /* trees of clones */
};
/* Trouble means none. While a change of the catalog is open, look-ups answer from before it (catalog_see_base). */
void snapshots_open(struct snapshots *s, struct catalog *base);
/* The base's content of this object, open for reading; -1: there is none that can be relied on. Owned. */
int snapshots_old(const struct snapshots *s, const struct object *old);
void snapshots_close(struct snapshots *s);

#endif
