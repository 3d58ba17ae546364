#include "../../libcore/path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

static void touch(int dirfd, const char *path)
{
	int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (CHECK(fd >= 0))
		close(fd);
}

static bool exists(int dirfd, const char *path)
{
	struct stat st;
	return !fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW);
}

static bool same_object(int fd, int dirfd, const char *path)
{
	struct stat a, b;
	return !fstat(fd, &a) && !fstatat(dirfd, path, &b, AT_SYMLINK_NOFOLLOW) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static unsigned open_descriptors(void)
{
	unsigned n = 0;
	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void strings(void)
{
	struct buf b = {0};
	struct span dir, name;
	path_push(&b, span_cstr("a"));
	path_push(&b, span_cstr("bc"));
	path_push(&b, span_cstr("d"));
	CHECK_EQ_STR(buf_cstr(&b), "a/bc/d");
	path_split(span_of(b.p, b.len), &dir, &name);
	CHECK(span_eq(dir, span_cstr("a/bc")) && span_eq(name, span_cstr("d")));
	path_pop(&b);
	CHECK_EQ_STR(buf_cstr(&b), "a/bc");
	path_pop(&b);
	path_split(span_of(b.p, b.len), &dir, &name);
	CHECK(dir.len == 0 && span_eq(name, span_cstr("a")));
	path_pop(&b);
	CHECK_EQ_U64(b.len, 0);
	path_pop(&b);
	path_split(span_of(b.p, b.len), &dir, &name);
	CHECK(dir.len == 0 && name.len == 0);
	buf_free(&b);
}

static void opening(int root)
{
	static const char *const unsafe[] = {"/", "/etc", "..", ".", "a/..", "a/../a", "a//b", "a/", "./a", "../etc"};
	static const char *const missing[] = {"none", "a/none", "a/none/b"};
	static const char *const links[] = {"l", "l/passwd", "a/out", "a/out/f", "self", "self/x"};
	struct err e = {0};
	char name[256];
	int fd;
	CHECK(!mkdirat(root, "a", 0755) && !mkdirat(root, "a/b", 0755));
	touch(root, "a/b/f");
	CHECK(!symlinkat("/etc", root, "l") && !symlinkat("b", root, "a/out") && !symlinkat("self", root, "self"));
	CHECK(!mkfifoat(root, "fifo", 0600));

	for (size_t i = 0; i < sizeof(unsafe) / sizeof(unsafe[0]); i++) {
		err_clear(&e);
		CHECK(path_dir(root, span_cstr(unsafe[i]), &e) == -1 && e.kind == ERR_REFUSED);
		err_clear(&e);
		CHECK(path_open(root, span_cstr(unsafe[i]), O_RDONLY, 0, &e) == -1 && e.kind == ERR_REFUSED);
		err_clear(&e);
		CHECK(path_parent(root, span_cstr(unsafe[i]), name, &e) == -1 && e.kind == ERR_REFUSED);
	}
	err_clear(&e);
	CHECK(path_dir(root, span_of("a\0b", 3), &e) == -1 && e.kind == ERR_REFUSED);
	for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++) {
		err_clear(&e);
		CHECK(path_dir(root, span_cstr(missing[i]), &e) == -1 && e.kind == ERR_SYSTEM && e.sys == ENOENT);
	}
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
		err_clear(&e);
		CHECK(path_open(root, span_cstr(links[i]), O_RDONLY, 0, &e) == -1 && e.sys == ELOOP);
		err_clear(&e);
		CHECK(path_dir(root, span_cstr(links[i]), &e) == -1 && e.sys == ELOOP);
	}
	err_clear(&e);
	CHECK(path_dir(root, span_cstr("a/b/f"), &e) == -1 && e.sys == ENOTDIR);
	err_clear(&e);

	fd = path_dir(root, span_of(NULL, 0), &e);
	CHECK(fd >= 0 && same_object(fd, root, "."));
	close_fd(&fd);
	fd = path_dir(root, span_cstr("a/b"), &e);
	CHECK(fd >= 0 && same_object(fd, root, "a/b") && fcntl(fd, F_GETFD) == FD_CLOEXEC);
	close_fd(&fd);
	fd = path_open(root, span_cstr("a/b/f"), O_RDONLY, 0, &e);
	CHECK(fd >= 0 && same_object(fd, root, "a/b/f"));
	close_fd(&fd);
	fd = path_open(root, span_cstr("a/b/new"), O_RDWR | O_CREAT | O_EXCL, 0600, &e);
	CHECK(fd >= 0 && same_object(fd, root, "a/b/new"));
	close_fd(&fd);
	fd = path_open(root, span_cstr("fifo"), O_RDONLY, 0, &e); /* would block for ever */
	CHECK(fd >= 0);
	close_fd(&fd);
	fd = path_parent(root, span_cstr("a/b/f"), name, &e);
	CHECK(fd >= 0 && same_object(fd, root, "a/b"));
	CHECK_EQ_STR(name, "f");
	close_fd(&fd);
	fd = path_parent(root, span_cstr("a"), name, &e);
	CHECK(fd >= 0 && same_object(fd, root, "."));
	close_fd(&fd);
	fd = path_open(root, span_cstr("self"), O_PATH, 0, &e);
	CHECK(fd >= 0 && same_object(fd, root, "self"));
	close_fd(&fd);

	CHECK(path_open_at(root, "l", O_RDONLY, 0) == -1 && errno == ELOOP);
	CHECK(path_open_at(root, "a/b", O_RDONLY, 0) == -1 && errno == EINVAL);
	CHECK(path_open_at(root, "..", O_RDONLY, 0) == -1 && errno == EINVAL);
	fd = path_open_at(root, "fifo", O_RDONLY, 0);
	CHECK(fd >= 0);
	close_fd(&fd);
	CHECK(e.kind == ERR_NONE);
	CHECK_OK(path_remove(root, "a", &e), e);
	CHECK_OK(path_remove(root, "l", &e), e);
	CHECK_OK(path_remove(root, "self", &e), e);
	CHECK_OK(path_remove(root, "fifo", &e), e);
	CHECK_OK(path_remove(root, "never", &e), e);
	CHECK(exists(AT_FDCWD, "/etc/passwd"));
	CHECK(path_remove(root, "..", &e) == -1 && e.kind == ERR_REFUSED);
}

