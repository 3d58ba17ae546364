#include "inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "numbers.h"
#include "path.h"
#include "words.h"

#define EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_ONLYDIR)
#define BACKLOG_MAX (6u * 1024 * 1024)

/* A watched directory. Its number is its place here, from 1. */
struct node {
	int wd;          /* -1: free */
	uint32_t parent; /* 0: one of the paths, or nowhere */
	uint32_t child, next;
	uint32_t top;    /* number of the path + 1, for its own directory */
	bool is_moved;   /* to be looked at with all below it: see look_again */
	char *name;
};
struct ino {
	int fd, marker; /* marker: a file of our own, in memory: its events go through the same queue */
	int marker_wd;
	bool is_marked;
	struct node *nodes;
	uint32_t n, cap, free; /* free: the first free one; they are linked by next */
	uint32_t n_live;
	struct numbers by_wd;
	struct buf backlog;
	size_t at;
	struct buf moved;   /* u32 numbers of directories that are, or were, is_moved */
	bool is_late;       /* after an overflow: directories may have no watch */
	struct stat *tops;  /* of each path; st_ino 0: not there */
	char *mounts;       /* below the paths, as text */
};

/* ---- the tree of directories ---- */

static void unhook(struct ino *s, uint32_t no)
{
	struct node *n = &s->nodes[no];

	if (!n->parent)
		return;
	uint32_t *at = &s->nodes[n->parent].child;
	while (*at != no)
		at = &s->nodes[*at].next;
	*at = n->next;
	n->parent = n->next = 0;
}

static void hook(struct ino *s, uint32_t no, uint32_t parent, struct span name)
{
	struct node *n = &s->nodes[no];
	char *fresh = xalloc(name.len + 1);

	memcpy(fresh, name.p, name.len);
	unhook(s, no);
	free(n->name);
	n->name = fresh;
	n->parent = parent;
	n->next = s->nodes[parent].child;
	s->nodes[parent].child = no;
}

static uint32_t child_of(const struct ino *s, uint32_t parent, struct span name)
{
	uint32_t no = s->nodes[parent].child;

	while (no && (strlen(s->nodes[no].name) != name.len || memcmp(s->nodes[no].name, name.p, name.len)))
		no = s->nodes[no].next;
	return no;
}

static uint32_t node_new(struct ino *s, int wd)
{
	uint32_t no = s->free;

	if (no) {
		s->free = s->nodes[no].next;
	} else {
		if (s->n + 1 >= s->cap) {
			s->cap = s->cap ? s->cap * 2 : 64;
			s->nodes = xrealloc(s->nodes, s->cap * sizeof *s->nodes);
		}
		no = ++s->n;
	}
	s->nodes[no] = (struct node){.wd = wd};
	s->n_live++;
	/* The kernel never gives a number twice: those of directories that are gone add up. */
	if (s->by_wd.n > 4096 && s->by_wd.n / 2 > s->n_live) {
		numbers_free(&s->by_wd);
		for (uint32_t i = 1; i <= s->n; i++)
			if (s->nodes[i].wd >= 0)
				*numbers_at(&s->by_wd, (uint64_t)s->nodes[i].wd) = i;
	}
	*numbers_at(&s->by_wd, (uint64_t)wd) = no;
	return no;
}

/* The kernel has dropped its watch. What is below it has its own, and goes likewise. */
static void node_gone(struct ino *s, uint32_t no)
{
	struct node *n = &s->nodes[no];

	unhook(s, no);
	while (n->child)
		unhook(s, n->child);
	*numbers_at(&s->by_wd, (uint64_t)n->wd) = 0;
	free(n->name);
	*n = (struct node){.wd = -1, .next = s->free};
	s->free = no;
	s->n_live--;
}

