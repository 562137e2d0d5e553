/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * One PF with two VFs between a fake data path and a fake vfio-user server.
 */

#undef NDEBUG

#include "rig.h"

#include "fake_bp.h"
#include "net.h"
#include "vfe_vring.h"

#include <endian.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum {
	RING_BYTES = 8192, /* of one queue's three parts */
	ADMIN_BUF = RIG_MEM_SIZE / 2,
	ADMIN_SLOT = 32768,
};

/* --- the data path --- */

struct dp_engine {
	struct dp_engine_cfg cfg;
};

struct dp_port {
	struct fake_port fake;
};

int
dp_engine_create(struct ev_loop *loop, const struct dp_engine_cfg *cfg, struct dp_engine **ret,
	struct vfe_error *err)
{
	(void)loop;
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	assert_non_null(*ret);
	(*ret)->cfg = *cfg;
	return 0;
}

void
dp_engine_destroy(struct dp_engine *engine)
{
	free(engine);
}

int
dp_port_create(struct dp_engine *engine, const struct dp_port_cfg *cfg, struct dp_port **ret,
	struct vfe_error *err)
{
	(void)engine;
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	assert_non_null(*ret);
	(*ret)->fake.cfg = *cfg;
	return 0;
}

void
dp_port_destroy(struct dp_port *port)
{
	uint16_t i;

	for (i = 0; port != NULL && i < 2 * RIG_PAIRS; i++)
		assert_false(port->fake.queues[i].started);
	assert_true(port == NULL || port->fake.holds == 0);
	free(port);
}

unsigned int
dp_port_ifindex(const struct dp_port *port)
{
	(void)port;
	return 7;
}

void
dp_port_hold(struct dp_port *port)
{
	port->fake.holds++;
}

void
dp_port_release(struct dp_port *port)
{
	assert_true(port->fake.holds > 0);
	port->fake.holds--;
}

int
dp_queue_start(
	struct dp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	assert_in_range(qid, 0, 2 * RIG_PAIRS - 1);
	assert_false(port->fake.queues[qid].started);
	assert_true(port->fake.holds > 0);
	if (port->fake.start_error != 0)
		return vfe_error_set(err, port->fake.start_error, "the fake does not start");
	port->fake.queues[qid].started = true;
	port->fake.queues[qid].cfg = *cfg;
	port->fake.queues[qid].avail = cfg->ring.last_avail_idx;
	port->fake.queues[qid].used = cfg->ring.last_used_idx;
	port->fake.starts++;
	return 0;
}

int
dp_queue_stop(struct dp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	assert_true(port->fake.queues[qid].started);
	/* the memory has to be there until the queue is stopped */
	assert_non_null(port->fake.map);
	port->fake.queues[qid].started = false;
	port->fake.stops++;
	*ret_avail = port->fake.queues[qid].avail;
	*ret_used = port->fake.queues[qid].used;
	return 0;
}

void
dp_queue_set_call(struct dp_port *port, uint16_t qid, int call_fd)
{
	assert_true(port->fake.queues[qid].started);
	port->fake.queues[qid].cfg.call_fd = call_fd;
}

void
dp_queue_kick(struct dp_port *port, uint16_t qid)
{
	assert_true(port->fake.queues[qid].started);
	port->fake.queues[qid].kicks++;
}

void
dp_port_set_map(struct dp_port *port, const struct vfe_iova_map *map)
{
	port->fake.map = map;
	port->fake.maps++;
}

int
dp_port_send(struct dp_port *port, const void *frame, size_t len)
{
	assert_in_range(len, 60, sizeof(port->fake.frame));
	memcpy(port->fake.frame, frame, len);
	port->fake.frames++;
	return 0;
}

int
dp_port_records(struct dp_port *port, uint16_t pair, struct dp_record **ret, uint32_t *ret_nr)
{
	(void)port;
	(void)pair;
	(void)ret;
	(void)ret_nr;
	return -EINVAL;
}

