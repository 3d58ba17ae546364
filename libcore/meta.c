#include "meta.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "inode.h"

#define EARLY_FLAGS ((uint32_t)(FS_NOCOW_FL | FS_COMPR_FL | FS_NOCOMP_FL))

_Static_assert((INODE_FLAGS & INODE_LOCKS) == INODE_LOCKS, "immutable and append-only are kept");
_Static_assert((INODE_FLAGS & EARLY_FLAGS) == EARLY_FLAGS, "flags of empty files are kept");

void meta_early(int fd, const struct r_meta *m)
{
	uint32_t left;
	(void)inode_change_flags(fd, EARLY_FLAGS, m->attr, &left);
}

/* ---- without xattrs, flags and setuid ---- */

bool meta_is_plain(const struct r_meta *m) { return !m->xattrs.len && !m->attr && !(m->mode & (S_ISUID | S_ISGID)); }

bool meta_is_bare(int dirfd)
{
	AUTO_BUF struct buf names = {0};
	uint32_t flags;

	if (inode_list_xattrs(&(struct inode){.fd = dirfd}, &names) ? errno != EOPNOTSUPP && errno != ENOSYS : names.len != 0)
		return false;
	return inode_flags(dirfd, &flags) ? inode_has_no_flags(errno) : !(flags & INODE_FLAGS);
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

static bool has_owner(const struct stat *st, const struct r_meta *m) { return st->st_uid == m->uid && st->st_gid == m->gid; }

/* The mtime comes last: it says that the rest was done. */
bool meta_dress(int fd, const struct r_meta *m)
{
	struct timespec ts[2];
	struct stat st;

	if (m->mtime_ns >= 1000000000u || fstat(fd, &st))
		return false;
	if (!has_owner(&st, m)) {
		if (fchown(fd, m->uid, m->gid))
			return false;
		st.st_mode = 0; /* it may have lost some of it */
	}
	if ((st.st_mode & 07777) != m->mode && fchmod(fd, m->mode & 07777))
		return false;
	mtime_spec(ts, m);
	return !futimens(fd, ts);
}

/* ---- all of it ---- */

static void flag_letters(char out[33], uint32_t flags)
{
	static const struct {
		uint32_t bit;
		char letter;
	} t[] = {
		{FS_SYNC_FL, 'S'}, {FS_DIRSYNC_FL, 'D'}, {FS_IMMUTABLE_FL, 'i'}, {FS_APPEND_FL, 'a'}, {FS_NODUMP_FL, 'd'},
		{FS_NOATIME_FL, 'A'}, {FS_COMPR_FL, 'c'}, {FS_NOCOMP_FL, 'm'}, {FS_JOURNAL_DATA_FL, 'j'},
		{FS_TOPDIR_FL, 'T'}, {FS_NOCOW_FL, 'C'},
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
	const struct meta_policy *p;
	struct inode inode;
	struct stat st;  /* as of the last look */
	bool is_stale;   /* mode or owner may have changed since */
	uint32_t flags;  /* as of the beginning, without the locks that could be taken off */
	bool has_flags;
	bool widened;    /* the owner was given rw for the time being */
	char name[INODE_SHOWN];
	char proc[40];
	struct err *e;
};

/* A call failed: a loss is said, anything else is the error. */
static int lost(const struct job *j, const char *kind, const char *what)
{
	int sys = errno;
	/* sshfs follows links, wherever the other end's lead. */
	if (!inode_is_loss(sys) && !(sys == ENOENT && j->type == OBJ_LINK))
		return err_sys(j->e, "cannot restore the %s of '%s'", what, j->name);
	warn_say(j->p->warn, kind, "cannot restore the %s of '%s': %s", what, j->name, strerror(sys));
	return 0;
}

/* Looks again, if there may be anything new. */
static int look(struct job *j)
{
	if (j->is_stale && fstat(j->fd, &j->st))
		return err_sys(j->e, "cannot stat '%s'", j->name);
	j->is_stale = false;
	return 0;
}

static int job_chmod(struct job *j, mode_t mode)
{
	j->is_stale = true;
	return inode_has_fd(j->type) ? fchmod(j->fd, mode) : chmod(j->proc, mode);
}

static int restore_owner(struct job *j)
{
	const struct r_meta *m = j->m;
	if (j->p->no_owner || has_owner(&j->st, m))
		return 0;
	j->is_stale = true;
	/* To chown the number -1 means to leave things alone: no object can have it. */
	if (m->uid == UINT32_MAX || m->gid == UINT32_MAX) {
		errno = EINVAL;
		return lost(j, "owner", "owner");
	}
	if (!fchownat(j->fd, "", m->uid, m->gid, AT_EMPTY_PATH))
		return 0;
	int sys = errno;
	/* Who may not give a file away may still choose among their own groups. */
	if (inode_is_loss(sys) && j->st.st_gid != m->gid && !fchownat(j->fd, "", (uid_t)-1, m->gid, AT_EMPTY_PATH) &&
		j->st.st_uid == m->uid)
		return 0;
	errno = sys;
	return lost(j, "owner", "owner");
}

static int restore_flags(const struct job *j, uint32_t mask)
{
	uint32_t want = j->m->attr & INODE_FLAGS & mask, left = 0;
	char letters[33];
	if (j->has_flags && !((j->flags ^ want) & INODE_FLAGS & mask))
		return 0;
	if (inode_change_flags(j->fd, INODE_FLAGS & mask, want, &left)) {
		if (inode_has_no_flags(errno) && !want)
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
	char what[INODE_SHOWN + 16];
	char show[INODE_SHOWN];
	snprintf(what, sizeof(what), "xattr '%s'", inode_shown(show, name));
	return lost(j, xattr_kind(name), what);
}

/* user.* xattrs of a read-only file are refused even to its owner. The mode is set afterwards anyway. */
static bool widen(struct job *j)
{
	if (j->widened || errno != EACCES || !inode_has_fd(j->type))
		return false;
	j->widened = true;
	bool done = !fstat(j->fd, &j->st) && (j->st.st_mode & 0600) != 0600 && !job_chmod(j, (j->st.st_mode & 07777) | 0600);
	errno = EACCES;
	return done;
}

static int remove_xattr(struct job *j, const char *name)
{
	j->is_stale = true;
	do {
		if (!inode_remove_xattr(&j->inode, name) || errno == ENODATA)
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
	bool same = !inode_get_xattr(&j->inode, name, &now) && span_eq(span_of(now.p, now.len), v);
	errno = EINVAL;
	return same;
}

/* 0 done or reported, 1: the inode is full, worth another try when the others are in place. */
static int set_xattr(struct job *j, const char *name, struct span v, bool last_try)
{
	AUTO_BUF struct buf old = {0};
	/* What is there already stays untouched, and needs no right to write it. */
	if (!inode_get_xattr(&j->inode, name, &old) && span_eq(span_of(old.p, old.len), v))
		return 0;
	j->is_stale = true;
	do {
		if (!inode_set_xattr(&j->inode, name, v.len ? (const void *)v.p : (const void *)"", v.len))
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
	if (inode_list_xattrs(&j->inode, &names)) {
		if (errno == EOPNOTSUPP || errno == ENOSYS)
			return 0;
		return lost(j, "xattr", "xattrs");
	}
	size_t n = inode_sort_names(&names, &have);
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

static mode_t wanted_mode(const struct job *j)
{
	mode_t mode = j->m->mode & 07777;
	if (j->type == OBJ_DIR)
		return mode;
	if (j->p->no_setuid)
		mode &= (mode_t)~(S_ISUID | S_ISGID);
	/* With another owner these bits would lend the rights of somebody who never agreed. */
	if (j->st.st_uid != j->m->uid)
		mode &= (mode_t)~S_ISUID;
	if (j->st.st_gid != j->m->gid)
		mode &= (mode_t)~S_ISGID;
	return mode;
}

static int restore_mode(struct job *j)
{
	if (look(j))
		return -1;
	mode_t want = wanted_mode(j);
	if ((j->st.st_mode & 07777) == want || !job_chmod(j, want))
		return 0;
	return lost(j, "mode", "mode");
}

/* chmod drops a set-group-ID bit without an error when the caller is not in the group, and so do ACLs. */
static void check_mode(const struct job *j)
{
	mode_t mode = j->st.st_mode & 07777;
	mode_t want = j->m->mode & 07777;
	if (j->p->no_setuid && j->type != OBJ_DIR)
		want &= (mode_t)~(S_ISUID | S_ISGID);
	if (mode != want)
		warn_say(j->p->warn, "mode", "mode of '%s' is %04o, not %04o", j->name, (unsigned)mode, (unsigned)want);
}

/* What was done before does not touch it. */
static int restore_mtime(struct job *j, bool *is_set)
{
	struct timespec ts[2];
	*is_set = !has_mtime(&j->st, j->m);
	if (!*is_set)
		return 0;
	mtime_spec(ts, j->m);
	j->is_stale = true;
	if (!(inode_has_fd(j->type) ? futimens(j->fd, ts) : utimensat(j->fd, "", ts, AT_EMPTY_PATH)))
		return 0;
	*is_set = false;
	return lost(j, "time", "mtime");
}

/* Out of the filesystem's range or finer than its clock: it was rounded without a word. */
static void check_mtime(const struct job *j)
{
	if (!has_mtime(&j->st, j->m))
		warn_say(j->p->warn, "time", "mtime of '%s' was kept as %" PRId64 ".%09ld", j->name,
			(int64_t)j->st.st_mtim.tv_sec, j->st.st_mtim.tv_nsec);
}

/* The utimensat nanosecond field has two magic values above a second. */
static int mtime_is_sane(const struct r_meta *m, const char *name, struct err *e)
{
	char show[INODE_SHOWN];
	if (m->mtime_ns < 1000000000u)
		return 0;
	return err_set(e, ERR_STREAM, "mtime of '%s' has %u nanoseconds", inode_shown(show, name), (unsigned)m->mtime_ns);
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
	bool flags = inode_has_fd(j->type), is_set;
	j->has_flags = flags && !inode_flags(j->fd, &j->flags);
	if (j->has_flags && j->flags & INODE_LOCKS && !inode_put_flags(j->fd, j->flags & ~INODE_LOCKS))
		j->flags &= ~INODE_LOCKS; /* else what follows says so */
	if (restore_owner(j))
		return -1;
	if (flags && restore_flags(j, ~INODE_LOCKS))
		return -1;
	if (remove_extra(j) || set_xattrs(j, PART_PLAIN))
		return -1;
	if (j->type != OBJ_LINK && restore_mode(j))
		return -1;
	if (set_xattrs(j, PART_ACL) || set_xattrs(j, PART_CAPABILITY))
		return -1;
	if (restore_mtime(j, &is_set) || look(j))
		return -1;
	check_mode(j);
	if (is_set)
		check_mtime(j);
	if (!flags && j->m->attr & INODE_FLAGS) {
		errno = EOPNOTSUPP;
		return lost(j, "attr", "flags");
	}
	return flags ? restore_flags(j, INODE_LOCKS) : 0;
}

int meta_restore(int dirfd, const char *name, int fd, uint8_t type, const struct r_meta *m,
	const struct meta_policy *p, struct err *e)
{
	struct job j = {.fd = fd, .type = type, .m = m, .p = p, .e = e};
	AUTO_CLOSE int pin = -1;

	if (mtime_is_sane(m, name, e))
		return -1;
	inode_shown(j.name, p->label ? p->label : name);
	if (inode_has_fd(type)) {
		j.inode.fd = fd;
	} else {
		pin = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (pin < 0)
			return err_sys(e, "cannot open '%s'", j.name);
		j.fd = pin;
		snprintf(j.proc, sizeof(j.proc), "/proc/self/fd/%d", pin);
		if (type == OBJ_LINK) {
			/* Through its descriptor a link cannot be had without being followed. */
			if (inode_by_name(&j.inode, dirfd, name))
				return err_sys(e, "cannot open '%s'", j.name);
		} else {
			j.inode = (struct inode){.fd = pin, .follow = true};
			memcpy(j.inode.path, j.proc, sizeof(j.proc));
		}
	}
	j.is_stale = true;
	if (look(&j))
		return -1;
	if (inode_type(j.st.st_mode) != type)
		return err_set(e, ERR_SYSTEM, "'%s' was replaced by something else meanwhile", j.name);
	return restore(&j);
}

/* An immutable or append-only object takes no mtime: those flags off, and on again. */
static int mtime_of_locked(int dirfd, const char *name, const struct timespec ts[2])
{
	struct stat st;
	uint32_t flags;
	/* Opening a device or a fifo is not free of effects, and they have no flags. */
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) || !inode_has_fd(inode_type(st.st_mode)))
		return -1;
	AUTO_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || inode_flags(fd, &flags) || !inode_unlock(fd))
		return -1;
	int rc = futimens(fd, ts);
	return inode_put_flags(fd, flags) ? -1 : rc;
}

int meta_set_mtime(int dirfd, const char *name, const struct r_meta *m, struct err *e)
{
	struct timespec ts[2];
	char show[INODE_SHOWN];
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
	return err_sys(e, "cannot set the mtime of '%s'", inode_shown(show, name));
}
