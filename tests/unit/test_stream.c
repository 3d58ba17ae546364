#include "stream.h"

#include <stdlib.h>

#include "unit.h"

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	struct buf *b = ctx;

	(void)e;
	for (int i = 0; i < n; i++)
		wr_raw(b, v[i].p, v[i].len);
	return 0;
}

static void put(struct stream_out *o, struct record r)
{
	struct err e = {0};

	CHECK_OK(stream_put(o, &r, &e), e);
}

/* A small delta with every sort of framing in it. */
static void make(struct buf *b, const struct buf *key)
{
	static const uint8_t bytes[300] = "content";
	struct stream_out o = {.sink = into_buf, .ctx = b, .key = key};
	struct record data = {.type = REC_DATA, .u.data = {.off = 4096, .bytes = {bytes, sizeof bytes}}};
	struct err e = {0};

	digest_bytes(&data.u.data.digest, bytes, sizeof bytes);
	CHECK_OK(stream_begin(&o, KIND_DELTA, &e), e);
	put(&o, (struct record){.type = REC_IMAGE, .u.image = {.time_ns = 1, .host = span_cstr("srv")}});
	put(&o, (struct record){.type = REC_MEMBER, .u.member = {1, {0}, span_cstr("/srv")}});
	put(&o, (struct record){.type = REC_DELTA, .u.delta = {{{9}}, 1, 300}});
	put(&o, (struct record){.type = REC_BASE, .u.base = {2, 1, 0, span_cstr("file")}});
	put(&o, (struct record){.type = REC_CONTENT, .u.content = {CONTENT_PATCH, 4096}});
	put(&o, data);
	put(&o, (struct record){.type = REC_HOLE, .u.hole = {0, 4096}});
	put(&o, (struct record){.type = REC_HINT, .u.hint = {.ino = 77}});
	put(&o, (struct record){.type = REC_BEAT, .u.beat = {1}});
	put(&o, (struct record){.type = REC_END, .u.end = {.entries = 1}});
	CHECK_EQ_U64(o.at.records, 10);
	CHECK_EQ_U64(o.at.bytes, sizeof bytes);
	CHECK_OK(stream_finish(&o, &e), e);
	stream_out_free(&o);
}
#define MADE_RECORDS 10u

struct result {
	struct buf log;  /* every event, in full */
	struct err err;
	uint64_t n_streams, n_skipped;
};

static void log_event(struct result *r, int event, const struct stream_in *s)
{
	wr_u8(&r->log, (uint8_t)event);
	wr_u64(&r->log, s->off);
	wr_u64(&r->log, s->n_record);
	wr_u16(&r->log, s->kind);
	if (event != STREAM_BEGIN)
		wr_u16(&r->log, s->rec.type);
	wr_str(&r->log, s->raw.p, s->raw.len);
}

/* Reads p, `step` bytes at a time; 0: all at once. False: an error, in r->err. */
static bool readit(struct result *r, const void *p, size_t n, size_t step, const struct stream_in *settings)
{
	struct stream_in s = settings ? *settings : (struct stream_in){0};
	bool good = true;
	size_t at = 0;

	*r = (struct result){0};
	for (;;) {
		int event = stream_next(&s, &r->err);
		if (event < 0) {
			good = false;
			break;
		}
		if (event != STREAM_MORE) {
			log_event(r, event, &s);
			continue;
		}
		if (at == n) {
			good = stream_eof(&s, &r->err) == 0;
			break;
		}
		size_t room, take = step && step < n - at ? step : n - at;
		uint8_t *to = stream_space(&s, take, &room);
		CHECK(room >= take);
		memcpy(to, (const uint8_t *)p + at, take);
		stream_fed(&s, take);
		at += take;
	}
	CHECK(good == (r->err.kind == ERR_NONE));
	if (!good && r->err.kind != ERR_STREAM)
		CHECK(r->err.kind == ERR_STREAM);
	r->n_streams = s.n_streams;
	r->n_skipped = s.n_skipped;
	stream_in_free(&s);
	return good;
}

static bool reads(const void *p, size_t n, const struct stream_in *settings)
{
	struct result r;
	bool good = readit(&r, p, n, 0, settings);

	buf_free(&r.log);
	return good;
}

