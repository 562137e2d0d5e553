/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block devices: features, queues, configuration space, write cache, requests that were in flight.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include <vdpa_driver.h>

#include "fake_world.h"
#include "vdpa_priv.h"

enum {
	WRITEBACK_AT = offsetof(struct vfe_wire_blk_config, writeback),
	CONFIG_SIZE = sizeof(struct vfe_wire_blk_config),
};

static struct vfe_vdpa_error verr;

static int
vf_add(void)
{
	struct vfe_bdf bdf = fake_vf(0);

	return vfe_vdpa_vf_add(&bdf, NULL, &verr);
}

static int
setup(void **state)
{
	fake_start_blk();
	return fake_setup_started(state);
}

/* --- what is offered --- */

static void
features_and_queues_are_those_of_a_disk(void **state)
{
	uint64_t features, protocol;
	struct vfe_bdf bdf = fake_vf(0);
	uint32_t n;

	(void)state;
	assert_int_equal(vfe_vdpa_vf_vhost_features(&bdf, &features, &protocol), 0);
	assert_true((features & VFE_BIT(VFE_BLK_F_FLUSH)) != 0);
	assert_true((features & VFE_BIT(VFE_BLK_F_CONFIG_WCE)) != 0);
	assert_true((features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0);
	/* bit 21 is the announcing guest of net, bit 35 in-order completion */
	assert_true(
		(features & (VFE_BIT(VFE_NET_F_GUEST_ANNOUNCE) | VFE_BIT(VFE_VIRTIO_F_IN_ORDER) |
				    VFE_BIT(VFE_VIRTIO_F_RING_PACKED) |
				    VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM))) == 0);
	assert_true((protocol & VFE_BIT(VDPA_PROTOCOL_F_CONFIG)) != 0);
	assert_true((protocol & (VFE_BIT(VDPA_PROTOCOL_F_RARP) |
					VFE_BIT(VDPA_PROTOCOL_F_NET_MTU))) == 0);
	assert_int_equal(vdpa_ops.get_queue_num(vfe_vdpa_vf_device(&bdf), &n), 0);
	assert_int_equal(n, FAKE_QUEUES);
}

static void
people_are_told_of_the_disk(void **state)
{
	struct vfe_vdpa_vf_info *info = fake_info(0);

	(void)state;
	assert_int_equal(info->device_id, 0x1042);
	assert_int_equal(info->capacity, 2048 * 512);
	assert_int_equal(info->block_size, 512);
	assert_int_equal(info->queue_num, FAKE_QUEUES);
	assert_true(info->writeback);
	assert_false(info->read_only);
}

static void
messages_for_net_are_refused(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_NET_SET_MTU, 0), -1);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SEND_RARP, 0), -1);
}

static void
disks_that_make_no_sense_are_not_added(void **state)
{
	const struct vfe_wire_blk_config good = {
		.capacity = htole64(2048),
		.seg_max = htole32(254),
		.blk_size = htole32(4096),
		.num_queues = htole16(1),
	};

	(void)state;
	fake_start_blk();
	assert_int_equal(vfe_vdpa_pf_add(&fake_pf, &verr), 0);
	world.disk = good;
	world.disk.blk_size = htole32(513);
	assert_true(vf_add() < 0);
	world.disk = good;
	world.disk.blk_size = 0;
	assert_true(vf_add() < 0);
	world.disk = good;
	world.disk.capacity = htole64(UINT64_MAX / 512 + 1);
	assert_true(vf_add() < 0);
	world.disk = good;
	world.disk.seg_max = 0;
	assert_true(vf_add() < 0);
	world.disk = good;
	world.disk.num_queues = 0;
	assert_true(vf_add() < 0);
	assert_int_equal(verr.code, VFE_VDPA_VF_QUEUES);
	world.disk = good;
	world.disk.num_queues = htole16(1000);
	assert_true(vf_add() < 0);
	world.disk = good;
	assert_int_equal(vf_add(), 0);
	assert_int_equal(fake_info(0)->queue_num, 1);
	assert_int_equal(fake_info(0)->block_size, 4096);
	fake_stop();
}

