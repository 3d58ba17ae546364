/*
 * plan: a delta without its content, read as often as landing needs it, between the two images that it connects.
 *
 * Objects have the same numbers in both catalogs, as the target's began as the base's. The target's is either a transaction under
 * way on the replica's own catalog or a private copy of it.
 *
 * May use: replica, image, path, input, err.
 */
#ifndef REPL_PLAN_H
#define REPL_PLAN_H

#include "image.h"
#include "path.h"
#include "replica.h"

struct plan {
	struct replica *r;     /* borrowed; r->cat shows the base */
	int fd;                /* owned; the plan's records */
	struct catalog *next;  /* the target; r->cat itself when the change is small */
	struct image_loader loader;
	struct path_cache *base_dirs, *dirs; /* directories by their path in the base, in the target */
	const struct room *room; /* of what plan_base_dir, plan_dir or plan_find_room were asked for last */
	struct buf path;       /* scratch of plan_base_path and plan_dir */
};
/* What the plan says about one object, when it has said all of it. */
struct plan_object {
	uint64_t no;           /* in the target's catalog */
	uint64_t staged;       /* number of its content in stage/; 0: it has none */
	bool is_new, has_meta;
	bool has_hint;         /* it was given all its metadata when it was staged */
	uint64_t parent;       /* of what is new, but the root: the directory that it was made in, */
	char name[REC_NAME_MAX + 1]; /* and its first name, which is one in the target */
};
/* NULL members are not called. The first that is not 0 ends the walk and is returned. */
struct plan_visit {
	int (*detach)(void *ctx, const struct r_base *b, struct err *e);
	int (*attach)(void *ctx, const struct r_attach *a, struct err *e);
	int (*object)(void *ctx, const struct plan_object *o, struct err *e);
	int (*record)(void *ctx, const struct record *rec, struct err *e); /* every record, before what follows from it */
	void *ctx;
};

/* Opens the file `name` of the control directory. */
int plan_open(struct plan *p, struct replica *r, const char *name, struct err *e);
/* No plan at all: the image that the replica holds is base and target. */
void plan_hold(struct plan *p, struct replica *r);
/* The ids that it leads from and to, as DELTA and END give them. */
int plan_promise(struct plan *p, struct digest *base, struct digest *id, struct err *e);
/* Loads it into the target's catalog; id: what came out. ERR_MISMATCH, ERR_STREAM. */
int plan_load(struct plan *p, struct digest *id, struct err *e);
/* The same into a catalog that the caller has. */
int plan_load_into(struct plan *p, struct catalog *next, struct digest *id, struct err *e);
int plan_walk(struct plan *p, const struct plan_visit *v, struct err *e);
/* Drops what was loaded. */
void plan_close(struct plan *p);
/* Makes the target's catalog the replica's, durable. */
int plan_commit(struct plan *p, struct err *e);

/* Reads in the base between these two. Only the replica's own catalog knows both images. */
void plan_see_base(const struct plan *p, bool base);
/* Puts the base's path of a directory plus name (may be empty) into p->path. */
int plan_base_path(struct plan *p, uint64_t dir, struct span name, struct err *e);
/* The open directory of that path; borrowed from base_dirs. -1 with why->sys ENOENT when it is gone. */
int plan_base_dir(struct plan *p, uint64_t dir, struct err *e);
/* The same in the target. */
int plan_dir(struct plan *p, uint64_t dir, struct err *e);
/* p->room becomes that of an object of the target. */
int plan_find_room(struct plan *p, uint64_t no, struct err *e);

#endif
