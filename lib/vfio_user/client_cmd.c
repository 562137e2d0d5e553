/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user client: one function per command; everything that the server answers is checked.
 */

#include "vfe_vfio_user_client.h"

#include "client_priv.h"
#include "vfu_msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	FIRST_CAPS_SIZE = 1024, /* bytes of capabilities that we expect to be enough */
	MAX_CAPS = 32,          /* capabilities in one chain, against loops */
	IO_FD_MIN_STRIDE = 28,  /* bytes of a sub-region that we look at */
	FIRST_IO_FDS = 64,      /* sub-regions that we expect to be enough */
	LARGE_STRIDE = 48,      /* libvfio-user's sub-regions are 8 bytes longer than specified */
};

#define REQUEST(cmd, body)                                                    \
	{                                                                     \
		.command = (cmd), .fixed = &(body), .fixed_len = sizeof(body) \
	}

int
vfe_vfu_client_device_info(struct vfe_vfu_client *client, uint32_t *ret_flags,
	uint32_t *ret_regions, uint32_t *ret_irqs, struct vfe_error *err)
{
	struct vfe_wire_vfu_device_info info = {.argsz = sizeof(info)};
	const struct vfu_request req = REQUEST(VFE_VFU_DEVICE_GET_INFO, info);
	struct vfu_reply reply = {0};
	int ret;

	ret = vfu_client_call(client, &req, &reply, err);
	if (ret < 0)
		return ret;
	memcpy(&info, reply.body, sizeof(info));
	vfu_reply_fini(&reply);

	*ret_flags = info.flags;
	*ret_regions = info.num_regions;
	*ret_irqs = info.num_irqs;
	return 0;
}

/*
 * DEVICE_GET_REGION_INFO
 */

/* Ask once with room for @argsz bytes. The reply is at least the fixed struct. */
static int
region_ask(struct vfe_vfu_client *client, uint32_t index, uint32_t argsz, struct vfu_reply *reply,
	struct vfe_wire_vfu_region_info *ret_info, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_info info = {.argsz = argsz, .index = index};
	const struct vfu_request req = REQUEST(VFE_VFU_DEVICE_GET_REGION_INFO, info);
	int ret;

	ret = vfu_client_call(client, &req, reply, err);
	if (ret < 0)
		return ret;
	memcpy(ret_info, reply->body, sizeof(*ret_info));
	if (ret_info->index == index && reply->size <= argsz && ret_info->argsz >= reply->size)
		return 0;

	vfu_client_violation(client, err,
		"region %u: reply of %u bytes says index %u, argsz %u (asked with %u)", index,
		reply->size, ret_info->index, ret_info->argsz, argsz);
	vfu_reply_fini(reply);
	return -EPROTO;
}

/* Find the sparse mmap capability; *@ret_at is its offset, 0 when there is none. */
static int
region_find_sparse(const struct vfu_reply *reply, uint32_t at, uint32_t *ret_at)
{
	struct vfe_wire_vfu_cap_hdr cap;
	int i;

	*ret_at = 0;
	for (i = 0; i < MAX_CAPS && at != 0; i++) {
		if (at < sizeof(struct vfe_wire_vfu_region_info) ||
			!vfe_range_inside(at, sizeof(cap), reply->size))
			return -EPROTO;
		memcpy(&cap, reply->body + at, sizeof(cap));
		if (cap.id == VFE_VFU_REGION_CAP_SPARSE_MMAP && cap.version == 1) {
			*ret_at = at;
			return 0;
		}
		at = cap.next;
	}
	return at == 0 ? 0 : -EPROTO;
}

static int
region_check_area(const struct vfe_vfu_region *region, const struct vfe_vfu_area *area)
{
	if (area->size == 0 || !vfe_is_aligned(area->offset, VFU_PAGE_SIZE) ||
		!vfe_is_aligned(area->size, VFU_PAGE_SIZE) ||
		!vfe_range_inside(area->offset, area->size, region->size))
		return -EPROTO;
	return 0;
}

