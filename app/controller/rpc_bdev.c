/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Methods for bdevs: create, delete, resize, list, and the test knob.
 */

#include "rpc_blk.h"

#include "blk.h"
#include "config_blk.h"

#include <errno.h>
#include <string.h>

enum { MIB = 1 << 20 };

static const char *const type_names[] = {"Null disk", "Malloc disk", "File disk"};
static const char *const io_names[] = {"auto", "io_uring", "threads"};

static struct bp_disk *
find(struct dpu *dpu, const char *name, enum bp_disk_type type, struct vfe_error *err)
{
	struct bp_disk *disk = bp_disk_find(dpu->env.engine, name);
	struct bp_disk_info info;

	if (disk == NULL) {
		vfe_error_set(err, -ENODEV, "there is no bdev %.64s", name);
		return NULL;
	}
	bp_disk_info(disk, &info);
	if (info.type == type)
		return disk;
	vfe_error_set(err, -EINVAL, "bdev %.64s is a %s", name, type_names[info.type]);
	return NULL;
}

static void
create(struct dpu *dpu, struct vfe_jsonrpc_request *req, const struct bp_disk_cfg *cfg)
{
	struct bp_disk *disk;
	struct vfe_error err;

	if (bp_disk_create(dpu->env.engine, cfg, &disk, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	log_info("bdev %s created", cfg->name);
	vfe_jsonrpc_reply(req, json_string(cfg->name));
}

/* Null and memory disks have the same parameters. */
static void
create_blocks(struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params,
	enum bp_disk_type type)
{
	const char *name = NULL;
	int64_t num_blocks = 0, block_size = 0;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
		{.name = "num_blocks",
			.type = VFE_JSONRPC_INT,
			.required = true,
			.min = 1,
			.max = INT64_MAX / BP_MAX_BLOCK_SIZE,
			.ret = &num_blocks},
		{.name = "block_size",
			.type = VFE_JSONRPC_INT,
			.required = true,
			.min = BP_MIN_BLOCK_SIZE,
			.max = BP_MAX_BLOCK_SIZE,
			.ret = &block_size},
	};
	struct bp_disk_cfg cfg = {.type = type};
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	cfg.name = name;
	cfg.size = (uint64_t)num_blocks * (uint64_t)block_size;
	cfg.block_size = (uint32_t)block_size;
	create(dpu, req, &cfg);
}

void
rpc_bdev_null_create(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	create_blocks(ctx, req, params, BP_DISK_NULL);
}

void
rpc_bdev_malloc_create(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	create_blocks(ctx, req, params, BP_DISK_MEMORY);
}

static void
create_file(struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params,
	const char *default_io)
{
	const char *name = NULL, *filename = NULL, *io = default_io;
	int64_t block_size = BP_MIN_BLOCK_SIZE, size_mib = 0;
	bool readonly = false, buffered = false;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
		{.name = "filename",
			.type = VFE_JSONRPC_STRING,
			.required = true,
			.ret = &filename},
		{.name = "block_size",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.min = BP_MIN_BLOCK_SIZE,
			.max = BP_MAX_BLOCK_SIZE,
			.ret = &block_size},
		{.name = "size_mib",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.min = 1,
			.max = INT64_MAX / MIB,
			.ret = &size_mib},
		{.name = "readonly", .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &readonly},
		{.name = "buffered", .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &buffered},
		{.name = "io", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &io},
	};
	struct bp_disk_cfg cfg = {.type = BP_DISK_FILE};
	struct vfe_error err;
	int rc = vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err);

	if (rc == 0 && config_bdev_io(io, &cfg.io) < 0)
		rc = vfe_error_set(&err, -EINVAL,
			"io: expected \"auto\", \"io_uring\" or \"threads\", got \"%.32s\"", io);
	if (rc < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	cfg.name = name;
	cfg.path = filename;
	cfg.size = (uint64_t)size_mib * MIB;
	cfg.block_size = (uint32_t)block_size;
	cfg.read_only = readonly;
	cfg.buffered = buffered;
	create(dpu, req, &cfg);
}

