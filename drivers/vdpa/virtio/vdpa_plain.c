/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions: VFs and PFs that nobody manages, driven by their own registers alone.
 *
 * Stopping is a reset, which leaves nothing behind: vf->plain.fresh. Starting programs features,
 * vectors and queues anew; what the type has beside its data queues, its table does (struct
 * vdpa_ctrl_ops). Registers cannot say where a ring stands: one that is not at its beginning goes
 * through a shadow ring (vdpa_shadow.c).
 */

#include <errno.h>

#include "vdpa_priv.h"

enum {
	ARENA_SLOTS = 64, /* plain functions of one VM */
	HUGE_PAGE = 2 << 20,
	CONFIG_VECTOR = 0, /* of the queues: queue index + 1, as vdpa_queue.c has it */
};

/* --- memory of our own, where no guest has any --- */

/* In huge pages what does not fit into the rest of one goes to the next. */
static uint64_t
arena_size(const struct vdpa_vf *vf)
{
	const uint64_t size = VDPA_CTRL_SPACE + vdpa_shadow_bytes(vf);

	return vf->physical ? vfe_align_up(vdpa_trans_bytes(vf) + 2 * size, HUGE_PAGE)
			    : vfe_align_up(size, VDPA_CTRL_SPACE);
}

/*
 * The functions of a VM share its addresses, and those of the guest's memory come later: so the
 * arena goes below the end of what the IOMMU can, 47 bits or fewer. The domain says what is taken,
 * the kernel what its IOMMU refuses.
 */
static int
arena_create(struct vdpa_vf *vf, struct vfe_error *err)
{
	const uint64_t size = arena_size(vf);
	static const unsigned int bits[] = {47, 43, 39, 38, 36};
	uint64_t iova;
	unsigned int i, slot;
	int rc = -ENOSPC;

	for (i = 0; i < VFE_ARRAY_SIZE(bits); i++) {
		iova = UINT64_C(1) << bits[i];
		for (slot = 0; slot < ARENA_SLOTS; slot++) {
			iova -= size;
			rc = vfe_dma_arena_create(vdpa_domain_pci(vf->domain), iova, size,
				vf->physical, &vf->plain.arena, err);
			if (rc != -EEXIST)
				break;
		}
		if (rc == 0 || rc == -ENODEV || rc == -ENOMEM)
			break;
	}
	return rc;
}

int
vdpa_plain_init(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = arena_create(vf, err);

	if (rc == 0 && vf->physical)
		rc = vdpa_trans_init(vf, err);
	if (rc < 0)
		return rc;
	vf->plain.ctrl = vfe_dma_arena_alloc(
		vf->plain.arena, VDPA_CTRL_SPACE, VDPA_CTRL_SPACE, &vf->plain.ctrl_iova);
	if (vf->plain.ctrl == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the control queue");
	return vdpa_shadow_init(vf, err);
}

void
vdpa_plain_fini(struct vdpa_vf *vf)
{
	vdpa_shadow_fini(vf);
	vdpa_trans_fini(vf);
	if (vf->plain.ctrl != NULL)
		vfe_dma_arena_free(vf->plain.arena, vf->plain.ctrl);
	vf->plain.ctrl = NULL;
	vfe_dma_arena_destroy(vf->plain.arena);
	vf->plain.arena = NULL;
}

uint16_t
vdpa_plain_nr_rings(const struct vdpa_vf *vf, uint64_t features)
{
	const struct vdpa_ctrl_ops *ctrl = vf->type->ctrl;

	return ctrl != NULL ? ctrl->nr_rings(vf, features) : vf->nr_queues;
}

/* --- jobs, on a worker --- */

static int
plain_stop(struct vdpa_vf *vf, struct vfe_error *err)
{
	uint16_t qid;
	int rc;

	if (vf->state == VDPA_S_QUIESCE && vdpa_drain_ms(vf) > vf->plain.drained_ms)
		vdpa_drain(vf);
	vf->plain.drained_ms = 0;
	rc = vfe_virtio_reset(&vf->vdev, vfe_deadline_in_ms(VDPA_STOP_TIMEOUT_MS), NULL, err);
	if (rc == 0)
		rc = vfe_virtio_status_add(
			&vf->vdev, VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, err);
	vf->plain.fresh = rc == 0;
	atomic_fetch_add(&vf->plain.resets, 1);
	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++)
		vf->queues[qid].known = false;
	pthread_mutex_unlock(&vf->lock);
	vdpa_shadow_stop(vf);
	return rc;
}

