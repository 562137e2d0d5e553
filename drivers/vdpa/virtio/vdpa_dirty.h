/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty pages of one VF: the log of the front-end, and how what the device writes gets into it.
 *
 * A front-end that migrates gives a log (SET_LOG_BASE) and sets LOG_ALL. From then on each page
 * that the device writes must be in the log, at the latest when GET_VRING_BASE is answered. The
 * device tracks for us in one of the modes below; in all but the direct one its map is merged into
 * the log by us, again and again while the device runs, and for the last time when it is frozen.
 *
 * Whenever it is not certain that the device has told everything, all memory is marked: slow, never
 * wrong. That is the mode "all" (the device does not track), and the debt (it was not tracked for a
 * while and is now).
 *
 * A change of log or memory that a running track cannot follow restarts the device: tracks are
 * taken down and set up only while it is frozen, or else when nothing that it writes meanwhile
 * matters. Old logs are emptied into new ones, because a front-end reads an old log for the last
 * time directly after SET_LOG_BASE is answered.
 */

#ifndef VDPA_DIRTY_H
#define VDPA_DIRTY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vdpa_loop.h"
#include "vdpa_mem.h"
#include "vfe_dirty_log.h"
#include "vfe_vdpa.h"
#include "vfe_virtio_admin.h"

enum {
	VDPA_DIRTY_COVER_MS = 1000, /* SET_FEATURES waits this long for tracking to begin */
	VDPA_DIRTY_ROUND_MS = 150,  /* between two merges */
	VDPA_DIRTY_BLIND_MS = 500,  /* between two markings of all memory */
	VDPA_DIRTY_RETRY_MS = 5000, /* before tracking is tried again */
	VDPA_DIRTY_MAX_RANGES = VDPA_MAX_REGIONS,
	VDPA_DIRTY_FLIGHT = 4,        /* REPORTs of one VF at a time */
	VDPA_DIRTY_CHUNK = 128 << 10, /* bytes of one REPORT */
};

/*
 * A front-end says where its memory is, and can make holes that cost it nothing: what its maps may
 * take of ours is bounded. Bytes of a map of our own (2 TiB of guest addresses in a bitmap), of one
 * in a log that a device is given, and of a log.
 */
#define VDPA_DIRTY_MAX_MAP    (64ULL << 20)
#define VDPA_DIRTY_MAX_DIRECT (1ULL << 30)
#define VDPA_DIRTY_MAX_LOG    (4ULL << 30)

/* --- logs --- */

/* A log of the front-end, mapped; immutable, counted. */
struct vdpa_log {
	unsigned int refs; /* atomic */
	int fd;
	uint64_t offset; /* of the log in the file */
	uint64_t size;   /* bytes */
	struct vfe_dirty_log log;
	bool sealed; /* its pages cannot go away: a device may be given them */
	void *map;   /* what mmap() gave */
	size_t map_size;
	atomic_bool truncated;
};

/*
 * Check and map @size bytes of @fd from @offset. *@ret is the caller's reference, @fd stays the
 * caller's. -EINVAL with a text: no shared memory file, shorter than the log, wrapping, unaligned.
 */
int vdpa_log_create(
	int fd, uint64_t size, uint64_t offset, struct vdpa_log **ret, struct vfe_error *err);
struct vdpa_log *vdpa_log_get(struct vdpa_log *log); /* NULL is fine */
void vdpa_log_put(struct vdpa_log *log);             /* NULL is fine */
uint64_t vdpa_log_end(const struct vdpa_log *log); /* first guest address that it has no bit for */

/* Highest guest address + 1 of @table, 0 for none. */
uint64_t vdpa_table_end(const struct vdpa_table *table);

/* --- memory that a PF writes maps to --- */

struct vdpa_pf;

struct vdpa_target {
	LIST_ENTRY(vdpa_target) next; /* of the PF: what is mapped, by iova */
	struct vdpa_pf *pf;           /* NULL = no PF writes to it */
	bool mapped;                  /* protected by the PF's map_lock, as the next one */
	bool abandoned;
	uint64_t iova;
	uint64_t dma_size;
	struct vdpa_log *log; /* the front-end's, or NULL: memory of ours */
	int fd;
	uint8_t *va;
	size_t size;
};
LIST_HEAD(vdpa_target_list, vdpa_target);

/* Memory of ours, zeroed; for @pf to write to unless that is NULL. */
int vdpa_target_create(
	struct vdpa_pf *pf, uint64_t size, struct vdpa_target **ret, struct vfe_error *err);
/* The first @size bytes of @log, which must be sealed and begin at a page. */
int vdpa_target_create_log(struct vdpa_pf *pf, struct vdpa_log *log, uint64_t size,
	struct vdpa_target **ret, struct vfe_error *err);
