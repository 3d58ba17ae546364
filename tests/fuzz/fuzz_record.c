/*
 * One record: u16 type, payload. What decodes encodes to the same bytes, in a block of its own; what also makes sense
 * comes through a stream unchanged.
 */
#include <stdio.h>
#include <stdlib.h>

#include "stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_record: %s\n", what);
		abort();
	}
}

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		wr_raw(ctx, v[i].p, v[i].len);
	return 0;
}

static struct span *bulk_of(struct record *r)
{
	static struct span none;

	return r->type == REC_DATA ? &r->u.data.bytes : r->type == REC_WRITE ? &r->u.write.bytes : &none;
}

/* Some kind of stream that the record may stand in. */
static enum stream_kind kind_of(const struct rec_row *row)
{
	unsigned k = KIND_IMAGE;

	while (!(row->kinds >> k & 1))
		k++;
	return (enum stream_kind)k;
}

static void through_stream(struct record *r, const struct rec_row *row, struct span payload)
{
	AUTO_BUF struct buf b = {0};
	struct stream_out o = {.sink = into_buf, .ctx = &b};
	struct stream_in s = {.ignore_data_digest = true};
	struct err e = {0};
	size_t room;

	must(!stream_begin(&o, kind_of(row), &e) && !stream_put(&o, r, &e) && !stream_finish(&o, &e), "cannot write");
	memcpy(stream_space(&s, b.len, &room), b.p, b.len);
	stream_fed(&s, b.len);
	must(stream_next(&s, &e) == STREAM_BEGIN && stream_next(&s, &e) == STREAM_RECORD, "cannot read it back");
	must(s.raw.len == payload.len + 8 && !memcmp(s.raw.p + 8, payload.p, payload.len), "came back changed");
	must(stream_next(&s, &e) == STREAM_END && stream_next(&s, &e) == STREAM_MORE && !stream_eof(&s, &e), "no end");
	stream_in_free(&s);
	stream_out_free(&o);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rd in = rd_of(data, size);
	uint16_t type = rd_u16(&in);
	const struct rec_row *row = rec_row(type);
	struct record r;
	struct err e = {0};

	if (!row || in.bad || in.len > REC_MAX)
		return 0;
	if (rec_decode(&r, type, row->optional ? REC_OPTIONAL : 0, in.p, in.len, &e)) {
		must(e.kind == ERR_STREAM && e.text[0], "an error without a cause");
		return 0;
	}
	AUTO_BUF struct buf b = {0};
	struct span bulk = *bulk_of(&r), payload = span_of(in.p, in.len);
	rec_encode(&b, &r);
	must(b.len >= 8 && b.len - 8 + bulk.len == in.len, "another length");
	wr_raw(&b, bulk.p, bulk.len);
	must(span_eq(payload, span_of(b.p + 8, b.len - 8)), "other bytes");
	must(rec_covered(type, in.len) == in.len - bulk.len, "the trailer covers something else");
	if (rec_check(&r, &e)) {
		must(e.kind == ERR_STREAM && e.text[0], "an error without a cause");
		return 0;
	}
	if (type != REC_TRAILER)
		through_stream(&r, row, payload);
	return 0;
}
