/*
 * options: the words of a command line, by a table of a program's options; and the texts that the table makes.
 *
 * The only module that names popt. Prints nothing: an error comes up as ERR_USAGE, the texts of --help and its like in
 * a buf. May use: value, bytes, err.
 */
#ifndef REPL_OPTIONS_H
#define REPL_OPTIONS_H

#include "bytes.h"
#include "err.h"

/* One row per option; the table is data. Common options (-q -v --progress --no-progress --stats --help
 * --usage --version) are added by options_parse itself. The last use of an option wins. */
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
/* Strings and arrays that options lead to are owned by struct options. */
struct list {
	const char **v;
	char *tags;
	size_t n;
};

/* A program. All borrowed, prog and opts until options_free. */
struct options_of {
	const char *prog;
	const struct opt *opts;
	size_t n_opts;
	const char *synopsis; /* after the program's name, one line for each form */
	const char *summary;
	const char *version;  /* after the program's name, with its last line ended */
};
/* What was found; {0} before. */
struct options {
	int verbose; /* -v counted; -1 with -q */
	bool progress, no_progress, stats;
	struct buf print;  /* --help and its like: to be printed, instead of doing anything; else empty */
	const char **args; /* what is left, NULL-terminated; NULL when there is something to print */
	/* private */
	bool *given;       /* by row: it was on the command line */
	void *popt;
	void **owned; /* everything that options point to */
	size_t n_owned;
};
int options_parse(struct options *o, int argc, char **argv, const struct options_of *of, struct err *e);
/* After options_parse: an option as somebody else says it, by its long name ("yes" or "no" for a flag). What was given on the
 * command line stays; of a list it comes first. One that this program does not have is passed over. ERR_USAGE. */
int options_default(struct options *o, const struct options_of *of, const char *name, const char *value, struct err *e);
void options_free(struct options *o);

#endif
