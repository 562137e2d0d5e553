/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * How fast the data path of the controller is, without anything around it: a thread fills and
 * empties the rings the way a polling driver does, a polling worker of the data path is the device.
 * For tuning; the figures that count come from scripts/bench, with a real driver. The driver takes
 * the time of each 16384 packets, less than a scheduler's time slice: the best tenth of these says
 * what the code can do even when the machine does other things as well.
 * Each row comes twice: as it is, and with dirty pages being tracked in a pulled bitmap.
 *
 * usage: datapath-bench [null|loopback|all] [MILLISECONDS [DRIVER_CPU WORKER_CPU]]
 */

#include <ev.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "datapath.h"
#include "dirty.h"
#include "vfe_wire_net.h"

enum {
	RING = 1024,
	BURST = 32,
	CIRCLING = 4 * BURST, /* packets under way in the echo rows */
	STRIDE = 2304,        /* of a packet buffer */
	HEADROOM = 128,
	HDR = sizeof(struct vfe_wire_net_hdr),
	IOVA = 0x40000000,
	MEMORY = 64 << 20,
	SLICE = 16384, /* packets */
	MAX_SLICES = 1 << 20,
};

struct ring {
	struct vfe_wire_vring_desc *desc;
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	uint16_t avail_idx;
	uint16_t used_idx;
	uint8_t *buf[RING]; /* by descriptor */
	uint64_t offset;
};

static uint8_t *memory;
static uint64_t memory_used;
static struct ring rx, tx;
static uint8_t *pool[4 * RING];
static uint32_t nr_pool;
static uint32_t size;
static bool echo, tracked;
static atomic_bool stop;
static double rates[MAX_SLICES]; /* Mpps */
static uint32_t nr_rates;

static void *
take(uint64_t bytes)
{
	void *p = memory + memory_used;

	memory_used = vfe_align_up(memory_used + bytes, 128);
	if (memory_used > MEMORY)
		abort();
	return p;
}

static void
ring_init(struct ring *r)
{
	memset(r, 0, sizeof(*r));
	r->offset = memory_used;
	r->desc = take(vfe_vring_desc_bytes(RING));
	r->avail = take(vfe_vring_avail_bytes(RING));
	r->used = take(vfe_vring_used_bytes(RING));
	memset(memory + r->offset, 0, memory_used - r->offset);
	r->avail->flags = VFE_VRING_AVAIL_F_NO_INTERRUPT;
}

static struct vfe_vring_cfg
ring_cfg(const struct ring *r)
{
	return (struct vfe_vring_cfg){
		.size = RING,
		.desc = IOVA + (uint64_t)((uint8_t *)r->desc - memory),
		.driver = IOVA + (uint64_t)((uint8_t *)r->avail - memory),
		.device = IOVA + (uint64_t)((uint8_t *)r->used - memory),
		.features = VFE_BIT(VFE_VIRTIO_F_VERSION_1),
	};
}

static uint16_t
ring_used(const struct ring *r)
{
	return (uint16_t)(__atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE) - r->used_idx);
}

static void
ring_put(struct ring *r, uint16_t id, uint8_t *buf, uint32_t len, bool write)
{
	uint8_t *start = buf + HEADROOM - HDR;

	r->buf[id] = buf;
	r->desc[id].addr = IOVA + (uint64_t)(start - memory);
	r->desc[id].len = len;
	r->desc[id].flags = write ? VFE_VRING_DESC_F_WRITE : 0;
	r->avail->ring[r->avail_idx++ % RING] = id;
}

static void
ring_show(struct ring *r)
{
	__atomic_store_n(&r->avail->idx, r->avail_idx, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(&r->used->flags, __ATOMIC_RELAXED) & VFE_VRING_USED_F_NO_NOTIFY))
		abort();
}

