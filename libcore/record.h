/*
 * record: every record of the stream format, version 1: one struct, one table row, one codec for all.
 *
 * A record type is a row in a table of fields; encoding, decoding, limits, printing (repl-show), the fuzz
 * dictionary and the check against repl-stream(5) come from it. Adding a record is adding a row.
 *
 * May use: bytes, digest, err. Does no I/O. Decoding answers "is it well formed" (rec_decode) and then
 * "does it make sense" (rec_check); what a record does to a tree is somebody else's business.
 * Invariant: spans in a decoded record point into the input; they live as long as it.
 */
#ifndef REPL_RECORD_H
#define REPL_RECORD_H

#include "bytes.h"
#include "digest.h"
#include "err.h"

#define REC_MAX (4u * 1024 * 1024)        /* longest payload of any record */
#define REC_DATA_MAX (1024u * 1024)       /* most content bytes in one DATA record */
#define REC_NAME_MAX 255u                 /* one path component */
#define REC_TARGET_MAX 65535u             /* symbolic link target */
#define REC_TEXT_MAX 4096u
#define REC_SIZE_MAX (UINT64_C(1) << 62)  /* any file size or offset */
#define REC_DIGESTS_MAX 4096u             /* rows in one DIGESTS record */

enum stream_kind {
	KIND_IMAGE = 1,   /* a tree at one instant, without its data */
	KIND_CHANGE = 2,  /* what may have changed since the base */
	KIND_DELTA = 3,   /* what turns the base into the target */
	KIND_ACK = 4,     /* what the replica did */
	KIND_JOURNAL = 5, /* the writes between two images */
};

enum rec_type {
	REC_IMAGE = 0x01,
	REC_MEMBER = 0x02,
	REC_DELTA = 0x03,
	REC_OWNER = 0x04,
	REC_RESUME = 0x05,
	REC_BASE = 0x10,
	REC_CREATE = 0x11,
	REC_ATTACH = 0x12,
	REC_OBJECT = 0x13,
	REC_DROP = 0x14,
	REC_STRAY = 0x15,
	REC_META = 0x20,
	REC_CONTENT = 0x21,
	REC_DATA = 0x22,
	REC_COPY = 0x23,
	REC_HOLE = 0x24,
	REC_SEAL = 0x25,
	REC_DIGESTS = 0x26,
	REC_HINT = 0x27,
	REC_END = 0x2f,
	REC_DIR = 0x40,
	REC_CHANGED = 0x41,
	REC_GAP = 0x42,
	REC_REGION = 0x43,
	REC_CURSOR = 0x44,
	REC_INODE = 0x45,
	REC_ACK = 0x50,
	REC_LOSS = 0x51,
	REC_WRITE = 0x60,
	REC_MARK = 0x61,
	REC_BEAT = 0x70,
	REC_TRAILER = 0x7f,
};
#define REC_OPTIONAL 1u /* record flag: a reader that does not know the type may skip it */

enum obj_type { OBJ_NONE = 0, OBJ_FILE = 1, OBJ_DIR, OBJ_LINK, OBJ_FIFO, OBJ_CHAR, OBJ_BLOCK, OBJ_SOCKET };

enum { REF_NONE = 0, REF_ROOT = 1 };
/* In a plan, which nobody sends, a number with this bit is the object's own in the catalog. */
#define REF_LOCAL (UINT64_C(1) << 63)

enum member_kind { MEMBER_TREE = 1, MEMBER_VOLUME = 2 };

enum { /* r_image.consistency */
	CONS_UNKNOWN = 0, CONS_LIVE = 1, CONS_CRASH = 2, CONS_APP = 3,
};
enum { PROV_NONE = 0, PROV_LIVE = 1, PROV_BTRFS = 2, PROV_REFLINK = 3, PROV_EXEC = 4 };

