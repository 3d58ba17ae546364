#include "rewind.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "content.h"
#include "file.h"
#include "image.h"
#include "path.h"
#include "pool.h"
#include "source.h"

int rewind_image(struct job *j, struct digest *id, struct r_image *stamps, struct buf *store, struct err *e)
{
	*stamps = (struct r_image){0};
	return catalog_id(j->r.cat, id, e) || image_stamps(j->r.cat, stamps, store, e) < 0 ? -1 : 0;
}

static int scratch(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	(void)items;
	(void)e;
	*next = ctx;
	return 0;
}

/* The delta from what j's replica holds to a snapshot of home's; the descriptor of a file without a name, owned. */
static int delta_to_snapshot(struct job *j, const struct replica *home, int snapshot, const struct history_entry *h, struct err *e)
{
	AUTO_FREE char *ctl = replica_file(&j->r, "");
	AUTO_CLOSE int fd = file_temp(ctl);
	struct sink sink = {.fd = fd, .name = "the delta to a snapshot"};
	struct stream_out out = {.sink = sink_write, .ctx = &sink}, plan = {.sink = source_nowhere};
	struct walk_root root = {"", snapshot};
	struct r_member member = {.kind = MEMBER_TREE};
	struct catalog *next = NULL;
	struct diff d = {.base = j->r.cat, .roots = &root, .n_roots = 1, .stamps = h->stamps, .members = &member, .out = &out,
		.plan = &plan, .next = scratch, .tmpdir = j->a->tmpdir, .warn = &j->warn};
	int rc = fd < 0 ? err_sys(e, "cannot make a temporary file in '%s'", ctl) :
		source_scratch(&next, j->a->tmpdir, j->r.cat, e);

	memset(&d.stamps.id, 0, sizeof d.stamps.id);
	d.ctx = next;
	if (!rc)
		rc = diff_run(&d, e) || sink_flush(&sink, e) ? -1 : 0;
	/* Somebody edited the replica, where no delta came by, before the snapshot was taken. */
	if (!rc && !digest_eq(&d.id, &h->to))
		warn_say(&j->warn, "edited", "the snapshot '%s/" REPLICA_CTL "/history/%s' is not exactly its image: it is taken as it is",
			home->path, h->name);
	catalog_close(&next);
	stream_out_free(&out);
	stream_out_free(&plan);
	sink_free(&sink);
	return rc || lseek(fd, 0, SEEK_SET) ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int take_in(struct job *j, int fd, struct err *e)
{
	struct input in = {0}, *was = j->a->in;

	if (input_open(&in, fd, 1, e))
		return -1;
	in.s.ignore_data_digest = true;
	j->a->in = &in;
	j->is_ours = true;
	int got = input_next(&in, e), rc = got > 0 ? receive_run(j, got, e) : -1;
	j->is_ours = false;
	j->a->in = was;
	input_close(&in);
	return rc;
}

/* One entry of the replica `home` onto j's, which may be the same. */
static int step(struct job *j, const struct replica *home, const struct history_entry *h, struct err *e)
{
	AUTO_BUF struct buf name = {0};

	buf_fmt(&name, "history/%s", h->name);
	AUTO_CLOSE int fd = path_open(home->ctl, span_of(name.p, name.len), O_RDONLY, 0, e);
	if (fd < 0)
		return -1;
	AUTO_CLOSE int delta = h->is_snapshot ? delta_to_snapshot(j, home, fd, h, e) : -1;
	if (h->is_snapshot && delta < 0)
		return -1;
	return take_in(j, h->is_snapshot ? delta : fd, e);
}

/* Along home's history to the image `to`, whole images all the way. */
int rewind_to(struct job *j, const struct replica *home, const struct digest *to, struct err *e)
{
	struct history h;
	struct digest from;
	struct stream_out *ack = j->a->ack;
	char a[65];
	size_t n = 0;
	int rc = -1;

	if (history_load(&h, home, e) || catalog_id(j->r.cat, &from, e)) {
		history_free(&h);
		return -1;
	}
	AUTO_FREE size_t *way = history_way(&h, &from, to, &n);
	hex(a, to->b, 8);
	if (!way)
		err_set(e, ERR_REFUSED, "there is no way to image %s any more: its undo was removed", a);
	else
		rc = 0;
	j->a->ack = NULL;
	for (size_t i = 0; !rc && i < n; i++)
		rc = step(j, home, &h.v[way[i]], e);
	j->a->ack = ack;
	history_free(&h);
	return rc;
}

int rewind_set_goal(struct replica *r, const struct digest *to, struct err *e)
{
	AUTO_CLOSE int fd = openat(r->ctl, "goal", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 || file_write(fd, to->b, DIGEST_LEN) || fsync(fd) || fsync(r->ctl))
		return err_sys(e, "cannot write '%s/" REPLICA_CTL "/goal'", r->path);
	return 0;
}

/* A rollback that was interrupted between two images goes on. */
static int finish_rollback(struct job *j, struct err *e)
{
	struct digest to;

	if (!replica_has(&j->r, "goal"))
		return 0;
	AUTO_CLOSE int fd = path_open_at(j->r.ctl, "goal", O_RDONLY, 0);
	if (fd < 0 || file_read_at(fd, to.b, DIGEST_LEN, 0))
		return err_sys(e, "cannot read '%s/" REPLICA_CTL "/goal'", j->r.path);
	/* Zero: the crash came before the goal was on disk. What cannot be reached is no goal: the image in place is whole. */
	int rc = digest_is_zero(&to) ? 0 : rewind_to(j, &j->r, &to, e);
	if (!rc)
		job_say(j, "finished a rollback that had been interrupted");
	return replica_drop(&j->r, "goal", rc ? &(struct err){0} : e) || rc ? -1 : 0;
}

int rewind_recover(struct job *j, struct err *e)
{
	struct land l = receive_landing(j);

	if (replica_catalog(&j->r, CATALOG_LIVE, e) || land_recover(&l, &j->left, e))
		return -1;
	if (j->left != LAND_NOTHING)
		job_say(j, j->left == LAND_FINISHED ? "finished a delta that had been interrupted" :
			"discarded a delta that had been interrupted");
	return finish_rollback(j, e);
}

/* Another place for a volume that the replica has must hold what its image says. */
static int prove_volume(struct where_row *row, struct object *o, struct err *e)
{
	struct content c = {.window.threads = pool_threads(0)};
	char text[300];

	if (where_fits(row, o->size, e))
		return -1;
	AUTO_CLOSE int fd = where_read(row, e);
	struct content_file f = {.fd = fd, .size = o->size, .grain = content_grain(o->size), .only_digest = true};
	int rc = fd < 0 || content_run(&c, &f, e) ? -1 : 0;
	if (o->type != OBJ_FILE || (f.is_short && rc) || (!rc && !digest_eq(&f.digest, &o->content)))
		rc = err_set(e, ERR_REFUSED, "'%s' does not hold what the replica's '%s' does: copy that there first",
			esc_cut(text, sizeof text, span_cstr(row->path)), row->name);
	content_free(&c);
	return rc;
}

/* A tree that the replica has is known by its id. */
static int prove_tree(const struct where_row *row, const struct object *o, struct err *e)
{
	char text[300];

	if (row->is_open && o->type == OBJ_DIR)
		return 0;
	return err_set(e, ERR_REFUSED, "'%s' does not hold what the replica's '%s' does: is it mounted? A place that is new needs all of it "
		"first, with its " REPLICA_CTL, esc_cut(text, sizeof text, span_cstr(row->path)), row->name);
}

static int prove_place(struct job *j, struct where_row *row, struct err *e)
{
	struct object o = {0};
	uint64_t no;
	int got = catalog_lookup(j->r.cat, CATALOG_ROOT, span_cstr(row->name), &no, NULL, e);

	if (got <= 0)
		return got || !row->is_tree || row->is_open ? got : where_is_free(row, e);
	got = catalog_get(j->r.cat, no, &o, e) != 1 || (row->is_tree ? prove_tree(row, &o, e) : prove_volume(row, &o, e)) ? -1 : 0;
	object_free(&o);
	return got;
}

static int are_apart(int a, const char *at, int b, const char *with, struct err *e)
{
	char text[300], other[300];
	int got = path_is_inside(a, b);

	if (!got)
		got = path_is_inside(b, a);
	esc_cut(text, sizeof text, span_cstr(at));
	if (got < 0)
		return err_sys(e, "cannot look where '%s' is", text);
	return got ? err_set(e, ERR_REFUSED, "'%s' and '%s' are one in the other: a tree that stands elsewhere has a directory of its own",
		text, esc_cut(other, sizeof other, span_cstr(with))) : 0;
}

/* What is in another tree would be taken for its content. */
static int hold_apart(const struct replica *r, const struct where_row *row, struct err *e)
{
	const struct where *w = &r->where;
	AUTO_CLOSE int place = open(row->path, O_PATH | O_CLOEXEC);

	if (are_apart(place, row->path, r->root, r->path, e))
		return -1;
	for (size_t i = 0; i < w->n; i++) {
		AUTO_CLOSE int other = w->v[i].is_tree && &w->v[i] != row ? open(w->v[i].path, O_PATH | O_CLOEXEC) : -1;
		if (other >= 0 && are_apart(place, row->path, other, w->v[i].path, e))
			return -1;
	}
	return 0;
}

/* What was decided is finished where it was decided. */
static int hold_places(const struct job *j, struct err *e)
{
	const struct where *w = &j->r.where;

	for (size_t i = 0; i < w->n; i++) {
		if (w->v[i].is_new && replica_has(&j->r, "commit"))
			return err_set(e, ERR_REFUSED, "a delta was interrupted on '%s': finish it with repl-apply --status before '%s' gets another "
				"place", j->a->path, w->v[i].name);
		if (w->v[i].is_new && w->v[i].is_tree && hold_apart(&j->r, &w->v[i], e))
			return -1;
	}
	return 0;
}

/* Those that have their id in .repl/where by now, and do not say so yet. */
static int make_trees(struct where *w, struct err *e)
{
	for (size_t i = 0; i < w->n; i++)
		if (w->v[i].is_tree && !w->v[i].is_open && where_make(&w->v[i], e))
			return -1;
	return 0;
}

/* What was staged so far is where its member was to stand then. */
static int give_up_part(struct job *j, struct err *e)
{
	if (!replica_has(&j->r, "partial"))
		return 0;
	job_say(j, "gave up what was kept of a delta that had broken off: a member has another place now");
	return replica_discard(&j->r, e);
}

static int settle_places(struct job *j, struct err *e)
{
	struct where *w = &j->r.where;
	bool is_new = false;

	for (size_t i = 0; i < w->n; i++) {
		bool waits = w->v[i].is_tree && !w->v[i].is_open;
		is_new |= w->v[i].is_new;
		if ((w->v[i].is_new || waits) && prove_place(j, &w->v[i], e))
			return -1;
	}
	return (is_new && (give_up_part(j, e) || where_save(w, j->r.ctl, e))) || make_trees(w, e) ? -1 : 0;
}

int rewind_adopt_places(struct job *j, struct err *e)
{
	struct where *w = &j->r.where;

	for (size_t i = 0; i < w->n; i++)
		if (w->v[i].is_tree && !w->v[i].is_open && (hold_apart(&j->r, &w->v[i], e) || where_adopt(&w->v[i], e)))
			return -1;
	return where_save(w, j->r.ctl, e) || make_trees(w, e) ? -1 : 0;
}

int rewind_open(struct job *j, enum replica_open how, struct err *e)
{
	struct apply *a = j->a;

	if (a->dry) {
		struct err why = {0};
		if (replica_open(&j->r, a->path, REPLICA_READ, &why)) {
			if (why.sys && why.sys != ENOENT) {
				*e = why;
				return -1;
			}
			return 0; /* it would be made */
		}
		if (replica_has(&j->r, "commit"))
			return err_set(e, ERR_BUSY, "a delta was interrupted on '%s': run repl-apply there without --dry-run first", a->path);
		return replica_catalog(&j->r, CATALOG_READ, e);
	}
	return replica_open(&j->r, a->path, how, e) || hold_places(j, e) || rewind_recover(j, e) || settle_places(j, e) ? -1 : 0;
}

/* What history has too much of. */
int rewind_prune(struct job *j, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_image now;
	struct digest id;

	if (j->a->dry || !j->r.cat || rewind_image(j, &id, &now, &store, e))
		return j->a->dry || !j->r.cat ? 0 : -1;
	return history_prune(&j->r, &j->a->keep, &id, now.time_ns / 1000000000, e);
}
