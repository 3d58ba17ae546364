#include "backlog.h"

#include <inttypes.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>

#include "head.h"
#include "mounts.h"
#include "pending.h"
#include "queue.h"
#include "stamp.h"
#include "state.h"

#define SHOWN 300
#define NS 1000000000

/* What waits would be part of the next image, and that wait with it. */
static int check_place(const struct backlog *b, const struct state *s, const struct head *h, struct err *e)
{
	AUTO_FREE char *copy = xstrdup(b->queue), *real = realpath(b->queue, NULL), *state = realpath(s->path, NULL);
	char text[SHOWN];

	if (!real)
		real = realpath(dirname(copy), NULL);
	if (!real || (state && mounts_below(span_cstr(real), span_cstr(state))))
		return 0;
	for (size_t i = 0; i < h->n_members; i++)
		if (mounts_below(span_cstr(real), h->members[i].path))
			return err_set(e, ERR_USAGE, "the queue '%s' lies in what is replicated: put it into the state directory",
				esc_cut(text, sizeof text, span_cstr(b->queue)));
	return 0;
}

static int no_image(const struct backlog *b, const struct queue_list *l, struct err *e)
{
	AUTO_BUF struct buf text = {0};

	queue_list_text(l, b->queue, &text);
	return err_set(e, ERR_REFUSED, "no image: %s, which is the limit: send them with repl-pack --dequeue", buf_cstr(&text));
}

/* The last image that can be sent when all before it has been. */
static int find_last(struct backlog *b, const struct state *s, struct queue_list *l, struct err *e)
{
	struct digest base;
	uint64_t seq;
	bool has_room = false;

	if (state_base(s, &base, &seq, e))
		return -1;
	queue_list_follow(l, &base, seq);
	int got = l->n ? pending_leads(s, l->v[l->n - 1].seq, &b->after_id, e) : 0;
	if (got <= 0)
		return got;
	b->after = l->v[l->n - 1].seq;
	if (pending_room(s, &has_room, e))
		return -1;
	return has_room ? 0 : no_image(b, l, e);
}

int backlog_ask(struct backlog *b, const struct state *s, const struct head *h, struct err *e)
{
	struct queue_list l = {0};
	struct queue q = QUEUE_NONE;

	b->after = 0;
	if (!b->queue)
		return 0;
	if (check_place(b, s, h, e))
		return -1;
	if (!queue_is_there(b->queue))
		return 0;
	int rc = queue_open(&q, b->queue, false, e) || queue_list(&q, &l, e) ? -1 : 0;
	if (!rc && l.n && ((b->files && l.n >= b->files) || (b->bytes && l.bytes >= b->bytes)))
		rc = no_image(b, &l, e);
	if (!rc && b->is_chained)
		rc = find_last(b, s, &l, e);
	queue_list_free(&l);
	queue_close(&q);
	return rc;
}

int backlog_forget(const char *queue, const struct state *s, uint64_t *removed, struct err *e)
{
	struct queue q = QUEUE_NONE;
	struct digest id;
	uint64_t seq, n = 0;

	if (!queue || !queue_is_there(queue))
		return 0;
	int rc = state_base(s, &id, &seq, e) || queue_open(&q, queue, false, e) || queue_prune(&q, &id, seq, &n, e) ? -1 : 0;
	*removed += n;
	queue_close(&q);
	return rc;
}

int backlog_list(const char *queue, bool json, struct buf *out, struct err *e)
{
	struct queue_list l = {0};
	struct queue q = QUEUE_NONE;
	AUTO_BUF struct buf text = {0};

	if (!queue)
		return 0;
	int rc = queue_is_there(queue) && (queue_open(&q, queue, false, e) || queue_list(&q, &l, e)) ? -1 : 0;
	if (l.n && json) {
		buf_fmt(out, "\"queue\":{\"deltas\":%zu,\"bytes\":%" PRIu64 ",\"since\":\"", l.n, l.bytes);
		stamp_time(out, l.v[0].since_ns / NS * NS);
		buf_str(out, "\"},");
	} else if (l.n) {
		queue_list_text(&l, queue, &text);
		buf_fmt(out, "queue    %s\n", buf_cstr(&text));
	} else if (!rc) {
		buf_str(out, json ? "\"queue\":null," : "queue    empty\n");
	}
	queue_list_free(&l);
	queue_close(&q);
	return rc;
}
