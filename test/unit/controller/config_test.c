/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Configuration of the controller: what is derived from it, and what is refused with which words.
 */

#undef NDEBUG

#include "config.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char full[] =
	"{\"ib_dev_p0\": \"mlx5_0\", \"ib_dev_p1\": \"mlx5_1\", \"ib_dev_for_static_pf\": "
	"\"mlx5_2\","
	" \"is_lag\": 0, \"recovery\": 1, \"sf_pool_percent\": 0, \"sf_pool_force_destroy\": 0,"
	" \"static_pf\": {\"mac_base\": \"0C:C4:7A:FF:22:FF\", \"features\": \"0x230047082b\"},"
	" \"vf\": {\"mac_base\": \"00:00:00:00:33:FF\", \"features\": 4294967296,"
	"          \"vfs_per_pf\": 2, \"qp_num\": 4},"
	" \"software_dpu\": {\"dir\": \"/d\", \"rpc_socket\": \"/r\", \"workers\": 2,"
	"   \"worker_cpus\": [1, 0], \"polling\": true, \"blk_spin_us\": 7, \"queue_size\": 512,"
	"   \"pfs\": [{\"bdf\": \"0000:af:00.2\", \"type\": \"net\", \"first_vf\": "
	"\"0000:af:1f.7\","
	"             \"mtu\": 9000, \"backend\": {\"type\": \"tap\"},"
	"             \"vfs\": {\"1\": {\"backend\": {\"type\": \"loopback\"}}}},"
	"            {\"bdf\": \"0000:b0:00.2\", \"first_vf\": \"0000:b0:01.0\", \"vf_stride\": "
	"2}]}}";

