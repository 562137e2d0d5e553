/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Unit tests of the controller's data path: null and loopback back ends, workers, queues, ports.
 */

#undef NDEBUG
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "vfe_wire_net.h"

enum {
	HDR = sizeof(struct vfe_wire_net_hdr),
	RX = 0, /* queues of pair 0 */
	TX = 1,
	TX_HEAD = 14 + HDR, /* smallest transmit buffer that is a packet */
};

static struct rig rig;
static uint8_t data[70000], got[70000 + HDR];

static int
setup(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 251);
	return 0;
}

static bool
readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, 0) == 1;
}

/* Send @len bytes on pair @pair and expect them back. */
static void
echo(uint16_t pair, uint32_t len, uint16_t parts)
{
	rig_send(&rig, (uint16_t)(2 * pair + 1), NULL, data, len, parts);
	rig_show(&rig, (uint16_t)(2 * pair + 1));
	assert_int_equal(rig_receive(&rig, (uint16_t)(2 * pair), got, sizeof(got)), len + HDR);
	assert_memory_equal(got + HDR, data, len);
	rig_wait(&rig, (uint16_t)(2 * pair + 1), NULL);
}

static void
null_swallows_packets_of_any_shape(void **state)
{
	struct dp_queue_stats stats;
	uint64_t bytes = 0;
	uint32_t len, i;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 256);
	rig_start_all(&rig);
	for (i = 0; i < 600; i++) {
		len = 14 + i * 2;
		rig_send(&rig, TX, NULL, data, len, (uint16_t)(i % 5 == 0 ? 3 : 1));
		bytes += len;
		if (i % 40 == 39) {
			rig_show(&rig, TX);
			while (rig.q[TX].ring.nr_free < 256)
				assert_true(rig_wait(&rig, TX, &len) >= 0 && len == 0);
		}
	}
	stats = rig_wait_stats(&rig, TX, 600);
	assert_int_equal(stats.packets, 600);
	assert_int_equal(stats.bytes, bytes);
	assert_int_equal(stats.errors, 0);
	assert_true(stats.kicks >= 1 && stats.kicks <= 15);
	assert_true(stats.signals >= 1);
	assert_true(stats.started);
	rig_fini(&rig);
}

static void
null_counts_runts_as_errors(void **state)
{
	struct dp_queue_stats stats;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 16);
	rig_start_all(&rig);
	rig_send(&rig, TX, NULL, data, 13, 1);
	rig_send(&rig, TX, NULL, data, 13, 2);
	rig_send(&rig, TX, NULL, data, 0, 1);
	rig_send(&rig, TX, NULL, data, 14, 1);
	rig_show(&rig, TX);
	stats = rig_wait_stats(&rig, TX, 4);
	assert_int_equal(stats.errors, 3);
	assert_int_equal(stats.packets, 1);
	rig_fini(&rig);
}

static void
loopback_returns_all_sizes(void **state)
{
	const unsigned int flags[] = {0, RIG_EVENT_IDX, RIG_MERGE, RIG_EVENT_IDX | RIG_POLLING};
	struct vfe_wire_net_hdr hdr;
	uint32_t len;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(flags); i++) {
		rig_init(&rig, DP_BACKEND_LOOPBACK, flags[i], 64);
		rig_start_all(&rig);
		for (len = 14; len <= 1514; len++) {
			rig_post(&rig, RX, 1526, 1);
			echo(0, len, (uint16_t)(len % 4 == 0 ? 1 + len % 7 : 1));
			memcpy(&hdr, got, sizeof(hdr));
			assert_int_equal(hdr.num_buffers, 1);
			assert_int_equal(hdr.flags, 0);
		}
		assert_int_equal(rig_stats(&rig, TX).packets, 1501);
		assert_int_equal(rig_stats(&rig, RX).packets, 1501);
		assert_int_equal(rig_stats(&rig, RX).bytes, rig_stats(&rig, TX).bytes);
		rig_fini(&rig);
	}
}

