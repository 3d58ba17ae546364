#include "delta.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "head.h"
#include "image.h"
#include "pending.h"
#include "sink.h"
#include "state.h"
#include "volume.h"

#define LIVE_ITEMS 2000u              /* a larger change grows in a private copy of the catalog from the beginning */
#define ROOM_TICK_MS 100
#define CHAIN_LOCK_WAIT 86400u /* seconds: who commits the deltas before may have a large catalog to write */

/* ---- what the target's catalog grows in ---- */

static int next_copy(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	struct delta *d = ctx;

	(void)items;
	if (source_scratch(&d->next, d->diff.tmpdir, d->base, e))
		return -1;
	*next = d->next;
	return 0;
}

static const char *next_name(const struct delta *d) { return d->is_tip ? "tip.new" : "next"; }

static int copy_base(struct delta *d, struct catalog **next, struct err *e)
{
	AUTO_FREE char *path = state_file(d->state, next_name(d));

	if (catalog_copy(d->base, path, e) || catalog_open(&d->next, path, CATALOG_PRIVATE, e))
		return -1;
	*next = d->next;
	return 0;
}

static int next_state(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	struct delta *d = ctx;

	if (state_forget(d->state, next_name(d), e))
		return -1;
	d->live = items <= LIVE_ITEMS;
	if (d->live) {
		*next = d->base;
		return catalog_begin(d->base, e);
	}
	return copy_base(d, next, e);
}

