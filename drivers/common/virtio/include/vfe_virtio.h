/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Driver side of a modern virtio PCI function (virtio 1.4 section 4.1): capabilities, registers,
 * reset with a deadline, queues, doorbells, MSI-X. No knowledge of device types or vhost.
 *
 * The device is not trusted: each capability field and each value it returns is checked, and a
 * violation is an error that names the field and the value. One thread at a time per device, but
 * for the arena and doorbells.
 */

#ifndef VFE_VIRTIO_H
#define VFE_VIRTIO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_pci.h"
#include "vfe_wire_virtio.h"

enum { VFE_VIRTIO_MAX_QUEUES = 1024 };

struct vfe_virtio_region {
	unsigned int bar;
	uint64_t offset;
	uint64_t length;
};

struct vfe_virtio_dev {
	struct vfe_pci_dev *pci; /* borrowed */
	uint16_t pci_device_id;  /* 0x1041 net, 0x1042 block ... */
	struct vfe_virtio_region common;
	struct vfe_virtio_region notify;
	struct vfe_virtio_region isr;
	struct vfe_virtio_region device;
	uint32_t notify_multiplier; /* bytes */
	uint64_t device_features;
	uint64_t driver_features;
	uint16_t num_queues;
	uint16_t num_vectors; /* MSI-X */
};

/*
 * Walk the capabilities, check them, read features, queue count and vector count. Does not touch
 * the device's state. Returns 0, -ENODEV (not a modern virtio function), -EPROTO (bad capability).
 */
int vfe_virtio_init(struct vfe_virtio_dev *vdev, struct vfe_pci_dev *pci, struct vfe_error *err);

/* --- status and features --- */

int vfe_virtio_status_get(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err);

/* Set the bits of @bits in addition to those that are set. */
int vfe_virtio_status_add(struct vfe_virtio_dev *vdev, uint8_t bits, struct vfe_error *err);

/*
 * Write 0 and wait until the device reads 0 (section 2.4), polling with growing pauses of at most
 * 10 ms. -ETIMEDOUT after @deadline. DPUs take seconds. *@cancel (may be NULL) ends the wait with
 * -ECANCELED when it becomes true.
 */
int vfe_virtio_reset(struct vfe_virtio_dev *vdev, struct vfe_deadline deadline,
	const atomic_bool *cancel, struct vfe_error *err);

/*
 * Negotiate @wanted (must be offered): driver features, FEATURES_OK, read back (section 3.1.1).
 * -ENOTSUP when the device refuses.
 */
int vfe_virtio_features_set(struct vfe_virtio_dev *vdev, uint64_t wanted, struct vfe_error *err);

/* --- device configuration --- */

/*
 * Read [@off, @off + @len) consistently by config_generation (section 4.1.4.3.1), with a bounded
 * number of tries (-EAGAIN when the device never settles). -ERANGE outside the structure.
 */
int vfe_virtio_config_read(
	struct vfe_virtio_dev *vdev, uint32_t off, void *buf, uint32_t len, struct vfe_error *err);
/*
 * The same for the first @nr fields of the structure, each by one access of its own width, which
 * is what section 4.1.3.1 asks for. @widths are 1, 2 or 4 bytes (a 64-bit field is two of 4); the
 * fields follow each other without gaps, naturally aligned.
 */
int vfe_virtio_config_read_fields(struct vfe_virtio_dev *vdev, const uint8_t *widths,
	unsigned int nr, void *buf, struct vfe_error *err);
int vfe_virtio_config_write(struct vfe_virtio_dev *vdev, uint32_t off, const void *buf,
	uint32_t len, struct vfe_error *err);
int vfe_virtio_generation_get(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err);

/* ISR status; reading clears it (section 4.1.4.5). */
int vfe_virtio_isr_read(struct vfe_virtio_dev *vdev, uint8_t *ret, struct vfe_error *err);

/* --- queues --- */

/* What the device says of queue @qid. */
struct vfe_virtio_queue_info {
	uint16_t size; /* maximum; 0 = queue not there */
	uint16_t msix_vector;
	uint16_t enable;
	uint16_t notify_off;
	uint16_t notify_data;
};
int vfe_virtio_queue_info(struct vfe_virtio_dev *vdev, uint16_t qid,
	struct vfe_virtio_queue_info *ret, struct vfe_error *err);

struct vfe_virtio_queue_cfg {
	uint16_t size;
	uint16_t msix_vector; /* VFE_VIRTIO_MSI_NO_VECTOR = none */
	uint64_t desc;        /* iova */
	uint64_t driver;
	uint64_t device;
};
/* Program and enable @qid; the vector is read back (section 4.1.5.1.2). */
int vfe_virtio_queue_enable(struct vfe_virtio_dev *vdev, uint16_t qid,
	const struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err);

/*
 * Queue reset (sections 2.6.1 and 4.1.4.3), polling as vfe_virtio_reset() does; the queue can then
 * be enabled anew. -ENOTSUP without RING_RESET negotiated, -ETIMEDOUT after @deadline, -EIO when
 * the queue is still enabled after it.
 */
int vfe_virtio_queue_reset(struct vfe_virtio_dev *vdev, uint16_t qid, struct vfe_deadline deadline,
	struct vfe_error *err);

/* Vector of configuration changes; read back. */
int
vfe_virtio_config_vector_set(struct vfe_virtio_dev *vdev, uint16_t vector, struct vfe_error *err);

/*
 * The doorbell of @qid, checked to lie in the notify structure (section 4.1.4.4). @notify_off as
 * from queue_info.
 */
int vfe_virtio_doorbell_get(struct vfe_virtio_dev *vdev, uint16_t qid, uint16_t notify_off,
	struct vfe_pci_doorbell *ret, struct vfe_error *err);

/* --- driver's own DMA memory --- */

/*
 * An arena of shared memory that one device may reach: admin rings, state buffers. One memfd,
 * mapped into the device's private domain at iova = offset + @iova_base. A simple allocator of
 * aligned blocks; thread safe.
 *
 * @huge is for a device that is physical (vfe_pci_is_physical()): @size is rounded up to huge pages
 * of 2 MiB, and no block of 2 MiB or less crosses one, so that it has one address on the bus.
 * -ENOMEM when there are no huge pages.
 */
struct vfe_dma_arena;
int vfe_dma_arena_create(struct vfe_pci_domain *domain, uint64_t iova_base, uint64_t size,
	bool huge, struct vfe_dma_arena **ret, struct vfe_error *err);
void vfe_dma_arena_destroy(struct vfe_dma_arena *arena); /* unmaps */

/* Zeroed block; @align a power of two <= 4096. NULL when full. *@ret_iova is its address. */
void *
vfe_dma_arena_alloc(struct vfe_dma_arena *arena, uint64_t size, uint64_t align, uint64_t *ret_iova);
void vfe_dma_arena_free(struct vfe_dma_arena *arena, void *block);

#endif /* VFE_VIRTIO_H */
