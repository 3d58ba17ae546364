/*
 * repl-snap: opens an image of directories as they are now, or a snapshot of them; with --commit, makes an acknowledged one the base.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "filter.h"
#include "image.h"
#include "policy.h"
#include "provider.h"
#include "queue.h"
#include "sink.h"
#include "snap.h"
#include "snapexec.h"
#include "source.h"
#include "stamp.h"

struct settings {
	const char *state, *time, *provider, *providers, *queue_limit;
	uint64_t lock_wait, cut_timeout, timeout, grain, quiesce_timeout, freeze_limit, provider_timeout;
	struct list rules;
	bool is_again, is_digest, is_commit, is_adopt, is_abort, is_list, is_check, one_file_system;
	struct filter filter;
	struct state s;
	struct provider_run run;
	char *program;
	struct snap snap;
	struct sink sink;
	struct stream_out out;
};

#define UNSET UINT64_MAX
#define COMMIT_WAIT 3600u /* seconds: the next delta of a chain may be in the making, and the answer came a long way */

static unsigned seconds(uint64_t ns) { return ns == UNSET ? 0 : (unsigned)min_u64(ns / 1000000000, 100000000); }

static int open_output(struct cli *c, struct settings *o, struct err *e)
{
	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	o->out = (struct stream_out){.sink = sink_write, .ctx = &o->sink};
	return o->sink.fd < 0 ? -1 : cli_not_tty(c, o->sink.fd, "write an image to", e);
}

static int set_time(struct settings *o, struct err *e)
{
	const char *epoch = cli_env("SOURCE_DATE_EPOCH");
	AUTO_BUF struct buf at = {0};

	if (o->time && !stamp_parse(o->time, &o->snap.time_ns))
		return err_set(e, ERR_USAGE, "'%s' is no time: 2026-01-31T12:00:00Z or @SECONDS", o->time);
	buf_fmt(&at, "@%s", epoch ? epoch : "");
	if (!o->time && epoch && !stamp_parse(buf_cstr(&at), &o->snap.time_ns))
		return err_set(e, ERR_USAGE, "SOURCE_DATE_EPOCH holds no number of seconds");
	o->snap.has_time = o->time || epoch;
	return 0;
}

static int digest_trees(struct cli *c, struct settings *o, struct err *e)
{
	const char *tmpdir = cli_env("TMPDIR");
	struct head *h = &o->snap.head;
	struct walk_root *roots = NULL;
	struct catalog *cat = NULL;
	struct diff d = {.filter = &o->filter, .tmpdir = tmpdir ? tmpdir : "/tmp", .grain = (uint32_t)o->grain,
		.one_file_system = o->one_file_system, .prune_dev = o->s.dev, .prune_ino = o->s.ino, .warn = &c->warn};

	if (snap_members(&o->snap, c->args, (size_t)c->n_args, e) || snap_open_image(&o->snap, e))
		return -1;
	d.stamps = h->stamps;
	int rc = head_open_roots(h, &roots, e) || source_scratch(&cat, d.tmpdir, NULL, e) ||
		source_digest(cat, roots, h->n_members, &d, e) || snap_write_image(cat, h, &o->out, e) ||
			stream_finish(&o->out, e);
	catalog_close(&cat);
	head_close_roots(&roots, h->n_members);
	return rc ? -1 : 0;
}

static int whole_image(struct cli *c, struct settings *o, struct err *e)
{
	int got = 0;

	if (o->grain && !digest_is_grain(o->grain))
		return err_set(e, ERR_USAGE, "a block size is 4K, 16K, 64K, 256K or 1M");
	if (o->state && state_open(&o->s, o->state, false, e))
		return -1;
	if (open_output(c, o, e))
		return -1;
	if (c->n_args == 1)
		got = snap_replica_image(c->args[0], &o->out, e);
	if (!got)
		got = digest_trees(c, o, e);
	return got < 0 ? -1 : sink_flush(&o->sink, e);
}

