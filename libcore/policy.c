#include "policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "codec.h"
#include "digest.h"
#include "file.h"
#include "pool.h"
#include "queue.h"
#include "snapexec.h"
#include "value.h"

#define TEXT_MAX (1u << 20)
#define SHOWN 200u

/* What a value must be beyond its kind, in the words of a message; NULL: anything. */
static const char *provider(const char *v)
{
	return snapexec_is_name(v) ? NULL : "a provider: auto, live, btrfs, reflink, exec:PROGRAM, or the name of a program";
}

static const char *grain(const char *v)
{
	uint64_t n;

	return value_size(v, &n) && digest_is_grain(n) ? NULL : "4K, 16K, 64K, 256K or 1M";
}

static const char *clones(const char *v)
{
	uint64_t n;

	return !strcmp(v, "never") || value_size(v, &n) ? NULL : "a size such as 16M, or never";
}

static const char *level(const char *v)
{
	int64_t n;

	return value_number(v, &n) && n >= codec_level_min() && n <= codec_level_max() ? NULL : "a level of zstd";
}

static const char *reach(const char *v)
{
	int64_t n;

	return value_number(v, &n) && n >= CODEC_LONG_MIN && n <= CODEC_LONG_MAX ? NULL : "a number that --long takes";
}

static const char *chunk(const char *v)
{
	uint64_t n;

	return value_size(v, &n) && n >= CODEC_CHUNK_MIN && n <= CODEC_CHUNK_MAX ? NULL : "a size from 4K to 8M";
}

static const char *threads(const char *v)
{
	int64_t n;

	return value_number(v, &n) && n >= 0 && n <= POOL_THREADS_MAX ? NULL : "a number of threads";
}

/* Whichever program looks, and wherever it runs. */
static const char *queue(const char *v)
{
	return *v == '/' || !strcmp(v, "none") ? NULL : "an absolute path, or none";
}

static const char *limit(const char *v)
{
	uint64_t files, bytes;

	return queue_limit(v, &files, &bytes) ? NULL : "a number of deltas or a size such as 10G";
}

#define SNAP "repl-snap"
#define TRACK "repl-track"
#define DIFF "repl-diff"
#define PACK "repl-pack"

static const struct key {
	const char *name;
	enum opt_kind kind;
	const char *of; /* the programs that it is for: another may have an option of the same name */
	const char *(*wants)(const char *value);
} keys[] = {
	{"root", OPT_LIST, SNAP " " TRACK, NULL},
	{"group", OPT_STRING, SNAP, NULL},
	{"provider", OPT_STRING, SNAP, provider},
	{"providers", OPT_STRING, SNAP, NULL},
	{"provider-timeout", OPT_DURATION, SNAP, NULL},
	{"quiesce", OPT_STRING, SNAP, NULL},
	{"resume", OPT_STRING, SNAP, NULL},
	{"quiesce-timeout", OPT_DURATION, SNAP, NULL},
	{"crash-consistent", OPT_FLAG, SNAP, NULL},
	{"freeze", OPT_FLAG, SNAP, NULL},
	{"freeze-limit", OPT_DURATION, SNAP, NULL},
	{"cut-timeout", OPT_DURATION, SNAP " " TRACK, NULL},
	{"queue", OPT_STRING, SNAP " " PACK, queue},
	{"queue-limit", OPT_STRING, SNAP, limit},
	{"chain", OPT_FLAG, SNAP, NULL},
	{"journal", OPT_STRING, TRACK, NULL},
	{"interval", OPT_DURATION, TRACK, NULL},
	{"changes", OPT_SIZE, TRACK, NULL},
	{"bytes", OPT_SIZE, TRACK, NULL},
	{"settle", OPT_DURATION, TRACK, NULL},
	{"keepalive", OPT_DURATION, TRACK, NULL},
	{"include", OPT_LIST, DIFF, NULL},
	{"exclude", OPT_LIST, DIFF, NULL},
	{"exclude-from", OPT_LIST, DIFF, NULL},
	{"one-file-system", OPT_FLAG, DIFF, NULL},
	{"block-size", OPT_SIZE, DIFF, grain},
	{"clones", OPT_STRING, DIFF, clones},
	{"checksum", OPT_FLAG, DIFF, NULL},
	{"no-copies", OPT_FLAG, DIFF, NULL},
	{"ship-unsettled", OPT_FLAG, DIFF, NULL},
	{"key-file", OPT_STRING, DIFF " " PACK, NULL},
	{"level", OPT_NUMBER, PACK, level},
	{"long", OPT_NUMBER, PACK, reach},
	{"adapt", OPT_FLAG, PACK, NULL},
	{"rate", OPT_SIZE, PACK, NULL},
	{"chunk", OPT_SIZE, PACK, chunk},
	{"threads", OPT_NUMBER, TRACK " " DIFF " " PACK, threads},
};
#define N_KEYS (sizeof keys / sizeof *keys)

