/*
 * place: what a decided delta does to the tree: names go, objects are placed, metadata is set. All of it can be repeated.
 *
 * May use: plan, redo, image, attr, path, err.
 */
#ifndef REPL_PLACE_H
#define REPL_PLACE_H

#include "attr.h"
#include "plan.h"

struct owner_rule {
	bool is_group;
	uint32_t from, to;
};
struct place {
	struct attr_policy policy;
	const struct warn *warn;
	bool map_names;          /* owners by the names that the stream carries */
	/* private */
	struct plan *plan;
	struct owner_rule *rules;
	size_t n_rules;
	struct buf wanted;       /* bits: directories that may have to be made first */
	uint64_t n_displaced;
	struct buf touched;      /* u64 numbers of directories whose entries changed, with repeats */
	uint64_t last_touched;
	struct buf label, xattrs;
};
/* rules are copied. plan is borrowed and loaded. */
void place_start(struct place *p, struct plan *plan, const struct owner_rule *rules, size_t n);
/* Strays and every name that goes are renamed into slots/, or unlinked when its object goes. */
int place_detach(struct place *p, struct err *e);
/* Directories are made and attached, parents first; then files, links, metadata; last the directories' own. */
int place_all(struct place *p, struct err *e);
/* An object of the image that stands in its place already, under this name of dirfd (NULL: dirfd itself): its metadata once more, for
 * who may set more of it now; a node or link that could not be made is made. What was edited is a warning, kind "edited". */
int place_again(struct place *p, int dirfd, const char *name, struct object *o, struct err *e);
void place_free(struct place *p);

#endif
