/*
 * make-seeds: writes the golden streams and the first inputs of the fuzzers.
 *
 *   make-seeds GOLDEN STREAMS RECORDS     three folders: tests/golden tests/fuzz/corpus/stream tests/fuzz/corpus/record
 *
 * The streams are whole and true: their digests are those of the two small trees described below, so a replica can be
 * made from them. Golden streams are read for ever: a release adds files, it does not change them. What was packed
 * depends on the version of libzstd; the file in the repository counts, not what this program would make today.
 */
#include <stdio.h>
#include <stdlib.h>

#include "codec.h"
#include "stream.h"

static const char *folder;

static void die(const char *what, const char *text)
{
	fprintf(stderr, "make-seeds: %s: %s\n", what, text);
	exit(1);
}

static void save(const char *name, const struct buf *b)
{
	AUTO_BUF struct buf path = {0};

	buf_fmt(&path, "%s/%s", folder, name);
	FILE *f = fopen(buf_cstr(&path), "wb");
	if (!f || (b->len && fwrite(b->p, 1, b->len, f) != b->len) || fclose(f))
		die((const char *)path.p, "cannot write");
}

/* ---- streams ---- */

static int into_buf(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)e;
	for (int i = 0; i < n; i++)
		wr_raw(ctx, v[i].p, v[i].len);
	return 0;
}

static struct buf made;        /* the stream that is being made */
static struct stream_out out = {.sink = into_buf, .ctx = &made};

static void begin(enum stream_kind kind)
{
	struct err e = {0};

	if (stream_begin(&out, kind, &e))
		die("stream", e.text);
}

static void put(struct record r)
{
	struct err e = {0};

	if (stream_put(&out, &r, &e) || rec_check(&r, &e))
		die("record", e.text);
}

static void finish(void)
{
	struct err e = {0};

	if (stream_finish(&out, &e))
		die("stream", e.text);
}

static void finish_as(const char *name)
{
	finish();
	save(name, &made);
	buf_reset(&made);
}

/* ---- the two trees ----
 *
 *   older                      newer
 *   .                          .                      (mtime moved)
 *   big      20000 bytes       big      24576 bytes   block 0 new, 1 a hole, 2 as it was, 3 and 4 the old 0 and 1, 5 zeros
 *   docs/                      papers/                the same directory
 *   docs/note  "hello\n"       papers/note            the same file
 *   hard = docs/note           (gone)
 *   link -> docs/note          (gone)
 *   pipe     fifo              pipe                   the same
 *                              "new\nfile\xff"  with an attribute
 */
#define BIG 20000u
#define BLOCK 4096u

static uint8_t big_old[BIG], big_new[6 * BLOCK];
static const char note[] = "hello\n", fresh[] = "fresh\n";
#define NEW_NAME "new\nfile\xff"

static struct digest of(const void *p, size_t n)
{
	struct digest d;

	digest_bytes(&d, p, n);
	return d;
}

static struct r_meta meta(uint16_t mode, int64_t mtime)
{
	return (struct r_meta){.mode = mode, .uid = 1000, .gid = 100, .mtime_s = mtime, .mtime_ns = 123456789};
}

/* O of repl-stream(5), "DIGESTS". */
static struct digest object(uint8_t type, uint32_t nlink, struct r_meta m, uint64_t size, struct digest content)
{
	struct record r = {.type = REC_META, .u.meta = m};
	AUTO_BUF struct buf b = {0}, enc = {0};
	struct digest_run run;
	struct digest d;

	rec_encode(&enc, &r);
	wr_u8(&b, type);
	wr_u32(&b, nlink);
	wr_raw(&b, enc.p + 8, enc.len - 8);
	wr_u64(&b, size);
	wr_raw(&b, content.b, DIGEST_LEN);
	digest_run_init(&run, "repl-object-v1", NULL, 0);
	digest_run_add(&run, b.p, b.len);
	digest_run_end(&run, &d);
	return d;
}

struct entry {
	const char *name;
	struct digest o;
};

static struct digest directory(struct r_meta m, const struct entry *v, size_t n)
{
	AUTO_BUF struct buf b = {0};
	struct digest_run run;
	struct digest d;

