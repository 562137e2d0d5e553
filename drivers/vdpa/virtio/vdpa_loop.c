/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The reactor and the workers: queues of works, watched fds, timers.
 */

#include "vdpa_loop.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_lcore.h>

TAILQ_HEAD(vdpa_timer_list, vdpa_timer);

static struct {
	pthread_mutex_t lock; /* protects the lists, the flags of all works, stopping */
	pthread_cond_t idle;  /* a work has ended */
	pthread_cond_t work;  /* for the workers: there is something to do */
	struct vdpa_work_list reactor_works;
	struct vdpa_work_list worker_works;
	bool stopping;

	pthread_t reactor;
	pthread_t workers[VDPA_NR_WORKERS];
	unsigned int nr_workers;
	bool started;
	int wake_fd;
	int epoll_fd;

	struct vdpa_timer_list timers; /* reactor thread only */
} loop = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.work = PTHREAD_COND_INITIALIZER,
	.reactor_works = TAILQ_HEAD_INITIALIZER(loop.reactor_works),
	.worker_works = TAILQ_HEAD_INITIALIZER(loop.worker_works),
	.wake_fd = -1,
	.epoll_fd = -1,
	.timers = TAILQ_HEAD_INITIALIZER(loop.timers),
};

static void
loop_wake(void)
{
	static const uint64_t one = 1;

	/* fails only when the counter is full, and then the reactor wakes up anyway */
	if (write(loop.wake_fd, &one, sizeof(one)) < 0)
		return;
}

/* --- works --- */

/* Put @work into its list. One that runs waits until it has ended: a work never runs twice at a
 * time. */
static void
loop_enqueue_locked(struct vdpa_work *work, struct vdpa_work_list *list)
{
	work->list = list;
	work->queued = true;
	if (!work->running)
		TAILQ_INSERT_TAIL(list, work, next);
}

void
vdpa_reactor_post(struct vdpa_work *work)
{
	bool wake = false;

	pthread_mutex_lock(&loop.lock);
	if (!work->queued) {
		wake = TAILQ_EMPTY(&loop.reactor_works);
		loop_enqueue_locked(work, &loop.reactor_works);
	}
	pthread_mutex_unlock(&loop.lock);
	if (wake)
		loop_wake();
}

void
vdpa_worker_post(struct vdpa_work *work)
{
	pthread_mutex_lock(&loop.lock);
	if (!work->queued) {
		loop_enqueue_locked(work, &loop.worker_works);
		pthread_cond_signal(&loop.work);
	}
	pthread_mutex_unlock(&loop.lock);
}

void
vdpa_work_cancel(struct vdpa_work *work)
{
	pthread_mutex_lock(&loop.lock);
	while (work->queued || work->running) {
		if (work->queued && !work->running)
			TAILQ_REMOVE(work->list, work, next);
		work->queued = false;
		if (work->running)
			pthread_cond_wait(&loop.idle, &loop.lock);
	}
	pthread_mutex_unlock(&loop.lock);
}

void
vdpa_work_finish(struct vdpa_work *work)
{
	pthread_mutex_lock(&loop.lock);
	while (work->queued || work->running)
		pthread_cond_wait(&loop.idle, &loop.lock);
	pthread_mutex_unlock(&loop.lock);
}

/*
 * Take the first work of @list and run it, the lock being held before and after. The thread that
 * ran it puts it back when it was posted meanwhile, and goes on with the list itself.
 */
static void
loop_run_first_locked(struct vdpa_work_list *list)
{
	struct vdpa_work *work = TAILQ_FIRST(list);

	TAILQ_REMOVE(list, work, next);
	work->queued = false;
	work->running = true;
	pthread_mutex_unlock(&loop.lock);
	work->run(work);
	pthread_mutex_lock(&loop.lock);
	work->running = false;
	if (work->queued)
		TAILQ_INSERT_TAIL(work->list, work, next);
	pthread_cond_broadcast(&loop.idle);
}

struct loop_call {
	struct vdpa_work work;
	void (*fn)(void *arg);
	void *arg;
	bool done;
};

static void
loop_call_run(struct vdpa_work *work)
{
	struct loop_call *call = vfe_container_of(work, struct loop_call, work);

	call->fn(call->arg);
	pthread_mutex_lock(&loop.lock);
	call->done = true;
	pthread_mutex_unlock(&loop.lock);
}

void
vdpa_reactor_call(void (*fn)(void *arg), void *arg)
{
	struct loop_call call = {.work.run = loop_call_run, .fn = fn, .arg = arg};

	vdpa_reactor_post(&call.work);
	pthread_mutex_lock(&loop.lock);
	while (!call.done || call.work.running)
		pthread_cond_wait(&loop.idle, &loop.lock);
	pthread_mutex_unlock(&loop.lock);
}

/* --- watches and timers --- */

