/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The kernel transport over a fake /dev/vfio when memory, files or table entries run out.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_vfio.h"
#include "vfe_pci.h"
#include "vfe_sigbus.h"

#define VF0 "0000:af:04.0"

enum {
	PAGE = 4096,
	NEVER = 1000,
	MANY_MAPS = 4096, /* of a domain */
	MANY_FILES = MANY_MAPS + 64,
	FEW_FILES = 64,
};

/* The allocation that fails, counted from the present one; NEVER = none. */
static unsigned int fail_at = NEVER;
static bool no_eventfd;

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
int __real_eventfd(unsigned int count, int flags);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __wrap_eventfd(unsigned int count, int flags);

static bool
fails_now(void)
{
	if (fail_at == NEVER)
		return false;
	if (fail_at > 0) {
		fail_at--;
		return false;
	}
	fail_at = NEVER;
	return true;
}

void *
__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
	return fails_now() ? NULL : __real_realloc(p, size);
}

int
__wrap_eventfd(unsigned int count, int flags)
{
	if (!no_eventfd)
		return __real_eventfd(count, flags);
	errno = EMFILE;
	return -1;
}

static int
setup(void **state)
{
	(void)state;
	fv_start();
	fv.ranges[0] = (struct vfio_iova_range){0, UINT64_MAX};
	fv.nr_ranges = 1;
	fv_add(VF0, 12);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fail_at = NEVER;
	no_eventfd = false;
	fv_stop();
	return 0;
}

/* Memory that the transport maps itself. */
static int
map_file(struct vfe_pci_domain *d, uint64_t iova, int fd)
{
	const struct vfe_pci_dma dma = {
		.iova = iova, .size = PAGE, .fd = fd, .prot = VFE_PCI_DMA_READ};

	return vfe_pci_domain_map(d, &dma, NULL, &fv_err);
}

/* What a function does from its opening to its end, or up to the first error. */
static int
life(int irq, int file, const struct vfe_pci_vfio_fds *fds)
{
	struct vfe_pci_open_cfg cfg = {.timeout_ms = FV_SOON_MS, .vfio_fds = fds};
	struct vfe_pci_dev *dev = NULL;
	struct vfe_pci_domain *d = NULL;
	int rc;

	assert_int_equal(vfe_bdf_parse(VF0, &cfg.bdf), 0);
	rc = vfe_pci_domain_create(&d, &fv_err);
	cfg.domain = d;
	if (rc == 0)
		rc = vfe_pci_open(&cfg, &dev, &fv_err);
	if (rc == 0)
		rc = vfe_pci_irq_set(dev, 0, 1, &irq, &fv_err);
	if (rc == 0)
		rc = vfe_pci_irq_set(dev, 1, 1, &irq, &fv_err);
	if (rc == 0)
		rc = map_file(d, 0x100000, file);
	if (rc == 0)
		rc = map_file(d, 0x200000, file);
	if (rc == 0)
		rc = vfe_pci_domain_unmap(d, 0x100000, PAGE, &fv_err);
	if (dev != NULL)
		vfe_pci_close(dev);
	if (d != NULL)
		vfe_pci_domain_destroy(d);
	return rc;
}

/*
 * Each allocation of a life fails once; the life after the last one is a good one. Returns how
 * many lives that has ended: some can do without what they asked for.
 */
static unsigned int
lives_without_memory(const struct vfe_pci_vfio_fds *fds)
{
	int irq = eventfd(0, 0), file = vfe_memfd_create("test", PAGE);
	int fd = fv_next_fd(), rc;
	unsigned int n, ended = 0;

	for (n = 0; n < NEVER; n++) {
		fail_at = n;
		rc = life(irq, file, fds);
		assert_int_equal(fv_next_fd(), fd);
		if (fail_at != NEVER)
			break; /* it did not come so far */
		assert_true(rc == 0 || rc == -ENOMEM);
		assert_true(rc == 0 || strstr(fv_err.text, "memory") != NULL);
		ended += rc < 0;
	}
	assert_int_equal(rc, 0);
	fail_at = NEVER;
	close(irq);
	close(file);
	return ended;
}

static void
memory_that_runs_out_leaves_nothing(void **state)
{
	(void)state;
	assert_in_range(lives_without_memory(NULL), 10, NEVER - 1);
}

