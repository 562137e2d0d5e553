/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The state machine of a VF: each path, and each step of it failing.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static struct vfe_vdpa_error verr;

/* Everything up to DRIVER_OK, which the test sends. */
static void
prepare(struct fake_guest *g)
{
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_prepare(g, 2);
}

/* --- start --- */

static void
start_waits_for_driver_ok_and_tells_the_device_all(void **state)
{
	struct fake_guest *g = *state;
	const struct vfe_state_queue *q;

	world.automatic = false;
	fake_guest_set_used(g, 1, 0xfffe);
	prepare(g);
	/* what needs no guest is done before there is one */
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	fake_expect_nothing();
	assert_string_equal(fake_info(0)->state, "parked");
	assert_int_equal(fake_info(0)->last_resume.begin_unix_us, 0);
	fake_guest_driver_ok(g);
	FAKE_SERVE(0, FAKE_RESTORE);
	assert_false(fake_signalled(g->call[0]));
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	fake_expect_nothing();

	assert_int_equal(world.vf[0].state.device_status, 0x0f);
	assert_int_equal(world.vf[0].state.driver_features,
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |
			VFE_BIT(VFE_VIRTIO_F_RING_RESET) | VFE_BIT(VFE_NET_F_CSUM));
	assert_true(world.vf[0].state.has_rx_mode);
	assert_int_equal(world.vf[0].state.num_queues, FAKE_QUEUES + 1);
	q = &world.vf[0].state.queues[1];
	assert_true(q->enable);
	assert_int_equal(q->size, 64);
	assert_int_equal(q->msix_vector, 2);
	assert_int_equal(q->desc, FAKE_MEM_GPA + 0x4000);
	assert_int_equal(q->driver, FAKE_MEM_GPA + 0x5000);
	assert_int_equal(q->device, FAKE_MEM_GPA + 0x6000);
	assert_int_equal(q->last_avail_idx, 0xfffe);
	assert_int_equal(q->last_used_idx, 0xfffe);
	assert_false(world.vf[0].state.queues[2].enable);
	assert_int_equal(world.vf[0].state.queues[2].msix_vector, VFE_VIRTIO_MSI_NO_VECTOR);

	/* kicks and interrupts that may have been lost are made up for */
	assert_true(atomic_load(&world.vf[0].doorbells[0]) >= 1);
	assert_true(fake_signalled(g->call[0]));
	assert_true(fake_signalled(g->call[1]));
	assert_int_equal(fake_info(0)->queues[1].last_avail_idx, 0xfffe);
	assert_true(fake_info(0)->configured);
}

static void
front_end_without_status_starts_with_its_first_ring(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, 0);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_expect_nothing();
	fake_guest_enable(g, 0, true);
	fake_wait_state(0, "running");
}

static void
rings_are_enabled_without_protocol_features(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, 0);
	assert_int_equal(
		fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, VFE_BIT(VFE_VIRTIO_F_VERSION_1)), 0);
	assert_int_equal(fake_guest_mem(g), 0);
	fake_guest_ring(g, 0);
	fake_wait_state(0, "running");
}

static void
legacy_guest_does_not_start(void **state)
{
	struct fake_guest *g = *state;

	prepare(g);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES)),
		0);
	fake_guest_driver_ok(g);
	fake_flush();
	assert_string_equal(fake_info(0)->state, "parked");
	assert_int_equal(world.vf[0].restores, 0);
}

