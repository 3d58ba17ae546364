/*
 * providers: all ways of holding an image still, by the number that stands in its stamps.
 *
 * May use: provider, and those that there are.
 */
#ifndef REPL_PROVIDERS_H
#define REPL_PROVIDERS_H

#include "provider.h"

/* NULL: its content is read from the directories themselves. */
const struct provider *providers_of(uint8_t number);

#endif
