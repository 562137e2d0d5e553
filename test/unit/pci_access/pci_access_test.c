/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The PCI seam over a real vfio-user server, and its domains over a fake transport.
 */

#undef NDEBUG

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_pci.h"
#include "vfe_sigbus.h"
#include "vfu_function.h"

#define BDF "0000:af:00.2"

struct env {
	struct vfu_function fn;
	struct vfe_pci_dev *dev;
	struct vfe_error err;
};

static int
next_fd(void)
{
	int fd = dup(0);

	close(fd);
	return fd;
}

static int
open_function(struct vfu_function *fn, uint32_t timeout_ms, struct vfe_pci_dev **ret,
	struct vfe_error *err)
{
	struct vfe_pci_open_cfg cfg = {.vfio_user_path = fn->path, .timeout_ms = timeout_ms};

	assert_int_equal(vfe_bdf_parse(BDF, &cfg.bdf), 0);
	return vfe_pci_open(&cfg, ret, err);
}

/* A running function that is not open yet. */
static int
setup(void **state)
{
	struct env *e = calloc(1, sizeof(*e));

	assert_non_null(e);
	vfu_function_prepare(&e->fn, BDF);
	vfu_function_start(&e->fn);
	*state = e;
	return 0;
}

static int
setup_open(void **state)
{
	struct env *e;

	setup(state);
	e = *state;
	if (open_function(&e->fn, 0, &e->dev, &e->err) < 0)
		fail_msg("%s", e->err.text);
	return 0;
}

static int
teardown(void **state)
{
	struct env *e = *state;

	vfe_pci_close(e->dev);
	vfu_function_fini(&e->fn);
	free(e);
	return 0;
}

/* --- opening --- */

static void
test_open_learns_the_layout(void **state)
{
	struct env *e = *state;

	assert_string_equal(vfe_pci_name(e->dev), BDF);
	assert_string_equal(vfe_pci_transport(e->dev), "vfio-user");
	assert_int_equal(vfe_pci_config_size(e->dev), VFE_PCIE_CFG_SIZE);
	assert_int_equal(vfe_pci_bar_size(e->dev, 0), FN_BAR0_SIZE);
	assert_int_equal(vfe_pci_bar_size(e->dev, 1), 0);
	assert_int_equal(vfe_pci_bar_size(e->dev, 2), FN_BAR2_SIZE);
	assert_int_equal(vfe_pci_bar_size(e->dev, 6), 0);
	assert_int_equal(vfe_pci_irq_count(e->dev), FN_IRQS);
	assert_int_equal(vfe_pci_error(e->dev), 0);
}

static void
test_open_without_socket_names_the_path(void **state)
{
	struct env *e = *state;
	int fd;

	vfu_function_stop(&e->fn);
	fd = next_fd();
	assert_int_equal(open_function(&e->fn, 0, &e->dev, &e->err), -ENOENT);
	assert_non_null(strstr(e->err.text, e->fn.path));
	assert_int_equal(next_fd(), fd);
}

static void
test_open_twice_is_busy(void **state)
{
	struct env *e = *state;
	struct vfe_pci_dev *second = NULL;

	assert_int_equal(open_function(&e->fn, 0, &second, &e->err), -EBUSY);
	assert_non_null(strstr(e->err.text, e->fn.path));
	assert_int_equal(vfe_pci_error(e->dev), 0);
}

static void
test_open_refuses_a_strange_configuration_space(void **state)
{
	struct env *e = *state;
	int fd;

	vfu_function_stop(&e->fn);
	fd = next_fd();
	e->fn.cfg.regions[VFE_VFU_REGION_CONFIG].size = 512;
	vfu_function_start(&e->fn);
	assert_int_equal(open_function(&e->fn, 0, &e->dev, &e->err), -EPROTO);
	assert_non_null(strstr(e->err.text, "512"));
	vfu_function_stop(&e->fn);
	assert_int_equal(next_fd(), fd);
}

static void
test_open_and_close_leave_no_fd(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;
	int fd = next_fd();

	assert_int_equal(open_function(&e->fn, 0, &e->dev, &e->err), 0);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 0, &db, &e->err), 0);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 4 * FN_PAGE, &db, &e->err), 0);
	vfe_pci_close(e->dev);
	e->dev = NULL;
	vfu_function_wait(&e->fn.disconnects, 1);
	vfu_function_stop(&e->fn);
	vfu_function_start(&e->fn);
	assert_int_equal(next_fd(), fd);
}

/* --- configuration space and BARs --- */

