#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"

enum { DENTS_LEN = 64 * 1024 };

void listing_pack(struct listing_entry *s, const struct attr *a)
{
	s->mtime_s = a->meta.mtime_s;
	s->mtime_ns = a->meta.mtime_ns;
	s->ctime_s = a->hint.ctime_s;
	s->ctime_ns = a->hint.ctime_ns;
	s->btime_s = a->hint.btime_s;
	s->btime_ns = a->hint.btime_ns;
	s->dev = a->hint.dev;
	s->ino = a->hint.ino;
	s->nlink = a->hint.nlink;
	s->size = a->size;
	s->blocks512 = a->blocks512;
	s->uid = a->meta.uid;
	s->gid = a->meta.gid;
	s->major = a->meta.major;
	s->minor = a->meta.minor;
	s->attr = a->meta.attr;
	s->mode = a->meta.mode;
	s->type = a->type;
}

void listing_unpack(struct attr *a, const struct listing_entry *s)
{
	struct buf store = a->store;

	buf_reset(&store);
	*a = (struct attr){
		.type = s->type,
		.meta = {.mode = s->mode, .uid = s->uid, .gid = s->gid, .mtime_s = s->mtime_s,
			.mtime_ns = s->mtime_ns, .major = s->major, .minor = s->minor, .attr = s->attr},
		.hint = {.dev = s->dev, .ino = s->ino, .ctime_s = s->ctime_s, .ctime_ns = s->ctime_ns,
			.btime_s = s->btime_s, .btime_ns = s->btime_ns, .nlink = s->nlink},
		.size = s->size,
		.blocks512 = s->blocks512,
		.store = store,
	};
}

void listing_fill(struct listing *b, const struct sorted *m)
{
	b->n = m->n;
	if (m->n) {
		b->text = xdup(m->text.p, m->text.len);
		b->entries = xalloc(m->n * sizeof *b->entries);
	}
	for (size_t i = 0; i < m->n; i++) {
		b->entries[i].name_at = m->keys[i].at;
		b->entries[i].name_len = (uint8_t)m->keys[i].len;
	}
}

void listing_free(struct listing *b)
{
	free(b->text);
	free(b->entries);
	*b = (struct listing){0};
}

void listing_tools_init(struct listing_tools *t, const atomic_bool *stop)
{
	*t = (struct listing_tools){.stop = stop, .dents = xalloc(DENTS_LEN)};
}

void listing_tools_free(struct listing_tools *t)
{
	attr_free(&t->attr);
	sorted_free(&t->names);
	free(t->dents);
	t->dents = NULL;
}

static bool is_stopped(const struct listing_tools *t)
{
	return atomic_load_explicit(t->stop, memory_order_relaxed);
}

int listing_open(struct listing_tools *t, int at, const char *name, const struct listing_entry *st, int *sys)
{
	struct err e = {.kind = ERR_NONE};
	AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	int same;

	if (fd < 0) {
		*sys = errno;
		return -1;
	}
	if (attr_stat(&t->attr, fd, NULL, &e) < 0) {
		*sys = e.sys ? e.sys : EIO;
		return -1;
	}
	if (t->attr.hint.dev != st->dev || t->attr.hint.ino != st->ino) {
		*sys = ESTALE;
		return -1;
	}
	same = fd;
	fd = -1;
	return same;
}

/* The names in one piece of a directory; false when one is none. */
static bool gather(struct sorted *m, const uint8_t *dents, size_t len, bool is_root)
{
	bool is_sane = true;

	for (size_t at = 0; at < len;) {
		const struct dirent64 *de = (const void *)(dents + at);
		const char *name = de->d_name;
		size_t n = strlen(name);

		at += de->d_reclen;
		if (file_is_dots(name))
			continue;
		if (is_root && strcmp(name, ".repl") == 0)
			continue;
		if (n == 0 || n > SORTED_LEN_MAX || memchr(name, '/', n))
			is_sane = false;
		else
			sorted_add(m, name, n);
	}
	return is_sane;
}

static enum listing_end no_file(struct listing_job *j, int sys)
{
	j->sys = sys;
	return LISTING_NO_FILE;
}

enum listing_end listing_names(struct listing_tools *t, struct listing_job *j)
{
	struct sorted *m = &t->names;
	enum listing_end end = LISTING_COMPLETE;
	int sys;

	while (!is_stopped(t)) {
		ssize_t got = getdents64(j->fd, t->dents, DENTS_LEN);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			j->sys = errno;
			if (j->sys == ENOENT) /* removed while we hold it */
				return LISTING_REMOVED;
			end = LISTING_PARTIAL;
		}
		if (got <= 0)
			break;
		if (!gather(m, t->dents, (size_t)got, j->is_root)) { /* a damaged filesystem */
			j->sys = EILSEQ;
			end = LISTING_PARTIAL;
		}
		if (m->n >= j->limit && (sys = spill_add(j->file, &j->spill, m)) != 0)
			return no_file(j, sys);
	}
	if (j->spill && m->n && (sys = spill_add(j->file, &j->spill, m)) != 0)
		return no_file(j, sys);
	return end;
}

bool listing_stat(struct listing_tools *t, struct listing *b, int fd, size_t from, size_t to)
{
	bool failed = false;

	for (size_t i = from; i < to && !is_stopped(t); i++) {
		struct listing_entry *s = &b->entries[i];
		struct err e;

		e.kind = ERR_NONE; /* not {0}: a kilobyte of text for each name */
		e.sys = 0;
		if (attr_stat(&t->attr, fd, b->text + s->name_at, &e) == 0) {
			listing_pack(s, &t->attr);
		} else if (e.sys == ENOENT) {
			s->state = LISTING_GONE;
		} else {
			s->state = LISTING_FAILED;
			s->sys = (uint16_t)(e.sys ? e.sys : EIO);
			failed = true;
		}
	}
	return failed;
}
