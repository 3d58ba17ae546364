#include "past.h"

#include <inttypes.h>
#include <stdio.h>

#include "history.h"
#include "image.h"
#include "stamp.h"

static void put_entry(struct buf *out, size_t back, const struct digest *id, const struct r_image *stamps, uint64_t bytes, bool json)
{
	char what[24];

	if (json) {
		buf_fmt(out, "%s{\"back\":%zu,\"bytes\":%" PRIu64 ",", back ? "," : "[", back, bytes);
		stamp_json(out, "image", id, stamps);
		buf_str(out, "}");
		return;
	}
	snprintf(what, sizeof what, back ? "-%zu" : "now", back);
	stamp_text(out, what, id, stamps);
}

int past_list(const char *path, bool json, struct buf *out, struct err *e)
{
	struct replica r;
	AUTO_BUF struct buf store = {0};
	struct history h = {0};
	struct r_image now = {0};
	struct digest id;
	AUTO_FREE size_t *v = NULL;
	size_t n;
	int rc = -1;

	if (replica_open(&r, path, REPLICA_READ, e) || replica_catalog(&r, CATALOG_READ, e) || catalog_id(r.cat, &id, e) ||
			image_stamps(r.cat, &now, &store, e) < 0 || history_load(&h, &r, e))
		goto out;
	v = history_images(&h, &id, &n);
	put_entry(out, 0, &id, &now, 0, json);
	for (size_t i = 0; i < n; i++)
		put_entry(out, i + 1, &h.v[v[i]].to, &h.v[v[i]].stamps, h.v[v[i]].bytes, json);
	if (json)
		buf_str(out, "]\n");
	rc = 0;
out:
	history_free(&h);
	replica_close(&r);
	return rc;
}