static void
test_config_access_and_its_edges(void **state)
{
	struct env *e = *state;
	uint32_t v = 0x12345678, back = 0;
	uint8_t all[VFE_PCIE_CFG_SIZE];

	assert_int_equal(vfe_pci_config_write(e->dev, 0xffc, &v, 4, &e->err), 0);
	assert_int_equal(vfe_pci_config_read(e->dev, 0xffc, &back, 4, &e->err), 0);
	assert_int_equal(back, v);
	assert_int_equal(vfe_pci_config_read(e->dev, 0, all, sizeof(all), &e->err), 0);
	assert_int_equal(vfe_pci_config_read(e->dev, 0xffd, &back, 4, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_config_read(e->dev, 0x1000, &back, 1, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_config_read(e->dev, UINT32_MAX, &back, 4, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_config_read(e->dev, 0, &back, 0, &e->err), -ERANGE);
}

static void
test_bar_access_by_message_and_its_edges(void **state)
{
	struct env *e = *state;
	uint64_t v = 0x1122334455667788, back = 0;
	uint32_t len;

	for (len = 1; len <= 8; len *= 2) {
		back = 0;
		assert_int_equal(
			vfe_pci_bar_write(e->dev, 0, FN_BAR0_SIZE - len, &v, len, &e->err), 0);
		assert_int_equal(
			vfe_pci_bar_read(e->dev, 0, FN_BAR0_SIZE - len, &back, len, &e->err), 0);
		assert_memory_equal(&back, &v, len);
	}
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 2, &back, 4, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &back, 3, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &back, 16, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &back, 0, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, FN_BAR0_SIZE, &back, 4, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, UINT64_MAX - 7, &back, 8, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_bar_read(e->dev, 1, 0, &back, 4, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_bar_read(e->dev, 9, 0, &back, 4, &e->err), -ERANGE);
}

static void
test_mapped_registers_send_no_message(void **state)
{
	struct env *e = *state;
	uint64_t v = 0x1122334455667788, back = 0;
	uint32_t len;

	for (len = 1; len <= 8; len *= 2) {
		back = 0;
		assert_int_equal(
			vfe_pci_bar_write(e->dev, 2, 4 * FN_PAGE - len, &v, len, &e->err), 0);
		assert_memory_equal(e->fn.bar2 + 4 * FN_PAGE - len, &v, len);
		assert_int_equal(
			vfe_pci_bar_read(e->dev, 2, 4 * FN_PAGE - len, &back, len, &e->err), 0);
		assert_memory_equal(&back, &v, len);
	}
	assert_int_equal(atomic_load(&e->fn.bar2_writes), 0);

	/* the page behind the area */
	assert_int_equal(vfe_pci_bar_write(e->dev, 2, 4 * FN_PAGE, &v, 4, &e->err), 0);
	assert_int_equal(atomic_load(&e->fn.bar2_writes), 1);
}

/* --- doorbells --- */

static void
test_doorbell_by_mapping(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;
	uint16_t v16;
	uint32_t v32;
	uint8_t *page;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 3 * FN_PAGE + 8, &db, &e->err), 0);
	assert_non_null(db.addr);
	assert_int_equal(db.event_fd, -1);
	assert_int_equal(db.map_offset, 3 * FN_PAGE);
	assert_int_equal(db.map_size, FN_PAGE);
	page = mmap(NULL, db.map_size, PROT_READ | PROT_WRITE, MAP_SHARED, db.map_fd,
		(off_t)db.map_offset);
	assert_true(page != MAP_FAILED);

	assert_int_equal(vfe_pci_doorbell_ring(&db, 0x1234, 2), 0);
	memcpy(&v16, e->fn.bar2 + 3 * FN_PAGE + 8, 2);
	assert_int_equal(le16toh(v16), 0x1234);
	assert_int_equal(page[8], 0x34);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 0xcafe0001, 4), 0);
	memcpy(&v32, e->fn.bar2 + 3 * FN_PAGE + 8, 4);
	assert_int_equal(le32toh(v32), 0xcafe0001);
	assert_int_equal(atomic_load(&e->fn.bar2_writes), 0);
	munmap(page, db.map_size);
}

static void
test_doorbell_by_io_fd(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;
	uint64_t count;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 5 * FN_PAGE, &db, &e->err), 0);
	assert_null(db.addr);
	assert_true(db.event_fd >= 0);
	assert_int_equal(db.map_fd, -1);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), 0);
	assert_int_equal(read(e->fn.io_fds[1].fd, &count, sizeof(count)), sizeof(count));
	assert_int_equal(count, 1);
	assert_int_equal(read(e->fn.io_fds[0].fd, &count, sizeof(count)), -1);
}

