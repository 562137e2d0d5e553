/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user: our client against our server, everything that both sides promise.
 */

#undef NDEBUG

#include "fixture.h"

#include "vfe_sigbus.h"

#include <errno.h>
#include <linux/memfd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

struct pair {
	struct device *dev;
	struct vfe_vfu_client *client;
	int first_fd; /* before everything */
};

static struct vfe_vfu_client *
connect_client(struct device *dev)
{
	struct vfe_vfu_client *client = NULL;
	struct vfe_error err = {""};

	if (vfe_vfu_client_connect(dev->path, FIX_WAIT_MS, &client, &err) < 0)
		fail_msg("%s", err.text);
	return client;
}

static int
setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	assert_non_null(pair);
	pair->first_fd = next_fd();
	pair->dev = device_start(0);
	pair->client = connect_client(pair->dev);
	*state = pair;
	return 0;
}

static int
teardown(void **state)
{
	struct pair *pair = *state;

	vfe_vfu_client_close(pair->client);
	device_stop(pair->dev);
	assert_int_equal(next_fd(), pair->first_fd);
	free(pair);
	return 0;
}

static void
device_describes_itself(void **state)
{
	struct pair *pair = *state;
	uint32_t flags, regions, irqs, count;

	assert_int_equal(
		vfe_vfu_client_device_info(pair->client, &flags, &regions, &irqs, NULL), 0);
	assert_int_equal(flags, VFE_VFU_DEVICE_F_PCI | VFE_VFU_DEVICE_F_RESET);
	assert_int_equal(regions, VFE_VFU_NR_REGIONS);
	assert_int_equal(irqs, VFE_VFU_NR_IRQS);
	assert_int_equal(vfe_vfu_client_irq_info(pair->client, VFE_VFU_IRQ_MSIX, &count, NULL), 0);
	assert_int_equal(count, FIX_VECTORS);
	assert_int_equal(vfe_vfu_client_irq_info(pair->client, VFE_VFU_IRQ_INTX, &count, NULL), 0);
	assert_int_equal(count, 0);
	assert_int_equal(
		vfe_vfu_client_irq_info(pair->client, VFE_VFU_NR_IRQS, &count, NULL), -EINVAL);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);
}

static void
region_info_of_every_kind(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_region region;
	uint32_t i;

	assert_int_equal(vfe_vfu_client_region_info(pair->client, 0, &region, NULL), 0);
	assert_int_equal(region.size, FIX_BAR_SIZE);
	assert_int_equal(region.fd, -1);
	assert_int_equal(region.nr_areas, 0);
	vfe_vfu_region_fini(&region);

	assert_int_equal(vfe_vfu_client_region_info(pair->client, 1, &region, NULL), 0);
	assert_true(region.fd >= 0);
	assert_int_equal(region.nr_areas, 1); /* none named: everything */
	assert_int_equal(region.areas[0].size, FIX_PAGE);
	vfe_vfu_region_fini(&region);
	vfe_vfu_region_fini(&region); /* twice is fine */

	/* more areas than fit the first request: asked twice */
	assert_int_equal(vfe_vfu_client_region_info(pair->client, 4, &region, NULL), 0);
	assert_true(region.fd >= 0);
	assert_int_equal(region.offset, FIX_PAGE);
	assert_int_equal(region.nr_areas, FIX_NR_AREAS);
	for (i = 0; i < FIX_NR_AREAS; i++) {
		assert_int_equal(region.areas[i].offset, i * FIX_PAGE);
		assert_int_equal(region.areas[i].size, FIX_PAGE);
	}
	vfe_vfu_region_fini(&region);

	assert_int_equal(vfe_vfu_client_region_info(pair->client, 5, &region, NULL), 0);
	assert_int_equal(region.size, 0);
	vfe_vfu_region_fini(&region);
	assert_int_equal(vfe_vfu_client_region_info(pair->client, 9, &region, NULL), -EINVAL);
}