	for (size_t i = 0; i < n; i++) {
		wr_str(&b, v[i].name, strlen(v[i].name));
		wr_raw(&b, v[i].o.b, DIGEST_LEN);
	}
	digest_run_init(&run, "repl-dir-v1", NULL, 0);
	digest_run_add(&run, b.p, b.len);
	digest_run_end(&run, &d);
	return object(OBJ_DIR, 1, m, 0, d);
}

static struct r_meta root_old, root_new, m_docs, m_big, m_big_new, m_note, m_link, m_pipe, m_fresh;
static struct buf fresh_xattrs;
static struct digest id_old, id_new;

static void plant(void)
{
	static const struct digest none;
	uint64_t seed = 1;

	for (size_t i = 0; i < BIG; i++) {
		seed = seed * UINT64_C(6364136223846793005) + 1;
		big_old[i] = (uint8_t)(seed >> 56);
	}
	memset(big_new, 'n', BLOCK);
	memcpy(big_new + 2 * BLOCK, big_old + 2 * BLOCK, BLOCK);
	memcpy(big_new + 3 * BLOCK, big_old, 2 * BLOCK);
	root_old = meta(0755, 1000000000);
	root_new = meta(0755, 1000000600);
	m_docs = meta(0750, 1000000001);
	m_big = meta(0644, 1000000002);
	m_big_new = meta(0644, 1000000500);
	m_note = meta(0644, -1);
	m_link = meta(0777, 1000000003);
	m_link.target = span_cstr("docs/note");
	m_pipe = meta(0600, 1000000004);
	m_fresh = meta(04755, 1000000600);
	wr_str(&fresh_xattrs, "user.comment", 12);
	wr_str(&fresh_xattrs, "as new", 6);
	wr_str(&fresh_xattrs, "user.empty", 10);
	wr_str(&fresh_xattrs, "", 0);
	m_fresh.xattrs = span_of(fresh_xattrs.p, fresh_xattrs.len);
	m_fresh.attr = 0x40;

	struct digest o_pipe = object(OBJ_FIFO, 1, m_pipe, 0, none);
	struct digest o_note = object(OBJ_FILE, 2, m_note, 6, of(note, 6));
	struct entry docs[] = {{"note", o_note}};
	struct entry older[] = {
		{"big", object(OBJ_FILE, 1, m_big, BIG, of(big_old, BIG))}, {"docs", directory(m_docs, docs, 1)},
		{"hard", o_note}, {"link", object(OBJ_LINK, 1, m_link, 0, none)}, {"pipe", o_pipe},
	};
	id_old = directory(root_old, older, 5);
	docs[0].o = object(OBJ_FILE, 1, m_note, 6, of(note, 6));
	struct entry newer[] = {
		{"big", object(OBJ_FILE, 1, m_big_new, sizeof big_new, of(big_new, sizeof big_new))},
		{NEW_NAME, object(OBJ_FILE, 1, m_fresh, 6, of(fresh, 6))},
		{"papers", directory(m_docs, docs, 1)}, {"pipe", o_pipe},
	};
	id_new = directory(root_new, newer, 4);
}

/* ---- pieces of streams ---- */

static struct r_image stamps(struct digest parent, int64_t time_s, uint64_t seq)
{
	struct r_image i = {.parent = parent, .time_ns = time_s * 1000000000 + 987654321, .seq = seq, .provider = PROV_LIVE,
		.consistency = CONS_CRASH, .host = span_cstr("source.example")};

	memcpy(i.instance, "sixteen bytes id", 16);
	return i;
}

static void opening(struct r_image i)
{
	put((struct record){.type = REC_IMAGE, .u.image = i});
	put((struct record){.type = REC_MEMBER, .u.member = {1, {0}, span_cstr("/srv/data")}});
}

static void create(uint64_t ref, uint64_t parent, uint8_t type, const char *name, struct r_meta m)
{
	put((struct record){.type = REC_CREATE, .u.create = {ref, parent, type, span_cstr(name)}});
	put((struct record){.type = REC_META, .u.meta = m});
}

static void content(uint8_t flags)
{
	put((struct record){.type = REC_CONTENT, .u.content = {flags, BLOCK}});
}

