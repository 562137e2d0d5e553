/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block data path: requests of a fake driver on real workers and real back ends, and all ways to
 * stop while they are under way.
 */

#undef NDEBUG

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>
#include <ev.h>

#include "blkpath.h"
#include "fake_driver.h"
#include "vfe_wire_blk.h"

enum {
	SIZE = 1 << 20,
	RING = 64,
	QUEUES = 2,
	WAIT_MS = 5000,
	POLLING = 1, /* flags of begin() */
	THREADS = 2,
	IN_ORDER = 4,
	SPIN = 8,
	SPIN_US = 500,
};

/* One request of the fake driver. */
struct request {
	struct vfe_wire_blk_hdr *hdr;
	uint8_t *data;
	uint8_t *status;
	int head;
};

struct blk_queue {
	struct fake_ring ring;
	int kick_fd;
	int call_fd;
};

struct world {
	struct fake_mem mem;
	struct ev_loop *loop;
	struct dp_engine *engine;
	struct bp_disk *disk;
	struct bp_port *port;
	struct blk_queue q[QUEUES];
	bool polling;
	char path[64];
	unsigned int nr_broken;
	unsigned int nr_drained;
};

static void
on_broken(void *ctx, uint16_t qid, const char *why)
{
	struct world *w = ctx;

	(void)qid;
	assert_string_not_equal(why, "");
	w->nr_broken++;
}

static void
on_drained(void *ctx, uint16_t qid)
{
	struct world *w = ctx;

	(void)qid;
	w->nr_drained++;
}

static void
make_disk(struct world *w, enum bp_disk_type type, unsigned int flags)
{
	struct bp_disk_cfg cfg = {
		.name = "disk",
		.type = type,
		.size = SIZE,
		.block_size = 512,
		.io = flags & THREADS ? BP_IO_THREADS : BP_IO_AUTO,
	};
	struct vfe_error err;
	int fd;

	if (type == BP_DISK_FILE) {
		snprintf(w->path, sizeof(w->path), "/tmp/vfe-blkpath-XXXXXX");
		fd = mkstemp(w->path);
		assert_true(fd >= 0);
		close(fd);
		cfg.path = w->path;
	}
	if (bp_disk_create(w->engine, &cfg, &w->disk, &err) < 0)
		fail_msg("%s", err.text);
}

static struct world *
begin(enum bp_disk_type type, unsigned int flags)
{
	const struct dp_engine_cfg engine_cfg = {
		.nr_workers = 2,
		.polling = (flags & POLLING) != 0,
		.blk_spin_us = flags & SPIN ? SPIN_US : 0,
		.on_broken = on_broken,
	};
	struct world *w = calloc(1, sizeof(*w));
	struct bp_port_cfg cfg = {
		.name = "0000:00:01.0",
		.nr_queues = QUEUES,
		.in_order = (flags & IN_ORDER) != 0,
		.id = "serial",
		.ctx = w,
		.on_drained = on_drained,
	};
	struct vfe_error err;
	int i;

	assert_non_null(w);
	w->polling = engine_cfg.polling;
	w->loop = ev_loop_new(EVFLAG_AUTO);
	fake_mem_init(&w->mem, 16 << 20);
	assert_int_equal(dp_engine_create(w->loop, &engine_cfg, &w->engine, &err), 0);
	make_disk(w, type, flags);
	cfg.disk = w->disk;
	assert_int_equal(bp_port_create(w->engine, &cfg, &w->port, &err), 0);
	bp_port_set_map(w->port, w->mem.map);
	for (i = 0; i < QUEUES; i++) {
		fake_ring_init(&w->q[i].ring, &w->mem, RING, false);
		w->q[i].kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		w->q[i].call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	}
	return w;
}

static void
end(struct world *w)
{
	struct vfe_error err;
	int i;

	bp_port_destroy(w->port);
	assert_int_equal(bp_disk_destroy(w->disk, &err), 0);
	dp_engine_destroy(w->engine);
	for (i = 0; i < QUEUES; i++) {
		fake_ring_fini(&w->q[i].ring);
		close(w->q[i].kick_fd);
		close(w->q[i].call_fd);
	}
	fake_mem_fini(&w->mem);
	ev_loop_destroy(w->loop);
	if (w->path[0] != '\0')
		unlink(w->path);
	free(w);
}

