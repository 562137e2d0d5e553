/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block half of the data path: disks, and ports whose queues carry virtio-blk requests to them
 * (virtio 1.4 section 5.2.6). It runs on the workers of datapath.h, whose thread rules hold here.
 *
 * Unlike packets, requests are with the back end for a while, and complete in any order. So a queue
 * is stopped in two steps: draining (nothing more is taken; told when everything has come back),
 * then the stop, which finds nothing in flight. What is still in flight at a stop is abandoned: its
 * requests are never given back, and the queue cannot start again before the back end is done.
 */

#ifndef BLKPATH_H
#define BLKPATH_H

#include <stdbool.h>
#include <stdint.h>

#include "datapath.h"

enum {
	BP_MAX_QUEUES = 256,
	BP_NAME_SIZE = 64,  /* of a disk, with the final 0 */
	BP_PATH_SIZE = 256, /* of a file, likewise */
	BP_ID_SIZE = 20,    /* what GET_ID answers; not terminated */
	BP_SECTOR_SIZE = 512,
	BP_MAX_SEGS = 32,                   /* ranges of one DISCARD or WRITE_ZEROES */
	BP_MAX_RANGE_SECTORS = 1 << 22,     /* of one range: 2 GiB */
	BP_MAX_DATA = 1 << 30,              /* bytes of one read or write */
	BP_SETTLE_MS = 1000,                /* bound of the waits below */
	BP_MIN_BLOCK_SIZE = BP_SECTOR_SIZE, /* logical block size: a power of two from, to */
	BP_MAX_BLOCK_SIZE = 65536,
};

#define BP_MAX_MEMORY (64ULL << 30) /* bytes of a memory disk */

enum bp_disk_type {
	BP_DISK_NULL,   /* reads leave the guest's buffer as it is, writes vanish */
	BP_DISK_MEMORY, /* contents are gone with the disk */
	BP_DISK_FILE,   /* raw image or block device; several disks and processes may share it */
};

enum bp_io {
	BP_IO_AUTO, /* io_uring, or threads when that is not allowed here */
	BP_IO_URING,
	BP_IO_THREADS,
};

struct bp_disk;
struct bp_port;

/* --- disks: control thread --- */

struct bp_disk_cfg {
	const char *name; /* unique within the engine */
	enum bp_disk_type type;
	const char *path;    /* file only */
	uint64_t size;       /* bytes; file: 0 = as large as it is, else it is created or grown */
	uint32_t block_size; /* logical, as the guest sees it */
	bool read_only;
	bool buffered; /* file: through the page cache, no direct I/O */
	enum bp_io io; /* file only */
};

struct bp_disk_info {
	const char *name;
	const char *path; /* "" unless a file */
	enum bp_disk_type type;
	enum bp_io io; /* file: what was found, never AUTO */
	uint64_t size;
	uint32_t block_size;
	uint32_t physical_block_size;
	uint32_t direct_align; /* bytes; 0 = buffered */
	bool read_only;
	unsigned int users; /* ports */
	uint64_t syncs;     /* flushes that reached the file */
};

/* 0, -EEXIST (name is taken), -EINVAL, or why the file cannot be used, with a text. */
int bp_disk_create(struct dp_engine *engine, const struct bp_disk_cfg *cfg, struct bp_disk **ret,
	struct vfe_error *err);

/* 0, or -EBUSY while a port uses it. */
int bp_disk_destroy(struct bp_disk *disk, struct vfe_error *err);

struct bp_disk *bp_disk_find(struct dp_engine *engine, const char *name);

/* The disk after @disk, the first one for NULL; NULL at the end. */
struct bp_disk *bp_disk_next(struct dp_engine *engine, const struct bp_disk *disk);

void bp_disk_info(const struct bp_disk *disk, struct bp_disk_info *ret);

/* Is it so that a driver gets an error for every write? */
bool bp_disk_read_only(const struct bp_disk *disk);

/*
 * A new size: @size bytes (null, memory), or what the file has now (@size 0). Requests that are
 * taken from now on are checked against it; drivers are told by the owner of their ports.
 */
int bp_disk_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err);

enum bp_inject_action {
	BP_INJECT_NONE,
	BP_INJECT_FAIL, /* the back end says EIO */
	BP_INJECT_HOLD, /* the request waits until there is another action */
};

