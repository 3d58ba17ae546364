/*
 * repl-diff: what turns a base into a tree as it is now, as a delta.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "delta.h"
#include "snap.h"
#include "stamp.h"
#include "value.h"

struct settings {
	const char *state, *key_file, *time, *wanted, *clones;
	struct list patterns, pattern_files;
	uint64_t grain;
	int64_t threads, lock_wait;
	bool one_file_system, checksum, exit_code, no_copies, ship;
	struct delta d;
	struct filter filter;
	struct buf key;
};

static void show_progress(void *ctx, uint64_t bytes, uint64_t total, uint64_t items)
{
	const struct delta *d = ctx;

	cli_progress(d->ui, bytes, total, items, "compared");
}

static void on_note(void *ui, const char *text) { cli_say(ui, 1, "%s", text); }

static int fill(struct cli *c, struct settings *s, struct err *e)
{
	struct diff *d = &s->d.diff;

	if (s->grain && !digest_is_grain(s->grain))
		return err_set(e, ERR_USAGE, "--block-size is 4K, 16K, 64K, 256K or 1M");
	if (filter_options(&s->filter, s->patterns.v, s->patterns.tags, s->patterns.n, e) ||
			(s->key_file && cli_key(&s->key, s->key_file, e)))
		return -1;
	if (s->time && !stamp_parse(s->time, &s->d.time_ns))
		return err_set(e, ERR_USAGE, "'%s' is no time: RFC 3339 or @seconds", s->time);
	s->d.clones.least = CLONES_LEAST;
	if (s->clones && !strcmp(s->clones, "never"))
		s->d.clones.least = UINT64_MAX;
	else if (s->clones && !value_size(s->clones, &s->d.clones.least))
		return err_set(e, ERR_USAGE, "--clones is a size such as 16M, or 'never'");
	const char *epoch = cli_env("SOURCE_DATE_EPOCH");
	if (!s->time && epoch)
		s->d.time_ns = strtoll(epoch, NULL, 10) * 1000000000;
	d->filter = s->filter.n ? &s->filter : NULL;
	d->grain = (uint32_t)s->grain;
	d->threads = (unsigned)s->threads;
	d->one_file_system = s->one_file_system;
	d->checksum = s->checksum;
	d->no_copies = s->no_copies;
	d->ship_unsettled = s->ship;
	d->warn = &c->warn;
	d->tmpdir = cli_env("TMPDIR") ? cli_env("TMPDIR") : "/tmp";
	d->key = &s->key;
	d->progress = show_progress;
	s->d.note = on_note;
	s->d.ui = c;
	s->d.lock_wait = (unsigned)s->lock_wait;
	s->d.out_name = c->output ? c->output : "standard output";
	return 0;
}

static int two(struct cli *c, struct settings *s, struct err *e)
{
	const char *old = c->n_args == 2 ? c->args[0] : NULL, *new = c->args[c->n_args - 1];
	bool is_stdin = s->wanted && !strcmp(s->wanted, "-");
	AUTO_CLOSE int fd = -1;
	struct input in = {0};

	if (!s->wanted)
		return delta_two(&s->d, old, new, NULL, e);
	if (!old)
		return err_set(e, ERR_USAGE, "--wanted goes with the image that the replica has: OLD NEW");
	if (!is_stdin && (fd = open(s->wanted, O_RDONLY | O_CLOEXEC)) < 0)
		return err_sys(e, "cannot open '%s'", s->wanted);
	if (input_open(&in, is_stdin ? STDIN_FILENO : fd, 1, e))
		return -1;
	int rc = delta_two(&s->d, old, new, &in, e);
	input_close(&in);
	return rc;
}

static void say_read(struct cli *c, const struct delta *d)
{
	const struct diff *x = &d->diff;

	if (x->bytes_looked_at)
		cli_say(c, 1, "read %" PRIu64 " of %" PRIu64 " bytes of content; clones of %" PRIu64 " files are kept%s%s%s", x->bytes_read,
			x->bytes_looked_at, d->clones.made, d->clones.why[0] ? " (" : "", d->clones.why, d->clones.why[0] ? ")" : "");
}

static int run(struct cli *c, struct settings *s, struct err *e)
{
	struct input in = {0};

	if ((s->state && cli_policy(c, s->state, false, e)) || fill(c, s, e))
		return -1;
	if (s->state ? c->n_args != 0 : c->n_args < 1 || c->n_args > 2)
		return err_set(e, ERR_USAGE, s->state ? "with a state there are no operands" : "one or two directories are wanted, or -s STATE");
	if (s->state && s->wanted)
		return err_set(e, ERR_USAGE, "--wanted goes with OLD NEW; -s reads it from standard input");
	s->d.fd = cli_output(c, e);
	if (s->d.fd < 0 || cli_not_tty(c, s->d.fd, "write a delta to", e))
		return -1;
	if (!s->state)
		return two(c, s, e);
	bool piped = !isatty(STDIN_FILENO);
	in.out_fd = s->d.fd;
	if (piped && input_open(&in, STDIN_FILENO, 1, e))
		return -1;
	int rc = delta_state(&s->d, s->state, piped ? &in : NULL, e);
	if (piped)
		input_close(&in);
	if (!rc)
		say_read(c, &s->d);
	return rc;
}

static void count(struct cli *c, const struct delta *d)
{
	cli_stat(c, "looked at", d->diff.n_looked_at, "names");
	cli_stat(c, "created", d->diff.n_created, "");
	cli_stat(c, "changed", d->diff.n_changed, "");
	cli_stat(c, "moved or linked", d->diff.n_moved, "");
	cli_stat(c, "removed", d->diff.n_removed, "");
	cli_stat(c, "unsettled", d->diff.n_unsettled, "");
	cli_stat(c, "content looked at", d->diff.bytes_looked_at, "bytes");
	cli_stat(c, "content read", d->diff.bytes_read, "bytes");
	cli_stat(c, "content sent", d->diff.bytes_sent, "bytes");
	cli_stat(c, "stream", d->written, "bytes");
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings s = {.lock_wait = 10};
	struct err e = {0};
	const struct opt opts[] = {
		{"state", 's', OPT_STRING, &s.state, "DIR", "compare with the base that this state remembers; REPL_STATE", 0},
		{"image", 0, OPT_STRING, &s.d.image, "FILE", "also write the target as an image file", 0},
		{"wanted", 0, OPT_STRING, &s.wanted, "FILE", "only what this of repl-apply --verify --wanted names", 0},
		{"block-size", 0, OPT_SIZE, &s.grain, "SIZE", "4K, 16K, 64K, 256K or 1M; chosen per file", 0},
		{"checksum", 0, OPT_FLAG, &s.checksum, NULL, "compare content even where size and times are the same", 0},
		{"clones", 0, OPT_STRING, &s.clones, "SIZE", "keep clones of files from this size on, or 'never'; 16M", 0},
		{"no-copies", 0, OPT_FLAG, &s.no_copies, NULL, "do not look for content that moved", 0},
		{"ship-unsettled", 0, OPT_FLAG, &s.ship, NULL, "send files that will not hold still, as last read", 0},
		{"include", 0, OPT_LIST, &s.patterns, "PATTERN", "take what matches", '+'},
		{"exclude", 0, OPT_LIST, &s.patterns, "PATTERN", "leave out what matches", '-'},
		{"exclude-from", 0, OPT_LIST, &s.patterns, "FILE", "patterns from a file, one a line", 'f'},
		{"one-file-system", 'x', OPT_FLAG, &s.one_file_system, NULL, "do not cross into other filesystems", 0},
		{"threads", 'T', OPT_NUMBER, &s.threads, "N", "threads that list directories and hash large files; 0: all cores", 0},
		{"time", 0, OPT_STRING, &s.time, "TIME", "stamp the image; without a state there is none", 0},
		{"key-file", 0, OPT_STRING, &s.key_file, "FILE", "sign the delta with this key", 0},
		{"exit-code", 0, OPT_FLAG, &s.exit_code, NULL, "exit with 10 when there are differences", 0},
		{"lock-wait", 0, OPT_NUMBER, &s.lock_wait, "SEC", "wait so long for the state's lock; 10", 0},
		{"output", 'o', OPT_STRING, &c.output, "FILE", "write to FILE, complete or not at all", 0},
		{"force", 'f', OPT_FLAG, &c.force, NULL, "overwrite FILE; write to a terminal", 0},
	};

	cli_start(&c, "repl-diff");
	int status = cli_options(&c, argc, argv, opts, sizeof opts / sizeof opts[0],
		"[OLD] NEW >DELTA\n-s STATE <CHANGES >DELTA", "Makes the delta that turns a base into a tree as it is now.");
	if (status)
		return status;
	if (!s.state && !c.n_args)
		s.state = cli_env("REPL_STATE");
	run(&c, &s, &e);
	count(&c, &s.d);
	filter_free(&s.filter);
	buf_free(&s.key);
	status = cli_finish(&c, &e);
	return status == 0 && s.exit_code && s.d.differs ? 10 : status;
}