struct r_image { /* what the stream is about, and its stamps */
	struct digest id;     /* zero: not known yet, see END */
	struct digest parent; /* the image before it on the source; zero: none */
	int64_t time_ns;      /* source wall clock of the instant since 1970; 0: not stamped */
	uint64_t seq;         /* monotonic on the source; 0: stateless */
	uint8_t instance[16]; /* the state directory that counts seq; zero: stateless */
	uint8_t provider, consistency;
	struct span host, bookmark, group;
};
struct r_member { /* one root; name empty: the image's root itself */
	uint8_t kind; /* enum member_kind */
	struct span name, path; /* path: where the source keeps it, absolute; a hint */
};
struct r_delta {
	struct digest base; /* zero: nothing */
	uint64_t items, bytes; /* names that are new or suspect and bytes in them: an estimate, for progress */
};
struct r_owner {
	uint8_t is_group;
	uint32_t id;
	struct span name;
};
struct r_resume { /* the rest of a delta that was cut follows: what is in that before it, as its trailer would say it there */
	uint64_t off, records, bytes;
	struct digest digest;
};
enum { BASE_DETACH = 1, BASE_WANTED = 2 };
struct r_base { /* an object of the base by one of its names; it gets a number and becomes current */
	uint64_t ref, parent;
	uint8_t flags; /* BASE_DETACH: this name goes; BASE_WANTED: what stands there is not to be trusted */
	struct span name;
};
struct r_create { /* a new object under the target's name; becomes current. ref 0: never named again */
	uint64_t ref, parent;
	uint8_t type;
	struct span name;
};
struct r_attach { /* one more name in the target for an object that has a number */
	uint64_t ref, parent;
	struct span name;
};
struct r_object { /* makes an object current */
	uint64_t ref;
};
struct r_drop { /* takes the CREATE of the current object back */
	uint8_t reserved;
};
struct r_stray { /* a name that the base does not have: what stands there goes */
	uint64_t parent;
	struct span name;
};
struct r_meta {
	uint16_t mode; /* 07777 */
	uint32_t uid, gid;
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t major, minor; /* device nodes */
	uint32_t attr;         /* FS_*_FL bits among META_ATTR_MASK */
	struct span target;    /* symbolic links */
	struct span xattrs;    /* rows of str name, str value, sorted by name; see xattr_next */
};
enum { CONTENT_PATCH = 1 };
struct r_content { /* begins the current file's content; a second one replaces the first */
	uint8_t flags; /* CONTENT_PATCH: starts as the base's content; else as one hole */
	uint32_t grain;
};
struct r_data {
	uint64_t off;
	struct digest digest; /* of the bytes, as if they were a file */
	struct span bytes;
};
struct r_copy {
	uint64_t off, len, ref, src; /* from the *base* content of ref, at src */
};
struct r_hole {
	uint64_t off, len;
};
enum { SEAL_UNSETTLED = 1 };
struct r_seal {
	uint64_t size;
	struct digest digest;
	uint8_t flags;
};
struct r_digests { /* rows of digest (32), rolling sum of the block's first 4 KiB (8; 0: shorter) */
	uint64_t first;   /* block number of the first row */
	struct span rows;
};
#define DIGESTS_ROW 40u
enum { HINT_SETTLED = 1 };
struct r_hint { /* facts of one machine; never in an id */
	uint64_t dev, ino;
	int64_t ctime_s;
	uint32_t ctime_ns;
	int64_t btime_s;
	uint32_t btime_ns;
	uint32_t nlink; /* on the source's filesystem, names outside the image included */
	uint8_t flags;
};
struct r_end {
	struct digest id; /* of the target */
	uint64_t entries, bytes;
};
struct r_dir { /* change stream: numbers a directory of the target */
	uint64_t ref, parent;
	struct span name;
};
enum {
	CHANGED_NEW = 1, CHANGED_GONE = 2, CHANGED_CONTENT = 4, CHANGED_META = 8, CHANGED_SUBTREE = 16, CHANGED_UNSETTLED = 32,
	CHANGED_WANTED = 64, /* the replica does not have it as the base says: send it whole, though it equals the base */
	CHANGED_STRAY = 128, /* the replica has something there that the base does not know */
};
struct r_changed { /* name empty: the directory `parent` itself, never with SUBTREE: that is a gap */
	uint64_t parent;
	uint8_t flags;
	struct span name;
};
struct r_gap { /* below this directory anything may have changed: compare */
	uint64_t ref;
	struct span reason;
};
enum { /* of a block that a region table names; those it does not name are the base's */
	REGION_SAME = 0, REGION_CHANGED = 1, /* stored elsewhere than the base's */
	REGION_ZEROS = 2, /* a hole now, or never written */
	REGION_UNKNOWN = 3, /* where it is says nothing */
};
struct r_region { /* region table: rows of u64 block, u64 physical block, u8 status */
	uint64_t file; /* number of the CHANGED record in this stream, from 0 */
	uint32_t grain;
	struct span rows;
};
struct r_cursor { /* so far has been read in the journal of a recorder; in a delta only plans have it */
	uint8_t journal[16];
	uint64_t seq;
	struct span consumer;
};
struct r_inode { /* change stream: an object that may have changed, whatever its names are */
	uint64_t dev, ino; /* as stat gives them on the machine that wrote the stream */
	int64_t btime_s;
	uint32_t btime_ns;
};
enum { ACK_APPLIED = 1, ACK_ALREADY = 2, ACK_ADOPTED = 3, ACK_HELD = 4 };
struct r_ack {
	struct digest id, base;
	int64_t time_ns;
	uint64_t seq;
	uint8_t instance[16];
	uint8_t action;
	uint64_t created, changed, removed, bytes;
};
struct r_loss { /* something the replica could not keep, once per kind */
	struct span kind;
	uint64_t count;
	struct span example;
};
enum { WRITE_DATA = 1, WRITE_HOLE = 2, WRITE_TRUNCATE = 3 };
struct r_write { /* difference journal: one write, in order */
	int64_t time_ns;
	uint64_t ref, off, len;
	uint8_t op, where; /* where: 0 data follows, 1 equal to the older image, 2 equal to the newer one */
	struct digest digest;
	struct span bytes;
};
struct r_mark {
	int64_t time_ns;
	struct span bookmark;
};
struct r_beat { /* keepalive */
	uint64_t count;
};
struct r_trailer {
	uint64_t records, bytes; /* records before this one; content bytes in DATA and WRITE */
	struct digest digest;
	struct digest mac; /* zero: no key */
};

