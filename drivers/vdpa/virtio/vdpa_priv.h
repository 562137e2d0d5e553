/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the files of the vDPA driver share: PFs, VFs, and who owns what of them.
 *
 * A VF has a desired configuration, which the message handlers write, and an applied one, which
 * the state machine on the reactor brings the device to. The handlers change the former under
 * vf->lock, count vf->seq up and post the VF; they wait for the device only where vhost-user needs
 * it (GET_VRING_BASE, memory that goes away).
 *
 * Locks, in the order in which they are taken: the registry's, vf->lock, that of a shadow ring,
 * those of a domain. None
 * of them is held while something waits, but for the domain's change_lock (see vdpa_mem.c).
 */

#ifndef VDPA_PRIV_H
#define VDPA_PRIV_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "vdpa_dirty.h"
#include "vdpa_log.h"
#include "vdpa_loop.h"
#include "vdpa_mem.h"
#include "vdpa_msg.h"
#include "vdpa_type.h"
#include "vfe_pci.h"
#include "vfe_state.h"
#include "vfe_vdpa.h"
#include "vfe_virtio.h"
#include "vfe_virtio_admin.h"

struct rte_device;
struct rte_vdpa_device;

enum {
	VDPA_SUSPEND_TIMEOUT_MS = 5000, /* the vhost thread waits this long for one VF */
	VDPA_SUSPEND_GRACE_MS = 20,     /* between GET_VRING_BASE of the rings of a VF */
	VDPA_SIBLING_GRACE_MS = 100,    /* the same in a migration, of the VFs of a VM */
	VDPA_REFRESH_MS = 100,          /* a VF that runs is asked for its configuration */
	VDPA_RETRY_MS = 5000,           /* before a failed start is tried again */
	VDPA_PARK_TIMEOUT_MS = 15000,   /* removal waits this long for a VF to be parked */
	VDPA_RESET_TIMEOUT_MS = 120000, /* when probing */
	VDPA_STOP_TIMEOUT_MS = 3000,    /* reset as the last means to stop a VF */
	VDPA_CTRL_SPACE = 4096,         /* of the control queue of a plain function, bytes */
	VDPA_SLAVE_TIMEOUT_MS = 30000,  /* an answer of the front-end on the back-end channel */
};

/* --- fds that several threads use --- */

struct vdpa_fd {
	unsigned int refs; /* atomic */
	int fd;
};

/* Duplicates @fd, which must be an eventfd. Returns NULL with errno. */
struct vdpa_fd *vdpa_fd_create(int fd);
struct vdpa_fd *vdpa_fd_get(struct vdpa_fd *fd); /* NULL is fine */
void vdpa_fd_put(struct vdpa_fd *fd);            /* NULL is fine */

/* Add 1 to the eventfd; never blocks, whatever its other owners do with it. */
void vdpa_fd_signal(struct vdpa_fd *fd);
void vdpa_fd_fini(void);

/* --- physical functions --- */

struct vdpa_pf {
	TAILQ_ENTRY(vdpa_pf) next; /* registry */
	struct vfe_bdf bdf;
	char name[VFE_BDF_STR_SIZE];
	unsigned int nr_vfs; /* registry */

	/* set up by the provisioning thread, used by the reactor while not lost */
	struct vfe_pci_dev *pci;
	struct vfe_pci_domain *domain;
	struct vfe_dma_arena *arena;
	struct vfe_virtio_dev vdev;
	struct vfe_pci_sriov sriov;
	struct vfe_admin *admin;     /* reactor only; NULL when lost */
	struct vfe_admin *new_admin; /* on its way there */
	struct vdpa_watch admin_watch;
	struct vdpa_watch lost_watch;
	struct vdpa_timer timer;
	unsigned int generation; /* reactor; counts how often it was attached */

	/* protects @domain for maps of dirty pages and those maps; as a domain's change_lock */
	pthread_mutex_t map_lock;
	struct vdpa_target_list targets;

	atomic_bool lost;
	/* written by the provisioning thread before it is published */
	uint64_t device_features;
	const struct vdpa_type *type;
	atomic_uint_least64_t commands;
	atomic_uint_least64_t errors;
	atomic_uint_least64_t retries;
	uint64_t old_retries; /* of admin queues that it had before; reactor */
};

/* --- virtual functions --- */

struct vdpa_vf;
struct vdpa_applied;

/*
 * How a VF is driven: by the admin queue of its PF ("managed") or by its own registers ("plain").
 * The steps are called by the state machine, on the reactor, as enter of its table: 0 = begun, 1 =
 * done already, or -errno. One that has posted a job is done when @job is, on a worker.
 */
