/*
 * repl-pack: squeezes a stream for the way, and opens it again; keeps deltas in a queue until the way is open.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "codec.h"
#include "outbox.h"
#include "pack.h"
#include "pool.h"

#define LEVEL_FREE INT64_MIN /* nobody chose one */
#define LONG_LOG_TEXT "23" /* --long alone: as far as one chunk reaches */

struct settings {
	bool is_undo, is_adaptive, is_flushing;
	int64_t level, threads, long_log;
	uint64_t chunk, rate;
	const char *key_file, *resume, *state, *queue, *dequeue;
	struct buf key;
};

/* --long may come without a value, as in zstd, and --dequeue where the policy has it: then they get one before the options are read. */
static char **with_values(int argc, char **argv)
{
	static char lone_long[] = "--long=" LONG_LOG_TEXT, lone_dequeue[] = "--dequeue=";
	size_t n = (size_t)argc;
	char **v = xalloc((n + 1) * sizeof *v);
	bool is_over = false;

	for (size_t i = 0; i < n; i++) {
		is_over = is_over || !strcmp(argv[i], "--");
		v[i] = is_over ? argv[i] : !strcmp(argv[i], "--long") ? lone_long : !strcmp(argv[i], "--dequeue") ? lone_dequeue : argv[i];
	}
	return v;
}

/* A bad value in the environment is no reason to stop a pipeline that runs at night: it is named and left alone. */
static int64_t level_of_env(struct cli *c)
{
	const char *text = cli_env("ZSTD_CLEVEL");
	char shown[64], *end;

	if (!text)
		return LEVEL_FREE;
	long level = strtol(text, &end, 10);
	if (*end || end == text || level < codec_level_min() || level > codec_level_max()) {
		cli_say(c, 0, "ZSTD_CLEVEL is '%s', not a level: left alone", esc_cut(shown, sizeof shown, span_cstr(text)));
		return LEVEL_FREE;
	}
	return level;
}

static int check_range(const char *name, int64_t v, int64_t least, int64_t most, struct err *e)
{
	if (v >= least && v <= most)
		return 0;
	return err_set(e, ERR_USAGE, "--%s takes %" PRId64 " to %" PRId64 ", not %" PRId64, name, least, most, v);
}

static int check(const struct cli *c, const struct settings *s, struct err *e)
{
	int64_t chunk = s->chunk > INT64_MAX ? INT64_MAX : (int64_t)s->chunk;

	if (c->n_args)
		return err_set(e, ERR_USAGE, "no operands are taken: the stream comes on standard input");
	if (s->resume && s->is_undo)
		return err_set(e, ERR_USAGE, "--resume packs: it does not go with -d");
	if (s->queue && (s->dequeue || s->is_undo || s->resume || c->output))
		return err_set(e, ERR_USAGE, "--queue writes files of its own: no --dequeue, --unpack, --resume and --output");
	if (s->dequeue && (s->is_undo || s->resume))
		return err_set(e, ERR_USAGE, "--dequeue sends what is packed already: no --unpack, and to --resume give the queue's file");
	if (s->dequeue && !*s->dequeue)
		return err_set(e, ERR_USAGE, "which queue? give --dequeue=DIR, or -s DIR with a policy that names it");
	if ((s->level != LEVEL_FREE && check_range("level", s->level, codec_level_min(), codec_level_max(), e)) ||
		check_range("threads", s->threads, 0, POOL_THREADS_MAX, e) ||
		(s->long_log && check_range("long", s->long_log, CODEC_LONG_MIN, CODEC_LONG_MAX, e)) ||
		(s->chunk && check_range("chunk", chunk, CODEC_CHUNK_MIN, CODEC_CHUNK_MAX, e)))
		return -1;
	return 0;
}

static void show_progress(void *ctx, const struct pack_stats *now)
{
	cli_progress(ctx, now->plain, 0, 0, "plain bytes");
}

static void count(struct cli *c, const struct settings *s, const struct pack_stats *n)
{
	cli_stat(c, "plain", n->plain, "bytes");
	cli_stat(c, "packed", n->packed, "bytes");
	cli_stat(c, "streams", n->streams, "");
	if (s->is_undo || s->dequeue)
		return;
	cli_stat(c, "chunks", n->chunks, "");
	cli_stat(c, "raw chunks", n->raw_chunks, "");
}

/* The policy's queue is for packing, and for a --dequeue that names none; "none": whatever the policy says. */
static int obey_policy(struct cli *c, struct settings *s, struct err *e)
{
	const char *given = s->queue;

	s->state = s->state ? s->state : cli_env("REPL_STATE");
	if (s->state && !s->is_undo && cli_policy(c, s->state, false, e))
		return -1;
	if (s->dequeue && !given && s->queue && !*s->dequeue)
		s->dequeue = s->queue;
	if (s->queue && (!strcmp(s->queue, "none") || (!given && (s->dequeue || s->resume))))
		s->queue = NULL;
	return 0;
}

