#include "bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void *must(void *p)
{
	static const char text[] = "repl: out of memory\n";

	if (!p) {
		ssize_t n = write(STDERR_FILENO, text, sizeof text - 1);
		(void)n;
		abort();
	}
	return p;
}

void *xalloc(size_t n) { return must(calloc(1, n ? n : 1)); }
void *xrealloc(void *p, size_t n) { return must(realloc(p, n ? n : 1)); }

void *xdup(const void *p, size_t n)
{
	void *q = xalloc(n);

	if (n)
		memcpy(q, p, n);
	return q;
}

char *xstrdup(const char *s) { return xdup(s, strlen(s) + 1); }

void buf_free(struct buf *b)
{
	free(b->p);
	*b = (struct buf){0};
}

void buf_reserve(struct buf *b, size_t more)
{
	if (b->cap - b->len >= more)
		return;
	if (more > SIZE_MAX / 2 - b->len)
		must(NULL);
	size_t cap = b->cap ? b->cap : 256;
	while (cap - b->len < more)
		cap *= 2;
	b->p = xrealloc(b->p, cap);
	b->cap = cap;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
	if (!n)
		return;
	buf_reserve(b, n);
	memcpy(b->p + b->len, p, n);
	b->len += n;
}

void buf_str(struct buf *b, const char *s) { buf_add(b, s, strlen(s)); }

void buf_fmt(struct buf *b, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	int n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	buf_reserve(b, (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf((char *)b->p + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

const char *buf_cstr(struct buf *b)
{
	buf_reserve(b, 1);
	b->p[b->len] = 0;
	return (const char *)b->p;
}

static void wr_le(struct buf *b, uint64_t v, unsigned n)
{
	uint8_t t[8];

	for (unsigned i = 0; i < n; i++)
		t[i] = (uint8_t)(v >> (8 * i));
	buf_add(b, t, n);
}

void wr_u8(struct buf *b, uint8_t v) { wr_le(b, v, 1); }
void wr_u16(struct buf *b, uint16_t v) { wr_le(b, v, 2); }
void wr_u32(struct buf *b, uint32_t v) { wr_le(b, v, 4); }
void wr_u64(struct buf *b, uint64_t v) { wr_le(b, v, 8); }

void wr_str(struct buf *b, const void *p, size_t n)
{
	wr_u32(b, (uint32_t)n);
	buf_add(b, p, n);
}

bool span_eq(struct span a, struct span b)
{
	return a.len == b.len && (!a.len || !memcmp(a.p, b.p, a.len));
}

int span_cmp(struct span a, struct span b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int c = n ? memcmp(a.p, b.p, n) : 0;

	return c ? c : (a.len > b.len) - (a.len < b.len);
}

void span_name(char out[256], struct span name)
{
	memcpy(out, name.p, name.len);
	out[name.len] = '\0';
}

static uint64_t rd_le(struct rd *r, unsigned n)
{
	uint64_t v = 0;

	if (r->bad || r->len < n) {
		r->bad = true;
		return 0;
	}
	for (unsigned i = 0; i < n; i++)
		v |= (uint64_t)r->p[i] << (8 * i);
	r->p += n;
	r->len -= n;
	return v;
}

uint8_t rd_u8(struct rd *r) { return (uint8_t)rd_le(r, 1); }
uint16_t rd_u16(struct rd *r) { return (uint16_t)rd_le(r, 2); }
uint32_t rd_u32(struct rd *r) { return (uint32_t)rd_le(r, 4); }
uint64_t rd_u64(struct rd *r) { return rd_le(r, 8); }

struct span rd_raw(struct rd *r, size_t n)
{
	if (r->bad || r->len < n) {
		r->bad = true;
		return (struct span){0};
	}
	struct span s = {r->p, n};
	r->p += n;
	r->len -= n;
	return s;
}

struct span rd_str(struct rd *r, size_t max)
{
	uint32_t n = rd_u32(r);

	if (n > max) {
		r->bad = true;
		return (struct span){0};
	}
	return rd_raw(r, n);
}

void rd_copy(struct rd *r, void *out, size_t n)
{
	struct span s = rd_raw(r, n);

	if (s.p)
		memcpy(out, s.p, n);
	else
		memset(out, 0, n);
}

bool rd_done(const struct rd *r) { return !r->bad && r->len == 0; }

bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t v;

	if (__builtin_add_overflow(a, b, &v))
		return false;
	*out = v;
	return true;
}

bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
	uint64_t v;

	if (__builtin_mul_overflow(a, b, &v))
		return false;
	*out = v;
	return true;
}

bool is_zero(const void *p, size_t n)
{
	const uint8_t *b = p;

	/* A run is zero when its first byte is and every byte equals the one before it. */
	return n == 0 || (b[0] == 0 && (n == 1 || memcmp(b, b + 1, n - 1) == 0));
}

void put_be64(uint8_t out[8], uint64_t v)
{
	for (int i = 7; i >= 0; i--, v >>= 8)
		out[i] = (uint8_t)v;
}

uint64_t get_be64(const uint8_t in[8])
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++)
		v = v << 8 | in[i];
	return v;
}