struct vdpa_drive_ops {
	const char *name;
	bool owns_ctrl;       /* the control queue of the type is ours to use */
	bool resets_rings;    /* where the device can: rings change while others run */
	bool relays;          /* what the device writes is logged by relaying its rings */
	uint64_t no_features; /* that no guest gets */
	int (*quiesce)(struct vdpa_vf *vf);
	int (*freeze)(struct vdpa_vf *vf);
	int (*restore)(struct vdpa_vf *vf);
	int (*unquiesce)(struct vdpa_vf *vf);
	int (*start)(struct vdpa_vf *vf);
	int (*park)(struct vdpa_vf *vf);
	/*
	 * On a worker; what a managed VF does not need is NULL. @plan amends @rings before a start
	 * with @features; all of them are to be relayed if @relay is true.
	 */
	int (*job)(struct vdpa_vf *vf, struct vfe_error *err);
	void (*plan)(struct vdpa_vf *vf, uint64_t features, bool relay, struct vdpa_applied *rings);
	int (*tend)(struct vdpa_vf *vf, struct vfe_error *err);
};
extern const struct vdpa_drive_ops vdpa_drive_managed; /* vdpa_migrate.c */
extern const struct vdpa_drive_ops vdpa_drive_plain;   /* vdpa_plain.c */

/* What a queue of the device is; fixed while the device is open. */
struct vdpa_queue {
	uint16_t max_size;
	uint16_t notify_off;
	uint16_t notify_data;
	struct vfe_pci_doorbell doorbell;
	bool page_mappable; /* the doorbell has a page of its own that a guest may map */
	bool known;         /* enabled once since the device was reset; plain, lock of the VF */
};

/* What the front-end wants of a ring. */
struct vdpa_ring {
	bool has_addr;
	bool kicked; /* SET_VRING_KICK has come: with an address, the ring is started */
	bool enabled;
	uint16_t size;
	uint16_t base; /* SET_VRING_BASE */
	uint64_t desc; /* addresses in the front-end */
	uint64_t avail;
	uint64_t used;
	bool stopping;        /* GET_VRING_BASE waits for that: it is not started any more */
	uint32_t stops;       /* how often it has been stopped */
	struct vdpa_fd *kick; /* NULL = none */
	struct vdpa_fd *call;
};

/* What the device has been told of a ring. */
struct vdpa_applied {
	bool enabled; /* the device has it */
	uint16_t size;
	uint16_t start_idx;
	bool quiet;  /* nothing was in flight when the device was found dead */
	bool shadow; /* through a ring of ours: see vdpa_shadow.c */
	uint32_t stops;
	uint64_t desc; /* guest addresses */
	uint64_t avail;
	uint64_t used;
	struct vdpa_fd *call;
};

enum vdpa_notifier_state {
	VDPA_NOTIFIER_NONE, /* to be offered when the ring runs */
	VDPA_NOTIFIER_SENT,
	VDPA_NOTIFIER_ON,
	VDPA_NOTIFIER_OFF,   /* refused, or not possible */
	VDPA_NOTIFIER_TAKEN, /* is being taken away: the ring has become a shadow ring */
};

/* Doorbells of a ring; written by the reactor, what is not atomic under vf->lock if it is shown. */
struct vdpa_bell {
	int relay; /* slot, -1 = none */
	struct vdpa_fd *relay_fd;
	int irq_relay; /* of a shadow ring: slot of the device's interrupts, -1 = none */
	enum vdpa_notifier_state notifier;
	uint32_t stops; /* of the ring, when @notifier was set */
	atomic_uint_least64_t relayed;
};

/* The channel on which we send requests to the front-end; reactor only. */
struct vdpa_slave {
	int fd;
	struct vdpa_watch watch;
	struct vdpa_timer timer;
	uint32_t pending; /* request that waits for its reply, 0 = none */
	uint16_t pending_qid;
	uint8_t rx[24];
	size_t rx_len;
	uint64_t features; /* protocol features of the connection */
};

