#include "adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "diff.h"
#include "file.h"
#include "filter.h"
#include "head.h"
#include "path.h"
#include "rewind.h"
#include "source.h"

/* ---- what it holds ---- */

/* As the source of an image says it: the members, and where they are. */
struct holding {
	struct head head;
	struct filter filter;
	struct walk_root *roots; /* head.n_members */
};

static void holding_free(struct holding *h)
{
	head_close_roots(&h->roots, h->head.n_members);
	head_free(&h->head);
	filter_free(&h->filter);
}

struct member {
	char *name, *path;
	uint8_t kind;
};
struct members {
	struct member *v;
	size_t n;
};

static void add(struct members *m, const char *name, const char *path, bool is_tree)
{
	m->v = xrealloc(m->v, (m->n + 1) * sizeof *m->v);
	m->v[m->n++] = (struct member){xstrdup(name), xstrdup(path), is_tree ? MEMBER_TREE : MEMBER_VOLUME};
}

/* One that stands in the replica's directory, or the link of one that does not. */
static int add_entry(const struct replica *r, const char *real, struct members *m, const char *name, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	char text[300];
	struct stat st;

	esc_cut(text, sizeof text, span_cstr(name));
	if (fstatat(r->root, name, &st, AT_SYMLINK_NOFOLLOW))
		return err_sys(e, "cannot look at '%s' in the replica '%s'", text, r->path);
	bool is_elsewhere = where_find(&r->where, span_cstr(name));
	if (is_elsewhere && !S_ISLNK(st.st_mode))
		return err_set(e, ERR_REFUSED, "'%s' stands in the replica '%s' and elsewhere: move one of them away", text, r->path);
	if (is_elsewhere)
		return 0;
	if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
		return err_set(e, ERR_REFUSED, "'%s' in the replica '%s' is neither a tree nor a volume: with members elsewhere it holds a group, "
			"and that is no member of one", text, r->path);
	buf_fmt(&path, "%s/%s", real, name);
	add(m, name, buf_cstr(&path), S_ISDIR(st.st_mode));
	return 0;
}

static int list_members(const struct replica *r, const char *real, struct members *m, struct err *e)
{
	DIR *d = file_list(r->root);
	int rc = 0;

	if (!d)
		return err_sys(e, "cannot list the replica '%s'", r->path);
	for (const struct dirent *de; !rc && (de = readdir(d));)
		if (!room_is_ours(de->d_name))
			rc = add_entry(r, real, m, de->d_name, e);
	closedir(d);
	for (size_t i = 0; i < r->where.n; i++)
		add(m, r->where.v[i].name, r->where.v[i].path, r->where.v[i].is_tree);
	return rc;
}