static void
test_doorbell_whose_eventfd_is_full_does_not_block(void **state)
{
	const uint64_t full = UINT64_MAX - 1;
	struct env *e = *state;
	struct vfe_pci_doorbell db;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 4 * FN_PAGE, &db, &e->err), 0);
	assert_int_equal(write(e->fn.io_fds[0].fd, &full, sizeof(full)), sizeof(full));
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -EAGAIN);
	assert_int_equal(vfe_pci_error(e->dev), 0);
}

static void
test_doorbell_by_posted_message(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 6 * FN_PAGE + 2, &db, &e->err), 0);
	assert_null(db.addr);
	assert_int_equal(db.event_fd, -1);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 7, 2), 0);
	vfu_function_wait(&e->fn.bar2_writes, 1);
	assert_int_equal(e->fn.bar2[6 * FN_PAGE + 2], 7);
}

static void
test_doorbell_edges(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, FN_BAR2_SIZE, &db, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 1, &db, &e->err), -EINVAL);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 4 * FN_PAGE - 2, &db, &e->err), 0);
	assert_non_null(db.addr);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), 0);
	/* would reach over the end of the mapping */
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 4), -EINVAL);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 8), -EINVAL);
}

static void
test_area_behind_the_end_of_its_file_is_refused(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;

	assert_int_equal(ftruncate(e->fn.bar2_fd, 2 * FN_PAGE), 0);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 0, &db, &e->err), -EPROTO);
	assert_non_null(strstr(e->err.text, "BAR 2"));
	assert_int_equal(ftruncate(e->fn.bar2_fd, FN_BAR2_SIZE), 0);
}

static void
test_file_shrunk_under_a_mapping_loses_the_device_only(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;
	uint32_t v;

	/* here, because cmocka has its own handler before each test */
	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, FN_PAGE, &db, &e->err), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), 0);
	assert_int_equal(ftruncate(e->fn.bar2_fd, 0), 0);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
	assert_int_not_equal(vfe_pci_error(e->dev), 0);
	assert_int_equal(vfe_pci_bar_read(e->dev, 2, 0, &v, 4, &e->err), -ENODEV);
	assert_int_equal(ftruncate(e->fn.bar2_fd, FN_BAR2_SIZE), 0);
}

/* --- interrupts, reset, bus master --- */

static void
test_interrupts_reach_the_eventfd_of_their_vector(void **state)
{
	struct env *e = *state;
	const uint64_t one = 1;
	const int none = -1;
	uint64_t count;
	int fds[2];

	fds[0] = eventfd(0, EFD_NONBLOCK);
	fds[1] = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(vfe_pci_irq_set(e->dev, 2, 2, fds, &e->err), 0);
	assert_int_equal(write(e->fn.irq_fds[3], &one, sizeof(one)), sizeof(one));
	assert_int_equal(read(fds[1], &count, sizeof(count)), sizeof(count));
	assert_int_equal(read(fds[0], &count, sizeof(count)), -1);

	assert_int_equal(vfe_pci_irq_set(e->dev, 3, 1, &none, &e->err), 0);
	assert_int_equal(e->fn.irq_fds[3], -1);
	assert_true(e->fn.irq_fds[2] >= 0);
	assert_int_equal(vfe_pci_irq_set(e->dev, 0, 0, NULL, &e->err), 0);
	assert_int_equal(e->fn.irq_fds[2], -1);

	assert_int_equal(vfe_pci_irq_set(e->dev, 3, 2, fds, &e->err), -ERANGE);
	assert_int_equal(vfe_pci_irq_set(e->dev, UINT32_MAX, 2, fds, &e->err), -ERANGE);
	close(fds[0]);
	close(fds[1]);
}

static void
test_reset_and_bus_master(void **state)
{
	struct env *e = *state;

	assert_int_equal(vfe_pci_reset(e->dev, &e->err), 0);
	assert_int_equal(atomic_load(&e->fn.resets), 1);
	e->fn.config[VFE_PCI_COMMAND + 1] = 0x4;
	assert_int_equal(vfe_pci_set_master(e->dev, true, &e->err), 0);
	assert_int_equal(
		e->fn.config[VFE_PCI_COMMAND], VFE_PCI_COMMAND_MASTER | VFE_PCI_COMMAND_MEM);
	assert_int_equal(e->fn.config[VFE_PCI_COMMAND + 1], 0x4);
	assert_int_equal(vfe_pci_set_master(e->dev, false, &e->err), 0);
	assert_int_equal(e->fn.config[VFE_PCI_COMMAND], VFE_PCI_COMMAND_MEM);
}

