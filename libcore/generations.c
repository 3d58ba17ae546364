#include "generations.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "catalog.h"
#include "file.h"
#include "image.h"
#include "path.h"
#include "record.h"
#include "subvol.h"
#include "tape.h"
#include "walk.h"

#define ROOM (256u << 10)            /* for items; none is larger than a node, which is 64 KiB at most */
#define DIRS 256u                    /* paths that are remembered */
#define ENTRIES_MAX (64u << 20)      /* bytes of names of one directory */
#define EMPTY_SUBVOLUME 2u           /* BTRFS_EMPTY_SUBVOL_DIR_OBJECTID */

/* A slot of the cache. */
struct generations_dir {
	uint64_t ino; /* 0: nothing */
	struct buf path;
};

static int because(struct generations *g, const char *reason)
{
	snprintf(g->reason, sizeof g->reason, "%s", reason);
	return 0;
}

/* ---- can there be a list ---- */

/* Both are what was taken, one after the other, of the same subvolume: what one holds and the other does not was written between. */
static int check_pair(struct generations *g, int was, int now, uint64_t *made)
{
	struct subvol_info old, new;

	if (subvol_ask(was, &old) || subvol_ask(now, &new))
		return because(g, "a snapshot cannot be looked at");
	if (memcmp(old.origin, new.origin, sizeof old.origin))
		return because(g, "another subvolume stands where the base's stood");
	*made = old.made;
	return old.made < new.made || because(g, "the base's snapshot is not older than the image's");
}

static int check_base(struct generations *g, struct head *base, struct walk_root **was, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_cursor view;
	struct err why = {0};

	if (catalog_is_empty(g->base))
		return because(g, "there is no base yet");
	int got = head_of(base, g->base, e);
	if (got < 0)
		return -1;
	if (!got || base->stamps.provider != PROV_BTRFS ||
			memcmp(base->stamps.instance, g->head->stamps.instance, sizeof base->stamps.instance))
		return because(g, "the base is no snapshot of this state");
	if (!head_same_members(base, g->head))
		return because(g, "the base is of other directories");
	/* repl-diff compares it with its own. */
	if ((got = image_cursor(g->base, &view, &store, e)) != 1)
		return got ? -1 : because(g, "the base does not say what was left out of it");
	if (head_open_roots(base, was, &why))
		return because(g, why.text);
	return 1;
}

/* ---- searching ---- */

/* Items of the tree of fd from the key on; those in leaves older than since are passed over. 0, or -1 with errno. */
static int search(struct generations *g, int fd, struct btrfs_ioctl_search_key *key)
{
	g->found->key = *key;
	g->found->key.nr_items = UINT32_MAX;
	g->found->buf_size = ROOM;
	if (ioctl(fd, BTRFS_IOC_TREE_SEARCH_V2, g->found))
		return -1;
	key->nr_items = g->found->key.nr_items;
	return 0;
}

struct item {
	struct btrfs_ioctl_search_header h;
	struct rd data;
};

/* *at: where in what was found; 0 at first. */
static bool next_item(const struct generations *g, size_t *at, struct item *it)
{
	const uint8_t *p = (const uint8_t *)g->found->buf + *at;
	size_t left = ROOM - *at;

	if (left < sizeof it->h)
		return false;
	memcpy(&it->h, p, sizeof it->h);
	if (it->h.len > left - sizeof it->h)
		return false;
	it->data = rd_of(p + sizeof it->h, it->h.len);
	*at += sizeof it->h + it->h.len;
	return true;
}

/* The key behind the last item. */
static bool go_on(struct btrfs_ioctl_search_key *key, const struct item *last)
{
	key->min_objectid = last->h.objectid;
	key->min_type = last->h.type;
	key->min_offset = last->h.offset + 1;
	if (!key->min_offset && ++key->min_type > UINT8_MAX) {
		key->min_type = 0;
		key->min_objectid++;
	}
	return key->min_objectid <= key->max_objectid;
}

/* ---- inodes ---- */

struct inode {
	uint64_t ino;
	uint8_t type; /* OBJ_DIR, OBJ_FILE; OBJ_NONE: something else */
	int64_t btime_s;
	uint32_t btime_ns;
};

