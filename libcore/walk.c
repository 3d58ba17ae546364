#include "walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "path.h"

/*
 * Who does what. Every directory is a node. The consumer (the caller's thread) keeps the nodes it is inside of on
 * a stack; the next sub-directories of each of them wait in a queue, those of the top of the stack first, so what is
 * needed next is listed next. A worker, or the consumer when it would have to wait, takes a node from the queue,
 * lists it, sorts the names and stats them in pieces that any worker may take. The consumer itself lists a node that
 * nobody has begun: nothing ever waits for a worker that waits.
 *
 *   IDLE -> QUEUED -> LISTING -> READY        IDLE: the parent's descriptor was given up, or descriptors ran out
 *
 * What lies in a node is written by the one who lists it and read by the consumer after READY; `lock` hands it over.
 * Descriptors are few: the lower part of a deep stack gives its own up and gets them back on the way out, through
 * ".." of the child, and only when device and inode are those first seen.
 */
enum {
	PIECE = 1024,              /* names statted in one go */
	BATCH = 8 * PIECE,         /* names taken at a time from a directory that lies in the temporary file */
	SPILL_AT = 128 * 1024,     /* names in memory before a directory goes there */
	SPILL_EARLY = BATCH,       /* the same while CROWDED */
	CROWDED = 512 * 1024,      /* entries in memory: directories as large as that one inside another */
	AHEAD_ENTRIES = 64 * 1024, /* entries listed that the consumer has not come to: workers wait */
	AHEAD_DIRS = 64,           /* sub-directories of one directory in the queue */
	AHEAD_FDS = 40,            /* listed and kept open for the consumer; others are opened again */
	STACK_FDS = 48,            /* kept open of what the consumer is inside of */
	MAX_THREADS = 16,
	DENTS_LEN = 64 * 1024,
	RUNS_LEN = 8 * 1024 * 1024, /* buffers of all runs together while they are merged */
	NAME_LEN = 255,
};

enum entry_state { ENTRY_OK, ENTRY_GONE, ENTRY_FAILED };
enum verdict { NOT_ASKED, ACCEPTED, REFUSED };

/* What attr_stat says, without the room that struct attr keeps for the rest. */
struct entry {
	int64_t mtime_s, ctime_s, btime_s;
	uint64_t dev, ino, size, blocks512;
	uint32_t mtime_ns, ctime_ns, btime_ns, uid, gid, major, minor, attr, nlink;
	uint32_t name_at;
	uint16_t mode, sys;
	uint8_t type, name_len, state, verdict;
};

struct key { /* what sorting moves */
	uint64_t head; /* first eight bytes, big-endian, zero-padded: a shorter name comes first */
	uint32_t at;
	uint32_t len;
};
struct names { /* NUL-terminated, one behind the other */
	struct buf text;
	struct key *keys;
	size_t n, cap;
};

struct batch {
	struct node *dir;
	char *text;
	struct entry *entries;
	size_t n, taken, left; /* taken: entries handed out; left: entries not yet statted */
	bool failed;           /* some entry is ENTRY_FAILED */
	struct batch *next;    /* in walk.batches */
};

struct run { /* sorted names in the temporary file: u8 length, bytes */
	uint64_t off, at, end;
	uint8_t *buf;
	size_t have, pos; /* the current name's length byte is buf[pos] */
};
struct spill {
	struct run *runs;
	size_t n_runs, n_names, room; /* room: of one run's buffer */
	size_t *heap, n_heap;         /* runs, the one with the least name first */
	struct key last;              /* name given last: a directory that changes may list one twice */
	char last_name[NAME_LEN + 1];
};

enum node_state { NODE_IDLE, NODE_QUEUED, NODE_LISTING, NODE_READY };
enum phase { PHASE_ENTER, PHASE_INSIDE, PHASE_LEFT };

struct node {
	struct node *parent;
	char *name;
	struct entry st;
	unsigned depth;
	/* under lock */
	enum node_state state;
	int fd;
	unsigned busy;     /* users of fd outside the lock */
	bool wanted;       /* the consumer waits for it */
	bool ahead_fd;     /* fd is counted in walk.ahead_fds */
	size_t charge;     /* its part of walk.ahead */
	struct node *q_next, *q_prev, *q_last; /* q_last: its own last child in the queue */
	/* results */
	int open_sys, list_sys, fatal_sys;
	struct batch *cur, *next;
	struct spill *spill;
	/* the consumer's */
	enum phase phase;
	bool skip, is_mount, unreadable;
	size_t path_len, at, scan; /* scan: entries before it were looked at for sub-directories */
	size_t entry;              /* its index in the parent's batch */
	struct node *first, *last, *sibling; /* sub-directories ahead, in order */
	size_t n_ahead;
};

struct hand { /* one per thread */
	struct walk *w;
	struct attr attr;
	struct names names;
	uint8_t *dents;
	pthread_t thread;
};

struct walk {
	struct walk_root *roots;
	size_t n_roots, root; /* root: the next one to begin */
	struct walk_options o;
	char *tmpdir;
	uint64_t root_dev;
	struct buf path;
	struct attr attr;
	struct node **stack;
	size_t depth, cap, low; /* no frame below low is open */
	size_t stack_fds;
	struct hand self, *hands;
	size_t n_hands;
	atomic_bool stop;

	pthread_mutex_t lock;
	pthread_cond_t work, done;
	size_t idle;
	bool waiting;
	struct node *queue, *queue_end;
	struct batch *batches;
	size_t ahead, ahead_fds, live;
	int spill_fd;
	uint64_t spill_end;
	size_t spill_users;
};

static void lock(struct walk *w) { pthread_mutex_lock(&w->lock); }
static void unlock(struct walk *w) { pthread_mutex_unlock(&w->lock); }

