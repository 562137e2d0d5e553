/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user: our server against clients that lie, stop in the middle, vanish, or never read.
 */

#undef NDEBUG

#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	SHORT_TIMEOUT_MS = 400, /* for tests that wait for it; a loaded machine can be slow */
};

struct fix {
	struct device *dev;
	int first_fd;
};

static int
setup_with(void **state, uint32_t timeout_ms)
{
	struct fix *fix = calloc(1, sizeof(*fix));

	assert_non_null(fix);
	fix->first_fd = next_fd();
	fix->dev = device_start(timeout_ms);
	*state = fix;
	return 0;
}

static int
setup(void **state)
{
	return setup_with(state, FIX_WAIT_MS);
}

static int
setup_impatient(void **state)
{
	return setup_with(state, SHORT_TIMEOUT_MS);
}

static int
teardown(void **state)
{
	struct fix *fix = *state;

	device_stop(fix->dev);
	assert_int_equal(next_fd(), fix->first_fd);
	free(fix);
	return 0;
}

/* The connection still works. */
static void
expect_alive(int fd)
{
	struct vfe_wire_vfu_device_info info = {.argsz = sizeof(info)};

	raw_command(fd, 0xffff, VFE_VFU_DEVICE_GET_INFO, 0, &info, sizeof(info), NULL, 0);
	raw_expect(fd, 0xffff, VFE_VFU_DEVICE_GET_INFO, 0, NULL);
}

/*
 * Framing
 */

static void
impossible_size_is_hung_up_on(void **state)
{
	static const uint32_t sizes[] = {0, 1, 15, 16 + 16 + 1048576 + 1, 0x7fffffff, UINT32_MAX};
	struct fix *fix = *state;
	uint32_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(sizes); i++) {
		struct vfe_wire_vfu_hdr hdr = {1, VFE_VFU_DEVICE_RESET, sizes[i], 0, 0};
		int fd = raw_hello(fix->dev->path, 8);

		raw_send(fd, &hdr, sizeof(hdr), NULL, 0);
		raw_expect_hang_up(fd);
		device_wait_disconnects(fix->dev, i + 1);
		device_expect_error(fix->dev, "legal are 16 to");
		close(fd);
	}
	assert_int_equal(fix->dev->resets, 0);
}

static void
message_that_is_no_command_is_hung_up_on(void **state)
{
	static const uint32_t types[] = {1, 2, 15};
	struct fix *fix = *state;
	uint32_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(types); i++) {
		int fd = raw_hello(fix->dev->path, 8);

		raw_command(fd, 1, VFE_VFU_DEVICE_RESET, types[i], NULL, 0, NULL, 0);
		raw_expect_hang_up(fd);
		device_wait_disconnects(fix->dev, i + 1);
		device_expect_error(fix->dev, "no command");
		close(fd);
	}
}

static void
unknown_flags_are_refused(void **state)
{
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);

	raw_command(fd, 1, VFE_VFU_DEVICE_RESET, 0x40, NULL, 0, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_DEVICE_RESET, EINVAL, NULL);
	raw_command(fd, 2, VFE_VFU_DEVICE_RESET, VFE_VFU_F_ERROR, NULL, 0, NULL, 0);
	raw_expect(fd, 2, VFE_VFU_DEVICE_RESET, EINVAL, NULL);
	assert_int_equal(fix->dev->resets, 0);
	expect_alive(fd);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

/* A whole DMA_MAP message. */
struct map_message {
	struct vfe_wire_vfu_hdr hdr;
	struct vfe_wire_vfu_dma_map map;
};

static struct map_message
map_message(uint16_t id, uint64_t iova)
{
	return (struct map_message){
		.hdr = {id, VFE_VFU_DMA_MAP, sizeof(struct map_message), 0, 0},
		.map = {sizeof(struct vfe_wire_vfu_dma_map), 3, 0, iova, FIX_PAGE},
	};
}

static void
message_in_single_bytes_with_the_fd_at_any_of_them(void **state)
{
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), memory = open_memory(FIX_PAGE);
	uint32_t at, i;

	for (at = 0; at < sizeof(struct map_message); at++) {
		struct map_message msg = map_message((uint16_t)at, 0x10000 + at * FIX_PAGE);

		for (i = 0; i < sizeof(msg); i++)
			raw_send(fd, (uint8_t *)&msg + i, 1, &memory, i == at);
		raw_expect(fd, (uint16_t)at, VFE_VFU_DMA_MAP, 0, NULL);
	}
	assert_int_equal(fix->dev->nr_maps, sizeof(struct map_message));
	close(memory);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
	assert_int_equal(fix->dev->nr_maps, 0);
}

