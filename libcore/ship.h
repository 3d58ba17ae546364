/*
 * ship: what one file holds, into the delta.
 *
 * A file is read until it held still for as long as that took, or from a copy of one instant; compared with what the base has of it,
 * and with everything else that the base has; what is new in it goes out as it is found, and at last the seal over all of it. What
 * was put of a file that moved meanwhile is taken back by beginning its content again.
 *
 * May use: content, emit, extents, catalog, attr, record, digest, bytes, err; reads the files it is given. Memory: that of content.
 */
#ifndef REPL_SHIP_H
#define REPL_SHIP_H

#include "attr.h"
#include "content.h"
#include "emit.h"

/* Who can keep content still: clones, or snapshots. NULL members: there is no such thing. */
struct ship_still {
	/* The base's content of this object, which nobody changes, open for reading: owned; -1: nowhere. */
	int (*old)(void *ctx, const struct object *old);
	/* A copy of this open file of a root as it is at one instant: owned; -1: none. */
	int (*take)(void *ctx, size_t root, int fd, uint64_t size);
	/* The copy turned out to hold this content; no: the object's number in the target's catalog. */
	void (*keep)(void *ctx, size_t root, int copy, uint64_t no, uint64_t size, const struct digest *content);
	void *ctx;
};

struct ship {
	struct emit *emit;      /* borrowed */
	struct content content; /* base, copies and everywhere, and the threads of its window are set */
	struct ship_still still;
	uint32_t grain;         /* 0: chosen per file */
	bool are_roots_still;   /* they are snapshots: nobody writes to what is read */
	bool ships_unsettled;   /* what never holds still is taken as it was found */
	/* out; bytes, of all files so far */
	uint64_t sent, looked_at, read;
	/* private: of the file that is being put */
	uint64_t no, ref;       /* in the base; 0: it is new, and ref its number in the stream */
	bool is_begun, is_patch;
	uint32_t now_grain;
	struct r_copy copy;     /* not sent yet; len 0: none */
};
/* Sets what content calls. */
void ship_start(struct ship *s);
void ship_free(struct ship *s);

/* One file, which the delta has spoken of and made current. */
struct ship_file {
	int fd;                     /* borrowed */
	struct attr *a;             /* of it; of a later moment when it moved */
	size_t root;
	uint64_t no, ref;           /* its number in the base; 0: it is new, and ref its number in the stream */
	const struct object *old;   /* what the base has of it, NULL: nothing, or nothing that may be built upon */
	const struct object *prior; /* without old: what had its name, or NULL */
	/* out */
	bool differs;               /* anything was put */
	bool is_unsettled;          /* it changed under us but what was taken is whole */
	bool is_lost;               /* it never held still: what was put has to be taken back */
};
int ship_file(struct ship *s, struct ship_file *f, struct err *e);
/* The content of the base once more, unsettled, in place of what was put of this object. */
int ship_old(struct ship *s, const struct object *old, struct err *e);

#endif
