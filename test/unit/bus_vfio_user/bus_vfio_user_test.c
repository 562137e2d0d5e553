/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The bus "vfio_user" under EAL: names, devargs, probing, removal, cleaning up.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <bus_driver.h>
#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_eal.h>

#include "vfe_base.h"
#include "vfe_bus_vfio_user.h"

/* What the driver of this test does and saw. */
static struct {
	int probe_result;
	int remove_result;
	unsigned int probes;
	unsigned int removes;
	char args[128];
} fake;

static int
fake_probe(struct vfe_bus_device *dev)
{
	fake.probes++;
	snprintf(fake.args, sizeof(fake.args), "%s", dev->device.devargs->data);
	dev->priv = &fake;
	return fake.probe_result;
}

static int
fake_remove(struct vfe_bus_device *dev)
{
	assert_ptr_equal(dev->priv, &fake);
	fake.removes++;
	return fake.remove_result;
}

static int
decline(struct vfe_bus_device *dev)
{
	(void)dev;
	return 1;
}

static struct vfe_bus_driver first_driver = {
	.driver.name = "declines",
	.probe = decline,
	.remove = fake_remove,
};
static struct vfe_bus_driver fake_driver = {
	.driver.name = "fake",
	.probe = fake_probe,
	.remove = fake_remove,
};

static struct vfe_bus_device *
find(const char *name)
{
	struct vfe_bdf bdf;

	assert_int_equal(vfe_bdf_parse(name, &bdf), 0);
	return vfe_bus_device_find(&bdf);
}

static unsigned int
count_devargs(void)
{
	struct rte_devargs *args;
	unsigned int n = 0;

	RTE_EAL_DEVARGS_FOREACH (VFE_BUS_VFIO_USER_NAME, args)
		n++;
	return n;
}

static int
reset_fake(void **state)
{
	(void)state;
	memset(&fake, 0, sizeof(fake));
	return 0;
}

static void
test_command_line_device_is_probed_by_eal_init(void **state)
{
	struct vfe_bus_device *dev = find("0000:00:1e.7");

	(void)state;
	assert_non_null(dev);
	assert_ptr_equal(dev->device.driver, &fake_driver.driver);
	assert_int_equal(rte_dev_remove(&dev->device), 0);
	assert_null(find("0000:00:1e.7"));
}

static void
test_short_form_names_the_device_by_its_address(void **state)
{
	struct vfe_bus_device *dev;

	(void)state;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2,vdpa=1,x=y"), 0);
	dev = find("0000:af:00.2");
	assert_non_null(dev);
	assert_string_equal(rte_dev_name(&dev->device), "0000:af:00.2");
	assert_string_equal(rte_bus_name(rte_dev_bus(&dev->device)), "vfio_user");
	assert_string_equal(rte_dev_driver(&dev->device)->name, "fake");
	assert_string_equal(fake.args, "vdpa=1,x=y");
	assert_int_equal(fake.probes, 1);

	assert_int_equal(rte_dev_remove(&dev->device), 0);
	assert_int_equal(fake.removes, 1);
	assert_null(find("0000:af:00.2"));
	assert_int_equal(count_devargs(), 0);
}

static void
test_long_form_and_hotplug_calls(void **state)
{
	(void)state;
	assert_int_equal(rte_dev_probe("bus=vfio_user,name=0000:af:00.3/driver=fake,a=b"), 0);
	assert_non_null(find("0000:af:00.3"));
	assert_int_equal(rte_eal_hotplug_remove("vfio_user", "0000:af:00.3"), 0);

	assert_int_equal(rte_eal_hotplug_add("vfio_user", "0000:af:00.4", "k=v"), 0);
	assert_string_equal(fake.args, "k=v");
	assert_int_equal(rte_eal_hotplug_remove("vfio_user", "0000:af:00.4"), 0);
	assert_int_equal(fake.removes, 2);
	assert_int_equal(count_devargs(), 0);
}

static void
test_probing_twice_keeps_one_device_with_the_newest_arguments(void **state)
{
	struct vfe_bus_device *dev;

	(void)state;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2,n=1"), 0);
	/* EAL takes the bus's -EEXIST for success */
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2,n=2"), 0);
	assert_int_equal(fake.probes, 1);
	assert_int_equal(count_devargs(), 1);
	dev = find("0000:af:00.2");
	assert_string_equal(dev->device.devargs->data, "n=2");
	assert_int_equal(rte_dev_remove(&dev->device), 0);
	assert_int_equal(count_devargs(), 0);
}

static void
test_failed_probe_is_reported_and_can_be_repeated(void **state)
{
	(void)state;
	fake.probe_result = -ENOENT;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2,n=1"), -ENOENT);
	assert_null(find("0000:af:00.2")->device.driver);
	fake.probe_result = 0;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2,n=2"), 0);
	assert_string_equal(fake.args, "n=2");
	assert_int_equal(count_devargs(), 1);
	assert_int_equal(rte_eal_hotplug_remove("vfio_user", "0000:af:00.2"), 0);
	assert_int_equal(count_devargs(), 0);
}

