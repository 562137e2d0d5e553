/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The software DPU: all functions, their data path, and the management socket.
 */

#ifndef CONTROLLER_DPU_H
#define CONTROLLER_DPU_H

#include <stdint.h>
#include <sys/queue.h>

#include <ev.h>

#include "config.h"
#include "function.h"
#include "vfe_base.h"

struct blk_ctrl;
struct vfe_jsonrpc_server;

struct dpu {
	struct function_env env;
	unsigned int nr_pfs;
	struct function *pfs; /* config->nr_pfs; a block function without a controller is all 0 */
	TAILQ_HEAD(, blk_ctrl) blk_ctrls;
	struct vfe_jsonrpc_server *rpc;
};

/* @config is borrowed for the life of @dpu. Returns 0, or -errno with a text. */
int dpu_create(
	struct dpu *dpu, struct ev_loop *loop, const struct config *config, struct vfe_error *err);

/* Half-built is fine. Sockets and representors are removed. */
void dpu_destroy(struct dpu *dpu);

/* The function of @cfg, one of the configuration. */
struct function *dpu_function(struct dpu *dpu, const struct config_function *cfg);

/* The PF that it is, or whose VF it is. */
struct function *dpu_pf(struct dpu *dpu, const struct config_function *cfg);

/* rpc.c: the management socket. */
int rpc_create(struct dpu *dpu, struct vfe_error *err);
void rpc_destroy(struct dpu *dpu);

#endif /* CONTROLLER_DPU_H */
