/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A vhost-user front-end that measures a disk: it keeps a number of reads or writes under way in
 * each queue, as a guest's driver does, for a fixed time.
 *
 * One thread has all queues. It sleeps until an interrupt comes, gives new requests for all that
 * are complete, and rings the doorbell once for them (or polls with --polled). Requests have
 * their descriptors in an indirect table and their data in pages of their own, as Linux does it.
 * One JSON object tells requests, time and latency, which is from the doorbell to the moment when
 * the driver sees the answer.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vfe_wire_blk.h"
#include "vhost_front.h"
#include "vhost_msg.h"

enum {
	PAGE = 4096,
	MAX_QUEUES = 8,
	MAX_DEPTH = 128,
	MAX_PAGES = 64, /* of a request */
	MAX_SECONDS = 3600,
	/* latencies are counted by their first significant bits: to 1 in 256 */
	SUB_BITS = 8,
	SUB = 1 << SUB_BITS,
	BUCKETS = (64 - SUB_BITS) * SUB,
	NO_STATUS = 0xff,
};

/* What the driver of a request has in its memory besides the data. */
struct frame {
	struct vhost_desc table[2 + MAX_PAGES];
	struct vfe_wire_blk_hdr hdr;
	uint8_t status;
};
_Static_assert(sizeof(struct frame) <= PAGE, "one page each");

struct slot {
	struct frame *frame;
	int64_t begin; /* ns; 0 = not under way */
};

struct queue {
	struct vhost_ring *ring;
	struct slot slots[MAX_DEPTH];
	uint64_t next;  /* block of a sequential request */
	uint16_t added; /* to the available ring, not yet told */
};

/* What is measured between the end of the warm-up and the end. */
struct counts {
	uint64_t requests;
	uint64_t kicks;
	uint64_t interrupts;
	int64_t sum; /* ns */
	int64_t longest;
	uint64_t by_time[BUCKETS];
};

static struct {
	const char *path;
	bool connect, write, sequential, polled, direct, pause;
	uint32_t queues, depth, block;
	double seconds, warm_up;
} opt = {.queues = 1, .depth = 1, .block = PAGE, .seconds = 1, .warm_up = 0.3};

static struct vhost_front front;
static struct queue queues[MAX_QUEUES];
static struct counts counts;
static uint64_t nr_blocks, random_state = 88172645463325252ULL;
static uint32_t under_way;

/* --- latencies --- */

static uint32_t
bucket_of(uint64_t ns)
{
	uint32_t shift;

	if (ns < SUB)
		return (uint32_t)ns;
	shift = 63 - SUB_BITS - (uint32_t)__builtin_clzll(ns);
	return (shift + 1) * SUB + (uint32_t)(ns >> shift) - SUB;
}

/* The middle of a bucket. */
static uint64_t
bucket_ns(uint32_t bucket)
{
	uint32_t shift = bucket / SUB;

	if (shift == 0)
		return bucket;
	shift--;
	return ((uint64_t)(SUB + bucket % SUB) << shift) + ((1ULL << shift) >> 1);
}

/* The latency that a part @share of all requests did not exceed. */
static uint64_t
quantile(double share)
{
	uint64_t wanted = (uint64_t)((double)counts.requests * share), seen = 0;
	uint32_t i;

	for (i = 0; i < BUCKETS; i++) {
		seen += counts.by_time[i];
		if (seen > wanted)
			return bucket_ns(i);
	}
	return (uint64_t)counts.longest;
}

/* --- requests --- */

static void
set_desc(struct vhost_desc *d, const void *at, uint32_t len, uint16_t flags)
{
	d->addr = front_gpa(&front, at);
	d->len = len;
	d->flags = flags;
}

