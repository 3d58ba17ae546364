#include "codec.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <zstd.h>

#include "pool.h"

#define MAGIC_ZSTD 0xFD2FB528u
#define MAGIC_SKIP 0x184D2A50u /* to ...5F */
#define MAGIC_HEAD 0x184D2A5Bu
#define MAGIC_CHUNK 0x184D2A5Cu
#define MAGIC_INDEX 0x184D2A5Du
#define CODEC_VERSION 1
#define HEAD_LEN 20u
#define READ_LEN 262144u
#define RAW_BLOCK 131072u

static uint32_t le32(const uint8_t *p)
{
	struct rd r = rd_of(p, 4);

	return rd_u32(&r);
}

static bool is_skippable(uint32_t magic) { return (magic & ~0xfu) == MAGIC_SKIP; }

bool codec_is_zstd(const void *p, size_t n)
{
	return n >= 4 && (le32(p) == MAGIC_ZSTD || is_skippable(le32(p)));
}

int codec_level_min(void) { return ZSTD_minCLevel(); }
int codec_level_max(void) { return ZSTD_maxCLevel(); }

/* ---- head and index ---- */

void codec_head(struct codec_index *x, struct buf *out)
{
	wr_u32(out, MAGIC_HEAD);
	wr_u32(out, HEAD_LEN - 8);
	wr_raw(out, "replpack", 8);
	wr_u16(out, CODEC_VERSION);
	wr_u16(out, 0);
	x->plain_off = x->first = 0;
	x->file_off = HEAD_LEN;
	x->prev = UINT64_MAX;
	x->n = 0;
	buf_reset(&x->rows);
}

void codec_index_add(struct codec_index *x, uint32_t packed, uint32_t plain)
{
	assert(x->n < CODEC_INDEX_MAX);
	wr_u32(&x->rows, packed);
	wr_u32(&x->rows, plain);
	x->n++;
	x->plain_off += plain;
	x->file_off += packed;
}

void codec_index_put(struct codec_index *x, struct buf *out)
{
	size_t before = out->len;

	wr_u32(out, MAGIC_INDEX);
	wr_u32(out, (uint32_t)(8 + 8 + 4 + x->rows.len + 4));
	wr_u64(out, x->first);
	wr_u64(out, x->prev);
	wr_u32(out, x->n);
	wr_raw(out, x->rows.p, x->rows.len);
	wr_raw(out, "RIDX", 4);
	x->prev = x->file_off;
	x->file_off += out->len - before;
	x->first = x->plain_off;
	x->n = 0;
	buf_reset(&x->rows);
}

void codec_index_free(struct codec_index *x) { buf_free(&x->rows); }

/* ---- compressing one chunk ---- */

#define SAMPLES 16u
#define SAMPLE_LEN 4096u

struct codec_packer {
	ZSTD_CCtx *z;
	unsigned long_log;
	uint8_t sample[SAMPLES * SAMPLE_LEN];
	uint8_t trial[ZSTD_COMPRESSBOUND(SAMPLES * SAMPLE_LEN)];
};

static int zstd_failed(size_t code, const char *what, struct err *e)
{
	return err_set(e, ERR_SYSTEM, "%s: %s", what, ZSTD_getErrorName(code));
}

static int set_up(struct codec_packer *p, int level, int window, bool is_long, struct err *e)
{
	const struct {
		ZSTD_cParameter name;
		int value;
	} v[] = {
		{ZSTD_c_compressionLevel, level},
		{ZSTD_c_windowLog, window},
		{ZSTD_c_enableLongDistanceMatching, is_long},
		{ZSTD_c_checksumFlag, 0},
	};

	for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
		size_t rc = ZSTD_CCtx_setParameter(p->z, v[i].name, v[i].value);
		if (ZSTD_isError(rc))
			return zstd_failed(rc, "cannot set up the compressor", e);
	}
	return 0;
}

