/*
 * fit: whether a filesystem takes the names that a delta brings. That is found out before anything is decided, as a delta that was
 * decided has to come to an end.
 *
 * Linux's own filesystems take every name. Others have characters or lengths that they refuse, or take two names for one (exFAT, NTFS,
 * those of other systems, encrypting ones): there each name is tried in a directory of ours.
 *
 * May use: file, bytes; makes system calls.
 */
#ifndef REPL_FIT_H
#define REPL_FIT_H

#include <stdbool.h>
#include <stdint.h>

struct fit {
	int stage;         /* the directory that the names are tried in is made there; borrowed */
	int dir;           /* -1: not made */
	bool folds;        /* "a" and "A" are one name */
	uint64_t parent;   /* of the names that are in it */
};
#define FIT_AT(fd) {.stage = (fd), .dir = -1}

/* The filesystem of this directory is one of Linux's own: it takes every name, hard and symbolic links, and nodes. */
bool fit_takes_all(int fd);
/* Beside the other names of this parent that were asked for just before: 0, or -1 with errno. EEXIST: it is one of them there. */
int fit_name(struct fit *f, uint64_t parent, const char *name);
/* What was made goes. */
void fit_end(struct fit *f);

#endif