static void
memory_that_runs_out_leaves_adopted_fds_alone(void **state)
{
	struct vfe_pci_vfio_fds fds;
	struct vfe_pci_dev *first;
	int before = fv_next_fd();

	(void)state;
	first = fv_must_open(VF0, NULL);
	fds = (struct vfe_pci_vfio_fds){
		.group = before + 1, .container = before + 2, .device = before + 3};
	assert_in_range(lives_without_memory(&fds), 8, NEVER - 1);
	assert_int_equal(fv.containers[0].nr_groups, 1);
	vfe_pci_close(first);
}

static void
adopted_group_must_have_a_container_that_answers(void **state)
{
	struct vfe_pci_vfio_fds fds;
	struct vfe_pci_open_cfg cfg = {.vfio_fds = &fds};
	struct vfe_pci_dev *first, *dev;
	struct fv_container *container;
	int before = fv_next_fd(), fd;

	(void)state;
	assert_int_equal(vfe_bdf_parse(VF0, &cfg.bdf), 0);
	first = fv_must_open(VF0, NULL);
	fds = (struct vfe_pci_vfio_fds){
		.group = before + 1, .container = before + 2, .device = before + 3};
	fd = fv_next_fd();
	cfg.domain = fv_new_domain();
	container = fv.groups[0].container;
	fv.groups[0].container = NULL;
	assert_int_equal(vfe_pci_open(&cfg, &dev, &fv_err), -EINVAL);
	assert_non_null(strstr(fv_err.text, "is in no container"));
	fv.groups[0].container = container;
	fv_fail_ioctl(VFIO_IOMMU_GET_INFO, 0, 0, 1, EIO);
	assert_int_equal(vfe_pci_open(&cfg, &dev, &fv_err), -EIO);
	assert_int_equal(fv_next_fd(), fd);
	assert_int_equal(vfe_pci_open(&cfg, &dev, &fv_err), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(cfg.domain);
	vfe_pci_close(first);
}

static void
no_eventfd_for_a_function(void **state)
{
	struct vfe_pci_dev *dev;
	int fd = fv_next_fd();

	(void)state;
	no_eventfd = true;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EMFILE);
	assert_non_null(strstr(fv_err.text, "eventfd"));
	assert_int_equal(fv_next_fd(), fd);
}

static rlim_t
files_limit(rlim_t n)
{
	struct rlimit limit;
	rlim_t old;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	old = limit.rlim_cur;
	limit.rlim_cur = n;
	if (n > limit.rlim_max)
		limit.rlim_max = n;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	return old;
}

static void
mapping_that_is_one_too_many(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	int file = vfe_memfd_create("test", PAGE);
	rlim_t old = files_limit(FEW_FILES);
	uint64_t iova = 0;
	unsigned int n = 0;
	int rc;

	(void)state;
	while ((rc = map_file(d, iova, file)) == 0) {
		iova += PAGE;
		n++;
	}
	assert_int_equal(rc, -EMFILE);
	assert_non_null(strstr(fv_err.text, "cannot keep the fd"));
	assert_in_range(n, 1, FEW_FILES);
	files_limit(MANY_FILES);
	while ((rc = map_file(d, iova, file)) == 0) {
		iova += PAGE;
		n++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(n, MANY_MAPS);
	/* one that goes makes room */
	assert_int_equal(vfe_pci_domain_unmap(d, 0, PAGE, &fv_err), 0);
	assert_int_equal(map_file(d, iova, file), 0);
	vfe_pci_domain_destroy(d);
	close(file);
	files_limit(old);
}

/* A mapping that nothing would watch over is not used: the registers are still there. */
static void
registers_without_a_guard_are_reached_through_the_fd(void **state)
{
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	atomic_bool tripped = false;
	uintptr_t at = PAGE;
	uint32_t v = 0x12345678, back = 0;

	(void)state;
	while (vfe_sigbus_guard((void *)at, PAGE, &tripped) == 0) /* NOLINT */
		at += PAGE;
	assert_int_equal(vfe_pci_bar_write(dev, 2, 0, &v, 4, &fv_err), 0);
	assert_int_equal(vfe_pci_bar_read(dev, 2, 0, &back, 4, &fv_err), 0);
	assert_int_equal(back, v);
	while ((at -= PAGE) != 0)
		vfe_sigbus_unguard((void *)at); /* NOLINT */
	vfe_pci_close(dev);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(memory_that_runs_out_leaves_nothing),
		T(memory_that_runs_out_leaves_adopted_fds_alone),
		T(adopted_group_must_have_a_container_that_answers),
		T(no_eventfd_for_a_function),
		T(mapping_that_is_one_too_many),
		T(registers_without_a_guard_are_reached_through_the_fd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