static void
state_that_the_device_gets_is_of_a_disk(void **state)
{
	struct fake_guest *g = *state;
	struct vfe_state *s = &world.vf[0].state;

	fake_guest_start(g);
	assert_int_equal(s->type, VFE_STATE_TYPE_BLK);
	assert_memory_equal(&s->config.blk, &world.disk, sizeof(world.disk));
	assert_false(s->has_rx_mode);
	assert_true(s->queues[0].enable && s->queues[1].enable);
	assert_false(s->queues[2].enable);
}

/* --- configuration space --- */

static int
set_config(int vid, uint32_t offset, uint32_t size, uint32_t flags, uint8_t value)
{
	struct {
		struct vdpa_msg_config config;
		uint8_t more[16];
	} msg = {.config = {.offset = offset, .size = size, .flags = flags}};

	memset(msg.config.region, value, sizeof(msg.config.region));
	return fake_send(vid, VDPA_MSG_SET_CONFIG, &msg, 12 + size, NULL, 0);
}

static void
configuration_space_is_read_within_its_bounds(void **state)
{
	struct fake_guest *g = *state;
	uint8_t buf[VDPA_MSG_CONFIG_MAX];

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(fake_get_config(g->vid, 0, CONFIG_SIZE, buf), 0);
	assert_memory_equal(buf, &world.disk, CONFIG_SIZE);
	assert_int_equal(fake_get_config(g->vid, WRITEBACK_AT, 1, buf), 0);
	assert_int_equal(buf[0], 1);
	assert_int_equal(fake_get_config(g->vid, 0, CONFIG_SIZE + 1, buf), -1);
	assert_int_equal(fake_get_config(g->vid, CONFIG_SIZE - 1, 2, buf), -1);
	assert_int_equal(fake_get_config(g->vid, UINT32_MAX, 2, buf), -1);
	assert_int_equal(fake_get_config(g->vid, 0, VDPA_MSG_CONFIG_MAX + 1, buf), -2);
}

static void
nothing_but_the_write_cache_is_written(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 0, 0, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 2, 0, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT - 1, 1, 0, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT + 1, 1, 0, 0), -1);
	assert_int_equal(set_config(g->vid, UINT32_MAX, 1, 0, 0), -1);
	assert_int_equal(set_config(g->vid, 0, CONFIG_SIZE, 0, 0), -1);
	assert_int_equal(set_config(g->vid, 0, VDPA_MSG_CONFIG_MAX + 1, 0, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, 2, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, UINT32_MAX, 0), -1);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, 0, 2), -1);
	fake_flush();
	assert_int_equal(world.config_writes, 0);
	assert_string_equal(fake_info(0)->state, "running");
}

static void
wait_config_writes(unsigned int n)
{
	pthread_mutex_lock(&world.lock);
	while (world.config_writes < n)
		pthread_cond_wait(&world.cond, &world.lock);
	pthread_mutex_unlock(&world.lock);
}

static void
write_cache_goes_to_the_device_that_runs(void **state)
{
	struct fake_guest *g = *state;
	uint8_t buf[1];

	fake_guest_start(g);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, 0, 0), 0);
	assert_int_equal(fake_get_config(g->vid, WRITEBACK_AT, 1, buf), 0);
	assert_int_equal(buf[0], 0);
	wait_config_writes(1);
	assert_int_equal(world.config_write_off, WRITEBACK_AT);
	assert_int_equal(world.config_write_value, 0);
	assert_int_equal(world.vf[0].restores, 1); /* it was not restarted for that */
	assert_false(fake_info(0)->writeback);
}

static void
write_cache_of_a_stopped_guest_is_in_the_state(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, 1, 0), 0);
	fake_guest_run(g, 1);
	assert_int_equal(world.vf[0].state.config.blk.writeback, 0);
}

static void
lose_and_return(void)
{
	const struct vfe_bdf bdf = fake_vf(0);

	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
}

