#include "stream.h"

#include <assert.h>

enum { ST_HEAD = 0, ST_BODY, ST_BAD };

static const char person[] = "repl-stream-v1";

void stream_mac(struct digest *out, const struct buf *key, const struct digest *trailer_digest)
{
	struct digest_run r;

	digest_run_init(&r, "repl-mac-v1", key->p, key->len);
	digest_run_add(&r, trailer_digest, sizeof *trailer_digest);
	digest_run_end(&r, out);
}

const char *kind_name(unsigned kind)
{
	static const char *const names[] = {"unknown", "image", "change", "delta", "ack", "journal"};

	return names[kind < sizeof names / sizeof names[0] ? kind : 0];
}

bool stream_is_plain(const void *p, size_t n) { return n >= 8 && !memcmp(p, STREAM_MAGIC, 8); }

static void place_start(struct stream_place *at, const void *head)
{
	*at = (struct stream_place){.off = STREAM_HEAD_LEN};
	digest_run_init(&at->run, person, NULL, 0);
	digest_run_add(&at->run, head, STREAM_HEAD_LEN);
}

/* One record: the trailer covers all of it but content bytes. */
static void place_add(struct stream_place *at, uint16_t type, const uint8_t *record, size_t len)
{
	size_t covered = rec_covered(type, len);

	digest_run_add(&at->run, record, 8 + covered);
	at->records++;
	at->bytes += len - covered;
	at->off += 8 + len;
}

/* ---- writing ---- */

int stream_begin(struct stream_out *o, enum stream_kind kind, struct err *e)
{
	assert(!o->open);
	o->open = true;
	buf_reset(&o->scratch);
	wr_raw(&o->scratch, STREAM_MAGIC, 8);
	wr_u16(&o->scratch, STREAM_VERSION);
	wr_u16(&o->scratch, (uint16_t)kind);
	wr_u32(&o->scratch, 0);
	place_start(&o->at, o->scratch.p);
	struct span v = {o->scratch.p, o->scratch.len};
	return o->sink(o->ctx, &v, 1, e);
}

int stream_put(struct stream_out *o, const struct record *r, struct err *e)
{
	struct span v[2] = {0};

	assert(o->open);
	buf_reset(&o->scratch);
	rec_encode(&o->scratch, r);
	v[0] = span_of(o->scratch.p, o->scratch.len);
	if (r->type == REC_DATA)
		v[1] = r->u.data.bytes;
	else if (r->type == REC_WRITE)
		v[1] = r->u.write.bytes;
	place_add(&o->at, r->type, v[0].p, v[0].len - 8 + v[1].len);
	return o->sink(o->ctx, v, v[1].len ? 2 : 1, e);
}

int stream_pass(struct stream_out *o, struct span records, struct err *e)
{
	assert(o->open);
	for (size_t at = 0; at < records.len;) {
		struct rd r = rd_of(records.p + at, records.len - at);
		uint16_t type = rd_u16(&r);
		rd_u16(&r);
		size_t len = rd_u32(&r);
		assert(!r.bad && r.len >= len);
		place_add(&o->at, type, records.p + at, len);
		at += 8 + len;
	}
	return records.len ? o->sink(o->ctx, &records, 1, e) : 0;
}

int stream_finish(struct stream_out *o, struct err *e)
{
	struct record r = {.type = REC_TRAILER};

	assert(o->open);
	o->open = false;
	r.u.trailer.records = o->at.records;
	r.u.trailer.bytes = o->at.bytes;
	digest_run_end(&o->at.run, &r.u.trailer.digest);
	if (o->key && o->key->len)
		stream_mac(&r.u.trailer.mac, o->key, &r.u.trailer.digest);
	buf_reset(&o->scratch);
	rec_encode(&o->scratch, &r);
	struct span v = {o->scratch.p, o->scratch.len};
	return o->sink(o->ctx, &v, 1, e);
}

void stream_out_free(struct stream_out *o) { buf_free(&o->scratch); }

/* ---- reading ---- */

#define MOVED_MOST 4096u  /* so few bytes are moved to the front at once, */
#define LONG (128u * 1024) /* and when a record lacks so many, what comes ends not far behind it */

