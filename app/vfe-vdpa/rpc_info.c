/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The record of a VF as it is now: nothing tells what has changed of a parked one, so it is read.
 */

#include "rpc.h"

#include "port.h"
#include "svc_log.h"

#include <ev.h>
#include <stdlib.h>
#include <sys/queue.h>

/* A device that takes longer is not waited for. */
#define PATIENCE_S 1.0

/* A call that waits for the device; main loop. */
struct waiting {
	LIST_ENTRY(waiting) next;
	struct vfe_jsonrpc_request *req;
	struct vfe_bdf bdf;
	struct ev_timer timer;
};

static struct {
	struct ev_loop *loop;
	LIST_HEAD(, waiting) list;
	struct ev_async wake;
} infos;

json_t *
rpc_info_record(const struct vfe_bdf *bdf, bool *ret_refreshing)
{
	struct vfe_vdpa_vf_info *info = malloc(sizeof(*info));
	struct port_info port;
	json_t *record = NULL;

	if (info != NULL && vfe_vdpa_vf_info(bdf, info) == 0) {
		port_info(bdf, &port);
		record = rpc_vf_record(info, &port);
		if (ret_refreshing != NULL)
			*ret_refreshing = info->refreshing;
	}
	free(info);
	return record;
}

/* @record may be NULL; its reference is taken. */
static void
answer(struct vfe_jsonrpc_request *req, const struct vfe_bdf *bdf, json_t *record)
{
	char name[VFE_BDF_STR_SIZE];
	char text[128];
	json_t *result;

	if (record == NULL) {
		vfe_str_format(text, sizeof(text),
			"%s: no such VF is managed; add it with vhostmgmt vf -a",
			vfe_bdf_format(bdf, name));
		vfe_jsonrpc_reply(req, rpc_result(VFE_VDPA_NO_VF_DEVICE, text));
		return;
	}
	result = rpc_result(VFE_VDPA_OK, "Success");
	json_object_set_new(result, "device", record);
	vfe_jsonrpc_reply(req, result);
}

static void
waiting_end(struct waiting *w, json_t *record)
{
	ev_timer_stop(infos.loop, &w->timer);
	LIST_REMOVE(w, next);
	answer(w->req, &w->bdf, record);
	free(w);
}

static void
on_timeout(struct ev_loop *loop, struct ev_timer *timer, int revents)
{
	struct waiting *w = vfe_container_of(timer, struct waiting, timer);
	char name[VFE_BDF_STR_SIZE];

	(void)loop;
	(void)revents;
	SVC_LOG(WARNING,
		"%s: its configuration was not read within %g s, what is told of it is old",
		vfe_bdf_format(&w->bdf, name), PATIENCE_S);
	waiting_end(w, rpc_info_record(&w->bdf, NULL));
}

static void
on_wake(struct ev_loop *loop, struct ev_async *async, int revents)
{
	struct waiting *w, *next;
	bool refreshing;
	json_t *record;

	(void)loop;
	(void)async;
	(void)revents;
	for (w = LIST_FIRST(&infos.list); w != NULL; w = next) {
		next = LIST_NEXT(w, next);
		refreshing = false;
		record = rpc_info_record(&w->bdf, &refreshing);
		if (refreshing)
			json_decref(record);
		else
			waiting_end(w, record);
	}
}

void
rpc_on_refreshed(void *ctx)
{
	(void)ctx;
	ev_async_send(infos.loop, &infos.wake);
}

void
rpc_info(struct vfe_jsonrpc_request *req, const struct vfe_bdf *bdf)
{
	struct waiting *w = malloc(sizeof(*w));

	if (w == NULL) {
		vfe_jsonrpc_fail(req, VFE_JSONRPC_INTERNAL_ERROR, "out of memory");
		return;
	}
	*w = (struct waiting){.req = req, .bdf = *bdf};
	ev_timer_init(&w->timer, on_timeout, PATIENCE_S, 0.0);
	LIST_INSERT_HEAD(&infos.list, w, next);
	if (vfe_vdpa_vf_refresh(bdf) == 0)
		ev_timer_start(infos.loop, &w->timer);
	else
		waiting_end(w, rpc_info_record(bdf, NULL));
}

void
rpc_info_init(struct ev_loop *loop)
{
	infos.loop = loop;
	LIST_INIT(&infos.list);
	ev_async_init(&infos.wake, on_wake);
	ev_async_start(loop, &infos.wake);
}

void
rpc_info_fini(void)
{
	struct waiting *w;

	ev_async_stop(infos.loop, &infos.wake);
	while ((w = LIST_FIRST(&infos.list)) != NULL)
		waiting_end(w, rpc_info_record(&w->bdf, NULL));
}
