/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the parts of the block data path share: disks, ports, queues, request slots.
 *
 * The control thread creates and frees everything. A queue, its slots and its io_uring belong to
 * one worker (dp.h). Threads of the pool only see slots that were given to them, and give them back
 * through bp_queue.finished. What is marked "atomic" any thread may read.
 */

#ifndef BP_H
#define BP_H

#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "blkpath.h"
#include "dp.h"
#include "vfe_wire_blk.h"

enum {
	/*
	 * Requests per visit of a queue. The driver sees what is done after each visit, and can go
	 * on while the rest is carried out.
	 */
	BP_BURST = 16,
	BP_SPIN_MISSES = 4, /* in a row, and looking longer is not worth while ... */
	BP_SPIN_PAUSE = 32, /* until so many times later, when it is tried again */
	BP_INLINE_IOV = 34, /* 128 KiB in pages, header and status */
	BP_NR_BIG = 4,      /* requests of more parts that can be in flight in one queue */
	BP_MAX_TRIES = 8,   /* of a transfer that was interrupted */
	BP_POOL_THREADS = 4,
	BP_ZERO_PART = 262144, /* bytes of zeroes that are written at a time */
};

struct bp_queue;

/* What a back end is asked for. */
enum bp_op {
	BP_READ,
	BP_WRITE,
	BP_SYNC,
	BP_DISCARD,
	BP_ZERO,
};

/* How BP_ZERO is done: in this order until one works. */
enum bp_zero {
	BP_ZERO_PUNCH, /* only when the driver allows to unmap */
	BP_ZERO_RANGE,
	BP_ZERO_WRITE,
};

/*
 * A request, from the moment it is taken until it is given back. It is carried out in steps: one
 * for a plain transfer (more when the back end stops half way), one for each range.
 */
struct bp_slot {
	/* the present step, read by the back end */
	struct bp_queue *bq;
	struct iovec *iov;
	uint64_t offset; /* bytes on the disk */
	uint64_t len;
	uint16_t nr_iov;
	uint8_t op;     /* enum bp_op */
	uint8_t zero;   /* enum bp_zero */
	bool dsync;     /* BP_WRITE: on stable storage when complete */
	bool buffered;  /* direct I/O was refused */
	int64_t result; /* of a thread of the pool: bytes or -errno */

	/* the request */
	uint8_t *status; /* where the driver wants it */
	uint32_t type;
	uint32_t write_len; /* of the chain */
	uint16_t head;
	uint16_t nr_segs;
	uint16_t seg;                /* the present one */
	uint8_t answer;              /* VFE_BLK_S_* */
	uint8_t tries;               /* of the present step */
	bool busy;                   /* taken */
	bool answered;               /* in order: waits for its turn */
	struct iovec *big;           /* in use instead of parts */
	STAILQ_ENTRY(bp_slot) link;  /* free, held, or a job of the pool */
	STAILQ_ENTRY(bp_slot) order; /* in order: as taken */
	struct bp_slot *next_finished;
	union {
		struct iovec parts[BP_INLINE_IOV];
		struct vfe_wire_blk_range segs[BP_MAX_SEGS];
	};
};

STAILQ_HEAD(bp_slots, bp_slot);

struct bp_queue {
	struct dp_queue q; /* ring, interrupt, place with its worker */
	struct bp_port *port;

	/* worker */
	struct bp_slot *slots; /* NULL unless started or abandoned */
	struct bp_slots free;
	struct bp_slots held;
	struct bp_slots order;
	struct iovec *bigs[BP_NR_BIG]; /* stack of what is free */
	struct iovec *big_memory;
	uint16_t nr_bigs;
	uint16_t nr_slots;
	bool draining;
	bool starved;        /* requests were left in the ring for want of room */
	bool empty;          /* nothing was in the ring at the last visit */
	uint8_t spin_misses; /* how often the next request came too late to be waited for */
	int64_t empty_since; /* ns; 0: there was something, or the back end is at work */
	bool has_ring;
	bool tell;             /* the control thread wants to know when drained */
	sem_t *waiter;         /* the control thread waits for it */
	struct io_uring ring;  /* file with io_uring */
	struct dp_source cqes; /* its fd */
	struct dp_source jobs; /* eventfd: something is in finished */

	_Atomic(struct bp_slot *) finished; /* by threads of the pool, newest first */
	atomic_bool drained;                /* to be reported by the control thread */
	_Atomic uint32_t in_flight;         /* written by the worker */
	atomic_bool started;                /* written by the control thread */
	struct {
		dp_counter reads;
		dp_counter read_bytes;
		dp_counter writes;
		dp_counter write_bytes;
		dp_counter flushes;
		dp_counter discards;
		dp_counter write_zeroes;
		dp_counter errors;
		dp_counter unsupported;
	} stats;
} __attribute__((aligned(DP_CACHE_LINE)));

struct bp_port {
	struct dp_engine *engine;
	struct bp_disk *disk;
	char name[32];
	char id[BP_ID_SIZE];
	bool read_only;
	bool in_order;
	bool hangs; /* control thread: the last wait was in vain */
	atomic_bool writeback;
	void *ctx;
	void (*on_drained)(void *ctx, uint16_t qid);
	const struct vfe_iova_map *map;      /* control thread's; the rings have their own */
	const struct vfe_vring_watch *watch; /* control thread's; the rings have their own */
	TAILQ_ENTRY(bp_port) link;
	uint16_t nr_queues;
	struct bp_queue queues[] __attribute__((aligned(DP_CACHE_LINE)));
};

