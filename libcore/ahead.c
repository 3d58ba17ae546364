#include "ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "pool.h"

/*
 * Who does what. Every directory is a node; those that the caller expects wait in a queue. A worker, or the caller when
 * it would have to wait, takes a node from the queue, lists it, sorts the names and stats them in pieces that any worker
 * may take.
 *
 *   IDLE -> QUEUED -> LISTING -> READY        IDLE: the parent's descriptor was given up, or descriptors ran out
 *
 * What lies in a node is written by the one who lists it and read by the caller after READY; `lock` hands it over.
 */
enum {
	PIECE = 1024,              /* names statted in one go */
	BATCH = 8 * PIECE,         /* names taken at a time from a directory that lies in the temporary file */
	SPILL_AT = 128 * 1024,     /* names in memory before a directory goes there */
	SPILL_EARLY = BATCH,       /* the same while CROWDED */
	CROWDED = 512 * 1024,      /* entries in memory: directories as large as that one inside another */
	AHEAD_ENTRIES = 64 * 1024, /* entries listed that the caller has not come to: workers wait */
	AHEAD_DIRS = 64,           /* sub-directories of one directory in the queue */
	AHEAD_FDS = 40,            /* listed and kept open for the caller; others are opened again */
	MAX_THREADS = 16,
};

struct batch {
	struct listing pub; /* first: see batch_of */
	struct node *dir;
	size_t taken, left; /* taken: entries handed out; left: entries not yet statted */
	struct batch *next; /* in ahead.batches */
};

enum node_state { NODE_IDLE, NODE_QUEUED, NODE_LISTING, NODE_READY };

struct node {
	struct ahead_dir pub; /* first: see node_of; fd: under lock */
	/* under lock */
	enum node_state state;
	unsigned busy; /* users of fd outside the lock */
	bool wanted;   /* the caller waits for it */
	bool ahead_fd; /* fd is counted in ahead.n_fds */
	size_t charge; /* its part of ahead.n_entries */
	struct node *q_next, *q_prev, *q_last; /* q_last: its own last child in the queue */
	/* results */
	struct listing *next; /* behind pub.cur */
	struct spill *spill;
	/* the caller's */
	size_t entry;                        /* its index in the parent's batch */
	struct node *first, *last, *sibling; /* sub-directories ahead, in order */
	size_t n_ahead;
};

struct hand { /* one per thread */
	struct ahead *a;
	struct listing_tools tools;
	pthread_t thread;
};

struct ahead {
	struct ahead_options o;
	struct hand self, *hands; /* self: the caller's */
	size_t n_hands;
	atomic_bool stop;
	struct spill_file *spill;

	pthread_mutex_t lock;
	pthread_cond_t work, done;
	size_t idle;
	bool waiting;
	struct node *queue, *queue_end;
	struct batch *batches;
	size_t n_entries, n_fds; /* that the caller has not come to */
	size_t live;             /* entries in memory */
};

static struct node *node_of(struct ahead_dir *d) { return (struct node *)d; }
static struct batch *batch_of(struct listing *b) { return (struct batch *)b; }
static struct node *parent_of(struct node *d) { return node_of(d->pub.parent); }

static void lock(struct ahead *a) { pthread_mutex_lock(&a->lock); }
static void unlock(struct ahead *a) { pthread_mutex_unlock(&a->lock); }

static void wake_workers(struct ahead *a)
{
	if (a->idle)
		pthread_cond_broadcast(&a->work);
}

static void wake_caller(struct ahead *a)
{
	if (a->waiting)
		pthread_cond_signal(&a->done);
}

bool ahead_is_out_of_fds(int sys) { return sys == EMFILE || sys == ENFILE; }

/* Entries and batches */

static struct listing *batch_new(struct ahead *a, struct node *d, const struct sorted *m)
{
	struct batch *b = xalloc(sizeof *b);

	b->dir = d;
	listing_fill(&b->pub, m);
	b->left = b->pub.n;
	lock(a);
	a->live += b->pub.n;
	unlock(a);
	return &b->pub;
}

