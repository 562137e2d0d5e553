/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions: started and stopped by registers, without any PF; our control queue.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"
#include "vfe_wire_pci.h"

static struct vfe_vdpa_error verr;

static int
setup(void **state)
{
	fake_start();
	return fake_setup_started_plain(state);
}

static int
setup_blk(void **state)
{
	fake_start_blk();
	return fake_setup_started_plain(state);
}

/* Two pairs of rings, of which the first is enabled, of a guest with MQ. */
static void
start_mq(struct fake_guest *g)
{
	unsigned int q;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_MQ) |
					 VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES)),
		0);
	assert_int_equal(fake_guest_mem(g), 0);
	for (q = 0; q < FAKE_QUEUES; q++)
		fake_guest_ring(g, q);
	fake_guest_enable(g, 0, true);
	fake_guest_enable(g, 1, true);
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
}

static void
wait_pairs(uint16_t pairs)
{
	struct timespec ts;
	int ret = 0;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 10;
	pthread_mutex_lock(&world.lock);
	while (ret == 0 && world.vf[0].regs.pairs != pairs)
		ret = pthread_cond_timedwait(&world.cond, &world.lock, &ts);
	pthread_mutex_unlock(&world.lock);
	assert_int_equal(ret, 0);
}

static void
start_is_told_by_registers(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;

	fake_guest_start(g);
	r = fake_regs(0);
	assert_int_equal(r.status, 0x0f & ~VFE_VIRTIO_S_FEATURES_OK);
	assert_int_equal(r.features,
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
			VFE_BIT(VFE_VIRTIO_F_RING_RESET) | VFE_BIT(VFE_NET_F_CSUM) |
			VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_CTRL_RX));
	assert_int_equal(r.config_vector, 0);
	assert_true(r.enabled[0] && r.enabled[1]);
	assert_int_equal(r.queues[1].size, 64);
	assert_int_equal(r.queues[1].msix_vector, 2);
	assert_int_equal(r.queues[1].desc, FAKE_MEM_GPA + 0x4000);
	assert_int_equal(r.queues[1].driver, FAKE_MEM_GPA + 0x5000);
	assert_int_equal(r.queues[1].device, FAKE_MEM_GPA + 0x6000);
	/* without MQ the control queue is the third; our memory is far from the guest's */
	assert_true(r.enabled[2] && !r.enabled[3] && !r.enabled[4]);
	assert_true(r.queues[2].desc >= 1ULL << 32);
	assert_int_equal(r.queues[2].msix_vector, VFE_VIRTIO_MSI_NO_VECTOR);
	assert_true(r.promisc);
	assert_int_equal(r.ctrl_commands, 1);
	assert_true(atomic_load(&world.vf[0].doorbells[0]) >= 1);
	assert_string_equal(fake_info(0)->drive, "plain");
	assert_int_equal(world.vf[0].restores, 0);
}

static void
queue_pairs_follow_the_front_end_without_a_restart(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;
	unsigned int q, resets;

	start_mq(g);
	r = fake_regs(0);
	for (q = 0; q < FAKE_QUEUES + 1; q++)
		assert_true(r.enabled[q]);
	assert_true(r.queues[FAKE_QUEUES].desc >= 1ULL << 32);
	assert_int_equal(r.pairs, 1);
	assert_int_equal(r.ctrl_commands, 1);
	resets = world.vf[0].resets;
	fake_guest_enable(g, 2, true);
	fake_guest_enable(g, 3, true);
	wait_pairs(2);
	fake_guest_enable(g, 2, false);
	fake_guest_enable(g, 3, false);
	wait_pairs(1);
	assert_int_equal(world.vf[0].resets, resets);
	assert_string_equal(fake_info(0)->state, "running");
}

static void
guest_without_mq_gets_no_other_rings(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_run(g, FAKE_QUEUES);
	r = fake_regs(0);
	assert_true(r.queues[2].desc >= 1ULL << 32);
	assert_false(r.enabled[3]);
}

