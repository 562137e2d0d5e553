/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The life of a function's queues: what starts, stops and breaks them.
 */

#undef NDEBUG

#include "rig.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

static bool
needs_reset(struct function *fn)
{
	return (rd(fn, COMMON(device_status), 1) & VFE_VIRTIO_S_NEEDS_RESET) != 0;
}

static uint64_t
fd_count(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) < 0 ? 0 : n;
}

static int
arm(struct function *fn, uint32_t vector)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int copy = dup(fd);

	assert_int_equal(
		rig_server(fn)->cfg.ops->irq_set(fn, VFE_VFU_IRQ_MSIX, vector, 1, &copy), 0);
	return fd;
}

static void
every_function_has_its_socket(void **state)
{
	struct rig *rig = *state;

	assert_string_equal(rig_server(rig_pf(rig))->path, "/tmp/0000:af:00.2.sock");
	assert_string_equal(rig_server(rig_vf(rig, 0))->path, "/tmp/0000:af:04.5.sock");
	assert_string_equal(rig_server(rig_vf(rig, 1))->path, "/tmp/0000:af:04.6.sock");
	assert_int_equal(rig_server(rig_vf(rig, 1))->cfg.irq_counts[VFE_VFU_IRQ_MSIX], 6);
	assert_string_equal(rig_port(rig_vf(rig, 1))->cfg.tap_name, "en3f0pf0sf3001");
	assert_int_equal(rig_port(rig_vf(rig, 0))->mtu, 1500);
}

static void
driver_ok_starts_the_enabled_queues(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);
	int fd = arm(vf, 2);

	rig_connect(vf);
	rig_map(rig, vf);
	rig_negotiate(vf, VFE_BIT(VFE_VIRTIO_F_VERSION_1));
	rig_enable(vf, 0);
	rig_enable(vf, 1);
	assert_int_equal(port->starts, 0);
	wr(vf, COMMON(device_status), S_ALL, 1);
	assert_true(port->queues[0].started && port->queues[1].started);
	assert_int_equal(port->starts, 2);
	assert_int_equal(port->queues[1].cfg.ring.desc, rig_desc(1));
	assert_int_equal(port->queues[1].cfg.ring.size, RIG_QUEUE_SIZE);
	assert_int_equal(port->queues[1].cfg.ring.last_avail_idx, 0);
	assert_true(port->queues[1].cfg.kick_fd >= 0);
	assert_int_equal(port->queues[0].cfg.call_fd, -1);
	assert_true(port->queues[1].cfg.call_fd >= 0);
	assert_non_null(port->map);
	assert_int_equal(port->queues[0].kicks, 1); /* doorbells from before count */
	close(fd);
}

/* The first @n queues are enabled, and DRIVER_OK is set. */
static void
start(struct rig *rig, struct function *fn, uint64_t features, uint16_t n)
{
	rig_connect(fn);
	rig_map(rig, fn);
	rig_negotiate(fn, features);
	for (uint16_t i = 0; i < n; i++)
		rig_enable(fn, i);
	wr(fn, COMMON(device_status), S_ALL, 1);
}

static void
without_a_control_queue_all_enabled_pairs_receive_everything(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	start(rig, vf, VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_NET_F_MQ), 4);
	assert_int_equal(rig_port(vf)->pairs, 2);
	assert_true(rig_port(vf)->filter.promisc);
	assert_false(rig_port(vf)->filter.vlan_filter);
}

/* As a vhost-user front-end does that passes on all that its guest negotiated with it. */
static void
a_control_queue_that_is_not_set_up_counts_as_none(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	start(rig, vf, vfe_vdev_features(vf->vdev), RIG_CTRL);
	assert_int_equal(rig_port(vf)->pairs, 2);
	assert_true(rig_port(vf)->filter.promisc);
	assert_false(rig_port(vf)->filter.vlan_filter);
}

