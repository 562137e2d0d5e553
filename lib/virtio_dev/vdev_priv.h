/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the files of this library share: the function's state and the parts of BAR0.
 */

#ifndef VDEV_PRIV_H
#define VDEV_PRIV_H

#include "vfe_vdev.h"

/* Parts of BAR0, each on a page of its own so that doorbell pages can be mapped. */
enum {
	VDEV_PAGE = 4096,
	VDEV_BAR_COMMON = 0x0000,
	VDEV_BAR_ISR = 0x1000,
	VDEV_BAR_DEVICE = 0x2000,
	VDEV_BAR_MSIX = 0x3000,

	VDEV_STATUS_DRIVER_BITS = VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER |
				  VFE_VIRTIO_S_DRIVER_OK | VFE_VIRTIO_S_FEATURES_OK |
				  VFE_VIRTIO_S_FAILED,
};

struct vdev_vector {
	int fd;
	bool pending;
	bool mask_written; /* the driver manages this entry's mask itself */
	uint32_t entry[4]; /* address low, high, data, vector control */
};

struct vfe_vdev {
	struct vfe_vdev_cfg cfg;

	/* common configuration */
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint64_t driver_features;
	uint16_t config_vector;
	uint16_t queue_select;
	uint16_t num_queues;
	uint16_t admin_index;
	uint8_t status;
	uint8_t generation;
	uint8_t isr;
	bool resetting;
	bool quiet;
	struct vfe_vdev_queue *queues; /* cfg.nr_queues */

	/* interrupts */
	struct vdev_vector *vectors; /* cfg.nr_vectors */

	/* BAR0 */
	uint32_t pba_off;
	uint32_t notify_off;
	uint64_t bar_size;

	/* configuration space */
	uint16_t msix_cap;
	uint16_t pci_cfg_cap;
	uint16_t exp_cap;
	uint16_t sriov_cap; /* 0 = none */
	uint8_t space[VFE_PCIE_CFG_SIZE];
	uint8_t writable[VFE_PCIE_CFG_SIZE]; /* bits that a write changes */
};

/* vdev_common.c */
int vdev_common_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len);
int vdev_common_write(struct vfe_vdev *dev, uint32_t off, const void *buf, uint32_t len);
void vdev_common_reset(struct vfe_vdev *dev);
void vdev_reset_begin(struct vfe_vdev *dev);

/* vdev_msix.c */
int vdev_msix_init(struct vfe_vdev *dev);
void vdev_msix_fini(struct vfe_vdev *dev);
void vdev_msix_reset(struct vfe_vdev *dev);
int vdev_msix_table_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len);
int vdev_msix_table_write(struct vfe_vdev *dev, uint32_t off, const void *buf, uint32_t len);
void vdev_msix_pba_read(struct vfe_vdev *dev, uint32_t off, void *buf, uint32_t len);
void vdev_msix_signal(struct vfe_vdev *dev, uint16_t vector);
void vdev_msix_function_mask(struct vfe_vdev *dev, uint16_t old_ctrl);
void vdev_msix_unquiet(struct vfe_vdev *dev);
int vdev_msix_fd(const struct vfe_vdev *dev, uint16_t vector);

/* vdev_pci.c */
void vdev_pci_build(struct vfe_vdev *dev);
void vdev_pci_reset(struct vfe_vdev *dev);
uint16_t vdev_space_get16(const struct vfe_vdev *dev, uint32_t off);
uint32_t vdev_space_get32(const struct vfe_vdev *dev, uint32_t off);

#endif /* VDEV_PRIV_H */
