#include "show.h"

#include <inttypes.h>
#include <stdlib.h>

#include "json.h"
#include "stamp.h"

/* An object that has a number. It may have one name in the base and another in the target. */
struct show_name {
	uint64_t parent; /* 0: no name known */
	uint32_t at, len;
};
struct show_node {
	struct show_name base, target;
};

/* ---- words for numbers ---- */

struct words {
	uint16_t type;
	const char *field;
	const char *const *names; /* NULL where a number has no word */
	unsigned n;
	bool is_bits; /* names are of bits, from the lowest */
};

static const char *const w_kind[] = {NULL, "tree", "volume"};
static const char *const w_type[] = {NULL, "file", "dir", "symlink", "fifo", "char", "block", "socket"};
static const char *const w_action[] = {NULL, "applied", "already", "adopted", "held"};
static const char *const w_op[] = {NULL, "data", "hole", "truncate"};
static const char *const w_where[] = {"here", "older", "newer"};
static const char *const w_base[] = {"detach", "wanted"};
static const char *const w_content[] = {"patch"};
static const char *const w_seal[] = {"unsettled"};
static const char *const w_hint[] = {"settled"};
static const char *const w_changed[] = {"new", "gone", "content", "meta", "subtree", "unsettled", "wanted", "stray"};
/* The letters of chattr(1), bit by bit (FS_*_FL of linux/fs.h), for META_ATTR_MASK. */
static const char *const w_attr[] = {
	[2] = "c", [3] = "S", [4] = "i", [5] = "a", [6] = "d", [7] = "A", [10] = "m", [14] = "j", [16] = "D", [17] = "T",
	[23] = "C", [29] = "P",
};

#define WORDS(w) w, sizeof w / sizeof w[0]
static const struct words all_words[] = {
	{REC_MEMBER, "kind", WORDS(w_kind), false},
	{REC_IMAGE, "provider", stamp_providers, STAMP_PROVIDERS, false},
	{REC_IMAGE, "consistency", stamp_consistencies, STAMP_CONSISTENCIES, false},
	{REC_CREATE, "type", WORDS(w_type), false},
	{REC_ACK, "action", WORDS(w_action), false},
	{REC_WRITE, "op", WORDS(w_op), false},
	{REC_WRITE, "where", WORDS(w_where), false},
	{REC_BASE, "flags", WORDS(w_base), true},
	{REC_CONTENT, "flags", WORDS(w_content), true},
	{REC_SEAL, "flags", WORDS(w_seal), true},
	{REC_HINT, "flags", WORDS(w_hint), true},
	{REC_CHANGED, "flags", WORDS(w_changed), true},
	{REC_META, "attr", WORDS(w_attr), true},
};

static const struct words *find_words(uint16_t type, const char *field)
{
	for (size_t i = 0; i < sizeof all_words / sizeof all_words[0]; i++)
		if (all_words[i].type == type && !strcmp(all_words[i].field, field))
			return &all_words[i];
	return NULL;
}

static const char *word(const struct words *w, unsigned i) { return i < w->n ? w->names[i] : NULL; }

/* ---- pieces ---- */

static void put_string(struct show *w, struct span s)
{
	if (w->json) {
		json_string(&w->out, s);
	} else if (!s.len) {
		buf_str(&w->out, "-");
	} else {
		buf_str(&w->out, "'");
		esc_name(&w->out, s);
		buf_str(&w->out, "'");
	}
}

static void put_key(struct show *w, const char *name)
{
	buf_fmt(&w->out, w->json ? ",\"%s\":" : " %s=", name);
}

static void put_hex(struct show *w, const uint8_t *p, size_t n)
{
	char text[2 * DIGEST_LEN + 1];

	if (is_zero(p, n)) {
		buf_str(&w->out, w->json ? "null" : "-");
		return;
	}
	hex(text, p, n);
	buf_fmt(&w->out, w->json ? "\"%s\"" : "%s", text);
}

