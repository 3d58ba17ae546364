#include "fanotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fanotify.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fanevent.h"
#include "fanmarks.h"

#define MARKER (FAN_OPEN | FAN_ONDIR)
#define BACKLOG_MAX (6u * 1024 * 1024) /* of all groups; what is more waits in the kernel, until its queue overflows */

/* ---- numbers of handles ---- */

/* is_new: it may be one that has no number so far; else the answer to that is 0. */
static uint32_t number(struct words *w, uint32_t group, const struct file_handle *h, bool is_new)
{
	uint8_t key[4 + sizeof *h + HANDLES_MAX];
	struct span s = handles_span(h);

	memcpy(key, &group, 4);
	memcpy(key + 4, s.p, s.len);
	s = span_of(key, 4 + s.len);
	return is_new ? words_put(w, s) : words_find(w, s);
}

static struct group *group_of(struct fan *f, const struct words *w, uint32_t no, struct handles_one *h)
{
	struct span key = words_get(w, no);
	uint32_t group;

	memcpy(&group, key.p, 4);
	*h = (struct handles_one){0};
	memcpy(h, key.p + 4, key.len - 4);
	for (size_t i = 0; i < f->n; i++)
		if (f->groups[i].no == group)
			return &f->groups[i];
	return NULL;
}

static int fan_check(struct watch *w, struct err *e) { return fanmarks_check(w, false, e); }

/* ---- opening ---- */

static int fan_open(struct watch *w, bool all_dirs, struct err *e)
{
	struct fan *f = xalloc(sizeof *f);

	f->all_dirs = all_dirs;
	f->dirs.seed = f->objs.seed = f->fresh.seed = f->done.seed = w->seed;
	f->tops = xalloc(w->n_paths * sizeof *f->tops);
	w->data = f;
	/* Without it no handle leads anywhere. */
	struct handles_one h;
	int fd = handles_of(AT_FDCWD, w->paths[0], &h) ? -1 : 0;
	if (fd < 0)
		return err_sys(e, "cannot use fanotify for '%s'", w->paths[0]);
	AUTO_CLOSE int at = open(w->paths[0], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int found = at < 0 ? -1 : open_by_handle_at(at, &h.h, O_PATH | O_CLOEXEC);
	if (found < 0)
		return err_sys(e, "cannot use fanotify for '%s'", w->paths[0]);
	return fanmarks_check(w, true, e);
}

static int fan_open_marks(struct watch *w, struct err *e) { return fan_open(w, false, e); }
static int fan_open_dirs(struct watch *w, struct err *e) { return fan_open(w, true, e); }

static void fan_close(struct watch *w)
{
	struct fan *f = w->data;

	while (f->n)
		fanmarks_drop(f, f->n - 1);
	free(f->groups);
	for (size_t i = 0; i < w->n_paths; i++)
		buf_free(&f->tops[i].handle);
	free(f->tops);
	words_free(&f->dirs);
	words_free(&f->objs);
	words_free(&f->fresh);
	words_free(&f->done);
	free(f);
}

static void fan_describe(const struct watch *w, struct buf *text)
{
	const struct fan *f = w->data;
	bool has_dirs = false, has_whole = false;

	for (size_t i = 0; i < f->n; i++) {
		has_dirs = has_dirs || f->groups[i].is_dirs;
		has_whole = has_whole || !f->groups[i].is_dirs;
	}
	buf_fmt(text, "fanotify, %s%s%s marks", has_whole ? "filesystem" : "", has_whole && has_dirs ? " and " : "",
		has_dirs ? "directory" : "");
}

static size_t fan_fds(const struct watch *w, struct pollfd *p)
{
	const struct fan *f = w->data;
	size_t n = 0;

	for (; n < f->n && n < WATCH_FDS; n++)
		p[n] = (struct pollfd){.fd = f->groups[n].fd, .events = POLLIN};
	return n;
}

/* ---- events ---- */

static int fan_gather(struct watch *w, struct err *e)
{
	struct fan *f = w->data;
	size_t held = 0;

	for (size_t i = 0; i < f->n; i++)
		held += f->groups[i].backlog.len - f->groups[i].at;
	for (size_t i = 0; i < f->n; i++) {
		struct group *g = &f->groups[i];
		held -= g->backlog.len - g->at;
		if (watch_read(g->fd, &g->backlog, &g->at, held < BACKLOG_MAX ? BACKLOG_MAX - held : 0, e))
			return -1;
		held += g->backlog.len - g->at;
	}
	return 0;
}

static int send_marker(struct watch *w, struct group *g, struct err *e)
{
	struct handles_one h;

	(void)e;
	AUTO_CLOSE int fd = -1;
	const char *top = g->views[0].top;
	buf_reset(&g->marker);
	g->is_spoiled = false;
	if (!handles_of(AT_FDCWD, top, &h) && !fanotify_mark(g->fd, FAN_MARK_ADD, MARKER, AT_FDCWD, top))
		fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		/* What stands in the way is not gone with the next event: the check tells. Until then there is nothing to wait for. */
		w->hear.lost(w->hear.ctx, top, "it cannot be reached");
		return 0;
	}
	struct span s = handles_span(&h.h);
	buf_add(&g->marker, s.p, s.len);
	free(g->marked);
	g->marked = xstrdup(top);
	return 1;
}

