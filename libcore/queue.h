/*
 * queue: a directory in which packed deltas wait to be sent, one in a file, first in first out.
 *
 *   repl-queue    marker, and flock(2)ed by whoever changes anything
 *   sending       flock(2)ed by who sends
 *   new.PID       a file that is being written, flock(2)ed by its writer
 *   NUMBER-SEQ-BASE-ID.rpl, NUMBER-SEQ-BASE-ID.sent.rpl
 *                 a delta: its place in the queue (16 decimal digits), the number of its image in the state that it is of (0: of none),
 *                 and the first 8 bytes of the ids of the image that it begins at and of its own, in hexadecimal. "sent": it may have
 *                 left, so an answer to it may come.
 *
 * Deltas hang together by their ids: those that follow each other from where the replica is can be sent, one after the other. A new
 * one that begins further back takes the place of those that it does not follow, but for those that may have left: what was begun to
 * be sent is sent again until there is an answer. So each answer is one to a delta that is here.
 *
 * A file appears whole and synced. Files go when the base has passed them, each by itself: a crash meanwhile leaves some more, which
 * do no harm and go the next time.
 *
 * May use: lock, digest, file, bytes, err; makes system calls.
 */
#ifndef REPL_QUEUE_H
#define REPL_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digest;
struct err;

#define QUEUE_ID 8u /* bytes of an id that a name has */

struct queue {
	char *path;
	int fd, lock_fd, send_fd, new_fd;
};
#define QUEUE_NONE ((struct queue){.fd = -1, .lock_fd = -1, .send_fd = -1, .new_fd = -1})
/* create: makes the directory (0700) when it is missing, else a missing one is ERR_USAGE. So is one that holds other things. */
int queue_open(struct queue *q, const char *path, bool create, struct err *e);
bool queue_is_there(const char *path);
void queue_close(struct queue *q);

struct queue_item {
	uint64_t no, seq, bytes;
	int64_t since_ns; /* when it was put here */
	uint8_t base[QUEUE_ID], id[QUEUE_ID];
	bool is_sent;
};
/* Ascending by number. */
struct queue_list {
	struct queue_item *v;
	size_t n;
	uint64_t bytes;
};
int queue_list(const struct queue *q, struct queue_list *l, struct err *e);
void queue_list_free(struct queue_list *l);
/* Leaves those in the list that follow from this base, which is image seq, one after the other. id NULL: from where the first begins. */
void queue_list_follow(struct queue_list *l, const struct digest *id, uint64_t seq);
/* "3 deltas, 4096 bytes, wait in 'Q' since 2026-01-31T12:00:00Z"; of a list that is not empty. */
struct buf;
void queue_list_text(const struct queue_list *l, const char *path, struct buf *text);

/* A new file, to be written; it is nothing until queue_put. The descriptor is borrowed. */
int queue_new(struct queue *q, int *fd, struct err *e);
/* What was written is in the queue, behind all others; base and id are whole. *gone: what it took the place of; queue_list_free. A
 * delta that waits already is not there twice. Durable when it returns. */
int queue_put(struct queue *q, uint64_t seq, const struct digest *base, const struct digest *id, struct queue_list *gone, struct err *e);
/* The file that was begun is not wanted. */
void queue_drop_new(struct queue *q);

/* From now until queue_close only we send: ERR_BUSY. *l: what can be sent now, as queue_list_follow has it; from now on all of it may
 * have left. *n_left (may be NULL): so many wait that cannot be sent. */
int queue_claim(struct queue *q, const struct digest *base, uint64_t seq, struct queue_list *l, size_t *n_left, struct err *e);
/* Its file, to be read, with its name. 1; 0: it is gone; -1. */
int queue_read(const struct queue *q, const struct queue_item *i, int *fd, struct buf *name, struct err *e);

/* The base is this image: what does not follow from it goes. Durable when it returns. */
int queue_prune(struct queue *q, const struct digest *id, uint64_t seq, uint64_t *n_gone, struct err *e);

/* "100" files or "1G" bytes: the other is 0. */
bool queue_limit(const char *text, uint64_t *files, uint64_t *bytes);

#endif
