#include "pack.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "codec.h"
#include "input.h"
#include "pool.h"

#define READ_LEN 524288u
#define PIPE_LEN 1048576

/* ---- writing, at a rate ---- */

#define PIECE_MAX 65536u
#define BURST_NS (CLOCK_S / 4) /* what may be made up for after a stall */

struct sink {
	int fd;
	uint64_t rate;
	uint64_t next_ns; /* when the next byte is due */
	_Atomic uint64_t count;
};

static void sink_open(struct sink *s, int fd, uint64_t rate)
{
	int now = fcntl(fd, F_GETPIPE_SZ);

	/* With a rate, a small pipe keeps what was written close to what was sent. */
	if (!rate && now > 0 && now < PIPE_LEN)
		fcntl(fd, F_SETPIPE_SZ, PIPE_LEN);
	s->fd = fd;
	s->rate = rate;
	s->next_ns = clock_ns();
	s->count = 0;
}

static void wait_turn(struct sink *s, size_t n)
{
	uint64_t now = clock_ns();

	if (s->next_ns + BURST_NS < now)
		s->next_ns = now - BURST_NS;
	if (s->next_ns > now) {
		struct timespec t = {.tv_sec = (time_t)(s->next_ns / CLOCK_S), .tv_nsec = (long)(s->next_ns % CLOCK_S)};
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
			;
	}
	s->next_ns += n * CLOCK_S / s->rate;
}

/* Moves on by so many bytes in what is to be written. */
static void pass_over(struct iovec **v, int *n, size_t len)
{
	while (*n && len >= (*v)->iov_len) {
		len -= (*v)->iov_len;
		++*v;
		--*n;
	}
	if (*n) {
		(*v)->iov_base = (uint8_t *)(*v)->iov_base + len;
		(*v)->iov_len -= len;
	}
}

/* All of it; v is used up. */
static int write_all(struct sink *s, struct iovec *v, int n, struct err *e)
{
	for (pass_over(&v, &n, 0); n;) {
		ssize_t rc = writev(s->fd, v, n);
		if (rc < 0 && errno == EAGAIN) {
			struct pollfd f = {.fd = s->fd, .events = POLLOUT};
			poll(&f, 1, -1);
			continue;
		}
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc < 0)
			return err_sys(e, "cannot write the stream at byte %llu",
				(unsigned long long)atomic_load_explicit(&s->count, memory_order_relaxed));
		atomic_fetch_add_explicit(&s->count, (size_t)rc, memory_order_relaxed);
		pass_over(&v, &n, (size_t)rc);
	}
	return 0;
}

static struct iovec iov_of(const uint8_t *p, size_t n) { return (struct iovec){(void *)(uintptr_t)p, n}; }

/* In pieces, each when its turn has come. */
static int write_slowly(struct sink *s, const uint8_t *p, size_t n, struct err *e)
{
	uint64_t piece = max_u64(1, min_u64(s->rate / 20, PIECE_MAX));

	for (size_t part; n; p += part, n -= part) {
		part = (size_t)min_u64(n, piece);
		wait_turn(s, part);
		struct iovec v = iov_of(p, part);
		if (write_all(s, &v, 1, e))
			return -1;
	}
	return 0;
}

/* At most SPANS_MAX. */
#define SPANS_MAX (CODEC_SPANS + 1)
static int sink_spans(struct sink *s, const struct span *v, int n, struct err *e)
{
	struct iovec io[SPANS_MAX];

	for (int i = 0; i < n; i++) {
		if (s->rate && write_slowly(s, v[i].p, v[i].len, e))
			return -1;
		io[i] = iov_of(v[i].p, v[i].len);
	}
	return s->rate ? 0 : write_all(s, io, n, e);
}

static int sink_write(struct sink *s, const uint8_t *p, size_t n, struct err *e) { return sink_spans(s, &(struct span){p, n}, 1, e); }

/* ---- the relay: bytes pass when they were understood ---- */

/* PASS_SEND: what came so far is of use at once; PASS_END: something that somebody waits for ends here. */
enum pass { PASS_ON, PASS_SEND, PASS_END };
/* The replica has work to do with so many bytes that it copies itself: it need not wait until their records fill a chunk. */
#define COPIES_SEND (UINT64_C(64) << 20)

enum rest { REST_NONE, REST_SEEK, REST_PASS };

