/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Queues of block ports: visits, start, draining, stop.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>

#include "bp.h"

static struct bp_queue *
queue_of(struct bp_port *port, uint16_t qid)
{
	return qid < port->nr_queues ? &port->queues[qid] : NULL;
}

static bool
is_started(const struct bp_queue *bq)
{
	return atomic_load_explicit(&bq->started, memory_order_relaxed);
}

static uint32_t
in_flight(const struct bp_queue *bq)
{
	return atomic_load_explicit(&bq->in_flight, memory_order_relaxed);
}

/* --- on the worker --- */

void
bp_queue_is_empty(struct bp_queue *bq)
{
	if (bq->waiter != NULL) {
		sem_post(bq->waiter);
		bq->waiter = NULL;
	}
	if (bq->tell) {
		bq->tell = false;
		atomic_store(&bq->drained, true);
		ev_async_send(bq->port->engine->loop, &bq->port->engine->broke);
	}
}

static void
reap(struct bp_queue *bq)
{
	const struct bp_disk_ops *ops = bq->port->disk->ops;

	if (ops->reap != NULL)
		ops->reap(bq);
	bp_release_held(bq);
}

/* Without a visit. */
static void
reap_all(struct bp_queue *bq)
{
	reap(bq);
	if (bq->port->disk->ops->flush != NULL)
		(void)bq->port->disk->ops->flush(bq);
}

static int64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

/*
 * The ring is empty. A driver that has just got all its answers often has the next request in a
 * moment: looking at the ring a little longer is cheaper for everybody then than the doorbell, its
 * relay and our wake-up. Whether it is worth while is learned from how long it took before.
 */
static bool
queue_idle(struct bp_queue *bq)
{
	const uint32_t spin_ns = bq->port->engine->bp_spin_ns;
	int64_t now;

	/* while a back end is at work its completion is what the worker sleeps for */
	if (spin_ns > 0 && !bq->q.worker->polling && bq->q.worker->bp_in_flight == 0) {
		now = now_ns();
		if (bq->empty_since == 0)
			bq->empty_since = now;
		if (bq->spin_misses < BP_SPIN_MISSES && now - bq->empty_since < spin_ns) {
			dp_cpu_relax();
			return true;
		}
	}
	return dp_queue_idle(&bq->q);
}

/* There are requests again. */
static void
queue_busy(struct bp_queue *bq)
{
	if (vfe_likely(bq->empty_since == 0))
		return;
	if (now_ns() - bq->empty_since < bq->port->engine->bp_spin_ns)
		bq->spin_misses = 0;
	else if (++bq->spin_misses == BP_SPIN_MISSES + BP_SPIN_PAUSE)
		bq->spin_misses = BP_SPIN_MISSES - 1;
	bq->empty_since = 0;
}

/* One visit: everything that is done is given back, a burst is taken, all goes off together. */
static bool
queue_poll(struct dp_queue *q)
{
	struct bp_queue *bq = vfe_container_of(q, struct bp_queue, q);
	const struct bp_disk_ops *ops = bq->port->disk->ops;
	bool more = false;

	reap(bq);
	if (vfe_likely(!bq->draining))
		more = bp_take(bq);
	if (ops->flush != NULL) {
		more |= ops->flush(bq);
		/* what the page cache had is done already; that may have been a first step only */
		reap(bq);
		more |= ops->flush(bq);
	}
	/* room came after the taking had stopped for want of it: maybe no event will follow */
	if (vfe_unlikely(bq->starved) && !bq->draining && !STAILQ_EMPTY(&bq->free) &&
		bq->nr_bigs > 0)
		more = true;
	dp_queue_flush(q);
	if (vfe_unlikely(q->ring.broken))
		return dp_queue_broke(q);
	if (!bq->empty)
		queue_busy(bq);
	else if (!more && !bq->draining)
		more = queue_idle(bq);
	return more;
}

/* Something is done: visit the queue, or what is left of it. */
static void
queue_event(struct bp_queue *bq)
{
	if (bq->q.attached && !bq->q.ring.broken) {
		dp_worker_ready(&bq->q);
		return;
	}
	reap_all(bq);
}

