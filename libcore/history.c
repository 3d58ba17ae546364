#include "history.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "input.h"
#include "path.h"
#include "subvol.h"

/* ---- reading ---- */

static int damaged(const struct history_entry *h, struct err *e)
{
	return err_set(e, ERR_STREAM, "'" REPLICA_CTL "/history/%s' is damaged: remove it and the older ones", h->name);
}

static int read_snapshot(struct history_entry *h, const struct replica *r, const char *below, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	struct catalog *c = NULL;

	buf_fmt(&path, "%s/" REPLICA_CTL "/%s%s/" REPLICA_CTL "/catalog", r->path, below, h->name);
	int rc = catalog_open(&c, buf_cstr(&path), CATALOG_READ, e) || catalog_id(c, &h->to, e) ||
		image_stamps(c, &h->stamps, &h->store, e) < 0 ? -1 : 0;
	catalog_close(&c);
	h->is_snapshot = true;
	return rc;
}

/* Of a delta IMAGE and DELTA stand first. below: "history/", or "" for .repl itself; dir: open. */
static int read_head(struct history_entry *h, const struct replica *r, const char *below, int dir, struct err *e)
{
	AUTO_CLOSE int fd = path_open_at(dir, h->name, O_RDONLY, 0);
	struct input in = {0};
	struct stat st;
	bool has_image = false, has_delta = false;
	int got;

	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/%s%s'", r->path, below, h->name);
	if (S_ISDIR(st.st_mode))
		return read_snapshot(h, r, below, e);
	h->bytes = (uint64_t)st.st_size;
	if (input_open(&in, fd, 1, e))
		return -1;
	while (!has_delta && (got = input_next(&in, e)) > 0 && got != STREAM_END) {
		const struct record *rec = &in.s.rec;
		if (got != STREAM_RECORD)
			continue;
		if (rec->type == REC_IMAGE) {
			struct record copy;
			rec_encode(&h->store, rec);
			has_image = !rec_decode(&copy, REC_IMAGE, 0, h->store.p + 8, h->store.len - 8, e);
			h->stamps = copy.u.image;
			h->to = copy.u.image.id;
		} else if (rec->type == REC_DELTA) {
			h->from = rec->u.delta.base;
			has_delta = true;
		}
	}
	input_close(&in);
	return has_image && has_delta ? 0 : damaged(h, e);
}

static int newest_first(const void *a, const void *b)
{
	const struct history_entry *x = a, *y = b;

	return (x->n < y->n) - (x->n > y->n);
}

