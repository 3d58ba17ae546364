/*
 * token: where a delta was cut, as one word that is printed on the replica and read on the source.
 *
 *   rpl1.HEX    u64 offset in the plain delta, 8 bytes of the base's id, 16 of the digest of all before the offset, 4 of a
 *               digest over these
 *
 * May use: digest, bytes, err. A token is a claim about a delta, not a secret: who reads it compares it with the delta he has.
 */
#ifndef REPL_TOKEN_H
#define REPL_TOKEN_H

#include "digest.h"
#include "err.h"

#define TOKEN_TEXT 78 /* with the NUL */

struct token {
	uint64_t off;
	uint8_t base[8], head[16];
};
/* base: zeros when there is none; head: what the trailer's digest would be if the stream ended at off. */
struct token token_of(uint64_t off, const struct digest *base, const struct digest *head);
bool token_has_base(const struct token *t, const struct digest *base);
bool token_has_head(const struct token *t, const struct digest *head);
void token_print(const struct token *t, char out[TOKEN_TEXT]);
/* ERR_USAGE: not a token, or not all of it. */
int token_read(struct token *t, const char *text, struct err *e);

#endif
