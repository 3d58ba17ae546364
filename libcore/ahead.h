/*
 * ahead: listings of directories, made by several threads ahead of the one who reads them.
 *
 * The reader is one thread (below: the caller). It asks for one directory after the other with ahead_wait, and says
 * beforehand which are next (ahead_expect, ahead_queue), so that threads in the background can begin them. Nothing ever
 * waits for a thread that waits: what nobody has begun, the caller lists itself. What lies ready is bounded in entries,
 * directories and descriptors; a directory too large for memory comes in pieces (ahead_next).
 *
 * May use: listing, spill, sorted, attr, pool, bytes, err; makes system calls.
 */
#ifndef REPL_AHEAD_H
#define REPL_AHEAD_H

#include "listing.h"

/* A directory. The caller writes nothing but verdicts, and reads the results after ahead_wait. */
struct ahead_dir {
	struct ahead_dir *parent; /* NULL: a root */
	char *name;
	struct listing_entry st;  /* as it was when its parent was listed */
	int fd;                   /* -1: not open */
	/* Results; each an errno or 0. open_sys: why it is not open, as from listing_open. list_sys: why the list is not
	 * complete. fatal_sys: what the temporary file said; there is no list. */
	int open_sys, list_sys, fatal_sys;
	bool is_large;            /* comes in pieces: ahead_next gives the first as well */
	struct listing *cur;      /* NULL: none */
};

struct ahead_options {
	unsigned threads;        /* in the background; 0: one per processor; 1: none, the caller does it all */
	const char *tmpdir;      /* borrowed until ahead_close; for directories too large for memory */
	size_t spill_at;         /* names in one directory that go there; 0: 128 Ki */
	void (*shed)(void *ctx); /* descriptors ran out: closes what can be opened again, with ahead_dir_shut and
	                            ahead_shed. Called on the caller's thread, from within ahead_wait. */
	void *ctx;
};
struct ahead;
/* Owned; ahead_stop, ahead_free for each directory, then ahead_close. */
int ahead_open(struct ahead **a, const struct ahead_options *o, struct err *e);
/* No thread runs any more. */
void ahead_stop(struct ahead *a);
void ahead_close(struct ahead **a);

/* A directory to begin with, as it was statted; not open yet. A ".repl" in it is the toolkit's own and not listed. Owned. */
struct ahead_dir *ahead_root(const struct attr *st);
/* Entry i of d->cur, a directory: the one that was expected, or a new one. Owned. */
struct ahead_dir *ahead_take(struct ahead_dir *d, size_t i);
/* After ahead_done or ahead_stop, or before anything was expected in it. */
void ahead_free(struct ahead *a, struct ahead_dir **d);

/* How many more sub-directories of d to expect now; 0 while enough are ahead, or nobody is there to begin them. */
size_t ahead_room(const struct ahead *a, const struct ahead_dir *d);
/* Entry i of d->cur, a directory behind all that were expected before, will be taken. Borrowed from d. */
struct ahead_dir *ahead_expect(struct ahead_dir *d, size_t i);
/* Puts this one (NULL: none) and those expected after it into the queue, behind their elder siblings and before all else. */
void ahead_queue(struct ahead *a, struct ahead_dir *first);
/* d was opened again: so is the queue for what is expected in it. */
void ahead_queue_again(struct ahead *a, struct ahead_dir *d);

/* Until d is listed and, unless it is large, statted. Opens d when it is not open; then its parent is. */
void ahead_wait(struct ahead *a, struct ahead_dir *d);
/* For a large one that is open: the next piece becomes d->cur (NULL: there is none), and the one after it is begun. 0, or
 * what the temporary file said. */
int ahead_next(struct ahead *a, struct ahead_dir *d);
/* d was read to its end, or will not be: gives up its listings and what is ahead in it. */
void ahead_done(struct ahead *a, struct ahead_dir *d);

/* As listing_open for d, by this name below `at`: 0 and d is open, or -1 and *sys. */
int ahead_dir_open(struct ahead *a, struct ahead_dir *d, int at, const char *name, int *sys);
/* Closes d and returns true, unless it is in use or was not open. What is queued in it waits for ahead_queue_again. */
bool ahead_dir_shut(struct ahead *a, struct ahead_dir *d);
/* Closes what was opened ahead in d. */
void ahead_shed(struct ahead *a, struct ahead_dir *d);

bool ahead_is_out_of_fds(int sys);

#endif
