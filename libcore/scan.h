/*
 * scan: what differs, by name and stat, between a base catalog and a tree as it is now.
 *
 * Objects are matched by inode and birth time where the base knows them, else by name and type; names are then compared
 * directory by directory, so a renamed directory is one difference and what is below it stays matched. The result is a sequence
 * of items in the target's depth-first order, plus the base names that are gone. Content is not read here: an item that *may*
 * have changed is "suspect".
 *
 * May use: walk, catalog, filter, attr, path, record, err. Memory: the way down, and 40 bytes for each file with several links.
 */
#ifndef REPL_SCAN_H
#define REPL_SCAN_H

#include "catalog.h"
#include "filter.h"
#include "walk.h"

enum scan_how {
	SCAN_SAME,    /* the base object at the same name, nothing to look at */
	SCAN_SUSPECT, /* the base object at the same name; its content or metadata may differ */
	SCAN_ATTACH,  /* a base object under a name that it did not have; may differ as well */
	SCAN_NEW,     /* no base object */
};
enum scan_kind { SCAN_ENTER, SCAN_LEAVE, SCAN_ENTRY };
struct scan_item {
	enum scan_kind kind; /* ENTER and LEAVE for directories */
	enum scan_how how;
	uint64_t base;       /* object of the base; 0: none */
	struct span name, path;
	struct attr *attr;   /* attr_stat; borrowed */
	unsigned root;
	uint64_t link;       /* files with several names: the same number for the same object, from 1; else 0 */
	uint64_t prior;      /* what the base had under this name instead; 0: nothing */
	bool replaced;       /* in: the directory is another inode than the base's, names decide; out: so is this object */
	bool again;          /* a further name of an object that this scan has reported */
	bool is_mount;       /* directory of another filesystem, not entered */
	bool unsure;         /* directory whose inside was not all seen, though it was to be; at LEAVE this is final */
};
struct scan {
	struct catalog *base; /* borrowed */
	const struct filter *filter; /* may be NULL */
	uint64_t prune_dev, prune_ino; /* a directory to leave out (the state directory); 0: none */
	const uint64_t *root_dev;      /* st_dev of each root; borrowed */
	unsigned threads;
	bool one_file_system;
	bool checksum;        /* every file is suspect */
	bool is_group;        /* nothing moves from one root to another: each may have a filesystem of its own at the other end */
	bool by_name;         /* what has the base's name and type is the base's object, whatever the inodes say */
	const char *tmpdir;
	const struct warn *warn;
	int (*item)(void *ctx, const struct scan_item *it, struct err *e);
	int (*gone)(void *ctx, uint64_t dir, struct span name, uint64_t no, struct err *e);
	/* A name that a change stream calls wanted or stray, before it is looked at. May be NULL. */
	int (*wanted)(void *ctx, uint64_t dir, const struct r_changed *c, struct err *e);
	/* After an ENTER: true leaves the inside out (no gone items for it either). May be NULL. */
	bool (*skip)(void *ctx, const struct scan_item *it);
	/* Asked about an object that neither inode nor name tells: a base object of the same type that it may be, or 0. May be
	 * NULL. */
	uint64_t (*guess)(void *ctx, const struct attr *a);
	void *ctx;
	uint64_t entries; /* out: seen */
	uint64_t sockets; /* out: left out */
	/* private */
	struct scan_links *links;
	struct buf claimed; /* a bit for each base object that was met */
};
/* Whole roots. A single root named "" is the image's root; else the roots (sorted by name) stand below a root directory that no
 * filesystem has. */
int scan_tree(struct scan *s, const struct walk_root *roots, size_t n, struct err *e);
/* The root's own attributes when there are named members: mode 0755, owner 0, mtime 0. */
void scan_group_attr(struct attr *a);
/* The inside of one directory: fd open, at path in the target, `dir` as it was classified (root, base, replaced). *unsure becomes
 * true when not all of it could be seen. */
int scan_below(struct scan *s, int fd, const struct scan_item *dir, struct span path, bool *unsure, struct err *e);
/* One name of a directory (base object dir or 0), statted by the caller into a: fills it. When the base has another object under
 * that name, reports it gone. For directories the caller reports ENTER and LEAVE itself. A mount keeps what the base has under its
 * name, which it hides. */
int scan_classify(struct scan *s, uint64_t dir, unsigned root, struct scan_item *it, struct err *e);
void scan_free(struct scan *s);

/* hint.dev as catalogs keep it: the member's number when the object is on its root's filesystem (device numbers change with
 * every boot), else the device with the top bit set. */
uint64_t scan_dev(uint64_t dev, uint64_t root_dev, unsigned root);
/* The stat says that nothing changed since the base's hint was taken. */
bool scan_unchanged(const struct object *b, const struct attr *a);

#endif
