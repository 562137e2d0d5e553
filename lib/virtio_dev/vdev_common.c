/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Common configuration (virtio 1.4 section 4.1.4.3): one row per field.
 */

#include "vdev_priv.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static struct vfe_vdev_queue *
selected_queue(struct vfe_vdev *dev)
{
	return dev->queue_select < dev->cfg.nr_queues ? &dev->queues[dev->queue_select] : NULL;
}

/* A queue whose ring registers the driver may change: it exists and is not in use. */
static struct vfe_vdev_queue *
idle_queue(struct vfe_vdev *dev)
{
	struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL && !q->enabled && !q->resetting && !dev->resetting ? q : NULL;
}

static uint64_t
feature_word(uint64_t features, uint32_t select)
{
	return select < 2 ? features >> (32 * select) & UINT32_MAX : 0;
}

static uint64_t
get_device_feature_select(struct vfe_vdev *dev)
{
	return dev->device_feature_select;
}

static void
set_device_feature_select(struct vfe_vdev *dev, uint64_t v)
{
	dev->device_feature_select = (uint32_t)v;
}

static uint64_t
get_device_feature(struct vfe_vdev *dev)
{
	return feature_word(dev->cfg.features, dev->device_feature_select);
}

static uint64_t
get_driver_feature_select(struct vfe_vdev *dev)
{
	return dev->driver_feature_select;
}

static void
set_driver_feature_select(struct vfe_vdev *dev, uint64_t v)
{
	dev->driver_feature_select = (uint32_t)v;
}

static uint64_t
get_driver_feature(struct vfe_vdev *dev)
{
	return feature_word(dev->driver_features, dev->driver_feature_select);
}

/* Features are settled by FEATURES_OK (section 3.1.1): later writes change nothing. */
static void
set_driver_feature(struct vfe_vdev *dev, uint64_t v)
{
	uint32_t shift = 32 * dev->driver_feature_select;

	if (dev->driver_feature_select > 1 || dev->resetting ||
		(dev->status & VFE_VIRTIO_S_FEATURES_OK) != 0)
		return;
	dev->driver_features &= ~((uint64_t)UINT32_MAX << shift);
	dev->driver_features |= v << shift;
}

/* A vector that is not there reads back as NO_VECTOR (section 4.1.5.1.2). */
static uint16_t
checked_vector(const struct vfe_vdev *dev, uint64_t v)
{
	return v < dev->cfg.nr_vectors ? (uint16_t)v : VFE_VIRTIO_MSI_NO_VECTOR;
}

static uint64_t
get_config_vector(struct vfe_vdev *dev)
{
	return dev->config_vector;
}

static void
set_config_vector(struct vfe_vdev *dev, uint64_t v)
{
	dev->config_vector = checked_vector(dev, v);
}

static uint64_t
get_num_queues(struct vfe_vdev *dev)
{
	return dev->num_queues;
}

static uint64_t
get_status(struct vfe_vdev *dev)
{
	return dev->status;
}

/* Does the driver get FEATURES_OK (section 3.1.1 step 5)? */
static bool
features_acceptable(struct vfe_vdev *dev)
{
	if ((dev->driver_features & ~dev->cfg.features) != 0)
		return false;
	if ((dev->driver_features & VFE_BIT(VFE_VIRTIO_F_VERSION_1)) == 0)
		return false;
	return dev->cfg.ops->features_ok(dev->cfg.ctx, dev->driver_features) == 0;
}

static void
set_status(struct vfe_vdev *dev, uint64_t v)
{
	uint8_t want = (uint8_t)v & VDEV_STATUS_DRIVER_BITS;
	uint8_t new_bits = want & (uint8_t)~dev->status;

	if (v == 0) {
		vdev_reset_begin(dev);
		return;
	}
	if (dev->resetting)
		return;
	if ((new_bits & VFE_VIRTIO_S_FEATURES_OK) != 0 && !features_acceptable(dev))
		new_bits &= (uint8_t)~VFE_VIRTIO_S_FEATURES_OK;
	if (((dev->status | new_bits) & VFE_VIRTIO_S_FEATURES_OK) == 0)
		new_bits &= (uint8_t)~VFE_VIRTIO_S_DRIVER_OK;

	/* bits are only ever added (section 2.1.1): one that is missing in @v stays set */
	dev->status |= new_bits;
	if ((new_bits & VFE_VIRTIO_S_DRIVER_OK) != 0)
		dev->cfg.ops->driver_ok(dev->cfg.ctx);
}

