#include "record.h"

#include <stdlib.h>

#include "unit.h"

static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";

/* Every field of a record, from the table, with bytes that tell fields and their ends apart. */
static void fill(struct record *r, const struct rec_row *row, uint8_t seed, size_t text_len)
{
	memset(r, 0, sizeof *r);
	r->type = row->type;
	r->flags = row->optional ? REC_OPTIONAL : 0;
	for (size_t i = 0; i < row->n_fields; i++) {
		uint8_t *at = (uint8_t *)r + row->fields[i].at;
		struct span s = span_of(digits + i, text_len);
		size_t n = 0;

		switch (row->fields[i].kind) {
		case F_U8:
			n = 1;
			break;
		case F_U16:
			n = 2;
			break;
		case F_U32:
			n = 4;
			break;
		case F_U64:
		case F_I64:
			n = 8;
			break;
		case F_DIGEST:
			n = DIGEST_LEN;
			break;
		case F_UUID:
			n = 16;
			break;
		case F_NAME:
		case F_TEXT:
		case F_TARGET:
		case F_REST:
			memcpy(at, &s, sizeof s);
			break;
		}
		for (size_t k = 0; k < n; k++)
			at[k] = (uint8_t)(seed * 29u + i * 17u + k + 1u);
	}
}

static bool same(const struct record *a, const struct record *b, const struct rec_row *row)
{
	for (size_t i = 0; i < row->n_fields; i++) {
		const uint8_t *x = (const uint8_t *)a + row->fields[i].at, *y = (const uint8_t *)b + row->fields[i].at;
		struct span s, t;
		size_t n = 0;

		switch (row->fields[i].kind) {
		case F_U8:
			n = 1;
			break;
		case F_U16:
			n = 2;
			break;
		case F_U32:
			n = 4;
			break;
		case F_U64:
		case F_I64:
			n = 8;
			break;
		case F_DIGEST:
			n = DIGEST_LEN;
			break;
		case F_UUID:
			n = 16;
			break;
		case F_NAME:
		case F_TEXT:
		case F_TARGET:
		case F_REST:
			memcpy(&s, x, sizeof s);
			memcpy(&t, y, sizeof t);
			if (!span_eq(s, t))
				return false;
			break;
		}
		if (memcmp(x, y, n))
			return false;
	}
	return true;
}

/* The content bytes that rec_encode leaves to its caller. */
static struct span bulk_of(const struct record *r)
{
	if (r->type == REC_DATA)
		return r->u.data.bytes;
	return r->type == REC_WRITE ? r->u.write.bytes : (struct span){0};
}

static void encode(struct buf *b, const struct record *r)
{
	struct span bulk = bulk_of(r);

	buf_reset(b);
	rec_encode(b, r);
	wr_raw(b, bulk.p, bulk.len);
}

static void test_table(void)
{
	size_t n;
	const struct rec_row *rows = rec_rows(&n);

	CHECK(n == 32);
	for (size_t i = 0; i < n; i++) {
		CHECK(rec_row(rows[i].type) == &rows[i]);
		CHECK(!i || rows[i - 1].type < rows[i].type);
		CHECK(rows[i].n_fields > 0 && rows[i].kinds && rows[i].since == 1);
		/* Only the last field may take the rest. */
		for (size_t k = 0; k + 1 < rows[i].n_fields; k++)
			CHECK(rows[i].fields[k].kind != F_REST);
	}
	for (unsigned t = 0; t <= UINT16_MAX; t++) {
		bool listed = false;
		for (size_t i = 0; i < n; i++)
			listed |= rows[i].type == t;
		if ((rec_row((uint16_t)t) != NULL) != listed)
			CHECK(listed);
	}
	CHECK(rec_covered(REC_DATA, 100) == 40 && rec_covered(REC_DATA, 40) == 40 && rec_covered(REC_DATA, 8) == 8);
	CHECK(rec_covered(REC_WRITE, 100) == 66 && rec_covered(REC_WRITE, 7) == 7 && rec_covered(REC_META, 1000) == 1000);
}