static void
doorbell_write_reaches_the_device_memory(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_region region;
	uint8_t *client_page, *device_page;

	assert_int_equal(vfe_vfu_client_region_info(pair->client, 4, &region, NULL), 0);
	client_page = mmap(NULL, FIX_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, region.fd,
		(off_t)(region.offset + region.areas[3].offset));
	assert_true(client_page != MAP_FAILED);
	device_page = mmap(NULL, FIX_PAGE, PROT_READ, MAP_SHARED, pair->dev->doorbell_fd,
		FIX_PAGE + 3 * FIX_PAGE);
	assert_true(device_page != MAP_FAILED);
	client_page[17] = 0x5a;
	assert_int_equal(device_page[17], 0x5a);
	munmap(client_page, FIX_PAGE);
	munmap(device_page, FIX_PAGE);
	vfe_vfu_region_fini(&region);
}

static void
io_fds_shared_and_limited_to_one_message(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_io_fd *fds;
	eventfd_t value;
	uint32_t i, n;

	assert_int_equal(vfe_vfu_client_region_io_fds(pair->client, 4, &fds, &n, NULL), 0);
	assert_int_equal(n, FIX_NR_IO_FDS); /* 150 different fds in one message */
	for (i = 0; i < n; i++) {
		assert_int_equal(fds[i].offset, i * 4);
		assert_int_equal(fds[i].size, 2);
	}
	assert_int_equal(eventfd_write(fds[8].fd, 1), 0);
	assert_int_equal(eventfd_write(fds[9].fd, 1), 0);
	assert_int_equal(eventfd_read(pair->dev->io_fds[8].fd, &value), 0);
	assert_int_equal(value, 2);
	assert_int_equal(eventfd_read(pair->dev->io_fds[10].fd, &value), -1);
	vfe_vfu_io_fds_free(fds, n);

	assert_int_equal(vfe_vfu_client_region_io_fds(pair->client, 0, &fds, &n, NULL), 0);
	assert_int_equal(n, 0);
	vfe_vfu_io_fds_free(fds, n);
}

static void
region_access_small_and_split(void **state)
{
	struct pair *pair = *state;
	uint8_t *buf = malloc(FIX_BIG_SIZE);
	uint32_t value = 0x12345678, back = 0;

	assert_non_null(buf);
	assert_int_equal(
		vfe_vfu_client_region_write(pair->client, 0, 20, &value, sizeof(value), NULL), 0);
	assert_int_equal(
		vfe_vfu_client_region_read(pair->client, 0, 20, &back, sizeof(back), NULL), 0);
	assert_int_equal(back, value);

	/* three transfers of the greatest size */
	assert_int_equal(
		vfe_vfu_client_region_read(pair->client, 2, 0, buf, FIX_BIG_SIZE, NULL), 0);
	assert_memory_equal(buf, pair->dev->big, FIX_BIG_SIZE);
	memset(buf, 0x77, FIX_BIG_SIZE);
	assert_int_equal(
		vfe_vfu_client_region_write(pair->client, 2, 1, buf, FIX_BIG_SIZE - 1, NULL), 0);
	assert_int_equal(pair->dev->big[0], 0);
	assert_memory_equal(buf, pair->dev->big + 1, FIX_BIG_SIZE - 1);
	free(buf);
}

static void
region_access_outside_is_refused(void **state)
{
	static const struct {
		uint32_t region;
		uint64_t offset;
		size_t len;
		int error;
	} bad[] = {
		{0, FIX_BAR_SIZE, 1, -EINVAL},
		{0, FIX_BAR_SIZE - 3, 4, -EINVAL},
		{0, UINT64_MAX, 1, -EINVAL},
		{0, UINT64_MAX - 3, 8, -EINVAL},
		{5, 0, 1, -EINVAL},
		{9, 0, 4, -EINVAL},
		{UINT32_MAX, 0, 4, -EINVAL},
		{4, 0, 4, -EPERM},
	};
	struct pair *pair = *state;
	uint8_t buf[8] = {0};
	struct vfe_error err;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		assert_int_equal(vfe_vfu_client_region_read(pair->client, bad[i].region,
					 bad[i].offset, buf, bad[i].len, &err),
			bad[i].error);
	assert_int_equal(vfe_vfu_client_region_write(pair->client, 1, 0, buf, 1, &err), -EPERM);
	assert_int_equal(pair->dev->writes, 0);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);
}

