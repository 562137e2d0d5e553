/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block requests: taken from the ring, checked, carried out in steps, answered.
 *
 * A request is a stream of readable bytes (header, data of a write, ranges) and one of writable
 * bytes (data of a read, then the status byte); where descriptors begin does not matter. What the
 * back end gets are the guest's own buffers.
 */

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "bp.h"
#include "vfe_iov.h"

enum { HDR_SIZE = sizeof(struct vfe_wire_blk_hdr), RANGE_SIZE = sizeof(struct vfe_wire_blk_range) };

/* All that this device writes to the guest besides the ring is told here, in whole buffers. */
static void
wrote(struct bp_queue *bq, const struct iovec *iov, uint16_t nr)
{
	uint16_t i;

	if (vfe_likely(!vfe_vring_watched(&bq->q.ring)))
		return;
	/* of an abandoned request, or without memory: there is nothing to be migrated */
	if (!bq->q.attached || bq->q.ring.map == NULL)
		return;
	for (i = 0; i < nr; i++)
		vfe_vring_wrote(&bq->q.ring, iov[i].iov_base, iov[i].iov_len);
}

/* --- buffers --- */

/* Copy the first @len bytes of @iov, which has them, and leave what is behind. */
static void
iov_pull(struct iovec **iov, uint16_t *nr, void *to, size_t len)
{
	size_t done = 0, part;

	while (done < len) {
		part = (*iov)->iov_len < len - done ? (*iov)->iov_len : len - done;
		if (to != NULL)
			memcpy((uint8_t *)to + done, (*iov)->iov_base, part);
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + part;
		(*iov)->iov_len -= part;
		done += part;
		if ((*iov)->iov_len == 0) {
			(*iov)++;
			(*nr)--;
		}
	}
}

/* Take the last byte off @iov, which is not empty. */
static uint8_t *
iov_pull_last(struct iovec *iov, uint16_t *nr)
{
	struct iovec *last = &iov[*nr - 1];

	last->iov_len--;
	if (last->iov_len == 0)
		(*nr)--;
	return (uint8_t *)last->iov_base + last->iov_len;
}

/* --- answering --- */

static void
give_back(struct bp_slot *slot)
{
	struct bp_queue *bq = slot->bq;
	struct iovec status = {slot->status, 1};
	bool complete = slot->answer == VFE_BLK_S_OK || slot->write_len == 1;

	/* an abandoned request has no ring and maybe no memory any more */
	if (bq->q.attached && !bq->q.ring.broken) {
		*slot->status = slot->answer;
		wrote(bq, &status, 1);
		vfe_vring_push(&bq->q.ring, slot->head, complete ? slot->write_len : 0);
	}
	if (slot->big != NULL)
		bq->bigs[bq->nr_bigs++] = slot->big;
	slot->big = NULL;
	slot->busy = false;
	STAILQ_INSERT_HEAD(&bq->free, slot, link);
	atomic_store_explicit(&bq->in_flight,
		atomic_load_explicit(&bq->in_flight, memory_order_relaxed) - 1,
		memory_order_relaxed);
	bq->q.worker->bp_in_flight--;
	if (atomic_load_explicit(&bq->in_flight, memory_order_relaxed) == 0)
		bp_queue_is_empty(bq);
}

static void
answer(struct bp_slot *slot, uint8_t status)
{
	struct bp_queue *bq = slot->bq;

	slot->answer = status;
	if (vfe_unlikely(status == VFE_BLK_S_IOERR))
		dp_count(&bq->stats.errors, 1);
	else if (vfe_unlikely(status == VFE_BLK_S_UNSUPP))
		dp_count(&bq->stats.unsupported, 1);
	if (vfe_likely(!bq->port->in_order)) {
		give_back(slot);
		return;
	}
	slot->answered = true;
	while ((slot = STAILQ_FIRST(&bq->order)) != NULL && slot->answered) {
		STAILQ_REMOVE_HEAD(&bq->order, order);
		give_back(slot);
	}
}

/* --- steps --- */

static uint32_t
inject_bit(const struct bp_slot *slot)
{
	switch (slot->type) {
	case VFE_BLK_T_IN:
		return BP_INJECT_READ;
	case VFE_BLK_T_OUT:
		return BP_INJECT_WRITE;
	case VFE_BLK_T_FLUSH:
		return BP_INJECT_FLUSH;
	case VFE_BLK_T_DISCARD:
		return BP_INJECT_DISCARD;
	default:
		return BP_INJECT_ZEROES;
	}
}

