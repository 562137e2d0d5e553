/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Test operations of operators: what they may do, and that they leave nothing behind that the
 * state machine or a migration stumbles over.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum {
	PAGE = 4096,
	RUNNING = 1,
	QUIESCED = 2,
	FREEZE = 3,
	START = 4,
	STOP = 5,
	STATUS = 6,
	BITMAP = 1,
	BYTEMAP = 2,
	RX_BUFFER = 0x80000, /* in the guest's memory */
};

static struct vfe_vdpa_error verr;

static int
setup(void **state)
{
	fake_start();
	world.caps.dirty_push_bitmap = true;
	world.caps.dirty_push_bytemap = true;
	world.caps.max_track_ranges = 4;
	return fake_setup_started(state);
}

static int
debug(unsigned int operation, unsigned int mode, unsigned int *value)
{
	struct vfe_bdf bdf = fake_vf(0);

	return vfe_vdpa_vf_debug(&bdf, operation, mode, value, &verr);
}

/* The device gives a received packet back on ring 0. */
static void
receive(struct fake_guest *g, uint16_t idx)
{
	struct vfe_wire_vring_desc desc = {
		.addr = htole64(FAKE_MEM_GPA + RX_BUFFER),
		.len = htole32(2048),
		.flags = htole16(VFE_VRING_DESC_F_WRITE),
	};

	memcpy(g->mem + 7 * sizeof(desc), &desc, sizeof(desc));
	fake_guest_complete(g, 0, (uint16_t)(idx - 1), 7);
}

static void
mark(uint64_t offset)
{
	assert_true(fake_device_writes(0, FAKE_MEM_GPA + offset));
}

static void
status_of_a_parked_vf_can_be_changed_and_it_starts_all_the_same(void **state)
{
	struct fake_guest *g = *state;
	unsigned int op;

	for (op = RUNNING; op <= FREEZE; op++) {
		assert_int_equal(debug(op, BITMAP, NULL), 0);
		assert_string_equal(fake_info(0)->state, "parked");
		fake_guest_start(g);
		fake_guest_disconnect(g);
		fake_wait_state(0, "parked");
	}
	/* the way of a device whose status nobody knows */
	assert_int_equal(debug(RUNNING, BITMAP, NULL), 0);
	world.automatic = false;
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	FAKE_SERVE(0, FAKE_QUIESCE, FAKE_FREEZE);
	fake_expect_nothing();
	world.automatic = true;
}

static void
status_of_a_vf_in_use_is_left_alone(void **state)
{
	struct fake_guest *g = *state;
	unsigned int op;

	fake_guest_start(g);
	world.automatic = false;
	for (op = RUNNING; op <= FREEZE; op++) {
		assert_int_equal(debug(op, BITMAP, NULL), -EBUSY);
		assert_non_null(strstr(verr.err.text, "in use"));
	}
	fake_expect_nothing();
	assert_string_equal(fake_info(0)->state, "running");
	world.automatic = true;
	assert_int_equal(debug(STATUS, BITMAP, NULL), 0);
}

static void
refused_status_leaves_the_vf_usable(void **state)
{
	struct fake_guest *g = *state;

	world.fail_kind[FAKE_FREEZE] = -EIO;
	assert_int_equal(debug(FREEZE, BITMAP, NULL), -EIO);
	assert_int_equal(verr.code, VFE_VDPA_VF_FREEZE);
	world.fail_kind[FAKE_FREEZE] = 0;
	fake_guest_start(g);
}

static void
unknown_operations_and_vfs_are_errors(void **state)
{
	struct vfe_bdf none = fake_vf(3);

	(void)state;
	assert_int_equal(debug(0, BITMAP, NULL), -EINVAL);
	assert_int_equal(debug(7, BITMAP, NULL), -EINVAL);
	assert_int_equal(vfe_vdpa_vf_debug(&none, RUNNING, BITMAP, NULL, &verr), -ENODEV);
}

static void
tracking_finds_what_was_written(void **state)
{
	struct fake_guest *g = *state;
	unsigned int mode, pages;

	fake_guest_start(g);
	for (mode = BITMAP; mode <= BYTEMAP; mode++) {
		fake_guest_set_used(g, 0, 0);
		assert_int_equal(debug(START, mode, NULL), 0);
		assert_int_equal(fake_track_mode(0), mode == BITMAP ? VFE_ADMIN_TRACK_PUSH_BITMAP
								    : VFE_ADMIN_TRACK_PUSH_BYTEMAP);
		receive(g, 1);
		mark(FAKE_RING_USED);
		mark(RX_BUFFER);
		mark(FAKE_MEM_SIZE - 1);
		assert_int_equal(debug(STOP, mode, &pages), 0);
		assert_int_equal(pages, 3);
		assert_false(fake_device_tracks(0));
	}
	assert_string_equal(fake_info(0)->state, "running");
}