static void
loopback_merges_small_buffers(void **state)
{
	struct vfe_wire_net_hdr hdr;
	uint32_t len;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_MERGE, 256);
	rig_start_all(&rig);
	rig_post(&rig, RX, 300, 230);
	for (len = 14; len < 60000; len = len * 3 / 2 + 1) {
		echo(0, len, (uint16_t)(1 + len % 3));
		memcpy(&hdr, got, sizeof(hdr));
		assert_int_equal(hdr.num_buffers, (len + HDR + 299) / 300);
		rig_post(&rig, RX, 300, hdr.num_buffers);
	}
	rig_fini(&rig);
}

static void
loopback_drops_what_does_not_fit(void **state)
{
	(void)state;
	/* not mergeable: one buffer must hold it */
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 16);
	rig_start_all(&rig);
	rig_post(&rig, RX, 200, 10);
	rig_send(&rig, TX, NULL, data, 189, 1);
	rig_show(&rig, TX);
	rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_wait_stats(&rig, TX, 1).dropped, 1);
	echo(0, 188, 1);
	rig_fini(&rig);

	/* mergeable: all buffers that the ring has room for are too few */
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_MERGE, 16);
	rig_start_all(&rig);
	rig_post(&rig, RX, 100, 16);
	rig_send(&rig, TX, NULL, data, 1600 - HDR + 1, 1);
	rig_show(&rig, TX);
	rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_wait_stats(&rig, TX, 1).dropped, 1);
	echo(0, 1600 - HDR, 1);
	rig_fini(&rig);
}

static void
loopback_waits_for_receive_buffers(void **state)
{
	const unsigned int flags[] = {0, RIG_EVENT_IDX, RIG_MERGE | RIG_EVENT_IDX};
	unsigned int i, k;

	(void)state;
	for (k = 0; k < VFE_ARRAY_SIZE(flags); k++) {
		rig_init(&rig, DP_BACKEND_LOOPBACK, flags[k], 64);
		rig_start_all(&rig);
		for (i = 0; i < 50; i++)
			rig_send(&rig, TX, NULL, data, 100 + i, 1);
		rig_show(&rig, TX);
		for (i = 0; i < 50; i++) {
			rig_post(&rig, RX, 1526, 1);
			assert_int_equal(rig_receive(&rig, RX, got, sizeof(got)), 100 + i + HDR);
		}
		assert_int_equal(rig_stats(&rig, TX).dropped, 0);
		rig_fini(&rig);
	}
}

/* Some buffers, but too few for a large packet: no busy loop, and it arrives in the end. */
static void
loopback_waits_for_enough_buffers_to_merge(void **state)
{
	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_MERGE, 64);
	rig_start_all(&rig);
	rig_post(&rig, RX, 500, 3);
	rig_send(&rig, TX, NULL, data, 4000, 1);
	rig_show(&rig, TX);
	rig_post(&rig, RX, 500, 3);
	rig_post(&rig, RX, 500, 3);
	assert_int_equal(rig_receive(&rig, RX, got, sizeof(got)), 4000 + HDR);
	assert_memory_equal(got + HDR, data, 4000);
	rig_fini(&rig);
}

static void
loopback_without_receive_queue_drops(void **state)
{
	unsigned int i;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 64);
	rig_start_queue(&rig, TX);
	for (i = 0; i < 5; i++)
		rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	for (i = 0; i < 5; i++)
		rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_wait_stats(&rig, TX, 5).dropped, 5);
	rig_start_queue(&rig, RX);
	rig_post(&rig, RX, 1526, 1);
	echo(0, 64, 1);
	rig_fini(&rig);
}

