#include "queue.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "digest.h"
#include "file.h"
#include "lock.h"
#include "stamp.h"
#include "value.h"

#define MARKER "repl-queue"
#define SENDING "sending"
#define NEW "new."
#define NAME_MAX_LEN 128u
#define SHOWN 300
#define LOCK_WAIT 60u /* seconds: it is held for as long as a directory is read and synced */
#define NS INT64_C(1000000000)

static char *shown(char out[SHOWN], const struct queue *q) { return esc_cut(out, SHOWN, span_cstr(q->path)); }

/* ---- the directory ---- */

static bool is_ours(const char *name)
{
	return file_is_dots(name) || !strcmp(name, MARKER);
}

static int check_vacant(const struct queue *q, struct err *e)
{
	int fd = openat(q->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;
	char where[SHOWN];
	bool is_vacant = true;

	if (!d) {
		close_fd(&fd);
		return err_sys(e, "cannot list the queue '%s'", shown(where, q));
	}
	while ((en = readdir(d)))
		is_vacant = is_vacant && is_ours(en->d_name);
	closedir(d);
	return is_vacant ? 0 : err_set(e, ERR_USAGE, "'%s' is not empty and not a queue: give one that does not exist", shown(where, q));
}

static int lock(struct queue *q, struct err *e)
{
	AUTO_BUF struct buf held = {0};
	char where[SHOWN];

	buf_fmt(&held, "the queue '%s' is in use", shown(where, q));
	return lock_take(q->fd, MARKER, buf_cstr(&held), LOCK_WAIT, &q->lock_fd, e);
}

static void unlock(struct queue *q) { lock_drop(&q->lock_fd); }

static int found(struct queue *q, struct err *e)
{
	char where[SHOWN];

	if (check_vacant(q, e) || lock(q, e))
		return -1;
	unlock(q);
	return fsync(q->fd) ? err_sys(e, "cannot sync the queue '%s'", shown(where, q)) : 0;
}

bool queue_is_there(const char *path)
{
	AUTO_BUF struct buf marker = {0};

	buf_fmt(&marker, "%s/" MARKER, path);
	return access(buf_cstr(&marker), F_OK) == 0;
}

int queue_open(struct queue *q, const char *path, bool create, struct err *e)
{
	char where[SHOWN];
	int rc = 0;

	*q = QUEUE_NONE;
	q->path = xstrdup(path);
	if (create && mkdir(path, 0700) && errno != EEXIST)
		rc = err_sys(e, "cannot make the queue '%s'", shown(where, q));
	else if ((q->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
		rc = errno == ENOENT ? err_set(e, ERR_USAGE, "there is no queue '%s': repl-pack --queue makes it", shown(where, q)) :
			err_sys(e, "cannot open the queue '%s'", shown(where, q));
	else if (faccessat(q->fd, MARKER, F_OK, AT_SYMLINK_NOFOLLOW))
		rc = create ? found(q, e) : err_set(e, ERR_USAGE, "'%s' is not a queue", shown(where, q));
	if (rc)
		queue_close(q);
	return rc;
}

void queue_close(struct queue *q)
{
	if (!q->path)
		return;
	queue_drop_new(q);
	lock_drop(&q->lock_fd);
	lock_drop(&q->send_fd);
	close_fd(&q->fd);
	free(q->path);
	*q = QUEUE_NONE;
}

/* ---- the list ---- */

static void item_name(char out[NAME_MAX_LEN], const struct queue_item *i)
{
	char base[2 * QUEUE_ID + 1], id[2 * QUEUE_ID + 1];

	hex(base, i->base, QUEUE_ID);
	hex(id, i->id, QUEUE_ID);
	snprintf(out, NAME_MAX_LEN, "%016" PRIu64 "-%" PRIu64 "-%s-%s%s.rpl", i->no, i->seq, base, id, i->is_sent ? ".sent" : "");
}

/* It is one when it is what we would have named it. */
static bool parse_name(const char *name, struct queue_item *i)
{
	char base[2 * QUEUE_ID + 1], id[2 * QUEUE_ID + 1], again[NAME_MAX_LEN];
	int end = 0;

	*i = (struct queue_item){0};
	if (sscanf(name, "%16" SCNu64 "-%20" SCNu64 "-%16[0-9a-f]-%16[0-9a-f]%n", &i->no, &i->seq, base, id, &end) != 4 || !end ||
			!unhex(i->base, QUEUE_ID, base) || !unhex(i->id, QUEUE_ID, id))
		return false;
	i->is_sent = !strcmp(name + end, ".sent.rpl");
	item_name(again, i);
	return !strcmp(name, again);
}

static int by_no(const void *a, const void *b)
{
	const struct queue_item *x = a, *y = b;

	return (x->no > y->no) - (x->no < y->no);
}

static void add(struct queue_list *l, const struct queue_item *i)
{
	if (l->n % 16 == 0)
		l->v = xrealloc(l->v, (l->n + 16) * sizeof *l->v);
	l->v[l->n++] = *i;
	l->bytes += i->bytes;
}

int queue_list(const struct queue *q, struct queue_list *l, struct err *e)
{
	int fd = openat(q->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;
	struct queue_item i;
	struct stat st;
	char where[SHOWN];

	*l = (struct queue_list){0};
	if (!d) {
		err_sys(e, "cannot list the queue '%s'", shown(where, q));
		close_fd(&fd);
		return -1;
	}
	while ((en = readdir(d))) {
		/* One that goes meanwhile is not there. */
		if (!parse_name(en->d_name, &i) || fstatat(dirfd(d), en->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		i.bytes = (uint64_t)st.st_size;
		i.since_ns = st.st_mtim.tv_sec * NS + st.st_mtim.tv_nsec;
		add(l, &i);
	}
	closedir(d);
	if (l->n)
		qsort(l->v, l->n, sizeof *l->v, by_no);
	return 0;
}

void queue_list_free(struct queue_list *l)
{
	free(l->v);
	*l = (struct queue_list){0};
}

/* A tree may come back to what it was: then only the number tells what the base has passed. */
static bool is_passed(const struct queue_item *i, uint64_t seq) { return seq && i->seq && i->seq <= seq; }

void queue_list_follow(struct queue_list *l, const struct digest *id, uint64_t seq)
{
	struct queue_list way = {0};
	uint8_t at[QUEUE_ID];

	if (id || l->n)
		memcpy(at, id ? id->b : l->v[0].base, QUEUE_ID);
	for (size_t i = 0; i < l->n; i++) {
		if (is_passed(&l->v[i], seq) || memcmp(l->v[i].base, at, QUEUE_ID))
			continue;
		memcpy(at, l->v[i].id, QUEUE_ID);
		add(&way, &l->v[i]);
	}
	queue_list_free(l);
	*l = way;
}

void queue_list_text(const struct queue_list *l, const char *path, struct buf *text)
{
	char where[SHOWN];

	esc_cut(where, sizeof where, span_cstr(path));
	buf_fmt(text, "%zu delta%s, %" PRIu64 " bytes, wait%s in '%s' since ", l->n, l->n == 1 ? "" : "s", l->bytes, l->n == 1 ? "s" : "",
		where);
	stamp_time(text, l->v[0].since_ns / NS * NS);
}

/* ---- what is new ---- */

static void new_name(char out[NAME_MAX_LEN]) { snprintf(out, NAME_MAX_LEN, NEW "%ld", (long)getpid()); }

/* What a writer that was killed left behind: its lock went with it. */
static void drop_stale(const struct queue *q)
{
	int fd = openat(q->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;

	if (!d) {
		close_fd(&fd);
		return;
	}
	while ((en = readdir(d))) {
		AUTO_CLOSE int file = strncmp(en->d_name, NEW, strlen(NEW)) ? -1 :
			openat(q->fd, en->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (file >= 0 && !flock(file, LOCK_EX | LOCK_NB))
			unlinkat(q->fd, en->d_name, 0);
	}
	closedir(d);
}

static int make_new(struct queue *q, struct err *e)
{
	char name[NAME_MAX_LEN], where[SHOWN];

	new_name(name);
	drop_stale(q);
	q->new_fd = openat(q->fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (q->new_fd < 0 || flock(q->new_fd, LOCK_EX | LOCK_NB))
		return err_sys(e, "cannot make a file in the queue '%s'", shown(where, q));
	return 0;
}

int queue_new(struct queue *q, int *fd, struct err *e)
{
	if (lock(q, e))
		return -1;
	int rc = make_new(q, e);
	unlock(q);
	*fd = q->new_fd;
	return rc;
}

void queue_drop_new(struct queue *q)
{
	char name[NAME_MAX_LEN];

	if (q->new_fd < 0)
		return;
	new_name(name);
	unlinkat(q->fd, name, 0);
	close_fd(&q->new_fd);
}

static int sync_queue(const struct queue *q, struct err *e)
{
	char where[SHOWN];

	return fsync(q->fd) ? err_sys(e, "cannot sync the queue '%s'", shown(where, q)) : 0;
}

static int remove_item(const struct queue *q, const struct queue_item *i, struct err *e)
{
	char name[NAME_MAX_LEN], where[SHOWN];

	item_name(name, i);
	if (unlinkat(q->fd, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s' from the queue '%s'", name, shown(where, q));
	return 0;
}

static bool is_same(const struct queue_item *a, const struct queue_item *b)
{
	return a->seq == b->seq && !memcmp(a->base, b->base, QUEUE_ID) && !memcmp(a->id, b->id, QUEUE_ID);
}

static bool has_delta(const struct queue_list *l, const struct queue_item *new)
{
	for (size_t i = 0; i < l->n; i++)
		if (is_same(&l->v[i], new))
			return true;
	return false;
}

static int give_name(struct queue *q, const struct queue_item *i, struct err *e)
{
	char name[NAME_MAX_LEN], from[NAME_MAX_LEN], where[SHOWN];

	new_name(from);
	item_name(name, i);
	if (fsync(q->new_fd) || renameat(q->fd, from, q->fd, name))
		return err_sys(e, "cannot write '%s' into the queue '%s'", name, shown(where, q));
	close_fd(&q->new_fd);
	return sync_queue(q, e);
}

/* Back from the new one to where it begins: what is on the way stays, what may have left, too. */
static int remove_others(const struct queue *q, const struct queue_list *l, const struct queue_item *new, struct queue_list *gone,
	struct err *e)
{
	uint8_t at[QUEUE_ID];

	memcpy(at, new->base, QUEUE_ID);
	for (size_t i = l->n; i > 0; i--) {
		const struct queue_item *it = &l->v[i - 1];
		if (!memcmp(it->id, at, QUEUE_ID)) {
			memcpy(at, it->base, QUEUE_ID);
			continue;
		}
		if (it->is_sent)
			continue;
		if (remove_item(q, it, e))
			return -1;
		add(gone, it);
	}
	return gone->n ? sync_queue(q, e) : 0;
}

/* the file synced           before: new.PID, which the next writer removes
 * renamed, synced           before: the queue as it was
 * those before it removed   before: more files than are needed, in an order in which they can be sent */
int queue_put(struct queue *q, uint64_t seq, const struct digest *base, const struct digest *id, struct queue_list *gone, struct err *e)
{
	struct queue_item new = {.seq = seq};
	struct queue_list l;

	*gone = (struct queue_list){0};
	memcpy(new.base, base->b, QUEUE_ID);
	memcpy(new.id, id->b, QUEUE_ID);
	if (lock(q, e))
		return -1;
	int rc = queue_list(q, &l, e);
	new.no = !rc && l.n ? l.v[l.n - 1].no + 1 : 1;
	bool is_here = !rc && has_delta(&l, &new), is_last = is_here && is_same(&l.v[l.n - 1], &new);
	if (is_here)
		queue_drop_new(q);
	else if (!rc)
		rc = give_name(q, &new, e);
	/* The last one, when it is put here again, may have been broken off before this. */
	l.n -= is_last;
	if (!rc && (is_last || !is_here))
		rc = remove_others(q, &l, &new, gone, e);
	unlock(q);
	queue_list_free(&l);
	return rc;
}

/* ---- sending ---- */

static int mark_sent(const struct queue *q, struct queue_list *l, struct err *e)
{
	char from[NAME_MAX_LEN], to[NAME_MAX_LEN], where[SHOWN];
	bool is_any = false;

	for (size_t i = 0; i < l->n; i++) {
		if (l->v[i].is_sent)
			continue;
		item_name(from, &l->v[i]);
		l->v[i].is_sent = is_any = true;
		item_name(to, &l->v[i]);
		if (renameat(q->fd, from, q->fd, to))
			return err_sys(e, "cannot rename '%s' in the queue '%s'", from, shown(where, q));
	}
	return is_any ? sync_queue(q, e) : 0;
}

int queue_claim(struct queue *q, const struct digest *base, uint64_t seq, struct queue_list *l, size_t *n_left, struct err *e)
{
	AUTO_BUF struct buf held = {0};
	char where[SHOWN];

	*l = (struct queue_list){0};
	buf_fmt(&held, "the queue '%s' is being sent", shown(where, q));
	if (lock_take(q->fd, SENDING, buf_cstr(&held), 0, &q->send_fd, e) || lock(q, e))
		return -1;
	int rc = queue_list(q, l, e);
	size_t n = l->n;
	queue_list_follow(l, base, seq);
	if (n_left)
		*n_left = n - l->n;
	if (!rc)
		rc = mark_sent(q, l, e);
	unlock(q);
	return rc;
}

int queue_read(const struct queue *q, const struct queue_item *i, int *fd, struct buf *name, struct err *e)
{
	char file[NAME_MAX_LEN], where[SHOWN];

	item_name(file, i);
	buf_reset(name);
	buf_fmt(name, "%s/%s", q->path, file);
	*fd = openat(q->fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (*fd >= 0)
		return 1;
	return errno == ENOENT ? 0 : err_sys(e, "cannot open '%s' in the queue '%s'", file, shown(where, q));
}

/* ---- what the base has passed ---- */

/* Some way leads from the base to it: also what only one of two branches of deltas will become. */
static bool is_reached(const struct queue_list *l, size_t i, const bool *reached, const struct digest *id)
{
	if (!memcmp(l->v[i].base, id->b, QUEUE_ID))
		return true;
	for (size_t k = 0; k < i; k++)
		if (reached[k] && !memcmp(l->v[k].id, l->v[i].base, QUEUE_ID))
			return true;
	return false;
}

static int remove_passed(const struct queue *q, const struct digest *id, uint64_t seq, uint64_t *n_gone, struct err *e)
{
	struct queue_list l;
	int rc = queue_list(q, &l, e);
	AUTO_FREE bool *reached = xalloc(l.n + 1);

	for (size_t i = 0; i < l.n && !rc; i++) {
		reached[i] = !is_passed(&l.v[i], seq) && is_reached(&l, i, reached, id);
		if (reached[i])
			continue;
		rc = remove_item(q, &l.v[i], e);
		*n_gone += !rc;
	}
	queue_list_free(&l);
	return rc || !*n_gone ? rc : sync_queue(q, e);
}

int queue_prune(struct queue *q, const struct digest *id, uint64_t seq, uint64_t *n_gone, struct err *e)
{
	*n_gone = 0;
	if (lock(q, e))
		return -1;
	int rc = remove_passed(q, id, seq, n_gone, e);
	unlock(q);
	return rc;
}

bool queue_limit(const char *text, uint64_t *files, uint64_t *bytes)
{
	bool is_number = *text && text[strspn(text, "0123456789")] == '\0';
	uint64_t n;

	if (!value_size(text, &n) || !n)
		return false;
	*files = is_number ? n : 0;
	*bytes = is_number ? 0 : n;
	return true;
}
