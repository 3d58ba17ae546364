#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <popt.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"

#define CLI_VERSION "0.1.0"
#define CLI_FEATURES "zstd blake2b lmdb"
#define CLI_WIDTH 80u
#define CLI_TEMPS 64
#define CLI_SHOWN 3u /* warnings of a kind that are printed in full */
#define MS UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)

struct kind_count {
	char *kind;
	uint64_t n, shown;
};
struct stat_row {
	char *name;
	char *unit;
	uint64_t value;
};
struct cli_priv {
	poptContext popt;
	void **owned; /* everything that options point to */
	size_t n_owned;
	struct kind_count *kinds;
	size_t n_kinds;
	struct stat_row *stats;
	size_t n_stats;
	pthread_mutex_t lock; /* engines warn and say from their threads */
	bool wants_progress, wants_no_progress;
	bool tty;            /* standard error is a terminal */
	bool is_line_open;   /* a progress line without its end is on it */
	uint64_t began, last; /* clock of progress, ns */
	int out_fd;          /* -1: none was asked for */
	char *out_tmp;       /* NULL: nothing to rename */
	char *out_path;
	int out_handle;
};

volatile sig_atomic_t cli_usr1;

/* What the signal handler needs, in a form it may touch. Whoever swaps a path out of its slot owns it. */
static _Atomic(char *) temps[CLI_TEMPS];
static _Atomic(pid_t) temps_of; /* a forked child must not remove what its parent still uses */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};

static void remove_temps(bool from_signal)
{
	for (int i = 0; i < CLI_TEMPS; i++) {
		char *path = atomic_exchange(&temps[i], NULL);

		if (path == NULL)
			continue;
		unlink(path);
		if (!from_signal) /* free is not for signal handlers */
			free(path);
	}
}

static void on_ending(int sig)
{
	sigset_t just;

	if (getpid() == atomic_load(&temps_of))
		remove_temps(true);
	signal(sig, SIG_DFL);
	sigemptyset(&just);
	sigaddset(&just, sig);
	pthread_sigmask(SIG_UNBLOCK, &just, NULL);
	raise(sig);
}

int cli_die(int sig)
{
	sigset_t just;

	sigemptyset(&just);
	sigaddset(&just, sig);
	raise(sig);
	pthread_sigmask(SIG_UNBLOCK, &just, NULL);
	return 128 + sig;
}

static void on_usr1(int sig)
{
	(void)sig;
	cli_usr1 = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

/* The length of the valid, printable UTF-8 sequence at p, or 0. C1 controls are not printable. */
static size_t printable(const uint8_t *p, size_t n)
{
	uint32_t c;
	size_t len;

	if (p[0] >= 0x20 && p[0] < 0x7f)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	c = p[0] & (0x7fu >> len);
	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0u) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < 0xa0 || (len == 3 && c < 0x800) || (len == 4 && c < 0x10000))
		return 0;
	return c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

/* Text of ours, in which names are escaped already; the second look is for those that slipped through. */
static void add_safe(struct buf *b, const char *text)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t n = strlen(text);

	while (n > 0) {
		size_t len = printable(p, n);

		if (len > 0)
			buf_add(b, p, len);
		else
			buf_fmt(b, "\\%03o", (unsigned)*p);
		p += len > 0 ? len : 1;
		n -= len > 0 ? len : 1;
	}
}

/* One write, so that lines of several programs in a pipeline do not get mixed. Nobody is left to tell when
 * standard error fails. */