struct relay {
	struct input_bytes *in;
	const struct token *resume; /* see pack_settings */
	const struct buf *new_key; /* each trailer gets a MAC made with it */
	bool is_cutting;           /* tell `out` where streams and keepalives end */
	const struct pack_each *each; /* run returns where a stream ends, and goes on with the next; may be NULL */
	/* Takes n bytes. */
	int (*out)(void *ctx, const uint8_t *p, size_t n, enum pass how, struct err *e);
	void (*tick)(void *ctx);
	void *ctx;
	/* private */
	struct stream_in s;
	uint64_t off;    /* of the input, as far as it was passed on */
	uint64_t copies; /* bytes, since something was sent for their sake */
	/* with resume: of the stream under way */
	enum rest rest;
	bool is_meant;          /* its base is the token's */
	struct stream_out cont; /* what goes out in its place: RESUME, and the records behind the place that the token names */
};

/* What was understood, as far as this offset, and was not passed on yet. */
static struct span relay_bytes(const struct relay *r, uint64_t until)
{
	struct span v = stream_since(&r->s, r->off);

	v.len = (size_t)(until - r->off);
	return v;
}

static int relay_pass(struct relay *r, uint64_t until, enum pass how, struct err *e)
{
	struct span v = relay_bytes(r, until);

	r->off = until;
	return v.len ? r->out(r->ctx, v.p, v.len, how, e) : 0;
}

/* The trailer's digest stays; its MAC, which follows from it and the key, is put in its place. */
static int relay_sign(struct relay *r, enum pass how, struct err *e)
{
	AUTO_BUF struct buf b = {0};
	struct record rec = r->s.rec;

	if (relay_pass(r, r->s.off, PASS_ON, e))
		return -1;
	stream_mac(&rec.u.trailer.mac, r->new_key, &rec.u.trailer.digest);
	rec_encode(&b, &rec);
	r->off += r->s.raw.len;
	return r->out(r->ctx, b.p, b.len, how, e);
}

/* ---- the rest of a delta ---- */

static int cont_sink(void *ctx, const struct span *v, int n, struct err *e)
{
	struct relay *r = ctx;

	for (int i = 0; i < n; i++)
		if (r->out(r->ctx, v[i].p, v[i].len, false, e))
			return -1;
	return 0;
}

static int other_delta(struct err *e)
{
	return err_set(e, ERR_MISMATCH, "this is not the delta that broke off, or not as it was then: send it from its start, without "
		"--resume");
}

static int begin_rest(struct relay *r, const struct stream_place *at, const struct digest *head, struct err *e)
{
	struct record rec = {.type = REC_RESUME, .u.resume = {at->off, at->records, at->bytes, *head}};

	r->rest = REST_PASS;
	r->cont = (struct stream_out){.sink = cont_sink, .ctx = r, .key = r->new_key};
	return stream_begin(&r->cont, KIND_DELTA, e) || stream_put(&r->cont, &rec, e) ? -1 : 0;
}

/* Passes over what the replica has, up to the place where the digest of all before it proves that this is the delta. Streams
 * before that one were applied already. */
static int seek_event(struct relay *r, int event, struct err *e)
{
	const struct stream_place *at = stream_place(&r->s);
	struct digest head;

	if (event == STREAM_BEGIN)
		r->is_meant = false;
	if (event == STREAM_RECORD && r->s.rec.type == REC_DELTA)
		r->is_meant = token_has_base(r->resume, &r->s.rec.u.delta.base);
	if (!r->is_meant || at->off < r->resume->off)
		return 0;
	/* Another one with that base may follow: the tree was as it had been, or came back to it. */
	r->is_meant = false;
	if (at->off > r->resume->off)
		return 0;
	digest_run_peek(&at->run, &head);
	return token_has_head(r->resume, &head) ? begin_rest(r, at, &head, e) : 0;
}

/* Records as they stand. */
static int rest_pass(struct relay *r, uint64_t until, struct err *e)
{
	struct span v = relay_bytes(r, until);

	r->off = until;
	return stream_pass(&r->cont, v, e);
}

/* An ordinary stream with a trailer of its own: RESUME's digest ties it to what went before. */
static int rest_event(struct relay *r, int event, uint64_t until, struct err *e)
{
	if (r->rest == REST_PASS && event == STREAM_END) {
		r->rest = REST_NONE;
		if (!digest_is_zero(&r->s.rec.u.trailer.mac) && !r->new_key)
			return err_set(e, ERR_USAGE, "the delta is signed, and its rest has to be: --key-file is needed");
		if (rest_pass(r, r->s.off, e) || stream_finish(&r->cont, e)) /* unknown records before the trailer */
			return -1;
	} else if (r->rest == REST_PASS) {
		return rest_pass(r, until, e);
	} else if (seek_event(r, event, e)) {
		return -1;
	}
	r->off = until;
	return 0;
}

