/*
 * apply: deltas from a stream onto a replica, each staged, verified, landed and acknowledged on its own.
 *
 * What came of a delta whose input breaks off is kept, so that only the rest need come again.
 *
 * May use: input, stage, partial, land, replica, confine, image, stream, token, err. Nothing outside .repl changes before a delta is
 * whole and verified.
 */
#ifndef REPL_APPLY_H
#define REPL_APPLY_H

#include "history.h"
#include "input.h"
#include "land.h"
#include "token.h"

struct apply {
	const char *path;        /* the replica */
	struct input *in;        /* opened; NULL with adopt */
	struct stream_out *ack;  /* acknowledgements; NULL: to nobody */
	bool dry;
	uint64_t max_delete;     /* names; UINT64_MAX: no limit */
	unsigned max_delete_percent; /* 100: no limit */
	struct history_keep keep; /* {0}: no undo is made */
	uint64_t max_memory;     /* for what grows with the number of names in a delta; 0: no limit */
	uint64_t max_content;    /* bytes of content in one delta, sent and copied; 0: no limit */
	struct attr_policy policy;
	const struct owner_rule *owners;
	size_t n_owners;
	bool map_names;
	const struct warn *warn; /* borrowed; losses are counted on the way through and acknowledged */
	void (*item)(void *ctx, const char *code, struct span path);
	enum edits_mode edited;  /* what becomes of local edits that a delta meets */
	void (*kept)(void *ctx, struct span path, const char *to);
	void (*progress)(void *ctx, uint64_t bytes, uint64_t total, uint64_t items);
	void (*note)(void *ctx, const char *text); /* what happened, for -v */
	void *ctx;
	const char *tmpdir;
	bool confine;            /* give up everything else before the first byte is read (confine.h) */
	uint64_t checkpoint;     /* bytes of the stream after which what came is made durable, for partial.h; 0: never */
	/* out */
	uint64_t n_deltas, n_created, n_changed, n_removed, bytes;
};
int apply_run(struct apply *a, struct err *e);
/* The image that `which` names (see history_find) takes the place of the current one; the way there is kept as a way back.
 * time_ns: what `which` says when it is a time, else 0. */
int apply_rollback(struct apply *a, const char *which, int64_t time_ns, struct err *e);
/* The same image as a replica of its own in `into`, missing or empty; nothing of the replica changes. */
int apply_at(struct apply *a, const char *which, int64_t time_ns, const char *into, struct err *e);
/* Takes a directory with content as it is, also a replica that was edited: digests it into a catalog, acknowledges what it holds. */
int apply_adopt(struct apply *a, struct err *e);
/* Sets all metadata again as the catalog has it, for who may do more than those who applied the deltas; reads no input. */
int apply_restore(struct apply *a, struct err *e);
/* Acknowledges what the replica holds, when an earlier answer was lost. ERR_REFUSED: no replica, ERR_MISMATCH: it is empty. */
int apply_answer(struct apply *a, struct err *e);
/* Where the delta goes on that broke off. ERR_MISMATCH: none did. */
int apply_token(struct apply *a, struct token *t, struct err *e);

#endif
