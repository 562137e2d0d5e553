/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vhost-user messages (QEMU docs/interop/vhost-user.rst), as librte_vhost hands them to external
 * message handlers. Native byte order.
 */

#ifndef VDPA_MSG_H
#define VDPA_MSG_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vdpa_msg_request {
	VDPA_MSG_GET_FEATURES = 1,
	VDPA_MSG_SET_FEATURES = 2,
	VDPA_MSG_SET_OWNER = 3,
	VDPA_MSG_RESET_OWNER = 4,
	VDPA_MSG_SET_MEM_TABLE = 5,
	VDPA_MSG_SET_LOG_BASE = 6,
	VDPA_MSG_SET_LOG_FD = 7,
	VDPA_MSG_SET_VRING_NUM = 8,
	VDPA_MSG_SET_VRING_ADDR = 9,
	VDPA_MSG_SET_VRING_BASE = 10,
	VDPA_MSG_GET_VRING_BASE = 11,
	VDPA_MSG_SET_VRING_KICK = 12,
	VDPA_MSG_SET_VRING_CALL = 13,
	VDPA_MSG_SET_VRING_ERR = 14,
	VDPA_MSG_GET_PROTOCOL_FEATURES = 15,
	VDPA_MSG_SET_PROTOCOL_FEATURES = 16,
	VDPA_MSG_GET_QUEUE_NUM = 17,
	VDPA_MSG_SET_VRING_ENABLE = 18,
	VDPA_MSG_SEND_RARP = 19,
	VDPA_MSG_NET_SET_MTU = 20,
	VDPA_MSG_SET_SLAVE_REQ_FD = 21,
	VDPA_MSG_GET_CONFIG = 24,
	VDPA_MSG_SET_CONFIG = 25,
	VDPA_MSG_SET_STATUS = 39,
	VDPA_MSG_GET_STATUS = 40,
	VDPA_MSG_MAX,
};

enum {
	VDPA_SLAVE_CONFIG_CHANGE = 2,
	VDPA_SLAVE_VRING_HOST_NOTIFIER = 3,
};

/* Protocol features, by bit number. */
enum {
	VDPA_PROTOCOL_F_MQ = 0,
	VDPA_PROTOCOL_F_LOG_SHMFD = 1,
	VDPA_PROTOCOL_F_RARP = 2,
	VDPA_PROTOCOL_F_REPLY_ACK = 3,
	VDPA_PROTOCOL_F_NET_MTU = 4,
	VDPA_PROTOCOL_F_SLAVE_REQ = 5,
	VDPA_PROTOCOL_F_CONFIG = 9,
	VDPA_PROTOCOL_F_SLAVE_SEND_FD = 10,
	VDPA_PROTOCOL_F_HOST_NOTIFIER = 11,
	VDPA_PROTOCOL_F_STATUS = 16,
};

enum {
	VDPA_MSG_VERSION = 1,
	VDPA_MSG_F_REPLY = 1 << 2,
	VDPA_MSG_F_NEED_REPLY = 1 << 3,
	VDPA_MSG_RING_MASK = 0xff,  /* of the u64 of KICK, CALL, ERR */
	VDPA_MSG_RING_NOFD = 0x100, /* no fd comes with it */
	VDPA_MSG_VRING_F_LOG = 1,
	VDPA_MSG_MAX_FDS = 8,
	VDPA_MSG_CONFIG_HDR = 12, /* offset, size, flags */
	VDPA_MSG_CONFIG_MAX = 256,
	VDPA_MSG_CONFIG_F_MIGRATION = 1, /* else a guest has written it */
};

struct vdpa_msg_hdr {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_hdr) == 12, "vhost-user header");

struct vdpa_msg_state {
	uint32_t index;
	uint32_t num;
} __attribute__((packed));

struct vdpa_msg_addr {
	uint32_t index;
	uint32_t flags;
	uint64_t desc;
	uint64_t used;
	uint64_t avail;
	uint64_t log;
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_addr) == 40, "vring address");

struct vdpa_msg_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t mmap_offset;
} __attribute__((packed));

struct vdpa_msg_memory {
	uint32_t nr_regions;
	uint32_t padding;
	struct vdpa_msg_region regions[VDPA_MSG_MAX_FDS];
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_memory) == 264, "memory table");

struct vdpa_msg_config {
	uint32_t offset;
	uint32_t size;
	uint32_t flags;
	uint8_t region[VDPA_MSG_CONFIG_MAX];
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_config) == 268, "config space");

struct vdpa_msg_area {
	uint64_t index;
	uint64_t size;
	uint64_t offset;
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_area) == 24, "vring area");

struct vdpa_msg_log {
	uint64_t size;
	uint64_t offset;
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg_log) == 16, "log area");

union vdpa_msg_payload {
	uint64_t u64;
	struct vdpa_msg_state state;
	struct vdpa_msg_addr addr;
	struct vdpa_msg_memory memory;
	struct vdpa_msg_config config;
	struct vdpa_msg_log log;
	uint8_t room[632]; /* of librte_vhost 22.11: its largest payload */
} __attribute__((packed));

/*
 * What librte_vhost passes to external handlers: header and payload, which are the protocol's, and
 * behind them the fds, whose place depends on the library's largest payload; vdpa_msg_has_fds()
 * tells whether they are where 22.11 has them.
 */
struct vdpa_msg {
	struct vdpa_msg_hdr hdr;
	union vdpa_msg_payload payload;
	int fds[VDPA_MSG_MAX_FDS]; /* -1 behind the last one */
	int nr_fds;
} __attribute__((packed));
static_assert(sizeof(struct vdpa_msg) == 680, "message context of librte_vhost 22.11");

/* vdpa_msg.c */
bool vdpa_msg_has_fds(const struct vdpa_msg *msg); /* are they where librte_vhost 22.11 has them? */
void vdpa_msg_close_fds(struct vdpa_msg *msg);

#endif /* VDPA_MSG_H */
