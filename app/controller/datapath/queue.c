/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Queues: start, stop, interrupts, statistics, and what happens to a broken one.
 */

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "dp.h"

static struct dp_queue *
queue_of(struct dp_port *port, uint16_t qid)
{
	struct dp_pair *pair;

	if (qid / 2 >= port->nr_pairs)
		return NULL;
	pair = &port->pairs[qid / 2];
	return qid % 2 == 0 ? &pair->rx : &pair->tx;
}

/* On the worker. */

bool
dp_queue_broke(struct dp_queue *q)
{
	struct dp_engine *engine = q->worker->engine;

	/* what was given back before the violation stays given back */
	vfe_vring_publish(&q->ring);
	atomic_store(&q->broke, true);
	ev_async_send(engine->loop, &engine->broke);
	return false;
}

bool
dp_queue_fail(struct dp_queue *q, const char *fmt, ...)
{
	va_list ap;

	if (q->ring.broken)
		return false;
	q->ring.broken = true;
	va_start(ap, fmt);
	vsnprintf(q->ring.error.text, sizeof(q->ring.error.text), fmt, ap);
	va_end(ap);
	return dp_queue_broke(q);
}

void
dp_queue_call(struct dp_queue *q)
{
	if (q->call_fd < 0) {
		q->call_pending = true;
		return;
	}
	/* a full counter is an interrupt that is pending already */
	if (vfe_signal(&q->worker->signaller, q->call_fd) == 0)
		dp_count(&q->stats.signals, 1);
}

static int
request_start(struct dp_worker *w, void *arg)
{
	struct dp_queue *q = arg;
	int rc;

	(void)w;
	rc = dp_worker_attach(q);
	if (rc == 0 && q->pair->port->ops->update != NULL) {
		rc = q->pair->port->ops->update(q->pair);
		if (rc < 0)
			dp_worker_detach(q);
	}
	return rc;
}

static int
request_stop(struct dp_worker *w, void *arg)
{
	struct dp_queue *q = arg;
	const struct dp_backend_ops *ops = q->pair->port->ops;

	(void)w;
	if (ops->release != NULL)
		ops->release(q);
	dp_worker_detach(q);
	if (ops->update != NULL)
		ops->update(q->pair);
	if (!q->ring.broken)
		dp_queue_flush(q);
	return 0;
}

struct set_call {
	struct dp_queue *q;
	int fd;
};

/* Leaves the old fd in the request. */
static int
request_set_call(struct dp_worker *w, void *arg)
{
	struct set_call *req = arg;
	struct dp_queue *q = req->q;
	int old = q->call_fd;

	(void)w;
	q->call_fd = req->fd;
	req->fd = old;
	if (q->call_pending && q->call_fd >= 0) {
		q->call_pending = false;
		dp_queue_call(q);
	}
	return 0;
}

/* On the control thread. */

int
dp_queue_take_fds(struct dp_queue *q, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	q->kick.fd = -1;
	q->call_fd = -1;
	if (cfg->kick_fd >= 0) {
		q->kick.fd = vfe_fd_dup(cfg->kick_fd);
		if (q->kick.fd < 0)
			return vfe_error_set(err, q->kick.fd, "no fd for the doorbell: %s",
				strerror(-q->kick.fd));
	}
	if (cfg->call_fd >= 0) {
		q->call_fd = vfe_fd_dup(cfg->call_fd);
		if (q->call_fd < 0)
			return vfe_error_set(err, q->call_fd, "no fd for the interrupt: %s",
				strerror(-q->call_fd));
	}
	return 0;
}

void
dp_queue_close_fds(struct dp_queue *q)
{
	vfe_close(&q->kick.fd);
	vfe_close(&q->call_fd);
}

void
dp_queue_reset_stats(struct dp_queue *q)
{
	atomic_store_explicit(&q->stats.packets, 0, memory_order_relaxed);
	atomic_store_explicit(&q->stats.bytes, 0, memory_order_relaxed);
	atomic_store_explicit(&q->stats.dropped, 0, memory_order_relaxed);
	atomic_store_explicit(&q->stats.errors, 0, memory_order_relaxed);
	atomic_store_explicit(&q->stats.kicks, 0, memory_order_relaxed);
	atomic_store_explicit(&q->stats.signals, 0, memory_order_relaxed);
}

