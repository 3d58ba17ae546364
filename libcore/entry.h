/*
 * entry: names in directories come, move and go, whatever modes and flags stand in the way.
 *
 * What is opened up stays so: its metadata is the caller's to put back. Functions that return int return 0, or -1 with
 * errno. May use: inode, attr, meta, file, path; makes system calls.
 */
#ifndef REPL_ENTRY_H
#define REPL_ENTRY_H

/* Immutable and append-only go, and we may write this directory. */
void entry_open_up(int dirfd);
/* Immutable and append-only of what has this name go. */
void entry_unlock(int dirfd, const char *name);
/* renameat(2), also of a directory that we may not write and of an immutable file; and within one filesystem also where that says EXDEV:
 * into a directory with a project of its own (quota), whose number is taken on, and of a directory of overlayfs, name by name (a crash
 * leaves some here and some there; the same call goes on). */
int entry_move(int from_dir, const char *from, int to_dir, const char *to);
/* linkat(2) and unlinkat(2), also of an immutable file. */
int entry_link(int from_dir, const char *from, int to_dir, const char *to);
int entry_remove(int dirfd, const char *name);

#endif
