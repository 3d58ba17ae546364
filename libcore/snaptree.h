/*
 * snaptree: the provider whose snapshots are directory trees of clones (FICLONE of ioctl_ficlone(2)), which share their content with
 * the files that they were made of.
 *
 *   ROOT/.repl/images/INSTANCE-SEQ/   the same names, types, content and metadata as ROOT
 *
 * A clone is of one instant: the kernel lets nobody write to the file meanwhile. The tree is not: a file is what it was when its turn
 * came, and a name that goes before that is left out. Where a directory gives way to another one before it was read all is done again, a few
 * times. Left out are other filesystems, sockets, and the state directory. What cannot be
 * kept as it is, such as the owner by somebody who is not root, is an error: the image would say that it had changed.
 *
 * Of a volume it is the directory that its content lies in, as a file, and in it nothing but a clone of that:
 *
 *   DIR/.repl/images/INSTANCE-SEQ/FILE
 *
 * Inode numbers and times of change are the clones' own, so they say nothing about who was who in the base: names do.
 *
 * May use: provider, walk, attr, meta, path, entry, control, numbers, bytes, err; makes system calls.
 */
#ifndef REPL_SNAPTREE_H
#define REPL_SNAPTREE_H

#include "provider.h"

extern const struct provider snaptree_provider;

#endif
