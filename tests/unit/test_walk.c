/* walk: order, what is left out, trees that are deep, large, forbidden or changing under our feet. */
#include "../../libcore/walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* Everything that happened, one line an event. */
struct log {
	struct buf text, warnings;
	size_t n_entries, n_dirs, n_unreadable, n_bad_dirfd;
	unsigned max_fd;
};
static void log_free(struct log *l)
{
	buf_free(&l->text);
	buf_free(&l->warnings);
}

static void say(void *ctx, const char *kind, const char *text)
{
	struct log *l = ctx;

	buf_fmt(&l->warnings, "%s: %s\n", kind, text);
}

static bool is_text(struct buf *b, const char *want)
{
	if (strcmp(buf_cstr(b), want) == 0)
		return true;
	fprintf(stderr, "want:\n%sgot:\n%s", want, buf_cstr(b));
	return false;
}

struct plan { /* what to do on the way */
	struct walk_options o;
	const char *skip;                                        /* directory to skip */
	void (*hook)(const struct walk_entry *en, void *ctx);    /* at every event */
	void *ctx;
	bool quiet; /* count only */
};

static const char *const event_names[] = {"end", "dir", "entry", "leave"};

/* Names resolve below dirfd to the object that was reported. */
static bool dirfd_fits(const struct walk_entry *en)
{
	struct stat st;
	char name[256];

	if (en->event == WALK_LEAVE || en->depth == 0)
		return fstat(en->dirfd, &st) == 0 && st.st_ino == en->attr->hint.ino;
	memcpy(name, en->name.p, en->name.len);
	name[en->name.len] = '\0';
	return fstatat(en->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == en->attr->hint.ino;
}

static int go(struct log *l, const struct walk_root *roots, size_t n, const struct plan *p)
{
	struct walk_options o = p ? p->o : (struct walk_options){0};
	struct warn wn = {say, l};
	struct walk *w = NULL;
	struct walk_entry en;
	struct err e = {0};
	int status;

	if (!o.warn)
		o.warn = &wn;
	if (walk_open(&w, roots, n, &o, &e) < 0)
		return -1;
	while ((status = walk_next(w, &en, &e)) == 0 && en.event != WALK_END) {
		if (!p || !p->quiet) {
			buf_fmt(&l->text, "%s %u ", event_names[en.event], en.depth);
			buf_add(&l->text, en.path.p, en.path.len);
			buf_str(&l->text, en.is_mount ? " mount" : "");
			buf_str(&l->text, en.unreadable ? " unreadable\n" : "\n");
		}
		l->n_entries += en.event != WALK_LEAVE;
		l->n_dirs += en.event == WALK_DIR;
		l->n_unreadable += en.unreadable;
		if (en.dirfd >= 0 && !dirfd_fits(&en))
			l->n_bad_dirfd++;
		if (en.dirfd >= 0 && (unsigned)en.dirfd > l->max_fd)
			l->max_fd = (unsigned)en.dirfd;
		if (p && p->skip && en.event == WALK_DIR && span_eq(en.path, span_cstr(p->skip)))
			walk_skip(w);
		if (p && p->hook)
			p->hook(&en, p->ctx);
	}
	walk_close(&w);
	walk_close(&w);
	return status;
}

static char base[4096];
static char *make_base(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(base, sizeof base, "%s/unit-walk.XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
	return mkdtemp(base);
}

static void clear_base(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		execlp("rm", "rm", "-rf", "--", base, (char *)NULL);
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, NULL, 0);
}

static int open_base(void) { return open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC); }

static void touch(int at, const char *name)
{
	int fd = openat(at, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

	close_fd(&fd);
}

static const unsigned thread_counts[] = {1, 2, 8};
#define N_COUNTS (sizeof thread_counts / sizeof thread_counts[0])

static void test_order(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};

	mkdirat(fd, "a", 0700);
	mkdirat(fd, "a/.repl", 0700);
	mkdirat(fd, "a b", 0700);
	mkdirat(fd, "a-", 0700);
	mkdirat(fd, ".repl", 0700);
	touch(fd, ".repl/state");
	touch(fd, "a/z");
	touch(fd, "a/Z");
	touch(fd, "a/\xff\xfe");
	touch(fd, "a/long-name-1");
	touch(fd, "a/long-name-10");
	touch(fd, "a/long-name-2");
	touch(fd, "a b/x");
	touch(fd, "ab");
	CHECK(symlinkat("/", fd, "link") == 0);
	CHECK(mkfifoat(fd, "pipe", 0600) == 0);
	for (size_t i = 0; i < N_COUNTS; i++) {
		struct log l = {0};
		struct plan p = {.o = {.threads = thread_counts[i]}};

		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(is_text(&l.text,
			"dir 0 \n"
			"dir 1 a\ndir 2 a/.repl\nleave 2 a/.repl\nentry 2 a/Z\nentry 2 a/long-name-1\n"
			"entry 2 a/long-name-10\nentry 2 a/long-name-2\nentry 2 a/z\nentry 2 a/\xff\xfe\nleave 1 a\n"
			"dir 1 a b\nentry 2 a b/x\nleave 1 a b\ndir 1 a-\nleave 1 a-\nentry 1 ab\nentry 1 link\n"
			"entry 1 pipe\nleave 0 \n"));
		CHECK(l.warnings.len == 0 && l.n_bad_dirfd == 0);
		log_free(&l);

		p.skip = "a";
		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(strstr(buf_cstr(&l.text), "dir 1 a\nleave 1 a\ndir 1 a b\n") != NULL);
		log_free(&l);
	}
}