/* The absolute path of a directory; false: it is nowhere that we know. */
static bool node_path(const struct watch *w, uint32_t no, struct buf *path)
{
	const struct ino *s = w->data;
	size_t len = 0;
	uint32_t top = no;

	for (; s->nodes[top].parent; top = s->nodes[top].parent)
		len += 1 + strlen(s->nodes[top].name);
	if (!s->nodes[top].top)
		return false;
	const char *first = w->paths[s->nodes[top].top - 1];
	buf_reset(path);
	if (first[1] || !len)
		buf_str(path, first);
	buf_reserve(path, len);
	path->len += len;
	for (uint8_t *end = path->p + path->len; no != top; no = s->nodes[no].parent) {
		size_t n = strlen(s->nodes[no].name);
		end -= n;
		memcpy(end, s->nodes[no].name, n);
		*--end = '/';
	}
	return true;
}

static int ino_gather(struct watch *w, struct err *e)
{
	struct ino *s = w->data;

	return watch_read(s->fd, &s->backlog, &s->at, BACKLOG_MAX, e);
}

/* ---- watches ---- */

static int limit_error(struct err *e)
{
	return err_set(e, ERR_REFUSED,
		"too many directories to watch with inotify: raise /proc/sys/fs/inotify/max_user_watches, or run as root");
}

struct watching {
	struct watch *w;
	const char *top;
	uint32_t parent;  /* of top; 0: top is one of the paths */
	struct span name; /* of top in it */
	uint32_t top_no;  /* path number + 1 */
	bool is_all;      /* goes on below directories that have their watches */
	bool is_there;    /* top is */
};

/* The node at a path below a node. */
static uint32_t node_below(const struct ino *s, uint32_t no, struct span rel)
{
	while (no && rel.len) {
		const uint8_t *slash = memchr(rel.p, '/', rel.len);
		size_t n = slash ? (size_t)(slash - rel.p) : rel.len;
		no = child_of(s, no, span_of(rel.p, n));
		rel = slash ? span_of(slash + 1, rel.len - n - 1) : (struct span){0};
	}
	return no;
}

/* Where top itself stands. */
static uint32_t top_node(const struct ino *s, const struct watching *k)
{
	if (k->parent)
		return child_of(s, k->parent, k->name);
	for (uint32_t no = 1; no <= s->n; no++)
		if (s->nodes[no].wd >= 0 && s->nodes[no].top == k->top_no)
			return no;
	return 0;
}

/* It came from elsewhere with all that it had. What was made in it meanwhile was looked for where it does not stand any more; but to look
 * through a large directory each time that it, or one above it, moves would never come to an end. */
static void look_later(struct ino *s, uint32_t no)
{
	if (!s->nodes[no].is_moved)
		wr_u32(&s->moved, no);
	s->nodes[no].is_moved = true;
}

static int watch_dir(void *ctx, int fd, struct span rel, struct err *e)
{
	struct watching *k = ctx;
	struct ino *s = k->w->data;
	AUTO_BUF struct buf path = {0};
	struct span dir = {0}, name = k->name;
	char link[64];

	/* So that the queue does not overflow while a large directory is looked through. */
	if (ino_gather(k->w, e))
		return -1;
	buf_str(&path, k->top);
	if (rel.len && path.len > 1)
		buf_str(&path, "/");
	buf_add(&path, rel.p, rel.len);
	if (!watch_is_inside(k->w, span_of(path.p, path.len)))
		return 0;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	int wd = inotify_add_watch(s->fd, link, EVENTS);
	if (wd < 0 && errno == ENOSPC)
		return limit_error(e);
	if (wd < 0) {
		if (errno == EACCES || errno == EPERM)
			watch_blind(k->w, buf_cstr(&path));
		return errno == ENOENT || errno == EACCES || errno == EPERM ? 0 :
			err_sys(e, "cannot watch '%s'", buf_cstr(&path));
	}
	uint32_t no = (uint32_t)numbers_get(&s->by_wd, (uint64_t)wd), parent = k->parent;
	bool was_there = no;
	if (!was_there)
		no = node_new(s, wd);
	if (rel.len) {
		path_split(rel, &dir, &name);
		parent = node_below(s, top_node(s, k), dir);
		if (!parent) /* it went away meanwhile: events tell */
			return 0;
	}
	if (!parent) {
		unhook(s, no);
		s->nodes[no].top = k->top_no;
	} else {
		/* A directory that came below itself is two events from being right again; there must be no circle. */
		for (uint32_t up = parent; up; up = s->nodes[up].parent)
			if (up == no)
				return 0;
		s->nodes[no].top = 0;
		uint32_t old = child_of(s, parent, name);
		if (old && old != no)
			unhook(s, old);
		hook(s, no, parent, name);
	}
	k->is_there = true;
	if (!was_there || k->is_all)
		return 1;
	look_later(s, no);
	return 0;
}

