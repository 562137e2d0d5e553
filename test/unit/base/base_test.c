/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Tests of lib/base: the edges of addresses, strings, fds, deadlines, and a shrunken memory file.
 */

#undef NDEBUG

#include "vfe_base.h"
#include "vfe_bdf.h"
#include "vfe_iov.h"
#include "vfe_sigbus.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void
bdf_round_trip(void **state)
{
	static const char *const good[] = {"0000:af:00.2", "ffffffff:ff:1f.7", "0001:00:00.0"};
	char text[VFE_BDF_STR_SIZE];
	struct vfe_bdf bdf;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(good); i++) {
		assert_int_equal(vfe_bdf_parse(good[i], &bdf), 0);
		assert_string_equal(vfe_bdf_format(&bdf, text), good[i]);
	}
	assert_int_equal(vfe_bdf_parse("af:04.5", &bdf), 0);
	assert_string_equal(vfe_bdf_format(&bdf, text), "0000:af:04.5");
	assert_int_equal(vfe_bdf_rid(&bdf), 0xaf25);
	bdf = vfe_bdf_from_rid(0, 0xaf25);
	assert_string_equal(vfe_bdf_format(&bdf, text), "0000:af:04.5");
}

static void
bdf_rejects_garbage(void **state)
{
	static const char *const bad[] = {"", ":", "af", "af:00", "0000:af:00", "0000:af:20.0",
		"0000:af:00.8", "0000:100:00.0", "100000000:af:00.0", "0000:af:00.2 ",
		" 0000:af:00.2", "0000:af:00.", "0000:af:-1.0", "0000:0xaf:00.0",
		"0000:af:00.2/../x", "a:b:c:d.e"};
	struct vfe_bdf bdf = {1, 2, 3, 4};
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		assert_int_equal(vfe_bdf_parse(bad[i], &bdf), -EINVAL);
	assert_int_equal(bdf.domain, 1);
}

static void
strings_are_bounded(void **state)
{
	char buf[4];

	(void)state;
	assert_int_equal(vfe_str_copy(buf, sizeof(buf), "abc"), 0);
	assert_string_equal(buf, "abc");
	assert_int_equal(vfe_str_copy(buf, sizeof(buf), "abcd"), -ENAMETOOLONG);
	assert_string_equal(buf, "");
	assert_int_equal(vfe_str_format(buf, sizeof(buf), "%d", 999), 0);
	assert_int_equal(vfe_str_format(buf, sizeof(buf), "%d", 1000), -ENAMETOOLONG);
}

