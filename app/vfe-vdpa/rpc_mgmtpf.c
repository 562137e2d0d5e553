/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Method mgmtpf: add, remove and list the PFs that manage VFs.
 */

#include "rpc.h"

#include "svc_log.h"

#include <stdlib.h>

static int
pf_add(struct rpc_call *call)
{
	int ret = call->num_vfs > 0 ? vfe_vdpa_pf_add_vfs(&call->bdf, call->num_vfs, &call->err)
				    : vfe_vdpa_pf_add(&call->bdf, &call->err);

	if (ret < 0)
		SVC_LOG(ERR, "add PF: %s", call->err.err.text);
	return ret;
}

static int
pf_remove(struct rpc_call *call)
{
	int ret = vfe_vdpa_pf_remove(&call->bdf, &call->err);

	if (ret < 0)
		SVC_LOG(ERR, "remove PF: %s", call->err.err.text);
	return ret;
}

static json_t *
pf_record(const struct vfe_vdpa_pf_info *info, bool debug)
{
	char name[VFE_BDF_STR_SIZE];
	json_t *record = json_pack("{s:s}", "pf", vfe_bdf_format(&info->bdf, name));

	json_object_set_new(record, "vf_num", json_integer(info->nr_vfs));
	json_object_set_new(record, "lost", json_boolean(info->lost));
	if (!debug)
		return record;
	json_object_set_new(
		record, "device_feature", rpc_features(info->device_id, info->device_features));
	json_object_set_new(
		record, "admin_commands", json_integer((json_int_t)info->admin_commands));
	json_object_set_new(record, "admin_retries", json_integer((json_int_t)info->admin_retries));
	json_object_set_new(record, "admin_errors", json_integer((json_int_t)info->admin_errors));
	return record;
}

static void
pf_list(struct vfe_jsonrpc_request *req, bool debug)
{
	size_t i, n = vfe_vdpa_pf_list(NULL, 0);
	struct vfe_vdpa_pf_info *infos = n > 0 ? calloc(n, sizeof(*infos)) : NULL;
	json_t *result, *devices;

	if (n > 0 && infos == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	if (n > 0) {
		size_t now = vfe_vdpa_pf_list(infos, n); /* others may have come meanwhile */

		n = now < n ? now : n;
	}
	devices = json_array();
	for (i = 0; i < n; i++)
		json_array_append_new(devices, pf_record(&infos[i], debug));
	free(infos);

	result = n > 0 ? rpc_result(VFE_VDPA_OK, "Success")
		       : rpc_result(VFE_VDPA_NO_PF_DEVICE,
				 "no PF is managed yet; add one with vhostmgmt mgmtpf -a BDF");
	json_object_set_new(result, "devices", devices);
	vfe_jsonrpc_reply(req, result);
}

void
rpc_mgmtpf(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	bool add = false, remove = false, list = false, debug = false;
	const char *dev = NULL;
	int64_t num_vfs = 0;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "add", .type = VFE_JSONRPC_BOOL, .ret = &add},
		{.name = "remove", .type = VFE_JSONRPC_BOOL, .ret = &remove},
		{.name = "list", .type = VFE_JSONRPC_BOOL, .ret = &list},
		{.name = "debug", .type = VFE_JSONRPC_BOOL, .ret = &debug},
		{.name = "dev", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &dev},
		{.name = "num_vfs",
			.type = VFE_JSONRPC_INT,
			.min = 1,
			.max = UINT16_MAX,
			.nullable = true,
			.ret = &num_vfs},
	};
	struct rpc_call call = {.req = req};
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "mgmtpf: %s", err.text);
		return;
	}
	if (add + remove + list != 1) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS,
			"mgmtpf: exactly one of add, remove and list must be true");
		return;
	}
	if (num_vfs > 0 && !add) {
		vfe_jsonrpc_fail(
			req, VFE_JSONRPC_INVALID_PARAMS, "mgmtpf: num_vfs goes with add only");
		return;
	}
	if (list) {
		pf_list(req, debug);
		return;
	}
	if (rpc_bdf(req, dev, VFE_VDPA_NO_PF_NAME, &call.bdf) < 0)
		return;
	call.num_vfs = (unsigned int)num_vfs;
	call.execute = add ? pf_add : pf_remove;
	rpc_call_post(ctx, &call);
}
