/*
 * source: what a command line or a state names as OLD and NEW, opened.
 *
 * An OLD that is a directory is digested, one that is an image file is loaded, both into a catalog that has no name any more and
 * goes with the process.
 *
 * May use: diff, image, input, err.
 */
#ifndef REPL_SOURCE_H
#define REPL_SOURCE_H

#include "diff.h"

/* A private catalog in tmpdir without a name: empty, or a copy of `of`. */
int source_scratch(struct catalog **c, const char *tmpdir, struct catalog *of, struct err *e);
/* The content of an open image stream into an empty private catalog; its stamps and id stay in it. in stands before its first
 * event. ERR_STREAM for another kind of stream. */
int source_load(struct catalog *c, struct input *in, struct err *e);
/* Digests a directory into an empty private catalog. settings: filter, grain, threads, tmpdir, warn, progress, one_file_system. */
int source_digest(struct catalog *c, const struct walk_root *roots, size_t n, const struct diff *settings, struct err *e);

/* A plan that nobody keeps. */
int source_nowhere(void *ctx, const struct span *v, int n, struct err *e);

#endif
