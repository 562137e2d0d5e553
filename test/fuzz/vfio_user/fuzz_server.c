/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fuzz the vfio-user server: the input is what one client sends, from its connection to its end.
 *
 * The first byte chooses the form. Odd: the rest goes to the socket as it is. Even: VERSION is
 * done, and the rest is a list of records, each of which becomes a message with a right size:
 * command, flags, fds, u16 length, body.
 */

#include "vfe_vfio_user_server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ev.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	PAGE = 4096,
	MAX_INPUT = 32768,
	NR_IO_FDS = 20,
	VECTORS = 16,
	MAX_FDS = 20,
};

static struct ev_loop *loop;
static struct vfe_vfu_server *server;
static char path[64];
static uint8_t registers[4 * PAGE];
static int memory_fd, event_fd;

static int
region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, uint32_t len)
{
	(void)ctx;
	(void)region;
	memcpy(buf, registers + offset, len);
	return 0;
}

static int
region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, uint32_t len)
{
	(void)ctx;
	if (region == 4) {
		vfe_vfu_server_kick_out(server, "doorbell");
		return 0;
	}
	memcpy(registers + offset, buf, len);
	return 0;
}

static int
dma_map(void *ctx, struct vfe_vfu_dma *dma)
{
	(void)ctx;
	if ((dma->prot & VFE_VFU_DMA_F_WRITE) != 0)
		memset((uint8_t *)dma->va + dma->size - 1, 1, 1);
	return dma->iova == 0xdead000 ? -EPERM : 0;
}

static void
dma_unmap(void *ctx, struct vfe_vfu_dma *dma)
{
	(void)ctx;
	if ((dma->prot & VFE_VFU_DMA_F_WRITE) != 0)
		memset(dma->va, 2, 1);
}

static int
irq_set(void *ctx, uint32_t index, uint32_t start, uint32_t count, int *fds)
{
	uint32_t i;

	(void)ctx;
	if (index != VFE_VFU_IRQ_MSIX || start > VECTORS || count > VECTORS - start)
		abort();
	for (i = 0; i < count; i += 2) { /* keep some, leave the others to the library */
		int fd = vfe_fd_take(&fds[i]);

		vfe_close(&fd);
	}
	return 0;
}

static int
reset(void *ctx)
{
	(void)ctx;
	return 0;
}

static const struct vfe_vfu_server_ops ops = {
	.region_read = region_read,
	.region_write = region_write,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.irq_set = irq_set,
	.reset = reset,
};

static void
remove_socket(void)
{
	(void)unlink(path);
}

static void
setup(void)
{
	static const struct vfe_vfu_server_area areas[2] = {{0, PAGE}, {2 * PAGE, PAGE}};
	static struct vfe_vfu_server_io_fd io_fds[NR_IO_FDS];
	struct vfe_vfu_server_cfg cfg = {.path = path, .mode = 0600, .ops = &ops};
	uint32_t i;

	(void)vfe_str_format(path, sizeof(path), "/tmp/vfe-fuzz-%d.sock", (int)getpid());
	memory_fd = vfe_memfd_create("fuzz", 16 * PAGE);
	event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	for (i = 0; i < NR_IO_FDS; i++)
		io_fds[i] = (struct vfe_vfu_server_io_fd){i * 4, 2, i % 3 ? event_fd : memory_fd};
	for (i = 0; i < VFE_VFU_NR_REGIONS; i++)
		cfg.regions[i].mmap_fd = -1;
	cfg.irq_counts[VFE_VFU_IRQ_MSIX] = VECTORS;
	cfg.regions[0].size = sizeof(registers);
	cfg.regions[0].flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	cfg.regions[4] = (struct vfe_vfu_server_region){
		.size = 4 * PAGE,
		.flags = VFE_VFU_REGION_F_WRITE,
		.mmap_fd = memory_fd,
		.areas = areas,
		.nr_areas = 2,
		.io_fds = io_fds,
		.nr_io_fds = NR_IO_FDS,
	};
	loop = ev_loop_new(EVFLAG_AUTO);
	if (loop == NULL || memory_fd < 0 || event_fd < 0 ||
		vfe_vfu_server_create(loop, &cfg, &server, NULL) < 0 || atexit(remove_socket) != 0)
		abort();
}

