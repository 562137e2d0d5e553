/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The world around the vDPA driver, for tests: PCI functions, virtio registers, an admin queue
 * whose commands the test answers, librte_vhost as a front-end would move it, EAL's hotplug.
 *
 * The driver's own threads run. The test is the provisioning and the vhost thread, and waits for
 * commands (fake_expect()) and states (fake_wait_state()), never for time.
 */

#ifndef FAKE_WORLD_H
#define FAKE_WORLD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "vdpa_msg.h"
#include "vfe_state.h"
#include "vfe_vdpa.h"
#include "vfe_virtio.h"
#include "vfe_virtio_admin.h"

enum {
	FAKE_QUEUES = 4, /* data queues of a VF */
	FAKE_QUEUE_SIZE = 256,
	FAKE_RING_SIZE = 64,       /* that guests choose */
	FAKE_RING_STRIDE = 0x4000, /* from ring to ring in their memory */
	FAKE_RING_AVAIL = 0x1000,
	FAKE_RING_USED = 0x2000,
	FAKE_VFS = 4,
	FAKE_VF_DEV = 4, /* PCI device number of VFs */
	FAKE_MEM_SIZE = 1 << 20,
	FAKE_MEM_GPA = 0x100000,
	FAKE_PROTOCOL_STATUS = 1 << VDPA_PROTOCOL_F_STATUS,
};
#define FAKE_MEM_UVA 0x7f0000000000ULL
#define FAKE_FEATURES                                                                            \
	(VFE_BIT(VFE_NET_F_CSUM) | VFE_BIT(VFE_NET_F_MAC) | VFE_BIT(VFE_NET_F_MTU) |             \
		VFE_BIT(VFE_NET_F_STATUS) | VFE_BIT(VFE_NET_F_MQ) | VFE_BIT(VFE_NET_F_CTRL_VQ) | \
		VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX) | VFE_BIT(VFE_NET_F_CTRL_RX) |              \
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |        \
		VFE_BIT(VFE_VIRTIO_F_RING_PACKED) | VFE_BIT(VFE_VIRTIO_F_RING_RESET))
#define FAKE_BLK_FEATURES                                                                      \
	(VFE_BIT(VFE_BLK_F_BLK_SIZE) | VFE_BIT(VFE_BLK_F_SEG_MAX) | VFE_BIT(VFE_BLK_F_FLUSH) | \
		VFE_BIT(VFE_BLK_F_CONFIG_WCE) | VFE_BIT(VFE_BLK_F_MQ) |                        \
		VFE_BIT(VFE_VIRTIO_F_VERSION_1) | VFE_BIT(VFE_VIRTIO_F_ACCESS_PLATFORM) |      \
		VFE_BIT(VFE_VIRTIO_F_IN_ORDER) | VFE_BIT(VFE_VIRTIO_F_RING_PACKED) |           \
		VFE_BIT(VFE_VIRTIO_F_RING_RESET))

enum fake_kind {
	FAKE_INIT = VFE_ADMIN_VF_INIT,
	FAKE_RUN = VFE_ADMIN_VF_RUNNING,
	FAKE_QUIESCE = VFE_ADMIN_VF_QUIESCED,
	FAKE_FREEZE = VFE_ADMIN_VF_FREEZED,
	FAKE_RESTORE,
	FAKE_GET_STATUS,
	FAKE_TRACK_START,
	FAKE_TRACK_STOP,
	FAKE_TRACK_PENDING,
	FAKE_TRACK_REPORT,
	FAKE_NR_KINDS,
};

/* Where bringing a device up fails, when the test says so. */
enum fake_stage {
	FAKE_STAGE_NONE,
	FAKE_STAGE_FIND,
	FAKE_STAGE_OPEN,
	FAKE_STAGE_INIT,
	FAKE_STAGE_DEVICE_ID,
	FAKE_STAGE_RESET,
	FAKE_STAGE_STATUS,
	FAKE_STAGE_FEATURES,
	FAKE_STAGE_VECTORS,
	FAKE_STAGE_QUEUE,
	FAKE_STAGE_DOORBELL,
	FAKE_STAGE_CONFIG,
	FAKE_STAGE_MASTER,
	FAKE_STAGE_IRQ,
	FAKE_STAGE_REGISTER,
	FAKE_STAGE_ARENA,
	FAKE_STAGE_ADMIN,
	FAKE_STAGE_IDENTIFY,
	FAKE_STAGE_SRIOV,
	FAKE_STAGE_PROBE, /* EAL itself */
};

