/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The back end that gives back to receive queue i what came from transmit queue i, with one copy
 * from buffer to buffer.
 *
 * While the receive queue has no buffers the packets stay in the transmit queue, so nothing is
 * lost. What the receiving side did not negotiate (a checksum to be filled in, segments to be cut)
 * is dropped and counted, and so is what does not fit: there is no wire here that would need it.
 * Without a receive queue everything is dropped. The receive filter does not apply.
 */

#include <errno.h>

#include "dp.h"
#include "packet.h"
#include "vfe_iov.h"

/* What one visit did; added to the statistics at its end. */
struct loop_sum {
	uint32_t packets;
	uint32_t dropped;
	uint32_t errors;
	uint64_t bytes;
};

enum loop_verdict {
	LOOP_DELIVER,
	LOOP_DROP,
	LOOP_ERROR,
};

/* A header that asks for something; @len is that of the packet. */
static enum loop_verdict __attribute__((noinline))
loop_check(const struct dp_pair *pair, const struct vfe_wire_net_hdr *hdr, uint64_t len)
{
	if (!dp_hdr_valid(hdr, pair->tx.ring.cfg.features, len))
		return LOOP_ERROR;
	return dp_hdr_acceptable(hdr, pair->rx.ring.cfg.features) ? LOOP_DELIVER : LOOP_DROP;
}

/* The header as the receiver gets it. */
static inline struct vfe_wire_net_hdr
loop_rx_hdr(const struct vfe_wire_net_hdr *hdr, uint16_t num_buffers)
{
	struct vfe_wire_net_hdr out = *hdr;

	out.flags &= VFE_NET_HDR_F_NEEDS_CSUM;
	out.num_buffers = num_buffers;
	return out;
}

/* Receive buffers for one packet, taken but not given back. */
struct loop_bufs {
	uint32_t nr_iov;
	uint16_t nr;
	uint64_t room;
	uint16_t heads[DP_MAX_IOV];
	uint32_t lens[DP_MAX_IOV];
};

/*
 * Take receive buffers for @need bytes: one, or several when they can be merged. Returns 1, 0 when
 * there are not enough yet, -1 when there never will be, -EPROTO.
 */
static int
loop_gather(struct dp_queue *rx, uint64_t need, struct loop_bufs *b)
{
	const bool merge = (rx->ring.cfg.features & VFE_BIT(VFE_NET_F_MRG_RXBUF)) != 0;
	struct iovec *iov = rx->worker->iov2;
	struct vfe_chain chain;
	int rc;

	b->nr = 0;
	b->nr_iov = 0;
	b->room = 0;
	while (b->room < need) {
		if (b->nr > 0 && !merge)
			return -1;
		if (b->nr == rx->ring.size || b->nr_iov == DP_MAX_IOV)
			return -1;
		chain.iov = &iov[b->nr_iov];
		chain.max_iov = (uint16_t)(DP_MAX_IOV - b->nr_iov);
		rc = vfe_vring_pop(&rx->ring, &chain);
		if (rc <= 0)
			return rc;
		if (chain.nr_read > 0 || chain.write_len < DP_HDR_SIZE) {
			dp_queue_fail(rx, "receive buffer with %u bytes to read and %u to write",
				chain.read_len, chain.write_len);
			return -EPROTO;
		}
		b->heads[b->nr] = chain.head;
		b->lens[b->nr] = chain.write_len;
		b->nr++;
		b->nr_iov += chain.nr_write;
		b->room += chain.write_len;
	}
	return 1;
}

static void
loop_give(struct dp_queue *rx, const struct loop_bufs *b, uint64_t len)
{
	uint32_t part;
	uint16_t i;

	for (i = 0; i < b->nr; i++) {
		part = len < b->lens[i] ? (uint32_t)len : b->lens[i];
		vfe_vring_push(&rx->ring, b->heads[i], part);
		len -= part;
	}
}

