#include "clock.h"

#include <time.h>

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * CLOCK_S + (uint64_t)t.tv_nsec;
}

uint64_t clock_ns(void) { return now(CLOCK_MONOTONIC); }

uint64_t clock_ms(void) { return clock_ns() / (CLOCK_S / 1000); }

uint64_t clock_thread(void) { return now(CLOCK_THREAD_CPUTIME_ID); }

int64_t clock_wall(void) { return (int64_t)now(CLOCK_REALTIME); }
