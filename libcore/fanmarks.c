#include "fanmarks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fanevent.h"

#define EVENTS (FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_ONDIR)

int fanmarks_mount(int fd, const char *path, uint64_t *id, struct statx *sx)
{
	int flags = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC | (path ? 0 : AT_EMPTY_PATH);
	unsigned mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;

	if (statx(fd, path ? path : "", flags, mask, sx))
		return -1;
	*id = sx->stx_mask & STATX_MNT_ID ? sx->stx_mnt_id : 0;
	return 0;
}

/* ---- marks ---- */

static int mark_error(const char *path, struct err *e)
{
	char text[300];

	if (errno == ENOSPC)
		return err_set(e, ERR_REFUSED, "too many marks to watch '%s': raise /proc/sys/fs/fanotify/max_user_marks",
			esc_cut(text, sizeof text, span_cstr(path)));
	return err_sys(e, "cannot watch '%s'", esc_cut(text, sizeof text, span_cstr(path)));
}

struct marking {
	struct watch *w;
	struct group *g;
	const char *top;
	struct words *done; /* NULL: each is marked */
};

#define DONE_MAX 65536u /* directories; 2 MB */

/* It was marked, then read: what came into it since has an event of its own. So a large directory that moved again and again, or with one
 * above it, is gone through once in a round. */
static bool was_done(const struct marking *m, int fd)
{
	struct stat st;
	uint8_t key[16];

	if (!m->done || fstat(fd, &st))
		return false;
	if (m->done->n == DONE_MAX)
		words_reset(m->done);
	put_be64(key, st.st_dev);
	put_be64(key + 8, st.st_ino);
	uint32_t before = m->done->n;
	return words_put(m->done, span_of(key, sizeof key)) <= before;
}

static int mark_dir(void *ctx, int fd, struct span rel, struct err *e)
{
	struct marking *m = ctx;
	AUTO_BUF struct buf path = {0};

	buf_str(&path, m->top);
	if (rel.len && path.len > 1)
		buf_str(&path, "/");
	buf_add(&path, rel.p, rel.len);
	if (!watch_is_inside(m->w, span_of(path.p, path.len)) || was_done(m, fd))
		return 0;
	if (!fanotify_mark(m->g->fd, FAN_MARK_ADD, EVENTS | FAN_EVENT_ON_CHILD, fd, NULL))
		return 1;
	return errno == ENOENT ? 0 : mark_error(buf_cstr(&path), e);
}

int fanmarks_tree(struct watch *w, struct group *g, const char *top, bool once, struct err *e)
{
	struct fan *f = w->data;
	struct marking m = {w, g, top, once ? &f->done : NULL};

	if (g->marker.len)
		g->is_spoiled = true;
	return watch_descend(w, top, mark_dir, &m, e);
}

/* Marks what a view shows. On a filesystem that wants no mark of its own: its directories. */
static int mark_view(struct watch *w, struct group *g, const char *top, struct err *e)
{
	struct fan *f = w->data;

	if (!g->is_dirs && !f->all_dirs) {
		if (!fanotify_mark(g->fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, EVENTS, AT_FDCWD, top))
			return 0;
		if (errno != EXDEV)
			return mark_error(top, e);
	}
	g->is_dirs = true;
	return fanmarks_tree(w, g, top, false, e);
}

/* Does the kernel still have a mark of ours on this superblock? An unmount takes them away without a word. */
static bool has_marks(const struct group *g)
{
	char path[64], text[4096], want[40];

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", g->fd);
	/* The kernel's own way to write a device number: 20 bits of minor. */
	snprintf(want, sizeof want, "sdev:%llx ", (unsigned long long)major(g->dev) << 20 | minor(g->dev));
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n < 0)
		return false;
	text[n] = '\0';
	return strstr(text, want) != NULL;
}

/* ---- what is to be watched ---- */

static void view_free(struct view *v)
{
	close_fd(&v->fd);
	free(v->top);
}

void fanmarks_drop(struct fan *f, size_t i)
{
	struct group *g = &f->groups[i];

	if (g->marker.len)
		f->marks_out--;
	for (size_t k = 0; k < g->n_views; k++)
		view_free(&g->views[k]);
	free(g->views);
	buf_free(&g->backlog);
	buf_free(&g->marker);
	free(g->marked);
	close_fd(&g->fd);
	f->groups[i] = f->groups[--f->n];
}

static struct group *group_new(struct fan *f, uint64_t dev, struct err *e)
{
	int fd = fanevent_group();

	if (fd < 0 && errno == EMFILE) {
		err_set(e, ERR_REFUSED, "too many filesystems to watch: raise /proc/sys/fs/fanotify/max_user_groups");
		return NULL;
	}
	if (fd < 0) {
		err_sys(e, "cannot use fanotify");
		return NULL;
	}
	f->groups = xrealloc(f->groups, (f->n + 1) * sizeof *f->groups);
	f->groups[f->n] = (struct group){.dev = dev, .no = ++f->last_no, .fd = fd};
	return &f->groups[f->n++];
}

void fanmarks_lost(struct watch *w, const char *path, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	w->hear.lost(w->hear.ctx, path, text);
}

