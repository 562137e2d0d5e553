/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Methods for tests: "knobs" changes what goes wrong or takes time, "records" tells what the back
 * end "scribble" has written.
 */

#include "rpc.h"

#include <errno.h>

void
rpc_knobs(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct dpu *dpu = ctx;
	struct config_knobs *knobs = &dpu->env.knobs;
	int64_t latency = knobs->admin_latency_us, lose = knobs->dirty_lose_pages;
	bool scribble = knobs->scribble;
	const struct vfe_jsonrpc_param schema[] = {
		{.name = "admin_latency_us",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.max = CONFIG_MAX_LATENCY_US,
			.ret = &latency},
		{.name = "dirty_lose_pages",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.max = INT32_MAX,
			.ret = &lose},
		{.name = "scribble", .type = VFE_JSONRPC_BOOL, .nullable = true, .ret = &scribble},
	};
	struct vfe_error err;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) < 0) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	knobs->admin_latency_us = (uint32_t)latency;
	knobs->dirty_lose_pages = (uint32_t)lose;
	if (knobs->scribble != scribble)
		dp_engine_scribble(dpu->env.engine, scribble);
	knobs->scribble = scribble;
	vfe_jsonrpc_reply(req, json_pack("{s:I, s:I, s:b}", "admin_latency_us", (json_int_t)latency,
				       "dirty_lose_pages", (json_int_t)lose, "scribble", scribble));
}

void
rpc_records(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx)
{
	struct rpc_selector sel = {.pf = -1, .vf = -1};
	int64_t pair = 0;
	const struct vfe_jsonrpc_param schema[] = {
		RPC_SELECTOR_PARAMS(sel),
		{.name = "pair",
			.type = VFE_JSONRPC_INT,
			.nullable = true,
			.max = DP_MAX_PAIRS - 1,
			.ret = &pair},
	};
	struct function *fn = NULL;
	struct vfe_error err;
	json_t *records;

	if (vfe_jsonrpc_params(params, schema, VFE_ARRAY_SIZE(schema), &err) == 0)
		fn = rpc_find(ctx, &sel, &err);
	if (fn == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS, "%s", err.text);
		return;
	}
	records = fn->type->records != NULL ? fn->type->records(fn, (uint16_t)pair) : NULL;
	if (records == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INVALID_PARAMS,
			"%s: there is no back end scribble with pair %lld", fn->name,
			(long long)pair);
		return;
	}
	vfe_jsonrpc_reply(req, json_pack("{s:b, s:o}", "running", function_queues_running(fn),
				       "records", records));
}
