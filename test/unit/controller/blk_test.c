/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block functions on a fake data path: layout of queues, device configuration, and everything that
 * waits until requests in flight are back.
 */

#undef NDEBUG

#include "rig.h"

#include "admin.h"
#include "blk.h"
#include "fake_bp.h"
#include "migrate.h"
#include "vfe_wire_blk.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
	DEVICE_CONFIG = 0x2000,
	OK = VFE_ADMIN_S_OK,
	TRY_AGAIN = VFE_ADMIN_S_ERR,
	REFUSED = VFE_ADMIN_S_ERR | VFE_ADMIN_S_DNR,
	VF1 = 1, /* vdev_id of VF 0 */
};

static const uint64_t disk_features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
				      VFE_BIT(VFE_VIRTIO_F_RING_RESET) | VFE_BIT(VFE_BLK_F_FLUSH) |
				      VFE_BIT(VFE_BLK_F_CONFIG_WCE) | VFE_BIT(VFE_BLK_F_MQ);

static void
bring_up(struct rig *rig, struct function *fn, uint64_t features)
{
	rig_connect(fn);
	rig_map(rig, fn);
	rig_negotiate(fn, features);
	rig_enable(fn, 0);
	rig_enable(fn, 1);
	wr(fn, COMMON(config_msix_vector), 0, 2);
	wr(fn, COMMON(device_status), S_ALL, 1);
	assert_int_equal(rd(fn, COMMON(device_status), 1), S_ALL);
}

/* @n requests of queue 0 are with the back end. */
static struct fake_bp_port *
bring_up_busy(struct rig *rig, uint32_t n)
{
	struct fake_bp_port *port = fake_bp_of(rig_vf(rig, 0));

	bring_up(rig, rig_vf(rig, 0), disk_features);
	assert_true(port->queues[0].started && port->queues[1].started);
	port->queues[0].in_flight = n;
	return port;
}

static void
come_back(struct fake_bp_port *port)
{
	port->queues[0].in_flight = 0;
	port->cfg.on_drained(port->cfg.ctx, 0);
}

/* Post the command that stops VF 0. */
static void
post_quiesce(struct rig *rig)
{
	const struct vfe_wire_admin_modify_status in = {
		htole16(VF1), htole16(VFE_ADMIN_VF_QUIESCED)};

	rig_admin_post(rig, VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_MODIFY_STATUS, &in, sizeof(in),
		NULL, 0, 0);
	rig_turn(rig);
}

static uint32_t
admin_in_flight(struct rig *rig)
{
	struct admin_stats stats;

	admin_get_stats(rig_pf(rig)->admin, &stats);
	return stats.in_flight;
}

static void
the_dialect_has_its_queue_at_0(void **state)
{
	struct rig *rig = *state;

	rig_admin_up(rig, 0);
	assert_int_equal(rig_pf(rig)->admin_qid, 0);
	assert_int_equal(rd(rig_pf(rig), COMMON(admin_queue_index), 2), 0);
	assert_false(fake_bp_of(rig_pf(rig))->queues[0].started);
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), OK);
}

static void
a_disk_driver_has_it_behind_its_queues(void **state)
{
	struct rig *rig = *state;

	bring_up(rig, rig_pf(rig), disk_features | VFE_BIT(VFE_ADMIN_F_VQ));
	assert_int_equal(rd(rig_pf(rig), COMMON(admin_queue_index), 2), 2);
	assert_true(fake_bp_of(rig_pf(rig))->queues[0].started);
}

static void
a_vf_without_a_controller_refuses_commands(void **state)
{
	struct rig *rig = *state;

	assert_null(rig_vf(rig, 1)->vdev);
	rig_admin_up(rig, 0);
	assert_int_equal(rig_set_status(rig, 2, VFE_ADMIN_VF_QUIESCED), REFUSED);
}

static void
a_controller_comes_and_goes(void **state)
{
	struct rig *rig = *state;
	const struct config_function *cfg = &rig->config.pfs[0].vfs[1];
	struct config_blk blk = cfg->blk;
	struct blk_ctrl *ctrl, *other;
	struct vfe_error err;

	snprintf(blk.bdev, sizeof(blk.bdev), "X");
	assert_int_equal(blk_ctrl_create(&rig->dpu, cfg, &blk, NULL, &ctrl, &err), -ENOENT);
	snprintf(blk.bdev, sizeof(blk.bdev), "D");
	blk.num_queues = 3;
	assert_int_equal(blk_ctrl_create(&rig->dpu, cfg, &blk, NULL, &ctrl, &err), -EINVAL);
	blk.num_queues = 1;
	assert_int_equal(
		blk_ctrl_create(&rig->dpu, cfg, &blk, "VblkEmu0pf0vf0", &ctrl, &err), -EEXIST);
	assert_int_equal(blk_ctrl_create(&rig->dpu, cfg, &blk, NULL, &ctrl, &err), 0);
	assert_string_equal(ctrl->name, "VblkEmu0pf0vf1");
	assert_int_equal(blk_ctrl_create(&rig->dpu, cfg, &blk, "b", &other, &err), -EEXIST);
	assert_ptr_equal(ctrl->fn, rig_vf(rig, 1));
	assert_ptr_equal(ctrl->fn->pf, rig_pf(rig));
	assert_ptr_equal(blk_ctrl_of(&rig->dpu, ctrl->fn), ctrl);
	rig_admin_up(rig, 0);
	assert_int_equal(rig_set_status(rig, 2, VFE_ADMIN_VF_QUIESCED), OK);
	blk_ctrl_destroy(&rig->dpu, ctrl);
	assert_int_equal(rig_set_status(rig, 2, VFE_ADMIN_VF_QUIESCED), REFUSED);
	assert_null(blk_ctrl_find(&rig->dpu, "VblkEmu0pf0vf1"));
}