static int
start(struct world *w, uint16_t qid)
{
	struct dp_queue_cfg cfg = {
		.ring = fake_ring_cfg(&w->q[qid].ring, VFE_BIT(VFE_VIRTIO_F_VERSION_1)),
		.kick_fd = w->polling ? -1 : w->q[qid].kick_fd,
		.call_fd = w->q[qid].call_fd,
	};
	struct vfe_error err;

	return bp_queue_start(w->port, qid, &cfg, &err);
}

/* Put a request on the ring; shown and kicked by show(). */
static struct request
post(struct world *w, uint16_t qid, uint32_t type, uint64_t sector, uint32_t len)
{
	const bool in = type == VFE_BLK_T_IN || type == VFE_BLK_T_GET_ID;
	struct request r = {
		.hdr = fake_mem_alloc(&w->mem, sizeof(*r.hdr), 16),
		.data = fake_mem_alloc(&w->mem, len + 1, 4096),
		.status = fake_mem_alloc(&w->mem, 1, 1),
	};
	struct fake_seg segs[3] = {{r.hdr, sizeof(*r.hdr), false}};
	uint16_t n = 1;

	*r.hdr = (struct vfe_wire_blk_hdr){.type = htole32(type), .sector = htole64(sector)};
	*r.status = 0xff;
	if (len > 0)
		segs[n++] = (struct fake_seg){r.data, len, in};
	segs[n++] = (struct fake_seg){r.status, 1, true};
	r.head = fake_ring_add(&w->q[qid].ring, segs, n);
	assert_true(r.head >= 0);
	return r;
}

static void
show(struct world *w, uint16_t qid)
{
	static const uint64_t one = 1;

	if (fake_ring_show(&w->q[qid].ring) && !w->polling)
		assert_int_equal(write(w->q[qid].kick_fd, &one, sizeof(one)), sizeof(one));
}

/* Next answer within @ms, or -1. */
static int
take(struct world *w, uint16_t qid, int ms)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms((uint64_t)ms);
	struct pollfd pfd = {.fd = w->q[qid].call_fd, .events = POLLIN};
	uint32_t len;
	uint64_t n;
	int head;

	for (;;) {
		head = fake_ring_get(&w->q[qid].ring, &len);
		if (head >= 0 || vfe_deadline_passed(deadline))
			return head;
		if (poll(&pfd, 1, vfe_deadline_left_ms(deadline)) == 1)
			assert_int_equal(read(pfd.fd, &n, sizeof(n)), sizeof(n));
	}
}

static struct request
call(struct world *w, uint32_t type, uint64_t sector, const void *data, uint32_t len)
{
	struct request r = post(w, 0, type, sector, len);

	if (data != NULL)
		memcpy(r.data, data, len);
	show(w, 0);
	assert_int_equal(take(w, 0, WAIT_MS), r.head);
	return r;
}

static void
wait_in_flight(struct world *w, uint16_t qid, uint32_t n)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(WAIT_MS);
	struct bp_queue_stats stats;

	do {
		bp_queue_stats(w->port, qid, &stats);
		assert_false(vfe_deadline_passed(deadline));
	} while (stats.in_flight != n);
}

static void
inject(struct world *w, enum bp_inject_action action)
{
	const struct bp_inject all = {
		.action = action, .ops = UINT32_MAX, .every = 1, .last = UINT64_MAX};

	bp_disk_inject(w->disk, &all);
}

/* --- tests: each on all kinds of disks --- */

static const struct {
	enum bp_disk_type type;
	unsigned int flags;
} kinds[] = {
	{BP_DISK_MEMORY, 0},
	{BP_DISK_MEMORY, POLLING},
	{BP_DISK_MEMORY, SPIN},
	{BP_DISK_FILE, 0},
	{BP_DISK_FILE, SPIN},
	{BP_DISK_FILE, POLLING},
	{BP_DISK_FILE, THREADS},
	{BP_DISK_FILE, THREADS | POLLING},
	{BP_DISK_FILE, IN_ORDER},
};

