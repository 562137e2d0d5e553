/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of the JSON records: the members that existing scripts read, and feature names per type.
 */

#undef NDEBUG

#include "rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "vfe_wire_pci.h"

static void
record_of_a_disk_tells_its_size_and_no_mac(void **state)
{
	static struct vfe_vdpa_vf_info info = {
		.bdf = {0, 0xaf, 5, 1},
		.pf = {0, 0xaf, 0, 3},
		.device_id = VFE_PCI_DEVICE_VIRTIO_BLK,
		.queue_num = 4,
		.device_features = 1ULL << 5,
		.capacity = 1ULL << 40,
		.block_size = 4096,
		.read_only = true,
		.drive = "plain",
		.no_iommu = true,
	};
	json_t *r = rpc_vf_record(&info, &(struct port_info){"/tmp/vfe-blk0", "server"});

	(void)state;
	assert_string_equal(json_string_value(json_object_get(r, "type")), "blk");
	assert_true(json_integer_value(json_object_get(r, "capacity")) == 1LL << 40);
	assert_int_equal(json_integer_value(json_object_get(r, "block_size")), 4096);
	assert_true(json_is_true(json_object_get(r, "read_only")));
	assert_true(json_is_false(json_object_get(r, "writeback")));
	assert_string_equal(json_string_value(json_object_get(r, "queue_num")), "4");
	assert_string_equal(json_string_value(json_object_get(r, "socket_role")), "server");
	assert_true(json_is_true(json_object_get(r, "no_iommu")));
	assert_null(json_object_get(r, "mac"));
	assert_null(json_object_get(r, "mtu"));
	assert_null(json_object_get(r, "link_up"));
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(r, "device_feature"), "    5")),
		"VIRTIO_BLK_F_RO");
	json_decref(r);
}

static void
vf_record_keeps_the_known_members(void **state)
{
	static struct vfe_vdpa_vf_info info = {
		.bdf = {0, 0xaf, 4, 5},
		.pf = {0, 0xaf, 0, 2},
		.device_id = VFE_PCI_DEVICE_VIRTIO_NET,
		.transport = "vfio-user",
		.uuid = "01234567-89ab-cdef-0123-456789abcdef",
		.msix_num = 10,
		.queue_num = 2,
		.queue_size = 256,
		.device_features = 1ULL << 5 | 1ULL << 32,
		.mac = {0, 0, 0, 0, 0x33, 0},
		.mtu = 1500,
		.configured = true,
		.dirty = {.mode = "direct", .rounds = 3, .pages = 9, .all = 1, .last_error = "x"},
		.queues = {[1] = {.enabled = true, .relayed_kicks = 7}},
	};
	json_t *r = rpc_vf_record(&info, &(struct port_info){"/tmp/vfe-net0", "client"});
	json_t *features = json_object_get(r, "device_feature");
	json_t *dirty;

	(void)state;
	assert_string_equal(json_string_value(json_object_get(r, "vf")), "0000:af:04.5");
	assert_true(json_is_true(json_object_get(r, "probed")));
	assert_string_equal(json_string_value(json_object_get(r, "msix_num")), "10");
	assert_string_equal(json_string_value(json_object_get(r, "queue_num")), "2");
	assert_string_equal(json_string_value(json_object_get(r, "queue_size")), "256");
	assert_string_equal(json_string_value(json_object_get(r, "mtu")), "1500");
	assert_string_equal(json_string_value(json_object_get(r, "mac")), "00:00:00:00:33:00");
	assert_string_equal(json_string_value(json_object_get(r, "vm_uuid")), info.uuid);
	assert_string_equal(json_string_value(json_object_get(r, "socket_file")), "/tmp/vfe-net0");
	assert_string_equal(json_string_value(json_object_get(r, "socket_role")), "client");
	assert_true(json_is_true(json_object_get(r, "configured")));
	assert_null(json_object_get(r, "no_iommu")); /* of plain functions only */
	assert_string_equal(json_string_value(json_object_get(features, "value")), "0x100000020");
	assert_string_equal(
		json_string_value(json_object_get(features, "    5")), "VIRTIO_NET_F_MAC");
	assert_string_equal(
		json_string_value(json_object_get(features, "   32")), "VIRTIO_F_VERSION_1");
	assert_int_equal(json_object_size(features), 3);

	dirty = json_object_get(json_object_get(r, "migration"), "dirty");
	assert_string_equal(json_string_value(json_object_get(dirty, "mode")), "direct");
	assert_int_equal(json_integer_value(json_object_get(dirty, "rounds")), 3);
	assert_int_equal(json_integer_value(json_object_get(dirty, "pages")), 9);
	assert_int_equal(json_integer_value(json_object_get(dirty, "marked_all")), 1);
	assert_string_equal(json_string_value(json_object_get(dirty, "last_error")), "x");

	assert_string_equal(json_string_value(json_object_get(r, "pf")), "0000:af:00.2");
	assert_int_equal(json_array_size(json_object_get(r, "queues")), 2);
	assert_int_equal(json_integer_value(json_object_get(
				 json_array_get(json_object_get(r, "queues"), 1), "relayed_kicks")),
		7);
	json_decref(r);
}

