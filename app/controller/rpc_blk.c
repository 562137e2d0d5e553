/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Methods for block controllers: create, destroy, list.
 */

#include "rpc_blk.h"

#include "blk.h"
#include "config_blk.h"
#include "rpc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The function that a controller is wanted for. */
struct place {
	int64_t pf; /* -1 = absent */
	int64_t vf;
	const char *vuid; /* NULL = absent */
};

static const struct config_function *
find_place(struct dpu *dpu, const struct place *place, struct vfe_error *err)
{
	const struct config_function *pf;

	if ((place->vuid != NULL) == (place->pf >= 0) || (place->vf >= 0 && place->pf < 0)) {
		vfe_error_set(err, 0, "expected pf_id, pf_id and vf_id, or vuid");
		return NULL;
	}
	if (place->vuid != NULL) {
		pf = rpc_find_vuid(dpu, CONFIG_BLK, place->vuid);
		if (pf == NULL)
			vfe_error_set(err, 0, "there is no virtio-blk function with VUID %.64s",
				place->vuid);
		return pf;
	}
	pf = rpc_nth_pf(dpu, CONFIG_BLK, place->pf);
	if (pf == NULL) {
		vfe_error_set(err, 0, "there is no virtio-blk PF %lld", (long long)place->pf);
		return NULL;
	}
	if (place->vf < 0)
		return pf;
	if (place->vf >= pf->nr_vfs) {
		vfe_error_set(err, 0, "there is no VF %lld on virtio-blk PF %lld, it has %u VFs",
			(long long)place->vf, (long long)place->pf, pf->nr_vfs);
		return NULL;
	}
	return &pf->vfs[place->vf];
}

/* Parameters of both generations of the command. */
struct create {
	struct place place;
	const char *ctrl;
	const char *bdev;
	const char *vblk_id;
	int64_t num_queues; /* 0 = what the configuration says */
	int64_t seg_max;
	int64_t size_max;
	bool admin_q;
	bool in_order;
	bool read_only;
};

#define CREATE_INIT                            \
	{                                      \
		.place = {.pf = -1, .vf = -1 } \
	}

#define CREATE_NUMBER(text, member, low, high)                                           \
	{                                                                                \
		.name = (text), .type = VFE_JSONRPC_INT, .nullable = true, .min = (low), \
		.max = (high), .ret = &(member)                                          \
	}
#define CREATE_FLAG(text, member)                                                            \
	{                                                                                    \
		.name = (text), .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &(member) \
	}
#define CREATE_TEXT(text, member)                                                              \
	{                                                                                      \
		.name = (text), .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &(member) \
	}

/* Rows that both have. */
#define CREATE_PARAMS(c)                                                                           \
	CREATE_NUMBER("pf_id", (c).place.pf, 0, UINT16_MAX),                                       \
		CREATE_NUMBER("vf_id", (c).place.vf, 0, UINT16_MAX),                               \
		CREATE_TEXT("bdev", (c).bdev), CREATE_TEXT("vblk_id", (c).vblk_id),                \
		CREATE_NUMBER("num_queues", (c).num_queues, 1, BP_MAX_QUEUES),                     \
		CREATE_NUMBER("seg_max", (c).seg_max, 1, CONFIG_MAX_SEG),                          \
		CREATE_NUMBER("size_max", (c).size_max, CONFIG_MIN_SIZE_MAX, CONFIG_MAX_SIZE_MAX), \
		CREATE_FLAG("admin_q", (c).admin_q), CREATE_FLAG("force_in_order", (c).in_order)

static int
fill_blk(const struct config_function *cfg, const struct create *c, struct config_blk *blk,
	struct vfe_error *err)
{
	*blk = cfg->blk;
	if (c->bdev == NULL)
		return vfe_error_set(err, -EINVAL, "bdev: missing");
	if (vfe_str_copy(blk->bdev, sizeof(blk->bdev), c->bdev) < 0)
		return vfe_error_set(err, -EINVAL, "there is no bdev %.64s", c->bdev);
	if (c->vblk_id != NULL && vfe_str_copy(blk->vblk_id, sizeof(blk->vblk_id), c->vblk_id) < 0)
		return vfe_error_set(
			err, -EINVAL, "vblk_id: expected at most %d characters", BP_ID_SIZE);
	if (c->num_queues != 0)
		blk->num_queues = (uint32_t)c->num_queues;
	if (c->seg_max != 0)
		blk->seg_max = (uint32_t)c->seg_max;
	if (c->size_max != 0)
		blk->size_max = (uint32_t)c->size_max;
	blk->in_order = c->in_order;
	blk->read_only = blk->read_only || c->read_only;
	/* only a PF has an admin queue; that the option is harmless on a VF is the user guide's */
	blk->no_admin_q = !c->admin_q;
	return 0;
}

