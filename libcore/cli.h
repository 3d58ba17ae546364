/*
 * cli: everything the six programs do to their terminal, environment and exit status. The only module that
 * prints, reads the environment, or names popt.
 *
 * A program calls cli_start, cli_options, does its work, and returns cli_finish(). Errors of the engines come
 * up as a struct err; cli prints the one line "repl-x: text" and chooses the status.
 *
 * What is printed to the terminal has its control bytes escaped once more, whoever made the text.
 * There is one struct cli in a program: signals have nobody else to turn to.
 */
#ifndef REPL_CLI_H
#define REPL_CLI_H

#include <signal.h>
#include "bytes.h"
#include "err.h"

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
	struct warn warn;      /* hand this to engines: prints warnings once per kind + count at the end */
	bool incomplete;       /* a warning came that makes the status 3 */
	/* private */
	void *priv;
};

/* One row per option; the table is data. Common options (-q -v --progress --no-progress --stats --help
 * --usage --version) are added by cli_options itself. The last use of an option wins. */
enum opt_kind {
	OPT_FLAG,
	OPT_STRING,
	OPT_LIST,     /* repeatable; order kept */
	OPT_SIZE,     /* K = KiB = 1024, KB = 1000; likewise M, G, T */
	OPT_NUMBER,   /* may be negative */
	OPT_DURATION, /* nanoseconds; 90s, 15m, 6h, 2d; a bare number is seconds */
};
struct opt {
	const char *name;   /* long, without dashes */
	char letter;        /* 0: none */
	enum opt_kind kind;
	void *out;          /* bool *, const char **, struct list *, uint64_t *, int64_t *, uint64_t * (ns) */
	const char *arg;    /* shown in --help: "FILE" */
	const char *help;
	char tag;           /* OPT_LIST: remembered with each string, so that --include and --exclude keep order */
};
/* Strings and arrays that options lead to are owned by cli and live until cli_finish. */
struct list {
	const char **v;
	char *tags;
	size_t n;
};

/* Ignores nothing silently: INT, TERM, HUP, and PIPE (a reader that went away) remove the temporaries of cli_temp and
 * strike again with their default action, so that the status is 128+N; one that was ignored stays ignored.
 * USR1 sets cli_usr1; cli_progress answers it with one line. */
void cli_start(struct cli *c, const char *prog);
/* Parses; on --help, --usage, --version prints to standard output and exits 0; on a usage error returns the
 * status to exit with (2), and c is spent: no cli_finish then; else 0. synopsis is the text after the program
 * name, one line for each form. */
int cli_options(struct cli *c, int argc, char **argv, const struct opt *opts, size_t n_opts,
	const char *synopsis, const char *summary);
/* A string of the environment, or NULL (also when it is empty). */
const char *cli_env(const char *name);
/* The values of OPT_SIZE and OPT_DURATION, for arguments that hold one inside another syntax. False: not one. */
bool cli_size(const char *s, uint64_t *out);
/* One line of --itemize, on standard error. */
void cli_item(struct cli *c, const char *code, const char *name);
bool cli_duration(const char *s, uint64_t *ns);
/* Removes this file when the program ends by a signal or in cli_finish; returns a handle for cli_forget, which may be -1
 * (no more than 64 at a time; then nobody will remove it). The path is copied. For files only: a temporary
 * directory is better one that recovery knows about. */
int cli_temp(struct cli *c, const char *path);
void cli_forget(struct cli *c, int handle);
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
extern volatile sig_atomic_t cli_usr1;

#endif
