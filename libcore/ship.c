#include "ship.h"

#include "bytes.h"
#include "extents.h"

/* ---- what content says ---- */

static int content_begin(struct ship *s, struct err *e)
{
	struct record r = {.type = REC_CONTENT};

	if (s->is_begun)
		return 0;
	s->is_begun = true;
	if (s->no && emit_current(s->emit, s->no, e))
		return -1;
	r.u.content.flags = s->is_patch ? CONTENT_PATCH : 0;
	r.u.content.grain = s->now_grain;
	return emit_put(s->emit, &r, e);
}

static int flush_copy(struct ship *s, struct err *e)
{
	struct record r = {.type = REC_COPY, .u.copy = {s->copy.off, s->copy.len, 0, s->copy.src}};
	uint64_t no = s->copy.ref, old = emit_known_ref(s->emit, no);

	if (!s->copy.len)
		return 0;
	s->copy.len = 0;
	/* Introducing the source makes it current; the file is made current again. */
	if (!old) {
		struct record back = {.type = REC_OBJECT, .u.object.ref = s->ref};
		if (emit_ref(s->emit, no, &old, e) || (s->no ? emit_current(s->emit, s->no, e) : emit_put(s->emit, &back, e)))
			return -1;
	}
	r.u.copy.ref = old;
	return emit_put(s->emit, &r, e);
}

static int on_data(void *ctx, uint64_t off, const struct digest *d, struct span bytes, struct err *e)
{
	struct ship *s = ctx;
	struct record r = {.type = REC_DATA, .u.data = {off, *d, bytes}};

	s->sent += bytes.len;
	return content_begin(s, e) || flush_copy(s, e) || emit_put(s->emit, &r, e) ? -1 : 0;
}

#define COPY_MOST (UINT64_C(16) << 20) /* what the replica has to do anyway, it may begin with */

/* Copies come block by block; what joins goes out as one. (copy.ref holds the base object's number here.) */
static int on_copy(void *ctx, uint64_t off, uint64_t len, uint64_t no, uint64_t src, struct err *e)
{
	struct ship *s = ctx;
	struct r_copy *c = &s->copy;

	if (c->len && c->ref == no && c->off + c->len == off && c->src + c->len == src && c->len < COPY_MOST) {
		c->len += len;
		return 0;
	}
	if (content_begin(s, e) || flush_copy(s, e))
		return -1;
	*c = (struct r_copy){off, len, no, src};
	return 0;
}

static int on_hole(void *ctx, uint64_t off, uint64_t len, struct err *e)
{
	struct ship *s = ctx;
	struct record r = {.type = REC_HOLE, .u.hole = {off, len}};

	return content_begin(s, e) || flush_copy(s, e) || emit_put(s->emit, &r, e) ? -1 : 0;
}

static int on_rows(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	struct ship *s = ctx;
	struct record r = {.type = REC_DIGESTS, .u.digests = {first, span_of(rows, n * DIGESTS_ROW)}};

	return content_begin(s, e) || emit_local(s->emit, &r, e) ? -1 : 0;
}

void ship_start(struct ship *s)
{
	s->content.data = on_data;
	s->content.copy = on_copy;
	s->content.hole = on_hole;
	s->content.rows = on_rows;
	s->content.ctx = s;
}

void ship_free(struct ship *s) { content_free(&s->content); }

/* ---- a file ---- */

static bool moved_on(const struct attr *a, const struct attr *b)
{
	return a->hint.ctime_s != b->hint.ctime_s || a->hint.ctime_ns != b->hint.ctime_ns || a->size != b->size ||
		a->meta.mtime_s != b->meta.mtime_s || a->meta.mtime_ns != b->meta.mtime_ns;
}

static int seal(struct ship *s, uint64_t size, const struct digest *d, bool unsettled, struct err *e)
{
	struct record r = {.type = REC_SEAL, .u.seal = {size, *d, unsettled ? SEAL_UNSETTLED : 0}};

	return content_begin(s, e) || flush_copy(s, e) || emit_put(s->emit, &r, e) ? -1 : 0;
}

/* What was put of a file's content does not count: it begins again, in the state that the base has where it is a patch. */
static int start_over(struct ship *s, const struct object *old, struct err *e)
{
	uint64_t n = s->is_patch && old->size >= DIGEST_LEAF ? object_blocks(old->size, s->now_grain) : 0;
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	int got = 0;

	s->is_begun = false;
	s->copy.len = 0;
	if (content_begin(s, e))
		return -1;
	for (uint64_t at = 0; n && (got = catalog_blocks_some(s->content.base, old->no, &at, n, rows, e)) > 0; at += (uint64_t)got)
		if (on_rows(s, at, (size_t)got, rows, e))
			return -1;
	return got;
}

/* Below this, reading it costs no more than finding out what need not be read. */
#define SHARED_MIN (128u * 1024)