void
rpc_bdev_aio_create(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	create_file(ctx, req, params, "auto");
}

void
rpc_bdev_uring_create(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	create_file(ctx, req, params, "io_uring");
}

/* The only parameter of several methods. */
static struct bp_disk *
by_name(struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params,
	enum bp_disk_type type)
{
	const char *name = NULL;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
	};
	struct bp_disk *disk = NULL;
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) == 0)
		disk = find(dpu, name, type, &err);
	if (disk == NULL)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	return disk;
}

static void delete (struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params,
	enum bp_disk_type type)
{
	struct bp_disk *disk = by_name(dpu, req, params, type);
	struct vfe_error err;

	if (disk == NULL)
		return;
	if (bp_disk_destroy(disk, &err) < 0)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	else
		vfe_jsonrpc_reply(req, json_true());
}

void
rpc_bdev_null_delete(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	delete (ctx, req, params, BP_DISK_NULL);
}

void
rpc_bdev_malloc_delete(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	delete (ctx, req, params, BP_DISK_MEMORY);
}

void
rpc_bdev_file_delete(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	delete (ctx, req, params, BP_DISK_FILE);
}

/* --- size --- */

/* All drivers of @disk get to know its size by a configuration interrupt. */
static void
tell_drivers(struct dpu *dpu, const struct bp_disk *disk)
{
	struct blk_ctrl *ctrl;

	TAILQ_FOREACH (ctrl, &dpu->blk_ctrls, link)
		blk_disk_resized(ctrl->fn, disk);
}

static void
resize(struct dpu *dpu, struct vfe_jsonrpc_request *req, struct bp_disk *disk, uint64_t size)
{
	struct bp_disk_info before, after;
	struct vfe_error err;

	bp_disk_info(disk, &before);
	if (bp_disk_resize(disk, size, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	bp_disk_info(disk, &after);
	if (after.size != before.size) {
		log_info("bdev %s: %llu bytes, before %llu", after.name,
			(unsigned long long)after.size, (unsigned long long)before.size);
		tell_drivers(dpu, disk);
	}
	vfe_jsonrpc_reply(req, json_true());
}

static void
resize_blocks(struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params,
	enum bp_disk_type type)
{
	const char *name = NULL;
	int64_t new_size = 0;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
		{.name = "new_size",
			.type = VFE_JSONRPC_INT,
			.required = true,
			.min = 1,
			.max = INT64_MAX / MIB,
			.ret = &new_size},
	};
	struct bp_disk *disk = NULL;
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) == 0)
		disk = find(dpu, name, type, &err);
	if (disk == NULL)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	else
		resize(dpu, req, disk, (uint64_t)new_size * MIB);
}

void
rpc_bdev_null_resize(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	resize_blocks(ctx, req, params, BP_DISK_NULL);
}

void
rpc_bdev_malloc_resize(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	resize_blocks(ctx, req, params, BP_DISK_MEMORY);
}

void
rpc_bdev_rescan(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct bp_disk *disk = by_name(ctx, req, params, BP_DISK_FILE);

	if (disk != NULL)
		resize(ctx, req, disk, 0);
}

/* --- list --- */

static json_t *
describe(const struct bp_disk *disk)
{
	struct bp_disk_info info;
	json_t *o;

	bp_disk_info(disk, &info);
	o = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b, s:i}", "name", info.name, "product_name",
		type_names[info.type], "block_size", (json_int_t)info.block_size, "num_blocks",
		(json_int_t)(info.size / info.block_size), "physical_block_size",
		(json_int_t)info.physical_block_size, "read_only", info.read_only, "controllers",
		(int)info.users);
	if (o == NULL || info.type != BP_DISK_FILE)
		return o;
	json_object_set_new(o, "filename", json_string(info.path));
	json_object_set_new(o, "io", json_string(io_names[info.io]));
	json_object_set_new(o, "direct_align", json_integer(info.direct_align));
	json_object_set_new(o, "syncs", json_integer((json_int_t)info.syncs));
	return o;
}