static void
stop_is_a_reset_and_the_index_is_the_used_one(void **state)
{
	struct fake_guest *g = *state;
	unsigned int resets;

	fake_guest_start(g);
	fake_guest_set_used(g, 1, 7);
	resets = world.vf[0].resets;
	assert_int_equal(fake_get_base(g->vid, 1), 7);
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	assert_int_equal(world.vf[0].resets, resets + 1);
	assert_int_equal(fake_regs(0).status, 0x03);
	assert_false(fake_regs(0).enabled[0]);
}

static void
front_end_that_goes_leaves_a_reset_device(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_disconnect(g);
	fake_wait_unmapped();
	fake_wait_state(0, "parked");
	assert_int_equal(fake_regs(0).status, 0x03);
	/* and another one starts it */
	fake_guest_start(g);
	assert_true(fake_regs(0).promisc);
}

static void
device_that_stays_filtered_runs(void **state)
{
	struct fake_guest *g = *state;

	world.vf[0].ctrl_refuses = true;
	fake_guest_start(g);
	assert_int_equal(fake_regs(0).ctrl_commands, 1);
}

static void
control_queue_that_lies_is_an_error_and_a_reset(void **state)
{
	struct fake_guest *g = *state;

	world.vf[0].ctrl_lies = true;
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_prepare(g, 1);
	fake_guest_driver_ok(g);
	fake_wait_error(0, "control queue: its used index is 8, expected 1");
	/* it is tried again */
	world.vf[0].ctrl_lies = false;
	fake_wait_state(0, "running");
	assert_string_equal(fake_info(0)->last_error, "");
}

static void
features_that_are_refused_are_an_error(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_prepare(g, 1);
	fake_stage(FAKE_STAGE_FEATURES, 0, -ENOTSUP);
	fake_guest_driver_ok(g);
	fake_wait_error(0, "stage");
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	fake_wait_state(0, "running");
}

/* --- shadow rings --- */

/* Ring 1 as guest and device see it. */
struct view {
	struct vfe_wire_vring_avail *guest_avail;
	struct vfe_wire_vring_used *guest_used;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
};

static struct view
view_of(struct fake_guest *g)
{
	struct fake_regs r = fake_regs(0);

	return (struct view){
		.guest_avail = fake_guest_avail(g, 1),
		.guest_used = fake_guest_used(g, 1),
		.avail = fake_arena_at(r.queues[1].driver),
		.used = fake_arena_at(r.queues[1].device),
	};
}

static void
wait_signal(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	eventfd_t v;

	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(eventfd_read(fd, &v), 0);
}

/* The guest's driver makes @n chains available from @head on; its index is @from before that. */
static void
guest_adds(struct fake_guest *g, uint16_t from, uint16_t n, uint16_t head)
{
	struct view v = view_of(g);
	uint16_t i;

	for (i = 0; i < n; i++)
		fake_store16(&v.guest_avail->ring[(uint16_t)(from + i) % FAKE_RING_SIZE],
			(uint16_t)(head + i));
	fake_store16(&v.guest_avail->idx, (uint16_t)(from + n));
}

/* Ring 1 stands at @used with @n chains that the device has not used. */
static struct view
start_in_the_middle(struct fake_guest *g, uint16_t used, uint16_t n, uint64_t features)
{
	fake_guest_set_used(g, 1, used);
	guest_adds(g, used, n, 3);
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 features | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
					 VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES)),
		0);
	fake_guest_run(g, 2);
	return view_of(g);
}

