/*
 * history: the images that a replica can go back to.
 *
 * .repl/history/N-ID is the undo of a commit: the delta from the image of that commit to the one before it, whose id the name
 * begins with. N counts commits. A way back is a chain of them; going back makes undos of its own, so a way leads forward again.
 * With ".way" behind the name it is only a step to older images. Where the replica is a btrfs subvolume it is a snapshot instead, a
 * directory with the whole image and its catalog, read-only.
 *
 * May use: replica, catalog, image, input, stream, subvol, err.
 */
#ifndef REPL_HISTORY_H
#define REPL_HISTORY_H

#include "record.h"
#include "replica.h"

struct history_entry {
	uint64_t n;
	char name[64];            /* in .repl/history */
	bool is_way;              /* no image to go back to, only a step */
	bool is_snapshot;         /* can be gone to from any image; `from` is zero */
	struct digest from, to;   /* the image it starts at; the one it makes */
	struct r_image stamps;    /* of `to`; spans point into store */
	struct buf store;
	uint64_t bytes;           /* on disk */
};
struct history {
	struct history_entry *v;  /* the newest first */
	size_t n;
};
int history_load(struct history *h, const struct replica *r, struct err *e);
void history_free(struct history *h);

/* .repl/undo becomes the newest entry, if it is there. Not durable before the control directory is synced. */
int history_add(const struct replica *r, struct err *e);

enum { KEEP_HOURS, KEEP_DAYS, KEEP_WEEKS, KEEP_MONTHS, KEEP_YEARS, KEEP_TIERS };
/* What to keep: the newest `count` images, and the newest of each of the last so many hours, days, weeks, months (of 31 days) and
 * years; {0} keeps nothing. */
struct history_keep {
	uint64_t count, tier[KEEP_TIERS];
};
/* "N", or tiers as in 24h,7d,4w,12m, or both. false: neither. */
bool history_parse_keep(struct history_keep *k, const char *text);
bool history_keeps(const struct history_keep *k);
/* Removes what is older than all that is kept, the oldest first. What lies between stays as a step on the way to older images, but
 * cannot be gone back to any more. An image counts once, however often it was gone back to. now, now_s: the image in place, and its
 * time. */
int history_prune(const struct replica *r, const struct history_keep *k, const struct digest *now, int64_t now_s, struct err *e);

/* An image named by a person: the beginning of its id (at least 4 digits), a bookmark, -N, or a time (then the newest that is not
 * younger). now: of the image in place. ERR_USAGE when nothing or more than one fits, ERR_REFUSED when nothing leads there. */
int history_find(const struct history *h, const struct digest *now, const struct r_image *stamps, const char *which, int64_t time_ns,
	struct digest *id, struct err *e);
/* The entries to apply, in order, from image `from` to image `to`; *n 0 when they are the same. Owned; NULL: no way. */
size_t *history_way(const struct history *h, const struct digest *from, const struct digest *to, size_t *n);
/* The distinct images that can be reached, the newest first and without `now`: indexes into h->v. Owned. */
size_t *history_images(const struct history *h, const struct digest *now, size_t *n);

#endif
