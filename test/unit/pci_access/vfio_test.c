/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The kernel transport of the PCI seam over a fake /dev/vfio: each step failing, and what is left.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_vfio.h"
#include "vfe_pci.h"
#include "vfe_sigbus.h"
#include "vfe_wire_pci.h"

#define PF    "0000:af:00.2"
#define VF0   "0000:af:04.0"
#define VF1   "0000:af:04.1"
#define TOKEN "14d63f20-8445-11ea-8900-1f9ce7d5650d"

enum { CONFIG_AT = VFIO_PCI_CONFIG_REGION_INDEX << FV_REGION_SHIFT };

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

static uint16_t
command_of(const struct fv_function *f)
{
	uint16_t cmd;

	assert_int_equal(pread(f->mem, &cmd, 2, CONFIG_AT + VFE_PCI_COMMAND), 2);
	return le16toh(cmd);
}

/* --- opening --- */

static void
open_and_close_go_step_by_step(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;
	int fd = fv_next_fd();

	(void)state;
	dev = fv_must_open(VF0, d);
	assert_string_equal(vfe_pci_name(dev), VF0);
	assert_string_equal(vfe_pci_transport(dev), "vfio");
	assert_int_equal(vfe_pci_config_size(dev), VFE_PCIE_CFG_SIZE);
	assert_int_equal(vfe_pci_bar_size(dev, 0), FV_BAR0_SIZE);
	assert_int_equal(vfe_pci_bar_size(dev, 1), 0);
	assert_int_equal(vfe_pci_bar_size(dev, 4), FV_BAR4_SIZE);
	assert_int_equal(vfe_pci_irq_count(dev), FV_IRQS);
	assert_int_equal(fv_map(d, 0x100000, 0x2000), 0);
	vfe_pci_close(dev);
	assert_string_equal(fv.log, "group:12 container join:12 iommu open:" VF0 " map:100000 "
				    "unmap:100000 close:" VF0 " close:group:12 close:container ");
	assert_int_equal(f->opens, 1);
	assert_int_equal(f->resets, 0); /* the kernel has reset it */
	vfe_pci_domain_destroy(d);
	assert_int_equal(fv_next_fd(), fd);
}

static void
driver_that_is_not_vfio_is_told_with_the_remedy(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_set_driver(VF0, "virtio-pci");
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EBUSY);
	assert_string_equal(fv_err.text,
		"is bound to virtio-pci; bind it with: ./scripts/bind --bind vfio-pci " VF0);
	fv_set_driver(VF0, NULL);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENODEV);
	assert_non_null(strstr(fv_err.text, "no driver"));
	assert_int_equal(fv_open(VF1, NULL, NULL, &dev), -ENODEV);
	assert_string_equal(fv.log, "");
	fv_set_driver(VF0, "mlx5_vfio_pci");
	vfe_pci_close(fv_must_open(VF0, NULL));
}

static void
machine_without_iommu_is_refused(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_file("sys/kernel/iommu_groups/12/name", "vfio-noiommu\n");
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(fv_err.text, "no-IOMMU"));
	fv_file("sys/kernel/iommu_groups/12/name", "other\n");
	vfe_pci_close(fv_must_open(VF0, NULL));
	fv_remove("sys/bus/pci/devices/" VF0 "/iommu_group");
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENODEV);
	assert_non_null(strstr(fv_err.text, "intel_iommu=on"));
	fv_link("sys/bus/pci/devices/" VF0 "/iommu_group", "../strange");
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
}

static void
group_that_is_not_viable_names_the_others(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 12);
	fv_add(PF, 12);
	fd = fv_next_fd();
	fv_set_driver(VF1, "virtio-pci");
	fv_set_driver(PF, NULL);
	fv.not_viable = true;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPERM);
	assert_non_null(strstr(fv_err.text, "group 12"));
	assert_non_null(strstr(fv_err.text, VF1 " (virtio-pci)"));
	assert_non_null(strstr(fv_err.text, PF " (no driver)"));
	assert_null(strstr(fv_err.text, VF0));
	assert_int_equal(fv_next_fd(), fd);
}

