/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions with RING_RESET: rings change while others go on, and what happens if they
 * cannot.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum {
	LOG_SIZE = 4096,
	PROTOCOL = FAKE_PROTOCOL_STATUS | 1 << VDPA_PROTOCOL_F_LOG_SHMFD,
};
#define FEATURES                                                   \
	(VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_MQ) | \
		VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES))

static struct vfe_vdpa_error verr;

static int
setup_started(void **state)
{
	return fake_setup_started_plain(state);
}

static int
setup(void **state)
{
	fake_start();
	return setup_started(state);
}

static int
setup_without(void **state)
{
	fake_start();
	world.no_ring_reset = true;
	return setup_started(state);
}

static int
setup_blk(void **state)
{
	fake_start_blk();
	return setup_started(state);
}

/* The relay rings once for each ring that is new to it, on its own time. */
static void
wait_relayed(void)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);
	struct vfe_bdf bdf = fake_vf(0);
	struct vdpa_vf *vf = vdpa_vf_find(&bdf);
	unsigned int q;

	for (q = 0; q < FAKE_QUEUES; q++) {
		while (atomic_load(&vf->bells[q].relayed) == 0) {
			assert_false(vfe_deadline_passed(deadline));
			sched_yield();
		}
	}
}

/* All rings of a guest, as it has features @features; running when it returns. */
static void
start_with(struct fake_guest *g, uint64_t features)
{
	fake_guest_connect(g, PROTOCOL);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, features), 0);
	fake_guest_run(g, FAKE_QUEUES);
	fake_flush();
	wait_relayed();
}

static void
start(struct fake_guest *g)
{
	start_with(g, FEATURES);
}

static void
start_disk(struct fake_guest *g)
{
	start_with(g, FEATURES & ~VFE_BIT(VFE_NET_F_MQ));
}

/* A copy of what has happened to the device. */
static struct fake_vf_log
device(void)
{
	struct fake_vf_log log;

	pthread_mutex_lock(&world.lock);
	memcpy(&log, &world.vf[0], sizeof(log));
	pthread_mutex_unlock(&world.lock);
	return log;
}

static unsigned int
nr_ring_resets(void)
{
	const struct fake_vf_log log = device();
	unsigned int q, n = 0;

	for (q = 0; q < FAKE_QUEUES + 1; q++)
		n += log.ring_resets[q];
	return n;
}

/* A VF whose rings change runs meanwhile. */
static bool
is_settled(void)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct vdpa_vf *vf = vdpa_vf_find(&bdf);
	bool settled;

	pthread_mutex_lock(&vf->lock);
	settled = vf->state == VDPA_S_RUNNING && vf->applied_seq == vf->seq;
	pthread_mutex_unlock(&vf->lock);
	return settled;
}

static void
wait_settled(void)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (!is_settled()) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
	fake_wait_state(0, "running");
}

/* The device has the ring, or has it not, and all that was asked for is done. */
static void
wait_ring(unsigned int q, bool enabled)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (device().regs.enabled[q] != enabled || fake_info(0)->queues[q].enabled != enabled) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
	wait_settled();
}

static void
wait_resets(unsigned int n)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (device().resets < n) {
		assert_false(vfe_deadline_passed(deadline));
		sched_yield();
	}
	wait_settled();
}

/* --- a ring stops and starts --- */