static void
with_a_control_queue_one_pair_is_in_use_at_first(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	start(rig, vf, vfe_vdev_features(vf->vdev), RIG_CTRL + 1);
	assert_int_equal(rig_port(vf)->starts, 4); /* the control queue is not the data path's */
	assert_true(vf->queues[RIG_CTRL].started);
	assert_int_equal(rig_port(vf)->pairs, 1);
	assert_true(rig_port(vf)->filter.vlan_filter);
}

static void
a_queue_that_does_not_start_fails_its_device_only(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	int fd = arm(vf, 0);

	rig_bring_up(rig, rig_vf(rig, 1));
	rig_port(vf)->start_error = -EFAULT;
	rig_connect(vf);
	rig_map(rig, vf);
	rig_negotiate(vf, VFE_BIT(VFE_VIRTIO_F_VERSION_1));
	wr(vf, COMMON(config_msix_vector), 0, 2);
	rig_enable(vf, 0);
	wr(vf, COMMON(device_status), S_ALL, 1);
	assert_true(needs_reset(vf));
	assert_int_equal(fd_count(fd), 1);
	assert_non_null(strstr(vf->last_error.text, "queue 0: the fake"));
	assert_false(needs_reset(rig_vf(rig, 1)));
	assert_true(rig_port(rig_vf(rig, 1))->queues[0].started);
	close(fd);
}

static void
a_broken_queue_stops_the_device_until_its_reset(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_bring_up(rig, vf);
	function_on_broken(vf, 1, "queue 1: head 99 of a queue of 64");
	assert_true(needs_reset(vf));
	assert_string_equal(vf->last_error.text, "queue 1: head 99 of a queue of 64");
	assert_false(rig_port(vf)->queues[0].started || rig_port(vf)->queues[1].started);
	function_on_broken(vf, 1, "again"); /* late news of a queue that is stopped */
	assert_string_equal(vf->last_error.text, "queue 1: head 99 of a queue of 64");

	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
	rig_server(vf)->cfg.ops->dma_unmap(vf, &rig->dma);
	rig_bring_up(rig, vf);
	assert_false(needs_reset(vf));
	assert_true(rig_port(vf)->queues[1].started);
	assert_string_equal(vf->last_error.text, "");
}

static void
reset_forgets_the_indices(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_bring_up(rig, vf);
	rig_port(vf)->queues[0].avail = 77;
	rig_port(vf)->queues[0].used = 77;
	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rig_port(vf)->stops, 2);
	assert_int_equal(vf->queues[0].avail, 0);
	assert_int_equal(vf->internal, VFE_ADMIN_VF_INIT);
}

static void
a_slow_reset_shows_its_end(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct vfe_deadline deadline = vfe_deadline_in_ms(2000);

	rig_bring_up(rig, vf);
	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);
	assert_false(rig_port(vf)->queues[0].started);
	while (rd(vf, COMMON(device_status), 1) != 0 && !vfe_deadline_passed(deadline))
		ev_run(rig->loop, EVRUN_ONCE);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
}

static void
function_level_reset_stops_queues_too(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_bring_up(rig, vf);
	assert_int_equal(rig_server(vf)->cfg.ops->reset(vf), 0);
	assert_int_equal(rd(vf, COMMON(device_status), 1), 0);
	assert_false(rig_port(vf)->queues[0].started);
}

static void
queue_reset_takes_one_queue(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);

	rig_bring_up(rig, vf);
	port->queues[1].avail = 5;
	wr(vf, COMMON(queue_select), 1, 2);
	wr(vf, COMMON(queue_reset), 1, 2);
	assert_int_equal(rd(vf, COMMON(queue_reset), 2), 0);
	assert_true(port->queues[0].started);
	assert_false(port->queues[1].started);
	rig_enable(vf, 1);
	assert_true(port->queues[1].started);
	assert_int_equal(port->queues[1].cfg.ring.last_avail_idx, 0);
}

