/*
 * cut: runs a command and interferes at the N-th system call by which it changes anything.
 *
 *   cut trace FILE COMMAND...         only lists the calls in FILE: one name a line, so the lines are counted from 1
 *   cut kill N COMMAND...             SIGKILL instead of the N-th call
 *   cut fail N ERRNO COMMAND...       the N-th call fails with ENOSPC, EDQUOT or EIO and does nothing
 *   cut sticky N ERRNO COMMAND...     and so does every later one
 *   cut ask OUT IN COMMAND...         before each call its name is written to descriptor OUT as a line, and the call waits for
 *                                     one byte from descriptor IN
 *
 * Its status is that of the command, 128 and the signal when one ended it: 137 says that the cut was reached.
 *
 * What changes something is what a filesystem, or its disk, can notice: opening to write, writing, renaming, syncing. Writing to
 * descriptors 1 and 2 is not counted. With ENOSPC and EDQUOT, calls that can only free space are left alone: there a full disk
 * does not get in the way. A seccomp filter hands the calls to this process (seccomp_unotify(2)), so that a static, a threaded
 * and a sanitized program all work, and a killed one has done nothing of the call that it was killed at.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/btrfs.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#else
#error "cut does not know the number of this architecture"
#endif

/* Which uses of a call count. */
enum when {
	ALWAYS,
	FREES,   /* always, but it needs no space */
	NOT_OUT, /* not to standard output or error, which come first */
	FLAGS_1, /* opens to write: the flags are this argument */
	FLAGS_2,
	HOW,     /* openat2(2) */
	REQUEST, /* ioctl(2): by its number */
};

struct call {
	int nr;
	const char *name;
	enum when when;
};

/* Numbers that came later than the headers of old systems, the same on all architectures. */
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_setxattrat
#define __NR_setxattrat 463
#define __NR_removexattrat 466
#endif

#define CALL(name, when) {__NR_##name, #name, when}
static const struct call calls[] = {
#ifdef __NR_open /* the names without a directory are gone on newer architectures */
	CALL(open, FLAGS_1), CALL(creat, ALWAYS), CALL(rename, ALWAYS), CALL(link, ALWAYS), CALL(symlink, ALWAYS),
	CALL(unlink, FREES), CALL(mkdir, ALWAYS), CALL(rmdir, FREES), CALL(mknod, ALWAYS), CALL(chmod, ALWAYS),
	CALL(chown, ALWAYS), CALL(lchown, ALWAYS), CALL(utime, ALWAYS), CALL(utimes, ALWAYS), CALL(futimesat, ALWAYS),
#endif
#ifdef __NR_renameat
	CALL(renameat, ALWAYS),
#endif
	CALL(openat, FLAGS_2), CALL(openat2, HOW), CALL(write, NOT_OUT), CALL(writev, NOT_OUT), CALL(pwrite64, ALWAYS),
	CALL(pwritev, ALWAYS), CALL(pwritev2, ALWAYS), CALL(copy_file_range, ALWAYS), CALL(sendfile, ALWAYS),
	CALL(splice, ALWAYS), CALL(truncate, ALWAYS), CALL(ftruncate, ALWAYS), CALL(fallocate, ALWAYS),
	CALL(renameat2, ALWAYS), CALL(linkat, ALWAYS), CALL(symlinkat, ALWAYS), CALL(unlinkat, FREES), CALL(mkdirat, ALWAYS),
	CALL(mknodat, ALWAYS), CALL(fchmod, ALWAYS), CALL(fchmodat, ALWAYS), CALL(fchmodat2, ALWAYS), CALL(fchown, ALWAYS),
	CALL(fchownat, ALWAYS), CALL(utimensat, ALWAYS), CALL(setxattr, ALWAYS), CALL(lsetxattr, ALWAYS),
	CALL(fsetxattr, ALWAYS), CALL(setxattrat, ALWAYS), CALL(removexattr, ALWAYS), CALL(lremovexattr, ALWAYS),
	CALL(fremovexattr, ALWAYS), CALL(removexattrat, ALWAYS), CALL(ioctl, REQUEST), CALL(fsync, ALWAYS),
	CALL(fdatasync, ALWAYS), CALL(sync, ALWAYS), CALL(syncfs, ALWAYS), CALL(sync_file_range, ALWAYS), CALL(msync, ALWAYS),
};
#define N_CALLS (sizeof calls / sizeof calls[0])

