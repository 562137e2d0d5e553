/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * vfio-user: our client against servers that lie, stop in the middle, vanish, or never answer.
 */

#undef NDEBUG

#include "fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	SHORT_TIMEOUT_MS = 500, /* for tests that wait for it; a loaded machine can be slow */
};

/* A server that does what a test says. It runs in its own thread, as the client waits for it. */
struct liar {
	char dir[32];
	char path[64];
	int listen_fd;
	int fd; /* of the client, once accepted */
	pthread_t thread;
	bool running;
	void (*act)(struct liar *liar);
	const char *hello; /* JSON of the VERSION reply; NULL = act does all */
	const void *arg;

	struct vfe_vfu_client *client;
	int first_fd;
};

static int
setup(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct liar *liar = calloc(1, sizeof(*liar));

	assert_non_null(liar);
	liar->first_fd = next_fd();
	snprintf(liar->dir, sizeof(liar->dir), "/tmp/vfe-vfu-XXXXXX");
	assert_non_null(mkdtemp(liar->dir));
	snprintf(liar->path, sizeof(liar->path), "%s/liar.sock", liar->dir);
	liar->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	liar->fd = -1;
	assert_true(liar->listen_fd >= 0);
	assert_int_equal(vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), liar->path), 0);
	assert_int_equal(bind(liar->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(liar->listen_fd, 4), 0);
	*state = liar;
	return 0;
}

static int
teardown(void **state)
{
	struct liar *liar = *state;

	/* only left over when a test has failed */
	vfe_vfu_client_close(liar->client);
	if (liar->running)
		pthread_join(liar->thread, NULL);
	vfe_close(&liar->fd);
	close(liar->listen_fd);
	assert_int_equal(unlink(liar->path), 0);
	assert_int_equal(rmdir(liar->dir), 0);
	assert_int_equal(next_fd(), liar->first_fd);
	free(liar);
	return 0;
}

/* Receive a command that must be @command. */
static struct vfe_wire_vfu_hdr
liar_receive(struct liar *liar, uint16_t command, struct raw_reply *ret)
{
	struct raw_reply mine, *msg = ret != NULL ? ret : &mine;

	assert_true(raw_recv(liar->fd, msg));
	assert_int_equal(msg->hdr.command, command);
	assert_int_equal(msg->hdr.flags & VFE_VFU_F_TYPE_MASK, VFE_VFU_F_COMMAND);
	vfe_close_all(msg->fds, msg->nr_fds);
	return msg->hdr;
}

static void
liar_reply(struct liar *liar, const struct vfe_wire_vfu_hdr *to, const void *body, uint32_t size)
{
	raw_command(liar->fd, to->id, to->command, VFE_VFU_F_REPLY, body, size, NULL, 0);
}

static void *
liar_main(void *arg)
{
	struct liar *liar = arg;
	struct vfe_wire_vfu_hdr hdr;
	uint8_t body[256];

	liar->fd = accept4(liar->listen_fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(liar->fd >= 0);
	if (liar->hello != NULL) {
		hdr = liar_receive(liar, VFE_VFU_VERSION, NULL);
		liar_reply(liar, &hdr, body, raw_version(body, sizeof(body), liar->hello));
	}
	liar->act(liar);
	return NULL;
}

static void
liar_start(struct liar *liar, void (*act)(struct liar *liar), const char *hello)
{
	liar->act = act;
	liar->hello = hello;
	assert_int_equal(pthread_create(&liar->thread, NULL, liar_main, liar), 0);
	liar->running = true;
}

static void
liar_end(struct liar *liar)
{
	pthread_join(liar->thread, NULL);
	liar->running = false;
	vfe_close(&liar->fd);
	vfe_vfu_client_close(liar->client);
	liar->client = NULL;
}

static const char honest[] = "{\"capabilities\":{\"max_msg_fds\":8}}";

/* Start a liar that begins honestly, and connect to it. */
static void
liar_connect(struct liar *liar, void (*act)(struct liar *liar), uint32_t timeout_ms)
{
	struct vfe_error err = {""};

	liar_start(liar, act, honest);
	if (vfe_vfu_client_connect(liar->path, timeout_ms, &liar->client, &err) < 0)
		fail_msg("%s", err.text);
}

/* Every call fails at once with @error. */
static void
expect_dead(struct vfe_vfu_client *client, int error)
{
	struct vfe_error err = {""};
	uint8_t byte = 0;

	assert_int_equal(vfe_vfu_client_error(client), error);
	assert_int_equal(vfe_vfu_client_reset(client, &err), error);
	assert_true(strlen(err.text) > 0);
	assert_int_equal(vfe_vfu_client_region_read(client, 0, 0, &byte, 1, NULL), error);
	assert_int_equal(vfe_vfu_client_region_post(client, 0, 0, &byte, 1), error);
}

/*
 * Connecting
 */

static void
nobody_there(void **state)
{
	struct liar *liar = *state;
	struct vfe_error err;
	char path[200];

	assert_int_equal(
		vfe_vfu_client_connect("/tmp/vfe-no-such.sock", 100, &liar->client, &err), -ENOENT);
	assert_non_null(strstr(err.text, "/tmp/vfe-no-such.sock"));
	assert_int_equal(shutdown(liar->listen_fd, SHUT_RDWR), 0);
	assert_int_equal(
		vfe_vfu_client_connect(liar->path, 100, &liar->client, &err), -ECONNREFUSED);
	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(vfe_vfu_client_connect(path, 100, &liar->client, &err), -ENAMETOOLONG);
	assert_null(liar->client);
}

static void
server_that_never_answers_version(void **state)
{
	struct liar *liar = *state;
	struct vfe_error err;

	/* nobody accepts: the connection waits in the queue */
	assert_int_equal(vfe_vfu_client_connect(liar->path, SHORT_TIMEOUT_MS, &liar->client, &err),
		-ETIMEDOUT);
	assert_non_null(strstr(err.text, "no reply to VERSION within 500 ms"));
	assert_null(liar->client);
}

static void
server_whose_queue_is_full(void **state)
{
	struct liar *liar = *state;
	struct vfe_error err;
	int fds[16], i;

	for (i = 0; i < 16; i++) {
		struct sockaddr_un addr = {.sun_family = AF_UNIX};

		assert_int_equal(vfe_str_copy(addr.sun_path, sizeof(addr.sun_path), liar->path), 0);
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)!connect(fds[i], (struct sockaddr *)&addr, sizeof(addr));
	}
	assert_int_equal(vfe_vfu_client_connect(liar->path, SHORT_TIMEOUT_MS, &liar->client, &err),
		-ETIMEDOUT);
	vfe_close_all(fds, 16);
}

