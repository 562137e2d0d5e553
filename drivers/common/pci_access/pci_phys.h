/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Physical addresses of memory, for functions in the no-IOMMU mode of VFIO.
 *
 * The mappings of a space, whose huge pages are pinned: they stay where they are, and belong to
 * nobody else, until they are unmapped, whatever the owner of the file does to it (a balloon, for
 * one, gives huge pages back).
 *
 * Lookups come from any thread; map and unmap are serialised by the caller.
 */

#ifndef PCI_PHYS_H
#define PCI_PHYS_H

#include "vfe_pci.h"

struct pci_phys;

/* NULL without memory. */
struct pci_phys *pci_phys_create(void);
void pci_phys_destroy(struct pci_phys *phys);

/*
 * Add a mapping. One whose pages cannot be had (they are not huge, there are too few of them, or
 * the kernel does not tell where they are) is added as well, and fails when it is looked up. What
 * pins pages has an fd above @fd: a process that dies closes the function @fd before them. Blocks
 * for as long as the kernel takes to find and clear the pages.
 */
int
pci_phys_map(struct pci_phys *phys, const struct vfe_pci_dma *dma, int fd, struct vfe_error *err);

/* -ENOENT when there is no mapping like that. */
int pci_phys_unmap(struct pci_phys *phys, uint64_t iova, uint64_t size, struct vfe_error *err);

/* As vfe_pci_dma_addr(). */
int pci_phys_addr(struct pci_phys *phys, uint64_t iova, uint64_t len, uint64_t *ret_bus,
	uint64_t *ret_len, struct vfe_error *err);

#endif /* PCI_PHYS_H */