void
dp_engine_scribble(struct dp_engine *engine, bool on)
{
	(void)engine;
	(void)on;
}

void
dp_port_set_watch(struct dp_port *port, const struct vfe_vring_watch *watch)
{
	port->fake.watch = watch;
	port->fake.watches++;
}

int
dp_port_set_filter(struct dp_port *port, const struct dp_rx_filter *filter)
{
	port->fake.filter = *filter;
	return 0;
}

int
dp_port_set_pairs(struct dp_port *port, uint16_t pairs, struct vfe_error *err)
{
	(void)err;
	assert_in_range(pairs, 1, RIG_PAIRS);
	port->fake.pairs = pairs;
	return 0;
}

int
dp_port_set_features(struct dp_port *port, uint64_t features, struct vfe_error *err)
{
	(void)err;
	port->fake.features = features;
	return 0;
}

int
dp_port_set_mtu(struct dp_port *port, uint16_t mtu, struct vfe_error *err)
{
	(void)err;
	port->fake.mtu = mtu;
	return 0;
}

void
dp_queue_stats(const struct dp_port *port, uint16_t qid, struct dp_queue_stats *ret)
{
	*ret = (struct dp_queue_stats){.started = port->fake.queues[qid].started};
}

/* --- the vfio-user server --- */

struct vfe_vfu_server {
	struct fake_server fake;
};

int __wrap_vfe_vfu_server_create(struct ev_loop *loop, const struct vfe_vfu_server_cfg *cfg,
	struct vfe_vfu_server **ret, struct vfe_error *err);
void __wrap_vfe_vfu_server_destroy(struct vfe_vfu_server *server);
void __wrap_vfe_vfu_server_kick_out(struct vfe_vfu_server *server, const char *why);
bool __wrap_vfe_vfu_server_connected(const struct vfe_vfu_server *server);
const char *__wrap_vfe_vfu_server_last_error(const struct vfe_vfu_server *server);

int
__wrap_vfe_vfu_server_create(struct ev_loop *loop, const struct vfe_vfu_server_cfg *cfg,
	struct vfe_vfu_server **ret, struct vfe_error *err)
{
	(void)loop;
	(void)err;
	*ret = calloc(1, sizeof(**ret));
	assert_non_null(*ret);
	(*ret)->fake.cfg = *cfg;
	snprintf((*ret)->fake.path, sizeof((*ret)->fake.path), "%s", cfg->path);
	return 0;
}

void
__wrap_vfe_vfu_server_destroy(struct vfe_vfu_server *server)
{
	free(server);
}

void
__wrap_vfe_vfu_server_kick_out(struct vfe_vfu_server *server, const char *why)
{
	snprintf(server->fake.kicked_out, sizeof(server->fake.kicked_out), "%s", why);
}

bool
__wrap_vfe_vfu_server_connected(const struct vfe_vfu_server *server)
{
	return server->fake.connected;
}

const char *
__wrap_vfe_vfu_server_last_error(const struct vfe_vfu_server *server)
{
	return server->fake.kicked_out;
}

/* --- setup --- */

