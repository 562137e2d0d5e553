/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * PCI configuration space: offsets, ids and capability layouts that a virtio function needs.
 * Little-endian. Sources: PCI 3.0, PCIe 6.0 section 9.3.3 (SR-IOV), PCI 3.0 section 6.8.2 (MSI-X).
 */

#ifndef VFE_WIRE_PCI_H
#define VFE_WIRE_PCI_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VFE_PCI_CFG_SIZE = 256,
	VFE_PCIE_CFG_SIZE = 4096,
	VFE_PCI_NR_BARS = 6,

	/* type 0 header */
	VFE_PCI_VENDOR_ID = 0x00,
	VFE_PCI_DEVICE_ID = 0x02,
	VFE_PCI_COMMAND = 0x04,
	VFE_PCI_STATUS = 0x06,
	VFE_PCI_REVISION = 0x08,
	VFE_PCI_CLASS = 0x09, /* 3 bytes: interface, subclass, class */
	VFE_PCI_HEADER_TYPE = 0x0e,
	VFE_PCI_BAR0 = 0x10,
	VFE_PCI_SUBSYS_VENDOR = 0x2c,
	VFE_PCI_SUBSYS_ID = 0x2e,
	VFE_PCI_CAP_PTR = 0x34,
	VFE_PCI_INT_LINE = 0x3c,
	VFE_PCI_INT_PIN = 0x3d,

	VFE_PCI_COMMAND_MEM = 0x2,
	VFE_PCI_COMMAND_MASTER = 0x4,
	VFE_PCI_COMMAND_INTX_DIS = 0x400,
	VFE_PCI_STATUS_CAP_LIST = 0x10,

	VFE_PCI_BAR_MEM64 = 0x4,
	VFE_PCI_BAR_PREFETCH = 0x8,

	/* capability ids */
	VFE_PCI_CAP_VENDOR = 0x09,
	VFE_PCI_CAP_EXP = 0x10,
	VFE_PCI_CAP_MSIX = 0x11,
	VFE_PCI_EXT_CAP_START = 0x100,
	VFE_PCI_EXT_CAP_ARI = 0x000e,
	VFE_PCI_EXT_CAP_SRIOV = 0x0010,

	VFE_PCI_MSIX_ENTRY_SIZE = 16,
	VFE_PCI_MSIX_CTRL_ENABLE = 0x8000,
	VFE_PCI_MSIX_CTRL_MASK = 0x4000,
	VFE_PCI_MSIX_CTRL_SIZE = 0x07ff, /* N - 1 */
	VFE_PCI_MSIX_BIR = 0x7,

	VFE_PCI_SRIOV_CTRL_VFE = 0x1,
	VFE_PCI_SRIOV_CTRL_MSE = 0x8,

	VFE_PCI_VENDOR_VIRTIO = 0x1af4,
	VFE_PCI_DEVICE_VIRTIO_NET = 0x1041,
	VFE_PCI_DEVICE_VIRTIO_BLK = 0x1042,
};

/* MSI-X capability. */
struct vfe_wire_msix_cap {
	uint8_t id;
	uint8_t next;
	uint16_t ctrl;
	uint32_t table; /* offset | BIR */
	uint32_t pba;   /* offset | BIR */
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_msix_cap) == 12, "PCI 3.0 6.8.2");

/* SR-IOV extended capability. */
struct vfe_wire_sriov_cap {
	uint32_t header; /* id 15:0, version 19:16, next 31:20 */
	uint32_t capabilities;
	uint16_t ctrl;
	uint16_t status;
	uint16_t initial_vfs;
	uint16_t total_vfs;
	uint16_t num_vfs;
	uint8_t func_dep_link;
	uint8_t reserved0;
	uint16_t first_vf_offset;
	uint16_t vf_stride;
	uint16_t reserved1;
	uint16_t vf_device_id;
	uint32_t supported_page_sizes;
	uint32_t system_page_size;
	uint32_t vf_bar[6];
	uint32_t vf_migration;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_sriov_cap) == 0x40, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, ctrl) == 0x08, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, num_vfs) == 0x10, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, first_vf_offset) == 0x14, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, vf_stride) == 0x16, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, vf_device_id) == 0x1a, "PCIe 9.3.3");
static_assert(offsetof(struct vfe_wire_sriov_cap, vf_bar) == 0x24, "PCIe 9.3.3");

#endif /* VFE_WIRE_PCI_H */
