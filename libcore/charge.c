#include "charge.h"

#include <linux/magic.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Bytes. */
enum { COST_NUMBER = 16, COST_DIRECTORY = 24, COST_UNDO_DIRECTORY = 40, COST_UNDO_NAME = 12, COST_OWNER = 4096 };

static int charge(struct job *j, uint64_t bytes, struct err *e)
{
	j->memory += bytes;
	if (!j->a->max_memory || j->memory <= j->a->max_memory)
		return 0;
	return err_set(e, ERR_REFUSED, "the delta names so much that it takes more than %llu MiB of memory: --max-memory has to "
		"allow it", (unsigned long long)(j->a->max_memory >> 20));
}

bool charge_undo(const struct job *j) { return history_keeps(&j->a->keep) && !digest_is_zero(&j->current); }

int charge_number(struct job *j, struct err *e) { return charge(j, COST_NUMBER, e); }
int charge_owner(struct job *j, struct err *e) { return charge(j, COST_OWNER, e); }

/* Names come sorted by directory: a directory costs once, unless a stream goes back and forth on purpose. */
int charge_parent(struct job *j, uint64_t parent, struct err *e)
{
	if (parent == j->last_parent)
		return 0;
	j->last_parent = parent;
	return charge(j, COST_DIRECTORY + (charge_undo(j) ? COST_UNDO_DIRECTORY : 0), e);
}

int charge_name(struct job *j, uint64_t parent, struct span name, struct err *e)
{
	return charge_parent(j, parent, e) || (charge_undo(j) && charge(j, name.len + COST_UNDO_NAME, e)) ? -1 : 0;
}

int charge_content(struct job *j, uint64_t bytes, struct err *e)
{
	uint64_t sum;

	if (!add_u64(j->content, bytes, &sum) || (j->a->max_content && sum > j->a->max_content))
		return err_set(e, ERR_REFUSED, "the delta brings more than %llu bytes of content: --max-content has to allow it",
			(unsigned long long)j->a->max_content);
	j->content = sum;
	return 0;
}

/* These may have room for more than they say. */
static bool compresses(int fd)
{
	struct statfs s;

	return fstatfs(fd, &s) || s.f_type == BTRFS_SUPER_MAGIC || s.f_type == 0x2fc12fc1 /* ZFS */;
}

/* Only a first image must bring all that it announces; and only while nothing of it is here yet. */
int charge_space(const struct job *j, uint64_t bytes, struct err *e)
{
	struct statvfs s;

	if (j->a->dry || j->r.where.n || !digest_is_zero(&j->base) || replica_has(&j->r, "partial") || compresses(j->r.root) ||
			fstatvfs(j->r.root, &s))
		return 0;
	uint64_t room = (geteuid() ? s.f_bavail : s.f_bfree) * s.f_frsize;
	if (bytes <= room)
		return 0;
	return err_set(e, ERR_SYSTEM, "the image needs %llu bytes, and '%s' has room for %llu", (unsigned long long)bytes,
		j->a->path, (unsigned long long)room);
}