static void drop_marker(struct watch *w, struct group *g)
{
	struct fan *f = w->data;

	/* Fails when the place is gone, and then the mark is, too. A directory's own mark needs its FAN_ONDIR. */
	fanotify_mark(g->fd, FAN_MARK_REMOVE, g->is_dirs ? FAN_OPEN : MARKER, AT_FDCWD, g->marked);
	buf_reset(&g->marker);
	if (!--f->marks_out)
		w->hear.seen(w->hear.ctx);
}

static int fan_mark(struct watch *w, struct err *e)
{
	struct fan *f = w->data;

	f->marks_out = 1; /* until all are sent */
	for (size_t i = 0; i < f->n; i++) {
		int sent = send_marker(w, &f->groups[i], e);
		if (sent < 0)
			return -1;
		f->marks_out += (unsigned)sent;
	}
	if (!--f->marks_out)
		w->hear.seen(w->hear.ctx);
	return 0;
}

static int marker_back(struct watch *w, struct group *g, struct err *e)
{
	if (g->is_spoiled) {
		int sent = send_marker(w, g, e);
		if (sent)
			return sent < 0 ? -1 : 0;
		((struct fan *)w->data)->marks_out--;
		return 0;
	}
	drop_marker(w, g);
	return 0;
}

static void overflow(struct watch *w, struct group *g)
{
	for (size_t k = 0; k < g->n_views; k++)
		w->hear.lost(w->hear.ctx, g->views[k].top,
			"the event queue overflowed (/proc/sys/fs/fanotify/max_queued_events)");
	g->is_late = g->is_dirs;
	/* The marker may be among what was lost. */
	if (g->marker.len)
		g->is_spoiled = true;
}

static int on_event(struct watch *w, struct group *g, const struct fanevent *ev, struct err *e)
{
	struct fan *f = w->data;

	if (ev->mask & FAN_Q_OVERFLOW) {
		overflow(w, g);
		if (g->marker.len)
			return marker_back(w, g, e);
		return 0;
	}
	/* Ours is the marker; what else we do is in our own directory. */
	if (ev->pid == getpid()) {
		if (ev->mask & FAN_OPEN && g->marker.len && ev->dir &&
				span_eq(handles_span(ev->dir), span_of(g->marker.p, g->marker.len)))
			return marker_back(w, g, e);
		return 0;
	}
	uint8_t flags = fanevent_flags(ev->mask);
	if (!flags)
		return 0;
	bool is_self = ev->name.len == 1 && ev->name.p[0] == '.';
	uint32_t dir = ev->dir ? number(&f->dirs, g->no, ev->dir, true) : 0;
	bool is_written = ev->mask & (FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB);
	/* Written under one name and renamed, as most that replace a file do it: the other name may be all that it has then. */
	uint32_t obj = ev->obj && !is_self && (is_written || flags & CHANGED_NEW) ? number(&f->objs, g->no, ev->obj, is_written) : 0;
	if (!dir && !obj)
		return 0;
	w->hear.changed(w->hear.ctx, dir, is_self ? (struct span){0} : ev->name, flags, obj, is_written);
	if (g->is_dirs && dir && ev->mask & FAN_ONDIR && ev->mask & (FAN_CREATE | FAN_MOVED_TO)) {
		uint8_t key[4 + REC_NAME_MAX];
		memcpy(key, &dir, 4);
		memcpy(key + 4, ev->name.p, ev->name.len);
		words_put(&f->fresh, span_of(key, 4 + ev->name.len));
	}
	return 0;
}

