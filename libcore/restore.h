/*
 * restore: all metadata of a replica once more, as its catalog has it.
 *
 * The catalog keeps the image's owners, modes, attributes and nodes, whatever the user who applied the deltas was allowed to set.
 * Later somebody with more rights sets them all. May be repeated, and stopped at any point.
 *
 * May use: install, plan, catalog, err.
 */
#ifndef REPL_RESTORE_H
#define REPL_RESTORE_H

#include "install.h"

struct restore {
	struct replica *r;               /* borrowed; its catalog is open (LIVE), nothing is under way */
	struct meta_policy policy;
	const struct owner_rule *owners; /* borrowed */
	size_t n_owners;
	const struct warn *warn;
	uint64_t n_objects;              /* out: names looked at */
};
int restore_run(struct restore *s, struct err *e);

#endif