static void
stopped_ring_leaves_the_others_alone(void **state)
{
	struct fake_guest *g = *state;
	struct fake_vf_log was, now;
	unsigned int q;

	start(g);
	was = device();
	assert_int_equal(was.regs.pairs, 2);
	assert_int_equal(fake_get_base(g->vid, 2), 0);
	now = device();
	for (q = 0; q < FAKE_QUEUES + 1; q++) {
		assert_int_equal(now.ring_resets[q], q == 2);
		assert_int_equal(now.regs.enabled[q], q != 2);
	}
	assert_int_equal(now.irq_fds[3], -1);
	assert_int_equal(now.irq_fds[2], was.irq_fds[2]);
	assert_false(fake_info(0)->queues[2].enabled);
	fake_guest_ring(g, 2);
	wait_ring(2, true);
	now = device();
	assert_true(now.irq_fds[3] >= 0);
	assert_int_equal(now.regs.queues[2].msix_vector, 3);
	assert_int_equal(
		now.regs.queues[2].driver, FAKE_MEM_GPA + 2 * FAKE_RING_STRIDE + FAKE_RING_AVAIL);
	/* nothing has told the device about MAC, receive mode and pairs anew, nor had to */
	assert_int_equal(now.resets, was.resets);
	assert_int_equal(now.regs.ctrl_commands, was.regs.ctrl_commands);
	assert_true(now.regs.promisc);
	assert_int_equal(now.regs.pairs, 2);
	assert_int_equal(fake_info(0)->ring_resets, 1);
	assert_int_equal(fake_info(0)->device_resets, 0);
	assert_string_equal(fake_info(0)->last_error, "");
}

static void
device_is_told_of_the_pairs_that_are_left(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start(g);
	resets = device().resets;
	assert_int_equal(fake_get_base(g->vid, 2), 0);
	assert_int_equal(device().regs.pairs, 2);
	assert_int_equal(fake_get_base(g->vid, 3), 0);
	fake_flush();
	assert_int_equal(device().regs.pairs, 1);
	fake_guest_ring(g, 2);
	fake_guest_ring(g, 3);
	wait_ring(2, true);
	wait_ring(3, true);
	assert_int_equal(device().regs.pairs, 2);
	assert_int_equal(device().resets, resets);
}

static void
stopped_ring_goes_on_relayed_where_it_stands(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_wire_vring_avail *avail;
	unsigned int resets;

	start(g);
	resets = device().resets;
	fake_store16(&fake_guest_avail(g, 3)->idx, 5);
	fake_guest_set_used(g, 3, 5);
	assert_int_equal(fake_get_base(g->vid, 3), 5);
	fake_guest_set_avail(g, 3, 5, 9);
	fake_guest_ring(g, 3);
	wait_ring(3, true);
	assert_true(fake_info(0)->queues[3].shadow);
	assert_false(fake_info(0)->queues[1].shadow);
	avail = fake_arena_at(device().regs.queues[3].driver);
	assert_non_null(avail);
	fake_wait16(&avail->idx, 1);
	assert_int_equal(le16toh(avail->ring[0]), 9);
	assert_int_equal(device().resets, resets);
	/* and is direct again when its driver begins anew */
	assert_int_equal(fake_get_base(g->vid, 3), 5);
	memset(fake_guest_avail(g, 3), 0, 4);
	fake_guest_set_used(g, 3, 0);
	fake_guest_ring(g, 3);
	wait_ring(3, true);
	assert_false(fake_info(0)->queues[3].shadow);
	assert_int_equal(device().resets, resets);
}

static void
ring_that_moves_is_reset_alone(void **state)
{
	struct vdpa_msg_addr addr = {
		.index = 2,
		.desc = FAKE_MEM_UVA + 0x80000,
		.avail = FAKE_MEM_UVA + 0x81000,
		.used = FAKE_MEM_UVA + 0x82000,
	};
	struct fake_guest *g = *state;
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);
	unsigned int resets;

	start(g);
	resets = device().resets;
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0), 0);
	while (device().regs.queues[2].device != FAKE_MEM_GPA + 0x82000) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
	wait_ring(2, true);
	assert_int_equal(device().resets, resets);
	assert_int_equal(nr_ring_resets(), 1);
}

/* Doorbells that were rung of ring @q, after at least @n. */
static void
wait_doorbells(unsigned int q, unsigned int n)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (atomic_load(&world.vf[0].doorbells[q]) < n) {
		assert_false(vfe_deadline_passed(deadline));
		sched_yield();
	}
}

