#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

int target_start(struct target *t, struct err *e)
{
	t->devs = xalloc((t->n_roots + 1) * sizeof *t->devs);
	t->caches = xalloc((t->n_roots + 1) * sizeof *t->caches);
	for (size_t i = 0; i < t->n_roots; i++) {
		struct attr a = {0};
		if (attr_stat(&a, t->roots[i].fd, NULL, e))
			return -1;
		t->devs[i] = a.hint.dev;
		attr_free(&a);
		t->caches[i] = path_cache_new(t->roots[i].fd);
	}
	return 0;
}

static int vanished(const struct target *t, const struct spool_item *it)
{
	char text[512];

	warn_say(t->warn, "vanished", "'%s' went away while it was read; the replica keeps what it had",
		esc_cut(text, sizeof text, it->path));
	return 0;
}

/* Below a named member the path starts with the member's name. */
static struct span below_root(const struct target *t, const struct spool_item *it)
{
	size_t n = strlen(t->roots[it->root].name);
	struct span p = it->path;

	if (!n)
		return p;
	return p.len > n ? span_of(p.p + n + 1, p.len - n - 1) : span_of(p.p + n, 0);
}

static int open_named(const struct target *t, const struct spool_item *it, int dirfd, const char *name, int *fd)
{
	char text[512];

	if (name)
		*fd = path_open_at(dirfd, name, O_RDONLY, 0);
	else
		*fd = it->type == OBJ_DIR ? openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : fcntl(dirfd, F_DUPFD_CLOEXEC, 3);
	if (*fd >= 0)
		return 1;
	if (path_is_gone(errno))
		return vanished(t, it);
	warn_say(t->warn, "unreadable", "cannot read '%s': %s; the replica keeps what it had", esc_cut(text, sizeof text, it->path),
		strerror(errno));
	return 0;
}

int target_get(struct target *t, const struct spool_item *it, int *fd, struct attr *a, struct err *e)
{
	struct err why = {0};
	struct span rel = below_root(t, it), dir = {0}, last = {0};
	char component[256];
	const char *name = rel.len ? component : NULL;

	*fd = -1;
	path_split(rel, &dir, &last);
	if (name)
		span_name(component, last);
	int dirfd = path_cached(t->caches[it->root], dir, &why);
	if (dirfd < 0 || attr_stat(a, dirfd, name, &why) || a->type != it->type)
		return vanished(t, it);
	bool opens = a->type == OBJ_FILE || a->type == OBJ_DIR;
	if (opens) {
		uint64_t ino = a->hint.ino;
		if (!open_named(t, it, dirfd, name, fd))
			return 0;
		if (attr_stat(a, *fd, NULL, e))
			return -1;
		if (a->hint.ino != ino || a->type != it->type) {
			close_fd(fd);
			return vanished(t, it);
		}
	}
	if (attr_rest(a, opens ? *fd : dirfd, name, t->warn, &why)) {
		close_fd(fd);
		return vanished(t, it);
	}
	return 1;
}

void target_free(struct target *t)
{
	for (size_t i = 0; t->caches && i < t->n_roots; i++)
		path_cache_free(&t->caches[i]);
	free(t->caches);
	free(t->devs);
	t->caches = NULL;
	t->devs = NULL;
}
