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

enum { CONFIG_AT = VFIO_PCI_CONFIG_REGION_INDEX << FV_REGION_SHIFT, SOON_MS = 150 };

static struct vfe_error err;

static int
next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static int
setup(void **state)
{
	(void)state;
	fv_start();
	memset(&err, 0, sizeof(err));
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	fv_stop();
	return 0;
}

static int
open_in(const char *bdf, struct vfe_pci_domain *domain, const char *token, struct vfe_pci_dev **ret)
{
	struct vfe_pci_open_cfg cfg = {.timeout_ms = SOON_MS, .domain = domain, .vf_token = token};

	assert_int_equal(vfe_bdf_parse(bdf, &cfg.bdf), 0);
	return vfe_pci_open(&cfg, ret, &err);
}

static struct vfe_pci_dev *
must_open(const char *bdf, struct vfe_pci_domain *domain)
{
	struct vfe_pci_dev *dev = NULL;

	if (open_in(bdf, domain, NULL, &dev) < 0)
		fail_msg("%s", err.text);
	return dev;
}

static struct vfe_pci_domain *
new_domain(void)
{
	struct vfe_pci_domain *d;

	assert_int_equal(vfe_pci_domain_create(&d, &err), 0);
	return d;
}

static int
map(struct vfe_pci_domain *d, uint64_t iova, uint64_t size)
{
	static uint8_t memory[0x10000] __attribute__((aligned(0x10000)));
	struct vfe_pci_dma dma = {
		.iova = iova, .size = size, .va = memory, .prot = VFE_PCI_DMA_READ};
	int rc, fd = vfe_memfd_create("test", size);

	assert_true(size <= sizeof(memory));
	dma.fd = fd;
	rc = vfe_pci_domain_map(d, &dma, NULL, &err);
	vfe_close(&fd);
	return rc;
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
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;
	int fd = next_fd();

	(void)state;
	dev = must_open(VF0, d);
	assert_string_equal(vfe_pci_name(dev), VF0);
	assert_string_equal(vfe_pci_transport(dev), "vfio");
	assert_int_equal(vfe_pci_config_size(dev), VFE_PCIE_CFG_SIZE);
	assert_int_equal(vfe_pci_bar_size(dev, 0), FV_BAR0_SIZE);
	assert_int_equal(vfe_pci_bar_size(dev, 1), 0);
	assert_int_equal(vfe_pci_bar_size(dev, 4), FV_BAR4_SIZE);
	assert_int_equal(vfe_pci_irq_count(dev), FV_IRQS);
	assert_int_equal(map(d, 0x100000, 0x2000), 0);
	vfe_pci_close(dev);
	assert_string_equal(fv.log, "group:12 container join:12 iommu open:" VF0 " map:100000 "
				    "unmap:100000 close:" VF0 " close:group:12 close:container ");
	assert_int_equal(f->opens, 1);
	assert_int_equal(f->resets, 0); /* the kernel has reset it */
	vfe_pci_domain_destroy(d);
	assert_int_equal(next_fd(), fd);
}

static void
driver_that_is_not_vfio_is_told_with_the_remedy(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_set_driver(VF0, "virtio-pci");
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EBUSY);
	assert_string_equal(err.text,
		"is bound to virtio-pci; bind it with: ./scripts/bind --bind vfio-pci " VF0);
	fv_set_driver(VF0, NULL);
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENODEV);
	assert_non_null(strstr(err.text, "no driver"));
	assert_int_equal(open_in(VF1, NULL, NULL, &dev), -ENODEV);
	assert_string_equal(fv.log, "");
	fv_set_driver(VF0, "mlx5_vfio_pci");
	vfe_pci_close(must_open(VF0, NULL));
}