static uint64_t
get_generation(struct vfe_vdev *dev)
{
	return dev->generation;
}

static uint64_t
get_queue_select(struct vfe_vdev *dev)
{
	return dev->queue_select;
}

static void
set_queue_select(struct vfe_vdev *dev, uint64_t v)
{
	dev->queue_select = (uint16_t)v;
}

static uint64_t
get_queue_size(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL ? q->size : 0;
}

static void
set_queue_size(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = idle_queue(dev);

	if (q != NULL && vfe_is_pow2(v) && v <= dev->cfg.queue_size)
		q->size = (uint16_t)v;
}

static uint64_t
get_queue_vector(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL ? q->msix_vector : VFE_VIRTIO_MSI_NO_VECTOR;
}

static void
set_queue_vector(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = selected_queue(dev);

	if (q == NULL || dev->resetting)
		return;
	q->msix_vector = checked_vector(dev, v);
	if (q->enabled)
		dev->cfg.ops->queue_vector(dev->cfg.ctx, dev->queue_select);
}

static uint64_t
get_queue_enable(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL && q->enabled;
}

static void
set_queue_enable(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = idle_queue(dev);

	if (q == NULL || v != 1 || (dev->status & VFE_VIRTIO_S_FEATURES_OK) == 0)
		return;
	q->enabled = true;
	dev->cfg.ops->queue_enable(dev->cfg.ctx, dev->queue_select);
}

static uint64_t
get_queue_notify_off(struct vfe_vdev *dev)
{
	return dev->queue_select < dev->cfg.nr_queues ? dev->queue_select : 0;
}

static uint64_t
get_queue_desc(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL ? q->desc : 0;
}

static void
set_queue_desc(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = idle_queue(dev);

	if (q != NULL)
		q->desc = v;
}

static uint64_t
get_queue_driver(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL ? q->driver : 0;
}

static void
set_queue_driver(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = idle_queue(dev);

	if (q != NULL)
		q->driver = v;
}

static uint64_t
get_queue_device(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL ? q->device : 0;
}

static void
set_queue_device(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = idle_queue(dev);

	if (q != NULL)
		q->device = v;
}

static uint64_t
get_queue_notif_data(struct vfe_vdev *dev)
{
	return get_queue_notify_off(dev);
}

static uint64_t
get_queue_reset(struct vfe_vdev *dev)
{
	const struct vfe_vdev_queue *q = selected_queue(dev);

	return q != NULL && q->resetting;
}

/* Section 2.6.1: only with RING_RESET negotiated, and of a queue that is enabled. */
static void
set_queue_reset(struct vfe_vdev *dev, uint64_t v)
{
	struct vfe_vdev_queue *q = selected_queue(dev);

	if (q == NULL || v != 1 || !q->enabled || q->resetting || dev->resetting ||
		(dev->driver_features & VFE_BIT(VFE_VIRTIO_F_RING_RESET)) == 0)
		return;
	q->resetting = true;
	dev->cfg.ops->queue_reset(dev->cfg.ctx, dev->queue_select);
}

static uint64_t
get_admin_index(struct vfe_vdev *dev)
{
	return dev->admin_index == VFE_VDEV_NO_ADMIN_QUEUE ? 0 : dev->admin_index;
}

static uint64_t
get_admin_num(struct vfe_vdev *dev)
{
	return dev->admin_index != VFE_VDEV_NO_ADMIN_QUEUE;
}

struct common_field {
	uint32_t off;
	uint32_t size;
	uint64_t (*get)(struct vfe_vdev *dev);
	void (*set)(struct vfe_vdev *dev, uint64_t v); /* NULL = read-only */
};

