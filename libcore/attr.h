/*
 * attr: everything a filesystem remembers about one object, read into a META record.
 *
 * May use: inode, record, bytes, err; makes system calls. Nothing here follows a symbolic link or resolves more than one
 * path component.
 */
#ifndef REPL_ATTR_H
#define REPL_ATTR_H

#include "record.h"

struct attr {
	uint8_t type;       /* enum obj_type */
	struct r_meta meta; /* spans point into store */
	struct r_hint hint; /* dev, ino, ctime, btime, nlink; flags 0 */
	uint64_t size;      /* regular files: length; block devices: capacity */
	uint64_t blocks512;
	struct buf store;   /* private */
};
void attr_free(struct attr *a);

/* Only statx: type, numbers, times, hint, size; mode, uid, gid, mtime, rdev of meta; no xattrs, flags, target.
 * name NULL: dirfd itself. A block device that is open itself is a volume: as a file of its size, whose stat tells nothing (the
 * hint is empty). ERR_SYSTEM. */
int attr_stat(struct attr *a, int dirfd, const char *name, struct err *e);
/* The rest: symlink target, xattrs (all namespaces that the caller may list and read, sorted by name), inode
 * flags (regular files and directories). Call after attr_stat on the same object. For regular files and
 * directories fd must be an open O_RDONLY descriptor; for others fd is the parent's and name is used
 * (through /proc/self/fd/N/name, l*xattr). What cannot be read is a warning, kind "xattr" or "attr". */
int attr_rest(struct attr *a, int fd, const char *name, const struct warn *w, struct err *e);

/* Its hint as the catalog of a replica keeps it: without the device, and settled where this is its only name. */
struct r_hint attr_settled(const struct attr *a, uint64_t names);

/* Same metadata: mode, owner, mtime, rdev, attr, target, xattrs. */
bool attr_same(const struct r_meta *a, const struct r_meta *b);

#endif