static void data(uint64_t off, const void *p, size_t n)
{
	put((struct record){.type = REC_DATA, .u.data = {off, of(p, n), span_of(p, n)}});
}

static void digests(const uint8_t *p, size_t n)
{
	AUTO_BUF struct buf rows = {0};

	for (size_t at = 0; at < n; at += BLOCK) {
		size_t len = n - at < BLOCK ? n - at : BLOCK;
		struct digest d = of(p + at, len);
		wr_raw(&rows, d.b, DIGEST_LEN);
		wr_u64(&rows, len == BLOCK ? roll_sum(p + at) : 0);
	}
	put((struct record){.type = REC_DIGESTS, .u.digests = {0, span_of(rows.p, rows.len)}});
}

static void seal(const void *p, size_t n)
{
	put((struct record){.type = REC_SEAL, .u.seal = {n, of(p, n), 0}});
}

static void hint(uint64_t ino, uint32_t nlink)
{
	put((struct record){.type = REC_HINT, .u.hint = {1, ino, 1000000700, 5, 900000000, 7, nlink, HINT_SETTLED}});
}

static void end(struct digest id, uint64_t entries, uint64_t bytes)
{
	put((struct record){.type = REC_END, .u.end = {id, entries, bytes}});
}

static void owners(void)
{
	put((struct record){.type = REC_OWNER, .u.owner = {0, 1000, span_cstr("alice")}});
	put((struct record){.type = REC_OWNER, .u.owner = {1, 100, span_cstr("users")}});
}

/* ---- one of every kind ---- */

static void make_image(void)
{
	static const struct digest none;
	struct r_image i = stamps(none, 1000000800, 1);

	i.bookmark = span_cstr("before the upgrade");
	i.id = id_old;
	begin(KIND_IMAGE);
	opening(i);
	owners();
	create(1, 0, OBJ_DIR, "", root_old);
	hint(2, 1);
	create(0, 1, OBJ_FILE, "big", m_big);
	content(0);
	digests(big_old, BIG);
	seal(big_old, BIG);
	hint(11, 1);
	create(2, 1, OBJ_DIR, "docs", m_docs);
	hint(12, 1);
	create(3, 2, OBJ_FILE, "note", m_note);
	content(0);
	seal(note, 6);
	hint(13, 3);
	put((struct record){.type = REC_ATTACH, .u.attach = {3, 1, span_cstr("hard")}});
	create(0, 1, OBJ_LINK, "link", m_link);
	hint(14, 1);
	create(0, 1, OBJ_FIFO, "pipe", m_pipe);
	hint(15, 1);
	end(id_old, 6, BIG + 6);
}

static void make_full(void)
{
	static const struct digest none;

	begin(KIND_DELTA);
	opening(stamps(none, 1000000800, 1));
	put((struct record){.type = REC_DELTA, .u.delta = {none, 6, BIG + 6}});
	owners();
	create(1, 0, OBJ_DIR, "", root_old);
	create(2, 1, OBJ_FILE, "big", m_big);
	content(0);
	data(0, big_old, BIG);
	seal(big_old, BIG);
	create(3, 1, OBJ_DIR, "docs", m_docs);
	create(4, 3, OBJ_FILE, "note", m_note);
	content(0);
	data(0, note, 6);
	seal(note, 6);
	put((struct record){.type = REC_ATTACH, .u.attach = {4, 1, span_cstr("hard")}});
	create(0, 1, OBJ_LINK, "link", m_link);
	create(0, 1, OBJ_FIFO, "pipe", m_pipe);
	end(id_old, 6, BIG + 6);
}

