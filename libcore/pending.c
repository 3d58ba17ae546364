#include "pending.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "head.h"
#include "image.h"
#include "state.h"

#define PLANS "plans"
#define NAME_LEN (16 + 1 + 16 + 1 + 2 * DIGEST_LEN)
#define OLD_ALWAYS 16u                    /* plans of earlier runs that are kept whatever their size */
#define OLD_MAX (PENDING_MAX / 2)         /* so that a chain has room beside them */
#define OLD_BYTES_MAX (PENDING_BYTES_MAX / 2)

/* ---- the list of plans ---- */

struct plan {
	struct pending p;
	uint64_t bytes;
	bool is_wanted;
};
struct plans { /* ascending by number */
	struct plan *v;
	size_t n, cap;
	uint64_t bytes;
};

static void plans_free(struct plans *l)
{
	free(l->v);
	*l = (struct plans){0};
}

static void plan_name(char out[sizeof PLANS + NAME_LEN + 1], const struct pending *p)
{
	char id[2 * DIGEST_LEN + 1];

	hex(id, p->id.b, sizeof p->id.b);
	snprintf(out, sizeof PLANS + NAME_LEN + 1, PLANS "/%016" PRIx64 "-%016" PRIx64 "-%s", p->seq, p->base_seq, id);
}

static bool parse_name(const char *name, struct pending *p)
{
	return strlen(name) == NAME_LEN && sscanf(name, "%16" SCNx64 "-%16" SCNx64 "-", &p->seq, &p->base_seq) == 2 &&
		unhex(p->id.b, sizeof p->id.b, name + 34);
}

static int by_seq(const void *a, const void *b)
{
	const struct plan *x = a, *y = b;

	return (x->p.seq > y->p.seq) - (x->p.seq < y->p.seq);
}

