/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Functions in no-IOMMU mode over a fake /dev/vfio, and a fake kernel that pins huge pages, tells
 * where they are, and fails at each of that.
 */

#undef NDEBUG

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_vfio.h"
#include "vfe_pci.h"
#include "vfe_wire_pci.h"

#define VF0 "0000:af:04.0"
#define VF1 "0000:af:04.1"

enum {
	PAGE = 0x4000, /* a huge one of this kernel */
	MAX_PINS = 20000,
	IOVA = 0x10000000,
};

/* Page i that is pinned is here, unless the test says something else. */
#define PLACE(i) (UINT64_C(0x800000000) - (uint64_t)(i)*2 * PAGE)

static struct {
	uint64_t page; /* of hugetlbfs; 0 = memory is something else */
	struct {
		uint64_t va;
		uint64_t bus;
		uint64_t ring;
	} pins[MAX_PINS];
	unsigned int nr_pins;
	uint64_t places[8]; /* of the first pages, 0 = PLACE() */
	unsigned int rings;
	unsigned int next_pin;

	/* failures */
	int setup_errno;
	int pin_errno;
	bool pagemap_short;
	unsigned int absent;     /* page + 1 that its owner has taken away after it was pinned */
	bool no_frames;          /* no privilege */
	unsigned int fail_alloc; /* this allocation fails */
} kernel;

int __real_fstatfs64(int fd, struct statfs64 *fs);
ssize_t __real_pread64(int fd, void *buf, size_t len, off64_t off);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
int __wrap_fstatfs64(int fd, struct statfs64 *fs);
long __wrap_syscall(long number, ...);
ssize_t __wrap_pread64(int fd, void *buf, size_t len, off64_t off);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);

static uint64_t
ino_of(int fd)
{
	struct stat st;

	assert(fstat(fd, &st) == 0);
	return st.st_ino;
}

/* --- the kernel --- */

int
__wrap_fstatfs64(int fd, struct statfs64 *fs)
{
	int rc = __real_fstatfs64(fd, fs);

	if (rc == 0 && kernel.page != 0) {
		fs->f_type = HUGETLBFS_MAGIC;
		fs->f_bsize = (long)kernel.page;
	}
	return rc;
}

static long
ring_setup(unsigned int entries)
{
	assert(entries > 0);
	if (kernel.setup_errno != 0) {
		errno = kernel.setup_errno;
		return -1;
	}
	kernel.rings++;
	return memfd_create("ring", MFD_CLOEXEC);
}

static long
ring_pin(int fd, const struct iovec *bufs, unsigned int n)
{
	unsigned int i;

	assert(n > 0 && n <= 1 << 14); /* as Linux */
	if (kernel.pin_errno != 0) {
		errno = kernel.pin_errno;
		return -1;
	}
	for (i = 0; i < n; i++) {
		assert(kernel.nr_pins < MAX_PINS && bufs[i].iov_len == 4096);
		kernel.pins[kernel.nr_pins].va = (uintptr_t)bufs[i].iov_base;
		kernel.pins[kernel.nr_pins].ring = ino_of(fd);
		kernel.pins[kernel.nr_pins].bus =
			kernel.nr_pins < 8 && kernel.places[kernel.nr_pins] != 0
				? kernel.places[kernel.nr_pins]
				: PLACE(kernel.nr_pins);
		kernel.nr_pins++;
	}
	return 0;
}

static long
ring_unpin(int fd)
{
	const uint64_t ring = ino_of(fd);
	unsigned int i, n = 0;

	for (i = 0; i < kernel.nr_pins; i++) {
		if (kernel.pins[i].ring != ring)
			kernel.pins[n++] = kernel.pins[i];
	}
	if (n == kernel.nr_pins) {
		errno = ENXIO;
		return -1;
	}
	kernel.nr_pins = n;
	return 0;
}

long
__wrap_syscall(long number, ...)
{
	unsigned int op, n;
	va_list ap;
	void *arg;
	int first;

	va_start(ap, number);
	first = va_arg(ap, int);
	if (number == __NR_io_uring_setup) {
		va_end(ap);
		return ring_setup((unsigned int)first);
	}
	assert(number == __NR_io_uring_register);
	op = va_arg(ap, unsigned int);
	arg = va_arg(ap, void *);
	n = va_arg(ap, unsigned int);
	va_end(ap);
	if (op == IORING_REGISTER_BUFFERS)
		return ring_pin(first, arg, n);
	assert(op == IORING_UNREGISTER_BUFFERS && arg == NULL && n == 0);
	return ring_unpin(first);
}