static void
loopback_passes_offloads_to_those_who_negotiated_them(void **state)
{
	const struct vfe_wire_net_hdr tso = {.flags = VFE_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VFE_NET_HDR_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1448,
		.csum_start = 34,
		.csum_offset = 16,
		.num_buffers = 4711};
	struct vfe_wire_net_hdr hdr;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_TSO, 16);
	rig.q[2].features &= ~VFE_BIT(VFE_NET_F_GUEST_CSUM); /* pair 1 cannot take it */
	rig_start_all(&rig);
	rig_post(&rig, RX, 65562, 1);
	rig_send(&rig, TX, &tso, data, 30000, 2);
	rig_show(&rig, TX);
	assert_int_equal(rig_receive(&rig, RX, got, sizeof(got)), 30000 + HDR);
	memcpy(&hdr, got, sizeof(hdr));
	assert_int_equal(hdr.num_buffers, 1);
	hdr.num_buffers = tso.num_buffers;
	assert_memory_equal(&hdr, &tso, sizeof(hdr));

	rig_post(&rig, 2, 65562, 1);
	rig_send(&rig, 3, &tso, data, 30000, 1);
	rig_show(&rig, 3);
	assert_int_equal(rig_wait_stats(&rig, 3, 1).dropped, 1);
	rig_fini(&rig);
}

/* Headers that lie or ask for what was not negotiated: an error each, and traffic goes on. */
static void
loopback_counts_hostile_headers(void **state)
{
	static const struct vfe_wire_net_hdr bad[] = {
		{.flags = 1, .csum_start = 65535, .csum_offset = 65535},
		{.flags = 1, .csum_start = 98, .csum_offset = 1},
		{.flags = 1, .csum_start = 34, .csum_offset = 65500},
		{.flags = 1, .gso_type = 1, .gso_size = 0, .csum_start = 34, .csum_offset = 16},
		{.flags = 0, .gso_type = 1, .gso_size = 1000},
		{.flags = 1, .gso_type = 4, .gso_size = 1000, .csum_start = 34, .csum_offset = 16},
		{.flags = 1, .gso_type = 3, .gso_size = 1000, .csum_start = 34, .csum_offset = 16},
		{.flags = 1, .gso_type = 0x81, .gso_size = 1000, .csum_start = 34},
		{.flags = 1, .gso_type = 0x80, .gso_size = 1000, .csum_start = 34},
		{.flags = 1, .gso_type = 0x7f, .gso_size = 1000, .csum_start = 34},
	};
	size_t i;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_TSO, 32);
	rig_start_all(&rig);
	rig_post(&rig, RX, 2000, 20);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		rig_send(&rig, TX, &bad[i], data, 100, (uint16_t)(1 + i % 2));
	rig_send(&rig, TX, NULL, data, 13, 1);
	rig_show(&rig, TX);
	assert_int_equal(rig_wait_stats(&rig, TX, 11).errors, 11);
	for (i = 0; i < 11; i++)
		rig_wait(&rig, TX, NULL);
	echo(0, 100, 1);
	/* without CSUM no checksum may be asked for */
	rig_fini(&rig);
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 32);
	rig_start_all(&rig);
	rig_post(&rig, RX, 2000, 20);
	rig_send(&rig, TX, &(struct vfe_wire_net_hdr){.flags = 1}, data, 100, 1);
	rig_show(&rig, TX);
	assert_int_equal(rig_wait_stats(&rig, TX, 1).errors, 1);
	rig_fini(&rig);
}

/* Buffers that overlap are the guest's own fault; they only must not hurt us. */
static void
loopback_survives_overlapping_buffers(void **state)
{
	struct fake_seg seg;
	uint8_t *va;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 32);
	rig_start_all(&rig);
	va = fake_mem_alloc(&rig.mem, 4096, 64);
	seg = (struct fake_seg){va + 100, 1600, true};
	fake_ring_add(&rig.q[RX].ring, &seg, 1);
	seg = (struct fake_seg){va + 110, 50, true};
	fake_ring_add(&rig.q[RX].ring, &seg, 1);
	rig_show(&rig, RX);
	seg = (struct fake_seg){va, 1500, false};
	fake_ring_add(&rig.q[TX].ring, &seg, 1);
	seg = (struct fake_seg){va + 2000, 50, false};
	fake_ring_add(&rig.q[TX].ring, &seg, 1);
	rig_show(&rig, TX);
	assert_int_equal(rig_wait_stats(&rig, TX, 2).packets, 2);
	rig_fini(&rig);
}