static void put_stderr(const struct buf *b)
{
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = write(STDERR_FILENO, b->p + at, b->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

/* Call with the lock held. */
static void put_line(struct cli *c, const char *text)
{
	struct cli_priv *p = c->priv;
	AUTO_BUF struct buf b = {0};

	if (p != NULL && p->is_line_open) {
		buf_str(&b, "\r\033[K");
		p->is_line_open = false;
	}
	buf_fmt(&b, "%s: ", c->prog);
	add_safe(&b, text);
	buf_str(&b, "\n");
	put_stderr(&b);
}

static bool is_informational(const char *kind)
{
	static const char *const set[] = {"socket", "note"};

	for (size_t i = 0; i < sizeof set / sizeof *set; i++)
		if (strcmp(kind, set[i]) == 0)
			return true;
	return false;
}

static void on_warn(void *ctx, const char *kind, const char *text)
{
	struct cli *c = ctx;
	struct cli_priv *p = c->priv;
	struct kind_count *k = NULL;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->n_kinds && k == NULL; i++)
		if (strcmp(p->kinds[i].kind, kind) == 0)
			k = &p->kinds[i];
	if (k == NULL) {
		p->kinds = xrealloc(p->kinds, (p->n_kinds + 1) * sizeof *p->kinds);
		k = &p->kinds[p->n_kinds++];
		*k = (struct kind_count){xstrdup(kind), 0, 0};
	}
	k->n++;
	if (!is_informational(kind))
		c->incomplete = true;
	if (c->verbose > 0 || (c->verbose == 0 && k->shown < CLI_SHOWN)) {
		k->shown++;
		put_line(c, text);
	}
	pthread_mutex_unlock(&p->lock);
}

void cli_start(struct cli *c, const char *prog)
{
	struct cli_priv *p = xalloc(sizeof *p);
	struct sigaction sa = {.sa_handler = on_ending, .sa_flags = SA_RESTART}, old;

	/* A closed descriptor would be reused by the first file we open, and that file written over. These three
	 * fail instead when they are used: the first cannot be read, the others cannot be written. */
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
			abort();

	*c = (struct cli){.prog = prog, .priv = p};
	c->warn = (struct warn){on_warn, c};
	pthread_mutex_init(&p->lock, NULL);
	p->out_fd = -1;
	p->out_handle = -1;
	p->tty = isatty(STDERR_FILENO);
	p->began = now_ns();
	p->last = p->began;
	atomic_store(&temps_of, getpid());

	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		sigaddset(&sa.sa_mask, ending[i]);
	for (size_t i = 0; i < sizeof ending / sizeof *ending; i++)
		if (sigaction(ending[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
			sigaction(ending[i], &sa, NULL);
	sa.sa_handler = on_usr1;
	sigaction(SIGUSR1, &sa, NULL);
}

static void own(struct cli_priv *p, void *mem)
{
	p->owned = xrealloc(p->owned, (p->n_owned + 1) * sizeof *p->owned);
	p->owned[p->n_owned++] = mem;
}

static void priv_free(struct cli_priv *p)
{
	if (p->popt != NULL)
		poptFreeContext(p->popt);
	for (size_t i = 0; i < p->n_owned; i++)
		free(p->owned[i]);
	free((void *)p->owned);
	for (size_t i = 0; i < p->n_kinds; i++)
		free(p->kinds[i].kind);
	free(p->kinds);
	for (size_t i = 0; i < p->n_stats; i++) {
		free(p->stats[i].name);
		free(p->stats[i].unit);
	}
	free(p->stats);
	free(p->out_tmp);
	free(p->out_path);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* Digits only, and no more than 64 bits of them. Moves *s behind them. */
static bool digits(const char **s, uint64_t *out)
{
	const char *at = *s;
	uint64_t v = 0;

	for (; *at >= '0' && *at <= '9'; at++)
		if (!mul_u64(v, 10, &v) || !add_u64(v, (uint64_t)(*at - '0'), &v))
			return false;
	if (at == *s)
		return false;
	*s = at;
	*out = v;
	return true;
}

bool cli_size(const char *s, uint64_t *out)
{
	static const char letters[] = "KMGTPE";
	const char *letter;
	uint64_t v, unit = 1, base = 1024;

	if (!digits(&s, &v))
		return false;
	if (*s == '\0' || strcmp(s, "B") == 0) {
		*out = v;
		return true;
	}
	letter = strchr(letters, *s == 'k' ? 'K' : *s);
	if (letter == NULL)
		return false;
	s++;
	if (strcmp(s, "B") == 0)
		base = 1000;
	else if (*s != '\0' && strcmp(s, "iB") != 0)
		return false;
	for (const char *l = letters; l <= letter; l++)
		unit *= base;
	if (!mul_u64(v, unit, &v))
		return false;
	*out = v;
	return true;
}

bool cli_duration(const char *s, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
		{"", SECOND}, {"s", SECOND}, {"ms", MS}, {"m", 60 * SECOND}, {"h", 3600 * SECOND},
		{"d", 86400 * SECOND},
	};
	uint64_t v;

	if (!digits(&s, &v))
		return false;
	for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
		if (strcmp(s, units[i].name) == 0) {
			if (!mul_u64(v, units[i].ns, &v))
				return false;
			*ns = v;
			return true;
		}
	}
	return false;
}

static bool number(const char *s, int64_t *out)
{
	bool is_negative = *s == '-';
	uint64_t v;

	if (is_negative || *s == '+')
		s++;
	if (!digits(&s, &v) || *s != '\0' || v > (uint64_t)INT64_MAX)
		return false;
	*out = is_negative ? -(int64_t)v : (int64_t)v;
	return true;
}

/* Prints one usage error with the way out; returns the status. */
static int __attribute__((format(printf, 2, 3))) usage_error(struct cli *c, const char *fmt, ...)
{
	struct cli_priv *p = c->priv;
	AUTO_BUF struct buf b = {0};
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	buf_fmt(&b, "%s; see '%s --help'", text, c->prog);
	pthread_mutex_lock(&p->lock);
	put_line(c, buf_cstr(&b));
	pthread_mutex_unlock(&p->lock);
	return ERR_USAGE;
}

/* Takes value (NULL for a flag) into the row's target. */
static int take(struct cli *c, const struct opt *o, char *value, int argc)
{
	char shown[256];
	bool ok = true;

	if (value != NULL) {
		own(c->priv, value);
		esc_cut(shown, sizeof shown, span_cstr(value));
	}
	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)o->out = true;
		return 0;
	case OPT_STRING:
		*(const char **)o->out = value;
		return 0;
	case OPT_LIST: {
		struct list *l = o->out;

		if (l->v == NULL) {
			/* Every use costs an argument: there cannot be more of them. */
			l->v = xalloc((size_t)argc * sizeof *l->v);
			l->tags = xalloc((size_t)argc);
			own(c->priv, (void *)l->v);
			own(c->priv, l->tags);
		}
		l->v[l->n] = value;
		l->tags[l->n++] = o->tag;
		return 0;
	}
	case OPT_SIZE:
		ok = cli_size(value, o->out);
		break;
	case OPT_NUMBER:
		ok = number(value, o->out);
		break;
	case OPT_DURATION:
		ok = cli_duration(value, o->out);
		break;
	}
	if (ok)
		return 0;
	return usage_error(c, "option '--%s' cannot be '%s': not a %s", o->name, shown,
		o->kind == OPT_SIZE ? "size such as 4096, 64K, 1MB or 2GiB" :
		o->kind == OPT_NUMBER ? "whole number" : "duration such as 90s, 15m, 6h or 2d");
}

/* Appends words from column `at`, continuing lines at column `indent`; the last line is ended. */
static void fill(struct buf *b, const char *text, size_t at, size_t indent)
{
	bool is_first = true;

	while (*text != '\0') {
		size_t n = strcspn(text, " ");

		if (!is_first && at + 1 + n > CLI_WIDTH) {
			buf_fmt(b, "\n%*s", (int)indent, "");
			at = indent;
			is_first = true;
		}
		if (!is_first) {
			buf_str(b, " ");
			at++;
		}
		buf_add(b, text, n);
		at += n;
		text += n;
		text += strspn(text, " ");
		is_first = false;
	}
	buf_str(b, "\n");
}

static void add_synopsis(struct buf *b, const char *prog, const char *options, const char *synopsis)
{
	const char *lead = "Usage: ";

	do {
		size_t n = strcspn(synopsis, "\n");
		AUTO_BUF struct buf line = {0};

		buf_fmt(&line, "%s%s%.*s", options, n > 0 ? " " : "", (int)n, synopsis);
		buf_fmt(b, "%s%s ", lead, prog);
		fill(b, buf_cstr(&line), strlen(lead) + strlen(prog) + 1, strlen(lead) + strlen(prog) + 1);
		lead = "       ";
		synopsis += n;
	} while (*synopsis++ == '\n');
}

static void add_option(struct buf *b, const struct opt *o)
{
	const size_t column = 28;
	size_t start = b->len;

	if (o->letter != 0)
		buf_fmt(b, "  -%c, --%s", o->letter, o->name);
	else
		buf_fmt(b, "      --%s", o->name);
	if (o->kind != OPT_FLAG)
		buf_fmt(b, "=%s", o->arg);
	if (b->len - start > column - 2) {
		buf_str(b, "\n");
		start = b->len;
	}
	buf_fmt(b, "%*s", (int)(column - (b->len - start)), "");
	fill(b, o->help, column, column);
}

/* Prints to standard output and ends the program: what --help and its like do. */
static _Noreturn void print_and_exit(struct cli *c, const struct buf *b)
{
	struct err e = {0};
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = write(STDOUT_FILENO, b->p + at, b->len - at);

		if (n < 0 && errno != EINTR) {
			err_sys(&e, "cannot write to standard output");
			exit(cli_finish(c, &e));
		}
		at += n > 0 ? (size_t)n : 0;
	}
	exit(cli_finish(c, NULL));
}