static void
write_cache_follows_negotiation_and_driver(void **state)
{
	const uint64_t at = DEVICE_CONFIG + offsetof(struct vfe_wire_blk_config, writeback);
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = fake_bp_of(vf);

	bring_up(rig, vf, disk_features);
	assert_true(port->writeback);
	wr(vf, at, 0, 1);
	assert_false(port->writeback);
	assert_int_equal(rd(vf, at, 1), 0);
	wr(vf, at, 0xff, 1);
	assert_true(port->writeback);
	assert_int_equal(rd(vf, at, 1), 1);
	wr(vf, at, 0, 2);
	assert_true(port->writeback);

	/* without CONFIG_WCE it depends on FLUSH alone */
	wr(vf, COMMON(device_status), 0, 1);
	rig_negotiate(vf, VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_BLK_F_FLUSH));
	assert_true(port->writeback);
	wr(vf, at, 0, 1);
	assert_true(port->writeback);
	wr(vf, COMMON(device_status), 0, 1);
	rig_negotiate(vf, VFE_BIT(VFE_VIRTIO_F_VERSION_1));
	assert_false(port->writeback);
}

static void
a_reset_ends_when_requests_are_back(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 3);

	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	assert_true(port->queues[0].started && port->queues[0].draining);
	assert_int_equal(port->settles, 0);
	/* late news of before are no news */
	port->cfg.on_drained(port->cfg.ctx, 0);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	come_back(port);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
	assert_false(port->queues[0].started || port->queues[1].started);
	rig_negotiate(vf, disk_features);
}

static void
a_queue_reset_ends_when_its_requests_are_back(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 1);

	wr(vf, COMMON(queue_select), 0, 2);
	wr(vf, COMMON(queue_reset), 1, 2);
	assert_int_equal(rd(vf, COMMON(queue_reset), 2), 1);
	assert_true(port->queues[0].started);
	come_back(port);
	assert_int_equal(rd(vf, COMMON(queue_reset), 2), 0);
	assert_int_equal(rd(vf, COMMON(queue_enable), 2), 0);
	assert_false(port->queues[0].started);
	assert_true(port->queues[1].started && !port->queues[1].draining);
	rig_enable(vf, 0);
	assert_true(port->queues[0].started);
}

static void
a_stop_is_answered_when_requests_are_back(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 3);
	uint16_t used = rig->admin_used;

	rig_admin_up(rig, 0);
	post_quiesce(rig);
	post_quiesce(rig); /* who asks twice waits twice */
	assert_int_equal(admin_in_flight(rig), 2);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_RUNNING);
	assert_true(port->queues[0].draining && port->queues[1].draining);
	come_back(port);
	assert_int_equal(admin_in_flight(rig), 0);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_QUIESCED);
	assert_false(port->queues[0].started || port->queues[1].started);
	assert_true(rig_wait_used(rig, used));
}

static void
other_commands_are_refused_while_it_stops(void **state)
{
	struct rig *rig = *state;
	struct fake_bp_port *port = bring_up_busy(rig, 3);
	struct vfe_error err;

	rig_admin_up(rig, 0);
	post_quiesce(rig);
	assert_int_equal(migrate_set_status(rig_vf(rig, 0), VFE_ADMIN_VF_FREEZED, &err), -EAGAIN);
	assert_int_equal(migrate_set_status(rig_vf(rig, 0), VFE_ADMIN_VF_RUNNING, &err), -EAGAIN);
	come_back(port);
	assert_int_equal(migrate_set_status(rig_vf(rig, 0), VFE_ADMIN_VF_FREEZED, &err), 0);
}

static void
a_stop_that_takes_too_long_is_taken_back(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 3);
	struct vfe_deadline deadline = vfe_deadline_in_ms(5000);

	rig_admin_up(rig, 0);
	post_quiesce(rig);
	while (admin_in_flight(rig) > 0 && !vfe_deadline_passed(deadline))
		ev_run(rig->loop, EVRUN_ONCE);
	assert_int_equal(admin_in_flight(rig), 0);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_RUNNING);
	assert_true(port->queues[0].started && !port->queues[0].draining);
	assert_true(port->queues[1].started && !port->queues[1].draining);
	/* the next try is a new one */
	come_back(port);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_RUNNING);
	post_quiesce(rig);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_QUIESCED);
}