static void
error_of_the_device_arrives(void **state)
{
	struct pair *pair = *state;
	struct vfe_error err;
	uint8_t byte = 0;

	pair->dev->refuse = -EBUSY;
	assert_int_equal(vfe_vfu_client_region_read(pair->client, 0, 0, &byte, 1, &err), -EBUSY);
	assert_non_null(strstr(err.text, "REGION_READ"));
	pair->dev->refuse = -ENODEV;
	assert_int_equal(vfe_vfu_client_reset(pair->client, &err), -ENODEV);
	assert_int_equal(vfe_vfu_client_reset(pair->client, &err), 0);
	assert_int_equal(pair->dev->resets, 2);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);
}

static void
posted_writes_arrive_in_order(void **state)
{
	struct pair *pair = *state;
	uint32_t i, back = 0, posted = 0;
	int ret;

	for (i = 1; i <= 1000; i++) {
		ret = vfe_vfu_client_region_post(pair->client, 0, 8, &i, sizeof(i));
		assert_true(ret == 0 || ret == -EAGAIN);
		posted += ret == 0;
		if (ret == -EAGAIN)
			break;
	}
	/* the reply to a later command says that all posts are done */
	assert_int_equal(
		vfe_vfu_client_region_read(pair->client, 0, 8, &back, sizeof(back), NULL), 0);
	assert_int_equal(back, posted);
	assert_int_equal(pair->dev->writes, posted);

	/* an error has no reply either */
	assert_int_equal(vfe_vfu_client_region_post(pair->client, 77, 8, &i, sizeof(i)), 0);
	assert_int_equal(vfe_vfu_client_reset(pair->client, NULL), 0);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);
}

/* Signal what the device holds for @vector and expect it on @fd. */
static void
expect_irq(struct device *dev, uint32_t vector, int fd)
{
	eventfd_t value = 0;

	assert_true(dev->irq_fds[vector] >= 0);
	assert_int_equal(eventfd_write(dev->irq_fds[vector], 1), 0);
	assert_int_equal(eventfd_read(fd, &value), 0);
	assert_int_equal(value, 1);
}

static void
irq_fds_in_slices_and_runs(void **state)
{
	struct pair *pair = *state;
	struct device *dev = pair->dev;
	int fds[FIX_VECTORS];
	uint32_t i;

	for (i = 0; i < FIX_VECTORS; i++) {
		fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		assert_true(fds[i] >= 0);
	}
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 0, FIX_VECTORS, fds, NULL),
		0);
	assert_int_equal(dev->irq_sets, 3); /* 253 + 253 + 94 */
	for (i = 0; i < FIX_VECTORS; i++)
		expect_irq(dev, i, fds[i]);

	/* withdraw 10 and 11 of 9..12, the others move by one */
	assert_int_equal(vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 9, 4,
				 (int[]){fds[10], -1, -1, fds[13]}, NULL),
		0);
	assert_int_equal(dev->irq_sets, 6);
	expect_irq(dev, 9, fds[10]);
	assert_int_equal(dev->irq_fds[10], -1);
	assert_int_equal(dev->irq_fds[11], -1);
	expect_irq(dev, 12, fds[13]);
	expect_irq(dev, 13, fds[13]);

	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 0, 0, NULL, NULL), 0);
	for (i = 0; i < FIX_VECTORS; i++)
		assert_int_equal(dev->irq_fds[i], -1);
	vfe_close_all(fds, FIX_VECTORS);
}

