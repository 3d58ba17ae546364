/*
 * policy: the file `policy` in a state directory, which says to all programs what would otherwise be options (repl-policy(5)).
 *
 * A line is "key = value"; a key is the name of a long option of a program that takes -s, or "root". A program takes what is an
 * option of its own and was not given to it; but each of them checks all of the file, so that a mistake is found by the first one.
 *
 * May use: options (its kinds), value, codec, pool, queue, digest and snapexec (their limits), file, bytes, err.
 */
#ifndef REPL_POLICY_H
#define REPL_POLICY_H

#include "options.h"

struct policy_line {
	const char *key, *value;
	const char *of; /* the programs that it is for */
	unsigned no; /* of the line, from 1 */
};
struct policy { /* policy_free */
	struct policy_line *v; /* in the order of the file */
	size_t n;
	bool is_there;
	/* private */
	struct buf text;
};
/* That of a state directory; one without the file, or that is not there yet, has an empty one. ERR_USAGE: a mistake, with its line;
 * ERR_SYSTEM. */
int policy_load(struct policy *p, const char *state, struct err *e);
void policy_free(struct policy *p);

#endif
