/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Rings and interrupts: from what the front-end wants to the blob and the eventfds that the device
 * gets, and back to where a stopped ring stands.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "vdpa_priv.h"

enum {
	STATUS_PARKED = VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER,
	STATUS_RUNNING = STATUS_PARKED | VFE_VIRTIO_S_FEATURES_OK | VFE_VIRTIO_S_DRIVER_OK,
	CONFIG_VECTOR = 0, /* of the queues: queue index + 1 */
	MAX_TABLE_CHANGES = 8,
};

/* Rings are there from their start then, and enabling them is left to the control queue. */
bool
vdpa_vf_owns_ctrl(const struct vdpa_vf *vf)
{
	return vf->drive->owns_ctrl && vf->type->ctrl != NULL;
}

uint64_t
vdpa_vf_features_offered(const struct vdpa_vf *vf)
{
	return vdpa_type_features_offered(vf->type, vf->vdev.device_features) &
	       ~vf->drive->no_features;
}

bool
vdpa_ring_started(const struct vdpa_ring *ring)
{
	return ring->has_addr && ring->kicked && ring->size != 0 && !ring->stopping;
}

bool
vdpa_ring_wanted(const struct vdpa_vf *vf, const struct vdpa_ring *ring)
{
	return vdpa_ring_started(ring) && (ring->enabled || vdpa_vf_owns_ctrl(vf));
}

/* A front-end with the STATUS protocol feature says when its driver is ready; else a ring does. */
bool
vdpa_vf_wants_run_locked(const struct vdpa_vf *vf)
{
	uint16_t qid;

	if (vf->vid < 0 || vf->table == NULL ||
		(vf->features & VFE_BIT(VFE_VIRTIO_F_VERSION_1)) == 0)
		return false;
	if ((vf->protocol_features & VFE_BIT(VDPA_PROTOCOL_F_STATUS)) != 0 &&
		(vf->status & VFE_VIRTIO_S_DRIVER_OK) == 0)
		return false;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vdpa_ring_started(&vf->rings[qid]) && vf->rings[qid].enabled)
			return true;
	}
	return false;
}

int
vdpa_ring_translate(const struct vdpa_table *table, const struct vdpa_ring *ring,
	struct vdpa_applied *ret, struct vfe_error *err)
{
	if (vdpa_table_translate(table, ring->desc, vfe_vring_desc_bytes(ring->size), &ret->desc) <
		0)
		return vfe_error_set(err, -EFAULT,
			"descriptors at %#" PRIx64 ", size %u, are not in guest memory", ring->desc,
			ring->size);
	if (vdpa_table_translate(
		    table, ring->avail, vfe_vring_avail_bytes(ring->size), &ret->avail) < 0)
		return vfe_error_set(err, -EFAULT,
			"available ring at %#" PRIx64 ", size %u, is not in guest memory",
			ring->avail, ring->size);
	if (vdpa_table_translate(table, ring->used, vfe_vring_used_bytes(ring->size), &ret->used) <
		0)
		return vfe_error_set(err, -EFAULT,
			"used ring at %#" PRIx64 ", size %u, is not in guest memory", ring->used,
			ring->size);
	if (!vfe_is_aligned(ret->desc, 16) || !vfe_is_aligned(ret->avail, 2) ||
		!vfe_is_aligned(ret->used, 4))
		return vfe_error_set(err, -EINVAL,
			"ring addresses %#" PRIx64 " %#" PRIx64 " %#" PRIx64 " are not aligned",
			ret->desc, ret->avail, ret->used);
	ret->size = ring->size;
	return 0;
}

bool
vdpa_ring_same(const struct vdpa_applied *a, const struct vdpa_applied *b)
{
	return a->size == b->size && a->desc == b->desc && a->avail == b->avail &&
	       a->used == b->used;
}

int
vdpa_ring_indices(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t *ret_used,
	uint16_t *ret_avail)
{
	int rc = vdpa_domain_used_index(vf->domain, ring->used, ret_used);

	return rc == 0 ? vdpa_domain_avail_index(vf->domain, ring->avail, ret_avail) : rc;
}

uint16_t
vdpa_ring_index(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_applied where;
	struct vdpa_table *table;
	struct vdpa_ring ring;
	uint16_t idx;

	pthread_mutex_lock(&vf->lock);
	ring = vf->rings[qid];
	table = vdpa_table_get(vf->table);
	pthread_mutex_unlock(&vf->lock);
	idx = ring.base;
	if (ring.has_addr && vdpa_ring_translate(table, &ring, &where, NULL) == 0 &&
		vdpa_domain_used_index(vf->domain, where.used, &idx) < 0)
		idx = ring.base;
	vdpa_table_put(table);
	return idx;
}

