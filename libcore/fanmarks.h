/*
 * fanmarks: what fanotify.c watches, and its marks there: one group for each superblock below the paths, the mounts through which it
 * is seen, and a mark for the whole or for each of its directories.
 *
 * struct fan is the data of a watch; the two modules share it, nobody else sees it.
 *
 * May use: watch, mounts, handles, fanevent, words, err; makes system calls.
 */
#ifndef REPL_FANMARKS_H
#define REPL_FANMARKS_H

#include <sys/stat.h>

#include "handles.h"
#include "watch.h"
#include "words.h"

/* A mount through which a superblock is seen below the paths. */
struct view {
	uint64_t id;   /* of the mount */
	char *top;     /* what of it is watched: the path, or where it is mounted below one */
	int fd;        /* of top while a batch is written; else -1 */
	bool is_kept;  /* seen again by the check under way */
};
struct group {
	uint64_t dev;  /* of the superblock, as mountinfo has it */
	uint32_t no;   /* never used again */
	int fd;
	bool is_dirs;  /* marks on directories */
	struct view *views;
	size_t n_views;
	struct buf backlog;
	size_t at;     /* so far was told */
	struct buf marker; /* handle of the directory that was opened as the marker; empty: none is on its way */
	char *marked;  /* its path */
	bool is_spoiled; /* we opened it for another reason since */
	bool is_late;  /* directories were made that have no mark */
};
/* One of the paths. */
struct top {
	uint64_t mount;
	struct buf handle; /* empty: not there */
};
struct fan {
	bool all_dirs;
	struct group *groups;
	size_t n;
	uint32_t last_no;
	struct top *tops;
	struct words dirs, objs; /* u32 group, handle */
	struct words fresh;      /* u32 directory, name: new directories that need a mark */
	struct words done;       /* device and inode of directories, see fanmarks_tree */
	unsigned marks_out;      /* markers that did not come back */
};

/* Are all paths and filesystems still those that are watched? What is not is told as lost, and watched anew. is_start: without the paths
 * themselves it is an error. */
int fanmarks_check(struct watch *w, bool is_start, struct err *e);
/* Marks each directory at top and below. once: but those that were marked since f->done was reset, with all below them. */
int fanmarks_tree(struct watch *w, struct group *g, const char *top, bool once, struct err *e);
/* Group i goes with its marks; the last one takes its place. */
void fanmarks_drop(struct fan *f, size_t i);
/* As hear.lost. */
void fanmarks_lost(struct watch *w, const char *path, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* statx(2) of path, or of fd itself with NULL; *id: of the mount that it is seen through, 0 where the kernel does not tell. -1 with
 * errno. */
int fanmarks_mount(int fd, const char *path, uint64_t *id, struct statx *sx);

#endif
