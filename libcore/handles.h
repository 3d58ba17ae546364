/*
 * handles: file handles of the kernel (name_to_handle_at(2)), which lead to an object wherever it is by now, as long as it is there.
 *
 * May use: bytes; makes system calls.
 */
#ifndef REPL_HANDLES_H
#define REPL_HANDLES_H

#include <fcntl.h>

#include "bytes.h"

#define HANDLES_MAX 128u /* bytes in a handle: the kernel's MAX_HANDLE_SZ */

struct handles_one {
	struct file_handle h;
	uint8_t bytes[HANDLES_MAX];
};
/* The handle as bytes that can be compared and kept. Borrowed. */
struct span handles_span(const struct file_handle *h);
/* 0, or -1 with errno. name NULL: fd itself. */
int handles_of(int fd, const char *name, struct handles_one *out);
/* The path of an open directory, as /proc tells it; for one whose path is longer than the kernel tells, *is_cut and that of the
 * nearest one above. -1 with errno. */
int handles_path(int fd, struct buf *path, bool *is_cut);

#endif