static void
a_reset_ends_the_wait_of_a_stop(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 3);

	rig_admin_up(rig, 0);
	post_quiesce(rig);
	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(admin_in_flight(rig), 0);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	assert_int_equal(rig_set_status(rig, VF1, VFE_ADMIN_VF_QUIESCED), TRY_AGAIN);
	come_back(port);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_INIT);
}

static void
a_stopping_vf_can_go_with_its_pf(void **state)
{
	struct rig *rig = *state;
	struct fake_bp_port *port = bring_up_busy(rig, 3);

	rig_admin_up(rig, 0);
	post_quiesce(rig);
	wr(rig_pf(rig), COMMON(device_status), 0, 1);
	assert_int_equal(admin_in_flight(rig), 0);
	come_back(port);
	assert_int_equal(rig_vf(rig, 0)->internal, VFE_ADMIN_VF_QUIESCED);
	blk_ctrl_destroy(&rig->dpu, blk_ctrl_of(&rig->dpu, rig_pf(rig)));
	blk_ctrl_destroy(&rig->dpu, blk_ctrl_of(&rig->dpu, rig_vf(rig, 0)));
}

static void
a_client_that_goes_leaves_a_device_that_waits(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 0);

	rig_disconnect(vf, &rig->dma);
	assert_false(port->queues[0].started);
	assert_int_equal(port->settles, 1);
	assert_true(vf->waits);
	rig_connect(vf);
	rig_map(rig, vf);
	assert_true(port->queues[0].started && port->queues[1].started);
}

static void
requests_that_are_lost_need_a_reset(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 2);

	port->release_error = -ETIMEDOUT;
	rig_disconnect(vf, &rig->dma);
	assert_true(rig->dma.keep);
	assert_false(vf->waits);
	assert_true((rd(vf, COMMON(device_status), 1) & VFE_VIRTIO_S_NEEDS_RESET) != 0);
	assert_string_not_equal(vf->last_error.text, "");
	rig_connect(vf);
	rig_map(rig, vf);
	assert_false(port->queues[0].started);
	port->queues[0].in_flight = 0;
	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
}

static void
memory_that_goes_under_requests_fails_the_device(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_bp_port *port = bring_up_busy(rig, 0);
	struct vfe_vfu_dma other = {
		.iova = RIG_IOVA + RIG_MEM_SIZE, .size = 4096, .prot = 3, .va = rig->pf_mem};

	assert_int_equal(rig_server(vf)->cfg.ops->dma_map(vf, &other), 0);
	rig_server(vf)->cfg.ops->dma_unmap(vf, &other);
	assert_false(other.keep);
	assert_true(port->queues[0].started);

	assert_int_equal(rig_server(vf)->cfg.ops->dma_map(vf, &other), 0);
	port->release_error = -ETIMEDOUT;
	rig_server(vf)->cfg.ops->dma_unmap(vf, &other);
	assert_true(other.keep);
	assert_false(port->queues[0].started);
	assert_true((rd(vf, COMMON(device_status), 1) & VFE_VIRTIO_S_NEEDS_RESET) != 0);
	port->release_error = 0;
}

static void
a_new_size_is_told(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct bp_disk *disk = bp_disk_find(rig->dpu.env.engine, "D");
	uint64_t generation;

	bring_up(rig, vf, disk_features);
	assert_int_equal(rd(vf, DEVICE_CONFIG, 8), 8 << 11);
	generation = rd(vf, COMMON(config_generation), 1);
	assert_int_equal(bp_disk_resize(disk, 16 << 20, NULL), 0);
	blk_disk_resized(vf, disk);
	assert_int_equal(rd(vf, DEVICE_CONFIG, 8), 16 << 11);
	assert_int_not_equal(rd(vf, COMMON(config_generation), 1), generation);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, rig_setup_blk, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_dialect_has_its_queue_at_0),
		TEST(a_disk_driver_has_it_behind_its_queues),
		TEST(a_vf_without_a_controller_refuses_commands),
		TEST(a_controller_comes_and_goes),
		TEST(write_cache_follows_negotiation_and_driver),
		TEST(a_reset_ends_when_requests_are_back),
		TEST(a_queue_reset_ends_when_its_requests_are_back),
		TEST(a_stop_is_answered_when_requests_are_back),
		TEST(other_commands_are_refused_while_it_stops),
		TEST(a_stop_that_takes_too_long_is_taken_back),
		TEST(a_reset_ends_the_wait_of_a_stop),
		TEST(a_stopping_vf_can_go_with_its_pf),
		TEST(a_client_that_goes_leaves_a_device_that_waits),
		TEST(requests_that_are_lost_need_a_reset),
		TEST(memory_that_goes_under_requests_fails_the_device),
		TEST(a_new_size_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
