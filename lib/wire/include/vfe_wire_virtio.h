/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * virtio 1.4 over PCI: feature bits, status bits, capabilities, common configuration, split rings.
 * Little-endian.
 */

#ifndef VFE_WIRE_VIRTIO_H
#define VFE_WIRE_VIRTIO_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Feature bit numbers (section 6). */
enum {
	VFE_VIRTIO_F_RING_INDIRECT_DESC = 28,
	VFE_VIRTIO_F_RING_EVENT_IDX = 29,
	VFE_VIRTIO_F_VERSION_1 = 32,
	VFE_VIRTIO_F_ACCESS_PLATFORM = 33,
	VFE_VIRTIO_F_RING_PACKED = 34,
	VFE_VIRTIO_F_IN_ORDER = 35,
	VFE_VIRTIO_F_ORDER_PLATFORM = 36,
	VFE_VIRTIO_F_SR_IOV = 37,
	VFE_VIRTIO_F_NOTIFICATION_DATA = 38,
	VFE_VIRTIO_F_NOTIF_CONFIG_DATA = 39,
	VFE_VIRTIO_F_RING_RESET = 40,
	VFE_VIRTIO_F_ADMIN_VQ = 41,

	/* bits that only vhost-user uses */
	VFE_VHOST_F_LOG_ALL = 26,
	VFE_VHOST_USER_F_PROTOCOL_FEATURES = 30,
};

/* Device status (section 2.1). */
enum {
	VFE_VIRTIO_S_ACKNOWLEDGE = 1,
	VFE_VIRTIO_S_DRIVER = 2,
	VFE_VIRTIO_S_DRIVER_OK = 4,
	VFE_VIRTIO_S_FEATURES_OK = 8,
	VFE_VIRTIO_S_NEEDS_RESET = 64,
	VFE_VIRTIO_S_FAILED = 128,
};

enum {
	VFE_VIRTIO_MSI_NO_VECTOR = 0xffff,
	VFE_VIRTIO_ISR_QUEUE = 1,
	VFE_VIRTIO_ISR_CONFIG = 2,
	VFE_VIRTIO_QUEUE_MAX_SIZE = 32768,
};

/* Vendor capability types (section 4.1.4). */
enum {
	VFE_VIRTIO_PCI_CAP_COMMON = 1,
	VFE_VIRTIO_PCI_CAP_NOTIFY = 2,
	VFE_VIRTIO_PCI_CAP_ISR = 3,
	VFE_VIRTIO_PCI_CAP_DEVICE = 4,
	VFE_VIRTIO_PCI_CAP_PCI = 5,
};

/* struct virtio_pci_cap (section 4.1.4). */
struct vfe_wire_virtio_cap {
	uint8_t cap_vndr;
	uint8_t cap_next;
	uint8_t cap_len;
	uint8_t cfg_type;
	uint8_t bar;
	uint8_t id;
	uint8_t padding[2];
	uint32_t offset;
	uint32_t length;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_virtio_cap) == 16, "virtio 4.1.4");
static_assert(offsetof(struct vfe_wire_virtio_cap, offset) == 8, "virtio 4.1.4");

/* struct virtio_pci_notify_cap (section 4.1.4.4). */
struct vfe_wire_virtio_notify_cap {
	struct vfe_wire_virtio_cap cap;
	uint32_t notify_off_multiplier;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_virtio_notify_cap) == 20, "virtio 4.1.4.4");

/* struct virtio_pci_cfg_cap (section 4.1.4.9). */
struct vfe_wire_virtio_cfg_cap {
	struct vfe_wire_virtio_cap cap;
	uint8_t pci_cfg_data[4];
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_virtio_cfg_cap) == 20, "virtio 4.1.4.9");

/* struct virtio_pci_common_cfg (section 4.1.4.3). */
struct vfe_wire_virtio_common {
	uint32_t device_feature_select;
	uint32_t device_feature;
	uint32_t driver_feature_select;
	uint32_t driver_feature;
	uint16_t config_msix_vector;
	uint16_t num_queues;
	uint8_t device_status;
	uint8_t config_generation;
	uint16_t queue_select;
	uint16_t queue_size;
	uint16_t queue_msix_vector;
	uint16_t queue_enable;
	uint16_t queue_notify_off;
	uint64_t queue_desc;
	uint64_t queue_driver;
	uint64_t queue_device;
	uint16_t queue_notif_config_data;
	uint16_t queue_reset;
	uint16_t admin_queue_index;
	uint16_t admin_queue_num;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_virtio_common) == 64, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, config_msix_vector) == 16, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, device_status) == 20, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, queue_select) == 22, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, queue_notify_off) == 30, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, queue_desc) == 32, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, queue_device) == 48, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, queue_reset) == 58, "virtio 4.1.4.3");
static_assert(offsetof(struct vfe_wire_virtio_common, admin_queue_index) == 60, "virtio 4.1.4.3");

/* Split virtqueue (section 2.7). */
enum {
	VFE_VRING_DESC_F_NEXT = 1,
	VFE_VRING_DESC_F_WRITE = 2,
	VFE_VRING_DESC_F_INDIRECT = 4,
	VFE_VRING_AVAIL_F_NO_INTERRUPT = 1,
	VFE_VRING_USED_F_NO_NOTIFY = 1,
};

struct vfe_wire_vring_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
static_assert(sizeof(struct vfe_wire_vring_desc) == 16, "virtio 2.7.5");

/* ring[queue size], then used_event when EVENT_IDX is negotiated. */
struct vfe_wire_vring_avail {
	uint16_t flags;
	uint16_t idx;
	uint16_t ring[];
};
static_assert(sizeof(struct vfe_wire_vring_avail) == 4, "virtio 2.7.6");

struct vfe_wire_vring_used_elem {
	uint32_t id;
	uint32_t len;
};
static_assert(sizeof(struct vfe_wire_vring_used_elem) == 8, "virtio 2.7.8");

/* ring[queue size], then avail_event when EVENT_IDX is negotiated. */
struct vfe_wire_vring_used {
	uint16_t flags;
	uint16_t idx;
	struct vfe_wire_vring_used_elem ring[];
};
static_assert(sizeof(struct vfe_wire_vring_used) == 4, "virtio 2.7.8");

/* Bytes of the three parts of a split ring of @n entries, event fields included. */
static inline uint64_t
vfe_vring_desc_bytes(uint16_t n)
{
	return 16u * (uint64_t)n;
}

static inline uint64_t
vfe_vring_avail_bytes(uint16_t n)
{
	return 6u + 2u * (uint64_t)n;
}

static inline uint64_t
vfe_vring_used_bytes(uint16_t n)
{
	return 6u + 8u * (uint64_t)n;
}

#endif /* VFE_WIRE_VIRTIO_H */
