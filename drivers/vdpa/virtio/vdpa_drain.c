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
	if (vdpa_ring_indices(vf, a, &used, &avail) < 0)
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

static int
nr_busy(struct vdpa_vf *vf, void *arg)
{
	uint32_t *seen = arg;
	uint16_t qid;
	int busy = 0;

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

static void
drain_pause(struct vdpa_vf *vf, unsigned int round)
{
	struct pollfd lost = {
		.fd = vfe_pci_lost_fd(vf->pci),
		.events = (short)vfe_pci_lost_events(vf->pci),
	};

	ppoll(&lost, 1, round < DRAIN_SHORT_PAUSES ? &short_pause : &long_pause, NULL);
}

int
vdpa_drain_until(
	struct vdpa_vf *vf, uint32_t ms, int (*look)(struct vdpa_vf *vf, void *arg), void *arg)
{
	const struct vfe_deadline deadline = vfe_deadline_in_ms(ms);
	unsigned int round;
	int busy;

	for (round = 0;; round++) {
		busy = look(vf, arg);
		if (busy <= 0 || vfe_pci_error(vf->pci) < 0 || vfe_deadline_passed(deadline))
			return busy;
		drain_pause(vf, round);
	}
}

void
vdpa_drain(struct vdpa_vf *vf)
{
	const uint32_t ms = vdpa_drain_ms(vf);
	uint32_t seen[VFE_VDPA_MAX_QUEUES];
	int busy;

	memset(seen, 0xff, sizeof(seen));
	busy = vdpa_drain_until(vf, ms, nr_busy, seen);
	if (busy == 0 || vfe_pci_error(vf->pci) < 0)
		return;
	VDPA_LOG(NOTICE, run, vf->name,
		"%d queues were not empty in %u ms; what the device does not give back when it is "
		"reset is done again",
		busy, ms);
}
