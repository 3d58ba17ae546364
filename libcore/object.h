/*
 * object: one object (inode) of an image in memory, its row in the catalog, and its digest.
 *
 * May use: record, digest, bytes. Does no I/O.
 */
#ifndef REPL_OBJECT_H
#define REPL_OBJECT_H

#include "record.h"

/* {0} is empty; spans point into store. */
struct object {
	uint64_t no;
	uint8_t type; /* enum obj_type */
	uint32_t nlink; /* names inside the image */
	uint64_t size;  /* files */
	struct digest content;
	uint32_t grain; /* block size of the digests kept for it */
	uint8_t flags;  /* SEAL_UNSETTLED */
	struct r_hint hint;
	struct r_meta meta;
	struct buf store;
};
void object_free(struct object *o);
/* Deep copy of meta into o->store. */
void object_set_meta(struct object *o, const struct r_meta *m);
/* Blocks of size grain that size bytes have. */
uint64_t object_blocks(uint64_t size, uint32_t grain);

/* Appends the row: everything but the number. */
void object_encode(struct buf *row, const struct object *o);
/* Reads a row into o, which may hold another object; false when it is none. */
bool object_decode(struct object *o, uint64_t no, struct span row);
/* O of repl-stream(5), "DIGESTS". */
void object_digest(const struct object *o, struct digest *d);
/* All that the digest covers is equal. */
bool object_same(const struct object *a, const struct object *b);
/* The same inode of the same filesystem, told by number and birth time. */
bool object_same_inode(const struct r_hint *a, const struct r_hint *b);

#endif
