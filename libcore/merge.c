#include "merge.h"

#include <stdlib.h>

/* ---- one input ---- */

enum event {
	EV_END = 0,
	EV_SELF,   /* CHANGED without a name */
	EV_GAP,
	EV_NAME,   /* CHANGED */
	EV_DIR,    /* and what follows may be in it */
	EV_REGION, /* of the EV_NAME before it */
};

/* A directory on the way down. */
struct merge_frame {
	uint64_t ref;
	size_t last;   /* where its last name begins in names; the next frame's begins where it ends */
	bool has_gap;
};

/* The cause gets the name of the input. */
static int tell(const struct merge_source *s, const struct err *why, struct err *e)
{
	char text[300];

	if (e->kind != ERR_NONE)
		return -1;
	err_set(e, why->kind, "'%s': %s", esc_cut(text, sizeof text, span_cstr(s->name)), why->text);
	e->sys = why->sys;
	e->is_cut = why->is_cut;
	return -1;
}

static int say(const struct merge_source *s, const char *what, struct err *e)
{
	struct err why = {0};

	err_set(&why, ERR_STREAM, "%s at record %llu", what, (unsigned long long)s->in.s.n_record);
	return tell(s, &why, e);
}

static int disorder(const struct merge_source *s, struct err *e) { return say(s, "change stream out of order", e); }

static void push(struct merge_source *s, uint64_t ref)
{
	if (s->n == s->cap) {
		s->cap = s->cap ? s->cap * 2 : 16;
		s->frames = xrealloc(s->frames, s->cap * sizeof *s->frames);
	}
	s->frames[s->n++] = (struct merge_frame){.ref = ref, .last = s->names.len};
}

static struct merge_frame *top(struct merge_source *s) { return &s->frames[s->n - 1]; }

static bool has_names(struct merge_source *s) { return s->names.len > top(s)->last; }

/* The directory that a record speaks of becomes the top. */
static int go_to(struct merge_source *s, uint64_t ref, struct err *e)
{
	size_t n = s->n;

	while (n && s->frames[n - 1].ref != ref)
		n--;
	if (!n)
		return disorder(s, e);
	if (n < s->n)
		s->names.len = s->frames[n].last;
	s->n = s->depth = n;
	return 0;
}

static int take_name(struct merge_source *s, struct span name, struct err *e)
{
	size_t last = top(s)->last;

	if (has_names(s) && span_cmp(span_of(s->names.p + last, s->names.len - last), name) >= 0)
		return disorder(s, e);
	s->names.len = last;
	buf_add(&s->names, name.p, name.len);
	s->text = name;
	return 0;
}

static int take_dir(struct merge_source *s, const struct r_dir *d, struct err *e)
{
	if (go_to(s, d->parent, e) || take_name(s, d->name, e))
		return -1;
	if (d->ref <= s->last_ref)
		return disorder(s, e);
	s->last_ref = d->ref;
	push(s, d->ref);
	s->kind = EV_DIR;
	return 1;
}

static int take_changed(struct merge_source *s, const struct r_changed *c, struct err *e)
{
	if (c->flags & (CHANGED_WANTED | CHANGED_STRAY))
		return say(s, "this is what a replica lacks, not what changed: repl-diff takes it by itself", e);
	if (go_to(s, c->parent, e))
		return -1;
	s->n_changed++;
	s->flags = c->flags;
	s->kind = c->name.len ? EV_NAME : EV_SELF;
	if (c->name.len)
		return take_name(s, c->name, e) ? -1 : 1;
	return has_names(s) ? disorder(s, e) : 1;
}

static int take_gap(struct merge_source *s, const struct r_gap *g, struct err *e)
{
	if (go_to(s, g->ref, e))
		return -1;
	if (has_names(s) || top(s)->has_gap)
		return disorder(s, e);
	top(s)->has_gap = true;
	s->text = g->reason;
	s->kind = EV_GAP;
	return 1;
}

/* 1: an event; 0: nothing of interest; -1. */
static int take(struct merge_source *s, const struct record *r, struct err *e)
{
	if (s->has_end)
		return disorder(s, e);
	switch ((enum rec_type)r->type) {
	case REC_DIR:
		return take_dir(s, &r->u.dir, e);
	case REC_CHANGED:
		return take_changed(s, &r->u.changed, e);
	case REC_GAP:
		return take_gap(s, &r->u.gap, e);
	case REC_REGION:
		/* Without them a name is looked at whole. */
		if ((s->kind != EV_NAME && s->kind != EV_REGION) || r->u.region.file + 1 != s->n_changed)
			return 0;
		s->kind = EV_REGION;
		s->grain = r->u.region.grain;
		s->text = r->u.region.rows;
		return 1;
	case REC_END:
		s->has_end = true;
		return 0;
	case REC_BEAT:
		return 0;
	default:
		return disorder(s, e);
	}
}

