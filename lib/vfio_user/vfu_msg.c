/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The table of vfio-user messages, and framing with fds on a stream socket.
 */

#include "vfu_msg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
	MAX_JSON = 16384, /* capabilities; a real peer sends some hundred bytes */
	MAX_REGION_INFO = 131072,
	MAX_IO_FDS = 262144,
};

#define FIXED(type) sizeof(struct vfe_wire_vfu_##type), sizeof(struct vfe_wire_vfu_##type)
#define FROM(type, more) \
	sizeof(struct vfe_wire_vfu_##type), sizeof(struct vfe_wire_vfu_##type) + (more)

/*                              command: body, fds                reply: body, fds */
static const struct vfu_msg messages[] = {
	[VFE_VFU_VERSION] = {"VERSION", {FROM(version, MAX_JSON), 0}, {FROM(version, MAX_JSON), 0}},
	[VFE_VFU_DMA_MAP] = {"DMA_MAP", {FIXED(dma_map), 1}, {0, 0, 0}},
	[VFE_VFU_DMA_UNMAP] = {"DMA_UNMAP", {FIXED(dma_unmap), 0}, {FIXED(dma_unmap), 0}},
	[VFE_VFU_DEVICE_GET_INFO] = {"DEVICE_GET_INFO", {FIXED(device_info), 0},
		{FROM(device_info, 4096), 0}},
	[VFE_VFU_DEVICE_GET_REGION_INFO] = {"DEVICE_GET_REGION_INFO", {FIXED(region_info), 0},
		{FROM(region_info, MAX_REGION_INFO), 1}},
	[VFE_VFU_DEVICE_GET_REGION_IO_FDS] = {"DEVICE_GET_REGION_IO_FDS", {FIXED(region_io_fds), 0},
		{FROM(region_io_fds, MAX_IO_FDS), VFU_MAX_FDS}},
	[VFE_VFU_DEVICE_GET_IRQ_INFO] = {"DEVICE_GET_IRQ_INFO", {FIXED(irq_info), 0},
		{FROM(irq_info, 4096), 0}},
	[VFE_VFU_DEVICE_SET_IRQS] = {"DEVICE_SET_IRQS",
		{FROM(irq_set, VFU_MAX_VECTORS), VFU_MAX_FDS}, {0, 0, 0}},
	[VFE_VFU_REGION_READ] = {"REGION_READ", {FIXED(region_rw), 0},
		{FROM(region_rw, VFU_MAX_DATA_XFER), 0}},
	[VFE_VFU_REGION_WRITE] = {"REGION_WRITE", {FROM(region_rw, VFU_MAX_DATA_XFER), 0},
		{FIXED(region_rw), 0}},
	[VFE_VFU_DMA_READ] = {"DMA_READ", {FIXED(dma_rw), 0}, {FROM(dma_rw, VFU_MAX_DATA_XFER), 0}},
	[VFE_VFU_DMA_WRITE] = {"DMA_WRITE", {FROM(dma_rw, VFU_MAX_DATA_XFER), 0},
		{0, sizeof(struct vfe_wire_vfu_dma_rw), 0}},
	[VFE_VFU_DEVICE_RESET] = {"DEVICE_RESET", {0, 0, 0}, {0, 0, 0}},
	[VFE_VFU_REGION_WRITE_MULTI] = {"REGION_WRITE_MULTI", {8, VFU_MAX_BODY, 0}, {8, 8, 0}},
	[VFE_VFU_DEVICE_FEATURE] = {"DEVICE_FEATURE", {8, VFU_MAX_BODY, 0}, {8, VFU_MAX_BODY, 0}},
	[VFE_VFU_MIG_DATA_READ] = {"MIG_DATA_READ", {8, 8, 0}, {8, VFU_MAX_BODY, 0}},
	[VFE_VFU_MIG_DATA_WRITE] = {"MIG_DATA_WRITE", {8, VFU_MAX_BODY, 0}, {0, VFU_MAX_BODY, 0}},
};

const struct vfu_msg *
vfu_msg_get(uint32_t command)
{
	if (command >= VFE_ARRAY_SIZE(messages) || messages[command].name == NULL)
		return NULL;
	return &messages[command];
}

const char *
vfu_msg_name(uint32_t command)
{
	const struct vfu_msg *msg = vfu_msg_get(command);

	return msg == NULL ? "command" : msg->name;
}

int
vfu_shape_check(const struct vfu_shape *shape, const char *name, uint32_t size, uint32_t nr_fds,
	struct vfe_error *err)
{
	if (size < shape->min || size > shape->max)
		return vfe_error_set(err, -EINVAL, "%s with a body of %u bytes, legal are %u to %u",
			name, size, shape->min, shape->max);
	if (nr_fds > shape->max_fds)
		return vfe_error_set(err, -EINVAL, "%s with %u fds, legal are at most %u", name,
			nr_fds, shape->max_fds);
	return 0;
}

/* Keep the fds of one recvmsg(); all are either stored in @rx or closed. */
static int
rx_take_fds(struct vfu_rx *rx, struct msghdr *msg, struct vfe_error *err)
{
	struct cmsghdr *cmsg;
	int ret = 0;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		int fds[VFU_MAX_FDS];
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(cmsg), n * sizeof(int));

		if (n > VFU_MAX_FDS - rx->nr_fds) {
			vfe_close_all(fds, n);
			ret = vfe_error_set(
				err, -EPROTO, "more than %d fds with one message", VFU_MAX_FDS);
			continue;
		}
		if (rx->fds == NULL)
			rx->fds = malloc(sizeof(int) * VFU_MAX_FDS);
		if (rx->fds == NULL) {
			vfe_close_all(fds, n);
			ret = -ENOMEM;
			continue;
		}
		memcpy(&rx->fds[rx->nr_fds], fds, n * sizeof(int));
		rx->nr_fds += (uint32_t)n;
	}
	if (ret == 0 && (msg->msg_flags & MSG_CTRUNC) != 0)
		ret = vfe_error_set(
			err, -EPROTO, "fds were lost in transfer (limit of open files?)");
	return ret;
}

