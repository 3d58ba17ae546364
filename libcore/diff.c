#include "diff.h"

#include <stdlib.h>

#include "changes.h"
#include "emit.h"
#include "extents.h"
#include "guess.h"
#include "moves.h"
#include "numbers.h"
#include "pool.h"
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
	struct content content;
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
	/* the object whose content is being reported */
	struct object *cur_old;
	uint64_t cur_ref;
	bool cur_begun, cur_patch;
	uint32_t cur_grain;
	struct r_copy copy; /* not sent yet; len 0: none */
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

/* ---- content callbacks ---- */

static int content_begin(struct job *j, struct err *e)
{
	struct record r = {.type = REC_CONTENT};

	if (j->cur_begun)
		return 0;
	j->cur_begun = true;
	if (j->cur_old && emit_current(&j->emit, j->cur_old->no, e))
		return -1;
	r.u.content.flags = j->cur_patch ? CONTENT_PATCH : 0;
	r.u.content.grain = j->cur_grain;
	return emit_put(&j->emit, &r, e);
}

static int flush_copy(struct job *j, struct err *e)
{
	struct record r = {.type = REC_COPY, .u.copy = {j->copy.off, j->copy.len, 0, j->copy.src}};
	uint64_t no = j->copy.ref, old = emit_known_ref(&j->emit, no);

	if (!j->copy.len)
		return 0;
	j->copy.len = 0;
	/* Introducing the source makes it current; the file is made current again. */
	if (!old) {
		if (emit_ref(&j->emit, no, &old, e))
			return -1;
		struct record back = {.type = REC_OBJECT, .u.object.ref = j->cur_ref};
		if (j->cur_old)
			back.u.object.ref = emit_known_ref(&j->emit, j->cur_old->no);
		if (back.u.object.ref != old && emit_put(&j->emit, &back, e))
			return -1;
	}
	r.u.copy.ref = old;
	return emit_put(&j->emit, &r, e);
}

static int on_data(void *ctx, uint64_t off, const struct digest *d, struct span bytes, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_DATA, .u.data = {off, *d, bytes}};

	j->d->bytes_sent += bytes.len;
	return content_begin(j, e) || flush_copy(j, e) || emit_put(&j->emit, &r, e) ? -1 : 0;
}

/* Copies come block by block; what joins goes out as one. (copy.ref holds the base object's number here.) */
static int on_copy(void *ctx, uint64_t off, uint64_t len, uint64_t no, uint64_t src, struct err *e)
{
	struct job *j = ctx;
	struct r_copy *c = &j->copy;

	if (c->len && c->ref == no && c->off + c->len == off && c->src + c->len == src) {
		c->len += len;
		return 0;
	}
	if (content_begin(j, e) || flush_copy(j, e))
		return -1;
	*c = (struct r_copy){off, len, no, src};
	return 0;
}

static int on_hole(void *ctx, uint64_t off, uint64_t len, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_HOLE, .u.hole = {off, len}};

	return content_begin(j, e) || flush_copy(j, e) || emit_put(&j->emit, &r, e) ? -1 : 0;
}

static int on_rows(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_DIGESTS, .u.digests = {first, span_of(rows, n * DIGESTS_ROW)}};

	return content_begin(j, e) || emit_local(&j->emit, &r, e) ? -1 : 0;
}

/* ---- objects ---- */

static bool moved_on(const struct attr *a, const struct attr *b)
{
	return a->hint.ctime_s != b->hint.ctime_s || a->hint.ctime_ns != b->hint.ctime_ns || a->size != b->size ||
		a->meta.mtime_s != b->meta.mtime_s || a->meta.mtime_ns != b->meta.mtime_ns;
}

static int seal(struct job *j, uint64_t size, const struct digest *d, bool unsettled, struct err *e)
{
	struct record r = {.type = REC_SEAL, .u.seal = {size, *d, unsettled ? SEAL_UNSETTLED : 0}};

	return content_begin(j, e) || flush_copy(j, e) || emit_put(&j->emit, &r, e) ? -1 : 0;
}

/* What was put of a file's content does not count: it begins again, in the state that the base has where it is a patch. */
static int start_over(struct job *j, const struct object *old, struct err *e)
{
	uint64_t n = j->cur_patch && old->size >= DIGEST_LEAF ? object_blocks(old->size, j->cur_grain) : 0;
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];

	j->cur_begun = false;
	j->copy.len = 0;
	if (content_begin(j, e))
		return -1;
	for (uint64_t first = 0; first < n; first += BLOCKS_ROWS) {
		size_t take = (size_t)min_u64(BLOCKS_ROWS, n - first);
		if (catalog_blocks(j->d->base, old->no, first, take, rows, e) || on_rows(j, first, take, rows, e))
			return -1;
	}
	return 0;
}