static void
ring_in_the_middle_is_relayed(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;
	struct view v;

	v = start_in_the_middle(g, 7, 2, 0);
	r = fake_regs(0);
	assert_int_equal(r.queues[1].desc, FAKE_MEM_GPA + 0x4000);
	assert_non_null(v.avail);
	assert_non_null(v.used);
	assert_int_equal(r.queues[0].driver, FAKE_MEM_GPA + 0x1000); /* at its beginning: direct */
	fake_wait16(&v.avail->idx, 2);
	assert_int_equal(le16toh(v.avail->ring[0]), 3);
	assert_int_equal(le16toh(v.avail->ring[1]), 4);
	assert_true(fake_info(0)->queues[1].shadow);
	assert_false(fake_info(0)->queues[0].shadow);

	wait_signal(g->call[1]); /* that of the start */
	fake_ring_use(v.used, 0, 3, 100);
	fake_ring_interrupt(0, 1);
	fake_wait16(&v.guest_used->idx, 8);
	assert_int_equal(le32toh(v.guest_used->ring[7].id), 3);
	assert_int_equal(le32toh(v.guest_used->ring[7].len), 100);
	wait_signal(g->call[1]);
	assert_int_equal(fake_info(0)->queues[1].relayed_chains, 1);

	guest_adds(g, 9, 1, 5);
	assert_int_equal(eventfd_write(g->kick[1], 1), 0);
	fake_wait16(&v.avail->idx, 3);
	assert_int_equal(le16toh(v.avail->ring[2]), 5);

	/* what is used when it stops is not forgotten */
	fake_ring_use(v.used, 1, 4, 0);
	assert_int_equal(fake_get_base(g->vid, 1), 9);
	assert_int_equal(le32toh(v.guest_used->ring[8].id), 4);
}

static void
indices_of_a_relayed_ring_wrap(void **state)
{
	struct fake_guest *g = *state;
	struct view v;

	v = start_in_the_middle(g, 0xfffe, 3, 0);
	fake_wait16(&v.avail->idx, 3);
	fake_ring_use(v.used, 0, 3, 0);
	fake_ring_use(v.used, 1, 4, 0);
	fake_ring_use(v.used, 2, 5, 0);
	fake_ring_interrupt(0, 1);
	fake_wait16(&v.guest_used->idx, 1);
	assert_int_equal(le32toh(v.guest_used->ring[0xfffe % FAKE_RING_SIZE].id), 3);
	assert_int_equal(le32toh(v.guest_used->ring[0].id), 5);
}

static void
event_index_is_kept_on_both_sides(void **state)
{
	struct fake_guest *g = *state;
	struct view v;

	v = view_of(g);
	fake_store16(&v.guest_avail->ring[FAKE_RING_SIZE], 8); /* interrupt me after the second */
	v = start_in_the_middle(g, 7, 2, VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX));
	fake_wait16(&v.avail->idx, 2);
	fake_wait16((uint16_t *)(void *)&v.guest_used->ring[FAKE_RING_SIZE], 9);
	wait_signal(g->call[1]);
	fake_ring_use(v.used, 0, 3, 0);
	fake_ring_interrupt(0, 1);
	fake_wait16(&v.guest_used->idx, 8);
	fake_wait16(&v.avail->ring[FAKE_RING_SIZE], 1);
	assert_false(fake_signalled(g->call[1]));
	fake_ring_use(v.used, 1, 4, 0);
	fake_ring_interrupt(0, 1);
	wait_signal(g->call[1]);
	assert_int_equal(le16toh(v.guest_used->idx), 9);
}

/* What is in the ring now has been looked at: of three looks at most one had begun before. */
static void
kick_until_seen(struct fake_guest *g)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);
	uint64_t before = fake_info(0)->queues[1].relayed_kicks;

	while (fake_info(0)->queues[1].relayed_kicks < before + 3) {
		assert_false(vfe_deadline_passed(deadline));
		assert_int_equal(eventfd_write(g->kick[1], 1), 0);
		sched_yield();
	}
}

static void
guest_that_lies_is_not_served(void **state)
{
	struct fake_guest *g = *state;
	struct view v;

	v = start_in_the_middle(g, 7, 1, 0);
	fake_wait16(&v.avail->idx, 1);
	fake_store16(&v.guest_avail->idx, 7 + FAKE_RING_SIZE + 1);
	kick_until_seen(g);
	guest_adds(g, 8, 1, 9);
	kick_until_seen(g);
	assert_int_equal(le16toh(v.avail->idx), 1);
	assert_string_equal(fake_info(0)->state, "running");
}

