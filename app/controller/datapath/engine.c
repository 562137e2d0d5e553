/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The set of workers, and the way of bad news from them to the control thread.
 */

#include <errno.h>
#include <stdlib.h>

#include "bp.h"

static void
queue_report(struct dp_engine *engine, struct dp_port *port, struct dp_queue *q)
{
	if (atomic_exchange(&q->broke, false) && engine->on_broken != NULL)
		engine->on_broken(port->ctx, q->qid, q->ring.error.text);
}

static void
on_broke(struct ev_loop *loop, ev_async *async, int revents)
{
	struct dp_engine *engine = async->data;
	struct dp_port *port;
	uint16_t i;

	(void)loop;
	(void)revents;
	TAILQ_FOREACH (port, &engine->ports, link) {
		for (i = 0; i < port->nr_pairs; i++) {
			queue_report(engine, port, &port->pairs[i].rx);
			queue_report(engine, port, &port->pairs[i].tx);
		}
	}
	bp_report(engine);
}

int
dp_engine_create(struct ev_loop *loop, const struct dp_engine_cfg *cfg, struct dp_engine **ret,
	struct vfe_error *err)
{
	struct dp_engine *engine;
	size_t size;
	uint16_t i;
	int rc;

	if (cfg->nr_workers < 1 || cfg->nr_workers > DP_MAX_WORKERS)
		return vfe_error_set(err, -EINVAL, "%u worker threads, need 1 to %u",
			cfg->nr_workers, DP_MAX_WORKERS);

	size = sizeof(*engine) + cfg->nr_workers * sizeof(engine->workers[0]);
	engine = aligned_alloc(DP_CACHE_LINE, vfe_align_up(size, DP_CACHE_LINE));
	if (engine == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the data path");
	memset(engine, 0, size);
	engine->loop = loop;
	engine->on_broken = cfg->on_broken;
	engine->bp_spin_ns = cfg->blk_spin_us * 1000;
	TAILQ_INIT(&engine->ports);
	TAILQ_INIT(&engine->bp_ports);
	TAILQ_INIT(&engine->bp_disks);

	for (i = 0; i < cfg->nr_workers; i++) {
		rc = dp_worker_start(&engine->workers[i], engine, cfg->polling,
			cfg->cpus != NULL ? cfg->cpus[i] : -1, err);
		if (rc < 0)
			goto err_stop_workers;
		engine->nr_workers++;
	}

	ev_async_init(&engine->broke, on_broke);
	engine->broke.data = engine;
	ev_async_start(loop, &engine->broke);
	ev_unref(loop); /* bad news alone are no reason to go on */
	*ret = engine;
	return 0;

err_stop_workers:
	while (engine->nr_workers > 0)
		dp_worker_stop(&engine->workers[--engine->nr_workers]);
	free(engine);
	return rc;
}

void
dp_engine_destroy(struct dp_engine *engine)
{
	if (engine == NULL)
		return;
	bp_engine_fini(engine);
	while (engine->nr_workers > 0)
		dp_worker_stop(&engine->workers[--engine->nr_workers]);
	ev_ref(engine->loop);
	ev_async_stop(engine->loop, &engine->broke);
	free(engine);
}
