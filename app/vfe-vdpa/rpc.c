/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Management interface of the service: the method table and what the methods share.
 */

#include "rpc.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_version.h>

static void
rpc_version(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct vfe_error err;

	(void)ctx;
	if (vfe_jsonrpc_params(params, NULL, 0, &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	vfe_jsonrpc_reply(
		req, json_pack("{s:s, s:s, s:i, s:s}", "vfe-vhostd version", VFE_VERSION,
			     "dpdk version", rte_version(), "errno", 0, "errstr", "Success"));
}

static const struct vfe_jsonrpc_method methods[] = {
	{"version", rpc_version},
	{"mgmtpf", rpc_mgmtpf},
	{"vf", rpc_vf},
	{NULL, NULL},
};

json_t *
rpc_result(enum vfe_vdpa_code code, const char *text)
{
	return json_pack("{s:i, s:s}", "errno", -(int)code, "errstr", text);
}

int
rpc_bdf(struct vfe_jsonrpc_request *req, const char *text, enum vfe_vdpa_code missing,
	struct vfe_bdf *ret)
{
	if (text == NULL) {
		vfe_jsonrpc_reply(
			req, rpc_result(missing, missing == VFE_VDPA_NO_PF_NAME
							 ? "which PF? give its PCI address"
							 : "which VF? give its PCI address"));
		return -EINVAL;
	}
	if (vfe_bdf_parse(text, ret) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS,
			"\"%.40s\" is not a PCI address like 0000:af:00.2", text);
		return -EINVAL;
	}
	return 0;
}

static void
call_run(struct job *job)
{
	struct rpc_call *call = vfe_container_of(job, struct rpc_call, job);

	call->ret = call->execute(call);
}

static void
call_done(struct job *job)
{
	struct rpc_call *call = vfe_container_of(job, struct rpc_call, job);

	if (call->ret < 0)
		vfe_jsonrpc_reply(call->req, rpc_result(call->err.code, call->err.err.text));
	else if (call->answer != NULL)
		vfe_jsonrpc_reply(call->req, call->answer(call));
	else
		vfe_jsonrpc_reply(call->req, rpc_result(VFE_VDPA_OK, "Success"));
	free(call);
}

void
rpc_call_post(struct rpc *rpc, const struct rpc_call *proto)
{
	struct rpc_call *call = malloc(sizeof(*call));

	if (call == NULL) {
		vfe_jsonrpc_fail(proto->req, VFE_JSONRPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	*call = *proto;
	call->job.run = call_run;
	call->job.done = call_done;
	jobs_post(rpc->jobs, &call->job);
}

int
rpc_create(const struct rpc_cfg *cfg, struct rpc **ret, struct vfe_error *err)
{
	struct rpc *rpc = calloc(1, sizeof(*rpc));
	struct vfe_jsonrpc_cfg server = {
		.path = cfg->path,
		.mode = cfg->group != NULL ? 0660 : 0600,
		.group = cfg->group,
		.methods = methods,
		.ctx = rpc,
	};
	int rc;

	if (rpc == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	rpc->jobs = cfg->jobs;
	rc = vfe_jsonrpc_server_create(cfg->loop, &server, &rpc->server, err);
	if (rc < 0) {
		free(rpc);
		return rc;
	}
	rpc_info_init(cfg->loop);
	*ret = rpc;
	return 0;
}

void
rpc_destroy(struct rpc *rpc)
{
	if (rpc == NULL)
		return;
	vfe_jsonrpc_server_destroy(rpc->server);
	rpc_info_fini();
	free(rpc);
}
