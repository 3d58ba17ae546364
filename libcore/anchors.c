#include "anchors.h"

#include <stdlib.h>
#include <sys/mman.h>

#define SLOTS (1u << 19) /* at most; of 24 bytes: 12 MiB */
#define HUGE_PAGE (2u * 1024 * 1024)

/* In large pages where it is large and there are such: each look is at another place. */
static void make_room(struct anchors *a, size_t n_slots)
{
	size_t words = n_slots / 4, size = words * sizeof *a->bloom + n_slots * sizeof *a->slot;
	size_t align = size < HUGE_PAGE ? 64 : HUGE_PAGE;

	a->memory = xalloc(size + align);
	uint8_t *p = (uint8_t *)a->memory + -(uintptr_t)a->memory % align;
	if (align == HUGE_PAGE)
		madvise(p, size, MADV_HUGEPAGE);
	a->bloom = (uint64_t *)(void *)p;
	a->slot = (struct anchor *)(void *)(p + words * sizeof *a->bloom);
	a->n_slots = n_slots;
	a->n_words = words;
	a->n = 0;
}

/* Room for so many, and for more when they come. */
static struct anchors *make(uint64_t n)
{
	struct anchors *a = xalloc(sizeof *a);
	size_t n_slots = 64;

	while (n_slots < SLOTS && n_slots / 2 <= n)
		n_slots *= 2;
	make_room(a, n_slots);
	return a;
}

void anchors_free(struct anchors **a)
{
	if (!*a)
		return;
	free((*a)->memory);
	free(*a);
	*a = NULL;
}

static size_t slot_of(const struct anchors *a, uint64_t weak) { return (size_t)(weak >> 40) & (a->n_slots - 1); }
static void put(struct anchors *a, struct anchor x)
{
	size_t at = slot_of(a, x.weak);

	for (; a->slot[at].weak; at = (at + 1) & (a->n_slots - 1))
		if (a->slot[at].weak == x.weak)
			return; /* the first one serves */
	a->slot[at] = x;
	a->bloom[anchors_word(a, x.weak)] |= anchors_bits(x.weak);
	a->n++;
}

/* Half full: twice as large, or where that is too much every other one is kept, chosen by content, so that both sides of a move choose
 * alike. */
static void grow(struct anchors *a)
{
	const struct anchor *old = a->slot;
	size_t n = a->n_slots;
	void *memory = a->memory;

	if (n == SLOTS)
		a->sample = a->sample << 1 | 1;
	make_room(a, n < SLOTS ? 2 * n : n);
	for (size_t i = 0; i < n; i++)
		if (old[i].weak && !(old[i].weak & a->sample))
			put(a, old[i]);
	free(memory);
}

static void add(struct anchors *a, struct anchor x)
{
	if (!x.weak)
		return;
	while (!(x.weak & a->sample) && a->n >= a->n_slots / 2)
		grow(a);
	if (!(x.weak & a->sample))
		put(a, x);
}

const struct anchor *anchors_find(const struct anchors *a, uint64_t weak)
{
	if (!anchors_may_have(a, weak))
		return NULL;
	for (size_t at = slot_of(a, weak); a->slot[at].weak; at = (at + 1) & (a->n_slots - 1))
		if (a->slot[at].weak == weak)
			return &a->slot[at];
	return NULL;
}

int anchors_own(struct anchors **out, struct catalog *base, const struct object *o, struct err *e)
{
	uint64_t n = object_blocks(o->size, o->grain);
	uint8_t rows[BLOCKS_ROWS * DIGESTS_ROW];
	struct anchors *a = make(blocks_sums(n));
	int got;

	for (uint64_t at = 0; (got = catalog_blocks_some(base, o->no, &at, n, rows, e)) > 0; at += (uint64_t)got)
		for (size_t i = 0; i < (size_t)got; i++)
			add(a, (struct anchor){get_le64(rows + i * DIGESTS_ROW + DIGEST_LEN), o->no, at + i});
	if (got < 0)
		anchors_free(&a);
	else
		*out = a;
	return got;
}

struct all_ctx {
	struct anchors *a;
	struct catalog *base;
	uint64_t no, n_blocks;
	struct object o;
	struct err *e;
};

static int all_row(void *ctx, uint64_t no, uint64_t block, const uint8_t *row)
{
	struct all_ctx *x = ctx;

	if (no != x->no) {
		int got = catalog_get(x->base, no, &x->o, x->e);
		if (got < 0)
			return -1;
		x->a->only = x->no ? 0 : no;
		x->no = no;
		x->n_blocks = got ? object_blocks(x->o.size, x->o.grain) : 0;
	}
	if (block < x->n_blocks)
		add(x->a, (struct anchor){get_le64(row + DIGEST_LEN), no, block});
	return 0;
}

int anchors_all(struct anchors **out, struct catalog *base, struct err *e)
{
	struct all_ctx x = {.a = make(0), .base = base, .e = e};
	int rc = catalog_blocks_all(base, all_row, &x, e);

	object_free(&x.o);
	if (rc || e->kind) {
		anchors_free(&x.a);
		return -1;
	}
	*out = x.a;
	return 0;
}
