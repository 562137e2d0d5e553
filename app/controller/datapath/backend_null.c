/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The back end that swallows everything: descriptors are checked, payload is not touched.
 */

#include "dp.h"

/* A packet of several descriptors. Returns false when the ring is broken. */
static bool
null_one(struct dp_queue *q, uint64_t *bytes, uint32_t *bad)
{
	struct dp_worker *w = q->worker;
	struct vfe_chain chain = {.iov = w->iov, .max_iov = DP_MAX_IOV};

	if (vfe_vring_pop(&q->ring, &chain) <= 0)
		return false;
	if (chain.read_len < DP_HDR_SIZE + DP_ETH_SIZE)
		*bad += 1;
	else
		*bytes += chain.read_len - DP_HDR_SIZE;
	vfe_vring_push(&q->ring, chain.head, 0);
	return true;
}

static uint32_t
null_many(struct dp_queue *q, uint32_t n, uint64_t *bytes, uint32_t *bad)
{
	struct vfe_vring_buf *bufs = q->worker->bufs;
	uint64_t sum = 0;
	uint32_t i, small = 0;

	n = vfe_vring_pop_burst(&q->ring, bufs, (uint16_t)n, 0, false);
	for (i = 0; i < n; i++) {
		if (vfe_likely(bufs[i].len >= DP_HDR_SIZE + DP_ETH_SIZE))
			sum += bufs[i].len - DP_HDR_SIZE;
		else
			small++;
	}
	vfe_vring_push_burst(&q->ring, bufs, (uint16_t)n, 0);
	*bytes += sum;
	*bad += small;
	return n;
}

static bool
null_tx(struct dp_queue *q)
{
	int n = vfe_vring_avail(&q->ring);
	uint32_t done = 0, got, bad = 0;
	uint64_t bytes = 0;

	if (n <= 0)
		return n < 0 ? dp_queue_broke(q) : dp_queue_idle(q);

	vfe_vring_set_kick(&q->ring, false);
	if (n > DP_BURST)
		n = DP_BURST;
	while (done < (uint32_t)n) {
		got = null_many(q, (uint32_t)n - done, &bytes, &bad);
		if (got == 0) {
			if (!null_one(q, &bytes, &bad))
				break;
			got = 1;
		}
		done += got;
	}
	dp_count(&q->stats.packets, done - bad);
	dp_count(&q->stats.bytes, bytes);
	if (bad > 0)
		dp_count(&q->stats.errors, bad);
	dp_queue_flush(q);
	return q->ring.broken ? dp_queue_broke(q) : true;
}

const struct dp_backend_ops dp_backend_null = {
	.tx_poll = null_tx,
};
