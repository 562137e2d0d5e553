/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The registry of PFs and VFs, information about them, start and end of the driver.
 */

#include "vfe_vdpa.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_uuid.h>
#include <vdpa_driver.h>

#include "vdpa_priv.h"

/* macros that are definitions: no semicolon */
RTE_LOG_REGISTER(vdpa_log_dev, vfe.vdpa.dev, INFO)
RTE_LOG_REGISTER(vdpa_log_vhost, vfe.vdpa.vhost, INFO)
RTE_LOG_REGISTER(vdpa_log_run, vfe.vdpa.run, INFO)
RTE_LOG_REGISTER(vdpa_log_mem, vfe.vdpa.mem, INFO)

struct vdpa_globals vdpa_globals = {
	.ms =
		{
			.suspend = VDPA_SUSPEND_TIMEOUT_MS,
			.grace = VDPA_SUSPEND_GRACE_MS,
			.sibling = VDPA_SIBLING_GRACE_MS,
			.retry = VDPA_RETRY_MS,
			.refresh = VDPA_REFRESH_MS,
			.park = VDPA_PARK_TIMEOUT_MS,
			.slave = VDPA_SLAVE_TIMEOUT_MS,
			.dirty_round = VDPA_DIRTY_ROUND_MS,
			.dirty_blind = VDPA_DIRTY_BLIND_MS,
			.dirty_retry = VDPA_DIRTY_RETRY_MS,
		},
	.dirty_mode = VDPA_DIRTY_AUTO,
};

static struct {
	pthread_mutex_t lock; /* protects the lists and nr_vfs; members stay while they are in */
	TAILQ_HEAD(, vdpa_pf) pfs;
	TAILQ_HEAD(, vdpa_vf) vfs;
} registry = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.pfs = TAILQ_HEAD_INITIALIZER(registry.pfs),
	.vfs = TAILQ_HEAD_INITIALIZER(registry.vfs),
};

int
vdpa_code(struct vfe_vdpa_error *err, enum vfe_vdpa_code code, int neg_errno)
{
	err->code = code;
	return neg_errno;
}

/* --- registry --- */

static struct vdpa_pf *
pf_find_locked(const struct vfe_bdf *bdf)
{
	struct vdpa_pf *pf;

	TAILQ_FOREACH (pf, &registry.pfs, next) {
		if (vfe_bdf_equal(&pf->bdf, bdf))
			return pf;
	}
	return NULL;
}

static struct vdpa_vf *
vf_find_locked(const struct vfe_bdf *bdf)
{
	struct vdpa_vf *vf;

	TAILQ_FOREACH (vf, &registry.vfs, next) {
		if (vfe_bdf_equal(&vf->bdf, bdf))
			return vf;
	}
	return NULL;
}

struct vdpa_pf *
vdpa_pf_find(const struct vfe_bdf *bdf)
{
	struct vdpa_pf *pf;

	pthread_mutex_lock(&registry.lock);
	pf = pf_find_locked(bdf);
	pthread_mutex_unlock(&registry.lock);
	return pf;
}

struct vdpa_vf *
vdpa_vf_find(const struct vfe_bdf *bdf)
{
	struct vdpa_vf *vf;

	pthread_mutex_lock(&registry.lock);
	vf = vf_find_locked(bdf);
	pthread_mutex_unlock(&registry.lock);
	return vf;
}

struct vdpa_vf *
vdpa_vf_of_device(const struct rte_vdpa_device *dev)
{
	struct vdpa_vf *vf;

	pthread_mutex_lock(&registry.lock);
	TAILQ_FOREACH (vf, &registry.vfs, next) {
		if (vf->vdpa == dev)
			break;
	}
	pthread_mutex_unlock(&registry.lock);
	return vf;
}

struct vdpa_vf *
vdpa_vf_first(const struct vdpa_pf *pf)
{
	struct vdpa_vf *vf;

	pthread_mutex_lock(&registry.lock);
	TAILQ_FOREACH (vf, &registry.vfs, next) {
		if (pf == NULL || vf->pf == pf)
			break;
	}
	pthread_mutex_unlock(&registry.lock);
	return vf;
}

struct vdpa_pf vdpa_no_pf = {.name = "none"};

