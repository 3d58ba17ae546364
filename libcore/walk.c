#include "walk.h"

#include <errno.h>
#include <stdlib.h>

#include "ahead.h"
#include "path.h"

/*
 * The directories that we are inside of are frames on a stack; what they hold is listed by `ahead`, whose caller we are:
 * the next sub-directories of the top of the stack are expected first, so what is needed next is listed next.
 *
 * Descriptors are few: the lower part of a deep stack gives its own up and gets them back on the way out, through
 * ".." of the child, and only when device and inode are those first seen.
 */
enum { STACK_FDS = 48 }; /* kept open of what we are inside of */

enum verdict { NOT_ASKED, ACCEPTED, REFUSED };
enum phase { PHASE_ENTER, PHASE_INSIDE, PHASE_LEFT };

struct frame {
	struct ahead_dir *dir; /* owned */
	enum phase phase;
	bool skip, is_mount, unreadable;
	int open_sys; /* why there is nothing to enter, or 0 */
	size_t path_len, at, scan; /* scan: entries before it were looked at for sub-directories */
};

struct walk {
	struct walk_root *roots;
	size_t n_roots, root; /* root: the next one to begin */
	struct walk_options o;
	char *tmpdir;
	uint64_t root_dev;
	struct buf path;
	struct attr attr;
	struct ahead *ahead;
	struct frame *stack;
	size_t depth, cap, low; /* no frame below low is open */
	size_t stack_fds;
};

static void frames_evict(struct walk *w)
{
	while (w->low < w->depth && w->stack[w->low].dir->fd < 0)
		w->low++;
	for (size_t i = w->low; i + 2 < w->depth && w->stack_fds > STACK_FDS; i++)
		w->stack_fds -= ahead_dir_shut(w->ahead, w->stack[i].dir);
}

/* Descriptors ran out: gives up all that can be had again. The top frame's is in use. */
static void shed_fds(void *ctx)
{
	struct walk *w = ctx;

	for (size_t i = 0; i < w->depth; i++) {
		if (i + 1 < w->depth)
			w->stack_fds -= ahead_dir_shut(w->ahead, w->stack[i].dir);
		ahead_shed(w->ahead, w->stack[i].dir);
	}
}

/* Opens stack[i] by this name below at. */
static int frame_open(struct walk *w, size_t i, int at, const char *name, int *sys)
{
	if (ahead_dir_open(w->ahead, w->stack[i].dir, at, name, sys) < 0)
		return -1;
	w->stack_fds++;
	if (i < w->low)
		w->low = i;
	frames_evict(w);
	return 0;
}

static int frame_find(struct walk *w, size_t i, int *sys)
{
	struct frame *stack = w->stack;
	size_t from = i;

	if (i + 1 < w->depth && stack[i + 1].dir->fd >= 0 && frame_open(w, i, stack[i + 1].dir->fd, "..", sys) == 0)
		return 0;
	while (from > 0 && stack[from - 1].dir->fd < 0)
		from--;
	for (; from <= i; from++) {
		struct ahead_dir *up = stack[from].dir->parent;

		if (frame_open(w, from, up ? up->fd : w->roots[w->root - 1].fd, up ? stack[from].dir->name : ".", sys) < 0)
			return -1;
	}
	return 0;
}

/* Makes sure that stack[i] is open: from its child, or down from the nearest frame that is. -1 and *sys. */
static int frame_reopen(struct walk *w, size_t i, int *sys)
{
	if (w->stack[i].dir->fd >= 0 || frame_find(w, i, sys) == 0)
		return 0;
	if (!ahead_is_out_of_fds(*sys))
		return -1;
	shed_fds(w);
	return frame_find(w, i, sys);
}

static void frame_push(struct walk *w, const struct frame *f)
{
	if (w->depth == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 64;
		w->stack = xrealloc(w->stack, w->cap * sizeof *w->stack);
	}
	w->stack[w->depth] = *f;
	w->stack[w->depth++].path_len = w->path.len;
	if (f->dir->fd >= 0) {
		w->stack_fds++;
		frames_evict(w);
	}
}