/* What the record at hand lacks, with the head of the next; 0: that is not known, or nothing. */
static size_t missing(const struct stream_in *s)
{
	size_t have = s->in.len - s->at;

	if (s->state != ST_BODY || have < 8)
		return 0;
	struct rd r = rd_of(s->in.p + s->at, have);
	rd_u32(&r);
	size_t len = 8 + (size_t)rd_u32(&r);
	return len > have && len <= 8 + REC_MAX ? len - have + 8 : 0;
}

uint8_t *stream_space(struct stream_in *s, size_t want, size_t *have)
{
	size_t rest = s->in.len - s->at, lacks = missing(s);

	if (s->at && (rest <= MOVED_MOST || s->in.cap - s->in.len < want)) {
		memmove(s->in.p, s->in.p + s->at, rest);
		s->in.len = rest;
		s->at = 0;
	}
	buf_reserve(&s->in, want);
	*have = s->in.cap - s->in.len;
	if (lacks > LONG && lacks < *have)
		*have = lacks;
	return s->in.p + s->in.len;
}

struct span stream_since(const struct stream_in *s, uint64_t off)
{
	uint64_t n = s->off + s->raw.len - off;

	assert(n <= s->at);
	return n ? span_of(s->in.p + s->at - n, n) : (struct span){0};
}

void stream_fed(struct stream_in *s, size_t n) { s->in.len += n; }

static int bad(struct stream_in *s, struct err *e, const struct err *why)
{
	s->state = ST_BAD;
	return err_set(e, ERR_STREAM, "record %llu at byte %llu: %s", (unsigned long long)s->n_record,
		(unsigned long long)s->off, why->text);
}

static int bad_text(struct stream_in *s, struct err *e, const char *text)
{
	struct err why = {0};

	err_set(&why, ERR_STREAM, "%s", text);
	return bad(s, e, &why);
}

static int bad_magic(struct stream_in *s, struct err *e)
{
	s->state = ST_BAD;
	return err_set(e, ERR_STREAM, s->n_streams ?
		"something that is not a stream follows the stream" : "this is not a repl stream");
}

static int next_head(struct stream_in *s, struct err *e)
{
	size_t have = s->in.len - s->at;

	if (!have)
		return STREAM_MORE;
	const uint8_t *p = s->in.p + s->at;
	if (have < STREAM_HEAD_LEN) {
		/* Say what is wrong as soon as it is known. */
		if (memcmp(p, STREAM_MAGIC, have < 8 ? have : 8))
			return bad_magic(s, e);
		return STREAM_MORE;
	}
	if (memcmp(p, STREAM_MAGIC, 8))
		return bad_magic(s, e);
	struct rd r = rd_of(p + 8, 8);
	s->version = rd_u16(&r);
	s->kind = rd_u16(&r);
	s->features = rd_u32(&r);
	if (s->version != STREAM_VERSION) {
		s->state = ST_BAD;
		return err_set(e, ERR_STREAM, "the stream has version %u, this program reads version %u: "
			"a newer one is needed here", s->version, (unsigned)STREAM_VERSION);
	}
	if (s->features || s->kind < KIND_IMAGE || s->kind > KIND_JOURNAL) {
		s->state = ST_BAD;
		return err_set(e, ERR_STREAM, "the stream needs feature 0x%x or kind %u that this program does not know: "
			"a newer one is needed here", s->features, s->kind);
	}
	place_start(&s->own, p);
	s->is_resumed = false;
	s->raw = span_of(p, STREAM_HEAD_LEN);
	s->at += STREAM_HEAD_LEN;
	s->state = ST_BODY;
	s->n_record = 0;
	return STREAM_BEGIN;
}

static int check_bulk(struct stream_in *s, struct span bytes, const struct digest *want, struct err *e)
{
	struct digest d;

	if (s->ignore_data_digest || !bytes.len)
		return 0;
	digest_bytes(&d, bytes.p, bytes.len);
	return digest_eq(&d, want) ? 0 : bad_text(s, e, "content does not match its digest");
}

static int next_trailer(struct stream_in *s, struct err *e)
{
	const struct r_trailer *t = &s->rec.u.trailer;
	struct digest d, mac;

	digest_run_end(&s->own.run, &d);
	if (t->records != s->own.records || t->bytes != s->own.bytes || !digest_eq(&t->digest, &d))
		return bad_text(s, e, "the trailer does not match what came before it");
	if (s->key && s->key->len) {
		if (digest_is_zero(&t->mac))
			return bad_text(s, e, "the stream is not authenticated: give repl-pack or repl-diff the key file");
		stream_mac(&mac, s->key, &t->digest);
		if (!digest_eq(&mac, &t->mac))
			return bad_text(s, e, "the stream was made with another key or is forged");
	} else if (!digest_is_zero(&t->mac) && !s->ignore_mac) {
		return bad_text(s, e, "the stream is authenticated with a key: --key-file is needed");
	}
	s->state = ST_HEAD;
	s->n_streams++;
	return STREAM_END;
}

