/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Adding and removing PFs and VFs: each stage failing, with its error number and nothing left.
 */

#undef NDEBUG

#include <errno.h>
#include <fcntl.h>
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
	(void)state;
	fake_start();
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fake_stop();
	return 0;
}

struct stage {
	enum fake_stage stage;
	unsigned int passes; /* that succeed before */
	int neg_errno;
	enum vfe_vdpa_code code;
};

static void
each_stage_of_a_pf_fails_with_its_number(void **state)
{
	static const struct stage stages[] = {
		{FAKE_STAGE_FIND, 0, -ENOENT, VFE_VDPA_NO_PF_DEVICE},
		{FAKE_STAGE_OPEN, 0, -ECONNREFUSED, VFE_VDPA_VFIO_DEV_FD},
		{FAKE_STAGE_INIT, 0, -EPROTO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_DEVICE_ID, 0, 0, VFE_VDPA_PF_DEVICE_ID},
		{FAKE_STAGE_SRIOV, 0, -EIO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_RESET, 0, -ETIMEDOUT, VFE_VDPA_RESET_TIMEOUT},
		{FAKE_STAGE_RESET, 0, -EIO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_STATUS, 0, -EIO, VFE_VDPA_PF_FEATURES},
		{FAKE_STAGE_FEATURES, 0, -ENOTSUP, VFE_VDPA_PF_FEATURES},
		{FAKE_STAGE_ARENA, 0, -ENOMEM, VFE_VDPA_PF_ADMIN_QUEUE},
		{FAKE_STAGE_MASTER, 0, -EIO, VFE_VDPA_PF_ADMIN_QUEUE},
		{FAKE_STAGE_ADMIN, 0, -EIO, VFE_VDPA_PF_ADMIN_QUEUE},
		{FAKE_STAGE_STATUS, 1, -EIO, VFE_VDPA_PF_ADMIN_QUEUE},
		{FAKE_STAGE_IDENTIFY, 0, -EPROTO, VFE_VDPA_PF_ADMIN_QUEUE},
	};
	unsigned int i, before = fake_nr_fds();

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(stages); i++) {
		fake_stage(stages[i].stage, stages[i].passes, stages[i].neg_errno);
		assert_true(vfe_vdpa_pf_add(&fake_pf, &verr) < 0);
		if (verr.code != stages[i].code)
			fail_msg("stage %u: %d, expected %d", i, verr.code, stages[i].code);
		assert_non_null(strstr(verr.err.text, "0000:af:00.2"));
		assert_int_equal(world.open_devices, 0);
		assert_int_equal(world.domains, 0);
		assert_int_equal(world.arenas, 0);
		assert_int_equal(vfe_vdpa_pf_list(NULL, 0), 0);
		assert_int_equal(fake_nr_fds(), before);
	}
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
}

static void
each_stage_of_a_vf_fails_with_its_number(void **state)
{
	static const struct stage stages[] = {
		{FAKE_STAGE_PROBE, 0, -EIO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_FIND, 0, -ENOENT, VFE_VDPA_NO_VF_DEVICE},
		{FAKE_STAGE_OPEN, 0, -EBUSY, VFE_VDPA_VFIO_DEV_FD},
		{FAKE_STAGE_INIT, 0, -ENODEV, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_DEVICE_ID, 0, 0, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_RESET, 0, -ETIMEDOUT, VFE_VDPA_RESET_TIMEOUT},
		{FAKE_STAGE_STATUS, 0, -EIO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_CONFIG, 0, -EAGAIN, VFE_VDPA_VF_BAR_COPY},
		{FAKE_STAGE_VECTORS, 0, 0, VFE_VDPA_VF_NO_VECTOR},
		{FAKE_STAGE_QUEUE, 2, -EIO, VFE_VDPA_VF_QUEUES},
		{FAKE_STAGE_DOORBELL, 1, -EPROTO, VFE_VDPA_VF_QUEUES},
		{FAKE_STAGE_MASTER, 0, -EIO, VFE_VDPA_PROBE_FAIL},
		{FAKE_STAGE_IRQ, 0, -EIO, VFE_VDPA_VF_IRQ_ENABLE},
		{FAKE_STAGE_REGISTER, 0, 0, VFE_VDPA_VF_REGISTER},
	};
	struct vfe_bdf bdf = fake_vf(1);
	unsigned int i, before;

	(void)state;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	before = fake_nr_fds();
	for (i = 0; i < VFE_ARRAY_SIZE(stages); i++) {
		fake_stage(stages[i].stage, stages[i].passes, stages[i].neg_errno);
		assert_true(vfe_vdpa_vf_add(&bdf, NULL, &verr) < 0);
		if (verr.code != stages[i].code)
			fail_msg("stage %u: %d, expected %d", i, verr.code, stages[i].code);
		assert_non_null(strstr(verr.err.text, "0000:af:04.1"));
		assert_int_equal(world.open_devices, 1);
		assert_int_equal(world.domains, 1);
		assert_int_equal(world.registered, 0);
		assert_int_equal(fake_nr_fds(), before);
		assert_null(vfe_vdpa_vf_device(&bdf));
	}
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	assert_non_null(vfe_vdpa_vf_device(&bdf));
}