static void
vanish_after_every_byte(void **state)
{
	struct fix *fix = *state;
	int memory = open_memory(FIX_PAGE), base;
	struct map_message msg = map_message(1, 0x10000);
	uint32_t n;

	base = next_fd();
	for (n = 1; n <= sizeof(msg); n++) {
		int fd = raw_hello(fix->dev->path, 8);

		raw_send(fd, &msg, n, &memory, 1);
		close(fd);
		device_wait_disconnects(fix->dev, n);
		assert_int_equal(fix->dev->nr_maps, 0);
		assert_int_equal(next_fd(), base);
	}
	close(memory);
}

static void
vanish_within_version(void **state)
{
	struct fix *fix = *state;
	uint8_t body[64];
	uint32_t size = raw_version(body, sizeof(body), "{}"), n;
	struct vfe_wire_vfu_hdr hdr = {1, VFE_VFU_VERSION, (uint32_t)sizeof(hdr) + size, 0, 0};
	uint8_t all[sizeof(hdr) + sizeof(body)];

	memcpy(all, &hdr, sizeof(hdr));
	memcpy(all + sizeof(hdr), body, size);
	for (n = 0; n < hdr.size; n++) {
		int fd = raw_connect(fix->dev->path);

		if (n > 0)
			raw_send(fd, all, n, NULL, 0);
		close(fd);
	}
	close(raw_hello(fix->dev->path, 8));
	device_wait_disconnects(fix->dev, 1);
	assert_int_equal(fix->dev->connects, 1);
}

static void
fds_stay_with_their_message(void **state)
{
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), memory[3];
	struct map_message msg;
	uint32_t i, n;

	/* three messages lie in the socket before the server looks; each has its own file */
	for (i = 0; i < 3; i++) {
		memory[i] = open_memory(FIX_PAGE);
		assert_int_equal(pwrite(memory[i], &(char){(char)('a' + i)}, 1, 0), 1);
	}
	for (n = 0; n < 100; n++) {
		for (i = 0; i < 3; i++) {
			msg = map_message((uint16_t)i, 0x10000 + i * FIX_PAGE);
			raw_send(fd, &msg, sizeof(msg), &memory[i], 1);
		}
		for (i = 0; i < 3; i++)
			raw_expect(fd, (uint16_t)i, VFE_VFU_DMA_MAP, 0, NULL);
		assert_int_equal(fix->dev->nr_maps, 3);
		for (i = 0; i < 3; i++) {
			const struct vfe_vfu_dma *dma = fix->dev->maps[i];

			assert_int_equal(*(uint8_t *)dma->va, 'a' + dma->iova / FIX_PAGE - 16);
		}
		raw_command(fd, 9, VFE_VFU_DMA_UNMAP, 0,
			&(struct vfe_wire_vfu_dma_unmap){24, VFE_VFU_DMA_UNMAP_F_ALL, 0, 0}, 24,
			NULL, 0);
		raw_expect(fd, 9, VFE_VFU_DMA_UNMAP, 0, NULL);
	}
	vfe_close_all(memory, 3);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
more_fds_than_one_message_may_have(void **state)
{
	struct vfe_wire_vfu_hdr hdr = {1, VFE_VFU_DEVICE_SET_IRQS, 16 + 20, 0, 0};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 253), fds[200], i, base = next_fd();

	for (i = 0; i < 200; i++)
		fds[i] = fix->dev->doorbell_fd;
	raw_send(fd, &hdr, 8, fds, 200);
	raw_send(fd, (uint8_t *)&hdr + 8, 8, fds, 54);
	raw_expect_hang_up(fd);
	device_wait_disconnects(fix->dev, 1);
	device_expect_error(fix->dev, "more than 253 fds");
	close(fd);
	assert_true(next_fd() <= base);
}

static void
fds_lost_for_lack_of_room(void **state)
{
	struct map_message msg = map_message(1, 0x10000);
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), memory = open_memory(FIX_PAGE);
	struct rlimit old, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)next_fd();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	raw_send(fd, &msg, sizeof(msg), &memory, 1);
	raw_expect_hang_up(fd);
	device_wait_disconnects(fix->dev, 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	device_expect_error(fix->dev, "lost in transfer");
	assert_int_equal(fix->dev->nr_maps, 0);
	close(fd);
	close(memory);
}

static void
accept_without_room_recovers(void **state)
{
	struct fix *fix = *state;
	struct rlimit old, low;
	int fd;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)next_fd() + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	fd = raw_connect(fix->dev->path);  /* takes the last fd, so accept() fails */
	device_expect_error(fix->dev, ""); /* the loop has turned */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	raw_command(fd, 1, VFE_VFU_VERSION, 0, (uint8_t[4]){0, 0, 1, 0}, 4, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_VERSION, 0, NULL);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

/*
 * VERSION
 */

