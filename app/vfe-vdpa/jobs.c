/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The provisioning thread.
 */

#include "jobs.h"

#include <errno.h>
#include <ev.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

STAILQ_HEAD(job_list, job);

struct jobs {
	pthread_t thread;
	pthread_mutex_t lock; /* protects the lists and stop */
	pthread_cond_t posted;
	struct job_list waiting;
	struct job_list finished;
	bool stop;
	struct ev_loop *loop;
	struct ev_async wake; /* something finished */
};

static void *
provisioning_thread(void *arg)
{
	struct jobs *jobs = arg;
	struct job *job;

	pthread_mutex_lock(&jobs->lock);
	for (;;) {
		while (STAILQ_EMPTY(&jobs->waiting) && !jobs->stop)
			pthread_cond_wait(&jobs->posted, &jobs->lock);
		if (STAILQ_EMPTY(&jobs->waiting))
			break;
		job = STAILQ_FIRST(&jobs->waiting);
		STAILQ_REMOVE_HEAD(&jobs->waiting, next);
		pthread_mutex_unlock(&jobs->lock);

		job->run(job);

		pthread_mutex_lock(&jobs->lock);
		STAILQ_INSERT_TAIL(&jobs->finished, job, next);
		ev_async_send(jobs->loop, &jobs->wake);
	}
	pthread_mutex_unlock(&jobs->lock);
	return NULL;
}

static void
finished_call(struct jobs *jobs)
{
	struct job_list list = STAILQ_HEAD_INITIALIZER(list);
	struct job *job;

	pthread_mutex_lock(&jobs->lock);
	STAILQ_CONCAT(&list, &jobs->finished);
	pthread_mutex_unlock(&jobs->lock);

	while ((job = STAILQ_FIRST(&list)) != NULL) {
		STAILQ_REMOVE_HEAD(&list, next);
		job->done(job);
	}
}

static void
on_wake(struct ev_loop *loop, struct ev_async *w, int revents)
{
	(void)loop;
	(void)revents;
	finished_call(vfe_container_of(w, struct jobs, wake));
}

int
jobs_create(struct ev_loop *loop, struct jobs **ret, struct vfe_error *err)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	int rc;

	if (jobs == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	jobs->loop = loop;
	STAILQ_INIT(&jobs->waiting);
	STAILQ_INIT(&jobs->finished);
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_cond_init(&jobs->posted, NULL);
	ev_async_init(&jobs->wake, on_wake);
	ev_async_start(loop, &jobs->wake);

	rc = pthread_create(&jobs->thread, NULL, provisioning_thread, jobs);
	if (rc != 0) {
		ev_async_stop(loop, &jobs->wake);
		pthread_cond_destroy(&jobs->posted);
		pthread_mutex_destroy(&jobs->lock);
		free(jobs);
		return vfe_error_set(
			err, -rc, "cannot start the provisioning thread: %s", strerror(rc));
	}
	pthread_setname_np(jobs->thread, "vfe-provision");
	*ret = jobs;
	return 0;
}

void
jobs_post(struct jobs *jobs, struct job *job)
{
	pthread_mutex_lock(&jobs->lock);
	STAILQ_INSERT_TAIL(&jobs->waiting, job, next);
	pthread_cond_signal(&jobs->posted);
	pthread_mutex_unlock(&jobs->lock);
}

void
jobs_stop(struct jobs *jobs)
{
	bool more;

	pthread_mutex_lock(&jobs->lock);
	more = !jobs->stop;
	jobs->stop = true;
	pthread_cond_signal(&jobs->posted);
	pthread_mutex_unlock(&jobs->lock);
	if (!more)
		return;

	pthread_join(jobs->thread, NULL);
	while (more) {
		finished_call(jobs); /* may post again */
		pthread_mutex_lock(&jobs->lock);
		STAILQ_CONCAT(&jobs->finished, &jobs->waiting);
		more = !STAILQ_EMPTY(&jobs->finished);
		pthread_mutex_unlock(&jobs->lock);
	}
}

void
jobs_destroy(struct jobs *jobs)
{
	if (jobs == NULL)
		return;
	jobs_stop(jobs);
	ev_async_stop(jobs->loop, &jobs->wake);
	pthread_cond_destroy(&jobs->posted);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}