/* ---- new directories, where each needs a mark ---- */

struct fresh {
	struct watch *w;
	struct group *g;
	struct span name;
};

static int mark_fresh(void *ctx, struct span path, int fd, struct err *e)
{
	struct fresh *n = ctx;
	AUTO_BUF struct buf top = {0};
	struct err why = {0};

	(void)fd;
	buf_add(&top, path.p, path.len);
	if (path.len > 1)
		buf_str(&top, "/");
	buf_add(&top, n->name.p, n->name.len);
	if (!fanmarks_tree(n->w, n->g, buf_cstr(&top), true, &why))
		return 0;
	if (why.kind == ERR_REFUSED) {
		*e = why;
		return -1;
	}
	n->w->hear.lost(n->w->hear.ctx, buf_cstr(&top), why.text);
	return 0;
}

static int fan_find(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e);

static void close_views(struct fan *f)
{
	for (size_t i = 0; i < f->n; i++)
		for (size_t k = 0; k < f->groups[i].n_views; k++)
			close_fd(&f->groups[i].views[k].fd);
}

static int mark_all_fresh(struct watch *w, struct err *e)
{
	struct fan *f = w->data;
	int rc = 0;

	for (uint32_t no = 1; no <= f->fresh.n && !rc; no++) {
		struct span key = words_get(&f->fresh, no);
		struct handles_one h;
		uint32_t dir;
		memcpy(&dir, key.p, 4);
		struct fresh n = {w, group_of(f, &f->dirs, dir, &h), span_of(key.p + 4, key.len - 4)};
		struct watch_where where = {mark_fresh, &n};
		rc = n.g && fan_find(w, dir, &where, e) < 0 ? -1 : fan_gather(w, e);
	}
	words_reset(&f->fresh);
	words_reset(&f->done);
	close_views(f);
	return rc;
}

static int tell_backlog(struct watch *w, struct group *g, const bool *stop, struct err *e)
{
	while (g->at < g->backlog.len && !*stop) {
		struct fanevent ev;
		size_t len;
		if (!fanevent_decode(g->backlog.p + g->at, g->backlog.len - g->at, &ev, &len))
			return err_set(e, ERR_SYSTEM, "the kernel's events make no sense");
		if (on_event(w, g, &ev, e))
			return -1;
		g->at += len;
	}
	return 0;
}

static int fan_tell(struct watch *w, const bool *stop, struct err *e)
{
	struct fan *f = w->data;

	for (int round = 0; round < 2; round++) {
		for (size_t i = 0; i < f->n; i++)
			if (tell_backlog(w, &f->groups[i], stop, e))
				return -1;
		if (f->fresh.n && mark_all_fresh(w, e))
			return -1;
		if (!round && !*stop && fan_gather(w, e))
			return -1;
	}
	return 0;
}

/* ---- numbers ---- */

