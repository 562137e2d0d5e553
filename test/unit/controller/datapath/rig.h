/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A port of the data path with a fake driver on it, for tests.
 */

#ifndef RIG_H
#define RIG_H

#include <ev.h>

#include "datapath.h"
#include "fake_driver.h"

enum {
	RIG_PAIRS = 2,
	RIG_TIMEOUT_MS = 5000,
	RIG_EVENT_IDX = 1, /* flags of rig_start() */
	RIG_POLLING = 2,
	RIG_MERGE = 4,
	RIG_TSO = 8,      /* checksum and segmentation in both directions */
	RIG_WORKERS = 16, /* two of them */
};

struct rig_queue {
	struct fake_ring ring;
	int kick_fd;
	int call_fd;
	uint64_t features;
};

struct rig {
	struct fake_mem mem;
	struct ev_loop *loop;
	struct dp_engine *engine;
	struct dp_port *port;
	struct rig_queue q[2 * RIG_PAIRS];
	uint64_t features;
	bool polling;
	uint16_t nr_pairs;

	unsigned int nr_broken; /* calls of on_broken */
	uint16_t broken_qid;
	char broken_why[300];
};

/* Build engine, port and rings of @size entries; nothing is started. */
void rig_init(struct rig *rig, enum dp_backend backend, unsigned int flags, uint16_t size);
/* The same with a TAP of this name. Returns the result of dp_port_create(). */
int rig_init_tap(struct rig *rig, const char *tap, unsigned int flags, uint16_t size);
void rig_fini(struct rig *rig);

void rig_start_queue(struct rig *rig, uint16_t qid);
void rig_start_all(struct rig *rig);

/* Show what was added to the ring of @qid, and kick when the device wants it. Returns that. */
bool rig_show(struct rig *rig, uint16_t qid);

/* A transmit packet: header and payload in one buffer, or in @parts. */
void rig_send(struct rig *rig, uint16_t qid, const struct vfe_wire_net_hdr *hdr,
	const uint8_t *data, uint32_t len, uint16_t parts);

/* @n receive buffers of @len bytes each. */
void rig_post(struct rig *rig, uint16_t qid, uint32_t len, unsigned int n);

/* Next used chain of @qid, waiting for the interrupt. Returns its head; fails after a while. */
int rig_wait(struct rig *rig, uint16_t qid, uint32_t *ret_len);

/* Next received packet with its header; merges buffers. Returns the bytes in @buf. */
uint32_t rig_receive(struct rig *rig, uint16_t qid, uint8_t *buf, uint32_t size);

/* Run the event loop until on_broken has been called @n times in all. */
void rig_wait_broken(struct rig *rig, unsigned int n);

struct dp_queue_stats rig_stats(const struct rig *rig, uint16_t qid);

/* A wait until the counters of @qid say @packets + @dropped + @errors = @n. */
struct dp_queue_stats rig_wait_stats(const struct rig *rig, uint16_t qid, uint64_t n);

/* A wait until the worker has seen @n kicks of @qid. */
void rig_wait_kicks(const struct rig *rig, uint16_t qid, uint64_t n);

#endif /* RIG_H */
