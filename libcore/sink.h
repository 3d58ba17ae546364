/*
 * sink: stream bytes to a descriptor, gathered into large writes.
 *
 * May use: stream, bytes, err; writes descriptors.
 */
#ifndef REPL_SINK_H
#define REPL_SINK_H

#include "stream.h"

struct sink {
	int fd;            /* borrowed */
	const char *name;  /* for messages: "standard output" */
	struct buf b;
	uint64_t written;
};
/* A stream_sink; ctx is a struct sink. */
int sink_write(void *ctx, const struct span *v, int n, struct err *e);
int sink_flush(struct sink *s, struct err *e);
void sink_free(struct sink *s);

#endif
