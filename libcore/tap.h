/*
 * tap: asks a recorder, through the socket in its journal's directory.
 *
 * One line each way, words separated by one blank, at most TAP_LINE bytes; then the recorder waits for the next line:
 *
 *   cut                                       cut UUID SEQ      everything up to now is in the batches to SEQ of journal UUID
 *   wait UUID SEQ NAMES BYTES MS SETTLE       ready UUID SEQ NAMES BYTES     so much has changed since that cursor
 *   status                                    status WORD=VALUE...           values with blanks and controls as \ooo
 *   (anything)                                no REASON         it cannot; or: it was not understood, and the line is closed
 *
 * UUID: 32 hex digits. NAMES, BYTES: the least to wait for, 0: that does not count. MS: the longest time to wait in milliseconds.
 * SETTLE: milliseconds for which nothing must have happened before NAMES and BYTES count. BYTES are the sizes of the changed
 * files, each taken once, when it was first looked at: more than what was written where a large file changed a little.
 *
 * May use: clock, bytes, err; makes system calls.
 */
#ifndef REPL_TAP_H
#define REPL_TAP_H

#include "bytes.h"
#include "err.h"

#define TAP_LINE 4096u

struct tap_cut {
	uint8_t journal[16];
	uint64_t seq;
};
/* 1; 0: there is no recorder, or it does not answer in this time, or it cannot: reason says so in one phrase. -1: usage, system. */
int tap_cut(const char *journal_dir, uint64_t timeout_ms, struct tap_cut *c, char reason[256], struct err *e);

/* The same for who can do without: whatever fails is a reason. */
bool tap_try_cut(const char *journal_dir, uint64_t timeout_ms, struct tap_cut *c, char reason[256]);

struct tap_wait {
	struct tap_cut since;
	uint64_t names, bytes, max_ms, settle_ms; /* in */
	uint64_t got_names, got_bytes;            /* out */
	struct tap_cut now;                       /* out: the journal and its last batch; another journal than since: compare */
};
/* Results as above; 1 as well when the time was over. Waits two seconds longer than max_ms for the answer. */
int tap_wait(const char *journal_dir, struct tap_wait *w, char reason[256], struct err *e);

/* The words of the status, owned: "WORD=VALUE" each, unescaped, NUL-terminated, one after the other in text; n of them. */
struct tap_status {
	struct buf text;
	size_t n;
};
int tap_status(const char *journal_dir, uint64_t timeout_ms, struct tap_status *s, char reason[256], struct err *e);
/* The value of a word; NULL: it was not said. Borrowed. */
const char *tap_value(const struct tap_status *s, const char *word);
void tap_status_free(struct tap_status *s);

/* For the recorder: appends " WORD=VALUE". */
void tap_add(struct buf *line, const char *word, const char *value);

#endif