/* What the test knob wants to happen to the present step. */
static int
injected(const struct bp_slot *slot)
{
	struct bp_disk *disk = slot->bq->port->disk;
	int action = atomic_load_explicit(&disk->inject.action, memory_order_acquire);
	uint64_t first = slot->offset / VFE_BLK_SECTOR_SIZE, last;

	if (vfe_likely(action == BP_INJECT_NONE))
		return BP_INJECT_NONE;
	last = slot->len > 0 ? (slot->offset + slot->len - 1) / VFE_BLK_SECTOR_SIZE : first;
	if ((atomic_load(&disk->inject.ops) & inject_bit(slot)) == 0)
		return BP_INJECT_NONE;
	if (slot->type != VFE_BLK_T_FLUSH && (last < atomic_load(&disk->inject.first) ||
						     first > atomic_load(&disk->inject.last)))
		return BP_INJECT_NONE;
	if (atomic_fetch_add(&disk->inject.count, 1) % atomic_load(&disk->inject.every) != 0)
		return BP_INJECT_NONE;
	return action;
}

static void
submit(struct bp_slot *slot)
{
	struct bp_queue *bq = slot->bq;

	switch (injected(slot)) {
	case BP_INJECT_FAIL:
		bp_slot_done(slot, -EIO);
		return;
	case BP_INJECT_HOLD:
		STAILQ_INSERT_TAIL(&bq->held, slot, link);
		return;
	default:
		bq->port->disk->ops->submit(slot);
	}
}

void
bp_release_held(struct bp_queue *bq)
{
	struct bp_disk *disk = bq->port->disk;
	struct bp_slot *slot;

	if (vfe_likely(STAILQ_EMPTY(&bq->held)) ||
		atomic_load(&disk->inject.action) == BP_INJECT_HOLD)
		return;
	while ((slot = STAILQ_FIRST(&bq->held)) != NULL) {
		STAILQ_REMOVE_HEAD(&bq->held, link);
		/* the guest may not have this memory any more */
		if (bq->q.attached)
			disk->ops->submit(slot);
		else
			bp_slot_done(slot, -ECANCELED);
	}
}

/* Set up the step for range slot->seg. */
static void
begin_range(struct bp_slot *slot)
{
	const struct vfe_wire_blk_range *range = &slot->segs[slot->seg];

	slot->offset = le64toh(range->sector) * VFE_BLK_SECTOR_SIZE;
	slot->len = (uint64_t)le32toh(range->num_sectors) * VFE_BLK_SECTOR_SIZE;
	slot->zero = (le32toh(range->flags) & VFE_BLK_RANGE_F_UNMAP) != 0 ? BP_ZERO_PUNCH
									  : BP_ZERO_RANGE;
	slot->tries = 0;
}

/* A transfer that stopped half way goes on behind what was done. */
static void
transfer_done(struct bp_slot *slot, int64_t result)
{
	if (vfe_likely(result == (int64_t)slot->len)) {
		answer(slot, VFE_BLK_S_OK);
		return;
	}
	/* 0 of a read: the file is shorter than it was */
	if (result <= 0 || result > (int64_t)slot->len) {
		answer(slot, VFE_BLK_S_IOERR);
		return;
	}
	iov_pull(&slot->iov, &slot->nr_iov, NULL, (size_t)result);
	slot->offset += (uint64_t)result;
	slot->len -= (uint64_t)result;
	slot->tries = 0;
	slot->bq->port->disk->ops->submit(slot);
}

static void
range_done(struct bp_slot *slot, int64_t result)
{
	if (slot->op == BP_ZERO && slot->zero == BP_ZERO_WRITE && result > 0 &&
		result < (int64_t)slot->len) {
		slot->offset += (uint64_t)result;
		slot->len -= (uint64_t)result;
		slot->bq->port->disk->ops->submit(slot);
		return;
	}
	if (result < 0) {
		answer(slot, VFE_BLK_S_IOERR);
		return;
	}
	if (++slot->seg == slot->nr_segs && slot->dsync) {
		slot->op = BP_SYNC;
		slot->bq->port->disk->ops->submit(slot);
		return;
	}
	if (slot->seg == slot->nr_segs) {
		answer(slot, VFE_BLK_S_OK);
		return;
	}
	begin_range(slot);
	submit(slot);
}

