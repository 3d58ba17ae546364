#include "clones.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "file.h"
#include "head.h"
#include "path.h"
#include "state.h"
#include "volume.h"
#include "walk.h"

#define HEAD "repl-clones 1\n"
#define ROWS "rows"
#define ROWS_MAX (256u << 20)

struct clones_row {
	uint64_t no, seq, size;
	struct digest content;
	uint8_t boot[16]; /* made in this one and not known to be on the disk; zero: it is */
	uint64_t ino;
	int64_t ctime_s;
	uint32_t ctime_ns;
	/* not written */
	uint32_t dir;
	bool is_there;
};
#define ROW_LEN (8u + 8 + 8 + DIGEST_LEN + 16 + 8 + 8 + 4)

struct clones_dir {
	int root;     /* -1: there can be none */
	int fd;       /* .repl/clones/SUB; -1: not there */
	char sub[56]; /* INSTANCE; of a volume INSTANCE.INO, as several may lie in one directory */
};

/* ---- rows ---- */

static void put_row(struct buf *b, const struct clones_row *r)
{
	wr_u64(b, r->no);
	wr_u64(b, r->seq);
	wr_u64(b, r->size);
	wr_raw(b, r->content.b, DIGEST_LEN);
	wr_raw(b, r->boot, sizeof r->boot);
	wr_u64(b, r->ino);
	wr_i64(b, r->ctime_s);
	wr_u32(b, r->ctime_ns);
}

static struct clones_row get_row(struct rd *in)
{
	struct clones_row r = {.no = rd_u64(in)};

	r.seq = rd_u64(in);
	r.size = rd_u64(in);
	rd_copy(in, r.content.b, DIGEST_LEN);
	rd_copy(in, r.boot, sizeof r.boot);
	r.ino = rd_u64(in);
	r.ctime_s = rd_i64(in);
	r.ctime_ns = rd_u32(in);
	return r;
}

static void add_row(struct clones *c, const struct clones_row *r)
{
	if (c->n == c->cap) {
		c->cap = c->cap ? c->cap * 2 : 16;
		c->rows = xrealloc(c->rows, c->cap * sizeof *c->rows);
	}
	c->rows[c->n++] = *r;
}

static void clone_name(char out[48], const struct clones_row *r)
{
	snprintf(out, 48, "%016" PRIx64 "-%016" PRIx64, r->no, r->seq);
}

static bool is_clone_name(const char *s)
{
	return strlen(s) == 33 && s[16] == '-' && strspn(s, "0123456789abcdef") == 16 && strspn(s + 17, "0123456789abcdef") == 16;
}

static void remember(struct clones_row *r, const struct stat *st)
{
	r->ino = st->st_ino;
	r->ctime_s = st->st_ctim.tv_sec;
	r->ctime_ns = (uint32_t)st->st_ctim.tv_nsec;
}

static bool is_as_remembered(const struct clones_row *r, const struct stat *st)
{
	return S_ISREG(st->st_mode) && r->ino == st->st_ino && r->size == (uint64_t)st->st_size && r->ctime_s == st->st_ctim.tv_sec &&
		r->ctime_ns == (uint32_t)st->st_ctim.tv_nsec;
}

/* All or none: whoever wrote it may have been cut off. */
static void load_rows(struct clones *c, uint32_t dir)
{
	AUTO_CLOSE int fd = path_open_at(c->dirs[dir].fd, ROWS, O_RDONLY, 0);
	struct stat st;
	size_t head = sizeof HEAD - 1;
	struct digest d;

	if (fd < 0 || fstat(fd, &st) || st.st_size < (off_t)(head + DIGEST_LEN) || st.st_size > (off_t)ROWS_MAX)
		return;
	size_t len = (size_t)st.st_size;
	AUTO_FREE uint8_t *p = xalloc(len);
	if (file_read_at(fd, p, len, 0) || memcmp(p, HEAD, head))
		return;
	digest_bytes(&d, p, len - DIGEST_LEN);
	if (memcmp(d.b, p + len - DIGEST_LEN, DIGEST_LEN) || (len - DIGEST_LEN - head) % ROW_LEN)
		return;
	for (struct rd in = rd_of(p + head, len - DIGEST_LEN - head); in.len;) {
		struct clones_row r = get_row(&in);
		char name[48];
		clone_name(name, &r);
		r.dir = dir;
		bool is_known = is_zero(r.boot, sizeof r.boot) || !memcmp(r.boot, c->boot, sizeof r.boot);
		r.is_there = is_known && !fstatat(c->dirs[dir].fd, name, &st, AT_SYMLINK_NOFOLLOW) && is_as_remembered(&r, &st);
		/* An image was taken since: repl-snap has synced the filesystem first. */
		if (r.seq < c->seq)
			memset(r.boot, 0, sizeof r.boot);
		if (r.is_there)
			add_row(c, &r);
	}
}

