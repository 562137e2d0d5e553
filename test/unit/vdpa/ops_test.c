/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Front-ends that lie, doorbells, interrupts, the back-end channel, memory that changes.
 */

#undef NDEBUG

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <vdpa_driver.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum { WAIT_MS = 10000 };

static struct vfe_vdpa_error verr;

/* Wait for the doorbell of queue @q to have been rung @n times at least. */
static void
wait_doorbell(unsigned int q, unsigned int n)
{
	struct timespec ts;
	int ret = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += WAIT_MS / 1000;
	pthread_mutex_lock(&world.lock);
	while (ret == 0 && atomic_load(&world.vf[0].doorbells[q]) < n)
		ret = pthread_cond_timedwait(&world.cond, &world.lock, &ts);
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(ret, 0);
}

static bool
readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, WAIT_MS) == 1;
}

/* --- lies --- */

static void
requests_outside_the_protocol_are_refused(void **state)
{
	static const uint32_t requests[] = {0, 6, 22, 23, 25, 26, 28, 29, 30, 31, 32, 33, 34, 36,
		37, 38, 41, 42, 43, 100, UINT32_MAX};
	struct fake_guest *g = *state;
	int fds[VDPA_MSG_MAX_FDS];
	unsigned int i, before;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	for (i = 0; i < VFE_ARRAY_SIZE(fds); i++)
		fds[i] = g->mem_fd;
	before = fake_nr_fds();
	for (i = 0; i < VFE_ARRAY_SIZE(requests); i++) {
		assert_int_equal(fake_send(g->vid, requests[i], fds, 24, NULL, 0), -1);
		assert_int_equal(fake_send(g->vid, requests[i], fds, 24, fds, 8), -1);
	}
	assert_int_equal(fake_nr_fds(), before);
}

static void
arrival_of_a_guest_is_taken_note_of(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SEND_RARP, 0x050403020100), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SEND_RARP, &(uint32_t){0}, 4, NULL, 0), -1);
}

static void
guest_of_another_kind_of_vf_is_refused_and_told(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_HOST_TSO4)),
		-1);
	assert_non_null(strstr(fake_info(0)->last_error, "0x800"));
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_NET_SET_MTU, 9000), -1);
	assert_non_null(strstr(fake_info(0)->last_error, "MTU 9000"));
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, 0, 512), -1);
	assert_non_null(strstr(fake_info(0)->last_error, "512"));
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, FAKE_QUEUES, 64), -1);
	assert_non_null(strstr(fake_info(0)->last_error, "there are 4"));
}

static void
ring_numbers_that_are_not_there_are_refused(void **state)
{
	static const uint32_t requests[] = {VDPA_MSG_SET_VRING_NUM, VDPA_MSG_SET_VRING_BASE,
		VDPA_MSG_GET_VRING_BASE, VDPA_MSG_SET_VRING_ENABLE, VDPA_MSG_SET_VRING_ADDR};
	static const uint32_t rings[] = {FAKE_QUEUES, 255, 256, 0x10000, 0xffff0000, UINT32_MAX};
	static const uint64_t files[] = {FAKE_QUEUES, 0xff, 0x200, 0x100000000, UINT64_MAX};
	struct fake_guest *g = *state;
	struct vdpa_msg_addr addr = {0};
	unsigned int i, k, before;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	before = fake_nr_fds();
	for (i = 0; i < VFE_ARRAY_SIZE(requests); i++) {
		for (k = 0; k < VFE_ARRAY_SIZE(rings); k++) {
			addr.index = rings[k];
			assert_int_equal(
				fake_send(g->vid, requests[i], &addr, sizeof(addr), NULL, 0), -1);
		}
	}
	for (i = VDPA_MSG_SET_VRING_KICK; i <= VDPA_MSG_SET_VRING_ERR; i++) {
		for (k = 0; k < VFE_ARRAY_SIZE(files); k++)
			assert_int_equal(fake_send(g->vid, i, &files[k], 8, g->kick, 1), -1);
	}
	assert_int_equal(fake_nr_fds(), before);
}

