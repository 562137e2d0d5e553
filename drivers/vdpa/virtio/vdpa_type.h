/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The seam between the driver and the types of devices: all that differs between net and block.
 *
 * A type is a table of functions in a file of its own (vdpa_net.c, vdpa_blk.c). Types know the VF,
 * never each other. Unless said otherwise a function may be called on any thread and only reads
 * what it is given.
 */

#ifndef VDPA_TYPE_H
#define VDPA_TYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_state.h"
#include "vfe_vdpa.h"
#include "vfe_virtio.h"

struct vdpa_vf;

/* The configuration space of a device, as it reads: little-endian. */
union vdpa_config {
	struct vfe_wire_net_config net;
	struct vfe_wire_blk_config blk;
	uint8_t bytes[sizeof(struct vfe_wire_blk_config)];
};

/*
 * The queue beside the data queues that a front-end keeps from the device, when the driver has it:
 * that of a plain function (vdpa_plain.c). Worker.
 */
struct vdpa_ctrl_ops {
	uint64_t features; /* negotiated for it in addition to the guest's, where offered */

	/* How many data queues there are with @features at most. */
	uint16_t (*nr_rings)(const struct vdpa_vf *vf, uint64_t features);

	/* The data queues have been set up, the device is about to run; it runs. */
	int (*configure)(struct vdpa_vf *vf, struct vfe_error *err);
	int (*started)(struct vdpa_vf *vf, struct vfe_error *err);

	/* Rings of a device that runs have been enabled or disabled: that is told by this queue. */
	int (*tend)(struct vdpa_vf *vf, struct vfe_error *err);
};

struct vdpa_type {
	const char *name;
	uint16_t pci_device_id; /* of PFs and VFs */
	enum vfe_state_type state_type;
	uint64_t protocol_features; /* of vhost-user */
	uint64_t guest_features;    /* what a guest may have, if the device offers it */
	uint64_t frontend_features; /* what the front-end does by itself, offered always */
	uint32_t config_size;       /* bytes of vdpa_config that a front-end may read */
	unsigned int queue_unit;    /* queues that GET_QUEUE_NUM counts as one */

	/*
	 * Requests that were in flight when the device was lost may have had effects that must not
	 * come twice: see vdpa_inflight.c.
	 */
	bool requests_last;

	const struct vdpa_ctrl_ops *ctrl; /* NULL = it has none */

	/*
	 * A device may have written more of a buffer than the length that it reports: what it has
	 * written are the first bytes of packets, but data and a status at the end of requests.
	 */
	bool writes_unsaid;

	/* Descriptors of the longest chain that a driver makes. Provisioning. */
	uint32_t (*chain_max)(const union vdpa_config *config, uint64_t device_features);

	/* Does what the device takes of @qid come back by itself? Receive buffers do not. */
	bool (*comes_back)(uint16_t qid);

	/* Read and check all of it. 0, -EPROTO, or what the transport says. Provisioning, worker.
	 */
	int (*config_read)(
		struct vfe_virtio_dev *vdev, union vdpa_config *ret, struct vfe_error *err);

	/* Data queues. 0 or -EPROTO. */
	int (*nr_queues)(const struct vfe_virtio_dev *vdev, const union vdpa_config *config,
		uint16_t *ret, struct vfe_error *err);

	/*
	 * The device comes back with @now, a guest has seen @before. 0 or -EXDEV with a text.
	 */
	int (*config_compatible)(const union vdpa_config *before, const union vdpa_config *now,
		struct vfe_error *err);

	/*
	 * What a guest has written is to be found in @config, which was read from the device.
	 * vf->lock.
	 */
	void (*config_keep)(const struct vdpa_vf *vf, union vdpa_config *config);

	/*
	 * A front-end writes @len bytes at @off, for a guest. 0, or -errno with a text (refused).
	 * vf->lock; the device itself is told by config_apply() or by the next restore.
	 */
	int (*config_write)(struct vdpa_vf *vf, uint32_t off, const uint8_t *buf, uint32_t len,
		struct vfe_error *err);

	/*
	 * Tell the device what config_write() has noted; with @again it has been reset since and is
	 * told everything. Worker.
	 */
	int (*config_apply)(struct vdpa_vf *vf, bool again, struct vfe_error *err);

	/* Into the blob that the device is given. vf->lock. */
	void (*blob)(const struct vdpa_vf *vf, struct vfe_state *state);

	uint16_t (*mtu)(
		const union vdpa_config *config, uint64_t device_features); /* NULL = none */

	/* What people want to know. */
	void (*info)(const union vdpa_config *config, uint64_t device_features,
		struct vfe_vdpa_vf_info *ret);
	void (*describe)(
		const union vdpa_config *config, uint64_t device_features, char *text, size_t size);
};

extern const struct vdpa_ctrl_ops vdpa_net_ctrl; /* vdpa_net_ctrl.c */
extern const struct vdpa_type vdpa_net_type;
extern const struct vdpa_type vdpa_blk_type;

/* vdpa_type.c */
const struct vdpa_type *vdpa_type_find(uint16_t pci_device_id); /* NULL = not known */

/* All features that a front-end may have. */
uint64_t vdpa_type_features_offered(const struct vdpa_type *type, uint64_t device_features);

/* What the device is given of @guest_features, and what the driver needs itself. */
uint64_t vdpa_type_features_driver(
	const struct vdpa_type *type, uint64_t device_features, uint64_t guest_features);

/*
 * Read the first fields of a configuration space, as many of the @nr fields of @widths as the
 * device has; the rest of @ret is zero. -EPROTO when there are less than @least bytes.
 */
int vdpa_type_config_read(struct vfe_virtio_dev *vdev, const uint8_t *widths, unsigned int nr,
	uint32_t least, union vdpa_config *ret, struct vfe_error *err);

#endif /* VDPA_TYPE_H */
