#include "verify.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "changes.h"
#include "content.h"
#include "fit.h"
#include "image.h"
#include "path.h"
#include "pool.h"

#define RING 256u       /* names under way: bounds memory and open files */
#define MAX_THREADS 64u

const char *verify_kind_name(enum verify_kind k)
{
	static const char *const names[] = {"same", "edited", "rot", "missing", "stray", "metadata"};

	return names[k];
}

/* One name on its way from the scan to the report. */
struct item {
	enum { NAME, ENTER, LEAVE } event;
	struct buf path;
	uint64_t dir;        /* ENTER: what the catalog has there */
	struct object want;
	struct attr is;
	int fd;              /* of a file to be read */
	/* found */
	enum verify_kind kind;
	uint8_t flags;       /* for the change stream */
	bool is_itself;      /* a difference of the entered directory */
	bool is_elsewhere;   /* a volume, or a copy for a hard link: nobody keeps its metadata */
	bool is_unread, is_kept_otherwise;
	uint64_t bytes;
	char detail[200];
	bool is_taken, is_done;
};

struct job {
	struct verify *v;
	struct replica r;
	struct path_cache *dirs;
	struct changes_out out;
	struct buf dir;      /* path of the directory that the scan is in */
	/* a name that is gone, held back: the tree may have something else there */
	bool has_gone;
	struct buf gone;
	uint64_t gone_no;
	bool has_copies;     /* there may be no hard links on this filesystem */
	bool is_aside;       /* inside something that is none of our business */
	/* what happens on other threads: items from `work` on were not looked at by them */
	pthread_mutex_t lock;
	pthread_cond_t more, done;
	struct item ring[RING];
	uint64_t head, work, tail;
	bool is_over;
	pthread_t threads[MAX_THREADS];
	unsigned n_threads;
	struct content content; /* of the caller's thread */
};

/* ---- one object against the catalog ---- */

static void add_word(struct item *it, const char *word)
{
	size_t n = strlen(it->detail);

	snprintf(it->detail + n, sizeof it->detail - n, "%s%s", n ? ", " : "", word);
}

/* Without privilege some attributes cannot even be seen. */
static bool next_visible(struct rd *rows, struct span *name, struct span *value)
{
	while (xattr_next(rows, name, value))
		if (!geteuid() || (name->len > 5 && !memcmp(name->p, "user.", 5)))
			return true;
	return false;
}

static bool same_xattrs(struct span a, struct span b)
{
	struct rd x = rd_of(a.p, a.len), y = rd_of(b.p, b.len);
	struct span nx, vx, ny, vy;

	for (;;) {
		bool more = next_visible(&x, &nx, &vx);
		if (more != next_visible(&y, &ny, &vy))
			return false;
		if (!more)
			return true;
		if (!span_eq(nx, ny) || !span_eq(vx, vy))
			return false;
	}
}

static void judge_meta(const struct job *j, struct item *it)
{
	const struct r_meta *a = &it->want.meta, *b = &it->is.meta;
	const struct verify *v = j->v;
	bool no_owner = v->any_owner || v->land.policy.no_owner || geteuid();
	uint16_t modes = no_owner || v->land.policy.no_setuid ? 01777 : 07777;

	if ((a->mode & modes) != (b->mode & modes))
		add_word(it, "mode");
	if (!no_owner && (a->uid != b->uid || a->gid != b->gid))
		add_word(it, "owner");
	if (a->mtime_s != b->mtime_s || a->mtime_ns != b->mtime_ns)
		add_word(it, "time");
	if (a->attr != b->attr)
		add_word(it, "attributes");
	if (!same_xattrs(a->xattrs, b->xattrs))
		add_word(it, "extended attributes");
	if (!span_eq(a->target, b->target))
		add_word(it, "target");
	if (a->major != b->major || a->minor != b->minor)
		add_word(it, "device number");
	if (!it->detail[0])
		return;
	if (replica_is_touched(&it->want, &it->is)) {
		it->kind = VERIFY_METADATA;
		it->flags |= CHANGED_META;
	} else {
		it->is_kept_otherwise = true;
	}
}

static bool is_damage(int sys) { return sys == EIO || sys == EUCLEAN || sys == EBADMSG || sys == EILSEQ; }

