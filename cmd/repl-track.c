/*
 * repl-track: says what may have changed since the base, for the image that repl-snap opened.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "file.h"
#include "follow.h"
#include "head.h"
#include "join.h"
#include "json.h"
#include "recorder.h"
#include "regions.h"
#include "sink.h"
#include "tap.h"
#include "track.h"

#define ANSWER_MS 30000u /* that a recorder has to answer */
#define LOCK_WAIT 10u    /* seconds */
#define FOLLOW_LOCK_WAIT 86400u /* the delta of a large change, or its commit, takes its time */
#define UNSET UINT64_MAX
#define WAIT_NS UINT64_C(900000000000)
#define LOOK_NS UINT64_C(5000000000)
#define SETTLE_NS UINT64_C(200000000)
#define ALIVE_NS UINT64_C(30000000000)

struct settings {
	const char *state;
	bool regions;
	int64_t threads;
	bool merge;
	const char *journal, *source;
	uint64_t cut_timeout, max_journal;
	bool wants_record, wants_cut, wants_status, json;
	bool wants_wait, wants_follow;
	uint64_t interval, settle, keepalive, changes, bytes;
	int signal; /* that ended the recorder */
	struct state s;
	struct head head;
	struct sink sink;
	struct stream_out out;
};

static void on_progress(void *ctx, uint64_t entries) { cli_progress(ctx, 0, 0, entries, "looked at"); }

static void on_gap(void *ctx, struct span path, struct span reason)
{
	AUTO_BUF struct buf text = {0};

	buf_str(&text, path.len ? "comparing what is below '" : "comparing everything");
	esc_name(&text, path);
	buf_str(&text, path.len ? "': " : ": ");
	esc_name(&text, reason);
	cli_say(ctx, 1, "%s", buf_cstr(&text));
}

static int merge(struct cli *c, struct settings *o, struct err *e)
{
	const char *tmpdir = cli_env("TMPDIR");
	struct join j = {.lists = c->args, .n = (size_t)c->n_args, .in = STDIN_FILENO, .out = &o->out,
		.tmpdir = tmpdir ? tmpdir : "/tmp", .warn = &c->warn};

	if (o->state)
		return err_set(e, ERR_USAGE, "--merge takes lists, no state");
	for (int i = 0; i < c->n_args; i++)
		if (!strcmp(c->args[i], "-") && cli_not_tty(c, STDIN_FILENO, "read a change stream from", e))
			return -1;
	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	if (o->sink.fd < 0 || cli_not_tty(c, o->sink.fd, "write a change stream to", e))
		return -1;
	o->out = (struct stream_out){.sink = sink_write, .ctx = &o->sink};
	if (join_run(&j, e) || sink_flush(&o->sink, e))
		return -1;
	cli_stat(c, "changed", j.names, "");
	return 0;
}

static int track(struct cli *c, struct settings *o, struct track *t, struct err *e)
{
	const char *dir = t->tmpdir ? t->tmpdir : "/tmp";

	if (!o->regions)
		return track_run(t, e);
	AUTO_CLOSE int fd = file_temp(dir);
	if (fd < 0)
		return err_sys(e, "cannot make a temporary file in '%s'", dir);
	struct sink sink = {.fd = fd, .name = "a temporary file"};
	struct stream_out out = {.sink = sink_write, .ctx = &sink};
	struct regions g = {0};
	t->out = &out;
	int rc = track_run(t, e) || sink_flush(&sink, e) || regions_add(&g, &o->s, t->file, &o->head, fd, &o->out, e) ? -1 : 0;
	stream_out_free(&out);
	sink_free(&sink);
	if (!rc)
		cli_say(c, 1, "%" PRIu64 " files have a table of their regions, with %" PRIu64 " blocks that may have changed", g.files,
			g.blocks);
	return rc;
}

/* Which one, and what its policy says. */
static int find_state(struct cli *c, struct settings *o, bool takes_roots, struct err *e)
{
	o->state = o->state ? o->state : cli_env("REPL_STATE");
	if (!o->state)
		return err_set(e, ERR_USAGE, "which state directory? give -s DIR");
	return cli_policy(c, o->state, takes_roots, e);
}

