#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "attr.h"
#include "file.h"
#include "head.h"
#include "image.h"
#include "input.h"

#define MARKER "repl-state"
#define MARKER_HEAD "repl-state 1\n"
#define SHOWN 300

static char *shown(char out[SHOWN], const struct state *s) { return esc_cut(out, SHOWN, span_cstr(s->path)); }

/* ---- files ---- */

/* A small file. 1, 0 when there is none, -1. */
static int read_small(int dirfd, const char *name, char *out, size_t n, struct err *e)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	size_t at = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open '%s'", name);
	while (at < n - 1) {
		ssize_t got = read(fd, out + at, n - 1 - at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(e, "cannot read '%s'", name);
		if (!got)
			break;
		at += (size_t)got;
	}
	out[at] = '\0';
	return 1;
}

static int forget(const struct state *s, const char *name, struct err *e)
{
	if (unlinkat(s->fd, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s' in the state directory", name);
	return 0;
}

static bool has(const struct state *s, const char *name)
{
	return faccessat(s->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

char *state_file(const struct state *s, const char *name)
{
	struct buf b = {0};

	buf_fmt(&b, "%s/%s", s->path, name);
	buf_cstr(&b);
	return (char *)b.p;
}

/* ---- the directory ---- */

static int is_vacant(const struct state *s, bool *vacant, struct err *e)
{
	static const char *const ours[] = {".", "..", "lock", MARKER ".new"};
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;

	if (!d) {
		close_fd(&fd);
		return err_sys(e, "cannot list the state directory");
	}
	*vacant = true;
	while ((en = readdir(d))) {
		size_t i = 0;
		while (i < sizeof ours / sizeof *ours && strcmp(en->d_name, ours[i]))
			i++;
		*vacant = *vacant && i < sizeof ours / sizeof *ours;
	}
	closedir(d);
	return 0;
}

/* 1, 0 when there is no marker, -1. */
static int read_marker(struct state *s, struct err *e)
{
	char text[128], where[SHOWN];
	size_t head = sizeof MARKER_HEAD - 1;
	int got = read_small(s->fd, MARKER, text, sizeof text, e);

	if (got != 1)
		return got;
	if (strncmp(text, MARKER_HEAD, head) || strlen(text) != head + 33 || text[head + 32] != '\n')
		return err_set(e, ERR_USAGE, "'%s' has a marker that this program does not know", shown(where, s));
	text[head + 32] = '\0';
	if (!unhex(s->instance, sizeof s->instance, text + head))
		return err_set(e, ERR_USAGE, "'%s' has a marker that this program does not know", shown(where, s));
	return 1;
}

static int write_marker(struct state *s, struct err *e)
{
	char text[sizeof MARKER_HEAD + 33], id[33];

	if (getrandom(s->instance, sizeof s->instance, 0) != (ssize_t)sizeof s->instance)
		return err_sys(e, "cannot get random bytes");
	hex(id, s->instance, sizeof s->instance);
	int n = snprintf(text, sizeof text, MARKER_HEAD "%s\n", id);
	return file_replace(s->fd, MARKER, text, (size_t)n, e);
}

static int found_state(struct state *s, struct err *e)
{
	char where[SHOWN];
	bool vacant = false;

	if (is_vacant(s, &vacant, e))
		return -1;
	if (!vacant)
		return err_set(e, ERR_USAGE, "'%s' is not empty and not a state directory: give one that does not exist",
			shown(where, s));
	/* Under the lock: of two that start together one makes the marker, the other finds it. */
	if (state_lock(s, 10, e))
		return -1;
	int got = read_marker(s, e);
	if (!got)
		got = write_marker(s, e);
	state_unlock(s);
	return got < 0 ? -1 : 0;
}

int state_open(struct state *s, const char *path, bool create, struct err *e)
{
	struct state new = {.fd = -1, .lock_fd = -1, .path = xstrdup(path)};
	struct attr a = {0};
	char where[SHOWN];
	int got = -1;

	if (create && mkdir(path, 0700) && errno != EEXIST) {
		err_sys(e, "cannot make the state directory '%s'", shown(where, &new));
		goto out;
	}
	new.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (new.fd < 0 && errno == ENOENT)
		err_set(e, ERR_USAGE, "there is no state directory '%s': run repl-snap -s first", shown(where, &new));
	else if (new.fd < 0)
		err_sys(e, "cannot open the state directory '%s'", shown(where, &new));
	if (new.fd < 0 || attr_stat(&a, new.fd, NULL, e))
		goto out;
	new.dev = a.hint.dev;
	new.ino = a.hint.ino;
	got = read_marker(&new, e);
	if (!got && !create)
		got = err_set(e, ERR_USAGE, "'%s' is not a state directory: run repl-snap -s first", shown(where, &new));
	else if (!got)
		got = found_state(&new, e);
out:
	attr_free(&a);
	if (got < 0) {
		state_close(&new);
		return -1;
	}
	*s = new;
	return 0;
}

void state_close(struct state *s)
{
	if (!s->path)
		return;
	state_unlock(s);
	close_fd(&s->fd);
	free(s->path);
	*s = (struct state){.fd = -1, .lock_fd = -1};
}

static int busy(const struct state *s, struct err *e)
{
	char text[32], where[SHOWN];
	struct err ignored = {0};

	if (read_small(s->fd, "lock", text, sizeof text, &ignored) != 1)
		text[0] = '\0';
	text[strspn(text, "0123456789")] = '\0';
	return err_set(e, ERR_BUSY, "the state directory '%s' is in use by process %s", shown(where, s),
		text[0] ? text : "unknown");
}

int state_lock(struct state *s, unsigned wait, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	const struct timespec tick = {0, 50000000};
	uint64_t left = (uint64_t)wait * 20;
	char text[32];

	if (fd < 0)
		return err_sys(e, "cannot open the lock of the state directory");
	/* flock(2) knows no time limit, and a signal to end it would be the whole program's. */
	while (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno == EINTR)
			continue;
		if (errno != EWOULDBLOCK)
			return err_sys(e, "cannot lock the state directory");
		if (!left--)
			return busy(s, e);
		nanosleep(&tick, NULL);
	}
	int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return err_sys(e, "cannot write the lock of the state directory");
	s->lock_fd = fd;
	fd = -1;
	return 0;
}

void state_unlock(struct state *s)
{
	if (s->lock_fd < 0)
		return;
	/* Only for the eye: the lock itself goes with the descriptor. */
	if (ftruncate(s->lock_fd, 0))
		errno = 0;
	close_fd(&s->lock_fd);
}

/* An empty catalog comes into being whole, whoever else is about to make one. */
static int make_catalog(const struct state *s, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct catalog *c = NULL;

	buf_fmt(&name, "catalog.%ld", (long)getpid());
	AUTO_FREE char *path = state_file(s, buf_cstr(&name));
	if (forget(s, buf_cstr(&name), e) || catalog_open(&c, path, CATALOG_LIVE, e))
		return -1;
	catalog_close(&c);
	int rc = linkat(s->fd, buf_cstr(&name), s->fd, "catalog", 0);
	if (rc && errno == EEXIST)
		rc = 0;
	if (rc)
		err_sys(e, "cannot make the catalog in the state directory");
	else if (fsync(s->fd))
		rc = err_sys(e, "cannot sync the state directory");
	return forget(s, buf_cstr(&name), e) || rc ? -1 : 0;
}

int state_catalog(const struct state *s, enum catalog_mode mode, struct catalog **c, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "catalog");

	if (!has(s, "catalog") && make_catalog(s, e))
		return -1;
	return catalog_open(c, path, mode, e);
}

/* ---- the image under way ---- */

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		buf_add(ctx, v[i].p, v[i].len);
	return 0;
}

int state_save_image(struct state *s, const struct head *h, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct stream_out o = {.sink = into_buf, .ctx = &b};

	int rc = head_put(h, &o, KIND_IMAGE, e) || stream_finish(&o, e) || file_replace(s->fd, "image", b.p, b.len, e);
	stream_out_free(&o);
	return rc ? -1 : 0;
}

int state_load_image(const struct state *s, struct head *h, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, "image", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char where[SHOWN];

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ERR_USAGE, "the state directory '%s' has no image under way: run repl-snap first",
			shown(where, s));
	if (fd < 0)
		return err_sys(e, "cannot open '%s/image'", shown(where, s));
	return head_read(h, fd, "the state directory", e);
}