static void test_there_and_back(void)
{
	size_t n;
	const struct rec_row *rows = rec_rows(&n);
	AUTO_BUF struct buf a = {0}, b = {0};
	struct record in, out;

	for (size_t i = 0; i < n; i++) {
		const struct rec_row *row = &rows[i];
		for (uint8_t seed = 0; seed < 3; seed++) {
			struct err e = {0};
			fill(&in, row, seed, seed * 5u);
			encode(&a, &in);
			struct rd r = rd_of(a.p, a.len);
			CHECK_EQ_U64(rd_u16(&r), row->type);
			CHECK_EQ_U64(rd_u16(&r), row->optional ? 1 : 0);
			CHECK_EQ_U64(rd_u32(&r), a.len - 8);
			CHECK_OK(rec_decode(&out, in.type, in.flags, a.p + 8, a.len - 8, &e), e);
			CHECK(out.type == in.type && out.flags == in.flags);
			if (!CHECK(same(&in, &out, row)))
				fprintf(stderr, "\trecord '%s'\n", row->name);
			encode(&b, &out);
			CHECK(span_eq(span_of(a.p, a.len), span_of(b.p, b.len)));
		}
		/* One byte less or more is another record, except where the last field takes what there is. */
		struct err e = {0};
		bool rest = row->fields[row->n_fields - 1].kind == F_REST;
		fill(&in, row, 1, 4);
		encode(&a, &in);
		size_t fixed = a.len - 8 - (rest ? 4 : 0);
		for (size_t len = 0; len < fixed; len++) {
			err_clear(&e);
			if (rec_decode(&out, in.type, in.flags, a.p + 8, len, &e) != -1 || e.kind != ERR_STREAM)
				CHECK(e.kind == ERR_STREAM);
		}
		wr_u8(&a, 0);
		err_clear(&e);
		CHECK((rec_decode(&out, in.type, in.flags, a.p + 8, a.len - 8, &e) == 0) == rest);
	}
	struct err e = {0};
	CHECK(rec_decode(&out, 0x7e, 0, "", 0, &e) == -1 && e.kind == ERR_STREAM);
}

static void test_limits(void)
{
	static const struct {
		uint16_t type;
		size_t at, most;
	} rows[] = {
		{REC_ATTACH, offsetof(struct record, u.attach.name), REC_NAME_MAX},
		{REC_MARK, offsetof(struct record, u.mark.bookmark), REC_TEXT_MAX},
		{REC_MEMBER, offsetof(struct record, u.member.path), REC_TARGET_MAX},
		{REC_META, offsetof(struct record, u.meta.target), REC_TARGET_MAX},
	};
	char *text = xalloc(REC_TARGET_MAX + 1);
	AUTO_BUF struct buf b = {0};
	struct record in, out;

	memset(text, 'x', REC_TARGET_MAX + 1);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		for (size_t more = 0; more < 2; more++) {
			struct err e = {0};
			struct span s = span_of(text, rows[i].most + more);
			fill(&in, rec_row(rows[i].type), 0, 0);
			memcpy((uint8_t *)&in + rows[i].at, &s, sizeof s);
			encode(&b, &in);
			CHECK((rec_decode(&out, in.type, 0, b.p + 8, b.len - 8, &e) == 0) == !more);
		}
	}
	free(text);
	/* A length that is a lie asks for nothing. */
	struct err e = {0};
	fill(&in, rec_row(REC_ATTACH), 0, 3);
	encode(&b, &in);
	memset(b.p + 8 + 16, 0xff, 4);
	CHECK(rec_decode(&out, REC_ATTACH, 0, b.p + 8, b.len - 8, &e) == -1);
}

static bool sane(const char *s, size_t n) { return name_is_sane(span_of(s, n)); }