/* One file whose content is put. */
struct putting {
	int fd;
	struct attr *a;             /* of it; of a later moment when it moved */
	const struct object *old;   /* in the base, NULL: compared with nothing */
	bool is_prior;              /* old is what had its name */
	size_t root;
	uint64_t no;                /* in the target's catalog */
	/* out */
	bool unsettled;             /* it changed under us but what was taken is whole */
	bool lost;                  /* it never held still */
};

/* Below this, reading it costs no more than finding out what need not be read. */
#define SHARED_MIN (128u * 1024)

/* is_still: nobody writes to what is read. */
static int put_read(struct job *j, struct content_file *f, const struct object *old, bool is_still, struct err *e)
{
	AUTO_CLOSE int was = -1;

	f->only_digest = false;
	/* Of a single block nothing is kept when it changes: the replica need not even look at what it has. */
	j->cur_patch = f->old && !f->is_prior && (f->old->size > f->grain || f->size > f->grain);
	if (j->cur_begun && start_over(j, old, e))
		return -1;
	if (is_still && j->d->still.old && (j->cur_patch || (f->old && f->is_prior)) && f->size >= SHARED_MIN && old->size >= SHARED_MIN)
		was = j->d->still.old(j->d->still.ctx, old);
	struct extents *shared = was < 0 ? NULL : extents_open(was, f->fd, min_u64(f->size, old->size));
	f->shared = shared;
	int rc = content_run(&j->content, f, e);
	f->shared = NULL;
	extents_close(&shared);
	j->d->bytes_read += f->read;
	j->d->bytes_looked_at += f->size;
	return rc;
}

/* A copy of one instant, of the moment that *a speaks of where the file holds still for so long; *unsettled: it did not. */
static int take_still(struct job *j, struct putting *p, struct err *e)
{
	struct attr now = {0};
	int copy = -1;

	for (unsigned try = 0; try < 3 && j->d->still.take; try++) {
		close_fd(&copy);
		copy = j->d->still.take(j->d->still.ctx, p->root, p->fd, p->a->size);
		if (copy < 0)
			break;
		if (attr_stat(&now, p->fd, NULL, e)) {
			close_fd(&copy);
			break;
		}
		p->unsettled = moved_on(p->a, &now);
		if (!p->unsettled)
			break;
		if (attr_stat(p->a, p->fd, NULL, e)) {
			close_fd(&copy);
			break;
		}
	}
	attr_free(&now);
	p->unsettled &= copy >= 0;
	return copy;
}

static int seal_file(struct job *j, const struct putting *p, const struct content_file *f, struct err *e)
{
	const struct object *old = p->old;

	if (old && !p->is_prior && !j->cur_begun && old->size == f->size && digest_eq(&old->content, &f->digest))
		return 0;
	return seal(j, f->size, &f->digest, p->unsettled, e);
}

/* From what nobody writes to. */
static int put_still(struct job *j, struct putting *p, struct content_file *f, int copy, struct err *e)
{
	struct attr a = {0};
	int rc = copy < 0 ? 0 : attr_stat(&a, copy, NULL, e);

	f->size = copy < 0 ? p->a->size : a.size;
	attr_free(&a);
	f->fd = copy < 0 ? p->fd : copy;
	if (!rc)
		rc = put_read(j, f, p->old, true, e);
	if (rc && f->is_short)
		return err_set(e, ERR_SYSTEM, "somebody wrote to a clone or a snapshot while it was read");
	if (rc || seal_file(j, p, f, e))
		return -1;
	if (copy >= 0)
		j->d->still.keep(j->d->still.ctx, p->root, copy, p->no, f->size, &f->digest);
	return 0;
}

/* From the file itself, until it holds still. */
static int put_live(struct job *j, struct putting *p, struct content_file *f, struct err *e)
{
	struct attr after = {0};
	int rc = -1;

	for (unsigned try = 0; try < 3; try++) {
		f->size = p->a->size;
		if (put_read(j, f, p->old, false, e) && !f->is_short)
			goto out;
		if (!f->is_short) {
			if (attr_stat(&after, p->fd, NULL, e))
				goto out;
			if (!moved_on(p->a, &after))
				goto good;
			/* It moved. Is what we took at least one state of it? Read as much again. */
			if (after.size >= f->size) {
				struct digest first = f->digest;
				bool differs = f->differs;
				f->only_digest = true;
				if (content_run(&j->content, f, e) && !f->is_short)
					goto out;
				bool is_same = !f->is_short && digest_eq(&first, &f->digest);
				/* Of what was put, not of what is there by now. */
				f->differs = differs;
				f->digest = first;
				if (is_same) {
					p->unsettled = true;
					goto good;
				}
			}
		}
		if (attr_stat(p->a, p->fd, NULL, e))
			goto out;
	}
	if (!j->d->ship_unsettled || f->is_short) {
		p->lost = true;
		rc = 0;
		goto out;
	}
	p->unsettled = true;
good:
	rc = seal_file(j, p, f, e);
out:
	attr_free(&after);
	return rc;
}