int state_seq(const struct state *s, uint64_t *seq, struct err *e)
{
	char text[32], *end;
	int got = read_small(s->fd, "seq", text, sizeof text, e);

	if (got < 0)
		return -1;
	if (got) {
		errno = 0;
		uint64_t n = strtoull(text, &end, 10);
		if (errno || end == text || *end != '\n' || text[0] == '-')
			return err_set(e, ERR_SYSTEM, "the state directory is damaged: 'seq' holds no number");
		*seq = n;
		return 0;
	}
	/* Lost: go on from what the replica is known to have. */
	struct catalog *c = NULL;
	struct r_image stamps;
	AUTO_BUF struct buf store = {0};
	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	got = image_stamps(c, &stamps, &store, e);
	catalog_close(&c);
	if (got < 0)
		return -1;
	*seq = got && !memcmp(stamps.instance, s->instance, sizeof s->instance) ? stamps.seq : 0;
	return 0;
}

int state_next_seq(struct state *s, uint64_t *seq, struct err *e)
{
	uint64_t last;
	char text[32];

	if (state_seq(s, &last, e))
		return -1;
	int n = snprintf(text, sizeof text, "%" PRIu64 "\n", last + 1);
	if (file_replace(s->fd, "seq", text, (size_t)n, e))
		return -1;
	*seq = last + 1;
	return 0;
}

