/*
 * pack: the engine of repl-pack: a plain stream in, the packed one out, and back.
 *
 * One thread reads and checks, several compress, one writes in order; a bounded number of chunks is under way. What
 * goes out was checked as a stream first, up to the record: a damaged or cut input fails and leaves an output that
 * every reader knows to be cut. Content bytes are passed on unread; the far end compares them with their digests.
 *
 * May use: input, codec, stream, token, pool, clock, bytes, err; reads, writes and waits.
 */
#ifndef REPL_PACK_H
#define REPL_PACK_H

#include "bytes.h"
#include "err.h"
#include "stream.h"
#include "token.h"

/* Where nobody chose a level: that of the first bytes of a stream, so that small ones become smaller still, and of the next; that of the
 * others; and how far it rises while the output is waited for, unless that is a file, which is the same each time. */
#define PACK_LEVEL_FIRST 7
#define PACK_FIRST (8u * 1024 * 1024)
#define PACK_LEVEL_NEXT 6 /* of a source tree it made 1% more than 7 in 17% less of the processor's time, 5 makes 5% more */
#define PACK_NEXT (64u * 1024 * 1024)
#define PACK_LEVEL 3
#define PACK_LEVEL_MOST 9
#define PACK_ADAPT_MIN 1 /* --adapt stays between these levels */
#define PACK_ADAPT_MAX 12

struct pack_stats {
	uint64_t plain, packed; /* bytes, whichever side they came from */
	uint64_t chunks, raw_chunks, streams;
	int level;              /* the last one used */
};
struct pack_settings {
	int level;
	bool is_level_free;    /* nobody chose it: PACK_LEVEL, and more where it is worth that */
	unsigned threads;      /* 0: one per processor */
	uint64_t chunk;        /* plain bytes in a chunk, CODEC_CHUNK_MIN to CODEC_CHUNK_MAX; 0: by the other settings */
	unsigned long_log;     /* 0: off, or CODEC_LONG_MIN to CODEC_LONG_MAX */
	bool is_adaptive;      /* the level follows the bottleneck */
	bool is_flushing;      /* a chunk ends, and goes out at once, where a stream or a keepalive ends */
	uint64_t rate;         /* bytes a second to `out`; 0: unlimited */
	const struct token *resume; /* borrowed; pack: leave out what the replica has of the delta that this is about; may be NULL */
	const struct buf *key; /* borrowed; pack: authenticates each stream; unpack: each must be authenticated with it */
	void (*tick)(void *ctx, const struct pack_stats *now); /* may be NULL; often, on the calling thread */
	void *ctx;
};
/* Descriptors are borrowed. The input of pack_run is plain, or packed with resume. ERR_MISMATCH: resume is about another delta;
 * nothing was written. ERR_STREAM: the input is damaged, cut, of the wrong kind or empty; ERR_SYSTEM: reading or
 * writing failed (sys EPIPE: nobody reads). *stats is set in any case. */
int pack_run(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e);
/* Each stream of the input becomes a packed one of its own. */
struct pack_each {
	int (*begin)(void *ctx, int *out, struct err *e);  /* where the next one goes, if one comes; borrowed */
	/* All that was understood, from STREAM_BEGIN to STREAM_END. */
	int (*event)(void *ctx, int event, const struct stream_in *s, struct err *e);
	int (*end)(void *ctx, struct err *e);              /* it is whole, and written */
	void *ctx;
};
/* As pack_run; resume, rate and is_flushing are not obeyed. What begin gave last is not whole when this returns. */
int pack_each(int in, const struct pack_each *each, const struct pack_settings *o, struct pack_stats *stats, struct err *e);
/* Passes on what was packed, byte for byte, and checks it all meanwhile. ERR_STREAM: it is damaged, and the output is cut. Adds to
 * *stats. */
int pack_pass(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e);
/* A stream without a delta, which asks the replica what it holds (repl-stream(5), "DELTA"). */
int pack_question(int out, const struct pack_settings *o, struct err *e);
int pack_undo(int in, int out, const struct pack_settings *o, struct pack_stats *stats, struct err *e);

#endif
