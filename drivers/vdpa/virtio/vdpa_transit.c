/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What a suspend and a resume take, phase by phase: a migration's downtime is made of them.
 *
 * A suspend begins when a running VF leaves its rings and ends when the device is stopped. A resume
 * begins when a stopped VF is to run and ends when it does; it may pass through PREPARE more than
 * once when the front-end changes its mind meanwhile.
 */

#include "vdpa_priv.h"

/* States that are not here count in the total only. */
static const uint8_t phases[VDPA_S_NR] = {
	[VDPA_S_QUIESCE] = VFE_VDPA_PHASE_QUIESCE,
	[VDPA_S_FREEZE] = VFE_VDPA_PHASE_FREEZE,
	[VDPA_S_FLUSH] = VFE_VDPA_PHASE_FLUSH,
	[VDPA_S_PREPARE] = VFE_VDPA_PHASE_PREPARE,
	[VDPA_S_RESTORE] = VFE_VDPA_PHASE_RESTORE,
	[VDPA_S_TRACK] = VFE_VDPA_PHASE_TRACK,
	[VDPA_S_UNQUIESCE] = VFE_VDPA_PHASE_UNQUIESCE,
	[VDPA_S_START] = VFE_VDPA_PHASE_START,
	[VDPA_S_RESET] = VFE_VDPA_PHASE_RESET,
};

static void
transit_begin(struct vdpa_transit *t, enum vdpa_transit_kind kind)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	t->kind = kind;
	t->begin_ns = t->entered_ns;
	t->now = (struct vfe_vdpa_transit){
		.begin_unix_us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000,
	};
}

static void
transit_end(struct vdpa_transit *t, bool ok)
{
	t->now.ok = ok;
	t->now.total_ns = t->entered_ns - t->begin_ns;
	if (t->kind == VDPA_T_SUSPEND)
		t->last_suspend = t->now;
	else
		t->last_resume = t->now;
	t->kind = VDPA_T_NONE;
}

void
vdpa_transit_step_locked(struct vdpa_vf *vf, enum vdpa_state next, bool to_run)
{
	struct vdpa_transit *t = &vf->transit;
	uint64_t now = vfe_clock_ns();
	bool rests = next < VDPA_S_NR_STABLE;

	t->now.phase_ns[phases[vf->state]] += now - t->entered_ns;
	t->entered_ns = now;
	if (vdpa_state_runs(vf->state) && !vdpa_state_runs(next))
		transit_begin(t, VDPA_T_SUSPEND);
	else if (vf->state < VDPA_S_NR_STABLE && to_run && t->kind == VDPA_T_NONE &&
		 !vdpa_state_runs(vf->state))
		transit_begin(t, VDPA_T_RESUME);

	if (t->kind == VDPA_T_SUSPEND && rests)
		transit_end(t, next == VDPA_S_FROZEN);
	else if (t->kind == VDPA_T_RESUME && rests && next != VDPA_S_FROZEN)
		transit_end(t, next == VDPA_S_RUNNING);
}

void
vdpa_transit_command(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->transit.now.commands++;
	pthread_mutex_unlock(&vf->lock);
}

/* It stays where it is: a resume that has not come to its end has failed, or is not wanted. */
void
vdpa_transit_rest_locked(struct vdpa_vf *vf)
{
	if (vf->transit.kind == VDPA_T_RESUME && vf->failed_seq == vf->seq)
		transit_end(&vf->transit, false);
	vf->transit.kind = VDPA_T_NONE;
}
