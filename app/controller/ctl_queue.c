/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A queue that the control thread serves.
 */

#include "ctl_queue.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define POLL_SECONDS 0.01

static void
queue_break(struct ctl_queue *q, const char *why)
{
	struct vfe_error copy;

	/* the text lives in the ring, which is about to go */
	(void)vfe_error_set(&copy, 0, "%s: %s", q->name, why);
	ctl_queue_stop(q, NULL, NULL);
	q->ops->broken(q->ctx, copy.text);
}

static void
publish(struct ctl_queue *q)
{
	vfe_vring_publish(&q->vr);
	if (vfe_vring_wants_signal(&q->vr))
		q->ops->signal(q->ctx);
}

/* Handle up to @budget chains. Returns 1 when more may be left, 0, or -EPROTO. */
static int
process(struct ctl_queue *q, unsigned int budget)
{
	static struct iovec iov[CTL_QUEUE_MAX_IOV]; /* control thread only */
	struct vfe_chain chain = {.iov = iov, .max_iov = CTL_QUEUE_MAX_IOV};
	int64_t written;
	int rc;

	while (budget-- > 0) {
		rc = vfe_vring_pop(&q->vr, &chain);
		if (rc <= 0)
			return rc;
		written = q->ops->handle(q->ctx, &chain);
		if (!q->started) /* the handler can make its own device stop */
			return 0;
		if (written == CTL_QUEUE_LATER)
			continue;
		vfe_vring_wrote_iov(
			&q->vr, chain.iov + chain.nr_read, chain.nr_write, 0, (uint64_t)written);
		vfe_vring_push(&q->vr, chain.head, (uint32_t)written);
	}
	return 1;
}

void
ctl_queue_kick(struct ctl_queue *q)
{
	int rc;

	if (!q->started)
		return;
	q->vr.stats.kicks++;
	rc = process(q, q->vr.size);
	if (!q->started)
		return;
	if (rc >= 0) {
		publish(q);
		/* asking for kicks may find what came meanwhile */
		if (vfe_vring_set_kick(&q->vr, true) || rc > 0)
			ev_timer_start(q->loop, &q->again);
	}
	if (q->vr.broken)
		queue_break(q, q->vr.error.text);
}

static void
on_kick(struct ev_loop *loop, ev_io *io, int revents)
{
	struct ctl_queue *q = vfe_container_of(io, struct ctl_queue, kick);
	uint64_t n;

	(void)loop;
	(void)revents;
	if (read(io->fd, &n, sizeof(n)) < 0 && errno != EAGAIN)
		return;
	ctl_queue_kick(q);
}

static void
on_again(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	ctl_queue_kick(vfe_container_of(timer, struct ctl_queue, again));
}

static void
on_poll(struct ev_loop *loop, ev_timer *timer, int revents)
{
	(void)loop;
	(void)revents;
	ctl_queue_kick(vfe_container_of(timer, struct ctl_queue, poll));
}

void
ctl_queue_init(struct ctl_queue *q, const char *name, struct ev_loop *loop,
	const struct ctl_queue_ops *ops, void *ctx)
{
	memset(q, 0, sizeof(*q));
	q->name = name;
	q->loop = loop;
	q->ops = ops;
	q->ctx = ctx;
	ev_init(&q->kick, on_kick);
	ev_timer_init(&q->again, on_again, 0., 0.);
	ev_timer_init(&q->poll, on_poll, POLL_SECONDS, POLL_SECONDS);
}

int
ctl_queue_start(struct ctl_queue *q, const struct vfe_vring_cfg *cfg,
	const struct vfe_iova_map *map, int kick_fd, struct vfe_error *err)
{
	int rc = vfe_vring_start(&q->vr, cfg, map, err);

	if (rc < 0)
		return rc;
	q->vr.watch = q->watch;
	q->started = true;
	if (kick_fd >= 0) {
		ev_io_set(&q->kick, kick_fd, EV_READ);
		ev_io_start(q->loop, &q->kick);
	} else {
		ev_timer_start(q->loop, &q->poll);
	}
	/* doorbells from before the start are not seen otherwise */
	ev_timer_start(q->loop, &q->again);
	return 0;
}

void
ctl_queue_stop(struct ctl_queue *q, uint16_t *ret_avail, uint16_t *ret_used)
{
	if (!q->started)
		return;
	ev_io_stop(q->loop, &q->kick);
	ev_timer_stop(q->loop, &q->again);
	ev_timer_stop(q->loop, &q->poll);
	if (!q->vr.broken)
		vfe_vring_publish(&q->vr);
	if (ret_avail != NULL)
		*ret_avail = q->vr.last_avail;
	if (ret_used != NULL)
		*ret_used = q->vr.last_used;
	vfe_vring_stop(&q->vr);
	q->started = false;
}

void
ctl_queue_set_map(struct ctl_queue *q, const struct vfe_iova_map *map)
{
	struct vfe_error err;

	if (q->started && vfe_vring_set_map(&q->vr, map, &err) < 0)
		queue_break(q, err.text);
}

void
ctl_queue_set_watch(struct ctl_queue *q, const struct vfe_vring_watch *watch)
{
	q->watch = watch;
	q->vr.watch = watch;
}

void
ctl_queue_complete(struct ctl_queue *q, uint16_t head, uint32_t written)
{
	if (!q->started)
		return;
	vfe_vring_push(&q->vr, head, written);
	publish(q);
}
