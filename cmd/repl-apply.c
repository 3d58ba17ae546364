/*
 * repl-apply: deltas onto a replica, staged, verified, landed, acknowledged.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "adopt.h"
#include "apply.h"
#include "cli.h"
#include "forced.h"
#include "past.h"
#include "sink.h"
#include "stamp.h"
#include "verify.h"

#define CHECKPOINT (256u * 1024 * 1024)
#define MAX_MEMORY (UINT64_C(512) << 20) /* some twenty million directories or objects with a number */

struct settings {
	bool adopt, answer, token, status, list, restore, verify, wanted, dry, itemize, no_owner, no_setuid, no_devices, restricted;
	const char *key_file, *max_delete, *edited, *keep, *rollback, *at, *into;
	struct list maps, places;
	struct buf key, lines;
	struct owner_rule *rules;
	int64_t threads, max_age;
	uint64_t timeout;
	struct apply a;
	struct verify v;
};

/* With --restrict: all that a client may ask for. Modes that answer questions, and what is said on standard error; nothing that
 * takes a value, names a path or widens what authorized_keys fixed. */
static const struct forced_option client_may[] = {
	{"--dry-run", 'n'}, {"--itemize", 'i'}, {"--quiet", 'q'}, {"--verbose", 'v'}, {"--stats", 0}, {"--progress", 0},
	{"--no-progress", 0}, {"--ack", 0}, {"--json", 0}, {"--list", 0}, {"--resume-token", 0}, {"--status", 0}, {"--verify", 0},
	{"--wanted", 0}, {NULL, 0},
};

static void print_item(void *ctx, const char *code, struct span path)
{
	struct cli *c = ctx;
	AUTO_BUF struct buf b = {0};

	esc_name(&b, path);
	cli_item(c, code, buf_cstr(&b));
}

static void show_progress(void *ctx, uint64_t bytes, uint64_t total, uint64_t items)
{
	cli_progress(ctx, bytes, total, items, "applied");
}

static void show_verified(void *ctx, uint64_t bytes, uint64_t entries) { cli_progress(ctx, bytes, 0, entries, "verified"); }

static void print_difference(void *ctx, enum verify_kind k, struct span path, const char *detail)
{
	AUTO_BUF struct buf b = {0};

	esc_name(&b, path.len ? path : span_cstr("."));
	cli_say(ctx, 0, "%s '%s'%s%s", verify_kind_name(k), buf_cstr(&b), *detail ? ": " : "", detail);
}

static void print_kept(void *ctx, struct span path, const char *to)
{
	AUTO_BUF struct buf b = {0};

	esc_name(&b, path);
	cli_say(ctx, 0, "'%s' was edited here; it is now '%s'", buf_cstr(&b), to);
}

static void say(void *ctx, const char *text) { cli_say(ctx, 1, "%s", text); }

/* FROM:TO for users, +FROM:TO for groups, or "names". */
static int parse_maps(struct settings *s, struct err *e)
{
	s->rules = xalloc((s->maps.n + 1) * sizeof *s->rules);
	for (size_t i = 0; i < s->maps.n; i++) {
		const char *t = s->maps.v[i];
		char *end;
		if (!strcmp(t, "names")) {
			s->a.map_names = true;
			continue;
		}
		struct owner_rule *r = &s->rules[s->a.n_owners];
		r->is_group = *t == '+';
		t += r->is_group;
		unsigned long from = strtoul(t, &end, 10), to;
		if (end == t || *end != ':' || from > UINT32_MAX)
			return err_set(e, ERR_USAGE, "--map-owner wants FROM:TO, +FROM:TO or 'names', not '%s'", s->maps.v[i]);
		t = end + 1;
		to = strtoul(t, &end, 10);
		if (end == t || *end || to > UINT32_MAX)
			return err_set(e, ERR_USAGE, "--map-owner wants FROM:TO, +FROM:TO or 'names', not '%s'", s->maps.v[i]);
		r->from = (uint32_t)from;
		r->to = (uint32_t)to;
		s->a.n_owners++;
	}
	s->a.owners = s->rules;
	return 0;
}

static int parse_limit(struct settings *s, struct err *e)
{
	char *end;

	s->a.max_delete = UINT64_MAX;
	s->a.max_delete_percent = 100;
	if (!s->max_delete)
		return 0;
	unsigned long long n = strtoull(s->max_delete, &end, 10);
	if (end == s->max_delete || (*end && strcmp(end, "%")) || *s->max_delete == '-' || (*end && n > 100))
		return err_set(e, ERR_USAGE, "--max-delete wants a number or a percentage, not '%s'", s->max_delete);
	if (*end)
		s->a.max_delete_percent = (unsigned)n;
	else
		s->a.max_delete = n;
	return 0;
}

