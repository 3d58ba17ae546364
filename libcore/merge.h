/*
 * merge: several change streams become one: the names of all of them, in order, each once.
 *
 * What any input says is in the result, or below something there that has to be looked at whole: the flags of equal names are
 * or-ed, a name that one of them goes into is gone into, a gap or a subtree swallows what the others say below it. Block numbers
 * (REGION) stay only where a single input speaks of the name: else it is looked at whole.
 *
 * Memory is the way down in each input and one record of it, whatever they hold. Each input is checked for order and for its end
 * while it is read, also where it is swallowed; an error may come after much was written, so the result is whole only with the
 * trailer that the caller writes when all went well. An input that says what a replica lacks (wanted, stray) is refused:
 * that is no hint which a gap could stand for.
 *
 * May use: changes (writing), head, input, err; reads descriptors.
 */
#ifndef REPL_MERGE_H
#define REPL_MERGE_H

#include "changes.h"
#include "head.h"

#define MERGE_INODES_MAX (1u << 20) /* so many in one input, and no more */
#define MERGE_MAX 64u /* so many inputs are enough at a time: more are joined in rounds */

struct merge_source {
	struct head head;
	struct buf inodes; /* struct r_inode: the objects that stand before all names */
	/* A gap of everything is one of each of its members instead. The members are in order then. */
	bool by_member;
	/* private */
	struct input in;
	const char *name;
	int kind;               /* the event that is next: where it stands, and what it says */
	size_t depth;
	struct span text;
	uint8_t flags;
	uint32_t grain;
	struct merge_frame *frames;
	size_t n, cap;
	struct buf names;       /* the last name in each frame, one after the other */
	uint64_t last_ref, n_changed;
	bool has_end;
	size_t at;              /* the depth that the merge has gone into together with it */
	bool is_in;             /* it speaks of the name at hand */
	size_t fake;            /* members whose gaps are made up: one more than were said */
	struct buf reason;
};
/* Reads the head of one change stream, and checks it. fd and name (for messages; it is escaped) are borrowed until merge_close.
 * ERR_STREAM when it is no change stream. {0} is a source that merge_close takes. */
int merge_open(struct merge_source *s, int fd, const char *name, struct err *e);
void merge_close(struct merge_source *s);
/* Reads to the end: is it whole, and in order? ERR_STREAM, ERR_SYSTEM. Nothing is left to merge then. */
int merge_check(struct merge_source *s, struct err *e);

/* Writes the objects that any of them names by its inode, each once: they have no place in the tree, and stand before all names. */
int merge_inodes(const struct merge_source *s, size_t n, struct stream_out *o, struct err *e);

struct merge {
	struct merge_source *sources; /* borrowed; read to their ends */
	size_t n;
	/* Only what lies below this path (without a slash at either end), and named from there. When it, or a directory above it,
	 * came, went or was gone past by a gap, that is a gap of all. Empty: everything. */
	struct span prefix;
	struct changes_out *out;      /* borrowed; stands inside the directory that the names belong to */
};
int merge_run(struct merge *m, struct err *e);

#endif