#define FIELD(member, getter, setter)                                                        \
	{                                                                                    \
		offsetof(struct vfe_wire_virtio_common, member),                             \
			sizeof(((struct vfe_wire_virtio_common *)0)->member), getter, setter \
	}

static const struct common_field fields[] = {
	FIELD(device_feature_select, get_device_feature_select, set_device_feature_select),
	FIELD(device_feature, get_device_feature, NULL),
	FIELD(driver_feature_select, get_driver_feature_select, set_driver_feature_select),
	FIELD(driver_feature, get_driver_feature, set_driver_feature),
	FIELD(config_msix_vector, get_config_vector, set_config_vector),
	FIELD(num_queues, get_num_queues, NULL),
	FIELD(device_status, get_status, set_status),
	FIELD(config_generation, get_generation, NULL),
	FIELD(queue_select, get_queue_select, set_queue_select),
	FIELD(queue_size, get_queue_size, set_queue_size),
	FIELD(queue_msix_vector, get_queue_vector, set_queue_vector),
	FIELD(queue_enable, get_queue_enable, set_queue_enable),
	FIELD(queue_notify_off, get_queue_notify_off, NULL),
	FIELD(queue_desc, get_queue_desc, set_queue_desc),
	FIELD(queue_driver, get_queue_driver, set_queue_driver),
	FIELD(queue_device, get_queue_device, set_queue_device),
	FIELD(queue_notif_config_data, get_queue_notif_data, NULL),
	FIELD(queue_reset, get_queue_reset, set_queue_reset),
	FIELD(admin_queue_index, get_admin_index, NULL),
	FIELD(admin_queue_num, get_admin_num, NULL),
};

/* The field that an access means: one of its own width, or a half of a 64-bit one. */
static const struct common_field *
find_field(uint32_t off, uint32_t len)
{
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(fields); i++) {
		const struct common_field *f = &fields[i];

		if (off == f->off && len == f->size)
			return f;
		if (f->size == 8 && len == 4 && (off == f->off || off == f->off + 4))
			return f;
	}
	return NULL;
}

int
vdev_common_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len)
{
	const struct common_field *f = find_field(off, len);
	uint64_t v;

	if (off >= sizeof(struct vfe_wire_virtio_common)) {
		memset(buf, 0, len);
		return 0;
	}
	if (f == NULL)
		return -EINVAL;
	v = htole64(f->get(dev) >> (8 * (off - f->off)));
	memcpy(buf, &v, len);
	return 0;
}

int
vdev_common_write(struct vfe_vdev *dev, uint32_t off, const void *buf, uint32_t len)
{
	const struct common_field *f = find_field(off, len);
	uint32_t shift;
	uint64_t v = 0;

	if (off >= sizeof(struct vfe_wire_virtio_common))
		return 0;
	if (f == NULL)
		return -EINVAL;
	if (f->set == NULL)
		return 0;
	memcpy(&v, buf, len);
	v = le64toh(v);
	if (len < f->size) {
		shift = 8 * (off - f->off);
		v = (f->get(dev) & ~((uint64_t)UINT32_MAX << shift)) | v << shift;
	}
	f->set(dev, v);
	return 0;
}

void
vdev_common_reset(struct vfe_vdev *dev)
{
	uint16_t i;

	dev->device_feature_select = 0;
	dev->driver_feature_select = 0;
	dev->driver_features = 0;
	dev->config_vector = VFE_VIRTIO_MSI_NO_VECTOR;
	dev->queue_select = 0;
	dev->num_queues = dev->cfg.num_queues;
	dev->admin_index = dev->cfg.admin_index;
	dev->status = 0;
	dev->isr = 0;
	dev->resetting = false;
	for (i = 0; i < dev->cfg.nr_queues; i++)
		dev->queues[i] = (struct vfe_vdev_queue){
			.size = dev->cfg.queue_size,
			.msix_vector = VFE_VIRTIO_MSI_NO_VECTOR,
		};
}

void
vdev_reset_begin(struct vfe_vdev *dev)
{
	if (dev->resetting)
		return;
	dev->resetting = true;
	dev->cfg.ops->reset(dev->cfg.ctx);
}
