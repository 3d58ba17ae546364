/*
 * gaps: the places below which something may have been missed, with why.
 *
 * May use: mounts (paths), bytes. Memory is bounded: too many of them become one, of everything.
 */
#ifndef REPL_GAPS_H
#define REPL_GAPS_H

#include "bytes.h"

#define GAPS_MAX 256u

struct gaps_row {
	char *path, *reason;
};
struct gaps {
	struct gaps_row *rows;
	size_t n;
};
/* None that lies below another one is kept. */
void gaps_put(struct gaps *g, const char *path, const char *reason);
/* Takes all of `from`. */
void gaps_move(struct gaps *g, struct gaps *from);
void gaps_free(struct gaps *g);

#endif
