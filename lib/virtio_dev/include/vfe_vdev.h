/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Device side of one virtio PCI function (virtio 1.4 section 4.1), whatever its type: configuration
 * space, BAR, registers, feature negotiation, status, queue registers, interrupts.
 *
 * The library keeps registers and checks what the driver writes to them; it moves no data and owns
 * no queue memory. What a register write means is told to the owner by ops. The transport
 *(vfio-user) is the owner's too: it forwards region accesses and eventfds.
 *
 * BAR0 is memory, 64 bits wide. Each part begins on a page of its own:
 *	0x0000 common configuration		0x3000 MSI-X table
 *	0x1000 ISR status			then the pending bits
 *	0x2000 device configuration		then the doorbells, one page per queue
 *
 * One thread per function: all calls, and thereby all ops.
 */

#ifndef VFE_VDEV_H
#define VFE_VDEV_H

#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_signal.h"
#include "vfe_wire_pci.h"
#include "vfe_wire_virtio.h"

enum {
	VFE_VDEV_MAX_QUEUES = 1024,
	VFE_VDEV_MAX_VECTORS = 2048,
	VFE_VDEV_MAX_CONFIG = 4096,    /* bytes of device configuration */
	VFE_VDEV_NOTIFY_STRIDE = 4096, /* bytes from one doorbell to the next */
	VFE_VDEV_NO_ADMIN_QUEUE = 0xffff,
};

struct vfe_vdev;

/* Registers of one queue. */
struct vfe_vdev_queue {
	uint16_t size; /* entries, power of two */
	uint16_t msix_vector;
	bool enabled;
	bool resetting; /* queue_reset was written, the owner is not done yet */
	uint64_t desc;  /* iova */
	uint64_t driver;
	uint64_t device;
};

/*
 * What the driver did. Checks against the registers have been made; ops may call back into the
 * library. @ctx is the owner's.
 */
struct vfe_vdev_ops {
	/*
	 * The driver wants FEATURES_OK with @features (a subset of the offered ones, VERSION_1
	 * among them). 0 accepts; anything else refuses.
	 */
	int (*features_ok)(void *ctx, uint64_t features);

	/* DRIVER_OK was set: start all enabled queues. */
	void (*driver_ok)(void *ctx);

	/*
	 * Status 0 was written or the function was reset. The owner stops all queues and calls
	 * vfe_vdev_reset_done(), now or later; the driver sees the old status until then.
	 */
	void (*reset)(void *ctx);

	/* @qid was enabled; to be started at once when DRIVER_OK is set already. */
	void (*queue_enable)(void *ctx, uint16_t qid);

	/* Stop @qid and call vfe_vdev_queue_reset_done(), now or later (section 2.6.1). */
	void (*queue_reset)(void *ctx, uint16_t qid);

	/* The doorbell of @qid was written by a message; @qid is enabled and DRIVER_OK set. */
	void (*queue_notify)(void *ctx, uint16_t qid);

	/* The eventfd of an enabled queue changed: see vfe_vdev_queue_fd(). */
	void (*queue_vector)(void *ctx, uint16_t qid);

	/* Device configuration was written; NULL = read-only. Inside config_len. */
	void (*config_write)(void *ctx, uint32_t off, const void *buf, uint32_t len);
};

/* SR-IOV of a PF; total_vfs 0 = the function has no such capability. */
struct vfe_vdev_sriov {
	uint16_t total_vfs; /* all of them enabled from the start */
	uint16_t first_vf_offset;
	uint16_t vf_stride;
	uint64_t vf_bar_size; /* of BAR0 of each VF, see vfe_vdev_bar_size_for() */
};

struct vfe_vdev_cfg {
	uint16_t pci_device_id; /* VFE_PCI_DEVICE_VIRTIO_* */
	uint32_t pci_class;     /* 24 bits, e.g. 0x020000 for Ethernet */
	struct vfe_vdev_sriov sriov;

	uint64_t features;    /* offered */
	uint16_t nr_queues;   /* slots, admin queue included */
	uint16_t num_queues;  /* as shown to the driver: without admin queue */
	uint16_t admin_index; /* shown to the driver, or VFE_VDEV_NO_ADMIN_QUEUE */
	uint16_t queue_size;  /* maximum of each queue, power of two */
	uint16_t nr_vectors;  /* MSI-X, 1..VFE_VDEV_MAX_VECTORS */

	const void *config;  /* live device configuration, borrowed; little-endian */
	uint32_t config_len; /* bytes */

	const struct vfe_vdev_ops *ops;
	void *ctx;

	struct vfe_signaller *signaller; /* sends interrupts; borrowed */
};

/* Returns 0, -EINVAL with a text that names what is out of range, -ENOMEM. */
int vfe_vdev_create(const struct vfe_vdev_cfg *cfg, struct vfe_vdev **ret, struct vfe_error *err);

/* Closes the eventfds that it holds; calls no op. NULL is fine. */
void vfe_vdev_destroy(struct vfe_vdev *dev);

/* --- for the transport --- */