static void
machine_without_iommu_is_refused(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_file("sys/kernel/iommu_groups/12/name", "vfio-noiommu\n");
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(err.text, "no-IOMMU"));
	fv_file("sys/kernel/iommu_groups/12/name", "other\n");
	vfe_pci_close(must_open(VF0, NULL));
	fv_remove("sys/bus/pci/devices/" VF0 "/iommu_group");
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENODEV);
	assert_non_null(strstr(err.text, "intel_iommu=on"));
	fv_link("sys/bus/pci/devices/" VF0 "/iommu_group", "../strange");
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
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
	fd = next_fd();
	fv_set_driver(VF1, "virtio-pci");
	fv_set_driver(PF, NULL);
	fv.not_viable = true;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPERM);
	assert_non_null(strstr(err.text, "group 12"));
	assert_non_null(strstr(err.text, VF1 " (virtio-pci)"));
	assert_non_null(strstr(err.text, PF " (no driver)"));
	assert_null(strstr(err.text, VF0));
	assert_int_equal(next_fd(), fd);
}

static void
busy_group_is_tried_again_until_the_deadline(void **state)
{
	struct vfe_pci_dev *dev;
	uint64_t begin;

	(void)state;
	fv_add(VF0, 12);
	fv_fail_open("12", 1, EBUSY);
	vfe_pci_close(must_open(VF0, NULL));

	begin = vfe_clock_ns();
	fv_fail_open("12", 1000, EBUSY);
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EBUSY);
	assert_non_null(strstr(err.text, "/dev/vfio/12"));
	assert_true(vfe_clock_ns() - begin >= SOON_MS * 1000000ULL);
	assert_true(1000 - fv.fail_times <= 4); /* it did not spin */

	fv_fail_open("12", 1, EACCES);
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EACCES);
	assert_int_equal(fv.fail_times, 0);
}

static void
missing_kernel_modules_are_named(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fd = next_fd();
	fv.no_type1 = true;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENOTSUP);
	assert_non_null(strstr(err.text, "modprobe vfio_iommu_type1"));
	fv.no_type1 = false;
	fv.api_version = 1;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENOTSUP);
	fv.api_version = VFIO_API_VERSION;
	fv_remove("dev/vfio/vfio");
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -ENOENT);
	assert_non_null(strstr(err.text, "modprobe vfio-pci"));
	assert_int_equal(next_fd(), fd);
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
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;
	int fd;
	size_t i;

	(void)state;
	fv_add(VF0, 12);
	fd = next_fd();
	for (i = 0; i < VFE_ARRAY_SIZE(steps); i++) {
		fv_fail_ioctl(steps[i].request, steps[i].index, 0, 1, EPERM);
		assert_int_equal(open_in(VF0, d, NULL, &dev), -EPERM);
		if (fv.fail_times != 0 || strstr(err.text, steps[i].text) == NULL)
			fail_msg("step %zu: %s", i, err.text);
		assert_int_equal(next_fd(), fd);
	}
	/* reserving interrupts and errors is not every function's business */
	fv_fail_ioctl(VFIO_DEVICE_GET_IRQ_INFO, VFIO_PCI_ERR_IRQ_INDEX, 0, 1, EINVAL);
	vfe_pci_close(must_open(VF0, d));
	assert_int_equal(next_fd(), fd);
	vfe_pci_domain_destroy(d);
}

static void
layout_that_makes_no_sense_is_refused(void **state)
{
	struct vfe_pci_dev *dev;
	int fd;

	(void)state;
	fv_add(VF0, 12);
	fd = next_fd();
	fv.device_flags = VFIO_DEVICE_FLAGS_PLATFORM;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
	fv.device_flags = VFIO_DEVICE_FLAGS_PCI;
	fv.config_size = 512;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
	assert_non_null(strstr(err.text, "512"));
	fv.config_size = VFE_PCIE_CFG_SIZE;
	fv.irq_count = VFE_PCI_MSIX_CTRL_SIZE + 2;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
	fv.irq_count = FV_IRQS;
	fv.sparse_areas = 2; /* more than it tells */
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
	assert_non_null(strstr(err.text, "region 0"));
	fv.sparse_areas = UINT32_MAX;
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EPROTO);
	assert_int_equal(next_fd(), fd);
}

