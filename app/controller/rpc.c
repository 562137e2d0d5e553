/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The management socket of the controller: table of methods, "version" and "list".
 */

#include "rpc.h"

#include "rpc_blk.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { SOCKET_MODE = 0660 };

/* Emulated slot: PFs of one bus share it. */
static unsigned int
slot_of(const struct dpu *dpu, const struct config_function *pf)
{
	unsigned int i, slot = 0;
	const struct config_function *before = NULL;

	for (i = 0; i < dpu->nr_pfs; i++) {
		const struct config_function *at = &dpu->env.config->pfs[i];

		if (before != NULL &&
			(before->bdf.bus != at->bdf.bus || before->bdf.domain != at->bdf.domain))
			slot++;
		if (at == pf)
			return slot;
		before = at;
	}
	return slot;
}

const struct config_function *
rpc_nth_pf(const struct dpu *dpu, enum config_type type, int64_t n)
{
	unsigned int i;

	for (i = 0; i < dpu->nr_pfs; i++) {
		const struct config_function *pf = &dpu->env.config->pfs[i];

		if (pf->type == type && pf->pf_id == n)
			return pf;
	}
	return NULL;
}

void
rpc_format_vuid(const struct dpu *dpu, const struct config_function *cfg, char vuid[RPC_VUID_SIZE])
{
	const struct config_function *pf =
		cfg->is_vf ? rpc_nth_pf(dpu, cfg->type, cfg->pf_id) : cfg;
	const char *kind = cfg->type == CONFIG_BLK ? "VBLK" : "VNET";
	unsigned int slot = slot_of(dpu, pf);

	if (!cfg->is_vf)
		snprintf(vuid, RPC_VUID_SIZE, "%sS%uD%uF%u", kind, slot, pf->bdf.dev, pf->bdf.fn);
	else
		snprintf(vuid, RPC_VUID_SIZE, "%sS%uD%uF%uVF%u", kind, slot, pf->bdf.dev,
			pf->bdf.fn, cfg->vf_id + 1u);
}

const struct config_function *
rpc_find_vuid(const struct dpu *dpu, enum config_type type, const char *vuid)
{
	char text[RPC_VUID_SIZE];
	unsigned int i;
	int32_t vf;

	for (i = 0; i < dpu->nr_pfs; i++) {
		const struct config_function *pf = &dpu->env.config->pfs[i];

		for (vf = -1; pf->type == type && vf < pf->nr_vfs; vf++) {
			const struct config_function *cfg = vf < 0 ? pf : &pf->vfs[vf];

			rpc_format_vuid(dpu, cfg, text);
			if (strcmp(text, vuid) == 0)
				return cfg;
		}
	}
	return NULL;
}

static int
nr_net_pfs(const struct dpu *dpu)
{
	unsigned int i;
	int n = 0;

	for (i = 0; i < dpu->nr_pfs; i++)
		n += dpu->env.config->pfs[i].type == CONFIG_NET;
	return n;
}

struct function *
rpc_find(struct dpu *dpu, const struct rpc_selector *sel, struct vfe_error *err)
{
	const struct config_function *cfg;
	struct function *fn;

	if ((sel->vuid != NULL) == (sel->pf >= 0) || (sel->vf >= 0 && sel->pf < 0)) {
		vfe_error_set(err, 0, "expected pf, pf and vf, or vuid");
		return NULL;
	}
	if (sel->vuid != NULL) {
		cfg = rpc_find_vuid(dpu, CONFIG_NET, sel->vuid);
		if (cfg == NULL)
			vfe_error_set(err, 0, "there is no device with VUID %.64s", sel->vuid);
		return cfg != NULL ? dpu_function(dpu, cfg) : NULL;
	}
	cfg = rpc_nth_pf(dpu, CONFIG_NET, sel->pf);
	if (cfg == NULL) {
		vfe_error_set(err, 0, "there is no PF %lld, PFs are 0 to %d", (long long)sel->pf,
			nr_net_pfs(dpu) - 1);
		return NULL;
	}
	fn = dpu_function(dpu, cfg);
	if (sel->vf < 0)
		return fn;
	if (sel->vf >= fn->cfg->nr_vfs) {
		vfe_error_set(err, 0, "there is no VF %lld on PF %lld, it has %u VFs",
			(long long)sel->vf, (long long)sel->pf, fn->cfg->nr_vfs);
		return NULL;
	}
	return &fn->vfs[sel->vf];
}

static void
set_hex(json_t *object, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	json_object_set_new(object, key, json_string(text));
}

