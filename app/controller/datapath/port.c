/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Ports: a back end, its pairs, and the settings that all its queues share.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dp.h"
#include "tap.h"

static const struct dp_backend_ops *const backends[] = {
	[DP_BACKEND_NULL] = &dp_backend_null,
	[DP_BACKEND_LOOPBACK] = &dp_backend_loopback,
	[DP_BACKEND_TAP] = &dp_backend_tap,
	[DP_BACKEND_SCRIBBLE] = &dp_backend_scribble,
};

static void
queue_init(struct dp_pair *pair, struct dp_queue *q, bool rx)
{
	q->pair = pair;
	q->qid = (uint16_t)(2 * pair->index + !rx);
	q->poll = rx ? pair->port->ops->rx_poll : pair->port->ops->tx_poll;
	q->kick.fd = -1;
	q->call_fd = -1;
}

static void
port_init(struct dp_port *port, struct dp_engine *engine, const struct dp_port_cfg *cfg)
{
	struct dp_worker *w;
	struct dp_pair *pair;
	uint16_t i;

	port->engine = engine;
	port->ops = backends[cfg->backend];
	port->ctx = cfg->ctx;
	port->nr_pairs = cfg->max_pairs;
	for (i = 0; i < port->nr_pairs; i++) {
		/* the pairs of a port go to different workers, the ports begin at different ones */
		w = &engine->workers[(engine->next_worker + i) % engine->nr_workers];
		pair = &port->pairs[i];
		pair->port = port;
		pair->index = i;
		pair->rx.worker = w;
		pair->tx.worker = w;
		queue_init(pair, &pair->rx, true);
		queue_init(pair, &pair->tx, false);
	}
	engine->next_worker = (uint16_t)((engine->next_worker + 1) % engine->nr_workers);
}

int
dp_port_create(struct dp_engine *engine, const struct dp_port_cfg *cfg, struct dp_port **ret,
	struct vfe_error *err)
{
	struct dp_port *port;
	size_t size;
	int rc;

	if (cfg->max_pairs < 1 || cfg->max_pairs > DP_MAX_PAIRS)
		return vfe_error_set(
			err, -EINVAL, "%u queue pairs, need 1 to %u", cfg->max_pairs, DP_MAX_PAIRS);
	if ((unsigned int)cfg->backend >= VFE_ARRAY_SIZE(backends))
		return vfe_error_set(err, -EINVAL, "back end %d does not exist", (int)cfg->backend);

