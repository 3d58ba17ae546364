#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "codec.h"

#define READ_LEN 258048u /* with what was looked at before it the buffer has 256 KiB, and need not grow at once */
#define PIPE_LEN 1048576
#define GUESS_LEN 8u /* so many bytes tell what it is */

struct input_bytes {
	int fd, wake;
	_Atomic int out_fd;  /* -1: none */
	uint64_t timeout_ms; /* 0: none */
	int (*tap)(void *ctx, const void *p, size_t n, struct err *e);
	void *ctx;
	enum input_kind kind;
	uint8_t guess[GUESS_LEN]; /* the bytes that were looked at; they are read first */
	size_t guess_len, guess_at;
	_Atomic uint64_t count;
	struct codec_reader *reader; /* packed input */
};

/* Waits in poll(2), so that another thread can call the reader back. */
static int read_fd(struct input_bytes *b, void *p, size_t n, size_t *got, struct err *e)
{
	struct pollfd fds[3] = {{.fd = b->fd, .events = POLLIN}, {.fd = b->wake, .events = POLLIN}, {.fd = b->out_fd}};

	for (;;) {
		int n_ready = poll(fds, 3, b->timeout_ms ? (int)b->timeout_ms : -1);
		if (n_ready < 0) {
			if (errno == EINTR)
				continue;
			return err_sys(e, "cannot wait for the stream");
		}
		if (!n_ready) {
			err_set(e, ERR_TIMEOUT, "nothing came for %llu seconds, at byte %llu of the stream",
				(unsigned long long)(b->timeout_ms / 1000), (unsigned long long)input_bytes_count(b));
			e->is_cut = true;
			return -1;
		}
		if (fds[1].revents) {
			errno = ECANCELED;
			return err_sys(e, "stopped reading the stream");
		}
		if (fds[2].revents & POLLERR && !fds[0].revents) {
			errno = EPIPE;
			err_sys(e, "nobody reads what becomes of the stream");
			e->is_cut = true;
			return -1;
		}
		ssize_t rc = read(b->fd, p, n);
		if (rc >= 0) {
			*got = (size_t)rc;
			atomic_fetch_add_explicit(&b->count, *got, memory_order_relaxed);
			return b->tap && rc ? b->tap(b->ctx, p, *got, e) : 0;
		}
		if (errno != EINTR && errno != EAGAIN) {
			err_sys(e, "cannot read the stream at byte %llu", (unsigned long long)input_bytes_count(b));
			e->is_cut = true;
			return -1;
		}
	}
}

static int fill(void *ctx, void *p, size_t n, size_t *got, struct err *e)
{
	struct input_bytes *b = ctx;
	size_t left = b->guess_len - b->guess_at;

	if (!left)
		return read_fd(b, p, n, got, e);
	*got = left < n ? left : n;
	memcpy(p, b->guess + b->guess_at, *got);
	b->guess_at += *got;
	return 0;
}

static int guess(struct input_bytes *b, struct err *e)
{
	while (b->guess_len < GUESS_LEN) {
		size_t got;
		if (read_fd(b, b->guess + b->guess_len, GUESS_LEN - b->guess_len, &got, e))
			return -1;
		if (!got)
			break;
		b->guess_len += got;
	}
	if (!b->guess_len)
		return err_set(e, ERR_STREAM, b->fd == STDIN_FILENO ?
			"no stream on standard input: did the stage before it fail?" : "the file is empty: no stream in it");
	if (stream_is_plain(b->guess, b->guess_len))
		b->kind = INPUT_PLAIN;
	else if (codec_is_zstd(b->guess, b->guess_len))
		b->kind = INPUT_PACKED;
	else if (b->guess_len < GUESS_LEN && !memcmp(b->guess, STREAM_MAGIC, b->guess_len))
		return err_set(e, ERR_STREAM, "the stream ends early, inside its header");
	else
		return err_set(e, ERR_STREAM, "this is not a repl stream");
	return 0;
}

/* A larger pipe means fewer turns between the two programs; who may not have one keeps what there is. */
static void widen_pipe(int fd)
{
	int now = fcntl(fd, F_GETPIPE_SZ);

	if (now > 0 && now < PIPE_LEN)
		fcntl(fd, F_SETPIPE_SZ, PIPE_LEN);
}

static int open_bytes(struct input_bytes **out, int fd, unsigned threads, const struct input *settings, struct err *e)
{
	struct input_bytes *b = xalloc(sizeof *b);

	b->fd = fd;
	b->out_fd = settings->out_fd ? settings->out_fd : -1;
	b->timeout_ms = min_u64(settings->timeout_ms, INT_MAX);
	b->tap = settings->tap;
	b->ctx = settings->ctx;
	b->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake < 0) {
		err_sys(e, "cannot make an event descriptor");
		input_bytes_close(&b);
		return -1;
	}
	widen_pipe(fd);
	if (guess(b, e) || (b->kind == INPUT_PACKED && codec_reader_open(&b->reader, fill, b, threads, e))) {
		input_bytes_close(&b);
		return -1;
	}
	*out = b;
	return 0;
}

int input_bytes_open(struct input_bytes **b, int fd, unsigned threads, struct err *e)
{
	return open_bytes(b, fd, threads, &(struct input){0}, e);
}

void input_bytes_watch(struct input_bytes *b, int out_fd) { b->out_fd = out_fd; }

enum input_kind input_bytes_kind(const struct input_bytes *b) { return b->kind; }

uint64_t input_bytes_count(const struct input_bytes *b)
{
	return atomic_load_explicit(&b->count, memory_order_relaxed);
}

int input_bytes_read(struct input_bytes *b, void *p, size_t n, size_t *got, struct err *e)
{
	return b->reader ? codec_reader_read(b->reader, p, n, got, e) : fill(b, p, n, got, e);
}

void input_bytes_wake(struct input_bytes *b)
{
	uint64_t one = 1;
	/* Nobody takes the count back: it can only be one already. */
	ssize_t rc = write(b->wake, &one, sizeof one);
	(void)rc;
}

void input_bytes_close(struct input_bytes **bb)
{
	struct input_bytes *b = *bb;

	if (!b)
		return;
	if (b->reader)
		input_bytes_wake(b);
	codec_reader_close(&b->reader);
	close_fd(&b->wake);
	free(b);
	*bb = NULL;
}

/* ---- events ---- */

int input_open(struct input *in, int fd, unsigned threads, struct err *e)
{
	struct input_bytes *b = NULL;

	if (open_bytes(&b, fd, threads, in, e))
		return -1;
	*in = (struct input){.packed = b->kind == INPUT_PACKED, .priv = b};
	return 0;
}

int input_next(struct input *in, struct err *e)
{
	struct input_bytes *b = in->priv;

	for (;;) {
		int event = stream_next(&in->s, e);
		if (event != STREAM_MORE)
			return event;
		size_t room, got;
		uint8_t *p = stream_space(&in->s, READ_LEN, &room);
		if (input_bytes_read(b, p, room, &got, e))
			return -1;
		in->bytes_read = input_bytes_count(b);
		if (!got)
			return stream_eof(&in->s, e);
		stream_fed(&in->s, got);
	}
}

void input_close(struct input *in)
{
	struct input_bytes *b = in->priv;

	input_bytes_close(&b);
	stream_in_free(&in->s);
	*in = (struct input){0};
}

bool input_is_stream(int fd)
{
	uint8_t p[8];
	ssize_t n = pread(fd, p, sizeof p, 0);

	return n == sizeof p && (stream_is_plain(p, sizeof p) || codec_is_zstd(p, sizeof p));
}
