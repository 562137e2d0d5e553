/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vhost-user messages, and what the small front-ends of the benchmarks share besides.
 *
 * These are programs of one thread that measure and end: whatever goes wrong ends them with a line
 * that says what. No wait is without a limit.
 */
#ifndef VHOST_MSG_H
#define VHOST_MSG_H

#include <stdbool.h>
#include <stdint.h>

enum {
	VHOST_TIMEOUT_MS = 10000, /* for an answer */
	VHOST_CONNECT_TIMEOUT_MS = 30000,
	VHOST_MAX_FDS = 8,
	VHOST_MAX_REGIONS = 2, /* of these front-ends */
	VHOST_MAX_CONFIG = 256,
};

/* Requests, protocol features and flags that are used here. */
enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_LOG_BASE = 6,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	SET_VRING_ERR = 14,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_BACKEND_REQ_FD = 21,
	GET_CONFIG = 24,
	SET_STATUS = 39,
	GET_STATUS = 40,
	NR_REQUESTS,
	BACKEND_VRING_HOST_NOTIFIER = 3,
	PF_MQ = 0,
	PF_LOG_SHMFD = 1,
	PF_REPLY_ACK = 3,
	PF_BACKEND_REQ = 5,
	PF_CONFIG = 9,
	PF_BACKEND_SEND_FD = 10,
	PF_HOST_NOTIFIER = 11,
	PF_STATUS = 16,
	FLAG_VERSION = 1,
	FLAG_REPLY = 1 << 2,
	FLAG_NEED_REPLY = 1 << 3,
	VRING_F_LOG = 1 << 0,
	RING_NOFD = 0x100,
	STATUS_DRIVER_OK = 4,
};

#define F_LOG_ALL           (1ULL << 26)
#define F_PROTOCOL_FEATURES (1ULL << 30)
#define F_VERSION_1         (1ULL << 32)

struct msg_region {
	uint64_t gpa;
	uint64_t size;
	uint64_t uva;
	uint64_t offset;
};

struct msg {
	uint32_t request;
	uint32_t flags;
	uint32_t size;
	union {
		uint64_t u64;
		struct {
			uint32_t index;
			uint32_t num;
		} state;
		struct {
			uint32_t index;
			uint32_t flags;
			uint64_t desc;
			uint64_t used;
			uint64_t avail;
			uint64_t log;
		} addr;
		struct {
			uint32_t nregions;
			uint32_t padding;
			struct msg_region regions[VHOST_MAX_REGIONS];
		} mem;
		struct {
			uint64_t size;
			uint64_t offset;
		} log;
		struct {
			uint64_t index;
			uint64_t size;
			uint64_t offset;
		} area;
		struct {
			uint32_t offset;
			uint32_t size;
			uint32_t flags;
			uint8_t bytes[VHOST_MAX_CONFIG];
		} config;
	} u;
} __attribute__((packed));

#define MSG_HDR        12
#define MSG_CONFIG_HDR 12

/* Say what went wrong, with errno, and end the program. */
_Noreturn void die(const char *what);

/* Send @m with @nr_fds file descriptors, which stay the caller's. */
void msg_send(int sock, const struct msg *m, const int *fds, int nr_fds);

/*
 * Receive a message. @fds has room for VHOST_MAX_FDS, which are the caller's then. Returns their
 * number, or -1 when the other end has closed the connection.
 */
int msg_recv_fds(int sock, struct msg *m, int *fds);

/* The same when the other end must be there and sends one fd at most: returns it, or -1. */
int msg_recv(int sock, struct msg *m);

/* A socket that listens on @path, which is removed before; accepting waits for a limited time. */
int listen_at(const char *path);
int accept_from(int listener);

/* Connect to the socket @path. */
int connect_to(const char *path);

/* Monotonic time in nanoseconds. */
int64_t now_ns(void);

/* Run on @cpu only from now on. */
void pin(int cpu);

#endif
