#include "writeback.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bytes.h"
#include "pool.h"

struct writeback {
	pthread_t tid;
	pthread_mutex_t lock;
	pthread_cond_t change;
	/* the thread's while it is busy */
	int fds[2];
	int (*sync)(int fd);
	bool is_busy, is_ended;
};

static void *run(void *arg)
{
	struct writeback *w = arg;

	pthread_mutex_lock(&w->lock);
	for (;;) {
		while (!w->is_busy && !w->is_ended)
			pthread_cond_wait(&w->change, &w->lock);
		if (!w->is_busy)
			break;
		pthread_mutex_unlock(&w->lock);
		for (int i = 0; i < 2; i++) {
			if (w->fds[i] >= 0)
				w->sync(w->fds[i]);
			close_fd(&w->fds[i]);
		}
		pthread_mutex_lock(&w->lock);
		w->is_busy = false;
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

static struct writeback *begin(void)
{
	struct writeback *w = xalloc(sizeof *w);
	struct err ignored = {0};

	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->change, NULL);
	if (pool_thread(&w->tid, run, w, &ignored) == 0)
		return w;
	free(w);
	return NULL;
}

static int dup_of(int fd) { return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3); }

static bool go(struct writeback **wp, int a, int b, int (*sync)(int fd))
{
	if (!*wp && !(*wp = begin()))
		return false;
	struct writeback *w = *wp;
	pthread_mutex_lock(&w->lock);
	bool is_free = !w->is_busy;
	if (is_free) {
		w->fds[0] = dup_of(a);
		w->fds[1] = dup_of(b);
		w->sync = sync;
		w->is_busy = true;
		pthread_cond_signal(&w->change);
	}
	pthread_mutex_unlock(&w->lock);
	return is_free;
}

bool writeback_files(struct writeback **w, int a, int b) { return go(w, a, b, fdatasync); }

bool writeback_all(struct writeback **w, int fd) { return go(w, fd, -1, syncfs); }

void writeback_end(struct writeback **wp)
{
	struct writeback *w = *wp;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->is_ended = true;
	pthread_cond_signal(&w->change);
	pthread_mutex_unlock(&w->lock);
	pool_join(w->tid);
	pthread_cond_destroy(&w->change);
	pthread_mutex_destroy(&w->lock);
	free(w);
	*wp = NULL;
}
