/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The admin queue of a PF, asynchronous: many commands in flight, each with a deadline and bounded
 * retries; and the commands of the vendor live-migration dialect (doc/admin-protocol.md).
 *
 * The queue has no thread. Its owner waits for vfe_admin_fd() to become readable and for
 * vfe_admin_next_deadline() to pass, and then calls vfe_admin_process(), always on one and the
 * same thread: completions are called there, without any lock held, and may submit again.
 * Submitting is safe from any thread and never waits.
 *
 * The device is not trusted: used ids, lengths and status bytes are checked. A device that breaks
 * the ring fails the whole queue: all commands complete with -EPROTO and the PF is reported lost.
 * Memory of a command that ran into its deadline is not reused before the device gives it back or
 * the queue is destroyed (the device could still write to it).
 */

#ifndef VFE_VIRTIO_ADMIN_H
#define VFE_VIRTIO_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_virtio.h"
#include "vfe_wire_admin.h"

enum {
	VFE_ADMIN_TIMEOUT_MS = 10000,  /* default deadline of a command, retries included */
	VFE_ADMIN_RETRY_FIRST_MS = 10, /* pause before the first retry; doubles */
	VFE_ADMIN_RETRY_MAX_MS = 1000,
	VFE_ADMIN_RESET_TIMEOUT_MS = 120000, /* for commands that wait for a function reset */
	VFE_ADMIN_TRACK_TIMEOUT_MS = 2000,   /* of class 65: who waits has another way to go */
};

struct vfe_admin;

/* What the device said about itself when the queue was created. */
struct vfe_admin_caps {
	uint64_t features; /* negotiated */
	uint16_t major;
	uint16_t minor;
	bool dirty_push_bitmap;
	bool dirty_push_bytemap;
	bool dirty_pull_bitmap;
	bool dirty_pull_bytemap;
	uint16_t log_max_pages_pull_bitmap;
	uint16_t log_max_pages_pull_bytemap;
	uint32_t max_track_ranges;
};

struct vfe_admin_cfg {
	struct vfe_virtio_dev *vdev; /* PF, features negotiated, borrowed */
	struct vfe_dma_arena *arena; /* of the PF, borrowed */
	uint16_t queue_index;        /* see vfe_admin_queue_index() */
	uint16_t msix_vector;        /* interrupt of the queue; NO_VECTOR = the fd is a timer */
	uint32_t timeout_ms;         /* 0 = VFE_ADMIN_TIMEOUT_MS */
};

/*
 * Where the vendor dialect keeps the admin queue: net 2 * max_virtqueue_pairs (2 without MQ and
 * RSS), block 0; the index of virtio 1.3 (common configuration) when the device names one.
 */
int vfe_admin_queue_index(struct vfe_virtio_dev *vdev, uint16_t *ret, struct vfe_error *err);

/* The features that a PF must offer, and those that we accept of @offered; 0 when it is not fit. */
uint64_t vfe_admin_features_wanted(uint64_t offered);

/*
 * Set the queue up; the caller sets DRIVER_OK afterwards, and resets the device when this fails.
 * *@ret is owned by the caller. Takes the eventfd of msix_vector, if any, for itself.
 */
int
vfe_admin_create(const struct vfe_admin_cfg *cfg, struct vfe_admin **ret, struct vfe_error *err);

/*
 * Complete everything with -ECANCELED (callbacks run here) and free. The device must have been
 * reset before, so that it writes no more.
 */
void vfe_admin_destroy(struct vfe_admin *admin);

int vfe_admin_fd(const struct vfe_admin *admin); /* readable = vfe_admin_process() has work */

/* When to call vfe_admin_process() at the latest; false when nothing is waited for. Any thread. */
bool vfe_admin_next_deadline(const struct vfe_admin *admin, struct vfe_deadline *ret);

/* Handle completions, retries, deadlines. One thread, always the same. */
void vfe_admin_process(struct vfe_admin *admin);

/* -errno when the queue has failed, else 0. Any thread. */
int vfe_admin_error(const struct vfe_admin *admin);

/* How often commands were posted again because the device was busy. Any thread. */
uint64_t vfe_admin_retries(const struct vfe_admin *admin);