static void test_names(void)
{
	char most[256];

	memset(most, 'n', sizeof most);
	CHECK(sane("a", 1) && sane("...", 3) && sane(".a", 2) && sane("..a", 3) && sane("a b\n\xff", 5) && sane(most, 255));
	CHECK(!sane("", 0) && !sane(".", 1) && !sane("..", 2) && !sane("/", 1) && !sane("a/b", 3) && !sane("a\0b", 3));
	CHECK(!sane("/a", 2) && !sane("a/", 2) && !sane("../x", 4) && !sane(most, 256));
}

static bool ok(const struct record *r)
{
	struct err e = {0};
	bool good = rec_check(r, &e) == 0;

	CHECK(good ? e.kind == ERR_NONE : e.kind == ERR_STREAM);
	return good;
}

/* R holds, and does not hold once this was done to it. */
#define GOOD(r) CHECK(ok(&(r)))
#define BAD(r, change) \
	do { \
		struct record with = (r), *x = &with; \
		change; \
		CHECK(!ok(&with)); \
	} while (0)

static void test_check_names(void)
{
	static const char *const unsafe[] = {"", ".", "..", "a/b", "/"};
	const struct span name = span_cstr("name");
	struct record base = {.type = REC_BASE, .u.base = {2, 1, 0, name}};
	struct record create = {.type = REC_CREATE, .u.create = {2, 1, OBJ_FILE, name}};
	struct record attach = {.type = REC_ATTACH, .u.attach = {2, 1, name}};
	struct record dir = {.type = REC_DIR, .u.dir = {2, 1, name}};
	struct record stray = {.type = REC_STRAY, .u.stray = {1, name}};
	struct record changed = {.type = REC_CHANGED, .u.changed = {1, 0, name}};
	struct record member = {.type = REC_MEMBER, .u.member = {1, name, {0}}};
	struct record root = {.type = REC_CREATE, .u.create = {REF_ROOT, 0, OBJ_DIR, {0}}};
	struct record object = {.type = REC_OBJECT, .u.object = {REF_ROOT}};
	struct record gap = {.type = REC_GAP, .u.gap = {REF_ROOT, {0}}};

	GOOD(base);
	GOOD(create);
	GOOD(attach);
	GOOD(dir);
	GOOD(stray);
	GOOD(changed);
	GOOD(member);
	GOOD(root);
	GOOD(object);
	GOOD(gap);
	for (size_t i = 0; i < sizeof unsafe / sizeof unsafe[0]; i++) {
		struct span s = span_cstr(unsafe[i]);
		BAD(base, x->u.base.name = s);
		BAD(create, x->u.create.name = s);
		BAD(attach, x->u.attach.name = s);
		BAD(dir, x->u.dir.name = s);
		BAD(stray, x->u.stray.name = s);
		if (!s.len) /* the directory itself; the image's root itself */
			continue;
		BAD(changed, x->u.changed.name = s);
		BAD(member, x->u.member.name = s);
	}
	BAD(base, x->u.base.ref = REF_ROOT);
	base.u.base.ref = REF_NONE;
	GOOD(base);
	BAD(base, x->u.base.flags = BASE_DETACH);
	BAD(base, x->u.base.flags = BASE_WANTED);
	base.u.base.ref = 2;
	BAD(base, x->u.base.parent = 0);
	BAD(base, x->u.base.flags = 4);
	BAD(create, x->u.create.type = 0);
	BAD(create, x->u.create.type = OBJ_SOCKET);
	BAD(create, x->u.create.parent = 0);
	BAD(create, x->u.create.ref = REF_ROOT);
	BAD(root, x->u.create.parent = 1);
	BAD(root, x->u.create.name = name);
	BAD(attach, x->u.attach.ref = REF_ROOT);
	BAD(attach, x->u.attach.parent = 0);
	BAD(dir, x->u.dir.ref = REF_ROOT);
	BAD(dir, x->u.dir.parent = 0);
	BAD(stray, x->u.stray.parent = 0);
	BAD(changed, x->u.changed.parent = 0);
	BAD(changed, (x->u.changed.name.len = 0, x->u.changed.flags = CHANGED_SUBTREE));
	BAD(member, x->u.member.kind = 0);
	BAD(member, x->u.member.kind = 3);
	BAD(object, x->u.object.ref = 0);
	BAD(gap, x->u.gap.ref = 0);
	create.u.create.ref = 0; /* never named again */
	GOOD(create);
}