static void
pairs_do_not_mix(void **state)
{
	unsigned int i;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_WORKERS, 16);
	rig_start_all(&rig);
	for (i = 0; i < 20; i++) {
		rig_post(&rig, 0, 1526, 1);
		rig_post(&rig, 2, 1526, 1);
		echo(0, 100 + i, 1);
		echo(1, 200 + i, 1);
	}
	assert_int_equal(rig_stats(&rig, 1).packets, 20);
	assert_int_equal(rig_stats(&rig, 3).packets, 20);
	rig_fini(&rig);
}

static void
polling_needs_and_wants_no_kicks(void **state)
{
	const unsigned int flags[] = {RIG_POLLING, RIG_POLLING | RIG_EVENT_IDX};
	unsigned int i, k;

	(void)state;
	for (k = 0; k < VFE_ARRAY_SIZE(flags); k++) {
		rig_init(&rig, DP_BACKEND_LOOPBACK, flags[k], 64);
		rig_start_all(&rig);
		for (i = 0; i < 3000; i++) {
			rig_send(&rig, TX, NULL, data, 64, 1);
			assert_false(rig_show(&rig, TX));
			rig_post(&rig, RX, 1526, 1);
			rig_receive(&rig, RX, got, sizeof(got));
			rig_wait(&rig, TX, NULL);
		}
		assert_false(readable(rig.q[RX].kick_fd));
		assert_int_equal(rig_stats(&rig, TX).kicks, 0);
		rig_fini(&rig);
	}
}

/* While the worker has more to do it wants no kicks, and says so before it looks for more. */
static void
busy_queue_asks_for_no_kicks(void **state)
{
	unsigned int i, kicks = 0;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_EVENT_IDX, 256);
	rig_start_all(&rig);
	/* no receive buffers: the transmit queue is stuck, and more of the same is no news */
	rig_send(&rig, TX, NULL, data, 64, 1);
	rig_show(&rig, TX);
	rig_wait_kicks(&rig, TX, 1);
	for (i = 0; i < 200; i++) {
		rig_send(&rig, TX, NULL, data, 64, 1);
		kicks += rig_show(&rig, TX);
	}
	assert_true(kicks <= 1);
	rig_post(&rig, RX, 1526, 250);
	for (i = 0; i < 201; i++)
		rig_receive(&rig, RX, got, sizeof(got));
	assert_int_equal(rig_stats(&rig, TX).packets, 201);
	rig_fini(&rig);
}

/* Packets that wait for receive buffers are dropped when the receive queue goes away. */
static void
loopback_goes_on_when_the_receive_queue_stops(void **state)
{
	unsigned int i;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_EVENT_IDX, 32);
	rig_start_all(&rig);
	for (i = 0; i < 3; i++)
		rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	dp_queue_stop(rig.port, RX, NULL, NULL);
	for (i = 0; i < 3; i++)
		rig_wait(&rig, TX, NULL);
	assert_int_equal(rig_stats(&rig, TX).dropped, 3);
	rig_fini(&rig);
}

static void
stop_and_start_continue_at_the_indices(void **state)
{
	uint16_t avail = 7777, used = 7777;
	unsigned int i, round;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_EVENT_IDX, 32);
	assert_int_equal(dp_queue_stop(rig.port, TX, &avail, &used), 0);
	assert_int_equal(avail, 7777);
	rig_start_all(&rig);
	for (round = 0; round < 5; round++) {
		rig_post(&rig, RX, 1526, 10);
		for (i = 0; i < 10; i++)
			echo(0, 100 + i, 1);
		assert_int_equal(dp_queue_stop(rig.port, TX, &avail, &used), 0);
		assert_int_equal(avail, (uint16_t)(10 * (round + 1)));
		assert_int_equal(used, avail);
		assert_int_equal(dp_queue_stop(rig.port, RX, &avail, &used), 0);
		assert_int_equal(avail, used);
		assert_false(rig_stats(&rig, RX).started);
		rig_start_queue(&rig, TX);
		rig_start_queue(&rig, RX);
	}
	rig_fini(&rig);
}

