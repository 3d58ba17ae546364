/*
 * cli: what the six programs share of their front door: options, what is said on standard error, where the output goes,
 * and the exit status. The only module that exits or reads the environment; besides it, terminal and output print.
 *
 * A program calls cli_start, cli_options, does its work, and returns cli_finish(). Errors of the engines come
 * up as a struct err; cli prints the one line "repl-x: text" and chooses the status.
 *
 * There is one struct cli in a program: signals have nobody else to turn to.
 * May use: options, policy, output, terminal, store (store_at_work), stream (its version and limits), bytes, err.
 */
#ifndef REPL_CLI_H
#define REPL_CLI_H

#include "options.h"

struct cli {
	const char *prog;      /* "repl-diff" */
	int verbose;           /* -v counted; -1 with -q */
	bool progress;         /* --progress, --no-progress, or else: standard error is a terminal and no -q */
	bool stats;
	bool json;
	const char *output;    /* -o; NULL or "-": standard output */
	bool force;
	const char **args;     /* what is left after the options, NULL-terminated; owned by cli */
	int n_args;
	/* What this run works on, "replica" and its path, borrowed: added to an error of the system that does not name it. */
	struct { const char *what, *path; } about;
	struct warn warn;      /* hand this to engines: prints warnings once per kind + count at the end */
	bool incomplete;       /* a warning came that makes the status 3 */
	/* private */
	void *priv;
};

/* Before anything else. Signals that end the program first remove the output that is not finished (output_start); where LMDB faults
 * on a damaged catalog the program says so and ends with 1 (store_at_work). USR1
 * asks for a line of progress, which the next cli_progress gives. */
void cli_start(struct cli *c, const char *prog);
/* Parses; on --help, --usage, --version prints to standard output and exits 0; on a usage error returns the
 * status to exit with (2), and c is spent: no cli_finish then; else 0. synopsis is the text after the program
 * name, one line for each form. */
int cli_options(struct cli *c, int argc, char **argv, const struct opt *opts, size_t n_opts,
	const char *synopsis, const char *summary);
/* What the policy of this state says (policy.h), for options that were not given, and the roots that it names, unless there are
 * operands: then args. The run is about this state from now on. ERR_USAGE with its line: a mistake in it, also in what is for other programs. */
int cli_policy(struct cli *c, const char *state, bool takes_roots, struct err *e);
/* A string of the environment, or NULL (also when it is empty). */
const char *cli_env(const char *name);
/* One line of --itemize, on standard error. */
void cli_item(struct cli *c, const char *code, const char *name);
/* Refuses when fd is a terminal, unless --force. ERR_USAGE. `what`: "write a delta to", "read a stream from". */
int cli_not_tty(struct cli *c, int fd, const char *what, struct err *e);
/* The descriptor to write to: standard output, or a temporary next to -o FILE that cli_finish renames when no
 * error came; an -o that is a pipe or device is written as it is. ERR_REFUSED when FILE exists, unless --force.
 * The descriptor is borrowed: do not close it. -1: error. */
int cli_output(struct cli *c, struct err *e);
/* Prints the error (if any), the counted warnings and the statistics, flushes and closes the output with its error
 * checked, removes temporaries; returns the exit status. EPIPE ends like SIGPIPE: quietly. */
int cli_finish(struct cli *c, const struct err *e);
/* Ends the program by a signal that was taken some other way, so that the status is 128+N. Returns only when it was ignored: that. */
int cli_die(int sig);
/* level 0: unless -q; 1: with -v; 2: with -vv */
void cli_say(struct cli *c, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* One progress line at most every 200 ms on a terminal, 10 s else; total 0: unknown. Cheap to call often.
 * done and total are bytes, items counts anything (0: not shown). */
void cli_progress(struct cli *c, uint64_t done, uint64_t total, uint64_t items, const char *what);
/* One "name: value" row for --stats; printed by cli_finish. The same name again replaces the value. */
void cli_stat(struct cli *c, const char *name, uint64_t value, const char *unit);
/* Reads a key file: at most 64 bytes after one trailing newline is removed; refuses an empty one and one that
 * others can read. */
int cli_key(struct buf *key, const char *path, struct err *e);

#endif
