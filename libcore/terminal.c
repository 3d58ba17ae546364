#include "terminal.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <unistd.h>

#include "clock.h"

#define MS UINT64_C(1000000)

static volatile sig_atomic_t is_asked; /* by USR1 for a line of progress */

static void on_usr1(int sig)
{
	(void)sig;
	is_asked = 1;
}

void terminal_start(struct terminal *t, const char *prog)
{
	struct sigaction sa = {.sa_handler = on_usr1, .sa_flags = SA_RESTART};

	*t = (struct terminal){.prog = prog, .is_tty = isatty(STDERR_FILENO), .began = clock_ns()};
	t->last = t->began;
	pthread_mutex_init(&t->lock, NULL);
	sigaction(SIGUSR1, &sa, NULL);
}

void terminal_free(struct terminal *t) { pthread_mutex_destroy(&t->lock); }

/* The length of the valid, printable UTF-8 sequence at p, or 0. C1 controls are not printable. */
static size_t printable(const uint8_t *p, size_t n)
{
	uint32_t c;
	size_t len;

	if (p[0] >= 0x20 && p[0] < 0x7f)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	c = p[0] & (0x7fu >> len);
	if (len > n)
		return 0;
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0u) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < 0xa0 || (len == 3 && c < 0x800) || (len == 4 && c < 0x10000))
		return 0;
	return c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : len;
}

/* Text of ours, in which names are escaped already; the second look is for those that slipped through. */
static void add_safe(struct buf *b, const char *text)
{
	const uint8_t *p = (const uint8_t *)text;
	size_t n = strlen(text);

	while (n > 0) {
		size_t len = printable(p, n);

		if (len > 0)
			buf_add(b, p, len);
		else
			buf_fmt(b, "\\%03o", (unsigned)*p);
		p += len > 0 ? len : 1;
		n -= len > 0 ? len : 1;
	}
}

/* One write, so that lines of several programs in a pipeline do not get mixed. Nobody is left to tell when
 * standard error fails. */
static void put_stderr(const struct buf *b)
{
	size_t at = 0;

	while (at < b->len) {
		ssize_t n = write(STDERR_FILENO, b->p + at, b->len - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return;
		at += (size_t)n;
	}
}

static void wipe_progress(struct terminal *t, struct buf *b)
{
	if (t->is_line_open)
		buf_str(b, "\r\033[K");
	t->is_line_open = false;
}

/* Call with the lock held. */
static void put_line(struct terminal *t, const char *text)
{
	AUTO_BUF struct buf b = {0};

	wipe_progress(t, &b);
	buf_fmt(&b, "%s: ", t->prog);
	add_safe(&b, text);
	buf_str(&b, "\n");
	put_stderr(&b);
}

void terminal_line(struct terminal *t, const char *text)
{
	pthread_mutex_lock(&t->lock);
	put_line(t, text);
	pthread_mutex_unlock(&t->lock);
}

void terminal_wipe(struct terminal *t)
{
	AUTO_BUF struct buf b = {0};

	pthread_mutex_lock(&t->lock);
	wipe_progress(t, &b);
	put_stderr(&b);
	pthread_mutex_unlock(&t->lock);
}

static void add_amount(struct buf *b, uint64_t n)
{
	static const char *const unit[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	uint64_t tenths = n * 10;
	size_t i = 0;

	if (n < 1024) {
		buf_fmt(b, "%" PRIu64 " B", n);
		return;
	}
	if (n > UINT64_MAX / 10) {
		tenths = n / 1024 * 10;
		i = 1;
	}
	for (; tenths >= 10240; i++)
		tenths /= 1024;
	buf_fmt(b, "%" PRIu64 ".%" PRIu64 " %s", tenths / 10, tenths % 10, unit[i]);
}

static void add_progress(struct buf *b, const struct terminal_progress *p, uint64_t elapsed_ns)
{
	buf_fmt(b, "%s: ", p->what);
	add_amount(b, p->done);
	if (p->total > 0) {
		buf_str(b, " of ");
		add_amount(b, p->total);
		/* Percent of a total that may be near 2^64. */
		buf_fmt(b, " (%" PRIu64 "%%)", p->total < 100 ? min_u64(p->done, p->total) * 100 / p->total :
			min_u64(p->done / (p->total / 100), 100));
	}
	if (p->items > 0)
		buf_fmt(b, ", %" PRIu64 " items", p->items);
	if (elapsed_ns >= CLOCK_S) {
		buf_str(b, ", ");
		add_amount(b, p->done / (elapsed_ns / CLOCK_S));
		buf_str(b, "/s");
	}
}

void terminal_progress(struct terminal *t, bool is_shown, const struct terminal_progress *p)
{
	bool is_answer = is_asked != 0;
	AUTO_BUF struct buf b = {0}, line = {0};
	uint64_t now;

	if (!is_shown && !is_answer)
		return;
	now = clock_ns();
	pthread_mutex_lock(&t->lock);
	if (!is_answer && now - t->last < (t->is_tty ? 200 * MS : 10 * CLOCK_S)) {
		pthread_mutex_unlock(&t->lock);
		return;
	}
	t->last = now;
	is_asked = 0;
	add_progress(&b, p, now - t->began);
	if (t->is_tty && !is_answer) {
		buf_fmt(&line, "\r%s: ", t->prog);
		add_safe(&line, buf_cstr(&b));
		buf_str(&line, "\033[K");
		put_stderr(&line);
		t->is_line_open = true;
	} else {
		put_line(t, buf_cstr(&b));
	}
	pthread_mutex_unlock(&t->lock);
}
