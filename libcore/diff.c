#include "diff.h"

#include <stdlib.h>

#include "changes.h"
#include "emit.h"
#include "guess.h"
#include "moves.h"
#include "numbers.h"
#include "pool.h"
#include "ship.h"
#include "spool.h"
#include "tape.h"
#include "target.h"

/* A directory on the way down. */
struct level {
	uint64_t base;
	uint64_t ref; /* 0: not given in the stream so far */
};

struct job {
	struct diff *d;
	struct scan scan;
	struct ship ship;
	struct target target;
	/* first pass */
	struct spool spool;
	struct tape tape; /* what the change stream says, for a second look */
	uint64_t n_items, n_new, n_bytes;
	struct moves moves;
	/* mending: numbers of base objects that the replica does not have as they are; rows of u64 dir, str name */
	struct buf wanted, strays;
	struct buf wanted_whole; /* of the wanted ones, those that more than metadata is wanted of */
	struct guess guess;
	/* second pass */
	struct emit emit;
	struct numbers links; /* of the scan's link groups: what became of the first name, as a number in the stream */
	struct level *levels;
	size_t cap_levels;
};

/* ---- first pass: names ---- */

static int on_item(void *ctx, const struct scan_item *seen, struct err *e)
{
	struct job *j = ctx;
	struct scan_item it = *seen;

	if (it.how == SCAN_SAME && bits_has(&j->wanted, it.base))
		it.how = SCAN_SUSPECT;
	if (it.kind != SCAN_LEAVE && it.how != SCAN_SAME) {
		j->n_items++;
		j->n_new += it.how == SCAN_NEW;
		if (it.attr->type == OBJ_FILE)
			j->n_bytes += min_u64(it.attr->size, it.attr->blocks512 * 512); /* holes are not sent */
		if (it.how == SCAN_ATTACH)
			moves_attached(&j->moves, it.base);
	}
	return spool_put(&j->spool, &it, seen->how == SCAN_SAME, e);
}

static int want_below(struct job *j, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf stack = {0};
	struct catalog_iter it = {0};
	int got = 0;

	wr_u64(&stack, no);
	while (stack.len && got >= 0) {
		stack.len -= 8;
		catalog_iter_start(&it, j->d->base, get_le64(stack.p + stack.len));
		while ((got = catalog_iter_next(&it, e)) == 1) {
			bits_put(&j->wanted, it.no);
			bits_put(&j->wanted_whole, it.no);
			if (it.type == OBJ_DIR)
				wr_u64(&stack, it.no);
		}
	}
	catalog_iter_free(&it);
	return got;
}

static int on_wanted(void *ctx, uint64_t dir, const struct r_changed *c, struct err *e)
{
	struct job *j = ctx;
	uint64_t no = dir;
	int got = c->name.len ? catalog_lookup(j->d->base, dir, c->name, &no, NULL, e) : 1;

	if (got < 0)
		return -1;
	if (!got && c->flags & CHANGED_STRAY) {
		wr_u64(&j->strays, dir);
		wr_str(&j->strays, c->name.p, c->name.len);
	}
	if (!got || !(c->flags & CHANGED_WANTED))
		return 0;
	bits_put(&j->wanted, no);
	if (!(c->flags & CHANGED_META))
		bits_put(&j->wanted_whole, no);
	return c->flags & CHANGED_SUBTREE ? want_below(j, no, e) : 0;
}

static int on_gone(void *ctx, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	struct job *j = ctx;

	return moves_gone(&j->moves, dir, name, no, e);
}

/* ---- second pass ---- */

static int put_gone(void *ctx, const struct moves_row *row, struct err *e)
{
	struct job *j = ctx;

	j->d->n_removed += !moves_is_attached(&j->moves, row->no);
	return emit_detach(&j->emit, row->dir, row->name, row->no, e);
}

/* Before anything else the replica hears what is wanted, even what goes now. */
static int put_wanted(struct job *j, struct err *e)
{
	uint64_t ref;

	for (uint64_t no = 0; no < j->wanted.len * 8; no++)
		if (bits_has(&j->wanted, no) && emit_ref(&j->emit, no, &ref, e))
			return -1;
	for (struct rd r = rd_of(j->strays.p, j->strays.len); r.len;) {
		struct record rec = {.type = REC_STRAY};
		uint64_t dir = rd_u64(&r);
		rec.u.stray.name = rd_str(&r, REC_NAME_MAX);
		if (emit_ref(&j->emit, dir, &rec.u.stray.parent, e) || emit_put(&j->emit, &rec, e))
			return -1;
	}
	return 0;
}