static void
hang_up(struct liar *liar)
{
	vfe_close(&liar->fd);
}

static void
hang_up_after_version(struct liar *liar)
{
	liar_receive(liar, VFE_VFU_VERSION, NULL);
	vfe_close(&liar->fd);
}

static void
server_that_hangs_up_at_once(void **state)
{
	struct liar *liar = *state;

	liar_start(liar, hang_up, NULL);
	assert_int_equal(
		vfe_vfu_client_connect(liar->path, FIX_WAIT_MS, &liar->client, NULL), -ECONNRESET);
	liar_end(liar);
	liar_start(liar, hang_up_after_version, NULL);
	assert_int_equal(
		vfe_vfu_client_connect(liar->path, FIX_WAIT_MS, &liar->client, NULL), -ECONNRESET);
	liar_end(liar);
}

/* A reply that differs from an honest one; what is 0 or NULL is honest. */
struct lie {
	const char *what;
	uint16_t id_xor;
	uint16_t command; /* instead of the right one */
	uint32_t flags;   /* instead of VFE_VFU_F_REPLY */
	uint32_t size;    /* in the header, instead of the real one */
	uint32_t error;
	const void *body;
	uint32_t body_size;
	uint32_t nr_fds;
	int expect;    /* result of the call */
	bool survives; /* the client is not dead after it */
};

/* Answer the next command with liar->arg, then wait for the client to hang up. */
static void
tell_lie(struct liar *liar)
{
	const struct lie *lie = liar->arg;
	struct vfe_wire_vfu_hdr hdr;
	struct raw_reply msg;
	int fds[8], i;
	uint8_t *all;

	assert_true(raw_recv(liar->fd, &msg));
	vfe_close_all(msg.fds, msg.nr_fds);
	hdr = msg.hdr;
	hdr.id ^= lie->id_xor;
	hdr.command = lie->command != 0 ? lie->command : hdr.command;
	hdr.flags = lie->flags != 0 ? lie->flags : VFE_VFU_F_REPLY;
	hdr.size = lie->size != 0 ? lie->size : (uint32_t)sizeof(hdr) + lie->body_size;
	hdr.error = lie->error;
	all = malloc(sizeof(hdr) + lie->body_size);
	assert_non_null(all);
	memcpy(all, &hdr, sizeof(hdr));
	if (lie->body_size > 0)
		memcpy(all + sizeof(hdr), lie->body, lie->body_size);
	for (i = 0; i < 8; i++)
		fds[i] = liar->listen_fd;
	if (lie->nr_fds == 1 && lie->what[0] == '@') /* one page of memory instead */
		fds[0] = open_memory(FIX_PAGE);
	raw_send(liar->fd, all, sizeof(hdr) + lie->body_size, fds, lie->nr_fds);
	if (fds[0] != liar->listen_fd)
		close(fds[0]);
	free(all);
	(void)raw_recv(liar->fd, &msg);
}