static void
irq_set_outside_or_refused(void **state)
{
	struct pair *pair = *state;
	int fd = eventfd(0, EFD_CLOEXEC), memory = open_memory(FIX_PAGE);
	int fds[3] = {fd, fd, fd};
	struct vfe_error err;

	assert_int_equal(vfe_vfu_client_irq_set(
				 pair->client, VFE_VFU_IRQ_MSIX, FIX_VECTORS - 2, 3, fds, &err),
		-EINVAL);
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSI, 0, 1, fds, &err), -EINVAL);
	assert_int_equal(vfe_vfu_client_irq_set(pair->client, 5, 0, 1, fds, &err), -EINVAL);
	assert_int_equal(vfe_vfu_client_irq_set(pair->client, 5, 0, 0, NULL, &err), -EINVAL);
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, UINT32_MAX, 1, fds, &err),
		-EINVAL);
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 0, 1, &memory, &err),
		-EINVAL);
	pair->dev->refuse = -ENOSPC;
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 0, 3, fds, &err), -ENOSPC);
	assert_int_equal(pair->dev->irq_sets, 1);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);
	close(fd);
	close(memory);
}

static void
dma_memory_is_shared_both_ways(void **state)
{
	const uint32_t rw = VFE_VFU_DMA_F_READ | VFE_VFU_DMA_F_WRITE;
	struct pair *pair = *state;
	int fd = open_memory(8 * FIX_PAGE);
	uint8_t *mine, *theirs;

	mine = mmap(NULL, 8 * FIX_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(mine != MAP_FAILED);
	assert_int_equal(vfe_vfu_client_dma_map(
				 pair->client, 0x100000, 4 * FIX_PAGE, rw, fd, 2 * FIX_PAGE, NULL),
		0);
	assert_int_equal(pair->dev->nr_maps, 1);
	assert_int_equal(pair->dev->maps[0]->iova, 0x100000);
	assert_int_equal(pair->dev->maps[0]->size, 4 * FIX_PAGE);
	assert_int_equal(pair->dev->maps[0]->prot, rw);
	theirs = pair->dev->maps[0]->va;
	mine[2 * FIX_PAGE + 5] = 0x42;
	assert_int_equal(theirs[5], 0x42);
	theirs[4 * FIX_PAGE - 1] = 0x43;
	assert_int_equal(mine[6 * FIX_PAGE - 1], 0x43);

	assert_int_equal(vfe_vfu_client_dma_unmap(pair->client, 0x100000, 4 * FIX_PAGE, NULL), 0);
	assert_int_equal(pair->dev->nr_maps, 0);
	munmap(mine, 8 * FIX_PAGE);
	close(fd);
}

/* In any order, with other commands in between; one that is refused says so at its end. */
static void
dma_maps_in_two_halves(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_call *calls[3];
	int fd = open_memory(8 * FIX_PAGE);
	uint32_t i, count;

	for (i = 0; i < 3; i++)
		assert_int_equal(
			vfe_vfu_client_dma_map_begin(pair->client, (i == 2 ? 0 : i) * 0x100000,
				FIX_PAGE, VFE_VFU_DMA_F_READ, fd, 0, &calls[i], NULL),
			0);
	assert_int_equal(vfe_vfu_client_irq_info(pair->client, VFE_VFU_IRQ_MSIX, &count, NULL), 0);
	assert_true(vfe_vfu_client_dma_map_end(pair->client, calls[2], NULL) < 0);
	assert_int_equal(vfe_vfu_client_dma_map_end(pair->client, calls[1], NULL), 0);
	assert_int_equal(vfe_vfu_client_dma_map_end(pair->client, calls[0], NULL), 0);
	assert_int_equal(pair->dev->nr_maps, 2);
	assert_int_equal(vfe_vfu_client_error(pair->client), 0);

	/* the end comes whatever happens to the client */
	assert_int_equal(vfe_vfu_client_dma_map_begin(pair->client, 0x300000, FIX_PAGE,
				 VFE_VFU_DMA_F_READ, fd, 0, &calls[0], NULL),
		0);
	vfe_vfu_client_abort(pair->client, -ENODEV);
	assert_int_equal(vfe_vfu_client_dma_map_begin(pair->client, 0x400000, FIX_PAGE,
				 VFE_VFU_DMA_F_READ, fd, 0, &calls[1], NULL),
		0);
	assert_true(vfe_vfu_client_dma_map_end(pair->client, calls[1], NULL) < 0);
	assert_true(vfe_vfu_client_dma_map_end(pair->client, calls[0], NULL) < 0);
	close(fd);
}

static void
dma_map_bad_arguments(void **state)
{
	const uint64_t size = 4 * FIX_PAGE;
	const struct {
		uint64_t iova, size, offset;
		uint32_t prot;
		int error;
	} bad[] = {
		{0x200000, 0, 0, 3, -EINVAL},
		{0x200001, FIX_PAGE, 0, 3, -EINVAL},
		{0x200000, FIX_PAGE + 1, 0, 3, -EINVAL},
		{0x200000, FIX_PAGE, 17, 3, -EINVAL},
		{UINT64_MAX - FIX_PAGE + 1, 2 * FIX_PAGE, 0, 3, -EINVAL},
		{0x200000, UINT64_MAX - FIX_PAGE + 1, 0, 3, -EINVAL},
		{0x200000, FIX_PAGE, UINT64_MAX - FIX_PAGE + 1, 3, -EINVAL},
		{0x200000, FIX_PAGE, 0, 0, -EINVAL},
		{0x200000, FIX_PAGE, 0, 4, -EINVAL},
		{0x200000, size + FIX_PAGE, 0, 3, -EINVAL}, /* behind the end of the file */
		{0x200000, size, FIX_PAGE, 3, -EINVAL},
		{0x200000, FIX_PAGE, size, 3, -EINVAL},
		{0x100000 - FIX_PAGE, 2 * FIX_PAGE, 0, 3, -EEXIST},
		{0x100000, FIX_PAGE, 0, 3, -EEXIST},
		{0x100000 + FIX_PAGE, FIX_PAGE, 0, 3, -EEXIST},
		{0x100000 - FIX_PAGE, 4 * FIX_PAGE, 0, 3, -EEXIST},
	};
	struct pair *pair = *state;
	int fd = open_memory(size), event = eventfd(0, EFD_CLOEXEC);
	struct vfe_error err;
	size_t i;

	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x100000, 2 * FIX_PAGE, 3, fd, 0, &err), 0);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++)
		assert_int_equal(vfe_vfu_client_dma_map(pair->client, bad[i].iova, bad[i].size,
					 bad[i].prot, fd, bad[i].offset, &err),
			bad[i].error);
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x200000, FIX_PAGE, 3, event, 0, &err),
		-EINVAL);
	pair->dev->refuse = -EPERM;
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x200000, FIX_PAGE, 3, fd, 0, &err), -EPERM);

	/* neighbours do not overlap, and the last page of the address space is legal */
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x102000, FIX_PAGE, 3, fd, 0, &err), 0);
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x0ff000, FIX_PAGE, 3, fd, 0, &err), 0);
	assert_int_equal(vfe_vfu_client_dma_map(
				 pair->client, UINT64_MAX - FIX_PAGE + 1, FIX_PAGE, 3, fd, 0, &err),
		0);
	assert_int_equal(pair->dev->nr_maps, 4);

	/* unmap must match exactly */
	assert_int_equal(vfe_vfu_client_dma_unmap(pair->client, 0x100000, FIX_PAGE, &err), -ENOENT);
	assert_int_equal(vfe_vfu_client_dma_unmap(pair->client, 0x101000, FIX_PAGE, &err), -ENOENT);
	assert_int_equal(
		vfe_vfu_client_dma_unmap(pair->client, 0x0ff000, 4 * FIX_PAGE, &err), -ENOENT);
	assert_int_equal(pair->dev->nr_maps, 4);
	close(fd);
	close(event);
}