/* struct btrfs_inode_item. */
static bool is_changed(const struct generations *g, struct item *it, struct inode *i)
{
	struct rd *r = &it->data;

	rd_raw(r, 8);
	uint64_t transid = rd_u64(r);
	rd_raw(r, 8 * 3 + 4 * 3);
	uint32_t mode = rd_u32(r);
	rd_raw(r, 8 * 3 + 8 * 4 + 12 * 3);
	*i = (struct inode){.ino = it->h.objectid, .btime_s = rd_i64(r)};
	i->btime_ns = rd_u32(r);
	i->type = S_ISDIR(mode) ? OBJ_DIR : S_ISREG(mode) ? OBJ_FILE : OBJ_NONE;
	return !r->bad && transid >= g->since;
}

/* Inodes of the root at hand that were written in the transaction of the base's snapshot or later. What that one wrote after the
 * snapshot was taken cannot be told from what it wrote before. */
static int find_inodes(struct generations *g, struct buf *inodes)
{
	struct btrfs_ioctl_search_key key = {.min_objectid = BTRFS_FIRST_FREE_OBJECTID, .max_objectid = BTRFS_LAST_FREE_OBJECTID,
		.max_type = UINT8_MAX, .max_offset = UINT64_MAX, .min_transid = g->since, .max_transid = UINT64_MAX};
	struct item it = {0};

	for (;;) {
		size_t at = 0;
		if (search(g, g->roots[g->root].fd, &key))
			return errno == EPERM ? because(g, "the tree of a subvolume may not be searched") :
				because(g, "the tree of a subvolume cannot be searched");
		for (uint32_t i = 0; i < key.nr_items; i++) {
			struct inode inode;
			if (!next_item(g, &at, &it))
				return because(g, "the tree of a subvolume cannot be read");
			if (it.h.type == BTRFS_INODE_ITEM_KEY && is_changed(g, &it, &inode))
				buf_add(inodes, &inode, sizeof inode);
		}
		if (inodes->len > NAMED_MAX)
			return because(g, "too much has changed");
		if (!key.nr_items || !go_on(&key, &it))
			return 1;
	}
}

/* ---- names ---- */

/* The path of a directory in the root at hand, borrowed; NULL: it has none, or too long a one. */
static const struct buf *dir_path(struct generations *g, uint64_t ino)
{
	struct generations_dir *d = &g->dirs[ino % DIRS];

	if (d->ino == ino)
		return &d->path;
	d->ino = 0;
	buf_reset(&d->path);
	if (ino != BTRFS_FIRST_FREE_OBJECTID) {
		struct btrfs_ioctl_ino_lookup_args a = {.objectid = ino};
		if (ioctl(g->roots[g->root].fd, BTRFS_IOC_INO_LOOKUP, &a))
			return NULL;
		/* It ends in a slash. */
		size_t n = strnlen(a.name, sizeof a.name);
		if (!n || a.name[n - 1] != '/')
			return NULL;
		buf_add(&d->path, a.name, n - 1);
	}
	d->ino = ino;
	return &d->path;
}

static bool is_own(const struct buf *path)
{
	return path->len >= 5 && !memcmp(path->p, ".repl", 5) && (path->len == 5 || path->p[5] == '/');
}

/* The image's path of one below the root at hand. */
static void image_path(const struct generations *g, struct buf *out, struct span below)
{
	buf_reset(out);
	buf_str(out, g->roots[g->root].name);
	if (out->len && below.len)
		wr_u8(out, '/');
	buf_add(out, below.p, below.len);
}

static void add(struct generations *g, const struct buf *below, uint8_t flags)
{
	AUTO_BUF struct buf path = {0};

	if (is_own(below))
		return;
	image_path(g, &path, span_of(below->p, below->len));
	named_add(&g->named, span_of(path.p, path.len), flags);
}

/* What the base has for this inode; 0: nothing. */
static int base_object(struct generations *g, const struct inode *i, uint64_t *no, struct err *e)
{
	struct r_hint h = {.dev = g->root, .ino = i->ino, .btime_s = i->btime_s, .btime_ns = i->btime_ns};
	const char *name = g->roots[g->root].name;

	*no = CATALOG_ROOT;
	if (i->ino != BTRFS_FIRST_FREE_OBJECTID)
		return catalog_by_inode(g->base, &h, no, e) < 0 ? -1 : 0;
	return name[0] && catalog_lookup(g->base, CATALOG_ROOT, span_cstr(name), no, NULL, e) < 0 ? -1 : 0;
}