static void
anything_before_version_is_hung_up_on(void **state)
{
	struct fix *fix = *state;
	int fd = raw_connect(fix->dev->path);

	raw_command(fd, 1, VFE_VFU_DEVICE_RESET, 0, NULL, 0, NULL, 0);
	raw_expect_hang_up(fd);
	device_expect_error(fix->dev, "DEVICE_RESET before VERSION");
	assert_int_equal(fix->dev->resets, 0);
	close(fd);
}

static void
version_garbage_is_refused_and_hung_up_on(void **state)
{
	static const char *const bad[] = {"", "x", "{", "[]", "1", "null", "{\"capabilities\":[]}",
		"{\"capabilities\":{\"max_msg_fds\":-1}}",
		"{\"capabilities\":{\"max_msg_fds\":\"8\"}}",
		"{\"capabilities\":{\"max_msg_fds\":1.5}}",
		"{\"capabilities\":{\"max_msg_fds\":99999999999999999999}}",
		"{\"capabilities\":{\"max_data_xfer_size\":0}}",
		"{\"capabilities\":{\"max_dma_maps\":[]}}", "{\"capabilities\":{}} x", "\xff\xfe"};
	struct fix *fix = *state;
	uint8_t body[256];
	uint32_t size;
	size_t i;
	int fd;

	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		size = raw_version(body, sizeof(body), bad[i]);
		fd = raw_connect(fix->dev->path);
		raw_command(fd, 1, VFE_VFU_VERSION, 0, body, size, NULL, 0);
		raw_expect(fd, 1, VFE_VFU_VERSION, EINVAL, NULL);
		raw_expect_hang_up(fd);
		close(fd);
	}
	assert_int_equal(fix->dev->connects, 0);
}

static void
version_of_bad_form_is_refused_and_hung_up_on(void **state)
{
	struct fix *fix = *state;
	uint8_t *body = malloc(20000);
	struct {
		uint32_t size;
		uint16_t major;
		int nr_fds;
		char json[6];
	} bad[] = {
		{0, 0, 0, ""}, {3, 0, 0, ""}, {4, 1, 0, ""}, /* major */
		{4, 0, 1, ""},                               /* a stray fd */
		{6, 0, 0, "{}"},                             /* no NUL */
		{10, 0, 0, "{}\0{}"},                        /* two */
		{20000, 0, 0, "{}"},                         /* too long */
		{16389, 0, 0, "{}"},                         /* by one */
	};
	size_t i;
	int fd;

	assert_non_null(body);
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		memset(body, 0, 20000);
		memcpy(body, &bad[i].major, sizeof(bad[i].major));
		memcpy(body + 4, bad[i].json, 6);
		fd = raw_connect(fix->dev->path);
		raw_command(fd, 1, VFE_VFU_VERSION, 0, body, bad[i].size, &fix->dev->doorbell_fd,
			(uint32_t)bad[i].nr_fds);
		raw_expect(fd, 1, VFE_VFU_VERSION, EINVAL, NULL);
		raw_expect_hang_up(fd);
		close(fd);
	}
	/* brackets without end */
	memset(body, '[', 20000);
	memset(body, 0, 4);
	body[16003] = 0;
	fd = raw_connect(fix->dev->path);
	raw_command(fd, 1, VFE_VFU_VERSION, 0, body, 16004, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_VERSION, EINVAL, NULL);
	raw_expect_hang_up(fd);
	close(fd);
	assert_int_equal(fix->dev->connects, 0);
	free(body);
}