/* RFC 3339 where a year has four digits, @seconds elsewhere. */
static void put_time(struct buf *b, int64_t s, uint32_t ns)
{
	const int64_t day = 86400, least = -62135596800, most = 253402300799; /* years 1 to 9999 */

	if (s < least || s > most) {
		buf_fmt(b, "@%" PRId64 ".%09" PRIu32, s, ns);
		return;
	}
	/* Days since 1 March of year 0: then a leap day is the last of its year. */
	int64_t days = (s - least) / day + 306, clock = (s - least) % day;
	int64_t era = days / 146097, doe = days % 146097;
	int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	int64_t mp = (5 * doy + 2) / 153;
	int64_t month = mp < 10 ? mp + 3 : mp - 9;
	int64_t year = yoe + era * 400 + (month <= 2);

	buf_fmt(b, "%04d-%02d-%02dT%02d:%02d:%02d.%09" PRIu32 "Z", (int)year, (int)month,
		(int)(doy - (153 * mp + 2) / 5 + 1), (int)(clock / 3600), (int)(clock / 60 % 60), (int)(clock % 60), ns);
}

static void put_time_ns(struct buf *b, int64_t t)
{
	int64_t s = t / 1000000000, ns = t % 1000000000;

	if (!t)
		buf_str(b, "-");
	else
		put_time(b, ns < 0 ? s - 1 : s, (uint32_t)(ns < 0 ? ns + 1000000000 : ns));
}

static void put_bits(struct show *w, const struct words *names, uint64_t v)
{
	bool first = true;

	if (w->json)
		buf_str(&w->out, "[");
	else if (!v)
		buf_str(&w->out, "-");
	for (unsigned i = 0; i < 64; i++) {
		const char *name = word(names, i);
		if (!(v >> i & 1))
			continue;
		if (!first)
			buf_str(&w->out, ",");
		first = false;
		if (name)
			buf_fmt(&w->out, w->json ? "\"%s\"" : "%s", name);
		else
			buf_fmt(&w->out, "%" PRIu64, UINT64_C(1) << i);
	}
	if (w->json)
		buf_str(&w->out, "]");
}

static void put_number(struct show *w, uint16_t type, const char *field, uint64_t v)
{
	const struct words *names = find_words(type, field);
	const char *name = names && !names->is_bits && v < names->n ? names->names[v] : NULL;

	if (names && names->is_bits)
		put_bits(w, names, v);
	else if (name)
		buf_fmt(&w->out, w->json ? "\"%s\"" : "%s", name);
	else if (type == REC_META && !strcmp(field, "mode"))
		buf_fmt(&w->out, w->json ? "\"%04o\"" : "%04o", (unsigned)v);
	else
		buf_fmt(&w->out, "%" PRIu64, v);
}

static void put_xattrs(struct show *w, struct span s)
{
	struct rd r = rd_of(s.p, s.len);
	struct span name, value;
	bool first = true;

	if (w->json)
		buf_str(&w->out, ",\"xattrs\":[");
	while (xattr_next(&r, &name, &value)) {
		if (w->json)
			buf_str(&w->out, first ? "{\"name\":" : ",{\"name\":");
		else
			buf_str(&w->out, " xattr=");
		put_string(w, name);
		buf_fmt(&w->out, w->json ? ",\"length\":%zu}" : ":%zu", value.len);
		first = false;
	}
	if (w->json)
		buf_str(&w->out, "]");
}

/* BLOCK@PHYSICAL:STATUS each, or arrays of the three. */
static void put_regions(struct show *w, struct span s)
{
	static const char *const status[] = {"same", "changed", "zeros", "unknown"};
	const char *sep = "";

	buf_str(&w->out, w->json ? "[" : s.len ? "" : "-");
	for (struct rd r = rd_of(s.p, s.len); r.len; sep = ",") {
		uint64_t block = rd_u64(&r), physical = rd_u64(&r);
		uint8_t v = rd_u8(&r);
		buf_fmt(&w->out, w->json ? "%s[%" PRIu64 ",%" PRIu64 "," : "%s%" PRIu64 "@%" PRIu64 ":", sep, block, physical);
		if (v < sizeof status / sizeof status[0])
			buf_fmt(&w->out, w->json ? "\"%s\"]" : "%s", status[v]);
		else
			buf_fmt(&w->out, w->json ? "%u]" : "%u", v);
	}
	buf_str(&w->out, w->json ? "]" : "");
}