static void
version_replies_that_lie(void **state)
{
#define VERSION(json) .body = "\0\0\1\0" json, .body_size = 4 + sizeof(json)
	static const struct lie lies[] = {
		{.what = "id", .id_xor = 1, .body = "\0\0\1\0", .body_size = 4},
		{.what = "command", .command = 2, .body = "\0\0\1\0", .body_size = 4},
		{.what = "type", .flags = 2, .body = "\0\0\1\0", .body_size = 4},
		{.what = "short", .body = "\0\0\1", .body_size = 3},
		{.what = "empty"},
		{.what = "major", .body = "\1\0\1\0", .body_size = 4},
		{.what = "minor", .body = "\0\0\2\0", .body_size = 4},
		{.what = "no NUL", .body = "\0\0\1\0{}", .body_size = 6},
		{.what = "no JSON", .body = "\0\0\1\0{", .body_size = 6},
		{.what = "negative", VERSION("{\"capabilities\":{\"max_msg_fds\":-1}}")},
		{.what = "nothing at once",
			VERSION("{\"capabilities\":{\"max_data_xfer_size\":1}}")},
		{.what = "fds", .body = "\0\0\1\0", .body_size = 4, .nr_fds = 2},
		{.what = "size 0", .size = 15},
		{.what = "huge", .size = UINT32_MAX},
	};
	struct liar *liar = *state;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(lies); i++) {
		liar->arg = &lies[i];
		liar_start(liar, tell_lie, NULL);
		if (vfe_vfu_client_connect(liar->path, FIX_WAIT_MS, &liar->client, NULL) != -EPROTO)
			fail_msg("believed the lie: %s", lies[i].what);
		liar_end(liar);
	}
}

/*
 * Replies
 */

typedef int (*call_fn)(struct vfe_vfu_client *client, struct vfe_error *err);

static void
tell_lies(struct liar *liar, call_fn call, const struct lie *lies, size_t n)
{
	struct vfe_error err;
	size_t i;
	int ret;

	for (i = 0; i < n; i++) {
		int expect = lies[i].expect == 0 && !lies[i].survives ? -EPROTO : lies[i].expect;

		liar->arg = &lies[i];
		liar_connect(liar, tell_lie, FIX_WAIT_MS);
		ret = call(liar->client, &err);
		if (ret != expect)
			fail_msg("%s: %d (%s) instead of %d", lies[i].what, ret, err.text, expect);
		if (lies[i].survives) {
			assert_int_equal(vfe_vfu_client_error(liar->client), 0);
			vfe_vfu_client_abort(liar->client, -ECANCELED);
		} else {
			expect_dead(liar->client, expect);
		}
		liar_end(liar);
	}
}

static void
replies_with_wrong_headers(void **state)
{
	static const struct lie lies[] = {
		{.what = "id", .id_xor = 0x8000},
		{.what = "command", .command = VFE_VFU_DEVICE_GET_INFO},
		{.what = "unknown command", .command = 999},
		{.what = "type", .flags = 7},
		{.what = "body nobody asked for", .body = "1234", .body_size = 4},
		{.what = "fds", .nr_fds = 3},
		{.what = "error with a body",
			.flags = 0x21,
			.error = EINVAL,
			.body = "1",
			.body_size = 1},
		{.what = "error with fds", .flags = 0x21, .error = EINVAL, .nr_fds = 1},
		{.what = "size below the header", .size = 8},
		{.what = "size above all", .size = 0x40000000},
		{.what = "error",
			.flags = 0x21,
			.error = ENODEV,
			.expect = -ENODEV,
			.survives = true},
		{.what = "error 0", .flags = 0x21, .expect = -EIO, .survives = true},
		{.what = "error 4096",
			.flags = 0x21,
			.error = 4096,
			.expect = -EIO,
			.survives = true},
		{.what = "error -1",
			.flags = 0x21,
			.error = UINT32_MAX,
			.expect = -EIO,
			.survives = true},
		{.what = "honest", .survives = true},
	};

	tell_lies(*state, vfe_vfu_client_reset, lies, VFE_ARRAY_SIZE(lies));
}

static int
read_four(struct vfe_vfu_client *client, struct vfe_error *err)
{
	uint8_t buf[6] = {0, 0, 0, 0, 0xee, 0xee};
	int ret = vfe_vfu_client_region_read(client, 3, 0x10, buf, 4, err);

	assert_memory_equal(buf + 4, "\xee\xee", 2);
	if (ret == 0)
		assert_memory_equal(buf, "data", 4);
	return ret;
}

static void
region_read_replies_that_lie(void **state)
{
#define RW(off, reg, n)                                                                     \
	{                                                                                   \
		off, 0, 0, 0, 0, 0, 0, 0, reg, 0, 0, 0, n, 0, 0, 0, 'd', 'a', 't', 'a', '!' \
	}
	static const uint8_t good[] = RW(0x10, 3, 4), offset[] = RW(0x11, 3, 4),
			     region[] = RW(0x10, 2, 4), count[] = RW(0x10, 3, 3);
	static const struct lie lies[] = {
		{.what = "empty"},
		{.what = "short", .body = good, .body_size = 15},
		{.what = "no data", .body = good, .body_size = 16},
		{.what = "less data", .body = good, .body_size = 19},
		{.what = "more data", .body = good, .body_size = 21},
		{.what = "offset", .body = offset, .body_size = 20},
		{.what = "region", .body = region, .body_size = 20},
		{.what = "count", .body = count, .body_size = 20},
		{.what = "count and data", .body = count, .body_size = 19},
		{.what = "fd", .body = good, .body_size = 20, .nr_fds = 1},
		{.what = "honest", .body = good, .body_size = 20, .survives = true},
	};

	tell_lies(*state, read_four, lies, VFE_ARRAY_SIZE(lies));
}

static int
write_four(struct vfe_vfu_client *client, struct vfe_error *err)
{
	return vfe_vfu_client_region_write(client, 3, 0x10, "data", 4, err);
}

