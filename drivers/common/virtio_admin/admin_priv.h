/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What the files of drivers/common/virtio_admin share.
 */

#ifndef ADMIN_PRIV_H
#define ADMIN_PRIV_H

#include "vfe_virtio_admin.h"

/* Looks at a result before the submitter sees it: 0 or -EPROTO with a text. */
typedef int (*admin_check)(const void *out, struct vfe_error *err);

/* vfe_admin_submit() with a check of the result, NULL = none. */
int admin_submit(struct vfe_admin *admin, const struct vfe_admin_cmd *cmd, admin_check check);

/* Where vfe_admin_identify() writes; on the processing thread only. */
struct vfe_admin_caps *admin_caps_mutable(struct vfe_admin *admin);

#endif /* ADMIN_PRIV_H */