static void
on_all(void (*test)(struct world *w))
{
	struct world *w;
	size_t i;

	for (i = 0; i < VFE_ARRAY_SIZE(kinds); i++) {
		w = begin(kinds[i].type, kinds[i].flags);
		test(w);
		end(w);
	}
}

static void
one_of_each(struct world *w)
{
	const struct vfe_wire_blk_range range = {.sector = htole64(8), .num_sectors = htole32(1)};
	uint8_t data[4096];
	struct request r;

	memset(data, 0x5a, sizeof(data));
	assert_int_equal(start(w, 0), 0);
	assert_int_equal(*call(w, VFE_BLK_T_OUT, 8, data, 4096).status, VFE_BLK_S_OK);
	assert_int_equal(
		*call(w, VFE_BLK_T_WRITE_ZEROES, 0, &range, sizeof(range)).status, VFE_BLK_S_OK);
	r = call(w, VFE_BLK_T_IN, 8, NULL, 4096);
	assert_int_equal(*r.status, VFE_BLK_S_OK);
	memset(data, 0, 512);
	assert_memory_equal(r.data, data, 4096);
	assert_int_equal(*call(w, VFE_BLK_T_FLUSH, 0, NULL, 0).status, VFE_BLK_S_OK);
	assert_int_equal(
		*call(w, VFE_BLK_T_DISCARD, 0, &range, sizeof(range)).status, VFE_BLK_S_OK);
	assert_string_equal((char *)call(w, VFE_BLK_T_GET_ID, 0, NULL, 20).data, "serial");
	assert_int_equal(*call(w, 77, 0, NULL, 0).status, VFE_BLK_S_UNSUPP);
	assert_int_equal(*call(w, VFE_BLK_T_OUT, SIZE / 512, data, 512).status, VFE_BLK_S_IOERR);
}

static void
requests_of_each_type(void **state)
{
	(void)state;
	on_all(one_of_each);
}

static void
drain_one(struct world *w)
{
	struct request r, later;
	uint16_t avail = 0, used = 0;

	assert_int_equal(start(w, 0), 0);
	assert_true(bp_queue_drain(w->port, 0));
	bp_queue_resume(w->port, 0);
	inject(w, BP_INJECT_HOLD);
	r = post(w, 0, VFE_BLK_T_OUT, 0, 512);
	show(w, 0);
	wait_in_flight(w, 0, 1);
	assert_false(bp_queue_drain(w->port, 0));
	later = post(w, 0, VFE_BLK_T_OUT, 8, 512);
	show(w, 0);
	inject(w, BP_INJECT_NONE);
	while (w->nr_drained == 0)
		ev_run(w->loop, EVRUN_ONCE);
	assert_true(bp_queue_drain(w->port, 0));
	assert_int_equal(take(w, 0, 0), r.head);
	assert_int_equal(take(w, 0, 20), -1);
	assert_int_equal(bp_queue_stop(w->port, 0, &avail, &used), 0);
	assert_int_equal(avail, 1);
	assert_int_equal(used, 1);
	assert_int_equal(*later.status, 0xff);
}

static void
draining_lets_nothing_in_and_everything_out(void **state)
{
	(void)state;
	on_all(drain_one);
}

/* What was told to be written. */
struct noted {
	struct vfe_vring_watch watch;
	_Atomic uint64_t bytes;
};

static void
on_wrote(const struct vfe_vring_watch *watch, uint64_t iova, uint64_t len)
{
	struct noted *noted = vfe_container_of((void *)(uintptr_t)watch, struct noted, watch);

	(void)iova;
	atomic_fetch_add(&noted->bytes, len);
}

