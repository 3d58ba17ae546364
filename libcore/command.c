#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"

#define GRACE_MS 2000u /* after TERM, and after KILL */
#define SHOWN 200

/* The process has ended, reaped or not; false: not in this time. */
static bool has_ended(int pidfd, uint64_t limit_ms)
{
	uint64_t start = clock_ms(), spent = 0;
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	do {
		int n = poll(&p, 1, (int)min_u64(limit_ms - spent, INT_MAX));
		if (n > 0 || (n < 0 && errno != EINTR))
			return n > 0;
		spent = clock_ms() - start;
	} while (spent < limit_ms);
	return false;
}

void command_stop(pid_t group)
{
	AUTO_CLOSE int pidfd = pidfd_open(group, 0);

	kill(-group, SIGTERM);
	if (pidfd >= 0)
		has_ended(pidfd, GRACE_MS);
	kill(-group, SIGKILL);
	if (pidfd >= 0)
		has_ended(pidfd, GRACE_MS);
}

/* The group is told before there is a command: whoever sees our end of a socket closed, which the command's start closes, knows it. */
static _Noreturn void become(const struct command *c, const struct sigaction *child)
{
	int null = open("/dev/null", O_RDONLY);

	setpgid(0, 0);
	if (c->running)
		atomic_store(c->running, getpid());
	sigaction(SIGCHLD, child, NULL);
	if (null >= 0 && dup2(null, 0) == 0 && dup2(c->out_fd ? c->out_fd : c->log_fd, 1) == 1 && dup2(c->log_fd, 2) == 2) {
		if (null > 2)
			close(null);
		if (c->mask)
			sigprocmask(SIG_SETMASK, c->mask, NULL);
		if (c->argv)
			execv(c->argv[0], c->argv);
		else
			execl("/bin/sh", "sh", "-c", c->text, (char *)NULL);
	}
	_exit(127);
}

static struct command_end wait_for(const struct command *c, pid_t pid)
{
	struct command_end end = {COMMAND_EXIT, 0};
	AUTO_CLOSE int pidfd = pidfd_open(pid, 0); /* Linux 5.3 and later */
	siginfo_t info = {0};

	if (pidfd < 0)
		end = (struct command_end){COMMAND_BROKEN, errno};
	else if (!has_ended(pidfd, c->limit_ms))
		end.how = COMMAND_LATE;
	if (end.how != COMMAND_EXIT)
		command_stop(pid);
	/* As long as it is not reaped its number is not given to another. One that not even KILL ends is left alone. */
	int flags = WEXITED | WNOWAIT | (end.how == COMMAND_EXIT ? 0 : WNOHANG);
	while (waitid(P_PID, (id_t)pid, &info, flags) && errno == EINTR)
		;
	if (c->running)
		atomic_store(c->running, 0);
	waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG);
	if (end.how == COMMAND_EXIT)
		end = (struct command_end){info.si_code == CLD_EXITED ? COMMAND_EXIT : COMMAND_SIGNAL, info.si_status};
	return end;
}

struct command_end command_run(const struct command *c)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL}, was;
	struct command_end end;

	/* Where it is ignored, as it may be from the start, the kernel reaps children itself. */
	sigaction(SIGCHLD, &dfl, &was);
	pid_t pid = fork();
	if (!pid)
		become(c, &was);
	if (pid < 0) {
		end = (struct command_end){COMMAND_BROKEN, errno};
	} else {
		setpgid(pid, pid); /* whoever comes first */
		end = wait_for(c, pid);
	}
	sigaction(SIGCHLD, &was, NULL);
	return end;
}

int command_check(const struct command *c, struct command_end end, const char *what, struct err *e)
{
	char text[SHOWN];

	esc_cut(text, sizeof text, span_cstr(c->text));
	switch (end.how) {
	case COMMAND_EXIT:
		return end.number ? err_set(e, ERR_SYSTEM, "%s '%s' failed with status %d", what, text, end.number) : 0;
	case COMMAND_SIGNAL:
		return err_set(e, ERR_SYSTEM, "%s '%s' was ended by signal %d", what, text, end.number);
	case COMMAND_LATE:
		return err_set(e, ERR_TIMEOUT, "%s '%s' took longer than %" PRIu64 " ms and was ended", what, text, c->limit_ms);
	case COMMAND_BROKEN:
		errno = end.number;
		return err_sys(e, "cannot start %s '%s'", what, text);
	case COMMAND_NEVER:
		break;
	}
	return err_set(e, ERR_SYSTEM, "%s '%s' was not run to its end: the process that does it was killed", what, text);
}
