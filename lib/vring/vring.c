/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Device side of a split virtqueue (virtio 1.4 section 2.7) in memory that the driver shares.
 */

#include "vfe_vring.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "vfe_iov.h"
#include "vfe_vring_burst.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rings are little-endian");

/* With kicks off, avail_event is moved along before the driver's index comes round to it again. */
enum { VRING_KICK_DISTANCE = 16384 };

/* A table of descriptors: the ring's own, or an indirect one. */
struct vring_table {
	const struct vfe_wire_vring_desc *direct; /* NULL for an indirect one */
	uint64_t iova;
	uint32_t nr;
	uint32_t hint; /* of the iova map; apart from that of the buffers */
};

static int vring_fail(struct vfe_vring *vr, const char *fmt, ...)
	__attribute__((format(printf, 2, 3), cold, noinline));

static int
vring_fail(struct vfe_vring *vr, const char *fmt, ...)
{
	va_list ap;

	vr->broken = true;
	vr->stats.bad++;
	va_start(ap, fmt);
	vsnprintf(vr->error.text, sizeof(vr->error.text), fmt, ap);
	va_end(ap);
	return -EPROTO;
}

static uint16_t *
vring_used_event(const struct vfe_vring *vr)
{
	return &vr->avail->ring[vr->size];
}

static uint16_t *
vring_avail_event(const struct vfe_vring *vr)
{
	return (uint16_t *)(void *)&vr->used->ring[vr->size];
}

/* --- the watch --- */

void
vfe_vring_wrote(struct vfe_vring *vr, const void *va, uint64_t len)
{
	uint64_t iova;
	bool known;

	if (vr->watch == NULL)
		return;
	known = vfe_iova_of(vr->map, &vr->hint, va, &iova);
	assert(known);
	if (known)
		vr->watch->wrote(vr->watch, iova, len);
}

void
vfe_vring_wrote_iov(
	struct vfe_vring *vr, const struct iovec *iov, uint32_t nr, uint64_t off, uint64_t len)
{
	struct vfe_iov_walk walk = {iov, nr, off, len};
	uint64_t part;
	uint8_t *at;

	if (vr->watch == NULL)
		return;
	while ((part = vfe_iov_next(&walk, &at)) > 0)
		vfe_vring_wrote(vr, at, part);
}

/* The used index and the elements from @first to the last that was put. */
static void __attribute__((noinline)) vring_wrote_used(struct vfe_vring *vr, uint16_t first)
{
	const uint64_t at = vr->cfg.device, ring = at + sizeof(*vr->used);
	const uint64_t size = sizeof(vr->used->ring[0]);
	const uint16_t n = (uint16_t)(vr->last_used - first), from = first & vr->mask;
	const uint16_t till_end = (uint16_t)(vr->size - from), part = n < till_end ? n : till_end;

	vr->watch->wrote(vr->watch, at, sizeof(*vr->used));
	/* no page is smaller: where the ring does not reach into a second one that was all */
	if (((at ^ (ring + vr->size * size - 1)) & ~(uint64_t)4095) == 0)
		return;
	if (part > 0)
		vr->watch->wrote(vr->watch, ring + from * size, part * size);
	if (n > part)
		vr->watch->wrote(vr->watch, ring, (uint64_t)(n - part) * size);
}

/* @field is in the used ring. */
static void
vring_put_field(struct vfe_vring *vr, uint16_t *field, uint16_t value)
{
	vfe_vring_put_field(vr, field, value);
	if (vfe_vring_watched(vr))
		vr->watch->wrote(vr->watch,
			vr->cfg.device + ((uintptr_t)field - (uintptr_t)vr->used), sizeof(*field));
}

static int
cfg_check(const struct vfe_vring_cfg *cfg, struct vfe_error *err)
{
	if (!vfe_is_pow2(cfg->size) || cfg->size > VFE_VIRTIO_QUEUE_MAX_SIZE)
		return vfe_error_set(err, -EINVAL, "queue size %u is not a power of two up to %u",
			cfg->size, VFE_VIRTIO_QUEUE_MAX_SIZE);
	if (!vfe_is_aligned(cfg->desc, 16))
		return vfe_error_set(err, -EINVAL,
			"descriptor table at 0x%" PRIx64 " is not aligned to 16", cfg->desc);
	if (!vfe_is_aligned(cfg->driver, 2))
		return vfe_error_set(err, -EINVAL,
			"available ring at 0x%" PRIx64 " is not aligned to 2", cfg->driver);
	if (!vfe_is_aligned(cfg->device, 4))
		return vfe_error_set(err, -EINVAL, "used ring at 0x%" PRIx64 " is not aligned to 4",
			cfg->device);
	return 0;
}

