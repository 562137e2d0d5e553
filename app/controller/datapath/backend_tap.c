/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The TAP back end: readv(2) and writev(2) between the guest's buffers and queue i of the TAP.
 *
 * Only the virtio-net header and the Ethernet header pass through memory of ours: on transmit so
 * that the header is checked and used in one and the same version, on receive so that the filter
 * sees the packet before the guest does.
 *
 * Receive buffers are taken ahead of packets, as many as the largest packet may need, and kept
 * from one packet to the next ("stage"). A packet that is larger than what the guest has made
 * available up to now waits in memory of ours until there are enough buffers.
 */

#include <errno.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "dp.h"
#include "packet.h"
#include "tap.h"
#include "vfe_iov.h"

enum {
	TAP_HEAD = DP_HDR_SIZE + DP_ETH_SIZE + 4, /* what we look at: up to the VLAN tag */
	TAP_MIN = DP_HDR_SIZE + DP_ETH_SIZE,
	TAP_STAGE_CHAINS = 256,
	TAP_STAGE_IOV = DP_MAX_IOV - 2, /* the head before and the spill behind them */
	TAP_DRAIN = 4096,               /* packets; more than a TAP's queue holds */
	TAP_WANT_SMALL = 2048,
};

/* Receive buffers that are taken and not used yet; the oldest first. */
struct tap_stage {
	uint16_t nr;
	uint16_t nr_iov;
	uint64_t room;
	uint16_t heads[TAP_STAGE_CHAINS];
	uint16_t nr_iovs[TAP_STAGE_CHAINS];
	uint32_t lens[TAP_STAGE_CHAINS];
	struct iovec iov[TAP_STAGE_IOV];

	/* a packet that waits for more buffers */
	uint32_t waiting; /* bytes, 0 = none */
	uint8_t packet[DP_MAX_PACKET];
};

/* The worker's view of one queue of the TAP. */
struct dp_tap_pair {
	struct dp_source source; /* fd -1: the pair is not in use, or the TAP is gone */
	struct dp_pair *pair;
	bool readable; /* until a read says otherwise */
	bool blocked;  /* the TAP's queue is full: until it is writable */
	struct tap_stage *stage;
};

static const uint32_t tap_events = EPOLLIN | EPOLLET;

/* Events and attachment. */

static void
on_tap(struct dp_source *src, uint32_t events)
{
	struct dp_tap_pair *tp = vfe_container_of(src, struct dp_tap_pair, source);
	struct dp_pair *pair = tp->pair;

	if (events & EPOLLOUT) {
		tp->blocked = false;
		dp_worker_ready(&pair->tx);
	}
	if (events & (EPOLLIN | EPOLLERR)) {
		tp->readable = true;
		dp_worker_ready(&pair->rx);
	}
}

static int
tap_update(struct dp_pair *pair)
{
	struct dp_tap_pair *tp = pair->tap;
	struct dp_worker *w = pair->rx.worker;

	tp->source.on_event = on_tap;
	if (tp->source.fd >= 0 && (pair->rx.attached || pair->tx.attached)) {
		/* watching anew also tells whether there is something already */
		tp->blocked = false;
		dp_worker_ready(&pair->tx);
		return dp_worker_watch(w, &tp->source, tap_events);
	}
	dp_worker_unwatch(w, &tp->source);
	tp->readable = false;
	tp->blocked = false;
	return 0;
}

/* The interface was deleted. Its queue stays on the list, as a stub that drops. */
static bool
tap_gone(struct dp_pair *pair)
{
	struct dp_tap_pair *tp = pair->tap;

	dp_worker_unwatch(pair->rx.worker, &tp->source);
	tp->source.fd = -1;
	tp->readable = false;
	tp->blocked = false;
	return dp_queue_fail(&pair->rx, "TAP %s was deleted", pair->port->tap->name);
}

/* Transmit. */

enum tap_sent {
	TAP_SENT,
	TAP_DROPPED,
	TAP_BAD,
	TAP_FULL,
};

