#include "options.h"

#include <popt.h>
#include <stdlib.h>

#include "value.h"

#define WIDTH 80u
#define LIST_STEP 16u

static void own(struct options *o, void *mem)
{
	o->owned = xrealloc(o->owned, (o->n_owned + 1) * sizeof *o->owned);
	o->owned[o->n_owned++] = mem;
}

void options_free(struct options *o)
{
	if (o->popt != NULL)
		poptFreeContext(o->popt);
	for (size_t i = 0; i < o->n_owned; i++)
		free(o->owned[i]);
	free((void *)o->owned);
	buf_free(&o->print);
	*o = (struct options){0};
}

static void append(struct options *all, struct list *l, const char *value, char tag)
{
	/* What was handed out before stays where it is. */
	if (l->n % LIST_STEP == 0) {
		const char **v = xalloc((l->n + LIST_STEP) * sizeof *v);
		char *tags = xalloc(l->n + LIST_STEP);
		if (l->n) {
			memcpy((void *)v, (const void *)l->v, l->n * sizeof *v);
			memcpy(tags, l->tags, l->n);
		}
		own(all, (void *)v);
		own(all, tags);
		l->v = v;
		l->tags = tags;
	}
	l->v[l->n] = value;
	l->tags[l->n++] = tag;
}

/* Takes value (NULL for a flag) into the row's target. */
static int take(struct options *all, const struct opt *o, char *value, struct err *e)
{
	char shown[256];
	bool ok = true;

	if (value != NULL) {
		own(all, value);
		esc_cut(shown, sizeof shown, span_cstr(value));
	}
	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)o->out = true;
		return 0;
	case OPT_STRING:
		*(const char **)o->out = value;
		return 0;
	case OPT_LIST:
		append(all, o->out, value, o->tag);
		return 0;
	case OPT_SIZE:
		ok = value_size(value, o->out);
		break;
	case OPT_NUMBER:
		ok = value_number(value, o->out);
		break;
	case OPT_DURATION:
		ok = value_duration(value, o->out);
		break;
	}
	if (ok)
		return 0;
	return err_set(e, ERR_USAGE, "option '--%s' cannot be '%s': not a %s", o->name, shown,
		o->kind == OPT_SIZE ? "size such as 4096, 64K, 1MB or 2GiB" :
		o->kind == OPT_NUMBER ? "whole number" : "duration such as 90s, 15m, 6h or 2d");
}

