/*
 * delta: the work of repl-diff: from OLD and NEW, or from a state and a change stream, to a delta on a sink.
 *
 * May use: diff, source, state, pending, clones, snapshots, head, image, input, volume, clock, err.
 */
#ifndef REPL_DELTA_H
#define REPL_DELTA_H

#include "clones.h"
#include "diff.h"
#include "snapshots.h"
#include "source.h"

struct delta {
	struct diff diff;          /* settings filled by the caller; this module fills base, roots, stamps, members, next, ready */
	int fd;                    /* where the delta goes */
	const char *out_name;      /* for messages */
	const char *image;         /* --image: also write the target as an image file; NULL: no */
	int64_t time_ns;           /* stateless: the stamp; 0: none */
	unsigned lock_wait;
	void (*note)(void *ui, const char *text); /* what is done otherwise than one may think, for -v */
	struct clones clones;      /* with a state: least filled by the caller, UINT64_MAX: none are made; made and why are out */
	void *ui;                  /* the caller's, also for diff.progress, whose ctx is this struct */
	/* out */
	bool differs;
	uint64_t written;
	uint64_t n_deltas;
	/* private */
	const char *new;
	struct state *state;
	struct catalog *base, *next;
	struct snapshots was; /* the base's */
	uint64_t base_seq;
	bool live, is_chained;
	bool is_tip; /* the base is an image that waits for its answer */
	char *plan_tmp;
	char view[33];
	int plan_fd;
	struct sink *plan_sink;
};
/* old: a directory, an image file, "-" for an image on standard input, or NULL for nothing. new: a directory; or a volume, a file or
 * block device that is no stream, and then old may be one, too, which counts as the same by another name. wanted: what
 * repl-apply --verify --wanted wrote about a replica that holds old; NULL: the whole delta. */
int delta_two(struct delta *d, const char *old, const char *new, struct input *wanted, struct err *e);
/* The change stream or image stream in `in` (NULL: scan by ourselves) against the base of the state at path. A change stream
 * that says what a replica wants makes a delta that mends it; where the trees are, the base itself says.
 * Where the image follows one that waits for its answer (pending.h) the delta begins at that.
 * Where more streams follow on `in` each makes a delta of its own, which begins where the one before ends, whether or not an answer
 * came to that; the state is locked for one at a time. While too many are without an answer, it waits. */
int delta_state(struct delta *d, const char *path, struct input *in, struct err *e);

#endif