static int
setup_text(void **state, const char *text)
{
	struct rig *rig = calloc(1, sizeof(*rig));
	struct vfe_error err;

	assert_non_null(rig);
	if (config_parse(text, &rig->config, &err) < 0)
		fail_msg("%s", err.text);
	rig->loop = ev_loop_new(EVFLAG_AUTO);
	assert_non_null(rig->loop);
	rig->mem = mmap(
		NULL, 2 * RIG_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(rig->mem, MAP_FAILED);
	rig->pf_mem = rig->mem + RIG_MEM_SIZE;
	rig->dma = (struct vfe_vfu_dma){
		.iova = RIG_IOVA, .size = RIG_MEM_SIZE, .prot = 3, .va = rig->mem};
	rig->pf_dma = (struct vfe_vfu_dma){
		.iova = RIG_IOVA, .size = RIG_MEM_SIZE, .prot = 3, .va = rig->pf_mem};
	app_log_set_level(APP_LOG_ERR);
	if (dpu_create(&rig->dpu, rig->loop, &rig->config, &err) < 0)
		fail_msg("%s", err.text);
	*state = rig;
	return 0;
}

int
rig_setup_with(void **state, const char *extra)
{
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"static_pf\": {\"mac_base\": \"02:00:00:00:00:10\"},"
		" \"vf\": {\"mac_base\": \"02:00:00:00:00:20\", \"vfs_per_pf\": 2, \"qp_num\": %d},"
		" \"software_dpu\": {%s \"dir\": \"/tmp\", \"rpc_socket\": "
		"\"/tmp/vfe-rig-%d.sock\","
		" \"queue_size\": %d, \"pfs\": [{\"bdf\": \"af:00.2\", \"first_vf\": "
		"\"af:04.5\"}]}}",
		RIG_PAIRS, extra, (int)getpid(), RIG_QUEUE_SIZE);
	return setup_text(state, text);
}

int
rig_setup_blk(void **state)
{
	char text[1024];

	snprintf(text, sizeof(text),
		"{\"software_dpu\": {\"dir\": \"/tmp\", \"rpc_socket\": \"/tmp/vfe-rig-%d.sock\","
		" \"queue_size\": %d, \"drain_timeout_ms\": 30,"
		" \"bdevs\": [{\"name\": \"D\", \"type\": \"null\", \"size_mib\": 8}],"
		" \"pfs\": [{\"type\": \"blk\", \"bdf\": \"af:00.3\", \"first_vf\": \"af:05.1\","
		" \"num_vfs\": 2, \"num_queues\": 2, \"bdev\": \"D\","
		" \"vfs\": {\"0\": {\"bdev\": \"D\"}}}]}}",
		(int)getpid(), RIG_QUEUE_SIZE);
	return setup_text(state, text);
}

int
rig_setup(void **state)
{
	return rig_setup_with(state, "");
}

int
rig_setup_polling(void **state)
{
	return rig_setup_with(state, "\"polling\": true,");
}

int
rig_setup_slow(void **state)
{
	return rig_setup_with(state, "\"admin_latency_us\": 20000, \"reset_latency_us\": 20000,");
}

int
rig_teardown(void **state)
{
	struct rig *rig = *state;

	dpu_destroy(&rig->dpu);
	fake_bp_forget_disks();
	config_fini(&rig->config);
	munmap(rig->mem, 2 * RIG_MEM_SIZE);
	ev_loop_destroy(rig->loop);
	free(rig);
	return 0;
}

struct function *
rig_vf(struct rig *rig, uint16_t vf)
{
	return &rig->dpu.pfs[0].vfs[vf];
}

struct function *
rig_pf(struct rig *rig)
{
	return &rig->dpu.pfs[0];
}

struct fake_server *
rig_server(struct function *fn)
{
	return &fn->server->fake;
}

void
rig_turn(struct rig *rig)
{
	ev_run(rig->loop, EVRUN_NOWAIT);
	ev_run(rig->loop, EVRUN_NOWAIT); /* a timer of 0 s that the first turn started */
}

/* --- a client --- */

void
rig_connect(struct function *fn)
{
	rig_server(fn)->connected = true;
	rig_server(fn)->cfg.ops->connected(fn);
}

void
rig_disconnect(struct function *fn, struct vfe_vfu_dma *dma)
{
	const struct vfe_vfu_server_ops *ops = rig_server(fn)->cfg.ops;

	rig_server(fn)->connected = false;
	if (dma != NULL)
		ops->dma_unmap(fn, dma);
	assert_int_equal(vfe_vdev_irq_set(fn->vdev, 0, vfe_vdev_nr_vectors(fn->vdev), NULL), 0);
	ops->disconnected(fn);
}

void
rig_map(struct rig *rig, struct function *fn)
{
	struct vfe_vfu_dma *dma = fn == rig_pf(rig) ? &rig->pf_dma : &rig->dma;

	assert_int_equal(rig_server(fn)->cfg.ops->dma_map(fn, dma), 0);
}