static void
on_cqes(struct dp_source *src, uint32_t events)
{
	(void)events;
	queue_event(vfe_container_of(src, struct bp_queue, cqes));
}

static void
on_jobs(struct dp_source *src, uint32_t events)
{
	/* edge-triggered: nobody needs to read the counter */
	(void)events;
	queue_event(vfe_container_of(src, struct bp_queue, jobs));
}

/* Edge-triggered; a polling worker looks by itself, but not at a queue that it does not visit. */
static int
watch_sources(struct dp_worker *w, struct bp_queue *bq)
{
	int rc = 0;

	if (bq->cqes.fd >= 0 && !w->polling)
		rc = dp_worker_watch(w, &bq->cqes, EPOLLIN | EPOLLET);
	if (rc == 0 && bq->jobs.fd >= 0)
		rc = dp_worker_watch(w, &bq->jobs, EPOLLIN | EPOLLET);
	return rc;
}

static int
request_start(struct dp_worker *w, void *arg)
{
	struct bp_queue *bq = arg;
	int rc = watch_sources(w, bq);

	if (rc == 0)
		rc = dp_worker_attach(&bq->q);
	if (rc < 0) {
		dp_worker_unwatch(w, &bq->cqes);
		dp_worker_unwatch(w, &bq->jobs);
	}
	return rc;
}

/* Nothing more is taken. Returns what is in flight. */
static int
request_drain(struct dp_worker *w, void *arg)
{
	struct bp_queue *bq = arg;

	(void)w;
	bq->draining = true;
	bq->tell = in_flight(bq) > 0;
	return (int)in_flight(bq);
}

static int
request_resume(struct dp_worker *w, void *arg)
{
	struct bp_queue *bq = arg;

	(void)w;
	bq->draining = false;
	bq->tell = false;
	dp_worker_ready(&bq->q);
	return 0;
}

/* Leaves what is in flight to itself. Returns its number. */
static int
request_stop(struct dp_worker *w, void *arg)
{
	struct bp_queue *bq = arg;

	reap_all(bq);
	dp_worker_detach(&bq->q);
	if (!bq->q.ring.broken)
		dp_queue_flush(&bq->q);
	bq->tell = false;
	if (in_flight(bq) == 0) {
		dp_worker_unwatch(w, &bq->cqes);
		dp_worker_unwatch(w, &bq->jobs);
	} else if (bq->cqes.fd >= 0 && !bq->cqes.watched) {
		(void)dp_worker_watch(w, &bq->cqes, EPOLLIN | EPOLLET);
	}
	return (int)in_flight(bq);
}

static int
request_poke(struct dp_worker *w, void *arg)
{
	(void)w;
	queue_event(arg);
	return 0;
}

static int
request_unwatch(struct dp_worker *w, void *arg)
{
	struct bp_queue *bq = arg;

	dp_worker_unwatch(w, &bq->cqes);
	dp_worker_unwatch(w, &bq->jobs);
	return 0;
}

struct wait_req {
	struct bp_queue *bq;
	sem_t *sem; /* NULL: nobody waits any more */
	const void *va;
	uint64_t size; /* 0: for all */
};

static bool
overlaps(const void *at, uint64_t len, const void *va, uint64_t size)
{
	uintptr_t a = (uintptr_t)at, b = (uintptr_t)va;

	return a < b ? b - a < len : a - b < size;
}

static bool
slot_uses(const struct bp_slot *slot, const void *va, uint64_t size)
{
	uint16_t i;

	if (!slot->busy)
		return false;
	if (overlaps(slot->status, 1, va, size))
		return true;
	for (i = 0; i < slot->nr_iov; i++) {
		if (overlaps(slot->iov[i].iov_base, slot->iov[i].iov_len, va, size))
			return true;
	}
	return false;
}