static void
token_is_given_where_the_kernel_wants_one(void **state)
{
	struct vfe_pci_dev *dev = NULL;

	(void)state;
	fv_add(VF0, 12);
	fv.token = TOKEN;
	assert_int_equal(open_in(VF0, NULL, TOKEN, &dev), 0);
	vfe_pci_close(dev);
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EACCES);
	assert_non_null(strstr(err.text, "--vfio-vf-token"));
	assert_non_null(strstr(err.text, "missing"));
	assert_int_equal(open_in(VF0, NULL, "14d63f20-8445-11ea-8900-1f9ce7d56500", &dev), -EACCES);
	assert_non_null(strstr(err.text, "another"));
	fv.token = NULL;
	assert_int_equal(open_in(VF0, NULL, TOKEN, &dev), 0);
	vfe_pci_close(dev);
	assert_int_equal(open_in(VF0, NULL, TOKEN TOKEN, &dev), -EINVAL);
}

static void
function_that_the_kernel_works_on_is_tried_again(void **state)
{
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv_fail_ioctl(VFIO_GROUP_GET_DEVICE_FD, 0, 0, 1, EAGAIN);
	vfe_pci_close(must_open(VF0, NULL));
	fv_fail_ioctl(VFIO_GROUP_GET_DEVICE_FD, 0, 0, 1000, EAGAIN);
	assert_int_equal(open_in(VF0, NULL, NULL, &dev), -EBUSY);
	assert_true(1000 - fv.fail_times <= 4);
}

static void
function_can_be_opened_anew_once_it_is_detached(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *old, *dev;
	uint16_t v;

	(void)state;
	fv_add(VF0, 12);
	old = must_open(VF0, d);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_bar_read(old, 2, 0, &v, 2, &err), 0); /* it is mapped now */
	vfe_pci_domain_detach(d, old);
	assert_int_equal(vfe_pci_config_read(old, 0, &v, 2, &err), -ENODEV);
	assert_int_equal(fv.containers[0].nr_maps, 0);
	dev = must_open(VF0, d);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	vfe_pci_close(old);
	assert_int_equal(vfe_pci_config_read(dev, 0, &v, 2, &err), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
given_fds_are_used_as_they_are(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_vfio_fds fds;
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_open_cfg cfg = {.vfio_fds = &fds, .domain = d};
	struct vfe_pci_dev *first, *dev, *none;
	uint16_t cmd = htole16(VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	char log[sizeof(fv.log)];
	int before, irq = eventfd(0, 0);

	(void)state;
	assert_int_equal(vfe_bdf_parse(VF0, &cfg.bdf), 0);
	/* whoever has opened it */
	before = next_fd();
	first = must_open(VF0, NULL);
	assert_int_equal(vfe_pci_irq_set(first, 1, 1, &irq, &err), 0);
	assert_int_equal(vfe_pci_config_write(first, VFE_PCI_COMMAND, &cmd, 2, &err), 0);
	fds = (struct vfe_pci_vfio_fds){
		.group = before + 1, .container = before + 2, .device = before + 3};
	memcpy(log, fv.log, sizeof(log));

	assert_int_equal(vfe_pci_open(&cfg, &dev, &err), 0);
	assert_string_equal(fv.log, log); /* nothing opened, nobody joins, no interrupt changes */
	assert_int_equal(f->opens, 1);
	assert_int_equal(f->irq_fds[1], irq);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	assert_int_equal(vfe_pci_irq_set(dev, 2, 1, &irq, &err), 0);
	assert_int_equal(f->irq_fds[1], irq);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 1);

	fds.group = irq;
	assert_int_equal(vfe_pci_open(&cfg, &none, &err), -EINVAL);
	fds.group = before + 1;
	fds.device = 1000;
	assert_int_equal(vfe_pci_open(&cfg, &none, &err), -EBADF);
	vfe_pci_close(dev);
	vfe_pci_close(first);
	close(irq);
	vfe_pci_domain_destroy(d);
	assert_int_equal(next_fd(), before - 1);
}

/* --- registers --- */

static void
registers_are_mapped_where_the_kernel_allows(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	uint32_t v = htole32(0x11223344), back = 0;
	uint64_t wide = 0x1122334455667788;
	uint8_t small = 0x5a;

	(void)state;
	assert_int_equal(vfe_pci_config_write(dev, 0xffc, &v, 4, &err), 0);
	assert_int_equal(vfe_pci_config_read(dev, 0xffc, &back, 4, &err), 0);
	assert_int_equal(back, v);
	/* through the fd */
	assert_int_equal(vfe_pci_bar_write(dev, 0, 0, &v, 4, &err), 0);
	assert_int_equal(vfe_pci_bar_read(dev, 0, 0, &back, 4, &err), 0);
	assert_int_equal(back, v);
	assert_int_equal(vfe_pci_bar_write(dev, 4, 0xff, &small, 1, &err), 0);
	/* through mappings */
	assert_int_equal(vfe_pci_bar_write(dev, 0, FV_BAR0_AREA, &small, 1, &err), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 2, 8, &wide, 8, &err), 0);
	assert_int_equal(pread(f->mem, &back, 4, FV_BAR0_AREA), 4);
	assert_int_equal(back, small);
	assert_int_equal(pread(f->mem, &wide, 8, (2 << FV_REGION_SHIFT) + 8), 8);
	assert_true(wide == 0x1122334455667788);
	assert_int_equal(vfe_pci_bar_read(dev, 0, FV_BAR0_SIZE, &back, 4, &err), -ERANGE);
	assert_int_equal(vfe_pci_bar_read(dev, 1, 0, &back, 4, &err), -ERANGE);
	vfe_pci_close(dev);
}

