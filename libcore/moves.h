/*
 * moves: which of the base's names are gone and which of its objects stand elsewhere now, as a scan tells it.
 *
 * Names and objects apart: an object is in the target although its name is gone when it was attached under another one.
 * Memory is ∝ what changed, not what the tree holds.
 *
 * May use: catalog, numbers, record, bytes, err.
 */
#ifndef REPL_MOVES_H
#define REPL_MOVES_H

#include "catalog.h"
#include "numbers.h"

struct moves { /* {.base = catalog} is empty */
	struct catalog *base; /* borrowed */
	size_t n_gone;        /* rows; read only */
	/* private */
	struct buf gone;      /* rows of u32 depth, u64 dir, u64 no, str name */
	struct buf moved;     /* u64 numbers of attached objects */
	struct numbers detached, attached;
};
/* The base's name of a directory is gone, and the object with it unless it is attached; a name may be told twice. */
int moves_gone(struct moves *m, uint64_t dir, struct span name, uint64_t no, struct err *e);
/* The base object stands under a name that it did not have. */
void moves_attached(struct moves *m, uint64_t no);
bool moves_is_attached(const struct moves *m, uint64_t no);
bool moves_is_empty(const struct moves *m);
/* Is this base directory missing in the target? It is when it, or one above it, is gone and nobody attached it. */
int moves_is_dead(struct moves *m, uint64_t dir, bool *dead, struct err *e);
/* After the scan: what moved out of a directory that goes is gone from there too; the scan never looked into that directory. */
int moves_rescue(struct moves *m, struct err *e);

struct moves_row {
	uint32_t depth; /* of the directory */
	uint64_t dir, no;
	struct span name;
};
/* The names that are gone, in the order in which they were told, repeats included: `rest` is moves_rows(m) at first. False at
 * the end. Rows stay good while nothing is told. */
struct rd moves_rows(const struct moves *m);
bool moves_next(struct rd *rest, struct moves_row *row);
/* Deepest first, each once. fn must not tell anything. */
int moves_each(const struct moves *m, int (*fn)(void *ctx, const struct moves_row *row, struct err *e), void *ctx,
	struct err *e);

/* Forgets what was told. */
void moves_reset(struct moves *m);
void moves_free(struct moves *m);

#endif
