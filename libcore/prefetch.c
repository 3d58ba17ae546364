#include "prefetch.h"

#define WINDOW CATALOG_AHEAD_MAX
#define FEW 4u /* are waited for */
#define NOWHERE SIZE_MAX

struct named {
	uint64_t ref, parent, no;
	size_t up; /* which of those before it is its directory; NOWHERE: the reader knows it */
	struct span name;
	bool was_asked;
};

static bool is_named(struct named *n, const struct record *r)
{
	*n = (struct named){.up = NOWHERE};
	switch ((enum rec_type)r->type) {
	case REC_BASE:
		n->ref = r->u.base.ref;
		n->parent = r->u.base.parent;
		n->name = r->u.base.name;
		return true;
	case REC_DIR:
		n->ref = r->u.dir.ref;
		n->parent = r->u.dir.parent;
		n->name = r->u.dir.name;
		return n->name.len;
	case REC_CHANGED:
		n->parent = r->u.changed.parent;
		n->name = r->u.changed.name;
		return n->name.len;
	default:
		return false;
	}
}

static size_t gather(struct prefetch *p, const struct stream_in *s, struct named *v)
{
	size_t n = 0, at = 0;
	struct record r;

	while (n < WINDOW && stream_peek(s, &at, &r)) {
		if (!is_named(&v[n], &r))
			continue;
		for (size_t k = n; k-- && v[n].up == NOWHERE;)
			if (v[k].ref && v[k].ref == v[n].parent)
				v[n].up = k;
		n++;
	}
	p->until = s->off + s->raw.len + at;
	return n;
}

/* Those whose directory is known by now are asked for together, then looked up. false: there are none. */
static bool look_up(const struct prefetch *p, struct catalog *c, struct named *v, size_t n)
{
	struct rows_place place[WINDOW];
	struct err ignored = {0};
	size_t which[WINDOW], m = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t dir = v[i].up == NOWHERE ? p->known(p->ctx, v[i].parent) : v[v[i].up].no;
		if (v[i].was_asked || !dir)
			continue;
		v[i].was_asked = true;
		place[m] = (struct rows_place){dir, v[i].name};
		which[m++] = i;
	}
	catalog_ahead_names(c, place, m);
	for (size_t i = 0; i < m; i++)
		if (catalog_lookup(c, place[i].dir, place[i].name, &v[which[i]].no, NULL, &ignored) != 1)
			v[which[i]].no = 0;
	return m > 0;
}

static void ask_inodes(struct catalog *c, const uint64_t *no, size_t n)
{
	struct r_hint hint[WINDOW];
	struct object o = {0};
	struct err ignored = {0};
	size_t m = 0;

	for (size_t i = 0; i < n; i++)
		if (catalog_get(c, no[i], &o, &ignored) == 1 && o.type != OBJ_DIR && o.hint.ino)
			hint[m++] = o.hint;
	object_free(&o);
	catalog_ahead_inodes(c, hint, m);
}

void prefetch_run(struct prefetch *p, struct catalog *c, const struct stream_in *s)
{
	struct named v[WINDOW];
	uint64_t no[WINDOW];
	size_t n, m = 0;

	if (s->off < p->until || (n = gather(p, s, v)) < FEW)
		return;
	while (look_up(p, c, v, n))
		;
	for (size_t i = 0; i < n; i++)
		if (v[i].no)
			no[m++] = v[i].no;
	m = rows_sort(no, m);
	catalog_ahead_objects(c, no, m);
	if (p->inodes)
		ask_inodes(c, no, m);
}
