/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Configuration file of the controller (doc/controller.md): read once at start, checked as a whole.
 */

#ifndef CONTROLLER_CONFIG_H
#define CONTROLLER_CONFIG_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

#include "blkpath.h"
#include "datapath.h"
#include "vfe_base.h"
#include "vfe_bdf.h"

enum {
	CONFIG_MAX_PFS = 32,
	CONFIG_MAX_VFS = 2048, /* of all PFs together */
	CONFIG_MAX_PATH = 80,  /* leaves room for "/<BDF>.sock" in an address of a UNIX socket */

	CONFIG_MAX_RPC_PATH = 108,
	CONFIG_MAX_GROUP = 64,
	CONFIG_MAX_LATENCY_US = 60000000,

	CONFIG_MAX_BDEVS = CONFIG_MAX_VFS + CONFIG_MAX_PFS,

	CONFIG_SF_PF = 1000, /* numbers of the representors, as the user guide has them */
	CONFIG_SF_VF = 3000,
};

struct config_backend {
	enum dp_backend type;
	char tap_name[IFNAMSIZ];
};

enum config_type { CONFIG_NET, CONFIG_BLK };

/* Block function. */
struct config_blk {
	char bdev[BP_NAME_SIZE]; /* "" = no controller at start */
	char vblk_id[BP_ID_SIZE + 1];
	uint32_t num_queues; /* also the most that a later controller may have */
	uint32_t seg_max;    /* 0 = default */
	uint32_t size_max;   /* 0 = default */
	bool read_only;
	bool in_order;
	bool no_admin_q; /* of a PF; only by management */
};

struct config_bdev {
	char name[BP_NAME_SIZE];
	char path[BP_PATH_SIZE];
	enum bp_disk_type type;
	enum bp_io io;
	uint64_t size; /* bytes, 0 = as large as the file is */
	uint32_t block_size;
	bool read_only;
	bool buffered;
};

struct config_bdevs {
	unsigned int nr;
	struct config_bdev *bdevs;
};

/* One PCI function. */
struct config_function {
	struct vfe_bdf bdf;
	enum config_type type;
	uint16_t pf_id; /* own number among those of its type, or the parent's */
	bool is_vf;
	uint16_t vf_id; /* below its PF, from 0 */
	uint32_t sf_num;
	uint8_t mac[6];
	uint16_t mtu;
	uint16_t qp_num;   /* queue pairs */
	uint16_t num_msix; /* vectors */
	uint64_t features; /* mask over what the device type implements */
	struct config_backend backend;
	struct config_blk blk;

	/* PF only */
	uint16_t nr_vfs;
	uint16_t first_vf_offset; /* routing id of VF 0 minus that of the PF */
	uint16_t vf_stride;
	struct config_function *vfs; /* nr_vfs */
};

struct config_cpus {
	unsigned int nr;
	int cpu[DP_MAX_WORKERS];
};

/* For tests; an operator can change them while the controller runs. */
struct config_knobs {
	uint32_t admin_latency_us; /* each admin command takes so long */
	uint32_t dirty_lose_pages; /* pages whose number is a multiple are never marked dirty */
	bool scribble;             /* back ends of this type write */
};

struct config {
	char dir[CONFIG_MAX_PATH];
	char rpc_socket[CONFIG_MAX_RPC_PATH];
	char rpc_group[CONFIG_MAX_GROUP]; /* "" = root only */
	char sf_parent_device[32];
	uint32_t workers;
	struct config_cpus cpus; /* of the workers; none = not pinned */
	bool polling;
	uint32_t blk_spin_us; /* as in datapath.h */
	uint32_t queue_size;
	uint32_t dirty_modes; /* bit n: mode n of tracking dirty pages is offered */
	bool dirty_coarse;    /* mark 8 pages at a time in bitmaps */
	struct config_knobs knobs;
	uint32_t reset_latency_us; /* test knob */
	uint32_t drain_timeout_ms; /* how long a back end may take when a VF is stopped */
	struct config_bdevs bdevs;
	unsigned int nr_pfs;
	struct config_function pfs[CONFIG_MAX_PFS];
	char ignored[256]; /* keys of the file that mean nothing without the hardware */
};

/*
 * Read and check the file. Returns 0 (config_fini() frees what it holds), or -errno with a text
 * that names file, key and what was expected.
 */
int config_load(const char *path, struct config *ret, struct vfe_error *err);

/* The same from text, for tests. */
int config_parse(const char *text, struct config *ret, struct vfe_error *err);

/* "push_bitmap" for a mode of tracking dirty pages, NULL when there is no such mode. */
const char *config_dirty_mode_name(uint16_t mode);

void config_fini(struct config *config);

/* Queues of a function at most, without the admin queue of a PF. */
uint16_t config_nr_queues(const struct config_function *fn);

#endif /* CONTROLLER_CONFIG_H */