static void wake_workers(struct walk *w)
{
	if (w->idle)
		pthread_cond_broadcast(&w->work);
}

static void wake_consumer(struct walk *w)
{
	if (w->waiting)
		pthread_cond_signal(&w->done);
}

/* Entries and names */

static void entry_pack(struct entry *s, const struct attr *a)
{
	s->mtime_s = a->meta.mtime_s;
	s->mtime_ns = a->meta.mtime_ns;
	s->ctime_s = a->hint.ctime_s;
	s->ctime_ns = a->hint.ctime_ns;
	s->btime_s = a->hint.btime_s;
	s->btime_ns = a->hint.btime_ns;
	s->dev = a->hint.dev;
	s->ino = a->hint.ino;
	s->nlink = a->hint.nlink;
	s->size = a->size;
	s->blocks512 = a->blocks512;
	s->uid = a->meta.uid;
	s->gid = a->meta.gid;
	s->major = a->meta.major;
	s->minor = a->meta.minor;
	s->attr = a->meta.attr;
	s->mode = a->meta.mode;
	s->type = a->type;
}

static void entry_unpack(struct attr *a, const struct entry *s)
{
	struct buf store = a->store;

	buf_reset(&store);
	*a = (struct attr){
		.type = s->type,
		.meta = {.mode = s->mode, .uid = s->uid, .gid = s->gid, .mtime_s = s->mtime_s,
			.mtime_ns = s->mtime_ns, .major = s->major, .minor = s->minor, .attr = s->attr},
		.hint = {.dev = s->dev, .ino = s->ino, .ctime_s = s->ctime_s, .ctime_ns = s->ctime_ns,
			.btime_s = s->btime_s, .btime_ns = s->btime_ns, .nlink = s->nlink},
		.size = s->size,
		.blocks512 = s->blocks512,
		.store = store,
	};
}

static struct key key_of(const char *name, size_t len, size_t at)
{
	uint8_t head[8] = {0};

	memcpy(head, name, len < sizeof head ? len : sizeof head);
	return (struct key){get_be64(head), (uint32_t)at, (uint32_t)len};
}

static int name_cmp(const struct key *a, const char *a_name, const struct key *b, const char *b_name)
{
	if (a->head != b->head)
		return a->head < b->head ? -1 : 1;
	return span_cmp(span_of(a_name, a->len), span_of(b_name, b->len));
}

static int key_cmp(const void *pa, const void *pb, void *text)
{
	const struct key *a = pa, *b = pb;
	const char *t = text;

	return name_cmp(a, t + a->at, b, t + b->at);
}

static void names_add(struct names *m, const char *name, size_t len)
{
	if (m->n == m->cap) {
		m->cap = m->cap ? 2 * m->cap : 256;
		m->keys = xrealloc(m->keys, m->cap * sizeof *m->keys);
	}
	m->keys[m->n++] = key_of(name, len, m->text.len);
	buf_add(&m->text, name, len);
	buf_add(&m->text, "", 1);
}

static const char *names_at(const struct names *m, size_t i)
{
	return (const char *)m->text.p + m->keys[i].at;
}

/* In order, each name once. */
static void names_sort(struct names *m)
{
	size_t out = 0;

	if (m->n < 2)
		return;
	qsort_r(m->keys, m->n, sizeof *m->keys, key_cmp, m->text.p);
	for (size_t i = 1; i < m->n; i++)
		if (key_cmp(&m->keys[out], &m->keys[i], m->text.p) != 0)
			m->keys[++out] = m->keys[i];
	m->n = out + 1;
}

static void names_reset(struct names *m)
{
	m->n = 0;
	buf_reset(&m->text);
	if (m->cap > 4 * (size_t)PIECE) { /* one large directory must not be remembered for ever */
		buf_free(&m->text);
		free(m->keys);
		*m = (struct names){0};
	}
}

static struct batch *batch_new(struct walk *w, struct node *d, const struct names *m)
{
	struct batch *b = xalloc(sizeof *b);

	b->dir = d;
	b->n = b->left = m->n;
	if (m->n) {
		b->text = xdup(m->text.p, m->text.len);
		b->entries = xalloc(m->n * sizeof *b->entries);
	}
	for (size_t i = 0; i < m->n; i++) {
		b->entries[i].name_at = m->keys[i].at;
		b->entries[i].name_len = (uint8_t)m->keys[i].len;
	}
	lock(w);
	w->live += b->n;
	unlock(w);
	return b;
}

static void batch_free(struct walk *w, struct batch **bp)
{
	struct batch *b = *bp;

	*bp = NULL;
	if (!b)
		return;
	lock(w);
	w->live -= b->n;
	unlock(w);
	free(b->text);
	free(b->entries);
	free(b);
}

