#include "snapexec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command.h"
#include "control.h"
#include "digest.h"
#include "file.h"

#define MARK "repl-image 1\n"
#define MARK_LEN (sizeof MARK - 1)
#define LATER "?"
#define PREFIX "exec:"
#define SHOWN 200

/* ---- which program ---- */

static const char *path_of(const char *how)
{
	return strncmp(how, PREFIX, sizeof PREFIX - 1) ? NULL : how + sizeof PREFIX - 1;
}

bool snapexec_is_name(const char *how)
{
	const char *path = path_of(how);

	if (path)
		return *path == '/';
	return *how && !how[strspn(how, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")];
}

/* We may be root. Whoever can write to the directory can put another program there. */
static int check_program(const char *program, enum err_kind kind, struct err *e)
{
	AUTO_FREE char *dir = xstrdup(program);
	struct stat st, above;
	char text[SHOWN];

	esc_cut(text, sizeof text, span_cstr(program));
	dir[strrchr(program, '/') - program + 1] = '\0';
	if (stat(program, &st) || stat(dir, &above))
		return err_set(e, kind, "cannot run the provider '%s': %s", text, strerror(errno));
	if (!S_ISREG(st.st_mode) || access(program, X_OK))
		return err_set(e, kind, "cannot run the provider '%s': it is no program", text);
	if (!file_is_trusted(&st) || !file_is_trusted(&above))
		return err_set(e, kind, "will not run the provider '%s': it or its directory belongs to somebody else, or others can write to it",
			text);
	return 0;
}

int snapexec_find(const char *how, const char *const *dirs, size_t n_dirs, char **program, struct err *e)
{
	const char *path = path_of(how);
	AUTO_FREE char *found = NULL;
	char text[SHOWN];

	esc_cut(text, sizeof text, span_cstr(how));
	if (!snapexec_is_name(how))
		return err_set(e, ERR_USAGE, "'%s' is no provider: auto, live, btrfs, reflink, exec:PROGRAM, or the name of a program", text);
	if (path && !(found = realpath(path, NULL)))
		return err_set(e, ERR_USAGE, "cannot find the provider '%s': %s", text, strerror(errno));
	for (size_t i = 0; i < n_dirs && !found; i++) {
		AUTO_BUF struct buf file = {0};
		buf_fmt(&file, "%s/%s", dirs[i], how);
		found = realpath(buf_cstr(&file), NULL);
	}
	if (!found) {
		AUTO_BUF struct buf list = {0};
		for (size_t i = 0; i < n_dirs; i++)
			buf_fmt(&list, "%s'%s'", i ? " and " : "", dirs[i]);
		return err_set(e, ERR_USAGE, "'%s' is no provider: there is no program of this name in %s", text, buf_cstr(&list));
	}
	if (check_program(found, ERR_USAGE, e))
		return -1;
	*program = found;
	found = NULL;
	return 0;
}

/* ---- running it ---- */

static int run(const struct provider_root *r, const char *verb, const char *name, int out_fd, struct err *e)
{
	AUTO_BUF struct buf root = {0}, text = {0}, own = {0};
	struct digest sum;
	char short_sum[9];

	if (!r->run)
		return err_set(e, ERR_SYSTEM, "only repl-snap runs providers");
	if (check_program(r->run->program, ERR_SYSTEM, e))
		return -1;
	/* Members of a group may be in the same volume. */
	digest_bytes(&sum, r->path.p, r->path.len);
	hex(short_sum, sum.b, 4);
	buf_fmt(&own, "%s-%s", name, short_sum);
	buf_add(&root, r->path.p, r->path.len);
	AUTO_FREE char *program = xstrdup(r->run->program), *what = xstrdup(verb), *which = xstrdup(buf_cstr(&own)), *where = xstrdup(buf_cstr(&root));
	char *const argv[] = {program, what, which, where, NULL};
	buf_fmt(&text, "%s %s %s %s", program, what, which, where);
	const struct command c = {.text = buf_cstr(&text), .argv = argv, .limit_ms = r->run->limit_ms, .log_fd = r->run->log_fd,
		.out_fd = out_fd, .running = r->run->running};
	return command_check(&c, command_run(&c), "the provider", e);
}

/* ---- the file that stands for it ---- */

/* dir: owned; -1 with the reason. */
static int images(const struct provider_root *r, bool make, struct err *e)
{
	char text[SHOWN];
	int dir = control_open(r->fd, PROVIDER_DIR, make);

	return dir < 0 ? err_sys(e, "cannot open '%s/.repl/" PROVIDER_DIR "'", esc_cut(text, sizeof text, r->path)) : dir;
}

/* What the file says beyond its mark, into path, which is empty when it says nothing; false: it is not there, or no such file. */
static bool read_place(int dir, const char *name, char path[PATH_MAX])
{
	char text[MARK_LEN + PATH_MAX];
	AUTO_CLOSE int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < (off_t)MARK_LEN || st.st_size >= (off_t)sizeof text)
		return false;
	size_t len = (size_t)st.st_size;
	if (file_read_at(fd, text, len, 0) || memcmp(text, MARK, MARK_LEN) || memchr(text, '\0', len))
		return false;
	memcpy(path, text + MARK_LEN, len - MARK_LEN);
	path[len - MARK_LEN] = '\0';
	return true;
}

static int prepare(const struct provider_root *r, const char *name, struct err *e)
{
	AUTO_CLOSE int dir = images(r, true, e);

	return dir < 0 ? -1 : file_replace(dir, name, MARK, MARK_LEN, e);
}

/* Opens what is said to be the content of the snapshot. -1: it is not, and why, in one phrase. */
static int open_place(const char *path, const char *name, const char **why)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char beyond[PATH_MAX];

	*why = "is no directory that can be opened";
	if (fd < 0)
		return -1;
	AUTO_CLOSE int dir = control_open(fd, PROVIDER_DIR, false);
	*why = "does not hold the snapshot";
	if (dir < 0 || !read_place(dir, name, beyond))
		return -1;
	*why = "shows what is there now, or something newer than the snapshot";
	if (*beyond)
		return -1;
	int mine = fd;
	fd = -1;
	return mine;
}