int codec_packer_open(struct codec_packer **out, unsigned long_log, struct err *e)
{
	struct codec_packer *p = xalloc(sizeof *p);

	p->long_log = long_log;
	p->z = ZSTD_createCCtx();
	if (!p->z) {
		free(p);
		return err_set(e, ERR_SYSTEM, "cannot make a compressor: out of memory");
	}
	*out = p;
	return 0;
}

void codec_packer_close(struct codec_packer **pp)
{
	if (*pp)
		ZSTD_freeCCtx((*pp)->z);
	free(*pp);
	*pp = NULL;
}

/* Logarithm of the window that holds the whole chunk: then the frame needs no window of its own. */
static int window_log(size_t len)
{
	int log = (int)CODEC_LONG_MIN;

	while ((size_t)1 << log < len)
		log++;
	return log;
}

/* Sixteen pieces from all over the chunk, which is not shorter than they are. */
static void take_sample(struct codec_packer *p, struct span plain)
{
	for (size_t i = 0; i < SAMPLES; i++)
		memcpy(p->sample + i * SAMPLE_LEN, plain.p + (plain.len - SAMPLE_LEN) / (SAMPLES - 1) * i, SAMPLE_LEN);
}

bool codec_gains(struct codec_packer *p, int low, int high, struct span plain)
{
	struct span sample = plain;
	size_t len[2] = {0};
	struct err e = {0};

	if (plain.len > sizeof p->sample) {
		take_sample(p, plain);
		sample = span_of(p->sample, sizeof p->sample);
	}
	for (int i = 0; i < 2; i++) {
		if (set_up(p, i ? high : low, window_log(sample.len), false, &e))
			return false;
		len[i] = ZSTD_compress2(p->z, p->trial, sizeof p->trial, sample.p, sample.len);
	}
	return len[1] < len[0] - len[0] / 32;
}

/*
 * Would the compressor try in vain? The bytes of a sample are counted: when they are far from equally frequent, there is something to
 * gain. When they are not, a quick trial says whether they repeat. Repetition at a distance is not seen, so nobody who asked for --long is
 * asked here.
 */
static bool looks_random(struct codec_packer *p, struct span plain)
{
	uint32_t count[4][256] = {0}; /* four tables, so that equal bytes in a row do not wait for each other */
	uint64_t squares = 0, n = sizeof p->sample;

	if (p->long_log || plain.len < 2 * sizeof p->sample)
		return false;
	take_sample(p, plain);
	for (size_t i = 0; i < n; i += 4) {
		count[0][p->sample[i]]++;
		count[1][p->sample[i + 1]]++;
		count[2][p->sample[i + 2]]++;
		count[3][p->sample[i + 3]]++;
	}
	for (size_t i = 0; i < 256; i++) {
		uint64_t c = (uint64_t)count[0][i] + count[1][i] + count[2][i] + count[3][i];
		squares += c * c;
	}
	/* Equally frequent bytes give n * n / 256. */
	if (squares * 256 > n * n + n * n / 16)
		return false;
	size_t rc = ZSTD_compress2(p->z, p->trial, sizeof p->trial, p->sample, sizeof p->sample);
	return ZSTD_isError(rc) || rc > n - n / 64;
}

#define RAW_HEAD 9u /* of the frame */
#define RAW_BLOCK_HEAD 3u

_Static_assert(CODEC_SPANS >= 2 * (CODEC_CHUNK_MAX / RAW_BLOCK), "a head and a block each");

/* The block of a raw frame that begins at this plain byte, which is a multiple of RAW_BLOCK. */
static size_t raw_block(size_t plain_len, size_t at) { return plain_len - at < RAW_BLOCK ? plain_len - at : RAW_BLOCK; }

static void raw_block_head(uint8_t out[RAW_BLOCK_HEAD], size_t plain_len, size_t at)
{
	size_t n = raw_block(plain_len, at);
	uint32_t head = (uint32_t)n << 3 | (at + n == plain_len);

	out[0] = head & 0xff;
	out[1] = head >> 8 & 0xff;
	out[2] = (uint8_t)(head >> 16);
}

