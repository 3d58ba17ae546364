#include "replica.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "content.h"
#include "path.h"
#include "pool.h"
#include "subvol.h"

char *replica_file(const struct replica *r, const char *name)
{
	AUTO_BUF struct buf b = {0};

	buf_fmt(&b, "%s/" REPLICA_CTL "/%s", r->path, name);
	return xstrdup(buf_cstr(&b));
}

bool replica_has(const struct replica *r, const char *name)
{
	return r->ctl >= 0 && faccessat(r->ctl, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Those who only read leave no number, and whoever changed it wiped theirs. */
static int lock_failed(const struct replica *r, struct err *e)
{
	char who[32] = "";

	if (errno != EWOULDBLOCK)
		return err_sys(e, "cannot lock '%s'", r->path);
	ssize_t n = pread(r->lock, who, sizeof who - 1, 0);
	who[n > 0 ? (size_t)n : 0] = 0;
	return err_set(e, ERR_BUSY, who[0] ? "the replica '%s' is being changed by process %s: try again later" :
		"the replica '%s' is being read by another program%s: try again later", r->path, who);
}

int replica_share(struct replica *r, struct err *e)
{
	r->lock = openat(r->ctl, "lock", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (r->lock < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open the lock of '%s'", r->path);
	return flock(r->lock, LOCK_SH | LOCK_NB) ? lock_failed(r, e) : 0;
}

static int take_lock(struct replica *r, struct err *e)
{
	r->lock = openat(r->ctl, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (r->lock < 0)
		return err_sys(e, "cannot open the lock of '%s'", r->path);
	if (flock(r->lock, LOCK_EX | LOCK_NB))
		return lock_failed(r, e);
	char me[32];
	int n = snprintf(me, sizeof me, "%ld", (long)getpid());
	if (ftruncate(r->lock, 0) || pwrite(r->lock, me, (size_t)n, 0) != n)
		return err_sys(e, "cannot write the lock of '%s'", r->path);
	return 0;
}

int replica_open(struct replica *r, const char *path, enum replica_open how, struct err *e)
{
	struct where where = r->where;

	*r = (struct replica)REPLICA_CLOSED;
	r->where = where;
	r->read_only = how == REPLICA_READ;
	r->path = xstrdup(path);
	if (where_load(&r->where, path, e))
		return -1;
	r->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r->root < 0 && errno == ENOENT && how == REPLICA_APPLY) {
		if (mkdir(path, 0700))
			return err_sys(e, "cannot make the replica '%s'", path);
		r->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	if (r->root < 0)
		return err_sys(e, "cannot open the replica '%s'", path);
	r->ctl = openat(r->root, REPLICA_CTL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (r->ctl < 0 && errno != ENOENT)
		return err_sys(e, "cannot open '%s/" REPLICA_CTL "'", path);
	bool has = replica_has(r, "catalog");
	if (!has && (how == REPLICA_READ || how == REPLICA_CHANGE))
		return err_set(e, ERR_REFUSED, "'%s' is not a replica: it has no catalog; repl-apply --adopt takes a directory as it is", path);
	if (how == REPLICA_READ)
		return room_at(&r->room, "", r->path, r->root, r->ctl, e);
	if (!has) {
		int empty = room_is_empty_dir(r->root);
		if (empty < 0)
			return err_sys(e, "cannot read '%s'", path);
		if (!empty && how != REPLICA_ADOPT)
			return err_set(e, ERR_REFUSED, "'%s' has content but no catalog: --adopt takes it as it is, or name an "
				"empty directory", path);
	}
	if (r->ctl < 0) {
		if (mkdirat(r->root, REPLICA_CTL, 0700))
			return err_sys(e, "cannot make '%s/" REPLICA_CTL "'", path);
		r->ctl = openat(r->root, REPLICA_CTL, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (r->ctl < 0)
			return err_sys(e, "cannot open '%s/" REPLICA_CTL "'", path);
	}
	if (room_at(&r->room, "", r->path, r->root, r->ctl, e) || take_lock(r, e) || room_open(&r->room, e))
		return -1;
	return where_open(&r->where, true, !replica_has(r, "commit"), e);
}

/* ---- where things stand ---- */

const struct room *replica_room(const struct replica *r, struct span dir)
{
	struct span below;
	const struct where_row *row = where_tree(&r->where, dir, &below);

	return row ? &row->room : &r->room;
}

const struct room *replica_room_of(const struct replica *r, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	if (!r->where.has_tree)
		return &r->room;
	return catalog_object_path(r->cat, no, &path, e) ? NULL : replica_room(r, span_of(path.p, path.len));
}

struct room *replica_rooms(struct replica *r, size_t i)
{
	if (i == 0)
		return &r->room;
	for (size_t k = 0; k < r->where.n; k++)
		if (r->where.v[k].is_open && --i == 0)
			return &r->where.v[k].room;
	return NULL;
}

struct path_cache *replica_dirs(const struct replica *r)
{
	struct path_cache *c = path_cache_new(r->root);

	for (size_t i = 0; i < r->where.n; i++)
		if (r->where.v[i].is_tree)
			path_cache_graft(c, r->where.v[i].name, r->where.v[i].room.root);
	return c;
}

/* ---- the catalog ---- */

/* On the control directory: an id. The file is not enough of a witness for itself. */
#define LANDED "user.repl.image"

/* Where attributes cannot be kept, or there is no room for one, nobody knows what was landed last. */
static int note_landed(const struct replica *r, const struct digest *id, struct err *e)
{
	if (id && fsetxattr(r->ctl, LANDED, id->b, sizeof id->b, 0) == 0)
		return 0;
	if (fremovexattr(r->ctl, LANDED) && errno != ENODATA && errno != ENOTSUP)
		return err_sys(e, "cannot note in '%s/" REPLICA_CTL "' which image is in place", r->path);
	return 0;
}

int replica_landed(const struct replica *r, struct err *e)
{
	struct digest id;

	return catalog_id(r->cat, &id, e) || note_landed(r, &id, e) ? -1 : 0;
}

/* It comes into being whole, whenever we are killed. */
static int make_catalog(struct replica *r, const char *path, struct err *e)
{
	AUTO_FREE char *new = replica_file(r, "catalog.new");

	if (replica_drop(r, "catalog.new", e) || note_landed(r, NULL, e) || catalog_open(&r->cat, new, CATALOG_LIVE, e))
		return -1;
	catalog_close(&r->cat);
	return rename(new, path) || fsync(r->ctl) ? err_sys(e, "cannot make '%s'", path) : 0;
}

/* Between the two nobody knows what was landed last. */
int replica_replace(const struct replica *r, const struct digest *id, struct err *e)
{
	if (note_landed(r, NULL, e))
		return -1;
	if (renameat(r->ctl, "next", r->ctl, "catalog"))
		return err_sys(e, "cannot write the catalog of '%s'", r->path);
	if (note_landed(r, id, e))
		return -1;
	return fsync(r->ctl) ? err_sys(e, "cannot write the catalog of '%s'", r->path) : 0;
}

static int is_landed(const struct replica *r, struct err *e)
{
	struct digest id, was;

	if (catalog_id(r->cat, &id, e))
		return -1;
	if (replica_has(r, "commit") || fgetxattr(r->ctl, LANDED, was.b, sizeof was.b) != (ssize_t)sizeof was.b ||
			digest_eq(&id, &was))
		return 0;
	return catalog_damaged(r->cat, "it is of another image than was landed last, such as an older copy is", e);
}

int replica_catalog(struct replica *r, enum catalog_mode mode, struct err *e)
{
	AUTO_FREE char *path = replica_file(r, "catalog");

	catalog_close(&r->cat);
	if (mode == CATALOG_LIVE && !replica_has(r, "catalog") && make_catalog(r, path, e))
		return -1;
	return catalog_open_at(&r->cat, path, mode, REPLICA_ADVICE, e) || is_landed(r, e) ? -1 : 0;
}

void replica_close(struct replica *r)
{
	catalog_close(&r->cat);
	where_free(&r->where);
	if (r->lock >= 0 && !r->read_only && ftruncate(r->lock, 0)) /* only for the eye: the lock goes with the descriptor */
		errno = 0;
	room_close(&r->room);
	close_fd(&r->lock);
	close_fd(&r->ctl);
	close_fd(&r->root);
	free(r->path);
	r->path = NULL;
}

int replica_drop(const struct replica *r, const char *name, struct err *e)
{
	if (unlinkat(r->ctl, name, 0) == 0 || errno == ENOENT)
		return 0;
	int sys = errno;
	if (sys == EISDIR && subvol_remove(r->ctl, name) == 0)
		return 0;
	errno = sys;
	return err_sys(e, "cannot remove '%s/" REPLICA_CTL "/%s'", r->path, name);
}

/* In the snapshot the catalog is all that counts of .repl; what is staged for the next image would only take room. */
static int strip(const struct replica *r, struct err *e)
{
	static const char *const rest[] = {"stage", "slots", "plan", "next"};
	AUTO_CLOSE int root = path_open_at(r->ctl, "undo", O_RDONLY | O_DIRECTORY, 0);
	AUTO_CLOSE int ctl = root < 0 ? -1 : path_open_at(root, REPLICA_CTL, O_RDONLY | O_DIRECTORY, 0);

	if (ctl < 0)
		return err_sys(e, "cannot open the snapshot of '%s'", r->path);
	for (size_t i = 0; i < sizeof rest / sizeof *rest; i++)
		if (path_remove(ctl, rest[i], e))
			return -1;
	return 0;
}

int replica_snapshot(const struct replica *r, struct err *e)
{
	if (!subvol_is(r->root) || r->where.n)
		return 0;
	if (replica_drop(r, "undo", e))
		return -1;
	if (subvol_snapshot(r->root, r->ctl, "undo", false))
		return err_sys(e, "cannot take a snapshot of '%s'", r->path);
	return strip(r, e) ? -1 : 1;
}

/* partial goes first, for good: it speaks of what goes after it. */
int replica_discard(struct replica *r, struct err *e)
{
	if (replica_has(r, "partial") && (replica_drop(r, "partial", e) || fsync(r->ctl)))
		return err_sys(e, "cannot make '%s/" REPLICA_CTL "' durable", r->path);
	/* Files first: on a full disk there is no room to make the directories again before something else is gone. */
	if (replica_drop(r, "plan", e) || replica_drop(r, "next", e) || replica_drop(r, "undo", e) || replica_drop(r, "edits", e) ||
			replica_drop(r, "policy", e))
		return -1;
	struct room *m;
	for (size_t i = 0; (m = replica_rooms(r, i)); i++)
		if (room_empty(m, e))
			return -1;
	return 0;
}

int replica_sync(struct replica *r, struct err *e)
{
	if (where_sync(&r->where, e))
		return -1;
	/* One call for all that was staged or renamed; it reports write-back errors since Linux 5.8 (syncfs(2)). */
	return syncfs(r->ctl) ? err_sys(e, "cannot make '%s' durable", r->path) : 0;
}

bool replica_is_touched(const struct object *o, const struct attr *a)
{
	const struct r_hint *h = &o->hint, *now = &a->hint;

	return h->ino != now->ino || h->btime_s != now->btime_s || h->btime_ns != now->btime_ns ||
		h->ctime_s != now->ctime_s || h->ctime_ns != now->ctime_ns;
}

int replica_is_intact(const struct object *o, const struct attr *a, int fd, struct err *e)
{
	struct content_file f = {.fd = fd, .size = a->size, .grain = content_grain(a->size), .only_digest = true};
	struct content c = {0};

	if (a->type != OBJ_FILE || a->size != o->size)
		return 0;
	if (!replica_is_touched(o, a))
		return 1;
	c.window.threads = pool_threads(0);
	int rc = content_run(&c, &f, e);
	content_free(&c);
	if (rc)
		return f.is_short ? 0 : -1;
	return digest_eq(&f.digest, &o->content);
}

struct where_row *replica_elsewhere(const struct replica *r, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	if (!r->where.n || catalog_object_path(r->cat, no, &path, e))
		return NULL;
	return where_find(&r->where, span_of(path.p, path.len));
}

/* Somebody may have put a smaller device there. */
static int open_elsewhere(struct where_row *row, const struct object *o, struct err *e)
{
	return where_fits(row, o->size, e) ? -1 : where_read(row, e);
}

/* By one of its names. The file, owned; -1: it is not there as it was, unless e says more. */
static int open_intact(struct replica *r, const struct object *o, struct span path, struct err *e)
{
	struct attr a = {0};
	struct err why = {0};
	struct span below = path;
	const struct where_row *tree = where_tree(&r->where, path, &below);
	int fd = path_open(tree ? tree->room.root : r->root, below, O_RDONLY, 0, &why), intact = 0;

	if (fd < 0 && !path_is_gone(why.sys))
		*e = why;
	if (fd >= 0)
		intact = attr_stat(&a, fd, NULL, e) ? -1 : replica_is_intact(o, &a, fd, e);
	attr_free(&a);
	if (intact != 1)
		close_fd(&fd);
	return fd;
}

int replica_open_base(struct replica *r, const struct object *o, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	struct catalog_names n = {0};
	char text[512];
	int fd = -1, got = 0;

	if (catalog_object_path(r->cat, o->no, &path, e))
		return -1;
	struct where_row *row = where_find(&r->where, span_of(path.p, path.len));
	if (row)
		return open_elsewhere(row, o, e);
	fd = open_intact(r, o, span_of(path.p, path.len), e);
	/* Its other names, where that one was edited or could not be made. */
	catalog_names_start(&n, r->cat, o->no);
	while (fd < 0 && !e->kind && o->nlink > 1 && (got = catalog_names_next(&n, e)) == 1) {
		AUTO_BUF struct buf other = {0};
		if (!catalog_path(r->cat, n.dir, n.name, &other, e))
			fd = open_intact(r, o, span_of(other.p, other.len), e);
	}
	catalog_names_free(&n);
	if (fd >= 0 || e->kind || got < 0)
		return fd;
	return err_set(e, ERR_REFUSED, "'%s' was edited on the replica, and the delta needs what was there: mend it first, see repl(7)",
		esc_cut(text, sizeof text, span_of(path.p, path.len)));
}
