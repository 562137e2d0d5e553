/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What a transport of the PCI seam implements: private to drivers/common/pci_access.
 *
 * The core checks arguments (BAR number, ranges, alignment) and refuses calls on a lost device
 * before it calls an op. Ops are synchronous, bounded by the transport's deadline, and safe from
 * several threads, but for close, attach, detach and the dma ops, which the core serialises.
 */

#ifndef PCI_TRANSPORT_H
#define PCI_TRANSPORT_H

#include <stdint.h>
#include <sys/queue.h>

#include "vfe_pci.h"
#include "vfe_wire_pci.h"

enum { PCI_MAX_IRQS = VFE_PCI_MSIX_CTRL_SIZE + 1 };

struct vfe_pci_ops {
	const char *name; /* of the transport */

	/* Events of poll(2) on lost_fd() that mean that the device is lost. */
	uint32_t lost_events;

	/*
	 * The kernel keeps the address space: mappings are made and taken back also when the device
	 * is lost, and a map that fails changes nothing.
	 */
	bool kernel_space;

	/* Release everything; the device is detached and its interrupts are off. */
	void (*close)(struct vfe_pci_dev *dev);

	int (*lost_fd)(const struct vfe_pci_dev *dev);
	int (*error)(const struct vfe_pci_dev *dev);
	void (*abort)(struct vfe_pci_dev *dev, int neg_errno);

	int (*config_read)(struct vfe_pci_dev *dev, uint32_t off, void *buf, uint32_t len,
		struct vfe_error *err);
	int (*config_write)(struct vfe_pci_dev *dev, uint32_t off, const void *buf, uint32_t len,
		struct vfe_error *err);
	int (*bar_read)(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, void *buf,
		uint32_t len, struct vfe_error *err);
	int (*bar_write)(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off, const void *buf,
		uint32_t len, struct vfe_error *err);

	/* Fill addr or event_fd, if any, and map_*, of @db, which is empty but for its place. */
	int (*doorbell_get)(
		struct vfe_pci_dev *dev, struct vfe_pci_doorbell *db, struct vfe_error *err);

	/* After a write to a mapped doorbell: -ENODEV when the mapping has broken. May be NULL. */
	int (*doorbell_check)(struct vfe_pci_dev *dev);

	/* Ring a doorbell that has neither addr nor event_fd; never waits. */
	int (*doorbell_post)(struct vfe_pci_dev *dev, unsigned int bar, uint64_t off,
		const void *buf, uint32_t len);

	/* As vfe_pci_irq_set(); @count 0 withdraws all. */
	int (*irq_set)(struct vfe_pci_dev *dev, uint32_t start, uint32_t count, const int *fds,
		struct vfe_error *err);
	int (*reset)(struct vfe_pci_dev *dev, struct vfe_error *err);

	/*
	 * Enter the DMA address space of @peer, a member of the same domain and transport, or one
	 * of its own when @peer is NULL or will not do. Returns 1 when it shares the mappings of
	 * @peer, 0 when it has its own (empty) space. NULL op = always its own. Called with @peer
	 * NULL for a device that is opened without a domain. When it fails the device is lost.
	 */
	int (*attach)(struct vfe_pci_dev *dev, struct vfe_pci_dev *peer, struct vfe_error *err);
	void (*detach)(struct vfe_pci_dev *dev); /* may be NULL */

	/*
	 * Map and unmap in the device's address space; once per space, not per member.
	 * dma_map_begin (may be NULL) sends what dma_map with the same mapping then waits for,
	 * so that many devices are at it at the same time. True = dma_map must follow, whatever
	 * happens; it is dma_map that tells what goes wrong.
	 */
	bool (*dma_map_begin)(struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma);
	int (*dma_map)(
		struct vfe_pci_dev *dev, const struct vfe_pci_dma *dma, struct vfe_error *err);
	int (*dma_unmap)(
		struct vfe_pci_dev *dev, uint64_t iova, uint64_t size, struct vfe_error *err);

	/*
	 * As vfe_pci_dma_addr(), of a device that is physical; @err (may be NULL) is the reason
	 * why not. Any thread while the device is attached, and not under the domain's lock.
	 */
	int (*dma_addr)(const struct vfe_pci_dev *dev, uint64_t iova, uint64_t len,
		uint64_t *ret_bus, uint64_t *ret_len, struct vfe_error *err);
};

/* Begins the transport's own struct. What is above the line is set once, by the transport. */
struct vfe_pci_dev {
	const struct vfe_pci_ops *ops;
	char name[VFE_BDF_STR_SIZE];
	uint64_t bar_size[VFE_PCI_NR_BARS];
	uint32_t config_size;
	uint32_t irq_count;
	bool physical; /* has dma_addr */

	/* --- owned by pci_domain.c, under the domain's lock */
	struct vfe_pci_domain *domain;
	uint64_t space; /* equal for members that share an address space */
	bool map_begun; /* dma_map_begin */
	TAILQ_ENTRY(vfe_pci_dev) next;
};

/* The vfio-user transport. */
int vfe_pci_vfio_user_open(
	const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err);

/* The kernel transport: a function that a VFIO driver has. Usable after ops->attach(). */
int vfe_pci_vfio_open(
	const struct vfe_pci_open_cfg *cfg, struct vfe_pci_dev **ret, struct vfe_error *err);

/* Set the text "lost (...)" and return -ENODEV if the device is lost, else 0. */
int pci_check_lost(const struct vfe_pci_dev *dev, struct vfe_error *err);

#endif /* PCI_TRANSPORT_H */
