/*
 * check: lists what a delta will do before it is decided, and whether it removes no more than allowed. Changes nothing.
 *
 * May use: plan, err.
 */
#ifndef REPL_CHECK_H
#define REPL_CHECK_H

#include "plan.h"

/* One line an object that changes. code: 11 characters as rsync(1) --itemize-changes prints them. */
typedef void (*check_item)(void *ctx, const char *code, struct span path);

struct check_counts {
	uint64_t created, changed, removed;
	uint64_t before; /* objects in the base */
};
/* Counts and, unless item is NULL, lists. */
int check_list(struct plan *p, check_item item, void *ctx, struct check_counts *n, struct err *e);
/* max: objects (UINT64_MAX: any); percent: of those in the base (100: any). ERR_REFUSED. */
int check_deletes(const struct check_counts *n, uint64_t max, unsigned percent, struct err *e);

#endif
