#include "emit.h"

#include <grp.h>
#include <pwd.h>

int emit_start(struct emit *m, struct catalog *next, struct err *e)
{
	m->next = next;
	m->next_ref = REF_ROOT + 1;
	image_load_start(&m->loader, next);
	m->loader.local = true;
	if (next == m->base)
		catalog_see_base(next, true);
	return stream_begin(m->out, m->image_only ? KIND_IMAGE : KIND_DELTA, e) || stream_begin(m->plan, KIND_DELTA, e) ? -1 : 0;
}

int emit_end(struct emit *m, uint64_t bytes, struct digest *id, struct err *e)
{
	struct record r = {.type = REC_END, .u.end.bytes = bytes};

	catalog_see_base(m->next, false);
	if (image_load_end(&m->loader, id, e) || catalog_count(m->next, &r.u.end.entries, e))
		return -1;
	r.u.end.id = *id;
	return stream_put(m->out, &r, e) || stream_put(m->plan, &r, e) ? -1 : 0;
}

void emit_free(struct emit *m)
{
	if (m->next)
		catalog_see_base(m->next, false);
	m->next = NULL;
	numbers_free(&m->refs);
	numbers_free(&m->owners);
	image_loader_free(&m->loader);
}

/* ---- one record to everybody ---- */

static int outgrow(struct emit *m, struct err *e)
{
	catalog_see_base(m->base, false);
	image_loader_free(&m->loader);
	return m->outgrown(m->ctx, &m->loader, m->plan->at.records, &m->next, e);
}

/* The plan has the record already. */
static int load(struct emit *m, const struct record *r, struct err *e)
{
	catalog_see_base(m->next, false);
	struct err why = {0};
	int rc = image_load(&m->loader, r, &why);
	if (m->next == m->base)
		catalog_see_base(m->next, true);
	/* The records are our own, made from the base. */
	if (why.kind == ERR_STREAM || why.kind == ERR_MISMATCH)
		return catalog_damaged(m->base, "its rows do not fit together", e);
	if (rc)
		*e = why;
	return rc || m->next != m->base || !catalog_is_large(m->base) ? rc : outgrow(m, e);
}

/* theirs: the same for those who read the delta; the plan and the catalog know the object by its own number. */
static int put_both(struct emit *m, const struct record *theirs, const struct record *r, struct err *e)
{
	bool bulk = r->type == REC_DATA || r->type == REC_COPY || r->type == REC_HOLE;

	if (bulk && m->image_only)
		return 0;
	if (r->type == REC_BASE || r->type == REC_CREATE || r->type == REC_ATTACH || r->type == REC_OBJECT ||
			r->type == REC_STRAY)
		m->current = 0;
	if (stream_put(m->out, theirs, e))
		return -1;
	return bulk ? 0 : stream_put(m->plan, r, e) || load(m, r, e) ? -1 : 0;
}

int emit_put(struct emit *m, const struct record *r, struct err *e) { return put_both(m, r, r, e); }

int emit_local(struct emit *m, const struct record *r, struct err *e)
{
	if (m->image_only && stream_put(m->out, r, e))
		return -1;
	return stream_put(m->plan, r, e) || load(m, r, e) ? -1 : 0;
}

/* ---- numbers ---- */

uint64_t emit_new_ref(struct emit *m) { return m->next_ref++; }

uint64_t emit_known_ref(const struct emit *m, uint64_t no) { return no == CATALOG_ROOT ? REF_ROOT : numbers_get(&m->refs, no); }

uint64_t emit_object(const struct emit *m, uint64_t ref) { return image_ref(&m->loader, ref); }

static int put_base(struct emit *m, uint64_t no, const struct r_base *b, struct err *e)
{
	struct record theirs = {.type = REC_BASE, .u.base = *b};

	if (bits_has(m->wanted, no))
		theirs.u.base.flags |= BASE_WANTED;
	struct record r = theirs;
	if (b->ref == REF_NONE)
		r.u.base.ref = no | REF_LOCAL;
	if (put_both(m, &theirs, &r, e))
		return -1;
	m->current = b->flags & BASE_DETACH ? 0 : no;
	return 0;
}