/* --- the snapshot of what is wanted, on a worker --- */

void
vdpa_plan_fini(struct vdpa_vf *vf, struct vdpa_plan *plan)
{
	uint16_t qid;

	for (qid = 0; plan->rings != NULL && qid < vf->nr_queues; qid++)
		vdpa_fd_put(plan->rings[qid].call);
	free(plan->rings);
	vdpa_table_put(plan->table);
}

int
vdpa_plan_init(struct vdpa_vf *vf, struct vdpa_plan *plan, struct vfe_error *err)
{
	struct vdpa_applied *a;
	const struct vdpa_ring *r;
	uint16_t qid;
	int rc = 0;

	memset(plan, 0, sizeof(*plan));
	plan->rings = calloc(vf->nr_queues, sizeof(*plan->rings));
	if (plan->rings == NULL)
		return vfe_error_set(err, -ENOMEM, "out of memory");
	pthread_mutex_lock(&vf->lock);
	plan->table = vdpa_table_get(vf->table);
	plan->features = vf->features;
	plan->seq = vf->seq;
	plan->tend_seq = vf->tend_seq;
	plan->torn = vf->torn;
	plan->relay = vdpa_dirty_relays_locked(vf);
	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++) {
		r = &vf->rings[qid];
		a = &plan->rings[qid];
		if (!vdpa_ring_wanted(vf, r))
			continue;
		a->enabled = true;
		a->stops = r->stops;
		a->call = vdpa_fd_get(r->call);
		rc = vdpa_ring_translate(plan->table, r, a, err);
		if (rc < 0)
			vfe_error_prefix(err, rc, "queue %u", qid);
	}
	pthread_mutex_unlock(&vf->lock);
	return rc;
}

/* Map the front-end's memory; again if it changes meanwhile, so that the last one stays. */
static int
plan_map(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_table *table;
	unsigned int i;
	bool same = false;
	int rc = 0;

	for (i = 0; rc == 0 && !same && i < MAX_TABLE_CHANGES; i++) {
		pthread_mutex_lock(&vf->lock);
		table = vdpa_table_get(vf->table);
		pthread_mutex_unlock(&vf->lock);
		rc = vdpa_domain_apply(vf->domain, &vf->member, table, err);
		if (rc == -EBUSY)
			rc = vdpa_domain_apply(vf->domain, &vf->member, NULL, err);
		else
			same = true;
		pthread_mutex_lock(&vf->lock);
		same = same && vf->table == table;
		pthread_mutex_unlock(&vf->lock);
		vdpa_table_put(table);
	}
	if (rc == 0 && !same)
		return vfe_error_set(err, -EAGAIN, "guest memory keeps changing");
	return rc;
}

/*
 * Does @ring go on where a device was that has died with requests in flight? One that stands at 0,
 * as the front-end has said, was set up anew.
 */
static bool
is_torn(struct vdpa_vf *vf, const struct vdpa_plan *plan, uint16_t qid)
{
	const struct vdpa_applied *was = &vf->applied[qid], *now = &plan->rings[qid];
	uint16_t base;

	if (!plan->torn || !vf->type->requests_last || !was->enabled || was->quiet)
		return false;
	pthread_mutex_lock(&vf->lock);
	base = vf->rings[qid].base;
	pthread_mutex_unlock(&vf->lock);
	return vdpa_ring_same(was, now) && (base != 0 || now->start_idx != 0);
}

int
vdpa_plan_index(struct vdpa_vf *vf, struct vdpa_plan *plan, uint16_t qid, struct vfe_error *err)
{
	int rc = vdpa_domain_used_index(
		vf->domain, plan->rings[qid].used, &plan->rings[qid].start_idx);

	if (rc < 0)
		return vfe_error_set(err, rc, "queue %u: used ring %s", qid,
			rc == -EIO ? "is gone: the guest's memory file was truncated"
				   : "is not mapped");
	return 0;
}

/* Where each ring begins; the device has written all that it ever will of the time before. */
static int
plan_indices(struct vdpa_vf *vf, struct vdpa_plan *plan, struct vfe_error *err)
{
	uint16_t qid;
	int rc = 0;

	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++) {
		if (!plan->rings[qid].enabled)
			continue;
		rc = vdpa_plan_index(vf, plan, qid, err);
		if (rc == 0 && is_torn(vf, plan, qid) &&
			!vdpa_shadow_knows(vf, qid, &plan->rings[qid]))
			rc = vdpa_inflight_check(
				vf, qid, &plan->rings[qid], vf->applied[qid].start_idx, err);
	}
	return rc;
}