/* ---- the acknowledgement ---- */

/* Goes through a plan; each record also to fn, when there is one. 1, 0 when there is no plan, -1. */
static int read_plan(const struct state *s, const char *file, struct state_plan *p,
	int (*fn)(void *ctx, const struct record *r, struct err *e), void *ctx, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct input in = {0};
	bool has_end = false;
	int got;

	*p = (struct state_plan){0};
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open the plan in the state directory");
	if (input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_mac = true;
	while ((got = input_next(&in, e)) > 0 && got != STREAM_END) {
		const struct record *r = &in.s.rec;
		if (got == STREAM_BEGIN)
			continue;
		if (r->type == REC_DELTA) {
			p->base = r->u.delta.base;
		} else if (r->type == REC_END) {
			p->id = r->u.end.id;
			has_end = true;
		}
		if (fn && fn(ctx, r, e)) {
			got = -1;
			break;
		}
	}
	input_close(&in);
	if (got == STREAM_END && has_end)
		return 1;
	return got < 0 ? -1 : err_set(e, ERR_STREAM, "the plan in the state directory is not whole");
}

int state_plan(const struct state *s, struct state_plan *p, struct err *e) { return read_plan(s, "plan", p, NULL, NULL, e); }

static int load_record(void *ctx, const struct record *r, struct err *e) { return image_load(ctx, r, e); }

/* All or nothing: the catalog is the target when this returns 0, else what it was. */
static int apply_plan(const struct state *s, struct catalog *c, const struct digest *id, struct err *e)
{
	struct image_loader l = {0};
	struct state_plan p;
	struct digest made;
	int rc = -1;

	if (catalog_begin(c, e))
		return -1;
	image_load_start(&l, c);
	l.local = true;
	if (read_plan(s, "plan", &p, load_record, &l, e) == 1 && !image_load_end(&l, &made, e)) {
		if (digest_eq(&made, id))
			rc = catalog_commit(c, e);
		else
			err_set(e, ERR_MISMATCH, "the plan in the state directory does not lead to the image that the replica has: "
				"run repl-snap --abort, then the whole pipeline again");
	}
	if (rc)
		catalog_abort(c);
	image_loader_free(&l);
	return rc;
}

/* next becomes the catalog: 1; 0 when it is not there or another image. */
static int take_next(const struct state *s, const struct digest *id, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "next");
	struct catalog *c = NULL;
	struct digest has_id;

	if (!has(s, "next"))
		return 0;
	if (catalog_open(&c, path, CATALOG_PRIVATE, e))
		return -1;
	int rc = catalog_id(c, &has_id, e);
	bool is_it = !rc && digest_eq(&has_id, id);
	if (is_it)
		rc = catalog_settle(c, e);
	catalog_close(&c);
	if (rc || !is_it)
		return rc;
	if (renameat(s->fd, "next", s->fd, "catalog") || fsync(s->fd))
		return err_sys(e, "cannot make the new catalog the base");
	return 1;
}