static int run(struct cli *c, struct settings *o, struct err *e)
{
	struct track t = {.state = &o->s, .head = &o->head, .out = &o->out, .warn = &c->warn, .gap = on_gap, .progress = on_progress,
		.ctx = c};
	AUTO_BUF struct buf store = {0};
	struct r_cursor keeps;

	if (c->n_args)
		return err_set(e, ERR_USAGE, "repl-track takes no ROOT: the image says where to look");
	if (find_state(c, o, false, e))
		return -1;
	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	if (o->sink.fd < 0 || cli_not_tty(c, o->sink.fd, "write a change stream to", e))
		return -1;
	/* The image first: on a first run the state comes into being while we wait for it. Without a pipe in front: the image
	 * that was opened last. */
	bool is_piped = !isatty(STDIN_FILENO);
	if ((is_piped && head_read(&o->head, STDIN_FILENO, "repl-track", e)) || state_open(&o->s, o->state, false, e) ||
			(!is_piped && state_load_image(&o->s, &o->head, e)))
		return -1;
	AUTO_FREE char *journal = NULL;
	if ((o->journal && state_use_journal(&o->s, o->journal, LOCK_WAIT, e)) || state_journal(&o->s, &journal, e))
		return -1;
	o->out = (struct stream_out){.sink = sink_write, .ctx = &o->sink};
	t.journal = journal;
	t.cut_timeout_ms = o->cut_timeout / 1000000;
	t.threads = (unsigned)o->threads;
	t.tmpdir = cli_env("TMPDIR");
	if (track_begin(&t, &o->s, LOCK_WAIT, &keeps, &store, e) || track(c, o, &t, e) || sink_flush(&o->sink, e))
		return -1;
	if (t.no_search[0])
		cli_say(c, 1, "the snapshots' trees are of no use: %s", t.no_search);
	if (t.reason[0])
		cli_say(c, 1, "%s: %s", t.is_searched ? "asking the snapshots' trees" : t.has_base ? "comparing everything" : "the next run will compare everything", t.reason);
	if (t.is_recorded)
		cli_say(c, 1, "the recorder knows of %" PRIu64 " names that may have changed since the base", t.changed);
	else if (t.is_searched)
		cli_say(c, 1, "in the snapshots' trees %" PRIu64 " inodes have changed since the base, with %" PRIu64 " names", t.inodes,
			t.changed);
	else if (t.has_base)
		cli_say(c, 1, "compared the stat of %" PRIu64 " entries with the base; %" PRIu64 " may have changed", t.entries,
			t.changed);
	else
		cli_say(c, 1, "there is no base yet: everything is new");
	cli_stat(c, "entries", t.entries, "");
	cli_stat(c, "changed", t.changed, "");
	return 0;
}

static void on_say(void *ctx, int level, const char *text) { cli_say(ctx, level, "%s", text); }

/* ---- --wait and --follow ---- */

static int open_state(struct settings *o, bool create, struct err *e)
{
	if (state_open(&o->s, o->state, create, e))
		return -1;
	return o->journal ? state_use_journal(&o->s, o->journal, LOCK_WAIT, e) : 0;
}

static int wait_for_it(struct cli *c, struct settings *o, struct err *e)
{
	if (c->n_args)
		return err_set(e, ERR_USAGE, "only --record and --follow take paths");
	if (find_state(c, o, false, e) || open_state(o, false, e))
		return -1;
	struct follow_wait w = {.state = &o->s, .names = o->changes, .bytes = o->bytes, .say = on_say, .ctx = c,
		.interval_ms = (o->interval == UNSET ? WAIT_NS : o->interval) / 1000000};
	if (!w.interval_ms && !w.names && !w.bytes)
		return err_set(e, ERR_USAGE, "what is to be waited for? give --interval, --changes or --bytes");
	int rc = follow_wait(&w, e);
	cli_stat(c, "changed", w.got_names, "");
	cli_stat(c, "bytes", w.got_bytes, "bytes");
	return rc;
}

