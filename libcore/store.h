/*
 * store: ordered tables in one file. The only module that names LMDB.
 *
 * A table is a set of rows (key -> value) in byte order of their keys. What a store hands out is its own copy: no pointer
 * into the file leaves this module, and no cursor outlives a call. The caller holds a lock of its own over the file (LMDB's own
 * locking is off).
 *
 * Each value carries a check over table, key and value, and rows come in order, so that whatever happened to the file a row that is
 * handed out is one that was written. That none is missing, and that none is an older one, the digests have to tell (seal).
 *
 * A private store (a scratch file, a copy) is not synced and commits as it goes, so that memory stays bounded whatever the size of
 * the change; a live one changes in a single transaction, all or nothing.
 *
 * May use: bytes, err; makes system calls.
 */
#ifndef REPL_STORE_H
#define REPL_STORE_H

#include "bytes.h"
#include "err.h"

#define STORE_KEY_MAX 511u /* bytes in a key: LMDB's limit as Debian and others build it */

/* What the tables hold is told by who fills them: rows, chunks, seal, catalog. */
enum store_table {
	STORE_NAMES, STORE_LINKS, STORE_OBJECTS, STORE_BLOCKS, STORE_INODES, STORE_FACTS, STORE_DIRTY, STORE_DIRTYQ,
	STORE_ORPHANS, STORE_SPREAD, STORE_LOOSE, STORE_TABLES
};
enum store_mode {
	STORE_READ,    /* must exist; nothing is written, not even a lock file */
	STORE_LIVE,    /* created when missing; one durable transaction at a time */
	STORE_PRIVATE, /* created when missing; a transaction is always open, what it holds is committed in batches, durable by store_sync */
};
struct store;

/* path: of the file; "path-…" side files are not made. One that is there is never made new, even when it is empty. advice: what the operator should
 * do when it is damaged; NULL: nothing can be done. */
int store_open(struct store **s, const char *path, enum store_mode mode, const char *advice, struct err *e);
void store_close(struct store **s); /* drops an open transaction */
/* LIVE: begins the one change. Reading before it sees the last commit. */
int store_begin(struct store *s, struct err *e);
/* LIVE: durable when it returns. PRIVATE: begins the next transaction. */
int store_commit(struct store *s, struct err *e);
void store_abort(struct store *s);
/* PRIVATE: commits and syncs the file. */
int store_sync(struct store *s, struct err *e);
/* Writes a copy of the last commit to a new file. */
int store_copy(struct store *s, const char *path, struct err *e);
/* While true, look-ups answer from the last commit even though a change is open (LIVE). */
void store_see_base(struct store *s, bool base);
bool store_sees_base(const struct store *s); /* while a change is open */
bool store_is_changing(const struct store *s); /* a transaction is open */
/* LIVE: bytes of memory that the open change takes, about: a copy of each page that it may touch, and what is new. */
uint64_t store_held(const struct store *s);
/* The file is not what its writer left: fails with a line that says so, and what to do. what: "it lacks a thing", or NULL. */
int store_damaged(const struct store *s, const char *what, struct err *e);

/* LMDB trusts its pages: one that is damaged may make it fault, or abort. Then, in the handler of the signal: the line to print,
 * without the program's name, before the program ends at once (its memory may be spoilt). NULL: this thread was elsewhere, and the
 * fault is ours. Safe in a signal handler. */
const char *store_at_work(void);

/* Keys and values that are handed in are borrowed and must not be what a call on the same store handed out. Values (and keys)
 * that are handed out live until the next call on the store. */

/* 1 found, 0 not, -1 error. */
int store_get(struct store *s, enum store_table t, struct span key, struct span *value, struct err *e);
/* The first row whose key is at or behind `from`, and begins with the first n_same bytes of it. value may be NULL. 1, 0, -1. */
int store_seek(struct store *s, enum store_table t, struct span from, size_t n_same, struct span *key, struct span *value,
	struct err *e);
/* Asks the disk for what these rows lie on, or would: it is there when they are looked at, or changed, next. STORE_AHEAD_MAX keys at
 * most, best in order. shrinks: they will be deleted. A hint; a private store, which was written just now, needs none. */
#define STORE_AHEAD_MAX 512u
bool store_asks(const struct store *s); /* false: store_ahead does nothing, and nobody need find out what to ask for */
void store_ahead(struct store *s, enum store_table t, const struct span *keys, size_t n, bool shrinks);
int store_count(struct store *s, enum store_table t, uint64_t *rows, struct err *e);
/* Rows written and deleted since it was opened. */
uint64_t store_writes(const struct store *s);

/* Within a transaction. */
int store_put(struct store *s, enum store_table t, struct span key, struct span value, struct err *e);
/* A row that is not there is gone already. */
int store_del(struct store *s, enum store_table t, struct span key, struct err *e);
/* Deletes all rows at or behind `from` that begin with its first n_same bytes; both may be empty. */
int store_del_from(struct store *s, enum store_table t, struct span from, size_t n_same, struct err *e);

/* The rows at or behind a key that begin with its first n_same bytes, in order. Rows are read ahead in batches; the store may be
 * changed in between: what was not read ahead shows the change. {0} is valid to free. */
struct store_walk {
	/* the current row; spans live until the next call on the walk */
	struct span key, value;
	/* private */
	struct store *s;
	enum store_table t;
	struct buf batch, from;
	size_t at, n_same;
	unsigned want;
	bool is_behind, is_over;
};
/* behind: begins with the row after `from`. May be used again on a walk that was used. */
void store_walk_start(struct store_walk *w, struct store *s, enum store_table t, struct span from, size_t n_same, bool behind);
int store_walk_next(struct store_walk *w, struct err *e); /* 1, 0 at the end, -1 */
void store_walk_free(struct store_walk *w);

#endif
