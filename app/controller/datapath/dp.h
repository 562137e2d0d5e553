/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the parts of the data path share: engine, workers, ports, pairs and queues.
 *
 * The control thread creates and frees everything. A pair (receive and transmit queue) belongs to
 * one worker for its whole life; what is marked "worker" below is touched by that worker only, or
 * by the control thread while the queue is not attached to it, or inside a request (see
 * dp_worker_call()), when the worker runs the control thread's function.
 */

#ifndef DP_H
#define DP_H

#include <ev.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "datapath.h"
#include "vfe_signal.h"
#include "vfe_vring_burst.h"

enum {
	DP_CACHE_LINE = 64,
	DP_BURST = 64,     /* packets per visit of a queue */
	DP_TAP_BURST = 32, /* the same where each costs a system call */
	DP_MAX_IOV = 1024, /* parts of a packet; what readv(2) takes */
	DP_HDR_SIZE = sizeof(struct vfe_wire_net_hdr),
	DP_ETH_SIZE = 14,
	DP_MAX_PACKET = DP_HDR_SIZE + DP_ETH_SIZE + 4 + 65535, /* header, Ethernet, VLAN, data */
};

struct dp_pair;
struct dp_worker;

/* Something in a worker's epoll set. Level or edge is the owner's choice. */
struct dp_source {
	void (*on_event)(struct dp_source *src, uint32_t events);
	int fd;
	bool watched;
};

/* Written by one thread, read by any: relaxed, and no locked instruction. */
typedef _Atomic uint64_t dp_counter;

static inline void
dp_count(dp_counter *c, uint64_t n)
{
	atomic_store_explicit(
		c, atomic_load_explicit(c, memory_order_relaxed) + n, memory_order_relaxed);
}

struct dp_queue {
	struct vfe_vring ring; /* worker */

	/* One visit: at most a burst. True when there may be more to do at once. NULL: none. */
	bool (*poll)(struct dp_queue *q);
	struct dp_pair *pair; /* NULL: of a block port */
	struct dp_worker *worker;
	uint16_t qid;
	bool ready;        /* worker: on its list of queues to visit */
	bool attached;     /* worker: visited and watched */
	bool call_pending; /* worker: an interrupt was due while there was no call_fd */
	int call_fd;       /* worker */
	struct dp_source kick;
	STAILQ_ENTRY(dp_queue) ready_link;
	TAILQ_ENTRY(dp_queue) attached_link;

	struct {
		dp_counter packets;
		dp_counter bytes;
		dp_counter dropped;
		dp_counter errors;
		dp_counter kicks;
		dp_counter signals;
	} stats;

	atomic_bool started; /* written by the control thread */
	atomic_bool kicked;  /* dp_queue_kick() */
	atomic_bool broke;   /* to be reported by the control thread */
} __attribute__((aligned(DP_CACHE_LINE)));

struct dp_tap_pair;
struct dp_scribble;

struct dp_pair {
	struct dp_queue rx;
	struct dp_queue tx;
	struct dp_port *port;
	uint16_t index;
	const struct dp_rx_filter *filter; /* worker; NULL: everything passes */
	struct dp_tap_pair *tap;           /* TAP only */
	struct dp_scribble *scribble;      /* scribble only; worker */
};

/* What a back end does. All but poll functions run on the control thread or inside a request. */
struct dp_backend_ops {
	int (*create)(struct dp_port *port, const char *tap_name, struct vfe_error *err);
	void (*destroy)(struct dp_port *port);
	bool (*rx_poll)(struct dp_queue *q);
	bool (*tx_poll)(struct dp_queue *q);
	/* control thread, before the queue is attached */
	int (*prepare)(struct dp_queue *q, struct vfe_error *err);
	/* inside a request: queues of the pair were attached or detached */
	int (*update)(struct dp_pair *pair);
	/* inside a request: give back what was taken ahead, the map is about to go */
	void (*release)(struct dp_queue *q);
	int (*set_pairs)(struct dp_port *port, uint16_t pairs, struct vfe_error *err);
	int (*set_features)(struct dp_port *port, uint64_t features, struct vfe_error *err);
	int (*set_mtu)(struct dp_port *port, uint16_t mtu, struct vfe_error *err);
	int (*send)(struct dp_port *port, const void *frame, size_t len);
};

extern const struct dp_backend_ops dp_backend_null;
extern const struct dp_backend_ops dp_backend_loopback;
extern const struct dp_backend_ops dp_backend_tap;
extern const struct dp_backend_ops dp_backend_scribble;

struct dp_tap;

struct dp_port {
	struct dp_engine *engine;
	const struct dp_backend_ops *ops;
	char name[32];
	void *ctx;
	const struct vfe_iova_map *map;      /* control thread's; the rings have their own */
	const struct vfe_vring_watch *watch; /* control thread's; the rings have their own */
	struct dp_rx_filter *filter;
	struct dp_tap *tap; /* TAP only */
	TAILQ_ENTRY(dp_port) link;
	uint16_t nr_pairs;
	struct dp_pair pairs[] __attribute__((aligned(DP_CACHE_LINE)));
};

struct dp_request {
	int (*fn)(struct dp_worker *w, void *arg);
	void *arg;
	int result;
	sem_t *done;
};