/* The image under way once more, with the same stamps: what is made of it can be the same stream. */
static int open_again(struct cli *c, struct settings *o, struct err *e)
{
	if (c->n_args)
		return err_set(e, ERR_USAGE, "--again takes no ROOT: the image under way says what it is of");
	if (o->time || o->snap.bookmark)
		return err_set(e, ERR_USAGE, "--again keeps the image's time and bookmark, and its group");
	if (open_output(c, o, e) || snap_again(&o->s, seconds(o->lock_wait), &o->snap.head, e) ||
			head_put(&o->snap.head, &o->out, KIND_IMAGE, e) || stream_finish(&o->out, e) || sink_flush(&o->sink, e))
		return -1;
	cli_say(c, 1, "opened image %" PRIu64 " again", o->snap.head.stamps.seq);
	return 0;
}

static void on_note(void *ctx, int level, const char *text) { cli_say(ctx, level, "%s", text); }

static void on_left(void *ctx, const char *text) { cli_say(ctx, 0, "a snapshot stays for now: %s", text); }

/* Where programs that make snapshots are looked for: this machine's own come first. */
static int find_program(struct settings *o, struct err *e)
{
	AUTO_BUF struct buf shared = {0};
	char exe[PATH_MAX] = "";
	ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);

	buf_add(&shared, exe, n > 0 ? (size_t)(strrchr(exe, '/') - exe) : 0);
	buf_str(&shared, "/../share/repl/providers");
	const char *const dirs[] = {"/etc/repl/providers", buf_cstr(&shared)};
	if (snapexec_find(o->provider, o->providers ? &o->providers : dirs, o->providers ? 1 : 2, &o->program, e))
		return -1;
	o->snap.provider = SNAP_EXEC;
	o->snap.program = o->program;
	return 0;
}

static int set_provider(struct cli *c, struct settings *o, struct err *e)
{
	static const char *const names[] = {[SNAP_AUTO] = "auto", [SNAP_LIVE] = "live", [SNAP_BTRFS] = "btrfs",
		[SNAP_REFLINK] = "reflink"};
	size_t i = 0;

	while (i < sizeof names / sizeof *names && o->provider && strcmp(o->provider, names[i]))
		i++;
	if (i < sizeof names / sizeof *names)
		o->snap.provider = (enum snap_provider)i;
	else if (find_program(o, e))
		return -1;
	if (o->snap.provider >= SNAP_BTRFS && !o->state)
		return err_set(e, ERR_USAGE, "a snapshot needs a state directory, which remembers it: give -s DIR");
	if (o->snap.program)
		cli_say(c, 1, "snapshots are made by '%s'", o->snap.program);
	return 0;
}

static int open_state(struct cli *c, struct settings *o, bool create, struct err *e)
{
	if (state_open(&o->s, o->state, create, e))
		return -1;
	o->run = (struct provider_run){.limit_ms = o->provider_timeout / 1000000, .log_fd = STDERR_FILENO, .note = on_left, .ctx = c};
	o->s.run = &o->run;
	return 0;
}

/* How long what was still, and that it goes on again. What does not is said also where there is no image. */
static void say_still(struct cli *c, const struct snap *s, bool is_failed, struct err *e)
{
	bool is_quiesced = s->quiesce || s->resume;

	if (is_quiesced)
		cli_stat(c, "quiesced", s->quiesced_ns / 1000000, "ms");
	if (s->is_freeze)
		cli_stat(c, "frozen", s->frozen_ns / 1000000, "ms");
	if (is_quiesced && s->quiesced_ns)
		cli_say(c, 1, "quiesced for %" PRIu64 " ms", s->quiesced_ns / 1000000);
	if (s->frozen_ns)
		cli_say(c, 1, "frozen for %" PRIu64 " ms", s->frozen_ns / 1000000);
	if (!s->undone.kind)
		return;
	if (is_failed)
		cli_say(c, -1, "%s", s->undone.text);
	else
		err_set(e, ERR_INCOMPLETE, "the image stands, but %s", s->undone.text);
}

static const char *what_it_is(const struct head *h)
{
	switch (h->stamps.provider) {
	case PROV_BTRFS:
		return ", a btrfs snapshot";
	case PROV_REFLINK:
		return ", clones of its files";
	case PROV_EXEC:
		return ", a snapshot";
	default:
		return "";
	}
}

/* NULL: none. */
static const char *queue_of(const struct settings *o)
{
	return o->snap.backlog.queue && strcmp(o->snap.backlog.queue, "none") ? o->snap.backlog.queue : NULL;
}

