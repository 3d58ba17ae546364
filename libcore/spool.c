#include "spool.h"

#include <unistd.h>

#include "file.h"
#include "path.h"

int spool_open(struct spool *s, struct err *e)
{
	int fd = file_temp(s->tmpdir);

	s->f = fd >= 0 ? fdopen(fd, "w+") : NULL;
	if (s->f)
		return 0;
	err_sys(e, "cannot make a temporary file in '%s'", s->tmpdir);
	close_fd(&fd);
	return -1;
}

static int cannot_write(const struct spool *s, struct err *e)
{
	return err_sys(e, "cannot write a temporary file in '%s'", s->tmpdir);
}

static int cannot_read(const struct spool *s, struct err *e)
{
	return err_sys(e, "cannot read a temporary file in '%s'", s->tmpdir);
}

/* ---- one item as bytes: u32 length, then so many ---- */

static void encode(struct buf *b, const struct scan_item *it, bool was_same)
{
	size_t start = b->len;

	wr_u32(b, 0);
	wr_u8(b, (uint8_t)it->kind);
	wr_u8(b, (uint8_t)it->how);
	wr_u8(b, it->attr ? it->attr->type : 0);
	wr_u8(b, (uint8_t)(it->again | was_same << 1 | it->unsure << 2));
	wr_u64(b, it->base);
	wr_u64(b, it->link);
	wr_u64(b, it->prior);
	wr_u32(b, it->root);
	wr_str(b, it->name.p, it->name.len);
	if (it->attr) {
		const struct attr *a = it->attr;
		wr_u64(b, a->size);
		wr_u16(b, a->meta.mode);
		wr_u32(b, a->meta.uid);
		wr_u32(b, a->meta.gid);
		wr_i64(b, a->meta.mtime_s);
		wr_u32(b, a->meta.mtime_ns);
		wr_u32(b, a->meta.major);
		wr_u32(b, a->meta.minor);
		wr_u64(b, a->hint.dev);
		wr_u64(b, a->hint.ino);
	}
	size_t len = b->len - start - 4;
	for (unsigned i = 0; i < 4; i++)
		b->p[start + i] = (uint8_t)(len >> (8 * i));
}

static void decode(struct rd r, struct spool_item *it)
{
	it->kind = (enum scan_kind)rd_u8(&r);
	it->how = (enum scan_how)rd_u8(&r);
	it->type = rd_u8(&r);
	uint8_t flags = rd_u8(&r);
	it->again = flags & 1;
	it->was_same = flags & 2;
	it->unsure = flags & 4;
	it->base = rd_u64(&r);
	it->link = rd_u64(&r);
	it->prior = rd_u64(&r);
	it->root = rd_u32(&r);
	it->name = rd_str(&r, REC_NAME_MAX);
	if (!r.len)
		return;
	it->a.size = rd_u64(&r);
	it->a.meta.mode = rd_u16(&r);
	it->a.meta.uid = rd_u32(&r);
	it->a.meta.gid = rd_u32(&r);
	it->a.meta.mtime_s = rd_i64(&r);
	it->a.meta.mtime_ns = rd_u32(&r);
	it->a.meta.major = rd_u32(&r);
	it->a.meta.minor = rd_u32(&r);
	it->a.hint.dev = rd_u64(&r);
	it->a.hint.ino = rd_u64(&r);
}

/* ---- in ---- */

static int write_out(struct spool *s, const struct buf *b, struct err *e)
{
	return b->len && fwrite(b->p, 1, b->len, s->f) != b->len ? cannot_write(s, e) : 0;
}

/* The innermost pending directory is left, and nothing in it changed: as if it had never been entered. False: none is pending. */
static bool drop_pending(struct spool *s)
{
	if (!s->starts.len)
		return false;
	s->starts.len -= 8;
	s->pending.len = get_le64(s->starts.p + s->starts.len);
	return true;
}

int spool_put(struct spool *s, const struct scan_item *it, bool was_same, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	if (it->kind == SCAN_LEAVE && !it->unsure && drop_pending(s))
		return 0;
	if (it->kind == SCAN_ENTER && it->how == SCAN_SAME && !s->all_dirs) {
		wr_u64(&s->starts, s->pending.len);
		encode(&s->pending, it, was_same);
		return 0;
	}
	if (it->kind == SCAN_ENTRY && it->how == SCAN_SAME)
		return 0;
	/* The directories on the way first. */
	if (write_out(s, &s->pending, e))
		return -1;
	buf_reset(&s->pending);
	buf_reset(&s->starts);
	encode(&b, it, was_same);
	return write_out(s, &b, e);
}

int spool_reset(struct spool *s, struct err *e)
{
	buf_reset(&s->pending);
	buf_reset(&s->starts);
	return fseek(s->f, 0, SEEK_SET) || ftruncate(fileno(s->f), 0) ? cannot_write(s, e) : 0;
}

/* ---- out ---- */

int spool_replay(struct spool *s, int (*fn)(void *ctx, struct spool_item *it, struct err *e), void *ctx, struct err *e)
{
	AUTO_BUF struct buf b = {0}, path = {0};
	uint8_t head[4];
	size_t depth = 0;

	if (fflush(s->f) || fseek(s->f, 0, SEEK_SET))
		return cannot_write(s, e);
	while (fread(head, 1, 4, s->f) == 4) {
		struct rd h = rd_of(head, 4);
		size_t n = rd_u32(&h);
		struct spool_item it = {0};
		buf_reset(&b);
		buf_reserve(&b, n);
		if (fread(b.p, 1, n, s->f) != n)
			return cannot_read(s, e);
		decode(rd_of(b.p, n), &it);
		bool is_enter = it.kind == SCAN_ENTER, is_leave = it.kind == SCAN_LEAVE;
		depth -= is_leave;
		it.depth = depth;
		if (depth && !is_leave) /* the root has no name */
			path_push(&path, it.name);
		it.path = span_of(path.p, path.len);
		if (fn(ctx, &it, e))
			return -1;
		if (depth && !is_enter)
			path_pop(&path);
		depth += is_enter;
	}
	return ferror(s->f) ? cannot_read(s, e) : 0;
}

void spool_free(struct spool *s)
{
	if (s->f)
		fclose(s->f);
	s->f = NULL;
	buf_free(&s->pending);
	buf_free(&s->starts);
}
