/*
 * torture: processes that change one tree in all ways there are, at full speed, and hold still when they are told to.
 *
 *   torture TREE OUTSIDE SEED WRITERS [KEEP]
 *
 * OUTSIDE is a directory on the same filesystem that is not part of the tree: names go there and come from there. All writers
 * use the same few names, so that they meet. Files stay open, and mapped, from one burst to the next. With KEEP no file has names on
 * both sides: of what is done under one outside, or what was opened by it, marks of directories hear nothing (repl-track(1)). With an
 * odd SEED there are no further names at all then, with an even one nothing goes from side to side. Read from standard input:
 *
 *   go N     each writer, all of which hold still, does N steps, and holds still then
 *   store N  the same, but each step is a store through a mapping, which no event tells of
 *   hold     does no more steps than the one at hand
 *   wait     until all hold still; answers "held STEPS", the sum of all steps so far
 *
 * Ends with its input, and says how often each kind of step succeeded, of how often it was tried: one that never does is none.
 * A step fails where another writer was quicker, which is nobody's fault.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define WRITERS_MAX 256
#define HELD 4
#define BLOCK 4096u
#define SIZE_MAX_FILE (16 * BLOCK)
#define KINDS 64

struct shared {
	_Atomic bool holds;
	_Atomic bool only_stores;
	_Atomic uint64_t allowed[WRITERS_MAX], done[WRITERS_MAX]; /* steps */
	_Atomic bool is_idle[WRITERS_MAX];
	_Atomic uint64_t tried[KINDS], worked[KINDS];
};
struct held {
	int fd;         /* -1: none, or closed behind the mapping */
	uint8_t *map;
	size_t len;
};
struct writer {
	uint64_t rng;
	struct held held[HELD];
	aio_context_t aio;
	struct ring {
		int fd;
		uint8_t *sq, *cq;
		struct io_uring_sqe *sqes;
		struct io_uring_params p;
	} ring;
	uint8_t *block; /* aligned */
	char path[2][512];
};

static struct shared *shared;
static const char *outside;
static bool may_link = true, may_cross = true;
static sigjmp_buf no_page;

