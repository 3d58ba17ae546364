/*
 * clock: what time it is.
 *
 * May use: plain C; asks the system, which cannot fail (clock_gettime(2): these clocks are always there).
 */
#ifndef REPL_CLOCK_H
#define REPL_CLOCK_H

#include <stdint.h>

#define CLOCK_S UINT64_C(1000000000) /* nanoseconds in a second */

/* Since some moment before the program began, never set back: for how long something takes. */
uint64_t clock_ns(void);
uint64_t clock_ms(void);
/* What this thread has had of a processor. Nanoseconds. */
uint64_t clock_thread(void);
/* Since 1970, as the machine's clock is set: for what is written down. Nanoseconds. */
int64_t clock_wall(void);

#endif
