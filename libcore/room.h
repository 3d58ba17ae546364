/*
 * room: where objects wait on their way into or out of the tree of one filesystem: stage/ and slots/ of a control directory.
 *
 * A replica has one; each of its trees that stand elsewhere (where.h) has its own, as nothing is renamed from one filesystem to
 * another.
 *
 * May use: file, fit, meta, path, bytes, err; makes system calls.
 */
#ifndef REPL_ROOM_H
#define REPL_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

struct room {
	uint64_t dev, mount; /* of the tree: st_dev, and the mount's id, 0 when the kernel does not tell (before Linux 5.8) */
	const char *name;   /* of the member; empty: the replica's own */
	const char *path;   /* for messages; both borrowed */
	int root, ctl;      /* of the tree, and .repl in it; borrowed */
	int stage, slots;   /* -1: not open */
	bool is_bare;       /* stage, see meta_is_bare */
	bool takes_all;     /* see fit_takes_all */
};
#define ROOM_CLOSED {.root = -1, .ctl = -1, .stage = -1, .slots = -1}
#define ROOM_CTL ".repl"

/* root and ctl are open, and stay the caller's. Nothing is made yet. */
int room_at(struct room *m, const char *name, const char *path, int root, int ctl, struct err *e);
/* Nothing is renamed between the tree and this: another filesystem, another mount of the same, another subvolume. name NULL: dirfd itself;
 * what is not there is not apart. */
bool room_is_apart(const struct room *m, int dirfd, const char *name);
/* Opens both directories, made as far as they are missing. ERR_REFUSED when the control directory is apart from the tree. */
int room_open(struct room *m, struct err *e);
/* Whatever is in them goes. */
int room_empty(struct room *m, struct err *e);
void room_close(struct room *m);
/* The name in stage/ of a directory that the delta makes, by its number there: the files that it makes in it are staged there
 * under their own names, and come along. */
void room_new_dir(char out[32], uint64_t ref);
/* A name at the top of a tree that is no content: our own, "." and "..", and what a fresh filesystem has. */
bool room_is_ours(const char *name);
/* A directory without anything in it but that: 1, 0, -1 with errno. */
int room_is_empty_dir(int fd);

#endif
