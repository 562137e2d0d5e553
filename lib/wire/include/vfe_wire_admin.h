/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vendor live-migration dialect of the admin queue: commands, state blob. Little-endian.
 *
 * A command is one descriptor chain: readable {class, command}, readable input, readable bulk
 * input, writable result or bulk output, writable status byte. Reserved and padding bytes carry
 * stale data and are ignored. See doc/admin-protocol.md.
 */

#ifndef VFE_WIRE_ADMIN_H
#define VFE_WIRE_ADMIN_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Feature bits of a PF. Bit 41 is the standard's; 42 to 49 belong to this dialect. */
enum {
	VFE_ADMIN_F_VQ = 41,
	VFE_ADMIN_F_VQ_INDIRECT_DESC = 42,
	VFE_ADMIN_F_VQ_IN_ORDER = 43,
	VFE_ADMIN_F_MIGRATION = 44,
	VFE_ADMIN_F_DYNAMIC_STATE_TRACK = 45,
	VFE_ADMIN_F_DIRTY_PUSH_BITMAP = 46,
	VFE_ADMIN_F_DIRTY_PUSH_BYTEMAP = 47,
	VFE_ADMIN_F_DIRTY_PULL_BITMAP = 48,
	VFE_ADMIN_F_DIRTY_PULL_BYTEMAP = 49,
};

enum {
	VFE_ADMIN_CLASS_MIGRATION = 64,
	VFE_ADMIN_MIG_IDENTITY = 0,
	VFE_ADMIN_MIG_GET_STATUS = 1,
	VFE_ADMIN_MIG_MODIFY_STATUS = 2,
	VFE_ADMIN_MIG_PENDING_BYTES = 3,
	VFE_ADMIN_MIG_SAVE_STATE = 4,
	VFE_ADMIN_MIG_RESTORE_STATE = 5,

	VFE_ADMIN_CLASS_DIRTY = 65,
	VFE_ADMIN_DIRTY_IDENTITY = 0,
	VFE_ADMIN_DIRTY_START = 1,
	VFE_ADMIN_DIRTY_STOP = 2,
	VFE_ADMIN_DIRTY_PENDING_BYTES = 3,
	VFE_ADMIN_DIRTY_REPORT = 4,
};

/* Status byte: code in bits 6:0, do-not-retry in bit 7. */
enum {
	VFE_ADMIN_S_OK = 0,
	VFE_ADMIN_S_ERR = 1,
	VFE_ADMIN_S_INVALID_CLASS = 2,
	VFE_ADMIN_S_INVALID_COMMAND = 3,
	VFE_ADMIN_S_DATA_TRANSFER = 4,
	VFE_ADMIN_S_INTERNAL = 5,
	VFE_ADMIN_S_CODE_MASK = 0x7f,
	VFE_ADMIN_S_DNR = 0x80,
};

/* Internal status of a VF. */
enum vfe_admin_vf_status {
	VFE_ADMIN_VF_INIT = 0,
	VFE_ADMIN_VF_RUNNING = 1,
	VFE_ADMIN_VF_QUIESCED = 2,
	VFE_ADMIN_VF_FREEZED = 3,
};

enum {
	VFE_ADMIN_TRACK_PUSH_BITMAP = 1,
	VFE_ADMIN_TRACK_PUSH_BYTEMAP = 2,
	VFE_ADMIN_TRACK_PULL_BITMAP = 3,
	VFE_ADMIN_TRACK_PULL_BYTEMAP = 4,
};

struct vfe_wire_admin_hdr {
	uint8_t class_;
	uint8_t cmd;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_hdr) == 2, "admin header");

struct vfe_wire_admin_mig_identity {
	uint16_t major;
	uint16_t minor;
	uint16_t tertiary;
	uint16_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_mig_identity) == 8, "64/0 result");

/* Input of 64/1 and 64/3; vdev_id is the VF number, counted from 1. */
struct vfe_wire_admin_vdev {
	uint16_t vdev_id;
	uint16_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_vdev) == 4, "64/1 input");

struct vfe_wire_admin_get_status_result {
	uint16_t status;
	uint16_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_get_status_result) == 4, "64/1 result");

struct vfe_wire_admin_modify_status {
	uint16_t vdev_id;
	uint16_t status;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_modify_status) == 4, "64/2 input");