/* States of a VF. The first ones are stable: the machine leaves them for a reason from outside. */
enum vdpa_state {
	VDPA_S_IDLE,    /* reset: not running, not frozen */
	VDPA_S_FROZEN,  /* frozen by the admin queue, with or without a guest's configuration */
	VDPA_S_RUNNING, /* for a guest */
	VDPA_S_LOST,    /* its transport has failed, or it could not be stopped */
	VDPA_S_NR_STABLE,
	VDPA_S_QUIESCE = VDPA_S_NR_STABLE, /* command in flight */
	VDPA_S_FREEZE,
	VDPA_S_FLUSH,   /* the last dirty pages go into the log, tracking ends */
	VDPA_S_PREPARE, /* job: memory, rings, interrupts, blob */
	VDPA_S_RESTORE, /* command */
	VDPA_S_TRACK,   /* dirty pages are tracked before it runs */
	VDPA_S_UNQUIESCE,
	VDPA_S_START,
	VDPA_S_PARK,       /* command: RESTORE of the parked blob */
	VDPA_S_CLEAN,      /* job: interrupts withdrawn, memory unmapped; parked then */
	VDPA_S_CLEAN_LOST, /* the same for a lost VF */
	VDPA_S_CLEAN_IDLE, /* the same for a VF that has been reset */
	VDPA_S_FLUSH_LOST, /* the log of a lost VF is completed */
	VDPA_S_FLUSH_IDLE, /* of one that has been reset */
	VDPA_S_TRACK_RUN,  /* dirty page tracking changes while running */
	VDPA_S_TEND,       /* job while running: eventfds, configuration space */
	VDPA_S_RINGS,      /* job while running: some rings are changed, see vdpa_rings.c */
	VDPA_S_RESET,      /* job: stop by its own registers */
	VDPA_S_LOOK,       /* job while parked: read the configuration space */
	VDPA_S_LOOK_IDLE,  /* the same for a VF that has been reset */
	VDPA_S_NR,
};

/* The measuring of suspend and resume; see vdpa_transit.c. */
struct vdpa_transit {
	enum vdpa_transit_kind {
		VDPA_T_NONE,
		VDPA_T_SUSPEND,
		VDPA_T_RESUME,
	} kind;
	uint64_t begin_ns;
	uint64_t entered_ns; /* the present state */
	struct vfe_vdpa_transit now;
	struct vfe_vdpa_transit last_suspend;
	struct vfe_vdpa_transit last_resume;
};

struct vdpa_debug_track;

/* What is wanted at one time, of which a device is told; vdpa_queue.c. */
struct vdpa_plan {
	struct vdpa_table *table;
	uint64_t features;
	uint64_t seq;
	uint64_t tend_seq;
	bool torn;
	bool relay;                 /* all rings, so that dirty pages are logged */
	struct vdpa_applied *rings; /* with a reference on call */
};

/* Rings that change while others run: made by the reactor, which leaves it to the job then. */
struct vdpa_change {
	struct vdpa_plan plan;
	int rc; /* of making the plan */
	struct vfe_error err;
	bool which[VFE_VDPA_MAX_QUEUES]; /* reactor; read by the job */
};

/* Of a plain function; see vdpa_plain.c. Used by jobs, @fresh also by the reactor between them. */
struct vdpa_plain {
	struct vfe_dma_arena *arena;
	struct vdpa_shadow **shadows; /* nr_queues */
	struct vdpa_trans **trans;    /* nr_queues; NULL unless the device is physical */
	void *slots;                  /* for those, in the arena */
	uint64_t slots_iova;
	struct vdpa_ctrl *ctrl; /* our control queue, in the arena */
	uint64_t ctrl_iova;
	uint64_t ctrl_bus; /* the same as the device has it */
	struct vfe_pci_doorbell ctrl_bell;
	uint16_t ctrl_qid;
	uint16_t ctrl_idx;
	bool ctrl_works;
	uint32_t drained_ms; /* all rings have been waited for, in vain; 0 = they have not */
	bool fresh;          /* it has been reset and configured for nobody since */
	bool no_ring_reset;  /* it did not when asked, so not again; lock of the VF */
	uint16_t pairs;      /* that the device uses; net */
	struct vdpa_change change;
	atomic_uint_least64_t resets; /* of the device */
	atomic_uint_least64_t ring_resets;
};

struct vdpa_vf {
	TAILQ_ENTRY(vdpa_vf) next; /* registry */
	struct vfe_bdf bdf;
	char name[VFE_BDF_STR_SIZE];
	char uuid[37];
	struct vdpa_pf *pf;           /* &vdpa_no_pf = none */
	const struct vdpa_type *type; /* of the PF, or of the device; NULL until that is known */
	uint16_t vf_index;
	const struct vdpa_drive_ops *drive;
	uint16_t nr_queues; /* data queues */
	struct rte_vdpa_device *vdpa;
	struct vdpa_domain *domain;
	struct vdpa_member member;
	bool allow_no_iommu;
	bool physical; /* no-IOMMU mode: it reaches memory by physical addresses */

