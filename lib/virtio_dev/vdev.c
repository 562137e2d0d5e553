/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Device side of one virtio PCI function: creation, BAR0, and what the device itself changes.
 */

#include "vdev_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t
pba_offset(uint16_t nr_vectors)
{
	return VDEV_BAR_MSIX +
	       (uint32_t)vfe_align_up((uint64_t)nr_vectors * VFE_PCI_MSIX_ENTRY_SIZE, VDEV_PAGE);
}

/* One page of pending bits is enough for all vectors that MSI-X knows. */
static uint32_t
notify_offset(uint16_t nr_vectors)
{
	return pba_offset(nr_vectors) + VDEV_PAGE;
}

uint64_t
vfe_vdev_bar_size_for(uint16_t nr_queues, uint16_t nr_vectors)
{
	uint64_t need = notify_offset(nr_vectors) + (uint64_t)nr_queues * VFE_VDEV_NOTIFY_STRIDE;
	uint64_t size = VDEV_PAGE;

	while (size < need)
		size <<= 1;
	return size;
}

static int
check_cfg(const struct vfe_vdev_cfg *cfg, struct vfe_error *err)
{
	if (cfg->nr_queues == 0 || cfg->nr_queues > VFE_VDEV_MAX_QUEUES ||
		cfg->num_queues > cfg->nr_queues)
		return vfe_error_set(err, -EINVAL, "%u queues, expected 1 to %u", cfg->nr_queues,
			VFE_VDEV_MAX_QUEUES);
	if (cfg->nr_vectors == 0 || cfg->nr_vectors > VFE_VDEV_MAX_VECTORS)
		return vfe_error_set(err, -EINVAL, "%u MSI-X vectors, expected 1 to %u",
			cfg->nr_vectors, VFE_VDEV_MAX_VECTORS);
	if (!vfe_is_pow2(cfg->queue_size) || cfg->queue_size > VFE_VIRTIO_QUEUE_MAX_SIZE)
		return vfe_error_set(err, -EINVAL, "queue size %u is not a power of two up to %u",
			cfg->queue_size, VFE_VIRTIO_QUEUE_MAX_SIZE);
	if (cfg->config_len == 0 || cfg->config_len > VFE_VDEV_MAX_CONFIG)
		return vfe_error_set(
			err, -EINVAL, "%u bytes of device configuration", cfg->config_len);
	if (cfg->signaller == NULL)
		return vfe_error_set(err, -EINVAL, "nothing to send interrupts with");
	if (cfg->sriov.total_vfs > 0 && !vfe_is_pow2(cfg->sriov.vf_bar_size))
		return vfe_error_set(err, -EINVAL, "VF BAR size is not a power of two");
	return 0;
}