static void raw_frame_head(uint8_t out[RAW_HEAD], size_t plain_len)
{
	static const uint8_t magic[] = {0x28, 0xb5, 0x2f, 0xfd, 0xa0}; /* single segment, four bytes of content size */

	memcpy(out, magic, sizeof magic);
	for (size_t i = 0; i < 4; i++)
		out[sizeof magic + i] = (uint8_t)(plain_len >> 8 * i);
}

/* A zstd frame made by hand, without the content of its blocks, which are raw. */
static void raw_heads(struct buf *out, size_t plain_len)
{
	uint8_t head[RAW_HEAD];

	raw_frame_head(head, plain_len);
	wr_raw(out, head, RAW_HEAD);
	for (size_t at = 0; at < plain_len; at += RAW_BLOCK) {
		raw_block_head(head, plain_len, at);
		wr_raw(out, head, RAW_BLOCK_HEAD);
	}
}

static size_t raw_len(size_t plain_len)
{
	return RAW_HEAD + RAW_BLOCK_HEAD * ((plain_len + RAW_BLOCK - 1) / RAW_BLOCK) + plain_len;
}

static void chunk_head(struct buf *out, uint32_t packed, uint32_t plain)
{
	wr_u32(out, MAGIC_CHUNK);
	wr_u32(out, CODEC_CHUNK_HEAD - 8);
	wr_u32(out, packed);
	wr_u32(out, plain);
	wr_u32(out, 0);
}

int codec_pack(struct codec_packer *p, int level, struct span plain, struct buf *out, bool *is_raw, struct err *e)
{
	size_t bound = ZSTD_compressBound(plain.len);
	bool raw = false;

	assert(plain.len && plain.len <= CODEC_CHUNK_MAX);
	buf_reset(out);
	buf_reserve(out, CODEC_CHUNK_HEAD + bound);
	if (set_up(p, 1, 0, false, e))
		return -1;
	raw = looks_random(p, plain);
	if (!raw) {
		int window = window_log(plain.len);
		if (p->long_log && window > (int)p->long_log)
			window = (int)p->long_log;
		if (set_up(p, level, window, p->long_log != 0, e))
			return -1;
		size_t rc = ZSTD_compress2(p->z, out->p + CODEC_CHUNK_HEAD, bound, plain.p, plain.len);
		if (ZSTD_isError(rc))
			return zstd_failed(rc, "cannot compress", e);
		raw = rc >= plain.len;
		if (!raw) {
			chunk_head(out, (uint32_t)rc, (uint32_t)plain.len);
			out->len += rc;
		}
	}
	if (raw) {
		chunk_head(out, (uint32_t)raw_len(plain.len), (uint32_t)plain.len);
		raw_heads(out, plain.len);
	}
	*is_raw = raw;
	return 0;
}

int codec_spans(struct span v[CODEC_SPANS], const struct buf *out, struct span plain, bool is_raw, uint32_t *len)
{
	size_t head = CODEC_CHUNK_HEAD + RAW_HEAD + RAW_BLOCK_HEAD;
	int n = 0;

	*len = (uint32_t)(out->len + (is_raw ? plain.len : 0));
	if (!is_raw) {
		v[0] = span_of(out->p, out->len);
		return 1;
	}
	for (size_t at = 0, from = 0; at < plain.len; at += RAW_BLOCK, from = head, head += RAW_BLOCK_HEAD) {
		v[n++] = span_of(out->p + from, head - from);
		v[n++] = span_of(plain.p + at, raw_block(plain.len, at));
	}
	return n;
}

/* ---- reading ---- */

#define READ_THREADS 4u /* decoding is fast: more would only hold more chunks in memory */

