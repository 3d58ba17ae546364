/*
 * provider: what a way of holding an image still has to be able to do.
 *
 * A provider leaves something behind for each member: a snapshot, called INSTANCE-SEQ. Of all of them something of that name stands in
 * `ROOT/.repl/images`: a btrfs subvolume (snapbtrfs). Which are kept and which go is for the keeper to say (snapshots.h).
 *
 * May use: bytes, err.
 */
#ifndef REPL_PROVIDER_H
#define REPL_PROVIDER_H

#include "bytes.h"
#include "err.h"

#define PROVIDER_DIR "images"    /* in .repl of a root */
#define PROVIDER_NAME_MAX 64u    /* bytes of INSTANCE-SEQ, with its end */

/* A member. All borrowed. */
struct provider_root {
	struct span path; /* of its directory, absolute */
	int fd;           /* that, as it is now */
};

struct provider {
	const char *name;
	/* 1: what a snapshot of it would show is what its path shows; 0: reason says in one phrase why not. is_possible: yet there can
	 * be one. Mounts below it are looked at by the keeper. */
	int (*can)(const struct provider_root *r, bool *is_possible, char reason[512]);
	/* 1: it is there, durably; 0: it is not allowed, reason; -1. */
	int (*take)(const struct provider_root *r, const char *name, char reason[512], struct err *e);
	/* Opens the directory in which the image's content is. Owned; -1: ERR_SYSTEM with advice. r->fd is used, and not closed. */
	int (*open)(const struct provider_root *r, const char *name, struct err *e);
};

/* What open says of one that cannot be used. `what`: "is gone". */
static inline int provider_refuse(const struct provider_root *r, const char *name, const char *what, struct err *e)
{
	char text[300];

	return err_set(e, ERR_SYSTEM, "the image's snapshot '%s/.repl/" PROVIDER_DIR "/%s' %s: take a new image with repl-snap",
		esc_cut(text, sizeof text, r->path), name, what);
}

#endif
