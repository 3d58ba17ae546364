#include "source.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"

int source_scratch(struct catalog **c, const char *tmpdir, struct catalog *of, struct err *e)
{
	AUTO_BUF struct buf path = {0};

	buf_fmt(&path, "%s/repl-XXXXXX", tmpdir);
	buf_cstr(&path);
	int fd = mkstemp((char *)path.p);
	if (fd < 0)
		return err_sys(e, "cannot make a temporary file in '%s'", tmpdir);
	close_fd(&fd);
	unlink((const char *)path.p);
	const char *p = buf_cstr(&path);
	int rc = of ? catalog_copy(of, p, e) : 0;
	if (!rc)
		rc = catalog_open(c, p, CATALOG_PRIVATE, e);
	unlink(p);
	return rc;
}

int source_load(struct catalog *c, struct input *in, struct err *e)
{
	struct image_loader l = {0};
	struct digest id, want = {{0}};
	int got, rc = -1;

	image_load_start(&l, c);
	while ((got = input_next(in, e)) > 0) {
		if (got == STREAM_BEGIN && in->s.kind != KIND_IMAGE) {
			err_set(e, ERR_STREAM, "this is a stream of kind '%s', not an image: repl-snap --digest makes one",
				kind_name(in->s.kind));
			goto out;
		}
		if (got == STREAM_RECORD && in->s.rec.type == REC_END)
			want = in->s.rec.u.end.id;
		if (got == STREAM_RECORD && image_load(&l, &in->s.rec, e))
			goto out;
		if (got == STREAM_END)
			break;
	}
	if (got < 0)
		goto out;
	if (image_load_end(&l, &id, e))
		goto out;
	if (!digest_eq(&id, &want)) {
		err_set(e, ERR_STREAM, "the image is not what its id says");
		goto out;
	}
	rc = 0;
out:
	image_loader_free(&l);
	return rc;
}

int source_nowhere(void *ctx, const struct span *v, int n, struct err *e)
{
	(void)ctx;
	(void)v;
	(void)n;
	(void)e;
	return 0;
}

static int same_catalog(void *ctx, uint64_t items, struct catalog **next, struct err *e)
{
	(void)items;
	(void)e;
	*next = ctx;
	return 0;
}

int source_digest(struct catalog *c, const struct walk_root *roots, size_t n, const struct diff *settings, struct err *e)
{
	struct catalog *empty = NULL;
	struct stream_out a = {.sink = source_nowhere}, b = {.sink = source_nowhere};
	struct r_member *members = xalloc((n + 1) * sizeof *members);
	struct diff d = *settings;

	for (size_t i = 0; i < n; i++) {
		struct stat st;
		bool is_tree = fstat(roots[i].fd, &st) || S_ISDIR(st.st_mode);
		members[i] = (struct r_member){.kind = is_tree ? MEMBER_TREE : MEMBER_VOLUME, .name = span_cstr(roots[i].name)};
	}
	d.roots = roots;
	d.n_roots = n;
	d.members = members;
	d.changes = NULL;
	d.out = &a;
	d.plan = &b;
	d.next = same_catalog;
	d.ready = NULL;
	d.progress = NULL;
	d.ctx = c;
	d.image_only = d.no_hints = true;
	int rc = source_scratch(&empty, d.tmpdir, NULL, e);
	d.base = empty;
	if (!rc)
		rc = diff_run(&d, e);
	catalog_close(&empty);
	stream_out_free(&a);
	stream_out_free(&b);
	free(members);
	return rc;
}
