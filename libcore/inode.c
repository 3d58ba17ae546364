#include "inode.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "record.h"

_Static_assert(INODE_FLAGS == (META_ATTR_MASK & ~(uint32_t)FS_PROJINHERIT_FL), "all but the project");
_Static_assert(INODE_LOCKS == (FS_IMMUTABLE_FL | FS_APPEND_FL), "the two that keep everything else from changing");

const char *inode_shown(char out[INODE_SHOWN], const char *name)
{
	int keep = errno;
	esc_cut(out, INODE_SHOWN, span_cstr(name && name[0] ? name : "."));
	errno = keep;
	return out;
}

uint8_t inode_type(unsigned mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return OBJ_FILE;
	case S_IFDIR: return OBJ_DIR;
	case S_IFLNK: return OBJ_LINK;
	case S_IFIFO: return OBJ_FIFO;
	case S_IFCHR: return OBJ_CHAR;
	case S_IFBLK: return OBJ_BLOCK;
	case S_IFSOCK: return OBJ_SOCKET;
	default: return OBJ_NONE;
	}
}

bool inode_has_fd(uint8_t type)
{
	return type == OBJ_FILE || type == OBJ_DIR;
}

int inode_by_name(struct inode *p, int dirfd, const char *name)
{
	p->fd = dirfd;
	p->follow = false;
	int n = snprintf(p->path, sizeof(p->path), "/proc/self/fd/%d/%s", dirfd, name);
	if (n < 0 || (size_t)n >= sizeof(p->path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	return 0;
}

static ssize_t x_list(const struct inode *p, char *out, size_t n)
{
	if (!p->path[0])
		return flistxattr(p->fd, out, n);
	return p->follow ? listxattr(p->path, out, n) : llistxattr(p->path, out, n);
}

static ssize_t x_get(const struct inode *p, const char *name, void *out, size_t n)
{
	if (!p->path[0])
		return fgetxattr(p->fd, name, out, n);
	return p->follow ? getxattr(p->path, name, out, n) : lgetxattr(p->path, name, out, n);
}

int inode_set_xattr(const struct inode *p, const char *name, const void *v, size_t n)
{
	if (!p->path[0])
		return fsetxattr(p->fd, name, v, n, 0);
	return p->follow ? setxattr(p->path, name, v, n, 0) : lsetxattr(p->path, name, v, n, 0);
}

int inode_remove_xattr(const struct inode *p, const char *name)
{
	if (!p->path[0])
		return fremovexattr(p->fd, name);
	return p->follow ? removexattr(p->path, name) : lremovexattr(p->path, name);
}

int inode_list_xattrs(const struct inode *p, struct buf *names)
{
	buf_reset(names);
	for (size_t room = 1024; room <= XATTR_LIST_MAX; room *= 8) {
		buf_reserve(names, room);
		ssize_t n = x_list(p, (char *)names->p, room);
		if (n >= 0) {
			names->len = (size_t)n;
			return 0;
		}
		if (errno != ERANGE)
			return -1;
	}
	errno = E2BIG;
	return -1;
}

int inode_get_xattr(const struct inode *p, const char *name, struct buf *v)
{
	ssize_t n = -1;
	buf_reset(v);
	for (size_t room = 4096; room <= XATTR_SIZE_MAX; room *= 16) {
		buf_reserve(v, room);
		n = x_get(p, name, v->p, room);
		if (n >= 0 || errno != ERANGE)
			break;
	}
	if (n < 0)
		return -1;
	v->len = (size_t)n;
	return 0;
}

_Static_assert(XATTR_LIST_MAX == 1024 * 8 * 8, "the steps of inode_list_xattrs end at the ceiling");
_Static_assert(XATTR_SIZE_MAX == 4096 * 16, "the steps of inode_get_xattr end at the ceiling");

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* XFS lists its ACLs a second time, in its own form, to those who may see trusted.*: not an attribute of its own. */
static bool is_twin(const char *name) { return !strncmp(name, "trusted.SGI_ACL_", 16); }

size_t inode_sort_names(const struct buf *names, const char ***out)
{
	size_t n = 0, i = 0;
	for (size_t at = 0; at < names->len; at++)
		n += names->p[at] == '\0';
	const char **v = xalloc((n + 1) * sizeof(*v));
	for (size_t at = 0; at < names->len && i < n; at += strlen((const char *)names->p + at) + 1)
		if (!is_twin((const char *)names->p + at))
			v[i++] = (const char *)names->p + at;
	qsort(v, i, sizeof(*v), by_name);
	*out = v;
	return i;
}

bool inode_is_loss(int sys)
{
	switch (sys) {
	case EPERM: case EACCES: case EOPNOTSUPP: case ENOSYS: case ENOTTY: case EINVAL: case ERANGE: case E2BIG:
	case EOVERFLOW: case ENAMETOOLONG:
		return true;
	default:
		return false;
	}
}

int inode_flags(int fd, uint32_t *flags)
{
	int v = 0;
	if (ioctl(fd, FS_IOC_GETFLAGS, &v))
		return -1;
	*flags = (uint32_t)v;
	return 0;
}

int inode_put_flags(int fd, uint32_t flags)
{
	int v = (int)flags;
	return ioctl(fd, FS_IOC_SETFLAGS, &v);
}

bool inode_has_no_flags(int sys)
{
	return sys == ENOTTY || sys == EOPNOTSUPP || sys == EINVAL || sys == ENOSYS;
}

bool inode_unlock(int fd)
{
	uint32_t flags;
	if (inode_flags(fd, &flags) || !(flags & INODE_LOCKS))
		return false;
	return inode_put_flags(fd, flags & ~INODE_LOCKS) == 0;
}

int inode_change_flags(int fd, uint32_t mask, uint32_t want, uint32_t *left)
{
	uint32_t now;
	if (inode_flags(fd, &now))
		return -1;
	uint32_t differ = (now ^ want) & mask;
	*left = 0;
	if (!differ)
		return 0;
	if (inode_put_flags(fd, now ^ differ)) {
		if (!inode_is_loss(errno))
			return -1;
		/* One that the filesystem does not know, or that we may not set, must not cost us the others. */
		for (uint32_t bit = 1; bit; bit <<= 1)
			if (differ & bit) {
				if (inode_flags(fd, &now))
					return -1;
				if (inode_put_flags(fd, now ^ bit) && !inode_is_loss(errno))
					return -1;
			}
	}
	/* btrfs says yes to a change of +C on a file with content and does nothing: look again. */
	if (inode_flags(fd, &now))
		return -1;
	*left = (now ^ want) & mask;
	return 0;
}
