/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Fuzz the vfio-user client: the input is what a server answers to a fixed list of calls.
 *
 * The first byte chooses the form. Odd: the rest goes to the socket as it is. Even: it is a list
 * of records, each of which becomes a reply with the right id, command and size: flags, fds, u16
 * length, body.
 */

#include "vfe_vfio_user_client.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	PAGE = 4096,
	MAX_INPUT = 32768, /* fits the socket, so that nobody waits */
	MAX_FDS = 20,
	TIMEOUT_MS = 2000,
};

/* The order of the calls below; region and io fds may take two steps, then the rest is shifted. */
static const uint16_t commands[] = {VFE_VFU_VERSION, VFE_VFU_DEVICE_GET_INFO,
	VFE_VFU_DEVICE_GET_REGION_INFO, VFE_VFU_DEVICE_GET_REGION_IO_FDS,
	VFE_VFU_DEVICE_GET_IRQ_INFO, VFE_VFU_REGION_READ, VFE_VFU_REGION_WRITE, VFE_VFU_DMA_UNMAP,
	VFE_VFU_DEVICE_RESET};

struct server {
	int listen_fd;
	int memory_fd;
	char path[64];
	const uint8_t *data;
	size_t size;
};

static struct server server = {.listen_fd = -1};

static void
send_all(int fd, const void *data, size_t size, uint32_t nr_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * MAX_FDS)];
	} control = {.buf = {0}};
	struct iovec iov = {(void *)(uintptr_t)data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;
	uint32_t i;

	if (nr_fds > 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		for (i = 0; i < nr_fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &server.memory_fd, sizeof(int));
	}
	(void)!sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void
send_records(int fd, const uint8_t *data, size_t size)
{
	static uint8_t msg[sizeof(struct vfe_wire_vfu_hdr) + MAX_INPUT];
	struct vfe_wire_vfu_hdr hdr = {0};
	uint32_t len, i;

	for (i = 0; size >= 4 && i < 32; i++) {
		len = (uint32_t)(data[2] | data[3] << 8);
		if (len > size - 4)
			len = (uint32_t)size - 4;
		hdr.id = (uint16_t)i;
		hdr.command = commands[i < VFE_ARRAY_SIZE(commands) ? i : 0];
		hdr.size = (uint32_t)sizeof(hdr) + len;
		hdr.flags = VFE_VFU_F_REPLY ^ (data[0] & 0x3fu);
		memcpy(msg, &hdr, sizeof(hdr));
		memcpy(msg + sizeof(hdr), data + 4, len);
		send_all(fd, msg, hdr.size, data[1] % MAX_FDS);
		data += 4 + len;
		size -= 4 + len;
	}
}

/* Say all at once, then nothing more: a client that waits sees the end of the stream. */
static void *
server_main(void *arg)
{
	int fd = accept4(server.listen_fd, NULL, NULL, SOCK_CLOEXEC);
	char buf[4096];

	(void)arg;
	if (fd < 0)
		abort();
	if ((server.data[0] & 1) != 0)
		send_all(fd, server.data + 1, server.size - 1, 0);
	else
		send_records(fd, server.data + 1, server.size - 1);
	shutdown(fd, SHUT_WR);
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
	return NULL;
}

static void
remove_socket(void)
{
	(void)unlink(server.path);
}

static void
setup(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	(void)vfe_str_format(
		server.path, sizeof(server.path), "/tmp/vfe-fuzz-%d.sock", (int)getpid());
	(void)vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), server.path);
	server.memory_fd = vfe_memfd_create("fuzz", 16 * PAGE);
	server.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server.memory_fd < 0 || server.listen_fd < 0 ||
		bind(server.listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
		listen(server.listen_fd, 4) < 0 || atexit(remove_socket) != 0)
		abort();
}

static void
call_everything(struct vfe_vfu_client *client)
{
	struct vfe_vfu_io_fd *fds;
	struct vfe_vfu_region region;
	struct vfe_error err;
	uint32_t a, b, c, n;
	uint8_t buf[8];

	(void)vfe_vfu_client_device_info(client, &a, &b, &c, &err);
	if (vfe_vfu_client_region_info(client, 4, &region, &err) == 0)
		vfe_vfu_region_fini(&region);
	if (vfe_vfu_client_region_io_fds(client, 4, &fds, &n, &err) == 0)
		vfe_vfu_io_fds_free(fds, n);
	(void)vfe_vfu_client_irq_info(client, 2, &a, &err);
	(void)vfe_vfu_client_region_read(client, 0, 4, buf, sizeof(buf), &err);
	(void)vfe_vfu_client_region_write(client, 0, 4, buf, sizeof(buf), &err);
	(void)vfe_vfu_client_dma_unmap(client, PAGE, PAGE, &err);
	(void)vfe_vfu_client_reset(client, &err);
	(void)vfe_vfu_client_region_post(client, 0, 4, buf, sizeof(buf));
	if (vfe_vfu_client_error(client) == -ETIMEDOUT)
		abort(); /* the server has shut down its side */
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vfe_vfu_client *client = NULL;
	pthread_t thread;

	if (server.listen_fd < 0)
		setup();
	if (size < 1 || size > MAX_INPUT)
		return 0;
	server.data = data;
	server.size = size;
	if (pthread_create(&thread, NULL, server_main, NULL) != 0)
		abort();
	if (vfe_vfu_client_connect(server.path, TIMEOUT_MS, &client, NULL) == 0)
		call_everything(client);
	vfe_vfu_client_close(client);
	pthread_join(thread, NULL);
	return 0;
}
