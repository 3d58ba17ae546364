#include "object.h"

#include <assert.h>

void object_free(struct object *o)
{
	buf_free(&o->store);
	*o = (struct object){0};
}

static void encode_meta(struct buf *b, const struct r_meta *m)
{
	struct record r = {.type = REC_META, .u.meta = *m};
	struct buf t = {0};

	rec_encode(&t, &r);
	buf_add(b, t.p + 8, t.len - 8);
	buf_free(&t);
}

static bool decode_meta(struct object *o)
{
	struct record r;
	struct err e = {0};

	if (rec_decode(&r, REC_META, 0, o->store.p, o->store.len, &e))
		return false;
	o->meta = r.u.meta;
	return true;
}

void object_set_meta(struct object *o, const struct r_meta *m)
{
	struct buf fresh = {0};

	encode_meta(&fresh, m);
	buf_free(&o->store);
	o->store = fresh;
	bool ok = decode_meta(o);
	assert(ok);
	(void)ok;
}

uint64_t object_blocks(uint64_t size, uint32_t grain)
{
	return grain ? size / grain + (size % grain != 0) : 0;
}

void object_encode(struct buf *b, const struct object *o)
{
	wr_u8(b, o->type);
	wr_u32(b, o->nlink);
	wr_u64(b, o->size);
	wr_raw(b, o->content.b, DIGEST_LEN);
	wr_u32(b, o->grain);
	wr_u8(b, o->flags);
	wr_u64(b, o->hint.dev);
	wr_u64(b, o->hint.ino);
	wr_i64(b, o->hint.ctime_s);
	wr_u32(b, o->hint.ctime_ns);
	wr_i64(b, o->hint.btime_s);
	wr_u32(b, o->hint.btime_ns);
	wr_u32(b, o->hint.nlink);
	wr_u8(b, o->hint.flags);
	wr_raw(b, o->store.p, o->store.len);
}

bool object_decode(struct object *o, uint64_t no, struct span row)
{
	struct rd r = rd_of(row.p, row.len);
	struct buf store = o->store;

	*o = (struct object){.no = no, .store = store};
	o->type = rd_u8(&r);
	o->nlink = rd_u32(&r);
	o->size = rd_u64(&r);
	rd_copy(&r, o->content.b, DIGEST_LEN);
	o->grain = rd_u32(&r);
	o->flags = rd_u8(&r);
	o->hint.dev = rd_u64(&r);
	o->hint.ino = rd_u64(&r);
	o->hint.ctime_s = rd_i64(&r);
	o->hint.ctime_ns = rd_u32(&r);
	o->hint.btime_s = rd_i64(&r);
	o->hint.btime_ns = rd_u32(&r);
	o->hint.nlink = rd_u32(&r);
	o->hint.flags = rd_u8(&r);
	struct span meta = rd_raw(&r, r.len);
	buf_reset(&o->store);
	buf_add(&o->store, meta.p, meta.len);
	return rd_done(&r) && decode_meta(o);
}

void object_digest(const struct object *o, struct digest *d)
{
	struct digest_run r;
	AUTO_BUF struct buf b = {0};

	digest_run_init(&r, "repl-object-v1", NULL, 0);
	wr_u8(&b, o->type);
	wr_u32(&b, o->nlink);
	digest_run_add(&r, b.p, b.len);
	digest_run_add(&r, o->store.p, o->store.len);
	buf_reset(&b);
	wr_u64(&b, o->size);
	wr_raw(&b, o->content.b, DIGEST_LEN);
	digest_run_add(&r, b.p, b.len);
	digest_run_end(&r, d);
}

bool object_same(const struct object *a, const struct object *b)
{
	return a->type == b->type && a->nlink == b->nlink && a->size == b->size && digest_eq(&a->content, &b->content) &&
		span_eq(span_of(a->store.p, a->store.len), span_of(b->store.p, b->store.len));
}

bool object_same_inode(const struct r_hint *a, const struct r_hint *b)
{
	return a->ino == b->ino && a->dev == b->dev && a->btime_s == b->btime_s && a->btime_ns == b->btime_ns;
}
