/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Disks that are files: opening, sizes, which system call does what, and what to do when it cannot.
 *
 * A file is open twice: with O_DIRECT for requests that are aligned as that wants it, and without
 * for the rest. The kernel keeps both views the same, also for others who have the file open.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bp.h"

enum {
	FILE_MODE = 0600,
	MAX_DIRECT_ALIGN = 4096,
	MAX_PHYSICAL_BLOCK = 65536,
};

const uint8_t bp_zeroes[BP_ZERO_PART];

/* --- opening --- */

static int64_t
file_size(const struct bp_disk *disk)
{
	uint64_t bytes;
	struct stat st;

	if (disk->is_device)
		return ioctl(disk->fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
	return fstat(disk->fd, &st) < 0 ? -errno : (int64_t)st.st_size;
}

/* Whole blocks of it. */
static int
take_size(struct bp_disk *disk, struct vfe_error *err)
{
	int64_t size = file_size(disk);

	if (size < 0)
		return vfe_error_set(
			err, (int)size, "size of %s: %s", disk->path, strerror((int)-size));
	size -= size % disk->block_size;
	if (size == 0)
		return vfe_error_set(err, -EINVAL, "%s has less than one block of %u bytes",
			disk->path, disk->block_size);
	atomic_store(&disk->size, (uint64_t)size);
	return 0;
}

/* Smallest alignment that direct I/O takes, by trying. 0 = none. */
static uint32_t
probe_align(int fd)
{
	uint32_t align, found = 0;
	uint8_t *buf;

	if (posix_memalign((void **)&buf, MAX_DIRECT_ALIGN, 2 * MAX_DIRECT_ALIGN) != 0)
		return 0;
	for (align = VFE_BLK_SECTOR_SIZE; align <= MAX_DIRECT_ALIGN && found == 0; align *= 2) {
		if (pread(fd, buf + align, align, 0) >= 0)
			found = align;
	}
	free(buf);
	return found;
}

static void
open_direct(struct bp_disk *disk)
{
	int flags = disk->read_only ? O_RDONLY : O_RDWR;

	disk->direct_fd = open(disk->path, flags | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
	if (disk->direct_fd < 0)
		return; /* not every file system can */
	disk->direct_align = probe_align(disk->direct_fd);
	if (disk->direct_align == 0)
		vfe_close(&disk->direct_fd);
}

static int
grow(const struct bp_disk *disk, const struct stat *st, uint64_t size, struct vfe_error *err)
{
	if (size == 0 || size <= (uint64_t)st->st_size)
		return 0;
	if (disk->is_device || size > INT64_MAX)
		return vfe_error_set(err, -EINVAL, "%s cannot be made %llu bytes large", disk->path,
			(unsigned long long)size);
	if (ftruncate(disk->fd, (off_t)size) < 0)
		return vfe_error_set(err, -errno, "%s cannot be made %llu bytes large: %s",
			disk->path, (unsigned long long)size, strerror(errno));
	return 0;
}

static uint32_t
physical_block(const struct bp_disk *disk, const struct stat *st)
{
	uint32_t size = (uint32_t)st->st_blksize;

	if (disk->is_device && ioctl(disk->fd, BLKPBSZGET, &size) < 0)
		size = disk->block_size;
	if (!vfe_is_pow2(size) || size < disk->block_size || size > MAX_PHYSICAL_BLOCK)
		size = disk->block_size;
	return size;
}

int
bp_file_open(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err)
{
	int flags = O_CLOEXEC | O_NONBLOCK; /* a FIFO must not block us */
	struct stat st;
	int rc;

	if (cfg->path == NULL || cfg->path[0] != '/' ||
		vfe_str_copy(disk->path, sizeof(disk->path), cfg->path) < 0)
		return vfe_error_set(err, -EINVAL,
			"expected the absolute path of a file, up to %d characters",
			BP_PATH_SIZE - 1);
	flags |= cfg->read_only ? O_RDONLY : O_RDWR;
	if (cfg->size > 0 && !cfg->read_only)
		flags |= O_CREAT;
	disk->fd = open(disk->path, flags, FILE_MODE);
	if (disk->fd < 0)
		return vfe_error_set(
			err, -errno, "cannot open %s: %s", disk->path, strerror(errno));
	if (fstat(disk->fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
		rc = vfe_error_set(
			err, -EINVAL, "%s is neither a file nor a block device", disk->path);
		goto err_close;
	}
	disk->is_device = S_ISBLK(st.st_mode);
	rc = cfg->read_only ? 0 : grow(disk, &st, cfg->size, err);
	if (rc == 0)
		rc = take_size(disk, err);
	if (rc < 0)
		goto err_close;
	disk->physical_block_size = physical_block(disk, &st);
	if (!cfg->buffered)
		open_direct(disk);
	return 0;

err_close:
	vfe_close(&disk->fd);
	return rc;
}

void
bp_file_close(struct bp_disk *disk)
{
	vfe_close(&disk->direct_fd);
	vfe_close(&disk->fd);
}

int
bp_file_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err)
{
	if (size != 0)
		return vfe_error_set(
			err, -EINVAL, "a file has the size that it has: change it and rescan");
	return take_size(disk, err);
}

/* --- steps --- */

bool
bp_file_direct(const struct bp_slot *slot)
{
	const struct bp_disk *disk = slot->bq->port->disk;
	uint64_t all = slot->offset | slot->len;
	uint16_t i;

	if (disk->direct_fd < 0 || slot->buffered)
		return false;
	for (i = 0; i < slot->nr_iov; i++)
		all |= (uintptr_t)slot->iov[i].iov_base | slot->iov[i].iov_len;
	return vfe_is_aligned(all, disk->direct_align);
}

/* fallocate(2) of a device makes zeroes, it does not discard. */
bool
bp_file_needs_thread(const struct bp_slot *slot)
{
	return slot->op == BP_DISCARD && slot->bq->port->disk->is_device;
}

int
bp_file_falloc_mode(const struct bp_slot *slot)
{
	bool punch = slot->op == BP_DISCARD || slot->zero == BP_ZERO_PUNCH;

	return (punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
}

static bool
cannot(int64_t result)
{
	return result == -EOPNOTSUPP || result == -ENOSYS || result == -ENOTTY || result == -EINVAL;
}

void
bp_file_done(struct bp_slot *slot, int64_t result)
{
	struct bp_disk *disk = slot->bq->port->disk;

	switch (slot->op) {
	case BP_SYNC:
		if (result >= 0)
			atomic_fetch_add_explicit(&disk->syncs, 1, memory_order_relaxed);
		break;
	case BP_DISCARD:
		/* it was a hint */
		if (cannot(result))
			result = 0;
		break;
	case BP_ZERO:
		if (slot->zero == BP_ZERO_WRITE || !cannot(result))
			break;
		slot->zero++;
		disk->ops->submit(slot);
		return;
	default:
		/* the file system wants more than the probe has found */
		if (vfe_likely(result != -EINVAL) || !bp_file_direct(slot))
			break;
		slot->buffered = true;
		disk->ops->submit(slot);
		return;
	}
	bp_slot_done(slot, result);
}

static int64_t
execute_zero(const struct bp_slot *slot)
{
	const struct bp_disk *disk = slot->bq->port->disk;

	if (slot->zero == BP_ZERO_WRITE)
		return pwrite(disk->fd, bp_zeroes, bp_zero_len(slot), (off_t)slot->offset);
	return fallocate(
		disk->fd, bp_file_falloc_mode(slot), (off_t)slot->offset, (off_t)slot->len);
}

static int64_t
execute_discard(const struct bp_slot *slot)
{
	const struct bp_disk *disk = slot->bq->port->disk;
	uint64_t range[2] = {slot->offset, slot->len};

	if (disk->is_device)
		return ioctl(disk->fd, BLKDISCARD, range);
	return fallocate(
		disk->fd, bp_file_falloc_mode(slot), (off_t)slot->offset, (off_t)slot->len);
}

int64_t
bp_file_execute(const struct bp_slot *slot)
{
	const struct bp_disk *disk = slot->bq->port->disk;
	int fd = bp_file_direct(slot) ? disk->direct_fd : disk->fd;
	int64_t rc;

	switch (slot->op) {
	case BP_READ:
		rc = preadv(fd, slot->iov, slot->nr_iov, (off_t)slot->offset);
		break;
	case BP_WRITE:
		rc = pwritev2(fd, slot->iov, slot->nr_iov, (off_t)slot->offset,
			slot->dsync ? RWF_DSYNC : 0);
		break;
	case BP_SYNC:
		rc = fdatasync(disk->fd);
		break;
	case BP_DISCARD:
		rc = execute_discard(slot);
		break;
	default:
		rc = execute_zero(slot);
	}
	return rc < 0 ? -errno : rc;
}
