/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The vfio-user side of a function: regions, interrupts, doorbells, and the client's memory.
 */

#include "function.h"

#include "admin.h"
#include "dirty.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
	SOCKET_MODE = 0600,
	FIRST_DMAS = 8,
};

/* --- memory --- */

/* Nobody uses the map any more after this. */
static void
map_drop(struct function *fn)
{
	if (fn->map == NULL)
		return;
	fn->type->set_map(fn, NULL);
	if (fn->admin != NULL)
		admin_set_map(fn->admin, NULL);
	vfe_iova_map_free(fn->map);
	fn->map = NULL;
}

int
function_map_update(struct function *fn, struct vfe_error *err)
{
	struct vfe_iova_region *regions;
	struct vfe_iova_map *old = fn->map, *map = NULL;
	uint32_t i;
	int rc;

	if (!fn->map_stale)
		return 0;
	regions = calloc(fn->nr_dmas + 1u, sizeof(*regions));
	if (regions == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u regions", fn->nr_dmas);
	for (i = 0; i < fn->nr_dmas; i++) {
		const struct vfe_vfu_dma *dma = fn->dmas[i];

		regions[i] = (struct vfe_iova_region){
			.iova = dma->iova,
			.size = dma->size,
			.va = dma->va,
			.prot = ((dma->prot & VFE_VFU_DMA_F_READ) != 0 ? VFE_IOVA_READ : 0u) |
				((dma->prot & VFE_VFU_DMA_F_WRITE) != 0 ? VFE_IOVA_WRITE : 0u),
		};
	}
	rc = vfe_iova_map_create(regions, fn->nr_dmas, &map, err);
	free(regions);
	if (rc < 0)
		return rc;

	fn->map = map;
	fn->map_stale = false;
	fn->type->set_map(fn, map);
	if (fn->admin != NULL)
		admin_set_map(fn->admin, map);
	vfe_iova_map_free(old);
	return 0;
}

static bool
ring_mapped(const struct function *fn, uint16_t qid)
{
	const struct vfe_vdev_queue *q = vfe_vdev_queue(fn->vdev, qid);
	uint32_t hint = 0;

	return vfe_iova_translate(
		       fn->map, &hint, q->desc, vfe_vring_desc_bytes(q->size), VFE_IOVA_READ) &&
	       vfe_iova_translate(
		       fn->map, &hint, q->driver, vfe_vring_avail_bytes(q->size), VFE_IOVA_READ) &&
	       vfe_iova_translate(
		       fn->map, &hint, q->device, vfe_vring_used_bytes(q->size), VFE_IOVA_WRITE);
}

/*
 * A device outlives its client (vfio-user: state is kept), but not without memory: it goes on when
 * all its rings are there again. A client that wants nothing of that resets before it maps.
 */
static void
go_on(struct function *fn)
{
	struct vfe_error err;
	uint16_t i;

	if (function_map_update(fn, NULL) < 0)
		return;
	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++) {
		if (vfe_vdev_queue(fn->vdev, i)->enabled && !ring_mapped(fn, i))
			return;
	}
	fn->waits = false;
	app_log_limited(
		&fn->client_limit, APP_LOG_INFO, "%s: its memory is back, going on", fn->name);
	if (function_queues_start(fn, &err) < 0)
		function_fail(fn, "%s", err.text);
}

static int
on_dma_map(void *ctx, struct vfe_vfu_dma *dma)
{
	struct function *fn = ctx;
	int rc;

	if (fn->nr_dmas == fn->max_dmas) {
		uint32_t max = fn->max_dmas == 0 ? FIRST_DMAS : fn->max_dmas * 2;
		struct vfe_vfu_dma **grown = realloc(fn->dmas, max * sizeof(struct vfe_vfu_dma *));

		if (grown == NULL)
			return -ENOMEM;
		fn->dmas = grown;
		fn->max_dmas = max;
	}
	fn->dmas[fn->nr_dmas++] = dma;
	fn->map_stale = true;
	if (fn->waits)
		go_on(fn);
	if (!function_queues_running(fn))
		return 0;
	rc = function_map_update(fn, NULL);
	if (rc < 0)
		fn->nr_dmas--;
	return rc;
}

static void
wait_for_memory(struct function *fn)
{
	function_queues_stop(fn);
	/* not when that made it a stopped one, or one that is lost */
	fn->waits = fn->internal == VFE_ADMIN_VF_RUNNING && vfe_vdev_live(fn->vdev);
}

static bool
overlaps(const struct vfe_vfu_dma *dma, uint64_t iova, uint64_t len)
{
	return iova < dma->iova ? dma->iova - iova < len : iova - dma->iova < dma->size;
}

