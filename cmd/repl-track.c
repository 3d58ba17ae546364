/*
 * repl-track: says what may have changed since the base, for the image that repl-snap opened.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "join.h"
#include "sink.h"
#include "track.h"

struct settings {
	const char *state;
	int64_t threads;
	bool merge;
	struct state s;
	struct image_head head;
	struct sink sink;
	struct stream_out out;
};

static void on_progress(void *ctx, uint64_t entries) { cli_progress(ctx, 0, 0, entries, "looked at"); }

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

static int run(struct cli *c, struct settings *o, struct err *e)
{
	struct track t = {.state = &o->s, .head = &o->head, .out = &o->out, .warn = &c->warn, .progress = on_progress, .ctx = c};

	if (o->merge)
		return merge(c, o, e);
	if (c->n_args)
		return err_set(e, ERR_USAGE, "repl-track takes no ROOT: the image says where to look");
	o->state = o->state ? o->state : cli_env("REPL_STATE");
	if (!o->state)
		return err_set(e, ERR_USAGE, "which state directory? give -s DIR");
	if (o->threads < 0 || o->threads > 1024)
		return err_set(e, ERR_USAGE, "a number of threads lies between 0 and 1024");
	o->sink = (struct sink){.fd = cli_output(c, e), .name = "the output"};
	if (o->sink.fd < 0 || cli_not_tty(c, o->sink.fd, "write a change stream to", e))
		return -1;
	/* The image first: on a first run the state comes into being while we wait for it. Without a pipe in front: the image
	 * that was opened last. */
	bool is_piped = !isatty(STDIN_FILENO);
	if ((is_piped && image_head_read(&o->head, STDIN_FILENO, "repl-track", e)) || state_open(&o->s, o->state, false, e) ||
			(!is_piped && state_load_image(&o->s, &o->head, e)))
		return -1;
	o->out = (struct stream_out){.sink = sink_write, .ctx = &o->sink};
	t.threads = (unsigned)o->threads;
	t.tmpdir = cli_env("TMPDIR");
	if (track_run(&t, e) || sink_flush(&o->sink, e))
		return -1;
	if (t.has_base)
		cli_say(c, 1, "compared the stat of %" PRIu64 " entries with the base; %" PRIu64 " may have changed", t.entries,
			t.changed);
	else
		cli_say(c, 1, "there is no base yet: everything is new");
	cli_stat(c, "entries", t.entries, "");
	cli_stat(c, "changed", t.changed, "");
	return 0;
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings o = {.s = {.fd = -1, .lock_fd = -1}};
	struct err e = {0};
	const struct opt opts[] = {
		{"state", 's', OPT_STRING, &o.state, "DIR", "the source's memory for one destination; REPL_STATE", 0},
		{"threads", 'T', OPT_NUMBER, &o.threads, "N", "threads that look; 0, the default: all cores", 0},
		{"merge", 0, OPT_FLAG, &o.merge, NULL, "join change streams, or journals, into one list", 0},
		{"output", 'o', OPT_STRING, &c.output, "FILE", "write to FILE, complete or not at all", 0},
		{"force", 0, OPT_FLAG, &c.force, NULL, "overwrite FILE; use a terminal", 0},
	};

	cli_start(&c, "repl-track");
	int status = cli_options(&c, argc, argv, opts, sizeof opts / sizeof opts[0], "-s DIR <IMAGE >CHANGES\n--merge LIST... >CHANGES",
		"Says what may have changed since the base.");
	if (status)
		return status;
	run(&c, &o, &e);
	state_close(&o.s);
	image_head_free(&o.head);
	stream_out_free(&o.out);
	sink_free(&o.sink);
	return cli_finish(&c, &e);
}
