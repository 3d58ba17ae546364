#include "past.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "file.h"
#include "image.h"
#include "json.h"
#include "partial.h"
#include "rewind.h"
#include "stamp.h"

static void put_entry(struct buf *out, size_t back, const struct digest *id, const struct r_image *stamps, uint64_t bytes, bool json)
{
	char what[24];

	if (json) {
		buf_fmt(out, "%s{\"back\":%zu,\"bytes\":%" PRIu64 ",", back ? "," : "[", back, bytes);
		stamp_json(out, "image", id, stamps);
		buf_str(out, "}");
		return;
	}
	snprintf(what, sizeof what, back ? "-%zu" : "now", back);
	stamp_text(out, what, id, stamps);
}

static int recover(struct apply *a, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	struct job j;

	buf_fmt(&path, "%s/" REPLICA_CTL "/commit", a->path);
	if (access(buf_cstr(&path), F_OK))
		return 0;
	job_start(&j, a);
	int rc = rewind_open(&j, REPLICA_CHANGE, e);
	job_end(&j, rc);
	if (rc && e->kind == ERR_BUSY)
		*e = (struct err){0};
	return e->kind ? -1 : 0;
}

int past_list(struct apply *a, bool json, struct buf *out, struct err *e)
{
	const char *path = a->path;
	struct replica r = {0};
	AUTO_BUF struct buf store = {0};
	struct history h = {0};
	struct r_image now = {0};
	struct digest id;
	AUTO_FREE size_t *v = NULL;
	size_t n;
	int rc = -1;

	if (recover(a, e))
		return -1;
	if (replica_open(&r, path, REPLICA_READ, e) || replica_catalog(&r, CATALOG_READ, e) || catalog_id(r.cat, &id, e) ||
			image_stamps(r.cat, &now, &store, e) < 0 || history_load(&h, &r, e))
		goto out;
	v = history_images(&h, &id, &n);
	put_entry(out, 0, &id, &now, 0, json);
	for (size_t i = 0; i < n; i++)
		put_entry(out, i + 1, &h.v[v[i]].to, &h.v[v[i]].stamps, h.v[v[i]].bytes, json);
	if (json)
		buf_str(out, "]\n");
	rc = 0;
out:
	history_free(&h);
	replica_close(&r);
	return rc;
}

/* ---- the state of it ---- */

struct status {
	struct digest id;
	struct r_image stamps;
	struct buf store;
	int64_t age_s;         /* -1: not known */
	uint64_t partial, history, n_history;
	const char *left;
};

static int find_status(struct job *j, struct status *st, int64_t now_ns, struct err *e)
{
	static const char *const left[] = {"nothing", "finished", "discarded"};
	struct partial p = {0};
	struct history h = {0};

	if (job_confine(j, NULL, e) || rewind_open(j, REPLICA_CHANGE, e) || rewind_image(j, &st->id, &st->stamps, &st->store, e))
		return -1;
	st->left = left[j->left];
	st->age_s = st->stamps.time_ns ? (now_ns - st->stamps.time_ns) / 1000000000 : -1;
	int got = partial_load(&j->r, &p, e);
	st->partial = got > 0 ? p.place.off : 0;
	partial_free(&p);
	int rc = got < 0 ? -1 : history_load(&h, &j->r, e);
	for (size_t i = 0; i < h.n; i++)
		st->history += h.v[i].bytes;
	st->n_history = h.n;
	history_free(&h);
	return rc;
}

static void put_places(struct buf *out, const struct where *w, bool json)
{
	if (json)
		buf_str(out, ",\"where\":{");
	for (size_t i = 0; i < w->n; i++) {
		struct span name = span_cstr(w->v[i].name), path = span_cstr(w->v[i].path);
		if (json) {
			buf_str(out, i ? "," : "");
			json_string(out, name);
			buf_str(out, ":");
			json_string(out, path);
			continue;
		}
		buf_str(out, "where    ");
		esc_name(out, name);
		buf_str(out, " is ");
		esc_name(out, path);
		buf_str(out, "\n");
	}
	if (json)
		buf_str(out, "}");
}

