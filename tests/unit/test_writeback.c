#include "writeback.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "bytes.h"
#include "unit.h"

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	CHECK(d);
	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

int unit_writeback(void)
{
	char path[300];
	int dir = unit_tmpdir(path, sizeof path), tries = 0;
	int a = openat(dir, "a", O_RDWR | O_CREAT | O_CLOEXEC, 0600), b = openat(dir, "b", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	unsigned before = open_files();
	struct writeback *w = NULL;
	unsigned long failed = unit_failures;

	/* Nothing was begun. */
	writeback_end(&w);
	CHECK(!w);
	CHECK(write(a, "a", 1) == 1 && write(b, "b", 1) == 1);
	CHECK(writeback_files(&w, a, b));
	/* The caller's are its own; each comes to its turn, whatever was under way. */
	while (!writeback_files(&w, b, -1) && ++tries < 10000)
		usleep(1000);
	while (!writeback_all(&w, dir) && ++tries < 10000)
		usleep(1000);
	CHECK(tries < 10000);
	writeback_end(&w);
	CHECK(!w);
	CHECK(open_files() == before);
	/* And again. */
	CHECK(writeback_files(&w, -1, a));
	writeback_end(&w);
	CHECK(open_files() == before);
	close(a);
	close(b);
	unlinkat(dir, "a", 0);
	unlinkat(dir, "b", 0);
	close(dir);
	rmdir(path);
	return (int)(unit_failures - failed);
}