static void
vf_of_the_kernel_is_probed_by_the_pci_bus(void **state)
{
	struct vfe_bdf bdf = fake_vf(2), stranger = {0, 0xb0, 5, 0};
	struct vfe_vdpa_vf_info info;

	(void)state;
	world.kernel = true;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_info(&bdf, &info), 0);
	assert_int_equal(info.vf_index, 2);
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_int_equal(world.open_devices, 1);

	/* the kernel says that it is no VF, whatever its address looks like */
	assert_int_equal(vfe_vdpa_vf_add(&stranger, NULL, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_info(&stranger, &info), 0);
	assert_string_equal(info.drive, "plain");
	assert_int_equal(vfe_vdpa_vf_remove(&stranger, &verr), 0);

	world.no_driver = true;
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), -ENODEV);
	assert_int_equal(verr.code, VFE_VDPA_VFIO_DEV_FD);
	assert_string_equal(verr.err.text, "0000:af:04.2: is bound to no driver");
	world.no_driver = false;

	fake_stage(FAKE_STAGE_OPEN, 0, -EBUSY);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), -EBUSY);
	assert_int_equal(verr.code, VFE_VDPA_VFIO_DEV_FD);
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
}

static void
vfs_are_created_with_the_pf_or_not_at_all(void **state)
{
	(void)state;
	fake_stage(FAKE_STAGE_OPEN, 0, -EBUSY);
	assert_int_equal(vfe_vdpa_pf_add_vfs(&fake_pf, 2, &verr), -EBUSY);
	assert_int_equal(verr.code, VFE_VDPA_VFIO_DEV_FD);
	assert_int_equal(world.created_vfs, 0);
	/* those that were there stay */
	world.created_vfs = 2;
	assert_int_equal(vfe_vdpa_pf_add_vfs(&fake_pf, 2, &verr), -EBUSY);
	assert_int_equal(world.created_vfs, 2);
	fake_stage(FAKE_STAGE_NONE, 0, 0);
	assert_int_equal(vfe_vdpa_pf_add_vfs(&fake_pf, FAKE_VFS + 1, &verr), -ERANGE);
	assert_int_equal(verr.code, VFE_VDPA_EXCEED_LIMIT);
	world.created_vfs = 0;
	assert_int_equal(vfe_vdpa_pf_add_vfs(&fake_pf, 2, &verr), 0);
	assert_int_equal(world.created_vfs, 2);
}