int
vfe_vdev_create(const struct vfe_vdev_cfg *cfg, struct vfe_vdev **ret, struct vfe_error *err)
{
	struct vfe_vdev *dev;
	int rc = check_cfg(cfg, err);

	if (rc < 0)
		return rc;
	dev = calloc(1, sizeof(*dev));
	if (dev == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a function");

	dev->cfg = *cfg;
	dev->pba_off = pba_offset(cfg->nr_vectors);
	dev->notify_off = notify_offset(cfg->nr_vectors);
	dev->bar_size = vfe_vdev_bar_size_for(cfg->nr_queues, cfg->nr_vectors);
	dev->queues = calloc(cfg->nr_queues, sizeof(*dev->queues));
	if (dev->queues == NULL || vdev_msix_init(dev) < 0) {
		vfe_vdev_destroy(dev);
		return vfe_error_set(err, -ENOMEM, "no memory for %u queues", cfg->nr_queues);
	}
	vdev_pci_build(dev);
	vdev_common_reset(dev);
	*ret = dev;
	return 0;
}

void
vfe_vdev_destroy(struct vfe_vdev *dev)
{
	if (dev == NULL)
		return;
	vdev_msix_fini(dev);
	free(dev->queues);
	free(dev);
}

uint64_t
vfe_vdev_bar_size(const struct vfe_vdev *dev)
{
	return dev->bar_size;
}

uint64_t
vfe_vdev_doorbell_offset(const struct vfe_vdev *dev, uint16_t qid)
{
	return dev->notify_off + (uint64_t)qid * VFE_VDEV_NOTIFY_STRIDE;
}

/* The parts of BAR0 that differ in what an access does. */
enum part {
	PART_COMMON,
	PART_ISR,
	PART_DEVICE,
	PART_MSIX_TABLE,
	PART_PBA,
	PART_NOTIFY,
	PART_NONE, /* behind the last doorbell */
};

static enum part
part_of(const struct vfe_vdev *dev, uint64_t off)
{
	if (off < VDEV_BAR_ISR)
		return PART_COMMON;
	if (off < VDEV_BAR_DEVICE)
		return PART_ISR;
	if (off < VDEV_BAR_MSIX)
		return PART_DEVICE;
	if (off < dev->pba_off)
		return PART_MSIX_TABLE;
	if (off < dev->notify_off)
		return PART_PBA;
	if (off < dev->notify_off + (uint64_t)dev->cfg.nr_queues * VFE_VDEV_NOTIFY_STRIDE)
		return PART_NOTIFY;
	return PART_NONE;
}

static int
check_access(const struct vfe_vdev *dev, uint64_t off, uint32_t len, enum part *ret_part)
{
	if (len == 0 || !vfe_range_inside(off, len, dev->bar_size))
		return -ERANGE;
	*ret_part = part_of(dev, off);
	return part_of(dev, off + len - 1) == *ret_part ? 0 : -EINVAL;
}

static void
device_config_read(const struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len)
{
	uint32_t n;

	memset(buf, 0, len);
	if (off >= dev->cfg.config_len)
		return;
	n = dev->cfg.config_len - off;
	memcpy(buf, (const uint8_t *)dev->cfg.config + off, n < len ? n : len);
}

/* Reading clears (section 4.1.4.5). */
static void
isr_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len)
{
	memset(buf, 0, len);
	if (off != 0)
		return;
	*(uint8_t *)buf = dev->isr;
	dev->isr = 0;
}

int
vfe_vdev_bar_read(struct vfe_vdev *dev, uint64_t off, void *buf, uint32_t len)
{
	enum part part;
	int rc = check_access(dev, off, len, &part);

	if (rc < 0)
		return rc;
	switch (part) {
	case PART_COMMON:
		return vdev_common_read(dev, (uint32_t)off, buf, len);
	case PART_ISR:
		isr_read(dev, (uint32_t)off - VDEV_BAR_ISR, buf, len);
		break;
	case PART_DEVICE:
		device_config_read(dev, (uint32_t)off - VDEV_BAR_DEVICE, buf, len);
		break;
	case PART_MSIX_TABLE:
		return vdev_msix_table_read(dev, (uint32_t)off - VDEV_BAR_MSIX, buf, len);
	case PART_PBA:
		vdev_msix_pba_read(dev, (uint32_t)(off - dev->pba_off), buf, len);
		break;
	default:
		memset(buf, 0, len);
		break;
	}
	return 0;
}

/* The page says which queue; what is written says it again and is not needed. */
static void
doorbell_write(struct vfe_vdev *dev, uint64_t off, uint32_t len)
{
	uint64_t qid = off / VFE_VDEV_NOTIFY_STRIDE;

	if (off % VFE_VDEV_NOTIFY_STRIDE != 0 || (len != 2 && len != 4))
		return;
	if (qid < dev->cfg.nr_queues && dev->queues[qid].enabled && vfe_vdev_live(dev))
		dev->cfg.ops->queue_notify(dev->cfg.ctx, (uint16_t)qid);
}