static void put_rest(struct show *w, uint16_t type, const char *name, struct span s)
{
	size_t row = type == REC_DIGESTS ? DIGESTS_ROW : 1u;

	if (type == REC_META) {
		put_xattrs(w, s);
		return;
	}
	put_key(w, name);
	if (type == REC_REGION) {
		put_regions(w, s);
		return;
	}
	buf_fmt(&w->out, "%zu", s.len / row);
}

/* ---- fields ---- */

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), m = strlen(with);

	return n >= m && !strcmp(s + n - m, with);
}

/* In text, seconds and nanoseconds that follow each other are one time. */
static bool put_pair(struct show *w, const struct field *f, const struct field *next, const uint8_t *rec)
{
	int64_t s;
	uint32_t ns;

	if (w->json || f->kind != F_I64 || !ends(f->name, "_s") || next->kind != F_U32 || !ends(next->name, "_ns"))
		return false;
	memcpy(&s, rec + f->at, sizeof s);
	memcpy(&ns, rec + next->at, sizeof ns);
	buf_fmt(&w->out, " %.*s=", (int)(strlen(f->name) - 2), f->name);
	put_time(&w->out, s, ns);
	return true;
}

static void put_field(struct show *w, uint16_t type, const struct field *f, const uint8_t *rec)
{
	const uint8_t *at = rec + f->at;
	uint64_t v64 = 0;
	uint32_t v32;
	uint16_t v16;
	int64_t i64;
	struct span s;

	if (f->kind != F_REST)
		put_key(w, f->name);
	switch (f->kind) {
	case F_U8:
		v64 = *at;
		break;
	case F_U16:
		memcpy(&v16, at, sizeof v16);
		v64 = v16;
		break;
	case F_U32:
		memcpy(&v32, at, sizeof v32);
		v64 = v32;
		break;
	case F_U64:
		memcpy(&v64, at, sizeof v64);
		break;
	case F_I64:
		memcpy(&i64, at, sizeof i64);
		if (w->json || strcmp(f->name, "time"))
			buf_fmt(&w->out, "%" PRId64, i64);
		else
			put_time_ns(&w->out, i64);
		return;
	case F_DIGEST:
		put_hex(w, at, DIGEST_LEN);
		return;
	case F_UUID:
		put_hex(w, at, 16);
		return;
	case F_NAME:
	case F_TEXT:
	case F_TARGET:
		memcpy(&s, at, sizeof s);
		put_string(w, s);
		return;
	case F_REST:
		memcpy(&s, at, sizeof s);
		put_rest(w, type, f->name, s);
		return;
	}
	put_number(w, type, f->name, v64);
}

/* ---- paths ---- */

static void grow(struct show *w, size_t n)
{
	while (w->n_nodes < n) {
		if (w->n_nodes == w->cap_nodes) {
			w->cap_nodes = w->cap_nodes ? w->cap_nodes * 2 : 64;
			w->nodes = xrealloc(w->nodes, w->cap_nodes * sizeof *w->nodes);
		}
		w->nodes[w->n_nodes++] = (struct show_node){0};
	}
}

/* Numbers come without holes (repl-stream(5), "ORDER"): one that does not is not remembered. */
static void remember(struct show *w, uint64_t ref, uint64_t parent, struct span name, bool is_base)
{
	if (ref <= REF_ROOT)
		return;
	if (!w->n_nodes)
		grow(w, REF_ROOT + 1);
	if (ref > w->n_nodes || (ref + 1) * sizeof *w->nodes + w->names.len + name.len > SHOW_NAMES_MAX)
		return;
	grow(w, ref + 1);
	struct show_name *n = is_base ? &w->nodes[ref].base : &w->nodes[ref].target;
	*n = (struct show_name){parent, (uint32_t)w->names.len, (uint32_t)name.len};
	wr_raw(&w->names, name.p, name.len);
}

/* Prints the path of `name` below `parent` (name empty: of parent itself), when all of it is known. An object that
 * has no name on the side that is asked for goes by its other one. */