static void not_read(struct item *it, int sys)
{
	if (is_damage(sys))
		it->kind = VERIFY_ROT;
	else
		it->is_unread = true;
	snprintf(it->detail, sizeof it->detail, "cannot be read: %s", strerror(sys));
}

static void judge_content(struct item *it, struct content *c)
{
	struct content_file f = {.fd = it->fd, .size = it->is.size, .grain = content_grain(it->is.size), .only_digest = true};
	struct err why = {0};
	bool touched = it->is_elsewhere || replica_is_touched(&it->want, &it->is);
	bool same_time = it->want.meta.mtime_s == it->is.meta.mtime_s && it->want.meta.mtime_ns == it->is.meta.mtime_ns;

	if (it->is.size != it->want.size) {
		it->kind = touched ? VERIFY_EDITED : VERIFY_ROT;
		snprintf(it->detail, sizeof it->detail, "%llu bytes, not %llu", (unsigned long long)it->is.size,
			(unsigned long long)it->want.size);
		return;
	}
	/* What the memory still holds says little about the disk. */
	posix_fadvise(it->fd, 0, 0, POSIX_FADV_DONTNEED);
	if (content_run(c, &f, &why)) {
		if (f.is_short)
			it->kind = VERIFY_EDITED;
		else
			not_read(it, why.sys);
		return;
	}
	it->bytes = f.size;
	if (digest_eq(&f.digest, &it->want.content))
		return;
	it->kind = touched ? VERIFY_EDITED : VERIFY_ROT;
	snprintf(it->detail, sizeof it->detail, "content%s", !touched ? ", and nothing wrote to it" :
		same_time ? "; its time was set back, or it came here from elsewhere" : "");
}

/* A file, on any thread. */
static void judge_file(const struct job *j, struct item *it, struct content *c)
{
	struct err why = {0};

	judge_content(it, c);
	if (it->kind == VERIFY_SAME && !it->is_unread) {
		if (it->is_elsewhere)
			;
		else if (attr_rest(&it->is, it->fd, NULL, j->v->warn, &why))
			not_read(it, why.sys);
		else
			judge_meta(j, it);
	}
	close_fd(&it->fd);
}

/* ---- threads ---- */

/* The next file that nobody reads; NULL: none. Call with the lock held. */
static struct item *take(struct job *j)
{
	for (; j->work < j->tail; j->work++) {
		struct item *it = &j->ring[j->work % RING];
		if (it->is_taken || it->is_done)
			continue;
		it->is_taken = true;
		j->work++;
		return it;
	}
	return NULL;
}

/* Call with the lock held. */
static void work_on(struct job *j, struct item *it, struct content *c)
{
	pthread_mutex_unlock(&j->lock);
	judge_file(j, it, c);
	pthread_mutex_lock(&j->lock);
	it->is_done = true;
	pthread_cond_signal(&j->done);
}

