#include "journal.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "batches.h"
#include "file.h"

#define MARKER "journal"
#define SHOWN 300u
#define MANY_FILES 32u  /* more batches than this are joined */
#define LOCK_WAIT 600u  /* times 50 ms: so long a reader waits for one who tends, which holds the lock for some renames */

static const char *shown(char *out, const struct journal *j) { return esc_cut(out, SHOWN, span_cstr(j->path)); }

static bool because(char reason[JOURNAL_REASON], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool because(char reason[JOURNAL_REASON], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, JOURNAL_REASON, fmt, ap);
	va_end(ap);
	return false;
}

static DIR *open_list(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		close_fd(&fd);
	return d;
}

/* Whole, but not synced: after a crash nothing here counts. */
static int replace(int dir, const char *name, const void *p, size_t n, struct err *e)
{
	AUTO_BUF struct buf tmp = {0};

	buf_fmt(&tmp, "%s.new", name);
	int fd = batches_new(dir, buf_cstr(&tmp), e), rc = fd < 0 ? -1 : 0;
	if (!rc && file_write(fd, p, n))
		rc = err_sys(e, "cannot write '%s' in the journal", name);
	if (fd >= 0 && close(fd) && !rc)
		rc = err_sys(e, "cannot write '%s' in the journal", name);
	if (!rc && renameat(dir, buf_cstr(&tmp), dir, name))
		rc = err_sys(e, "cannot replace '%s' in the journal", name);
	return rc;
}

/* ---- the directory ---- */

void journal_close(struct journal *j)
{
	for (size_t i = 0; i < j->n_roots; i++)
		free(j->roots[i]);
	free(j->roots);
	free(j->path);
	close_fd(&j->dir);
	close_fd(&j->batches);
	close_fd(&j->consumers);
	close_fd(&j->lock);
	*j = JOURNAL_NONE;
}

/* The roots are in it from here on. */
static void add_root(struct journal *j, struct span path)
{
	AUTO_BUF struct buf b = {0};

	buf_add(&b, path.p, path.len);
	j->roots = xrealloc(j->roots, (j->n_roots + 1) * sizeof *j->roots);
	j->roots[j->n_roots++] = xstrdup(buf_cstr(&b));
}

static int read_marker(struct journal *j, struct err *e)
{
	AUTO_CLOSE int fd = batches_file(j->dir, MARKER, e);
	struct merge_source s = {0};
	int rc = 0;

	if (fd < 0)
		return -1;
	if (merge_open(&s, fd, MARKER, e) || merge_check(&s, e))
		rc = -1;
	else if (!s.head.has_cursor || s.head.cursor.seq || s.head.stamps.seq)
		rc = err_set(e, ERR_STREAM, "'%s' is another change stream", MARKER);
	for (size_t i = 0; i < s.head.n_members && !rc; i++)
		add_root(j, s.head.members[i].path);
	if (!rc)
		memcpy(j->uuid, s.head.cursor.journal, sizeof j->uuid);
	merge_close(&s);
	return rc;
}

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		buf_add(ctx, v[i].p, v[i].len);
	return 0;
}

static int write_marker(struct journal *j, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct stream_out o = {.sink = into_buf, .ctx = &b};
	struct record r = {.type = REC_IMAGE};

	int rc = stream_begin(&o, KIND_CHANGE, e) || stream_put(&o, &r, e) ? -1 : 0;
	for (size_t i = 0; i < j->n_roots && !rc; i++) {
		r = (struct record){.type = REC_MEMBER, .u.member = {.kind = MEMBER_TREE, .path = span_cstr(j->roots[i])}};
		rc = stream_put(&o, &r, e);
	}
	r = (struct record){.type = REC_CURSOR};
	memcpy(r.u.cursor.journal, j->uuid, sizeof j->uuid);
	rc = rc || stream_put(&o, &r, e) ? -1 : 0;
	r = (struct record){.type = REC_END};
	rc = rc || stream_put(&o, &r, e) || stream_finish(&o, e) || replace(j->dir, MARKER, b.p, b.len, e) ? -1 : 0;
	stream_out_free(&o);
	return rc;
}

