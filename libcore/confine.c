#include "confine.h"

#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bytes.h"

/* Newer than the headers of some systems that we are built on; the kernel that we run on is asked. */
#define ABI_MIN 2 /* FS_REFER */
#define ABI_MAX 7
#define FS_ABI_1 0x1fffu
#define FS_REFER 0x2000u
#define FS_TRUNCATE 0x4000u
#define FS_IOCTL_DEV 0x8000u
#define NET_TCP 3u       /* bind, connect */
#define SCOPE_ABI_6 3u   /* abstract unix sockets, signals */

struct ruleset {
	uint64_t fs, net, scoped;
};
static const size_t ruleset_len[ABI_MAX + 1] = {0, 8, 8, 8, 16, 16, 24, 24};

static struct ruleset handled(int abi)
{
	struct ruleset r = {.fs = FS_ABI_1 | FS_REFER};

	if (abi >= 3)
		r.fs |= FS_TRUNCATE;
	if (abi >= 4)
		r.net = NET_TCP;
	if (abi >= 5)
		r.fs |= FS_IOCTL_DEV;
	if (abi >= 6)
		r.scoped = SCOPE_ABI_6;
	return r;
}

static uint64_t granted(const struct confine_dir *d, uint64_t all)
{
	uint64_t devices = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK;

	if (d->read_only)
		return LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
	return all & ~(uint64_t)(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_SOCK | FS_IOCTL_DEV) &
		~(d->no_devices ? devices : 0);
}

static bool is_directory(int fd)
{
	AUTO_CLOSE int dir = openat(fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return dir >= 0;
}

static int add(int rules, const struct confine_dir *d, uint64_t all, struct err *e)
{
	AUTO_CLOSE int fd = open(d->path, O_PATH | O_CLOEXEC);
	struct landlock_path_beneath_attr rule = {.allowed_access = granted(d, all), .parent_fd = fd};

	if (fd < 0) /* missing or closed to us, and so it stays */
		return 0;
	if (!is_directory(fd))
		rule.allowed_access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE;
	return syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) ?
		err_sys(e, "cannot confine the process to '%s'", d->path) : 0;
}

int confine_to(const struct confine_dir *dirs, size_t n, struct err *e)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	/* ENOSYS, or switched off (EOPNOTSUPP), or a container's filter that does not know the call (EPERM). */
	if (abi < ABI_MIN)
		return 0;
	if (abi > ABI_MAX)
		abi = ABI_MAX;
	struct ruleset r = handled((int)abi);
	AUTO_CLOSE int rules = (int)syscall(SYS_landlock_create_ruleset, &r, ruleset_len[abi], 0);
	if (rules < 0)
		return err_sys(e, "cannot confine the process");
	for (size_t i = 0; i < n; i++)
		if (add(rules, &dirs[i], r.fs, e))
			return -1;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, rules, 0))
		return err_sys(e, "cannot confine the process");
	return (int)abi;
}
