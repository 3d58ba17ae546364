#include "trail.h"

#define STEP 16u
#define PATH_MOST (256u << 20) /* bytes: longer is a round */

uint64_t trail_depth(const struct trail *t) { return t->steps.len / STEP; }
static uint64_t step_no(const struct trail *t, uint64_t i) { return get_le64(t->steps.p + i * STEP); }
static uint64_t step_end(const struct trail *t, uint64_t i) { return get_le64(t->steps.p + i * STEP + 8); }

/* Only so many steps of it. */
static void cut(struct trail *t, uint64_t n)
{
	t->path.len = n ? (size_t)step_end(t, n - 1) : 0;
	t->steps.len = (size_t)n * STEP;
}

static void add(struct trail *t, uint64_t no, const uint8_t *name, size_t len)
{
	t->slot[no % TRAIL_SLOTS] = (uint32_t)trail_depth(t);
	if (t->path.len)
		wr_u8(&t->path, '/');
	wr_raw(&t->path, name, len);
	wr_u64(&t->steps, no);
	wr_u64(&t->steps, t->path.len);
}

int trail_to(struct trail *t, struct store *s, uint64_t dir, struct err *e)
{
	AUTO_BUF struct buf rev = {0}, part = {0};
	uint64_t at = 0;

	/* What is not on the trail, from the directory up: name, its length, number; then the other way round. */
	while (dir != CATALOG_ROOT) {
		uint64_t i = t->slot[dir % TRAIL_SLOTS], up;
		if (i < trail_depth(t) && step_no(t, i) == dir) {
			at = i + 1;
			break;
		}
		int got = rows_link_first(s, dir, &up, &part, e);
		if (got < 0)
			return -1;
		if (!got || rev.len > PATH_MOST)
			return store_damaged(s, "a directory in it has no name", e);
		wr_raw(&rev, part.p, part.len);
		wr_u64(&rev, part.len);
		wr_u64(&rev, dir);
		dir = up;
	}
	cut(t, at);
	for (size_t end = rev.len; end;) {
		const uint64_t no = get_le64(rev.p + end - 8);
		const size_t n = (size_t)get_le64(rev.p + end - 16);
		end -= 16 + n;
		add(t, no, rev.p + end, n);
	}
	return 0;
}

void trail_forget(struct trail *t) { cut(t, 0); }

void trail_free(struct trail *t)
{
	buf_free(&t->path);
	buf_free(&t->steps);
}
