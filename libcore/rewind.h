/*
 * rewind: a job's replica along a history from image to image; and its opening, which finishes what was interrupted.
 *
 * May use: receive, job, history, image, land, replica, err.
 */
#ifndef REPL_REWIND_H
#define REPL_REWIND_H

#include "receive.h"

/* The replica is open: finishes or discards what a crash left. The catalog is open then, LIVE. */
int rewind_recover(struct job *j, struct err *e);
/* Adopting: the trees elsewhere become the replica's as they are, and are open. */
int rewind_adopt_places(struct job *j, struct err *e);
/* Opens the job's replica first. */
int rewind_open(struct job *j, enum replica_open how, struct err *e);
/* The image that it holds; stamps point into store. */
int rewind_image(struct job *j, struct digest *id, struct r_image *stamps, struct buf *store, struct err *e);
/* Along home's history, which may be another replica's, to the image `to`; whole images all the way. ERR_REFUSED: no way. */
int rewind_to(struct job *j, const struct replica *home, const struct digest *to, struct err *e);
/* Where a rollback goes, should it be interrupted. */
int rewind_set_goal(struct replica *r, const struct digest *to, struct err *e);
/* Removes what history has too much of. */
int rewind_prune(struct job *j, struct err *e);

#endif