static int
region_parse_sparse(const struct vfu_reply *reply, uint32_t at, struct vfe_vfu_region *region)
{
	struct vfe_wire_vfu_sparse_area wire;
	struct vfe_wire_vfu_cap_sparse sparse;
	uint32_t i;

	if (!vfe_range_inside(at, sizeof(sparse), reply->size))
		return -EPROTO;
	memcpy(&sparse, reply->body + at, sizeof(sparse));
	at += (uint32_t)sizeof(sparse);
	if (sparse.nr_areas > VFE_VFU_CLIENT_MAX_AREAS ||
		!vfe_range_inside(at, sparse.nr_areas * sizeof(wire), reply->size))
		return -EPROTO;

	region->areas = calloc(sparse.nr_areas + 1, sizeof(*region->areas));
	if (region->areas == NULL)
		return -ENOMEM;
	for (i = 0; i < sparse.nr_areas; i++) {
		memcpy(&wire, reply->body + at + i * sizeof(wire), sizeof(wire));
		region->areas[i] = (struct vfe_vfu_area){wire.offset, wire.size};
		if (region_check_area(region, &region->areas[i]) < 0)
			return -EPROTO;
		region->nr_areas++;
	}
	return 0;
}

/* Would a mapping of all areas stay inside the file? */
static int
region_check_file(const struct vfe_vfu_region *region)
{
	struct stat st;
	uint32_t i;

	if (region->offset > INT64_MAX || region->size > INT64_MAX - region->offset ||
		!vfe_is_aligned(region->offset, VFU_PAGE_SIZE))
		return -EPROTO;
	if (fstat(region->fd, &st) < 0)
		return -EPROTO;
	if (!S_ISREG(st.st_mode)) /* a device knows its size itself */
		return 0;
	for (i = 0; i < region->nr_areas; i++) {
		if (!vfe_range_inside(region->offset + region->areas[i].offset,
			    region->areas[i].size, (uint64_t)st.st_size))
			return -EPROTO;
	}
	return 0;
}

/* Fill @region from a complete reply; takes the fd out of it. */
static int
region_parse(struct vfu_reply *reply, const struct vfe_wire_vfu_region_info *info,
	struct vfe_vfu_region *region)
{
	const struct vfe_vfu_area whole = {0, info->size};
	uint32_t at = 0;
	int ret;

	region->flags = info->flags;
	region->size = info->size;
	region->offset = info->offset;
	if ((info->flags & VFE_VFU_REGION_F_MMAP) == 0 || info->size == 0)
		return 0;
	if (reply->nr_fds != 1)
		return -EPROTO;
	region->fd = vfe_fd_take(&reply->fds[0]);

	if ((info->flags & VFE_VFU_REGION_F_CAPS) != 0) {
		ret = region_find_sparse(reply, info->cap_offset, &at);
		if (ret < 0)
			return ret;
	}
	if (at != 0) {
		ret = region_parse_sparse(reply, at, region);
		return ret < 0 ? ret : region_check_file(region);
	}

	if (region_check_area(region, &whole) < 0)
		return -EPROTO;
	region->areas = malloc(sizeof(whole));
	if (region->areas == NULL)
		return -ENOMEM;
	region->areas[0] = whole;
	region->nr_areas = 1;
	return region_check_file(region);
}

int
vfe_vfu_client_region_info(struct vfe_vfu_client *client, uint32_t index,
	struct vfe_vfu_region *ret_region, struct vfe_error *err)
{
	const uint32_t max = vfu_msg_get(VFE_VFU_DEVICE_GET_REGION_INFO)->reply.max;
	struct vfe_vfu_region region = {.fd = -1};
	struct vfe_wire_vfu_region_info info;
	struct vfu_reply reply = {0};
	int ret;

