#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"
#include "forced.h"
#include "path.h"

/* In the folder of the test: in/file, out/file. */
static bool prepare(int fd)
{
	int a, b;

	bool ok = !mkdirat(fd, "in", 0700) && !mkdirat(fd, "out", 0700) &&
		(a = openat(fd, "in/file", O_WRONLY | O_CREAT, 0600)) >= 0 && !close(a) &&
		(b = openat(fd, "out/file", O_WRONLY | O_CREAT, 0600)) >= 0 && !close(b);
	return ok;
}

static bool opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0600);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void *try_outside(void *ctx)
{
	*(bool *)ctx = opens("out/file", O_RDONLY);
	return NULL;
}

static void inside(int abi, int kept)
{
	bool from_thread = true;
	pthread_t t;

	CHECK(opens("in/file", O_RDWR) && opens("in/new", O_RDWR | O_CREAT) && opens("in", O_RDONLY | O_DIRECTORY));
	CHECK(!mkdir("in/d", 0700) && !rename("in/new", "in/d/new") && !link("in/d/new", "in/again") && !unlink("in/again"));
	CHECK(!symlink("../out/file", "in/link") && !truncate("in/file", 10));
	CHECK(!opens("out/file", O_RDONLY) && errno == EACCES);
	CHECK(!opens("in/link", O_RDONLY) && errno == EACCES);
	CHECK(!opens("out/new", O_WRONLY | O_CREAT) && errno == EACCES);
	CHECK(!opens("out", O_RDONLY | O_DIRECTORY) && errno == EACCES);
	CHECK(!opens("/etc/passwd", O_RDONLY) && errno == EACCES);
	CHECK(mkdir("out/d", 0700) && errno == EACCES);
	CHECK(unlink("out/file") && errno == EACCES);
	CHECK(rename("out/file", "in/moved") && rename("in/file", "out/moved") && link("out/file", "in/linked"));
	CHECK(geteuid() || (mknod("in/null", S_IFCHR | 0600, 0) && errno == EACCES));
	CHECK(abi < 3 || (truncate("out/file", 0) && errno == EACCES));
	CHECK(!pthread_create(&t, NULL, try_outside, &from_thread) && !pthread_join(t, NULL) && !from_thread);
	/* What was open stays so. */
	CHECK(write(kept, "x", 1) == 1);
	if (abi >= 4) {
		int s = socket(AF_INET, SOCK_STREAM, 0);
		struct sockaddr to = {.sa_family = AF_INET};
		CHECK(connect(s, &to, sizeof to) && errno == EACCES);
		close(s);
	}
	CHECK(abi < 6 || (kill(getppid(), 0) && errno == EPERM));
	/* A second time only less. */
	struct err e = {0};
	CHECK(confine_to(&(struct confine_dir){.path = "out"}, 1, &e) == abi);
	CHECK(!opens("in/file", O_RDONLY) && !opens("out/file", O_RDONLY));
}

static void read_only(void)
{
	CHECK(opens("in/file", O_RDONLY) && !opens("in/file", O_RDWR) && !opens("in/new2", O_WRONLY | O_CREAT));
	CHECK(opens("out/file", O_RDONLY) && !opens("out/file", O_WRONLY) && !opens("/etc/passwd", O_RDONLY));
}

/* Each time in a process of its own: there is no way back. */
static void in_child(const char *dir, const struct confine_dir *dirs, size_t n, bool is_read_only)
{
	pid_t child = fork();
	int status = 0;

	if (child == 0) {
		struct err e = {0};
		int kept = chdir(dir) ? -1 : open("out/file", O_WRONLY | O_CLOEXEC);
		unsigned long before = unit_failures;
		CHECK(kept >= 0);
		int abi = confine_to(dirs, n, &e);
		CHECK(abi >= 0);
		if (abi == 0)
			_exit(77);
		if (is_read_only)
			read_only();
		else
			inside(abi, kept);
		_exit(unit_failures != before);
	}
	CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		unit_skip("confine", "no Landlock here");
	else
		CHECK(WEXITSTATUS(status) == 0);
}

static void check_forced(const char *command, const char *want, const char *want_ignored)
{
	static const struct forced_option may[] = {{"--list", 'l'}, {"--verbose", 'v'}, {"--stats", 0}, {NULL, 0}};
	char prog[] = "prog", mine[] = "--own", dir[] = "/dir", *argv[] = {prog, mine, dir, NULL};
	AUTO_BUF struct buf ignored = {0}, got = {0};
	int n;
	AUTO_FREE char **args = forced_args(3, argv, command, may, &n, &ignored);

	for (int i = 0; i < n; i++)
		buf_fmt(&got, "%s%s", i ? " " : "", args[i]);
	CHECK(args[n] == NULL);
	CHECK_EQ_STR(buf_cstr(&got), want);
	CHECK_EQ_STR(buf_cstr(&ignored), want_ignored);
}

int unit_confine(void)
{
	unsigned long before = unit_failures;
	char dir[256];
	int fd = unit_tmpdir(dir, sizeof dir);

	if (CHECK(fd >= 0 && prepare(fd))) {
		in_child(dir, (struct confine_dir[]){{"in", false, true}, {"not there", false, true}}, 2, false);
		in_child(dir, (struct confine_dir[]){{"in", true, true}, {"out/file", true, true}}, 2, true);
	}
	const char *below = strrchr(dir, '/') + 1;
	AUTO_CLOSE int above = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct err e = {0};
	close(fd);
	CHECK_OK(path_remove(above, below, &e), e);
	check_forced(NULL, "prog --own /dir", "");
	check_forced("", "prog --own /dir", "");
	check_forced("prog -v  --stats\t/other\n", "prog --verbose --stats --own /dir", "");
	check_forced("-lvv", "prog --list --verbose --verbose --own /dir", "");
	check_forced("--list=x --lis -x -lx - -- --own /etc", "prog --own /dir", "--list=x --lis -x -lx - -- --own");
	check_forced("\"-v\" '--list' $(-v) ;-v", "prog --own /dir", "");
	check_forced("-\033[2J", "prog --own /dir", "-\\033[2J");
	return (int)(unit_failures - before);
}