/* A chain of n directories below root; the path of the deepest one in b. */
static void chain(int root, const char *component, unsigned n, struct buf *b)
{
	int at = root;
	for (unsigned i = 0; i < n; i++) {
		if (mkdirat(at, component, 0755) && errno != EEXIST)
			break;
		int next = openat(at, component, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (at != root)
			close(at);
		at = next;
		path_push(b, span_cstr(component));
	}
	touch(at, "bottom");
	if (at != root)
		close(at);
}

static void deep(int root, const char *component, unsigned n)
{
	struct err e = {0};
	struct buf b = {0};
	struct rlimit keep, few;
	chain(root, component, n, &b);
	unsigned before = open_descriptors();
	int fd = path_dir(root, span_of(b.p, b.len), &e);
	CHECK(fd >= 0 && exists(fd, "bottom"));
	close_fd(&fd);
	path_push(&b, span_cstr("bottom"));
	fd = path_open(root, span_of(b.p, b.len), O_RDONLY, 0, &e);
	CHECK(fd >= 0);
	close_fd(&fd);
	path_push(&b, span_cstr("more"));
	CHECK(path_dir(root, span_of(b.p, b.len), &e) == -1 && e.sys == ENOTDIR);
	err_clear(&e);
	CHECK_EQ_U64(open_descriptors(), before);

	struct path_cache *c = path_cache_new(root);
	path_pop(&b);
	path_pop(&b);
	while (b.len > 0) {
		fd = path_cached(c, span_of(b.p, b.len), &e);
		if (!CHECK(fd >= 0))
			break;
		for (int i = 0; i < 37; i++)
			path_pop(&b);
	}
	CHECK(open_descriptors() <= before + 64);
	path_cache_free(&c);
	CHECK_EQ_U64(open_descriptors(), before);

	getrlimit(RLIMIT_NOFILE, &keep);
	few = keep;
	few.rlim_cur = 64 + 8;
	setrlimit(RLIMIT_NOFILE, &few);
	CHECK_OK(path_remove(root, component, &e), e);
	setrlimit(RLIMIT_NOFILE, &keep);
	CHECK(!exists(root, component));
	CHECK_EQ_U64(open_descriptors(), before);
	buf_free(&b);
}

static void wide(int root)
{
	struct err e = {0};
	char path[64];
	CHECK(!mkdirat(root, "w", 0755));
	for (unsigned i = 0; i < 40; i++) {
		snprintf(path, sizeof(path), "w/%u", i);
		CHECK(!mkdirat(root, path, 0755));
		for (unsigned k = 0; k < 40; k++) {
			snprintf(path, sizeof(path), "w/%u/%u", i, k);
			touch(root, path);
		}
		struct buf b = {0};
		snprintf(path, sizeof(path), "w/%u", i);
		int fd = openat(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		chain(fd, "deep", 70, &b);
		close(fd);
		buf_free(&b);
	}
	touch(root, "w/.repl-remove-0"); /* in the way of what is lifted */
	CHECK(!mkdirat(root, "w/.repl-remove-1", 0755));
	touch(root, "w/.repl-remove-1/f");
	CHECK_OK(path_remove(root, "w", &e), e);
	CHECK(!exists(root, "w"));
}

static void cache(int root)
{
	struct err e = {0};
	char path[32];
	unsigned before = open_descriptors();
	struct path_cache *c = path_cache_new(root);
	CHECK(!mkdirat(root, "c", 0755) && !mkdirat(root, "cc", 0755));
	for (unsigned i = 0; i < 200; i++) {
		snprintf(path, sizeof(path), "c/%u", i);
		CHECK(!mkdirat(root, path, 0755));
	}
	CHECK(path_cached(c, span_of(NULL, 0), &e) == root);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < 200; i++) {
			snprintf(path, sizeof(path), "c/%u", i);
			int fd = path_cached(c, span_cstr(path), &e);
			CHECK(fd >= 0 && same_object(fd, root, path));
			fd = path_cached(c, span_cstr("c"), &e);
			CHECK(fd >= 0 && same_object(fd, root, "c"));
		}
	CHECK(open_descriptors() <= before + 64);
	int fd = path_cached(c, span_cstr("cc"), &e);
	CHECK(fd >= 0);
	path_cache_drop(c, span_cstr("c"));
	CHECK_EQ_U64(open_descriptors(), before + 1); /* "cc" is not below "c" */
	CHECK(!renameat(root, "c", root, "d") && !mkdirat(root, "c", 0755));
	fd = path_cached(c, span_cstr("c"), &e);
	CHECK(fd >= 0 && same_object(fd, root, "c"));
	CHECK(path_cached(c, span_cstr("c/none"), &e) == -1 && e.sys == ENOENT);
	path_cache_drop(c, span_of(NULL, 0));
	CHECK_EQ_U64(open_descriptors(), before);
	path_cache_free(&c);
	path_cache_free(&c);
	err_clear(&e);
	CHECK_OK(path_remove(root, "c", &e), e);
	CHECK_OK(path_remove(root, "cc", &e), e);
	CHECK_OK(path_remove(root, "d", &e), e);
}

static void obstacles(int root)
{
	struct err e = {0};
	int keep[2] = {-1, -1};
	static const char *const locked[] = {"o/dir", "o/file"};
	CHECK(!mkdirat(root, "o", 0755) && !mkdirat(root, "o/dir", 0755) && !mkdirat(root, "o/closed", 0755) &&
		!mkdirat(root, "o/closed/in", 0755) && !mkdirat(root, "o/empty", 0));
	touch(root, "o/dir/f");
	touch(root, "o/file");
	touch(root, "o/closed/f");
	touch(root, "o/closed/in/f");
	CHECK(!symlinkat("/etc", root, "o/dir/out") && !symlinkat("..", root, "o/up") && !mkfifoat(root, "o/fifo", 0));
	CHECK(!fchmodat(root, "o/closed/in", 0, 0) && !fchmodat(root, "o/closed", 0, 0));
	bool flags = geteuid() == 0;
	for (size_t i = 0; i < 2 && flags; i++) {
		int v = i ? FS_IMMUTABLE_FL : FS_APPEND_FL, old = 0;
		keep[i] = openat(root, locked[i], O_RDONLY | O_CLOEXEC);
		flags = !ioctl(keep[i], FS_IOC_GETFLAGS, &old);
		v |= old;
		flags = flags && !ioctl(keep[i], FS_IOC_SETFLAGS, &v);
		close_fd(&keep[i]);
	}
	if (!flags)
		unit_skip("path", "immutable files (not root, or not on this filesystem)");
	CHECK(!fchmodat(root, "o", 0500, 0));
	CHECK_OK(path_remove(root, "o", &e), e);
	CHECK(!exists(root, "o") && exists(AT_FDCWD, "/etc/passwd"));

	/* A deep chain of directories that their owner cannot enter. */
	struct buf b = {0};
	CHECK(!mkdirat(root, "p", 0755));
	int fd = path_dir(root, span_cstr("p"), &e);
	chain(fd, "x", 100, &b);
	while (b.len > 0) {
		int at = path_dir(fd, span_of(b.p, b.len), &e);
		CHECK(at >= 0 && !fchmod(at, 0));
		close_fd(&at);
		path_pop(&b);
	}
	close_fd(&fd);
	CHECK_OK(path_remove(root, "p", &e), e);
	CHECK(!exists(root, "p"));
	buf_free(&b);
}

/* In a child with mounts of its own. 0: refused and intact, 1: not, 2: cannot mount. */
static int try_mount(int root, const char *base, bool is_bind)
{
	char at[600], from[600];
	struct err e = {0};
	snprintf(at, sizeof(at), "%s/m/in/mnt", base);
	snprintf(from, sizeof(from), "%s/mfrom", base);
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 2;
	if (is_bind ? mount(from, at, NULL, MS_BIND, NULL) : mount("none", at, "tmpfs", 0, NULL))
		return 2;
	touch(AT_FDCWD, is_bind ? strcat(from, "/precious") : strcat(at, "/precious"));
	bool refused = path_remove(root, "m", &e) == -1 && e.kind == ERR_SYSTEM && (e.sys == EXDEV || e.sys == EBUSY);
	return refused && exists(AT_FDCWD, is_bind ? from : at) ? 0 : 1;
}

static void mounts(int root, const char *base)
{
	struct err e = {0};
	for (int is_bind = 0; is_bind < 2; is_bind++) {
		int status = 0;
		CHECK(!mkdirat(root, "mfrom", 0755) && !mkdirat(root, "m", 0755) && !mkdirat(root, "m/in", 0755) &&
			!mkdirat(root, "m/in/mnt", 0755));
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0)
			_exit(try_mount(root, base, is_bind));
		CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
		if (WEXITSTATUS(status) == 2)
			unit_skip("path", "mount points (may not mount)");
		else
			CHECK_EQ_U64((uint64_t)WEXITSTATUS(status), 0);
		CHECK_OK(path_remove(root, "m", &e), e);
		CHECK_OK(path_remove(root, "mfrom", &e), e);
	}
}

