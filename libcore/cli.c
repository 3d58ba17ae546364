#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "output.h"
#include "policy.h"
#include "store.h"
#include "stream.h"
#include "terminal.h"

#define VERSION "0.1.0"
#define FEATURES "zstd blake2b lmdb"
#define SHOWN 3u /* warnings of a kind that are printed in full */

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
	const struct opt *opts; /* the program's */
	size_t n_opts;
	struct options options;
	struct policy policy;   /* what options point into */
	const char **roots;     /* of the policy, NULL-terminated */
	int n_roots;
	struct terminal terminal;
	struct output output;
	pthread_mutex_t lock; /* engines warn and count from their threads */
	struct kind_count *kinds;
	size_t n_kinds;
	struct stat_row *stats;
	size_t n_stats;
};

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
	if (c->verbose > 0 || (c->verbose == 0 && k->shown < SHOWN)) {
		k->shown++;
		terminal_line(&p->terminal, text);
	}
	pthread_mutex_unlock(&p->lock);
}

/* ---- a catalog that LMDB faults on ---- */

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
#define N_FAULTS (sizeof faults / sizeof *faults)
/* For the handler, which has nobody to ask. */
static struct sigaction faults_were[N_FAULTS];
static const char *fault_prog;

static void on_fault(int sig, siginfo_t *how, void *ctx)
{
	const char *line = store_at_work();

	(void)ctx;
	if (line) {
		output_fail(fault_prog, line);
		_exit(ERR_SYSTEM);
	}
	/* It is ours: it strikes again, as it would have without us; what somebody sent does not do so by itself (sigaction(2), si_code). */
	for (size_t i = 0; i < N_FAULTS; i++)
		if (faults[i] == sig)
			sigaction(sig, &faults_were[i], NULL);
	if (how->si_code <= 0)
		raise(sig);
}

static void catch_faults(const char *prog)
{
	struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	fault_prog = prog;
	sigemptyset(&sa.sa_mask);
	for (size_t i = 0; i < N_FAULTS; i++)
		sigaction(faults[i], &sa, &faults_were[i]);
}

void cli_start(struct cli *c, const char *prog)
{
	struct cli_priv *p = xalloc(sizeof *p);

	/* A closed descriptor would be reused by the first file we open, and that file written over. These three
	 * fail instead when they are used: the first cannot be read, the others cannot be written. */
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY) != fd)
			abort();

	*c = (struct cli){.prog = prog, .priv = p};
	c->warn = (struct warn){on_warn, c};
	pthread_mutex_init(&p->lock, NULL);
	terminal_start(&p->terminal, prog);
	output_start();
	catch_faults(prog);
}