void put_le64(uint8_t out[8], uint64_t v)
{
	for (int i = 0; i < 8; i++, v >>= 8)
		out[i] = (uint8_t)v;
}

uint64_t get_le64(const uint8_t in[8])
{
	uint64_t v = 0;

	for (int i = 7; i >= 0; i--)
		v = v << 8 | in[i];
	return v;
}

void hex(char *out, const void *p, size_t n)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < n; i++) {
		*out++ = "0123456789abcdef"[b[i] >> 4];
		*out++ = "0123456789abcdef"[b[i] & 15];
	}
	*out = '\0';
}

static int nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool unhex(void *out, size_t n, const char *s)
{
	uint8_t *b = out;

	if (strlen(s) != 2 * n)
		return false;
	for (size_t i = 0; i < n; i++) {
		int hi = nibble(s[2 * i]), lo = nibble(s[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return false;
		b[i] = (uint8_t)(hi << 4 | lo);
	}
	return true;
}

/* Length of the valid, printable UTF-8 sequence at p (2 to 4 bytes), or 0. C1 controls are not printable. */
static size_t utf8_len(const uint8_t *p, size_t n)
{
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};

	if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
		return 0;
	uint32_t c = p[0] & (0xffu >> (len + 1));
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3fu);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c < 0xa0)
		return 0;
	/* Bidirectional overrides rewrite what an operator sees. */
	if ((c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0x200e || c == 0x200f)
		return 0;
	return len;
}

void esc_name(struct buf *b, struct span s)
{
	for (size_t i = 0; i < s.len;) {
		uint8_t c = s.p[i];
		size_t u = c >= 0x80 ? utf8_len(s.p + i, s.len - i) : 0;

		if (u) {
			buf_add(b, s.p + i, u);
			i += u;
			continue;
		}
		if (c == '\n')
			buf_str(b, "\\n");
		else if (c == '\t')
			buf_str(b, "\\t");
		else if (c == '\\' || c == '\'')
			buf_fmt(b, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			buf_fmt(b, "\\%03o", c);
		else
			wr_u8(b, c);
		i++;
	}
}

char *esc_cut(char *out, size_t n, struct span s)
{
	AUTO_BUF struct buf b = {0};

	esc_name(&b, s);
	buf_cstr(&b);
	if (b.len < n) {
		memcpy(out, b.p, b.len + 1);
	} else if (n >= 4) {
		memcpy(out, b.p, n - 4);
		memcpy(out + n - 4, "...", 4);
	} else if (n) {
		out[0] = '\0';
	}
	return out;
}

bool bits_put(struct buf *b, uint64_t n)
{
	size_t at = (size_t)(n / 8);
	uint8_t bit = (uint8_t)(1u << (n % 8));

	if (at >= b->len) {
		size_t more = at + 4096 - b->len;
		buf_reserve(b, more);
		memset(b->p + b->len, 0, more);
		b->len += more;
	}
	bool is_new = !(b->p[at] & bit);
	b->p[at] |= bit;
	return is_new;
}

bool bits_has(const struct buf *b, uint64_t n) { return n / 8 < b->len && b->p[n / 8] >> (n % 8) & 1; }

void free_ptr(void *pp)
{
	void *p;

	memcpy(&p, pp, sizeof p);
	free(p);
}

void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}
