/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * MSI-X (PCI 3.0 section 6.8): the table in the BAR, masks, pending bits, and the eventfds that
 * deliver.
 */

#include "vdev_priv.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ENTRY_MASKED = 1 }; /* bit 0 of vector control */

static bool
function_masked(const struct vfe_vdev *dev)
{
	return (vdev_space_get16(dev, dev->msix_cap + offsetof(struct vfe_wire_msix_cap, ctrl)) &
		       VFE_PCI_MSIX_CTRL_MASK) != 0;
}

static bool
masked(const struct vfe_vdev *dev, const struct vdev_vector *v)
{
	return (v->mask_written && (v->entry[3] & ENTRY_MASKED) != 0) || function_masked(dev);
}

static void
fire(const struct vfe_vdev *dev, struct vdev_vector *v)
{
	v->pending = false;
	/* a full counter means that the peer is awake already; other errors are its own */
	if (v->fd >= 0)
		(void)vfe_signal(dev->cfg.signaller, v->fd);
}

/* Some queue or the configuration uses the vector, and the driver is there to be told. */
static bool
in_use(const struct vfe_vdev *dev, uint16_t vector)
{
	uint16_t i;

	if ((dev->status & VFE_VIRTIO_S_DRIVER_OK) == 0)
		return false;
	for (i = 0; i < dev->cfg.nr_queues; i++) {
		if (dev->queues[i].enabled && dev->queues[i].msix_vector == vector)
			return true;
	}
	return false;
}

/* Delivery became possible or impossible: tell the queues of the vector, and catch up. */
static void
vector_changed(struct vfe_vdev *dev, uint16_t vector)
{
	struct vdev_vector *v = &dev->vectors[vector];
	uint16_t i;

	for (i = 0; i < dev->cfg.nr_queues; i++) {
		if (dev->queues[i].enabled && dev->queues[i].msix_vector == vector)
			dev->cfg.ops->queue_vector(dev->cfg.ctx, i);
	}
	if (v->fd < 0 || masked(dev, v) || dev->quiet)
		return;
	if (v->pending || in_use(dev, vector))
		fire(dev, v);
}

int
vdev_msix_init(struct vfe_vdev *dev)
{
	uint16_t i;

	dev->vectors = calloc(dev->cfg.nr_vectors, sizeof(*dev->vectors));
	if (dev->vectors == NULL)
		return -ENOMEM;
	for (i = 0; i < dev->cfg.nr_vectors; i++)
		dev->vectors[i].fd = -1;
	vdev_msix_reset(dev);
	return 0;
}

void
vdev_msix_fini(struct vfe_vdev *dev)
{
	uint16_t i;

	for (i = 0; dev->vectors != NULL && i < dev->cfg.nr_vectors; i++)
		vfe_close(&dev->vectors[i].fd);
	free(dev->vectors);
	dev->vectors = NULL;
}

void
vdev_msix_reset(struct vfe_vdev *dev)
{
	uint16_t i;

	for (i = 0; i < dev->cfg.nr_vectors; i++) {
		struct vdev_vector *v = &dev->vectors[i];

		memset(v->entry, 0, sizeof(v->entry));
		v->entry[3] = ENTRY_MASKED;
		v->mask_written = false;
		v->pending = false;
	}
}

/* Whole dwords, as many as one likes (PCI 3.0 section 6.8.2.3 promises dwords and qwords). */
static bool
table_access_ok(uint32_t off, uint32_t len)
{
	return vfe_is_aligned(off, 4) && vfe_is_aligned(len, 4);
}

int
vdev_msix_table_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len)
{
	uint32_t i, word, value;

	if (!table_access_ok(off, len))
		return -EINVAL;
	for (i = 0; i < len; i += 4) {
		word = (off + i) / 4;
		value = word / 4 < dev->cfg.nr_vectors ? dev->vectors[word / 4].entry[word % 4] : 0;
		value = htole32(value);
		memcpy((uint8_t *)buf + i, &value, sizeof(value));
	}
	return 0;
}

