/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Queues of a virtio PCI function: what the device says, enabling, resetting, vectors, doorbells.
 */

#include <errno.h>

#include "virtio_priv.h"

static int
select_queue(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_error *err)
{
	return common_write(vdev, queue_select, qid, err);
}

static int
read_queue_size(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t *ret, struct vfe_error *err)
{
	int rc = common_read16(vdev, queue_size, ret, err);

	if (rc < 0 || *ret == 0)
		return rc;
	if (!vfe_is_pow2(*ret) || *ret > VFE_VIRTIO_QUEUE_MAX_SIZE)
		return vfe_error_set(err, -EPROTO,
			"queue %u: size %u is not a power of two up to %d", qid, *ret,
			VFE_VIRTIO_QUEUE_MAX_SIZE);
	return 0;
}

int
vfe_virtio_queue_info(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_virtio_queue_info *ret,
	struct vfe_error *err)
{
	struct vfe_virtio_queue_info info = {0};
	int rc;

	rc = select_queue(vdev, qid, err);
	if (rc == 0)
		rc = read_queue_size(vdev, qid, &info.size, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_msix_vector, &info.msix_vector, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_enable, &info.enable, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_notify_off, &info.notify_off, err);
	if (rc == 0 && vdev->common.length >= COMMON_END(queue_notif_config_data))
		rc = common_read16(vdev, queue_notif_config_data, &info.notify_data, err);
	if (rc < 0)
		return rc;
	*ret = info;
	return 0;
}

static int
check_queue_cfg(uint16_t qid, const struct vfe_virtio_queue_cfg *cfg, uint16_t max_size,
	struct vfe_error *err)
{
	if (max_size == 0)
		return vfe_error_set(err, -ENOENT, "queue %u is not there", qid);
	if (!vfe_is_pow2(cfg->size) || cfg->size > max_size)
		return vfe_error_set(err, -EINVAL,
			"queue %u: size %u is not a power of two up to %u", qid, cfg->size,
			max_size);
	if (!vfe_is_aligned(cfg->desc, 16) || !vfe_is_aligned(cfg->driver, 2) ||
		!vfe_is_aligned(cfg->device, 4))
		return vfe_error_set(err, -EINVAL,
			"queue %u: ring addresses 0x%llx, 0x%llx, 0x%llx are not aligned to 16, 2, "
			"4",
			qid, (unsigned long long)cfg->desc, (unsigned long long)cfg->driver,
			(unsigned long long)cfg->device);
	return 0;
}

static int
set_queue_vector(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t vector, struct vfe_error *err)
{
	uint16_t got = 0;
	int rc;

	if (vector != VFE_VIRTIO_MSI_NO_VECTOR && vector >= vdev->num_vectors)
		return vfe_error_set(
			err, -EINVAL, "queue %u: vector %u of %u", qid, vector, vdev->num_vectors);
	rc = common_write(vdev, queue_msix_vector, vector, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_msix_vector, &got, err);
	if (rc < 0)
		return rc;
	if (got != vector)
		return vfe_error_set(err, -ENOSPC,
			"queue %u: the device does not take vector %u, it reads back 0x%x", qid,
			vector, got);
	return 0;
}

/* What the device is told instead of @iova: the part has to be in one piece for it, too. */
static int
translate_part(struct vfe_virtio_dev *vdev, uint16_t qid, uint64_t iova, uint64_t len,
	uint64_t *ret, struct vfe_error *err)
{
	int rc = vfe_pci_dma_addr_whole(vdev->pci, iova, len, ret);

	if (rc < 0)
		return vfe_error_set(err, rc,
			"queue %u: the %llu bytes of its ring at 0x%llx are not there in one piece",
			qid, (unsigned long long)len, (unsigned long long)iova);
	return 0;
}

/* The addresses of the parts of the ring. */
static int
write_ring(struct vfe_virtio_dev *vdev, uint16_t qid, const struct vfe_virtio_queue_cfg *cfg,
	struct vfe_error *err)
{
	const uint16_t n = cfg->size;
	uint64_t desc, driver, device;
	int rc;

	rc = translate_part(vdev, qid, cfg->desc, vfe_vring_desc_bytes(n), &desc, err);
	if (rc == 0)
		rc = translate_part(vdev, qid, cfg->driver, vfe_vring_avail_bytes(n), &driver, err);
	if (rc == 0)
		rc = translate_part(vdev, qid, cfg->device, vfe_vring_used_bytes(n), &device, err);
	if (rc == 0)
		rc = common_write(vdev, queue_desc, desc, err);
	if (rc == 0)
		rc = common_write(vdev, queue_driver, driver, err);
	if (rc == 0)
		rc = common_write(vdev, queue_device, device, err);
	return rc;
}

