/*
 * path: descriptors below a root, whatever the tree does to its names meanwhile.
 *
 * Every resolution starts at a root descriptor and stays beneath it: openat2 with RESOLVE_BENEATH,
 * RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS, EAGAIN retried, in pieces when the path is longer than PATH_MAX;
 * a component-wise openat(O_NOFOLLOW) walk where openat2 is missing. No symbolic link is ever followed: one on the
 * way is ELOOP.
 *
 * A path that is not relative and clean (empty components, ".", "..", NUL) is ERR_REFUSED.
 *
 * May use: bytes, err, record (names), inode, file; makes system calls.
 */
#ifndef REPL_PATH_H
#define REPL_PATH_H

#include <sys/types.h>
#include "bytes.h"
#include "err.h"

/* Opens the directory `rel` (no leading slash; empty: the root itself) beneath root_fd, any length. -1 and
 * errno-bearing ERR_SYSTEM; e->sys is ENOENT, ENOTDIR, ELOOP… so that callers can tell. Owned descriptor. */
int path_dir(int root_fd, struct span rel, struct err *e);
/* That error says that there is nothing by that way any more, or something else in it. */
bool path_is_gone(int sys);
/* Opens the parent directory of rel and gives the last component (borrowed from rel, as a C string in name[256]). */
int path_parent(int root_fd, struct span rel, char name[256], struct err *e);
/* Opens rel with flags (O_NOFOLLOW, O_NONBLOCK, O_CLOEXEC added; never blocks on a fifo). */
int path_open(int root_fd, struct span rel, int flags, mode_t mode, struct err *e);
/* Opens a single component below dirfd: O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC added. Returns fd or -1 with errno
 * (EINVAL: not a name). */
int path_open_at(int dirfd, const char *name, int flags, mode_t mode);
/* The directory fd is the directory `in`, or below it, mounts or not: 1, 0, -1 with errno. */
int path_is_inside(int fd, int in);
/* Splits at the last slash. */
void path_split(struct span rel, struct span *dir, struct span *name);
/* Appends "/name" (or "name" when b is empty). */
void path_push(struct buf *b, struct span name);
/* Undoes one path_push. */
void path_pop(struct buf *b);

/* A small cache of open directories (at most 64) for depth-first use: path_cached returns a borrowed descriptor of
 * `rel` beneath the root, reusing the deepest cached ancestor. Valid until the next call. path_cache_drop forgets
 * everything at or below rel: needed after a directory was renamed or removed. */
struct path_cache;
struct path_cache *path_cache_new(int root_fd); /* root_fd borrowed */
/* From now on the directory `name` of the root is fd, whatever has that name there. Both borrowed. */
void path_cache_graft(struct path_cache *c, const char *name, int fd);
int path_cached(struct path_cache *c, struct span rel, struct err *e);
void path_cache_drop(struct path_cache *c, struct span rel);
void path_cache_free(struct path_cache **c);

/* Removes the object name below dirfd with everything in it, without following links, however deep; clears immutable
 * flags and modes in the way (of what it removes: dirfd itself must be writable). A mount, or another device, is
 * an error (e->sys EXDEV or EBUSY). Not atomic: after an error part of it is gone. 0 when it is gone (also when it
 * never was). */
int path_remove(int dirfd, const char *name, struct err *e);

#endif
