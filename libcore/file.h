/*
 * file: reads and writes at an offset that are whole or fail, with errno; temporary files without a name; small files replaced
 * durably.
 *
 * May use: bytes, err; makes system calls.
 */
#ifndef REPL_FILE_H
#define REPL_FILE_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct err;
struct stat;

/* 0, or -1 with errno. What lies beyond the end reads as zeros. */
int file_read_at(int fd, void *p, size_t n, uint64_t off);
int file_write_at(int fd, const void *p, size_t n, uint64_t off);
/* At the descriptor's own position. */
int file_write(int fd, const void *p, size_t n);
/* A new file in this folder that has no name and goes with its descriptor. Owned; -1 with errno. */
int file_temp(const char *dir);

/* Copies what `from` has of data between two offsets, in the kernel where it can; holes stay what they were in `to`. */
int file_copy(int from, int to, uint64_t off, uint64_t end);
/* The same for all of a file of this size, with shared extents where the filesystem can; `to` is empty. */
int file_clone(int from, int to, uint64_t size);

/* As file_clone onto what is not empty, or a block device: holes become zeros there. What lies beyond size stays. */
int file_overwrite(int from, int to, uint64_t size);
/* This range becomes zeros, as a hole where that can be; the size stays. */
int file_zero(int fd, uint64_t off, uint64_t len);
/* Gives it this size; a block device has its own. */
int file_resize(int fd, uint64_t size);

/* It belongs to root or to us, and nobody else can write to it: what it says to do may be done. */
bool file_is_trusted(const struct stat *st);

/* Lists an open directory from its start, with a position of its own. closedir; NULL with errno. */
DIR *file_list(int dirfd);
/* "." and "..". */
bool file_is_dots(const char *name);

/* Replaces the file `name` in dirfd whole and durably. */
int file_replace(int dirfd, const char *name, const void *p, size_t n, struct err *e);

#endif
