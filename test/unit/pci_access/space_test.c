/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Address spaces of kernel functions over a fake /dev/vfio: containers, groups, mappings.
 */

#undef NDEBUG

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_vfio.h"
#include "vfe_pci.h"

#define PF  "0000:af:00.2"
#define VF0 "0000:af:04.0"
#define VF1 "0000:af:04.1"

static int
setup(void **state)
{
	(void)state;
	fv_start();
	memset(&fv_err, 0, sizeof(fv_err));
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fv_stop();
	return 0;
}

/* --- address spaces --- */

static void
functions_of_a_domain_share_a_container(void **state)
{
	enum { MANY = 70 };
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *devs[MANY];
	char bdf[16];
	int i;

	(void)state;
	for (i = 0; i < MANY; i++) {
		snprintf(bdf, sizeof(bdf), "0000:af:%02x.%d", 4 + i / 8, i % 8);
		fv_add(bdf, 100 + (unsigned int)i);
		devs[i] = fv_must_open(bdf, d);
		if (i == 0)
			assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	}
	assert_int_equal(fv.nr_containers, 1);
	assert_int_equal(fv.containers[0].nr_groups, MANY);
	assert_int_equal(fv_map(d, 0x200000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 2);
	for (i = 0; i < MANY; i++) {
		assert_int_equal(fv.containers[0].nr_maps, 2);
		vfe_pci_close(devs[i]);
	}
	assert_int_equal(fv.containers[0].nr_maps, 0);
	assert_int_equal(fv.containers[0].nr_groups, 0);
	vfe_pci_domain_destroy(d);
}

static void
iommu_that_cannot_share_gives_a_container_of_its_own(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *a, *b, *c;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 13);
	fv_add(PF, 14);
	a = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	fv_fail_ioctl(VFIO_GROUP_SET_CONTAINER, 0, 0, 1, EINVAL);
	b = fv_must_open(VF1, d);
	assert_int_equal(fv.nr_containers, 2);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	assert_int_equal(fv_map(d, 0x200000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 2);
	assert_int_equal(fv.containers[1].nr_maps, 2);
	/* limits that the shared container would get are not told: not joined either */
	fv_fail_ioctl(VFIO_IOMMU_GET_INFO, 0, 0, 1, EIO);
	c = fv_must_open(PF, d);
	assert_non_null(strstr(fv.log, "leave:14"));
	assert_int_equal(fv.nr_containers, 3);

	/* one refuses: nobody has it, nobody is lost */
	fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 1, 1, ENOSPC);
	assert_int_equal(fv_map(d, 0x300000, 0x1000), -ENOSPC);
	assert_non_null(
		strstr(fv_err.text, "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"));
	assert_int_equal(fv.containers[0].nr_maps, 2);
	assert_int_equal(fv.containers[1].nr_maps, 2);
	assert_int_equal(vfe_pci_error(a), 0);
	assert_int_equal(vfe_pci_error(b), 0);
	assert_int_equal(fv_map(d, 0x300000, 0x1000), 0);
	vfe_pci_close(a);
	vfe_pci_close(b);
	vfe_pci_close(c);
	vfe_pci_domain_destroy(d);
}

static void
refused_mapping_is_taken_back_once_from_each_container(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *a, *b, *c;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 13);
	fv_add(PF, 14);
	a = fv_must_open(VF0, d);
	b = fv_must_open(VF1, d);
	fv_fail_ioctl(VFIO_GROUP_SET_CONTAINER, 0, 0, 1, EINVAL);
	c = fv_must_open(PF, d);
	assert_int_equal(fv.nr_containers, 2);
	fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 1, 1, ENOMEM);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), -ENOMEM);
	assert_int_equal(fv.containers[0].nr_maps, 0);
	assert_int_equal(vfe_pci_error(a), 0);
	assert_int_equal(vfe_pci_error(b), 0);
	vfe_pci_close(a);
	vfe_pci_close(b);
	vfe_pci_close(c);
	vfe_pci_domain_destroy(d);
}