static int parse_edited(struct settings *s, struct err *e)
{
	static const char *const words[] = {[EDITS_REFUSE] = "refuse", [EDITS_KEEP] = "keep", [EDITS_OVERRULE] = "overrule"};

	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (!s->edited || !strcmp(s->edited, words[i])) {
			s->a.edited = (enum edits_mode)i;
			return 0;
		}
	return err_set(e, ERR_USAGE, "--edited wants refuse, keep or overrule, not '%s'", s->edited);
}

/* The undos that are kept unless --keep says otherwise. */
#define KEEP_COUNT 10

static int parse_keep(struct settings *s, struct err *e)
{
	/* Who goes back wants an image, and loses none for it: what is too much is the next delta's to say. */
	s->a.keep = (struct history_keep){.count = s->rollback ? UINT64_MAX : KEEP_COUNT};
	if (s->keep && !history_parse_keep(&s->a.keep, s->keep))
		return err_set(e, ERR_USAGE, "--keep wants a number, or ages like 24h,7d,4w,12m, not '%s'", s->keep);
	return 0;
}

static int print_text(struct span text, struct err *e)
{
	struct sink out = {.fd = STDOUT_FILENO, .name = "standard output"};
	int rc = sink_write(&out, &text, 1, e) || sink_flush(&out, e) ? -1 : 0;

	sink_free(&out);
	return rc;
}

static int print_list(struct cli *c, struct settings *s, struct err *e)
{
	AUTO_BUF struct buf text = {0};

	return past_list(&s->a, c->json, &text, e) || print_text(span_of(text.p, text.len), e) ? -1 : 0;
}

static int print_status(struct cli *c, struct settings *s, struct err *e)
{
	AUTO_BUF struct buf text = {0};
	struct timespec now;
	struct err late = {0};

	clock_gettime(CLOCK_REALTIME, &now);
	int rc = past_status(&s->a, now.tv_sec * INT64_C(1000000000) + now.tv_nsec, s->max_age / 1000000000, c->json, &text, e);
	/* What there is is said, whatever is wrong with it. */
	return text.len && print_text(span_of(text.p, text.len), rc ? &late : e) ? -1 : rc;
}

static int print_token(struct settings *s, struct err *e)
{
	struct token t;
	char text[TOKEN_TEXT + 1];

	if (apply_token(&s->a, &t, e))
		return -1;
	token_print(&t, text);
	strcat(text, "\n");
	return print_text(span_cstr(text), e);
}

static int verify(struct cli *c, struct settings *s, struct stream_out *wanted, struct err *e)
{
	if (s->wanted && cli_not_tty(c, STDOUT_FILENO, "write a change stream to", e))
		return -1;
	s->v.path = s->a.path;
	s->v.threads = (unsigned)s->threads;
	s->v.any_owner = s->maps.n > 0;
	s->v.land = (struct land){.kept = print_kept, .ctx = c, .policy = s->a.policy, .owners = s->a.owners, .n_owners = s->a.n_owners,
		.map_names = s->a.map_names};
	s->v.wanted = s->wanted ? wanted : NULL;
	s->v.tmpdir = s->a.tmpdir;
	s->v.warn = &c->warn;
	s->v.differs = print_difference;
	s->v.progress = show_verified;
	s->v.note = say;
	s->v.ctx = c;
	return verify_run(&s->v, e);
}

/* The modes that read no delta; 1: it is none of them. */
static int other_mode(struct cli *c, struct settings *s, struct stream_out *out, struct err *e)
{
	const char *which = s->rollback ? s->rollback : s->at;
	int64_t when = 0;

	if (s->adopt + s->answer + s->token + s->status + s->restore + s->list + s->verify + !!s->rollback + !!s->at + s->dry > 1)
		return err_set(e, ERR_USAGE, "one of --adopt, --ack, --resume-token, --restore-meta, --list, --status, --rollback, --at, "
			"--verify and --dry-run at a time");
	if (s->wanted && !s->verify)
		return err_set(e, ERR_USAGE, "--wanted goes with --verify");
	if (!s->at != !s->into)
		return err_set(e, ERR_USAGE, "--at=WHICH and --into=DIR go together");
	if (which && !stamp_parse(which, &when))
		when = 0;
	if (s->verify)
		return verify(c, s, out, e);
	if (s->adopt)
		return adopt_run(&s->a, e);
	if (s->restore)
		return apply_restore(&s->a, e);
	if (s->answer)
		return apply_answer(&s->a, e);
	if (s->token)
		return print_token(s, e);
	if (s->status)
		return print_status(c, s, e);
	if (s->list)
		return print_list(c, s, e);
	if (s->rollback)
		return past_rollback(&s->a, which, when, e);
	return s->at ? past_at(&s->a, which, when, s->into, e) : 1;
}

