#include "changes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* A directory on the way down. */
struct frame {
	uint64_t ref, base;
	uint64_t named;     /* what the base has under this path, whether or not it is what the tree has there */
	size_t path_len;    /* of the way to it */
	unsigned root;
	bool is_fresh;      /* no record spoke of its inside so far */
	bool is_closed;     /* what is said about its inside is passed over */
	bool is_hidden;     /* it was not reported itself */
	bool is_mount;
	bool replaced;      /* it is another inode than the base's: what is in it is known by its names */
	bool unsure;        /* not all of its inside could be looked at */
	struct buf last;    /* the last name in it */
};

struct reader {
	struct scan *s;
	struct input *in;
	const struct walk_root *roots;
	size_t n_roots;
	struct path_cache **caches;
	bool is_named;
	struct frame *frames;
	size_t n, cap;
	struct buf path;    /* of the top frame, plus a name while one is looked at */
	uint64_t last_ref;
	struct stream_out *copy;
	bool is_whole;      /* everything was scanned: the rest says nothing */
	/* What the caller gave; between it and the scan we listen. */
	struct scan theirs;
	struct buf moved, gone; /* u64 numbers: directories that were found elsewhere; objects that lost a name */
};

static int disorder(struct reader *r, struct err *e)
{
	return err_set(e, ERR_STREAM, "change stream out of order at record %llu", (unsigned long long)r->in->s.n_record);
}

static struct frame *top(struct reader *r) { return &r->frames[r->n - 1]; }

static struct span path_now(const struct reader *r) { return span_of(r->path.p, r->path.len); }

static struct span frame_name(const struct reader *r, size_t i)
{
	const struct frame *f = &r->frames[i];
	size_t from = i ? r->frames[i - 1].path_len : 0;

	from += from > 0; /* the slash */
	return i ? span_of(r->path.p + from, f->path_len - from) : (struct span){0};
}

static void push(struct reader *r, struct frame f)
{
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 16;
		r->frames = xrealloc(r->frames, r->cap * sizeof *r->frames);
	}
	f.path_len = r->path.len;
	r->frames[r->n++] = f;
}

static int pop(struct reader *r, struct err *e)
{
	struct frame *f = top(r);
	struct scan_item it = {.kind = SCAN_LEAVE, .base = f->base, .root = f->root, .is_mount = f->is_mount,
		.unsure = f->unsure};

	r->path.len = f->path_len;
	it.name = frame_name(r, r->n - 1);
	it.path = path_now(r);
	int rc = f->is_hidden ? 0 : r->s->item(r->s->ctx, &it, e);
	buf_free(&f->last);
	r->n--;
	r->path.len = r->n ? top(r)->path_len : 0;
	return rc;
}

/* The frame that a record speaks of becomes the top. */
static int go_to(struct reader *r, uint64_t ref, struct err *e)
{
	while (r->n && top(r)->ref != ref)
		if (pop(r, e))
			return -1;
	return r->n ? 0 : disorder(r, e);
}

/* ---- directories that moved ---- */

static int hear_item(void *ctx, const struct scan_item *it, struct err *e)
{
	struct reader *r = ctx;

	if (it->kind == SCAN_ENTER && it->how == SCAN_ATTACH)
		buf_add(&r->moved, &it->base, sizeof it->base);
	return r->theirs.item(r->theirs.ctx, it, e);
}

static int hear_gone(void *ctx, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct reader *r = ctx;

	buf_add(&r->gone, &no, sizeof no);
	return r->theirs.gone(r->theirs.ctx, dir, name, no, e);
}

static bool hear_skip(void *ctx, const struct scan_item *it)
{
	struct reader *r = ctx;

	return r->theirs.skip(r->theirs.ctx, it);
}

static uint64_t hear_guess(void *ctx, const struct attr *a)
{
	struct reader *r = ctx;

	return r->theirs.guess(r->theirs.ctx, a);
}

static int cmp_no(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return x < y ? -1 : x > y;
}

/* Was it said that this directory's old name is gone, or one above it? */
static int is_told_gone(struct reader *r, uint64_t no, bool *told, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	int got = 1;

	for (*told = false; got == 1 && no != CATALOG_ROOT; got = catalog_name(r->s->base, no, &no, &name, e)) {
		*told = r->gone.len && bsearch(&no, r->gone.p, r->gone.len / sizeof no, sizeof no, cmp_no);
		if (*told)
			return 0;
	}
	return got < 0 ? -1 : 0;
}