static void test_roots(void)
{
	AUTO_CLOSE int fd = open_base(), one = -1, two = -1;
	struct log l = {0};

	mkdirat(fd, "r1", 0700);
	mkdirat(fd, "r2", 0700);
	touch(fd, "r1/f");
	mkdirat(fd, "r2/.repl", 0700);
	mkdirat(fd, "r2/d", 0700);
	one = openat(fd, "r1", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	two = openat(fd, "r2", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CHECK(go(&l, (struct walk_root[]){{"etc", one}, {"var", two}}, 2, NULL) == 0);
	CHECK(is_text(&l.text, "dir 0 etc\nentry 1 etc/f\nleave 0 etc\ndir 0 var\ndir 1 var/d\nleave 1 var/d\nleave 0 var\n"));
	log_free(&l);
	CHECK(go(&l, NULL, 0, NULL) == 0);
	CHECK(l.text.len == 0);
	log_free(&l);
}

struct asked {
	struct buf paths;
};
static bool not_no(void *ctx, struct span path, uint8_t type)
{
	struct asked *a = ctx;

	(void)type;
	buf_add(&a->paths, path.p, path.len);
	buf_add(&a->paths, "\n", 1);
	return path.len < 2 || memcmp(path.p + path.len - 2, "no", 2) != 0;
}

static size_t count(struct buf *b, const char *what)
{
	size_t n = 0;

	for (const char *p = buf_cstr(b); (p = strstr(p, what)) != NULL; p++)
		n++;
	return n;
}

static void test_accept(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};

	mkdirat(fd, "d", 0700);
	mkdirat(fd, "d/no", 0700);
	touch(fd, "d/no/inside");
	touch(fd, "d/fno");
	touch(fd, "d/yes");
	mkdirat(fd, "e", 0700);
	for (size_t i = 0; i < N_COUNTS; i++) {
		struct log l = {0};
		struct asked a = {0};
		struct plan p = {.o = {.threads = thread_counts[i], .accept = not_no, .ctx = &a}};

		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(is_text(&l.text, "dir 0 \ndir 1 d\nentry 2 d/yes\nleave 1 d\ndir 1 e\nleave 1 e\nleave 0 \n"));
		CHECK(count(&a.paths, "inside") == 0);
		CHECK(count(&a.paths, "d/no\n") == 1 && count(&a.paths, "d/yes\n") == 1);
		log_free(&l);
		buf_free(&a.paths);
	}
}

/* /proc is another filesystem wherever there is one. */
static void test_mount(void)
{
	AUTO_CLOSE int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat top, proc;
	struct walk *w = NULL;
	struct walk_entry en = {.event = WALK_DIR};
	struct err e = {0};
	struct walk_root root = {"", fd};
	struct walk_options o = {.threads = 1, .one_file_system = true};
	bool is_seen = false;

	if (fstat(fd, &top) || fstatat(fd, "proc", &proc, 0) || top.st_dev == proc.st_dev) {
		unit_skip("walk", "/proc is not a mount here");
		return;
	}
	CHECK(walk_open(&w, &root, 1, &o, &e) == 0);
	while (walk_next(w, &en, &e) == 0 && en.event != WALK_END) {
		if (en.event == WALK_DIR && en.depth == 1 && span_eq(en.path, span_cstr("proc"))) {
			CHECK(en.is_mount && !en.unreadable);
			CHECK(en.attr->hint.dev == proc.st_dev && en.attr->hint.ino == proc.st_ino);
			CHECK(walk_next(w, &en, &e) == 0 && en.event == WALK_LEAVE && en.is_mount);
			is_seen = true;
			break;
		}
		if (en.event == WALK_DIR && en.depth == 1)
			walk_skip(w);
	}
	CHECK(is_seen);
	walk_close(&w);
}

/* Names of every length class in one directory, through memory and through the temporary file. */
static void test_large(void)
{
	enum { N = 6000 };
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};
	struct log ref = {0};

	for (unsigned i = 0; i < N; i++) {
		char name[300];
		unsigned x = i * 2654435761u;

		snprintf(name, sizeof name, "%s%x", i % 7 ? "" : "long-names-long-names-long-names-long-names-", x);
		if (i % 1000 == 0)
			mkdirat(fd, name, 0700);
		else
			touch(fd, name);
	}
	for (size_t i = 0; i < N_COUNTS; i++)
		for (size_t k = 0; k < 3; k++) {
			struct log l = {0};
			struct plan p = {.o = {.threads = thread_counts[i], .tmpdir = base,
				.spill_at = k == 0 ? 0 : k == 1 ? 1000 : 1}};

			CHECK(go(&l, &root, 1, &p) == 0);
			CHECK(l.n_entries == N + 1 && l.n_dirs == N / 1000 + 1 && l.n_bad_dirfd == 0 && l.warnings.len == 0);
			if (!ref.text.len) {
				ref = l;
				continue;
			}
			CHECK(l.text.len == ref.text.len && memcmp(l.text.p, ref.text.p, l.text.len) == 0);
			log_free(&l);
		}
	/* in byte order */
	const char *before = NULL;
	AUTO_BUF struct buf lines = {0};
	buf_add(&lines, ref.text.p, ref.text.len);
	bool is_sorted = true;
	for (char *line = strtok((char *)(uintptr_t)buf_cstr(&lines), "\n"); line; line = strtok(NULL, "\n")) {
		const char *name = strrchr(line, ' ') + 1;

		if (strncmp(line, "leave", 5) == 0 || name[0] == '\0')
			continue;
		if (before && strcmp(before, name) >= 0)
			is_sorted = false;
		before = name;
	}
	CHECK(is_sorted);
	log_free(&ref);

	struct log l = {0};
	struct plan p = {.o = {.tmpdir = "/nonexistent", .spill_at = 1000}};
	CHECK(go(&l, &root, 1, &p) == -1);
	log_free(&l);
}