static void
changes_in_transit_make_one_restart(void **state)
{
	struct fake_guest *g = *state;
	unsigned int q;

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_ring(g, 2);
	fake_expect_nothing(); /* not enabled: nothing that the device must know */
	fake_guest_enable(g, 2, true);
	fake_expect(0, FAKE_QUIESCE);
	fake_guest_ring(g, 3);
	fake_guest_enable(g, 3, true);
	for (q = 0; q < 5; q++) {
		fake_guest_enable(g, 0, false);
		fake_guest_enable(g, 0, true);
	}
	fake_answer(0);
	FAKE_SERVE(0, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	fake_expect_nothing();
	for (q = 0; q < FAKE_QUEUES; q++)
		assert_true(world.vf[0].state.queues[q].enable);
}

static void
change_while_the_blob_travels_is_not_lost(void **state)
{
	struct fake_guest *g = *state;

	world.automatic = false;
	prepare(g);
	fake_guest_ring(g, 2);
	fake_guest_driver_ok(g);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	fake_expect(0, FAKE_RESTORE);
	fake_guest_enable(g, 2, true);
	fake_answer(0);
	/* still frozen: restored again at once, without running in between */
	FAKE_SERVE(0, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	assert_true(world.vf[0].state.queues[2].enable);
}

static void
repeating_what_is_known_changes_nothing(void **state)
{
	struct fake_guest *g = *state;
	unsigned int irq_sets;

	fake_guest_start(g);
	irq_sets = world.vf[0].irq_sets;
	world.automatic = false;
	fake_guest_enable(g, 0, true);
	assert_int_equal(fake_guest_mem(g), 0);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, 0, 64), 0);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_CSUM)),
		0);
	fake_guest_driver_ok(g);
	fake_expect_nothing();
	assert_int_equal(world.vf[0].irq_sets, irq_sets);
}

/* --- suspend --- */

static void
first_ring_suspends_and_all_answer_with_the_used_index(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_set_used(g, 0, 7);
	fake_guest_set_used(g, 1, 0x8001);
	assert_int_equal(fake_get_base(g->vid, 0), 7);
	world.automatic = false;
	assert_int_equal(fake_get_base(g->vid, 1), 0x8001);
	fake_expect_nothing();
	assert_string_equal(fake_info(0)->state, "suspended");
	assert_true(fake_info(0)->last_suspend.total_ns > 0);

	/* and on again, from there, without another freeze */
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0), 0);
	fake_guest_ring(g, 0);
	fake_guest_ring(g, 1);
	fake_guest_driver_ok(g);
	FAKE_SERVE(0, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[1].last_avail_idx, 0x8001);
}

static void
rings_that_are_not_stopped_go_on(void **state)
{
	struct fake_guest *g = *state;

	vdpa_globals.ms.grace = 20;
	fake_guest_start(g);
	fake_guest_set_used(g, 0, 9);
	assert_int_equal(fake_get_base(g->vid, 0), 9);
	fake_wait_state(0, "running"); /* after the grace time */
	assert_false(world.vf[0].state.queues[0].enable);
	assert_true(world.vf[0].state.queues[1].enable);
}

static void
ring_that_never_ran_stands_where_it_was_put(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_BASE, 3, 77), 0);
	world.automatic = false;
	assert_int_equal(fake_get_base(g->vid, 3), 77);
	fake_expect_nothing();
	assert_string_equal(fake_info(0)->state, "running");
}

static void
device_that_does_not_stop_is_lost_and_the_answer_comes(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_set_used(g, 0, 5);
	world.automatic = false;
	vdpa_globals.ms.suspend = 50;
	assert_int_equal(fake_get_base(g->vid, 0), 5);
	fake_expect(0, FAKE_QUIESCE);
	fake_answer(-ETIMEDOUT);
	fake_wait_state(0, "lost");
	assert_true(fake_info(0)->last_error[0] != '\0');
	assert_int_equal(world.lost_calls, 1);
}

static void
disabling_all_rings_suspends(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_enable(g, 0, false);
	fake_guest_enable(g, 1, false);
	fake_wait_state(0, "suspended");
	fake_guest_set_used(g, 0, 3);
	assert_int_equal(fake_get_base(g->vid, 0), 3);
}

static void
status_0_suspends(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0), 0);
	fake_wait_state(0, "suspended");
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
}

/* --- failures --- */

/* The step with number @n of a start fails; what follows brings the guest up all the same. */
static void
start_fails_at(struct fake_guest *g, unsigned int n, int status)
{
	static const int steps[] = {
		FAKE_QUIESCE, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN, -1};
	unsigned int i, resets;

	world.automatic = false;
	prepare(g);
	fake_guest_driver_ok(g);
	for (i = 0; i < n; i++) {
		fake_expect(0, (enum fake_kind)steps[i]);
		fake_answer(0);
	}
	resets = world.vf[0].resets;
	fake_expect(0, (enum fake_kind)steps[n]);
	fake_answer(status);
	/* stopped by its registers, and started again after a pause */
	fake_serve(0, steps);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].resets, resets + 1);
	assert_string_equal(fake_info(0)->last_error, "");
	world.automatic = true;
}