/* A member's name, its gap, the next one's name... */
static void next_fake(struct merge_source *s)
{
	size_t i = s->fake - 1;

	if (s->kind == EV_DIR) {
		s->kind = EV_GAP;
		s->depth = 2;
		s->text = span_of(s->reason.p, s->reason.len);
		s->fake++;
	} else if (i < s->head.n_members) {
		s->kind = EV_DIR;
		s->depth = 1;
		s->text = s->head.members[i].name;
	} else {
		s->kind = EV_END;
		s->depth = 0;
	}
}

/* From a stream event to one of ours. */
static int take_event(struct merge_source *s, int got, struct err *e)
{
	struct err why = {0};

	for (;; got = input_next(&s->in, &why)) {
		if (got < 0)
			return tell(s, &why, e);
		int taken = got == STREAM_RECORD ? take(s, &s->in.s.rec, e) : 0;
		if (taken)
			return taken < 0 ? -1 : 0;
		if (got == STREAM_RECORD)
			continue;
		if (got != STREAM_END || !s->has_end)
			return say(s, "the change stream ends early", e);
		got = input_next(&s->in, &why);
		if (got > 0)
			return say(s, "another stream follows the change stream", e);
		if (got < 0)
			return tell(s, &why, e);
		s->kind = EV_END;
		s->depth = 0;
		return 0;
	}
}

static int next(struct merge_source *s, struct err *e)
{
	struct err why = {0};

	if (s->fake) {
		next_fake(s);
		return 0;
	}
	int got = input_next(&s->in, &why);
	return got < 0 ? tell(s, &why, e) : take_event(s, got, e);
}

/* On to where the event's directory is not below the one at this depth any more. */
static int leave(struct merge_source *s, size_t depth, struct err *e)
{
	while (s->depth > depth)
		if (next(s, e))
			return -1;
	return 0;
}

/* A gap of everything becomes one of each member: the rest says nothing. */
static int make_fakes(struct merge_source *s, struct err *e)
{
	buf_add(&s->reason, s->text.p, s->text.len);
	if (leave(s, 0, e))
		return -1;
	s->fake = 1;
	next_fake(s);
	return 0;
}

/* The head; got is what stands behind it. */
static int take_head(struct merge_source *s, int *got, struct err *e)
{
	*got = input_next(&s->in, e);
	if (*got < 0)
		return -1;
	if (s->in.s.kind != KIND_CHANGE)
		return err_set(e, ERR_STREAM, "this is a stream of kind '%s', not a change stream", kind_name(s->in.s.kind));
	do {
		*got = input_next(&s->in, e);
	} while (*got == STREAM_RECORD && s->head.has_image == (s->in.s.rec.type != REC_IMAGE) &&
		head_take(&s->head, &s->in.s.rec));
	if (*got < 0)
		return -1;
	if (!s->head.has_image || !s->head.n_members)
		return err_set(e, ERR_STREAM, "the change stream does not say what it is about");
	for (; *got == STREAM_RECORD && s->in.s.rec.type == REC_INODE; *got = input_next(&s->in, e)) {
		if (s->inodes.len / sizeof s->in.s.rec.u.inode == MERGE_INODES_MAX)
			return err_set(e, ERR_STREAM, "the change stream names more objects by their inodes than make sense");
		buf_add(&s->inodes, &s->in.s.rec.u.inode, sizeof s->in.s.rec.u.inode);
	}
	return *got < 0 ? -1 : 0;
}

int merge_open(struct merge_source *s, int fd, const char *name, struct err *e)
{
	struct merge_source new = {.name = name, .last_ref = REF_ROOT, .at = 1};
	struct err why = {0};
	int got;

	if (input_open(&new.in, fd, 1, &why) || take_head(&new, &got, &why)) {
		tell(&new, &why, e);
		merge_close(&new);
		return -1;
	}
	push(&new, REF_ROOT);
	*s = new;
	if (take_event(s, got, e)) {
		merge_close(s);
		return -1;
	}
	return 0;
}

void merge_close(struct merge_source *s)
{
	input_close(&s->in);
	head_free(&s->head);
	free(s->frames);
	buf_free(&s->names);
	buf_free(&s->reason);
	buf_free(&s->inodes);
	*s = (struct merge_source){0};
}