static void
others_are_kicked_while_a_ring_is_waited_for(void **state)
{
	struct fake_guest *g = *state;
	struct fake_get_base get;
	unsigned int before, n;

	start_disk(g);
	before = atomic_load(&world.vf[0].doorbells[1]);
	fake_store16(&fake_guest_avail(g, 1)->idx, 1);
	fake_get_base_begin(&get, g->vid, 1);
	wait_doorbells(1, before + 1); /* it is being waited for */
	for (n = 0; n < 3; n++) {
		before = atomic_load(&world.vf[0].doorbells[0]);
		assert_int_equal(eventfd_write(g->kick[0], 1), 0);
		wait_doorbells(0, before + 1);
	}
	assert_string_equal(fake_info(0)->state, "running");
	assert_int_equal(nr_ring_resets(), 0);
	fake_store16(&fake_guest_used(g, 1)->idx, 1);
	assert_int_equal(fake_get_base_end(&get), 1);
	assert_int_equal(device().ring_resets[1], 1);
	assert_int_equal(nr_ring_resets(), 1);
	assert_int_equal(fake_info(0)->device_resets, 0);
}

/* All rings stop: as many resets as rings would take longer. */
static void
rings_that_stop_in_a_row_end_in_one_reset(void **state)
{
	struct fake_guest *g = *state;
	unsigned int q, resets;

	start(g);
	resets = device().resets;
	for (q = 0; q < FAKE_QUEUES; q++)
		assert_int_equal(fake_get_base(g->vid, q), 0);
	assert_int_equal(device().resets, resets + 1);
	assert_int_equal(nr_ring_resets(), 2);
	for (q = 0; q < FAKE_QUEUES; q++)
		fake_guest_ring(g, q);
	fake_wait_state(0, "running");
}

static void
last_ring_stops_with_the_device(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(fake_get_base(g->vid, 1), 0);
	assert_int_equal(device().resets, 1);
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	assert_int_equal(device().resets, 2);
	assert_int_equal(nr_ring_resets(), 1);
	assert_int_equal(device().regs.status, 0x03);
}

/* --- what goes by a reset of the device --- */

static void
device_without_ring_reset_is_reset(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	vdpa_globals.ms.grace = 20; /* no more rings are stopped */
	start(g);
	resets = device().resets;
	assert_int_equal(device().regs.features & VFE_BIT(VFE_VIRTIO_F_RING_RESET), 0);
	assert_int_equal(fake_get_base(g->vid, 2), 0);
	assert_int_equal(device().resets, resets + 1);
	fake_guest_ring(g, 2);
	wait_ring(2, true);
	assert_int_equal(nr_ring_resets(), 0);
	assert_string_equal(fake_info(0)->last_error, "");
}

static void
check_failing(struct fake_guest *g, int how)
{
	unsigned int resets;

	start(g);
	resets = device().resets;
	world.vf[0].ring_reset_fails = how;
	fake_store16(&fake_guest_avail(g, 2)->idx, 3);
	fake_guest_set_used(g, 2, 3);
	assert_int_equal(fake_get_base(g->vid, 2), 3);
	wait_resets(resets + 1);
	fake_wait_error(0, "queue 2 is not reset");
	/* the others go on, and the function is not asked again */
	assert_true(device().regs.enabled[0] && device().regs.enabled[3]);
	assert_false(device().regs.enabled[2]);
	world.vf[0].ring_reset_fails = 0;
	fake_guest_ring(g, 2);
	wait_ring(2, true);
	assert_int_equal(device().resets, resets + 2);
	assert_int_equal(nr_ring_resets(), 0);
	assert_string_equal(fake_info(0)->last_error, "");
}

static void
ring_reset_that_never_ends_is_one_of_the_device(void **state)
{
	check_failing(*state, -ETIMEDOUT);
}

static void
ring_reset_that_is_a_lie_is_one_of_the_device(void **state)
{
	check_failing(*state, -EIO);
}

static void
control_queue_that_fails_meanwhile_is_a_reset(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start(g);
	resets = device().resets;
	assert_int_equal(fake_get_base(g->vid, 2), 0);
	world.vf[0].ctrl_refuses = true;
	assert_int_equal(fake_get_base(g->vid, 3), 0);
	world.vf[0].ctrl_refuses = false;
	wait_resets(resets + 1);
	fake_guest_ring(g, 2);
	fake_guest_ring(g, 3);
	wait_ring(2, true);
	wait_ring(3, true);
	assert_int_equal(device().regs.pairs, 2);
	assert_true(device().regs.promisc);
}