static void
start_rejects_what_is_wrong(void **state)
{
	struct dp_queue_cfg cfg;
	struct vfe_error err;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 32);
	cfg = (struct dp_queue_cfg){
		.ring = fake_ring_cfg(&rig.q[TX].ring, 0), .kick_fd = -1, .call_fd = -1};
	assert_int_equal(dp_queue_start(rig.port, 2 * RIG_PAIRS, &cfg, &err), -EINVAL);
	assert_int_equal(dp_queue_start(rig.port, 65535, &cfg, &err), -EINVAL);
	cfg.ring.size = 33;
	assert_int_equal(dp_queue_start(rig.port, TX, &cfg, &err), -EINVAL);
	assert_non_null(strstr(err.text, "queue size 33"));
	cfg.ring.size = 32;
	cfg.ring.desc = 0;
	assert_int_equal(dp_queue_start(rig.port, TX, &cfg, &err), -EFAULT);
	cfg.ring = fake_ring_cfg(&rig.q[TX].ring, 0);
	cfg.kick_fd = 9999;
	assert_int_equal(dp_queue_start(rig.port, TX, &cfg, &err), -EBADF);
	cfg.kick_fd = open("/proc/self/exe", O_RDONLY); /* epoll takes no files */
	assert_int_equal(dp_queue_start(rig.port, TX, &cfg, &err), -EPERM);
	close(cfg.kick_fd);
	assert_false(rig_stats(&rig, TX).started);
	rig_start_queue(&rig, TX);
	cfg.kick_fd = -1;
	assert_int_equal(dp_queue_start(rig.port, TX, &cfg, &err), -EALREADY);
	rig_fini(&rig);
}

static void
port_and_engine_reject_bad_numbers(void **state)
{
	struct dp_engine_cfg engine_cfg = {.nr_workers = 0};
	struct dp_port_cfg cfg = {.name = "x", .backend = DP_BACKEND_NULL, .max_pairs = 0};
	struct dp_engine *engine;
	struct dp_port *port;
	struct vfe_error err;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 32);
	assert_int_equal(dp_engine_create(rig.loop, &engine_cfg, &engine, &err), -EINVAL);
	engine_cfg.nr_workers = DP_MAX_WORKERS + 1;
	assert_int_equal(dp_engine_create(rig.loop, &engine_cfg, &engine, &err), -EINVAL);
	assert_int_equal(dp_port_create(rig.engine, &cfg, &port, &err), -EINVAL);
	cfg.max_pairs = DP_MAX_PAIRS + 1;
	assert_int_equal(dp_port_create(rig.engine, &cfg, &port, &err), -EINVAL);
	cfg.max_pairs = 1;
	cfg.backend = (enum dp_backend)77;
	assert_int_equal(dp_port_create(rig.engine, &cfg, &port, &err), -EINVAL);
	assert_int_equal(dp_port_set_pairs(rig.port, 0, &err), -EINVAL);
	assert_int_equal(dp_port_set_pairs(rig.port, RIG_PAIRS + 1, &err), -EINVAL);
	assert_int_equal(dp_port_set_pairs(rig.port, RIG_PAIRS, &err), 0);
	assert_int_equal(dp_port_ifindex(rig.port), 0);
	rig_fini(&rig);
}