int
vfe_virtio_queue_enable(struct vfe_virtio_dev *vdev, uint16_t qid,
	const struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err)
{
	uint16_t max_size = 0, enabled = 0;
	int rc;

	rc = select_queue(vdev, qid, err);
	if (rc == 0)
		rc = read_queue_size(vdev, qid, &max_size, err);
	if (rc == 0)
		rc = check_queue_cfg(qid, cfg, max_size, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_enable, &enabled, err);
	if (rc < 0)
		return rc;
	if (enabled != 0)
		return vfe_error_set(err, -EBUSY, "queue %u is enabled already", qid);

	if (cfg->size != max_size)
		rc = common_write(vdev, queue_size, cfg->size, err);
	if (rc == 0)
		rc = set_queue_vector(vdev, qid, cfg->msix_vector, err);
	if (rc == 0)
		rc = write_ring(vdev, qid, cfg, err);
	if (rc == 0)
		rc = common_write(vdev, queue_enable, 1, err);
	if (rc == 0)
		rc = common_read16(vdev, queue_enable, &enabled, err);
	if (rc < 0)
		return rc;
	if (enabled != 1)
		return vfe_error_set(err, -EIO,
			"queue %u: the device does not enable it, queue_enable reads back %u", qid,
			enabled);
	return 0;
}

int
vfe_virtio_queue_reset(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_deadline deadline,
	struct vfe_error *err)
{
	uint16_t resetting = 0, enabled = 0;
	unsigned int n;
	int rc;

	if ((vdev->driver_features & VFE_BIT(VFE_VIRTIO_F_RING_RESET)) == 0)
		return vfe_error_set(err, -ENOTSUP, "RING_RESET is not negotiated");
	rc = select_queue(vdev, qid, err);
	if (rc == 0)
		rc = common_write(vdev, queue_reset, 1, err);
	for (n = 0; rc == 0; n++) {
		rc = common_read16(vdev, queue_reset, &resetting, err);
		if (rc < 0 || resetting == 0)
			break;
		if (vfe_deadline_passed(deadline))
			return vfe_error_set(err, -ETIMEDOUT,
				"queue %u does not finish its reset, queue_reset reads %u", qid,
				resetting);
		virtio_poll_pause(vdev, n, deadline);
	}
	if (rc == 0)
		rc = common_read16(vdev, queue_enable, &enabled, err);
	if (rc < 0)
		return rc;
	if (enabled != 0)
		return vfe_error_set(err, -EIO,
			"queue %u is still enabled after its reset, queue_enable reads %u", qid,
			enabled);
	return 0;
}

int
vfe_virtio_config_vector_set(struct vfe_virtio_dev *vdev, uint16_t vector, struct vfe_error *err)
{
	uint16_t got = 0;
	int rc;

	if (vector != VFE_VIRTIO_MSI_NO_VECTOR && vector >= vdev->num_vectors)
		return vfe_error_set(
			err, -EINVAL, "configuration vector %u of %u", vector, vdev->num_vectors);
	rc = common_write(vdev, config_msix_vector, vector, err);
	if (rc == 0)
		rc = common_read16(vdev, config_msix_vector, &got, err);
	if (rc < 0)
		return rc;
	if (got != vector)
		return vfe_error_set(err, -ENOSPC,
			"the device does not take configuration vector %u, it reads back 0x%x",
			vector, got);
	return 0;
}

int
vfe_virtio_doorbell_get(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t notify_off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err)
{
	const uint32_t width =
		(vdev->driver_features & VFE_BIT(VFE_VIRTIO_F_NOTIFICATION_DATA)) != 0 ? 4 : 2;
	uint64_t off = (uint64_t)notify_off * vdev->notify_multiplier;

	if (!vfe_range_inside(off, width, vdev->notify.length))
		return vfe_error_set(err, -EPROTO,
			"queue %u: its doorbell of %u bytes at 0x%llx (offset %u, multiplier %u) "
			"is "
			"outside the notification structure of 0x%llx bytes",
			qid, width, (unsigned long long)off, notify_off, vdev->notify_multiplier,
			(unsigned long long)vdev->notify.length);
	return vfe_pci_doorbell_get(
		vdev->pci, vdev->notify.bar, vdev->notify.offset + off, ret, err);
}