/* What a kind of disk does. */
struct bp_disk_ops {
	int (*open)(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err);
	void (*close)(struct bp_disk *disk);
	int (*resize)(struct bp_disk *disk, uint64_t size, struct vfe_error *err);

	/* control thread: what a queue needs to be started; may be NULL */
	int (*queue_open)(struct bp_queue *bq, struct vfe_error *err);
	void (*queue_close)(struct bp_queue *bq); /* nothing is in flight, or nobody will look */

	/* worker: begin the present step; bp_slot_done() follows, maybe from inside */
	void (*submit)(struct bp_slot *slot);
	/* worker: what was begun goes off; true = try again soon. May be NULL */
	bool (*flush)(struct bp_queue *bq);
	/* worker: take what is done. May be NULL */
	void (*reap)(struct bp_queue *bq);
};

extern const struct bp_disk_ops bp_ops_null;
extern const struct bp_disk_ops bp_ops_memory;
extern const struct bp_disk_ops bp_ops_file_uring;
extern const struct bp_disk_ops bp_ops_file_threads;

struct bp_disk {
	const struct bp_disk_ops *ops;
	struct dp_engine *engine;
	char name[BP_NAME_SIZE];
	char path[BP_PATH_SIZE];
	enum bp_disk_type type;
	enum bp_io io;
	uint32_t block_size;
	uint32_t physical_block_size;
	bool read_only;
	bool is_device; /* block device */
	unsigned int users;
	_Atomic uint64_t size; /* bytes */
	uint8_t *memory;       /* BP_MAX_MEMORY of address space */
	int fd;                /* buffered */
	int direct_fd;         /* -1 = none */
	uint32_t direct_align;
	_Atomic uint64_t syncs;

	/* test knob: a change of several members shows as action NONE in between */
	struct {
		atomic_int action;
		_Atomic uint32_t ops;
		_Atomic uint32_t every;
		_Atomic uint64_t first;
		_Atomic uint64_t last;
		_Atomic uint32_t count;
	} inject;
	TAILQ_ENTRY(bp_disk) link;
};

/* bp_request.c: worker */

/* Take up to a burst of requests. True when there may be more to do at once. */
bool bp_take(struct bp_queue *bq);

/* The present step is over: @result is bytes (transfers), 0, or -errno. */
void bp_slot_done(struct bp_slot *slot, int64_t result);

/* Requests that were held are let go when the disk holds none any more. */
void bp_release_held(struct bp_queue *bq);

/* bp_queue.c: worker. The last request in flight is back. */
void bp_queue_is_empty(struct bp_queue *bq);

/* Control thread: visit @bq, which has slots. */
void bp_queue_poke(struct bp_queue *bq);

/* Tell the control thread (engine.c calls bp_report() there). */
void bp_report(struct dp_engine *engine);

/* bp_disk.c: close all disks and end the pool; ports are gone. */
void bp_engine_fini(struct dp_engine *engine);

/* bp_file.c */
int bp_file_open(struct bp_disk *disk, const struct bp_disk_cfg *cfg, struct vfe_error *err);
void bp_file_close(struct bp_disk *disk);
int bp_file_resize(struct bp_disk *disk, uint64_t size, struct vfe_error *err);

/* Does the present step suit the fd for direct I/O? */
bool bp_file_direct(const struct bp_slot *slot);

/* io_uring cannot do it. */
bool bp_file_needs_thread(const struct bp_slot *slot);

/* The system call of the present step has ended with bytes, 0 or -errno. */
void bp_file_done(struct bp_slot *slot, int64_t result);

/* What a BP_ZERO_WRITE step writes at a time. */
extern const uint8_t bp_zeroes[BP_ZERO_PART];

static inline uint32_t
bp_zero_len(const struct bp_slot *slot)
{
	return slot->len < BP_ZERO_PART ? (uint32_t)slot->len : BP_ZERO_PART;
}

/* Arguments of fallocate(2) for a BP_DISCARD or BP_ZERO step that is one. */
int bp_file_falloc_mode(const struct bp_slot *slot);

/* bp_pool.c: threads for what may block. */
struct bp_pool;
int bp_pool_get(struct dp_engine *engine, struct vfe_error *err); /* started at the first call */
void bp_pool_destroy(struct bp_pool *pool);
void bp_pool_submit(struct bp_slot *slot); /* worker */
void bp_pool_reap(struct bp_queue *bq);    /* worker */

/* Carry out the present step here and now. Bytes or -errno. */
int64_t bp_file_execute(const struct bp_slot *slot);

/* Control thread: the eventfd of bq->jobs, watched while the queue has slots. */
int bp_jobs_open(struct bp_queue *bq, struct vfe_error *err);
void bp_jobs_close(struct bp_queue *bq);

/* bp_uring.c: may this process use io_uring? 0 or -errno. */
int bp_uring_probe(void);

#endif /* BP_H */
