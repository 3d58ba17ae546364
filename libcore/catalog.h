/*
 * catalog: an image at rest, found by key instead of read through.
 *
 * Objects (inodes) have numbers; names are rows (directory number, name) -> object, as a filesystem has them, so renaming a
 * directory is one update. Tables: names, links (object -> its names), objects, blocks (digests of a file's blocks), inodes
 * (inode and birth time -> object), facts (small values), and the bookkeeping of a change under way (seal).
 *
 * Directory digests are recomputed only along changed paths, by catalog_seal. The caller holds a lock of its own over the file.
 *
 * Private catalogs (scratch files, copies) are not synced and commit as they go, so that memory stays bounded whatever the
 * size of the change; a live one changes in a single transaction, all or nothing.
 *
 * May use: store, rows, trail, seal, chunks, blocks, object, record, digest, bytes, err.
 */
#ifndef REPL_CATALOG_H
#define REPL_CATALOG_H

#include "blocks.h"
#include "rows.h"

#define CATALOG_PLAN_MAX (4u << 20) /* bytes of a change's records: one of more is large (catalog_is_large), nobody has to try */

enum catalog_mode {
	CATALOG_READ,    /* must exist; nothing is written, not even a lock file */
	CATALOG_LIVE,    /* created when missing; one durable transaction at a time */
	CATALOG_PRIVATE, /* created; batches, not durable until catalog_settle */
};
struct catalog;

/* path: of the file; "path-…" side files are not made. READ and LIVE see to it that the root is what the id says. advice: what the
 * operator should do when it is damaged; the other: nothing can be done. */
int catalog_open_at(struct catalog **c, const char *path, enum catalog_mode mode, const char *advice, struct err *e);
int catalog_open(struct catalog **c, const char *path, enum catalog_mode mode, struct err *e);
void catalog_close(struct catalog **c); /* drops an open transaction */
/* LIVE: begins the one change. READ and LIVE reads before it see the last commit. */
int catalog_begin(struct catalog *c, struct err *e);
int catalog_commit(struct catalog *c, struct err *e); /* durable when it returns (LIVE) */
/* LIVE: the open change takes so much memory that it had better be made in a private copy: 16 MiB. */
bool catalog_is_large(const struct catalog *c);
void catalog_abort(struct catalog *c);
/* PRIVATE: commits and syncs the file. */
int catalog_settle(struct catalog *c, struct err *e);
/* Writes a copy of the last commit to a new file. */
int catalog_copy(struct catalog *c, const char *path, struct err *e);
/* While true, look-ups answer from the last commit even though a change is open (LIVE). */
void catalog_see_base(struct catalog *c, bool base);
/* It does not hold together: fails with a line that names the file and says so. what: "it lacks a thing", or NULL. */
int catalog_damaged(const struct catalog *c, const char *what, struct err *e);
bool catalog_is_empty(struct catalog *c); /* no root */

/* 1 found, 0 not, -1 error. */
int catalog_lookup(struct catalog *c, uint64_t dir, struct span name, uint64_t *no, uint8_t *type, struct err *e);
int catalog_get(struct catalog *c, uint64_t no, struct object *o, struct err *e);
/* The same, of what has to be there; and what its first name says of it is what it is: the row is not one of an earlier image, which a
 * damaged file may have kept. 0, -1. */
int catalog_get_sealed(struct catalog *c, uint64_t no, struct object *o, struct err *e);
/* Ask the disk for what is looked up, or changed, next, so that it need not be waited for row by row: CATALOG_AHEAD_MAX of them at most,
 * best in order. Names in directories; objects with their names; rows of inodes that are to be deleted. Hints only. */
#define CATALOG_AHEAD_MAX ROWS_AHEAD_MAX
void catalog_ahead_names(struct catalog *c, const struct rows_place *v, size_t n);
void catalog_ahead_objects(struct catalog *c, const uint64_t *no, size_t n);
void catalog_ahead_inodes(struct catalog *c, const struct r_hint *v, size_t n);

/* Object with this inode, birth time and device; 0 when there is none. */
int catalog_by_inode(struct catalog *c, const struct r_hint *h, uint64_t *no, struct err *e);
/* First name of an object. 1, 0 for the root or a nameless one, -1. */
int catalog_name(struct catalog *c, uint64_t no, uint64_t *dir, struct buf *name, struct err *e);
/* Path from the root of directory dir plus name; empty for the root. Appends to path. */
int catalog_path(struct catalog *c, uint64_t dir, struct span name, struct buf *path, struct err *e);
/* Names on that path. */
int catalog_depth(struct catalog *c, uint64_t dir, uint64_t *depth, struct err *e);
/* Path by an object's first name. */
int catalog_object_path(struct catalog *c, uint64_t no, struct buf *path, struct err *e);

