/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * For the tests of vfio-user: the device, its thread, and raw sockets.
 */

#undef NDEBUG

#include "fixture.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int
take_refusal(struct device *dev)
{
	int ret = dev->refuse;

	dev->refuse = 0;
	return ret;
}

static int
on_region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, uint32_t len)
{
	struct device *dev = ctx;
	const uint8_t *src = region == 2 ? dev->big : dev->bar;
	int ret;

	pthread_mutex_lock(&dev->lock);
	ret = take_refusal(dev);
	if (ret == 0)
		memcpy(buf, src + offset, len);
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

static int
on_region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, uint32_t len)
{
	struct device *dev = ctx;
	uint8_t *dst = region == 2 ? dev->big : dev->bar;
	bool kick_out;
	int ret;

	pthread_mutex_lock(&dev->lock);
	ret = take_refusal(dev);
	kick_out = dev->kick_out_on_write;
	if (ret == 0 && region != 4)
		memcpy(dst + offset, buf, len);
	dev->writes++;
	pthread_cond_broadcast(&dev->changed);
	pthread_mutex_unlock(&dev->lock);
	if (kick_out)
		vfe_vfu_server_kick_out(dev->server, "kicked out by the device");
	return ret;
}

static int
on_dma_map(void *ctx, struct vfe_vfu_dma *dma)
{
	struct device *dev = ctx;
	int ret;

	pthread_mutex_lock(&dev->lock);
	ret = take_refusal(dev);
	assert(dev->nr_maps < FIX_MAX_MAPS);
	if (ret == 0)
		dev->maps[dev->nr_maps++] = dma;
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

static void
on_dma_unmap(void *ctx, struct vfe_vfu_dma *dma)
{
	struct device *dev = ctx;
	uint32_t i;

	/* still mapped: reading it must work */
	if ((dma->prot & VFE_VFU_DMA_F_READ) != 0)
		(void)*(const volatile uint8_t *)dma->va;
	pthread_mutex_lock(&dev->lock);
	for (i = 0; i < dev->nr_maps; i++) {
		if (dev->maps[i] == dma)
			dev->maps[i] = dev->maps[dev->nr_maps - 1];
	}
	dev->nr_maps--;
	pthread_mutex_unlock(&dev->lock);
}

static int
on_irq_set(void *ctx, uint32_t index, uint32_t start, uint32_t count, int *fds)
{
	struct device *dev = ctx;
	uint32_t i;
	int ret;

	assert(index == VFE_VFU_IRQ_MSIX);
	assert(start <= FIX_VECTORS && count <= FIX_VECTORS - start);
	pthread_mutex_lock(&dev->lock);
	ret = take_refusal(dev);
	for (i = 0; i < count && ret == 0; i++) {
		vfe_close(&dev->irq_fds[start + i]);
		dev->irq_fds[start + i] = vfe_fd_take(&fds[i]);
	}
	dev->irq_sets++;
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

static int
on_reset(void *ctx)
{
	struct device *dev = ctx;
	int ret;

	pthread_mutex_lock(&dev->lock);
	ret = take_refusal(dev);
	dev->resets++;
	pthread_mutex_unlock(&dev->lock);
	return ret;
}

static void
on_connected(void *ctx)
{
	struct device *dev = ctx;

	pthread_mutex_lock(&dev->lock);
	dev->connects++;
	pthread_cond_broadcast(&dev->changed);
	pthread_mutex_unlock(&dev->lock);
}

static void
on_disconnected(void *ctx)
{
	struct device *dev = ctx;

	pthread_mutex_lock(&dev->lock);
	dev->disconnects++;
	pthread_cond_broadcast(&dev->changed);
	pthread_mutex_unlock(&dev->lock);
}

static const struct vfe_vfu_server_ops ops = {
	.region_read = on_region_read,
	.region_write = on_region_write,
	.dma_map = on_dma_map,
	.dma_unmap = on_dma_unmap,
	.irq_set = on_irq_set,
	.reset = on_reset,
	.connected = on_connected,
	.disconnected = on_disconnected,
};

static void
on_wake(struct ev_loop *loop, ev_async *async, int revents)
{
	struct device *dev = vfe_container_of(async, struct device, wake);
	void (*job)(struct device *, void *);

	(void)revents;
	pthread_mutex_lock(&dev->lock);
	job = dev->job;
	if (dev->stop)
		ev_break(loop, EVBREAK_ALL);
	pthread_mutex_unlock(&dev->lock);
	if (job == NULL)
		return;

	job(dev, dev->job_arg);
	pthread_mutex_lock(&dev->lock);
	dev->job = NULL;
	pthread_cond_broadcast(&dev->changed);
	pthread_mutex_unlock(&dev->lock);
}

static void *
loop_main(void *arg)
{
	struct device *dev = arg;

	ev_run(dev->loop, 0);
	return NULL;
}

static void
wait_locked(struct device *dev)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += FIX_WAIT_MS / 1000;
	assert_int_equal(pthread_cond_timedwait(&dev->changed, &dev->lock, &ts), 0);
}

static void
fill_cfg(struct device *dev, uint32_t timeout_ms)
{
	struct vfe_vfu_server_cfg *cfg = &dev->cfg;
	uint32_t i;

	*cfg = (struct vfe_vfu_server_cfg){
		.path = dev->path,
		.mode = 0600,
		.name = "0000:af:00.2",
		.timeout_ms = timeout_ms,
		.ops = &ops,
		.ctx = dev,
	};
	for (i = 0; i < VFE_VFU_NR_REGIONS; i++)
		cfg->regions[i].mmap_fd = -1;
	cfg->irq_counts[VFE_VFU_IRQ_MSIX] = FIX_VECTORS;
	cfg->regions[0].size = FIX_BAR_SIZE;
	cfg->regions[0].flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	cfg->regions[1].size = FIX_PAGE;
	cfg->regions[1].flags = VFE_VFU_REGION_F_READ;
	cfg->regions[1].mmap_fd = dev->doorbell_fd; /* without areas: all of it */
	cfg->regions[2].size = FIX_BIG_SIZE;
	cfg->regions[2].flags = VFE_VFU_REGION_F_READ | VFE_VFU_REGION_F_WRITE;
	cfg->regions[4].size = FIX_DOORBELLS;
	cfg->regions[4].flags = VFE_VFU_REGION_F_WRITE;
	cfg->regions[4].mmap_fd = dev->doorbell_fd;
	cfg->regions[4].mmap_offset = FIX_PAGE;
	cfg->regions[4].areas = dev->areas;
	cfg->regions[4].nr_areas = FIX_NR_AREAS;
	cfg->regions[4].io_fds = dev->io_fds;
	cfg->regions[4].nr_io_fds = FIX_NR_IO_FDS;
	for (i = 0; i < FIX_NR_AREAS; i++)
		dev->areas[i] = (struct vfe_vfu_server_area){i * FIX_PAGE, FIX_PAGE};
}

struct device *
device_start(uint32_t timeout_ms)
{
	struct device *dev = calloc(1, sizeof(*dev));
	struct vfe_error err = {""};
	uint32_t i;

	assert_non_null(dev);
	snprintf(dev->dir, sizeof(dev->dir), "/tmp/vfe-vfu-XXXXXX");
	assert_non_null(mkdtemp(dev->dir));
	snprintf(dev->path, sizeof(dev->path), "%s/0000:af:00.2.sock", dev->dir);
	dev->big = malloc(FIX_BIG_SIZE);
	assert_non_null(dev->big);
	for (i = 0; i < FIX_BIG_SIZE; i++)
		dev->big[i] = (uint8_t)(i * 7 + (i >> 10));
	dev->doorbell_fd = vfe_memfd_create("doorbells", FIX_PAGE + FIX_DOORBELLS);
	assert_true(dev->doorbell_fd >= 0);
	for (i = 0; i < FIX_NR_IO_FDS; i++) {
		/* two registers share each eventfd */
		int fd =
			i % 2 == 0 ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : dev->io_fds[i - 1].fd;

		assert_true(fd >= 0);
		dev->io_fds[i] = (struct vfe_vfu_server_io_fd){i * 4, 2, fd};
	}
	for (i = 0; i < FIX_VECTORS; i++)
		dev->irq_fds[i] = -1;
	pthread_mutex_init(&dev->lock, NULL);
	pthread_cond_init(&dev->changed, NULL);
	fill_cfg(dev, timeout_ms);

	dev->loop = ev_loop_new(EVFLAG_AUTO);
	assert_non_null(dev->loop);
	ev_async_init(&dev->wake, on_wake);
	ev_async_start(dev->loop, &dev->wake);
	if (vfe_vfu_server_create(dev->loop, &dev->cfg, &dev->server, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&dev->thread, NULL, loop_main, dev), 0);
	return dev;
}

void
device_stop(struct device *dev)
{
	uint32_t i;

	pthread_mutex_lock(&dev->lock);
	dev->stop = true;
	pthread_mutex_unlock(&dev->lock);
	ev_async_send(dev->loop, &dev->wake);
	pthread_join(dev->thread, NULL);

	vfe_vfu_server_destroy(dev->server);
	assert_int_equal(access(dev->path, F_OK), -1);
	assert_int_equal(dev->nr_maps, 0);
	assert_int_equal(dev->connects, dev->disconnects);
	for (i = 0; i < FIX_VECTORS; i++)
		assert_int_equal(dev->irq_fds[i], -1);
	ev_async_stop(dev->loop, &dev->wake);
	ev_loop_destroy(dev->loop);
	assert_int_equal(rmdir(dev->dir), 0);
	for (i = 0; i < FIX_NR_IO_FDS; i += 2)
		close(dev->io_fds[i].fd);
	close(dev->doorbell_fd);
	free(dev->big);
	pthread_cond_destroy(&dev->changed);
	pthread_mutex_destroy(&dev->lock);
	free(dev);
}

void
device_run(struct device *dev, void (*job)(struct device *dev, void *arg), void *arg)
{
	pthread_mutex_lock(&dev->lock);
	dev->job_arg = arg;
	dev->job = job;
	ev_async_send(dev->loop, &dev->wake);
	while (dev->job != NULL)
		wait_locked(dev);
	pthread_mutex_unlock(&dev->lock);
}

void
device_wait_connects(struct device *dev, uint32_t n)
{
	pthread_mutex_lock(&dev->lock);
	while (dev->connects < n)
		wait_locked(dev);
	pthread_mutex_unlock(&dev->lock);
}

void
device_wait_disconnects(struct device *dev, uint32_t n)
{
	pthread_mutex_lock(&dev->lock);
	while (dev->disconnects < n)
		wait_locked(dev);
	pthread_mutex_unlock(&dev->lock);
}

static void
get_last_error(struct device *dev, void *arg)
{
	snprintf(arg, sizeof(struct vfe_error), "%s", vfe_vfu_server_last_error(dev->server));
}

void
device_expect_error(struct device *dev, const char *part)
{
	struct vfe_error err;

	device_run(dev, get_last_error, &err);
	if (strstr(err.text, part) == NULL)
		fail_msg("the server hung up for \"%s\", not for \"%s\"", err.text, part);
}

int
next_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	close(fd);
	return fd;
}

