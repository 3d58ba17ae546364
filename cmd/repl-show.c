/*
 * repl-show: prints any stream as text or as JSON lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

#include "cli.h"
#include "input.h"
#include "show.h"

#define OUT_LEN 65536u /* lines are gathered up to here */

struct settings {
	bool header_only;
	const char *key_file;
	struct buf key;
	/* lines that wait */
	struct buf out;
	int fd;
	struct err *e;
};

static int flush(struct settings *s)
{
	for (size_t at = 0; at < s->out.len && s->e->kind == ERR_NONE;) {
		ssize_t n = write(s->fd, s->out.p + at, s->out.len - at);
		if (n >= 0)
			at += (size_t)n;
		else if (errno != EINTR)
			err_sys(s->e, "cannot write the text");
	}
	buf_reset(&s->out);
	return s->e->kind == ERR_NONE ? 0 : -1;
}

static void add_line(void *ctx, const char *text, size_t len)
{
	struct settings *s = ctx;

	wr_raw(&s->out, text, len);
	wr_u8(&s->out, '\n');
}

/* Prints event after event; what was good before a damage has been printed when the damage is reported. */
static int show(struct cli *c, struct settings *s, struct input *in, struct show *w, struct err *e)
{
	uint64_t n = 0;
	int event;

	while ((event = input_next(in, e)) > 0) {
		n++;
		if (s->header_only && event != STREAM_BEGIN && !show_is_opening(in->s.rec.type))
			break;
		show_event(w, (enum stream_event)event, &in->s);
		if ((s->out.len >= OUT_LEN || event == STREAM_END) && flush(s))
			return -1;
		cli_progress(c, in->bytes_read, 0, n, "read");
	}
	cli_stat(c, "records", n, "");
	cli_stat(c, "streams", in->s.n_streams, "");
	cli_stat(c, "read", in->bytes_read, "bytes");
	if (in->s.n_skipped)
		cli_say(c, 0, "skipped %" PRIu64 " optional records that only a newer program knows", in->s.n_skipped);
	return event < 0 ? -1 : 0;
}

static int run(struct cli *c, struct settings *s, struct err *e)
{
	const char *path = c->n_args ? c->args[0] : "-";
	AUTO_CLOSE int file = -1;
	struct input in = {0};
	struct err late = {0};
	char shown[256];
	int fd = STDIN_FILENO;

	if (c->n_args > 1)
		return err_set(e, ERR_USAGE, "one stream at a time: cat(1) joins several");
	if (s->key_file && cli_key(&s->key, s->key_file, e))
		return -1;
	if (strcmp(path, "-")) {
		fd = file = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
		if (fd < 0)
			return err_sys(e, "cannot open '%s'", esc_cut(shown, sizeof shown, span_cstr(path)));
	}
	if (cli_not_tty(c, fd, "read a stream from", e) || (s->fd = cli_output(c, e)) < 0)
		return -1;
	if (input_open(&in, fd, s->header_only ? 1 : 0, e))
		return -1;
	in.s.key = s->key.len ? &s->key : NULL;
	in.s.ignore_mac = !s->key.len;
	struct show w = {.json = c->json, .line = add_line, .ctx = s};
	/* What went wrong with the input is told after the lines before it; what went wrong with the output comes first. */
	s->e = &late;
	show(c, s, &in, &w, e);
	flush(s);
	show_free(&w);
	input_close(&in);
	if (late.kind != ERR_NONE)
		*e = late;
	return e->kind == ERR_NONE ? 0 : -1;
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings s = {0};
	struct err e = {0};
	const struct opt opts[] = {
		{"header", 'n', OPT_FLAG, &s.header_only, NULL, "what the stream is about, and no further", 0},
		{"json", 0, OPT_FLAG, &c.json, NULL, "one JSON object a line", 0},
		{"key-file", 0, OPT_STRING, &s.key_file, "FILE", "accept only streams signed with this key", 0},
	};

	cli_start(&c, "repl-show");
	int status = cli_options(&c, argc, argv, opts, sizeof opts / sizeof opts[0], "[FILE]",
		"Prints a stream, plain or packed, one line a record.");
	if (status)
		return status;
	run(&c, &s, &e);
	buf_free(&s.key);
	buf_free(&s.out);
	return cli_finish(&c, &e);
}
