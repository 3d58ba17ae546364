#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 4, 0)))
static void err_fill(struct err *e, enum err_kind kind, int sys, const char *fmt, va_list ap)
{
	if (!e || e->kind != ERR_NONE)
		return;
	e->kind = kind;
	e->sys = sys;
	int n = vsnprintf(e->text, sizeof e->text, fmt, ap);
	if (sys && n >= 0 && (size_t)n < sizeof e->text)
		snprintf(e->text + n, sizeof e->text - (size_t)n, ": %s", strerror(sys));
}

int err_set(struct err *e, enum err_kind kind, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_fill(e, kind, 0, fmt, ap);
	va_end(ap);
	return -1;
}

int err_sys(struct err *e, const char *fmt, ...)
{
	va_list ap;
	int sys = errno;

	va_start(ap, fmt);
	err_fill(e, ERR_SYSTEM, sys, fmt, ap);
	va_end(ap);
	errno = sys;
	return -1;
}

void err_clear(struct err *e)
{
	e->kind = ERR_NONE;
	e->sys = 0;
	e->text[0] = '\0';
}

void warn_say(const struct warn *w, const char *kind, const char *fmt, ...)
{
	va_list ap;
	char text[1024];

	if (!w || !w->say)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	w->say(w->ctx, kind, text);
}
