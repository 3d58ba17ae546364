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

#include "file.h"

#define MARKER "journal"
#define SHOWN 300u
#define MANY_FILES 32u  /* more batches than this are joined */
#define LOCK_WAIT 600u  /* times 50 ms: so long a reader waits for one who tends, which holds the lock for some renames */
#define BATCH_NAME 40u  /* room for its name */

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

/* ---- names ---- */

struct batch {
	uint64_t first, last, size;
};

struct batches { /* by first, the longest first */
	struct batch *v;
	size_t n, cap;
};

static void batch_name(char out[BATCH_NAME], uint64_t first, uint64_t last)
{
	snprintf(out, BATCH_NAME, "%016" PRIu64 "-%016" PRIu64 ".repl", first, last);
}

static bool digits(const char *s, size_t n, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < n; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(s[i] - '0');
	}
	return true;
}

static bool parse_batch(const char *name, struct batch *b)
{
	return strlen(name) == 38 && digits(name, 16, &b->first) && name[16] == '-' && digits(name + 17, 16, &b->last) &&
		!strcmp(name + 33, ".repl") && b->first && b->first <= b->last;
}

static int batch_cmp(const void *a, const void *b)
{
	const struct batch *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->last < y->last) - (x->last > y->last);
}

static DIR *open_list(int dirfd)
{
	int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		close_fd(&fd);
	return d;
}

