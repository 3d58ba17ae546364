#include "pages.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* As lmdb 0.9 has it (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta); everything else is refused.
 *
 *   page   u64 number, u16 0, u16 kind, u16 end of the offsets, u16 begin of the nodes, u16 offset of each node
 *          or, of an overflow page, u64 number, u16 0, u16 kind, u32 pages
 *   node   leaf: u32 bytes of the value; branch: u32 of the child's number; u16 flags, or the rest of the number; u16 bytes of the
 *          key; key; value, or the number of its first overflow page
 *   head   u32 0, u16 flags, u16 depth, u64 branches, leaves, overflows, rows, root
 *   meta   page, then u32 magic, u32 version, u64 address, u64 size, head of the free list, head of the list of tables, u64 last page,
 *          u64 transaction */
enum { HEAD = 16, NODE = 8, TABLE_HEAD = 48, ROOT_AT = 40, META_FREE = HEAD + 24, META_TXN = META_FREE + 2 * TABLE_HEAD + 8 };
enum kind { BRANCH = 1, LEAF = 2, OVERFLOW = 4 };
enum { BIG = 1 }; /* of a node: its value is on overflow pages */
#define DEPTH_MAX 32u
#define WAYS 16u /* kept: a change goes from table to table; where two have the same one it costs some reads */
#define NO_ROOT UINT64_MAX
#define BESIDE 2u
#define SAMPLES 64u

static uint32_t u16(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8; }
static uint64_t u32(const uint8_t *p) { return u16(p) | (uint64_t)u16(p + 2) << 16; }

static uint64_t n_pages(const struct pages *s) { return s->len / s->page; }

static bool load(const struct pages *s, uint64_t no, void *p, size_t len)
{
	return pread(s->fd, p, len, (off_t)(no * s->page)) == (ssize_t)len;
}

static unsigned n_nodes(const uint8_t *p) { return (u16(p + 12) - HEAD) / 2; }
static const uint8_t *node_at(const uint8_t *p, unsigned i) { return p + u16(p + HEAD + 2 * i); }
static uint64_t child(const uint8_t *node) { return u32(node) | (uint64_t)u16(node + 4) << 32; }

static bool is_page(const struct pages *s, uint64_t no) { return no >= 2 && no < n_pages(s); }

/* Of a leaf's node: the first of the pages that hold its value, if there are such. */
static bool overflow_is_sound(const struct pages *s, const uint8_t *node)
{
	uint64_t n = (HEAD - 1 + u32(node)) / s->page + 1;
	uint8_t p[HEAD];

	if (!(u16(node + 4) & BIG))
		return true;
	const uint64_t no = get_le64(node + NODE + u16(node + 6));

	return is_page(s, no) && load(s, no, p, HEAD) && get_le64(p) == no && u16(p + 10) == OVERFLOW && u32(p + 12) == n &&
		n <= n_pages(s) - no;
}

/* Bytes that it takes, 0: it does not fit in. */
static size_t node_len(const struct pages *s, const uint8_t *p, size_t off)
{
	const uint8_t *n = p + off;
	size_t room = s->page - off, len;

	if (room < NODE)
		return 0;
	len = NODE + u16(n + 6);
	if (u16(p + 10) == LEAF && u16(n + 4) & BIG)
		len += 8;
	else if (u16(p + 10) == LEAF)
		len += u32(n);
	return len > room ? 0 : len + len % 2;
}

static bool is_seen(const struct pages *s, uint64_t no) { return s->seen[no / 8] & 1u << no % 8; }

/* Loads a branch or a leaf into p. */
static bool load_page(const struct pages *s, uint64_t no, uint8_t *p)
{
	return is_page(s, no) && load(s, no, p, s->page) && get_le64(p) == no && (u16(p + 10) == BRANCH || u16(p + 10) == LEAF);
}

/* Its nodes fill it from where they begin, each its own place. */
static bool nodes_are_sound(const struct pages *s, const uint8_t *p)
{
	uint8_t taken[65536 / 2 / 8];
	size_t sum = 0;

	memset(taken, 0, s->page / 16);
	size_t lower = u16(p + 12), upper = u16(p + 14);
	if (lower <= HEAD || lower % 2 || lower > upper || upper > s->page)
		return false;
	for (unsigned i = 0; i < n_nodes(p); i++) {
		size_t off = u16(p + HEAD + 2 * i), len = off < upper || off >= s->page || off % 2 ? 0 : node_len(s, p, off);
		if (!len || taken[off / 16] & 1u << off / 2 % 8)
			return false;
		taken[off / 16] |= (uint8_t)(1u << off / 2 % 8);
		sum += len;
	}
	return sum == s->page - upper;
}