static int set_queue(struct settings *o, struct err *e)
{
	struct backlog *s = &o->snap.backlog;

	if (s->queue && !queue_of(o)) {
		s->queue = o->queue_limit = NULL;
		s->is_chained = false;
	}
	if (!o->state && (s->queue || o->queue_limit || s->is_chained))
		return err_set(e, ERR_USAGE, "a queue needs a state directory, which knows what waits in it: give -s DIR");
	if ((o->queue_limit || s->is_chained) && !s->queue)
		return err_set(e, ERR_USAGE, "--queue-limit and --chain go with --queue");
	if (o->queue_limit && !queue_limit(o->queue_limit, &s->files, &s->bytes))
		return err_set(e, ERR_USAGE, "--queue-limit wants a number of deltas or a size such as 10G, not '%s'", o->queue_limit);
	return 0;
}

static int open_image(struct cli *c, struct settings *o, struct err *e)
{
	if (o->state && cli_policy(c, o->state, true, e))
		return -1;
	if (o->snap.is_crash_enough && !o->snap.quiesce)
		return err_set(e, ERR_USAGE, "--crash-consistent goes with --quiesce");
	if (set_provider(c, o, e) || set_queue(o, e) || open_output(c, o, e) ||
			snap_members(&o->snap, c->args, (size_t)c->n_args, e))
		return -1;
	if (o->state && open_state(c, o, true, e))
		return -1;
	o->snap.state = o->state ? &o->s : NULL;
	o->snap.lock_wait = seconds(o->lock_wait);
	o->snap.cut_timeout_ms = o->cut_timeout / 1000000;
	o->snap.note = on_note;
	o->snap.ctx = c;
	o->snap.quiesce_ms = o->quiesce_timeout / 1000000;
	o->snap.freeze_ms = o->freeze_limit / 1000000;
	o->snap.log_fd = STDERR_FILENO;
	o->snap.out_fd = o->sink.fd;
	if (snap_open_image(&o->snap, e) || head_put(&o->snap.head, &o->out, KIND_IMAGE, e) ||
			stream_finish(&o->out, e) || sink_flush(&o->sink, e)) {
		say_still(c, &o->snap, true, e);
		return -1;
	}
	say_still(c, &o->snap, false, e);
	if (o->state)
		cli_say(c, 1, "opened image %" PRIu64 "%s", o->snap.head.stamps.seq, what_it_is(&o->snap.head));
	return 0;
}

static int commit(struct cli *c, struct settings *o, struct err *e)
{
	struct snap_acks acks = {.timeout_ms = o->timeout / 1000000};
	struct pollfd first = {.fd = STDIN_FILENO, .events = POLLIN};
	int wait_ms = acks.timeout_ms ? (int)min_u64(acks.timeout_ms, INT_MAX) : -1, n;

	if (cli_policy(c, o->state, false, e))
		return -1;
	acks.queue = queue_of(o);
	/* The answer first: on a first run the state comes into being while we wait for it. */
	if (cli_not_tty(c, STDIN_FILENO, "read an acknowledgement from", e))
		return -1;
	while ((n = poll(&first, 1, wait_ms)) < 0 && errno == EINTR)
		;
	if (!n)
		return err_set(e, ERR_TIMEOUT, "no answer came for %" PRIu64 " seconds", acks.timeout_ms / 1000);
	if (open_state(c, o, false, e))
		return -1;
	int rc = snap_commit(&o->s, STDIN_FILENO, o->lock_wait == UNSET ? COMMIT_WAIT : seconds(o->lock_wait), &c->warn, &acks, e);
	cli_stat(c, "committed", acks.committed, "");
	cli_stat(c, "already", acks.already, "");
	if (acks.queue)
		cli_stat(c, "removed from the queue", acks.removed, "");
	if (acks.held)
		cli_say(c, 0, "the replica holds %" PRIu64 " images back: the base stays", acks.held);
	return rc;
}

static int list(struct cli *c, struct settings *o, struct err *e)
{
	AUTO_BUF struct buf text = {0};

	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	if (o->sink.fd < 0 || cli_policy(c, o->state, false, e) || snap_list(&o->s, queue_of(o), c->json, &text, e))
		return -1;
	struct span v = span_of(text.p, text.len);
	return sink_write(&o->sink, &v, 1, e) || sink_flush(&o->sink, e) ? -1 : 0;
}

