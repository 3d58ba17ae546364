/*
 * attach: names that objects get in another place, further names, and what is left to do after the last of them. All of it can be
 * repeated.
 *
 * May use: install, entry, plan, inode, err.
 */
#ifndef REPL_ATTACH_H
#define REPL_ATTACH_H

#include "install.h"

/* A name that is attached to an object, unless that is a directory: from its slot, or as a link. */
int attach_name(struct install *p, uint64_t no, uint64_t parent, struct span to, struct err *e);
/* A file has all its names. One that is immutable was opened up to be moved, or to get or lose a name: it is closed again; and the ctime
 * of one with several moved with each of them. */
int attach_settle(struct install *p, uint64_t no, struct err *e);

#endif