struct record {
	uint16_t type, flags;
	union {
		struct r_image image;
		struct r_member member;
		struct r_delta delta;
		struct r_owner owner;
		struct r_resume resume;
		struct r_base base;
		struct r_create create;
		struct r_attach attach;
		struct r_object object;
		struct r_drop drop;
		struct r_stray stray;
		struct r_meta meta;
		struct r_content content;
		struct r_data data;
		struct r_copy copy;
		struct r_hole hole;
		struct r_seal seal;
		struct r_digests digests;
		struct r_hint hint;
		struct r_end end;
		struct r_dir dir;
		struct r_changed changed;
		struct r_gap gap;
		struct r_region region;
		struct r_cursor cursor;
		struct r_inode inode;
		struct r_ack ack;
		struct r_loss loss;
		struct r_write write;
		struct r_mark mark;
		struct r_beat beat;
		struct r_trailer trailer;
	} u;
};

/* META.attr: what chattr(1) sets and is worth keeping: c S i a d A m j D T C, and P of old (FS_*_FL, linux/fs.h; see INODE_FLAGS). */
#define META_ATTR_MASK 0x208344fcu

enum field_kind { F_U8, F_U16, F_U32, F_U64, F_I64, F_DIGEST, F_UUID, F_NAME, F_TEXT, F_TARGET, F_REST };
struct field {
	const char *name;
	enum field_kind kind;
	size_t at; /* offsetof(struct record, u.…) */
};
struct rec_row {
	uint16_t type;
	const char *name;
	uint16_t since;      /* first stream version */
	bool optional;
	unsigned kinds;      /* bit (1 << kind) for each stream kind it may stand in */
	const struct field *fields;
	size_t n_fields;
};
/* NULL when the type is unknown. */
const struct rec_row *rec_row(uint16_t type);
const struct rec_row *rec_rows(size_t *n);

/* Appends header and payload. For DATA and WRITE the content bytes are NOT appended (but counted in the
 * header's length): the caller writes them after, from where they lie. */
void rec_encode(struct buf *b, const struct record *r);

/* Decodes one payload. ERR_STREAM on anything malformed. */
int rec_decode(struct record *r, uint16_t type, uint16_t flags, const void *p, size_t n, struct err *e);
/* Does it make sense: names, ranges, enums, sorted rows. ERR_STREAM. */
int rec_check(const struct record *r, struct err *e);
/* Length of a record's payload that the trailer digest covers (all but content bytes). */
size_t rec_covered(uint16_t type, size_t len);

/* One path component: 1 to 255 bytes, no '/', no NUL, not "." or "..". */
bool name_is_sane(struct span name);

/* Walks META.xattrs: false at the end. The rows were checked by rec_check. */
bool xattr_next(struct rd *r, struct span *name, struct span *value);

const char *obj_type_name(uint8_t t);

#endif
