/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The suspend that GET_VRING_BASE asks for, of the VF and, in a migration, of all VFs of the VM.
 *
 * One thread of librte_vhost serves all front-ends, and it has to wait for the device, because the
 * answer is where the stopped ring stands. So that a VM with many VFs does not pay for one after
 * the other, the first GET_VRING_BASE makes all of them suspend; each is stopped, or nearly, when
 * its own message comes.
 *
 * Only what is being migrated (LOG_ALL) is treated like that: a ring that stops otherwise belongs
 * to a guest that resets one of its drivers. If the messages of the others do not come, that is
 * what it was in a migration too, and they go on.
 *
 * The VFs of a VM are known by its memory: they have the same file at the lowest guest address.
 * The VM's UUID need not be given for that. The process at the other end of the sockets would be
 * no help: where libvirt creates the sockets that QEMU listens on, SO_PEERCRED names libvirtd, for
 * all VMs.
 */

#include <errno.h>

#include "vdpa_priv.h"

static const struct vdpa_region *
lowest_region(const struct vdpa_table *table)
{
	const struct vdpa_region *r = NULL;
	unsigned int i;

	for (i = 0; table != NULL && i < table->nr_regions; i++) {
		if (r == NULL || table->regions[i].gpa < r->gpa)
			r = &table->regions[i];
	}
	return r;
}

static bool
same_guest(const struct vdpa_table *a, const struct vdpa_table *b)
{
	const struct vdpa_region *ra = lowest_region(a), *rb = lowest_region(b);

	return ra != NULL && rb != NULL && ra->dev == rb->dev && ra->ino == rb->ino &&
	       ra->gpa == rb->gpa && ra->fd_offset == rb->fd_offset;
}

static bool
is_logged_locked(const struct vdpa_vf *vf)
{
	return (vf->features & VFE_BIT(VFE_VHOST_F_LOG_ALL)) != 0;
}

static void
suspend_begin_locked(struct vdpa_vf *vf)
{
	if (!vf->suspend)
		vf->suspend_deadline = vfe_deadline_in_ms(vdpa_globals.ms.suspend);
	vf->suspend = true;
}

/*
 * @vf goes on at @until. The reactor is woken when it has to stop the device (@now), or would not
 * look in time otherwise: not for each ring of a large VF.
 */
static void
suspend_until_locked(struct vdpa_vf *vf, struct vfe_deadline until, bool now)
{
	vf->suspend_until = until;
	if (now || vf->suspend_armed.at_ns == 0 || vf->suspend_armed.at_ns > until.at_ns)
		vdpa_vf_post(vf);
}

void
vdpa_vf_suspend_done_locked(struct vdpa_vf *vf)
{
	uint32_t ms = is_logged_locked(vf) ? vdpa_globals.ms.sibling : vdpa_globals.ms.grace;

	vf->suspend = vdpa_vf_wants_run_locked(vf);
	suspend_until_locked(vf, vfe_deadline_in_ms(ms), !vf->suspend);
}

struct sibling_of {
	const struct vdpa_vf *vf;
	const struct vdpa_table *table;
	struct vfe_deadline until;
};

/* Suspend @vf, or change how long it waits for its own message. */
static void
suspend_sibling(struct vdpa_vf *vf, const void *arg)
{
	const struct sibling_of *of = arg;
	bool waits;

	if (vf == of->vf)
		return;
	pthread_mutex_lock(&vf->lock);
	waits = vf->suspend && vf->suspend_until.at_ns != 0;
	if (is_logged_locked(vf) && same_guest(vf->table, of->table) &&
		(waits || (!vf->suspend && vdpa_vf_wants_run_locked(vf)))) {
		if (!waits)
			VDPA_LOG(DEBUG, run, vf->name, "suspended with %s", of->vf->name);
		suspend_begin_locked(vf);
		suspend_until_locked(vf, of->until, !waits);
	}
	pthread_mutex_unlock(&vf->lock);
}

/* Does not wait for them. */
static void
suspend_siblings(struct vdpa_vf *vf, uint32_t for_ms)
{
	struct sibling_of of = {.vf = vf, .until = vfe_deadline_in_ms(for_ms)};
	struct vdpa_table *table = NULL;

	pthread_mutex_lock(&vf->lock);
	if (is_logged_locked(vf))
		table = vdpa_table_get(vf->table);
	pthread_mutex_unlock(&vf->lock);
	if (table == NULL)
		return;
	of.table = table;
	vdpa_vf_for_each(suspend_sibling, &of);
	vdpa_table_put(table);
}