static int view_fd(struct group *g, struct view *v)
{
	struct statx sx;
	uint64_t id;

	if (v->fd >= 0)
		return v->fd;
	if (g->marker.len)
		g->is_spoiled = true;
	v->fd = open(v->top, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (v->fd >= 0 && (fanmarks_mount(v->fd, NULL, &id, &sx) || id != v->id))
		close_fd(&v->fd);
	return v->fd;
}

/* Opens what a handle leads to, through any mount of its superblock: -1 with errno, ESTALE when it is gone. */
static int open_handle(struct group *g, struct handles_one *h)
{
	errno = ESTALE;
	for (size_t k = 0; k < g->n_views; k++) {
		int at = view_fd(g, &g->views[k]);
		int fd = at < 0 ? -1 : open_by_handle_at(at, &h->h, O_PATH | O_CLOEXEC);
		if (fd >= 0 || (at >= 0 && errno == ESTALE))
			return fd;
	}
	return -1;
}

static int lose_views(struct watch *w, const struct group *g, const char *why)
{
	for (size_t k = 0; k < g->n_views; k++)
		fanmarks_lost(w, g->views[k].top, "a directory cannot be found: %s", why);
	return WATCH_LOST;
}

static int fan_find(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e)
{
	struct fan *f = w->data;
	struct handles_one h;
	struct group *g = group_of(f, &f->dirs, dir, &h);
	AUTO_BUF struct buf path = {0};
	bool is_found = false, is_cut;

	if (!g) /* its filesystem went away, and that was told */
		return WATCH_GONE;
	for (size_t k = 0; k < g->n_views; k++) {
		int at = view_fd(g, &g->views[k]);
		if (at < 0)
			continue; /* the next check tells */
		AUTO_CLOSE int fd = open_by_handle_at(at, &h.h, O_PATH | O_DIRECTORY | O_CLOEXEC);
		struct stat st;
		if (fd < 0 && errno != ESTALE)
			return lose_views(w, g, strerror(errno));
		if (fd < 0 || fstat(fd, &st) || !st.st_nlink)
			return WATCH_GONE;
		if (handles_path(fd, &path, &is_cut))
			return lose_views(w, g, strerror(errno));
		if (is_cut) {
			w->hear.lost(w->hear.ctx, buf_cstr(&path), "paths below it are longer than the kernel tells");
			return WATCH_LOST;
		}
		if (where->at(where->ctx, span_of(path.p, path.len), fd, e))
			return -1;
		is_found = true;
	}
	return is_found ? WATCH_FOUND : WATCH_GONE;
}

static uint32_t fan_dirs(const struct watch *w) { return ((const struct fan *)w->data)->dirs.n; }

static bool fan_is_only_name(struct watch *w, int dirfd, struct span name, uint32_t obj)
{
	struct fan *f = w->data;
	struct handles_one have, want_it;
	char text[256];
	struct stat st;

	span_name(text, name);
	if (fstatat(dirfd, text, &st, AT_SYMLINK_NOFOLLOW) || st.st_nlink != 1 || handles_of(dirfd, text, &have))
		return false;
	return group_of(f, &f->objs, obj, &want_it) && span_eq(handles_span(&have.h), handles_span(&want_it.h));
}

static int fan_object(struct watch *w, uint32_t obj, struct r_inode *out)
{
	struct fan *f = w->data;
	struct handles_one h;
	struct statx sx;
	uint64_t mount;
	struct group *g = group_of(f, &f->objs, obj, &h);

	if (!g)
		return 0;
	AUTO_CLOSE int fd = open_handle(g, &h);
	if (fd < 0)
		return errno == ESTALE ? 0 : 2;
	if (fanmarks_mount(fd, NULL, &mount, &sx))
		return 2;
	if (!sx.stx_nlink)
		return 0;
	*out = (struct r_inode){.dev = makedev(sx.stx_dev_major, sx.stx_dev_minor), .ino = sx.stx_ino};
	if (sx.stx_mask & STATX_BTIME) {
		out->btime_s = sx.stx_btime.tv_sec;
		out->btime_ns = sx.stx_btime.tv_nsec;
	}
	return 1;
}

static size_t fan_size(const struct watch *w)
{
	const struct fan *f = w->data;

	return words_size(&f->dirs) + words_size(&f->objs);
}

static void fan_forget(struct watch *w)
{
	struct fan *f = w->data;

	words_reset(&f->dirs);
	words_reset(&f->objs);
	close_views(f);
}

static void fan_rest(struct watch *w) { close_views(w->data); }

#define REST .close = fan_close, .describe = fan_describe, .fds = fan_fds, .gather = fan_gather, .tell = fan_tell, .mark = fan_mark, \
	.check = fan_check, .find = fan_find, .dirs = fan_dirs, .is_only_name = fan_is_only_name, .object = fan_object, .size = fan_size, \
	.forget = fan_forget, .rest = fan_rest

const struct watch_source fanotify_source = {.name = "fanotify", .open = fan_open_marks, REST};
const struct watch_source fanotify_dirs_source = {.name = "fanotify-dirs", .open = fan_open_dirs, REST};