/* An answer goes out whole, and at once: more deltas may be long in coming. */
static int write_answer(void *ctx, const struct span *v, int n, struct err *e)
{
	return sink_write(ctx, v, n, e) || sink_flush(ctx, e) ? -1 : 0;
}

static int run(struct cli *c, struct settings *s, struct err *e)
{
	struct input in = {.timeout_ms = s->timeout / 1000000, .out_fd = s->timeout ? STDOUT_FILENO : 0};
	struct sink out = {.fd = STDOUT_FILENO, .name = "standard output"};
	struct stream_out ack = {.sink = write_answer, .ctx = &out};

	if (c->n_args != 1)
		return err_set(e, ERR_USAGE, "one replica directory is wanted");
	if (parse_maps(s, e) || parse_limit(s, e) || parse_edited(s, e) || parse_keep(s, e) || (s->key_file && cli_key(&s->key, s->key_file, e)))
		return -1;
	s->a.path = c->args[0];
	c->about.what = "replica";
	c->about.path = s->a.path;
	s->a.ack = isatty(STDOUT_FILENO) ? NULL : &ack;
	s->a.dry = s->dry;
	s->a.places = s->places.v;
	s->a.n_places = s->places.n;
	s->a.policy = (struct meta_policy){.no_owner = s->no_owner, .no_setuid = s->no_setuid || s->restricted,
		.no_devices = s->no_devices || s->restricted};
	s->a.warn = &c->warn;
	s->a.item = s->itemize || s->dry ? print_item : NULL;
	s->a.progress = show_progress;
	s->a.kept = print_kept;
	s->a.note = say;
	s->a.ctx = c;
	/* sshd may have taken the client's environment. */
	s->a.tmpdir = cli_env("TMPDIR") && !s->restricted ? cli_env("TMPDIR") : "/tmp";
	s->a.confine = true;
	s->a.is_live = s->timeout != 0;
	int rc = other_mode(c, s, &ack, e);
	if (rc == 1) {
		if (cli_not_tty(c, STDIN_FILENO, "read a delta from", e) || input_open(&in, STDIN_FILENO, 0, e))
			return -1;
		in.s.key = &s->key;
		s->a.in = &in;
		rc = apply_run(&s->a, e);
		input_close(&in);
	}
	/* What was acknowledged before an error is acknowledged. */
	struct err flush = {0};
	if (sink_flush(&out, rc ? &flush : e))
		rc = -1;
	sink_free(&out);
	stream_out_free(&ack);
	return rc;
}

static void count(struct cli *c, const struct settings *s)
{
	if (s->verify) {
		cli_stat(c, "entries", s->v.entries, "");
		cli_stat(c, "files", s->v.files, "");
		cli_stat(c, "content", s->v.bytes, "bytes");
		for (enum verify_kind k = VERIFY_EDITED; k < VERIFY_KINDS; k++)
			cli_stat(c, verify_kind_name(k), s->v.counts[k], "");
		cli_stat(c, "kept otherwise", s->v.kept_otherwise, "");
		return;
	}
	cli_stat(c, "deltas", s->a.n_deltas, "");
	cli_stat(c, "created", s->a.n_created, "");
	cli_stat(c, "changed", s->a.n_changed, "");
	cli_stat(c, "removed", s->a.n_removed, "");
	cli_stat(c, "content received", s->a.bytes, "bytes");
}

