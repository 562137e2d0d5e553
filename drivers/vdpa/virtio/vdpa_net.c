/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What is special about virtio-net: features, queue count, configuration space.
 */

#include <endian.h>
#include <errno.h>

#include "vdpa_priv.h"

/*
 * The features that a guest may have of the device. Left out: what needs the device's own control
 * queue (the front-end emulates one), packed rings and NOTIFICATION_DATA (indices and doorbells
 * are those of split rings), ACCESS_PLATFORM (no vIOMMU), RING_RESET (vhost-user has no message
 * for it), and what concerns PFs.
 */
static const uint64_t net_guest_features =
	VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_GUEST_CSUM) | VFE_BIT(VFE_NET_F_MTU) |
	VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_NET_F_GUEST_TSO4) | VFE_BIT(VFE_NET_F_GUEST_TSO6) |
	VFE_BIT(VFE_NET_F_GUEST_ECN) | VFE_BIT(VFE_NET_F_GUEST_UFO) | VFE_BIT(VFE_NET_F_HOST_TSO4) |
	VFE_BIT(VFE_NET_F_HOST_TSO6) | VFE_BIT(VFE_NET_F_HOST_ECN) | VFE_BIT(VFE_NET_F_HOST_UFO) |
	VFE_BIT(VFE_NET_F_MRG_RXBUF) | VFE_BIT(VFE_NET_F_STATUS) | VFE_BIT(VFE_NET_F_MQ) |
	VFE_BIT(VFE_NET_F_SPEED_DUPLEX) | VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) |
	VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
	VFE_BIT(VFE_VIRTIO_F_IN_ORDER) | VFE_BIT(VFE_VIRTIO_F_ORDER_PLATFORM);

/*
 * GUEST_ANNOUNCE is the front-end's own doing, with its control queue. LOG_ALL is offered whatever
 * the device can: without its help a migration takes longer, but loses nothing.
 */
uint64_t
vdpa_net_features_offered(uint64_t device_features)
{
	return (device_features & net_guest_features) | VFE_BIT(VFE_NET_F_GUEST_ANNOUNCE) |
	       VFE_BIT(VFE_VHOST_F_LOG_ALL) | VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES);
}

/* The device's addresses are always those of the domain, never bare physical ones. */
uint64_t
vdpa_net_features_driver(uint64_t device_features, uint64_t guest_features)
{
	return device_features &
	       ((guest_features & net_guest_features) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
		       VFE_BIT(VFE_VIRTIO_F_RING_RESET));
}

uint64_t
vdpa_net_protocol_features(void)
{
	return VFE_BIT(VDPA_PROTOCOL_F_MQ) | VFE_BIT(VDPA_PROTOCOL_F_LOG_SHMFD) |
	       VFE_BIT(VDPA_PROTOCOL_F_RARP) | VFE_BIT(VDPA_PROTOCOL_F_REPLY_ACK) |
	       VFE_BIT(VDPA_PROTOCOL_F_NET_MTU) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ) |
	       VFE_BIT(VDPA_PROTOCOL_F_CONFIG) | VFE_BIT(VDPA_PROTOCOL_F_SLAVE_SEND_FD) |
	       VFE_BIT(VDPA_PROTOCOL_F_HOST_NOTIFIER) | VFE_BIT(VDPA_PROTOCOL_F_STATUS);
}

/* The fields of struct vfe_wire_net_config. */
static const uint8_t net_config_widths[] = {1, 1, 1, 1, 1, 1, 2, 2, 2, 4, 1, 1, 2, 4};

int
vdpa_net_config_read(
	struct vfe_virtio_dev *vdev, struct vfe_wire_net_config *ret, struct vfe_error *err)
{
	struct vfe_wire_net_config config = {0};
	unsigned int nr = 0;
	uint32_t len = 0;
	int rc;

	/* older devices have a shorter structure; mac, status, pairs and MTU must be there */
	while (nr < VFE_ARRAY_SIZE(net_config_widths) &&
		len + net_config_widths[nr] <= vdev->device.length)
		len += net_config_widths[nr++];
	if (len < offsetof(struct vfe_wire_net_config, speed))
		return vfe_error_set(err, -EPROTO,
			"device configuration of %llu bytes is too short",
			(unsigned long long)vdev->device.length);
	rc = vfe_virtio_config_read_fields(vdev, net_config_widths, nr, &config, err);
	if (rc == 0)
		*ret = config;
	return rc;
}

/* Data queues: pairs are told by max_virtqueue_pairs, which is there with MQ or RSS. */
int
vdpa_net_nr_queues(const struct vfe_virtio_dev *vdev, const struct vfe_wire_net_config *config,
	uint16_t *ret, struct vfe_error *err)
{
	unsigned int pairs = 1;

	if ((vdev->device_features & (VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_RSS))) != 0)
		pairs = le16toh(config->max_virtqueue_pairs);
	if (pairs == 0 || 2 * pairs > vdev->num_queues)
		return vfe_error_set(
			err, -EPROTO, "%u queue pairs, but %u queues", pairs, vdev->num_queues);
	if (2 * pairs > VFE_VDPA_MAX_QUEUES)
		pairs = VFE_VDPA_MAX_QUEUES / 2;
	*ret = (uint16_t)(2 * pairs);
	return 0;
}

uint16_t
vdpa_net_mtu(const struct vfe_wire_net_config *config, uint64_t device_features)
{
	return (device_features & VFE_BIT(VFE_NET_F_MTU)) != 0 ? le16toh(config->mtu) : 0;
}

/* Without STATUS the link is always up (virtio 5.1.4). */
bool
vdpa_net_link_up(const struct vfe_wire_net_config *config, uint64_t device_features)
{
	return (device_features & VFE_BIT(VFE_NET_F_STATUS)) == 0 ||
	       (le16toh(config->status) & VFE_NET_S_LINK_UP) != 0;
}
