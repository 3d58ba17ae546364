/*
 * follow: waits until enough has changed since the last image; and goes on from image to image as changes settle.
 *
 * Both ask the recorder whose journal the state remembers, and do with the clock alone where none answers.
 *
 * Following is repl-snap and repl-track in a loop: image, list of changes, image, ... Each list begins at the image before it, whether
 * or not an answer came to that. The next image is opened once repl-diff has made its delta of the last one: it may be that far
 * ahead of us, and no further. What changes meanwhile is one list then, however much it is.
 *
 * May use: snap, track, pending, state, head, tap, sink, input, file, path, clock, err; makes system calls.
 */
#ifndef REPL_FOLLOW_H
#define REPL_FOLLOW_H

#include "snap.h"

struct track;

struct follow_wait {
	struct state *state;   /* borrowed */
	uint64_t interval_ms;  /* since the last image; 0: that does not count */
	uint64_t names, bytes; /* 0: that does not count */
	void (*say)(void *ctx, int level, const char *text); /* level as in cli_say */
	void *ctx;
	uint64_t got_names, got_bytes; /* out, as far as the recorder said */
};
/* Returns when one of them is reached since the last image, acknowledged or not; at once when there is none, or when the recorder
 * cannot tell. ERR_GAP: no recorder answers, and there is no interval. */
int follow_wait(struct follow_wait *w, struct err *e);

struct follow {
	struct state *state;   /* borrowed; follow_run takes its lock for followers: ERR_BUSY */
	struct snap snap;      /* members, or none: those of the base; settings but for note */
	struct track *track;   /* settings, and out: stats */
	struct sink *out;
	uint64_t settle_ms;    /* so long nothing must have changed before an image is opened */
	uint64_t interval_ms;  /* without a recorder: look so often */
	uint64_t alive_ms;     /* after so long an image without any change; 0: never */
	void (*say)(void *ctx, int level, const char *text);
	void *ctx;
	uint64_t images;       /* out */
	/* private */
	struct head last;      /* of the last image that went out */
	struct r_cursor keeps;
	bool has_keeps, has_delta; /* the last image's delta was made */
	char reason[256];      /* why the recorder did not answer, as it was said last */
};
/* Until nobody reads the output any more (ERR_SYSTEM, EPIPE) or something fails. */
int follow_run(struct follow *f, struct err *e);
void follow_free(struct follow *f);

#endif