/* Keys and their order are those of the user guide. */
json_t *
rpc_describe(struct dpu *dpu, struct function *fn)
{
	const struct config_function *cfg = fn->cfg;
	bool tap = cfg->backend.type == DP_BACKEND_TAP;
	json_t *device = json_object();
	char vuid[RPC_VUID_SIZE];

	if (device == NULL)
		return NULL;
	rpc_format_vuid(dpu, cfg, vuid);
	if (fn->pf != NULL) {
		json_object_set_new(device, "vf_id", json_integer(cfg->vf_id));
		json_object_set_new(device, "parent_pf_id", json_integer(cfg->pf_id));
		json_object_set_new(device, "function_type", json_string("VF"));
	} else {
		json_object_set_new(device, "pf_id", json_integer(cfg->pf_id));
		json_object_set_new(device, "function_type", json_string("static PF"));
	}
	json_object_set_new(device, "vuid", json_string(vuid));
	json_object_set_new(
		device, "bdf", json_string(cfg->bdf.domain == 0 ? fn->name + 5 : fn->name));
	if (fn->pf == NULL) {
		json_object_set_new(device, "pci_max_vfs", json_integer(cfg->nr_vfs));
		json_object_set_new(device, "enabled_vfs", json_integer(cfg->nr_vfs));
	}
	json_object_set_new(device, "sf_num", json_integer((json_int_t)cfg->sf_num));
	json_object_set_new(
		device, "sf_parent_device", json_string(dpu->env.config->sf_parent_device));
	json_object_set_new(
		device, "sf_rep_net_device", json_string(tap ? cfg->backend.tap_name : ""));
	json_object_set_new(
		device, "sf_rep_net_ifindex", json_integer((json_int_t)fn->type->ifindex(fn)));
	json_object_set_new(device, "sf_rdma_device", json_string(""));
	set_hex(device, "sf_vhca_id", 0);
	set_hex(device, "msix_config_vector", vfe_vdev_config_vector(fn->vdev));
	json_object_set_new(device, "num_msix", json_integer(cfg->num_msix));
	json_object_set_new(device, "max_queues", json_integer(cfg->qp_num));
	json_object_set_new(
		device, "max_queues_size", json_integer((json_int_t)dpu->env.config->queue_size));
	fn->type->describe(fn, device);
	return device;
}

static void
rpc_version(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct vfe_error err;

	(void)ctx;
	if (vfe_jsonrpc_params(params, NULL, 0, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	vfe_jsonrpc_reply(req, json_pack("{s:s}", "Original Controller", "v" VFE_VERSION));
}

static json_t *
describe_controller(const struct dpu *dpu)
{
	unsigned int i, functions = 0, queues = 0;

	for (i = 0; i < dpu->nr_pfs; i++) {
		const struct config_function *pf = &dpu->env.config->pfs[i];

		if (pf->type != CONFIG_NET)
			continue;
		functions += 1u + pf->nr_vfs;
		if (pf->qp_num > queues)
			queues = pf->qp_num;
		if (pf->nr_vfs > 0 && pf->vfs[0].qp_num > queues)
			queues = pf->vfs[0].qp_num;
	}
	return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:b}", "version", "v" VFE_VERSION,
		"emulation_manager", dpu->env.config->sf_parent_device, "max_hotplug_devices", 0,
		"max_virt_net_devices", (int)functions, "max_virtq", (int)queues, "workers",
		(int)dpu->env.config->workers, "polling", dpu->env.config->polling);
}

static void
rpc_list(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct dpu *dpu = ctx;
	struct vfe_error err;
	json_t *devices;
	unsigned int i;
	uint16_t vf;

	if (vfe_jsonrpc_params(params, NULL, 0, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	devices = json_array();
	for (i = 0; i < dpu->nr_pfs; i++) {
		struct function *pf = &dpu->pfs[i];

		if (dpu->env.config->pfs[i].type != CONFIG_NET)
			continue;
		json_array_append_new(devices, rpc_describe(dpu, pf));
		for (vf = 0; vf < pf->cfg->nr_vfs; vf++)
			json_array_append_new(devices, rpc_describe(dpu, &pf->vfs[vf]));
	}
	vfe_jsonrpc_reply(req, json_pack("{s:o, s:o}", "controller", describe_controller(dpu),
				       "devices", devices));
}

static const struct vfe_jsonrpc_method methods[] = {
	{"version", rpc_version},
	{"list", rpc_list},
	{"query", rpc_query},
	{"modify", rpc_modify},
	{"knobs", rpc_knobs},
	{"records", rpc_records},
	RPC_BLK_METHODS,
	{NULL, NULL},
};

int
rpc_create(struct dpu *dpu, struct vfe_error *err)
{
	const struct config *config = dpu->env.config;
	const struct vfe_jsonrpc_cfg cfg = {
		.path = config->rpc_socket,
		.mode = SOCKET_MODE,
		.group = config->rpc_group[0] != '\0' ? config->rpc_group : NULL,
		.methods = methods,
		.ctx = dpu,
	};

	return vfe_jsonrpc_server_create(dpu->env.loop, &cfg, &dpu->rpc, err);
}

void
rpc_destroy(struct dpu *dpu)
{
	vfe_jsonrpc_server_destroy(dpu->rpc);
	dpu->rpc = NULL;
}
