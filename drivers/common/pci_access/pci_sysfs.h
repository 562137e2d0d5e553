/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What sysfs says about kernel functions: driver, IOMMU group, SR-IOV relations.
 */

#ifndef PCI_SYSFS_H
#define PCI_SYSFS_H

#include <stddef.h>
#include <stdint.h>

#include "vfe_pci.h"

enum {
	PCI_PATH_SIZE = 512,
	PCI_WORD_SIZE = 64, /* name of a driver, content of an attribute */
};

/* Goes before "/sys/..." and "/dev/vfio/...": empty, but in tests. Set before anything else. */
extern const char *pci_root;

/* "<root>/sys/bus/pci/devices/<name>/<attr>". */
int pci_sysfs_path(char dst[PCI_PATH_SIZE], const char *name, const char *attr);

/* The last component of what the link @attr of function @name points to; or -errno. */
int pci_sysfs_link(const char *name, const char *attr, char *dst, size_t size);

/* A number in the attribute @attr of function @name; or -errno. */
int pci_sysfs_read_u32(const char *name, const char *attr, uint32_t *ret);

/* Write @text to the file @path. Returns 0 or what open() or write() said as -errno. */
int pci_sysfs_write(const char *path, const char *text);

/* 0 when a VFIO driver has function @name; else -EBUSY or -ENODEV, the text has the remedy. */
int pci_sysfs_check_driver(const char *name, struct vfe_error *err);

/*
 * The IOMMU group of function @name. *@noiommu says if one in no-IOMMU mode will do, and then if it
 * is one. -ENODEV without a group, -ENOTSUP when it is in no-IOMMU mode and that will not do.
 */
int pci_sysfs_group(const char *name, bool *noiommu, unsigned int *ret, struct vfe_error *err);

/* "0000:af:00.0 (virtio-pci), 0000:af:00.1 (no driver)": members of @group but @name. */
void pci_sysfs_group_others(unsigned int group, const char *name, char *dst, size_t size);

/* "qemu-system-x86 (pid 123), ...": processes that have the file @path open, as far as we see. */
void pci_sysfs_users(const char *path, char *dst, size_t size);

#endif /* PCI_SYSFS_H */