int
vfe_vdev_bar_write(struct vfe_vdev *dev, uint64_t off, const void *buf, uint32_t len)
{
	enum part part;
	int rc = check_access(dev, off, len, &part);
	uint64_t at = off - VDEV_BAR_DEVICE;

	if (rc < 0)
		return rc;
	switch (part) {
	case PART_COMMON:
		return vdev_common_write(dev, (uint32_t)off, buf, len);
	case PART_MSIX_TABLE:
		return vdev_msix_table_write(dev, (uint32_t)off - VDEV_BAR_MSIX, buf, len);
	case PART_DEVICE:
		if (vfe_range_inside(at, len, dev->cfg.config_len) &&
			dev->cfg.ops->config_write != NULL)
			dev->cfg.ops->config_write(dev->cfg.ctx, (uint32_t)at, buf, len);
		break;
	case PART_NOTIFY:
		doorbell_write(dev, off - dev->notify_off, len);
		break;
	default:
		break;
	}
	return 0;
}

void
vfe_vdev_function_reset(struct vfe_vdev *dev)
{
	vdev_pci_reset(dev);
	vdev_msix_reset(dev);
	vdev_reset_begin(dev);
}

uint8_t
vfe_vdev_status(const struct vfe_vdev *dev)
{
	return dev->status;
}

uint64_t
vfe_vdev_features(const struct vfe_vdev *dev)
{
	return dev->cfg.features;
}

uint64_t
vfe_vdev_driver_features(const struct vfe_vdev *dev)
{
	return dev->driver_features;
}

uint16_t
vfe_vdev_config_vector(const struct vfe_vdev *dev)
{
	return dev->config_vector;
}

uint8_t
vfe_vdev_generation(const struct vfe_vdev *dev)
{
	return dev->generation;
}

uint16_t
vfe_vdev_nr_queues(const struct vfe_vdev *dev)
{
	return dev->cfg.nr_queues;
}

uint16_t
vfe_vdev_num_queues(const struct vfe_vdev *dev)
{
	return dev->num_queues;
}

uint16_t
vfe_vdev_nr_vectors(const struct vfe_vdev *dev)
{
	return dev->cfg.nr_vectors;
}

const struct vfe_vdev_queue *
vfe_vdev_queue(const struct vfe_vdev *dev, uint16_t qid)
{
	return &dev->queues[qid];
}

bool
vfe_vdev_live(const struct vfe_vdev *dev)
{
	const uint8_t looked_at = VFE_VIRTIO_S_DRIVER_OK | VFE_VIRTIO_S_NEEDS_RESET;

	return !dev->resetting && (dev->status & looked_at) == VFE_VIRTIO_S_DRIVER_OK;
}

bool
vfe_vdev_resetting(const struct vfe_vdev *dev)
{
	return dev->resetting;
}

void
vfe_vdev_reset_done(struct vfe_vdev *dev)
{
	uint16_t i;

	vdev_common_reset(dev);
	for (i = 0; i < dev->cfg.nr_vectors; i++)
		dev->vectors[i].pending = false;
}

void
vfe_vdev_queue_reset_done(struct vfe_vdev *dev, uint16_t qid)
{
	dev->queues[qid] = (struct vfe_vdev_queue){
		.size = dev->cfg.queue_size,
		.msix_vector = VFE_VIRTIO_MSI_NO_VECTOR,
	};
}

void
vfe_vdev_set_layout(struct vfe_vdev *dev, uint16_t num_queues, uint16_t admin_index)
{
	dev->num_queues = num_queues;
	dev->admin_index = admin_index;
}

int
vfe_vdev_queue_fd(const struct vfe_vdev *dev, uint16_t qid)
{
	return vdev_msix_fd(dev, dev->queues[qid].msix_vector);
}