/* The temporary file: one for the whole walk, names of large directories in sorted runs. */
/* Writes the names as one more run of d and forgets them; errno on failure. */
static int spill_run(struct walk *w, struct node *d, struct names *m)
{
	AUTO_BUF struct buf out = {0};
	struct spill *s;
	struct run r = {0};
	uint64_t len = 0;

	names_sort(m);
	for (size_t i = 0; i < m->n; i++)
		len += 1 + (uint64_t)m->keys[i].len;
	lock(w);
	if (w->spill_fd < 0)
		w->spill_fd = file_temp(w->tmpdir);
	if (w->spill_fd < 0) {
		int sys = errno;

		unlock(w);
		return sys;
	}
	if (!d->spill) {
		d->spill = xalloc(sizeof *d->spill);
		w->spill_users++;
	}
	r.off = r.at = w->spill_end;
	r.end = w->spill_end += len;
	unlock(w);

	s = d->spill;
	s->runs = xrealloc(s->runs, (s->n_runs + 1) * sizeof *s->runs);
	s->runs[s->n_runs++] = r;
	s->n_names += m->n;
	for (size_t i = 0, done = 0; i < m->n; i++) {
		wr_u8(&out, (uint8_t)m->keys[i].len);
		buf_add(&out, names_at(m, i), m->keys[i].len);
		if (out.len < DENTS_LEN && i + 1 < m->n)
			continue;
		for (size_t at = 0; at < out.len;) {
			ssize_t put = pwrite(w->spill_fd, out.p + at, out.len - at, (off_t)(r.off + done));

			if (put < 0 && errno != EINTR)
				return errno;
			if (put > 0) {
				at += (size_t)put;
				done += (size_t)put;
			}
		}
		buf_reset(&out);
	}
	m->n = 0;
	buf_reset(&m->text);
	return 0;
}

static void spill_free(struct walk *w, struct spill **sp)
{
	struct spill *s = *sp;

	*sp = NULL;
	if (!s)
		return;
	for (size_t i = 0; i < s->n_runs; i++) {
		const struct run *r = &s->runs[i];

		/* only space is lost when the filesystem cannot */
		(void)fallocate(w->spill_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off,
			(off_t)(r->end - r->off));
		free(r->buf);
	}
	free(s->runs);
	free(s->heap);
	free(s);
	lock(w);
	if (--w->spill_users == 0 && ftruncate(w->spill_fd, 0) == 0)
		w->spill_end = 0;
	unlock(w);
}

