/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions: started and stopped by registers, without any PF; our control queue.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

static struct vfe_vdpa_error verr;

static int
setup(void **state)
{
	struct fake_guest *g = calloc(1, sizeof(*g));
	struct vfe_bdf bdf = fake_vf(0);

	fake_start();
	if (vfe_vdpa_vf_add_plain(&bdf, NULL, &verr) < 0)
		fail_msg("%d %s", verr.code, verr.err.text);
	fake_guest_open(g, 0);
	*state = g;
	return 0;
}

static int
teardown(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_disconnect(g);
	fake_stop();
	fake_guest_close(g);
	free(g);
	return 0;
}

/* A copy of the device's registers. */
static struct fake_regs
regs(void)
{
	struct fake_regs r;

	pthread_mutex_lock(&world.lock);
	r = world.vf[0].regs;
	pthread_mutex_unlock(&world.lock);
	return r;
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
wait_error(const char *text)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (strstr(fake_info(0)->last_error, text) == NULL) {
		if (vfe_deadline_passed(deadline))
			fail_msg("error is \"%s\"", fake_info(0)->last_error);
		fake_flush();
	}
}

static void
start_is_told_by_registers(void **state)
{
	struct fake_guest *g = *state;
	struct fake_regs r;

	fake_guest_start(g);
	r = regs();
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
	r = regs();
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
	unsigned int q;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	for (q = 0; q < FAKE_QUEUES; q++) {
		fake_guest_ring(g, q);
		fake_guest_enable(g, q, true);
	}
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
	r = regs();
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
	assert_int_equal(regs().status, 0x03);
	assert_false(regs().enabled[0]);
}

static void
front_end_that_goes_leaves_a_reset_device(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_disconnect(g);
	fake_wait_unmapped();
	fake_wait_state(0, "parked");
	assert_int_equal(regs().status, 0x03);
	/* and another one starts it */
	fake_guest_start(g);
	assert_true(regs().promisc);
}

static void
device_that_stays_filtered_runs(void **state)
{
	struct fake_guest *g = *state;

	world.vf[0].ctrl_refuses = true;
	fake_guest_start(g);
	assert_int_equal(regs().ctrl_commands, 1);
}

static void
control_queue_that_lies_is_an_error_and_a_reset(void **state)
{
	struct fake_guest *g = *state;

	world.vf[0].ctrl_lies = true;
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_enable(g, 0, true);
	fake_guest_driver_ok(g);
	wait_error("control queue: its used index is 8, expected 1");
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
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_enable(g, 0, true);
	fake_stage(FAKE_STAGE_FEATURES, 0, -ENOTSUP);
	fake_guest_driver_ok(g);
	wait_error("stage");
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	fake_wait_state(0, "running");
}

static void
ring_that_does_not_begin_at_zero_is_refused_by_name(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_set_used(g, 1, 7);
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_guest_ring(g, 1);
	fake_guest_enable(g, 1, true);
	fake_guest_driver_ok(g);
	wait_error("queue 1 stands at index 7");
	assert_false(regs().enabled[1]);
	/* the guest's driver begins anew */
	fake_guest_set_used(g, 1, 0);
	fake_wait_state(0, "running");
	assert_true(regs().enabled[1]);
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
	assert_true(regs().promisc);
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
	assert_int_equal(vfe_vdpa_vf_add_plain(&bdf, NULL, &verr), -ENOMEM);
	assert_int_equal(verr.code, VFE_VDPA_VF_ALLOC);
	assert_int_equal(world.open_devices, 1);
	assert_int_equal(world.arenas, 1);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

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
		T(ring_that_does_not_begin_at_zero_is_refused_by_name),
		T(lost_device_comes_back_and_runs),
		T(test_operations_are_for_managed_ones),
		T(arena_that_fails_leaves_nothing),
	};

	return cmocka_run_group_tests_name("vdpa_plain", tests, NULL, NULL);
}
