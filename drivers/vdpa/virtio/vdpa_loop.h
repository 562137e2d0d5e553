/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The driver's threads: one reactor, which never waits for a device, and a few workers, which may.
 *
 * A struct vdpa_work runs once for each time that it was posted while it was not queued, never
 * twice at a time; it is posted to the reactor only or to the workers only, and is part of its
 * owner, who calls vdpa_work_cancel() before it goes away. Watches and timers belong to the reactor
 * thread: all their functions are called there.
 */

#ifndef VDPA_LOOP_H
#define VDPA_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vfe_base.h"

/* Enough that a few devices which hang do not hold up the others. */
enum { VDPA_NR_WORKERS = 4 };

TAILQ_HEAD(vdpa_work_list, vdpa_work);

struct vdpa_work {
	TAILQ_ENTRY(vdpa_work) next;
	void (*run)(struct vdpa_work *work);
	struct vdpa_work_list *list; /* of the last post */
	bool queued; /* posted and not yet begun; in the list, unless it also runs */
	bool running;
};

struct vdpa_watch {
	int fd; /* -1 = not watched */
	void (*ready)(struct vdpa_watch *watch, uint32_t events);
};

struct vdpa_timer {
	TAILQ_ENTRY(vdpa_timer) next;
	struct vfe_deadline at;
	bool armed;
	void (*expired)(struct vdpa_timer *timer);
};

/* Start and end the threads. Works that are queued at the end do not run. */
int vdpa_loop_start(struct vfe_error *err);
void vdpa_loop_stop(void);

/* Run @work on the reactor, or on a worker. Any thread, never waits. */
void vdpa_reactor_post(struct vdpa_work *work);
void vdpa_worker_post(struct vdpa_work *work);

/* Take @work out of its queue, wait until it does not run. Not from the thread that runs it. */
void vdpa_work_cancel(struct vdpa_work *work);

/* Wait until @work has run as often as it was posted. Not from the thread that runs it. */
void vdpa_work_finish(struct vdpa_work *work);

/* Run @fn on the reactor and wait for its end. Not from the reactor. */
void vdpa_reactor_call(void (*fn)(void *arg), void *arg);

/* Call @watch->ready when @fd has one of @events (EPOLL*), level triggered. 0 or -errno. */
int vdpa_watch_add(struct vdpa_watch *watch, int fd, uint32_t events);
void vdpa_watch_remove(struct vdpa_watch *watch); /* before the fd is closed; idempotent */

void vdpa_timer_set(struct vdpa_timer *timer, struct vfe_deadline at);
void vdpa_timer_cancel(struct vdpa_timer *timer);

#endif /* VDPA_LOOP_H */