/* 1: a stream ended where another may begin; 0: more bytes are wanted; -1. */
static int relay_events(struct relay *r, struct err *e)
{
	int event;

	while ((event = stream_next(&r->s, e)) > 0) {
		bool is_end = event == STREAM_END || (event == STREAM_RECORD && r->s.rec.type == REC_BEAT);
		enum pass how = is_end && r->is_cutting ? PASS_END : PASS_ON;
		uint64_t until = r->s.off + r->s.raw.len;
		if (r->rest != REST_NONE) {
			if (rest_event(r, event, until, e))
				return -1;
			continue;
		}
		if (event == STREAM_RECORD && r->s.rec.type == REC_COPY && (r->copies += r->s.rec.u.copy.len) >= COPIES_SEND) {
			r->copies = 0;
			how = PASS_SEND;
		}
		if (event == STREAM_END && r->new_key) {
			if (relay_sign(r, how, e))
				return -1;
		} else if (how != PASS_ON && relay_pass(r, until, how, e)) {
			return -1;
		}
		if (r->each && r->each->event(r->each->ctx, event, &r->s, e))
			return -1;
		if (r->each && event == STREAM_END)
			return relay_pass(r, until, PASS_ON, e) ? -1 : 1;
	}
	if (event < 0)
		return -1;
	/* Before the next bytes come: then these are gone. */
	if (r->rest == REST_PASS)
		return rest_pass(r, r->s.off, e);
	if (r->rest == REST_SEEK)
		r->off = r->s.off;
	return r->rest == REST_NONE ? relay_pass(r, r->s.off, PASS_ON, e) : 0;
}

/* 1: a stream ended, with `each`; 0: the input; -1. */
static int relay_run(struct relay *r, struct err *e)
{
	for (;;) {
		size_t room, got;
		/* What came with the end of the stream before. */
		int ended = r->each ? relay_events(r, e) : 0;
		if (ended)
			return ended;
		uint8_t *p = stream_space(&r->s, READ_LEN, &room);

		if (input_bytes_read(r->in, p, room < READ_LEN ? room : READ_LEN, &got, e))
			return -1;
		if (!got)
			return stream_eof(&r->s, e) ? -1 : r->rest == REST_SEEK ? other_delta(e) : 0;
		stream_fed(&r->s, got);
		if ((ended = relay_events(r, e)))
			return ended;
		if (r->tick)
			r->tick(r->ctx);
	}
}

static void relay_free(struct relay *r)
{
	stream_in_free(&r->s);
	stream_out_free(&r->cont);
}

/* ---- packing ---- */

#define PACK_THREADS 8u /* unless told: each holds up to two chunks, and these squeeze more than lines carry */
#define ADAPT_CHUNKS 8
#define ADAPT_NS (CLOCK_S / 5)

struct packer {
	const struct pack_settings *o;
	struct relay relay;
	size_t chunk;
	struct pool *pool;
	struct pool_job *job; /* being filled */
	_Atomic int level;
	int least, most;       /* where it may move */
	uint64_t begun;        /* bytes of the stream that were sent to be packed */
	struct codec_packer *codecs[POOL_THREADS_MAX];
	unsigned n_codecs;
	/* the writing thread's */
	pthread_t tid;
	bool has_thread;
	struct sink sink;
	struct codec_index index;
	struct err why;      /* read after the thread has ended */
	bool is_incomplete;  /* set before the pool ends: no index goes out */
	_Atomic uint64_t chunks, raw_chunks;
	struct {
		uint64_t waiting, writing, total; /* ns */
		unsigned n;
	} adapt;
	_Atomic uint64_t squeezing, squeezed; /* ns that passed in it, and that it had a processor for, since adapt looked */
};

static void pack_work(void *ctx, unsigned worker, struct pool_job *job)
{
	struct packer *k = ctx;
	struct codec_packer *c = k->codecs[worker];
	uint64_t began = clock_ns(), had = clock_thread();

	struct span plain = span_of(job->in.p, job->in.len);
	bool is_low = k->o->is_level_free && job->level > PACK_LEVEL && !codec_gains(c, PACK_LEVEL, job->level, plain);

	job->plain_len = (uint32_t)plain.len;
	codec_pack(c, is_low ? PACK_LEVEL : job->level, plain, &job->out, &job->is_raw, &job->err);
	atomic_fetch_add_explicit(&k->squeezing, clock_ns() - began, memory_order_relaxed);
	atomic_fetch_add_explicit(&k->squeezed, clock_thread() - had, memory_order_relaxed);
}