static void
region_write_replies_that_lie(void **state)
{
	static const uint8_t good[] = RW(0x10, 3, 4), offset[] = RW(0x11, 3, 4),
			     count[] = RW(0x10, 3, 3);
	static const struct lie lies[] = {
		{.what = "empty"},
		{.what = "data", .body = good, .body_size = 20},
		{.what = "offset", .body = offset, .body_size = 16},
		{.what = "count", .body = count, .body_size = 16},
		{.what = "honest", .body = good, .body_size = 16, .survives = true},
	};

	tell_lies(*state, write_four, lies, VFE_ARRAY_SIZE(lies));
}

/* Region information with a chain of capabilities, to be made worse. */
struct region_body {
	struct vfe_wire_vfu_region_info info;
	struct vfe_wire_vfu_cap_hdr other; /* to be skipped */
	struct {
		struct vfe_wire_vfu_cap_hdr hdr;
		uint32_t nr_areas;
		uint32_t reserved;
	} sparse;
	struct vfe_wire_vfu_sparse_area areas[2];
};

static const struct region_body good_region = {
	.info = {sizeof(struct region_body), 0xf, 4, 32, 0x10000, 0},
	.other = {0x77, 1, 40},
	.sparse = {{VFE_VFU_REGION_CAP_SPARSE_MMAP, 1, 0}, 1, 0},
	.areas = {{0, 0x1000}, {0x2000, 0x1000}},
};

static int
ask_region(struct vfe_vfu_client *client, struct vfe_error *err)
{
	struct vfe_vfu_region region;
	int ret = vfe_vfu_client_region_info(client, 4, &region, err);

	if (ret == 0)
		vfe_vfu_region_fini(&region);
	return ret;
}

static void
region_info_replies_that_lie(void **state)
{
	enum { NR_LIES = 25 };
	struct region_body bodies[NR_LIES];
	struct lie lies[NR_LIES];
	int n = 0, i;

	for (i = 0; i < NR_LIES; i++) {
		bodies[i] = good_region;
		lies[i] = (struct lie){.what = "@",
			.body = &bodies[i],
			.body_size = sizeof(struct region_body),
			.nr_fds = 1};
	}
#define LIE(text, member, value)              \
	do {                                  \
		assert_true(n < NR_LIES);     \
		lies[n].what = "@" text;      \
		bodies[n++].member = (value); \
	} while (0)
	LIE("index", info.index, 3);
	LIE("argsz 0", info.argsz, 0);
	LIE("argsz less than the reply", info.argsz, sizeof(struct region_body) - 1);
	LIE("argsz more than is legal", info.argsz, UINT32_MAX);
	LIE("capabilities inside the struct", info.cap_offset, 8);
	LIE("capabilities at the end", info.cap_offset, sizeof(struct region_body) - 4);
	LIE("capabilities far away", info.cap_offset, 0xfffffff8);
	LIE("loop of capabilities", other.next, 32);
	LIE("next far away", other.next, UINT32_MAX);
	LIE("next at the end", other.next, sizeof(struct region_body));
	LIE("next cuts the sparse header", other.next, sizeof(struct region_body) - 8);
	bodies[n - 1].areas[1].size = 0x1ULL | 0x1ULL << 16; /* looks like a sparse header */
	LIE("too many areas", sparse.nr_areas, 3);
	LIE("overflowing areas", sparse.nr_areas, 0x10000001);
	LIE("areas without end", sparse.nr_areas, UINT32_MAX);
	LIE("area unaligned", areas[0].offset, 0x800);
	LIE("area size unaligned", areas[0].size, 0x801);
	LIE("area empty", areas[0].size, 0);
	LIE("area outside", areas[0].offset, 0x10000);
	LIE("area wraps", areas[0].offset, 0xfffffffffffff000);
	LIE("area behind the file", areas[0].offset, 0x1000);
	LIE("region offset unaligned", info.offset, 1);
	LIE("region offset wraps", info.offset, 0xfffffffffffff000);
	LIE("no fd", info.flags, 0xf);
	lies[n - 1].nr_fds = 0;
	LIE("two fds", info.flags, 0xf);
	lies[n - 1].nr_fds = 2;
	LIE("honest", info.flags, 0xf);
	lies[n - 1].survives = true;
#undef LIE
	assert_int_equal(n, NR_LIES);
	tell_lies(*state, ask_region, lies, NR_LIES);
}

static void
region_whole_but_unaligned_or_empty(void **state)
{
	struct region_body bodies[3] = {good_region, good_region, good_region};
	struct lie lies[3];
	int i;

	for (i = 0; i < 3; i++) {
		bodies[i].info.argsz = 32;
		bodies[i].info.flags = 7; /* mappable, no capabilities: all of it */
		lies[i] =
			(struct lie){.what = "@", .body = &bodies[i], .body_size = 32, .nr_fds = 1};
	}
	bodies[0].info.size = 0x1001;
	bodies[1].info.size = 0x2000; /* the file has one page */
	bodies[2].info.size = 0x1000;
	lies[2].survives = true;
	tell_lies(*state, ask_region, lies, 3);
}

/* Two io fds, 40 bytes each, to be made worse. */
struct io_fds_body {
	struct vfe_wire_vfu_region_io_fds head;
	struct vfe_wire_vfu_sub_region subs[2];
};

