/*
 * undo: the delta from the target back to the base, made before the delta is decided, while the replica still is the base.
 *
 * It follows from the plan and the two catalogs: names that the plan made go, names that it removed come back, and of what it
 * changed those blocks are kept whose digests differ, of a block only what the delta replaces where that is listed (redo). Content
 * that the delta took to another place of its file comes back from there (shifts), as its staging proved it. So it costs what
 * changed, not what the tree holds; every block that is kept is checked against the base's digest on the way, whole.
 *
 * May use: plan, replica, redo, shifts, numbers, stream, sink, err. Memory: 40 bytes for each directory it names, the names that are
 * new, and the list of shifts of one file.
 */
#ifndef REPL_UNDO_H
#define REPL_UNDO_H

#include "plan.h"

/* Into .repl/undo. The plan is loaded. ERR_REFUSED when the replica's content is not what its catalog says. */
int undo_make(struct plan *p, const struct digest *target, struct err *e);

#endif