/* Size of BAR0 of a function with so many queues and vectors: a power of two. */
uint64_t vfe_vdev_bar_size_for(uint16_t nr_queues, uint16_t nr_vectors);
uint64_t vfe_vdev_bar_size(const struct vfe_vdev *dev);

/* Offset in BAR0 of the doorbell of @qid. */
uint64_t vfe_vdev_doorbell_offset(const struct vfe_vdev *dev, uint16_t qid);

/*
 * BAR0: one access stays within one part. The common configuration wants one whole field (64-bit
 * fields also by halves, section 4.1.3.1), the MSI-X table whole dwords, the rest takes any width.
 * Holes read as zero and ignore writes. Returns 0, -EINVAL (width, part) or -ERANGE.
 */
int vfe_vdev_bar_read(struct vfe_vdev *dev, uint64_t off, void *buf, uint32_t len);
int vfe_vdev_bar_write(struct vfe_vdev *dev, uint64_t off, const void *buf, uint32_t len);

/* Configuration space, VFE_PCIE_CFG_SIZE bytes; read-only bits keep their value. 0 or -ERANGE. */
int vfe_vdev_config_read(struct vfe_vdev *dev, uint64_t off, void *buf, uint32_t len);
int vfe_vdev_config_write(struct vfe_vdev *dev, uint64_t off, const void *buf, uint32_t len);

/*
 * Eventfds of MSI-X vectors [@start, @start + @count), each taken (and set to -1 in @fds) by the
 * library; -1 withdraws, @fds NULL withdraws all of them. Delivery depends on the eventfd alone;
 * masks count only once the driver has written them, because a VFIO client often keeps the table
 * to itself. A vector in use is signalled once when it gets an eventfd or is unmasked: a spurious
 * interrupt is harmless, a lost one is not. Returns 0 or -ERANGE.
 */
int vfe_vdev_irq_set(struct vfe_vdev *dev, uint32_t start, uint32_t count, int *fds);

/* Function level reset: configuration space, MSI-X table, then as status 0. SR-IOV stays. */
void vfe_vdev_function_reset(struct vfe_vdev *dev);

/* --- for the device --- */

uint8_t vfe_vdev_status(const struct vfe_vdev *dev);
uint64_t vfe_vdev_features(const struct vfe_vdev *dev); /* offered */
uint64_t vfe_vdev_driver_features(const struct vfe_vdev *dev);
uint16_t vfe_vdev_config_vector(const struct vfe_vdev *dev);
uint8_t vfe_vdev_generation(const struct vfe_vdev *dev);
uint16_t vfe_vdev_nr_queues(const struct vfe_vdev *dev);  /* slots */
uint16_t vfe_vdev_num_queues(const struct vfe_vdev *dev); /* as shown */
uint16_t vfe_vdev_nr_vectors(const struct vfe_vdev *dev);

/* Registers of @qid < nr_queues. */
const struct vfe_vdev_queue *vfe_vdev_queue(const struct vfe_vdev *dev, uint16_t qid);

/* DRIVER_OK is set and the device neither needs nor is in a reset. */
bool vfe_vdev_live(const struct vfe_vdev *dev);
bool vfe_vdev_resetting(const struct vfe_vdev *dev);

/* The reset is complete: registers get their initial values, status reads 0. */
void vfe_vdev_reset_done(struct vfe_vdev *dev);
void vfe_vdev_queue_reset_done(struct vfe_vdev *dev, uint16_t qid);

/* How queues are laid out after feature negotiation; until the next reset. From features_ok. */
void vfe_vdev_set_layout(struct vfe_vdev *dev, uint16_t num_queues, uint16_t admin_index);

/* Eventfd of the queue's interrupt, -1 when there is none, it is masked, or the device is quiet. */
int vfe_vdev_queue_fd(const struct vfe_vdev *dev, uint16_t qid);

/* Interrupt of a queue that the control thread serves. */
void vfe_vdev_signal_queue(struct vfe_vdev *dev, uint16_t qid);

/* Device configuration changed: new generation, and an interrupt once DRIVER_OK is set. */
void vfe_vdev_config_changed(struct vfe_vdev *dev);

/* Set DEVICE_NEEDS_RESET and tell the driver (section 2.1.2). Nothing before DRIVER_OK. */
void vfe_vdev_needs_reset(struct vfe_vdev *dev);

/* While quiet no interrupt is sent; those of the control thread wait until the end of it. */
void vfe_vdev_set_quiet(struct vfe_vdev *dev, bool quiet);

/* Register values to go on with, as a driver would have written them. */
struct vfe_vdev_state {
	uint64_t driver_features;
	uint8_t status;
	uint16_t config_vector;
	uint16_t nr_queues; /* entries of @queues */
	const struct vfe_vdev_queue *queues;
};

/*
 * Put @state into the registers; no op is called. Queues beyond state->nr_queues become disabled.
 * Returns 0, or -EINVAL with a text, and then nothing has changed.
 */
int
vfe_vdev_restore(struct vfe_vdev *dev, const struct vfe_vdev_state *state, struct vfe_error *err);

#endif /* VFE_VDEV_H */