/* Let the server work, and throw its replies away. Returns false when it has hung up. */
static bool
turn(int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * 253)];
	} control;
	static uint8_t buf[65536];
	bool alive = true;

	ev_run(loop, EVRUN_NOWAIT);
	for (;;) {
		struct iovec iov = {buf, sizeof(buf)};
		struct msghdr msg = {NULL, 0, &iov, 1, control.buf, sizeof(control.buf), 0};
		ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		struct cmsghdr *cmsg;

		if (n == 0 || (n < 0 && errno != EAGAIN))
			alive = false;
		if (n <= 0)
			return alive;
		for (cmsg = CMSG_FIRSTHDR(&msg); cmsg != NULL; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
			int fds[253];
			size_t nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			memcpy(fds, CMSG_DATA(cmsg), nr * sizeof(int));
			vfe_close_all(fds, nr);
		}
	}
}

/* Send all of @data, the server reading meanwhile. Returns false when it has hung up. */
static bool
feed(int fd, const uint8_t *data, size_t size, uint32_t nr_fds, int which_fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control = {.buf = {0}};
	struct cmsghdr *cmsg;
	uint32_t i;

	while (size > 0) {
		struct iovec iov = {(void *)(uintptr_t)data, size};
		struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (nr_fds > 0) {
			msg.msg_control = control.buf;
			msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
			cmsg = CMSG_FIRSTHDR(&msg);
			cmsg->cmsg_level = SOL_SOCKET;
			cmsg->cmsg_type = SCM_RIGHTS;
			cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
			for (i = 0; i < nr_fds; i++)
				memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &which_fd, sizeof(int));
		}
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			return false;
		if (n > 0) {
			data += n;
			size -= (size_t)n;
			nr_fds = 0;
		}
		if (!turn(fd))
			return false;
	}
	return true;
}

static bool
feed_message(int fd, uint16_t command, uint32_t flags, const uint8_t *body, uint32_t size,
	uint32_t nr_fds, int which_fd)
{
	static uint8_t msg[sizeof(struct vfe_wire_vfu_hdr) + MAX_INPUT];
	const struct vfe_wire_vfu_hdr hdr = {1, command, (uint32_t)sizeof(hdr) + size, flags, 0};

	memcpy(msg, &hdr, sizeof(hdr));
	memcpy(msg + sizeof(hdr), body, size);
	return feed(fd, msg, hdr.size, nr_fds, which_fd);
}

static void
feed_records(int fd, const uint8_t *data, size_t size)
{
	static const char hello[] = "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":7}}";
	uint32_t len;

	if (!feed_message(fd, VFE_VFU_VERSION, 0, (const uint8_t *)hello, sizeof(hello), 0, -1))
		abort();
	while (size >= 5) {
		len = (uint32_t)(data[3] | data[4] << 8);
		if (len > size - 5)
			len = (uint32_t)size - 5;
		if (!feed_message(fd, data[0], data[1], data + 5, len, data[2] % MAX_FDS,
			    data[2] >= 128 ? memory_fd : event_fd))
			return;
		data += 5 + len;
		size -= 5 + len;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, i;

	if (server == NULL)
		setup();
	if (size < 1 || size > MAX_INPUT)
		return 0;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		abort();
	if ((data[0] & 1) != 0)
		feed(fd, data + 1, size - 1, 0, -1);
	else
		feed_records(fd, data + 1, size - 1);
	close(fd);
	/* at least accept, read, and see the end */
	for (i = 0; i < 4 || (i < 100 && vfe_vfu_server_connected(server)); i++)
		ev_run(loop, EVRUN_NOWAIT);
	if (vfe_vfu_server_connected(server))
		abort();
	return 0;
}
