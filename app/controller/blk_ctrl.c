/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Controllers: block functions come and go with them.
 */

#include "blk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int
blk_bdevs_create(struct dpu *dpu, struct vfe_error *err)
{
	const struct config_bdevs *bdevs = &dpu->env.config->bdevs;
	struct bp_disk_info info;
	struct bp_disk *disk;
	unsigned int i;
	int rc;

	for (i = 0; i < bdevs->nr; i++) {
		const struct config_bdev *b = &bdevs->bdevs[i];
		const struct bp_disk_cfg cfg = {
			.name = b->name,
			.type = b->type,
			.path = b->path,
			.size = b->size,
			.block_size = b->block_size,
			.read_only = b->read_only,
			.buffered = b->buffered,
			.io = b->io,
		};

		rc = bp_disk_create(dpu->env.engine, &cfg, &disk, err);
		if (rc < 0)
			return rc;
		bp_disk_info(disk, &info);
		log_debug("bdev %s: %llu bytes", info.name, (unsigned long long)info.size);
	}
	return 0;
}

static void
default_name(const struct config_function *cfg, char name[BLK_CTRL_NAME_SIZE])
{
	if (cfg->is_vf)
		snprintf(name, BLK_CTRL_NAME_SIZE, "VblkEmu0pf%uvf%u", cfg->pf_id, cfg->vf_id);
	else
		snprintf(name, BLK_CTRL_NAME_SIZE, "VblkEmu0pf%u", cfg->pf_id);
}

static int
check(struct dpu *dpu, const struct config_function *cfg, const struct blk_ctrl *ctrl,
	struct vfe_error *err)
{
	const struct blk_ctrl *other;

	if (ctrl->cfg.blk.num_queues == 0 || ctrl->cfg.blk.num_queues > cfg->blk.num_queues)
		return vfe_error_set(err, -EINVAL, "num_queues %u, expected 1 to %u",
			ctrl->cfg.blk.num_queues, cfg->blk.num_queues);
	other = blk_ctrl_of(dpu, ctrl->fn);
	if (other != NULL)
		return vfe_error_set(
			err, -EEXIST, "the function has controller %s already", other->name);
	if (blk_ctrl_find(dpu, ctrl->name) != NULL)
		return vfe_error_set(err, -EEXIST, "there is a controller %s already", ctrl->name);
	return 0;
}

int
blk_ctrl_create(struct dpu *dpu, const struct config_function *cfg, const struct config_blk *blk,
	const char *name, struct blk_ctrl **ret, struct vfe_error *err)
{
	struct blk_ctrl *ctrl = calloc(1, sizeof(*ctrl));
	int rc;

	if (ctrl == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a controller");
	ctrl->cfg = *cfg;
	ctrl->cfg.blk = *blk;
	ctrl->fn = dpu_function(dpu, cfg);
	default_name(cfg, ctrl->name);
	if (name != NULL && vfe_str_copy(ctrl->name, sizeof(ctrl->name), name) < 0) {
		rc = vfe_error_set(err, -EINVAL, "the name of the controller is too long");
		goto err_free;
	}
	rc = check(dpu, cfg, ctrl, err);
	if (rc < 0)
		goto err_free;
	rc = function_create(
		ctrl->fn, &dpu->env, &ctrl->cfg, cfg->is_vf ? dpu_pf(dpu, cfg) : NULL, err);
	if (rc < 0)
		goto err_clear;
	TAILQ_INSERT_TAIL(&dpu->blk_ctrls, ctrl, link);
	log_info("%s: controller %s on bdev %s", ctrl->fn->name, ctrl->name, blk->bdev);
	*ret = ctrl;
	return 0;

err_clear:
	*ctrl->fn = (struct function){.vfs = ctrl->fn->vfs};
err_free:
	free(ctrl);
	return rc;
}

void
blk_ctrl_destroy(struct dpu *dpu, struct blk_ctrl *ctrl)
{
	log_info("%s: controller %s is gone", ctrl->fn->name, ctrl->name);
	TAILQ_REMOVE(&dpu->blk_ctrls, ctrl, link);
	function_destroy(ctrl->fn);
	*ctrl->fn = (struct function){.vfs = ctrl->fn->vfs};
	free(ctrl);
}

void
blk_ctrl_destroy_all(struct dpu *dpu)
{
	while (!TAILQ_EMPTY(&dpu->blk_ctrls))
		blk_ctrl_destroy(dpu, TAILQ_FIRST(&dpu->blk_ctrls));
}

struct blk_ctrl *
blk_ctrl_find(struct dpu *dpu, const char *name)
{
	struct blk_ctrl *ctrl;

	TAILQ_FOREACH (ctrl, &dpu->blk_ctrls, link) {
		if (strcmp(ctrl->name, name) == 0)
			return ctrl;
	}
	return NULL;
}

struct blk_ctrl *
blk_ctrl_of(struct dpu *dpu, const struct function *fn)
{
	struct blk_ctrl *ctrl;

	TAILQ_FOREACH (ctrl, &dpu->blk_ctrls, link) {
		if (ctrl->fn == fn)
			return ctrl;
	}
	return NULL;
}