static const struct io_fds_body good_io_fds = {
	.head = {sizeof(struct io_fds_body), 0, 4, 2},
	.subs = {{.offset = 0, .size = 2, .fd_index = 0}, {.offset = 4, .size = 2, .fd_index = 1}},
};

static int
ask_io_fds(struct vfe_vfu_client *client, struct vfe_error *err)
{
	struct vfe_vfu_io_fd *fds;
	uint32_t n;
	int ret = vfe_vfu_client_region_io_fds(client, 4, &fds, &n, err);

	if (ret == 0)
		assert_true(n <= 2);
	vfe_vfu_io_fds_free(fds, n);
	return ret;
}

static void
io_fds_replies_that_lie(void **state)
{
	enum { NR_LIES = 16 };
	struct io_fds_body bodies[NR_LIES];
	struct lie lies[NR_LIES];
	int n = 0, i;

	for (i = 0; i < NR_LIES; i++) {
		bodies[i] = good_io_fds;
		lies[i] = (struct lie){.what = "",
			.body = &bodies[i],
			.body_size = sizeof(struct io_fds_body),
			.nr_fds = 2};
	}
#define LIE(text, member, value)              \
	do {                                  \
		assert_true(n < NR_LIES);     \
		lies[n].what = text;          \
		bodies[n++].member = (value); \
	} while (0)
	LIE("index", head.index, 0);
	LIE("argsz 0", head.argsz, 0);
	LIE("argsz less", head.argsz, 95);
	LIE("argsz a little more", head.argsz, 136);
	LIE("argsz without end", head.argsz, UINT32_MAX);
	LIE("count of too small ones", head.count, 3);
	LIE("count without end", head.count, UINT32_MAX);
	LIE("count that wraps", head.count, 0x66666667);
	LIE("fd index", subs[1].fd_index, 2);
	LIE("fd index without end", subs[1].fd_index, UINT32_MAX);
	LIE("range wraps", subs[1].offset, UINT64_MAX);
	LIE("no fds", head.flags, 0);
	lies[n - 1].nr_fds = 0;
	LIE("other type", subs[1].type, 1);
	lies[n - 1].survives = true;
	LIE("data match", subs[1].flags, 1);
	lies[n - 1].survives = true;
	LIE("none", head.count, 0);
	bodies[n - 1].head.argsz = 16;
	lies[n - 1].body_size = 16;
	lies[n - 1].survives = true;
	LIE("honest", head.flags, 0);
	lies[n - 1].survives = true;
#undef LIE
	assert_int_equal(n, NR_LIES);
	tell_lies(*state, ask_io_fds, lies, NR_LIES);
}

static void
io_fds_of_48_bytes_each(void **state)
{
	struct vfe_wire_vfu_region_io_fds head = {16 + 2 * 48, 0, 4, 2};
	struct vfe_wire_vfu_sub_region sub = {.offset = 64, .size = 4, .fd_index = 1};
	uint8_t body[16 + 2 * 48] = {0};
	struct lie lie = {.what = "", .body = body, .body_size = sizeof(body), .nr_fds = 2};
	struct liar *liar = *state;
	struct vfe_vfu_io_fd *fds;
	uint32_t n;

	memcpy(body, &head, sizeof(head));
	memcpy(body + 16 + 48, &sub, sizeof(sub));
	liar->arg = &lie;
	liar_connect(liar, tell_lie, FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_region_io_fds(liar->client, 4, &fds, &n, NULL), 0);
	assert_int_equal(n, 2);
	assert_int_equal(fds[1].offset, 64);
	assert_int_equal(fds[1].size, 4);
	vfe_vfu_io_fds_free(fds, n);
	vfe_vfu_client_abort(liar->client, -ECANCELED);
	liar_end(liar);
}

static int
ask_irqs(struct vfe_vfu_client *client, struct vfe_error *err)
{
	uint32_t count;

	return vfe_vfu_client_irq_info(client, 2, &count, err);
}

static void
irq_info_replies_that_lie(void **state)
{
	static const struct vfe_wire_vfu_irq_info good = {16, 1, 2, 2048}, index = {16, 1, 1, 4},
						  count = {16, 1, 2, 2049};
	static const struct lie lies[] = {
		{.what = "short", .body = &good, .body_size = 15},
		{.what = "index", .body = &index, .body_size = 16},
		{.what = "count", .body = &count, .body_size = 16},
		{.what = "honest", .body = &good, .body_size = 16, .survives = true},
	};

	tell_lies(*state, ask_irqs, lies, VFE_ARRAY_SIZE(lies));
}

static int
ask_unmap(struct vfe_vfu_client *client, struct vfe_error *err)
{
	return vfe_vfu_client_dma_unmap(client, 0x1000, 0x2000, err);
}

static void
dma_unmap_replies_that_lie(void **state)
{
	static const struct vfe_wire_vfu_dma_unmap good = {24, 0, 0x1000, 0x2000},
						   addr = {24, 0, 0x2000, 0x2000},
						   size = {24, 0, 0x1000, 0x1000};
	static const struct lie lies[] = {
		{.what = "empty"},
		{.what = "address", .body = &addr, .body_size = 24},
		{.what = "size", .body = &size, .body_size = 24},
		{.what = "honest", .body = &good, .body_size = 24, .survives = true},
	};

	tell_lies(*state, ask_unmap, lies, VFE_ARRAY_SIZE(lies));
}

