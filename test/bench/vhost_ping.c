/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A vhost-user front-end that measures a net back end which returns what it gets: round trips of
 * one packet, event driven or polled, and the price of a doorbell.
 *
 * It listens on a UNIX socket like QEMU with server=on, sets up one queue pair in a memfd and
 * prints one JSON object. Each measured value is of one round trip: doorbell, back end, reply.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vhost_front.h"
#include "vhost_msg.h"

enum {
	NR_QUEUES = 2, /* 0 receives, 1 transmits */
	BUF_SIZE = 2048,
	NET_HDR_SIZE = 12,
	MAX_HOPS = 8,
	PAGE = 4096,
	BUFS = NR_QUEUES * FRONT_RING_SPACE, /* place in memory */
	MEM_SIZE = BUFS + NR_QUEUES * FRONT_RING_SIZE * BUF_SIZE,
};

static struct vhost_front front;

static void
queue_create(uint32_t index)
{
	struct vhost_ring *r = front_add_ring(&front, front.mem + index * FRONT_RING_SPACE);
	uint32_t i, at = BUFS + index * FRONT_RING_SIZE * BUF_SIZE;

	for (i = 0; i < FRONT_RING_SIZE; i++) {
		r->desc[i].addr = at + i * BUF_SIZE;
		r->desc[i].len = BUF_SIZE;
		r->desc[i].flags = index == 0 ? DESC_WRITE : 0;
		r->avail[2 + i] = (uint16_t)i;
	}
}

static void
start(const char *path, bool direct)
{
	uint32_t i;

	front_open(&front, path, false, 0, MEM_SIZE);
	for (i = 0; i < NR_QUEUES; i++)
		queue_create(i);
	front_start(&front, direct);
}

static bool
replied(const struct vhost_ring *q)
{
	return front_used_idx(q) != q->last_used;
}

static void
await_packet(struct vhost_ring *q, bool polled)
{
	struct pollfd fd = {.fd = q->call, .events = POLLIN};
	int64_t end = now_ns() + VHOST_TIMEOUT_MS * INT64_C(1000000);
	uint64_t count;

	while (!replied(q)) {
		errno = ETIMEDOUT;
		if (polled) {
			if (now_ns() > end)
				die("no packet came back");
			continue;
		}
		if (poll(&fd, 1, VHOST_TIMEOUT_MS) != 1)
			die("no packet came back");
		if (read(q->call, &count, sizeof(count)) < 0 && errno != EAGAIN)
			die("call");
	}
	q->last_used++;
}

/*
 * One packet there and back, or @seen: there, until its buffer is given back. Buffers are used in
 * ring order and given back at once. With @direct the doorbell is rung whether it is wanted or not.
 */
static int64_t
round_trip(bool polled, bool direct, bool seen)
{
	struct vhost_ring *rx = &front.rings[0], *tx = &front.rings[1];
	int64_t begin = now_ns();

	tx->desc[tx->avail_idx % FRONT_RING_SIZE].len = NET_HDR_SIZE + 64;
	front_publish(tx, 1);
	if (direct || (tx->used[0] & USED_NO_NOTIFY) == 0)
		front_kick(&front.rings[1], 1, direct);
	await_packet(seen ? tx : rx, polled);
	begin = now_ns() - begin;
	if (seen)
		return begin;
	rx->avail[2 + rx->avail_idx % FRONT_RING_SIZE] =
		(uint16_t)(rx->avail_idx % FRONT_RING_SIZE);
	tx->last_used = tx->used[1];
	front_publish(rx, 1);
	return begin;
}

static int
compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void
measure_round_trips(long count, bool polled, bool direct, bool seen)
{
	int64_t *ns = calloc((size_t)count, sizeof(*ns));
	long i;

	if (ns == NULL)
		die("calloc");
	for (i = 0; i < count / 10 + 1; i++)
		round_trip(polled, direct, seen);
	for (i = 0; i < count; i++)
		ns[i] = round_trip(polled, direct, seen);
	qsort(ns, (size_t)count, sizeof(*ns), compare);
	printf("{\"round_trips\": %ld, \"polled\": %s, \"direct\": %s, \"min_ns\": %lld, "
	       "\"median_ns\": %lld, \"p99_ns\": %lld}\n",
		count, polled ? "true" : "false", direct ? "true" : "false", (long long)ns[0],
		(long long)ns[count / 2], (long long)ns[count - 1 - count / 100]);
	free(ns);
}

