/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a virtio function in this process that is honest by default and lies on request.
 */

#ifndef FAKE_VIRTIO_H
#define FAKE_VIRTIO_H

#include "fake_pci.h"
#include "vfe_wire_virtio.h"

enum {
	FV_COMMON = 0x0000, /* structures in BAR 4 */
	FV_ISR = 0x1000,
	FV_DEVICE = 0x2000,
	FV_NOTIFY = 0x3000,
	FV_NOTIFY_SIZE = 0x8000,
	FV_MULTIPLIER = 0x800,
	FV_BAR = 4,
	FV_QUEUES = 16,
	FV_QUEUE_SIZE = 64,
	FV_DEVICE_SIZE = 32,
	FV_CAP_COMMON = 0x40, /* capabilities in configuration space, in this order */
	FV_CAP_NOTIFY = 0x54,
	FV_CAP_ISR = 0x68,
	FV_CAP_DEVICE = 0x7c,
};

struct fake_queue {
	uint16_t max_size;
	uint16_t size;
	uint16_t vector;
	uint16_t enable;
	uint16_t notify_off;
	uint16_t reset;
	uint64_t desc;
	uint64_t driver;
	uint64_t device;
};

struct fake_virtio {
	struct fake_pci f; /* f.ctx is this struct */
	struct vfe_wire_virtio_common regs;
	uint64_t offered;
	uint64_t accepted;
	struct fake_queue q[FV_QUEUES];
	uint8_t device_cfg[FV_DEVICE_SIZE];
	uint8_t read_widths[FV_DEVICE_SIZE]; /* of the last read that began at each byte */
	uint8_t isr;
	unsigned int kicks[FV_QUEUES];
	unsigned int bad_widths; /* accesses that were not of the field's width */
	unsigned int enable_writes;

	/* lies and troubles */
	unsigned int slow_reset;       /* so many reads of the status until it is 0 */
	unsigned int slow_queue_reset; /* the same for queue_reset */
	unsigned int unsettled;        /* so many reads of the generation give a new one */
	bool refuse_features;
	bool refuse_vectors;
	bool refuse_enable;
	bool stay_enabled; /* after a queue reset */
	int doorbell_result;
};

/* Capabilities, registers, and FV_QUEUES queues of FV_QUEUE_SIZE entries. */
void fake_virtio_init(struct fake_virtio *v, uint16_t pci_device_id, uint64_t offered);
void fake_virtio_fini(struct fake_virtio *v);

/* The capability at @pos, to be spoiled. */
struct vfe_wire_virtio_notify_cap *fake_virtio_cap(struct fake_virtio *v, uint8_t pos);

#endif /* FAKE_VIRTIO_H */
