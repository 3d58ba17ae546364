#include "partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "path.h"

#define NAME "partial"
#define HEAD "repl-partial 4\n"
#define HEAD_LEN (sizeof HEAD - 1)
#define LEN_MAX (1u << 20)

void partial_free(struct partial *p) { buf_free(&p->stage); }

static void sum(struct digest *out, const void *p, size_t n)
{
	struct digest_run r;

	digest_run_init(&r, "repl-partial-v1", NULL, 0);
	digest_run_add(&r, p, n);
	digest_run_end(&r, out);
}

int partial_save(struct replica *r, struct partial *p, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct digest d;

	digest_run_peek(&p->place.run, &p->head);
	wr_raw(&b, HEAD, HEAD_LEN);
	wr_raw(&b, &p->base, sizeof p->base);
	wr_raw(&b, &p->head, sizeof p->head);
	wr_u64(&b, p->place.off);
	wr_u64(&b, p->place.records);
	wr_u64(&b, p->place.bytes);
	wr_str(&b, &p->place.run, sizeof p->place.run);
	wr_u64(&b, p->plan_len);
	wr_u64(&b, p->content);
	wr_str(&b, p->stage.p, p->stage.len);
	sum(&d, b.p, b.len);
	wr_raw(&b, &d, sizeof d);
	return replica_sync(r, e) || file_replace(r->ctl, NAME, b.p, b.len, e) ? -1 : 0;
}

static bool decode(struct partial *p, const uint8_t *at, size_t n)
{
	struct digest d;

	if (n < HEAD_LEN + sizeof d || memcmp(at, HEAD, HEAD_LEN))
		return false;
	sum(&d, at, n - sizeof d);
	if (memcmp(at + n - sizeof d, &d, sizeof d))
		return false;
	struct rd in = rd_of(at + HEAD_LEN, n - HEAD_LEN - sizeof d);
	rd_copy(&in, &p->base, sizeof p->base);
	rd_copy(&in, &p->head, sizeof p->head);
	p->place.off = rd_u64(&in);
	p->place.records = rd_u64(&in);
	p->place.bytes = rd_u64(&in);
	struct span run = rd_str(&in, sizeof p->place.run);
	p->plan_len = rd_u64(&in);
	p->content = rd_u64(&in);
	struct span stage = rd_str(&in, LEN_MAX);
	if (!rd_done(&in) || run.len != sizeof p->place.run)
		return false;
	memcpy(&p->place.run, run.p, run.len);
	buf_add(&p->stage, stage.p, stage.len);
	/* The running digest is libb2's own: another version of it may not understand it. */
	digest_run_peek(&p->place.run, &d);
	return digest_eq(&d, &p->head);
}

int partial_load(const struct replica *r, struct partial *p, struct err *e)
{
	AUTO_CLOSE int fd = openat(r->ctl, NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	AUTO_BUF struct buf b = {0};
	struct stat st;

	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0 || fstat(fd, &st))
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/" NAME "'", r->path);
	b.len = (size_t)min_u64((uint64_t)st.st_size, LEN_MAX);
	b.p = xalloc(b.len + 1);
	if (file_read_at(fd, b.p, b.len, 0))
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/" NAME "'", r->path);
	if (!decode(p, b.p, b.len))
		return err_set(e, ERR_SYSTEM, "what '%s' kept of a delta cannot be used, it is damaged or of another version: send the "
			"delta from its start", r->path);
	return 1;
}

/* ---- what is staged behind it ---- */

static int forget(const struct room *m, uint64_t n, struct err *e)
{
	DIR *d = file_list(m->stage);
	int rc = 0;

	if (!d)
		return err_sys(e, "cannot read what is staged in '%s'", m->path);
	for (const struct dirent *de; !rc && (de = readdir(d));)
		if (strtoull(de->d_name, NULL, 10) > n && unlinkat(m->stage, de->d_name, 0))
			rc = err_sys(e, "cannot remove what is staged in '%s'", m->path);
	closedir(d);
	return rc;
}

/* What is in this directory, and in those of stage/, is ours again. Where that is not allowed, it never had another owner. */
static int disown(const struct room *m, int dirfd, struct err *e)
{
	DIR *d = file_list(dirfd);
	struct stat st;
	int rc = 0;

	if (!d)
		return err_sys(e, "cannot read what is staged in '%s'", m->path);
	for (const struct dirent *de; !rc && (de = readdir(d));) {
		if (file_is_dots(de->d_name))
			continue;
		if (fstatat(dirfd, de->d_name, &st, AT_SYMLINK_NOFOLLOW))
			rc = err_sys(e, "cannot stat what is staged in '%s'", m->path);
		else if (S_ISREG(st.st_mode) && (st.st_uid != geteuid() || st.st_gid != getegid()) &&
				fchownat(dirfd, de->d_name, geteuid(), getegid(), AT_SYMLINK_NOFOLLOW) && errno != EPERM)
			rc = err_sys(e, "cannot own what is staged in '%s'", m->path);
		AUTO_CLOSE int in = !rc && S_ISDIR(st.st_mode) ? path_open_at(dirfd, de->d_name, O_RDONLY | O_DIRECTORY, 0) : -1;
		rc = rc || (in >= 0 && disown(m, in, e)) ? -1 : 0;
	}
	closedir(d);
	return rc;
}

int partial_forget(struct replica *r, uint64_t n, bool is_ours, struct err *e)
{
	const struct room *m;

	for (size_t i = 0; (m = replica_rooms(r, i)); i++)
		if (forget(m, n, e) || (is_ours && disown(m, m->stage, e)))
			return -1;
	return 0;
}