static int cmp_inode(const void *a, const void *b)
{
	struct r_inode x, y;

	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	if (x.dev != y.dev)
		return x.dev < y.dev ? -1 : 1;
	if (x.ino != y.ino)
		return x.ino < y.ino ? -1 : 1;
	if (x.btime_s != y.btime_s)
		return x.btime_s < y.btime_s ? -1 : 1;
	return (x.btime_ns > y.btime_ns) - (x.btime_ns < y.btime_ns);
}

int merge_inodes(const struct merge_source *s, size_t n, struct stream_out *o, struct err *e)
{
	AUTO_BUF struct buf all = {0};
	struct record r = {.type = REC_INODE};
	size_t size = sizeof r.u.inode;

	for (size_t i = 0; i < n; i++)
		if (s[i].inodes.len)
			buf_add(&all, s[i].inodes.p, s[i].inodes.len);
	if (all.len)
		qsort(all.p, all.len / size, size, cmp_inode);
	for (size_t at = 0; at < all.len; at += size) {
		if (at && !cmp_inode(all.p + at - size, all.p + at))
			continue;
		memcpy(&r.u.inode, all.p + at, size);
		if (stream_put(o, &r, e))
			return -1;
	}
	return 0;
}

int merge_check(struct merge_source *s, struct err *e) { return leave(s, 0, e); }

/* ---- all of them ---- */

#define COMES_AND_GOES (CHANGED_NEW | CHANGED_GONE | CHANGED_SUBTREE)

struct run {
	struct merge *m;
	struct buf parts;    /* struct span: the prefix, name by name */
	size_t n_parts;
	size_t depth;        /* of the directory that we are in; 1 is the root. Up to n_parts: above what is wanted */
	struct buf name;     /* at hand */
	/* What is known about it, or about the directory that was just entered. */
	uint8_t flags;
	bool is_changed, is_dir, has_gap;
	size_t n_in;         /* inputs that speak of it */
	struct buf reason;
	bool is_over;        /* all is a gap */
};

static struct span part(const struct run *r)
{
	struct span s;

	memcpy(&s, r->parts.p + (r->depth - 1) * sizeof s, sizeof s);
	return s;
}

static bool is_above(const struct run *r) { return r->depth <= r->n_parts; }

/* On to the next event that is no block number. */
static int drop(struct merge_source *s, struct err *e)
{
	do {
		if (next(s, e))
			return -1;
	} while (s->kind == EV_REGION);
	return 0;
}

static int gap_of_all(struct run *r, struct span reason, struct err *e)
{
	r->is_over = true;
	return changes_gap(r->m->out, reason, e);
}

/* Which name comes next in this directory, and who speaks of it? False: no input has one. */
static bool find_name(struct run *r)
{
	struct span least = {0};

	for (size_t i = 0; i < r->m->n; i++) {
		const struct merge_source *s = &r->m->sources[i];
		if (s->at == r->depth && s->depth == r->depth && (!least.len || span_cmp(s->text, least) < 0))
			least = s->text;
	}
	if (!least.len)
		return false;
	buf_reset(&r->name);
	buf_add(&r->name, least.p, least.len);
	r->flags = 0;
	r->is_changed = r->is_dir = r->has_gap = false;
	r->n_in = 0;
	for (size_t i = 0; i < r->m->n; i++) {
		struct merge_source *s = &r->m->sources[i];
		s->is_in = s->at == r->depth && s->depth == r->depth && span_eq(s->text, least);
		if (!s->is_in)
			continue;
		r->n_in++;
		if (s->kind == EV_DIR) {
			r->is_dir = true;
		} else {
			r->flags |= s->flags;
			r->is_changed = true;
		}
	}
	return true;
}

/* Past the name at hand, with all that is said below it. */
static int pass_name(struct run *r, struct err *e)
{
	for (size_t i = 0; i < r->m->n; i++) {
		struct merge_source *s = &r->m->sources[i];
		if (s->is_in && (drop(s, e) || leave(s, r->depth, e)))
			return -1;
	}
	return 0;
}

static int put_name(struct run *r, struct err *e)
{
	if (changes_put(r->m->out, r->flags, span_of(r->name.p, r->name.len), e))
		return -1;
	if (r->n_in > 1)
		return pass_name(r, e);
	struct merge_source *s = r->m->sources;
	while (!s->is_in)
		s++;
	for (;;) {
		if (next(s, e))
			return -1;
		if (s->kind != EV_REGION)
			return 0;
		if (changes_region(r->m->out, s->grain, s->text, e))
			return -1;
	}
}

static void leave_dir(struct run *r)
{
	for (size_t i = 0; i < r->m->n; i++)
		if (r->m->sources[i].at == r->depth)
			r->m->sources[i].at--;
	r->depth--;
	if (r->depth > r->n_parts)
		changes_leave(r->m->out);
}