/* --- losing a device --- */

static void
test_server_that_goes_makes_the_device_lost(void **state)
{
	struct env *e = *state;
	struct vfe_pci_doorbell db;
	struct pollfd pfd;
	uint32_t v;

	assert_int_equal(vfe_pci_doorbell_get(e->dev, 2, 6 * FN_PAGE, &db, &e->err), 0);
	pfd = (struct pollfd){vfe_pci_lost_fd(e->dev), (short)vfe_pci_lost_events(e->dev), 0};
	assert_int_equal(poll(&pfd, 1, 0), 0);
	vfu_function_stop(&e->fn);
	assert_int_equal(poll(&pfd, 1, 10000), 1);
	assert_true(vfe_pci_bar_read(e->dev, 0, 0, &v, 4, &e->err) < 0);
	assert_int_not_equal(vfe_pci_error(e->dev), 0);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &v, 4, &e->err), -ENODEV);
	assert_int_equal(vfe_pci_config_read(e->dev, 0, &v, 4, &e->err), -ENODEV);
	assert_int_equal(vfe_pci_reset(e->dev, &e->err), -ENODEV);
	assert_int_equal(vfe_pci_doorbell_ring(&db, 1, 2), -ENODEV);
}

static void
test_register_that_is_never_answered_times_out(void **state)
{
	struct env *e = *state;
	uint32_t v;

	assert_int_equal(open_function(&e->fn, 500, &e->dev, &e->err), 0);
	atomic_store(&e->fn.hang, true);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &v, 4, &e->err), -ETIMEDOUT);
	assert_int_equal(vfe_pci_bar_read(e->dev, 0, 0, &v, 4, &e->err), -ENODEV);
	atomic_store(&e->fn.hang, false);
}

static void *
read_register(void *arg)
{
	struct env *e = arg;
	uint32_t v;

	return (void *)(intptr_t)vfe_pci_bar_read(e->dev, 0, 0, &v, 4, NULL);
}

static void
test_abort_ends_a_call_in_flight(void **state)
{
	struct env *e = *state;
	uint64_t begin = vfe_clock_ns();
	pthread_t thread;
	void *rc;

	assert_int_equal(open_function(&e->fn, 60000, &e->dev, &e->err), 0);
	atomic_store(&e->fn.hang, true);
	assert_int_equal(pthread_create(&thread, NULL, read_register, e), 0);
	vfu_function_wait(&e->fn.hanging, 1);
	vfe_pci_abort(e->dev);
	pthread_join(thread, &rc);
	atomic_store(&e->fn.hang, false);
	assert_true((intptr_t)rc < 0);
	assert_true(vfe_clock_ns() - begin < 10000000000u);
	assert_int_not_equal(vfe_pci_error(e->dev), 0);
}

/* --- domains over vfio-user --- */

static struct vfe_pci_dma
some_memory(uint64_t iova, uint64_t pages)
{
	struct vfe_pci_dma dma = {
		.iova = iova,
		.size = pages * FN_PAGE,
		.prot = VFE_PCI_DMA_READ | VFE_PCI_DMA_WRITE,
	};

	dma.fd = vfe_memfd_create("dma", dma.size);
	assert_true(dma.fd >= 0);
	return dma;
}

static struct vfe_pci_domain *
make_domain(void)
{
	struct vfe_pci_domain *d;

	assert_int_equal(vfe_pci_domain_create(&d, NULL), 0);
	return d;
}

static void
test_device_attached_late_gets_all_mappings(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0x10000, 2), b = some_memory(0, 1);
	struct vfe_pci_open_cfg cfg = {.vfio_user_path = e->fn.path, .domain = d};
	unsigned int lost = 7;

	assert_int_equal(vfe_pci_domain_map(d, &a, &lost, &e->err), 0);
	assert_int_equal(lost, 0);
	assert_int_equal(vfe_pci_domain_map(d, &b, NULL, &e->err), 0);
	close(a.fd);
	close(b.fd);
	assert_int_equal(vfe_pci_open(&cfg, &e->dev, &e->err), 0);
	assert_int_equal(atomic_load(&e->fn.nr_maps), 2);
	assert_int_equal(vfe_pci_domain_attach(d, e->dev, &e->err), -EBUSY);

	assert_int_equal(vfe_pci_domain_unmap(d, 0x10000, FN_PAGE, &e->err), -ENOENT);
	assert_int_equal(vfe_pci_domain_unmap(d, 0x10000, 2 * FN_PAGE, &e->err), 0);
	assert_int_equal(atomic_load(&e->fn.nr_maps), 1);
	vfe_pci_domain_detach(d, e->dev);
	assert_int_equal(atomic_load(&e->fn.nr_maps), 0);
	vfe_pci_domain_destroy(d);
}