/* Makes the current name of the run whole in its buffer; errno, or 0. EIO when the file lost it. */
static int run_fill(struct walk *w, const struct spill *s, struct run *r)
{
	if (r->pos < r->have && r->pos + 1 + r->buf[r->pos] <= r->have)
		return 0;
	if (!r->buf)
		r->buf = xalloc(s->room);
	memmove(r->buf, r->buf + r->pos, r->have - r->pos);
	r->have -= r->pos;
	r->pos = 0;
	while (r->have < s->room && r->at < r->end) {
		size_t want = (size_t)min_u64(s->room - r->have, r->end - r->at);
		ssize_t got = pread(w->spill_fd, r->buf + r->have, want, (off_t)r->at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? errno : EIO;
		r->have += (size_t)got;
		r->at += (uint64_t)got;
	}
	if (r->have && 1 + (size_t)r->buf[0] > r->have)
		return EIO;
	return 0;
}

static struct span run_name(const struct spill *s, size_t slot)
{
	const struct run *r = &s->runs[s->heap[slot]];

	return span_of(r->buf + r->pos + 1, r->buf[r->pos]);
}

static void heap_sink(struct spill *s, size_t i)
{
	for (;;) {
		size_t least = i, child = 2 * i + 1;

		for (size_t c = child; c < child + 2 && c < s->n_heap; c++)
			if (span_cmp(run_name(s, c), run_name(s, least)) < 0)
				least = c;
		if (least == i)
			return;
		size_t t = s->heap[i];
		s->heap[i] = s->heap[least];
		s->heap[least] = t;
		i = least;
	}
}

static int merge_begin(struct walk *w, struct spill *s)
{
	int sys;

	s->room = RUNS_LEN / s->n_runs;
	s->room = s->room > DENTS_LEN ? DENTS_LEN : s->room < 1024 ? 1024 : s->room;
	s->heap = xalloc(s->n_runs * sizeof *s->heap);
	for (size_t i = 0; i < s->n_runs; i++) {
		if ((sys = run_fill(w, s, &s->runs[i])) != 0)
			return sys;
		if (s->runs[i].have)
			s->heap[s->n_heap++] = i;
	}
	for (size_t i = s->n_heap / 2; i-- > 0;)
		heap_sink(s, i);
	return 0;
}

/* The next names in order, at most BATCH; *out stays NULL at the end. */
static int merge_next(struct hand *h, struct node *d, struct batch **out)
{
	struct spill *s = d->spill;
	int sys;

	if (!s->heap && (sys = merge_begin(h->w, s)) != 0)
		return sys;
	while (s->n_heap && h->names.n < BATCH) {
		struct run *r = &s->runs[s->heap[0]];
		struct span name = run_name(s, 0);
		struct key k = key_of((const char *)name.p, name.len, 0);

		if (s->last.len == 0 || name_cmp(&s->last, s->last_name, &k, (const char *)name.p) != 0) {
			names_add(&h->names, (const char *)name.p, name.len);
			memcpy(s->last_name, name.p, name.len);
			s->last = k;
		}
		r->pos += 1 + name.len;
		if ((sys = run_fill(h->w, s, r)) != 0)
			return sys;
		if (r->pos == r->have)
			s->heap[0] = s->heap[--s->n_heap];
		heap_sink(s, 0);
	}
	if (h->names.n)
		*out = batch_new(h->w, d, &h->names);
	names_reset(&h->names);
	return 0;
}

/* Listing: by workers and by the consumer */

/* Opens name below `at` when it is still the directory that was statted. -1 and *sys: ENOENT gone; ENOTDIR, ELOOP,
 * ESTALE: something else has its name now. */
static int open_same(struct hand *h, int at, const char *name, const struct entry *st, int *sys)
{
	struct err e = {.kind = ERR_NONE};
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int same;

	if (fd < 0) {
		*sys = errno;
		return -1;
	}
	if (attr_stat(&h->attr, fd, NULL, &e) < 0) {
		*sys = e.sys ? e.sys : EIO;
		return -1;
	}
	if (h->attr.hint.dev != st->dev || h->attr.hint.ino != st->ino) {
		*sys = ESTALE;
		return -1;
	}
	same = fd;
	fd = -1;
	return same;
}

static bool is_out_of_fds(int sys) { return sys == EMFILE || sys == ENFILE; }

/* Statting one piece; true when an entry failed. */
static bool stat_piece(struct hand *h, struct batch *b, int fd, size_t from, size_t to)
{
	bool failed = false;

	for (size_t i = from; i < to; i++) {
		struct entry *s = &b->entries[i];
		struct err e;

		if (atomic_load_explicit(&h->w->stop, memory_order_relaxed))
			break;
		e.kind = ERR_NONE; /* not {0}: a kilobyte of text for each name */
		e.sys = 0;
		if (attr_stat(&h->attr, fd, b->text + s->name_at, &e) == 0) {
			entry_pack(s, &h->attr);
		} else if (e.sys == ENOENT) {
			s->state = ENTRY_GONE;
		} else {
			s->state = ENTRY_FAILED;
			s->sys = (uint16_t)(e.sys ? e.sys : EIO);
			failed = true;
		}
	}
	return failed;
}

/* Lock held: the node can be consumed now. */
static void node_ready(struct walk *w, struct node *d)
{
	if (d->parent)
		d->parent->busy--;
	d->charge = d->spill ? d->spill->n_names : d->cur ? d->cur->n : 0;
	w->ahead += d->charge;
	d->state = NODE_READY;
	if (d->fd >= 0 && !d->wanted) {
		if (w->ahead_fds < AHEAD_FDS) {
			w->ahead_fds++;
			d->ahead_fd = true;
		} else {
			close_fd(&d->fd);
		}
	}
	wake_consumer(w);
}

/* Lock held: hands the batch out in pieces; d->fd stays open until the last is done. */
static void batch_publish(struct walk *w, struct batch *b)
{
	b->dir->busy++;
	b->next = w->batches;
	w->batches = b;
	wake_workers(w);
}

/* Lock held; released while statting. Does one piece of b, which has some. */
static void batch_work(struct hand *h, struct batch *b)
{
	struct walk *w = h->w;
	size_t from = b->taken, n = b->n - from < PIECE ? b->n - from : PIECE;
	int fd = b->dir->fd;
	bool failed;

	b->taken += n;
	if (b->taken == b->n) {
		struct batch **p = &w->batches;

		while (*p != b)
			p = &(*p)->next;
		*p = b->next;
	}
	unlock(w);
	failed = stat_piece(h, b, fd, from, from + n);
	lock(w);
	b->failed |= failed;
	b->left -= n;
	if (b->left)
		return;
	b->dir->busy--;
	if (b->dir->state == NODE_LISTING)
		node_ready(w, b->dir);
	else
		wake_consumer(w);
}

static void shed_fds(struct walk *w);

static int node_open(struct hand *h, struct node *d)
{
	struct walk *w = h->w;
	int at = d->parent ? d->parent->fd : -1; /* busy, so it stays */
	int fd = open_same(h, at, d->name, &d->st, &d->open_sys);

	if (fd < 0 && h == &w->self && is_out_of_fds(d->open_sys)) {
		shed_fds(w);
		fd = open_same(h, at, d->name, &d->st, &d->open_sys);
	}
	if (fd < 0)
		return -1;
	d->open_sys = 0;
	d->fd = fd;
	return 0;
}

/* All names of d into h->names, or into runs when they are many. */
static void node_names(struct hand *h, struct node *d)
{
	struct walk *w = h->w;
	struct names *m = &h->names;
	size_t limit = w->o.spill_at ? w->o.spill_at : SPILL_AT;

	lock(w);
	if (w->live > CROWDED && limit > SPILL_EARLY)
		limit = SPILL_EARLY;
	unlock(w);
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		ssize_t got = getdents64(d->fd, h->dents, DENTS_LEN);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == ENOENT) { /* removed while we hold it */
			d->open_sys = ENOENT;
			return;
		}
		if (got < 0)
			d->list_sys = errno;
		if (got <= 0)
			break;
		for (size_t at = 0; at < (size_t)got;) {
			const struct dirent64 *de = (const void *)(h->dents + at);
			const char *name = de->d_name;
			size_t len = strlen(name);

			at += de->d_reclen;
			if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
				continue;
			if (d->depth == 0 && strcmp(name, ".repl") == 0) /* the toolkit's own */
				continue;
			if (len == 0 || len > NAME_LEN || memchr(name, '/', len)) {
				d->list_sys = EILSEQ; /* a damaged filesystem */
				continue;
			}
			names_add(m, name, len);
		}
		if (m->n >= limit && (d->fatal_sys = spill_run(w, d, m)) != 0)
			return;
	}
	if (d->spill && m->n)
		d->fatal_sys = spill_run(w, d, m);
}

/* d is LISTING and its parent busy. */
static void node_list(struct hand *h, struct node *d)
{
	struct walk *w = h->w;

	if (d->fd < 0 && node_open(h, d) < 0) {
		lock(w);
		node_ready(w, d);
		if (is_out_of_fds(d->open_sys) && (h != &w->self || !d->wanted)) {
			d->state = NODE_IDLE; /* the consumer tries again when it comes here */
			d->open_sys = 0;
		}
		unlock(w);
		return;
	}
	node_names(h, d);
	if (!d->spill && !d->fatal_sys && d->open_sys == 0) {
		names_sort(&h->names);
		d->cur = batch_new(w, d, &h->names);
	}
	names_reset(&h->names);
	if (d->cur && (d->cur->n <= PIECE || w->n_hands == 0)) {
		d->cur->failed = stat_piece(h, d->cur, d->fd, 0, d->cur->n);
		d->cur->taken = d->cur->n;
		d->cur->left = 0;
	}
	lock(w);
	if (d->cur && d->cur->left) {
		struct batch *b = d->cur;

		batch_publish(w, b);
		while (d->state == NODE_LISTING && b->taken < b->n)
			batch_work(h, b);
	} else {
		node_ready(w, d);
	}
	unlock(w);
}

