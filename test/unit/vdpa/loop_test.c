/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The driver's threads: a work that is posted again while it runs.
 */

#undef NDEBUG

#include "vdpa_loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* A work whose every run waits for a permission. */
struct gated {
	struct vdpa_work work;
	sem_t begun;
	sem_t may_end;
	atomic_int now;
	atomic_int most;
	atomic_int runs;
};

static void
wait_for(sem_t *sem)
{
	struct timespec until;

	assert_int_equal(clock_gettime(CLOCK_REALTIME, &until), 0);
	until.tv_sec += 30;
	assert_int_equal(sem_timedwait(sem, &until), 0);
}

static void
gated_run(struct vdpa_work *work)
{
	struct gated *g = vfe_container_of(work, struct gated, work);
	int now = atomic_fetch_add(&g->now, 1) + 1;

	if (now > atomic_load(&g->most))
		atomic_store(&g->most, now);
	atomic_fetch_add(&g->runs, 1);
	sem_post(&g->begun);
	while (sem_wait(&g->may_end) < 0)
		continue;
	atomic_fetch_sub(&g->now, 1);
}

static void
gated_init(struct gated *g)
{
	memset(g, 0, sizeof(*g));
	g->work.run = gated_run;
	assert_int_equal(sem_init(&g->begun, 0, 0), 0);
	assert_int_equal(sem_init(&g->may_end, 0, 0), 0);
}

static int
setup(void **state)
{
	struct vfe_error err;

	(void)state;
	return vdpa_loop_start(&err);
}

static int
teardown(void **state)
{
	(void)state;
	vdpa_loop_stop();
	return 0;
}

static void
posted_again_while_it_runs_it_waits_its_turn(void **state)
{
	struct gated twice, probe;
	int runs;

	(void)state;
	gated_init(&twice);
	gated_init(&probe);
	vdpa_worker_post(&twice.work);
	wait_for(&twice.begun);
	vdpa_worker_post(&twice.work);
	/* the list is served in order: once the probe has begun, the second run would have, too */
	sem_post(&probe.may_end);
	vdpa_worker_post(&probe.work);
	wait_for(&probe.begun);
	vdpa_work_cancel(&probe.work);
	runs = atomic_load(&twice.runs);
	sem_post(&twice.may_end);
	sem_post(&twice.may_end);
	wait_for(&twice.begun);
	vdpa_work_cancel(&twice.work);
	assert_int_equal(runs, 1);
	assert_int_equal(atomic_load(&twice.runs), 2);
	assert_int_equal(atomic_load(&twice.most), 1);
}

static void *
canceller(void *arg)
{
	struct gated *g = arg;

	vdpa_work_cancel(&g->work);
	free(g); /* what an owner does next; ASan sees a thread that still uses it */
	return NULL;
}

static void
once_cancelled_nothing_touches_it(void **state)
{
	struct gated *g = malloc(sizeof(*g)), next;
	pthread_t thread;

	(void)state;
	assert_non_null(g);
	gated_init(g);
	gated_init(&next);
	vdpa_worker_post(&g->work);
	wait_for(&g->begun);
	vdpa_worker_post(&g->work);
	sem_post(&g->may_end);
	sem_post(&g->may_end);
	assert_int_equal(pthread_create(&thread, NULL, canceller, g), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	sem_post(&next.may_end);
	vdpa_worker_post(&next.work);
	wait_for(&next.begun);
	vdpa_work_cancel(&next.work);
}

struct finisher {
	struct gated g;
	atomic_bool finished;
};

static void *
finish(void *arg)
{
	struct finisher *f = arg;

	vdpa_work_finish(&f->g.work);
	atomic_store(&f->finished, true);
	return NULL;
}

static void
what_is_finished_has_run_as_often_as_posted(void **state)
{
	struct finisher f = {.finished = false};
	pthread_t thread;

	(void)state;
	gated_init(&f.g);
	vdpa_worker_post(&f.g.work);
	wait_for(&f.g.begun);
	vdpa_worker_post(&f.g.work);
	assert_int_equal(pthread_create(&thread, NULL, finish, &f), 0);
	sem_post(&f.g.may_end);
	wait_for(&f.g.begun);
	assert_false(atomic_load(&f.finished));
	sem_post(&f.g.may_end);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(atomic_load(&f.g.runs), 2);
	assert_int_equal(atomic_load(&f.g.now), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			posted_again_while_it_runs_it_waits_its_turn, setup, teardown),
		cmocka_unit_test_setup_teardown(once_cancelled_nothing_touches_it, setup, teardown),
		cmocka_unit_test_setup_teardown(
			what_is_finished_has_run_as_often_as_posted, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
