/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What is special about virtio-net: features, queue count, configuration space.
 */

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vdpa_priv.h"
#include "vfe_wire_pci.h"

/* The fields of struct vfe_wire_net_config. */
static const uint8_t net_config_widths[] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 1, 1, 2, 4};

/* mac, status, pairs and MTU must be there */
static int
net_config_read(struct vfe_virtio_dev *vdev, union vdpa_config *ret, struct vfe_error *err)
{
	return vdpa_type_config_read(vdev, net_config_widths, VFE_ARRAY_SIZE(net_config_widths),
		offsetof(struct vfe_wire_net_config, speed), ret, err);
}

/* Data queues: pairs are told by max_virtqueue_pairs, which is there with MQ or RSS. */
static int
net_nr_queues(const struct vfe_virtio_dev *vdev, const union vdpa_config *config, uint16_t *ret,
	struct vfe_error *err)
{
	unsigned int pairs = 1;

	if ((vdev->device_features & (VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_RSS))) != 0)
		pairs = le16toh(config->net.max_virtqueue_pairs);
	if (pairs == 0 || 2 * pairs > vdev->num_queues)
		return vfe_error_set(
			err, -EPROTO, "%u queue pairs, but %u queues", pairs, vdev->num_queues);
	if (2 * pairs > VFE_VDPA_MAX_QUEUES)
		pairs = VFE_VDPA_MAX_QUEUES / 2;
	*ret = (uint16_t)(2 * pairs);
	return 0;
}

static int
net_config_compatible(
	const union vdpa_config *before, const union vdpa_config *now, struct vfe_error *err)
{
	if (memcmp(before->net.mac, now->net.mac, sizeof(now->net.mac)) != 0)
		return vfe_error_set(err, -EXDEV, "it came back with another MAC address");
	return 0;
}

static void
net_config_keep(const struct vdpa_vf *vf, union vdpa_config *config)
{
	(void)vf;
	(void)config;
}

static int
net_config_write(
	struct vdpa_vf *vf, uint32_t off, const uint8_t *buf, uint32_t len, struct vfe_error *err)
{
	(void)vf;
	(void)buf;
	return vfe_error_set(err, -EACCES,
		"%u bytes at %u of the configuration space, which is read-only", len, off);
}

static int
net_config_apply(struct vdpa_vf *vf, bool again, struct vfe_error *err)
{
	(void)vf;
	(void)again;
	(void)err;
	return 0;
}

/*
 * The front-end emulates the control queue and keeps the receive filters to itself: let everything
 * in.
 */
static void
net_blob(const struct vdpa_vf *vf, struct vfe_state *state)
{
	state->config.net = vf->config.net;
	state->has_rx_mode = true;
	state->rx_mode = 1u << VFE_NET_CTRL_RX_PROMISC;
}

static uint16_t
net_mtu(const union vdpa_config *config, uint64_t device_features)
{
	return (device_features & VFE_BIT(VFE_NET_F_MTU)) != 0 ? le16toh(config->net.mtu) : 0;
}

/* Without STATUS the link is always up (virtio 5.1.4). */
static bool
net_link_up(const union vdpa_config *config, uint64_t device_features)
{
	return (device_features & VFE_BIT(VFE_NET_F_STATUS)) == 0 ||
	       (le16toh(config->net.status) & VFE_NET_S_LINK_UP) != 0;
}

static void
net_info(const union vdpa_config *config, uint64_t device_features, struct vfe_vdpa_vf_info *ret)
{
	memcpy(ret->mac, config->net.mac, sizeof(ret->mac));
	ret->mtu = net_mtu(config, device_features);
	ret->link_up = net_link_up(config, device_features);
}

static void
net_describe(const union vdpa_config *config, uint64_t device_features, char *text, size_t size)
{
	snprintf(text, size, "link %s, MTU %u",
		net_link_up(config, device_features) ? "up" : "down",
		net_mtu(config, device_features));
}

/* A packet of 64 KiB in pages and its header, and as much again. */
static uint32_t
net_chain_max(const union vdpa_config *config, uint64_t device_features)
{
	(void)config;
	(void)device_features;
	return 64;
}

static bool
net_comes_back(uint16_t qid)
{
	return qid % 2 != 0; /* transmit queues */
}

/*
 * Left out of the guest's features: what needs the device's own control queue (the front-end
 * emulates one), packed rings and NOTIFICATION_DATA (indices and doorbells are those of split
 * rings), ACCESS_PLATFORM (no vIOMMU), RING_RESET (vhost-user has no message for it), and what
 * concerns PFs. GUEST_ANNOUNCE is the front-end's own doing, with its control queue.
 */
const struct vdpa_type vdpa_net_type = {
	.name = "net",
	.pci_device_id = VFE_PCI_DEVICE_VIRTIO_NET,
	.state_type = VFE_STATE_TYPE_NET,
	.protocol_features =
		VFE_BIT(VDPA_PROTOCOL_F_MQ) | VFE_BIT(VDPA_PROTOCOL_F_LOG_SHMFD) |
		VFE_BIT(VDPA_PROTOCOL_F_RARP) | VFE_BIT(VDPA_PROTOCOL_F_REPLY_ACK) |
		VFE_BIT(VDPA_PROTOCOL_F_NET_MTU) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ) |
		VFE_BIT(VDPA_PROTOCOL_F_CONFIG) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_SEND_FD) |
		VFE_BIT(VDPA_PROTOCOL_F_HOST_NOTIFIER) | VFE_BIT(VDPA_PROTOCOL_F_STATUS),
	.guest_features = VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_GUEST_CSUM) |
			  VFE_BIT(VFE_NET_F_MTU) | VFE_BIT(VFE_NET_F_MAC) |
			  VFE_BIT(VFE_NET_F_GUEST_TSO4) | VFE_BIT(VFE_NET_F_GUEST_TSO6) |
			  VFE_BIT(VFE_NET_F_GUEST_ECN) | VFE_BIT(VFE_NET_F_GUEST_UFO) |
			  VFE_BIT(VFE_NET_F_HOST_TSO4) | VFE_BIT(VFE_NET_F_HOST_TSO6) |
			  VFE_BIT(VFE_NET_F_HOST_ECN) | VFE_BIT(VFE_NET_F_HOST_UFO) |
			  VFE_BIT(VFE_NET_F_MRG_RXBUF) | VFE_BIT(VFE_NET_F_STATUS) |
			  VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_SPEED_DUPLEX) |
			  VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) |
			  VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
			  VFE_BIT(VFE_VIRTIO_F_IN_ORDER) | VFE_BIT(VFE_VIRTIO_F_ORDER_PLATFORM),
	.frontend_features = VFE_BIT(VFE_NET_F_GUEST_ANNOUNCE),
	.config_size = sizeof(struct vfe_wire_net_config),
	.queue_unit = 2, /* pairs */
	.ctrl = &vdpa_net_ctrl,
	.chain_max = net_chain_max,
	.comes_back = net_comes_back,
	.config_read = net_config_read,
	.nr_queues = net_nr_queues,
	.config_compatible = net_config_compatible,
	.config_keep = net_config_keep,
	.config_write = net_config_write,
	.config_apply = net_config_apply,
	.blob = net_blob,
	.mtu = net_mtu,
	.info = net_info,
	.describe = net_describe,
};
