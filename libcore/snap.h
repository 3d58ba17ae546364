/*
 * snap: opens an image of live trees, and closes it when the replica acknowledged it.
 *
 * A live image is a promise about stamps, not a copy: everything written before its instant is on the filesystem with a time
 * that tells (syncfs first), so that what is written after can be seen by its stat. Where something can
 * take snapshots of the members, the image can be those (provider.h).
 *
 * Round the instant applications can be asked to be still, and filesystems be frozen; both is undone whatever becomes of us (guard).
 *
 * May use: state, pending, backlog, snapshots, clones, head, catalog, image, input, tap, guard, freeze, volume, clock, err.
 */
#ifndef REPL_SNAP_H
#define REPL_SNAP_H

#include "backlog.h"
#include "head.h"
#include "state.h"

enum snap_provider {
	SNAP_AUTO,  /* snapshots where they show what the members' paths show, else live */
	SNAP_LIVE,
	SNAP_BTRFS, /* snapshots; ERR_USAGE where there can be none */
	SNAP_REFLINK, /* trees of clones; the same */
	SNAP_EXEC,  /* snapshots that a program makes (snapexec.h) */
};

struct snap {
	struct state *state;    /* borrowed; NULL: stateless. ERR_BUSY while somebody else follows the trees */
	unsigned lock_wait;     /* seconds */
	bool has_time;          /* else: now */
	int64_t time_ns;
	const char *bookmark, *group; /* NULL: none */
	uint64_t cut_timeout_ms; /* that the recorder gets whose journal the state remembers */
	enum snap_provider provider; /* stateless: always live */
	const char *program;    /* of SNAP_EXEC, with the state's run; an absolute path */
	/* What was done otherwise than one may think; level as in cli_say. May be NULL. */
	void (*note)(void *ctx, int level, const char *text);
	void *ctx;
	/* Round the instant; NULL and false: nothing. */
	const char *quiesce, *resume; /* commands */
	bool is_freeze;         /* of the members' filesystems, which some snapshots do not need, and do not get */
	bool is_crash_enough;   /* an image also when the quiesce command fails */
	uint64_t quiesce_ms, freeze_ms; /* that each command gets; that filesystems may be frozen */
	int log_fd, out_fd;     /* where commands print, and what the image goes to: neither may be on what is frozen */
	struct backlog backlog; /* what waits for the line, and what that means for the image; settings; backlog.h */
	struct err undone;      /* out: what could not be let go again, whether or not there is an image */
	uint64_t quiesced_ns, frozen_ns; /* out */
	struct head head; /* out; members from snap_members. snap_free */
};
/* ROOT or NAME=ROOT each: a single ROOT is the image's root itself, several stand below it, sorted by name. ERR_USAGE. */
int snap_members(struct snap *s, const char *const *args, size_t n, struct err *e);
/* The instant: stamps the head, syncs the members' filesystems. With a state: next number, saved as the image under way; where the
 * state remembers a recorder's journal, the head says how far that was before the instant. ERR_TIMEOUT: the quiesce command took too
 * long, or what was frozen had to be thawed before the instant was over. ERR_REFUSED: we would freeze what we write to. */
int snap_open_image(struct snap *s, struct err *e);
void snap_free(struct snap *s);


/* Writes the catalog as a whole image stream under this head, which the caller finishes; the id is the catalog's. */
int snap_write_image(struct catalog *c, const struct head *h, struct stream_out *o, struct err *e);
/* The whole image that a replica holds, from its catalog. Others may change it again by the time the stream ends. 1; 0 when path is no replica; -1. */
int snap_replica_image(const char *path, struct stream_out *o, struct err *e);

struct snap_acks {
	uint64_t timeout_ms; /* in: as of an input */
	const char *queue;   /* in: what the base has passed goes from it; NULL: none */
	uint64_t committed, already, held, removed;
};
/* Acknowledgements until the end of input; each stream counts once its trailer came. What the replica could not keep is a
 * warning, kind "loss". acks is {0} but for its settings. ERR_STREAM: nothing came or not all, ERR_MISMATCH: for another image. */
int snap_commit(struct state *s, int fd, unsigned lock_wait, const struct warn *warn, struct snap_acks *acks, struct err *e);

/* The image stream in fd becomes the state's base: what the replica holds, by its own word. id: which one that is. */
int snap_adopt(struct state *s, int fd, unsigned lock_wait, struct digest *id, struct err *e);

/* The image under way once more, into the head. Its snapshots are found again. */
int snap_again(struct state *s, unsigned lock_wait, struct head *h, struct err *e);

/* Forgets the image under way, and what was kept for it. */
int snap_abort(struct state *s, unsigned lock_wait, struct err *e);

/* What the state holds, and what waits in its queue (NULL: none), as lines of text or one JSON object. */
int snap_list(const struct state *s, const char *queue, bool json, struct buf *out, struct err *e);

#endif