enum {
	BP_INJECT_READ = 1,
	BP_INJECT_WRITE = 2,
	BP_INJECT_FLUSH = 4,
	BP_INJECT_DISCARD = 8,
	BP_INJECT_ZEROES = 16,
};

/* Test knob: what happens to requests that touch a range. */
struct bp_inject {
	enum bp_inject_action action;
	uint32_t ops;   /* BP_INJECT_*, at least one */
	uint32_t every; /* only each n-th that matches; 1 = all */
	uint64_t first; /* sectors [first, last] */
	uint64_t last;
};

void bp_disk_inject(struct bp_disk *disk, const struct bp_inject *inject);

/* --- ports: control thread --- */

struct bp_port_cfg {
	const char *name; /* BDF, for texts */
	struct bp_disk *disk;
	uint16_t nr_queues; /* 1..BP_MAX_QUEUES */
	bool read_only;     /* also when the disk is not */
	bool in_order;      /* give requests back in the order in which they were taken */
	char id[BP_ID_SIZE];
	void *ctx; /* for on_broken of the engine and on_drained */

	/*
	 * Queue @qid, which is draining, has nothing in flight any more. From the event loop, never
	 * from inside a function of this file; may come late, so look again.
	 */
	void (*on_drained)(void *ctx, uint16_t qid);
};

int bp_port_create(struct dp_engine *engine, const struct bp_port_cfg *cfg, struct bp_port **ret,
	struct vfe_error *err);

/* Stops its queues, for which it waits up to BP_SETTLE_MS. NULL is fine. */
void bp_port_destroy(struct bp_port *port);

/*
 * As dp_queue_start(). -EBUSY: the back end still has requests of before the last stop. A queue
 * starts as one that is not draining.
 */
int bp_queue_start(
	struct bp_port *port, uint16_t qid, const struct dp_queue_cfg *cfg, struct vfe_error *err);

/*
 * Take nothing more. True when nothing is in flight (or the queue is not started), else on_drained
 * is called later.
 */
bool bp_queue_drain(struct bp_port *port, uint16_t qid);

/* Go on after draining. */
void bp_queue_resume(struct bp_port *port, uint16_t qid);

/* Drain all queues and wait for that up to BP_SETTLE_MS. 0 or -ETIMEDOUT. */
int bp_port_settle(struct bp_port *port);

/*
 * As dp_queue_stop(), but never waits: returns the number of abandoned requests, for which the
 * available index is ahead of the used index.
 */
uint32_t bp_queue_stop(struct bp_port *port, uint16_t qid, uint16_t *ret_avail, uint16_t *ret_used);

/*
 * [@va, @va + @size) is about to be unmapped: wait until no request in flight, abandoned ones
 * included, has a part of it. 0, or -ETIMEDOUT after BP_SETTLE_MS.
 */
int bp_port_release(struct bp_port *port, const void *va, uint64_t size);

void bp_queue_set_call(struct bp_port *port, uint16_t qid, int call_fd);
void bp_queue_kick(struct bp_port *port, uint16_t qid);

/* As dp_port_set_map(). Memory that is not in @map any more was given to bp_port_release() before.
 */
void bp_port_set_map(struct bp_port *port, const struct vfe_iova_map *map);

/* As dp_port_set_watch(). Of a request in flight all is told when it is answered. */
void bp_port_set_watch(struct bp_port *port, const struct vfe_vring_watch *watch);

/* Without write-back a write is complete when it is on stable storage (section 5.2.5). */
void bp_port_set_writeback(struct bp_port *port, bool writeback);

struct bp_queue_stats {
	uint64_t reads;
	uint64_t read_bytes;
	uint64_t writes;
	uint64_t write_bytes;
	uint64_t flushes;
	uint64_t discards;
	uint64_t write_zeroes;
	uint64_t errors;      /* answered IOERR */
	uint64_t unsupported; /* answered UNSUPP */
	uint64_t kicks;
	uint64_t signals;
	uint32_t in_flight;
	bool started;
};

/* A snapshot; single counters may lag behind each other. Any thread. */
void bp_queue_stats(const struct bp_port *port, uint16_t qid, struct bp_queue_stats *ret);

#endif /* BLKPATH_H */