static void
short_and_answering_messages_are_refused(void **state)
{
	struct fake_guest *g = *state;
	uint8_t zero[64] = {0};

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_FEATURES, zero, 7, NULL, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_STATUS, zero, 0, NULL, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_NUM, zero, 4, NULL, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, zero, 39, NULL, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_GET_CONFIG, zero, 8, NULL, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_GET_VRING_BASE, zero, 4, NULL, 0), -1);
}

static void
ring_values_that_make_no_sense_are_refused(void **state)
{
	static const uint32_t sizes[] = {
		0, 3, 65, FAKE_QUEUE_SIZE + 1, 2 * FAKE_QUEUE_SIZE, 32768, 65536, UINT32_MAX};
	struct fake_guest *g = *state;
	unsigned int i;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	for (i = 0; i < VFE_ARRAY_SIZE(sizes); i++)
		assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, 0, sizes[i]), -1);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, 0, FAKE_QUEUE_SIZE), 0);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_BASE, 0, 0x10000), -1);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_BASE, 0, 0xffff), 0);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_ENABLE, 0, 2), -1);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_NET_SET_MTU, 1501), -1);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_NET_SET_MTU, 1500), 0);
}

static void
ring_addresses_outside_memory_are_refused(void **state)
{
	struct fake_guest *g = *state;
	const uint64_t end = FAKE_MEM_UVA + FAKE_MEM_SIZE;
	const struct vdpa_msg_addr good = {.desc = FAKE_MEM_UVA,
		.avail = FAKE_MEM_UVA + 0x1000,
		.used = FAKE_MEM_UVA + 0x2000};
	struct vdpa_msg_addr bad[9];
	unsigned int i;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &good, sizeof(good), NULL, 0), -1);
	assert_int_equal(fake_guest_mem(g), 0);
	/* the size is not known yet */
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &good, sizeof(good), NULL, 0), -1);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, 0, 64), 0);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		bad[i] = good;
	bad[0].desc = end - 64 * 16 + 16;
	bad[1].avail = end - 64 * 2 - 4;
	bad[2].used = end - 64 * 8 - 4;
	bad[3].desc = FAKE_MEM_UVA - 16;
	bad[4].used = UINT64_MAX - 4;
	bad[5].desc += 8;
	bad[6].avail += 1;
	bad[7].used += 2;
	bad[8].flags = 2;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		if (fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &bad[i], sizeof(bad[i]), NULL, 0) !=
			-1)
			fail_msg("address %u", i);
	}
	bad[0].desc = end - 64 * 16;
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &bad[0], sizeof(bad[0]), NULL, 0), 0);
}

static void
kicks_and_calls_that_are_no_eventfds_are_refused(void **state)
{
	struct fake_guest *g = *state;
	uint64_t ring = 0;
	int pipes[2];
	unsigned int before;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_KICK, &ring, 8, pipes, 1), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &ring, 8, &pipes[1], 1), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_KICK, &ring, 8, &g->mem_fd, 1), -1);
	vfe_close_all(pipes, 2);
	before = fake_nr_fds();
	ring = VDPA_MSG_RING_NOFD;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &ring, 8, NULL, 0), 0);
	assert_true(fake_nr_fds() <= before);
}

static void
memory_tables_that_lie_are_refused_and_their_fds_closed(void **state)
{
	struct fake_guest *g = *state;
	struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
		.regions[1] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
	};
	const uint32_t one = 8 + sizeof(mem.regions[0]);
	int fds[2] = {g->mem_fd, g->mem_fd};
	unsigned int before;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	before = fake_nr_fds();
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, one, fds, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, one, fds, 2), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8, fds, 1), -1);
	mem.nr_regions = 2; /* the same twice */
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, one + 32, fds, 2), -1);
	mem.nr_regions = UINT32_MAX;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, one, fds, 1), -1);
	mem.nr_regions = 0;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8, fds, 0), -1);
	mem.nr_regions = 1;
	mem.regions[0].mmap_offset = 4096;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, one, fds, 1), -1);
	assert_int_equal(fake_nr_fds(), before);
	assert_int_equal(world.mapped, 0);
}