static bool page_is_sound(struct pages *s, uint64_t no, uint8_t *p)
{
	if (!load_page(s, no, p))
		return false;
	if (is_seen(s, no))
		return true;
	if (!nodes_are_sound(s, p))
		return false;
	s->seen[no / 8] |= (uint8_t)(1u << no % 8);
	s->n_seen++;
	return true;
}

bool pages_are_known(void) { return sizeof(size_t) == 8 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__; }

/* A read that must not wait fails where the page is not there (preadv2(2), Linux 4.14). It is the first miss that counts: it may make the
 * kernel read ahead. */
static bool is_in_memory(const struct pages *s)
{
	uint8_t byte;
	struct iovec v = {&byte, 1};

	for (uint64_t i = SAMPLES; i > 0; i--)
		if (preadv2(s->fd, &v, 1, (off_t)((n_pages(s) - 1) * i / SAMPLES * s->page), RWF_NOWAIT) != 1)
			return false;
	return true;
}

bool pages_open(struct pages *s, int fd, size_t page)
{
	struct stat st;
	uint64_t newest = 0;

	*s = (struct pages){.page = page};
	if (page < 512 || page > 65536 / 2 || fstat(fd, &st) || st.st_size < 2 * (off_t)page)
		return false;
	s->fd = fd;
	s->len = (size_t)st.st_size;
	s->seen = xalloc(n_pages(s) / 8 + 1);
	s->way = xalloc(WAYS * DEPTH_MAX * page);
	s->way_no = xalloc(WAYS * DEPTH_MAX * sizeof *s->way_no);
	s->beside = xalloc(page);
	s->is_in_memory = is_in_memory(s);
	for (uint64_t i = 0; i < 2; i++) {
		const uint8_t *meta = s->beside;
		if (!load(s, i, s->beside, page)) {
			pages_close(s);
			return false;
		}
		if (i && get_le64(meta + META_TXN) <= newest)
			continue;
		newest = get_le64(meta + META_TXN);
		s->free_root = get_le64(meta + META_FREE + ROOT_AT);
		s->list_root = get_le64(meta + META_FREE + TABLE_HEAD + ROOT_AT);
	}
	return true;
}

void pages_close(struct pages *s)
{
	free(s->seen);
	free(s->way);
	free(s->way_no);
	free(s->beside);
	*s = (struct pages){0};
}

bool pages_tree_of(struct span head, struct pages_tree *t)
{
	if (head.len != TABLE_HEAD || u16(head.p + 4))
		return false;
	*t = (struct pages_tree){.root = get_le64(head.p + ROOT_AT), .depth = u16(head.p + 6)};
	return true;
}

