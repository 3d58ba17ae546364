/*
 * tape: a change stream in a temporary file without a name, to be gone through as often as needed.
 *
 * May use: sink, input, stream, file, err.
 */
#ifndef REPL_TAPE_H
#define REPL_TAPE_H

#include "input.h"
#include "sink.h"

struct tape { /* tape_free; {.fd = -1} is none */
	int fd;
	struct stream_out out; /* takes the records between tape_open and tape_close */
	struct sink sink;
};
/* ERR_SYSTEM. tmpdir is borrowed until it returns. The struct stays where it is until tape_free. */
int tape_open(struct tape *t, const char *tmpdir, struct err *e);
/* Ends the stream, with its END record. */
int tape_close(struct tape *t, struct err *e);
/* From the start; in->s.rec shows the first record. One at a time. Then input_close. */
int tape_read(struct tape *t, struct input *in, struct err *e);
void tape_free(struct tape *t);

#endif
