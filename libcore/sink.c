#include "sink.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"

#define GATHER (256u * 1024)
#define GATHER_MS 50u /* what reads much and writes little leaves the stages behind it nothing to do otherwise */

static int write_all(struct sink *s, struct iovec *v, int n, struct err *e)
{
	while (n) {
		ssize_t got = writev(s->fd, v, n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(e, "cannot write to %s", s->name);
		s->written += (uint64_t)got;
		size_t left = (size_t)got;
		while (n && left >= v->iov_len) {
			left -= v->iov_len;
			v++;
			n--;
		}
		if (n) {
			v->iov_base = (uint8_t *)v->iov_base + left;
			v->iov_len -= left;
		}
	}
	return 0;
}

int sink_flush(struct sink *s, struct err *e)
{
	struct iovec v = {s->b.p, s->b.len};

	if (s->b.len && write_all(s, &v, 1, e))
		return -1;
	buf_reset(&s->b);
	s->since_ms = 0;
	return 0;
}

static bool is_due(struct sink *s)
{
	if (!s->is_awaited)
		return false;
	uint64_t now = clock_ms();
	s->since_ms = s->since_ms ? s->since_ms : now;
	return now - s->since_ms >= GATHER_MS;
}

int sink_write(void *ctx, const struct span *v, int n, struct err *e)
{
	struct sink *s = ctx;

	for (int i = 0; i < n; i++) {
		if (v[i].len < 16384) {
			buf_add(&s->b, v[i].p, v[i].len);
			if ((s->b.len >= GATHER || is_due(s)) && sink_flush(s, e))
				return -1;
			continue;
		}
		/* Large content goes out from where it lies. */
		union {
			const uint8_t *c;
			uint8_t *p;
		} cast = {.c = v[i].p};
		struct iovec io[2] = {{s->b.p, s->b.len}, {cast.p, v[i].len}};
		if (write_all(s, s->b.len ? io : io + 1, s->b.len ? 2 : 1, e))
			return -1;
		buf_reset(&s->b);
		s->since_ms = 0;
	}
	return 0;
}

void sink_free(struct sink *s) { buf_free(&s->b); }
