/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Register access shared by the files of drivers/common/virtio.
 */

#ifndef VIRTIO_PRIV_H
#define VIRTIO_PRIV_H

#include <stddef.h>
#include <stdint.h>

#include "vfe_virtio.h"

/* Bytes that a common configuration must have to hold @field (virtio 1.0 ended at 56). */
#define COMMON_END(field)                                 \
	(offsetof(struct vfe_wire_virtio_common, field) + \
		sizeof(((struct vfe_wire_virtio_common *)0)->field))

/*
 * Fields of the common configuration at their natural width; 64-bit fields as two halves, as
 * section 4.1.3.1 demands. @field is a member of struct vfe_wire_virtio_common.
 */
#define common_read(vdev, field, ret, err)                                         \
	virtio_common_read((vdev), offsetof(struct vfe_wire_virtio_common, field), \
		sizeof(((struct vfe_wire_virtio_common *)0)->field), (ret), #field, (err))
#define common_read16(vdev, field, ret, err) \
	virtio_common_read16(                \
		(vdev), offsetof(struct vfe_wire_virtio_common, field), (ret), #field, (err))
#define common_write(vdev, field, value, err)                                       \
	virtio_common_write((vdev), offsetof(struct vfe_wire_virtio_common, field), \
		sizeof(((struct vfe_wire_virtio_common *)0)->field), (value), #field, (err))

int virtio_common_read(struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, uint64_t *ret,
	const char *field, struct vfe_error *err);
int virtio_common_read16(struct vfe_virtio_dev *vdev, uint32_t off, uint16_t *ret,
	const char *field, struct vfe_error *err);
int virtio_common_write(struct vfe_virtio_dev *vdev, uint32_t off, uint32_t len, uint64_t value,
	const char *field, struct vfe_error *err);

/* Find and check the capabilities; fills the regions and the notify multiplier. */
int virtio_caps_read(struct vfe_virtio_dev *vdev, struct vfe_error *err);

/*
 * Pause before register poll number @n + 1: growing, at most 10 ms, not past @deadline; ends at
 * once when the device is lost.
 */
void
virtio_poll_pause(const struct vfe_virtio_dev *vdev, unsigned int n, struct vfe_deadline deadline);

#endif /* VIRTIO_PRIV_H */
