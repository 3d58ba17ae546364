/*
 * stage: one file's content as a delta describes it, put together beside the replica and checked as it comes.
 *
 * A patch starts as a clone of the base's file, or where there are none as a list of pieces (redo.h) or, of a small one, as a
 * copy; anything else as one hole. Extents come in ascending order. The digest of
 * every block of the file's grid is known in the end without reading anything back that need not be: from the DATA record that
 * covered it, from the catalog where nothing touched it, or from the staged file where an extent cut through it. So the
 * file's digest is proved before anything of the replica has changed. What has to be read for that is announced to the kernel
 * first, many blocks at a time.
 *
 * Of a volume that stands elsewhere (where.h) a patch is a list of pieces always, and a new one is written to its place at once.
 * What belongs to a tree elsewhere is staged in that one's room. A new file in a new directory is staged in that one, under its own name
 * (room_new_dir), and gets its metadata there: so both land with one rename(2).
 *
 * May use: redo, shifts, replica, catalog, attr, meta, writeback, digest, record, err; makes system calls.
 */
#ifndef REPL_STAGE_H
#define REPL_STAGE_H

#include "redo.h"
#include "replica.h"
#include "shifts.h"

/* Blocks that are described, in the order in which their digests become the file's. */
struct stage_closing {
	uint64_t first, n;    /* blocks */
	uint32_t len;         /* of one that is read; 0: not read */
	unsigned pieces;      /* that redo had when it came */
	bool is_cold;         /* it may have to come from the disk */
	bool is_kept;         /* all as in the base */
	bool has_row;         /* else zeros */
	uint8_t row[DIGESTS_ROW];
};
#define STAGE_WAITING 256u

struct stage {
	struct replica *r;       /* borrowed; catalog shows the base */
	/* Rows of blocks that differ from the base, in order; and how many files were cloned or copied. */
	int (*rows)(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e);
	void *ctx;
	uint64_t bytes_written, bytes_read;
	/* private */
	int fd, base_fd;
	char name[32 + REC_NAME_MAX]; /* in the room's stage/ */
	struct r_meta meta;   /* without its spans */
	bool is_plain;        /* and nothing else is to be set */
	struct r_hint hint;   /* out, of what was sealed last: of a new file in a new directory that has all its metadata; else zeros */
	struct redo redo;
	struct shifts shifts; /* what it took from the base object of its own */
	bool is_in_dir;       /* a new one in a new directory */
	bool is_open, is_patch, is_foreign, touched;
	uint64_t of;          /* the base object whose content is open; 0: a new file's */
	bool is_again;        /* in place of what came before: the rows that differed then are put as well, so all are */
	const struct room *room; /* where the file will stand */
	struct where_row *place; /* of a volume that will stand elsewhere; else NULL */
	bool is_direct;       /* written there at once */
	bool is_redo;         /* redo keeps all content that there is */
	bool has_pieces;      /* redo knows what is not the base's */
	uint32_t grain;
	struct object old;
	struct object src;
	int src_fd;
	uint64_t pos, block, old_blocks;
	uint64_t unsent;      /* bytes written that are not on their way to the disk, */
	uint64_t unsent_sealed; /* and of files that were sealed meanwhile */
	struct writeback *writeback;
	struct digest_tree tree;
	struct stage_closing *waiting; /* STAGE_WAITING: they come after one that is read */
	size_t n_waiting;
	uint8_t row_buf[BLOCKS_ROWS * DIGESTS_ROW];
	uint64_t row_first;
	size_t row_n;
	uint8_t *buf;
	struct digest tail;
	uint64_t tail_len;
};
void stage_start(struct stage *s, struct replica *r);
/* What the stream says of a file before its content. */
struct stage_file {
	const struct object *old; /* the base object when it is one, else NULL */
	const struct room *room;  /* of a new one: where it is to stand */
	struct where_row *place;  /* of a new volume that is to stand elsewhere; else NULL */
	bool is_direct;           /* with place: nothing of the base stands there */
	uint64_t dir;             /* of a new one in a new directory: that one's number in the delta; else 0 */
	struct span in_dir;       /* with dir: its name there */
	const struct r_meta *meta; /* that it is to have: some flags count only before the first byte */
	bool is_plain;            /* that is all, and it may be set before it is known that the file stays */
};
/* Begins the content with stage number n. */
int stage_begin(struct stage *s, uint64_t n, const struct r_content *c, const struct stage_file *f, struct err *e);
int stage_data(struct stage *s, const struct r_data *d, struct err *e);
/* src: the base object that is copied from. */
int stage_copy(struct stage *s, const struct r_copy *c, uint64_t src, struct err *e);
int stage_hole(struct stage *s, const struct r_hole *h, struct err *e);
/* Checks size and digest; closes. ERR_STREAM or, where base content took part, ERR_REFUSED. */
int stage_seal(struct stage *s, const struct r_seal *seal, struct err *e);
void stage_free(struct stage *s);
/* All of a delta is staged: what is not on the disk goes there now, while others work, and what was copied from is closed. The next delta
 * has another base, in which the same number may be another file. */
void stage_end(struct stage *s);
/* Between two records: everything that a later process needs to go on with the file, if there is one that was not sealed yet. */
int stage_save(struct stage *s, struct buf *out, struct err *e);
/* In place of stage_begin: what was written after stage_save is undone. ERR_SYSTEM when it is not there any more. */
int stage_load(struct stage *s, struct rd *in, struct err *e);

#endif
