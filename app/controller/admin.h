/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Admin queue of a PF in the vendor dialect (vfe_wire_admin.h), device side.
 */

#ifndef CONTROLLER_ADMIN_H
#define CONTROLLER_ADMIN_H

#include <stdint.h>

#include "function.h"

struct admin;

struct admin_stats {
	uint64_t commands;
	uint64_t errors;    /* answered with a status other than OK */
	uint32_t in_flight; /* waiting for their latency (a test knob), or for a VF to stop */
};

/* @pf has its VFs in pf->vfs by the time the first command comes. */
int admin_create(struct function *pf, struct admin **ret, struct vfe_error *err);
void admin_destroy(struct admin *admin);

int admin_queue_start(struct admin *admin, const struct dp_queue_cfg *cfg,
	const struct vfe_iova_map *map, struct vfe_error *err);

/* Commands in flight are forgotten: the driver has given up its buffers. */
void admin_queue_stop(struct admin *admin, uint16_t *ret_avail, uint16_t *ret_used);
void admin_queue_kick(struct admin *admin);
void admin_set_map(struct admin *admin, const struct vfe_iova_map *map);

/* [@va, @va + @size) goes away: commands in flight with buffers there are answered nowhere. */
void admin_forget_memory(struct admin *admin, const void *va, uint64_t size);

/* Answer the commands that wait for @vf to stop: 0 or -errno. */
void admin_stopped(struct admin *admin, const struct function *vf, int rc);

void admin_get_stats(const struct admin *admin, struct admin_stats *ret);

#endif /* CONTROLLER_ADMIN_H */
