/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * librte_vhost, and guests behind it.
 */

#undef NDEBUG

#include "fake_world.h"

#include <assert.h>
#include <endian.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <rte_dev.h>
#include <rte_vhost.h>
#include <vdpa_driver.h>

#include "vdpa_priv.h"

/* --- librte_vhost --- */

static struct connection {
	const struct rte_vhost_user_extern_ops *ops;
	struct {
		int kick;
		int call;
		uint16_t base;
	} vrings[256];
	uint64_t features;
} connections[FAKE_VFS];

struct rte_vdpa_device *
rte_vdpa_register_device(struct rte_device *rte_dev, struct rte_vdpa_dev_ops *ops)
{
	struct rte_vdpa_device *dev;
	int ret;

	if (fake_stage_fails(FAKE_STAGE_REGISTER, &ret))
		return NULL;
	dev = calloc(1, sizeof(*dev));
	assert(dev != NULL);
	dev->device = rte_dev;
	dev->ops = ops;
	world.registered++;
	return dev;
}

int
rte_vdpa_unregister_device(struct rte_vdpa_device *dev)
{
	world.registered--;
	free(dev);
	return 0;
}

struct rte_device *
rte_vdpa_get_rte_device(struct rte_vdpa_device *dev)
{
	return dev->device;
}

int
rte_vhost_extern_callback_register(
	int vid, struct rte_vhost_user_extern_ops const *const ops, void *ctx)
{
	(void)ctx;
	connections[vid].ops = ops;
	return 0;
}

int
rte_vhost_get_ifname(int vid, char *buf, size_t len)
{
	(void)vid;
	(void)buf;
	(void)len;
	return -1;
}

int
rte_vhost_get_vhost_vring(int vid, uint16_t idx, struct rte_vhost_vring *vring)
{
	vring->kickfd = connections[vid].vrings[idx].kick;
	vring->callfd = connections[vid].vrings[idx].call;
	return 0;
}

int
rte_vhost_set_vring_base(int vid, uint16_t idx, uint16_t last_avail, uint16_t last_used)
{
	assert(last_avail == last_used);
	connections[vid].vrings[idx].base = last_avail;
	return 0;
}

int
rte_vhost_get_mem_table(int vid, struct rte_vhost_memory **mem)
{
	(void)vid;
	(void)mem;
	return -1; /* the fds are where the driver looks for them */
}

/* What the library does with a message between the two handlers. */
static void
library_handles(int vid, struct vdpa_msg *msg)
{
	struct connection *c = &connections[vid];
	unsigned int q = msg->payload.u64 & 0xff;
	int i, fd;

	switch (msg->hdr.request) {
	case VDPA_MSG_SET_VRING_KICK:
	case VDPA_MSG_SET_VRING_CALL:
		fd = (msg->payload.u64 & VDPA_MSG_RING_NOFD) != 0 ? -1 : msg->fds[0];
		if (msg->hdr.request == VDPA_MSG_SET_VRING_KICK) {
			vfe_close(&c->vrings[q].kick);
			c->vrings[q].kick = fd;
		} else {
			vfe_close(&c->vrings[q].call);
			c->vrings[q].call = fd;
		}
		return;
	case VDPA_MSG_SET_VRING_ADDR:
		/* the library must learn nothing that it could translate */
		assert(msg->payload.addr.desc == UINT64_MAX && msg->payload.addr.log == 0);
		return;
	case VDPA_MSG_SET_LOG_BASE:
		fail_msg("the library must not map the log");
		return;
	case VDPA_MSG_GET_VRING_BASE:
		q = msg->payload.state.index;
		vfe_close(&c->vrings[q].kick);
		vfe_close(&c->vrings[q].call);
		msg->payload.state.num = c->vrings[q].base;
		return;
	default:
		for (i = 0; i < VDPA_MSG_MAX_FDS; i++) {
			fd = msg->fds[i];
			vfe_close(&fd);
			msg->fds[i] = -1;
		}
		return;
	}
}

static int
send_message(int vid, struct vdpa_msg *msg)
{
	const struct rte_vhost_user_extern_ops *ops = connections[vid].ops;
	enum rte_vhost_msg_result ret;
	int i;

	ret = ops->pre_msg_handle(vid, msg);
	if (ret == RTE_VHOST_MSG_RESULT_REPLY) {
		/* QEMU wants no payload, and no fds go back */
		assert_int_equal(msg->hdr.request, VDPA_MSG_SET_LOG_BASE);
		assert_int_equal(msg->hdr.size, 0);
		assert_int_equal(msg->nr_fds, 0);
	}
	if (ret == RTE_VHOST_MSG_RESULT_NOT_HANDLED) {
		library_handles(vid, msg);
	} else {
		/* the library closes nothing now */
		for (i = 0; i < VDPA_MSG_MAX_FDS; i++)
			assert_int_equal(msg->fds[i], -1);
	}
	if (ret == RTE_VHOST_MSG_RESULT_ERR)
		return -1;
	ret = ops->post_msg_handle(vid, msg);
	return ret == RTE_VHOST_MSG_RESULT_ERR ? -1 : 0;
}