/* One part of the ring; *@ret is NULL on failure. */
static int
part_translate(const struct vfe_iova_map *map, const char *name, uint64_t iova, uint64_t len,
	uint32_t prot, uint64_t align, void **ret, struct vfe_error *err)
{
	uint32_t hint = 0;
	void *va = vfe_iova_translate(map, &hint, iova, len, prot);

	*ret = NULL;
	if (va == NULL)
		return vfe_error_set(err, -EFAULT,
			"%s at 0x%" PRIx64 ", %" PRIu64 " bytes, is not in the device's memory",
			name, iova, len);
	/* a region can begin anywhere, so the iova's alignment alone does not say it */
	if (!vfe_is_aligned((uintptr_t)va, align))
		return vfe_error_set(err, -EFAULT,
			"%s at 0x%" PRIx64 " is in memory that is not mapped page by page", name,
			iova);
	*ret = va;
	return 0;
}

static int
ring_translate(struct vfe_vring *vr, const struct vfe_iova_map *map, struct vfe_error *err)
{
	const struct vfe_vring_cfg *cfg = &vr->cfg;
	const uint16_t n = cfg->size, event = vr->event_idx ? 0 : 2;
	void *desc, *avail, *used;
	int rc;

	rc = part_translate(map, "descriptor table", cfg->desc, vfe_vring_desc_bytes(n),
		VFE_IOVA_READ, 8, &desc, err);
	if (rc == 0)
		rc = part_translate(map, "available ring", cfg->driver,
			vfe_vring_avail_bytes(n) - event, VFE_IOVA_READ, 2, &avail, err);
	if (rc == 0)
		rc = part_translate(map, "used ring", cfg->device, vfe_vring_used_bytes(n) - event,
			VFE_IOVA_WRITE, 4, &used, err);
	if (rc < 0)
		return rc;

	vr->desc = desc;
	vr->avail = avail;
	vr->used = used;
	vr->map = map;
	vr->hint = 0;
	return 0;
}

static void
ring_forget(struct vfe_vring *vr)
{
	vr->desc = NULL;
	vr->avail = NULL;
	vr->used = NULL;
	vr->map = NULL;
}

int
vfe_vring_start(struct vfe_vring *vr, const struct vfe_vring_cfg *cfg,
	const struct vfe_iova_map *map, struct vfe_error *err)
{
	int rc = cfg_check(cfg, err);

	if (rc < 0)
		return rc;

	*vr = (struct vfe_vring){
		.cfg = *cfg,
		.size = cfg->size,
		.mask = (uint16_t)(cfg->size - 1),
		.last_avail = cfg->last_avail_idx,
		.avail_seen = cfg->last_avail_idx,
		.last_used = cfg->last_used_idx,
		.published = cfg->last_used_idx,
		.signalled = cfg->last_used_idx,
		.event_idx = (cfg->features & VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX)) != 0,
		.indirect = (cfg->features & VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC)) != 0,
		.kick_on = true, /* for all we know, so that asking for silence is written */
	};
	rc = ring_translate(vr, map, err);
	if (rc == 0)
		vr->started = true;
	return rc;
}

/* Elements that were put and never published, as those of a ring that broke meanwhile. */
static void
ring_wrote_rest(struct vfe_vring *vr)
{
	if (vfe_vring_watched(vr) && vr->last_used != vr->published)
		vring_wrote_used(vr, vr->published);
}

void
vfe_vring_stop(struct vfe_vring *vr)
{
	ring_wrote_rest(vr);
	ring_forget(vr);
	vr->started = false;
	vr->broken = false;
	vr->error.text[0] = '\0';
}

int
vfe_vring_set_map(struct vfe_vring *vr, const struct vfe_iova_map *map, struct vfe_error *err)
{
	struct vfe_error why;
	int rc;

	if (!vr->started)
		return 0;

	ring_wrote_rest(vr);
	rc = ring_translate(vr, map, &why);
	if (rc < 0) {
		ring_forget(vr);
		if (!vr->broken)
			vring_fail(vr, "%s", why.text);
		vfe_error_set(err, rc, "%s", why.text);
	}
	return rc;
}

int
vfe_vring_avail(struct vfe_vring *vr)
{
	uint16_t idx, n;

	if (vfe_unlikely(vr->broken || !vr->started))
		return -EPROTO;

	idx = vfe_vring_load16_acquire(&vr->avail->idx);
	n = (uint16_t)(idx - vr->last_avail);
	if (vfe_unlikely(n > vr->size))
		return vring_fail(vr, "available index %u is %u ahead of %u, queue size %u", idx, n,
			vr->last_avail, vr->size);
	vr->avail_seen = idx;
	return n;
}