static void test_whole(void)
{
	AUTO_BUF struct buf b = {0}, again = {0};
	struct result r;

	make(&b, NULL);
	make(&again, NULL);
	CHECK(span_eq(span_of(b.p, b.len), span_of(again.p, again.len)));
	CHECK(stream_is_plain(b.p, b.len) && !stream_is_plain(b.p, 7) && !stream_is_plain("notmagic", 8));
	CHECK(readit(&r, b.p, b.len, 0, NULL) && r.n_streams == 1 && r.n_skipped == 0);
	buf_free(&r.log);
	/* Several may follow each other; offsets go on, numbers start again. */
	wr_raw(&b, again.p, again.len);
	CHECK(readit(&r, b.p, b.len, 0, NULL) && r.n_streams == 2);
	buf_free(&r.log);
	wr_u8(&b, 0);
	CHECK(!reads(b.p, b.len, NULL));
	CHECK(!reads("", 0, NULL) && !reads("x", 1, NULL) && !reads("not a repl stream at all", 24, NULL));
}

static void test_records_come_back(void)
{
	AUTO_BUF struct buf b = {0}, back = {0};
	struct stream_in s = {0};
	struct err e = {0};
	size_t room;
	int event;

	make(&b, NULL);
	memcpy(stream_space(&s, b.len, &room), b.p, b.len);
	stream_fed(&s, b.len);
	CHECK(stream_next(&s, &e) == STREAM_BEGIN && s.version == 1 && s.kind == KIND_DELTA && s.off == 0);
	wr_raw(&back, s.raw.p, s.raw.len);
	while ((event = stream_next(&s, &e)) > 0) {
		CHECK_EQ_U64(s.off, back.len);
		struct span raw = s.raw;
		AUTO_BUF struct buf one = {0};
		rec_encode(&one, &s.rec);
		if (s.rec.type == REC_DATA)
			wr_raw(&one, s.rec.u.data.bytes.p, s.rec.u.data.bytes.len);
		CHECK(span_eq(raw, span_of(one.p, one.len)));
		wr_raw(&back, raw.p, raw.len);
		if (event == STREAM_END)
			CHECK(s.rec.type == REC_TRAILER && s.rec.u.trailer.records == MADE_RECORDS && s.n_record == MADE_RECORDS);
	}
	CHECK(event == STREAM_MORE && !stream_eof(&s, &e));
	CHECK(span_eq(span_of(b.p, b.len), span_of(back.p, back.len)));
	stream_in_free(&s);
}

/* What a record, unknown to us, looks like in front of the trailer; the trailer is made anew. */
static void with_unknown(struct buf *out, uint16_t type, uint16_t flags, uint32_t len, const struct buf *from)
{
	size_t body = from->len - 8 - 16 - 2 * DIGEST_LEN;
	struct record t = {.type = REC_TRAILER};
	struct digest_run run;
	struct stream_in s = {0};
	struct err e = {0};
	size_t room;

	buf_reset(out);
	digest_run_init(&run, "repl-stream-v1", NULL, 0);
	memcpy(stream_space(&s, body, &room), from->p, body);
	stream_fed(&s, body);
	while (stream_next(&s, &e) > 0) {
		wr_raw(out, s.raw.p, s.raw.len);
		digest_run_add(&run, s.raw.p, s.n_record || s.raw.len != STREAM_HEAD_LEN ?
			8 + rec_covered(s.rec.type, s.raw.len - 8) : s.raw.len);
	}
	stream_in_free(&s);
	size_t start = out->len;
	wr_u16(out, type);
	wr_u16(out, flags);
	wr_u32(out, len);
	for (uint32_t i = 0; i < len; i++)
		wr_u8(out, (uint8_t)i);
	digest_run_add(&run, out->p + start, out->len - start);
	t.u.trailer.records = MADE_RECORDS + 1;
	t.u.trailer.bytes = 300;
	digest_run_end(&run, &t.u.trailer.digest);
	rec_encode(out, &t);
}

static void test_cuts(void)
{
	AUTO_BUF struct buf b = {0}, unknown = {0};
	struct result whole, cut;

	make(&b, NULL);
	with_unknown(&unknown, 0x3333, REC_OPTIONAL, 40, &b);
	wr_raw(&b, unknown.p, unknown.len);
	make(&b, NULL);
	CHECK(readit(&whole, b.p, b.len, 0, NULL) && whole.n_streams == 3 && whole.n_skipped == 1);
	for (size_t step = 1; step < 500; step += step < 40 ? 1 : 37) {
		CHECK(readit(&cut, b.p, b.len, step, NULL));
		CHECK(cut.n_skipped == 1);
		CHECK(span_eq(span_of(whole.log.p, whole.log.len), span_of(cut.log.p, cut.log.len)));
		buf_free(&cut.log);
	}
	buf_free(&whole.log);
}

