/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * IOMMU groups and containers of kernel VFIO.
 *
 * The kernel lets a process open a group once, so all functions of a group in this process share
 * one struct. A group is in one container, which is one address space; the groups of a DMA domain
 * are in the same container when the IOMMU allows. Both are counted and end with their last user:
 * devices first, then the group, then the container.
 *
 * Thread safe, but for map and unmap, which the DMA domain of the container serialises.
 */

#ifndef PCI_CONTAINER_H
#define PCI_CONTAINER_H

#include "vfe_pci.h"

struct pci_group;

/*
 * Open the IOMMU group of function @name, or share it. A busy group is tried again until
 * @deadline. One in no-IOMMU mode must be allowed. -EBUSY, -ENOTSUP, or -EPERM when it is not
 * viable; the texts name whose fault it is.
 */
int pci_group_get(const char *name, bool allow_no_iommu, struct vfe_deadline deadline,
	struct pci_group **ret, struct vfe_error *err);

/* Is it in no-IOMMU mode? */
bool pci_group_is_physical(const struct pci_group *group);

/* A group and its container that somebody else has opened and configured; fds are duplicated. */
int pci_group_adopt(int container_fd, int group_fd, struct pci_group **ret, struct vfe_error *err);
void pci_group_put(struct pci_group *group);

/*
 * Enter the container of @peer (1), or one of its own when @peer is NULL or will not do (0).
 * -EBUSY when the group is in another container already.
 */
int pci_group_enter(
	struct pci_group *group, struct pci_group *peer, const char *name, struct vfe_error *err);

/*
 * The fd of function @name, which the kernel resets as it opens it. @token is the VF token (36
 * characters) or NULL. Tried again until @deadline while the kernel is at work on the function.
 */
int pci_group_device(struct pci_group *group, const char *name, const char *token,
	struct vfe_deadline deadline, struct vfe_error *err);

/* In the container of @group, for the function @fd. A map that fails changes nothing. */
int pci_group_dma_map(
	struct pci_group *group, const struct vfe_pci_dma *dma, int fd, struct vfe_error *err);
int
pci_group_dma_unmap(struct pci_group *group, uint64_t iova, uint64_t size, struct vfe_error *err);

/* As vfe_pci_dma_addr(), of a group in no-IOMMU mode. */
int pci_group_dma_addr(const struct pci_group *group, uint64_t iova, uint64_t len,
	uint64_t *ret_bus, uint64_t *ret_len, struct vfe_error *err);

/*
 * The whole answer of @fd to @request, however long it is. @ask of @size bytes is the struct of the
 * request; "argsz", which begins it, is filled in and is the size of *@ret, which the caller frees.
 */
int pci_vfio_info(int fd, unsigned long request, const void *ask, uint32_t size, void **ret,
	struct vfe_error *err);

/* The capability @id in an answer of the kernel, whose first is at @off; NULL without it. */
const void *
pci_vfio_cap(const void *info, uint32_t info_size, uint32_t off, uint16_t id, uint32_t cap_size);

#endif /* PCI_CONTAINER_H */