static int introduce(struct emit *m, uint64_t no, bool is_numbered, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	uint64_t dir;
	struct r_base b = {.ref = REF_NONE};

	int got = catalog_name(m->base, no, &dir, &name, e);
	if (got != 1)
		return got ? -1 : catalog_damaged(m->base, "an object in it has no name", e);
	if (emit_ref(m, dir, &b.parent, e))
		return -1;
	if (is_numbered)
		b.ref = *numbers_at(&m->refs, no) = emit_new_ref(m);
	b.name = span_of(name.p, name.len);
	return put_base(m, no, &b, e);
}

int emit_ref(struct emit *m, uint64_t no, uint64_t *ref, struct err *e)
{
	*ref = emit_known_ref(m, no);
	if (*ref)
		return 0;
	if (introduce(m, no, true, e))
		return -1;
	*ref = emit_known_ref(m, no);
	return 0;
}

int emit_current(struct emit *m, uint64_t no, struct err *e)
{
	struct record r = {.type = REC_OBJECT, .u.object.ref = emit_known_ref(m, no)};

	if (m->current == no)
		return 0;
	if (!r.u.object.ref)
		return introduce(m, no, false, e);
	if (emit_put(m, &r, e))
		return -1;
	m->current = no;
	return 0;
}

int emit_detach(struct emit *m, uint64_t dir, struct span name, uint64_t no, struct err *e)
{
	uint64_t parent;

	if (emit_ref(m, dir, &parent, e))
		return -1;
	uint64_t *ref = numbers_at(&m->refs, no);
	if (!*ref)
		*ref = emit_new_ref(m);
	struct r_base b = {.ref = *ref, .parent = parent, .flags = BASE_DETACH, .name = name};
	return put_base(m, no, &b, e);
}

/* ---- of the current object ---- */

/* A name once per stream, and only where there is one. */
static int put_owner(struct emit *m, bool is_group, uint32_t id, struct err *e)
{
	uint64_t *seen = numbers_at(&m->owners, ((uint64_t)id << 1 | is_group) + 1);
	char text[4096];
	const char *name = NULL;

	if (*seen)
		return 0;
	*seen = 1;
	if (is_group) {
		struct group g, *found = NULL;
		if (!getgrgid_r(id, &g, text, sizeof text, &found) && found)
			name = found->gr_name;
	} else {
		struct passwd p, *found = NULL;
		if (!getpwuid_r(id, &p, text, sizeof text, &found) && found)
			name = found->pw_name;
	}
	if (!name || strlen(name) > REC_TEXT_MAX)
		return 0;
	struct record r = {.type = REC_OWNER, .u.owner = {is_group, id, span_cstr(name)}};
	return emit_put(m, &r, e);
}

int emit_meta(struct emit *m, const struct r_meta *meta, struct err *e)
{
	struct record r = {.type = REC_META, .u.meta = *meta};

	return put_owner(m, false, meta->uid, e) || put_owner(m, true, meta->gid, e) || emit_put(m, &r, e) ? -1 : 0;
}

int emit_hint(struct emit *m, const struct attr *a, uint64_t dev, bool settled, struct err *e)
{
	struct record r = {.type = REC_HINT, .u.hint = a->hint};
	int64_t ct, edge = m->edge_ns;

	if (m->no_hints)
		return 0;
	r.u.hint.dev = dev;
	/* An object changed within the clock's tick of the image, or after, may change again unseen: look at it next time.
	 * Filesystems with whole-second stamps are given two seconds. */
	ct = a->hint.ctime_s * 1000000000 + a->hint.ctime_ns;
	if (edge && settled && ct < edge - (a->hint.ctime_ns ? 20000000 : 2000000000))
		r.u.hint.flags = HINT_SETTLED;
	return emit_local(m, &r, e);
}

int emit_base_hint(struct emit *m, uint64_t no, const struct attr *a, uint64_t dev, bool settled, struct err *e)
{
	struct record r = {.type = REC_OBJECT, .u.object.ref = no | REF_LOCAL};

	if (m->image_only)
		return 0;
	if (m->current != no) {
		m->current = 0; /* in the plan, which alone hears of it */
		if (emit_local(m, &r, e))
			return -1;
	}
	return emit_hint(m, a, dev, settled, e);
}
