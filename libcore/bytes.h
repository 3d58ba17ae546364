/*
 * bytes: growable buffers, bounded little-endian readers and writers, checked arithmetic, hex and
 * escaped names, and the clean-up attributes.
 *
 * May use: plain C. Invariant: a reader never reads past its end; it sets `bad` and yields zero.
 */
#ifndef REPL_BYTES_H
#define REPL_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A growable byte string. {0} is empty and valid. Out of memory aborts the program with a line on
 * standard error: there is no state in which we could carry on, and nothing has been committed. */
struct buf {
	uint8_t *p;
	size_t len, cap;
};
void buf_free(struct buf *b);
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes past len */
void buf_add(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, const char *s);
void buf_fmt(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *buf_cstr(struct buf *b); /* NUL-terminated (the NUL is not counted), borrowed */
static inline void buf_reset(struct buf *b) { b->len = 0; }

/* Memory that cannot fail (aborts instead); owned, release with free(). */
void *xalloc(size_t n); /* zeroed */
void *xrealloc(void *p, size_t n);
void *xdup(const void *p, size_t n);
char *xstrdup(const char *s);

/* Writers append to a buf. */
void wr_u8(struct buf *b, uint8_t v);
void wr_u16(struct buf *b, uint16_t v);
void wr_u32(struct buf *b, uint32_t v);
void wr_u64(struct buf *b, uint64_t v);
static inline void wr_i64(struct buf *b, int64_t v) { wr_u64(b, (uint64_t)v); }
static inline void wr_raw(struct buf *b, const void *p, size_t n) { buf_add(b, p, n); }
/* A length-prefixed (u32) byte string. */
void wr_str(struct buf *b, const void *p, size_t n);

/* A borrowed run of bytes; never NUL-terminated by promise. */
struct span {
	const uint8_t *p;
	size_t len;
};
static inline struct span span_of(const void *p, size_t n) { return (struct span){p, n}; }
static inline struct span span_cstr(const char *s) { return (struct span){(const uint8_t *)s, strlen(s)}; }
bool span_eq(struct span a, struct span b);
int span_cmp(struct span a, struct span b); /* memcmp order, shorter first */
/* One path component, at most 255 bytes, as a string. */
void span_name(char out[256], struct span name);

struct rd {
	const uint8_t *p;
	size_t len;
	bool bad;
};
static inline struct rd rd_of(const void *p, size_t n) { return (struct rd){p, n, false}; }
uint8_t rd_u8(struct rd *r);
uint16_t rd_u16(struct rd *r);
uint32_t rd_u32(struct rd *r);
uint64_t rd_u64(struct rd *r);
static inline int64_t rd_i64(struct rd *r) { return (int64_t)rd_u64(r); }
struct span rd_raw(struct rd *r, size_t n);           /* borrowed from the input */
struct span rd_str(struct rd *r, size_t max);         /* u32 length, at most max */
void rd_copy(struct rd *r, void *out, size_t n);
bool rd_done(const struct rd *r);                     /* nothing missing, nothing left over */

/* Checked arithmetic: false on overflow, *out untouched then. */
bool add_u64(uint64_t a, uint64_t b, uint64_t *out);
bool mul_u64(uint64_t a, uint64_t b, uint64_t *out);
static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }

bool is_zero(const void *p, size_t n);

/* Big-endian put/get, for ordered keys. */
void put_be64(uint8_t out[8], uint64_t v);
uint64_t get_be64(const uint8_t in[8]);
void put_le64(uint8_t out[8], uint64_t v);
uint64_t get_le64(const uint8_t in[8]);

/* Lower-case hex, NUL-terminated: out has 2n+1 bytes. */
void hex(char *out, const void *p, size_t n);
/* True when s is exactly 2n hex digits. */
bool unhex(void *out, size_t n, const char *s);

/* Appends the name with control bytes, backslash, quote and bytes that are not valid UTF-8 as \n, \t,
 * \\ , \' or \ooo. Safe for a terminal and for one line of a log. */
void esc_name(struct buf *b, struct span s);
/* As above into a fixed array, cut with "..." when too long; returns out, NUL-terminated. */
char *esc_cut(char *out, size_t n, struct span s);

/* A set of small numbers, a bit each, in a buf; {0} is the empty set. put: true when it was not in yet. */
bool bits_put(struct buf *b, uint64_t n);
bool bits_has(const struct buf *b, uint64_t n);

void free_ptr(void *pp);  /* for AUTO_FREE */
void close_fd(int *fd);   /* closes when >= 0, sets -1; errors ignored: for paths that already failed */
#define AUTO_FREE __attribute__((cleanup(free_ptr)))
#define AUTO_CLOSE __attribute__((cleanup(close_fd)))
#define AUTO_BUF __attribute__((cleanup(buf_free)))

#endif
