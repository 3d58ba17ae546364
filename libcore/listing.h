/*
 * listing: what lies in one directory: its names in order, and what attr_stat says about each.
 *
 * May use: spill, sorted, attr, file, bytes, err; makes system calls. Follows no links and opens nothing but directories. Every
 * thread brings tools of its own.
 */
#ifndef REPL_LISTING_H
#define REPL_LISTING_H

#include <stdatomic.h>

#include "attr.h"
#include "sorted.h"
#include "spill.h"

enum listing_state { LISTING_OK, LISTING_GONE, LISTING_FAILED };

/* A name, and what attr_stat says about it without the room that struct attr keeps for the rest. */
struct listing_entry {
	int64_t mtime_s, ctime_s, btime_s;
	uint64_t dev, ino, size, blocks512;
	uint32_t mtime_ns, ctime_ns, btime_ns, uid, gid, major, minor, attr, nlink;
	uint32_t name_at; /* in the listing's text */
	uint16_t mode;
	uint16_t sys;     /* why it is FAILED */
	uint8_t type, name_len;
	uint8_t state;    /* enum listing_state */
	uint8_t verdict;  /* of who reads it; 0 at first */
};
void listing_pack(struct listing_entry *s, const struct attr *a);
/* Back into an attr, as attr_stat leaves it. */
void listing_unpack(struct attr *a, const struct listing_entry *s);

/* Entries of one directory in order, all of them or some; {0} is empty. */
struct listing {
	char *text; /* names, NUL-terminated */
	struct listing_entry *entries;
	size_t n;
	bool failed; /* some entry is FAILED: who stats pieces says so */
};
/* Of these names, which are sorted; no entry is statted yet. The listing was empty. */
void listing_fill(struct listing *b, const struct sorted *m);
void listing_free(struct listing *b);

/* What one thread works with. Valid after listing_tools_init. */
struct listing_tools {
	struct attr attr; /* scratch */
	struct sorted names;
	uint8_t *dents;
	const atomic_bool *stop; /* borrowed: once true, all below end early with something that is of no use */
};
void listing_tools_init(struct listing_tools *t, const atomic_bool *stop);
void listing_tools_free(struct listing_tools *t);

/* Opens name below `at` when it is still the directory that was statted. Owned; -1 and *sys: ENOENT gone; ENOTDIR, ELOOP,
 * ESTALE: something else has its name now; or another errno. */
int listing_open(struct listing_tools *t, int at, const char *name, const struct listing_entry *st, int *sys);

struct listing_job {
	int fd;       /* borrowed: the directory, read from where it stands */
	bool is_root; /* a ".repl" in it is the toolkit's own and left out */
	size_t limit; /* so many names in memory; more go into the file */
	struct spill_file *file;
	/* results */
	struct spill *spill; /* owned by the caller, whatever the end; NULL: all names are in the tools, not sorted */
	int sys;             /* errno of what was not COMPLETE */
};
enum listing_end {
	LISTING_COMPLETE,
	LISTING_PARTIAL, /* some names could not be read */
	LISTING_REMOVED, /* the directory is gone */
	LISTING_NO_FILE, /* the temporary file failed */
};
/* All names of a directory into the tools, which held none before (sorted_shrink), or the temporary file. */
enum listing_end listing_names(struct listing_tools *t, struct listing_job *j);
/* Stats the entries from..to of a listing of the directory fd; true when one FAILED. */
bool listing_stat(struct listing_tools *t, struct listing *b, int fd, size_t from, size_t to);

#endif
