#include "receive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "charge.h"
#include "clock.h"
#include "file.h"
#include "image.h"
#include "partial.h"
#include "undo.h"

#define CHECKPOINT_MS 30000

/* ---- receiving one delta ---- */

#define REF_IN_TREE (UINT64_C(1) << 63)

static int set_ref(struct job *j, uint64_t ref, uint64_t no, struct err *e)
{
	if (ref == REF_NONE || (j->is_again && ref == (no | REF_LOCAL)) || (ref < j->n_refs && j->refs[ref] == no))
		return 0;
	if (ref != j->n_refs)
		return err_set(e, ERR_STREAM, "object number %llu is out of order", (unsigned long long)ref);
	if (charge_number(j, e))
		return -1;
	if (j->n_refs == j->cap_refs) {
		j->cap_refs *= 2;
		j->refs = xrealloc(j->refs, j->cap_refs * sizeof *j->refs);
	}
	j->refs[j->n_refs++] = no;
	return 0;
}

static int base_of(const struct job *j, uint64_t ref, uint64_t *no, struct err *e)
{
	if (ref >= j->n_refs || !ref)
		return err_set(e, ERR_STREAM, "object number %llu was never given", (unsigned long long)ref);
	*no = j->refs[ref] & REF_IN_TREE ? 0 : j->refs[ref];
	return 0;
}

static uint64_t known(const void *ctx, uint64_t ref)
{
	const struct job *j = ctx;

	return ref < j->n_refs && !(j->refs[ref] & REF_IN_TREE) ? j->refs[ref] : 0;
}

/* A new directory's number in refs says as well in which of the trees elsewhere it is. */
static uint64_t new_in(const struct job *j, const struct where_row *tree)
{
	return tree ? REF_IN_TREE | (uint64_t)(tree - j->r.where.v) : 0;
}

/* The tree elsewhere that what is in this directory belongs to; NULL: none, or e says why nobody knows. */
static struct where_row *tree_of(const struct job *j, uint64_t ref, struct err *e)
{
	AUTO_BUF struct buf path = {0};
	struct span below;
	uint64_t no = j->refs[ref];

	if (no & REF_IN_TREE)
		return &j->r.where.v[no & ~REF_IN_TREE];
	if (!no || no == CATALOG_ROOT || catalog_object_path(j->r.cat, no, &path, e))
		return NULL;
	return where_tree(&j->r.where, span_of(path.p, path.len), &below);
}

static int keep_rows(void *ctx, uint64_t first, size_t n, const uint8_t *rows, struct err *e)
{
	struct job *j = ctx;
	struct record r = {.type = REC_DIGESTS, .u.digests = {first, span_of(rows, n * DIGESTS_ROW)}};

	return stream_put(&j->plan, &r, e);
}

/* Answers with the image that is here: when an earlier answer got lost, this one makes up for it. */
int receive_tell(struct job *j, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_image now = {0};

	if (image_stamps(j->r.cat, &now, &store, e) < 0)
		return -1;
	j->seq = now.seq;
	j->time_ns = now.time_ns;
	memcpy(j->instance, now.instance, 16);
	j->base = j->current;
	return job_acknowledge(j, ACK_ALREADY, &j->current, 0, 0, 0, 0, e);
}

static void tell_if_any(struct job *j)
{
	struct err ignored = {0};

	if (!digest_is_zero(&j->current))
		receive_tell(j, &ignored);
}

/* Is there a way to the delta's base? */
static bool was_here(struct job *j)
{
	struct history h;
	struct err ignored = {0};
	size_t n;

	bool is_read = !history_load(&h, &j->r, &ignored);
	AUTO_FREE size_t *way = is_read ? history_way(&h, &j->current, &j->base, &n) : NULL;
	history_free(&h);
	return way;
}

static int mismatch(struct job *j, struct err *e)
{
	char want[65], have[65];
	bool is_full = digest_is_zero(&j->base);

	hex(want, j->base.b, 8);
	hex(have, j->current.b, 8);
	bool went_back = !is_full && was_here(j);
	if (digest_is_zero(&j->current))
		return err_set(e, ERR_MISMATCH, "the delta starts from image %s, the replica '%s' is empty: send everything", want,
			j->a->path);
	if (went_back)
		return err_set(e, ERR_MISMATCH, "the delta starts from image %s, the replica '%s' went back to image %s: "
			"repl-apply --rollback=%s goes there again", want, j->a->path, have, want);
	return err_set(e, ERR_MISMATCH, "the delta starts from %s%s, the replica '%s' holds image %s: a state that made that "
		"one goes on from there in its next run, others use repl-snap --digest", is_full ? "nothing" : "image ",
		is_full ? "" : want, j->a->path, have);
}

