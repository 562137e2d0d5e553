/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Management interface of the service: JSON-RPC methods version, mgmtpf and vf.
 *
 * What takes time (add, remove, debug) runs on the provisioning thread and is answered when it is
 * done; list and version are answered at once, and so is info, unless it is about a parked VF,
 * whose configuration is read then. Results carry errno (0, or the negative of enum vfe_vdpa_code)
 * and errstr; malformed calls get JSON-RPC error objects.
 */

#ifndef RPC_H
#define RPC_H

#include <jansson.h>

#include "jobs.h"
#include "port.h"
#include "vfe_base.h"
#include "vfe_jsonrpc.h"
#include "vfe_vdpa.h"

struct rpc;

struct rpc_cfg {
	struct ev_loop *loop;
	struct jobs *jobs;
	const char *path;
	const char *group;
};

int rpc_create(const struct rpc_cfg *cfg, struct rpc **ret, struct vfe_error *err);

/* Stop listening. Calls that run are finished, their answers dropped. */
void rpc_destroy(struct rpc *rpc);

/* For struct vfe_vdpa_cfg; on any thread, between rpc_create() and the end of the loop. */
void rpc_on_refreshed(void *ctx);

/* --- private to rpc*.c --- */

/* One call that runs on the provisioning thread. */
struct rpc_call {
	struct job job;
	struct vfe_jsonrpc_request *req;
	int (*execute)(struct rpc_call *call); /* fills err when it returns < 0 */
	json_t *(*answer)(const struct rpc_call *call);
	struct vfe_bdf bdf;
	char socket_file[512]; /* "" = default */
	enum port_role role;
	char uuid[40]; /* "" = none */
	bool plain;    /* a function without PF */
	bool allow_no_iommu;
	unsigned int num_vfs; /* to be created, 0 = as they are */
	unsigned int operation;
	unsigned int size_mode;
	unsigned int value; /* of a test operation */
	int ret;
	struct vfe_vdpa_error err;
};

struct rpc {
	struct vfe_jsonrpc_server *server;
	struct jobs *jobs;
};

void rpc_mgmtpf(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);
void rpc_vf(struct vfe_jsonrpc_request *req, const json_t *params, void *ctx);

/* Answer with the record of a VF, a parked one's when its configuration has been read. */
void rpc_info(struct vfe_jsonrpc_request *req, const struct vfe_bdf *bdf);

/*
 * The record of a VF as it is known now, a new reference; NULL = there is no such VF.
 * *@ret_refreshing (may be NULL) = its configuration is being read.
 */
json_t *rpc_info_record(const struct vfe_bdf *bdf, bool *ret_refreshing);

/* Around all calls; fini answers what still waits. */
void rpc_info_init(struct ev_loop *loop);
void rpc_info_fini(void);

/* Copy @proto and post it; takes the request over. */
void rpc_call_post(struct rpc *rpc, const struct rpc_call *proto);

/* {"errno": .., "errstr": ..}; a new reference. */
json_t *rpc_result(enum vfe_vdpa_code code, const char *text);

/* Parse a BDF parameter; on failure the request is answered and -EINVAL returned. */
int rpc_bdf(struct vfe_jsonrpc_request *req, const char *text, enum vfe_vdpa_code missing,
	struct vfe_bdf *ret);

/* The record of one VF; a new reference. */
json_t *rpc_vf_record(const struct vfe_vdpa_vf_info *info, const struct port_info *port);

/* {"value": "0x..", "    5": "VIRTIO_NET_F_MAC", ..} for a device type; a new reference. */
json_t *rpc_features(uint16_t device_id, uint64_t features);

#endif /* RPC_H */