static int by_name(const void *a, const void *b)
{
	const struct member *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int take_members(const struct replica *r, const char *real, struct head *h, struct err *e)
{
	struct members m = {0};
	int rc = list_members(r, real, &m, e);

	if (m.n)
		qsort(m.v, m.n, sizeof *m.v, by_name);
	for (size_t i = 0; i < m.n; i++) {
		head_take(h, &(struct record){.type = REC_MEMBER,
			.u.member = {m.v[i].kind, span_cstr(m.v[i].name), span_cstr(m.v[i].path)}});
		free(m.v[i].name);
		free(m.v[i].path);
	}
	free(m.v);
	return rc;
}

/* What a fresh filesystem has at its top is no content; unless fsck(8) made it some. */
static void leave_lost(struct holding *h)
{
	bool is_one = !h->head.members[0].name.len;

	for (size_t i = 0; i < h->head.n_members; i++) {
		AUTO_CLOSE int fd = path_open_at(h->roots[i].fd, "lost+found", O_RDONLY | O_DIRECTORY, 0);
		if (fd >= 0 && !room_is_empty_dir(fd))
			return;
	}
	filter_add(&h->filter, false, span_cstr(is_one ? "/lost+found/" : "/*/lost+found/"));
}

/* One tree; or with members elsewhere a group. */
static int hold(struct job *j, struct holding *h, struct err *e)
{
	const struct replica *r = &j->r;
	AUTO_FREE char *real = realpath(r->path, NULL);

	if (!real)
		return err_sys(e, "cannot find the replica '%s'", r->path);
	if (!r->where.n)
		head_take(&h->head, &(struct record){.type = REC_MEMBER, .u.member = {.kind = MEMBER_TREE, .path = span_cstr(real)}});
	else if (rewind_adopt_places(j, e) || take_members(r, real, &h->head, e))
		return -1;
	if (head_open_live(&h->head, &h->roots, e))
		return -1;
	leave_lost(h);
	return 0;
}

/* The root of a group has a link for each member elsewhere, and no metadata of its own: it lands with these. */
static int smooth_root(const struct replica *r, struct err *e)
{
	const struct timespec never[2] = {{.tv_nsec = UTIME_OMIT}, {0}};
	const struct where *w = &r->where;
	struct attr a = {0};

	if (!w->n)
		return 0;
	for (size_t i = 0; i < w->n; i++)
		if (symlinkat(w->v[i].path, r->root, w->v[i].name) && errno != EEXIST)
			return err_sys(e, "cannot make the link '%s/%s'", r->path, w->v[i].name);
	scan_group_attr(&a);
	return fchmod(r->root, a.meta.mode) || futimens(r->root, never) ? err_sys(e, "cannot set mode and time of '%s'", r->path) : 0;
}

/* ---- its catalog ---- */

static int adopt_next(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	struct job *j = ctx;
	AUTO_FREE char *path = replica_file(&j->r, "next");

	(void)items;
	if (catalog_open(&j->next, path, CATALOG_PRIVATE, e))
		return -1;
	*next = j->next;
	return 0;
}

/* A delta that was decided is finished first, or it would be finished later on top of what was adopted. Without the catalog that it
 * started from it cannot be; then what it moved out of the way goes. The record of it goes first: what is left is a tree without a
 * catalog, which nobody takes for a replica. */
static int settle_decided(struct job *j, struct err *e)
{
	struct replica *r = &j->r;

	if (!replica_has(r, "commit") && !replica_has(r, "goal"))
		return 0;
	if (replica_has(r, "catalog")) {
		int rc = rewind_recover(j, e);
		catalog_close(&r->cat);
		return rc;
	}
	job_say(j, "discarded a delta that had been interrupted");
	return replica_drop(r, "commit", e) || replica_drop(r, "goal", e) || fsync(r->ctl) || replica_drop(r, "detached", e) ||
		replica_discard(r, e) ? -1 : 0;
}

int adopt_run(struct apply *a, struct err *e)
{
	struct job j;
	struct holding h = {0};
	struct stream_out null_a = {.sink = source_nowhere}, null_b = {.sink = source_nowhere};
	struct catalog *empty = NULL;
	AUTO_FREE char *base_path = NULL, *next_path = NULL;
	int rc = -1;

	job_start(&j, a);
	if (job_confine(&j, NULL, e) || replica_open(&j.r, a->path, REPLICA_ADOPT, e) || settle_decided(&j, e) || hold(&j, &h, e))
		goto out;
	base_path = replica_file(&j.r, "empty");
	next_path = replica_file(&j.r, "next");
	unlink(base_path);
	unlink(next_path);
	if (catalog_open(&empty, base_path, CATALOG_PRIVATE, e))
		goto out;
	struct diff d = {.base = empty, .roots = h.roots, .n_roots = h.head.n_members, .members = h.head.members, .filter = &h.filter,
		.out = &null_a, .plan = &null_b, .next = adopt_next, .ctx = &j, .tmpdir = a->tmpdir, .warn = &j.warn, .image_only = true};
	if (diff_run(&d, e) || smooth_root(&j.r, e))
		goto out;
	if (catalog_settle(j.next, e))
		goto out;
	catalog_close(&j.next);
	if (replica_replace(&j.r, &d.id, e))
		goto out;
	a->n_created = d.n_created;
	rc = job_acknowledge(&j, ACK_ADOPTED, &d.id, d.n_created, 0, 0, 0, e);
out:
	holding_free(&h);
	catalog_close(&empty);
	catalog_close(&j.next);
	if (base_path)
		unlink(base_path);
	if (rc && next_path)
		unlink(next_path);
	stream_out_free(&null_a);
	stream_out_free(&null_b);
	return job_end(&j, rc);
}
