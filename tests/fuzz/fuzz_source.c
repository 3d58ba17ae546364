/*
 * What the source reads, of records that are well formed (dense.h). The first byte decides which:
 *   an image file as OLD      what was loaded and written out loads again, as the same image
 *   a change stream           whatever it names in a small tree, nothing outside the tree gets into the delta, and the delta leads
 *                             from the base to the image that it promises
 *   an answer for --commit    the base is what it was, or what was acknowledged
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "delta.h"
#include "dense.h"
#include "image.h"
#include "path.h"
#include "pending.h"
#include "snap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MARK "only outside"

static const char *const names[] = {"", "a", "b", "f", "g", "l", "x", "d", "e", "p", "out", "deep", "..", ".", ".repl", "a/f",
	"../out", "/etc/passwd", NULL};

static struct {
	int fd;
	char *tree, *state, *spare, *tmp;
	struct catalog *base;      /* of the tree before it changed */
	struct digest old, planned;
} w;

static char *path_in(const char *name)
{
	AUTO_BUF struct buf b = {0};

	buf_fmt(&b, "%s/%s", dense_work(), name);
	return xstrdup(buf_cstr(&b));
}

static void put_file(const char *path, const char *content)
{
	int fd = openat(w.fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	dense_must(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content) && !close(fd), path);
}