static void
failed_step_resets_and_starts_again(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);
	unsigned int n;

	for (n = 0; n < 5; n++) {
		start_fails_at(g, n, n % 2 ? -ETIMEDOUT : -EIO);
		fake_guest_disconnect(g);
		fake_wait_state(0, "parked");
		assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
		fake_vf_add(0, NULL); /* reset again: the next start has all its steps */
	}
}

static void
suspend_that_is_refused_ends_in_a_reset(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_enable(g, 0, false);
	fake_guest_enable(g, 1, false);
	fake_expect(0, FAKE_QUIESCE);
	fake_answer(-EIO);
	fake_wait_state(0, "parked");
	assert_int_equal(world.vf[0].resets, 2); /* one when it was added */
	fake_expect_nothing();
}

static void
device_that_cannot_even_be_reset_is_lost(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	world.automatic = false;
	world.fail_reset = true;
	fake_guest_enable(g, 0, false);
	fake_guest_enable(g, 1, false);
	fake_expect(0, FAKE_QUIESCE);
	fake_answer(-EIO);
	fake_wait_state(0, "lost");
	assert_int_equal(world.lost_calls, 1);
	world.fail_reset = false;
}

static void
late_completion_is_ignored(void **state)
{
	struct fake_guest *g = *state;

	world.automatic = false;
	prepare(g);
	fake_guest_driver_ok(g);
	FAKE_SERVE(0, FAKE_QUIESCE);
	fake_answer_again();
	FAKE_SERVE(0, FAKE_FREEZE, FAKE_RESTORE);
	fake_answer_again();
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	fake_answer_again();
	assert_string_equal(fake_info(0)->state, "running");
}

static void
unmapped_ring_is_an_error_that_names_it(void **state)
{
	struct fake_guest *g = *state;
	struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {FAKE_MEM_GPA, 0x4000, FAKE_MEM_UVA, 0},
	};

	prepare(g); /* then ring 1 loses its memory */
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + sizeof(mem.regions[0]),
				 &g->mem_fd, 1),
		0);
	fake_guest_driver_ok(g);
	while (fake_info(0)->last_error[0] == '\0')
		fake_flush();
	assert_non_null(strstr(fake_info(0)->last_error, "queue 1"));
	assert_int_equal(fake_guest_mem(g), 0);
	fake_wait_state(0, "running");
}

/* --- lost PF, lost VF --- */

static void
lose_pf(void)
{
	struct vfe_vdpa_pf_info pf = {0};

	fake_hang_up(&fake_pf);
	while (vfe_vdpa_pf_list(&pf, 1) == 1 && !pf.lost)
		fake_flush();
}

static void
running_vf_outlives_its_pf(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	lose_pf();
	assert_string_equal(fake_info(0)->state, "running");
	/* a change has to wait, */
	fake_guest_ring(g, 2);
	fake_guest_enable(g, 2, true);
	fake_flush();
	assert_string_equal(fake_info(0)->state, "running");
	/* until the PF is back */
	world.automatic = false;
	assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	assert_true(world.vf[0].state.queues[2].enable);
}

static void
without_pf_a_vf_is_stopped_by_its_registers(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	lose_pf();
	fake_guest_set_used(g, 0, 11);
	assert_int_equal(fake_get_base(g->vid, 0), 11);
	assert_int_equal(world.vf[0].resets, 2);
	assert_int_equal(fake_get_base(g->vid, 1), 0);
	/* the guest starts it again; it waits for the PF */
	fake_guest_ring(g, 0);
	fake_flush();
	assert_string_equal(fake_info(0)->state, "parked");
	assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 11);
}

