#include "bytes.h"

#include <stdlib.h>
#include <unistd.h>

#include "unit.h"

static bool is_text(const struct buf *b, const char *want)
{
	return span_eq(span_of(b->p, b->len), span_cstr(want));
}

static void test_buf(void)
{
	AUTO_BUF struct buf b = {0};

	CHECK_EQ_STR(buf_cstr(&b), "");
	CHECK(b.len == 0);
	buf_add(&b, NULL, 0);
	CHECK(b.len == 0);
	for (unsigned i = 0; i < 5000; i++)
		wr_u8(&b, (uint8_t)i);
	CHECK(b.len == 5000 && b.cap >= 5000);
	for (unsigned i = 0; i < 5000; i++)
		if (b.p[i] != (uint8_t)i) {
			CHECK(b.p[i] == (uint8_t)i);
			break;
		}
	buf_reset(&b);
	buf_fmt(&b, "%d-%s", 7, "seven");
	buf_str(&b, "!");
	CHECK_EQ_STR(buf_cstr(&b), "7-seven!");
	buf_reserve(&b, 1 << 20);
	CHECK(b.cap - b.len >= 1 << 20);
	CHECK_EQ_STR(buf_cstr(&b), "7-seven!");
	buf_free(&b);
	buf_free(&b);
	CHECK(!b.p && !b.len && !b.cap);
}

static void test_there_and_back(void)
{
	AUTO_BUF struct buf b = {0};
	static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
		UINT64_C(0x100000000), UINT64_C(0x0123456789abcdef), INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX};

	for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
		uint64_t v = edges[i];
		buf_reset(&b);
		wr_u8(&b, (uint8_t)v);
		wr_u16(&b, (uint16_t)v);
		wr_u32(&b, (uint32_t)v);
		wr_u64(&b, v);
		wr_i64(&b, (int64_t)v);
		CHECK(b.len == 1 + 2 + 4 + 8 + 8);
		struct rd r = rd_of(b.p, b.len);
		CHECK_EQ_U64(rd_u8(&r), (uint8_t)v);
		CHECK_EQ_U64(rd_u16(&r), (uint16_t)v);
		CHECK_EQ_U64(rd_u32(&r), (uint32_t)v);
		CHECK_EQ_U64(rd_u64(&r), v);
		CHECK(!rd_done(&r));
		CHECK_EQ_U64((uint64_t)rd_i64(&r), v);
		CHECK(rd_done(&r));
		uint8_t be[8], le[8];
		put_be64(be, v);
		put_le64(le, v);
		CHECK_EQ_U64(get_be64(be), v);
		CHECK_EQ_U64(get_le64(le), v);
		CHECK(be[0] == (uint8_t)(v >> 56) && be[7] == (uint8_t)v && le[0] == (uint8_t)v && le[7] == be[0]);
	}
	buf_reset(&b);
	wr_u32(&b, 0x04030201);
	CHECK(b.p[0] == 1 && b.p[1] == 2 && b.p[2] == 3 && b.p[3] == 4);
}

static void test_reader_ends(void)
{
	static const uint8_t bytes[16] = {3, 0, 0, 0, 'a', 'b', 'c', 9};
	uint8_t out[4] = {1, 1, 1, 1};

	/* A field that is cut yields zero, and so does all after it, though there are bytes enough. */
	for (size_t n = 0; n < 8; n++) {
		struct rd r = rd_of(bytes, n);
		CHECK(rd_u64(&r) == 0 && r.bad && rd_u8(&r) == 0 && r.len == n && !rd_done(&r));
	}
	struct rd r = rd_of(bytes, sizeof bytes);
	struct span s = rd_str(&r, 3);
	CHECK(span_eq(s, span_cstr("abc")) && rd_u8(&r) == 9 && !r.bad);
	r = rd_of(bytes, sizeof bytes);
	s = rd_str(&r, 2);
	CHECK(r.bad && !s.p && !s.len);
	r = rd_of(bytes, 6);
	s = rd_str(&r, 100);
	CHECK(r.bad && !s.len);
	static const uint8_t huge[8] = {0xff, 0xff, 0xff, 0xff};
	r = rd_of(huge, sizeof huge);
	s = rd_str(&r, SIZE_MAX);
	CHECK(r.bad && !s.len);
	r = rd_of(bytes, 3);
	rd_copy(&r, out, 4);
	CHECK(r.bad && is_zero(out, 4));
	r = rd_of(bytes, 3);
	CHECK(rd_raw(&r, 3).len == 3 && rd_done(&r));
	CHECK(rd_raw(&r, 0).len == 0 && rd_done(&r));
	CHECK(rd_raw(&r, 1).len == 0 && r.bad);
	r = rd_of(NULL, 0);
	CHECK(rd_done(&r));
}

static void test_spans(void)
{
	struct span none = {0};

	CHECK(span_eq(none, span_cstr("")) && span_cmp(none, span_cstr("")) == 0);
	CHECK(span_cmp(none, span_cstr("a")) < 0 && span_cmp(span_cstr("a"), none) > 0);
	CHECK(span_cmp(span_cstr("a"), span_cstr("ab")) < 0 && span_cmp(span_cstr("b"), span_cstr("ab")) > 0);
	CHECK(span_cmp(span_cstr("\x7f"), span_cstr("\x80")) < 0);
	CHECK(!span_eq(span_cstr("a"), span_cstr("b")) && !span_eq(span_cstr("a"), span_cstr("ab")));
}