void
bp_slot_done(struct bp_slot *slot, int64_t result)
{
	if (vfe_unlikely(result == -EAGAIN || result == -EINTR) && ++slot->tries < BP_MAX_TRIES) {
		slot->bq->port->disk->ops->submit(slot);
		return;
	}
	switch (slot->op) {
	case BP_READ:
		/* also of a read that failed: a part may be there */
		wrote(slot->bq, slot->iov, slot->nr_iov);
		transfer_done(slot, result);
		break;
	case BP_WRITE:
		transfer_done(slot, result);
		break;
	case BP_SYNC:
		answer(slot, result < 0 ? VFE_BLK_S_IOERR : VFE_BLK_S_OK);
		break;
	default:
		range_done(slot, result);
	}
}

/* --- one row per type of request --- */

static bool
refuses_writes(const struct bp_queue *bq)
{
	return bq->port->read_only || bq->port->disk->read_only;
}

/* Is [@sector, @sector + @n) on the disk? */
static bool
on_disk(const struct bp_queue *bq, uint64_t sector, uint64_t n)
{
	uint64_t capacity = atomic_load_explicit(&bq->port->disk->size, memory_order_relaxed) /
			    VFE_BLK_SECTOR_SIZE;

	return vfe_range_inside(sector, n, capacity);
}

/* Read or write of the @len bytes at slot->iov. */
static void
on_transfer(struct bp_slot *slot, uint64_t sector, uint64_t len, bool write)
{
	struct bp_queue *bq = slot->bq;

	dp_count(write ? &bq->stats.writes : &bq->stats.reads, 1);
	dp_count(write ? &bq->stats.write_bytes : &bq->stats.read_bytes, len);
	if (vfe_unlikely(len % VFE_BLK_SECTOR_SIZE != 0 || len > BP_MAX_DATA ||
			 !on_disk(bq, sector, len / VFE_BLK_SECTOR_SIZE) ||
			 (write && refuses_writes(bq)))) {
		answer(slot, VFE_BLK_S_IOERR);
		return;
	}
	if (vfe_unlikely(len == 0)) {
		answer(slot, VFE_BLK_S_OK);
		return;
	}
	slot->op = write ? BP_WRITE : BP_READ;
	slot->offset = sector * VFE_BLK_SECTOR_SIZE;
	slot->len = len;
	slot->dsync = write && !atomic_load_explicit(&bq->port->writeback, memory_order_relaxed);
	submit(slot);
}

static void
on_flush(struct bp_slot *slot)
{
	dp_count(&slot->bq->stats.flushes, 1);
	slot->op = BP_SYNC;
	slot->offset = 0;
	slot->len = 0;
	submit(slot);
}

/* @iov is the writable part without the status byte. */
static void
on_get_id(struct bp_slot *slot, struct iovec *iov, uint16_t nr)
{
	struct bp_queue *bq = slot->bq;

	vfe_iov_write(iov, nr, 0, bq->port->id, BP_ID_SIZE);
	wrote(bq, iov, nr);
	answer(slot, VFE_BLK_S_OK);
}

/* VFE_BLK_S_* for the ranges in slot->segs, which are our copy. */
static uint8_t
check_ranges(const struct bp_slot *slot)
{
	const uint32_t known = slot->type == VFE_BLK_T_WRITE_ZEROES ? VFE_BLK_RANGE_F_UNMAP : 0;
	uint16_t i;

	for (i = 0; i < slot->nr_segs; i++) {
		const struct vfe_wire_blk_range *range = &slot->segs[i];
		uint32_t n = le32toh(range->num_sectors);

		if ((le32toh(range->flags) & ~known) != 0)
			return VFE_BLK_S_UNSUPP;
		if (n == 0 || n > BP_MAX_RANGE_SECTORS ||
			!on_disk(slot->bq, le64toh(range->sector), n))
			return VFE_BLK_S_IOERR;
	}
	return VFE_BLK_S_OK;
}

/* DISCARD or WRITE_ZEROES: @len bytes of ranges at @iov. */
static void
on_ranges(struct bp_slot *slot, struct iovec *iov, uint16_t nr, uint64_t len)
{
	struct vfe_wire_blk_range copy[BP_MAX_SEGS];
	struct bp_queue *bq = slot->bq;
	uint8_t status;

	dp_count(
		slot->type == VFE_BLK_T_DISCARD ? &bq->stats.discards : &bq->stats.write_zeroes, 1);
	if (len == 0 || len % RANGE_SIZE != 0 || len / RANGE_SIZE > BP_MAX_SEGS ||
		refuses_writes(bq)) {
		answer(slot, VFE_BLK_S_IOERR);
		return;
	}
	/* the copy goes where the parts are */
	iov_pull(&iov, &nr, copy, len);
	memcpy(slot->segs, copy, len);
	slot->nr_segs = (uint16_t)(len / RANGE_SIZE);
	slot->seg = 0;
	status = check_ranges(slot);
	if (status != VFE_BLK_S_OK) {
		answer(slot, status);
		return;
	}
	slot->op = slot->type == VFE_BLK_T_DISCARD ? BP_DISCARD : BP_ZERO;
	slot->dsync = !atomic_load_explicit(&bq->port->writeback, memory_order_relaxed);
	begin_range(slot);
	submit(slot);
}