static void priv_free(struct cli_priv *p)
{
	options_free(&p->options);
	policy_free(&p->policy);
	free((void *)p->roots);
	terminal_free(&p->terminal);
	output_free(&p->output);
	for (size_t i = 0; i < p->n_kinds; i++)
		free(p->kinds[i].kind);
	free(p->kinds);
	for (size_t i = 0; i < p->n_stats; i++) {
		free(p->stats[i].name);
		free(p->stats[i].unit);
	}
	free(p->stats);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void put_error(struct cli *c, const struct err *e)
{
	struct cli_priv *p = c->priv;
	AUTO_BUF struct buf b = {0};

	buf_str(&b, e->text);
	if (e->kind == ERR_SYSTEM && c->about.path && !strstr(e->text, c->about.path))
		buf_fmt(&b, " (%s '%s')", c->about.what, c->about.path);
	if (e->kind == ERR_USAGE)
		buf_fmt(&b, "; see '%s --help'", c->prog);
	terminal_line(&p->terminal, buf_cstr(&b));
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

int cli_options(struct cli *c, int argc, char **argv, const struct opt *opts, size_t n_opts,
	const char *synopsis, const char *summary)
{
	struct cli_priv *p = c->priv;
	struct options *o = &p->options;
	AUTO_BUF struct buf version = {0};
	struct err e = {0};

	buf_fmt(&version, "%s\nstream %d\nfeatures: %s\n", VERSION, STREAM_VERSION, FEATURES);
	if (options_parse(o, argc, argv, &(struct options_of){.prog = c->prog, .opts = opts, .n_opts = n_opts,
			.synopsis = synopsis, .summary = summary, .version = buf_cstr(&version)}, &e) < 0) {
		put_error(c, &e);
		priv_free(p);
		c->priv = NULL;
		return ERR_USAGE;
	}
	p->opts = opts;
	p->n_opts = n_opts;
	c->verbose = o->verbose;
	c->stats = o->stats;
	if (o->print.len > 0)
		print_and_exit(c, &o->print);
	c->progress = o->progress || (!o->no_progress && p->terminal.is_tty && c->verbose >= 0);
	c->args = o->args;
	for (c->n_args = 0; c->args[c->n_args] != NULL;)
		c->n_args++;
	return 0;
}

static int take_line(struct cli *c, const struct policy_line *l, bool takes_roots, struct err *e)
{
	struct cli_priv *p = c->priv;
	const struct options_of of = {.prog = c->prog, .opts = p->opts, .n_opts = p->n_opts};

	if (!strstr(l->of, c->prog))
		return 0;
	if (strcmp(l->key, "root"))
		return options_default(&p->options, &of, l->key, l->value, e);
	if (takes_roots)
		p->roots[p->n_roots++] = l->value;
	return 0;
}

int cli_policy(struct cli *c, const char *state, bool takes_roots, struct err *e)
{
	struct cli_priv *p = c->priv;

	c->about.what = "state";
	c->about.path = state;
	policy_free(&p->policy);
	if (policy_load(&p->policy, state, e))
		return -1;
	p->roots = xrealloc((void *)p->roots, (p->policy.n + 1) * sizeof *p->roots);
	p->n_roots = 0;
	for (size_t i = 0; i < p->policy.n; i++)
		if (take_line(c, &p->policy.v[i], takes_roots && !c->n_args, e))
			return -1;
	if (p->n_roots) {
		p->roots[p->n_roots] = NULL;
		c->args = p->roots;
		c->n_args = p->n_roots;
	}
	return 0;
}

const char *cli_env(const char *name)
{
	const char *v = getenv(name);

	return v == NULL || *v == '\0' ? NULL : v;
}

int cli_not_tty(struct cli *c, int fd, const char *what, struct err *e)
{
	if (c->force || !isatty(fd))
		return 0;
	return err_set(e, ERR_USAGE, "will not %s a terminal", what);
}

int cli_output(struct cli *c, struct err *e)
{
	struct cli_priv *p = c->priv;

	return output_open(&p->output, &(struct output_options){c->prog, c->output, c->force}, e);
}

/* What was not shown of the warnings. */
static void print_more(struct cli_priv *p)
{
	for (size_t i = 0; i < p->n_kinds; i++) {
		AUTO_BUF struct buf b = {0};

		if (p->kinds[i].n == p->kinds[i].shown)
			continue;
		buf_fmt(&b, "%" PRIu64 " more: %s", p->kinds[i].n - p->kinds[i].shown, p->kinds[i].kind);
		terminal_line(&p->terminal, buf_cstr(&b));
	}
}

static void print_stats(struct cli_priv *p)
{
	AUTO_BUF struct buf b = {0};
	size_t width = 0;

	for (size_t i = 0; i < p->n_stats; i++)
		width = strlen(p->stats[i].name) > width ? strlen(p->stats[i].name) : width;
	for (size_t i = 0; i < p->n_stats; i++) {
		buf_reset(&b);
		buf_fmt(&b, "%s:%*s %12" PRIu64 "%s%s", p->stats[i].name,
			(int)(width - strlen(p->stats[i].name)), "", p->stats[i].value,
			*p->stats[i].unit == '\0' ? "" : " ", p->stats[i].unit);
		terminal_line(&p->terminal, buf_cstr(&b));
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
	if (output_close(&p->output, is_good, &late) != 0 && !failed) {
		status = (int)late.kind;
		is_quiet = late.sys == EPIPE;
		if (!is_quiet)
			put_error(c, &late);
	}
	terminal_wipe(&p->terminal);
	if (c->verbose >= 0)
		print_more(p);
	if (c->stats && !is_quiet)
		print_stats(p);
	c->priv = NULL;
	c->args = NULL;
	c->n_args = 0;
	priv_free(p);
	if (is_quiet) {
		output_broken();
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
	terminal_line(&p->terminal, text);
}

void cli_item(struct cli *c, const char *code, const char *name)
{
	(void)c;
	fprintf(stderr, "%s %s\n", code, name);
}

void cli_progress(struct cli *c, uint64_t done, uint64_t total, uint64_t items, const char *what)
{
	struct cli_priv *p = c->priv;

	terminal_progress(&p->terminal, c->progress, &(struct terminal_progress){done, total, items, what});
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

int cli_die(int sig)
{
	sigset_t just;

	sigemptyset(&just);
	sigaddset(&just, sig);
	raise(sig);
	pthread_sigmask(SIG_UNBLOCK, &just, NULL);
	return 128 + sig;
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