enum { COMMON_QUIET, COMMON_VERBOSE, COMMON_PROGRESS, COMMON_NO_PROGRESS, COMMON_STATS, COMMON_HELP, COMMON_USAGE,
	COMMON_VERSION };
static const struct opt common[] = {
	[COMMON_QUIET] = {"quiet", 'q', OPT_FLAG, NULL, NULL, "print errors only", 0},
	[COMMON_VERBOSE] = {"verbose", 'v', OPT_FLAG, NULL, NULL, "say more; again: still more", 0},
	[COMMON_PROGRESS] = {"progress", 0, OPT_FLAG, NULL, NULL,
		"show progress, also when standard error is no terminal", 0},
	[COMMON_NO_PROGRESS] = {"no-progress", 0, OPT_FLAG, NULL, NULL, "show none", 0},
	[COMMON_STATS] = {"stats", 0, OPT_FLAG, NULL, NULL, "print counts at the end", 0},
	[COMMON_HELP] = {"help", 0, OPT_FLAG, NULL, NULL, "print this and exit", 0},
	[COMMON_USAGE] = {"usage", 0, OPT_FLAG, NULL, NULL, "print a short form of it and exit", 0},
	[COMMON_VERSION] = {"version", 0, OPT_FLAG, NULL, NULL, "print the version and exit", 0},
};
#define N_COMMON (sizeof common / sizeof *common)

