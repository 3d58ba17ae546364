/*
 * stream: the framing shared by all kinds: header, records, trailer. repl-stream(5) is its manual.
 *
 *   stream  = header record* TRAILER            several streams may follow each other
 *   header  = magic[8] u16 version u16 kind u32 features
 *   record  = u16 type u16 flags u32 length, payload
 *
 * The writer hands finished bytes to a sink; the reader is fed any number of bytes and gives back the same
 * events however they were cut. Neither does I/O. Each content byte is hashed once, by whoever makes or
 * checks the DATA record's digest; the running trailer digest covers the rest.
 *
 * May use: record, digest, bytes, err.
 */
#ifndef REPL_STREAM_H
#define REPL_STREAM_H

#include "record.h"

#define STREAM_MAGIC "\x8brepl\r\n\x1a"
#define STREAM_VERSION 1
#define STREAM_HEAD_LEN 16
#define STREAM_KEY_MAX 64

/* Takes n spans in order; -1 with *e set stops the writer. */
typedef int (*stream_sink)(void *ctx, const struct span *v, int n, struct err *e);

/* A border between two records: so far into the stream, and the trailer's counts and digest as far as that. */
struct stream_place {
	uint64_t off, records, bytes;
	struct digest_run run;
};

struct stream_out {
	stream_sink sink;
	void *ctx;
	const struct buf *key; /* borrowed; NULL or empty: no MAC */
	struct stream_place at;
	struct buf scratch;
	bool open;
};
/* Writes the header. */
int stream_begin(struct stream_out *o, enum stream_kind kind, struct err *e);
/* Writes one record; for DATA and WRITE u.….bytes goes to the sink from where it lies. */
int stream_put(struct stream_out *o, const struct record *r, struct err *e);
/* Writes records that are encoded already: whole ones, as they stand in another stream. */
int stream_pass(struct stream_out *o, struct span records, struct err *e);
/* Writes the trailer; the writer can begin another stream after it. */
int stream_finish(struct stream_out *o, struct err *e);
void stream_out_free(struct stream_out *o);

enum stream_event { STREAM_MORE = 0, STREAM_BEGIN, STREAM_RECORD, STREAM_END };

struct stream_in {
	/* settings, before the first byte */
	const struct buf *key;  /* borrowed; set: every trailer must carry a MAC made with it */
	bool ignore_data_digest;/* set by filters that only pass data on: the far end checks it */
	bool ignore_mac;        /* a MAC without a key is not an error (repl-show, repl-pack) */
	/* what the last event was about */
	uint16_t version, kind;
	uint32_t features;
	struct record rec;        /* STREAM_RECORD and STREAM_END (the trailer) */
	struct span raw;          /* the record's bytes, header included; borrowed until the next call */
	uint64_t off;             /* plain stream offset of the event's first byte, over all streams */
	uint64_t n_record;        /* number of the record in its stream, from 0 */
	uint64_t n_skipped;       /* unknown optional records passed over */
	uint64_t n_streams;       /* streams completed */
	/* private */
	struct buf in;
	size_t at;
	int state;
	struct stream_place own, whole;
	bool is_resumed;
};
/* Room for at least `want` input bytes; fill some of it, then say how many. *have: as many as are best had now: more may mean that
 * what comes of a long record is moved once more. */
uint8_t *stream_space(struct stream_in *s, size_t want, size_t *have);
/* What stream_next has gone through, from this offset (as s->off) to the end of the last event: which must not be before the place to
 * which it had come when stream_space was called last. Borrowed until that is called again. */
struct span stream_since(const struct stream_in *s, uint64_t off);
void stream_fed(struct stream_in *s, size_t n);
/* The next event, or -1 (ERR_STREAM; `place` is in the text). STREAM_MORE: feed first. */
int stream_next(struct stream_in *s, struct err *e);
/* The records that are here already behind the last event, for who wants to know what he will be asked for next. Content is not
 * hashed. *at: 0 at first; then so many bytes behind the event. 1; 0: no more of them. */
int stream_peek(const struct stream_in *s, size_t *at, struct record *r);
/* Called at end of input: an error when it stops inside a stream or no stream came at all. */
int stream_eof(const struct stream_in *s, struct err *e);
void stream_in_free(struct stream_in *s);
/* Behind the last event: in the stream or, when it goes on with another one, in that. Borrowed until the next call. */
const struct stream_place *stream_place(const struct stream_in *s);
/* After a RESUME record: this stream goes on where another one ended, at head. */
void stream_resumed(struct stream_in *s, const struct stream_place *head);

/* BLAKE2b-256 keyed with the key, over the trailer digest. */
void stream_mac(struct digest *out, const struct buf *key, const struct digest *trailer_digest);
/* True when these bytes (at least 8) start a plain stream. */
bool stream_is_plain(const void *p, size_t n);
const char *kind_name(unsigned kind); /* "delta"; "unknown" */

#endif
