#include "guess.h"

#include <stdlib.h>

/* Which directory of the base a new one may have been: the one most of its children came from. */
struct guess_vote {
	uint64_t dev, ino, dir, count;
};

static uint64_t inode_key(uint64_t dev, uint64_t ino) { return (ino ^ dev << 48) * ROLL_P | 1; }

static uint64_t content_key(const struct digest *d) { return get_le64(d->b) | 1; }

static int list_gone(struct guess *g, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf stack = {0};
	struct object o = {0};
	struct catalog_iter it = {0};
	int got = 0;

	wr_u64(&stack, no);
	while (stack.len && got >= 0) {
		stack.len -= 8;
		no = get_le64(stack.p + stack.len);
		got = catalog_get(g->base, no, &o, e);
		if (got != 1 || o.hint.ino)
			continue;
		if (o.type == OBJ_FILE && o.size) {
			*numbers_at(&g->sizes, o.size) = 1;
			*numbers_at(&g->digests, content_key(&o.content)) = no;
		}
		if (o.type != OBJ_DIR)
			continue;
		catalog_iter_start(&it, g->base, no);
		while ((got = catalog_iter_next(&it, e)) == 1)
			wr_u64(&stack, it.no);
	}
	catalog_iter_free(&it);
	object_free(&o);
	return got < 0 ? -1 : 0;
}

/* The target's object is taken for the base's; the directory that it stands in may be the one that the base's stood in. */
static int take(struct guess *g, size_t depth, uint64_t dev, uint64_t ino, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	uint64_t dir = 0;

	*numbers_at(&g->taken, inode_key(dev, ino)) = no;
	if (no != CATALOG_ROOT && catalog_name(g->base, no, &dir, &name, e) < 0)
		return -1;
	if (!depth || !dir)
		return 0;
	struct guess_vote *v = &g->votes[depth - 1];
	if (v->dir == dir) {
		v->count++;
	} else if (v->count) {
		v->count--;
	} else {
		v->dir = dir;
		v->count = 1;
	}
	return 0;
}

/* Another inode under the same name, and what had the name is nowhere else: replaced, as a package manager does it. */
static int look_at_name(struct guess *g, const struct spool_item *it, struct err *e)
{
	struct object o = {0};

	if (it->kind == SCAN_LEAVE || it->how != SCAN_NEW || !it->prior || it->link || moves_is_attached(g->moves, it->prior))
		return 0;
	int got = catalog_get(g->base, it->prior, &o, e);
	if (got == 1 && o.type == it->type)
		*numbers_at(&g->taken, inode_key(it->a.hint.dev, it->a.hint.ino)) = it->prior;
	object_free(&o);
	return got < 0 ? -1 : 0;
}

static int look_at_content(struct guess *g, const struct spool_item *it, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct attr a = {0};
	struct content_file f = {.only_digest = true};
	int rc = -1;

	if (target_get(g->target, it, &fd, &a, e) < 0)
		goto out;
	rc = 0;
	if (fd < 0 || a.size != it->a.size)
		goto out;
	f.fd = fd;
	f.size = a.size;
	f.grain = content_grain(a.size);
	if (content_run(g->content, &f, e)) {
		rc = f.is_short ? 0 : -1;
		goto out;
	}
	uint64_t no = numbers_get(&g->digests, content_key(&f.digest));
	if (no) {
		*numbers_at(&g->digests, content_key(&f.digest)) = 0;
		rc = take(g, it->depth, it->a.hint.dev, a.hint.ino, no, e);
	}
out:
	attr_free(&a);
	return rc;
}

static void enter(struct guess *g, const struct spool_item *it)
{
	if (it->depth == g->cap_votes) {
		g->cap_votes = g->cap_votes ? g->cap_votes * 2 : 32;
		g->votes = xrealloc(g->votes, g->cap_votes * sizeof *g->votes);
	}
	g->votes[it->depth] = (struct guess_vote){it->a.hint.dev, it->how == SCAN_NEW ? it->a.hint.ino : 0, 0, 0};
}

static int leave(struct guess *g, const struct spool_item *it, struct err *e)
{
	struct guess_vote v = g->votes[it->depth];
	bool dead = false;

	if (v.dir && v.ino && moves_is_dead(g->moves, v.dir, &dead, e))
		return -1;
	return dead ? take(g, it->depth, v.dev, v.ino, v.dir, e) : 0;
}

static int on_item(void *ctx, struct spool_item *it, struct err *e)
{
	struct guess *g = ctx;

	if (look_at_name(g, it, e))
		return -1;
	switch (it->kind) {
	case SCAN_ENTER:
		enter(g, it);
		return 0;
	case SCAN_LEAVE:
		return leave(g, it, e);
	case SCAN_ENTRY:
		break;
	}
	if (it->type == OBJ_FILE && it->how == SCAN_NEW && !it->prior && !it->link && it->a.size && numbers_get(&g->sizes, it->a.size))
		return look_at_content(g, it, e);
	return 0;
}

int guess_run(struct guess *g, struct err *e)
{
	struct rd rest = moves_rows(g->moves);
	struct moves_row row;

	while (moves_next(&rest, &row))
		if (!moves_is_attached(g->moves, row.no) && list_gone(g, row.no, e))
			return -1;
	if (spool_replay(g->items, on_item, g, e))
		return -1;
	numbers_free(&g->sizes);
	numbers_free(&g->digests);
	return g->taken.n > 0;
}

uint64_t guess_at(const struct guess *g, const struct attr *a)
{
	return numbers_get(&g->taken, inode_key(a->hint.dev, a->hint.ino));
}

void guess_free(struct guess *g)
{
	numbers_free(&g->sizes);
	numbers_free(&g->digests);
	numbers_free(&g->taken);
	free(g->votes);
	g->votes = NULL;
	g->cap_votes = 0;
}
