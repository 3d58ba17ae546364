/*
 * output: where a program writes: standard output, or -o FILE by way of a temporary next to it that takes its name when
 * all went well. What is not finished is removed when the program ends, by a signal as well.
 *
 * Closes standard output, and ends the program by SIGPIPE when asked to. There is one output in a program: signals have
 * nobody else to turn to. May use: value, bytes, err; makes system calls.
 */
#ifndef REPL_OUTPUT_H
#define REPL_OUTPUT_H

#include "bytes.h"
#include "err.h"

struct output { /* private; {0} before output_open */
	int fd;     /* 0: none was asked for */
	char *tmp;  /* NULL: nothing to rename */
	char *path;
};
struct output_options {
	const char *prog; /* part of the temporary's name */
	const char *path; /* NULL or "-": standard output */
	bool force;
};
/* INT, TERM, HUP, and PIPE (a reader that went away) remove the temporary and strike again with their default action, so
 * that the status is 128+N; one that was ignored stays ignored. */
void output_start(void);
/* The descriptor to write to, borrowed; the same again when it is open. A path that is a pipe or device, or names a
 * descriptor (/dev/fd/N), is written as it is. ERR_REFUSED when the file exists, unless force. -1: error. */
int output_open(struct output *o, const struct output_options *how, struct err *e);
/* Flushes and closes standard output, and what was opened: the last moment at which a full disk can be noticed. The
 * temporary takes its name, durably, if is_good. */
int output_close(struct output *o, bool is_good, struct err *e);
/* A temporary that has no name yet goes. */
void output_free(struct output *o);
/* The reader went away and SIGPIPE was ignored on our behalf: ends as if it had not been. */
void output_broken(void);
/* What is left to do in the handler of a signal that came from our own doing: the temporary goes, and "prog: text" to standard error. */
void output_fail(const char *prog, const char *text);

#endif