static void
pf_lost_in_each_step_of_a_start(void **state)
{
	static const int steps[] = {
		FAKE_QUIESCE, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN, -1};
	struct fake_guest *g = *state;
	unsigned int n, i;

	world.automatic = false;
	prepare(g);
	for (n = 0; n < 5; n++) {
		fake_guest_driver_ok(g);
		for (i = 0; i < n; i++) {
			fake_expect(0, (enum fake_kind)steps[i]);
			fake_answer(0);
		}
		fake_expect(0, (enum fake_kind)steps[n]);
		lose_pf();
		fake_wait_state(0, "parked");
		assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
		fake_serve(0, steps);
		fake_wait_state(0, "running");
		/* to idle, for the next round */
		lose_pf();
		assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0), 0);
		fake_wait_state(0, "parked");
		assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
	}
}

static void
lost_vf_comes_back_and_goes_on(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	fake_guest_set_used(g, 1, 21);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(world.lost_calls, 1);
	assert_string_equal(world.lost_name, "0000:af:04.0");
	assert_true(fake_info(0)->connected);
	/* the transport is not there yet */
	fake_stage(FAKE_STAGE_OPEN, 0, -ECONNREFUSED);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), -EAGAIN);
	assert_int_equal(world.detaches, 1); /* the old one must not be in the way */
	assert_string_equal(fake_info(0)->state, "lost");
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[1].last_avail_idx, 21);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0); /* nothing to do */
}

static void
lost_vf_answers_get_vring_base_at_once(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_set_used(g, 0, 13);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(fake_get_base(g->vid, 0), 13);
}

static void
vf_that_comes_back_different_stays_lost(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	world.mac_last = 2;
	assert_true(vfe_vdpa_reattach(&bdf, &verr) < 0);
	assert_non_null(strstr(verr.err.text, "MAC"));
	assert_string_equal(fake_info(0)->state, "lost");
	world.mac_last = 1;
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
}

/* The kernel has taken it from vfio-pci, and may give it back: it is tried again. */
static void
vf_without_a_driver_is_not_back_yet(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0), other = fake_vf(7);

	fake_guest_start(g);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	fake_stage(FAKE_STAGE_OPEN, 0, -ENODEV);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), -EAGAIN);
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_reattach(&other, &verr), -ENODEV);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
}

static void
vf_waits_for_its_pf_to_come_back(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	fake_hang_up(&fake_pf);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	while (world.lost_calls < 2)
		fake_flush();
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), -EAGAIN);
	assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
}

/* --- the end of a connection --- */

static void
disconnect_parks_before_memory_goes(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_disconnect(g);
	fake_expect(0, FAKE_QUIESCE);
	assert_int_equal(world.unmaps, 0);
	fake_answer(0);
	fake_expect(0, FAKE_FREEZE);
	assert_int_equal(world.unmaps, 0);
	fake_answer(0);
	fake_expect(0, FAKE_RESTORE);
	assert_int_equal(world.unmaps, 0);
	assert_int_equal(world.vf[0].state.device_status, 0x03);
	assert_false(world.vf[0].state.queues[0].enable);
	fake_answer(0);
	fake_wait_state(0, "parked");
	fake_expect_nothing();
	fake_wait_unmapped();
	assert_false(fake_info(0)->connected);
	assert_int_equal(fake_info(0)->nr_mem_regions, 0);
}

/* While the command with number @n of a start is in flight. */
static void
disconnect_in_step(struct fake_guest *g, unsigned int n)
{
	static const int steps[] = {
		FAKE_QUIESCE, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN};
	unsigned int i;

	world.automatic = false;
	prepare(g);
	fake_guest_driver_ok(g);
	for (i = 0; i <= n; i++) {
		fake_expect(0, (enum fake_kind)steps[i]);
		if (i < n)
			fake_answer(0);
	}
	fake_guest_disconnect(g);
	assert_int_equal(world.mapped, 1);
	world.automatic = true;
	fake_answer(0);
	fake_wait_state(0, "parked");
	fake_wait_unmapped();
	assert_false(atomic_load(&vdpa_vf_find(&(struct vfe_bdf){0, 0xaf, 4, 0})->running));
}

static void
disconnect_in_each_step_of_a_start(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);
	unsigned int n;

	for (n = 0; n < 5; n++) {
		disconnect_in_step(g, n);
		assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
		fake_vf_add(0, NULL); /* reset again: the next start has all its steps */
	}
}

