/*
 * snapbtrfs: the provider whose snapshots are read-only btrfs snapshots of subvolumes.
 *
 * May use: provider, control, subvol, bytes, err; makes system calls.
 */
#ifndef REPL_SNAPBTRFS_H
#define REPL_SNAPBTRFS_H

#include "provider.h"

extern const struct provider snapbtrfs_provider;

#endif