int
open_memory(uint64_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

/*
 * Raw sockets
 */

int
raw_connect(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), path), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

void
raw_send(int fd, const void *data, size_t len, const int *fds, uint32_t nr_fds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * VFE_VFU_SERVER_MAX_MSG_FDS)];
	} control = {.buf = {0}};
	struct iovec iov = {(void *)(uintptr_t)data, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *cmsg;

	if (nr_fds > 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr_fds);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr_fds);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr_fds);
	}
	assert_int_equal(sendmsg(fd, &msg, MSG_NOSIGNAL), len);
}

void
raw_command(int fd, uint16_t id, uint16_t command, uint32_t flags, const void *body, uint32_t size,
	const int *fds, uint32_t nr_fds)
{
	struct vfe_wire_vfu_hdr hdr = {id, command, (uint32_t)sizeof(hdr) + size, flags, 0};
	uint8_t *data = malloc(hdr.size);

	assert_non_null(data);
	memcpy(data, &hdr, sizeof(hdr));
	if (size > 0)
		memcpy(data + sizeof(hdr), body, size);
	raw_send(fd, data, hdr.size, fds, nr_fds);
	free(data);
}

/* Read exactly @len bytes; false at the end of the stream. */
static bool
raw_read(int fd, void *buf, size_t len, struct raw_reply *ret)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int) * VFE_VFU_SERVER_MAX_MSG_FDS)];
	} control;
	struct iovec iov = {buf, len};
	struct cmsghdr *cmsg;
	ssize_t n;

	while (iov.iov_len > 0) {
		struct msghdr msg = {
			&(struct sockaddr_un){0}, 0, &iov, 1, control.buf, sizeof(control.buf), 0};
		struct pollfd pfd = {fd, POLLIN, 0};

		assert_int_equal(poll(&pfd, 1, FIX_WAIT_MS), 1);
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
		if (n == 0 || (n < 0 && errno == ECONNRESET))
			return false;
		assert_true(n > 0);
		assert_int_equal(msg.msg_flags & MSG_CTRUNC, 0);
		for (cmsg = CMSG_FIRSTHDR(&msg); cmsg != NULL; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
			ret->nr_fds = (uint32_t)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
			memcpy(ret->fds, CMSG_DATA(cmsg), ret->nr_fds * sizeof(int));
		}
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
	}
	return true;
}