/* Somebody swaps a directory for a link to another while we open below it. */
static void swapped(int root)
{
	struct err e = {0};
	unsigned inside = 0, outside = 0;
	CHECK(!mkdirat(root, "s", 0755) && !mkdirat(root, "s/d", 0755) && !mkdirat(root, "evil", 0755));
	touch(root, "s/d/f");
	touch(root, "evil/f");
	CHECK(!symlinkat("../evil", root, "s/l"));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			renameat2(root, "s/d", root, "s/l", RENAME_EXCHANGE);
	}
	for (int i = 0; i < 20000; i++) {
		int fd = path_open(root, span_cstr("s/d/f"), O_RDONLY, 0, &e);
		if (fd >= 0) {
			if (same_object(fd, root, "evil/f"))
				outside++;
			else
				inside++;
			close(fd);
		}
		err_clear(&e);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK_EQ_U64(outside, 0);
	CHECK(inside > 0);
	CHECK_OK(path_remove(root, "s", &e), e);
	CHECK(exists(root, "evil/f"));
	CHECK_OK(path_remove(root, "evil", &e), e);
}

/* Somebody moves a directory out of what we open below, and back, while we do. It is there or it is not: openat2 calls it EXDEV
 * where it went on the way. */
static void moved_out(int root)
{
	struct err e = {0};
	unsigned inside = 0, others = 0;
	CHECK(!mkdirat(root, "in", 0755) && !mkdirat(root, "in/a", 0755) && !mkdirat(root, "in/a/b", 0755) &&
		!mkdirat(root, "in/a/b/c", 0755) && !mkdirat(root, "out", 0755));
	int in = path_dir(root, span_cstr("in"), &e);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			renameat(root, "in/a", root, "out/a");
			renameat(root, "out/a", root, "in/a");
		}
	}
	for (int i = 0; i < 20000; i++) {
		int fd = path_dir(in, span_cstr("a/b/c"), &e);
		inside += fd >= 0;
		others += fd < 0 && e.sys != ENOENT;
		if (fd >= 0)
			close(fd);
		err_clear(&e);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(in);
	CHECK(inside > 0);
	CHECK_EQ_U64(others, 0);
	CHECK_OK(path_remove(root, "in", &e), e);
	CHECK_OK(path_remove(root, "out", &e), e);
}

int unit_path(void)
{
	unsigned long before = unit_failures;
	char base[512];
	char name[256];
	int root = unit_tmpdir(base, sizeof(base));
	if (root < 0)
		return 1;
	strings();
	opening(root);
	deep(root, "d", 10000);
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	deep(root, name, 40);
	wide(root);
	cache(root);
	obstacles(root);
	mounts(root, base);
	swapped(root);
	moved_out(root);
	close(root);
	CHECK(!rmdir(base));
	return (int)(unit_failures - before);
}