struct vdpa_pf *
vdpa_pf_of_vf(const struct vfe_bdf *bdf, int *ret_index)
{
	struct vfe_bdf parent;
	struct vdpa_pf *pf;
	int ret;

	ret = vfe_pci_vf_parent(bdf, &parent, ret_index, NULL);
	if (ret != -ENOENT)
		return ret == 0 ? vdpa_pf_find(&parent) : NULL;

	/* a socket has no parent; where the VFs of a PF are follows from its capability */
	pthread_mutex_lock(&registry.lock);
	TAILQ_FOREACH (pf, &registry.pfs, next) {
		*ret_index = vfe_pci_sriov_vf_index(&pf->bdf, &pf->sriov, bdf);
		if (*ret_index >= 0)
			break;
	}
	pthread_mutex_unlock(&registry.lock);
	return pf;
}

void
vdpa_pf_register(struct vdpa_pf *pf)
{
	pthread_mutex_lock(&registry.lock);
	TAILQ_INSERT_TAIL(&registry.pfs, pf, next);
	pthread_mutex_unlock(&registry.lock);
}

void
vdpa_pf_unregister(struct vdpa_pf *pf)
{
	pthread_mutex_lock(&registry.lock);
	TAILQ_REMOVE(&registry.pfs, pf, next);
	pthread_mutex_unlock(&registry.lock);
}

void
vdpa_vf_register(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&registry.lock);
	TAILQ_INSERT_TAIL(&registry.vfs, vf, next);
	vf->pf->nr_vfs++;
	pthread_mutex_unlock(&registry.lock);
}

void
vdpa_vf_unregister(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&registry.lock);
	TAILQ_REMOVE(&registry.vfs, vf, next);
	vf->pf->nr_vfs--;
	pthread_mutex_unlock(&registry.lock);
}

void
vdpa_vf_for_each(void (*fn)(struct vdpa_vf *vf, const void *arg), const void *arg)
{
	struct vdpa_vf *vf;

	pthread_mutex_lock(&registry.lock);
	TAILQ_FOREACH (vf, &registry.vfs, next)
		fn(vf, arg);
	pthread_mutex_unlock(&registry.lock);
}

/* --- vhost --- */

struct rte_vdpa_device *
vfe_vdpa_vf_device(const struct vfe_bdf *bdf)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);

	return vf != NULL ? vf->vdpa : NULL;
}

int
vfe_vdpa_vf_vhost_features(
	const struct vfe_bdf *bdf, uint64_t *ret_features, uint64_t *ret_protocol_features)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);

	if (vf == NULL)
		return -ENODEV;
	*ret_features = vdpa_vf_features_offered(vf);
	*ret_protocol_features = vf->type->protocol_features;
	return 0;
}

/* --- information --- */

size_t
vfe_vdpa_pf_list(struct vfe_vdpa_pf_info *ret, size_t max)
{
	struct vfe_vdpa_pf_info *info;
	struct vdpa_pf *pf;
	size_t n = 0;

	pthread_mutex_lock(&registry.lock);
	TAILQ_FOREACH (pf, &registry.pfs, next) {
		if (n < max) {
			info = &ret[n];
			memset(info, 0, sizeof(*info));
			info->bdf = pf->bdf;
			info->lost = atomic_load(&pf->lost);
			info->device_id = pf->type->pci_device_id;
			info->nr_vfs = (uint16_t)pf->nr_vfs;
			info->device_features = pf->device_features;
			info->admin_commands = atomic_load(&pf->commands);
			info->admin_retries = atomic_load(&pf->retries);
			info->admin_errors = atomic_load(&pf->errors);
		}
		n++;
	}
	pthread_mutex_unlock(&registry.lock);
	return n;
}

ssize_t
vfe_vdpa_vf_list(const struct vfe_bdf *pf, struct vfe_bdf *ret, size_t max)
{
	struct vdpa_vf *vf;
	ssize_t n = -ENODEV;

	pthread_mutex_lock(&registry.lock);
	if (pf_find_locked(pf) != NULL || vfe_bdf_equal(pf, &vdpa_no_pf.bdf)) {
		n = 0;
		TAILQ_FOREACH (vf, &registry.vfs, next) {
			if (!vfe_bdf_equal(&vf->pf->bdf, pf))
				continue;
			if ((size_t)n < max)
				ret[n] = vf->bdf;
			n++;
		}
	}
	pthread_mutex_unlock(&registry.lock);
	return n;
}

