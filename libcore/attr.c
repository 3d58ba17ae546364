#include "attr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "inode.h"

#define XATTRS_MAX (3u * 1024 * 1024) /* leaves room for the rest of a META record below REC_MAX */

void attr_free(struct attr *a)
{
	buf_free(&a->store);
	*a = (struct attr){0};
}

/* The capacity as the kernel publishes it: opening a device may spin up, rewind or lock something. */
static uint64_t block_capacity(unsigned maj, unsigned min)
{
	char path[64];
	char text[32];
	uint64_t sectors, bytes;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/size", maj, min);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return 0;
	text[n] = '\0';
	sectors = strtoull(text, NULL, 10);
	return mul_u64(sectors, 512, &bytes) ? bytes : 0;
}

/* Of one that is open, where nobody lets us see /sys. */
static uint64_t open_capacity(int fd)
{
	off_t was = lseek(fd, 0, SEEK_CUR), end = lseek(fd, 0, SEEK_END);

	return was < 0 || end < 0 || lseek(fd, was, SEEK_SET) < 0 ? 0 : (uint64_t)end;
}

static void as_volume(struct attr *a)
{
	a->type = OBJ_FILE;
	a->meta = (struct r_meta){.mode = 0600};
	a->hint = (struct r_hint){0};
	a->blocks512 = a->size / 512;
}

int attr_stat(struct attr *a, int dirfd, const char *name, struct err *e)
{
	struct statx sx;
	char show[INODE_SHOWN];
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name ? 0 : AT_EMPTY_PATH);
	if (statx(dirfd, name ? name : "", flags, STATX_BASIC_STATS | STATX_BTIME, &sx))
		return err_sys(e, "cannot stat '%s'", inode_shown(show, name));
	uint8_t type = inode_type(sx.stx_mode);
	if (type == OBJ_NONE)
		return err_set(e, ERR_SYSTEM, "'%s' is of an unknown type (mode %o)", inode_shown(show, name),
			(unsigned)sx.stx_mode);

	buf_reset(&a->store);
	a->type = type;
	a->meta = (struct r_meta){
		/* The mode of a link means nothing, cannot be set, and differs between filesystems. */
		.mode = type == OBJ_LINK ? 0777 : (uint16_t)(sx.stx_mode & 07777),
		.uid = sx.stx_uid,
		.gid = sx.stx_gid,
		.mtime_s = sx.stx_mtime.tv_sec,
		.mtime_ns = sx.stx_mtime.tv_nsec,
	};
	if (type == OBJ_CHAR || type == OBJ_BLOCK) {
		a->meta.major = sx.stx_rdev_major;
		a->meta.minor = sx.stx_rdev_minor;
	}
	a->hint = (struct r_hint){
		.dev = makedev(sx.stx_dev_major, sx.stx_dev_minor),
		.ino = sx.stx_ino,
		.ctime_s = sx.stx_ctime.tv_sec,
		.ctime_ns = sx.stx_ctime.tv_nsec,
		.nlink = sx.stx_nlink,
	};
	if (sx.stx_mask & STATX_BTIME) {
		a->hint.btime_s = sx.stx_btime.tv_sec;
		a->hint.btime_ns = sx.stx_btime.tv_nsec;
	}
	a->size = type == OBJ_FILE ? sx.stx_size : 0;
	if (type == OBJ_BLOCK)
		a->size = block_capacity(sx.stx_rdev_major, sx.stx_rdev_minor);
	a->blocks512 = sx.stx_blocks;
	if (type == OBJ_BLOCK && !name) {
		if (!a->size)
			a->size = open_capacity(dirfd);
		as_volume(a);
	}
	return 0;
}

static int read_xattrs(struct attr *a, const struct inode *p, const char *shown_name, const struct warn *w,
	struct err *e)
{
	AUTO_BUF struct buf names = {0};
	AUTO_BUF struct buf value = {0};
	AUTO_FREE const char **v = NULL;
	char attr_name[INODE_SHOWN];

