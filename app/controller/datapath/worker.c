/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A worker thread: visits the queues that have something to do, one burst each, round and round;
 * sleeps in epoll when there is none. A polling worker visits all its queues all the time and
 * sleeps only when it has none.
 */

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dp.h"

enum {
	WORKER_EVENTS = 64,
	WORKER_EPOLL_ROUNDS = 8,       /* a busy worker looks for kicks this often */
	WORKER_EPOLL_ROUNDS_POLL = 64, /* only TAPs need it there */
};

/* Queues. */

void
dp_worker_ready(struct dp_queue *q)
{
	struct dp_worker *w = q->worker;

	if (q->ready || !q->attached || q->poll == NULL || q->ring.broken)
		return;
	q->ready = true;
	w->nr_ready++;
	STAILQ_INSERT_TAIL(&w->ready, q, ready_link);
}

/* A kick for a queue that is not visited itself is one for the other queue of its pair. */
static void
queue_kicked(struct dp_queue *q)
{
	dp_worker_ready(q->poll != NULL ? q : &q->pair->tx);
}

static void
on_kick(struct dp_source *src, uint32_t events)
{
	struct dp_queue *q = vfe_container_of(src, struct dp_queue, kick);

	(void)events;
	dp_count(&q->stats.kicks, 1);
	queue_kicked(q);
}

int
dp_worker_watch(struct dp_worker *w, struct dp_source *src, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = src};

	if (epoll_ctl(w->epoll_fd, src->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, src->fd, &ev) < 0)
		return -errno;
	src->watched = true;
	return 0;
}

void
dp_worker_unwatch(struct dp_worker *w, struct dp_source *src)
{
	if (src->watched)
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, src->fd, NULL);
	src->watched = false;
}

int
dp_worker_attach(struct dp_queue *q)
{
	struct dp_worker *w = q->worker;
	int rc;

	/* edge-triggered: each doorbell is an event and nobody needs to read the counter */
	q->kick.on_event = on_kick;
	if (!w->polling && q->kick.fd >= 0) {
		rc = dp_worker_watch(w, &q->kick, EPOLLIN | EPOLLET);
		if (rc < 0)
			return rc;
	}
	q->attached = true;
	TAILQ_INSERT_TAIL(&w->attached, q, attached_link);
	vfe_vring_set_kick(&q->ring, false);
	dp_worker_ready(q);
	queue_kicked(q);
	return 0;
}

void
dp_worker_detach(struct dp_queue *q)
{
	struct dp_worker *w = q->worker;

	if (!q->attached)
		return;
	dp_worker_unwatch(w, &q->kick);
	if (q->ready) {
		STAILQ_REMOVE(&w->ready, q, dp_queue, ready_link);
		w->nr_ready--;
		q->ready = false;
	}
	TAILQ_REMOVE(&w->attached, q, attached_link);
	q->attached = false;
	/* packets may wait in the other queue for buffers of this one */
	if (q->pair != NULL)
		dp_worker_ready(&q->pair->tx);
}

/* The thread. */

static void
worker_wait(struct dp_worker *w, int timeout_ms)
{
	struct epoll_event events[WORKER_EVENTS];
	struct dp_source *src;
	int i, n;

	n = epoll_wait(w->epoll_fd, events, WORKER_EVENTS, timeout_ms);
	for (i = 0; i < n; i++) {
		src = events[i].data.ptr;
		src->on_event(src, events[i].events);
	}
}

static void
worker_requests(struct dp_worker *w)
{
	struct dp_request *req = atomic_load_explicit(&w->request, memory_order_acquire);

	if (vfe_likely(req == NULL))
		return;
	req->result = req->fn(w, req->arg);
	atomic_store_explicit(&w->request, NULL, memory_order_relaxed);
	sem_post(req->done);
}

static void
worker_kicks(struct dp_worker *w)
{
	struct dp_queue *q;

	if (vfe_likely(!atomic_load_explicit(&w->kicked, memory_order_relaxed)))
		return;
	atomic_store(&w->kicked, false);
	TAILQ_FOREACH (q, &w->attached, attached_link) {
		if (atomic_exchange(&q->kicked, false)) {
			dp_count(&q->stats.kicks, 1);
			queue_kicked(q);
		}
	}
}

/* Visit once each queue that is ready now. Returns whether any of them had something to do. */
static bool
worker_round(struct dp_worker *w)
{
	uint32_t n = w->nr_ready;
	struct dp_queue *q;
	bool any = false, again;

	while (n-- > 0) {
		q = STAILQ_FIRST(&w->ready);
		STAILQ_REMOVE_HEAD(&w->ready, ready_link);
		w->nr_ready--;
		q->ready = false;
		again = q->poll(q);
		any |= again;
		if (again || w->polling)
			dp_worker_ready(q);
	}
	return any;
}