/* The registers of one VF, and what its control queue does. */
struct fake_regs {
	uint8_t status;
	uint64_t features;
	uint16_t config_vector;
	bool enabled[FAKE_QUEUES + 1];
	bool was_reset[FAKE_QUEUES + 1]; /* alone: may be enabled while the device runs */
	struct vfe_virtio_queue_cfg queues[FAKE_QUEUES + 1];
	uint16_t ctrl_avail;
	unsigned int ctrl_commands;
	bool promisc;
	uint16_t pairs;
};

/* What happened to one VF; read under world.lock or when nothing is in flight. */
struct fake_vf_log {
	unsigned int resets;
	unsigned int ring_resets[FAKE_QUEUES + 1];
	uint16_t *ring_reset_adds; /* available index that goes on meanwhile; NULL = none */
	int ring_reset_fails; /* -ETIMEDOUT: it never ends; -EIO: it is a lie; others as they are */
	unsigned int irq_sets;
	int irq_fds[FAKE_QUEUES + 1]; /* as given; only compared */
	atomic_uint doorbells[FAKE_QUEUES];
	atomic_int doorbell_eagain; /* so many rings answer -EAGAIN */
	struct vfe_state state;     /* of the last RESTORE */
	bool has_state;
	unsigned int restores;
	struct fake_regs regs;
	bool physical;
	bool master;
	bool ctrl_refuses; /* commands */
	bool ctrl_lies;    /* about its used index */
};

struct fake_world {
	pthread_mutex_t lock;
	pthread_cond_t cond;

	bool automatic; /* commands succeed by themselves */
	enum fake_stage fail_stage;
	unsigned int fail_from; /* so many passes of the stage succeed before */
	int fail_errno;
	unsigned int open_devices;
	unsigned int domains;
	unsigned int mapped;
	unsigned int maps;
	unsigned int unmaps;
	unsigned int arenas;
	unsigned int registered;
	int fail_map; /* -errno for the next map */
	bool fail_reset;
	void (*on_queue_enable)(void *arg); /* on the thread that does it, once; NULL = nothing */
	void *arg;
	bool no_ring_reset; /* devices that are opened from now on have no RING_RESET */
	bool no_iommu;      /* the same have none: see fake_bus_of() */
	bool no_indirect;   /* and no RING_INDIRECT_DESC, which they have else */
	bool no_huge_pages; /* physical devices do not reach guest memory */
	uint8_t mac_last;   /* of devices that are opened from now on */
	uint16_t link_status;
	bool blk; /* functions are block devices */
	struct vfe_wire_blk_config disk;
	unsigned int config_writes;
	uint32_t config_write_off; /* of the last one */
	uint8_t config_write_value;
	bool kernel;              /* functions are the kernel's, not sockets */
	bool no_driver;           /* they have none */
	unsigned int created_vfs; /* by the kernel */
	unsigned int detaches;
	struct fake_vf_log vf[FAKE_VFS];

	struct vfe_admin_caps caps;   /* of PFs that are added from now on */
	int fail_kind[FAKE_NR_KINDS]; /* -errno for all commands of that kind, when automatic */
	unsigned int count[FAKE_NR_KINDS]; /* commands that came */

	unsigned int lost_calls;
	char lost_name[VFE_BDF_STR_SIZE];
	unsigned int refreshes; /* calls of on_refreshed() */
};
extern struct fake_world world;

/* PF is 0000:af:00.2, its VFs are 0000:af:04.0 and following. */
extern const struct vfe_bdf fake_pf;
struct vfe_bdf fake_vf(unsigned int i);