static void test_arithmetic(void)
{
	uint64_t v = 5;

	CHECK(!add_u64(UINT64_MAX, 1, &v) && v == 5);
	CHECK(!mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &v) && v == 5);
	CHECK(add_u64(UINT64_MAX - 1, 1, &v) && v == UINT64_MAX);
	CHECK(mul_u64(UINT64_MAX, 1, &v) && v == UINT64_MAX);
	CHECK(mul_u64(0, UINT64_MAX, &v) && v == 0);
	CHECK(min_u64(1, 2) == 1 && max_u64(1, 2) == 2);
}

static void test_is_zero(void)
{
	uint8_t z[300] = {0};

	CHECK(is_zero(z, 0) && is_zero(z, 1) && is_zero(z, sizeof z));
	for (size_t i = 0; i < sizeof z; i++) {
		z[i] = 1;
		if (is_zero(z, sizeof z) || !is_zero(z, i)) {
			CHECK(!is_zero(z, sizeof z));
			CHECK(is_zero(z, i));
		}
		z[i] = 0;
	}
}

static void test_hex(void)
{
	char text[9];
	uint8_t b[4] = {0x00, 0x1f, 0xa0, 0xff}, c[4];

	hex(text, b, 4);
	CHECK_EQ_STR(text, "001fa0ff");
	CHECK(unhex(c, 4, "001FA0ff") && !memcmp(b, c, 4));
	CHECK(!unhex(c, 4, "001fa0f") && !unhex(c, 4, "001fa0ff0") && !unhex(c, 4, "001fa0fg") && !unhex(c, 4, ""));
	CHECK(unhex(c, 0, ""));
}

static void test_escapes(void)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
		{"", ""},
		{"plain name", "plain name"},
		{"a\nb\tc", "a\\nb\\tc"},
		{"it's \\ here", "it\\'s \\\\ here"},
		{"\x1b[31m\x7f", "\\033[31m\\177"},
		{"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
		{"\xf0\x9f\x92\xbe", "\xf0\x9f\x92\xbe"},
		{"\xc2\x9b" "2J", "\\302\\2332J"},                         /* C1: control sequence introducer */
		{"\xe2\x80\xae" "exe", "\\342\\200\\256exe"},              /* right-to-left override */
		{"\xc0\xaf", "\\300\\257"},                                /* too long for what it says */
		{"\xe0\x80\xaf", "\\340\\200\\257"},
		{"\xed\xa0\x80", "\\355\\240\\200"},                       /* a surrogate */
		{"\xf4\x90\x80\x80", "\\364\\220\\200\\200"},              /* beyond Unicode */
		{"\xff\xfe", "\\377\\376"},
		{"a\xc3", "a\\303"},                                       /* cut */
		{"\xe2\x82", "\\342\\202"},
	};

	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		AUTO_BUF struct buf b = {0};
		esc_name(&b, span_cstr(rows[i].in));
		CHECK_EQ_STR(buf_cstr(&b), rows[i].out);
	}
	/* Whatever comes, a terminal sees no control byte. */
	for (unsigned hi = 0; hi < 256; hi++) {
		AUTO_BUF struct buf b = {0};
		for (unsigned lo = 0; lo < 256; lo++) {
			uint8_t pair[3] = {(uint8_t)hi, (uint8_t)lo, 0x80};
			esc_name(&b, span_of(pair, 3));
		}
		bool clean = true;
		for (size_t i = 0; i < b.len; i++)
			clean &= b.p[i] >= 0x20 && b.p[i] != 0x7f && !(b.p[i] == 0xc2 && b.p[i + 1] < 0xa0);
		if (!clean)
			CHECK(clean);
	}
	AUTO_BUF struct buf nul = {0};
	esc_name(&nul, span_of("a\0b", 3));
	CHECK(is_text(&nul, "a\\000b"));
	char small[8];
	CHECK_EQ_STR(esc_cut(small, sizeof small, span_cstr("1234567")), "1234567");
	CHECK_EQ_STR(esc_cut(small, sizeof small, span_cstr("12345678")), "1234...");
	CHECK_EQ_STR(esc_cut(small, 3, span_cstr("12345678")), "");
	CHECK_EQ_STR(esc_cut(small, 1, span_cstr("1")), "");
}

static void test_memory(void)
{
	uint8_t *p = xalloc(64);

	CHECK(is_zero(p, 64));
	p = xrealloc(p, 128);
	memset(p, 7, 128);
	AUTO_FREE uint8_t *q = xdup(p, 128);
	CHECK(!memcmp(p, q, 128));
	free(p);
	AUTO_FREE char *s = xstrdup("text");
	CHECK_EQ_STR(s, "text");
	AUTO_FREE void *none = xdup(NULL, 0);
	CHECK(none != NULL);
	int fd = dup(STDOUT_FILENO);
	close_fd(&fd);
	CHECK(fd == -1);
	close_fd(&fd);
	CHECK(fd == -1);
}

int unit_bytes(void)
{
	unsigned long before = unit_failures;

	test_buf();
	test_there_and_back();
	test_reader_ends();
	test_spans();
	test_arithmetic();
	test_is_zero();
	test_hex();
	test_escapes();
	test_memory();
	return (int)(unit_failures - before);
}
