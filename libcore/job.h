/*
 * job: what repl-apply was asked to do, and one replica at which it does so: the settings, what could not be kept, the answer.
 *
 * May use: replica, stage, land, history, confine, prefetch, stream, sink, err.
 */
#ifndef REPL_JOB_H
#define REPL_JOB_H

#include <time.h>

#include "history.h"
#include "input.h"
#include "land.h"
#include "prefetch.h"
#include "sink.h"
#include "stage.h"

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
	struct meta_policy policy;
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
	const char *const *places; /* NAME=PATH */
	size_t n_places;
	bool confine;            /* give up everything else before the first byte is read (confine.h) */
	bool is_live;            /* deltas come as they are made: one that does not fit is an error at once, not when the input ends */
	uint64_t checkpoint;     /* bytes of the stream after which what came is made durable, for partial.h; 0: never */
	/* out */
	uint64_t n_deltas, n_created, n_changed, n_removed, bytes;
};
#define MAX_LOSSES 32

struct loss {
	char kind[32];
	uint64_t count;
	char example[512];
};

struct job {
	struct apply *a;
	struct replica r;
	struct warn warn;
	struct loss losses[MAX_LOSSES];
	size_t n_losses;
	bool is_ours;            /* what comes is of the history, and may lead back */
	enum land_left left;     /* what the run before had left */
	int (*landed)(struct job *j, struct err *e); /* after each delta that was applied; may be NULL */
	struct err missed;       /* the first delta of the input that did not fit, until one does */
	/* the delta under way */
	bool skip;               /* not for this base: read to its end to learn whether it was applied before */
	bool is_first;           /* the next record is the first one */
	bool is_staged;          /* stage and plan are this delta's */
	bool is_rest;            /* part of it was staged by another process */
	bool is_again;           /* the records come from the plan that is there already */
	uint64_t saved_off;      /* of the last checkpoint */
	uint64_t saved_ms;
	uint64_t checkpoint;     /* see struct apply; 0 when the deltas come from here */
	bool is_cut;             /* the input broke off */
	bool has_delta, has_end, has_root;
	struct digest base, current, want;
	struct r_image stamps;
	uint64_t seq;
	uint8_t instance[16];
	int64_t time_ns;
	uint64_t *refs, n_refs, cap_refs; /* number in the stream -> base object, or 0 for a new one */
	struct prefetch soon;    /* which of the base's rows the next records ask for */
	uint64_t cur;            /* base object that is current; 0: a new one */
	bool cur_is_file, cur_has_meta;
	struct r_meta cur_meta;  /* without its spans */
	bool cur_is_plain;
	uint64_t cur_dir;        /* see struct stage_file */
	char cur_name[REC_NAME_MAX + 1];
	struct where_row *place; /* where a new volume is to stand; NULL: in the replica */
	struct where_row *tree;  /* to which of those elsewhere a new one belongs; NULL: to none */
	bool place_is_free;      /* nothing of the base is there */
	uint64_t n_content, announced;
	uint64_t bytes;          /* of content that came */
	uint64_t memory, content; /* what the delta costs so far: see charge, charge_content */
	uint64_t last_parent;
	struct stage stage;
	struct sink sink;
	struct stream_out plan;
	int plan_fd;
	struct catalog *next;    /* adopting: what the scan fills */
};

void job_start(struct job *j, struct apply *a);
/* Discards what was not decided when rc is not 0; gives rc back. */
int job_end(struct job *j, int rc);
/* Gives up all of the system that is not needed; into: another directory that is (NULL: none). */
int job_confine(struct job *j, const char *into, struct err *e);
void job_say(struct job *j, const char *text);
/* One acknowledgement with the losses so far. */
int job_acknowledge(struct job *j, uint8_t action, const struct digest *id, uint64_t created, uint64_t changed, uint64_t removed,
	uint64_t bytes, struct err *e);

#endif
