#include "regions.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clones.h"
#include "extents.h"
#include "head.h"
#include "input.h"
#include "path.h"
#include "snapshots.h"
#include "state.h"
#include "walk.h"

#define GRAIN 4096u
#define ROW 17u
#define ROWS 65536u   /* in one record */
#define MAP 1024u     /* extents at a time */

/* A directory on the way down. */
struct frame {
	uint64_t ref, no; /* no: in the base; 0: not there */
	size_t path_len;
};

struct reader {
	struct regions *g;
	struct stream_out *out;
	struct frame *frames;
	size_t n, cap;
	struct buf path;
	uint64_t n_changed;
};

static void push(struct reader *r, struct frame f)
{
	if (r->n == r->cap) {
		r->cap = r->cap ? r->cap * 2 : 16;
		r->frames = xrealloc(r->frames, r->cap * sizeof *r->frames);
	}
	f.path_len = r->path.len;
	r->frames[r->n++] = f;
}

/* The frame of a directory that is on the way becomes the top; NULL: it is not on the way. */
static const struct frame *go_to(struct reader *r, uint64_t ref)
{
	while (r->n > 1 && r->frames[r->n - 1].ref != ref)
		r->n--;
	r->path.len = r->frames[r->n - 1].path_len;
	return r->frames[r->n - 1].ref == ref ? &r->frames[r->n - 1] : NULL;
}

static int on_dir(struct reader *r, const struct r_dir *d, struct err *e)
{
	const struct frame *up = go_to(r, d->parent);
	uint64_t no = 0;

	if (!up)
		return 0;
	if (up->no && catalog_lookup(r->g->base, up->no, d->name, &no, NULL, e) < 0)
		return -1;
	path_push(&r->path, d->name);
	push(r, (struct frame){.ref = d->ref, .no = no});
	return 0;
}

/* The file at r->path. Owned; -1. */
static int open_now(const struct reader *r, uint64_t *size)
{
	struct span path = span_of(r->path.p, r->path.len);
	const struct walk_root *root = r->g->roots;
	struct err ignored = {0};
	struct stat st;

	if (r->g->n_roots != 1 || root->name[0]) {
		const uint8_t *slash = memchr(path.p, '/', path.len);
		size_t n = slash ? (size_t)(slash - path.p) : path.len;
		for (size_t i = 0; i < r->g->n_roots && !span_eq(span_cstr(root->name), span_of(path.p, n)); i++)
			root = &r->g->roots[i];
		if (!slash || !span_eq(span_cstr(root->name), span_of(path.p, n)))
			return -1;
		path = span_of(path.p + n + 1, path.len - n - 1);
	}
	int fd = path_open(root->fd, path, O_RDONLY, 0, &ignored);
	if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode)))
		close_fd(&fd);
	*size = fd < 0 ? 0 : (uint64_t)st.st_size;
	return fd;
}

/* ---- the table of one file ---- */

struct table {
	struct reader *r;
	int fd;
	uint64_t file;
	struct buf rows;
	struct extent *map;
	size_t at, n;
	uint64_t pos;     /* of the map; UINT64_MAX: it is read to its end */
};

static int flush(struct table *t, struct err *e)
{
	struct record rec = {.type = REC_REGION, .u.region = {t->file, GRAIN, span_of(t->rows.p, t->rows.len)}};

	if (!t->rows.len)
		return 0;
	t->r->g->blocks += t->rows.len / ROW;
	int rc = stream_put(t->r->out, &rec, e);
	buf_reset(&t->rows);
	return rc;
}

/* Where the file has this offset; NULL: nowhere. */
static const struct extent *extent_at(struct table *t, uint64_t off)
{
	for (;;) {
		while (t->at < t->n && t->map[t->at].off + t->map[t->at].len <= off)
			t->at++;
		if (t->at < t->n)
			return t->map[t->at].off <= off ? &t->map[t->at] : NULL;
		if (t->pos == UINT64_MAX)
			return NULL;
		int got = extents_map(t->fd, &t->pos, false, t->map, MAP);
		t->at = 0;
		t->n = got < 0 ? 0 : (size_t)got;
		if (got <= 0)
			t->pos = UINT64_MAX;
	}
}

/* The blocks of [off, end), in whole ones. */
static int put_blocks(struct table *t, uint64_t off, uint64_t end, struct err *e)
{
	for (uint64_t b = off / GRAIN; b * GRAIN < end; b++) {
		const struct extent *x = extent_at(t, b * GRAIN);
		bool is_plain = x && x->kind == EXTENT_STORED && !x->whole;
		wr_u64(&t->rows, b);
		wr_u64(&t->rows, is_plain ? (x->at + (b * GRAIN - x->off)) / GRAIN : 0);
		wr_u8(&t->rows, !x || x->kind == EXTENT_ZEROS ? REGION_ZEROS : is_plain ? REGION_CHANGED : REGION_UNKNOWN);
		if (t->rows.len >= ROWS * ROW && flush(t, e))
			return -1;
	}
	return 0;
}