static void
doorbell_page_can_be_handed_on(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	uint16_t v = 0;
	void *page;

	(void)state;
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0x3004, &db, &err), 0);
	assert_non_null(db.addr);
	assert_int_equal(db.map_offset, (2 << FV_REGION_SHIFT) + 0x3000);
	assert_int_equal(db.map_size, 4096);
	page = mmap(NULL, db.map_size, PROT_READ, MAP_SHARED, db.map_fd, (off_t)db.map_offset);
	assert_true(page != MAP_FAILED);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 7, 2), 0);
	memcpy(&v, (char *)page + 4, sizeof(v));
	assert_int_equal(v, 7);
	munmap(page, db.map_size);

	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0x10, &db, &err), 0);
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
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev = must_open(VF0, d);
	struct vfe_pci_doorbell db;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_set_master(dev, true, &err), 0);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM | VFE_PCI_COMMAND_MASTER);
	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0, &db, &err), 0);
	vfe_pci_abort(dev);
	assert_int_equal(command_of(f), VFE_PCI_COMMAND_MEM);
	assert_int_equal(vfe_pci_error(dev), -ECANCELED);
	assert_int_equal(vfe_pci_bar_read(dev, 0, 0, &v, 4, &err), -ENODEV);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	/* the guest's memory is given back all the same */
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &err), 0);
	assert_int_equal(fv.containers[0].nr_maps, 0);
	vfe_pci_close(dev);

	dev = must_open(VF0, d);
	assert_int_equal(ftruncate(f->mem, 0), 0); /* as if it had been pulled */
	assert_int_equal(vfe_pci_config_read(dev, 0, &v, 4, &err), -EIO);
	assert_int_equal(vfe_pci_error(dev), -EIO);
	assert_int_equal(vfe_pci_config_write(dev, 0, &v, 4, &err), -ENODEV);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
