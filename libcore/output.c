#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "value.h"

/* What the signal handler needs, in a form it may touch. Whoever swaps the path out owns it. */
static _Atomic(char *) temporary;
static _Atomic(pid_t) temporary_of; /* a forked child must not remove what its parent still uses */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

static void drop_temporary(void)
{
	if (getpid() == atomic_load(&temporary_of)) {
		char *path = atomic_exchange(&temporary, NULL);

		if (path != NULL)
			unlink(path); /* not freed: free is not for signal handlers */
	}
}

static void on_ending(int sig)
{
	sigset_t just;

	drop_temporary();
	signal(sig, SIG_DFL);
	sigemptyset(&just);
	sigaddset(&just, sig);
	pthread_sigmask(SIG_UNBLOCK, &just, NULL);
	raise(sig);
}

void output_start(void)
{
	struct sigaction sa = {.sa_handler = on_ending, .sa_flags = SA_RESTART}, old;

	atomic_store(&temporary_of, getpid());
	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		sigaddset(&sa.sa_mask, ending[i]);
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		if (sigaction(ending[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(ending[i], &sa, NULL);
}

/* One write: others may write to the same place. */
void output_fail(const char *prog, const char *text)
{
	const char *const parts[] = {prog, ": ", text, "\n"};
	char line[2048];
	size_t n = 0;

	drop_temporary();
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		for (const char *p = parts[i]; *p && n < sizeof line; p++)
			line[n++] = *p;
	if (write(STDERR_FILENO, line, n) < 0)
		errno = 0; /* it was the last that could be said */
}

void output_broken(void) { on_ending(SIGPIPE); }

/* The N of /dev/fd/N and its like, or -1. Opened by name, a file would be written from its start, or replaced
 * under the shell that holds it. */
static int named_fd(const char *path)
{
	static const char *const dirs[] = {"/dev/fd/", "/proc/self/fd/"};
	uint64_t n;

	if (strcmp(path, "/dev/stdout") == 0)
		return STDOUT_FILENO;
	if (strcmp(path, "/dev/stderr") == 0)
		return STDERR_FILENO;
	for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
		const char *at = path + strlen(dirs[i]);

		if (strncmp(path, dirs[i], strlen(dirs[i])) == 0 && value_digits(&at, &n) && *at == '\0' && n < INT_MAX)
			return (int)n;
	}
	return -1;
}

/* Where -o leads once links are followed; a link that leads nowhere is an error, not a place to write to. */
static char *resolve(const char *path, struct stat *st, bool *exists, struct err *e)
{
	char shown[256];
	char *real;

	esc_cut(shown, sizeof shown, span_cstr(path));
	*exists = lstat(path, st) == 0;
	if (!*exists) {
		if (errno == ENOENT)
			return xstrdup(path);
		err_sys(e, "cannot look up '%s'", shown);
		return NULL;
	}
	if (!S_ISLNK(st->st_mode))
		return xstrdup(path);
	if (stat(path, st) == 0 && !S_ISREG(st->st_mode))
		return xstrdup(path);
	real = realpath(path, NULL);
	if (real == NULL)
		err_sys(e, "cannot follow '%s'", shown);
	return real;
}

/* A new file next to path; -1 with errno. No signal comes between the file and the note that it has to be removed. */
static int open_temporary(struct output *o, const char *path, const char *prog)
{
	AUTO_BUF struct buf tmp = {0};
	const char *slash = strrchr(path, '/');
	sigset_t all, was;
	int fd;

	buf_fmt(&tmp, "%.*s.%s.XXXXXX", slash == NULL ? 0 : (int)(slash - path) + 1, path, prog);
	buf_cstr(&tmp);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	fd = mkostemp((char *)tmp.p, O_CLOEXEC);
	if (fd >= 0) {
		o->tmp = xstrdup((char *)tmp.p);
		atomic_store(&temporary, xstrdup(o->tmp));
	}
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return fd;
}

int output_open(struct output *o, const struct output_options *how, struct err *e)
{
	AUTO_FREE char *path = NULL;
	struct stat st;
	char shown[256];
	bool exists;
	mode_t mask;
	int fd;

	if (o->fd > 0)
		return o->fd;
	if (how->path == NULL || strcmp(how->path, "-") == 0)
		return o->fd = STDOUT_FILENO;
	esc_cut(shown, sizeof shown, span_cstr(how->path));
	fd = named_fd(how->path);
	if (fd >= 0) {
		fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (fd < 0)
			return err_sys(e, "cannot open '%s'", shown);
		o->path = xstrdup(how->path);
		return o->fd = fd;
	}
	path = resolve(how->path, &st, &exists, e);
	if (path == NULL)
		return -1;
	if (exists && !S_ISREG(st.st_mode)) {
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return err_sys(e, "cannot open '%s'", shown);
		o->path = path;
		path = NULL;
		return o->fd = fd;
	}
	if (exists && !how->force)
		return err_set(e, ERR_REFUSED, "will not overwrite '%s' without --force", shown);

	fd = open_temporary(o, path, how->prog);
	if (fd < 0)
		return err_sys(e, "cannot create a file next to '%s'", shown);
	o->path = path;
	path = NULL;
	o->fd = fd;
	mask = umask(0);
	umask(mask);
	if (fchmod(fd, exists ? st.st_mode & 0777u : 0666u & ~mask) != 0)
		return err_sys(e, "cannot set the mode of '%s'", o->tmp);
	return fd;
}

/* The output file, in steps that a crash may part:
 *   fsync tmp           before: a temporary is left behind, the old file stands
 *   rename tmp -> path  before: the same; after: the new file stands, perhaps not for good
 *   fsync directory     after: it stands for good
 */
static int keep(struct output *o, struct err *e)
{
	const char *slash = strrchr(o->path, '/');
	AUTO_FREE char *dir = slash == NULL ? xstrdup(".") : xstrdup(o->path);
	AUTO_CLOSE int dir_fd = -1;
	char shown[256];
	int fd = o->fd;

	esc_cut(shown, sizeof shown, span_cstr(o->path));
	o->fd = 0;
	if (o->tmp != NULL && fsync(fd) != 0) {
		err_sys(e, "cannot write '%s'", shown);
		close(fd);
		return -1;
	}
	if (close(fd) != 0)
		return err_sys(e, "cannot write '%s'", shown);
	if (o->tmp == NULL)
		return 0;
	if (rename(o->tmp, o->path) != 0)
		return err_sys(e, "cannot rename '%s' to '%s'", o->tmp, shown);
	free(atomic_exchange(&temporary, NULL));
	if (slash != NULL)
		dir[slash - o->path + 1] = '\0';
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) != 0)
		return err_sys(e, "cannot make the name '%s' durable", shown);
	return 0;
}

int output_close(struct output *o, bool is_good, struct err *e)
{
	int rc = 0;

	if (fflush(stdout) != 0 || ferror(stdout))
		rc = err_sys(e, "cannot write to standard output");
	if (close(STDOUT_FILENO) != 0 && rc == 0)
		rc = err_sys(e, "cannot write to standard output");
	if (o->fd > STDERR_FILENO) {
		if (is_good && rc == 0)
			rc = keep(o, e);
		else
			close(o->fd);
	}
	return rc;
}

void output_free(struct output *o)
{
	char *left = atomic_exchange(&temporary, NULL);

	if (left != NULL)
		unlink(left);
	free(left);
	free(o->tmp);
	free(o->path);
	*o = (struct output){0};
}