static void
vf_record_tells_what_a_migration_takes(void **state)
{
	static struct vfe_vdpa_vf_info info = {
		.device_id = VFE_PCI_DEVICE_VIRTIO_NET,
		.migration = "stopped",
		.guest_features = 1ULL << 21,
		.last_suspend =
			{
				.begin_unix_us = 1700000000000000,
				.total_ns = 1500,
				.commands = 3,
				.ok = true,
				.phase_ns = {[VFE_VDPA_PHASE_QUIESCE] = 1000,
					[VFE_VDPA_PHASE_FLUSH] = 500},
			},
	};
	json_t *r = rpc_vf_record(&info, &(struct port_info){.role = ""});
	json_t *m = json_object_get(r, "migration"), *suspend = json_object_get(m, "last_suspend");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(m, "state")), "stopped");
	assert_true(json_is_null(json_object_get(m, "last_resume"))); /* there was none */
	assert_true(json_is_true(json_object_get(suspend, "ok")));
	assert_true(
		json_integer_value(json_object_get(suspend, "begin_unix_us")) == 1700000000000000);
	assert_true(json_number_value(json_object_get(suspend, "total_us")) == 1.5);
	assert_int_equal(json_integer_value(json_object_get(suspend, "commands")), 3);
	assert_true(json_number_value(json_object_get(suspend, "quiesce_us")) == 1.0);
	assert_true(json_number_value(json_object_get(suspend, "flush_us")) == 0.5);
	/* phases that did not happen are left out */
	assert_int_equal(json_object_size(suspend), 6);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(r, "guest_feature"), "   21")),
		"VIRTIO_NET_F_GUEST_ANNOUNCE");
	json_decref(r);
}

static void
feature_names_follow_the_device_type(void **state)
{
	json_t *net = rpc_features(VFE_PCI_DEVICE_VIRTIO_NET, 1ULL << 5 | 1ULL << 50);
	json_t *blk = rpc_features(VFE_PCI_DEVICE_VIRTIO_BLK, 1ULL << 5);

	(void)state;
	assert_string_equal(json_string_value(json_object_get(net, "    5")), "VIRTIO_NET_F_MAC");
	assert_string_equal(json_string_value(json_object_get(net, "   50")), "unknown");
	assert_string_equal(json_string_value(json_object_get(blk, "    5")), "VIRTIO_BLK_F_RO");
	json_decref(net);
	json_decref(blk);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vf_record_keeps_the_known_members),
		cmocka_unit_test(record_of_a_disk_tells_its_size_and_no_mac),
		cmocka_unit_test(vf_record_tells_what_a_migration_takes),
		cmocka_unit_test(feature_names_follow_the_device_type),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