/*
 * Time
 */

static void
stay_silent(struct liar *liar)
{
	struct raw_reply msg;

	while (raw_recv(liar->fd, &msg))
		vfe_close_all(msg.fds, msg.nr_fds);
}

static void
reply_that_never_comes(void **state)
{
	struct liar *liar = *state;
	struct vfe_deadline soon;
	struct vfe_error err;

	liar_connect(liar, stay_silent, SHORT_TIMEOUT_MS);
	soon = vfe_deadline_in_ms(FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "no reply to DEVICE_RESET within 500 ms");
	assert_false(vfe_deadline_passed(soon));
	expect_dead(liar->client, -ETIMEDOUT);
	liar_end(liar);
}

static void
reply_half(struct liar *liar)
{
	struct vfe_wire_vfu_hdr hdr = liar_receive(liar, VFE_VFU_DEVICE_RESET, NULL);

	hdr.flags = VFE_VFU_F_REPLY;
	raw_send(liar->fd, &hdr, sizeof(hdr) - 1, NULL, 0);
	if (liar->arg != NULL)
		stay_silent(liar);
	else
		vfe_close(&liar->fd);
}

static void
reply_that_stops_in_the_middle(void **state)
{
	struct liar *liar = *state;

	liar->arg = "silent";
	liar_connect(liar, reply_half, SHORT_TIMEOUT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), -ETIMEDOUT);
	expect_dead(liar->client, -ETIMEDOUT);
	liar_end(liar);

	liar->arg = NULL;
	liar_connect(liar, reply_half, FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), -ECONNRESET);
	expect_dead(liar->client, -ECONNRESET);
	liar_end(liar);
}

static void
reply_in_bytes(struct liar *liar)
{
	static const uint8_t body[] = RW(0x10, 3, 4);
	struct vfe_wire_vfu_hdr hdr = liar_receive(liar, VFE_VFU_REGION_READ, NULL);
	uint32_t i;

	hdr.flags = VFE_VFU_F_REPLY;
	hdr.size = sizeof(hdr) + 20;
	for (i = 0; i < sizeof(hdr); i++)
		raw_send(liar->fd, (uint8_t *)&hdr + i, 1, NULL, 0);
	for (i = 0; i < 20; i++)
		raw_send(liar->fd, body + i, 1, NULL, 0);
}

static void
reply_in_single_bytes(void **state)
{
	struct liar *liar = *state;

	liar_connect(liar, reply_in_bytes, FIX_WAIT_MS);
	assert_int_equal(read_four(liar->client, NULL), 0);
	liar_end(liar);
}

static void
stop_reading(struct liar *liar)
{
	struct pollfd pfd = {liar->fd, POLLRDHUP, 0};

	assert_int_equal(poll(&pfd, 1, FIX_WAIT_MS), 1);
}

static void
server_that_stops_reading(void **state)
{
	struct liar *liar = *state;
	uint8_t *big = calloc(1, 1 << 20);
	int ret = 0, n = 0;

	assert_non_null(big);
	liar_connect(liar, stop_reading, SHORT_TIMEOUT_MS);
	/* posting never waits */
	while (ret == 0 && n++ < 100000)
		ret = vfe_vfu_client_region_post(liar->client, 0, 0, big, 4);
	assert_int_equal(ret, -EAGAIN);
	assert_int_equal(vfe_vfu_client_error(liar->client), 0);
	assert_int_equal(vfe_vfu_client_region_post(liar->client, 0, 0, big, 65), -EMSGSIZE);
	/* a command waits for room, but not for ever */
	assert_int_equal(
		vfe_vfu_client_region_write(liar->client, 0, 0, big, 1 << 20, NULL), -ETIMEDOUT);
	expect_dead(liar->client, -ETIMEDOUT);
	liar_end(liar);
	free(big);
}

/*
 * Threads
 */

struct waiter {
	struct vfe_vfu_client *client;
	uint64_t offset;
	pthread_t thread;
	int ret;
	uint8_t value;
};

static void *
waiter_main(void *arg)
{
	struct waiter *waiter = arg;

	waiter->ret = vfe_vfu_client_region_read(
		waiter->client, 3, waiter->offset, &waiter->value, 1, NULL);
	return NULL;
}

static void
waiters_start(struct waiter *waiters, size_t n, struct vfe_vfu_client *client)
{
	size_t i;

	for (i = 0; i < n; i++) {
		waiters[i] = (struct waiter){.client = client, .offset = i};
		assert_int_equal(
			pthread_create(&waiters[i].thread, NULL, waiter_main, &waiters[i]), 0);
	}
}

enum { NR_WAITERS = 6 };

static void
reply_backwards(struct liar *liar)
{
	struct vfe_wire_vfu_hdr hdrs[NR_WAITERS];
	struct vfe_wire_vfu_region_rw rw;
	struct raw_reply msg;
	uint8_t bodies[NR_WAITERS][17];
	int i;

	for (i = 0; i < NR_WAITERS; i++) {
		hdrs[i] = liar_receive(liar, VFE_VFU_REGION_READ, &msg);
		memcpy(&rw, msg.body, sizeof(rw));
		memcpy(bodies[i], &rw, sizeof(rw));
		bodies[i][16] = (uint8_t)(rw.offset + 100);
	}
	while (i-- > 0)
		liar_reply(liar, &hdrs[i], bodies[i], 17);
}