static void
device_that_lies_is_lost(void **state)
{
	struct fake_guest *g = *state;
	struct view v;

	v = start_in_the_middle(g, 7, 1, 0);
	fake_wait16(&v.avail->idx, 1);
	fake_ring_use(v.used, 1, 3, 0); /* two, of one */
	fake_ring_interrupt(0, 1);
	fake_wait_state(0, "lost");
	assert_int_equal(le16toh(v.guest_used->idx), 7);
}

static void
restarted_ring_goes_on_and_a_new_one_is_direct(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);
	struct view v;

	v = start_in_the_middle(g, 7, 2, 0);
	fake_wait16(&v.avail->idx, 2);
	fake_ring_use(v.used, 0, 3, 0);
	/* the device fails with a chain under way: it gets it again */
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	v = view_of(g);
	fake_wait16(&v.avail->idx, 1);
	assert_int_equal(le16toh(v.avail->ring[0]), 4);
	assert_int_equal(le16toh(v.guest_used->idx), 8);

	fake_guest_disconnect(g);
	fake_wait_unmapped();
	fake_guest_set_used(g, 1, 0);
	fake_guest_start(g);
	assert_int_equal(fake_regs(0).queues[1].driver, FAKE_MEM_GPA + 0x5000);
	assert_false(fake_info(0)->queues[1].shadow);
}

static void
memory_goes(void *arg)
{
	struct fake_guest *g = arg;
	const struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {16ULL * FAKE_MEM_SIZE, FAKE_MEM_SIZE, FAKE_MEM_UVA << 1, 0},
	};

	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + sizeof(mem.regions[0]),
				 &g->mem_fd, 1),
		0);
}

/* A device that does not run yet is not waited for; its rings are looked at when it stops. */
static void
memory_that_goes_while_a_relayed_ring_starts(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);
	unsigned int q;

	for (q = 0; q < 2; q++)
		fake_guest_set_used(g, q, 7);
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	for (q = 0; q < 2; q++) {
		fake_guest_ring(g, q);
		fake_guest_enable(g, q, true);
	}
	world.arg = g;
	world.on_queue_enable = memory_goes;
	fake_guest_driver_ok(g);
	while (strstr(fake_info(0)->last_error, "guest memory") == NULL) {
		assert_false(vfe_deadline_passed(deadline));
		fake_flush();
	}
	assert_int_equal(fake_guest_mem(g), 0);
	fake_wait_state(0, "running");
	assert_true(fake_info(0)->queues[1].shadow);
}

static void
lost_device_comes_back_and_runs(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	assert_true(fake_regs(0).promisc);
}

static void
test_operations_are_for_managed_ones(void **state)
{
	struct vfe_bdf bdf = fake_vf(0), none = {0}, found[2];

	(void)state;
	assert_int_equal(vfe_vdpa_vf_debug(&bdf, 6, 0, NULL, &verr), -ENOTSUP);
	assert_int_equal(vfe_vdpa_vf_list(&none, found, 2), 1);
	assert_true(vfe_bdf_equal(&found[0], &bdf));
}

static void
arena_that_fails_leaves_nothing(void **state)
{
	struct vfe_bdf bdf = fake_vf(1);

	(void)state;
	fake_stage(FAKE_STAGE_ARENA, 0, -ENOMEM);
	assert_int_equal(vfe_vdpa_vf_add_plain(&bdf, NULL, false, &verr), -ENOMEM);
	assert_int_equal(verr.code, VFE_VDPA_VF_ALLOC);
	assert_int_equal(world.open_devices, 1);
	assert_int_equal(world.arenas, 1);
}

/* --- disks --- */

static void
disk_is_told_by_registers(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;

	assert_string_equal(fake_info(0)->drive, "plain");
	assert_int_equal(fake_info(0)->device_id, VFE_PCI_DEVICE_VIRTIO_BLK);
	assert_int_equal(fake_info(0)->capacity, 2048 * 512);
	fake_guest_start(g);
	r = fake_regs(0);
	assert_int_equal(r.features,
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
			VFE_BIT(VFE_VIRTIO_F_RING_RESET) | VFE_BIT(VFE_BLK_F_CONFIG_WCE));
	assert_true(r.enabled[0] && r.enabled[1] && !r.enabled[2]);
	assert_int_equal(r.queues[1].device, FAKE_MEM_GPA + 0x6000);
	assert_int_equal(r.ctrl_commands, 0);
	fake_guest_set_used(g, 1, 9);
	assert_int_equal(fake_get_base(g->vid, 1), 9);
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	assert_int_equal(fake_regs(0).status, 0x03);
}

