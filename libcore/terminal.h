/*
 * terminal: lines on standard error, whole ones, from any thread; and the line of progress that comes and goes there.
 *
 * What is printed has its control bytes escaped once more, whoever made the text. Prints, on standard error only. USR1
 * asks for one line of progress.
 * May use: clock, bytes.
 */
#ifndef REPL_TERMINAL_H
#define REPL_TERMINAL_H

#include <pthread.h>
#include "bytes.h"

struct terminal {
	const char *prog; /* borrowed: "repl-diff" */
	bool is_tty;      /* standard error is a terminal */
	/* private */
	pthread_mutex_t lock;
	bool is_line_open;    /* a progress line without its end is on it */
	uint64_t began, last; /* clock of progress, ns */
};
/* Valid between these two. */
void terminal_start(struct terminal *t, const char *prog);
void terminal_free(struct terminal *t);

/* "PROG: text" and a newline. */
void terminal_line(struct terminal *t, const char *text);
/* The line of progress goes away. */
void terminal_wipe(struct terminal *t);

struct terminal_progress {
	uint64_t done, total; /* bytes; total 0: unknown */
	uint64_t items;       /* 0: not shown */
	const char *what;
};
/* One line at most every 200 ms on a terminal, 10 s else, and none unless is_shown; or one at once when USR1 came. Cheap
 * to call often. */
void terminal_progress(struct terminal *t, bool is_shown, const struct terminal_progress *p);

#endif