/* Who was waited for most of the time decides: the level rises while the output is slow, and falls while it waits for the
 * compressor. A slow input moves nothing. Where squeezing waits for a processor itself, because ssh(1) has it, say, the output is
 * slow for that reason: a higher level would make it slower. */
static void adapt(struct packer *k)
{
	int level = k->level;

	if (k->adapt.n < ADAPT_CHUNKS || k->adapt.total < ADAPT_NS)
		return;
	uint64_t squeezing = atomic_exchange_explicit(&k->squeezing, 0, memory_order_relaxed);
	uint64_t squeezed = atomic_exchange_explicit(&k->squeezed, 0, memory_order_relaxed);
	bool is_crowded = squeezed < squeezing / 4 * 3;
	if (is_crowded && level > k->least && level > PACK_LEVEL)
		k->level = level - 1;
	else if (!is_crowded && k->adapt.writing > k->adapt.total / 2 && level < k->most)
		k->level = level + 1;
	else if (k->adapt.waiting > k->adapt.total / 2 && level > k->least)
		k->level = level - 1;
	memset(&k->adapt, 0, sizeof k->adapt);
}

/* Index frames ride behind the chunk that they follow; the head in front of the first. */
static int write_job(struct packer *k, struct pool_job *job, struct err *e)
{
	AUTO_BUF struct buf front = {0}, index = {0};
	struct span v[SPANS_MAX];
	uint32_t len;

	if (job->err.kind != ERR_NONE) {
		*e = job->err;
		return -1;
	}
	if (!k->index.file_off) {
		codec_head(&k->index, &front);
		if (sink_write(&k->sink, front.p, front.len, e))
			return -1;
	}
	int n = codec_spans(v, &job->out, span_of(job->in.p, job->in.len), job->is_raw, &len);
	codec_index_add(&k->index, len, job->plain_len);
	if (k->index.n == CODEC_INDEX_MAX || job->is_last) {
		codec_index_put(&k->index, &index);
		v[n++] = span_of(index.p, index.len);
	}
	atomic_fetch_add_explicit(&k->chunks, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&k->raw_chunks, job->is_raw, memory_order_relaxed);
	return sink_spans(&k->sink, v, n, e);
}

static int write_end(struct packer *k, struct err *e)
{
	AUTO_BUF struct buf b = {0};

	if (!k->index.n || k->is_incomplete)
		return 0;
	codec_index_put(&k->index, &b);
	return sink_write(&k->sink, b.p, b.len, e);
}

static void *writer_main(void *arg)
{
	struct packer *k = arg;
	struct pool_job *job;
	bool was_empty;
	uint64_t t0 = clock_ns();

	while ((job = pool_take(k->pool, &was_empty))) {
		uint64_t t1 = clock_ns();
		if (write_job(k, job, &k->why))
			break;
		pool_taken(k->pool);
		uint64_t t2 = clock_ns();
		k->adapt.waiting += was_empty ? 0 : t1 - t0;
		k->adapt.writing += t2 - t1;
		k->adapt.total += t2 - t0;
		k->adapt.n++;
		adapt(k);
		t0 = t2;
	}
	if (!job && !write_end(k, &k->why))
		return NULL;
	/* Nobody takes any more: the others must not wait for us. */
	pool_stop(k->pool);
	input_bytes_wake(k->relay.in);
	return NULL;
}

static void pack_send(struct packer *k)
{
	int least = !k->o->is_level_free || k->begun >= PACK_NEXT ? k->level : k->begun >= PACK_FIRST ? PACK_LEVEL_NEXT : PACK_LEVEL_FIRST;

	k->job->level = least > k->level ? least : k->level;
	k->begun = k->job->is_last ? 0 : k->begun + k->job->in.len;
	k->job = NULL;
	pool_filled(k->pool);
}

static int pack_out(void *ctx, const uint8_t *p, size_t n, enum pass how, struct err *e)
{
	struct packer *k = ctx;

	while (n) {
		if (!k->job) {
			k->job = pool_fill(k->pool);
			if (!k->job) {
				errno = ECANCELED;
				return err_sys(e, "stopped packing");
			}
			buf_reserve(&k->job->in, k->chunk);
		}
		size_t room = k->chunk - k->job->in.len, part = n < room ? n : room;
		buf_add(&k->job->in, p, part);
		p += part;
		n -= part;
		k->job->is_last = how == PASS_END && !n;
		if (part == room || (how != PASS_ON && !n))
			pack_send(k);
	}
	return 0;
}

