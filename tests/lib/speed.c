/*
 * speed: what this machine does with bytes at best, in one thread, for the floors of the bench.
 *
 *   speed FILE     lines "read N", "hash N", "write N": MiB/s of reading FILE, which is made and removed, from memory; of the digests of
 *                  blocks; and of writing it, until it is on the disk
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "digest.h"

#define MIB (1024 * 1024)
#define SIZE 512
#define GRAIN 16384

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double best(double a, double b) { return a < b ? a : b; }

int main(int argc, char **argv)
{
	static uint8_t buf[MIB];
	static struct digest d[MIB / GRAIN];
	double reading = 1e9, hashing = 1e9;

	if (argc != 2)
		return 2;
	int fd = open(argv[1], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	double start = now();
	for (int i = 0; fd >= 0 && i < SIZE; i++) {
		buf[0] = (uint8_t)i;
		if (write(fd, buf, MIB) != MIB)
			fd = -1;
	}
	if (fd < 0 || fsync(fd)) {
		perror(argv[1]);
		return 1;
	}
	double writing = now() - start;
	for (int round = 0; round < 3; round++) {
		start = now();
		for (int i = 0; i < SIZE; i++)
			if (pread(fd, buf, MIB, (off_t)i * MIB) != MIB)
				return 1;
		reading = best(reading, now() - start);
		start = now();
		for (int i = 0; i < SIZE; i++)
			digest_blocks(d, buf, MIB, GRAIN);
		hashing = best(hashing, now() - start);
	}
	unlink(argv[1]);
	printf("read %.0f\nhash %.0f\nwrite %.0f\n", SIZE / reading, SIZE / hashing, SIZE / writing);
	return 0;
}