enum reader_state { AT_FRAME, AT_CHUNK, IN_ZSTD };
struct codec_reader {
	codec_fill fill;
	void *ctx;
	struct buf in; /* packed bytes that came and were not used yet: from in.p[at] */
	size_t at;
	bool is_eof;
	uint64_t n_filled;
	enum reader_state state;
	bool is_packed; /* a head came and its chunks may follow */
	uint32_t packed_len, plain_len;
	struct codec_index index; /* what the next index has to say */
	struct buf want;
	ZSTD_DCtx *ordinary; /* for frames that were not made by us */

	unsigned n_decoders;
	ZSTD_DCtx *decoders[READ_THREADS];
	struct pool *pool; /* NULL: everything happens in codec_reader_read */
	pthread_t tid;
	bool has_thread;
	struct pool_job own, *job;
	size_t job_at;
};

static size_t buffered(const struct codec_reader *r) { return r->in.len - r->at; }
static uint64_t place(const struct codec_reader *r) { return r->n_filled - buffered(r); }
static const uint8_t *head(const struct codec_reader *r) { return r->in.p + r->at; }

static int damaged(uint64_t off, struct err *e, const char *why)
{
	return err_set(e, ERR_STREAM, "the packed stream is damaged at byte %llu: %s", (unsigned long long)off, why);
}

static int cut(const struct codec_reader *r, struct err *e)
{
	err_set(e, ERR_STREAM, "the packed stream ends early, at byte %llu", (unsigned long long)r->n_filled);
	e->is_cut = true;
	return -1;
}

static int fill_some(struct codec_reader *r, void *p, size_t n, size_t *got, struct err *e)
{
	if (r->fill(r->ctx, p, n, got, e))
		return -1;
	r->n_filled += *got;
	r->is_eof = *got == 0;
	return 0;
}

/* Has n bytes in the buffer, or all there are. */
static int need(struct codec_reader *r, size_t n, struct err *e)
{
	while (buffered(r) < n && !r->is_eof) {
		size_t got;
		if (r->at) {
			memmove(r->in.p, head(r), buffered(r));
			r->in.len -= r->at;
			r->at = 0;
		}
		buf_reserve(&r->in, n > READ_LEN ? n : READ_LEN);
		if (fill_some(r, r->in.p + r->in.len, READ_LEN, &got, e))
			return -1;
		r->in.len += got;
	}
	return 0;
}

static int need_all(struct codec_reader *r, size_t n, struct err *e)
{
	if (need(r, n, e))
		return -1;
	return buffered(r) < n ? cut(r, e) : 0;
}

/* Compares a frame with the one we would have made. */
static int same_frame(struct codec_reader *r, const char *why, struct err *e)
{
	if (need_all(r, 8, e))
		return -1;
	if (memcmp(head(r), r->want.p, 8))
		return damaged(place(r), e, why);
	if (need_all(r, r->want.len, e))
		return -1;
	if (memcmp(head(r), r->want.p, r->want.len))
		return damaged(place(r), e, why);
	r->at += r->want.len;
	return 0;
}

static int read_head(struct codec_reader *r, struct err *e)
{
	buf_reset(&r->want);
	codec_head(&r->index, &r->want);
	if (need_all(r, HEAD_LEN, e))
		return -1;
	/* Another version is worth a sentence of its own. */
	struct rd v = rd_of(head(r) + 16, 2);
	unsigned version = rd_u16(&v);
	if (!memcmp(head(r), r->want.p, 16) && version != CODEC_VERSION)
		return err_set(e, ERR_STREAM, "the stream is packed in version %u, this program reads version %d: "
			"a newer one is needed here", version, CODEC_VERSION);
	r->is_packed = true;
	return same_frame(r, "its head is wrong", e);
}