static void put_status(struct buf *out, const struct status *st, const struct where *w, bool json)
{
	bool is_empty = digest_is_zero(&st->id);

	if (json) {
		buf_str(out, "{");
		if (is_empty)
			buf_str(out, "\"image\":null");
		else
			stamp_json(out, "image", &st->id, &st->stamps);
		if (st->age_s < 0)
			buf_str(out, ",\"age\":null");
		else
			buf_fmt(out, ",\"age\":%" PRId64, st->age_s);
		buf_fmt(out, ",\"recovered\":\"%s\",\"partial\":%" PRIu64 ",\"history\":{\"images\":%" PRIu64 ",\"bytes\":%" PRIu64 "}",
			st->left, st->partial, st->n_history, st->history);
		put_places(out, w, true);
		buf_str(out, "}\n");
		return;
	}
	if (is_empty)
		buf_str(out, "image    none\n");
	else
		stamp_text(out, "image", &st->id, &st->stamps);
	if (st->age_s >= 0)
		buf_fmt(out, "age      %" PRId64 " s\n", st->age_s);
	buf_fmt(out, "recovery %s\n", st->left);
	if (st->partial)
		buf_fmt(out, "partial  %" PRIu64 " bytes of a delta\n", st->partial);
	buf_fmt(out, "history  %" PRIu64 " undo%s, %" PRIu64 " bytes\n", st->n_history, st->n_history == 1 ? "" : "s", st->history);
	put_places(out, w, false);
}

int past_status(struct apply *a, int64_t now_ns, int64_t max_age, bool json, struct buf *out, struct err *e)
{
	struct job j;
	struct status st = {0};

	job_start(&j, a);
	int rc = find_status(&j, &st, now_ns, e);
	if (!rc) {
		put_status(out, &st, &j.r.where, json);
		if (digest_is_zero(&st.id))
			rc = err_set(e, ERR_MISMATCH, "the replica '%s' holds no image yet", a->path);
		else if (max_age && (st.age_s < 0 || st.age_s > max_age))
			rc = err_set(e, ERR_MISMATCH, "the image of '%s' is older than %lld s", a->path, (long long)max_age);
	}
	buf_free(&st.store);
	return job_end(&j, rc);
}

/* ---- going back ---- */

int past_rollback(struct apply *a, const char *which, int64_t time_ns, struct err *e)
{
	struct job j;
	AUTO_BUF struct buf store = {0};
	struct history h = {0};
	struct digest now, to;
	struct r_image stamps;
	int rc = -1;

	job_start(&j, a);
	if (job_confine(&j, NULL, e) || rewind_open(&j, REPLICA_CHANGE, e) || rewind_image(&j, &now, &stamps, &store, e) ||
			history_load(&h, &j.r, e) ||
			history_find(&h, &now, &stamps, which, time_ns, &to, e) || rewind_set_goal(&j.r, &to, e))
		goto out;
	rc = rewind_to(&j, &j.r, &to, e);
	if (replica_drop(&j.r, "goal", rc ? &(struct err){0} : e))
		rc = -1;
	if (rc || rewind_prune(&j, e)) {
		rc = -1;
		goto out;
	}
	j.current = to;
	rc = receive_tell(&j, e);
out:
	history_free(&h);
	return job_end(&j, rc);
}

/* ---- beside the replica ---- */

struct twin {
	struct job *from, *to;
	struct land *land;
};

