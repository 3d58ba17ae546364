/*
 * volume: which filesystems live on a volume, an image file or a block device, and are mounted: directly, from its partitions, or by
 * way of loop devices.
 *
 * May use: mounts, bytes, err; reads /sys (sysfs(5)) and /proc.
 */
#ifndef REPL_VOLUME_H
#define REPL_VOLUME_H

#include "bytes.h"
#include "err.h"

/* Makes reads of a block device come from it. The pages in which the kernel remembers what was read of it are not those of the files
 * of a filesystem on it, and do not change when those are written. Nothing is done to a file. */
void volume_fresh(int fd);
/* Where the content of a volume lies as a file: an image file itself, of a loop device what is behind it. *dir: absolute path of the
 * directory, *file: its name there, each may be NULL. The directory, opened; owned. -1: it is no file, or nobody knows where. */
int volume_place(int fd, struct buf *dir, struct buf *file);
/* Calls fn for each loop device: its name and directory in sysfs, and the path of what is behind it. 0, or -1 with errno. */
int volume_loops(void (*fn)(void *ctx, int at, const char *name, const char *backing), void *ctx);
/* Calls fn for each place where a filesystem on this volume is mounted (writable: so that it can be written to), until it fails. -1
 * with its error or our own. */
int volume_mounts(int fd, bool writable, int (*fn)(void *ctx, const char *point, struct err *e), void *ctx, struct err *e);

#endif