static void
second_front_end_is_refused(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0), other = fake_vf(3);

	fake_guest_start(g);
	assert_int_equal(vfe_vdpa_vf_connect(&bdf, 1, NULL), -EBUSY);
	assert_int_equal(vfe_vdpa_vf_connect(&bdf, -1, NULL), -EINVAL);
	assert_int_equal(vfe_vdpa_vf_connect(&bdf, 100000, NULL), -EINVAL);
	assert_int_equal(vfe_vdpa_vf_connect(&other, 1, NULL), -ENODEV);
	vfe_vdpa_vf_disconnect(1);
	vfe_vdpa_vf_disconnect(-1);
	vfe_vdpa_vf_disconnect(100000);
	assert_string_equal(fake_info(0)->state, "running");
}

static void
features_that_cannot_work_are_not_offered(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	uint64_t features, protocol, of_device;
	uint32_t pairs;

	(void)state;
	assert_int_equal(vfe_vdpa_vf_vhost_features(&bdf, &features, &protocol), 0);
	assert_int_equal(features,
		VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_NET_F_MTU) |
			VFE_BIT(VFE_NET_F_STATUS) | VFE_BIT(VFE_NET_F_MQ) |
			VFE_BIT(VFE_NET_F_GUEST_ANNOUNCE) | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
			VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_VHOST_F_LOG_ALL) |
			VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES));
	/* QEMU migrates with both or not at all */
	assert_true((protocol & VFE_BIT(VDPA_PROTOCOL_F_LOG_SHMFD)) != 0);
	assert_int_equal(protocol >> 17, 0); /* bits with two meanings */
	assert_int_equal(vdpa_ops.get_features(vfe_vdpa_vf_device(&bdf), &of_device), 0);
	assert_int_equal(of_device, features);
	assert_int_equal(vdpa_ops.get_queue_num(vfe_vdpa_vf_device(&bdf), &pairs), 0);
	assert_int_equal(pairs, FAKE_QUEUES / 2);
}

static void
configuration_space_is_read_within_its_bounds(void **state)
{
	struct fake_guest *g = *state;
	uint8_t buf[VDPA_MSG_CONFIG_MAX];

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_get_config(g->vid, 0, 6, buf), 0);
	assert_int_equal(buf[0], 2);
	assert_int_equal(fake_get_config(g->vid, 10, 2, buf), 0);
	assert_int_equal(buf[0] | buf[1] << 8, 1500);
	assert_int_equal(fake_get_config(g->vid, 0, 24, buf), 0);
	assert_int_equal(fake_get_config(g->vid, 0, 25, buf), -1);
	assert_int_equal(fake_get_config(g->vid, 23, 2, buf), -1);
	assert_int_equal(fake_get_config(g->vid, UINT32_MAX, 1, buf), -1);
	assert_int_equal(fake_get_config(g->vid, 0, 257, buf), -2);
	assert_int_equal(vdpa_ops.get_config(2, buf, 6), -1);
}

/* --- doorbells --- */