/* A tree may come back to what it was; then an old delta, signed and all, fits again. The state counts its images, so such a one
 * is known by its number. */
static bool is_replayed(const struct job *j, struct err *e)
{
	AUTO_BUF struct buf store = {0};
	struct r_image now;

	if (j->is_ours || is_zero(j->instance, 16) || digest_is_zero(&j->current))
		return false;
	int got = image_stamps(j->r.cat, &now, &store, e);
	if (got < 0)
		return true;
	if (!got || memcmp(now.instance, j->instance, 16) || j->seq >= now.seq)
		return false;
	err_set(e, ERR_REFUSED, "the delta brings image %llu of its source, the replica '%s' holds image %llu: it was sent before",
		(unsigned long long)j->seq, j->a->path, (unsigned long long)now.seq);
	return true;
}

/* The delta fits: what is left of another one makes room. */
static int start_staging(struct job *j, struct err *e)
{
	if (replica_has(&j->r, "partial"))
		job_say(j, "gave up what was kept of a delta that had broken off: another one begins");
	if (replica_discard(&j->r, e))
		return -1;
	if (renameat(j->r.ctl, "plan.new", j->r.ctl, "plan"))
		return err_sys(e, "cannot write a plan in '%s'", j->a->path);
	j->is_staged = true;
	j->saved_off = 0;
	j->saved_ms = clock_ms();
	return 0;
}

static int begin_delta(struct job *j, const struct r_delta *d, struct err *e)
{
	if (j->has_delta)
		return err_set(e, ERR_STREAM, "a second DELTA record in one stream");
	j->has_delta = true;
	j->base = d->base;
	j->announced = d->bytes;
	j->skip = !digest_eq(&d->base, &j->current);
	if (j->skip)
		return 0;
	/* In a chain that is sent once more the tree may have come back to what it was: one that goes on from here may follow. */
	struct err old = {0};
	if (is_replayed(j, &old)) {
		if (j->is_again || old.kind != ERR_REFUSED) {
			*e = old;
			return -1;
		}
		if (!j->missed.kind)
			j->missed = old;
		j->skip = true;
		return 0;
	}
	if (!j->is_again && charge_space(j, d->bytes, e))
		return -1;
	return j->is_again || j->a->dry ? 0 : start_staging(j, e);
}

/* Owners are the stream's own numbers, and to be set. */
static bool may_dress(const struct job *j) { return !j->a->policy.no_owner && !j->a->n_owners && !j->a->map_names; }

static int take_content(struct job *j, const struct record *rec, struct err *e)
{
	struct object old = {0};
	uint64_t src = 0;
	int rc = -1;

	switch ((enum rec_type)rec->type) {
	case REC_CONTENT:
		if (!j->cur_is_file)
			return err_set(e, ERR_STREAM, "content for what is not a file");
		j->n_content++;
		if (j->a->dry || j->is_again)
			return 0;
		if (j->cur && catalog_get(j->r.cat, j->cur, &old, e) != 1)
			return catalog_damaged(j->r.cat, "it lacks an object that it should have", e);
		rc = stage_begin(&j->stage, j->n_content, &rec->u.content, &(struct stage_file){j->cur ? &old : NULL,
			j->tree ? &j->tree->room : &j->r.room, j->place, j->place_is_free, j->cur_dir,
			span_cstr(j->cur_name), j->cur_has_meta ? &j->cur_meta : &old.meta,
			may_dress(j) && (j->cur_has_meta ? j->cur_is_plain : meta_is_plain(&old.meta))}, e);
		object_free(&old);
		return rc;
	case REC_DATA:
		if (charge_content(j, rec->u.data.bytes.len, e))
			return -1;
		j->a->bytes += rec->u.data.bytes.len;
		j->bytes += rec->u.data.bytes.len;
		if (j->a->progress)
			j->a->progress(j->a->ctx, j->bytes, j->announced, j->n_content);
		if (j->a->dry) {
			struct digest d;
			digest_bytes(&d, rec->u.data.bytes.p, rec->u.data.bytes.len);
			return digest_eq(&d, &rec->u.data.digest) ? 0 :
				err_set(e, ERR_STREAM, "content does not match its digest");
		}
		return stage_data(&j->stage, &rec->u.data, e);
	case REC_COPY:
		if (charge_content(j, rec->u.copy.len, e) || base_of(j, rec->u.copy.ref, &src, e))
			return -1;
		if (!src)
			return err_set(e, ERR_STREAM, "a copy from what is not in the base");
		return j->a->dry ? 0 : stage_copy(&j->stage, &rec->u.copy, src, e);
	case REC_HOLE:
		return j->a->dry ? 0 : stage_hole(&j->stage, &rec->u.hole, e);
	default:
		return j->a->dry || j->is_again ? 0 : stage_seal(&j->stage, &rec->u.seal, e);
	}
}