static void test_check_content(void)
{
	static const uint8_t bytes[REC_DATA_MAX + 1];
	static const uint8_t rows[(REC_DIGESTS_MAX + 1) * DIGESTS_ROW];
	struct record content = {.type = REC_CONTENT, .u.content = {CONTENT_PATCH, 65536}};
	struct record data = {.type = REC_DATA, .u.data = {.off = 0, .bytes = span_of(bytes, 1)}};
	struct record copy = {.type = REC_COPY, .u.copy = {0, 1, 1, 0}};
	struct record hole = {.type = REC_HOLE, .u.hole = {0, 1}};
	struct record seal = {.type = REC_SEAL, .u.seal = {.size = REC_SIZE_MAX, .flags = SEAL_UNSETTLED}};
	struct record digests = {.type = REC_DIGESTS, .u.digests = {0, span_of(rows, DIGESTS_ROW)}};
	struct record hint = {.type = REC_HINT, .u.hint = {.ctime_ns = 999999999, .btime_ns = 999999999}};
	struct record inode = {.type = REC_INODE, .u.inode = {.ino = 2, .btime_ns = 999999999}};
	struct record region = {.type = REC_REGION, .u.region = {0, 4096, span_of(rows, 34)}};
	struct record wr = {.type = REC_WRITE, .u.write = {.op = WRITE_DATA, .len = 1}};

	GOOD(content);
	GOOD(data);
	GOOD(copy);
	GOOD(hole);
	GOOD(seal);
	GOOD(digests);
	GOOD(hint);
	GOOD(inode);
	GOOD(region);
	GOOD(wr);
	BAD(content, x->u.content.flags = 2);
	BAD(content, x->u.content.grain = 0);
	BAD(content, x->u.content.grain = 8192);
	BAD(data, x->u.data.bytes.len = 0);
	BAD(data, x->u.data.bytes.len = REC_DATA_MAX + 1);
	BAD(data, x->u.data.off = REC_SIZE_MAX);
	BAD(data, x->u.data.off = UINT64_MAX);
	data.u.data.bytes.len = REC_DATA_MAX;
	data.u.data.off = REC_SIZE_MAX - REC_DATA_MAX;
	GOOD(data);
	BAD(data, x->u.data.off++);
	BAD(copy, x->u.copy.len = 0);
	BAD(copy, x->u.copy.ref = 0);
	BAD(copy, x->u.copy.len = UINT64_MAX);
	BAD(copy, x->u.copy.off = UINT64_MAX);
	BAD(copy, x->u.copy.src = REC_SIZE_MAX);
	copy.u.copy.len = REC_SIZE_MAX;
	GOOD(copy);
	BAD(copy, x->u.copy.src = 1);
	BAD(hole, x->u.hole.len = 0);
	BAD(hole, x->u.hole.len = (uint64_t)INT64_MAX);
	BAD(hole, x->u.hole.off = (uint64_t)INT64_MAX);
	BAD(seal, x->u.seal.size++);
	BAD(seal, x->u.seal.flags = 2);
	BAD(digests, x->u.digests.rows.len = 0);
	BAD(digests, x->u.digests.rows.len = DIGESTS_ROW - 1);
	BAD(digests, x->u.digests.rows.len = sizeof rows);
	BAD(digests, x->u.digests.first = UINT64_MAX);
	digests.u.digests.rows.len = sizeof rows - DIGESTS_ROW;
	GOOD(digests);
	BAD(inode, x->u.inode.btime_ns = 1000000000);
	BAD(hint, x->u.hint.ctime_ns++);
	BAD(hint, x->u.hint.btime_ns++);
	BAD(region, x->u.region.rows.len = 33);
	BAD(wr, x->u.write.op = 0);
	BAD(wr, x->u.write.op = 4);
	BAD(wr, x->u.write.where = 3);
	BAD(wr, x->u.write.len = UINT64_MAX);
	BAD(wr, x->u.write.bytes = span_of(bytes, REC_DATA_MAX + 1));
}

