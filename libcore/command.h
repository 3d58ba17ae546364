/*
 * command: runs a command of the operator, by sh(1) or as a program, and ends one that takes too long.
 *
 * It is a process group of its own. What it leaves running in the background when it ends in time stays: a session that holds a
 * lock may be meant. Its standard input is /dev/null, and what it prints goes where it is told, never into a stream.
 *
 * May use: clock, bytes, err; makes system calls.
 */
#ifndef REPL_COMMAND_H
#define REPL_COMMAND_H

#include <signal.h>
#include <sys/types.h>

#include "bytes.h"
#include "err.h"

struct command {
	const char *text;         /* for sh -c; borrowed */
	char *const *argv;        /* NULL-terminated: this program instead, of which text is what messages show; NULL: text */
	uint64_t limit_ms;
	int log_fd;               /* its standard output and standard error */
	int out_fd;               /* its standard output instead; 0: log_fd */
	const sigset_t *mask;     /* the signals that are blocked when it starts; NULL: ours */
	_Atomic(pid_t) *running;  /* its process group as long as it may run, else 0; may be shared with another process. NULL: not told */
};
enum command_how { COMMAND_NEVER = 0, COMMAND_EXIT, COMMAND_SIGNAL, COMMAND_LATE, COMMAND_BROKEN };
/* {0}: it was not run, or not to its end. */
struct command_end {
	enum command_how how;
	int number; /* status, signal or errno */
};
/* Waits for its end. */
struct command_end command_run(const struct command *c);
/* Ends a process group: TERM, and KILL when its leader has gone or a few seconds are over. */
void command_stop(pid_t group);
/* 0; -1: what came of it, ERR_TIMEOUT or ERR_SYSTEM. `what`: "the quiesce command". */
int command_check(const struct command *c, struct command_end end, const char *what, struct err *e);

#endif