	/* used by one job at a time, or by the provisioning thread while there is none */
	struct vfe_pci_dev *pci;
	struct vfe_virtio_dev vdev;
	struct vdpa_queue *queues; /* vdev.num_queues */
	struct vfe_state blob_state;
	void *blob;
	size_t blob_size;
	size_t blob_len;
	struct vdpa_plain plain;

	pthread_mutex_t lock;
	pthread_cond_t changed; /* state, lost, needs_clean */

	/* --- desired; protected by lock --- */
	int vid;       /* -1 = no front-end */
	bool removing; /* or the service ends */
	uint64_t features;
	uint64_t protocol_features;
	uint8_t status;
	struct vdpa_ring *rings; /* nr_queues */
	struct vdpa_table *table;
	uint64_t seq;      /* counts changes that the device must be told by a restore */
	uint64_t full_seq; /* @seq of the last one that is not in rings alone */
	bool suspend;      /* the rings are being stopped */
	struct vfe_deadline suspend_until;    /* when to go on; at_ns 0 = a message is under way */
	struct vfe_deadline suspend_armed;    /* when the reactor looks at that; 0 = it does not */
	struct vfe_deadline suspend_deadline; /* it is stopped by then, or lost */
	unsigned int alone;              /* rings that were stopped in a row while others run */
	struct vfe_deadline alone_until; /* what is stopped until then is in that row */
	int conn_fd;       /* of the front-end, to see whether it is alive; -1 = unknown */
	int new_slave_fd;  /* -1 = none; for the reactor to take */
	bool drop_slave;   /* front-end has gone */
	uint64_t tend_seq; /* counts changes of eventfds and of config_stale */
	bool config_stale; /* the device's configuration is to be read */
	bool config_asked; /* and somebody wants to know when that is done */
	struct vdpa_writeback {
		bool set;   /* by the guest */
		bool stale; /* and not told to the device */
		uint8_t on;
	} writeback;

	struct vdpa_dirty dirty;

	/* --- vhost thread: the message under way --- */
	uint32_t config_msg_off;
	struct vdpa_msg_addr addr_msg;
	struct vdpa_table *table_msg;

	/* --- applied; written by the reactor or the job, under lock --- */
	enum vdpa_state state;
	bool lost;
	bool needs_clean; /* memory or interrupts of a front-end that has gone are there */
	bool guest_blob;  /* the device holds a guest's configuration */
	uint64_t applied_seq;
	uint64_t failed_seq; /* do not try again before seq changes; 0 = none */
	uint64_t applied_tend_seq;
	uint64_t driver_features;
	bool relay_planned;           /* @applied was made for a log */
	struct vdpa_applied *applied; /* nr_queues */
	union vdpa_config config;     /* of the device */
	bool config_changed;          /* to be told to the front-end */
	bool ring_failed;             /* last_error is what has led to a restart */
	bool torn;                    /* it died while it ran: see vdpa_inflight.c */
	char last_error[256];
	struct vdpa_transit transit;
	struct vdpa_ratelimit {
		uint64_t window_ns;
		unsigned int count;
	} complaints;

	/* --- provisioning thread --- */
	struct vdpa_debug_track *debug_track; /* NULL = not tracked by hand */

	/* --- doorbells --- */
	atomic_bool running;
	struct vdpa_bell *bells; /* nr_queues */

	/* --- reactor --- */
	struct vdpa_work step; /* run the state machine */
	struct vdpa_timer suspend_timer;
	struct vdpa_timer retry_timer;
	struct vdpa_timer refresh_timer;
	struct vdpa_watch lost_watch;
	struct vdpa_watch config_watch;
	int config_fd; /* eventfd of vector 0 */
	struct vdpa_slave slave;
	unsigned int cmd_seq; /* of the command in flight, 0 = none */
	bool held;            /* the state machine does not move */
	struct vdpa_cmd {
		struct vdpa_vf *vf;
		unsigned int seq;
	} cmds[4];
	unsigned int last_cmd_seq;

	/* --- job --- */
	struct vdpa_work job;
	struct vdpa_work job_done;
	bool job_flies;        /* reactor */
	struct vdpa_work note; /* vdpa_inflight_note(), after a loss and before a return */
	int job_status;
	struct vfe_error job_err;
};

