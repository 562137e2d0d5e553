/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The provisioning thread: long work one after the other, so that the main loop stays responsive.
 *
 * A device reset may take minutes on real hardware. Jobs run in the order in which they were
 * posted; when one has run, its done function is called on the main loop.
 */

#ifndef JOBS_H
#define JOBS_H

#include <stdbool.h>
#include <sys/queue.h>

#include "vfe_base.h"

struct ev_loop;
struct jobs;

/* Embedded in what the job is about; the poster's again when @done is called. */
struct job {
	void (*run)(struct job *job);  /* on the provisioning thread */
	void (*done)(struct job *job); /* on the main loop */
	STAILQ_ENTRY(job) next;
};

/* Start the thread. *@ret is owned by the caller. */
int jobs_create(struct ev_loop *loop, struct jobs **ret, struct vfe_error *err);

/* Post from any thread; never waits. */
void jobs_post(struct jobs *jobs, struct job *job);

/*
 * End the thread after what has been posted so far, which is bounded by the deadlines of the jobs
 * themselves. What is posted later does not run, but its done function is called here. On the
 * main loop's thread; no done function is called after it.
 */
void jobs_stop(struct jobs *jobs);

/* Stop if that has not been done, and free. NULL is fine. */
void jobs_destroy(struct jobs *jobs);

#endif /* JOBS_H */
