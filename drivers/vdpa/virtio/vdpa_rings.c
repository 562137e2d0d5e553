/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Rings of a plain function that change while its other rings go on: queue reset (virtio 2.6.1).
 *
 * The reactor makes a plan of what is wanted, finds the rings that differ from what the device has,
 * and takes their relays down. The job waits for what the device has in hand of these, resets them,
 * reads where they stand, and enables those that are to go on. All else of the device stays as it
 * is: features, other rings, vectors, what its control queue was told.
 *
 * What fails on the way ends in a restart of the whole function, as it is without RING_RESET. So
 * does a disk that has requests in hand at the deadline, or may have got one with the reset: a
 * device that is reset gives them back, or ends them; one that resets a queue may not.
 */

#include <errno.h>
#include <string.h>

#include "vdpa_priv.h"

enum { RING_RESET_MS = 1000 }; /* for all rings of a change */

/* --- decisions --- */

bool
vdpa_rings_can_locked(const struct vdpa_vf *vf)
{
	return vf->drive->resets_rings && !vf->plain.no_ring_reset &&
	       (vf->driver_features & VFE_BIT(VFE_VIRTIO_F_RING_RESET)) != 0;
}

/*
 * A queue that has never been enabled is one that a driver did not find before DRIVER_OK: that
 * needs a restart. So does a change while dirty pages are logged, which begins and ends with one
 * look at all rings.
 */
bool
vdpa_rings_suffice_locked(const struct vdpa_vf *vf)
{
	const uint16_t n =
		vdpa_rings_can_locked(vf) ? vdpa_plain_nr_rings(vf, vf->driver_features) : 0;
	uint16_t qid;

	if (n == 0 || vf->applied_seq < vf->full_seq || vf->dirty.phase != VDPA_DIRTY_OFF)
		return false;
	for (qid = 0; qid < n; qid++) {
		if (vdpa_ring_wanted(vf, &vf->rings[qid]) && !vf->queues[qid].known)
			return false;
	}
	return true;
}

/* --- before the job, on the reactor --- */

static bool
differs(const struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *now)
{
	const struct vdpa_applied *was = &vf->applied[qid];

	if (!was->enabled || !now->enabled)
		return was->enabled != now->enabled;
	if (!vdpa_ring_same(was, now) || was->stops != now->stops)
		return true;
	return was->shadow ? !now->shadow && vdpa_shadow_begins(vf, qid) : now->shadow;
}

int
vdpa_rings_enter(struct vdpa_vf *vf)
{
	struct vdpa_change *c = &vf->plain.change;
	uint16_t qid;

	c->rc = vdpa_plan_init(vf, &c->plan, &c->err);
	if (c->rc == 0)
		vf->drive->plan(vf, vf->driver_features, c->plan.relay, c->plan.rings);
	for (qid = 0; c->rc == 0 && qid < vf->nr_queues; qid++)
		c->which[qid] = differs(vf, qid, &c->plan.rings[qid]);
	vdpa_vf_relay_sync(vf);
	return vdpa_vf_job_post(vf);
}

/* --- the job --- */

static void
distrust(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->plain.no_ring_reset = true;
	pthread_mutex_unlock(&vf->lock);
}

/*
 * A guest that runs may have added a request after the last look, and the device taken it. One that
 * completed it after all would do so in the ring that the queue has by then.
 */
static bool
may_have_requests(struct vdpa_vf *vf, uint16_t qid)
{
	const struct vdpa_applied *a = &vf->applied[qid];
	uint16_t used, avail;

	if (!vf->type->requests_last || a->shadow || vdpa_ring_indices(vf, a, &used, &avail) < 0)
		return false;
	return used != avail;
}

/* The device has it no more, and what it has used of it is the guest's. */
static int
ring_down(struct vdpa_vf *vf, uint16_t qid, struct vfe_deadline deadline, struct vfe_error *err)
{
	int rc = vfe_virtio_queue_reset(&vf->vdev, qid, deadline, err);

	if (rc < 0) {
		distrust(vf);
		return rc;
	}
	atomic_fetch_add(&vf->plain.ring_resets, 1);
	if (may_have_requests(vf, qid))
		rc = vfe_error_set(err, -EBUSY, "queue %u got requests while it was reset", qid);
	vdpa_shadow_stop_ring(vf, qid);
	pthread_mutex_lock(&vf->lock);
	vf->applied[qid].enabled = false;
	vf->applied[qid].shadow = false;
	pthread_mutex_unlock(&vf->lock);
	return rc;
}

/* Rings that the device shall have no more. */
struct down {
	bool todo[VFE_VDPA_MAX_QUEUES];
	uint32_t seen[VFE_VDPA_MAX_QUEUES];
	struct vfe_deadline deadline;
	struct vfe_error *err;
};

/* Those that are empty, each at an instant of its own. How many are not, or -errno. */
static int
empty_down(struct vdpa_vf *vf, void *arg)
{
	struct down *d = arg;
	int busy = 0, rc = 0;
	uint16_t qid;

	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++) {
		if (!d->todo[qid] || !vf->type->comes_back(qid))
			continue;
		if (!vdpa_drain_is_empty(vf, qid, &d->seen[qid])) {
			busy++;
			continue;
		}
		rc = ring_down(vf, qid, d->deadline, d->err);
		d->todo[qid] = rc < 0;
	}
	return rc < 0 ? rc : busy;
}

