/*
 * generations: what changed between two snapshots of a btrfs subvolume, from its tree.
 *
 * Each leaf of a tree says in which transaction it was written, and so does each inode in it. The tree search of the kernel leaves out
 * all that is older than the base's snapshot, without reading it: it costs what changed, however much there is, and needs no
 * recorder.
 *
 * Whatever shows in an object's stat, and its content and xattrs, changes its inode with it (fill_inode_item of
 * fs/btrfs/inode.c, Linux 6.18: transid is the transaction that writes it). The list holds all names that such an inode has now; of
 * directories among them also the names that the base had there and that are gone. Where anything is in doubt there is no list, and
 * a reason: then everything is compared.
 *
 * May use: catalog, image, head, named, tape, subvol, path, file, attr, walk (its roots), err; makes system calls (CAP_SYS_ADMIN).
 * Memory: the names of the list, and those of one directory.
 */
#ifndef REPL_GENERATIONS_H
#define REPL_GENERATIONS_H

#include "head.h"
#include "named.h"

struct tape;

struct generations { /* generations_free */
	/* settings; borrowed */
	struct catalog *base;
	const struct head *head;       /* of the image that the changes lead to */
	const struct walk_root *roots; /* that hold it */
	const char *tmpdir;
	/* out */
	char reason[1024];             /* why there is no list; empty: the image is no snapshot */
	uint64_t inodes;               /* that have changed */
	/* private */
	struct named named;
	uint64_t since;                /* transaction of the base's snapshot, in the root at hand */
	unsigned root;
	struct generations_dir *dirs;  /* paths of directories that were looked up */
	struct btrfs_ioctl_search_args_v2 *found;
};
/* The list, which tape then holds, complete and open for reading: 1; 0: there is none; -1. */
int generations_list(struct generations *g, struct tape *list, struct err *e);
void generations_free(struct generations *g);

#endif
