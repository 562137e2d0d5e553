/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The block device type: features, device configuration, and the glue to the block data path.
 */

#include "blk.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
	DEFAULT_SEG_MAX = 254,
	DEFAULT_SIZE_MAX = 1 << 20,
	/* descriptors of a request besides its segments: header and status */
	OTHER_DESCS = 2,
};

static const uint64_t blk_features =
	VFE_BIT(VFE_BLK_F_SIZE_MAX) | VFE_BIT(VFE_BLK_F_SEG_MAX) | VFE_BIT(VFE_BLK_F_BLK_SIZE) |
	VFE_BIT(VFE_BLK_F_FLUSH) | VFE_BIT(VFE_BLK_F_TOPOLOGY) | VFE_BIT(VFE_BLK_F_CONFIG_WCE) |
	VFE_BIT(VFE_BLK_F_DISCARD) | VFE_BIT(VFE_BLK_F_WRITE_ZEROES) |
	VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC) | VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) |
	VFE_BIT(VFE_VIRTIO_F_RING_RESET);

/* Feature bits that a driver takes only if it wants the disk: those of the device type. */
#define BLK_DEVICE_BITS (VFE_BIT(24) - 1)

struct blk {
	struct function *fn;
	struct bp_disk *disk;
	struct bp_port *port;
	struct vfe_wire_blk_config config; /* as the driver reads it */
	uint64_t features;                 /* negotiated */
};

static uint16_t
data_queues(const struct function *fn)
{
	return (uint16_t)fn->cfg->blk.num_queues;
}

static bool
blk_has(const struct blk *blk, unsigned int feature)
{
	return (blk->features & VFE_BIT(feature)) != 0;
}

/* --- device configuration --- */

static uint32_t
seg_max(const struct function *fn)
{
	uint32_t most = fn->env->config->queue_size > OTHER_DESCS
				? fn->env->config->queue_size - OTHER_DESCS
				: 1;

	if (fn->cfg->blk.seg_max != 0)
		return fn->cfg->blk.seg_max;
	return most < DEFAULT_SEG_MAX ? most : DEFAULT_SEG_MAX;
}

static void
set_capacity(struct blk *blk, const struct bp_disk_info *info)
{
	blk->config.capacity = htole64(info->size / VFE_BLK_SECTOR_SIZE);
}

static void
fill_config(struct blk *blk)
{
	const struct function *fn = blk->fn;
	struct vfe_wire_blk_config *c = &blk->config;
	struct bp_disk_info info;
	uint32_t per_block, ratio;

	bp_disk_info(blk->disk, &info);
	ratio = info.physical_block_size / info.block_size;
	per_block = info.physical_block_size / VFE_BLK_SECTOR_SIZE;
	set_capacity(blk, &info);
	c->size_max =
		htole32(fn->cfg->blk.size_max != 0 ? fn->cfg->blk.size_max : DEFAULT_SIZE_MAX);
	c->seg_max = htole32(seg_max(fn));
	c->blk_size = htole32(info.block_size);
	c->physical_block_exp = (uint8_t)__builtin_ctz(ratio);
	c->min_io_size = htole16((uint16_t)ratio);
	c->writeback = 1;
	c->num_queues = htole16(data_queues(fn));
	c->max_discard_sectors = htole32(BP_MAX_RANGE_SECTORS);
	c->max_discard_seg = htole32(BP_MAX_SEGS);
	c->discard_sector_alignment = htole32(per_block);
	c->max_write_zeroes_sectors = htole32(BP_MAX_RANGE_SECTORS);
	c->max_write_zeroes_seg = htole32(BP_MAX_SEGS);
	c->write_zeroes_may_unmap = 1;
}

/* Section 5.2.5: what decides about the cache depends on what was negotiated. */
static void
apply_writeback(struct blk *blk)
{
	bool writeback = blk_has(blk, VFE_BLK_F_FLUSH);

	if (blk_has(blk, VFE_BLK_F_CONFIG_WCE))
		writeback = blk->config.writeback != 0;
	bp_port_set_writeback(blk->port, writeback);
}

void
blk_disk_resized(struct function *fn, const struct bp_disk *disk)
{
	struct blk *blk = fn->type_data;
	struct bp_disk_info info;

	if (blk->disk != disk)
		return;
	bp_disk_info(disk, &info);
	set_capacity(blk, &info);
	vfe_vdev_config_changed(fn->vdev);
}

/* --- the type's ops --- */