/* No control queue could say that a ring is not to be used. */
static void
ring_of_a_disk_that_is_disabled_is_not_there(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_ring(g, 1);
	fake_guest_enable(g, 0, true);
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
	assert_true(fake_regs(0).enabled[0] && !fake_regs(0).enabled[1]);
	fake_guest_enable(g, 1, true);
	while (!fake_regs(0).enabled[1])
		fake_flush();
	fake_wait_state(0, "running");
}

static int
set_writeback(struct fake_guest *g, uint8_t on)
{
	struct vdpa_msg_config config = {
		.offset = offsetof(struct vfe_wire_blk_config, writeback),
		.size = 1,
		.region[0] = on,
	};

	return fake_send(g->vid, VDPA_MSG_SET_CONFIG, &config, VDPA_MSG_CONFIG_HDR + 1, NULL, 0);
}

/* A reset takes it from the device, and a plain one gets no blob. */
static void
write_cache_of_a_disk_outlives_its_resets(void **state)
{
	struct fake_guest *g = *state;
	unsigned int q;

	fake_guest_start(g);
	assert_int_equal(world.config_writes, 0);
	assert_int_equal(set_writeback(g, 0), 0);
	while (world.config_writes < 1)
		fake_flush();
	assert_int_equal(world.config_write_value, 0);
	for (q = 0; q < 2; q++)
		assert_int_equal(fake_get_base(g->vid, q), 0);
	world.disk.writeback = 1;
	for (q = 0; q < 2; q++)
		fake_guest_ring(g, q);
	fake_wait_state(0, "running");
	assert_true(world.config_writes >= 2); /* it may have run on with one of the rings */
	assert_int_equal(world.disk.writeback, 0);
}

static void
other_types_of_devices_are_refused(void **state)
{
	struct vfe_bdf bdf = fake_vf(1);

	(void)state;
	fake_stage(FAKE_STAGE_DEVICE_ID, 0, 0);
	assert_true(vfe_vdpa_vf_add_plain(&bdf, NULL, false, &verr) < 0);
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(verr.code, VFE_VDPA_PROBE_FAIL);
	assert_non_null(strstr(verr.err.text, "neither virtio-net's nor virtio-blk's"));
	assert_int_equal(world.open_devices, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_teardown)
#define B(f) cmocka_unit_test_setup_teardown(f, setup_blk, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(start_is_told_by_registers),
		T(queue_pairs_follow_the_front_end_without_a_restart),
		T(guest_without_mq_gets_no_other_rings),
		T(stop_is_a_reset_and_the_index_is_the_used_one),
		T(front_end_that_goes_leaves_a_reset_device),
		T(device_that_stays_filtered_runs),
		T(control_queue_that_lies_is_an_error_and_a_reset),
		T(features_that_are_refused_are_an_error),
		T(ring_in_the_middle_is_relayed),
		T(indices_of_a_relayed_ring_wrap),
		T(event_index_is_kept_on_both_sides),
		T(guest_that_lies_is_not_served),
		T(device_that_lies_is_lost),
		T(restarted_ring_goes_on_and_a_new_one_is_direct),
		T(memory_that_goes_while_a_relayed_ring_starts),
		T(lost_device_comes_back_and_runs),
		T(test_operations_are_for_managed_ones),
		T(arena_that_fails_leaves_nothing),
		T(other_types_of_devices_are_refused),
		B(disk_is_told_by_registers),
		B(ring_of_a_disk_that_is_disabled_is_not_there),
		B(write_cache_of_a_disk_outlives_its_resets),
	};

	return cmocka_run_group_tests_name("vdpa_plain", tests, NULL, NULL);
}