void
vfe_vdev_signal_queue(struct vfe_vdev *dev, uint16_t qid)
{
	dev->isr |= VFE_VIRTIO_ISR_QUEUE;
	vdev_msix_signal(dev, dev->queues[qid].msix_vector);
}

void
vfe_vdev_config_changed(struct vfe_vdev *dev)
{
	dev->generation++;
	if ((dev->status & VFE_VIRTIO_S_DRIVER_OK) == 0 || dev->resetting)
		return;
	dev->isr |= VFE_VIRTIO_ISR_CONFIG;
	vdev_msix_signal(dev, dev->config_vector);
}

void
vfe_vdev_needs_reset(struct vfe_vdev *dev)
{
	if ((dev->status & VFE_VIRTIO_S_DRIVER_OK) == 0 || dev->resetting)
		return;
	dev->status |= VFE_VIRTIO_S_NEEDS_RESET;
	vfe_vdev_config_changed(dev);
}

void
vfe_vdev_set_quiet(struct vfe_vdev *dev, bool quiet)
{
	dev->quiet = quiet;
	if (!quiet)
		vdev_msix_unquiet(dev);
}

static int
check_restored_queue(const struct vfe_vdev *dev, uint16_t qid, const struct vfe_vdev_queue *q,
	struct vfe_error *err)
{
	if (!vfe_is_pow2(q->size) || q->size > dev->cfg.queue_size)
		return vfe_error_set(err, -EINVAL,
			"queue %u: size %u, expected a power of two up to %u", qid, q->size,
			dev->cfg.queue_size);
	if (q->msix_vector >= dev->cfg.nr_vectors && q->msix_vector != VFE_VIRTIO_MSI_NO_VECTOR)
		return vfe_error_set(err, -EINVAL, "queue %u: MSI-X vector %u of %u", qid,
			q->msix_vector, dev->cfg.nr_vectors);
	return 0;
}

static int
check_restored(
	const struct vfe_vdev *dev, const struct vfe_vdev_state *state, struct vfe_error *err)
{
	uint64_t extra = state->driver_features & ~dev->cfg.features;
	uint16_t i;
	int rc;

	if (extra != 0)
		return vfe_error_set(err, -EINVAL, "driver features 0x%llx are not offered",
			(unsigned long long)extra);
	if ((state->status & VFE_VIRTIO_S_DRIVER_OK) != 0 &&
		((state->status & VFE_VIRTIO_S_FEATURES_OK) == 0 ||
			(state->driver_features & VFE_BIT(VFE_VIRTIO_F_VERSION_1)) == 0))
		return vfe_error_set(err, -EINVAL,
			"device status 0x%x without FEATURES_OK and VERSION_1", state->status);
	if (state->config_vector >= dev->cfg.nr_vectors &&
		state->config_vector != VFE_VIRTIO_MSI_NO_VECTOR)
		return vfe_error_set(err, -EINVAL, "configuration MSI-X vector %u of %u",
			state->config_vector, dev->cfg.nr_vectors);
	if (state->nr_queues > dev->cfg.nr_queues)
		return vfe_error_set(
			err, -EINVAL, "%u queues of %u", state->nr_queues, dev->cfg.nr_queues);
	for (i = 0; i < state->nr_queues; i++) {
		rc = check_restored_queue(dev, i, &state->queues[i], err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int
vfe_vdev_restore(struct vfe_vdev *dev, const struct vfe_vdev_state *state, struct vfe_error *err)
{
	int rc = check_restored(dev, state, err);
	uint16_t i;

	if (rc < 0)
		return rc;
	dev->driver_features = state->driver_features;
	dev->status = state->status & VDEV_STATUS_DRIVER_BITS;
	dev->config_vector = state->config_vector;
	for (i = 0; i < state->nr_queues; i++) {
		dev->queues[i] = state->queues[i];
		dev->queues[i].resetting = false;
	}
	for (; i < dev->cfg.nr_queues; i++)
		dev->queues[i].enabled = false;
	return 0;
}