	size = sizeof(*port) + cfg->max_pairs * sizeof(port->pairs[0]);
	port = aligned_alloc(DP_CACHE_LINE, vfe_align_up(size, DP_CACHE_LINE));
	if (port == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u queue pairs", cfg->max_pairs);
	memset(port, 0, size);
	if (vfe_str_copy(port->name, sizeof(port->name), cfg->name) < 0) {
		rc = vfe_error_set(err, -ENAMETOOLONG, "port name '%s' is too long", cfg->name);
		goto err_free_port;
	}
	port_init(port, engine, cfg);
	if (port->ops->create != NULL) {
		rc = port->ops->create(port, cfg->tap_name, err);
		if (rc < 0)
			goto err_free_port;
	}
	TAILQ_INSERT_TAIL(&engine->ports, port, link);
	*ret = port;
	return 0;

err_free_port:
	free(port);
	return rc;
}

void
dp_port_destroy(struct dp_port *port)
{
	uint16_t qid;

	if (port == NULL)
		return;
	for (qid = 0; qid < 2 * port->nr_pairs; qid++)
		dp_queue_stop(port, qid, NULL, NULL);
	TAILQ_REMOVE(&port->engine->ports, port, link);
	if (port->ops->destroy != NULL)
		port->ops->destroy(port);
	free(port->filter);
	free(port);
}

/* Run @fn for @port on each worker that has a pair of it. */
static void
port_call(struct dp_port *port, int (*fn)(struct dp_worker *w, void *arg))
{
	uint16_t i, n = port->nr_pairs;

	/* neighbours are on different workers, so the first nr_workers pairs have them all */
	if (n > port->engine->nr_workers)
		n = port->engine->nr_workers;
	for (i = 0; i < n; i++)
		dp_worker_call(port->pairs[i].rx.worker, fn, port);
}

/* As port_call(); a TAP's queues are attached by system calls that take too long for the others. */
static void
port_hold(struct dp_port *port, void (*fn)(struct dp_worker *w))
{
	uint16_t i, n = port->nr_pairs;

	if (port->ops->update != NULL)
		return;
	if (n > port->engine->nr_workers)
		n = port->engine->nr_workers;
	for (i = 0; i < n; i++)
		fn(port->pairs[i].rx.worker);
}

void
dp_port_hold(struct dp_port *port)
{
	port_hold(port, dp_worker_hold);
}

void
dp_port_release(struct dp_port *port)
{
	port_hold(port, dp_worker_release);
}

static void
queue_set_map(struct dp_queue *q, const struct vfe_iova_map *map)
{
	const struct dp_backend_ops *ops = q->pair->port->ops;
	bool was_broken = q->ring.broken;

	if (!q->attached)
		return;
	if (ops->release != NULL)
		ops->release(q);
	if (vfe_vring_set_map(&q->ring, map, NULL) < 0 && !was_broken)
		dp_queue_broke(q);
	else
		dp_worker_ready(q);
}

static int
request_set_map(struct dp_worker *w, void *arg)
{
	struct dp_port *port = arg;
	uint16_t i;

	for (i = 0; i < port->nr_pairs; i++) {
		if (port->pairs[i].rx.worker != w)
			continue;
		queue_set_map(&port->pairs[i].rx, port->map);
		queue_set_map(&port->pairs[i].tx, port->map);
	}
	return 0;
}

void
dp_port_set_map(struct dp_port *port, const struct vfe_iova_map *map)
{
	port->map = map;
	port_call(port, request_set_map);
}

static int
request_set_watch(struct dp_worker *w, void *arg)
{
	struct dp_port *port = arg;
	uint16_t i;

	for (i = 0; i < port->nr_pairs; i++) {
		if (port->pairs[i].rx.worker != w)
			continue;
		port->pairs[i].rx.ring.watch = port->watch;
		port->pairs[i].tx.ring.watch = port->watch;
	}
	return 0;
}

void
dp_port_set_watch(struct dp_port *port, const struct vfe_vring_watch *watch)
{
	port->watch = watch;
	port_call(port, request_set_watch);
}

static int
request_set_filter(struct dp_worker *w, void *arg)
{
	struct dp_port *port = arg;
	uint16_t i;

	for (i = 0; i < port->nr_pairs; i++) {
		if (port->pairs[i].rx.worker == w)
			port->pairs[i].filter = port->filter;
	}
	return 0;
}

int
dp_port_set_filter(struct dp_port *port, const struct dp_rx_filter *filter)
{
	struct dp_rx_filter *old = port->filter, *copy;

	if (filter->nr_unicast > DP_MAX_MACS || filter->nr_multicast > DP_MAX_MACS)
		return -EINVAL;
	copy = malloc(sizeof(*copy));
	if (copy == NULL)
		return -ENOMEM;
	*copy = *filter;
	port->filter = copy;
	port_call(port, request_set_filter);
	free(old);
	return 0;
}

int
dp_port_set_pairs(struct dp_port *port, uint16_t pairs, struct vfe_error *err)
{
	if (pairs < 1 || pairs > port->nr_pairs)
		return vfe_error_set(err, -EINVAL, "%u queue pairs of %u", pairs, port->nr_pairs);
	return port->ops->set_pairs != NULL ? port->ops->set_pairs(port, pairs, err) : 0;
}

int
dp_port_set_features(struct dp_port *port, uint64_t features, struct vfe_error *err)
{
	return port->ops->set_features != NULL ? port->ops->set_features(port, features, err) : 0;
}

int
dp_port_set_mtu(struct dp_port *port, uint16_t mtu, struct vfe_error *err)
{
	return port->ops->set_mtu != NULL ? port->ops->set_mtu(port, mtu, err) : 0;
}

int
dp_port_send(struct dp_port *port, const void *frame, size_t len)
{
	return port->ops->send != NULL ? port->ops->send(port, frame, len) : 0;
}

unsigned int
dp_port_ifindex(const struct dp_port *port)
{
	return port->tap != NULL ? port->tap->ifindex : 0;
}