static void help(struct buf *b, const char *prog, const struct opt *opts, size_t n, const char *synopsis,
	const char *summary)
{
	add_synopsis(b, prog, "[OPTION...]", synopsis);
	fill(b, summary, 0, 0);
	buf_str(b, "\nOptions:\n");
	for (size_t i = 0; i < n; i++)
		add_option(b, &opts[i]);
	buf_str(b, n > 0 ? "\n" : "");
	for (size_t i = 0; i < N_COMMON; i++)
		add_option(b, &common[i]);
	buf_fmt(b, "\nThe manual is %s(1); repl(7) tells the whole story.\n", prog);
}

static void usage(struct buf *b, const char *prog, const struct opt *opts, size_t n, const char *synopsis)
{
	AUTO_BUF struct buf all = {0};

	buf_str(&all, "[-qv");
	for (size_t i = 0; i < n; i++)
		if (opts[i].letter != 0 && opts[i].kind == OPT_FLAG)
			buf_fmt(&all, "%c", opts[i].letter);
	buf_str(&all, "]");
	for (size_t i = 0; i < n; i++) {
		if (opts[i].kind != OPT_FLAG)
			buf_fmt(&all, " [--%s=%s]", opts[i].name, opts[i].arg);
		else if (opts[i].letter == 0)
			buf_fmt(&all, " [--%s]", opts[i].name);
	}
	for (size_t i = 0; i < N_COMMON; i++)
		if (common[i].letter == 0)
			buf_fmt(&all, " [--%s]", common[i].name);
	add_synopsis(b, prog, buf_cstr(&all), synopsis);
}