static void
busy_group_is_tried_again_until_the_deadline(void **state)
{
	struct vfe_pci_dev *dev;
	char path[128];
	uint64_t begin;

	(void)state;
	fv_add(VF0, 12);
	fv_fail_open("12", 1, EBUSY);
	vfe_pci_close(fv_must_open(VF0, NULL));

	begin = vfe_clock_ns();
	fv_fail_open("12", 1000, EBUSY);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EBUSY);
	assert_non_null(strstr(fv_err.text, "/dev/vfio/12"));
	assert_true(vfe_clock_ns() - begin >= FV_SOON_MS * 1000000ULL);
	assert_true(1000 - fv.fail_times <= 4); /* it did not spin */
	assert_non_null(strstr(fv_err.text, "a process"));

	fv_file("proc/7/comm", "other\n");
	fv_link("proc/7/fd/3", "/dev/null");
	fv_file("proc/cmdline", "");
	fv_file("proc/41/comm", "qemu-system-x86\n");
	fv_link("proc/41/fd/1", "pipe:[1]");
	snprintf(path, sizeof(path), "%s/dev/vfio/12", fv.root);
	fv_link("proc/41/fd/2", path);
	fv_link("proc/42/fd/2", path); /* it ends just now */
	fv_fail_open("12", 1000, EBUSY);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EBUSY);
	assert_non_null(strstr(fv_err.text, "busy: qemu-system-x86 (pid 41) has "));

	fv_fail_open("12", 1, EACCES);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EACCES);
	assert_int_equal(fv.fail_times, 0);
}

static void
missing_kernel_modules_are_named(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fd = fv_next_fd();
	fv.no_type1 = true;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(fv_err.text, "modprobe vfio_iommu_type1"));
	fv.no_type1 = false;
	fv.api_version = 1;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENOTSUP);
	fv.api_version = VFIO_API_VERSION;
	fv_remove("dev/vfio/vfio");
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -ENOENT);
	assert_non_null(strstr(fv_err.text, "modprobe vfio-pci"));
	assert_int_equal(fv_next_fd(), fd);
}

static void
each_step_that_fails_leaves_nothing(void **state)
{
	static const struct {
		unsigned long request;
		uint32_t index;
		const char *text;
	} steps[] = {
		{VFIO_GROUP_GET_STATUS, 0, "group 12"},
		{VFIO_GROUP_SET_CONTAINER, 0, "group 12"},
		{VFIO_SET_IOMMU, 0, "address space"},
		{VFIO_IOMMU_GET_INFO, 0, "limits"},
		{VFIO_GROUP_GET_DEVICE_FD, 0, "open"},
		{VFIO_DEVICE_GET_INFO, 0, "device"},
		{VFIO_DEVICE_GET_REGION_INFO, 0, "region 0"},
		{VFIO_DEVICE_GET_REGION_INFO, VFIO_PCI_CONFIG_REGION_INDEX, "region 7"},
		{VFIO_DEVICE_GET_IRQ_INFO, VFIO_PCI_MSIX_IRQ_INDEX, "interrupts"},
		{VFIO_DEVICE_SET_IRQS, VFIO_PCI_REQ_IRQ_INDEX, "vectors"},
	};
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev;
	int fd;
	size_t i;

	(void)state;
	fv_add(VF0, 12);
	fd = fv_next_fd();
	for (i = 0; i < VFE_ARRAY_SIZE(steps); i++) {
		fv_fail_ioctl(steps[i].request, steps[i].index, 0, 1, EPERM);
		assert_int_equal(fv_open(VF0, d, NULL, &dev), -EPERM);
		if (fv.fail_times != 0 || strstr(fv_err.text, steps[i].text) == NULL)
			fail_msg("step %zu: %s", i, fv_err.text);
		assert_int_equal(fv_next_fd(), fd);
	}
	/* reserving interrupts and errors is not every function's business */
	fv_fail_ioctl(VFIO_DEVICE_GET_IRQ_INFO, VFIO_PCI_ERR_IRQ_INDEX, 0, 1, EINVAL);
	vfe_pci_close(fv_must_open(VF0, d));
	assert_int_equal(fv_next_fd(), fd);
	vfe_pci_domain_destroy(d);
}

static void
layout_that_makes_no_sense_is_refused(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fd = fv_next_fd();
	fv.device_flags = VFIO_DEVICE_FLAGS_PLATFORM;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	fv.device_flags = VFIO_DEVICE_FLAGS_PCI;
	fv.config_size = 512;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	assert_non_null(strstr(fv_err.text, "512"));
	fv.config_size = VFE_PCIE_CFG_SIZE;
	fv.irq_count = VFE_PCI_MSIX_CTRL_SIZE + 2;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	fv.irq_count = FV_IRQS;
	fv.sparse_areas = 2; /* more than it tells */
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	assert_non_null(strstr(fv_err.text, "region 0"));
	fv.sparse_areas = UINT32_MAX;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	assert_int_equal(fv_next_fd(), fd);
}

