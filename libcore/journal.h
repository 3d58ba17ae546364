/*
 * journal: what a recorder saw, on disk: a directory of batches, and of how far each consumer has read them.
 *
 *   journal                 a change stream without changes: its CURSOR has the journal's uuid, its MEMBERs are the recorded paths
 *   lock                    flock(2)ed by the recorder; holds the process number as text
 *   socket                  the recorder's
 *   batches/FIRST-LAST.repl change streams of absolute names (batches.h); a new batch has FIRST = LAST
 *   consumers/NAME          "UUID SEQ\n": needs only what is behind batch SEQ of that journal. NAME: 32 hex digits
 *
 * Each start of a recorder begins a new journal: nothing that an earlier one wrote is believed. So nothing is synced: after a
 * crash no recorder runs, and what it left counts for nothing. Whatever is wrong with a journal costs a reader one comparison:
 * it is told so in one phrase, and stops for nothing else.
 *
 * A reader holds flock(2) shared on batches while it opens files there; who removes or joins any holds it alone.
 *
 * May use: batches, merge, changes, sink, stream, file, err; makes system calls.
 */
#ifndef REPL_JOURNAL_H
#define REPL_JOURNAL_H

#include "changes.h"
#include "sink.h"

#define JOURNAL_REASON 256u

struct journal {
	int dir, batches, consumers; /* -1: closed */
	int lock;                    /* -1: a reader */
	char *path;
	uint8_t uuid[16];
	uint64_t last;               /* of a recorder: the number of the last batch; 0: none */
	char **roots;                /* the recorded paths */
	size_t n_roots;
	/* What journal_tend found and did last. */
	struct {
		uint64_t files, bytes;   /* batches that are left */
		uint64_t consumers, slowest; /* those of this journal; the last batch that all of them have read */
		uint64_t trimmed, joined, dropped; /* batches that nobody needed any more, that were joined, that were too much */
	} tended;
};
#define JOURNAL_NONE ((struct journal){.dir = -1, .batches = -1, .consumers = -1, .lock = -1})

/* A recorder begins: makes the directory or takes it over, locks it until journal_close, removes what an earlier one left. The
 * roots are canonical (realpath). ERR_BUSY names the process that records there; ERR_USAGE: it is something else. j is
 * JOURNAL_NONE before. */
int journal_create(struct journal *j, const char *path, const char *const *roots, size_t n, struct err *e);
/* A reader. False: there is none, or it is damaged; reason says so in one phrase. j is JOURNAL_NONE before. */
bool journal_open(struct journal *j, const char *path, char reason[JOURNAL_REASON]);
void journal_close(struct journal *j);

/* One batch that is being written. {.fd = -1} is none. */
struct journal_batch {
	int fd;
	struct sink sink;
	struct stream_out stream;
	struct changes_out out; /* stands in '/': names come in order, depth first (changes.h) */
	uint64_t seq;           /* its number */
};
/* One at a time. */
int journal_begin_batch(struct journal *j, struct journal_batch *b, int64_t time_ns, struct err *e);
/* Appears whole or not at all; j->last is its number then. b is free afterwards, also on failure. */
int journal_end_batch(struct journal *j, struct journal_batch *b, struct err *e);
/* Leaves nothing of it. */
void journal_drop_batch(struct journal *j, struct journal_batch *b);

/* Removes the batches that all consumers have read (none, while there are no consumers); joins neighbours that no consumer's
 * place lies between when there are many; above limit bytes (0: none) removes the oldest ones, which readers find out. Does
 * nothing while a reader opens batches: 0, 1 when it did something, -1. May run at the same time as batches are written. */
int journal_tend(struct journal *j, uint64_t limit, struct err *e);

/* Where this consumer stands. */
int journal_consumer_set(struct journal *j, const char name[33], const uint8_t uuid[16], uint64_t seq, struct err *e);
int journal_consumer_drop(struct journal *j, const char name[33], struct err *e);

/* What changed in the trees of these members behind batch `after`, up to `upto` at least, as names below the members (or as
 * absolute names when there are none: then everything there is, whatever was recorded). out has not been entered; nothing is
 * written to it before all batches were found whole.
 * 1: written; 0: it cannot tell, reason says why in one phrase, and nothing was written; -1: writing failed. */
int journal_list(struct journal *j, const uint8_t uuid[16], uint64_t after, uint64_t upto, const struct r_member *members,
	size_t n, struct changes_out *out, char reason[JOURNAL_REASON], struct err *e);
/* The batches that are there: *after and *upto to list them all. False: reason. */
bool journal_range(struct journal *j, uint64_t *after, uint64_t *upto, char reason[JOURNAL_REASON]);

#endif