static void
create(struct dpu *dpu, struct vfe_jsonrpc_request *req, const struct create *c,
	const char *key_of_name)
{
	const struct config_function *cfg;
	struct blk_ctrl *ctrl = NULL;
	struct config_blk blk;
	struct vfe_error err;

	cfg = find_place(dpu, &c->place, &err);
	if (cfg == NULL || fill_blk(cfg, c, &blk, &err) < 0 ||
		blk_ctrl_create(dpu, cfg, &blk, c->ctrl, &ctrl, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	if (key_of_name != NULL)
		vfe_jsonrpc_reply(req, json_pack("{s:s}", key_of_name, ctrl->name));
	else
		vfe_jsonrpc_reply(req, json_string(ctrl->name));
}

void
rpc_ctrl_create(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct create c = CREATE_INIT;
	const struct vfe_jsonrpc_param schema[] = {
		CREATE_PARAMS(c),
		CREATE_TEXT("vuid", c.place.vuid),
		CREATE_TEXT("ctrl", c.ctrl),
		CREATE_FLAG("read_only", c.read_only),
	};
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	else
		create(ctx, req, &c, "ctrl_id");
}

void
rpc_ctrl_create_old(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct create c = CREATE_INIT;
	const char *manager = NULL, *bdev_type = "spdk";
	const struct vfe_jsonrpc_param schema[] = {
		CREATE_PARAMS(c),
		CREATE_TEXT("emulation_manager", manager),
		CREATE_TEXT("bdev_type", bdev_type),
	};
	struct dpu *dpu = ctx;
	struct vfe_error err;
	int rc = vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err);

	if (rc == 0 && strcmp(bdev_type, "spdk") != 0)
		rc = vfe_error_set(
			&err, -EINVAL, "bdev_type: expected \"spdk\", got \"%.32s\"", bdev_type);
	if (rc == 0 && manager != NULL && strcmp(manager, dpu->env.config->sf_parent_device) != 0)
		rc = vfe_error_set(&err, -EINVAL, "there is no emulation manager %.32s, only %s",
			manager, dpu->env.config->sf_parent_device);
	if (rc < 0)
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
	else
		create(dpu, req, &c, NULL);
}

static void
destroy(struct dpu *dpu, struct vfe_jsonrpc_request *req, const json_t *params, const char *key)
{
	const char *name = NULL;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = key, .type = VFE_JSONRPC_STRING, .required = true, .ret = &name},
	};
	struct blk_ctrl *ctrl;
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	ctrl = blk_ctrl_find(dpu, name);
	if (ctrl == NULL) {
		vfe_jsonrpc_fail(
			req, VFE_JSONRPC_INVALID_PARAMS, "there is no controller %.64s", name);
		return;
	}
	blk_ctrl_destroy(dpu, ctrl);
	vfe_jsonrpc_reply(req, json_true());
}

void
rpc_ctrl_destroy(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	destroy(ctx, req, params, "ctrl");
}

void
rpc_ctrl_delete_old(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	destroy(ctx, req, params, "name");
}

/* --- lists --- */

static const char *
short_bdf(const struct vfe_bdf *bdf, char text[VFE_BDF_STR_SIZE])
{
	vfe_bdf_format(bdf, text);
	return bdf->domain == 0 ? text + 5 : text;
}

