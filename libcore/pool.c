#include "pool.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

unsigned pool_threads(unsigned n)
{
	cpu_set_t cpus;

	if (!n)
		n = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (unsigned)CPU_COUNT(&cpus) : 2;
	return n < 1 ? 1 : n > POOL_THREADS_MAX ? POOL_THREADS_MAX : n;
}

struct pool_worker {
	struct pool *pool;
	unsigned number;
	pthread_t tid;
};
struct pool {
	pthread_mutex_t lock;
	pthread_cond_t room, todo, done;
	struct pool_job *jobs; /* a ring: number i stands at i % n_jobs */
	unsigned n_jobs, n_workers;
	struct pool_worker *workers;
	uint64_t filled, begun, taken;
	bool is_stopped, is_ended;
	pool_work work;
	void *ctx;
};

int pool_thread(pthread_t *tid, void *(*run)(void *), void *arg, struct err *e)
{
	/* A broken pipe is reported to the thread that wrote, and must end the program as it would elsewhere. */
	static const int own[] = {SIGPIPE, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
	sigset_t block, before;

	sigfillset(&block);
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
		sigdelset(&block, own[i]);
	pthread_sigmask(SIG_SETMASK, &block, &before);
	int rc = pthread_create(tid, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc) {
		errno = rc;
		return err_sys(e, "cannot start a thread");
	}
	return 0;
}

void pool_join(pthread_t tid) { pthread_join(tid, NULL); }

static void *work_main(void *arg)
{
	struct pool_worker *w = arg;
	struct pool *p = w->pool;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		while (!p->is_stopped && !p->is_ended && p->begun == p->filled)
			pthread_cond_wait(&p->todo, &p->lock);
		if (p->is_stopped || p->begun == p->filled)
			break;
		struct pool_job *job = &p->jobs[p->begun++ % p->n_jobs];
		pthread_mutex_unlock(&p->lock);
		if (!job->is_ready)
			p->work(p->ctx, w->number, job);
		pthread_mutex_lock(&p->lock);
		job->is_done = true;
		pthread_cond_signal(&p->done);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int pool_open(struct pool **out, unsigned n_threads, unsigned n_jobs, pool_work work, void *ctx,
	struct err *e)
{
	struct pool *p = xalloc(sizeof *p);
	struct err why = {0};

	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->room, NULL);
	pthread_cond_init(&p->todo, NULL);
	pthread_cond_init(&p->done, NULL);
	p->n_jobs = n_jobs;
	p->jobs = xalloc(n_jobs * sizeof *p->jobs);
	p->workers = xalloc(n_threads * sizeof *p->workers);
	p->work = work;
	p->ctx = ctx;
	for (unsigned i = 0; i < n_threads; i++) {
		p->workers[i].pool = p;
		p->workers[i].number = i;
		/* Fewer threads than asked for do the same work. */
		if (pool_thread(&p->workers[i].tid, work_main, &p->workers[i], &why))
			break;
		p->n_workers++;
	}
	if (!p->n_workers) {
		if (e->kind == ERR_NONE)
			*e = why;
		pool_close(&p);
		return -1;
	}
	*out = p;
	return 0;
}

struct pool_job *pool_fill(struct pool *p)
{
	struct pool_job *job = NULL;

	pthread_mutex_lock(&p->lock);
	while (!p->is_stopped && p->filled - p->taken == p->n_jobs)
		pthread_cond_wait(&p->room, &p->lock);
	if (!p->is_stopped) {
		job = &p->jobs[p->filled % p->n_jobs];
		*job = (struct pool_job){.in = job->in, .out = job->out};
		buf_reset(&job->in);
		buf_reset(&job->out);
	}
	pthread_mutex_unlock(&p->lock);
	return job;
}

void pool_filled(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->filled++;
	pthread_cond_signal(&p->todo);
	pthread_mutex_unlock(&p->lock);
}

void pool_end(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->is_ended = true;
	pthread_cond_broadcast(&p->todo);
	pthread_cond_broadcast(&p->done);
	pthread_mutex_unlock(&p->lock);
}

struct pool_job *pool_take(struct pool *p, bool *was_empty)
{
	struct pool_job *job = NULL;

	pthread_mutex_lock(&p->lock);
	if (was_empty)
		*was_empty = p->taken == p->filled;
	while (!p->is_stopped) {
		if (p->taken < p->filled) {
			job = &p->jobs[p->taken % p->n_jobs];
			if (job->is_done)
				break;
			job = NULL;
		} else if (p->is_ended) {
			break;
		}
		pthread_cond_wait(&p->done, &p->lock);
	}
	pthread_mutex_unlock(&p->lock);
	return job;
}

void pool_taken(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->taken++;
	pthread_cond_signal(&p->room);
	pthread_mutex_unlock(&p->lock);
}

void pool_stop(struct pool *p)
{
	pthread_mutex_lock(&p->lock);
	p->is_stopped = true;
	pthread_cond_broadcast(&p->room);
	pthread_cond_broadcast(&p->todo);
	pthread_cond_broadcast(&p->done);
	pthread_mutex_unlock(&p->lock);
}

void pool_close(struct pool **pp)
{
	struct pool *p = *pp;

	if (!p)
		return;
	pool_stop(p);
	for (unsigned i = 0; i < p->n_workers; i++)
		pool_join(p->workers[i].tid);
	for (unsigned i = 0; i < p->n_jobs; i++) {
		buf_free(&p->jobs[i].in);
		buf_free(&p->jobs[i].out);
	}
	free(p->jobs);
	free(p->workers);
	pthread_cond_destroy(&p->done);
	pthread_cond_destroy(&p->todo);
	pthread_cond_destroy(&p->room);
	pthread_mutex_destroy(&p->lock);
	free(p);
	*pp = NULL;
}