static void
features_are_told_by_a_reset_of_the_device(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start(g);
	resets = device().resets;
	assert_int_equal(
		fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, FEATURES | VFE_BIT(VFE_NET_F_CSUM)),
		0);
	wait_resets(resets + 1);
	assert_int_equal(nr_ring_resets(), 0);
}

/* Queues are found before DRIVER_OK. */
static void
ring_that_the_device_never_had_needs_its_reset(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_run(g, 1);
	resets = device().resets;
	fake_guest_ring(g, 1);
	fake_guest_enable(g, 1, true);
	wait_ring(1, true);
	assert_int_equal(device().resets, resets + 1);
	/* now it has */
	fake_guest_enable(g, 1, false);
	wait_ring(1, false);
	fake_guest_enable(g, 1, true);
	wait_ring(1, true);
	assert_int_equal(device().resets, resets + 1);
	assert_int_equal(nr_ring_resets(), 1);
}

static void
device_that_dies_meanwhile_comes_back(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;
	struct fake_get_base get;
	unsigned int before;

	start_disk(g);
	before = atomic_load(&world.vf[0].doorbells[1]);
	fake_store16(&fake_guest_avail(g, 1)->idx, 1);
	fake_get_base_begin(&get, g->vid, 1);
	wait_doorbells(1, before + 1);
	fake_hang_up(&bdf);
	assert_int_equal(fake_get_base_end(&get), 0);
	fake_wait_state(0, "lost");
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	assert_string_equal(fake_info(0)->last_error, "");
	/* and resets rings again */
	fake_guest_ring(g, 1);
	wait_ring(1, true);
	assert_int_equal(fake_get_base(g->vid, 2), 0);
	assert_int_equal(device().ring_resets[2], 1);
}

/* --- disks --- */

static void
disk_that_is_busy_is_reset_as_a_whole(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start_disk(g);
	resets = device().resets;
	fake_store16(&fake_guest_avail(g, 1)->idx, 1);
	fake_guest_enable(g, 1, false);
	wait_resets(resets + 1);
	assert_false(device().regs.enabled[1]);
	assert_int_equal(nr_ring_resets(), 0);
	assert_string_equal(fake_info(0)->last_error, "");
	/* which is no reason to do so the next time */
	fake_guest_enable(g, 2, false);
	wait_ring(2, false);
	assert_int_equal(device().ring_resets[2], 1);
	assert_int_equal(device().resets, resets + 1);
}

/* A device may have taken it, and complete it when the ring is another one. */
static void
request_that_comes_with_the_reset_of_a_ring(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start_disk(g);
	resets = device().resets;
	world.vf[0].ring_reset_adds = &fake_guest_avail(g, 1)->idx;
	fake_guest_enable(g, 1, false);
	wait_resets(resets + 1);
	world.vf[0].ring_reset_adds = NULL;
	assert_int_equal(device().ring_resets[1], 1);
	assert_false(device().regs.enabled[1]);
	assert_string_equal(fake_info(0)->last_error, "");
	assert_int_equal(nr_ring_resets(), 1);
}

/* Ring @q is to be taken from the device, which has something in hand of it: that is waited for. */
static void
disable_busy(struct fake_guest *g, unsigned int q)
{
	fake_store16(&fake_guest_avail(g, q)->idx, 1);
	fake_guest_enable(g, q, false);
}