static void save_rows(struct clones *c, uint32_t dir)
{
	AUTO_BUF struct buf b = {0};
	struct digest d;
	int at = c->dirs[dir].fd;

	buf_str(&b, HEAD);
	for (size_t i = 0; i < c->n; i++)
		if (c->rows[i].dir == dir && c->rows[i].is_there)
			put_row(&b, &c->rows[i]);
	digest_bytes(&d, b.p, b.len);
	wr_raw(&b, d.b, DIGEST_LEN);
	AUTO_CLOSE int fd = openat(at, ROWS ".new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || file_write(fd, b.p, b.len) || renameat(at, ROWS ".new", at, ROWS))
		unlinkat(at, ROWS, 0); /* what it says is no longer so */
}

/* ---- directories ---- */

static int open_dir(const struct clones_dir *d, bool make)
{
	AUTO_CLOSE int all = d->root < 0 ? -1 : control_open(d->root, "clones", make);

	return all < 0 ? -1 : control_below(all, d->sub, make);
}

static void start_dir(struct clones_dir *d, int member, const char *instance)
{
	struct stat st;
	bool is_volume = !fstat(member, &st) && !S_ISDIR(st.st_mode);

	d->root = is_volume ? volume_place(member, NULL, NULL) : fcntl(member, F_DUPFD_CLOEXEC, 3);
	snprintf(d->sub, sizeof d->sub, is_volume ? "%s.%" PRIu64 : "%s", instance, (uint64_t)st.st_ino);
	d->fd = open_dir(d, false);
}

/* Empty directories go; others stay. */
static void drop_dir(const struct clones_dir *d)
{
	AUTO_CLOSE int all = control_open(d->root, "clones", false);

	if (all >= 0 && !unlinkat(all, d->sub, AT_REMOVEDIR))
		control_drop(d->root, "clones");
}

/* ---- what belongs to whom ---- */

static bool is_of(const struct clones_row *r, const struct object *o)
{
	return o->type == OBJ_FILE && o->size == r->size && digest_eq(&o->content, &r->content);
}

static bool is_of_base(const struct clones_row *r, struct catalog *base)
{
	struct object o = {0};
	struct err ignored = {0};
	bool is = base && catalog_get(base, r->no, &o, &ignored) == 1 && is_of(r, &o);

	object_free(&o);
	return is;
}

static int by_object(const void *a, const void *b)
{
	const struct clones_row *x = a, *y = b;

	if (x->dir != y->dir)
		return x->dir < y->dir ? -1 : 1;
	if (x->no != y->no)
		return x->no < y->no ? -1 : 1;
	return (x->seq < y->seq) - (x->seq > y->seq); /* the newest first */
}

/* Of several of an object that the base has the newest is enough. */
static void choose(struct clones *c, struct catalog *base)
{
	size_t n = 0;
	const struct clones_row *kept = NULL;

	if (c->n)
		qsort(c->rows, c->n, sizeof *c->rows, by_object);
	for (size_t i = 0; i < c->n; i++) {
		struct clones_row r = c->rows[i];
		bool has_newer = kept && kept->dir == r.dir && kept->no == r.no;
		bool is_base = !has_newer && is_of_base(&r, base);
		if (!is_base && (!c->seq || r.seq != c->seq))
			continue;
		c->rows[n++] = r;
		kept = is_base ? &c->rows[n - 1] : kept;
	}
	c->n = c->n_found = n;
}

static bool has_row(const struct clones *c, uint32_t dir, const char *name)
{
	struct clones_row key = {.no = strtoull(name, NULL, 16), .seq = strtoull(name + 17, NULL, 16), .dir = dir};

	return c->n && bsearch(&key, c->rows, c->n, sizeof key, by_object);
}

/* All that has no row goes. */
static void sweep(struct clones *c, uint32_t dir)
{
	int copy = openat(c->dirs[dir].fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);

	if (!d) {
		close_fd(&copy);
		return;
	}
	for (const struct dirent *en; (en = readdir(d));)
		if (!strcmp(en->d_name, ROWS ".new") || (is_clone_name(en->d_name) && !has_row(c, dir, en->d_name)))
			unlinkat(c->dirs[dir].fd, en->d_name, 0);
	closedir(d);
}

static void boot_id(uint8_t out[16])
{
	AUTO_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	char text[64] = "", plain[33] = "";
	size_t n = 0;

	/* Not known: another one each time. */
	ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	for (ssize_t i = 0; i < len && n < 32; i++)
		if (text[i] != '-')
			plain[n++] = text[i];
	if (n != 32 || !unhex(out, 16, plain))
		memset(out, 0xff, 16);
}

void clones_open(struct clones *c, const struct state *s, struct catalog *base, const struct walk_root *roots, size_t n)
{
	hex(c->instance, s->instance, sizeof s->instance);
	boot_id(c->boot);
	c->dirs = xalloc((n + 1) * sizeof *c->dirs);
	c->n_dirs = n;
	for (uint32_t i = 0; i < n; i++) {
		start_dir(&c->dirs[i], roots[i].fd, c->instance);
		if (c->dirs[i].fd >= 0)
			load_rows(c, i);
	}
	choose(c, base);
	for (uint32_t i = 0; i < n && !c->only_look; i++)
		if (c->dirs[i].fd >= 0)
			sweep(c, i);
}

void clones_close(struct clones *c)
{
	for (size_t i = 0; i < c->n_dirs; i++) {
		close_fd(&c->dirs[i].fd);
		close_fd(&c->dirs[i].root);
	}
	free(c->dirs);
	free(c->rows);
	c->dirs = NULL;
	c->rows = NULL;
	c->n_dirs = c->n = c->cap = 0;
}

void clones_save(struct clones *c)
{
	for (uint32_t i = 0; i < c->n_dirs; i++)
		if (c->dirs[i].fd >= 0)
			save_rows(c, i);
}

/* ---- one clone ---- */

/* The first row of what was found in the beginning that does not come before the key. */
static size_t find_row(const struct clones *c, const struct clones_row *key)
{
	size_t low = 0, high = c->n_found;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (by_object(&c->rows[mid], key) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int open_clone(const struct clones *c, const struct clones_row *r)
{
	struct stat st;
	char name[48];

	clone_name(name, r);
	int fd = path_open_at(c->dirs[r->dir].fd, name, O_RDONLY, 0);
	if (fd >= 0 && (fstat(fd, &st) || !is_as_remembered(r, &st)))
		close_fd(&fd);
	return fd;
}

int clones_old(const struct clones *c, const struct object *old)
{
	for (uint32_t dir = 0; dir < c->n_dirs; dir++) {
		struct clones_row key = {.dir = dir, .no = old->no, .seq = UINT64_MAX};
		for (size_t i = find_row(c, &key); i < c->n_found && c->rows[i].dir == dir && c->rows[i].no == old->no; i++) {
			const struct clones_row *r = &c->rows[i];
			int fd = r->is_there && is_of(r, old) ? open_clone(c, r) : -1;
			if (fd >= 0)
				return fd;
		}
	}
	return -1;
}

static int none(struct clones *c, const char *what)
{
	if (!c->why[0])
		snprintf(c->why, sizeof c->why, "%s: %s", what, strerror(errno));
	return -1;
}

int clones_take(struct clones *c, size_t root, int fd, uint64_t size)
{
	int flags = 0;

	if (size < c->least)
		return -1;
	if (c->dirs[root].root < 0)
		return -1;
	/* Without a name: it goes with us. */
	AUTO_CLOSE int to = openat(c->dirs[root].root, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (to < 0)
		return none(c, "a file cannot be made in the root");
	/* btrfs shares no extents between files with checksums and files without. */
	if (!ioctl(fd, FS_IOC_GETFLAGS, &flags) && flags & FS_NOCOW_FL) {
		int nocow = FS_NOCOW_FL;
		ioctl(to, FS_IOC_SETFLAGS, &nocow);
	}
	if (ioctl(to, FICLONE, fd))
		return none(c, "extents cannot be shared");
	int mine = to;
	to = -1;
	return mine;
}

void clones_keep(struct clones *c, size_t root, int fd, uint64_t no, uint64_t size, const struct digest *content)
{
	struct clones_dir *d = &c->dirs[root];
	struct clones_row r = {.no = no, .seq = c->seq, .size = size, .content = *content, .dir = (uint32_t)root, .is_there = true};
	char name[48], self[64];
	struct stat st;

	if (d->fd < 0 && (d->fd = open_dir(d, true)) < 0) {
		none(c, "a directory cannot be made in the root");
		return;
	}
	memcpy(r.boot, c->boot, sizeof r.boot);
	clone_name(name, &r);
	snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
	/* One of an earlier run for this image, which was taken again. */
	if (unlinkat(d->fd, name, 0) == 0)
		for (size_t i = 0; i < c->n; i++)
			c->rows[i].is_there &= c->rows[i].no != no || c->rows[i].seq != c->seq || c->rows[i].dir != root;
	if (linkat(AT_FDCWD, self, d->fd, name, AT_SYMLINK_FOLLOW) || fstat(fd, &st)) {
		none(c, "a clone cannot be given a name");
		return;
	}
	remember(&r, &st); /* linking moved its ctime */
	add_row(c, &r);
	c->made++;
}

/* ---- tending ---- */

static void tend(const struct state *s, const struct head *h, struct catalog *base, uint64_t seq)
{
	struct clones c = {.seq = seq};
	struct walk_root *roots = NULL;
	struct err ignored = {0};

	if (head_open_live(h, &roots, &ignored))
		return;
	clones_open(&c, s, base, roots, h->n_members);
	for (uint32_t i = 0; i < c.n_dirs; i++) {
		bool has_any = false;
		for (size_t k = 0; k < c.n; k++)
			has_any |= c.rows[k].dir == i;
		if (c.dirs[i].fd >= 0 && !has_any) {
			unlinkat(c.dirs[i].fd, ROWS, 0);
			drop_dir(&c.dirs[i]);
		}
	}
	clones_close(&c);
	head_close_roots(&roots, h->n_members);
}

/* Those of members that the image has no more. */
static void tend_former(const struct state *s, const struct head *was, const struct head *now)
{
	for (size_t i = 0; i < was->n_members; i++) {
		struct head one = {.members = &was->members[i], .n_members = 1};
		bool is_still = false;
		for (size_t k = 0; k < now->n_members; k++)
			is_still |= span_eq(was->members[i].path, now->members[k].path);
		if (!is_still)
			tend(s, &one, NULL, 0);
	}
}

void clones_tend(const struct state *s, const struct head *was, bool forget)
{
	struct catalog *base = NULL;
	struct head next = {0}, is = {0};
	struct err ignored = {0};
	bool has_next = state_has(s, "image") && !state_load_image(s, &next, &ignored);
	bool has_base = !state_catalog(s, CATALOG_READ, &base, &ignored) && head_of(&is, base, &ignored) == 1;
	uint64_t seq = has_next && !forget ? next.stamps.seq : 0;

	if (has_base)
		tend(s, &is, base, seq);
	if (has_next)
		tend(s, &next, base, seq);
	if (was && has_base)
		tend_former(s, was, &is);
	catalog_close(&base);
	head_free(&next);
	head_free(&is);
}