static int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n - 3; /* ".", "..", its own */
}

static void watch_fds(const struct walk_entry *en, void *ctx)
{
	int *most = ctx;

	if (en->depth % 200 == 0) {
		int n = open_fds();

		*most = n > *most ? n : *most;
	}
}

static void make_chain(int at, unsigned depth, bool with_siblings)
{
	int fd = dup(at);

	for (unsigned i = 0; i < depth && fd >= 0; i++) {
		int next;

		mkdirat(fd, "d", 0700);
		if (with_siblings) {
			mkdirat(fd, "c", 0700);
			mkdirat(fd, "e", 0700);
			touch(fd, "f");
		}
		next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		close_fd(&fd);
		fd = next;
	}
	close_fd(&fd);
}

static void test_deep(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};

	mkdirat(fd, "thin", 0700);
	mkdirat(fd, "wide", 0700);
	{
		AUTO_CLOSE int thin = openat(fd, "thin", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		AUTO_CLOSE int wide = openat(fd, "wide", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

		make_chain(thin, 10000, false);
		make_chain(wide, 600, true);
	}
	for (size_t i = 0; i < N_COUNTS; i++) {
		struct log l = {0};
		int most = 0, before = open_fds();
		struct plan p = {.o = {.threads = thread_counts[i]}, .quiet = true, .hook = watch_fds, .ctx = &most};

		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(l.n_entries == 3 + 10000 + 600 * 4);
		CHECK(l.n_unreadable == 0 && l.n_bad_dirfd == 0 && l.warnings.len == 0);
		CHECK(most - before <= 128);
		CHECK(open_fds() == before);
		log_free(&l);
	}
	/* with hardly any descriptors */
	struct rlimit old, few;
	struct log l = {0};
	struct plan p = {.o = {.threads = 4}, .quiet = true};
	CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	few = old;
	few.rlim_cur = (rlim_t)open_fds() + 8;
	CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
	CHECK(go(&l, &root, 1, &p) == 0);
	CHECK(l.n_entries == 3 + 10000 + 600 * 4 && l.n_unreadable == 0 && l.n_bad_dirfd == 0);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	log_free(&l);
}

/* What happens while the consumer stands at the root; with one thread the moment is certain. */
static void replace(const struct walk_entry *en, void *ctx)
{
	int fd = *(const int *)ctx;

	if (en->depth != 0 || en->event != WALK_DIR)
		return;
	renameat(fd, "link", fd, "was-link");
	CHECK(symlinkat("/", fd, "link") == 0);
	renameat(fd, "file", fd, "was-file");
	touch(fd, "file");
	renameat(fd, "fifo", fd, "was-fifo");
	mkfifoat(fd, "fifo", 0600);
	renameat(fd, "other", fd, "was-other");
	mkdirat(fd, "other", 0700);
	unlinkat(fd, "gone", AT_REMOVEDIR);
}

static void test_replaced(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};
	struct log l = {0};
	struct plan p = {.o = {.threads = 1}, .hook = replace, .ctx = &fd};

	mkdirat(fd, "fifo", 0700);
	mkdirat(fd, "file", 0700);
	mkdirat(fd, "gone", 0700);
	mkdirat(fd, "link", 0700);
	mkdirat(fd, "other", 0700);
	CHECK(go(&l, &root, 1, &p) == 0);
	CHECK(is_text(&l.text,
		"dir 0 \ndir 1 fifo unreadable\nleave 1 fifo unreadable\ndir 1 file unreadable\nleave 1 file unreadable\n"
		"dir 1 link unreadable\nleave 1 link unreadable\ndir 1 other unreadable\nleave 1 other unreadable\nleave 0 \n"));
	CHECK(count(&l.warnings, "vanished: ") == 5 && count(&l.warnings, "\n") == 5);
	CHECK(count(&l.warnings, "left out 'gone'") == 1);
	log_free(&l);
}

