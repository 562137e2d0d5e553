/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Signals to eventfds whose other owner wants the sender to block.
 */

#undef NDEBUG

#include "vfe_signal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define FULL (UINT64_MAX - 1)

static uint64_t
count_of(int fd)
{
	uint64_t n;

	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
	return n;
}

/* More than the completions that the kernel keeps for us. */
static void
each_signal_counts(void **state)
{
	struct vfe_signaller signaller;
	int i, fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	(void)state;
	assert_true(fd >= 0);
	vfe_signaller_init(&signaller);
	for (i = 0; i < 1000; i++)
		assert_int_equal(vfe_signal(&signaller, fd), 0);
	vfe_signaller_fini(&signaller);
	assert_int_equal(count_of(fd), 1000);
	vfe_close(&fd);
}

/* A blocking eventfd: a plain write() would never return. */
static void
a_full_counter_does_not_block(void **state)
{
	const uint64_t full = FULL;
	struct vfe_signaller signaller;
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	vfe_signaller_init(&signaller);
	(void)vfe_signal(&signaller, fd);
	(void)vfe_signal(&signaller, fd);
	vfe_signaller_fini(&signaller);
	assert_true(count_of(fd) >= FULL);
	vfe_close(&fd);
}

static void
without_asynchronous_io_a_full_counter_is_left_alone(void **state)
{
	struct vfe_signaller signaller = {.file = -1};
	const uint64_t full = FULL;
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(vfe_signal(&signaller, fd), 0);
	assert_int_equal(count_of(fd), 1);
	assert_int_equal(write(fd, &full, sizeof(full)), sizeof(full));
	assert_int_equal(vfe_signal(&signaller, fd), -EAGAIN);
	vfe_signaller_fini(&signaller);
	vfe_close(&fd);
}

/* Many times, so that nothing of it may pile up in the kernel. */
static void
check_takes(struct vfe_signaller *signaller, int fd, int other)
{
	int i, timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);

	assert_true(timer >= 0);
	for (i = 0; i < 200; i++) {
		assert_true(vfe_signaller_takes(signaller, fd));
		assert_false(vfe_signaller_takes(signaller, other));
		assert_false(vfe_signaller_takes(signaller, timer));
		assert_false(vfe_signaller_takes(signaller, -1));
	}
	vfe_close(&timer);
}

static void
other_files_are_refused(void **state)
{
	struct vfe_signaller signaller, none = {.file = -1};
	int ends[2], fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	eventfd_t value;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(pipe(ends), 0);
	vfe_signaller_init(&signaller);
	if (signaller.file >= 0)
		assert_int_equal(vfe_signal(&signaller, ends[1]), -EINVAL);
	assert_true(vfe_signal(&signaller, -1) < 0);
	check_takes(&signaller, fd, ends[1]);
	check_takes(&none, fd, ends[1]);
	vfe_signaller_fini(&signaller);
	assert_true(vfe_fd_is_eventfd(fd));
	assert_false(vfe_fd_is_eventfd(ends[1]));
	assert_false(vfe_fd_is_eventfd(-1));
	assert_int_equal(eventfd_read(fd, &value), -1); /* asking is no signal */
	vfe_close(&fd);
	vfe_close(&ends[0]);
	vfe_close(&ends[1]);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_signal_counts),
		cmocka_unit_test(a_full_counter_does_not_block),
		cmocka_unit_test(without_asynchronous_io_a_full_counter_is_left_alone),
		cmocka_unit_test(other_files_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
