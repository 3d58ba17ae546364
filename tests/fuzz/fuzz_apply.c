/*
 * Whole applies. The input is a sequence of records (dense.h) that we frame, and give the digests and ids that it would have
 * to have; so what is wrong with it is wrong with the description, and not with a checksum. It goes to a small replica, with a
 * canary beside it and links to the canary in it.
 *
 * Whatever comes: nothing beside the replica changes; a delta that was refused leaves every entry as it was, and no litter;
 * one that was accepted leaves the image that it promised, and a tree whose own digest is that image's id.
 *
 * Bit 1 of the last byte: an undo is made, and one delta that was accepted is undone: the tree is the base again.
 * Bit 0: the policy is that of --restrict, and what is accepted leaves nothing with rights of its own.
 *
 * A first byte of 255: the rest is the stream as it is. FUZZ_STREAM=FILE in the environment keeps each stream, for repl-show,
 * and says what became of it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "adopt.h"
#include "apply.h"
#include "past.h"
#include "dense.h"
#include "image.h"
#include "path.h"
#include "source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MODEL_MAX (256u * 1024) /* content larger than that gets no right digest */
#define PROMISES 16

static const char *const names[] = {"", "a", "b", "f", "g", "l", "x", "d", "e", "p", "out", "deep", "..", ".", ".repl", "a/f",
	"../canary", "/etc/passwd", "../../canary/secret", "lost+found", "n\x1b[2Jn\n", NULL};

static struct {
	int fd;                     /* the folder: replica, canary, tmp, loader */
	char *replica, *tmp;
	struct catalog *loader;     /* the base, for finding out what ids would come out */
	struct digest base, canary, tree;
	struct buf catalog;         /* of the untouched replica */
	struct { uint64_t no; struct buf bytes; } file[8];
	size_t n_files;
} w;

/* ---- the replica, and what is beside it ---- */

static int at(const char *path)
{
	int fd = openat(w.fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	dense_must(fd >= 0, path);
	return fd;
}

static void look(struct digest_run *run, int dirfd, const char *name, bool with_ctl)
{
	AUTO_BUF struct buf b = {0};
	char target[4096] = "";
	struct stat st;

	dense_must(!fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW), "an entry is gone");
	if (S_ISLNK(st.st_mode))
		dense_must(readlinkat(dirfd, name, target, sizeof target - 1) >= 0, "cannot read a link");
	wr_str(&b, name, strlen(name));
	wr_str(&b, target, strlen(target));
	wr_u64(&b, st.st_ino);
	wr_u64(&b, (uint64_t)st.st_size);
	wr_u32(&b, st.st_mode);
	wr_u64(&b, S_ISDIR(st.st_mode) && with_ctl ? 0 : (uint64_t)st.st_ctim.tv_sec);
	wr_u64(&b, S_ISDIR(st.st_mode) && with_ctl ? 0 : (uint64_t)st.st_ctim.tv_nsec);
	digest_run_add(run, b.p, b.len);
	if (!S_ISDIR(st.st_mode))
		return;
	struct dirent **v;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int n = scandirat(dirfd, name, &v, NULL, alphasort);
	dense_must(fd >= 0 && n >= 0, "cannot list");
	for (int i = 0; i < n; i++) {
		const char *s = v[i]->d_name;
		if (strcmp(s, ".") && strcmp(s, "..") && (with_ctl || strcmp(s, REPLICA_CTL)))
			look(run, fd, s, with_ctl);
		free(v[i]);
	}
	free(v);
	close(fd);
}

static struct digest looks(const char *name)
{
	struct digest_run run;
	struct digest d;

	digest_run_init(&run, "look", NULL, 0);
	look(&run, w.fd, name, false);
	digest_run_end(&run, &d);
	return d;
}