/* Read descriptor @idx of @tbl once. The caller has checked @idx. */
static int
table_read(struct vfe_vring *vr, struct vring_table *tbl, uint32_t idx,
	struct vfe_wire_vring_desc *ret)
{
	const void *p;

	if (tbl->direct != NULL) {
		*ret = vfe_vring_load_desc(&tbl->direct[idx]);
		return 0;
	}
	p = vfe_iova_translate(
		vr->map, &tbl->hint, tbl->iova + 16 * (uint64_t)idx, 16, VFE_IOVA_READ);
	if (p == NULL)
		return vring_fail(vr,
			"descriptor %u of the indirect table at 0x%" PRIx64
			" is not in the device's memory",
			idx, tbl->iova);
	/* indirect tables need not be aligned; the fence keeps the compiler from a second look */
	memcpy(ret, p, sizeof(*ret));
	atomic_signal_fence(memory_order_seq_cst);
	return 0;
}

/* Turn to the indirect table that @d, found in @tbl, refers to. */
static int
table_enter(struct vfe_vring *vr, struct vring_table *tbl, const struct vfe_wire_vring_desc *d)
{
	if (tbl->direct == NULL)
		return vring_fail(vr, "indirect descriptor inside the indirect table at 0x%" PRIx64,
			tbl->iova);
	if (!vr->indirect)
		return vring_fail(vr, "indirect descriptor without INDIRECT_DESC negotiated");
	if (d->flags & VFE_VRING_DESC_F_NEXT)
		return vring_fail(
			vr, "descriptor with both INDIRECT and NEXT, flags 0x%x", d->flags);
	if (d->len == 0 || d->len % 16 != 0 || d->len / 16 > VFE_VIRTIO_QUEUE_MAX_SIZE)
		return vring_fail(vr, "indirect table of %u bytes", d->len);
	*tbl = (struct vring_table){.iova = d->addr, .nr = d->len / 16, .hint = vr->hint};
	return 0;
}

/* Translate the buffer of one descriptor; it takes several entries when it crosses regions. */
static int
chain_add(struct vfe_vring *vr, struct vfe_chain *chain, const struct vfe_wire_vring_desc *d)
{
	const bool write = (d->flags & VFE_VRING_DESC_F_WRITE) != 0;
	const struct vfe_iova_region *r;
	uint64_t addr = d->addr, part;
	uint32_t left = d->len, prot = write ? VFE_IOVA_WRITE : VFE_IOVA_READ;
	uint16_t nr = (uint16_t)(chain->nr_read + chain->nr_write);
	uint32_t *total = write ? &chain->write_len : &chain->read_len;
	uint8_t *va;

	if (!write && chain->nr_write > 0)
		return vring_fail(
			vr, "readable descriptor after a writable one, head %u", chain->head);
	if (left == 0)
		return vring_fail(vr, "empty buffer in the chain of head %u", chain->head);
	if (*total > UINT32_MAX - left)
		return vring_fail(vr, "chain of head %u is 4 GiB or longer", chain->head);
	*total += left;

	while (left > 0) {
		if (nr == chain->max_iov)
			return vring_fail(vr, "chain of head %u has more than %u parts",
				chain->head, chain->max_iov);
		/* find the region for one byte, then use as much of it as there is */
		va = vfe_iova_translate(vr->map, &vr->hint, addr, 1, prot);
		if (va == NULL)
			return vring_fail(vr,
				"buffer 0x%" PRIx64 " + %u is not in the device's memory%s",
				d->addr, d->len, write ? " for writing" : "");
		r = &vr->map->regions[vr->hint];
		part = r->size - (addr - r->iova);
		if (part > left)
			part = left;
		chain->iov[nr].iov_base = va;
		chain->iov[nr].iov_len = part;
		nr++;
		addr += part;
		left -= (uint32_t)part;
		if (left > 0 && addr == 0)
			return vring_fail(vr, "buffer 0x%" PRIx64 " + %u wraps", d->addr, d->len);
	}
	if (write)
		chain->nr_write = (uint16_t)(nr - chain->nr_read);
	else
		chain->nr_read = nr;
	return 0;
}

