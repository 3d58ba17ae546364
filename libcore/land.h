/*
 * land: from the staged delta to the new image, in steps that can be repeated.
 *
 *   1 load     the plan is loaded into a catalog; its id must be what the delta promised    (nothing has changed)
 *   2 sync     everything staged is made durable
 *   3 decide   plan is renamed to `commit`, the directory synced                            (from here on: forward)
 *   4 detach   every name that goes is renamed into slots/, or unlinked when its object goes
 *   5 mark     everything synced, then the marker `detached`
 *   6 place    directories are made and attached, parents first; then files, links, metadata; last the directories' own
 *   7 commit   everything synced, then the catalog: LMDB's commit, or `next` renamed over `catalog`
 *   8 clean    commit record, marker, slots and stage are removed
 *
 * A crash before 3 leaves the old image and litter that the next run discards. After 3, the next run loads the plan again (the same
 * numbers come out) and goes on: 4 skips names that are gone already, is skipped itself when the marker stands (a name may belong
 * to something new by then), and 6 skips what has left its slot or the stage. After 7 only 8 is left to do.
 *
 * May use: replica, image, attr, path, input, err.
 */
#ifndef REPL_LAND_H
#define REPL_LAND_H

#include "attr.h"
#include "replica.h"

struct owner_rule {
	bool is_group;
	uint32_t from, to;
};
struct land {
	struct replica *r;
	struct attr_policy policy;
	const struct owner_rule *owners; /* borrowed */
	size_t n_owners;
	bool map_names;      /* owners by the names that the stream carries */
	const struct warn *warn;
	/* One line an object that changes, for --itemize; NULL: none. code: 11 characters as rsync(1) prints them. */
	void (*item)(void *ctx, const char *code, struct span path);
	void *ctx;
	uint64_t max_delete; /* objects; UINT64_MAX: any */
	unsigned max_delete_percent; /* of those in the base; 100: any */
	bool dry;            /* load and itemize only; the catalog is a private copy */
	/* out */
	struct digest id;
	uint64_t n_created, n_changed, n_removed;
};
/* Steps 1 to 8 from .repl/plan. want: the id that END gave. ERR_STREAM, ERR_MISMATCH, ERR_REFUSED before step 3. */
int land_run(struct land *l, const struct digest *want, struct err *e);
/* Steps 1 and, when dry, the itemizing, with the plan in fd and the catalog in cat (private). */
int land_dry(struct land *l, int plan_fd, struct catalog *cat, const struct digest *want, struct err *e);
/* Finishes what a crash left behind, or discards it. *finished: a decided delta was completed. */
int land_recover(struct land *l, bool *finished, struct err *e);

#endif