/* ---- plans that no answer came for ---- */

#define OLD_PLAN "plan-"
#define OLD_PLANS 16u /* so many runs in a row may lose their answers; after that the replica has to be asked */

static void old_plan_name(char out[sizeof OLD_PLAN + 2 * DIGEST_LEN], const struct digest *id)
{
	memcpy(out, OLD_PLAN, sizeof OLD_PLAN - 1);
	hex(out + sizeof OLD_PLAN - 1, id->b, sizeof id->b);
}

/* Removes the oldest until so many are left. */
static int forget_old_plans(const struct state *s, size_t keep, struct err *e)
{
	for (;;) {
		int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		DIR *d = fd < 0 ? NULL : fdopendir(fd);
		char oldest[sizeof OLD_PLAN + 2 * DIGEST_LEN] = "";
		struct timespec at = {0};
		size_t n = 0;

		if (!d) {
			err_sys(e, "cannot list the state directory");
			close_fd(&fd);
			return -1;
		}
		for (struct dirent *en; (en = readdir(d));) {
			struct stat st;
			if (strncmp(en->d_name, OLD_PLAN, sizeof OLD_PLAN - 1) || strlen(en->d_name) >= sizeof oldest ||
					fstatat(s->fd, en->d_name, &st, AT_SYMLINK_NOFOLLOW))
				continue;
			bool is_older = st.st_mtim.tv_sec < at.tv_sec ||
				(st.st_mtim.tv_sec == at.tv_sec && st.st_mtim.tv_nsec < at.tv_nsec);
			if (n++ && !is_older)
				continue;
			at = st.st_mtim;
			memcpy(oldest, en->d_name, strlen(en->d_name) + 1);
		}
		closedir(d);
		if (n <= keep)
			return 0;
		if (forget(s, oldest, e))
			return -1;
	}
}

int state_keep_plan(struct state *s, struct err *e)
{
	struct state_plan p;
	struct err why = {0};
	char name[sizeof OLD_PLAN + 2 * DIGEST_LEN];

	/* One that is damaged, or changes nothing, is no loss. */
	if (state_plan(s, &p, &why) != 1 || digest_eq(&p.id, &p.base))
		return 0;
	old_plan_name(name, &p.id);
	if (renameat(s->fd, "plan", s->fd, name))
		return err_sys(e, "cannot keep the plan in the state directory");
	return forget_old_plans(s, OLD_PLANS, e);
}

/* Builds `next` from the base and an earlier plan. */
static int grow(const struct state *s, const char *plan, const struct digest *base, const struct digest *id, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "next");
	struct catalog *from = NULL, *c = NULL;
	struct image_loader l = {0};
	struct state_plan p;
	struct digest made;
	int rc = -1;

	if (forget(s, "next", e) || state_catalog(s, CATALOG_READ, &from, e) || catalog_copy(from, path, e) ||
			catalog_open(&c, path, CATALOG_PRIVATE, e))
		goto out;
	image_load_start(&l, c);
	l.local = true;
	int got = read_plan(s, plan, &p, load_record, &l, e);
	if (got < 0 || (got && image_load_end(&l, &made, e)))
		goto out;
	rc = got && digest_eq(&p.base, base) && digest_eq(&made, id) ? catalog_settle(c, e) :
		err_set(e, ERR_MISMATCH, "a plan in the state directory does not lead to the image that the replica has: "
			"ask the replica what it has with repl-snap --digest");
out:
	image_loader_free(&l);
	catalog_close(&c);
	catalog_close(&from);
	return rc;
}