static int plans_list(const struct state *s, struct plans *l, struct err *e)
{
	int fd = openat(s->fd, PLANS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;
	struct stat st;

	*l = (struct plans){0};
	if (!d && fd < 0 && errno == ENOENT)
		return 0;
	if (!d) {
		err_sys(e, "cannot list the plans in the state directory");
		close_fd(&fd);
		return -1;
	}
	while ((en = readdir(d))) {
		struct plan p = {0};
		/* One that goes meanwhile: a commit, where no lock is held here. */
		if (!parse_name(en->d_name, &p.p) || fstatat(dirfd(d), en->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (l->n == l->cap) {
			l->cap = l->cap ? l->cap * 2 : 16;
			l->v = xrealloc(l->v, l->cap * sizeof *l->v);
		}
		p.bytes = (uint64_t)st.st_size;
		l->bytes += p.bytes;
		l->v[l->n++] = p;
	}
	closedir(d);
	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, by_seq);
	return 0;
}

static struct plan *plan_to(const struct plans *l, uint64_t seq)
{
	struct plan key = {.p.seq = seq};

	return l->n ? bsearch(&key, l->v, l->n, sizeof key, by_seq) : NULL;
}

/* Marks the plans that lead from one image to another as wanted; false: they do not hang together. */
static bool plans_way(const struct plans *l, uint64_t from, uint64_t to)
{
	for (size_t i = 0; i < l->n; i++)
		l->v[i].is_wanted = false;
	while (to != from) {
		struct plan *p = plan_to(l, to);
		if (!p || p->is_wanted)
			return false;
		p->is_wanted = true;
		to = p->p.base_seq;
	}
	return true;
}

static int forget_plan(const struct state *s, const struct pending *p, struct err *e)
{
	char name[sizeof PLANS + NAME_LEN + 1];

	plan_name(name, p);
	return state_forget(s, name, e);
}

static int sync_plans(const struct state *s, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, PLANS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0 && errno == ENOENT)
		return 0;
	return fd < 0 || fsync(fd) ? err_sys(e, "cannot sync the plans in the state directory") : 0;
}

int pending_last(const struct state *s, struct pending *p, struct err *e)
{
	struct plans l;

	if (plans_list(s, &l, e))
		return -1;
	bool has = l.n > 0;
	if (has)
		*p = l.v[l.n - 1].p;
	plans_free(&l);
	return has;
}

int pending_room(const struct state *s, bool *has_room, struct err *e)
{
	struct plans l;

	if (plans_list(s, &l, e))
		return -1;
	*has_room = l.n < PENDING_MAX && (l.bytes < PENDING_BYTES_MAX || l.n < OLD_ALWAYS);
	plans_free(&l);
	return 0;
}

/* ---- a new plan ---- */

/* p begins at the base: all others are of runs before it. */
static int forget_oldest(const struct state *s, const struct plans *l, const struct pending *p, struct err *e)
{
	uint64_t bytes = l->bytes;
	size_t left = l->n;

	for (size_t i = 0; i < l->n && left > OLD_ALWAYS && (left > OLD_MAX || bytes > OLD_BYTES_MAX); i++, left--) {
		bytes -= l->v[i].bytes;
		if (l->v[i].p.seq != p->seq && forget_plan(s, &l->v[i].p, e))
			return -1;
	}
	return 0;
}

int pending_put(struct state *s, const struct pending *p, int fd, const char *tmp, struct err *e)
{
	char name[sizeof PLANS + NAME_LEN + 1];
	struct plans l;

	plan_name(name, p);
	AUTO_FREE char *path = state_file(s, name);
	if (mkdirat(s->fd, PLANS, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '" PLANS "' in the state directory");
	if (plans_list(s, &l, e))
		return -1;
	int rc = 0;
	/* The numbers of a state that lost its own begin anew. */
	for (size_t i = 0; i < l.n && !rc; i++)
		if (l.v[i].p.seq >= p->seq)
			rc = forget_plan(s, &l.v[i].p, e);
	if (!rc && !plan_to(&l, p->base_seq))
		rc = forget_oldest(s, &l, p, e);
	if (!rc && (fsync(fd) || rename(tmp, path)))
		rc = err_sys(e, "cannot write '%s'", path);
	if (!rc)
		rc = sync_plans(s, e);
	if (!rc && fsync(s->fd))
		rc = err_sys(e, "cannot sync the state directory");
	plans_free(&l);
	return rc;
}

/* ---- from one catalog to the next ---- */

/* Within a change of c, which is the plan's base. is_live: as image_load_plan has it. */
static int load_plan(const struct state *s, struct catalog *c, const struct pending *p, bool is_live, struct err *e)
{
	char name[sizeof PLANS + NAME_LEN + 1];
	struct image_loader l = {0};
	struct digest made;

	plan_name(name, p);
	AUTO_CLOSE int fd = openat(s->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "cannot open a plan in the state directory");
	image_load_start(&l, c);
	l.local = true;
	int rc = image_load_plan(&l, fd, is_live, e);
	if (!rc)
		rc = image_load_end(&l, &made, e);
	if (!rc && !digest_eq(&made, &p->id))
		rc = err_set(e, ERR_MISMATCH, "a plan in the state directory does not lead to the image that it names: " STATE_ADVICE);
	image_loader_free(&l);
	return rc;
}

/* All or nothing: the base is the target when this returns 0, else what it was. 1: the change is too large for this. */
static int apply_live(const struct state *s, const struct pending *p, struct err *e)
{
	struct catalog *c = NULL;

	if (state_catalog(s, CATALOG_LIVE, &c, e))
		return -1;
	int rc = catalog_begin(c, e) ? -1 : load_plan(s, c, p, true, e);
	if (!rc)
		rc = catalog_commit(c, e);
	if (rc)
		catalog_abort(c);
	catalog_close(&c);
	return rc;
}

/* The file `to` becomes a copy of the catalog in the file `from`, changed by the plans that are wanted. */
static int grow(const struct state *s, const char *from, const char *to, const struct plans *l, struct err *e)
{
	AUTO_FREE char *path = state_file(s, to), *old = state_file(s, from);
	struct catalog *c = NULL;
	int rc = state_forget(s, to, e) || catalog_open(&c, old, CATALOG_READ, e) || catalog_copy(c, path, e) ? -1 : 0;

	catalog_close(&c);
	if (rc || catalog_open(&c, path, CATALOG_PRIVATE, e))
		return -1;
	for (size_t i = 0; i < l->n && !rc; i++)
		if (l->v[i].is_wanted)
			rc = load_plan(s, c, &l->v[i].p, false, e);
	if (!rc)
		rc = catalog_settle(c, e);
	catalog_close(&c);
	return rc;
}

static int rename_catalog(const struct state *s, const char *from, const char *to, struct err *e)
{
	if (renameat(s->fd, from, s->fd, to) || fsync(s->fd))
		return err_sys(e, "cannot make the new '%s' in the state directory", to);
	return 0;
}

/* One step of the base. */
static int apply_plan(const struct state *s, const struct plan *p, struct err *e)
{
	struct plan one = *p;
	const struct plans only = {.v = &one, .n = 1};

	int rc = p->bytes <= CATALOG_PLAN_MAX ? apply_live(s, &p->p, e) : 1;
	if (rc != 1)
		return rc;
	one.is_wanted = true;
	return grow(s, "catalog", "next", &only, e) || rename_catalog(s, "next", "catalog", e) ? -1 : 0;
}

/* What a catalog holds; seq 0: nothing, or an image of another state. */
struct place {
	struct digest id;
	uint64_t seq;
	bool is_ours; /* the number is of this state */
};

static int place_of(const struct state *s, struct catalog *c, struct place *p, struct err *e)
{
	struct r_image stamps;
	AUTO_BUF struct buf store = {0};
	int got = catalog_id(c, &p->id, e) ? -1 : image_stamps(c, &stamps, &store, e);

	p->is_ours = got > 0 && !memcmp(stamps.instance, s->instance, sizeof s->instance);
	p->seq = got > 0 ? state_number_of(s, &stamps) : 0;
	return got < 0 ? -1 : 0;
}

/* 1; 0 when there is no such file; -1. */
static int place_in(const struct state *s, const char *file, struct place *p, struct err *e)
{
	AUTO_FREE char *path = state_file(s, file);
	struct catalog *c = NULL;

	*p = (struct place){0};
	if (!state_has(s, file))
		return 0;
	int rc = catalog_open(&c, path, CATALOG_READ, e) || place_of(s, c, p, e) ? -1 : 1;
	catalog_close(&c);
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
	return rename_catalog(s, "next", "catalog", e) ? -1 : 1;
}

int pending_leads(const struct state *s, uint64_t seq, struct digest *id, struct err *e)
{
	struct digest base_id;
	uint64_t base;
	struct plans l;

	if (state_base(s, &base_id, &base, e) || plans_list(s, &l, e))
		return -1;
	const struct plan *last = seq != base && plans_way(&l, base, seq) ? plan_to(&l, seq) : NULL;
	if (last)
		*id = last->p.id;
	plans_free(&l);
	return last != NULL;
}

int pending_drop(const struct state *s, uint64_t seq, struct err *e)
{
	struct plans l;

	if (plans_list(s, &l, e))
		return -1;
	const struct plan *p = plan_to(&l, seq);
	for (size_t i = 0; i < l.n && p; i++)
		if (l.v[i].p.base_seq == seq)
			p = NULL;
	int rc = p ? forget_plan(s, &p->p, e) : 0;
	plans_free(&l);
	return rc;
}

int pending_follows(struct state *s, uint64_t seq, uint64_t after, struct err *e)
{
	char text[64];

	if (!after)
		return state_forget(s, "after", e) || state_forget(s, "tip", e) ? -1 : 0;
	int n = snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 "\n", seq, after);
	return file_replace(s->fd, "after", text, (size_t)n, e);
}

int pending_base(struct state *s, uint64_t seq, bool *is_tip, struct err *e)
{
	uint64_t of = 0, after = 0, base;
	struct digest id;
	char text[64] = "";
	AUTO_CLOSE int fd = openat(s->fd, "after", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	*is_tip = false;
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open 'after' in the state directory");
	if (read(fd, text, sizeof text - 1) < 0)
		return err_sys(e, "cannot read 'after' in the state directory");
	if (sscanf(text, "%" SCNu64 " %" SCNu64, &of, &after) != 2)
		return err_set(e, ERR_SYSTEM, "the state directory is damaged: 'after' holds no numbers");
	if (of != seq)
		return 0;
	/* The answer came meanwhile. */
	if (state_base(s, &id, &base, e))
		return -1;
	*is_tip = base != after;
	return *is_tip ? pending_tip(s, after, e) : 0;
}

int pending_tip(struct state *s, uint64_t seq, struct err *e)
{
	struct place tip, base, next;
	struct plans l = {0};
	struct err ignored = {0};
	int rc = -1;

	if (place_in(s, "catalog", &base, e) < 0 || plans_list(s, &l, e))
		goto out;
	/* One that a killed run left behind may be damaged: the plan leads there, too. */
	if (place_in(s, "next", &next, &ignored) < 0)
		next = (struct place){0};
	/* An answer to another run may have made something else the base: the replica is not where this chain leads. */
	if (!plans_way(&l, base.seq, seq)) {
		err_set(e, ERR_MISMATCH, "image %" PRIu64 " does not follow from the base any more: start again", seq);
		goto out;
	}
	const struct plan *last = plan_to(&l, seq);
	bool is_next = last && next.is_ours && next.seq == seq && digest_eq(&last->p.id, &next.id);
	/* One that a killed follower left behind may be damaged. */
	err_clear(&ignored);
	if (place_in(s, "tip", &tip, &ignored) == 1 && tip.is_ours && tip.seq == seq && (!last || digest_eq(&last->p.id, &tip.id))) {
		rc = 0;
	} else {
		if (is_next)
			plans_way(&l, seq, seq);
		rc = grow(s, is_next ? "next" : "catalog", "tip.new", &l, e) || rename_catalog(s, "tip.new", "tip", e) ? -1 : 0;
	}
out:
	plans_free(&l);
	return rc;
}

/* ---- the answer ---- */

/* What the base, which is image `at` now, leaves over: the plans that led to it, and those that do not begin at it. all: every one. */
static int forget_plans(const struct state *s, const struct place *at, bool all, struct err *e)
{
	struct plans l;
	int rc = plans_list(s, &l, e);

	for (size_t i = 0; i < l.n && !rc; i++) {
		const struct plan *before = plan_to(&l, l.v[i].p.base_seq);
		l.v[i].is_wanted = !all && at->is_ours && l.v[i].p.seq > at->seq &&
			(l.v[i].p.base_seq == at->seq || (before && before < &l.v[i] && before->is_wanted));
		if (!l.v[i].is_wanted)
			rc = forget_plan(s, &l.v[i].p, e);
	}
	plans_free(&l);
	return rc || sync_plans(s, e) ? -1 : 0;
}

/* A later image that was begun meanwhile stays. */
static int clean(const struct state *s, bool all, struct err *e)
{
	struct head h = {0};
	struct place at;
	struct err ignored = {0};

	if (place_in(s, "catalog", &at, e) < 0)
		return -1;
	bool is_later = at.is_ours && !state_load_image(s, &h, &ignored) && h.stamps.seq > at.seq &&
		!memcmp(h.stamps.instance, s->instance, sizeof s->instance);
	head_free(&h);
	/* The plans go before next: without a plan, next means nothing. */
	if (forget_plans(s, &at, all, e) || state_forget(s, "next", e) || (!is_later && state_forget(s, "image", e)))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}

int pending_take_next(struct state *s, const struct digest *id, struct err *e)
{
	int got = take_next(s, id, e);

	return got < 0 || clean(s, true, e) ? -1 : got;
}

static int not_pending(const struct digest *id, struct err *e)
{
	char text[2 * DIGEST_LEN + 1];

	hex(text, id->b, sizeof id->b);
	text[16] = '\0';
	return err_set(e, ERR_MISMATCH, "the replica acknowledges image %s, which is not the one under way: "
		"ask it what it has with repl-snap --digest", text);
}

static int go_way(const struct state *s, const struct plans *l, struct err *e)
{
	for (size_t k = 0; k < l->n; k++)
		if (l->v[k].is_wanted && apply_plan(s, &l->v[k], e))
			return -1;
	return 0;
}

/* By the plans that are wanted. */
static int advance_to(const struct state *s, uint64_t seq, const struct digest *id, const struct plans *l, struct err *e)
{
	struct place next;
	struct err ignored = {0};
	bool is_next = place_in(s, "next", &next, &ignored) == 1 && next.is_ours && next.seq == seq;
	int got = is_next ? take_next(s, id, e) : 0;

	return got ? (got < 0 ? -1 : 0) : go_way(s, l, e);
}

/* The base becomes image id: by the first way there. Each step is a whole image, so that one which is broken off can be gone on
 * with. */
static int advance(const struct state *s, const struct place *base, const struct digest *id, const struct plans *l, struct err *e)
{
	int got = l->n ? take_next(s, id, e) : 0;

	if (got)
		return got < 0 ? -1 : 0;
	for (size_t i = 0; i < l->n; i++) {
		if (!digest_eq(&l->v[i].p.id, id) || !plans_way(l, base->seq, l->v[i].p.seq))
			continue;
		return go_way(s, l, e);
	}
	return not_pending(id, e);
}

/* The base is that image already. A plan from it that changes nothing still refreshes its stamps and what the next scan compares
 * with; where it fails the base stands as it is. */
static int refresh(const struct state *s, const struct place *base, const struct plans *l, bool *done, struct err *e)
{
	struct err why = {0};

	for (size_t i = 0; i < l->n; i++) {
		if (l->v[i].p.base_seq != base->seq || !digest_eq(&l->v[i].p.id, &base->id))
			continue;
		*done = !apply_plan(s, &l->v[i], &why);
		if (!*done && why.kind == ERR_SYSTEM) {
			*e = why;
			return -1;
		}
		return 0;
	}
	return 0;
}

/* the plans applied, each in one transaction or by a new catalog   before: the old base, or one on the way, and the plans: the
 *                                                                  ack can come again
 * plans, next and image removed                                    before: the new base, and plans that it outlived */
int pending_commit(struct state *s, const struct digest *id, uint64_t seq, bool *done, struct err *e)
{
	struct catalog *c = NULL;
	struct place base;
	struct plans l = {0};
	bool is_done = false;

	/* Made when it is missing. */
	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	int rc = place_of(s, c, &base, e);
	catalog_close(&c);
	if (rc || plans_list(s, &l, e))
		return -1;
	bool is_there = digest_eq(&base.id, id);
	/* Others may have the same id, and not be where it is gone on from: the tree did not change, or came back to what it was. */
	const struct plan *exact = seq > base.seq ? plan_to(&l, seq) : NULL;
	if (exact && digest_eq(&exact->p.id, id) && plans_way(&l, base.seq, seq)) {
		rc = advance_to(s, seq, id, &l, e);
		is_done = true;
	} else if (is_there) {
		/* Where the number is known a plan that changes nothing is that of an image which this answer is not about. */
		rc = seq ? 0 : refresh(s, &base, &l, &is_done, e);
	} else {
		rc = advance(s, &base, id, &l, e);
		is_done = true;
	}
	/* An answer that says nothing new leaves alone what waits for its own; what a crash left over goes. */
	bool is_left_over = l.n && l.v[0].p.seq <= base.seq && base.is_ours;
	plans_free(&l);
	if (rc || ((is_done || is_left_over) && clean(s, false, e)))
		return -1;
	*done = is_done;
	return 0;
}

int pending_abort(struct state *s, struct err *e)
{
	if (state_forget(s, "tip", e) || state_forget(s, "next", e) || state_forget(s, "image", e) || state_forget(s, "after", e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}
