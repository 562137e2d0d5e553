/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Block devices: the bdevs of the configuration, and controllers, which make a block function
 * exist. A block function without a controller has no socket, as it has no life on a real DPU.
 */

#ifndef CONTROLLER_BLK_H
#define CONTROLLER_BLK_H

#include <sys/queue.h>

#include "dpu.h"

enum { BLK_CTRL_NAME_SIZE = 64 };

struct blk_ctrl {
	TAILQ_ENTRY(blk_ctrl) link;
	char name[BLK_CTRL_NAME_SIZE];
	struct function *fn;
	struct config_function cfg; /* of the function, with what the creator wants */
};

/* Create the bdevs that the configuration asks for. 0 or -errno with a text. */
int blk_bdevs_create(struct dpu *dpu, struct vfe_error *err);

/*
 * Make the block function of @cfg exist, which is one of the configuration, with @blk instead of
 * its own. @name NULL: a name from its place. Returns 0, -EEXIST (it has a controller already, or
 * the name is taken), -EINVAL, -ENOENT (no such bdev), or why it cannot be created, with a text.
 */
int
blk_ctrl_create(struct dpu *dpu, const struct config_function *cfg, const struct config_blk *blk,
	const char *name, struct blk_ctrl **ret, struct vfe_error *err);

/* Its client, if any, is disconnected. */
void blk_ctrl_destroy(struct dpu *dpu, struct blk_ctrl *ctrl);
void blk_ctrl_destroy_all(struct dpu *dpu);

struct blk_ctrl *blk_ctrl_find(struct dpu *dpu, const char *name);
struct blk_ctrl *blk_ctrl_of(struct dpu *dpu, const struct function *fn);

/* blk.c: tell the driver of @fn, if that uses @disk, that the size has changed. */
void blk_disk_resized(struct function *fn, const struct bp_disk *disk);

#endif /* CONTROLLER_BLK_H */
