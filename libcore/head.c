#include "head.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "input.h"
#include "providers.h"
#include "volume.h"
#include "walk.h"

struct head_text {
	struct head_text *next;
	uint8_t bytes[];
};

static struct span keep(struct head *h, struct span s)
{
	struct head_text *t;

	if (!s.len)
		return (struct span){0};
	t = xalloc(sizeof *t + s.len);
	memcpy(t->bytes, s.p, s.len);
	t->next = h->owned;
	h->owned = t;
	return span_of(t->bytes, s.len);
}

void head_free(struct head *h)
{
	while (h->owned) {
		struct head_text *t = h->owned;
		h->owned = t->next;
		free(t);
	}
	free(h->members);
	*h = (struct head){0};
}

bool head_take(struct head *h, const struct record *r)
{
	if (r->type == REC_IMAGE) {
		h->has_image = true;
		h->stamps = r->u.image;
		h->stamps.host = keep(h, r->u.image.host);
		h->stamps.bookmark = keep(h, r->u.image.bookmark);
		h->stamps.group = keep(h, r->u.image.group);
		return true;
	}
	if (r->type == REC_CURSOR) {
		h->has_cursor = true;
		h->cursor = r->u.cursor;
		h->cursor.consumer = keep(h, r->u.cursor.consumer);
		return true;
	}
	if (r->type != REC_MEMBER)
		return false;
	h->members = xrealloc(h->members, (h->n_members + 1) * sizeof *h->members);
	h->members[h->n_members++] = (struct r_member){r->u.member.kind, keep(h, r->u.member.name),
		keep(h, r->u.member.path)};
	return true;
}

int head_of(struct head *h, struct catalog *c, struct err *e)
{
	AUTO_BUF struct buf rows = {0};
	struct record r = {.type = REC_IMAGE};
	struct err why = {0};
	int got = image_stamps(c, &r.u.image, &rows, e);

	if (got != 1)
		return got;
	head_take(h, &r);
	r = (struct record){.type = REC_CURSOR};
	if ((got = image_cursor(c, &r.u.cursor, &rows, e)) < 0)
		return -1;
	if (got)
		head_take(h, &r);
	if ((got = image_members(c, &rows, e)) != 1)
		return got;
	for (struct rd all = rd_of(rows.p, rows.len); all.len;) {
		uint16_t type = rd_u16(&all), flags = rd_u16(&all);
		uint32_t n = rd_u32(&all);
		struct span p = rd_raw(&all, n);
		if (all.bad || rec_decode(&r, type, flags, p.p, p.len, &why) || !head_take(h, &r))
			return catalog_damaged(c, "its members make no sense", e);
	}
	return 1;
}

int head_read(struct head *h, int fd, const char *reader, struct err *e)
{
	struct head new = {0};
	struct input in = {0};
	int got;

	if (input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_mac = true; /* a reference to files of this machine; what is made of it gets its own */
	while ((got = input_next(&in, e)) > 0 && got != STREAM_END) {
		if (got == STREAM_BEGIN && in.s.kind != KIND_IMAGE) {
			got = err_set(e, ERR_STREAM, "this is a stream of kind '%s': %s reads the image that repl-snap writes",
				kind_name(in.s.kind), reader);
			break;
		}
		if (got == STREAM_RECORD)
			head_take(&new, &in.s.rec);
	}
	if (got > 0 && (!new.has_image || !new.n_members))
		got = err_set(e, ERR_STREAM, "the image stream does not say what it is about");
	input_close(&in);
	if (got <= 0) {
		head_free(&new);
		return -1;
	}
	head_free(h);
	*h = new;
	return 0;
}

int head_put(const struct head *h, struct stream_out *o, enum stream_kind kind, struct err *e)
{
	struct record r = {.type = REC_IMAGE, .u.image = h->stamps};

	if (stream_begin(o, kind, e) || stream_put(o, &r, e))
		return -1;
	for (size_t i = 0; i < h->n_members; i++) {
		r = (struct record){.type = REC_MEMBER, .u.member = h->members[i]};
		if (stream_put(o, &r, e))
			return -1;
	}
	r = (struct record){.type = REC_CURSOR, .u.cursor = h->cursor};
	return h->has_cursor ? stream_put(o, &r, e) : 0;
}

bool head_same_members(const struct head *a, const struct head *b)
{
	bool same = a->n_members == b->n_members;

	for (size_t i = 0; i < a->n_members && same; i++)
		same = span_eq(a->members[i].name, b->members[i].name) && span_eq(a->members[i].path, b->members[i].path);
	return same;
}

static const char *bad_members(const struct head *h)
{
	if (!h->n_members)
		return "the image has no members";
	for (size_t i = 0; i < h->n_members; i++) {
		const struct r_member *m = &h->members[i];
		if (m->kind != MEMBER_TREE && m->kind != MEMBER_VOLUME)
			return "the image has a member that is neither a tree nor a volume: a newer program is needed here";
		if (!m->name.len && (h->n_members > 1 || m->kind == MEMBER_VOLUME))
			return "the image has a member without a name, which it needs";
		if (i && span_cmp(m[-1].name, m->name) >= 0)
			return "the image's members are out of order";
		if (!m->path.len || m->path.p[0] != '/' || memchr(m->path.p, 0, m->path.len))
			return "the image does not say where a member is";
	}
	return NULL;
}

/* A volume is what repl-snap saw that it is: never a fifo, or a terminal, that somebody has put there. */
static int open_member(const char *path, uint8_t kind)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | (kind == MEMBER_TREE ? O_DIRECTORY : O_NONBLOCK | O_NOCTTY));
	struct stat st;

	if (fd < 0 || (kind == MEMBER_VOLUME && fstat(fd, &st)))
		return -1;
	if (kind == MEMBER_VOLUME && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		errno = ENOTBLK;
		return -1;
	}
	volume_fresh(fd);
	int mine = fd;
	fd = -1;
	return mine;
}