static void
interrupts_follow_their_eventfds(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	int fd;

	rig_bring_up(rig, vf);
	assert_int_equal(rig_port(vf)->queues[0].cfg.call_fd, -1);
	fd = arm(vf, 1);
	assert_true(rig_port(vf)->queues[0].cfg.call_fd >= 0);
	assert_int_equal(rig_port(vf)->queues[1].cfg.call_fd, -1);
	wr(vf, COMMON(queue_select), 0, 2);
	wr(vf, COMMON(queue_msix_vector), VFE_VIRTIO_MSI_NO_VECTOR, 2);
	assert_int_equal(rig_port(vf)->queues[0].cfg.call_fd, -1);
	close(fd);
}

static void
doorbells_by_message_reach_the_worker(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	int before;

	rig_bring_up(rig, vf);
	before = rig_port(vf)->queues[1].kicks;
	wr(vf, vfe_vdev_doorbell_offset(vf->vdev, 1), 1, 2);
	assert_int_equal(rig_port(vf)->queues[1].kicks, before + 1);
}

static void
doorbell_eventfds_exist_while_there_is_a_client(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	const struct vfe_vfu_server_region *bar = &rig_server(vf)->cfg.regions[0];

	assert_int_equal(bar->nr_io_fds, 5);
	assert_int_equal(bar->mmap_fd, -1);
	assert_int_equal(bar->io_fds[0].fd, -1);
	rig_connect(vf);
	assert_true(bar->io_fds[4].fd >= 0);
	assert_int_equal(bar->io_fds[4].offset, vfe_vdev_doorbell_offset(vf->vdev, 4));
	rig_disconnect(vf, NULL);
	assert_int_equal(bar->io_fds[4].fd, -1);
}

static void
polled_doorbells_are_memory_and_the_control_queue_s_is_not(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0), *pf = rig_pf(rig);
	const struct vfe_vfu_server_region *bar = &rig_server(vf)->cfg.regions[0];

	assert_true(bar->mmap_fd >= 0);
	assert_int_equal(bar->nr_areas, 1);
	assert_int_equal(bar->areas[0].offset, vfe_vdev_doorbell_offset(vf->vdev, 0));
	assert_int_equal(bar->areas[0].size, 4 * 4096);
	assert_int_equal(bar->nr_io_fds, 1);
	assert_int_equal(bar->io_fds[0].offset, vfe_vdev_doorbell_offset(vf->vdev, RIG_CTRL));
	/* of a PF also the places where the admin queue can be */
	assert_int_equal(rig_server(pf)->cfg.regions[0].nr_io_fds, 2);

	rig_bring_up(rig, vf);
	assert_int_equal(rig_port(vf)->queues[0].cfg.kick_fd, -1);
}

static void
a_client_that_goes_leaves_the_rings_in_order(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct fake_port *port = rig_port(vf);

	rig_bring_up(rig, vf);
	port->queues[0].avail = 9;
	port->queues[0].used = 9;
	rig_disconnect(vf, &rig->dma); /* dp_queue_stop() asserts that the map was still there */
	assert_false(port->queues[0].started);
	assert_null(port->map);
	assert_int_equal(rd(vf, COMMON(device_status), 1), S_ALL);

	rig_connect(vf);
	rig_map(rig, vf);
	assert_true(port->queues[0].started);
	assert_int_equal(port->queues[0].cfg.ring.last_avail_idx, 9);
	assert_int_equal(port->queues[0].cfg.ring.last_used_idx, 9);
}

static void
memory_without_the_rings_does_not_make_it_go_on(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct vfe_vfu_dma other = {.iova = 0x40000000, .size = 4096, .prot = 3, .va = rig->mem};

	rig_bring_up(rig, vf);
	rig_disconnect(vf, &rig->dma);
	rig_connect(vf);
	assert_int_equal(rig_server(vf)->cfg.ops->dma_map(vf, &other), 0);
	assert_false(rig_port(vf)->queues[0].started);
	/* and after a reset it does not go on at all */
	wr(vf, COMMON(device_status), 0, 1);
	rig_map(rig, vf);
	assert_false(rig_port(vf)->queues[0].started);
}

