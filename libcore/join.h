/*
 * join: several lists of changes become one: repl-track --merge.
 *
 * A list is a change stream, or all batches of a journal. Its members say what it is about. Lists of the same members, as of
 * several machines that write one filesystem, become their union; lists of different members, as of the parts of a group,
 * stand beside each other, each below its name. The first list leads: its stamps and its cursor are those of the result.
 *
 * May use: journal, merge, changes, stream, file, value, err.
 */
#ifndef REPL_JOIN_H
#define REPL_JOIN_H

#include "stream.h"

struct join {
	const char *const *lists; /* borrowed: a file, "-", the directory of a journal, or DIR:UUID:SEQ: what came behind that batch */
	size_t n;
	int in;                   /* what "-" is; borrowed */
	struct stream_out *out;
	const char *tmpdir;
	const struct warn *warn;
	uint64_t names;           /* out: written */
};
/* Writes the whole stream. ERR_USAGE: too many, or standard input twice, or a directory that is no journal; ERR_STREAM: one is
 * not whole or out of order; ERR_MISMATCH: they are about trees that do not go together. */
int join_run(struct join *j, struct err *e);

#endif