static void batch_free(struct ahead *a, struct listing **bp)
{
	struct listing *b = *bp;

	*bp = NULL;
	if (!b)
		return;
	lock(a);
	a->live -= b->n;
	unlock(a);
	listing_free(b);
	free(batch_of(b));
}

static struct node *node_new(struct node *parent, const char *name, const struct listing_entry *st)
{
	struct node *d = xalloc(sizeof *d);

	d->pub.parent = parent ? &parent->pub : NULL;
	d->pub.name = xstrdup(name);
	d->pub.st = *st;
	d->pub.fd = -1;
	return d;
}

/* Listing: by workers and by the caller */

/* Lock held: the node can be read now. */
static void node_ready(struct ahead *a, struct node *d)
{
	if (d->pub.parent)
		parent_of(d)->busy--;
	d->charge = d->spill ? spill_count(d->spill) : d->pub.cur ? d->pub.cur->n : 0;
	a->n_entries += d->charge;
	d->state = NODE_READY;
	if (d->pub.fd >= 0 && !d->wanted) {
		if (a->n_fds < AHEAD_FDS) {
			a->n_fds++;
			d->ahead_fd = true;
		} else {
			close_fd(&d->pub.fd);
		}
	}
	wake_caller(a);
}

/* Lock held: hands the batch out in pieces; its directory stays open until the last is done. */
static void batch_publish(struct ahead *a, struct batch *b)
{
	b->dir->busy++;
	b->next = a->batches;
	a->batches = b;
	wake_workers(a);
}

/* Lock held; released while statting. Does one piece of b, which has some. */
static void batch_work(struct hand *h, struct batch *b)
{
	struct ahead *a = h->a;
	size_t from = b->taken, n = b->pub.n - from < PIECE ? b->pub.n - from : PIECE;
	int fd = b->dir->pub.fd;
	bool failed;

	b->taken += n;
	if (b->taken == b->pub.n) {
		struct batch **p = &a->batches;

		while (*p != b)
			p = &(*p)->next;
		*p = b->next;
	}
	unlock(a);
	failed = listing_stat(&h->tools, &b->pub, fd, from, from + n);
	lock(a);
	b->pub.failed |= failed;
	b->left -= n;
	if (b->left)
		return;
	b->dir->busy--;
	if (b->dir->state == NODE_LISTING)
		node_ready(a, b->dir);
	else
		wake_caller(a);
}

static int node_open(struct hand *h, struct node *d)
{
	struct ahead *a = h->a;
	int at = d->pub.parent ? d->pub.parent->fd : -1; /* busy, so it stays */
	int fd = listing_open(&h->tools, at, d->pub.name, &d->pub.st, &d->pub.open_sys);

	if (fd < 0 && h == &a->self && ahead_is_out_of_fds(d->pub.open_sys)) {
		a->o.shed(a->o.ctx);
		fd = listing_open(&h->tools, at, d->pub.name, &d->pub.st, &d->pub.open_sys);
	}
	if (fd < 0)
		return -1;
	d->pub.open_sys = 0;
	d->pub.fd = fd;
	return 0;
}

/* All names of d into the hand's tools, or into the temporary file when they are many. */
static void node_names(struct hand *h, struct node *d)
{
	struct ahead *a = h->a;
	struct listing_job j = {.fd = d->pub.fd, .is_root = !d->pub.parent, .file = a->spill,
		.limit = a->o.spill_at ? a->o.spill_at : SPILL_AT};
	enum listing_end end;

	lock(a);
	if (a->live > CROWDED && j.limit > SPILL_EARLY)
		j.limit = SPILL_EARLY;
	unlock(a);
	end = listing_names(&h->tools, &j);
	d->spill = j.spill;
	d->pub.is_large = j.spill != NULL;
	switch (end) {
	case LISTING_COMPLETE:
		break;
	case LISTING_PARTIAL:
		d->pub.list_sys = j.sys;
		break;
	case LISTING_REMOVED:
		d->pub.open_sys = j.sys;
		break;
	case LISTING_NO_FILE:
		d->pub.fatal_sys = j.sys;
		break;
	}
}