static int read_chunk_head(struct codec_reader *r, struct err *e)
{
	if (need_all(r, CODEC_CHUNK_HEAD, e))
		return -1;
	struct rd h = rd_of(head(r) + 4, CODEC_CHUNK_HEAD - 4);
	uint32_t len = rd_u32(&h), packed = rd_u32(&h), plain = rd_u32(&h), reserved = rd_u32(&h);
	if (len != CODEC_CHUNK_HEAD - 8 || reserved || !packed || packed > CODEC_FRAME_MAX || !plain ||
		plain > CODEC_CHUNK_MAX)
		return damaged(place(r), e, "a chunk has impossible lengths");
	if (!r->is_packed)
		return damaged(place(r), e, "a chunk came without the head of a packed stream");
	if (r->index.n == CODEC_INDEX_MAX)
		return damaged(place(r), e, "an index is missing");
	r->packed_len = packed;
	r->plain_len = plain;
	r->at += CODEC_CHUNK_HEAD;
	r->state = AT_CHUNK;
	return 0;
}

static int skip_frame(struct codec_reader *r, struct err *e)
{
	uint64_t left = 8 + (uint64_t)le32(head(r) + 4);

	while (left) {
		if (need_all(r, 1, e))
			return -1;
		size_t n = (size_t)min_u64(left, buffered(r));
		r->at += n;
		left -= n;
	}
	return 0;
}

static int begin_zstd(struct codec_reader *r, struct err *e)
{
	if (!r->ordinary) {
		r->ordinary = ZSTD_createDCtx();
		if (!r->ordinary)
			return err_set(e, ERR_SYSTEM, "cannot make a decompressor: out of memory");
	}
	ZSTD_DCtx_reset(r->ordinary, ZSTD_reset_session_only);
	ZSTD_DCtx_setParameter(r->ordinary, ZSTD_d_windowLogMax, CODEC_WINDOW_MAX);
	r->is_packed = false;
	r->state = IN_ZSTD;
	return 0;
}

/* Looks at what stands between two frames. 1: went on; 0: a clean end. */
static int next_frame(struct codec_reader *r, struct err *e)
{
	if (need(r, 8, e))
		return -1;
	if (!buffered(r) && !r->index.n)
		return 0;
	if (buffered(r) < 8)
		return cut(r, e);
	uint32_t magic = le32(head(r));
	int rc;
	if (magic == MAGIC_CHUNK) {
		rc = read_chunk_head(r, e);
	} else if (magic == MAGIC_INDEX && r->is_packed) {
		buf_reset(&r->want);
		codec_index_put(&r->index, &r->want);
		rc = same_frame(r, "an index does not list the chunks before it", e);
	} else if (r->index.n) {
		rc = damaged(place(r), e, "an index is missing");
	} else if (magic == MAGIC_HEAD) {
		rc = read_head(r, e);
	} else if (magic == MAGIC_ZSTD) {
		rc = begin_zstd(r, e);
	} else if (is_skippable(magic) && magic != MAGIC_INDEX) {
		rc = skip_frame(r, e);
	} else {
		rc = damaged(place(r), e, "neither a packed stream nor a zstd frame follows");
	}
	return rc ? -1 : 1;
}

static int read_chunk(struct codec_reader *r, struct pool_job *job, struct err *e)
{
	job->off = place(r);
	job->plain_len = r->plain_len;
	while (job->in.len < r->packed_len) {
		size_t left = r->packed_len - job->in.len, got = buffered(r);
		if (got) {
			got = got < left ? got : left;
			buf_add(&job->in, head(r), got);
			r->at += got;
			continue;
		}
		if (left > READ_LEN)
			left = READ_LEN;
		buf_reserve(&job->in, left);
		if (fill_some(r, job->in.p + job->in.len, left, &got, e))
			return -1;
		if (!got)
			return cut(r, e);
		job->in.len += got;
	}
	codec_index_add(&r->index, CODEC_CHUNK_HEAD + r->packed_len, r->plain_len);
	r->state = AT_FRAME;
	/* The chunk waits here for what follows it. */
	return next_frame(r, e) < 0 ? -1 : 0;
}

