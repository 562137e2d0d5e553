/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Virtio PFs and VFs as vDPA devices: provisioning, vhost connections, information.
 *
 * Threads. Provisioning calls (add, remove, reattach) may take as long as a device reset and come
 * from one thread, which is neither the vhost thread nor one that must stay responsive.
 * Connection calls come from the vhost thread. Information calls may come from any thread and
 * never wait for a device. The driver runs three threads of its own, whatever the number of
 * devices: a reactor (admin completions, deadlines, lost devices, configuration interrupts), a
 * doorbell relay, and a sender of host notifiers.
 */

#ifndef VFE_VDPA_H
#define VFE_VDPA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"
#include "vfe_bdf.h"

/* Error numbers of the management interface. */
enum vfe_vdpa_code {
	VFE_VDPA_OK = 0,
	VFE_VDPA_NO_PF_NAME = 1000,
	VFE_VDPA_NO_PF_DEVICE = 1001,
	VFE_VDPA_NO_VF_NAME = 1002,
	VFE_VDPA_NO_VF_DEVICE = 1003,
	VFE_VDPA_VFIO_DEV_FD = 1004,
	VFE_VDPA_EXCEED_LIMIT = 1005,
	VFE_VDPA_RESET_TIMEOUT = 1006,
	VFE_VDPA_DEVARGS_PARSE = 1007,
	VFE_VDPA_PF_ALREADY_ADDED = 1008,
	VFE_VDPA_PROBE_FAIL = 1009,
	VFE_VDPA_PF_DEVICE_ID = 1010,
	VFE_VDPA_PF_FEATURES = 1011,
	VFE_VDPA_PF_ADMIN_QUEUE = 1012,
	VFE_VDPA_PF_HAS_VFS = 1013,
	VFE_VDPA_VF_ALREADY_ADDED = 1014,
	VFE_VDPA_VF_NO_VFID = 1015,
	VFE_VDPA_VF_CONTAINER = 1016,
	VFE_VDPA_VF_GROUP_BIND = 1017,
	VFE_VDPA_VF_IOMMU_GROUP = 1018,
	VFE_VDPA_VF_ALLOC = 1019,
	VFE_VDPA_VF_REGISTER = 1020,
	VFE_VDPA_VF_QUEUES = 1021,
	VFE_VDPA_VF_NO_VECTOR = 1022,
	VFE_VDPA_VF_IRQ_ALLOC = 1023,
	VFE_VDPA_VF_IRQ_REGISTER = 1024,
	VFE_VDPA_VF_IRQ_ENABLE = 1025,
	VFE_VDPA_VF_BAR_COPY = 1026,
	VFE_VDPA_VF_QUIESCE = 1027,
	VFE_VDPA_VF_FREEZE = 1028,
	VFE_VDPA_VF_PORT_LIMIT = 1029,
	VFE_VDPA_VF_SOCKET_ACCESS = 1030,
	VFE_VDPA_VF_DRIVER_REGISTER = 1031,
	VFE_VDPA_VF_GET_FEATURES = 1032,
	VFE_VDPA_VF_SET_FEATURES = 1033,
	VFE_VDPA_VF_CALLBACK_REGISTER = 1034,
	VFE_VDPA_VF_ATTACH_VDPA = 1035,
	VFE_VDPA_VF_DRIVER_START = 1036,
	VFE_VDPA_VF_IOMMU_DOMAIN = 1037,
	VFE_VDPA_VF_SOCKET_EXISTS = 1038,
	VFE_VDPA_VF_MAX_GROUP = 1039,
	VFE_VDPA_VF_SAVE_STATE = 1040,
	VFE_VDPA_VF_STORE_FD = 1041,
	VFE_VDPA_VF_RESTORING = 1042,
};

/* A failure with its management number and a text for people (device named). */
struct vfe_vdpa_error {
	enum vfe_vdpa_code code;
	struct vfe_error err;
};

struct rte_vdpa_device;

struct vfe_vdpa_cfg {
	const char *vfio_user_dir;     /* where <BDF>.sock are; copied */
	uint32_t transport_timeout_ms; /* one transport command; 0 = default */
	uint32_t reset_timeout_ms;     /* a device reset when probing; 0 = 120 s */

	/*
	 * How dirty pages are tracked in a migration; NULL or "auto" = what suits device, guest
	 * and log best. For tests: "direct", "push-bitmap", "pull-bitmap", "push-bytemap",
	 * "pull-bytemap", "relay" (plain functions), or "all" (mark all memory); what cannot be had
	 * is "all" then.
	 */
	const char *dirty_mode;

	/*
	 * A PF or VF was lost (its transport hung up, or it broke a protocol), or may be back.
	 * Called on the reactor thread; must not block. The receiver calls vfe_vdpa_reattach()
	 * from the provisioning thread when the device is there again.
	 */
	void (*on_lost)(void *ctx, const struct vfe_bdf *bdf, const char *why);

