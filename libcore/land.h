/*
 * land: from the staged delta to the new image, in steps that can be repeated.
 *
 *   1 load     the plan is loaded into a catalog; its id must be what the delta promised    (nothing has changed)
 *   2 sync     everything staged is made durable
 *   3 decide   plan is renamed to `commit`, the directory synced                            (from here on: forward)
 *   4 detach   where there is something of the kind: what was edited here is put aside, if that was decided (edits.h); then every name
 *              that goes is renamed into slots/, or unlinked when its object goes or is staged as another file
 *   5 mark     everything synced, then the marker `detached`
 *   6 place    directories are made, or come out of the stage with the new files in them, and attached, parents first; then files,
 *              links, metadata; last the directories' own
 *   7 commit   everything synced, then the catalog: LMDB's commit, or `next` renamed over `catalog`
 *   8 clean    the undo, if one was made, goes into the history; commit record, marker, slots and stage are removed
 *
 * A crash before 3 leaves the old image and litter that the next run discards. After 3, the next run loads the plan again (the same
 * numbers come out) and goes on: 4 skips names that are gone already, is skipped itself when the marker stands (a name may belong
 * to something new by then), and 6 skips what has left its slot or the stage. After 7 only 8 is left to do.
 *
 * May use: check, edits, place, plan, history, replica, err.
 */
#ifndef REPL_LAND_H
#define REPL_LAND_H

#include "check.h"
#include "edits.h"
#include "place.h"

struct land {
	struct replica *r;
	struct meta_policy policy;
	const struct owner_rule *owners; /* borrowed */
	size_t n_owners;
	bool map_names;      /* owners by the names that the stream carries */
	bool is_fresh;       /* see struct place */
	const struct warn *warn;
	check_item item;     /* a line for each object, for --itemize; NULL: none */
	void *ctx;
	enum edits_mode edited;
	/* An edited file was put aside; to: where it is now. NULL: nobody is told. */
	void (*kept)(void *ctx, struct span path, const char *to);
	uint64_t max_delete; /* objects; UINT64_MAX: any */
	unsigned max_delete_percent; /* of those in the base; 100: any */
	/* out */
	struct digest id;
	struct check_counts n;
	bool has_base;       /* what is replaced is as the base says: the undo can be made from it */
	/* private, between land_load and land_end; plan is for reading */
	struct plan plan;
	struct buf doubtful; /* see edits_find */
};
/* Step 1, from .repl/plan. want: the id that END gave. ERR_STREAM, ERR_MISMATCH, ERR_REFUSED. */
int land_load(struct land *l, const struct digest *want, struct err *e);
/* Steps 2 to 8. */
int land_go(struct land *l, struct err *e);
void land_end(struct land *l);
/* Step 1 and the list, with the plan in fd (taken over) and the target in cat (private). */
int land_dry(struct land *l, int fd, struct catalog *cat, const struct digest *want, struct err *e);
/* What the last run left behind. */
enum land_left { LAND_NOTHING, LAND_FINISHED /* a decided delta, complete now */, LAND_DISCARDED /* an undecided one */ };
/* Finishes what a crash left behind, or discards it. */
int land_recover(struct land *l, enum land_left *left, struct err *e);

#endif