/* A directory has one name. The stream need not speak of the old one: it may have moved while the stream was made. */
static int leave_old_places(struct reader *r, struct err *e)
{
	size_t size = sizeof(uint64_t);
	AUTO_BUF struct buf name = {0};

	if (r->gone.len)
		qsort(r->gone.p, r->gone.len / size, size, cmp_no);
	for (size_t at = 0; at < r->moved.len; at += size) {
		uint64_t no, dir;
		bool is_told;
		memcpy(&no, r->moved.p + at, size);
		if (is_told_gone(r, no, &is_told, e))
			return -1;
		if (is_told)
			continue;
		int got = catalog_name(r->s->base, no, &dir, &name, e);
		if (got < 0 || (got && r->theirs.gone(r->theirs.ctx, dir, span_of(name.p, name.len), no, e)))
			return -1;
	}
	return 0;
}

/* ---- one name ---- */

struct look {
	struct span name;
	unsigned root;
	bool is_member;   /* a named root */
	bool is_there, is_passed; /* passed: nothing is to be said about it */
	bool is_mount;
	struct attr a;
	int dirfd;        /* of the parent; borrowed */
};

/* Path within its root: without the member's name. */
static struct span below_root(const struct reader *r, struct span path)
{
	if (!r->is_named)
		return path;
	const uint8_t *slash = path.len ? memchr(path.p, '/', path.len) : NULL;
	if (!slash)
		return (struct span){0};
	size_t cut = (size_t)(slash - path.p) + 1;
	return span_of(path.p + cut, path.len - cut);
}

static int stat_name(struct reader *r, struct look *l, struct err *e)
{
	struct frame *f = top(r);
	char name[REC_NAME_MAX + 1];

	span_name(name, l->name);
	l->is_member = r->is_named && r->n == 1;
	if (l->is_member) {
		size_t i = 0;
		while (i < r->n_roots && strcmp(r->roots[i].name, name))
			i++;
		if (i == r->n_roots)
			return 0;
		l->root = (unsigned)i;
		l->is_there = true;
		l->dirfd = r->roots[i].fd;
		return attr_stat(&l->a, r->roots[i].fd, NULL, e);
	}
	l->root = f->root;
	/* The toolkit's own. */
	if (r->n == (r->is_named ? 2u : 1u) && !strcmp(name, ".repl")) {
		l->is_passed = true;
		return 0;
	}
	struct err why = {0};
	char text[300];
	l->dirfd = path_cached(r->caches[l->root], below_root(r, span_of(r->path.p, f->path_len)), &why);
	if (l->dirfd >= 0 && !attr_stat(&l->a, l->dirfd, name, &why)) {
		l->is_there = true;
		return 0;
	}
	if (path_is_gone(why.sys))
		return 0;
	l->is_passed = true;
	f->unsure = true;
	warn_say(r->s->warn, "unreadable", "cannot look at '%s': %s", esc_cut(text, sizeof text, path_now(r)), why.text);
	return 0;
}

/* Is it the scan's business? Also says what the base has under a name that is gone. */
static int sift(struct reader *r, struct look *l, struct err *e)
{
	struct scan *s = r->s;
	uint64_t dir = top(r)->base, no = 0;
	uint8_t type = OBJ_NONE;
	char text[300];

	if (l->is_passed)
		return 0;
	if (l->is_there && l->a.type == OBJ_DIR && s->prune_ino && l->a.hint.ino == s->prune_ino &&
			l->a.hint.dev == s->prune_dev) {
		l->is_passed = true;
		return 0;
	}
	bool is_socket = l->is_there && l->a.type == OBJ_SOCKET;
	if (l->is_there && !is_socket) {
		l->is_mount = l->a.type == OBJ_DIR && s->one_file_system && l->a.hint.dev != s->root_dev[l->root];
		l->is_passed = !l->is_member && s->filter && !filter_accepts(s->filter, path_now(r), l->a.type == OBJ_DIR);
		return 0;
	}
	l->is_passed = true;
	if (is_socket) {
		s->sockets++;
		warn_say(s->warn, "socket", "left out the socket '%s'", esc_cut(text, sizeof text, path_now(r)));
	}
	if (!dir)
		return 0;
	int got = catalog_lookup(s->base, dir, l->name, &no, &type, e);
	if (got != 1)
		return got;
	if (s->filter && !filter_accepts(s->filter, path_now(r), type == OBJ_DIR))
		return 0;
	return s->gone(s->ctx, dir, l->name, no, e);
}