/* What ringing costs the driver; the ring stays empty, so the device only looks. */
static void
measure_doorbells(long count, bool direct)
{
	int64_t begin;
	long i;

	for (i = 0; i < 1000; i++)
		front_kick(&front.rings[1], 1, direct);
	begin = now_ns();
	for (i = 0; i < count; i++)
		front_kick(&front.rings[1], 1, direct);
	begin = now_ns() - begin;
	printf("{\"doorbells\": %ld, \"direct\": %s, \"mean_ns\": %.1f}\n", count,
		direct ? "true" : "false", (double)begin / (double)count);
}

/* Also the end of the other processes: nobody else may be there to reap them. */
static void
print_floor(const char *what, int64_t *ns, long count)
{
	while (wait(NULL) > 0)
		;
	qsort(ns, (size_t)count, sizeof(*ns), compare);
	printf("{\"floor\": \"%s\", \"median_ns\": %lld}\n", what, (long long)ns[count / 2]);
	free(ns);
}

/* One process of the chain: hands on whatever comes. It ends with the write end before it. */
static _Noreturn void
hand_on(int from, int to)
{
	uint64_t v;

	while (read(from, &v, sizeof(v)) == sizeof(v) && v < UINT64_MAX / 2) {
		if (write(to, &v, sizeof(v)) != sizeof(v))
			_exit(1);
	}
	/* the last message: hand it on too, so that the next one ends */
	_exit(write(to, &v, sizeof(v)) != sizeof(v));
}

/*
 * The least a packet and its reply can cost when everybody sleeps: eventfds through @hops - 1 other
 * processes and back, all on one CPU.
 */
static void
measure_hops(long count, long hops)
{
	int64_t *ns = calloc((size_t)count, sizeof(*ns));
	uint64_t v = UINT64_MAX / 2;
	int fds[MAX_HOPS];
	long i;

	for (i = 0; i < hops; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC);
	for (i = 1; i < hops; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			hand_on(fds[i - 1], fds[i]);
		}
	}
	if (ns == NULL)
		die("calloc");
	for (i = 0; i < count; i++) {
		uint64_t one = 1;

		ns[i] = now_ns();
		if (write(fds[0], &one, sizeof(one)) != sizeof(one) ||
			read(fds[hops - 1], &one, sizeof(one)) != sizeof(one))
			die("eventfd");
		ns[i] = now_ns() - ns[i];
	}
	if (write(fds[0], &v, sizeof(v)) != sizeof(v))
		die("eventfd");
	print_floor("hops", ns, count);
}

/*
 * The other end of measure_lines(). Either end gives up when the other one is gone for long: a
 * machine that is too busy must not be kept busy by us.
 */
static bool
await_line(const _Atomic uint64_t *line, uint64_t value)
{
	int64_t end = 0;
	unsigned int i;

	for (i = 1; atomic_load_explicit(line, memory_order_acquire) != value; i++) {
		if (i % 1000000 != 0)
			continue;
		if (end == 0)
			end = now_ns() + VHOST_TIMEOUT_MS * INT64_C(1000000);
		else if (now_ns() > end)
			return false;
	}
	return true;
}