/* Parts of a deep tree go elsewhere while the consumer is at its bottom: the descriptors it comes back to are those of the
 * same directories, or none. */
struct removal {
	int fd;
	unsigned depths[2]; /* which directories of the chain; 0: none */
};
static void take_away(const struct walk_entry *en, void *ctx)
{
	struct removal *r = ctx;

	if (en->depth != 120 || en->event != WALK_DIR)
		return;
	for (size_t i = 0; i < 2 && r->depths[i]; i++) {
		AUTO_BUF struct buf path = {0};

		for (unsigned k = 0; k < r->depths[i]; k++)
			buf_str(&path, k ? "/d" : "d");
		CHECK(renameat(r->fd, buf_cstr(&path), r->fd, i ? "moved-1" : "moved-0") == 0);
	}
	r->depths[0] = 0; /* "c", "d" and "e" are all at this depth: once is enough */
}

static void test_moved(void)
{
	static const struct {
		unsigned depths[2], n_lost;
	} cases[] = {
		{{1, 0}, 0},     /* ".." still leads to the same directories */
		{{60, 0}, 0},    /* ".." leads elsewhere, but the names lead back */
		{{60, 30}, 30},  /* neither, for those between the two */
	};

	for (size_t i = 0; i < N_COUNTS * 3; i++) {
		struct log l = {0};
		struct removal r = {.fd = -1};
		struct plan p = {.o = {.threads = thread_counts[i / 3]}, .hook = take_away, .ctx = &r, .quiet = true};

		clear_base();
		CHECK(mkdir(base, 0700) == 0);
		r.fd = open_base();
		memcpy(r.depths, cases[i % 3].depths, sizeof r.depths);
		make_chain(r.fd, 140, true);
		CHECK(go(&l, &(struct walk_root){"", r.fd}, 1, &p) == 0);
		/* each directory lost has "e" and "f" still to come, and says so when it is left */
		CHECK_EQ_U64(l.n_entries, 1 + 140 * 4 - 2 * cases[i % 3].n_lost);
		CHECK_EQ_U64(l.n_unreadable, cases[i % 3].n_lost);
		CHECK_EQ_U64(count(&l.warnings, "vanished: "), cases[i % 3].n_lost);
		CHECK_EQ_U64(l.n_bad_dirfd, 0);
		close_fd(&r.fd);
		log_free(&l);
	}
}

/* As a user who may not read everything. */
static unsigned long forbidden(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};

	for (size_t i = 0; i < N_COUNTS; i++) {
		struct log l = {0};
		struct plan p = {.o = {.threads = thread_counts[i]}};

		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(is_text(&l.text,
			"dir 0 \ndir 1 blind unreadable\nleave 1 blind unreadable\ndir 1 list unreadable\n"
			"leave 1 list unreadable\ndir 1 open\nentry 2 open/f\nleave 1 open\nleave 0 \n"));
		CHECK(is_text(&l.warnings,
			"unreadable: cannot read directory 'blind': Permission denied\n"
			"unreadable: cannot stat 'list/f': Permission denied\n"));
		log_free(&l);
	}
	return unit_failures;
}

