/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Disks, and the two back ends that have no file: null and memory.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bp.h"

/* --- null --- */

static int
null_open(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err)
{
	if (cfg->size == 0 || cfg->size % cfg->block_size != 0 || cfg->size > INT64_MAX)
		return vfe_error_set(err, -EINVAL,
			"size of %llu bytes, expected a multiple of the block size %u",
			(unsigned long long)cfg->size, cfg->block_size);
	atomic_store(&disk->size, cfg->size);
	disk->physical_block_size = cfg->block_size;
	return 0;
}

static int
null_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err)
{
	if (size == 0 || size % disk->block_size != 0 || size > INT64_MAX)
		return vfe_error_set(err, -EINVAL,
			"size of %llu bytes, expected a multiple of the block size %u",
			(unsigned long long)size, disk->block_size);
	atomic_store(&disk->size, size);
	return 0;
}

static void
null_submit(struct bp_slot *slot)
{
	bp_slot_done(slot, slot->op == BP_READ || slot->op == BP_WRITE ? (int64_t)slot->len : 0);
}

const struct bp_disk_ops bp_ops_null = {
	.open = null_open,
	.resize = null_resize,
	.submit = null_submit,
};

/* --- memory --- */

/* Address space for the largest size is kept from the start, so that resizing moves nothing. */
static int
memory_open(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err)
{
	void *va;
	int rc;

	if (cfg->size > BP_MAX_MEMORY)
		return vfe_error_set(err, -EINVAL, "size of %llu bytes, at most %llu",
			(unsigned long long)cfg->size, BP_MAX_MEMORY);
	rc = null_open(disk, cfg, err);
	if (rc < 0)
		return rc;
	va = mmap(
		NULL, BP_MAX_MEMORY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (va == MAP_FAILED)
		return vfe_error_set(
			err, -errno, "no address space for a disk in memory: %s", strerror(errno));
	disk->memory = va;
	if (mprotect(va, cfg->size, PROT_READ | PROT_WRITE) < 0) {
		rc = -errno;
		munmap(va, BP_MAX_MEMORY);
		disk->memory = NULL;
		return vfe_error_set(err, rc, "no memory for %llu bytes: %s",
			(unsigned long long)cfg->size, strerror(-rc));
	}
	(void)madvise(va, BP_MAX_MEMORY, MADV_DONTDUMP);
	return 0;
}

static void
memory_close(struct bp_disk *disk)
{
	if (disk->memory != NULL)
		munmap(disk->memory, BP_MAX_MEMORY);
	disk->memory = NULL;
}

static int
memory_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err)
{
	uint64_t old = atomic_load(&disk->size), end;
	int rc;

	if (size > BP_MAX_MEMORY)
		return vfe_error_set(err, -EINVAL, "size of %llu bytes, at most %llu",
			(unsigned long long)size, BP_MAX_MEMORY);
	if (size > old && mprotect(disk->memory, size, PROT_READ | PROT_WRITE) < 0)
		return vfe_error_set(err, -errno, "no memory for %llu bytes: %s",
			(unsigned long long)size, strerror(errno));
	rc = null_resize(disk, size, err);
	/* what is cut off stays accessible, for requests that were checked before, and is zeroed */
	end = vfe_align_up(size, 4096);
	if (rc == 0 && end < old)
		(void)madvise(disk->memory + end, old - end, MADV_DONTNEED);
	return rc;
}

static void
memory_transfer(const struct bp_slot *slot)
{
	uint8_t *at = slot->bq->port->disk->memory + slot->offset;
	uint16_t i;

	for (i = 0; i < slot->nr_iov; i++) {
		if (slot->op == BP_READ)
			memcpy(slot->iov[i].iov_base, at, slot->iov[i].iov_len);
		else
			memcpy(at, slot->iov[i].iov_base, slot->iov[i].iov_len);
		at += slot->iov[i].iov_len;
	}
}

static void
memory_submit(struct bp_slot *slot)
{
	uint8_t *at = slot->bq->port->disk->memory + slot->offset;

	switch (slot->op) {
	case BP_READ:
	case BP_WRITE:
		memory_transfer(slot);
		bp_slot_done(slot, (int64_t)slot->len);
		return;
	case BP_DISCARD:
	case BP_ZERO:
		memset(at, 0, slot->len);
		break;
	default:
		break;
	}
	bp_slot_done(slot, 0);
}

const struct bp_disk_ops bp_ops_memory = {
	.open = memory_open,
	.close = memory_close,
	.resize = memory_resize,
	.submit = memory_submit,
};

/* --- disks --- */

static int
check_cfg(struct dp_engine *engine, const struct bp_disk_cfg *cfg, struct vfe_error *err)
{
	size_t len = strlen(cfg->name);

	if (len == 0 || len >= BP_NAME_SIZE)
		return vfe_error_set(err, -EINVAL, "name of %zu characters, expected 1 to %d", len,
			BP_NAME_SIZE - 1);
	if (bp_disk_find(engine, cfg->name) != NULL)
		return vfe_error_set(err, -EEXIST, "there is a bdev %s already", cfg->name);
	if (!vfe_is_pow2(cfg->block_size) || cfg->block_size < BP_MIN_BLOCK_SIZE ||
		cfg->block_size > BP_MAX_BLOCK_SIZE)
		return vfe_error_set(err, -EINVAL,
			"block size %u, expected a power of two from %d to %d", cfg->block_size,
			BP_MIN_BLOCK_SIZE, BP_MAX_BLOCK_SIZE);
	return 0;
}

