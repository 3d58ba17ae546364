/*
 * emit: the records of a delta, to everybody who has to have them: the delta itself, the plan, and the catalog that becomes the
 * target's; and the numbers that objects have in them.
 *
 * Content (DATA, COPY, HOLE) goes to the delta alone, hints and block digests stay on this side. A base object gets a
 * number when another record has to name it; the record that introduces it makes it the current one, as every CREATE and OBJECT
 * does.
 *
 * May use: image, stream, catalog, attr, numbers, record, bytes, err; asks the system for names of owners. Memory is ∝
 * what the delta gives numbers to.
 */
#ifndef REPL_EMIT_H
#define REPL_EMIT_H

#include "attr.h"
#include "image.h"
#include "numbers.h"

struct emit { /* all borrowed */
	struct stream_out *out, *plan;
	struct catalog *base;
	const struct buf *wanted; /* bits: base objects that the replica lacks, which their introductions say */
	bool image_only;          /* out gets an image: no content, and what else would stay on this side */
	bool no_hints;
	int64_t edge_ns;          /* wall clock: what changed after it, or within a tick before, is not settled; 0: nothing is */
	/* next is the base, and the change got too large for that (catalog_is_large): makes *next a private copy of the base, and starts
	 * the loader on it with what the plan holds, its first `records` records. */
	int (*outgrown)(void *ctx, struct image_loader *l, uint64_t records, struct catalog **next, struct err *e);
	void *ctx;
	/* private */
	struct catalog *next;
	struct image_loader loader;
	struct numbers refs, owners;
	uint64_t next_ref;
	uint64_t current; /* the base object that is current in both streams; 0: something else, or nothing */
};
/* Begins both streams. next: borrowed until emit_free; the base itself (LIVE, begun) or a private copy of it. While it is the
 * base, look-ups answer from before the change (catalog_see_base). */
int emit_start(struct emit *m, struct catalog *next, struct err *e);
/* END in both streams, which the caller finishes; look-ups answer from the changed catalog now. *id: the target's. */
int emit_end(struct emit *m, uint64_t bytes, struct digest *id, struct err *e);
void emit_free(struct emit *m);

int emit_put(struct emit *m, const struct record *r, struct err *e);
/* What only this side needs to remember. */
int emit_local(struct emit *m, const struct record *r, struct err *e);

/* A number for a new object. */
uint64_t emit_new_ref(struct emit *m);
/* The number of a base object, introducing it (and the directories above it) when it has none. */
int emit_ref(struct emit *m, uint64_t no, uint64_t *ref, struct err *e);
/* The same, 0 when it has none. */
uint64_t emit_known_ref(const struct emit *m, uint64_t no);
/* The catalog number of what the stream gave this number. */
uint64_t emit_object(const struct emit *m, uint64_t ref);
/* Makes a base object current for what follows: one that was not mentioned is introduced now, without a number, which emit_ref gives
 * it when something asks. */
int emit_current(struct emit *m, uint64_t no, struct err *e);
/* This name of the base object goes. */
int emit_detach(struct emit *m, uint64_t dir, struct span name, uint64_t no, struct err *e);

/* Of the current object. Owners' names go out before they are first needed. */
int emit_meta(struct emit *m, const struct r_meta *meta, struct err *e);
/* dev: as catalogs keep it. settled: nothing moved while it was read. */
int emit_hint(struct emit *m, const struct attr *a, uint64_t dev, bool settled, struct err *e);
/* A hint for a base object that the delta itself need not mention. */
int emit_base_hint(struct emit *m, uint64_t no, const struct attr *a, uint64_t dev, bool settled, struct err *e);

#endif