static int parse(struct cli *c, int argc, char **argv, const struct opt *opts, size_t n_opts,
	const char *synopsis, const char *summary)
{
	struct cli_priv *p = c->priv;
	struct poptOption *table = xalloc((n_opts + N_COMMON + 1) * sizeof *table);
	AUTO_BUF struct buf text = {0};
	const char **left;
	char shown[256];
	int rc;

	/* popt keeps the table: it lives as long as its context. Values are row numbers + 1, for 0 is taken. */
	own(p, table);
	for (size_t i = 0; i < n_opts + N_COMMON; i++) {
		const struct opt *o = i < n_opts ? &opts[i] : &common[i - n_opts];

		table[i] = (struct poptOption){.longName = o->name, .shortName = o->letter,
			.argInfo = o->kind == OPT_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING, .val = (int)i + 1};
	}
	/* No poptReadDefaultConfig: a forced command must not obey a file in somebody's home. */
	p->popt = poptGetContext(c->prog, argc, (const char **)(void *)argv, table, 0);
	if (p->popt == NULL)
		abort();
	while ((rc = poptGetNextOpt(p->popt)) > 0) {
		size_t row = (size_t)rc - 1;

		if (row < n_opts) {
			int bad = take(c, &opts[row], poptGetOptArg(p->popt), argc);

			if (bad != 0)
				return bad;
			continue;
		}
		switch (row - n_opts) {
		case COMMON_QUIET:
			c->verbose = -1;
			break;
		case COMMON_VERBOSE:
			c->verbose = c->verbose < 0 ? 1 : c->verbose + 1;
			break;
		case COMMON_PROGRESS:
		case COMMON_NO_PROGRESS:
			p->wants_progress = row - n_opts == COMMON_PROGRESS;
			p->wants_no_progress = !p->wants_progress;
			break;
		case COMMON_STATS:
			c->stats = true;
			break;
		case COMMON_HELP:
			help(&text, c->prog, opts, n_opts, synopsis, summary);
			print_and_exit(c, &text);
		case COMMON_USAGE:
			usage(&text, c->prog, opts, n_opts, synopsis);
			print_and_exit(c, &text);
		case COMMON_VERSION:
			buf_fmt(&text, "%s %s\nstream %d\nfeatures: %s\n", c->prog, CLI_VERSION,
				STREAM_VERSION, CLI_FEATURES);
			print_and_exit(c, &text);
		}
	}
	if (rc < -1) {
		esc_cut(shown, sizeof shown, span_cstr(poptBadOption(p->popt, POPT_BADOPTION_NOALIAS)));
		if (rc == POPT_ERROR_BADOPT)
			return usage_error(c, "unknown option '%s'", shown);
		if (rc == POPT_ERROR_NOARG)
			return usage_error(c, "option '%s' needs a value", shown);
		if (rc == POPT_ERROR_UNWANTEDARG)
			return usage_error(c, "option '%s' takes no value", shown);
		return usage_error(c, "option '%s': %s", shown, poptStrerror(rc));
	}
	c->progress = p->wants_progress || (!p->wants_no_progress && p->tty && c->verbose >= 0);
	left = poptGetArgs(p->popt);
	if (left == NULL) {
		left = xalloc(sizeof *left);
		own(p, (void *)left);
	}
	c->args = left;
	for (c->n_args = 0; left[c->n_args] != NULL;)
		c->n_args++;
	return 0;
}

int cli_options(struct cli *c, int argc, char **argv, const struct opt *opts, size_t n_opts,
	const char *synopsis, const char *summary)
{
	int rc = parse(c, argc, argv, opts, n_opts, synopsis, summary);

	if (rc != 0) {
		priv_free(c->priv);
		c->priv = NULL;
	}
	return rc;
}

const char *cli_env(const char *name)
{
	const char *v = getenv(name);

	return v == NULL || *v == '\0' ? NULL : v;
}

int cli_temp(struct cli *c, const char *path)
{
	char *copy = xstrdup(path);

	(void)c;
	for (int i = 0; i < CLI_TEMPS; i++) {
		char *none = NULL;

		if (atomic_compare_exchange_strong(&temps[i], &none, copy))
			return i;
	}
	free(copy);
	return -1;
}

void cli_forget(struct cli *c, int handle)
{
	(void)c;
	if (handle >= 0)
		free(atomic_exchange(&temps[handle], NULL));
}

