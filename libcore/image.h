/*
 * image: records into a catalog and a catalog out as records.
 *
 * A loader takes the object records of an image or of a delta in stream order and brings a catalog from the base to the
 * target. The source does it with the delta it made, the replica with the delta it received, and both must arrive at the
 * same image id. Content bytes are not looked at: the digests of blocks come in DIGESTS records.
 *
 * May use: catalog, input, stream, record, err.
 */
#ifndef REPL_IMAGE_H
#define REPL_IMAGE_H

#include "catalog.h"
#include "stream.h"

#define IMAGE_REACHABLE 1024u
struct image_loader {
	struct catalog *cat; /* borrowed; a change is open */
	uint64_t *refs;      /* number of an object in the stream -> in the catalog */
	uint64_t n_refs, cap_refs;
	bool has_image;
	struct r_image stamps; /* spans point into store */
	struct buf store, members, cursor, again;
	/* the current object */
	bool has_cur, is_new, was_sealed;
	bool has_placed;    /* the target has begun: nothing is detached any more */
	bool has_moved;     /* a name was detached or attached, or is a stray */
	bool has_dropped;
	uint64_t reachable[IMAGE_REACHABLE]; /* directories that were found to have a way up to the root, by number */
	uint64_t open; /* the file whose CONTENT waits for its SEAL; 0: none */
	struct object cur;
	uint64_t cur_dir;   /* of what was created last, as the three that follow */
	struct buf cur_name;
	uint64_t created, created_ref;
	bool local; /* a plan: OBJECT, CHANGED and GAP may give a catalog number, with the top bit set */
};
void image_load_start(struct image_loader *l, struct catalog *cat);
/* One record. ERR_MISMATCH when it speaks of something that the base does not have or already has; ERR_STREAM when the order
 * makes no sense. */
int image_load(struct image_loader *l, const struct record *r, struct err *e);
/* All records of the plan in fd, which is read from its start. is_live: 1 when the change gets too large for a transaction
 * (catalog_is_large), somewhere in the middle. 0; -1: as above, and ERR_STREAM when the plan is not whole. */
int image_load_plan(struct image_loader *l, int fd, bool is_live, struct err *e);
/* After the last one: seals, and gives the id of what the catalog holds now. */
int image_load_end(struct image_loader *l, struct digest *id, struct err *e);
void image_loader_free(struct image_loader *l);
/* 0 when the stream has not given this number. */
uint64_t image_ref(const struct image_loader *l, uint64_t ref);

/* Writes the catalog's objects (CREATE … HINT, ATTACH) and END; the caller wrote IMAGE and MEMBER before and finishes the
 * stream after. hints: with HINT records. */
int image_write(struct catalog *cat, struct stream_out *o, bool hints, struct err *e);

/* The stamps of the image a catalog holds: r points into store. 1, 0 when there are none, -1. */
int image_stamps(struct catalog *cat, struct r_image *r, struct buf *store, struct err *e);
/* Its MEMBER records, encoded one after the other: 1, 0 when there are none, -1. */
int image_members(struct catalog *cat, struct buf *rows, struct err *e);
/* How far a recorder's journal had come at the image's instant: r points into store. 1, 0 when it does not say, -1. */
int image_cursor(struct catalog *cat, struct r_cursor *r, struct buf *store, struct err *e);
/* What could not be taken when the image was made, and is to be looked at again whether or not it changes: a name in a directory;
 * empty: the directory with all below it. The directory may be gone. */
struct image_again {
	uint64_t dir;
	struct span name;
};
int image_again_each(struct catalog *cat, int (*fn)(void *ctx, const struct image_again *a, struct err *e), void *ctx,
	struct err *e);
int image_set_stamps(struct catalog *cat, const struct r_image *r, struct err *e);

#endif