static void
hostile_ring_breaks_only_its_queue(void **state)
{
	struct dp_queue_stats stats;
	uint16_t avail, used;

	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 32);
	rig_start_all(&rig);
	rig_post(&rig, 0, 1526, 8);
	rig_post(&rig, 2, 1526, 8);

	/* two good packets, then a head that does not exist */
	rig_send(&rig, TX, NULL, data, 100, 1);
	rig_send(&rig, TX, NULL, data, 100, 1);
	fake_ring_put(&rig.q[TX].ring, 32);
	rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	rig_wait_broken(&rig, 1);
	assert_int_equal(rig.broken_qid, TX);
	assert_string_equal(rig.broken_why, "head 32 of a queue of 32");
	assert_int_equal(rig_receive(&rig, RX, got, sizeof(got)), 100 + HDR);
	assert_int_equal(rig_receive(&rig, RX, got, sizeof(got)), 100 + HDR);
	stats = rig_stats(&rig, TX);
	assert_int_equal(stats.packets, 2);
	assert_true(stats.started);

	echo(1, 100, 1);
	dp_queue_kick(rig.port, TX);
	assert_int_equal(dp_queue_stop(rig.port, TX, &avail, &used), 0);
	assert_int_equal(avail, 2);
	assert_int_equal(used, 2);

	/* a receive ring, found out while transmitting on its pair */
	rig_send(&rig, 3, NULL, data, 100, 1);
	rig.q[2].ring.desc[rig.q[2].ring.avail->ring[1]].addr = 0;
	rig_show(&rig, 3);
	rig_wait_broken(&rig, 2);
	assert_int_equal(rig.broken_qid, 2);
	assert_non_null(strstr(rig.broken_why, "not in the device's memory"));
	rig_fini(&rig);
}

static void
broken_queue_can_be_started_anew(void **state)
{
	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, RIG_POLLING, 32);
	rig_start_all(&rig);
	rig_post(&rig, RX, 1526, 8);
	__atomic_store_n(&rig.q[TX].ring.avail->idx, 1000, __ATOMIC_RELEASE);
	rig_wait_broken(&rig, 1);
	assert_non_null(strstr(rig.broken_why, "available index 1000"));
	dp_queue_stop(rig.port, TX, NULL, NULL);
	rig.q[TX].ring.avail->idx = 0;
	rig_start_queue(&rig, TX);
	echo(0, 100, 1);
	assert_int_equal(rig.nr_broken, 1);
	rig_fini(&rig);
}

static void
no_memory_breaks_all_queues(void **state)
{
	(void)state;
	rig_init(&rig, DP_BACKEND_LOOPBACK, 0, 32);
	rig_start_all(&rig);
	rig_post(&rig, RX, 1526, 8);
	echo(0, 100, 1);
	dp_port_set_map(rig.port, NULL);
	rig_wait_broken(&rig, 4);
	dp_queue_stop(rig.port, TX, NULL, NULL);
	dp_port_set_map(rig.port, rig.mem.map);
	rig_wait_broken(&rig, 4);
	rig_fini(&rig);
}

struct swap_driver {
	pthread_t thread;
	atomic_bool stop;
	atomic_uint rounds;
};

static void *
swap_driver_main(void *arg)
{
	struct swap_driver *d = arg;
	unsigned int i;

	while (!atomic_load(&d->stop)) {
		rig_post(&rig, RX, 1526, 16);
		for (i = 0; i < 16; i++)
			rig_send(&rig, TX, NULL, data, 60 + 80 * i, (uint16_t)(1 + i % 2));
		rig_show(&rig, TX);
		for (i = 0; i < 16; i++) {
			assert(rig_receive(&rig, RX, got, sizeof(got)) == 60 + 80 * i + HDR);
			assert(memcmp(got + HDR, data, 60 + 80 * i) == 0);
			rig_wait(&rig, TX, NULL);
		}
		atomic_fetch_add(&d->rounds, 1);
	}
	return NULL;
}