static void
dma_maps_up_to_the_limit(void **state)
{
	struct pair *pair = *state;
	int fd = open_memory(FIX_PAGE);
	uint64_t i;

	/* from above and below, so that insertion happens in the middle */
	for (i = 0; i < VFE_VFU_SERVER_MAX_DMA_MAPS; i++) {
		uint64_t slot = i % 2 == 0 ? i : 2 * VFE_VFU_SERVER_MAX_DMA_MAPS - i;

		assert_int_equal(vfe_vfu_client_dma_map(pair->client, slot * 2 * FIX_PAGE, FIX_PAGE,
					 VFE_VFU_DMA_F_READ, fd, 0, NULL),
			0);
	}
	assert_int_equal(vfe_vfu_client_dma_map(
				 pair->client, FIX_PAGE, FIX_PAGE, VFE_VFU_DMA_F_READ, fd, 0, NULL),
		-ENOSPC);
	assert_int_equal(vfe_vfu_client_dma_unmap(pair->client, 0, FIX_PAGE, NULL), 0);
	assert_int_equal(vfe_vfu_client_dma_map(
				 pair->client, FIX_PAGE, FIX_PAGE, VFE_VFU_DMA_F_READ, fd, 0, NULL),
		0);
	close(fd);
}

static void
shrunk_memory_trips_one_mapping(void **state)
{
	struct pair *pair = *state;
	int fd = open_memory(2 * FIX_PAGE), other = open_memory(FIX_PAGE);
	struct vfe_vfu_dma *dma, *good;

	assert_int_equal(vfe_sigbus_install(), 0);
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x100000, 2 * FIX_PAGE, 3, fd, 0, NULL), 0);
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x200000, FIX_PAGE, 3, other, 0, NULL), 0);
	dma = pair->dev->maps[0];
	good = pair->dev->maps[1];
	assert_int_equal(ftruncate(fd, FIX_PAGE), 0);
	assert_false(atomic_load(&dma->tripped));
	((volatile uint8_t *)dma->va)[FIX_PAGE] = 1;
	assert_true(atomic_load(&dma->tripped));
	assert_false(atomic_load(&good->tripped));
	close(fd);
	close(other);
}

