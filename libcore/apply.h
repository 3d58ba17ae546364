/*
 * apply: deltas from standard input onto a replica, and what else repl-apply does to one: restoring, answering.
 *
 * May use: rewind, receive, job, restore, partial, token, err.
 */
#ifndef REPL_APPLY_H
#define REPL_APPLY_H

#include "job.h"
#include "token.h"

int apply_run(struct apply *a, struct err *e);
/* Sets all metadata again as the catalog has it, for who may do more than those who applied the deltas; reads no input. */
int apply_restore(struct apply *a, struct err *e);
/* Acknowledges what the replica holds, when an earlier answer was lost. ERR_REFUSED: no replica, ERR_MISMATCH: it is empty. */
int apply_answer(struct apply *a, struct err *e);
/* Where the delta goes on that broke off. ERR_MISMATCH: none did. */
int apply_token(struct apply *a, struct token *t, struct err *e);

#endif