static void
version_answers_no_more_than_proposed(void **state)
{
	static const char json[] =
		"{\"capabilities\":{\"max_msg_fds\":16,\"max_dma_maps\":10,"
		"\"max_data_xfer_size\":4096,\"twin_socket\":{\"supported\":true},"
		"\"migration\":{\"pgsize\":4096}}}";
	struct fix *fix = *state;
	int fd = raw_connect(fix->dev->path);
	struct vfe_wire_vfu_region_rw rw = {.count = 4097};
	struct raw_reply reply;
	uint8_t body[256];
	uint32_t size = raw_version(body, sizeof(body), json);

	body[2] = 0; /* minor, as QEMU says */
	raw_command(fd, 1, VFE_VFU_VERSION, 0, body, size, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_VERSION, 0, &reply);
	assert_memory_equal(reply.body, ((uint8_t[4]){0, 0, 0, 0}), 4);
	assert_int_equal(reply.body[reply.size - 1], 0);
	assert_non_null(strstr((char *)reply.body + 4, "\"max_msg_fds\":16"));
	assert_non_null(strstr((char *)reply.body + 4, "\"max_dma_maps\":10"));
	assert_non_null(strstr((char *)reply.body + 4, "\"max_data_xfer_size\":4096"));
	assert_null(strstr((char *)reply.body + 4, "twin_socket"));

	raw_command(fd, 2, VFE_VFU_REGION_READ, 0, &rw, sizeof(rw), NULL, 0);
	raw_expect(fd, 2, VFE_VFU_REGION_READ, EINVAL, NULL);
	raw_command(fd, 3, VFE_VFU_VERSION, 0, body, size, NULL, 0);
	raw_expect(fd, 3, VFE_VFU_VERSION, EINVAL, NULL); /* once is enough */
	expect_alive(fd);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
client_that_names_no_limits_gets_one_fd(void **state)
{
	struct vfe_wire_vfu_region_io_fds ask = {.argsz = 4096, .index = 4};
	struct fix *fix = *state;
	int fd = raw_connect(fix->dev->path);
	struct raw_reply reply;

	raw_command(fd, 1, VFE_VFU_VERSION, 0, (uint8_t[4]){0}, 4, NULL, 0);
	raw_expect(fd, 1, VFE_VFU_VERSION, 0, NULL);
	raw_command(fd, 2, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &ask, sizeof(ask), NULL, 0);
	raw_expect(fd, 2, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &reply);
	assert_int_equal(reply.nr_fds, 1); /* which two sub-regions share */
	assert_int_equal(reply.size, 16 + 2 * 40);
	vfe_close_all(reply.fds, reply.nr_fds);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

/*
 * Commands
 */

static void
every_command_with_every_wrong_size(void **state)
{
	/* the legal sizes, of those that have one */
	static const struct {
		uint16_t command;
		uint32_t min, max;
	} commands[] = {
		{VFE_VFU_DMA_MAP, 32, 32},
		{VFE_VFU_DMA_UNMAP, 24, 24},
		{VFE_VFU_DEVICE_GET_INFO, 16, 16},
		{VFE_VFU_DEVICE_GET_REGION_INFO, 32, 32},
		{VFE_VFU_DEVICE_GET_REGION_IO_FDS, 16, 16},
		{VFE_VFU_DEVICE_GET_IRQ_INFO, 16, 16},
		{VFE_VFU_DEVICE_SET_IRQS, 20, 20 + 2048},
		{VFE_VFU_REGION_READ, 16, 16},
		{VFE_VFU_REGION_WRITE, 16, 16 + 1048576},
		{VFE_VFU_DEVICE_RESET, 0, 0},
	};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);
	uint8_t body[4096];
	uint32_t size;
	size_t i;

	memset(body, 0xff, sizeof(body));
	for (i = 0; i < VFE_ARRAY_SIZE(commands); i++) {
		for (size = 0; size < 64; size++) {
			if (size >= commands[i].min && size <= commands[i].max)
				continue;
			raw_command(fd, 7, commands[i].command, 0, body, size, NULL, 0);
			raw_expect(fd, 7, commands[i].command, EINVAL, NULL);
		}
		if (commands[i].max > sizeof(body))
			continue;
		raw_command(fd, 7, commands[i].command, 0, body, commands[i].max + 1, NULL, 0);
		raw_expect(fd, 7, commands[i].command, EINVAL, NULL);
	}
	expect_alive(fd);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
every_command_with_garbage(void **state)
{
	static const uint8_t fill[] = {0x00, 0xff, 0x80, 0x01};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);
	struct raw_reply reply;
	uint8_t body[128];
	uint16_t command;
	uint32_t size;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(fill); i++) {
		memset(body, fill[i], sizeof(body));
		for (command = 0; command < 20; command++) {
			for (size = 0; size <= sizeof(body); size++) {
				raw_command(fd, 3, command, 0, body, size, NULL, 0);
				assert_true(raw_recv(fd, &reply));
				assert_int_equal(reply.hdr.id, 3);
				vfe_close_all(reply.fds, reply.nr_fds);
			}
		}
	}
	expect_alive(fd);
	assert_int_equal(fix->dev->nr_maps, 0);
	assert_int_equal(fix->dev->irq_sets, 0);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
every_command_with_stray_fds(void **state)
{
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), fds[8], i, base;
	uint8_t body[64] = {0};
	struct raw_reply reply;
	uint16_t command;
	uint32_t n, round;

	for (i = 0; i < 8; i++)
		fds[i] = fix->dev->doorbell_fd;
	base = next_fd();
	for (round = 0; round < 5; round++) {
		for (command = 0; command < 20; command++) {
			for (n = 1; n <= 8; n++) {
				raw_command(fd, 3, command, 0, body, 16 + n, fds, n);
				assert_true(raw_recv(fd, &reply));
				assert_true((reply.hdr.flags & VFE_VFU_F_ERROR) != 0);
			}
		}
	}
	expect_alive(fd);
	assert_int_equal(next_fd(), base);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
commands_that_we_lack_are_not_supported(void **state)
{
	static const uint16_t commands[] = {0, VFE_VFU_DMA_READ, VFE_VFU_DMA_WRITE, 14,
		VFE_VFU_REGION_WRITE_MULTI, VFE_VFU_DEVICE_FEATURE, VFE_VFU_MIG_DATA_READ,
		VFE_VFU_MIG_DATA_WRITE, 19, 65535};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);
	uint8_t body[16] = {0};
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(commands); i++) {
		raw_command(fd, 5, commands[i], 0, body, sizeof(body), NULL, 0);
		raw_expect(fd, 5, commands[i], ENOTSUP, NULL);
	}
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
no_reply_means_no_reply(void **state)
{
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);

	raw_command(fd, 1, VFE_VFU_DEVICE_RESET, VFE_VFU_F_NO_REPLY, NULL, 0, NULL, 0);
	raw_command(fd, 2, 99, VFE_VFU_F_NO_REPLY, NULL, 0, NULL, 0);
	raw_command(fd, 3, VFE_VFU_REGION_READ, VFE_VFU_F_NO_REPLY, "x", 1, NULL, 0);
	expect_alive(fd); /* its reply is the first that comes */
	assert_int_equal(fix->dev->resets, 1);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