static void make_delta_head(void)
{
	begin(KIND_DELTA);
	opening(stamps(id_old, 1000001400, 2));
	put((struct record){.type = REC_DELTA, .u.delta = {id_old, 4, sizeof big_new + 12}});
	put((struct record){.type = REC_BASE, .u.base = {2, 1, BASE_DETACH, span_cstr("docs")}});
	put((struct record){.type = REC_BASE, .u.base = {3, 1, BASE_DETACH, span_cstr("hard")}});
	put((struct record){.type = REC_BASE, .u.base = {4, 1, BASE_DETACH, span_cstr("link")}});
	put((struct record){.type = REC_OBJECT, .u.object = {REF_ROOT}});
	owners();
	put((struct record){.type = REC_META, .u.meta = root_new});
	put((struct record){.type = REC_BASE, .u.base = {5, 1, 0, span_cstr("big")}});
	put((struct record){.type = REC_META, .u.meta = m_big_new});
	content(CONTENT_PATCH);
	data(0, big_new, BLOCK);
	put((struct record){.type = REC_HOLE, .u.hole = {BLOCK, BLOCK}});
	put((struct record){.type = REC_COPY, .u.copy = {3 * (uint64_t)BLOCK, 2 * (uint64_t)BLOCK, 5, 0}});
	put((struct record){.type = REC_HOLE, .u.hole = {5 * (uint64_t)BLOCK, BLOCK}});
	seal(big_new, sizeof big_new);
	create(6, 1, OBJ_FILE, "draft", m_fresh); /* it did not hold still while it was read */
	content(0);
	data(0, fresh, 6);
	put((struct record){.type = REC_DROP});
	create(7, 1, OBJ_FILE, NEW_NAME, m_fresh);
	content(0);
	data(0, fresh, 6);
	seal(fresh, 6);
	put((struct record){.type = REC_ATTACH, .u.attach = {2, 1, span_cstr("papers")}});
	put((struct record){.type = REC_BEAT, .u.beat = {1}});
}

static void make_delta(void)
{
	make_delta_head();
	end(id_new, 6, BLOCK + 12);
}

/* What is left of it when all but the last record came. */
static void make_rest(void)
{
	size_t before = made.len;

	make_delta_head();
	struct r_resume r = {.off = out.at.off, .records = out.at.records, .bytes = out.at.bytes};
	digest_run_peek(&out.at.run, &r.digest);
	out.open = false;
	made.len = before;
	begin(KIND_DELTA);
	put((struct record){.type = REC_RESUME, .u.resume = r});
	end(id_new, 6, BLOCK + 12);
}

/* What repl-snap opens an image with, where there is a recorder. */
static void make_opening(void)
{
	begin(KIND_IMAGE);
	opening(stamps(id_old, 1000001400, 2));
	put((struct record){.type = REC_CURSOR, .u.cursor = {"a journal's name", 4711, {0}}});
}

/* A batch of a journal. */
static void make_batch(void)
{
	begin(KIND_CHANGE);
	put((struct record){.type = REC_IMAGE, .u.image = {.time_ns = 1000001500, .seq = 7}});
	put((struct record){.type = REC_MEMBER, .u.member = {1, {0}, span_cstr("/")}});
	put((struct record){.type = REC_CURSOR, .u.cursor = {"a journal's name", 7, {0}}});
	put((struct record){.type = REC_INODE, .u.inode = {2049, 131, 1000000000, 500}});
	put((struct record){.type = REC_DIR, .u.dir = {2, 1, span_cstr("srv")}});
	put((struct record){.type = REC_CHANGED, .u.changed = {2, CHANGED_CONTENT, span_cstr("a")}});
	put((struct record){.type = REC_DIR, .u.dir = {3, 2, span_cstr("b")}});
	put((struct record){.type = REC_GAP, .u.gap = {3, span_cstr("something was mounted")}});
	put((struct record){.type = REC_END});
}

