/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The configuration of a VF that nobody uses: read when somebody asks.
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

static void
set_link(bool up)
{
	pthread_mutex_lock(&world.lock);
	world.link_status = up ? VFE_NET_S_LINK_UP : 0;
	pthread_mutex_unlock(&world.lock);
}

/* Until on_refreshed() has been called @n times in all. */
static void
wait_refreshes(unsigned int n)
{
	pthread_mutex_lock(&world.lock);
	while (world.refreshes < n)
		pthread_cond_wait(&world.cond, &world.lock);
	pthread_mutex_unlock(&world.lock);
}

static void
parked_vf_is_read_when_somebody_asks(void **state)
{
	struct vfe_bdf bdf = fake_vf(0), none = fake_vf(FAKE_VFS - 1);

	(void)state;
	assert_true(fake_info(0)->link_up);
	set_link(false);
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 0);
	wait_refreshes(1);
	assert_false(fake_info(0)->refreshing);
	assert_false(fake_info(0)->link_up);
	assert_string_equal(fake_info(0)->state, "parked");
	assert_int_equal(vfe_vdpa_vf_refresh(&none), -ENODEV);
}

static void
vf_that_cannot_be_read_keeps_what_is_known_and_starts(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	set_link(false);
	fake_stage(FAKE_STAGE_CONFIG, 0, -EIO);
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 0);
	wait_refreshes(1);
	assert_true(fake_info(0)->link_up);
	assert_string_equal(fake_info(0)->last_error, "");
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	fake_guest_start(g);
}

static void
vf_with_a_guest_is_not_read_for_who_asks(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);

	fake_guest_start(g);
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 1);
	fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0);
	fake_wait_state(0, "suspended");
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 1);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 1);
	assert_int_equal(world.refreshes, 0);
}

static void
frozen_vf_is_read_when_its_guest_has_gone(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_bdf bdf = fake_vf(0);
	unsigned int restores;

	fake_guest_start(g);
	fake_guest_disconnect(g);
	fake_wait_state(0, "parked");
	fake_wait_unmapped();
	fake_flush();
	restores = world.vf[0].restores;
	set_link(false);
	world.automatic = false;
	assert_int_equal(vfe_vdpa_vf_refresh(&bdf), 0);
	wait_refreshes(1);
	fake_expect_nothing();
	assert_false(fake_info(0)->link_up);
	assert_int_equal(world.vf[0].restores, restores);
	world.automatic = true;
}

static void
who_asks_hears_of_a_vf_that_is_lost_meanwhile(void **state)
{
	struct vfe_bdf bdf = fake_vf(0);
	int ret;

	(void)state;
	fake_hang_up(&bdf);
	ret = vfe_vdpa_vf_refresh(&bdf);
	if (ret == 0)
		wait_refreshes(1);
	fake_wait_state(0, "lost");
	assert_false(fake_info(0)->refreshing);
}

#define T(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(parked_vf_is_read_when_somebody_asks),
		T(vf_that_cannot_be_read_keeps_what_is_known_and_starts),
		T(vf_with_a_guest_is_not_read_for_who_asks),
		T(frozen_vf_is_read_when_its_guest_has_gone),
		T(who_asks_hears_of_a_vf_that_is_lost_meanwhile),
	};

	return cmocka_run_group_tests_name("vdpa_refresh", tests, NULL, NULL);
}
