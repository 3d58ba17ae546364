#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attr.h"
#include "file.h"
#include "head.h"
#include "image.h"
#include "lock.h"

#define MARKER "repl-state"
#define MARKER_HEAD "repl-state 1\n"
#define SHOWN 300

static char *shown(char out[SHOWN], const struct state *s) { return esc_cut(out, SHOWN, span_cstr(s->path)); }

/* ---- files ---- */

/* A small file. 1, 0 when there is none, -1. */
static int read_small(int dirfd, const char *name, char *out, size_t n, struct err *e)
{
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	size_t at = 0;

	if (fd < 0)
		return errno == ENOENT ? 0 : err_sys(e, "cannot open '%s'", name);
	while (at < n - 1) {
		ssize_t got = read(fd, out + at, n - 1 - at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_sys(e, "cannot read '%s'", name);
		if (!got)
			break;
		at += (size_t)got;
	}
	out[at] = '\0';
	return 1;
}

int state_forget(const struct state *s, const char *name, struct err *e)
{
	if (unlinkat(s->fd, name, 0) && errno != ENOENT)
		return err_sys(e, "cannot remove '%s' in the state directory", name);
	return 0;
}

bool state_has(const struct state *s, const char *name)
{
	return faccessat(s->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

char *state_file(const struct state *s, const char *name)
{
	struct buf b = {0};

	buf_fmt(&b, "%s/%s", s->path, name);
	buf_cstr(&b);
	return (char *)b.p;
}

/* ---- the directory ---- */

static int is_vacant(const struct state *s, bool *vacant, struct err *e)
{
	static const char *const ours[] = {".", "..", "lock", "policy", MARKER ".new"};
	int fd = openat(s->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *en;

	if (!d) {
		close_fd(&fd);
		return err_sys(e, "cannot list the state directory");
	}
	*vacant = true;
	while ((en = readdir(d))) {
		size_t i = 0;
		while (i < sizeof ours / sizeof *ours && strcmp(en->d_name, ours[i]))
			i++;
		*vacant = *vacant && i < sizeof ours / sizeof *ours;
	}
	closedir(d);
	return 0;
}

/* 1, 0 when there is no marker, -1. */
static int read_marker(struct state *s, struct err *e)
{
	char text[128], where[SHOWN];
	size_t head = sizeof MARKER_HEAD - 1;
	int got = read_small(s->fd, MARKER, text, sizeof text, e);

	if (got != 1)
		return got;
	if (strncmp(text, MARKER_HEAD, head) || strlen(text) != head + 33 || text[head + 32] != '\n')
		return err_set(e, ERR_USAGE, "'%s' has a marker that this program does not know", shown(where, s));
	text[head + 32] = '\0';
	if (!unhex(s->instance, sizeof s->instance, text + head))
		return err_set(e, ERR_USAGE, "'%s' has a marker that this program does not know", shown(where, s));
	return 1;
}

static int write_marker(struct state *s, struct err *e)
{
	char text[sizeof MARKER_HEAD + 33], id[33];

	if (getrandom(s->instance, sizeof s->instance, 0) != (ssize_t)sizeof s->instance)
		return err_sys(e, "cannot get random bytes");
	hex(id, s->instance, sizeof s->instance);
	int n = snprintf(text, sizeof text, MARKER_HEAD "%s\n", id);
	return file_replace(s->fd, MARKER, text, (size_t)n, e);
}

static int found_state(struct state *s, struct err *e)
{
	char where[SHOWN];
	bool vacant = false;

	if (is_vacant(s, &vacant, e))
		return -1;
	if (!vacant)
		return err_set(e, ERR_USAGE, "'%s' is not empty and not a state directory: give one that does not exist",
			shown(where, s));
	/* Under the lock: of two that start together one makes the marker, the other finds it. */
	if (state_lock(s, 10, e))
		return -1;
	int got = read_marker(s, e);
	if (!got)
		got = write_marker(s, e);
	state_unlock(s);
	return got < 0 ? -1 : 0;
}

int state_open(struct state *s, const char *path, bool create, struct err *e)
{
	struct state new = {.fd = -1, .lock_fd = -1, .follow_fd = -1, .path = xstrdup(path)};
	struct attr a = {0};
	char where[SHOWN];
	int got = -1;

	if (create && mkdir(path, 0700) && errno != EEXIST) {
		err_sys(e, "cannot make the state directory '%s'", shown(where, &new));
		goto out;
	}
	new.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (new.fd < 0 && errno == ENOENT)
		err_set(e, ERR_USAGE, "there is no state directory '%s': run repl-snap -s first", shown(where, &new));
	else if (new.fd < 0)
		err_sys(e, "cannot open the state directory '%s'", shown(where, &new));
	if (new.fd < 0 || attr_stat(&a, new.fd, NULL, e))
		goto out;
	new.dev = a.hint.dev;
	new.ino = a.hint.ino;
	got = read_marker(&new, e);
	if (!got && !create)
		got = err_set(e, ERR_USAGE, "'%s' is not a state directory: run repl-snap -s first", shown(where, &new));
	else if (!got)
		got = found_state(&new, e);
out:
	attr_free(&a);
	if (got < 0) {
		state_close(&new);
		return -1;
	}
	*s = new;
	return 0;
}

void state_close(struct state *s)
{
	if (!s->path)
		return;
	state_unlock(s);
	state_unfollow(s);
	close_fd(&s->fd);
	free(s->path);
	*s = STATE_NONE;
}

static int take_lock(const struct state *s, const char *file, const char *how, unsigned wait, int *fd, struct err *e)
{
	AUTO_BUF struct buf held = {0};
	char where[SHOWN];

	buf_fmt(&held, "the state directory '%s' is %s", shown(where, s), how);
	return lock_take(s->fd, file, buf_cstr(&held), wait, fd, e);
}

int state_lock(struct state *s, unsigned wait, struct err *e) { return take_lock(s, "lock", "in use", wait, &s->lock_fd, e); }

int state_follow(struct state *s, struct err *e) { return take_lock(s, "follow", "followed", 0, &s->follow_fd, e); }

void state_unlock(struct state *s) { lock_drop(&s->lock_fd); }

void state_unfollow(struct state *s) { lock_drop(&s->follow_fd); }

/* An empty catalog comes into being whole, whoever else is about to make one. */
static int make_catalog(const struct state *s, struct err *e)
{
	AUTO_BUF struct buf name = {0};
	struct catalog *c = NULL;

	buf_fmt(&name, "catalog.%ld", (long)getpid());
	AUTO_FREE char *path = state_file(s, buf_cstr(&name));
	if (state_forget(s, buf_cstr(&name), e) || catalog_open(&c, path, CATALOG_LIVE, e))
		return -1;
	catalog_close(&c);
	int rc = linkat(s->fd, buf_cstr(&name), s->fd, "catalog", 0);
	if (rc && errno == EEXIST)
		rc = 0;
	if (rc)
		err_sys(e, "cannot make the catalog in the state directory");
	else if (fsync(s->fd))
		rc = err_sys(e, "cannot sync the state directory");
	return state_forget(s, buf_cstr(&name), e) || rc ? -1 : 0;
}

int state_catalog(const struct state *s, enum catalog_mode mode, struct catalog **c, struct err *e)
{
	AUTO_FREE char *path = state_file(s, "catalog");

	if (!state_has(s, "catalog") && make_catalog(s, e))
		return -1;
	return catalog_open_at(c, path, mode, STATE_ADVICE, e);
}

int state_journal(const struct state *s, char **path, struct err *e)
{
	char text[PATH_MAX + 2];
	int got = read_small(s->fd, "journal", text, sizeof text, e);
	size_t n = got == 1 ? strlen(text) : 0;

	if (got < 0)
		return -1;
	if (got && (n < 2 || text[0] != '/' || text[n - 1] != '\n'))
		return err_set(e, ERR_SYSTEM, "the state directory is damaged: 'journal' holds no path");
	if (got)
		text[n - 1] = '\0';
	*path = got ? xstrdup(text) : NULL;
	return 0;
}

/* Absolute, and without links as far as it is there. */
static int full_path(const char *path, struct buf *text, struct err *e)
{
	AUTO_FREE char *real = realpath(path, NULL);
	AUTO_FREE char *cwd = real || path[0] == '/' ? NULL : getcwd(NULL, 0);

	if (!real && path[0] != '/' && !cwd)
		return err_sys(e, "cannot tell what the current directory is");
	if (real || path[0] == '/')
		buf_fmt(text, "%s\n", real ? real : path);
	else
		buf_fmt(text, "%s/%s\n", cwd, path);
	return text->len > PATH_MAX ? err_set(e, ERR_USAGE, "the path of the journal is too long") : 0;
}

static int set_journal(struct state *s, const char *path, struct err *e)
{
	AUTO_BUF struct buf text = {0};

	if (strcmp(path, "none"))
		return full_path(path, &text, e) || file_replace(s->fd, "journal", text.p, text.len, e) ? -1 : 0;
	if (state_forget(s, "journal", e))
		return -1;
	return fsync(s->fd) ? err_sys(e, "cannot sync the state directory") : 0;
}

int state_use_journal(struct state *s, const char *path, unsigned wait, struct err *e)
{
	AUTO_FREE char *now = NULL;
	AUTO_BUF struct buf text = {0};
	bool is_none = !strcmp(path, "none");

	if (state_journal(s, &now, e) || (!is_none && full_path(path, &text, e)))
		return -1;
	/* Most runs: nobody has to wait for them. */
	if (is_none ? !now : now && span_eq(span_cstr(now), span_of(text.p, text.len - 1)))
		return 0;
	if (state_lock(s, wait, e))
		return -1;
	int rc = set_journal(s, path, e);
	state_unlock(s);
	return rc;
}

/* ---- the image under way ---- */

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		buf_add(ctx, v[i].p, v[i].len);
	return 0;
}

int state_save_image(struct state *s, const struct head *h, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct stream_out o = {.sink = into_buf, .ctx = &b};

	int rc = head_put(h, &o, KIND_IMAGE, e) || stream_finish(&o, e) || file_replace(s->fd, "image", b.p, b.len, e);
	stream_out_free(&o);
	return rc ? -1 : 0;
}

int state_load_image(const struct state *s, struct head *h, struct err *e)
{
	AUTO_CLOSE int fd = openat(s->fd, "image", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	char where[SHOWN];

	if (fd < 0 && errno == ENOENT)
		return err_set(e, ERR_USAGE, "the state directory '%s' has no image under way: run repl-snap first",
			shown(where, s));
	if (fd < 0)
		return err_sys(e, "cannot open '%s/image'", shown(where, s));
	return head_read(h, fd, "the state directory", e);
}

uint64_t state_number_of(const struct state *s, const struct r_image *stamps)
{
	return memcmp(stamps->instance, s->instance, sizeof s->instance) ? 0 : stamps->seq;
}

int state_base(const struct state *s, struct digest *id, uint64_t *seq, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct catalog *c = NULL;
	struct r_image stamps;

	if (state_catalog(s, CATALOG_READ, &c, e))
		return -1;
	int got = catalog_id(c, id, e) ? -1 : image_stamps(c, &stamps, &store, e);
	catalog_close(&c);
	*seq = got > 0 ? state_number_of(s, &stamps) : 0;
	return got < 0 ? -1 : 0;
}

int state_seq(const struct state *s, uint64_t *seq, struct err *e)
{
	char text[32], *end;
	int got = read_small(s->fd, "seq", text, sizeof text, e);

	if (got < 0)
		return -1;
	if (got) {
		errno = 0;
		uint64_t n = strtoull(text, &end, 10);
		if (errno || end == text || *end != '\n' || text[0] == '-')
			return err_set(e, ERR_SYSTEM, "the state directory is damaged: 'seq' holds no number");
		*seq = n;
		return 0;
	}
	/* Lost: go on from what the replica is known to have. */
	struct digest id;
	return state_base(s, &id, seq, e);
}

int state_next_seq(struct state *s, uint64_t *seq, struct err *e)
{
	uint64_t last;
	char text[32];

	if (state_seq(s, &last, e))
		return -1;
	int n = snprintf(text, sizeof text, "%" PRIu64 "\n", last + 1);
	if (file_replace(s->fd, "seq", text, (size_t)n, e))
		return -1;
	*seq = last + 1;
	return 0;
}