static void
replies_in_another_order(void **state)
{
	struct waiter waiters[NR_WAITERS];
	struct liar *liar = *state;
	int i;

	liar_connect(liar, reply_backwards, FIX_WAIT_MS);
	waiters_start(waiters, NR_WAITERS, liar->client);
	for (i = 0; i < NR_WAITERS; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].ret, 0);
		assert_int_equal(waiters[i].value, i + 100);
	}
	assert_int_equal(vfe_vfu_client_error(liar->client), 0);
	liar_end(liar);
}

static void
hang_up_on_all(struct liar *liar)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++)
		liar_receive(liar, VFE_VFU_REGION_READ, NULL);
	vfe_close(&liar->fd);
}

static void
server_vanishes_under_many_threads(void **state)
{
	struct waiter waiters[NR_WAITERS];
	struct liar *liar = *state;
	int i;

	liar_connect(liar, hang_up_on_all, FIX_WAIT_MS);
	waiters_start(waiters, NR_WAITERS, liar->client);
	for (i = 0; i < NR_WAITERS; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].ret, -ECONNRESET);
	}
	expect_dead(liar->client, -ECONNRESET);
	liar_end(liar);
}

static void
deadline_under_many_threads(void **state)
{
	struct waiter waiters[NR_WAITERS];
	struct liar *liar = *state;
	int i;

	liar_connect(liar, stay_silent, SHORT_TIMEOUT_MS);
	waiters_start(waiters, NR_WAITERS, liar->client);
	for (i = 0; i < NR_WAITERS; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].ret, -ETIMEDOUT);
	}
	expect_dead(liar->client, -ETIMEDOUT);
	liar_end(liar);
}

/* Abort the client once all its threads wait, then see it hang up. */
static void
abort_when_all_wait(struct liar *liar)
{
	int i;

	for (i = 0; i < NR_WAITERS; i++)
		liar_receive(liar, VFE_VFU_REGION_READ, NULL);
	vfe_vfu_client_abort(liar->client, -ENODEV);
	vfe_vfu_client_abort(liar->client, -EIO); /* the first reason stays */
	raw_expect_hang_up(liar->fd);
}

static void
abort_wakes_all(void **state)
{
	struct waiter waiters[NR_WAITERS];
	struct liar *liar = *state;
	int i;

	liar_connect(liar, abort_when_all_wait, FIX_WAIT_MS);
	waiters_start(waiters, NR_WAITERS, liar->client);
	for (i = 0; i < NR_WAITERS; i++) {
		pthread_join(waiters[i].thread, NULL);
		assert_int_equal(waiters[i].ret, -ENODEV);
	}
	expect_dead(liar->client, -ENODEV);
	liar_end(liar);
}

static void
reply_twice(struct liar *liar)
{
	struct vfe_wire_vfu_hdr hdr = liar_receive(liar, VFE_VFU_DEVICE_RESET, NULL);

	liar_reply(liar, &hdr, NULL, 0);
	liar_reply(liar, &hdr, NULL, 0);
	stay_silent(liar);
}

static void
reply_that_comes_twice(void **state)
{
	struct liar *liar = *state;

	liar_connect(liar, reply_twice, FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), 0);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), -EPROTO);
	expect_dead(liar->client, -EPROTO);
	liar_end(liar);
}

/*
 * Commands of the server
 */

static void
ask_for_memory(struct liar *liar)
{
	const struct vfe_wire_vfu_dma_rw rw = {0x1000, 8};
	struct vfe_wire_vfu_hdr hdr = liar_receive(liar, VFE_VFU_DEVICE_RESET, NULL);
	struct raw_reply reply;
	uint8_t write[16 + 8] = {0};

	raw_command(liar->fd, 7, VFE_VFU_DMA_READ, 0, &rw, sizeof(rw), NULL, 0);
	raw_command(liar->fd, hdr.id, VFE_VFU_DMA_WRITE, 0, write, sizeof(write), NULL, 0);
	raw_command(
		liar->fd, 9, VFE_VFU_DMA_WRITE, VFE_VFU_F_NO_REPLY, write, sizeof(write), NULL, 0);
	raw_expect(liar->fd, 7, VFE_VFU_DMA_READ, ENOTSUP, &reply);
	raw_expect(liar->fd, hdr.id, VFE_VFU_DMA_WRITE, ENOTSUP, &reply);
	liar_reply(liar, &hdr, NULL, 0);
	hdr = liar_receive(liar, VFE_VFU_DEVICE_RESET, NULL); /* no reply was sent to 9 */
	liar_reply(liar, &hdr, NULL, 0);
}

static void
commands_of_the_server_are_refused(void **state)
{
	struct liar *liar = *state;

	liar_connect(liar, ask_for_memory, FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), 0);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), 0);
	liar_end(liar);
}