uint64_t
rd(struct function *fn, uint64_t off, uint32_t len)
{
	uint64_t v = 0;

	assert_int_equal(rig_server(fn)->cfg.ops->region_read(fn, 0, off, &v, len), 0);
	return le64toh(v);
}

void
wr(struct function *fn, uint64_t off, uint64_t v, uint32_t len)
{
	v = htole64(v);
	assert_int_equal(rig_server(fn)->cfg.ops->region_write(fn, 0, off, &v, len), 0);
}

void
rig_negotiate(struct function *fn, uint64_t features)
{
	wr(fn, COMMON(device_status), VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, 1);
	wr(fn, COMMON(driver_feature_select), 0, 4);
	wr(fn, COMMON(driver_feature), features & UINT32_MAX, 4);
	wr(fn, COMMON(driver_feature_select), 1, 4);
	wr(fn, COMMON(driver_feature), features >> 32, 4);
	wr(fn, COMMON(device_status), S_FEATURES, 1);
	assert_int_equal(rd(fn, COMMON(device_status), 1), S_FEATURES);
}

uint64_t
rig_desc(uint16_t qid)
{
	return RIG_IOVA + (uint64_t)qid * RING_BYTES;
}

void
rig_enable(struct function *fn, uint16_t qid)
{
	wr(fn, COMMON(queue_select), qid, 2);
	wr(fn, COMMON(queue_msix_vector), qid + 1u, 2);
	wr(fn, COMMON(queue_desc), rig_desc(qid), 8);
	wr(fn, COMMON(queue_driver), rig_desc(qid) + 2048, 8);
	wr(fn, COMMON(queue_device), rig_desc(qid) + 4096, 8);
	wr(fn, COMMON(queue_enable), 1, 2);
	assert_int_equal(rd(fn, COMMON(queue_enable), 2), 1);
}

void
rig_bring_up(struct rig *rig, struct function *fn)
{
	rig_connect(fn);
	rig_map(rig, fn);
	rig_negotiate(fn, VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_RING_RESET));
	rig_enable(fn, 0);
	rig_enable(fn, 1);
	wr(fn, COMMON(config_msix_vector), 0, 2);
	wr(fn, COMMON(device_status), S_ALL, 1);
	assert_int_equal(rd(fn, COMMON(device_status), 1), S_ALL);
}

/* --- the admin queue --- */

static struct vfe_wire_vring_desc *
admin_desc(struct rig *rig)
{
	return (void *)(rig->pf_mem + rig_desc(rig_pf(rig)->admin_qid) - RIG_IOVA);
}

static struct vfe_wire_vring_avail *
admin_avail(struct rig *rig)
{
	return (void *)((uint8_t *)admin_desc(rig) + 2048);
}

static struct vfe_wire_vring_used *
admin_used(struct rig *rig)
{
	return (void *)((uint8_t *)admin_desc(rig) + 4096);
}

void
rig_admin_up(struct rig *rig, uint64_t features)
{
	struct function *pf = rig_pf(rig);

	rig_connect(pf);
	rig_map(rig, pf);
	rig_negotiate(pf, features | VFE_BIT(VFE_VIRTIO_F_VERSION_1) |
				  VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) | VFE_BIT(VFE_ADMIN_F_VQ));
	rig_enable(pf, (uint16_t)rd(pf, COMMON(admin_queue_index), 2));
	wr(pf, COMMON(device_status), S_ALL, 1);
	rig_turn(rig);
}

