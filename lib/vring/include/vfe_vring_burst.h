/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Inlined fast path of vfe_vring.h for many packets at a time.
 *
 * It takes only chains of one plain descriptor inside one region, and it takes them with all
 * checks. Anything else, right or wrong, is left in place for vfe_vring_pop(), which knows how to
 * follow it or what to say about it. So there is no error to return here.
 *
 * Every write of ours to a ring goes through the three vfe_vring_put_*() functions, and is told to
 * the watch by vring.c: elements and index when they are published.
 */

#ifndef VFE_VRING_BURST_H
#define VFE_VRING_BURST_H

#include <string.h>

#include "vfe_vring.h"

/*
 * Reads and writes of what the driver shares: each exactly once, never torn. The layouts are plain
 * integers (they belong to the wire), hence the builtins instead of _Atomic types.
 */
static inline uint16_t
vfe_vring_load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static inline uint16_t
vfe_vring_load16_acquire(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

/* One descriptor of the ring's own table, as two loads. */
static inline struct vfe_wire_vring_desc
vfe_vring_load_desc(const struct vfe_wire_vring_desc *desc)
{
	const uint64_t *words = (const uint64_t *)(const void *)desc;
	uint64_t rest = __atomic_load_n(&words[1], __ATOMIC_RELAXED);

	return (struct vfe_wire_vring_desc){
		.addr = __atomic_load_n(&words[0], __ATOMIC_RELAXED),
		.len = (uint32_t)rest,
		.flags = (uint16_t)(rest >> 32),
		.next = (uint16_t)(rest >> 48),
	};
}

/* The used element @ahead places behind the last one that was put. */
static inline void
vfe_vring_put_used(struct vfe_vring *vr, uint16_t ahead, uint16_t head, uint32_t len)
{
	struct vfe_wire_vring_used_elem elem = {head, len};

	memcpy(&vr->used->ring[(uint16_t)(vr->last_used + ahead) & vr->mask], &elem, sizeof(elem));
}

/* The used index: what was put before becomes visible. */
static inline void
vfe_vring_put_idx(struct vfe_vring *vr)
{
	__atomic_store_n(&vr->used->idx, vr->last_used, __ATOMIC_RELEASE);
}

/* @field is used->flags or the avail_event behind the used ring. */
static inline void
vfe_vring_put_field(struct vfe_vring *vr, uint16_t *field, uint16_t value)
{
	(void)vr;
	__atomic_store_n(field, value, __ATOMIC_RELAXED);
}

/* A chain of one descriptor. */
struct vfe_vring_buf {
	uint8_t *base;
	uint32_t len;
	uint16_t head;
};

/*
 * Take up to @n chains of one descriptor which the device reads (@direction 0) or writes
 * (VFE_VRING_DESC_F_WRITE). Stops at the first that is something else. @n is at most what
 * vfe_vring_avail() said. With @prefetch the buffers are on their way when this returns; give
 * constants for both. Returns the number of chains.
 */
static inline uint16_t
vfe_vring_pop_burst(struct vfe_vring *vr, struct vfe_vring_buf *bufs, uint16_t n,
	const uint16_t direction, const bool prefetch)
{
	const uint32_t prot = direction != 0 ? VFE_IOVA_WRITE : VFE_IOVA_READ;
	const struct vfe_iova_map *map = vr->map;
	const uint16_t at = vr->last_avail;
	uint32_t hint = vr->hint;
	struct vfe_wire_vring_desc d;
	uint16_t i, head;
	uint8_t *base;

	for (i = 0; i < n; i++) {
		head = vfe_vring_load16(&vr->avail->ring[(uint16_t)(at + i) & vr->mask]);
		if (vfe_unlikely(head >= vr->size))
			break;
		d = vfe_vring_load_desc(&vr->desc[head]);
		if (vfe_unlikely(d.flags != direction || d.len == 0))
			break;
		base = vfe_iova_translate(map, &hint, d.addr, d.len, prot);
		if (vfe_unlikely(base == NULL))
			break;
		if (prefetch && direction != 0)
			__builtin_prefetch(base, 1);
		else if (prefetch)
			__builtin_prefetch(base, 0);
		bufs[i] = (struct vfe_vring_buf){.base = base, .len = d.len, .head = head};
	}
	vr->hint = hint;
	vr->last_avail = (uint16_t)(at + i);
	vr->stats.chains += i;
	return i;
}

/* @n used elements were put at 0 .. @n - 1 ahead; vfe_vring_publish() follows. */
static inline void
vfe_vring_advance(struct vfe_vring *vr, uint16_t n)
{
	vr->last_used = (uint16_t)(vr->last_used + n);
	vr->stats.used += n;
}

/* Give back @n chains, with @len bytes written into each; vfe_vring_publish() follows. */
static inline void
vfe_vring_push_burst(
	struct vfe_vring *vr, const struct vfe_vring_buf *bufs, uint16_t n, uint32_t len)
{
	uint16_t i;

	for (i = 0; i < n; i++)
		vfe_vring_put_used(vr, i, bufs[i].head, len);
	vfe_vring_advance(vr, n);
}

#endif /* VFE_VRING_BURST_H */
