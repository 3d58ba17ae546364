#include "recorder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "heard.h"
#include "clients.h"
#include "holders.h"
#include "pool.h"
#include "tap.h"

#define MEMORY (8u << 20)
#define ERAS 1024u      /* batches whose counts are remembered */
#define TEND_EACH 64u   /* batches after which the journal is looked after, also when nobody asks for a cut */
#define STATUS_MS 1000u /* least time between two STATUS= */

/* The names and bytes written up to a batch, all in all. */
struct era {
	uint64_t seq, names, bytes;
};
struct engine {
	struct recorder *r;
	struct journal j;
	struct watch watch;
	struct heard heard;
	struct clients clients;
	char **paths, *own;
	int signals, mounts;
	bool is_ready;        /* what is lost is told from now on */
	bool is_out, is_back; /* the marker */
	bool is_full;         /* there are enough names in memory */
	bool is_stopped;
	uint64_t *devs;       /* of the mounts at and below the paths */
	size_t n_devs;
	bool has_anonymous;   /* one of them numbers its subvolumes in its own way */
	uint64_t began_ms, event_ms, alive_ms, status_ms;
	uint64_t n_events, n_gaps;
	char *last_gap;
	uint64_t held, processes, refused; /* of the last look at who holds files */
	uint64_t names, bytes;   /* written */
	struct era eras[ERAS];
	size_t n_eras;
	/* What of memory was counted for those who wait. */
	uint32_t counted;
	uint64_t mem_names, mem_bytes;
	struct buf known, inside; /* bits: directories that were looked up; that lie below the paths */
	char *failure;           /* why the last batch could not be written */
	/* Trimming and joining batches takes its time: a thread of its own does it, on a copy. */
	pthread_t tender;
	bool is_tending;
	atomic_bool is_tended;
	struct journal tended;
	struct err tend_err;
};