static void pack_count(const struct packer *k, struct pack_stats *s)
{
	s->plain = input_bytes_count(k->relay.in);
	s->packed = atomic_load_explicit(&k->sink.count, memory_order_relaxed);
	s->chunks = atomic_load_explicit(&k->chunks, memory_order_relaxed);
	s->raw_chunks = atomic_load_explicit(&k->raw_chunks, memory_order_relaxed);
	s->streams = k->relay.s.n_streams;
	s->level = k->level;
}

static void pack_tick(void *ctx)
{
	struct packer *k = ctx;
	struct pack_stats s;

	if (!k->o->tick)
		return;
	pack_count(k, &s);
	k->o->tick(k->o->ctx, &s);
}

static int pack_start(struct packer *k, struct err *e)
{
	const struct pack_settings *o = k->o;
	unsigned all = pool_threads(o->threads), n = o->threads ? all : (unsigned)min_u64(all, PACK_THREADS);
	struct stat st;

	k->begun = 0;
	if (o->is_level_free && !fstat(k->sink.fd, &st) && !S_ISREG(st.st_mode))
		k->most = PACK_LEVEL_MOST;

	for (; k->n_codecs < n; k->n_codecs++) {
		if (codec_packer_open(&k->codecs[k->n_codecs], o->long_log, e))
			return -1;
	}
	if (pool_open(&k->pool, n, n + 2, pack_work, k, e) || pool_thread(&k->tid, writer_main, k, e))
		return -1;
	k->has_thread = true;
	return 0;
}

/* What is complete goes out even when the input then turns out to be damaged; the index, which says "complete", does
 * not. The cause is what failed first: a read that was called back is the writer's failure. */
static int pack_all(struct packer *k, struct err *e)
{
	struct err why = {0};
	int rc = pack_start(k, &why);

	if (!rc)
		rc = relay_run(&k->relay, &why);
	if (rc >= 0 && k->job)
		pack_send(k);
	k->is_incomplete = rc < 0;
	if (k->has_thread) {
		pool_end(k->pool);
		pool_join(k->tid);
		k->has_thread = false;
	}
	if (rc < 0 && why.sys != ECANCELED) {
		*e = why;
		return -1;
	}
	if (k->why.kind != ERR_NONE) {
		*e = k->why;
		return -1;
	}
	return rc;
}

static int packer_open(struct packer **out, int in, const struct pack_settings *o, struct err *e)
{
	struct input_bytes *b = NULL;

	if (input_bytes_open(&b, in, o->resume ? o->threads : 1, e))
		return -1;
	if (input_bytes_kind(b) == INPUT_PACKED && !o->resume) {
		input_bytes_close(&b);
		return err_set(e, ERR_STREAM, "the stream is already packed");
	}
	struct packer *k = xalloc(sizeof *k);
	k->o = o;
	/* What is cut inside a chunk goes over again: small ones get on where the line has broken before. */
	size_t usual = o->resume ? CODEC_CHUNK_RESUMED : CODEC_CHUNK;
	k->chunk = o->chunk ? (size_t)o->chunk : o->long_log ? CODEC_CHUNK_MAX : usual;
	k->least = o->is_adaptive ? PACK_ADAPT_MIN : o->level;
	k->most = o->is_adaptive ? PACK_ADAPT_MAX : o->level;
	k->level = o->level < k->least ? k->least : o->level > k->most ? k->most : o->level;
	k->relay = (struct relay){
		.in = b,
		.resume = o->resume,
		.rest = o->resume ? REST_SEEK : REST_NONE,
		.new_key = o->key && o->key->len ? o->key : NULL,
		.is_cutting = o->is_flushing,
		.out = pack_out,
		.tick = pack_tick,
		.ctx = k,
		.s = {.ignore_data_digest = true, .ignore_mac = true},
	};
	*out = k;
	return 0;
}

static void packer_close(struct packer **k)
{
	struct packer *p = *k;

	pool_close(&p->pool);
	for (unsigned i = 0; i < p->n_codecs; i++)
		codec_packer_close(&p->codecs[i]);
	codec_index_free(&p->index);
	input_bytes_close(&p->relay.in);
	relay_free(&p->relay);
	free(p);
	*k = NULL;
}

