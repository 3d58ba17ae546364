#include "mounts.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

/* Blanks, newlines and backslashes come as \ooo. */
static char *unescape(const char *s, size_t n)
{
	char *out = xalloc(n + 1);
	size_t len = 0;

	for (size_t i = 0; i < n; i++) {
		if (s[i] == '\\' && n - i > 3 && s[i + 1] >= '0' && s[i + 1] <= '3') {
			out[len++] = (char)((s[i + 1] - '0') << 6 | (s[i + 2] - '0') << 3 | (s[i + 3] - '0'));
			i += 3;
		} else {
			out[len++] = s[i];
		}
	}
	return out;
}

static void add(struct mounts *m, char *line)
{
	unsigned major, minor;
	unsigned long long id;
	int at = 0;
	const char *word[5]; /* root, point, and behind options and tags and " - ": type, source, the superblock's options */

	if (sscanf(line, "%llu %*u %u:%u %n", &id, &major, &minor, &at) != 3 || !at)
		return;
	char *save = NULL, *s = line + at;
	char *dash = strstr(s, " - ");
	if (!dash)
		return;
	*dash = '\0';
	for (int i = 0; i < 2; i++)
		if (!(word[i] = strtok_r(i ? NULL : s, " ", &save)))
			return;
	for (int i = 2; i < 5; i++)
		if (!(word[i] = strtok_r(i > 2 ? NULL : dash + 3, " \n", &save)))
			return;
	m->v = xrealloc(m->v, (m->n + 1) * sizeof *m->v);
	m->v[m->n++] = (struct mount){.id = id, .dev = makedev(major, minor), .point = unescape(word[1], strlen(word[1])),
		.type = xstrdup(word[2]), .source = unescape(word[3], strlen(word[3])),
		.is_read_only = !strncmp(word[4], "ro", 2) && (word[4][2] == ',' || !word[4][2])};
}

int mounts_read(struct mounts *m, struct err *e)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	AUTO_FREE char *line = NULL;
	size_t cap = 0;

	if (!f)
		return err_sys(e, "cannot read '/proc/self/mountinfo'");
	*m = (struct mounts){0};
	while (getline(&line, &cap, f) > 0)
		add(m, line);
	bool is_bad = ferror(f) != 0;
	fclose(f);
	if (!is_bad)
		return 0;
	mounts_free(m);
	return err_set(e, ERR_SYSTEM, "cannot read '/proc/self/mountinfo' to its end");
}

void mounts_free(struct mounts *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].point);
		free(m->v[i].type);
		free(m->v[i].source);
	}
	free(m->v);
	*m = (struct mounts){0};
}

bool mounts_below(struct span path, struct span dir)
{
	if (dir.len == 1)
		return path.len > 0 && path.p[0] == '/';
	return path.len >= dir.len && !memcmp(path.p, dir.p, dir.len) && (path.len == dir.len || path.p[dir.len] == '/');
}

const struct mount *mounts_inside(const struct mounts *m, struct span dir)
{
	for (size_t i = 0; i < m->n; i++) {
		struct span at = span_cstr(m->v[i].point);
		if (at.len > dir.len && mounts_below(at, dir))
			return &m->v[i];
	}
	return NULL;
}

uint64_t mounts_id(int fd)
{
	struct statx sx;

	return statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID, &sx) || !(sx.stx_mask & STATX_MNT_ID) ? 0 :
		sx.stx_mnt_id;
}