/* Files with other names are nobody's: where one is missing for them, that shows. -1 with errno. */
static int list_batches(const struct journal *j, struct batches *l)
{
	DIR *d = open_list(j->batches);
	const struct dirent *en;
	struct batch b;
	struct stat st;

	if (!d)
		return -1;
	while ((en = readdir(d))) {
		if (!parse_batch(en->d_name, &b) || fstatat(j->batches, en->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		if (l->n == l->cap) {
			l->cap = l->cap ? l->cap * 2 : 64;
			l->v = xrealloc(l->v, l->cap * sizeof *l->v);
		}
		b.size = (uint64_t)st.st_size;
		l->v[l->n++] = b;
	}
	closedir(d);
	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, batch_cmp);
	return 0;
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
	AUTO_CLOSE int fd = openat(j->dir, MARKER, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct merge_source s = {0};
	int rc = 0;

	if (fd < 0)
		return err_sys(e, "cannot open '%s'", MARKER);
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
		r = (struct record){.type = REC_MEMBER, .u.member = {.kind = 1, .path = span_cstr(j->roots[i])}};
		rc = stream_put(&o, &r, e);
	}
	r = (struct record){.type = REC_CURSOR};
	memcpy(r.u.cursor.journal, j->uuid, sizeof j->uuid);
	rc = rc || stream_put(&o, &r, e) ? -1 : 0;
	r = (struct record){.type = REC_END};
	rc = rc || stream_put(&o, &r, e) || stream_finish(&o, e) || file_replace(j->dir, MARKER, b.p, b.len, e) ? -1 : 0;
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
		if ((parse_batch(en->d_name, &b) || is_consumer(en->d_name)) && unlinkat(dirfd, en->d_name, 0) && errno != ENOENT)
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

/* ---- one batch, read ---- */

static const char *bad_head(const struct journal *j, const struct merge_source *s, const struct batch *b)
{
	const struct head *h = &s->head;

	if (!s->head.has_cursor || memcmp(s->head.cursor.journal, j->uuid, sizeof j->uuid))
		return "is of another journal";
	if (s->head.cursor.seq != b->last || h->stamps.seq != b->first)
		return "is not what its name says";
	if (h->n_members != 1 || h->members[0].kind != 1 || h->members[0].name.len ||
			!span_eq(h->members[0].path, span_cstr("/")))
		return "is no batch";
	return NULL;
}

/* Opens it and reads its head. */
static int open_source(const struct journal *j, const struct batch *b, const char *name, int *fd, struct merge_source *s,
	struct err *e)
{
	const char *why;

	*fd = openat(j->batches, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (*fd < 0)
		return err_sys(e, "cannot open batch '%s'", name);
	if (!merge_open(s, *fd, name, e) && (why = bad_head(j, s, b))) {
		merge_close(s);
		err_set(e, ERR_STREAM, "batch '%s' %s", name, why);
	}
	if (e->kind == ERR_NONE)
		return 0;
	close_fd(fd);
	return -1;
}

/* Owned, at its start, and found whole; -1. */
static int open_whole(const struct journal *j, const struct batch *b, struct err *e)
{
	struct merge_source s = {0};
	char name[BATCH_NAME];
	int fd;

	batch_name(name, b->first, b->last);
	if (open_source(j, b, name, &fd, &s, e))
		return -1;
	int rc = merge_check(&s, e);
	merge_close(&s);
	if (!rc && lseek(fd, 0, SEEK_SET))
		rc = err_sys(e, "cannot read batch '%s'", name);
	if (rc)
		close_fd(&fd);
	return fd;
}

/* ---- writing batches ---- */

static int put_head(const struct journal *j, struct stream_out *o, uint64_t first, uint64_t last, int64_t time_ns, struct err *e)
{
	struct record r = {.type = REC_IMAGE, .u.image = {.time_ns = time_ns, .seq = first}};

	if (stream_begin(o, KIND_CHANGE, e) || stream_put(o, &r, e))
		return -1;
	r = (struct record){.type = REC_MEMBER, .u.member = {.kind = 1, .path = span_cstr("/")}};
	if (stream_put(o, &r, e))
		return -1;
	r = (struct record){.type = REC_CURSOR, .u.cursor = {.seq = last}};
	memcpy(r.u.cursor.journal, j->uuid, sizeof j->uuid);
	return stream_put(o, &r, e);
}

static int put_end(struct stream_out *o, struct sink *s, struct err *e)
{
	struct record r = {.type = REC_END};

	return stream_put(o, &r, e) || stream_finish(o, e) || sink_flush(s, e) ? -1 : 0;
}

static int new_file(const struct journal *j, const char *name, struct err *e)
{
	if (unlinkat(j->batches, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s' in the journal", name);
	int fd = openat(j->batches, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, "cannot create a batch in the journal") : fd;
}

static void free_batch(struct journal_batch *b)
{
	close_fd(&b->fd);
	changes_free(&b->out);
	stream_out_free(&b->stream);
	sink_free(&b->sink);
}

int journal_begin_batch(struct journal *j, struct journal_batch *b, int64_t time_ns, struct err *e)
{
	*b = (struct journal_batch){.fd = new_file(j, "new", e), .seq = j->last + 1};
	if (b->fd < 0)
		return -1;
	b->sink = (struct sink){.fd = b->fd, .name = "the journal"};
	b->stream = (struct stream_out){.sink = sink_write, .ctx = &b->sink};
	b->out.o = &b->stream;
	if (put_head(j, &b->stream, b->seq, b->seq, time_ns, e)) {
		journal_drop_batch(j, b);
		return -1;
	}
	changes_enter(&b->out, (struct span){0}, 0);
	return 0;
}

int journal_end_batch(struct journal *j, struct journal_batch *b, struct err *e)
{
	char name[BATCH_NAME];
	int rc = put_end(&b->stream, &b->sink, e);
	int fd = b->fd;

	b->fd = -1;
	if (close(fd) && !rc)
		rc = err_sys(e, "cannot write the journal");
	batch_name(name, b->seq, b->seq);
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

/* ---- joining batches ---- */

/* Sources that stand on open batches. */
struct sources {
	struct merge_source v[MERGE_MAX];
	char names[MERGE_MAX][BATCH_NAME];
	int fds[MERGE_MAX];
	size_t n;
};

static void close_sources(struct sources *s)
{
	while (s->n) {
		merge_close(&s->v[--s->n]);
		close_fd(&s->fds[s->n]);
	}
}

/* All that the sources say, as one batch. */
static int write_joined(const struct journal *j, struct sources *s, uint64_t first, uint64_t last, int to, struct err *e)
{
	struct sink sink = {.fd = to, .name = "the journal"};
	struct stream_out o = {.sink = sink_write, .ctx = &sink};
	struct changes_out out = {.o = &o};
	struct merge m = {.sources = s->v, .n = s->n, .out = &out};

	changes_enter(&out, (struct span){0}, 0);
	int rc = put_head(j, &o, first, last, s->v[s->n - 1].head.stamps.time_ns, e) || merge_run(&m, e) ||
		put_end(&o, &sink, e) ? -1 : 0;
	changes_free(&out);
	stream_out_free(&o);
	sink_free(&sink);
	return rc;
}

static int join_into(const struct journal *j, const struct batch *b, size_t n, int to, struct err *e)
{
	AUTO_FREE struct sources *s = xalloc(sizeof *s);
	int rc = 0;

	while (s->n < n && !rc) {
		batch_name(s->names[s->n], b[s->n].first, b[s->n].last);
		rc = open_source(j, &b[s->n], s->names[s->n], &s->fds[s->n], &s->v[s->n], e);
		if (!rc)
			s->n++;
	}
	if (!rc)
		rc = write_joined(j, s, b[0].first, b[n - 1].last, to, e);
	close_sources(s);
	return rc;
}

/* ---- the list ---- */

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

/* As many batches as one merge takes become one without a name. */
static int shrink(const struct journal *j, int *fds, struct err *e)
{
	AUTO_FREE struct sources *s = xalloc(sizeof *s);
	char dir[32];

	snprintf(dir, sizeof dir, "/proc/self/fd/%d", j->batches);
	int to = file_temp(dir), rc = to < 0 ? err_sys(e, "cannot make a temporary file in the journal") : 0;
	memcpy(s->fds, fds, sizeof s->fds);
	s->n = MERGE_MAX;
	for (size_t i = 0; i < s->n && !rc; i++)
		rc = merge_open(&s->v[i], s->fds[i], "the journal", e);
	if (!rc)
		rc = write_joined(j, s, 1, 1, to, e);
	if (!rc && lseek(to, 0, SEEK_SET))
		rc = err_sys(e, "cannot read a temporary file in the journal");
	close_sources(s);
	if (rc)
		close_fd(&to);
	fds[0] = to;
	return rc;
}

/* Opens all that is needed, in at most MERGE_MAX files. */
static bool open_range(const struct journal *j, uint64_t after, uint64_t upto, int *fds, size_t *n, char reason[JOURNAL_REASON])
{
	struct batches l = {0};
	struct err e = {0};

	*n = 0;
	if (!lock_shared(j, reason))
		return false;
	bool ok = !list_batches(j, &l) || because(reason, "cannot list the journal: %s", strerror(errno));
	ok = ok && choose(&l, after, upto, reason);
	for (size_t i = 0; i < l.n && ok; i++) {
		if (*n == MERGE_MAX)
			*n = shrink(j, fds, &e) ? 0 : 1;
		if (e.kind == ERR_NONE && (fds[*n] = open_whole(j, &l.v[i], &e)) >= 0)
			++*n;
		ok = e.kind == ERR_NONE || because(reason, "%.*s", (int)JOURNAL_REASON - 1, e.text);
	}
	flock(j->batches, LOCK_UN);
	free(l.v);
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

	esc_cut(text, sizeof text, m->path);
	buf_add(&path, m->path.p, m->path.len);
	AUTO_FREE char *real = m->path.len && !memchr(m->path.p, 0, m->path.len) ? realpath(buf_cstr(&path), NULL) : NULL;
	if (m->kind != 1 || !real || !span_eq(span_cstr(real), m->path))
		return because(reason, "'%s' is not the real path of a tree", text);
	for (size_t i = 0; i < j->n_roots; i++)
		has_root = has_root || is_below(m->path, j->roots[i]);
	return has_root || because(reason, "'%s' is not recorded in this journal", text);
}

static int list_member(const int *fds, size_t n, struct span prefix, struct changes_out *out, struct err *e)
{
	AUTO_FREE struct merge_source *s = xalloc((n + 1) * sizeof *s);
	struct merge m = {.sources = s, .n = n, .prefix = prefix, .out = out};
	int rc = 0;

	for (size_t i = 0; i < n && !rc; i++)
		rc = lseek(fds[i], 0, SEEK_SET) ? err_sys(e, "cannot read the journal") : merge_open(&s[i], fds[i], "the journal", e);
	if (!rc)
		rc = merge_run(&m, e);
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
		changes_enter(out, (struct span){0}, 0);
		if (!n)
			rc = list_member(fds, n_fds, (struct span){0}, out, e);
		for (size_t i = 0; i < n && !rc; i++) {
			const struct r_member *m = &members[i];
			if (m->name.len)
				changes_enter(out, m->name, 0);
			rc = list_member(fds, n_fds, span_of(m->path.p + 1, m->path.len - 1), out, e);
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
	struct batches l = {0};

	if (list_batches(j, &l))
		return because(reason, "cannot list the journal: %s", strerror(errno));
	*after = l.n ? l.v[0].first - 1 : 0;
	*upto = *after;
	for (size_t i = 0; i < l.n; i++)
		*upto = max_u64(*upto, l.v[i].last);
	free(l.v);
	return true;
}

/* ---- consumers ---- */

int journal_consumer_set(struct journal *j, const char name[33], const uint8_t uuid[16], uint64_t seq, struct err *e)
{
	char text[64], id[33];

	assert(is_consumer(name));
	hex(id, uuid, 16);
	int n = snprintf(text, sizeof text, "%s %" PRIu64 "\n", id, seq);
	return file_replace(j->consumers, name, text, (size_t)n, e);
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
	if (n < 35 || n > 54 || memcmp(text, id, 32) || text[32] != ' ' || text[n - 1] != '\n')
		return false;
	size_t len = (size_t)n - 34;
	return len <= 19 && digits(text + 33, len, seq);
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

static void unlock(const struct journal *j) { flock(j->batches, LOCK_UN); }

static int remove_batch(const struct journal *j, const struct batch *b, struct err *e)
{
	char name[BATCH_NAME];

	batch_name(name, b->first, b->last);
	if (unlinkat(j->batches, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove batch '%s'", name);
	return 0;
}

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
		if (remove_batch(j, &b, e))
			return -1;
		j->tended.trimmed++;
	}
	l->n = n;
	return 0;
}

/* n batches become one. 0: a reader is at work; 1; -1. */
static int join(struct journal *j, const struct batch *b, size_t n, struct err *e)
{
	char name[BATCH_NAME];
	struct err why = {0};
	int fd = new_file(j, "join", e);

	if (fd < 0)
		return -1;
	int rc = join_into(j, b, n, fd, &why);
	if (close(fd) && !rc)
		rc = err_sys(&why, "cannot write the journal");
	bool is_alone = lock_alone(j);
	batch_name(name, b[0].first, b[n - 1].last);
	/* The joined one first: then nothing is missing at any time. */
	if (!rc && is_alone && renameat(j->batches, "join", j->batches, name))
		rc = err_sys(&why, "cannot put a batch into the journal");
	/* A damaged one is of no use to anybody: with all that would be joined with it, readers find it missing. */
	bool is_damaged = rc && why.kind == ERR_STREAM;
	if (rc && !is_damaged)
		*e = why;
	for (size_t i = 0; i < n && is_alone && (!rc || is_damaged); i++)
		if (remove_batch(j, &b[i], e)) {
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
		int got = hi - lo > 1 ? join(j, &l->v[lo], hi - lo, e) : 1;
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
		if (remove_batch(j, &l->v[i], e))
			return -1;
		bytes -= l->v[i].size;
		j->tended.dropped++;
	}
	return 0;
}

static int list_again(struct journal *j, struct batches *l, struct err *e)
{
	l->n = 0;
	if (list_batches(j, l))
		return err_sys(e, "cannot list the journal");
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
	struct batches l = {0};
	struct places p = {0};

	memset(&j->tended, 0, sizeof j->tended);
	int rc = list_consumers(j, &p, e);
	j->tended.consumers = p.n;
	if (!rc)
		rc = tend(j, &l, &p, limit, e);
	free(l.v);
	free(p.v);
	return rc;
}