/* Is a part of the ring of @qid in @dma? */
static bool
ring_in(const struct function *fn, uint16_t qid, const struct vfe_vfu_dma *dma)
{
	const struct vfe_vdev_queue *q = vfe_vdev_queue(fn->vdev, qid);

	return overlaps(dma, q->desc, vfe_vring_desc_bytes(q->size)) ||
	       overlaps(dma, q->driver, vfe_vring_avail_bytes(q->size)) ||
	       overlaps(dma, q->device, vfe_vring_used_bytes(q->size));
}

static bool
running_ring_in(const struct function *fn, const struct vfe_vfu_dma *dma, uint16_t *ret_qid)
{
	uint16_t i;

	for (i = 0; i < vfe_vdev_nr_queues(fn->vdev); i++) {
		if (fn->queues[i].started && ring_in(fn, i, dma)) {
			*ret_qid = i;
			return true;
		}
	}
	return false;
}

/*
 * The memory is still there while this runs, so rings in it are left in order: drained, indices
 * known. A driver that takes them away under a running device has made a mistake; a client that
 * hangs up has not, and the device waits for memory.
 */
static void
on_dma_unmap(void *ctx, struct vfe_vfu_dma *dma)
{
	struct function *fn = ctx;
	uint32_t i;
	uint16_t qid;

	/* when the client has gone all memory goes: stop before a buffer is missed */
	if (!vfe_vfu_server_connected(fn->server) && function_queues_running(fn))
		wait_for_memory(fn);
	else if (running_ring_in(fn, dma, &qid))
		function_fail(fn, "queue %u: its memory at 0x%llx was unmapped", qid,
			(unsigned long long)dma->iova);
	/* what the back end still has keeps its addresses, so that it hits nobody else's memory */
	if (fn->type->release != NULL && fn->type->release(fn, dma->va, dma->size) < 0) {
		dma->keep = true;
		if (function_queues_running(fn))
			function_fail(fn, "memory of requests in flight at 0x%llx was unmapped",
				(unsigned long long)dma->iova);
	}
	if (fn->admin != NULL) {
		admin_forget_memory(fn->admin, dma->va, dma->size);
		dirty_forget_memory(fn, dma->va, dma->size);
	}

	for (i = 0; i < fn->nr_dmas && fn->dmas[i] != dma; i++)
		;
	if (i == fn->nr_dmas)
		return;
	fn->dmas[i] = fn->dmas[--fn->nr_dmas];
	fn->map_stale = true;
	if (!function_queues_running(fn) || function_map_update(fn, NULL) < 0)
		map_drop(fn);
}

bool
function_memory_shrunk(const struct function *fn)
{
	uint32_t i;

	for (i = 0; i < fn->nr_dmas; i++) {
		if (atomic_load(&fn->dmas[i]->tripped))
			return true;
	}
	return false;
}

void
function_check_memory(struct function *fn)
{
	uint32_t i;

	for (i = 0; i < fn->nr_dmas; i++) {
		if (!atomic_load(&fn->dmas[i]->tripped))
			continue;
		function_fail(fn, "the file behind the memory at 0x%llx has shrunk",
			(unsigned long long)fn->dmas[i]->iova);
		vfe_vfu_server_kick_out(fn->server, fn->last_error.text);
		return;
	}
}

/* --- regions, interrupts, reset --- */

static int
on_region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, uint32_t len)
{
	struct function *fn = ctx;

	if (region == VFE_VFU_REGION_CONFIG)
		return vfe_vdev_config_read(fn->vdev, offset, buf, len);
	return vfe_vdev_bar_read(fn->vdev, offset, buf, len);
}

static int
on_region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, uint32_t len)
{
	struct function *fn = ctx;

	function_check_memory(fn);
	if (region == VFE_VFU_REGION_CONFIG)
		return vfe_vdev_config_write(fn->vdev, offset, buf, len);
	return vfe_vdev_bar_write(fn->vdev, offset, buf, len);
}

static int
on_irq_set(void *ctx, uint32_t index, uint32_t start, uint32_t count, int *fds)
{
	struct function *fn = ctx;

	if (index != VFE_VFU_IRQ_MSIX)
		return -EINVAL;
	return vfe_vdev_irq_set(fn->vdev, start, count, fds);
}

static int
on_device_reset(void *ctx)
{
	struct function *fn = ctx;

	vfe_vdev_function_reset(fn->vdev);
	return 0;
}

static void
kicks_close(struct function *fn)
{
	uint32_t i;

	for (i = 0; i < fn->nr_kicks; i++)
		vfe_close(&fn->kicks[i].fd);
}

