/*
 * facts: what a change stream says, as a set: of each path whether it may have changed, and whether all below it may have. The
 * model that joining is held against, in unit tests and under the fuzzer; it knows nothing of merge.
 */
#ifndef REPL_FACTS_H
#define REPL_FACTS_H

#include <stdlib.h>

#include "stream.h"

struct fact {
	char *path;     /* "" is the root */
	uint8_t flags;  /* of all CHANGED records of it */
	bool is_whole;  /* a gap, or subtree */
};
struct facts {
	struct fact *v;
	size_t n, cap;
	bool is_ordered;  /* each record behind the one before it, in the order of a tree */
	bool has_cursor;
	size_t n_members, n_regions;
};

static inline struct fact *facts_at(struct facts *f, const char *path)
{
	for (size_t i = 0; i < f->n; i++)
		if (!strcmp(f->v[i].path, path))
			return &f->v[i];
	if (f->n == f->cap) {
		f->cap = f->cap ? 2 * f->cap : 64;
		f->v = xrealloc(f->v, f->cap * sizeof *f->v);
	}
	f->v[f->n] = (struct fact){.path = xstrdup(path)};
	return &f->v[f->n++];
}

static inline void facts_free(struct facts *f)
{
	for (size_t i = 0; i < f->n; i++)
		free(f->v[i].path);
	free(f->v);
	*f = (struct facts){0};
}

/* As a tree is gone through. */
static inline int facts_order(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	int x = *a == '/' ? 1 : *a ? 1 + (uint8_t)*a : 0, y = *b == '/' ? 1 : *b ? 1 + (uint8_t)*b : 0;
	return x - y;
}

static inline bool facts_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !n || (!strncmp(path, dir, n) && (!path[n] || path[n] == '/'));
}

struct facts_dir {
	uint64_t ref;
	char *path;
};
struct facts_reader {
	struct facts *f;
	struct facts_dir *dirs;
	size_t n_dirs;
	char *last;
	int last_rank;
};

/* The path of a name below the directory with this number; NULL when nobody gave it. Owned. */
static inline char *facts_path(const struct facts_reader *r, uint64_t ref, struct span name)
{
	for (size_t i = 0; i < r->n_dirs; i++) {
		if (r->dirs[i].ref != ref)
			continue;
		AUTO_BUF struct buf b = {0};
		buf_str(&b, r->dirs[i].path);
		if (b.len && name.len)
			buf_str(&b, "/");
		buf_add(&b, name.p, name.len);
		return xstrdup(buf_cstr(&b));
	}
	return NULL;
}

/* rank: DIR and CHANGED with a name, CHANGED without one, GAP. Takes path. */
static inline void facts_add(struct facts_reader *r, char *path, int rank, uint8_t flags, bool is_whole)
{
	int c = r->last && path ? facts_order(r->last, path) : -1;

	if (!path || c > 0 || (!c && rank <= r->last_rank))
		r->f->is_ordered = false;
	if (!path)
		return;
	free(r->last);
	r->last = path;
	r->last_rank = rank;
	struct fact *x = facts_at(r->f, path);
	x->flags |= flags;
	x->is_whole = x->is_whole || is_whole;
}

static inline void facts_record(struct facts_reader *r, const struct record *rec)
{
	if (rec->type == REC_DIR) {
		char *path = facts_path(r, rec->u.dir.parent, rec->u.dir.name);
		if (rec->u.dir.ref != r->n_dirs + 1)
			r->f->is_ordered = false;
		if (path) {
			r->dirs = xrealloc(r->dirs, (r->n_dirs + 1) * sizeof *r->dirs);
			r->dirs[r->n_dirs++] = (struct facts_dir){rec->u.dir.ref, xstrdup(path)};
		}
		facts_add(r, path, 0, 0, false);
	} else if (rec->type == REC_CHANGED) {
		const struct r_changed *c = &rec->u.changed;
		facts_add(r, facts_path(r, c->parent, c->name), c->name.len ? 0 : 1, c->flags, c->flags & CHANGED_SUBTREE);
	} else if (rec->type == REC_GAP) {
		facts_add(r, facts_path(r, rec->u.gap.ref, (struct span){0}), 2, 0, true);
	} else if (rec->type == REC_REGION) {
		r->f->n_regions++;
	} else if (rec->type == REC_CURSOR) {
		r->f->has_cursor = true;
	} else if (rec->type == REC_MEMBER) {
		r->f->n_members++;
	}
}

/* One whole stream. False: it is none. f is {0} before. */
static inline bool facts_read(struct facts *f, struct span bytes)
{
	struct stream_in s = {0};
	struct facts_reader r = {.f = f};
	struct err e = {0};
	size_t room;
	int got;

	f->is_ordered = true;
	r.dirs = xalloc(sizeof *r.dirs);
	r.dirs[r.n_dirs++] = (struct facts_dir){REF_ROOT, xstrdup("")};
	memcpy(stream_space(&s, bytes.len, &room), bytes.p, bytes.len);
	stream_fed(&s, bytes.len);
	while ((got = stream_next(&s, &e)) == STREAM_BEGIN || got == STREAM_RECORD)
		if (got == STREAM_RECORD)
			facts_record(&r, &s.rec);
	stream_in_free(&s);
	for (size_t i = 0; i < r.n_dirs; i++)
		free(r.dirs[i].path);
	free(r.dirs);
	free(r.last);
	return got == STREAM_END;
}

/* Does it say that this has to be looked at? */
static inline bool facts_cover(const struct facts *f, const struct fact *x)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].is_whole ? facts_below(x->path, f->v[i].path) : !x->is_whole && !strcmp(f->v[i].path, x->path))
			return true;
	return false;
}

/* Is there anything in it below something that is to be looked at whole? */
static inline bool facts_waste(const struct facts *f)
{
	for (size_t i = 0; i < f->n; i++)
		for (size_t k = 0; k < f->n; k++)
			if (i != k && f->v[i].is_whole && facts_below(f->v[k].path, f->v[i].path))
				return true;
	return false;
}

#endif