/* Follow the chain from descriptor @idx of the ring's table. */
static int
chain_walk(struct vfe_vring *vr, struct vfe_chain *chain, uint32_t idx)
{
	struct vring_table tbl = {.direct = vr->desc, .nr = vr->size};
	struct vfe_wire_vring_desc d;
	uint32_t steps = 0;
	int rc;

	for (;;) {
		if (idx >= tbl.nr)
			return vring_fail(vr, "next descriptor %u of a table of %u, head %u", idx,
				tbl.nr, chain->head);
		/* whoever takes more steps than there are descriptors goes in a circle */
		if (++steps > tbl.nr)
			return vring_fail(
				vr, "descriptor loop in the chain of head %u", chain->head);
		rc = table_read(vr, &tbl, idx, &d);
		if (rc < 0)
			return rc;
		if (d.flags & VFE_VRING_DESC_F_INDIRECT) {
			rc = table_enter(vr, &tbl, &d);
			if (rc < 0)
				return rc;
			steps = 0;
			idx = 0;
			continue;
		}
		rc = chain_add(vr, chain, &d);
		if (rc < 0)
			return rc;
		if (!(d.flags & VFE_VRING_DESC_F_NEXT))
			return 0;
		idx = d.next;
	}
}

int
vfe_vring_pop(struct vfe_vring *vr, struct vfe_chain *chain)
{
	uint16_t head;
	int rc;

	if (vfe_unlikely(vr->broken || !vr->started))
		return -EPROTO;
	if (vr->last_avail == vr->avail_seen) {
		rc = vfe_vring_avail(vr);
		if (rc <= 0)
			return rc;
	}

	head = vfe_vring_load16(&vr->avail->ring[vr->last_avail & vr->mask]);
	if (vfe_unlikely(head >= vr->size))
		return vring_fail(vr, "head %u of a queue of %u", head, vr->size);

	chain->head = head;
	chain->nr_read = 0;
	chain->nr_write = 0;
	chain->read_len = 0;
	chain->write_len = 0;
	rc = chain_walk(vr, chain, head);
	if (rc < 0)
		return rc;
	vr->last_avail++;
	vr->stats.chains++;
	return 1;
}

void
vfe_vring_unpop(struct vfe_vring *vr, uint16_t n)
{
	vr->last_avail = (uint16_t)(vr->last_avail - n);
	vr->stats.chains -= n;
}

void
vfe_vring_push(struct vfe_vring *vr, uint16_t head, uint32_t len)
{
	if (vfe_unlikely(vr->broken || !vr->started))
		return;
	vfe_vring_put_used(vr, 0, head, len);
	vr->last_used++;
	vr->stats.used++;
}

void
vfe_vring_publish(struct vfe_vring *vr)
{
	const uint16_t first = vr->published;

	/* no store without need: the driver polls this cache line */
	if (vr->last_used == vr->published || vfe_unlikely(vr->used == NULL))
		return;
	vfe_vring_put_idx(vr);
	vr->published = vr->last_used;
	if (vfe_vring_watched(vr))
		vring_wrote_used(vr, first);
}

bool
vfe_vring_wants_signal(struct vfe_vring *vr)
{
	const uint16_t now = vr->published, old = vr->signalled;
	uint16_t event;
	bool wants;

	if (vfe_unlikely(vr->avail == NULL) || now == old)
		return false;

	/* the driver enables interrupts, then looks at the used index; we the other way round */
	atomic_thread_fence(memory_order_seq_cst);
	vr->signalled = now;
	if (vr->event_idx) {
		event = vfe_vring_load16(vring_used_event(vr));
		wants = !vr->signal_known || (uint16_t)(now - event - 1) < (uint16_t)(now - old);
		vr->signal_known = true;
	} else {
		wants = !(vfe_vring_load16(&vr->avail->flags) & VFE_VRING_AVAIL_F_NO_INTERRUPT);
	}
	vr->stats.signals += wants;
	return wants;
}

static void
kick_off(struct vfe_vring *vr)
{
	uint16_t behind = (uint16_t)(vr->last_avail - vr->kick_at);

	if (!vr->event_idx) {
		if (vr->kick_on)
			vring_put_field(vr, &vr->used->flags, VFE_VRING_USED_F_NO_NOTIFY);
	} else if (vr->kick_on || behind > VRING_KICK_DISTANCE) {
		/* an index that was passed already: a whole turn until the driver gets there */
		vr->kick_at = (uint16_t)(vr->last_avail - 1);
		vring_put_field(vr, vring_avail_event(vr), vr->kick_at);
	}
	vr->kick_on = false;
}

bool
vfe_vring_set_kick(struct vfe_vring *vr, bool on)
{
	if (vfe_unlikely(vr->broken || !vr->started))
		return false;
	if (!on) {
		kick_off(vr);
		return false;
	}

	if (vr->event_idx) {
		vr->kick_at = vr->avail_seen;
		vring_put_field(vr, vring_avail_event(vr), vr->kick_at);
	} else {
		vring_put_field(vr, &vr->used->flags, 0);
	}
	vr->kick_on = true;
	/* the driver moves its index, then looks whether we want kicks; we the other way round */
	atomic_thread_fence(memory_order_seq_cst);
	return vfe_vring_load16(&vr->avail->idx) != vr->avail_seen;
}
