#include "record.h"

#include <assert.h>
#include <stddef.h>

#define AT(m) offsetof(struct record, u.m)
#define K(k) (1u << KIND_##k)
#define OBJECTS (K(IMAGE) | K(DELTA) | K(JOURNAL))
#define ANY (K(IMAGE) | K(CHANGE) | K(DELTA) | K(ACK) | K(JOURNAL))
#define FIELDS(f) f, sizeof f / sizeof f[0]

static const struct field f_image[] = {
	{"id", F_DIGEST, AT(image.id)}, {"parent", F_DIGEST, AT(image.parent)}, {"time", F_I64, AT(image.time_ns)},
	{"seq", F_U64, AT(image.seq)}, {"instance", F_UUID, AT(image.instance)},
	{"provider", F_U8, AT(image.provider)}, {"consistency", F_U8, AT(image.consistency)},
	{"host", F_TEXT, AT(image.host)}, {"bookmark", F_TEXT, AT(image.bookmark)},
	{"group", F_TEXT, AT(image.group)},
};
static const struct field f_member[] = {
	{"kind", F_U8, AT(member.kind)}, {"name", F_NAME, AT(member.name)}, {"path", F_TARGET, AT(member.path)},
};
static const struct field f_delta[] = {
	{"base", F_DIGEST, AT(delta.base)}, {"items", F_U64, AT(delta.items)}, {"bytes", F_U64, AT(delta.bytes)},
};
static const struct field f_owner[] = {
	{"is_group", F_U8, AT(owner.is_group)}, {"id", F_U32, AT(owner.id)}, {"name", F_TEXT, AT(owner.name)},
};
static const struct field f_resume[] = {
	{"off", F_U64, AT(resume.off)}, {"records", F_U64, AT(resume.records)}, {"bytes", F_U64, AT(resume.bytes)},
	{"digest", F_DIGEST, AT(resume.digest)},
};
static const struct field f_base[] = {
	{"ref", F_U64, AT(base.ref)}, {"parent", F_U64, AT(base.parent)}, {"flags", F_U8, AT(base.flags)},
	{"name", F_NAME, AT(base.name)},
};
static const struct field f_create[] = {
	{"ref", F_U64, AT(create.ref)}, {"parent", F_U64, AT(create.parent)}, {"type", F_U8, AT(create.type)},
	{"name", F_NAME, AT(create.name)},
};
static const struct field f_attach[] = {
	{"ref", F_U64, AT(attach.ref)}, {"parent", F_U64, AT(attach.parent)}, {"name", F_NAME, AT(attach.name)},
};
static const struct field f_object[] = {{"ref", F_U64, AT(object.ref)}};
static const struct field f_drop[] = {{"reserved", F_U8, AT(drop.reserved)}};
static const struct field f_stray[] = {{"parent", F_U64, AT(stray.parent)}, {"name", F_NAME, AT(stray.name)}};
static const struct field f_meta[] = {
	{"mode", F_U16, AT(meta.mode)}, {"uid", F_U32, AT(meta.uid)}, {"gid", F_U32, AT(meta.gid)},
	{"mtime_s", F_I64, AT(meta.mtime_s)}, {"mtime_ns", F_U32, AT(meta.mtime_ns)},
	{"major", F_U32, AT(meta.major)}, {"minor", F_U32, AT(meta.minor)}, {"attr", F_U32, AT(meta.attr)},
	{"target", F_TARGET, AT(meta.target)}, {"xattrs", F_REST, AT(meta.xattrs)},
};
static const struct field f_content[] = {
	{"flags", F_U8, AT(content.flags)}, {"grain", F_U32, AT(content.grain)},
};
static const struct field f_data[] = {
	{"off", F_U64, AT(data.off)}, {"digest", F_DIGEST, AT(data.digest)}, {"bytes", F_REST, AT(data.bytes)},
};
static const struct field f_copy[] = {
	{"off", F_U64, AT(copy.off)}, {"len", F_U64, AT(copy.len)}, {"ref", F_U64, AT(copy.ref)},
	{"src", F_U64, AT(copy.src)},
};
static const struct field f_hole[] = {{"off", F_U64, AT(hole.off)}, {"len", F_U64, AT(hole.len)}};
static const struct field f_seal[] = {
	{"size", F_U64, AT(seal.size)}, {"digest", F_DIGEST, AT(seal.digest)}, {"flags", F_U8, AT(seal.flags)},
};
static const struct field f_digests[] = {
	{"first", F_U64, AT(digests.first)}, {"rows", F_REST, AT(digests.rows)},
};
static const struct field f_hint[] = {
	{"dev", F_U64, AT(hint.dev)}, {"ino", F_U64, AT(hint.ino)}, {"ctime_s", F_I64, AT(hint.ctime_s)},
	{"ctime_ns", F_U32, AT(hint.ctime_ns)}, {"btime_s", F_I64, AT(hint.btime_s)},
	{"btime_ns", F_U32, AT(hint.btime_ns)}, {"nlink", F_U32, AT(hint.nlink)}, {"flags", F_U8, AT(hint.flags)},
};
static const struct field f_end[] = {
	{"id", F_DIGEST, AT(end.id)}, {"entries", F_U64, AT(end.entries)}, {"bytes", F_U64, AT(end.bytes)},
};
static const struct field f_dir[] = {
	{"ref", F_U64, AT(dir.ref)}, {"parent", F_U64, AT(dir.parent)}, {"name", F_NAME, AT(dir.name)},
};
static const struct field f_changed[] = {
	{"parent", F_U64, AT(changed.parent)}, {"flags", F_U8, AT(changed.flags)}, {"name", F_NAME, AT(changed.name)},
};
static const struct field f_gap[] = {{"ref", F_U64, AT(gap.ref)}, {"reason", F_TEXT, AT(gap.reason)}};
static const struct field f_region[] = {
	{"file", F_U64, AT(region.file)}, {"grain", F_U32, AT(region.grain)}, {"rows", F_REST, AT(region.rows)},
};
static const struct field f_cursor[] = {
	{"journal", F_UUID, AT(cursor.journal)}, {"seq", F_U64, AT(cursor.seq)},
	{"consumer", F_TEXT, AT(cursor.consumer)},
};
static const struct field f_inode[] = {
	{"dev", F_U64, AT(inode.dev)}, {"ino", F_U64, AT(inode.ino)}, {"btime_s", F_I64, AT(inode.btime_s)},
	{"btime_ns", F_U32, AT(inode.btime_ns)},
};
static const struct field f_ack[] = {
	{"id", F_DIGEST, AT(ack.id)}, {"base", F_DIGEST, AT(ack.base)}, {"time", F_I64, AT(ack.time_ns)},
	{"seq", F_U64, AT(ack.seq)}, {"instance", F_UUID, AT(ack.instance)}, {"action", F_U8, AT(ack.action)},
	{"created", F_U64, AT(ack.created)}, {"changed", F_U64, AT(ack.changed)},
	{"removed", F_U64, AT(ack.removed)}, {"bytes", F_U64, AT(ack.bytes)},
};
static const struct field f_loss[] = {
	{"kind", F_TEXT, AT(loss.kind)}, {"count", F_U64, AT(loss.count)}, {"example", F_TARGET, AT(loss.example)},
};
static const struct field f_write[] = {
	{"time", F_I64, AT(write.time_ns)}, {"ref", F_U64, AT(write.ref)}, {"off", F_U64, AT(write.off)},
	{"len", F_U64, AT(write.len)}, {"op", F_U8, AT(write.op)}, {"where", F_U8, AT(write.where)},
	{"digest", F_DIGEST, AT(write.digest)}, {"bytes", F_REST, AT(write.bytes)},
};
static const struct field f_mark[] = {{"time", F_I64, AT(mark.time_ns)}, {"bookmark", F_TEXT, AT(mark.bookmark)}};
static const struct field f_beat[] = {{"count", F_U64, AT(beat.count)}};
static const struct field f_trailer[] = {
	{"records", F_U64, AT(trailer.records)}, {"bytes", F_U64, AT(trailer.bytes)},
	{"digest", F_DIGEST, AT(trailer.digest)}, {"mac", F_DIGEST, AT(trailer.mac)},
};

