#include "dense.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "path.h"

void dense_must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "%s\n", what);
		abort();
	}
}

void dense_start(struct dense *d, const uint8_t *p, size_t len)
{
	d->p = p;
	d->len = len;
	d->used = 0;
	if (!d->room)
		d->room = xalloc(DENSE_ROOM);
}

void dense_free(struct dense *d)
{
	free(d->room);
	d->room = NULL;
}

uint8_t dense_byte(struct dense *d)
{
	if (!d->len)
		return 0;
	d->len--;
	return *d->p++;
}

static uint64_t wide(struct dense *d, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)dense_byte(d) << 8 * i;
	return v;
}

/* Small ones and those at the seams of blocks in one byte; every other in nine. */
static uint64_t number(struct dense *d)
{
	uint8_t b = dense_byte(d);

	if (b < 96)
		return b;
	if (b < 160)
		return (b - 96u) * 4096u;
	if (b < 208)
		return (b - 160u) * 1024u + 1;
	if (b < 240)
		return (UINT64_C(1) << 2 * (b - 208)) - (b & 1);
	return wide(d, b < 248 ? 2 : 8);
}

/* n bytes of room, or what is left of it. */
static uint8_t *take(struct dense *d, size_t *n)
{
	uint8_t *p = d->room + d->used;

	*n = (size_t)min_u64(*n, DENSE_ROOM - d->used);
	d->used += *n;
	return p;
}

static struct span text(struct dense *d, size_t max)
{
	uint8_t b = dense_byte(d);
	size_t n = 0;

	while (d->names[n])
		n++;
	if (b < n)
		return span_cstr(d->names[b]);
	n = b < 250 ? 1 : b == 250 ? 255 : dense_byte(d);
	n = (size_t)min_u64(n, max);
	uint8_t *p = take(d, &n);
	for (size_t i = 0; i < n; i++)
		p[i] = b < 250 ? b : b == 250 ? 'n' : dense_byte(d);
	return span_of(p, n);
}

/* Content that repeats itself, or does not: 13 bits of length, 3 bits of kind, a seed. */
static struct span content(struct dense *d, size_t unit, size_t max)
{
	uint64_t head = wide(d, 2), x = dense_byte(d);
	size_t n = (size_t)(head & 0x1fff) * (head >> 15 ? 8 : 1) * unit;

	n = (size_t)min_u64(n, max / unit * unit);
	uint8_t *p = take(d, &n);
	n -= n % unit;
	for (size_t i = 0; i < n; i++) {
		p[i] = (uint8_t)(x >> 32 ^ x);
		if (head >> 13 & 1)
			x = x * 6364136223846793005u + 1442695040888963407u;
	}
	return span_of(p, n);
}

/* One bit for each, in the order that the format wants. */
static struct span xattrs(struct dense *d)
{
	static const char *const names[] = {"security.capability", "system.posix_acl_access", "system.posix_acl_default",
		"trusted.t", "user.", "user.a", "user.b", "user.overlay"};
	AUTO_BUF struct buf b = {0};
	uint8_t set = dense_byte(d);

	for (unsigned i = 0; i < 8; i++) {
		if (!(set >> i & 1))
			continue;
		uint8_t value[256];
		size_t n = dense_byte(d) % 64;
		for (size_t k = 0; k < n; k++)
			value[k] = dense_byte(d);
		wr_str(&b, names[i], strlen(names[i]));
		wr_str(&b, value, n);
	}
	size_t n = b.len;
	uint8_t *p = take(d, &n);
	if (n < b.len || !n)
		return (struct span){0};
	memcpy(p, b.p, n);
	return span_of(p, n);
}

static struct span rest(struct dense *d, uint16_t type)
{
	switch ((enum rec_type)type) {
	case REC_META:
		return xattrs(d);
	case REC_DIGESTS:
		return content(d, DIGESTS_ROW, 64 * DIGESTS_ROW);
	case REC_REGION:
		return content(d, 17, 17 * 64);
	default:
		return content(d, 1, 128 * 1024);
	}
}

