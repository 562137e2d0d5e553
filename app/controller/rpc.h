/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the methods of the management socket share. See doc/controller.md for their results.
 */

#ifndef CONTROLLER_RPC_H
#define CONTROLLER_RPC_H

#include <jansson.h>

#include "dpu.h"
#include "vfe_jsonrpc.h"

enum { RPC_VUID_SIZE = 64 };

/* Which function a request means: number of the PF and maybe of the VF, or a VUID. */
struct rpc_selector {
	int64_t pf; /* -1 = absent */
	int64_t vf;
	const char *vuid; /* NULL = absent */
};

/* Rows for a schema, to be expanded inside an array of struct vfe_jsonrpc_param. */
#define RPC_SELECTOR_PARAMS(sel)                                                                 \
	{.name = "pf",                                                                           \
		.type = VFE_JSONRPC_INT,                                                         \
		.nullable = true,                                                                \
		.max = UINT16_MAX,                                                               \
		.ret = &(sel).pf},                                                               \
		{.name = "vf",                                                                   \
			.type = VFE_JSONRPC_INT,                                                 \
			.nullable = true,                                                        \
			.max = UINT16_MAX,                                                       \
			.ret = &(sel).vf},                                                       \
	{                                                                                        \
		.name = "vuid", .type = VFE_JSONRPC_STRING, .nullable = true, .ret = &(sel).vuid \
	}

/* The function, or NULL with a text that says what there is. */
struct function *rpc_find(struct dpu *dpu, const struct rpc_selector *sel, struct vfe_error *err);

/* PF number @n of its type, or NULL. */
const struct config_function *rpc_nth_pf(const struct dpu *dpu, enum config_type type, int64_t n);

/* The function of the configuration with that VUID, or NULL. */
const struct config_function *
rpc_find_vuid(const struct dpu *dpu, enum config_type type, const char *vuid);

/* VNETS<slot>D<device>F<function> (VBLK for block), of a VF followed by VF<number from 1>. */
void
rpc_format_vuid(const struct dpu *dpu, const struct config_function *cfg, char vuid[RPC_VUID_SIZE]);

/* Everything about a queue as in "virtnet query". */
json_t *rpc_describe_queues(struct function *fn);

/* Status, client, last error and admin queue of a function, added to @device. */
void rpc_describe_state(struct function *fn, json_t *device);

/* The members of a device as in "virtnet list". */
json_t *rpc_describe(struct dpu *dpu, struct function *fn);

void rpc_query(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);
void rpc_knobs(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);
void rpc_records(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);
void rpc_modify(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);

#endif /* CONTROLLER_RPC_H */
