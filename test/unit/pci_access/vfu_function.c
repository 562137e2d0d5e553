/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For tests: a PCI function behind a real vfio-user server, whose loop runs in a thread.
 */

#undef NDEBUG

#include "vfu_function.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vfe_base.h"

static uint8_t *
region_bytes(struct vfu_function *fn, uint32_t region)
{
	switch (region) {
	case 0:
		return fn->bar0;
	case 2:
		return fn->bar2;
	default:
		return fn->config;
	}
}

static int
region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, uint32_t len)
{
	struct vfu_function *fn = ctx;

	if (region == 0 && atomic_load(&fn->hang))
		atomic_fetch_add(&fn->hanging, 1);
	while (region == 0 && atomic_load(&fn->hang) && !atomic_load(&fn->stop))
		poll(NULL, 0, 1);
	if (region == 0 && fn->bar0_read != NULL)
		return fn->bar0_read(fn->bar0_ctx, offset, buf, len);
	memcpy(buf, region_bytes(fn, region) + offset, len);
	return 0;
}

static int
region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, uint32_t len)
{
	struct vfu_function *fn = ctx;

	if (region == 0 && fn->bar0_write != NULL)
		return fn->bar0_write(fn->bar0_ctx, offset, buf, len);
	memcpy(region_bytes(fn, region) + offset, buf, len);
	if (region == 2)
		atomic_fetch_add(&fn->bar2_writes, 1);
	return 0;
}

static int
dma_map(void *ctx, struct vfe_vfu_dma *dma)
{
	struct vfu_function *fn = ctx;
	unsigned int i;
	int rc = atomic_load(&fn->dma_map_result);

	if (rc < 0)
		return rc;
	for (i = 0; i < FN_MAX_MAPS; i++) {
		if (fn->maps[i] == NULL) {
			fn->maps[i] = dma;
			atomic_fetch_add(&fn->nr_maps, 1);
			return 0;
		}
	}
	return -ENOSPC;
}

static void
dma_unmap(void *ctx, struct vfe_vfu_dma *dma)
{
	struct vfu_function *fn = ctx;
	unsigned int i;

	for (i = 0; i < FN_MAX_MAPS; i++) {
		if (fn->maps[i] == dma) {
			fn->maps[i] = NULL;
			atomic_fetch_sub(&fn->nr_maps, 1);
		}
	}
}

static int
irq_set(void *ctx, uint32_t index, uint32_t start, uint32_t count, int *fds)
{
	struct vfu_function *fn = ctx;
	uint32_t i;

	assert(index == VFE_VFU_IRQ_MSIX && start + count <= FN_IRQS);
	for (i = 0; i < count; i++) {
		vfe_close(&fn->irq_fds[start + i]);
		fn->irq_fds[start + i] = fds != NULL ? vfe_fd_take(&fds[i]) : -1;
	}
	atomic_fetch_add(&fn->irq_sets, 1);
	return 0;
}

static int
reset(void *ctx)
{
	struct vfu_function *fn = ctx;

	atomic_fetch_add(&fn->resets, 1);
	return 0;
}

static void
disconnected(void *ctx)
{
	struct vfu_function *fn = ctx;

	vfe_close_all(fn->irq_fds, FN_IRQS);
	atomic_fetch_add(&fn->disconnects, 1);
}

static const struct vfe_vfu_server_ops ops = {
	.region_read = region_read,
	.region_write = region_write,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.irq_set = irq_set,
	.reset = reset,
	.disconnected = disconnected,
};