/* Result of 64/3 and 65/3. */
struct vfe_wire_admin_pending_result {
	uint64_t bytes;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_pending_result) == 8, "64/3 result");

/* Input of 64/4 and 64/5; for 64/5 the blob follows in a descriptor of its own. */
struct vfe_wire_admin_state {
	uint16_t vdev_id;
	uint16_t reserved[3];
	uint64_t offset;
	uint64_t length;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_state) == 24, "64/4 input");
static_assert(offsetof(struct vfe_wire_admin_state, offset) == 8, "64/4 input");

struct vfe_wire_admin_dirty_identity {
	uint16_t log_max_pages_pull_bitmap;
	uint16_t log_max_pages_pull_bytemap;
	uint32_t max_track_ranges;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_dirty_identity) == 8, "65/0 result");

struct vfe_wire_admin_sge {
	uint64_t addr; /* iova of the PF */
	uint32_t len;
	uint32_t reserved;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_sge) == 16, "65/1 SGE");

/* Input of 65/1; the SGEs of the push modes follow in the same descriptor. */
struct vfe_wire_admin_track_start {
	uint16_t vdev_id;
	uint16_t mode;
	uint32_t page_size;
	uint64_t range_addr;
	uint64_t range_length;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_track_start) == 24, "65/1 input");

/* Input of 65/2 and 65/3. */
struct vfe_wire_admin_track_range {
	uint16_t vdev_id;
	uint16_t reserved[3];
	uint64_t range_addr;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_track_range) == 16, "65/2 input");

struct vfe_wire_admin_track_report {
	uint16_t vdev_id;
	uint16_t reserved[3];
	uint64_t offset;
	uint64_t length;
	uint64_t range_addr;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_admin_track_report) == 32, "65/4 input");

/* State blob: u32 field count, then packed TLVs. */
enum {
	VFE_STATE_COMMON_CFG = 0,
	VFE_STATE_DEV_CFG = 1,
	VFE_STATE_QUEUE_CFG = 2,
	VFE_STATE_SPLIT_Q_RUN = 3,
	VFE_STATE_NET_RX_MODE = 4,
	VFE_STATE_NET_VLAN = 5,
	VFE_STATE_NET_MAC_UNICAST = 6,
	VFE_STATE_NET_MAC_MULTICAST = 7,
	VFE_STATE_IN_FLIGHT_DESC = 8,
	VFE_STATE_COMPLETED_DESC = 9,
	VFE_STATE_SUBVENDOR = 10,

	/* the blob of RESTORE is padded to a multiple of this; devices fetch it page by page */
	VFE_STATE_ALIGN = 4096,
};

struct vfe_wire_state_hdr {
	uint32_t field_count;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_state_hdr) == 4, "state header");

struct vfe_wire_state_tlv {
	uint32_t type;
	uint32_t size; /* of the value only */
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_state_tlv) == 8, "state TLV");

struct vfe_wire_state_common {
	uint32_t device_feature_select;
	uint64_t device_feature;
	uint32_t driver_feature_select;
	uint64_t driver_feature;
	uint16_t msix_config;
	uint16_t num_queues;
	uint16_t queue_select;
	uint8_t device_status;
	uint8_t config_generation;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_state_common) == 32, "COMMON_CFG");
static_assert(offsetof(struct vfe_wire_state_common, driver_feature) == 16, "COMMON_CFG");
static_assert(offsetof(struct vfe_wire_state_common, msix_config) == 24, "COMMON_CFG");

struct vfe_wire_state_queue {
	uint16_t queue_index;
	uint16_t queue_size;
	uint16_t msix_vector;
	uint16_t enable;
	uint16_t notify_off;
	uint64_t desc;
	uint64_t driver;
	uint64_t device;
	uint16_t notify_data;
	uint16_t reset;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_state_queue) == 38, "QUEUE_CFG");
static_assert(offsetof(struct vfe_wire_state_queue, desc) == 10, "QUEUE_CFG");
static_assert(offsetof(struct vfe_wire_state_queue, notify_data) == 34, "QUEUE_CFG");

struct vfe_wire_state_q_run {
	uint16_t queue_index;
	uint16_t last_avail_idx;
	uint16_t last_used_idx;
} __attribute__((packed));
static_assert(sizeof(struct vfe_wire_state_q_run) == 6, "SPLIT_Q_RUN_STATE");

#endif /* VFE_WIRE_ADMIN_H */
