#include "guard.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "command.h"
#include "freeze.h"

#define LATE_MS 50

enum { FS_LOOSE = 0, FS_UNDER_WAY, FS_FROZEN };

/* Set before the deed that it speaks of is done, and cleared after it was undone: who finds it set undoes. */
struct guard_shared {
	_Atomic(int) fs[FREEZE_MAX];
	_Atomic(bool) must_resume;
	_Atomic(bool) is_over;        /* the limit has passed */
	_Atomic(pid_t) quiescing;     /* the process group of the quiesce command, or of another that must not outlive us */
	_Atomic(uint64_t) frozen_at;   /* CLOCK_MONOTONIC; 0: nothing is */
	_Atomic(uint64_t) thawed_at, resumed_at;
	_Atomic(int) stuck, stuck_errno; /* 1 + the first filesystem that could not be thawed */
	struct command_end resumed;
};

/* What the two say to each other, a byte each. */
enum { SAY_READY = 'r', SAY_FREEZE = 'f', SAY_UNDO = 'u', SAY_DONE = 'd' };

/* Whoever does not listen any more is no reason for SIGPIPE. */
static bool say(int fd, char what) { return send(fd, &what, 1, MSG_NOSIGNAL) == 1; }

/* 0: the other one has gone. */
static char hear(int fd)
{
	char what = 0;
	ssize_t n;

	while ((n = recv(fd, &what, 1, 0)) < 0 && errno == EINTR)
		;
	return n == 1 ? what : 0;
}

/* ---- undoing ---- */

static void thaw_one(const struct guard *g, size_t i, bool is_last)
{
	struct guard_shared *s = g->shared;
	int at = atomic_load(&s->fs[i]);
	int sys = freeze_thaw(g->freeze, i);

	/* Freezing has not come so far, or will not any more: who freezes has gone. */
	if (sys == EINVAL && at == FS_UNDER_WAY) {
		if (is_last)
			atomic_store(&s->fs[i], FS_LOOSE);
		return;
	}
	if (sys && !atomic_load(&s->stuck)) {
		atomic_store(&s->stuck_errno, sys);
		atomic_store(&s->stuck, (int)i + 1);
	}
	atomic_store(&s->fs[i], FS_LOOSE);
	atomic_store(&s->thawed_at, clock_ns());
}

/* In reverse order. What is still being frozen comes last: to thaw it waits for the freezing, and that perhaps for another filesystem
 * here, as where one lies in a file on the other. */
static void thaw(const struct guard *g, bool is_last)
{
	for (int at = FS_FROZEN; at >= FS_UNDER_WAY; at--)
		for (size_t i = g->freeze ? g->freeze->n : 0; i-- > 0;)
			if (atomic_load(&g->shared->fs[i]) == at)
				thaw_one(g, i, is_last);
}

static struct command resume_of(const struct guard *g, const sigset_t *mask)
{
	return (struct command){.text = g->resume, .limit_ms = g->command_ms, .log_fd = g->log_fd, .mask = mask};
}

static void undo(const struct guard *g, bool is_last, const sigset_t *mask)
{
	struct guard_shared *s = g->shared;
	pid_t quiescing = is_last ? atomic_exchange(&s->quiescing, 0) : 0;

	if (quiescing)
		command_stop(quiescing);
	thaw(g, is_last);
	if (atomic_exchange(&s->must_resume, false)) {
		struct command c = resume_of(g, mask);
		s->resumed = command_run(&c);
		atomic_store(&s->resumed_at, clock_ns());
	}
}

/* ---- the guard's process ---- */

static void close_others(const struct guard *g, int fd)
{
	int keep[FREEZE_MAX + 3], n = 0, last = -1;

	keep[n++] = fd;
	keep[n++] = g->log_fd;
	if (g->lock_fd >= 0)
		keep[n++] = g->lock_fd;
	for (size_t i = 0; g->freeze && i < g->freeze->n; i++)
		keep[n++] = g->freeze->v[i].fd;
	for (;;) {
		int next = INT_MAX;
		for (int i = 0; i < n; i++)
			if (keep[i] > last && keep[i] < next)
				next = keep[i];
		if (next > last + 1)
			close_range((unsigned)last + 1, (unsigned)next - 1, 0);
		if (next == INT_MAX)
			break;
		last = next;
	}
}

/* Milliseconds until there may be something to thaw without being asked; -1: there is not. After the limit that is what came out of
 * freezing too late, and even a process that was stopped in it does so. */
static int time_left(const struct guard *g)
{
	struct guard_shared *s = g->shared;
	uint64_t at = atomic_load(&s->frozen_at);

	if (!at)
		return -1;
	if (atomic_load(&s->is_over)) {
		for (size_t i = 0; i < g->freeze->n; i++)
			if (atomic_load(&s->fs[i]) != FS_LOOSE)
				return LATE_MS;
		return -1;
	}
	uint64_t spent = (clock_ns() - at) / 1000000;
	return spent >= g->freeze_ms ? 0 : (int)min_u64(g->freeze_ms - spent, INT_MAX);
}

