/*
 * input: stream events from a descriptor, plain or packed, whatever comes.
 *
 * Looks at the first bytes: a plain stream is fed to the parser as it is read; a packed one is unpacked on other threads,
 * in order. May use: stream, codec, bytes, err; reads descriptors.
 */
#ifndef REPL_INPUT_H
#define REPL_INPUT_H

#include "stream.h"

struct input {
	struct stream_in s; /* settings may be set between input_open and the first input_next */
	int out_fd;          /* set before input_open; 0: none. When this pipe has no reader any more, waiting ends: ERR_SYSTEM, EPIPE */
	uint64_t timeout_ms; /* set before input_open; 0: none. When no byte came for so long: ERR_TIMEOUT, and the input is cut */
	/* Set before input_open; may be NULL. Sees all bytes as they come, before they are unpacked. */
	int (*tap)(void *ctx, const void *p, size_t n, struct err *e);
	void *ctx;
	bool packed;
	uint64_t bytes_read; /* as they came, before unpacking */
	void *priv;
};
/* fd is borrowed. threads 0: one per processor; 1: none extra. */
int input_open(struct input *in, int fd, unsigned threads, struct err *e);
/* The next event (enum stream_event, never STREAM_MORE); STREAM_END ends one stream, another may follow; 0 at a clean end of
 * input (at least one whole stream came); -1: ERR_STREAM, or ERR_SYSTEM when reading failed. Empty input is an error. */
int input_next(struct input *in, struct err *e);
void input_close(struct input *in);

/* Does a file begin as a stream does, plain or packed? Its read position stays. */
bool input_is_stream(int fd);

/* What lies beneath, for filters that pass bytes on: the plain bytes of a descriptor, unpacked when they came packed. */
struct input_bytes;
enum input_kind { INPUT_PLAIN = 1, INPUT_PACKED /* by us or by zstd */ };
/* Waits for the first bytes; fd is borrowed, threads as above. Empty input and what is not a stream are ERR_STREAM. Owned. */
int input_bytes_open(struct input_bytes **b, int fd, unsigned threads, struct err *e);
enum input_kind input_bytes_kind(const struct input_bytes *b);
/* From now on: as out_fd above. */
void input_bytes_watch(struct input_bytes *b, int out_fd);
uint64_t input_bytes_count(const struct input_bytes *b); /* as they came, before unpacking */
/* Stores 1 to n bytes; *got 0: end of input. Does not look whether the stream is whole: feed it to a stream_in. */
int input_bytes_read(struct input_bytes *b, void *p, size_t n, size_t *got, struct err *e);
/* From any thread: this and all later reads fail at once, ERR_SYSTEM with ECANCELED. */
void input_bytes_wake(struct input_bytes *b);
void input_bytes_close(struct input_bytes **b);

#endif
