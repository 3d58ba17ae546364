/*
 * extents: which ranges two files are proved to have in common, from where their filesystem keeps them, without reading either.
 *
 * The same place on the disk at the same time is the same content: filesystems that share extents write changes elsewhere. What
 * lies in no place (holes, extents that were allocated but never written) is zeros on both sides. Everything else "may differ" and
 * is not reported, however equal it is: what is not on the disk yet, what lies inside metadata, and what is stored encoded
 * unless it is known which stored extent that is and where in it.
 *
 * Nobody may write to either file while it lasts: both are clones, or lie in read-only snapshots. Then a block that the old file
 * holds cannot be freed and used again, neither by the new one nor by anybody: the old file is a reference to it. What moves
 * extents behind the files' backs (defragmenting, deduplicating, balancing) may do so: the old file's map is read before and
 * after the new one's, and only what stood still between counts.
 *
 * XFS: FIEMAP, not for realtime files (addresses of another device) nor DAX. btrfs: the EXTENT_DATA items by BTRFS_IOC_TREE_SEARCH_V2
 * for who may (CAP_SYS_ADMIN), else FIEMAP, which calls each encoded extent just that. Others prove nothing: an
 * address may mean one of several devices there.
 *
 * May use: bytes; makes system calls. Memory: three windows of EXTENTS_WINDOW extents and as many ranges.
 */
#ifndef REPL_EXTENTS_H
#define REPL_EXTENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENTS_WINDOW 4096u

enum extent_kind {
	EXTENT_OPAQUE, /* proves nothing */
	EXTENT_ZEROS,  /* nothing was ever written there */
	EXTENT_STORED, /* at a known place */
};
struct extent {
	uint64_t off, len;
	enum extent_kind kind;
	uint64_t whole; /* STORED encoded: which stored extent; 0: plain */
	uint64_t at;    /* STORED: address of the first byte; where encoded, its offset in what the stored extent decodes to */
};
struct extents_range {
	uint64_t off, len;
};

/* The ranges below [from, to) in which two lists prove the same, ascending and never touching each other. What a list does not
 * name are holes. Lists are ascending and do not overlap. out has room for n_a + n_b + 1; the number of ranges. Memory in, memory out. */
size_t extents_merge(const struct extent *a, size_t n_a, const struct extent *b, size_t n_b, uint64_t from, uint64_t to,
	struct extents_range *out);

struct extents; /* an iteration under way */
/* Compares the first `end` bytes. Both descriptors borrowed until extents_close. Owned; NULL: these two files prove nothing. */
struct extents *extents_open(int old, int now, uint64_t end);
/* The next range, ascending, never touching the one before; false at the end, or when the maps cannot be read any more. */
bool extents_next(struct extents *x, struct extents_range *r);
void extents_close(struct extents **x);

/* The map of one file from offset *pos on, at most n extents: how many; *pos moves to where the next call goes on, UINT64_MAX at the end
 * of the map. What lies between is a hole. -1 with errno: there is none. sync: what was written is put in its place first. */
int extents_map(int fd, uint64_t *pos, bool sync, struct extent *out, size_t n);
/* The file is on XFS and has more extents than so many. */
bool extents_are_many(int fd, uint64_t most);

#endif
