/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What sysfs says about PFs and VFs, and creation of VFs, over a tree in a folder.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_vfio.h"
#include "vfe_pci.h"

#define PF     "0000:af:00.2"
#define VF0    "0000:af:04.0"
#define VF1    "0000:af:04.1"
#define PF_DIR "sys/bus/pci/devices/" PF "/"

static const struct vfe_bdf pf = {0, 0xaf, 0, 2}, vf0 = {0, 0xaf, 4, 0}, vf1 = {0, 0xaf, 4, 1};
static struct vfe_error err;

/* A PF whose two VFs are there as soon as somebody asks for them. */
static int
setup(void **state)
{
	(void)state;
	fv_start();
	fv_add(PF, 10);
	fv_add(VF0, 11);
	fv_add(VF1, 12);
	fv_file(PF_DIR "sriov_totalvfs", "2\n");
	fv_file(PF_DIR "sriov_numvfs", "0\n");
	fv_file(PF_DIR "sriov_drivers_autoprobe", "1\n");
	fv_link(PF_DIR "virtfn0", "../" VF0);
	fv_link(PF_DIR "virtfn1", "../" VF1);
	fv_link("sys/bus/pci/devices/" VF0 "/physfn", "../" PF);
	fv_link("sys/bus/pci/devices/" VF1 "/physfn", "../" PF);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fv_stop();
	return 0;
}

static void
assert_file(const char *path, const char *content)
{
	char now[64];

	fv_read(path, now, sizeof(now));
	now[strcspn(now, "\n")] = '\0';
	assert_string_equal(now, content);
}

static void
kernel_functions_are_found(void **state)
{
	const struct vfe_bdf stranger = {0, 0xaf, 5, 0};
	char path[128] = "x";

	(void)state;
	assert_true(vfe_pci_is_kernel(&pf));
	assert_false(vfe_pci_is_kernel(&stranger));
	assert_int_equal(vfe_pci_find(&pf, "/nowhere", path, sizeof(path), &err), 0);
	assert_string_equal(path, "");
	assert_int_equal(vfe_pci_find(&stranger, "/nowhere", path, sizeof(path), &err), -ENOENT);
	assert_non_null(strstr(err.text, "/nowhere/0000:af:05.0.sock"));
}

static void
driver_is_checked_before_anything_is_opened(void **state)
{
	const struct vfe_bdf stranger = {0, 0xaf, 5, 0};

	(void)state;
	assert_int_equal(vfe_pci_check_driver(&vf0, &err), 0);
	assert_int_equal(vfe_pci_check_driver(&stranger, &err), 0); /* perhaps a socket */
	fv_set_driver(VF0, NULL);
	assert_int_equal(vfe_pci_check_driver(&vf0, &err), -ENODEV);
	assert_non_null(strstr(err.text, "--bind vfio-pci " VF0));
	fv_file("sys/bus/pci/devices/" VF0 "/driver", "no link");
	assert_int_equal(vfe_pci_check_driver(&vf0, &err), -EINVAL);
}

static void
vf_knows_its_pf(void **state)
{
	const struct vfe_bdf stranger = {0, 0xaf, 5, 0};
	struct vfe_bdf found;
	int index = -1;

	(void)state;
	assert_int_equal(vfe_pci_vf_parent(&vf1, &found, &index, &err), 0);
	assert_true(vfe_bdf_equal(&found, &pf));
	assert_int_equal(index, 1);
	assert_int_equal(vfe_pci_vf_parent(&vf0, &found, &index, &err), 0);
	assert_int_equal(index, 0);
	assert_int_equal(vfe_pci_vf_parent(&pf, &found, &index, &err), -ENODEV);
	assert_non_null(strstr(err.text, PF));
	assert_int_equal(vfe_pci_vf_parent(&stranger, &found, &index, &err), -ENOENT);
	fv_remove(PF_DIR "virtfn1");
	assert_int_equal(vfe_pci_vf_parent(&vf1, &found, &index, &err), -ENODEV);
	assert_non_null(strstr(err.text, PF));
}

static void
vfs_are_created_and_bound(void **state)
{
	(void)state;
	fv_set_driver(VF1, "vfio-pci");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), 1);
	assert_file(PF_DIR "sriov_numvfs", "2");
	assert_file(PF_DIR "sriov_drivers_autoprobe", "1");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), 0); /* there already */
	assert_int_equal(vfe_pci_vfs_create(&pf, 1, &err), -EBUSY);
	assert_file(PF_DIR "sriov_numvfs", "2");
	assert_int_equal(vfe_pci_vfs_destroy(&pf, &err), 0);
	assert_file(PF_DIR "sriov_numvfs", "0");
}