static void
test_device_that_no_driver_wants(void **state)
{
	(void)state;
	fake.probe_result = 1;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2"), -ENOTSUP);
	assert_int_equal(fake.probes, 1);
	assert_null(find("0000:af:00.2")->device.driver);
}

static void
test_removal_that_the_driver_refuses(void **state)
{
	struct vfe_bus_device *dev;

	(void)state;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.2"), 0);
	dev = find("0000:af:00.2");
	fake.remove_result = -EBUSY;
	assert_int_equal(rte_dev_remove(&dev->device), -EBUSY);
	assert_ptr_equal(find("0000:af:00.2"), dev);
	assert_ptr_equal(dev->device.driver, &fake_driver.driver);
	fake.remove_result = 0;
	assert_int_equal(rte_dev_remove(&dev->device), 0);
}

static void
test_names_that_are_no_address(void **state)
{
	(void)state;
	assert_true(rte_dev_probe("vfio_user:nonsense") < 0);
	assert_true(rte_dev_probe("vfio_user:0000:af:00.8") < 0);
	assert_true(rte_dev_probe("bus=vfio_user,name=../../x") < 0);
	assert_true(rte_dev_probe("bus=vfio_user") < 0);
	assert_int_equal(fake.probes, 0);
	assert_int_equal(count_devargs(), 0);
}

static void
test_bare_address_is_left_to_the_pci_bus(void **state)
{
	const struct rte_bus *bus = rte_bus_find_by_name("vfio_user");
	struct vfe_bdf bdf;

	(void)state;
	assert_non_null(bus);
	assert_int_not_equal(bus->parse("0000:af:00.2", NULL), 0);
	assert_int_equal(bus->parse("vfio_user:0000:af:00.2", &bdf), 0);
	assert_int_equal(bdf.bus, 0xaf);
}

static void
test_the_512th_device_beside_others(void **state)
{
	char args[64], name[VFE_BDF_STR_SIZE];
	struct vfe_bdf bdf;
	unsigned int i;

	(void)state;
	for (i = 0; i < 512; i++) {
		bdf = vfe_bdf_from_rid(0, (uint16_t)(0xa000 + i));
		snprintf(args, sizeof(args), "vfio_user:%s,i=%u", vfe_bdf_format(&bdf, name), i);
		assert_int_equal(rte_dev_probe(args), 0);
		assert_int_equal(fake.probes, i + 1);
	}
	for (i = 0; i < 512; i++) {
		bdf = vfe_bdf_from_rid(0, (uint16_t)(0xa000 + i));
		assert_non_null(vfe_bus_device_find(&bdf));
		assert_int_equal(rte_dev_remove(&vfe_bus_device_find(&bdf)->device), 0);
	}
	assert_int_equal(fake.removes, 512);
}

static void
test_cleanup_of_eal_removes_devices(void **state)
{
	(void)state;
	assert_int_equal(rte_dev_probe("vfio_user:0000:af:00.5"), 0);
	assert_int_equal(rte_eal_cleanup(), 0);
	assert_int_equal(fake.removes, 1);
	assert_null(find("0000:af:00.5"));
}

static char *eal_args[] = {
	(char[]){"test"},
	(char[]){"--no-huge"},
	(char[]){"-m"},
	(char[]){"64"},
	(char[]){"-a"},
	(char[]){"0000:00:00.0"},
	(char[]){"--no-shconf"},
	(char[]){"--no-telemetry"},
	(char[]){"--log-level=error"},
	(char[]){"-l"},
	(char[]){"0"},
	(char[]){"-a"},
	(char[]){"vfio_user:0000:00:1e.7"},
};

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_command_line_device_is_probed_by_eal_init, reset_fake),
		cmocka_unit_test_setup(test_short_form_names_the_device_by_its_address, reset_fake),
		cmocka_unit_test_setup(test_long_form_and_hotplug_calls, reset_fake),
		cmocka_unit_test_setup(
			test_probing_twice_keeps_one_device_with_the_newest_arguments, reset_fake),
		cmocka_unit_test_setup(
			test_failed_probe_is_reported_and_can_be_repeated, reset_fake),
		cmocka_unit_test_setup(test_device_that_no_driver_wants, reset_fake),
		cmocka_unit_test_setup(test_removal_that_the_driver_refuses, reset_fake),
		cmocka_unit_test_setup(test_names_that_are_no_address, reset_fake),
		cmocka_unit_test_setup(test_bare_address_is_left_to_the_pci_bus, reset_fake),
		cmocka_unit_test_setup(test_the_512th_device_beside_others, reset_fake),
		cmocka_unit_test_setup(test_cleanup_of_eal_removes_devices, reset_fake),
	};

	vfe_bus_driver_register(&first_driver);
	vfe_bus_driver_register(&fake_driver);
	if (rte_eal_init((int)VFE_ARRAY_SIZE(eal_args), eal_args) < 0) {
		fprintf(stderr, "rte_eal_init() failed\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