/* The addresses of a ring that the device is to get were those of other memory. */
static void
memory_that_comes_meanwhile_is_a_reset(void **state)
{
	struct vdpa_msg_memory mem = {
		.nr_regions = 2,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
		.regions[1] = {16ULL * FAKE_MEM_SIZE, FAKE_MEM_SIZE, FAKE_MEM_UVA << 1, 0},
	};
	struct fake_guest *g = *state;
	const int fds[] = {g->mem_fd, g->mem_fd};
	unsigned int before[FAKE_QUEUES], q, resets;

	start_disk(g);
	fake_guest_enable(g, 2, false);
	wait_ring(2, false);
	resets = device().resets;
	for (q = 0; q < FAKE_QUEUES; q++)
		before[q] = atomic_load(&world.vf[0].doorbells[q]);
	disable_busy(g, 3);
	wait_doorbells(3, before[3] + 1);
	disable_busy(g, 1);
	fake_guest_enable(g, 2, true);
	fake_store16(&fake_guest_used(g, 3)->idx, 1);
	wait_doorbells(1, before[1] + 1);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem,
				 8 + 2 * sizeof(mem.regions[0]), fds, 2),
		0);
	fake_store16(&fake_guest_used(g, 1)->idx, 1);
	wait_resets(resets + 1);
	wait_ring(2, true);
	assert_false(device().regs.enabled[1] || device().regs.enabled[3]);
	assert_string_equal(fake_info(0)->last_error, "");
}

/* --- a log comes and goes --- */

static void
set_logging(struct fake_guest *g, uint64_t features, bool on)
{
	struct vdpa_msg_log payload = {.size = LOG_SIZE};
	int fd = -1;

	if (on) {
		fd = vfe_memfd_create("log", LOG_SIZE);
		assert_int_equal(
			fake_send(g->vid, VDPA_MSG_SET_LOG_BASE, &payload, sizeof(payload), &fd, 1),
			0);
		features |= VFE_BIT(VFE_VHOST_F_LOG_ALL);
	}
	vfe_close(&fd);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, features), 0);
}

static void
wait_direct(unsigned int q)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (fake_info(0)->queues[q].shadow || !fake_info(0)->queues[q].enabled) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
}

/* The device has the first @n chains of ring 1, which is relayed, and uses that of @head first. */
static struct vfe_wire_vring_avail *
device_uses_first(struct fake_guest *g, uint16_t n, uint16_t head)
{
	const struct fake_vf_log log = device();
	struct vfe_wire_vring_avail *avail = fake_arena_at(log.regs.queues[1].driver);

	assert_int_equal(eventfd_write(g->kick[1], 1), 0);
	fake_wait16(&avail->idx, n);
	fake_ring_use(fake_arena_at(log.regs.queues[1].device), 0, head, 0);
	fake_ring_interrupt(0, 1);
	fake_wait16(&fake_guest_used(g, 1)->idx, 1);
	return avail;
}

static void
log_comes_and_goes_without_a_reset_of_the_device(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_wire_vring_avail *avail;
	struct fake_vf_log was;
	unsigned int q, i;

	start(g);
	was = device();
	for (i = 1; i < 4; i++) {
		set_logging(g, FEATURES, true);
		fake_wait_mode(0, "relay");
		for (q = 0; q < FAKE_QUEUES; q++)
			assert_true(fake_info(0)->queues[q].shadow);
		set_logging(g, FEATURES, false);
		for (q = 0; q < FAKE_QUEUES; q++)
			wait_direct(q);
		assert_int_equal(nr_ring_resets(), 2 * i * FAKE_QUEUES);
	}
	assert_int_equal(fake_info(0)->dirty.all, 0);

	/* one that has moved on stays relayed, and goes on */
	set_logging(g, FEATURES, true);
	fake_wait_mode(0, "relay");
	fake_guest_set_avail(g, 1, 0, 3);
	avail = device_uses_first(g, 1, 3);
	set_logging(g, FEATURES, false);
	for (q = 0; q < FAKE_QUEUES; q++) {
		if (q != 1)
			wait_direct(q);
	}
	assert_true(fake_info(0)->queues[1].shadow);
	fake_guest_set_avail(g, 1, 1, 4);
	assert_int_equal(eventfd_write(g->kick[1], 1), 0);
	fake_wait16(&avail->idx, 2);
	assert_int_equal(device().resets, was.resets);
	assert_int_equal(device().regs.ctrl_commands, was.regs.ctrl_commands);
}

#define DISK_FEATURES (FEATURES & ~VFE_BIT(VFE_NET_F_MQ))

static void *
run_logging(void *arg)
{
	set_logging(arg, DISK_FEATURES, true);
	return NULL;
}

