/*
 * The stream parser: whatever comes, it ends in events or in one error; the same ones however the bytes were cut; each
 * record that was decoded encodes to the bytes it came from; and show prints it in one clean line.
 */
#include <stdio.h>
#include <stdlib.h>

#include "show.h"
#include "stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_stream: %s\n", what);
		abort();
	}
}

struct outcome {
	struct digest_run log; /* of all events */
	uint64_t n;
	struct err err;
	bool is_json;
};

static void check_line(void *ctx, const char *text, size_t len)
{
	const struct outcome *o = ctx;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)text[i];
		must(c >= 0x20 && c != 0x7f && (!o->is_json || c < 0x80), "a line that is not clean");
	}
	must(len > 0 && (!o->is_json || (text[0] == '{' && text[len - 1] == '}')), "a line without form");
}

static void check_record(const struct stream_in *s)
{
	AUTO_BUF struct buf b = {0};

	rec_encode(&b, &s->rec);
	if (s->rec.type == REC_DATA)
		wr_raw(&b, s->rec.u.data.bytes.p, s->rec.u.data.bytes.len);
	else if (s->rec.type == REC_WRITE)
		wr_raw(&b, s->rec.u.write.bytes.p, s->rec.u.write.bytes.len);
	must(span_eq(s->raw, span_of(b.p, b.len)), "a record that encodes to other bytes");
}

static void log_event(struct outcome *o, int event, const struct stream_in *s)
{
	AUTO_BUF struct buf b = {0};

	wr_u8(&b, (uint8_t)event);
	wr_u64(&b, s->off);
	wr_u64(&b, s->n_record);
	wr_u64(&b, s->n_skipped);
	wr_str(&b, s->raw.p, s->raw.len);
	digest_run_add(&o->log, b.p, b.len);
	o->n++;
}

/* step 0: all at once */
static void run(struct outcome *o, const uint8_t *data, size_t size, size_t step, bool lax)
{
	struct stream_in s = {.ignore_data_digest = lax, .ignore_mac = lax};
	struct show w = {.json = step != 0, .line = check_line, .ctx = o};
	size_t at = 0;

	*o = (struct outcome){.is_json = w.json};
	digest_run_init(&o->log, "log", NULL, 0);
	for (;;) {
		int event = stream_next(&s, &o->err);
		if (event < 0)
			break;
		if (event == STREAM_MORE) {
			if (at == size) {
				stream_eof(&s, &o->err);
				break;
			}
			size_t take = step && step < size - at ? step : size - at, room;
			memcpy(stream_space(&s, take, &room), data + at, take);
			stream_fed(&s, take);
			at += take;
			continue;
		}
		log_event(o, event, &s);
		if (event != STREAM_BEGIN)
			check_record(&s);
		show_event(&w, (enum stream_event)event, &s);
	}
	must(o->err.kind == ERR_NONE || o->err.kind == ERR_STREAM, "an error of another kind");
	show_free(&w);
	stream_in_free(&s);
}

static void compare(struct outcome *a, struct outcome *b)
{
	struct digest x, y;

	digest_run_end(&a->log, &x);
	digest_run_end(&b->log, &y);
	must(a->n == b->n && digest_eq(&x, &y), "other events when cut");
	must(a->err.kind == b->err.kind && !strcmp(a->err.text, b->err.text), "another error when cut");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, cut;

	/* The strict reader; then the one that lets content pass, which gets further. */
	for (int lax = 0; lax < 2; lax++) {
		run(&whole, data, size, 0, lax);
		run(&cut, data, size, size ? 1 + (data[size / 2] + size) % 61 : 1, lax);
		compare(&whole, &cut);
	}
	return 0;
}
