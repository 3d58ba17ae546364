/*
 * guard: holds applications and filesystems still for an instant, and lets them go on in any case.
 *
 *   guard_start     a process of its own starts, which will undo: thaw, and run the resume command
 *   guard_quiesce   we run the quiesce command
 *   guard_freeze    we freeze the filesystems
 *   guard_end       the guard undoes, and goes
 *
 *
 * A command that guard_running is told of is ended as the quiesce command is, should we go while it runs.
 *
 * When we go before that, in whatever way, the guard finds the other end of its socket closed and undoes as well; when it is the
 * guard that went, guard_end undoes. What there is to undo stands in memory that both share, so that it is done once. Frozen
 * filesystems are thawed, and the resume command is run, after the limit also when we hang; then there was no instant.
 *
 * The guard is in a session of its own, with all signals blocked. It keeps the filesystems, the lock and log_fd open, and no other
 * descriptor: neither a stream nor anything else of ours stays open because of it. The lock so that the next run, whose quiesce
 * command a resume that comes late would undo, waits for it.
 *
 * May use: command, freeze, clock, bytes, err; makes system calls. Its process ends with _exit.
 */
#ifndef REPL_GUARD_H
#define REPL_GUARD_H

#include "err.h"

#include <stdint.h>
#include <sys/types.h>

struct freeze;
struct guard_shared;

struct guard {
	/* in; all borrowed */
	const char *quiesce, *resume; /* commands; NULL: none */
	uint64_t command_ms;          /* that each of them gets */
	uint64_t freeze_ms;           /* so long at most are filesystems frozen */
	int log_fd;                   /* where commands print */
	int lock_fd;                  /* -1: none */
	const struct freeze *freeze;  /* NULL: nothing */
	/* out */
	uint64_t quiesced_ns;         /* from the start of the first command to the end of the last */
	uint64_t frozen_ns;           /* 0: nothing was */
	/* private; {0} */
	struct guard_shared *shared;
	pid_t pid;
	int fd;
	uint64_t quiesced_at;
};
int guard_start(struct guard *g, struct err *e);
/* ERR_SYSTEM, ERR_TIMEOUT: not quiesced. The resume command will be run in any case. */
int guard_quiesce(struct guard *g, struct err *e);
/* For the command of a struct command: its process group is ended when we go. After guard_quiesce, before guard_end. */
_Atomic(pid_t) *guard_running(const struct guard *g);
/* Some may be frozen also after an error. */
int guard_freeze(struct guard *g, struct err *e);
/* Undoes, and frees. May be called twice, and on one that did not start. -1: ERR_TIMEOUT, what was still was let go before, so
 * that there was no instant. undone: {0}, or the first thing that could not be undone. */
int guard_end(struct guard *g, struct err *undone, struct err *e);

#endif