int
vdpa_watch_add(struct vdpa_watch *watch, int fd, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = watch};

	if (epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	watch->fd = fd;
	return 0;
}

void
vdpa_watch_remove(struct vdpa_watch *watch)
{
	if (watch->fd < 0)
		return;
	epoll_ctl(loop.epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->fd = -1;
}

void
vdpa_timer_set(struct vdpa_timer *timer, struct vfe_deadline at)
{
	if (!timer->armed)
		TAILQ_INSERT_TAIL(&loop.timers, timer, next);
	timer->armed = true;
	timer->at = at;
}

void
vdpa_timer_cancel(struct vdpa_timer *timer)
{
	if (timer->armed)
		TAILQ_REMOVE(&loop.timers, timer, next);
	timer->armed = false;
}

/* Few timers run at a time (a device in transition has one), so a list will do. */
static struct vdpa_timer *
loop_first_timer(void)
{
	struct vdpa_timer *timer, *first = NULL;

	TAILQ_FOREACH (timer, &loop.timers, next) {
		if (first == NULL || timer->at.at_ns < first->at.at_ns)
			first = timer;
	}
	return first;
}

static void
loop_run_timers(void)
{
	struct vdpa_timer *timer;

	while ((timer = loop_first_timer()) != NULL && vfe_deadline_passed(timer->at)) {
		vdpa_timer_cancel(timer);
		timer->expired(timer);
	}
}

/* --- threads --- */

/*
 * One event at a time: a handler may remove any watch, and an event of that watch must then not be
 * waiting in an array of ours. The kernel hands ready fds out in turn.
 */
static void
loop_wait(void)
{
	struct vdpa_timer *timer = loop_first_timer();
	struct vdpa_watch *watch;
	struct epoll_event ev;
	uint64_t count;

	if (epoll_wait(loop.epoll_fd, &ev, 1, timer ? vfe_deadline_left_ms(timer->at) : -1) < 1)
		return;
	watch = ev.data.ptr;
	if (watch != NULL)
		watch->ready(watch, ev.events);
	else if (read(loop.wake_fd, &count, sizeof(count)) < 0)
		return;
}

static void *
loop_reactor(void *arg)
{
	bool stopping = false;

	while (!stopping) {
		loop_wait();
		pthread_mutex_lock(&loop.lock);
		while (!TAILQ_EMPTY(&loop.reactor_works) && !loop.stopping)
			loop_run_first_locked(&loop.reactor_works);
		stopping = loop.stopping;
		pthread_mutex_unlock(&loop.lock);
		loop_run_timers();
	}
	return arg;
}

static void *
loop_worker(void *arg)
{
	pthread_mutex_lock(&loop.lock);
	while (!loop.stopping) {
		if (TAILQ_EMPTY(&loop.worker_works))
			pthread_cond_wait(&loop.work, &loop.lock);
		else
			loop_run_first_locked(&loop.worker_works);
	}
	pthread_mutex_unlock(&loop.lock);
	return arg;
}

static int
loop_start_threads(struct vfe_error *err)
{
	int ret;

	ret = rte_ctrl_thread_create(&loop.reactor, "vfe-reactor", NULL, loop_reactor, NULL);
	if (ret != 0)
		return vfe_error_set(err, ret < 0 ? ret : -ret, "cannot start the reactor thread");
	loop.started = true;
	while (loop.nr_workers < VDPA_NR_WORKERS) {
		ret = rte_ctrl_thread_create(
			&loop.workers[loop.nr_workers], "vfe-worker", NULL, loop_worker, NULL);
		if (ret != 0)
			return vfe_error_set(err, ret < 0 ? ret : -ret,
				"cannot start worker thread %u", loop.nr_workers);
		loop.nr_workers++;
	}
	return 0;
}

int
vdpa_loop_start(struct vfe_error *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	int ret;

	loop.stopping = false;
	loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop.epoll_fd < 0 || loop.wake_fd < 0 ||
		epoll_ctl(loop.epoll_fd, EPOLL_CTL_ADD, loop.wake_fd, &ev) < 0)
		ret = vfe_error_set(err, -errno, "cannot set the reactor up: %s", strerror(errno));
	else
		ret = loop_start_threads(err);
	if (ret < 0)
		vdpa_loop_stop();
	return ret;
}

void
vdpa_loop_stop(void)
{
	pthread_mutex_lock(&loop.lock);
	loop.stopping = true;
	pthread_cond_broadcast(&loop.work);
	pthread_mutex_unlock(&loop.lock);
	if (loop.started) {
		loop_wake();
		pthread_join(loop.reactor, NULL);
	}
	loop.started = false;
	while (loop.nr_workers > 0)
		pthread_join(loop.workers[--loop.nr_workers], NULL);
	vfe_close(&loop.epoll_fd);
	vfe_close(&loop.wake_fd);
}
