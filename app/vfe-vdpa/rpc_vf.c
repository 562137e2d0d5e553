/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Method vf: add, remove, list, show and test VFs.
 */

#include "rpc.h"

#include "port.h"
#include "svc_log.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- on the provisioning thread --- */

static int
vf_add(struct rpc_call *call)
{
	const char *path = call->socket_file[0] != '\0' ? call->socket_file : NULL;
	const char *uuid = call->uuid[0] != '\0' ? call->uuid : NULL;
	char chosen[PORT_PATH_SIZE];
	struct vfe_vdpa_error ignored;
	int ret;

	ret = port_path_check(&call->bdf, path, call->role, chosen, &call->err);
	if (ret < 0)
		goto out;
	ret = call->plain
		      ? vfe_vdpa_vf_add_plain(&call->bdf, uuid, call->allow_no_iommu, &call->err)
		      : vfe_vdpa_vf_add(&call->bdf, uuid, &call->err);
	if (ret < 0)
		goto out;
	ret = port_add(&call->bdf, chosen, call->role, &call->err);
	if (ret < 0)
		vfe_vdpa_vf_remove(&call->bdf, &ignored);
out:
	if (ret < 0)
		SVC_LOG(ERR, "add VF: %s", call->err.err.text);
	return ret;
}

static int
vf_remove(struct rpc_call *call)
{
	int ret;

	port_remove(&call->bdf);
	ret = vfe_vdpa_vf_remove(&call->bdf, &call->err);
	if (ret < 0)
		SVC_LOG(ERR, "remove VF: %s", call->err.err.text);
	return ret;
}

static int
vf_debug(struct rpc_call *call)
{
	return vfe_vdpa_vf_debug(
		&call->bdf, call->operation, call->size_mode, &call->value, &call->err);
}

static json_t *
vf_debug_answer(const struct rpc_call *call)
{
	static const char *const names[] = {"init", "running", "quiesced", "freezed"};
	char name[VFE_BDF_STR_SIZE];
	json_t *result;

	vfe_bdf_format(&call->bdf, name);
	result = json_pack("{s:s, s:i, s:s}", "Success", name, "errno", 0, "errstr", "Success");
	if (call->operation == 6 && call->value < VFE_ARRAY_SIZE(names))
		json_object_set_new(result, "device",
			json_pack("{s:s, s:s}", "vf", name, "lm_status", names[call->value]));
	if (call->operation == 5)
		json_object_set_new(result, "device",
			json_pack(
				"{s:s, s:I}", "vf", name, "dirty_pages", (json_int_t)call->value));
	return result;
}

/* --- at once --- */

static void
vf_list(struct vfe_jsonrpc_request *req, const struct vfe_bdf *pf)
{
	ssize_t i, n = vfe_vdpa_vf_list(pf, NULL, 0);
	struct vfe_bdf *bdfs = NULL;
	char name[VFE_BDF_STR_SIZE];
	json_t *result, *devices;
	char text[128];

	if (n < 0) {
		vfe_str_format(text, sizeof(text),
			"%s: no such PF is managed; add it with vhostmgmt mgmtpf -a",
			vfe_bdf_format(pf, name));
		vfe_jsonrpc_reply(req, rpc_result(VFE_VDPA_NO_PF_DEVICE, text));
		return;
	}
	if (n > 0) {
		ssize_t now;

		bdfs = calloc((size_t)n, sizeof(*bdfs));
		now = bdfs != NULL ? vfe_vdpa_vf_list(pf, bdfs, (size_t)n) : 0;
		n = now < n ? now : n;
	}
	devices = json_array();
	for (i = 0; i < n; i++) {
		json_t *record = rpc_info_record(&bdfs[i], NULL);

		if (record != NULL) /* else removed meanwhile */
			json_array_append_new(devices, record);
	}
	free(bdfs);
	result = rpc_result(VFE_VDPA_OK, "Success");
	json_object_set_new(result, "devices", devices);
	vfe_jsonrpc_reply(req, result);
}

static bool
uuid_valid(const char *uuid)
{
	size_t i;

	for (i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? uuid[i] != '-' : !isxdigit((unsigned char)uuid[i]))
			return false;
	}
	return uuid[36] == '\0';
}

struct vf_params {
	bool add;
	bool remove;
	bool list;
	bool info;
	bool debug;
	bool plain;
	bool allow_no_iommu;
	const char *vfdev;
	const char *mgmtpf;
	const char *socket_file;
	const char *socket_role;
	const char *uuid;
	int64_t operation;
	int64_t size_mode;
};

