#include "land.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "history.h"
#include "path.h"

static int is_promised(const struct digest *id, const struct digest *want, struct err *e)
{
	char a[65], b[65];

	if (digest_eq(id, want))
		return 0;
	hex(a, want->b, 8);
	hex(b, id->b, 8);
	return err_set(e, ERR_STREAM, "the delta promises the image %s but makes %s: if the next one does so too, the catalog of a side "
		"is damaged, see repl(7), \"A catalog is damaged\"", a, b);
}

static int look(struct land *l, struct err *e)
{
	return check_list(&l->plan, l->item, l->ctx, &l->n, e) ||
		check_deletes(&l->n, l->max_delete, l->max_delete_percent, e) ? -1 : 0;
}

int land_load(struct land *l, const struct digest *want, struct err *e)
{
	return plan_open(&l->plan, l->r, "plan", e) || plan_load(&l->plan, &l->id, e) || is_promised(&l->id, want, e) ||
		edits_find(&l->plan, l->edited, &l->has_base, &l->doubtful, e) || look(l, e) ? -1 : 0;
}

int land_dry(struct land *l, int fd, struct catalog *cat, const struct digest *want, struct err *e)
{
	l->plan = (struct plan){.r = l->r, .fd = fd};
	int rc = plan_load_into(&l->plan, cat, &l->id, e) || is_promised(&l->id, want, e) || look(l, e) ? -1 : 0;
	l->plan.next = NULL; /* the caller's */
	land_end(l);
	return rc;
}

void land_end(struct land *l)
{
	if (l->plan.r)
		plan_close(&l->plan);
	l->plan = (struct plan){.fd = -1};
	buf_free(&l->doubtful);
}

/* ---- how it was decided ----
 *
 * Who finishes a delta does it as who decided it would have, whatever their own options are. .repl/policy: u8 for each switch,
 * then the owner rules. Not there: no switch, no rule. */

static int save_policy(const struct land *l, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct replica *r = l->r;

	if (replica_drop(r, "policy", e))
		return -1;
	if (!l->policy.no_owner && !l->policy.no_setuid && !l->policy.no_devices && !l->map_names && !l->n_owners)
		return 0;
	wr_u8(&b, l->policy.no_owner);
	wr_u8(&b, l->policy.no_setuid);
	wr_u8(&b, l->policy.no_devices);
	wr_u8(&b, l->map_names);
	for (size_t i = 0; i < l->n_owners; i++) {
		wr_u8(&b, l->owners[i].is_group);
		wr_u32(&b, l->owners[i].from);
		wr_u32(&b, l->owners[i].to);
	}
	AUTO_CLOSE int fd = openat(r->ctl, "policy", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	return fd < 0 || file_write(fd, b.p, b.len) ? err_sys(e, "cannot write '%s/" REPLICA_CTL "/policy'", r->path) : 0;
}

/* rules: owned by the caller, who frees them after use. */
static int load_policy(struct land *l, struct owner_rule **rules, struct err *e)
{
	struct stat st;
	AUTO_CLOSE int fd = path_open_at(l->r->ctl, "policy", O_RDONLY, 0);

	l->policy.no_owner = l->policy.no_setuid = l->policy.no_devices = l->map_names = false;
	l->n_owners = 0;
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st) || st.st_size < 4 || st.st_size > 1 << 20)
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/policy'", l->r->path);
	AUTO_FREE uint8_t *p = xalloc((size_t)st.st_size);
	if (file_read_at(fd, p, (size_t)st.st_size, 0))
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/policy'", l->r->path);
	struct rd b = rd_of(p, (size_t)st.st_size);
	l->policy.no_owner = rd_u8(&b);
	l->policy.no_setuid = rd_u8(&b);
	l->policy.no_devices = rd_u8(&b);
	l->map_names = rd_u8(&b);
	*rules = xalloc((b.len / 9 + 1) * sizeof **rules);
	while (b.len >= 9) {
		struct owner_rule *o = &(*rules)[l->n_owners++];
		o->is_group = rd_u8(&b);
		o->from = rd_u32(&b);
		o->to = rd_u32(&b);
	}
	l->owners = *rules;
	return 0;
}

