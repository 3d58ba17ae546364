/*
 * place: what a decided delta does to the tree, in order: names go, objects are installed, metadata is set. All of it can be
 * repeated.
 *
 * May use: attach, install, redo, owners, entry, plan, image, path, file, err.
 */
#ifndef REPL_PLACE_H
#define REPL_PLACE_H

#include "install.h"

struct place {
	struct install to;       /* policy and warn are the caller's to set */
	bool map_names;          /* owners by the names that the stream carries */
	bool is_fresh;           /* all that is staged was staged by this process, as the policy wants it */
	/* private */
	bool knows_renewed;
	struct buf patched;      /* bits: objects whose own file changes */
	struct buf wanted;       /* bits: directories that may have to be made first */
	struct buf named;        /* bits: what gets names that it was not created with */
};
/* rules are copied. plan is borrowed and loaded. */
void place_start(struct place *p, struct plan *plan, const struct owner_rule *rules, size_t n);
/* Strays and every name that goes are renamed into slots/, or unlinked when its object goes or is staged as another file. */
int place_detach(struct place *p, struct err *e);
/* Directories are made and attached, parents first; then files, links, metadata; last the directories' own. */
int place_all(struct place *p, struct err *e);
void place_free(struct place *p);

#endif