int main(int argc, char **argv)
{
	struct cli c;
	struct settings s = {.a.max_memory = MAX_MEMORY};
	struct err e = {0};
	const struct opt opts[] = {
		{"dry-run", 'n', OPT_FLAG, &s.dry, NULL, "verify and itemize, change nothing", 0},
		{"itemize", 'i', OPT_FLAG, &s.itemize, NULL, "a line for each change, on standard error", 0},
		{"adopt", 0, OPT_FLAG, &s.adopt, NULL, "take a directory with content as it is; reads no delta", 0},
		{"list", 0, OPT_FLAG, &s.list, NULL, "show the images it can go back to; reads no delta", 0},
		{"status", 0, OPT_FLAG, &s.status, NULL, "show what it holds, how old that is, and what was recovered; reads no delta", 0},
		{"max-age", 0, OPT_DURATION, &s.max_age, "TIME", "with --status: exit with 5 when the image is older", 0},
		{"json", 0, OPT_FLAG, &c.json, NULL, "with --list and --status: JSON", 0},
		{"rollback", 0, OPT_STRING, &s.rollback, "WHICH", "back to an image: its id, a time, a bookmark or -N", 0},
		{"at", 0, OPT_STRING, &s.at, "WHICH", "with --into: that image beside the replica", 0},
		{"into", 0, OPT_STRING, &s.into, "DIR", "where --at makes it", 0},
		{"where", 0, OPT_LIST, &s.places, "NAME=PATH", "a member's place: a device or file of a volume, a directory of a tree", 0},
		{"keep", 0, OPT_STRING, &s.keep, "N|AGES", "undos to keep: a number, or 24h,7d,4w,12m; 0: make none", 0},
		{"restore-meta", 0, OPT_FLAG, &s.restore, NULL, "set all metadata again, as the image has it; reads no delta", 0},
		{"verify", 0, OPT_FLAG, &s.verify, NULL, "read everything again, name what is not as it was applied", 0},
		{"wanted", 0, OPT_FLAG, &s.wanted, NULL, "with --verify: write it as changes for repl-diff", 0},
		{"threads", 'T', OPT_NUMBER, &s.threads, "N", "threads that read for --verify; 0: all cores", 0},
		{"timeout", 0, OPT_DURATION, &s.timeout, "DUR", "give up when nothing comes for so long; never", 0},
		{"edited", 0, OPT_STRING, &s.edited, "WORD", "files edited here: refuse (default), keep, overrule", 0},
		{"ack", 0, OPT_FLAG, &s.answer, NULL, "acknowledge again what the replica holds; reads no delta", 0},
		{"resume-token", 0, OPT_FLAG, &s.token, NULL, "print where a delta that broke off goes on; reads none", 0},
		{"checkpoint", 0, OPT_SIZE, &s.a.checkpoint, "SIZE", "make what comes durable each so many bytes; 256M", 0},
		{"max-delete", 0, OPT_STRING, &s.max_delete, "N[%]", "refuse a delta that removes more names", 0},
		{"max-memory", 0, OPT_SIZE, &s.a.max_memory, "SIZE", "for the names of one delta; 512M, 0: no limit", 0},
		{"max-content", 0, OPT_SIZE, &s.a.max_content, "SIZE", "refuse a delta that brings more content", 0},
		{"map-owner", 0, OPT_LIST, &s.maps, "FROM:TO", "another user; +FROM:TO: group; names: by their names", 0},
		{"no-owner", 0, OPT_FLAG, &s.no_owner, NULL, "leave owner and group as they come", 0},
		{"no-setuid", 0, OPT_FLAG, &s.no_setuid, NULL, "no setuid, setgid, capabilities", 0},
		{"no-devices", 0, OPT_FLAG, &s.no_devices, NULL, "make no device nodes", 0},
		{"restrict", 0, OPT_FLAG, &s.restricted, NULL, "for command= in authorized_keys: no setuid, no devices", 0},
		{"key-file", 0, OPT_STRING, &s.key_file, "FILE", "accept only deltas signed with this key", 0},
		{"force", 'f', OPT_FLAG, &c.force, NULL, "read from a terminal", 0},
	};

	AUTO_BUF struct buf ignored = {0};
	AUTO_FREE char **args = forced_args(argc, argv, forced_wanted(argc, argv, "--restrict") ?
		cli_env("SSH_ORIGINAL_COMMAND") : NULL, client_may, &argc, &ignored);

	cli_start(&c, "repl-apply");
	s.a.checkpoint = CHECKPOINT;
	int status = cli_options(&c, argc, args, opts, sizeof opts / sizeof opts[0],
		"REPLICA <DELTA >ACK\n--adopt REPLICA >ACK\n--restore-meta REPLICA\n--verify [--wanted] REPLICA >CHANGES",
		"Applies deltas to a replica: whole, verified, or not at all.");
	if (status)
		return status;
	if (ignored.len)
		cli_say(&c, 0, "the key allows nothing but to apply: ignored %s", buf_cstr(&ignored));
	run(&c, &s, &e);
	count(&c, &s);
	free(s.rules);
	buf_free(&s.key);
	status = cli_finish(&c, &e);
	return (status == 0 || status == ERR_INCOMPLETE) && s.v.differs_any && !s.wanted ? 10 : status;
}