static enum tap_sent
tap_sent(struct dp_pair *pair, int error)
{
	switch (error) {
	case EAGAIN:
		return TAP_FULL;
	case EINVAL: /* the kernel does not like the header */
	case E2BIG:
	case EMSGSIZE:
		return TAP_BAD;
	case EFAULT:
		dp_queue_fail(&pair->tx, "memory of a transmit buffer is gone");
		return TAP_BAD;
	default: /* EIO: the interface is down; ENOMEM, ENOBUFS; EBADFD: it is gone */
		return TAP_DROPPED;
	}
}

/* Send a packet; w->iov2 is used. @total are the bytes of @iov. */
static enum tap_sent
tap_send(struct dp_pair *pair, const struct iovec *iov, uint32_t nr, uint64_t total)
{
	struct dp_worker *w = pair->tx.worker;
	struct vfe_wire_net_hdr hdr;
	ssize_t n;

	if (total < TAP_MIN || total > DP_MAX_PACKET || nr >= DP_MAX_IOV)
		return TAP_BAD;
	vfe_iov_read(iov, nr, 0, &hdr, sizeof(hdr));
	atomic_signal_fence(memory_order_seq_cst);
	hdr.flags &= VFE_NET_HDR_F_NEEDS_CSUM;
	hdr.num_buffers = 0;
	if (!dp_hdr_is_plain(&hdr) &&
		!dp_hdr_valid(&hdr, pair->tx.ring.cfg.features, total - DP_HDR_SIZE))
		return TAP_BAD;
	if (pair->tap->source.fd < 0)
		return TAP_DROPPED;

	w->iov2[0].iov_base = &hdr;
	w->iov2[0].iov_len = sizeof(hdr);
	nr = dp_iov_skip(iov, nr, DP_HDR_SIZE, &w->iov2[1]);
	n = writev(pair->tap->source.fd, w->iov2, (int)nr + 1);
	return n >= 0 ? TAP_SENT : tap_sent(pair, errno);
}

/* Account for one packet. Returns false when it must stay in the ring. */
static bool
tap_sent_count(struct dp_queue *q, enum tap_sent sent, uint64_t total)
{
	switch (sent) {
	case TAP_SENT:
		dp_count(&q->stats.packets, 1);
		dp_count(&q->stats.bytes, total - DP_HDR_SIZE);
		return true;
	case TAP_DROPPED:
		dp_count(&q->stats.dropped, 1);
		return true;
	case TAP_BAD:
		dp_count(&q->stats.errors, 1);
		return true;
	case TAP_FULL:
	default:
		return false;
	}
}

/* A packet of several descriptors. Returns false when it stays there or the ring is broken. */
static bool
tap_tx_one(struct dp_queue *q)
{
	struct vfe_chain chain = {.iov = q->worker->iov, .max_iov = DP_MAX_IOV};
	enum tap_sent sent;

	if (vfe_vring_pop(&q->ring, &chain) <= 0)
		return false;
	sent = tap_send(q->pair, chain.iov, chain.nr_read, chain.read_len);
	if (!tap_sent_count(q, sent, chain.read_len)) {
		vfe_vring_unpop(&q->ring, 1);
		return false;
	}
	vfe_vring_push(&q->ring, chain.head, 0);
	return true;
}

/* Packets of one descriptor each. Returns how many have left the ring. */
static uint32_t
tap_tx_many(struct dp_queue *q, uint32_t n, bool *full)
{
	struct vfe_vring_buf *bufs = q->worker->bufs;
	struct iovec iov;
	enum tap_sent sent;
	uint32_t i;

	n = vfe_vring_pop_burst(&q->ring, bufs, (uint16_t)n, 0, true);
	for (i = 0; i < n; i++) {
		iov = (struct iovec){bufs[i].base, bufs[i].len};
		sent = tap_send(q->pair, &iov, 1, bufs[i].len);
		if (!tap_sent_count(q, sent, bufs[i].len)) {
			*full = true;
			break;
		}
	}
	vfe_vring_unpop(&q->ring, (uint16_t)(n - i));
	vfe_vring_push_burst(&q->ring, bufs, (uint16_t)i, 0);
	return i;
}

/* The TAP's queue is full: go on when it is writable. Watching it again arms the event. */
static bool
tap_tx_wait(struct dp_pair *pair)
{
	struct dp_tap_pair *tp = pair->tap;

	tp->blocked = true;
	if (dp_worker_watch(pair->tx.worker, &tp->source, tap_events | EPOLLOUT) < 0) {
		tp->blocked = false;
		return true;
	}
	return false;
}