/*
 * A completed command. @status: 0; -EIO (the device refused, for good or until the deadline; @err
 * says status and command); -ETIMEDOUT (it never answered); -ENOMEM (the arena is too small);
 * -EPROTO (the device broke the queue, or this answer makes no sense); -ENODEV (lost);
 * -ECANCELED. @out is the result, @out_len its bytes, valid during the call. @err is NULL on
 * success.
 */
typedef void (*vfe_admin_done)(
	void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err);

struct vfe_admin_cmd {
	uint8_t class_;
	uint8_t cmd;
	const void *in; /* copied */
	size_t in_len;
	const void *bulk; /* copied; NULL = none; goes into a page aligned block of its own */
	size_t bulk_len;
	size_t out_len;      /* bytes the device writes, without status; 0 = none */
	uint32_t timeout_ms; /* 0 = of the queue */
	vfe_admin_done done;
	void *ctx;
};

/*
 * Submit any command. It waits in order when ring or arena have no room for it. Returns 0, -EINVAL,
 * -EMSGSIZE (more descriptors than the ring has), -ENOMEM, -ENOSPC (thousands wait already), or
 * vfe_admin_error(); @done is not called then.
 */
int vfe_admin_submit(struct vfe_admin *admin, const struct vfe_admin_cmd *cmd);

/* --- the dialect; @vf is 0-based, results come through typed callbacks --- */

/* @out: struct vfe_wire_admin_get_status_result, its status checked to be a known one. */
int vfe_admin_get_status(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx);
int vfe_admin_modify_status(struct vfe_admin *admin, uint16_t vf, enum vfe_admin_vf_status status,
	vfe_admin_done done, void *ctx);
/* @out: struct vfe_wire_admin_pending_result. */
int vfe_admin_pending_bytes(struct vfe_admin *admin, uint16_t vf, vfe_admin_done done, void *ctx);
/* @out: @length bytes of the state from @offset. */
int vfe_admin_save_state(struct vfe_admin *admin, uint16_t vf, uint64_t offset, uint64_t length,
	vfe_admin_done done, void *ctx);

/* @blob is copied and padded with zeroes to a multiple of VFE_STATE_ALIGN. */
int vfe_admin_restore_state(struct vfe_admin *admin, uint16_t vf, const void *blob, size_t len,
	vfe_admin_done done, void *ctx);

/* --- dirty page tracking, class 65 --- */

/*
 * Have the device mark the pages of @range (host byte order, vdev_id is ignored) that the VF writes
 * by DMA from now on. @sges (@nr_sges of them, host byte order, iova of the PF, push modes only) is
 * where it writes the map, all of it; the memory is the caller's and stays mapped until tracking
 * was stopped and the command that did so has completed. -EINVAL when the range is empty, wraps or
 * is not made of pages, or the SGEs do not fit mode and range.
 */
int vfe_admin_track_start(struct vfe_admin *admin, uint16_t vf,
	const struct vfe_wire_admin_track_start *range, const struct vfe_wire_admin_sge *sges,
	unsigned int nr_sges, vfe_admin_done done, void *ctx);
int vfe_admin_track_stop(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx);
/* @out: struct vfe_wire_admin_pending_result; 0 = nothing was written since the last report. */
int vfe_admin_track_pending(
	struct vfe_admin *admin, uint16_t vf, uint64_t range_addr, vfe_admin_done done, void *ctx);
/* @out: @length bytes of the map from @offset; pull modes. The device forgets what it reports. */
int vfe_admin_track_report(struct vfe_admin *admin, uint16_t vf, uint64_t range_addr,
	uint64_t offset, uint64_t length, vfe_admin_done done, void *ctx);

/*
 * Ask the device for its capabilities (both IDENTITY commands) and check them against the
 * negotiated feature bits. @done is called without output when vfe_admin_caps() is filled. A
 * device that contradicts itself gives -EPROTO, and caps without the modes in question.
 */
int vfe_admin_identify(struct vfe_admin *admin, vfe_admin_done done, void *ctx);
const struct vfe_admin_caps *vfe_admin_caps(const struct vfe_admin *admin);

#endif /* VFE_VIRTIO_ADMIN_H */
