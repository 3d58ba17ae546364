/*
 * Packed streams. The first byte decides: odd, the rest is unpacked, in large reads and in small ones, which must come to the same
 * bytes, or both to an error; even, the rest is packed into chunks, and must come back.
 */
#include <stdlib.h>
#include <unistd.h>

#include "codec.h"
#include "dense.h"
#include "digest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ENOUGH (UINT64_C(1) << 24) /* plain bytes; what is larger is only a bomb, and is given up */

struct source {
	struct span left;
	size_t step;
};

static int fill(void *ctx, void *p, size_t n, size_t *got, struct err *e)
{
	struct source *s = ctx;

	(void)e;
	*got = (size_t)min_u64(min_u64(n, s->step), s->left.len);
	memcpy(p, s->left.p, *got);
	s->left = span_of(s->left.p + *got, s->left.len - *got);
	return 0;
}

struct outcome {
	struct digest d;
	uint64_t n;
	bool is_bomb;
	struct err err;
};

static void unpack(struct outcome *o, struct span in, size_t step)
{
	struct source s = {in, step};
	struct codec_reader *r = NULL;
	struct digest_run run;
	AUTO_FREE uint8_t *p = xalloc(65536);
	size_t got = 1;

	*o = (struct outcome){0};
	digest_run_init(&run, "plain", NULL, 0);
	int rc = codec_reader_open(&r, fill, &s, 1, &o->err);
	while (!rc && got && !o->is_bomb) {
		rc = codec_reader_read(r, p, step < 65536 ? step : 65536, &got, &o->err);
		if (rc)
			break;
		digest_run_add(&run, p, got);
		o->n += got;
		o->is_bomb = o->n > ENOUGH;
	}
	codec_reader_close(&r);
	digest_run_end(&run, &o->d);
	dense_must(o->err.kind == ERR_NONE || o->err.kind == ERR_STREAM, "an error of another kind");
}

static void there_and_back(struct span plain)
{
	AUTO_BUF struct buf b = {0}, chunk = {0};
	struct codec_index x = {0};
	struct codec_packer *p = NULL;
	struct span v[CODEC_SPANS];
	struct err e = {0};
	struct outcome o;
	struct digest_run run;
	struct digest want;

	digest_run_init(&run, "plain", NULL, 0);
	digest_run_add(&run, plain.p, plain.len);
	digest_run_end(&run, &want);
	codec_head(&x, &b);
	dense_must(!codec_packer_open(&p, 0, &e), e.text);
	for (size_t at = 0; at < plain.len;) {
		/* Chunks of odd lengths, some of them tiny. */
		size_t n = (size_t)min_u64(plain.len - at, 1 + plain.p[at] * 3u);
		struct span part = span_of(plain.p + at, n);
		uint32_t len;
		bool is_raw;
		dense_must(!codec_pack(p, 1, part, &chunk, &is_raw, &e), e.text);
		int n_spans = codec_spans(v, &chunk, part, is_raw, &len);
		for (int i = 0; i < n_spans; i++)
			wr_raw(&b, v[i].p, v[i].len);
		codec_index_add(&x, len, (uint32_t)n);
		at += n;
		if (x.n == CODEC_INDEX_MAX)
			codec_index_put(&x, &b);
	}
	if (x.n)
		codec_index_put(&x, &b);
	codec_packer_close(&p);
	codec_index_free(&x);
	if (!plain.len)
		return;
	unpack(&o, span_of(b.p, b.len), SIZE_MAX);
	dense_must(o.err.kind == ERR_NONE && o.n == plain.len && digest_eq(&o.d, &want), "it came back as something else");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct outcome whole, cut;

	if (!size)
		return 0;
	struct span rest = span_of(data + 1, size - 1);
	if (!(data[0] & 1)) {
		there_and_back(rest);
		return 0;
	}
	unpack(&whole, rest, SIZE_MAX);
	unpack(&cut, rest, 1 + data[0] / 2u);
	if (whole.is_bomb)
		return 0;
	/* How far a damaged file of somebody else's gets, at which byte it is noticed, and whether a frame that is shorter than it
	 * says is noticed at all, depends on how much libzstd was fed: the digests of the stream inside tell in any case. */
	dense_must(whole.err.kind || cut.err.kind || (whole.n == cut.n && digest_eq(&whole.d, &cut.d)), "other bytes when cut");
	return 0;
}
