/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Migration of a VF: its internal status, saving and restoring its state (vendor dialect, class
 * 64).
 */

#ifndef CONTROLLER_MIGRATE_H
#define CONTROLLER_MIGRATE_H

#include <stdint.h>

#include "function.h"

/* "RUNNING", for logs and queries. */
const char *migrate_status_name(enum vfe_admin_vf_status status);

/*
 * Go to @to: stopping drains all queues, RUNNING starts them at their indices. Returns 0, or -errno
 * with a text, and then nothing has changed: -EINVAL (unknown status), -EPERM (no such transition,
 * or a state that is only half restored), -EAGAIN (it is just being stopped), or why the queues do
 * not start. -EINPROGRESS: requests are in flight; admin_stopped() of its PF is called later.
 */
int migrate_set_status(struct function *vf, uint16_t to, struct vfe_error *err);

/*
 * What FUNCTION_GOAL_STOP waited for: @rc 0 = all queues are stopped, -ETIMEDOUT = the back end
 * hangs and they go on, -EAGAIN = the VF is reset instead, -EIO = requests are lost.
 */
void migrate_stopped(struct function *vf, int rc);

/* Take a snapshot of the state and return its size in bytes, or -ENOMEM. Traffic goes on. */
int64_t migrate_snapshot(struct function *vf);

/*
 * Bytes [@offset, @offset + @len) of the snapshot into @buf, zeroes behind its end. @offset 0 takes
 * a new snapshot first. Returns 0, -ENOMEM, or -EINVAL (no snapshot, or @offset behind it).
 */
int
migrate_save(struct function *vf, uint64_t offset, void *buf, size_t len, struct vfe_error *err);

/*
 * Take @len bytes of state for @offset; pieces come in order, @offset 0 begins anew. The state is
 * applied when its last field is there. Only FREEZED. Returns 0, -EPERM (not FREEZED), -EINVAL
 * (gap, too large, bad content), -ENOMEM.
 */
int migrate_restore(
	struct function *vf, uint64_t offset, const void *buf, size_t len, struct vfe_error *err);

/* The VF was reset: INIT, nothing saved or half restored. */
void migrate_reset(struct function *vf);

#endif /* CONTROLLER_MIGRATE_H */