static void
the_user_guide_s_keys_are_understood(void **state)
{
	struct config config;
	struct vfe_error err = {""};
	char bdf[VFE_BDF_STR_SIZE];
	const struct config_function *pf, *vf;

	(void)state;
	if (config_parse(full, &config, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(config.nr_pfs, 2);
	assert_int_equal(config.workers, 2);
	assert_int_equal(config.cpus.nr, 2);
	assert_int_equal(config.cpus.cpu[0], 1);
	assert_true(config.polling);
	assert_int_equal(config.blk_spin_us, 7);
	assert_string_equal(config.sf_parent_device, "mlx5_2");
	assert_string_equal(config.ignored,
		"ib_dev_p1, is_lag, recovery, sf_pool_force_destroy, sf_pool_percent");

	pf = &config.pfs[0];
	assert_int_equal(pf->qp_num, 4);
	assert_int_equal(pf->mtu, 9000);
	assert_true(pf->features == 0x230047082b);
	assert_int_equal(pf->mac[5], 0xff);
	assert_string_equal(pf->backend.tap_name, "en3f0pf0sf1000");
	assert_int_equal(config.pfs[1].backend.type, DP_BACKEND_NULL);
	/* the address after ...:FF carries into the next byte */
	assert_int_equal(config.pfs[1].mac[4], 0x23);
	assert_int_equal(config.pfs[1].mac[5], 0x00);

	vf = &pf->vfs[0];
	assert_int_equal(pf->nr_vfs, 2);
	assert_int_equal(vf->qp_num, 4);
	assert_int_equal(vf->num_msix, 10);
	assert_int_equal(vf->mtu, 9000);
	assert_int_equal(vf->backend.type, DP_BACKEND_TAP);
	assert_string_equal(vf->backend.tap_name, "en3f0pf0sf3000");
	assert_true(vf->features == 1ULL << 32);
	assert_int_equal(pf->vfs[1].backend.type, DP_BACKEND_LOOPBACK);
	assert_int_equal(pf->vfs[1].mac[4], 0x34);
	assert_string_equal(config.pfs[1].vfs[1].backend.tap_name, "en3f0pf1sf3003");

	/* VF 1 of PF 0 is on the next bus */
	assert_string_equal(vfe_bdf_format(&pf->vfs[1].bdf, bdf), "0000:b0:00.0");
	assert_int_equal(pf->first_vf_offset, 0x1f * 8 + 7 - 2);
	assert_string_equal(vfe_bdf_format(&config.pfs[1].vfs[1].bdf, bdf), "0000:b0:01.2");
	config_fini(&config);
}

static void
a_pf_alone_is_enough(void **state)
{
	struct config config;

	(void)state;
	assert_int_equal(config_parse("{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\"}]}}",
				 &config, NULL),
		0);
	assert_string_equal(config.dir, "/run/vfe/pci");
	assert_string_equal(config.rpc_socket, "/run/vfe/controller.sock");
	assert_int_equal(config.pfs[0].nr_vfs, 0);
	assert_int_equal(config.pfs[0].mac[0] & 3, 2); /* local, unicast */
	assert_int_equal(config.queue_size, 256);
	config_fini(&config);
}

static void
qp_num_of_vfs_defaults_to_the_pf_s(void **state)
{
	struct config config;

	(void)state;
	assert_int_equal(config_parse("{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {\"pfs\": "
				      "[{\"bdf\": \"af:00.2\", \"first_vf\": \"af:01.0\", "
				      "\"qp_num\": 3}]}}",
				 &config, NULL),
		0);
	assert_int_equal(config.pfs[0].vfs[0].qp_num, 3);
	assert_int_equal(config.pfs[0].vfs[0].num_msix, 8);
	config_fini(&config);
}

static void
dirty_modes_are_a_mask(void **state)
{
	struct config config;

	(void)state;
	assert_int_equal(config_parse("{\"software_dpu\": {\"dirty_modes\": [\"pull_bytemap\", "
				      "\"push_bitmap\"], \"dirty_coarse\": true, "
				      "\"dirty_lose_pages\": 7, "
				      "\"pfs\": [{\"bdf\": \"af:00.2\"}]}}",
				 &config, NULL),
		0);
	assert_int_equal(config.dirty_modes, 1 << 4 | 1 << 1);
	assert_true(config.dirty_coarse && config.knobs.scribble);
	assert_int_equal(config.knobs.dirty_lose_pages, 7);
	config_fini(&config);
	assert_int_equal(config_parse("{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\"}]}}",
				 &config, NULL),
		0);
	assert_int_equal(config.dirty_modes, 0x1e);
	assert_false(config.dirty_coarse);
	config_fini(&config);
}

#define PFS "\"pfs\": [{\"bdf\": \"0000:af:00.2\"}]"

/* The text of the refusal must name the key. */
static const struct {
	const char *text;
	const char *says;
} refused[] = {
	{"", "line"},
	{"[]", "the document"},
	{"{\"software_dpu\": {" PFS "}, \"colour\": 1}", "colour: unknown key"},
	{"{\"software_dpu\": {" PFS ", \"worker\": 1}}", "software_dpu.worker: unknown key"},
	{"{\"software_dpu\": {" PFS ", \"workers\": \"1\"}}",
		"software_dpu.workers: expected an int"},
	{"{\"software_dpu\": {" PFS ", \"workers\": 0}}", "software_dpu.workers: expected 1 to 64"},
	{"{\"software_dpu\": {" PFS ", \"workers\": 2, \"worker_cpus\": [0]}}",
		"worker_cpus: 1 CPUs"},
	{"{\"software_dpu\": {" PFS ", \"worker_cpus\": [-1]}}", "software_dpu.worker_cpus[0]"},
	{"{\"software_dpu\": {" PFS ", \"polling\": 2}}", "software_dpu.polling"},
	{"{\"software_dpu\": {" PFS ", \"blk_spin_us\": 1001}}", "software_dpu.blk_spin_us"},
	{"{\"software_dpu\": {" PFS ", \"queue_size\": 300}}", "queue_size: 300"},
	{"{\"software_dpu\": {" PFS ", \"num_msix\": 4096}}", "software_dpu.num_msix"},
	{"{\"software_dpu\": {" PFS ", \"dir\": 5}}", "software_dpu.dir: expected a string"},
	{"{\"software_dpu\": {" PFS ", \"dirty_modes\": \"pull_bitmap\"}}",
		"software_dpu.dirty_modes: expected an array"},
	{"{\"software_dpu\": {" PFS ", \"dirty_modes\": [\"pull_bitmap\", \"pull\"]}}",
		"software_dpu.dirty_modes[1]: expected \"push_bitmap\""},
	{"{\"software_dpu\": {" PFS ", \"dirty_modes\": [3]}}", "software_dpu.dirty_modes[0]"},
	{"{\"software_dpu\": {" PFS ", \"dirty_lose_pages\": -1}}",
		"software_dpu.dirty_lose_pages"},
	{"{\"software_dpu\": {" PFS ", \"dir\": \"\"}}", "software_dpu.dir"},
	{"{\"software_dpu\": {" PFS ", " PFS "}}", "duplicate"},
	{"{}", "software_dpu.pfs: missing"},
	{"{\"software_dpu\": {\"pfs\": []}}", "software_dpu.pfs: expected an array of 1"},
	{"{\"software_dpu\": {\"pfs\": [{}]}}", "software_dpu.pfs[0].bdf: missing"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:20.0\"}]}}", "pfs[0].bdf: expected a PCI"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"mtu\": 67}]}}", "pfs[0].mtu"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"type\": \"fs\"}]}}",
		"pfs[0].type"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"bdev\": \"D\"}]}}",
		"bdev and what goes with it are of blk functions"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"type\": \"blk\", \"qp_num\": "
	 "1}]}}",
		"backend and qp_num are of net functions"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"type\": \"blk\", \"bdev\": "
	 "\"D\"}]}}",
		"0000:af:00.2: there is no \"D\""},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"type\": \"blk\", \"num_queues\": "
	 "2, "
	 "\"num_vfs\": 1, \"first_vf\": \"af:01.0\", \"vfs\": {\"0\": {\"num_queues\": 3}}}]}}",
		"0000:af:01.0: num_queues 3 is more than 2"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"type\": \"blk\", \"num_queues\": "
	 "257}]}}",
		"pfs[0].num_queues"},
	{"{\"software_dpu\": {\"bdevs\": 1, " PFS "}}", "bdevs: expected an array"},
	{"{\"software_dpu\": {\"bdevs\": [{}], " PFS "}}", "bdevs[0].name: missing"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\"}], " PFS "}}", "bdevs[0].type"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"file\"}], " PFS "}}",
		"bdevs[0].path"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"null\"}], " PFS "}}",
		"bdevs[0].size_mib: missing"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"null\", \"size_mib\": 1, "
	 "\"io\": \"auto\"}], " PFS "}}",
		"bdevs[0]: path, io and buffered are for files"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"file\", \"path\": \"/x\", "
	 "\"io\": \"x\"}], " PFS "}}",
		"bdevs[0].io"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"null\", \"size_mib\": 1, "
	 "\"block_size\": 1000}], " PFS "}}",
		"bdevs[0].block_size"},
	{"{\"software_dpu\": {\"bdevs\": [{\"name\": \"a\", \"type\": \"null\", \"size_mib\": 1}, "
	 "{\"name\": \"a\", \"type\": \"null\", \"size_mib\": 1}], " PFS "}}",
		"bdevs[1].name: a is there twice"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\"}, {\"bdf\": \"0000:af:00.2\"}]}}",
		"0000:af:00.2 is there twice"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"backend\": {\"type\": "
	 "\"xdp\"}}]}}",
		"pfs[0].backend.type"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"backend\": "
	 "{\"type\": \"tap\", \"name\": \"a/b\"}}]}}",
		"pfs[0].backend.name"},
	{"{\"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", \"backend\": "
	 "{\"type\": \"tap\", \"name\": \"t\"}}, {\"bdf\": \"af:00.3\", \"backend\": "
	 "{\"type\": \"tap\", \"name\": \"t\"}}]}}",
		"two functions have the tap t"},
	{"{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {" PFS "}}", "pfs[0].first_vf: missing"},
	{"{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", "
	 "\"first_vf\": \"af:00.1\"}]}}",
		"first_vf: expected an address behind"},
	{"{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", "
	 "\"first_vf\": \"0001:af:01.0\"}]}}",
		"first_vf: not in the domain"},
	{"{\"vf\": {\"vfs_per_pf\": 2}, \"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", "
	 "\"first_vf\": \"ff:1f.7\"}]}}",
		"behind the last bus"},
	{"{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", "
	 "\"first_vf\": \"af:01.0\", \"vfs\": {\"1\": {}}}]}}",
		"pfs[0].vfs.1: there are only 1"},
	{"{\"vf\": {\"vfs_per_pf\": 1}, \"software_dpu\": {\"pfs\": [{\"bdf\": \"af:00.2\", "
	 "\"first_vf\": \"af:01.0\", \"vfs\": {\"one\": {}}}]}}",
		"pfs[0].vfs.one"},
	{"{\"vf\": {\"mac_base\": \"00:00:00:00:33:00\"}, \"software_dpu\": {" PFS "}}",
		"vf.vfs_per_pf: missing"},
	{"{\"vf\": {\"qp_num\": 129}, \"software_dpu\": {" PFS "}}", "vf.qp_num"},
	{"{\"static_pf\": {\"mac_base\": \"0C:C4:7A:FF:22\"}, \"software_dpu\": {" PFS "}}",
		"static_pf.mac_base: expected a MAC"},
	{"{\"static_pf\": {\"mac_base\": \"01:00:5E:00:00:01\"}, \"software_dpu\": {" PFS "}}",
		"multicast"},
	{"{\"static_pf\": {\"features\": \"230047082b\"}, \"software_dpu\": {" PFS "}}",
		"static_pf.features"},
	{"{\"static_pf\": {\"features\": \"0x\"}, \"software_dpu\": {" PFS "}}",
		"static_pf.features"},
	{"{\"static_pf\": {\"features\": \"0x1ffffffffffffffff\"}, \"software_dpu\": {" PFS "}}",
		"static_pf.features"},
	{"{\"static_pf\": {\"features\": -1}, \"software_dpu\": {" PFS "}}", "static_pf.features"},
	{"{\"static_pf\": {\"features\": true}, \"software_dpu\": {" PFS "}}",
		"static_pf.features"},
	{"{\"sf_pool_percent\": 101, \"software_dpu\": {" PFS "}}",
		"sf_pool_percent: expected 0 to"},
	{"{\"is_lag\": \"no\", \"software_dpu\": {" PFS "}}", "is_lag"},
	{"{\"lm_prov\": \"kernel\", \"software_dpu\": {" PFS "}}", "lm_prov"},
	{"{\"ib_dev_p0\": 7, \"software_dpu\": {" PFS "}}", "ib_dev_p0: expected a string"},
};

/* Net and block PFs are numbered apart, and only net VFs take MAC addresses. */
static void
net_and_blk_stand_beside_each_other(void **state)
{
	struct config config;
	struct vfe_error err;

	(void)state;
	if (config_parse("{\"vf\": {\"mac_base\": \"02:00:00:00:00:20\", \"vfs_per_pf\": 1},"
			 " \"software_dpu\": {\"bdevs\": [{\"name\": \"D\", \"type\": \"memory\","
			 " \"size_mib\": 2, \"block_size\": 4096}], \"pfs\": ["
			 "{\"bdf\": \"af:00.2\", \"first_vf\": \"af:04.0\"},"
			 "{\"bdf\": \"af:00.3\", \"first_vf\": \"af:05.0\", \"type\": \"blk\","
			 " \"num_vfs\": 3, \"vfs\": {\"1\": {\"bdev\": \"D\", \"num_queues\": 2}}},"
			 "{\"bdf\": \"af:00.4\", \"first_vf\": \"af:06.0\"}]}}",
		    &config, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(config.nr_pfs, 3);
	assert_int_equal(config.pfs[0].pf_id, 0);
	assert_int_equal(config.pfs[1].pf_id, 0);
	assert_int_equal(config.pfs[1].type, CONFIG_BLK);
	assert_int_equal(config.pfs[2].pf_id, 1);
	assert_int_equal(config.pfs[1].nr_vfs, 3);
	assert_int_equal(config.pfs[2].nr_vfs, 1);
	assert_int_equal(config.pfs[0].vfs[0].mac[5], 0x20);
	assert_int_equal(config.pfs[2].vfs[0].mac[5], 0x21);
	assert_int_equal(config.pfs[2].vfs[0].sf_num, 3001);
	assert_string_equal(config.pfs[1].blk.bdev, "");
	assert_string_equal(config.pfs[1].vfs[0].blk.bdev, "");
	assert_string_equal(config.pfs[1].vfs[1].blk.bdev, "D");
	assert_int_equal(config.pfs[1].vfs[0].blk.num_queues, 4);
	assert_int_equal(config.pfs[1].vfs[1].blk.num_queues, 2);
	assert_int_equal(config.pfs[1].vfs[1].num_msix, 3);
	assert_int_equal(config.bdevs.nr, 1);
	assert_int_equal(config.bdevs.bdevs[0].size, 2 << 20);
	config_fini(&config);
}

static void
what_is_wrong_is_named(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(refused); i++) {
		struct vfe_error err = {""};
		struct config config;

		if (config_parse(refused[i].text, &config, &err) != -EINVAL)
			fail_msg("accepted: %s", refused[i].text);
		if (strstr(err.text, refused[i].says) == NULL)
			fail_msg("\"%s\" does not say \"%s\"", err.text, refused[i].says);
	}
}

static void
a_file_is_named_in_its_errors(void **state)
{
	char path[] = "/tmp/vfe-config-XXXXXX";
	int fd = mkstemp(path);
	struct config config;
	struct vfe_error err;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "{}", 2), 2);
	close(fd);
	assert_int_equal(config_load(path, &config, &err), -EINVAL);
	assert_non_null(strstr(err.text, path));
	unlink(path);
	assert_int_equal(config_load(path, &config, &err), -ENOENT);
	assert_non_null(strstr(err.text, path));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_user_guide_s_keys_are_understood),
		cmocka_unit_test(a_pf_alone_is_enough),
		cmocka_unit_test(dirty_modes_are_a_mask),
		cmocka_unit_test(qp_num_of_vfs_defaults_to_the_pf_s),
		cmocka_unit_test(net_and_blk_stand_beside_each_other),
		cmocka_unit_test(what_is_wrong_is_named),
		cmocka_unit_test(a_file_is_named_in_its_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