static void
new_front_end_waits_until_the_old_one_is_gone(void **state)
{
	struct fake_guest *g = *state;
	struct fake_guest next;

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_disconnect(g);
	fake_expect(0, FAKE_QUIESCE);
	/* other memory at the same guest addresses; the vhost thread does not wait */
	fake_guest_open(&next, 0);
	prepare(&next);
	fake_guest_driver_ok(&next);
	fake_guest_set_used(&next, 0, 99);
	fake_answer(0);
	FAKE_SERVE(0, FAKE_FREEZE, FAKE_RESTORE);
	FAKE_SERVE(0, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 99);
	assert_int_equal(world.mapped, 1);
	world.automatic = true;
	fake_guest_disconnect(&next);
	fake_wait_state(0, "parked");
	fake_guest_close(&next);
}

static void
park_that_fails_ends_in_a_reset_and_unmaps(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	world.automatic = false;
	fake_guest_disconnect(g);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	fake_expect(0, FAKE_RESTORE);
	fake_answer(-EIO);
	fake_wait_unmapped();
	fake_wait_state(0, "parked");
	assert_int_equal(world.vf[0].resets, 2);
}

static void
disconnected_lost_vf_gives_its_memory_back(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(world.mapped, 1);
	fake_guest_disconnect(g);
	fake_wait_unmapped();
	assert_string_equal(fake_info(0)->state, "lost");
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
}

static void
removal_cuts_off_a_vf_that_does_not_park(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), -EBUSY);
	assert_int_equal(verr.code, VFE_VDPA_VF_ATTACH_VDPA);
	fake_guest_disconnect(g);
	fake_wait_state(0, "parked");
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), -ENODEV);
	assert_int_equal(verr.code, VFE_VDPA_NO_VF_DEVICE);
}

/* --- several VFs of one VM --- */

/* VFs 1 and 2 of one guest: the same file is its memory. */
static void
start_vm(struct fake_guest *one, struct fake_guest *other)
{
	fake_vf_add(1, UUID);
	fake_vf_add(2, UUID);
	fake_guest_open(one, 1);
	fake_guest_start(one);
	*other = *one;
	other->vf = 2;
	other->vid = 2;
	fake_guest_start(other);
}

static void
vfs_of_a_vm_share_memory_and_two_vms_do_not(void **state)
{
	struct fake_guest *g = *state;
	struct fake_guest b, c;

	start_vm(&b, &c);
	assert_int_equal(world.mapped, 1);
	fake_guest_disconnect(&b);
	fake_wait_state(1, "parked");
	assert_int_equal(world.mapped, 1);

	/* another VM with that UUID, while the first one lives */
	g->vf = 1;
	g->vid = 1;
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_guest_mem(g), -1);
	assert_non_null(strstr(fake_info(1)->last_error, UUID));
	fake_guest_disconnect(g);
	fake_guest_disconnect(&c);
	fake_wait_state(2, "parked");
	g->vf = 0;
	g->vid = 0;
	fake_guest_close(&b);
}

static void
restarted_vm_waits_for_the_memory_of_its_other_vf(void **state)
{
	struct fake_guest *g = *state;
	struct fake_guest b, c;

	start_vm(&b, &c);
	/* QEMU ends; VF 1 parks, VF 2 takes its time */
	fake_guest_disconnect(&b);
	fake_wait_state(1, "parked");
	world.automatic = false;
	fake_guest_disconnect(&c);
	fake_expect(2, FAKE_QUIESCE);
	/* QEMU is there again, with other memory */
	g->vf = 1;
	g->vid = 1;
	prepare(g);
	fake_guest_driver_ok(g);
	world.automatic = true;
	fake_answer(0);
	fake_wait_state(2, "parked");
	fake_wait_state(1, "running");
	fake_guest_disconnect(g);
	fake_wait_state(1, "parked");
	g->vf = 0;
	g->vid = 0;
	fake_guest_close(&b);
}

/* --- migration --- */

static void
set_logged(struct fake_guest *g, bool on)
{
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_CSUM) |
					 (on ? VFE_BIT(VFE_VHOST_F_LOG_ALL) : 0)),
		0);
}

