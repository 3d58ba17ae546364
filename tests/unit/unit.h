/*
 * unit: the checks that tests from inside use. A test file exports one function `int unit_NAME(void)` that returns how many of
 * its checks failed; main.c calls it and counts.
 */
#ifndef REPL_UNIT_H
#define REPL_UNIT_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

extern unsigned long unit_checks;   /* done so far, in all tests */
extern unsigned long unit_failures; /* of them failed */
extern unsigned long unit_skips;

int unit_bytes(void);
int unit_digest(void);
int unit_window(void);
int unit_writeback(void);
int unit_redo(void);
int unit_chunks(void);
int unit_record(void);
int unit_stream(void);
int unit_token(void);
int unit_extents(void);
int unit_attr(void);
int unit_path(void);
int unit_filter(void);
int unit_walk(void);
int unit_store(void);
int unit_catalog(void);
int unit_confine(void);
int unit_merge(void);
int unit_journal(void);

/* Counts a check; says where and what when it failed. Returns ok. */
bool unit_check(bool ok, const char *file, int line, const char *what);
bool unit_check_u64(uint64_t got, uint64_t want, const char *file, int line, const char *what);
bool unit_check_str(const char *got, const char *want, const char *file, int line, const char *what);
/* A part that cannot be tried here: said on standard output, as a TAP comment. */
void unit_skip(const char *test, const char *why);
/* A new directory below $TMPDIR (else /tmp), its path in path[n]; an open descriptor, or -1 with the failure counted. */
int unit_tmpdir(char *path, size_t n);

#define CHECK(cond) unit_check((cond), __FILE__, __LINE__, #cond)
#define CHECK_EQ_U64(got, want) unit_check_u64((got), (want), __FILE__, __LINE__, #got " == " #want)
#define CHECK_EQ_STR(got, want) unit_check_str((got), (want), __FILE__, __LINE__, #got " == " #want)
/* err: a struct err, whose text tells more than the condition does. */
#define CHECK_OK(call, err) \
	do { \
		if (!CHECK((call) == 0)) \
			fprintf(stderr, "\t%s\n", (err).text); \
	} while (0)

#endif