static void *
worker_main(void *arg)
{
	struct dp_worker *w = arg;
	const uint32_t every = w->polling ? WORKER_EPOLL_ROUNDS_POLL : WORKER_EPOLL_ROUNDS;

	while (!w->stop) {
		worker_requests(w);
		worker_kicks(w);
		if (w->nr_ready == 0)
			worker_wait(w, w->stop ? 0 : -1);
		else if (++w->rounds % every == 0)
			worker_wait(w, 0);
		if (!worker_round(w) && w->polling)
			dp_cpu_relax();
	}
	return NULL;
}

static void
on_wake(struct dp_source *src, uint32_t events)
{
	/* edge-triggered, nothing to read; the loop looks at requests and kicks anyhow */
	(void)src;
	(void)events;
}

static void
worker_wake(struct dp_worker *w)
{
	static const uint64_t one = 1;
	ssize_t n = write(w->wake.fd, &one, sizeof(one));

	(void)n; /* can only fail when 2^64 - 1 wake-ups are pending */
}

/* Control thread. */

static void
sem_wait_uninterrupted(sem_t *sem)
{
	while (sem_wait(sem) < 0 && errno == EINTR)
		;
}

static int
request_hold(struct dp_worker *w, void *arg)
{
	(void)arg;
	sem_post(&w->hold_begun);
	sem_wait_uninterrupted(&w->hold_end);
	return 0;
}

void
dp_worker_hold(struct dp_worker *w)
{
	if (w->holds++ > 0)
		return;
	sem_init(&w->hold_begun, 0, 0);
	sem_init(&w->hold_end, 0, 0);
	sem_init(&w->hold_done, 0, 0);
	w->hold = (struct dp_request){.fn = request_hold, .done = &w->hold_done};
	assert(atomic_load(&w->request) == NULL);
	atomic_store_explicit(&w->request, &w->hold, memory_order_release);
	worker_wake(w);
	sem_wait_uninterrupted(&w->hold_begun);
}

void
dp_worker_release(struct dp_worker *w)
{
	if (--w->holds > 0)
		return;
	sem_post(&w->hold_end);
	sem_wait_uninterrupted(&w->hold_done);
	sem_destroy(&w->hold_begun);
	sem_destroy(&w->hold_end);
	sem_destroy(&w->hold_done);
}

int
dp_worker_call(struct dp_worker *w, int (*fn)(struct dp_worker *w, void *arg), void *arg)
{
	sem_t done;
	struct dp_request req = {.fn = fn, .arg = arg, .done = &done};

	if (w->holds > 0)
		return fn(w, arg);
	sem_init(&done, 0, 0);
	assert(atomic_load(&w->request) == NULL);
	atomic_store_explicit(&w->request, &req, memory_order_release);
	worker_wake(w);
	sem_wait_uninterrupted(&done);
	sem_destroy(&done);
	return req.result;
}

void
dp_worker_kick(struct dp_queue *q)
{
	atomic_store(&q->kicked, true);
	atomic_store(&q->worker->kicked, true);
	worker_wake(q->worker);
}

static int
request_stop(struct dp_worker *w, void *arg)
{
	(void)arg;
	w->stop = true;
	return 0;
}

static int
worker_spawn(struct dp_worker *w, struct vfe_error *err)
{
	pthread_attr_t attr;
	sigset_t all, old;
	cpu_set_t cpus;
	int rc;

	pthread_attr_init(&attr);
	if (w->cpu >= 0) {
		CPU_ZERO(&cpus);
		if (w->cpu < CPU_SETSIZE)
			CPU_SET((size_t)w->cpu, &cpus);
		pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
	}
	/* signals are for the control thread, but a shrunken file faults right here */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (rc != 0 && w->cpu >= 0)
		return vfe_error_set(err, -rc, "cannot start a worker thread on CPU %d: %s", w->cpu,
			strerror(rc));
	if (rc != 0)
		return vfe_error_set(err, -rc, "cannot start a worker thread: %s", strerror(rc));
	pthread_setname_np(w->thread, "dp-worker");
	return 0;
}

int
dp_worker_start(
	struct dp_worker *w, struct dp_engine *engine, bool polling, int cpu, struct vfe_error *err)
{
	int rc;

	w->engine = engine;
	w->polling = polling;
	w->cpu = cpu;
	STAILQ_INIT(&w->ready);
	TAILQ_INIT(&w->attached);
	w->wake.on_event = on_wake;

	vfe_signaller_init(&w->signaller);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->epoll_fd < 0 || w->wake.fd < 0) {
		rc = vfe_error_set(err, -errno, "cannot create an epoll set: %s", strerror(errno));
		goto err_close_fds;
	}
	rc = dp_worker_watch(w, &w->wake, EPOLLIN | EPOLLET);
	if (rc == 0)
		rc = worker_spawn(w, err);
	if (rc < 0)
		goto err_close_fds;
	return 0;

err_close_fds:
	vfe_close(&w->wake.fd);
	vfe_close(&w->epoll_fd);
	vfe_signaller_fini(&w->signaller);
	return rc;
}

void
dp_worker_stop(struct dp_worker *w)
{
	dp_worker_call(w, request_stop, NULL);
	pthread_join(w->thread, NULL);
	vfe_close(&w->wake.fd);
	vfe_close(&w->epoll_fd);
	vfe_signaller_fini(&w->signaller);
}