/* is_still: nobody writes to what is read. */
static int put_read(struct ship *s, struct content_file *f, const struct object *old, bool is_still, struct err *e)
{
	AUTO_CLOSE int was = -1;

	f->only_digest = false;
	/* Of a single block nothing is kept when it changes: the replica need not even look at what it has. */
	s->is_patch = f->old && !f->is_prior && (f->old->size > f->grain || f->size > f->grain);
	if (s->is_begun && start_over(s, old, e))
		return -1;
	if (is_still && s->still.old && (s->is_patch || (f->old && f->is_prior)) && f->size >= SHARED_MIN && old->size >= SHARED_MIN)
		was = s->still.old(s->still.ctx, old);
	struct extents *shared = was < 0 ? NULL : extents_open(was, f->fd, min_u64(f->size, old->size));
	f->shared = shared;
	int rc = content_run(&s->content, f, e);
	f->shared = NULL;
	extents_close(&shared);
	s->read += f->read;
	s->looked_at += f->size;
	return rc;
}

/* A copy of one instant, of the moment that *a speaks of where the file holds still for so long; *unsettled: it did not. */
static int take_still(struct ship *s, struct ship_file *p, struct err *e)
{
	struct attr now = {0};
	int copy = -1;

	for (unsigned try = 0; try < 3 && s->still.take; try++) {
		close_fd(&copy);
		copy = s->still.take(s->still.ctx, p->root, p->fd, p->a->size);
		if (copy < 0)
			break;
		if (attr_stat(&now, p->fd, NULL, e)) {
			close_fd(&copy);
			break;
		}
		p->is_unsettled = moved_on(p->a, &now);
		if (!p->is_unsettled)
			break;
		if (attr_stat(p->a, p->fd, NULL, e)) {
			close_fd(&copy);
			break;
		}
	}
	attr_free(&now);
	p->is_unsettled &= copy >= 0;
	return copy;
}

static int seal_file(struct ship *s, const struct ship_file *p, const struct content_file *f, struct err *e)
{
	const struct object *old = p->old;

	if (old && !f->is_prior && !s->is_begun && old->size == f->size && digest_eq(&old->content, &f->digest))
		return 0;
	return seal(s, f->size, &f->digest, p->is_unsettled, e);
}

/* From what nobody writes to. */
static int put_still(struct ship *s, struct ship_file *p, struct content_file *f, int copy, struct err *e)
{
	struct attr a = {0};
	int rc = copy < 0 ? 0 : attr_stat(&a, copy, NULL, e);

	f->size = copy < 0 ? p->a->size : a.size;
	attr_free(&a);
	f->fd = copy < 0 ? p->fd : copy;
	if (!rc)
		rc = put_read(s, f, p->old, true, e);
	if (rc && f->is_short)
		return err_set(e, ERR_SYSTEM, "somebody wrote to a clone or a snapshot while it was read");
	if (rc || seal_file(s, p, f, e))
		return -1;
	if (copy >= 0)
		s->still.keep(s->still.ctx, p->root, copy, p->no ? p->no : emit_object(s->emit, p->ref), f->size, &f->digest);
	return 0;
}

/* From the file itself, until it holds still. */
static int put_live(struct ship *s, struct ship_file *p, struct content_file *f, struct err *e)
{
	struct attr after = {0};
	int rc = -1;

	for (unsigned try = 0; try < 3; try++) {
		f->size = p->a->size;
		if (put_read(s, f, p->old, false, e) && !f->is_short)
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
				if (content_run(&s->content, f, e) && !f->is_short)
					goto out;
				bool is_same = !f->is_short && digest_eq(&first, &f->digest);
				/* Of what was put, not of what is there by now. */
				f->differs = differs;
				f->digest = first;
				if (is_same) {
					p->is_unsettled = true;
					goto good;
				}
			}
		}
		if (attr_stat(p->a, p->fd, NULL, e))
			goto out;
	}
	if (!s->ships_unsettled || f->is_short) {
		p->is_lost = true;
		rc = 0;
		goto out;
	}
	p->is_unsettled = true;
good:
	rc = seal_file(s, p, f, e);
out:
	attr_free(&after);
	return rc;
}

int ship_file(struct ship *s, struct ship_file *p, struct err *e)
{
	struct content_file f = {.fd = p->fd, .zeros_are_holes = !p->a->hint.ino};

	f.is_prior = !p->old && p->prior && p->prior->type == OBJ_FILE && p->prior->size && s->content.copies;
	if (f.is_prior)
		p->old = p->prior;
	f.grain = s->grain ? s->grain : p->old && p->old->grain ? p->old->grain : content_grain(p->a->size);
	f.old = p->old && p->old->size && p->old->grain == f.grain ? p->old : NULL;
	s->no = p->no;
	s->ref = p->ref;
	s->now_grain = f.grain;
	s->is_begun = false;
	s->copy.len = 0;
	AUTO_CLOSE int copy = take_still(s, p, e);
	if (e->kind)
		return -1;
	int rc = copy >= 0 || s->are_roots_still ? put_still(s, p, &f, copy, e) : put_live(s, p, &f, e);
	p->differs = s->is_begun;
	return rc;
}

int ship_old(struct ship *s, const struct object *old, struct err *e)
{
	s->is_patch = true; /* without extents */
	s->now_grain = old->grain ? old->grain : DIGEST_GRAIN_MIN;
	return start_over(s, old, e) || seal(s, old->size, &old->content, true, e) ? -1 : 0;
}
