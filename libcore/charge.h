/*
 * charge: what a delta will take of memory, time and room, as its records come: refused before it is too much.
 *
 * Memory is what the delta needs once it is loaded and placed: the numbers of objects, in two tables; directories that have to be
 * finished, and that the undo names; names that the undo takes away. Nothing else in memory grows with a stream.
 *
 * May use: job, history, replica, err; makes system calls.
 */
#ifndef REPL_CHARGE_H
#define REPL_CHARGE_H

#include "job.h"

/* Will this delta leave a way back? */
bool charge_undo(const struct job *j);

/* ERR_REFUSED, each: over --max-memory or --max-content. A number that the delta gives an object: */
int charge_number(struct job *j, struct err *e);
/* a rule for owners: in time, as all rules are looked through for each object; */
int charge_owner(struct job *j, struct err *e);
/* a directory that something changes in; */
int charge_parent(struct job *j, uint64_t parent, struct err *e);
/* a name that is made; */
int charge_name(struct job *j, uint64_t parent, struct span name, struct err *e);
/* content, in bytes. */
int charge_content(struct job *j, uint64_t bytes, struct err *e);
/* So many bytes are announced. ERR_SYSTEM: the filesystem has no room for them, as far as that is known in advance. */
int charge_space(const struct job *j, uint64_t bytes, struct err *e);

#endif
