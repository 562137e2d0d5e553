/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Life of a device state in memory, and whether another device could continue it.
 */

#include "vfe_state.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

int
vfe_state_init(struct vfe_state *state, enum vfe_state_type type, uint16_t num_queues)
{
	memset(state, 0, sizeof(*state));
	if (num_queues > VFE_STATE_MAX_QUEUES)
		return -EINVAL;
	state->type = type;
	if (num_queues > 0) {
		state->queues = calloc(num_queues, sizeof(*state->queues));
		if (state->queues == NULL)
			return -ENOMEM;
	}
	state->num_queues = num_queues;
	return 0;
}

void
vfe_state_fini(struct vfe_state *state)
{
	if (state == NULL)
		return;
	free(state->queues);
	state->queues = NULL;
	state->num_queues = 0;
}

static int
net_compatible(const struct vfe_state *mine, const struct vfe_state *theirs, struct vfe_error *err)
{
	const struct vfe_wire_net_config *m = &mine->config.net;
	const struct vfe_wire_net_config *t = &theirs->config.net;
	uint64_t seen = theirs->driver_features;

	if ((seen & VFE_BIT(VFE_NET_F_MAC)) && memcmp(m->mac, t->mac, sizeof(m->mac)) != 0)
		return vfe_error_set(err, -EXDEV,
			"MAC address is %02x:%02x:%02x:%02x:%02x:%02x, the guest knows "
			"%02x:%02x:%02x:%02x:%02x:%02x",
			m->mac[0], m->mac[1], m->mac[2], m->mac[3], m->mac[4], m->mac[5], t->mac[0],
			t->mac[1], t->mac[2], t->mac[3], t->mac[4], t->mac[5]);
	if ((seen & VFE_BIT(VFE_NET_F_MTU)) && m->mtu != t->mtu)
		return vfe_error_set(err, -EXDEV, "MTU is %u, the guest knows %u", le16toh(m->mtu),
			le16toh(t->mtu));
	if ((seen & (VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_RSS))) &&
		m->max_virtqueue_pairs != t->max_virtqueue_pairs)
		return vfe_error_set(err, -EXDEV, "%u queue pairs, the guest knows %u",
			le16toh(m->max_virtqueue_pairs), le16toh(t->max_virtqueue_pairs));
	return 0;
}

static int
blk_compatible(const struct vfe_state *mine, const struct vfe_state *theirs, struct vfe_error *err)
{
	struct vfe_wire_blk_config m = mine->config.blk;
	struct vfe_wire_blk_config t = theirs->config.blk;

	if (m.capacity != t.capacity)
		return vfe_error_set(err, -EXDEV,
			"capacity is %" PRIu64 " sectors, the guest knows %" PRIu64,
			le64toh(m.capacity), le64toh(t.capacity));
	if (m.blk_size != t.blk_size)
		return vfe_error_set(err, -EXDEV, "block size is %u, the guest knows %u",
			le32toh(m.blk_size), le32toh(t.blk_size));
	m.writeback = t.writeback; /* the driver's to write (virtio 5.2.5) */
	if (memcmp(&m, &t, sizeof(m)) != 0)
		return vfe_error_set(err, -EXDEV, "the block device configuration differs");
	return 0;
}

int
vfe_state_compatible(
	const struct vfe_state *mine, const struct vfe_state *theirs, struct vfe_error *err)
{
	uint64_t missing = theirs->driver_features & ~mine->device_features;

	if (mine->type != theirs->type)
		return vfe_error_set(
			err, -EXDEV, "one is a network device, the other a block device");
	if (missing != 0)
		return vfe_error_set(err, -EXDEV,
			"features 0x%" PRIx64 " that the guest uses are not offered (0x%" PRIx64
			")",
			missing, mine->device_features);
	if (mine->num_queues != theirs->num_queues)
		return vfe_error_set(err, -EXDEV, "%u queues, the guest knows %u", mine->num_queues,
			theirs->num_queues);
	if (mine->type == VFE_STATE_TYPE_NET)
		return net_compatible(mine, theirs, err);
	return blk_compatible(mine, theirs, err);
}