int cli_not_tty(struct cli *c, int fd, const char *what, struct err *e)
{
	if (c->force || !isatty(fd))
		return 0;
	return err_set(e, ERR_USAGE, "will not %s a terminal", what);
}

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

		if (strncmp(path, dirs[i], strlen(dirs[i])) == 0 && digits(&at, &n) && *at == '\0' && n < INT_MAX)
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

int cli_output(struct cli *c, struct err *e)
{
	struct cli_priv *p = c->priv;
	AUTO_FREE char *path = NULL;
	AUTO_BUF struct buf tmp = {0};
	struct stat st;
	char shown[256];
	bool exists;
	mode_t mask;
	int fd;

	if (p->out_fd >= 0)
		return p->out_fd;
	if (c->output == NULL || strcmp(c->output, "-") == 0)
		return p->out_fd = STDOUT_FILENO;
	esc_cut(shown, sizeof shown, span_cstr(c->output));
	fd = named_fd(c->output);
	if (fd >= 0) {
		fd = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		if (fd < 0)
			return err_sys(e, "cannot open '%s'", shown);
		p->out_path = xstrdup(c->output);
		return p->out_fd = fd;
	}
	path = resolve(c->output, &st, &exists, e);
	if (path == NULL)
		return -1;
	if (exists && !S_ISREG(st.st_mode)) {
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return err_sys(e, "cannot open '%s'", shown);
		p->out_path = path;
		path = NULL;
		return p->out_fd = fd;
	}
	if (exists && !c->force)
		return err_set(e, ERR_REFUSED, "will not overwrite '%s' without --force", shown);

	const char *slash = strrchr(path, '/');
	int dir_len = slash == NULL ? 0 : (int)(slash - path) + 1;
	buf_fmt(&tmp, "%.*s.%s.XXXXXX", dir_len, path, c->prog);
	buf_cstr(&tmp);
	/* No signal comes between the file and the note that it has to be removed. */
	sigset_t all, was;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	fd = mkostemp((char *)tmp.p, O_CLOEXEC);
	if (fd >= 0) {
		p->out_tmp = xstrdup((char *)tmp.p);
		p->out_handle = cli_temp(c, p->out_tmp);
	}
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	if (fd < 0)
		return err_sys(e, "cannot create a file next to '%s'", shown);
	p->out_path = path;
	path = NULL;
	p->out_fd = fd;
	mask = umask(0);
	umask(mask);
	if (fchmod(fd, exists ? st.st_mode & 0777u : 0666u & ~mask) != 0)
		return err_sys(e, "cannot set the mode of '%s'", p->out_tmp);
	return fd;
}

/* The output file, in steps that a crash may part:
 *   fsync tmp           before: a temporary is left behind, the old file stands
 *   rename tmp -> path  before: the same; after: the new file stands, perhaps not for good
 *   fsync directory     after: it stands for good
 */
static int keep_output(struct cli *c, struct err *e)
{
	struct cli_priv *p = c->priv;
	const char *slash = strrchr(p->out_path, '/');
	AUTO_FREE char *dir = slash == NULL ? xstrdup(".") : xstrdup(p->out_path);
	AUTO_CLOSE int dir_fd = -1;
	char shown[256];
	int fd = p->out_fd;

	esc_cut(shown, sizeof shown, span_cstr(p->out_path));
	p->out_fd = -1;
	if (p->out_tmp != NULL && fsync(fd) != 0) {
		err_sys(e, "cannot write '%s'", shown);
		close(fd);
		return -1;
	}
	if (close(fd) != 0)
		return err_sys(e, "cannot write '%s'", shown);
	if (p->out_tmp == NULL)
		return 0;
	if (rename(p->out_tmp, p->out_path) != 0)
		return err_sys(e, "cannot rename '%s' to '%s'", p->out_tmp, shown);
	cli_forget(c, p->out_handle);
	p->out_handle = -1;
	if (slash != NULL)
		dir[slash - p->out_path + 1] = '\0';
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0 || fsync(dir_fd) != 0)
		return err_sys(e, "cannot make the name '%s' durable", shown);
	return 0;
}