struct cut {
	unsigned long n, at; /* calls so far; the one that is meant, 0: none */
	int error;           /* 0: kill */
	bool is_sticky;
	int out, in;         /* names go there, permission comes from here; -1: neither */
	pid_t group;
};

static void die(const char *what)
{
	fprintf(stderr, "cut: %s: %s\n", what, strerror(errno));
	exit(125);
}

static void usage(void)
{
	fprintf(stderr, "usage: cut trace FILE | kill N | fail N ERRNO | sticky N ERRNO | ask OUT IN  COMMAND...\n");
	exit(125);
}

/* Hands every call of the table to who holds the descriptor that is returned; goes for this process and all below it. */
static int watch(void)
{
	struct sock_filter code[5 + 2 * N_CALLS];
	unsigned short n = 0;

	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
	code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 1, 0);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < N_CALLS; i++) {
		code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i].nr, 0, 1);
		code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
	}
	code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	struct sock_fprog prog = {n, code};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	/* Without WAIT_KILLABLE_RECV a signal to the command would make it repeat the call, and us count it twice. */
	return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &prog);
}

union fd_message {
	struct cmsghdr head;
	char room[CMSG_SPACE(sizeof(int))];
};

static int pass_fd(int socket, int fd)
{
	char byte = 0;
	struct iovec v = {&byte, 1};
	union fd_message m = {.head = {.cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &m, .msg_controllen = sizeof m};

	memcpy(CMSG_DATA(&m.head), &fd, sizeof fd);
	return sendmsg(socket, &h, 0) == 1 ? 0 : -1;
}

static int take_fd(int socket)
{
	char byte;
	struct iovec v = {&byte, 1};
	union fd_message m;
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &m, .msg_controllen = sizeof m};
	int fd;

	if (recvmsg(socket, &h, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&h))
		return -1;
	memcpy(&fd, CMSG_DATA(&m.head), sizeof fd);
	return fd;
}

static pid_t start(char **argv, int *listener)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		die("socketpair");
	pid_t parent = getpid(), pid = fork();
	if (pid < 0)
		die("fork");
	if (pid == 0) {
		/* A group of its own, so that all of it can be killed; and nothing of it outlives us. */
		if (setpgid(0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) || getppid() != parent)
			_exit(125);
		int fd = watch();
		if (fd < 0 || pass_fd(pair[1], fd))
			_exit(125);
		close(fd);
		execvp(argv[0], argv);
		_exit(127);
	}
	close(pair[1]);
	*listener = take_fd(pair[0]);
	if (*listener < 0) {
		errno = ENOSYS;
		die("cannot watch system calls (Linux 5.19 or later is needed)");
	}
	close(pair[0]);
	return pid;
}

static bool opens_to_write(uint64_t flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC); }

static bool how_writes(pid_t pid, uint64_t at)
{
	struct open_how how = {0};
	union {
		uint64_t n;
		void *p;
	} there = {at};
	struct iovec here = {&how, sizeof how}, remote = {there.p, sizeof how};

	/* What cannot be read will fail by itself. */
	return process_vm_readv(pid, &here, 1, &remote, 1, 0) == (ssize_t)sizeof how && opens_to_write(how.flags);
}

static bool request_writes(uint32_t request)
{
	static const unsigned long writing[] = {FICLONE, FICLONERANGE, FIDEDUPERANGE, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR,
		FS_IOC32_SETFLAGS, FITRIM, BTRFS_IOC_SNAP_CREATE_V2, BTRFS_IOC_SNAP_DESTROY};

	for (size_t i = 0; i < sizeof writing / sizeof writing[0]; i++)
		if (request == (uint32_t)writing[i])
			return true;
	return false;
}

