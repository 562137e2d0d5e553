/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One emulated PCI function, PF or VF: its registers, its vfio-user socket, its memory, the life of
 * its queues, and its internal status. What a queue does is the business of its type (net.c,
 * blk.c).
 *
 * Everything here runs on the control thread.
 */

#ifndef CONTROLLER_FUNCTION_H
#define CONTROLLER_FUNCTION_H

#include <stdbool.h>
#include <stdint.h>

#include <ev.h>
#include <jansson.h>

#include "app_log.h"
#include "config.h"
#include "ctl_queue.h"
#include "datapath.h"
#include "vfe_base.h"
#include "vfe_iova.h"
#include "vfe_signal.h"
#include "vfe_state.h"
#include "vfe_vdev.h"
#include "vfe_vfio_user_server.h"
#include "vfe_wire_admin.h"

struct admin;
struct dirty;
struct function;

/* What an operator changes; members that are absent stay. */
struct function_change {
	bool has_link;
	bool link;
	bool has_mtu;
	uint16_t mtu;
	bool has_mac;
	uint8_t mac[6];
};

/* What follows when all queues are drained. */
enum function_goal {
	FUNCTION_GOAL_NONE,
	FUNCTION_GOAL_RESET, /* the driver wrote status 0 */
	FUNCTION_GOAL_STOP,  /* an admin command waits (migrate.c) */
};

/* What all functions share. */
struct function_env {
	struct ev_loop *loop;
	struct dp_engine *engine;
	const struct config *config;
	struct vfe_signaller signaller; /* of the control thread */
	struct config_knobs knobs;      /* from the configuration, then as an operator sets them */
};

/* A device type: what differs between network and block devices. */
struct function_type {
	const char *name;
	uint16_t pci_device_id;
	uint32_t pci_class;
	enum vfe_state_type state_type;

	/* Create fn->type_data and fill the type's part of @cfg; fn->cfg and ->env are set. */
	int (*create)(struct function *fn, struct vfe_vdev_cfg *cfg, struct vfe_error *err);
	void (*destroy)(struct function *fn);

	/*
	 * Where the queues are with @features: the number shown to the driver, the slot of the
	 * admin queue. NULL: the admin queue follows the others.
	 */
	void (*layout)(struct function *fn, uint64_t features, uint16_t *ret_num_queues,
		uint16_t *ret_admin);

	/* The driver wrote device configuration; NULL = read-only. */
	void (*config_write)(struct function *fn, uint32_t off, const void *buf, uint32_t len);

	/* The driver's features are settled (also by a restored state). 0 or -errno. */
	int (*set_features)(struct function *fn, uint64_t features, struct vfe_error *err);

	/* Queues [0, n) that the data path serves: their doorbells may be plain memory. */
	uint16_t (*nr_data_queues)(const struct function *fn);

	/* All queues are about to start. */
	int (*prepare)(struct function *fn, struct vfe_error *err);

	int (*queue_start)(struct function *fn, uint16_t qid, const struct dp_queue_cfg *cfg,
		struct vfe_error *err);
	void (*queue_stop)(
		struct function *fn, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used);
	/* Around starting and stopping of all queues. May be NULL. */
	void (*queues_hold)(struct function *fn);
	void (*queues_release)(struct function *fn);
	/*
	 * For types whose requests take a while; NULL for others, which have nothing in flight.
	 * queue_drain: take nothing more; true when nothing is in flight, else
	 * function_on_drained() is called later. queue_resume: go on after all. settle: drain all
	 * queues and wait for a bounded time. release: wait for a bounded time until nothing in
	 * flight has a part of this memory; 0 or -ETIMEDOUT.
	 */
	bool (*queue_drain)(struct function *fn, uint16_t qid);
	void (*queue_resume)(struct function *fn, uint16_t qid);
	void (*settle)(struct function *fn);
	int (*release)(struct function *fn, const void *va, uint64_t size);

	void (*queue_kick)(struct function *fn, uint16_t qid);
	void (*queue_set_call)(struct function *fn, uint16_t qid, int call_fd);

	void (*set_map)(struct function *fn, const struct vfe_iova_map *map);
	void (*reset)(struct function *fn); /* queues are stopped */

	/* Running again in a state that was restored. May be NULL. */
	void (*resumed)(struct function *fn);

	/* Tell @watch (NULL: nobody) of all writes to the driver's memory. NULL: cannot. */
	void (*set_watch)(struct function *fn, const struct vfe_vring_watch *watch);

	/* Type's part of the migration state. */
	void (*save)(struct function *fn, struct vfe_state *state);
	int (*restore)(struct function *fn, const struct vfe_state *state, struct vfe_error *err);