int
vdpa_plain_queue_start(struct vdpa_vf *vf, uint16_t qid, struct vfe_error *err)
{
	const struct vdpa_applied *a = &vf->applied[qid];
	struct vfe_virtio_queue_cfg cfg = {
		.size = a->size,
		.msix_vector = (uint16_t)(qid + 1),
		.desc = a->desc,
		.driver = a->avail,
		.device = a->used,
	};
	int rc = 0;

	if (a->shadow || vf->physical)
		rc = vdpa_shadow_start(vf, qid, a, &cfg, err);
	else
		vdpa_shadow_forget(vf, qid);
	if (rc == 0)
		rc = vfe_virtio_queue_enable(&vf->vdev, qid, &cfg, err);
	pthread_mutex_lock(&vf->lock);
	vf->queues[qid].known = rc == 0;
	pthread_mutex_unlock(&vf->lock);
	return rc;
}

static int
plain_queues(struct vdpa_vf *vf, struct vfe_error *err)
{
	uint16_t qid;
	int rc = 0;

	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].enabled)
			rc = vdpa_plain_queue_start(vf, qid, err);
	}
	return rc;
}

static int
plain_configure(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = vf->plain.fresh ? 0 : plain_stop(vf, err);

	vf->plain.fresh = false;
	if (rc == 0 && vf->physical)
		rc = vdpa_domain_check(vf->domain, &vf->member, vf->pci, err);
	if (rc == 0)
		rc = vfe_virtio_features_set(&vf->vdev, vf->driver_features, err);
	if (rc == 0)
		rc = vfe_virtio_config_vector_set(&vf->vdev, CONFIG_VECTOR, err);
	if (rc == 0)
		rc = plain_queues(vf, err);
	if (rc == 0 && vf->type->ctrl != NULL)
		rc = vf->type->ctrl->configure(vf, err);
	if (rc == 0)
		rc = vf->type->config_apply(vf, true, err);
	return rc;
}

static int
plain_run(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = vfe_virtio_status_add(&vf->vdev, VFE_VIRTIO_S_DRIVER_OK, err);

	if (rc == 0 && vf->type->ctrl != NULL)
		rc = vf->type->ctrl->started(vf, err);
	return rc;
}

static int
plain_job(struct vdpa_vf *vf, struct vfe_error *err)
{
	switch (vf->state) {
	case VDPA_S_RESTORE:
		return plain_configure(vf, err);
	case VDPA_S_START:
		return plain_run(vf, err);
	default:
		return plain_stop(vf, err);
	}
}

static int
plain_tend(struct vdpa_vf *vf, struct vfe_error *err)
{
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].shadow)
			vdpa_shadow_call(vf, qid, vf->applied[qid].call);
	}
	return vf->type->ctrl != NULL ? vf->type->ctrl->tend(vf, err) : 0;
}

/* --- steps of the state machine, on the reactor --- */

static int
plain_halt(struct vdpa_vf *vf)
{
	return vf->plain.fresh ? 1 : vdpa_vf_job_post(vf);
}

static int
plain_nothing(struct vdpa_vf *vf)
{
	(void)vf;
	return 1;
}

static int
plain_restore(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->guest_blob = true; /* whatever becomes of it */
	pthread_mutex_unlock(&vf->lock);
	return vdpa_vf_job_post(vf);
}

/*
 * A log is complete when all rings are relayed; if one of them cannot be, that is of no use. A
 * device that is physical never gets a ring of the guest, whose start fails then.
 */
static void
plain_plan(struct vdpa_vf *vf, uint64_t features, bool relay, struct vdpa_applied *rings)
{
	const uint16_t n = vdpa_plain_nr_rings(vf, features);
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		rings[qid].enabled = rings[qid].enabled && qid < n;
		if (rings[qid].enabled)
			relay = relay && vdpa_shadow_can(vf, qid, &rings[qid]);
	}
	for (qid = 0; qid < vf->nr_queues; qid++)
		rings[qid].shadow =
			rings[qid].enabled && (relay || vf->physical || rings[qid].start_idx != 0);
}

const struct vdpa_drive_ops vdpa_drive_plain = {
	.name = "plain",
	.owns_ctrl = true,
	.resets_rings = true,
	.relays = true,
	.no_features = VFE_BIT(VFE_VIRTIO_F_IN_ORDER),
	.quiesce = plain_halt,
	.freeze = plain_nothing,
	.restore = plain_restore,
	.unquiesce = plain_nothing,
	.start = vdpa_vf_job_post,
	.park = plain_halt,
	.job = plain_job,
	.plan = plain_plan,
	.tend = plain_tend,
};
