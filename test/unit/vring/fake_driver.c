/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The driver's side of split rings in memory of this process, for tests.
 */

#undef NDEBUG
#include "fake_driver.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static uint16_t
load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void
store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

void
fake_mem_init(struct fake_mem *mem, uint64_t size)
{
	struct vfe_iova_region region = {FAKE_IOVA, size, NULL, VFE_IOVA_READ | VFE_IOVA_WRITE};

	*mem = (struct fake_mem){.size = size};
	mem->va = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert(mem->va != MAP_FAILED);
	region.va = mem->va;
	assert(vfe_iova_map_create(&region, 1, &mem->map, NULL) == 0);
}

void
fake_mem_fini(struct fake_mem *mem)
{
	munmap(mem->va, mem->size);
	vfe_iova_map_free(mem->map);
}

void *
fake_mem_alloc(struct fake_mem *mem, uint64_t size, uint64_t align)
{
	uint64_t off = vfe_align_up(mem->next, align);

	assert(vfe_range_inside(off, size, mem->size));
	mem->next = off + size;
	return mem->va + off;
}

uint64_t
fake_mem_iova(const struct fake_mem *mem, const void *va)
{
	return FAKE_IOVA + (uint64_t)((const uint8_t *)va - mem->va);
}

void
fake_ring_init(struct fake_ring *r, struct fake_mem *mem, uint16_t size, bool event_idx)
{
	uint16_t i;

	*r = (struct fake_ring){.mem = mem, .size = size, .event_idx = event_idx, .nr_free = size};
	r->desc = fake_mem_alloc(mem, vfe_vring_desc_bytes(size), 64);
	r->avail = fake_mem_alloc(mem, vfe_vring_avail_bytes(size), 64);
	r->used = fake_mem_alloc(mem, vfe_vring_used_bytes(size), 64);
	r->free = calloc(size, sizeof(*r->free));
	r->next = calloc(size, sizeof(*r->next));
	r->indirect = calloc(size, sizeof(*r->indirect));
	assert(r->free != NULL && r->next != NULL && r->indirect != NULL);
	for (i = 0; i < size; i++)
		r->free[i] = (uint16_t)(size - 1 - i);
}

void
fake_ring_fini(struct fake_ring *r)
{
	free(r->free);
	free(r->next);
	free(r->indirect);
}

struct vfe_vring_cfg
fake_ring_cfg(const struct fake_ring *r, uint64_t features)
{
	return (struct vfe_vring_cfg){
		.size = r->size,
		.desc = fake_mem_iova(r->mem, r->desc),
		.driver = fake_mem_iova(r->mem, r->avail),
		.device = fake_mem_iova(r->mem, r->used),
		.features = features | (r->event_idx ? VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) : 0),
	};
}

static struct vfe_wire_vring_desc
seg_desc(const struct fake_ring *r, const struct fake_seg *seg)
{
	return (struct vfe_wire_vring_desc){
		.addr = fake_mem_iova(r->mem, seg->va),
		.len = seg->len,
		.flags = seg->write ? VFE_VRING_DESC_F_WRITE : 0,
	};
}

void
fake_ring_put(struct fake_ring *r, uint16_t head)
{
	store16(&r->avail->ring[r->avail_idx % r->size], head);
	r->avail_idx++;
}

int
fake_ring_add(struct fake_ring *r, const struct fake_seg *segs, uint16_t n)
{
	uint16_t i, head, at;

	if (n == 0 || r->nr_free < n)
		return -1;
	head = at = r->free[--r->nr_free];
	for (i = 0; i < n; i++) {
		r->desc[at] = seg_desc(r, &segs[i]);
		r->next[at] = UINT16_MAX;
		if (i + 1 < n) {
			r->next[at] = r->free[--r->nr_free];
			r->desc[at].flags |= VFE_VRING_DESC_F_NEXT;
			r->desc[at].next = r->next[at];
			at = r->next[at];
		}
	}
	r->indirect[head] = false;
	fake_ring_put(r, head);
	return head;
}

int
fake_ring_add_indirect(struct fake_ring *r, const struct fake_seg *segs, uint16_t n)
{
	struct vfe_wire_vring_desc *table;
	uint16_t i, head;

	if (n == 0 || r->nr_free < 1)
		return -1;
	table = fake_mem_alloc(r->mem, 16u * n, 16);
	for (i = 0; i < n; i++) {
		table[i] = seg_desc(r, &segs[i]);
		if (i + 1 < n) {
			table[i].flags |= VFE_VRING_DESC_F_NEXT;
			table[i].next = (uint16_t)(i + 1);
		}
	}
	head = r->free[--r->nr_free];
	r->desc[head] = (struct vfe_wire_vring_desc){
		.addr = fake_mem_iova(r->mem, table),
		.len = 16u * n,
		.flags = VFE_VRING_DESC_F_INDIRECT,
	};
	r->next[head] = UINT16_MAX;
	r->indirect[head] = true;
	fake_ring_put(r, head);
	return head;
}

bool
fake_ring_show(struct fake_ring *r)
{
	const uint16_t old = r->shown, now = r->avail_idx;
	uint16_t event;

	if (old == now)
		return false;
	store16(&r->avail->idx, now);
	r->shown = now;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!r->event_idx)
		return !(load16(&r->used->flags) & VFE_VRING_USED_F_NO_NOTIFY);
	event = load16((const uint16_t *)(const void *)&r->used->ring[r->size]);
	return (uint16_t)(now - event - 1) < (uint16_t)(now - old);
}

int
fake_ring_get(struct fake_ring *r, uint32_t *ret_len)
{
	struct vfe_wire_vring_used_elem elem;
	uint16_t at;

	if (load16(&r->used->idx) == r->used_idx)
		return -1;
	elem = r->used->ring[r->used_idx % r->size];
	r->used_idx++;
	assert(elem.id < r->size);
	if (ret_len != NULL)
		*ret_len = elem.len;
	for (at = (uint16_t)elem.id; at != UINT16_MAX; at = r->next[at]) {
		assert(r->nr_free < r->size);
		r->free[r->nr_free++] = at;
	}
	return (int)elem.id;
}

void
fake_ring_interrupts(struct fake_ring *r, bool on)
{
	if (r->event_idx)
		store16(&r->avail->ring[r->size], (uint16_t)(r->used_idx - (on ? 0 : 1)));
	else
		store16(&r->avail->flags, on ? 0 : VFE_VRING_AVAIL_F_NO_INTERRUPT);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}