int head_open_live(const struct head *h, struct walk_root **out, struct err *e)
{
	const char *why = bad_members(h);
	char text[300];

	if (why)
		return err_set(e, ERR_STREAM, "%s", why);
	struct walk_root *roots = xalloc(h->n_members * sizeof *roots);
	for (size_t i = 0; i < h->n_members; i++) {
		AUTO_BUF struct buf path = {0};
		struct buf name = {0};
		buf_add(&path, h->members[i].path.p, h->members[i].path.len);
		buf_add(&name, h->members[i].name.p, h->members[i].name.len);
		roots[i].name = buf_cstr(&name);
		roots[i].fd = open_member(buf_cstr(&path), h->members[i].kind);
		if (roots[i].fd < 0) {
			err_sys(e, "cannot open '%s'", esc_cut(text, sizeof text, h->members[i].path));
			head_close_roots(&roots, i + 1);
			return -1;
		}
	}
	*out = roots;
	return 0;
}

/* ---- snapshots ---- */

void head_snapshot_name(const struct head *h, char name[PROVIDER_NAME_MAX])
{
	char instance[2 * sizeof h->stamps.instance + 1];

	hex(instance, h->stamps.instance, sizeof h->stamps.instance);
	snprintf(name, PROVIDER_NAME_MAX, "%s-%" PRIu64, instance, h->stamps.seq);
}

bool head_is_still(const struct head *h) { return providers_of(h->stamps.provider) != NULL; }

int head_place(struct head_place *p, const struct head *h, size_t i, int fd, struct provider_root *r, struct err *e)
{
	const struct r_member *m = &h->members[i];
	char text[300];

	*p = (struct head_place){.fd = -1};
	*r = (struct provider_root){.path = m->path, .fd = fd};
	if (m->kind == MEMBER_TREE)
		return 0;
	p->fd = volume_place(fd, &p->dir, &p->file);
	if (p->fd < 0)
		return err_set(e, ERR_SYSTEM, "the content of '%s' lies in no file that could be cloned", esc_cut(text, sizeof text, m->path));
	r->path = span_cstr(buf_cstr(&p->dir));
	r->fd = p->fd;
	r->file = buf_cstr(&p->file);
	return 0;
}

void head_place_free(struct head_place *p)
{
	close_fd(&p->fd);
	buf_free(&p->dir);
	buf_free(&p->file);
}

bool head_has_only_volumes(const struct head *h)
{
	size_t n = 0;

	for (size_t i = 0; i < h->n_members; i++)
		n += h->members[i].kind == MEMBER_VOLUME;
	return n && n == h->n_members;
}

bool head_is_copy(const struct head *h) { return h->stamps.provider == PROV_REFLINK; }

/* The member's directory in *fd gives way to its snapshot. */
static int to_snapshot(const struct head *h, size_t i, int *fd, struct err *e)
{
	struct provider_root r;
	struct head_place place;
	char name[PROVIDER_NAME_MAX];

	head_snapshot_name(h, name);
	int snapshot = head_place(&place, h, i, *fd, &r, e) ? -1 : providers_of(h->stamps.provider)->open(&r, name, e);
	head_place_free(&place);
	if (snapshot < 0)
		return -1;
	close_fd(fd);
	*fd = snapshot;
	return 0;
}

int head_open_roots(const struct head *h, struct walk_root **out, struct err *e)
{
	struct walk_root *roots = NULL;

	if (head_open_live(h, &roots, e))
		return -1;
	for (size_t i = 0; i < h->n_members && head_is_still(h); i++) {
		if (to_snapshot(h, i, &roots[i].fd, e)) {
			head_close_roots(&roots, h->n_members);
			return -1;
		}
	}
	*out = roots;
	return 0;
}

int head_device(const struct head *h, const struct walk_root *roots, uint64_t *dev, struct err *e)
{
	struct walk_root *live = NULL;
	struct stat st, now;

	if (!head_is_still(h))
		return 0;
	if (head_open_live(h, &live, e))
		return -1;
	for (size_t i = 0; i < h->n_members; i++) {
		if (!fstat(live[i].fd, &now) && !fstat(roots[i].fd, &st) && now.st_dev == *dev) {
			*dev = st.st_dev;
			break;
		}
	}
	head_close_roots(&live, h->n_members);
	return 0;
}

void head_close_roots(struct walk_root **roots, size_t n)
{
	for (size_t i = 0; *roots && i < n; i++) {
		union {
			const char *c;
			char *p;
		} name = {.c = (*roots)[i].name};
		free(name.p);
		close_fd(&(*roots)[i].fd);
	}
	free(*roots);
	*roots = NULL;
}