static int
blk_create(struct function *fn, struct vfe_vdev_cfg *cfg, struct vfe_error *err)
{
	struct bp_port_cfg port_cfg = {
		.name = fn->name,
		.nr_queues = data_queues(fn),
		.read_only = fn->cfg->blk.read_only,
		.in_order = fn->cfg->blk.in_order,
		.ctx = fn,
		.on_drained = function_on_drained,
	};
	struct blk *blk = calloc(1, sizeof(*blk));
	int rc;

	if (blk == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a block device");
	blk->fn = fn;
	fn->type_data = blk;
	blk->disk = bp_disk_find(fn->env->engine, fn->cfg->blk.bdev);
	if (blk->disk == NULL)
		return vfe_error_set(err, -ENOENT, "there is no bdev \"%s\"", fn->cfg->blk.bdev);
	port_cfg.disk = blk->disk;
	memcpy(port_cfg.id, fn->cfg->blk.vblk_id,
		strnlen(fn->cfg->blk.vblk_id, sizeof(port_cfg.id)));
	rc = bp_port_create(fn->env->engine, &port_cfg, &blk->port, err);
	if (rc < 0)
		return rc;
	fill_config(blk);

	cfg->features |= blk_features;
	if (data_queues(fn) > 1)
		cfg->features |= VFE_BIT(VFE_BLK_F_MQ);
	if (fn->cfg->blk.read_only || bp_disk_read_only(blk->disk))
		cfg->features |= VFE_BIT(VFE_BLK_F_RO);
	cfg->nr_queues = data_queues(fn);
	cfg->num_queues = cfg->nr_queues;
	cfg->config = &blk->config;
	cfg->config_len = sizeof(blk->config);
	return 0;
}

static void
blk_destroy(struct function *fn)
{
	struct blk *blk = fn->type_data;

	if (blk == NULL)
		return;
	bp_port_destroy(blk->port);
	free(blk);
	fn->type_data = NULL;
}

/*
 * In the vendor dialect the admin queue of a block PF is queue 0. A driver that takes features of a
 * disk wants queue 0 for requests: it finds the admin queue behind them, where the standard has it.
 */
static void
blk_layout(struct function *fn, uint64_t features, uint16_t *ret_num_queues, uint16_t *ret_admin)
{
	bool dialect =
		(features & VFE_BIT(VFE_ADMIN_F_VQ)) != 0 && (features & BLK_DEVICE_BITS) == 0;

	*ret_num_queues = data_queues(fn);
	*ret_admin = dialect ? 0 : data_queues(fn);
}

static int
blk_set_features(struct function *fn, uint64_t features, struct vfe_error *err)
{
	struct blk *blk = fn->type_data;

	(void)err;
	blk->features = features;
	apply_writeback(blk);
	return 0;
}

static void
blk_config_write(struct function *fn, uint32_t off, const void *buf, uint32_t len)
{
	const uint32_t at = offsetof(struct vfe_wire_blk_config, writeback);
	struct blk *blk = fn->type_data;
	uint8_t value;

	/* it is the only field that a driver writes, and it does so byte by byte */
	if (off != at || len != 1 || !blk_has(blk, VFE_BLK_F_CONFIG_WCE))
		return;
	memcpy(&value, buf, 1);
	blk->config.writeback = value != 0;
	apply_writeback(blk);
}

static int
blk_prepare(struct function *fn, struct vfe_error *err)
{
	(void)fn;
	(void)err;
	return 0;
}

static int
blk_queue_start(
	struct function *fn, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	struct blk *blk = fn->type_data;

	if (qid >= data_queues(fn) || (qid > 0 && !blk_has(blk, VFE_BLK_F_MQ)))
		return vfe_error_set(err, -EINVAL, "there is no such queue with these features");
	return bp_queue_start(blk->port, qid, cfg, err);
}

static void
blk_queue_stop(struct function *fn, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	struct blk *blk = fn->type_data;

	if (bp_queue_stop(blk->port, qid, ret_avail, ret_used) > 0)
		fn->lost = true;
}

static bool
blk_queue_drain(struct function *fn, uint16_t qid)
{
	return bp_queue_drain(((struct blk *)fn->type_data)->port, qid);
}

static void
blk_queue_resume(struct function *fn, uint16_t qid)
{
	bp_queue_resume(((struct blk *)fn->type_data)->port, qid);
}

static void
blk_settle(struct function *fn)
{
	(void)bp_port_settle(((struct blk *)fn->type_data)->port);
}

static int
blk_release(struct function *fn, const void *va, uint64_t size)
{
	return bp_port_release(((struct blk *)fn->type_data)->port, va, size);
}

static void
blk_queue_kick(struct function *fn, uint16_t qid)
{
	bp_queue_kick(((struct blk *)fn->type_data)->port, qid);
}

static void
blk_queue_set_call(struct function *fn, uint16_t qid, int call_fd)
{
	bp_queue_set_call(((struct blk *)fn->type_data)->port, qid, call_fd);
}

static void
blk_set_map(struct function *fn, const struct vfe_iova_map *map)
{
	bp_port_set_map(((struct blk *)fn->type_data)->port, map);
}

static void
blk_set_watch(struct function *fn, const struct vfe_vring_watch *watch)
{
	bp_port_set_watch(((struct blk *)fn->type_data)->port, watch);
}

static void
blk_reset(struct function *fn)
{
	struct blk *blk = fn->type_data;

	blk->features = 0;
	blk->config.writeback = 1;
}

/* --- migration --- */

static void
blk_save(struct function *fn, struct vfe_state *state)
{
	state->config.blk = ((struct blk *)fn->type_data)->config;
}

/*
 * The disk is the operator's: what the state says about it is what the driver once read here. But a
 * guest must not find its disk shorter than it was, nor rings for queues that are not there.
 */
static int
blk_restore(struct function *fn, const struct vfe_state *state, struct vfe_error *err)
{
	const struct vfe_wire_blk_config *theirs = &state->config.blk;
	struct blk *blk = fn->type_data;

	if (le64toh(theirs->capacity) > le64toh(blk->config.capacity))
		return vfe_error_set(err, -EINVAL,
			"the state is of a disk of %llu sectors, ours has %llu",
			(unsigned long long)le64toh(theirs->capacity),
			(unsigned long long)le64toh(blk->config.capacity));
	if ((state->driver_features & VFE_BIT(VFE_BLK_F_MQ)) != 0 &&
		theirs->num_queues != blk->config.num_queues)
		return vfe_error_set(err, -EINVAL, "the state is of %u queues, we have %u",
			le16toh(theirs->num_queues), data_queues(fn));
	if (blk_has(blk, VFE_BLK_F_CONFIG_WCE))
		blk->config.writeback = theirs->writeback != 0;
	apply_writeback(blk);
	return 0;
}

/* --- for people --- */

static void
blk_describe(struct function *fn, json_t *device)
{
	struct blk *blk = fn->type_data;

	json_object_set_new(device, "bdev", json_string(fn->cfg->blk.bdev));
	json_object_set_new(device, "capacity_sectors",
		json_integer((json_int_t)le64toh(blk->config.capacity)));
	json_object_set_new(
		device, "block_size", json_integer((json_int_t)le32toh(blk->config.blk_size)));
	json_object_set_new(device, "num_queues", json_integer(data_queues(fn)));
	json_object_set_new(
		device, "seg_max", json_integer((json_int_t)le32toh(blk->config.seg_max)));
	json_object_set_new(
		device, "size_max", json_integer((json_int_t)le32toh(blk->config.size_max)));
	json_object_set_new(device, "vblk_id", json_string(fn->cfg->blk.vblk_id));
	json_object_set_new(device, "read_only",
		json_boolean(fn->cfg->blk.read_only || bp_disk_read_only(blk->disk)));
	json_object_set_new(device, "force_in_order", json_boolean(fn->cfg->blk.in_order));
	json_object_set_new(device, "writeback", json_boolean(blk->config.writeback != 0));
}

static void
blk_describe_queue(struct function *fn, uint16_t qid, json_t *queue)
{
	struct bp_queue_stats s;

	if (qid >= data_queues(fn))
		return;
	bp_queue_stats(((struct blk *)fn->type_data)->port, qid, &s);
	json_object_set_new(queue, "type", json_string("request"));
	json_object_set_new(queue, "reads", json_integer((json_int_t)s.reads));
	json_object_set_new(queue, "read_bytes", json_integer((json_int_t)s.read_bytes));
	json_object_set_new(queue, "writes", json_integer((json_int_t)s.writes));
	json_object_set_new(queue, "write_bytes", json_integer((json_int_t)s.write_bytes));
	json_object_set_new(queue, "flushes", json_integer((json_int_t)s.flushes));
	json_object_set_new(queue, "discards", json_integer((json_int_t)s.discards));
	json_object_set_new(queue, "write_zeroes", json_integer((json_int_t)s.write_zeroes));
	json_object_set_new(queue, "errors", json_integer((json_int_t)s.errors));
	json_object_set_new(queue, "unsupported", json_integer((json_int_t)s.unsupported));
	json_object_set_new(queue, "kicks", json_integer((json_int_t)s.kicks));
	json_object_set_new(queue, "signals", json_integer((json_int_t)s.signals));
	json_object_set_new(queue, "in_flight", json_integer(s.in_flight));
}

static unsigned int
blk_ifindex(struct function *fn)
{
	(void)fn;
	return 0;
}

static int
blk_modify(struct function *fn, const struct function_change *change, struct vfe_error *err)
{
	(void)fn;
	(void)change;
	return vfe_error_set(err, -EOPNOTSUPP, "a block device has neither link nor MTU nor MAC");
}

const struct function_type blk_type = {
	.name = "blk",
	.pci_device_id = VFE_PCI_DEVICE_VIRTIO_BLK,
	.pci_class = 0x018000, /* mass storage controller, other */
	.state_type = VFE_STATE_TYPE_BLK,
	.create = blk_create,
	.destroy = blk_destroy,
	.layout = blk_layout,
	.config_write = blk_config_write,
	.set_features = blk_set_features,
	.nr_data_queues = data_queues,
	.prepare = blk_prepare,
	.queue_start = blk_queue_start,
	.queue_stop = blk_queue_stop,
	.queue_drain = blk_queue_drain,
	.queue_resume = blk_queue_resume,
	.settle = blk_settle,
	.release = blk_release,
	.queue_kick = blk_queue_kick,
	.queue_set_call = blk_queue_set_call,
	.set_map = blk_set_map,
	.set_watch = blk_set_watch,
	.reset = blk_reset,
	.save = blk_save,
	.restore = blk_restore,
	.describe = blk_describe,
	.describe_queue = blk_describe_queue,
	.ifindex = blk_ifindex,
	.modify = blk_modify,
};