static void set_path(struct walk *w, const struct frame *dir, const char *name, size_t len)
{
	w->path.len = dir->path_len;
	path_push(&w->path, span_of(name, len));
}

static void say(struct walk *w, const char *kind, const char *what, int sys)
{
	char name[512];

	if (w->o.warn)
		warn_say(w->o.warn, kind, "%s '%s': %s", what,
			esc_cut(name, sizeof name, w->path.len ? span_of(w->path.p, w->path.len) : span_cstr(".")),
			sys == ESTALE ? "something else has its name now" : strerror(sys));
}

/* What is wrong with the directory whose path is set. */
static void say_dir(struct walk *w, struct frame *f, int sys)
{
	bool is_changed = sys == ENOENT || sys == ENOTDIR || sys == ELOOP || sys == ESTALE;

	f->unreadable = true;
	say(w, is_changed ? "vanished" : "unreadable", "cannot read directory", sys);
}

static bool is_accepted(struct walk *w, const struct frame *f, struct listing_entry *s)
{
	if (s->verdict == NOT_ASKED) {
		s->verdict = ACCEPTED;
		if (w->o.accept) {
			set_path(w, f, f->dir->cur->text + s->name_at, s->name_len);
			if (!w->o.accept(w->o.ctx, span_of(w->path.p, w->path.len), s->type))
				s->verdict = REFUSED;
		}
	}
	return s->verdict == ACCEPTED;
}

static bool is_mount(const struct walk *w, const struct listing_entry *s)
{
	return w->o.one_file_system && s->dev != w->root_dev;
}

/* Lets the next sub-directories of the top frame be listed. */
static void look_ahead(struct walk *w, struct frame *f)
{
	struct listing *cur = f->dir->cur;
	struct ahead_dir *fresh = NULL;

	for (size_t room = ahead_room(w->ahead, f->dir); room && f->scan < cur->n; f->scan++) {
		struct listing_entry *s = &cur->entries[f->scan];
		struct ahead_dir *c;

		if (s->state != LISTING_OK || s->type != OBJ_DIR || is_mount(w, s) || !is_accepted(w, f, s))
			continue;
		c = ahead_expect(f->dir, f->scan);
		room--;
		/* we come to this one right now: handing it over would cost more than listing it */
		if (!fresh && f->scan != f->at)
			fresh = c;
	}
	ahead_queue(w->ahead, fresh);
}

static int fatal(struct walk *w, int sys, struct err *e)
{
	errno = sys;
	if (ahead_is_out_of_fds(sys))
		return err_sys(e, "cannot open a directory");
	return err_sys(e, "cannot use a temporary file in '%s'", w->tmpdir);
}

/* The next part of a large directory. */
static int next_part(struct walk *w, struct frame *f, struct err *e)
{
	int sys = ahead_next(w->ahead, f->dir);

	f->at = f->scan = 0;
	return sys ? fatal(w, sys, e) : 0;
}

static void report(struct walk *w, struct walk_entry *en, enum walk_event event, const struct listing_entry *st,
	size_t name_len)
{
	listing_unpack(&w->attr, st);
	*en = (struct walk_entry){
		.event = event,
		.path = span_of(w->path.p, w->path.len),
		.name = span_of(w->path.p + (w->path.len - name_len), name_len),
		.root = (unsigned)(w->root - 1),
		.attr = &w->attr,
		.dirfd = -1,
	};
}

/* The top frame. */
static void report_dir(struct walk *w, struct walk_entry *en, enum walk_event event)
{
	const struct frame *f = &w->stack[w->depth - 1];
	const struct ahead_dir *up = f->dir->parent;

	w->path.len = f->path_len;
	report(w, en, event, &f->dir->st, strlen(up ? f->dir->name : w->roots[w->root - 1].name));
	en->depth = (unsigned)(w->depth - 1);
	en->is_mount = f->is_mount;
	en->unreadable = f->unreadable;
	en->dirfd = event == WALK_DIR && up ? up->fd : f->dir->fd;
}

