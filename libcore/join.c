#include "join.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "journal.h"
#include "merge.h"
#include "sink.h"
#include "value.h"

#define SHOWN 300u

struct work {
	struct join *j;
	struct merge_source *sources;
	int *fds;
	size_t n;                 /* open */
	struct r_member *members; /* of the result, by name; spans point into the sources */
	size_t n_members;
};

static int put_end(struct stream_out *o, struct err *e)
{
	struct record r = {.type = REC_END};

	return stream_put(o, &r, e) || stream_finish(o, e) ? -1 : 0;
}

/* ---- the lists ---- */

/* A journal, from a place on: what a cut printed, behind the journal's name. */
struct place {
	struct buf dir;
	bool is_given;
	uint8_t uuid[16];
	uint64_t seq;
};

static void place_parse(struct place *p, const char *name)
{
	const char *colon = strrchr(name, ':'), *seq = colon ? colon + 1 : "";
	size_t n = strlen(name), at = colon ? (size_t)(colon - name) : 0;
	char digits[2 * sizeof p->uuid + 1] = "";

	if (at >= sizeof digits && name[at - sizeof digits] == ':') {
		memcpy(digits, colon - 2 * sizeof p->uuid, 2 * sizeof p->uuid);
		p->is_given = unhex(p->uuid, sizeof p->uuid, digits) && value_digits(&seq, &p->seq) && !*seq;
	}
	buf_add(&p->dir, name, p->is_given ? at - sizeof digits : n);
}

/* Below the members of the first list when that is of trees, as a list of the same trees; else by absolute names. */
static int list_journal(struct work *w, struct journal *journal, const struct place *from, struct stream_out *o, struct err *e)
{
	const struct head *first = w->n ? &w->sources[0].head : NULL;
	bool is_alone = !first || (first->n_members == 1 && !first->members[0].name.len && span_eq(first->members[0].path, span_cstr("/")));
	struct r_member all = {.kind = MEMBER_TREE, .path = span_cstr("/")};
	struct head head = {.members = is_alone ? &all : first->members, .n_members = is_alone ? 1 : first->n_members, .has_cursor = true};
	struct changes_out out = {.o = o};
	char reason[JOURNAL_REASON], text[SHOWN];
	uint64_t after = 0;

	memcpy(head.cursor.journal, journal->uuid, sizeof head.cursor.journal);
	int got = journal_range(journal, &after, &head.cursor.seq, reason) ? 1 : 0;
	int rc = head_put(&head, o, KIND_CHANGE, e);
	if (!rc && got)
		got = journal_list(journal, from->is_given ? from->uuid : journal->uuid, from->is_given ? from->seq : after,
			head.cursor.seq, is_alone ? NULL : head.members, is_alone ? 0 : head.n_members, &out, reason, e);
	if (!rc && !got) {
		warn_say(w->j->warn, "note", "the journal '%s' cannot tell what changed: %s",
			esc_cut(text, sizeof text, span_of(from->dir.p, from->dir.len)), reason);
		changes_enter(&out, (struct span){0}, 0);
		rc = changes_gap(&out, span_cstr(reason), e);
	}
	changes_free(&out);
	return rc || got < 0 || put_end(o, e) ? -1 : 0;
}

/* A journal as a change stream, in a file without a name: owned. */
static int open_journal(struct work *w, struct place *from, struct err *e)
{
	const char *name = buf_cstr(&from->dir);
	struct journal journal = JOURNAL_NONE;
	char reason[JOURNAL_REASON], text[SHOWN];

	if (!journal_open(&journal, name, reason))
		return err_set(e, ERR_USAGE, "the directory '%s' is no journal: %s", esc_cut(text, sizeof text, span_cstr(name)),
			reason);
	int fd = file_temp(w->j->tmpdir);
	struct sink sink = {.fd = fd, .name = "a temporary file"};
	struct stream_out o = {.sink = sink_write, .ctx = &sink};
	int rc = fd < 0 ? err_sys(e, "cannot make a temporary file in '%s'", w->j->tmpdir) : 0;
	if (!rc)
		rc = list_journal(w, &journal, from, &o, e) || sink_flush(&sink, e) ? -1 : 0;
	if (!rc && lseek(fd, 0, SEEK_SET))
		rc = err_sys(e, "cannot read a temporary file");
	stream_out_free(&o);
	sink_free(&sink);
	journal_close(&journal);
	if (rc)
		close_fd(&fd);
	return fd;
}