static bool
tap_tx(struct dp_queue *q)
{
	bool full = false;
	int n;
	uint32_t done = 0, got;

	if (q->pair->tap->blocked)
		return false;
	n = vfe_vring_avail(&q->ring);
	if (n <= 0)
		return n < 0 ? dp_queue_broke(q) : dp_queue_idle(q);

	vfe_vring_set_kick(&q->ring, false);
	if (n > DP_TAP_BURST)
		n = DP_TAP_BURST;
	while (done < (uint32_t)n && !full && !q->ring.broken) {
		got = tap_tx_many(q, (uint32_t)n - done, &full);
		if (got == 0 && !full) {
			got = tap_tx_one(q);
			full = got == 0 && !q->ring.broken;
		}
		done += got;
	}
	dp_queue_flush(q);
	if (q->ring.broken)
		return dp_queue_broke(q);
	return full ? tap_tx_wait(q->pair) : true;
}

/* Receive: the stage. */

/* Forget the oldest @n chains of the stage. */
static void
stage_drop(struct tap_stage *st, uint16_t n)
{
	uint16_t i, iovs = 0;

	for (i = 0; i < n; i++) {
		iovs = (uint16_t)(iovs + st->nr_iovs[i]);
		st->room -= st->lens[i];
	}
	st->nr = (uint16_t)(st->nr - n);
	st->nr_iov = (uint16_t)(st->nr_iov - iovs);
	memmove(st->heads, &st->heads[n], st->nr * sizeof(st->heads[0]));
	memmove(st->nr_iovs, &st->nr_iovs[n], st->nr * sizeof(st->nr_iovs[0]));
	memmove(st->lens, &st->lens[n], st->nr * sizeof(st->lens[0]));
	memmove(st->iov, &st->iov[iovs], st->nr_iov * sizeof(st->iov[0]));
}

/*
 * Have room for @want bytes, or for one packet when buffers cannot be merged. Returns 0 or
 * -EPROTO; there may be less than wanted.
 */
static int
stage_fill(struct dp_queue *q, struct tap_stage *st, uint64_t want)
{
	const bool merge = (q->ring.cfg.features & VFE_BIT(VFE_NET_F_MRG_RXBUF)) != 0;
	const uint16_t max = merge ? TAP_STAGE_CHAINS : 1;
	struct vfe_chain chain = {.iov = q->worker->iov, .max_iov = TAP_STAGE_IOV};
	int rc;

	while (st->room < want && st->nr < max && st->nr_iov < TAP_STAGE_IOV) {
		rc = vfe_vring_pop(&q->ring, &chain);
		if (rc <= 0)
			return rc;
		if (chain.nr_read > 0 || chain.write_len < DP_HDR_SIZE) {
			dp_queue_fail(q, "receive buffer with %u bytes to read and %u to write",
				chain.read_len, chain.write_len);
			return -EPROTO;
		}
		if (chain.nr_write > TAP_STAGE_IOV - st->nr_iov) {
			vfe_vring_unpop(&q->ring, 1);
			return 0;
		}
		memcpy(&st->iov[st->nr_iov], chain.iov, chain.nr_write * sizeof(st->iov[0]));
		st->heads[st->nr] = chain.head;
		st->nr_iovs[st->nr] = chain.nr_write;
		st->lens[st->nr] = chain.write_len;
		st->nr_iov = (uint16_t)(st->nr_iov + chain.nr_write);
		st->room += chain.write_len;
		st->nr++;
	}
	return 0;
}

/* Is this all that the queue can ever offer for one packet? */
static bool
stage_is_full(const struct dp_queue *q, const struct tap_stage *st)
{
	const bool merge = (q->ring.cfg.features & VFE_BIT(VFE_NET_F_MRG_RXBUF)) != 0;

	return !merge || st->nr == TAP_STAGE_CHAINS || st->nr == q->ring.size ||
	       st->nr_iov == TAP_STAGE_IOV;
}