void vdpa_target_destroy(struct vdpa_target *target); /* NULL is fine */
/* Nobody knows whether the PF still writes to it: it is freed when the PF has been reset. */
void vdpa_target_abandon(struct vdpa_target *target); /* NULL is fine */

/* The PF has been reset, its domain goes: unmap all, free what was abandoned. map_lock held. */
void vdpa_targets_clear_locked(struct vdpa_pf *pf);

/* --- tracking --- */

enum vdpa_dirty_mode {
	VDPA_DIRTY_ALL,    /* the device does not track: everything is marked */
	VDPA_DIRTY_DIRECT, /* the device pushes into the log */
	VDPA_DIRTY_PUSH_BITMAP,
	VDPA_DIRTY_PULL_BITMAP,
	VDPA_DIRTY_PUSH_BYTEMAP,
	VDPA_DIRTY_PULL_BYTEMAP,
	VDPA_DIRTY_RELAY, /* the device does not track: its rings are relayed, see vdpa_shadow.c */
	VDPA_DIRTY_NR_MODES,
	VDPA_DIRTY_AUTO = VDPA_DIRTY_NR_MODES,
};
const char *vdpa_dirty_mode_name(enum vdpa_dirty_mode mode);
int vdpa_dirty_mode_parse(const char *name, enum vdpa_dirty_mode *ret); /* or -EINVAL */

struct vdpa_dirty_range {
	uint64_t addr; /* multiple of 64 pages */
	uint64_t len;
	size_t map_off;   /* of its map in the memory of ours */
	size_t map_bytes; /* of the map */
	bool due;         /* to be fetched in this round */
};

/* How a VF is tracked; made by vdpa_dirty_plan(). */
struct vdpa_dirty_plan {
	enum vdpa_dirty_mode mode;
	unsigned int nr_ranges;
	struct vdpa_dirty_range ranges[VDPA_DIRTY_MAX_RANGES];
	size_t map_bytes; /* of all ranges */
};

/*
 * Plan @mode (not AUTO or ALL) for @table. 0, or -ENOTSUP: @caps, log or size do not allow it.
 * @log is used for DIRECT only. No side effects.
 */
int vdpa_dirty_plan(enum vdpa_dirty_mode mode, const struct vfe_admin_caps *caps,
	const struct vdpa_table *table, const struct vdpa_log *log, struct vdpa_dirty_plan *ret);

/* Does the device watch all of @region, or of all regions, that @log has bits for? */
bool vdpa_dirty_plan_covers(const struct vdpa_dirty_plan *plan, const struct vdpa_region *region,
	const struct vdpa_log *log);
bool vdpa_dirty_plan_covers_table(const struct vdpa_dirty_plan *plan,
	const struct vdpa_table *table, const struct vdpa_log *log);

/* Does it get into the log without us? */
static inline bool
vdpa_dirty_is_direct(enum vdpa_dirty_mode mode)
{
	return mode == VDPA_DIRTY_DIRECT || mode == VDPA_DIRTY_RELAY;
}

static inline bool
vdpa_dirty_is_pull(enum vdpa_dirty_mode mode)
{
	return mode == VDPA_DIRTY_PULL_BITMAP || mode == VDPA_DIRTY_PULL_BYTEMAP;
}

/* What a task is made of. */
enum vdpa_dirty_stage {
	VDPA_STAGE_END,
	VDPA_STAGE_ARM,     /* job: a mode that can be had, memory for it */
	VDPA_STAGE_START,   /* commands */
	VDPA_STAGE_PENDING, /* commands: which ranges are clean? */
	VDPA_STAGE_REPORT,  /* commands: the map, piece by piece */
	VDPA_STAGE_MERGE,   /* job, when there is something to merge or to mark */
	VDPA_STAGE_TOLD,    /* the log has everything */
	VDPA_STAGE_STOP,    /* commands */
	VDPA_STAGE_RELEASE, /* job: memory */
	VDPA_NR_STAGES,
};

enum vdpa_dirty_phase {
	VDPA_DIRTY_OFF,      /* the device does not track, nothing is held for it */
	VDPA_DIRTY_STARTING, /* it is about to */
	VDPA_DIRTY_ON,
	VDPA_DIRTY_BLIND, /* mode "all", while the device may run */
	VDPA_DIRTY_STOPPING,
};

struct vdpa_dirty_cmd {
	struct vdpa_vf *vf;
	bool busy;
	unsigned int range;
	size_t offset;
	size_t len;
};

/* The job of a stage, on a worker: what it needs and what it gives. */
struct vdpa_dirty_job {
	struct vdpa_work run;
	struct vdpa_work done;
	uint8_t stage;        /* enum vdpa_dirty_stage */
	struct vdpa_log *log; /* references, of when the stage began */
	struct vdpa_table *table;
	bool all;     /* mark all memory */
	bool stopped; /* the device is */
	int status;
	struct vfe_error err;
};