	/* For virtnet query: the device's members, those of one queue. */
	void (*describe)(struct function *fn, json_t *device);
	void (*describe_queue)(struct function *fn, uint16_t qid, json_t *queue);
	unsigned int (*ifindex)(struct function *fn); /* of the representor, 0 = none */

	/* What a back end for tests has written for @pair, NULL: none such. May be NULL itself. */
	json_t *(*records)(struct function *fn, uint16_t pair);

	int (*modify)(
		struct function *fn, const struct function_change *change, struct vfe_error *err);
};

struct function_queue {
	bool started;
	uint16_t avail; /* where to go on, when not started */
	uint16_t used;
};

/* State of a VF as a stream of bytes. */
struct function_blob {
	uint8_t *data; /* NULL = none */
	size_t len;
	size_t scan_off; /* where the next field begins, as far as restored */
	uint32_t scan_fields;
};

struct function {
	struct function_env *env;
	const struct config_function *cfg;
	const struct function_type *type;
	void *type_data;
	char name[VFE_BDF_STR_SIZE];
	struct function *pf;  /* of a VF */
	struct function *vfs; /* of a PF: cfg->nr_vfs */
	struct admin *admin;  /* of a PF with VFs */
	uint16_t admin_qid;   /* slot of its queue, see set_layout() */

	struct vfe_vdev *vdev;
	struct function_queue *queues; /* one per slot of vdev */
	ev_timer reset_timer;
	ev_timer goal_timer; /* of FUNCTION_GOAL_STOP: the back end hangs */
	enum function_goal goal;
	bool lost; /* a queue was stopped with requests in flight */
	enum vfe_admin_vf_status internal;
	struct vfe_error last_error;       /* why the device needs a reset, for people */
	struct app_log_limit log_limit;    /* of mistakes of the driver */
	struct app_log_limit client_limit; /* of clients that come and go */

	/* transport */
	struct vfe_vfu_server *server;
	int notify_fd; /* memory behind the doorbells that can be mapped, -1 = none */
	struct vfe_vfu_server_area notify_area;
	struct vfe_vfu_server_io_fd *kicks; /* doorbells with an eventfd */
	uint32_t nr_kicks;
	uint16_t first_kick; /* queue of kicks[0] */

	/* memory */
	struct vfe_vfu_dma **dmas;
	uint32_t nr_dmas;
	uint32_t max_dmas;
	struct vfe_iova_map *map;
	bool map_stale; /* mappings came since it was built */
	bool waits;     /* running but for the memory, which went with the client */

	/* migration (migrate.c) */
	struct function_blob save;
	struct function_blob restore;
	bool restored;       /* and not running since */
	struct dirty *dirty; /* dirty.c; NULL: never tracked */
};

/*
 * Create the function, its back end and its socket <dir>/<BDF>.sock. @pf is NULL for a PF. @fn is
 * zeroed memory of the caller. Returns 0, or -errno with a text that begins with the BDF.
 */
int function_create(struct function *fn, struct function_env *env,
	const struct config_function *cfg, struct function *pf, struct vfe_error *err);

/* Half-built is fine. */
void function_destroy(struct function *fn);

/* Start all enabled queues where they left off. On failure all are stopped again. */
int function_queues_start(struct function *fn, struct vfe_error *err);

/*
 * Stop all queues: everything taken has been given back when this returns, or, when a back end
 * hangs, the device needs a reset. Whoever does not want to wait drains first.
 */
void function_queues_stop(struct function *fn);

/* Take nothing more from any queue. True when nothing is in flight. */
bool function_queues_drain(struct function *fn);

/* Go on after draining. */
void function_queues_resume(struct function *fn);

/* Queue @qid has nothing in flight any more; for bp_port_cfg.on_drained. @ctx is the function. */
void function_on_drained(void *ctx, uint16_t qid);
bool function_queues_running(const struct function *fn);

/* The device cannot go on: stop it, tell driver and operator. */
void function_fail(struct function *fn, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Queue @qid is broken, @why names it; for dp_engine_cfg.on_broken. @ctx is the function. */
void function_on_broken(void *ctx, uint16_t qid, const char *why);

/* Memory of the client that has shrunk fails the device and costs the client its connection. */
void function_check_memory(struct function *fn);

/* Has a file behind the client's memory shrunk? */
bool function_memory_shrunk(const struct function *fn);

/* Bring fn->map up to date and hand it to who uses it. 0 or -ENOMEM. */
int function_map_update(struct function *fn, struct vfe_error *err);

/* Eventfd of the doorbell of @qid, -1 when its doorbell is memory. */
int function_kick_fd(const struct function *fn, uint16_t qid);

/* function_vfu.c: the vfio-user side. */
int function_vfu_create(struct function *fn, struct vfe_error *err);
void function_vfu_destroy(struct function *fn);

extern const struct function_type net_type;
extern const struct function_type blk_type;

#endif /* CONTROLLER_FUNCTION_H */