/* d is LISTING and its parent busy. */
static void node_list(struct hand *h, struct node *d)
{
	struct ahead *a = h->a;

	if (d->pub.fd < 0 && node_open(h, d) < 0) {
		lock(a);
		node_ready(a, d);
		if (ahead_is_out_of_fds(d->pub.open_sys) && (h != &a->self || !d->wanted)) {
			d->state = NODE_IDLE; /* the caller tries again when it comes here */
			d->pub.open_sys = 0;
		}
		unlock(a);
		return;
	}
	node_names(h, d);
	if (!d->spill && !d->pub.fatal_sys && d->pub.open_sys == 0) {
		sorted_sort(&h->tools.names);
		d->pub.cur = batch_new(a, d, &h->tools.names);
	}
	sorted_shrink(&h->tools.names);
	if (d->pub.cur && (d->pub.cur->n <= PIECE || a->n_hands == 0)) {
		struct batch *b = batch_of(d->pub.cur);

		b->pub.failed = listing_stat(&h->tools, &b->pub, d->pub.fd, 0, b->pub.n);
		b->taken = b->pub.n;
		b->left = 0;
	}
	lock(a);
	if (d->pub.cur && batch_of(d->pub.cur)->left) {
		struct batch *b = batch_of(d->pub.cur);

		batch_publish(a, b);
		while (d->state == NODE_LISTING && b->taken < b->pub.n)
			batch_work(h, b);
	} else {
		node_ready(a, d);
	}
	unlock(a);
}

/* Lock held. */
static void queue_remove(struct ahead *a, struct node *d)
{
	struct node *p = parent_of(d);

	if (p->q_last == d)
		p->q_last = d->q_prev && parent_of(d->q_prev) == p ? d->q_prev : NULL;
	*(d->q_prev ? &d->q_prev->q_next : &a->queue) = d->q_next;
	*(d->q_next ? &d->q_next->q_prev : &a->queue_end) = d->q_prev;
	d->q_next = d->q_prev = NULL;
	d->state = NODE_IDLE;
}

/* Lock held; d's parent is what the caller is inside of: behind its siblings, before everything else. */
static void queue_insert(struct ahead *a, struct node *d)
{
	struct node *p = parent_of(d);

	d->q_prev = p->q_last;
	d->q_next = d->q_prev ? d->q_prev->q_next : a->queue;
	*(d->q_prev ? &d->q_prev->q_next : &a->queue) = d;
	*(d->q_next ? &d->q_next->q_prev : &a->queue_end) = d;
	p->q_last = d;
	d->state = NODE_QUEUED;
}

/* Lock held; released while working. */
static void begin_list(struct hand *h, struct node *d)
{
	if (d->state == NODE_QUEUED)
		queue_remove(h->a, d);
	d->state = NODE_LISTING;
	if (d->pub.parent)
		parent_of(d)->busy++;
	unlock(h->a);
	node_list(h, d);
	lock(h->a);
}

/* Lock held; false when there is nothing to do. */
static bool work_once(struct hand *h)
{
	struct ahead *a = h->a;

	if (a->batches)
		batch_work(h, a->batches);
	else if (a->queue && a->n_entries < AHEAD_ENTRIES)
		begin_list(h, a->queue);
	else
		return false;
	return true;
}

static void *worker(void *arg)
{
	struct hand *h = arg;
	struct ahead *a = h->a;

	lock(a);
	while (!atomic_load_explicit(&a->stop, memory_order_relaxed)) {
		if (work_once(h))
			continue;
		a->idle++;
		pthread_cond_wait(&a->work, &a->lock);
		a->idle--;
	}
	unlock(a);
	return NULL;
}

/* The caller's side */

static void caller_wait(struct ahead *a)
{
	a->waiting = true;
	pthread_cond_wait(&a->done, &a->lock);
	a->waiting = false;
}

/* Lock held: takes a READY node out of what is ahead. */
static void node_claim(struct ahead *a, struct node *d)
{
	a->n_entries -= d->charge;
	d->charge = 0;
	if (d->ahead_fd)
		a->n_fds--;
	d->ahead_fd = false;
	if (a->queue)
		wake_workers(a);
}