bool
raw_recv(int fd, struct raw_reply *ret)
{
	ret->nr_fds = 0;
	if (!raw_read(fd, &ret->hdr, sizeof(ret->hdr), ret))
		return false;
	assert_true(ret->hdr.size >= sizeof(ret->hdr));
	ret->size = ret->hdr.size - (uint32_t)sizeof(ret->hdr);
	assert_true(ret->size <= sizeof(ret->body));
	return raw_read(fd, ret->body, ret->size, ret);
}

void
raw_expect(int fd, uint16_t id, uint16_t command, uint32_t error, struct raw_reply *ret)
{
	struct raw_reply mine, *reply = ret != NULL ? ret : &mine;

	assert_true(raw_recv(fd, reply));
	assert_int_equal(reply->hdr.id, id);
	assert_int_equal(reply->hdr.command, command);
	assert_int_equal(reply->hdr.error, error);
	if (error == 0) {
		assert_int_equal(reply->hdr.flags, VFE_VFU_F_REPLY);
	} else {
		assert_int_equal(reply->hdr.flags, VFE_VFU_F_REPLY | VFE_VFU_F_ERROR);
		assert_int_equal(reply->size, 0);
		assert_int_equal(reply->nr_fds, 0);
	}
	if (ret == NULL)
		vfe_close_all(mine.fds, mine.nr_fds);
}

void
raw_expect_hang_up(int fd)
{
	struct raw_reply reply;

	assert_false(raw_recv(fd, &reply));
}

uint32_t
raw_version(uint8_t *body, size_t size, const char *json)
{
	const struct vfe_wire_vfu_version version = {VFE_VFU_VERSION_MAJOR, VFE_VFU_VERSION_MINOR};

	assert_true(sizeof(version) + strlen(json) + 1 <= size);
	memcpy(body, &version, sizeof(version));
	memcpy(body + sizeof(version), json, strlen(json) + 1);
	return (uint32_t)(sizeof(version) + strlen(json) + 1);
}

int
raw_hello(const char *path, int max_fds)
{
	int fd = raw_connect(path);
	uint8_t body[256];
	char json[128];
	uint32_t size;

	snprintf(json, sizeof(json), "{\"capabilities\":{\"max_msg_fds\":%d}}", max_fds);
	size = raw_version(body, sizeof(body), json);
	raw_command(fd, 1, VFE_VFU_VERSION, 0, body, size, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_VERSION, 0, NULL);
	return fd;
}
