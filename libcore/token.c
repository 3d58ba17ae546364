#include "token.h"

#include <string.h>

#include "bytes.h"

#define HEAD "rpl1."
#define HEAD_LEN (sizeof HEAD - 1)
#define BODY_LEN 32u
#define SUM_LEN 4u

_Static_assert(HEAD_LEN + 2 * (BODY_LEN + SUM_LEN) + 1 == TOKEN_TEXT, "the length of a token");

struct token token_of(uint64_t off, const struct digest *base, const struct digest *head)
{
	struct token t = {.off = off};

	memcpy(t.base, base->b, sizeof t.base);
	memcpy(t.head, head->b, sizeof t.head);
	return t;
}

bool token_has_base(const struct token *t, const struct digest *base) { return !memcmp(t->base, base->b, sizeof t->base); }
bool token_has_head(const struct token *t, const struct digest *head) { return !memcmp(t->head, head->b, sizeof t->head); }

static void sum(struct digest *out, const uint8_t body[BODY_LEN])
{
	struct digest_run r;

	digest_run_init(&r, "repl-token-v1", NULL, 0);
	digest_run_add(&r, body, BODY_LEN);
	digest_run_end(&r, out);
}

void token_print(const struct token *t, char out[TOKEN_TEXT])
{
	uint8_t body[BODY_LEN + SUM_LEN];
	struct digest d;

	put_le64(body, t->off);
	memcpy(body + 8, t->base, sizeof t->base);
	memcpy(body + 16, t->head, sizeof t->head);
	sum(&d, body);
	memcpy(body + BODY_LEN, d.b, SUM_LEN);
	memcpy(out, HEAD, HEAD_LEN);
	hex(out + HEAD_LEN, body, sizeof body);
}

int token_read(struct token *t, const char *text, struct err *e)
{
	uint8_t body[BODY_LEN + SUM_LEN];
	struct digest d;

	if (!strncmp(text, "rpl", 3) && strncmp(text, HEAD, HEAD_LEN))
		return err_set(e, ERR_USAGE, "the resume token has a version that this program does not know: a newer one is needed here");
	if (strncmp(text, HEAD, HEAD_LEN) || !unhex(body, sizeof body, text + HEAD_LEN))
		return err_set(e, ERR_USAGE, "this is no resume token, or not all of it: repl-apply --resume-token prints one");
	sum(&d, body);
	if (memcmp(d.b, body + BODY_LEN, SUM_LEN))
		return err_set(e, ERR_USAGE, "the resume token was damaged in copying: repl-apply --resume-token prints it again");
	t->off = get_le64(body);
	memcpy(t->base, body + 8, sizeof t->base);
	memcpy(t->head, body + 16, sizeof t->head);
	return 0;
}