dma_map_and_unmap_of_bad_form(void **state)
{
	struct vfe_wire_vfu_dma_map map = {sizeof(map), 3, 0, 0x10000, FIX_PAGE};
	struct vfe_wire_vfu_dma_unmap unmap = {sizeof(unmap), 0, 0x10000, FIX_PAGE};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), memory = open_memory(FIX_PAGE);

	raw_command(fd, 1, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), NULL, 0);
	raw_expect(fd, 1, VFE_VFU_DMA_MAP, ENOTSUP, NULL);
	raw_command(fd, 2, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), (int[]){memory, memory}, 2);
	raw_expect(fd, 2, VFE_VFU_DMA_MAP, EINVAL, NULL);
	map.argsz = 31;
	raw_command(fd, 3, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &memory, 1);
	raw_expect(fd, 3, VFE_VFU_DMA_MAP, EINVAL, NULL);
	map.argsz = UINT32_MAX; /* more than needed is fine */
	raw_command(fd, 4, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &memory, 1);
	raw_expect(fd, 4, VFE_VFU_DMA_MAP, 0, NULL);

	unmap.argsz = 23;
	raw_command(fd, 5, VFE_VFU_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
	raw_expect(fd, 5, VFE_VFU_DMA_UNMAP, EINVAL, NULL);
	unmap.argsz = 24;
	unmap.flags = 1; /* the removed way to get dirty pages */
	raw_command(fd, 6, VFE_VFU_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
	raw_expect(fd, 6, VFE_VFU_DMA_UNMAP, EINVAL, NULL);
	unmap.flags = VFE_VFU_DMA_UNMAP_F_ALL; /* but with a range */
	raw_command(fd, 7, VFE_VFU_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
	raw_expect(fd, 7, VFE_VFU_DMA_UNMAP, EINVAL, NULL);
	assert_int_equal(fix->dev->nr_maps, 1);
	unmap.addr = unmap.size = 0;
	raw_command(fd, 8, VFE_VFU_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
	raw_expect(fd, 8, VFE_VFU_DMA_UNMAP, 0, NULL);
	assert_int_equal(fix->dev->nr_maps, 0);
	close(memory);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
dma_map_of_unfit_files(void **state)
{
	struct vfe_wire_vfu_dma_map map = {sizeof(map), 3, 0, 0x10000, FIX_PAGE};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), pipes[2], memory = open_memory(FIX_PAGE), read_only;
	int zero = open("/dev/zero", O_RDWR | O_CLOEXEC);
	char path[64];

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	read_only = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read_only >= 0 && zero >= 0);

	raw_command(fd, 1, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &pipes[0], 1);
	raw_expect(fd, 1, VFE_VFU_DMA_MAP, EINVAL, NULL);
	raw_command(fd, 2, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &zero, 1);
	raw_expect(fd, 2, VFE_VFU_DMA_MAP, EINVAL, NULL);
	raw_command(fd, 3, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &fd, 1);
	raw_expect(fd, 3, VFE_VFU_DMA_MAP, EINVAL, NULL);
	raw_command(fd, 4, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &read_only, 1);
	raw_expect(fd, 4, VFE_VFU_DMA_MAP, EACCES, NULL);
	map.flags = VFE_VFU_DMA_F_READ;
	raw_command(fd, 5, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &read_only, 1);
	raw_expect(fd, 5, VFE_VFU_DMA_MAP, 0, NULL);

	/* a huge file without memory behind it: only so much address space per client */
	assert_int_equal(ftruncate(memory, (off_t)5 << 40), 0);
	map.size = 5ULL << 40;
	map.addr = 1ULL << 45;
	raw_command(fd, 6, VFE_VFU_DMA_MAP, 0, &map, sizeof(map), &memory, 1);
	raw_expect(fd, 6, VFE_VFU_DMA_MAP, ENOSPC, NULL);
	vfe_close_all(pipes, 2);
	close(zero);
	close(memory);
	close(read_only);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
set_irqs_of_bad_form(void **state)
{
	enum {
		NONE = VFE_VFU_IRQ_SET_DATA_NONE,
		BOOL = VFE_VFU_IRQ_SET_DATA_BOOL,
		EVENTFD = VFE_VFU_IRQ_SET_DATA_EVENTFD,
		MASK = VFE_VFU_IRQ_SET_ACTION_MASK,
		UNMASK = VFE_VFU_IRQ_SET_ACTION_UNMASK,
		TRIGGER = VFE_VFU_IRQ_SET_ACTION_TRIGGER,
	};
	static const struct {
		uint32_t argsz, flags, index, start, count, data, fds, error;
	} bad[] = {
		{19, EVENTFD | TRIGGER, 2, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 5, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, UINT32_MAX, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD, 2, 0, 1, 0, 1, EINVAL},
		{20, TRIGGER, 2, 0, 1, 0, 1, EINVAL},
		{20, 0, 2, 0, 0, 0, 0, EINVAL},
		{20, EVENTFD | NONE | TRIGGER, 2, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER | MASK, 2, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER | 64, 2, 0, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 2, 0, 2, 0, 1, EINVAL}, /* fewer fds than vectors */
		{20, EVENTFD | TRIGGER, 2, 0, 1, 0, 2, EINVAL}, /* more */
		{20, EVENTFD | TRIGGER, 2, 0, 0, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 2, 0, 0, 0, 0, EINVAL},
		{20, EVENTFD | TRIGGER, 2, FIX_VECTORS, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 2, FIX_VECTORS - 1, 2, 0, 2, EINVAL},
		{20, EVENTFD | TRIGGER, 2, UINT32_MAX, 1, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 2, 2, UINT32_MAX, 0, 1, EINVAL},
		{20, EVENTFD | TRIGGER, 2, 0, UINT32_MAX, 0, 0, EINVAL},
		{20, EVENTFD | TRIGGER, 1, 0, 1, 0, 1, EINVAL}, /* an index without vectors */
		{24, EVENTFD | TRIGGER, 2, 0, 1, 4, 1, EINVAL}, /* data nobody asked for */
		{20, NONE | TRIGGER, 2, 1, 0, 0, 0, EINVAL},
		{20, NONE | MASK, 2, 0, 0, 0, 0, EINVAL},
		{20, NONE | TRIGGER, 2, 0, 1, 0, 1, EINVAL},
		{22, BOOL | TRIGGER, 2, 0, 3, 2, 0, EINVAL}, /* data too short */
		{24, BOOL | TRIGGER, 2, 0, 3, 4, 0, EINVAL},
		{23, BOOL | TRIGGER, 2, 0, 3, 3, 0, ENOTSUP},
		{20, NONE | TRIGGER, 2, 0, 1, 0, 0, ENOTSUP},
		{20, NONE | UNMASK, 2, 0, 1, 0, 0, ENOTSUP},
		{20, EVENTFD | MASK, 2, 0, 1, 0, 1, ENOTSUP},
	};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), event = eventfd(0, EFD_CLOEXEC), base;
	int fds[2] = {event, event};
	uint8_t body[64] = {0};
	size_t i;

	base = next_fd();
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		const struct vfe_wire_vfu_irq_set set = {
			bad[i].argsz, bad[i].flags, bad[i].index, bad[i].start, bad[i].count};

		memcpy(body, &set, sizeof(set));
		raw_command(fd, (uint16_t)i, VFE_VFU_DEVICE_SET_IRQS, 0, body,
			(uint32_t)sizeof(set) + bad[i].data, fds, bad[i].fds);
		raw_expect(fd, (uint16_t)i, VFE_VFU_DEVICE_SET_IRQS, bad[i].error, NULL);
	}
	expect_alive(fd); /* so the fds of the last message are closed, too */
	assert_int_equal(fix->dev->irq_sets, 0);
	assert_int_equal(next_fd(), base);
	close(event);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
fd_of_the_same_interrupt_again_and_again(void **state)
{
	const struct vfe_wire_vfu_irq_set set = {
		20, VFE_VFU_IRQ_SET_DATA_EVENTFD | VFE_VFU_IRQ_SET_ACTION_TRIGGER, 2, 0, 8};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8), event = eventfd(0, EFD_CLOEXEC), i, base;
	int fds[8] = {event, event, event, event, event, event, event, event};

	raw_command(fd, 1, VFE_VFU_DEVICE_SET_IRQS, 0, &set, sizeof(set), fds, 8);
	raw_expect(fd, 1, VFE_VFU_DEVICE_SET_IRQS, 0, NULL);
	base = next_fd();
	for (i = 0; i < 500; i++) {
		raw_command(fd, 1, VFE_VFU_DEVICE_SET_IRQS, 0, &set, sizeof(set), fds, 8);
		raw_expect(fd, 1, VFE_VFU_DEVICE_SET_IRQS, 0, NULL);
	}
	/* the new fds arrive before the old are closed: at most as many numbers more */
	assert_true(next_fd() <= base + 8);
	close(event);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
region_info_in_two_steps(void **state)
{
	struct vfe_wire_vfu_region_info ask = {.argsz = 31, .index = 4}, info;
	const uint32_t full = 32 + 16 + FIX_NR_AREAS * 16;
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);
	struct raw_reply reply;

	raw_command(fd, 1, VFE_VFU_DEVICE_GET_REGION_INFO, 0, &ask, sizeof(ask), NULL, 0);
	raw_expect(fd, 1, VFE_VFU_DEVICE_GET_REGION_INFO, EINVAL, NULL);

	for (ask.argsz = full - 1; ask.argsz <= full; ask.argsz++) {
		raw_command(fd, 2, VFE_VFU_DEVICE_GET_REGION_INFO, 0, &ask, sizeof(ask), NULL, 0);
		raw_expect(fd, 2, VFE_VFU_DEVICE_GET_REGION_INFO, 0, &reply);
		memcpy(&info, reply.body, sizeof(info));
		assert_int_equal(info.argsz, full);
		assert_int_equal(info.flags,
			VFE_VFU_REGION_F_WRITE | VFE_VFU_REGION_F_MMAP | VFE_VFU_REGION_F_CAPS);
		assert_int_equal(reply.size, ask.argsz < full ? 32 : full);
		assert_int_equal(info.cap_offset, ask.argsz < full ? 0 : 32);
		assert_int_equal(reply.nr_fds, 1);
		vfe_close_all(reply.fds, reply.nr_fds);
	}
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
io_fds_in_two_steps(void **state)
{
	struct vfe_wire_vfu_region_io_fds ask = {.argsz = 15, .index = 4}, head;
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 3);
	struct raw_reply reply;

	raw_command(fd, 1, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &ask, sizeof(ask), NULL, 0);
	raw_expect(fd, 1, VFE_VFU_DEVICE_GET_REGION_IO_FDS, EINVAL, NULL);
	ask.argsz = 16;
	ask.flags = 1;
	raw_command(fd, 2, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &ask, sizeof(ask), NULL, 0);
	raw_expect(fd, 2, VFE_VFU_DEVICE_GET_REGION_IO_FDS, EINVAL, NULL);
	ask.flags = 0;
	ask.index = 9;
	raw_command(fd, 3, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &ask, sizeof(ask), NULL, 0);
	raw_expect(fd, 3, VFE_VFU_DEVICE_GET_REGION_IO_FDS, EINVAL, NULL);

	ask.index = 4;
	for (; ask.argsz <= 16 + 6 * 40; ask.argsz += 6 * 40) {
		raw_command(fd, 4, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &ask, sizeof(ask), NULL, 0);
		raw_expect(fd, 4, VFE_VFU_DEVICE_GET_REGION_IO_FDS, 0, &reply);
		memcpy(&head, reply.body, sizeof(head));
		assert_int_equal(head.argsz, 16 + 6 * 40); /* what three fds can tell */
		assert_int_equal(head.count, 6);
		assert_int_equal(reply.size, ask.argsz);
		assert_int_equal(reply.nr_fds, ask.argsz == 16 ? 0 : 3);
		vfe_close_all(reply.fds, reply.nr_fds);
	}
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

/*
 * Time and flow
 */

static void
silent_client_is_disconnected(void **state)
{
	struct fix *fix = *state;
	int fd = raw_connect(fix->dev->path);

	raw_expect_hang_up(fd);
	device_expect_error(fix->dev, "did not finish VERSION");
	close(fd);

	fd = raw_connect(fix->dev->path);
	raw_send(fd, "\1\0\1\0", 4, NULL, 0); /* begins, and stops */
	raw_expect_hang_up(fd);
	close(fd);

	/* one that has said hello may be silent for as long as it likes */
	fd = raw_hello(fix->dev->path, 8);
	assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 2 * SHORT_TIMEOUT_MS), 0);
	expect_alive(fd);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

/* Send without waiting until the socket is full. Returns the number of commands sent. */
static uint32_t
send_until_full(int fd, uint16_t command, const void *body, uint32_t size)
{
	struct vfe_wire_vfu_hdr hdr = {1, command, (uint32_t)sizeof(hdr) + size, 0, 0};
	uint8_t msg[128];
	uint32_t n;

	memcpy(msg, &hdr, sizeof(hdr));
	memcpy(msg + sizeof(hdr), body, size);
	for (n = 0; n < 100000; n++) {
		/* wait a moment: the server may make room */
		struct pollfd pfd = {fd, POLLOUT, 0};

		if (poll(&pfd, 1, 20) == 0 || (pfd.revents & (POLLHUP | POLLERR)) != 0)
			return n;
		if (send(fd, msg, hdr.size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)hdr.size)
			return n;
	}
	fail_msg("the server takes commands without end");
	return 0;
}

static void
client_that_never_reads_is_disconnected(void **state)
{
	const struct vfe_wire_vfu_region_rw rw = {.region = 2, .count = 1 << 20};
	const struct vfe_wire_vfu_region_io_fds ask = {.argsz = 1 << 20, .index = 4};
	struct fix *fix = *state;
	int fd, base = next_fd();

	fd = raw_hello(fix->dev->path, 253);
	send_until_full(fd, VFE_VFU_REGION_READ, &rw, sizeof(rw));
	device_wait_disconnects(fix->dev, 1);
	device_expect_error(fix->dev, "read no replies");
	close(fd);

	/* replies with fds, too: they must not pile up in the server */
	fd = raw_hello(fix->dev->path, 253);
	send_until_full(fd, VFE_VFU_DEVICE_GET_REGION_IO_FDS, &ask, sizeof(ask));
	device_wait_disconnects(fix->dev, 2);
	device_expect_error(fix->dev, "read no replies");
	close(fd);
	assert_int_equal(next_fd(), base);
}

static void
pipelined_commands_are_all_answered(void **state)
{
	const struct vfe_wire_vfu_device_info info = {.argsz = sizeof(info)};
	struct fix *fix = *state;
	int fd = raw_hello(fix->dev->path, 8);
	uint32_t sent, i;

	sent = send_until_full(fd, VFE_VFU_DEVICE_GET_INFO, &info, sizeof(info));
	assert_true(sent > 10);
	for (i = 0; i < sent; i++)
		raw_expect(fd, 1, VFE_VFU_DEVICE_GET_INFO, 0, NULL);
	expect_alive(fd);
	close(fd);
	device_wait_disconnects(fix->dev, 1);
}

static void
client_that_comes_back_at_once_is_let_in(void **state)
{
	struct fix *fix = *state;
	struct vfe_wire_vfu_region_rw rw = {.offset = 4, .count = 1};
	uint8_t body[17];
	uint32_t i;
	int fd;

	memcpy(body, &rw, sizeof(rw));
	for (i = 0; i < 300; i++) {
		fd = raw_hello(fix->dev->path, 8);
		body[16] = (uint8_t)i;
		raw_command(fd, 2, VFE_VFU_REGION_WRITE, VFE_VFU_F_NO_REPLY, body, sizeof(body),
			NULL, 0);
		close(fd);
	}
	device_wait_disconnects(fix->dev, 300);
	assert_int_equal(fix->dev->writes, 300); /* what was sent last was not lost */
	assert_int_equal(fix->dev->bar[4], (uint8_t)299);
}

#define SERVER_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SERVER_TEST(impossible_size_is_hung_up_on),
		SERVER_TEST(message_that_is_no_command_is_hung_up_on),
		SERVER_TEST(unknown_flags_are_refused),
		SERVER_TEST(message_in_single_bytes_with_the_fd_at_any_of_them),
		SERVER_TEST(vanish_after_every_byte),
		SERVER_TEST(vanish_within_version),
		SERVER_TEST(fds_stay_with_their_message),
		SERVER_TEST(more_fds_than_one_message_may_have),
		SERVER_TEST(fds_lost_for_lack_of_room),
		SERVER_TEST(accept_without_room_recovers),
		SERVER_TEST(anything_before_version_is_hung_up_on),
		SERVER_TEST(version_garbage_is_refused_and_hung_up_on),
		SERVER_TEST(version_of_bad_form_is_refused_and_hung_up_on),
		SERVER_TEST(version_answers_no_more_than_proposed),
		SERVER_TEST(client_that_names_no_limits_gets_one_fd),
		SERVER_TEST(every_command_with_every_wrong_size),
		SERVER_TEST(every_command_with_garbage),
		SERVER_TEST(every_command_with_stray_fds),
		SERVER_TEST(commands_that_we_lack_are_not_supported),
		SERVER_TEST(no_reply_means_no_reply),
		SERVER_TEST(dma_map_and_unmap_of_bad_form),
		SERVER_TEST(dma_map_of_unfit_files),
		SERVER_TEST(set_irqs_of_bad_form),
		SERVER_TEST(fd_of_the_same_interrupt_again_and_again),
		SERVER_TEST(region_info_in_two_steps),
		SERVER_TEST(io_fds_in_two_steps),
		cmocka_unit_test_setup_teardown(
			silent_client_is_disconnected, setup_impatient, teardown),
		cmocka_unit_test_setup_teardown(
			client_that_never_reads_is_disconnected, setup_impatient, teardown),
		SERVER_TEST(pipelined_commands_are_all_answered),
		SERVER_TEST(client_that_comes_back_at_once_is_let_in),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
