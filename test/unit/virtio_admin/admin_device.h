/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: the device's end of an admin queue, driven step by step.
 */

#ifndef ADMIN_DEVICE_H
#define ADMIN_DEVICE_H

#include "fake_virtio.h"
#include "vfe_virtio_admin.h"

enum {
	AD_QUEUE = 4, /* index of the admin queue */
	AD_MAX_SEGS = 8,
	AD_ARENA_IOVA = 0x40000000,
	AD_ARENA_SIZE = 1 << 20,
	AD_TIMEOUT_MS = 60000,
	AD_MAX_RESULTS = 8192,
};

#define AD_FEATURES                                                                \
	(VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) | \
		VFE_BIT(VFE_ADMIN_F_VQ) | VFE_BIT(VFE_ADMIN_F_MIGRATION))

/* One command as the device sees it. */
struct ad_chain {
	uint16_t head;
	uint16_t n;
	struct {
		uint8_t *va;
		uint64_t iova;
		uint32_t len;
		bool write;
	} seg[AD_MAX_SEGS];
};

/* How a command ended. */
struct ad_result {
	unsigned int calls;
	unsigned int order; /* 1 = the first one that ended */
	int status;
	size_t out_len;
	uint8_t out[64]; /* begin of it */
	struct vfe_error err;
};

struct ad_env {
	struct fake_virtio v;
	struct vfe_virtio_dev vdev;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;
	struct vfe_admin *admin;
	struct vfe_error err;
	uint16_t avail_seen; /* by the device */
	uint16_t used_idx;
	unsigned int ended;
	unsigned int limit; /* results that tests use */
	struct ad_result results[AD_MAX_RESULTS];
};

/* A function with @features, an arena of @arena_size bytes, and no queue yet. */
struct ad_env *ad_env_create(uint64_t features, uint64_t arena_size);
void ad_env_destroy(struct ad_env *e);

/* The queue: 0, or the error of vfe_admin_create(). */
int ad_queue_create(struct ad_env *e, uint16_t msix_vector, uint32_t timeout_ms);

/* Submit with the callback that fills e->results[@i]. */
int ad_submit(struct ad_env *e, unsigned int i, uint8_t cmd, const void *in, size_t in_len,
	size_t out_len, uint32_t timeout_ms);

/* The callback; @ctx is &e->results[i] and e is found through it. */
void ad_done(void *ctx, int status, const void *out, size_t out_len, const struct vfe_error *err);
void ad_set_current(struct ad_env *e);

/* The device takes the next command; false when there is none. */
bool ad_take(struct ad_env *e, struct ad_chain *ret);

/* The device returns chain @id without touching the data. */
void ad_use(struct ad_env *e, uint32_t id);

/* The device writes @status (and @out, if any, into its writable part) and returns the chain. */
void ad_answer(struct ad_env *e, const struct ad_chain *c, uint8_t status, const void *out,
	size_t out_len);

/* The device raises the queue's interrupt. */
void ad_interrupt(struct ad_env *e);

/* Wait for the queue's fd and process, until results[@i] has ended; fails after ten seconds. */
void ad_wait(struct ad_env *e, unsigned int i);

/* The used ring, to be spoiled. */
struct vfe_wire_vring_used *ad_used(struct ad_env *e);

#endif /* ADMIN_DEVICE_H */