static void
test_close_withdraws_mappings_and_interrupts(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0, 1);
	int fd = eventfd(0, EFD_NONBLOCK);
	unsigned int irq_sets;

	assert_int_equal(vfe_pci_domain_attach(d, e->dev, &e->err), 0);
	assert_int_equal(vfe_pci_domain_map(d, &a, NULL, &e->err), 0);
	assert_int_equal(vfe_pci_irq_set(e->dev, 0, 1, &fd, &e->err), 0);
	irq_sets = atomic_load(&e->fn.irq_sets);
	vfe_pci_close(e->dev);
	e->dev = NULL;
	/* both synchronously, not because the server saw us hang up */
	assert_int_equal(atomic_load(&e->fn.nr_maps), 0);
	assert_true(atomic_load(&e->fn.irq_sets) > irq_sets);
	vfe_pci_domain_destroy(d);
	close(fd);
	close(a.fd);
}

static void
test_refused_mapping_loses_that_member_only(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0, 1);
	struct fake_pci other;
	unsigned int lost;

	fake_pci_init(&other, "0000:af:00.3");
	assert_int_equal(vfe_pci_domain_attach(d, e->dev, &e->err), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &other.pci, &e->err), 0);
	atomic_store(&e->fn.dma_map_result, -ENOMEM);
	assert_int_equal(vfe_pci_domain_map(d, &a, &lost, &e->err), 0);
	assert_int_equal(lost, 1);
	assert_int_not_equal(vfe_pci_error(e->dev), 0);
	assert_int_equal(vfe_pci_error(&other.pci), 0);
	assert_int_equal(other.nr_maps, 1);
	vfe_pci_close(e->dev);
	e->dev = NULL;
	vfe_pci_domain_detach(d, &other.pci);
	assert_int_equal(other.nr_maps, 0);
	vfe_pci_domain_destroy(d);
	close(a.fd);
}

static void
test_failed_attach_leaves_nothing_mapped(void **state)
{
	struct env *e = *state;
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma dma;
	unsigned int i;

	for (i = 0; i <= FN_MAX_MAPS; i++) {
		dma = some_memory(i * FN_PAGE, 1);
		assert_int_equal(vfe_pci_domain_map(d, &dma, NULL, &e->err), 0);
		close(dma.fd);
	}
	assert_true(vfe_pci_domain_attach(d, e->dev, &e->err) < 0);
	assert_int_equal(atomic_load(&e->fn.nr_maps), 0);
	assert_int_equal(vfe_pci_error(e->dev), 0);

	/* and it can be repeated */
	assert_int_equal(vfe_pci_domain_unmap(d, 0, FN_PAGE, &e->err), 0);
	assert_int_equal(vfe_pci_domain_attach(d, e->dev, &e->err), 0);
	assert_int_equal(atomic_load(&e->fn.nr_maps), FN_MAX_MAPS);
	vfe_pci_domain_detach(d, e->dev);
	vfe_pci_domain_destroy(d);
}

/* --- domains over a fake transport --- */

static void
test_mappings_that_make_no_sense(void **state)
{
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma good = some_memory(0x10000, 4), bad;
	int fd;

	(void)state;
	assert_int_equal(vfe_pci_domain_map(d, &good, NULL, NULL), 0);
	fd = next_fd();

#define EXPECT(code, field, value)                                                 \
	do {                                                                       \
		bad = good;                                                        \
		bad.iova = 0x100000;                                               \
		bad.field = (value);                                               \
		assert_int_equal(vfe_pci_domain_map(d, &bad, NULL, NULL), (code)); \
	} while (0)

	EXPECT(-EINVAL, size, 0);
	EXPECT(-EINVAL, size, 100);
	EXPECT(-EINVAL, iova, 0x100001);
	EXPECT(-EINVAL, fd_offset, 1);
	EXPECT(-EINVAL, iova, UINT64_MAX - 0x1fff);
	EXPECT(-EINVAL, fd_offset, UINT64_MAX - 0x1fff);
	EXPECT(-EINVAL, prot, 0);
	EXPECT(-EINVAL, prot, 8);
	EXPECT(-EINVAL, fd, -1);
	EXPECT(-EEXIST, iova, 0x10000);
	EXPECT(-EEXIST, iova, 0x13000);
	EXPECT(-EEXIST, iova, 0xd000);
	assert_int_equal(next_fd(), fd);

	/* right before, right behind, and at the end of the address space */
	EXPECT(0, iova, 0xc000);
	EXPECT(0, iova, 0x14000);
	EXPECT(0, iova, UINT64_MAX - 0x3fff);
	EXPECT(-EEXIST, iova, UINT64_MAX - 0x3fff);
#undef EXPECT
	vfe_pci_domain_destroy(d);
	close(good.fd);
}