static void copy_below(const char *from, const char *to)
{
	struct dirent **v;

	dense_must(!mkdirat(w.fd, to, 0700), to);
	AUTO_CLOSE int src = openat(w.fd, from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int dst = openat(w.fd, to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int n = scandirat(w.fd, from, &v, NULL, NULL);
	dense_must(src >= 0 && dst >= 0 && n >= 0, from);
	for (int i = 0; i < n; i++) {
		char below[2][512];
		snprintf(below[0], sizeof below[0], "%s/%s", from, v[i]->d_name);
		snprintf(below[1], sizeof below[1], "%s/%s", to, v[i]->d_name);
		if (v[i]->d_name[0] != '.' && v[i]->d_type == DT_DIR) {
			copy_below(below[0], below[1]);
		} else if (v[i]->d_name[0] != '.') {
			AUTO_CLOSE int in = openat(src, v[i]->d_name, O_RDONLY | O_CLOEXEC);
			AUTO_CLOSE int out = openat(dst, v[i]->d_name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
			char buf[65536];
			ssize_t got;
			while ((got = read(in, buf, sizeof buf)) > 0)
				dense_must(write(out, buf, (size_t)got) == got, "cannot copy");
			dense_must(in >= 0 && out >= 0 && got == 0, "cannot copy");
		}
		free(v[i]);
	}
	free(v);
}

static void copy_dir(const char *from, const char *to)
{
	struct err e = {0};

	dense_must(!path_remove(w.fd, to, &e) || e.sys == ENOENT, e.text);
	copy_below(from, to);
}

static void prepare_state(void)
{
	struct state st = STATE_NONE;
	struct snap s = {.state = &st};
	struct err e = {0};
	struct pending plan;
	const char *roots[] = {w.tree};
	int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

	dense_must(!state_open(&st, w.state, true, &e) && !snap_members(&s, roots, 1, &e) &&
		!snap_open_image(&s, &e), e.text);
	snap_free(&s);
	state_close(&st);
	struct delta d = {.diff = {.tmpdir = w.tmp, .threads = 1}, .fd = null, .out_name = "nowhere"};
	dense_must(!delta_state(&d, w.state, NULL, &e) && !state_open(&st, w.state, false, &e) && pending_last(&st, &plan, &e) == 1, e.text);
	w.planned = plan.id;
	state_close(&st);
	close(null);
	copy_dir("state", "spare");
}

static void prepare(void)
{
	struct err e = {0};
	static const char *const dirs[] = {"out", "tmp", "tree", "tree/a", "tree/a/deep", "tree/e"};

	w.fd = open(dense_work(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w.tree = path_in("tree");
	w.state = path_in("state");
	w.tmp = path_in("tmp");
	dense_must(!setenv("TMPDIR", w.tmp, 1), "no environment");
	for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++)
		dense_must(!mkdirat(w.fd, dirs[i], 0755), dirs[i]);
	put_file("out/f", MARK);
	put_file("tree/f", "one");
	put_file("tree/a/f", "two");
	put_file("tree/a/deep/x", "three");
	dense_must(!linkat(w.fd, "tree/f", w.fd, "tree/g", 0) && !symlinkat("../out", w.fd, "tree/l") &&
		!symlinkat("../../out/f", w.fd, "tree/a/l") && !mkfifoat(w.fd, "tree/p", 0600), "cannot make the tree");
	prepare_state();
	struct walk_root root = {"", open(w.tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	struct diff d = {.tmpdir = w.tmp, .threads = 1};
	dense_must(!source_scratch(&w.base, w.tmp, NULL, &e) && !source_digest(w.base, &root, 1, &d, &e) &&
		!catalog_settle(w.base, &e) && !catalog_id(w.base, &w.old, &e), e.text);
	close_fd(&root.fd);
	/* The tree goes on from there. */
	put_file("tree/f", "one, longer");
	put_file("tree/b", "new");
	dense_must(!renameat(w.fd, "tree/a/deep", w.fd, "tree/d") && !unlinkat(w.fd, "tree/e", AT_REMOVEDIR) &&
		!symlinkat("../out", w.fd, "tree/e"), "cannot change the tree");
}

static void frame(struct buf *b, struct dense *d, enum stream_kind kind)
{
	struct stream_out o = {.sink = dense_sink, .ctx = b};
	struct record r;
	struct err e = {0};
	bool has_end = kind == KIND_ACK;

	stream_begin(&o, kind, &e);
	if (kind != KIND_ACK) {
		r = (struct record){.type = REC_IMAGE};
		stream_put(&o, &r, &e);
		r = (struct record){.type = REC_MEMBER, .u.member = {.kind = 1, .path = span_cstr(w.tree)}};
		stream_put(&o, &r, &e);
	}
	while (dense_next(d, kind, &r)) {
		if (rec_check(&r, &e) == 0)
			stream_put(&o, &r, &e);
		err_clear(&e);
		has_end |= r.type == REC_END;
	}
	r = (struct record){.type = REC_END};
	if (!has_end)
		stream_put(&o, &r, &e);
	stream_finish(&o, &e);
	stream_out_free(&o);
}

/* ---- an image as OLD ---- */

static void load(struct span stream, struct digest *id, int *rc, struct buf *out)
{
	struct catalog *c = NULL;
	struct input in = {0};
	struct image_loader l = {0};
	struct stream_out o = {.sink = dense_sink, .ctx = out};
	struct err e = {0};
	AUTO_CLOSE int fd = dense_fd(stream);
	int got = 0;

	dense_must(!source_scratch(&c, w.tmp, NULL, &e) && !input_open(&in, fd, 1, &e), e.text);
	/* As source_load does, but for the id that the stream promises: a made-up one is always wrong. */
	image_load_start(&l, c);
	while ((got = input_next(&in, &e)) > 0 && got != STREAM_END)
		if (got == STREAM_RECORD && image_load(&l, &in.s.rec, &e)) {
			got = -1;
			break;
		}
	*rc = got < 0 || image_load_end(&l, id, &e) ? -1 : 0;
	dense_must(!*rc || e.kind == ERR_STREAM || e.kind == ERR_MISMATCH, e.text);
	if (!*rc)
		dense_must(!stream_begin(&o, KIND_IMAGE, &e) && !image_write(c, &o, true, &e) && !stream_finish(&o, &e), e.text);
	image_loader_free(&l);
	input_close(&in);
	stream_out_free(&o);
	catalog_close(&c);
}

static void image(struct span stream)
{
	AUTO_BUF struct buf out = {0}, again = {0};
	struct digest first, second;
	int rc;

	load(stream, &first, &rc, &out);
	if (rc)
		return;
	load(span_of(out.p, out.len), &second, &rc, &again);
	dense_must(!rc && digest_eq(&first, &second), "an image that was written does not load as itself");
	dense_must(span_eq(span_of(out.p, out.len), span_of(again.p, again.len)), "one image, written in two ways");
}

/* ---- a change stream ---- */

static int next_copy(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	(void)items;
	if (source_scratch(ctx, w.tmp, w.base, e))
		return -1;
	*next = *(struct catalog **)ctx;
	return 0;
}

static void check_delta(struct span delta, const struct digest *id)
{
	struct catalog *c = NULL;
	struct input in = {0};
	struct image_loader l = {0};
	struct digest have;
	struct err e = {0};
	AUTO_CLOSE int fd = dense_fd(delta);
	int got;

	dense_must(!memmem(delta.p, delta.len, MARK, strlen(MARK)), "what is outside got into the delta");
	dense_must(!source_scratch(&c, w.tmp, w.base, &e) && !input_open(&in, fd, 1, &e), e.text);
	image_load_start(&l, c);
	while ((got = input_next(&in, &e)) > 0 && got != STREAM_END)
		if (got == STREAM_RECORD)
			dense_must(!image_load(&l, &in.s.rec, &e), e.text);
	dense_must(got == STREAM_END && !image_load_end(&l, &have, &e), e.text);
	dense_must(digest_eq(&have, id), "the delta leads to another image than it promises");
	image_loader_free(&l);
	input_close(&in);
	catalog_close(&c);
}

static void changes(struct span stream)
{
	AUTO_BUF struct buf delta = {0}, plan = {0};
	struct stream_out o = {.sink = dense_sink, .ctx = &delta}, p = {.sink = dense_sink, .ctx = &plan};
	struct walk_root root = {"", open(w.tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
	struct r_member member = {.kind = 1};
	struct catalog *next = NULL;
	struct input in = {0};
	struct err e = {0};
	AUTO_CLOSE int fd = dense_fd(stream);

	dense_must(!input_open(&in, fd, 1, &e), e.text);
	/* As delta_state leaves it: the head was read, the record behind it is looked at again. */
	int got;
	do {
		got = input_next(&in, &e);
	} while (got == STREAM_BEGIN || (got == STREAM_RECORD &&
		(in.s.rec.type == REC_IMAGE || in.s.rec.type == REC_MEMBER || in.s.rec.type == REC_CURSOR)));
	if (got == STREAM_RECORD) {
		struct diff d = {.base = w.base, .roots = &root, .n_roots = 1, .members = &member, .changes = &in, .out = &o, .plan = &p,
			.next = next_copy, .ctx = &next, .tmpdir = w.tmp, .threads = 1};
		if (diff_run(&d, &e) == 0)
			check_delta(span_of(delta.p, delta.len), &d.id);
		else
			dense_must(e.kind == ERR_STREAM, e.text);
	}
	catalog_close(&next);
	close_fd(&root.fd);
	input_close(&in);
	stream_out_free(&o);
	stream_out_free(&p);
}

/* ---- an answer ---- */

static void answer(struct span stream)
{
	struct state st = STATE_NONE;
	struct snap_acks acks = {0};
	struct catalog *c = NULL;
	struct digest id = {{0}};
	struct err e = {0}, why = {0};
	AUTO_CLOSE int fd = dense_fd(stream);

	dense_must(!state_open(&st, w.state, false, &e), e.text);
	int rc = snap_commit(&st, fd, 0, NULL, &acks, &why);
	dense_must(!rc || why.kind == ERR_STREAM || why.kind == ERR_MISMATCH, why.text);
	dense_must(!state_catalog(&st, CATALOG_LIVE, &c, &e) && !catalog_id(c, &id, &e), e.text);
	catalog_close(&c);
	state_close(&st);
	dense_must(digest_eq(&id, &w.planned) ? acks.committed > 0 : digest_is_zero(&id) && !acks.committed,
		"the base is neither what it was nor what was acknowledged");
	if (acks.committed)
		copy_dir("spare", "state");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum stream_kind kinds[] = {KIND_IMAGE, KIND_CHANGE, KIND_ACK};
	struct digest pool[3];
	struct dense d = {.digests = pool, .n_digests = 3, .names = names};
	AUTO_BUF struct buf b = {0};

	if (!size)
		return 0;
	if (!w.tree)
		prepare();
	pool[0] = w.planned;
	pool[1] = w.old;
	digest_bytes(&pool[2], "hello", 5);
	dense_start(&d, data + 1, size - 1);
	enum stream_kind kind = kinds[data[0] % 3];
	frame(&b, &d, kind);
	dense_keep(span_of(b.p, b.len));
	if (kind == KIND_IMAGE)
		image(span_of(b.p, b.len));
	else if (kind == KIND_CHANGE)
		changes(span_of(b.p, b.len));
	else
		answer(span_of(b.p, b.len));
	dense_free(&d);
	return 0;
}