static uint64_t rnd(struct writer *w)
{
	/* splitmix64 */
	uint64_t z = w->rng += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static unsigned below(struct writer *w, unsigned n) { return (unsigned)(rnd(w) % n); }

/* ---- names ---- */

/* One in sixteen is outside. */
static char *directory(struct writer *w, int which)
{
	char *p = w->path[which];
	int n = snprintf(p, sizeof w->path[0], "%s", below(w, 16) ? "." : outside);

	for (unsigned depth = below(w, 4); depth; depth--)
		n += snprintf(p + n, sizeof w->path[0] - (size_t)n, "/d%u", below(w, 4));
	return p;
}

static char *file(struct writer *w, int which)
{
	char *p = directory(w, which);
	size_t n = strlen(p);

	snprintf(p + n, sizeof w->path[0] - n, "/f%u", below(w, 8));
	return p;
}

static char *subdirectory(struct writer *w, int which)
{
	char *p = directory(w, which);
	size_t n = strlen(p);

	snprintf(p + n, sizeof w->path[0] - n, "/d%u", below(w, 4));
	return p;
}

/* Names outside are absolute ones. */
static bool may_go(const char *a, const char *b) { return may_cross || (*a == '/') == (*b == '/'); }

static char *any(struct writer *w, int which) { return below(w, 4) ? file(w, which) : subdirectory(w, which); }

/* ---- content ---- */

static void fill(struct writer *w)
{
	uint64_t x = rnd(w);

	memset(w->block, (int)(x & 0xff), BLOCK);
	memcpy(w->block, &x, sizeof x);
}

static off_t place(struct writer *w) { return (off_t)below(w, SIZE_MAX_FILE - BLOCK); }
static off_t place_aligned(struct writer *w) { return (off_t)(below(w, SIZE_MAX_FILE / BLOCK - 1) * BLOCK); }

static int open_file(struct writer *w, int flags)
{
	return open(file(w, 0), flags | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0644);
}

/* Closes, and hands on whether it worked. */
static bool ended(int fd, bool worked)
{
	if (fd >= 0)
		close(fd);
	return fd >= 0 && worked;
}

static bool do_write(struct writer *w)
{
	int fd = open_file(w, O_WRONLY | O_CREAT | (below(w, 2) ? O_TRUNC : O_APPEND));

	fill(w);
	return ended(fd, fd >= 0 && write(fd, w->block, 1 + below(w, BLOCK)) > 0);
}

static bool do_pwrite(struct writer *w)
{
	int fd = open_file(w, O_WRONLY);

	fill(w);
	return ended(fd, fd >= 0 && pwrite(fd, w->block, 1 + below(w, BLOCK), place(w)) > 0);
}

static bool do_pwritev(struct writer *w)
{
	int fd = open_file(w, O_WRONLY);

	fill(w);
	struct iovec v[2] = {{w->block, 100}, {w->block + 1000, 1 + below(w, 1000)}};
	return ended(fd, fd >= 0 && pwritev2(fd, v, 2, place(w), below(w, 2) ? RWF_DSYNC : 0) > 0);
}

static bool do_direct(struct writer *w)
{
	int fd = open_file(w, O_WRONLY | O_DIRECT);

	fill(w);
	return ended(fd, fd >= 0 && pwrite(fd, w->block, BLOCK, place_aligned(w)) > 0);
}

static bool do_exclusive(struct writer *w)
{
	int fd = open_file(w, O_WRONLY | O_CREAT | O_EXCL);

	fill(w);
	return ended(fd, fd >= 0 && (below(w, 2) || write(fd, w->block, 1 + below(w, BLOCK)) > 0));
}

static bool do_open_truncate(struct writer *w)
{
	int fd = open_file(w, O_WRONLY | O_TRUNC);

	return ended(fd, fd >= 0);
}

static bool do_truncate(struct writer *w) { return !truncate(file(w, 0), place(w)); }

static bool aio_write(struct writer *w, int fd)
{
	struct iocb cb = {.aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = (uint32_t)fd, .aio_buf = (uint64_t)(uintptr_t)w->block,
		.aio_nbytes = BLOCK, .aio_offset = place_aligned(w)};
	struct iocb *list[1] = {&cb};
	struct io_event ev;

	fill(w);
	return syscall(SYS_io_submit, w->aio, 1L, list) == 1 && syscall(SYS_io_getevents, w->aio, 1L, 1L, &ev, NULL) == 1 &&
		(int64_t)ev.res > 0;
}

static bool do_aio(struct writer *w)
{
	int fd = open_file(w, O_WRONLY | (below(w, 2) ? O_DIRECT : 0));

	return ended(fd, fd >= 0 && aio_write(w, fd));
}

static uint32_t *ring_word(uint8_t *base, uint32_t off) { return (void *)(base + off); }

static bool ring_call(struct writer *w, const struct io_uring_sqe *sqe)
{
	struct ring *r = &w->ring;

	if (r->fd < 0)
		return false;
	uint32_t *tail = ring_word(r->sq, r->p.sq_off.tail), mask = *ring_word(r->sq, r->p.sq_off.ring_mask);
	uint32_t at = *tail & mask;
	r->sqes[at] = *sqe;
	ring_word(r->sq, r->p.sq_off.array)[at] = at;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	while (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		if (errno != EINTR)
			return false;
	uint32_t *head = ring_word(r->cq, r->p.cq_off.head), cq_mask = *ring_word(r->cq, r->p.cq_off.ring_mask);
	const struct io_uring_cqe *cqes = (const void *)(r->cq + r->p.cq_off.cqes);
	int res = cqes[*head & cq_mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return res >= 0;
}

static void ring_open(struct ring *r)
{
	r->fd = (int)syscall(SYS_io_uring_setup, 4, &r->p);
	if (r->fd < 0)
		return;
	size_t sq = r->p.sq_off.array + r->p.sq_entries * sizeof(uint32_t);
	size_t cq = r->p.cq_off.cqes + r->p.cq_entries * sizeof(struct io_uring_cqe);
	void *a = mmap(NULL, sq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_SQ_RING);
	void *b = mmap(NULL, cq, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd, IORING_OFF_CQ_RING);
	void *c = mmap(NULL, r->p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, r->fd,
		IORING_OFF_SQES);
	if (a == MAP_FAILED || b == MAP_FAILED || c == MAP_FAILED) {
		close(r->fd);
		r->fd = -1;
		return;
	}
	r->sq = a;
	r->cq = b;
	r->sqes = c;
}

static bool do_ring(struct writer *w)
{
	int fd = open_file(w, O_WRONLY);

	fill(w);
	struct io_uring_sqe s = {.opcode = IORING_OP_WRITE, .fd = fd, .addr = (uint64_t)(uintptr_t)w->block,
		.len = 1 + below(w, BLOCK), .off = (uint64_t)place(w), .flags = below(w, 2) ? IOSQE_ASYNC : 0};
	return ended(fd, fd >= 0 && ring_call(w, &s));
}

static bool do_ring_names(struct writer *w)
{
	const char *a = any(w, 0), *b = any(w, 1);
	struct io_uring_sqe s = {.fd = AT_FDCWD, .addr = (uint64_t)(uintptr_t)a};

	unsigned which = below(w, 4);
	if (which > 1 && (!may_go(a, b) || (which > 2 && !may_link)))
		return false;
	switch (which) {
	case 0:
		s.opcode = IORING_OP_UNLINKAT;
		break;
	case 1:
		s.opcode = IORING_OP_MKDIRAT;
		s.len = 0755;
		break;
	case 2:
		s.opcode = IORING_OP_RENAMEAT;
		s.len = (uint32_t)AT_FDCWD;
		s.off = (uint64_t)(uintptr_t)b;
		break;
	default:
		s.opcode = IORING_OP_LINKAT;
		s.len = (uint32_t)AT_FDCWD;
		s.off = (uint64_t)(uintptr_t)b;
		break;
	}
	return ring_call(w, &s);
}

static bool do_splice(struct writer *w)
{
	int fd = open_file(w, O_WRONLY), p[2];
	bool ok = false;

	fill(w);
	if (fd < 0 || pipe2(p, O_CLOEXEC))
		return ended(fd, false);
	off_t at = place(w);
	ok = write(p[1], w->block, BLOCK) > 0 && splice(p[0], NULL, fd, &at, 1 + below(w, BLOCK), 0) > 0;
	close(p[0]);
	close(p[1]);
	return ended(fd, ok);
}

static int open_other(struct writer *w)
{
	return open(file(w, 1), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
}

static bool do_copy_range(struct writer *w)
{
	int from = open_other(w), fd = open_file(w, O_WRONLY);
	off_t a = below(w, 3) * BLOCK, b = place_aligned(w);
	bool ok = from >= 0 && fd >= 0 && copy_file_range(from, &a, fd, &b, BLOCK * (1 + below(w, 3)), 0) > 0;

	ended(from, true);
	return ended(fd, ok);
}

static bool do_sendfile(struct writer *w)
{
	int from = open_other(w), fd = open_file(w, O_WRONLY);
	bool ok = from >= 0 && fd >= 0 && sendfile(fd, from, NULL, 1 + below(w, BLOCK)) > 0;

	ended(from, true);
	return ended(fd, ok);
}

static bool do_reflink(struct writer *w)
{
	int from = open_other(w), fd = open_file(w, O_WRONLY | O_CREAT);
	struct file_clone_range r = {.src_fd = from, .src_length = BLOCK, .dest_offset = (uint64_t)place_aligned(w)};
	bool ok = from >= 0 && fd >= 0 && !(below(w, 2) ? ioctl(fd, FICLONE, from) : ioctl(fd, FICLONERANGE, &r));

	ended(from, true);
	return ended(fd, ok);
}

static bool do_fallocate(struct writer *w)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_UNSHARE_RANGE};
	int fd = open_file(w, O_WRONLY), mode = modes[below(w, sizeof modes / sizeof modes[0])];
	struct stat st;

	/* Files must not grow without end. */
	bool ok = fd >= 0 && !fstat(fd, &st) && st.st_size < 4 * (off_t)SIZE_MAX_FILE &&
		!fallocate(fd, mode, place_aligned(w), BLOCK * (1 + below(w, 2)));
	return ended(fd, ok);
}

/* ---- what stays open and mapped ---- */

static void let_go(struct held *h)
{
	if (h->map)
		munmap(h->map, h->len);
	if (h->fd >= 0)
		close(h->fd);
	*h = (struct held){.fd = -1};
}

static bool do_hold(struct writer *w)
{
	struct held *h = &w->held[below(w, HELD)];
	bool is_mapped = below(w, 2);
	struct stat st;

	let_go(h);
	h->fd = open_file(w, O_RDWR | (below(w, 4) ? 0 : O_CREAT));
	if (h->fd < 0)
		return false;
	if (!is_mapped || fstat(h->fd, &st) || !st.st_size)
		return true;
	h->len = (size_t)st.st_size;
	void *p = mmap(NULL, h->len, PROT_READ | PROT_WRITE, MAP_SHARED, h->fd, 0);
	h->map = p == MAP_FAILED ? NULL : p;
	if (h->map && below(w, 2)) {
		close(h->fd);
		h->fd = -1;
	}
	return true;
}

static bool do_let_go(struct writer *w)
{
	struct held *h = &w->held[below(w, HELD)];
	bool was = h->map || h->fd >= 0;

	let_go(h);
	return was;
}

static bool do_store(struct writer *w)
{
	const struct held *h = &w->held[below(w, HELD)];

	if (!h->map)
		return false;
	/* Another writer may have cut the file shorter. */
	if (sigsetjmp(no_page, 1))
		return false;
	volatile uint8_t *p = h->map + below(w, (unsigned)h->len);
	*p = (uint8_t)(*p + 1 + below(w, 255));
	return true;
}

static bool do_held_write(struct writer *w)
{
	const struct held *h = &w->held[below(w, HELD)];

	fill(w);
	return h->fd >= 0 && pwrite(h->fd, w->block, 1 + below(w, BLOCK), place(w)) > 0;
}

static bool do_held_aio(struct writer *w)
{
	const struct held *h = &w->held[below(w, HELD)];

	return h->fd >= 0 && aio_write(w, h->fd);
}

/* A mapping that is made, stored into and gone within one step; the descriptor goes first, or last. */
static bool do_map(struct writer *w)
{
	struct held h = {.fd = open_file(w, O_RDWR)};
	struct stat st;
	volatile bool ok = false, closes = below(w, 2);

	if (h.fd < 0 || fstat(h.fd, &st) || !st.st_size)
		return ended(h.fd, false);
	h.len = (size_t)st.st_size;
	void *p = mmap(NULL, h.len, PROT_READ | PROT_WRITE, MAP_SHARED, h.fd, 0);
	if (p == MAP_FAILED)
		return ended(h.fd, false);
	if (closes)
		close(h.fd);
	if (!sigsetjmp(no_page, 1)) {
		volatile uint8_t *at = (uint8_t *)p + below(w, (unsigned)h.len);
		*at = (uint8_t)(*at + 1);
		ok = true;
	}
	munmap(p, h.len);
	if (!closes)
		close(h.fd);
	return ok;
}

/* ---- names ---- */

static bool do_mkdir(struct writer *w) { return !mkdir(subdirectory(w, 0), 0755); }
static bool do_rmdir(struct writer *w) { return !rmdir(subdirectory(w, 0)); }
static bool do_unlink(struct writer *w) { return !unlink(file(w, 0)); }

static bool do_rename(struct writer *w)
{
	const char *a = any(w, 0), *b = any(w, 1);

	return may_go(a, b) && !rename(a, b);
}

static bool do_rename_dir(struct writer *w)
{
	const char *a = subdirectory(w, 0), *b = subdirectory(w, 1);

	return may_go(a, b) && !renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
}

static bool do_exchange(struct writer *w)
{
	const char *a = any(w, 0), *b = any(w, 1);

	return may_go(a, b) && !renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
}

static bool do_whiteout(struct writer *w)
{
	const char *a = file(w, 0), *b = file(w, 1);

	/* It would leave a device behind, which nobody here removes. */
	return may_go(a, b) && !renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_WHITEOUT) && !unlink(a);
}

static bool do_link(struct writer *w)
{
	const char *a = file(w, 0), *b = file(w, 1);

	return may_link && may_go(a, b) && !link(a, b);
}

/* The way of editors. */
static bool do_replace(struct writer *w)
{
	const char *to = file(w, 1);
	char *tmp = directory(w, 0);
	size_t n = strlen(tmp);

	if (!may_go(tmp, to))
		return false;
	snprintf(tmp + n, sizeof w->path[0] - n, "/f0.new%d", (int)getpid());
	int fd = open(tmp, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	fill(w);
	if (fd < 0)
		return false;
	bool ok = write(fd, w->block, 1 + below(w, BLOCK)) > 0;
	ended(fd, true);
	if (ok && !rename(tmp, to))
		return true;
	/* The directory may have gone elsewhere: then it stays there under this name. */
	unlink(tmp);
	return false;
}

static bool do_tmpfile(struct writer *w)
{
	const char *dir = directory(w, 0), *to = file(w, 1);
	int fd = (*dir == '/') == (*to == '/') || (may_link && may_cross) ? open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0644) : -1;
	char link[64];

	fill(w);
	if (fd < 0 || write(fd, w->block, 1 + below(w, BLOCK)) <= 0)
		return ended(fd, false);
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	bool ok = !linkat(AT_FDCWD, link, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
	/* Written after it has its name. */
	return ended(fd, ok && (below(w, 2) || pwrite(fd, w->block, 100, place(w)) > 0));
}

static bool do_symlink(struct writer *w)
{
	char to[64];

	snprintf(to, sizeof to, "to-%u", below(w, 1000));
	return !symlink(to, file(w, 0));
}

static bool do_mknod(struct writer *w) { return !mknod(file(w, 0), below(w, 2) ? S_IFIFO | 0600 : S_IFCHR | 0600, 0x105); }

/* A directory made with what is in it, at once. */
static bool do_tree(struct writer *w)
{
	char *p = subdirectory(w, 0);
	size_t n = strlen(p);
	bool ok = !mkdir(p, 0755);

	for (int i = 0; i < 2; i++) {
		snprintf(p + n, sizeof w->path[0] - n, "/d%u", below(w, 4));
		n = strlen(p);
		mkdir(p, 0755);
	}
	snprintf(p + n, sizeof w->path[0] - n, "/f%u", below(w, 8));
	int fd = open(p, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
	fill(w);
	return ended(fd, ok && fd >= 0 && write(fd, w->block, 1 + below(w, 200)) > 0);
}

/* Everything below a directory goes, whoever uses it. */
static void wipe(int at, const char *name, int depth)
{
	int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	char sub[8];

	for (unsigned i = 0; fd >= 0 && i < 8; i++) {
		snprintf(sub, sizeof sub, "f%u", i);
		unlinkat(fd, sub, 0);
	}
	for (unsigned i = 0; fd >= 0 && i < 4 && depth < 4; i++) {
		snprintf(sub, sizeof sub, "d%u", i);
		wipe(fd, sub, depth + 1);
	}
	if (fd >= 0)
		close(fd);
	unlinkat(at, name, AT_REMOVEDIR);
}

static bool do_wipe(struct writer *w)
{
	const char *p = subdirectory(w, 0);
	struct stat st;

	if (stat(p, &st))
		return false;
	wipe(AT_FDCWD, p, 0);
	return true;
}

/* ---- metadata ---- */

static bool do_chmod(struct writer *w)
{
	static const mode_t modes[] = {0755, 0700, 0644, 0600, 01777, 02755, 04755};

	return !chmod(any(w, 0), modes[below(w, 7)]);
}

static bool do_chown(struct writer *w) { return !lchown(any(w, 0), below(w, 3000), below(w, 3000)); }

static bool do_utimes(struct writer *w)
{
	struct timespec t[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = below(w, 1u << 30), .tv_nsec = below(w, 1000000000)}};

	return !utimensat(AT_FDCWD, any(w, 0), t, AT_SYMLINK_NOFOLLOW);
}

/* Written, and the times put back. */
static bool do_backdate(struct writer *w)
{
	int fd = open_file(w, O_WRONLY);
	struct stat st;

	fill(w);
	if (fd < 0 || fstat(fd, &st) || pwrite(fd, w->block, 1 + below(w, 100), 0) <= 0)
		return ended(fd, false);
	struct timespec t[2] = {st.st_atim, st.st_mtim};
	return ended(fd, !futimens(fd, t));
}

static bool do_xattr(struct writer *w)
{
	static const char *const names[] = {"user.a", "user.b", "trusted.c"};
	const char *p = any(w, 0), *name = names[below(w, 3)];

	fill(w);
	return below(w, 3) ? !lsetxattr(p, name, w->block, below(w, 300), 0) : !lremovexattr(p, name);
}

static bool do_acl(struct writer *w)
{
	/* acl(5) as the kernel takes it: version 2; user::rw- user:UID:r-- group::r-- mask::r-- other::r-- */
	const uint32_t uid = below(w, 1000) + 1, none = UINT32_MAX;
	const struct { uint16_t tag, perm; uint32_t id; } rows[5] = {{1, 6, none}, {2, 4, uid}, {4, 4, none}, {16, 4, none},
		{32, 4, none}};
	uint8_t v[4 + sizeof rows] = {2};

	memcpy(v + 4, rows, sizeof rows);
	return !setxattr(file(w, 0), "system.posix_acl_access", v, sizeof v, 0);
}

static bool do_flags(struct writer *w)
{
	int fd = open(any(w, 0), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	int v = 0;
	bool ok = fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &v);

	v = (v & (FS_NODUMP_FL | FS_NOATIME_FL)) ^ FS_NODUMP_FL;
	return ended(fd, ok && !ioctl(fd, FS_IOC_SETFLAGS, &v));
}

/* ---- writers ---- */

static const struct kind {
	const char *name;
	bool (*step)(struct writer *w);
	unsigned weight;
} kinds[] = {
	{"write", do_write, 6}, {"pwrite", do_pwrite, 4}, {"pwritev", do_pwritev, 2}, {"direct", do_direct, 2}, {"excl", do_exclusive, 4},
	{"open-trunc", do_open_truncate, 1}, {"truncate", do_truncate, 2}, {"aio", do_aio, 2}, {"uring", do_ring, 2},
	{"uring-names", do_ring_names, 4}, {"splice", do_splice, 2}, {"copy-range", do_copy_range, 2}, {"sendfile", do_sendfile, 1},
	{"reflink", do_reflink, 2}, {"fallocate", do_fallocate, 4}, {"hold", do_hold, 3}, {"let-go", do_let_go, 1},
	{"store", do_store, 4}, {"held-write", do_held_write, 2}, {"held-aio", do_held_aio, 2}, {"map", do_map, 3}, {"mkdir", do_mkdir, 6},
	{"rmdir", do_rmdir, 1}, {"unlink", do_unlink, 4}, {"rename", do_rename, 6}, {"rename-dir", do_rename_dir, 3},
	{"exchange", do_exchange, 3}, {"whiteout", do_whiteout, 1}, {"link", do_link, 4}, {"replace", do_replace, 3},
	{"tmpfile", do_tmpfile, 2}, {"symlink", do_symlink, 1}, {"mknod", do_mknod, 1}, {"tree", do_tree, 3}, {"wipe", do_wipe, 1},
	{"chmod", do_chmod, 2}, {"chown", do_chown, 2}, {"utimes", do_utimes, 2}, {"backdate", do_backdate, 3}, {"xattr", do_xattr, 3},
	{"acl", do_acl, 1}, {"flags", do_flags, 2},
};
#define N_KINDS (sizeof kinds / sizeof kinds[0])
_Static_assert(N_KINDS <= KINDS, "too many kinds");

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(no_page, 1);
}

static void step(struct writer *w, unsigned weights)
{
	unsigned n = below(w, weights), i = 0;

	if (atomic_load(&shared->only_stores))
		while (kinds[i].step != do_store)
			i++;
	else
		while (n >= kinds[i].weight)
			n -= kinds[i++].weight;
	atomic_fetch_add(&shared->tried[i], 1);
	if (kinds[i].step(w))
		atomic_fetch_add(&shared->worked[i], 1);
}

static void write_on(uint64_t seed, unsigned no)
{
	static struct writer w;
	unsigned weights = 0;
	const struct sigaction bus = {.sa_handler = on_bus};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGBUS, &bus, NULL);
	signal(SIGPIPE, SIG_IGN); /* another one had opened a FIFO, and has gone */
	w.rng = seed * 1000003 + no;
	w.block = aligned_alloc(BLOCK, BLOCK);
	for (size_t i = 0; i < HELD; i++)
		w.held[i].fd = -1;
	if (!w.block || syscall(SYS_io_setup, 8L, &w.aio))
		w.aio = 0;
	ring_open(&w.ring);
	for (size_t i = 0; i < N_KINDS; i++)
		weights += kinds[i].weight;
	for (;;) {
		/* In this order: who has said to hold, and sees an idle one, sees it idle for good. */
		atomic_store(&shared->is_idle[no], false);
		if (atomic_load(&shared->holds) || atomic_load(&shared->done[no]) >= atomic_load(&shared->allowed[no])) {
			atomic_store(&shared->is_idle[no], true);
			usleep(1000);
			continue;
		}
		step(&w, weights);
		atomic_fetch_add(&shared->done[no], 1);
	}
}