static void
message_init(struct vdpa_msg *msg, uint32_t request, const void *payload, uint32_t size,
	const int *fds, int nr_fds)
{
	int i;

	memset(msg, 0xa5, sizeof(*msg)); /* what lies on the library's stack */
	msg->hdr = (struct vdpa_msg_hdr){request, VDPA_MSG_VERSION, size};
	if (size > 0)
		memcpy(&msg->payload, payload, size);
	msg->nr_fds = nr_fds;
	for (i = 0; i < VDPA_MSG_MAX_FDS; i++)
		msg->fds[i] = i < nr_fds ? fcntl(fds[i], F_DUPFD_CLOEXEC, 0) : -1;
}

int
fake_send(int vid, uint32_t request, const void *payload, uint32_t size, const int *fds, int nr_fds)
{
	struct vdpa_msg msg;

	message_init(&msg, request, payload, size, fds, nr_fds);
	return send_message(vid, &msg);
}

int
fake_send_u64(int vid, uint32_t request, uint64_t value)
{
	return fake_send(vid, request, &value, sizeof(value), NULL, 0);
}

int
fake_send_state(int vid, uint32_t request, uint32_t index, uint32_t num)
{
	struct vdpa_msg_state state = {index, num};

	return fake_send(vid, request, &state, sizeof(state), NULL, 0);
}

int
fake_get_config(int vid, uint32_t offset, uint32_t size, uint8_t *buf)
{
	const struct {
		struct vdpa_msg_config config;
		uint8_t more[16];
	} msg = {.config = {.offset = offset, .size = size}};

	if (fake_send(vid, VDPA_MSG_GET_CONFIG, &msg, 12 + size, NULL, 0) < 0)
		return -2;
	return vdpa_ops.get_config(vid, buf, size);
}

int
fake_get_base(int vid, uint32_t index)
{
	struct vdpa_msg_state state = {index, 0};
	struct vdpa_msg msg;

	message_init(&msg, VDPA_MSG_GET_VRING_BASE, &state, sizeof(state), NULL, 0);
	return send_message(vid, &msg) < 0 ? -1 : (int)msg.payload.state.num;
}

static void *
run_get_base(void *arg)
{
	struct fake_get_base *get = arg;

	get->base = fake_get_base(get->vid, get->index);
	return NULL;
}

void
fake_get_base_begin(struct fake_get_base *get, int vid, uint32_t index)
{
	*get = (struct fake_get_base){.vid = vid, .index = index};
	assert_int_equal(pthread_create(&get->thread, NULL, run_get_base, get), 0);
}

int
fake_get_base_end(struct fake_get_base *get)
{
	assert_int_equal(pthread_join(get->thread, NULL), 0);
	return get->base;
}

/* --- guests --- */

void
fake_guest_open(struct fake_guest *g, unsigned int vf)
{
	unsigned int q;

	memset(g, 0, sizeof(*g));
	g->vf = vf;
	g->vid = (int)vf;
	g->slave = -1;
	g->mem_fd = vfe_memfd_create("guest", FAKE_MEM_SIZE);
	assert(g->mem_fd >= 0);
	g->mem = mmap(NULL, FAKE_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, g->mem_fd, 0);
	assert(g->mem != MAP_FAILED);
	for (q = 0; q < FAKE_QUEUES; q++) {
		g->kick[q] = eventfd(0, EFD_NONBLOCK);
		g->call[q] = eventfd(0, EFD_NONBLOCK);
	}
}

void
fake_guest_close(struct fake_guest *g)
{
	munmap(g->mem, FAKE_MEM_SIZE);
	vfe_close(&g->mem_fd);
	vfe_close_all(g->kick, FAKE_QUEUES);
	vfe_close_all(g->call, FAKE_QUEUES);
	vfe_close(&g->slave);
}

static void
connect_with(struct fake_guest *g, uint64_t protocol_features, uint64_t more_features)
{
	struct vfe_bdf bdf = fake_vf(g->vf);
	uint64_t features = VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
			    (world.blk ? VFE_BIT(VFE_BLK_F_CONFIG_WCE) : VFE_BIT(VFE_NET_F_CSUM)) |
			    VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES) | more_features;
	struct vfe_error err = {0};
	unsigned int q;

	for (q = 0; q < VFE_ARRAY_SIZE(connections[g->vid].vrings); q++) {
		connections[g->vid].vrings[q].kick = -1;
		connections[g->vid].vrings[q].call = -1;
	}
	if (vfe_vdpa_vf_connect(&bdf, g->vid, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(
		fake_send_u64(g->vid, VDPA_MSG_SET_PROTOCOL_FEATURES, protocol_features), 0);
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_FEATURES, features), 0);
}

