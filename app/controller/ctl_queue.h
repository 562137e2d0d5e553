/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A queue that the control thread serves: control queue of a network device, admin queue of a PF.
 *
 * Kicks come as an eventfd (or as a call); each turn of the loop takes at most one ring's worth of
 * chains, so that a driver that never stops posting does not starve other devices.
 */

#ifndef CONTROLLER_CTL_QUEUE_H
#define CONTROLLER_CTL_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include <ev.h>

#include "vfe_base.h"
#include "vfe_vring.h"

enum {
	CTL_QUEUE_MAX_IOV = 1024,
	CTL_QUEUE_LATER = -1, /* the handler answers with ctl_queue_complete() */
};

struct ctl_queue_ops {
	/*
	 * Handle one chain; its iov is valid until the handler returns. Returns the number of
	 * bytes written, or CTL_QUEUE_LATER.
	 */
	int64_t (*handle)(void *ctx, const struct vfe_chain *chain);

	void (*signal)(void *ctx); /* interrupt the driver */

	/* The driver broke the queue; it is stopped already. @why begins with the name. */
	void (*broken)(void *ctx, const char *why);
};

struct ctl_queue {
	const char *name; /* for texts */
	struct ev_loop *loop;
	const struct ctl_queue_ops *ops;
	void *ctx;
	struct vfe_vring vr;
	const struct vfe_vring_watch *watch; /* NULL = nobody */
	ev_io kick;                          /* eventfd of the doorbell */
	ev_timer again;                      /* fires at once: more is left than one turn takes */
	ev_timer poll;                       /* for a doorbell page that is only memory */
	bool started;
};

/* @name is borrowed. */
void ctl_queue_init(struct ctl_queue *q, const char *name, struct ev_loop *loop,
	const struct ctl_queue_ops *ops, void *ctx);

/*
 * Start with @cfg in memory @map, which stays the caller's. @kick_fd is borrowed; -1 means that the
 * ring has to be looked at by itself every few milliseconds. Returns as vfe_vring_start().
 */
int ctl_queue_start(struct ctl_queue *q, const struct vfe_vring_cfg *cfg,
	const struct vfe_iova_map *map, int kick_fd, struct vfe_error *err);

/* What was taken and is not answered yet is forgotten. The indices are left untouched if stopped.
 */
void ctl_queue_stop(struct ctl_queue *q, uint16_t *ret_avail, uint16_t *ret_used);

/* Another map; a ring that is gone breaks the queue. */
void ctl_queue_set_map(struct ctl_queue *q, const struct vfe_iova_map *map);

/* Tell @watch (NULL: nobody) of all that is written to the driver's memory. */
void ctl_queue_set_watch(struct ctl_queue *q, const struct vfe_vring_watch *watch);

/* Look at the ring now. */
void ctl_queue_kick(struct ctl_queue *q);

/* Give back a chain that was answered CTL_QUEUE_LATER. Nothing happens when stopped meanwhile. */
void ctl_queue_complete(struct ctl_queue *q, uint16_t head, uint32_t written);

#endif /* CONTROLLER_CTL_QUEUE_H */