void fake_start(void);     /* the driver with short times */
void fake_start_blk(void); /* the same with block devices */
void fake_stop(void);      /* and nothing may be left */
void fake_stage(enum fake_stage stage, unsigned int passes, int neg_errno);

/* Wait for the next command; it must be @kind of VF @i. It is answered by fake_answer(). */
void fake_expect(unsigned int i, enum fake_kind kind);
void fake_answer(int status);
/* Call the completion of the last answered command a second time. */
void fake_answer_again(void);
/* fake_expect() and fake_answer(0) for each of the kinds; ends with -1. */
void fake_serve(unsigned int i, const int *kinds);
#define FAKE_SERVE(i, ...) fake_serve((i), (const int[]){__VA_ARGS__, -1})
/* No command waits, and none comes while the reactor is flushed. */
void fake_expect_nothing(void);
/* The reactor has done what was posted, and what its fds asked for then. */
void fake_flush(void);

/* A copy of the registers of VF @i. */
struct fake_regs fake_regs(unsigned int i);

void fake_wait_state(unsigned int i, const char *state);
void fake_wait_unmapped(void);                      /* no guest memory is mapped any more */
struct vfe_vdpa_vf_info *fake_info(unsigned int i); /* overwritten by the next call */

/* The transport of a function ends. */
void fake_hang_up(const struct vfe_bdf *bdf);
/*
 * Where a device without an IOMMU finds a byte of the guest: pages that follow each other for the
 * guest do not on the bus. Memory of the driver is elsewhere, too.
 */
uint64_t fake_bus_of(uint64_t gpa);
/* Memory of the driver at a device address, NULL when there is none. */
void *fake_arena_at(uint64_t iova);
/* A configuration change interrupt of VF @i. */
void fake_config_interrupt(unsigned int i);

/* --- dirty pages --- */

/*
 * The device, if it runs, writes the page of @gpa: marks it if it tracks it (returns true). A push
 * into memory that is not mapped for the PF fails the test.
 */
bool fake_device_writes(unsigned int i, uint64_t gpa);
bool fake_device_tracks(unsigned int i);      /* anything */
unsigned int fake_track_mode(unsigned int i); /* VFE_ADMIN_TRACK_*, 0 = none */

/* The rest is for fake_world.c. */
struct fake_track_cmd {
	struct vfe_wire_admin_track_start start;
	struct vfe_wire_admin_sge sge;
	uint64_t range_addr;
	uint64_t offset;
	uint64_t length;
};
int fake_admin_submit(struct vfe_admin *admin, unsigned int vf, enum fake_kind kind,
	const struct fake_track_cmd *track, vfe_admin_done done, void *ctx);
/* The device does it; its output, malloc()ed, or NULL. world.lock held. */
void *fake_track_execute(
	unsigned int vf, enum fake_kind kind, const struct fake_track_cmd *cmd, size_t *ret_len);
void fake_track_map(struct vfe_pci_domain *domain, const struct vfe_pci_dma *dma);
void fake_track_unmap(struct vfe_pci_domain *domain, uint64_t iova);
void fake_track_reset(void);

/* --- front-ends; vid is the VF's number --- */

struct fake_guest {
	unsigned int vf;
	int vid;
	int mem_fd;
	uint8_t *mem;
	int kick[FAKE_QUEUES];
	int call[FAKE_QUEUES];
	int slave; /* our end of the back-end channel, -1 = none */
};

/* Result of the handlers: 0, or -1 = refused. @fds are duplicated, as a socket would. */
int fake_send(
	int vid, uint32_t request, const void *payload, uint32_t size, const int *fds, int nr_fds);
int fake_send_u64(int vid, uint32_t request, uint64_t value);
int fake_send_state(int vid, uint32_t request, uint32_t index, uint32_t num);
/* GET_CONFIG, and what the driver gives; -1 = nothing, -2 = the message is refused. */
int fake_get_config(int vid, uint32_t offset, uint32_t size, uint8_t *buf);
/* GET_VRING_BASE; the answer, or -1 = refused. */
int fake_get_base(int vid, uint32_t index);