/* Slots of the ring in turn: each command has a buffer of its own, chained by its descriptors. */
void
rig_admin_post(struct rig *rig, uint8_t class_, uint8_t cmd, const void *in, size_t in_len,
	const void *bulk, size_t bulk_len, size_t out_len)
{
	uint16_t slot = rig->admin_avail % 12, head = (uint16_t)(slot * 5), n = head;
	size_t off = ADMIN_BUF + (size_t)slot * ADMIN_SLOT;
	struct vfe_wire_vring_desc *desc = admin_desc(rig);
	const struct {
		const void *data;
		size_t len;
		uint16_t flags;
	} parts[] = {
		{(const uint8_t[]){class_, cmd}, 2, VFE_VRING_DESC_F_NEXT},
		{in, in_len, VFE_VRING_DESC_F_NEXT},
		{bulk, bulk_len, VFE_VRING_DESC_F_NEXT},
		{NULL, out_len, VFE_VRING_DESC_F_NEXT | VFE_VRING_DESC_F_WRITE},
		{NULL, 1, VFE_VRING_DESC_F_WRITE},
	};
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(parts); i++) {
		uint64_t at = parts[i].flags == VFE_VRING_DESC_F_WRITE
				      ? ADMIN_BUF + (uint64_t)slot * ADMIN_SLOT + ADMIN_SLOT - 1
				      : off;

		if (parts[i].len == 0)
			continue;
		if (parts[i].data != NULL)
			memcpy(rig->pf_mem + at, parts[i].data, parts[i].len);
		else
			memset(rig->pf_mem + at, 0xff, parts[i].len);
		desc[n] = (struct vfe_wire_vring_desc){
			RIG_IOVA + at, (uint32_t)parts[i].len, parts[i].flags, (uint16_t)(n + 1)};
		off += parts[i].len;
		n++;
	}
	admin_avail(rig)->ring[rig->admin_avail % RIG_QUEUE_SIZE] = head;
	admin_avail(rig)->idx = ++rig->admin_avail;
	wr(rig_pf(rig), vfe_vdev_doorbell_offset(rig_pf(rig)->vdev, rig_pf(rig)->admin_qid), 0, 2);
}

bool
rig_wait_used(struct rig *rig, uint16_t old)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(2000);

	while (admin_used(rig)->idx == old && !vfe_deadline_passed(deadline))
		ev_run(rig->loop, EVRUN_ONCE);
	return admin_used(rig)->idx != old;
}

uint8_t
rig_admin(struct rig *rig, uint8_t class_, uint8_t cmd, const void *in, size_t in_len,
	const void *bulk, size_t bulk_len, size_t out_len, const uint8_t **ret_out)
{
	uint16_t old = admin_used(rig)->idx, slot = rig->admin_avail % 12;
	size_t base = ADMIN_BUF + (size_t)slot * ADMIN_SLOT;

	rig_admin_post(rig, class_, cmd, in, in_len, bulk, bulk_len, out_len);
	if (admin_used(rig)->idx == old && !rig_wait_used(rig, old))
		fail_msg("admin command %u/%u is not answered", class_, cmd);
	assert_int_equal(admin_used(rig)->ring[old % RIG_QUEUE_SIZE].id, slot * 5);
	if (ret_out != NULL)
		*ret_out = rig->pf_mem + base + 2 + in_len + bulk_len;
	return rig->pf_mem[base + ADMIN_SLOT - 1];
}

uint8_t
rig_set_status(struct rig *rig, uint16_t vdev, uint16_t status)
{
	const struct vfe_wire_admin_modify_status in = {htole16(vdev), htole16(status)};

	return rig_admin(rig, VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_MODIFY_STATUS, &in,
		sizeof(in), NULL, 0, 0, NULL);
}

uint8_t
rig_restore(struct rig *rig, uint16_t vdev, uint64_t off, const void *blob, size_t len)
{
	const struct vfe_wire_admin_state in = {.vdev_id = htole16(vdev),
		.reserved = {0xaaaa, 0xbbbb, 0xcccc},
		.offset = htole64(off),
		.length = htole64(len)};

	return rig_admin(rig, VFE_ADMIN_CLASS_MIGRATION, VFE_ADMIN_MIG_RESTORE_STATE, &in,
		sizeof(in), blob, len, 0, NULL);
}

struct fake_port *
rig_port(struct function *fn)
{
	return &((struct net *)fn->type_data)->port->fake;
}