void ahead_wait(struct ahead *a, struct ahead_dir *dir)
{
	struct node *d = node_of(dir);

	lock(a);
	d->wanted = true;
	while (d->state != NODE_READY) {
		if (d->state != NODE_LISTING)
			begin_list(&a->self, d);
		else if (!work_once(&a->self))
			caller_wait(a);
	}
	node_claim(a, d);
	unlock(a);
}

static void batch_wait(struct ahead *a, struct batch *b)
{
	lock(a);
	while (b->left) {
		if (b->taken < b->pub.n)
			batch_work(&a->self, b);
		else
			caller_wait(a);
	}
	unlock(a);
}

int ahead_next(struct ahead *a, struct ahead_dir *dir)
{
	struct node *d = node_of(dir);
	struct sorted *m = &a->self.tools.names;

	batch_free(a, &dir->cur);
	for (int i = 0; i < 2; i++) {
		if (!d->next) {
			int sys = spill_next(d->spill, m, BATCH);

			if (sys)
				return sys;
			if (m->n) {
				d->next = batch_new(a, d, m);
				lock(a);
				batch_publish(a, batch_of(d->next));
				unlock(a);
			}
			sorted_shrink(m);
		}
		if (i == 0) {
			dir->cur = d->next;
			d->next = NULL;
		}
	}
	if (dir->cur)
		batch_wait(a, batch_of(dir->cur));
	return 0;
}

/* What d still has ahead is not needed. */
static void drop_ahead(struct ahead *a, struct node *d)
{
	struct node *c;

	if (d->next)
		batch_wait(a, batch_of(d->next));
	while ((c = d->first) != NULL) {
		struct ahead_dir *gone = &c->pub;

		d->first = c->sibling;
		lock(a);
		if (c->state == NODE_QUEUED)
			queue_remove(a, c);
		while (c->state == NODE_LISTING)
			if (!a->batches || !work_once(&a->self))
				caller_wait(a);
		if (c->state == NODE_READY)
			node_claim(a, c);
		unlock(a);
		ahead_free(a, &gone);
	}
	d->last = NULL;
	d->n_ahead = 0;
}

void ahead_done(struct ahead *a, struct ahead_dir *dir)
{
	struct node *d = node_of(dir);

	drop_ahead(a, d);
	batch_free(a, &dir->cur);
	batch_free(a, &d->next);
	spill_free(&d->spill);
}

struct ahead_dir *ahead_root(const struct attr *a)
{
	struct listing_entry st = {0};

	listing_pack(&st, a);
	return &node_new(NULL, "", &st)->pub;
}

static struct node *child_new(struct ahead_dir *dir, size_t i)
{
	const struct listing_entry *s = &dir->cur->entries[i];
	struct node *c = node_new(node_of(dir), dir->cur->text + s->name_at, s);

	c->entry = i;
	return c;
}

struct ahead_dir *ahead_take(struct ahead_dir *dir, size_t i)
{
	struct node *d = node_of(dir), *c = d->first;

	if (!c || c->entry != i)
		return &child_new(dir, i)->pub;
	d->first = c->sibling;
	if (!d->first)
		d->last = NULL;
	d->n_ahead--;
	return &c->pub;
}

void ahead_free(struct ahead *a, struct ahead_dir **dp)
{
	struct node *d = node_of(*dp);

	*dp = NULL;
	if (!d)
		return;
	for (struct node *c; (c = d->first) != NULL;) {
		struct ahead_dir *child = &c->pub;

		d->first = c->sibling;
		ahead_free(a, &child);
	}
	close_fd(&d->pub.fd);
	batch_free(a, &d->pub.cur);
	batch_free(a, &d->next);
	spill_free(&d->spill);
	free(d->pub.name);
	free(d);
}

size_t ahead_room(const struct ahead *a, const struct ahead_dir *dir)
{
	const struct node *d = (const struct node *)dir;

	if (a->n_hands == 0 || d->n_ahead > AHEAD_DIRS / 2)
		return 0;
	return AHEAD_DIRS - d->n_ahead;
}