void
rpc_controller_list(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct dpu *dpu = ctx;
	struct blk_ctrl *ctrl;
	struct vfe_error err;
	json_t *all;

	if (vfe_jsonrpc_params(params, NULL, 0, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	all = json_array();
	TAILQ_FOREACH (ctrl, &dpu->blk_ctrls, link) {
		char bdf[VFE_BDF_STR_SIZE];
		json_t *o = json_pack("{s:s, s:s, s:s, s:i, s:s, s:s}", "name", ctrl->name,
			"emulation_manager", dpu->env.config->sf_parent_device, "type",
			"virtio_blk", "pci_index", ctrl->cfg.pf_id, "pci_bdf",
			short_bdf(&ctrl->cfg.bdf, bdf), "bdev", ctrl->cfg.blk.bdev);

		if (ctrl->cfg.is_vf)
			json_object_set_new(o, "vf_index", json_integer(ctrl->cfg.vf_id));
		json_array_append_new(all, o);
	}
	vfe_jsonrpc_reply(req, all);
}

static json_t *
describe_ctrl(struct dpu *dpu, struct blk_ctrl *ctrl)
{
	struct function *fn = ctrl->fn;
	char bdf[VFE_BDF_STR_SIZE], vuid[RPC_VUID_SIZE];
	json_t *o;

	rpc_format_vuid(dpu, &ctrl->cfg, vuid);
	o = json_pack("{s:s, s:i, s:s, s:s}", "ctrl_id", ctrl->name, "pf_id", ctrl->cfg.pf_id,
		"pci_bdf", short_bdf(&ctrl->cfg.bdf, bdf), "vuid", vuid);
	if (ctrl->cfg.is_vf)
		json_object_set_new(o, "vf_id", json_integer(ctrl->cfg.vf_id));
	fn->type->describe(fn, o);
	rpc_describe_state(fn, o);
	json_object_set_new(o, "queues", rpc_describe_queues(fn));
	return o;
}

void
rpc_ctrl_list(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	const char *name = NULL;
	const struct vfe_jsonrpc_param schema[] = {CREATE_TEXT("ctrl", name)};
	struct dpu *dpu = ctx;
	struct blk_ctrl *ctrl;
	struct vfe_error err;
	json_t *all;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	if (name != NULL && blk_ctrl_find(dpu, name) == NULL) {
		vfe_jsonrpc_fail(
			req, VFE_JSONRPC_INVALID_PARAMS, "there is no controller %.64s", name);
		return;
	}
	all = json_array();
	TAILQ_FOREACH (ctrl, &dpu->blk_ctrls, link) {
		if (name == NULL || strcmp(name, ctrl->name) == 0)
			json_array_append_new(all, describe_ctrl(dpu, ctrl));
	}
	vfe_jsonrpc_reply(req, all);
}

static json_t *
describe_function(struct dpu *dpu, const struct config_function *cfg)
{
	const struct blk_ctrl *ctrl = blk_ctrl_of(dpu, dpu_function(dpu, cfg));
	char bdf[VFE_BDF_STR_SIZE], vuid[RPC_VUID_SIZE];
	json_t *o;

	rpc_format_vuid(dpu, cfg, vuid);
	o = json_pack("{s:b, s:s, s:i, s:s, s:s}", "hotplugged", 0, "emulation_type", "VBLK",
		cfg->is_vf ? "vf_index" : "pf_index", cfg->is_vf ? cfg->vf_id : cfg->pf_id,
		"pci_bdf", short_bdf(&cfg->bdf, bdf), "vuid", vuid);
	if (ctrl != NULL)
		json_object_set_new(o, "ctrl_id", json_string(ctrl->name));
	return o;
}

void
rpc_emulation_function_list(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct dpu *dpu = ctx;
	struct vfe_error err;
	unsigned int i;
	uint16_t vf;
	json_t *all;

	if (vfe_jsonrpc_params(params, NULL, 0, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	all = json_array();
	for (i = 0; i < dpu->nr_pfs; i++) {
		const struct config_function *pf = &dpu->env.config->pfs[i];
		json_t *o, *vfs = json_array();

		if (pf->type != CONFIG_BLK) {
			json_decref(vfs);
			continue;
		}
		o = describe_function(dpu, pf);
		for (vf = 0; vf < pf->nr_vfs; vf++)
			json_array_append_new(vfs, describe_function(dpu, &pf->vfs[vf]));
		json_object_set_new(o, "vfs", vfs);
		json_array_append_new(all, o);
	}
	vfe_jsonrpc_reply(req, all);
}