static void say(struct engine *g, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(struct engine *g, int level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	g->r->say(g->r->ctx, level, text);
}

/* ---- what the source tells ---- */

static void on_changed(void *ctx, uint32_t dir, struct span name, uint8_t flags, uint32_t obj, bool is_written)
{
	struct engine *g = ctx;

	heard_changed(&g->heard, dir, name, flags, obj, is_written);
	g->n_events++;
	g->is_full = heard_size(&g->heard) >= g->r->memory;
}

static void lose(struct engine *g, const char *path, const char *reason)
{
	char text[300];

	if (!g->is_ready)
		return;
	size_t before = g->heard.gaps.n;
	gaps_put(&g->heard.gaps, path, reason);
	if (g->heard.gaps.n == before)
		return;
	g->n_gaps++;
	g->event_ms = clock_ms();
	free(g->last_gap);
	AUTO_BUF struct buf gap = {0};
	buf_fmt(&gap, "%s: %s", esc_cut(text, sizeof text, span_cstr(path)), reason);
	g->last_gap = xstrdup(buf_cstr(&gap));
	say(g, 1, "a gap at '%s': %s", text, reason);
}

static void on_lost(void *ctx, const char *path, const char *reason)
{
	struct engine *g = ctx;

	if (path) {
		lose(g, path, reason);
		return;
	}
	for (size_t i = 0; i < g->watch.n_paths; i++)
		lose(g, g->watch.paths[i], reason);
}

static void on_seen(void *ctx)
{
	struct engine *g = ctx;

	g->is_back = true;
}

/* ---- who holds files ---- */

static int find_devices(struct engine *g, struct err *e)
{
	struct mounts all = {0};

	if (mounts_read(&all, e))
		return -1;
	g->n_devs = 0;
	g->has_anonymous = false;
	for (size_t i = 0; i < all.n; i++) {
		bool is_of_interest = false;
		for (size_t k = 0; k < g->watch.n_paths && !is_of_interest; k++)
			/* Below a path, or perhaps what a path lies on. */
			is_of_interest = mounts_below(span_cstr(all.v[i].point), span_cstr(g->watch.paths[k])) ||
				mounts_below(span_cstr(g->watch.paths[k]), span_cstr(all.v[i].point));
		if (!is_of_interest)
			continue;
		g->devs = xrealloc(g->devs, (g->n_devs + 1) * sizeof *g->devs);
		g->devs[g->n_devs++] = all.v[i].dev;
		g->has_anonymous = g->has_anonymous || !strcmp(all.v[i].type, "btrfs");
	}
	mounts_free(&all);
	return 0;
}

static bool is_device(void *ctx, uint64_t dev, bool is_super)
{
	const struct engine *g = ctx;

	if (!is_super && g->has_anonymous && !major(dev))
		return true;
	for (size_t i = 0; i < g->n_devs; i++)
		if (g->devs[i] == dev)
			return true;
	return false;
}

static void on_held(void *ctx, struct span path, const struct r_inode *ino)
{
	struct engine *g = ctx;
	char text[PATH_MAX];
	struct stat st;

	if (path.len && path.len < sizeof text) {
		memcpy(text, path.p, path.len);
		text[path.len] = '\0';
		if (!lstat(text, &st) && st.st_dev == ino->dev && st.st_ino == ino->ino && st.st_nlink == 1) {
			if (!watch_is_inside(&g->watch, path))
				return;
			heard_file(&g->heard, path);
			g->held++;
			return;
		}
	}
	/* Under several names, or under one that is not ours to see. */
	heard_inode(&g->heard, ino);
	g->held++;
}

static int on_breath(void *ctx, struct err *e)
{
	struct engine *g = ctx;

	return watch_gather(&g->watch, e);
}

static int find_held(struct engine *g, struct err *e)
{
	struct holders h = {.file = on_held, .ctx = g, .is_device = is_device, .breathe = on_breath};

	g->held = 0;
	if (find_devices(g, e) || holders_find(&h, e))
		return -1;
	g->processes = h.processes;
	if (h.refused && !g->refused)
		say(g, 1, "what other users' processes hold open for writing cannot be seen (%" PRIu64 " of %" PRIu64 " processes)",
			h.refused, h.processes);
	g->refused = h.refused;
	return 0;
}

/* ---- batches ---- */

static void forget_counts(struct engine *g)
{
	g->counted = 0;
	g->mem_names = g->mem_bytes = 0;
	buf_free(&g->known);
	buf_free(&g->inside);
}

static void *tend(void *ctx)
{
	struct engine *g = ctx;

	journal_tend(&g->tended, g->r->limit, &g->tend_err);
	atomic_store(&g->is_tended, true);
	return NULL;
}

static void end_tending(struct engine *g)
{
	if (!g->is_tending)
		return;
	pool_join(g->tender);
	g->is_tending = false;
	g->j.tended = g->tended.tended;
	if (g->tend_err.kind)
		say(g, 0, "%s", g->tend_err.text);
	else if (g->j.tended.dropped)
		say(g, 1, "the journal was too large: %" PRIu64 " batches are gone", g->j.tended.dropped);
}

static void begin_tending(struct engine *g)
{
	if (g->is_tending && !atomic_load(&g->is_tended))
		return;
	end_tending(g);
	g->tended = g->j;
	err_clear(&g->tend_err);
	atomic_store(&g->is_tended, false);
	g->is_tending = !pool_thread(&g->tender, tend, g, &g->tend_err);
}

/* 0 also when it could not be written: then g->failure says why, and nothing is forgotten unless memory is short. */
static int flush(struct engine *g, struct err *e)
{
	struct err why = {0};
	char text[300];

	free(g->failure);
	g->failure = NULL;
	uint64_t before = g->j.last;
	if (!heard_write(&g->heard, &why)) {
		if (g->j.last / TEND_EACH != before / TEND_EACH)
			begin_tending(g);
		g->names += g->heard.n_names;
		g->bytes += g->mem_bytes;
		if (!g->n_eras || g->eras[(g->n_eras - 1) % ERAS].seq != g->j.last)
			g->eras[g->n_eras++ % ERAS] = (struct era){g->j.last, g->names, g->bytes};
		forget_counts(g);
		g->is_full = false;
		return 0;
	}
	if (why.kind != ERR_SYSTEM) {
		*e = why;
		return -1;
	}
	g->failure = xstrdup(why.text);
	warn_say(g->r->warn, "note", "%s", esc_cut(text, sizeof text, span_cstr(why.text)));
	if (heard_size(&g->heard) < g->r->memory)
		return 0;
	heard_reset(&g->heard);
	forget_counts(g);
	g->is_full = false;
	on_lost(g, NULL, "the journal could not be written");
	return 0;
}

static int send_marker(struct engine *g, struct err *e)
{
	bool is_wanted = false;

	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &g->clients.v[i];
		if (k->fd < 0 || k->asked != CLIENT_CUT)
			continue;
		is_wanted = true;
		k->is_marked = true;
	}
	if (!is_wanted)
		return 0;
	/* Who holds files first: one who lets go of them after this look is heard before the marker. */
	g->is_out = true;
	g->is_back = false;
	return find_held(g, e) || watch_mark(&g->watch, e) ? -1 : 0;
}