static void test_every_prefix(void)
{
	AUTO_BUF struct buf b = {0};

	make(&b, NULL);
	for (size_t n = 0; n < b.len; n++)
		if (reads(b.p, n, NULL))
			CHECK(n == b.len);
	CHECK(reads(b.p, b.len, NULL));
}

static void test_every_flip(void)
{
	AUTO_BUF struct buf b = {0}, key = {0};
	static const uint8_t flips[] = {0x01, 0x80, 0xff};
	struct result whole, cut;

	buf_str(&key, "a key");
	for (unsigned keyed = 0; keyed < 2; keyed++) {
		struct stream_in with = {.key = keyed ? &key : NULL};
		buf_reset(&b);
		make(&b, keyed ? &key : NULL);
		for (size_t i = 0; i < b.len; i++) {
			for (size_t f = 0; f < sizeof flips; f++) {
				b.p[i] ^= flips[f];
				bool good = readit(&whole, b.p, b.len, 0, &with);
				if (good) {
					CHECK(!good);
					fprintf(stderr, "\tbyte %zu flipped by 0x%02x\n", i, flips[f]);
				}
				/* Damage is found at the same place however the bytes came. */
				readit(&cut, b.p, b.len, 1, &with);
				if (!span_eq(span_of(whole.log.p, whole.log.len), span_of(cut.log.p, cut.log.len)) ||
						strcmp(whole.err.text, cut.err.text))
					CHECK_EQ_STR(cut.err.text, whole.err.text);
				buf_free(&whole.log);
				buf_free(&cut.log);
				b.p[i] ^= flips[f];
			}
		}
		CHECK(reads(b.p, b.len, &with));
	}
}

static void test_keys(void)
{
	AUTO_BUF struct buf plain = {0}, keyed = {0}, key = {0}, other = {0};

	buf_str(&key, "a key");
	buf_str(&other, "b key");
	make(&plain, NULL);
	make(&keyed, &key);
	CHECK(plain.len == keyed.len && memcmp(plain.p, keyed.p, plain.len) != 0);
	const struct stream_in none = {0}, mine = {.key = &key}, theirs = {.key = &other}, blind = {.ignore_mac = true};
	CHECK(reads(plain.p, plain.len, &none) && !reads(plain.p, plain.len, &mine) && reads(plain.p, plain.len, &blind));
	CHECK(!reads(keyed.p, keyed.len, &none) && reads(keyed.p, keyed.len, &mine) && reads(keyed.p, keyed.len, &blind));
	CHECK(!reads(keyed.p, keyed.len, &theirs));
	/* A filter that only passes data on does not look at it. */
	const struct stream_in filter = {.ignore_data_digest = true};
	const uint8_t *content = memmem(plain.p, plain.len, "content", 7);
	if (CHECK(content != NULL)) {
		plain.p[content - plain.p] ^= 1;
		CHECK(!reads(plain.p, plain.len, &none) && reads(plain.p, plain.len, &filter));
	}
}

static void test_unknown_records(void)
{
	AUTO_BUF struct buf from = {0}, b = {0};
	struct result r;

	make(&from, NULL);
	with_unknown(&b, 0x3333, REC_OPTIONAL, 0, &from);
	CHECK(readit(&r, b.p, b.len, 0, NULL) && r.n_skipped == 1);
	buf_free(&r.log);
	with_unknown(&b, 0x3333, REC_OPTIONAL, REC_MAX, &from);
	CHECK(reads(b.p, b.len, NULL));
	with_unknown(&b, 0x3333, REC_OPTIONAL, REC_MAX + 1, &from);
	CHECK(!reads(b.p, b.len, NULL));
	with_unknown(&b, 0x3333, 0, 0, &from);
	CHECK(!readit(&r, b.p, b.len, 0, NULL));
	CHECK(strstr(r.err.text, "0x3333") != NULL);
	buf_free(&r.log);
	with_unknown(&b, 0x3333, REC_OPTIONAL | 2, 0, &from);
	CHECK(!reads(b.p, b.len, NULL));
	/* Known ones: the flags of their row and no others, in their place and no other. */
	with_unknown(&b, REC_BEAT, REC_OPTIONAL, 8, &from);
	CHECK(reads(b.p, b.len, NULL));
	with_unknown(&b, REC_BEAT, 0, 8, &from);
	CHECK(!reads(b.p, b.len, NULL));
	with_unknown(&b, REC_DROP, REC_OPTIONAL, 1, &from);
	CHECK(!reads(b.p, b.len, NULL));
	with_unknown(&b, REC_ACK, 0, 136, &from);
	CHECK(!reads(b.p, b.len, NULL));
}