/* Has it nothing but what a journal is made of? */
static int is_ours(const struct journal *j, bool *ours, struct err *e)
{
	static const char *const names[] = {".", "..", MARKER, MARKER ".new", "lock", "socket", "batches", "consumers"};
	DIR *d = open_list(j->dir);
	const struct dirent *en;

	if (!d)
		return err_sys(e, "cannot list the journal");
	*ours = true;
	while ((en = readdir(d))) {
		size_t i = 0;
		while (i < sizeof names / sizeof *names && strcmp(en->d_name, names[i]))
			i++;
		*ours = *ours && i < sizeof names / sizeof *names;
	}
	closedir(d);
	return 0;
}

static int open_dir(struct journal *j, const char *path, struct err *e)
{
	struct err why = {0};
	char text[SHOWN];
	bool ours = false;

	j->path = xstrdup(path);
	if (mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make the journal '%s'", shown(text, j));
	j->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->dir < 0)
		return err_sys(e, "cannot open the journal '%s'", shown(text, j));
	if (is_ours(j, &ours, e))
		return -1;
	if (!ours && read_marker(j, &why))
		return err_set(e, ERR_USAGE, "'%s' is not empty and not a journal: give one that does not exist", shown(text, j));
	return 0;
}

static int lock(struct journal *j, struct err *e)
{
	char text[32] = "", where[SHOWN];
	int fd = openat(j->dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_sys(e, "cannot open the lock of the journal");
	j->lock = fd;
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		if (errno != EWOULDBLOCK)
			return err_sys(e, "cannot lock the journal");
		ssize_t n = pread(fd, text, sizeof text - 1, 0);
		text[n < 0 ? 0 : strspn(text, "0123456789")] = '\0';
		return err_set(e, ERR_BUSY, "process %s records into the journal '%s' already", text[0] ? text : "unknown",
			shown(where, j));
	}
	int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
	if (ftruncate(fd, 0) || pwrite(fd, text, (size_t)n, 0) != n)
		return err_sys(e, "cannot write the lock of the journal");
	return 0;
}