static int level_ref(struct job *j, size_t depth, uint64_t *ref, struct err *e)
{
	struct level *l = &j->levels[depth];

	if (!l->ref && emit_ref(&j->emit, l->base, &l->ref, e))
		return -1;
	*ref = l->ref;
	return 0;
}

/* ---- objects ---- */

static int put_create(struct job *j, const struct spool_item *it, uint64_t *ref, struct err *e)
{
	struct record r = {.type = REC_CREATE};
	uint64_t parent = 0;

	*ref = REF_NONE;
	if (it->depth == 0) {
		*ref = REF_ROOT;
	} else {
		if (level_ref(j, it->depth - 1, &parent, e))
			return -1;
		if (it->type == OBJ_DIR || it->link || it->type == OBJ_FILE)
			*ref = emit_new_ref(&j->emit);
	}
	r.u.create = (struct r_create){*ref, parent, it->type, it->name};
	j->d->n_created++;
	return emit_put(&j->emit, &r, e);
}

static int put_attach(struct job *j, const struct spool_item *it, uint64_t ref, struct err *e)
{
	struct record r = {.type = REC_ATTACH};
	uint64_t parent;

	if (level_ref(j, it->depth - 1, &parent, e))
		return -1;
	r.u.attach = (struct r_attach){ref, parent, it->name};
	j->d->n_moved++;
	return emit_put(&j->emit, &r, e);
}

/* What is in a directory will name it by its number. */
static int make_current(struct job *j, const struct spool_item *it, struct err *e)
{
	uint64_t ref;

	return (it->type == OBJ_DIR && emit_ref(&j->emit, it->base, &ref, e)) || emit_current(&j->emit, it->base, e) ? -1 : 0;
}