/* Everything inside the directory at path_now, which was reported just now. */
static int inside(struct reader *r, struct look *l, const struct scan_item *it, bool *unsure, struct err *e)
{
	char name[REC_NAME_MAX + 1], text[300];
	AUTO_CLOSE int fd = -1;

	span_name(name, l->name);
	fd = l->is_member ? fcntl(l->dirfd, F_DUPFD_CLOEXEC, 3) : path_open_at(l->dirfd, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) {
		*unsure = true;
		warn_say(r->s->warn, path_is_gone(errno) ? "vanished" : "unreadable", "cannot open '%s': %s",
			esc_cut(text, sizeof text, path_now(r)), strerror(errno));
		return 0;
	}
	return scan_below(r->s, fd, it, path_now(r), unsure, e);
}

/* The name was appended to the path. A directory stays open as the top frame when ref is given. */
static int look_at(struct reader *r, struct span name, uint64_t ref, uint8_t flags, struct err *e)
{
	struct scan *s = r->s;
	struct look l = {.name = name, .dirfd = -1};
	struct frame f = {.ref = ref, .is_fresh = true, .is_closed = true, .is_hidden = true};
	struct scan_item it = {.kind = SCAN_ENTRY, .name = name, .path = path_now(r), .attr = &l.a};
	bool is_whole;
	int rc = stat_name(r, &l, e);

	if (!rc)
		rc = sift(r, &l, e);
	if (rc || l.is_passed)
		goto out;
	it.is_mount = l.is_mount;
	it.replaced = top(r)->replaced;
	if ((rc = scan_classify(s, top(r)->base, l.root, &it, e)))
		goto out;
	it.kind = l.a.type == OBJ_DIR ? SCAN_ENTER : SCAN_ENTRY;
	if ((rc = s->item(s->ctx, &it, e)) || it.kind == SCAN_ENTRY)
		goto out;
	f.base = it.base;
	f.root = l.root;
	f.is_mount = l.is_mount;
	f.replaced = it.replaced;
	f.is_hidden = false;
	/* What the base does not know at this place is looked at whole, whatever else is said about it. */
	is_whole = it.how == SCAN_NEW || it.how == SCAN_ATTACH || it.replaced || flags & CHANGED_SUBTREE;
	if (is_whole && !l.is_mount)
		rc = inside(r, &l, &it, &f.unsure, e);
	f.is_closed = is_whole || l.is_mount;
	if (!ref && !rc) {
		it.kind = SCAN_LEAVE;
		it.unsure = f.unsure;
		rc = s->item(s->ctx, &it, e);
	}
out:
	attr_free(&l.a);
	if (ref)
		push(r, f);
	return rc;
}

/* ---- records ---- */

static int tell_wanted(struct reader *r, uint64_t parent, struct span name, uint8_t flags, struct err *e)
{
	const struct r_changed c = {.parent = parent, .flags = flags, .name = name};
	uint64_t dir = top(r)->named;

	if (!(flags & (CHANGED_WANTED | CHANGED_STRAY)) || !r->s->wanted || !dir)
		return 0;
	return r->s->wanted(r->theirs.ctx, dir, &c, e);
}

static int on_name(struct reader *r, uint64_t parent, struct span name, uint64_t ref, uint8_t flags, struct err *e)
{
	if (go_to(r, parent, e))
		return -1;
	struct frame *f = top(r);
	uint64_t named = 0;
	if (tell_wanted(r, parent, name, flags, e))
		return -1;
	if (!name.len) /* entering it looked at it */
		return 0;
	/* Once each and in order, or the target would hear of an object twice. */
	if (f->last.len && span_cmp(span_of(f->last.p, f->last.len), name) >= 0)
		return disorder(r, e);
	buf_reset(&f->last);
	buf_add(&f->last, name.p, name.len);
	f->is_fresh = false;
	if (ref && f->named && catalog_lookup(r->s->base, f->named, name, &named, NULL, e) < 0)
		return -1;
	path_push(&r->path, name);
	int rc = 0;
	if (!f->is_closed)
		rc = look_at(r, name, ref, flags, e);
	else if (ref)
		push(r, (struct frame){.ref = ref, .root = f->root, .is_fresh = true, .is_closed = true, .is_hidden = true});
	if (ref)
		top(r)->named = named;
	r->path.len = top(r)->path_len;
	return rc;
}

