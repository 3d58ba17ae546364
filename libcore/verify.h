/*
 * verify: reads a replica again, every byte of it, and names what is not as its catalog says.
 *
 * Files are read on several threads; what is found comes out in the order of the names, whatever they do. A change stream of
 * wanted and stray names can be written on the way: with it the source mends exactly that (repl(7), "Mending a replica").
 *
 * What the stat says since the object was placed tells an edit from rot, and a metadata difference that somebody made from one
 * that was there from the start, because this filesystem or user could not keep it: that was acknowledged as a loss then.
 *
 * May use: land, replica, fit, scan, changes, content, stream, pool, err. Changes nothing but that a crash is recovered from first.
 */
#ifndef REPL_VERIFY_H
#define REPL_VERIFY_H

#include "land.h"
#include "stream.h"

enum verify_kind {
	VERIFY_SAME,
	VERIFY_EDITED,   /* content or type, and the stat says so */
	VERIFY_ROT,      /* content; the stat says that nothing changed it */
	VERIFY_MISSING,
	VERIFY_STRAY,    /* a name that the catalog does not know */
	VERIFY_METADATA,
	VERIFY_KINDS
};
const char *verify_kind_name(enum verify_kind k); /* "edited" */

struct verify {
	const char *path;          /* the replica */
	unsigned threads;          /* that read files; 0: one per processor; 1: none but the caller's */
	bool any_owner;            /* owners are not as the image says on purpose */
	struct land land;          /* settings for finishing what a crash left; r and warn are set here */
	struct stream_out *wanted; /* the change stream; NULL: none */
	const char *tmpdir;
	const struct warn *warn;   /* "unreadable": could not be looked at, which says nothing about it */
	/* One line a difference. path is empty for the root. */
	void (*differs)(void *ctx, enum verify_kind k, struct span path, const char *detail);
	void (*progress)(void *ctx, uint64_t bytes, uint64_t entries);
	void (*note)(void *ctx, const char *text); /* what happened, for -v */
	void *ctx;
	/* out */
	uint64_t entries, files, bytes;
	uint64_t kept_otherwise;   /* metadata that is not as the image says but as it was placed */
	uint64_t counts[VERIFY_KINDS];
	bool differs_any;
};
/* ERR_REFUSED: no replica; ERR_BUSY. */
int verify_run(struct verify *v, struct err *e);

#endif