static int watch_path(struct watch *w, size_t i, struct err *e)
{
	struct watching k = {.w = w, .top = w->paths[i], .top_no = (uint32_t)i + 1, .is_all = true};

	return watch_descend(w, w->paths[i], watch_dir, &k, e);
}

/* is_all: also what is below directories that have their watches, at once. *is_there: a directory has this name. */
static int watch_child(struct watch *w, uint32_t parent, struct span name, bool is_all, bool *is_there, struct err *e)
{
	AUTO_BUF struct buf top = {0}, own = {0};

	*is_there = false;
	if (!node_path(w, parent, &top))
		return 0;
	if (top.len > 1)
		buf_str(&top, "/");
	buf_add(&top, name.p, name.len);
	buf_add(&own, name.p, name.len);
	struct watching k = {.w = w, .top = buf_cstr(&top), .parent = parent, .name = span_of(own.p, own.len), .is_all = is_all};
	int rc = watch_descend(w, k.top, watch_dir, &k, e);
	*is_there = k.is_there;
	return rc;
}

static bool is_below_moved(const struct ino *s, uint32_t no)
{
	while ((no = s->nodes[no].parent))
		if (s->nodes[no].is_moved)
			return true;
	return false;
}

/* What moved since the last time, each once, however often it did: those that others stand above come with them. Where one stands is what
 * the events so far say; a later move of it comes again. */
static int look_again(struct watch *w, struct err *e)
{
	struct ino *s = w->data;
	struct rd all = rd_of(s->moved.p, s->moved.len);
	bool is_there;
	int rc = 0;

	while (all.len && !rc) {
		const uint32_t no = rd_u32(&all);
		const struct node *n = &s->nodes[no];
		if (n->is_moved && n->parent && !is_below_moved(s, no))
			rc = watch_child(w, n->parent, span_cstr(n->name), true, &is_there, e);
	}
	for (all = rd_of(s->moved.p, s->moved.len); all.len;)
		s->nodes[rd_u32(&all)].is_moved = false;
	buf_reset(&s->moved);
	return rc;
}

/* A directory and all below it left the tree, and with them their watches. */
static void unwatch(struct ino *s, uint32_t no)
{
	while (s->nodes[no].child)
		unwatch(s, s->nodes[no].child);
	inotify_rm_watch(s->fd, s->nodes[no].wd);
	node_gone(s, no);
}

/* What was moved away and did not come up elsewhere. */
static void unwatch_lost(struct ino *s)
{
	for (uint32_t no = 1; no <= s->n; no++)
		if (s->nodes[no].wd >= 0 && !s->nodes[no].parent && !s->nodes[no].top)
			unwatch(s, no);
}

/* ---- paths and mounts ---- */

/* What is mounted below a path hangs where its mount point does. */
static int watch_mount(struct watch *w, const char *point, struct err *e)
{
	struct ino *s = w->data;

	for (size_t i = 0; i < w->n_paths; i++) {
		struct span at = span_cstr(point), path = span_cstr(w->paths[i]), dir, name;
		struct watching k = {.top_no = (uint32_t)i + 1};
		if (span_eq(at, path) || !mounts_below(at, path))
			continue;
		size_t cut = path.len + (path.len > 1);
		path_split(span_of(at.p + cut, at.len - cut), &dir, &name);
		uint32_t parent = node_below(s, top_node(s, &k), dir);
		bool is_there;
		if (parent && watch_child(w, parent, name, true, &is_there, e))
			return -1;
	}
	return 0;
}