static int on_gap(struct reader *r, uint64_t ref, struct err *e)
{
	struct frame *f;
	char text[300];

	if (go_to(r, ref, e))
		return -1;
	f = top(r);
	if (!f->is_fresh)
		return disorder(r, e);
	f->is_fresh = false;
	if (f->is_closed)
		return 0;
	f->is_closed = true;
	const struct scan_item it = {.root = f->root, .base = f->base, .replaced = f->replaced};
	struct err why = {0};
	int fd = path_cached(r->caches[it.root], below_root(r, path_now(r)), &why);
	if (fd >= 0)
		return scan_below(r->s, fd, &it, path_now(r), &f->unsure, e);
	f->unsure = true;
	warn_say(r->s->warn, path_is_gone(why.sys) ? "vanished" : "unreadable", "cannot open '%s': %s",
		esc_cut(text, sizeof text, path_now(r)), why.text);
	return 0;
}

static int enter_root(struct reader *r, struct err *e)
{
	struct attr a = {0};
	struct scan_item it = {.kind = SCAN_ENTER, .how = SCAN_SUSPECT, .base = CATALOG_ROOT, .attr = &a};
	int rc = 0;

	if (r->is_named) {
		scan_group_attr(&a);
	} else if (!(rc = attr_stat(&a, r->roots[0].fd, NULL, e))) {
		a.hint.dev = scan_dev(a.hint.dev, r->s->root_dev[0], 0);
		r->s->entries++;
	}
	if (!rc)
		rc = r->s->item(r->s->ctx, &it, e);
	if (!rc)
		push(r, (struct frame){.ref = REF_ROOT, .base = CATALOG_ROOT, .named = CATALOG_ROOT, .is_fresh = true});
	attr_free(&a);
	return rc;
}

static int on_record(struct reader *r, const struct record *rec, struct err *e)
{
	if (r->is_whole)
		return 0;
	/* Which names an object has, and whether it is one of these trees', was to be found out before: it may be any. */
	if ((rec->type == REC_GAP && rec->u.gap.ref == REF_ROOT) || rec->type == REC_INODE) {
		if (r->n)
			return disorder(r, e);
		r->is_whole = true;
		return scan_tree(r->s, r->roots, r->n_roots, e);
	}
	if (rec->type != REC_DIR && rec->type != REC_CHANGED && rec->type != REC_GAP)
		return rec->type == REC_IMAGE || rec->type == REC_MEMBER ? disorder(r, e) : 0;
	if (!r->n && enter_root(r, e))
		return -1;
	if (rec->type == REC_GAP)
		return on_gap(r, rec->u.gap.ref, e);
	if (rec->type == REC_CHANGED)
		return on_name(r, rec->u.changed.parent, rec->u.changed.name, 0, rec->u.changed.flags, e);
	if (rec->u.dir.ref <= r->last_ref)
		return disorder(r, e);
	r->last_ref = rec->u.dir.ref;
	return on_name(r, rec->u.dir.parent, rec->u.dir.name, rec->u.dir.ref, 0, e);
}

static int read_all(struct reader *r, struct err *e)
{
	bool has_end = false;
	int got = STREAM_RECORD;

	/* The record that told the caller that the head was over stands in the input still. */
	for (; got > 0 && got != STREAM_END; got = input_next(r->in, e)) {
		const struct record *rec = &r->in->s.rec;
		if (got != STREAM_RECORD || has_end)
			return disorder(r, e);
		has_end = rec->type == REC_END;
		if (has_end)
			continue;
		if (on_record(r, rec, e) || (r->copy && stream_pass(r->copy, r->in->s.raw, e)))
			return -1;
	}
	if (got < 0)
		return -1;
	if (got != STREAM_END || !has_end)
		return err_set(e, ERR_STREAM, "the change stream ends early");
	/* Nothing was named: the root is looked at all the same. */
	if (!r->n && !r->is_whole && enter_root(r, e))
		return -1;
	while (r->n)
		if (pop(r, e))
			return -1;
	return leave_old_places(r, e);
}