int
vdpa_ring_irq(const struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring)
{
	const struct vdpa_fd *fd = ring->call;

	if (ring->shadow)
		fd = vdpa_shadow_irq(vf->plain.shadows[qid]);
	return fd != NULL ? fd->fd : -1;
}

static int
irqs_set(struct vdpa_vf *vf, const struct vdpa_applied *rings, struct vfe_error *err)
{
	int fds[VFE_VDPA_MAX_QUEUES + 1];
	uint16_t qid;

	fds[CONFIG_VECTOR] = vf->config_fd;
	for (qid = 0; qid < vf->nr_queues; qid++)
		fds[qid + 1] = rings != NULL ? vdpa_ring_irq(vf, qid, &rings[qid]) : -1;
	return vfe_pci_irq_set(vf->pci, 0, vf->nr_queues + 1u, fds, err);
}

/* --- the blob --- */

static void
blob_queues(struct vdpa_vf *vf, const struct vdpa_applied *rings)
{
	const struct vdpa_applied *a;
	struct vfe_state_queue *q;
	uint16_t qid;

	for (qid = 0; qid < vf->vdev.num_queues; qid++) {
		q = &vf->blob_state.queues[qid];
		*q = (struct vfe_state_queue){
			.present = true,
			.has_run = true,
			.size = vf->queues[qid].max_size,
			.msix_vector = VFE_VIRTIO_MSI_NO_VECTOR,
			.notify_off = vf->queues[qid].notify_off,
			.notify_data = vf->queues[qid].notify_data,
		};
		a = rings != NULL && qid < vf->nr_queues ? &rings[qid] : NULL;
		if (a == NULL || !a->enabled)
			continue;
		q->size = a->size;
		q->enable = true;
		q->msix_vector = (uint16_t)(qid + 1);
		q->desc = a->desc;
		q->driver = a->avail;
		q->device = a->used;
		q->last_avail_idx = a->start_idx;
		q->last_used_idx = a->start_idx;
	}
}

static int
blob_encode(struct vdpa_vf *vf, struct vfe_error *err)
{
	ssize_t n = vfe_state_encode(&vf->blob_state, vf->blob, vf->blob_size);

	if (n < 0)
		return vfe_error_set(err, (int)n, "cannot encode the device state");
	vf->blob_len = (size_t)n;
	return 0;
}

static void
blob_common(struct vdpa_vf *vf, uint64_t driver_features, uint8_t status)
{
	struct vfe_state *s = &vf->blob_state;

	s->device_features = vf->vdev.device_features;
	s->driver_features = driver_features;
	s->msix_config = CONFIG_VECTOR;
	s->device_status = status;
	pthread_mutex_lock(&vf->lock);
	vf->type->blob(vf, s);
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_vf_blob_parked(struct vdpa_vf *vf)
{
	blob_common(vf, 0, STATUS_PARKED);
	blob_queues(vf, NULL);
	blob_encode(vf, NULL); /* it fits, as the running one, which is as large */
}

/* --- jobs --- */

static int
config_refresh(struct vdpa_vf *vf, struct vfe_error *err)
{
	union vdpa_config config;
	char text[128];
	bool changed;
	uint8_t isr;
	int rc;

	/* reading acknowledges (virtio 4.1.4.5.1); with MSI-X its value says nothing */
	rc = vfe_virtio_isr_read(&vf->vdev, &isr, err);
	if (rc == 0)
		rc = vf->type->config_read(&vf->vdev, &config, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&vf->lock);
	vf->type->config_keep(vf, &config);
	changed = memcmp(&vf->config, &config, sizeof(config)) != 0;
	vf->config = config;
	vf->config_changed = vf->config_changed || changed;
	pthread_mutex_unlock(&vf->lock);
	if (changed) {
		vf->type->describe(&config, vf->vdev.device_features, text, sizeof(text));
		VDPA_LOG(INFO, dev, vf->name, "configuration has changed: %s", text);
	}
	return 0;
}

static void
plan_commit(struct vdpa_vf *vf, struct vdpa_plan *plan, uint64_t driver_features)
{
	struct vdpa_applied *old;

	pthread_mutex_lock(&vf->lock);
	old = vf->applied;
	vf->applied = plan->rings;
	plan->rings = old;
	vf->applied_seq = plan->seq;
	vf->applied_tend_seq = plan->tend_seq;
	vf->driver_features = driver_features;
	vf->relay_planned = plan->relay;
	pthread_mutex_unlock(&vf->lock);
}

int
vdpa_vf_prepare(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_plan plan = {0};
	uint64_t features;
	int rc;

	rc = plan_map(vf, err);
	if (rc == 0)
		rc = vdpa_plan_init(vf, &plan, err);
	if (rc == 0)
		rc = plan_indices(vf, &plan, err);
	features = vdpa_type_features_driver(vf->type, vf->vdev.device_features, plan.features);
	if (vdpa_vf_owns_ctrl(vf))
		features |= vf->vdev.device_features & vf->type->ctrl->features;
	if (vf->physical) /* see vdpa_trans.c */
		features |= VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC);
	if (rc == 0 && vf->drive->plan != NULL)
		vf->drive->plan(vf, features, plan.relay, plan.rings);
	if (rc == 0)
		rc = irqs_set(vf, plan.rings, err);
	if (rc == 0) {
		blob_common(vf, features, STATUS_RUNNING);
		blob_queues(vf, plan.rings);
		rc = blob_encode(vf, err);
	}
	if (rc == 0)
		plan_commit(vf, &plan, features);
	vdpa_plan_fini(vf, &plan);
	return rc;
}