static int
choose_ops(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err)
{
	int rc;

	switch (cfg->type) {
	case BP_DISK_NULL:
		disk->ops = &bp_ops_null;
		return 0;
	case BP_DISK_MEMORY:
		disk->ops = &bp_ops_memory;
		return 0;
	default:
		break;
	}
	rc = cfg->io == BP_IO_THREADS ? -EPERM : bp_uring_probe();
	if (rc < 0 && cfg->io == BP_IO_URING)
		return vfe_error_set(err, rc, "io_uring is not allowed here: %s", strerror(-rc));
	disk->io = rc < 0 ? BP_IO_THREADS : BP_IO_URING;
	disk->ops = rc < 0 ? &bp_ops_file_threads : &bp_ops_file_uring;
	return 0;
}

int
bp_disk_create(struct dp_engine *engine, const struct bp_disk_cfg *cfg, struct bp_disk **ret,
	struct vfe_error *err)
{
	struct bp_disk *disk;
	int rc = check_cfg(engine, cfg, err);

	if (rc < 0)
		return rc;
	disk = calloc(1, sizeof(*disk));
	if (disk == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a disk");
	(void)vfe_str_copy(disk->name, sizeof(disk->name), cfg->name);
	disk->engine = engine;
	disk->type = cfg->type;
	disk->block_size = cfg->block_size;
	disk->read_only = cfg->read_only;
	disk->fd = -1;
	disk->direct_fd = -1;
	atomic_init(&disk->inject.every, 1);
	rc = choose_ops(disk, cfg, err);
	if (rc == 0)
		rc = disk->ops->open(disk, cfg, err);
	if (rc < 0) {
		free(disk);
		return vfe_error_prefix(err, rc, "bdev %s", cfg->name);
	}
	TAILQ_INSERT_TAIL(&engine->bp_disks, disk, link);
	*ret = disk;
	return 0;
}

static void
disk_free(struct bp_disk *disk)
{
	TAILQ_REMOVE(&disk->engine->bp_disks, disk, link);
	if (disk->ops->close != NULL)
		disk->ops->close(disk);
	free(disk);
}

int
bp_disk_destroy(struct bp_disk *disk, struct vfe_error *err)
{
	if (disk->users > 0)
		return vfe_error_set(
			err, -EBUSY, "bdev %s: %u controllers use it", disk->name, disk->users);
	disk_free(disk);
	return 0;
}

void
bp_engine_fini(struct dp_engine *engine)
{
	struct bp_disk *disk, *next;

	/* one that is still in use has requests that never came back: let the kernel end them */
	for (disk = TAILQ_FIRST(&engine->bp_disks); disk != NULL; disk = next) {
		next = TAILQ_NEXT(disk, link);
		if (disk->users == 0)
			disk_free(disk);
	}
	bp_pool_destroy(engine->bp_pool);
	engine->bp_pool = NULL;
}

struct bp_disk *
bp_disk_find(struct dp_engine *engine, const char *name)
{
	struct bp_disk *disk;

	TAILQ_FOREACH (disk, &engine->bp_disks, link) {
		if (strcmp(disk->name, name) == 0)
			return disk;
	}
	return NULL;
}

struct bp_disk *
bp_disk_next(struct dp_engine *engine, const struct bp_disk *disk)
{
	return disk == NULL ? TAILQ_FIRST(&engine->bp_disks) : TAILQ_NEXT(disk, link);
}

void
bp_disk_info(const struct bp_disk *disk, struct bp_disk_info *ret)
{
	*ret = (struct bp_disk_info){
		.name = disk->name,
		.path = disk->path,
		.type = disk->type,
		.io = disk->io,
		.size = atomic_load(&disk->size),
		.block_size = disk->block_size,
		.physical_block_size = disk->physical_block_size,
		.direct_align = disk->direct_fd >= 0 ? disk->direct_align : 0,
		.read_only = disk->read_only,
		.users = disk->users,
		.syncs = atomic_load(&disk->syncs),
	};
}

bool
bp_disk_read_only(const struct bp_disk *disk)
{
	return disk->read_only;
}

int
bp_disk_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err)
{
	int rc = disk->ops->resize(disk, size, err);

	return rc < 0 ? vfe_error_prefix(err, rc, "bdev %s", disk->name) : 0;
}

/* Visit all queues: what is held may go. */
static void
kick_users(struct bp_disk *disk)
{
	struct bp_port *port;
	uint16_t i;

	TAILQ_FOREACH (port, &disk->engine->bp_ports, link) {
		for (i = 0; port->disk == disk && i < port->nr_queues; i++) {
			if (port->queues[i].slots != NULL)
				bp_queue_poke(&port->queues[i]);
		}
	}
}

void
bp_disk_inject(struct bp_disk *disk, const struct bp_inject *inject)
{
	atomic_store(&disk->inject.action, BP_INJECT_NONE);
	atomic_store(&disk->inject.ops, inject->ops);
	atomic_store(&disk->inject.every, inject->every > 0 ? inject->every : 1);
	atomic_store(&disk->inject.first, inject->first);
	atomic_store(&disk->inject.last, inject->last);
	atomic_store(&disk->inject.count, 0);
	if (inject->action != BP_INJECT_HOLD)
		kick_users(disk);
	atomic_store_explicit(&disk->inject.action, inject->action, memory_order_release);
}