static void
part_of_a_huge_page_is_mapped_and_unmapped(void **state)
{
	const uint64_t huge = 2 << 20;
	struct pair *pair = *state;
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB);
	struct vfe_error err = {""};
	unsigned char vec;
	uint8_t *va;

	if (fd < 0)
		skip();
	assert_int_equal(ftruncate(fd, (off_t)(2 * huge)), 0);
	/* as QEMU does around 640 KiB; write only, so that nobody needs a real huge page */
	if (vfe_vfu_client_dma_map(pair->client, 0x300000, FIX_PAGE, VFE_VFU_DMA_F_WRITE, fd,
		    huge + 3 * FIX_PAGE, &err) < 0)
		fail_msg("%s", err.text);
	va = pair->dev->maps[0]->va;
	assert_int_equal((uintptr_t)va % huge, 3 * FIX_PAGE);
	assert_int_equal(mincore(va - 3 * FIX_PAGE, FIX_PAGE, &vec), 0);
	assert_int_equal(vfe_vfu_client_dma_unmap(pair->client, 0x300000, FIX_PAGE, NULL), 0);
	assert_int_equal(mincore(va - 3 * FIX_PAGE, FIX_PAGE, &vec), -1);
	assert_int_equal(errno, ENOMEM); /* nothing is left */
	close(fd);
}

