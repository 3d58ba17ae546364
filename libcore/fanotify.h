/*
 * fanotify: the event source of those who have CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH; see watch.h.
 *
 * Events name a directory by its file handle, which leads to wherever the directory is when a batch is written, however often
 * it was renamed since. One group for each superblock: directory marks on a btrfs subvolume do not go together with anything
 * else in one group (fanotify_mark(2), EXDEV).
 */
#ifndef REPL_FANOTIFY_H
#define REPL_FANOTIFY_H

#include "watch.h"

#endif