/* The same when both ends poll: one cache line there, another one back. */
static void
measure_lines(long count, int cpu)
{
	_Atomic uint64_t *line = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	_Atomic uint64_t *back = line + 16;
	int64_t *ns = calloc((size_t)count, sizeof(*ns));
	int ready = eventfd(0, EFD_CLOEXEC);
	uint64_t i = 1;
	pid_t pid;

	if (line == MAP_FAILED || ns == NULL || ready < 0 || (pid = fork()) < 0)
		die("floor");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(cpu);
		if (write(ready, &i, sizeof(i)) != sizeof(i))
			_exit(1);
		for (i = 1; i <= (uint64_t)count && await_line(line, i); i++)
			atomic_store_explicit(back, i, memory_order_release);
		_exit(0);
	}
	/* not a spin: the child has to leave this CPU first */
	if (read(ready, &i, sizeof(i)) != sizeof(i))
		die("floor");
	for (i = 1; i <= (uint64_t)count; i++) {
		int64_t begin = now_ns();

		atomic_store_explicit(line, i, memory_order_release);
		errno = ETIMEDOUT;
		if (!await_line(back, i))
			die("floor");
		ns[i - 1] = now_ns() - begin;
	}
	print_floor("lines", ns, count);
}

static void
usage(void)
{
	fputs("usage: vhost-ping --socket PATH [--direct] [--polled] [--doorbells | --seen] "
	      "[--wait]\n"
	      "                  [--cpu N] [--count N]\n"
	      "       vhost-ping --floor-hops N | --floor-lines CPU [--cpu N] [--count N]\n"
	      "\n"
	      "  --socket PATH      listen here for the back end\n"
	      "  --direct           ring the doorbell page that the back end lends\n"
	      "  --polled           look at the ring instead of waiting for the call eventfd\n"
	      "  --doorbells        measure doorbells alone instead of round trips\n"
	      "  --seen             until the packet's buffer is given back, whatever becomes of "
	      "it\n"
	      "  --wait             measure after a line on the input, end after another\n"
	      "  --floor-hops N     round trip of eventfds with N wake-ups, all on one CPU\n"
	      "  --floor-lines CPU  round trip of polled cache lines with another CPU\n",
		stderr);
}

static void
run(const char *path, long count, bool polled, bool direct, bool bells, bool seen, bool pause)
{
	start(path, direct);
	/* what went out is looked at later, and who polls wants no interrupts at all */
	front.rings[1].avail[0] = AVAIL_NO_INTERRUPT;
	front.rings[0].avail[0] = polled ? AVAIL_NO_INTERRUPT : 0;
	front_publish(&front.rings[0], FRONT_RING_SIZE - 1);
	printf("ready\n");
	fflush(stdout);
	if (pause && getchar() == EOF)
		return;
	if (bells)
		measure_doorbells(count, direct);
	else
		measure_round_trips(count, polled, direct, seen);
	fflush(stdout);
	/* whoever watches the back end stops before it sees the disconnect */
	if (pause)
		getchar();
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"direct", no_argument, NULL, 'd'},
		{"polled", no_argument, NULL, 'p'},
		{"doorbells", no_argument, NULL, 'b'},
		{"seen", no_argument, NULL, 'S'},
		{"cpu", required_argument, NULL, 'c'},
		{"count", required_argument, NULL, 'n'},
		{"wait", no_argument, NULL, 'w'},
		{"floor-hops", required_argument, NULL, 'h'},
		{"floor-lines", required_argument, NULL, 'l'},
		{NULL, 0, NULL, 0},
	};
	bool direct = false, polled = false, bells = false, seen = false, pause = false;
	long count = 10000, hops = 0, cpu = -1;
	const char *path = NULL;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			path = optarg;
			break;
		case 'd':
			direct = true;
			break;
		case 'p':
			polled = true;
			break;
		case 'b':
			bells = true;
			break;
		case 'S':
			seen = true;
			break;
		case 'c':
			pin((int)strtol(optarg, NULL, 10));
			break;
		case 'n':
			count = strtol(optarg, NULL, 10);
			break;
		case 'w':
			pause = true;
			break;
		case 'h':
			hops = strtol(optarg, NULL, 10);
			break;
		case 'l':
			cpu = strtol(optarg, NULL, 10);
			break;
		default:
			usage();
			return 2;
		}
	}
	if (count < 1 || hops == 1 || hops > MAX_HOPS || (path == NULL && hops < 2 && cpu < 0)) {
		usage();
		return 2;
	}
	if (path != NULL)
		run(path, count, polled, direct, bells, seen, pause);
	else if (hops > 0)
		measure_hops(count, hops);
	else
		measure_lines(count, (int)cpu);
	return 0;
}