static void
vf_needs_a_pf_and_a_pf_outlives_its_vfs(void **state)
{
	struct vfe_bdf bdf = fake_vf(0), stranger = {0, 0xb0, 4, 0}, found[2];
	struct vfe_vdpa_pf_info info;

	(void)state;
	assert_true(vfe_vdpa_vf_add(&bdf, NULL, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_NO_PF_DEVICE);
	assert_true(vfe_vdpa_pf_remove(&fake_pf, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_NO_PF_DEVICE);
	assert_int_equal(vfe_vdpa_vf_list(&fake_pf, found, 2), -ENODEV);
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	assert_true(vfe_vdpa_pf_add(&fake_pf, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_PF_ALREADY_ADDED);
	assert_int_equal(vfe_vdpa_vf_list(&fake_pf, found, 2), 0);
	assert_true(vfe_vdpa_vf_add(&stranger, NULL, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_VF_NO_VFID);

	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	assert_true(vfe_vdpa_vf_add(&bdf, NULL, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_VF_ALREADY_ADDED);
	assert_int_equal(vfe_vdpa_vf_list(&fake_pf, found, 0), 1);
	assert_int_equal(vfe_vdpa_vf_list(&fake_pf, found, 2), 1);
	assert_true(vfe_bdf_equal(&found[0], &bdf));
	assert_int_equal(vfe_vdpa_pf_list(&info, 1), 1);
	assert_int_equal(info.nr_vfs, 1);
	assert_true(vfe_vdpa_pf_remove(&fake_pf, &verr) < 0);
	assert_int_equal(verr.code, VFE_VDPA_PF_HAS_VFS);
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_int_equal(vfe_vdpa_pf_remove(&fake_pf, &verr), 0);
}

static void
uuids_are_checked(void **state)
{
	static const char *const bad[] = {"x", "01234567-89ab-cdef-0123-456789abcde",
		"01234567-89ab-cdef-0123-456789abcdef0", "01234567-89ab-cdef-0123-456789abcdeg",
		"0123456789abcdef0123456789abcdef0000", "01234567+89ab-cdef-0123-456789abcdef"};
	struct vfe_bdf bdf = fake_vf(0);
	unsigned int i;

	(void)state;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		assert_true(vfe_vdpa_vf_add(&bdf, bad[i], &verr) < 0);
		assert_int_equal(verr.code, VFE_VDPA_DEVARGS_PARSE);
	}
	assert_int_equal(vfe_vdpa_vf_add(&bdf, "00000000-0000-0000-0000-000000000000", &verr), 0);
	assert_string_equal(fake_info(0)->uuid, "");
	assert_int_equal(vfe_vdpa_vf_remove(&bdf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, "01234567-89ab-cdef-0123-456789abcdef", &verr), 0);
	assert_string_equal(fake_info(0)->uuid, "01234567-89ab-cdef-0123-456789abcdef");
}

static void
information_is_what_the_device_says(void **state)
{
	struct vfe_bdf bdf = fake_vf(2), none = fake_vf(3);
	struct vfe_vdpa_vf_info info;

	(void)state;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_info(&none, &info), -ENODEV);
	assert_int_equal(vfe_vdpa_vf_info(&bdf, &info), 0);
	assert_true(vfe_bdf_equal(&info.pf, &fake_pf));
	assert_int_equal(info.vf_index, 2);
	assert_int_equal(info.device_id, 0x1041);
	assert_string_equal(info.transport, "fake");
	assert_string_equal(info.state, "parked");
	assert_int_equal(info.queue_num, FAKE_QUEUES);
	assert_int_equal(info.queue_size, FAKE_QUEUE_SIZE);
	assert_int_equal(info.msix_num, FAKE_QUEUES + 2);
	assert_int_equal(info.mtu, 1500);
	assert_true(info.link_up);
	assert_int_equal(info.mac[4], 2);
	assert_false(info.connected || info.configured || info.lost);
}

static void
end_parks_all_guests(void **state)
{
	struct fake_guest g[2];
	unsigned int i;

	(void)state;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	for (i = 0; i < 2; i++) {
		struct vfe_bdf bdf = fake_vf(i);

		assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
		fake_guest_open(&g[i], i);
		fake_guest_start(&g[i]);
	}
	fake_stop();
	for (i = 0; i < 2; i++) {
		assert_int_equal(world.vf[i].state.device_status, 0x03);
		assert_false(world.vf[i].state.queues[0].enable);
		fake_guest_disconnect(&g[i]);
		fake_guest_close(&g[i]);
	}
	fake_start();
}

static void
end_does_not_wait_for_a_dead_device(void **state)
{
	struct fake_guest g;
	struct vfe_bdf bdf = fake_vf(0);

	(void)state;
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	assert_int_equal(vfe_vdpa_vf_add(&bdf, NULL, &verr), 0);
	fake_guest_open(&g, 0);
	fake_guest_start(&g);
	fake_hang_up(&bdf);
	fake_hang_up(&fake_pf);
	fake_stop();
	fake_guest_disconnect(&g);
	fake_guest_close(&g);
	fake_start();
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_stage_of_a_pf_fails_with_its_number),
		T(each_stage_of_a_vf_fails_with_its_number),
		T(vf_of_the_kernel_is_probed_by_the_pci_bus),
		T(vfs_are_created_with_the_pf_or_not_at_all),
		T(vf_needs_a_pf_and_a_pf_outlives_its_vfs),
		T(uuids_are_checked),
		T(information_is_what_the_device_says),
		T(end_parks_all_guests),
		T(end_does_not_wait_for_a_dead_device),
	};

	return cmocka_run_group_tests_name("vdpa_provision", tests, NULL, NULL);
}