/* Ascending by type. */
static const struct rec_row rows[] = {
	{REC_IMAGE, "image", 1, false, ANY, FIELDS(f_image)},
	{REC_MEMBER, "member", 1, false, ANY, FIELDS(f_member)},
	{REC_DELTA, "delta", 1, false, K(DELTA) | K(JOURNAL), FIELDS(f_delta)},
	{REC_OWNER, "owner", 1, false, OBJECTS, FIELDS(f_owner)},
	{REC_RESUME, "resume", 1, false, K(DELTA), FIELDS(f_resume)},
	{REC_BASE, "base", 1, false, OBJECTS, FIELDS(f_base)},
	{REC_CREATE, "create", 1, false, OBJECTS, FIELDS(f_create)},
	{REC_ATTACH, "attach", 1, false, OBJECTS, FIELDS(f_attach)},
	{REC_OBJECT, "object", 1, false, OBJECTS, FIELDS(f_object)},
	{REC_DROP, "drop", 1, false, OBJECTS, FIELDS(f_drop)},
	{REC_STRAY, "stray", 1, false, K(DELTA), FIELDS(f_stray)},
	{REC_META, "meta", 1, false, OBJECTS, FIELDS(f_meta)},
	{REC_CONTENT, "content", 1, false, OBJECTS, FIELDS(f_content)},
	{REC_DATA, "data", 1, false, K(DELTA), FIELDS(f_data)},
	{REC_COPY, "copy", 1, false, K(DELTA), FIELDS(f_copy)},
	{REC_HOLE, "hole", 1, false, K(DELTA), FIELDS(f_hole)},
	{REC_SEAL, "seal", 1, false, OBJECTS, FIELDS(f_seal)},
	{REC_DIGESTS, "digests", 1, false, OBJECTS, FIELDS(f_digests)},
	{REC_HINT, "hint", 1, true, OBJECTS, FIELDS(f_hint)},
	{REC_END, "end", 1, false, OBJECTS | K(CHANGE), FIELDS(f_end)},
	{REC_DIR, "dir", 1, false, K(CHANGE), FIELDS(f_dir)},
	{REC_CHANGED, "changed", 1, false, K(CHANGE) | K(DELTA), FIELDS(f_changed)},
	{REC_GAP, "gap", 1, false, K(CHANGE) | K(DELTA) | K(JOURNAL), FIELDS(f_gap)},
	{REC_REGION, "region", 1, true, K(CHANGE), FIELDS(f_region)},
	{REC_CURSOR, "cursor", 1, true, K(IMAGE) | K(CHANGE) | K(DELTA), FIELDS(f_cursor)},
	{REC_INODE, "inode", 1, false, K(CHANGE), FIELDS(f_inode)},
	{REC_ACK, "ack", 1, false, K(ACK), FIELDS(f_ack)},
	{REC_LOSS, "loss", 1, true, K(ACK), FIELDS(f_loss)},
	{REC_WRITE, "write", 1, false, K(JOURNAL), FIELDS(f_write)},
	{REC_MARK, "mark", 1, true, K(JOURNAL), FIELDS(f_mark)},
	{REC_BEAT, "beat", 1, true, ANY, FIELDS(f_beat)},
	{REC_TRAILER, "trailer", 1, false, ANY, FIELDS(f_trailer)},
};

