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
#include "providers.h"
#include "snapbtrfs.h"
#include "snapexec.h"
#include "snaptree.h"
#include "state.h"
#include "subvol.h"
#include "walk.h"

#define ROWS "snapshots"
#define ID 32u  /* hex digits */
#define SHOWN 300

/* ---- can there be one ---- */

/* 1: the snapshot of this member is what its path shows; 0. */
static int can_one(const struct provider *p, const struct provider_root *r, const struct mounts *m, bool *is_possible, char reason[512])
{
	char text[SHOWN];
	int can = p->can ? p->can(r, is_possible, reason) : 1;
	const struct mount *below = can ? mounts_inside(m, r->path) : NULL;

	if (below)
		snprintf(reason, 512, "another filesystem is mounted at '%s', which a snapshot does not have",
			esc_cut(text, sizeof text, span_cstr(below->point)));
	return can && !below;
}

/* The members as a provider has to do with them. */
struct roots {
	struct provider_root *v;
	struct head_place *places;
	struct walk_root *live;
	size_t n;
};

static void roots_close(struct roots *r)
{
	for (size_t i = 0; i < r->n && r->places; i++)
		head_place_free(&r->places[i]);
	head_close_roots(&r->live, r->n);
	free(r->places);
	free(r->v);
	*r = (struct roots){0};
}

static int roots_open(struct roots *r, const struct head *h, const struct provider_run *run, struct err *e)
{
	*r = (struct roots){.n = h->n_members};
	if (head_open_live(h, &r->live, e))
		return -1;
	r->v = xalloc((r->n + 1) * sizeof *r->v);
	r->places = xalloc((r->n + 1) * sizeof *r->places);
	for (size_t i = 0; i < r->n; i++)
		r->places[i].fd = -1;
	for (size_t i = 0; i < r->n; i++) {
		if (head_place(&r->places[i], h, i, r->live[i].fd, &r->v[i], e))
			return -1;
		r->v[i].run = run;
	}
	return 0;
}