static void put_path(struct show *w, const char *key, uint64_t parent, struct span name, bool in_base)
{
	uint32_t at[SHOW_DEPTH_MAX], len[SHOW_DEPTH_MAX];
	size_t n = 0;

	while (parent != REF_ROOT) {
		if (parent == REF_NONE || parent >= w->n_nodes || n == SHOW_DEPTH_MAX)
			return;
		const struct show_node *o = &w->nodes[parent];
		const struct show_name *first = in_base ? &o->base : &o->target;
		const struct show_name *use = first->parent ? first : in_base ? &o->target : &o->base;
		if (!use->parent)
			return;
		at[n] = use->at;
		len[n++] = use->len;
		parent = use->parent;
	}
	buf_reset(&w->path);
	while (n--) {
		wr_raw(&w->path, w->names.p + at[n], len[n]);
		if (n || name.len)
			wr_u8(&w->path, '/');
	}
	wr_raw(&w->path, name.p, name.len);
	if (!w->path.len)
		wr_u8(&w->path, '.');
	put_key(w, key);
	put_string(w, span_of(w->path.p, w->path.len));
}

static void put_where(struct show *w, const struct record *r)
{
	const struct span none = {0};

	if (r->type == REC_BASE) {
		put_path(w, "path", r->u.base.parent, r->u.base.name, true);
		remember(w, r->u.base.ref, r->u.base.parent, r->u.base.name, true);
	} else if (r->type == REC_CREATE) {
		put_path(w, "path", r->u.create.ref == REF_ROOT ? REF_ROOT : r->u.create.parent, r->u.create.name, false);
		remember(w, r->u.create.ref, r->u.create.parent, r->u.create.name, false);
	} else if (r->type == REC_ATTACH) {
		put_path(w, "path", r->u.attach.parent, r->u.attach.name, false);
		remember(w, r->u.attach.ref, r->u.attach.parent, r->u.attach.name, false);
	} else if (r->type == REC_DIR) {
		put_path(w, "path", r->u.dir.parent, r->u.dir.name, false);
		remember(w, r->u.dir.ref, r->u.dir.parent, r->u.dir.name, false);
	} else if (r->type == REC_STRAY) {
		put_path(w, "path", r->u.stray.parent, r->u.stray.name, true);
	} else if (r->type == REC_CHANGED) {
		put_path(w, "path", r->u.changed.parent, r->u.changed.name, false);
	} else if (r->type == REC_GAP) {
		put_path(w, "path", r->u.gap.ref, none, false);
	} else if (r->type == REC_OBJECT) {
		put_path(w, "path", r->u.object.ref, none, false);
	} else if (r->type == REC_COPY) {
		put_path(w, "from", r->u.copy.ref, none, true);
	}
}

/* ---- lines ---- */

static void put_start(struct show *w, const char *name, const struct stream_in *s)
{
	buf_reset(&w->out);
	if (w->json)
		buf_fmt(&w->out, "{\"record\":\"%s\",\"offset\":%" PRIu64, name, s->off);
	else
		buf_str(&w->out, name);
}

static void put_end(struct show *w)
{
	if (w->json)
		buf_str(&w->out, "}");
	w->line(w->ctx, buf_cstr(&w->out), w->out.len);
}

static void forget(struct show *w)
{
	w->n_nodes = 0;
	buf_reset(&w->names);
}

void show_event(struct show *w, enum stream_event event, const struct stream_in *s)
{
	if (event == STREAM_MORE)
		return;
	if (event == STREAM_BEGIN) {
		forget(w);
		put_start(w, "header", s);
		buf_fmt(&w->out, w->json ? ",\"version\":%u,\"kind\":\"%s\",\"features\":%" PRIu32 :
			" version=%u kind=%s features=%" PRIu32, (unsigned)s->version, kind_name(s->kind), s->features);
		put_end(w);
		return;
	}
	const struct record *r = &s->rec;
	const struct rec_row *row = rec_row(r->type);

	put_start(w, row->name, s);
	for (size_t i = 0; i < row->n_fields; i++) {
		if (i + 1 < row->n_fields && put_pair(w, &row->fields[i], &row->fields[i + 1], (const uint8_t *)r))
			i++;
		else
			put_field(w, r->type, &row->fields[i], (const uint8_t *)r);
	}
	put_where(w, r);
	put_end(w);
}

bool show_is_opening(uint16_t type) { return type == REC_IMAGE || type == REC_MEMBER || type == REC_DELTA; }

void show_free(struct show *w)
{
	buf_free(&w->out);
	buf_free(&w->path);
	buf_free(&w->names);
	free(w->nodes);
	w->nodes = NULL;
	w->n_nodes = w->cap_nodes = 0;
}