/* Some are still busy after @ms. */
static int
give_up(struct vdpa_vf *vf, int busy, uint32_t ms, struct vfe_error *err)
{
	uint16_t qid;
	bool all = true;

	for (qid = 0; qid < vf->nr_queues; qid++)
		all = all && (vf->plain.change.which[qid] || !vf->applied[qid].enabled);
	vf->plain.drained_ms = all ? ms : 0;
	return vfe_error_set(err, -EBUSY, "%d queues were not empty in %u ms", busy, ms);
}

static int
rings_down(struct vdpa_vf *vf, struct vfe_error *err)
{
	const uint32_t ms = vdpa_drain_ms(vf);
	struct down d = {.deadline = vfe_deadline_in_ms(ms + RING_RESET_MS), .err = err};
	uint16_t qid;
	int busy, rc = 0;

	for (qid = 0; qid < vf->nr_queues; qid++)
		d.todo[qid] = vf->plain.change.which[qid] && vf->applied[qid].enabled;
	memset(d.seen, 0xff, sizeof(d.seen));
	busy = vdpa_drain_until(vf, ms, empty_down, &d);
	if (busy < 0)
		return busy;
	if (busy > 0 && vf->type->requests_last)
		return give_up(vf, busy, ms, err);
	if (busy > 0)
		VDPA_LOG(NOTICE, run, vf->name, "%d queues were not empty in %u ms", busy, ms);
	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++)
		rc = d.todo[qid] ? ring_down(vf, qid, d.deadline, err) : 0;
	return rc;
}

/* As the plan has it; the device gets it if it shall. */
static int
ring_up(struct vdpa_vf *vf, uint16_t qid, struct vfe_error *err)
{
	struct vdpa_plan *plan = &vf->plain.change.plan;
	struct vdpa_applied *now = &plan->rings[qid], old;
	const bool wanted = now->enabled;
	int fd = -1, rc = 0;

	if (wanted)
		rc = vdpa_plan_index(vf, plan, qid, err);
	if (rc < 0)
		return rc;
	now->shadow = wanted && (now->shadow || now->start_idx != 0);
	if (wanted)
		fd = vdpa_ring_irq(vf, qid, now);
	rc = vfe_pci_irq_set(vf->pci, qid + 1u, 1, &fd, err);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&vf->lock);
	/* from here on a table that moves the ring stops the device; see rings_stay() */
	if (!wanted || vf->table == plan->table) {
		old = vf->applied[qid];
		vf->applied[qid] = *now;
		*now = old; /* with its reference */
	} else {
		rc = vfe_error_set(err, -EAGAIN, "guest memory has changed meanwhile");
	}
	pthread_mutex_unlock(&vf->lock);
	if (rc == 0 && wanted) {
		rc = vdpa_plain_queue_start(vf, qid, err);
		if (rc < 0)
			distrust(vf);
	}
	return rc;
}

int
vdpa_rings_change(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_change *c = &vf->plain.change;
	uint16_t qid;
	int rc;

	if (c->rc < 0) {
		*err = c->err;
		return c->rc;
	}
	rc = rings_down(vf, err);
	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++)
		rc = c->which[qid] ? ring_up(vf, qid, err) : 0;
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&vf->lock);
	vf->applied_seq = c->plan.seq;
	vf->relay_planned = c->plan.relay;
	pthread_mutex_unlock(&vf->lock);
	return vf->type->ctrl != NULL ? vf->type->ctrl->tend(vf, err) : 0;
}

/* --- after the job, on the reactor --- */

/* A disk that was busy, or memory that came, is nobody's fault. */
static void
change_failed(struct vdpa_vf *vf, int status, const char *why)
{
	if (status == -EBUSY || status == -EAGAIN) {
		VDPA_LOG(NOTICE, run, vf->name, "the device is reset for a change of rings: %s",
			why);
		return;
	}
	VDPA_LOG(WARNING, run, vf->name,
		"rings cannot be changed while the device runs, it is reset: %s", why);
	pthread_mutex_lock(&vf->lock);
	if (!vf->lost) {
		vdpa_vf_set_error_locked(vf, why);
		vf->ring_failed = true;
	}
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_rings_done(struct vdpa_vf *vf, int status, const char *why)
{
	struct vdpa_change *c = &vf->plain.change;
	uint16_t qid;

	if (status < 0)
		change_failed(vf, status, why);
	/* kicks and interrupts of the time between are made up for */
	for (qid = 0; status == 0 && qid < vf->nr_queues; qid++) {
		if (c->which[qid] && vf->applied[qid].enabled)
			vdpa_vf_kick(vf, qid);
	}
	memset(c->which, 0, sizeof(c->which));
	vdpa_plan_fini(vf, &c->plan);
	memset(&c->plan, 0, sizeof(c->plan));
}