/* Is there something to wait for? If so req->sem is posted when nothing is in flight. */
static int
request_wait(struct dp_worker *w, void *arg)
{
	const struct wait_req *req = arg;
	struct bp_queue *bq = req->bq;
	bool wait = in_flight(bq) > 0;
	uint16_t i;

	if (wait && req->size > 0) {
		wait = false;
		for (i = 0; i < bq->nr_slots && !wait; i++)
			wait = slot_uses(&bq->slots[i], req->va, req->size);
	}
	if (wait) {
		bq->draining = true;
		/* a polling worker does not visit a queue whose ring is broken */
		if (bq->cqes.fd >= 0 && !bq->cqes.watched)
			(void)dp_worker_watch(w, &bq->cqes, EPOLLIN | EPOLLET);
	}
	bq->waiter = wait ? req->sem : NULL;
	return wait;
}

/* --- on the control thread --- */

/* Wait until nothing is in flight that has a part of [@va, @va + @size), or nothing at all. */
static int
queue_wait(struct bp_queue *bq, const void *va, uint64_t size, const struct timespec *until)
{
	struct wait_req req = {.bq = bq, .va = va, .size = size};
	sem_t sem;
	int rc = 0;

	if (bq->slots == NULL)
		return 0;
	sem_init(&sem, 0, 0);
	req.sem = &sem;
	if (dp_worker_call(bq->q.worker, request_wait, &req) != 0) {
		do {
			rc = sem_clockwait(&sem, CLOCK_MONOTONIC, until) < 0 ? -errno : 0;
		} while (rc == -EINTR);
		req.sem = NULL;
		/* also takes the waiter away, for which the semaphore is about to be gone */
		if (rc < 0 && dp_worker_call(bq->q.worker, request_wait, &req) == 0)
			rc = 0;
	}
	sem_destroy(&sem);
	return rc;
}

static void
slots_free(struct bp_queue *bq)
{
	const struct bp_disk_ops *ops = bq->port->disk->ops;

	if (ops->queue_close != NULL)
		ops->queue_close(bq);
	free(bq->slots);
	free(bq->big_memory);
	bq->slots = NULL;
	bq->big_memory = NULL;
}

static int
slots_create(struct bp_queue *bq, uint16_t n, struct vfe_error *err)
{
	const struct bp_disk_ops *ops = bq->port->disk->ops;
	uint16_t i;
	int rc;

	bq->slots = calloc(n, sizeof(*bq->slots));
	bq->big_memory = calloc((size_t)BP_NR_BIG * DP_MAX_IOV, sizeof(*bq->big_memory));
	if (bq->slots == NULL || bq->big_memory == NULL) {
		rc = vfe_error_set(err, -ENOMEM, "no memory for %u requests", n);
		goto err_free;
	}
	bq->nr_slots = n;
	STAILQ_INIT(&bq->free);
	STAILQ_INIT(&bq->held);
	STAILQ_INIT(&bq->order);
	for (i = 0; i < n; i++) {
		bq->slots[i].bq = bq;
		STAILQ_INSERT_TAIL(&bq->free, &bq->slots[i], link);
	}
	for (i = 0; i < BP_NR_BIG; i++)
		bq->bigs[i] = bq->big_memory + (size_t)i * DP_MAX_IOV;
	bq->nr_bigs = BP_NR_BIG;
	rc = ops->queue_open != NULL ? ops->queue_open(bq, err) : 0;
	if (rc == 0)
		return 0;

err_free:
	free(bq->slots);
	free(bq->big_memory);
	bq->slots = NULL;
	bq->big_memory = NULL;
	return rc;
}

/* What was abandoned at the last stop must be back; then its slots go. */
static int
slots_reclaim(struct bp_queue *bq, struct vfe_error *err)
{
	if (bq->slots == NULL)
		return 0;
	if (in_flight(bq) > 0)
		return vfe_error_set(err, -EBUSY,
			"the back end still has %u requests of before the stop", in_flight(bq));
	dp_worker_call(bq->q.worker, request_unwatch, bq);
	slots_free(bq);
	return 0;
}

