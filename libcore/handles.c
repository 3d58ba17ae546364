#include "handles.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

struct span handles_span(const struct file_handle *h)
{
	return span_of(h, sizeof *h + h->handle_bytes);
}

int handles_of(int fd, const char *name, struct handles_one *out)
{
	int mount;

	*out = (struct handles_one){.h.handle_bytes = HANDLES_MAX};
	return name_to_handle_at(fd, name ? name : "", &out->h, &mount, name ? 0 : AT_EMPTY_PATH);
}

int handles_path(int fd, struct buf *path, bool *is_cut)
{
	char link[64], text[PATH_MAX];
	AUTO_CLOSE int up = -1;

	*is_cut = false;
	for (;;) {
		snprintf(link, sizeof link, "/proc/self/fd/%d", up < 0 ? fd : up);
		ssize_t n = readlink(link, text, sizeof text);
		if (n > 0 && (size_t)n < sizeof text) {
			buf_reset(path);
			buf_add(path, text, (size_t)n);
			return text[0] == '/' ? 0 : -1;
		}
		if (n < 0 && errno != ENAMETOOLONG)
			return -1;
		*is_cut = true;
		int next = openat(up < 0 ? fd : up, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (next < 0)
			return -1;
		close_fd(&up);
		up = next;
	}
}