/* Their names and numbers alone. A missing directory is an empty history. */
static int list(struct history *h, const struct replica *r, int *dir, struct err *e)
{
	const struct dirent *de;

	*h = (struct history){0};
	*dir = openat(r->ctl, "history", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*dir < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open '%s/" REPLICA_CTL "/history'", r->path);
	int copy = fcntl(*dir, F_DUPFD_CLOEXEC, 3);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;
	if (!d) {
		close_fd(&copy);
		return err_sys(e, "cannot list '%s/" REPLICA_CTL "/history'", r->path);
	}
	while ((de = readdir(d))) {
		char *end;
		unsigned long long n = strtoull(de->d_name, &end, 10);
		if (end == de->d_name || *end != '-' || strlen(de->d_name) >= sizeof h->v->name)
			continue;
		h->v = xrealloc(h->v, (h->n + 1) * sizeof *h->v);
		h->v[h->n] = (struct history_entry){.n = n};
		h->v[h->n].is_way = strstr(de->d_name, ".way");
		strcpy(h->v[h->n++].name, de->d_name);
	}
	closedir(d);
	if (h->n)
		qsort(h->v, h->n, sizeof *h->v, newest_first);
	return 0;
}

int history_load(struct history *h, const struct replica *r, struct err *e)
{
	AUTO_CLOSE int dir = -1;

	if (list(h, r, &dir, e))
		return -1;
	for (size_t i = 0; i < h->n; i++)
		if (read_head(&h->v[i], r, "history/", dir, e))
			return -1;
	return 0;
}

void history_free(struct history *h)
{
	for (size_t i = 0; i < h->n; i++)
		buf_free(&h->v[i].store);
	free(h->v);
	*h = (struct history){0};
}

/* ---- what leads where ---- */

static bool leads_from(const struct history_entry *h, const struct digest *id)
{
	return h->is_snapshot || digest_eq(&h->from, id);
}

/* The entries that can be reached from one image. */
struct way {
	size_t *before;   /* of an entry: the one that leads to its start, plus 2; 1: it starts at that image; 0: nothing leads to it */
	size_t *met, n;   /* those with a way, the nearest first */
};

/* Breadth first. Owned. */
static void spread(const struct history *h, const struct digest *from, struct way *w)
{
	*w = (struct way){xalloc((h->n + 1) * sizeof *w->before), xalloc((h->n + 1) * sizeof *w->met), 0};
	for (size_t at = 0; at <= w->n; at++) {
		const struct digest *id = at ? &h->v[w->met[at - 1]].to : from;
		for (size_t i = 0; i < h->n; i++) {
			if (w->before[i] || !leads_from(&h->v[i], id))
				continue;
			w->before[i] = at ? w->met[at - 1] + 2 : 1;
			w->met[w->n++] = i;
		}
	}
}

static void way_free(struct way *w)
{
	free(w->before);
	free(w->met);
}

/* ---- adding and removing ---- */

/* Only now, as what is read-only cannot change its place. */
static int seal(const struct replica *r, int dir, const char *name, struct err *e)
{
	AUTO_CLOSE int fd = path_open_at(dir, name, O_RDONLY | O_DIRECTORY, 0);

	return fd < 0 || subvol_seal(fd) ? err_sys(e, "cannot make '%s/" REPLICA_CTL "/history/%s' read-only", r->path, name) : 0;
}

int history_add(const struct replica *r, struct err *e)
{
	struct history h;
	AUTO_CLOSE int dir = -1;
	struct history_entry undo = {.name = "undo"};
	char name[64], id[17];

	if (!replica_has(r, "undo"))
		return 0;
	if (mkdirat(r->ctl, "history", 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '%s/" REPLICA_CTL "/history'", r->path);
	int rc = list(&h, r, &dir, e) || read_head(&undo, r, "", r->ctl, e) ? -1 : 0;
	if (!rc) {
		hex(id, undo.to.b, 8);
		snprintf(name, sizeof name, "%010llu-%s", h.n ? (unsigned long long)h.v[0].n + 1 : 1, id);
		if (renameat(r->ctl, "undo", dir, name) || fsync(dir))
			rc = err_sys(e, "cannot keep the undo in '%s/" REPLICA_CTL "/history'", r->path);
		else if (undo.is_snapshot)
			rc = seal(r, dir, name, e);
	}
	buf_free(&undo.store);
	history_free(&h);
	return rc;
}

static const struct {
	char unit;
	int64_t s;
} tiers[KEEP_TIERS] = {{'h', 3600}, {'d', 86400}, {'w', 7 * 86400}, {'m', 31 * 86400}, {'y', 366 * 86400}};

bool history_parse_keep(struct history_keep *k, const char *text)
{
	char *end;

	*k = (struct history_keep){0};
	for (;;) {
		unsigned long n = strtoul(text, &end, 10);
		if (end == text || *text < '0' || *text > '9' || n > 100000)
			return false;
		size_t u = 0;
		while (u < KEEP_TIERS && tiers[u].unit != *end)
			u++;
		uint64_t *what = u < KEEP_TIERS ? &k->tier[u] : &k->count;
		*what = max_u64(*what, n);
		end += u < KEEP_TIERS;
		if (!*end)
			return true;
		if (*end != ',')
			return false;
		text = end + 1;
	}
}

bool history_keeps(const struct history_keep *k)
{
	uint64_t any = k->count;

	for (size_t u = 0; u < KEEP_TIERS; u++)
		any |= k->tier[u];
	return any;
}

/* The image that the entry makes is in place, or a newer entry makes it too. way: see spread. */
static bool is_known(const struct history *h, size_t i, const struct digest *now, const struct way *way)
{
	bool is = digest_eq(&h->v[i].to, now);

	for (size_t k = 0; k < i && !is; k++)
		is = !h->v[k].is_way && way->before[k] && digest_eq(&h->v[i].to, &h->v[k].to);
	return is;
}

/* A newer entry leads from the same image to the same one. Who goes to and fro would gather them without end. */
static bool is_spare(const struct history *h, size_t i)
{
	const struct history_entry *x = &h->v[i];
	bool is = false;

	for (size_t k = 0; k < i && !is; k++)
		is = digest_eq(&h->v[k].from, &x->from) && digest_eq(&h->v[k].to, &x->to) && h->v[k].is_way <= x->is_way;
	return is;
}

/* Marks in keep what is kept; the number of entries from the newest on up to the last of these. */
static size_t choose(const struct history *h, const struct history_keep *k, const struct digest *now, int64_t now_s, bool *keep)
{
	int64_t last[KEEP_TIERS]; /* the newest of these hours, days ... was met */
	struct way way;
	size_t n = 0, met = 0;

	spread(h, now, &way);
	for (size_t u = 0; u < KEEP_TIERS; u++)
		last[u] = now_s / tiers[u].s;
	for (size_t i = 0; i < h->n; i++) {
		int64_t at = h->v[i].stamps.time_ns / 1000000000;
		if (h->v[i].is_way || is_known(h, i, now, &way))
			continue;
		keep[i] = met++ < k->count;
		for (size_t u = 0; u < KEEP_TIERS; u++) {
			int64_t until = now_s / tiers[u].s, then = at / tiers[u].s;
			if (then == last[u] || k->tier[u] == 0 || until - then >= (int64_t)k->tier[u])
				continue;
			last[u] = then;
			keep[i] = true;
		}
		n = keep[i] ? i + 1 : n;
	}
	way_free(&way);
	return n;
}

static int remove_entry(const struct replica *r, int dir, const struct history_entry *h, struct err *e)
{
	if ((h->is_snapshot ? subvol_remove(dir, h->name) : unlinkat(dir, h->name, 0)) == 0 || errno == ENOENT)
		return 0;
	return err_sys(e, "cannot remove '%s/" REPLICA_CTL "/history/%s'", r->path, h->name);
}

/* Nothing needs a snapshot but who goes to it. */
static int make_step(const struct replica *r, int dir, const struct history_entry *h, struct err *e)
{
	char name[sizeof h->name + 8];

	if (h->is_snapshot)
		return remove_entry(r, dir, h, e);
	snprintf(name, sizeof name, "%s.way", h->name);
	return renameat(dir, h->name, dir, name) ? err_sys(e, "cannot rename '%s/" REPLICA_CTL "/history/%s'", r->path, h->name) : 0;
}

int history_prune(const struct replica *r, const struct history_keep *k, const struct digest *now, int64_t now_s, struct err *e)
{
	struct history h;
	AUTO_CLOSE int dir = -1;
	int rc = list(&h, r, &dir, e);

	for (size_t i = 0; i < h.n && !rc; i++)
		rc = read_head(&h.v[i], r, "history/", dir, e);
	AUTO_FREE bool *keep = xalloc(h.n + 1);
	size_t n = rc ? 0 : choose(&h, k, now, now_s, keep);
	/* From the old end, so that a crash leaves no gap behind which nothing can be reached. */
	for (size_t i = h.n; !rc && i > n; i--)
		rc = remove_entry(r, dir, &h.v[i - 1], e);
	for (size_t i = 0; !rc && i < n; i++) {
		if (is_spare(&h, i))
			rc = remove_entry(r, dir, &h.v[i], e);
		else if (!keep[i] && !h.v[i].is_way)
			rc = make_step(r, dir, &h.v[i], e);
	}
	history_free(&h);
	return rc;
}

/* ---- ways ---- */

size_t *history_images(const struct history *h, const struct digest *now, size_t *n)
{
	size_t *v = xalloc((h->n + 1) * sizeof *v);
	struct way way;

	*n = 0;
	spread(h, now, &way);
	for (size_t i = 0; i < h->n; i++) {
		if (!h->v[i].is_way && way.before[i] && !is_known(h, i, now, &way))
			v[(*n)++] = i;
	}
	way_free(&way);
	return v;
}

static bool begins(const struct digest *d, const char *which)
{
	char text[65];
	size_t n = strlen(which);

	hex(text, d->b, 32);
	return n >= 4 && n <= 64 && !strncmp(text, which, n);
}

static bool is_named(const struct r_image *s, const char *which)
{
	return s->bookmark.len && span_eq(s->bookmark, span_cstr(which));
}

int history_find(const struct history *h, const struct digest *now, const struct r_image *stamps, const char *which, int64_t time_ns,
	struct digest *id, struct err *e)
{
	size_t n, found = 0;
	AUTO_FREE size_t *v = history_images(h, now, &n);
	const struct r_image *best = NULL;
	char *end;

	if (which[0] == '-' && which[1]) {
		unsigned long back = strtoul(which + 1, &end, 10);
		if (!*end && back <= n) {
			*id = back ? h->v[v[back - 1]].to : *now;
			return 0;
		}
		return err_set(e, ERR_USAGE, *end ? "'%s' names no image: -N counts back" :
			"'%s' goes back too far: repl-apply --list shows what is there", which);
	}
	for (size_t i = 0; i <= n; i++) { /* 0: the one in place */
		const struct digest *d = i ? &h->v[v[i - 1]].to : now;
		const struct r_image *s = i ? &h->v[v[i - 1]].stamps : stamps;
		if (time_ns) {
			if (s->time_ns <= time_ns && (!best || s->time_ns > best->time_ns)) {
				best = s;
				*id = *d;
			}
		} else if (is_named(s, which) ? !found : begins(d, which)) { /* the newest of that name */
			*id = *d;
			found++;
		}
	}
	if (best || found == 1)
		return 0;
	for (size_t i = 0; i < h->n && !found && !time_ns; i++)
		if (!h->v[i].is_way && (is_named(&h->v[i].stamps, which) || begins(&h->v[i].to, which)))
			return err_set(e, ERR_REFUSED, "there is no way to image '%s' any more: repl-apply --list shows what is there", which);
	return err_set(e, ERR_USAGE, found ? "'%s' fits several images: more digits" :
		"no image is '%s': repl-apply --list shows what is there", which);
}

size_t *history_way(const struct history *h, const struct digest *from, const struct digest *to, size_t *n)
{
	size_t *v = xalloc((h->n + 1) * sizeof *v);
	struct way way;
	size_t at = 0;

	*n = 0;
	if (digest_eq(from, to))
		return v;
	spread(h, from, &way);
	while (at < way.n && !digest_eq(&h->v[way.met[at]].to, to))
		at++;
	bool is = at < way.n;
	for (size_t i = is ? way.met[at] + 2 : 1; i != 1; i = way.before[i - 2])
		v[(*n)++] = i - 2;
	for (size_t i = 0; i < *n / 2; i++) {
		size_t t = v[i];
		v[i] = v[*n - 1 - i];
		v[*n - 1 - i] = t;
	}
	way_free(&way);
	if (!is) {
		free(v);
		return NULL;
	}
	return v;
}