static void
error_text_is_kept_and_bounded(void **state)
{
	char longer[600];
	struct vfe_error err;

	(void)state;
	assert_int_equal(vfe_error_set(&err, -EINVAL, "size %d", 3), -EINVAL);
	assert_int_equal(vfe_error_prefix(&err, -EINVAL, "queue %d", 7), -EINVAL);
	assert_string_equal(err.text, "queue 7: size 3");
	assert_int_equal(vfe_error_set(NULL, -EIO, "nobody listens"), -EIO);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	vfe_error_set(&err, -EIO, "%s", longer);
	vfe_error_prefix(&err, -EIO, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

static void
fds_are_owned_once(void **state)
{
	int fd = vfe_memfd_create("test", 4096);
	int copy, other;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(vfe_fd_size(fd), 4096);
	assert_int_equal(ftruncate(fd, 0), -1);
	copy = vfe_fd_dup(fd);
	assert_true(copy >= 0);
	other = vfe_fd_take(&copy);
	assert_int_equal(copy, -1);
	errno = 77;
	vfe_close(&other);
	vfe_close(&other);
	vfe_close(NULL);
	assert_int_equal(errno, 77);
	vfe_close(&fd);
	assert_int_equal(vfe_memfd_create("none", 0), -EINVAL);
	assert_true(vfe_fd_size(-1) < 0);
}

static void
ranges_do_not_wrap(void **state)
{
	(void)state;
	assert_true(vfe_range_inside(0, 0, 0));
	assert_true(vfe_range_inside(8, 8, 16));
	assert_false(vfe_range_inside(8, 9, 16));
	assert_false(vfe_range_inside(17, 0, 16));
	assert_false(vfe_range_inside(UINT64_MAX, 2, 16));
	assert_false(vfe_range_inside(2, UINT64_MAX, 16));
}

static void
deadlines_end(void **state)
{
	struct vfe_deadline d = vfe_deadline_in_ms(100000);

	(void)state;
	assert_false(vfe_deadline_passed(d));
	assert_in_range(vfe_deadline_left_ms(d), 90000, 100000);
	d = vfe_deadline_in_ms(0);
	assert_true(vfe_deadline_passed(d));
	assert_int_equal(vfe_deadline_left_ms(d), 0);
	d.at_ns = 5000000007u;
	assert_int_equal(vfe_deadline_timespec(d).tv_sec, 5);
	assert_int_equal(vfe_deadline_timespec(d).tv_nsec, 7);
}

static void
shrunken_file_trips_its_range_only(void **state)
{
	atomic_bool tripped = false, other_tripped = false;
	int fd = memfd_create("shrinks", MFD_CLOEXEC);
	volatile uint8_t *a, *b;

	(void)state;
	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(ftruncate(fd, 8192), 0);
	a = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(a, MAP_FAILED);
	assert_ptr_not_equal(b, MAP_FAILED);
	assert_int_equal(vfe_sigbus_guard((void *)(uintptr_t)a, 8192, &tripped), 0);
	assert_int_equal(vfe_sigbus_guard((void *)(uintptr_t)b, 4096, &other_tripped), 0);
	assert_int_equal(vfe_sigbus_guard((void *)(uintptr_t)(a + 1), 8192, &tripped), -EINVAL);

	a[4096] = 1;
	assert_false(tripped);
	assert_int_equal(ftruncate(fd, 4096), 0);
	a[4096] = 2; /* SIGBUS inside */
	assert_true(tripped);
	assert_false(other_tripped);
	b[0] = 3;
	assert_false(other_tripped);

	vfe_sigbus_unguard((void *)(uintptr_t)a);
	vfe_sigbus_unguard((void *)(uintptr_t)b);
	munmap((void *)(uintptr_t)a, 8192);
	munmap((void *)(uintptr_t)b, 4096);
	close(fd);
}

static void
unguarded_sigbus_ends_the_process(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	pid = fork();
	if (pid == 0) {
		int fd = memfd_create("shrinks", MFD_CLOEXEC);
		volatile uint8_t *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		vfe_sigbus_install();
		p[0] = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
}

/* "abcde" in pieces of 2, 0 and 3 bytes. */
static void
pieces_of_memory_are_one(void **state)
{
	char ab[2] = "ab", cde[3] = "cde", buf[8];
	const struct iovec iov[] = {{ab, sizeof(ab)}, {NULL, 0}, {cde, sizeof(cde)}};

	(void)state;
	assert_int_equal(vfe_iov_read(iov, 3, 0, buf, 5), 5);
	assert_memory_equal(buf, "abcde", 5);
	assert_int_equal(vfe_iov_read(iov, 3, 1, buf, 2), 2); /* over the border */
	assert_memory_equal(buf, "bc", 2);
	assert_int_equal(vfe_iov_read(iov, 3, 2, buf, 1), 1); /* begins at it */
	assert_int_equal(buf[0], 'c');
	assert_int_equal(vfe_iov_read(iov, 3, 4, buf, sizeof(buf)), 1); /* there is no more */
	assert_int_equal(vfe_iov_read(iov, 3, 5, buf, 1), 0);
	assert_int_equal(vfe_iov_read(iov, 3, UINT64_MAX, buf, 1), 0);
	assert_int_equal(vfe_iov_read(iov, 0, 0, buf, 1), 0);

	assert_int_equal(vfe_iov_write(iov, 3, 1, "XYZ", 3), 3);
	assert_memory_equal(ab, "aX", 2);
	assert_memory_equal(cde, "YZe", 3);
	assert_int_equal(vfe_iov_write(iov, 3, 4, "1234", 4), 1);
	assert_memory_equal(cde, "YZ1", 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bdf_round_trip),
		cmocka_unit_test(bdf_rejects_garbage),
		cmocka_unit_test(strings_are_bounded),
		cmocka_unit_test(error_text_is_kept_and_bounded),
		cmocka_unit_test(fds_are_owned_once),
		cmocka_unit_test(ranges_do_not_wrap),
		cmocka_unit_test(deadlines_end),
		cmocka_unit_test(pieces_of_memory_are_one),
		cmocka_unit_test(shrunken_file_trips_its_range_only),
		cmocka_unit_test(unguarded_sigbus_ends_the_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
