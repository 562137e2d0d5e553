/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The state blob of the vendor dialect (vfe_wire_admin.h): encode and decode, host byte order.
 *
 * Pure functions on caller-owned memory; any thread. The decoder checks every length and count,
 * tolerates trailing padding and unknown optional fields, and refuses duplicates of what may be
 * there once. Queues are found by their index, in any order.
 */

#ifndef VFE_STATE_H
#define VFE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_wire_admin.h"
#include "vfe_wire_blk.h"
#include "vfe_wire_net.h"

enum {
	VFE_STATE_MAX_QUEUES = 1024,
	VFE_STATE_MAX_SIZE = 4 << 20, /* bytes; a larger blob is refused before anything is read */
	VFE_STATE_MAX_MACS = 256,
};

enum vfe_state_type {
	VFE_STATE_TYPE_NET,
	VFE_STATE_TYPE_BLK,
};

struct vfe_state_queue {
	bool present; /* QUEUE_CFG is there */
	uint16_t size;
	uint16_t msix_vector;
	bool enable;
	bool reset;
	uint16_t notify_off;
	uint16_t notify_data;
	uint64_t desc;   /* iova */
	uint64_t driver; /* iova */
	uint64_t device; /* iova */
	bool has_run;    /* SPLIT_Q_RUN_STATE is there */
	uint16_t last_avail_idx;
	uint16_t last_used_idx;
};

struct vfe_state_mac {
	uint8_t addr[6];
};

struct vfe_state {
	enum vfe_state_type type;
	uint64_t device_features;
	uint64_t driver_features;
	uint16_t msix_config;
	uint8_t device_status;
	uint8_t config_generation;
	uint16_t num_queues; /* entries of @queues */
	struct vfe_state_queue *queues;

	union {
		struct vfe_wire_net_config net; /* little-endian, as on the wire */
		struct vfe_wire_blk_config blk;
	} config;

	/* net, optional */
	bool has_rx_mode;
	uint32_t rx_mode; /* bit n = VFE_NET_CTRL_RX_* command n is on */
	bool has_vlan;
	uint8_t vlan[512]; /* bitmap of VLAN ids; our layout of the undefined type NET_VLAN */
	bool has_macs;
	uint16_t nr_unicast;
	uint16_t nr_multicast;
	struct vfe_state_mac unicast[VFE_STATE_MAX_MACS];
	struct vfe_state_mac multicast[VFE_STATE_MAX_MACS];
};

/* Prepare @state for @num_queues queues (all zero). Returns 0, -EINVAL (too many) or -ENOMEM. */
int vfe_state_init(struct vfe_state *state, enum vfe_state_type type, uint16_t num_queues);
void vfe_state_fini(struct vfe_state *state);

/* Bytes that vfe_state_encode() will write, without padding. */
size_t vfe_state_encoded_size(const struct vfe_state *state);

/*
 * Write the blob into @buf of @size bytes. Returns the bytes written, or -ENOSPC.
 * field_count counts every field. The caller pads with zeroes when the transfer needs it.
 */
ssize_t vfe_state_encode(const struct vfe_state *state, void *buf, size_t size);

/*
 * Read a blob into @state, which vfe_state_fini() releases after success (and which needs no
 * vfe_state_init() before). @type says which device configuration is expected.
 * Returns 0, or -EBADMSG with a text that names field, offset and value; -E2BIG; -ENOMEM.
 */
int vfe_state_decode(struct vfe_state *state, enum vfe_state_type type, const void *buf,
	size_t size, struct vfe_error *err);

/*
 * Could a device with configuration @mine continue what ran with @theirs? Compares what the guest
 * saw: features, MAC, MTU, queue pairs, number of queues. Returns 0, or -EXDEV with a text that
 * names the first difference.
 */
int vfe_state_compatible(
	const struct vfe_state *mine, const struct vfe_state *theirs, struct vfe_error *err);

#endif /* VFE_STATE_H */