/* Children of a directory in byte order of their names. */
struct catalog_iter {
	/* the current child; the name lives until the next call on the iterator */
	struct span name;
	uint64_t no;
	uint8_t type;
	struct store_walk walk; /* private */
};
void catalog_iter_start(struct catalog_iter *it, struct catalog *c, uint64_t dir);
/* Continues behind a name. */
void catalog_iter_after(struct catalog_iter *it, struct catalog *c, uint64_t dir, struct span name);
int catalog_iter_next(struct catalog_iter *it, struct err *e); /* 1, 0 at the end, -1 */
void catalog_iter_free(struct catalog_iter *it);

/* All names of an object, in the order of directory numbers and names. The catalog may be changed in between. {0} is valid to
 * free. */
struct catalog_names {
	/* the current name; it lives until the next call on this */
	uint64_t dir;
	struct span name;
	struct store_walk walk; /* private */
};
void catalog_names_start(struct catalog_names *n, struct catalog *c, uint64_t no);
int catalog_names_next(struct catalog_names *n, struct err *e); /* 1, 0 at the end, -1 */
void catalog_names_free(struct catalog_names *n);

/* Block rows (blocks.h) of a file: n rows from block `first` into rows (n * DIGESTS_ROW bytes); rows that are not kept come back
 * zero. A file of a single block below 4 KiB has none: its digest is the object's. It costs least to ask for those that are kept as
 * one value: BLOCKS_ROWS from a multiple of it on. */
int catalog_blocks(struct catalog *c, uint64_t no, uint64_t first, size_t n, uint8_t *rows, struct err *e);
/* *block moves on to the first one from there that may have a row; 1; 0: none has. */
int catalog_blocks_next(struct catalog *c, uint64_t no, uint64_t *block, struct err *e);
/* The next rows before block `stop`: *first moves on to where they begin. How many, BLOCKS_ROWS at most; 0: none is kept from there on; -1.
 * For loops over all blocks of a file: in a hole of an exbibyte there are too many to ask for each. */
int catalog_blocks_some(struct catalog *c, uint64_t no, uint64_t *first, uint64_t stop, uint8_t *rows, struct err *e);
int catalog_blocks_put(struct catalog *c, uint64_t no, uint64_t first, size_t n, const uint8_t *rows, struct err *e);
/* Forgets the rows from block `first` on: what comes there later starts as zeros. */
int catalog_blocks_cut(struct catalog *c, uint64_t no, uint64_t first, struct err *e);
int catalog_blocks_clear(struct catalog *c, uint64_t no, struct err *e);
/* Every block row of the catalog, in key order, for building an index: fn(ctx, object, block, row). */
int catalog_blocks_all(struct catalog *c, int (*fn)(void *ctx, uint64_t no, uint64_t block, const uint8_t *row),
	void *ctx, struct err *e);

/* ---- changes: between catalog_begin and catalog_commit ---- */

/* A number never used in this catalog. */
int catalog_alloc(struct catalog *c, uint64_t *no, struct err *e);
/* Writes the object's row and its inode row; what depends on its digest follows in catalog_seal. Nothing is written that is right
 * already. */
int catalog_put(struct catalog *c, const struct object *o, struct err *e);
/* A new object (o->no from catalog_alloc) under its first name; sets o->nlink. */
int catalog_create(struct catalog *c, uint64_t dir, struct span name, struct object *o, struct err *e);
int catalog_add_name(struct catalog *c, uint64_t dir, struct span name, uint64_t no, struct err *e);
int catalog_remove_name(struct catalog *c, uint64_t dir, struct span name, struct err *e);
/* Removes objects left without a name, with all below them, puts the digests of changed objects at each of their names, and
 * recomputes those of changed directories. Until then the digests that the catalog holds are of no use, and nobody is shown them.
 * id: of the image; entries: names in it (objects with a name, the root included). */
int catalog_seal(struct catalog *c, struct digest *id, struct err *e);

/* Rows written and deleted since it was opened: what a change costs. */
uint64_t catalog_writes(const struct catalog *c);

/* Small values. get: 1 (appended to out), 0, -1. */
int catalog_fact(struct catalog *c, const char *key, struct buf *out, struct err *e);
int catalog_set_fact(struct catalog *c, const char *key, const void *p, size_t n, struct err *e);
/* The image id of the last seal; zero for an empty catalog. */
int catalog_id(struct catalog *c, struct digest *id, struct err *e);
int catalog_count(struct catalog *c, uint64_t *objects, struct err *e);

#endif