/* The mount shows something at top: is it watched? */
static int want(struct watch *w, const struct mount *m, uint64_t id, const char *top, bool is_start, struct err *e)
{
	struct fan *f = w->data;
	struct group *g = NULL;
	struct err why = {0};

	if (watch_is_mute(m->type)) {
		fanmarks_lost(w, top, "a filesystem of type '%s' does not tell what changes", m->type);
		return 0;
	}
	for (size_t i = 0; i < f->n && !g; i++)
		g = f->groups[i].dev == m->dev ? &f->groups[i] : NULL;
	for (size_t i = 0; g && i < g->n_views; i++) {
		struct view *v = &g->views[i];
		if (v->id != id || strcmp(v->top, top))
			continue;
		v->is_kept = true;
		return 0;
	}
	if (!g && !(g = group_new(f, m->dev, e)))
		return -1;
	if (mark_view(w, g, top, &why)) {
		if (!g->n_views)
			fanmarks_drop(f, (size_t)(g - f->groups));
		/* Nothing works without the paths themselves, and no limit is overcome by waiting. A filesystem that cannot be watched
		 * is compared each time. */
		if (is_start || why.kind == ERR_REFUSED) {
			*e = why;
			return -1;
		}
		fanmarks_lost(w, top, "%s", why.text);
		return 0;
	}
	g->views = xrealloc(g->views, (g->n_views + 1) * sizeof *g->views);
	g->views[g->n_views++] = (struct view){.id = id, .top = xstrdup(top), .fd = -1, .is_kept = true};
	w->hear.lost(w->hear.ctx, top, "it is watched from now on");
	return 0;
}

/* Is it still the directory that it was? */
static int check_top(struct watch *w, size_t i, uint64_t *mount, struct err *e)
{
	struct fan *f = w->data;
	struct top *t = &f->tops[i];
	struct statx sx;
	struct handles_one h = {0};
	char text[300];

	(void)e;
	bool is_there = !fanmarks_mount(AT_FDCWD, w->paths[i], mount, &sx) && S_ISDIR(sx.stx_mode);
	if (is_there && handles_of(AT_FDCWD, w->paths[i], &h))
		h = (struct handles_one){0};
	if (is_there && t->mount == *mount && t->handle.len && span_eq(handles_span(&h.h), span_of(t->handle.p, t->handle.len)))
		return 1;
	bool was_known = t->handle.len > 0;
	buf_reset(&t->handle);
	t->mount = is_there ? *mount : 0;
	if (!is_there) {
		w->hear.lost(w->hear.ctx, w->paths[i], "it is not there");
		return 0;
	}
	struct span s = handles_span(&h.h);
	buf_add(&t->handle, s.p, s.len);
	if (was_known)
		fanmarks_lost(w, w->paths[i], "'%s' is another directory now", esc_cut(text, sizeof text, span_cstr(w->paths[i])));
	/* Marks of directories do not come with the name. */
	for (size_t k = 0; was_known && k < f->n; k++)
		f->groups[k].is_late = f->groups[k].is_late || f->groups[k].is_dirs;
	return 1;
}

static void drop_unkept(struct watch *w)
{
	struct fan *f = w->data;

	for (size_t i = f->n; i-- > 0;) {
		struct group *g = &f->groups[i];
		for (size_t k = g->n_views; k-- > 0;) {
			struct view *v = &g->views[k];
			if (v->is_kept)
				continue;
			w->hear.lost(w->hear.ctx, v->top, "what was mounted there is not any more");
			view_free(v);
			g->views[k] = g->views[--g->n_views];
		}
		if (!g->n_views)
			fanmarks_drop(f, i);
	}
}

static int remark(struct watch *w, struct group *g, const char *reason, struct err *e)
{
	for (size_t k = 0; k < g->n_views; k++) {
		struct err why = {0};
		if (mark_view(w, g, g->views[k].top, &why) && why.kind == ERR_REFUSED) {
			*e = why;
			return -1;
		}
		w->hear.lost(w->hear.ctx, g->views[k].top, why.kind ? why.text : reason);
	}
	return 0;
}

int fanmarks_check(struct watch *w, bool is_start, struct err *e)
{
	struct fan *f = w->data;
	struct mounts all = {0};
	int rc = mounts_read(&all, e);

	for (size_t i = 0; i < f->n; i++)
		for (size_t k = 0; k < f->groups[i].n_views; k++)
			f->groups[i].views[k].is_kept = false;
	for (size_t i = 0; i < w->n_paths && !rc; i++) {
		uint64_t mount = 0;
		int got = check_top(w, i, &mount, e);
		if (is_start && !got)
			rc = err_set(e, ERR_SYSTEM, "'%s' is not a directory", w->paths[i]);
		for (size_t k = 0; k < all.n && !rc; k++) {
			const struct mount *m = &all.v[k];
			struct span point = span_cstr(m->point), top = span_cstr(w->paths[i]);
			if (got && m->id == mount)
				rc = want(w, m, m->id, w->paths[i], is_start, e);
			else if (!span_eq(point, top) && mounts_below(point, top))
				rc = want(w, m, m->id, m->point, false, e);
		}
	}
	mounts_free(&all);
	if (rc)
		return -1;
	bool is_waiting = f->marks_out > 0;
	drop_unkept(w);
	if (is_waiting && !f->marks_out)
		w->hear.seen(w->hear.ctx);
	for (size_t i = 0; i < f->n; i++) {
		struct group *g = &f->groups[i];
		if (!has_marks(g) && remark(w, g, "it was unmounted meanwhile", e))
			return -1;
		if (g->is_late && remark(w, g, "directories appeared that were not watched", e))
			return -1;
		g->is_late = false;
	}
	return 0;
}
