#include "path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "file.h"
#include "inode.h"
#include "record.h"

#define PIECE 4000 /* bytes of a path handed to the kernel at a time; below PATH_MAX */
#define SHOWN 320

_Static_assert(PIECE < PATH_MAX && PIECE > 2 * REC_NAME_MAX, "a piece holds whole components");

static const char *shown(char out[SHOWN], struct span s)
{
	int keep = errno;
	esc_cut(out, SHOWN, s);
	errno = keep;
	return out;
}

static bool is_sane(struct span rel)
{
	if (rel.len == 0)
		return true;
	for (;;) {
		const uint8_t *slash = memchr(rel.p, '/', rel.len);
		size_t n = slash ? (size_t)(slash - rel.p) : rel.len;
		if (!name_is_sane(span_of(rel.p, n)))
			return false;
		if (!slash)
			return true;
		rel = span_of(rel.p + n + 1, rel.len - n - 1);
	}
}

static int refuse(struct span rel, struct err *e)
{
	char show[SHOWN];
	return err_set(e, ERR_REFUSED, "unsafe path '%s'", shown(show, rel));
}

static void close_keep(int fd)
{
	int keep = errno;
	if (fd >= 0)
		close(fd);
	errno = keep;
}

static int open_one(int dirfd, const char *name, int flags, mode_t mode)
{
	int fd;
	do
		fd = openat(dirfd, name, flags, mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

/* A link where a directory should be is ENOTDIR here and ELOOP from openat2: callers see the latter. */
static int open_step(int dirfd, const char *name, int flags, mode_t mode)
{
	struct stat st;
	int fd = open_one(dirfd, name, flags, mode);
	if (fd < 0 && errno == ENOTDIR)
		errno = !fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISLNK(st.st_mode) ? ELOOP : ENOTDIR;
	return fd;
}

/* Where openat2 is missing: one component after the other; each directory on the way is pinned before the
 * next step. */
static int open_steps(int dirfd, char *piece, int flags, mode_t mode)
{
	int at = dirfd;
	for (char *slash; (slash = strchr(piece, '/')); piece = slash + 1) {
		*slash = '\0';
		int next = open_step(at, piece, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
		if (at != dirfd)
			close_keep(at);
		if (next < 0)
			return -1;
		at = next;
	}
	int fd = open_step(at, piece, flags, mode);
	if (at != dirfd)
		close_keep(at);
	return fd;
}

/* piece: less than PATH_MAX bytes; it is cut up on the way. */
static int open_piece(int dirfd, char *piece, int flags, mode_t mode)
{
	struct open_how how = {
		/* With O_NOFOLLOW a link in place of a directory would be ENOTDIR; RESOLVE_NO_SYMLINKS makes it ELOOP. */
		.flags = (uint64_t)(unsigned)(flags & O_DIRECTORY ? flags & ~O_NOFOLLOW : flags),
		.mode = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? mode & 07777 : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;
	/* EAGAIN: something was renamed while the kernel walked. Somebody who does nothing else does not stop us:
	 * the steps below do not depend on it. EXDEV: what was found had left the root by then; the path has no other way out. */
	for (int tries = 0; tries < 100; tries++) {
		fd = syscall(SYS_openat2, dirfd, piece, &how, sizeof(how));
		if (fd >= 0)
			return (int)fd;
		if (errno != EAGAIN && errno != EINTR && errno != EXDEV)
			break;
	}
	if (errno == EXDEV)
		errno = ENOENT;
	/* EPERM is how older container filters refuse calls that they do not know; a true one comes back from openat. */
	if (errno == ENOSYS || errno == E2BIG || errno == EPERM || errno == EAGAIN || errno == EINTR)
		return open_steps(dirfd, piece, flags, mode);
	return -1;
}

/* A path of any length, in pieces that end at a slash. -1: errno. */
static int open_beneath(int root_fd, struct span rel, int flags, mode_t mode)
{
	char piece[PIECE + 1];
	int at = root_fd;

	flags |= O_NOFOLLOW | O_CLOEXEC;
	if (!(flags & O_PATH))
		flags |= O_NONBLOCK;
	if (rel.len == 0)
		return open_one(root_fd, ".", flags, mode);
	while (rel.len > PIECE) {
		size_t n = PIECE;
		while (rel.p[n] != '/')
			n--; /* is_sane: no component is longer than 255 bytes */
		memcpy(piece, rel.p, n);
		piece[n] = '\0';
		int next = open_piece(at, piece, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
		if (at != root_fd)
			close_keep(at);
		if (next < 0)
			return -1;
		at = next;
		rel = span_of(rel.p + n + 1, rel.len - n - 1);
	}
	memcpy(piece, rel.p, rel.len);
	piece[rel.len] = '\0';
	int fd = open_piece(at, piece, flags, mode);
	if (at != root_fd)
		close_keep(at);
	return fd;
}

bool path_is_gone(int sys) { return sys == ENOENT || sys == ENOTDIR || sys == ELOOP; }

int path_dir(int root_fd, struct span rel, struct err *e)
{
	char show[SHOWN];
	if (!is_sane(rel))
		return refuse(rel, e);
	int fd = open_beneath(root_fd, rel, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, "cannot open directory '%s'", shown(show, rel.len ? rel : span_cstr(".")));
	return fd;
}

void path_split(struct span rel, struct span *dir, struct span *name)
{
	size_t n = rel.len;
	while (n > 0 && rel.p[n - 1] != '/')
		n--;
	*dir = span_of(rel.p, n ? n - 1 : 0);
	*name = n ? span_of(rel.p + n, rel.len - n) : rel;
}

int path_parent(int root_fd, struct span rel, char name[256], struct err *e)
{
	struct span dir, last;
	path_split(rel, &dir, &last);
	if (!name_is_sane(last) || (last.len < rel.len && dir.len == 0))
		return refuse(rel, e);
	int fd = path_dir(root_fd, dir, e);
	if (fd < 0)
		return -1;
	memcpy(name, last.p, last.len);
	name[last.len] = '\0';
	return fd;
}

int path_open(int root_fd, struct span rel, int flags, mode_t mode, struct err *e)
{
	char show[SHOWN];
	if (!is_sane(rel))
		return refuse(rel, e);
	int fd = open_beneath(root_fd, rel, flags, mode);
	if (fd < 0)
		return err_sys(e, "cannot open '%s'", shown(show, rel.len ? rel : span_cstr(".")));
	return fd;
}

int path_open_at(int dirfd, const char *name, int flags, mode_t mode)
{
	if (!name_is_sane(span_cstr(name))) {
		errno = EINVAL;
		return -1;
	}
	return open_one(dirfd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, mode);
}

void path_push(struct buf *b, struct span name)
{
	if (b->len)
		buf_add(b, "/", 1);
	if (name.len)
		buf_add(b, name.p, name.len);
}

void path_pop(struct buf *b)
{
	while (b->len && b->p[b->len - 1] != '/')
		b->len--;
	if (b->len)
		b->len--;
}

#define CACHE_MAX 64

int path_is_inside(int fd, int in)
{
	struct stat top, st, up;
	int at = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC), rc = -1;

	if (at < 0 || fstat(in, &top) || fstat(at, &st))
		goto out;
	while (rc < 0) {
		if (st.st_dev == top.st_dev && st.st_ino == top.st_ino) {
			rc = 1;
			break;
		}
		int next = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (next < 0 || fstat(next, &up)) {
			close_fd(&next);
			break;
		}
		close_fd(&at);
		at = next;
		if (up.st_dev == st.st_dev && up.st_ino == st.st_ino) /* the root of all */
			rc = 0;
		st = up;
	}
out:
	close_fd(&at);
	return rc;
}

struct path_cache {
	int root_fd;
	struct graft {
		const char *name;
		int fd;
	} *grafts;
	size_t n_grafts, n;
	struct cached {
		struct buf path;
		int fd;
	} slot[CACHE_MAX]; /* most recently used first */
};

struct path_cache *path_cache_new(int root_fd)
{
	struct path_cache *c = xalloc(sizeof(*c));
	c->root_fd = root_fd;
	return c;
}

/* rel is dir itself or lies below it. */
static bool is_below(struct span rel, struct span dir)
{
	if (dir.len == 0)
		return true;
	return rel.len >= dir.len && (rel.len == dir.len || rel.p[dir.len] == '/') && !memcmp(rel.p, dir.p, dir.len);
}

static void cache_front(struct path_cache *c, size_t i)
{
	struct cached hit = c->slot[i];
	memmove(&c->slot[1], &c->slot[0], i * sizeof(hit));
	c->slot[0] = hit;
}

void path_cache_graft(struct path_cache *c, const char *name, int fd)
{
	c->grafts = xrealloc(c->grafts, (c->n_grafts + 1) * sizeof *c->grafts);
	c->grafts[c->n_grafts++] = (struct graft){name, fd};
}

int path_cached(struct path_cache *c, struct span rel, struct err *e)
{
	int from = c->root_fd;
	size_t best = 0;
	for (size_t i = 0; i < c->n_grafts; i++)
		if (is_below(rel, span_cstr(c->grafts[i].name))) {
			best = strlen(c->grafts[i].name);
			from = c->grafts[i].fd;
		}
	if (rel.len == best)
		return from;
	for (size_t i = 0; i < c->n; i++) {
		const struct buf *p = &c->slot[i].path;
		if (p->len <= best || !is_below(rel, span_of(p->p, p->len)))
			continue;
		if (p->len == rel.len) {
			cache_front(c, i);
			return c->slot[0].fd;
		}
		best = p->len;
		from = c->slot[i].fd;
	}
	struct span rest = best ? span_of(rel.p + best + 1, rel.len - best - 1) : rel;
	int fd = path_dir(from, rest, e);
	if (fd < 0)
		return -1;
	if (c->n == CACHE_MAX) {
		c->n--;
		close(c->slot[c->n].fd);
		buf_free(&c->slot[c->n].path);
	}
	struct cached *s = &c->slot[c->n];
	*s = (struct cached){.fd = fd};
	buf_add(&s->path, rel.p, rel.len);
	cache_front(c, c->n++);
	return fd;
}

void path_cache_drop(struct path_cache *c, struct span rel)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->n; i++) {
		if (is_below(span_of(c->slot[i].path.p, c->slot[i].path.len), rel)) {
			close(c->slot[i].fd);
			buf_free(&c->slot[i].path);
		} else {
			c->slot[kept++] = c->slot[i];
		}
	}
	c->n = kept;
}

void path_cache_free(struct path_cache **c)
{
	if (!*c)
		return;
	path_cache_drop(*c, (struct span){0});
	free((*c)->grafts);
	free(*c);
	*c = NULL;
}

/*
 * Removing a tree. A stack of open directories, at most DEPTH_MAX of them: a directory that lies deeper is first
 * renamed into the top one, under a scratch name, and met again there. So the depth costs neither stack nor
 * descriptors, and we never need "..": a descriptor of the parent is always in hand.
 */
#define DEPTH_MAX 32
#define RESCANS_MAX 16

struct level {
	DIR *d;
	int fd; /* d's own */
	unsigned rescans;
	bool grew; /* something was moved here since the last scan began */
	char name[256];
};

struct removal {
	int dirfd; /* the caller's: its mode and flags are not ours to change */
	unsigned dev_major, dev_minor;
	unsigned scratch;
	size_t n;
	struct level level[DEPTH_MAX];
	struct err *e;
};

static int parent_of(const struct removal *r)
{
	return r->n > 1 ? r->level[r->n - 2].fd : r->dirfd;
}

static int remove_failed(const struct removal *r, const char *name)
{
	char show[SHOWN], top[SHOWN];
	shown(show, span_cstr(name));
	if (r->n == 0 || !strcmp(name, r->level[0].name))
		return err_sys(r->e, "cannot remove '%s'", show);
	return err_sys(r->e, "cannot remove '%s' below '%s'", show, shown(top, span_cstr(r->level[0].name)));
}

/* An immutable or append-only object cannot be unlinked or moved. Only regular files and directories are opened. */
static bool unlock_child(int fd, const char *name)
{
	struct stat st;
	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return false;
	int child = path_open_at(fd, name, O_RDONLY, 0);
	if (child < 0)
		return false;
	bool done = inode_unlock(child);
	close(child);
	return done;
}

/* Something was in the way (errno): takes it away if it is ours to take, and says whether another try is worth it.
 * glibc's fchmodat pins the object and refuses links, so that a swapped name leads nowhere. */
static bool clear_way(const struct removal *r, int fd, const char *name, bool is_child_dir)
{
	int sys = errno;
	bool again = false;
	if (sys == EACCES) {
		struct stat st;
		if (fd != r->dirfd && !fstat(fd, &st) && (st.st_mode & 0700) != 0700)
			again = !fchmod(fd, 0700);
		/* A directory that moves has its ".." rewritten: it must be writable itself. */
		if (is_child_dir && !fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) && S_ISDIR(st.st_mode) &&
			(st.st_mode & 0700) != 0700)
			again |= !fchmodat(fd, name, 0700, AT_SYMLINK_NOFOLLOW);
	} else if (sys == EPERM) {
		if (fd != r->dirfd)
			again = inode_unlock(fd);
		again |= unlock_child(fd, name);
	}
	errno = sys;
	return again;
}

/* 0: it is gone. */
static int unlink_hard(const struct removal *r, int fd, const char *name, int flags)
{
	for (int tries = 0;; tries++) {
		if (!unlinkat(fd, name, flags) || errno == ENOENT)
			return 0;
		if (tries == 2 || !clear_way(r, fd, name, false))
			return -1;
	}
}

static int check_mount(struct removal *r, int fd, const char *name, bool is_top)
{
	struct statx sx;
	char show[SHOWN];
	if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx))
		return remove_failed(r, name);
	if (sx.stx_dev_major == r->dev_major && sx.stx_dev_minor == r->dev_minor &&
		!(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return 0;
	errno = EXDEV;
	return err_sys(r->e, "will not remove '%s'%s", shown(show, span_cstr(name)),
		is_top ? "" : ", found in what was to be removed");
}

/* Opens a directory below the one on top of the stack and puts it there. 0 also when it vanished. */
static int descend(struct removal *r, int parent, const char *name)
{
	int fd;
	for (int tries = 0;; tries++) {
		fd = path_open_at(parent, name, O_RDONLY | O_DIRECTORY, 0);
		if (fd >= 0 || errno == ENOENT || tries == 2 || !clear_way(r, parent, name, true))
			break;
	}
	/* Gone, or swapped for something else: the next scan of the parent meets what is there now. */
	if (fd < 0)
		return errno == ENOENT || (r->n > 0 && (errno == ENOTDIR || errno == ELOOP)) ? 0
											     : remove_failed(r, name);
	if (check_mount(r, fd, name, r->n == 0)) {
		close(fd);
		return -1;
	}
	DIR *d = fdopendir(fd);
	if (!d) {
		close_keep(fd);
		return remove_failed(r, name);
	}
	struct level *l = &r->level[r->n++];
	*l = (struct level){.d = d, .fd = fd};
	snprintf(l->name, sizeof(l->name), "%s", name);
	return 0;
}

/* Whatever carries the scratch name in the top directory is to be removed too, so a rename over it does no harm. */
static int lift(struct removal *r, int fd, const char *name)
{
	char to[40];
	int tries = 0;
	for (;;) {
		snprintf(to, sizeof(to), ".repl-remove-%u", r->scratch);
		if (!renameat(fd, name, r->level[0].fd, to)) {
			r->scratch++;
			r->level[0].grew = true;
			return 0;
		}
		if (errno == ENOENT)
			return 0;
		if (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) {
			r->scratch++;
		} else {
			bool again = clear_way(r, fd, name, true);
			int sys = errno;
			if (sys == EACCES || sys == EPERM) { /* the top directory, too, has to be written */
				struct stat st;
				if (sys == EPERM)
					again |= inode_unlock(r->level[0].fd);
				else if (!fstat(r->level[0].fd, &st) && (st.st_mode & 0700) != 0700)
					again |= !fchmod(r->level[0].fd, 0700);
			}
			errno = sys;
			if (++tries > 3 || !again)
				return remove_failed(r, name);
		}
	}
}

static int remove_entry(struct removal *r, struct level *l, const struct dirent *de)
{
	const char *name = de->d_name;
	if (de->d_type != DT_DIR) {
		if (!unlink_hard(r, l->fd, name, 0))
			return 0;
		if (errno != EISDIR)
			return remove_failed(r, name);
	}
	if (!unlink_hard(r, l->fd, name, AT_REMOVEDIR) || errno == ENOTDIR)
		return 0;
	if (errno != ENOTEMPTY && errno != EEXIST && errno != EACCES)
		return remove_failed(r, name);
	return r->n == DEPTH_MAX ? lift(r, l->fd, name) : descend(r, l->fd, name);
}

/* The scan of the top of the stack is over: its directory should be empty now. */
static int ascend(struct removal *r)
{
	struct level *l = &r->level[r->n - 1];
	if (!unlink_hard(r, parent_of(r), l->name, AT_REMOVEDIR)) {
		closedir(l->d);
		r->n--;
		return 0;
	}
	if (errno != ENOTEMPTY && errno != EEXIST)
		return remove_failed(r, l->name);
	/* What was lifted here, or what somebody else made meanwhile; the latter not for ever. */
	if (!l->grew && ++l->rescans > RESCANS_MAX)
		return remove_failed(r, l->name);
	l->grew = false;
	rewinddir(l->d);
	return 0;
}

static int remove_tree(struct removal *r, const char *name)
{
	struct statx sx;
	if (statx(r->dirfd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &sx))
		return remove_failed(r, name);
	r->dev_major = sx.stx_dev_major;
	r->dev_minor = sx.stx_dev_minor;
	if (descend(r, r->dirfd, name))
		return -1;
	while (r->n) {
		struct level *l = &r->level[r->n - 1];
		errno = 0;
		const struct dirent *de = readdir(l->d);
		if (!de && errno)
			return remove_failed(r, l->name);
		if (!de) {
			if (ascend(r))
				return -1;
		} else if (!file_is_dots(de->d_name)) {
			if (remove_entry(r, l, de))
				return -1;
		}
	}
	return 0;
}

int path_remove(int dirfd, const char *name, struct err *e)
{
	struct removal r = {.dirfd = dirfd, .e = e};
	if (!name_is_sane(span_cstr(name)))
		return refuse(span_cstr(name), e);
	if (!unlink_hard(&r, dirfd, name, 0))
		return 0;
	if (errno != EISDIR)
		return remove_failed(&r, name);
	int rc = 0;
	if (unlink_hard(&r, dirfd, name, AT_REMOVEDIR))
		rc = errno == ENOTEMPTY || errno == EEXIST || errno == EACCES || errno == EBUSY ? remove_tree(&r, name)
											      : remove_failed(&r, name);
	while (r.n)
		closedir(r.level[--r.n].d);
	return rc;
}