/* vdpa_dev.c: registry and information */
struct vdpa_globals {
	char vfio_user_dir[256];
	char vf_token[37]; /* of EAL's option --vfio-vf-token; "" = none */
	uint32_t transport_timeout_ms;
	uint32_t reset_timeout_ms;
	struct vdpa_times { /* the VDPA_*_MS; shorter in tests */
		uint32_t suspend;
		uint32_t grace;
		uint32_t sibling;
		uint32_t retry;
		uint32_t refresh;
		uint32_t park;
		uint32_t slave;
		uint32_t dirty_round;
		uint32_t dirty_blind;
		uint32_t dirty_retry;
	} ms;
	enum vdpa_dirty_mode dirty_mode; /* AUTO, or the only one allowed */
	void (*on_lost)(void *ctx, const struct vfe_bdf *bdf, const char *why);
	void (*on_refreshed)(void *ctx);
	void *ctx;
};
extern struct vdpa_globals vdpa_globals;
extern struct vdpa_pf vdpa_no_pf; /* of functions that have none: never lost, has no admin queue */
struct vdpa_pf *vdpa_pf_find(const struct vfe_bdf *bdf);
struct vdpa_vf *vdpa_vf_find(const struct vfe_bdf *bdf);
struct vdpa_vf *vdpa_vf_of_device(const struct rte_vdpa_device *dev);
struct vdpa_vf *vdpa_vf_first(const struct vdpa_pf *pf); /* any VF of @pf (NULL = any) or NULL */
struct vdpa_pf *vdpa_pf_of_vf(const struct vfe_bdf *bdf, int *ret_index); /* NULL = none */
void vdpa_pf_register(struct vdpa_pf *pf);
void vdpa_pf_unregister(struct vdpa_pf *pf);
void vdpa_vf_register(struct vdpa_vf *vf);
void vdpa_vf_unregister(struct vdpa_vf *vf);
void vdpa_vf_for_each(void (*fn)(struct vdpa_vf *vf, const void *arg), const void *arg);
int vdpa_code(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, int neg_errno);

/* vdpa_pf.c */
int vdpa_pf_reattach(struct vdpa_pf *pf, struct vfe_vdpa_error *err);
void vdpa_pf_rearm(struct vdpa_pf *pf); /* reactor, after submitting */
/*
 * Have @submit submit a command on the reactor, wait for its end and copy @out_size bytes of its
 * result. Provisioning thread.
 */
int vdpa_pf_command(struct vdpa_pf *pf,
	int (*submit)(struct vdpa_pf *pf, void *arg, vfe_admin_done done, void *ctx), void *arg,
	void *out, size_t out_size, struct vfe_error *err);

/* vdpa_bus.c */
int vdpa_bus_plug(const struct vfe_bdf *bdf); /* has EAL probe it: 0, or what EAL says */

/* vdpa_vf.c */
int vdpa_vf_probe(const struct vfe_bdf *bdf, struct rte_device *dev); /* 1 = not asked for */
void vdpa_vf_unprobe(const struct vfe_bdf *bdf);
int vdpa_vf_reattach(struct vdpa_vf *vf, struct vfe_vdpa_error *err);
void vdpa_vf_begin_removal(struct vdpa_vf *vf); /* it parks from now on */
void vdpa_vf_remove_now(struct vdpa_vf *vf);    /* waits until it is parked, whatever happens */

/* vdpa_migrate.c: the state machine */
void vdpa_vf_machine_init(struct vdpa_vf *vf);
void vdpa_vf_post(struct vdpa_vf *vf);                 /* any thread */
void vdpa_vf_config_stale(struct vdpa_vf *vf);         /* reactor: have it read again */
bool vdpa_state_runs(enum vdpa_state state);           /* for a guest */
bool vdpa_vf_runs_locked(const struct vdpa_vf *vf);    /* for a guest */
bool vdpa_vf_halted_locked(const struct vdpa_vf *vf);  /* the device touches no guest memory */
bool vdpa_vf_stopped_locked(const struct vdpa_vf *vf); /* and its dirty pages are in the log */
void vdpa_vf_step_done(struct vdpa_vf *vf); /* reactor: vdpa_dirty.c has done what it was to do */
void vdpa_vf_set_error_locked(struct vdpa_vf *vf, const char *text);
void vdpa_vf_lost(struct vdpa_vf *vf, const char *why); /* any thread; ends the transport */
int vdpa_vf_job_post(struct vdpa_vf *vf); /* reactor, in a step: have a worker do it. 0 */
const char *vdpa_state_name(const struct vdpa_vf *vf);
/*
 * Reactor. Keep the state machine of a parked VF without front-end from moving it, until release,
 * after which it may be in any internal status. False = it is in use.
 */