int
bp_queue_start(
	struct bp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err)
{
	struct bp_queue *bq = queue_of(port, qid);
	int rc;

	if (bq == NULL)
		return vfe_error_set(err, -EINVAL, "queue %u of %u", qid, port->nr_queues);
	if (is_started(bq))
		return vfe_error_set(err, -EALREADY, "started already");
	rc = slots_reclaim(bq, err);
	if (rc == 0)
		rc = vfe_vring_start(&bq->q.ring, &cfg->ring, port->map, err);
	if (rc < 0)
		return rc;
	bq->q.ring.watch = port->watch;
	rc = slots_create(bq, cfg->ring.size, err);
	if (rc < 0)
		goto err_stop_ring;
	dp_queue_reset_stats(&bq->q);
	memset(&bq->stats, 0, sizeof(bq->stats));
	bq->draining = false;
	bq->spin_misses = 0;
	bq->empty_since = 0;
	bq->q.call_pending = false;
	rc = dp_queue_take_fds(&bq->q, cfg, err);
	if (rc < 0)
		goto err_free_slots;
	rc = dp_worker_call(bq->q.worker, request_start, bq);
	if (rc < 0) {
		vfe_error_set(err, rc, "cannot watch the doorbell: %s", strerror(-rc));
		goto err_free_slots;
	}
	atomic_store(&bq->started, true);
	atomic_store(&bq->q.started, true);
	port->hangs = false;
	return 0;

err_free_slots:
	dp_queue_close_fds(&bq->q);
	slots_free(bq);
err_stop_ring:
	vfe_vring_stop(&bq->q.ring);
	return rc;
}

bool
bp_queue_drain(struct bp_port *port, uint16_t qid)
{
	struct bp_queue *bq = queue_of(port, qid);

	if (bq == NULL || !is_started(bq))
		return true;
	return dp_worker_call(bq->q.worker, request_drain, bq) == 0;
}

void
bp_queue_resume(struct bp_port *port, uint16_t qid)
{
	struct bp_queue *bq = queue_of(port, qid);

	if (bq != NULL && is_started(bq))
		dp_worker_call(bq->q.worker, request_resume, bq);
}

/* Who hangs is not waited for again and again. */
static struct timespec
port_deadline(const struct bp_port *port)
{
	return vfe_deadline_timespec(vfe_deadline_in_ms(port->hangs ? 0 : BP_SETTLE_MS));
}

int
bp_port_settle(struct bp_port *port)
{
	struct timespec until = port_deadline(port);
	uint16_t i;
	int rc = 0;

	for (i = 0; i < port->nr_queues; i++)
		(void)bp_queue_drain(port, i);
	for (i = 0; i < port->nr_queues; i++) {
		if (is_started(&port->queues[i]) &&
			queue_wait(&port->queues[i], NULL, 0, &until) < 0)
			rc = -ETIMEDOUT;
	}
	port->hangs = rc < 0;
	return rc;
}

uint32_t
bp_queue_stop(struct bp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used)
{
	struct bp_queue *bq = queue_of(port, qid);
	int left;

	if (bq == NULL || !is_started(bq))
		return 0;
	left = dp_worker_call(bq->q.worker, request_stop, bq);
	atomic_store(&bq->started, false);
	atomic_store(&bq->q.started, false);
	atomic_store(&bq->q.broke, false);
	atomic_store(&bq->drained, false);
	dp_queue_close_fds(&bq->q);
	if (ret_avail != NULL)
		*ret_avail = bq->q.ring.last_avail;
	if (ret_used != NULL)
		*ret_used = bq->q.ring.last_used;
	vfe_vring_stop(&bq->q.ring);
	if (left == 0)
		slots_free(bq);
	return (uint32_t)left;
}

int
bp_port_release(struct bp_port *port, const void *va, uint64_t size)
{
	struct timespec until = port_deadline(port);
	bool was_draining;
	uint16_t i;
	int rc = 0;

	for (i = 0; i < port->nr_queues; i++) {
		struct bp_queue *bq = &port->queues[i];

		was_draining = bq->draining; /* only written in our requests */
		if (queue_wait(bq, va, size, &until) < 0)
			rc = -ETIMEDOUT;
		if (is_started(bq) && !was_draining && bq->draining)
			dp_worker_call(bq->q.worker, request_resume, bq);
	}
	port->hangs = port->hangs || rc < 0;
	return rc;
}