/* Copy a packet of any shape. Returns 1, 0 (no buffers), -1 (does not fit), -EPROTO. */
static int
loop_copy(struct dp_pair *pair, const struct vfe_chain *chain, const struct vfe_wire_net_hdr *hdr)
{
	struct dp_queue *rx = &pair->rx;
	struct vfe_wire_net_hdr out;
	struct loop_bufs b;
	int rc = loop_gather(rx, chain->read_len, &b);

	if (rc <= 0) {
		vfe_vring_unpop(&rx->ring, b.nr);
		return rc;
	}
	dp_iov_copy(rx->worker->iov2, chain->iov, chain->read_len);
	out = loop_rx_hdr(hdr, b.nr);
	vfe_iov_write(rx->worker->iov2, b.nr_iov, 0, &out, sizeof(out));
	vfe_vring_wrote_iov(&rx->ring, rx->worker->iov2, b.nr_iov, 0, chain->read_len);
	loop_give(rx, &b, chain->read_len);
	return 1;
}

/*
 * One packet of any shape from the transmit ring. Returns false when it cannot go on: transmit
 * ring broken, or no receive buffers, and then the packet is still there.
 */
static bool __attribute__((noinline)) loop_one(struct dp_pair *pair, struct loop_sum *sum)
{
	struct dp_queue *tx = &pair->tx;
	struct vfe_chain chain = {.iov = tx->worker->iov, .max_iov = DP_MAX_IOV};
	struct vfe_wire_net_hdr hdr;
	enum loop_verdict verdict = LOOP_ERROR;
	uint64_t len;
	int rc = 1;

	if (vfe_vring_pop(&tx->ring, &chain) <= 0)
		return false;
	len = chain.read_len - (uint64_t)DP_HDR_SIZE;
	if (chain.read_len >= DP_HDR_SIZE + DP_ETH_SIZE && chain.read_len <= DP_MAX_PACKET) {
		vfe_iov_read(chain.iov, chain.nr_read, 0, &hdr, sizeof(hdr));
		verdict = loop_check(pair, &hdr, len);
	}
	if (verdict == LOOP_DELIVER) {
		rc = loop_copy(pair, &chain, &hdr);
		if (rc == 0) {
			vfe_vring_unpop(&tx->ring, 1);
			return false;
		}
	}
	vfe_vring_push(&tx->ring, chain.head, 0);
	if (verdict == LOOP_ERROR) {
		sum->errors++;
	} else if (verdict == LOOP_DROP || rc < 0) {
		sum->dropped++;
	} else {
		sum->packets++;
		sum->bytes += len;
	}
	return true;
}

/* Can @src go into @dst as it is, in one piece, and needs no second look? */
static inline bool
loop_is_easy(const struct vfe_vring_buf *src, const struct vfe_vring_buf *dst)
{
	struct vfe_wire_net_hdr hdr;

	if (src->len < DP_HDR_SIZE + DP_ETH_SIZE || src->len > DP_MAX_PACKET || dst->len < src->len)
		return false;
	/* one read of the header; what the guest makes of it later does not matter */
	memcpy(&hdr, src->base, sizeof(hdr));
	atomic_signal_fence(memory_order_seq_cst);
	return dp_hdr_is_plain(&hdr);
}

static void __attribute__((noinline)) loop_wrote(struct dp_queue *rx,
	const struct vfe_vring_buf *dst, const struct vfe_vring_buf *src, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		vfe_vring_wrote(&rx->ring, dst[i].base, src[i].len);
}