void
rpc_bdev_get_bdevs(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	const char *name = NULL;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &name},
	};
	struct dpu *dpu = ctx;
	struct bp_disk *disk = NULL;
	struct vfe_error err;
	json_t *all;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	if (name != NULL && bp_disk_find(dpu->env.engine, name) == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "there is no bdev %.64s", name);
		return;
	}
	all = json_array();
	while ((disk = bp_disk_next(dpu->env.engine, disk)) != NULL) {
		if (name == NULL || bp_disk_find(dpu->env.engine, name) == disk)
			json_array_append_new(all, describe(disk));
	}
	vfe_jsonrpc_reply(req, all);
}

/* --- test knob --- */

static int
parse_action(const char *text, enum bp_inject_action *ret, struct vfe_error *err)
{
	static const char *const names[] = {
		[BP_INJECT_NONE] = "none",
		[BP_INJECT_FAIL] = "fail",
		[BP_INJECT_HOLD] = "hold",
	};
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) == 0) {
			*ret = (enum bp_inject_action)i;
			return 0;
		}
	}
	return vfe_error_set(err, -EINVAL,
		"action: expected \"none\", \"fail\" or \"hold\", got \"%.32s\"", text);
}

static int
parse_op(const char *text, uint32_t *ret, struct vfe_error *err)
{
	static const struct {
		const char *name;
		uint32_t ops;
	} rows[] = {
		{"all", UINT32_MAX},
		{"read", BP_INJECT_READ},
		{"write", BP_INJECT_WRITE},
		{"flush", BP_INJECT_FLUSH},
		{"discard", BP_INJECT_DISCARD},
		{"write_zeroes", BP_INJECT_ZEROES},
	};
	unsigned int i;

	for (i = 0; i < VFE_ARRAY_SIZE(rows); i++) {
		if (strcmp(rows[i].name, text) == 0) {
			*ret = rows[i].ops;
			return 0;
		}
	}
	return vfe_error_set(err, -EINVAL,
		"op: expected \"all\", \"read\", \"write\", \"flush\", \"discard\" or "
		"\"write_zeroes\", got \"%.32s\"",
		text);
}

void
rpc_bdev_inject(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	const char *name = NULL, *action = NULL, *op = "all";
	int64_t every = 1, first = 0, count = INT64_MAX;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "name", .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
		{.name = "action", .type = VFE_JSONRPC_STRING, .required = true, .ret = &action},
		{.name = "op", .type = VFE_JSONRPC_STRING, .ret = &op},
		{.name = "every",
			.type = VFE_JSONRPC_INT,
			.min = 1,
			.max = INT32_MAX,
			.ret = &every},
		{.name = "sector", .type = VFE_JSONRPC_INT, .max = INT64_MAX / 2, .ret = &first},
		{.name = "sectors",
			.type = VFE_JSONRPC_INT,
			.min = 1,
			.max = INT64_MAX / 2,
			.ret = &count},
	};
	struct dpu *dpu = ctx;
	struct bp_inject inject = {0};
	struct bp_disk *disk = NULL;
	struct vfe_error err;
	int rc = vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err);

	if (rc == 0)
		rc = parse_action(action, &inject.action, &err);
	if (rc == 0)
		rc = parse_op(op, &inject.ops, &err);
	if (rc == 0)
		disk = bp_disk_find(dpu->env.engine, name);
	if (rc == 0 && disk == NULL)
		rc = vfe_error_set(&err, -ENODEV, "there is no bdev %.64s", name);
	if (rc < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	inject.every = (uint32_t)every;
	inject.first = (uint64_t)first;
	inject.last = (uint64_t)first + ((uint64_t)count - 1);
	bp_disk_inject(disk, &inject);
	vfe_jsonrpc_reply(req, json_true());
}