/* is_taken: the target has it as it is, or as it was a moment ago and no longer. */
static int one_object(struct job *j, struct spool_item *it, uint64_t *ref, bool *is_taken, struct err *e)
{
	struct diff *d = j->d;
	AUTO_CLOSE int fd = -1;
	struct attr a = {0};
	struct object old = {0}, prior = {0};
	int rc = -1;
	bool unsettled = false, lost = false, changed = false, wanted = bits_has(&j->wanted, it->base);
	bool only_meta = wanted && it->was_same && !bits_has(&j->wanted_whole, it->base);
	bool is_group = it->type == OBJ_DIR && it->a.hint.ino == 0 && it->depth == 0;
	int got = 1;

	*ref = REF_NONE;
	*is_taken = true;
	if (it->again) {
		if (it->how == SCAN_SAME || it->how == SCAN_SUSPECT)
			return 0;
		uint64_t r = it->base ? 0 : numbers_get(&j->links, it->link);
		if (it->base && emit_ref(&j->emit, it->base, &r, e))
			return -1;
		*is_taken = r; /* 0: the first name was lost */
		return r ? put_attach(j, it, r, e) : 0;
	}
	if (is_group) {
		scan_group_attr(&a);
	} else {
		got = target_get(&j->target, it, &fd, &a, e);
		if (got < 0)
			goto out;
	}
	*is_taken = got;
	if (!got && (it->how == SCAN_NEW) && it->type != OBJ_DIR) {
		rc = 0;
		goto out;
	}
	if (!got) /* a directory that others may hang below: as the scan saw it */
		a.meta = it->a.meta;
	if (it->base && catalog_get_sealed(d->base, it->base, &old, e))
		goto out;
	if (it->prior && it->how == SCAN_NEW && catalog_get(d->base, it->prior, &prior, e) < 0)
		goto out;
	if (it->how == SCAN_NEW) {
		if (it->type == OBJ_FILE && a.size > REC_SIZE_MAX) {
			char name[256];
			span_name(name, it->name);
			warn_say(d->warn, "too-large", "'%s' is too large", name);
			*is_taken = false;
			rc = 0;
			goto out;
		}
		if (put_create(j, it, ref, e) || emit_meta(&j->emit, &a.meta, e))
			goto out;
		if (it->link)
			*numbers_at(&j->links, it->link) = *ref;
	} else {
		if (it->how == SCAN_ATTACH && (emit_ref(&j->emit, it->base, ref, e) || put_attach(j, it, *ref, e)))
			goto out;
		if (!got) {
			/* A wanted directory is made all the same: others that are wanted may hang below. */
			rc = wanted && it->type == OBJ_DIR && (make_current(j, it, e) || emit_meta(&j->emit, &old.meta, e)) ? -1 : 0;
			goto out;
		}
		if (wanted || !attr_same(&a.meta, &old.meta)) {
			if (make_current(j, it, e) || emit_meta(&j->emit, &a.meta, e))
				goto out;
			changed = true;
		}
	}
	if (it->type == OBJ_FILE && !only_meta) {
		struct r_meta first = a.meta;
		struct ship_file p = {.fd = fd, .a = &a, .root = it->root, .no = it->base, .ref = *ref, .old = it->base && !wanted ? &old : NULL,
			.prior = it->prior ? &prior : NULL};
		if (ship_file(&j->ship, &p, e))
			goto out;
		unsettled = p.is_unsettled;
		lost = p.is_lost;
		changed |= p.differs;
		*is_taken = !lost && !unsettled;
		if (lost && wanted) {
			char text[512];
			err_set(e, ERR_SYSTEM, "'%s' did not hold still while it was read, and the replica has nothing to keep: try again",
				esc_cut(text, sizeof text, it->path));
			goto out;
		}
		if (lost) {
			char text[512];
			d->n_unsettled++;
			warn_say(d->warn, "unsettled", "'%s' did not hold still while it was read; the replica keeps what it had",
				esc_cut(text, sizeof text, it->path));
			struct record drop = {.type = REC_DROP};
			if (it->how == SCAN_NEW) {
				if (it->link)
					*numbers_at(&j->links, it->link) = 0;
				rc = emit_put(&j->emit, &drop, e);
				goto out;
			}
			if (!make_current(j, it, e) && !emit_meta(&j->emit, &old.meta, e))
				rc = ship_old(&j->ship, &old, e);
			goto out;
		}
		if (a.meta.mtime_s != first.mtime_s || a.meta.mtime_ns != first.mtime_ns) {
			/* what was taken is of a later moment than the first look */
			if ((it->base && make_current(j, it, e)) || emit_meta(&j->emit, &a.meta, e))
				goto out;
		}
		if (unsettled)
			d->n_unsettled++;
	}
	/* Content that was not looked at is not vouched for. */
	if (is_group || !got || only_meta)
		rc = 0;
	else if (it->how == SCAN_NEW)
		rc = emit_hint(&j->emit, &a, it->a.hint.dev, !unsettled, e);
	else
		rc = emit_base_hint(&j->emit, it->base, &a, it->a.hint.dev, !unsettled, e);
	if (changed)
		d->n_changed++;
out:
	attr_free(&a);
	object_free(&old);
	object_free(&prior);
	return rc;
}

/* The directory's number for this side alone: one of the base need not be introduced for it. */
static uint64_t local_ref(const struct job *j, size_t depth)
{
	const struct level *l = &j->levels[depth];

	return l->base ? l->base | REF_LOCAL : l->ref;
}

/* The next run has to look at this name again. The root is looked at anyway. */
static int miss(struct job *j, const struct spool_item *it, struct err *e)
{
	struct record r = {.type = REC_CHANGED};

	if (j->d->image_only || !it->depth)
		return 0;
	r.u.changed = (struct r_changed){local_ref(j, it->depth - 1), CHANGED_UNSETTLED, it->name};
	return emit_local(&j->emit, &r, e);
}

/* And at everything in this directory. */
static int miss_inside(struct job *j, const struct spool_item *it, struct err *e)
{
	struct record r = {.type = REC_GAP};

	if (j->d->image_only)
		return 0;
	r.u.gap = (struct r_gap){local_ref(j, it->depth), span_cstr("not all of it could be read")};
	return emit_local(&j->emit, &r, e);
}

