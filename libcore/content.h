/*
 * content: one file against what the base has of it, as literal data, copies, holes and block digests.
 *
 * Blocks are compared on the grid of the file's block size by their digests; what differs there is looked for elsewhere in the
 * base with a rolling sum of 4 KiB over the starts of all its blocks, and verified by digest before it becomes a copy. Each
 * byte is read once; it is hashed once on the grid, and once more only where a shifted copy has to be proved.
 *
 * What the file is proved to share with the base's content (extents.h) is not read: whole blocks of it keep the base's digests, and
 * of a block that changed only the pages of 4 KiB that are not shared are reported. The reads to come are announced to the
 * kernel, which sorts them.
 *
 * May use: anchors, window, catalog, extents, digest, record, bytes, err; reads one descriptor. Memory: that of the window, and of two
 * indexes (this file's base, the whole base).
 */
#ifndef REPL_CONTENT_H
#define REPL_CONTENT_H

#include "catalog.h"
#include "window.h"

struct extents;
struct anchors;

struct content {
	struct catalog *base;  /* borrowed; reads are made through catalog_see_base(base, true) */
	bool copies;           /* look for moved content */
	bool everywhere;       /* in all files of the base, not only in this one's */
	/* What was found, in ascending order. data: bytes live until return. Not called where the base has the same. */
	int (*data)(void *ctx, uint64_t off, const struct digest *d, struct span bytes, struct err *e);
	int (*copy)(void *ctx, uint64_t off, uint64_t len, uint64_t no, uint64_t src, struct err *e);
	int (*hole)(void *ctx, uint64_t off, uint64_t len, struct err *e);
	int (*rows)(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e);
	void *ctx;
	/* Kept from file to file. window.threads is the caller's to set: 0 where others read other files meanwhile. */
	struct window window;
	/* private */
	struct anchors *all, *own;
};
struct content_file {
	int fd;                   /* borrowed */
	uint64_t size;            /* bytes to take */
	uint32_t grain;
	const struct object *old; /* the same object in the base, compared on the grid; NULL: none */
	bool is_prior;            /* old is another object that had this one's name: what is the same is reported as copies */
	bool only_digest;         /* report nothing, just compute */
	bool zeros_are_holes;     /* nothing else tells: of a device */
	/* What the file shares with the content of old, which is not shorter than a leaf and compared on the grid; borrowed, at
	 * its beginning. NULL: not known. */
	struct extents *shared;
	/* out */
	uint64_t read;            /* bytes */
	struct digest digest;
	bool differs;             /* anything was reported */
	bool is_short;            /* the file ended before size */
};
int content_run(struct content *c, struct content_file *f, struct err *e);
void content_free(struct content *c);

/* Block size for a new file. */
uint32_t content_grain(uint64_t size);
/* Digest of a block from its row: all zero stands for a block of zeros. */
void content_row_digest(const uint8_t *row, uint64_t len, struct digest *d);
/* The digests of blocks that a catalog has, for the tree of their file. */
struct content_rows {
	struct catalog *cat;      /* borrowed, as is the tree */
	uint64_t no, size;        /* of the file; bytes */
	uint32_t grain;
	struct digest_tree *tree;
	/* Told of those that may be others than zeros. NULL: not asked for. */
	int (*each)(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e);
	void *ctx;
	uint64_t zeros;           /* private: blocks of zeros that are not in the tree yet */
};
/* Blocks first to stop. Holes are passed over, however large they are. */
int content_rows(struct content_rows *x, uint64_t first, uint64_t stop, struct err *e);
/* Whether the catalog's rows of a file lead to its digest: 1, 0, -1. */
int content_rows_fit(struct catalog *c, const struct object *o, struct err *e);

#endif
