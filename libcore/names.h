/*
 * names: what changed since the last batch, coalesced: each (directory, name) once, with everything that happened to it or-ed.
 *
 * Directories and objects are numbers that the event source gives. May use: words, bytes.
 */
#ifndef REPL_NAMES_H
#define REPL_NAMES_H

#include "words.h"

struct names_row {
	uint32_t obj;     /* the object that the last event with one spoke of; 0: none did */
	uint8_t flags;    /* CHANGED_* */
	bool is_written;  /* the last event was about content or metadata, not about the name coming or going */
};
struct names {
	struct words words; /* u32 directory, name */
	struct names_row *rows;
	size_t cap;
};
struct names_row *names_put(struct names *s, uint32_t dir, struct span name);
static inline uint32_t names_count(const struct names *s) { return s->words.n; }
/* i from 0 on; borrowed until the next put. An empty name: the directory itself. */
struct span names_at(const struct names *s, uint32_t i, uint32_t *dir);
size_t names_size(const struct names *s);
void names_reset(struct names *s);
void names_free(struct names *s);
/* All of them, grouped by directory: owned array of names_count() numbers for names_at; starts[d] is where directory d
 * (of n_dirs, from 1) begins in it, starts[n_dirs + 1] its end. */
uint32_t *names_by_dir(const struct names *s, uint32_t n_dirs, uint32_t **starts);

#endif