struct vdpa_dirty {
	/* --- desired; protected by vf->lock --- */
	struct vdpa_log *log; /* NULL = none */
	bool greeted;         /* SET_FEATURES has come on this connection */
	bool debt;            /* something was written unseen: all memory is to be marked */

	/* --- protected by vf->lock, written by the reactor or its job --- */
	enum vdpa_dirty_phase phase;
	bool owed;                   /* the log may lack something that the device has written */
	bool idle;                   /* no task is under way */
	struct vdpa_dirty_plan plan; /* while ON or STOPPING */
	struct vdpa_log *cur;        /* what is merged into, or pushed into */
	struct vfe_vdpa_dirty_info info;

	/* --- reactor --- */
	const uint8_t *task;     /* its stages, NULL = none */
	const uint8_t *stage;    /* the present one */
	bool machine_waits;      /* the state machine, for a task to end */
	bool flush_next;         /* and it wants a flush then */
	bool failed;             /* in this task */
	bool tracks;             /* the device has been told to */
	bool blind;              /* it does not, or it is not certain that it does */
	bool doubt;              /* a command was not answered: who knows what the device writes */
	unsigned int generation; /* of the PF that tracks */
	uint64_t retry_ns;       /* when to try again, UINT64_MAX = not */
	struct vfe_admin_caps caps; /* when the task began */
	unsigned int in_flight;     /* commands */
	unsigned int next_range;    /* to be reported */
	size_t next_offset;
	struct vdpa_dirty_cmd cmds[VDPA_DIRTY_MAX_RANGES];
	struct vdpa_timer timer;

	/* --- the job while there is one, else the reactor --- */
	struct vdpa_dirty_job job;
	struct vdpa_target *target;
	struct vdpa_dirty_plan next_plan;
};

struct vdpa_vf;

void vdpa_dirty_init(struct vdpa_vf *vf);
void vdpa_dirty_fini(struct vdpa_vf *vf);   /* nothing is under way */
void vdpa_dirty_detach(struct vdpa_vf *vf); /* reactor: the VF goes */

/* What a state machine in RUNNING has to do; vf->lock held. */
enum vdpa_dirty_need {
	VDPA_DIRTY_NOTHING,
	VDPA_DIRTY_TRACK,   /* vdpa_dirty_track() */
	VDPA_DIRTY_RESTART, /* stop the device, or some of its rings, and start it again */
};
enum vdpa_dirty_need vdpa_dirty_need_locked(const struct vdpa_vf *vf);
/* Are the rings to be relayed when the device is started, for the log? vf->lock held. */
bool vdpa_dirty_relays_locked(const struct vdpa_vf *vf);
/* In another stable state: is vdpa_dirty_flush() due? vf->lock held. */
bool vdpa_dirty_flush_due_locked(const struct vdpa_vf *vf);
/* Is something missing in the log that the front-end may ask for? vf->lock held. */
bool vdpa_dirty_owed_locked(const struct vdpa_vf *vf);

/*
 * Reactor. Bring tracking to what is desired now; or, the device being stopped, complete the log
 * and take tracking down. 1 = nothing to do, 0 = vdpa_vf_step_done() will be called; these never
 * fail, marking all is what is left.
 */
int vdpa_dirty_track(struct vdpa_vf *vf);
int vdpa_dirty_flush(struct vdpa_vf *vf);

/* The device was stopped in a way that leaves open what it has told; vf->lock held. */
void vdpa_dirty_distrust_locked(struct vdpa_vf *vf);

/* --- message handlers, vhost thread --- */

/* LOG_ALL has become @on: waits until the device is tracked, bounded. */
void vdpa_dirty_log_all(struct vdpa_vf *vf, bool on);
/* A new log; takes the reference. -EINVAL when it is too short for the guest's memory. */
int vdpa_dirty_set_log(struct vdpa_vf *vf, struct vdpa_log *log, struct vfe_error *err);
/* The device is stopped or lost: the log has everything when this returns. */
void vdpa_dirty_settle(struct vdpa_vf *vf);
/* The front-end has gone; returns its log, to be put. vf->lock held. */
struct vdpa_log *vdpa_dirty_forget_locked(struct vdpa_vf *vf);

/* What vf -i shows; vf->lock held. */
void vdpa_dirty_info_locked(const struct vdpa_vf *vf, struct vfe_vdpa_dirty_info *ret);

/* --- vdpa_dirty_job.c, for vdpa_dirty.c --- */

void vdpa_dirty_job_run(struct vdpa_work *work);
void vdpa_dirty_mark_all(const struct vdpa_log *log, const struct vdpa_table *table);
void vdpa_dirty_set_error_locked(struct vdpa_vf *vf, const char *text);

#endif /* VDPA_DIRTY_H */