/* Lock held. */
static void queue_remove(struct walk *w, struct node *d)
{
	struct node *p = d->parent;

	if (p->q_last == d)
		p->q_last = d->q_prev && d->q_prev->parent == p ? d->q_prev : NULL;
	*(d->q_prev ? &d->q_prev->q_next : &w->queue) = d->q_next;
	*(d->q_next ? &d->q_next->q_prev : &w->queue_end) = d->q_prev;
	d->q_next = d->q_prev = NULL;
	d->state = NODE_IDLE;
}

/* Lock held; d's parent is the top of the stack: behind its brothers, before everything else. */
static void queue_insert(struct walk *w, struct node *d)
{
	d->q_prev = d->parent->q_last;
	d->q_next = d->q_prev ? d->q_prev->q_next : w->queue;
	*(d->q_prev ? &d->q_prev->q_next : &w->queue) = d;
	*(d->q_next ? &d->q_next->q_prev : &w->queue_end) = d;
	d->parent->q_last = d;
	d->state = NODE_QUEUED;
}

/* Lock held; released while working. */
static void begin_list(struct hand *h, struct node *d)
{
	if (d->state == NODE_QUEUED)
		queue_remove(h->w, d);
	d->state = NODE_LISTING;
	if (d->parent)
		d->parent->busy++;
	unlock(h->w);
	node_list(h, d);
	lock(h->w);
}

/* Lock held; false when there is nothing to do. */
static bool work_once(struct hand *h)
{
	struct walk *w = h->w;

	if (w->batches)
		batch_work(h, w->batches);
	else if (w->queue && w->ahead < AHEAD_ENTRIES)
		begin_list(h, w->queue);
	else
		return false;
	return true;
}

static void *worker(void *arg)
{
	struct hand *h = arg;
	struct walk *w = h->w;

	lock(w);
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		if (work_once(h))
			continue;
		w->idle++;
		pthread_cond_wait(&w->work, &w->lock);
		w->idle--;
	}
	unlock(w);
	return NULL;
}

/* The consumer's side */

static void consumer_wait(struct walk *w)
{
	w->waiting = true;
	pthread_cond_wait(&w->done, &w->lock);
	w->waiting = false;
}

/* Lock held: takes a READY node out of what is ahead. */
static void node_claim(struct walk *w, struct node *d)
{
	w->ahead -= d->charge;
	d->charge = 0;
	if (d->ahead_fd)
		w->ahead_fds--;
	d->ahead_fd = false;
	if (w->queue)
		wake_workers(w);
}

static void node_wait(struct walk *w, struct node *d)
{
	lock(w);
	d->wanted = true;
	while (d->state != NODE_READY) {
		if (d->state != NODE_LISTING)
			begin_list(&w->self, d);
		else if (!work_once(&w->self))
			consumer_wait(w);
	}
	node_claim(w, d);
	unlock(w);
}

static void batch_wait(struct walk *w, struct batch *b)
{
	lock(w);
	while (b->left) {
		if (b->taken < b->n)
			batch_work(&w->self, b);
		else
			consumer_wait(w);
	}
	unlock(w);
}

/* Not in the queue, not being listed. */
static void node_free(struct walk *w, struct node *d)
{
	close_fd(&d->fd);
	batch_free(w, &d->cur);
	batch_free(w, &d->next);
	spill_free(w, &d->spill);
	free(d->name);
	free(d);
}

/* What d still has ahead is not needed. */
static void node_drop_ahead(struct walk *w, struct node *d)
{
	struct node *c;

	if (d->next)
		batch_wait(w, d->next);
	while ((c = d->first) != NULL) {
		d->first = c->sibling;
		lock(w);
		if (c->state == NODE_QUEUED)
			queue_remove(w, c);
		while (c->state == NODE_LISTING)
			if (!w->batches || !work_once(&w->self))
				consumer_wait(w);
		if (c->state == NODE_READY)
			node_claim(w, c);
		unlock(w);
		node_free(w, c);
	}
	d->last = NULL;
	d->n_ahead = 0;
}

/* Lock held: gives up the descriptor; what is queued below waits until the consumer is back. */
static void frame_close(struct walk *w, struct node *d)
{
	for (struct node *c = d->first; c; c = c->sibling)
		if (c->state == NODE_QUEUED)
			queue_remove(w, c);
	close_fd(&d->fd);
	w->stack_fds--;
}

static void frames_evict(struct walk *w)
{
	lock(w);
	while (w->low < w->depth && w->stack[w->low]->fd < 0)
		w->low++;
	for (size_t i = w->low; i + 2 < w->depth && w->stack_fds > STACK_FDS; i++)
		if (w->stack[i]->fd >= 0 && w->stack[i]->busy == 0)
			frame_close(w, w->stack[i]);
	unlock(w);
}

/* Descriptors ran out: gives up all that can be had again. The top frame's is in use. */
static void shed_fds(struct walk *w)
{
	lock(w);
	for (size_t i = 0; i < w->depth; i++) {
		struct node *d = w->stack[i];

		if (i + 1 < w->depth && d->fd >= 0 && d->busy == 0)
			frame_close(w, d);
		for (struct node *c = d->first; c; c = c->sibling)
			if (c->ahead_fd) {
				close_fd(&c->fd);
				c->ahead_fd = false;
				w->ahead_fds--;
			}
	}
	unlock(w);
}