static int finish_cut(struct engine *g, struct err *e)
{
	char uuid[33], text[400];

	g->is_out = g->is_back = false;
	/* What was mounted, unmounted or put in a path's place has no event of its own. */
	if (watch_check(&g->watch, e) || flush(g, e))
		return -1;
	hex(uuid, g->j.uuid, 16);
	if (g->failure)
		snprintf(text, sizeof text, "no %s", g->failure);
	else
		snprintf(text, sizeof text, "cut %s %" PRIu64, uuid, g->j.last);
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &g->clients.v[i];
		if (k->fd >= 0 && k->asked == CLIENT_CUT && k->is_marked)
			clients_answer(k, text, clock_ms());
	}
	if (!g->failure)
		begin_tending(g);
	return 0;
}

/* ---- those who wait ---- */

struct counting {
	struct engine *g;
	uint32_t dir;
	struct span name;
	bool is_inside, wants_size;
	uint64_t size;
};

static int on_where(void *ctx, struct span path, int fd, struct err *e)
{
	struct counting *k = ctx;
	char text[256];
	struct stat st;

	(void)e;
	if (!watch_is_inside(&k->g->watch, path))
		return 0;
	k->is_inside = true;
	span_name(text, k->name);
	if (k->wants_size && k->name.len && !fstatat(fd, text, &st, AT_SYMLINK_NOFOLLOW) && S_ISREG(st.st_mode))
		k->size += (uint64_t)st.st_size;
	return 0;
}

/* What changed below the paths and is still in memory. */
static int count_memory(struct engine *g, struct err *e)
{
	for (; g->counted < names_count(&g->heard.names); g->counted++) {
		struct counting k = {.g = g};
		k.name = names_at(&g->heard.names, g->counted, &k.dir);
		k.wants_size = g->heard.names.rows[g->counted].flags & (CHANGED_CONTENT | CHANGED_NEW);
		bool is_known = bits_has(&g->known, k.dir);
		if (is_known && !k.wants_size) {
			g->mem_names += bits_has(&g->inside, k.dir);
			continue;
		}
		if (is_known && !bits_has(&g->inside, k.dir))
			continue;
		struct watch_where where = {on_where, &k};
		int got = watch_find(&g->watch, k.dir, &where, e);
		if (got < 0)
			return -1;
		bits_put(&g->known, k.dir);
		if (k.is_inside)
			bits_put(&g->inside, k.dir);
		g->mem_names += k.is_inside;
		g->mem_bytes += k.size;
		if (watch_gather(&g->watch, e))
			return -1;
	}
	watch_rest(&g->watch);
	return 0;
}

static void count_since(const struct engine *g, uint64_t seq, uint64_t *names, uint64_t *bytes)
{
	struct era then = {0};
	size_t n = g->n_eras < ERAS ? g->n_eras : ERAS;

	for (size_t i = 0; i < n; i++) {
		const struct era *era = &g->eras[(g->n_eras - 1 - i) % ERAS];
		then = *era;
		if (era->seq <= seq)
			break;
		if (i + 1 == n && g->n_eras <= ERAS)
			then = (struct era){0};
	}
	*names = g->names - then.names + g->mem_names + g->heard.gaps.n;
	*bytes = g->bytes - then.bytes + g->mem_bytes;
}

/* Answers those whose time has come; *until becomes the time when to look again. */
static int serve_waiting(struct engine *g, uint64_t now, uint64_t *until, struct err *e)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *k = &g->clients.v[i];
		uint64_t names, bytes;
		char text[200], uuid[33];
		if (k->fd < 0 || k->asked != CLIENT_WAIT)
			continue;
		bool is_other = memcmp(k->uuid, g->j.uuid, 16) != 0, is_late = now >= k->until_ms;
		uint64_t settled = g->event_ms + k->settle_ms;
		if (!is_other && !is_late && now < settled) {
			*until = min_u64(*until, min_u64(settled, k->until_ms));
			continue;
		}
		if (count_memory(g, e))
			return -1;
		count_since(g, k->seq, &names, &bytes);
		if (!is_other && !is_late && !(k->names && names >= k->names) && !(k->bytes && bytes >= k->bytes)) {
			*until = min_u64(*until, k->until_ms);
			continue;
		}
		hex(uuid, g->j.uuid, 16);
		snprintf(text, sizeof text, "ready %s %" PRIu64 " %" PRIu64 " %" PRIu64, uuid, g->j.last, names, bytes);
		clients_answer(k, text, now);
	}
	return 0;
}

