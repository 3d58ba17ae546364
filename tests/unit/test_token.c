#include "token.h"

#include <string.h>

#include "bytes.h"
#include "unit.h"

static const struct digest base = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, head = {{0xff, 0xfe}};

static void test_there_and_back(void)
{
	static const uint64_t offs[] = {0, 1, UINT64_C(1) << 62, UINT64_MAX};
	struct token in, out;
	char text[TOKEN_TEXT];
	struct err e = {0};

	for (size_t i = 0; i < sizeof offs / sizeof offs[0]; i++) {
		in = token_of(offs[i], &base, &head);
		token_print(&in, text);
		CHECK_EQ_U64(strlen(text), TOKEN_TEXT - 1);
		CHECK_OK(token_read(&out, text, &e), e);
		CHECK_EQ_U64(out.off, offs[i]);
		CHECK(token_has_base(&out, &base) && token_has_head(&out, &head));
		CHECK(!token_has_base(&out, &head) && !token_has_head(&out, &base));
	}
}

static void test_damaged(void)
{
	struct token in = token_of(4711, &base, &head), out;
	char text[TOKEN_TEXT];

	token_print(&in, text);
	for (size_t i = 0; text[i]; i++) {
		struct err e = {0};
		char was = text[i];
		text[i] = was == '0' ? '1' : '0';
		CHECK(token_read(&out, text, &e) == -1 && e.kind == ERR_USAGE);
		text[i] = '\0'; /* and cut here */
		err_clear(&e);
		CHECK(token_read(&out, text, &e) == -1 && e.kind == ERR_USAGE);
		text[i] = was;
	}
}

/* The running digest can be looked at, and its bytes kept. */
static void test_peek(void)
{
	struct digest_run a, b;
	struct digest now, then, end;
	char bytes[1000] = "some bytes";

	digest_run_init(&a, "repl-unit", NULL, 0);
	for (size_t n = 0; n < sizeof bytes; n += 77) {
		digest_run_add(&a, bytes, n);
		digest_run_peek(&a, &now);
		memcpy(&b, &a, sizeof a);
		digest_run_peek(&b, &then);
		CHECK(digest_eq(&now, &then));
	}
	digest_run_end(&b, &end);
	digest_run_end(&a, &then);
	CHECK(digest_eq(&then, &end) && digest_eq(&then, &now));
}

int unit_token(void)
{
	unsigned long before = unit_failures;

	test_there_and_back();
	test_damaged();
	test_peek();
	return (int)(unit_failures - before);
}