static int next_outgrown(void *ctx, struct image_loader *l, uint64_t records, struct catalog **next, struct err *e)
{
	struct delta *d = ctx;
	struct input in = {0};
	int got = 1;

	catalog_abort(d->base);
	d->live = false;
	if (sink_flush(d->plan_sink, e) || copy_base(d, next, e))
		return -1;
	image_load_start(l, *next);
	l->local = true;
	AUTO_CLOSE int fd = open(d->plan_tmp, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_sys(e, "cannot read '%s'", d->plan_tmp);
	if (input_open(&in, fd, 1, e))
		return -1;
	while (records && got > 0 && (got = input_next(&in, e)) > 0)
		if (got == STREAM_RECORD && records--)
			got = image_load(l, &in.s.rec, e) ? -1 : 1;
	input_close(&in);
	return got < 0 ? -1 : 0;
}

/* The plan is remembered before the delta's trailer can reach anybody who might acknowledge it. */
static int ready_state(void *ctx, const struct digest *id, struct err *e)
{
	struct delta *d = ctx;

	const struct pending p = {d->diff.stamps.seq, d->base_seq, *id};

	if (sink_flush(d->plan_sink, e) || (!d->live && catalog_settle(d->next, e)))
		return -1;
	clones_save(&d->clones);
	return pending_put(d->state, &p, d->plan_fd, d->plan_tmp, e);
}

static int still_old(void *ctx, const struct object *old)
{
	const struct delta *d = ctx;
	int fd = snapshots_old(&d->was, old);

	return fd < 0 ? clones_old(&d->clones, old) : fd;
}

static int still_take(void *ctx, size_t root, int fd, uint64_t size)
{
	struct delta *d = ctx;

	return clones_take(&d->clones, root, fd, size);
}

static void still_keep(void *ctx, size_t root, int copy, uint64_t no, uint64_t size, const struct digest *content)
{
	struct delta *d = ctx;

	clones_keep(&d->clones, root, copy, no, size, content);
}

static int put_image(struct delta *d, struct catalog *target, struct err *e)
{
	AUTO_CLOSE int fd = open(d->image, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	struct sink s = {.fd = fd, .name = d->image};
	struct stream_out o = {.sink = sink_write, .ctx = &s};
	struct record r = {.type = REC_IMAGE, .u.image = d->diff.stamps};

	if (fd < 0)
		return err_sys(e, "cannot write '%s'", d->image);
	r.u.image.id = d->diff.id;
	int rc = stream_begin(&o, KIND_IMAGE, e) || stream_put(&o, &r, e) || image_write(target, &o, true, e) ||
		stream_finish(&o, e) || sink_flush(&s, e) ? -1 : 0;
	stream_out_free(&o);
	sink_free(&s);
	return rc;
}

static int run(struct delta *d, int plan_fd, struct err *e)
{
	struct sink out = {.fd = d->fd, .name = d->out_name, .is_awaited = true}, plan = {.fd = plan_fd, .name = "the plan"};
	struct stream_out o = {.sink = sink_write, .ctx = &out, .key = d->diff.key};
	struct stream_out p = {.sink = plan_fd >= 0 ? sink_write : source_nowhere, .ctx = &plan};

	d->plan_fd = plan_fd;
	d->plan_sink = &plan;
	d->diff.out = &o;
	d->diff.plan = &p;
	d->diff.base = d->base;
	int rc = diff_run(&d->diff, e);
	if (!rc)
		rc = sink_flush(&out, e);
	if (!rc && d->image)
		rc = put_image(d, d->next ? d->next : d->base, e);
	d->differs = d->differs || !digest_eq(&d->diff.id, &d->diff.base_id);
	d->written += out.written;
	d->n_deltas += !rc;
	stream_out_free(&o);
	stream_out_free(&p);
	sink_free(&out);
	sink_free(&plan);
	d->diff.out = d->diff.plan = NULL;
	return rc;
}

/* ---- what comes in ---- */

/* The head of what repl-track or repl-snap sent: reads up to the last MEMBER; *changes: a change stream goes on. 1; 0 at the end of
 * input; -1. */
static int take_head(struct input *in, struct head *h, bool *changes, struct err *e)
{
	int got = input_next(in, e);

	if (got <= 0)
		return got;
	*changes = in->s.kind == KIND_CHANGE;
	if (!*changes && in->s.kind != KIND_IMAGE)
		return err_set(e, ERR_STREAM, "this is a stream of kind '%s', repl-diff -s reads what repl-track or repl-snap writes",
			kind_name(in->s.kind));
	for (;;) {
		/* The first record that is no head is left for changes_scan: input_next would lose it, so a DIR,
		 * CHANGED, GAP or END is looked at there again through in->s.rec. */
		got = input_next(in, e);
		if (got < 0)
			return -1;
		if (got != STREAM_RECORD || !head_take(h, &in->s.rec))
			break;
	}
	if (!h->n_members)
		return err_set(e, ERR_STREAM, "the stream names no root");
	if (!*changes && got != STREAM_END)
		return err_set(e, ERR_STREAM, "this is a whole image file: give it as OLD, repl-diff -s wants what repl-snap -s writes");
	return 1;
}

/* The replica's words must be about the image that we compare with. */
static int is_about_base(const struct delta *d, const struct head *h, struct err *e)
{
	struct digest id;
	char ours[65], theirs[65];

	if (catalog_id(d->base, &id, e))
		return -1;
	if (digest_eq(&id, &h->stamps.id))
		return 0;
	hex(ours, id.b, 8);
	hex(theirs, h->stamps.id.b, 8);
	return err_set(e, ERR_MISMATCH, "the replica holds image %s, the base is %s: run the whole pipeline once, then verify again",
		theirs, digest_is_zero(&id) ? "none" : ours);
}

static int take_wanted(struct delta *d, struct input *in, struct err *e)
{
	struct head head = {0};
	bool changes = false;
	int rc = take_head(in, &head, &changes, e) == 1 ? 0 : -1;

	if (!rc && (!changes || digest_is_zero(&head.stamps.id)))
		rc = err_set(e, ERR_STREAM, "this is not what repl-apply --verify --wanted writes");
	if (!rc)
		rc = is_about_base(d, &head, e);
	d->diff.changes = in;
	d->diff.mends = true;
	head_free(&head);
	return rc;
}

/* ---- without a state ---- */

/* An operand, opened. */
struct operand {
	struct walk_root root;
	bool is_tree, is_stream; /* else a volume */
};

static int open_operand(struct operand *o, const char *path, struct err *e)
{
	struct stat st;

	*o = (struct operand){.root = {"", open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)}};
	if (o->root.fd < 0 || fstat(o->root.fd, &st))
		return err_sys(e, "cannot read '%s'", path);
	o->is_tree = S_ISDIR(st.st_mode);
	if (!o->is_tree && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(e, ERR_USAGE, "'%s' is neither a directory nor a file nor a block device", path);
	o->is_stream = !o->is_tree && input_is_stream(o->root.fd);
	volume_fresh(o->root.fd);
	return 0;
}

/* The name of a volume in the image. */
static const char *last_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* new: NULL, or the volume that is OLD's target. */
static int load_old(struct delta *d, const char *old, const char *new, struct err *e)
{
	struct operand o = {.root = {"", -1}, .is_stream = true};
	struct input in = {0};
	int rc;

	if (source_scratch(&d->base, d->diff.tmpdir, NULL, e))
		return -1;
	if (!old)
		return 0;
	rc = strcmp(old, "-") ? open_operand(&o, old, e) : 0;
	if (!rc && (o.is_stream || (!o.is_tree && !new))) { /* what is none gets the reader's own words */
		rc = input_open(&in, o.root.fd >= 0 ? o.root.fd : STDIN_FILENO, 1, e);
		if (!rc)
			rc = source_load(d->base, &in, e);
		input_close(&in);
	} else if (!rc && o.is_tree && new) {
		rc = err_set(e, ERR_USAGE, "'%s' is a directory and '%s' a volume", old, d->new);
	} else if (!rc) {
		o.root.name = new ? new : "";
		rc = source_digest(d->base, &o.root, 1, &d->diff, e);
	}
	close_fd(&o.root.fd);
	return rc;
}

int delta_two(struct delta *d, const char *old, const char *new, struct input *wanted, struct err *e)
{
	struct operand o;
	struct r_member member = {.kind = MEMBER_TREE};
	int rc = -1;

	if (open_operand(&o, new, e))
		goto out;
	if (o.is_stream) {
		err_set(e, ERR_USAGE, "'%s' is a stream: the target must be a directory or a volume (an image file holds no content)", new);
		goto out;
	}
	if (!o.is_tree) {
		o.root.name = last_name(new);
		member = (struct r_member){.kind = MEMBER_VOLUME, .name = span_cstr(o.root.name)};
	}
	d->new = new;
	if (load_old(d, old, o.is_tree ? NULL : o.root.name, e) || (wanted && take_wanted(d, wanted, e)))
		goto out;
	d->diff.roots = &o.root;
	d->diff.n_roots = 1;
	d->diff.members = &member;
	d->diff.stamps = (struct r_image){.time_ns = d->time_ns, .consistency = CONS_LIVE, .provider = PROV_LIVE};
	d->diff.next = next_copy;
	d->diff.ctx = d;
	/* Only an image file that is kept has a use for hints; what changes after this moment is not settled. */
	d->diff.no_hints = d->image == NULL;
	d->diff.edge_ns = clock_wall();
	if (d->image)
		syncfs(o.root.fd);
	rc = run(d, -1, e);
out:
	close_fd(&o.root.fd);
	catalog_close(&d->next);
	catalog_close(&d->base);
	return rc;
}

/* ---- with a state ---- */

static int same_image(const struct delta *d, const struct head *h, struct err *e)
{
	struct head now = {0};
	int rc = state_load_image(d->state, &now, e);

	if (!rc && (now.stamps.seq != h->stamps.seq || memcmp(h->stamps.instance, d->state->instance, 16)))
		rc = err_set(e, ERR_BUSY, "another run has taken image %llu from this state meanwhile, this one is %llu",
			(unsigned long long)now.stamps.seq, (unsigned long long)h->stamps.seq);
	head_free(&now);
	return rc;
}

/* What decides which names are looked at, and which devices: a list of what changed since the base is complete only for who looks in
 * the same way as when the base was made. The cursor, from where on lists are needed, remembers it. */
static void set_view(struct delta *d, struct head *h)
{
	AUTO_BUF struct buf text = {0};
	struct digest sum;

	wr_u8(&text, d->diff.one_file_system);
	if (d->diff.filter)
		filter_text(d->diff.filter, &text);
	digest_bytes(&sum, text.p, text.len);
	hex(d->view, sum.b, 16);
	h->cursor.consumer = span_cstr(d->view);
}

/* The change stream is not enough. */
static int look_at_everything(struct delta *d, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_cursor c;
	int got = image_cursor(d->base, &c, &store, e);

	if (got < 0)
		return -1;
	bool is_other = got && !span_eq(c.consumer, span_cstr(d->view));
	d->diff.everything = is_other || d->diff.checksum;
	if (is_other && d->note)
		d->note(d->ui, "comparing everything: patterns or --one-file-system are not those of the base");
	return 0;
}

/* The image that mending makes: of now where something changed since the base, else the base once more. It keeps the base's
 * time, as what is not mended is no newer. */
static int open_mended(struct delta *d, struct head *h, struct err *e)
{
	struct head base = {0};

	if (is_about_base(d, h, e))
		return -1;
	d->diff.edge_ns = clock_wall();
	d->diff.mends = true;
	int got = head_of(&base, d->base, e);
	if (got != 1) {
		head_free(&base);
		return got ? -1 : err_set(e, ERR_USAGE, "the state directory '%s' does not say where its trees are: run the whole "
			"pipeline once", d->state->path);
	}
	base.stamps.parent = h->stamps.id;
	base.stamps.provider = PROV_LIVE;
	base.stamps.consistency = CONS_LIVE;
	head_free(h);
	*h = base;
	return state_next_seq(d->state, &h->stamps.seq, e);
}

/* What the delta begins at: the base, or where the one before it ended. */
static int open_base(struct delta *d, struct head *h, bool mends, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_image stamps;
	int got;

	d->is_tip = d->is_chained;
	if (d->is_chained ? pending_tip(d->state, d->diff.stamps.seq, e) : !mends && pending_base(d->state, h->stamps.seq, &d->is_tip, e))
		return -1;
	if (d->is_tip) {
		AUTO_FREE char *path = state_file(d->state, "tip");
		if (catalog_open(&d->base, path, CATALOG_LIVE, e) ||
				catalog_id(d->base, &h->stamps.parent, e))
			return -1;
	} else if (state_catalog(d->state, CATALOG_LIVE, &d->base, e)) {
		return -1;
	}
	if ((got = image_stamps(d->base, &stamps, &store, e)) < 0)
		return -1;
	d->base_seq = got ? state_number_of(d->state, &stamps) : 0;
	return 0;
}

/* The plan is in the state: what the next delta begins at need not outlive this process. */
static int move_tip(struct delta *d, struct err *e)
{
	if (d->live)
		return catalog_commit(d->base, e);
	catalog_close(&d->next);
	catalog_close(&d->base);
	return renameat(d->state->fd, "tip.new", d->state->fd, "tip") ? err_sys(e, "cannot make the new 'tip' in the state directory") : 0;
}

/* What is left when nothing follows any more; but one image that follows another may have one to follow it. */
static void drop_tip(struct delta *d)
{
	struct err ignored = {0};

	bool is_kept = d->n_deltas == 1 && d->is_tip;
	bool is_there = d->is_chained && !is_kept && (state_has(d->state, "tip") || state_has(d->state, "tip.new"));
	if (!is_there || state_lock(d->state, d->lock_wait, &ignored))
		return;
	state_forget(d->state, "tip", &ignored);
	state_forget(d->state, "tip.new", &ignored);
	state_unlock(d->state);
}

/* Under the state's lock. */
static int make(struct delta *d, struct head *head, struct input *in, bool changes, struct err *e)
{
	struct state *st = d->state;
	struct walk_root *roots = NULL, *live = NULL;
	AUTO_CLOSE int plan_fd = -1;
	bool mends = changes && !digest_is_zero(&head->stamps.id);
	int rc = -1;

	d->live = d->diff.mends = false;
	if (mends && d->is_chained)
		return err_set(e, ERR_STREAM, "what mends a replica cannot follow another delta");
	if (open_base(d, head, mends, e) || (mends ? open_mended(d, head, e) : same_image(d, head, e)) || head_open_roots(head, &roots, e) ||
			head_open_live(head, &live, e))
		goto out;
	/* As repl-snap does before an image: what is in dirty pages shows in no stat. */
	for (size_t i = 0; mends && i < head->n_members; i++)
		if (syncfs(roots[i].fd)) {
			err_sys(e, "cannot sync the filesystem of '%s'", roots[i].name);
			goto out;
		}
	plan_fd = open(d->plan_tmp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (plan_fd < 0) {
		err_sys(e, "cannot write '%s'", d->plan_tmp);
		goto out;
	}
	d->diff.roots = roots;
	d->diff.n_roots = head->n_members;
	if (!mends)
		d->diff.edge_ns = head->stamps.time_ns;
	d->diff.members = head->members;
	d->diff.stamps = head->stamps;
	d->diff.changes = changes ? in : NULL;
	if (!mends) {
		/* What a snapshot's tree tells of is complete for this view only, with or without a recorder. */
		head->has_cursor |= head->stamps.provider == PROV_BTRFS;
		set_view(d, head);
		if (look_at_everything(d, e))
			goto out;
	}
	d->diff.cursor = head->has_cursor ? &head->cursor : NULL;
	d->diff.prune_dev = st->dev;
	d->diff.prune_ino = st->ino;
	if (head_device(head, roots, &d->diff.prune_dev, e))
		goto out;
	d->diff.next = next_state;
	d->diff.outgrown = next_outgrown;
	d->diff.ready = ready_state;
	d->diff.ctx = d;
	d->clones.seq = head->stamps.seq;
	clones_open(&d->clones, st, d->base, live, head->n_members);
	snapshots_open(&d->was, d->base);
	d->diff.are_roots_still = head_is_still(head);
	d->diff.by_name = d->diff.no_hints = head_is_copy(head);
	d->diff.still = (struct ship_still){still_old, d->diff.are_roots_still ? NULL : still_take, still_keep, d};
	rc = run(d, plan_fd, e);
	if (rc)
		unlink(d->plan_tmp);
	else if (d->is_tip)
		rc = move_tip(d, e);
	if (d->live && d->base)
		catalog_abort(d->base);
out:
	clones_close(&d->clones);
	snapshots_close(&d->was);
	catalog_close(&d->next);
	catalog_close(&d->base);
	head_close_roots(&roots, head->n_members);
	head_close_roots(&live, head->n_members);
	return rc;
}

/* Too many without an answer: neither the disk nor the time that it takes to commit them may grow without bound. What changes
 * meanwhile the stages before keep. */
static int wait_for_room(struct delta *d, struct err *e)
{
	struct pollfd out = {.fd = d->fd};
	bool has_room = false, was_said = false;

	while (!pending_room(d->state, &has_room, e)) {
		if (has_room)
			return 0;
		if (!was_said && d->note)
			d->note(d->ui, "waiting for answers: too many deltas are without one");
		was_said = true;
		/* Nobody reads any more: writing would say so. */
		if (poll(&out, 1, ROOM_TICK_MS) > 0 && out.revents & (POLLERR | POLLHUP)) {
			errno = EPIPE;
			return err_sys(e, "cannot write %s", d->out_name);
		}
	}
	return -1;
}

/* One stream, one delta: 1; 0 at the end of input; -1. */
static int one(struct delta *d, const char *path, struct input *in, struct err *e)
{
	struct head head = {0};
	bool changes = false;
	int got = in ? take_head(in, &head, &changes, e) : 1;

	/* The stage before makes the state on a first run, and holds the lock until it has written its image: wait for its head,
	 * then open, then lock. */
	if (got == 1 && !d->state->path && state_open(d->state, path, false, e))
		got = -1;
	if (got == 1 && !d->plan_tmp)
		d->plan_tmp = state_file(d->state, "plan.tmp");
	if (got == 1 && ((!in && state_load_image(d->state, &head, e)) || (d->is_chained && wait_for_room(d, e)) ||
			state_lock(d->state, d->is_chained ? CHAIN_LOCK_WAIT : d->lock_wait, e)))
		got = -1;
	if (got == 1) {
		if (make(d, &head, in, changes, e))
			got = -1;
		state_unlock(d->state);
	}
	/* They were the head's. */
	d->diff.members = NULL;
	d->diff.cursor = NULL;
	head_free(&head);
	return got;
}

int delta_state(struct delta *d, const char *path, struct input *in, struct err *e)
{
	struct state st = STATE_NONE;
	int got;

	d->state = &st;
	do {
		got = one(d, path, in, e);
		d->is_chained = d->is_chained || (got == 1 && in);
	} while (got == 1 && in);
	drop_tip(d);
	free(d->plan_tmp);
	state_close(&st);
	return got < 0 ? -1 : 0;
}