/* What the inputs say about the directory itself comes before its names. */
static int read_self(struct run *r, struct err *e)
{
	for (size_t i = 0; i < r->m->n; i++) {
		struct merge_source *s = &r->m->sources[i];
		while (s->at == r->depth && s->depth == r->depth && (s->kind == EV_SELF || s->kind == EV_GAP)) {
			if (s->kind == EV_SELF) {
				r->flags |= s->flags;
				r->is_changed = true;
			} else if (s->by_member && r->depth == 1) {
				if (make_fakes(s, e))
					return -1;
				break;
			} else if (!r->has_gap) {
				r->has_gap = true;
				buf_reset(&r->reason);
				buf_add(&r->reason, s->text.p, s->text.len);
			}
			if (drop(s, e))
				return -1;
		}
	}
	return 0;
}

/* Inside a directory that was just entered. */
static int begin_dir(struct run *r, struct err *e)
{
	struct span reason;

	if (read_self(r, e))
		return -1;
	reason = span_of(r->reason.p, r->reason.len);
	if (r->depth <= r->n_parts + 1 && r->has_gap)
		return gap_of_all(r, reason, e);
	if (r->n_parts && r->depth <= r->n_parts + 1 && r->flags & COMES_AND_GOES)
		return gap_of_all(r, span_cstr("the directory came or went"), e);
	if (is_above(r))
		return 0;
	if (!r->has_gap)
		return r->is_changed ? changes_put(r->m->out, r->flags, (struct span){0}, e) : 0;
	if (changes_gap(r->m->out, reason, e))
		return -1;
	for (size_t i = 0; i < r->m->n; i++)
		if (r->m->sources[i].at == r->depth && leave(&r->m->sources[i], r->depth - 1, e))
			return -1;
	return 0;
}

static int enter_dir(struct run *r, struct err *e)
{
	if (!is_above(r)) {
		changes_enter(r->m->out, span_of(r->name.p, r->name.len), 0);
		if (changes_say(r->m->out, e))
			return -1;
	}
	for (size_t i = 0; i < r->m->n; i++) {
		struct merge_source *s = &r->m->sources[i];
		if (s->is_in && s->kind == EV_DIR)
			s->at++;
		if (s->is_in && drop(s, e))
			return -1;
	}
	r->depth++;
	return begin_dir(r, e);
}

/* A name outside: it matters only where it is on the way. */
static int on_way(struct run *r, struct err *e)
{
	if (!span_eq(span_of(r->name.p, r->name.len), part(r)))
		return pass_name(r, e);
	if (r->is_dir && !(r->flags & COMES_AND_GOES))
		return enter_dir(r, e);
	if (r->flags & COMES_AND_GOES)
		return gap_of_all(r, span_cstr("the directory came or went"), e);
	/* It changed itself: of those above nobody asks that. */
	if (r->depth == r->n_parts && changes_put(r->m->out, r->flags, (struct span){0}, e))
		return -1;
	return pass_name(r, e);
}

static int run(struct run *r, struct err *e)
{
	r->depth = 1;
	if (begin_dir(r, e))
		return -1;
	while (!r->is_over) {
		int rc = 0;
		if (!find_name(r)) {
			if (r->depth == 1)
				break;
			leave_dir(r);
		} else if (is_above(r)) {
			rc = on_way(r, e);
		} else if (!r->is_dir || r->flags & CHANGED_SUBTREE) {
			rc = !r->is_dir ? put_name(r, e) : changes_put(r->m->out, r->flags, span_of(r->name.p, r->name.len), e) ||
				pass_name(r, e) ? -1 : 0;
		} else {
			rc = enter_dir(r, e);
		}
		if (rc)
			return -1;
	}
	for (size_t i = 0; i < r->m->n; i++)
		if (leave(&r->m->sources[i], 0, e))
			return -1;
	return 0;
}

int merge_run(struct merge *m, struct err *e)
{
	struct run r = {.m = m};
	struct span left = m->prefix;

	while (left.len) {
		const uint8_t *slash = memchr(left.p, '/', left.len);
		struct span name = span_of(left.p, slash ? (size_t)(slash - left.p) : left.len);
		buf_add(&r.parts, &name, sizeof name);
		r.n_parts++;
		left = slash ? span_of(slash + 1, left.len - name.len - 1) : (struct span){0};
	}
	int rc = run(&r, e);
	buf_free(&r.parts);
	buf_free(&r.name);
	buf_free(&r.reason);
	return rc;
}
