/*
 * seal: what a change of the catalog owes to other rows. While a change is under way it is only noted (dirty directories,
 * changed objects, objects without a name); seal_run pays it, once: digests of objects go to each of their names, and those of
 * directories are recomputed along the changed paths alone, from the deepest up.
 *
 * May use: rows, store, object.
 */
#ifndef REPL_SEAL_H
#define REPL_SEAL_H

#include "rows.h"

#define SEAL_ROOT 1u /* number of the root directory */

/* The names in a directory, or its own row, changed: its digest and those above it are to be made anew. */
int seal_dirty(struct store *s, uint64_t dir, struct err *e);
/* The row of what is no directory changed: its digest is to be put at each of its names, once, however often that happens. */
int seal_changed(struct store *s, uint64_t no, struct err *e);
/* An object got a name again: it is none of those that are removed. */
int seal_found(struct store *s, uint64_t no, struct err *e);
/* Takes a name away from the object that it has; does not dirty the directory. An object without a name is removed by seal_run. */
int seal_unname(struct store *s, uint64_t dir, struct span name, struct err *e);
/* Removes objects left without a name, with all below them, and brings all digests up to date. is_new: the root was
 * dirty, and *id is the image's. */
int seal_run(struct store *s, struct digest *id, bool *is_new, struct err *e);

#endif