/* Only the file of page maps is read like this by what has a page of memory there. */
ssize_t
__wrap_pread64(int fd, void *buf, size_t len, off64_t off)
{
	const uint64_t va = (uint64_t)off / 8 * 4096;
	uint64_t entry = UINT64_C(1) << 63;
	unsigned int n, i = kernel.next_pin;

	for (n = 0; n < kernel.nr_pins; n++, i++) {
		i = i < kernel.nr_pins ? i : 0;
		if (kernel.pins[i].va == va)
			break;
	}
	if (n == kernel.nr_pins)
		return __real_pread64(fd, buf, len, off);
	kernel.next_pin = i + 1;
	assert(len == 8);
	if (kernel.pagemap_short)
		return 0;
	if (kernel.absent == i + 1)
		entry = 0;
	else if (!kernel.no_frames)
		entry |= kernel.pins[i].bus / 4096;
	memcpy(buf, &entry, sizeof(entry));
	return sizeof(entry);
}

static bool
alloc_fails(void)
{
	return kernel.fail_alloc > 0 && --kernel.fail_alloc == 0;
}

void *
__wrap_calloc(size_t n, size_t size)
{
	return alloc_fails() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *old, size_t size)
{
	return alloc_fails() ? NULL : __real_realloc(old, size);
}

/* --- what tests do --- */

static int
setup(void **state)
{
	(void)state;
	fv_start();
	fv_file("proc/self/pagemap", "");
	memset(&fv_err, 0, sizeof(fv_err));
	memset(&kernel, 0, sizeof(kernel));
	kernel.page = PAGE;
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	assert_int_equal(kernel.nr_pins, 0);
	fv_stop();
	return 0;
}

static int
open_allowed(const char *bdf, struct vfe_pci_domain *domain, struct vfe_pci_dev **ret)
{
	struct vfe_pci_open_cfg cfg = {
		.timeout_ms = FV_SOON_MS, .domain = domain, .allow_no_iommu = true};

	assert_int_equal(vfe_bdf_parse(bdf, &cfg.bdf), 0);
	return vfe_pci_open(&cfg, ret, &fv_err);
}

/* A function without an IOMMU, in a domain of its own. */
static struct vfe_pci_dev *
open_physical(struct vfe_pci_domain **ret)
{
	struct vfe_pci_dev *dev = NULL;

	fv_add(VF0, 12);
	fv_set_noiommu(12);
	*ret = fv_new_domain();
	if (open_allowed(VF0, *ret, &dev) < 0)
		fail_msg("%s", fv_err.text);
	assert_true(vfe_pci_is_physical(dev));
	return dev;
}

static int
map_at(struct vfe_pci_domain *d, uint64_t iova, uint64_t size, uint64_t fd_offset)
{
	struct vfe_pci_dma dma = {.iova = iova,
		.size = size,
		.fd_offset = fd_offset,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE};
	int rc, fd = vfe_memfd_create("test", fd_offset + size);

	dma.fd = fd;
	rc = vfe_pci_domain_map(d, &dma, NULL, &fv_err);
	vfe_close(&fd);
	return rc;
}

static void
check_addr(struct vfe_pci_dev *dev, uint64_t iova, uint64_t len, uint64_t bus, uint64_t good)
{
	uint64_t got = 1, n = 1;

	assert_int_equal(vfe_pci_dma_addr(dev, iova, len, &got, &n), 0);
	assert_int_equal(got, bus);
	assert_int_equal(n, good);
}

static void
check_none(struct vfe_pci_dev *dev, uint64_t iova, uint64_t len)
{
	uint64_t got, n;

	assert_int_equal(vfe_pci_dma_addr(dev, iova, len, &got, &n), -EFAULT);
}

/* --- opening --- */

