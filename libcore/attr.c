#include "attr.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTRS_MAX (3u * 1024 * 1024) /* leaves room for the rest of a META record below REC_MAX */
#define LOCK_FLAGS ((uint32_t)(FS_IMMUTABLE_FL | FS_APPEND_FL))
#define EARLY_FLAGS ((uint32_t)(FS_NOCOW_FL | FS_COMPR_FL | FS_NOCOMP_FL))
#define SHOWN 320

_Static_assert((META_ATTR_MASK & LOCK_FLAGS) == LOCK_FLAGS, "immutable and append-only are kept");
_Static_assert((META_ATTR_MASK & EARLY_FLAGS) == EARLY_FLAGS, "flags of empty files are kept");

void attr_free(struct attr *a)
{
	buf_free(&a->store);
	*a = (struct attr){0};
}

/* A name for a message; errno is left as it was. */
static const char *shown(char out[SHOWN], const char *name)
{
	int keep = errno;
	esc_cut(out, SHOWN, span_cstr(name && name[0] ? name : "."));
	errno = keep;
	return out;
}

static uint8_t type_of(unsigned mode)
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

static bool has_descriptor(uint8_t type)
{
	return type == OBJ_FILE || type == OBJ_DIR;
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

int attr_stat(struct attr *a, int dirfd, const char *name, struct err *e)
{
	struct statx sx;
	char show[SHOWN];
	int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | (name ? 0 : AT_EMPTY_PATH);
	if (statx(dirfd, name ? name : "", flags, STATX_BASIC_STATS | STATX_BTIME, &sx))
		return err_sys(e, "cannot stat '%s'", shown(show, name));
	uint8_t type = type_of(sx.stx_mode);
	if (type == OBJ_NONE)
		return err_set(e, ERR_SYSTEM, "'%s' is of an unknown type (mode %o)", shown(show, name),
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
	return 0;
}

/* Where the xattrs of an object are reached: by descriptor (path empty), or by a path through /proc, because there
 * are no calls that take a directory and a name on the kernels we support. */
struct place {
	int fd;
	bool follow; /* the path ends in /proc's own link to a descriptor */
	char path[32 + 256];
};

static int place_name(struct place *p, int dirfd, const char *name)
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

static ssize_t x_list(const struct place *p, char *out, size_t n)
{
	if (!p->path[0])
		return flistxattr(p->fd, out, n);
	return p->follow ? listxattr(p->path, out, n) : llistxattr(p->path, out, n);
}

static ssize_t x_get(const struct place *p, const char *name, void *out, size_t n)
{
	if (!p->path[0])
		return fgetxattr(p->fd, name, out, n);
	return p->follow ? getxattr(p->path, name, out, n) : lgetxattr(p->path, name, out, n);
}

static int x_set(const struct place *p, const char *name, const void *v, size_t n)
{
	if (!p->path[0])
		return fsetxattr(p->fd, name, v, n, 0);
	return p->follow ? setxattr(p->path, name, v, n, 0) : lsetxattr(p->path, name, v, n, 0);
}

static int x_remove(const struct place *p, const char *name)
{
	if (!p->path[0])
		return fremovexattr(p->fd, name);
	return p->follow ? removexattr(p->path, name) : lremovexattr(p->path, name);
}

/* All names, each with its NUL, as the kernel gives them. -1: errno. */
static int list_names(const struct place *p, struct buf *names)
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

/* The value, NULL-safe for empty ones: v->p is always valid on success. */
static int get_value(const struct place *p, const char *name, struct buf *v)
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

_Static_assert(XATTR_LIST_MAX == 1024 * 8 * 8, "the steps of list_names end at the ceiling");
_Static_assert(XATTR_SIZE_MAX == 4096 * 16, "the steps of get_value end at the ceiling");

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* XFS lists its ACLs a second time, in its own form, to those who may see trusted.*: not an attribute of its own. */
static bool is_twin(const char *name) { return !strncmp(name, "trusted.SGI_ACL_", 16); }

/* Sorted pointers into names; *out is owned by the caller. */
static size_t sort_names(const struct buf *names, const char ***out)
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

/* What may keep us from an attribute without anything being broken: the caller is told, and goes on. */
static bool is_loss(int sys)
{
	switch (sys) {
	case EPERM: case EACCES: case EOPNOTSUPP: case ENOSYS: case ENOTTY: case EINVAL: case ERANGE: case E2BIG:
	case EOVERFLOW: case ENAMETOOLONG:
		return true;
	default:
		return false;
	}
}

static int read_xattrs(struct attr *a, const struct place *p, const char *shown_name, const struct warn *w,
	struct err *e)
{
	AUTO_BUF struct buf names = {0};
	AUTO_BUF struct buf value = {0};
	AUTO_FREE const char **v = NULL;
	char attr_name[SHOWN];

	if (list_names(p, &names)) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0; /* this filesystem has none */
		/* Without /proc the object looks as if it were gone: whoever passes a name has just seen it. */
		if (!is_loss(errno) && !(errno == ENOENT && p->path[0] && access("/proc/self/fd", F_OK)))
			return err_sys(e, "cannot list the xattrs of '%s'", shown_name);
		int sys = errno;
		warn_say(w, "xattr", "cannot list the xattrs of '%s': %s", shown_name, strerror(sys));
		return 0;
	}
	size_t n = sort_names(&names, &v);
	size_t used = 0;
	for (size_t i = 0; i < n; i++) {
		if (get_value(p, v[i], &value)) {
			if (errno == ENODATA)
				continue; /* removed since it was listed */
			if (!is_loss(errno))
				return err_sys(e, "cannot read xattr '%s' of '%s'", shown(attr_name, v[i]), shown_name);
			int sys = errno;
			warn_say(w, "xattr", "cannot read xattr '%s' of '%s': %s", shown(attr_name, v[i]),
					shown_name, strerror(sys));
			continue;
		}
		size_t len = strlen(v[i]);
		size_t need = 8 + len + value.len;
		if (used + need > XATTRS_MAX) {
			warn_say(w, "xattr", "left out xattr '%s' of '%s': more than %u bytes in all",
					shown(attr_name, v[i]), shown_name, XATTRS_MAX);
			continue;
		}
		used += need;
		wr_str(&a->store, v[i], len);
		wr_str(&a->store, value.p, value.len);
	}
	return 0;
}

/* The inode flags; a filesystem without them has none set. -1: errno. */
static int get_flags(int fd, uint32_t *flags)
{
	int v = 0;
	if (ioctl(fd, FS_IOC_GETFLAGS, &v))
		return -1;
	*flags = (uint32_t)v;
	return 0;
}

static int put_flags(int fd, uint32_t flags)
{
	int v = (int)flags;
	return ioctl(fd, FS_IOC_SETFLAGS, &v);
}

static bool no_flags_here(int sys)
{
	return sys == ENOTTY || sys == EOPNOTSUPP || sys == EINVAL || sys == ENOSYS;
}

static int read_target(struct attr *a, int fd, const char *name, struct err *e)
{
	char show[SHOWN];
	size_t room = 256;
	for (;;) {
		buf_reserve(&a->store, room);
		ssize_t n = readlinkat(fd, name, (char *)a->store.p, room);
		if (n < 0)
			return err_sys(e, "cannot read the link '%s'", shown(show, name));
		if ((size_t)n < room) {
			a->store.len = (size_t)n;
			return 0;
		}
		if (room > REC_TARGET_MAX)
			return err_set(e, ERR_SYSTEM, "the target of '%s' is longer than %u bytes", shown(show, name),
				REC_TARGET_MAX);
		room *= 4;
	}
}

int attr_rest(struct attr *a, int fd, const char *name, const struct warn *w, struct err *e)
{
	char show[SHOWN];
	struct place p = {.fd = fd};
	size_t target_len;

	shown(show, name);
	buf_reset(&a->store);
	a->meta.attr = 0;
	a->meta.target = a->meta.xattrs = (struct span){0};
	if (!has_descriptor(a->type) && place_name(&p, fd, name))
		return err_sys(e, "cannot read '%s'", show);
	if (a->type == OBJ_LINK && read_target(a, fd, name, e))
		return -1;
	target_len = a->store.len;
	if (has_descriptor(a->type)) {
		uint32_t flags = 0;
		if (!get_flags(fd, &flags)) {
			a->meta.attr = flags & META_ATTR_MASK;
		} else if (!no_flags_here(errno)) {
			if (!is_loss(errno))
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

bool attr_unlock(int fd)
{
	uint32_t flags;
	if (get_flags(fd, &flags) || !(flags & LOCK_FLAGS))
		return false;
	return put_flags(fd, flags & ~LOCK_FLAGS) == 0;
}

/* Brings the flags within mask to want, never touching others. *left: those that did not take. -1: errno. */
static int change_flags(int fd, uint32_t mask, uint32_t want, uint32_t *left)
{
	uint32_t now;
	if (get_flags(fd, &now))
		return -1;
	uint32_t differ = (now ^ want) & mask;
	*left = 0;
	if (!differ)
		return 0;
	if (put_flags(fd, now ^ differ)) {
		if (!is_loss(errno))
			return -1;
		/* One that the filesystem does not know, or that we may not set, must not cost us the others. */
		for (uint32_t bit = 1; bit; bit <<= 1)
			if (differ & bit) {
				if (get_flags(fd, &now))
					return -1;
				if (put_flags(fd, now ^ bit) && !is_loss(errno))
					return -1;
			}
	}
	/* btrfs says yes to a change of +C on a file with content and does nothing: look again. */
	if (get_flags(fd, &now))
		return -1;
	*left = (now ^ want) & mask;
	return 0;
}

void attr_early(int fd, const struct r_meta *m)
{
	uint32_t left;
	(void)change_flags(fd, EARLY_FLAGS, m->attr, &left);
}

static void flag_letters(char out[33], uint32_t flags)
{
	static const struct {
		uint32_t bit;
		char letter;
	} t[] = {
		{FS_SYNC_FL, 'S'}, {FS_DIRSYNC_FL, 'D'}, {FS_IMMUTABLE_FL, 'i'}, {FS_APPEND_FL, 'a'}, {FS_NODUMP_FL, 'd'},
		{FS_NOATIME_FL, 'A'}, {FS_COMPR_FL, 'c'}, {FS_NOCOMP_FL, 'm'}, {FS_JOURNAL_DATA_FL, 'j'},
		{FS_TOPDIR_FL, 'T'}, {FS_NOCOW_FL, 'C'}, {FS_PROJINHERIT_FL, 'P'},
	};
	size_t n = 0;
	for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++)
		if (flags & t[i].bit)
			out[n++] = t[i].letter;
	out[n] = '\0';
}

/* One restoring. `fd` is what all calls go through: the open file or directory, or an O_PATH descriptor that pins the
 * link, fifo, socket or device whatever happens to its name. */
struct job {
	int fd;
	uint8_t type;
	const struct r_meta *m;
	const struct attr_policy *p;
	struct place place;
	bool widened; /* the owner was given rw for the time being */
	char name[SHOWN];
	char proc[40];
	struct err *e;
};

/* A call failed: a loss is said, anything else is the error. */
static int lost(const struct job *j, const char *kind, const char *what)
{
	int sys = errno;
	if (!is_loss(sys))
		return err_sys(j->e, "cannot restore the %s of '%s'", what, j->name);
	warn_say(j->p->warn, kind, "cannot restore the %s of '%s': %s", what, j->name, strerror(sys));
	return 0;
}

static int job_stat(const struct job *j, struct stat *st)
{
	if (fstat(j->fd, st))
		return err_sys(j->e, "cannot stat '%s'", j->name);
	return 0;
}

static int job_chmod(const struct job *j, mode_t mode)
{
	return has_descriptor(j->type) ? fchmod(j->fd, mode) : chmod(j->proc, mode);
}

static int restore_owner(const struct job *j)
{
	struct stat st;
	const struct r_meta *m = j->m;
	if (j->p->no_owner)
		return 0;
	if (job_stat(j, &st))
		return -1;
	if (st.st_uid == m->uid && st.st_gid == m->gid)
		return 0;
	/* To chown the number -1 means to leave things alone: no object can have it. */
	if (m->uid == UINT32_MAX || m->gid == UINT32_MAX) {
		errno = EINVAL;
		return lost(j, "owner", "owner");
	}
	if (!fchownat(j->fd, "", m->uid, m->gid, AT_EMPTY_PATH))
		return 0;
	int sys = errno;
	/* Who may not give a file away may still choose among their own groups. */
	if (is_loss(sys) && st.st_gid != m->gid && !fchownat(j->fd, "", (uid_t)-1, m->gid, AT_EMPTY_PATH) &&
		st.st_uid == m->uid)
		return 0;
	errno = sys;
	return lost(j, "owner", "owner");
}

static int restore_flags(const struct job *j, uint32_t mask)
{
	uint32_t want = j->m->attr & META_ATTR_MASK & mask, left = 0;
	char letters[33];
	if (change_flags(j->fd, META_ATTR_MASK & mask, want, &left)) {
		if (no_flags_here(errno) && !want)
			return 0;
		return lost(j, "attr", "flags");
	}
	if (left) {
		flag_letters(letters, left);
		warn_say(j->p->warn, "attr", "cannot restore the flags of '%s': %s", j->name, letters);
	}
	return 0;
}

static bool is_acl(const char *name)
{
	return !strcmp(name, "system.posix_acl_access") || !strcmp(name, "system.posix_acl_default");
}

static bool is_capability(const char *name)
{
	return !strcmp(name, "security.capability");
}

static const char *xattr_kind(const char *name)
{
	return is_acl(name) ? "acl" : is_capability(name) ? "capability" : "xattr";
}

/* Whatever gives a program rights, or that only the system itself is trusted to say. */
static bool is_powerful(const char *name)
{
	return !strncmp(name, "security.", 9) || !strncmp(name, "trusted.", 8);
}

static int xattr_lost(const struct job *j, const char *name)
{
	char what[SHOWN + 16];
	char show[SHOWN];
	snprintf(what, sizeof(what), "xattr '%s'", shown(show, name));
	return lost(j, xattr_kind(name), what);
}

/* user.* xattrs of a read-only file are refused even to its owner. The mode is set afterwards anyway. */
static bool widen(struct job *j)
{
	struct stat st;
	if (j->widened || errno != EACCES || !has_descriptor(j->type))
		return false;
	j->widened = true;
	bool done = !fstat(j->fd, &st) && (st.st_mode & 0600) != 0600 && !fchmod(j->fd, (st.st_mode & 07777) | 0600);
	errno = EACCES;
	return done;
}

static int remove_xattr(struct job *j, const char *name)
{
	do {
		if (!x_remove(&j->place, name) || errno == ENODATA)
			return 0;
	} while (widen(j));
	return -1;
}

/* A filesystem says ENOSPC also when the xattrs of one inode outgrow its format: 4 KiB in all on ext4, a leaf on
 * btrfs. Then trying again later is of no use. */
static bool is_format_limit(const struct job *j)
{
	struct statfs s;
	bool is_limit = !fstatfs(j->fd, &s) && s.f_bsize > 0 && s.f_bavail > (1u << 20) / (uint64_t)s.f_bsize;
	errno = is_limit ? E2BIG : ENOSPC;
	return is_limit;
}

/* The kernel stores what an ACL or a capability means, not its bytes: an ACL that says no more than the mode, or nothing, goes
 * without an error. */
static bool is_kept(const struct job *j, const char *name, struct span v)
{
	AUTO_BUF struct buf now = {0};

	if (!is_acl(name) && !is_capability(name))
		return true;
	bool same = !get_value(&j->place, name, &now) && span_eq(span_of(now.p, now.len), v);
	errno = EINVAL;
	return same;
}

/* 0 done or reported, 1: the inode is full, worth another try when the others are in place. */
static int set_xattr(struct job *j, const char *name, struct span v, bool last_try)
{
	AUTO_BUF struct buf old = {0};
	/* What is there already stays untouched, and needs no right to write it. */
	if (!get_value(&j->place, name, &old) && span_eq(span_of(old.p, old.len), v))
		return 0;
	do {
		if (!x_set(&j->place, name, v.len ? (const void *)v.p : (const void *)"", v.len))
			return is_kept(j, name, v) ? 0 : xattr_lost(j, name);
	} while (widen(j));
	if (errno == ENOSPC && is_format_limit(j) && !last_try)
		return 1;
	if (errno == E2BIG) {
		/* Better none than the value of another image. */
		(void)remove_xattr(j, name);
		errno = E2BIG;
	}
	return xattr_lost(j, name);
}

enum part { PART_PLAIN, PART_ACL, PART_CAPABILITY };

static bool is_part(const char *name, enum part part)
{
	switch (part) {
	case PART_PLAIN: return !is_acl(name) && !is_capability(name);
	case PART_ACL: return is_acl(name);
	case PART_CAPABILITY: return is_capability(name);
	}
	return false;
}

/* The name as a C string: false for what no xattr can be called. */
static bool xattr_name(char out[256], struct span s)
{
	if (!s.len || s.len > XATTR_NAME_MAX || memchr(s.p, 0, s.len))
		return false;
	memcpy(out, s.p, s.len);
	out[s.len] = '\0';
	return true;
}

static int set_xattrs(struct job *j, enum part part)
{
	for (int pass = 0, again = 1; pass < 2 && again; pass++) {
		struct rd r = rd_of(j->m->xattrs.p, j->m->xattrs.len);
		struct span name, value;
		again = 0;
		while (xattr_next(&r, &name, &value)) {
			char text[256];
			if (!xattr_name(text, name) || !is_part(text, part))
				continue;
			if (j->p->no_setuid && is_powerful(text))
				continue;
			int rc = set_xattr(j, text, value, pass == 1);
			if (rc < 0)
				return -1;
			again |= rc;
		}
	}
	return 0;
}

/* Both lists are sorted, so that one walk finds what the target has not. */
static int remove_extra(struct job *j)
{
	AUTO_BUF struct buf names = {0};
	AUTO_FREE const char **have = NULL;
	if (list_names(&j->place, &names)) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0;
		return lost(j, "xattr", "xattrs");
	}
	size_t n = sort_names(&names, &have);
	struct rd r = rd_of(j->m->xattrs.p, j->m->xattrs.len);
	struct span name = {0}, value;
	bool more = xattr_next(&r, &name, &value);
	for (size_t i = 0; i < n; i++) {
		struct span mine = span_cstr(have[i]);
		while (more && span_cmp(name, mine) < 0)
			more = xattr_next(&r, &name, &value);
		bool wanted = more && span_eq(name, mine);
		if (j->p->no_setuid && is_powerful(have[i]) && !is_capability(have[i]))
			continue; /* not the sender's to say, neither way */
		if (wanted && !(j->p->no_setuid && is_capability(have[i])))
			continue;
		if (remove_xattr(j, have[i]) && xattr_lost(j, have[i]))
			return -1;
	}
	return 0;
}

static mode_t wanted_mode(const struct job *j, const struct stat *st)
{
	mode_t mode = j->m->mode & 07777;
	if (j->type == OBJ_DIR)
		return mode;
	if (j->p->no_setuid)
		mode &= (mode_t)~(S_ISUID | S_ISGID);
	/* With another owner these bits would lend the rights of somebody who never agreed. */
	if (st->st_uid != j->m->uid)
		mode &= (mode_t)~S_ISUID;
	if (st->st_gid != j->m->gid)
		mode &= (mode_t)~S_ISGID;
	return mode;
}

static int restore_mode(const struct job *j)
{
	struct stat st;
	if (job_stat(j, &st))
		return -1;
	mode_t want = wanted_mode(j, &st);
	if ((st.st_mode & 07777) == want || !job_chmod(j, want))
		return 0;
	return lost(j, "mode", "mode");
}

/* chmod drops a set-group-ID bit without an error when the caller is not in the group, and so do ACLs. */
static int check_mode(const struct job *j)
{
	struct stat st;
	if (job_stat(j, &st))
		return -1;
	mode_t mode = st.st_mode & 07777;
	mode_t want = j->m->mode & 07777;
	if (j->p->no_setuid && j->type != OBJ_DIR)
		want &= (mode_t)~(S_ISUID | S_ISGID);
	if (mode != want)
		warn_say(j->p->warn, "mode", "mode of '%s' is %04o, not %04o", j->name, (unsigned)mode, (unsigned)want);
	return 0;
}

static void mtime_spec(struct timespec ts[2], const struct r_meta *m)
{
	ts[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	ts[1] = (struct timespec){.tv_sec = m->mtime_s, .tv_nsec = (long)m->mtime_ns};
}

static bool has_mtime(const struct stat *st, const struct r_meta *m)
{
	return st->st_mtim.tv_sec == m->mtime_s && st->st_mtim.tv_nsec == (long)m->mtime_ns;
}

static int restore_mtime(const struct job *j)
{
	struct stat st;
	struct timespec ts[2];
	mtime_spec(ts, j->m);
	if (job_stat(j, &st))
		return -1;
	if (has_mtime(&st, j->m))
		return 0;
	int rc = has_descriptor(j->type) ? futimens(j->fd, ts) : utimensat(j->fd, "", ts, AT_EMPTY_PATH);
	if (rc)
		return lost(j, "time", "mtime");
	/* Out of the filesystem's range or finer than its clock: it was rounded without a word. */
	if (job_stat(j, &st))
		return -1;
	if (!has_mtime(&st, j->m))
		warn_say(j->p->warn, "time", "mtime of '%s' was kept as %" PRId64 ".%09ld", j->name,
			(int64_t)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	return 0;
}

/* The utimensat nanosecond field has two magic values above a second. */
static int mtime_is_sane(const struct r_meta *m, const char *name, struct err *e)
{
	char show[SHOWN];
	if (m->mtime_ns < 1000000000u)
		return 0;
	return err_set(e, ERR_STREAM, "mtime of '%s' has %u nanoseconds", shown(show, name), (unsigned)m->mtime_ns);
}

/*
 * The order, and why:
 *   i and a off         everything below is refused on such an inode
 *   owner               takes setuid, setgid and capabilities away
 *   other flags         +c on btrfs writes an xattr of its own (btrfs.compression), which ours then replaces
 *   extra xattrs        an inherited ACL must not widen what the mode is about to say; makes room on ext4
 *   plain xattrs        may need the owner's write bit
 *   mode                would change the mask of an ACL that is already there
 *   ACLs                bring the mode's group bits, as mask, with them
 *   capability          last of what a chown or a write would take away
 *   mtime               nothing after it touches mtime
 *   i and a on
 */
static int restore(struct job *j)
{
	bool flags = has_descriptor(j->type);
	if (flags)
		(void)attr_unlock(j->fd); /* if it fails, what follows says so */
	if (restore_owner(j))
		return -1;
	if (flags && restore_flags(j, ~LOCK_FLAGS))
		return -1;
	if (remove_extra(j) || set_xattrs(j, PART_PLAIN))
		return -1;
	if (j->type != OBJ_LINK && restore_mode(j))
		return -1;
	if (set_xattrs(j, PART_ACL) || set_xattrs(j, PART_CAPABILITY))
		return -1;
	if (check_mode(j))
		return -1;
	if (restore_mtime(j))
		return -1;
	if (!flags && j->m->attr & META_ATTR_MASK) {
		errno = EOPNOTSUPP;
		return lost(j, "attr", "flags");
	}
	return flags ? restore_flags(j, LOCK_FLAGS) : 0;
}

int attr_restore(int dirfd, const char *name, int fd, uint8_t type, const struct r_meta *m,
	const struct attr_policy *p, struct err *e)
{
	struct job j = {.fd = fd, .type = type, .m = m, .p = p, .e = e};
	AUTO_CLOSE int pin = -1;
	struct stat st;

	if (mtime_is_sane(m, name, e))
		return -1;
	shown(j.name, p->label ? p->label : name);
	if (has_descriptor(type)) {
		j.place.fd = fd;
	} else {
		pin = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (pin < 0)
			return err_sys(e, "cannot open '%s'", j.name);
		j.fd = pin;
		snprintf(j.proc, sizeof(j.proc), "/proc/self/fd/%d", pin);
		if (type == OBJ_LINK) {
			/* Through its descriptor a link cannot be had without being followed. */
			if (place_name(&j.place, dirfd, name))
				return err_sys(e, "cannot open '%s'", j.name);
		} else {
			j.place = (struct place){.fd = pin, .follow = true};
			memcpy(j.place.path, j.proc, sizeof(j.proc));
		}
	}
	if (fstat(j.fd, &st))
		return err_sys(e, "cannot stat '%s'", j.name);
	if (type_of(st.st_mode) != type)
		return err_set(e, ERR_SYSTEM, "'%s' was replaced by something else meanwhile", j.name);
	return restore(&j);
}

/* An immutable or append-only object takes no mtime: those flags off, and on again. */
static int mtime_of_locked(int dirfd, const char *name, const struct timespec ts[2])
{
	struct stat st;
	uint32_t flags;
	/* Opening a device or a fifo is not free of effects, and they have no flags. */
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) || !has_descriptor(type_of(st.st_mode)))
		return -1;
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || get_flags(fd, &flags) || !attr_unlock(fd))
		return -1;
	int rc = futimens(fd, ts);
	return put_flags(fd, flags) ? -1 : rc;
}

int attr_set_mtime(int dirfd, const char *name, const struct r_meta *m, struct err *e)
{
	struct timespec ts[2];
	char show[SHOWN];
	const char *at = name && name[0] ? name : ".";
	if (mtime_is_sane(m, name, e))
		return -1;
	mtime_spec(ts, m);
	if (!utimensat(dirfd, at, ts, AT_SYMLINK_NOFOLLOW))
		return 0;
	int sys = errno;
	if (sys == EPERM && !mtime_of_locked(dirfd, at, ts))
		return 0;
	errno = sys;
	return err_sys(e, "cannot set the mtime of '%s'", shown(show, name));
}

bool attr_same(const struct r_meta *a, const struct r_meta *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->mtime_s == b->mtime_s &&
		a->mtime_ns == b->mtime_ns && a->major == b->major && a->minor == b->minor && a->attr == b->attr &&
		span_eq(a->target, b->target) && span_eq(a->xattrs, b->xattrs);
}