void
bp_queue_set_call(struct bp_port *port, uint16_t qid, int call_fd)
{
	struct bp_queue *bq = queue_of(port, qid);

	if (bq != NULL && is_started(bq))
		dp_queue_replace_call(&bq->q, call_fd);
}

void
bp_queue_kick(struct bp_port *port, uint16_t qid)
{
	struct bp_queue *bq = queue_of(port, qid);

	if (bq != NULL && is_started(bq))
		dp_worker_kick(&bq->q);
}

void
bp_queue_stats(const struct bp_port *port, uint16_t qid, struct bp_queue_stats *ret)
{
	const struct bp_queue *bq = &port->queues[qid < port->nr_queues ? qid : 0];

	*ret = (struct bp_queue_stats){0};
	if (qid >= port->nr_queues)
		return;
	ret->reads = atomic_load_explicit(&bq->stats.reads, memory_order_relaxed);
	ret->read_bytes = atomic_load_explicit(&bq->stats.read_bytes, memory_order_relaxed);
	ret->writes = atomic_load_explicit(&bq->stats.writes, memory_order_relaxed);
	ret->write_bytes = atomic_load_explicit(&bq->stats.write_bytes, memory_order_relaxed);
	ret->flushes = atomic_load_explicit(&bq->stats.flushes, memory_order_relaxed);
	ret->discards = atomic_load_explicit(&bq->stats.discards, memory_order_relaxed);
	ret->write_zeroes = atomic_load_explicit(&bq->stats.write_zeroes, memory_order_relaxed);
	ret->errors = atomic_load_explicit(&bq->stats.errors, memory_order_relaxed);
	ret->unsupported = atomic_load_explicit(&bq->stats.unsupported, memory_order_relaxed);
	ret->kicks = atomic_load_explicit(&bq->q.stats.kicks, memory_order_relaxed);
	ret->signals = atomic_load_explicit(&bq->q.stats.signals, memory_order_relaxed);
	ret->in_flight = in_flight(bq);
	ret->started = is_started(bq);
}

void
bp_queue_poke(struct bp_queue *bq)
{
	dp_worker_call(bq->q.worker, request_poke, bq);
}

/* --- ports --- */

static void
port_init(struct bp_port *port, struct dp_engine *engine, const struct bp_port_cfg *cfg)
{
	uint16_t i;

	port->engine = engine;
	port->disk = cfg->disk;
	port->read_only = cfg->read_only;
	port->in_order = cfg->in_order;
	memcpy(port->id, cfg->id, sizeof(port->id));
	atomic_init(&port->writeback, true);
	port->ctx = cfg->ctx;
	port->on_drained = cfg->on_drained;
	port->nr_queues = cfg->nr_queues;
	for (i = 0; i < port->nr_queues; i++) {
		struct bp_queue *bq = &port->queues[i];

		bq->port = port;
		bq->q.qid = i;
		bq->q.poll = queue_poll;
		bq->q.worker = &engine->workers[(engine->next_worker + i) % engine->nr_workers];
		bq->q.kick.fd = -1;
		bq->q.call_fd = -1;
		bq->cqes = (struct dp_source){.on_event = on_cqes, .fd = -1};
		bq->jobs = (struct dp_source){.on_event = on_jobs, .fd = -1};
	}
	engine->next_worker = (uint16_t)((engine->next_worker + 1) % engine->nr_workers);
}

int
bp_port_create(struct dp_engine *engine, const struct bp_port_cfg *cfg, struct bp_port **ret,
	struct vfe_error *err)
{
	struct bp_port *port;
	size_t size;

