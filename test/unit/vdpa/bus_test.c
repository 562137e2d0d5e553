/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Probing of VFs by the real EAL and its PCI bus, which reads a folder instead of sysfs.
 */

#undef NDEBUG

#include <assert.h>
#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <dev_driver.h>
#include <rte_dev.h>
#include <rte_eal.h>

#include "vdpa_priv.h"

#define VF0    "0000:af:04.0"
#define VF1    "0000:af:04.1"
#define BAR    "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
#define SOCKET "0000:b0:04.0"

static const struct vfe_bdf vf0 = {0, 0xaf, 4, 0}, vf1 = {0, 0xaf, 4, 1};
static const struct vfe_bdf behind_a_socket = {0, 0xb0, 4, 0};
static char folder[] = "/tmp/vfe-bus-XXXXXX";

/* what the driver is asked */
static struct {
	unsigned int probes;
	unsigned int unprobes;
	int result;
	struct vfe_bdf bdf;
	struct rte_device *dev;
} asked;

bool
vfe_pci_is_kernel(const struct vfe_bdf *bdf)
{
	return bdf->bus == 0xaf;
}

int
vdpa_vf_probe(const struct vfe_bdf *bdf, struct rte_device *dev)
{
	asked.probes++;
	asked.bdf = *bdf;
	asked.dev = dev;
	return asked.result;
}

void
vdpa_vf_unprobe(const struct vfe_bdf *bdf)
{
	asked.unprobes++;
	asked.bdf = *bdf;
}

static void
write_file(const char *bdf, const char *name, const char *content)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s/%s", folder, bdf, name);
	f = fopen(path, "w");
	assert(f != NULL);
	fputs(content, f);
	fclose(f);
}

static void
add_function(const char *bdf)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, bdf);
	assert(mkdir(path, 0700) == 0);
	write_file(bdf, "vendor", "0x1af4\n");
	write_file(bdf, "device", "0x1041\n");
	write_file(bdf, "subsystem_vendor", "0x1af4\n");
	write_file(bdf, "subsystem_device", "0x1100\n");
	write_file(bdf, "class", "0x020000\n");
	write_file(bdf, "resource", BAR BAR BAR BAR BAR BAR BAR);
	snprintf(path, sizeof(path), "%s/%s/driver", folder, bdf);
	assert(symlink("../drivers/vfio-pci", path) == 0);
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int
reset_asked(void **state)
{
	(void)state;
	memset(&asked, 0, sizeof(asked));
	return 0;
}

static void
nothing_is_probed_unless_asked_for(void **state)
{
	(void)state;
	/* rte_eal_init() has scanned the bus */
	assert_int_equal(asked.probes, 0);
}

static void
function_of_the_kernel_is_plugged_and_unplugged(void **state)
{
	int i;

	(void)state;
	for (i = 1; i <= 2; i++) {
		assert_int_equal(vdpa_bus_plug(&vf0), 0);
		assert_int_equal(asked.probes, i);
		assert_true(vfe_bdf_equal(&asked.bdf, &vf0));
		assert_string_equal(asked.dev->name, VF0);
		assert_true(rte_dev_is_probed(asked.dev));
		assert_int_equal(rte_dev_remove(asked.dev), 0);
		assert_int_equal(asked.unprobes, i);
		assert_true(vfe_bdf_equal(&asked.bdf, &vf0));
	}
}

static void
failed_probe_can_be_repeated(void **state)
{
	(void)state;
	asked.result = -EBUSY;
	assert_true(vdpa_bus_plug(&vf1) < 0);
	assert_int_equal(asked.probes, 1); /* and no other driver gets it */
	asked.result = 0;
	assert_int_equal(vdpa_bus_plug(&vf1), 0);
	assert_int_equal(asked.probes, 2);
	assert_int_equal(rte_dev_remove(asked.dev), 0);
	assert_int_equal(asked.unprobes, 1);
}

static void
function_that_comes_later_is_found(void **state)
{
	const struct vfe_bdf late = {0, 0xaf, 4, 2};

	(void)state;
	assert_true(vdpa_bus_plug(&late) < 0);
	assert_int_equal(asked.probes, 0);
	add_function("0000:af:04.2");
	assert_int_equal(vdpa_bus_plug(&late), 0);
	assert_int_equal(asked.probes, 1);
	assert_int_equal(rte_dev_remove(asked.dev), 0);
}

static void
function_behind_a_socket_is_on_the_other_bus(void **state)
{
	(void)state;
	assert_int_equal(vdpa_bus_plug(&behind_a_socket), 0);
	assert_string_equal(asked.dev->name, SOCKET);
	assert_int_equal(rte_dev_remove(asked.dev), 0);
	assert_true(vfe_bdf_equal(&asked.bdf, &behind_a_socket));
	asked.result = -EIO;
	assert_true(vdpa_bus_plug(&behind_a_socket) < 0);
	assert_int_equal(asked.unprobes, 1);
}

/* as the service is started */
static char *eal_args[] = {
	(char[]){"bus_test"},
	(char[]){"--no-huge"},
	(char[]){"-m"},
	(char[]){"64"},
	(char[]){"--no-shconf"},
	(char[]){"--no-telemetry"},
	(char[]){"--log-level=error"},
	(char[]){"-l"},
	(char[]){"0"},
	(char[]){"-a"},
	(char[]){"0000:00:00.0"},
};

#define T(test) cmocka_unit_test_setup(test, reset_asked)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_is_probed_unless_asked_for),
		T(function_of_the_kernel_is_plugged_and_unplugged),
		T(failed_probe_can_be_repeated),
		T(function_that_comes_later_is_found),
		T(function_behind_a_socket_is_on_the_other_bus),
	};
	int failed;

	assert(mkdtemp(folder) != NULL);
	assert(setenv("SYSFS_PCI_DEVICES", folder, 1) == 0);
	add_function(VF0);
	add_function(VF1);
	if (rte_eal_init((int)VFE_ARRAY_SIZE(eal_args), eal_args) < 0) {
		fprintf(stderr, "rte_eal_init() failed\n");
		return 1;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rte_eal_cleanup();
	assert(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0);
	return failed;
}