static void test_header(void)
{
	AUTO_BUF struct buf b = {0};
	struct result r;

	for (unsigned i = 0; i < 4; i++) {
		buf_reset(&b);
		wr_raw(&b, STREAM_MAGIC, 8);
		wr_u16(&b, i == 1 ? 2 : 1);
		wr_u16(&b, i == 2 ? 6 : i == 3 ? 0 : 1);
		wr_u32(&b, i == 0 ? 0x80 : 0);
		CHECK(!readit(&r, b.p, b.len, 0, NULL) && r.log.len == 0);
		CHECK(strstr(r.err.text, "newer") != NULL);
	}
	for (unsigned kind = KIND_IMAGE; kind <= KIND_JOURNAL; kind++) {
		struct stream_out o = {.sink = into_buf, .ctx = &b};
		struct err e = {0};
		buf_reset(&b);
		CHECK_OK(stream_begin(&o, (enum stream_kind)kind, &e), e);
		CHECK_OK(stream_finish(&o, &e), e);
		stream_out_free(&o);
		CHECK(reads(b.p, b.len, NULL));
		CHECK(strcmp(kind_name(kind), "unknown") != 0);
	}
	CHECK_EQ_STR(kind_name(99), "unknown");
}

static int full(void *ctx, const struct span *v, int n, struct err *e)
{
	unsigned *left = ctx;

	(void)v;
	(void)n;
	return (*left)-- ? 0 : err_set(e, ERR_SYSTEM, "no room");
}

static void test_sink_fails(void)
{
	for (unsigned left = 0; left < 3; left++) {
		unsigned n = left;
		struct stream_out o = {.sink = full, .ctx = &n};
		struct err e = {0};
		struct record r = {.type = REC_BEAT};
		int rc = stream_begin(&o, KIND_DELTA, &e);
		if (!rc)
			rc = stream_put(&o, &r, &e);
		if (!rc)
			rc = stream_finish(&o, &e);
		CHECK(rc == -1 && e.kind == ERR_SYSTEM);
		stream_out_free(&o);
	}
}

/* What is peeked at is what comes then, whatever of it is here, and nothing is taken by looking. */
static void test_peek(void)
{
	AUTO_BUF struct buf b = {0};

	make(&b, NULL);
	for (size_t n = 1; n <= b.len; n++) {
		struct stream_in s = {0};
		struct record r, seen[MADE_RECORDS];
		size_t at = 0, ends[MADE_RECORDS], room, peeked = 0, came = 0;
		struct err e = {0};
		memcpy(stream_space(&s, n, &room), b.p, n);
		stream_fed(&s, n);
		int event = stream_next(&s, &e);
		for (; event == STREAM_BEGIN && peeked < MADE_RECORDS && stream_peek(&s, &at, &r); peeked++) {
			seen[peeked] = r;
			ends[peeked] = (size_t)s.off + s.raw.len + at;
		}
		CHECK(!stream_peek(&s, &at, &r));
		for (; event == STREAM_BEGIN && (event = stream_next(&s, &e)) == STREAM_RECORD; came++, event = STREAM_BEGIN)
			CHECK(came < peeked && s.rec.type == seen[came].type && s.off + s.raw.len == ends[came]);
		CHECK(came == peeked && event == (n < b.len ? STREAM_MORE : STREAM_END));
		CHECK(n < b.len || came == MADE_RECORDS);
		stream_in_free(&s);
	}
}

/* A name that no record may hold is not shown either. */
static void test_peek_unsound(void)
{
	AUTO_BUF struct buf b = {0};
	struct stream_in s = {0};
	struct record r;
	struct err e = {0};
	size_t at = 0, room;

	make(&b, NULL);
	uint8_t *name = memmem(b.p, b.len, "file", 4);
	name[1] = '/';
	memcpy(stream_space(&s, b.len, &room), b.p, b.len);
	stream_fed(&s, b.len);
	CHECK(stream_next(&s, &e) == STREAM_BEGIN);
	CHECK(stream_peek(&s, &at, &r) && stream_peek(&s, &at, &r) && stream_peek(&s, &at, &r) && r.type == REC_DELTA);
	CHECK(!stream_peek(&s, &at, &r));
	stream_in_free(&s);
}

int unit_stream(void)
{
	unsigned long before = unit_failures;

	test_whole();
	test_records_come_back();
	test_cuts();
	test_every_prefix();
	test_every_flip();
	test_keys();
	test_unknown_records();
	test_header();
	test_sink_fails();
	test_peek();
	test_peek_unsound();
	return (int)(unit_failures - before);
}