static void
unmapping_a_ring_in_use_fails_the_device(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct vfe_vfu_dma other = {.iova = 0x40000000, .size = 4096, .prot = 3, .va = rig->mem};
	const struct vfe_vfu_server_ops *ops = rig_server(vf)->cfg.ops;

	rig_bring_up(rig, vf);
	assert_int_equal(ops->dma_map(vf, &other), 0);
	assert_int_equal(rig_port(vf)->map->nr, 2);
	ops->dma_unmap(vf, &other);
	assert_int_equal(rig_port(vf)->map->nr, 1);
	assert_false(needs_reset(vf));
	ops->dma_unmap(vf, &rig->dma);
	assert_true(needs_reset(vf));
	assert_null(rig_port(vf)->map);
	assert_non_null(strstr(vf->last_error.text, "0x100000"));
}

static void
memory_that_shrank_costs_the_client_its_connection(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	rig_bring_up(rig, vf);
	atomic_store(&rig->dma.tripped, true);
	function_on_broken(vf, 0, "available index 0 is behind");
	assert_true(needs_reset(vf));
	assert_non_null(strstr(vf->last_error.text, "has shrunk"));
	assert_non_null(strstr(rig_server(vf)->kicked_out, "has shrunk"));
	atomic_store(&rig->dma.tripped, false);
}

/* One command on the control queue; returns its ack byte. */
static uint8_t
ctrl(struct rig *rig, struct function *vf, uint8_t class_, uint8_t cmd, const void *data,
	size_t len)
{
	static uint16_t n;
	struct vfe_wire_vring_desc *desc = (void *)(rig->mem + rig_desc(RIG_CTRL) - RIG_IOVA);
	struct vfe_wire_vring_avail *avail = (void *)((uint8_t *)desc + 2048);
	struct vfe_wire_vring_used *used = (void *)((uint8_t *)desc + 4096);
	uint8_t *buf = rig->mem + RIG_MEM_SIZE / 2;
	uint64_t at = RIG_IOVA + RIG_MEM_SIZE / 2;

	if (avail->idx == 0)
		n = 0;
	buf[0] = class_;
	buf[1] = cmd;
	memcpy(buf + 2, data, len);
	buf[4000] = 0xee;
	desc[0] = (struct vfe_wire_vring_desc){at, (uint32_t)(2 + len), VFE_VRING_DESC_F_NEXT, 1};
	desc[1] = (struct vfe_wire_vring_desc){at + 4000, 1, VFE_VRING_DESC_F_WRITE, 0};
	avail->ring[n % RIG_QUEUE_SIZE] = 0;
	avail->idx = ++n;
	wr(vf, vfe_vdev_doorbell_offset(vf->vdev, RIG_CTRL), RIG_CTRL, 2);
	assert_int_equal(used->idx, n);
	return buf[4000];
}

static void
ctrl_up(struct rig *rig, struct function *vf, uint64_t without)
{
	start(rig, vf, vfe_vdev_features(vf->vdev) & ~without, RIG_CTRL + 1);
	rig_turn(rig);
}