/* As many packets of one buffer as there are in a row. Returns their number. */
static uint32_t
loop_many(struct dp_pair *pair, uint32_t n, struct loop_sum *sum)
{
	struct dp_queue *tx = &pair->tx, *rx = &pair->rx;
	struct vfe_vring_buf *src = tx->worker->bufs, *dst = tx->worker->rx_bufs;
	const struct vfe_wire_net_hdr hdr = {.num_buffers = 1};
	uint64_t bytes = 0;
	uint32_t i, room;

	n = vfe_vring_pop_burst(&tx->ring, src, (uint16_t)n, 0, true);
	room = vfe_vring_pop_burst(&rx->ring, dst, (uint16_t)n, VFE_VRING_DESC_F_WRITE, true);

	for (i = 0; i < room; i++) {
		if (vfe_unlikely(!loop_is_easy(&src[i], &dst[i])))
			break;
		dp_packet_copy(dst[i].base + DP_HDR_SIZE, src[i].base + DP_HDR_SIZE,
			src[i].len - DP_HDR_SIZE);
		memcpy(dst[i].base, &hdr, sizeof(hdr));
		vfe_vring_put_used(&rx->ring, (uint16_t)i, dst[i].head, src[i].len);
		bytes += src[i].len - DP_HDR_SIZE;
	}
	if (vfe_vring_watched(&rx->ring))
		loop_wrote(rx, dst, src, i);
	vfe_vring_unpop(&tx->ring, (uint16_t)(n - i));
	vfe_vring_unpop(&rx->ring, (uint16_t)(room - i));
	vfe_vring_push_burst(&tx->ring, src, (uint16_t)i, 0);
	vfe_vring_advance(&rx->ring, (uint16_t)i);
	sum->packets += i;
	sum->bytes += bytes;
	return i;
}

/* Without a receive queue. */
static void
loop_drop(struct dp_queue *tx, uint32_t n, struct loop_sum *sum)
{
	struct vfe_chain chain = {.iov = tx->worker->iov, .max_iov = DP_MAX_IOV};

	while (n-- > 0 && vfe_vring_pop(&tx->ring, &chain) > 0) {
		vfe_vring_push(&tx->ring, chain.head, 0);
		sum->dropped++;
	}
}

static void
loop_account(struct dp_pair *pair, const struct loop_sum *sum)
{
	dp_count(&pair->tx.stats.packets, sum->packets);
	dp_count(&pair->tx.stats.bytes, sum->bytes);
	dp_count(&pair->rx.stats.packets, sum->packets);
	dp_count(&pair->rx.stats.bytes, sum->bytes);
	if (sum->dropped > 0)
		dp_count(&pair->tx.stats.dropped, sum->dropped);
	if (sum->errors > 0)
		dp_count(&pair->tx.stats.errors, sum->errors);
}

/* Move up to @n packets while there are receive buffers. Returns the number taken. */
static uint32_t
loop_move(struct dp_pair *pair, uint32_t n, struct loop_sum *sum)
{
	uint32_t done = 0, got;
	int room = 0;

	while (done < n && dp_queue_usable(&pair->rx)) {
		if (room <= 0) {
			room = vfe_vring_avail(&pair->rx.ring);
			if (room <= 0)
				break;
		}
		got = loop_many(pair, n - done < (uint32_t)room ? n - done : (uint32_t)room, sum);
		room -= (int)got;
		done += got;
		if (got > 0)
			continue;
		if (!loop_one(pair, sum))
			break;
		done++;
		room = 0;
	}
	return done;
}

static bool
loop_tx(struct dp_queue *tx)
{
	struct dp_pair *pair = tx->pair;
	struct dp_queue *rx = &pair->rx;
	const bool rx_was_usable = dp_queue_usable(rx);
	struct loop_sum sum = {0};
	uint32_t done = 0;
	int n = vfe_vring_avail(&tx->ring);

	if (n <= 0)
		return n < 0 ? dp_queue_broke(tx) : dp_queue_idle(tx);
	if (n > DP_BURST)
		n = DP_BURST;
	vfe_vring_set_kick(&tx->ring, false);

	if (rx_was_usable) {
		vfe_vring_set_kick(&rx->ring, false);
		done = loop_move(pair, (uint32_t)n, &sum);
	} else {
		loop_drop(tx, (uint32_t)n, &sum);
		done = sum.dropped;
	}
	loop_account(pair, &sum);
	if (rx_was_usable && rx->ring.broken)
		dp_queue_broke(rx);
	else if (rx_was_usable)
		dp_queue_flush(rx);
	dp_queue_flush(tx);
	if (tx->ring.broken)
		return dp_queue_broke(tx);
	/* nothing moved: the receive queue has no buffers, and its kick is what we wait for */
	return done > 0 || !dp_queue_usable(rx) || dp_queue_idle(rx);
}

const struct dp_backend_ops dp_backend_loopback = {
	.tx_poll = loop_tx,
};