static void put_file(const char *path, size_t len, unsigned seed)
{
	int fd = openat(w.fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	AUTO_FREE uint8_t *p = xalloc(len + 1);

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(i / 512 * seed + i);
	dense_must(fd >= 0 && write(fd, p, len) == (ssize_t)len && close(fd) == 0, path);
}

static void stamp(const char *path, time_t s)
{
	struct timespec t[2] = {{.tv_sec = s}, {.tv_sec = s}};

	dense_must(!utimensat(w.fd, path, t, AT_SYMLINK_NOFOLLOW), path);
}

static void make_tree(void)
{
	static const char *const dirs[] = {"replica", "replica/a", "replica/a/deep", "replica/e"};

	for (size_t i = 0; i < 4; i++)
		dense_must(!mkdirat(w.fd, dirs[i], 0755), dirs[i]);
	put_file("replica/f", 10000, 3);
	put_file("replica/a/f", 40, 5);
	put_file("replica/a/x", 70000, 7);
	put_file("replica/a/deep/x", 0, 1);
	dense_must(!linkat(w.fd, "replica/f", w.fd, "replica/g", 0) &&
		!symlinkat("../canary", w.fd, "replica/l") && !symlinkat("../../canary", w.fd, "replica/a/l") &&
		!mkfifoat(w.fd, "replica/p", 0600), "cannot make the tree");
	static const char *const all[] = {"replica/f", "replica/a/f", "replica/a/x", "replica/a/deep/x", "replica/l", "replica/a/l",
		"replica/p", "replica/a/deep", "replica/a", "replica/e"};
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		stamp(all[i], 1000000000 + (time_t)i);
}

/* The tree as before, and a catalog that says so. */
static void put_back(void)
{
	struct err e = {0};

	dense_must(!path_remove(w.fd, "replica", &e) || e.sys == ENOENT, "cannot remove the replica");
	make_tree();
	dense_must(!mkdirat(w.fd, "replica/" REPLICA_CTL, 0700), "no control directory");
	int fd = openat(w.fd, "replica/" REPLICA_CTL "/catalog", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	dense_must(fd >= 0 && write(fd, w.catalog.p, w.catalog.len) == (ssize_t)w.catalog.len && !close(fd), "no catalog");
	stamp("replica", 1000000000);
	w.tree = looks("replica");
}

static void keep_file(const char *path)
{
	struct err e = {0};
	uint64_t dir = CATALOG_ROOT, no = 0;
	char copy[64], file[96], *part = copy;
	struct stat st;

	snprintf(copy, sizeof copy, "%s", path);
	for (char *slash; part; part = slash ? slash + 1 : NULL, dir = no) {
		slash = strchr(part, '/');
		if (slash)
			*slash = 0;
		dense_must(catalog_lookup(w.loader, dir, span_cstr(part), &no, NULL, &e) == 1, path);
	}
	snprintf(file, sizeof file, "replica/%s", path);
	int fd = openat(w.fd, file, O_RDONLY | O_CLOEXEC);
	struct buf *b = &w.file[w.n_files].bytes;
	dense_must(fd >= 0 && !fstat(fd, &st), file);
	buf_reserve(b, (size_t)st.st_size);
	dense_must(read(fd, b->p, (size_t)st.st_size) == st.st_size, file);
	b->len = (size_t)st.st_size;
	close(fd);
	w.file[w.n_files++].no = no;
}

static char *path_in(const char *name)
{
	AUTO_BUF struct buf b = {0};

	buf_fmt(&b, "%s/%s", dense_work(), name);
	return xstrdup(buf_cstr(&b));
}

static void prepare(void)
{
	struct err e = {0};

	umask(022);
	w.fd = open(dense_work(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	w.replica = path_in("replica");
	w.tmp = path_in("tmp");
	dense_must(w.fd >= 0 && !mkdirat(w.fd, "tmp", 0700) && !mkdirat(w.fd, "canary", 0755) &&
		!mkdirat(w.fd, "canary/deep", 0755), "cannot prepare");
	put_file("canary/secret", 100, 9);
	put_file("canary/f", 100, 9);
	dense_must(!symlinkat("../replica", w.fd, "canary/l"), "cannot prepare");
	make_tree();
	/* Before it is stamped: making it later would change the root's time. */
	dense_must(!mkdirat(w.fd, "replica/" REPLICA_CTL, 0700), "no control directory");
	stamp("replica", 1000000000);
	struct apply a = {.path = w.replica, .tmpdir = w.tmp};
	dense_must(!adopt_run(&a, &e), e.text);
	AUTO_FREE char *from = path_in("replica/" REPLICA_CTL "/catalog"), *to = path_in("loader");
	struct catalog *c = NULL;
	dense_must(!catalog_open(&c, from, CATALOG_READ, &e) && !catalog_copy(c, to, &e), e.text);
	catalog_close(&c);
	dense_must(!catalog_open(&w.loader, to, CATALOG_LIVE, &e) && !catalog_id(w.loader, &w.base, &e), e.text);
	static const char *const files[] = {"f", "a/f", "a/x", "a/deep/x"};
	for (size_t i = 0; i < 4; i++)
		keep_file(files[i]);
	struct stat st;
	int fd = openat(w.fd, "loader", O_RDONLY | O_CLOEXEC);
	dense_must(fd >= 0 && !fstat(fd, &st), "no catalog");
	buf_reserve(&w.catalog, (size_t)st.st_size);
	dense_must(read(fd, w.catalog.p, (size_t)st.st_size) == st.st_size, "no catalog");
	w.catalog.len = (size_t)st.st_size;
	close(fd);
	w.canary = looks("canary");
	put_back();
}

/* ---- from records to a stream that holds together ---- */

struct maker {
	struct stream_out o;
	struct image_loader l;
	bool loads;                 /* the loader followed so far */
	struct digest id, promise[PROMISES + 1];
	size_t n_promises;
	uint8_t *model;             /* the current file */
	uint64_t model_len;
	bool has_model;
};

static const struct buf *base_file(uint64_t no)
{
	for (size_t i = 0; i < w.n_files; i++)
		if (w.file[i].no == no)
			return &w.file[i].bytes;
	return NULL;
}

static void model_put(struct maker *m, uint64_t off, uint64_t len, const uint8_t *from)
{
	if (!m->has_model || off > MODEL_MAX || len > MODEL_MAX - off) {
		m->has_model = false;
		return;
	}
	if (from)
		memcpy(m->model + off, from, len);
	else
		memset(m->model + off, 0, len);
	m->model_len = max_u64(m->model_len, off + len);
}

static void model(struct maker *m, struct record *r)
{
	const struct buf *b;

	switch ((enum rec_type)r->type) {
	case REC_CONTENT:
		b = r->u.content.flags & CONTENT_PATCH ? base_file(m->l.cur.no) : NULL;
		memset(m->model, 0, MODEL_MAX);
		m->has_model = true;
		m->model_len = 0;
		if (b)
			model_put(m, 0, b->len, b->p);
		break;
	case REC_DATA:
		digest_bytes(&r->u.data.digest, r->u.data.bytes.p, r->u.data.bytes.len);
		model_put(m, r->u.data.off, r->u.data.bytes.len, r->u.data.bytes.p);
		break;
	case REC_COPY:
		b = base_file(image_ref(&m->l, r->u.copy.ref));
		if (b && r->u.copy.src <= b->len && r->u.copy.len <= b->len - r->u.copy.src)
			model_put(m, r->u.copy.off, r->u.copy.len, b->p + r->u.copy.src);
		break;
	case REC_HOLE:
		model_put(m, r->u.hole.off, r->u.hole.len, NULL);
		break;
	case REC_SEAL:
		if (m->has_model && r->u.seal.size <= MODEL_MAX)
			digest_bytes(&r->u.seal.digest, m->model, r->u.seal.size);
		break;
	default:
		break;
	}
}

static void put(struct maker *m, struct record *r)
{
	struct err e = {0};

	model(m, r);
	if (r->type == REC_DELTA && !digest_is_zero(&r->u.delta.base))
		r->u.delta.base = m->id;
	if (r->type == REC_END && m->loads && image_load_end(&m->l, &m->id, &e) == 0)
		r->u.end.id = m->id;
	else if (m->loads && image_load(&m->l, r, &e))
		m->loads = false;
	if (rec_check(r, &e) == 0)
		stream_put(&m->o, r, &e);
}

static void begin(struct maker *m)
{
	struct err e = {0};
	struct record r = {.type = REC_IMAGE};

	stream_begin(&m->o, KIND_DELTA, &e);
	image_load_start(&m->l, w.loader);
	m->loads = true;
	m->has_model = false;
	put(m, &r);
	r = (struct record){.type = REC_MEMBER, .u.member = {.kind = 1, .path = span_cstr("/s")}};
	put(m, &r);
	r = (struct record){.type = REC_DELTA, .u.delta.base = m->id};
	put(m, &r);
}

/* A stream ends at each END record and at the end; what follows is the next one, from where this one led. */
static void make(struct maker *m, struct dense *d)
{
	struct record r;
	struct err e = {0};

	begin(m);
	while (m->n_promises < PROMISES && dense_next(d, KIND_DELTA, &r)) {
		put(m, &r);
		if (r.type != REC_END)
			continue;
		m->promise[m->n_promises++] = m->id;
		stream_finish(&m->o, &e);
		begin(m);
	}
	r = (struct record){.type = REC_END};
	put(m, &r);
	m->promise[m->n_promises++] = m->id;
	stream_finish(&m->o, &e);
}

/* ---- the run ---- */

static void count(void *ctx, const char *kind, const char *text)
{
	(void)kind;
	for (const char *s = text; *s; s++)
		dense_must((uint8_t)*s >= 0x20 && *s != 0x7f, "a warning that is not clean");
	++*(unsigned *)ctx;
}

static bool has_litter(void)
{
	struct stat st;
	static const char *const files[] = {"commit", "plan", "detached", "next"};
	static const char *const dirs[] = {"replica/" REPLICA_CTL "/stage", "replica/" REPLICA_CTL "/slots"};
	AUTO_CLOSE int ctl = at("replica/" REPLICA_CTL);

	for (size_t i = 0; i < 4; i++)
		if (!fstatat(ctl, files[i], &st, AT_SYMLINK_NOFOLLOW))
			return true;
	for (size_t i = 0; i < 2; i++) {
		AUTO_CLOSE int fd = openat(w.fd, dirs[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		struct dirent **v;
		int n = fd >= 0 ? scandirat(fd, ".", &v, NULL, NULL) : 0;
		for (int k = 0; k < n; k++)
			free(v[k]);
		if (n > 0)
			free(v);
		if (n > 2)
			return true;
	}
	return false;
}

static void check_id(const struct maker *m, bool exact)
{
	struct err e = {0};
	struct catalog *c = NULL, *fresh = NULL;
	struct digest id, seen;
	AUTO_FREE char *path = path_in("replica/" REPLICA_CTL "/catalog");

	dense_must(!catalog_open(&c, path, CATALOG_READ, &e) && !catalog_id(c, &id, &e), e.text);
	catalog_close(&c);
	bool known = digest_eq(&id, &w.base);
	for (size_t i = 0; i < m->n_promises; i++)
		known |= digest_eq(&id, &m->promise[i]);
	dense_must(known || !m->n_promises, "the replica holds an image that nobody promised");
	if (!exact)
		return;
	struct walk_root root = {"", at("replica")};
	struct diff d = {.tmpdir = w.tmp, .threads = 1};
	unsigned warned = 0;
	d.warn = &(struct warn){count, &warned};
	dense_must(!source_scratch(&fresh, w.tmp, NULL, &e) && !source_digest(fresh, &root, 1, &d, &e) &&
		!catalog_id(fresh, &seen, &e), e.text);
	catalog_close(&fresh);
	close_fd(&root.fd);
	dense_must(warned || digest_eq(&seen, &id), "the replica's tree is not the image that its catalog holds");
}

/* No setuid or setgid file, no device, no attribute that only root may set. */
static void check_harmless(int dirfd)
{
	struct dirent **v;
	int n = scandirat(dirfd, ".", &v, NULL, NULL);

	dense_must(n >= 0, "cannot list");
	for (int i = 0; i < n; i++) {
		struct attr a = {0};
		struct err e = {0};
		const char *s = v[i]->d_name;
		if (strcmp(s, ".") && strcmp(s, "..") && strcmp(s, REPLICA_CTL)) {
			dense_must(!attr_stat(&a, dirfd, s, &e), e.text);
			dense_must(a.type != OBJ_CHAR && a.type != OBJ_BLOCK, "a device was made");
			dense_must(a.type == OBJ_DIR || !(a.meta.mode & (S_ISUID | S_ISGID)), "a file has setuid or setgid");
			AUTO_CLOSE int fd = a.type == OBJ_FILE || a.type == OBJ_DIR ? path_open_at(dirfd, s, O_RDONLY, 0) : -1;
			char list[4096];
			ssize_t len = fd >= 0 ? flistxattr(fd, list, sizeof list) : 0;
			for (ssize_t k = 0; k < len; k += (ssize_t)strlen(list + k) + 1)
				dense_must(strncmp(list + k, "security.", 9) && strncmp(list + k, "trusted.", 8), list + k);
			if (a.type == OBJ_DIR)
				check_harmless(fd);
		}
		attr_free(&a);
		free(v[i]);
	}
	free(v);
}

/* Back by one image, which is the base. */
static void undo(struct apply *a)
{
	struct maker none = {.n_promises = 0};
	struct err e = {0};
	unsigned warned = 0;

	a->warn = &(struct warn){count, &warned};
	a->ack = NULL;
	dense_must(!past_rollback(a, "-1", 0, &e), e.text);
	if (getenv("FUZZ_STREAM"))
		fprintf(stderr, "undone\n");
	struct digest canary = looks("canary");
	dense_must(digest_eq(&canary, &w.canary), "something beside the replica has changed");
	dense_must(!has_litter(), "litter after an undo");
	none.promise[none.n_promises++] = w.base;
	check_id(&none, !warned);
}

static void apply(struct span stream, const struct maker *m, unsigned how)
{
	bool is_restricted = how & 1, has_undo = how & 2;

	dense_keep(stream);
	struct err e = {0};
	struct input in = {0};
	AUTO_BUF struct buf acks = {0};
	struct stream_out ack = {.sink = dense_sink, .ctx = &acks};
	unsigned warned = 0;
	struct warn warn = {count, &warned};
	struct apply a = {.path = w.replica, .in = &in, .ack = &ack, .max_delete = UINT64_MAX, .max_delete_percent = 100,
		.warn = &warn, .tmpdir = w.tmp, .keep.count = has_undo ? 3 : 0, .policy = {.no_setuid = is_restricted, .no_devices = is_restricted}};
	AUTO_CLOSE int fd = dense_fd(stream);
	int rc = input_open(&in, fd, 1, &e);

	if (!rc) {
		rc = apply_run(&a, &e);
		input_close(&in);
	}
	stream_out_free(&ack);
	if (getenv("FUZZ_STREAM"))
		fprintf(stderr, "%llu applied, %u lost: %s\n", (unsigned long long)a.n_deltas, warned, rc ? e.text : "done");
	dense_must(!rc || (e.kind != ERR_NONE && e.text[0]), "an error without a cause");
	for (const char *s = e.text; *s; s++)
		dense_must((uint8_t)*s >= 0x20 && *s != 0x7f, "an error that is not clean");
	struct digest canary = looks("canary");
	dense_must(digest_eq(&canary, &w.canary), "something beside the replica has changed");
	dense_must(!has_litter(), rc ? e.text : "litter after a success");
	check_id(m, !warned && a.n_deltas && !is_restricted);
	if (is_restricted) {
		AUTO_CLOSE int root = at("replica");
		check_harmless(root);
	}
	if (a.n_deltas == 1 && has_undo && !warned && !is_restricted && m->n_promises && !digest_eq(&m->promise[0], &w.base))
		undo(&a);
	if (a.n_deltas) {
		put_back();
		return;
	}
	struct digest tree = looks("replica");
	dense_must(digest_eq(&tree, &w.tree), "a delta that was refused has changed the tree");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct digest pool[2];
	struct dense d = {.digests = pool, .n_digests = 2, .names = names};
	AUTO_BUF struct buf stream = {0};
	struct maker m = {.o = {.sink = dense_sink, .ctx = &stream}};
	struct err e = {0};

	if (!w.replica)
		prepare();
	unsigned how = size ? data[size - 1] : 0;
	if (size && data[0] == 255) {
		apply(span_of(data + 1, size - 1), &m, how);
		return 0;
	}
	pool[0] = w.base;
	digest_bytes(&pool[1], "hello", 5);
	m.id = w.base;
	m.model = xalloc(MODEL_MAX);
	dense_start(&d, data, size);
	dense_must(!catalog_begin(w.loader, &e), e.text);
	make(&m, &d);
	image_loader_free(&m.l);
	catalog_abort(w.loader);
	stream_out_free(&m.o);
	apply(span_of(stream.p, stream.len), &m, how);
	free(m.model);
	dense_free(&d);
	return 0;
}
