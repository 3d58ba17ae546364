#include "watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "path.h"

static const struct watch_source *const sources[] = {&fanotify_source, &fanotify_dirs_source, &inotify_source};

int watch_open(struct watch *w, const char *name, struct err *e)
{
	struct err why = {0};

	for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
		const struct watch_source *s = sources[i];
		if (name ? strcmp(name, s->name) != 0 : s == &fanotify_dirs_source)
			continue;
		w->source = s;
		if (!s->open(w, &why))
			return 0;
		watch_close(w);
		/* The next one may do where this one cannot work at all. */
		bool is_last = name || i + 1 == sizeof sources / sizeof *sources;
		if (is_last || (why.sys != EPERM && why.sys != ENOSYS && why.sys != EOPNOTSUPP)) {
			*e = why;
			return -1;
		}
		err_clear(&why);
	}
	char text[300];
	return err_set(e, ERR_USAGE, "there is no event source '%s': fanotify, fanotify-dirs, inotify",
		esc_cut(text, sizeof text, span_cstr(name)));
}

void watch_close(struct watch *w)
{
	if (w->source && w->data)
		w->source->close(w);
	words_free(&w->blind);
	w->data = NULL;
	w->source = NULL;
}

const char *watch_name(const struct watch *w) { return w->source->name; }

void watch_describe(const struct watch *w, struct buf *text) { w->source->describe(w, text); }

size_t watch_fds(const struct watch *w, struct pollfd *p) { return w->source->fds(w, p); }

int watch_gather(struct watch *w, struct err *e) { return w->source->gather(w, e); }

int watch_tell(struct watch *w, const bool *stop, struct err *e) { return w->source->tell(w, stop, e); }

int watch_mark(struct watch *w, struct err *e) { return w->source->mark(w, e); }

void watch_blind(struct watch *w, const char *path)
{
	words_put(&w->blind, span_cstr(path));
	w->hear.lost(w->hear.ctx, path, "it may not be read");
}

int watch_check(struct watch *w, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	for (uint32_t no = 1; no <= w->blind.n; no++) {
		struct span s = words_get(&w->blind, no);
		buf_reset(&path);
		buf_add(&path, s.p, s.len);
		/* One that is gone, or may be read now, had its event. */
		if (!faccessat(AT_FDCWD, buf_cstr(&path), R_OK | X_OK, AT_EACCESS) || errno == ENOENT)
			continue;
		w->hear.lost(w->hear.ctx, buf_cstr(&path), "it may not be read");
	}
	return w->source->check(w, e);
}

int watch_find(struct watch *w, uint32_t dir, const struct watch_where *where, struct err *e)
{
	return w->source->find(w, dir, where, e);
}

uint32_t watch_dirs(const struct watch *w) { return w->source->dirs(w); }

bool watch_is_only_name(struct watch *w, int dirfd, struct span name, uint32_t obj)
{
	return w->source->is_only_name(w, dirfd, name, obj);
}

int watch_object(struct watch *w, uint32_t obj, struct r_inode *out) { return w->source->object(w, obj, out); }

size_t watch_size(const struct watch *w) { return w->source->size(w); }

void watch_forget(struct watch *w) { w->source->forget(w); }

void watch_rest(struct watch *w) { w->source->rest(w); }

bool watch_is_inside(const struct watch *w, struct span path)
{
	if (w->own && mounts_below(path, span_cstr(w->own)))
		return false;
	for (size_t i = 0; i < w->n_paths; i++) {
		struct span top = span_cstr(w->paths[i]);
		if (!mounts_below(path, top))
			continue;
		/* The toolkit's own directory. */
		size_t at = top.len == 1 ? 0 : top.len;
		struct span rest = span_of(path.p + at, path.len - at);
		return rest.len < 6 || memcmp(rest.p, "/.repl", 6) || (rest.len > 6 && rest.p[6] != '/');
	}
	return false;
}

bool watch_is_mute(const char *type)
{
	static const char *const types[] = {
		"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "lustre", "glusterfs", "gfs2", "ocfs2", "beegfs", "fuse",
		"virtiofs", "proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "securityfs", "configfs", "bpf", "pstore",
		"efivarfs", "mqueue", "autofs", "binfmt_misc", "nsfs", "rpc_pipefs", "fusectl", "selinuxfs",
	};

	for (size_t i = 0; i < sizeof types / sizeof *types; i++)
		if (!strcmp(type, types[i]))
			return true;
	return !strncmp(type, "fuse.", 5);
}