/* Read at most @len bytes. Returns their number, 0 when there are none now, or -errno. */
static ssize_t
rx_some(struct vfu_rx *rx, int fd, void *buf, size_t len, struct vfe_error *err)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * VFU_MAX_FDS)];
	} control;
	struct iovec iov = {buf, len};
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;
	int ret;

	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return 0;
	if (n < 0)
		return vfe_error_set(err, -errno, "cannot receive: %s", strerror(errno));

	ret = rx_take_fds(rx, &msg, err);
	if (ret < 0)
		return ret;
	if (n == 0)
		return vfe_error_set(err, -ECONNRESET, "the peer hung up%s",
			rx->hdr_got > 0 ? " within a message" : "");
	return n;
}

static int
rx_begin_body(struct vfu_rx *rx, struct vfe_error *err)
{
	uint32_t size = rx->hdr.size;

	if (size < sizeof(rx->hdr) || size > sizeof(rx->hdr) + VFU_MAX_BODY)
		return vfe_error_set(err, -EPROTO, "message of %u bytes, legal are %zu to %zu",
			size, sizeof(rx->hdr), sizeof(rx->hdr) + VFU_MAX_BODY);
	rx->body_size = size - (uint32_t)sizeof(rx->hdr);
	if (rx->body_size == 0)
		return 0;
	rx->body = malloc(rx->body_size);
	return rx->body == NULL ? -ENOMEM : 0;
}

int
vfu_rx_read(struct vfu_rx *rx, int fd, struct vfe_error *err)
{
	ssize_t n;
	int ret;

	while (rx->hdr_got < sizeof(rx->hdr)) {
		n = rx_some(
			rx, fd, (char *)&rx->hdr + rx->hdr_got, sizeof(rx->hdr) - rx->hdr_got, err);
		if (n <= 0)
			return (int)n;
		rx->hdr_got += (uint32_t)n;
		if (rx->hdr_got < sizeof(rx->hdr))
			continue;
		ret = rx_begin_body(rx, err);
		if (ret < 0)
			return ret;
	}
	while (rx->body_got < rx->body_size) {
		n = rx_some(rx, fd, rx->body + rx->body_got, rx->body_size - rx->body_got, err);
		if (n <= 0)
			return (int)n;
		rx->body_got += (uint32_t)n;
	}
	return 1;
}

void
vfu_rx_reset(struct vfu_rx *rx)
{
	free(rx->body);
	vfe_close_all(rx->fds, rx->nr_fds);
	free(rx->fds);
	*rx = (struct vfu_rx){0};
}

ssize_t
vfu_send(int fd, struct iovec *iov, uint32_t nr_iov, const int *fds, uint32_t nr_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * VFU_MAX_FDS)];
	} control;
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = nr_iov};
	struct cmsghdr *cmsg;
	ssize_t n;

	if (nr_fds > VFU_MAX_FDS)
		return -EINVAL;
	if (nr_fds > 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
	}
	do
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return n;
}