	/*
	 * A refresh of some VF has ended; vfe_vdpa_vf_info tells which ones have not. Called on
	 * the reactor thread; must not block. NULL = nobody wants to know.
	 */
	void (*on_refreshed)(void *ctx);
	void *ctx;
};

/* Start the driver's threads. Once, after rte_eal_init(). Returns 0 or -errno. */
int vfe_vdpa_init(const struct vfe_vdpa_cfg *cfg, struct vfe_error *err);

/* Remove what is left (VFs parked), end the threads. */
void vfe_vdpa_fini(void);

/* --- provisioning --- */

int vfe_vdpa_pf_add(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err);

/*
 * The same for a PF of the kernel that shall have @num_vfs VFs, which are created now and bound to
 * vfio-pci unless it has that many already. A PF that cannot be added gets none.
 */
int
vfe_vdpa_pf_add_vfs(const struct vfe_bdf *bdf, unsigned int num_vfs, struct vfe_vdpa_error *err);
int vfe_vdpa_pf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err);

/*
 * @uuid names the VM (36 characters), NULL or all zero = a VM of its own. VFs with the same UUID
 * share one set of DMA mappings.
 */
int vfe_vdpa_vf_add(const struct vfe_bdf *bdf, const char *uuid, struct vfe_vdpa_error *err);

/*
 * The same for a function that no PF manages, whatever it is: it is driven by its own registers.
 * vfe_vdpa_vf_add() does so by itself with the kernel's functions that are no VF, or the VF of a PF
 * that has another driver.
 *
 * With @allow_no_iommu one that VFIO has in no-IOMMU mode is taken, too: its rings are relayed, so
 * that it is told nothing but addresses of guest memory, which must be of huge pages. It could
 * reach all other memory, if it wanted. Its DMA mappings are its own, whatever its @uuid.
 */
int vfe_vdpa_vf_add_plain(const struct vfe_bdf *bdf, const char *uuid, bool allow_no_iommu,
	struct vfe_vdpa_error *err);

/* The VF must not be attached to a vhost socket any more. It is parked and reset. */
int vfe_vdpa_vf_remove(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err);

/*
 * Open a lost device again and bring it to where it was: PF with admin queue; VF with memory,
 * interrupts and rings, running again if its front-end is connected. -EAGAIN when the transport
 * is not back yet, or when a VF's PF is not.
 */
int vfe_vdpa_reattach(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err);

/* --- vhost side --- */

/* The registered vDPA device of a VF, or NULL. */
struct rte_vdpa_device *vfe_vdpa_vf_device(const struct vfe_bdf *bdf);

/* Bits to set with rte_vhost_driver_set_features() and _set_protocol_features(). */
int vfe_vdpa_vf_vhost_features(
	const struct vfe_bdf *bdf, uint64_t *ret_features, uint64_t *ret_protocol_features);

/*
 * A front-end has connected as @vid: installs the message handlers. From new_connection().
 * Returns 0 or -errno (the connection is then to be refused).
 */
int vfe_vdpa_vf_connect(const struct vfe_bdf *bdf, int vid, struct vfe_error *err);

/*
 * The front-end of @vid has gone: the VF is suspended and parked in the background, its guest
 * memory unmapped after that. From destroy_connection().
 */
void vfe_vdpa_vf_disconnect(int vid);

/* --- information --- */

enum { VFE_VDPA_MAX_QUEUES = 256 };

struct vfe_vdpa_pf_info {
	struct vfe_bdf bdf;
	bool lost;
	uint16_t device_id;
	uint16_t nr_vfs; /* managed ones */
	uint64_t device_features;
	uint64_t admin_commands; /* completed */
	uint64_t admin_retries;
	uint64_t admin_errors;
};

struct vfe_vdpa_queue_info {
	bool enabled;
	bool host_notifier; /* doorbell page mapped into the guest */
	uint16_t size;
	uint16_t last_avail_idx; /* where it was started */
	uint64_t relayed_kicks;
	/* relayed by software: of a plain function, one that did not begin at 0, or no_iommu */
	bool shadow;
	uint64_t relayed_chains; /* by that */
};

enum vfe_vdpa_phase {
	VFE_VDPA_PHASE_OTHER,
	VFE_VDPA_PHASE_QUIESCE, /* commands to stop; of a resume: the device was not frozen yet */
	VFE_VDPA_PHASE_FREEZE,
	VFE_VDPA_PHASE_FLUSH,   /* the last dirty pages go to the log, tracking ends */
	VFE_VDPA_PHASE_RESET,   /* stopped by its own registers, when the commands have failed */
	VFE_VDPA_PHASE_PREPARE, /* memory, interrupts, the blob */
	VFE_VDPA_PHASE_RESTORE, /* the blob travels to the device */
	VFE_VDPA_PHASE_TRACK,   /* dirty pages are tracked before it runs */
	VFE_VDPA_PHASE_UNQUIESCE,
	VFE_VDPA_PHASE_START,
	VFE_VDPA_NR_PHASES,
};