/* ---- all directories ---- */

static bool is_passing(int sys) { return sys == ENOENT || sys == ENOTDIR || sys == ELOOP || sys == EACCES || sys == EPERM; }

/* A directory that may not be read: who compares may not read it either, or else finds what happened. */
static void say_blind(struct watch *w, const char *top, struct span rel)
{
	AUTO_BUF struct buf path = {0};

	buf_str(&path, top);
	if (rel.len && path.len > 1)
		buf_str(&path, "/");
	buf_add(&path, rel.p, rel.len);
	watch_blind(w, buf_cstr(&path));
}

/* Puts the directories in fd on the stack: paths below top, each with its length behind it. */
static int push_below(int fd, struct span rel, struct buf *stack, struct err *e)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	struct dirent *en;

	if (!d) {
		close_fd(&own);
		return err_sys(e, "cannot list a directory");
	}
	for (errno = 0; (en = readdir(d)); errno = 0) {
		struct stat st;
		if (file_is_dots(en->d_name))
			continue;
		if (en->d_type != DT_DIR && (en->d_type != DT_UNKNOWN || fstatat(fd, en->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
				!S_ISDIR(st.st_mode)))
			continue;
		size_t from = stack->len;
		wr_raw(stack, rel.p, rel.len);
		if (rel.len)
			wr_u8(stack, '/');
		wr_raw(stack, en->d_name, strlen(en->d_name));
		wr_u32(stack, (uint32_t)(stack->len - from));
	}
	bool is_bad = errno != 0;
	if (is_bad)
		err_sys(e, "cannot list a directory");
	closedir(d);
	return is_bad ? -1 : 0;
}

#define CHUNK (64u * 1024)

int watch_read(int fd, struct buf *backlog, size_t *at, size_t max, struct err *e)
{
	if (*at && *at == backlog->len)
		*at = backlog->len = 0;
	while (backlog->len - *at < max) {
		buf_reserve(backlog, CHUNK);
		ssize_t n = read(fd, backlog->p + backlog->len, CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return err_sys(e, "cannot read events");
		if (n <= 0)
			break;
		backlog->len += (size_t)n;
	}
	return 0;
}

int watch_descend(struct watch *w, const char *top, int (*visit)(void *ctx, int fd, struct span rel, struct err *e), void *ctx,
	struct err *e)
{
	AUTO_BUF struct buf stack = {0}, rel = {0};
	AUTO_CLOSE int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct err no_top = {0};
	AUTO_CLOSE int top_fd = root < 0 ? -1 : path_dir(root, span_cstr(top + 1), &no_top);

	if (root < 0)
		return err_sys(e, "cannot open '/'");
	if (top_fd < 0) {
		if (no_top.sys == EACCES || no_top.sys == EPERM)
			say_blind(w, top, (struct span){0});
		if (is_passing(no_top.sys))
			return 0;
		*e = no_top;
		return -1;
	}
	uint64_t mount = mounts_id(top_fd);
	wr_u32(&stack, 0);
	while (stack.len) {
		uint32_t len;
		struct err why = {0};
		memcpy(&len, stack.p + stack.len - 4, 4);
		stack.len -= 4 + len;
		buf_reset(&rel);
		wr_raw(&rel, stack.p + stack.len, len);
		AUTO_CLOSE int fd = path_dir(top_fd, span_of(rel.p, rel.len), &why);
		int got = 0;
		if (fd >= 0 && mounts_id(fd) == mount)
			got = visit(ctx, fd, span_of(rel.p, rel.len), e);
		if (got < 0)
			return -1;
		if (got && !push_below(fd, span_of(rel.p, rel.len), &stack, &why))
			continue;
		if (why.kind && !is_passing(why.sys)) {
			*e = why;
			return -1;
		}
		if (why.sys == EACCES || why.sys == EPERM)
			say_blind(w, top, span_of(rel.p, rel.len));
	}
	return 0;
}
