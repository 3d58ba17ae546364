/*
 * pool: work for several threads whose results are wanted in the order in which it came.
 *
 * Jobs are filled by one thread, worked on by several, and taken by one thread in the order in which they were filled:
 *   fill: pool_fill, pool_filled, ..., pool_end      take: pool_take, pool_taken, ...
 * There are only so many jobs: who fills waits for who takes.
 *
 * May use: bytes, err, threads.
 */
#ifndef REPL_POOL_H
#define REPL_POOL_H

#include <pthread.h>

#include "bytes.h"
#include "err.h"

#define POOL_THREADS_MAX 256u

/* How many threads to use when asked for n; 0: one for each processor that we may run on. */
unsigned pool_threads(unsigned n);
/* pthread_create for a thread that leaves the signals of the terminal and of kill(1) to the main thread. */
int pool_thread(pthread_t *tid, void *(*run)(void *), void *arg, struct err *e);
void pool_join(pthread_t tid);

/* One unit of work. The buffers keep their memory from round to round. */
struct pool_job {
	struct buf in, out;
	void *what;         /* the caller's */
	uint64_t off;       /* of the chunk, for messages */
	uint32_t plain_len;
	int level;
	bool is_ready;      /* nothing to do for a worker: `out` or `err` is set */
	bool is_raw;        /* its content is in `in`; the codec says how */
	bool is_last;       /* a stream ends with it */
	struct err err;     /* what went wrong; reported when its turn comes */
	bool is_done;       /* private */
};
/* Runs on a worker thread; `worker` counts from 0. Failures go to job->err. */
typedef void (*pool_work)(void *ctx, unsigned worker, struct pool_job *job);
struct pool;
int pool_open(struct pool **p, unsigned n_threads, unsigned n_jobs, pool_work work, void *ctx,
	struct err *e);
/* An empty job, or NULL when the pool was stopped. Borrowed until pool_filled. */
struct pool_job *pool_fill(struct pool *p);
void pool_filled(struct pool *p);
void pool_end(struct pool *p); /* nothing more will be filled */
/* The next finished job, or NULL after the last or when the pool was stopped. Borrowed until pool_taken.
 * *was_empty (may be NULL): nothing was under way when we came. */
struct pool_job *pool_take(struct pool *p, bool *was_empty);
void pool_taken(struct pool *p);
/* Makes everybody who waits return; from any thread. */
void pool_stop(struct pool *p);
/* Stops, joins the workers, frees. The filling and the taking thread are gone by then. */
void pool_close(struct pool **p);

#endif