const struct rec_row *rec_rows(size_t *n)
{
	*n = sizeof rows / sizeof rows[0];
	return rows;
}

const struct rec_row *rec_row(uint16_t type)
{
	size_t lo = 0, hi = sizeof rows / sizeof rows[0];

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (rows[mid].type == type)
			return &rows[mid];
		if (rows[mid].type < type)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

static bool is_bulk(uint16_t type) { return type == REC_DATA || type == REC_WRITE; }

/* Fixed bytes before the content in DATA: off, digest; in WRITE: time, ref, off, len, op, where, digest. */
size_t rec_covered(uint16_t type, size_t len)
{
	size_t head = type == REC_DATA ? 8 + DIGEST_LEN : type == REC_WRITE ? 8 * 4 + 2 + DIGEST_LEN : len;

	return head < len ? head : len;
}

static size_t field_limit(enum field_kind k)
{
	return k == F_NAME ? REC_NAME_MAX : k == F_TEXT ? REC_TEXT_MAX : REC_TARGET_MAX;
}

void rec_encode(struct buf *b, const struct record *r)
{
	const struct rec_row *row = rec_row(r->type);
	size_t start = b->len, bulk = 0;

	assert(row);
	wr_u16(b, r->type);
	wr_u16(b, row->optional ? REC_OPTIONAL : 0);
	wr_u32(b, 0);
	for (size_t i = 0; i < row->n_fields; i++) {
		const struct field *f = &row->fields[i];
		const void *at = (const uint8_t *)r + f->at;
		uint64_t v64;
		uint32_t v32;
		uint16_t v16;
		struct span s;

		switch (f->kind) {
		case F_U8:
			buf_add(b, at, 1);
			break;
		case F_U16:
			memcpy(&v16, at, sizeof v16);
			wr_u16(b, v16);
			break;
		case F_U32:
			memcpy(&v32, at, sizeof v32);
			wr_u32(b, v32);
			break;
		case F_U64:
		case F_I64:
			memcpy(&v64, at, sizeof v64);
			wr_u64(b, v64);
			break;
		case F_DIGEST:
			buf_add(b, at, DIGEST_LEN);
			break;
		case F_UUID:
			buf_add(b, at, 16);
			break;
		case F_NAME:
		case F_TEXT:
		case F_TARGET:
			memcpy(&s, at, sizeof s);
			wr_str(b, s.p, s.len);
			break;
		case F_REST:
			memcpy(&s, at, sizeof s);
			if (is_bulk(r->type))
				bulk = s.len;
			else
				buf_add(b, s.p, s.len);
			break;
		}
	}
	size_t len = b->len - start - 8 + bulk;
	assert(len <= REC_MAX);
	for (unsigned i = 0; i < 4; i++)
		b->p[start + 4 + i] = (uint8_t)(len >> (8 * i));
}

int rec_decode(struct record *r, uint16_t type, uint16_t flags, const void *p, size_t n, struct err *e)
{
	const struct rec_row *row = rec_row(type);
	struct rd rd = rd_of(p, n);

	if (!row)
		return err_set(e, ERR_STREAM, "unknown record type 0x%02x", type);
	memset(r, 0, sizeof *r);
	r->type = type;
	r->flags = flags;
	for (size_t i = 0; i < row->n_fields; i++) {
		const struct field *f = &row->fields[i];
		void *at = (uint8_t *)r + f->at;
		uint64_t v64;
		uint32_t v32;
		uint16_t v16;
		struct span s;

		switch (f->kind) {
		case F_U8:
			rd_copy(&rd, at, 1);
			break;
		case F_U16:
			v16 = rd_u16(&rd);
			memcpy(at, &v16, sizeof v16);
			break;
		case F_U32:
			v32 = rd_u32(&rd);
			memcpy(at, &v32, sizeof v32);
			break;
		case F_U64:
		case F_I64:
			v64 = rd_u64(&rd);
			memcpy(at, &v64, sizeof v64);
			break;
		case F_DIGEST:
			rd_copy(&rd, at, DIGEST_LEN);
			break;
		case F_UUID:
			rd_copy(&rd, at, 16);
			break;
		case F_NAME:
		case F_TEXT:
		case F_TARGET:
			s = rd_str(&rd, field_limit(f->kind));
			memcpy(at, &s, sizeof s);
			break;
		case F_REST:
			s = rd_raw(&rd, rd.len);
			memcpy(at, &s, sizeof s);
			break;
		}
	}
	if (!rd_done(&rd))
		return err_set(e, ERR_STREAM, "malformed '%s' record of %zu bytes", row->name, n);
	return 0;
}

bool name_is_sane(struct span s)
{
	if (s.len == 0 || s.len > REC_NAME_MAX || memchr(s.p, '/', s.len) || memchr(s.p, 0, s.len))
		return false;
	return !(s.p[0] == '.' && (s.len == 1 || (s.len == 2 && s.p[1] == '.')));
}

bool xattr_next(struct rd *r, struct span *name, struct span *value)
{
	if (r->bad || !r->len)
		return false;
	*name = rd_str(r, REC_NAME_MAX);
	*value = rd_str(r, REC_MAX);
	return !r->bad;
}

static const char *check_meta(const struct r_meta *m)
{
	struct rd r = rd_of(m->xattrs.p, m->xattrs.len);
	struct span name, value, last = {0};

	if (m->mode > 07777)
		return "mode has bits beyond 07777";
	if (m->mtime_ns >= 1000000000u)
		return "nanoseconds out of range";
	if (m->attr & ~META_ATTR_MASK)
		return "unknown attribute flags";
	if (m->target.len && memchr(m->target.p, 0, m->target.len))
		return "link target holds a NUL";
	while (xattr_next(&r, &name, &value)) {
		if (!name.len || memchr(name.p, 0, name.len))
			return "bad attribute name";
		if (last.len && span_cmp(last, name) >= 0)
			return "attributes out of order";
		last = name;
	}
	return rd_done(&r) ? NULL : "malformed attributes";
}

static bool range_ok(uint64_t off, uint64_t len)
{
	uint64_t end;

	return add_u64(off, len, &end) && end <= REC_SIZE_MAX;
}

static const char *check_image(const struct r_image *i)
{
	if (memchr(i->host.p ? (const void *)i->host.p : "", '\n', i->host.len))
		return "host holds a newline";
	return i->consistency > CONS_APP ? "unknown consistency" : NULL;
}

static const char *check(const struct record *r)
{
	switch ((enum rec_type)r->type) {
	case REC_IMAGE:
		return check_image(&r->u.image);
	case REC_MEMBER:
		if (r->u.member.kind < 1 || r->u.member.kind > 2)
			return "unknown member kind";
		return r->u.member.name.len && !name_is_sane(r->u.member.name) ? "unsafe name" : NULL;
	case REC_OWNER:
		return r->u.owner.is_group > 1 ? "flag out of range" : NULL;
	case REC_RESUME:
		return !r->u.resume.records || r->u.resume.off > REC_SIZE_MAX ? "bad place" : NULL;
	case REC_BASE:
		if (r->u.base.flags > (BASE_DETACH | BASE_WANTED) || r->u.base.ref == REF_ROOT || !r->u.base.parent ||
				(r->u.base.ref == REF_NONE && r->u.base.flags))
			return "bad number or flag";
		return name_is_sane(r->u.base.name) ? NULL : "unsafe name";
	case REC_CREATE:
		if (r->u.create.type < OBJ_FILE || r->u.create.type > OBJ_BLOCK)
			return "unknown object type";
		if (r->u.create.ref == REF_ROOT)
			return r->u.create.parent || r->u.create.name.len ? "bad root" : NULL;
		if (!r->u.create.parent)
			return "no parent";
		return name_is_sane(r->u.create.name) ? NULL : "unsafe name";
	case REC_ATTACH:
		if (r->u.attach.ref <= REF_ROOT || !r->u.attach.parent)
			return "bad number";
		return name_is_sane(r->u.attach.name) ? NULL : "unsafe name";
	case REC_OBJECT:
		return r->u.object.ref ? NULL : "bad number";
	case REC_STRAY:
		return r->u.stray.parent && name_is_sane(r->u.stray.name) ? NULL : "bad number or name";
	case REC_META:
		return check_meta(&r->u.meta);
	case REC_CONTENT:
		if (r->u.content.flags > CONTENT_PATCH)
			return "unknown flag";
		return digest_is_grain(r->u.content.grain) ? NULL : "bad block size";
	case REC_DATA:
		if (!r->u.data.bytes.len || r->u.data.bytes.len > REC_DATA_MAX)
			return "bad length";
		return range_ok(r->u.data.off, r->u.data.bytes.len) ? NULL : "range too large";
	case REC_COPY:
		if (!r->u.copy.len || !r->u.copy.ref)
			return "bad length or number";
		return range_ok(r->u.copy.off, r->u.copy.len) && range_ok(r->u.copy.src, r->u.copy.len) ?
			NULL : "range too large";
	case REC_HOLE:
		return r->u.hole.len && range_ok(r->u.hole.off, r->u.hole.len) ? NULL : "bad range";
	case REC_SEAL:
		if (r->u.seal.flags > SEAL_UNSETTLED)
			return "unknown flag";
		return r->u.seal.size <= REC_SIZE_MAX ? NULL : "size too large";
	case REC_DIGESTS:
		if (!r->u.digests.rows.len || r->u.digests.rows.len % DIGESTS_ROW ||
				r->u.digests.rows.len / DIGESTS_ROW > REC_DIGESTS_MAX)
			return "bad length";
		return r->u.digests.first <= REC_SIZE_MAX ? NULL : "block number too large";
	case REC_HINT:
		return r->u.hint.ctime_ns < 1000000000u && r->u.hint.btime_ns < 1000000000u ?
			NULL : "nanoseconds out of range";
	case REC_INODE:
		return r->u.inode.btime_ns < 1000000000u ? NULL : "nanoseconds out of range";
	case REC_DIR:
		if (r->u.dir.ref <= REF_ROOT || !r->u.dir.parent)
			return "bad number";
		return name_is_sane(r->u.dir.name) ? NULL : "unsafe name";
	case REC_CHANGED:
		if (!r->u.changed.parent)
			return "bad number";
		if (!r->u.changed.name.len)
			return r->u.changed.flags & CHANGED_SUBTREE ? "subtree without a name" : NULL;
		return name_is_sane(r->u.changed.name) ? NULL : "unsafe name";
	case REC_GAP:
		return r->u.gap.ref ? NULL : "bad number";
	case REC_REGION:
		return r->u.region.rows.len % 17 ? "bad length" : NULL;
	case REC_ACK:
		return r->u.ack.action >= ACK_APPLIED && r->u.ack.action <= ACK_HELD ? NULL : "unknown action";
	case REC_WRITE:
		if (r->u.write.op < WRITE_DATA || r->u.write.op > WRITE_TRUNCATE || r->u.write.where > 2)
			return "unknown operation";
		if (r->u.write.bytes.len > REC_DATA_MAX)
			return "bad length";
		return range_ok(r->u.write.off, r->u.write.len) ? NULL : "range too large";
	case REC_DELTA:
	case REC_DROP:
	case REC_END:
	case REC_CURSOR:
	case REC_LOSS:
	case REC_MARK:
	case REC_BEAT:
	case REC_TRAILER:
		return NULL;
	}
	return "unknown record type";
}

int rec_check(const struct record *r, struct err *e)
{
	const char *why = check(r);
	const struct rec_row *row = rec_row(r->type);

	if (!why)
		return 0;
	return err_set(e, ERR_STREAM, "bad '%s' record: %s", row ? row->name : "unknown", why);
}

const char *obj_type_name(uint8_t t)
{
	static const char *const names[] = {"none", "file", "dir", "symlink", "fifo", "char", "block", "socket"};

	return t < sizeof names / sizeof names[0] ? names[t] : "unknown";
}
