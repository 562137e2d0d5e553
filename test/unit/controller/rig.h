/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One PF with two VFs between two fakes: a data path that notes what it is told, and a vfio-user
 * server whose ops the test calls as a client would make them be called. All on one thread.
 */

#ifndef RIG_H
#define RIG_H

#include "dpu.h"
#include "vfe_wire_net.h"
#include "vfe_wire_virtio.h"

#define COMMON(field) ((uint64_t)offsetof(struct vfe_wire_virtio_common, field))

enum {
	RIG_PAIRS = 2,
	RIG_CTRL = 2 * RIG_PAIRS,
	RIG_MEM_SIZE = 1 << 20,
	RIG_IOVA = 0x100000,
	RIG_QUEUE_SIZE = 64,

	S_FEATURES = VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER | VFE_VIRTIO_S_FEATURES_OK,
	S_ALL = S_FEATURES | VFE_VIRTIO_S_DRIVER_OK,
};

/* What the fake data path knows of one port. */
struct fake_port {
	struct dp_port_cfg cfg;
	struct {
		bool started;
		int kicks;
		struct dp_queue_cfg cfg;
		uint16_t avail; /* answer of dp_queue_stop() */
		uint16_t used;
	} queues[2 * RIG_PAIRS + 1];
	const struct vfe_iova_map *map;
	const struct vfe_vring_watch *watch; /* dirty page tracking */
	unsigned int starts, stops, maps, watches;
	unsigned int holds; /* dp_port_hold() */
	struct dp_rx_filter filter;
	uint16_t pairs;
	unsigned int frames; /* of dp_port_send(), and the last of them */
	uint8_t frame[64];
	uint64_t features;
	uint16_t mtu;
	int start_error; /* of dp_queue_start() */
};

/* What the fake server knows of one function. */
struct fake_server {
	struct vfe_vfu_server_cfg cfg;
	char path[128];
	bool connected;
	char kicked_out[256]; /* why */
};

struct rig {
	struct ev_loop *loop;
	struct config config;
	struct dpu dpu;
	uint8_t *mem;           /* of the VFs' driver, at RIG_IOVA */
	uint8_t *pf_mem;        /* of the PF's driver, at RIG_IOVA too */
	struct vfe_vfu_dma dma; /* handed to one VF */
	struct vfe_vfu_dma pf_dma;
	uint16_t admin_avail; /* driver side of the admin queue */
	uint16_t admin_used;
};

/* cmocka setup and teardown; *state is the rig. @extra goes into "software_dpu". */
int rig_setup(void **state);
int rig_setup_polling(void **state);
int rig_setup_slow(void **state); /* admin and reset latencies of 20 ms */
int rig_setup_with(void **state, const char *extra);
int rig_setup_blk(void **state); /* a block PF instead; VF 0 has a controller, VF 1 none */
int rig_teardown(void **state);

struct function *rig_vf(struct rig *rig, uint16_t vf);
struct function *rig_pf(struct rig *rig);
struct fake_port *rig_port(struct function *fn);
struct fake_server *rig_server(struct function *fn);

/* Let due timers and fds run. */
void rig_turn(struct rig *rig);

/* Run the loop until the used index of the admin queue is not @old any more; false after 2 s. */
bool rig_wait_used(struct rig *rig, uint16_t old);

/* --- a client --- */
void rig_connect(struct function *fn);
void rig_disconnect(struct function *fn, struct vfe_vfu_dma *dma);
void rig_map(struct rig *rig, struct function *fn);
uint64_t rd(struct function *fn, uint64_t off, uint32_t len);
void wr(struct function *fn, uint64_t off, uint64_t v, uint32_t len);

/* Negotiate @features (all that are offered among them), up to FEATURES_OK. */
void rig_negotiate(struct function *fn, uint64_t features);

/* Addresses of the ring of @qid; all in one region. */
uint64_t rig_desc(uint16_t qid);
void rig_enable(struct function *fn, uint16_t qid);

/* Connect, map, negotiate without control queue, enable pair 0, DRIVER_OK. */
void rig_bring_up(struct rig *rig, struct function *fn);

/* --- the admin queue of the PF --- */
void rig_admin_up(struct rig *rig, uint64_t features);

/* Post a command; returns at once. */
void rig_admin_post(struct rig *rig, uint8_t class_, uint8_t cmd, const void *in, size_t in_len,
	const void *bulk, size_t bulk_len, size_t out_len);

/* Post and wait; the output is in *@ret_out (RIG memory). Returns the status byte. */
uint8_t rig_admin(struct rig *rig, uint8_t class_, uint8_t cmd, const void *in, size_t in_len,
	const void *bulk, size_t bulk_len, size_t out_len, const uint8_t **ret_out);

uint8_t rig_set_status(struct rig *rig, uint16_t vdev, uint16_t status);
uint8_t rig_restore(struct rig *rig, uint16_t vdev, uint64_t off, const void *blob, size_t len);

#endif /* RIG_H */