/* VF @i with the memory of @g, running. */
static void
start_sibling(const struct fake_guest *g, struct fake_guest *sibling, unsigned int i)
{
	*sibling = *g;
	sibling->vf = i;
	sibling->vid = (int)i;
	fake_guest_start(sibling);
}

/* Stop the VFs of a VM as its front-end does, one ring after the other. */
static void
stop_vf(struct fake_guest *g)
{
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	assert_int_equal(fake_get_base(g->vid, 1), 0);
}

static void
vfs_of_a_migrating_vm_suspend_together(void **state)
{
	struct fake_guest *g = *state, other, c[3];
	unsigned int i;

	for (i = 1; i < 4; i++)
		fake_vf_add(i, i == 3 ? NULL : UUID);
	/* a VM of its own; a UUID makes no difference */
	fake_guest_open(&other, 3);
	fake_guest_start(&other);
	set_logged(&other, true);
	fake_guest_start(g);
	set_logged(g, true);
	for (i = 1; i < 3; i++) {
		start_sibling(g, &c[i], i);
		set_logged(&c[i], true);
	}
	assert_string_equal(fake_info(2)->migration, "logging");
	stop_vf(g);
	fake_wait_state(1, "suspended");
	fake_wait_state(2, "suspended");
	assert_string_equal(fake_info(3)->state, "running");
	assert_string_equal(fake_info(2)->migration, "stopped");
	/* nothing is left to do when their messages come */
	world.automatic = false;
	fake_guest_set_used(&c[1], 1, 4);
	assert_int_equal(fake_get_base(1, 0), 0);
	assert_int_equal(fake_get_base(1, 1), 4);
	assert_int_equal(fake_get_base(2, 1), 4); /* they have the rings in common, here */
	assert_int_equal(fake_get_base(2, 0), 0);
	fake_expect_nothing();
	for (i = 0; i < 3; i++) {
		assert_true(fake_info(i)->last_suspend.ok);
		assert_int_equal(fake_info(i)->last_suspend.commands, 2);
	}
	world.automatic = true;
	fake_guest_disconnect(&c[1]);
	fake_guest_disconnect(&c[2]);
	fake_guest_disconnect(&other);
	fake_wait_state(3, "parked");
	fake_guest_close(&other);
}

static void
driver_reset_in_a_migration_is_over_for_the_others_soon(void **state)
{
	struct fake_guest *g = *state, c;

	fake_vf_add(1, NULL);
	fake_guest_start(g);
	start_sibling(g, &c, 1);
	set_logged(g, true);
	set_logged(&c, true);
	assert_int_equal(fake_get_base(g->vid, 0), 0);
	fake_wait_state(1, "suspended");
	vdpa_globals.ms.sibling = 20; /* from the last message on */
	assert_int_equal(fake_get_base(g->vid, 1), 0);
	fake_wait_state(1, "running");
	assert_int_equal(world.vf[1].restores, 2);
	assert_string_equal(fake_info(0)->state, "suspended");
	fake_guest_disconnect(&c);
}

static void
messages_of_the_others_make_a_vf_wait_longer(void **state)
{
	struct fake_guest *g = *state, c, d;
	struct vdpa_vf *vf = vdpa_vf_find(&(struct vfe_bdf){0, 0xaf, 4, 2});
	uint64_t until;

	assert_null(vf);
	fake_vf_add(1, NULL);
	fake_vf_add(2, NULL);
	vf = vdpa_vf_find(&(struct vfe_bdf){0, 0xaf, 4, 2});
	fake_guest_start(g);
	start_sibling(g, &c, 1);
	start_sibling(g, &d, 2);
	set_logged(g, true);
	set_logged(&c, true);
	set_logged(&d, true);
	stop_vf(g);
	fake_wait_state(2, "suspended");
	pthread_mutex_lock(&vf->lock);
	until = vf->suspend_until.at_ns;
	pthread_mutex_unlock(&vf->lock);
	stop_vf(&c);
	pthread_mutex_lock(&vf->lock);
	assert_true(vf->suspend_until.at_ns > until);
	pthread_mutex_unlock(&vf->lock);
	fake_guest_disconnect(&c);
	fake_guest_disconnect(&d);
}