static int follow(struct cli *c, struct settings *o, struct err *e)
{
	const uint64_t interval = o->interval; /* that of a policy is for those who wait */

	if (find_state(c, o, true, e))
		return -1;
	struct track t = {.threads = (unsigned)o->threads, .cut_timeout_ms = o->cut_timeout / 1000000, .warn = &c->warn,
		.gap = on_gap, .progress = on_progress, .ctx = c, .tmpdir = cli_env("TMPDIR") ? cli_env("TMPDIR") : "/tmp"};
	struct follow f = {.state = &o->s, .track = &t, .out = &o->sink, .say = on_say, .ctx = c,
		.settle_ms = o->settle / 1000000, .interval_ms = (interval == UNSET ? LOOK_NS : interval) / 1000000,
		.alive_ms = o->keepalive / 1000000,
		.snap = {.lock_wait = FOLLOW_LOCK_WAIT, .cut_timeout_ms = o->cut_timeout / 1000000}};

	if (c->output || o->regions)
		return err_set(e, ERR_USAGE, "--follow writes to repl-diff, without --output and --regions");
	if (!f.interval_ms)
		return err_set(e, ERR_USAGE, "--interval must not be 0 with --follow");
	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	int rc = o->sink.fd < 0 || cli_not_tty(c, o->sink.fd, "write change streams to", e) || open_state(o, c->n_args > 0, e) ||
		(c->n_args && snap_members(&f.snap, c->args, (size_t)c->n_args, e)) ? -1 : follow_run(&f, e);
	cli_stat(c, "images", f.images, "");
	follow_free(&f);
	return rc;
}

/* ---- --record, and talking to it ---- */

static int record(struct cli *c, struct settings *o, struct err *e)
{
	const char *usec = cli_env("WATCHDOG_USEC"), *pid = cli_env("WATCHDOG_PID");
	struct recorder r = {.journal = o->journal, .paths = c->args, .n_paths = (size_t)c->n_args, .source = o->source,
		.limit = o->max_journal, .notify = cli_env("NOTIFY_SOCKET"), .say = on_say, .warn = &c->warn, .ctx = c};

	if (!c->n_args)
		return err_set(e, ERR_USAGE, "what is to be recorded? give the paths");
	/* sd_watchdog_enabled(3): it may be meant for another process. */
	if (usec && (!pid || strtol(pid, NULL, 10) == getpid()))
		r.watchdog_us = strtoull(usec, NULL, 10);
	if (recorder_run(&r, e))
		return -1;
	o->signal = r.signal;
	return 0;
}

static int print(const struct buf *text, struct err *e)
{
	struct sink out = {.fd = STDOUT_FILENO, .name = "standard output"};
	struct span s = span_of(text->p, text->len);
	int rc = sink_write(&out, &s, 1, e) || sink_flush(&out, e) ? -1 : 0;

	sink_free(&out);
	return rc;
}

static int say_nobody(const char *reason, struct err *e) { return err_set(e, ERR_GAP, "there is no record: %s", reason); }

static int cut(struct settings *o, struct err *e)
{
	struct tap_cut t;
	char reason[256], uuid[33];
	AUTO_BUF struct buf out = {0};
	int got = tap_cut(o->journal, ANSWER_MS, &t, reason, e);

	if (got != 1)
		return got ? -1 : say_nobody(reason, e);
	hex(uuid, t.journal, sizeof t.journal);
	buf_fmt(&out, "%s:%" PRIu64 "\n", uuid, t.seq);
	return print(&out, e);
}

static int status(struct settings *o, struct err *e)
{
	struct tap_status s = {0};
	char reason[256];
	AUTO_BUF struct buf out = {0};
	int got = tap_status(o->journal, ANSWER_MS, &s, reason, e);
	const char *p = (const char *)s.text.p;

	for (size_t i = 0; got == 1 && i < s.n; i++, p += strlen(p) + 1) {
		struct span word = span_of(p, strcspn(p, "=")), value = span_cstr(p + word.len + 1);
		bool is_number = value.len && strspn((const char *)value.p, "0123456789") == value.len;
		if (!o->json) {
			buf_fmt(&out, "%.*s: ", (int)word.len, p);
			esc_name(&out, value);
			buf_str(&out, "\n");
			continue;
		}
		buf_str(&out, i ? "," : "{");
		json_string(&out, word);
		buf_str(&out, ":");
		if (is_number)
			buf_add(&out, value.p, value.len);
		else
			json_string(&out, value);
	}
	tap_status_free(&s);
	if (got != 1)
		return got ? -1 : say_nobody(reason, e);
	buf_str(&out, o->json ? "}\n" : "");
	return print(&out, e);
}