static void
kick_rings_the_doorbell_while_the_device_runs(void **state)
{
	struct fake_guest *g = *state;
	unsigned int n;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_enable(g, 0, true);
	assert_int_equal(eventfd_write(g->kick[0], 1), 0); /* before it runs */
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
	wait_doorbell(0, 1);
	n = atomic_load(&world.vf[0].doorbells[0]);
	assert_int_equal(eventfd_write(g->kick[0], 1), 0);
	wait_doorbell(0, n + 1);
	/* a kick is counted when it has been relayed: before the next one is */
	assert_int_equal(eventfd_write(g->kick[0], 1), 0);
	wait_doorbell(0, n + 2);
	assert_true(fake_info(0)->relayed_kicks > 0);

	/* nothing is rung at a device that stands still */
	fake_guest_enable(g, 0, false);
	fake_wait_state(0, "suspended");
	n = atomic_load(&world.vf[0].doorbells[0]);
	assert_int_equal(eventfd_write(g->kick[0], 1), 0);
	fake_flush();
	assert_int_equal(atomic_load(&world.vf[0].doorbells[0]), n);
	/* but that kick is not lost */
	fake_guest_enable(g, 0, true);
	fake_wait_state(0, "running");
	wait_doorbell(0, n + 1);
}

static void
full_doorbell_is_rung_later(void **state)
{
	struct fake_guest *g = *state;
	unsigned int n;

	fake_guest_start(g);
	wait_doorbell(1, 1);
	atomic_store(&world.vf[0].doorbell_eagain, 5);
	n = atomic_load(&world.vf[0].doorbells[1]);
	assert_int_equal(eventfd_write(g->kick[1], 1), 0);
	wait_doorbell(1, n + 1);
	assert_int_equal(atomic_load(&world.vf[0].doorbell_eagain), 0);
}

static void
new_kick_eventfd_takes_over_at_once(void **state)
{
	struct fake_guest *g = *state;
	uint64_t ring = 0;
	unsigned int n;
	int old;

	fake_guest_start(g);
	old = g->kick[0];
	g->kick[0] = eventfd(0, EFD_NONBLOCK);
	world.automatic = false;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_KICK, &ring, 8, &g->kick[0], 1), 0);
	fake_expect_nothing(); /* no restart for that */
	n = atomic_load(&world.vf[0].doorbells[0]);
	assert_int_equal(eventfd_write(g->kick[0], 1), 0);
	wait_doorbell(0, n + 1);
	close(old);
}

/* --- interrupts --- */

static void
new_call_eventfd_reaches_the_device_without_a_restart(void **state)
{
	struct fake_guest *g = *state;
	uint64_t ring = 1;
	unsigned int irq_sets;
	int old;

	fake_guest_start(g);
	irq_sets = world.vf[0].irq_sets;
	old = g->call[1];
	g->call[1] = eventfd(0, EFD_NONBLOCK);
	world.automatic = false;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &ring, 8, &g->call[1], 1), 0);
	assert_true(readable(g->call[1])); /* an interrupt may have gone to the old one */
	fake_expect_nothing();
	assert_true(world.vf[0].irq_sets > irq_sets);
	assert_true(world.vf[0].irq_fds[2] >= 0);

	ring |= VDPA_MSG_RING_NOFD;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &ring, 8, NULL, 0), 0);
	while (world.vf[0].irq_fds[2] >= 0)
		fake_flush();
	close(old);
}

static void
full_call_eventfd_blocks_nobody(void **state)
{
	struct fake_guest *g = *state;

	vfe_close(&g->call[0]);
	g->call[0] = eventfd(0, 0); /* may block */
	assert_int_equal(eventfd_write(g->call[0], UINT64_MAX - 1), 0);
	fake_guest_start(g);
	assert_true(fake_signalled(g->call[1]));
	fake_guest_enable(g, 1, false);
	fake_wait_state(0, "running");
	fake_flush();
	assert_true(readable(g->call[0]));
}

/* --- the back-end channel --- */

enum {
	SLAVE_BITS = 1 << VDPA_PROTOCOL_F_SLAVE_REQ | 1 << VDPA_PROTOCOL_F_SLAVE_SEND_FD |
		     1 << VDPA_PROTOCOL_F_HOST_NOTIFIER | 1 << VDPA_PROTOCOL_F_REPLY_ACK |
		     1 << VDPA_PROTOCOL_F_CONFIG | FAKE_PROTOCOL_STATUS,
};

