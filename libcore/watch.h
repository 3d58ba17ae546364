/*
 * watch: who tells what changes: one table of event sources with the same manners.
 *
 *   fanotify       one mark for each filesystem below the paths; on one that refuses that (a btrfs subvolume: EXDEV), one for
 *                  each directory. Needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH
 *   fanotify-dirs  the same with a mark for each directory everywhere
 *   inotify        a watch for each directory; needs no privilege, and knows files by their names only
 *
 * A source speaks of directories and objects by numbers of its own, which mean something until watch_forget. Nothing here
 * writes to the tree, and no descriptor on a watched filesystem stays open between two calls.
 *
 * May use: mounts, words, numbers, path, file, record, err. Each Linux-only call lives in fanmarks.c, fanotify.c and inotify.c.
 */
#ifndef REPL_WATCH_H
#define REPL_WATCH_H

#include <poll.h>

#include "mounts.h"
#include "record.h"
#include "words.h"

#define WATCH_FDS 64u /* most descriptors that a source waits on */

/* What a source tells its owner, from within watch_tell, watch_check and watch_open. */
struct watch_hear {
	/* A name in a directory, empty: the directory itself; flags: CHANGED_*; obj: 0 when the event did not say. is_written: it was
	 * about what the name stands for, not about the name. A directory of 0: the object alone is known. */
	void (*changed)(void *ctx, uint32_t dir, struct span name, uint8_t flags, uint32_t obj, bool is_written);
	/* Below this path (absolute) anything may have happened. NULL: below all of them. */
	void (*lost)(void *ctx, const char *path, const char *reason);
	/* The marker came back. */
	void (*seen)(void *ctx);
	void *ctx;
};

struct watch_source;
struct watch {
	/* settings, borrowed */
	const char *const *paths; /* absolute, resolved, sorted, none below another */
	size_t n_paths;
	const char *own;          /* a directory whose inside is nobody's business */
	struct watch_hear hear;
	const struct warn *warn;
	uint64_t seed;            /* nobody's guess; see words.h */
	/* private */
	const struct watch_source *source;
	void *data;
	struct words blind; /* directories that may not be read */
};

/* name: of a source; NULL: the best that there is. ERR_REFUSED: it has not enough marks or watches, and the text says which limit
 * of the system to raise; ERR_USAGE: there is no such source. All that happens to the tree after it returns is told. */
int watch_open(struct watch *w, const char *name, struct err *e);
void watch_close(struct watch *w);
const char *watch_name(const struct watch *w);
/* "fanotify, filesystem marks" */
void watch_describe(const struct watch *w, struct buf *text);

/* Fills at most WATCH_FDS entries to poll for POLLIN; returns how many. */
size_t watch_fds(const struct watch *w, struct pollfd *p);
/* Takes what waits in the kernel into memory, which is bounded, without looking at it: cheap, to be called often while something
 * else is done, so that the kernel's queue does not overflow. */
int watch_gather(struct watch *w, struct err *e);
/* Tells what was gathered and what waits, until there is nothing, or until *stop. */
int watch_tell(struct watch *w, const bool *stop, struct err *e);
/* Sends a marker through the queue; hear.seen is called when everything before it was told. One at a time. */
int watch_mark(struct watch *w, struct err *e);
/* Are all paths and filesystems still those that are watched? What is not is told as lost, and watched anew. To be called when
 * something was mounted, and before a batch is written. What tells nothing at all (another machine's filesystem) is lost every
 * time. */
int watch_check(struct watch *w, struct err *e);

/* A directory that may be there under several paths (a bind mount). */
struct watch_where {
	/* path: absolute; fd: O_PATH, borrowed. */
	int (*at)(void *ctx, struct span path, int fd, struct err *e);
	void *ctx;
};
enum { WATCH_GONE = 0, WATCH_FOUND = 1, WATCH_LOST = 2 };
/* WATCH_FOUND: `at` was called for each place; WATCH_GONE: it is nowhere any more; WATCH_LOST: it cannot be found, hear.lost was
 * called; -1. */
int watch_find(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e);
/* Number of directories so far: they are 1 to this. */
uint32_t watch_dirs(const struct watch *w);
/* The name still leads to this object, and no other name does. Unknown objects: false when there are others, or when nothing is
 * under the name. */
bool watch_is_only_name(struct watch *w, int dirfd, struct span name, uint32_t obj);
/* Which object it is: 1; 0: it is gone; 2: cannot be found out. */
int watch_object(struct watch *w, uint32_t obj, struct r_inode *out);
/* Bytes that numbers take. */
size_t watch_size(const struct watch *w);
/* All numbers are free again. */
void watch_forget(struct watch *w);
/* Closes what watch_find keeps open for the next one. */
void watch_rest(struct watch *w);

/* ---- for the sources ---- */

struct watch_source {
	const char *name;
	int (*open)(struct watch *w, struct err *e); /* *w->data is made; ERR_SYSTEM with EPERM or ENOSYS: try another source */
	void (*close)(struct watch *w);
	void (*describe)(const struct watch *w, struct buf *text);
	size_t (*fds)(const struct watch *w, struct pollfd *p);
	int (*gather)(struct watch *w, struct err *e);
	int (*tell)(struct watch *w, const bool *stop, struct err *e);
	int (*mark)(struct watch *w, struct err *e);
	int (*check)(struct watch *w, struct err *e);
	int (*find)(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e);
	uint32_t (*dirs)(const struct watch *w);
	bool (*is_only_name)(struct watch *w, int dirfd, struct span name, uint32_t obj);
	int (*object)(struct watch *w, uint32_t obj, struct r_inode *out);
	size_t (*size)(const struct watch *w);
	void (*forget)(struct watch *w);
	void (*rest)(struct watch *w);
};
extern const struct watch_source fanotify_source, fanotify_dirs_source, inotify_source;

/* Reads what waits at a source's descriptor behind the events in backlog, of which those before *at were told; until so many bytes are to
 * be told, or a little more. */
int watch_read(int fd, struct buf *backlog, size_t *at, size_t max, struct err *e);

/* Every directory at and below top (absolute), on its own mount, each before what is in it is listed, so that what appears meanwhile
 * is either listed or told. `visit` gets an open descriptor and the path below top: 1 go on below, 0 not, -1 stop.
 * 0 also when top is not there, or no directory. */
int watch_descend(struct watch *w, const char *top, int (*visit)(void *ctx, int fd, struct span rel, struct err *e), void *ctx,
	struct err *e);
/* This directory cannot be watched: it is lost now and at every check. */
void watch_blind(struct watch *w, const char *path);
/* Is this path in a watched tree, and not ours? */
bool watch_is_inside(const struct watch *w, struct span path);
/* Filesystems whose content changes without an event here: those of other machines, and the kernel's own. */
bool watch_is_mute(const char *type);

#endif