static void
everything_is_withdrawn_when_the_client_goes(void **state)
{
	struct pair *pair = *state;
	struct device *dev = pair->dev;
	int memory = open_memory(FIX_PAGE), fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	dev->bar[0] = 0x99;
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x100000, FIX_PAGE, 3, memory, 0, NULL), 0);
	assert_int_equal(
		vfe_vfu_client_irq_set(pair->client, VFE_VFU_IRQ_MSIX, 7, 1, &fd, NULL), 0);
	vfe_vfu_client_close(pair->client);
	device_wait_disconnects(dev, 1);
	assert_int_equal(dev->nr_maps, 0);
	assert_int_equal(dev->irq_fds[7], -1);
	device_expect_error(dev, "hung up");

	pair->client = connect_client(dev);
	assert_int_equal(
		vfe_vfu_client_dma_map(pair->client, 0x100000, FIX_PAGE, 3, memory, 0, NULL), 0);
	assert_int_equal(dev->bar[0], 0x99); /* the device keeps its state */
	close(memory);
	close(fd);
}

static void
second_client_is_turned_away(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_client *second;
	struct vfe_error err;

	assert_int_equal(
		vfe_vfu_client_connect(pair->dev->path, FIX_WAIT_MS, &second, &err), -ECONNRESET);
	assert_int_equal(vfe_vfu_client_reset(pair->client, NULL), 0);
}

static void
kick_out(struct device *dev, void *arg)
{
	vfe_vfu_server_kick_out(dev->server, arg);
}

static void
is_connected(struct device *dev, void *arg)
{
	*(bool *)arg = vfe_vfu_server_connected(dev->server);
}

static void
kicked_out_from_outside_and_from_within(void **state)
{
	struct pair *pair = *state;
	char why[] = "its memory is gone";
	uint8_t byte = 1;
	bool connected;
	int ret;

	device_run(pair->dev, is_connected, &connected);
	assert_true(connected);
	device_run(pair->dev, kick_out, why);
	device_wait_disconnects(pair->dev, 1);
	device_expect_error(pair->dev, why);
	device_run(pair->dev, is_connected, &connected);
	assert_false(connected);
	device_run(pair->dev, kick_out, why); /* nobody there: nothing happens */
	assert_int_equal(vfe_vfu_client_reset(pair->client, NULL), -ECONNRESET);
	assert_int_equal(vfe_vfu_client_error(pair->client), -ECONNRESET);
	vfe_vfu_client_close(pair->client);

	pair->client = connect_client(pair->dev);
	pair->dev->kick_out_on_write = true;
	ret = vfe_vfu_client_region_write(pair->client, 0, 0, &byte, 1, NULL);
	assert_true(ret == 0 || ret == -ECONNRESET);
	device_wait_disconnects(pair->dev, 2);
	device_expect_error(pair->dev, "kicked out by the device");
}

struct hammer {
	struct vfe_vfu_client *client;
	uint32_t slot;
	int failures;
};

static void *
hammer_main(void *arg)
{
	struct hammer *hammer = arg;
	uint64_t value, back, i;

	for (i = 0; i < 300; i++) {
		value = i << 8 | hammer->slot;
		if (vfe_vfu_client_region_write(
			    hammer->client, 0, hammer->slot * 8, &value, sizeof(value), NULL) < 0 ||
			vfe_vfu_client_region_read(hammer->client, 0, hammer->slot * 8, &back,
				sizeof(back), NULL) < 0 ||
			back != value)
			hammer->failures++;
		(void)vfe_vfu_client_region_post(
			hammer->client, 0, 4096 + hammer->slot * 8, &value, sizeof(value));
	}
	return NULL;
}

static void
many_threads_on_one_client(void **state)
{
	struct pair *pair = *state;
	struct hammer hammers[8];
	pthread_t threads[8];
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(threads); i++) {
		hammers[i] = (struct hammer){pair->client, (uint32_t)i, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
	}
	for (i = 0; i < VFE_ARRAY_SIZE(threads); i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(hammers[i].failures, 0);
	}
}

