/*
 * edits: what somebody changed on the replica behind our back where a delta touches it: found before the delta is decided, and
 * put aside or overruled after, as was decided then.
 *
 *   .repl/edits            what was decided: rows of u8 (enum edits_mode), str path. Written before the commit record
 *   .repl/aside/ID/PATH    what was put aside when image ID was applied
 *
 * An edit is content or a type that is not the catalog's, a name that is gone and needed, or one that the catalog does not know where the
 * delta makes something or removes the directory. Where only the stat differs the content is read; metadata alone is no edit.
 * What the delta calls wanted or stray is its business.
 *
 * May use: plan, replica, entry, fit, attr, file, inode, path, err.
 */
#ifndef REPL_EDITS_H
#define REPL_EDITS_H

#include "plan.h"

enum edits_mode {
	EDITS_REFUSE,
	EDITS_KEEP,     /* the edited object goes to .repl/aside */
	EDITS_OVERRULE, /* it is replaced, or goes with what it was in */
};
/* Changes nothing but .repl/edits. ERR_REFUSED names the first edits and how many there are: all of them with EDITS_REFUSE, else
 * those that the delta cannot replace because it has only changes to them. *has_base: what the delta replaces is there as the
 * base says; false where it mends or overrules, so that there is no way back. doubtful: gets bits, the numbers of objects whose metadata may have
 * been changed here. */
int edits_find(struct plan *p, enum edits_mode mode, bool *has_base, struct buf *doubtful, struct err *e);
/* Does what was decided, before anything is detached. Can be repeated until something is placed. id: of the target. */
int edits_settle(struct replica *r, const struct digest *id, void (*kept)(void *ctx, struct span path, const char *to), void *ctx,
	struct err *e);

#endif
