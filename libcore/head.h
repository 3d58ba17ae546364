/*
 * head: what an image stream says first: its stamps, the members with the directories where they are, and how far a recorder's
 * journal had come.
 *
 * It stands at the front of image and change streams, in the state as the image under way, and in a catalog as what that is of.
 *
 * May use: catalog, image, input, stream, walk (its roots), providers, volume, err; opens the members' directories.
 */
#ifndef REPL_HEAD_H
#define REPL_HEAD_H

#include "provider.h"
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
/* The same names and paths. */
bool head_same_members(const struct head *a, const struct head *b);
/* It is snapshots: nobody writes to what is read. */
bool head_is_still(const struct head *h);
bool head_has_only_volumes(const struct head *h);
/* What a provider of snapshots has to do with for member i, which is open as fd: *r, which borrows all of these. head_place_free, also
 * when it failed. ERR_SYSTEM. */
struct head_place {
	struct buf dir, file;
	int fd;
};
int head_place(struct head_place *p, const struct head *h, size_t i, int fd, struct provider_root *r, struct err *e);
void head_place_free(struct head_place *p);
/* It is trees of clones: their inodes say nothing about who was who. */
bool head_is_copy(const struct head *h);
/* Opens the directories that hold the image: the members', or where it is snapshots, those. n_members of them, owned
 * (head_close_roots). ERR_STREAM: the names make no sense; ERR_SYSTEM with advice: a snapshot is gone, or was written to. */
int head_open_roots(const struct head *h, struct walk_root **roots, struct err *e);
/* Opens the members' directories as they are now. */
int head_open_live(const struct head *h, struct walk_root **roots, struct err *e);
/* Of a member's snapshot for this image, in `.repl/images` of the member. */
void head_snapshot_name(const struct head *h, char name[PROVIDER_NAME_MAX]);
/* A directory of the system at this device, which lies in a member, lies in the image at another device where that is a snapshot. */
int head_device(const struct head *h, const struct walk_root *roots, uint64_t *dev, struct err *e);
void head_close_roots(struct walk_root **roots, size_t n);

#endif
