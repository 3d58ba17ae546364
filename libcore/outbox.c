#include "outbox.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "pending.h"
#include "state.h"

#define SHOWN 400
#define STATE_WAIT 60u /* seconds */

/* ---- into the queue ---- */

static int on_begin(void *ctx, int *out, struct err *e)
{
	struct outbox *b = ctx;

	b->has_base = b->has_id = false;
	b->seq = 0;
	/* Not before something came: by then there is the state directory that the queue may lie in. */
	if (!b->q.path && queue_open(&b->q, b->queue, true, e))
		return -1;
	return queue_new(&b->q, out, e);
}

static int on_record(struct outbox *b, const struct record *r, struct err *e)
{
	switch ((enum rec_type)r->type) {
	case REC_IMAGE:
		b->seq = r->u.image.seq;
		memcpy(b->instance, r->u.image.instance, sizeof b->instance);
		return 0;
	case REC_DELTA:
		b->has_base = true;
		b->base = r->u.delta.base;
		return 0;
	case REC_END:
		b->has_id = true;
		b->id = r->u.end.id;
		return 0;
	case REC_RESUME:
		return err_set(e, ERR_STREAM, "the rest of a delta cannot wait in a queue: send it at once");
	default:
		return 0;
	}
}

static int on_event(void *ctx, int event, const struct stream_in *s, struct err *e)
{
	struct outbox *b = ctx;

	if (event == STREAM_BEGIN && s->kind != KIND_DELTA)
		return err_set(e, ERR_STREAM, "this is a stream of kind '%s': deltas go into a queue", kind_name(s->kind));
	if (event == STREAM_END && (!b->has_base || !b->has_id))
		return err_set(e, ERR_STREAM, "a delta without DELTA or END record");
	return event == STREAM_RECORD ? on_record(b, &s->rec, e) : 0;
}

/* What was never sent gets no answer, and must not keep the place of those that may get one. Where that cannot be done now the plans
 * stay, and are forgotten with the others of their age. */
static void forget_plans(const struct outbox *b, const struct queue_list *gone)
{
	struct state s = STATE_NONE;
	struct err ignored = {0};

	if (!gone->n || !b->state || state_open(&s, b->state, false, &ignored))
		return;
	if (!memcmp(b->instance, s.instance, sizeof b->instance) && !state_lock(&s, STATE_WAIT, &ignored))
		for (size_t i = gone->n; i > 0; i--)
			pending_drop(&s, gone->v[i - 1].seq, &ignored);
	state_close(&s);
}

static int on_end(void *ctx, struct err *e)
{
	struct outbox *b = ctx;
	struct queue_list gone;
	int rc = queue_put(&b->q, b->seq, &b->base, &b->id, &gone, e);

	b->deltas += !rc;
	b->replaced += gone.n;
	forget_plans(b, &gone);
	queue_list_free(&gone);
	return rc;
}

int outbox_fill(struct outbox *b, int in, const struct pack_settings *o, struct pack_stats *n, struct err *e)
{
	const struct pack_each each = {on_begin, on_event, on_end, b};

	b->q = QUEUE_NONE;
	int rc = pack_each(in, &each, o, n, e);
	queue_close(&b->q);
	return rc;
}

/* ---- out of it ---- */

static int find_base(const char *path, struct digest *id, uint64_t *seq, struct err *e)
{
	struct state s = STATE_NONE;
	int rc = state_open(&s, path, false, e) || state_base(&s, id, seq, e) ? -1 : 0;

	state_close(&s);
	return rc;
}

static void note_left(const struct outbox *b, size_t n)
{
	AUTO_BUF struct buf text = {0};

	buf_fmt(&text, "%zu deltas do not follow from the base, or from those before them: they wait for an answer, or for another to "
		"take their place", n);
	if (n && b->note)
		b->note(b->ctx, 1, buf_cstr(&text));
}

static int send_file(struct outbox *b, const struct queue_item *i, int out, const struct pack_settings *o, struct pack_stats *n,
	struct err *e)
{
	AUTO_BUF struct buf name = {0};
	AUTO_CLOSE int fd = -1;
	struct err why = {0};
	char text[SHOWN];
	int got = queue_read(&b->q, i, &fd, &name, e);

	/* The answer to it came meanwhile. */
	if (got <= 0)
		return got;
	b->deltas++;
	if (!pack_pass(fd, out, o, n, &why))
		return 0;
	if (why.kind != ERR_STREAM) {
		*e = why;
		return -1;
	}
	return err_set(e, ERR_STREAM, "'%s' is damaged (%s): remove it, and the next image makes up for it",
		esc_cut(text, sizeof text, span_of(name.p, name.len)), why.text);
}

int outbox_send(struct outbox *b, int out, const struct pack_settings *o, struct pack_stats *n, struct err *e)
{
	struct queue_list l = {0};
	struct digest base;
	uint64_t seq = 0;
	size_t n_left = 0;

	*n = (struct pack_stats){0};
	if (b->state && find_base(b->state, &base, &seq, e))
		return -1;
	int rc = queue_open(&b->q, b->queue, b->may_make, e) ||
		queue_claim(&b->q, b->state ? &base : NULL, seq, &l, &n_left, e) ? -1 : 0;
	if (!rc) {
		note_left(b, n_left);
		rc = l.n ? 0 : pack_question(out, o, e);
	}
	for (size_t i = 0; i < l.n && !rc; i++)
		rc = send_file(b, &l.v[i], out, o, n, e);
	queue_list_free(&l);
	queue_close(&b->q);
	return rc;
}
