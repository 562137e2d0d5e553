/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Method "query": everything about one device, or about all of them.
 */

#include "rpc.h"

#include "admin.h"
#include "dirty.h"
#include "migrate.h"

#include <stdio.h>

static json_t *
hex(uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)value);
	return json_string(text);
}

static json_t *
describe_queue(struct function *fn, uint16_t qid)
{
	const struct vfe_vdev_queue *regs = vfe_vdev_queue(fn->vdev, qid);
	json_t *queue = json_object();

	json_object_set_new(queue, "index", json_integer(qid));
	json_object_set_new(queue, "enabled", json_boolean(regs->enabled));
	json_object_set_new(queue, "running", json_boolean(fn->queues[qid].started));
	json_object_set_new(queue, "size", json_integer(regs->size));
	json_object_set_new(queue, "msix_vector", hex(regs->msix_vector));
	json_object_set_new(queue, "desc_addr", hex(regs->desc));
	json_object_set_new(queue, "driver_addr", hex(regs->driver));
	json_object_set_new(queue, "device_addr", hex(regs->device));
	if (!fn->queues[qid].started) {
		json_object_set_new(queue, "last_avail_idx", json_integer(fn->queues[qid].avail));
		json_object_set_new(queue, "last_used_idx", json_integer(fn->queues[qid].used));
	}
	if (fn->admin != NULL && qid == fn->admin_qid)
		json_object_set_new(queue, "type", json_string("admin"));
	else
		fn->type->describe_queue(fn, qid, queue);
	return queue;
}

json_t *
rpc_describe_queues(struct function *fn)
{
	json_t *queues = json_array();
	uint16_t i;

	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++)
		json_array_append_new(queues, describe_queue(fn, i));
	return queues;
}

static json_t *
describe_admin(const struct function *fn)
{
	struct admin_stats stats;

	admin_get_stats(fn->admin, &stats);
	return json_pack("{s:i, s:I, s:I, s:i}", "queue_index", fn->admin_qid, "commands",
		(json_int_t)stats.commands, "errors", (json_int_t)stats.errors, "in_flight",
		(int)stats.in_flight);
}

void
rpc_describe_state(struct function *fn, json_t *device)
{
	function_check_memory(fn);
	json_object_set_new(device, "device_features", hex(vfe_vdev_features(fn->vdev)));
	json_object_set_new(device, "driver_features", hex(vfe_vdev_driver_features(fn->vdev)));
	json_object_set_new(device, "device_status", hex(vfe_vdev_status(fn->vdev)));
	json_object_set_new(
		device, "internal_status", json_string(migrate_status_name(fn->internal)));
	json_object_set_new(device, "resetting", json_boolean(vfe_vdev_resetting(fn->vdev)));
	json_object_set_new(
		device, "config_generation", json_integer(vfe_vdev_generation(fn->vdev)));
	json_object_set_new(
		device, "client_connected", json_boolean(vfe_vfu_server_connected(fn->server)));
	json_object_set_new(
		device, "client_last_error", json_string(vfe_vfu_server_last_error(fn->server)));
	json_object_set_new(device, "dma_mappings", json_integer(fn->nr_dmas));
	json_object_set_new(device, "last_error", json_string(fn->last_error.text));
	if (fn->pf != NULL)
		json_object_set_new(device, "dirty_tracking", dirty_describe(fn));
	if (fn->admin != NULL)
		json_object_set_new(device, "admin", describe_admin(fn));
}

static json_t *
describe(struct dpu *dpu, struct function *fn, bool brief)
{
	json_t *device = rpc_describe(dpu, fn);

	rpc_describe_state(fn, device);
	if (!brief)
		json_object_set_new(device, "queues", rpc_describe_queues(fn));
	return device;
}

static json_t *
describe_all(struct dpu *dpu, bool brief)
{
	json_t *devices = json_array();
	unsigned int i;
	uint16_t vf;

	for (i = 0; i < dpu->nr_pfs; i++) {
		struct function *pf = &dpu->pfs[i];

		if (dpu->env.config->pfs[i].type != CONFIG_NET)
			continue;
		json_array_append_new(devices, describe(dpu, pf, brief));
		for (vf = 0; vf < pf->cfg->nr_vfs; vf++)
			json_array_append_new(devices, describe(dpu, &pf->vfs[vf], brief));
	}
	return json_pack("{s:o}", "devices", devices);
}

void
rpc_query(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct rpc_selector sel = {.pf = -1, .vf = -1};
	bool all = false, brief = false;
	const struct vfe_jsonrpc_param schema[] = {
		RPC_SELECTOR_PARAMS(sel),
		{.name = "all", .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &all},
		{.name = "brief", .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &brief},
	};
	struct dpu *dpu = ctx;
	struct function *fn;
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0)
		goto invalid;
	if (all) {
		if (sel.pf >= 0 || sel.vf >= 0 || sel.vuid != NULL) {
			vfe_error_set(&err, 0, "all goes without pf, vf and vuid");
			goto invalid;
		}
		vfe_jsonrpc_reply(req, describe_all(dpu, brief));
		return;
	}
	fn = rpc_find(dpu, &sel, &err);
	if (fn == NULL)
		goto invalid;
	vfe_jsonrpc_reply(req, describe(dpu, fn, brief));
	return;

invalid:
	vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
}
