/*
 * lanes: BLAKE2b of several messages of one length, side by side in the lanes of the processor's vector registers.
 *
 * Four 64-bit lanes with AVX2, eight with AVX-512; which of them there are is asked when it runs. The same digests as one after the
 * other (RFC 7693), only sooner: the leaves of a digest tree do not depend on each other. Not keyed, 32 bytes of digest.
 *
 * May use: nothing. Memory in, memory out.
 */
#ifndef REPL_LANES_H
#define REPL_LANES_H

#include <stddef.h>
#include <stdint.h>

#define LANES_MOST 8u
#define LANES_BLOCK 128u /* bytes that BLAKE2b takes at a time */

/* The most messages that this machine takes side by side: 8, 4, or 1: there is no faster way than one after the other. */
unsigned lanes_width(void);
/* width (4 or 8, not more than lanes_width) messages of len bytes each, which is a multiple of LANES_BLOCK above 0: message i begins
 * at p + i * len. person: 16 bytes, padded with zeros. Digest i goes to out + i * 32. */
void lanes_hash(unsigned width, const uint8_t person[16], const uint8_t *p, size_t len, uint8_t *out);

#endif
