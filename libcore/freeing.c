#include "freeing.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bytes.h"
#include "pool.h"

#define WAITING_MAX 64u

struct freeing {
	pthread_t tid;
	pthread_mutex_t lock;
	pthread_cond_t change;
	int fds[WAITING_MAX]; /* a ring */
	unsigned first, n;
	bool is_ended;
};

static void *run(void *arg)
{
	struct freeing *f = arg;

	pthread_mutex_lock(&f->lock);
	for (;;) {
		while (!f->n && !f->is_ended)
			pthread_cond_wait(&f->change, &f->lock);
		if (!f->n)
			break;
		int fd = f->fds[f->first];
		f->first = (f->first + 1) % WAITING_MAX;
		f->n--;
		pthread_mutex_unlock(&f->lock);
		close(fd);
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

static struct freeing *begin(void)
{
	struct freeing *f = xalloc(sizeof *f);
	struct err ignored = {0};

	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->change, NULL);
	if (pool_thread(&f->tid, run, f, &ignored) == 0)
		return f;
	free(f);
	return NULL;
}

int freeing_hold(int dirfd, const char *name)
{
	struct statfs st;

	/* NFS keeps what is open when its name goes, under another name in the same directory (nfs_sillyrename, Linux 6.18). */
	if (fstatfs(dirfd, &st) || st.f_type == NFS_SUPER_MAGIC)
		return -1;
	return openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

void freeing_gone(struct freeing **fp, int fd)
{
	if (fd < 0)
		return;
	if (!*fp && !(*fp = begin())) {
		close(fd);
		return;
	}
	struct freeing *f = *fp;
	pthread_mutex_lock(&f->lock);
	bool is_taken = f->n < WAITING_MAX;
	if (is_taken) {
		f->fds[(f->first + f->n++) % WAITING_MAX] = fd;
		pthread_cond_signal(&f->change);
	}
	pthread_mutex_unlock(&f->lock);
	if (!is_taken)
		close(fd);
}

void freeing_end(struct freeing **fp)
{
	struct freeing *f = *fp;

	if (!f)
		return;
	pthread_mutex_lock(&f->lock);
	f->is_ended = true;
	pthread_cond_signal(&f->change);
	pthread_mutex_unlock(&f->lock);
	pool_join(f->tid);
	pthread_cond_destroy(&f->change);
	pthread_mutex_destroy(&f->lock);
	free(f);
	*fp = NULL;
}