static void enter(struct job *j, const struct spool_item *it, uint64_t ref)
{
	if (it->depth == j->cap_levels) {
		j->cap_levels = j->cap_levels ? j->cap_levels * 2 : 32;
		j->levels = xrealloc(j->levels, j->cap_levels * sizeof *j->levels);
	}
	j->levels[it->depth] = (struct level){it->base, it->depth ? ref : REF_ROOT};
}

static int second_look(void *ctx, struct spool_item *it, struct err *e)
{
	struct job *j = ctx;
	uint64_t ref = REF_NONE;
	bool is_taken;

	if (it->kind == SCAN_LEAVE)
		return it->unsure ? miss_inside(j, it, e) : 0;
	if (it->how == SCAN_SAME && bits_has(&j->wanted, it->base)) {
		it->how = SCAN_SUSPECT;
		it->was_same = true;
	}
	if (it->how != SCAN_SAME && (one_object(j, it, &ref, &is_taken, e) || (!is_taken && miss(j, it, e))))
		return -1;
	if (it->kind == SCAN_ENTER)
		enter(j, it, ref);
	if (j->d->progress)
		j->d->progress(j->d->ctx, j->ship.read, j->n_bytes, j->d->n_created + j->d->n_changed);
	return 0;
}

/* What is to be looked at again is none of a mending's business. */
static int keep_again(void *ctx, const struct image_again *a, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_GAP, .u.gap = {a->dir | REF_LOCAL, {0}}};

	if (a->name.len)
		r = (struct record){.type = REC_CHANGED, .u.changed = {a->dir | REF_LOCAL, CHANGED_UNSETTLED, a->name}};
	return emit_local(&j->emit, &r, e);
}

static int put_head(struct job *j, struct err *e)
{
	struct diff *d = j->d;
	struct record r = {.type = REC_IMAGE, .u.image = d->stamps};

	if (emit_put(&j->emit, &r, e))
		return -1;
	for (size_t i = 0; i < d->n_roots; i++) {
		r = (struct record){.type = REC_MEMBER, .u.member = d->members[i]};
		if (emit_put(&j->emit, &r, e))
			return -1;
	}
	if (d->image_only)
		return 0;
	r = (struct record){.type = REC_CURSOR};
	if (d->cursor) {
		r.u.cursor = *d->cursor;
		if (emit_local(&j->emit, &r, e))
			return -1;
	}
	r = (struct record){.type = REC_DELTA, .u.delta = {d->base_id, j->n_items + j->moves.n_gone, j->n_bytes}};
	return emit_put(&j->emit, &r, e) || (d->mends && image_again_each(d->base, keep_again, j, e)) ? -1 : 0;
}

static int finish(struct job *j, struct err *e)
{
	struct diff *d = j->d;

	if (emit_end(&j->emit, j->ship.sent, &d->id, e))
		return -1;
	if (stream_finish(d->plan, e) || (d->ready && d->ready(d->ctx, &d->id, e)))
		return -1;
	return stream_finish(d->out, e);
}

/* Looks at what the change stream says, as it was kept. */
static int read_again(struct job *j, struct err *e)
{
	struct input in = {0};

	if (tape_read(&j->tape, &in, e))
		return -1;
	int rc = changes_scan(&j->scan, &in, j->d->roots, j->d->n_roots, j->target.caches, NULL, e);
	input_close(&in);
	return rc;
}

/* Looks at everything, or once more at what was named, from the start, knowing better than the first time. */
static int scan_again(struct job *j, bool everything, struct err *e)
{
	moves_reset(&j->moves);
	j->n_items = j->n_bytes = j->n_new = 0;
	if (spool_reset(&j->spool, e))
		return -1;
	scan_free(&j->scan);
	int rc = everything ? scan_tree(&j->scan, j->d->roots, j->d->n_roots, e) : read_again(j, e);
	return rc || moves_rescue(&j->moves, e) ? -1 : 0;
}

/* A change stream against nothing says nothing more than "everything"; it still has to be whole. */
static bool is_guided(const struct diff *d) { return d->changes && !d->everything && !catalog_is_empty(d->base); }