/* One name that an inode has. */
static int on_name(struct generations *g, const struct inode *i, uint64_t no, uint64_t dir, struct span name, struct err *e)
{
	AUTO_BUF struct buf path = {0}, was = {0}, is = {0};
	uint8_t flags = i->type == OBJ_FILE ? CHANGED_CONTENT : CHANGED_META;
	const struct buf *above = dir_path(g, dir);

	if (!above)
		return because(g, "a path is too long to be looked up");
	buf_add(&path, above->p, above->len);
	path_push(&path, name);
	if (!no)
		flags |= CHANGED_NEW;
	if (i->type == OBJ_DIR) {
		if (no && catalog_object_path(g->base, no, &was, e))
			return -1;
		image_path(g, &is, span_of(path.p, path.len));
		/* New, or from elsewhere: with all that is in it. */
		if (!no || !span_eq(span_of(was.p, was.len), span_of(is.p, is.len)))
			flags |= CHANGED_NEW | CHANGED_SUBTREE;
	}
	add(g, &path, flags);
	return 1;
}

/* struct btrfs_inode_ref, one after the other; in an INODE_EXTREF each says its directory, too. */
static int on_refs(struct generations *g, const struct inode *i, uint64_t no, struct item *it, struct err *e)
{
	struct rd *r = &it->data;

	while (r->len) {
		uint64_t dir = it->h.type == BTRFS_INODE_REF_KEY ? it->h.offset : rd_u64(r);
		rd_u64(r);
		size_t n = rd_u16(r);
		struct span name = rd_raw(r, n);
		if (r->bad || !name_is_sane(name))
			return because(g, "the tree of a subvolume cannot be read");
		int got = on_name(g, i, no, dir, name, e);
		if (got != 1)
			return got;
	}
	return 1;
}

static int all_names(struct generations *g, const struct inode *i, uint64_t no, struct err *e)
{
	struct btrfs_ioctl_search_key key = {.min_objectid = i->ino, .max_objectid = i->ino, .min_type = BTRFS_INODE_REF_KEY,
		.max_type = BTRFS_INODE_EXTREF_KEY, .max_offset = UINT64_MAX, .max_transid = UINT64_MAX};
	struct item it = {0};

	for (;;) {
		size_t at = 0;
		if (search(g, g->roots[g->root].fd, &key))
			return because(g, "the tree of a subvolume cannot be searched");
		for (uint32_t k = 0; k < key.nr_items; k++) {
			if (!next_item(g, &at, &it))
				return because(g, "the tree of a subvolume cannot be read");
			if (it.h.type != BTRFS_INODE_REF_KEY && it.h.type != BTRFS_INODE_EXTREF_KEY)
				continue;
			int got = on_refs(g, i, no, &it, e);
			if (got != 1)
				return got;
		}
		if (!key.nr_items || !go_on(&key, &it))
			return 1;
	}
}

/* ---- directories ---- */

static int name_cmp(const void *a, const void *b, void *ctx)
{
	const char *text = ctx;

	return strcmp(text + get_le64(a), text + get_le64(b));
}

/* An empty directory in the place of a subvolume that the snapshot leaves out: no inode of this tree speaks of it. */
static bool is_left_out(int dir, const struct dirent *en)
{
	struct stat st;

	return (en->d_type == DT_DIR || en->d_type == DT_UNKNOWN) && !fstatat(dir, en->d_name, &st, AT_SYMLINK_NOFOLLOW) &&
		st.st_ino == EMPTY_SUBVOLUME;
}

