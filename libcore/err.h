/*
 * err: what went wrong, in one line, for the person who reads it and the script that branches on it.
 *
 * The function nearest the cause fills a struct err; callers pass it up unchanged. Nothing here prints.
 * May use: plain C. Invariant: once set, the first cause stays (err_set on a set error does nothing).
 */
#ifndef REPL_ERR_H
#define REPL_ERR_H

#include <stdbool.h>
#include <stddef.h>

/* The numbers are the exit statuses of every program (repl(7), "EXIT STATUS"); they never change. */
enum err_kind {
	ERR_NONE = 0,
	ERR_SYSTEM = 1,     /* space, permission, I/O; also a broken invariant of ours: a retry may help */
	ERR_USAGE = 2,      /* the command line or a configuration file */
	ERR_INCOMPLETE = 3, /* finished, but something was left out */
	ERR_STREAM = 4,     /* damaged, cut short, unsupported: do not retry these bytes */
	ERR_MISMATCH = 5,   /* a sound stream for another base */
	ERR_REFUSED = 6,    /* by policy or limit */
	ERR_GAP = 7,        /* a tracking gap that nothing closed */
	ERR_BUSY = 8,       /* somebody else holds the lock */
	ERR_TIMEOUT = 9,    /* the time window ended; can be resumed */
};

struct err {
	enum err_kind kind;
	int sys; /* errno, or 0 */
	bool is_cut; /* the input broke off: what came before is sound, and the rest may come later */
	char text[1024];
};

/* Records a cause; always returns -1, so that `return err_set(...)` reads well. */
int err_set(struct err *e, enum err_kind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* As err_set with ERR_SYSTEM, and ": " plus the text of errno (borrowed at entry) at the end. */
int err_sys(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void err_clear(struct err *e);

/* Warnings: an engine reports what it had to leave out through a callback that `cli` supplies.
 * `kind` groups equal warnings ("xattr", "vanished"); text is one line without program name. */
struct warn {
	void (*say)(void *ctx, const char *kind, const char *text);
	void *ctx;
};
void warn_say(const struct warn *w, const char *kind, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
