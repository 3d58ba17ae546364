#include "batches.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

/* ---- names ---- */

void batches_name(char out[BATCHES_NAME], uint64_t first, uint64_t last)
{
	snprintf(out, BATCHES_NAME, "%016" PRIu64 "-%016" PRIu64 ".repl", first, last);
}

static bool number(const char *s, uint64_t *out)
{
	*out = 0;
	for (size_t i = 0; i < 16; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(s[i] - '0');
	}
	return true;
}

bool batches_parse(const char *name, struct batch *b)
{
	*b = (struct batch){0};
	return strlen(name) == 38 && number(name, &b->first) && name[16] == '-' && number(name + 17, &b->last) &&
		!strcmp(name + 33, ".repl") && b->first && b->first <= b->last;
}

static int batch_cmp(const void *a, const void *b)
{
	const struct batch *x = a, *y = b;

	if (x->first != y->first)
		return x->first < y->first ? -1 : 1;
	return (x->last < y->last) - (x->last > y->last);
}

int batches_list(struct batches *l, struct err *e)
{
	int fd = openat(l->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;
	struct batch b;
	struct stat st;

	l->n = 0;
	if (!d) {
		close_fd(&fd);
		return err_sys(e, "cannot list the journal");
	}
	while ((en = readdir(d))) {
		if (!batches_parse(en->d_name, &b) || fstatat(l->dir, en->d_name, &st, AT_SYMLINK_NOFOLLOW))
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

void batches_free(struct batches *l)
{
	free(l->v);
	*l = (struct batches){0};
}

int batches_remove(const struct batches *l, const struct batch *b, struct err *e)
{
	char name[BATCHES_NAME];

	batches_name(name, b->first, b->last);
	if (unlinkat(l->dir, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove batch '%s'", name);
	return 0;
}

/* ---- writing ---- */

int batches_new(int dir, const char *name, struct err *e)
{
	if (unlinkat(dir, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s' in the journal", name);
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? err_sys(e, "cannot create a file in the journal") : fd;
}

int batches_begin(struct stream_out *o, const uint8_t uuid[16], uint64_t first, uint64_t last, int64_t time_ns, struct err *e)
{
	struct record r = {.type = REC_IMAGE, .u.image = {.time_ns = time_ns, .seq = first}};

	if (stream_begin(o, KIND_CHANGE, e) || stream_put(o, &r, e))
		return -1;
	r = (struct record){.type = REC_MEMBER, .u.member = {.kind = MEMBER_TREE, .path = span_cstr("/")}};
	if (stream_put(o, &r, e))
		return -1;
	r = (struct record){.type = REC_CURSOR, .u.cursor = {.seq = last}};
	memcpy(r.u.cursor.journal, uuid, sizeof r.u.cursor.journal);
	return stream_put(o, &r, e);
}

int batches_end(struct stream_out *o, struct sink *s, struct err *e)
{
	struct record r = {.type = REC_END};

	return stream_put(o, &r, e) || stream_finish(o, e) || sink_flush(s, e) ? -1 : 0;
}

/* ---- reading ---- */

static const char *bad_head(const struct batches *l, const struct merge_source *s, const struct batch *b)
{
	const struct head *h = &s->head;

	if (!s->head.has_cursor || memcmp(s->head.cursor.journal, l->uuid, sizeof s->head.cursor.journal))
		return "is of another journal";
	if (s->head.cursor.seq != b->last || h->stamps.seq != b->first)
		return "is not what its name says";
	if (h->n_members != 1 || h->members[0].kind != MEMBER_TREE || h->members[0].name.len ||
			!span_eq(h->members[0].path, span_cstr("/")))
		return "is no batch";
	return NULL;
}

int batches_file(int dir, const char *name, struct err *e)
{
	int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st)) {
		err_sys(e, "cannot open '%s'", name);
		close_fd(&fd);
	} else if (!S_ISREG(st.st_mode)) { /* a fifo would keep us waiting */
		err_set(e, ERR_STREAM, "'%s' is no file", name);
		close_fd(&fd);
	}
	return fd;
}

/* Opens it and reads its head. */
static int open_source(const struct batches *l, const struct batch *b, const char *name, int *fd, struct merge_source *s,
	struct err *e)
{
	const char *why;

	*fd = batches_file(l->dir, name, e);
	if (*fd < 0)
		return -1;
	int rc = merge_open(s, *fd, name, e);
	if (!rc && (why = bad_head(l, s, b))) {
		merge_close(s);
		rc = err_set(e, ERR_STREAM, "batch '%s' %s", name, why);
	}
	if (rc)
		close_fd(fd);
	return rc;
}

int batches_open(const struct batches *l, const struct batch *b, struct err *e)
{
	struct merge_source s = {0};
	char name[BATCHES_NAME];
	int fd;

	batches_name(name, b->first, b->last);
	if (open_source(l, b, name, &fd, &s, e))
		return -1;
	int rc = merge_check(&s, e);
	merge_close(&s);
	if (!rc && lseek(fd, 0, SEEK_SET))
		rc = err_sys(e, "cannot read batch '%s'", name);
	if (rc)
		close_fd(&fd);
	return fd;
}

/* ---- joining ---- */

/* Sources that stand on open batches. */
struct sources {
	struct merge_source v[MERGE_MAX];
	char names[MERGE_MAX][BATCHES_NAME];
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

static int write_joined(const struct batches *l, struct sources *s, uint64_t first, uint64_t last, int to, struct err *e)
{
	struct sink sink = {.fd = to, .name = "the journal"};
	struct stream_out o = {.sink = sink_write, .ctx = &sink};
	struct changes_out out = {.o = &o};
	struct merge m = {.sources = s->v, .n = s->n, .out = &out};

	changes_enter(&out, (struct span){0}, 0);
	int rc = batches_begin(&o, l->uuid, first, last, s->v[s->n - 1].head.stamps.time_ns, e) ||
		merge_inodes(s->v, s->n, &o, e) || merge_run(&m, e) || batches_end(&o, &sink, e) ? -1 : 0;
	changes_free(&out);
	stream_out_free(&o);
	sink_free(&sink);
	return rc;
}

int batches_join(const struct batches *l, const struct batch *b, size_t n, int to, struct err *e)
{
	AUTO_FREE struct sources *s = xalloc(sizeof *s);
	int rc = 0;

	while (s->n < n && !rc) {
		batches_name(s->names[s->n], b[s->n].first, b[s->n].last);
		rc = open_source(l, &b[s->n], s->names[s->n], &s->fds[s->n], &s->v[s->n], e);
		if (!rc)
			s->n++;
	}
	if (!rc)
		rc = write_joined(l, s, b[0].first, b[n - 1].last, to, e);
	close_sources(s);
	return rc;
}

int batches_shrink(const struct batches *l, int fds[MERGE_MAX], struct err *e)
{
	AUTO_FREE struct sources *s = xalloc(sizeof *s);
	char dir[32];

	snprintf(dir, sizeof dir, "/proc/self/fd/%d", l->dir);
	int to = file_temp(dir), rc = to < 0 ? err_sys(e, "cannot make a temporary file in the journal") : 0;
	for (s->n = 0; s->n < MERGE_MAX; s->n++) {
		s->fds[s->n] = fds[s->n];
		fds[s->n] = -1;
	}
	for (size_t i = 0; i < s->n && !rc; i++)
		rc = merge_open(&s->v[i], s->fds[i], "the journal", e);
	if (!rc)
		rc = write_joined(l, s, 1, 1, to, e);
	if (!rc && lseek(to, 0, SEEK_SET))
		rc = err_sys(e, "cannot read a temporary file in the journal");
	close_sources(s);
	if (rc)
		close_fd(&to);
	fds[0] = to;
	return rc;
}
