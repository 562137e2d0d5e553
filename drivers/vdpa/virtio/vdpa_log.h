/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Log types of the vDPA driver; every message begins with the device.
 */

#ifndef VDPA_LOG_H
#define VDPA_LOG_H

#include <rte_log.h>

extern int vdpa_log_dev;   /* vfe.vdpa.dev: provisioning, lost devices */
extern int vdpa_log_vhost; /* vfe.vdpa.vhost: what front-ends say */
extern int vdpa_log_run;   /* vfe.vdpa.run: suspend, resume, rings, doorbells */
extern int vdpa_log_mem;   /* vfe.vdpa.mem: guest memory */

/* VDPA_LOG(WARNING, run, name, "text %d", 1): "0000:af:04.5: text 1" */
#define VDPA_LOG(level, group, name, ...)                                \
	rte_log(RTE_LOG_##level, (uint32_t)vdpa_log_##group,             \
		RTE_FMT("%s: " RTE_FMT_HEAD(__VA_ARGS__, ) "\n", (name), \
			RTE_FMT_TAIL(__VA_ARGS__, )))

#endif /* VDPA_LOG_H */