static void
control_commands_change_filter_and_pairs(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	const uint8_t mac[6] = {2, 0, 0, 0, 0, 0x77}, group[6] = {1, 2, 3, 4, 5, 6};
	const uint8_t table[] = {0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6};
	const struct dp_rx_filter *filter = &rig_port(vf)->filter;

	ctrl_up(rig, vf, 0);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_PROMISC, "\0", 1), 0);
	assert_false(filter->promisc);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_ADDR_SET, mac, 6), 0);
	assert_memory_equal(filter->mac, mac, 6);
	assert_int_equal(rd(vf, 0x2005, 1), 0x77); /* device configuration */
	assert_int_equal(
		ctrl(rig, vf, VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)),
		0);
	assert_int_equal(filter->nr_unicast, 0);
	assert_int_equal(filter->nr_multicast, 1);
	assert_memory_equal(filter->multicast[0], group, 6);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_ADD, "\x0a\0", 2), 0);
	assert_int_equal(filter->vlan[1], 1 << 2);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_DEL, "\x0a\0", 2), 0);
	assert_int_equal(filter->vlan[1], 0);
	assert_int_equal(
		ctrl(rig, vf, VFE_NET_CTRL_MQ, VFE_NET_CTRL_MQ_VQ_PAIRS_SET, "\2\0", 2), 0);
	assert_int_equal(rig_port(vf)->pairs, 2);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_ANNOUNCE, VFE_NET_CTRL_ANNOUNCE_ACK, "", 0), 0);

	/* after a reset the operator's MAC address is back */
	wr(vf, COMMON(device_status), 0, 1);
	assert_int_equal(rd(vf, 0x2005, 1), 0x20);
}

static void
control_commands_that_make_no_sense_change_nothing(void **state)
{
	static const struct {
		uint8_t class_, cmd;
		const char *data;
		size_t len;
	} bad[] = {
		{VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_PROMISC, "", 0},
		{VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_PROMISC, "\2", 1},
		{VFE_NET_CTRL_RX, VFE_NET_CTRL_RX_NOBCAST, "\1", 1}, /* CTRL_RX_EXTRA not offered */
		{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_ADDR_SET, "\2\0\0\0\0", 5},
		{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_ADDR_SET, "\1\0\0\0\0\1", 6},
		{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0", 4},
		{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, "\xff\xff\xff\xff\0\0\0\0", 8},
		{VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, "\0\0\0\0\1\0\0\0\1\2\3\4\5", 13},
		{VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_ADD, "\0\x10", 2},
		{VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_ADD, "\1", 1},
		{VFE_NET_CTRL_MQ, VFE_NET_CTRL_MQ_VQ_PAIRS_SET, "\0\0", 2},
		{VFE_NET_CTRL_MQ, VFE_NET_CTRL_MQ_VQ_PAIRS_SET, "\3\0", 2},
		{VFE_NET_CTRL_MQ, 1, "\1\0", 2},
		{200, 200, "", 0},
	};
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	struct dp_rx_filter before;
	size_t i;

	ctrl_up(rig, vf, 0);
	before = rig_port(vf)->filter;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		assert_int_equal(
			ctrl(rig, vf, bad[i].class_, bad[i].cmd, bad[i].data, bad[i].len), 1);
	assert_memory_equal(&before, &rig_port(vf)->filter, sizeof(before));
	assert_int_equal(rig_port(vf)->pairs, 1);
	assert_false(needs_reset(vf));
}

static void
a_table_that_is_too_long_lets_everything_of_its_kind_through(void **state)
{
	static uint8_t table[8 + 6 * (DP_MAX_MACS + 1)];
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	ctrl_up(rig, vf, 0);
	memset(table, 0, sizeof(table));
	table[0] = (DP_MAX_MACS + 1) & 0xff;
	table[1] = (DP_MAX_MACS + 1) >> 8;
	assert_int_equal(
		ctrl(rig, vf, VFE_NET_CTRL_MAC, VFE_NET_CTRL_MAC_TABLE_SET, table, sizeof(table)),
		0);
	assert_true(rig_port(vf)->filter.alluni);
	assert_false(rig_port(vf)->filter.allmulti);
	assert_int_equal(rig_port(vf)->filter.nr_unicast, 0);
}

static void
control_commands_need_their_feature(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);

	ctrl_up(rig, vf, VFE_BIT(VFE_NET_F_CTRL_VLAN));
	assert_false(rig_port(vf)->filter.vlan_filter);
	assert_int_equal(ctrl(rig, vf, VFE_NET_CTRL_VLAN, VFE_NET_CTRL_VLAN_ADD, "\1\0", 2), 1);
}

