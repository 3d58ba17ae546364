/*
 * inotify: the event source that needs no privilege; see watch.h. It keeps the tree of directories in memory.
 */
#ifndef REPL_INOTIFY_H
#define REPL_INOTIFY_H

#include "watch.h"

#endif
