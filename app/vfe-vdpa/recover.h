/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Bring lost devices back: when the controller behind a vfio-user socket was restarted, its
 * functions are opened again, PFs before their VFs, and the guests go on.
 */

#ifndef RECOVER_H
#define RECOVER_H

#include "jobs.h"
#include "vfe_base.h"
#include "vfe_bdf.h"
#include "watch.h"

struct recover_cfg {
	struct ev_loop *loop;
	struct jobs *jobs;
	struct watches *watches;
	const char *vfio_user_dir; /* borrowed */
};

/* Once, on the main loop's thread. */
int recover_init(const struct recover_cfg *cfg, struct vfe_error *err);

/* After the provisioning thread has ended. */
void recover_fini(void);

/* The device is lost; for struct vfe_vdpa_cfg. Any thread, never blocks. */
void recover_on_lost(void *ctx, const struct vfe_bdf *bdf, const char *why);

#endif /* RECOVER_H */