static _Noreturn void watch_over(const struct guard *g, int fd, const sigset_t *mask)
{
	char heard;

	setsid();
	/* Not to be waiting for a page that is read back while what it lies on is frozen; where it is not allowed reading works as well. */
	mlockall(MCL_CURRENT);
	close_others(g, fd);
	say(fd, SAY_READY);
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (!poll(&p, 1, time_left(g))) {
			atomic_store(&g->shared->is_over, true);
			undo(g, false, mask);
			continue;
		}
		heard = hear(fd);
		if (heard != SAY_FREEZE)
			break;
	}
	undo(g, true, mask);
	if (heard)
		say(fd, SAY_DONE);
	_exit(0);
}

/* ---- ours ---- */

int guard_start(struct guard *g, struct err *e)
{
	int fds[2];
	sigset_t all, was;

	void *shared = mmap(NULL, sizeof *g->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return err_sys(e, "cannot share memory with the guard");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
		munmap(shared, sizeof *g->shared);
		return err_sys(e, "cannot make a socket for the guard");
	}
	g->shared = shared;
	/* No signal may come between the fork and the guard's own session. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &was);
	g->pid = fork();
	if (!g->pid)
		watch_over(g, fds[1], &was);
	int sys = errno;
	sigprocmask(SIG_SETMASK, &was, NULL);
	close(fds[1]);
	g->fd = fds[0];
	errno = sys;
	int rc = g->pid < 0 ? err_sys(e, "cannot start the guard") :
		hear(g->fd) == SAY_READY ? 0 : err_set(e, ERR_SYSTEM, "the guard did not start");
	if (rc) {
		struct err ignored = {0};
		guard_end(g, &ignored, &ignored);
	}
	return rc;
}

int guard_quiesce(struct guard *g, struct err *e)
{
	struct command c = {.text = g->quiesce, .limit_ms = g->command_ms, .log_fd = g->log_fd, .running = &g->shared->quiescing};

	g->quiesced_at = clock_ns();
	atomic_store(&g->shared->must_resume, g->resume != NULL);
	return g->quiesce ? command_check(&c, command_run(&c), "the quiesce command", e) : 0;
}

_Atomic(pid_t) *guard_running(const struct guard *g) { return &g->shared->quiescing; }

int guard_freeze(struct guard *g, struct err *e)
{
	struct guard_shared *s = g->shared;

	atomic_store(&s->frozen_at, clock_ns());
	for (size_t i = 0; g->freeze && i < g->freeze->n; i++) {
		atomic_store(&s->fs[i], FS_UNDER_WAY);
		/* The limit counts from now on. */
		if (!say(g->fd, SAY_FREEZE))
			return err_set(e, ERR_SYSTEM, "the guard is gone: nothing more is frozen");
		if (freeze_one(g->freeze, i, e)) {
			atomic_store(&s->fs[i], FS_LOOSE);
			return -1;
		}
		/* Unless the guard was faster. */
		int expected = FS_UNDER_WAY;
		atomic_compare_exchange_strong(&s->fs[i], &expected, FS_FROZEN);
		if (atomic_load(&s->is_over))
			return 0; /* guard_end says so */
	}
	return 0;
}

static void what_is_left(const struct guard *g, struct err *undone)
{
	struct guard_shared *s = g->shared;
	int stuck = atomic_load(&s->stuck);

	if (stuck) {
		errno = atomic_load(&s->stuck_errno);
		err_sys(undone, "cannot thaw the filesystem of '%s'%s", g->freeze->v[stuck - 1].name,
			errno == EINVAL ? " (somebody else had thawed it)" : "");
	}
	if (g->resume && g->quiesced_at) {
		struct command c = resume_of(g, NULL);
		command_check(&c, s->resumed, "the resume command", undone);
	}
}

int guard_end(struct guard *g, struct err *undone, struct err *e)
{
	struct guard_shared *s = g->shared;

	if (!s)
		return 0;
	if (g->pid <= 0 || !say(g->fd, SAY_UNDO) || hear(g->fd) != SAY_DONE)
		undo(g, true, NULL);
	while (g->pid > 0 && waitpid(g->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close_fd(&g->fd);
	uint64_t end = atomic_load(&s->resumed_at), frozen = atomic_load(&s->frozen_at);
	end = end ? end : clock_ns();
	g->quiesced_ns = g->quiesced_at ? end - g->quiesced_at : 0;
	end = atomic_load(&s->thawed_at);
	g->frozen_ns = frozen && end ? end - frozen : 0;
	what_is_left(g, undone);
	int rc = !atomic_load(&s->is_over) ? 0 : err_set(e, ERR_TIMEOUT, "no image: filesystems were frozen for longer than %" PRIu64
		" ms, and were thawed", g->freeze_ms);
	munmap(s, sizeof *s);
	g->shared = NULL;
	return rc;
}