struct slave_msg {
	struct vdpa_msg_hdr hdr;
	struct vdpa_msg_area area;
	int fd;
};

/* Receive a request; its fd is closed after a look. */
static void
slave_receive(struct fake_guest *g, struct slave_msg *ret)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov[2] = {{&ret->hdr, sizeof(ret->hdr)}, {&ret->area, sizeof(ret->area)}};
	struct msghdr msg = {
		.msg_iov = iov,
		.msg_iovlen = 2,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;

	memset(ret, 0, sizeof(*ret));
	ret->fd = -1;
	assert_true(readable(g->slave));
	assert_true(recvmsg(g->slave, &msg, 0) >= (ssize_t)sizeof(ret->hdr));
	cmsg = CMSG_FIRSTHDR(&msg);
	if (cmsg != NULL) {
		memcpy(&ret->fd, CMSG_DATA(cmsg), sizeof(int));
		close(ret->fd);
	}
}

static void
slave_reply(struct fake_guest *g, uint32_t request, uint64_t result)
{
	struct {
		struct vdpa_msg_hdr hdr;
		uint64_t result;
	} __attribute__((packed))
	reply = {{request, VDPA_MSG_VERSION | VDPA_MSG_F_REPLY, 8}, result};

	assert_int_equal(send(g->slave, &reply, sizeof(reply), MSG_NOSIGNAL), sizeof(reply));
}

static void
start_with_slave(struct fake_guest *g)
{
	fake_guest_connect(g, SLAVE_BITS);
	fake_guest_slave(g);
	fake_guest_run(g, 2);
}

static void
doorbell_pages_are_offered_one_by_one(void **state)
{
	struct fake_guest *g = *state;
	struct slave_msg msg;

	start_with_slave(g);
	slave_receive(g, &msg);
	assert_int_equal(msg.hdr.request, VDPA_SLAVE_VRING_HOST_NOTIFIER);
	assert_int_equal(msg.hdr.size, sizeof(msg.area));
	assert_true(msg.hdr.flags & VDPA_MSG_F_NEED_REPLY);
	assert_int_equal(msg.area.index, 0);
	assert_int_equal(msg.area.size, 4096);
	assert_int_equal(msg.area.offset, 0);
	assert_true(msg.fd >= 0);
	assert_false(fake_info(0)->queues[0].host_notifier);
	slave_reply(g, msg.hdr.request, 0);
	slave_receive(g, &msg);
	assert_int_equal(msg.area.index, 1);
	assert_int_equal(msg.area.offset, 4096);
	assert_true(fake_info(0)->queues[0].host_notifier);
	slave_reply(g, msg.hdr.request, 1); /* cannot map */
	assert_false(fake_info(0)->queues[1].host_notifier);

	/* a front-end forgets the page of a ring that it stops */
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	assert_int_equal(fake_get_base(g->vid, 1), 0);
	fake_guest_ring(g, 0);
	fake_wait_state(0, "running");
	slave_receive(g, &msg);
	assert_int_equal(msg.area.index, 0);
	slave_reply(g, msg.hdr.request, 0);
}

/* A page keeps a function of the kernel open, which could not be opened again. */
static void
doorbell_pages_of_a_lost_device_are_taken_back(void **state)
{
	const struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;
	struct slave_msg msg;
	uint64_t index;

	start_with_slave(g);
	for (index = 0; index < 2; index++) {
		slave_receive(g, &msg);
		slave_reply(g, msg.hdr.request, 0);
	}
	assert_true(fake_info(0)->queues[0].host_notifier);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	for (index = 0; index < 2; index++) {
		slave_receive(g, &msg);
		assert_int_equal(msg.hdr.request, VDPA_SLAVE_VRING_HOST_NOTIFIER);
		assert_int_equal(msg.area.index, index | VDPA_MSG_RING_NOFD);
		assert_int_equal(msg.fd, -1);
		slave_reply(g, msg.hdr.request, 0);
	}
	assert_false(fake_info(0)->queues[0].host_notifier);
	/* and given again */
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	slave_receive(g, &msg);
	assert_int_equal(msg.area.index, 0);
	assert_true(msg.fd >= 0);
	slave_reply(g, msg.hdr.request, 0);
}

