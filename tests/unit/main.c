/* Runs the unit tests named on the command line, or all of them, and reports in TAP. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#pragma weak unit_bytes
#pragma weak unit_digest
#pragma weak unit_window
#pragma weak unit_writeback
#pragma weak unit_redo
#pragma weak unit_chunks
#pragma weak unit_record
#pragma weak unit_stream
#pragma weak unit_token
#pragma weak unit_extents
#pragma weak unit_attr
#pragma weak unit_path
#pragma weak unit_filter
#pragma weak unit_walk
#pragma weak unit_store
#pragma weak unit_catalog
#pragma weak unit_confine
#pragma weak unit_merge
#pragma weak unit_journal

unsigned long unit_checks;
unsigned long unit_failures;
unsigned long unit_skips;

static const struct test {
	const char *name;
	int (*run)(void);
} tests[] = {
	{"bytes", unit_bytes}, {"digest", unit_digest}, {"window", unit_window}, {"writeback", unit_writeback}, {"redo", unit_redo},
	{"chunks", unit_chunks}, {"record", unit_record}, {"stream", unit_stream}, {"token", unit_token}, {"extents", unit_extents},
	{"attr", unit_attr}, {"path", unit_path}, {"filter", unit_filter}, {"walk", unit_walk},
	{"store", unit_store}, {"catalog", unit_catalog}, {"confine", unit_confine}, {"merge", unit_merge}, {"journal", unit_journal},
};
#define N_TESTS (sizeof(tests) / sizeof(tests[0]))

bool unit_check(bool ok, const char *file, int line, const char *what)
{
	unit_checks++;
	if (!ok) {
		unit_failures++;
		fprintf(stderr, "%s:%d: %s\n", file, line, what);
	}
	return ok;
}

bool unit_check_u64(uint64_t got, uint64_t want, const char *file, int line, const char *what)
{
	bool ok = unit_check(got == want, file, line, what);
	if (!ok)
		fprintf(stderr, "\tgot %" PRIu64 " (0x%" PRIx64 "), not %" PRIu64 " (0x%" PRIx64 ")\n", got, got, want, want);
	return ok;
}

bool unit_check_str(const char *got, const char *want, const char *file, int line, const char *what)
{
	bool ok = unit_check(!strcmp(got, want), file, line, what);
	if (!ok)
		fprintf(stderr, "\tgot '%s', not '%s'\n", got, want);
	return ok;
}

void unit_skip(const char *test, const char *why)
{
	unit_skips++;
	printf("# skipped in %s: %s\n", test, why);
}

int unit_tmpdir(char *path, size_t n)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(path, n, "%s/repl-unit-XXXXXX", tmp && tmp[0] ? tmp : "/tmp");
	int fd = mkdtemp(path) ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0) {
		fprintf(stderr, "cannot make '%s': %s\n", path, strerror(errno));
		unit_check(false, __FILE__, __LINE__, "a temporary directory");
	}
	return fd;
}

static bool is_asked_for(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], name) || (!strncmp(argv[i], "unit_", 5) && !strcmp(argv[i] + 5, name)))
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	unsigned n = 0;
	int failed = 0;
	for (int i = 1; i < argc; i++) {
		bool known = false;
		for (size_t k = 0; k < N_TESTS; k++)
			known |= is_asked_for(tests[k].name, 2, (char *[]){argv[0], argv[i]});
		if (!known) {
			fprintf(stderr, "unit: no test is called '%s'\n", argv[i]);
			return 2;
		}
	}
	for (size_t k = 0; k < N_TESTS; k++) {
		if (!tests[k].run || !is_asked_for(tests[k].name, argc, argv))
			continue;
		unsigned long before = unit_checks;
		int bad = tests[k].run();
		failed |= bad != 0;
		printf("%sok %u - %s (%lu checks)\n", bad ? "not " : "", ++n, tests[k].name, unit_checks - before);
		fflush(stdout);
	}
	printf("1..%u\n", n);
	return fflush(stdout) || failed ? 1 : 0;
}