/* The old map's pointers lead nowhere as soon as dp_port_set_map() has returned. */
static void
map_is_swapped_under_load(void **state)
{
	const unsigned int flags[] = {RIG_EVENT_IDX, RIG_POLLING};
	struct vfe_iova_map *maps[2];
	struct vfe_iova_region region;
	struct swap_driver driver;
	unsigned int i, k;

	(void)state;
	for (k = 0; k < VFE_ARRAY_SIZE(flags); k++) {
		memset(&driver, 0, sizeof(driver));
		rig_init(&rig, DP_BACKEND_LOOPBACK, flags[k], 64);
		region = rig.mem.map->regions[0];
		for (i = 0; i < 2; i++) {
			/* the same memory once more */
			region.va = mremap(rig.mem.va, 0, rig.mem.size, MREMAP_MAYMOVE);
			assert_true(region.va != MAP_FAILED);
			assert_int_equal(vfe_iova_map_create(&region, 1, &maps[i], NULL), 0);
		}
		dp_port_set_map(rig.port, maps[0]);
		rig_start_queue(&rig, RX);
		rig_start_queue(&rig, TX);
		pthread_create(&driver.thread, NULL, swap_driver_main, &driver);
		/* a busy machine may not let the driver run at once */
		for (i = 1; i <= 300 || atomic_load(&driver.rounds) == 0; i++) {
			assert_int_equal(mprotect(maps[i % 2]->regions[0].va, rig.mem.size,
						 PROT_READ | PROT_WRITE),
				0);
			dp_port_set_map(rig.port, maps[i % 2]);
			assert_int_equal(
				mprotect(maps[(i + 1) % 2]->regions[0].va, rig.mem.size, PROT_NONE),
				0);
		}
		atomic_store(&driver.stop, true);
		pthread_join(driver.thread, NULL);
		assert_int_equal(rig.nr_broken, 0);
		dp_port_set_map(rig.port, NULL);
		for (i = 0; i < 2; i++) {
			munmap(maps[i]->regions[0].va, rig.mem.size);
			vfe_iova_map_free(maps[i]);
		}
		rig_fini(&rig);
	}
}

static void
interrupt_stays_due_while_there_is_no_eventfd(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK), other = eventfd(0, EFD_NONBLOCK);

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 32);
	rig_start_all(&rig);
	dp_queue_set_call(rig.port, TX, -1);
	rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	rig_wait_stats(&rig, TX, 1);
	assert_false(readable(rig.q[TX].call_fd));
	dp_queue_set_call(rig.port, TX, fd);
	assert_true(readable(fd));
	/* once only, and the new one is used from now on */
	dp_queue_set_call(rig.port, TX, other);
	assert_false(readable(other));
	rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	rig_wait_stats(&rig, TX, 2);
	dp_queue_stop(rig.port, TX, NULL, NULL);
	assert_true(readable(other));
	dp_queue_set_call(rig.port, TX, -1);
	close(fd);
	close(other);
	rig_fini(&rig);
}

/* A full eventfd must not block the worker, and with it everybody else. */
static void
full_interrupt_eventfd_does_not_block(void **state)
{
	const uint64_t most = UINT64_MAX - 1;
	unsigned int i;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 32);
	assert_int_equal(fcntl(rig.q[TX].call_fd, F_SETFL, 0), 0);
	assert_int_equal(write(rig.q[TX].call_fd, &most, sizeof(most)), sizeof(most));
	rig_start_all(&rig);
	for (i = 0; i < 3; i++)
		rig_send(&rig, TX, NULL, data, 100, 1);
	rig_show(&rig, TX);
	rig_wait_stats(&rig, TX, 3);
	dp_queue_stop(rig.port, TX, NULL, NULL);
	rig_fini(&rig);
}

static void
kick_by_call_is_a_kick(void **state)
{
	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 32);
	rig_start_all(&rig);
	rig_send(&rig, TX, NULL, data, 100, 1);
	fake_ring_show(&rig.q[TX].ring);
	dp_queue_kick(rig.port, TX);
	rig_wait(&rig, TX, NULL);
	assert_true(rig_stats(&rig, TX).kicks >= 1);
	dp_queue_kick(rig.port, 999);
	rig_fini(&rig);
}