/* A packet of @len bytes is in the first buffers: complete its header and give them back. */
static void
stage_deliver(struct dp_queue *q, struct tap_stage *st, const uint8_t *head, uint64_t len)
{
	struct vfe_wire_net_hdr hdr;
	uint64_t left = len;
	uint32_t part;
	uint16_t n = 0;

	while (left > 0) {
		part = left < st->lens[n] ? (uint32_t)left : st->lens[n];
		vfe_vring_push(&q->ring, st->heads[n], part);
		left -= part;
		n++;
	}
	memcpy(&hdr, head, sizeof(hdr));
	hdr.num_buffers = n;
	if (!(q->ring.cfg.features & VFE_BIT(VFE_NET_F_GUEST_CSUM)))
		hdr.flags = 0; /* the kernel tells DATA_VALID to everybody */
	vfe_iov_write(st->iov, st->nr_iov, 0, &hdr, sizeof(hdr));
	vfe_vring_wrote_iov(&q->ring, st->iov, st->nr_iov, 0, len);
	stage_drop(st, n);
	dp_count(&q->stats.packets, 1);
	dp_count(&q->stats.bytes, len - DP_HDR_SIZE);
}

/* Receive: packets. */

/* Keep a packet of which the first bytes are in @head, then in the stage, then in the spill. */
static void
rx_park(struct dp_queue *q, struct tap_stage *st, const uint8_t *head, uint64_t len)
{
	const uint64_t room = st->room > TAP_HEAD ? st->room : TAP_HEAD;

	memcpy(st->packet, head, TAP_HEAD);
	if (room > TAP_HEAD)
		vfe_iov_read(st->iov, st->nr_iov, TAP_HEAD, &st->packet[TAP_HEAD], room - TAP_HEAD);
	if (len > room)
		memcpy(&st->packet[room], q->worker->spill, len - room);
	st->waiting = (uint32_t)len;
}

/* Deliver the packet that waits. Returns false when it still has to. */
static bool
rx_unpark(struct dp_queue *q, struct tap_stage *st)
{
	if (stage_fill(q, st, st->waiting) < 0)
		return false;
	if (st->room < st->waiting) {
		if (!stage_is_full(q, st))
			return false;
		dp_count(&q->stats.dropped, 1);
	} else {
		vfe_iov_write(st->iov, st->nr_iov, 0, st->packet, st->waiting);
		stage_deliver(q, st, st->packet, st->waiting);
	}
	st->waiting = 0;
	return true;
}

/* A packet has been read; @head is our copy of its beginning. */
static void
rx_packet(struct dp_queue *q, struct tap_stage *st, uint8_t *head, uint64_t len)
{
	if (len < TAP_MIN) {
		dp_count(&q->stats.errors, 1);
		return;
	}
	/* where it ends early there is no tag either */
	if (len < TAP_HEAD)
		memset(&head[len], 0, TAP_HEAD - len);
	if (!dp_filter_pass(q->pair->filter, head + DP_HDR_SIZE)) {
		dp_count(&q->stats.dropped, 1);
		return;
	}
	if (len > st->room) {
		if (stage_is_full(q, st) || len > DP_MAX_PACKET)
			dp_count(&q->stats.dropped, 1);
		else
			rx_park(q, st, head, len);
		return;
	}
	vfe_iov_write(st->iov, st->nr_iov, 0, head, len < TAP_HEAD ? len : TAP_HEAD);
	stage_deliver(q, st, head, len);
}

/* Read one packet into the stage. Returns false when there is none. */
static bool
rx_read(struct dp_queue *q, struct dp_tap_pair *tp)
{
	struct dp_worker *w = q->worker;
	struct tap_stage *st = tp->stage;
	uint8_t head[TAP_HEAD];
	uint32_t nr = 1;
	ssize_t n;

	w->iov[0] = (struct iovec){head, sizeof(head)};
	nr += dp_iov_skip(st->iov, st->nr_iov, TAP_HEAD, &w->iov[1]);
	w->iov[nr] = (struct iovec){w->spill, sizeof(w->spill)};
	n = readv(tp->source.fd, w->iov, (int)nr + 1);
	if (n >= 0) {
		/* also of a packet that the filter or the size keeps from the guest */
		if (n > TAP_HEAD)
			vfe_vring_wrote_iov(
				&q->ring, st->iov, st->nr_iov, TAP_HEAD, (uint64_t)n - TAP_HEAD);
		rx_packet(q, st, head, (uint64_t)n);
		return true;
	}

	/* not EFAULT: a TAP keeps quiet about buffers that are gone */
	tp->readable = false;
	return errno == EBADFD ? tap_gone(q->pair) : false;
}