static int put_table(struct table *t, struct extents *shared, uint64_t size, struct err *e)
{
	struct extents_range s;
	uint64_t off = 0; /* a border of blocks; what is before it is said */

	while (extents_next(shared, &s)) {
		uint64_t from = s.off + (GRAIN - s.off % GRAIN) % GRAIN, to = s.off + s.len;
		to = to >= size ? size : to - to % GRAIN;
		if (from >= to)
			continue;
		if (put_blocks(t, off, from, e))
			return -1;
		off = to;
	}
	return put_blocks(t, off, size, e) || flush(t, e) ? -1 : 0;
}

static int on_changed(struct reader *r, const struct r_changed *c, uint64_t file, struct err *e)
{
	const struct frame *up = go_to(r, c->parent);
	struct object o = {0};
	uint64_t no = 0, size = 0;
	AUTO_CLOSE int was = -1, now = -1;

	if (!up || !up->no || !c->name.len || !(c->flags & CHANGED_CONTENT))
		return 0;
	int got = catalog_lookup(r->g->base, up->no, c->name, &no, NULL, e);
	if (got == 1)
		got = catalog_get(r->g->base, no, &o, e);
	if (got == 1 && o.type == OBJ_FILE)
		was = snapshots_old(r->g->was, &o);
	if (got == 1 && o.type == OBJ_FILE && was < 0)
		was = clones_old(r->g->clones, &o);
	uint64_t base_size = o.size;
	object_free(&o);
	if (got < 0)
		return -1;
	path_push(&r->path, c->name);
	now = was < 0 ? -1 : open_now(r, &size);
	struct extents *shared = now < 0 ? NULL : extents_open(was, now, min_u64(base_size, size));
	if (!shared)
		return 0;
	struct table t = {.r = r, .fd = now, .file = file, .map = xalloc(MAP * sizeof *t.map)};
	r->g->files++;
	int rc = put_table(&t, shared, size, e);
	buf_free(&t.rows);
	free(t.map);
	extents_close(&shared);
	return rc;
}

static int copy_stream(struct reader *r, struct input *in, struct err *e)
{
	int got;

	while ((got = input_next(in, e)) > 0) {
		const struct record *rec = &in->s.rec;
		if (got == STREAM_BEGIN && stream_begin(r->out, in->s.kind, e))
			return -1;
		if (got == STREAM_END && stream_finish(r->out, e))
			return -1;
		if (got != STREAM_RECORD)
			continue;
		if (stream_put(r->out, rec, e) || (rec->type == REC_DIR && on_dir(r, &rec->u.dir, e)) ||
				(rec->type == REC_CHANGED && on_changed(r, &rec->u.changed, r->n_changed++, e)))
			return -1;
	}
	return got;
}

static int run(struct regions *g, struct input *in, struct stream_out *out, struct err *e)
{
	struct reader r = {.g = g, .out = out};

	push(&r, (struct frame){.ref = REF_ROOT, .no = CATALOG_ROOT});
	int rc = copy_stream(&r, in, e);
	free(r.frames);
	buf_free(&r.path);
	return rc;
}

int regions_add(struct regions *g, const struct state *s, const char *file, const struct head *h, int fd, struct stream_out *out,
	struct err *e)
{
	AUTO_FREE char *path = file ? state_file(s, file) : NULL;
	struct clones clones = {.seq = h->stamps.seq, .only_look = true};
	struct walk_root *roots = NULL, *live = NULL;
	struct snapshots was = {0};
	struct catalog *base = NULL;
	struct input in = {0};
	int rc = -1;

	if (lseek(fd, 0, SEEK_SET) < 0) {
		err_sys(e, "cannot read a temporary file");
	} else if (!head_open_roots(h, &roots, e) && !head_open_live(h, &live, e) &&
			!(path ? catalog_open(&base, path, CATALOG_READ, e) : state_catalog(s, CATALOG_READ, &base, e)) &&
			!input_open(&in, fd, 1, e)) {
		clones_open(&clones, s, base, live, h->n_members);
		snapshots_open(&was, base);
		*g = (struct regions){.base = base, .roots = roots, .n_roots = h->n_members, .clones = &clones, .was = &was};
		rc = run(g, &in, out, e);
		g->base = NULL;
		g->roots = NULL;
		g->clones = NULL;
		g->was = NULL;
		clones_close(&clones);
		snapshots_close(&was);
		input_close(&in);
	}
	catalog_close(&base);
	head_close_roots(&roots, h->n_members);
	head_close_roots(&live, h->n_members);
	return rc;
}