static int first_pass(struct job *j, struct err *e)
{
	struct diff *d = j->d;

	if (is_guided(d)) {
		if (tape_open(&j->tape, d->tmpdir, e) ||
				changes_scan(&j->scan, d->changes, d->roots, d->n_roots, j->target.caches, &j->tape.out, e) ||
				tape_close(&j->tape, e))
			return -1;
		/* What is wanted went or moved meanwhile: where to, only all the names tell. */
		if (d->mends && !moves_is_empty(&j->moves))
			return scan_again(j, true, e);
	} else if ((d->changes && changes_pass(d->changes, e)) || scan_tree(&j->scan, d->roots, d->n_roots, e)) {
		return -1;
	}
	return moves_rescue(&j->moves, e);
}

static uint64_t on_guess(void *ctx, const struct attr *a)
{
	struct job *j = ctx;

	return guess_at(&j->guess, a);
}

static int guess(struct job *j, struct err *e)
{
	if (catalog_is_empty(j->d->base) || !j->moves.n_gone || !j->n_new)
		return 0;
	j->guess = (struct guess){.base = j->d->base, .items = &j->spool, .moves = &j->moves, .target = &j->target,
		.content = &j->ship.content};
	int got = guess_run(&j->guess, e);
	if (got <= 0)
		return got;
	j->scan.guess = on_guess;
	return scan_again(j, !is_guided(j->d) || j->d->mends, e);
}

int diff_run(struct diff *d, struct err *e)
{
	struct job j = {.d = d, .moves.base = d->base, .tape.fd = -1};
	int rc = -1;

	j.target = (struct target){.roots = d->roots, .n_roots = d->n_roots, .warn = d->warn};
	if (target_start(&j.target, e))
		goto out;
	j.scan = (struct scan){.base = d->base, .filter = d->filter, .prune_dev = d->prune_dev, .prune_ino = d->prune_ino,
		.root_dev = j.target.devs, .threads = d->threads, .one_file_system = d->one_file_system, .checksum = d->checksum,
		.is_group = d->n_roots && d->roots[0].name[0], .by_name = d->by_name, .tmpdir = d->tmpdir, .warn = d->warn,
		.item = on_item, .gone = on_gone, .wanted = d->mends ? on_wanted : NULL, .ctx = &j};
	/* When it mends, a directory may turn out to be wanted itself while what is in it is read. */
	j.spool = (struct spool){.tmpdir = d->tmpdir, .all_dirs = d->mends};
	if (spool_open(&j.spool, e))
		goto out;
	j.ship = (struct ship){.emit = &j.emit, .still = d->still, .grain = d->grain, .are_roots_still = d->are_roots_still,
		.ships_unsettled = d->ship_unsettled, .content = {.base = d->base, .copies = !d->no_copies && !d->image_only && !d->mends,
		.window.threads = pool_threads(d->threads)}};
	ship_start(&j.ship);
	if (catalog_id(d->base, &d->base_id, e) || first_pass(&j, e) || guess(&j, e))
		goto out;
	uint64_t objects;
	struct catalog *next = NULL;
	if (catalog_count(d->base, &objects, e) || d->next(d->ctx, j.n_items + j.moves.n_gone, &next, e))
		goto out;
	j.ship.content.everywhere = j.n_bytes / 64 >= objects;
	j.emit = (struct emit){.out = d->out, .plan = d->plan, .base = d->base, .wanted = &j.wanted, .image_only = d->image_only,
		.no_hints = d->no_hints, .edge_ns = d->edge_ns, .outgrown = d->outgrown, .ctx = d->ctx};
	if (emit_start(&j.emit, next, e) || put_head(&j, e) || put_wanted(&j, e) || moves_each(&j.moves, put_gone, &j, e) ||
		spool_replay(&j.spool, second_look, &j, e) || finish(&j, e))
		goto out;
	rc = 0;
out:
	d->n_looked_at = j.scan.entries;
	d->bytes_sent = j.ship.sent;
	d->bytes_looked_at = j.ship.looked_at;
	d->bytes_read = j.ship.read;
	emit_free(&j.emit);
	spool_free(&j.spool);
	tape_free(&j.tape);
	target_free(&j.target);
	free(j.levels);
	numbers_free(&j.links);
	guess_free(&j.guess);
	moves_free(&j.moves);
	buf_free(&j.wanted);
	buf_free(&j.wanted_whole);
	buf_free(&j.strays);
	scan_free(&j.scan);
	ship_free(&j.ship);
	return rc;
}
