/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What is special about virtio-blk: features, queue count, configuration space, write cache.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vdpa_priv.h"
#include "vfe_wire_pci.h"

enum {
	MIN_BLOCK = VFE_BLK_SECTOR_SIZE,
	MAX_BLOCK = 1 << 20,
	WRITEBACK_AT = offsetof(struct vfe_wire_blk_config, writeback),
};

/* The fields of struct vfe_wire_blk_config. */
static const uint8_t blk_config_widths[] = {
	4, 4, 4, 4, 2, 1, 1, 4, 1, 1, 2, 4, 1, 1, 2, 4, 4, 4, 4, 4, 1, 1, 1, 1, 4, 4, 4};

static bool
has(uint64_t features, unsigned int bit)
{
	return (features & VFE_BIT(bit)) != 0;
}

static int
blk_config_check(const struct vfe_wire_blk_config *config, uint64_t features, struct vfe_error *err)
{
	uint64_t capacity = le64toh(config->capacity);
	uint32_t block = le32toh(config->blk_size);

	if (capacity > UINT64_MAX / VFE_BLK_SECTOR_SIZE)
		return vfe_error_set(
			err, -EPROTO, "a capacity of %" PRIu64 " sectors overflows", capacity);
	if (has(features, VFE_BLK_F_BLK_SIZE) &&
		(!vfe_is_pow2(block) || block < MIN_BLOCK || block > MAX_BLOCK))
		return vfe_error_set(err, -EPROTO, "a block size of %u bytes", block);
	if (has(features, VFE_BLK_F_SEG_MAX) && config->seg_max == 0)
		return vfe_error_set(err, -EPROTO, "requests of no segments");
	return 0;
}

/* The capacity must be there; what else must be follows from the features, and reads 0. */
static int
blk_config_read(struct vfe_virtio_dev *vdev, union vdpa_config *ret, struct vfe_error *err)
{
	union vdpa_config config;
	int rc;

	rc = vdpa_type_config_read(vdev, blk_config_widths, VFE_ARRAY_SIZE(blk_config_widths),
		offsetof(struct vfe_wire_blk_config, size_max), &config, err);
	if (rc == 0)
		rc = blk_config_check(&config.blk, vdev->device_features, err);
	if (rc == 0)
		*ret = config;
	return rc;
}

/* All queues of a VF are for data. num_queues is there with MQ (virtio 5.2.4). */
static int
blk_nr_queues(const struct vfe_virtio_dev *vdev, const union vdpa_config *config, uint16_t *ret,
	struct vfe_error *err)
{
	unsigned int n = 1;

	if (has(vdev->device_features, VFE_BLK_F_MQ))
		n = le16toh(config->blk.num_queues);
	if (n == 0 || n > vdev->num_queues)
		return vfe_error_set(
			err, -EPROTO, "%u request queues, but %u queues", n, vdev->num_queues);
	*ret = (uint16_t)(n < VFE_VDPA_MAX_QUEUES ? n : VFE_VDPA_MAX_QUEUES);
	return 0;
}

/* A guest must not find its disk shorter, or with other blocks, than it was. */
static int
blk_config_compatible(
	const union vdpa_config *before, const union vdpa_config *now, struct vfe_error *err)
{
	if (le64toh(now->blk.capacity) < le64toh(before->blk.capacity))
		return vfe_error_set(err, -EXDEV,
			"it came back with %" PRIu64 " sectors, had %" PRIu64,
			le64toh(now->blk.capacity), le64toh(before->blk.capacity));
	if (now->blk.blk_size != before->blk.blk_size)
		return vfe_error_set(err, -EXDEV, "it came back with blocks of %u bytes, had %u",
			le32toh(now->blk.blk_size), le32toh(before->blk.blk_size));
	return 0;
}

/* --- write cache --- */

static void
blk_config_keep(const struct vdpa_vf *vf, union vdpa_config *config)
{
	if (vf->writeback.set)
		config->blk.writeback = vf->writeback.on;
}

/* The write cache is all that a driver may write (virtio 5.2.5). */
static int
blk_config_write(
	struct vdpa_vf *vf, uint32_t off, const uint8_t *buf, uint32_t len, struct vfe_error *err)
{
	if (!has(vf->vdev.device_features, VFE_BLK_F_CONFIG_WCE))
		return vfe_error_set(err, -EACCES, "the write cache of this disk is fixed");
	if (off != WRITEBACK_AT || len != 1)
		return vfe_error_set(err, -EACCES,
			"%u bytes at %u of the configuration space, only the write cache (1 byte "
			"at %u) can be set",
			len, off, WRITEBACK_AT);
	if (buf[0] > 1)
		return vfe_error_set(err, -EINVAL, "write cache mode %u, expected 0 or 1", buf[0]);
	vf->writeback.set = true;
	vf->writeback.on = buf[0];
	vf->writeback.stale = true;
	vf->config.blk.writeback = buf[0];
	return 0;
}

