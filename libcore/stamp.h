/*
 * stamp: the stamps of an image as people write and read them.
 *
 * May use: record, json, bytes.
 */
#ifndef REPL_STAMP_H
#define REPL_STAMP_H

#include "record.h"

/* RFC 3339 with a zone ("2026-01-31T12:00:00Z"), or @seconds since 1970. Fractions are kept. */
bool stamp_parse(const char *text, int64_t *ns);
/* "2026-01-31T12:00:00Z", or "-" for 0. */
void stamp_time(struct buf *b, int64_t ns);
/* By their numbers in IMAGE (repl-stream(5)). */
#define STAMP_PROVIDERS 5u
#define STAMP_CONSISTENCIES 4u
extern const char *const stamp_providers[STAMP_PROVIDERS], *const stamp_consistencies[STAMP_CONSISTENCIES];
/* A line: what, id, number, time, how consistent, from which provider, and bookmark. id may be NULL. */
void stamp_text(struct buf *b, const char *what, const struct digest *id, const struct r_image *s);
/* The same as a JSON member named what. */
void stamp_json(struct buf *b, const char *what, const struct digest *id, const struct r_image *s);

#endif