static void
front_end_that_answers_nonsense_loses_the_channel(void **state)
{
	struct fake_guest *g = *state;
	struct slave_msg msg;
	char byte;

	start_with_slave(g);
	slave_receive(g, &msg);
	slave_reply(g, VDPA_SLAVE_CONFIG_CHANGE, 0);
	assert_true(readable(g->slave));
	assert_int_equal(recv(g->slave, &byte, 1, 0), 0); /* closed */
	assert_string_equal(fake_info(0)->state, "running");
	assert_false(fake_info(0)->queues[0].host_notifier);
}

static void
front_end_that_does_not_answer_holds_up_nothing(void **state)
{
	struct fake_guest *g = *state;
	struct slave_msg msg;
	char byte;

	start_with_slave(g);
	slave_receive(g, &msg);
	assert_int_equal(eventfd_write(g->kick[0], 1), 0);
	wait_doorbell(0, 2);
	assert_true(readable(g->slave)); /* the time is up */
	assert_int_equal(recv(g->slave, &byte, 1, 0), 0);
	assert_int_equal(fake_get_base(g->vid, 0), 0);
}

static void
channel_with_wrong_fds_is_refused(void **state)
{
	struct fake_guest *g = *state;
	int fds[2] = {g->mem_fd, g->mem_fd};
	unsigned int before;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	before = fake_nr_fds();
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, fds, 1), -1); /* not agreed */
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_PROTOCOL_FEATURES, SLAVE_BITS), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, fds, 0), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, fds, 2), -1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, fds, 1), -1);
	assert_int_equal(fake_nr_fds(), before);
}

static void
changed_link_is_told_to_the_front_end(void **state)
{
	struct fake_guest *g = *state;
	struct slave_msg msg;
	uint8_t buf[2];
	unsigned int i;

	start_with_slave(g);
	for (i = 0; i < 2; i++) {
		slave_receive(g, &msg);
		slave_reply(g, msg.hdr.request, 1);
	}
	assert_true(fake_info(0)->link_up);
	world.automatic = false;
	pthread_mutex_lock(&world.lock);
	world.link_status = 0;
	pthread_mutex_unlock(&world.lock);
	fake_config_interrupt(0);
	slave_receive(g, &msg);
	assert_int_equal(msg.hdr.request, VDPA_SLAVE_CONFIG_CHANGE);
	assert_int_equal(msg.hdr.size, 0);
	slave_reply(g, msg.hdr.request, 0);
	assert_false(fake_info(0)->link_up);
	assert_int_equal(fake_get_config(g->vid, 6, 2, buf), 0);
	assert_int_equal(buf[0], 0);
	fake_expect_nothing();
}

/* --- memory that changes --- */

/* Memory as before and, behind it, a second file. */
static int
plug(struct fake_guest *g, int fd)
{
	struct vdpa_msg_memory mem = {
		.nr_regions = 2,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
		.regions[1] = {FAKE_MEM_GPA + FAKE_MEM_SIZE, FAKE_MEM_SIZE,
			FAKE_MEM_UVA + FAKE_MEM_SIZE, 0},
	};
	int fds[2] = {g->mem_fd, fd};

	return fake_send(
		g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + 2 * sizeof(mem.regions[0]), fds, 2);
}

