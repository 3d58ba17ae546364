/*
 * pages: whether the pages of an LMDB file are such as LMDB can change.
 *
 * LMDB (0.9) trusts its pages: it moves bytes about in its memory by the offsets that it finds in them. A read from a damaged page ends
 * at worst in a fault, a change in spoilt memory. So a page is looked at here before a change may get to it, once in the life of a struct
 * pages, which sees the file as the last commit left it.
 *
 * May use: bytes; makes system calls.
 */
#ifndef REPL_PAGES_H
#define REPL_PAGES_H

#include "bytes.h"

struct pages {
	int fd;            /* borrowed */
	size_t len, page;  /* bytes of the file, bytes in a page */
	uint64_t free_root, list_root;
	bool is_in_memory; /* nearly all of it, by samples */
	uint8_t *seen;     /* a bit for each page; NULL: not open */
	uint64_t n_seen;   /* branches and leaves of them */
	/* The pages on the last ways down. Read, not mapped: a fault costs ten times a read, and what is mapped is ours. */
	uint8_t *way;
	uint64_t *way_no;
	uint8_t *beside;
};
/* Whether LMDB's files on this machine are laid out as this module knows them: 64 bits, little-endian. Else nothing can be said. */
bool pages_are_known(void);
/* fd: of the file, borrowed; page: its page size. false: it cannot be read, or its head makes no sense. */
bool pages_open(struct pages *s, int fd, size_t page);
void pages_close(struct pages *s);
struct pages_tree {
	uint64_t root;
	unsigned depth; /* pages on the way to a row */
};
/* The head of a table, as LMDB's list of tables has it. */
bool pages_tree_of(struct span head, struct pages_tree *t);
/* Asks the disk for the pages that these rows lie on, or would (PAGES_AHEAD_MAX of them at most, best in order): those of one depth
 * all at once, so that whoever reads the rows next does not wait for each by itself. Does not wait for the last ones. shrinks:
 * as below. A hint: what cannot be read, or makes no sense, is passed over, and there is nothing to do where all is in memory. */
#define PAGES_AHEAD_MAX 512u
void pages_ahead(struct pages *s, const struct pages_tree *t, const struct span *keys, size_t n, bool shrinks);
/* All that a change of the row `key` may touch: the pages on the way to it; when it may become shorter also those next to them,
 * from which rows may be taken, or which take the rows that are left. */
bool pages_are_sound(struct pages *s, uint64_t root, struct span key, bool shrinks);
/* The whole tree. */
bool pages_tree_is_sound(struct pages *s, uint64_t root);
/* LMDB's list of free pages, and its list of tables. */
bool pages_lists_are_sound(struct pages *s);

#endif
