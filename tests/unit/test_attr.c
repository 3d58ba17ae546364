#include "../../libcore/attr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../../libcore/inode.h"
#include "../../libcore/meta.h"
#include "../../libcore/path.h"
#include "unit.h"

/* What was warned about. */
struct heard {
	unsigned owner, mode, xattr, acl, capability, attr, time, other;
	char last[256];
};

static void hear(void *ctx, const char *kind, const char *text)
{
	struct heard *h = ctx;
	if (!strcmp(kind, "owner")) h->owner++;
	else if (!strcmp(kind, "mode")) h->mode++;
	else if (!strcmp(kind, "xattr")) h->xattr++;
	else if (!strcmp(kind, "acl")) h->acl++;
	else if (!strcmp(kind, "capability")) h->capability++;
	else if (!strcmp(kind, "attr")) h->attr++;
	else if (!strcmp(kind, "time")) h->time++;
	else h->other++;
	snprintf(h->last, sizeof(h->last), "%s: %s", kind, text);
}

static unsigned heard_total(const struct heard *h)
{
	return h->owner + h->mode + h->xattr + h->acl + h->capability + h->attr + h->time + h->other;
}

static int open_plain(int root, const char *name)
{
	struct stat st;
	if (fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
		return -1;
	return openat(root, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
}

static int look(struct attr *a, int root, const char *name, struct heard *h, struct err *e)
{
	struct warn w = {.say = hear, .ctx = h};
	if (attr_stat(a, root, name, e))
		return -1;
	int fd = open_plain(root, name);
	int rc = attr_rest(a, fd >= 0 ? fd : root, name, &w, e);
	close_fd(&fd);
	return rc;
}

static int put(int root, const char *name, uint8_t type, const struct r_meta *m, struct meta_policy p, struct heard *h,
	struct err *e)
{
	struct warn w = {.say = hear, .ctx = h};
	int fd = open_plain(root, name);
	p.warn = &w;
	int rc = meta_restore(root, name, fd, type, m, &p, e);
	close_fd(&fd);
	return rc;
}

/* Restores what `from` has on `to`, and looks whether it is the same now. */
static void copy(int root, const char *from, const char *to, int line)
{
	struct attr a = {0}, b = {0}, c = {0};
	struct err e = {0};
	struct heard h = {0};
	struct meta_policy p = {.numeric = true};
	bool ok = !look(&a, root, from, &h, &e) && !put(root, to, a.type, &a.meta, p, &h, &e) && !look(&b, root, to, &h, &e);
	unit_check(ok && attr_same(&a.meta, &b.meta) && !heard_total(&h), __FILE__, line, "restored the same");
	if (!ok || heard_total(&h))
		fprintf(stderr, "\t%s %s\n", e.text, h.last);
	else if (!attr_same(&a.meta, &b.meta))
		fprintf(stderr, "\tmode %o %o, owner %u %u, attr %x %x, mtime %" PRId64 " %" PRId64 ", %zu %zu bytes of xattrs\n",
			a.meta.mode, b.meta.mode, a.meta.uid, b.meta.uid, a.meta.attr, b.meta.attr, a.meta.mtime_s,
			b.meta.mtime_s, a.meta.xattrs.len, b.meta.xattrs.len);
	/* Once more: nothing to do, so nothing is touched. Locks have to be opened for that. */
	ok = ok && !put(root, to, a.type, &a.meta, p, &h, &e) && !attr_stat(&c, root, to, &e);
	if (ok && !(a.meta.attr & (FS_IMMUTABLE_FL | FS_APPEND_FL)))
		unit_check(b.hint.ctime_s == c.hint.ctime_s && b.hint.ctime_ns == c.hint.ctime_ns, __FILE__, line,
			"a second time changes nothing");
	attr_free(&a);
	attr_free(&b);
	attr_free(&c);
}
#define COPY(root, from, to) copy((root), (from), (to), __LINE__)

static int make(int root, const char *name, mode_t mode)
{
	int fd = openat(root, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (CHECK(fd >= 0))
		CHECK(!fchmod(fd, mode));
	return fd;
}

static void remake(int root, const char *name)
{
	struct err e = {0};
	CHECK_OK(path_remove(root, name, &e), e);
	int fd = make(root, name, 0600);
	close_fd(&fd);
}

static bool set_flags(int root, const char *name, int flags)
{
	int v = 0;
	int fd = openat(root, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	bool ok = fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &v);
	v |= flags;
	ok = ok && !ioctl(fd, FS_IOC_SETFLAGS, &v);
	close_fd(&fd);
	return ok;
}

static void basics(int root)
{
	struct attr a = {0};
	struct err e = {0};
	struct heard h = {0};
	int fd = make(root, "f", 0640);
	CHECK(pwrite(fd, "hello", 5, 4096) == 5);
	CHECK_OK(attr_stat(&a, root, "f", &e), e);
	CHECK(a.type == OBJ_FILE && a.size == 4101 && a.meta.mode == 0640 && a.meta.uid == geteuid());
	CHECK(a.hint.ino != 0 && a.hint.nlink == 1 && a.hint.flags == 0);
	CHECK_OK(attr_stat(&a, fd, NULL, &e), e);
	CHECK(a.type == OBJ_FILE && a.size == 4101);
	CHECK_OK(attr_stat(&a, root, NULL, &e), e);
	CHECK(a.type == OBJ_DIR && a.size == 0);
	CHECK(attr_stat(&a, root, "none", &e) == -1 && e.kind == ERR_SYSTEM && e.sys == ENOENT);
	err_clear(&e);
	close_fd(&fd);

	char target[4096];
	memset(target, 't', sizeof(target) - 1);
	target[4095] = '\0';
	CHECK(!symlinkat("/nowhere", root, "l"));
	if (symlinkat(target, root, "long")) { /* XFS stops at 1024 */
		target[1000] = '\0';
		CHECK(!symlinkat(target, root, "long"));
	}
	CHECK_OK(look(&a, root, "l", &h, &e), e);
	CHECK(a.type == OBJ_LINK && a.meta.mode == 0777 && span_eq(a.meta.target, span_cstr("/nowhere")) && !a.meta.xattrs.len);
	CHECK_OK(look(&a, root, "long", &h, &e), e);
	CHECK(span_eq(a.meta.target, span_cstr(target)));
	CHECK_OK(look(&a, root, "f", &h, &e), e);
	CHECK(a.meta.target.len == 0);
	CHECK_EQ_U64(heard_total(&h), 0);
	struct r_meta m = a.meta;
	CHECK(attr_same(&m, &a.meta));
	m.mtime_ns ^= 1;
	CHECK(!attr_same(&m, &a.meta));

	/* Not what it was: refused, and the other object is left alone. */
	CHECK(put(root, "l", OBJ_FIFO, &a.meta, (struct meta_policy){0}, &h, &e) == -1 && e.kind == ERR_SYSTEM);
	err_clear(&e);
	m = a.meta;
	m.mtime_ns = UTIME_NOW;
	CHECK(put(root, "f", OBJ_FILE, &m, (struct meta_policy){0}, &h, &e) == -1 && e.kind == ERR_STREAM);
	attr_free(&a);
	attr_free(&a);
}

static void times(int root)
{
	static const int64_t s[] = {-1, -86400 * 365 * 20, 0, INT64_C(4102444800), INT64_C(2147483648)};
	struct attr a = {0};
	struct err e = {0};
	int fd = make(root, "t", 0600);
	close_fd(&fd);
	CHECK(!mkdirat(root, "td", 0700) && !symlinkat("x", root, "tl") && !mkfifoat(root, "tf", 0600));
	static const char *const names[] = {"t", "td", "tl", "tf"};
	for (size_t i = 0; i < sizeof(s) / sizeof(s[0]); i++)
		for (size_t k = 0; k < 4; k++) {
			struct r_meta m = {.mtime_s = s[i], .mtime_ns = 123456789};
			CHECK_OK(meta_set_mtime(root, names[k], &m, &e), e);
			CHECK_OK(attr_stat(&a, root, names[k], &e), e);
			CHECK(a.meta.mtime_s == s[i] && a.meta.mtime_ns == 123456789);
			char to[8];
			snprintf(to, sizeof(to), "%s2", names[k]);
			if (i == 0 && k == 1)
				CHECK(!mkdirat(root, to, 0755));
			else if (i == 0 && k == 2)
				CHECK(!symlinkat("x", root, to));
			else if (i == 0 && k == 3)
				CHECK(!mkfifoat(root, to, 0644));
			else if (i == 0)
				remake(root, to);
			COPY(root, names[k], to);
		}
	struct heard h = {0};
	struct r_meta far = {.mode = 0600, .uid = geteuid(), .gid = getegid(), .mtime_s = INT64_C(1) << 50};
	CHECK_OK(put(root, "t", OBJ_FILE, &far, (struct meta_policy){0}, &h, &e), e);
	CHECK_OK(attr_stat(&a, root, "t", &e), e);
	CHECK_EQ_U64(h.time, a.meta.mtime_s != far.mtime_s);
	attr_free(&a);
}

static void xattrs(int root)
{
	struct attr a = {0};
	struct err e = {0};
	struct heard h = {0};
	char value[600]; /* some ext4 have 1 KiB for all xattrs of a file */
	memset(value, 0x80, sizeof(value));
	int fd = make(root, "x", 0444);
	CHECK(!fchmod(fd, 0644));
	if (fsetxattr(fd, "user.b", "2", 1, 0)) {
		unit_skip("attr", "xattrs (not on this filesystem)");
		close_fd(&fd);
		return;
	}
	CHECK(!fsetxattr(fd, "user.empty", "", 0, 0) && !fsetxattr(fd, "user.a", "\0\xff", 2, 0) &&
		!fsetxattr(fd, "user.\xff\x01 =\n", "x", 1, 0));
	CHECK(!fchmod(fd, 0444));
	close_fd(&fd);
	CHECK_OK(look(&a, root, "x", &h, &e), e);
	struct buf want = {0};
	static const struct {
		const char *name, *value;
		size_t len;
	} rows[] = {{"user.a", "\0\xff", 2}, {"user.b", "2", 1}, {"user.empty", "", 0}, {"user.\xff\x01 =\n", "x", 1}};
	for (size_t i = 0; i < 4; i++) {
		wr_str(&want, rows[i].name, strlen(rows[i].name));
		wr_str(&want, rows[i].value, rows[i].len);
	}
	/* security.selinux may be there as well; then only the round trip counts. */
	if (getxattr("/proc/self/exe", "security.selinux", value, 0) < 0)
		CHECK(span_eq(a.meta.xattrs, span_of(want.p, want.len)));

	fd = make(root, "x2", 0600);
	CHECK(!fsetxattr(fd, "user.b", "old", 3, 0) && !fsetxattr(fd, "user.extra", value, sizeof(value), 0) &&
		!fsetxattr(fd, "user.zz", "1", 1, 0) && !fchmod(fd, 0400));
	close_fd(&fd);
	COPY(root, "x", "x2");
	remake(root, "x2");
	COPY(root, "x", "x2");
	remake(root, "x");
	COPY(root, "x", "x2"); /* all of them go, although the file is read-only */

	/* 64 KiB: kept, or a loss where the inode has no room; never an error, and the old value does not stay. */
	struct buf big = {0}, bytes = {0};
	buf_reserve(&bytes, 65536);
	memset(bytes.p, 'v', 65536);
	wr_str(&big, "user.big", 8);
	wr_str(&big, bytes.p, 65536);
	wr_str(&big, "user.small", 10);
	wr_str(&big, "s", 1);
	CHECK_OK(look(&a, root, "x", &h, &e), e);
	struct r_meta m = a.meta;
	m.xattrs = span_of(big.p, big.len);
	fd = make(root, "x3", 0600);
	CHECK(!fsetxattr(fd, "user.big", "old", 3, 0));
	struct heard l = {0};
	CHECK_OK(put(root, "x3", OBJ_FILE, &m, (struct meta_policy){0}, &l, &e), e);
	ssize_t n = fgetxattr(fd, "user.big", NULL, 0);
	CHECK(l.xattr == 0 ? n == 65536 : l.xattr == 1 && n == -1 && errno == ENODATA);
	CHECK(fgetxattr(fd, "user.small", value, sizeof(value)) == 1);
	if (!l.xattr) {
		CHECK_OK(look(&a, root, "x3", &h, &e), e);
		CHECK(span_eq(a.meta.xattrs, m.xattrs));
		/* 46 of 64 KiB fit below the ceiling, the small one after them still does. */
		char name[32];
		bool many = true;
		for (int i = 0; i < 60 && many; i++) {
			snprintf(name, sizeof(name), "user.big%02d", i);
			many = !fsetxattr(fd, name, bytes.p, 65536, 0);
		}
		if (many) {
			h = (struct heard){0};
			CHECK_OK(look(&a, root, "x3", &h, &e), e);
			CHECK(h.xattr == 61 - 47 && a.meta.xattrs.len < REC_MAX - 65536);
			CHECK(a.meta.xattrs.p[a.meta.xattrs.len - 1] == 's');
			h = (struct heard){0};
		}
	}
	close_fd(&fd);

	/* A namespace that nobody has, and one this process may not write. */
	buf_reset(&big);
	wr_str(&big, "nonsense.x", 10);
	wr_str(&big, "1", 1);
	wr_str(&big, "trusted.x", 9);
	wr_str(&big, "1", 1);
	m.xattrs = span_of(big.p, big.len);
	l = (struct heard){0};
	CHECK_OK(put(root, "x3", OBJ_FILE, &m, (struct meta_policy){0}, &l, &e), e);
	CHECK(l.xattr >= 1 && l.xattr <= 2 && heard_total(&l) == l.xattr);
	/* Asked for: not from the stream, without a word. */
	remake(root, "x3");
	l = (struct heard){0};
	CHECK_OK(put(root, "x3", OBJ_FILE, &m, (struct meta_policy){.no_setuid = true}, &l, &e), e);
	CHECK_OK(look(&a, root, "x3", &h, &e), e);
	CHECK(!memmem(a.meta.xattrs.p ? a.meta.xattrs.p : (const void *)"", a.meta.xattrs.len, "trusted.x", 9) && l.xattr == 1);
	CHECK_EQ_U64(heard_total(&h), 0);
	attr_free(&a);
	buf_free(&big);
	buf_free(&bytes);
	buf_free(&want);
}

/* u::rwx,u:1000:WHO,g::r-x,m::MASK,o::--- */
static void acl_blob(struct buf *b, uint16_t who, uint16_t mask)
{
	static const uint16_t tags[] = {1, 2, 4, 0x10, 0x20};
	const uint16_t perms[] = {7, who, 5, mask, 0};
	buf_reset(b);
	wr_u32(b, 2);
	for (size_t i = 0; i < 5; i++) {
		wr_u16(b, tags[i]);
		wr_u16(b, perms[i]);
		wr_u32(b, i == 1 ? 1000 : UINT32_MAX);
	}
}

static void acls(int root)
{
	struct buf acl = {0}, acl_default = {0};
	struct err e = {0};
	CHECK(!mkdirat(root, "parent", 0755) && !mkdirat(root, "ad", 0755));
	acl_blob(&acl_default, 7, 7);
	int parent = openat(root, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fsetxattr(parent, "system.posix_acl_default", acl_default.p, acl_default.len, 0)) {
		unit_skip("attr", "ACLs (not on this filesystem)");
		close_fd(&parent);
		buf_free(&acl_default);
		return;
	}
	int fd = make(root, "a", 0644);
	acl_blob(&acl, 6, 6);
	CHECK(!fsetxattr(fd, "system.posix_acl_access", acl.p, acl.len, 0));
	close_fd(&fd);
	fd = openat(root, "ad", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	acl_blob(&acl, 4, 1);
	CHECK(!fsetxattr(fd, "system.posix_acl_access", acl.p, acl.len, 0) &&
		!fsetxattr(fd, "system.posix_acl_default", acl.p, acl.len, 0));
	close_fd(&fd);
	remake(root, "a2");
	COPY(root, "a", "a2");
	CHECK(!mkdirat(root, "ad2", 0755));
	COPY(root, "ad", "ad2");

	/* Born with a default ACL that the source does not have: lost, and the mode is the source's. */
	fd = openat(parent, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	CHECK(fgetxattr(fd, "system.posix_acl_access", NULL, 0) > 0);
	close_fd(&fd);
	CHECK(!mkdirat(parent, "d", 0777) && !mkdirat(root, "plain", 0750));
	fd = make(root, "plainf", 0640);
	close_fd(&fd);
	COPY(root, "plainf", "parent/f");
	COPY(root, "plain", "parent/d");
	/* Another ACL than the one that is there, and a mask narrower than its group. */
	fd = openat(parent, "g", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	close_fd(&fd);
	COPY(root, "a", "parent/g");
	CHECK(!mkdirat(parent, "e", 0777));
	COPY(root, "ad", "parent/e");
	close_fd(&parent);
	CHECK_OK(path_remove(root, "parent", &e), e);
	buf_free(&acl);
	buf_free(&acl_default);
}

static void flags(int root)
{
	struct attr a = {0};
	struct err e = {0};
	struct heard h = {0};
	int fd = make(root, "i", 0644);
	close_fd(&fd);
	remake(root, "i2");
	CHECK(!mkdirat(root, "id", 0755) && !mkdirat(root, "id2", 0755));
	if (!set_flags(root, "i", FS_NODUMP_FL)) {
		unit_skip("attr", "inode flags (not on this filesystem)");
		return;
	}
	CHECK(set_flags(root, "i", FS_NOATIME_FL) && set_flags(root, "id", FS_NODUMP_FL));
	COPY(root, "i", "i2");
	COPY(root, "id", "id2");
	if (!set_flags(root, "i", FS_IMMUTABLE_FL)) {
		unit_skip("attr", "immutable files (no privilege, or not on this filesystem)");
		/* That it cannot be set is a loss, and the rest arrives. */
		CHECK_OK(look(&a, root, "i", &h, &e), e);
		a.meta.attr |= FS_IMMUTABLE_FL;
		a.meta.mode = 0600;
		CHECK_OK(put(root, "i2", OBJ_FILE, &a.meta, (struct meta_policy){0}, &h, &e), e);
		CHECK(h.attr == 1 && heard_total(&h) == 1);
		attr_free(&a);
		return;
	}
	CHECK(set_flags(root, "id", FS_APPEND_FL));
	COPY(root, "i", "i2");
	COPY(root, "id", "id2");
	/* The next image: both locked, and changed below. */
	fd = openat(root, "i", O_RDONLY | O_CLOEXEC);
	CHECK(inode_unlock(fd) && !inode_unlock(fd) && !fchmod(fd, 0600));
	close_fd(&fd);
	CHECK(set_flags(root, "i", FS_APPEND_FL));
	COPY(root, "i", "i2");
	fd = openat(root, "id", O_RDONLY | O_CLOEXEC);
	CHECK(inode_unlock(fd) && !fchmod(fd, 0700));
	close_fd(&fd);
	COPY(root, "id", "id2");
	/* A locked directory takes an mtime and stays locked. */
	CHECK(set_flags(root, "id2", FS_IMMUTABLE_FL));
	struct r_meta m = {.mtime_s = 77, .mtime_ns = 7};
	CHECK_OK(meta_set_mtime(root, "id2", &m, &e), e);
	CHECK_OK(look(&a, root, "id2", &h, &e), e);
	CHECK(a.meta.mtime_s == 77 && a.meta.attr & FS_IMMUTABLE_FL);
	/* C is for empty files; where there is no C it is a loss. */
	remake(root, "c");
	CHECK_OK(look(&a, root, "c", &h, &e), e);
	a.meta.attr = FS_NOCOW_FL;
	fd = openat(root, "c", O_RDWR | O_CLOEXEC);
	meta_early(fd, &a.meta);
	int got = 0;
	CHECK(!ioctl(fd, FS_IOC_GETFLAGS, &got));
	CHECK(write(fd, "x", 1) == 1);
	close_fd(&fd);
	CHECK_OK(put(root, "c", OBJ_FILE, &a.meta, (struct meta_policy){0}, &h, &e), e);
	CHECK_EQ_U64(h.attr, got & FS_NOCOW_FL ? 0 : 1);
	if (got & FS_NOCOW_FL) { /* btrfs: too late on a file with content, and it does not say so */
		remake(root, "c");
		fd = openat(root, "c", O_RDWR | O_CLOEXEC);
		CHECK(write(fd, "x", 1) == 1);
		close_fd(&fd);
		CHECK_OK(put(root, "c", OBJ_FILE, &a.meta, (struct meta_policy){0}, &h, &e), e);
		CHECK_EQ_U64(h.attr, 1);
		/* +c makes an xattr of its own, whose value the flag alone would not keep. */
		remake(root, "z");
		fd = openat(root, "z", O_RDWR | O_CLOEXEC);
		CHECK(!fsetxattr(fd, "btrfs.compression", "zstd", 4, 0));
		close_fd(&fd);
		CHECK(set_flags(root, "z", FS_NODUMP_FL));
		fd = openat(root, "z", O_RDWR | O_CLOEXEC);
		CHECK(!fsetxattr(fd, "btrfs.compression", "zstd", 4, 0));
		close_fd(&fd);
		remake(root, "z2");
		COPY(root, "z", "z2");
		remake(root, "z");
		COPY(root, "z", "z2");
	}
	attr_free(&a);
}

static void privileged(int root)
{
	/* VFS_CAP_REVISION_2, effective, cap_net_bind_service */
	static const uint8_t cap[20] = {1, 0, 0, 2, 0, 4};
	struct attr a = {0};
	struct err e = {0};
	struct heard h = {0};
	int fd = make(root, "cap", 0755);
	CHECK(!fchown(fd, 1000, 1001));
	bool caps = !fsetxattr(fd, "security.capability", cap, sizeof(cap), 0);
	if (!caps)
		unit_skip("attr", "capabilities (not on this filesystem)");
	close_fd(&fd);
	remake(root, "cap2");
	COPY(root, "cap", "cap2");
	CHECK(!fchownat(root, "cap", 3000000000u, 5, 0)); /* takes the capability away */
	COPY(root, "cap", "cap2");
	fd = openat(root, "cap", O_RDONLY | O_CLOEXEC);
	CHECK(!caps || !fsetxattr(fd, "security.capability", cap, sizeof(cap), 0));
	CHECK(!fsetxattr(fd, "trusted.t", "t", 1, 0));
	close_fd(&fd);
	COPY(root, "cap", "cap2");
	CHECK_OK(look(&a, root, "cap", &h, &e), e);
	CHECK_OK(put(root, "cap2", OBJ_FILE, &a.meta, (struct meta_policy){.no_setuid = true}, &h, &e), e);
	fd = openat(root, "cap2", O_RDONLY | O_CLOEXEC);
	CHECK(fgetxattr(fd, "security.capability", NULL, 0) < 0 && fgetxattr(fd, "trusted.t", NULL, 0) == 1);
	close_fd(&fd);

	fd = make(root, "suid", 0755);
	CHECK(!fchown(fd, 1000, 1001) && !fchmod(fd, 06755));
	close_fd(&fd);
	remake(root, "suid2");
	COPY(root, "suid", "suid2");
	CHECK_OK(look(&a, root, "suid", &h, &e), e);
	CHECK_OK(put(root, "suid2", OBJ_FILE, &a.meta, (struct meta_policy){.no_setuid = true}, &h, &e), e);
	struct stat st;
	CHECK(!fstatat(root, "suid2", &st, 0) && (st.st_mode & 07777) == 0755 && heard_total(&h) == 0);
	remake(root, "suid2");
	CHECK_OK(put(root, "suid2", OBJ_FILE, &a.meta, (struct meta_policy){.no_owner = true}, &h, &e), e);
	CHECK(!fstatat(root, "suid2", &st, 0) && (st.st_mode & 07777) == 0755 && st.st_uid == 0);
	CHECK(h.mode == 1 && heard_total(&h) == 1);
	CHECK(!mkdirat(root, "sd", 0755) && !fchmodat(root, "sd", 03777, 0) && !mkdirat(root, "sd2", 0700));
	COPY(root, "sd", "sd2");

	/* What is neither file nor directory. */
	CHECK(!symlinkat("/etc/passwd", root, "pl") && !symlinkat("/etc/passwd", root, "pl2"));
	CHECK(!fchownat(root, "pl", 1000, 1001, AT_SYMLINK_NOFOLLOW));
	char at[64];
	snprintf(at, sizeof(at), "/proc/self/fd/%d/pl", root);
	if (lsetxattr(at, "trusted.link", "of a link", 9, 0))
		unit_skip("attr", "xattrs of links (not on this filesystem)");
	COPY(root, "pl", "pl2");
	CHECK(!mkfifoat(root, "pf", 0644) && !fchownat(root, "pf", 7, 8, 0) && !fchmodat(root, "pf", 04111, 0));
	snprintf(at, sizeof(at), "/proc/self/fd/%d/pf", root);
	(void)!lsetxattr(at, "trusted.fifo", "", 0, 0);
	CHECK(!mkfifoat(root, "pf2", 0600));
	COPY(root, "pf", "pf2");
	if (mknodat(root, "dev", S_IFCHR | 0640, makedev(1, 3)) || mknodat(root, "dev2", S_IFCHR | 0600, makedev(1, 3)) ||
		mknodat(root, "blk", S_IFBLK | 0640, makedev(400, 70000))) {
		unit_skip("attr", "devices (may not make them)");
	} else {
		CHECK(!fchownat(root, "dev", 9, 10, 0));
		COPY(root, "dev", "dev2");
		CHECK_OK(look(&a, root, "blk", &h, &e), e);
		CHECK(a.type == OBJ_BLOCK && a.meta.major == 400 && a.meta.minor == 70000 && a.size == 0);
	}
	CHECK(!mknodat(root, "sock", S_IFSOCK | 0640, 0) && !mknodat(root, "sock2", S_IFSOCK | 0600, 0));
	COPY(root, "sock", "sock2");
	attr_free(&a);
}

static void unprivileged(int root)
{
	struct attr a = {0};
	struct err e = {0};
	struct heard h = {0};
	struct stat st;
	int fd = make(root, "u", 0644);
	close_fd(&fd);
	CHECK_OK(look(&a, root, "u", &h, &e), e);
	struct r_meta m = a.meta;
	m.mode = 04755;
	CHECK_OK(put(root, "u", OBJ_FILE, &m, (struct meta_policy){0}, &h, &e), e);
	CHECK(!fstatat(root, "u", &st, 0) && (st.st_mode & 07777) == 04755 && heard_total(&h) == 0);
	m.uid = 4242;
	m.mode = 06711;
	CHECK_OK(put(root, "u", OBJ_FILE, &m, (struct meta_policy){0}, &h, &e), e);
	CHECK(!fstatat(root, "u", &st, 0) && (st.st_mode & 07777) == 02711 && h.owner == 1 && h.mode == 1);
	m.gid = 4243;
	h = (struct heard){0};
	CHECK_OK(put(root, "u", OBJ_FILE, &m, (struct meta_policy){0}, &h, &e), e);
	CHECK(!fstatat(root, "u", &st, 0) && (st.st_mode & 07777) == 0711 && h.owner == 1 && h.mode == 1);
	struct buf x = {0};
	wr_str(&x, "security.capability", 19);
	wr_str(&x, "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
	wr_str(&x, "security.other", 14);
	wr_str(&x, "x", 1);
	m = a.meta;
	m.xattrs = span_of(x.p, x.len);
	h = (struct heard){0};
	CHECK_OK(put(root, "u", OBJ_FILE, &m, (struct meta_policy){0}, &h, &e), e);
	CHECK(h.capability == 1 && h.xattr == 1 && heard_total(&h) == 2);
	attr_free(&a);
	buf_free(&x);
}

static void everywhere(int root)
{
	basics(root);
	times(root);
	xattrs(root);
	acls(root);
	flags(root);
}

/* In a child that gave its rights up; its checks are counted there, its failures come back. */
static void as_nobody(int root)
{
	struct err e = {0};
	int status = 0;
	CHECK(!mkdirat(root, "nobody", 0700) && !fchownat(root, "nobody", 65534, 65534, 0));
	int fd = openat(root, "nobody", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		unsigned long before = unit_failures;
		if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
			_exit(99);
		everywhere(fd);
		unprivileged(fd);
		fflush(NULL);
		_exit(unit_failures == before ? 0 : 1);
	}
	close_fd(&fd);
	CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	CHECK_OK(path_remove(root, "nobody", &e), e);
}

int unit_attr(void)
{
	unsigned long before = unit_failures;
	char base[512];
	struct err e = {0};
	int root = unit_tmpdir(base, sizeof(base));
	if (root < 0)
		return 1;
	CHECK(!mkdirat(root, "all", 0700));
	int all = openat(root, "all", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	everywhere(all);
	if (geteuid() == 0) {
		privileged(all);
		as_nobody(root);
	} else {
		unprivileged(all);
		unit_skip("attr", "owners, capabilities, devices (not root)");
	}
	close_fd(&all);
	CHECK_OK(path_remove(root, "all", &e), e);
	close_fd(&root);
	CHECK(!rmdir(base));
	return (int)(unit_failures - before);
}