/* What the value should be; NULL: it is. */
static const char *expected(const struct key *k, const char *value)
{
	uint64_t u;
	int64_t i;

	if (k->wants)
		return k->wants(value);
	switch (k->kind) {
	case OPT_FLAG:
		return !strcmp(value, "yes") || !strcmp(value, "no") ? NULL : "yes or no";
	case OPT_SIZE:
		return value_size(value, &u) ? NULL : "a size such as 4096, 64K, 1MB or 2GiB";
	case OPT_NUMBER:
		return value_number(value, &i) ? NULL : "a whole number";
	case OPT_DURATION:
		return value_duration(value, &u) ? NULL : "a duration such as 90s, 15m, 6h or 2d";
	case OPT_STRING:
	case OPT_LIST:
		break;
	}
	return *value ? NULL : "a value";
}

static int wrong(const char *path, unsigned line, const char *what, struct err *e)
{
	return err_set(e, ERR_USAGE, "'%s', line %u: %s", path, line, what);
}

static char *trimmed(char *from, char *end)
{
	while (end > from && strchr(" \t\r", end[-1]))
		end--;
	*end = '\0';
	return from + strspn(from, " \t");
}

static int check(const struct policy *p, const char *path, struct policy_line *l, struct err *e)
{
	char text[SHOWN], shown[SHOWN + 200];
	size_t k = 0;

	while (k < N_KEYS && strcmp(keys[k].name, l->key))
		k++;
	if (k == N_KEYS) {
		snprintf(shown, sizeof shown, "unknown key '%s'", esc_cut(text, sizeof text, span_cstr(l->key)));
		return wrong(path, l->no, shown, e);
	}
	const char *what = expected(&keys[k], l->value);
	if (what) {
		snprintf(shown, sizeof shown, "%s is '%s', not %s", l->key, esc_cut(text, sizeof text, span_cstr(l->value)), what);
		return wrong(path, l->no, shown, e);
	}
	for (size_t i = 0; i < p->n && keys[k].kind != OPT_LIST; i++)
		if (!strcmp(p->v[i].key, l->key)) {
			snprintf(shown, sizeof shown, "%s was set in line %u already", l->key, p->v[i].no);
			return wrong(path, l->no, shown, e);
		}
	l->of = keys[k].of;
	return 0;
}

static int parse(struct policy *p, const char *path, struct err *e)
{
	char *at = (char *)p->text.p, *end = at + p->text.len;

	for (unsigned no = 1; at < end; no++) {
		char *nl = memchr(at, '\n', (size_t)(end - at)), *stop = nl ? nl : end;
		if (memchr(at, '\0', (size_t)(stop - at)))
			return wrong(path, no, "a NUL byte", e);
		char *line = trimmed(at, stop), *eq = strchr(line, '=');
		at = stop + 1;
		if (!*line || *line == '#')
			continue;
		if (!eq)
			return wrong(path, no, "no '=': a line is 'key = value'", e);
		struct policy_line l = {.no = no, .value = trimmed(eq + 1, strchr(eq, '\0'))};
		l.key = trimmed(line, eq);
		if (check(p, path, &l, e))
			return -1;
		if (p->n % 16 == 0)
			p->v = xrealloc(p->v, (p->n + 16) * sizeof *p->v);
		p->v[p->n++] = l;
	}
	return 0;
}

static int read_text(struct policy *p, int fd, const char *path, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st))
		return err_sys(e, "cannot read '%s'", path);
	if (!S_ISREG(st.st_mode) || st.st_size > TEXT_MAX)
		return err_set(e, ERR_USAGE, "'%s' is no file of at most 1 MiB", path);
	/* It has commands in it, and we may be root. */
	if (!file_is_trusted(&st))
		return err_set(e, ERR_USAGE, "'%s' belongs to somebody else, or others can write to it", path);
	/* And room for the end of the last line. */
	buf_reserve(&p->text, (size_t)st.st_size + 1);
	if (file_read_at(fd, p->text.p, (size_t)st.st_size, 0))
		return err_sys(e, "cannot read '%s'", path);
	p->text.len = (size_t)st.st_size;
	p->text.p[p->text.len] = '\0';
	return 0;
}

int policy_load(struct policy *p, const char *state, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	char shown[SHOWN];

	*p = (struct policy){0};
	buf_fmt(&path, "%s/policy", state);
	esc_cut(shown, sizeof shown, span_of(path.p, path.len));
	AUTO_CLOSE int fd = open(buf_cstr(&path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open '%s'", shown);
	p->is_there = true;
	if (!read_text(p, fd, shown, e) && !parse(p, shown, e))
		return 0;
	policy_free(p);
	return -1;
}

void policy_free(struct policy *p)
{
	free(p->v);
	buf_free(&p->text);
	*p = (struct policy){0};
}
