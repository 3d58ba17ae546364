/*
 * Two lists of changes that become one: what is refused is refused as a bad stream; else the result is a list in order that says
 * all that the two say, and nothing else, also below a directory of them.
 */
#include <stdlib.h>
#include <unistd.h>

#include "../lib/facts.h"
#include "dense.h"
#include "merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"\x01", "a", "a.", "a0", "b", "long name", "\xc3\xa4", "\xff"};

static uint8_t byte(struct rd *r) { return r->len ? rd_u8(r) : 0; }

static void put(struct stream_out *o, struct record r)
{
	struct err e = {0};

	dense_must(!stream_put(o, &r, &e), e.text);
}

/* Each record is a byte of kind and of how far up it speaks, then what it needs. Most are in order. */
static void list(struct stream_out *o, struct rd *r)
{
	uint64_t refs[64] = {REF_ROOT}, last = REF_ROOT, n_changed = 0;
	size_t depth = 0;

	while (r->len) {
		uint8_t op = byte(r), up = op >> 3 & 7;
		depth -= up < 6 ? min_u64(up, depth) : 0;
		struct span name = span_cstr(names[up < 6 && (op & 7) < 2 ? byte(r) % 8 : 0]);
		switch (op & 7) {
		case 0:
			put(o, (struct record){.type = REC_CHANGED, .u.changed = {refs[depth], byte(r) & (op >> 6 ? 0xff : 0x3f), name}});
			n_changed++;
			break;
		case 1:
			put(o, (struct record){.type = REC_DIR, .u.dir = {++last, refs[depth], name}});
			if (depth < 63)
				refs[++depth] = last;
			break;
		case 2:
			put(o, (struct record){.type = REC_GAP, .u.gap = {refs[depth], span_cstr("because")}});
			break;
		case 3:
			put(o, (struct record){.type = REC_CHANGED, .u.changed = {refs[depth], byte(r) & 0x2f, {0}}});
			n_changed++;
			break;
		case 4:
			put(o, (struct record){.type = REC_REGION, .u.region = {n_changed - 1 + up % 2, 4096, span_of("seventeen bytes!!", 17)}});
			break;
		case 5: /* any number */
			put(o, (struct record){.type = REC_DIR, .u.dir = {2 + byte(r) % 16, 1 + byte(r) % 16, span_cstr("b")}});
			break;
		case 6:
			put(o, (struct record){.type = REC_CHANGED, .u.changed = {1 + byte(r) % 16, 1, span_cstr("b")}});
			n_changed++;
			break;
		case 7:
			if (up == 7)
				return;
			put(o, (struct record){.type = up == 6 ? REC_CURSOR : up == 5 ? REC_END : REC_BEAT});
			break;
		}
	}
}

static void begin(struct stream_out *o, struct buf *b)
{
	struct err e = {0};

	*o = (struct stream_out){.sink = dense_sink, .ctx = b};
	dense_must(!stream_begin(o, KIND_CHANGE, &e), e.text);
	put(o, (struct record){.type = REC_IMAGE});
	put(o, (struct record){.type = REC_MEMBER, .u.member = {.kind = 1, .path = span_cstr("/")}});
}

static void end(struct stream_out *o)
{
	struct err e = {0};

	put(o, (struct record){.type = REC_END});
	dense_must(!stream_finish(o, &e), e.text);
	stream_out_free(o);
}

static int merge(const struct buf in[2], const char *prefix, struct buf *out, struct err *e)
{
	struct merge_source s[2] = {{.n = 0}, {.n = 0}};
	struct stream_out o;
	struct changes_out c = {.o = &o};
	struct merge m = {.sources = s, .n = 2, .prefix = span_cstr(prefix), .out = &c};
	int fds[2], rc = 0;

	begin(&o, out);
	changes_enter(&c, (struct span){0}, 0);
	for (int i = 0; i < 2; i++) {
		fds[i] = dense_fd(span_of(in[i].p, in[i].len));
		if (!rc)
			rc = merge_open(&s[i], fds[i], "list", e);
	}
	if (!rc)
		rc = merge_run(&m, e);
	for (int i = 0; i < 2; i++) {
		merge_close(&s[i]);
		close_fd(&fds[i]);
	}
	changes_free(&c);
	end(&o);
	dense_must(!rc || e->kind == ERR_STREAM, "an error of another kind");
	return rc;
}

static void check(const struct buf in[2], const char *prefix)
{
	struct facts whole[2] = {{.n = 0}, {.n = 0}}, part[2] = {{.n = 0}, {.n = 0}}, out = {0};
	AUTO_BUF struct buf b = {0};
	struct err e = {0};
	bool is_known = true;

	if (merge(in, prefix, &b, &e))
		return;
	dense_must(facts_read(&out, span_of(b.p, b.len)) && out.is_ordered && !facts_waste(&out), "a list out of order");
	for (int i = 0; i < 2; i++) {
		dense_must(facts_read(&whole[i], span_of(in[i].p, in[i].len)), "a bad list was taken");
		is_known = (!*prefix || facts_restrict(&whole[i], prefix, &part[i])) && is_known;
	}
	if (is_known)
		dense_must(facts_are_union(*prefix ? part : whole, 2, &out), "something is missing, or made up");
	else
		dense_must(out.n == 1 && out.v[0].is_whole, "a gap was passed over");
	facts_free(&out);
	for (int i = 0; i < 2; i++) {
		facts_free(&whole[i]);
		facts_free(&part[i]);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rd r = rd_of(data, size < 2000 ? size : 2000);
	struct buf in[2] = {{0}, {0}};

	for (int i = 0; i < 2; i++) {
		struct stream_out o;
		begin(&o, &in[i]);
		list(&o, &r);
		end(&o);
	}
	dense_keep(span_of(in[0].p, in[0].len));
	check(in, "");
	check(in, "a");
	check(in, "a/b");
	buf_free(&in[0]);
	buf_free(&in[1]);
	return 0;
}