/* Free descriptors come back in the order in which they went. */
static void
transmit(uint8_t **bufs, uint32_t n)
{
	static const struct vfe_wire_net_hdr zero;
	uint16_t used = ring_used(&tx), id;
	uint32_t i;

	if (used > RING / 2) {
		while (used-- > 0) {
			id = (uint16_t)tx.used->ring[tx.used_idx++ % RING].id;
			pool[nr_pool++] = tx.buf[id];
		}
	}
	for (i = 0; i < n; i++) {
		if ((uint16_t)(tx.avail_idx - tx.used_idx) == RING) {
			pool[nr_pool++] = bufs[i];
			continue;
		}
		memcpy(bufs[i] + HEADROOM - HDR, &zero, HDR);
		ring_put(&tx, tx.avail_idx % RING, bufs[i], size + HDR, false);
	}
	ring_show(&tx);
}

static uint32_t
receive(uint8_t **bufs)
{
	uint32_t n = ring_used(&rx), i;
	uint16_t id;

	if (n > BURST)
		n = BURST;
	for (i = 0; i < n; i++) {
		id = (uint16_t)rx.used->ring[rx.used_idx++ % RING].id;
		bufs[i] = rx.buf[id];
		/* as a driver does that looks at the packet's header */
		__atomic_load_n((uint32_t *)(void *)(bufs[i] + HEADROOM - HDR), __ATOMIC_RELAXED);
		ring_put(&rx, id, pool[--nr_pool], STRIDE - HEADROOM, true);
	}
	if (n > 0)
		ring_show(&rx);
	return n;
}

/* Account for @n packets more. */
static void
progress(uint32_t n)
{
	static uint64_t packets, since;
	uint64_t now;

	packets += n;
	if (packets < SLICE && n > 0)
		return;
	now = vfe_clock_ns();
	if (n > 0 && nr_rates < MAX_SLICES)
		rates[nr_rates++] = (double)packets * 1e3 / (double)(now - since);
	packets = 0;
	since = now;
}

static void
drive_one_way(void)
{
	uint8_t *bufs[BURST];
	uint32_t i;

	if ((uint16_t)(tx.avail_idx - tx.used_idx) + BURST > RING && ring_used(&tx) <= RING / 2)
		return;
	for (i = 0; i < BURST; i++) {
		bufs[i] = pool[--nr_pool];
		memset(bufs[i] + HEADROOM, (int)i, 64);
	}
	transmit(bufs, BURST);
	progress(BURST);
}

static void
drive_echo(void)
{
	uint8_t *bufs[BURST];
	uint32_t n = receive(bufs);

	if (n > 0) {
		transmit(bufs, n);
		progress(n);
	}
}

static void *
driver_main(void *arg)
{
	uint8_t *bufs[BURST];
	uint32_t i, n;

	(void)arg;
	nr_rates = 0;
	for (n = 0; echo && n < CIRCLING; n += BURST) {
		for (i = 0; i < BURST; i++)
			bufs[i] = pool[--nr_pool];
		transmit(bufs, BURST);
	}
	progress(0);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (echo)
			drive_echo();
		else
			drive_one_way();
	}
	return NULL;
}

static void
check(int rc, const struct vfe_error *err)
{
	if (rc < 0) {
		fprintf(stderr, "datapath-bench: %s\n", err->text);
		exit(1);
	}
}

static void
fill(struct vfe_iova_map **map)
{
	const struct vfe_iova_region region = {
		IOVA, MEMORY, memory, VFE_IOVA_READ | VFE_IOVA_WRITE};
	struct vfe_error err;
	uint16_t i;

	memory_used = 0;
	nr_pool = 0;
	ring_init(&rx);
	ring_init(&tx);
	while (nr_pool < VFE_ARRAY_SIZE(pool))
		pool[nr_pool++] = take(STRIDE);
	for (i = 0; i < RING; i++)
		ring_put(&rx, i, pool[--nr_pool], STRIDE - HEADROOM, true);
	rx.avail->idx = rx.avail_idx;
	check(vfe_iova_map_create(&region, 1, map, &err), &err);
}

/* Tracking needs no more of a function than this. */

