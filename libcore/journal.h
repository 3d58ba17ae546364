/*
 * journal: stand-in until the real one is there.
 */
#ifndef REPL_JOURNAL_H
#define REPL_JOURNAL_H

#include "sink.h"

struct journal {
	int dir, batches, lock;
	uint8_t uuid[16];
	uint64_t last;
	char *path;
	struct stream_out out;
	struct sink sink;
	int fd;
};
int journal_create(struct journal *j, const char *path, const char *const *roots, size_t n, struct err *e);
int journal_begin_batch(struct journal *j, struct stream_out **o, struct err *e);
int journal_end_batch(struct journal *j, struct err *e);
void journal_drop_batch(struct journal *j);
void journal_close(struct journal *j);

#endif