static void
test_members_that_share_a_space_are_mapped_once(void **state)
{
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0, 1), b = some_memory(0x10000, 1);
	struct fake_pci one, two;

	(void)state;
	fake_pci_init(&one, "0000:af:00.3");
	fake_pci_init(&two, "0000:af:00.4");
	one.share = two.share = true;
	assert_int_equal(vfe_pci_domain_map(d, &a, NULL, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &one.pci, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &two.pci, NULL), 0);
	assert_int_equal(one.dma_maps, 1);
	assert_int_equal(two.dma_maps, 0);

	/* the first one goes: the other still has everything */
	vfe_pci_domain_detach(d, &one.pci);
	assert_int_equal(one.dma_unmaps, 0);
	assert_int_equal(one.detaches, 1);
	assert_int_equal(vfe_pci_domain_map(d, &b, NULL, NULL), 0);
	assert_int_equal(two.dma_maps, 1);

	/* the last one goes */
	vfe_pci_domain_detach(d, &two.pci);
	assert_int_equal(two.dma_unmaps, 2);
	fake_pci_fini(&one);
	vfe_pci_domain_destroy(d);
	close(a.fd);
	close(b.fd);
}

static void
test_members_map_at_the_same_time(void **state)
{
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0, 1), b = some_memory(0x10000, 1);
	struct fake_pci one, two, dead;
	unsigned int clock = 0;

	(void)state;
	fake_pci_init(&one, "0000:af:00.3");
	fake_pci_init(&dead, "0000:af:00.4");
	fake_pci_init(&two, "0000:af:00.5");
	one.clock = two.clock = dead.clock = &clock;
	assert_int_equal(vfe_pci_domain_attach(d, &one.pci, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &dead.pci, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &two.pci, NULL), 0);
	vfe_pci_abort(&dead.pci);
	assert_int_equal(vfe_pci_domain_map(d, &a, NULL, NULL), 0);
	assert_int_equal(one.begun_at, 1);
	assert_int_equal(two.begun_at, 2);
	assert_int_equal(one.mapped_at, 3);
	assert_int_equal(two.mapped_at, 4);
	assert_int_equal(dead.begun_at + dead.dma_maps, 0);

	/* what has begun is ended, whatever happens in between */
	one.victim = &two;
	assert_int_equal(vfe_pci_domain_map(d, &b, NULL, NULL), 0);
	assert_int_equal(two.begun_at, 6);
	assert_int_equal(two.dma_maps, 2);

	vfe_pci_domain_detach(d, &one.pci);
	vfe_pci_domain_detach(d, &dead.pci);
	vfe_pci_domain_detach(d, &two.pci);
	fake_pci_fini(&two);
	vfe_pci_domain_destroy(d);
	close(a.fd);
	close(b.fd);
}