void
vfu_function_prepare(struct vfu_function *fn, const char *bdf)
{
	const struct vfe_vfu_server_region none = {.mmap_fd = -1};
	unsigned int i;
	int rc;

	memset(fn, 0, sizeof(*fn));
	snprintf(fn->dir, sizeof(fn->dir), "/tmp/vfe-unit-XXXXXX");
	assert(mkdtemp(fn->dir) != NULL);
	rc = vfe_str_format(fn->path, sizeof(fn->path), "%s/%s.sock", fn->dir, bdf);
	assert(rc == 0);
	memset(fn->irq_fds, -1, sizeof(fn->irq_fds));

	fn->bar2_fd = memfd_create("bar2", MFD_CLOEXEC);
	assert(fn->bar2_fd >= 0 && ftruncate(fn->bar2_fd, FN_BAR2_SIZE) == 0);
	fn->bar2 = mmap(NULL, FN_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fn->bar2_fd, 0);
	assert(fn->bar2 != MAP_FAILED);
	fn->area = (struct vfe_vfu_server_area){0, 4 * FN_PAGE};
	for (i = 0; i < 2; i++) {
		fn->io_fds[i] = (struct vfe_vfu_server_io_fd){
			.offset = (4 + i) * FN_PAGE,
			.size = 2,
			.fd = eventfd(0, EFD_CLOEXEC), /* blocking: the client must see to it */
		};
		assert(fn->io_fds[i].fd >= 0);
	}

	for (i = 0; i < VFE_VFU_NR_REGIONS; i++)
		fn->cfg.regions[i] = none;
	fn->cfg.regions[0].size = FN_BAR0_SIZE;
	fn->cfg.regions[0].flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	fn->cfg.regions[2].size = FN_BAR2_SIZE;
	fn->cfg.regions[2].flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	fn->cfg.regions[2].mmap_fd = fn->bar2_fd;
	fn->cfg.regions[2].areas = &fn->area;
	fn->cfg.regions[2].nr_areas = 1;
	fn->cfg.regions[2].io_fds = fn->io_fds;
	fn->cfg.regions[2].nr_io_fds = 2;
	fn->cfg.regions[VFE_VFU_REGION_CONFIG].size = VFE_PCIE_CFG_SIZE;
	fn->cfg.regions[VFE_VFU_REGION_CONFIG].flags =
		VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	fn->cfg.irq_counts[VFE_VFU_IRQ_MSIX] = FN_IRQS;
	fn->cfg.path = fn->path;
	fn->cfg.mode = 0600;
	fn->cfg.name = bdf;
	fn->cfg.ops = &ops;
	fn->cfg.ctx = fn;
}

static void
on_wake(struct ev_loop *loop, ev_async *w, int revents)
{
	(void)w;
	(void)revents;
	ev_break(loop, EVBREAK_ALL);
}

static void *
run(void *arg)
{
	struct vfu_function *fn = arg;

	ev_run(fn->loop, 0);
	return NULL;
}

void
vfu_function_start(struct vfu_function *fn)
{
	struct vfe_error err = {0};

	atomic_store(&fn->stop, false);
	fn->loop = ev_loop_new(EVFLAG_AUTO);
	assert(fn->loop != NULL);
	ev_async_init(&fn->wake, on_wake);
	ev_async_start(fn->loop, &fn->wake);
	if (vfe_vfu_server_create(fn->loop, &fn->cfg, &fn->server, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		assert(false);
	}
	assert(pthread_create(&fn->thread, NULL, run, fn) == 0);
}

void
vfu_function_stop(struct vfu_function *fn)
{
	if (fn->loop == NULL)
		return;
	atomic_store(&fn->stop, true);
	ev_async_send(fn->loop, &fn->wake);
	pthread_join(fn->thread, NULL);
	vfe_vfu_server_destroy(fn->server);
	ev_async_stop(fn->loop, &fn->wake);
	ev_loop_destroy(fn->loop);
	fn->loop = NULL;
	vfe_close_all(fn->irq_fds, FN_IRQS);
}

void
vfu_function_fini(struct vfu_function *fn)
{
	vfu_function_stop(fn);
	munmap(fn->bar2, FN_BAR2_SIZE);
	vfe_close(&fn->bar2_fd);
	vfe_close(&fn->io_fds[0].fd);
	vfe_close(&fn->io_fds[1].fd);
	unlink(fn->path);
	rmdir(fn->dir);
}

void
vfu_function_wait(const atomic_uint *counter, unsigned int value)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(10000);

	while (atomic_load(counter) != value) {
		assert(!vfe_deadline_passed(deadline));
		poll(NULL, 0, 1);
	}
}