	ret = region_ask(client, index, sizeof(info) + FIRST_CAPS_SIZE, &reply, &info, err);
	if (ret < 0)
		return ret;
	if (info.argsz > sizeof(info) + FIRST_CAPS_SIZE) {
		vfu_reply_fini(&reply);
		if (info.argsz > max)
			return vfu_client_violation(client, err,
				"region %u: %u bytes of information, legal are %u", index,
				info.argsz, max);
		ret = region_ask(client, index, info.argsz, &reply, &info, err);
		if (ret < 0)
			return ret;
	}

	ret = reply.size < info.argsz ? -EPROTO : region_parse(&reply, &info, &region);
	if (ret == -EPROTO)
		vfu_client_violation(client, err,
			"region %u: bad information (size 0x%llx, flags 0x%x, offset 0x%llx, "
			"%u fds, capabilities at %u)",
			index, (unsigned long long)info.size, info.flags,
			(unsigned long long)info.offset, reply.nr_fds, info.cap_offset);
	else if (ret < 0)
		vfe_error_set(err, ret, "region %u: %s", index, strerror(-ret));
	vfu_reply_fini(&reply);
	if (ret < 0)
		vfe_vfu_region_fini(&region);
	else
		*ret_region = region;
	return ret;
}

void
vfe_vfu_region_fini(struct vfe_vfu_region *region)
{
	vfe_close(&region->fd);
	free(region->areas);
	region->areas = NULL;
	region->nr_areas = 0;
}

/*
 * DEVICE_GET_REGION_IO_FDS
 */

static int
io_fds_ask(struct vfe_vfu_client *client, uint32_t index, uint32_t argsz, struct vfu_reply *reply,
	struct vfe_wire_vfu_region_io_fds *ret_head, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_io_fds head = {.argsz = argsz, .index = index};
	const struct vfu_request req = REQUEST(VFE_VFU_DEVICE_GET_REGION_IO_FDS, head);
	int ret;

	ret = vfu_client_call(client, &req, reply, err);
	if (ret < 0)
		return ret;
	memcpy(ret_head, reply->body, sizeof(*ret_head));
	if (ret_head->index == index && reply->size <= argsz && ret_head->argsz >= reply->size)
		return 0;

	vfu_client_violation(client, err,
		"io fds of region %u: reply of %u bytes says index %u, argsz %u (asked with %u)",
		index, reply->size, ret_head->index, ret_head->argsz, argsz);
	vfu_reply_fini(reply);
	return -EPROTO;
}

/*
 * Bytes from one sub-region to the next. The specification says 40 but not to rely on it, and
 * libvfio-user's are 48 bytes; the fields that we need begin both.
 */
static int
io_fds_stride(const struct vfu_reply *reply, const struct vfe_wire_vfu_region_io_fds *head,
	uint32_t *ret_stride)
{
	uint32_t bytes = reply->size - (uint32_t)sizeof(*head);

	if (reply->size != head->argsz || head->count > VFE_VFU_CLIENT_MAX_AREAS)
		return -EPROTO;
	if (head->count == 0)
		return 0;
	*ret_stride = bytes / head->count;
	if (bytes % head->count != 0 || *ret_stride < sizeof(struct vfe_wire_vfu_sub_region))
		return -EPROTO;
	return 0;
}

/* Take sub-region @sub, if it is one that we can use, into @ret_fds[*@ret_n]. */
static int
io_fds_add(const struct vfu_reply *reply, const struct vfe_wire_vfu_sub_region *sub,
	struct vfe_vfu_io_fd *fds, uint32_t *n)
{
	int fd;

	if (sub->type != VFE_VFU_IO_FD_TYPE_IOEVENTFD || sub->flags != 0)
		return 0; /* another mechanism, or only for certain values */
	if (sub->fd_index >= reply->nr_fds || sub->size > UINT64_MAX - sub->offset)
		return -EPROTO;
	fd = vfe_fd_dup(reply->fds[sub->fd_index]); /* several sub-regions may share one */
	if (fd < 0)
		return fd;
	fds[(*n)++] = (struct vfe_vfu_io_fd){sub->offset, sub->size, fd};
	return 0;
}

