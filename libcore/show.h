/*
 * show: stream events as lines of text or of JSON, for people and scripts (repl-show(1)).
 *
 * One generic printer, driven by the field tables of `record`: what a record holds and what its fields are called
 * is written there and nowhere else. Content bytes are never printed, only counted; xattrs by name and length;
 * DIGESTS rows by number.
 *
 * Text: "type key=value ...". Names stand in single quotes, escaped (bytes.h, esc_name), so a line is safe for a
 * terminal and can be cut at its blanks outside quotes; '-' is a value that is not there.
 * JSON: one object a line, in ASCII. A byte of a name that is not valid UTF-8 becomes the lone surrogate \udcXX, as
 * Python's "surrogateescape" reads it. Numbers are exact (up to 2^64 - 1), times are raw, words are lower case.
 *
 * Paths are put together from the names that went by. They are kept in SHOW_NAMES_MAX bytes of memory; objects beyond
 * are printed by number alone.
 *
 * May use: stream, stamp, record, bytes. Does no I/O: lines go to a callback. Invariant: the same events make the same lines.
 */
#ifndef REPL_SHOW_H
#define REPL_SHOW_H

#include "stream.h"

#define SHOW_NAMES_MAX (16u * 1024 * 1024)
#define SHOW_DEPTH_MAX 1024 /* names in a path that is printed */

/* One line without its newline; borrowed until return. */
typedef void (*show_line)(void *ctx, const char *text, size_t len);

struct show {
	/* settings */
	bool json;
	show_line line;
	void *ctx;
	/* private */
	struct buf out, path;
	struct show_node *nodes;
	size_t n_nodes, cap_nodes;
	struct buf names;
};
/* Prints what stream_next gave: STREAM_BEGIN, STREAM_RECORD or STREAM_END. */
void show_event(struct show *w, enum stream_event event, const struct stream_in *s);
/* Records that belong to a stream's opening (repl-show -n). */
bool show_is_opening(uint16_t type);
void show_free(struct show *w);

#endif
