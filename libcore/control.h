/*
 * control: the toolkit's own directories in `.repl`, directly below a root of the source.
 *
 * What lies in them is believed, so a directory that somebody else owns, or can put something into, is none of ours.
 *
 * May use: bytes; makes system calls.
 */
#ifndef REPL_CONTROL_H
#define REPL_CONTROL_H

#include <stdbool.h>

/* ROOT/.repl/name, 0700; make: also when it is not there yet, without moving the root's mtime. Owned. -1 with errno: EPERM when it
 * is none of ours. */
int control_open(int root, const char *name, bool make);
/* The same of a name in a directory that is ours. Owned. */
int control_below(int at, const char *name, bool make);
/* Removes it when it is empty. */
void control_drop(int root, const char *name);

#endif
