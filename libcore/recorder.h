/*
 * recorder: the daemon that keeps a journal: waits for events, clients and signals, and writes a batch when a cut is asked for or
 * memory is used up.
 *
 * A cut: a marker goes through the event queue; when it comes back, all that happened before the question was asked has been heard.
 * What cannot be known is a gap, and recording goes on.
 *
 * May use: watch, batch, holders, journal, clients, tap, pool, clock, err. Blocks INT, TERM, HUP and USR1 and takes them from a descriptor.
 */
#ifndef REPL_RECORDER_H
#define REPL_RECORDER_H

#include "journal.h"
#include "watch.h"

struct recorder {
	/* settings; borrowed */
	const char *journal;
	const char *const *paths;
	size_t n_paths;
	const char *source;       /* NULL: the best */
	size_t memory;            /* bytes of names that are kept before a batch is written; 0: 8 MiB */
	uint64_t limit;           /* bytes of the journal, above which it forgets; 0: none */
	const char *notify;       /* $NOTIFY_SOCKET; NULL: nobody is told */
	uint64_t watchdog_us;     /* $WATCHDOG_USEC; 0: no sign of life is wanted */
	void (*say)(void *ctx, int level, const char *text); /* level 0: always; 1: -v; 2: -vv */
	const struct warn *warn;
	void *ctx;
	/* out */
	int signal;               /* that ended it */
};
/* Records until INT, TERM or HUP: 0. */
int recorder_run(struct recorder *r, struct err *e);

#endif
