/*
 * since: what may have changed since the base, as a recorder knows it.
 *
 * The recorder says what names it heard of. That becomes whole for this base with what it cannot know: the other names of objects
 * that have several, by which they may not be named, and what could not be taken the last time. Where anything is in doubt there
 * is no list, and a reason: then everything is compared.
 *
 * Memory: the names that are added. May use: catalog, image, head, named, walk, journal, merge, tap, tape, path, attr, err.
 */
#ifndef REPL_SINCE_H
#define REPL_SINCE_H

#include "head.h"
#include "journal.h"
#include "named.h"
#include "tap.h"
#include "tape.h"

struct since { /* {.j = JOURNAL_NONE}; since_free */
	/* settings; borrowed */
	struct catalog *base;          /* may be empty: then there is no list */
	const struct head *head;       /* of the image that the changes lead to */
	const struct walk_root *roots; /* of its members */
	const char *journal;           /* the recorder's directory */
	const uint8_t *instance;       /* 16 bytes: who we are to the recorder */
	const struct r_cursor *keeps;  /* what the recorder must keep for us when that is more than is asked for; may be NULL */
	uint64_t cut_timeout_ms;
	const char *tmpdir;
	/* Below this path, as far as the image goes, the recorder cannot tell: empty for everything. May be NULL. */
	void (*gap)(void *ctx, struct span path, struct span reason);
	void *ctx;
	/* out */
	bool has_cursor;
	struct r_cursor cursor;        /* from where on the next base needs a list; without a consumer */
	char reason[JOURNAL_REASON];   /* why there is no list */
	uint64_t names;                /* in the list */
	/* private */
	struct journal j;
	struct tap_cut cut;
	struct r_cursor from;
	struct named named;
	struct buf path;
	struct since_frame *frames;
	size_t n, cap;
};
/* Asks the recorder how far it is: before anything of the trees is looked at. 1; 0: no answer, or no list can be had; -1. */
int since_ask(struct since *s, struct err *e);
/* After a 1: the list, open at its first record, as repl-diff takes it. 1; 0: there is none; -1. */
int since_list(struct since *s, struct tape *list, struct err *e);
void since_free(struct since *s);

#endif
