/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user server: what each command of the client does. The dispatcher has checked the size of
 * the body and the number of fds against the table of messages before a handler sees them.
 */

#include "server_priv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Make room for @size bytes of answer, zeroed. */
static int
answer_alloc(struct vfu_answer *answer, uint32_t size, struct vfe_error *err)
{
	answer->body = calloc(1, size);
	if (answer->body == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	answer->size = size;
	return 0;
}

static int
answer_copy(struct vfu_answer *answer, const void *body, uint32_t size, struct vfe_error *err)
{
	int ret = answer_alloc(answer, size, err);

	if (ret == 0)
		memcpy(answer->body, body, size);
	return ret;
}

static int
on_version(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfu_caps caps, peer;
	int ret;

	if (server->negotiated)
		return vfe_error_set(err, -EINVAL, "VERSION for the second time");
	ret = vfu_caps_parse(server->rx.body, server->rx.body_size, &peer, err);
	if (ret < 0)
		return ret;
	vfu_caps_own(&caps);
	if (peer.major != caps.major)
		return vfe_error_set(err, -EINVAL, "the client speaks version %u.%u, we %u.%u",
			peer.major, peer.minor, caps.major, caps.minor);

	/* never more than the client proposes: some check that before they cut it */
	caps.max_dma_maps = VFE_VFU_SERVER_MAX_DMA_MAPS;
	if (peer.minor < caps.minor)
		caps.minor = peer.minor;
	if (peer.has_max_fds && peer.max_fds < caps.max_fds && peer.max_fds > 0)
		caps.max_fds = peer.max_fds;
	if (peer.max_xfer < caps.max_xfer)
		caps.max_xfer = peer.max_xfer;
	if (peer.max_dma_maps < caps.max_dma_maps)
		caps.max_dma_maps = peer.max_dma_maps;
	ret = vfu_caps_format(&caps, &answer->body, &answer->size);
	if (ret < 0)
		return vfe_error_set(err, ret, "out of memory");
	server->peer = peer;
	return 0;
}

static int
on_dma_map(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_dma_map map;

	(void)answer;
	memcpy(&map, server->rx.body, sizeof(map));
	if (server->rx.nr_fds == 0)
		return vfe_error_set(err, -ENOTSUP, "DMA_MAP without an fd: share the memory");
	return vfu_dma_map(server, &map, server->rx.fds[0], err);
}

static int
on_dma_unmap(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_dma_unmap unmap;
	int ret;

	memcpy(&unmap, server->rx.body, sizeof(unmap));
	if (unmap.argsz < sizeof(unmap))
		return vfe_error_set(err, -EINVAL, "DMA_UNMAP with argsz %u", unmap.argsz);
	if (unmap.flags == VFE_VFU_DMA_UNMAP_F_ALL) {
		if (unmap.addr != 0 || unmap.size != 0)
			return vfe_error_set(err, -EINVAL, "DMA_UNMAP of all, but with a range");
		vfu_dma_unmap_all(server);
	} else if (unmap.flags == 0) {
		ret = vfu_dma_unmap(server, unmap.addr, unmap.size, err);
		if (ret < 0)
			return ret;
	} else {
		return vfe_error_set(err, -EINVAL, "DMA_UNMAP with flags 0x%x", unmap.flags);
	}
	unmap.argsz = sizeof(unmap);
	return answer_copy(answer, &unmap, sizeof(unmap), err);
}

static int
on_device_get_info(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_device_info info;

	memcpy(&info, server->rx.body, sizeof(info));
	if (info.argsz < sizeof(info))
		return vfe_error_set(err, -EINVAL, "DEVICE_GET_INFO with argsz %u", info.argsz);
	info = (struct vfe_wire_vfu_device_info){
		.argsz = sizeof(info),
		.flags = VFE_VFU_DEVICE_F_PCI | VFE_VFU_DEVICE_F_RESET,
		.num_regions = VFE_VFU_NR_REGIONS,
		.num_irqs = VFE_VFU_NR_IRQS,
	};
	return answer_copy(answer, &info, sizeof(info), err);
}

static int
answer_add_fd(struct vfu_answer *answer, int fd, struct vfe_error *err)
{
	answer->fds = malloc(sizeof(fd));
	if (answer->fds == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	answer->fds[0] = fd;
	answer->nr_fds = 1;
	return 0;
}

static void
put_sparse_areas(uint8_t *body, const struct vfe_vfu_server_region *region)
{
	const struct vfe_wire_vfu_cap_sparse sparse = {
		.hdr = {.id = VFE_VFU_REGION_CAP_SPARSE_MMAP, .version = 1},
		.nr_areas = region->nr_areas,
	};
	uint32_t i;

	memcpy(body, &sparse, sizeof(sparse));
	body += sizeof(sparse);
	for (i = 0; i < region->nr_areas; i++) {
		const struct vfe_wire_vfu_sparse_area area = {
			region->areas[i].offset, region->areas[i].size};

		memcpy(body + i * sizeof(area), &area, sizeof(area));
	}
}

static int
on_region_get_info(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	const struct vfe_vfu_server_region *region;
	struct vfe_wire_vfu_region_info ask, info;
	int ret;

	memcpy(&ask, server->rx.body, sizeof(ask));
	if (ask.argsz < sizeof(ask) || ask.index >= VFE_VFU_NR_REGIONS)
		return vfe_error_set(err, -EINVAL, "information on region %u with argsz %u",
			ask.index, ask.argsz);
	region = &server->cfg.regions[ask.index];
	info = (struct vfe_wire_vfu_region_info){
		.argsz = sizeof(info),
		.flags = region->flags,
		.index = ask.index,
		.size = region->size,
	};
	if (region->size > 0 && region->mmap_fd >= 0) {
		info.flags |= VFE_VFU_REGION_F_MMAP;
		info.offset = region->mmap_offset;
		ret = answer_add_fd(answer, region->mmap_fd, err);
		if (ret < 0)
			return ret;
		if (region->nr_areas > 0) {
			info.flags |= VFE_VFU_REGION_F_CAPS;
			info.argsz += (uint32_t)(sizeof(struct vfe_wire_vfu_cap_sparse) +
						 region->nr_areas *
							 sizeof(struct vfe_wire_vfu_sparse_area));
		}
	}
	if (info.argsz > ask.argsz) /* the client asks again with that much room */
		return answer_copy(answer, &info, sizeof(info), err);

	if ((info.flags & VFE_VFU_REGION_F_CAPS) != 0)
		info.cap_offset = sizeof(info);
	ret = answer_alloc(answer, info.argsz, err);
	if (ret < 0)
		return ret;
	memcpy(answer->body, &info, sizeof(info));
	if (info.cap_offset != 0)
		put_sparse_areas(answer->body + info.cap_offset, region);
	return 0;
}

/*
 * Give the io fds of @region indices among the fds of one message, equal ones the same. Returns
 * how many of them can be told within @max_fds fds.
 */
static uint32_t
io_fds_assign(const struct vfe_vfu_server_region *region, uint32_t max_fds, int *fds,
	uint32_t *ret_nr_fds, uint32_t *fd_index)
{
	uint32_t i, j, n = 0;

	for (i = 0; i < region->nr_io_fds; i++) {
		for (j = 0; j < n && fds[j] != region->io_fds[i].fd; j++)
			;
		if (j == n && n == max_fds)
			break;
		if (j == n)
			fds[n++] = region->io_fds[i].fd;
		fd_index[i] = j;
	}
	*ret_nr_fds = n;
	return i;
}

static int
on_region_get_io_fds(
	struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_io_fds ask, head;
	const struct vfe_vfu_server_region *region;
	uint32_t *fd_index;
	uint32_t i;
	int ret = 0;

	memcpy(&ask, server->rx.body, sizeof(ask));
	if (ask.argsz < sizeof(ask) || ask.flags != 0 || ask.count != 0 ||
		ask.index >= VFE_VFU_NR_REGIONS)
		return vfe_error_set(err, -EINVAL,
			"io fds of region %u with argsz %u, flags 0x%x, count %u", ask.index,
			ask.argsz, ask.flags, ask.count);
	region = &server->cfg.regions[ask.index];

	fd_index = calloc(region->nr_io_fds + 1, sizeof(*fd_index));
	answer->fds = malloc(sizeof(int) * VFU_MAX_FDS);
	if (fd_index == NULL || answer->fds == NULL) {
		ret = vfe_error_set(err, -ENOMEM, "out of memory");
		goto out;
	}
	head = (struct vfe_wire_vfu_region_io_fds){.index = ask.index};
	head.count =
		io_fds_assign(region, server->peer.max_fds, answer->fds, &answer->nr_fds, fd_index);
	head.argsz = (uint32_t)(sizeof(head) + head.count * sizeof(struct vfe_wire_vfu_sub_region));
	if (head.argsz > ask.argsz) { /* the client asks again with that much room */
		answer->nr_fds = 0;
		ret = answer_copy(answer, &head, sizeof(head), err);
		goto out;
	}
	ret = answer_alloc(answer, head.argsz, err);
	if (ret < 0)
		goto out;
	memcpy(answer->body, &head, sizeof(head));
	for (i = 0; i < head.count; i++) {
		const struct vfe_wire_vfu_sub_region sub = {
			.offset = region->io_fds[i].offset,
			.size = region->io_fds[i].size,
			.fd_index = fd_index[i],
			.type = VFE_VFU_IO_FD_TYPE_IOEVENTFD,
		};

		memcpy(answer->body + sizeof(head) + i * sizeof(sub), &sub, sizeof(sub));
	}
out:
	free(fd_index);
	return ret;
}

static int
on_device_get_irq_info(
	struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_irq_info info;

	memcpy(&info, server->rx.body, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFE_VFU_NR_IRQS)
		return vfe_error_set(err, -EINVAL, "information on interrupts %u with argsz %u",
			info.index, info.argsz);
	info.argsz = sizeof(info);
	info.count = server->cfg.irq_counts[info.index];
	info.flags = info.count > 0 ? VFE_VFU_IRQ_F_EVENTFD : 0;
	return answer_copy(answer, &info, sizeof(info), err);
}

/*
 * An fd that is no eventfd could make the device block when it signals an interrupt. Where /proc
 * cannot tell, O_NONBLOCK has to do.
 */
static int
check_eventfd(struct vfe_vfu_server *server, int fd)
{
	static const char eventfd[] = "anon_inode:[eventfd]";
	char path[32], target[64];
	ssize_t n;

	if (server->cfg.signaller != NULL && vfe_signaller_takes(server->cfg.signaller, fd))
		return vfe_fd_set_nonblock(fd);
	(void)vfe_str_format(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	if (n >= 0 && ((size_t)n != strlen(eventfd) || memcmp(target, eventfd, (size_t)n) != 0))
		return -EINVAL;
	return vfe_fd_set_nonblock(fd);
}

/* Flags, range and size of SET_IRQS; the fds are another matter. */
static int
check_irq_set(const struct vfe_vfu_server *server, const struct vfe_wire_vfu_irq_set *set,
	struct vfe_error *err)
{
	const uint32_t datas = VFE_VFU_IRQ_SET_DATA_NONE | VFE_VFU_IRQ_SET_DATA_BOOL |
			       VFE_VFU_IRQ_SET_DATA_EVENTFD;
	const uint32_t actions = VFE_VFU_IRQ_SET_ACTION_MASK | VFE_VFU_IRQ_SET_ACTION_UNMASK |
				 VFE_VFU_IRQ_SET_ACTION_TRIGGER;
	uint32_t data = set->flags & datas, action = set->flags & actions, vectors;
	uint32_t data_size = data == VFE_VFU_IRQ_SET_DATA_BOOL ? set->count : 0;
	bool all = data == VFE_VFU_IRQ_SET_DATA_NONE && action == VFE_VFU_IRQ_SET_ACTION_TRIGGER;

	if (set->argsz < sizeof(*set) || set->index >= VFE_VFU_NR_IRQS ||
		(set->flags & ~(datas | actions)) != 0 || !vfe_is_pow2(data) ||
		!vfe_is_pow2(action))
		return vfe_error_set(err, -EINVAL, "SET_IRQS of index %u with argsz %u, flags 0x%x",
			set->index, set->argsz, set->flags);
	vectors = server->cfg.irq_counts[set->index];
	if (!vfe_range_inside(set->start, set->count, vectors) ||
		(set->count == 0 && (!all || set->start != 0)))
		return vfe_error_set(err, -EINVAL,
			"SET_IRQS of vectors %u+%u of index %u with flags 0x%x, it has %u",
			set->start, set->count, set->index, set->flags, vectors);
	if (server->rx.body_size != sizeof(*set) + data_size)
		return vfe_error_set(err, -EINVAL, "SET_IRQS of %u vectors with a body of %u bytes",
			set->count, server->rx.body_size);
	if (server->rx.nr_fds > 0 &&
		(data != VFE_VFU_IRQ_SET_DATA_EVENTFD || server->rx.nr_fds != set->count))
		return vfe_error_set(err, -EINVAL, "SET_IRQS of %u vectors with %u fds, flags 0x%x",
			set->count, server->rx.nr_fds, set->flags);
	return 0;
}

/* Vectors [start, start + count) get no eventfd. */
static int
irqs_withdraw(struct vfe_vfu_server *server, uint32_t index, uint32_t start, uint32_t count)
{
	int fds[VFE_VFU_SERVER_MAX_IRQS];
	uint32_t i;

	assert(count <= VFE_VFU_SERVER_MAX_IRQS);
	for (i = 0; i < count; i++)
		fds[i] = -1;
	return server->cfg.ops->irq_set(server->cfg.ctx, index, start, count, fds);
}

int
vfu_server_irqs_disable(struct vfe_vfu_server *server, uint32_t index)
{
	if (!server->irq_used[index])
		return 0;
	server->irq_used[index] = false;
	return irqs_withdraw(server, index, 0, server->cfg.irq_counts[index]);
}

static int
on_device_set_irqs(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	const uint32_t wanted = VFE_VFU_IRQ_SET_DATA_EVENTFD | VFE_VFU_IRQ_SET_ACTION_TRIGGER;
	struct vfe_wire_vfu_irq_set set;
	uint32_t i;
	int ret;

	(void)answer;
	memcpy(&set, server->rx.body, sizeof(set));
	ret = check_irq_set(server, &set, err);
	if (ret < 0)
		return ret;

	if (set.count == 0)
		ret = vfu_server_irqs_disable(server, set.index);
	else if (set.flags != wanted)
		return vfe_error_set(err, -ENOTSUP,
			"SET_IRQS with flags 0x%x: eventfds as triggers only", set.flags);
	else if (server->rx.nr_fds == 0)
		ret = irqs_withdraw(server, set.index, set.start, set.count);
	else {
		for (i = 0; i < set.count; i++) {
			if (check_eventfd(server, server->rx.fds[i]) < 0)
				return vfe_error_set(err, -EINVAL,
					"the fd for vector %u is no eventfd", set.start + i);
		}
		server->irq_used[set.index] = true;
		ret = server->cfg.ops->irq_set(
			server->cfg.ctx, set.index, set.start, set.count, server->rx.fds);
	}
	return ret == 0 ? 0 : vfe_error_set(err, ret, "the device refuses SET_IRQS");
}

/* May the client access what @rw says, with @flag? */
static int
check_region_rw(const struct vfe_vfu_server *server, const struct vfe_wire_vfu_region_rw *rw,
	uint32_t flag, struct vfe_error *err)
{
	if (rw->region >= VFE_VFU_NR_REGIONS || rw->count == 0 ||
		rw->count > VFE_VFU_SERVER_MAX_DATA_XFER || rw->count > server->peer.max_xfer ||
		!vfe_range_inside(rw->offset, rw->count, server->cfg.regions[rw->region].size))
		return vfe_error_set(err, -EINVAL, "access to region %u offset 0x%llx of %u bytes",
			rw->region, (unsigned long long)rw->offset, rw->count);
	if ((server->cfg.regions[rw->region].flags & flag) == 0)
		return vfe_error_set(err, -EPERM, "access to region %u, which allows no %s",
			rw->region, flag == VFE_VFU_REGION_F_READ ? "reads" : "writes");
	return 0;
}

static int
on_region_read(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_rw rw;
	int ret;

	memcpy(&rw, server->rx.body, sizeof(rw));
	ret = check_region_rw(server, &rw, VFE_VFU_REGION_F_READ, err);
	if (ret < 0)
		return ret;
	ret = answer_alloc(answer, (uint32_t)sizeof(rw) + rw.count, err);
	if (ret < 0)
		return ret;
	memcpy(answer->body, &rw, sizeof(rw));
	ret = server->cfg.ops->region_read(
		server->cfg.ctx, rw.region, rw.offset, answer->body + sizeof(rw), rw.count);
	return ret == 0 ? 0 : vfe_error_set(err, ret, "the device refuses a read");
}

static int
on_region_write(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	struct vfe_wire_vfu_region_rw rw;
	int ret;

	memcpy(&rw, server->rx.body, sizeof(rw));
	ret = check_region_rw(server, &rw, VFE_VFU_REGION_F_WRITE, err);
	if (ret < 0)
		return ret;
	if (server->rx.body_size != sizeof(rw) + rw.count)
		return vfe_error_set(err, -EINVAL, "REGION_WRITE of %u bytes with a body of %u",
			rw.count, server->rx.body_size);
	ret = server->cfg.ops->region_write(
		server->cfg.ctx, rw.region, rw.offset, server->rx.body + sizeof(rw), rw.count);
	if (ret < 0)
		return vfe_error_set(err, ret, "the device refuses a write");
	return answer_copy(answer, &rw, sizeof(rw), err);
}

static int
on_device_reset(struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err)
{
	int ret = server->cfg.ops->reset(server->cfg.ctx);

	(void)answer;
	return ret == 0 ? 0 : vfe_error_set(err, ret, "the device refuses DEVICE_RESET");
}

typedef int (*vfu_handler)(
	struct vfe_vfu_server *server, struct vfu_answer *answer, struct vfe_error *err);

/* Commands without a row are refused with ENOTSUP. */
static const vfu_handler handlers[] = {
	[VFE_VFU_VERSION] = on_version,
	[VFE_VFU_DMA_MAP] = on_dma_map,
	[VFE_VFU_DMA_UNMAP] = on_dma_unmap,
	[VFE_VFU_DEVICE_GET_INFO] = on_device_get_info,
	[VFE_VFU_DEVICE_GET_REGION_INFO] = on_region_get_info,
	[VFE_VFU_DEVICE_GET_REGION_IO_FDS] = on_region_get_io_fds,
	[VFE_VFU_DEVICE_GET_IRQ_INFO] = on_device_get_irq_info,
	[VFE_VFU_DEVICE_SET_IRQS] = on_device_set_irqs,
	[VFE_VFU_REGION_READ] = on_region_read,
	[VFE_VFU_REGION_WRITE] = on_region_write,
	[VFE_VFU_DEVICE_RESET] = on_device_reset,
};

int
vfu_server_handle(struct vfe_vfu_server *server, struct vfu_answer *answer, bool *ret_hang_up,
	struct vfe_error *err)
{
	const struct vfe_wire_vfu_hdr *hdr = &server->rx.hdr;
	const struct vfu_msg *msg = vfu_msg_get(hdr->command);
	int ret;

	*ret_hang_up = true;
	if ((hdr->flags & VFE_VFU_F_TYPE_MASK) != VFE_VFU_F_COMMAND)
		return vfe_error_set(
			err, -EPROTO, "message with flags 0x%x that is no command", hdr->flags);
	if (!server->negotiated && hdr->command != VFE_VFU_VERSION)
		return vfe_error_set(err, -EPROTO, "%s before VERSION", vfu_msg_name(hdr->command));

	*ret_hang_up = !server->negotiated;
	if ((hdr->flags & ~(uint32_t)VFE_VFU_F_NO_REPLY) != 0)
		return vfe_error_set(
			err, -EINVAL, "%s with flags 0x%x", vfu_msg_name(hdr->command), hdr->flags);
	if (msg == NULL || hdr->command >= VFE_ARRAY_SIZE(handlers) ||
		handlers[hdr->command] == NULL)
		return vfe_error_set(err, -ENOTSUP, "command %u", hdr->command);
	ret = vfu_shape_check(
		&msg->command, msg->name, server->rx.body_size, server->rx.nr_fds, err);
	if (ret < 0)
		return ret;
	ret = handlers[hdr->command](server, answer, err);
	if (ret == 0)
		*ret_hang_up = false;
	return ret;
}
