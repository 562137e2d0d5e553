/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The software DPU: create everything that the configuration asks for, and take it down again.
 */

#include "dpu.h"

#include "blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
	DIR_MODE = 0755,
	/* listening and connected socket, representor, doorbells, interrupts, memory */
	FDS_PER_FUNCTION = 4,
	FDS_PER_QUEUE = 5, /* and ring and jobs of a block queue */
	FDS_OF_PROCESS = 256,
};

/* What all functions need when all of them are in use. */
static rlim_t
fds_needed(const struct config *config)
{
	rlim_t n = FDS_OF_PROCESS;
	unsigned int i;

	for (i = 0; i < config->nr_pfs; i++) {
		const struct config_function *pf = &config->pfs[i];
		rlim_t vf_queues = pf->nr_vfs > 0 ? config_nr_queues(&pf->vfs[0]) : 0;

		n += FDS_PER_FUNCTION + FDS_PER_QUEUE * (config_nr_queues(pf) + 1u);
		n += pf->nr_vfs * (FDS_PER_FUNCTION + FDS_PER_QUEUE * vf_queues);
	}
	return n;
}

static void
raise_fd_limit(const struct config *config)
{
	rlim_t need = fds_needed(config);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= need)
		return;
	limit.rlim_cur = need;
	if (limit.rlim_max < need)
		limit.rlim_max = need; /* root may */
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		return;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	log_warn("%llu file descriptors may be needed, the limit is %llu: raise LimitNOFILE",
		(unsigned long long)need, (unsigned long long)limit.rlim_cur);
}

/* mkdir -p */
static int
make_dir(const char *path, struct vfe_error *err)
{
	char part[CONFIG_MAX_PATH];
	size_t i;

	for (i = 1;; i++) {
		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (mkdir(part, DIR_MODE) < 0 && errno != EEXIST)
			return vfe_error_set(err, -errno, "cannot create the folder %s: %s", part,
				strerror(errno));
		if (path[i] == '\0')
			return 0;
	}
}

/* The PF of @cfg, a VF, or the PF that it is. */
static unsigned int
pf_index(const struct dpu *dpu, const struct config_function *cfg)
{
	unsigned int i;

	for (i = 0; i + 1 < dpu->nr_pfs; i++) {
		const struct config_function *pf = &dpu->env.config->pfs[i];

		if (pf->type == cfg->type && pf->pf_id == cfg->pf_id)
			break;
	}
	return i;
}

struct function *
dpu_function(struct dpu *dpu, const struct config_function *cfg)
{
	struct function *pf = &dpu->pfs[pf_index(dpu, cfg)];

	return cfg->is_vf ? &pf->vfs[cfg->vf_id] : pf;
}

struct function *
dpu_pf(struct dpu *dpu, const struct config_function *cfg)
{
	return &dpu->pfs[pf_index(dpu, cfg)];
}

static int
create_function(struct dpu *dpu, const struct config_function *cfg, struct function *fn,
	struct function *pf, struct vfe_error *err)
{
	struct blk_ctrl *ctrl;

	if (cfg->type == CONFIG_NET)
		return function_create(fn, &dpu->env, cfg, pf, err);
	if (cfg->blk.bdev[0] == '\0')
		return 0;
	return blk_ctrl_create(dpu, cfg, &cfg->blk, NULL, &ctrl, err);
}

static int
create_pf(struct dpu *dpu, const struct config_function *cfg, struct function *pf,
	struct vfe_error *err)
{
	uint16_t i;
	int rc;

	pf->vfs = calloc(cfg->nr_vfs + 1u, sizeof(*pf->vfs));
	if (pf->vfs == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for %u VFs", cfg->nr_vfs);
	/* the VFs first: who finds the PF's socket finds theirs too */
	for (i = 0; i < cfg->nr_vfs; i++) {
		rc = create_function(dpu, &cfg->vfs[i], &pf->vfs[i], pf, err);
		if (rc < 0)
			return rc;
	}
	return create_function(dpu, cfg, pf, NULL, err);
}

int
dpu_create(
	struct dpu *dpu, struct ev_loop *loop, const struct config *config, struct vfe_error *err)
{
	const struct dp_engine_cfg engine = {
		.nr_workers = (uint16_t)config->workers,
		.cpus = config->cpus.nr > 0 ? config->cpus.cpu : NULL,
		.polling = config->polling,
		.blk_spin_us = config->blk_spin_us,
		.on_broken = function_on_broken,
	};
	unsigned int i;
	int rc;

	memset(dpu, 0, sizeof(*dpu));
	dpu->env.loop = loop;
	dpu->env.config = config;
	TAILQ_INIT(&dpu->blk_ctrls);
	vfe_signaller_init(&dpu->env.signaller);
	dpu->env.knobs = config->knobs;
	raise_fd_limit(config);
	rc = make_dir(config->dir, err);
	if (rc == 0)
		rc = dp_engine_create(loop, &engine, &dpu->env.engine, err);
	if (rc < 0)
		goto err_destroy;
	rc = blk_bdevs_create(dpu, err);
	if (rc < 0)
		goto err_destroy;
	dpu->pfs = calloc(config->nr_pfs, sizeof(*dpu->pfs));
	if (dpu->pfs == NULL) {
		rc = vfe_error_set(err, -ENOMEM, "no memory for %u PFs", config->nr_pfs);
		goto err_destroy;
	}
	for (i = 0; i < config->nr_pfs; i++) {
		dpu->nr_pfs = i + 1;
		rc = create_pf(dpu, &config->pfs[i], &dpu->pfs[i], err);
		if (rc < 0)
			goto err_destroy;
	}
	rc = rpc_create(dpu, err);
	if (rc == 0)
		return 0;

err_destroy:
	dpu_destroy(dpu);
	return rc;
}

void
dpu_destroy(struct dpu *dpu)
{
	unsigned int i;
	uint16_t vf;

	rpc_destroy(dpu);
	blk_ctrl_destroy_all(dpu);
	for (i = 0; i < dpu->nr_pfs; i++) {
		struct function *pf = &dpu->pfs[i];

		function_destroy(pf);
		for (vf = 0; pf->vfs != NULL && vf < dpu->env.config->pfs[i].nr_vfs; vf++)
			function_destroy(&pf->vfs[vf]);
		free(pf->vfs);
		pf->vfs = NULL;
	}
	dpu->nr_pfs = 0;
	free(dpu->pfs);
	dpu->pfs = NULL;
	if (dpu->env.engine != NULL)
		dp_engine_destroy(dpu->env.engine);
	dpu->env.engine = NULL;
	vfe_signaller_fini(&dpu->env.signaller);
}