static void
flood(struct liar *liar)
{
	const struct vfe_wire_vfu_hdr hdr = {1, VFE_VFU_DMA_READ, sizeof(hdr), 0, 0};
	struct pollfd pfd = {liar->fd, POLLOUT, 0};
	int i;

	liar_receive(liar, VFE_VFU_DEVICE_RESET, NULL);
	for (i = 0; i < 100000; i++) {
		assert_int_equal(poll(&pfd, 1, FIX_WAIT_MS), 1);
		if (send(liar->fd, &hdr, sizeof(hdr), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
			errno != EAGAIN)
			return;
	}
	fail_msg("the client takes commands without end");
}

static void
flood_of_commands_ends_the_client(void **state)
{
	struct liar *liar = *state;

	liar_connect(liar, flood, FIX_WAIT_MS);
	assert_int_equal(vfe_vfu_client_reset(liar->client, NULL), -EPROTO);
	expect_dead(liar->client, -EPROTO);
	liar_end(liar);
}

/*
 * Limits of the server
 */

static void
count_slices(struct liar *liar)
{
	struct vfe_wire_vfu_hdr hdr;
	struct raw_reply msg;
	const uint8_t *expected = liar->arg; /* fds in each message, 0xff = end */

	for (; *expected != 0xff; expected++) {
		assert_true(raw_recv(liar->fd, &msg));
		assert_int_equal(msg.nr_fds, *expected);
		hdr = msg.hdr;
		vfe_close_all(msg.fds, msg.nr_fds);
		liar_reply(liar, &hdr, NULL, 0);
	}
	raw_expect_hang_up(liar->fd);
}

static void
slices_follow_the_servers_limit(void **state)
{
	static const char *const hello[] = {"{}", "{\"capabilities\":{\"max_msg_fds\":3}}",
		"{\"capabilities\":{\"max_msg_fds\":100000}}"};
	static const uint8_t slices[][8] = {
		{1, 1, 1, 0, 1, 1, 0xff}, {3, 0, 2, 0xff}, {3, 0, 2, 0xff}};
	int event = eventfd(0, EFD_CLOEXEC), fds[] = {event, event, event, -1, -1, event, event};
	struct liar *liar = *state;
	int i;

	for (i = 0; i < 3; i++) {
		liar->arg = slices[i];
		liar_start(liar, count_slices, hello[i]);
		assert_int_equal(
			vfe_vfu_client_connect(liar->path, FIX_WAIT_MS, &liar->client, NULL), 0);
		assert_int_equal(vfe_vfu_client_irq_set(liar->client, 2, 0, 7, fds, NULL), 0);
		vfe_vfu_client_abort(liar->client, -ECANCELED);
		liar_end(liar);
	}
	close(event);
}

static void
server_that_takes_no_fds(void **state)
{
	struct liar *liar = *state;
	int fd = eventfd(0, EFD_CLOEXEC);

	liar_start(liar, stay_silent, "{\"capabilities\":{\"max_msg_fds\":0}}");
	assert_int_equal(vfe_vfu_client_connect(liar->path, FIX_WAIT_MS, &liar->client, NULL), 0);
	assert_int_equal(vfe_vfu_client_irq_set(liar->client, 2, 0, 1, &fd, NULL), -ENOTSUP);
	assert_int_equal(
		vfe_vfu_client_dma_map(liar->client, 0, FIX_PAGE, 3, fd, 0, NULL), -ENOTSUP);
	assert_int_equal(vfe_vfu_client_error(liar->client), 0);
	vfe_vfu_client_abort(liar->client, 0);
	assert_int_equal(vfe_vfu_client_error(liar->client), -ECANCELED);
	liar_end(liar);
	close(fd);
}

#define CLIENT_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CLIENT_TEST(nobody_there),
		CLIENT_TEST(server_that_never_answers_version),
		CLIENT_TEST(server_whose_queue_is_full),
		CLIENT_TEST(server_that_hangs_up_at_once),
		CLIENT_TEST(version_replies_that_lie),
		CLIENT_TEST(replies_with_wrong_headers),
		CLIENT_TEST(region_read_replies_that_lie),
		CLIENT_TEST(region_write_replies_that_lie),
		CLIENT_TEST(region_info_replies_that_lie),
		CLIENT_TEST(region_whole_but_unaligned_or_empty),
		CLIENT_TEST(io_fds_replies_that_lie),
		CLIENT_TEST(io_fds_of_48_bytes_each),
		CLIENT_TEST(irq_info_replies_that_lie),
		CLIENT_TEST(dma_unmap_replies_that_lie),
		CLIENT_TEST(reply_that_never_comes),
		CLIENT_TEST(reply_that_stops_in_the_middle),
		CLIENT_TEST(reply_in_single_bytes),
		CLIENT_TEST(server_that_stops_reading),
		CLIENT_TEST(replies_in_another_order),
		CLIENT_TEST(server_vanishes_under_many_threads),
		CLIENT_TEST(deadline_under_many_threads),
		CLIENT_TEST(abort_wakes_all),
		CLIENT_TEST(reply_that_comes_twice),
		CLIENT_TEST(commands_of_the_server_are_refused),
		CLIENT_TEST(flood_of_commands_ends_the_client),
		CLIENT_TEST(slices_follow_the_servers_limit),
		CLIENT_TEST(server_that_takes_no_fds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