static void
write_cache_is_kept_when_the_device_comes_back(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	assert_int_equal(set_config(g->vid, WRITEBACK_AT, 1, 0, 0), 0);
	wait_config_writes(1);
	world.disk.writeback = 1; /* as a new device has it */
	lose_and_return();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.config.blk.writeback, 0);
	assert_false(fake_info(0)->writeback);
}

static void
read_slave(struct fake_guest *g, struct vdpa_msg_hdr *ret)
{
	assert_int_equal(recv(g->slave, ret, sizeof(*ret), MSG_WAITALL), (int)sizeof(*ret));
}

static void
new_size_is_told_to_the_front_end(void **state)
{
	const uint64_t bits = VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ) | VFE_BIT(VDPA_PROTOCOL_F_CONFIG);
	struct fake_guest *g = *state;
	struct vdpa_msg_hdr hdr;
	uint64_t capacity;

	fake_guest_connect(g, FAKE_PROTOCOL_STATUS | bits);
	fake_guest_slave(g);
	fake_guest_run(g, 1);
	pthread_mutex_lock(&world.lock);
	world.disk.capacity = htole64(4096);
	pthread_mutex_unlock(&world.lock);
	fake_config_interrupt(0);
	read_slave(g, &hdr);
	assert_int_equal(hdr.request, VDPA_SLAVE_CONFIG_CHANGE);
	assert_int_equal(hdr.size, 0);
	assert_int_equal(fake_get_config(g->vid, 0, 8, (uint8_t *)&capacity), 0);
	assert_int_equal(le64toh(capacity), 4096);
}

static void
disk_that_comes_back_smaller_is_not_taken(void **state)
{
	const struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	world.disk.capacity = htole64(2047);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), -EXDEV);
	assert_non_null(strstr(verr.err.text, "2047 sectors"));
	world.disk.capacity = htole64(2049);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
}

/* --- requests in flight --- */

static void
done_in_order(struct fake_guest *g, uint16_t n)
{
	uint16_t i;

	for (i = 0; i < n; i++) {
		fake_guest_set_avail(g, 0, i, i % 7);
		fake_guest_complete(g, 0, i, i % 7);
	}
}

static void
requests_of_a_device_that_keeps_order_are_done_again(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	done_in_order(g, 100);
	fake_guest_set_avail(g, 0, 100, 3);
	fake_guest_set_avail(g, 0, 101, 9);
	lose_and_return();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 100);
	assert_int_equal(world.vf[0].state.queues[0].last_used_idx, 100);
}

static void
requests_of_a_device_that_keeps_none_wait_for_the_guest(void **state)
{
	struct fake_guest *g = *state;
	unsigned int restores;

	fake_guest_start(g);
	restores = world.vf[0].restores;
	done_in_order(g, 100);
	fake_guest_set_avail(g, 0, 100, 20); /* this one is slow */
	fake_guest_set_avail(g, 0, 101, 21);
	fake_guest_complete(g, 0, 100, 21);
	lose_and_return();
	fake_wait_error(0, "in flight");
	assert_int_equal(world.vf[0].restores, restores);
	assert_false(fake_info(0)->configured);

	/* its driver begins anew, with rings that are the device's from their start */
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0), 0);
	fake_guest_driver_ok(g);
	fake_wait_state(0, "running");
}

static void
head_that_waits_twice_betrays_the_order(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	done_in_order(g, 70);
	fake_guest_set_avail(g, 0, 70, 1);
	fake_guest_set_avail(g, 0, 71, 1);
	lose_and_return();
	fake_wait_error(0, "in flight");
}

static void
more_requests_than_entries_do_not_start(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	done_in_order(g, 1);
	fake_guest_set_avail(g, 0, FAKE_RING_SIZE + 1, 1);
	lose_and_return();
	fake_wait_error(0, "available index");
}

static void
order_does_not_matter_when_nothing_is_in_flight(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_set_avail(g, 0, 0, 20);
	fake_guest_set_avail(g, 0, 1, 21);
	fake_guest_complete(g, 0, 0, 21);
	fake_guest_complete(g, 0, 1, 20);
	lose_and_return();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 2);
}