static void
test_lost_member_is_skipped_but_its_space_is_not(void **state)
{
	struct vfe_pci_domain *d = make_domain();
	struct vfe_pci_dma a = some_memory(0, 1), b = some_memory(0x10000, 1);
	struct fake_pci one, two, own;
	unsigned int lost;

	(void)state;
	fake_pci_init(&one, "0000:af:00.3");
	fake_pci_init(&two, "0000:af:00.4");
	fake_pci_init(&own, "0000:af:00.5");
	two.share = true;
	assert_int_equal(vfe_pci_domain_attach(d, &one.pci, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &two.pci, NULL), 0);
	assert_int_equal(vfe_pci_domain_attach(d, &own.pci, NULL), 0);
	vfe_pci_abort(&one.pci);
	assert_int_equal(vfe_pci_domain_map(d, &a, &lost, NULL), 0);
	assert_int_equal(lost, 0);
	assert_int_equal(one.dma_maps, 0);
	assert_int_equal(two.dma_maps, 1);
	assert_int_equal(own.dma_maps, 1);

	/* a space that fails takes all that share it */
	two.dma_map_result = -ENOSPC;
	atomic_store(&one.error, 0);
	one.dma_map_result = -ENOSPC;
	assert_int_equal(vfe_pci_domain_map(d, &b, &lost, NULL), 0);
	assert_int_equal(lost, 2);
	assert_int_not_equal(vfe_pci_error(&one.pci), 0);
	assert_int_not_equal(vfe_pci_error(&two.pci), 0);
	assert_int_equal(vfe_pci_error(&own.pci), 0);

	vfe_pci_domain_detach(d, &one.pci);
	vfe_pci_domain_detach(d, &two.pci);
	vfe_pci_domain_detach(d, &own.pci);
	assert_int_equal(one.dma_unmaps + two.dma_unmaps, 0);
	assert_int_equal(own.dma_unmaps, 2);
	fake_pci_fini(&two);
	vfe_pci_domain_destroy(d);
	close(a.fd);
	close(b.fd);
}

/* --- discovery --- */

static void
test_find_looks_for_a_socket(void **state)
{
	struct env *e = *state;
	struct vfe_bdf bdf = {0, 0xaf, 0, 2};
	char path[128], expected[160];

	assert_int_equal(vfe_pci_find(&bdf, e->fn.dir, path, sizeof(path), &e->err), 0);
	snprintf(expected, sizeof(expected), "%s/%s.sock", e->fn.dir, BDF);
	assert_string_equal(path, expected);
	assert_int_equal(vfe_pci_find(&bdf, e->fn.dir, path, 10, &e->err), -ENAMETOOLONG);

	bdf.fn = 3;
	assert_int_equal(vfe_pci_find(&bdf, e->fn.dir, path, sizeof(path), &e->err), -ENOENT);
	assert_string_equal(path, "");
	assert_non_null(strstr(e->err.text, "/sys/bus/pci/devices/0000:af:00.3"));
	assert_non_null(strstr(e->err.text, e->fn.dir));

	/* a file of that name is no socket */
	snprintf(expected, sizeof(expected), "%s/0000:af:00.3.sock", e->fn.dir);
	close(open(expected, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(vfe_pci_find(&bdf, e->fn.dir, path, sizeof(path), &e->err), -ENOENT);
	unlink(expected);
}

/* An SR-IOV capability behind another one. */
static struct vfe_wire_sriov_cap *
put_sriov(struct fake_pci *f)
{
	struct vfe_wire_sriov_cap *cap = (void *)&f->config[0x140];
	uint32_t ari = htole32(VFE_PCI_EXT_CAP_ARI | 1 << 16 | 0x140u << 20);

	memcpy(&f->config[0x100], &ari, sizeof(ari));
	cap->header = htole32(VFE_PCI_EXT_CAP_SRIOV | 1 << 16);
	cap->ctrl = htole16(VFE_PCI_SRIOV_CTRL_VFE | VFE_PCI_SRIOV_CTRL_MSE);
	cap->total_vfs = htole16(8);
	cap->num_vfs = htole16(4);
	cap->first_vf_offset = htole16(16);
	cap->vf_stride = htole16(2);
	cap->vf_device_id = htole16(0x1041);
	return cap;
}

static void
test_sriov_capability(void **state)
{
	struct vfe_wire_sriov_cap *cap;
	struct vfe_pci_sriov s;
	struct fake_pci f;

	(void)state;
	fake_pci_init(&f, BDF);
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), 0);
	assert_int_equal(s.total_vfs, 0);

	cap = put_sriov(&f);
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), 0);
	assert_int_equal(s.total_vfs, 8);
	assert_int_equal(s.num_vfs, 4);
	assert_int_equal(s.first_vf_offset, 16);
	assert_int_equal(s.vf_stride, 2);
	assert_int_equal(s.vf_device_id, 0x1041);

	cap->ctrl = 0;
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), 0);
	assert_int_equal(s.num_vfs, 0);
	cap->num_vfs = htole16(9);
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), -EPROTO);

	f.pci.config_size = VFE_PCI_CFG_SIZE;
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), 0);
	assert_int_equal(s.total_vfs, 0);
}