/* All requests of a slot look the same but for the sector. */
static void
slot_create(struct queue *q, uint32_t index, uint8_t *frame, uint8_t *data)
{
	const uint16_t direction = opt.write ? 0 : DESC_WRITE;
	struct slot *slot = &q->slots[index];
	struct frame *f = (struct frame *)(void *)frame;
	uint32_t n = 0, at;

	slot->frame = f;
	f->hdr.type = htole32(opt.write ? VFE_BLK_T_OUT : VFE_BLK_T_IN);
	set_desc(&f->table[n++], &f->hdr, sizeof(f->hdr), DESC_NEXT);
	for (at = 0; at < opt.block; at += PAGE)
		set_desc(&f->table[n++], data + at, opt.block - at < PAGE ? opt.block - at : PAGE,
			DESC_NEXT | direction);
	set_desc(&f->table[n++], &f->status, 1, DESC_WRITE);
	for (at = 0; at + 1 < n; at++)
		f->table[at].next = (uint16_t)(at + 1);
	set_desc(&q->ring->desc[index], f->table, n * (uint32_t)sizeof(f->table[0]), DESC_INDIRECT);
	memset(data, (int)index + 1, opt.block);
}

static uint64_t
next_block(struct queue *q)
{
	if (opt.sequential)
		return q->next++ % nr_blocks;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % nr_blocks;
}

static void
request_add(struct queue *q, uint16_t index, int64_t now)
{
	struct slot *slot = &q->slots[index];
	struct vhost_ring *r = q->ring;

	slot->frame->hdr.sector = htole64(next_block(q) * (opt.block / VFE_BLK_SECTOR_SIZE));
	slot->frame->status = NO_STATUS;
	slot->begin = now;
	r->avail[2 + (uint16_t)(r->avail_idx + q->added) % FRONT_RING_SIZE] = index;
	q->added++;
	under_way++;
}

static uint16_t
load(const uint16_t *p)
{
	return atomic_load_explicit((const _Atomic uint16_t *)p, memory_order_relaxed);
}

/* Did the index pass the one at which the other end wants to hear of it (section 2.7.10)? */
static bool
passed(uint16_t event, uint16_t now, uint16_t before)
{
	return (uint16_t)(now - event - 1) < (uint16_t)(now - before);
}

static void
requests_submit(struct queue *q)
{
	struct vhost_ring *r = q->ring;
	const uint16_t *avail_event = &r->used[2 + 4 * FRONT_RING_SIZE];
	uint16_t before = r->avail_idx;
	bool kick;

	if (q->added == 0)
		return;
	front_publish(r, q->added);
	q->added = 0;
	if ((front.features & F_EVENT_IDX) != 0)
		kick = passed(load(avail_event), r->avail_idx, before);
	else
		kick = (load(&r->used[0]) & USED_NO_NOTIFY) == 0;
	/* a lent page is rung whether it is wanted or not: asking would cost more */
	if (!kick && !opt.direct)
		return;
	front_kick(r, (uint16_t)(q - queues), opt.direct);
	counts.kicks++;
}

static void
request_done(struct queue *q, uint32_t index, int64_t now)
{
	struct slot *slot = &q->slots[index];
	int64_t ns;

	errno = EPROTO;
	if (index >= opt.depth || slot->begin == 0)
		die("a request was given back that is not under way");
	errno = EIO;
	if (slot->frame->status != VFE_BLK_S_OK)
		die("a request failed");
	ns = now - slot->begin;
	slot->begin = 0;
	under_way--;
	counts.requests++;
	counts.sum += ns;
	if (ns > counts.longest)
		counts.longest = ns;
	counts.by_time[bucket_of((uint64_t)ns)]++;
}

/* Take what is complete; @again: put new requests in its place. False when there was nothing. */
static bool
queue_visit(struct queue *q, bool again)
{
	struct vhost_ring *r = q->ring;
	uint16_t seen = front_used_idx(r);
	int64_t now;
	uint32_t index;

	if (seen == r->last_used)
		return false;
	now = now_ns();
	for (; r->last_used != seen; r->last_used++) {
		memcpy(&index, &r->used[2 + 4 * (r->last_used % FRONT_RING_SIZE)], sizeof(index));
		request_done(q, index, now);
		if (again)
			request_add(q, (uint16_t)index, now);
	}
	requests_submit(q);
	return true;
}

