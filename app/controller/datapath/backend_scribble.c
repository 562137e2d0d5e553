/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A back end for tests of live migration: it takes all receive buffers and writes records into
 * them, over and over, at full speed, without ever giving one back. A device may do so with a
 * buffer that it was given. Transmitted packets are swallowed.
 *
 * A record is 16 bytes, its own address and a number that never comes twice, both little-endian.
 * There is one at the begin of each buffer and one at each page boundary inside, so that every page
 * with a part of a buffer has one. When the queue stops, the buffers go back to the ring untaken,
 * and what was last written where is kept for comparison with the memory of the guest.
 */

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dp.h"

enum {
	SCRIBBLE_MAX = 16384, /* records of a queue; further buffers are left alone */
	SCRIBBLE_ALIGN = sizeof(struct dp_record),
	SCRIBBLE_PAGE = 4096,
};

struct scribble_slot {
	uint8_t *va;
	struct dp_record record; /* as last written; sequence 0: not yet */
};

struct dp_scribble {
	uint64_t sequence;
	uint32_t at; /* slot to write next */
	uint16_t held;
	uint32_t nr;
	struct scribble_slot slots[SCRIBBLE_MAX];
};

/* Places for records in one part of a buffer. */
static void
scribble_part(struct dp_queue *q, struct dp_scribble *s, uint8_t *va, uint64_t len)
{
	uint64_t iova, at, next;
	uint32_t hint = 0;

	if (!vfe_iova_of(q->ring.map, &hint, va, &iova))
		return;
	for (at = vfe_align_up(iova, SCRIBBLE_ALIGN); s->nr < SCRIBBLE_MAX; at = next) {
		if (!vfe_range_inside(at - iova, sizeof(struct dp_record), len))
			return;
		s->slots[s->nr++] = (struct scribble_slot){
			.va = va + (at - iova),
			.record = {.iova = at},
		};
		next = vfe_align_up(at + 1, SCRIBBLE_PAGE);
	}
}

/* Take a burst of what the driver has posted. Returns -EPROTO for a broken ring. */
static int
scribble_take(struct dp_queue *q, struct dp_scribble *s)
{
	struct vfe_chain chain = {.iov = q->worker->iov, .max_iov = DP_MAX_IOV};
	uint16_t i, n;
	int rc;

	/* the records of before the last stop are of no interest any more */
	if (s->held == 0) {
		s->nr = 0;
		s->at = 0;
	}
	for (n = 0; n < DP_BURST && s->nr < SCRIBBLE_MAX; n++) {
		rc = vfe_vring_pop(&q->ring, &chain);
		if (rc <= 0)
			return rc;
		s->held++;
		for (i = 0; i < chain.nr_write; i++) {
			const struct iovec *part = &chain.iov[chain.nr_read + i];

			scribble_part(q, s, part->iov_base, part->iov_len);
		}
	}
	return 0;
}

static bool
scribble_rx(struct dp_queue *q)
{
	struct dp_scribble *s = q->pair->scribble;
	struct scribble_slot *slot;
	struct dp_record record;
	uint32_t i, n;

	if (atomic_load_explicit(&q->worker->engine->scribble_off, memory_order_relaxed)) {
		/* what is there was seen, so that it does not count as new */
		if (vfe_vring_avail(&q->ring) < 0)
			return dp_queue_broke(q);
		return dp_queue_idle(q);
	}
	if (scribble_take(q, s) < 0)
		return dp_queue_broke(q);
	if (s->nr == 0)
		return dp_queue_idle(q);
	vfe_vring_set_kick(&q->ring, false);
	n = s->nr < DP_BURST ? s->nr : DP_BURST;
	for (i = 0; i < n; i++) {
		slot = &s->slots[s->at];
		slot->record.sequence = ++s->sequence;
		record.iova = htole64(slot->record.iova);
		record.sequence = htole64(slot->record.sequence);
		memcpy(slot->va, &record, sizeof(record));
		vfe_vring_wrote(&q->ring, slot->va, sizeof(record));
		s->at = s->at + 1 < s->nr ? s->at + 1 : 0;
	}
	dp_count(&q->stats.packets, n);
	dp_count(&q->stats.bytes, n * sizeof(record));
	return true;
}

static bool
scribble_tx(struct dp_queue *q)
{
	return dp_backend_null.tx_poll(q);
}

static void
scribble_release(struct dp_queue *q)
{
	struct dp_scribble *s = q->pair->scribble;

	if (q != &q->pair->rx)
		return;
	vfe_vring_unpop(&q->ring, s->held);
	s->held = 0;
}

static void
scribble_destroy(struct dp_port *port)
{
	uint16_t i;

	for (i = 0; i < port->nr_pairs; i++) {
		free(port->pairs[i].scribble);
		port->pairs[i].scribble = NULL;
	}
}

static int
scribble_create(struct dp_port *port, const char *tap_name, struct vfe_error *err)
{
	uint16_t i;

	(void)tap_name;
	for (i = 0; i < port->nr_pairs; i++) {
		port->pairs[i].scribble = calloc(1, sizeof(struct dp_scribble));
		if (port->pairs[i].scribble == NULL) {
			scribble_destroy(port);
			return vfe_error_set(err, -ENOMEM, "no memory for records");
		}
	}
	return 0;
}

const struct dp_backend_ops dp_backend_scribble = {
	.create = scribble_create,
	.destroy = scribble_destroy,
	.rx_poll = scribble_rx,
	.tx_poll = scribble_tx,
	.release = scribble_release,
};

/* --- for the control thread --- */

struct scribble_copy {
	const struct dp_scribble *scribble;
	struct dp_record *records;
	uint32_t nr;
};

static int
request_copy(struct dp_worker *w, void *arg)
{
	struct scribble_copy *copy = arg;
	uint32_t i;

	(void)w;
	for (i = 0; i < copy->scribble->nr; i++) {
		if (copy->scribble->slots[i].record.sequence > 0)
			copy->records[copy->nr++] = copy->scribble->slots[i].record;
	}
	return 0;
}

int
dp_port_records(struct dp_port *port, uint16_t pair, struct dp_record **ret, uint32_t *ret_nr)
{
	struct scribble_copy copy = {0};

	if (pair >= port->nr_pairs || port->pairs[pair].scribble == NULL)
		return -EINVAL;
	copy.scribble = port->pairs[pair].scribble;
	copy.records = malloc(SCRIBBLE_MAX * sizeof(*copy.records));
	if (copy.records == NULL)
		return -ENOMEM;
	dp_worker_call(port->pairs[pair].rx.worker, request_copy, &copy);
	*ret = copy.records;
	*ret_nr = copy.nr;
	return 0;
}

static int
request_nothing(struct dp_worker *w, void *arg)
{
	(void)w;
	(void)arg;
	return 0;
}

void
dp_engine_scribble(struct dp_engine *engine, bool on)
{
	struct dp_port *port;
	uint16_t i;

	atomic_store(&engine->scribble_off, !on);
	/* after this no burst of before is under way */
	for (i = 0; i < engine->nr_workers; i++)
		dp_worker_call(&engine->workers[i], request_nothing, NULL);
	TAILQ_FOREACH (port, &engine->ports, link) {
		for (i = 0; i < port->nr_pairs && port->pairs[i].scribble != NULL; i++)
			dp_queue_kick(port, (uint16_t)(2 * i));
	}
}