struct ahead_dir *ahead_expect(struct ahead_dir *dir, size_t i)
{
	struct node *d = node_of(dir), *c = child_new(dir, i);

	*(d->last ? &d->last->sibling : &d->first) = c;
	d->last = c;
	d->n_ahead++;
	return &c->pub;
}

void ahead_queue(struct ahead *a, struct ahead_dir *first)
{
	if (!first)
		return;
	lock(a);
	for (struct node *c = node_of(first); c; c = c->sibling)
		queue_insert(a, c);
	wake_workers(a);
	unlock(a);
}

void ahead_queue_again(struct ahead *a, struct ahead_dir *dir)
{
	lock(a);
	for (struct node *c = node_of(dir)->first; c; c = c->sibling)
		if (c->state == NODE_IDLE)
			queue_insert(a, c);
	wake_workers(a);
	unlock(a);
}

int ahead_dir_open(struct ahead *a, struct ahead_dir *dir, int at, const char *name, int *sys)
{
	int fd = listing_open(&a->self.tools, at, name, &dir->st, sys);

	if (fd < 0)
		return -1;
	lock(a);
	dir->fd = fd;
	unlock(a);
	return 0;
}

bool ahead_dir_shut(struct ahead *a, struct ahead_dir *dir)
{
	struct node *d = node_of(dir);
	bool can_close;

	lock(a);
	can_close = dir->fd >= 0 && d->busy == 0;
	if (can_close) {
		for (struct node *c = d->first; c; c = c->sibling)
			if (c->state == NODE_QUEUED)
				queue_remove(a, c);
		close_fd(&dir->fd);
	}
	unlock(a);
	return can_close;
}

void ahead_shed(struct ahead *a, struct ahead_dir *dir)
{
	lock(a);
	for (struct node *c = node_of(dir)->first; c; c = c->sibling)
		if (c->ahead_fd) {
			close_fd(&c->pub.fd);
			c->ahead_fd = false;
			a->n_fds--;
		}
	unlock(a);
}

/* Threads */

static void start_threads(struct ahead *a)
{
	size_t want = pool_threads(a->o.threads);
	struct err why = {0};

	if (want < 2)
		return;
	if (want > MAX_THREADS)
		want = MAX_THREADS;
	a->hands = xalloc(want * sizeof *a->hands);
	lock(a); /* n_hands is read by those that already run */
	for (size_t i = 0; i < want; i++) {
		a->hands[i].a = a;
		listing_tools_init(&a->hands[i].tools, &a->stop);
		if (pool_thread(&a->hands[i].thread, worker, &a->hands[i], &why)) {
			listing_tools_free(&a->hands[i].tools);
			break; /* fewer will do, and none as well */
		}
		a->n_hands++;
	}
	unlock(a);
}

int ahead_open(struct ahead **out, const struct ahead_options *o, struct err *e)
{
	struct ahead *a = xalloc(sizeof *a);

	a->o = *o;
	if (pthread_mutex_init(&a->lock, NULL) || pthread_cond_init(&a->work, NULL)
		|| pthread_cond_init(&a->done, NULL)) {
		free(a);
		return err_set(e, ERR_SYSTEM, "cannot make a lock");
	}
	a->spill = spill_open(o->tmpdir);
	a->self.a = a;
	listing_tools_init(&a->self.tools, &a->stop);
	start_threads(a);
	*out = a;
	return 0;
}

void ahead_stop(struct ahead *a)
{
	lock(a);
	atomic_store(&a->stop, true);
	pthread_cond_broadcast(&a->work);
	unlock(a);
	for (size_t i = 0; i < a->n_hands; i++)
		pool_join(a->hands[i].thread);
	for (size_t i = 0; i < a->n_hands; i++)
		listing_tools_free(&a->hands[i].tools);
	a->n_hands = 0;
}

void ahead_close(struct ahead **ap)
{
	struct ahead *a = *ap;

	*ap = NULL;
	if (!a)
		return;
	ahead_stop(a);
	spill_close(&a->spill);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->work);
	pthread_cond_destroy(&a->done);
	listing_tools_free(&a->self.tools);
	free(a->hands);
	free(a);
}