/* The mounts at and below the paths, as a text to compare; those that tell nothing are lost. */
static void list_mounts(const struct watch *w, const struct mounts *all, struct buf *text)
{
	for (size_t i = 0; i < all->n; i++)
		for (size_t k = 0; k < w->n_paths; k++) {
			const struct mount *m = &all->v[i];
			if (!mounts_below(span_cstr(m->point), span_cstr(w->paths[k])))
				continue;
			buf_fmt(text, "%llu %s\n", (unsigned long long)m->id, m->point);
			if (watch_is_mute(m->type))
				w->hear.lost(w->hear.ctx, m->point, "its filesystem does not tell what changes");
		}
}

static int check_path(struct watch *w, size_t i, bool is_other, struct err *e)
{
	struct ino *s = w->data;
	struct stat st;
	bool is_there = !lstat(w->paths[i], &st) && S_ISDIR(st.st_mode);
	bool is_same = is_there && s->tops[i].st_ino == st.st_ino && s->tops[i].st_dev == st.st_dev;

	if (is_same && !is_other && !s->is_late)
		return 0;
	w->hear.lost(w->hear.ctx, w->paths[i], !is_there ? "it is not there" : !is_same ? "it is another directory now" :
		s->is_late ? "events were lost" : "something was mounted or unmounted");
	s->tops[i] = is_there ? st : (struct stat){0};
	if (!is_same) {
		struct watching k = {.top_no = (uint32_t)i + 1};
		uint32_t old = top_node(s, &k);
		if (old)
			unwatch(s, old);
	}
	return is_there ? watch_path(w, i, e) : 0;
}

static int ino_check(struct watch *w, struct err *e)
{
	struct ino *s = w->data;
	struct mounts all = {0};
	AUTO_BUF struct buf text = {0};

	if (mounts_read(&all, e))
		return -1;
	list_mounts(w, &all, &text);
	bool is_first = !s->mounts, is_other = !is_first && strcmp(buf_cstr(&text), s->mounts) != 0, was_late = s->is_late;
	free(s->mounts);
	s->mounts = xstrdup(buf_cstr(&text));
	int rc = 0;
	for (size_t i = 0; i < w->n_paths && !rc; i++)
		rc = check_path(w, i, is_other, e);
	s->is_late = false;
	for (size_t i = 0; i < all.n && !rc && (is_first || is_other || was_late); i++)
		if (!watch_is_mute(all.v[i].type))
			rc = watch_mount(w, all.v[i].point, e);
	mounts_free(&all);
	return rc;
}

/* ---- opening ---- */

static int ino_open(struct watch *w, struct err *e)
{
	struct ino *s = xalloc(sizeof *s);
	char link[64];

	s->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	int file = memfd_create("marker", MFD_CLOEXEC);
	s->marker = -1;
	s->tops = xalloc(w->n_paths * sizeof *s->tops);
	w->data = s;
	if (s->fd < 0 && errno == EMFILE)
		err_set(e, ERR_REFUSED, "too many inotify users: raise /proc/sys/fs/inotify/max_user_instances");
	else if (s->fd < 0 || file < 0)
		err_sys(e, "cannot use inotify");
	/* Opened anew: what memfd_create gives has no events (Linux 6.13). */
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	if (!e->kind && (s->marker = open(link, O_WRONLY | O_CLOEXEC)) < 0)
		err_sys(e, "cannot open '%s'", link);
	if (!e->kind && (s->marker_wd = inotify_add_watch(s->fd, link, IN_MODIFY)) < 0) {
		if (errno == ENOSPC)
			limit_error(e);
		else
			err_sys(e, "cannot watch '%s'", link);
	}
	close_fd(&file);
	for (size_t i = 0; i < w->n_paths && !e->kind; i++)
		if (lstat(w->paths[i], &s->tops[i]) || !S_ISDIR(s->tops[i].st_mode))
			err_set(e, ERR_SYSTEM, "'%s' is not a directory", w->paths[i]);
	for (size_t i = 0; i < w->n_paths && !e->kind; i++)
		watch_path(w, i, e);
	return e->kind ? -1 : ino_check(w, e);
}

