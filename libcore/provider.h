/*
 * provider: what a way of holding an image still has to be able to do.
 *
 * A provider leaves something behind for each member: a snapshot, called INSTANCE-SEQ. Of all of them something of that name stands in
 * `ROOT/.repl/images`: a btrfs subvolume (snapbtrfs), a tree of clones (snaptree), or a file that says where a program has put it
 * (snapexec). Which are kept and which go is for the keeper to say (snapshots.h).
 *
 * May use: bytes, err.
 */
#ifndef REPL_PROVIDER_H
#define REPL_PROVIDER_H

#include <sys/types.h>

#include "bytes.h"
#include "err.h"

#define PROVIDER_DIR "images"    /* in .repl of a root */
#define PROVIDER_NAME_MAX 64u    /* bytes of INSTANCE-SEQ, with its end */

/* How programs of others are run; only snapexec does so. All borrowed. */
struct provider_run {
	const char *program;     /* absolute path */
	uint64_t limit_ms;       /* that each call gets */
	int log_fd;              /* where it prints */
	_Atomic(pid_t) *running; /* as in command.h; NULL: not told */
	void (*note)(void *ctx, const char *text); /* of one that cannot be removed; NULL: not told */
	void *ctx;
};

/* A member. All borrowed. */
struct provider_root {
	struct span path; /* of its directory, absolute; of a volume that in which its content lies as a file */
	int fd;           /* that, as it is now */
	const char *file; /* its name there; NULL: not a volume */
	uint64_t prune_dev, prune_ino;  /* a directory that need not be in it, the state's; 0: none */
	const struct provider_run *run; /* NULL: programs cannot be run */
};

struct provider {
	const char *name;
	bool runs_programs;
	bool can_be_frozen; /* it can be taken while the filesystem is frozen, and that makes a difference */
	bool takes_volumes;
	bool is_of_one_instant; /* the whole snapshot of a member; else only each file in it */
	/* 1: what a snapshot of it would show is what its path shows; 0: reason says in one phrase why not. is_possible: yet there can
	 * be one. Mounts below it are looked at by the keeper. NULL: always. */
	int (*can)(const struct provider_root *r, bool *is_possible, char reason[512]);
	/* Before anything is frozen. NULL: there is nothing to do. */
	int (*prepare)(const struct provider_root *r, const char *name, struct err *e);
	/* The instant. 1: it is there, durably; 0: it is not allowed, reason; -1. */
	int (*take)(const struct provider_root *r, const char *name, char reason[512], struct err *e);
	/* Afterwards, and each time that open cannot find it: makes it one that can be opened. NULL: there is nothing to do. */
	int (*settle)(const struct provider_root *r, const char *name, struct err *e);
	/* Opens the directory in which the image's content is. Owned; -1: ERR_SYSTEM with advice. r->fd is used, and not closed. */
	int (*open)(const struct provider_root *r, const char *name, struct err *e);
	/* Removes it; 0: nothing of it is there. */
	int (*drop)(const struct provider_root *r, const char *name, struct err *e);
};

/* What open says of one that cannot be used. `what`: "is gone". */
static inline int provider_refuse(const struct provider_root *r, const char *name, const char *what, struct err *e)
{
	char text[300];

	return err_set(e, ERR_SYSTEM, "the image's snapshot '%s/.repl/" PROVIDER_DIR "/%s' %s: take a new image with repl-snap",
		esc_cut(text, sizeof text, r->path), name, what);
}

#endif
