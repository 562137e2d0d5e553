/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A port of the data path with a fake driver on it, for tests.
 */

#undef NDEBUG
#include "rig.h"

#include <assert.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vfe_wire_net.h"

static void
on_broken(void *ctx, uint16_t qid, const char *why)
{
	struct rig *rig = ctx;

	rig->nr_broken++;
	rig->broken_qid = qid;
	snprintf(rig->broken_why, sizeof(rig->broken_why), "%s", why);
}

static uint64_t
rig_features(unsigned int flags)
{
	uint64_t features =
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC);

	if (flags & RIG_EVENT_IDX)
		features |= VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX);
	if (flags & RIG_MERGE)
		features |= VFE_BIT(VFE_NET_F_MRG_RXBUF);
	if (flags & RIG_TSO)
		features |= VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_GUEST_CSUM) |
			    VFE_BIT(VFE_NET_F_HOST_TSO4) | VFE_BIT(VFE_NET_F_GUEST_TSO4);
	return features;
}

static int
rig_build(struct rig *rig, const struct dp_port_cfg *port_cfg, unsigned int flags, uint16_t size)
{
	const struct dp_engine_cfg engine_cfg = {
		.nr_workers = flags & RIG_WORKERS ? 2 : 1,
		.polling = (flags & RIG_POLLING) != 0,
		.on_broken = on_broken,
	};
	struct vfe_error err;
	uint16_t i;
	int rc;

	*rig = (struct rig){.polling = engine_cfg.polling, .nr_pairs = RIG_PAIRS};
	rig->features = rig_features(flags);
	rig->loop = ev_loop_new(EVFLAG_AUTO);
	fake_mem_init(&rig->mem, 64 << 20);
	assert(dp_engine_create(rig->loop, &engine_cfg, &rig->engine, &err) == 0);
	for (i = 0; i < 2 * RIG_PAIRS; i++) {
		fake_ring_init(&rig->q[i].ring, &rig->mem, size, flags & RIG_EVENT_IDX);
		rig->q[i].kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		rig->q[i].call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		rig->q[i].features = rig->features;
		assert(rig->q[i].kick_fd >= 0 && rig->q[i].call_fd >= 0);
	}
	rc = dp_port_create(rig->engine, port_cfg, &rig->port, &err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.text);
	else
		dp_port_set_map(rig->port, rig->mem.map);
	return rc;
}

void
rig_init(struct rig *rig, enum dp_backend backend, unsigned int flags, uint16_t size)
{
	const struct dp_port_cfg cfg = {
		.name = "0000:00:01.0", .backend = backend, .max_pairs = RIG_PAIRS, .ctx = rig};

	assert(rig_build(rig, &cfg, flags, size) == 0);
}

int
rig_init_tap(struct rig *rig, const char *tap, unsigned int flags, uint16_t size)
{
	const struct dp_port_cfg cfg = {.name = "0000:00:01.0",
		.backend = DP_BACKEND_TAP,
		.tap_name = tap,
		.max_pairs = RIG_PAIRS,
		.ctx = rig};

	return rig_build(rig, &cfg, flags, size);
}

void
rig_fini(struct rig *rig)
{
	uint16_t i;

	dp_port_destroy(rig->port);
	dp_engine_destroy(rig->engine);
	for (i = 0; i < 2 * RIG_PAIRS; i++) {
		fake_ring_fini(&rig->q[i].ring);
		close(rig->q[i].kick_fd);
		close(rig->q[i].call_fd);
	}
	fake_mem_fini(&rig->mem);
	ev_loop_destroy(rig->loop);
}

void
rig_start_queue(struct rig *rig, uint16_t qid)
{
	struct rig_queue *q = &rig->q[qid];
	struct dp_queue_cfg cfg = {
		.ring = fake_ring_cfg(&q->ring, q->features),
		.kick_fd = rig->polling ? -1 : q->kick_fd,
		.call_fd = q->call_fd,
	};
	struct vfe_error err = {""};
	int rc;

	cfg.ring.last_avail_idx = cfg.ring.last_used_idx = q->ring.used_idx;
	rc = dp_queue_start(rig->port, qid, &cfg, &err);
	if (rc < 0)
		fprintf(stderr, "%s\n", err.text);
	assert(rc == 0);
}

void
rig_start_all(struct rig *rig)
{
	uint16_t i;

	for (i = 0; i < 2 * RIG_PAIRS; i++)
		rig_start_queue(rig, i);
}

bool
rig_show(struct rig *rig, uint16_t qid)
{
	const uint64_t one = 1;
	bool kick = fake_ring_show(&rig->q[qid].ring);

	if (kick)
		assert(write(rig->q[qid].kick_fd, &one, sizeof(one)) == sizeof(one));
	return kick;
}

