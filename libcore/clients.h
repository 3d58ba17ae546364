/*
 * clients: the recorder's end of the socket: who is connected, and which line came. The lines are those of tap.h.
 *
 * Nobody there can do harm: lines, connections and the time without a line are limited, answers that nobody reads are dropped.
 *
 * May use: bytes, err; makes system calls.
 */
#ifndef REPL_CLIENTS_H
#define REPL_CLIENTS_H

#include <poll.h>

#include "bytes.h"
#include "err.h"

#define CLIENTS_MAX 64u
#define CLIENTS_LINE 256u         /* longest question */
#define CLIENTS_IDLE_MS 30000u    /* without a question */

enum { CLIENT_IDLE, CLIENT_CUT, CLIENT_WAIT }; /* what it waits for */
struct client {
	int fd;                   /* -1: free */
	uint64_t seen_ms;         /* last line */
	char line[CLIENTS_LINE];
	size_t len;
	/* the owner's */
	int asked;
	bool is_marked;           /* a marker was sent after it asked */
	uint8_t uuid[16];
	uint64_t seq, names, bytes, until_ms, settle_ms;
};
struct clients {
	int fd;                   /* -1: not open */
	int dir;                  /* borrowed */
	struct client v[CLIENTS_MAX];
};
/* Makes `socket` in the directory dir, which stays borrowed; an old one is replaced. */
int clients_open(struct clients *c, int dir, struct err *e);
void clients_close(struct clients *c);
/* Fills CLIENTS_MAX + 1 entries at most; returns how many. */
size_t clients_fds(const struct clients *c, struct pollfd *p);
/* After a poll of those entries: takes connections and lines. on_line gets each line without its end, while asked is CLIENT_IDLE. */
void clients_serve(struct clients *c, const struct pollfd *p, size_t n, uint64_t now_ms,
	void (*on_line)(void *ctx, struct client *k, char *line), void *ctx);
/* Sends a line (its end is added) and is idle. */
void clients_answer(struct client *k, const char *text, uint64_t now_ms);
void clients_drop(struct client *k);

#endif