static void frame_opened(struct walk *w, size_t i, int fd)
{
	lock(w);
	w->stack[i]->fd = fd;
	w->stack_fds++;
	if (i < w->low)
		w->low = i;
	unlock(w);
	frames_evict(w);
}

static int frame_find(struct walk *w, size_t i, int *sys)
{
	struct hand *h = &w->self;
	size_t from = i;
	int fd;

	if (i + 1 < w->depth && w->stack[i + 1]->fd >= 0) {
		fd = open_same(h, w->stack[i + 1]->fd, "..", &w->stack[i]->st, sys);
		if (fd >= 0) {
			frame_opened(w, i, fd);
			return 0;
		}
	}
	while (from > 0 && w->stack[from - 1]->fd < 0)
		from--;
	for (; from <= i; from++) {
		struct node *d = w->stack[from];

		if (from == 0)
			fd = open_same(h, w->roots[w->root - 1].fd, ".", &d->st, sys);
		else
			fd = open_same(h, w->stack[from - 1]->fd, d->name, &d->st, sys);
		if (fd < 0)
			return -1;
		frame_opened(w, from, fd);
	}
	return 0;
}

/* Makes sure that stack[i] is open: from its child, or down from the nearest frame that is. -1 and *sys. */
static int frame_reopen(struct walk *w, size_t i, int *sys)
{
	if (w->stack[i]->fd >= 0 || frame_find(w, i, sys) == 0)
		return 0;
	if (!is_out_of_fds(*sys))
		return -1;
	shed_fds(w);
	return frame_find(w, i, sys);
}

static void frame_push(struct walk *w, struct node *d)
{
	if (w->depth == w->cap) {
		w->cap = w->cap ? 2 * w->cap : 64;
		w->stack = xrealloc(w->stack, w->cap * sizeof *w->stack);
	}
	w->stack[w->depth++] = d;
	d->path_len = w->path.len;
	if (d->fd >= 0) {
		w->stack_fds++;
		frames_evict(w);
	}
}

static void set_path(struct walk *w, const struct node *dir, const char *name, size_t len)
{
	w->path.len = dir->path_len;
	path_push(&w->path, span_of(name, len));
}

static void say(struct walk *w, const char *kind, const char *what, int sys)
{
	char name[512];

	if (w->o.warn)
		warn_say(w->o.warn, kind, "%s '%s': %s", what,
			esc_cut(name, sizeof name, w->path.len ? span_of(w->path.p, w->path.len) : span_cstr(".")),
			sys == ESTALE ? "something else has its name now" : strerror(sys));
}

/* What is wrong with the directory whose path is set. */
static void say_dir(struct walk *w, struct node *d, int sys)
{
	bool is_changed = sys == ENOENT || sys == ENOTDIR || sys == ELOOP || sys == ESTALE;

	d->unreadable = true;
	say(w, is_changed ? "vanished" : "unreadable", "cannot read directory", sys);
}

static bool is_accepted(struct walk *w, const struct node *dir, struct entry *s)
{
	if (s->verdict == NOT_ASKED) {
		s->verdict = ACCEPTED;
		if (w->o.accept) {
			set_path(w, dir, dir->cur->text + s->name_at, s->name_len);
			if (!w->o.accept(w->o.ctx, span_of(w->path.p, w->path.len), s->type))
				s->verdict = REFUSED;
		}
	}
	return s->verdict == ACCEPTED;
}

static struct node *node_new(struct node *parent, const char *name, const struct entry *st)
{
	struct node *d = xalloc(sizeof *d);

	d->parent = parent;
	d->depth = parent ? parent->depth + 1 : 0;
	d->name = xstrdup(name);
	d->st = *st;
	d->fd = -1;
	return d;
}

static bool is_mount(const struct walk *w, const struct entry *s)
{
	return w->o.one_file_system && s->dev != w->root_dev;
}

/* Puts the next sub-directories of the top frame into the queue. */
static void look_ahead(struct walk *w, struct node *d)
{
	struct node *fresh = NULL;

	if (w->n_hands == 0)
		return;
	if (d->n_ahead <= AHEAD_DIRS / 2)
		for (; d->scan < d->cur->n && d->n_ahead < AHEAD_DIRS; d->scan++) {
			struct entry *s = &d->cur->entries[d->scan];
			struct node *c;

			if (s->state != ENTRY_OK || s->type != OBJ_DIR || is_mount(w, s) || !is_accepted(w, d, s))
				continue;
			c = node_new(d, d->cur->text + s->name_at, s);
			c->entry = d->scan;
			*(d->last ? &d->last->sibling : &d->first) = c;
			d->last = c;
			d->n_ahead++;
			if (!fresh)
				fresh = c;
		}
	/* the consumer comes to this one right now: handing it over would cost more than listing it */
	if (fresh && fresh->entry == d->at)
		fresh = fresh->sibling;
	if (!fresh)
		return;
	lock(w);
	for (; fresh; fresh = fresh->sibling)
		queue_insert(w, fresh);
	wake_workers(w);
	unlock(w);
}

/* The frame is open again: so is the queue for what lies below it. */
static void look_again(struct walk *w, struct node *d)
{
	lock(w);
	for (struct node *c = d->first; c; c = c->sibling)
		if (c->state == NODE_IDLE)
			queue_insert(w, c);
	wake_workers(w);
	unlock(w);
}

static int fatal(struct walk *w, int sys, struct err *e)
{
	errno = sys;
	if (is_out_of_fds(sys))
		return err_sys(e, "cannot open a directory");
	return err_sys(e, "cannot use a temporary file in '%s'", w->tmpdir);
}

/* The next part of a directory that lies in the temporary file becomes d->cur (NULL at its end), and the one after
 * it is begun. */