int
dp_queue_start(
	struct dp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	struct dp_queue *q = queue_of(port, qid);
	int rc;

	if (q == NULL)
		return vfe_error_set(err, -EINVAL, "queue %u of %u pairs", qid, port->nr_pairs);
	if (atomic_load(&q->started))
		return vfe_error_set(err, -EALREADY, "started already");

	rc = vfe_vring_start(&q->ring, &cfg->ring, port->map, err);
	if (rc < 0)
		return rc;
	q->ring.watch = port->watch;
	q->call_pending = false;
	dp_queue_reset_stats(q);
	rc = dp_queue_take_fds(q, cfg, err);
	if (rc < 0)
		goto err_stop_ring;
	if (port->ops->prepare != NULL) {
		rc = port->ops->prepare(q, err);
		if (rc < 0)
			goto err_stop_ring;
	}
	rc = dp_worker_call(q->worker, request_start, q);
	if (rc < 0) {
		vfe_error_set(err, rc, "cannot watch the doorbell: %s", strerror(-rc));
		goto err_stop_ring;
	}
	atomic_store(&q->started, true);
	return 0;

err_stop_ring:
	dp_queue_close_fds(q);
	vfe_vring_stop(&q->ring);
	return rc;
}

int
dp_queue_stop(struct dp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	struct dp_queue *q = queue_of(port, qid);

	if (q == NULL || !atomic_load(&q->started))
		return 0;

	dp_worker_call(q->worker, request_stop, q);
	atomic_store(&q->started, false);
	atomic_store(&q->broke, false);
	dp_queue_close_fds(q);
	if (ret_avail != NULL)
		*ret_avail = q->ring.last_avail;
	if (ret_used != NULL)
		*ret_used = q->ring.last_used;
	vfe_vring_stop(&q->ring);
	return 0;
}

void
dp_queue_replace_call(struct dp_queue *q, int call_fd)
{
	struct set_call req = {.q = q};

	/* without an fd of its own the interrupt stays due, as when it is masked */
	req.fd = call_fd < 0 ? -1 : vfe_fd_dup(call_fd);
	if (req.fd < 0)
		req.fd = -1;
	dp_worker_call(q->worker, request_set_call, &req);
	vfe_close(&req.fd);
}

void
dp_queue_set_call(struct dp_port *port, uint16_t qid, int call_fd)
{
	struct dp_queue *q = queue_of(port, qid);

	if (q != NULL && atomic_load(&q->started))
		dp_queue_replace_call(q, call_fd);
}

void
dp_queue_kick(struct dp_port *port, uint16_t qid)
{
	struct dp_queue *q = queue_of(port, qid);

	if (q != NULL && atomic_load(&q->started))
		dp_worker_kick(q);
}

void
dp_queue_stats(const struct dp_port *port, uint16_t qid, struct dp_queue_stats *ret)
{
	const struct dp_pair *pair;
	const struct dp_queue *q;

	*ret = (struct dp_queue_stats){0};
	if (qid / 2 >= port->nr_pairs)
		return;
	pair = &port->pairs[qid / 2];
	q = qid % 2 == 0 ? &pair->rx : &pair->tx;
	ret->packets = atomic_load_explicit(&q->stats.packets, memory_order_relaxed);
	ret->bytes = atomic_load_explicit(&q->stats.bytes, memory_order_relaxed);
	ret->dropped = atomic_load_explicit(&q->stats.dropped, memory_order_relaxed);
	ret->errors = atomic_load_explicit(&q->stats.errors, memory_order_relaxed);
	ret->kicks = atomic_load_explicit(&q->stats.kicks, memory_order_relaxed);
	ret->signals = atomic_load_explicit(&q->stats.signals, memory_order_relaxed);
	ret->started = atomic_load_explicit(&q->started, memory_order_relaxed);
}
