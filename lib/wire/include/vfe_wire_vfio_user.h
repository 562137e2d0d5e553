/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vfio-user protocol (QEMU docs/interop/vfio-user.rst): messages. Host byte order.
 */

#ifndef VFE_WIRE_VFIO_USER_H
#define VFE_WIRE_VFIO_USER_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum vfe_vfu_command {
	VFE_VFU_VERSION = 1,
	VFE_VFU_DMA_MAP = 2,
	VFE_VFU_DMA_UNMAP = 3,
	VFE_VFU_DEVICE_GET_INFO = 4,
	VFE_VFU_DEVICE_GET_REGION_INFO = 5,
	VFE_VFU_DEVICE_GET_REGION_IO_FDS = 6,
	VFE_VFU_DEVICE_GET_IRQ_INFO = 7,
	VFE_VFU_DEVICE_SET_IRQS = 8,
	VFE_VFU_REGION_READ = 9,
	VFE_VFU_REGION_WRITE = 10,
	VFE_VFU_DMA_READ = 11,
	VFE_VFU_DMA_WRITE = 12,
	VFE_VFU_DEVICE_RESET = 13,
	VFE_VFU_REGION_WRITE_MULTI = 15,
	VFE_VFU_DEVICE_FEATURE = 16,
	VFE_VFU_MIG_DATA_READ = 17,
	VFE_VFU_MIG_DATA_WRITE = 18,
};

enum {
	VFE_VFU_VERSION_MAJOR = 0,
	VFE_VFU_VERSION_MINOR = 1,

	VFE_VFU_F_TYPE_MASK = 0xf,
	VFE_VFU_F_COMMAND = 0,
	VFE_VFU_F_REPLY = 1,
	VFE_VFU_F_NO_REPLY = 0x10,
	VFE_VFU_F_ERROR = 0x20,

	VFE_VFU_NR_REGIONS = 9,
	VFE_VFU_REGION_BAR0 = 0,
	VFE_VFU_REGION_ROM = 6,
	VFE_VFU_REGION_CONFIG = 7,
	VFE_VFU_REGION_VGA = 8,

	VFE_VFU_NR_IRQS = 5,
	VFE_VFU_IRQ_INTX = 0,
	VFE_VFU_IRQ_MSI = 1,
	VFE_VFU_IRQ_MSIX = 2,
	VFE_VFU_IRQ_ERR = 3,
	VFE_VFU_IRQ_REQ = 4,

	VFE_VFU_DMA_F_READ = 1,
	VFE_VFU_DMA_F_WRITE = 2,
	VFE_VFU_DMA_UNMAP_F_ALL = 2,

	VFE_VFU_DEVICE_F_RESET = 1,
	VFE_VFU_DEVICE_F_PCI = 2,

	VFE_VFU_REGION_F_READ = 1,
	VFE_VFU_REGION_F_WRITE = 2,
	VFE_VFU_REGION_F_MMAP = 4,
	VFE_VFU_REGION_F_CAPS = 8,
	VFE_VFU_REGION_CAP_SPARSE_MMAP = 1,

	VFE_VFU_IRQ_F_EVENTFD = 1,
	VFE_VFU_IRQ_F_MASKABLE = 2,
	VFE_VFU_IRQ_F_AUTOMASKED = 4,
	VFE_VFU_IRQ_F_NORESIZE = 8,

	VFE_VFU_IRQ_SET_DATA_NONE = 1,
	VFE_VFU_IRQ_SET_DATA_BOOL = 2,
	VFE_VFU_IRQ_SET_DATA_EVENTFD = 4,
	VFE_VFU_IRQ_SET_ACTION_MASK = 8,
	VFE_VFU_IRQ_SET_ACTION_UNMASK = 16,
	VFE_VFU_IRQ_SET_ACTION_TRIGGER = 32,

	VFE_VFU_IO_FD_TYPE_IOEVENTFD = 0,