static void
test_broken_lists_of_extended_capabilities(void **state)
{
	static const struct {
		uint32_t next;
		int rc;
	} cases[] = {
		{0x100, -EPROTO}, /* itself */
		{0x0fc, -EPROTO}, /* before the begin */
		{0x142, -EPROTO}, /* not aligned */
		{0xffc, 0},       /* the last word, empty */
		{0x000, 0},
	};
	struct vfe_pci_sriov s;
	struct fake_pci f;
	uint32_t header;
	unsigned int i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(cases); i++) {
		fake_pci_init(&f, BDF);
		header = htole32(VFE_PCI_EXT_CAP_ARI | cases[i].next << 20);
		memcpy(&f.config[0x100], &header, sizeof(header));
		assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), cases[i].rc);
	}

	/* the capability itself does not fit */
	fake_pci_init(&f, BDF);
	header = htole32(VFE_PCI_EXT_CAP_ARI | 0xfc4u << 20);
	memcpy(&f.config[0x100], &header, sizeof(header));
	header = htole32(VFE_PCI_EXT_CAP_SRIOV);
	memcpy(&f.config[0xfc4], &header, sizeof(header));
	assert_int_equal(vfe_pci_sriov_get(&f.pci, &s, NULL), -ERANGE);
}

static int
vf_index(const struct vfe_pci_sriov *s, const char *pf, const char *vf)
{
	struct vfe_bdf p, v;

	assert_int_equal(vfe_bdf_parse(pf, &p), 0);
	assert_int_equal(vfe_bdf_parse(vf, &v), 0);
	return vfe_pci_sriov_vf_index(&p, s, &v);
}

static void
test_vf_addresses(void **state)
{
	struct vfe_pci_sriov s = {.total_vfs = 4, .first_vf_offset = 16, .vf_stride = 2};

	(void)state;
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:02.0"), 0);
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:02.2"), 1);
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:02.6"), 3);
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:03.0"), -ENODEV); /* one more */
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:02.1"), -ENODEV); /* between */
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:00.0"), -ENODEV); /* the PF */
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0001:af:02.0"), -ENODEV); /* domain */
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:ae:02.0"), -ENODEV); /* before */

	/* into the next bus */
	s.first_vf_offset = 0x100;
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:b0:00.0"), 0);
	s.vf_stride = 0;
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:b0:00.0"), 0);
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:b0:00.1"), -ENODEV);
	memset(&s, 0, sizeof(s));
	assert_int_equal(vf_index(&s, "0000:af:00.0", "0000:af:00.1"), -ENODEV);
}

#define OPENED(test) cmocka_unit_test_setup_teardown(test, setup_open, teardown)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		OPENED(test_open_learns_the_layout),
		CLOSED(test_open_without_socket_names_the_path),
		OPENED(test_open_twice_is_busy),
		CLOSED(test_open_refuses_a_strange_configuration_space),
		CLOSED(test_open_and_close_leave_no_fd),
		OPENED(test_config_access_and_its_edges),
		OPENED(test_bar_access_by_message_and_its_edges),
		OPENED(test_mapped_registers_send_no_message),
		OPENED(test_doorbell_by_mapping),
		OPENED(test_doorbell_by_io_fd),
		OPENED(test_doorbell_whose_eventfd_is_full_does_not_block),
		OPENED(test_doorbell_by_posted_message),
		OPENED(test_doorbell_edges),
		OPENED(test_area_behind_the_end_of_its_file_is_refused),
		OPENED(test_file_shrunk_under_a_mapping_loses_the_device_only),
		OPENED(test_interrupts_reach_the_eventfd_of_their_vector),
		OPENED(test_reset_and_bus_master),
		OPENED(test_server_that_goes_makes_the_device_lost),
		CLOSED(test_register_that_is_never_answered_times_out),
		CLOSED(test_abort_ends_a_call_in_flight),
		CLOSED(test_device_attached_late_gets_all_mappings),
		OPENED(test_close_withdraws_mappings_and_interrupts),
		OPENED(test_refused_mapping_loses_that_member_only),
		OPENED(test_failed_attach_leaves_nothing_mapped),
		cmocka_unit_test(test_mappings_that_make_no_sense),
		cmocka_unit_test(test_members_that_share_a_space_are_mapped_once),
		cmocka_unit_test(test_members_map_at_the_same_time),
		cmocka_unit_test(test_lost_member_is_skipped_but_its_space_is_not),
		CLOSED(test_find_looks_for_a_socket),
		cmocka_unit_test(test_sriov_capability),
		cmocka_unit_test(test_broken_lists_of_extended_capabilities),
		cmocka_unit_test(test_vf_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
