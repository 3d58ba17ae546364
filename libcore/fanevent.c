#include "fanevent.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/fanotify.h>

#include "record.h"

static int group(unsigned flags)
{
	/* Not FAN_UNLIMITED_QUEUE: when nobody reads, that is all of the kernel's memory. */
	return fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_DFID_NAME | FAN_REPORT_FID |
		FAN_UNLIMITED_MARKS | flags, O_RDONLY | O_CLOEXEC | O_LARGEFILE);
}

int fanevent_group(void)
{
	int fd = group(FAN_REPORT_TARGET_FID);

	return fd < 0 && errno == EINVAL ? group(0) : fd;
}

bool fanevent_decode(const uint8_t *p, size_t left, struct fanevent *ev, size_t *len)
{
	struct fanotify_event_metadata m;

	if (left < sizeof m)
		return false;
	memcpy(&m, p, sizeof m);
	if (m.event_len < sizeof m || m.event_len > left || m.vers != FANOTIFY_METADATA_VERSION)
		return false;
	*len = m.event_len;
	*ev = (struct fanevent){.mask = m.mask, .pid = m.pid};
	for (size_t at = m.metadata_len; at + sizeof(struct fanotify_event_info_header) <= m.event_len;) {
		struct fanotify_event_info_header h;
		memcpy(&h, p + at, sizeof h);
		if (h.len < sizeof h || h.len > m.event_len - at)
			return false;
		size_t body = offsetof(struct fanotify_event_info_fid, handle);
		if (h.info_type == FAN_EVENT_INFO_TYPE_FID || h.info_type == FAN_EVENT_INFO_TYPE_DFID ||
				h.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME) {
			/* Events and their parts are padded to four bytes, so the handle is aligned. */
			const struct file_handle *fh = (const void *)(p + at + body);
			size_t room = h.len - body;
			if (h.len < body + sizeof *fh || fh->handle_bytes > HANDLES_MAX || fh->handle_bytes > room - sizeof *fh)
				return false;
			if (h.info_type == FAN_EVENT_INFO_TYPE_FID)
				ev->obj = fh;
			else
				ev->dir = fh;
			const uint8_t *name = (const uint8_t *)fh + sizeof *fh + fh->handle_bytes;
			if (h.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME)
				ev->name = span_of(name, strnlen((const char *)name, room - sizeof *fh - fh->handle_bytes));
		}
		at += h.len;
	}
	return true;
}

uint8_t fanevent_flags(uint64_t mask)
{
	uint8_t flags = 0;

	if (mask & (FAN_CREATE | FAN_MOVED_TO))
		flags |= CHANGED_NEW;
	if (mask & (FAN_DELETE | FAN_MOVED_FROM))
		flags |= CHANGED_GONE;
	if (mask & (FAN_MODIFY | FAN_CLOSE_WRITE))
		flags |= CHANGED_CONTENT;
	if (mask & FAN_ATTRIB)
		flags |= CHANGED_META;
	/* What a directory brings along, or takes away, has no events of its own. Away as well: who looks at an older image of the tree
	 * finds it under the old name, and things in it that changed are told under the new one. */
	if (mask & FAN_ONDIR && mask & (FAN_CREATE | FAN_MOVED_TO | FAN_MOVED_FROM))
		flags |= CHANGED_SUBTREE;
	return flags;
}