static int
io_fds_parse(const struct vfu_reply *reply, const struct vfe_wire_vfu_region_io_fds *head,
	struct vfe_vfu_io_fd **ret_fds, uint32_t *ret_n)
{
	struct vfe_wire_vfu_sub_region sub = {0};
	uint32_t i, n = 0, stride = 0;
	struct vfe_vfu_io_fd *fds;
	int ret;

	ret = io_fds_stride(reply, head, &stride);
	if (ret < 0 || head->count == 0)
		return ret;
	fds = calloc(head->count, sizeof(*fds));
	if (fds == NULL)
		return -ENOMEM;
	for (i = 0; i < head->count; i++) {
		memcpy(&sub, reply->body + sizeof(*head) + (size_t)i * stride, IO_FD_MIN_STRIDE);
		ret = io_fds_add(reply, &sub, fds, &n);
		if (ret < 0) {
			vfe_vfu_io_fds_free(fds, n);
			return ret;
		}
	}
	*ret_fds = fds;
	*ret_n = n;
	return 0;
}

int
vfe_vfu_client_region_io_fds(struct vfe_vfu_client *client, uint32_t index,
	struct vfe_vfu_io_fd **ret_fds, uint32_t *ret_n, struct vfe_error *err)
{
	const uint32_t first = sizeof(struct vfe_wire_vfu_region_io_fds) +
			       FIRST_IO_FDS * sizeof(struct vfe_wire_vfu_sub_region);
	const uint32_t max =
		sizeof(struct vfe_wire_vfu_region_io_fds) + VFE_VFU_CLIENT_MAX_AREAS * LARGE_STRIDE;
	struct vfe_wire_vfu_region_io_fds head;
	struct vfu_reply reply = {0};
	int ret;

	*ret_fds = NULL;
	*ret_n = 0;
	ret = io_fds_ask(client, index, first, &reply, &head, err);
	if (ret == 0 && head.argsz > first) {
		vfu_reply_fini(&reply);
		if (head.argsz > max)
			return vfu_client_violation(client, err,
				"io fds of region %u: %u bytes, legal are %u", index, head.argsz,
				max);
		ret = io_fds_ask(client, index, head.argsz, &reply, &head, err);
	}
	if ((ret == -ENOTSUP || ret == -ENOSYS) && vfe_vfu_client_error(client) == 0)
		return 0;
	if (ret < 0)
		return ret;

	ret = io_fds_parse(&reply, &head, ret_fds, ret_n);
	if (ret == -EPROTO)
		vfu_client_violation(client, err,
			"io fds of region %u: bad list (%u bytes, argsz %u, count %u, %u fds)",
			index, reply.size, head.argsz, head.count, reply.nr_fds);
	else if (ret < 0)
		vfe_error_set(err, ret, "io fds of region %u: %s", index, strerror(-ret));
	vfu_reply_fini(&reply);
	return ret;
}

void
vfe_vfu_io_fds_free(struct vfe_vfu_io_fd *fds, uint32_t n)
{
	uint32_t i;

	for (i = 0; i < n; i++)
		vfe_close(&fds[i].fd);
	free(fds);
}

/*
 * REGION_READ, REGION_WRITE
 */

/* Does the reply echo what was asked, with @data_len bytes of data? */
static int
region_check_echo(struct vfe_vfu_client *client, const struct vfe_wire_vfu_region_rw *asked,
	const struct vfu_reply *reply, uint32_t data_len, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_rw echo;

	memcpy(&echo, reply->body, sizeof(echo));
	if (echo.region == asked->region && echo.offset == asked->offset &&
		echo.count == asked->count && reply->size == sizeof(echo) + data_len)
		return 0;
	return vfu_client_violation(client, err,
		"access to region %u offset 0x%llx of %u bytes is answered with region %u offset "
		"0x%llx count %u and a body of %u bytes",
		asked->region, (unsigned long long)asked->offset, asked->count, echo.region,
		(unsigned long long)echo.offset, echo.count, reply->size);
}