/* GET_VRING_BASE from a thread of its own, for an answer that waits for the test. */
struct fake_get_base {
	pthread_t thread;
	int vid;
	uint32_t index;
	int base;
};
void fake_get_base_begin(struct fake_get_base *get, int vid, uint32_t index);
int fake_get_base_end(struct fake_get_base *get);

void fake_guest_open(struct fake_guest *g, unsigned int vf);
void fake_guest_connect(struct fake_guest *g, uint64_t protocol_features);
/* Its first SET_FEATURES has LOG_ALL. */
void fake_guest_connect_logging(struct fake_guest *g, uint64_t protocol_features);
int fake_guest_mem(struct fake_guest *g);
void fake_guest_ring(struct fake_guest *g, unsigned int q); /* size, address, kick, call */
void fake_guest_enable(struct fake_guest *g, unsigned int q, bool on);
/* Memory and its first @n rings, enabled: what is between its connection and DRIVER_OK. */
void fake_guest_prepare(struct fake_guest *g, unsigned int n);
void fake_guest_driver_ok(struct fake_guest *g);
/* Both, and it is running when this returns. Needs world.automatic. */
void fake_guest_run(struct fake_guest *g, unsigned int n);
/* All of it, with two rings. */
void fake_guest_start(struct fake_guest *g);
void fake_guest_disconnect(struct fake_guest *g);
void fake_guest_close(struct fake_guest *g);
struct vfe_wire_vring_avail *fake_guest_avail(struct fake_guest *g, unsigned int q);
struct vfe_wire_vring_used *fake_guest_used(struct fake_guest *g, unsigned int q);
void fake_guest_set_used(struct fake_guest *g, unsigned int q, uint16_t idx);
/* The guest makes @head available in place @pos, or the device gives it back there. */
void fake_guest_set_avail(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head);
void fake_guest_complete(struct fake_guest *g, unsigned int q, uint16_t pos, uint16_t head);
void fake_guest_slave(struct fake_guest *g); /* SET_SLAVE_REQ_FD */

/* --- fixture.c --- */

/* Add VF @i, with the VM @uuid or NULL; the test fails when that fails. */
void fake_vf_add(unsigned int i, const char *uuid);

/* The same of VF @i as a plain function. */
void fake_vf_add_plain(unsigned int i);

/* PF and VF 0 in a world that has been started, and a guest of that VF in @state. */
int fake_setup_started(void **state);

/* The same, world and all, for cmocka_unit_test_setup_teardown(). */
int fake_setup(void **state);
int fake_teardown(void **state);

/* VF 0 alone, a plain function, in a world that has been started. */
int fake_setup_started_plain(void **state);

/* File descriptors of the process that are open. */
unsigned int fake_nr_fds(void);

/* An index of a ring, as the other side writes it; wait until it is @value, 10 s at most. */
void fake_store16(uint16_t *p, uint16_t value);
void fake_wait16(const uint16_t *p, uint16_t value);

/* The device is done with the chain of @head: that is entry @at of @used, the last one so far. */
void fake_ring_use(struct vfe_wire_vring_used *used, uint16_t at, uint16_t head, uint32_t len);
void fake_ring_interrupt(unsigned int i, unsigned int q); /* of the device, a VF's */

/* Until its last error has @text in it, or its dirty pages are found by @mode; 10 s at most. */
void fake_wait_error(unsigned int i, const char *text);
void fake_wait_mode(unsigned int i, const char *mode);

bool fake_signalled(int fd); /* an eventfd, which is taken back */

/* Between the parts of the world. */

/* When to give up waiting: far more than anything takes. */
void fake_until(struct timespec *ts);

/* Does @stage fail now? Then @ret is what it returns. */
bool fake_stage_fails(enum fake_stage stage, int *ret);

#define FAKE_STAGE(stage, err)                                                          \
	do {                                                                            \
		int stage_ret;                                                          \
		if (fake_stage_fails(stage, &stage_ret))                                \
			return vfe_error_set(err, stage_ret, "stage %d", (int)(stage)); \
	} while (0)

/* The device has something to say, or to begin; world.lock held. */
void fake_admin_wake_locked(void);

#endif /* FAKE_WORLD_H */
