/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Write a device state as the blob of the vendor dialect.
 */

#include "vfe_state.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

struct writer {
	uint8_t *at;
	uint32_t fields;
};

enum { TLV_SIZE = sizeof(struct vfe_wire_state_tlv) };

static void
field_put(struct writer *w, uint32_t type, const void *value, size_t size)
{
	struct vfe_wire_state_tlv tlv = {htole32(type), htole32((uint32_t)size)};

	memcpy(w->at, &tlv, sizeof(tlv));
	w->at += sizeof(tlv);
	if (size > 0)
		memcpy(w->at, value, size);
	w->at += size;
	w->fields++;
}

static void
common_put(struct writer *w, const struct vfe_state *state)
{
	struct vfe_wire_state_common common = {
		.device_feature = htole64(state->device_features),
		.driver_feature = htole64(state->driver_features),
		.msix_config = htole16(state->msix_config),
		.num_queues = htole16(state->num_queues),
		.device_status = state->device_status,
		.config_generation = state->config_generation,
	};

	field_put(w, VFE_STATE_COMMON_CFG, &common, sizeof(common));
}

static void
dev_cfg_put(struct writer *w, const struct vfe_state *state)
{
	if (state->type == VFE_STATE_TYPE_NET)
		field_put(w, VFE_STATE_DEV_CFG, &state->config.net, sizeof(state->config.net));
	else
		field_put(w, VFE_STATE_DEV_CFG, &state->config.blk, sizeof(state->config.blk));
}

static void
queue_put(struct writer *w, uint16_t index, const struct vfe_state_queue *q)
{
	struct vfe_wire_state_queue cfg = {
		.queue_index = htole16(index),
		.queue_size = htole16(q->size),
		.msix_vector = htole16(q->msix_vector),
		.enable = htole16(q->enable),
		.notify_off = htole16(q->notify_off),
		.desc = htole64(q->desc),
		.driver = htole64(q->driver),
		.device = htole64(q->device),
		.notify_data = htole16(q->notify_data),
		.reset = htole16(q->reset),
	};
	struct vfe_wire_state_q_run run = {
		.queue_index = htole16(index),
		.last_avail_idx = htole16(q->last_avail_idx),
		.last_used_idx = htole16(q->last_used_idx),
	};

	if (q->present)
		field_put(w, VFE_STATE_QUEUE_CFG, &cfg, sizeof(cfg));
	if (q->has_run)
		field_put(w, VFE_STATE_SPLIT_Q_RUN, &run, sizeof(run));
}

static size_t
queues_size(const struct vfe_state *state)
{
	size_t size = 0;
	uint16_t i;

	for (i = 0; i < state->num_queues; i++) {
		if (state->queues[i].present)
			size += TLV_SIZE + sizeof(struct vfe_wire_state_queue);
		if (state->queues[i].has_run)
			size += TLV_SIZE + sizeof(struct vfe_wire_state_q_run);
	}
	return size;
}

size_t
vfe_state_encoded_size(const struct vfe_state *state)
{
	size_t size = sizeof(struct vfe_wire_state_hdr);

	size += TLV_SIZE + sizeof(struct vfe_wire_state_common);
	size += TLV_SIZE;
	if (state->type == VFE_STATE_TYPE_NET)
		size += sizeof(state->config.net);
	else
		size += sizeof(state->config.blk);
	size += queues_size(state);
	if (state->type != VFE_STATE_TYPE_NET)
		return size;

	if (state->has_rx_mode)
		size += TLV_SIZE + sizeof(state->rx_mode);
	if (state->has_vlan)
		size += TLV_SIZE + sizeof(state->vlan);
	if (state->has_macs)
		size += 2 * TLV_SIZE + ((size_t)state->nr_unicast + state->nr_multicast) *
					       sizeof(state->unicast[0]);
	return size;
}

ssize_t
vfe_state_encode(const struct vfe_state *state, void *buf, size_t size)
{
	struct writer w = {0};
	bool net = state->type == VFE_STATE_TYPE_NET;
	size_t need = vfe_state_encoded_size(state);
	struct vfe_wire_state_hdr hdr;
	uint32_t rx_mode;
	uint16_t i;

	assert(state->nr_unicast <= VFE_STATE_MAX_MACS &&
		state->nr_multicast <= VFE_STATE_MAX_MACS);
	if (size < need)
		return -ENOSPC;

	w.at = (uint8_t *)buf + sizeof(hdr);
	common_put(&w, state);
	dev_cfg_put(&w, state);
	if (net && state->has_rx_mode) {
		rx_mode = htole32(state->rx_mode);
		field_put(&w, VFE_STATE_NET_RX_MODE, &rx_mode, sizeof(rx_mode));
	}
	for (i = 0; i < state->num_queues; i++)
		queue_put(&w, i, &state->queues[i]);

	/* last, because other parsers of this dialect expect the queues at fixed places */
	if (net && state->has_vlan)
		field_put(&w, VFE_STATE_NET_VLAN, state->vlan, sizeof(state->vlan));
	if (net && state->has_macs) {
		field_put(&w, VFE_STATE_NET_MAC_UNICAST, state->unicast,
			state->nr_unicast * sizeof(state->unicast[0]));
		field_put(&w, VFE_STATE_NET_MAC_MULTICAST, state->multicast,
			state->nr_multicast * sizeof(state->multicast[0]));
	}

	hdr.field_count = htole32(w.fields);
	memcpy(buf, &hdr, sizeof(hdr));
	assert((size_t)(w.at - (uint8_t *)buf) == need);
	return (ssize_t)need;
}
