/*
 * fanevent: a fanotify group, and what the records say that are read from it (fanotify(7)).
 *
 * May use: handles, record, bytes; makes one system call.
 */
#ifndef REPL_FANEVENT_H
#define REPL_FANEVENT_H

#include "handles.h"

/* A new group, which reports names, directories and objects by their handles: owned; -1 with errno. Which object a name was given to
 * or taken from is told since Linux 5.17 (FAN_REPORT_TARGET_FID of fanotify_init(2)); before, only what is written has one. */
int fanevent_group(void);
/* dir, obj and name point into the record: NULL and empty where it has none. */
struct fanevent {
	uint64_t mask;
	int pid;
	const struct file_handle *dir, *obj;
	struct span name;
};
/* Decodes the first of left bytes; *len: of the record. False: it makes no sense, which the kernel does not do. p: aligned to four
 * bytes. */
bool fanevent_decode(const uint8_t *p, size_t left, struct fanevent *ev, size_t *len);
/* The flags of a CHANGED record (CHANGED_NEW and so on); 0: nothing that counts. */
uint8_t fanevent_flags(uint64_t mask);

#endif