/* Appends words from column `at`, continuing lines at column `indent`; the last line is ended. */
static void fill(struct buf *b, const char *text, size_t at, size_t indent)
{
	bool is_first = true;

	while (*text != '\0') {
		size_t n = strcspn(text, " ");

		if (!is_first && at + 1 + n > WIDTH) {
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

static void help(struct buf *b, const struct options_of *of)
{
	add_synopsis(b, of->prog, "[OPTION...]", of->synopsis);
	fill(b, of->summary, 0, 0);
	buf_str(b, "\nOptions:\n");
	for (size_t i = 0; i < of->n_opts; i++)
		add_option(b, &of->opts[i]);
	buf_str(b, of->n_opts > 0 ? "\n" : "");
	for (size_t i = 0; i < N_COMMON; i++)
		add_option(b, &common[i]);
	buf_fmt(b, "\nThe manual is %s(1); repl(7) tells the whole story.\n", of->prog);
}

static void usage(struct buf *b, const struct options_of *of)
{
	AUTO_BUF struct buf all = {0};

	buf_str(&all, "[-qv");
	for (size_t i = 0; i < of->n_opts; i++)
		if (of->opts[i].letter != 0 && of->opts[i].kind == OPT_FLAG)
			buf_fmt(&all, "%c", of->opts[i].letter);
	buf_str(&all, "]");
	for (size_t i = 0; i < of->n_opts; i++) {
		if (of->opts[i].kind != OPT_FLAG)
			buf_fmt(&all, " [--%s=%s]", of->opts[i].name, of->opts[i].arg);
		else if (of->opts[i].letter == 0)
			buf_fmt(&all, " [--%s]", of->opts[i].name);
	}
	for (size_t i = 0; i < N_COMMON; i++)
		if (common[i].letter == 0)
			buf_fmt(&all, " [--%s]", common[i].name);
	add_synopsis(b, of->prog, buf_cstr(&all), of->synopsis);
}

static void take_common(struct options *o, size_t which, const struct options_of *of)
{
	switch (which) {
	case COMMON_QUIET:
		o->verbose = -1;
		break;
	case COMMON_VERBOSE:
		o->verbose = o->verbose < 0 ? 1 : o->verbose + 1;
		break;
	case COMMON_PROGRESS:
	case COMMON_NO_PROGRESS:
		o->progress = which == COMMON_PROGRESS;
		o->no_progress = !o->progress;
		break;
	case COMMON_STATS:
		o->stats = true;
		break;
	case COMMON_HELP:
		help(&o->print, of);
		break;
	case COMMON_USAGE:
		usage(&o->print, of);
		break;
	case COMMON_VERSION:
		buf_fmt(&o->print, "%s %s", of->prog, of->version);
		break;
	}
}

/* popt keeps the table: it lives as long as its context. Values are row numbers + 1, for 0 is taken. */
static void open_popt(struct options *o, int argc, char **argv, const struct options_of *of)
{
	size_t n = of->n_opts + N_COMMON;
	struct poptOption *table = xalloc((n + 1) * sizeof *table);

	own(o, table);
	for (size_t i = 0; i < n; i++) {
		const struct opt *row = i < of->n_opts ? &of->opts[i] : &common[i - of->n_opts];

		table[i] = (struct poptOption){.longName = row->name, .shortName = row->letter,
			.argInfo = row->kind == OPT_FLAG ? POPT_ARG_NONE : POPT_ARG_STRING, .val = (int)i + 1};
	}
	/* No poptReadDefaultConfig: a forced command must not obey a file in somebody's home. */
	o->popt = poptGetContext(of->prog, argc, (const char **)(void *)argv, table, 0);
	if (o->popt == NULL)
		abort();
}

int options_parse(struct options *o, int argc, char **argv, const struct options_of *of, struct err *e)
{
	const char **left;
	char shown[256];
	int rc;

	open_popt(o, argc, argv, of);
	o->given = xalloc(of->n_opts + 1);
	own(o, o->given);
	while ((rc = poptGetNextOpt(o->popt)) > 0) {
		size_t row = (size_t)rc - 1;

		if (row < of->n_opts) {
			if (take(o, &of->opts[row], poptGetOptArg(o->popt), e) < 0)
				return -1;
			o->given[row] = true;
			continue;
		}
		take_common(o, row - of->n_opts, of);
		if (o->print.len > 0)
			return 0;
	}
	if (rc < -1) {
		esc_cut(shown, sizeof shown, span_cstr(poptBadOption(o->popt, POPT_BADOPTION_NOALIAS)));
		if (rc == POPT_ERROR_BADOPT)
			return err_set(e, ERR_USAGE, "unknown option '%s'", shown);
		if (rc == POPT_ERROR_NOARG)
			return err_set(e, ERR_USAGE, "option '%s' needs a value", shown);
		if (rc == POPT_ERROR_UNWANTEDARG)
			return err_set(e, ERR_USAGE, "option '%s' takes no value", shown);
		return err_set(e, ERR_USAGE, "option '%s': %s", shown, poptStrerror(rc));
	}
	left = poptGetArgs(o->popt);
	if (left == NULL) {
		left = xalloc(sizeof *left);
		own(o, (void *)left);
	}
	o->args = left;
	return 0;
}

int options_default(struct options *o, const struct options_of *of, const char *name, const char *value, struct err *e)
{
	size_t row = 0;

	while (row < of->n_opts && strcmp(of->opts[row].name, name))
		row++;
	if (row == of->n_opts || (o->given[row] && of->opts[row].kind != OPT_LIST))
		return 0;
	if (of->opts[row].kind != OPT_FLAG)
		return take(o, &of->opts[row], xstrdup(value), e);
	return strcmp(value, "yes") ? 0 : take(o, &of->opts[row], NULL, e);
}