/* ---- the one who leads them ---- */

static bool is_held(unsigned no)
{
	return shared->holds ? shared->is_idle[no] : shared->done[no] >= shared->allowed[no];
}

static void until_held(unsigned n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < n; i++) {
		while (!is_held(i)) {
			int status;
			if (waitpid(-1, &status, WNOHANG) > 0) {
				fprintf(stderr, "torture: a writer ended, with %s %d\n", WIFSIGNALED(status) ? "signal" : "status",
					WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
				exit(1);
			}
			usleep(1000);
		}
		sum += shared->done[i];
	}
	printf("held %llu\n", (unsigned long long)sum);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	unsigned n = argc == 5 || argc == 6 ? (unsigned)atoi(argv[4]) : 0;
	char line[64];
	pid_t pids[WRITERS_MAX];

	if (!n || n > WRITERS_MAX || !(outside = realpath(argv[2], NULL)) || chdir(argv[1])) {
		fprintf(stderr, "usage: torture TREE OUTSIDE SEED WRITERS [KEEP]\n");
		return 2;
	}
	if (argc == 6) {
		may_link = strtoull(argv[3], NULL, 10) % 2 == 0;
		may_cross = !may_link;
	}
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	for (unsigned i = 0; i < n; i++) {
		pids[i] = fork();
		if (!pids[i])
			write_on(strtoull(argv[3], NULL, 10), i);
		if (pids[i] < 0)
			return 1;
	}
	while (fgets(line, sizeof line, stdin)) {
		unsigned long long steps;
		bool only_stores = sscanf(line, "store %llu", &steps) == 1;
		if (only_stores || sscanf(line, "go %llu", &steps) == 1) {
			atomic_store(&shared->only_stores, only_stores);
			shared->holds = false;
			for (unsigned i = 0; i < n; i++)
				shared->allowed[i] = shared->done[i] + steps;
		} else if (!strcmp(line, "hold\n")) {
			shared->holds = true;
		} else if (!strcmp(line, "wait\n")) {
			until_held(n);
		} else {
			fprintf(stderr, "torture: what is %s", line);
			return 2;
		}
	}
	for (size_t i = 0; i < N_KINDS; i++)
		printf("%s %llu/%llu\n", kinds[i].name, (unsigned long long)shared->worked[i], (unsigned long long)shared->tried[i]);
	for (unsigned i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	return 0;
}