/* What is done with the queues of a port that is held is done at once, and seen at the end. */
static void
workers_wait_while_a_port_is_held(void **state)
{
	const unsigned int flags[] = {RIG_WORKERS, RIG_WORKERS | RIG_POLLING};
	uint16_t avail, used, qid;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(flags); i++) {
		rig_init(&rig, DP_BACKEND_LOOPBACK, flags[i], 64);
		dp_port_hold(rig.port);
		rig_start_all(&rig);
		for (qid = 0; qid < 2 * RIG_PAIRS; qid += 2) {
			rig_post(&rig, qid, 1526, 2);
			rig_send(&rig, (uint16_t)(qid + 1), NULL, data, 100, 1);
			fake_ring_show(&rig.q[qid + 1].ring);
			dp_queue_kick(rig.port, (uint16_t)(qid + 1));
			assert_int_equal(rig_stats(&rig, (uint16_t)(qid + 1)).packets, 0);
		}
		dp_port_release(rig.port);
		for (qid = 0; qid < 2 * RIG_PAIRS; qid += 2) {
			assert_int_equal(rig_receive(&rig, qid, got, sizeof(got)), 100 + HDR);
			rig_wait(&rig, (uint16_t)(qid + 1), NULL);
			echo(qid / 2, 200, 1);
		}

		dp_port_hold(rig.port);
		dp_port_hold(rig.port); /* they count */
		dp_port_release(rig.port);
		for (qid = 0; qid < 2 * RIG_PAIRS; qid++) {
			assert_int_equal(dp_queue_stop(rig.port, qid, &avail, &used), 0);
			assert_int_equal(avail, 2);
			assert_int_equal(used, 2);
		}
		dp_port_release(rig.port);
		rig_fini(&rig);
	}
}

/* Stop returns even though the guest keeps the ring full; nothing is lost or done twice. */
static void
stop_under_load_accounts_for_every_chain(void **state)
{
	uint16_t avail, used;
	unsigned int i, round, n = 0;

	(void)state;
	rig_init(&rig, DP_BACKEND_NULL, 0, 1024);
	rig_start_all(&rig);
	for (round = 0; round < 50; round++) {
		for (i = 0; i < 1000; i++)
			rig_send(&rig, TX, NULL, data, 100, 1);
		rig_show(&rig, TX);
		assert_int_equal(dp_queue_stop(rig.port, TX, &avail, &used), 0);
		assert_int_equal(avail, used);
		assert_int_equal(rig.q[TX].ring.used->idx, used);
		while (fake_ring_get(&rig.q[TX].ring, NULL) >= 0)
			n++;
		assert_int_equal(used, (uint16_t)n);
		rig_start_queue(&rig, TX);
		while (rig.q[TX].ring.nr_free < 1024) {
			rig_wait(&rig, TX, NULL);
			n++;
		}
		assert_int_equal(n, 1000 * (round + 1));
	}
	rig_fini(&rig);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(null_swallows_packets_of_any_shape),
		cmocka_unit_test(null_counts_runts_as_errors),
		cmocka_unit_test(loopback_returns_all_sizes),
		cmocka_unit_test(loopback_merges_small_buffers),
		cmocka_unit_test(loopback_drops_what_does_not_fit),
		cmocka_unit_test(loopback_waits_for_receive_buffers),
		cmocka_unit_test(loopback_waits_for_enough_buffers_to_merge),
		cmocka_unit_test(loopback_without_receive_queue_drops),
		cmocka_unit_test(loopback_passes_offloads_to_those_who_negotiated_them),
		cmocka_unit_test(loopback_counts_hostile_headers),
		cmocka_unit_test(loopback_survives_overlapping_buffers),
		cmocka_unit_test(pairs_do_not_mix),
		cmocka_unit_test(polling_needs_and_wants_no_kicks),
		cmocka_unit_test(busy_queue_asks_for_no_kicks),
		cmocka_unit_test(loopback_goes_on_when_the_receive_queue_stops),
		cmocka_unit_test(stop_and_start_continue_at_the_indices),
		cmocka_unit_test(start_rejects_what_is_wrong),
		cmocka_unit_test(port_and_engine_reject_bad_numbers),
		cmocka_unit_test(hostile_ring_breaks_only_its_queue),
		cmocka_unit_test(broken_queue_can_be_started_anew),
		cmocka_unit_test(no_memory_breaks_all_queues),
		cmocka_unit_test(map_is_swapped_under_load),
		cmocka_unit_test(interrupt_stays_due_while_there_is_no_eventfd),
		cmocka_unit_test(full_interrupt_eventfd_does_not_block),
		cmocka_unit_test(kick_by_call_is_a_kick),
		cmocka_unit_test(workers_wait_while_a_port_is_held),
		cmocka_unit_test(stop_under_load_accounts_for_every_chain),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