/* f's directory is listed and its path set: 1 when it is to be reported, 0 when it is gone. */
static int dir_arrived(struct walk *w, struct frame *f, struct err *e)
{
	const struct ahead_dir *d = f->dir;
	int sys = f->open_sys;

	if (d->fatal_sys || ahead_is_out_of_fds(sys))
		return fatal(w, d->fatal_sys ? d->fatal_sys : sys, e);
	if (sys == ENOENT) {
		say(w, "vanished", "left out", sys);
		return 0;
	}
	if (sys || d->list_sys)
		say_dir(w, f, sys ? sys : d->list_sys);
	if (d->cur && d->cur->failed)
		f->unreadable = true;
	return 1;
}

static int begin_root(struct walk *w, struct walk_entry *en, struct err *e)
{
	const struct walk_root *r = &w->roots[w->root++];
	struct frame f = {0};
	int got;

	w->path.len = 0;
	buf_str(&w->path, r->name);
	if (attr_stat(&w->attr, r->fd, NULL, e) < 0)
		return -1;
	w->root_dev = w->attr.hint.dev;
	if (w->attr.type != OBJ_DIR) {
		struct span name = span_of(w->path.p, w->path.len);
		*en = (struct walk_entry){.event = WALK_ENTRY, .name = name, .path = name, .root = (unsigned)(w->root - 1),
			.attr = &w->attr, .dirfd = -1};
		return 0;
	}
	f.dir = ahead_root(&w->attr);
	/* its own description: the caller's read position is not ours to move */
	if (ahead_dir_open(w->ahead, f.dir, r->fd, ".", &f.open_sys) == 0) {
		ahead_wait(w->ahead, f.dir);
		f.open_sys = f.dir->open_sys;
	}
	if (f.open_sys == ENOENT) /* a root is never left out */
		f.open_sys = ESTALE;
	got = dir_arrived(w, &f, e);
	frame_push(w, &f);
	if (got < 0)
		return -1;
	report_dir(w, en, WALK_DIR);
	return 0;
}

/* A sub-directory's turn: 1 reported, 0 gone. */
static int begin_dir(struct walk *w, const struct frame *top, size_t i, struct walk_entry *en, struct err *e)
{
	const struct listing_entry *s = &top->dir->cur->entries[i];
	struct frame f = {.dir = ahead_take(top->dir, i), .is_mount = is_mount(w, s)};
	int got;

	if (!f.is_mount) {
		ahead_wait(w->ahead, f.dir);
		f.open_sys = f.dir->open_sys;
	}
	set_path(w, top, f.dir->name, s->name_len);
	got = dir_arrived(w, &f, e);
	if (got <= 0) {
		ahead_free(w->ahead, &f.dir);
		return got;
	}
	frame_push(w, &f);
	report_dir(w, en, WALK_DIR);
	return 1;
}

static void leave(struct walk *w, struct walk_entry *en, struct frame *top)
{
	int sys = 0;

	ahead_done(w->ahead, top->dir);
	if (!top->is_mount && !top->open_sys && frame_reopen(w, w->depth - 1, &sys) < 0 && !top->unreadable) {
		w->path.len = top->path_len;
		say_dir(w, top, sys);
	}
	top->phase = PHASE_LEFT;
	report_dir(w, en, WALK_LEAVE);
}

static int enter(struct walk *w, struct frame *top, struct err *e)
{
	int sys = 0;

	top->phase = PHASE_INSIDE;
	if (top->skip || top->is_mount || top->open_sys)
		return 0;
	if (frame_reopen(w, w->depth - 1, &sys) < 0) {
		if (ahead_is_out_of_fds(sys))
			return fatal(w, sys, e);
		w->path.len = top->path_len;
		say_dir(w, top, sys);
		top->skip = true;
		return 0;
	}
	return top->dir->is_large ? next_part(w, top, e) : 0;
}