/* What the last suspend or resume of a VF took, as seen by the driver. */
struct vfe_vdpa_transit {
	uint64_t begin_unix_us; /* wall clock; 0 = there was none */
	uint64_t total_ns;
	uint64_t phase_ns[VFE_VDPA_NR_PHASES];
	unsigned int commands; /* of the admin queue */
	bool ok;               /* else it was stopped by other means, or did not get to run */
};

/* Dirty pages of a VF since its front-end has begun to migrate. */
struct vfe_vdpa_dirty_info {
	char mode[16];      /* "off", or one of vfe_vdpa_cfg.dirty_mode */
	uint64_t rounds;    /* merges into the log; none in the modes direct and relay */
	uint64_t pages;     /* that were found dirty then */
	uint64_t map_bytes; /* that were looked at for it */
	uint64_t all;       /* how often all memory was marked */
	uint64_t merge_ns;  /* what the merges took */
	uint64_t last_merge_ns;
	char last_error[160]; /* why the device does not track; "" when none */
};

struct vfe_vdpa_vf_info {
	struct vfe_bdf bdf;
	struct vfe_bdf pf;      /* 0000:00:00.0 = none */
	uint16_t vf_index;      /* 0-based */
	char drive[16];         /* "managed" by the PF, or "plain": by its own registers */
	uint64_t device_resets; /* of a plain function, by its registers, since it was added */
	uint64_t ring_resets;   /* the same of single rings, while others go on */
	uint16_t device_id;
	char transport[16];
	bool no_iommu; /* nothing keeps the device from any memory */
	char uuid[37];
	bool lost;
	char last_error[256]; /* "" when none */
	bool connected;       /* front-end there */
	bool configured;      /* running for a guest */
	bool refreshing;      /* vfe_vdpa_vf_refresh() has not ended */
	char state[16];       /* "parked", "running", "suspended", "lost" ... */
	uint32_t msix_num;
	uint16_t queue_num; /* data queues */
	uint16_t queue_size;
	uint64_t device_features;
	uint64_t guest_features;  /* of virtio, offered to the guest */
	uint64_t driver_features; /* negotiated with the guest, as given to the device */
	uint8_t mac[6];           /* net */
	uint16_t mtu;
	bool link_up;      /* a disk has one */
	uint64_t capacity; /* bytes; blk */
	uint32_t block_size;
	bool read_only;
	bool writeback; /* has a write cache */
	uint16_t nr_mem_regions;
	uint64_t mem_bytes;
	char migration[16]; /* "none"; "logging", "stopped": the front-end is migrating */
	struct vfe_vdpa_transit last_suspend;
	struct vfe_vdpa_transit last_resume;
	struct vfe_vdpa_dirty_info dirty;
	uint64_t relayed_kicks; /* sum of the queues */
	struct vfe_vdpa_queue_info queues[VFE_VDPA_MAX_QUEUES];
};

/* Fill up to @max entries; returns how many there are. */
size_t vfe_vdpa_pf_list(struct vfe_vdpa_pf_info *ret, size_t max);

/* BDFs of the VFs of @pf (0000:00:00.0 = functions without one); returns how many there are, or
 * -ENODEV when @pf is not managed. */
ssize_t vfe_vdpa_vf_list(const struct vfe_bdf *pf, struct vfe_bdf *ret, size_t max);

/* 0 or -ENODEV. */
int vfe_vdpa_vf_info(const struct vfe_bdf *bdf, struct vfe_vdpa_vf_info *ret);

/*
 * Have the configuration space (MAC address, MTU, link, capacity) of a parked VF read: nothing
 * tells of changes then. Any thread, does not wait. Returns 0 when on_refreshed() will tell the
 * end, whether the device has answered or not; 1 when there is nothing to be read, because the VF
 * is lost or has a guest, for which changes are followed; -ENODEV. It does not end while a test
 * operation holds the VF, or with a removal.
 */
int vfe_vdpa_vf_refresh(const struct vfe_bdf *bdf);

/*
 * Test operations of `vhostmgmt vf -d`: 1 running, 2 quiesced, 3 freeze (-EBUSY unless the VF is
 * parked and has no front-end), 4 start logging into a map of our own (@size_mode: 1 bitmap, 2
 * bytemap; the VF has a guest that is not being migrated), 5 stop logging and check that the used
 * rings and last used buffers are marked (-EILSEQ), 6 get status. Provisioning thread.
 * *@ret_value (may be NULL) gets the device's internal status for 6, the number of marked pages
 * for 5.
 */
int vfe_vdpa_vf_debug(const struct vfe_bdf *bdf, unsigned int operation, unsigned int size_mode,
	unsigned int *ret_value, struct vfe_vdpa_error *err);

#endif /* VFE_VDPA_H */