/* A full delta's plan: the image of the catalog, with block digests in the place of content. */
static int plan_image(struct twin *t, struct digest *id, struct err *e)
{
	AUTO_CLOSE int fd = openat(t->to->r.ctl, "plan", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	struct sink sink = {.fd = fd, .name = "the plan"};
	struct stream_out o = {.sink = sink_write, .ctx = &sink};
	AUTO_BUF struct buf store = {0};
	struct record image = {.type = REC_IMAGE}, delta = {.type = REC_DELTA};
	int rc = -1;

	if (fd < 0)
		err_sys(e, "cannot write a plan in '%s'", t->to->r.path);
	else if (!rewind_image(t->from, id, &image.u.image, &store, e) && !stream_begin(&o, KIND_DELTA, e) &&
			!stream_put(&o, &image, e) && !stream_put(&o, &delta, e) &&
			!image_write(t->from->r.cat, &o, false, e) && !stream_finish(&o, e) && !sink_flush(&sink, e))
		rc = 0;
	stream_out_free(&o);
	sink_free(&sink);
	return rc;
}

static int twin_content(void *ctx, const struct plan_object *po, struct err *e)
{
	struct twin *t = ctx;
	struct replica *r = &t->from->r;
	AUTO_BUF struct buf path = {0};
	struct object o = {0};
	char name[32], text[512];
	uint64_t dir = CATALOG_ROOT, no = CATALOG_ROOT;
	int rc = -1;

	if (!po->staged)
		return 0;
	/* By its path, as its number is another one there. */
	if (catalog_object_path(t->land->plan.next, po->no, &path, e))
		return -1;
	for (size_t at = 0, n; at < path.len; at += n + 1, dir = no) {
		const uint8_t *slash = memchr(path.p + at, '/', path.len - at);
		n = slash ? (size_t)(slash - path.p) - at : path.len - at;
		if (catalog_lookup(r->cat, dir, span_of(path.p + at, n), &no, NULL, e) != 1)
			return e->kind ? -1 : catalog_damaged(r->cat, "it lacks a name that it should have", e);
	}
	if (catalog_get(r->cat, no, &o, e) != 1)
		return -1;
	AUTO_CLOSE int in = replica_open_base(r, &o, e);
	snprintf(name, sizeof name, "%llu", (unsigned long long)po->staged);
	AUTO_CLOSE int out = in < 0 ? -1 : openat(t->to->r.room.stage, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (in >= 0)
		rc = out < 0 || file_clone(in, out, o.size) ? err_sys(e, "cannot copy '%s' to '%s'",
			esc_cut(text, sizeof text, span_of(path.p, path.len)), t->to->r.path) : 0;
	object_free(&o);
	return rc;
}

/* A second replica with the same image. */
static int make_twin(struct job *from, struct job *to, struct err *e)
{
	struct land l = receive_landing(to);
	struct twin t = {from, to, &l};
	struct digest id;
	int rc = -1;

	l.max_delete = UINT64_MAX;
	if (!plan_image(&t, &id, e) && !land_load(&l, &id, e) &&
			!plan_walk(&l.plan, &(struct plan_visit){.object = twin_content, .ctx = &t}, e))
		rc = land_go(&l, e);
	land_end(&l);
	return rc;
}

int past_at(struct apply *a, const char *which, int64_t time_ns, const char *into, struct err *e)
{
	struct apply b = *a;
	struct job from, to;
	AUTO_BUF struct buf store = {0};
	struct history h = {0};
	struct digest now, id;
	struct r_image stamps;
	int rc = -1;

	b.path = into;
	b.n_places = 0;
	b.keep = (struct history_keep){0};
	b.max_delete = UINT64_MAX;
	b.max_delete_percent = 100;
	job_start(&from, a);
	job_start(&to, &b);
	if (job_confine(&from, into, e) || rewind_open(&from, REPLICA_CHANGE, e) || rewind_image(&from, &now, &stamps, &store, e) ||
			history_load(&h, &from.r, e) ||
			history_find(&h, &now, &stamps, which, time_ns, &id, e) || rewind_open(&to, REPLICA_APPLY, e))
		goto out;
	if (!catalog_is_empty(to.r.cat)) {
		err_set(e, ERR_REFUSED, "'%s' holds an image already: --into wants a directory that is missing or empty", into);
		goto out;
	}
	rc = make_twin(&from, &to, e) || rewind_to(&to, &from.r, &id, e) ? -1 : 0;
out:
	history_free(&h);
	job_end(&to, rc);
	return job_end(&from, rc);
}