/* Names of a directory, in byte order: each ended by a zero byte in text, where it begins in starts. */
static int list_dir(struct generations *g, const struct buf *below, struct buf *text, struct buf *starts)
{
	struct err why = {0};
	int fd = path_open(g->roots[g->root].fd, span_of(below->p, below->len), O_RDONLY | O_DIRECTORY, 0, &why);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	AUTO_BUF struct buf path = {0};
	const struct dirent *en;

	if (!d) {
		close_fd(&fd);
		return because(g, "a directory of the snapshot cannot be read");
	}
	for (;;) {
		errno = 0;
		en = readdir(d);
		if (!en || text->len > ENTRIES_MAX)
			break;
		if (file_is_dots(en->d_name))
			continue;
		wr_u64(starts, text->len);
		buf_add(text, en->d_name, strlen(en->d_name) + 1);
		if (!is_left_out(dirfd(d), en))
			continue;
		buf_reset(&path);
		buf_add(&path, below->p, below->len);
		path_push(&path, span_cstr(en->d_name));
		add(g, &path, CHANGED_NEW | CHANGED_SUBTREE);
	}
	int sys = errno;
	closedir(d);
	if (en)
		return because(g, "a directory that has changed is too large");
	if (sys)
		return because(g, "a directory of the snapshot cannot be read");
	if (starts->len)
		qsort_r(starts->p, starts->len / 8, 8, name_cmp, text->p);
	return 1;
}

/* The names that the base has in this directory and that are gone. */
static int gone_names(struct generations *g, const struct inode *i, uint64_t no, struct err *e)
{
	AUTO_BUF struct buf text = {0}, starts = {0}, below = {0}, path = {0};
	struct catalog_iter base = {0};
	const struct buf *known = dir_path(g, i->ino);

	if (!known)
		return because(g, "a path is too long to be looked up");
	buf_add(&below, known->p, known->len);
	if (is_own(&below))
		return 1;
	int got = list_dir(g, &below, &text, &starts);
	if (got != 1)
		return got;
	size_t at = 0, n = starts.len / 8;
	catalog_iter_start(&base, g->base, no);
	while ((got = catalog_iter_next(&base, e)) == 1) {
		int c = -1;
		while (at < n && (c = span_cmp(span_cstr((char *)text.p + get_le64(starts.p + at * 8)), base.name)) < 0)
			at++;
		if (at < n && !c)
			continue;
		buf_reset(&path);
		buf_add(&path, below.p, below.len);
		path_push(&path, base.name);
		add(g, &path, CHANGED_GONE);
	}
	catalog_iter_free(&base);
	return got < 0 ? -1 : 1;
}

/* ---- all of it ---- */

static int on_inode(struct generations *g, const struct inode *i, struct err *e)
{
	uint64_t no = 0;
	int got = 1;

	if (base_object(g, i, &no, e))
		return -1;
	if (i->ino == BTRFS_FIRST_FREE_OBJECTID)
		add(g, &(struct buf){0}, CHANGED_META);
	else
		got = all_names(g, i, no, e);
	return got == 1 && no && i->type == OBJ_DIR ? gone_names(g, i, no, e) : got;
}

static int on_root(struct generations *g, int was, struct err *e)
{
	AUTO_BUF struct buf inodes = {0};
	int got = check_pair(g, was, g->roots[g->root].fd, &g->since);

	if (got == 1)
		got = find_inodes(g, &inodes);
	for (size_t i = 0; i < DIRS; i++)
		g->dirs[i].ino = 0;
	for (size_t at = 0; at < inodes.len && got == 1; at += sizeof(struct inode)) {
		struct inode one;
		memcpy(&one, inodes.p + at, sizeof one);
		got = on_inode(g, &one, e);
		g->inodes++;
	}
	return got;
}

int generations_list(struct generations *g, struct tape *list, struct err *e)
{
	struct head base = {0};
	struct walk_root *was = NULL;

	g->reason[0] = '\0';
	if (g->head->stamps.provider != PROV_BTRFS)
		return 0;
	g->dirs = xalloc(DIRS * sizeof *g->dirs);
	g->found = xalloc(sizeof *g->found + ROOM);
	int got = check_base(g, &base, &was, e);
	for (g->root = 0; g->root < g->head->n_members && got == 1; g->root++)
		got = on_root(g, was[g->root].fd, e);
	if (got == 1 && named_add_again(&g->named, g->base, e))
		got = -1;
	if (got == 1 && named_is_full(&g->named))
		got = because(g, "too much has changed");
	if (got == 1 && (tape_open(list, g->tmpdir, e) || named_write(&g->named, list, e)))
		got = -1;
	head_close_roots(&was, base.n_members);
	head_free(&base);
	return got;
}

void generations_free(struct generations *g)
{
	for (size_t i = 0; g->dirs && i < DIRS; i++)
		buf_free(&g->dirs[i].path);
	free(g->dirs);
	free(g->found);
	named_free(&g->named);
	g->dirs = NULL;
	g->found = NULL;
}