/* Doorbell eventfds exist only while there is a client: hundreds of idle VFs need few fds. */
static void
on_connected(void *ctx)
{
	struct function *fn = ctx;
	uint32_t i;

	for (i = 0; i < fn->nr_kicks; i++) {
		fn->kicks[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (fn->kicks[i].fd < 0) {
			app_log_limited(&fn->client_limit, APP_LOG_ERR,
				"%s: no eventfd for a doorbell: %s", fn->name, strerror(errno));
			vfe_vfu_server_kick_out(fn->server, "no eventfd for a doorbell");
			break;
		}
	}
	app_log_limited(&fn->client_limit, APP_LOG_INFO, "%s: client connected", fn->name);
}

static void
on_disconnected(void *ctx)
{
	struct function *fn = ctx;
	const char *why = vfe_vfu_server_last_error(fn->server);

	/* rings that need no memory of the client do not exist, but be sure before the fds go */
	function_queues_stop(fn);
	kicks_close(fn);
	app_log_limited(&fn->client_limit, APP_LOG_INFO, "%s: client disconnected%s%s", fn->name,
		why[0] != '\0' ? ": " : "", why);
}

static const struct vfe_vfu_server_ops vfu_ops = {
	.region_read = on_region_read,
	.region_write = on_region_write,
	.dma_map = on_dma_map,
	.dma_unmap = on_dma_unmap,
	.irq_set = on_irq_set,
	.reset = on_device_reset,
	.connected = on_connected,
	.disconnected = on_disconnected,
};

/* --- life --- */

int
function_kick_fd(const struct function *fn, uint16_t qid)
{
	return qid >= fn->first_kick ? fn->kicks[qid - fn->first_kick].fd : -1;
}

/*
 * When workers poll, the doorbells of their queues are plain memory that nobody reads: the driver
 * writes it without any exit or system call. All other doorbells are eventfds.
 */
static int
create_doorbells(struct function *fn, struct vfe_error *err)
{
	uint16_t i, n = vfe_vdev_nr_queues(fn->vdev);

	if (fn->env->config->polling) {
		fn->first_kick = fn->type->nr_data_queues(fn);
		fn->notify_fd = vfe_memfd_create("vfe-doorbells", vfe_vdev_bar_size(fn->vdev));
		if (fn->notify_fd < 0)
			return vfe_error_set(err, fn->notify_fd, "no memory file for doorbells: %s",
				strerror(-fn->notify_fd));
		fn->notify_area = (struct vfe_vfu_server_area){
			.offset = vfe_vdev_doorbell_offset(fn->vdev, 0),
			.size = (uint64_t)fn->first_kick * VFE_VDEV_NOTIFY_STRIDE,
		};
	}
	fn->nr_kicks = (uint32_t)(n - fn->first_kick);
	fn->kicks = calloc(fn->nr_kicks + 1u, sizeof(*fn->kicks));
	if (fn->kicks == NULL) {
		fn->nr_kicks = 0;
		return vfe_error_set(err, -ENOMEM, "no memory for %u doorbells", n);
	}
	for (i = 0; i < fn->nr_kicks; i++)
		fn->kicks[i] = (struct vfe_vfu_server_io_fd){
			.offset =
				vfe_vdev_doorbell_offset(fn->vdev, (uint16_t)(fn->first_kick + i)),
			.size = 4,
			.fd = -1,
		};
	return 0;
}

int
function_vfu_create(struct function *fn, struct vfe_error *err)
{
	struct vfe_vfu_server_cfg cfg = {
		.mode = SOCKET_MODE,
		.name = fn->name,
		.ops = &vfu_ops,
		.ctx = fn,
		.signaller = &fn->env->signaller,
	};
	char path[CONFIG_MAX_PATH + VFE_BDF_STR_SIZE + 8];
	int rc;

	rc = create_doorbells(fn, err);
	if (rc < 0)
		return rc;
	rc = vfe_str_format(path, sizeof(path), "%s/%s.sock", fn->env->config->dir, fn->name);
	if (rc < 0)
		return vfe_error_set(err, rc, "socket path is too long");
	cfg.path = path;
	cfg.regions[VFE_VFU_REGION_BAR0] = (struct vfe_vfu_server_region){
		.size = vfe_vdev_bar_size(fn->vdev),
		.flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE,
		.mmap_fd = fn->notify_fd,
		.areas = &fn->notify_area,
		.nr_areas = fn->notify_fd >= 0 ? 1 : 0,
		.io_fds = fn->kicks,
		.nr_io_fds = fn->nr_kicks,
	};
	cfg.regions[VFE_VFU_REGION_CONFIG] = (struct vfe_vfu_server_region){
		.size = VFE_PCIE_CFG_SIZE,
		.flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE,
		.mmap_fd = -1,
	};
	cfg.irq_counts[VFE_VFU_IRQ_MSIX] = vfe_vdev_nr_vectors(fn->vdev);
	return vfe_vfu_server_create(fn->env->loop, &cfg, &fn->server, err);
}

void
function_vfu_destroy(struct function *fn)
{
	vfe_vfu_server_destroy(fn->server);
	fn->server = NULL;
	kicks_close(fn);
	free(fn->kicks);
	fn->kicks = NULL;
	fn->nr_kicks = 0;
	vfe_close(&fn->notify_fd);
}