failing_write_loses_the_function(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	uint32_t v = 1;

	(void)state;
	assert_int_equal(vfe_pci_doorbell_get(dev, 4, 0, &db, &err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0);
	assert_int_equal(fcntl(f->mem, F_ADD_SEALS, F_SEAL_GROW), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	assert_int_not_equal(vfe_pci_error(dev), 0);
	assert_int_equal(vfe_pci_bar_write(dev, 0, 0, &v, 4, &err), -ENODEV);
	vfe_pci_close(dev);
}

static void
registers_taken_away_lose_the_function_only(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	struct vfe_pci_doorbell db;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0, &db, &err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0); /* SIGBUS, as without memory decoding */
	assert_int_equal(vfe_pci_bar_read(dev, 2, 0, &v, 4, &err), -ENODEV);
	assert_int_equal(vfe_pci_error(dev), -EFAULT);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	vfe_pci_close(dev);

	f = fv_add(VF1, 13);
	dev = must_open(VF1, NULL);
	assert_int_equal(vfe_pci_doorbell_get(dev, 2, 0, &db, &err), 0);
	assert_int_equal(ftruncate(f->mem, 0), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	vfe_pci_close(dev);
}

static void
kernel_reports_errors_and_asks_for_the_function(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
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
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	int fds[2] = {eventfd(0, 0), eventfd(0, 0)}, none = -1;

	(void)state;
	/* nothing to switch off */
	assert_int_equal(vfe_pci_irq_set(dev, 0, 0, NULL, &err), 0);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &fds[0], &err), 0);
	assert_int_equal(f->irq_nr, FV_IRQS);
	assert_int_equal(f->irq_fds[1], fds[0]);
	assert_int_equal(f->irq_fds[0], -1);
	assert_int_equal(vfe_pci_irq_set(dev, 6, 2, fds, &err), 0);
	assert_int_equal(f->irq_fds[7], fds[1]);
	assert_int_equal(f->irq_fds[1], fds[0]);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &none, &err), 0);
	assert_int_equal(f->irq_fds[1], -1);
	assert_int_equal(vfe_pci_irq_set(dev, 7, 2, fds, &err), -ERANGE);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 0, NULL, &err), 0);
	assert_int_equal(f->irq_nr, 0);

	/* a kernel that can add vectors is asked for those that are needed */
	vfe_pci_close(dev);
	fv.irq_flags &= (uint32_t)~VFIO_IRQ_INFO_NORESIZE;
	dev = must_open(VF0, NULL);
	assert_int_equal(vfe_pci_irq_set(dev, 1, 1, &fds[0], &err), 0);
	assert_int_equal(f->irq_nr, 2);
	assert_int_equal(vfe_pci_irq_set(dev, 3, 1, &fds[1], &err), 0);
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
	struct vfe_pci_dev *dev = must_open(VF0, NULL);
	int fd = eventfd(0, 0);

	(void)state;
	fv.irq_room = 3;
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "3 of 8"));
	assert_int_equal(f->irq_nr, 0);
	fv.irq_room = FV_IRQS;
	fv_fail_ioctl(VFIO_DEVICE_SET_IRQS, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, EINVAL);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &err), -EINVAL);
	assert_int_equal(vfe_pci_irq_set(dev, 0, 1, &fd, &err), 0);
	assert_int_equal(f->irq_nr, FV_IRQS);
	vfe_pci_close(dev);
	close(fd);
}

static void
reset_is_asked_for_once(void **state)
{
	struct fv_function *f = fv_add(VF0, 12);
	struct vfe_pci_dev *dev = must_open(VF0, NULL);

	(void)state;
	assert_int_equal(vfe_pci_reset(dev, &err), 0);
	assert_int_equal(f->resets, 1);
	fv_fail_ioctl(VFIO_DEVICE_RESET, 0, 0, 1, EIO);
	assert_int_equal(vfe_pci_reset(dev, &err), -EIO);
	vfe_pci_close(dev);
	assert_int_equal(f->resets, 1);
	fv.device_flags &= (uint32_t)~VFIO_DEVICE_FLAGS_RESET;
	dev = must_open(VF0, NULL);
	assert_int_equal(vfe_pci_reset(dev, &err), -ENOTSUP);
	vfe_pci_close(dev);
}

/* --- address spaces --- */