static int next_batch(struct walk *w, struct node *d, struct err *e)
{
	batch_free(w, &d->cur);
	d->at = d->scan = 0;
	for (int i = 0; i < 2; i++) {
		if (!d->next) {
			int sys = merge_next(&w->self, d, &d->next);

			if (sys)
				return fatal(w, sys, e);
			if (d->next) {
				lock(w);
				batch_publish(w, d->next);
				unlock(w);
			}
		}
		if (i == 0) {
			d->cur = d->next;
			d->next = NULL;
		}
	}
	if (d->cur)
		batch_wait(w, d->cur);
	return 0;
}

static void report(struct walk *w, struct walk_entry *en, enum walk_event event, const struct entry *st, size_t name_len)
{
	entry_unpack(&w->attr, st);
	*en = (struct walk_entry){
		.event = event,
		.path = span_of(w->path.p, w->path.len),
		.name = span_of(w->path.p + (w->path.len - name_len), name_len),
		.root = (unsigned)(w->root - 1),
		.attr = &w->attr,
		.dirfd = -1,
	};
}

static void report_dir(struct walk *w, struct walk_entry *en, struct node *d, enum walk_event event)
{
	const char *name = d->parent ? d->name : w->roots[w->root - 1].name;

	w->path.len = d->path_len;
	report(w, en, event, &d->st, strlen(name));
	en->depth = d->depth;
	en->is_mount = d->is_mount;
	en->unreadable = d->unreadable;
	en->dirfd = event == WALK_DIR && d->parent ? d->parent->fd : d->fd;
}

/* d is READY and its path set: 1 when it is to be reported, 0 when it is gone. */
static int dir_arrived(struct walk *w, struct node *d, struct err *e)
{
	int sys = d->open_sys;

	if (d->fatal_sys || is_out_of_fds(sys))
		return fatal(w, d->fatal_sys ? d->fatal_sys : sys, e);
	if (sys == ENOENT) {
		say(w, "vanished", "left out", sys);
		return 0;
	}
	if (sys || d->list_sys)
		say_dir(w, d, sys ? sys : d->list_sys);
	if (d->cur && d->cur->failed)
		d->unreadable = true;
	return 1;
}

static int begin_root(struct walk *w, struct walk_entry *en, struct err *e)
{
	const struct walk_root *r = &w->roots[w->root++];
	struct entry st = {0};
	struct node *d;
	int got, sys = 0;

	w->path.len = 0;
	buf_str(&w->path, r->name);
	if (attr_stat(&w->self.attr, r->fd, NULL, e) < 0)
		return -1;
	entry_pack(&st, &w->self.attr);
	w->root_dev = st.dev;
	d = node_new(NULL, r->name, &st);
	/* its own description: the caller's read position is not ours to move */
	d->fd = open_same(&w->self, r->fd, ".", &st, &sys);
	if (d->fd >= 0) {
		node_wait(w, d);
	} else {
		d->open_sys = sys == ENOENT ? ESTALE : sys; /* a root is never left out */
		d->state = NODE_READY;
	}
	if (d->open_sys == ENOENT)
		d->open_sys = ESTALE;
	got = dir_arrived(w, d, e);
	frame_push(w, d);
	if (got < 0)
		return -1;
	report_dir(w, en, d, WALK_DIR);
	return 0;
}

/* A sub-directory's turn: 1 reported, 0 gone. */
static int begin_dir(struct walk *w, struct node *top, size_t i, struct walk_entry *en, struct err *e)
{
	const struct entry *s = &top->cur->entries[i];
	struct node *d = top->first;
	int got;

	if (d && d->entry == i) {
		top->first = d->sibling;
		if (!top->first)
			top->last = NULL;
		top->n_ahead--;
	} else {
		d = node_new(top, top->cur->text + s->name_at, s);
	}
	d->is_mount = is_mount(w, s);
	if (d->is_mount)
		d->state = NODE_READY;
	else
		node_wait(w, d);
	set_path(w, top, top->cur->text + s->name_at, s->name_len);
	got = dir_arrived(w, d, e);
	if (got <= 0) {
		node_free(w, d);
		return got;
	}
	frame_push(w, d);
	report_dir(w, en, d, WALK_DIR);
	return 1;
}

static void leave(struct walk *w, struct walk_entry *en, struct node *top)
{
	int sys = 0;

	node_drop_ahead(w, top);
	batch_free(w, &top->cur);
	batch_free(w, &top->next);
	spill_free(w, &top->spill);
	if (!top->is_mount && !top->open_sys && frame_reopen(w, w->depth - 1, &sys) < 0 && !top->unreadable) {
		w->path.len = top->path_len;
		say_dir(w, top, sys);
	}
	top->phase = PHASE_LEFT;
	report_dir(w, en, top, WALK_LEAVE);
}

static int enter(struct walk *w, struct node *top, struct err *e)
{
	int sys = 0;

	top->phase = PHASE_INSIDE;
	if (top->skip || top->is_mount || top->open_sys)
		return 0;
	if (frame_reopen(w, w->depth - 1, &sys) < 0) {
		if (is_out_of_fds(sys))
			return fatal(w, sys, e);
		w->path.len = top->path_len;
		say_dir(w, top, sys);
		top->skip = true;
		return 0;
	}
	if (top->spill && next_batch(w, top, e) < 0)
		return -1;
	return 0;
}