static void
set_watch(struct function *fn, const struct vfe_vring_watch *watch)
{
	dp_port_set_watch(fn->type_data, watch);
}

static const struct function_type type = {.set_watch = set_watch};
static struct config config = {.dirty_modes = 1u << VFE_ADMIN_TRACK_PULL_BITMAP};
static struct function_env env = {.config = &config};
static struct function vf = {.env = &env, .type = &type, .pf = &vf};

static void
track(struct dp_port *port)
{
	const struct vfe_wire_admin_track_start in = {
		.mode = VFE_ADMIN_TRACK_PULL_BITMAP,
		.page_size = 4096,
		.range_length = IOVA + MEMORY,
	};
	struct vfe_error err;

	vf.type_data = port;
	check(dirty_start(&vf, &in, NULL, 0, &err), &err);
}

static int
compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static void
run(struct dp_engine *engine, enum dp_backend backend, long ms, int cpu)
{
	const struct dp_port_cfg port_cfg = {.name = "bench", .backend = backend, .max_pairs = 1};
	struct dp_queue_cfg cfg = {.kick_fd = -1, .call_fd = -1};
	const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
	struct vfe_iova_map *map;
	struct dp_port *port;
	struct vfe_error err;
	pthread_t thread;
	cpu_set_t cpus;

	fill(&map);
	echo = backend == DP_BACKEND_LOOPBACK;
	check(dp_port_create(engine, &port_cfg, &port, &err), &err);
	dp_port_set_map(port, map);
	cfg.ring = ring_cfg(&rx);
	check(dp_queue_start(port, 0, &cfg, &err), &err);
	cfg.ring = ring_cfg(&tx);
	check(dp_queue_start(port, 1, &cfg, &err), &err);
	if (tracked)
		track(port);

	CPU_ZERO(&cpus);
	CPU_SET((size_t)cpu, &cpus);
	atomic_store(&stop, false);
	pthread_create(&thread, NULL, driver_main, NULL);
	pthread_setaffinity_np(thread, sizeof(cpus), &cpus);
	nanosleep(&pause, NULL);
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	qsort(rates, nr_rates, sizeof(rates[0]), compare);
	if (nr_rates > 0)
		printf("%-8s %4u B %-7s   best tenth %6.2f   median %6.2f Mpps\n",
			echo ? "loopback" : "null", size, tracked ? "tracked" : "",
			rates[nr_rates - 1 - nr_rates / 10], rates[nr_rates / 2]);
	dirty_destroy(&vf);
	dp_port_destroy(port);
	vfe_iova_map_free(map);
}

int
main(int argc, char **argv)
{
	static const uint32_t sizes[] = {64, 512, 1518};
	const char *what = argc > 1 ? argv[1] : "all";
	const long ms = argc > 2 ? strtol(argv[2], NULL, 10) : 1000;
	const int driver_cpu = argc > 4 ? (int)strtol(argv[3], NULL, 10) : 0;
	const int worker_cpu = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 1;
	const struct dp_engine_cfg cfg = {.nr_workers = 1, .cpus = &worker_cpu, .polling = true};
	struct dp_engine *engine;
	struct vfe_error err;
	size_t i;

	if (ms < 1 || ms > 100000) {
		fprintf(stderr, "usage: datapath-bench [null|loopback|all] [MILLISECONDS "
				"[DRIVER_CPU WORKER_CPU]]\n");
		return 2;
	}
	memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (memory == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	check(dp_engine_create(ev_default_loop(0), &cfg, &engine, &err), &err);
	for (i = 0; i < 2 * VFE_ARRAY_SIZE(sizes); i++) {
		size = sizes[i / 2];
		tracked = i % 2 == 1;
		if (strcmp(what, "loopback") != 0)
			run(engine, DP_BACKEND_NULL, ms, driver_cpu);
		if (strcmp(what, "null") != 0)
			run(engine, DP_BACKEND_LOOPBACK, ms, driver_cpu);
	}
	dp_engine_destroy(engine);
	return 0;
}
