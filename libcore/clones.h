/*
 * clones: copies of large files that share their extents with them (FICLONE), of the base's content and of the image under way.
 *
 * A clone is of one instant, whoever writes meanwhile, and costs only what changes after it. The content of a large file is read
 * from one, and while the base's is kept, what both share need not be read the next time (extents.h).
 *
 *   ROOT/.repl/clones/INSTANCE/NO-SEQ   the content of object NO as image SEQ had it, mode 0600; ROOT: of the member it is in
 *   ROOT/.repl/clones/INSTANCE/rows     what is known about each of them; replaced whole
 *
 * What counts is the row: a clone without one is left over from a crash, one whose stat is not what its row remembers was written
 * to, a row whose size and digest are not those of the base's object is of another image. None of them is used, and the next
 * run removes them. A row made since the last start of the machine counts at once; after a restart only what a later image of the
 * same boot has synced (repl-snap syncs the members first) is known to be on the disk as the row has it, others are forgotten.
 * So nothing here has to be synced, and a mistake costs reading, never content.
 *
 * Where the filesystem cannot share extents, or ROOT cannot be written, there are none.
 * May use: state, head, catalog, control, attr, file, walk (its roots), err; makes system calls.
 */
#ifndef REPL_CLONES_H
#define REPL_CLONES_H

#include "catalog.h"

#define CLONES_LEAST (UINT64_C(16) << 20) /* smaller files are read as fast as their clone is made */

struct head;
struct state;
struct walk_root;

struct clones_row;
struct clones_dir; /* of one root */
struct clones {
	uint64_t least;        /* bytes; smaller files have none */
	uint64_t seq;          /* of the image under way */
	bool only_look;        /* nothing is removed, and no lock is needed */
	/* out */
	uint64_t made;
	char why[128];         /* why there are none, as far as is known */
	/* private */
	struct clones_dir *dirs;
	size_t n_dirs;
	struct clones_row *rows;
	size_t n, n_found, cap; /* found: in the beginning; sorted */
	char instance[33];
	uint8_t boot[16];
};
/* Finds what is there, removes what belongs neither to the base nor to image seq. The caller holds the state's lock. base: NULL
 * when nothing is to be kept of it. Trouble means fewer clones, never an error. roots: borrowed until clones_close. */
void clones_open(struct clones *c, const struct state *s, struct catalog *base, const struct walk_root *roots, size_t n);
/* The base's content of this object, open for reading; -1: there is none that can be relied on. Owned. */
int clones_old(const struct clones *c, const struct object *old);
/* A clone of this open file of root, for the image under way; it has no name yet. -1: none. Owned. */
int clones_take(struct clones *c, size_t root, int fd, uint64_t size);
/* The clone turned out to hold this, and goes under object no. The descriptor stays the caller's. */
void clones_keep(struct clones *c, size_t root, int fd, uint64_t no, uint64_t size, const struct digest *content);
/* What is known is written down: before the image can be acknowledged. */
void clones_save(struct clones *c);
void clones_close(struct clones *c);

/* After the base has changed: removes what belongs neither to it nor to the image under way. was: the head of the base before; may be
 * NULL. forget: the image under way is about to be forgotten. The caller holds the lock. */
void clones_tend(const struct state *s, const struct head *was, bool forget);

#endif