static uint64_t
rx_want(const struct dp_queue *q)
{
	const uint64_t big = VFE_BIT(VFE_NET_F_GUEST_TSO4) | VFE_BIT(VFE_NET_F_GUEST_TSO6) |
			     VFE_BIT(VFE_NET_F_GUEST_UFO);

	return (q->ring.cfg.features & big) != 0 ? DP_MAX_PACKET : TAP_WANT_SMALL;
}

static bool
tap_rx(struct dp_queue *q)
{
	struct dp_tap_pair *tp = q->pair->tap;
	struct tap_stage *st = tp->stage;
	const uint64_t want = rx_want(q);
	bool starved = false;
	uint32_t i;

	for (i = 0; i < DP_TAP_BURST && !q->ring.broken; i++) {
		if (st->waiting > 0) {
			starved = !rx_unpark(q, st);
			if (starved)
				break;
			continue;
		}
		if (!tp->readable || tp->source.fd < 0 || stage_fill(q, st, want) < 0)
			break;
		starved = st->nr == 0;
		if (starved || !rx_read(q, tp))
			break;
	}
	if (q->ring.broken)
		return dp_queue_broke(q);
	dp_queue_flush(q);
	/* buffers are missing: the guest's kick tells when there are more */
	if (starved)
		return dp_queue_idle(q);
	vfe_vring_set_kick(&q->ring, false);
	return i == DP_TAP_BURST;
}

static void
tap_release(struct dp_queue *q)
{
	struct tap_stage *st = q->pair->tap->stage;

	if (q != &q->pair->rx || st == NULL)
		return;
	vfe_vring_unpop(&q->ring, st->nr);
	st->nr = 0;
	st->nr_iov = 0;
	st->room = 0;
}

/* The control thread's side. */

/* Throw away what came while nobody listened, as a network card does. */
static void
tap_drain(int fd)
{
	uint8_t byte[TAP_HEAD];
	int i;

	for (i = 0; i < TAP_DRAIN && read(fd, byte, sizeof(byte)) >= 0; i++)
		;
}

static int
tap_prepare(struct dp_queue *q, struct vfe_error *err)
{
	const struct dp_tap *tap = q->pair->port->tap;
	struct dp_tap_pair *tp = q->pair->tap;

	if (q != &q->pair->rx)
		return 0;
	if (tp->stage == NULL) {
		tp->stage = malloc(sizeof(*tp->stage));
		if (tp->stage == NULL)
			return vfe_error_set(err, -ENOMEM, "no memory for receive buffers");
	}
	tp->stage->nr = 0;
	tp->stage->nr_iov = 0;
	tp->stage->room = 0;
	tp->stage->waiting = 0;
	if (q->pair->index < tap->active)
		tap_drain(tap->fds[q->pair->index]);
	return 0;
}

struct tap_switch {
	struct dp_pair *pair;
	int fd;
};

static int
request_switch(struct dp_worker *w, void *arg)
{
	struct tap_switch *req = arg;
	struct dp_tap_pair *tp = req->pair->tap;
	int rc;

	dp_worker_unwatch(w, &tp->source);
	tp->source.fd = req->fd;
	rc = tap_update(req->pair);
	dp_worker_ready(&req->pair->tx);
	return rc;
}

/* Give pair @i queue @i of the TAP, or take it away. */
static int
tap_switch(struct dp_port *port, uint16_t i, bool on, struct vfe_error *err)
{
	struct dp_pair *pair = &port->pairs[i];
	struct tap_switch req = {.pair = pair, .fd = on ? port->tap->fds[i] : -1};
	int rc;

	rc = dp_worker_call(pair->rx.worker, request_switch, &req);
	if (rc < 0)
		vfe_error_set(err, rc, "cannot watch queue %u of TAP %s: %s", i, port->tap->name,
			strerror(-rc));
	return rc;
}