static void
info_queues(const struct vdpa_vf *vf, struct vfe_vdpa_vf_info *ret)
{
	struct vfe_vdpa_queue_info *q;
	bool running = vdpa_vf_runs_locked(vf);
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		q = &ret->queues[qid];
		q->enabled = running && vf->applied[qid].enabled;
		q->host_notifier = q->enabled && vf->bells[qid].notifier == VDPA_NOTIFIER_ON;
		q->size =
			vf->applied[qid].enabled ? vf->applied[qid].size : vf->queues[qid].max_size;
		q->last_avail_idx = vf->applied[qid].start_idx;
		q->relayed_kicks = atomic_load(&vf->bells[qid].relayed);
		ret->relayed_kicks += q->relayed_kicks;
		q->shadow = running && vf->applied[qid].shadow;
		if (vf->plain.shadows != NULL)
			q->relayed_chains = vdpa_shadow_chains(vf->plain.shadows[qid]);
	}
}

static void
info_migration(const struct vdpa_vf *vf, struct vfe_vdpa_vf_info *ret)
{
	const char *state = "none";

	if ((vf->features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0)
		state = vdpa_vf_stopped_locked(vf) ? "stopped" : "logging";
	vfe_str_copy(ret->migration, sizeof(ret->migration), state);
	ret->last_suspend = vf->transit.last_suspend;
	ret->last_resume = vf->transit.last_resume;
}

static void
info_fill(struct vdpa_vf *vf, struct vfe_vdpa_vf_info *ret)
{
	unsigned int i;

	ret->bdf = vf->bdf;
	ret->pf = vf->pf->bdf;
	ret->vf_index = vf->vf_index;
	vfe_str_copy(ret->drive, sizeof(ret->drive), vf->drive->name);
	ret->device_resets = atomic_load(&vf->plain.resets);
	ret->ring_resets = atomic_load(&vf->plain.ring_resets);
	ret->device_id = vf->vdev.pci_device_id;
	vfe_str_copy(ret->transport, sizeof(ret->transport), vfe_pci_transport(vf->pci));
	ret->no_iommu = vf->physical;
	vfe_str_copy(ret->uuid, sizeof(ret->uuid), vf->uuid);
	vfe_str_copy(ret->last_error, sizeof(ret->last_error), vf->last_error);
	vfe_str_copy(ret->state, sizeof(ret->state), vdpa_state_name(vf));
	ret->lost = vf->lost;
	ret->connected = vf->vid >= 0;
	ret->configured = vdpa_vf_runs_locked(vf);
	ret->refreshing = vf->config_asked;
	ret->msix_num = vf->vdev.num_vectors;
	ret->queue_num = vf->nr_queues;
	ret->queue_size = vf->queues[0].max_size;
	ret->device_features = vf->vdev.device_features;
	ret->guest_features =
		vdpa_vf_features_offered(vf) &
		~(VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES) | VFE_BIT(VFE_VHOST_F_LOG_ALL));
	ret->driver_features = vf->driver_features;
	vf->type->info(&vf->config, vf->vdev.device_features, ret);
	for (i = 0; vf->table != NULL && i < vf->table->nr_regions; i++) {
		ret->nr_mem_regions++;
		ret->mem_bytes += vf->table->regions[i].size;
	}
	info_migration(vf, ret);
	vdpa_dirty_info_locked(vf, &ret->dirty);
	info_queues(vf, ret);
}

int
vfe_vdpa_vf_info(const struct vfe_bdf *bdf, struct vfe_vdpa_vf_info *ret)
{
	struct vdpa_vf *vf;

	memset(ret, 0, sizeof(*ret));
	pthread_mutex_lock(&registry.lock);
	vf = vf_find_locked(bdf);
	if (vf != NULL) {
		pthread_mutex_lock(&vf->lock);
		info_fill(vf, ret);
		pthread_mutex_unlock(&vf->lock);
	}
	pthread_mutex_unlock(&registry.lock);
	return vf != NULL ? 0 : -ENODEV;
}