static void add_xattr(struct buf *b, const char *name, const char *value)
{
	wr_str(b, name, strlen(name));
	wr_str(b, value, strlen(value));
}

static void test_check_meta(void)
{
	AUTO_BUF struct buf b = {0};
	struct record meta = {.type = REC_META, .u.meta = {.mode = 07777, .mtime_ns = 999999999, .attr = META_ATTR_MASK}};
	struct span name, value;

	GOOD(meta);
	BAD(meta, x->u.meta.mode = 010000);
	BAD(meta, x->u.meta.mtime_ns++);
	BAD(meta, x->u.meta.attr = 1);
	BAD(meta, x->u.meta.attr = UINT32_MAX);
	BAD(meta, x->u.meta.target = span_of("a\0b", 3));
	add_xattr(&b, "user.a", "1");
	add_xattr(&b, "user.ab", "");
	add_xattr(&b, "user.b", "333");
	meta.u.meta.xattrs = span_of(b.p, b.len);
	GOOD(meta);
	struct rd r = rd_of(b.p, b.len);
	CHECK(xattr_next(&r, &name, &value) && span_eq(name, span_cstr("user.a")) && value.len == 1);
	CHECK(xattr_next(&r, &name, &value) && span_eq(name, span_cstr("user.ab")) && value.len == 0);
	CHECK(xattr_next(&r, &name, &value) && span_eq(value, span_cstr("333")));
	CHECK(!xattr_next(&r, &name, &value) && rd_done(&r));
	size_t second = 4 + 6 + 4 + 1, third = second + 4 + 7 + 4;
	for (size_t n = 1; n < b.len; n++)
		if (n != second && n != third)
			BAD(meta, x->u.meta.xattrs.len = n);
	add_xattr(&b, "user.b", "twice");
	BAD(meta, x->u.meta.xattrs = span_of(b.p, b.len));
	buf_reset(&b);
	add_xattr(&b, "user.b", "");
	add_xattr(&b, "user.a", "");
	BAD(meta, x->u.meta.xattrs = span_of(b.p, b.len));
	buf_reset(&b);
	add_xattr(&b, "", "nameless");
	BAD(meta, x->u.meta.xattrs = span_of(b.p, b.len));
	buf_reset(&b);
	wr_str(&b, "a\0b", 3);
	wr_str(&b, "", 0);
	BAD(meta, x->u.meta.xattrs = span_of(b.p, b.len));
}

static void test_check_others(void)
{
	struct record image = {.type = REC_IMAGE, .u.image = {.consistency = CONS_APP, .host = span_cstr("srv")}};
	struct record owner = {.type = REC_OWNER, .u.owner = {.is_group = 1}};
	struct record resume = {.type = REC_RESUME, .u.resume = {.off = REC_SIZE_MAX, .records = 1}};
	struct record ack = {.type = REC_ACK, .u.ack = {.action = ACK_HELD}};

	GOOD(image);
	GOOD(owner);
	GOOD(resume);
	BAD(resume, x->u.resume.records = 0);
	BAD(resume, x->u.resume.off++);
	GOOD(ack);
	BAD(image, x->u.image.consistency++);
	BAD(image, x->u.image.host = span_cstr("a\nb"));
	BAD(owner, x->u.owner.is_group = 2);
	BAD(ack, x->u.ack.action = 0);
	BAD(ack, x->u.ack.action = 5);
	CHECK_EQ_STR(obj_type_name(OBJ_DIR), "dir");
	CHECK_EQ_STR(obj_type_name(200), "unknown");
}

int unit_record(void)
{
	unsigned long before = unit_failures;

	test_table();
	test_there_and_back();
	test_limits();
	test_names();
	test_check_names();
	test_check_content();
	test_check_meta();
	test_check_others();
	return (int)(unit_failures - before);
}
