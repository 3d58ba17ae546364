#include "pending.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "head.h"
#include "image.h"
#include "input.h"
#include "state.h"

/* ---- the plan, and the catalog after it ---- */

/* Goes through a plan; each record also to fn, when there is one. 1, 0 when there is no plan, -1. */
static int read_plan(const struct state *s, const char *file, struct pending *p,
	int (*fn)(void *ctx, const struct record *r, struct err *e), void *ctx, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct input in = {0};
	bool has_end = false;
	int got;

	*p = (struct pending){0};
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

int pending_read(const struct state *s, struct pending *p, struct err *e) { return read_plan(s, "plan", p, NULL, NULL, e); }

static int load_record(void *ctx, const struct record *r, struct err *e) { return image_load(ctx, r, e); }

/* All or nothing: the catalog is the target when this returns 0, else what it was. */
static int apply_plan(const struct state *s, struct catalog *c, const struct digest *id, struct err *e)
{
	struct image_loader l = {0};
	struct pending p;
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
				STATE_ADVICE);
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
	struct err why = {0};

	if (!state_has(s, "next"))
		return 0;
	/* A later run may have been killed while it made its own. The plan leads there, too. */
	int rc = 0;
	bool is_it = !catalog_open(&c, path, CATALOG_PRIVATE, &why) && !catalog_id(c, &has_id, &why) && digest_eq(&has_id, id);
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
		if (state_forget(s, oldest, e))
			return -1;
	}
}

/* A new plan is about to replace the pending one: keeps that under the id it leads to. */
static int keep(const struct state *s, struct err *e)
{
	struct pending p;
	struct err why = {0};
	char name[sizeof OLD_PLAN + 2 * DIGEST_LEN];

	/* One that is damaged, or changes nothing, is no loss. */
	if (pending_read(s, &p, &why) != 1 || digest_eq(&p.id, &p.base))
		return 0;
	old_plan_name(name, &p.id);
	if (renameat(s->fd, "plan", s->fd, name))
		return err_sys(e, "cannot keep the plan in the state directory");
	return forget_old_plans(s, OLD_PLANS, e);
}

int pending_put(struct state *s, int fd, const char *tmp, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "plan");

	if (keep(s, e))
		return -1;
	if (fsync(fd) || rename(tmp, path) || fsync(s->fd))
		return err_sys(e, "cannot write '%s'", path);
	return 0;
}

/* Builds `next` from the base and an earlier plan. */
static int grow(const struct state *s, const char *plan, const struct digest *base, const struct digest *id, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "next");
	struct catalog *from = NULL, *c = NULL;
	struct image_loader l = {0};
	struct pending p;
	struct digest made;
	int rc = -1;

	if (state_forget(s, "next", e) || state_catalog(s, CATALOG_READ, &from, e) || catalog_copy(from, path, e) ||
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

/* ---- the answer ---- */

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
	if (state_forget(s, "plan", e) || state_forget(s, "next", e) || (!is_later && state_forget(s, "image", e)) ||
			forget_old_plans(s, 0, e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}

int pending_take_next(struct state *s, const struct digest *id, struct err *e)
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
	struct pending p;
	char old[sizeof OLD_PLAN + 2 * DIGEST_LEN];
	bool has_plan = state_has(s, "plan");
	int got = has_plan ? take_next(s, id, e) : 0;

	if (got)
		return got < 0 ? -1 : 0;
	if (has_plan && pending_read(s, &p, e) < 0)
		return -1;
	if (has_plan && digest_eq(&p.id, id) && digest_eq(&p.base, base))
		return apply(s, id, e);
	/* The answer to that one got lost, and a later run has heard of it. */
	old_plan_name(old, id);
	if (!state_has(s, old))
		return not_pending(id, e);
	return grow(s, old, base, id, e) || take_next(s, id, e) < 0 ? -1 : 0;
}

/* The base is that image already. A plan that changes nothing still refreshes its stamps and what the next scan compares with.
 * One that was applied before a crash may not fit a second time: what it led to stands. */
static int refresh(const struct state *s, const struct digest *id, bool *done, bool *is_over, struct err *e)
{
	struct pending p;
	struct err why = {0};
	int got = state_has(s, "plan") ? pending_read(s, &p, &why) : 0;

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
int pending_commit(struct state *s, const struct digest *id, bool *done, struct err *e)
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

int pending_abort(struct state *s, struct err *e)
{
	if (keep(s, e) || state_forget(s, "plan", e) || state_forget(s, "next", e) || state_forget(s, "image", e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}
