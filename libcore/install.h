/*
 * install: puts one object of a plan's target in its place: content, names, metadata. All of it can be repeated.
 *
 * Directories on the way are opened up, and noted as touched: who goes through the plan gives them their metadata last.
 *
 * May use: plan, freeing, redo, where, owners, entry, image, meta, attr, inode, path, err.
 */
#ifndef REPL_INSTALL_H
#define REPL_INSTALL_H

#include "freeing.h"
#include "meta.h"
#include "owners.h"
#include "plan.h"

struct install {
	struct meta_policy policy;
	const struct warn *warn;
	const struct buf *doubtful; /* bits: objects whose metadata may have been changed here (edits_find); NULL: all may */
	struct buf touched;      /* u64 numbers of directories whose entries changed, with repeats */
	struct owners owners;
	struct buf whole;        /* bits: new directories that stand with what was staged in them */
	struct buf renewed;      /* bits: objects of the base for which another file is staged: the old one does not move with its name */
	struct plan *plan;
	/* private */
	uint64_t last_touched, last_entered, n_displaced;
	struct freeing *freeing;
	struct buf label;
	struct install_stood {   /* INSTALL_STOOD rows, by object number: a name that it has by now */
		uint64_t no, dir;
		char name[REC_NAME_MAX + 1];
	} *stood;
};
#define INSTALL_STOOD 256u
/* rules are copied. plan is borrowed and loaded. */
void install_start(struct install *p, struct plan *plan, const struct owner_rule *rules, size_t n);
void install_free(struct install *p);

/* ERR_SYSTEM with errno: cannot <what> 'name' in the replica. */
int install_fail(struct install *p, const char *what, const char *name, struct err *e);
/* Times and locks of this directory are restored in the end. */
void install_touch(struct install *p, uint64_t dir);
/* The same of one that is open as fd, and a name in it changes now: what keeps us from that goes. */
void install_enter(struct install *p, uint64_t dir, int fd);
/* The name in slots/ of the object with this number. */
void install_slot(char out[32], uint64_t no);
/* What was decided must come to an end, whatever somebody removes from the replica meanwhile: of what is not there any more, -1 and
 * ENOENT, this makes a warning, kind "edited", and 0. no: the object. Else rc: what stands in the way can be taken out of it. */
int install_lost(struct install *p, uint64_t no, int rc, struct err *e);
/* The link that stands in the replica for a member that is elsewhere. */
int install_link(struct install *p, const struct where_row *row, struct err *e);
/* As entry_remove. What it was is freed in the background. */
int install_remove(struct install *p, int dirfd, const char *name);
/* Moves what has no business under a name into a slot of its own, where it is removed in the end. 1: there is nothing. */
int install_displace(struct install *p, int dirfd, const char *name, struct err *e);

/* Everything about an object but its directory's times; of a directory nothing yet. */
int install_object(struct install *p, const struct plan_object *po, struct err *e);
/* An object and the name that it is reached by while it is worked on. */
struct install_target {
	struct object o;
	uint64_t dir;
	char name[256];
};
/* The name of t->o that stands already, or the last one: others of its names may be attached later in the plan. */
int install_find_name(struct install *p, struct install_target *t, struct err *e);
/* Metadata of what stands in its place. */
int install_restore(struct install *p, const struct install_target *t, struct err *e);
/* Its stat as it is now is how it is known. */
int install_hint(struct install *p, struct object *o, int dirfd, const char *name, struct err *e);
/* A link or a node under this name, in the place of whatever is there. 1: it cannot be made here, which was said. */
int install_missing(struct install *p, int dirfd, const char *name, const struct object *o, struct err *e);
/* An errno of link(2) that stays: too many names, two projects, or no such thing as hard links. */
bool install_cannot_link(int sys);
/* Then, where there are none, a file of its own with what the object has. Positive, errno as it was: no. */
int install_copy(struct install *p, const struct object *o, int from_dir, const char *from, int to_dir, const char *name, struct err *e);
/* Then the name is a loss: what was decided must come to an end. */
int install_not_linked(struct install *p, uint64_t no, int sys, struct err *e);
/* The metadata of the directory fd, after all that is in it. */
int install_dir(struct install *p, int fd, struct object *o, struct err *e);

/* An object of the image that stands in its place already, under this name of dirfd (NULL: dirfd itself): its metadata once
 * more, for who may set more of it now; a node or link that could not be made is made. What was edited is a warning,
 * kind "edited". */
int install_again(struct install *p, int dirfd, const char *name, struct object *o, struct err *e);

#endif