/* Carry out the request whose chain is in @chain; header and status byte are there. */
static void
dispatch(struct bp_slot *slot, struct vfe_chain *chain)
{
	struct iovec *out = chain->iov, *in = chain->iov + chain->nr_read;
	uint16_t nr_out = chain->nr_read, nr_in = chain->nr_write;
	struct vfe_wire_blk_hdr hdr;

	slot->status = iov_pull_last(in, &nr_in);
	if (vfe_unlikely(chain->read_len < HDR_SIZE)) {
		slot->type = UINT32_MAX;
		answer(slot, VFE_BLK_S_IOERR);
		return;
	}
	iov_pull(&out, &nr_out, &hdr, HDR_SIZE);
	slot->type = le32toh(hdr.type);
	switch (slot->type) {
	case VFE_BLK_T_IN:
		slot->iov = in;
		slot->nr_iov = nr_in;
		on_transfer(slot, le64toh(hdr.sector), chain->write_len - 1, false);
		break;
	case VFE_BLK_T_OUT:
		slot->iov = out;
		slot->nr_iov = nr_out;
		on_transfer(slot, le64toh(hdr.sector), chain->read_len - HDR_SIZE, true);
		break;
	case VFE_BLK_T_FLUSH:
		on_flush(slot);
		break;
	case VFE_BLK_T_GET_ID:
		on_get_id(slot, in, nr_in);
		break;
	case VFE_BLK_T_DISCARD:
	case VFE_BLK_T_WRITE_ZEROES:
		on_ranges(slot, out, nr_out, chain->read_len - HDR_SIZE);
		break;
	default:
		answer(slot, VFE_BLK_S_UNSUPP);
	}
}

/* --- taking --- */

static void
slot_take(struct bp_queue *bq, struct bp_slot *slot, const struct vfe_chain *chain)
{
	STAILQ_REMOVE_HEAD(&bq->free, link);
	slot->head = chain->head;
	slot->write_len = chain->write_len;
	slot->busy = true;
	slot->answered = false;
	slot->buffered = false;
	slot->dsync = false;
	slot->tries = 0;
	slot->nr_iov = 0;
	atomic_store_explicit(&bq->in_flight,
		atomic_load_explicit(&bq->in_flight, memory_order_relaxed) + 1,
		memory_order_relaxed);
	bq->q.worker->bp_in_flight++;
	if (bq->port->in_order)
		STAILQ_INSERT_TAIL(&bq->order, slot, order);
}

/* Take one request; false when there is none, or no room for it, or the ring is broken. */
static bool
take_one(struct bp_queue *bq)
{
	struct bp_slot *slot = STAILQ_FIRST(&bq->free);
	struct dp_queue *q = &bq->q;
	struct vfe_chain chain = {.iov = q->worker->iov, .max_iov = DP_MAX_IOV};
	size_t nr;

	if (slot == NULL || vfe_vring_pop(&q->ring, &chain) <= 0)
		return false;
	nr = (size_t)chain.nr_read + chain.nr_write;
	if (vfe_unlikely(chain.write_len == 0)) {
		dp_queue_fail(q, "request of head %u has no room for its status", chain.head);
		return false;
	}
	if (vfe_unlikely(nr > BP_INLINE_IOV)) {
		if (bq->nr_bigs == 0) {
			vfe_vring_unpop(&q->ring, 1);
			return false;
		}
		slot->big = bq->bigs[--bq->nr_bigs];
	}
	chain.iov = slot->big != NULL ? slot->big : slot->parts;
	memcpy(chain.iov, q->worker->iov, nr * sizeof(*chain.iov));
	slot_take(bq, slot, &chain);
	dispatch(slot, &chain);
	return true;
}

bool
bp_take(struct bp_queue *bq)
{
	struct vfe_vring *ring = &bq->q.ring;
	int n = vfe_vring_avail(ring), i;

	bq->starved = false;
	bq->empty = n == 0;
	if (n <= 0)
		return false;
	vfe_vring_set_kick(ring, false);
	if (n > BP_BURST)
		n = BP_BURST;
	for (i = 0; i < n; i++) {
		if (!take_one(bq)) {
			bq->starved = !ring->broken;
			return false;
		}
	}
	return true;
}
