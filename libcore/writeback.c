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
	int fds[WRITEBACK_FILES]; /* the thread's while it is busy */
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
		for (int i = 0; i < WRITEBACK_FILES; i++) {
			if (w->fds[i] >= 0)
				fdatasync(w->fds[i]);
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

bool writeback_go(struct writeback **wp, const int fds[WRITEBACK_FILES])
{
	if (!*wp && !(*wp = begin()))
		return false;
	struct writeback *w = *wp;
	pthread_mutex_lock(&w->lock);
	bool is_free = !w->is_busy;
	if (is_free) {
		for (int i = 0; i < WRITEBACK_FILES; i++)
			w->fds[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
		w->is_busy = true;
		pthread_cond_signal(&w->change);
	}
	pthread_mutex_unlock(&w->lock);
	return is_free;
}

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