	if (cfg->nr_queues < 1 || cfg->nr_queues > BP_MAX_QUEUES)
		return vfe_error_set(
			err, -EINVAL, "%u queues, need 1 to %u", cfg->nr_queues, BP_MAX_QUEUES);
	size = sizeof(*port) + cfg->nr_queues * sizeof(port->queues[0]);
	port = aligned_alloc(DP_CACHE_LINE, vfe_align_up(size, DP_CACHE_LINE));
	if (port == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u queues", cfg->nr_queues);
	memset(port, 0, size);
	if (vfe_str_copy(port->name, sizeof(port->name), cfg->name) < 0) {
		free(port);
		return vfe_error_set(err, -ENAMETOOLONG, "port name '%s' is too long", cfg->name);
	}
	port_init(port, engine, cfg);
	cfg->disk->users++;
	TAILQ_INSERT_TAIL(&engine->bp_ports, port, link);
	*ret = port;
	return 0;
}

void
bp_port_destroy(struct bp_port *port)
{
	struct timespec until;
	bool lost = false;
	uint16_t i;

	if (port == NULL)
		return;
	(void)bp_port_settle(port);
	until = port_deadline(port);
	for (i = 0; i < port->nr_queues; i++) {
		struct bp_queue *bq = &port->queues[i];

		(void)bp_queue_stop(port, i, NULL, NULL);
		/* of those before as well */
		(void)queue_wait(bq, NULL, 0, &until);
		if (slots_reclaim(bq, NULL) < 0)
			lost = true;
	}
	TAILQ_REMOVE(&port->engine->bp_ports, port, link);
	if (lost)
		return; /* the back end may still write to slots and guest: both must stay */
	port->disk->users--;
	free(port);
}

static int
request_set_map(struct dp_worker *w, void *arg)
{
	struct bp_port *port = arg;
	uint16_t i;

	for (i = 0; i < port->nr_queues; i++) {
		struct dp_queue *q = &port->queues[i].q;
		bool was_broken = q->ring.broken;

		if (q->worker != w || !q->attached)
			continue;
		if (vfe_vring_set_map(&q->ring, port->map, NULL) < 0 && !was_broken)
			dp_queue_broke(q);
		else
			dp_worker_ready(q);
	}
	return 0;
}

static int
request_set_watch(struct dp_worker *w, void *arg)
{
	struct bp_port *port = arg;
	uint16_t i;

	for (i = 0; i < port->nr_queues; i++) {
		if (port->queues[i].q.worker == w)
			port->queues[i].q.ring.watch = port->watch;
	}
	return 0;
}

/* Run @fn for @port on each worker that has a queue of it. */
static void
port_call(struct bp_port *port, int (*fn)(struct dp_worker *w, void *arg))
{
	uint16_t i;

	/* neighbours are on different workers, so the first nr_workers queues have them all */
	for (i = 0; i < port->nr_queues && i < port->engine->nr_workers; i++)
		dp_worker_call(port->queues[i].q.worker, fn, port);
}

void
bp_port_set_map(struct bp_port *port, const struct vfe_iova_map *map)
{
	port->map = map;
	port_call(port, request_set_map);
}

void
bp_port_set_watch(struct bp_port *port, const struct vfe_vring_watch *watch)
{
	port->watch = watch;
	port_call(port, request_set_watch);
}

void
bp_port_set_writeback(struct bp_port *port, bool writeback)
{
	atomic_store_explicit(&port->writeback, writeback, memory_order_relaxed);
}

/* From the event loop; a callback may stop queues, but not destroy a port. */
void
bp_report(struct dp_engine *engine)
{
	struct bp_port *port;
	uint16_t i;

	TAILQ_FOREACH (port, &engine->bp_ports, link) {
		for (i = 0; i < port->nr_queues; i++) {
			struct bp_queue *bq = &port->queues[i];

			if (atomic_exchange(&bq->q.broke, false) && engine->on_broken != NULL)
				engine->on_broken(port->ctx, i, bq->q.ring.error.text);
			if (atomic_exchange(&bq->drained, false) && port->on_drained != NULL)
				port->on_drained(port->ctx, i);
		}
	}
}