static void
token_is_given_where_the_kernel_wants_one(void **state)
{
	struct vfe_pci_dev *dev = NULL;

	(void)state;
	fv_add(VF0, 12);
	fv.token = TOKEN;
	assert_int_equal(fv_open(VF0, NULL, TOKEN, &dev), 0);
	vfe_pci_close(dev);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EACCES);
	assert_non_null(strstr(fv_err.text, "--vfio-vf-token"));
	assert_non_null(strstr(fv_err.text, "missing"));
	assert_int_equal(fv_open(VF0, NULL, "14d63f20-8445-11ea-8900-1f9ce7d56500", &dev), -EACCES);
	assert_non_null(strstr(fv_err.text, "another"));
	fv.token = NULL;
	assert_int_equal(fv_open(VF0, NULL, TOKEN, &dev), 0);
	vfe_pci_close(dev);
	assert_int_equal(fv_open(VF0, NULL, TOKEN TOKEN, &dev), -EINVAL);
}

static void
function_that_the_kernel_works_on_is_tried_again(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_fail_ioctl(VFIO_GROUP_GET_DEVICE_FD, 0, 0, 1, EAGAIN);
	vfe_pci_close(fv_must_open(VF0, NULL));
	fv_fail_ioctl(VFIO_GROUP_GET_DEVICE_FD, 0, 0, 1000, EAGAIN);
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EBUSY);
	assert_true(1000 - fv.fail_times <= 4);
}

static void
function_can_be_opened_anew_once_it_is_detached(void **state)
{
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *old, *dev;
	uint16_t v;

	(void)state;
	fv_add(VF0, 12);
	old = fv_must_open(VF0, d);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_bar_read(old, 2, 0, &v, 2, &fv_err), 0); /* it is mapped now */
	vfe_pci_domain_detach(d, old);
	assert_int_equal(vfe_pci_config_read(old, 0, &v, 2, &fv_err), -ENODEV);
	assert_int_equal(fv.containers[0].nr_maps, 0);
	dev = fv_must_open(VF0, d);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	vfe_pci_close(old);
	assert_int_equal(vfe_pci_config_read(dev, 0, &v, 2, &fv_err), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
given_fds_are_used_as_they_are(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_vfio_fds fds;
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_open_cfg cfg = {.vfio_fds = &fds, .domain = d};
	struct vfe_pci_dev *first, *dev, *none;
	uint16_t cmd = htole16(VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	char log[sizeof(fv.log)];
	int before, irq = eventfd(0, 0);

	(void)state;
	assert_int_equal(vfe_bdf_parse(VF0, &cfg.bdf), 0);
	/* whoever has opened it */
	before = fv_next_fd();
	first = fv_must_open(VF0, NULL);
	assert_int_equal(vfe_pci_irq_set(first, 1, 1, &irq, &fv_err), 0);
	assert_int_equal(vfe_pci_config_write(first, VFE_PCI_COMMAND, &cmd, 2, &fv_err), 0);
	fds = (struct vfe_pci_vfio_fds){
		.group = before + 1, .container = before + 2, .device = before + 3};
	memcpy(log, fv.log, sizeof(log));

	assert_int_equal(vfe_pci_open(&cfg, &dev, &fv_err), 0);
	assert_string_equal(fv.log, log); /* nothing opened, nobody joins, no interrupt changes */
	assert_int_equal(f->opens, 1);
	assert_int_equal(f->irq_fds[1], irq);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	assert_int_equal(vfe_pci_irq_set(dev, 2, 1, &irq, &fv_err), 0);
	assert_int_equal(f->irq_fds[1], irq);
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 1);

	fds.group = irq;
	assert_int_equal(vfe_pci_open(&cfg, &none, &fv_err), -EINVAL);
	fds.group = before + 1;
	fds.container = 1000;
	assert_int_equal(vfe_pci_open(&cfg, &none, &fv_err), -EBADF);
	fds.container = irq;
	assert_int_equal(vfe_pci_open(&cfg, &none, &fv_err), -ENOTSUP);
	fds.container = before + 2;
	fds.device = 1000;
	assert_int_equal(vfe_pci_open(&cfg, &none, &fv_err), -EBADF);
	vfe_pci_close(dev);
	vfe_pci_close(first);
	close(irq);
	vfe_pci_domain_destroy(d);
	assert_int_equal(fv_next_fd(), before - 1);
}

/* Whoever had it has left no interrupts, or fewer than we need. */
static void
given_fds_may_lack_interrupts(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_vfio_fds fds;
	struct vfe_pci_open_cfg cfg = {.vfio_fds = &fds, .domain = d};
	struct vfe_pci_dev *first, *dev;
	int before, left, irq = eventfd(0, 0);

	(void)state;
	assert_int_equal(vfe_bdf_parse(VF0, &cfg.bdf), 0);
	before = fv_next_fd();
	first = fv_must_open(VF0, NULL);
	fds = (struct vfe_pci_vfio_fds){
		.group = before + 1, .container = before + 2, .device = before + 3};
	for (left = 0; left < 2; left++) {
		f->irq_nr = (unsigned int)left;
		assert_int_equal(vfe_pci_open(&cfg, &dev, &fv_err), 0);
		assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &irq, &fv_err), 0);
		assert_int_equal(vfe_pci_irq_set(dev, FV_IRQS - 1, 1, &irq, &fv_err), 0);
		assert_int_equal(f->irq_fds[0], irq);
		assert_int_equal(f->irq_fds[FV_IRQS - 1], irq);
		vfe_pci_close(dev);
	}
	vfe_pci_close(first);
	close(irq);
	vfe_pci_domain_destroy(d);
}