int
vfe_vdpa_vf_refresh(const struct vfe_bdf *bdf)
{
	struct vdpa_vf *vf;
	int ret = -ENODEV;

	pthread_mutex_lock(&registry.lock);
	vf = vf_find_locked(bdf);
	if (vf != NULL) {
		pthread_mutex_lock(&vf->lock);
		ret = vf->lost || vf->guest_blob || vdpa_vf_runs_locked(vf) ? 1 : 0;
		if (ret == 0) {
			vf->config_stale = true;
			vf->config_asked = true;
		}
		pthread_mutex_unlock(&vf->lock);
		/* it cannot go away before the registry has forgotten it */
		if (ret == 0)
			vdpa_vf_post(vf);
	}
	pthread_mutex_unlock(&registry.lock);
	return ret;
}

/* --- reattach --- */

int
vfe_vdpa_reattach(const struct vfe_bdf *bdf, struct vfe_vdpa_error *err)
{
	struct vdpa_pf *pf = vdpa_pf_find(bdf);
	struct vdpa_vf *vf = vdpa_vf_find(bdf);
	char name[VFE_BDF_STR_SIZE];
	int ret;

	if (pf == NULL && vf == NULL)
		return vdpa_code(err, VFE_VDPA_NO_VF_DEVICE,
			vfe_error_set(&err->err, -ENODEV, "%s is not managed",
				vfe_bdf_format(bdf, name)));
	ret = pf != NULL ? vdpa_pf_reattach(pf, err) : vdpa_vf_reattach(vf, err);
	/* a function of the kernel that has no driver at the moment */
	return ret == -ENODEV ? -EAGAIN : ret;
}

/* --- start and end --- */

int
vfe_vdpa_init(const struct vfe_vdpa_cfg *cfg, struct vfe_error *err)
{
	rte_uuid_t token;
	int ret;

	if (vfe_str_copy(vdpa_globals.vfio_user_dir, sizeof(vdpa_globals.vfio_user_dir),
		    cfg->vfio_user_dir) < 0)
		return vfe_error_set(
			err, -ENAMETOOLONG, "%s: name is too long", cfg->vfio_user_dir);
	rte_eal_vfio_get_vf_token(token);
	vdpa_globals.vf_token[0] = '\0';
	if (!rte_uuid_is_null(token))
		rte_uuid_unparse(token, vdpa_globals.vf_token, sizeof(vdpa_globals.vf_token));
	vdpa_globals.transport_timeout_ms = cfg->transport_timeout_ms;
	vdpa_globals.reset_timeout_ms =
		cfg->reset_timeout_ms != 0 ? cfg->reset_timeout_ms : VDPA_RESET_TIMEOUT_MS;
	if (vdpa_dirty_mode_parse(cfg->dirty_mode != NULL ? cfg->dirty_mode : "auto",
		    &vdpa_globals.dirty_mode) < 0)
		return vfe_error_set(
			err, -EINVAL, "unknown mode of dirty tracking \"%s\"", cfg->dirty_mode);
	vdpa_globals.on_lost = cfg->on_lost;
	vdpa_globals.on_refreshed = cfg->on_refreshed;
	vdpa_globals.ctx = cfg->ctx;
	ret = vdpa_loop_start(err);
	if (ret < 0)
		return ret;
	ret = vdpa_relay_start(err);
	if (ret < 0)
		vdpa_loop_stop();
	return ret;
}

static void
begin_removal(struct vdpa_vf *vf, const void *arg)
{
	(void)arg;
	vdpa_vf_begin_removal(vf);
}

/* All VFs park at the same time; after that, removing each of them waits for little. */
void
vfe_vdpa_fini(void)
{
	struct vfe_vdpa_error err;
	struct vdpa_vf *vf;
	struct vdpa_pf *pf;

	/* reattaching is over: nobody needs to know */
	vdpa_globals.on_lost = NULL;
	vdpa_globals.on_refreshed = NULL;
	vdpa_vf_for_each(begin_removal, NULL);
	while ((vf = vdpa_vf_first(NULL)) != NULL)
		vdpa_vf_remove_now(vf);
	while ((pf = TAILQ_FIRST(&registry.pfs)) != NULL) {
		if (vfe_vdpa_pf_remove(&pf->bdf, &err) < 0)
			break;
	}
	vdpa_relay_stop();
	vdpa_loop_stop();
	vdpa_fd_fini();
}
