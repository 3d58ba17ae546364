#include "owners.h"

#include <grp.h>
#include <pwd.h>
#include <stdlib.h>

void owners_add(struct owners *s, struct owner_rule rule)
{
	s->rules = xrealloc(s->rules, (s->n_rules + 1) * sizeof *s->rules);
	s->rules[s->n_rules++] = rule;
}

void owners_take(struct owners *s, const struct r_owner *o)
{
	char name[300], text[4096];
	uint32_t to = o->id;

	if (o->name.len >= sizeof name)
		return;
	memcpy(name, o->name.p, o->name.len);
	name[o->name.len] = 0;
	if (o->is_group) {
		struct group g, *found = NULL;
		if (!getgrnam_r(name, &g, text, sizeof text, &found) && found)
			to = found->gr_gid;
	} else {
		struct passwd pw, *found = NULL;
		if (!getpwnam_r(name, &pw, text, sizeof text, &found) && found)
			to = found->pw_uid;
	}
	if (to != o->id)
		owners_add(s, (struct owner_rule){o->is_group, o->id, to});
}

static uint32_t mapped(const struct owners *s, bool is_group, uint32_t id)
{
	for (size_t i = 0; i < s->n_rules; i++)
		if (s->rules[i].is_group == is_group && s->rules[i].from == id)
			return s->rules[i].to;
	return id;
}

/* Numbers in POSIX ACLs follow the owners: rows of u16 tag, u16 permissions, u32 id behind a u32 version. */
static void map_acls(struct owners *s, struct r_meta *m)
{
	struct span name, value;

	buf_reset(&s->xattrs);
	buf_add(&s->xattrs, m->xattrs.p, m->xattrs.len);
	struct rd rows = rd_of(s->xattrs.p, s->xattrs.len);
	while (xattr_next(&rows, &name, &value)) {
		if (!span_eq(name, span_cstr("system.posix_acl_access")) && !span_eq(name, span_cstr("system.posix_acl_default")))
			continue;
		uint8_t *v = s->xattrs.p + (value.p - s->xattrs.p);
		for (size_t at = 4; at + 8 <= value.len; at += 8) {
			struct rd row = rd_of(v + at, 8);
			unsigned tag = rd_u16(&row);
			rd_u16(&row);
			if (tag != 0x02 && tag != 0x08) /* a named user, a named group */
				continue;
			uint32_t id = mapped(s, tag == 0x08, rd_u32(&row));
			for (unsigned i = 0; i < 4; i++)
				v[at + 4 + i] = (uint8_t)(id >> 8 * i);
		}
	}
	m->xattrs = span_of(s->xattrs.p, s->xattrs.len);
}

void owners_map(struct owners *s, struct r_meta *m)
{
	if (s->n_rules && m->xattrs.len)
		map_acls(s, m);
	m->uid = mapped(s, false, m->uid);
	m->gid = mapped(s, true, m->gid);
}

void owners_free(struct owners *s)
{
	buf_free(&s->xattrs);
	free(s->rules);
	*s = (struct owners){0};
}