static int can_member(const struct provider *p, const struct head *h, size_t i, int fd, const struct mounts *m, bool *is_possible,
	char reason[512])
{
	struct provider_root r;
	struct head_place place;
	struct err why = {0};
	char text[SHOWN];
	int can = 0;

	if (h->members[i].kind == MEMBER_VOLUME && !p->takes_volumes) {
		*is_possible = false;
		snprintf(reason, 512, "'%s' is a volume: such snapshots are made of directories only",
			esc_cut(text, sizeof text, h->members[i].path));
		return 0;
	}
	if (!head_place(&place, h, i, fd, &r, &why)) {
		/* What is mounted below the directory that a volume lies in is no matter. */
		can = r.file ? p->can(&r, is_possible, reason) : can_one(p, &r, m, is_possible, reason);
	} else {
		*is_possible = false;
		snprintf(reason, 512, "%.500s", why.text);
	}
	head_place_free(&place);
	return can;
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
		char why[512];
		if (can_member(p, h, i, roots[i].fd, &m, is_possible, why))
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

/* The same directory, or file, under a second name. */
static bool is_again(const struct roots *r, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (span_eq(r->v[i].path, r->v[k].path) && (!r->v[i].file || !r->v[k].file || !strcmp(r->v[i].file, r->v[k].file)))
			return true;
	return false;
}

struct row {
	uint8_t id[16];
	const char *path;    /* in the text */
	const char *program; /* the same; NULL: what is there is seen in the directory */
	uint64_t seq;        /* with a program: of the only one */
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

/* The string at *at, which has its end before `end`; NULL: there is none. *at moves behind it. */
static const char *next_string(const char **at, const char *end)
{
	const char *from = *at, *stop = memchr(from, '\0', (size_t)(end - from));

	*at = stop ? stop + 1 : end;
	return stop;
}

static bool parse_row(struct row *w, const char **at, const char *end)
{
	const char *text = *at;
	char id[ID + 1] = "";

	if (!next_string(at, end) || strlen(text) <= ID)
		return false;
	memcpy(id, text, ID);
	if (!unhex(w->id, sizeof w->id, id))
		return false;
	w->path = text + ID;
	if (*w->path == '@') {
		char *stop;
		errno = 0;
		w->seq = strtoull(w->path + 1, &stop, 10);
		w->path = stop;
		w->program = *at;
		if (errno || !w->seq || !next_string(at, end) || *w->program != '/')
			return false;
	}
	return *w->path == '/';
}

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
	r->v = xalloc((len / (ID + 2) + 1) * sizeof *r->v);
	for (const char *at = r->text; at < r->text + len; r->n++) {
		if (!parse_row(&r->v[r->n], &at, r->text + len)) {
			rows_free(r);
			return damaged(e);
		}
	}
	return 0;
}

static void put_row(struct buf *b, const struct row *w)
{
	char text[ID + 1];

	hex(text, w->id, sizeof w->id);
	buf_str(b, text);
	if (w->program)
		buf_fmt(b, "@%" PRIu64, w->seq);
	buf_add(b, w->path, strlen(w->path) + 1);
	if (w->program)
		buf_add(b, w->program, strlen(w->program) + 1);
}

static bool is_same_root(const struct row *w, const uint8_t id[16], struct span path)
{
	return !memcmp(w->id, id, sizeof w->id) && span_eq(span_cstr(w->path), path);
}

/* Of the directory, wherever it is mounted: a subvolume's uuid, else inode and time of birth. -1 with errno. */
static int root_id(int fd, uint8_t id[16])
{
	struct subvol_info info;
	struct err ignored = {0};
	struct attr a = {0};

	if (!subvol_ask(fd, &info)) {
		memcpy(id, info.uuid, sizeof info.uuid);
		return 0;
	}
	if (attr_stat(&a, fd, NULL, &ignored))
		return -1;
	put_le64(id, a.hint.ino);
	put_le64(id + 8, (uint64_t)a.hint.btime_s * 1000000000 + a.hint.btime_ns);
	attr_free(&a);
	return 0;
}

static bool has_row(const struct rows *r, const struct row *new)
{
	for (size_t i = 0; i < r->n; i++) {
		const struct row *w = &r->v[i];
		bool same = new->program ? w->program && w->seq == new->seq && !strcmp(w->program, new->program) : !w->program;
		if (same && is_same_root(w, new->id, span_cstr(new->path)))
			return true;
	}
	return false;
}

/* Durably, before there is anything in these roots. */
static int rows_add(const struct state *s, const struct head *h, const struct roots *roots, const char *program, struct err *e)
{
	struct rows r;
	AUTO_BUF struct buf b = {0};
	bool is_new = false;

	if (rows_load(s, &r, e))
		return -1;
	for (size_t i = 0; i < r.n; i++)
		put_row(&b, &r.v[i]);
	for (size_t i = 0; i < h->n_members; i++) {
		AUTO_BUF struct buf path = {0};
		buf_add(&path, roots->v[i].path.p, roots->v[i].path.len);
		struct row new = {.path = buf_cstr(&path), .program = program, .seq = h->stamps.seq};
		if (root_id(roots->v[i].fd, new.id)) {
			rows_free(&r);
			return err_sys(e, "cannot look at '%s'", roots->live[i].name);
		}
		if (is_again(roots, i) || has_row(&r, &new))
			continue;
		put_row(&b, &new);
		is_new = true;
	}
	rows_free(&r);
	return is_new ? file_replace(s->fd, ROWS, b.p, b.len, e) : 0;
}

/* Who keeps the row's snapshot. */
static struct provider_run run_of(const struct state *s, const struct row *w)
{
	struct provider_run run = *s->run;

	run.program = w->program;
	return run;
}

/* ---- what is there ---- */

struct found {
	uint64_t *seqs;
	size_t n;
};

/* INSTANCE-SEQ of this state. */
static bool is_ours(const struct state *s, const char *name, uint64_t *seq)
{
	char instance[ID + 1], *end;

	hex(instance, s->instance, sizeof s->instance);
	if (strncmp(name, instance, ID) || name[ID] != '-' || name[ID + 1] < '1' || name[ID + 1] > '9')
		return false;
	errno = 0;
	*seq = strtoull(name + ID + 1, &end, 10);
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
		struct stat st;
		/* A file is known by its row. */
		if (!is_ours(s, en->d_name, &seq) || fstatat(*dir, en->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISDIR(st.st_mode))
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
	uint8_t id[16];

	if (fd < 0 || root_id(fd, id) || memcmp(id, w->id, sizeof id))
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

static bool is_kept(const struct keep *k, uint64_t seq)
{
	for (size_t i = 0; i < k->n; i++)
		if (k->seqs[i] == seq)
			return true;
	return false;
}

/* What is left of the state in this root. */
static size_t tend_root(const struct state *s, const struct provider_root *root, const struct keep *k)
{
	struct found f;
	AUTO_CLOSE int dir = -1;
	struct err ignored = {0};
	size_t n = 0;

	look(s, root->fd, &dir, &f);
	for (size_t i = 0; i < f.n; i++) {
		char name[PROVIDER_NAME_MAX];
		name_of(s, f.seqs[i], name);
		/* A subvolume's content cannot be removed as that of a tree: it has a device of its own. */
		n += is_kept(k, f.seqs[i]) || (snapbtrfs_provider.drop(root, name, &ignored) && snaptree_provider.drop(root, name, &ignored));
	}
	free(f.seqs);
	return n;
}

/* The one that a program keeps. */
static bool tend_one(const struct state *s, const struct provider_root *root, const struct row *w, const struct keep *k)
{
	char name[PROVIDER_NAME_MAX];
	struct err why = {0};

	if (is_kept(k, w->seq) || !s->run)
		return true;
	struct provider_run run = run_of(s, w);
	struct provider_root r = {.path = root->path, .fd = root->fd, .run = &run};
	name_of(s, w->seq, name);
	if (!snapexec_provider.drop(&r, name, &why))
		return false;
	if (s->run->note)
		s->run->note(s->run->ctx, why.text);
	return true;
}

/* Something of this row is left. */
static bool tend_row(const struct state *s, const struct row *w, const struct keep *k)
{
	AUTO_CLOSE int fd = open_row(w);
	const struct provider_root root = {.path = span_cstr(w->path), .fd = fd};

	if (fd < 0 || (w->program ? tend_one(s, &root, w, k) : tend_root(s, &root, k) > 0))
		return true;
	control_drop(fd, PROVIDER_DIR);
	return false;
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
		if (!tend_row(s, &r.v[i], &k))
			continue;
		put_row(&b, &r.v[i]);
		n++;
	}
	if (!n && !state_forget(s, ROWS, &ignored))
		fsync(s->fd);
	else if (n < r.n)
		file_replace(s->fd, ROWS, b.p, b.len, &ignored);
	rows_free(&r);
}

struct each {
	const struct state *s;
	void (*fn)(void *ctx, const struct snapshots_one *one);
	void *ctx;
};

static void tell_one(const struct each *to, const struct row *w, uint64_t seq, const char *provider)
{
	AUTO_BUF struct buf path = {0};
	char name[PROVIDER_NAME_MAX];

	name_of(to->s, seq, name);
	buf_fmt(&path, "%s/.repl/" PROVIDER_DIR "/%s", w->path, name);
	to->fn(to->ctx, &(struct snapshots_one){seq, provider, buf_cstr(&path)});
}

static void tell_row(const struct each *to, const struct row *w)
{
	AUTO_BUF struct buf provider = {0};
	AUTO_CLOSE int root = open_row(w);
	AUTO_CLOSE int dir = -1;
	struct found f = {0};

	if (w->program) {
		buf_fmt(&provider, "exec:%s", w->program);
		tell_one(to, w, w->seq, buf_cstr(&provider));
		return;
	}
	if (root >= 0)
		look(to->s, root, &dir, &f);
	for (size_t i = 0; i < f.n; i++) {
		char name[PROVIDER_NAME_MAX];
		struct subvol_info info;
		name_of(to->s, f.seqs[i], name);
		AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		tell_one(to, w, f.seqs[i], fd < 0 || subvol_ask(fd, &info) ? snaptree_provider.name : snapbtrfs_provider.name);
	}
	free(f.seqs);
}

int snapshots_each(const struct state *s, void (*fn)(void *ctx, const struct snapshots_one *one), void *ctx, struct err *e)
{
	const struct each to = {s, fn, ctx};
	struct rows r;

	if (rows_load(s, &r, e))
		return -1;
	for (size_t i = 0; i < r.n; i++)
		tell_row(&to, &r.v[i]);
	rows_free(&r);
	return 0;
}

/* ---- taking them ---- */

/* Those of the state that are in this root. */
static size_t count(const struct state *s, const struct rows *rows, struct span path, int root)
{
	struct found f;
	AUTO_CLOSE int dir = -1;
	uint8_t id[16];

	look(s, root, &dir, &f);
	free(f.seqs);
	for (size_t i = 0; i < rows->n && !root_id(root, id); i++)
		f.n += rows->v[i].program && is_same_root(&rows->v[i], id, path);
	return f.n;
}

static int check_limit(const struct state *s, const struct roots *roots, struct err *e)
{
	struct rows rows;
	char text[SHOWN];
	int rc = rows_load(s, &rows, e);

	for (size_t i = 0; i < roots->n && !rc; i++) {
		size_t n = count(s, &rows, roots->v[i].path, roots->v[i].fd);
		if (n >= SNAPSHOTS_MAX)
			rc = err_set(e, ERR_REFUSED, "%zu snapshots of this state in '%s/.repl/" PROVIDER_DIR "' cannot be removed: see to "
				"them first", n, esc_cut(text, sizeof text, roots->v[i].path));
	}
	rows_free(&rows);
	return rc;
}

int snapshots_prepare(const struct state *s, const struct head *h, const struct provider_run *run, struct err *e)
{
	const struct provider *p = providers_of(h->stamps.provider);
	struct roots roots;
	char name[PROVIDER_NAME_MAX];
	int rc = roots_open(&roots, h, run, e);

	head_snapshot_name(h, name);
	if (!rc && (check_limit(s, &roots, e) || rows_add(s, h, &roots, p->runs_programs ? run->program : NULL, e)))
		rc = -1;
	for (size_t i = 0; i < h->n_members && !rc && p->prepare; i++)
		if (!is_again(&roots, i))
			rc = p->prepare(&roots.v[i], name, e);
	roots_close(&roots);
	return rc;
}

int snapshots_take(const struct state *s, const struct head *h, const struct provider_run *run, char reason[512], struct err *e)
{
	const struct provider *p = providers_of(h->stamps.provider);
	struct roots roots;
	char name[PROVIDER_NAME_MAX];
	int got = roots_open(&roots, h, run, e) ? -1 : 1;

	head_snapshot_name(h, name);
	for (size_t i = 0; i < h->n_members && got == 1; i++) {
		roots.v[i].prune_dev = s->dev;
		roots.v[i].prune_ino = s->ino;
		if (!is_again(&roots, i))
			got = p->take(&roots.v[i], name, reason, e);
	}
	roots_close(&roots);
	return got;
}

/* Whose row it is. */
static const struct row *row_of(const struct rows *rows, uint64_t seq, struct span path, const uint8_t id[16])
{
	for (size_t i = 0; i < rows->n; i++)
		if (rows->v[i].program && rows->v[i].seq == seq && is_same_root(&rows->v[i], id, path))
			return &rows->v[i];
	return NULL;
}

static int settle_one(const struct state *s, const struct provider *p, const struct rows *rows, const struct head *h,
	struct provider_root *r, struct err *e)
{
	char name[PROVIDER_NAME_MAX];
	uint8_t id[16];
	const struct row *w = root_id(r->fd, id) ? NULL : row_of(rows, h->stamps.seq, r->path, id);

	head_snapshot_name(h, name);
	if (!w || !s->run)
		return provider_refuse(r, name, "is gone", e);
	const struct provider_run run = run_of(s, w);
	r->run = &run;
	return p->settle(r, name, e);
}

int snapshots_settle(const struct state *s, const struct head *h, struct err *e)
{
	const struct provider *p = providers_of(h->stamps.provider);
	struct roots roots;
	struct rows rows;

	if (!p || !p->settle)
		return 0;
	if (rows_load(s, &rows, e))
		return -1;
	int rc = roots_open(&roots, h, NULL, e);
	for (size_t i = 0; i < h->n_members && !rc; i++)
		if (!is_again(&roots, i))
			rc = settle_one(s, p, &rows, h, &roots.v[i], e);
	roots_close(&roots);
	rows_free(&rows);
	return rc;
}

void snapshots_settle_base(const struct state *s)
{
	struct head h = {0};
	struct catalog *c = NULL;
	struct walk_root *roots = NULL;
	struct err ignored = {0};
	bool has_base = !state_catalog(s, CATALOG_READ, &c, &ignored) && head_of(&h, c, &ignored) == 1 &&
		!memcmp(h.stamps.instance, s->instance, sizeof s->instance);

	catalog_close(&c);
	if (has_base && head_open_roots(&h, &roots, &ignored))
		snapshots_settle(s, &h, &(struct err){0});
	head_close_roots(&roots, h.n_members);
	head_free(&h);
}

/* ---- the base's ---- */

void snapshots_open(struct snapshots *s, struct catalog *base)
{
	struct head h = {0};
	struct err ignored = {0};

	*s = (struct snapshots){.base = base};
	if (head_of(&h, base, &ignored) == 1 && head_is_still(&h) && !head_open_roots(&h, &s->roots, &ignored))
		s->n = h.n_members;
	s->are_clones = h.stamps.provider == PROV_REFLINK;
	head_free(&h);
}

/* The root that the path is in, and what is left of the path. */
static int root_of(const struct snapshots *s, struct span *path)
{
	if (s->n == 1 && !s->roots[0].name[0])
		return s->roots[0].fd;
	const uint8_t *slash = memchr(path->p, '/', path->len);
	struct span first = span_of(path->p, slash ? (size_t)(slash - path->p) : path->len);
	for (size_t i = 0; i < s->n; i++) {
		if (!span_eq(span_cstr(s->roots[i].name), first))
			continue;
		*path = slash ? span_of(slash + 1, path->len - first.len - 1) : (struct span){0};
		return s->roots[i].fd;
	}
	return -1;
}

/* That it is the file which the base was made of. */
static bool has_hint(const struct attr *a, const struct object *old)
{
	return a->hint.ino == old->hint.ino && a->hint.ctime_s == old->hint.ctime_s && a->hint.ctime_ns == old->hint.ctime_ns;
}

/* Of clones the base has no hints. They are where only we come to, and nobody writes to them. */
static bool has_mtime(const struct attr *a, const struct object *old)
{
	return a->meta.mtime_s == old->meta.mtime_s && a->meta.mtime_ns == old->meta.mtime_ns;
}

int snapshots_old(const struct snapshots *s, const struct object *old)
{
	AUTO_BUF struct buf text = {0};
	struct err ignored = {0};
	struct attr a = {0};

	if (!s->n || (!old->hint.ino && !s->are_clones))
		return -1;
	int got = catalog_object_path(s->base, old->no, &text, &ignored);
	struct span path = span_of(text.p, text.len);
	int root = got ? -1 : root_of(s, &path);
	/* Nothing is left of the path to a volume. */
	AUTO_CLOSE int fd = root < 0 ? -1 : path.len ? path_open(root, path, O_RDONLY, 0, &ignored) : fcntl(root, F_DUPFD_CLOEXEC, 3);
	if (fd < 0 || attr_stat(&a, fd, NULL, &ignored))
		return -1;
	bool is_it = a.type == OBJ_FILE && a.size == old->size && (s->are_clones ? has_mtime(&a, old) : has_hint(&a, old));
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