	/* defaults when the peer's version message does not say (section VERSION) */
	VFE_VFU_DEFAULT_MAX_MSG_FDS = 1,
	VFE_VFU_DEFAULT_MAX_DATA_XFER = 1048576,
	VFE_VFU_DEFAULT_MAX_DMA_MAPS = 65535,
};

struct vfe_wire_vfu_hdr {
	uint16_t id;
	uint16_t command;
	uint32_t size; /* header included */
	uint32_t flags;
	uint32_t error; /* errno when VFE_VFU_F_ERROR is set */
};
static_assert(sizeof(struct vfe_wire_vfu_hdr) == 16, "vfio-user header");

struct vfe_wire_vfu_version {
	uint16_t major;
	uint16_t minor;
	char json[];
};
static_assert(sizeof(struct vfe_wire_vfu_version) == 4, "VERSION");

struct vfe_wire_vfu_dma_map {
	uint32_t argsz;
	uint32_t flags;
	uint64_t offset;
	uint64_t addr;
	uint64_t size;
};
static_assert(sizeof(struct vfe_wire_vfu_dma_map) == 32, "DMA_MAP");

struct vfe_wire_vfu_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t addr;
	uint64_t size;
};
static_assert(sizeof(struct vfe_wire_vfu_dma_unmap) == 24, "DMA_UNMAP");

struct vfe_wire_vfu_device_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
};
static_assert(sizeof(struct vfe_wire_vfu_device_info) == 16, "DEVICE_GET_INFO");

struct vfe_wire_vfu_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset; /* from the begin of this struct */
	uint64_t size;
	uint64_t offset; /* for mmap of the fd that comes along */
};
static_assert(sizeof(struct vfe_wire_vfu_region_info) == 32, "DEVICE_GET_REGION_INFO");

struct vfe_wire_vfu_cap_hdr {
	uint16_t id;
	uint16_t version;
	uint32_t next;
};
static_assert(sizeof(struct vfe_wire_vfu_cap_hdr) == 8, "capability header");

struct vfe_wire_vfu_sparse_area {
	uint64_t offset;
	uint64_t size;
};

struct vfe_wire_vfu_cap_sparse {
	struct vfe_wire_vfu_cap_hdr hdr;
	uint32_t nr_areas;
	uint32_t reserved;
	struct vfe_wire_vfu_sparse_area areas[];
};
static_assert(sizeof(struct vfe_wire_vfu_cap_sparse) == 16, "sparse mmap capability");

struct vfe_wire_vfu_region_io_fds {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};
static_assert(sizeof(struct vfe_wire_vfu_region_io_fds) == 16, "DEVICE_GET_REGION_IO_FDS");

struct vfe_wire_vfu_sub_region {
	uint64_t offset;
	uint64_t size;
	uint32_t fd_index;
	uint32_t type;
	uint32_t flags;
	uint32_t padding;
	uint64_t datamatch;
};
static_assert(sizeof(struct vfe_wire_vfu_sub_region) == 40, "ioeventfd sub-region");

struct vfe_wire_vfu_irq_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};
static_assert(sizeof(struct vfe_wire_vfu_irq_info) == 16, "DEVICE_GET_IRQ_INFO");

struct vfe_wire_vfu_irq_set {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t start;
	uint32_t count;
	uint8_t data[];
};
static_assert(sizeof(struct vfe_wire_vfu_irq_set) == 20, "DEVICE_SET_IRQS");

struct vfe_wire_vfu_region_rw {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	uint8_t data[];
};
static_assert(sizeof(struct vfe_wire_vfu_region_rw) == 16, "REGION_READ");

struct vfe_wire_vfu_dma_rw {
	uint64_t addr;
	uint64_t count;
	uint8_t data[];
};
static_assert(sizeof(struct vfe_wire_vfu_dma_rw) == 16, "DMA_READ");

#endif /* VFE_WIRE_VFIO_USER_H */
