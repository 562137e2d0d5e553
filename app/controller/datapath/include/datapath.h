/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Data path of the software DPU: worker threads that move packets between queues and back ends.
 *
 * The control thread (the libev loop) owns every object here; a worker only borrows what it was
 * given. Each call that changes what a worker sees runs on that worker between two bursts, and
 * returns when it is done there: bursts are bounded and workers never block, so this takes
 * microseconds. Afterwards the worker touches nothing of the old state any more: queues are
 * drained, used indices written.
 */

#ifndef DATAPATH_H
#define DATAPATH_H

#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_iova.h"
#include "vfe_vring.h"
#include "vfe_wire_net.h"

enum {
	DP_MAX_WORKERS = 64,
	DP_MAX_PAIRS = 128,
	DP_MAX_MACS = 256,
	DP_MAX_SPIN_US = 1000,
};

enum dp_backend {
	DP_BACKEND_NULL, /* swallows what the guest sends, never delivers */
	/*
	 * Gives back to receive queue i what came from transmit queue i. While that has no buffers
	 * packets wait in the transmit queue; what its driver did not negotiate (checksum to be
	 * filled in, segmentation) or what does not fit is dropped. The receive filter does not
	 * apply.
	 */
	DP_BACKEND_LOOPBACK,
	DP_BACKEND_TAP,      /* multi-queue TAP with virtio-net header: the representor */
	DP_BACKEND_SCRIBBLE, /* for tests: writes records into receive buffers all the time */
};

struct ev_loop;
struct dp_engine;
struct dp_port;

struct dp_engine_cfg {
	uint16_t nr_workers; /* 1..DP_MAX_WORKERS */
	const int *cpus;     /* CPU of each worker, or NULL = not pinned */
	bool polling;        /* workers never sleep while a queue of theirs is started */
	/*
	 * How long a worker looks at the empty ring of a disk before it sleeps, as long as requests
	 * have come in that time; microseconds up to DP_MAX_SPIN_US, 0 = never.
	 */
	uint32_t blk_spin_us;
	/*
	 * A queue broke (hostile ring, memory gone, TAP deleted). Called on the control thread,
	 * from the event loop and never from inside one of the functions below. @ctx is the port's;
	 * @why says what was wrong, with the value, and is gone with the queue's stop. The callback
	 * may stop queues, but not destroy a port.
	 */
	void (*on_broken)(void *ctx, uint16_t qid, const char *why);
};

/* Start the workers. *@ret is destroyed by dp_engine_destroy() after all ports. */
int dp_engine_create(struct ev_loop *loop, const struct dp_engine_cfg *cfg, struct dp_engine **ret,
	struct vfe_error *err);
void dp_engine_destroy(struct dp_engine *engine);

struct dp_port_cfg {
	const char *name; /* BDF, for texts */
	enum dp_backend backend;
	const char *tap_name; /* DP_BACKEND_TAP; created when absent, removed with the port if so */
	uint16_t max_pairs;   /* 1..DP_MAX_PAIRS; queue 2i receives (guest view), 2i+1 transmits */
	void *ctx;            /* for on_broken */
};

/* Create the back end. Returns 0 or -errno with a text that says what to do. */
int dp_port_create(struct dp_engine *engine, const struct dp_port_cfg *cfg, struct dp_port **ret,
	struct vfe_error *err);
void dp_port_destroy(struct dp_port *port); /* stops its queues first */

/* ifindex of the representor, 0 when the back end has none. */
unsigned int dp_port_ifindex(const struct dp_port *port);

struct dp_queue_cfg {
	struct vfe_vring_cfg ring;
	int kick_fd; /* eventfd that the driver's doorbell writes; borrowed; -1 when polling */
	int call_fd; /* eventfd of the queue's MSI-X vector; duplicated; -1 = no interrupt */
};

/*
 * Start queue @qid with the negotiated features of ring.features. 0 or -errno with a text that does
 * not name the queue; -EALREADY: it is started.
 */
int dp_queue_start(
	struct dp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err);