static void
functions_of_a_domain_share_a_container(void **state)
{
	enum { MANY = 70 };
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *devs[MANY];
	char bdf[16];
	int i;

	(void)state;
	for (i = 0; i < MANY; i++) {
		snprintf(bdf, sizeof(bdf), "0000:af:%02x.%d", 4 + i / 8, i % 8);
		fv_add(bdf, 100 + (unsigned int)i);
		devs[i] = must_open(bdf, d);
		if (i == 0)
			assert_int_equal(map(d, 0x100000, 0x1000), 0);
	}
	assert_int_equal(fv.nr_containers, 1);
	assert_int_equal(fv.containers[0].nr_groups, MANY);
	assert_int_equal(map(d, 0x200000, 0x1000), 0);
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
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *a, *b, *c;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 13);
	fv_add(PF, 14);
	a = must_open(VF0, d);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	fv_fail_ioctl(VFIO_GROUP_SET_CONTAINER, 0, 0, 1, EINVAL);
	b = must_open(VF1, d);
	assert_int_equal(fv.nr_containers, 2);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	assert_int_equal(map(d, 0x200000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 2);
	assert_int_equal(fv.containers[1].nr_maps, 2);
	/* limits that the shared container would get are not told: not joined either */
	fv_fail_ioctl(VFIO_IOMMU_GET_INFO, 0, 0, 1, EIO);
	c = must_open(PF, d);
	assert_non_null(strstr(fv.log, "leave:14"));
	assert_int_equal(fv.nr_containers, 3);

	/* one refuses: nobody has it, nobody is lost */
	fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 1, 1, ENOSPC);
	assert_int_equal(map(d, 0x300000, 0x1000), -ENOSPC);
	assert_non_null(
		strstr(err.text, "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"));
	assert_int_equal(fv.containers[0].nr_maps, 2);
	assert_int_equal(fv.containers[1].nr_maps, 2);
	assert_int_equal(vfe_pci_error(a), 0);
	assert_int_equal(vfe_pci_error(b), 0);
	assert_int_equal(map(d, 0x300000, 0x1000), 0);
	vfe_pci_close(a);
	vfe_pci_close(b);
	vfe_pci_close(c);
	vfe_pci_domain_destroy(d);
}

static void
group_is_one_address_space(void **state)
{
	struct vfe_pci_domain *d = new_domain(), *other = new_domain();
	struct vfe_pci_dev *a, *b;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 12);
	a = must_open(VF0, d);
	assert_int_equal(open_in(VF1, other, NULL, &b), -EBUSY);
	assert_non_null(strstr(err.text, "group 12 with " VF0));
	b = must_open(VF1, d);
	assert_int_equal(fv.nr_containers, 1);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(fv.containers[0].nr_maps, 1);
	vfe_pci_close(a);
	assert_null(strstr(fv.log, "close:group"));
	assert_int_equal(fv.containers[0].nr_maps, 1);
	vfe_pci_close(b);
	assert_non_null(strstr(fv.log, "close:group:12 close:container"));
	a = must_open(VF0, other);
	vfe_pci_close(a);
	vfe_pci_domain_destroy(d);
	vfe_pci_domain_destroy(other);
}

static void
addresses_that_the_iommu_reserves_are_named(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.nr_ranges = 2;
	fv.ranges[0] = (struct vfio_iova_range){0, 0xfedfffff};
	fv.ranges[1] = (struct vfio_iova_range){0xfef00000, 0x7fffffffff};
	dev = must_open(VF0, d);
	assert_int_equal(map(d, 0xfedff000, 0x1000), 0);
	assert_int_equal(map(d, 0xfef01000, 0x1000), 0);
	assert_int_equal(map(d, 0x7ffffff000, 0x1000), 0);
	assert_int_equal(map(d, 0xfee00000, 0x1000), -EINVAL);
	assert_non_null(strstr(err.text, "reserves 0xfee00000 to 0xfee00fff"));
	assert_int_equal(map(d, 0xfeeff000, 0x2000), -EINVAL);
	assert_non_null(strstr(err.text, "reserves 0xfeeff000 to 0xfeefffff"));
	assert_int_equal(map(d, 0x8000000000, 0x1000), -EINVAL);
	assert_int_equal(fv.containers[0].nr_maps, 3);
	vfe_pci_close(dev);

	/* a member that comes later cannot have what is reserved for it */
	fv.ranges[0].end = 0xfffff;
	assert_int_equal(open_in(VF0, d, NULL, &dev), -EINVAL);
	assert_non_null(strstr(err.text, "reserves"));
	fv.nr_ranges = 0;
	dev = must_open(VF0, d);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
capabilities_of_the_iommu_that_make_no_sense(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.pgsizes = 0; /* then it is 4096 */
	dev = must_open(VF0, d);
	assert_int_equal(map(d, 0x1000, 0x1000), 0);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
mapping_respects_the_page_size(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	fv.pgsizes = 0x10000;
	dev = must_open(VF0, d);
	assert_int_equal(map(d, 0x10000, 0x10000), 0);
	assert_int_equal(map(d, 0x21000, 0x1000), -EINVAL);
	assert_non_null(strstr(err.text, "65536"));
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
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;
	size_t i;

	(void)state;
	fv_add(VF0, 12);
	dev = must_open(VF0, d);
	for (i = 0; i < VFE_ARRAY_SIZE(refusals); i++) {
		fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 0, 1, refusals[i].err);
		assert_int_equal(map(d, 0x100000, 0x1000), -refusals[i].err);
		assert_non_null(strstr(err.text, refusals[i].text));
		assert_non_null(strstr(err.text, "0x100000"));
	}
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_error(dev), 0);

	/* an address space that does not let go is nobody's any more */
	fv_fail_ioctl(VFIO_IOMMU_UNMAP_DMA, 0, 0, 1, EIO);
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &err), 0);
	assert_int_equal(vfe_pci_error(dev), -EIO);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
