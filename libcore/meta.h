/*
 * meta: gives an object the metadata of a META record.
 *
 * May use: inode, record, bytes, err; makes system calls. Nothing here follows a symbolic link or resolves more than one
 * path component.
 */
#ifndef REPL_META_H
#define REPL_META_H

#include "record.h"

/* What restoring may do, and what was lost (counted by kind through warn: "owner", "mode", "xattr", "acl",
 * "capability", "attr", "time", "device"). */
struct meta_policy {
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
int meta_restore(int dirfd, const char *name, int fd, uint8_t type, const struct r_meta *m,
	const struct meta_policy *p, struct err *e);
/* On a new file, before its first byte: the flags that a filesystem takes only while a file is empty (C), or that
 * decide how what is written is kept (c, m). Best effort: meta_restore says what did not stay. */
void meta_early(int fd, const struct r_meta *m);
/* Owner, mode (without setuid and setgid) and mtime are all that it sets. */
bool meta_is_plain(const struct r_meta *m);
/* What is made in this directory gets neither xattrs nor flags from it. */
bool meta_is_bare(int dirfd);
/* Plain metadata, on a file that was made in a bare directory, after its last byte. Best effort: false, or attr_stat, tells that it is
 * not done. */
bool meta_dress(int fd, const struct r_meta *m);
/* Just the mtime (nanoseconds), without following links. */
int meta_set_mtime(int dirfd, const char *name, const struct r_meta *m, struct err *e);

#endif
