/*
 * confine: gives up, for good, the right to touch any file but those below a few directories: Landlock, landlock(7).
 *
 * What was opened before stays usable; threads that begin later are confined too. The kernel's newest rules are used as far as
 * it has them: no TCP (ABI 4), no ioctl on devices that are opened later (5), no signals to and no abstract sockets of
 * processes outside (6). Without Landlock, or with its first version, which cannot rename from one directory to another, nothing
 * is done: this is one wall more, never the only one.
 *
 * May use: err; makes system calls.
 */
#ifndef REPL_CONFINE_H
#define REPL_CONFINE_H

#include "err.h"

struct confine_dir {
	const char *path; /* one that cannot be opened is left out */
	bool read_only;   /* also for a single file */
	bool no_devices;  /* nodes may not be made below it */
};
/* Another call narrows further. Returns the ABI that is in force, 0 when there is none that will do, or -1. */
int confine_to(const struct confine_dir *dirs, size_t n, struct err *e);

#endif