void
fake_guest_connect(struct fake_guest *g, uint64_t protocol_features)
{
	connect_with(g, protocol_features, 0);
}

void
fake_guest_connect_logging(struct fake_guest *g, uint64_t protocol_features)
{
	connect_with(g, protocol_features, VFE_BIT(VFE_VHOST_F_LOG_ALL));
}

int
fake_guest_mem(struct fake_guest *g)
{
	struct vdpa_msg_memory mem = {
		.nr_regions = 1,
		.regions[0] = {FAKE_MEM_GPA, FAKE_MEM_SIZE, FAKE_MEM_UVA, 0},
	};

	return fake_send(
		g->vid, VDPA_MSG_SET_MEM_TABLE, &mem, 8 + sizeof(mem.regions[0]), &g->mem_fd, 1);
}

void
fake_guest_ring(struct fake_guest *g, unsigned int q)
{
	uint64_t at = FAKE_MEM_UVA + (uint64_t)q * FAKE_RING_STRIDE, index = q;
	struct vdpa_msg_addr addr = {
		.index = q,
		.desc = at,
		.avail = at + FAKE_RING_AVAIL,
		.used = at + FAKE_RING_USED,
	};

	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_NUM, q, FAKE_RING_SIZE), 0);
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_BASE, q, 0), 0);
	assert_int_equal(
		fake_send(g->vid, VDPA_MSG_SET_VRING_ADDR, &addr, sizeof(addr), NULL, 0), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_KICK, &index, 8, &g->kick[q], 1), 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_VRING_CALL, &index, 8, &g->call[q], 1), 0);
}

void
fake_guest_enable(struct fake_guest *g, unsigned int q, bool on)
{
	assert_int_equal(fake_send_state(g->vid, VDPA_MSG_SET_VRING_ENABLE, q, on), 0);
}

void
fake_guest_driver_ok(struct fake_guest *g)
{
	assert_int_equal(fake_send_u64(g->vid, VDPA_MSG_SET_STATUS, 0xf), 0);
}

void
fake_guest_prepare(struct fake_guest *g, unsigned int n)
{
	unsigned int q;

	assert_int_equal(fake_guest_mem(g), 0);
	for (q = 0; q < n; q++) {
		fake_guest_ring(g, q);
		fake_guest_enable(g, q, true);
	}
}

void
fake_guest_run(struct fake_guest *g, unsigned int n)
{
	fake_guest_prepare(g, n);
	fake_guest_driver_ok(g);
	fake_wait_state(g->vf, "running");
}

void
fake_guest_start(struct fake_guest *g)
{
	fake_guest_connect(g, FAKE_PROTOCOL_STATUS);
	fake_guest_run(g, 2);
}

void
fake_guest_disconnect(struct fake_guest *g)
{
	struct connection *c = &connections[g->vid];
	unsigned int q;

	vfe_vdpa_vf_disconnect(g->vid);
	for (q = 0; q < VFE_ARRAY_SIZE(c->vrings); q++) {
		vfe_close(&c->vrings[q].kick);
		vfe_close(&c->vrings[q].call);
	}
}

struct vfe_wire_vring_avail *
fake_guest_avail(struct fake_guest *g, unsigned int q)
{
	return (void *)(g->mem + q * FAKE_RING_STRIDE + FAKE_RING_AVAIL);
}

struct vfe_wire_vring_used *
fake_guest_used(struct fake_guest *g, unsigned int q)
{
	return (void *)(g->mem + q * FAKE_RING_STRIDE + FAKE_RING_USED);
}

void
fake_guest_set_used(struct fake_guest *g, unsigned int q, uint16_t idx)
{
	fake_store16(&fake_guest_used(g, q)->idx, idx);
}

void
fake_guest_set_avail(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head)
{
	struct vfe_wire_vring_avail *avail = fake_guest_avail(g, q);

	fake_store16(&avail->ring[pos % FAKE_RING_SIZE], head);
	fake_store16(&avail->idx, (uint16_t)(pos + 1));
}

void
fake_guest_complete(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head)
{
	fake_ring_use(fake_guest_used(g, q), pos, head, 0);
}

void
fake_guest_slave(struct fake_guest *g)
{
	int pair[2];

	assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	assert_int_equal(fake_send(g->vid, VDPA_MSG_SET_SLAVE_REQ_FD, NULL, 0, &pair[1], 1), 0);
	close(pair[1]);
	vfe_close(&g->slave);
	g->slave = pair[0];
}
