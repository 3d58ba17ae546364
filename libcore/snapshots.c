#include "snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attr.h"
#include "control.h"
#include "file.h"
#include "head.h"
#include "mounts.h"
#include "path.h"
#include "pending.h"
#include "state.h"
#include "subvol.h"
#include "walk.h"

#define ROWS "snapshots"
#define UUID 32u  /* hex digits */
#define SHOWN 300

/* ---- can there be one ---- */

/* 1: the snapshot of this member is what its path shows; 0. */
static int can_one(const struct provider *p, const struct provider_root *r, const struct mounts *m, bool *is_possible, char reason[512])
{
	char text[SHOWN];
	int can = p->can(r, is_possible, reason);
	const struct mount *below = can ? mounts_inside(m, r->path) : NULL;

	if (below)
		snprintf(reason, 512, "another filesystem is mounted at '%s', which a snapshot does not have",
			esc_cut(text, sizeof text, span_cstr(below->point)));
	return can && !below;
}

static struct provider_root root_of_member(const struct head *h, size_t i, const struct walk_root *roots)
{
	return (struct provider_root){.path = h->members[i].path, .fd = roots[i].fd};
}

int snapshots_can(const struct provider *p, const struct head *h, bool *is_possible, char reason[512], struct err *e)
{
	struct walk_root *roots = NULL;
	struct mounts m = {0};
	int can = 1;

	*is_possible = true;
	if (head_open_live(h, &roots, e))
		return -1;
	if (mounts_read(&m, e)) {
		head_close_roots(&roots, h->n_members);
		return -1;
	}
	/* The first reason is the one that is said, but one that makes it impossible comes before all others. */
	for (size_t i = 0; i < h->n_members && *is_possible; i++) {
		const struct provider_root r = root_of_member(h, i, roots);
		char why[512];
		if (can_one(p, &r, &m, is_possible, why))
			continue;
		if (can || !*is_possible)
			memcpy(reason, why, sizeof why);
		can = 0;
	}
	mounts_free(&m);
	head_close_roots(&roots, h->n_members);
	return can;
}

/* ---- where they may be ---- */

struct row {
	uint8_t uuid[16];
	const char *path; /* in the text */
};
struct rows {
	struct row *v;
	size_t n;
	char *text;
};

static void rows_free(struct rows *r)
{
	free(r->v);
	free(r->text);
	*r = (struct rows){0};
}

static int damaged(struct err *e) { return err_set(e, ERR_SYSTEM, "the state directory is damaged: '" ROWS "' holds no paths"); }

static int rows_load(const struct state *s, struct rows *r, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, ROWS, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	*r = (struct rows){0};
	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open '" ROWS "' in the state directory");
	if (fstat(fd, &st) || st.st_size > (off_t)(16u << 20))
		return damaged(e);
	size_t len = (size_t)st.st_size;
	r->text = xalloc(len + 1);
	if (file_read_at(fd, r->text, len, 0))
		return err_sys(e, "cannot read '" ROWS "' in the state directory");
	r->v = xalloc((len / (UUID + 2) + 1) * sizeof *r->v);
	for (size_t at = 0; at < len;) {
		char uuid[UUID + 1] = "";
		size_t n = strnlen(r->text + at, len - at);
		struct row *w = &r->v[r->n];
		if (n > UUID + 1)
			memcpy(uuid, r->text + at, UUID);
		if (at + n == len || !unhex(w->uuid, sizeof w->uuid, uuid) || r->text[at + UUID] != '/') {
			rows_free(r);
			return damaged(e);
		}
		w->path = r->text + at + UUID;
		r->n++;
		at += n + 1;
	}
	return 0;
}

static void put_row(struct buf *b, const uint8_t uuid[16], struct span path)
{
	char text[UUID + 1];

	hex(text, uuid, 16);
	buf_add(b, text, UUID);
	buf_add(b, path.p, path.len);
	wr_u8(b, 0);
}

static bool has_row(const struct rows *r, const uint8_t uuid[16], struct span path)
{
	for (size_t i = 0; i < r->n; i++)
		if (!memcmp(r->v[i].uuid, uuid, 16) && span_eq(span_cstr(r->v[i].path), path))
			return true;
	return false;
}

/* Durably, before there is anything in these roots. */
static int rows_add(const struct state *s, const struct head *h, const struct walk_root *roots, struct err *e)
{
	struct rows r;
	AUTO_BUF struct buf b = {0};
	bool is_new = false;

	if (rows_load(s, &r, e))
		return -1;
	for (size_t i = 0; i < r.n; i++)
		put_row(&b, r.v[i].uuid, span_cstr(r.v[i].path));
	for (size_t i = 0; i < h->n_members; i++) {
		struct subvol_info info;
		if (subvol_ask(roots[i].fd, &info)) {
			rows_free(&r);
			return err_sys(e, "cannot look at the subvolume '%s'", roots[i].name);
		}
		if (has_row(&r, info.uuid, h->members[i].path))
			continue;
		put_row(&b, info.uuid, h->members[i].path);
		is_new = true;
	}
	rows_free(&r);
	return is_new ? file_replace(s->fd, ROWS, b.p, b.len, e) : 0;
}