static int choose(struct cli *c, struct settings *o, struct err *e)
{
	int n = o->wants_record + o->wants_cut + o->wants_status + o->merge + o->wants_wait + o->wants_follow;

	if (n > 1)
		return err_set(e, ERR_USAGE, "one of --record, --cut, --status, --merge, --wait and --follow at a time");
	if (o->threads < 0 || o->threads > 1024)
		return err_set(e, ERR_USAGE, "a number of threads lies between 0 and 1024");
	if (o->wants_wait)
		return wait_for_it(c, o, e);
	if (o->wants_follow)
		return follow(c, o, e);
	if (o->merge)
		return merge(c, o, e);
	if (!n)
		return run(c, o, e);
	if (!o->journal)
		return err_set(e, ERR_USAGE, "which journal? give -j DIR");
	c->about.what = "journal";
	c->about.path = o->journal;
	if (o->wants_record)
		return record(c, o, e);
	if (c->n_args)
		return err_set(e, ERR_USAGE, "only --record takes paths");
	return o->wants_cut ? cut(o, e) : status(o, e);
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings o = {.s = STATE_NONE, .cut_timeout = UINT64_C(10000000000), .max_journal = UINT64_C(1) << 30,
		.interval = UNSET, .settle = SETTLE_NS, .keepalive = ALIVE_NS};
	struct err e = {0};
	const struct opt opts[] = {
		{"state", 's', OPT_STRING, &o.state, "DIR", "the source's memory for one destination; REPL_STATE", 0},
		{"journal", 'j', OPT_STRING, &o.journal, "DIR", "what a recorder keeps of changes; remembered with -s; none", 0},
		{"record", 0, OPT_FLAG, &o.wants_record, NULL, "with -j: record what changes below PATH...", 0},
		{"source", 0, OPT_STRING, &o.source, "NAME",
			"with --record: fanotify, fanotify-dirs or inotify; default: the best that works", 0},
		{"cut-timeout", 0, OPT_DURATION, &o.cut_timeout, "DUR", "wait so long for the recorder; 10s", 0},
		{"max-journal", 0, OPT_SIZE, &o.max_journal, "SIZE", "with --record: forget the oldest above this; default: 1G", 0},
		{"cut", 0, OPT_FLAG, &o.wants_cut, NULL, "with -j: wait until all is recorded; print how far that is", 0},
		{"status", 0, OPT_FLAG, &o.wants_status, NULL, "with -j: what the recorder does", 0},
		{"json", 0, OPT_FLAG, &o.json, NULL, "with --status: one JSON object", 0},
		{"regions", 0, OPT_FLAG, &o.regions, NULL, "also which blocks of large files may have changed", 0},
		{"threads", 'T', OPT_NUMBER, &o.threads, "N", "threads that look; 0, the default: all cores", 0},
		{"follow", 0, OPT_FLAG, &o.wants_follow, NULL, "one change stream after the other, as changes settle", 0},
		{"wait", 0, OPT_FLAG, &o.wants_wait, NULL, "return when it is time for the next image", 0},
		{"interval", 0, OPT_DURATION, &o.interval, "DUR",
			"with --wait: so long after the last image; 15m. With --follow: look so often where nobody records; 5s", 0},
		{"changes", 0, OPT_SIZE, &o.changes, "N", "with --wait: so many names may have changed", 0},
		{"bytes", 0, OPT_SIZE, &o.bytes, "SIZE", "with --wait: files of this size may have changed", 0},
		{"settle", 0, OPT_DURATION, &o.settle, "DUR", "with --follow: so long nothing must change before an image; 200ms", 0},
		{"keepalive", 0, OPT_DURATION, &o.keepalive, "DUR", "with --follow: an image after this in any case; 30s, 0: never", 0},
		{"merge", 0, OPT_FLAG, &o.merge, NULL, "join change streams, or journals, into one list", 0},
		{"output", 'o', OPT_STRING, &c.output, "FILE", "write to FILE, complete or not at all", 0},
		{"force", 0, OPT_FLAG, &c.force, NULL, "overwrite FILE; use a terminal", 0},
	};

	cli_start(&c, "repl-track");
	int status = cli_options(&c, argc, argv, opts, sizeof opts / sizeof opts[0],
		"-s DIR [-j JOURNAL] <IMAGE >CHANGES\n-j JOURNAL --record PATH...\n-j JOURNAL --cut|--status\n"
		"-s DIR --follow [[NAME=]ROOT...] >CHANGES\n-s DIR --wait\n--merge LIST... >CHANGES",
		"Says what may have changed since the base, and records what changes.");
	if (status)
		return status;
	choose(&c, &o, &e);
	state_close(&o.s);
	head_free(&o.head);
	stream_out_free(&o.out);
	sink_free(&o.sink);
	int rc = cli_finish(&c, &e);
	return o.signal && !rc ? cli_die(o.signal) : rc;
}