static void
an_operator_s_change_interrupts_the_driver(void **state)
{
	struct rig *rig = *state;
	struct function *vf = rig_vf(rig, 0);
	const struct function_change change = {
		.has_link = true, .link = false, .has_mtu = true, .mtu = 9000};
	uint64_t generation;
	int fd = arm(vf, 0);

	rig_bring_up(rig, vf);
	generation = rd(vf, COMMON(config_generation), 1);
	assert_int_equal(vf->type->modify(vf, &change, NULL), 0);
	assert_int_equal(fd_count(fd), 1);
	assert_int_equal(rd(vf, 0x2006, 2), 0);
	assert_int_equal(rd(vf, 0x200a, 2), 9000);
	assert_int_equal(rig_port(vf)->mtu, 9000);
	assert_int_not_equal(rd(vf, COMMON(config_generation), 1), generation);
	close(fd);
}

static void
the_admin_queue_makes_room_for_a_control_queue(void **state)
{
	struct rig *rig = *state;
	struct function *pf = rig_pf(rig);
	uint64_t base = VFE_BIT(VFE_VIRTIO_F_VERSION_1);

	assert_int_equal(rd(pf, COMMON(num_queues), 2), RIG_CTRL);
	assert_int_equal(rd(pf, COMMON(admin_queue_index), 2), RIG_CTRL);
	assert_int_equal(rd(pf, COMMON(admin_queue_num), 2), 1);
	rig_negotiate(pf, base | VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_MQ));
	assert_int_equal(rd(pf, COMMON(num_queues), 2), RIG_CTRL + 1);
	assert_int_equal(rd(pf, COMMON(admin_queue_index), 2), RIG_CTRL + 1);
	wr(pf, COMMON(device_status), 0, 1);
	/* without MQ the control queue is number 2 and in nobody's way */
	rig_negotiate(pf, base | VFE_BIT(VFE_NET_F_CTRL_VQ));
	assert_int_equal(rd(pf, COMMON(admin_queue_index), 2), RIG_CTRL);
	assert_int_equal(rd(rig_vf(rig, 0), COMMON(admin_queue_num), 2), 0);
	assert_int_equal(rd(rig_vf(rig, 0), COMMON(num_queues), 2), RIG_CTRL + 1);
}

#define T(f)      cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
#define T_SLOW(f) cmocka_unit_test_setup_teardown(f, rig_setup_slow, rig_teardown)
#define T_POLL(f) cmocka_unit_test_setup_teardown(f, rig_setup_polling, rig_teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_function_has_its_socket),
		T(driver_ok_starts_the_enabled_queues),
		T(without_a_control_queue_all_enabled_pairs_receive_everything),
		T(a_control_queue_that_is_not_set_up_counts_as_none),
		T(with_a_control_queue_one_pair_is_in_use_at_first),
		T(a_queue_that_does_not_start_fails_its_device_only),
		T(a_broken_queue_stops_the_device_until_its_reset),
		T(reset_forgets_the_indices),
		T_SLOW(a_slow_reset_shows_its_end),
		T(function_level_reset_stops_queues_too),
		T(queue_reset_takes_one_queue),
		T(interrupts_follow_their_eventfds),
		T(doorbells_by_message_reach_the_worker),
		T(doorbell_eventfds_exist_while_there_is_a_client),
		T_POLL(polled_doorbells_are_memory_and_the_control_queue_s_is_not),
		T(a_client_that_goes_leaves_the_rings_in_order),
		T(memory_without_the_rings_does_not_make_it_go_on),
		T(unmapping_a_ring_in_use_fails_the_device),
		T(memory_that_shrank_costs_the_client_its_connection),
		T(control_commands_change_filter_and_pairs),
		T(control_commands_that_make_no_sense_change_nothing),
		T(a_table_that_is_too_long_lets_everything_of_its_kind_through),
		T(control_commands_need_their_feature),
		T(an_operator_s_change_interrupts_the_driver),
		T(the_admin_queue_makes_room_for_a_control_queue),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