static int
blk_config_apply(struct vdpa_vf *vf, bool again, struct vfe_error *err)
{
	bool stale;
	uint8_t on;
	int rc;

	pthread_mutex_lock(&vf->lock);
	stale = vf->writeback.stale || (again && vf->writeback.set);
	on = vf->writeback.on;
	vf->writeback.stale = false;
	pthread_mutex_unlock(&vf->lock);
	if (!stale)
		return 0;
	rc = vfe_virtio_config_write(&vf->vdev, WRITEBACK_AT, &on, 1, err);
	if (rc < 0) {
		pthread_mutex_lock(&vf->lock);
		vf->writeback.stale = true;
		pthread_mutex_unlock(&vf->lock);
	}
	return rc;
}

/* --- blob, people --- */

static void
blk_blob(const struct vdpa_vf *vf, struct vfe_state *state)
{
	state->config.blk = vf->config.blk;
}

static void
blk_info(const union vdpa_config *config, uint64_t device_features, struct vfe_vdpa_vf_info *ret)
{
	ret->link_up = true;
	ret->capacity = le64toh(config->blk.capacity) * VFE_BLK_SECTOR_SIZE;
	ret->block_size = has(device_features, VFE_BLK_F_BLK_SIZE) ? le32toh(config->blk.blk_size)
								   : VFE_BLK_SECTOR_SIZE;
	ret->read_only = has(device_features, VFE_BLK_F_RO);
	ret->writeback = has(device_features, VFE_BLK_F_CONFIG_WCE)
				 ? config->blk.writeback != 0
				 : has(device_features, VFE_BLK_F_FLUSH);
}

static void
blk_describe(const union vdpa_config *config, uint64_t device_features, char *text, size_t size)
{
	(void)device_features;
	snprintf(text, size, "%" PRIu64 " sectors, write cache %s", le64toh(config->blk.capacity),
		config->blk.writeback != 0 ? "on" : "off");
}

/* Header and status; who is told nothing of segments has one (section 5.2.5). */
static uint32_t
blk_chain_max(const union vdpa_config *config, uint64_t device_features)
{
	uint32_t segments = 1;

	if (has(device_features, VFE_BLK_F_SEG_MAX))
		segments = le32toh(config->blk.seg_max);
	return segments < VFE_VIRTIO_QUEUE_MAX_SIZE ? segments + 2 : VFE_VIRTIO_QUEUE_MAX_SIZE;
}

static bool
blk_comes_back(uint16_t qid)
{
	(void)qid;
	return true;
}

/*
 * Left out of the guest's features, for the reasons that net has: packed rings, NOTIFICATION_DATA,
 * ACCESS_PLATFORM, RING_RESET. IN_ORDER too: a device that has promised it may leave used entries
 * out, and after a crash of the device the used ring is what tells which requests are done.
 */
const struct vdpa_type vdpa_blk_type = {
	.name = "blk",
	.pci_device_id = VFE_PCI_DEVICE_VIRTIO_BLK,
	.state_type = VFE_STATE_TYPE_BLK,
	.protocol_features =
		VFE_BIT(VDPA_PROTOCOL_F_MQ) | VFE_BIT(VDPA_PROTOCOL_F_LOG_SHMFD) |
		VFE_BIT(VDPA_PROTOCOL_F_REPLY_ACK) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ) |
		VFE_BIT(VDPA_PROTOCOL_F_CONFIG) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_SEND_FD) |
		VFE_BIT(VDPA_PROTOCOL_F_HOST_NOTIFIER) | VFE_BIT(VDPA_PROTOCOL_F_STATUS),
	.guest_features = VFE_BIT(VFE_BLK_F_SIZE_MAX) | VFE_BIT(VFE_BLK_F_SEG_MAX) |
			  VFE_BIT(VFE_BLK_F_RO) | VFE_BIT(VFE_BLK_F_BLK_SIZE) |
			  VFE_BIT(VFE_BLK_F_FLUSH) | VFE_BIT(VFE_BLK_F_TOPOLOGY) |
			  VFE_BIT(VFE_BLK_F_CONFIG_WCE) | VFE_BIT(VFE_BLK_F_MQ) |
			  VFE_BIT(VFE_BLK_F_DISCARD) | VFE_BIT(VFE_BLK_F_WRITE_ZEROES) |
			  VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) |
			  VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
			  VFE_BIT(VFE_VIRTIO_F_ORDER_PLATFORM),
	.config_size = sizeof(struct vfe_wire_blk_config),
	.queue_unit = 1,
	.requests_last = true,
	.writes_unsaid = true,
	.chain_max = blk_chain_max,
	.comes_back = blk_comes_back,
	.config_read = blk_config_read,
	.nr_queues = blk_nr_queues,
	.config_compatible = blk_config_compatible,
	.config_keep = blk_config_keep,
	.config_write = blk_config_write,
	.config_apply = blk_config_apply,
	.blob = blk_blob,
	.info = blk_info,
	.describe = blk_describe,
};