int pack_run(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e)
{
	struct packer *k = NULL;

	memset(stats, 0, sizeof *stats);
	if (packer_open(&k, in, o, e))
		return -1;
	input_bytes_watch(k->relay.in, out);
	sink_open(&k->sink, out, o->rate);
	int rc = pack_all(k, e);
	pack_count(k, stats);
	packer_close(&k);
	return rc;
}

int pack_each(int in, const struct pack_each *each, const struct pack_settings *o, struct pack_stats *stats, struct err *e)
{
	struct packer *k = NULL;
	uint64_t before = 0;
	int out, rc;

	memset(stats, 0, sizeof *stats);
	if (packer_open(&k, in, o, e))
		return -1;
	k->relay.each = each;
	do {
		codec_index_free(&k->index);
		k->index = (struct codec_index){0};
		rc = each->begin(each->ctx, &out, e);
		if (!rc) {
			sink_open(&k->sink, out, 0);
			rc = pack_all(k, e);
			pack_count(k, stats);
			stats->packed = before += stats->packed;
		}
		pool_close(&k->pool);
		if (rc == 1 && each->end(each->ctx, e))
			rc = -1;
	} while (rc == 1);
	packer_close(&k);
	return rc;
}

/* ---- what is packed already ---- */

static int pass_on(void *ctx, const void *p, size_t n, struct err *e) { return sink_write(ctx, p, n, e); }

int pack_pass(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e)
{
	struct sink sink;
	struct input s = {.tap = pass_on, .ctx = &sink};
	struct pack_stats so_far = *stats;
	int got;

	sink_open(&sink, out, o->rate);
	if (input_open(&s, in, 1, e))
		return -1;
	s.s.ignore_mac = true; /* who made it has signed it */
	while ((got = input_next(&s, e)) > 0) {
		stats->plain = so_far.plain + stream_place(&s.s)->off;
		stats->packed = so_far.packed + sink.count;
		stats->streams = so_far.streams + s.s.n_streams;
		if (o->tick)
			o->tick(o->ctx, stats);
	}
	stats->packed = so_far.packed + sink.count;
	input_close(&s);
	return got;
}

static int question_sink(void *ctx, const struct span *v, int n, struct err *e)
{
	for (int i = 0; i < n; i++)
		if (sink_write(ctx, v[i].p, v[i].len, e))
			return -1;
	return 0;
}

int pack_question(int out, const struct pack_settings *o, struct err *e)
{
	struct sink sink;
	struct stream_out s = {.sink = question_sink, .ctx = &sink, .key = o->key};

	sink_open(&sink, out, o->rate);
	int rc = stream_begin(&s, KIND_DELTA, e) || stream_finish(&s, e) ? -1 : 0;
	stream_out_free(&s);
	return rc;
}

/* ---- unpacking ---- */

struct undoer {
	const struct pack_settings *o;
	struct relay relay;
	struct sink sink;
};

static int undo_out(void *ctx, const uint8_t *p, size_t n, enum pass how, struct err *e)
{
	struct undoer *u = ctx;

	(void)how; /* everything goes out at once */
	return sink_write(&u->sink, p, n, e);
}

static void undo_count(const struct undoer *u, struct pack_stats *s)
{
	s->packed = input_bytes_count(u->relay.in);
	s->plain = atomic_load_explicit(&u->sink.count, memory_order_relaxed);
	s->streams = u->relay.s.n_streams;
}

static void undo_tick(void *ctx)
{
	struct undoer *u = ctx;
	struct pack_stats s = {0};

	if (!u->o->tick)
		return;
	undo_count(u, &s);
	u->o->tick(u->o->ctx, &s);
}

int pack_undo(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e)
{
	struct input_bytes *b = NULL;
	bool has_key = o->key && o->key->len;

	memset(stats, 0, sizeof *stats);
	if (input_bytes_open(&b, in, o->threads, e))
		return -1;
	if (input_bytes_kind(b) == INPUT_PLAIN) {
		input_bytes_close(&b);
		return err_set(e, ERR_STREAM, "the stream is not packed: there is nothing to unpack");
	}
	struct undoer u = {
		.o = o,
		.relay = {
			.in = b,
			.out = undo_out,
			.tick = undo_tick,
			.ctx = &u,
			.s = {.key = has_key ? o->key : NULL, .ignore_data_digest = true, .ignore_mac = !has_key},
		},
	};
	sink_open(&u.sink, out, o->rate);
	int rc = relay_run(&u.relay, e);
	undo_count(&u, stats);
	relay_free(&u.relay);
	input_bytes_close(&b);
	return rc;
}