bool vdpa_vf_hold(struct vdpa_vf *vf);
void vdpa_vf_release(struct vdpa_vf *vf);
void vdpa_vf_look_wait(struct vdpa_vf *vf); /* provisioning thread: it is not being read now */

/* vdpa_plain.c; provisioning thread. The device is attached to the domain of @vf, or closed. */
int vdpa_plain_init(struct vdpa_vf *vf, struct vfe_error *err);
void vdpa_plain_fini(struct vdpa_vf *vf);

/*
 * vdpa_shadow.c. Memory comes from the arena, as much as vdpa_shadow_bytes() says. Start and stop
 * by jobs while the device does not run; after a stop, what the device has used is in the guest's
 * ring. Of a managed VF there are none: stop does nothing then.
 */
struct vdpa_shadow;
uint64_t vdpa_shadow_bytes(const struct vdpa_vf *vf);
int vdpa_shadow_init(struct vdpa_vf *vf, struct vfe_error *err);
void vdpa_shadow_fini(struct vdpa_vf *vf); /* also one that is half made */
/* Fills @cfg->driver and @cfg->device; @cfg->desc as well, if the device is physical. */
int vdpa_shadow_start(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *a,
	struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err);
void vdpa_shadow_stop(struct vdpa_vf *vf); /* all of them */
void vdpa_shadow_stop_ring(struct vdpa_vf *vf, uint16_t qid);
/* The device gets the ring itself: what it had when the shadow was stopped does not matter. */
void vdpa_shadow_forget(struct vdpa_vf *vf, uint16_t qid);
void vdpa_shadow_call(struct vdpa_vf *vf, uint16_t qid, struct vdpa_fd *call); /* use that */
struct vdpa_fd *vdpa_shadow_irq(const struct vdpa_shadow *shadow); /* stays the shadow's */
uint64_t vdpa_shadow_chains(const struct vdpa_shadow *shadow);     /* relayed so far */
atomic_uint_least64_t *vdpa_shadow_interrupts(struct vdpa_shadow *shadow);
int vdpa_shadow_run(void *shadow); /* relay thread: 0, or -EAGAIN = come again */
/* While it is being stopped: what the device has used is given to the guest. Has it all back? */
bool vdpa_shadow_drain(struct vdpa_vf *vf, uint16_t qid);
/* The guest has been told where the ring stands: nothing is written to it any more. Any thread. */
void vdpa_shadow_seal(struct vdpa_vf *vf, uint16_t qid);
/* Could the ring be relayed? Its memory is mapped. */
bool vdpa_shadow_can(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *a);
/* Was it relayed until it stopped there, so that a start gives the device what it had? */
bool vdpa_shadow_knows(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring);
/* Log what is written from now on in @log, no more in the last one; NULL = nowhere. Worker. */
void vdpa_shadow_log(struct vdpa_vf *vf, struct vdpa_log *log);
/* Are all rings relayed? vf->lock held. */
bool vdpa_shadow_all_locked(const struct vdpa_vf *vf);
/* Some are, and a restart, or a change of these rings alone, would make them direct? */
bool vdpa_shadow_needless_locked(const struct vdpa_vf *vf);
/* Is the ring relayed, and stands where a device begins? */
bool vdpa_shadow_begins(const struct vdpa_vf *vf, uint16_t qid);

/* vdpa_chain.c */
/* A ring's chains of descriptors. */
struct vdpa_chains {
	struct vdpa_domain *domain;
	const struct vfe_wire_vring_desc *desc; /* of the guest */
	uint16_t size;
	bool indirect; /* negotiated */
};
/*
 * Where a walk is: in the ring's own table, or in an indirect one at @table. It begins with @nr =
 * the size of the ring, @next = the head.
 */
struct vdpa_walk {
	bool indirect;
	bool ended;
	uint64_t table;
	uint32_t nr; /* descriptors of the table */
	uint32_t next;
	uint32_t seen; /* of this table */
};
/*
 * The next buffer of a chain, in the host's byte order: 1, 0 = there is none, or -EBADMSG with a
 * text. Address and length are what the guest says; each descriptor is read once.
 */
int vdpa_chain_next(const struct vdpa_chains *chains, struct vdpa_walk *walk,
	struct vfe_wire_vring_desc *ret, struct vfe_error *err);
/*
 * Mark the first @len bytes that a device may write of the chain at @head in @log, or all, if they
 * are less. 0, or -EBADMSG with a text: what of the chain comes before that is marked.
 */