static int
tap_set_pairs(struct dp_port *port, uint16_t pairs, struct vfe_error *err)
{
	const uint16_t before = port->tap->active;
	uint16_t i;
	int rc, failed;

	/* workers let go of a queue before it is detached and get it after it is attached */
	for (i = pairs; i < before; i++)
		tap_switch(port, i, false, NULL);
	failed = dp_tap_set_queues(port->tap, pairs, err);
	for (i = before; i < port->tap->active; i++) {
		rc = tap_switch(port, i, true, failed == 0 ? err : NULL);
		failed = failed == 0 ? rc : failed;
	}
	return failed;
}

static int
tap_set_features(struct dp_port *port, uint64_t features, struct vfe_error *err)
{
	static const struct {
		unsigned int bit;
		unsigned int offload;
	} table[] = {
		{VFE_NET_F_GUEST_TSO4, TUN_F_TSO4},
		{VFE_NET_F_GUEST_TSO6, TUN_F_TSO6},
		{VFE_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
		{VFE_NET_F_GUEST_UFO, TUN_F_UFO},
	};
	unsigned int offload = 0;
	size_t i;

	/* all the others depend on the checksum (section 5.1.3.1) */
	if (features & VFE_BIT(VFE_NET_F_GUEST_CSUM)) {
		offload = TUN_F_CSUM;
		for (i = 0; i < VFE_ARRAY_SIZE(table); i++)
			offload |= (features & VFE_BIT(table[i].bit)) ? table[i].offload : 0;
	}
	return dp_tap_set_offload(port->tap, offload, err);
}

static int
tap_set_mtu(struct dp_port *port, uint16_t mtu, struct vfe_error *err)
{
	return dp_tap_set_mtu(port->tap, mtu, err);
}

/* The kernel takes packets from several threads, so this needs no worker. */
static int
tap_send_own(struct dp_port *port, const void *frame, size_t len)
{
	struct vfe_wire_net_hdr hdr = {0};
	const struct iovec iov[] = {
		{&hdr, sizeof(hdr)}, {(void *)(uintptr_t)frame, len}, /* only read */
	};

	return writev(port->tap->fds[0], iov, VFE_ARRAY_SIZE(iov)) < 0 ? -errno : 0;
}

static void
tap_destroy(struct dp_port *port)
{
	uint16_t i;

	for (i = 0; i < port->nr_pairs; i++) {
		if (port->pairs[i].tap != NULL)
			free(port->pairs[i].tap->stage);
		free(port->pairs[i].tap);
		port->pairs[i].tap = NULL;
	}
	dp_tap_close(port->tap);
	port->tap = NULL;
}

static int
tap_create(struct dp_port *port, const char *tap_name, struct vfe_error *err)
{
	const struct dp_port *other;
	struct dp_tap_pair *tp;
	uint16_t i;
	int rc;

	/* the kernel would take our queues for more of the same interface */
	TAILQ_FOREACH (other, &port->engine->ports, link) {
		if (other->tap != NULL && tap_name != NULL &&
			strcmp(other->tap->name, tap_name) == 0)
			return vfe_error_set(
				err, -EBUSY, "TAP %s belongs to %s", tap_name, other->name);
	}
	rc = dp_tap_open(tap_name, port->nr_pairs, &port->tap, err);
	if (rc < 0)
		return rc;
	for (i = 0; i < port->nr_pairs; i++) {
		tp = calloc(1, sizeof(*tp));
		if (tp == NULL) {
			rc = vfe_error_set(err, -ENOMEM, "no memory for TAP %s", tap_name);
			goto err_destroy;
		}
		tp->pair = &port->pairs[i];
		tp->source.fd = i == 0 ? port->tap->fds[0] : -1;
		port->pairs[i].tap = tp;
	}
	return 0;

err_destroy:
	tap_destroy(port);
	return rc;
}

const struct dp_backend_ops dp_backend_tap = {
	.create = tap_create,
	.destroy = tap_destroy,
	.rx_poll = tap_rx,
	.tx_poll = tap_tx,
	.prepare = tap_prepare,
	.update = tap_update,
	.release = tap_release,
	.set_pairs = tap_set_pairs,
	.set_features = tap_set_features,
	.set_mtu = tap_set_mtu,
	.send = tap_send_own,
};