static int find_base(struct job *j, const struct r_base *b, struct err *e)
{
	uint64_t dir = 0, no = 0;
	uint8_t type = 0;
	char text[300];

	if (base_of(j, b->parent, &dir, e))
		return -1;
	int got = dir ? catalog_lookup(j->r.cat, dir, b->name, &no, &type, e) : 0;
	if (got < 0)
		return -1;
	if (!got)
		return err_set(e, ERR_MISMATCH, "the base has no '%s' where the delta changes it: if the next one says so too, the catalog of a "
			"side is damaged, see repl(7), \"A catalog is damaged\"",
			esc_cut(text, sizeof text, b->name));
	j->cur = no;
	j->cur_dir = 0;
	j->place = NULL;
	j->cur_is_file = type == OBJ_FILE && !(b->flags & BASE_DETACH);
	return set_ref(j, b->ref, no, e);
}

static int find_object(struct job *j, uint64_t ref, struct err *e)
{
	struct object o = {0};
	uint64_t no = 0;

	if (base_of(j, ref, &no, e))
		return -1;
	j->cur = no;
	j->cur_dir = 0;
	j->place = NULL;
	j->tree = no ? NULL : tree_of(j, ref, e);
	j->cur_is_file = !no; /* a new one: the loader knows its type and will say so */
	if (no) {
		int got = catalog_get(j->r.cat, no, &o, e);
		j->cur_is_file = got == 1 && o.type == OBJ_FILE;
		object_free(&o);
		return got < 0 ? -1 : 0;
	}
	return 0;
}

/* A new volume may stand elsewhere: at once when the base has none under this name. What is new in a tree elsewhere gets there by way
 * of that one's room. */
static int find_place(struct job *j, const struct r_create *c, struct err *e)
{
	struct where_row *row = c->parent == REF_ROOT && c->ref != REF_ROOT ? where_find(&j->r.where, c->name) : NULL;
	uint64_t no;

	j->place = row && !row->is_tree ? row : NULL;
	j->tree = row && row->is_tree ? row : NULL;
	if (!row && j->r.where.has_tree && c->ref != REF_ROOT && !(j->tree = tree_of(j, c->parent, e)))
		return e->kind ? -1 : 0;
	if (!j->place)
		return 0;
	int got = catalog_lookup(j->r.cat, CATALOG_ROOT, c->name, &no, NULL, e);
	j->place_is_free = got == 0;
	return got < 0 ? -1 : 0;
}

/* A new file in a new directory is staged in that one. */
static void find_dir(struct job *j, const struct r_create *c)
{
	bool is_in = c->type == OBJ_FILE && c->parent != REF_ROOT && !j->refs[c->parent] && !j->r.where.n;

	j->cur_dir = is_in ? c->parent : 0;
	span_name(j->cur_name, c->name);
}