static void
without_migration_a_stopped_vf_disturbs_no_other(void **state)
{
	struct fake_guest *g = *state, c;

	fake_vf_add(1, UUID);
	fake_guest_start(g);
	start_sibling(g, &c, 1);
	set_logged(&c, true); /* one of two is not enough */
	stop_vf(g);
	fake_flush();
	assert_string_equal(fake_info(1)->state, "running");
	set_logged(&c, false);
	fake_guest_ring(g, 0);
	fake_wait_state(0, "running");
	set_logged(g, true);
	assert_int_equal(fake_get_base(0, 0), 0);
	fake_flush();
	assert_string_equal(fake_info(1)->state, "running");
	fake_guest_disconnect(&c);
}

static void
rings_disabled_in_a_migration_make_no_restart(void **state)
{
	struct fake_guest *g = *state, c;

	fake_vf_add(1, NULL);
	fake_guest_start(g);
	start_sibling(g, &c, 1);
	set_logged(g, true);
	set_logged(&c, true);
	fake_guest_enable(g, 0, false);
	fake_wait_state(0, "suspended");
	fake_wait_state(1, "suspended");
	world.automatic = false;
	fake_guest_enable(g, 1, false);
	stop_vf(g);
	fake_guest_enable(&c, 0, false);
	fake_guest_enable(&c, 1, false);
	stop_vf(&c);
	fake_expect_nothing();
	assert_int_equal(fake_info(0)->last_suspend.commands, 2);
	world.automatic = true;
	fake_guest_disconnect(&c);
}

/* When the wait for the device behind @c ends. */
static uint64_t
waits_until(const struct fake_guest *c)
{
	struct vdpa_vf *vf = vdpa_vf_find(&(struct vfe_bdf){0, 0xaf, FAKE_VF_DEV, (uint8_t)c->vf});
	uint64_t until;

	pthread_mutex_lock(&vf->lock);
	assert_true(vf->suspend);
	until = vf->suspend_deadline.at_ns;
	pthread_mutex_unlock(&vf->lock);
	return until;
}

static void
devices_that_do_not_stop_are_waited_for_together(void **state)
{
	struct fake_guest *g = *state, c[3];
	uint64_t until[3], answered;
	unsigned int i;

	fake_guest_start(g);
	set_logged(g, true);
	for (i = 0; i < 3; i++) {
		fake_vf_add(i + 1, NULL);
		start_sibling(g, &c[i], i + 1);
		set_logged(&c[i], true);
	}
	world.automatic = false;
	vdpa_globals.ms.suspend = 300;
	assert_int_equal(fake_get_base(0, 0), 0);
	answered = vfe_clock_ns();
	/* the time of all of them is over with that of the first one, and none begins anew */
	for (i = 0; i < 3; i++) {
		until[i] = waits_until(&c[i]);
		assert_true(until[i] <= answered);
	}
	for (i = 0; i < 3; i++) {
		assert_int_equal(fake_get_base(c[i].vid, 0), 0);
		assert_int_equal(waits_until(&c[i]), until[i]);
	}
	lose_pf();
	for (i = 0; i < 4; i++) {
		fake_wait_state(i, "lost");
		assert_false(fake_info(i)->last_suspend.ok);
	}
	for (i = 0; i < 3; i++)
		fake_guest_disconnect(&c[i]);
}

static void
guest_that_arrives_is_restored_once(void **state)
{
	struct fake_guest *g = *state;
	unsigned int q;

	world.automatic = false;
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	/* the order of QEMU, for each pair of rings; the status comes with the last one */
	for (q = 0; q < FAKE_QUEUES; q++) {
		if (q % 2 == 0) {
			fake_guest_enable(g, q, true);
			fake_guest_enable(g, q + 1, true);
			set_logged(g, false);
			assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 8), 0);
		}
		if (q == 0)
			assert_int_equal(fake_guest_mem(g), 0);
		fake_guest_ring(g, q);
	}
	fake_expect_nothing();
	fake_guest_driver_ok(g);
	fake_expect(0, FAKE_RESTORE);
	for (q = 0; q < FAKE_QUEUES; q++)
		assert_true(world.vf[0].state.queues[q].enable);
	fake_answer(0);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	fake_expect_nothing();
	assert_true(fake_info(0)->last_resume.ok);
	assert_int_equal(fake_info(0)->last_resume.commands, 3);
	assert_true(fake_info(0)->last_resume.total_ns >=
		    fake_info(0)->last_resume.phase_ns[VFE_VDPA_PHASE_RESTORE]);
	assert_true(fake_info(0)->last_resume.phase_ns[VFE_VDPA_PHASE_PREPARE] > 0);
	assert_int_equal(fake_info(0)->last_resume.phase_ns[VFE_VDPA_PHASE_QUIESCE], 0);
}