static int check_policy(const struct settings *o, struct err *e)
{
	struct policy p = {0};

	if (policy_load(&p, o->state, e))
		return -1;
	bool is_there = p.is_there;
	policy_free(&p);
	return is_there ? 0 : err_set(e, ERR_USAGE, "there is no policy in '%s'", o->state);
}

static int adopt(struct cli *c, struct settings *o, struct err *e)
{
	struct digest id;
	char text[65];

	if (cli_not_tty(c, STDIN_FILENO, "read an image from", e) || open_state(c, o, true, e) ||
			snap_adopt(&o->s, STDIN_FILENO, seconds(o->lock_wait), &id, e))
		return -1;
	hex(text, id.b, 8);
	cli_say(c, 1, "image %s is the base now", text);
	return 0;
}

static int run(struct cli *c, struct settings *o, struct err *e)
{
	int n_modes = o->is_again + o->is_digest + o->is_commit + o->is_adopt + o->is_abort + o->is_list +
		o->is_check;

	if (n_modes > 1)
		return err_set(e, ERR_USAGE, "one of --again, --digest, --commit, --adopt, --abort, --list and --check-policy at a time");
	if (o->timeout && !o->is_commit)
		return err_set(e, ERR_USAGE, "--timeout goes with --commit");
	if (!o->is_digest && (o->rules.n || o->one_file_system || o->grain))
		return err_set(e, ERR_USAGE, "--include, --exclude, --one-file-system and --block-size go with --digest; "
			"for an image that is sent, give them to repl-diff");
	if ((o->provider || o->providers) && n_modes)
		return err_set(e, ERR_USAGE, "--provider and --providers go with opening an image");
	if ((o->snap.quiesce || o->snap.resume || o->snap.is_freeze || o->snap.is_crash_enough) && n_modes)
		return err_set(e, ERR_USAGE, "--quiesce, --resume and --freeze go with opening an image");
	if (o->snap.backlog.queue && n_modes && !o->is_commit && !o->is_list)
		return err_set(e, ERR_USAGE, "--queue goes with opening an image, --commit and --list");
	if ((o->queue_limit || o->snap.backlog.is_chained) && n_modes)
		return err_set(e, ERR_USAGE, "--queue-limit and --chain go with opening an image");
	if (filter_options(&o->filter, o->rules.v, o->rules.tags, o->rules.n, e) || set_time(o, e))
		return -1;
	if (o->is_digest)
		return whole_image(c, o, e);
	o->state = o->state ? o->state : cli_env("REPL_STATE");
	if (!n_modes)
		return open_image(c, o, e);
	if (c->n_args && !o->is_again)
		return err_set(e, ERR_USAGE, "--commit, --adopt, --abort, --list and --check-policy take no ROOT");
	if (!o->state)
		return err_set(e, ERR_USAGE, "which state directory? give -s STATE");
	if (o->is_check)
		return check_policy(o, e);
	if (o->is_commit)
		return commit(c, o, e);
	if (o->is_adopt)
		return adopt(c, o, e);
	if (open_state(c, o, false, e))
		return -1;
	if (o->is_again)
		return open_again(c, o, e);
	if (o->is_list)
		return list(c, o, e);
	return snap_abort(&o->s, seconds(o->lock_wait), e);
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings o = {.s = STATE_NONE, .cut_timeout = UINT64_C(10000000000), .lock_wait = UNSET,
		.quiesce_timeout = UINT64_C(60000000000), .freeze_limit = UINT64_C(10000000000),
		.provider_timeout = UINT64_C(60000000000)};
	struct err e = {0};
	const struct opt opts[] = {
		{"state", 's', OPT_STRING, &o.state, "DIR", "the source's memory for one destination; REPL_STATE", 0},
		{"again", 0, OPT_FLAG, &o.is_again, NULL, "open the image under way once more, to resume its delta", 0},
		{"digest", 0, OPT_FLAG, &o.is_digest, NULL, "write the whole image of a directory or a replica", 0},
		{"commit", 0, OPT_FLAG, &o.is_commit, NULL, "read the replica's answer: what it has is the new base", 0},
		{"adopt", 0, OPT_FLAG, &o.is_adopt, NULL, "read an image: what the replica holds is the base", 0},
		{"abort", 0, OPT_FLAG, &o.is_abort, NULL, "forget the image under way", 0},
		{"list", 0, OPT_FLAG, &o.is_list, NULL, "show the base and what is under way", 0},
		{"json", 0, OPT_FLAG, &c.json, NULL, "with --list: one JSON object", 0},
		{"check-policy", 0, OPT_FLAG, &o.is_check, NULL, "is what the state's policy says right?", 0},
		{"bookmark", 0, OPT_STRING, &o.snap.bookmark, "NAME", "give the image a name", 0},
		{"group", 0, OPT_STRING, &o.snap.group, "NAME", "name of what all the members are together", 0},
		{"time", 0, OPT_STRING, &o.time, "TIME", "stamp it with this time, past or now: RFC 3339 or @SECONDS", 0},
		{"provider", 0, OPT_STRING, &o.provider, "HOW", "auto, live, btrfs, reflink, or a program's name", 0},
		{"providers", 0, OPT_STRING, &o.providers, "DIR", "where programs that make snapshots are", 0},
		{"provider-timeout", 0, OPT_DURATION, &o.provider_timeout, "DUR", "that each run of one gets; 60s", 0},
		{"quiesce", 0, OPT_STRING, &o.snap.quiesce, "CMD", "run this before the instant: applications become still", 0},
		{"resume", 0, OPT_STRING, &o.snap.resume, "CMD", "run this after it, in any case: they go on", 0},
		{"quiesce-timeout", 0, OPT_DURATION, &o.quiesce_timeout, "DUR", "that each of these two gets; 60s", 0},
		{"crash-consistent", 0, OPT_FLAG, &o.snap.is_crash_enough, NULL, "an image also when --quiesce fails", 0},
		{"freeze", 0, OPT_FLAG, &o.snap.is_freeze, NULL, "freeze the filesystems for the instant", 0},
		{"freeze-limit", 0, OPT_DURATION, &o.freeze_limit, "DUR", "never for longer than this; 10s", 0},
		{"queue", 0, OPT_STRING, &o.snap.backlog.queue, "DIR", "what repl-pack --queue keeps deltas in until they are sent; none", 0},
		{"queue-limit", 0, OPT_STRING, &o.queue_limit, "N|SIZE", "no image when so many deltas, or bytes, wait in it", 0},
		{"chain", 0, OPT_FLAG, &o.snap.backlog.is_chained, NULL, "the image follows the last one in the queue, not the base", 0},
		{"lock-wait", 0, OPT_DURATION, &o.lock_wait, "SEC", "wait so long for another program to end; 0, with --commit 1h", 0},
		{"cut-timeout", 0, OPT_DURATION, &o.cut_timeout, "DUR", "wait so long for the recorder, if there is one; 10s", 0},
		{"timeout", 0, OPT_DURATION, &o.timeout, "DUR", "with --commit: give up when nothing comes for so long; never", 0},
		{"one-file-system", 0, OPT_FLAG, &o.one_file_system, NULL, "with --digest: do not enter other filesystems", 0},
		{"include", 0, OPT_LIST, &o.rules, "PATTERN", "with --digest: take what matches, against a later --exclude", '+'},
		{"exclude", 0, OPT_LIST, &o.rules, "PATTERN", "with --digest: leave out what matches", '-'},
		{"exclude-from", 0, OPT_LIST, &o.rules, "FILE", "with --digest: patterns from a file, one a line", 'f'},
		{"block-size", 0, OPT_SIZE, &o.grain, "SIZE", "with --digest: of the blocks that get a digest; by file size", 0},
		{"output", 'o', OPT_STRING, &c.output, "FILE", "write to FILE, complete or not at all", 0},
		{"force", 0, OPT_FLAG, &c.force, NULL, "overwrite FILE; use a terminal", 0},
	};

	cli_start(&c, "repl-snap");
	int status = cli_options(&c, argc, argv, opts, sizeof opts / sizeof opts[0],
		"[-s DIR] [NAME=]ROOT... >IMAGE\n-s DIR --again >IMAGE\n--digest [NAME=]ROOT... >IMAGE\n-s DIR --commit <ANSWER\n-s DIR --adopt <IMAGE\n-s DIR --abort|--list|--check-policy",
		"Opens an image of directories as they are now.");
	if (status)
		return status;
	run(&c, &o, &e);
	state_close(&o.s);
	snap_free(&o.snap);
	free(o.program);
	filter_free(&o.filter);
	stream_out_free(&o.out);
	sink_free(&o.sink);
	return cli_finish(&c, &e);
}