int vdpa_chain_mark(const struct vdpa_chains *chains, uint16_t head, uint64_t len,
	const struct vfe_dirty_log *log, struct vfe_error *err);

/*
 * vdpa_trans.c: of a ring whose device is physical. Memory comes from the arena, as much as
 * vdpa_trans_bytes() says, and before anything else does.
 */
struct vdpa_trans;
uint64_t vdpa_trans_bytes(const struct vdpa_vf *vf);
int vdpa_trans_init(struct vdpa_vf *vf, struct vfe_error *err); /* all rings */
void vdpa_trans_fini(struct vdpa_vf *vf); /* also what is half made; none is fine */
/* The iova of the descriptor table that the device gets; it has no head now. */
int vdpa_trans_start(struct vdpa_trans *trans, uint64_t *ret_desc, struct vfe_error *err);
/*
 * Make the guest's chain at @head the device's. It must not have that head. The pieces of memory
 * that it is in, or -EBADMSG with a text: the device must not get it.
 */
int vdpa_trans_chain(struct vdpa_trans *trans, const struct vdpa_chains *chains, uint16_t head,
	struct vfe_error *err);

/* vdpa_drain.c; job of a device that is about to be reset. Waits, bounded. */
void vdpa_drain(struct vdpa_vf *vf);
uint32_t vdpa_drain_ms(struct vdpa_vf *vf); /* how long at most */
/*
 * Calls @look(vf, @arg), which tells how many rings are still busy, until that is 0 or -errno, the
 * device is lost or @ms have passed. Returns what it told last.
 */
int vdpa_drain_until(
	struct vdpa_vf *vf, uint32_t ms, int (*look)(struct vdpa_vf *vf, void *arg), void *arg);
/* Has the device used all of the ring? @seen: UINT32_MAX at first, kept between two looks. */
bool vdpa_drain_is_empty(struct vdpa_vf *vf, uint16_t qid, uint32_t *seen);

/* vdpa_plain.c */
uint16_t vdpa_plain_nr_rings(const struct vdpa_vf *vf, uint64_t features); /* with @features */
/* Job: enable the queue as vf->applied has it, direct or through a shadow ring. */
int vdpa_plain_queue_start(struct vdpa_vf *vf, uint16_t qid, struct vfe_error *err);

/* vdpa_rings.c: rings of a plain function change while it runs */
/* Can the device? Is what has changed in rings that it can change? vf->lock held. */
bool vdpa_rings_can_locked(const struct vdpa_vf *vf);
bool vdpa_rings_suffice_locked(const struct vdpa_vf *vf);
int vdpa_rings_enter(struct vdpa_vf *vf); /* reactor, as enter of the state machine */
int vdpa_rings_change(struct vdpa_vf *vf, struct vfe_error *err);      /* its job */
void vdpa_rings_done(struct vdpa_vf *vf, int status, const char *why); /* reactor, after that */

/* vdpa_suspend.c; vhost thread, but for check */
/*
 * Stop the device and keep it stopped until vf->suspend is false again. Waits, at most
 * VDPA_SUSPEND_TIMEOUT_MS; a VF that does not stop is lost, and reaches no memory any more.
 */
void vdpa_vf_suspend_wait(struct vdpa_vf *vf);
/*
 * In a migration a ring has been disabled: the others will follow, so stop and do not restart the
 * VF without that ring. Does not wait.
 */
void vdpa_vf_suspend_early(struct vdpa_vf *vf);
/* vdpa_vf_suspend_wait() for a ring; in a migration the other VFs of the VM stop meanwhile. */
void vdpa_vf_suspend_guest(struct vdpa_vf *vf);
void vdpa_vf_suspend_done_locked(struct vdpa_vf *vf); /* the ring has been stopped */
/*
 * Stop one ring while the others run, and wait for that. False: it is still to be stopped, with
 * the VF; the front-end stops all rings, or the device cannot.
 */
bool vdpa_vf_stop_ring(struct vdpa_vf *vf, uint16_t qid);
void vdpa_vf_suspend_check(struct vdpa_vf *vf); /* reactor: has the next message not come? */

/* vdpa_transit.c */
void vdpa_transit_step_locked(struct vdpa_vf *vf, enum vdpa_state next, bool to_run);
void vdpa_transit_command(struct vdpa_vf *vf);     /* one has been submitted */
void vdpa_transit_rest_locked(struct vdpa_vf *vf); /* no step is to be taken now */