/* Some plain bytes of an ordinary frame: as many as the input at hand gives, READ_LEN at most. */
static int read_zstd(struct codec_reader *r, struct pool_job *job, struct err *e)
{
	ZSTD_outBuffer out;

	job->is_ready = true;
	buf_reserve(&job->out, READ_LEN);
	out = (ZSTD_outBuffer){job->out.p, READ_LEN, 0};
	for (;;) {
		ZSTD_inBuffer in = {r->in.p, r->in.len, r->at};
		size_t before = out.pos, rc = ZSTD_decompressStream(r->ordinary, &out, &in);
		bool is_stuck = in.pos == r->at && out.pos == before;
		r->at = in.pos;
		if (ZSTD_isError(rc))
			return damaged(place(r), e, ZSTD_getErrorName(rc));
		job->out.len = out.pos;
		if (rc == 0)
			r->state = AT_FRAME;
		if (rc == 0 || out.pos == out.size)
			return 0;
		if (buffered(r) && !is_stuck)
			continue;
		/* What was gained goes out before we wait for more. */
		if (out.pos)
			return 0;
		if (need_all(r, buffered(r) + 1, e))
			return -1;
	}
}

/* The next job. 1: filled; 0: a clean end. */
static int produce(struct codec_reader *r, struct pool_job *job, struct err *e)
{
	for (;;) {
		int rc;
		switch (r->state) {
		case AT_FRAME:
			rc = next_frame(r, e);
			if (rc <= 0)
				return rc;
			break;
		case AT_CHUNK:
			return read_chunk(r, job, e) ? -1 : 1;
		case IN_ZSTD:
			if (read_zstd(r, job, e))
				return -1;
			if (job->out.len)
				return 1;
			break;
		}
	}
}

/* Is it the frame that we make of what does not compress? Then its content is there already. */
static bool is_raw_frame(const struct buf *in, size_t plain_len)
{
	uint8_t want[RAW_HEAD];

	raw_frame_head(want, plain_len);
	if (in->len != raw_len(plain_len) || memcmp(in->p, want, RAW_HEAD))
		return false;
	for (size_t at = 0, head = RAW_HEAD; at < plain_len; at += RAW_BLOCK, head += RAW_BLOCK_HEAD + RAW_BLOCK) {
		raw_block_head(want, plain_len, at);
		if (memcmp(in->p + head, want, RAW_BLOCK_HEAD))
			return false;
	}
	return true;
}

/* The content of such a frame from this byte on, as far as it lies in one piece. */
static struct span raw_content(const struct pool_job *job, size_t at)
{
	size_t block = at / RAW_BLOCK, in = at % RAW_BLOCK;

	return span_of(job->in.p + RAW_HEAD + RAW_BLOCK_HEAD * (block + 1) + at, raw_block(job->plain_len, at - in) - in);
}

static void decode(ZSTD_DCtx *z, struct pool_job *job)
{
	const struct buf *in = &job->in;

	job->is_raw = is_raw_frame(in, job->plain_len);
	if (job->is_raw)
		return;
	/* No dictionary, no checksum, no reserved bit: what the page says, and nothing that decoders pass over. */
	if (in->len < 9 || le32(in->p) != MAGIC_ZSTD || (in->p[4] & 0x1f) ||
		ZSTD_getFrameContentSize(in->p, in->len) != job->plain_len ||
		ZSTD_findFrameCompressedSize(in->p, in->len) != in->len) {
		damaged(job->off, &job->err, "a chunk is not the frame that was announced");
		return;
	}
	buf_reserve(&job->out, job->plain_len);
	size_t rc = ZSTD_decompressDCtx(z, job->out.p, job->plain_len, in->p, in->len);
	if (ZSTD_isError(rc))
		damaged(job->off, &job->err, ZSTD_getErrorName(rc));
	else if (rc != job->plain_len)
		damaged(job->off, &job->err, "a chunk has another length than announced");
	else
		job->out.len = rc;
}

static void decode_work(void *ctx, unsigned worker, struct pool_job *job)
{
	struct codec_reader *r = ctx;

	decode(r->decoders[worker], job);
}