static void make_change(void)
{
	struct r_region region = {.file = 0, .grain = BLOCK};
	AUTO_BUF struct buf rows = {0};

	begin(KIND_CHANGE);
	opening(stamps(id_old, 1000001400, 2));
	put((struct record){.type = REC_CURSOR, .u.cursor = {"a journal's name", 4711, span_cstr("dr")}});
	put((struct record){.type = REC_CHANGED, .u.changed = {1, CHANGED_META, {0}}});
	put((struct record){.type = REC_CHANGED,
		.u.changed = {1, CHANGED_CONTENT | CHANGED_META | CHANGED_UNSETTLED, span_cstr("big")}});
	for (uint8_t i = 0; i < 2; i++) {
		wr_u64(&rows, i);
		wr_u64(&rows, 1000u + i);
		wr_u8(&rows, i);
	}
	region.rows = span_of(rows.p, rows.len);
	put((struct record){.type = REC_REGION, .u.region = region});
	put((struct record){.type = REC_CHANGED, .u.changed = {1, CHANGED_GONE, span_cstr("hard")}});
	put((struct record){.type = REC_CHANGED, .u.changed = {1, CHANGED_NEW | CHANGED_CONTENT, span_cstr(NEW_NAME)}});
	put((struct record){.type = REC_DIR, .u.dir = {2, 1, span_cstr("papers")}});
	put((struct record){.type = REC_CHANGED, .u.changed = {1, CHANGED_NEW | CHANGED_SUBTREE, span_cstr("papers")}});
	put((struct record){.type = REC_CHANGED, .u.changed = {2, CHANGED_META, span_cstr("note")}});
	put((struct record){.type = REC_GAP, .u.gap = {2, span_cstr("the queue overflowed")}});
	end((struct digest){{0}}, 6, 0);
}

static void make_ack(void)
{
	struct r_ack a = {.id = id_new, .base = id_old, .time_ns = INT64_C(1000001400987654321), .seq = 2,
		.action = ACK_APPLIED, .created = 1, .changed = 2, .removed = 2, .bytes = BLOCK + 12};

	memcpy(a.instance, "sixteen bytes id", 16);
	begin(KIND_ACK);
	put((struct record){.type = REC_ACK, .u.ack = a});
	put((struct record){.type = REC_LOSS, .u.loss = {span_cstr("xattr"), 1, span_cstr(NEW_NAME)}});
}

static void make_journal(void)
{
	struct r_write w = {.time_ns = INT64_C(1000001000000000001), .ref = 2, .off = 10, .len = 6, .op = WRITE_DATA,
		.digest = of(note, 6), .bytes = span_of(note, 6)};

	begin(KIND_JOURNAL);
	opening(stamps(id_old, 1000001400, 2));
	put((struct record){.type = REC_DELTA, .u.delta = {id_old, 4, sizeof big_new + 12}});
	put((struct record){.type = REC_BASE, .u.base = {2, 1, 0, span_cstr("big")}});
	put((struct record){.type = REC_WRITE, .u.write = w});
	w.where = 2;
	w.bytes = (struct span){0};
	put((struct record){.type = REC_WRITE, .u.write = w});
	put((struct record){.type = REC_MARK, .u.mark = {INT64_C(1000001000000000002), span_cstr("clean stop")}});
	put((struct record){.type = REC_GAP, .u.gap = {1, span_cstr("the recorder was stopped")}});
	end(id_new, 6, 6);
}

/* In the smallest chunks. */
static void pack(const struct buf *plain, struct buf *packed)
{
	struct codec_index x = {0};
	struct codec_packer *p;
	struct err e = {0};
	AUTO_BUF struct buf chunk = {0};
	struct span v[CODEC_SPANS];

	buf_reset(packed);
	codec_head(&x, packed);
	if (codec_packer_open(&p, 0, &e))
		die("codec", e.text);
	for (size_t at = 0; at < plain->len; at += CODEC_CHUNK_MIN) {
		struct span part = span_of(plain->p + at, plain->len - at < CODEC_CHUNK_MIN ? plain->len - at : CODEC_CHUNK_MIN);
		uint32_t len;
		bool is_raw;
		if (codec_pack(p, 3, part, &chunk, &is_raw, &e))
			die("codec", e.text);
		int n = codec_spans(v, &chunk, part, is_raw, &len);
		for (int i = 0; i < n; i++)
			wr_raw(packed, v[i].p, v[i].len);
		codec_index_add(&x, len, (uint32_t)part.len);
	}
	codec_index_put(&x, packed);
	codec_packer_close(&p);
	codec_index_free(&x);
}