/* --- registers --- */

static void
registers_are_mapped_where_the_kernel_allows(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	uint32_t v = htole32(0x11223344), back = 0;
	uint64_t wide = 0x1122334455667788;
	uint8_t small = 0x5a;

	(void)state;
	assert_int_equal(vfe_pci_config_write(dev, 0xffc, &v, 4, &fv_err), 0);
	assert_int_equal(vfe_pci_config_read(dev, 0xffc, &back, 4, &fv_err), 0);
	assert_int_equal(back, v);
	/* through the fd */
	assert_int_equal(vfe_pci_bar_write(dev, 0, 0, &v, 4, &fv_err), 0);
	assert_int_equal(vfe_pci_bar_read(dev, 0, 0, &back, 4, &fv_err), 0);
	assert_int_equal(back, v);
	assert_int_equal(vfe_pci_bar_write(dev, 4, 0xff, &small, 1, &fv_err), 0);
	/* through mappings */
	assert_int_equal(vfe_pci_bar_write(dev, 0, FV_BAR0_AREA, &small, 1, &fv_err), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 8, &wide, 8, &fv_err), 0);
	assert_int_equal(pread(f->mem, &back, 4, FV_BAR0_AREA), 4);
	assert_int_equal(back, small);
	assert_int_equal(pread(f->mem, &wide, 8, (2 << FV_REGION_SHIFT) + 8), 8);
	assert_true(wide == 0x1122334455667788);
	assert_int_equal(vfe_pci_bar_read(dev, 0, FV_BAR0_SIZE, &back, 4, &fv_err), -ERANGE);
	assert_int_equal(vfe_pci_bar_read(dev, 1, 0, &back, 4, &fv_err), -ERANGE);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 16, &v, 4, &fv_err), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 20, &v, 2, &fv_err), 0);
	assert_int_equal(vfe_pci_bar_read(dev, 2, 16, &wide, 8, &fv_err), 0);
	assert_true(wide == (0x11223344 | 0x334400000000));
	assert_int_equal(vfe_pci_bar_read(dev, 2, 16, &small, 1, &fv_err), 0);
	assert_int_equal(small, 0x44);
	vfe_pci_close(dev);
}