int changes_pass(struct input *in, struct err *e)
{
	bool has_end = false;
	int got = STREAM_RECORD;

	for (; got > 0 && got != STREAM_END; got = input_next(in, e))
		has_end = in->s.rec.type == REC_END;
	if (got < 0)
		return -1;
	return got == STREAM_END && has_end ? 0 : err_set(e, ERR_STREAM, "the change stream ends early");
}

int changes_scan(struct scan *s, struct input *in, const struct walk_root *roots, size_t n_roots, struct path_cache **caches,
	struct stream_out *copy, struct err *e)
{
	struct reader r = {.s = s, .in = in, .roots = roots, .n_roots = n_roots, .caches = caches, .copy = copy,
		.is_named = n_roots != 1 || roots[0].name[0], .last_ref = REF_ROOT, .theirs = *s};

	s->item = hear_item;
	s->gone = hear_gone;
	s->skip = s->skip ? hear_skip : NULL;
	s->guess = s->guess ? hear_guess : NULL;
	s->ctx = &r;
	int rc = read_all(&r, e);
	s->item = r.theirs.item;
	s->gone = r.theirs.gone;
	s->skip = r.theirs.skip;
	s->guess = r.theirs.guess;
	s->ctx = r.theirs.ctx;
	while (r.n)
		buf_free(&r.frames[--r.n].last);
	free(r.frames);
	buf_free(&r.path);
	buf_free(&r.moved);
	buf_free(&r.gone);
	return rc;
}

/* ---- writing ---- */

struct changes_level {
	uint64_t ref;       /* 0: not announced yet */
	uint64_t dir;
	struct buf name;
};

void changes_enter(struct changes_out *c, struct span name, uint64_t dir)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 16;
		c->levels = xrealloc(c->levels, c->cap * sizeof *c->levels);
	}
	c->levels[c->n] = (struct changes_level){.ref = c->n ? REF_NONE : REF_ROOT, .dir = dir};
	buf_add(&c->levels[c->n++].name, name.p, name.len);
}

void changes_leave(struct changes_out *c) { buf_free(&c->levels[--c->n].name); }

bool changes_is_inside(const struct changes_out *c) { return c->n > 0; }

uint64_t changes_dir(const struct changes_out *c) { return c->levels[c->n - 1].dir; }

/* Numbers the directories on the way that have no number: the innermost ones, as one has it when one in it has. */
int changes_say(struct changes_out *c, struct err *e)
{
	size_t i = c->n;

	while (i > 1 && !c->levels[i - 1].ref)
		i--;
	for (; i < c->n; i++) {
		struct changes_level *l = &c->levels[i];
		c->last_ref = c->last_ref ? c->last_ref + 1 : REF_ROOT + 1;
		l->ref = c->last_ref;
		struct record r = {.type = REC_DIR, .u.dir = {l->ref, l[-1].ref, span_of(l->name.p, l->name.len)}};
		if (stream_put(c->o, &r, e))
			return -1;
	}
	return 0;
}

int changes_put(struct changes_out *c, uint8_t flags, struct span name, struct err *e)
{
	struct record r = {.type = REC_CHANGED};

	if (changes_say(c, e))
		return -1;
	c->n_changed++;
	r.u.changed = (struct r_changed){c->levels[c->n - 1].ref, flags, name};
	return stream_put(c->o, &r, e);
}

int changes_region(struct changes_out *c, uint32_t grain, struct span rows, struct err *e)
{
	struct record r = {.type = REC_REGION, .u.region = {c->n_changed - 1, grain, rows}};

	return stream_put(c->o, &r, e);
}

int changes_gap(struct changes_out *c, struct span reason, struct err *e)
{
	struct record r = {.type = REC_GAP};

	if (changes_say(c, e))
		return -1;
	r.u.gap = (struct r_gap){c->levels[c->n - 1].ref, reason};
	return stream_put(c->o, &r, e);
}

void changes_free(struct changes_out *c)
{
	while (c->n)
		changes_leave(c);
	free(c->levels);
	c->levels = NULL;
	c->cap = 0;
}
