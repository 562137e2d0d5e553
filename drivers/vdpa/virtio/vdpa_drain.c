/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Before a plain function is reset: what it has in hand shall come back.
 *
 * A reset does not wait for packets that are being sent, or for requests. A relayed ring gives the
 * device nothing more and is empty soon. What a guest that runs has on a ring of its own never
 * ends; there an instant is waited for at which all that it has made available has been used.
 */

#include <poll.h>
#include <string.h>
#include <time.h>

#include "vdpa_priv.h"

enum {
	DRAIN_PACKETS_MS = 200,
	DRAIN_REQUESTS_MS = 1500,
	DRAIN_BUSY_MS = 500, /* requests of a guest that runs */
	DRAIN_SHORT_PAUSES = 50,
};
static const struct timespec short_pause = {.tv_nsec = 100000}, long_pause = {.tv_nsec = 2000000};

/* @seen is the available index that the device has been told of. */
bool
vdpa_drain_is_empty(struct vdpa_vf *vf, uint16_t qid, uint32_t *seen)
{
	const struct vdpa_applied *a = &vf->applied[qid];
	uint16_t used, avail;

	if (a->shadow)
		return vdpa_shadow_drain(vf, qid);
	if (vdpa_domain_used_index(vf->domain, a->used, &used) < 0 ||
		vdpa_domain_avail_index(vf->domain, a->avail, &avail) < 0)
		return true;
	/* the guest's own, and no device can use more than there is */
	if ((uint16_t)(avail - used) > a->size)
		return true;
	/* kicks are not relayed any more */
	if (used != avail && avail != *seen &&
		vfe_pci_doorbell_ring(&vf->queues[qid].doorbell, qid, 2) == 0)
		*seen = avail;
	return used == avail;
}

static unsigned int
nr_busy(struct vdpa_vf *vf, uint32_t *seen)
{
	unsigned int busy = 0;
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].enabled && vf->type->comes_back(qid))
			busy += !vdpa_drain_is_empty(vf, qid, &seen[qid]);
	}
	return busy;
}

uint32_t
vdpa_drain_ms(struct vdpa_vf *vf)
{
	uint16_t qid;
	bool runs;

	if (!vf->type->requests_last)
		return DRAIN_PACKETS_MS;
	pthread_mutex_lock(&vf->lock);
	runs = !vf->suspend && vdpa_vf_wants_run_locked(vf);
	for (qid = 0; runs && qid < vf->nr_queues; qid++)
		runs = !vf->rings[qid].stopping;
	pthread_mutex_unlock(&vf->lock);
	return runs ? DRAIN_BUSY_MS : DRAIN_REQUESTS_MS;
}

void
vdpa_drain_pause(struct vdpa_vf *vf, unsigned int round)
{
	struct pollfd lost = {
		.fd = vfe_pci_lost_fd(vf->pci),
		.events = (short)vfe_pci_lost_events(vf->pci),
	};

	ppoll(&lost, 1, round < DRAIN_SHORT_PAUSES ? &short_pause : &long_pause, NULL);
}

void
vdpa_drain(struct vdpa_vf *vf)
{
	const uint32_t ms = vdpa_drain_ms(vf);
	const struct vfe_deadline deadline = vfe_deadline_in_ms(ms);
	uint32_t seen[VFE_VDPA_MAX_QUEUES];
	unsigned int round, busy = 1;

	memset(seen, 0xff, sizeof(seen));
	for (round = 0; busy > 0; round++) {
		busy = nr_busy(vf, seen);
		if (busy == 0 || vfe_pci_error(vf->pci) < 0)
			return;
		if (vfe_deadline_passed(deadline))
			break;
		vdpa_drain_pause(vf, round);
	}
	VDPA_LOG(NOTICE, run, vf->name,
		"%u queues were not empty in %u ms; what the device does not give back when it is "
		"reset is done again",
		busy, ms);
}