static void
reconnect_storm(void **state)
{
	struct pair *pair = *state;
	uint32_t i;

	for (i = 0; i < 200; i++) {
		vfe_vfu_client_close(pair->client);
		device_wait_disconnects(pair->dev, i + 1);
		pair->client = connect_client(pair->dev);
	}
	assert_int_equal(vfe_vfu_client_reset(pair->client, NULL), 0);
}

static void
server_socket_is_replaced_only_when_dead(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_server *second = NULL;
	struct vfe_vfu_server_cfg cfg = pair->dev->cfg;
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct vfe_error err = {""};
	char plain[] = "/tmp/vfe-vfu-plain-XXXXXX";
	int fd;

	assert_non_null(loop);
	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &second, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "0000:af:00.2"));

	/* a file that is no socket stays */
	fd = mkstemp(plain);
	assert_true(fd >= 0);
	close(fd);
	cfg.path = plain;
	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &second, &err), -EEXIST);
	assert_int_equal(unlink(plain), 0);

	/* a path that is too long, and one in no directory */
	cfg.path = "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"
		   "01234567890123456789012345678901234567890";
	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &second, &err), -ENAMETOOLONG);
	cfg.path = "/tmp/vfe-no-such-directory/x.sock";
	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &second, &err), -ENOENT);
	assert_null(second);
	ev_loop_destroy(loop);
}

static void
left_over_socket_is_replaced(void **state)
{
	struct pair *pair = *state;
	struct vfe_vfu_server_cfg cfg = pair->dev->cfg;
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	struct vfe_vfu_server *server;
	char path[64], old[96];

	assert_non_null(loop);
	assert_int_equal(vfe_str_format(path, sizeof(path), "%s/x", pair->dev->dir), 0);
	cfg.path = path;
	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &server, NULL), 0);
	/* as after a crash: the name stays, the listener goes */
	assert_int_equal(vfe_str_format(old, sizeof(old), "%s.old", path), 0);
	assert_int_equal(rename(path, old), 0);
	vfe_vfu_server_destroy(server);
	assert_int_equal(rename(old, path), 0);

	assert_int_equal(vfe_vfu_server_create(loop, &cfg, &server, NULL), 0);
	vfe_vfu_server_destroy(server);
	assert_int_equal(access(path, F_OK), -1);
	ev_loop_destroy(loop);
}

#define PAIR_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PAIR_TEST(device_describes_itself),
		PAIR_TEST(region_info_of_every_kind),
		PAIR_TEST(doorbell_write_reaches_the_device_memory),
		PAIR_TEST(io_fds_shared_and_limited_to_one_message),
		PAIR_TEST(region_access_small_and_split),
		PAIR_TEST(region_access_outside_is_refused),
		PAIR_TEST(error_of_the_device_arrives),
		PAIR_TEST(posted_writes_arrive_in_order),
		PAIR_TEST(irq_fds_in_slices_and_runs),
		PAIR_TEST(irq_set_outside_or_refused),
		PAIR_TEST(dma_memory_is_shared_both_ways),
		PAIR_TEST(dma_maps_in_two_halves),
		PAIR_TEST(dma_map_bad_arguments),
		PAIR_TEST(dma_maps_up_to_the_limit),
		PAIR_TEST(shrunk_memory_trips_one_mapping),
		PAIR_TEST(part_of_a_huge_page_is_mapped_and_unmapped),
		PAIR_TEST(everything_is_withdrawn_when_the_client_goes),
		PAIR_TEST(second_client_is_turned_away),
		PAIR_TEST(kicked_out_from_outside_and_from_within),
		PAIR_TEST(many_threads_on_one_client),
		PAIR_TEST(reconnect_storm),
		PAIR_TEST(server_socket_is_replaced_only_when_dead),
		PAIR_TEST(left_over_socket_is_replaced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
