/*
 * rows: how objects, their names and their inodes lie in the tables of a store. One row at a time: what a change owes to other
 * rows (digests further up, counts of names) is the business of seal and catalog.
 *
 *   names    directory number, name -> object number, type, digest of the object
 *   links    object number, directory number, name -> nothing
 *   objects  object number -> object (object.h)
 *   inodes   inode, birth time, device -> object number
 *
 * Numbers in keys are big-endian, so that rows lie in the order of numbers and names.
 *
 * May use: store, object.
 */
#ifndef REPL_ROWS_H
#define REPL_ROWS_H

#include "object.h"
#include "store.h"

#define CATALOG_ROOT 1u /* the number of the object that all names lie below */

struct rows_key {
	uint8_t b[16 + REC_NAME_MAX];
	size_t n;
};
static inline struct span rows_span(const struct rows_key *k) { return span_of(k->b, k->n); }
struct rows_key rows_key_no(uint64_t no);
struct rows_key rows_key_two(uint64_t a, uint64_t b);
/* Of names; an empty name sorts before all of the directory. */
struct rows_key rows_key_name(uint64_t dir, struct span name);

/* Ask the disk (store_ahead) for some rows, ROWS_AHEAD_MAX at most, best in order: for those of a table that begin with these numbers,
 * those of names, those of inodes that are to be deleted. */
#define ROWS_AHEAD_MAX (STORE_AHEAD_MAX / 2)
struct rows_place {
	uint64_t dir;
	struct span name;
};
void rows_ahead(struct store *s, enum store_table t, const uint64_t *no, size_t n);
void rows_names_ahead(struct store *s, const struct rows_place *v, size_t n);
void rows_inodes_ahead(struct store *s, const struct r_hint *v, size_t n);
/* Puts numbers in order, each once: how many they are then. */
size_t rows_sort(uint64_t *no, size_t n);

/* Look-ups: 1 found, 0 not, -1 error (a damaged row is one). */
int rows_get(struct store *s, uint64_t no, struct object *o, struct err *e);
int rows_put(struct store *s, const struct object *o, struct err *e);

struct rows_name {
	uint64_t no;
	uint8_t type; /* enum obj_type */
	struct digest digest; /* O of repl-stream(5); for a directory as of its last sealing */
};
int rows_name_get(struct store *s, uint64_t dir, struct span name, struct rows_name *n, struct err *e);
bool rows_name_decode(struct rows_name *n, struct span value);
int rows_name_put(struct store *s, uint64_t dir, struct span name, const struct rows_name *n, struct err *e);
int rows_name_del(struct store *s, uint64_t dir, struct span name, struct err *e);

int rows_link_put(struct store *s, uint64_t no, uint64_t dir, struct span name, struct err *e);
int rows_link_del(struct store *s, uint64_t no, uint64_t dir, struct span name, struct err *e);
/* First name of an object; 0 for the root or a nameless one. */
int rows_link_first(struct store *s, uint64_t no, uint64_t *dir, struct buf *name, struct err *e);
/* All names of an object in key order: rows_link_start, then rows_link_next (1, 0 at the end, -1), then store_walk_free.
 * name lives until the next call on the walk. */
void rows_link_start(struct store_walk *w, struct store *s, uint64_t no);
int rows_link_next(struct store_walk *w, uint64_t *dir, struct span *name, struct err *e);

/* Object with this inode, birth time and device. */
int rows_inode_get(struct store *s, const struct r_hint *h, uint64_t *no, struct err *e);
int rows_inode_put(struct store *s, const struct object *o, struct err *e);
/* Deletes the row of a hint that the object had, unless another object has it by now. */
int rows_inode_del(struct store *s, const struct r_hint *h, uint64_t no, struct err *e);

#endif