static void
table_word_write(struct vfe_vdev *dev, uint32_t word, uint32_t value)
{
	struct vdev_vector *v;
	bool before;

	if (word / 4 >= dev->cfg.nr_vectors)
		return;
	v = &dev->vectors[word / 4];
	if (word % 4 != 3) {
		v->entry[word % 4] = value;
		return;
	}
	before = masked(dev, v);
	v->entry[3] = value & ENTRY_MASKED;
	v->mask_written = true;
	if (masked(dev, v) != before)
		vector_changed(dev, (uint16_t)(word / 4));
}

int
vdev_msix_table_write(struct vfe_vdev *dev, uint32_t off, const void *buf, uint32_t len)
{
	uint32_t i, value;

	if (!table_access_ok(off, len))
		return -EINVAL;
	for (i = 0; i < len; i += 4) {
		memcpy(&value, (const uint8_t *)buf + i, sizeof(value));
		table_word_write(dev, (off + i) / 4, le32toh(value));
	}
	return 0;
}

/* Pending bits of interrupts that the control thread wanted to send; @off is within the array. */
void
vdev_msix_pba_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len)
{
	uint8_t *out = buf;
	uint32_t i;

	memset(out, 0, len);
	for (i = 0; i < len * 8; i++) {
		uint32_t vector = off * 8 + i;

		if (vector < dev->cfg.nr_vectors && dev->vectors[vector].pending)
			out[i / 8] |= (uint8_t)(1u << (i % 8));
	}
}

void
vdev_msix_signal(struct vfe_vdev *dev, uint16_t vector)
{
	struct vdev_vector *v;

	if (vector >= dev->cfg.nr_vectors)
		return;
	v = &dev->vectors[vector];
	if (dev->quiet || v->fd < 0 || masked(dev, v))
		v->pending = true;
	else
		fire(dev, v);
}

void
vdev_msix_function_mask(struct vfe_vdev *dev, uint16_t old_ctrl)
{
	uint16_t i;

	if (((old_ctrl & VFE_PCI_MSIX_CTRL_MASK) != 0) == function_masked(dev))
		return;
	for (i = 0; i < dev->cfg.nr_vectors; i++)
		vector_changed(dev, i);
}

void
vdev_msix_unquiet(struct vfe_vdev *dev)
{
	uint16_t i;

	for (i = 0; i < dev->cfg.nr_vectors; i++) {
		struct vdev_vector *v = &dev->vectors[i];

		if (v->pending && v->fd >= 0 && !masked(dev, v))
			fire(dev, v);
	}
}

int
vdev_msix_fd(const struct vfe_vdev *dev, uint16_t vector)
{
	const struct vdev_vector *v;

	if (vector >= dev->cfg.nr_vectors || dev->quiet)
		return -1;
	v = &dev->vectors[vector];
	return masked(dev, v) ? -1 : v->fd;
}

int
vfe_vdev_irq_set(struct vfe_vdev *dev, uint32_t start, uint32_t count, int *fds)
{
	uint32_t i;

	if (!vfe_range_inside(start, count, dev->cfg.nr_vectors))
		return -ERANGE;
	for (i = 0; i < count; i++) {
		struct vdev_vector *v = &dev->vectors[start + i];
		int old = v->fd;

		v->fd = fds != NULL ? vfe_fd_take(&fds[i]) : -1;
		if (v->fd < 0 && old < 0)
			continue;
		/* a peer that lets its counter run full must not make us wait */
		if (v->fd >= 0 && vfe_fd_set_nonblock(v->fd) < 0)
			vfe_close(&v->fd);
		/* the queue lets go of the old eventfd before it is closed */
		vector_changed(dev, (uint16_t)(start + i));
		vfe_close(&old);
	}
	return 0;
}