static void field(struct dense *d, struct record *r, const struct field *f)
{
	uint8_t *at = (uint8_t *)r + f->at;
	uint64_t v;

	switch (f->kind) {
	case F_U8:
		*at = dense_byte(d);
		break;
	case F_U16:
		v = wide(d, 2);
		memcpy(at, &(uint16_t){(uint16_t)v}, 2);
		break;
	case F_U32:
		v = number(d);
		memcpy(at, &(uint32_t){(uint32_t)v}, 4);
		break;
	case F_U64:
	case F_I64:
		v = number(d);
		memcpy(at, &v, 8);
		break;
	case F_DIGEST:
		v = dense_byte(d);
		if (v && d->n_digests)
			memcpy(at, &d->digests[(v - 1) % d->n_digests], sizeof(struct digest));
		break;
	case F_UUID:
		memset(at, dense_byte(d), 16);
		break;
	case F_NAME:
	case F_TEXT:
	case F_TARGET:
		memcpy(at, &(struct span[]){text(d, 1024)}, sizeof(struct span));
		break;
	case F_REST:
		memcpy(at, &(struct span[]){rest(d, r->type)}, sizeof(struct span));
		break;
	}
}

/* Fields that would mostly be refused by themselves, which is fuzz_record's business. */
static void make_sense(struct record *r)
{
	switch ((enum rec_type)r->type) {
	case REC_CREATE:
		r->u.create.type = (uint8_t)(r->u.create.type % OBJ_SOCKET);
		break;
	case REC_BASE:
		r->u.base.flags &= BASE_DETACH;
		break;
	case REC_META:
		r->u.meta.mode &= 07777;
		r->u.meta.mtime_ns %= 1000000000;
		r->u.meta.attr &= META_ATTR_MASK;
		break;
	case REC_CONTENT:
		r->u.content.flags &= CONTENT_PATCH;
		r->u.content.grain = 4096u << 2 * (r->u.content.grain % 5);
		break;
	case REC_SEAL:
		r->u.seal.flags &= SEAL_UNSETTLED;
		break;
	default:
		break;
	}
}

bool dense_next(struct dense *d, enum stream_kind kind, struct record *r)
{
	const struct rec_row *may[64];
	size_t n_rows, n = 0;
	const struct rec_row *rows = rec_rows(&n_rows);

	if (!d->len)
		return false;
	for (size_t i = 0; i < n_rows; i++)
		if (rows[i].kinds >> kind & 1 && rows[i].type != REC_TRAILER)
			may[n++] = &rows[i];
	const struct rec_row *row = may[dense_byte(d) % n];
	memset(r, 0, sizeof *r);
	r->type = row->type;
	r->flags = row->optional ? REC_OPTIONAL : 0;
	for (size_t i = 0; i < row->n_fields; i++)
		field(d, r, &row->fields[i]);
	make_sense(r);
	return true;
}

int dense_sink(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		wr_raw(ctx, v[i].p, v[i].len);
	return 0;
}

int dense_fd(struct span bytes)
{
	int fd = memfd_create("input", MFD_CLOEXEC);

	dense_must(fd >= 0 && (!bytes.len || write(fd, bytes.p, bytes.len) == (ssize_t)bytes.len) &&
		lseek(fd, 0, SEEK_SET) == 0, "no memory for a file");
	return fd;
}

void dense_keep(struct span stream)
{
	const char *path = getenv("FUZZ_STREAM");
	AUTO_CLOSE int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;

	dense_must(fd < 0 || write(fd, stream.p, stream.len) == (ssize_t)stream.len, "cannot keep the stream");
}

static char work[256];
static pid_t owner;

static void remove_work(void)
{
	struct err e = {0};
	char *slash = strrchr(work, '/');

	/* libFuzzer's children are not us. */
	if (getpid() != owner)
		return;
	*slash = 0;
	int fd = open(work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	path_remove(fd, slash + 1, &e);
	close(fd);
}

const char *dense_work(void)
{
	const char *tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : getenv("TMPDIR");

	if (work[0])
		return work;
	snprintf(work, sizeof work, "%s/repl-fuzz-XXXXXX", tmp ? tmp : "/tmp");
	dense_must(mkdtemp(work) != NULL, "no directory to work in");
	owner = getpid();
	atexit(remove_work);
	return work;
}
