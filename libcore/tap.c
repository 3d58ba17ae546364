#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"

static int cannot(char reason[256], const char *what)
{
	snprintf(reason, 256, "%s", what);
	return 0;
}

/* 1: connected; 0: nobody is there. */
static int join(const char *dir, int *out, char reason[256], struct err *e)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	char text[300];
	AUTO_CLOSE int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (at < 0)
		return err_sys(e, "cannot open the journal '%s'", esc_cut(text, sizeof text, span_cstr(dir)));
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_sys(e, "cannot make a socket");
	/* Through the descriptor: a path of its own may be too long. */
	snprintf(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d/socket", at);
	if (connect(fd, (const struct sockaddr *)&to, sizeof to)) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return cannot(reason, "no recorder is running");
		if (errno == EAGAIN)
			return cannot(reason, "the recorder does not answer");
		return err_sys(e, "cannot speak to the recorder of '%s'", esc_cut(text, sizeof text, span_cstr(dir)));
	}
	*out = fd;
	fd = -1;
	return 1;
}

static bool wait_for(int fd, short events, uint64_t until)
{
	for (;;) {
		uint64_t now = clock_ms();
		struct pollfd p = {.fd = fd, .events = events};
		uint64_t left = until > now ? until - now : 0;
		int n = poll(&p, 1, left > 1000000 ? 1000000 : (int)left);
		if (n > 0)
			return true;
		if ((n < 0 && errno != EINTR) || !left)
			return false;
	}
}

/* One question, one answer: a line without its end, which is all of `line`. */
static int ask(const char *dir, const char *question, uint64_t timeout_ms, struct buf *line, char reason[256], struct err *e)
{
	AUTO_CLOSE int fd = -1;
	uint64_t until = clock_ms() + timeout_ms;
	int got = join(dir, &fd, reason, e);

	if (got != 1)
		return got;
	/* A new socket takes a line at once. */
	if (send(fd, question, strlen(question), MSG_NOSIGNAL) != (ssize_t)strlen(question))
		return cannot(reason, "the recorder went away");
	while (!line->len || line->p[line->len - 1] != '\n') {
		if (!wait_for(fd, POLLIN, until))
			return cannot(reason, "the recorder does not answer");
		buf_reserve(line, TAP_LINE);
		ssize_t n = recv(fd, line->p + line->len, TAP_LINE, 0);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return cannot(reason, "the recorder went away");
		line->len += (size_t)n;
		if (line->len > 16 * TAP_LINE)
			return cannot(reason, "the recorder's answer makes no sense");
	}
	line->len--;
	if (line->len < 3 || memcmp(line->p, "no ", 3))
		return 1;
	snprintf(reason, 256, "%.*s", (int)(line->len - 3), (const char *)line->p + 3);
	return 0;
}

static bool take_cut(const char *uuid, uint64_t seq, struct tap_cut *c)
{
	c->seq = seq;
	return unhex(c->journal, 16, uuid);
}

int tap_cut(const char *journal_dir, uint64_t timeout_ms, struct tap_cut *c, char reason[256], struct err *e)
{
	AUTO_BUF struct buf line = {0};
	char uuid[33];
	uint64_t seq;
	int got = ask(journal_dir, "cut\n", timeout_ms, &line, reason, e);

	if (got != 1)
		return got;
	if (sscanf(buf_cstr(&line), "cut %32s %" SCNu64, uuid, &seq) != 2 || !take_cut(uuid, seq, c))
		return cannot(reason, "the recorder's answer makes no sense");
	return 1;
}

bool tap_try_cut(const char *journal_dir, uint64_t timeout_ms, struct tap_cut *c, char reason[256])
{
	struct err e = {0};
	int got = tap_cut(journal_dir, timeout_ms, c, reason, &e);

	if (got < 0)
		snprintf(reason, 256, "%.255s", e.text);
	return got == 1;
}

int tap_wait(const char *journal_dir, struct tap_wait *w, char reason[256], struct err *e)
{
	AUTO_BUF struct buf line = {0}, question = {0};
	char uuid[33];
	uint64_t seq;

	hex(uuid, w->since.journal, 16);
	buf_fmt(&question, "wait %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", uuid, w->since.seq, w->names,
		w->bytes, w->max_ms, w->settle_ms);
	int got = ask(journal_dir, buf_cstr(&question), w->max_ms + 2000, &line, reason, e);
	if (got != 1)
		return got;
	if (sscanf(buf_cstr(&line), "ready %32s %" SCNu64 " %" SCNu64 " %" SCNu64, uuid, &seq, &w->got_names, &w->got_bytes) != 4 ||
			!take_cut(uuid, seq, &w->now))
		return cannot(reason, "the recorder's answer makes no sense");
	return 1;
}

/* ---- status ---- */

void tap_add(struct buf *line, const char *word, const char *value)
{
	buf_fmt(line, " %s=", word);
	for (const unsigned char *p = (const unsigned char *)value; *p; p++) {
		if (*p <= ' ' || *p == '\\' || *p == 0x7f)
			buf_fmt(line, "\\%03o", (unsigned)*p);
		else
			wr_u8(line, *p);
	}
}

static void unescape(struct buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		unsigned v;
		if (s[i] == '\\' && n - i > 3 && sscanf(s + i + 1, "%3o", &v) == 1) {
			wr_u8(out, (uint8_t)v);
			i += 3;
		} else {
			wr_u8(out, (uint8_t)s[i]);
		}
	}
	wr_u8(out, 0);
}

int tap_status(const char *journal_dir, uint64_t timeout_ms, struct tap_status *s, char reason[256], struct err *e)
{
	AUTO_BUF struct buf line = {0};
	int got = ask(journal_dir, "status\n", timeout_ms, &line, reason, e);

	if (got != 1)
		return got;
	const char *p = buf_cstr(&line);
	if (strncmp(p, "status ", 7))
		return cannot(reason, "the recorder's answer makes no sense");
	for (p += 7; *p; p += strspn(p, " ")) {
		size_t n = strcspn(p, " ");
		unescape(&s->text, p, n);
		s->n++;
		p += n;
	}
	return 1;
}

const char *tap_value(const struct tap_status *s, const char *word)
{
	const char *p = (const char *)s->text.p;
	size_t len = strlen(word);

	for (size_t i = 0; i < s->n; i++, p += strlen(p) + 1)
		if (!strncmp(p, word, len) && p[len] == '=')
			return p + len + 1;
	return NULL;
}

void tap_status_free(struct tap_status *s)
{
	buf_free(&s->text);
	s->n = 0;
}