static void on_note(void *ctx, int level, const char *text) { cli_say(ctx, level, "%s", text); }

static int run(struct cli *c, struct settings *s, struct err *e)
{
	bool is_named = s->dequeue && *s->dequeue;
	struct pack_stats n = {0};
	struct token token;
	int out = -1;

	if (obey_policy(c, s, e) || check(c, s, e) || (!s->dequeue && cli_not_tty(c, STDIN_FILENO, "read a stream from", e)) ||
			(s->key_file && cli_key(&s->key, s->key_file, e)) || (s->resume && token_read(&token, s->resume, e)))
		return -1;
	if (!s->queue && ((out = cli_output(c, e)) < 0 ||
			cli_not_tty(c, out, s->is_undo ? "write a stream to" : "write a packed stream to", e)))
		return -1;
	const struct pack_settings o = {
		.level = s->level == LEVEL_FREE ? PACK_LEVEL : (int)s->level,
		.is_level_free = s->level == LEVEL_FREE && !s->is_adaptive,
		.threads = (unsigned)s->threads,
		.chunk = s->chunk,
		.long_log = (unsigned)s->long_log,
		.is_adaptive = s->is_adaptive,
		.is_flushing = s->is_flushing,
		.rate = s->rate,
		.resume = s->resume ? &token : NULL,
		.key = &s->key,
		.tick = show_progress,
		.ctx = c,
	};
	struct outbox b = {.queue = s->queue ? s->queue : s->dequeue, .state = s->state, .note = on_note, .ctx = c,
		.may_make = !is_named};
	int rc = s->queue ? outbox_fill(&b, STDIN_FILENO, &o, &n, e) : s->dequeue ? outbox_send(&b, out, &o, &n, e) :
		s->is_undo ? pack_undo(STDIN_FILENO, out, &o, &n, e) : pack_run(STDIN_FILENO, out, &o, &n, e);
	count(c, s, &n);
	if (b.queue)
		cli_stat(c, s->queue ? "queued" : "dequeued", b.deltas, "");
	if (s->queue)
		cli_stat(c, "replaced", b.replaced, "");
	return rc;
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings s = {0};
	struct err e = {0};
	const struct opt opts[] = {
		{"state", 's', OPT_STRING, &s.state, "DIR", "obey the policy of this state directory; REPL_STATE", 0},
		{"unpack", 'd', OPT_FLAG, &s.is_undo, NULL, "packed stream in, plain stream out", 0},
		{"level", 'l', OPT_NUMBER, &s.level, "N", "from fast (negative) to small (22); else ZSTD_CLEVEL, or what the output has time for", 0},
		{"threads", 'T', OPT_NUMBER, &s.threads, "N", "threads that squeeze; 0, the default: all cores, up to 8", 0},
		{"long", 0, OPT_NUMBER, &s.long_log, "LOG",
			"look for repetition at a distance of up to 2^LOG bytes, in chunks of 8M; alone: " LONG_LOG_TEXT, 0},
		{"adapt", 0, OPT_FLAG, &s.is_adaptive, NULL, "move the level so that the output is never waited for", 0},
		{"rate", 0, OPT_SIZE, &s.rate, "SIZE", "write no more than so many bytes a second", 0},
		{"chunk", 0, OPT_SIZE, &s.chunk, "SIZE", "plain bytes in a chunk, 4K to 8M; 2M", 0},
		{"flush", 0, OPT_FLAG, &s.is_flushing, NULL, "send what there is when a stream ends, as others follow", 0},
		{"resume", 0, OPT_STRING, &s.resume, "TOKEN",
			"of the delta that comes, plain or packed, send what the replica has not", 0},
		{"queue", 0, OPT_STRING, &s.queue, "DIR", "put each delta into this queue; none: whatever the policy says", 0},
		{"dequeue", 0, OPT_STRING, &s.dequeue, "DIR", "write what waits in this queue; alone: in the policy's", 0},
		{"key-file", 0, OPT_STRING, &s.key_file, "FILE",
			"sign each stream with this key; with -d: accept no other", 0},
		{"output", 'o', OPT_STRING, &c.output, "FILE", "write to FILE, complete or not at all", 0},
		{"force", 0, OPT_FLAG, &c.force, NULL, "overwrite FILE; write to a terminal", 0},
	};

	cli_start(&c, "repl-pack");
	s.level = level_of_env(&c);
	AUTO_FREE char **args = with_values(argc, argv);
	int status = cli_options(&c, argc, args, opts, sizeof opts / sizeof opts[0], "<STREAM >PACKED\n-d <PACKED >STREAM\n--queue=DIR <STREAM\n--dequeue[=DIR] >PACKED",
		"Packs a stream for the way. zstd -d opens it, too.");
	if (status)
		return status;
	run(&c, &s, &e);
	buf_free(&s.key);
	return cli_finish(&c, &e);
}