static void
areas_that_cannot_be_mapped_are_reached_through_the_fd(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev;
	struct vfe_pci_doorbell db;
	uint32_t v;

	(void)state;
	fv.area.offset = 0x1800; /* not page aligned */
	dev = fv_must_open(VF0, NULL);
	assert_int_equal(vfe_pci_doorbell_get(dev, 0, 0x1800, &db, &fv_err), 0);
	assert_null(db.addr);
	vfe_pci_close(dev);

	fv.bar0_size = 1 << 30;
	fv.area = (struct vfio_region_sparse_mmap_area){0, 1 << 30}; /* too large for a register */
	dev = fv_must_open(VF0, NULL);
	assert_int_equal(vfe_pci_bar_read(dev, 0, 0x1800, &v, 4, &fv_err), 0);
	assert_int_equal(vfe_pci_doorbell_get(dev, 0, 0x1800, &db, &fv_err), 0);
	assert_null(db.addr);
	vfe_pci_close(dev);

	fv.bar0_offset = UINT64_MAX - 0xfff;
	assert_int_equal(fv_open(VF0, NULL, NULL, &dev), -EPROTO);
	fv.bar0_offset = 0;

	fv.bar0_size = FV_BAR0_SIZE;
	fv.area.size = FV_BAR0_SIZE;
	dev = fv_must_open(VF0, NULL);
	assert_int_equal(fcntl(f->mem, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0); /* no mmap() */
	assert_int_equal(vfe_pci_doorbell_get(dev, 0, 0x1800, &db, &fv_err), 0);
	assert_null(db.addr);
	vfe_pci_close(dev);
}

static void
doorbell_page_can_be_handed_on(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	uint16_t v = 0;
	void *page;

	(void)state;
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0x3004, &db, &fv_err), 0);
	assert_non_null(db.addr);
	assert_int_equal(db.map_offset, (2 << FV_REGION_SHIFT) + 0x3000);
	assert_int_equal(db.map_size, 4096);
	page = mmap(NULL, db.map_size, PROT_READ, MAP_SHARED, db.map_fd, (off_t)db.map_offset);
	assert_true(page != MAP_FAILED);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 7, 2), 0);
	memcpy(&v, (char *)page + 4, sizeof(v));
	assert_int_equal(v, 7);
	munmap(page, db.map_size);

	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0x10, &db, &fv_err), 0);
	assert_null(db.addr);
	assert_int_equal(db.map_fd, -1);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 0x1234, 2), 0);
	assert_int_equal(pread(f->mem, &v, 2, (4 << FV_REGION_SHIFT) + 0x10), 2);
	assert_int_equal(v, 0x1234);
	vfe_pci_close(dev);
}

static void
function_that_does_not_answer_is_lost_and_stopped(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_domain *d = fv_new_domain();
	struct vfe_pci_dev *dev = fv_must_open(VF0, d);
	struct vfe_pci_doorbell db;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(fv_map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_set_master(dev, true, &fv_err), 0);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0, &db, &fv_err), 0);
	vfe_pci_abort(dev);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM);
	assert_int_equal(vfe_pci_error(dev), -ECANCELED);
	assert_int_equal(vfe_pci_bar_read(dev, 0, 0, &v, 4, &fv_err), -ENODEV);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	/* the guest's memory is given back all the same */
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &fv_err), 0);
	assert_int_equal(fv.containers[0].nr_maps, 0);
	vfe_pci_close(dev);

	dev = fv_must_open(VF0, d);
	assert_int_equal(ftruncate(f->mem, 0), 0); /* as if it had been pulled */
	assert_int_equal(vfe_pci_config_read(dev, 0, &v, 4, &fv_err), -EIO);
	assert_int_equal(vfe_pci_error(dev), -EIO);
	assert_int_equal(vfe_pci_config_write(dev, 0, &v, 4, &fv_err), -ENODEV);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
failing_write_loses_the_function(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	uint32_t v = 1;

	(void)state;
	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0, &db, &fv_err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0);
	assert_int_equal(fcntl(f->mem, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	assert_int_not_equal(vfe_pci_error(dev), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 0, 0, &v, 4, &fv_err), -ENODEV);
	vfe_pci_close(dev);
}

static void
registers_taken_away_lose_the_function_only(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	struct vfe_pci_sriov sriov;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0, &db, &fv_err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0); /* SIGBUS, as without memory decoding */
	assert_int_equal(vfe_pci_bar_read(dev, 2, 0, &v, 4, &fv_err), -ENODEV);
	assert_int_equal(vfe_pci_error(dev), -EFAULT);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	vfe_pci_close(dev);

	f = fv_add(VF1, 13);
	dev = fv_must_open(VF1, NULL);
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0, &db, &fv_err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	vfe_pci_close(dev);

	f = fv_add(PF, 14);
	dev = fv_must_open(PF, NULL);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 0, &v, 4, &fv_err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 0, &v, 4, &fv_err), -ENODEV);
	assert_true(vfe_pci_sriov_get(dev, &sriov, &fv_err) < 0);
	vfe_pci_close(dev);
}

static void
kernel_reports_errors_and_asks_for_the_function(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	struct pollfd pfd = {vfe_pci_lost_fd(dev), (short)vfe_pci_lost_events(dev), 0};
	const uint64_t one = 1;

	(void)state;
	assert_true(f->err_fd >= 0 && f->req_fd >= 0);
	assert_int_equal(poll(&pfd, 1, 0), 0);
	assert_int_equal(write(f->req_fd, &one, sizeof(one)), sizeof(one));
	assert_int_equal(poll(&pfd, 1, 0), 1);
	vfe_pci_close(dev);
}