/* ---- the steps ---- */

static int mark(struct replica *r, struct err *e)
{
	AUTO_CLOSE int fd = openat(r->ctl, "detached", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || fsync(fd) || fsync(r->ctl))
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/detached'", r->path);
	return 0;
}

static int clean(struct replica *r, struct err *e)
{
	if (replica_landed(r, e) || history_add(r, e) || replica_drop(r, "commit", e))
		return -1;
	if (fsync(r->ctl))
		return err_sys(e, "cannot make '%s/" REPLICA_CTL "' durable", r->path);
	return replica_drop(r, "detached", e) || replica_discard(r, e) ? -1 : 0;
}

/* Steps 4 to 8: the plan is loaded. */
static int forward(struct land *l, const struct buf *doubtful, struct err *e)
{
	struct replica *r = l->r;
	struct place p = {.to = {.policy = l->policy, .warn = l->warn, .doubtful = doubtful}, .map_names = l->map_names,
		.is_fresh = l->is_fresh};
	int rc = 0;

	place_start(&p, &l->plan, l->owners, l->n_owners);
	if ((l->plan.loader.has_moved || replica_has(r, "edits")) && !replica_has(r, "detached"))
		rc = edits_settle(r, &l->id, l->kept, l->ctx, e) || place_detach(&p, e) || replica_sync(r, e) || mark(r, e) ? -1 : 0;
	if (!rc)
		rc = place_all(&p, e) || replica_sync(r, e) || plan_commit(&l->plan, e) || clean(r, e) ? -1 : 0;
	place_free(&p);
	return rc;
}

int land_go(struct land *l, struct err *e)
{
	struct replica *r = l->r;

	if (save_policy(l, e) || replica_sync(r, e))
		return -1;
	if (renameat(r->ctl, "plan", r->ctl, "commit") || fsync(r->ctl))
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/commit'", r->path);
	return forward(l, &l->doubtful, e);
}

/* The commit record stands. */
static int finish(struct land *l, struct err *e)
{
	struct digest base, want, have;

	if (plan_open(&l->plan, l->r, "commit", e) ||
			plan_promise(&l->plan, &base, &want, e) || catalog_id(l->r->cat, &have, e))
		return -1;
	l->id = want;
	/* Who was killed may not have lived to see the catalog on disk. Of a delta that mends, and leads to where it came from, the
	 * ids do not tell how far it got: all of it is repeated. */
	if (digest_eq(&want, &have) && !digest_eq(&want, &base))
		return replica_sync(l->r, e) || clean(l->r, e) ? -1 : 0;
	return plan_load(&l->plan, &l->id, e) || is_promised(&l->id, &want, e) || forward(l, NULL, e) ? -1 : 0;
}

int land_recover(struct land *l, enum land_left *left, struct err *e)
{
	struct replica *r = l->r;
	/* Part of a delta may wait for its rest. */
	bool is_waiting = replica_has(r, "partial");

	*left = replica_has(r, "commit") ? LAND_FINISHED : replica_has(r, "plan") && !is_waiting ? LAND_DISCARDED : LAND_NOTHING;
	if (*left != LAND_FINISHED)
		return replica_drop(r, "detached", e) || replica_drop(r, "plan.new", e) ||
			(!is_waiting && replica_discard(r, e)) ? -1 : 0;
	AUTO_FREE struct owner_rule *rules = NULL;
	struct land how = *l;
	how.is_fresh = false;
	int rc = load_policy(&how, &rules, e) || finish(&how, e) ? -1 : 0;
	land_end(&how);
	l->id = how.id;
	return rc;
}