void
vdpa_vf_suspend_early(struct vdpa_vf *vf)
{
	bool begins;

	pthread_mutex_lock(&vf->lock);
	begins = is_logged_locked(vf) && !vf->suspend && vdpa_vf_wants_run_locked(vf);
	if (begins) {
		suspend_begin_locked(vf);
		vf->suspend_until = vfe_deadline_in_ms(vdpa_globals.ms.sibling);
	}
	pthread_mutex_unlock(&vf->lock);
	if (begins)
		suspend_siblings(vf, vdpa_globals.ms.sibling);
}

void
vdpa_vf_suspend_guest(struct vdpa_vf *vf)
{
	/* their messages cannot come before this one is answered */
	suspend_siblings(vf, vdpa_globals.ms.suspend + vdpa_globals.ms.sibling);
	vdpa_vf_suspend_wait(vf);
	suspend_siblings(vf, vdpa_globals.ms.sibling);
}

void
vdpa_vf_suspend_wait(struct vdpa_vf *vf)
{
	struct timespec at;
	bool stopped;

	pthread_mutex_lock(&vf->lock);
	suspend_begin_locked(vf);
	vf->suspend_until.at_ns = 0;
	at = vfe_deadline_timespec(vf->suspend_deadline);
	if (!vdpa_vf_stopped_locked(vf))
		vdpa_vf_post(vf);
	while (!vdpa_vf_stopped_locked(vf)) {
		if (pthread_cond_timedwait(&vf->changed, &vf->lock, &at) == ETIMEDOUT)
			break;
	}
	stopped = vdpa_vf_stopped_locked(vf);
	pthread_mutex_unlock(&vf->lock);
	if (!stopped) {
		VDPA_LOG(ERR, run, vf->name, "did not stop in %u ms", vdpa_globals.ms.suspend);
		vdpa_vf_lost(vf, "the device did not stop in time");
	}
}

/*
 * A front-end that stops more rings in a row than belong together stops them all, and one reset of
 * the device is shorter than one of each ring.
 */
static bool
is_alone_locked(struct vdpa_vf *vf, struct vdpa_ring *ring)
{
	if (vfe_deadline_passed(vf->alone_until))
		vf->alone = 0;
	if (vf->suspend || is_logged_locked(vf) || !vdpa_vf_runs_locked(vf) ||
		vf->alone >= vf->type->queue_unit || !vdpa_rings_suffice_locked(vf))
		return false;
	ring->stopping = true;
	if (vdpa_vf_wants_run_locked(vf))
		return true;
	ring->stopping = false; /* it was the last one */
	return false;
}

bool
vdpa_vf_stop_ring(struct vdpa_vf *vf, uint16_t qid)
{
	struct timespec at = vfe_deadline_timespec(vfe_deadline_in_ms(vdpa_globals.ms.suspend));
	bool alone;

	pthread_mutex_lock(&vf->lock);
	alone = is_alone_locked(vf, &vf->rings[qid]);
	if (alone) {
		vf->seq++;
		vf->alone++;
		vdpa_vf_post(vf);
	}
	while (alone && vf->applied[qid].enabled && !vdpa_vf_stopped_locked(vf)) {
		if (pthread_cond_timedwait(&vf->changed, &vf->lock, &at) == ETIMEDOUT)
			alone = false;
	}
	vf->alone_until = vfe_deadline_in_ms(vdpa_globals.ms.grace);
	pthread_mutex_unlock(&vf->lock);
	return alone;
}

/*
 * The rings of a VF are stopped one after the other, and the VFs of a VM. When the next message
 * does not come, what is suspended goes on.
 */
void
vdpa_vf_suspend_check(struct vdpa_vf *vf)
{
	struct vfe_deadline next = {0};

	pthread_mutex_lock(&vf->lock);
	if (vf->suspend && vf->suspend_until.at_ns != 0) {
		vf->suspend = !vfe_deadline_passed(vf->suspend_until);
		if (vf->suspend)
			next = vf->suspend_until;
	}
	vf->suspend_armed = next;
	pthread_mutex_unlock(&vf->lock);
	if (next.at_ns != 0)
		vdpa_timer_set(&vf->suspend_timer, next);
	else
		vdpa_timer_cancel(&vf->suspend_timer);
}
