/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * A block data path that notes what it is told and drains when the test says so.
 */

#ifndef FAKE_BP_H
#define FAKE_BP_H

#include "blkpath.h"

enum { FAKE_BP_QUEUES = 4 };

struct fake_bp_port {
	struct bp_port_cfg cfg;
	struct {
		bool started;
		bool draining;
		int kicks;
		uint32_t in_flight; /* set by the test */
		struct dp_queue_cfg cfg;
	} queues[FAKE_BP_QUEUES];
	const struct vfe_iova_map *map;
	const struct vfe_vring_watch *watch;
	unsigned int settles;
	bool writeback;
	int release_error; /* of bp_port_release() */
};

/* The port whose owner is @ctx, a function. */
struct fake_bp_port *fake_bp_of(const void *ctx);

/* All ports are gone. */
void fake_bp_forget_disks(void);

#endif /* FAKE_BP_H */