/* The child whose rows begin at or before the key; the first one's key says nothing. */
static unsigned way(const uint8_t *p, struct span key)
{
	unsigned lo = 0, hi = n_nodes(p);

	while (hi - lo > 1) {
		unsigned mid = lo + (hi - lo) / 2;
		const uint8_t *n = node_at(p, mid);
		if (span_cmp(span_of(n + NODE, u16(n + 6)), key) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Of the way down from this root: the place for its page at a depth. */
static size_t place_of(uint64_t root, unsigned depth) { return (size_t)(root % WAYS) * DEPTH_MAX + depth; }
static uint8_t *level(const struct pages *s, size_t place) { return s->way + place * s->page; }

/* Where the row is there already its value is given up. Those of the other rows stay where they are. */
static bool value_is_sound(const struct pages *s, const uint8_t *p, struct span key)
{
	if (!n_nodes(p))
		return true;
	const uint8_t *n = node_at(p, way(p, key));
	return !span_eq(span_of(n + NODE, u16(n + 6)), key) || overflow_is_sound(s, n);
}

bool pages_are_sound(struct pages *s, uint64_t root, struct span key, bool shrinks)
{
	const unsigned beside = shrinks ? BESIDE : 0;
	uint64_t no = root;

	if (root == NO_ROOT)
		return true;
	for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
		size_t place = place_of(root, depth);
		uint8_t *p = level(s, place);
		if (s->way_no[place] != no || !is_page(s, no)) {
			s->way_no[place] = 0;
			if (!page_is_sound(s, no, p))
				return false;
			s->way_no[place] = no;
		}
		if (u16(p + 10) == LEAF)
			return value_is_sound(s, p, key);
		unsigned at = way(p, key), from = at > beside ? at - beside : 0;
		for (unsigned i = from; i < n_nodes(p) && i <= at + beside; i++) {
			no = child(node_at(p, i));
			if (i != at && !(is_page(s, no) && is_seen(s, no)) && !page_is_sound(s, no, s->beside))
				return false;
		}
		no = child(node_at(p, at));
	}
	return false;
}

static void ask(const struct pages *s, uint64_t no)
{
	if (is_page(s, no))
		posix_fadvise(s->fd, (off_t)(no * s->page), (off_t)s->page, POSIX_FADV_WILLNEED);
}

void pages_ahead(struct pages *s, const struct pages_tree *t, const struct span *keys, size_t n, bool shrinks)
{
	uint64_t no[PAGES_AHEAD_MAX];

	if (s->is_in_memory)
		return;
	for (size_t i = 0; i < n; i++)
		no[i] = t->root;
	for (unsigned depth = 1; depth < t->depth && depth < DEPTH_MAX; depth++) {
		uint64_t last = NO_ROOT, asked = NO_ROOT;
		bool is_branch = false;
		for (size_t i = 0; i < n; i++) {
			/* Neighbours have most of their way in common. */
			if (no[i] != last) {
				last = no[i];
				is_branch = load_page(s, last, s->beside) && u16(s->beside + 10) == BRANCH && nodes_are_sound(s, s->beside);
			}
			no[i] = NO_ROOT;
			if (!is_branch)
				continue;
			const unsigned at = way(s->beside, keys[i]), more = shrinks ? BESIDE : 0;
			no[i] = child(node_at(s->beside, at));
			for (unsigned k = at > more ? at - more : 0; no[i] != asked && k < n_nodes(s->beside) && k <= at + more; k++)
				ask(s, child(node_at(s->beside, k)));
			asked = no[i];
		}
	}
}

static bool subtree_is_sound(struct pages *s, uint64_t no, unsigned depth, bool (*leaf)(const struct pages *s, const uint8_t *p))
{
	/* Seen already: two lead here, or it is a round. */
	if (depth == DEPTH_MAX || (is_page(s, no) && is_seen(s, no)))
		return false;
	uint8_t *p = level(s, place_of(0, depth));
	s->way_no[place_of(0, depth)] = 0;
	if (!page_is_sound(s, no, p))
		return false;
	const bool is_leaf = u16(p + 10) == LEAF;
	for (unsigned i = 0; i < n_nodes(p) && is_leaf; i++)
		if (!overflow_is_sound(s, node_at(p, i)))
			return false;
	if (is_leaf)
		return !leaf || leaf(s, p);
	for (unsigned i = 0; i < n_nodes(p); i++)
		if (!subtree_is_sound(s, child(node_at(p, i)), depth + 1, leaf))
			return false;
	return true;
}

bool pages_tree_is_sound(struct pages *s, uint64_t root) { return root == NO_ROOT || subtree_is_sound(s, root, 0, NULL); }

/* A value is a count, then so many page numbers, the greatest first. */
static bool free_value(struct span v)
{
	uint64_t before = UINT64_MAX;

	if (v.len < 8 || get_le64(v.p) > v.len / 8 - 1)
		return false;
	for (uint64_t k = 1; k <= get_le64(v.p); k++) {
		uint64_t no = get_le64(v.p + 8 * k);
		if (no < 2 || no >= before)
			return false;
		before = no;
	}
	return true;
}

static bool free_leaf(const struct pages *s, const uint8_t *p)
{
	for (unsigned i = 0; i < n_nodes(p); i++) {
		AUTO_FREE uint8_t *big = NULL;
		const uint8_t *n = node_at(p, i), *v = n + NODE + u16(n + 6);
		size_t len = u32(n);
		if (u16(n + 6) != 8)
			return false;
		if (u16(n + 4) & BIG) {
			big = xalloc(HEAD + len);
			if (!load(s, get_le64(v), big, HEAD + len))
				return false;
			v = big + HEAD;
		}
		if (!free_value(span_of(v, len)))
			return false;
	}
	return true;
}

bool pages_lists_are_sound(struct pages *s)
{
	return (s->free_root == NO_ROOT || subtree_is_sound(s, s->free_root, 0, free_leaf)) &&
		pages_tree_is_sound(s, s->list_root);
}
