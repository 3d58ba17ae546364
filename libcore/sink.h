/*
 * sink: stream bytes to a descriptor, gathered into large writes.
 *
 * May use: stream, clock, bytes, err; writes descriptors.
 */
#ifndef REPL_SINK_H
#define REPL_SINK_H

#include "stream.h"

struct sink {
	int fd;            /* borrowed */
	const char *name;  /* for messages: "standard output" */
	bool is_awaited;   /* somebody works on what comes: while more follows, nothing is gathered for long. Of a file the same bytes
	                    * are the same writes each time otherwise */
	struct buf b;
	uint64_t written;
	uint64_t since_ms; /* private: what is gathered began then; 0: nothing is */
};
/* A stream_sink; ctx is a struct sink. */
int sink_write(void *ctx, const struct span *v, int n, struct err *e);
int sink_flush(struct sink *s, struct err *e);
void sink_free(struct sink *s);

#endif
