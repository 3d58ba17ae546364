/*
 * value: numbers as people write them: sizes, durations, whole numbers.
 *
 * May use: bytes. Each returns false, and leaves *out alone, when the text is none or needs more than 64 bits.
 */
#ifndef REPL_VALUE_H
#define REPL_VALUE_H

#include <stdbool.h>
#include <stdint.h>

/* Digits only; moves *s behind them. */
bool value_digits(const char **s, uint64_t *out);
/* Bytes: K = KiB = 1024, KB = 1000; likewise M, G, T, P, E. */
bool value_size(const char *s, uint64_t *out);
/* Nanoseconds: 90s, 15m, 6h, 2d, 250ms; a bare number is seconds. */
bool value_duration(const char *s, uint64_t *ns);
/* May be negative. */
bool value_number(const char *s, int64_t *out);

#endif
