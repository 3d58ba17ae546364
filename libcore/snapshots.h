/*
 * snapshots: images that are snapshots of their members; the keeper of what providers leave behind.
 *
 *   ROOT/.repl/images/INSTANCE-SEQ   member ROOT as image SEQ of the state INSTANCE has it
 *   STATE/snapshots                  where some may be: the subvolume's uuid, 32 hex digits, and the path of ROOT, each row ended by a
 *                                    zero byte. Written before the first one is made there, so that one that a run which was killed
 *                                    has left is found
 *
 * Kept are those of the base, of the image under way and of the plan that waits for its answer. All others of the state go when an
 * image is opened, acknowledged or forgotten. A row goes when nothing of the state is left in that subvolume; while another
 * filesystem stands at the path, or none, it stays.
 *
 * May use: state, pending, head, catalog, control, subvol, provider, mounts, path, file, walk (its roots), err; makes system calls.
 */
#ifndef REPL_SNAPSHOTS_H
#define REPL_SNAPSHOTS_H

#include "catalog.h"

#define SNAPSHOTS_MAX 8u /* of a state in one root: where so many cannot be removed there are no new ones */

struct head;
struct provider;
struct state;
struct walk_root;

/* What a snapshot of the members would be: 1; 0: not the trees that their paths show, reason says why in one phrase; -1.
 * is_possible: yet there can be one. */
int snapshots_can(const struct provider *p, const struct head *h, bool *is_possible, char reason[512], struct err *e);
/* Takes a snapshot of each member, durably, for the image that the head is numbered as: 1; 0: it is not allowed, reason; -1.
 * ERR_REFUSED: too many are left over. The caller holds the state's lock, and saves the image after. */
int snapshots_take(const struct state *s, const struct provider *p, const struct head *h, char reason[512], struct err *e);
/* Removes what is not kept. The caller holds the lock. Trouble means that something stays until the next time. */
void snapshots_tend(const struct state *s);
/* Those that there are, as a path each. */
int snapshots_each(const struct state *s, void (*fn)(void *ctx, const char *path, uint64_t seq), void *ctx, struct err *e);

/* The base's, while they are there and are what they were. {0} is none. */
struct snapshots {
	struct catalog *base; /* borrowed */
	struct walk_root *roots;
	size_t n;
};
/* Trouble means none. While a change of the catalog is open, look-ups answer from before it (catalog_see_base). */
void snapshots_open(struct snapshots *s, struct catalog *base);
/* The base's content of this object, open for reading; -1: there is none that can be relied on. Owned. */
int snapshots_old(const struct snapshots *s, const struct object *old);
void snapshots_close(struct snapshots *s);

#endif