/* vdpa_queue.c: what is done with rings and interrupts, on a worker */
int vdpa_vf_prepare(struct vdpa_vf *vf, struct vfe_error *err); /* blob to restore is vf->blob */
int vdpa_vf_clean(struct vdpa_vf *vf, struct vfe_error *err);
int vdpa_vf_tend(struct vdpa_vf *vf, struct vfe_error *err);
int vdpa_vf_look(struct vdpa_vf *vf, struct vfe_error *err);
void vdpa_vf_blob_parked(struct vdpa_vf *vf); /* reactor, no job in flight */
/* Doorbell and call eventfd, once; what was missed while a ring was stopped is made up for. */
void vdpa_vf_kick(struct vdpa_vf *vf, uint16_t qid);
void vdpa_vf_kick_all(struct vdpa_vf *vf); /* of all rings that the device has */
bool vdpa_ring_started(const struct vdpa_ring *ring);
/* Shall the device have it? Features may still be against it. vf->lock held. */
bool vdpa_ring_wanted(const struct vdpa_vf *vf, const struct vdpa_ring *ring);
/* The same memory, of the same size? */
bool vdpa_ring_same(const struct vdpa_applied *a, const struct vdpa_applied *b);
/* What the device has used and the guest has made available; errors as vdpa_domain_read16(). */
int vdpa_ring_indices(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t *ret_used,
	uint16_t *ret_avail);
int vdpa_ring_irq(const struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring);
/* What is wanted now, without indices. 0, or -errno with a text; fini is due in any case. */
int vdpa_plan_init(struct vdpa_vf *vf, struct vdpa_plan *plan, struct vfe_error *err);
void vdpa_plan_fini(struct vdpa_vf *vf, struct vdpa_plan *plan);
/* Where the ring begins: a device has it no more. */
int
vdpa_plan_index(struct vdpa_vf *vf, struct vdpa_plan *plan, uint16_t qid, struct vfe_error *err);
bool vdpa_vf_owns_ctrl(const struct vdpa_vf *vf); /* of the device: a plain net function */
uint64_t vdpa_vf_features_offered(const struct vdpa_vf *vf); /* to front-ends */
int vdpa_ring_translate(const struct vdpa_table *table, const struct vdpa_ring *ring,
	struct vdpa_applied *ret, struct vfe_error *err);
/* Where the ring stands: the guest's used index, else what the front-end said. */
uint16_t vdpa_ring_index(struct vdpa_vf *vf, uint16_t qid);
bool vdpa_vf_wants_run_locked(const struct vdpa_vf *vf);

/* vdpa_relay.c */
int vdpa_relay_start(struct vfe_error *err);
void vdpa_relay_stop(void);
/* Ring @doorbell with @value when @kick is signalled and *@gate is true. Slot or -errno. */
int vdpa_relay_add(struct vdpa_fd *kick, const struct vfe_pci_doorbell *doorbell, uint32_t value,
	const atomic_bool *gate, atomic_uint_least64_t *count);
/* The same with @run(@arg) in place of a doorbell; -EAGAIN of it = call it again soon. */
int vdpa_relay_add_run(struct vdpa_fd *kick, int (*run)(void *arg), void *arg,
	const atomic_bool *gate, atomic_uint_least64_t *count);
void vdpa_relay_del(int slot);  /* the doorbell is not used any more when this returns */
void vdpa_relay_poke(int slot); /* ring it from the relay: the device could not take it now */
void vdpa_vf_relay_sync(struct vdpa_vf *vf); /* reactor: slots follow the rings */

/* vdpa_notifier.c; reactor */
void vdpa_slave_init(struct vdpa_vf *vf);
void vdpa_slave_sync(struct vdpa_vf *vf); /* take or drop the channel, send what is due */
void vdpa_slave_close(struct vdpa_vf *vf);

/*
 * vdpa_inflight.c, on a worker: may @ring start at start_idx, although the device was lost with
 * requests in flight? @first is where that device began. 0, or -errno with a text.
 */
int vdpa_inflight_check(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring,
	uint16_t first, struct vfe_error *err);

/* Worker: the device is dead. Take note of rings in which it had nothing. */
void vdpa_inflight_note(struct vdpa_vf *vf);

/* vdpa_ops.c */
struct rte_vdpa_dev_ops;
extern struct rte_vdpa_dev_ops vdpa_ops;

/* vdpa_debug.c */
void vdpa_debug_fini(struct vdpa_vf *vf); /* ends what an operator has begun */

/* vdpa_conn.c: the connection of a front-end */
/* Give the connection of @vid a timeout. A duplicate of its fd, or -1. */
int vdpa_conn_find(int vid);

#endif /* VDPA_PRIV_H */
