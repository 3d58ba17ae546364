/*
 * owners: which user or group here stands for one of the source.
 *
 * May use: record, bytes; asks the system for its users and groups.
 */
#ifndef REPL_OWNERS_H
#define REPL_OWNERS_H

#include "record.h"

struct owner_rule {
	bool is_group;
	uint32_t from, to;
};
struct owners { /* private; {0} maps nothing */
	struct owner_rule *rules;
	size_t n_rules;
	struct buf xattrs;
};
/* The first rule for a number holds. */
void owners_add(struct owners *s, struct owner_rule rule);
/* A rule for the name that an OWNER record gives, when it has another number here. */
void owners_take(struct owners *s, const struct r_owner *o);
/* Owner and group, and those in POSIX ACLs; the xattrs may point into s then, until the next call. */
void owners_map(struct owners *s, struct r_meta *m);
void owners_free(struct owners *s);

#endif