static void *worker(void *ctx)
{
	struct job *j = ctx;
	struct content c = {0};

	pthread_mutex_lock(&j->lock);
	while (!j->is_over) {
		struct item *it = take(j);
		if (it)
			work_on(j, it, &c);
		else
			pthread_cond_wait(&j->more, &j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	content_free(&c);
	return NULL;
}

static void start_threads(struct job *j)
{
	unsigned n = pool_threads(j->v->threads);
	struct err why = {0};

	if (n < 2)
		return;
	while (j->n_threads < n && j->n_threads < MAX_THREADS && !pool_thread(&j->threads[j->n_threads], worker, j, &why))
		j->n_threads++; /* fewer will do, and none as well */
}

static void stop_threads(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	j->is_over = true;
	pthread_cond_broadcast(&j->more);
	pthread_mutex_unlock(&j->lock);
	for (unsigned i = 0; i < j->n_threads; i++)
		pool_join(j->threads[i]);
}

/* ---- reporting, in order ---- */

static int report(struct job *j, struct item *it, struct err *e)
{
	struct verify *v = j->v;
	struct span path = span_of(it->path.p, it->path.len), dir, name = {0};
	char text[512];

	v->bytes += it->bytes;
	v->kept_otherwise += it->is_kept_otherwise;
	if (v->progress)
		v->progress(v->ctx, v->bytes, v->entries);
	if (it->event == LEAVE) {
		changes_leave(&j->out);
		return 0;
	}
	if (path.len)
		path_split(path, &dir, &name);
	if (it->event == ENTER)
		changes_enter(&j->out, name, it->dir);
	if (it->is_unread)
		warn_say(v->warn, "unreadable", "'%s' %s", esc_cut(text, sizeof text, path), it->detail);
	if (it->kind == VERIFY_SAME)
		return 0;
	v->counts[it->kind]++;
	v->differs_any = true;
	v->differs(v->ctx, it->kind, path, it->detail);
	return v->wanted ? changes_put(&j->out, it->flags, it->is_itself ? (struct span){0} : name, e) : 0;
}

/* Reports the oldest item as soon as it is done. */
static int shift(struct job *j, struct err *e)
{
	struct item *it = &j->ring[j->head % RING], *mine;

	pthread_mutex_lock(&j->lock);
	while (!it->is_done) {
		if ((mine = j->n_threads ? NULL : take(j)))
			work_on(j, mine, &j->content);
		else
			pthread_cond_wait(&j->done, &j->lock);
	}
	pthread_mutex_unlock(&j->lock);
	int rc = report(j, it, e);
	j->head++;
	return rc;
}

/* The next free item, which only the caller sees until it is pushed. */
static struct item *fresh(struct job *j, struct span path, struct err *e)
{
	struct item *it = &j->ring[j->tail % RING];

	if (j->tail - j->head == RING && shift(j, e))
		return NULL;
	it->event = NAME;
	buf_reset(&it->path);
	buf_add(&it->path, path.p, path.len);
	it->dir = it->bytes = 0;
	it->fd = -1;
	it->kind = VERIFY_SAME;
	it->flags = CHANGED_WANTED;
	it->is_itself = it->is_elsewhere = it->is_unread = it->is_kept_otherwise = it->is_taken = false;
	it->is_done = true;
	it->detail[0] = '\0';
	return it;
}

static void push(struct job *j)
{
	pthread_mutex_lock(&j->lock);
	if (!j->ring[j->tail++ % RING].is_done)
		pthread_cond_signal(&j->more);
	pthread_mutex_unlock(&j->lock);
}

static int push_plain(struct job *j, struct span path, enum verify_kind kind, uint8_t flags, const char *detail, struct err *e)
{
	struct item *it = fresh(j, path, e);

	if (!it)
		return -1;
	it->kind = kind;
	it->flags = flags;
	snprintf(it->detail, sizeof it->detail, "%s", detail);
	push(j);
	return 0;
}

/* ---- what the scan says ---- */

/* Nodes and links that could not be made here were acknowledged as a loss, and never had a hint. */
static bool was_never_made(const struct object *o)
{
	return !o->hint.ino && o->type != OBJ_FILE && o->type != OBJ_DIR;
}

static int flush_gone(struct job *j, struct err *e)
{
	struct object o = {0};

	if (!j->has_gone)
		return 0;
	j->has_gone = false;
	int got = catalog_get(j->r.cat, j->gone_no, &o, e);
	bool is_dir = o.type == OBJ_DIR, is_loss = got == 1 && was_never_made(&o);
	object_free(&o);
	if (got < 0)
		return -1;
	if (is_loss) {
		j->v->kept_otherwise++;
		return 0;
	}
	return push_plain(j, span_of(j->gone.p, j->gone.len), VERIFY_MISSING,
		is_dir ? CHANGED_WANTED | CHANGED_SUBTREE : CHANGED_WANTED, is_dir ? "with all in it" : "", e);
}

static int on_elsewhere(struct job *j, struct where_row *row, uint64_t no, struct err *e);

static int on_gone(void *ctx, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct job *j = ctx;

	if (flush_gone(j, e))
		return -1;
	/* What has its name here is a link, or nothing. */
	struct where_row *row = dir == CATALOG_ROOT ? where_find(&j->r.where, name) : NULL;
	if (row)
		return on_elsewhere(j, row, no, e);
	buf_reset(&j->gone);
	buf_add(&j->gone, j->dir.p, j->dir.len);
	path_push(&j->gone, name);
	j->gone_no = no;
	j->has_gone = true;
	return 0;
}

/* What stands there is not the catalog's object; it may have none there at all. */
static int on_other(struct job *j, const struct scan_item *si, struct err *e)
{
	struct object o = {0};
	char detail[100];
	int got = si->prior ? catalog_get(j->r.cat, si->prior, &o, e) : 0;
	uint8_t type = o.type;

	object_free(&o);
	if (got < 0)
		return -1;
	if (!got)
		return push_plain(j, si->path, VERIFY_STRAY, CHANGED_STRAY, si->kind == SCAN_ENTER ? "with all in it" : "", e);
	if (type == si->attr->type)
		snprintf(detail, sizeof detail, "is not one file with the names that it should share");
	else
		snprintf(detail, sizeof detail, "is of type %s, not %s", obj_type_name(si->attr->type), obj_type_name(type));
	return push_plain(j, si->path, VERIFY_EDITED, type == OBJ_DIR ? CHANGED_WANTED | CHANGED_SUBTREE : CHANGED_WANTED,
		detail, e);
}

/* Metadata is looked at here, and a file is opened for whoever reads it. */
static int look(struct job *j, const struct scan_item *si, struct item *it, struct err *e)
{
	struct attr *a = &it->is;
	struct span dir, name;
	char c_name[REC_NAME_MAX + 1] = "";
	struct err why = {0};
	bool is_dir = si->kind == SCAN_ENTER;

	path_split(si->path, &dir, &name);
	int at = path_cached(j->dirs, is_dir ? si->path : dir, &why);
	if (at < 0) {
		not_read(it, why.sys);
		return 0;
	}
	if (name.len)
		span_name(c_name, name);
	if (attr_stat(a, at, is_dir ? NULL : c_name, &why)) {
		not_read(it, why.sys);
		return 0;
	}
	if (a->type != it->want.type)
		return err_set(e, ERR_BUSY, "the replica '%s' is being changed while it is read", j->v->path);
	if (a->type == OBJ_FILE) {
		it->fd = path_open_at(at, c_name, O_RDONLY, 0);
		if (it->fd < 0)
			not_read(it, errno);
		else
			it->is_done = false;
	} else if (attr_rest(a, at, is_dir ? NULL : c_name, j->v->warn, &why)) {
		not_read(it, why.sys);
	} else {
		judge_meta(j, it);
	}
	return 0;
}

static bool is_ours(const struct scan_item *si)
{
	return si->how == SCAN_SAME || si->how == SCAN_SUSPECT;
}

static bool is_aside(const struct job *j, const struct scan_item *si)
{
	struct span below = si->path;

	/* What a fresh filesystem has is no content. */
	where_tree(&j->r.where, si->path, &below);
	return !is_ours(si) && !si->prior && span_eq(below, span_cstr("lost+found"));
}

static bool on_skip(void *ctx, const struct scan_item *si)
{
	struct job *j = ctx;

	return !is_ours(si) || j->is_aside;
}

static int leave(struct job *j, struct err *e)
{
	if (j->is_aside) {
		j->is_aside = false;
		return 0;
	}
	if (flush_gone(j, e))
		return -1;
	struct item *it = fresh(j, (struct span){0}, e);
	if (!it)
		return -1;
	it->event = LEAVE;
	push(j);
	path_pop(&j->dir);
	return 0;
}

/* What the catalog says of it, blocks included: of these a file itself tells nothing. */
static int look_up(struct job *j, uint64_t no, struct object *o, struct err *e)
{
	if (catalog_get(j->r.cat, no, o, e) != 1)
		return catalog_damaged(j->r.cat, "it lacks an object that it should have", e);
	int fit = o->type == OBJ_FILE ? content_rows_fit(j->r.cat, o, e) : 1;
	return fit ? (fit < 0 ? -1 : 0) : catalog_damaged(j->r.cat, "the blocks of a file do not make its digest", e);
}

/* A volume that stands elsewhere. */
static int on_volume(struct job *j, struct where_row *row, uint64_t no, struct err *e)
{
	struct item *it = fresh(j, span_cstr(row->name), e);
	struct err why = {0};
	struct attr a = {.type = OBJ_FILE};

	if (!it)
		return -1;
	j->v->entries++;
	if (look_up(j, no, &it->want, e))
		return -1;
	j->v->files++;
	it->is_elsewhere = true;
	it->fd = where_read(row, &why);
	off_t size = it->fd < 0 ? 0 : lseek(it->fd, 0, SEEK_END);
	attr_free(&it->is);
	it->is = a;
	/* A device may be larger. */
	it->is.size = where_fits(row, it->want.size, &(struct err){0}) || !row->is_device ? (uint64_t)size : it->want.size;
	if (it->fd < 0)
		not_read(it, why.sys);
	else
		it->is_done = false;
	push(j);
	return 0;
}

/* Where there are no hard links each of the names is a file of its own, of which the content is looked at. */
static bool is_copy(const struct job *j, const struct scan_item *si, uint64_t no)
{
	struct object o = {0};
	struct err ignored = {0};
	bool may_be = j->has_copies && no && si->attr->type == OBJ_FILE && si->attr->hint.nlink == 1 &&
		catalog_get(j->r.cat, no, &o, &ignored) == 1 && o.type == OBJ_FILE && o.nlink > 1;

	object_free(&o);
	return may_be;
}

/* The catalog's object `no`, at its place. */
static int on_object(struct job *j, const struct scan_item *si, uint64_t no, bool is_copy, struct err *e)
{
	struct item *it = fresh(j, si->path, e);

	if (!it)
		return -1;
	if (look_up(j, no, &it->want, e))
		return -1;
	it->is_elsewhere = is_copy;
	if (si->kind == SCAN_ENTER) {
		it->event = ENTER;
		it->dir = si->base;
		it->is_itself = true;
		buf_reset(&j->dir);
		buf_add(&j->dir, si->path.p, si->path.len);
	}
	j->v->files += it->want.type == OBJ_FILE;
	if (look(j, si, it, e))
		return -1;
	push(j);
	return 0;
}

static int on_ours(struct job *j, const struct scan_item *si, struct err *e)
{
	return on_object(j, si, si->base, is_copy(j, si, si->base), e);
}

/* Under the name of a member that does. What stands there hides it from nobody but others. */
static int on_its_name(struct job *j, const struct scan_item *si, struct where_row *row, struct err *e)
{
	if (is_ours(si) && on_elsewhere(j, row, si->base, e))
		return -1;
	j->is_aside = si->kind == SCAN_ENTER;
	return 0;
}

static int on_item(void *ctx, const struct scan_item *si, struct err *e)
{
	struct job *j = ctx;

	if (si->kind == SCAN_LEAVE)
		return leave(j, e);
	struct where_row *row = where_find(&j->r.where, si->path);
	j->v->entries += !row;
	if (j->has_gone && span_eq(span_of(j->gone.p, j->gone.len), si->path))
		j->has_gone = false; /* something else stands there */
	if (flush_gone(j, e))
		return -1;
	if (row)
		return on_its_name(j, si, row, e);
	if (!is_ours(si)) {
		j->is_aside = si->kind == SCAN_ENTER;
		return is_aside(j, si) ? 0 : is_copy(j, si, si->prior) ? on_object(j, si, si->prior, true, e) : on_other(j, si, e);
	}
	return si->again ? 0 : on_ours(j, si, e);
}

/* ---- the whole ---- */

static struct scan scan_for(struct job *j, const uint64_t *dev)
{
	return (struct scan){.base = j->r.cat, .root_dev = dev, .threads = j->v->threads, .by_name = true, .tmpdir = j->v->tmpdir,
		.warn = j->v->warn, .item = on_item, .gone = on_gone, .skip = on_skip, .ctx = j};
}

/* What stands there goes on in the order of the replica, as if it were in it. */
static int on_tree(struct job *j, const struct where_row *row, uint64_t no, struct err *e)
{
	struct attr a = {0};
	struct span name = span_cstr(row->name);
	struct scan_item top = {.kind = SCAN_ENTER, .how = SCAN_SAME, .base = no, .name = name, .path = name, .attr = &a};
	bool unsure = false, had_copies = j->has_copies;

	j->v->entries++;
	j->has_copies = !fit_takes_all(row->room.root);
	int rc = attr_stat(&a, row->room.root, NULL, e) || on_ours(j, &top, e) ? -1 : 0;
	if (!rc) {
		struct scan s = scan_for(j, &row->room.dev);
		rc = scan_below(&s, row->room.root, &top, name, &unsure, e);
		scan_free(&s);
	}
	j->has_copies = had_copies;
	attr_free(&a);
	return rc ? -1 : leave(j, e);
}

static int on_elsewhere(struct job *j, struct where_row *row, uint64_t no, struct err *e)
{
	return row->is_tree ? on_tree(j, row, no, e) : on_volume(j, row, no, e);
}

static int scan_all(struct job *j, struct err *e)
{
	struct walk_root root = {"", j->r.root};
	struct attr a = {0};
	uint64_t dev;

	if (attr_stat(&a, j->r.root, NULL, e))
		return -1;
	dev = a.hint.dev;
	attr_free(&a);
	struct scan s = scan_for(j, &dev);
	int rc = scan_tree(&s, &root, 1, e);
	scan_free(&s);
	while (!rc && j->head < j->tail)
		rc = shift(j, e);
	return rc;
}

static int put_head(struct job *j, struct err *e)
{
	struct record r = {.type = REC_IMAGE};
	AUTO_BUF struct buf store = {0};
	AUTO_FREE char *real = realpath(j->v->path, NULL);

	if (image_stamps(j->r.cat, &r.u.image, &store, e) < 0 || catalog_id(j->r.cat, &r.u.image.id, e) ||
			stream_begin(j->v->wanted, KIND_CHANGE, e) || stream_put(j->v->wanted, &r, e))
		return -1;
	r = (struct record){.type = REC_MEMBER, .u.member = {.kind = MEMBER_TREE, .path = span_cstr(real ? real : j->v->path)}};
	return stream_put(j->v->wanted, &r, e);
}

static int put_end(struct job *j, struct err *e)
{
	struct record r = {.type = REC_END};

	return stream_put(j->v->wanted, &r, e) || stream_finish(j->v->wanted, e) ? -1 : 0;
}

/* A delta that was decided is finished first, as by any run. */
static int recover(struct verify *v, struct err *e)
{
	struct replica r = {0};
	enum land_left left = LAND_NOTHING;

	v->land.r = &r;
	v->land.warn = v->land.policy.warn = v->warn;
	int rc = replica_open(&r, v->path, REPLICA_APPLY, e) || replica_catalog(&r, CATALOG_LIVE, e) ||
		land_recover(&v->land, &left, e) ? -1 : 0;
	replica_close(&r);
	if (left == LAND_FINISHED && v->note)
		v->note(v->ctx, "finished a delta that had been interrupted");
	return rc;
}

static int open_replica(struct job *j, struct err *e)
{
	if (replica_open(&j->r, j->v->path, REPLICA_READ, e))
		return -1;
	if (replica_has(&j->r, "commit")) {
		replica_close(&j->r);
		if (recover(j->v, e) || replica_open(&j->r, j->v->path, REPLICA_READ, e))
			return -1;
	}
	if (replica_share(&j->r, e))
		return -1;
	if (replica_has(&j->r, "commit"))
		return err_set(e, ERR_BUSY, "the replica '%s' is being changed: try again later", j->v->path);
	if (where_open(&j->r.where, false, false, e))
		return -1;
	j->has_copies = !fit_takes_all(j->r.root);
	return replica_catalog(&j->r, CATALOG_READ, e);
}

static void job_free(struct job *j)
{
	for (size_t i = 0; i < RING; i++) {
		struct item *it = &j->ring[i];
		close_fd(&it->fd);
		buf_free(&it->path);
		object_free(&it->want);
		attr_free(&it->is);
	}
	content_free(&j->content);
	changes_free(&j->out);
	buf_free(&j->dir);
	buf_free(&j->gone);
	free(j);
}

int verify_run(struct verify *v, struct err *e)
{
	struct job *j = xalloc(sizeof *j);
	int rc = -1;

	j->v = v;
	for (size_t i = 0; i < RING; i++)
		j->ring[i].fd = -1;
	j->out.o = v->wanted;
	pthread_mutex_init(&j->lock, NULL);
	pthread_cond_init(&j->more, NULL);
	pthread_cond_init(&j->done, NULL);
	if (!open_replica(j, e)) {
		j->dirs = replica_dirs(&j->r);
		start_threads(j);
		rc = (v->wanted && put_head(j, e)) || scan_all(j, e) ? -1 : 0;
		stop_threads(j);
	}
	path_cache_free(&j->dirs);
	/* Before the stream is whole: who mends the replica with it waits for that, and not for us. */
	replica_close(&j->r);
	if (!rc && v->wanted)
		rc = put_end(j, e);
	pthread_cond_destroy(&j->done);
	pthread_cond_destroy(&j->more);
	pthread_mutex_destroy(&j->lock);
	job_free(j);
	return rc;
}