/*
 * Eventfds have been replaced, or the device's configuration has changed. A ring goes on with its
 * new eventfd; a spurious interrupt makes up for one that went to the old eventfd.
 */
int
vdpa_vf_tend(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_fd *old[VFE_VDPA_MAX_QUEUES];
	bool changed = false, stale;
	uint64_t tend_seq;
	uint16_t qid;
	int rc = 0;

	pthread_mutex_lock(&vf->lock);
	tend_seq = vf->tend_seq;
	stale = vf->config_stale;
	vf->config_stale = false;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		old[qid] = vf->applied[qid].call;
		vf->applied[qid].call =
			vf->applied[qid].enabled ? vdpa_fd_get(vf->rings[qid].call) : NULL;
		changed = changed || old[qid] != vf->applied[qid].call;
	}
	pthread_mutex_unlock(&vf->lock);
	if (changed)
		rc = irqs_set(vf, vf->applied, err);
	if (rc == 0)
		rc = vf->type->config_apply(vf, false, err);
	if (rc == 0 && stale)
		rc = config_refresh(vf, err);
	if (rc == 0 && vf->drive->tend != NULL)
		rc = vf->drive->tend(vf, err);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (old[qid] != vf->applied[qid].call)
			vdpa_fd_signal(vf->applied[qid].call);
		vdpa_fd_put(old[qid]);
	}
	pthread_mutex_lock(&vf->lock);
	vf->applied_tend_seq = tend_seq;
	pthread_mutex_unlock(&vf->lock);
	return rc;
}

/* The configuration of a VF that nobody uses. */
int
vdpa_vf_look(struct vdpa_vf *vf, struct vfe_error *err)
{
	pthread_mutex_lock(&vf->lock);
	vf->config_stale = false;
	pthread_mutex_unlock(&vf->lock);
	return config_refresh(vf, err);
}

/* The front-end has gone and the device is stopped: leave nothing of the guest behind. */
int
vdpa_vf_clean(struct vdpa_vf *vf, struct vfe_error *err)
{
	uint16_t qid;
	int rc;

	rc = irqs_set(vf, NULL, err);
	vdpa_shadow_stop(vf);
	vdpa_domain_apply(vf->domain, &vf->member, NULL, NULL);
	vdpa_domain_set_leaving(vf->domain, &vf->member, false);
	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		vdpa_fd_put(vf->applied[qid].call);
		memset(&vf->applied[qid], 0, sizeof(vf->applied[qid]));
	}
	vf->driver_features = 0;
	vf->needs_clean = false;
	pthread_cond_broadcast(&vf->changed);
	pthread_mutex_unlock(&vf->lock);
	return vfe_pci_error(vf->pci) == 0 ? rc : 0;
}

/* --- start --- */

void
vdpa_vf_kick(struct vdpa_vf *vf, uint16_t qid)
{
	vfe_pci_doorbell_ring(&vf->queues[qid].doorbell, qid, 2);
	vdpa_fd_signal(vf->applied[qid].call);
}

void
vdpa_vf_kick_all(struct vdpa_vf *vf)
{
	uint16_t qid;

	/*
	 * First, because the guest waits for it. What the device cannot take now it gets from the
	 * relay, which rings once for each ring that is new to it, and that is all of them.
	 */
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].enabled)
			vdpa_vf_kick(vf, qid);
	}
	vdpa_vf_relay_sync(vf);
}
