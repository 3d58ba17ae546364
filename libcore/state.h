/*
 * state: the source's memory for one destination: a directory with the base's catalog and the image that is being sent.
 *
 *   repl-state       marker: "repl-state 1\n" and the instance, 32 hex digits
 *   lock             flock(2)ed by whoever changes anything; holds the process number as text
 *   catalog          the base: the image that the replica is known to hold
 *   image            the image that the running pipeline sends: an image stream of IMAGE and MEMBER records
 *   seq              the number of the last image, decimal
 *   journal          where a recorder keeps its journal: an absolute path; not there: no recorder is asked
 *   plans, next, tip, after
 *                    what waits for an answer: pending.h
 *   follow           flock(2)ed by who follows the trees: nobody else takes images meanwhile
 *
 * Every file is replaced whole (temporary, fsync, rename, fsync of the directory). Losing the directory costs one full
 * comparison, never data.
 *
 * May use: catalog, file, attr, image, head, lock, err; makes system calls.
 */
#ifndef REPL_STATE_H
#define REPL_STATE_H

#include "catalog.h"

struct head;
struct provider_run;
struct r_image;

/* When a catalog in it is damaged. */
#define STATE_ADVICE "repl-snap --adopt takes what the replica holds in its place, see repl(7), \"A catalog is damaged\""

struct state {
	int fd;             /* the directory */
	int lock_fd;        /* -1: not held */
	int follow_fd;      /* the same */
	char *path;
	uint64_t dev, ino;  /* of the directory, so that a scan leaves it out */
	uint8_t instance[16];
	const struct provider_run *run; /* how providers' programs are run, each its own; borrowed. NULL: not at all */
};
#define STATE_NONE ((struct state){.fd = -1, .lock_fd = -1, .follow_fd = -1})
/* create: makes the directory (0700) and the marker when missing; else a missing one is ERR_USAGE with advice. A non-empty
 * directory without the marker is refused. */
int state_open(struct state *s, const char *path, bool create, struct err *e);
/* ERR_BUSY naming the holder's process number. wait: seconds to wait for it (0: none). */
int state_lock(struct state *s, unsigned wait, struct err *e);
void state_unlock(struct state *s);
/* From now on until state_close (or state_unfollow) only we take images: the same with a lock of its own, without waiting. */
int state_follow(struct state *s, struct err *e);
void state_unfollow(struct state *s);
void state_close(struct state *s);
/* Owned path of a file in it. */
char *state_file(const struct state *s, const char *name);
bool state_has(const struct state *s, const char *name);
/* One that is not there is forgotten already. Durable with the next fsync of the directory. */
int state_forget(const struct state *s, const char *name, struct err *e);
/* The base; made empty when it is not there yet. Owned. */
int state_catalog(const struct state *s, enum catalog_mode mode, struct catalog **c, struct err *e);
/* The number of an image; 0: it is not of this state, such as one that was taken from a replica, whose own number may be one that we
 * give as well. */
uint64_t state_number_of(const struct state *s, const struct r_image *stamps);
/* What the base is: its id and its number, as above. */
int state_base(const struct state *s, struct digest *id, uint64_t *seq, struct err *e);
/* The number of the last image; 0: none yet. */
int state_seq(const struct state *s, uint64_t *seq, struct err *e);
/* The next number, written to seq durably. */
int state_next_seq(struct state *s, uint64_t *seq, struct err *e);
/* The directory of a recorder's journal that this state uses; NULL when there is none. Owned. */
int state_journal(const struct state *s, char **path, struct err *e);
/* From now on this one, which need not be there yet; "none": none. wait: seconds for the lock, which is held only meanwhile. Durable
 * when it returns. */
int state_use_journal(struct state *s, const char *path, unsigned wait, struct err *e);
int state_save_image(struct state *s, const struct head *h, struct err *e);
/* ERR_USAGE "run repl-snap first" when there is none. */
int state_load_image(const struct state *s, struct head *h, struct err *e);

#endif
