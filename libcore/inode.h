/*
 * inode: the calls for extended attributes and flags of one object, and what their errors mean.
 *
 * May use: record (types of objects), bytes; makes system calls. Each Linux-only call for xattrs and FS_IOC_GETFLAGS lives
 * here. Follows no symbolic link. Functions that return int return 0, or -1 with errno.
 */
#ifndef REPL_INODE_H
#define REPL_INODE_H

#include "bytes.h"

/* Where the xattrs of an object are reached: by descriptor (path empty), or by a path through /proc, because there
 * are no calls that take a directory and a name on the kernels we support. */
struct inode {
	int fd;
	bool follow; /* the path ends in /proc's own link to a descriptor */
	char path[32 + 256];
};
int inode_by_name(struct inode *p, int dirfd, const char *name);

/* All names, each with its NUL, as the kernel gives them. */
int inode_list_xattrs(const struct inode *p, struct buf *names);
/* Sorted pointers into names; the array is owned by the caller. What is no attribute of its own is left out. */
size_t inode_sort_names(const struct buf *names, const char ***out);
/* The value, NULL-safe for empty ones: v->p is always valid on success. */
int inode_get_xattr(const struct inode *p, const char *name, struct buf *v);
int inode_set_xattr(const struct inode *p, const char *name, const void *v, size_t n);
int inode_remove_xattr(const struct inode *p, const char *name);

/* Those of META_ATTR_MASK that are read and set: whose quota something counts to (P, the project) is each filesystem's own matter. */
#define INODE_FLAGS UINT32_C(0x8344fc)
/* Immutable and append-only (FS_IMMUTABLE_FL, FS_APPEND_FL): they keep everything else from changing. */
#define INODE_LOCKS UINT32_C(0x30)
int inode_flags(int fd, uint32_t *flags);
int inode_put_flags(int fd, uint32_t flags);
/* Brings the flags within mask to want, never touching others. *left: those that did not take. */
int inode_change_flags(int fd, uint32_t mask, uint32_t want, uint32_t *left);
/* Clears the locks so that the object can be changed; true when something was cleared. */
bool inode_unlock(int fd);

/* What may keep us from an attribute without anything being broken: the caller is told, and goes on. */
bool inode_is_loss(int sys);
/* This filesystem has no flags: none are set. */
bool inode_has_no_flags(int sys);

/* enum obj_type of an st_mode; OBJ_NONE: none that we know. */
uint8_t inode_type(unsigned mode);
/* Of this type are the objects that can be opened without effects: regular files and directories. */
bool inode_has_fd(uint8_t type);

#define INODE_SHOWN 320
/* A name for a message; errno is left as it was. */
const char *inode_shown(char out[INODE_SHOWN], const char *name);

#endif