/* What the schema cannot say. Returns NULL or what is wrong. */
static const char *
vf_params_check(const struct vf_params *p)
{
	if (p->add + p->remove + p->list + p->info + p->debug != 1)
		return "exactly one of add, remove, list, info and debug must be true";
	if (!p->add &&
		(p->socket_file != NULL || p->socket_role != NULL || p->uuid != NULL || p->plain))
		return "socket_file, socket_role, uuid and plain go with add only";
	if (p->allow_no_iommu && (!p->add || !p->plain))
		return "allow_no_iommu goes with add of a plain function only: the rings of others "
		       "are the guest's own, and hold addresses that an IOMMU has to translate";
	if (p->uuid != NULL && !uuid_valid(p->uuid))
		return "uuid is not like 01234567-89ab-cdef-0123-456789abcdef";
	if (p->debug && p->operation == 0)
		return "debug wants test_operation 1..6";
	if (!p->debug && (p->operation != 0 || p->size_mode != 0))
		return "test_operation and size_mode go with debug only";
	return NULL;
}

static void
vf_call_post(struct vfe_jsonrpc_request *req, const struct vf_params *p, struct rpc_call *call,
	void *ctx)
{
	char name[VFE_BDF_STR_SIZE];

	if (p->add) {
		call->execute = vf_add;
		call->plain = p->plain;
		call->allow_no_iommu = p->allow_no_iommu;
		if (port_role_parse(p->socket_role, &call->role) < 0) {
			vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS,
				"vf: %s: socket_role is \"%.40s\", not \"server\" or \"client\"",
				vfe_bdf_format(&call->bdf, name), p->socket_role);
			return;
		}
		if (p->socket_file != NULL &&
			vfe_str_copy(call->socket_file, sizeof(call->socket_file), p->socket_file) <
				0) {
			vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS,
				"vf: socket_file is longer than %d characters", PORT_PATH_SIZE - 1);
			return;
		}
		if (p->uuid != NULL)
			vfe_str_copy(call->uuid, sizeof(call->uuid), p->uuid);
	} else if (p->remove) {
		call->execute = vf_remove;
	} else {
		call->execute = vf_debug;
		call->answer = vf_debug_answer;
		call->operation = (unsigned int)p->operation;
		call->size_mode = p->size_mode != 0 ? (unsigned int)p->size_mode : 1;
	}
	rpc_call_post(ctx, call);
}

void
rpc_vf(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct vf_params p = {0};
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "add", .type = VFE_JSONRPC_BOOL, .ret = &p.add},
		{.name = "remove", .type = VFE_JSONRPC_BOOL, .ret = &p.remove},
		{.name = "list", .type = VFE_JSONRPC_BOOL, .ret = &p.list},
		{.name = "info", .type = VFE_JSONRPC_BOOL, .ret = &p.info},
		{.name = "debug", .type = VFE_JSONRPC_BOOL, .ret = &p.debug},
		{.name = "plain", .type = VFE_JSONRPC_BOOL, .ret = &p.plain},
		{.name = "allow_no_iommu", .type = VFE_JSONRPC_BOOL, .ret = &p.allow_no_iommu},
		{.name = "vfdev", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &p.vfdev},
		{.name = "mgmtpf", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &p.mgmtpf},
		{.name = "socket_file",
			.type = VFE_JSONRPC_STRING,
			.nullable = true,
			.ret = &p.socket_file},
		{.name = "socket_role",
			.type = VFE_JSONRPC_STRING,
			.nullable = true,
			.ret = &p.socket_role},
		{.name = "uuid", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &p.uuid},
		{.name = "test_operation",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.min = 1,
			.max = 6,
			.ret = &p.operation},
		{.name = "size_mode",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.min = 1,
			.max = 2,
			.ret = &p.size_mode},
	};
	struct rpc_call call = {.req = req};
	struct vfe_error err;
	const char *wrong;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "vf: %s", err.text);
		return;
	}
	wrong = vf_params_check(&p);
	if (wrong != NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "vf: %s", wrong);
		return;
	}

	if (p.list) {
		if (rpc_bdf(req, p.mgmtpf, VFE_VDPA_NO_PF_NAME, &call.bdf) == 0)
			vf_list(req, &call.bdf);
		return;
	}
	if (rpc_bdf(req, p.vfdev, VFE_VDPA_NO_VF_NAME, &call.bdf) < 0)
		return;
	if (p.info)
		rpc_info(req, &call.bdf);
	else
		vf_call_post(req, &p, &call, ctx);
}