static void
failed_start_is_told_in_its_times(void **state)
{
	struct fake_guest *g = *state;

	vdpa_globals.ms.retry = 60000;
	world.automatic = false;
	prepare(g);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	fake_guest_driver_ok(g);
	fake_expect(0, FAKE_RESTORE);
	fake_answer(-EIO);
	fake_wait_state(0, "parked");
	assert_true(fake_info(0)->last_resume.begin_unix_us != 0);
	assert_false(fake_info(0)->last_resume.ok);
	assert_true(fake_info(0)->last_resume.phase_ns[VFE_VDPA_PHASE_RESET] > 0);
	assert_string_equal(fake_info(0)->last_error, "the test says no");
	/* the guest tries again: so do we, at once */
	fake_guest_driver_ok(g);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE, FAKE_RESTORE, FAKE_QUIESCE, FAKE_RUN);
	fake_wait_state(0, "running");
	assert_int_equal(fake_info(0)->last_resume.commands, 5);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(start_waits_for_driver_ok_and_tells_the_device_all),
		T(front_end_without_status_starts_with_its_first_ring),
		T(rings_are_enabled_without_protocol_features),
		T(legacy_guest_does_not_start),
		T(changes_in_transit_make_one_restart),
		T(change_while_the_blob_travels_is_not_lost),
		T(repeating_what_is_known_changes_nothing),
		T(first_ring_suspends_and_all_answer_with_the_used_index),
		T(rings_that_are_not_stopped_go_on),
		T(ring_that_never_ran_stands_where_it_was_put),
		T(device_that_does_not_stop_is_lost_and_the_answer_comes),
		T(disabling_all_rings_suspends),
		T(status_0_suspends),
		T(failed_step_resets_and_starts_again),
		T(suspend_that_is_refused_ends_in_a_reset),
		T(device_that_cannot_even_be_reset_is_lost),
		T(late_completion_is_ignored),
		T(unmapped_ring_is_an_error_that_names_it),
		T(running_vf_outlives_its_pf),
		T(without_pf_a_vf_is_stopped_by_its_registers),
		T(pf_lost_in_each_step_of_a_start),
		T(lost_vf_comes_back_and_goes_on),
		T(lost_vf_answers_get_vring_base_at_once),
		T(vf_that_comes_back_different_stays_lost),
		T(vf_without_a_driver_is_not_back_yet),
		T(vf_waits_for_its_pf_to_come_back),
		T(disconnect_parks_before_memory_goes),
		T(disconnect_in_each_step_of_a_start),
		T(new_front_end_waits_until_the_old_one_is_gone),
		T(park_that_fails_ends_in_a_reset_and_unmaps),
		T(disconnected_lost_vf_gives_its_memory_back),
		T(removal_cuts_off_a_vf_that_does_not_park),
		T(vfs_of_a_vm_share_memory_and_two_vms_do_not),
		T(restarted_vm_waits_for_the_memory_of_its_other_vf),
		T(vfs_of_a_migrating_vm_suspend_together),
		T(driver_reset_in_a_migration_is_over_for_the_others_soon),
		T(messages_of_the_others_make_a_vf_wait_longer),
		T(without_migration_a_stopped_vf_disturbs_no_other),
		T(rings_disabled_in_a_migration_make_no_restart),
		T(devices_that_do_not_stop_are_waited_for_together),
		T(guest_that_arrives_is_restored_once),
		T(failed_start_is_told_in_its_times),
	};

	return cmocka_run_group_tests_name("vdpa_machine", tests, NULL, NULL);
}