/* ---- what is there ---- */

struct found {
	uint64_t *seqs;
	size_t n;
};

/* INSTANCE-SEQ of this state. */
static bool is_ours(const struct state *s, const char *name, uint64_t *seq)
{
	char instance[UUID + 1], *end;

	hex(instance, s->instance, sizeof s->instance);
	if (strncmp(name, instance, UUID) || name[UUID] != '-' || name[UUID + 1] < '1' || name[UUID + 1] > '9')
		return false;
	errno = 0;
	*seq = strtoull(name + UUID + 1, &end, 10);
	return !errno && !*end;
}

/* *dir: owned; -1: there is none. */
static void look(const struct state *s, int root, int *dir, struct found *f)
{
	*f = (struct found){0};
	*dir = control_open(root, PROVIDER_DIR, false);
	int copy = *dir < 0 ? -1 : openat(*dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	uint64_t seq;

	if (!d) {
		close_fd(&copy);
		return;
	}
	for (const struct dirent *en; (en = readdir(d));) {
		if (!is_ours(s, en->d_name, &seq))
			continue;
		f->seqs = xrealloc(f->seqs, (f->n + 1) * sizeof *f->seqs);
		f->seqs[f->n++] = seq;
	}
	closedir(d);
}

static void name_of(const struct state *s, uint64_t seq, char name[PROVIDER_NAME_MAX])
{
	struct head h = {.stamps.seq = seq};

	memcpy(h.stamps.instance, s->instance, sizeof s->instance);
	head_snapshot_name(&h, name);
}

/* Opens the row's root; -1: what stands there now is another one, or nothing. */
static int open_row(const struct row *w)
{
	AUTO_CLOSE int fd = open(w->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct subvol_info info;

	if (fd < 0 || subvol_ask(fd, &info) || memcmp(info.uuid, w->uuid, sizeof info.uuid))
		return -1;
	int mine = fd;
	fd = -1;
	return mine;
}

struct keep {
	uint64_t seqs[3];
	size_t n;
};

static void keep_add(struct keep *k, const struct state *s, const struct head *h)
{
	if (h->has_image && head_is_still(h) && !memcmp(h->stamps.instance, s->instance, sizeof s->instance))
		k->seqs[k->n++] = h->stamps.seq;
}

static void what_to_keep(const struct state *s, struct keep *k)
{
	struct head base = {0}, image = {0};
	struct catalog *c = NULL;
	struct pending p;
	struct err ignored = {0};

	*k = (struct keep){0};
	if (!state_catalog(s, CATALOG_READ, &c, &ignored) && head_of(&base, c, &ignored) == 1)
		keep_add(k, s, &base);
	catalog_close(&c);
	if (state_has(s, "image") && !state_load_image(s, &image, &ignored))
		keep_add(k, s, &image);
	if (pending_last(s, &p, &ignored) == 1)
		k->seqs[k->n++] = p.seq;
	head_free(&base);
	head_free(&image);
}

/* What is left of the state in this root. */
static size_t tend_root(const struct state *s, int root, const struct keep *k)
{
	struct found f;
	AUTO_CLOSE int dir = -1;
	size_t n = 0;

	look(s, root, &dir, &f);
	for (size_t i = 0; i < f.n; i++) {
		char name[PROVIDER_NAME_MAX];
		bool is_kept = false;
		for (size_t j = 0; j < k->n; j++)
			is_kept |= k->seqs[j] == f.seqs[i];
		name_of(s, f.seqs[i], name);
		/* A copy of this directory that another snapshot holds has an empty directory in its place. */
		n += is_kept || (subvol_remove(dir, name) && unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT);
	}
	free(f.seqs);
	if (!n && dir >= 0)
		control_drop(root, PROVIDER_DIR);
	return n;
}

void snapshots_tend(const struct state *s)
{
	struct rows r;
	struct keep k;
	AUTO_BUF struct buf b = {0};
	struct err ignored = {0};
	size_t n = 0;

	if (rows_load(s, &r, &ignored) || !r.n)
		return;
	what_to_keep(s, &k);
	for (size_t i = 0; i < r.n; i++) {
		AUTO_CLOSE int root = open_row(&r.v[i]);
		if (root >= 0 && !tend_root(s, root, &k))
			continue;
		put_row(&b, r.v[i].uuid, span_cstr(r.v[i].path));
		n++;
	}
	if (!n && !state_forget(s, ROWS, &ignored))
		fsync(s->fd);
	else if (n < r.n)
		file_replace(s->fd, ROWS, b.p, b.len, &ignored);
	rows_free(&r);
}

int snapshots_each(const struct state *s, void (*fn)(void *ctx, const char *path, uint64_t seq), void *ctx, struct err *e)
{
	struct rows r;

	if (rows_load(s, &r, e))
		return -1;
	for (size_t i = 0; i < r.n; i++) {
		AUTO_CLOSE int root = open_row(&r.v[i]);
		AUTO_CLOSE int dir = -1;
		struct found f = {0};
		if (root >= 0)
			look(s, root, &dir, &f);
		for (size_t k = 0; k < f.n; k++) {
			AUTO_BUF struct buf path = {0};
			char name[PROVIDER_NAME_MAX];
			name_of(s, f.seqs[k], name);
			buf_fmt(&path, "%s/.repl/" PROVIDER_DIR "/%s", r.v[i].path, name);
			fn(ctx, buf_cstr(&path), f.seqs[k]);
		}
		free(f.seqs);
	}
	rows_free(&r);
	return 0;
}

/* ---- taking them ---- */

static int check_limit(const struct state *s, const struct head *h, const struct walk_root *roots, struct err *e)
{
	char text[SHOWN];

	for (size_t i = 0; i < h->n_members; i++) {
		struct found f;
		AUTO_CLOSE int dir = -1;
		look(s, roots[i].fd, &dir, &f);
		free(f.seqs);
		if (f.n >= SNAPSHOTS_MAX)
			return err_set(e, ERR_REFUSED, "%zu snapshots of this state in '%s/.repl/" PROVIDER_DIR "' cannot be removed: see to "
				"them first", f.n, esc_cut(text, sizeof text, h->members[i].path));
	}
	return 0;
}

/* The same directory under a second name. */
static bool is_again(const struct head *h, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (span_eq(h->members[i].path, h->members[k].path))
			return true;
	return false;
}

int snapshots_take(const struct state *s, const struct provider *p, const struct head *h, char reason[512], struct err *e)
{
	struct walk_root *roots = NULL;
	char name[PROVIDER_NAME_MAX];
	int got = 1;

	if (head_open_live(h, &roots, e))
		return -1;
	head_snapshot_name(h, name);
	if (check_limit(s, h, roots, e) || rows_add(s, h, roots, e))
		got = -1;
	for (size_t i = 0; i < h->n_members && got == 1; i++) {
		const struct provider_root r = root_of_member(h, i, roots);
		if (!is_again(h, i))
			got = p->take(&r, name, reason, e);
	}
	head_close_roots(&roots, h->n_members);
	return got;
}

/* ---- the base's ---- */

void snapshots_open(struct snapshots *s, struct catalog *base)
{
	struct head h = {0};
	struct err ignored = {0};

	*s = (struct snapshots){.base = base};
	if (head_of(&h, base, &ignored) == 1 && head_is_still(&h) && !head_open_roots(&h, &s->roots, &ignored))
		s->n = h.n_members;
	head_free(&h);
}

/* The root that the path is in, and what is left of the path. */
static int root_of(const struct snapshots *s, struct span *path)
{
	if (s->n == 1 && !s->roots[0].name[0])
		return s->roots[0].fd;
	const uint8_t *slash = memchr(path->p, '/', path->len);
	struct span first = span_of(path->p, slash ? (size_t)(slash - path->p) : path->len);
	for (size_t i = 0; i < s->n && slash; i++) {
		if (!span_eq(span_cstr(s->roots[i].name), first))
			continue;
		*path = span_of(slash + 1, path->len - first.len - 1);
		return s->roots[i].fd;
	}
	return -1;
}

int snapshots_old(const struct snapshots *s, const struct object *old)
{
	AUTO_BUF struct buf text = {0};
	struct err ignored = {0};
	struct attr a = {0};

	if (!s->n || !old->hint.ino)
		return -1;
	int got = catalog_object_path(s->base, old->no, &text, &ignored);
	struct span path = span_of(text.p, text.len);
	int root = got ? -1 : root_of(s, &path);
	AUTO_CLOSE int fd = root < 0 ? -1 : path_open(root, path, O_RDONLY, 0, &ignored);
	if (fd < 0 || attr_stat(&a, fd, NULL, &ignored))
		return -1;
	bool is_it = a.type == OBJ_FILE && a.size == old->size && a.hint.ino == old->hint.ino && a.hint.ctime_s == old->hint.ctime_s &&
		a.hint.ctime_ns == old->hint.ctime_ns;
	attr_free(&a);
	if (!is_it)
		return -1;
	int mine = fd;
	fd = -1;
	return mine;
}

void snapshots_close(struct snapshots *s)
{
	head_close_roots(&s->roots, s->n);
	*s = (struct snapshots){0};
}