static void
numbers_that_the_pf_cannot_have(void **state)
{
	const struct vfe_bdf stranger = {0, 0xaf, 5, 0};

	(void)state;
	assert_int_equal(vfe_pci_vfs_create(&pf, 3, &err), -ERANGE);
	assert_non_null(strstr(err.text, "1 to 2"));
	assert_int_equal(vfe_pci_vfs_create(&pf, 0, &err), -ERANGE);
	assert_int_equal(vfe_pci_vfs_create(&vf0, 1, &err), -ENOTSUP);
	assert_int_equal(vfe_pci_vfs_create(&stranger, 1, &err), -ENOTSUP);
	fv_file(PF_DIR "sriov_totalvfs", "many\n");
	assert_int_equal(vfe_pci_vfs_create(&pf, 1, &err), -ENOTSUP);
	fv_file(PF_DIR "sriov_totalvfs", "2\n");
	fv_set_driver(PF, "virtio-pci");
	assert_int_equal(vfe_pci_vfs_create(&pf, 1, &err), -EBUSY);
	assert_non_null(strstr(err.text, "--bind vfio-pci " PF));
	assert_file(PF_DIR "sriov_numvfs", "0");
	assert_file(PF_DIR "sriov_drivers_autoprobe", "1");
}

static void
attribute_that_cannot_be_read(void **state)
{
	(void)state;
	fv_remove(PF_DIR "sriov_totalvfs");
	fv_file(PF_DIR "sriov_totalvfs/0", ""); /* it opens, and a read fails */
	assert_int_equal(vfe_pci_vfs_create(&pf, 1, &err), -ENOTSUP);
	assert_non_null(strstr(err.text, PF));
	assert_file(PF_DIR "sriov_numvfs", "0");
}

static void
kernel_that_creates_no_vfs(void **state)
{
	(void)state;
	fv.write_numvfs_result = -ENOENT;
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENOENT);
	assert_non_null(strstr(err.text, "enable_sriov"));
	assert_file(PF_DIR "sriov_drivers_autoprobe", "1");
	fv.write_numvfs_result = -ENOMEM;
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENOMEM);
	assert_file(PF_DIR "sriov_numvfs", "0");
	fv.write_numvfs_result = 0;
	fv_file(PF_DIR "sriov_drivers_autoprobe", "0\n");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), 1);
	assert_file(PF_DIR "sriov_drivers_autoprobe", "0");
}

static void
vf_that_cannot_be_bound_takes_all_away(void **state)
{
	(void)state;
	fv_set_driver(VF1, NULL);
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENODEV);
	assert_non_null(strstr(err.text, VF1));
	assert_file("sys/bus/pci/devices/" VF1 "/driver_override", "vfio-pci");
	assert_file("sys/bus/pci/drivers_probe", VF1);
	assert_file("sys/bus/pci/devices/" VF0 "/driver_override", ""); /* it had it */
	assert_file(PF_DIR "sriov_numvfs", "0");

	fv_remove("sys/bus/pci/drivers_probe");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENOENT);
	assert_file(PF_DIR "sriov_numvfs", "0");
	fv_remove("sys/bus/pci/devices/" VF1 "/driver_override");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENOENT);
	fv_remove(PF_DIR "virtfn1");
	assert_int_equal(vfe_pci_vfs_create(&pf, 2, &err), -ENOENT);
	assert_non_null(strstr(err.text, "VF 1"));
	assert_file(PF_DIR "sriov_numvfs", "0");
	fv_remove(PF_DIR "sriov_drivers_autoprobe");
	assert_int_equal(vfe_pci_vfs_create(&pf, 1, &err), -ENOENT);
	assert_file(PF_DIR "sriov_numvfs", "0");
	fv_remove(PF_DIR "sriov_numvfs");
	assert_int_equal(vfe_pci_vfs_destroy(&pf, &err), -ENOENT);
	fv_file(PF_DIR "sriov_numvfs/0", ""); /* cannot be read */
	assert_int_equal(vfe_pci_vfs_destroy(&pf, &err), -EISDIR);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(kernel_functions_are_found),
		T(driver_is_checked_before_anything_is_opened),
		T(vf_knows_its_pf),
		T(vfs_are_created_and_bound),
		T(numbers_that_the_pf_cannot_have),
		T(attribute_that_cannot_be_read),
		T(kernel_that_creates_no_vfs),
		T(vf_that_cannot_be_bound_takes_all_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