static void
group_is_one_address_space(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain(), *other = fv_new_domain();
	struct vfe_pci_dev *a, *b;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 12);
	a = fv_must_open(VF0, d);
	assert_int_equal(fv_open(VF1, other, NULL, &b), -EBUSY);
	assert_non_null(strstr(fv_err.text, "group 12 with " VF0));
	b = fv_must_open(VF1, d);
	assert_int_equal(fv.nr_containers, 1);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 1);
	vfe_pci_close(a);
	assert_null(strstr(fv.log, "close:group"));
	assert_int_equal(fv.containers[0].nr_maps, 1);
	vfe_pci_close(b);
	assert_non_null(strstr(fv.log, "close:group:12 close:container"));
	a = fv_must_open(VF0, other);
	vfe_pci_close(a);
	vfe_pci_domain_destroy(d);
	vfe_pci_domain_destroy(other);
}

static void
addresses_that_the_iommu_reserves_are_named(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.nr_ranges = 3;
	fv.ranges[0] = (struct vfio_iova_range){0, 0xfedfffff};
	fv.ranges[2] = (struct vfio_iova_range){0x8000000000, 0x8000000fff};
	fv.ranges[1] = (struct vfio_iova_range){0xfef00000, 0x7fffffffff};
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0xfedff000, 0x1000), 0);
	assert_int_equal(fv_map(d, 0xfef01000, 0x1000), 0);
	assert_int_equal(fv_map(d, 0x7ffffff000, 0x2000), 0); /* across two ranges */
	assert_int_equal(fv_map(d, 0xfee00000, 0x1000), -EINVAL);
	assert_non_null(strstr(fv_err.text, "reserves 0xfee00000 to 0xfee00fff"));
	assert_int_equal(fv_map(d, 0xfeeff000, 0x2000), -EINVAL);
	assert_non_null(strstr(fv_err.text, "reserves 0xfeeff000 to 0xfeefffff"));
	assert_int_equal(fv_map(d, 0x8000001000, 0x1000), -EINVAL);
	assert_int_equal(fv.containers[0].nr_maps, 3);
	vfe_pci_close(dev);

	/* a member that comes later cannot have what is reserved for it */
	fv.ranges[0].end = 0xfffff;
	assert_int_equal(fv_open(VF0, d, NULL, &dev), -EINVAL);
	assert_non_null(strstr(fv_err.text, "reserves"));
	fv.nr_ranges = 0;
	dev = fv_must_open(VF0, d);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
capabilities_of_the_iommu_that_make_no_sense(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.pgsizes = 0; /* then it is 4096 */
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x1000, 0x1000), 0);
	vfe_pci_close(dev);

	fv.nr_ranges = 1;
	fv.ranges[0] = (struct vfio_iova_range){0x100000, 0x1fffff};
	fv.other_cap = true; /* then anything goes */
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x2000, 0x1000), 0);
	vfe_pci_close(dev);
	fv.other_cap = false;
	fv.ranges_claimed = 2;
	assert_int_equal(fv_open(VF0, d, NULL, &dev), -EPROTO);
	assert_non_null(strstr(fv_err.text, "2 address ranges"));
	fv.ranges_claimed = UINT32_MAX;
	assert_int_equal(fv_open(VF0, d, NULL, &dev), -EPROTO);
	fv.info_size = 1 << 30;
	assert_int_equal(fv_open(VF0, d, NULL, &dev), -EPROTO);
	assert_non_null(strstr(fv_err.text, "1073741824 bytes"));
	vfe_pci_domain_destroy(d);
}