/* Ask for an interrupt at the next answer. */
static void
queue_arm(struct queue *q)
{
	uint16_t *used_event = &q->ring->avail[2 + FRONT_RING_SIZE];

	atomic_store_explicit(
		(_Atomic uint16_t *)used_event, q->ring->last_used, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
}

static void
await_interrupt(void)
{
	struct pollfd fds[MAX_QUEUES];
	uint64_t count;
	uint32_t i;

	for (i = 0; i < opt.queues; i++)
		fds[i] = (struct pollfd){.fd = queues[i].ring->call, .events = POLLIN};
	errno = ETIMEDOUT;
	if (poll(fds, opt.queues, VHOST_TIMEOUT_MS) < 1)
		die("no answer");
	for (i = 0; i < opt.queues; i++) {
		if (fds[i].revents == 0)
			continue;
		if (read(fds[i].fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			die("call");
		counts.interrupts++;
	}
}

/* Visit all queues until something is complete. */
static void
round_of_visits(bool again)
{
	int64_t end = 0;
	bool any = false;
	uint32_t i, idle;

	for (idle = 0; !any; idle++) {
		for (i = 0; i < opt.queues; i++)
			any |= queue_visit(&queues[i], again);
		if (any)
			break;
		if (opt.polled) {
			if (idle % 1000000 != 0)
				continue;
			errno = ETIMEDOUT;
			if (end == 0)
				end = now_ns() + VHOST_TIMEOUT_MS * INT64_C(1000000);
			else if (now_ns() > end)
				die("no answer");
			continue;
		}
		for (i = 0; i < opt.queues; i++) {
			queue_arm(&queues[i]);
			any |= front_used_idx(queues[i].ring) != queues[i].ring->last_used;
		}
		if (!any)
			await_interrupt();
		any = false;
	}
}

/* --- the measurement --- */

static void
memory_open(void)
{
	uint64_t features = F_INDIRECT | (opt.polled ? 0 : F_EVENT_IDX) | 1ULL << VFE_BLK_F_MQ |
			    1ULL << VFE_BLK_F_FLUSH | 1ULL << VFE_BLK_F_SEG_MAX |
			    1ULL << VFE_BLK_F_SIZE_MAX | 1ULL << VFE_BLK_F_BLK_SIZE |
			    1ULL << VFE_BLK_F_CONFIG_WCE;
	uint32_t nr_slots = opt.queues * opt.depth, i, j;
	uint64_t data = (uint64_t)opt.queues * FRONT_RING_SPACE + (uint64_t)nr_slots * PAGE;
	uint64_t stride = (opt.block + PAGE - 1) / PAGE * PAGE;
	struct vfe_wire_blk_config config;
	uint8_t *frames;

	front_open(&front, opt.path, opt.connect, features, data + nr_slots * stride);
	errno = EPROTO;
	if ((front.features & F_INDIRECT) == 0)
		die("the back end has no indirect descriptors");
	front_get_config(&front, &config, sizeof(config) - 12);
	nr_blocks = le64toh(config.capacity) / (opt.block / VFE_BLK_SECTOR_SIZE);
	errno = ENOSPC;
	if (nr_blocks == 0)
		die("the disk is smaller than a request");
	if (opt.queues > 1 && le16toh(config.num_queues) < opt.queues)
		die("the disk has fewer queues");
	frames = front.mem + opt.queues * FRONT_RING_SPACE;
	for (i = 0; i < opt.queues; i++) {
		queues[i].ring = front_add_ring(&front, front.mem + i * FRONT_RING_SPACE);
		queues[i].next = nr_blocks / opt.queues * i;
		for (j = 0; j < opt.depth; j++) {
			uint32_t n = i * opt.depth + j;

			slot_create(&queues[i], j, frames + (size_t)n * PAGE,
				front.mem + data + n * stride);
		}
		queues[i].ring->avail[0] = opt.polled ? AVAIL_NO_INTERRUPT : 0;
	}
	front_start(&front, opt.direct);
}

static void
print_result(int64_t ns)
{
	double seconds = (double)ns / 1e9, n = (double)counts.requests;

	errno = ENODATA;
	if (counts.requests == 0)
		die("nothing was complete in time");
	printf("{\"requests\": %" PRIu64 ", \"seconds\": %.6f, \"iops\": %.1f, \"mib_s\": %.3f, "
	       "\"mean_ns\": %.0f, \"median_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64
	       ", \"p999_ns\": %" PRIu64 ", \"max_ns\": %" PRId64 ", \"kicks\": %" PRIu64
	       ", \"interrupts\": %" PRIu64 "}\n",
		counts.requests, seconds, n / seconds, n * opt.block / seconds / (1 << 20),
		(double)counts.sum / n, quantile(0.5), quantile(0.99), quantile(0.999),
		counts.longest, counts.kicks, counts.interrupts);
	fflush(stdout);
}

static void
measure(void)
{
	int64_t now = now_ns(), begin = now + (int64_t)(opt.warm_up * 1e9), end;
	uint32_t i, j;

	for (i = 0; i < opt.queues; i++) {
		for (j = 0; j < opt.depth; j++)
			request_add(&queues[i], (uint16_t)j, now);
		requests_submit(&queues[i]);
	}
	while (now_ns() < begin)
		round_of_visits(true);
	memset(&counts, 0, sizeof(counts));
	begin = now_ns();
	end = begin + (int64_t)(opt.seconds * 1e9);
	do {
		round_of_visits(true);
		now = now_ns();
	} while (now < end);
	print_result(now - begin);
	while (under_way > 0)
		round_of_visits(false);
}

/* --- options --- */

static void
usage(void)
{
	fputs("usage: vhost-blk --socket PATH [--connect] [--write] [--sequential] [--block "
	      "BYTES]\n"
	      "                 [--depth N] [--queues N] [--seconds S] [--warm-up S] [--polled]\n"
	      "                 [--direct] [--cpu N] [--wait]\n"
	      "\n"
	      "  --socket PATH  listen here for the back end, or --connect to it\n"
	      "  --write        write; the disk's contents are lost. Else read\n"
	      "  --sequential   one block after the other. Else at random places\n"
	      "  --block BYTES  of a request (default 4096)\n"
	      "  --depth N      requests under way in each queue (default 1)\n"
	      "  --queues N     (default 1)\n"
	      "  --polled       look at the rings all the time instead of waiting for interrupts\n"
	      "  --direct       ring the doorbell pages that the back end lends\n"
	      "  --wait         measure after a line on the input, end after another\n",
		stderr);
}

static bool
parse_number(const char *text, uint32_t most, uint32_t *ret)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	*ret = (uint32_t)value;
	return *text != '\0' && *end == '\0' && value >= 1 && value <= most;
}

static bool
parse_seconds(const char *text, double *ret)
{
	char *end;

	*ret = strtod(text, &end);
	return *text != '\0' && *end == '\0' && *ret >= 0 && *ret <= MAX_SECONDS;
}

static bool
parse_option(int c)
{
	switch (c) {
	case 's':
		opt.path = optarg;
		return true;
	case 'C':
		return opt.connect = true;
	case 'w':
		return opt.write = true;
	case 'S':
		return opt.sequential = true;
	case 'p':
		return opt.polled = true;
	case 'D':
		return opt.direct = true;
	case 'W':
		return opt.pause = true;
	case 'b':
		return parse_number(optarg, MAX_PAGES * PAGE, &opt.block) &&
		       opt.block % VFE_BLK_SECTOR_SIZE == 0;
	case 'd':
		return parse_number(optarg, MAX_DEPTH, &opt.depth);
	case 'q':
		return parse_number(optarg, MAX_QUEUES, &opt.queues);
	case 't':
		return parse_seconds(optarg, &opt.seconds);
	case 'u':
		return parse_seconds(optarg, &opt.warm_up);
	case 'c':
		pin((int)strtol(optarg, NULL, 10));
		return true;
	default:
		return false;
	}
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"socket", required_argument, NULL, 's'},
		{"connect", no_argument, NULL, 'C'},
		{"write", no_argument, NULL, 'w'},
		{"sequential", no_argument, NULL, 'S'},
		{"block", required_argument, NULL, 'b'},
		{"depth", required_argument, NULL, 'd'},
		{"queues", required_argument, NULL, 'q'},
		{"seconds", required_argument, NULL, 't'},
		{"warm-up", required_argument, NULL, 'u'},
		{"polled", no_argument, NULL, 'p'},
		{"direct", no_argument, NULL, 'D'},
		{"cpu", required_argument, NULL, 'c'},
		{"wait", no_argument, NULL, 'W'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (!parse_option(c)) {
			usage();
			return 2;
		}
	}
	if (opt.path == NULL || optind != argc) {
		usage();
		return 2;
	}
	memory_open();
	printf("ready\n");
	fflush(stdout);
	if (opt.pause && getchar() == EOF)
		return 0;
	measure();
	if (opt.pause)
		getchar();
	return 0;
}