static void
abandon_one(struct world *w)
{
	struct noted noted = {.watch.wrote = on_wrote};
	struct request r;
	uint16_t avail = 0, used = 0;

	bp_port_set_watch(w->port, &noted.watch);

	assert_int_equal(start(w, 0), 0);
	inject(w, BP_INJECT_HOLD);
	r = post(w, 0, VFE_BLK_T_IN, 0, 4096);
	show(w, 0);
	wait_in_flight(w, 0, 1);
	assert_int_equal(bp_port_settle(w->port), -ETIMEDOUT);
	assert_int_equal(bp_port_release(w->port, r.data + 100, 1), -ETIMEDOUT);
	assert_int_equal(bp_port_release(w->port, r.data + 8192, 4096), 0);
	assert_int_equal(bp_queue_stop(w->port, 0, &avail, &used), 1);
	assert_int_equal((uint16_t)(avail - used), 1);
	assert_int_equal(start(w, 0), -EBUSY);
	assert_int_equal(bp_port_release(w->port, r.status, 1), -ETIMEDOUT);
	inject(w, BP_INJECT_NONE);
	wait_in_flight(w, 0, 0);
	assert_int_equal(bp_port_release(w->port, r.data, 4096), 0);
	assert_int_equal(*r.status, 0xff);
	assert_int_equal(fake_ring_get(&w->q[0].ring, &(uint32_t){0}), -1);
}

static void
what_hangs_is_abandoned_and_reclaimed(void **state)
{
	(void)state;
	on_all(abandon_one);
}

static void
break_one(struct world *w)
{
	assert_int_equal(start(w, 0), 0);
	assert_int_equal(start(w, 1), 0);
	inject(w, BP_INJECT_HOLD);
	(void)post(w, 0, VFE_BLK_T_OUT, 0, 512);
	show(w, 0);
	wait_in_flight(w, 0, 1);
	fake_ring_put(&w->q[0].ring, RING);
	show(w, 0);
	while (w->nr_broken == 0)
		ev_run(w->loop, EVRUN_ONCE);
	inject(w, BP_INJECT_NONE);
	assert_int_equal(bp_port_settle(w->port), 0);
	assert_int_equal(bp_queue_stop(w->port, 0, NULL, NULL), 0);
	assert_int_equal(bp_queue_stop(w->port, 1, NULL, NULL), 0);
}

static void
a_broken_ring_gets_its_requests_back(void **state)
{
	(void)state;
	on_all(break_one);
}

static void
load_one(struct world *w)
{
	uint16_t avail = 0, used = 0;
	int turn, i, n;

	for (turn = 0; turn < 30; turn++) {
		assert_int_equal(start(w, 0), 0);
		for (i = 0; i < 20; i++)
			(void)post(w, 0, turn % 2 != 0 ? VFE_BLK_T_IN : VFE_BLK_T_OUT,
				(uint64_t)i * 16, i % 3 == 0 ? 512 : 8192);
		show(w, 0);
		assert_int_equal(bp_port_settle(w->port), 0);
		assert_int_equal(bp_queue_stop(w->port, 0, &avail, &used), 0);
		assert_int_equal(avail, used);
		for (n = 0; take(w, 0, 0) >= 0;)
			n++;
		assert_int_equal(n, used);
		fake_ring_fini(&w->q[0].ring);
		fake_ring_init(&w->q[0].ring, &w->mem, RING, false);
		w->mem.next = w->mem.next % (8 << 20);
	}
}

static void
stops_under_load_lose_nothing(void **state)
{
	(void)state;
	on_all(load_one);
}

static void
watch_one(struct world *w)
{
	static uint8_t data[4096];
	struct noted noted = {.watch.wrote = on_wrote};
	uint64_t per_answer;

	assert_int_equal(start(w, 0), 0);
	bp_port_set_watch(w->port, &noted.watch);
	(void)call(w, VFE_BLK_T_OUT, 0, data, 4096);
	bp_port_set_watch(w->port, NULL);
	per_answer = atomic_load(&noted.bytes);
	assert_in_range(per_answer, 1 + sizeof(struct vfe_wire_vring_used), 64);
	bp_port_set_watch(w->port, &noted.watch);
	(void)call(w, VFE_BLK_T_IN, 0, NULL, 4096);
	bp_port_set_watch(w->port, NULL);
	assert_in_range(atomic_load(&noted.bytes), per_answer + 4096, per_answer + 4096 + 64);
	per_answer = atomic_load(&noted.bytes);
	(void)call(w, VFE_BLK_T_IN, 0, NULL, 4096);
	assert_int_equal(atomic_load(&noted.bytes), per_answer);
}

static void
writes_are_told(void **state)
{
	(void)state;
	on_all(watch_one);
}

