/*
 * head: what an image stream says first: its stamps, the members with the directories where they are, and how far a recorder's
 * journal had come.
 *
 * It stands at the front of image and change streams, in the state as the image under way, and in a catalog as what that is of.
 *
 * May use: catalog, image, input, stream, walk (its roots), err; opens the members' directories.
 */
#ifndef REPL_HEAD_H
#define REPL_HEAD_H

#include "stream.h"

struct catalog;
struct walk_root;

/* What a state or a stream says about the image under way. Owned; head_free. */
struct head {
	bool has_image;
	struct r_image stamps;
	struct r_member *members;
	size_t n_members;
	bool has_cursor;
	struct r_cursor cursor;
	struct head_text *owned; /* private: what the spans point into */
};
void head_free(struct head *h);
/* Takes IMAGE, MEMBER and CURSOR records from a stream as they come: true when the record was one of them. */
bool head_take(struct head *h, const struct record *r);
/* The head of the image that a catalog holds: 1, 0 when it does not know, -1. */
int head_of(struct head *h, struct catalog *c, struct err *e);
/* Reads a whole image stream for its head. Another kind: ERR_STREAM with a sentence about `reader` ("repl-track"). */
int head_read(struct head *h, int fd, const char *reader, struct err *e);
/* Writes header, IMAGE, MEMBER and CURSOR records; the caller goes on. */
int head_put(const struct head *h, struct stream_out *o, enum stream_kind kind, struct err *e);
/* Opens the members' directories: n_members of them, owned (head_close_roots). ERR_STREAM: the names make no sense. */
int head_open_roots(const struct head *h, struct walk_root **roots, struct err *e);
void head_close_roots(struct walk_root **roots, size_t n);

#endif
