/*
 * track: says what may have changed since the base: what a recorder heard of where there is one, else what the trees of two
 * snapshots say, else by comparing every stat with the base's hints.
 *
 * The result is a change stream: names in depth-first order, a directory numbered once something inside is named. It may name
 * too much, never too little: what is left out here nobody looks at. No filter therefore; who reads the stream has one.
 *
 * May use: since, generations, state, pending, head, scan, catalog, tape, stream, err.
 */
#ifndef REPL_TRACK_H
#define REPL_TRACK_H

#include "scan.h"
#include "state.h"

struct head;
struct stream_out;

struct track {
	const struct state *state;     /* borrowed */
	const struct head *head; /* the image that the changes lead to */
	const char *file;              /* the catalog in the state directory that they begin at; NULL: the base */
	const struct r_cursor *keeps;  /* as in since.h */
	struct stream_out *out;
	unsigned threads;              /* 0: one per processor */
	const char *tmpdir;
	const char *journal;           /* of the recorder; NULL: there is none */
	uint64_t cut_timeout_ms;       /* that it has to answer */
	const struct warn *warn;
	/* Below this path the recorder cannot tell, and why: it will be compared. Empty: everything. */
	void (*gap)(void *ctx, struct span path, struct span reason);
	void (*progress)(void *ctx, uint64_t entries);
	void *ctx;
	/* out */
	uint64_t entries, changed;
	bool has_base;                 /* false: nothing to compare with, the stream is one gap */
	bool is_recorded;              /* the recorder knew: nothing was looked at */
	bool is_searched;              /* the snapshots' trees knew */
	uint64_t inodes;               /* that have changed in them */
	char no_search[1024];          /* the image is snapshots, and this is why their trees could not be used; else empty */
	char reason[256];              /* there is a recorder's journal, and this is why it could not be used; else empty */
};
/* What the image follows, where that is not the base: sets file and keeps, which *keeps and *store are for. Takes the state's lock. */
int track_begin(struct track *t, struct state *s, unsigned lock_wait, struct r_cursor *keeps, struct buf *store, struct err *e);
/* Writes the whole stream. ERR_MISMATCH when the image belongs to another state directory. */
int track_run(struct track *t, struct err *e);

#endif