/*
 * Stop queue @qid: everything taken has been given back, used index written. The indices where it
 * can go on are stored (they are equal when everything taken was given back, which it is).
 * A queue that is not started: 0 and the outputs untouched.
 */
int dp_queue_stop(struct dp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used);

/*
 * Around starting or stopping many queues of @port: its workers wait meanwhile, which spares each
 * queue the way to its worker and back. Nothing in between may wait. Where starting a queue takes
 * long, nobody waits and nothing is spared. Each hold has its release; in between there may be
 * others.
 */
void dp_port_hold(struct dp_port *port);
void dp_port_release(struct dp_port *port);

/* Change the interrupt of a started queue (MSI-X mask, new eventfd); -1 = none. */
void dp_queue_set_call(struct dp_port *port, uint16_t qid, int call_fd);

/* Treat @qid as kicked: look at the ring once. For doorbells that come by register write. */
void dp_queue_kick(struct dp_port *port, uint16_t qid);

/*
 * Use @map for all queues of the port from now on (NULL: no memory, queues whose rings are gone
 * break). When this returns, the old map is not used any more.
 */
void dp_port_set_map(struct dp_port *port, const struct vfe_iova_map *map);

/*
 * Tell @watch (NULL: nobody) of all that is written to the driver's memory, from several workers at
 * a time. When this returns, all of them do so and the old watch is not called any more.
 */
void dp_port_set_watch(struct dp_port *port, const struct vfe_vring_watch *watch);

/* What the guest's driver receives. Applied between two bursts. */
struct dp_rx_filter {
	bool promisc;
	bool allmulti;
	bool alluni;
	bool nomulti;
	bool nouni;
	bool nobcast;
	uint8_t mac[6];
	uint16_t nr_unicast;
	uint16_t nr_multicast;
	uint8_t unicast[DP_MAX_MACS][6];
	uint8_t multicast[DP_MAX_MACS][6];
	bool vlan_filter; /* CTRL_VLAN negotiated: only these ids pass, untagged always */
	uint8_t vlan[4096 / 8];
};

/* 0, or -ENOMEM and the old filter stays. */
int dp_port_set_filter(struct dp_port *port, const struct dp_rx_filter *filter);

/* Pairs in use (control queue MQ); receive traffic is spread over these only. */
int dp_port_set_pairs(struct dp_port *port, uint16_t pairs, struct vfe_error *err);

/* Offloads and MTU that the negotiated features allow the back end to use (TUNSETOFFLOAD). */
int dp_port_set_features(struct dp_port *port, uint64_t features, struct vfe_error *err);
int dp_port_set_mtu(struct dp_port *port, uint16_t mtu, struct vfe_error *err);

/* Send a frame of the device itself to the network. 0 or -errno; without a network: 0. */
int dp_port_send(struct dp_port *port, const void *frame, size_t len);

/* What DP_BACKEND_SCRIBBLE writes, in the byte order of the CPU here. */
struct dp_record {
	uint64_t iova;     /* where */
	uint64_t sequence; /* from 1, each number once per pair */
};

/*
 * The records of the receive queue of @pair as last written: of a stopped queue those that are in
 * memory now. *@ret is freed with free(). 0, -EINVAL (no such pair or another back end), -ENOMEM.
 */
int dp_port_records(struct dp_port *port, uint16_t pair, struct dp_record **ret, uint32_t *ret_nr);

/*
 * Let all ports with this back end write (as from the start) or pause: nothing is written any more
 * when this returns.
 */
void dp_engine_scribble(struct dp_engine *engine, bool on);

struct dp_queue_stats {
	uint64_t packets;
	uint64_t bytes;
	uint64_t dropped; /* no buffer, filter, back end full */
	uint64_t errors;  /* malformed packets or offload requests of the guest */
	uint64_t kicks;   /* doorbell events seen by the worker */
	uint64_t signals; /* interrupts sent */
	bool started;
};

/* A snapshot; single counters may lag behind each other. Any thread. */
void dp_queue_stats(const struct dp_port *port, uint16_t qid, struct dp_queue_stats *ret);

#endif /* DATAPATH_H */