static void ino_close(struct watch *w)
{
	struct ino *s = w->data;

	close_fd(&s->fd);
	close_fd(&s->marker);
	for (uint32_t no = 1; no <= s->n; no++)
		free(s->nodes[no].name);
	free(s->nodes);
	numbers_free(&s->by_wd);
	buf_free(&s->backlog);
	buf_free(&s->moved);
	free(s->tops);
	free(s->mounts);
	free(s);
}

static void ino_describe(const struct watch *w, struct buf *text)
{
	const struct ino *s = w->data;

	buf_fmt(text, "inotify, %u directories", s->n_live);
}

static size_t ino_fds(const struct watch *w, struct pollfd *p)
{
	*p = (struct pollfd){.fd = ((const struct ino *)w->data)->fd, .events = POLLIN};
	return 1;
}

/* ---- events ---- */

static int ino_mark(struct watch *w, struct err *e)
{
	struct ino *s = w->data;

	s->is_marked = true;
	if (pwrite(s->marker, "m", 1, 0) != 1)
		return err_sys(e, "cannot write a marker");
	return 0;
}

static int on_overflow(struct watch *w, struct err *e)
{
	struct ino *s = w->data;

	w->hear.lost(w->hear.ctx, NULL, "the event queue overflowed (/proc/sys/fs/inotify/max_queued_events)");
	s->is_late = true;
	return s->is_marked ? ino_mark(w, e) : 0;
}

static int on_dir(struct watch *w, uint32_t dir, uint32_t mask, struct span name, struct err *e)
{
	struct ino *s = w->data;
	uint32_t no = child_of(s, dir, name);
	/* A directory that may be read from now on. */
	bool is_opened = mask & IN_ATTRIB && !no, is_there;

	if (!(mask & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM)) && !is_opened)
		return 0;
	/* Looked at also when one has gone from there: of two that are exchanged the second goes from where the first was seen already. */
	if (watch_child(w, dir, name, false, &is_there, e))
		return -1;
	if (mask & IN_MOVED_FROM && !is_there && no && no == child_of(s, dir, name))
		unhook(s, no);
	return 0;
}

static int on_event(struct watch *w, const struct inotify_event *ev, struct span name, struct err *e)
{
	struct ino *s = w->data;
	uint8_t flags = 0;

	if (ev->mask & IN_Q_OVERFLOW)
		return on_overflow(w, e);
	if (ev->wd == s->marker_wd) {
		if (!s->is_marked)
			return 0;
		s->is_marked = false;
		if (look_again(w, e))
			return -1;
		unwatch_lost(s);
		w->hear.seen(w->hear.ctx);
		return 0;
	}
	uint32_t dir = ev->wd > 0 ? (uint32_t)numbers_get(&s->by_wd, (uint64_t)ev->wd) : 0;
	if (!dir)
		return 0;
	if (ev->mask & IN_IGNORED) {
		node_gone(s, dir);
		return 0;
	}
	if (ev->mask & IN_UNMOUNT) {
		AUTO_BUF struct buf path = {0};
		if (node_path(w, dir, &path))
			w->hear.lost(w->hear.ctx, buf_cstr(&path), "it was unmounted");
		return 0;
	}
	if (ev->mask & (IN_CREATE | IN_MOVED_TO))
		flags |= CHANGED_NEW;
	if (ev->mask & (IN_DELETE | IN_MOVED_FROM))
		flags |= CHANGED_GONE;
	if (ev->mask & (IN_MODIFY | IN_CLOSE_WRITE))
		flags |= CHANGED_CONTENT;
	if (ev->mask & IN_ATTRIB)
		flags |= CHANGED_META;
	bool is_dir = ev->mask & IN_ISDIR && name.len;
	if (is_dir && ev->mask & (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_ATTRIB) && !(ev->mask & IN_ATTRIB && child_of(s, dir, name)))
		flags |= CHANGED_SUBTREE;
	if (!flags)
		return 0;
	w->hear.changed(w->hear.ctx, dir, name, flags, 0, ev->mask & (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB) && name.len && !is_dir);
	return is_dir ? on_dir(w, dir, ev->mask, name, e) : 0;
}