int
vfe_vfu_client_region_read(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	void *buf, size_t len, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_rw rw = {.offset = offset, .region = region};
	const struct vfu_request req = REQUEST(VFE_VFU_REGION_READ, rw);
	const size_t max = vfu_client_max_xfer(client);
	struct vfu_reply reply = {0};
	uint8_t *dst = buf;
	int ret;

	for (; len > 0; len -= rw.count, dst += rw.count, rw.offset += rw.count) {
		rw.count = (uint32_t)(len < max ? len : max);
		ret = vfu_client_call(client, &req, &reply, err);
		if (ret < 0)
			return ret;
		ret = region_check_echo(client, &rw, &reply, rw.count, err);
		if (ret == 0)
			memcpy(dst, reply.body + sizeof(rw), rw.count);
		vfu_reply_fini(&reply);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int
vfe_vfu_client_region_write(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	const void *buf, size_t len, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_rw rw = {.offset = offset, .region = region};
	struct vfu_request req = REQUEST(VFE_VFU_REGION_WRITE, rw);
	const size_t max = vfu_client_max_xfer(client);
	struct vfu_reply reply = {0};
	const uint8_t *src = buf;
	int ret;

	for (; len > 0; len -= rw.count, src += rw.count, rw.offset += rw.count) {
		rw.count = (uint32_t)(len < max ? len : max);
		req.data = src;
		req.data_len = rw.count;
		ret = vfu_client_call(client, &req, &reply, err);
		if (ret < 0)
			return ret;
		ret = region_check_echo(client, &rw, &reply, 0, err);
		vfu_reply_fini(&reply);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int
vfe_vfu_client_region_post(struct vfe_vfu_client *client, uint32_t region, uint64_t offset,
	const void *buf, size_t len)
{
	struct vfe_wire_vfu_region_rw rw = {.offset = offset, .region = region};
	struct vfu_request req = REQUEST(VFE_VFU_REGION_WRITE, rw);

	if (len > vfu_client_max_xfer(client))
		return -EMSGSIZE;
	rw.count = (uint32_t)len;
	req.data = buf;
	req.data_len = rw.count;
	return vfu_client_post(client, &req);
}

/*
 * Interrupts
 */

int
vfe_vfu_client_irq_info(
	struct vfe_vfu_client *client, uint32_t index, uint32_t *ret_count, struct vfe_error *err)
{
	struct vfe_wire_vfu_irq_info info = {.argsz = sizeof(info), .index = index};
	const struct vfu_request req = REQUEST(VFE_VFU_DEVICE_GET_IRQ_INFO, info);
	struct vfu_reply reply = {0};
	int ret;

	ret = vfu_client_call(client, &req, &reply, err);
	if (ret < 0)
		return ret;
	memcpy(&info, reply.body, sizeof(info));
	vfu_reply_fini(&reply);

	if (info.index != index || info.count > VFU_MAX_VECTORS)
		return vfu_client_violation(client, err,
			"interrupts of index %u: the reply says index %u, %u vectors", index,
			info.index, info.count);
	*ret_count = info.count;
	return 0;
}

/* The number of entries from fds[0] on that are all open or all -1, at most @max open ones. */
static uint32_t
irq_run(const int *fds, uint32_t count, uint32_t max)
{
	uint32_t n = 1;

	if (fds[0] >= 0 && count > max)
		count = max;
	while (n < count && (fds[n] >= 0) == (fds[0] >= 0))
		n++;
	return n;
}

int
vfe_vfu_client_irq_set(struct vfe_vfu_client *client, uint32_t index, uint32_t start,
	uint32_t count, const int *fds, struct vfe_error *err)
{
	struct vfe_wire_vfu_irq_set set = {.argsz = sizeof(set), .index = index};
	struct vfu_request req = REQUEST(VFE_VFU_DEVICE_SET_IRQS, set);
	const uint32_t max = vfu_client_max_fds(client);
	uint32_t done;
	int ret;

	if (count == 0) {
		set.flags = VFE_VFU_IRQ_SET_DATA_NONE | VFE_VFU_IRQ_SET_ACTION_TRIGGER;
		return vfu_client_call(client, &req, NULL, err);
	}
	if (count > VFU_MAX_VECTORS || start > VFU_MAX_VECTORS)
		return vfe_error_set(err, -EINVAL, "%u interrupts from %u on", count, start);
	if (max == 0)
		return vfe_error_set(err, -ENOTSUP, "the server takes no fds");

	set.flags = VFE_VFU_IRQ_SET_DATA_EVENTFD | VFE_VFU_IRQ_SET_ACTION_TRIGGER;
	for (done = 0; done < count; done += set.count) {
		set.start = start + done;
		set.count = irq_run(&fds[done], count - done, max);
		req.fds = &fds[done];
		req.nr_fds = fds[done] >= 0 ? set.count : 0;
		ret = vfu_client_call(client, &req, NULL, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/*
 * DMA, reset
 */

int
vfe_vfu_client_dma_map_begin(struct vfe_vfu_client *client, uint64_t iova, uint64_t size,
	uint32_t prot, int fd, uint64_t fd_offset, struct vfe_vfu_call **ret, struct vfe_error *err)
{
	struct vfe_wire_vfu_dma_map map = {
		.argsz = sizeof(map),
		.flags = prot,
		.offset = fd_offset,
		.addr = iova,
		.size = size,
	};
	struct vfu_request req = REQUEST(VFE_VFU_DMA_MAP, map);
	struct vfe_vfu_call *call;
	int rc;

	if (vfu_client_max_fds(client) == 0)
		return vfe_error_set(err, -ENOTSUP, "the server takes no fds");
	call = malloc(sizeof(*call));
	if (call == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	req.fds = &fd;
	req.nr_fds = 1;
	rc = vfu_client_begin(client, &req, call, err);
	if (rc < 0)
		free(call);
	else
		*ret = call;
	return rc;
}

int
vfe_vfu_client_dma_map_end(
	struct vfe_vfu_client *client, struct vfe_vfu_call *call, struct vfe_error *err)
{
	int rc = vfu_client_end(client, call, NULL, err);

	free(call);
	return rc;
}

int
vfe_vfu_client_dma_map(struct vfe_vfu_client *client, uint64_t iova, uint64_t size, uint32_t prot,
	int fd, uint64_t fd_offset, struct vfe_error *err)
{
	struct vfe_vfu_call *call;
	int rc;

	rc = vfe_vfu_client_dma_map_begin(client, iova, size, prot, fd, fd_offset, &call, err);
	return rc < 0 ? rc : vfe_vfu_client_dma_map_end(client, call, err);
}

int
vfe_vfu_client_dma_unmap(
	struct vfe_vfu_client *client, uint64_t iova, uint64_t size, struct vfe_error *err)
{
	struct vfe_wire_vfu_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.addr = iova,
		.size = size,
	};
	const struct vfu_request req = REQUEST(VFE_VFU_DMA_UNMAP, unmap);
	struct vfu_reply reply = {0};
	int ret;

	ret = vfu_client_call(client, &req, &reply, err);
	if (ret < 0)
		return ret;
	memcpy(&unmap, reply.body, sizeof(unmap));
	vfu_reply_fini(&reply);
	if (unmap.addr != iova || unmap.size != size)
		return vfu_client_violation(client, err,
			"asked to unmap 0x%llx bytes at 0x%llx, the reply says 0x%llx at 0x%llx",
			(unsigned long long)size, (unsigned long long)iova,
			(unsigned long long)unmap.size, (unsigned long long)unmap.addr);
	return 0;
}

int
vfe_vfu_client_reset(struct vfe_vfu_client *client, struct vfe_error *err)
{
	const struct vfu_request req = {.command = VFE_VFU_DEVICE_RESET};

	return vfu_client_call(client, &req, NULL, err);
}