	if (inode_list_xattrs(p, &names)) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0; /* this filesystem has none */
		/* Without /proc the object looks as if it were gone: whoever passes a name has just seen it. */
		if (!inode_is_loss(errno) && !(errno == ENOENT && p->path[0] && access("/proc/self/fd", F_OK)))
			return err_sys(e, "cannot list the xattrs of '%s'", shown_name);
		int sys = errno;
		warn_say(w, "xattr", "cannot list the xattrs of '%s': %s", shown_name, strerror(sys));
		return 0;
	}
	size_t n = inode_sort_names(&names, &v);
	size_t used = 0;
	for (size_t i = 0; i < n; i++) {
		if (inode_get_xattr(p, v[i], &value)) {
			if (errno == ENODATA)
				continue; /* removed since it was listed */
			if (!inode_is_loss(errno))
				return err_sys(e, "cannot read xattr '%s' of '%s'", inode_shown(attr_name, v[i]), shown_name);
			int sys = errno;
			warn_say(w, "xattr", "cannot read xattr '%s' of '%s': %s", inode_shown(attr_name, v[i]),
					shown_name, strerror(sys));
			continue;
		}
		size_t len = strlen(v[i]);
		size_t need = 8 + len + value.len;
		if (used + need > XATTRS_MAX) {
			warn_say(w, "xattr", "left out xattr '%s' of '%s': more than %u bytes in all",
					inode_shown(attr_name, v[i]), shown_name, XATTRS_MAX);
			continue;
		}
		used += need;
		wr_str(&a->store, v[i], len);
		wr_str(&a->store, value.p, value.len);
	}
	return 0;
}

static int read_target(struct attr *a, int fd, const char *name, struct err *e)
{
	char show[INODE_SHOWN];
	size_t room = 256;
	for (;;) {
		buf_reserve(&a->store, room);
		ssize_t n = readlinkat(fd, name, (char *)a->store.p, room);
		if (n < 0)
			return err_sys(e, "cannot read the link '%s'", inode_shown(show, name));
		if ((size_t)n < room) {
			a->store.len = (size_t)n;
			return 0;
		}
		if (room > REC_TARGET_MAX)
			return err_set(e, ERR_SYSTEM, "the target of '%s' is longer than %u bytes", inode_shown(show, name),
				REC_TARGET_MAX);
		room *= 4;
	}
}

int attr_rest(struct attr *a, int fd, const char *name, const struct warn *w, struct err *e)
{
	char show[INODE_SHOWN];
	struct inode p = {.fd = fd};
	size_t target_len;

	inode_shown(show, name);
	buf_reset(&a->store);
	a->meta.attr = 0;
	a->meta.target = a->meta.xattrs = (struct span){0};
	if (a->type == OBJ_FILE && !a->hint.ino) /* a device, whose node's metadata are not its content's */
		return 0;
	if (!inode_has_fd(a->type) && inode_by_name(&p, fd, name))
		return err_sys(e, "cannot read '%s'", show);
	if (a->type == OBJ_LINK && read_target(a, fd, name, e))
		return -1;
	target_len = a->store.len;
	if (inode_has_fd(a->type)) {
		uint32_t flags = 0;
		if (!inode_flags(fd, &flags)) {
			a->meta.attr = flags & INODE_FLAGS;
		} else if (!inode_has_no_flags(errno)) {
			if (!inode_is_loss(errno))
				return err_sys(e, "cannot read the flags of '%s'", show);
			int sys = errno;
			warn_say(w, "attr", "cannot read the flags of '%s': %s", show, strerror(sys));
		}
	}
	if (read_xattrs(a, &p, show, w, e))
		return -1;
	/* Only now does the store stay where it is. */
	if (target_len > 0)
		a->meta.target = span_of(a->store.p, target_len);
	if (a->store.len > target_len)
		a->meta.xattrs = span_of(a->store.p + target_len, a->store.len - target_len);
	return 0;
}

struct r_hint attr_settled(const struct attr *a, uint64_t names)
{
	struct r_hint h = a->hint;

	h.dev = 0;
	h.flags = names == 1 ? HINT_SETTLED : 0;
	return h;
}

bool attr_same(const struct r_meta *a, const struct r_meta *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->mtime_s == b->mtime_s &&
		a->mtime_ns == b->mtime_ns && a->major == b->major && a->minor == b->minor && a->attr == b->attr &&
		span_eq(a->target, b->target) && span_eq(a->xattrs, b->xattrs);
}