/* What a disk has in hand when the log comes it has given back before its ring is taken. */
static void
log_waits_for_the_requests_of_a_disk(void **state)
{
	struct fake_guest *g = *state;
	unsigned int before, resets;
	pthread_t thread;

	start_disk(g);
	resets = device().resets;
	before = atomic_load(&world.vf[0].doorbells[1]);
	fake_store16(&fake_guest_avail(g, 1)->idx, 1);
	assert_int_equal(pthread_create(&thread, NULL, run_logging, g), 0);
	wait_doorbells(1, before + 1);
	assert_int_equal(device().ring_resets[1], 0);
	fake_store16(&fake_guest_used(g, 1)->idx, 1);
	pthread_join(thread, NULL);
	fake_wait_mode(0, "relay");
	assert_int_equal(device().ring_resets[1], 1);
	assert_int_equal(device().resets, resets);
	assert_int_equal(fake_info(0)->queues[1].last_avail_idx, 1);
	assert_int_equal(fake_info(0)->dirty.all, 0);
}

/* Waiting twice would be too long for the answer to LOG_ALL, and cost a copy of all memory. */
static void
log_waits_once_for_a_disk_that_stays_busy(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	start_disk(g);
	resets = device().resets;
	fake_store16(&fake_guest_avail(g, 1)->idx, 1);
	set_logging(g, DISK_FEATURES, true);
	wait_resets(resets + 1);
	fake_wait_mode(0, "relay");
	assert_int_equal(fake_info(0)->dirty.all, 0);
	assert_int_equal(device().resets, resets + 1);
	assert_true(fake_info(0)->queues[1].shadow);
	assert_int_equal(device().ring_resets[1], 0);
}

/* One that does not give back, and works in no order: exactly what it had is done again. */
static void
disk_gets_again_what_it_had(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_wire_vring_avail *avail;
	unsigned int resets;

	start_disk(g);
	set_logging(g, DISK_FEATURES, true);
	fake_wait_mode(0, "relay");
	fake_guest_set_avail(g, 1, 0, 3);
	fake_guest_set_avail(g, 1, 1, 4);
	device_uses_first(g, 2, 4);
	set_logging(g, DISK_FEATURES, false);
	wait_direct(0);
	resets = device().resets;
	fake_guest_enable(g, 1, false);
	wait_resets(resets + 1);
	fake_guest_enable(g, 1, true);
	wait_ring(1, true);
	avail = fake_arena_at(device().regs.queues[1].driver);
	fake_wait16(&avail->idx, 1);
	assert_int_equal(le16toh(avail->ring[0]), 3);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_teardown)
#define W(f) cmocka_unit_test_setup_teardown(f, setup_without, fake_teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, setup_blk, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(stopped_ring_leaves_the_others_alone),
		T(device_is_told_of_the_pairs_that_are_left),
		T(stopped_ring_goes_on_relayed_where_it_stands),
		T(ring_that_moves_is_reset_alone),
		B(others_are_kicked_while_a_ring_is_waited_for),
		T(rings_that_stop_in_a_row_end_in_one_reset),
		T(last_ring_stops_with_the_device),
		W(device_without_ring_reset_is_reset),
		T(ring_reset_that_never_ends_is_one_of_the_device),
		T(ring_reset_that_is_a_lie_is_one_of_the_device),
		T(control_queue_that_fails_meanwhile_is_a_reset),
		T(features_are_told_by_a_reset_of_the_device),
		B(ring_that_the_device_never_had_needs_its_reset),
		B(device_that_dies_meanwhile_comes_back),
		B(disk_that_is_busy_is_reset_as_a_whole),
		B(request_that_comes_with_the_reset_of_a_ring),
		B(memory_that_comes_meanwhile_is_a_reset),
		T(log_comes_and_goes_without_a_reset_of_the_device),
		B(log_waits_for_the_requests_of_a_disk),
		B(log_waits_once_for_a_disk_that_stays_busy),
		B(disk_gets_again_what_it_had),
	};

	return cmocka_run_group_tests_name("vdpa_rings", tests, NULL, NULL);
}