static bool counts(const struct seccomp_notif *q, const struct call *call)
{
	const __u64 *arg = q->data.args;

	switch (call->when) {
	case ALWAYS:
	case FREES:
		return true;
	case NOT_OUT:
		return (int)arg[0] != STDOUT_FILENO && (int)arg[0] != STDERR_FILENO;
	case FLAGS_1:
		return opens_to_write(arg[1]);
	case FLAGS_2:
		return opens_to_write(arg[2]);
	case HOW:
		return how_writes((pid_t)q->pid, arg[2]);
	case REQUEST:
		return request_writes((uint32_t)arg[1]);
	}
	return false;
}

static const struct call *find(int nr)
{
	for (size_t i = 0; i < N_CALLS; i++)
		if (calls[i].nr == nr)
			return &calls[i];
	return NULL;
}

static void tell(const struct cut *c, const char *name)
{
	char byte;

	if (c->out >= 0 && dprintf(c->out, "%s\n", name) < 0)
		die("cannot write the name of a call");
	if (c->in >= 0 && read(c->in, &byte, 1) != 1)
		die("nobody says go on");
}

/* The errno of this call, or 0: it is made. May kill instead. */
static int judge(struct cut *c, const struct seccomp_notif *q)
{
	const struct call *call = find(q->data.nr);

	if (!call || !counts(q, call))
		return 0;
	c->n++;
	tell(c, call->name);
	if (!c->at || (c->is_sticky ? c->n < c->at : c->n != c->at))
		return 0;
	if (!c->error)
		kill(-c->group, SIGKILL);
	else if (call->when != FREES || c->error == EIO)
		return c->error;
	return 0;
}

static void answer(struct cut *c, int listener)
{
	struct seccomp_notif q;

	memset(&q, 0, sizeof q); /* the kernel insists, padding included */
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &q)) {
		if (errno == ENOENT || errno == EINTR) /* it is gone */
			return;
		die("cannot receive a call");
	}
	int error = judge(c, &q);
	struct seccomp_notif_resp a = {.id = q.id, .error = -error};

	if (!error)
		a.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	/* ENOENT: the caller was killed, by us most likely. */
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &a) && errno != ENOENT)
		die("cannot answer a call");
}

/* Until the command and all that it started are gone. */
static int supervise(struct cut *c, int listener)
{
	int status = 0, pid_fd = (int)syscall(SYS_pidfd_open, c->group, 0);
	struct pollfd p[2] = {{.fd = listener, .events = POLLIN}, {.fd = pid_fd, .events = POLLIN}};

	if (pid_fd < 0)
		die("pidfd_open");
	while (p[0].fd >= 0 || p[1].fd >= 0) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			die("poll");
		if (p[0].revents & POLLIN)
			answer(c, listener);
		else if (p[0].revents & POLLHUP)
			p[0].fd = -1;
		if (p[1].revents & POLLIN) {
			if (waitpid(c->group, &status, 0) < 0)
				die("waitpid");
			p[1].fd = -1;
		}
	}
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (end == text || *end || n > INT32_MAX)
		usage();
	return n;
}

static int error_named(const char *name)
{
	if (!strcmp(name, "EIO"))
		return EIO;
	if (!strcmp(name, "ENOSPC"))
		return ENOSPC;
	if (!strcmp(name, "EDQUOT"))
		return EDQUOT;
	usage();
	return 0;
}

int main(int argc, char **argv)
{
	struct cut c = {.out = -1, .in = -1};
	int used = 3, listener;

	if (argc < 4)
		usage();
	if (!strcmp(argv[1], "trace")) {
		c.out = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
		if (c.out < 0)
			die(argv[2]);
	} else if (!strcmp(argv[1], "kill")) {
		c.at = number(argv[2]);
	} else if (argc > 4 && !strcmp(argv[1], "ask")) {
		c.out = (int)number(argv[2]);
		c.in = (int)number(argv[3]);
		if (fcntl(c.out, F_SETFD, FD_CLOEXEC) || fcntl(c.in, F_SETFD, FD_CLOEXEC))
			die("ask");
		used = 4;
	} else if (argc > 4 && (!strcmp(argv[1], "fail") || !strcmp(argv[1], "sticky"))) {
		c.is_sticky = argv[1][0] == 's';
		c.at = number(argv[2]);
		c.error = error_named(argv[3]);
		used = 4;
	} else {
		usage();
	}
	c.group = start(argv + used, &listener);
	return supervise(&c, listener);
}