/* ---- the verbs ---- */

static int take(const struct provider_root *r, const char *name, char reason[512], struct err *e)
{
	(void)reason;
	return run(r, "create", name, 0, e) ? -1 : 1;
}

/* What the program prints is cut at the length of this memory: nothing has to read along, and it cannot fill ours. */
static int answer_fd(struct err *e)
{
	int fd = memfd_create("answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd >= 0 && (ftruncate(fd, PATH_MAX) || fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK)))
		close_fd(&fd);
	return fd < 0 ? err_sys(e, "cannot get memory for a provider's answer") : fd;
}

/* One line, with or without its end. */
static bool is_answer(char *text)
{
	char *nl = strchr(text, '\n');

	if (nl && nl[1])
		return false;
	if (nl)
		*nl = '\0';
	return *text == '/';
}

/* From now on the file here is not what the snapshot has. */
static int part_from_snapshot(int dir, const char *name, struct err *e)
{
	char path[PATH_MAX];

	return read_place(dir, name, path) && *path ? 0 : file_replace(dir, name, MARK LATER, MARK_LEN + sizeof LATER - 1, e);
}

static int settle(const struct provider_root *r, const char *name, struct err *e)
{
	AUTO_BUF struct buf place = {0};
	char answer[PATH_MAX + 1] = "", text[SHOWN], program[SHOWN];
	const char *why;

	AUTO_CLOSE int dir = images(r, false, e);
	AUTO_CLOSE int out = dir < 0 || part_from_snapshot(dir, name, e) ? -1 : answer_fd(e);
	if (out < 0 || run(r, "where", name, out, e))
		return -1;
	if (file_read_at(out, answer, PATH_MAX, 0))
		return err_sys(e, "cannot read a provider's answer");
	esc_cut(program, sizeof program, span_cstr(r->run->program));
	/* The longest is one without a zero byte at its end: it was cut. */
	if (answer[PATH_MAX - 1] || !is_answer(answer))
		return err_set(e, ERR_SYSTEM, "the provider '%s where' printed '%s', which is not one absolute path", program,
			esc_cut(text, sizeof text, span_cstr(answer)));
	AUTO_CLOSE int there = open_place(answer, name, &why);
	if (there < 0)
		return err_set(e, ERR_SYSTEM, "the provider '%s where' printed '%s', which %s", program,
			esc_cut(text, sizeof text, span_cstr(answer)), why);
	buf_str(&place, MARK);
	buf_str(&place, answer);
	return file_replace(dir, name, place.p, place.len, e);
}

static int open_it(const struct provider_root *r, const char *name, struct err *e)
{
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);
	char path[PATH_MAX], text[SHOWN], root[SHOWN];
	const char *why;

	if (dir < 0 || !read_place(dir, name, path) || *path != '/')
		return provider_refuse(r, name, "is gone", e);
	int fd = open_place(path, name, &why);
	if (fd < 0)
		return err_set(e, ERR_SYSTEM, "the image's snapshot %s of '%s' is not at '%s', which %s: find it with repl-snap --again, or "
			"take a new image", name, esc_cut(root, sizeof root, r->path), esc_cut(text, sizeof text, span_cstr(path)), why);
	return fd;
}

static int drop(const struct provider_root *r, const char *name, struct err *e)
{
	if (run(r, "delete", name, 0, e))
		return -1;
	AUTO_BUF struct buf tmp = {0};
	AUTO_CLOSE int dir = control_open(r->fd, PROVIDER_DIR, false);
	buf_fmt(&tmp, "%s.new", name);
	if (dir >= 0) {
		unlinkat(dir, buf_cstr(&tmp), 0);
		unlinkat(dir, name, 0);
	}
	return 0;
}

const struct provider snapexec_provider = {.name = "exec", .runs_programs = true, .can_be_frozen = true, .is_of_one_instant = true,
	.prepare = prepare, .take = take, .settle = settle, .open = open_it, .drop = drop};