static void
disks_refuse_what_makes_no_sense(void **state)
{
	const struct bp_disk_cfg bad[] = {
		{.name = "disk", .type = BP_DISK_NULL, .size = 512, .block_size = 512},
		{.name = "", .type = BP_DISK_NULL, .size = 512, .block_size = 512},
		{.name = "a", .type = BP_DISK_NULL, .size = 0, .block_size = 512},
		{.name = "a", .type = BP_DISK_NULL, .size = 513, .block_size = 512},
		{.name = "a", .type = BP_DISK_NULL, .size = 512, .block_size = 0},
		{.name = "a", .type = BP_DISK_NULL, .size = 512, .block_size = 256},
		{.name = "a", .type = BP_DISK_NULL, .size = 1 << 20, .block_size = 1 << 17},
		{.name = "a", .type = BP_DISK_MEMORY, .size = 1ULL << 40, .block_size = 512},
		{.name = "a", .type = BP_DISK_FILE, .block_size = 512},
		{.name = "a", .type = BP_DISK_FILE, .block_size = 512, .path = "x"},
		{.name = "a", .type = BP_DISK_FILE, .block_size = 512, .path = "/nowhere/x"},
		{.name = "a", .type = BP_DISK_FILE, .block_size = 512, .path = "/tmp"},
		{.name = "a", .type = BP_DISK_FILE, .block_size = 512, .path = "/dev/null"},
	};
	struct world *w = begin(BP_DISK_MEMORY, 0);
	struct bp_disk *disk = NULL;
	struct vfe_error err;
	size_t i;

	(void)state;
	for (i = 0; i < VFE_ARRAY_SIZE(bad); i++) {
		err.text[0] = '\0';
		assert_true(bp_disk_create(w->engine, &bad[i], &disk, &err) < 0);
		assert_string_not_equal(err.text, "");
		assert_null(disk);
	}
	assert_int_equal(bp_disk_destroy(w->disk, &err), -EBUSY);
	assert_int_equal(bp_disk_resize(w->disk, 100, &err), -EINVAL);
	assert_int_equal(bp_disk_resize(w->disk, 2 * SIZE, &err), 0);
	assert_int_equal(bp_disk_resize(w->disk, SIZE / 2, &err), 0);
	end(w);
}

/* Wait until the device asks for doorbells, as it does before it sleeps. */
static bool
wait_asleep(struct world *w, uint16_t qid)
{
	struct vfe_deadline deadline = vfe_deadline_in_ms(WAIT_MS);
	const struct vfe_wire_vring_used *used = w->q[qid].ring.used;

	while (__atomic_load_n(&used->flags, __ATOMIC_ACQUIRE) & VFE_VRING_USED_F_NO_NOTIFY) {
		if (vfe_deadline_passed(deadline))
			return false;
	}
	return true;
}

/* The next request comes sooner or later than it is waited for: it is seen all the same. */
static void
requests_are_waited_for_only_so_long(void **state)
{
	struct world *w = begin(BP_DISK_MEMORY, SPIN);
	struct bp_queue_stats stats;
	struct request r;
	int i;

	(void)state;
	assert_int_equal(start(w, 0), 0);
	for (i = 0; i < 200; i++) {
		/* long runs of one and of the other: waiting is given up and begun again */
		if (i / 50 % 2 != 0)
			assert_true(wait_asleep(w, 0));
		r = post(w, 0, VFE_BLK_T_IN, 0, 512);
		show(w, 0);
		assert_int_equal(take(w, 0, WAIT_MS), r.head);
		assert_int_equal(*r.status, VFE_BLK_S_OK);
	}
	assert_true(wait_asleep(w, 0));
	bp_queue_stats(w->port, 0, &stats);
	assert_in_range(stats.kicks, 90, 201);
	assert_true(bp_queue_drain(w->port, 0));
	end(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_of_each_type),
		cmocka_unit_test(draining_lets_nothing_in_and_everything_out),
		cmocka_unit_test(what_hangs_is_abandoned_and_reclaimed),
		cmocka_unit_test(a_broken_ring_gets_its_requests_back),
		cmocka_unit_test(stops_under_load_lose_nothing),
		cmocka_unit_test(writes_are_told),
		cmocka_unit_test(requests_are_waited_for_only_so_long),
		cmocka_unit_test(disks_refuse_what_makes_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