static void golden(void)
{
	uint8_t secret[] = "golden";
	const struct buf key = {secret, 6, 6};
	AUTO_BUF struct buf packed = {0};

	make_image();
	finish_as("image.repl");
	make_full();
	finish();
	pack(&made, &packed);
	save("full.repl.zst", &packed);
	save("full.repl", &made);
	buf_reset(&made);
	make_delta();
	finish_as("delta.repl");
	out.key = &key;
	make_delta();
	finish_as("delta-key.repl");
	out.key = NULL;
	make_full();
	finish();
	make_delta();
	finish_as("two.repl");
	make_rest();
	finish_as("rest.repl");
	make_opening();
	finish_as("opening.repl");
	make_batch();
	finish_as("batch.repl");
	make_change();
	finish_as("change.repl");
	make_ack();
	finish_as("ack.repl");
	make_journal();
	finish_as("journal.repl");
}

/* ---- what is wrong with a stream ---- */

/* A record that no version 1 program writes, with a true trailer behind it. */
static void make_unknown(uint16_t flags)
{
	uint8_t head[8] = {0x33, 0x33, (uint8_t)flags, 0, 4, 0, 0, 0}, body[4] = {1, 2, 3, 4};

	begin(KIND_IMAGE);
	wr_raw(&made, head, sizeof head);
	wr_raw(&made, body, sizeof body);
	digest_run_add(&out.at.run, head, sizeof head);
	digest_run_add(&out.at.run, body, sizeof body);
	out.at.records++;
}

static void seeds(void)
{
	save("empty", &made);
	make_image();
	finish_as("image");
	make_full();
	finish_as("full");
	make_delta();
	finish_as("delta");
	make_rest();
	finish_as("rest");
	make_opening();
	finish_as("opening");
	make_batch();
	finish_as("batch");
	make_change();
	finish_as("change");
	make_ack();
	finish_as("ack");
	make_journal();
	finish_as("journal");
	begin(KIND_DELTA);
	finish_as("nothing-in-it");
	make_ack();
	finish();
	make_change();
	finish_as("two-streams");
	make_unknown(REC_OPTIONAL);
	finish_as("unknown-optional");
	make_unknown(0);
	finish_as("unknown-mandatory");
	make_delta();
	save("without-trailer", &made);
	finish();
	made.len -= 1;
	save("cut-in-trailer", &made);
	made.len += 1;
	made.p[100] ^= 0x20;
	save("flipped", &made);
	made.p[8] = 2;
	save("version-2", &made);
	buf_reset(&made);
	begin(KIND_ACK);
	put((struct record){.type = REC_HOLE, .u.hole = {0, 1}});
	finish_as("record-in-wrong-kind");
	begin(KIND_DELTA);
	struct record r = {.type = REC_DATA, .u.data = {.bytes = span_cstr("not its digest")}};
	put(r);
	finish_as("wrong-data-digest");
	make_ack();
	finish();
	made.p[20] = made.p[21] = made.p[22] = 0xff;
	made.p[23] = 0x7f;
	save("huge-record", &made);
	buf_reset(&made);
}

/* One record a file: u16 type, payload. */
static void record_seeds(void)
{
	struct stream_in s = {0};
	struct err e = {0};
	size_t room;
	int event;

	make_image();
	finish();
	make_delta();
	finish();
	make_rest();
	finish();
	make_batch();
	finish();
	make_change();
	finish();
	make_ack();
	finish();
	make_journal();
	finish();
	memcpy(stream_space(&s, made.len, &room), made.p, made.len);
	stream_fed(&s, made.len);
	while ((event = stream_next(&s, &e)) > 0) {
		AUTO_BUF struct buf b = {0};
		if (event == STREAM_BEGIN)
			continue;
		/* The content that rec_decode sees is not worth a large file. */
		size_t n = s.raw.len - 8;
		if (n > 200 && s.rec.type == REC_DATA)
			n = 200;
		wr_u16(&b, s.rec.type);
		wr_raw(&b, s.raw.p + 8, n);
		save(rec_row(s.rec.type)->name, &b);
	}
	if (event < 0)
		die("reading back", e.text);
	stream_in_free(&s);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		die("usage", "make-seeds GOLDEN STREAMS RECORDS");
	plant();
	folder = argv[1];
	golden();
	folder = argv[2];
	seeds();
	folder = argv[3];
	record_seeds();
	stream_out_free(&out);
	buf_free(&made);
	buf_free(&fresh_xattrs);
	return 0;
}