/* Under another name than `plan` until it is known to fit: part of another delta may be waiting for its rest. */
static int open_plan(struct job *j, struct err *e)
{
	const struct apply *a = j->a;

	if (a->dry)
		j->plan_fd = file_temp(a->tmpdir);
	else
		j->plan_fd = openat(j->r.ctl, "plan.new", O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (j->plan_fd < 0)
		return err_sys(e, "cannot write a plan in '%s'", a->dry ? a->tmpdir : a->path);
	j->sink = (struct sink){.fd = j->plan_fd, .name = "the plan"};
	j->plan = (struct stream_out){.sink = sink_write, .ctx = &j->sink};
	return stream_begin(&j->plan, KIND_DELTA, e);
}

static int go_on(struct job *j, const struct r_resume *want, struct err *e);

/* A file that comes with its directory, and gets no further names, needs no look when it does. */
static int put_hint(struct job *j, struct err *e)
{
	const struct record r = {.type = REC_HINT, .u.hint = j->stage.hint};

	return r.u.hint.ino ? stream_put(&j->plan, &r, e) : 0;
}

/* One record, checked against the base as far as it can be before the whole is there. */
static int take(struct job *j, const struct record *rec, struct err *e)
{
	uint64_t unused;

	if (j->is_first && rec->type == REC_RESUME) {
		j->is_first = false;
		return go_on(j, &rec->u.resume, e);
	}
	if (j->is_first && !j->is_again && open_plan(j, e))
		return -1;
	j->is_first = false;
	if (rec->type == REC_RESUME)
		return err_set(e, ERR_STREAM, "a 'resume' record that is not the first one");
	if (j->has_delta && !j->skip && !j->is_again && !digest_is_zero(&j->base))
		prefetch_run(&j->soon, j->r.cat, &j->a->in->s);
	if (rec->type == REC_META) {
		j->cur_meta = rec->u.meta;
		j->cur_is_plain = meta_is_plain(&rec->u.meta);
	}
	if (rec->type == REC_META || rec->type == REC_BASE || rec->type == REC_CREATE || rec->type == REC_OBJECT)
		j->cur_has_meta = rec->type == REC_META;
	if (j->has_end)
		return err_set(e, ERR_STREAM, "a '%s' record after the end", rec_row(rec->type)->name);
	if (rec->type == REC_CURSOR) /* of the source's journal */
		return 0;
	if (!j->has_delta && rec->type >= REC_OWNER && rec->type < REC_BEAT)
		return err_set(e, ERR_STREAM, "a '%s' record before DELTA", rec_row(rec->type)->name);
	switch ((enum rec_type)rec->type) {
	case REC_MEMBER:
	case REC_IMAGE:
		if (j->has_delta)
			return err_set(e, ERR_STREAM, "a '%s' record after DELTA", rec_row(rec->type)->name);
		if (rec->type == REC_MEMBER && j->r.where.has_tree && !j->is_ours && !rec->u.member.name.len)
			return err_set(e, ERR_REFUSED, "the image is one tree, in which things move from directory to directory: what is to "
				"stand elsewhere has to be a member of a group, NAME=PATH of repl-snap");
		if (rec->type == REC_MEMBER)
			break;
		j->time_ns = rec->u.image.time_ns;
		j->seq = rec->u.image.seq;
		memcpy(j->instance, rec->u.image.instance, 16);
		break;
	case REC_DELTA:
		if (begin_delta(j, &rec->u.delta, e))
			return -1;
		break;
	case REC_END:
		j->want = rec->u.end.id;
		j->has_end = true;
		break;
	case REC_BASE:
		if (!j->skip && (charge_parent(j, rec->u.base.parent, e) || find_base(j, &rec->u.base, e)))
			return -1;
		break;
	case REC_CREATE:
		j->cur = 0;
		j->place = j->tree = NULL;
		j->cur_is_file = rec->u.create.type == OBJ_FILE;
		if (!j->skip && rec->u.create.ref == REF_ROOT) {
			if (j->has_root || !digest_is_zero(&j->base))
				return err_set(e, ERR_STREAM, "a second root");
			j->has_root = true;
		} else if (!j->skip && (charge_name(j, rec->u.create.parent, rec->u.create.name, e) ||
				base_of(j, rec->u.create.parent, &unused, e) || (!j->a->dry && find_place(j, &rec->u.create, e)) ||
				set_ref(j, rec->u.create.ref, new_in(j, j->tree), e))) {
			return -1;
		}
		if (!j->skip)
			find_dir(j, &rec->u.create);
		break;
	case REC_ATTACH:
		if (!j->skip && (charge_name(j, rec->u.attach.parent, rec->u.attach.name, e) ||
				base_of(j, rec->u.attach.parent, &unused, e) || base_of(j, rec->u.attach.ref, &unused, e)))
			return -1;
		break;
	case REC_STRAY:
		if (!j->skip && base_of(j, rec->u.stray.parent, &unused, e))
			return -1;
		break;
	case REC_OWNER:
		if (!j->skip && j->a->map_names && charge_owner(j, e))
			return -1;
		break;
	case REC_OBJECT:
		if (!j->skip && find_object(j, rec->u.object.ref, e))
			return -1;
		break;
	case REC_CONTENT:
	case REC_DATA:
	case REC_COPY:
	case REC_HOLE:
	case REC_SEAL:
		if (!j->skip && take_content(j, rec, e))
			return -1;
		break;
	case REC_CHANGED:
	case REC_GAP:
		return err_set(e, ERR_STREAM, "a '%s' record, which only a plan may hold", rec_row(rec->type)->name);
	case REC_DIGESTS:
	case REC_HINT: /* of another machine: ours are made when the object is placed */
		return 0;
	default:
		break;
	}
	if (j->skip || j->is_again || rec->type == REC_DATA || rec->type == REC_COPY || rec->type == REC_HOLE)
		return 0;
	struct record kept = *rec;
	if (rec->type == REC_BASE && rec->u.base.ref == REF_NONE) /* landing asks for it by number all the same */
		kept.u.base.ref = j->cur | REF_LOCAL;
	return stream_put(&j->plan, &kept, e) || (rec->type == REC_SEAL && put_hint(j, e)) ? -1 : 0;
}

/* ---- going on with a delta that broke off ---- */

/* Takes the records of the plan once more, for what we know from them. Its first len bytes are whole records. */
static int take_again(struct job *j, uint64_t len, struct err *e)
{
	struct stream_in s = {0};
	int got = 0;

	j->is_again = true;
	for (uint64_t at = 0; got >= 0;) {
		got = stream_next(&s, e);
		if (got == STREAM_RECORD && take(j, &s.rec, e))
			got = -1;
		if (got != STREAM_MORE)
			continue;
		size_t room, n;
		uint8_t *p = stream_space(&s, 65536, &room);
		n = (size_t)min_u64(room, len - at);
		if (!n)
			break;
		if (file_read_at(j->plan_fd, p, n, at))
			got = err_sys(e, "cannot read the plan in '%s'", j->a->path);
		stream_fed(&s, n);
		at += n;
	}
	if (!got && stream_place(&s)->off != len)
		got = err_set(e, ERR_SYSTEM, "the plan in '%s' is damaged: send the delta from its start", j->a->path);
	j->is_again = false;
	j->plan = (struct stream_out){.sink = sink_write, .ctx = &j->sink, .at = *stream_place(&s), .open = true};
	stream_in_free(&s);
	return got;
}

static int take_up(struct job *j, const struct partial *p, struct err *e)
{
	struct rd stage = rd_of(p->stage.p, p->stage.len);

	j->plan_fd = openat(j->r.ctl, "plan", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (j->plan_fd < 0 || ftruncate(j->plan_fd, (off_t)p->plan_len) || lseek(j->plan_fd, 0, SEEK_END) < 0)
		return err_sys(e, "cannot open the plan in '%s'", j->a->path);
	j->sink = (struct sink){.fd = j->plan_fd, .name = "the plan", .written = p->plan_len};
	if (take_again(j, p->plan_len, e) || partial_forget(&j->r, j->n_content, j->a->policy.no_owner, e) || stage_load(&j->stage, &stage, e))
		return -1;
	if (!rd_done(&stage))
		return err_set(e, ERR_SYSTEM, "what '%s' kept of a delta is damaged: send the delta from its start", j->a->path);
	j->content = p->content;
	stream_resumed(&j->a->in->s, &p->place);
	j->saved_off = p->place.off;
	j->saved_ms = clock_ms();
	return 0;
}

static int go_on(struct job *j, const struct r_resume *want, struct err *e)
{
	struct partial p = {0};
	int rc;

	if (j->a->dry)
		return err_set(e, ERR_REFUSED, "--dry-run wants a whole delta: this is the rest of one that broke off");
	int got = partial_load(&j->r, &p, e);
	if (got <= 0) {
		tell_if_any(j);
		rc = got ? -1 : err_set(e, ERR_MISMATCH, "this is the rest of a delta that broke off, but '%s' keeps no part of one: "
			"send the delta from its start", j->a->path);
	} else if (want->off != p.place.off || want->records != p.place.records || want->bytes != p.place.bytes ||
			!digest_eq(&want->digest, &p.head) || !digest_eq(&p.base, &j->current)) {
		rc = err_set(e, ERR_MISMATCH, "this is the rest of another delta, or goes on elsewhere, at byte %llu: what '%s' keeps "
			"goes on at byte %llu, repl-apply --resume-token has the token", (unsigned long long)want->off, j->a->path,
			(unsigned long long)p.place.off);
	} else {
		rc = take_up(j, &p, e);
		j->is_staged = !rc;
		j->is_rest = true;
	}
	partial_free(&p);
	return rc;
}

/* What came so far is worth keeping from here on. */
static int checkpoint(struct job *j, struct err *e)
{
	struct partial p = {.base = j->base, .place = *stream_place(&j->a->in->s), .content = j->content};
	int rc = stage_save(&j->stage, &p.stage, e) || sink_flush(&j->sink, e) ? -1 : 0;

	p.plan_len = j->sink.written;
	if (!rc)
		rc = partial_save(&j->r, &p, e);
	partial_free(&p);
	j->saved_off = p.place.off;
	j->saved_ms = clock_ms();
	return rc;
}

static bool is_checkpoint_due(const struct job *j)
{
	uint64_t more = stream_place(&j->a->in->s)->off - j->saved_off;

	return j->is_staged && j->checkpoint && more && (more >= j->checkpoint || clock_ms() - j->saved_ms >= CHECKPOINT_MS);
}

static int begin_stream(struct job *j, struct err *e)
{
	struct apply *a = j->a;

	if (a->in->s.kind != KIND_DELTA)
		return err_set(e, ERR_STREAM, "this is a stream of kind '%s', repl-apply reads deltas: %s",
			kind_name(a->in->s.kind), a->in->s.kind == KIND_ACK ? "an acknowledgement goes to repl-snap --commit" :
			"repl-diff is missing before this stage");
	j->soon = (struct prefetch){.known = known, .ctx = j, .inodes = true, .until = j->soon.until};
	j->has_delta = j->has_end = j->skip = j->has_root = false;
	j->is_first = true;
	j->is_staged = j->is_again = j->is_rest = false;
	j->n_content = j->bytes = j->announced = j->memory = j->content = j->last_parent = 0;
	j->time_ns = 0;
	j->seq = 0;
	memset(j->instance, 0, 16);
	j->cur = 0;
	j->cur_is_file = false;
	j->n_refs = 2;
	if (!j->refs) {
		j->cap_refs = 64;
		j->refs = xalloc(j->cap_refs * sizeof *j->refs);
	}
	j->refs[REF_ROOT] = j->r.cat && !catalog_is_empty(j->r.cat) ? CATALOG_ROOT : 0;
	memset(&j->current, 0, sizeof j->current);
	if (j->r.cat && catalog_id(j->r.cat, &j->current, e))
		return -1;
	return 0;
}

struct land receive_landing(struct job *j)
{
	struct apply *a = j->a;
	struct land l = {.r = &j->r, .policy = a->policy, .owners = a->owners, .n_owners = a->n_owners, .map_names = a->map_names,
		.warn = &j->warn, .item = a->item, .edited = a->edited, .kept = a->kept, .ctx = a->ctx, .max_delete = a->max_delete,
		.max_delete_percent = a->max_delete_percent};

	l.policy.warn = &j->warn;
	return l;
}

/* What would happen, in a copy of the catalog. */
static int land_dry_run(struct job *j, struct land *l, struct err *e)
{
	struct apply *a = j->a;
	struct catalog *c = NULL;
	AUTO_BUF struct buf path = {0};
	int fd = j->plan_fd;

	/* A name nobody else has: of this process and this delta. */
	buf_fmt(&path, "%s/repl-apply-%ld-%llu", a->tmpdir, (long)getpid(), (unsigned long long)a->n_deltas);
	const char *p = buf_cstr(&path);
	int rc = (j->r.cat && catalog_copy(j->r.cat, p, e)) || catalog_open(&c, p, CATALOG_PRIVATE, e) ? -1 : 0;
	unlink(p);
	if (!rc) {
		bool is_first = !j->r.cat;
		if (is_first)
			j->r.cat = c;
		j->plan_fd = -1;
		rc = land_dry(l, fd, c, &j->want, e);
		if (is_first)
			j->r.cat = NULL;
	}
	catalog_close(&c);
	return rc;
}

/* The way back: a snapshot of all, where there are such, or the delta back. */
static int keep_past(struct job *j, struct land *l, struct err *e)
{
	int got = replica_snapshot(&j->r, e);

	return got ? (got < 0 ? -1 : 0) : undo_make(&l->plan, &j->want, e);
}

static int land_delta(struct job *j, struct land *l, struct err *e)
{
	bool wants_undo = charge_undo(j) && !digest_eq(&j->current, &j->want);
	int rc = land_load(l, &j->want, e);

	if (!rc && wants_undo && !l->has_base)
		job_say(j, "there is no way back to the image before: it was not whole any more");
	if (!rc && wants_undo && l->has_base)
		rc = keep_past(j, l, e);
	if (!rc)
		rc = land_go(l, e);
	land_end(l);
	return rc;
}

/* What did not fit; the answer says what is here. */
static int end_missed(struct job *j, struct err *e)
{
	/* Who sends what was sent before need not be who has sent it, and learns nothing. */
	if (e->kind || j->missed.kind != ERR_REFUSED)
		tell_if_any(j);
	if (!e->kind)
		*e = j->missed;
	return -1;
}

/* A stream without a delta asks what is here; also that there is nothing yet is an answer. */
static int answer_question(struct job *j, struct err *e)
{
	job_say(j, "nothing to apply: told what is here");
	return j->r.cat ? receive_tell(j, e) : 0;
}

static int finish_delta(struct job *j, struct err *e)
{
	struct apply *a = j->a;
	char text[200], id[65];

	if (j->is_first)
		return answer_question(j, e);
	if (!j->has_delta || !j->has_end)
		return err_set(e, ERR_STREAM, "a delta without DELTA or END record");
	hex(id, j->want.b, 8);
	if (j->skip) {
		if (!digest_eq(&j->want, &j->current) || is_replayed(j, &(struct err){0})) {
			/* One that fits may follow: of a chain each replica takes what it lacks. */
			if (!j->missed.kind)
				mismatch(j, &j->missed);
			int rc = a->dry ? 0 : replica_drop(&j->r, "plan.new", e);
			return rc || a->is_live ? end_missed(j, e) : 0;
		}
		j->missed = (struct err){0};
		snprintf(text, sizeof text, "image %s is here already", id);
		job_say(j, text);
		/* The plan that was begun is of no use. */
		if (!a->dry && replica_drop(&j->r, "plan.new", e))
			return -1;
		return job_acknowledge(j, ACK_ALREADY, &j->want, 0, 0, 0, 0, e);
	}
	if (stream_finish(&j->plan, e) || sink_flush(&j->sink, e))
		return -1;
	stage_end(&j->stage);
	struct land l = receive_landing(j);
	l.is_fresh = !j->is_rest;
	if (a->dry ? land_dry_run(j, &l, e) : land_delta(j, &l, e))
		return -1;
	j->missed = (struct err){0};
	a->n_deltas++;
	a->n_created += l.n.created;
	a->n_changed += l.n.changed;
	a->n_removed += l.n.removed;
	snprintf(text, sizeof text, "image %s %s", id, a->dry ? "would be the new one" : "is in place");
	job_say(j, text);
	if (job_acknowledge(j, ACK_APPLIED, &j->want, l.n.created, l.n.changed, l.n.removed, j->bytes, e))
		return -1;
	return j->landed ? j->landed(j, e) : 0;
}

/* ---- all of the input ---- */

/* All deltas of the input, of which the first event came already. */
int receive_run(struct job *j, int got, struct err *e)
{
	struct input *in = j->a->in;

	stage_start(&j->stage, &j->r);
	j->stage.rows = keep_rows;
	j->stage.ctx = j;
	for (; got > 0; got = input_next(in, e)) {
		if (got == STREAM_BEGIN && begin_stream(j, e))
			return -1;
		if (got == STREAM_RECORD && (take(j, &in->s.rec, e) || (is_checkpoint_due(j) && checkpoint(j, e))))
			return -1;
		if (got == STREAM_END) {
			if (finish_delta(j, e))
				return -1;
			sink_free(&j->sink);
			stream_out_free(&j->plan);
			close_fd(&j->plan_fd);
			j->is_staged = false;
		}
	}
	j->is_cut = got < 0 && e->is_cut;
	return got || !j->missed.kind ? got : end_missed(j, e);
}

/* The input broke off: what came whole waits for its rest. */
void receive_keep_part(struct job *j, struct err *e)
{
	struct err ignored = {0};
	size_t n = strlen(e->text);

	if (!j->is_cut || !j->is_staged || checkpoint(j, &ignored))
		return;
	j->is_staged = false;
	snprintf(e->text + n, sizeof e->text - n, "; what came is kept for repl-apply --resume-token");
}