static int tell_backlog(struct watch *w, const bool *stop, struct err *e)
{
	struct ino *s = w->data;

	while (s->at < s->backlog.len && !*stop) {
		struct inotify_event ev;
		memcpy(&ev, s->backlog.p + s->at, sizeof ev);
		const uint8_t *name = s->backlog.p + s->at + sizeof ev;
		AUTO_BUF struct buf own = {0};
		/* Copied: the backlog may move while a new directory is looked at. */
		buf_add(&own, name, ev.len ? strnlen((const char *)name, ev.len) : 0);
		s->at += sizeof ev + ev.len;
		if (on_event(w, &ev, span_of(own.p, own.len), e) || ino_gather(w, e))
			return -1;
	}
	return s->at == s->backlog.len && !*stop ? look_again(w, e) : 0;
}

static int ino_tell(struct watch *w, const bool *stop, struct err *e)
{
	return ino_gather(w, e) || tell_backlog(w, stop, e) ? -1 : 0;
}

/* ---- numbers ---- */

static int ino_find(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e)
{
	struct ino *s = w->data;
	AUTO_BUF struct buf path = {0};
	struct err why = {0};

	if (s->nodes[dir].wd < 0 || !node_path(w, dir, &path))
		return WATCH_GONE;
	AUTO_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	AUTO_CLOSE int fd = root < 0 ? -1 : path_dir(root, span_of(path.p + 1, path.len - 1), &why);
	if (fd < 0 && path_is_gone(why.sys))
		return WATCH_GONE;
	if (fd < 0) {
		w->hear.lost(w->hear.ctx, buf_cstr(&path), why.kind ? why.text : strerror(errno));
		return WATCH_LOST;
	}
	return where->at(where->ctx, span_of(path.p, path.len), fd, e) ? -1 : WATCH_FOUND;
}

static uint32_t ino_dirs(const struct watch *w) { return ((const struct ino *)w->data)->n; }

static bool ino_is_only_name(struct watch *w, int dirfd, struct span name, uint32_t obj)
{
	char text[256];
	struct stat st;

	(void)w;
	(void)obj;
	span_name(text, name);
	return !fstatat(dirfd, text, &st, AT_SYMLINK_NOFOLLOW) && (S_ISDIR(st.st_mode) || st.st_nlink == 1);
}

static int ino_object(struct watch *w, uint32_t obj, struct r_inode *out)
{
	(void)w;
	(void)obj;
	(void)out;
	return 2;
}

/* Directories keep their numbers: they do not count. */
static size_t ino_size(const struct watch *w)
{
	(void)w;
	return 0;
}

static void ino_forget(struct watch *w) { (void)w; } /* a directory keeps its number while it is watched */

const struct watch_source inotify_source = {.name = "inotify", .open = ino_open, .close = ino_close, .describe = ino_describe,
	.fds = ino_fds, .gather = ino_gather, .tell = ino_tell, .mark = ino_mark, .check = ino_check, .find = ino_find,
	.dirs = ino_dirs, .is_only_name = ino_is_only_name, .object = ino_object, .size = ino_size, .forget = ino_forget, .rest = ino_forget};