static void
mapping_respects_the_page_size(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.pgsizes = 0x10000;
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x10000, 0x10000), 0);
	assert_int_equal(fv_map(d, 0x21000, 0x1000), -EINVAL);
	assert_non_null(strstr(fv_err.text, "65536"));
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
refused_mappings_tell_why(void **state)
{
	static const struct {
		int err;
		const char *text;
	} refusals[] = {
		{ENOMEM, "LimitMEMLOCK"},
		{EFAULT, "shorter"},
		{EEXIST, "already"},
		{EINVAL, "Invalid"},
	};
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;
	size_t i;

	(void)state;
	fv_add(VF0, 12);
	dev = fv_must_open(VF0, d);
	for (i = 0; i < VFE_ARRAY_SIZE(refusals); i++) {
		fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 0, 1, refusals[i].err);
		assert_int_equal(fv_map(d, 0x100000, 0x1000), -refusals[i].err);
		assert_non_null(strstr(fv_err.text, refusals[i].text));
		assert_non_null(strstr(fv_err.text, "0x100000"));
	}
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_error(dev), 0);

	/* an address space that does not let go is nobody's any more */
	fv_fail_ioctl(VFIO_IOMMU_UNMAP_DMA, 0, 0, 1, EIO);
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &fv_err), 0);
	assert_int_equal(vfe_pci_error(dev), -EIO);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
kernel_that_unmaps_less_than_asked(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	fv.containers[0].nr_maps = 0;
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &fv_err), 0);
	assert_int_equal(vfe_pci_error(dev), -ENOENT);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
memory_that_is_only_an_fd_is_mapped_for_the_kernel(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dma dma = {.iova = 0x100000,
		.size = 0x2000,
		.fd_offset = 0x1000,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE};
	struct vfe_pci_dev *dev;
	const uint32_t magic = 0xfeedf00d;
	int fd = vfe_memfd_create("test", 0x4000), pipes[2];

	(void)state;
	fv_add(VF0, 12);
	dev = fv_must_open(VF0, d);
	assert_int_equal(pwrite(fd, &magic, 4, 0x1000), 4);
	dma.fd = fd;
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &fv_err), 0);
	assert_memory_equal((void *)(uintptr_t)fv.containers[0].maps[0].vaddr, &magic, 4);
	assert_int_equal(fv.containers[0].maps[0].flags, 3);
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x2000, &fv_err), 0);

	fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 0, 1, ENOMEM);
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &fv_err), -ENOMEM);
	assert_int_equal(pipe(pipes), 0);
	dma.fd = pipes[0];
	assert_true(vfe_pci_domain_map(d, &dma, NULL, &fv_err) < 0);
	close(pipes[0]);
	close(pipes[1]);
	dma.fd = fd;
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &fv_err), 0); /* left for close */
	fv_fail_ioctl(VFIO_IOMMU_UNMAP_DMA, 0, 0, 1, EIO); /* that does not even work */
	vfe_pci_close(dev);
	close(fd);
	vfe_pci_domain_destroy(d);
}

static void
function_without_a_domain_enters_one_later(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *a, *b;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 13);
	a = fv_must_open(VF0, d);
	b = fv_must_open(VF1, NULL);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_domain_attach(d, b, &fv_err), 0);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	assert_int_equal(vfe_pci_domain_attach(d, b, &fv_err), -EBUSY);
	vfe_pci_close(b);
	vfe_pci_close(a);
	vfe_pci_domain_destroy(d);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(functions_of_a_domain_share_a_container),
		T(iommu_that_cannot_share_gives_a_container_of_its_own),
		T(refused_mapping_is_taken_back_once_from_each_container),
		T(group_is_one_address_space),
		T(addresses_that_the_iommu_reserves_are_named),
		T(capabilities_of_the_iommu_that_make_no_sense),
		T(mapping_respects_the_page_size),
		T(refused_mappings_tell_why),
		T(kernel_that_unmaps_less_than_asked),
		T(memory_that_is_only_an_fd_is_mapped_for_the_kernel),
		T(function_without_a_domain_enters_one_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
