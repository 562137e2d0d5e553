/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Driver side of a split virtqueue (virtio 1.4 section 2.7) whose device may lie.
 */

#include "admin_ring.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { RING_PAGE = 4096 };

int
admin_ring_init(
	struct admin_ring *ring, struct vfe_dma_arena *arena, uint16_t size, bool interrupts)
{
	uint64_t avail_off = vfe_vring_desc_bytes(size);
	uint64_t used_off = vfe_align_up(avail_off + vfe_vring_avail_bytes(size), RING_PAGE);
	uint64_t iova;
	uint8_t *mem;
	uint16_t i;

	*ring = (struct admin_ring){.size = size, .nr_free = size};
	ring->next = calloc(size, sizeof(*ring->next));
	ring->chains = calloc(size, sizeof(*ring->chains));
	mem = vfe_dma_arena_alloc(arena, used_off + vfe_vring_used_bytes(size), RING_PAGE, &iova);
	ring->mem = mem;
	if (ring->next == NULL || ring->chains == NULL || mem == NULL) {
		admin_ring_fini(ring, arena);
		return -ENOMEM;
	}
	for (i = 0; i < size; i++)
		ring->next[i] = (uint16_t)(i + 1);

	ring->desc = (struct vfe_wire_vring_desc *)(void *)mem;
	ring->avail = (struct vfe_wire_vring_avail *)(void *)(mem + avail_off);
	ring->used = (struct vfe_wire_vring_used *)(void *)(mem + used_off);
	ring->desc_iova = iova;
	ring->avail_iova = iova + avail_off;
	ring->used_iova = iova + used_off;
	if (!interrupts)
		ring->avail->flags = htole16(VFE_VRING_AVAIL_F_NO_INTERRUPT);
	return 0;
}

void
admin_ring_fini(struct admin_ring *ring, struct vfe_dma_arena *arena)
{
	vfe_dma_arena_free(arena, ring->mem);
	free(ring->chains);
	free(ring->next);
	*ring = (struct admin_ring){0};
}

int
admin_ring_add(struct admin_ring *ring, const struct admin_seg *segs, uint16_t n, void *owner,
	uint16_t *ret_head)
{
	uint16_t head = ring->free_head;
	uint16_t id = head;
	uint16_t i, flags;

	assert(n > 0 && owner != NULL);
	if (n > ring->nr_free)
		return -ENOSPC;
	for (i = 0; i < n; i++) {
		flags = segs[i].write ? VFE_VRING_DESC_F_WRITE : 0;
		if (i + 1 < n)
			flags |= VFE_VRING_DESC_F_NEXT;
		ring->desc[id] = (struct vfe_wire_vring_desc){
			.addr = htole64(segs[i].iova),
			.len = htole32(segs[i].len),
			.flags = htole16(flags),
			.next = htole16(i + 1 < n ? ring->next[id] : 0),
		};
		id = ring->next[id];
	}
	ring->free_head = id;
	ring->nr_free = (uint16_t)(ring->nr_free - n);
	ring->chains[head] = (struct admin_chain){.owner = owner, .nr = n};
	*ret_head = head;
	return 0;
}

void
admin_ring_post(struct admin_ring *ring, uint16_t head)
{
	assert(ring->chains[head].owner != NULL && !ring->chains[head].posted);
	ring->chains[head].posted = true;
	ring->nr_posted++;
	ring->avail->ring[ring->avail_idx & (ring->size - 1)] = htole16(head);
	ring->avail_idx++;
	/* entry and descriptors before the index */
	atomic_store_explicit((_Atomic uint16_t *)&ring->avail->idx, htole16(ring->avail_idx),
		memory_order_release);
}

void
admin_ring_release(struct admin_ring *ring, uint16_t head)
{
	struct admin_chain *c = &ring->chains[head];
	uint16_t last = head;
	uint16_t i;

	assert(c->owner != NULL && !c->posted);
	for (i = 1; i < c->nr; i++)
		last = ring->next[last];
	ring->next[last] = ring->free_head;
	ring->free_head = head;
	ring->nr_free = (uint16_t)(ring->nr_free + c->nr);
	*c = (struct admin_chain){0};
}

bool
admin_ring_wants_kick(const struct admin_ring *ring)
{
	uint16_t flags;

	/* the index that we wrote before the flags that we read (section 2.7.21.4) */
	atomic_thread_fence(memory_order_seq_cst);
	flags = atomic_load_explicit(
		(const _Atomic uint16_t *)&ring->used->flags, memory_order_relaxed);
	return (le16toh(flags) & VFE_VRING_USED_F_NO_NOTIFY) == 0;
}

int
admin_ring_pop(struct admin_ring *ring, void **ret_owner, uint16_t *ret_head, struct vfe_error *err)
{
	struct admin_chain *c;
	uint16_t idx;
	uint32_t id;

	idx = le16toh(atomic_load_explicit(
		(const _Atomic uint16_t *)&ring->used->idx, memory_order_acquire));
	if (idx == ring->last_used)
		return 0;
	if ((uint16_t)(idx - ring->last_used) > ring->nr_posted)
		return vfe_error_set(err, -EPROTO,
			"the used index went from %u to %u with %u chains out", ring->last_used,
			idx, ring->nr_posted);

	id = le32toh(atomic_load_explicit(
		(const _Atomic uint32_t *)&ring->used->ring[ring->last_used & (ring->size - 1)].id,
		memory_order_relaxed));
	if (id >= ring->size || !ring->chains[id].posted)
		return vfe_error_set(err, -EPROTO,
			"used entry %u names chain %u, which is not out (ring of %u)",
			ring->last_used, id, ring->size);
	c = &ring->chains[id];
	c->posted = false;
	ring->nr_posted--;
	ring->last_used++;
	*ret_owner = c->owner;
	*ret_head = (uint16_t)id;
	return 1;
}