int stream_next(struct stream_in *s, struct err *e)
{
	assert(s->state != ST_BAD);
	s->off += s->raw.len;
	s->raw = (struct span){0};
	if (s->state == ST_HEAD)
		return next_head(s, e);
	for (;;) {
		struct err why = {0};
		size_t have = s->in.len - s->at;
		if (have < 8)
			return STREAM_MORE;
		const uint8_t *p = s->in.p + s->at;
		struct rd r = rd_of(p, 8);
		uint16_t type = rd_u16(&r), flags = rd_u16(&r);
		size_t len = rd_u32(&r);

		s->n_record = s->own.records;
		const struct rec_row *row = rec_row(type);
		if (!row && !(flags & REC_OPTIONAL)) {
			err_set(&why, ERR_STREAM, "unknown record type 0x%02x: a newer program is needed here", type);
			return bad(s, e, &why);
		}
		/* A known type has the one flag of its row: what was decoded encodes to the same bytes. */
		if (flags & ~REC_OPTIONAL || (row && row->optional != (flags == REC_OPTIONAL)))
			return bad_text(s, e, "unknown record flags");
		if (len > REC_MAX)
			return bad_text(s, e, "record too long");
		if (row && !(row->kinds & 1u << s->kind)) {
			err_set(&why, ERR_STREAM, "a '%s' record has no place in a stream of kind '%s'", row->name,
				kind_name(s->kind));
			return bad(s, e, &why);
		}
		if (have < 8 + len)
			return STREAM_MORE;
		s->raw = span_of(p, 8 + len);
		s->at += 8 + len;
		if (type != REC_TRAILER) {
			place_add(&s->own, type, p, len);
			if (s->is_resumed)
				place_add(&s->whole, type, p, len);
		}
		if (!row) {
			s->n_skipped++;
			s->off += s->raw.len;
			s->raw = (struct span){0};
			continue;
		}
		if (rec_decode(&s->rec, type, flags, p + 8, len, &why) || rec_check(&s->rec, &why))
			return bad(s, e, &why);
		if (type == REC_TRAILER)
			return next_trailer(s, e);
		if (type == REC_DATA && check_bulk(s, s->rec.u.data.bytes, &s->rec.u.data.digest, e))
			return -1;
		if (type == REC_WRITE && check_bulk(s, s->rec.u.write.bytes, &s->rec.u.write.digest, e))
			return -1;
		return STREAM_RECORD;
	}
}

int stream_peek(const struct stream_in *s, size_t *at, struct record *r)
{
	struct err ignored = {0};

	if (s->state != ST_BODY)
		return 0;
	for (;;) {
		struct rd in = rd_of(s->in.p + s->at + *at, s->in.len - s->at - *at);
		uint16_t type = rd_u16(&in), flags = rd_u16(&in);
		uint32_t len = rd_u32(&in);
		if (in.bad || type == REC_TRAILER || in.len < len)
			return 0;
		*at += 8 + (size_t)len;
		if (rec_row(type))
			return !rec_decode(r, type, flags, in.p, len, &ignored) && !rec_check(r, &ignored);
	}
}

int stream_eof(const struct stream_in *s, struct err *e)
{
	if (s->state == ST_HEAD && s->in.len == s->at) {
		if (s->n_streams)
			return 0;
		return err_set(e, ERR_STREAM, "the input is empty: the stage before this one failed or is missing");
	}
	if (s->state == ST_HEAD)
		return err_set(e, ERR_STREAM, "this is not a repl stream, or it ends inside its header");
	err_set(e, ERR_STREAM, "the stream ends early: %llu records came and no trailer",
		(unsigned long long)s->own.records);
	e->is_cut = true;
	return -1;
}

const struct stream_place *stream_place(const struct stream_in *s) { return s->is_resumed ? &s->whole : &s->own; }

void stream_resumed(struct stream_in *s, const struct stream_place *head)
{
	s->is_resumed = true;
	s->whole = *head;
}

void stream_in_free(struct stream_in *s) { buf_free(&s->in); }
