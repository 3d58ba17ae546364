/*
 * Replays inputs through a fuzz target without libFuzzer, so that every compiler and sanitizer can: each file named
 * on the command line, and each file in each folder named there, goes to LLVMFuzzerTestOneInput once. Files are
 * taken in the order of their names; the one at work is told to standard error only when it cannot be read.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional in a target. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static unsigned long n_inputs;

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t len = 0, room = 0, got;

	if (f == NULL) {
		fprintf(stderr, "cannot open '%s': %s\n", path, strerror(errno));
		return -1;
	}
	do {
		uint8_t *more;

		room = room == 0 ? 65536 : 2 * room;
		more = realloc(data, room);
		if (more == NULL)
			abort();
		data = more;
		got = fread(data + len, 1, room - len, f);
		len += got;
	} while (len == room);
	if (ferror(f)) {
		fprintf(stderr, "cannot read '%s': %s\n", path, strerror(errno));
		fclose(f);
		free(data);
		return -1;
	}
	fclose(f);
	/* A block of exactly this size: the sanitizer sees the first byte that is read behind it. */
	uint8_t *exact = malloc(len > 0 ? len : 1);
	if (exact == NULL)
		abort();
	memcpy(exact, data, len);
	free(data);
	LLVMFuzzerTestOneInput(exact, len);
	free(exact);
	n_inputs++;
	return 0;
}

static int replay(const char *path)
{
	struct dirent **names;
	struct stat st;
	int n, rc = 0;

	if (stat(path, &st) != 0) {
		/* A target whose corpus is still empty has no folder in the repository. */
		if (errno == ENOENT)
			return 0;
		fprintf(stderr, "cannot look up '%s': %s\n", path, strerror(errno));
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path);
	n = scandir(path, &names, NULL, alphasort);
	if (n < 0) {
		fprintf(stderr, "cannot list '%s': %s\n", path, strerror(errno));
		return -1;
	}
	for (int i = 0; i < n; i++) {
		char *below = NULL;

		if (names[i]->d_name[0] != '.') {
			if (asprintf(&below, "%s/%s", path, names[i]->d_name) < 0)
				abort();
			rc |= replay(below);
			free(below);
		}
		free(names[i]);
	}
	free(names);
	return rc;
}

int main(int argc, char **argv)
{
	int rc = 0;

	if (LLVMFuzzerInitialize != NULL)
		LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc; i++)
		rc |= replay(argv[i]);
	printf("%lu inputs\n", n_inputs);
	return rc == 0 ? 0 : 1;
}