static int open_part(const struct journal *j, const char *name, bool create, int *fd, struct err *e)
{
	if (create && mkdirat(j->dir, name, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '%s' in the journal", name);
	*fd = openat(j->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return *fd < 0 ? err_sys(e, "cannot open '%s'", name) : 0;
}

static bool is_consumer(const char *name)
{
	uint8_t id[16];

	return unhex(id, sizeof id, name);
}

/* What an earlier recorder left. Readers are not waited for: what they wanted was of that one. */
static int empty_part(int dirfd, struct err *e)
{
	DIR *d = open_list(dirfd);
	const struct dirent *en;
	struct batch b;
	int rc = 0;

	if (!d)
		return err_sys(e, "cannot list the journal");
	while (!rc && (en = readdir(d)))
		if ((batches_parse(en->d_name, &b) || is_consumer(en->d_name)) && unlinkat(dirfd, en->d_name, 0) && errno != ENOENT)
			rc = err_sys(e, "cannot remove '%s' from the journal", en->d_name);
	closedir(d);
	return rc;
}

int journal_create(struct journal *j, const char *path, const char *const *roots, size_t n, struct err *e)
{
	struct journal new = JOURNAL_NONE;
	int rc = open_dir(&new, path, e) || lock(&new, e) || open_part(&new, "batches", true, &new.batches, e) ||
		open_part(&new, "consumers", true, &new.consumers, e) || empty_part(new.batches, e) ||
		empty_part(new.consumers, e) ? -1 : 0;

	while (new.n_roots)
		free(new.roots[--new.n_roots]);
	for (size_t i = 0; i < n; i++)
		add_root(&new, span_cstr(roots[i]));
	if (!rc && getrandom(new.uuid, sizeof new.uuid, 0) != (ssize_t)sizeof new.uuid)
		rc = err_sys(e, "cannot get random bytes");
	if (!rc)
		rc = write_marker(&new, e);
	if (rc) {
		journal_close(&new);
		return -1;
	}
	*j = new;
	return 0;
}

bool journal_open(struct journal *j, const char *path, char reason[JOURNAL_REASON])
{
	struct journal new = JOURNAL_NONE;
	struct err e = {0};

	new.path = xstrdup(path);
	new.dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (new.dir < 0)
		because(reason, "there is no journal: %s", strerror(errno));
	else if (read_marker(&new, &e) || open_part(&new, "batches", false, &new.batches, &e) ||
			open_part(&new, "consumers", false, &new.consumers, &e))
		because(reason, "the journal is damaged: %.200s", e.text);
	else {
		*j = new;
		return true;
	}
	journal_close(&new);
	return false;
}

/* ---- writing batches ---- */

static void free_batch(struct journal_batch *b)
{
	close_fd(&b->fd);
	changes_free(&b->out);
	stream_out_free(&b->stream);
	sink_free(&b->sink);
}

int journal_begin_batch(struct journal *j, struct journal_batch *b, int64_t time_ns, struct err *e)
{
	*b = (struct journal_batch){.fd = batches_new(j->batches, "new", e), .seq = j->last + 1};
	if (b->fd < 0)
		return -1;
	b->sink = (struct sink){.fd = b->fd, .name = "the journal"};
	b->stream = (struct stream_out){.sink = sink_write, .ctx = &b->sink};
	b->out.o = &b->stream;
	if (batches_begin(&b->stream, j->uuid, b->seq, b->seq, time_ns, e)) {
		journal_drop_batch(j, b);
		return -1;
	}
	changes_enter(&b->out, (struct span){0}, 0);
	return 0;
}

int journal_end_batch(struct journal *j, struct journal_batch *b, struct err *e)
{
	char name[BATCHES_NAME];
	int rc = batches_end(&b->stream, &b->sink, e);
	int fd = b->fd;

	b->fd = -1;
	if (close(fd) && !rc)
		rc = err_sys(e, "cannot write the journal");
	batches_name(name, b->seq, b->seq);
	if (!rc && renameat(j->batches, "new", j->batches, name))
		rc = err_sys(e, "cannot put a batch into the journal");
	if (rc)
		unlinkat(j->batches, "new", 0);
	else
		j->last = b->seq;
	free_batch(b);
	return rc;
}

void journal_drop_batch(struct journal *j, struct journal_batch *b)
{
	if (b->fd >= 0)
		unlinkat(j->batches, "new", 0);
	free_batch(b);
}

/* ---- the list ---- */

static void unlock(const struct journal *j) { flock(j->batches, LOCK_UN); }

/* Shared: who removes batches holds it alone, for moments. */
static bool lock_shared(const struct journal *j, char reason[JOURNAL_REASON])
{
	const struct timespec tick = {0, 50000000};
	unsigned left = LOCK_WAIT;

	while (flock(j->batches, LOCK_SH | LOCK_NB)) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return because(reason, "cannot lock the journal: %s", strerror(errno));
		if (!left--)
			return because(reason, "the journal is locked by another process");
		nanosleep(&tick, NULL);
	}
	return true;
}

/* Moves those to the front that hold what lies behind `after`, up to `upto`. */
static bool choose(struct batches *l, uint64_t after, uint64_t upto, char reason[JOURNAL_REASON])
{
	uint64_t need = after + 1;
	size_t n = 0;

	for (size_t i = 0; i < l->n && need <= upto; i++) {
		struct batch b = l->v[i];
		if (b.last < need)
			continue;
		if (b.first > need)
			break;
		l->v[n++] = b;
		need = b.last + 1;
	}
	l->n = n;
	if (need > upto)
		return true;
	return because(reason, "batch %" PRIu64 " of the journal is missing", need);
}

/* Opens all that is needed, in at most MERGE_MAX files. */
static bool open_range(const struct journal *j, uint64_t after, uint64_t upto, int *fds, size_t *n, char reason[JOURNAL_REASON])
{
	struct batches l = {.dir = j->batches, .uuid = j->uuid};
	struct err e = {0};

	*n = 0;
	if (!lock_shared(j, reason))
		return false;
	bool ok = !batches_list(&l, &e) || because(reason, "%.200s", e.text);
	ok = ok && choose(&l, after, upto, reason);
	for (size_t i = 0; i < l.n && ok; i++) {
		if (*n == MERGE_MAX)
			*n = batches_shrink(&l, fds, &e) ? 0 : 1;
		if (e.kind == ERR_NONE && (fds[*n] = batches_open(&l, &l.v[i], &e)) >= 0)
			++*n;
		ok = e.kind == ERR_NONE || because(reason, "%.200s", e.text);
	}
	unlock(j);
	batches_free(&l);
	return ok;
}

static bool is_below(struct span path, const char *root)
{
	size_t n = strlen(root);

	if (n && root[n - 1] == '/') /* the root of all */
		n--;
	return path.len >= n && !memcmp(path.p, root, n) && (path.len == n || path.p[n] == '/');
}

/* Is everything below it in the journal, under this very path? */
static bool is_recorded(const struct journal *j, const struct r_member *m, char reason[JOURNAL_REASON])
{
	AUTO_BUF struct buf path = {0};
	char text[SHOWN / 2];
	bool has_root = false;

	if (m->kind == MEMBER_VOLUME) /* is always looked at */
		return true;
	esc_cut(text, sizeof text, m->path);
	buf_add(&path, m->path.p, m->path.len);
	AUTO_FREE char *real = m->path.len && !memchr(m->path.p, 0, m->path.len) ? realpath(buf_cstr(&path), NULL) : NULL;
	if (m->kind != MEMBER_TREE || !real || !span_eq(span_cstr(real), m->path))
		return because(reason, "'%s' is not the real path of a tree", text);
	for (size_t i = 0; i < j->n_roots; i++)
		has_root = has_root || is_below(m->path, j->roots[i]);
	return has_root || because(reason, "'%s' is not recorded in this journal", text);
}

/* out NULL: only the objects without names, to o. */
static int list_member(const int *fds, size_t n, struct span prefix, struct changes_out *out, struct stream_out *o, struct err *e)
{
	AUTO_FREE struct merge_source *s = xalloc((n + 1) * sizeof *s);
	struct merge m = {.sources = s, .n = n, .prefix = prefix, .out = out};
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = lseek(fds[i], 0, SEEK_SET) ? err_sys(e, "cannot read the journal") : merge_open(&s[i], fds[i], "the journal", e);
	if (!rc)
		rc = out ? merge_run(&m, e) : merge_inodes(s, n, o, e);
	for (size_t i = 0; i < n; i++)
		merge_close(&s[i]);
	return rc;
}

int journal_list(struct journal *j, const uint8_t uuid[16], uint64_t after, uint64_t upto, const struct r_member *members,
	size_t n, struct changes_out *out, char reason[JOURNAL_REASON], struct err *e)
{
	int fds[MERGE_MAX], rc = 0;
	size_t n_fds = 0;
	bool ok = true;

	if (memcmp(uuid, j->uuid, sizeof j->uuid))
		ok = because(reason, "the recorder was started anew");
	else if (after > upto)
		ok = because(reason, "the journal ends before the base");
	for (size_t i = 0; i < n && ok; i++)
		ok = is_recorded(j, &members[i], reason);
	ok = ok && open_range(j, after, upto, fds, &n_fds, reason);
	if (ok) {
		/* Where they are is for the reader of the list to find out. */
		rc = list_member(fds, n_fds, (struct span){0}, NULL, out->o, e);
		changes_enter(out, (struct span){0}, 0);
		if (!n && !rc)
			rc = list_member(fds, n_fds, (struct span){0}, out, NULL, e);
		for (size_t i = 0; i < n && !rc; i++) {
			const struct r_member *m = &members[i];
			if (m->kind == MEMBER_VOLUME) {
				rc = changes_put(out, CHANGED_CONTENT, m->name, e);
				continue;
			}
			if (m->name.len)
				changes_enter(out, m->name, 0);
			rc = list_member(fds, n_fds, span_of(m->path.p + 1, m->path.len - 1), out, NULL, e);
			if (m->name.len && !rc)
				changes_leave(out);
		}
		if (!rc)
			changes_leave(out);
	}
	while (n_fds)
		close_fd(&fds[--n_fds]);
	return !ok ? 0 : rc ? -1 : 1;
}

bool journal_range(struct journal *j, uint64_t *after, uint64_t *upto, char reason[JOURNAL_REASON])
{
	struct batches l = {.dir = j->batches, .uuid = j->uuid};
	struct err e = {0};

	/* While batches are joined a listing may miss them in both forms. */
	if (!lock_shared(j, reason))
		return false;
	int rc = batches_list(&l, &e);
	unlock(j);
	if (rc)
		return because(reason, "%.200s", e.text);
	*after = l.n ? l.v[0].first - 1 : 0;
	*upto = *after;
	for (size_t i = 0; i < l.n; i++)
		*upto = max_u64(*upto, l.v[i].last);
	batches_free(&l);
	return true;
}

/* ---- consumers ---- */

int journal_consumer_set(struct journal *j, const char name[33], const uint8_t uuid[16], uint64_t seq, struct err *e)
{
	char text[64], id[33];

	assert(is_consumer(name));
	hex(id, uuid, 16);
	int n = snprintf(text, sizeof text, "%s %" PRIu64 "\n", id, seq);
	return replace(j->consumers, name, text, (size_t)n, e);
}

int journal_consumer_drop(struct journal *j, const char name[33], struct err *e)
{
	assert(is_consumer(name));
	if (unlinkat(j->consumers, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove consumer '%s' of the journal", name);
	return 0;
}

/* False: not one that this journal could serve: a consumer of another journal, or a damaged file. */
static bool read_consumer(const struct journal *j, const char *name, uint64_t *seq)
{
	AUTO_CLOSE int fd = openat(j->consumers, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char text[64] = "", id[33];
	ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);

	hex(id, j->uuid, sizeof j->uuid);
	/* The uuid, a blank, 1 to 19 digits, the end of the line. */
	if (n < 35 || n > 53 || memcmp(text, id, 32) || text[32] != ' ' || text[n - 1] != '\n')
		return false;
	*seq = 0;
	for (ssize_t i = 33; i < n - 1; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		*seq = *seq * 10 + (uint64_t)(text[i] - '0');
	}
	return true;
}

struct places { /* of consumers */
	uint64_t *v;
	size_t n, cap;
};

static int list_consumers(const struct journal *j, struct places *p, struct err *e)
{
	DIR *d = open_list(j->consumers);
	const struct dirent *en;
	uint64_t seq;

	if (!d)
		return err_sys(e, "cannot list the consumers of the journal");
	while ((en = readdir(d))) {
		if (!is_consumer(en->d_name) || !read_consumer(j, en->d_name, &seq))
			continue;
		if (p->n == p->cap) {
			p->cap = p->cap ? p->cap * 2 : 16;
			p->v = xrealloc(p->v, p->cap * sizeof *p->v);
		}
		p->v[p->n++] = seq;
	}
	closedir(d);
	return 0;
}

/* ---- tending ---- */

/* Alone with the batches; false: a reader is at work. */
static bool lock_alone(const struct journal *j) { return !flock(j->batches, LOCK_EX | LOCK_NB); }

/* What everybody has read, and what a joined one holds too. */
static int trim(struct journal *j, struct batches *l, const struct places *p, struct err *e)
{
	uint64_t slowest = p->n ? UINT64_MAX : 0, held = 0;
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++)
		slowest = min_u64(slowest, p->v[i]);
	j->tended.slowest = slowest;
	for (size_t i = 0; i < l->n; i++) {
		const struct batch b = l->v[i];
		if (b.last > slowest && b.last > held) {
			held = b.last;
			l->v[n++] = b;
			continue;
		}
		if (batches_remove(l, &b, e))
			return -1;
		j->tended.trimmed++;
	}
	l->n = n;
	return 0;
}

/* n batches become one. 0: a reader is at work; 1; -1. */
static int join(struct journal *j, const struct batches *l, const struct batch *b, size_t n, struct err *e)
{
	char name[BATCHES_NAME];
	struct err why = {0};
	int fd = batches_new(j->batches, "join", e);

	if (fd < 0)
		return -1;
	int rc = batches_join(l, b, n, fd, &why);
	if (close(fd) && !rc)
		rc = err_sys(&why, "cannot write the journal");
	bool is_alone = lock_alone(j);
	batches_name(name, b[0].first, b[n - 1].last);
	/* The joined one first: then nothing is missing at any time. */
	if (!rc && is_alone && renameat(j->batches, "join", j->batches, name))
		rc = err_sys(&why, "cannot put a batch into the journal");
	/* A damaged one is of no use to anybody: with all that would be joined with it, readers find it missing. */
	bool is_damaged = rc && why.kind == ERR_STREAM;
	if (rc && !is_damaged)
		*e = why;
	for (size_t i = 0; i < n && is_alone && (!rc || is_damaged); i++)
		if (batches_remove(l, &b[i], e)) {
			is_damaged = false;
			rc = -1;
		}
	if (is_alone)
		unlock(j);
	unlinkat(j->batches, "join", 0);
	if (rc && !is_damaged)
		return -1;
	if (is_alone && is_damaged)
		j->tended.dropped += n;
	else if (is_alone)
		j->tended.joined += n;
	return is_alone;
}

static bool may_join(const struct batch *a, const struct batch *b, const struct places *p)
{
	if (a->last + 1 != b->first)
		return false;
	for (size_t i = 0; i < p->n; i++)
		if (p->v[i] == a->last)
			return false;
	return true;
}

/* Joins from the newest to the oldest. What is much larger than all behind it is left for a later time, so that what many
 * changes made large is not written again and again; all: that too. */
static int join_all(struct journal *j, const struct batches *l, const struct places *p, bool all, struct err *e)
{
	for (size_t hi = l->n; hi;) {
		size_t lo = hi - 1;
		uint64_t size = l->v[lo].size;
		while (lo && hi - lo < MERGE_MAX && may_join(&l->v[lo - 1], &l->v[lo], p) &&
				(all || l->v[lo - 1].size / 2 <= size))
			size += l->v[--lo].size;
		int got = hi - lo > 1 ? join(j, l, &l->v[lo], hi - lo, e) : 1;
		if (got != 1)
			return got;
		hi = lo;
	}
	return 1;
}

static int drop_oldest(struct journal *j, const struct batches *l, uint64_t limit, struct err *e)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < l->n; i++)
		bytes += l->v[i].size;
	for (size_t i = 0; i < l->n && bytes > limit; i++) {
		if (batches_remove(l, &l->v[i], e))
			return -1;
		bytes -= l->v[i].size;
		j->tended.dropped++;
	}
	return 0;
}

static int list_again(struct journal *j, struct batches *l, struct err *e)
{
	if (batches_list(l, e))
		return -1;
	j->tended.files = l->n;
	j->tended.bytes = 0;
	for (size_t i = 0; i < l->n; i++)
		j->tended.bytes += l->v[i].size;
	return 0;
}

static int tend(struct journal *j, struct batches *l, const struct places *p, uint64_t limit, struct err *e)
{
	if (list_again(j, l, e))
		return -1;
	if (!lock_alone(j))
		return 0;
	int rc = trim(j, l, p, e);
	unlock(j);
	if (rc || list_again(j, l, e))
		return -1;
	bool is_too_much = limit && j->tended.bytes > limit;
	if (is_too_much || l->n > MANY_FILES) {
		int got = join_all(j, l, p, is_too_much, e);
		if (got != 1)
			return got;
		if (list_again(j, l, e))
			return -1;
	}
	/* Somewhat below the limit, so that not each batch that comes leads here again. */
	limit -= limit / 8;
	if (!is_too_much || j->tended.bytes <= limit)
		return 1;
	if (!lock_alone(j))
		return 0;
	rc = drop_oldest(j, l, limit, e);
	unlock(j);
	return rc || list_again(j, l, e) ? -1 : 1;
}

int journal_tend(struct journal *j, uint64_t limit, struct err *e)
{
	struct batches l = {.dir = j->batches, .uuid = j->uuid};
	struct places p = {0};

	memset(&j->tended, 0, sizeof j->tended);
	int rc = list_consumers(j, &p, e);
	j->tended.consumers = p.n;
	if (!rc)
		rc = tend(j, &l, &p, limit, e);
	batches_free(&l);
	free(p.v);
	return rc;
}