/* ---- status ---- */

static void add_number(struct buf *line, const char *word, uint64_t v)
{
	char text[24];

	snprintf(text, sizeof text, "%" PRIu64, v);
	tap_add(line, word, text);
}

static void add_batches(const struct engine *g, struct buf *line)
{
	int own = openat(g->j.dir, "batches", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	const struct dirent *en;
	uint64_t n = 0, bytes = 0;

	while (d && (en = readdir(d))) {
		struct stat st;
		if (en->d_name[0] == '.' || fstatat(dirfd(d), en->d_name, &st, AT_SYMLINK_NOFOLLOW))
			continue;
		n++;
		bytes += (uint64_t)st.st_size;
	}
	if (d)
		closedir(d);
	add_number(line, "batches", n);
	add_number(line, "bytes", bytes);
}

/* Each consumer as NAME:BACKLOG, the batches that it has not taken; "?" when it needs another journal. */
static void add_consumers(const struct engine *g, struct buf *line)
{
	int own = openat(g->j.dir, "consumers", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = own < 0 ? NULL : fdopendir(own);
	const struct dirent *en;
	AUTO_BUF struct buf list = {0};

	while (d && (en = readdir(d)) && list.len < TAP_LINE / 4) {
		char text[128], uuid[33];
		uint8_t id[16];
		uint64_t seq;
		if (strlen(en->d_name) != 32)
			continue;
		AUTO_CLOSE int fd = openat(dirfd(d), en->d_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
		if (n <= 0)
			continue;
		text[n] = '\0';
		buf_fmt(&list, "%s%s:", list.len ? "," : "", en->d_name);
		if (sscanf(text, "%32s %" SCNu64, uuid, &seq) == 2 && unhex(id, 16, uuid) && !memcmp(id, g->j.uuid, 16) && seq <= g->j.last)
			buf_fmt(&list, "%" PRIu64, g->j.last - seq);
		else
			buf_str(&list, "?");
	}
	if (d)
		closedir(d);
	tap_add(line, "consumers", buf_cstr(&list));
}

static void status_line(const struct engine *g, struct buf *line)
{
	char uuid[33];
	AUTO_BUF struct buf text = {0};

	hex(uuid, g->j.uuid, 16);
	watch_describe(&g->watch, &text);
	buf_str(line, "status");
	tap_add(line, "source", buf_cstr(&text));
	tap_add(line, "journal", uuid);
	add_number(line, "seq", g->j.last);
	add_number(line, "uptime", (clock_ms() - g->began_ms) / 1000);
	add_number(line, "events", g->n_events);
	add_number(line, "waiting", names_count(&g->heard.names));
	add_number(line, "memory", heard_size(&g->heard));
	add_number(line, "written", g->names);
	add_batches(g, line);
	add_number(line, "held", g->held);
	add_number(line, "gaps", g->n_gaps);
	tap_add(line, "last_gap", g->last_gap ? g->last_gap : "");
	tap_add(line, "failure", g->failure ? g->failure : "");
	add_consumers(g, line);
}

static void describe(const struct engine *g, struct buf *text)
{
	buf_str(text, "recording with ");
	watch_describe(&g->watch, text);
	buf_fmt(text, "; %u names waiting, %" PRIu64 " batches written, %" PRIu64 " gaps", names_count(&g->heard.names), g->j.last,
		g->n_gaps);
	if (g->last_gap)
		buf_fmt(text, ", the last at %s", g->last_gap);
}

/* sd_notify(3), by hand. */
static void notify(const struct engine *g, const char *text)
{
	const char *to = g->r->notify;
	struct sockaddr_un at = {.sun_family = AF_UNIX};

	if (!to || (to[0] != '/' && to[0] != '@') || strlen(to) >= sizeof at.sun_path)
		return;
	memcpy(at.sun_path, to, strlen(to));
	socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(to));
	if (to[0] == '@')
		at.sun_path[0] = '\0';
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* Who does not listen misses it. */
	if (fd >= 0)
		sendto(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&at, len);
}

static void notify_status(struct engine *g, uint64_t now, const char *more)
{
	AUTO_BUF struct buf text = {0};

	if (!g->r->notify || (!more[0] && now - g->status_ms < STATUS_MS))
		return;
	g->status_ms = now;
	buf_str(&text, more);
	buf_str(&text, "STATUS=");
	describe(g, &text);
	buf_str(&text, "\n");
	notify(g, buf_cstr(&text));
}

/* ---- clients ---- */

static void on_line(void *ctx, struct client *k, char *line)
{
	struct engine *g = ctx;
	char uuid[33];
	uint64_t ms;
	int end = 0;
	uint64_t now = clock_ms();

	if (!strcmp(line, "cut")) {
		k->asked = CLIENT_CUT;
	} else if (!strcmp(line, "status")) {
		AUTO_BUF struct buf answer = {0};
		status_line(g, &answer);
		clients_answer(k, buf_cstr(&answer), now);
	} else if (sscanf(line, "wait %32[0-9a-f] %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 "%n", uuid, &k->seq,
			&k->names, &k->bytes, &ms, &k->settle_ms, &end) == 6 && !line[end] && unhex(k->uuid, 16, uuid)) {
		k->settle_ms = min_u64(k->settle_ms, UINT32_MAX);
		k->until_ms = now + min_u64(ms, UINT32_MAX);
		k->asked = CLIENT_WAIT;
	} else {
		clients_answer(k, "no such question", now);
		clients_drop(k);
	}
}

/* ---- the loop ---- */

static void on_signal(struct engine *g)
{
	struct signalfd_siginfo s;

	while (read(g->signals, &s, sizeof s) == (ssize_t)sizeof s) {
		if (s.ssi_signo != SIGUSR1) {
			g->r->signal = (int)s.ssi_signo;
			g->is_stopped = true;
			continue;
		}
		AUTO_BUF struct buf text = {0};
		describe(g, &text);
		say(g, 0, "%s", buf_cstr(&text));
	}
}

static int hear_events(struct engine *g, struct err *e)
{
	uint64_t before = g->n_events;

	do {
		if (g->is_full && flush(g, e))
			return -1;
		if (watch_tell(&g->watch, &g->is_full, e))
			return -1;
	} while (g->is_full);
	if (g->n_events != before)
		g->event_ms = clock_ms();
	return 0;
}

/* After events they may gather for so long, unless somebody waits for a cut. A program that writes a thousand pages would otherwise wake
 * us, on the other processor, a thousand times; the kernel joins what it can in the queue, which holds 16384 (fanotify(7)). */
#define REST_MS 10u

static int turn(struct engine *g, uint64_t now, uint64_t until, struct err *e)
{
	struct pollfd p[2 + WATCH_FDS + CLIENTS_MAX + 1];
	size_t n = 2;
	bool rests = !g->is_out && now < g->event_ms + REST_MS;

	p[0] = (struct pollfd){.fd = g->signals, .events = POLLIN};
	p[1] = (struct pollfd){.fd = g->mounts, .events = POLLPRI};
	if (rests)
		until = min_u64(until, g->event_ms + REST_MS);
	else
		n += watch_fds(&g->watch, p + n);
	size_t first = n;
	n += clients_fds(&g->clients, p + n);
	if (poll(p, n, until > now ? (int)(until - now) : 0) < 0 && errno != EINTR)
		return err_sys(e, "cannot wait for events");
	if (p[0].revents)
		on_signal(g);
	if (hear_events(g, e))
		return -1;
	/* proc(5): a mount or unmount shows as an exceptional condition, until it is read about. */
	if (p[1].revents & (POLLPRI | POLLERR) && watch_check(&g->watch, e))
		return -1;
	clients_serve(&g->clients, p + first, n - first, clock_ms(), on_line, g);
	if (!g->is_out && send_marker(g, e))
		return -1;
	/* The marker may be back already. */
	if (g->is_out && hear_events(g, e))
		return -1;
	return g->is_out && g->is_back ? finish_cut(g, e) : 0;
}

static int loop(struct engine *g, struct err *e)
{
	while (!g->is_stopped) {
		uint64_t now = clock_ms(), until = now + 60000;
		if (serve_waiting(g, now, &until, e))
			return -1;
		uint64_t beat = g->r->watchdog_us / 2000;
		if (beat && now >= g->alive_ms + beat) {
			notify(g, "WATCHDOG=1\n");
			g->alive_ms = now;
		}
		if (beat)
			until = min_u64(until, g->alive_ms + beat);
		notify_status(g, now, "");
		if (turn(g, now, until, e))
			return -1;
	}
	return 0;
}

/* ---- beginning ---- */

static int cmp_paths(const void *x, const void *y)
{
	const char *const *p = x, *const *q = y;

	return strcmp(*p, *q);
}

/* Resolved, in order, and none below another. */
static int take_paths(struct engine *g, struct err *e)
{
	size_t n = 0;
	char text[300];

	g->paths = xalloc(g->r->n_paths * sizeof *g->paths);
	g->watch.paths = (const char *const *)g->paths;
	for (size_t i = 0; i < g->r->n_paths; i++) {
		struct stat st;
		char *path = realpath(g->r->paths[i], NULL);
		if (!path)
			return err_sys(e, "cannot record '%s'", esc_cut(text, sizeof text, span_cstr(g->r->paths[i])));
		g->paths[n++] = path;
		g->watch.n_paths = n;
		if (stat(path, &st))
			return err_sys(e, "cannot record '%s'", esc_cut(text, sizeof text, span_cstr(path)));
		if (!S_ISDIR(st.st_mode))
			return err_set(e, ERR_USAGE, "cannot record '%s': not a directory", esc_cut(text, sizeof text, span_cstr(path)));
	}
	qsort(g->paths, n, sizeof *g->paths, cmp_paths);
	size_t kept = 0;
	for (size_t i = 0; i < n; i++) {
		bool is_covered = false;
		for (size_t k = 0; k < kept && !is_covered; k++)
			is_covered = mounts_below(span_cstr(g->paths[i]), span_cstr(g->paths[k]));
		if (is_covered)
			free(g->paths[i]);
		else
			g->paths[kept++] = g->paths[i];
	}
	g->watch.n_paths = kept;
	return 0;
}

static int begin(struct engine *g, struct err *e)
{
	sigset_t set;
	AUTO_BUF struct buf text = {0};
	uint64_t seed = 0;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	if (take_paths(g, e) || journal_create(&g->j, g->r->journal, g->watch.paths, g->watch.n_paths, e))
		return -1;
	if (!(g->own = realpath(g->r->journal, NULL)))
		return err_sys(e, "cannot find the journal '%s'", g->r->journal);
	for (size_t i = 0; i < g->watch.n_paths; i++)
		if (mounts_below(span_cstr(g->watch.paths[i]), span_cstr(g->own)))
			return err_set(e, ERR_USAGE, "cannot record '%s': it lies in the journal", g->watch.paths[i]);
	if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
		return err_sys(e, "cannot get random bytes");
	g->heard.names.words.seed = g->heard.inodes.seed = g->heard.files.seed = seed;
	g->watch.seed = seed;
	g->watch.own = g->own;
	g->watch.warn = g->r->warn;
	g->watch.hear = (struct watch_hear){on_changed, on_lost, on_seen, g};
	g->heard.watch = &g->watch;
	g->heard.journal = &g->j;
	if (sigprocmask(SIG_BLOCK, &set, NULL) || (g->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
		return err_sys(e, "cannot take signals");
	/* Opened before the mounts are read: what is mounted meanwhile shows. */
	if ((g->mounts = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC)) < 0)
		return err_sys(e, "cannot open '/proc/self/mountinfo'");
	if (watch_open(&g->watch, g->r->source, e) || clients_open(&g->clients, g->j.dir, e))
		return -1;
	/* An unmount must not fail for our sake. */
	if (chdir("/"))
		return err_sys(e, "cannot change to '/'");
	g->is_ready = true;
	g->eras[g->n_eras++] = (struct era){.seq = g->j.last};
	buf_str(&text, "recording with ");
	watch_describe(&g->watch, &text);
	say(g, 1, "%s", buf_cstr(&text));
	g->alive_ms = g->began_ms;
	notify_status(g, clock_ms(), "READY=1\n");
	return 0;
}

int recorder_run(struct recorder *r, struct err *e)
{
	struct engine *g = xalloc(sizeof *g);

	r->memory = r->memory ? r->memory : MEMORY;
	g->r = r;
	g->signals = g->mounts = g->clients.fd = -1;
	g->j = JOURNAL_NONE;
	g->began_ms = g->event_ms = clock_ms();
	int rc = begin(g, e) || loop(g, e) ? -1 : 0;
	notify(g, "STOPPING=1\n");
	end_tending(g);
	clients_close(&g->clients);
	heard_free(&g->heard);
	watch_close(&g->watch);
	forget_counts(g);
	journal_close(&g->j);
	close_fd(&g->signals);
	close_fd(&g->mounts);
	for (size_t i = 0; i < g->watch.n_paths; i++)
		free(g->paths[i]);
	free(g->paths);
	free(g->own);
	free(g->devs);
	free(g->last_gap);
	free(g->failure);
	free(g);
	return rc;
}
