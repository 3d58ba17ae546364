/*
 * spill: names of a directory too large for memory, in order, each once: sorted runs in a temporary file, merged when
 * they are read.
 *
 * One file without a name serves all directories of a walk and all its threads; a directory's own runs are one
 * thread's at a time. Its space is given back as directories are done.
 *
 * May use: sorted, file, bytes; makes system calls. Functions that return int return 0 or an errno.
 */
#ifndef REPL_SPILL_H
#define REPL_SPILL_H

#include "sorted.h"

/* Owned; the file itself comes with the first run, in dir (borrowed until spill_close). */
struct spill_file;
struct spill_file *spill_open(const char *dir);
void spill_close(struct spill_file **f); /* all that lie in it were freed */

/* One directory's names. */
struct spill;
/* Sorts the names, writes them as one more run of *s (owned; made when it is NULL) and forgets them. */
int spill_add(struct spill_file *f, struct spill **s, struct sorted *m);
/* What all runs hold together: a name that was listed twice may count twice. */
size_t spill_count(const struct spill *s);
/* Adds the next names in order to m, which is empty, at most max; none at the end. No spill_add after that. EIO when the
 * file lost them. */
int spill_next(struct spill *s, struct sorted *m, size_t max);
void spill_free(struct spill **s);

#endif
