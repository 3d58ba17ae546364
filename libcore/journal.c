#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "state.h"

int journal_create(struct journal *j, const char *path, const char *const *roots, size_t n, struct err *e)
{
	char id[33];
	AUTO_BUF struct buf b = {0};

	*j = (struct journal){.dir = -1, .batches = -1, .lock = -1, .fd = -1};
	if (mkdir(path, 0700) && errno != EEXIST)
		return err_sys(e, "cannot make '%s'", path);
	j->path = realpath(path, NULL);
	j->dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (j->dir < 0)
		return err_sys(e, "cannot open '%s'", path);
	mkdirat(j->dir, "batches", 0700);
	mkdirat(j->dir, "consumers", 0700);
	j->batches = openat(j->dir, "batches", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	j->lock = openat(j->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (flock(j->lock, LOCK_EX | LOCK_NB))
		return err_set(e, ERR_BUSY, "another recorder uses '%s'", path);
	if (getrandom(j->uuid, 16, 0) != 16)
		return err_sys(e, "cannot get random bytes");
	hex(id, j->uuid, 16);
	buf_fmt(&b, "repl-journal 1\n%s\n", id);
	for (size_t i = 0; i < n; i++)
		buf_fmt(&b, "root %s\n", roots[i]);
	return state_replace(j->dir, "journal", b.p, b.len, e);
}

int journal_begin_batch(struct journal *j, struct stream_out **o, struct err *e)
{
	struct timespec t;
	struct record r = {.type = REC_IMAGE};

	clock_gettime(CLOCK_REALTIME, &t);
	j->fd = openat(j->batches, "tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (j->fd < 0)
		return err_sys(e, "cannot write a batch of '%s'", j->path);
	j->sink = (struct sink){.fd = j->fd, .name = "the journal"};
	j->out = (struct stream_out){.sink = sink_write, .ctx = &j->sink};
	*o = &j->out;
	r.u.image.time_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
	if (stream_begin(&j->out, KIND_CHANGE, e) || stream_put(&j->out, &r, e))
		return -1;
	r = (struct record){.type = REC_MEMBER, .u.member = {1, {0}, span_cstr("/")}};
	if (stream_put(&j->out, &r, e))
		return -1;
	r = (struct record){.type = REC_CURSOR, .flags = REC_OPTIONAL, .u.cursor = {{0}, j->last + 1, {0}}};
	memcpy(r.u.cursor.journal, j->uuid, 16);
	return stream_put(&j->out, &r, e);
}

int journal_end_batch(struct journal *j, struct err *e)
{
	struct record end = {.type = REC_END};
	char name[64];

	if (stream_put(&j->out, &end, e) || stream_finish(&j->out, e) || sink_flush(&j->sink, e))
		return -1;
	snprintf(name, sizeof name, "%016llu-%016llu.repl", (unsigned long long)j->last + 1, (unsigned long long)j->last + 1);
	if (renameat(j->batches, "tmp", j->batches, name))
		return err_sys(e, "cannot write a batch");
	j->last++;
	journal_drop_batch(j);
	return 0;
}

void journal_drop_batch(struct journal *j)
{
	close_fd(&j->fd);
	stream_out_free(&j->out);
	sink_free(&j->sink);
}

void journal_close(struct journal *j)
{
	journal_drop_batch(j);
	close_fd(&j->dir);
	close_fd(&j->batches);
	close_fd(&j->lock);
	free(j->path);
	j->path = NULL;
}