static void
what_is_not_marked_is_told(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	receive(g, 1);
	mark(RX_BUFFER);
	assert_int_equal(debug(STOP, BITMAP, NULL), -EILSEQ);
	assert_non_null(strstr(verr.err.text, "queue 0: the used ring"));

	assert_int_equal(debug(START, BITMAP, NULL), 0);
	receive(g, 2);
	mark(FAKE_RING_USED);
	assert_int_equal(debug(STOP, BITMAP, NULL), -EILSEQ);
	assert_non_null(strstr(verr.err.text, "last used descriptor"));

	/* a transmit ring gives back what only the guest has written */
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	fake_guest_set_used(g, 1, 1);
	mark(FAKE_RING_STRIDE + FAKE_RING_USED);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);

	/* nothing came */
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);
}

static void
rings_full_of_nonsense_are_looked_at_with_care(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	memset(g->mem, 0xff, FAKE_MEM_SIZE);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	fake_guest_set_used(g, 0, 0x7fff);
	fake_guest_set_used(g, 1, 0x1234);
	mark(FAKE_RING_USED);
	mark(FAKE_RING_STRIDE + FAKE_RING_USED);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);
}

static void
tracking_needs_a_guest_and_is_begun_once(void **state)
{
	struct fake_guest *g = *state;

	assert_int_equal(debug(START, BITMAP, NULL), -ENODATA);
	assert_int_equal(debug(STOP, BITMAP, NULL), -ENODATA);
	fake_guest_start(g);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	assert_int_equal(debug(START, BITMAP, NULL), -EALREADY);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);
	assert_int_equal(debug(STOP, BITMAP, NULL), -ENODATA);
}

static void
guest_that_is_migrated_is_not_tracked_by_hand(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES,
				 VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_CSUM) |
					 VFE_BIT(VFE_VHOST_F_LOG_ALL)),
		0);
	assert_int_equal(debug(START, BITMAP, NULL), -EBUSY);
}

static void
device_that_refuses_to_track_is_told(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	world.fail_kind[FAKE_TRACK_START] = -EIO;
	assert_int_equal(debug(START, BITMAP, NULL), -EIO);
	world.fail_kind[FAKE_TRACK_START] = -ETIMEDOUT;
	assert_int_equal(debug(START, BITMAP, NULL), -ETIMEDOUT);
	world.fail_kind[FAKE_TRACK_START] = 0;
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	world.fail_kind[FAKE_TRACK_STOP] = -EIO;
	assert_int_equal(debug(STOP, BITMAP, NULL), -EIO);
	assert_int_equal(debug(STOP, BITMAP, NULL), -ENODATA);
	world.fail_kind[FAKE_TRACK_STOP] = 0;
}

static void
modes_that_the_device_does_not_have_are_refused(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;

	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_int_equal(vfe_vdpa_pf_remove(&fake_pf, &verr), 0);
	world.caps.dirty_push_bytemap = false;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	fake_guest_start(g);
	assert_int_equal(debug(START, BYTEMAP, NULL), -ENOTSUP);
	assert_non_null(strstr(verr.err.text, "bytemap"));
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);
}

static void
removal_ends_what_was_begun(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	fake_guest_disconnect(g);
	fake_wait_state(0, "parked");
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_false(fake_device_tracks(0));
}

static void
pf_that_was_reset_has_forgotten_it(void **state)
{
	struct vfe_vdpa_pf_info pf = {0};
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	fake_hang_up(&fake_pf);
	while (vfe_vdpa_pf_list(&pf, 1) == 1 && !pf.lost)
		fake_flush();
	assert_int_equal(debug(STATUS, BITMAP, NULL), -ENODEV);
	fake_track_reset();
	assert_int_equal(vfe_vdpa_reattach(&fake_pf, &verr), 0);
	assert_int_equal(debug(STOP, BITMAP, NULL), -ENODATA);
	assert_int_equal(debug(START, BITMAP, NULL), 0);
	assert_int_equal(debug(STOP, BITMAP, NULL), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(status_of_a_parked_vf_can_be_changed_and_it_starts_all_the_same),
		T(status_of_a_vf_in_use_is_left_alone),
		T(refused_status_leaves_the_vf_usable),
		T(unknown_operations_and_vfs_are_errors),
		T(tracking_finds_what_was_written),
		T(what_is_not_marked_is_told),
		T(rings_full_of_nonsense_are_looked_at_with_care),
		T(tracking_needs_a_guest_and_is_begun_once),
		T(guest_that_is_migrated_is_not_tracked_by_hand),
		T(device_that_refuses_to_track_is_told),
		T(modes_that_the_device_does_not_have_are_refused),
		T(removal_ends_what_was_begun),
		T(pf_that_was_reset_has_forgotten_it),
	};

	return cmocka_run_group_tests_name("vdpa_debug", tests, NULL, NULL);
}