static void
function_without_iommu_is_refused_unless_allowed(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	dev = open_physical(&d);
	vfe_pci_close(dev);
	fd = fv_next_fd();
	assert_string_equal(fv.log, "group:12 container join:12 noiommu open:" VF0 " close:" VF0
				    " close:group:12 close:container ");
	assert_int_equal(fv_open(VF0, d, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(fv_err.text, "is in no-IOMMU mode"));
	vfe_pci_domain_destroy(d);
	assert_int_equal(fv_next_fd(), fd);
}

static void
function_behind_an_iommu_may_be_allowed_too_and_stays_as_it_is(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	assert_int_equal(open_allowed(VF0, d, &dev), 0);
	assert_false(vfe_pci_is_physical(dev));
	assert_int_equal(map_at(d, IOVA, PAGE, 0), 0);
	assert_int_equal(fv.containers[0].nr_maps, 1);
	assert_int_equal(kernel.rings, 0);
	check_addr(dev, IOVA + 5, 3 * PAGE, IOVA + 5, 3 * PAGE);
	assert_int_equal(vfe_pci_dma_check(dev, 0, UINT64_MAX, &fv_err), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
kernel_that_has_the_mode_no_more(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fv_set_noiommu(12);
	fd = fv_next_fd();
	fv.noiommu = false;
	assert_int_equal(open_allowed(VF0, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(fv_err.text, "enable_unsafe_noiommu_mode"));
	fv.noiommu = true;
	fv_fail_ioctl(VFIO_SET_IOMMU, UINT32_MAX, 0, 1, EPERM);
	assert_int_equal(open_allowed(VF0, NULL, &dev), -EPERM);
	assert_int_equal(fv_next_fd(), fd);
	assert_int_equal(open_allowed(VF0, NULL, &dev), 0);
	vfe_pci_close(dev);
}

static void
functions_of_one_domain_have_a_container_each(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev, *other, *behind;

	(void)state;
	dev = open_physical(&d);
	fv_add(VF1, 13);
	fv_set_noiommu(13);
	fv_add("0000:af:04.2", 14);
	assert_int_equal(open_allowed(VF1, d, &other), 0);
	behind = fv_must_open("0000:af:04.2", d);
	assert_int_equal(fv.nr_containers, 3);
	assert_int_equal(map_at(d, IOVA, PAGE, 0), 0);
	assert_int_equal(fv.containers[2].nr_maps, 1);
	assert_int_equal(kernel.nr_pins, 2);
	check_addr(dev, IOVA, 1, PLACE(0), 1);
	check_addr(other, IOVA, 1, PLACE(1), 1);
	check_addr(behind, IOVA, 1, IOVA, 1);
	vfe_pci_close(other);
	assert_int_equal(kernel.nr_pins, 1);
	vfe_pci_close(behind);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

/* --- addresses --- */

static void
addresses_are_those_of_the_pages(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d);

	(void)state;
	kernel.places[1] = PLACE(0) + PAGE; /* in one piece with the first */
	kernel.places[2] = PLACE(0) - PAGE; /* just before it is not */
	assert_int_equal(map_at(d, IOVA, 4 * PAGE, 0), 0);
	assert_int_equal(kernel.nr_pins, 4);
	check_addr(dev, IOVA, 1, PLACE(0), 1);
	check_addr(dev, IOVA + PAGE - 1, 1, PLACE(0) + PAGE - 1, 1);
	check_addr(dev, IOVA + PAGE - 1, 2, PLACE(0) + PAGE - 1, 2);
	check_addr(dev, IOVA, 4 * PAGE, PLACE(0), 2 * PAGE);
	check_addr(dev, IOVA + 100, UINT64_MAX, PLACE(0) + 100, 2 * PAGE - 100);
	check_addr(dev, IOVA + 2 * PAGE, 2 * PAGE, PLACE(0) - PAGE, PAGE);
	check_addr(dev, IOVA + 4 * PAGE - 1, 2, PLACE(3) + PAGE - 1, 1);
	check_none(dev, IOVA + 4 * PAGE, 1);
	check_none(dev, IOVA - 1, 2);
	check_none(dev, IOVA, 0);
	check_none(dev, 0, 1);
	check_none(dev, UINT64_MAX, 1);
	assert_int_equal(vfe_pci_dma_check(dev, IOVA, 4 * PAGE, &fv_err), 0);
	assert_int_equal(vfe_pci_dma_check(dev, IOVA, 4 * PAGE + 1, &fv_err), -EFAULT);
	assert_string_equal(fv_err.text, "nothing is mapped at 0x10010000");
	assert_int_equal(vfe_pci_dma_check(dev, UINT64_MAX, 0, &fv_err), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
mapping_may_begin_and_end_inside_a_page(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d);

	(void)state;
	/* the second half of a page, one page, and the first quarter of a third */
	assert_int_equal(map_at(d, IOVA, PAGE / 2 + PAGE + PAGE / 4, PAGE + PAGE / 2), 0);
	assert_int_equal(kernel.nr_pins, 3);
	check_addr(dev, IOVA, PAGE, PLACE(0) + PAGE / 2, PAGE / 2);
	check_addr(dev, IOVA + PAGE / 2, 2 * PAGE, PLACE(1), PAGE);
	check_addr(dev, IOVA + PAGE / 2 + PAGE, PAGE, PLACE(2), PAGE / 4);
	check_none(dev, IOVA + PAGE / 2 + PAGE + PAGE / 4, 1);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
mappings_come_and_go_in_any_order(void **state)
{
	static const uint64_t order[] = {5, 1, 9, 0, 7};
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d);
	unsigned int i;

	(void)state;
	for (i = 0; i < 5; i++)
		assert_int_equal(map_at(d, IOVA + order[i] * PAGE, PAGE, 0), 0);
	for (i = 0; i < 5; i++)
		check_addr(dev, IOVA + order[i] * PAGE + 1, PAGE, PLACE(i) + 1, PAGE - 1);
	check_none(dev, IOVA + 2 * PAGE, 1);
	check_none(dev, IOVA + 6 * PAGE, 1);
	check_none(dev, IOVA + 8 * PAGE, 1);
	assert_int_equal(vfe_pci_domain_unmap(d, IOVA + PAGE, PAGE, &fv_err), 0);
	assert_int_equal(kernel.nr_pins, 4);
	check_none(dev, IOVA + PAGE, 1);
	check_addr(dev, IOVA, 1, PLACE(3), 1);
	check_addr(dev, IOVA + 9 * PAGE, 1, PLACE(2), 1);
	vfe_pci_close(dev);
	assert_int_equal(kernel.nr_pins, 0);
	vfe_pci_domain_destroy(d);
}

static void
mapping_of_more_pages_than_one_ring_pins(void **state)
{
	const uint64_t pages = (1 << 14) + 1;
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d);

	(void)state;
	kernel.page = 4096;
	assert_int_equal(map_at(d, IOVA, pages * 4096, 0), 0);
	assert_int_equal(kernel.rings, 2);
	assert_int_equal(kernel.nr_pins, pages);
	check_addr(dev, IOVA + (pages - 1) * 4096, 8192, PLACE(pages - 1), 4096);
	assert_int_equal(vfe_pci_domain_unmap(d, IOVA, pages * 4096, &fv_err), 0);
	assert_int_equal(kernel.nr_pins, 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

/* --- memory that is out of reach --- */

static void
check_reason(const char *text, const char *more)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev;
	int fd = fv_next_fd();

	assert_int_equal(vfe_pci_domain_create(&d, &fv_err), 0);
	assert_int_equal(open_allowed(VF0, d, &dev), 0);
	assert_int_equal(map_at(d, IOVA, 2 * PAGE, 0), 0);
	check_none(dev, IOVA, 1);
	assert_int_equal(vfe_pci_dma_check(dev, IOVA + PAGE, 1, &fv_err), -EFAULT);
	if (strstr(fv_err.text, text) == NULL || strstr(fv_err.text, more) == NULL)
		fail_msg("%s", fv_err.text);
	assert_int_equal(kernel.nr_pins, 0);
	assert_int_equal(vfe_pci_error(dev), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
	assert_int_equal(fv_next_fd(), fd);
}

static void
memory_out_of_reach_says_why_and_leaves_nothing_pinned(void **state)
{
	(void)state;
	fv_add(VF0, 12);
	fv_set_noiommu(12);
	kernel.page = 0;
	check_reason("0x10000000 is out of reach", "not of huge pages");
	kernel.page = PAGE;
	kernel.setup_errno = ENOSYS;
	check_reason("io_uring", "kernel.io_uring_disabled");
	kernel.setup_errno = EMFILE;
	check_reason("io_uring", strerror(EMFILE));
	kernel.setup_errno = 0;
	kernel.pin_errno = ENOMEM;
	check_reason("pin its huge pages", "LimitMEMLOCK");
	kernel.pin_errno = EFAULT;
	check_reason("pin its huge pages", "too few huge pages");
	kernel.pin_errno = 0;
	kernel.absent = 2;
	check_reason("its owner has taken a page of it away", "");
	kernel.absent = 0;
	kernel.no_frames = true;
	check_reason("physical addresses", "CAP_SYS_ADMIN");
	kernel.no_frames = false;
	kernel.pagemap_short = true;
	check_reason("does not tell where its pages are", "");
	kernel.pagemap_short = false;
	fv_remove("proc/self/pagemap");
	check_reason("pagemap", strerror(ENOENT));
}

static void
memory_out_of_reach_stays_that_of_the_others(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d), *other;
	unsigned int lost = 1;
	struct vfe_pci_dma dma = {.iova = IOVA, .size = PAGE, .prot = VFE_PCI_DMA_READ};

	(void)state;
	fv_add(VF1, 13);
	other = fv_must_open(VF1, d);
	kernel.page = 0;
	dma.fd = vfe_memfd_create("test", PAGE);
	assert_int_equal(vfe_pci_domain_map(d, &dma, &lost, &fv_err), 0);
	vfe_close(&dma.fd);
	assert_int_equal(lost, 0);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	check_none(dev, IOVA, 1);
	check_addr(other, IOVA, 1, IOVA, 1);
	assert_int_equal(vfe_pci_domain_unmap(d, IOVA, PAGE, &fv_err), 0);
	assert_int_equal(fv.containers[1].nr_maps, 0);
	vfe_pci_close(dev);
	vfe_pci_close(other);
	vfe_pci_domain_destroy(d);
}

/* --- the end --- */

static void
function_stops_dma_before_its_memory_is_given_back(void **state)
{
	struct fv_function *f;
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev = open_physical(&d);
	const off_t at = ((off_t)VFIO_PCI_CONFIG_REGION_INDEX << FV_REGION_SHIFT) + VFE_PCI_COMMAND;
	uint16_t cmd;

	(void)state;
	f = &fv.functions[0];
	assert_int_equal(map_at(d, IOVA, PAGE, 0), 0);
	assert_int_equal(vfe_pci_set_master(dev, true, &fv_err), 0);
	vfe_pci_domain_detach(d, dev);
	assert_int_equal(kernel.nr_pins, 0);
	assert_int_equal(__real_pread64(f->mem, &cmd, 2, at), 2);
	assert_int_equal(cmd & VFE_PCI_COMMAND_MASTER, 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
pins_are_closed_after_the_function_when_the_process_dies(void **state)
{
	struct vfe_pci_domain *d;
	struct vfe_pci_dev *dev;
	int i, fd, holes[3]; /* for two fds of the memory, and for one that pins it */

	(void)state;
	for (i = 0; i < 3; i++)
		holes[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	dev = open_physical(&d);
	fd = fv_next_fd();
	vfe_close_all(holes, 3);
	assert_true(fv_next_fd() < fd);
	assert_int_equal(map_at(d, IOVA, PAGE, 0), 0);
	assert_int_equal(kernel.pins[0].ring, ino_of(fd));
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
each_allocation_may_fail(void **state)
{
	struct vfe_pci_domain *d = NULL;
	struct vfe_pci_dev *dev = NULL;
	bool done = false;
	unsigned int n;
	int fd, rc;

	(void)state;
	fv_add(VF0, 12);
	fv_set_noiommu(12);
	fd = fv_next_fd();
	for (n = 1; !done; n++) {
		assert_true(n < 100);
		d = fv_new_domain();
		kernel.fail_alloc = n;
		rc = open_allowed(VF0, d, &dev);
		if (rc == 0) {
			if (map_at(d, IOVA, PAGE, 0) == 0 &&
				vfe_pci_dma_check(dev, IOVA, PAGE, &fv_err) == 0)
				done = kernel.fail_alloc > 0;
			else
				assert_non_null(strstr(fv_err.text, "memory"));
			kernel.fail_alloc = 0;
			vfe_pci_close(dev);
		} else {
			assert_int_equal(rc, -ENOMEM);
		}
		kernel.fail_alloc = 0;
		vfe_pci_domain_destroy(d);
		assert_int_equal(kernel.nr_pins, 0);
		assert_int_equal(fv_next_fd(), fd);
	}
	assert_true(n > 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(function_without_iommu_is_refused_unless_allowed),
		TEST(function_behind_an_iommu_may_be_allowed_too_and_stays_as_it_is),
		TEST(kernel_that_has_the_mode_no_more),
		TEST(functions_of_one_domain_have_a_container_each),
		TEST(addresses_are_those_of_the_pages),
		TEST(mapping_may_begin_and_end_inside_a_page),
		TEST(mappings_come_and_go_in_any_order),
		TEST(mapping_of_more_pages_than_one_ring_pins),
		TEST(memory_out_of_reach_says_why_and_leaves_nothing_pinned),
		TEST(memory_out_of_reach_stays_that_of_the_others),
		TEST(function_stops_dma_before_its_memory_is_given_back),
		TEST(pins_are_closed_after_the_function_when_the_process_dies),
		TEST(each_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