static void test_forbidden(void)
{
	AUTO_CLOSE int fd = open_base();
	int status = -1;
	pid_t pid;

	CHECK(chmod(base, 0755) == 0);
	mkdirat(fd, "blind", 0755);
	mkdirat(fd, "list", 0755);
	mkdirat(fd, "open", 0755);
	touch(fd, "blind/f");
	touch(fd, "list/f");
	touch(fd, "open/f");
	CHECK(fchmodat(fd, "blind", 0, 0) == 0);
	CHECK(fchmodat(fd, "list", 0444, 0) == 0);
	pid = fork();
	if (pid == 0) {
		unit_failures = 0;
		if (getuid() == 0 && (setgid(65534) || setuid(65534)))
			_exit(0);
		_exit(forbidden() ? 1 : 0);
	}
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
	CHECK(fchmodat(fd, "blind", 0700, 0) == 0);
	CHECK(fchmodat(fd, "list", 0700, 0) == 0);
}

/* Others make, remove and rename while we walk: what stays still is always seen, once, and nothing breaks. */
struct storm {
	int fd;
	atomic_bool stop;
};
static void *storm_blow(void *arg)
{
	struct storm *s = arg;

	for (unsigned i = 0; !atomic_load(&s->stop); i++) {
		char a[64], b[64];

		snprintf(a, sizeof a, "d%u/x%u", i % 40, i % 7);
		snprintf(b, sizeof b, "d%u/y%u", (i + 1) % 40, i % 5);
		switch (i % 6) {
		case 0: mkdirat(s->fd, a, 0700); break;
		case 1: touch(s->fd, b); break;
		case 2: renameat(s->fd, a, s->fd, b); break;
		case 3: unlinkat(s->fd, b, 0); break;
		case 4: unlinkat(s->fd, a, AT_REMOVEDIR); break;
		default: (void)!symlinkat("/", s->fd, a); break; /* it may be there already */
		}
	}
	return NULL;
}

static void test_storm(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};
	struct storm s = {.fd = fd};
	pthread_t t;

	for (unsigned i = 0; i < 40; i++) {
		char name[64];

		snprintf(name, sizeof name, "d%u", i);
		mkdirat(fd, name, 0700);
		for (unsigned k = 0; k < 30; k++) {
			snprintf(name, sizeof name, "d%u/still%u", i, k);
			touch(fd, name);
		}
	}
	CHECK(pthread_create(&t, NULL, storm_blow, &s) == 0);
	for (unsigned i = 0; i < 30; i++) {
		struct log l = {0};
		struct plan p = {.o = {.threads = thread_counts[i % N_COUNTS], .spill_at = i % 4 == 3 ? 10 : 0, .tmpdir = base}};

		CHECK(go(&l, &root, 1, &p) == 0);
		CHECK(count(&l.text, "/still") == 40 * 30);
		CHECK(count(&l.text, "dir ") == count(&l.text, "leave "));
		log_free(&l);
	}
	atomic_store(&s.stop, true);
	pthread_join(t, NULL);
}

/* Stopping half-way leaves nothing behind. */
static void test_early_close(void)
{
	AUTO_CLOSE int fd = open_base();
	struct walk_root root = {"", fd};
	int before = open_fds();

	for (unsigned i = 0; i < 60; i++) {
		char name[64];

		snprintf(name, sizeof name, "d%u", i);
		mkdirat(fd, name, 0700);
		for (unsigned k = 0; k < 50; k++) {
			snprintf(name, sizeof name, "d%u/f%u", i, k);
			touch(fd, name);
		}
	}
	for (unsigned stop = 0; stop < 400; stop += 7) {
		struct walk_options o = {.threads = 4, .spill_at = stop % 2 ? 20 : 0, .tmpdir = base};
		struct walk *w = NULL;
		struct walk_entry en;
		struct err e = {0};

		CHECK(walk_open(&w, &root, 1, &o, &e) == 0);
		for (unsigned i = 0; i < stop; i++)
			CHECK(walk_next(w, &en, &e) == 0);
		walk_close(&w);
	}
	CHECK(open_fds() == before);
}

int unit_walk(void)
{
	unsigned long before = unit_failures;
	void (*const tests[])(void) = {test_order, test_roots, test_accept, test_mount, test_large, test_deep, test_replaced,
		test_moved, test_forbidden, test_storm, test_early_close};

	for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
		CHECK(make_base() != NULL);
		tests[i]();
		clear_base();
	}
	return (int)(unit_failures - before);
}
