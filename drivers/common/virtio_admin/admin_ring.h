/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Driver side of a split virtqueue (virtio 1.4 section 2.7) whose device may lie.
 *
 * The device can write to the whole ring. So the ring is only ever written by us, but for the used
 * ring, whose fields are read once and checked. What belongs to whom is kept in private memory.
 * One thread at a time.
 */

#ifndef ADMIN_RING_H
#define ADMIN_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_virtio.h"

struct admin_seg {
	uint64_t iova;
	uint32_t len;
	bool write; /* by the device */
};

struct admin_chain {
	void *owner; /* NULL = the descriptor is not the head of a chain */
	uint16_t nr; /* descriptors */
	bool posted; /* the device has it */
};

struct admin_ring {
	uint16_t size; /* entries, a power of two */
	uint16_t nr_free;
	uint16_t free_head;
	uint16_t avail_idx;
	uint16_t last_used;
	uint16_t nr_posted;
	uint16_t *next;             /* private: links chains and the free list */
	struct admin_chain *chains; /* by head */

	/* shared with the device */
	void *mem;
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	uint64_t desc_iova;
	uint64_t avail_iova;
	uint64_t used_iova;
};

/* Allocate the ring in @arena. @interrupts: does somebody wait for them? 0 or -ENOMEM. */
int admin_ring_init(
	struct admin_ring *ring, struct vfe_dma_arena *arena, uint16_t size, bool interrupts);
void admin_ring_fini(struct admin_ring *ring, struct vfe_dma_arena *arena);

/* Make a chain of @n segments for @owner (not NULL). 0 and *@ret_head, or -ENOSPC. */
int admin_ring_add(struct admin_ring *ring, const struct admin_seg *segs, uint16_t n, void *owner,
	uint16_t *ret_head);

/* Give the chain to the device, for the first time or again. */
void admin_ring_post(struct admin_ring *ring, uint16_t head);

/* Take back a chain that is not posted. */
void admin_ring_release(struct admin_ring *ring, uint16_t head);

/* Does the device want to be told of what was posted? Includes the barrier. */
bool admin_ring_wants_kick(const struct admin_ring *ring);

/*
 * A chain that the device is done with: 1 and its owner, 0 when there is none, or -EPROTO with a
 * text when the device has broken the ring.
 */
int admin_ring_pop(
	struct admin_ring *ring, void **ret_owner, uint16_t *ret_head, struct vfe_error *err);

#endif /* ADMIN_RING_H */