/* The frame was left: back to the one below, whose descriptor comes through this one's "..". */
static int pop(struct walk *w, struct err *e)
{
	struct node *d = w->stack[w->depth - 1], *up = d->parent;
	int sys = 0;

	if (up && up->fd < 0 && !up->skip) {
		if (frame_reopen(w, w->depth - 2, &sys) == 0) {
			look_again(w, up);
		} else if (is_out_of_fds(sys)) {
			return fatal(w, sys, e);
		} else {
			w->path.len = up->path_len;
			say_dir(w, up, sys);
			up->skip = true;
		}
	}
	w->depth--;
	if (d->fd >= 0)
		w->stack_fds--;
	if (w->low > w->depth)
		w->low = w->depth;
	node_free(w, d);
	return 0;
}

/* One step inside the top frame: 1 an event, 0 go on. */
static int inside(struct walk *w, struct node *top, struct walk_entry *en, struct err *e)
{
	struct entry *s;
	size_t i;

	if (top->cur && top->at == top->cur->n && top->next) {
		if (next_batch(w, top, e) < 0)
			return -1;
	}
	if (top->skip || !top->cur || top->at == top->cur->n) {
		leave(w, en, top);
		return 1;
	}
	look_ahead(w, top);
	i = top->at++;
	s = &top->cur->entries[i];
	if (s->state == ENTRY_OK && !is_accepted(w, top, s))
		return 0;
	set_path(w, top, top->cur->text + s->name_at, s->name_len);
	if (s->state == ENTRY_GONE) {
		say(w, "vanished", "left out", ENOENT);
		return 0;
	}
	if (s->state == ENTRY_FAILED) {
		top->unreadable = true;
		say(w, "unreadable", "cannot stat", s->sys);
		return 0;
	}
	if (s->type == OBJ_DIR)
		return begin_dir(w, top, i, en, e);
	report(w, en, WALK_ENTRY, s, s->name_len);
	en->depth = top->depth + 1;
	en->dirfd = top->fd;
	return 1;
}

int walk_next(struct walk *w, struct walk_entry *en, struct err *e)
{
	for (;;) {
		struct node *top;
		int got = 0;

		if (w->depth == 0) {
			if (w->root < w->n_roots)
				return begin_root(w, en, e);
			*en = (struct walk_entry){.event = WALK_END, .dirfd = -1};
			return 0;
		}
		top = w->stack[w->depth - 1];
		switch (top->phase) {
		case PHASE_ENTER:
			got = enter(w, top, e);
			break;
		case PHASE_INSIDE:
			got = inside(w, top, en, e);
			break;
		case PHASE_LEFT:
			got = pop(w, e);
			break;
		}
		if (got)
			return got < 0 ? -1 : 0;
	}
}

void walk_skip(struct walk *w)
{
	if (w->depth && w->stack[w->depth - 1]->phase == PHASE_ENTER)
		w->stack[w->depth - 1]->skip = true;
}

static void hand_init(struct hand *h, struct walk *w)
{
	h->w = w;
	h->dents = xalloc(DENTS_LEN);
}

static void hand_free(struct hand *h)
{
	attr_free(&h->attr);
	buf_free(&h->names.text);
	free(h->names.keys);
	free(h->dents);
}

static void start_threads(struct walk *w)
{
	size_t want = w->o.threads;
	sigset_t all, old;

	if (want == 0) {
		cpu_set_t cpus;

		want = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (size_t)CPU_COUNT(&cpus) : 2;
	}
	if (want < 2)
		return;
	if (want > MAX_THREADS)
		want = MAX_THREADS;
	w->hands = xalloc(want * sizeof *w->hands);
	sigfillset(&all); /* signals are the program's own threads' */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	lock(w); /* n_hands is read by those that already run */
	for (size_t i = 0; i < want; i++) {
		hand_init(&w->hands[i], w);
		if (pthread_create(&w->hands[i].thread, NULL, worker, &w->hands[i]) != 0) {
			hand_free(&w->hands[i]);
			break; /* fewer will do, and none as well */
		}
		w->n_hands++;
	}
	unlock(w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

int walk_open(struct walk **out, const struct walk_root *roots, size_t n, const struct walk_options *o, struct err *e)
{
	struct walk *w = xalloc(sizeof *w);

	w->o = o ? *o : (struct walk_options){0};
	w->spill_fd = -1;
	if (pthread_mutex_init(&w->lock, NULL) || pthread_cond_init(&w->work, NULL)
		|| pthread_cond_init(&w->done, NULL)) {
		free(w);
		return err_set(e, ERR_SYSTEM, "cannot make a lock");
	}
	w->tmpdir = xstrdup(w->o.tmpdir ? w->o.tmpdir : "/tmp");
	w->n_roots = n;
	w->roots = n ? xdup(roots, n * sizeof *roots) : NULL;
	buf_reserve(&w->path, 256); /* never NULL, not even while the path is empty */
	hand_init(&w->self, w);
	start_threads(w);
	*out = w;
	return 0;
}

void walk_close(struct walk **wp)
{
	struct walk *w = *wp;

	*wp = NULL;
	if (!w)
		return;
	lock(w);
	atomic_store(&w->stop, true);
	pthread_cond_broadcast(&w->work);
	unlock(w);
	for (size_t i = 0; i < w->n_hands; i++)
		pthread_join(w->hands[i].thread, NULL);
	for (size_t i = 0; i < w->n_hands; i++)
		hand_free(&w->hands[i]);
	while (w->depth) {
		struct node *d = w->stack[--w->depth];

		for (struct node *c; (c = d->first) != NULL;) {
			d->first = c->sibling;
			node_free(w, c);
		}
		node_free(w, d);
	}
	close_fd(&w->spill_fd);
	pthread_mutex_destroy(&w->lock);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->done);
	hand_free(&w->self);
	attr_free(&w->attr);
	buf_free(&w->path);
	free(w->hands);
	free(w->stack);
	free(w->roots);
	free(w->tmpdir);
	free(w);
}