/* --- interrupts and reset --- */

static void
first_vector_switches_all_on(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	int fds[2] = {eventfd(0, 0), eventfd(0, 0)}, none = -1;

	(void)state;
	/* nothing to switch off */
	assert_int_equal(vfe_pci_irq_set(dev, 0, 0, NULL, &fv_err), 0);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &fds[0], &fv_err), 0);
	assert_int_equal(f->irq_nr, FV_IRQS);
	assert_int_equal(f->irq_fds[1], fds[0]);
	assert_int_equal(f->irq_fds[0], -1);
	assert_int_equal(vfe_pci_irq_set(dev, 6, 2, fds, &fv_err), 0);
	assert_int_equal(f->irq_fds[7], fds[1]);
	assert_int_equal(f->irq_fds[1], fds[0]);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &none, &fv_err), 0);
	assert_int_equal(f->irq_fds[1], -1);
	assert_int_equal(vfe_pci_irq_set(dev, 7, 2, fds, &fv_err), -ERANGE);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 0, NULL, &fv_err), 0);
	assert_int_equal(f->irq_nr, 0);

	/* a kernel that can add vectors is asked for those that are needed */
	vfe_pci_close(dev);
	fv.irq_flags &= (uint32_t)~VFIO_IRQ_INFO_NORESIZE;
	dev = fv_must_open(VF0, NULL);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &fds[0], &fv_err), 0);
	assert_int_equal(f->irq_nr, 2);
	assert_int_equal(vfe_pci_irq_set(dev, 3, 1, &fds[1], &fv_err), 0);
	assert_int_equal(f->irq_nr, 4);
	vfe_pci_close(dev);
	assert_non_null(strstr(fv.log, "irq:off close:" VF0));
	close(fds[0]);
	close(fds[1]);
}

static void
vectors_that_the_kernel_does_not_have(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);
	int fd = eventfd(0, 0);

	(void)state;
	fv.irq_room = 3;
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &fv_err), -ENOSPC);
	assert_non_null(strstr(fv_err.text, "3 of 8"));
	assert_int_equal(f->irq_nr, 0);
	fv.irq_room = FV_IRQS;
	fv_fail_ioctl(VFIO_DEVICE_SET_IRQS, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, EINVAL);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &fv_err), -EINVAL);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &fv_err), 0);
	assert_int_equal(f->irq_nr, FV_IRQS);
	vfe_pci_close(dev);
	close(fd);
}

static void
reset_is_asked_for_once(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = fv_must_open(VF0, NULL);

	(void)state;
	assert_int_equal(vfe_pci_reset(dev, &fv_err), 0);
	assert_int_equal(f->resets, 1);
	fv_fail_ioctl(VFIO_DEVICE_RESET, 0, 0, 1, EIO);
	assert_int_equal(vfe_pci_reset(dev, &fv_err), -EIO);
	vfe_pci_close(dev);
	assert_int_equal(f->resets, 1);
	fv.device_flags &= (uint32_t)~VFIO_DEVICE_FLAGS_RESET;
	dev = fv_must_open(VF0, NULL);
	assert_int_equal(vfe_pci_reset(dev, &fv_err), -ENOTSUP);
	vfe_pci_close(dev);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(open_and_close_go_step_by_step),
		T(driver_that_is_not_vfio_is_told_with_the_remedy),
		T(machine_without_iommu_is_refused),
		T(group_that_is_not_viable_names_the_others),
		T(busy_group_is_tried_again_until_the_deadline),
		T(missing_kernel_modules_are_named),
		T(each_step_that_fails_leaves_nothing),
		T(layout_that_makes_no_sense_is_refused),
		T(token_is_given_where_the_kernel_wants_one),
		T(function_that_the_kernel_works_on_is_tried_again),
		T(function_can_be_opened_anew_once_it_is_detached),
		T(given_fds_are_used_as_they_are),
		T(given_fds_may_lack_interrupts),
		T(registers_are_mapped_where_the_kernel_allows),
		T(areas_that_cannot_be_mapped_are_reached_through_the_fd),
		T(doorbell_page_can_be_handed_on),
		T(function_that_does_not_answer_is_lost_and_stopped),
		T(failing_write_loses_the_function),
		T(registers_taken_away_lose_the_function_only),
		T(kernel_reports_errors_and_asks_for_the_function),
		T(first_vector_switches_all_on),
		T(vectors_that_the_kernel_does_not_have),
		T(reset_is_asked_for_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
