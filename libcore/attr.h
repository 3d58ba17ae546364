/*
 * attr: everything a filesystem remembers about one object, read into a META record and restored from one.
 *
 * May use: record, bytes, err; makes system calls. Each Linux-only call (statx, xattr, FS_IOC_GETFLAGS) lives
 * here. Nothing here follows a symbolic link or resolves more than one path component.
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
 * name "" with AT_EMPTY_PATH semantics when name is NULL: dirfd itself. ERR_SYSTEM. */
int attr_stat(struct attr *a, int dirfd, const char *name, struct err *e);
/* The rest: symlink target, xattrs (all namespaces that the caller may list and read, sorted by name), inode
 * flags (regular files and directories). Call after attr_stat on the same object. For regular files and
 * directories fd must be an open O_RDONLY descriptor; for others fd is the parent's and name is used
 * (through /proc/self/fd/N/name, l*xattr). What cannot be read is a warning, kind "xattr" or "attr". */
int attr_rest(struct attr *a, int fd, const char *name, const struct warn *w, struct err *e);

/* What restoring may do, and what was lost (counted by kind through warn: "owner", "mode", "xattr", "acl",
 * "capability", "attr", "time", "device"). */
struct attr_policy {
	bool no_owner;   /* owner stays; setuid and setgid bits of another owner are dropped (warn "mode") */
	bool no_setuid;  /* no setuid and setgid (directories keep it), no capabilities, no security.* and trusted.*
	                    from the stream; nothing is warned about, it was asked for */
	bool no_devices; /* for who makes nodes; unused here */
	bool numeric; /* always true here: names are mapped before */
	const char *label; /* what messages call the object; NULL: its name */
	const struct warn *warn;
};
/* Restores owner, mode, xattrs (extra ones removed), flags and mtime, in the order that keeps them: clear
 * immutable/append, chown, flags other than i and a, extra xattrs away, plain xattrs, chmod, ACLs, capability, mtime,
 * then i and a. What is right already is not touched. fd: open descriptor of the file or directory, or (symlinks,
 * fifos, devices) -1 with dirfd+name. ERR_SYSTEM only for what is not a loss: EIO, ENOSPC (but not when only the
 * inode's room for xattrs is used up), EROFS, EDQUOT, another type of object under that name. */
int attr_restore(int dirfd, const char *name, int fd, uint8_t type, const struct r_meta *m,
	const struct attr_policy *p, struct err *e);
/* On a new file, before its first byte: the flags that a filesystem takes only while a file is empty (C), or that
 * decide how what is written is kept (c, m). Best effort: attr_restore says what did not stay. */
void attr_early(int fd, const struct r_meta *m);
/* Just the mtime (nanoseconds), without following links. */
int attr_set_mtime(int dirfd, const char *name, const struct r_meta *m, struct err *e);
/* Clears immutable and append-only so that the object can be changed; true when something was cleared. */
bool attr_unlock(int fd);
/* Same metadata: mode, owner, mtime, rdev, attr, target, xattrs. */
bool attr_same(const struct r_meta *a, const struct r_meta *b);

#endif
