/*
 * json: strings for JSON that are bytes for us.
 *
 * May use: bytes.
 */
#ifndef REPL_JSON_H
#define REPL_JSON_H

#include "bytes.h"

/* Quoted and escaped. Bytes that are not UTF-8 come out as lone surrogates \udc80 to \udcff, as Python's surrogateescape reads
 * and writes them (PEP 383). */
void json_string(struct buf *b, struct span s);

#endif