/* Closes what was written; the last moment at which a full disk can be noticed. */
static int close_output(struct cli *c, bool is_good, struct err *e)
{
	struct cli_priv *p = c->priv;
	int rc = 0;

	if (fflush(stdout) != 0 || ferror(stdout))
		rc = err_sys(e, "cannot write to standard output");
	if (close(STDOUT_FILENO) != 0 && rc == 0)
		rc = err_sys(e, "cannot write to standard output");
	if (p->out_fd > STDERR_FILENO) {
		if (is_good && rc == 0)
			rc = keep_output(c, e);
		else
			close(p->out_fd);
	}
	return rc;
}

static void print_stats(struct cli *c)
{
	struct cli_priv *p = c->priv;
	AUTO_BUF struct buf b = {0};
	size_t width = 0;

	for (size_t i = 0; i < p->n_stats; i++)
		width = strlen(p->stats[i].name) > width ? strlen(p->stats[i].name) : width;
	for (size_t i = 0; i < p->n_stats; i++) {
		buf_reset(&b);
		buf_fmt(&b, "%s:%*s %12" PRIu64 "%s%s", p->stats[i].name,
			(int)(width - strlen(p->stats[i].name)), "", p->stats[i].value,
			*p->stats[i].unit == '\0' ? "" : " ", p->stats[i].unit);
		put_line(c, buf_cstr(&b));
	}
}

static void put_error(struct cli *c, const struct err *e)
{
	struct cli_priv *p = c->priv;

	if (e->kind == ERR_USAGE)
		usage_error(c, "%s", e->text);
	else {
		pthread_mutex_lock(&p->lock);
		put_line(c, e->text);
		pthread_mutex_unlock(&p->lock);
	}
}

int cli_finish(struct cli *c, const struct err *e)
{
	struct cli_priv *p = c->priv;
	struct err late = {0};
	bool failed = e != NULL && e->kind != ERR_NONE;
	/* An image that is whole but for what was reported is kept. */
	bool is_good = !failed || e->kind == ERR_INCOMPLETE;
	int status = failed ? (int)e->kind : c->incomplete ? ERR_INCOMPLETE : 0;
	bool is_quiet = failed && e->sys == EPIPE;

	if (failed && !is_quiet)
		put_error(c, e);
	if (close_output(c, is_good, &late) != 0 && !failed) {
		status = (int)late.kind;
		is_quiet = late.sys == EPIPE;
		if (!is_quiet)
			put_error(c, &late);
	}
	pthread_mutex_lock(&p->lock);
	if (p->is_line_open) {
		AUTO_BUF struct buf b = {0};

		buf_str(&b, "\r\033[K");
		put_stderr(&b);
		p->is_line_open = false;
	}
	for (size_t i = 0; i < p->n_kinds && c->verbose >= 0; i++) {
		AUTO_BUF struct buf b = {0};

		if (p->kinds[i].n == p->kinds[i].shown)
			continue;
		buf_fmt(&b, "%" PRIu64 " more: %s", p->kinds[i].n - p->kinds[i].shown, p->kinds[i].kind);
		put_line(c, buf_cstr(&b));
	}
	if (c->stats && !is_quiet)
		print_stats(c);
	pthread_mutex_unlock(&p->lock);
	remove_temps(false);
	c->priv = NULL;
	c->args = NULL;
	c->n_args = 0;
	priv_free(p);
	if (is_quiet) {
		/* The reader went away and SIGPIPE was ignored on our behalf: end as if it had not been. */
		on_ending(SIGPIPE);
		return 128 + SIGPIPE;
	}
	return status;
}

void cli_say(struct cli *c, int level, const char *fmt, ...)
{
	struct cli_priv *p = c->priv;
	AUTO_FREE char *text = NULL;
	va_list ap;
	int n;

	if (c->verbose < level)
		return;
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		text = NULL;
		return;
	}
	pthread_mutex_lock(&p->lock);
	put_line(c, text);
	pthread_mutex_unlock(&p->lock);
}

static void add_amount(struct buf *b, uint64_t n)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	uint64_t tenths = n * 10;
	size_t i = 0;

	if (n < 1024) {
		buf_fmt(b, "%" PRIu64 " B", n);
		return;
	}
	if (n > UINT64_MAX / 10) {
		tenths = n / 1024 * 10;
		i = 1;
	}
	for (; tenths >= 10240; i++)
		tenths /= 1024;
	buf_fmt(b, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, unit[i]);
}