struct dp_worker {
	/* read by every round */
	_Atomic(struct dp_request *) request;
	atomic_bool kicked; /* some queue has its kicked flag set */
	bool polling;
	bool stop;
	uint32_t nr_ready;
	STAILQ_HEAD(, dp_queue) ready;
	uint32_t rounds;
	uint32_t bp_in_flight; /* requests of all its block queues */

	struct dp_engine *engine;
	TAILQ_HEAD(, dp_queue) attached;
	int epoll_fd;
	struct vfe_signaller signaller;
	struct dp_source wake; /* eventfd: a request, or a kick from the control thread */
	int cpu;
	pthread_t thread;

	/* control thread */
	uint32_t holds; /* it waits inside the request hold while there are any */
	struct dp_request hold;
	sem_t hold_begun;
	sem_t hold_end;
	sem_t hold_done;

	/* room for one visit of a queue */
	struct vfe_vring_buf bufs[DP_BURST] __attribute__((aligned(DP_CACHE_LINE)));
	struct vfe_vring_buf rx_bufs[DP_BURST];
	struct iovec iov[DP_MAX_IOV];
	struct iovec iov2[DP_MAX_IOV];
	uint8_t spill[DP_MAX_PACKET]; /* the end of a packet that had no room */
} __attribute__((aligned(DP_CACHE_LINE)));

struct bp_disk;
struct bp_pool;
struct bp_port;

struct dp_engine {
	struct ev_loop *loop;
	ev_async broke; /* also: a block queue is drained */
	void (*on_broken)(void *ctx, uint16_t qid, const char *why);
	TAILQ_HEAD(, dp_port) ports;
	TAILQ_HEAD(, bp_port) bp_ports;
	TAILQ_HEAD(, bp_disk) bp_disks;
	struct bp_pool *bp_pool; /* NULL until somebody needs it */
	uint32_t bp_spin_ns;
	atomic_bool scribble_off;
	uint16_t next_worker;
	uint16_t nr_workers;
	struct dp_worker workers[] __attribute__((aligned(DP_CACHE_LINE)));
};

static inline void
dp_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* worker.c */
int dp_worker_start(struct dp_worker *w, struct dp_engine *engine, bool polling, int cpu,
	struct vfe_error *err);
void dp_worker_stop(struct dp_worker *w);

/*
 * Control thread: run @fn(@w, @arg) on the worker between two visits and return its result. The
 * wait is as long as one round: each visit is one burst and nothing in it blocks.
 */
int dp_worker_call(struct dp_worker *w, int (*fn)(struct dp_worker *w, void *arg), void *arg);

/*
 * Control thread: let the worker wait until dp_worker_release(). What dp_worker_call() runs
 * meanwhile runs on the control thread, which spares the way there and back of many calls. Counted.
 */
void dp_worker_hold(struct dp_worker *w);
void dp_worker_release(struct dp_worker *w);

/* Any thread: let @q be looked at. */
void dp_worker_kick(struct dp_queue *q);

/* The rest: on the worker. */
void dp_worker_ready(struct dp_queue *q);
int dp_worker_attach(struct dp_queue *q);
void dp_worker_detach(struct dp_queue *q);
int dp_worker_watch(struct dp_worker *w, struct dp_source *src, uint32_t events);
void dp_worker_unwatch(struct dp_worker *w, struct dp_source *src);

/* queue.c */

/* The ring is broken (ring.error says why): stop visiting it and tell the control thread. */
bool dp_queue_broke(struct dp_queue *q);

/* Break the ring for a reason that the ring does not see. Returns false, like dp_queue_broke(). */
bool
dp_queue_fail(struct dp_queue *q, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

/* Write to the call eventfd, or remember that it is due. */
void dp_queue_call(struct dp_queue *q);

/* Control thread: doorbell and interrupt of a queue that is not attached. 0 or -errno. */
int dp_queue_take_fds(struct dp_queue *q, const struct dp_queue_cfg *cfg, struct vfe_error *err);
void dp_queue_close_fds(struct dp_queue *q);

/* Control thread: another interrupt for a started queue, as dp_queue_set_call(). */
void dp_queue_replace_call(struct dp_queue *q, int call_fd);
void dp_queue_reset_stats(struct dp_queue *q);

/* Show the driver what was put, and interrupt it when it wants that. */
static inline void
dp_queue_flush(struct dp_queue *q)
{
	vfe_vring_publish(&q->ring);
	if (vfe_vring_wants_signal(&q->ring))
		dp_queue_call(q);
}

/* Can packets be exchanged with this queue now? On its worker. */
static inline bool
dp_queue_usable(const struct dp_queue *q)
{
	return q->attached && !q->ring.broken;
}

/*
 * Nothing to take: ask for a kick. True when something arrived meanwhile. A polling worker needs
 * no kicks and looks again anyhow.
 */
static inline bool
dp_queue_idle(struct dp_queue *q)
{
	return q->worker->polling ? false : vfe_vring_set_kick(&q->ring, true);
}

/* filter.c: does the guest want the packet that begins with @eth (18 bytes readable)? */
bool dp_filter_pass(const struct dp_rx_filter *filter, const uint8_t *eth);

#endif /* DP_H */
