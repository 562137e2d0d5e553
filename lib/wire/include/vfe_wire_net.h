/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * virtio-net (virtio 1.4 section 5.1): features, configuration space, packet header, control queue.
 * Little-endian.
 */

#ifndef VFE_WIRE_NET_H
#define VFE_WIRE_NET_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

enum {
	VFE_NET_F_CSUM = 0,
	VFE_NET_F_GUEST_CSUM = 1,
	VFE_NET_F_CTRL_GUEST_OFFLOADS = 2,
	VFE_NET_F_MTU = 3,
	VFE_NET_F_MAC = 5,
	VFE_NET_F_GUEST_TSO4 = 7,
	VFE_NET_F_GUEST_TSO6 = 8,
	VFE_NET_F_GUEST_ECN = 9,
	VFE_NET_F_GUEST_UFO = 10,
	VFE_NET_F_HOST_TSO4 = 11,
	VFE_NET_F_HOST_TSO6 = 12,
	VFE_NET_F_HOST_ECN = 13,
	VFE_NET_F_HOST_UFO = 14,
	VFE_NET_F_MRG_RXBUF = 15,
	VFE_NET_F_STATUS = 16,
	VFE_NET_F_CTRL_VQ = 17,
	VFE_NET_F_CTRL_RX = 18,
	VFE_NET_F_CTRL_VLAN = 19,
	VFE_NET_F_CTRL_RX_EXTRA = 20,
	VFE_NET_F_GUEST_ANNOUNCE = 21,
	VFE_NET_F_MQ = 22,
	VFE_NET_F_CTRL_MAC_ADDR = 23,
	VFE_NET_F_HASH_REPORT = 57,
	VFE_NET_F_RSS = 60,
	VFE_NET_F_SPEED_DUPLEX = 63,
};

enum {
	VFE_NET_S_LINK_UP = 1,
	VFE_NET_S_ANNOUNCE = 2,
};

/* struct virtio_net_config (section 5.1.4). */
struct vfe_wire_net_config {
	uint8_t mac[6];
	uint16_t status;
	uint16_t max_virtqueue_pairs;
	uint16_t mtu;
	uint32_t speed; /* Mbit/s */
	uint8_t duplex;
	uint8_t rss_max_key_size;
	uint16_t rss_max_indirection_table_length;
	uint32_t supported_hash_types;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_net_config) == 24, "virtio 5.1.4");
static_assert(offsetof(struct vfe_wire_net_config, max_virtqueue_pairs) == 8, "virtio 5.1.4");
static_assert(offsetof(struct vfe_wire_net_config, speed) == 12, "virtio 5.1.4");

/* struct virtio_net_hdr with num_buffers, which VERSION_1 devices always have (section 5.1.6). */
struct vfe_wire_net_hdr {
	uint8_t flags;
	uint8_t gso_type;
	uint16_t hdr_len;
	uint16_t gso_size;
	uint16_t csum_start;
	uint16_t csum_offset;
	uint16_t num_buffers;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_net_hdr) == 12, "virtio 5.1.6");

enum {
	VFE_NET_HDR_F_NEEDS_CSUM = 1,
	VFE_NET_HDR_F_DATA_VALID = 2,
	VFE_NET_HDR_GSO_NONE = 0,
	VFE_NET_HDR_GSO_TCPV4 = 1,
	VFE_NET_HDR_GSO_UDP = 3,
	VFE_NET_HDR_GSO_TCPV6 = 4,
	VFE_NET_HDR_GSO_ECN = 0x80,
};

/* Control queue (section 5.1.6.5). */
struct vfe_wire_net_ctrl_hdr {
	uint8_t class_;
	uint8_t cmd;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_net_ctrl_hdr) == 2, "virtio 5.1.6.5");

enum {
	VFE_NET_CTRL_OK = 0,
	VFE_NET_CTRL_ERR = 1,

	VFE_NET_CTRL_RX = 0,
	VFE_NET_CTRL_RX_PROMISC = 0,
	VFE_NET_CTRL_RX_ALLMULTI = 1,
	VFE_NET_CTRL_RX_ALLUNI = 2,
	VFE_NET_CTRL_RX_NOMULTI = 3,
	VFE_NET_CTRL_RX_NOUNI = 4,
	VFE_NET_CTRL_RX_NOBCAST = 5,

	VFE_NET_CTRL_MAC = 1,
	VFE_NET_CTRL_MAC_TABLE_SET = 0,
	VFE_NET_CTRL_MAC_ADDR_SET = 1,

	VFE_NET_CTRL_VLAN = 2,
	VFE_NET_CTRL_VLAN_ADD = 0,
	VFE_NET_CTRL_VLAN_DEL = 1,

	VFE_NET_CTRL_ANNOUNCE = 3,
	VFE_NET_CTRL_ANNOUNCE_ACK = 0,

	VFE_NET_CTRL_MQ = 4,
	VFE_NET_CTRL_MQ_VQ_PAIRS_SET = 0,
	VFE_NET_MQ_PAIRS_MIN = 1,
	VFE_NET_MQ_PAIRS_MAX = 0x8000,
};

#endif /* VFE_WIRE_NET_H */