void cli_progress(struct cli *c, uint64_t done, uint64_t total, uint64_t items, const char *what)
{
	struct cli_priv *p = c->priv;
	bool is_asked = cli_usr1 != 0;
	AUTO_BUF struct buf b = {0};
	uint64_t now;

	if (!c->progress && !is_asked)
		return;
	now = now_ns();
	pthread_mutex_lock(&p->lock);
	if (!is_asked && now - p->last < (p->tty ? 200 * MS : 10 * SECOND)) {
		pthread_mutex_unlock(&p->lock);
		return;
	}
	p->last = now;
	cli_usr1 = 0;
	buf_fmt(&b, "%s: ", what);
	add_amount(&b, done);
	if (total > 0) {
		buf_str(&b, " of ");
		add_amount(&b, total);
		/* Percent of a total that may be near 2^64. */
		buf_fmt(&b, " (%" PRIu64 "%%)", total < 100 ? min_u64(done, total) * 100 / total :
			min_u64(done / (total / 100), 100));
	}
	if (items > 0)
		buf_fmt(&b, ", %" PRIu64 " items", items);
	if (now - p->began >= SECOND) {
		buf_str(&b, ", ");
		add_amount(&b, done / ((now - p->began) / SECOND));
		buf_str(&b, "/s");
	}
	if (p->tty && !is_asked) {
		AUTO_BUF struct buf line = {0};

		buf_fmt(&line, "\r%s: ", c->prog);
		add_safe(&line, buf_cstr(&b));
		buf_str(&line, "\033[K");
		put_stderr(&line);
		p->is_line_open = true;
	} else {
		put_line(c, buf_cstr(&b));
	}
	pthread_mutex_unlock(&p->lock);
}

void cli_stat(struct cli *c, const char *name, uint64_t value, const char *unit)
{
	struct cli_priv *p = c->priv;
	struct stat_row *row = NULL;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < p->n_stats && row == NULL; i++)
		if (strcmp(p->stats[i].name, name) == 0)
			row = &p->stats[i];
	if (row == NULL) {
		p->stats = xrealloc(p->stats, (p->n_stats + 1) * sizeof *p->stats);
		row = &p->stats[p->n_stats++];
		*row = (struct stat_row){xstrdup(name), xstrdup(unit == NULL ? "" : unit), 0};
	}
	row->value = value;
	pthread_mutex_unlock(&p->lock);
}

int cli_key(struct buf *key, const char *path, struct err *e)
{
	uint8_t bytes[STREAM_KEY_MAX + 2]; /* one for the newline, one to notice what is too long */
	size_t n = 0;
	AUTO_CLOSE int fd = -1;
	struct stat st;
	char shown[256];
	ssize_t got;

	esc_cut(shown, sizeof shown, span_cstr(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) != 0)
		return err_sys(e, "cannot read key file '%s'", shown);
	/* A pipe (the shell's <(...)) has no readers but us. */
	if (S_ISREG(st.st_mode) && (st.st_mode & 077) != 0)
		return err_set(e, ERR_REFUSED, "will not use key file '%s': others have access to it (mode %03o)",
			shown, st.st_mode & 0777u);
	while (n < sizeof bytes && (got = read(fd, bytes + n, sizeof bytes - n)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			err_sys(e, "cannot read key file '%s'", shown);
			explicit_bzero(bytes, sizeof bytes);
			return -1;
		}
		n += (size_t)got;
	}
	if (n > 0 && bytes[n - 1] == '\n')
		n--;
	if (n > STREAM_KEY_MAX) {
		explicit_bzero(bytes, sizeof bytes);
		return err_set(e, ERR_USAGE, "key file '%s' holds more than %d bytes", shown, STREAM_KEY_MAX);
	}
	if (n == 0)
		return err_set(e, ERR_USAGE, "key file '%s' is empty", shown);
	buf_reset(key);
	buf_add(key, bytes, n);
	explicit_bzero(bytes, sizeof bytes);
	return 0;
}

void cli_item(struct cli *c, const char *code, const char *name)
{
	(void)c;
	fprintf(stderr, "%s %s\n", code, name);
}