static int open_list(struct work *w, const char *name, struct err *e)
{
	struct place from = {0};
	char text[SHOWN];
	struct stat st;
	int fd = strcmp(name, "-") ? open(name, O_RDONLY | O_CLOEXEC) : fcntl(w->j->in, F_DUPFD_CLOEXEC, 3);
	bool is_there = fd >= 0 && !fstat(fd, &st);
	int sys = errno;

	if (is_there && !S_ISDIR(st.st_mode))
		return fd;
	close_fd(&fd);
	place_parse(&from, name);
	if (is_there || from.is_given) {
		fd = open_journal(w, &from, e);
	} else {
		errno = sys;
		err_sys(e, "cannot open '%s'", esc_cut(text, sizeof text, span_cstr(name)));
	}
	buf_free(&from.dir);
	return fd;
}

/* ---- what they are about ---- */

static int add_member(struct work *w, const struct r_member *m, struct err *e)
{
	char ours[SHOWN], theirs[SHOWN];
	size_t at = 0;
	int c = 1;

	while (at < w->n_members && (c = span_cmp(w->members[at].name, m->name)) < 0)
		at++;
	if (at < w->n_members && !c) {
		const struct r_member *o = &w->members[at];
		if (o->kind == m->kind && span_eq(o->path, m->path))
			return 0;
		return err_set(e, ERR_MISMATCH, "the lists are about different trees, '%s' and '%s'",
			esc_cut(ours, sizeof ours, o->path), esc_cut(theirs, sizeof theirs, m->path));
	}
	w->members = xrealloc(w->members, (w->n_members + 1) * sizeof *w->members);
	memmove(&w->members[at + 1], &w->members[at], (w->n_members - at) * sizeof *w->members);
	w->members[at] = *m;
	w->n_members++;
	return 0;
}

static int find_members(struct work *w, struct err *e)
{
	char text[SHOWN];

	for (size_t i = 0; i < w->n; i++) {
		const struct head *h = &w->sources[i].head;
		const char *name = w->j->lists[i];
		for (size_t k = 0; k < h->n_members; k++) {
			if (k && span_cmp(h->members[k - 1].name, h->members[k].name) >= 0)
				return err_set(e, ERR_STREAM, "'%s': the members are out of order",
					esc_cut(text, sizeof text, span_cstr(name)));
			if (add_member(w, &h->members[k], e))
				return -1;
		}
		if (!digest_is_zero(&h->stamps.id))
			return err_set(e, ERR_STREAM, "'%s' is what a replica lacks, not what changed: repl-diff takes it by itself",
				esc_cut(text, sizeof text, span_cstr(name)));
	}
	if (w->n_members > 1 && !w->members[0].name.len)
		return err_set(e, ERR_MISMATCH, "a list of one tree without a name does not go together with the list of a group");
	for (size_t i = 0; i < w->n; i++)
		w->sources[i].by_member = w->sources[i].head.n_members < w->n_members;
	return 0;
}

/* ---- all of it ---- */

static int join_lists(struct work *w, struct err *e)
{
	struct join *j = w->j;
	struct head head = w->sources[0].head; /* borrows */
	struct changes_out out = {.o = j->out};
	struct merge m = {.sources = w->sources, .n = w->n, .out = &out};

	head.members = w->members;
	head.n_members = w->n_members;
	changes_enter(&out, (struct span){0}, 0);
	int rc = head_put(&head, j->out, KIND_CHANGE, e) || merge_inodes(w->sources, w->n, j->out, e) || merge_run(&m, e) ||
		put_end(j->out, e) ? -1 : 0;
	j->names = out.n_changed;
	changes_free(&out);
	return rc;
}

int join_run(struct join *j, struct err *e)
{
	struct work w = {.j = j};
	bool has_in = false;
	int rc = 0;

	if (!j->n || j->n > MERGE_MAX)
		return err_set(e, ERR_USAGE, j->n ? "%u lists at a time: join some, then the result with the others" :
			"which lists? give change streams, or the directories of journals; at most %u", MERGE_MAX);
	w.sources = xalloc(j->n * sizeof *w.sources);
	w.fds = xalloc(j->n * sizeof *w.fds);
	for (size_t i = 0; i < j->n && !rc; i++) {
		bool is_in = !strcmp(j->lists[i], "-");
		if (is_in && has_in)
			rc = err_set(e, ERR_USAGE, "standard input cannot be two lists");
		has_in = has_in || is_in;
		if (!rc && (w.fds[i] = open_list(&w, j->lists[i], e)) < 0)
			rc = -1;
		if (!rc && merge_open(&w.sources[i], w.fds[i], is_in ? "standard input" : j->lists[i], e)) {
			close_fd(&w.fds[i]);
			rc = -1;
		}
		if (!rc)
			w.n++;
	}
	if (!rc)
		rc = find_members(&w, e) || join_lists(&w, e) ? -1 : 0;
	while (w.n) {
		merge_close(&w.sources[--w.n]);
		close_fd(&w.fds[w.n]);
	}
	free(w.sources);
	free(w.fds);
	free(w.members);
	return rc;
}