static void
wait_quiet(void)
{
	struct vfe_bdf bdf = fake_vf(0);
	struct vdpa_vf *vf = vdpa_vf_find(&bdf);

	pthread_mutex_lock(&vf->lock);
	while (!vf->applied[0].quiet)
		pthread_cond_wait(&vf->changed, &vf->lock);
	pthread_mutex_unlock(&vf->lock);
}

static void
requests_that_came_after_the_death_are_done_in_whatever_order(void **state)
{
	const struct vfe_bdf bdf = fake_vf(0);
	struct fake_guest *g = *state;

	fake_guest_start(g);
	fake_guest_set_avail(g, 0, 0, 20);
	fake_guest_set_avail(g, 0, 1, 21);
	fake_guest_complete(g, 0, 0, 21);
	fake_guest_complete(g, 0, 1, 20);
	fake_hang_up(&bdf);
	fake_wait_state(0, "lost");
	wait_quiet();
	fake_guest_set_avail(g, 0, 2, 30);
	assert_int_equal(vfe_vdpa_reattach(&bdf, &verr), 0);
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 2);
}

/* What is in the rings from before, of another host maybe, is nothing against this device. */
static void
order_before_the_start_does_not_matter(void **state)
{
	struct fake_guest *g = *state;

	fake_guest_set_avail(g, 0, 0, 20);
	fake_guest_set_avail(g, 0, 1, 21);
	fake_guest_complete(g, 0, 0, 21);
	fake_guest_complete(g, 0, 1, 20);
	fake_guest_start(g);
	fake_guest_set_avail(g, 0, 2, 5);
	fake_guest_complete(g, 0, 2, 5);
	fake_guest_set_avail(g, 0, 3, 6);
	lose_and_return();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 3);
}

/* A device that was stopped as it should has nothing in flight, in whatever order it worked. */
static void
order_does_not_matter_after_a_stop(void **state)
{
	struct fake_guest *g = *state;
	unsigned int restores;

	fake_guest_start(g);
	fake_guest_set_avail(g, 0, 0, 20);
	fake_guest_set_avail(g, 0, 1, 21);
	fake_guest_complete(g, 0, 0, 21);
	fake_guest_complete(g, 0, 1, 20);
	fake_guest_set_avail(g, 0, 2, 5); /* not taken any more */
	restores = world.vf[0].restores;
	fake_guest_enable(g, 0, false);
	while (world.vf[0].restores == restores)
		fake_flush();
	fake_wait_state(0, "running"); /* the other ring */
	fake_guest_enable(g, 0, true);
	while (world.vf[0].restores == restores + 1)
		fake_flush();
	fake_wait_state(0, "running");
	assert_int_equal(world.vf[0].state.queues[0].last_avail_idx, 2);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, fake_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(features_and_queues_are_those_of_a_disk),
		T(people_are_told_of_the_disk),
		T(messages_for_net_are_refused),
		cmocka_unit_test(disks_that_make_no_sense_are_not_added),
		T(state_that_the_device_gets_is_of_a_disk),
		T(configuration_space_is_read_within_its_bounds),
		T(nothing_but_the_write_cache_is_written),
		T(write_cache_goes_to_the_device_that_runs),
		T(write_cache_of_a_stopped_guest_is_in_the_state),
		T(write_cache_is_kept_when_the_device_comes_back),
		T(new_size_is_told_to_the_front_end),
		T(disk_that_comes_back_smaller_is_not_taken),
		T(requests_of_a_device_that_keeps_order_are_done_again),
		T(requests_of_a_device_that_keeps_none_wait_for_the_guest),
		T(head_that_waits_twice_betrays_the_order),
		T(more_requests_than_entries_do_not_start),
		T(order_does_not_matter_when_nothing_is_in_flight),
		T(requests_that_came_after_the_death_are_done_in_whatever_order),
		T(order_before_the_start_does_not_matter),
		T(order_does_not_matter_after_a_stop),
	};

	return cmocka_run_group_tests_name("vdpa_blk", tests, NULL, NULL);
}
