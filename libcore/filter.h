/*
 * filter: include and exclude patterns, with the habits of rsync and .gitignore.
 *
 *   - the first pattern that matches decides; without a match an entry is included
 *   - a pattern without '/' (other than at its end) matches the last component at any depth; with one, the path
 *     from the root (a leading '/' anchors and is dropped); a trailing '/' matches directories only
 *   - '*' any run without '/', '**' any run, '?' one byte but '/', [a-z] [!a-z] classes, '\' quotes
 *   - an excluded directory is not entered
 *   - from a file: one pattern a line, '#' comments, blank lines skipped, '!' or "+ " in front includes, "- " excludes
 *
 * May use: bytes, err. Matches bytes, not characters; no recursion that a pattern could make exponential.
 */
#ifndef REPL_FILTER_H
#define REPL_FILTER_H

#include "bytes.h"
#include "err.h"

struct filter {
	struct filter_rule *rules;
	size_t n;
};
void filter_add(struct filter *f, bool include, struct span pattern);
/* Reads rules from a file's text. ERR_USAGE naming the line. */
int filter_parse(struct filter *f, struct span text, const char *name, struct err *e);
/* Also false when a directory above it is excluded. */
bool filter_accepts(const struct filter *f, struct span path, bool is_dir);
/* The same for a caller who already knows that the directory above was accepted: looks at this entry only. */
bool filter_accepts_child(const struct filter *f, struct span path, bool is_dir);
/* The options --include, --exclude, --exclude-from in their order; tags: '+', '-', 'f'. ERR_USAGE, ERR_SYSTEM. */
int filter_options(struct filter *f, const char *const *v, const char *tags, size_t n, struct err *e);
/* The rules as text that is the same for the same rules, and for no others. */
void filter_text(const struct filter *f, struct buf *text);
void filter_free(struct filter *f);

#endif