kernel_that_unmaps_less_than_asked(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *dev;

	(void)state;
	fv_add(VF0, 12);
	dev = must_open(VF0, d);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	fv.containers[0].nr_maps = 0;
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x1000, &err), 0);
	assert_int_equal(vfe_pci_error(dev), -ENOENT);
	vfe_pci_close(dev);
	vfe_pci_domain_destroy(d);
}

static void
memory_that_is_only_an_fd_is_mapped_for_the_kernel(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dma dma = {.iova = 0x100000,
		.size = 0x2000,
		.fd_offset = 0x1000,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE};
	struct vfe_pci_dev *dev;
	const uint32_t magic = 0xfeedf00d;
	int fd = vfe_memfd_create("test", 0x4000), pipes[2];

	(void)state;
	fv_add(VF0, 12);
	dev = must_open(VF0, d);
	assert_int_equal(pwrite(fd, &magic, 4, 0x1000), 4);
	dma.fd = fd;
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &err), 0);
	assert_memory_equal((void *)(uintptr_t)fv.containers[0].maps[0].vaddr, &magic, 4);
	assert_int_equal(fv.containers[0].maps[0].flags, 3);
	assert_int_equal(vfe_pci_domain_unmap(d, 0x100000, 0x2000, &err), 0);

	fv_fail_ioctl(VFIO_IOMMU_MAP_DMA, 0, 0, 1, ENOMEM);
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &err), -ENOMEM);
	assert_int_equal(pipe(pipes), 0);
	dma.fd = pipes[0];
	assert_true(vfe_pci_domain_map(d, &dma, NULL, &err) < 0);
	close(pipes[0]);
	close(pipes[1]);
	dma.fd = fd;
	assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &err), 0); /* left for close */
	vfe_pci_close(dev);
	close(fd);
	vfe_pci_domain_destroy(d);
}

static void
function_without_a_domain_enters_one_later(void **state)
{
	struct vfe_pci_domain *d = new_domain();
	struct vfe_pci_dev *a, *b;

	(void)state;
	fv_add(VF0, 12);
	fv_add(VF1, 13);
	a = must_open(VF0, d);
	b = must_open(VF1, NULL);
	assert_int_equal(map(d, 0x100000, 0x1000), 0);
	assert_int_equal(vfe_pci_domain_attach(d, b, &err), 0);
	assert_int_equal(fv.containers[1].nr_maps, 1);
	assert_int_equal(vfe_pci_domain_attach(d, b, &err), -EBUSY);
	vfe_pci_close(b);
	vfe_pci_close(a);
	vfe_pci_domain_destroy(d);
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
		T(registers_are_mapped_where_the_kernel_allows),
		T(doorbell_page_can_be_handed_on),
		T(function_that_does_not_answer_is_lost_and_stopped),
		T(failing_write_loses_the_function),
		T(registers_taken_away_lose_the_function_only),
		T(kernel_reports_errors_and_asks_for_the_function),
		T(first_vector_switches_all_on),
		T(vectors_that_the_kernel_does_not_have),
		T(reset_is_asked_for_once),
		T(functions_of_a_domain_share_a_container),
		T(iommu_that_cannot_share_gives_a_container_of_its_own),
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