static void
plugged_memory_is_there_before_the_answer_and_nothing_stops(void **state)
{
	struct fake_guest *g = *state;
	int fd = vfe_memfd_create("dimm", FAKE_MEM_SIZE);

	fake_guest_start(g);
	world.automatic = false;
	assert_int_equal(plug(g, fd), 0);
	assert_int_equal(world.mapped, 2);
	assert_int_equal(world.unmaps, 0);
	assert_int_equal(fake_info(0)->nr_mem_regions, 2);
	assert_int_equal(fake_info(0)->mem_bytes, 2 * FAKE_MEM_SIZE);
	assert_int_equal(fake_guest_mem(g), 0); /* and out again */
	assert_int_equal(world.mapped, 1);
	fake_expect_nothing();
	assert_string_equal(fake_info(0)->state, "running");
	close(fd);
}

static void
memory_of_a_ring_changes_under_a_stopped_device_only(void **state)
{
	struct fake_guest *g = *state;
	struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {0x40000000, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
	};
	unsigned int restores;

	fake_guest_start(g);
	restores = world.vf[0].restores;
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + sizeof(mem.regions[0]),
				 &g->mem_fd, 1),
		0);
	fake_wait_state(0, "running");
	while (world.vf[0].restores == restores)
		fake_flush();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].desc, 0x40000000);
	assert_int_equal(world.mapped, 1);
}

static void
other_file_at_the_same_place_replaces_the_first(void **state)
{
	struct fake_guest *g = *state;
	int old;

	fake_guest_start(g);
	old = g->mem_fd;
	g->mem_fd = vfe_memfd_create("other", FAKE_MEM_SIZE);
	assert_int_equal(fake_guest_mem(g), 0);
	assert_int_equal(world.mapped, 1);
	fake_wait_state(0, "running");
	close(old);
}

static void
failed_mapping_refuses_the_table_and_keeps_the_old_one(void **state)
{
	struct fake_guest *g = *state;
	int fd = vfe_memfd_create("dimm", FAKE_MEM_SIZE);

	fake_guest_start(g);
	world.fail_map = -EIO;
	assert_int_equal(plug(g, fd), -1);
	assert_int_equal(world.mapped, 1);
	assert_int_equal(fake_info(0)->nr_mem_regions, 1);
	assert_string_equal(fake_info(0)->state, "running");
	close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(requests_outside_the_protocol_are_refused),
		T(arrival_of_a_guest_is_taken_note_of),
		T(guest_of_another_kind_of_vf_is_refused_and_told),
		T(ring_numbers_that_are_not_there_are_refused),
		T(short_and_answering_messages_are_refused),
		T(ring_values_that_make_no_sense_are_refused),
		T(ring_addresses_outside_memory_are_refused),
		T(kicks_and_calls_that_are_no_eventfds_are_refused),
		T(memory_tables_that_lie_are_refused_and_their_fds_closed),
		T(second_front_end_is_refused),
		T(features_that_cannot_work_are_not_offered),
		T(configuration_space_is_read_within_its_bounds),
		T(kick_rings_the_doorbell_while_the_device_runs),
		T(full_doorbell_is_rung_later),
		T(new_kick_eventfd_takes_over_at_once),
		T(new_call_eventfd_reaches_the_device_without_a_restart),
		T(full_call_eventfd_blocks_nobody),
		T(doorbell_pages_are_offered_one_by_one),
		T(doorbell_pages_of_a_lost_device_are_taken_back),
		T(front_end_that_answers_nonsense_loses_the_channel),
		T(front_end_that_does_not_answer_holds_up_nothing),
		T(channel_with_wrong_fds_is_refused),
		T(changed_link_is_told_to_the_front_end),
		T(plugged_memory_is_there_before_the_answer_and_nothing_stops),
		T(memory_of_a_ring_changes_under_a_stopped_device_only),
		T(other_file_at_the_same_place_replaces_the_first),
		T(failed_mapping_refuses_the_table_and_keeps_the_old_one),
	};

	return cmocka_run_group_tests_name("vdpa_ops", tests, NULL, NULL);
}
