#include "clients.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int clients_open(struct clients *c, int dir, struct err *e)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	c->dir = dir;
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		c->v[i] = (struct client){.fd = -1};
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (c->fd < 0)
		return err_sys(e, "cannot make a socket");
	/* The lock is ours: what lies there is left over from somebody who was killed. */
	unlinkat(dir, "socket", 0);
	snprintf(at.sun_path, sizeof at.sun_path, "/proc/self/fd/%d/socket", dir);
	if (bind(c->fd, (const struct sockaddr *)&at, sizeof at) || listen(c->fd, 16)) {
		err_sys(e, "cannot make the journal's 'socket'");
		close_fd(&c->fd);
		return -1;
	}
	return 0;
}

void clients_close(struct clients *c)
{
	if (c->fd < 0)
		return;
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		clients_drop(&c->v[i]);
	unlinkat(c->dir, "socket", 0);
	close_fd(&c->fd);
}

void clients_drop(struct client *k)
{
	close_fd(&k->fd);
	*k = (struct client){.fd = -1};
}

size_t clients_fds(const struct clients *c, struct pollfd *p)
{
	size_t n = 0;

	p[n++] = (struct pollfd){.fd = c->fd, .events = POLLIN};
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (c->v[i].fd >= 0)
			p[n++] = (struct pollfd){.fd = c->v[i].fd, .events = POLLIN};
	return n;
}

void clients_answer(struct client *k, const char *text, uint64_t now_ms)
{
	AUTO_BUF struct buf line = {0};

	buf_str(&line, text);
	buf_str(&line, "\n");
	k->asked = CLIENT_IDLE;
	k->is_marked = false;
	k->seen_ms = now_ms;
	/* Its buffer holds many lines: who does not read them is gone. */
	if (send(k->fd, line.p, line.len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)line.len)
		clients_drop(k);
}

/* The place for a new one: free, or that of the one who was silent longest. */
static struct client *place(struct clients *c)
{
	struct client *idle = NULL;

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &c->v[i];
		if (k->fd < 0)
			return k;
		if (k->asked == CLIENT_IDLE && (!idle || k->seen_ms < idle->seen_ms))
			idle = k;
	}
	if (idle)
		clients_drop(idle);
	return idle;
}

static void take_new(struct clients *c, uint64_t now_ms)
{
	for (;;) {
		int fd = accept4(c->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0)
			return;
		struct client *k = place(c);
		if (!k) {
			send(fd, "no room for one more\n", 21, MSG_NOSIGNAL | MSG_DONTWAIT);
			close(fd);
			continue;
		}
		*k = (struct client){.fd = fd, .seen_ms = now_ms};
	}
}

/* The lines that are there, as long as the answer to the one before was given. */
static void take_lines(struct client *k, uint64_t now_ms, void (*on_line)(void *ctx, struct client *k, char *line), void *ctx)
{
	char *end;

	while (k->fd >= 0 && k->asked == CLIENT_IDLE && (end = memchr(k->line, '\n', k->len))) {
		char line[CLIENTS_LINE];
		size_t n = (size_t)(end - k->line);
		memcpy(line, k->line, n);
		line[n] = '\0';
		k->len -= n + 1;
		memmove(k->line, end + 1, k->len);
		k->seen_ms = now_ms;
		on_line(ctx, k, line);
	}
	if (k->fd >= 0 && k->len == CLIENTS_LINE) {
		clients_answer(k, "no line is that long", now_ms);
		clients_drop(k);
	}
}

static void listen_to(struct client *k, uint64_t now_ms, void (*on_line)(void *ctx, struct client *k, char *line), void *ctx)
{
	ssize_t n = recv(k->fd, k->line + k->len, CLIENTS_LINE - k->len, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		clients_drop(k);
		return;
	}
	k->len += (size_t)n;
	take_lines(k, now_ms, on_line, ctx);
}

void clients_serve(struct clients *c, const struct pollfd *p, size_t n, uint64_t now_ms,
	void (*on_line)(void *ctx, struct client *k, char *line), void *ctx)
{
	for (size_t i = 1; i < n; i++)
		for (size_t j = 0; p[i].revents && j < CLIENTS_MAX; j++)
			if (c->v[j].fd == p[i].fd) {
				listen_to(&c->v[j], now_ms, on_line, ctx);
				break;
			}
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &c->v[i];
		if (k->fd < 0)
			continue;
		take_lines(k, now_ms, on_line, ctx);
		if (k->fd >= 0 && k->asked == CLIENT_IDLE && now_ms - k->seen_ms > CLIENTS_IDLE_MS)
			clients_drop(k);
	}
	if (n && p[0].revents)
		take_new(c, now_ms);
}