static int put_content(struct job *j, struct putting *p, const struct object *prior, struct err *e)
{
	struct content_file f = {.fd = p->fd, .zeros_are_holes = !p->a->hint.ino};

	if (!p->old && prior && prior->type == OBJ_FILE && prior->size && j->content.copies) {
		p->old = prior;
		p->is_prior = true;
	}
	f.grain = j->d->grain ? j->d->grain : p->old && p->old->grain ? p->old->grain : content_grain(p->a->size);
	f.old = p->old && p->old->size && p->old->grain == f.grain ? p->old : NULL;
	f.is_prior = p->is_prior;
	j->cur_grain = f.grain;
	j->cur_begun = false;
	j->copy.len = 0;
	AUTO_CLOSE int copy = take_still(j, p, e);
	if (e->kind)
		return -1;
	return copy >= 0 || j->d->are_roots_still ? put_still(j, p, &f, copy, e) : put_live(j, p, &f, e);
}

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
		j->cur_old = NULL;
		j->cur_ref = *ref;
	} else {
		if (it->how == SCAN_ATTACH && (emit_ref(&j->emit, it->base, ref, e) || put_attach(j, it, *ref, e)))
			goto out;
		if (!got) {
			/* A wanted directory is made all the same: others that are wanted may hang below. */
			rc = wanted && it->type == OBJ_DIR && (emit_current(&j->emit, it->base, e) || emit_meta(&j->emit, &old.meta, e)) ? -1 : 0;
			goto out;
		}
		if (wanted || !attr_same(&a.meta, &old.meta)) {
			if (emit_current(&j->emit, it->base, e) || emit_meta(&j->emit, &a.meta, e))
				goto out;
			changed = true;
		}
		j->cur_old = &old;
	}
	if (it->type == OBJ_FILE && !only_meta) {
		struct r_meta first = a.meta;
		struct putting p = {.fd = fd, .a = &a, .old = it->base && !wanted ? &old : NULL, .root = it->root,
			.no = it->base ? it->base : emit_object(&j->emit, *ref)};
		if (put_content(j, &p, it->prior ? &prior : NULL, e))
			goto out;
		unsettled = p.unsettled;
		lost = p.lost;
		changed |= j->cur_begun;
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
			/* Back to the base's state: a patch without extents. */
			if (emit_current(&j->emit, it->base, e) || emit_meta(&j->emit, &old.meta, e))
				goto out;
			j->cur_patch = true;
			j->cur_grain = old.grain ? old.grain : DIGEST_GRAIN_MIN;
			rc = start_over(j, &old, e) || seal(j, old.size, &old.content, true, e) ? -1 : 0;
			goto out;
		}
		if (a.meta.mtime_s != first.mtime_s || a.meta.mtime_ns != first.mtime_ns) {
			/* what was taken is of a later moment than the first look */
			if ((it->base && emit_current(&j->emit, it->base, e)) || emit_meta(&j->emit, &a.meta, e))
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

	return l->base ? l->base | UINT64_C(1) << 63 : l->ref;
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
		j->d->progress(j->d->ctx, j->d->bytes_read, j->n_bytes, j->d->n_created + j->d->n_changed);
	return 0;
}

/* What is to be looked at again is none of a mending's business. */
static int keep_again(void *ctx, const struct image_again *a, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_GAP, .u.gap = {a->dir | UINT64_C(1) << 63, {0}}};

	if (a->name.len)
		r = (struct record){.type = REC_CHANGED, .u.changed = {a->dir | UINT64_C(1) << 63, CHANGED_UNSETTLED, a->name}};
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

	if (emit_end(&j->emit, d->bytes_sent, &d->id, e))
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
		.content = &j->content};
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
	j.content = (struct content){.base = d->base, .copies = !d->no_copies && !d->image_only && !d->mends,
		.window.threads = pool_threads(d->threads), .data = on_data, .copy = on_copy, .hole = on_hole, .rows = on_rows, .ctx = &j};
	if (catalog_id(d->base, &d->base_id, e) || first_pass(&j, e) || guess(&j, e))
		goto out;
	uint64_t objects;
	struct catalog *next = NULL;
	if (catalog_count(d->base, &objects, e) || d->next(d->ctx, j.n_items + j.moves.n_gone, j.n_bytes, &next, e))
		goto out;
	j.content.everywhere = j.n_bytes / 64 >= objects;
	j.emit = (struct emit){.out = d->out, .plan = d->plan, .base = d->base, .wanted = &j.wanted, .image_only = d->image_only,
		.no_hints = d->no_hints, .edge_ns = d->edge_ns};
	if (emit_start(&j.emit, next, e) || put_head(&j, e) || put_wanted(&j, e) || moves_each(&j.moves, put_gone, &j, e) ||
		spool_replay(&j.spool, second_look, &j, e) || finish(&j, e))
		goto out;
	rc = 0;
out:
	d->n_looked_at = j.scan.entries;
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
	content_free(&j.content);
	return rc;
}
