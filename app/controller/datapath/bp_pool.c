/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Files through a pool of threads, for where io_uring is not allowed or cannot do it.
 *
 * A worker puts a slot on the list of jobs; a thread carries it out, hands it back through
 * bp_queue.finished, and wakes the worker with an eventfd when that list was empty.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "bp.h"

struct bp_pool {
	pthread_mutex_t lock; /* protects what follows, but the threads' ids */
	pthread_cond_t wake;
	struct bp_slots jobs;
	bool stop;
	unsigned int nr_threads;
	pthread_t threads[BP_POOL_THREADS];
};

/*
 * The slot is the worker's again as soon as it is on the list, and the queue may be closed then:
 * the lock is what keeps the eventfd (see bp_jobs_close()).
 */
static void
finish_locked(struct bp_slot *slot)
{
	static const uint64_t one = 1;
	struct bp_queue *bq = slot->bq;
	int fd = bq->jobs.fd;
	struct bp_slot *old = atomic_load_explicit(&bq->finished, memory_order_relaxed);
	ssize_t n = 0;

	do {
		slot->next_finished = old;
	} while (!atomic_compare_exchange_weak_explicit(
		&bq->finished, &old, slot, memory_order_acq_rel, memory_order_relaxed));
	if (old == NULL)
		n = write(fd, &one, sizeof(one));
	(void)n; /* can only fail when 2^64 - 1 wake-ups are pending */
}

static void *
pool_main(void *arg)
{
	struct bp_pool *pool = arg;
	struct bp_slot *slot;

	pthread_mutex_lock(&pool->lock);
	for (;;) {
		slot = STAILQ_FIRST(&pool->jobs);
		if (slot == NULL && pool->stop)
			break;
		if (slot == NULL) {
			pthread_cond_wait(&pool->wake, &pool->lock);
			continue;
		}
		STAILQ_REMOVE_HEAD(&pool->jobs, link);
		pthread_mutex_unlock(&pool->lock);
		slot->result = bp_file_execute(slot);
		pthread_mutex_lock(&pool->lock);
		finish_locked(slot);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static int
pool_spawn(struct bp_pool *pool)
{
	sigset_t all, old;
	int rc;

	/* signals are for the control thread, but a shrunken file faults right here */
	sigfillset(&all);
	sigdelset(&all, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(&pool->threads[pool->nr_threads], NULL, pool_main, pool);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		pthread_setname_np(pool->threads[pool->nr_threads++], "bp-pool");
	return -rc;
}

int
bp_pool_get(struct dp_engine *engine, struct vfe_error *err)
{
	struct bp_pool *pool;
	int i, rc = 0;

	if (engine->bp_pool != NULL)
		return 0;
	pool = calloc(1, sizeof(*pool));
	if (pool == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for threads");
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	STAILQ_INIT(&pool->jobs);
	for (i = 0; i < BP_POOL_THREADS && rc == 0; i++)
		rc = pool_spawn(pool);
	if (rc < 0) {
		bp_pool_destroy(pool);
		return vfe_error_set(err, rc, "cannot start a thread: %s", strerror(-rc));
	}
	engine->bp_pool = pool;
	return 0;
}

void
bp_pool_destroy(struct bp_pool *pool)
{
	if (pool == NULL)
		return;
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	while (pool->nr_threads > 0)
		pthread_join(pool->threads[--pool->nr_threads], NULL);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

void
bp_pool_submit(struct bp_slot *slot)
{
	struct bp_pool *pool = slot->bq->port->engine->bp_pool;

	pthread_mutex_lock(&pool->lock);
	STAILQ_INSERT_TAIL(&pool->jobs, slot, link);
	pthread_cond_signal(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
}

void
bp_pool_reap(struct bp_queue *bq)
{
	struct bp_slot *slot, *next, *oldest = NULL;

	if (atomic_load_explicit(&bq->finished, memory_order_relaxed) == NULL)
		return;
	slot = atomic_exchange_explicit(&bq->finished, NULL, memory_order_acquire);
	for (; slot != NULL; slot = next) {
		next = slot->next_finished;
		slot->next_finished = oldest;
		oldest = slot;
	}
	for (slot = oldest; slot != NULL; slot = next) {
		next = slot->next_finished;
		bp_file_done(slot, slot->result);
	}
}

int
bp_jobs_open(struct bp_queue *bq, struct vfe_error *err)
{
	int rc = bp_pool_get(bq->port->engine, err);

	if (rc < 0)
		return rc;
	atomic_store(&bq->finished, NULL);
	bq->jobs.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (bq->jobs.fd < 0)
		return vfe_error_set(err, -errno, "no eventfd for threads: %s", strerror(errno));
	return 0;
}

void
bp_jobs_close(struct bp_queue *bq)
{
	struct bp_pool *pool = bq->port->engine->bp_pool;

	if (bq->jobs.fd < 0)
		return;
	pthread_mutex_lock(&pool->lock);
	vfe_close(&bq->jobs.fd);
	pthread_mutex_unlock(&pool->lock);
}

static int
threads_queue_open(struct bp_queue *bq, struct vfe_error *err)
{
	return bp_jobs_open(bq, err);
}

const struct bp_disk_ops bp_ops_file_threads = {
	.open = bp_file_open,
	.close = bp_file_close,
	.resize = bp_file_resize,
	.queue_open = threads_queue_open,
	.queue_close = bp_jobs_close,
	.submit = bp_pool_submit,
	.reap = bp_pool_reap,
};