/* What a commit leaves over. A later image that was begun meanwhile stays. */
static int clean(const struct state *s, struct err *e)
{
	struct catalog *c = NULL;
	struct head h = {0};
	struct r_image stamps;
	AUTO_BUF struct buf store = {0};
	struct err ignored = {0};

	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	int got = image_stamps(c, &stamps, &store, e);
	catalog_close(&c);
	if (got < 0)
		return -1;
	bool is_later = got && !state_load_image(s, &h, &ignored) && h.stamps.seq > stamps.seq &&
		!memcmp(h.stamps.instance, stamps.instance, sizeof stamps.instance);
	head_free(&h);
	/* The plan goes before next: without a plan, next means nothing. */
	if (forget(s, "plan", e) || forget(s, "next", e) || (!is_later && forget(s, "image", e)) || forget_old_plans(s, 0, e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}

int state_take_next(struct state *s, const struct digest *id, struct err *e)
{
	int got = take_next(s, id, e);

	return got < 0 || clean(s, e) ? -1 : got;
}

static int not_pending(const struct digest *id, struct err *e)
{
	char text[2 * DIGEST_LEN + 1];

	hex(text, id->b, sizeof id->b);
	text[16] = '\0';
	return err_set(e, ERR_MISMATCH, "the replica acknowledges image %s, which is not the one under way: "
		"ask it what it has with repl-snap --digest", text);
}

static int apply(const struct state *s, const struct digest *id, struct err *e)
{
	struct catalog *c = NULL;

	if (state_catalog(s, CATALOG_LIVE, &c, e))
		return -1;
	int rc = apply_plan(s, c, id, e);
	catalog_close(&c);
	return rc;
}

/* The base becomes image id. */
static int advance(const struct state *s, const struct digest *base, const struct digest *id, struct err *e)
{
	struct state_plan p;
	char old[sizeof OLD_PLAN + 2 * DIGEST_LEN];
	bool has_plan = has(s, "plan");
	int got = has_plan ? take_next(s, id, e) : 0;

	if (got)
		return got < 0 ? -1 : 0;
	if (has_plan && state_plan(s, &p, e) < 0)
		return -1;
	if (has_plan && digest_eq(&p.id, id) && digest_eq(&p.base, base))
		return apply(s, id, e);
	/* The answer to that one got lost, and a later run has heard of it. */
	old_plan_name(old, id);
	if (!has(s, old))
		return not_pending(id, e);
	return grow(s, old, base, id, e) || take_next(s, id, e) < 0 ? -1 : 0;
}

/* The base is that image already. A plan that changes nothing still refreshes its stamps and what the next scan compares with.
 * One that was applied before a crash may not fit a second time: what it led to stands. */
static int refresh(const struct state *s, const struct digest *id, bool *done, bool *is_over, struct err *e)
{
	struct state_plan p;
	struct err why = {0};
	int got = has(s, "plan") ? state_plan(s, &p, &why) : 0;

	*is_over = got != 1 || digest_eq(&p.id, id);
	if (got == 1 && digest_eq(&p.id, id) && digest_eq(&p.base, id))
		*done = !apply(s, id, &why);
	if (why.kind == ERR_SYSTEM) {
		*e = why;
		return -1;
	}
	return 0;
}

/* next -> catalog, or the plan applied in one transaction   before: the old base and the plan; the ack can come again
 * plan, next and image removed                              before: the new base, and a plan that it outlived */
int state_commit(struct state *s, const struct digest *id, bool *done, struct err *e)
{
	struct catalog *c = NULL;
	struct digest base;
	bool is_done = false, is_over = true;

	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	int rc = catalog_id(c, &base, e);
	catalog_close(&c);
	if (rc)
		return -1;
	if (digest_eq(&base, id)) {
		rc = refresh(s, id, &is_done, &is_over, e);
	} else {
		rc = advance(s, &base, id, e);
		is_done = true;
	}
	if (rc || (is_over && clean(s, e)))
		return -1;
	*done = is_done;
	return 0;
}

int state_abort(struct state *s, struct err *e)
{
	if (state_keep_plan(s, e) || forget(s, "plan", e) || forget(s, "next", e) || forget(s, "image", e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}