static void *reader_main(void *arg)
{
	struct codec_reader *r = arg;
	struct pool_job *job;
	int rc = 1;

	while (rc > 0 && (job = pool_fill(r->pool))) {
		rc = produce(r, job, &job->err);
		if (rc < 0)
			job->is_ready = true;
		if (rc)
			pool_filled(r->pool);
	}
	pool_end(r->pool);
	return NULL;
}

int codec_reader_open(struct codec_reader **out, codec_fill fill, void *ctx, unsigned threads, struct err *e)
{
	struct codec_reader *r = xalloc(sizeof *r);

	r->fill = fill;
	r->ctx = ctx;
	threads = pool_threads(threads);
	if (threads > READ_THREADS)
		threads = READ_THREADS;
	for (; r->n_decoders < threads; r->n_decoders++) {
		r->decoders[r->n_decoders] = ZSTD_createDCtx();
		if (!r->decoders[r->n_decoders]) {
			err_set(e, ERR_SYSTEM, "cannot make a decompressor: out of memory");
			codec_reader_close(&r);
			return -1;
		}
	}
	if (threads > 1) {
		if (pool_open(&r->pool, threads, threads + 2, decode_work, r, e) ||
			pool_thread(&r->tid, reader_main, r, e)) {
			codec_reader_close(&r);
			return -1;
		}
		r->has_thread = true;
	}
	*out = r;
	return 0;
}

/* The next finished job, NULL at a clean end. */
static int next_job(struct codec_reader *r, struct err *e)
{
	if (r->pool) {
		if (r->job)
			pool_taken(r->pool);
		r->job = pool_take(r->pool, NULL);
	} else {
		struct pool_job *job = &r->own;
		*job = (struct pool_job){.in = job->in, .out = job->out};
		buf_reset(&job->in);
		buf_reset(&job->out);
		int rc = produce(r, job, &job->err);
		if (rc > 0 && !job->is_ready)
			decode(r->decoders[0], job);
		r->job = rc ? job : NULL;
	}
	r->job_at = 0;
	if (r->job && r->job->err.kind != ERR_NONE) {
		if (e->kind == ERR_NONE)
			*e = r->job->err;
		return -1;
	}
	return 0;
}

/* What was not handed out yet of a job, as far as it lies in one piece. */
static struct span job_rest(const struct codec_reader *r)
{
	const struct pool_job *job = r->job;

	if (job->is_raw)
		return r->job_at < job->plain_len ? raw_content(job, r->job_at) : (struct span){0};
	return span_of(job->out.p + r->job_at, job->out.len - r->job_at);
}

int codec_reader_read(struct codec_reader *r, void *p, size_t n, size_t *got, struct err *e)
{
	struct span rest = r->job ? job_rest(r) : (struct span){0};

	*got = 0;
	if (!rest.len) {
		if (next_job(r, e))
			return -1;
		if (!r->job)
			return 0;
		rest = job_rest(r);
	}
	for (; *got < n && rest.len; rest = job_rest(r)) {
		size_t part = rest.len < n - *got ? rest.len : n - *got;
		memcpy((uint8_t *)p + *got, rest.p, part);
		*got += part;
		r->job_at += part;
	}
	return 0;
}

void codec_reader_close(struct codec_reader **rr)
{
	struct codec_reader *r = *rr;

	if (!r)
		return;
	if (r->pool)
		pool_stop(r->pool);
	if (r->has_thread)
		pool_join(r->tid);
	pool_close(&r->pool);
	for (unsigned i = 0; i < r->n_decoders; i++)
		ZSTD_freeDCtx(r->decoders[i]);
	ZSTD_freeDCtx(r->ordinary);
	codec_index_free(&r->index);
	buf_free(&r->want);
	buf_free(&r->in);
	buf_free(&r->own.in);
	buf_free(&r->own.out);
	free(r);
	*rr = NULL;
}