/* Memory of the guest, without end: what was used long ago is used again. */
static uint8_t *
rig_alloc(struct rig *rig, uint32_t len)
{
	if (rig->mem.next + len + 64 > rig->mem.size)
		rig->mem.next = 4 << 20;
	return fake_mem_alloc(&rig->mem, len, 1);
}

void
rig_send(struct rig *rig, uint16_t qid, const struct vfe_wire_net_hdr *hdr, const uint8_t *data,
	uint32_t len, uint16_t parts)
{
	static const struct vfe_wire_net_hdr plain;
	struct fake_seg segs[16];
	uint32_t total = len + (uint32_t)sizeof(*hdr), off = 0;
	uint8_t *va = rig_alloc(rig, total);
	uint16_t i;

	assert(parts >= 1 && parts <= 16);
	memcpy(va, hdr != NULL ? hdr : &plain, sizeof(*hdr));
	memcpy(va + sizeof(*hdr), data, len);
	for (i = 0; i < parts; i++) {
		segs[i] = (struct fake_seg){va + off, (i + 1) * total / parts - off, false};
		off += segs[i].len;
	}
	assert(fake_ring_add(&rig->q[qid].ring, segs, parts) >= 0);
}

void
rig_post(struct rig *rig, uint16_t qid, uint32_t len, unsigned int n)
{
	struct fake_seg seg;

	while (n-- > 0) {
		seg = (struct fake_seg){rig_alloc(rig, len), len, true};
		assert(fake_ring_add(&rig->q[qid].ring, &seg, 1) >= 0);
	}
	rig_show(rig, qid);
}

int
rig_wait(struct rig *rig, uint16_t qid, uint32_t *ret_len)
{
	struct rig_queue *q = &rig->q[qid];
	struct pollfd pfd = {.fd = q->call_fd, .events = POLLIN};
	uint64_t count;
	int head;

	for (;;) {
		head = fake_ring_get(&q->ring, ret_len);
		if (head >= 0)
			return head;
		fake_ring_interrupts(&q->ring, true);
		head = fake_ring_get(&q->ring, ret_len);
		if (head >= 0)
			return head;
		/* an interrupt that is lost ends the test here */
		assert(poll(&pfd, 1, RIG_TIMEOUT_MS) == 1);
		assert(read(q->call_fd, &count, sizeof(count)) == sizeof(count));
	}
}

uint32_t
rig_receive(struct rig *rig, uint16_t qid, uint8_t *buf, uint32_t size)
{
	const struct vfe_wire_vring_desc *desc = rig->q[qid].ring.desc;
	struct vfe_wire_net_hdr hdr;
	uint32_t len, total = 0;
	uint16_t i, n = 1;
	int head;

	for (i = 0; i < n; i++) {
		head = rig_wait(rig, qid, &len);
		assert(len <= desc[head].len && total + len <= size);
		memcpy(buf + total, rig->mem.va + (desc[head].addr - FAKE_IOVA), len);
		total += len;
		if (i == 0) {
			assert(len >= sizeof(hdr));
			memcpy(&hdr, buf, sizeof(hdr));
			n = hdr.num_buffers;
			assert(n >= 1);
		}
	}
	return total;
}

static void
on_timeout(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)timer;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

void
rig_wait_broken(struct rig *rig, unsigned int n)
{
	const struct vfe_deadline deadline = vfe_deadline_in_ms(RIG_TIMEOUT_MS);
	ev_timer timer;

	ev_timer_init(&timer, on_timeout, 0.1, 0.1);
	ev_timer_start(rig->loop, &timer);
	while (rig->nr_broken < n) {
		assert(!vfe_deadline_passed(deadline));
		ev_run(rig->loop, EVRUN_ONCE);
	}
	ev_timer_stop(rig->loop, &timer);
}

struct dp_queue_stats
rig_stats(const struct rig *rig, uint16_t qid)
{
	struct dp_queue_stats stats;

	dp_queue_stats(rig->port, qid, &stats);
	return stats;
}

struct dp_queue_stats
rig_wait_stats(const struct rig *rig, uint16_t qid, uint64_t n)
{
	const struct vfe_deadline deadline = vfe_deadline_in_ms(RIG_TIMEOUT_MS);
	struct dp_queue_stats stats;

	for (;;) {
		stats = rig_stats(rig, qid);
		if (stats.packets + stats.dropped + stats.errors >= n)
			return stats;
		assert(!vfe_deadline_passed(deadline));
		sched_yield();
	}
}

void
rig_wait_kicks(const struct rig *rig, uint16_t qid, uint64_t n)
{
	const struct vfe_deadline deadline = vfe_deadline_in_ms(RIG_TIMEOUT_MS);

	while (rig_stats(rig, qid).kicks < n) {
		assert(!vfe_deadline_passed(deadline));
		sched_yield();
	}
}