/* The frame was left: back to the one below, whose descriptor comes through this one's "..". */
static int pop(struct walk *w, struct err *e)
{
	struct ahead_dir *d = w->stack[w->depth - 1].dir;
	struct frame *up = w->depth > 1 ? &w->stack[w->depth - 2] : NULL;
	int sys = 0;

	if (up && up->dir->fd < 0 && !up->skip) {
		if (frame_reopen(w, w->depth - 2, &sys) == 0) {
			ahead_queue_again(w->ahead, up->dir);
		} else if (ahead_is_out_of_fds(sys)) {
			return fatal(w, sys, e);
		} else {
			w->path.len = up->path_len;
			say_dir(w, up, sys);
			up->skip = true;
		}
	}
	w->depth--;
	if (d->fd >= 0)
		w->stack_fds--;
	if (w->low > w->depth)
		w->low = w->depth;
	ahead_free(w->ahead, &d);
	return 0;
}

/* One step inside the top frame: 1 an event, 0 go on. */
static int inside(struct walk *w, struct frame *top, struct walk_entry *en, struct err *e)
{
	struct ahead_dir *d = top->dir;
	struct listing_entry *s;
	size_t i;

	if (d->cur && top->at == d->cur->n && d->is_large && !top->skip && next_part(w, top, e) < 0)
		return -1;
	if (top->skip || !d->cur || top->at == d->cur->n) {
		leave(w, en, top);
		return 1;
	}
	look_ahead(w, top);
	i = top->at++;
	s = &d->cur->entries[i];
	if (s->state == LISTING_OK && !is_accepted(w, top, s))
		return 0;
	set_path(w, top, d->cur->text + s->name_at, s->name_len);
	if (s->state == LISTING_GONE) {
		say(w, "vanished", "left out", ENOENT);
		return 0;
	}
	if (s->state == LISTING_FAILED) {
		top->unreadable = true;
		say(w, "unreadable", "cannot stat", s->sys);
		return 0;
	}
	if (s->type == OBJ_DIR)
		return begin_dir(w, top, i, en, e);
	report(w, en, WALK_ENTRY, s, s->name_len);
	en->depth = (unsigned)w->depth;
	en->dirfd = d->fd;
	return 1;
}

int walk_next(struct walk *w, struct walk_entry *en, struct err *e)
{
	for (;;) {
		struct frame *top;
		int got = 0;

		if (w->depth == 0) {
			if (w->root < w->n_roots)
				return begin_root(w, en, e);
			*en = (struct walk_entry){.event = WALK_END, .dirfd = -1};
			return 0;
		}
		top = &w->stack[w->depth - 1];
		switch (top->phase) {
		case PHASE_ENTER:
			got = enter(w, top, e);
			break;
		case PHASE_INSIDE:
			got = inside(w, top, en, e);
			break;
		case PHASE_LEFT:
			got = pop(w, e);
			break;
		}
		if (got)
			return got < 0 ? -1 : 0;
	}
}

void walk_skip(struct walk *w)
{
	if (w->depth && w->stack[w->depth - 1].phase == PHASE_ENTER)
		w->stack[w->depth - 1].skip = true;
}

int walk_open(struct walk **out, const struct walk_root *roots, size_t n, const struct walk_options *o, struct err *e)
{
	struct walk *w = xalloc(sizeof *w);
	struct ahead_options ahead = {.shed = shed_fds, .ctx = w};

	w->o = o ? *o : (struct walk_options){0};
	w->tmpdir = xstrdup(w->o.tmpdir ? w->o.tmpdir : "/tmp");
	ahead.threads = w->o.threads;
	ahead.spill_at = w->o.spill_at;
	ahead.tmpdir = w->tmpdir;
	if (ahead_open(&w->ahead, &ahead, e) < 0) {
		free(w->tmpdir);
		free(w);
		return -1;
	}
	w->n_roots = n;
	w->roots = n ? xdup(roots, n * sizeof *roots) : NULL;
	buf_reserve(&w->path, 256); /* never NULL, not even while the path is empty */
	*out = w;
	return 0;
}

void walk_close(struct walk **wp)
{
	struct walk *w = *wp;

	*wp = NULL;
	if (!w)
		return;
	ahead_stop(w->ahead);
	while (w->depth)
		ahead_free(w->ahead, &w->stack[--w->depth].dir);
	ahead_close(&w->ahead);
	attr_free(&w->attr);
	buf_free(&w->path);
	free(w->stack);
	free(w->roots);
	free(w->tmpdir);
	free(w);
}
