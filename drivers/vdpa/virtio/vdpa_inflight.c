/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Requests that were in flight when a device was lost: may they be done again?
 *
 * A device that is stopped gives back all that it has taken, so its used index is where it goes on.
 * One that has died has not: between the used index and the available index are as many requests as
 * are not completed, but which ones they are follows from the indices only if the device completes
 * in order. Then it is exactly those, and doing a block request again whose buffer the guest still
 * leaves to the device changes nothing. If it does not, the entries there may have been completed
 * before older ones: the guest has taken these buffers back, and doing them again writes what is in
 * them now. The rings do not tell them apart (a slow request's entry in the available ring may have
 * been written over since), so such a ring does not start again until the guest resets the device.
 *
 * That a device completes in order it cannot say: with IN_ORDER it would have to be negotiated with
 * the guest. It is seen from what both rings still hold of the requests before: the same heads in
 * the same places.
 */

#include <errno.h>
#include <stdlib.h>

#include "vdpa_priv.h"

static int
read_avail(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t pos, uint16_t *ret)
{
	return vdpa_domain_read16(vf->domain,
		ring->avail + sizeof(struct vfe_wire_vring_avail) + 2u * (pos & (ring->size - 1u)),
		ret);
}

/* The low half of the id: a head is less than the ring's size. */
static int
read_used(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t pos, uint16_t *ret)
{
	return vdpa_domain_read16(vf->domain,
		ring->used + sizeof(struct vfe_wire_vring_used) +
			sizeof(struct vfe_wire_vring_used_elem) * (pos & (ring->size - 1u)),
		ret);
}

/* Do the rings hold the same heads in the places [@from, @to)? 0, -EUCLEAN, or what reading says.
 */
static int
compare(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t from, uint16_t to)
{
	uint16_t a, u, pos;
	int rc;

	for (pos = from; pos != to; pos++) {
		rc = read_avail(vf, ring, pos, &a);
		if (rc == 0)
			rc = read_used(vf, ring, pos, &u);
		if (rc < 0)
			return rc;
		if (a != u)
			return -EUCLEAN;
	}
	return 0;
}

/* No head may be twice among what is not completed: then one of them is older than the ring. */
static int
check_distinct(struct vdpa_vf *vf, const struct vdpa_applied *ring, uint16_t from, uint16_t to)
{
	uint8_t *seen = calloc(1, ring->size);
	uint16_t head, pos;
	int rc = 0;

	if (seen == NULL)
		return -ENOMEM;
	for (pos = from; rc == 0 && pos != to; pos++) {
		rc = read_avail(vf, ring, pos, &head);
		if (rc == 0 && (head >= ring->size || seen[head]++ != 0))
			rc = -EUCLEAN;
	}
	free(seen);
	return rc;
}

/* Requests that are not completed; what cannot be read counts as one. */
static uint16_t
ring_pending(struct vdpa_vf *vf, const struct vdpa_applied *ring)
{
	uint16_t used, avail;

	if (vdpa_ring_indices(vf, ring, &used, &avail) < 0)
		return 1;
	return (uint16_t)(avail - used);
}

/* What the guest makes available from now on has been taken by nobody. */
void
vdpa_inflight_note(struct vdpa_vf *vf)
{
	unsigned int total = 0;
	struct vdpa_applied ring;
	uint16_t qid, pending;

	if (!vf->type->requests_last)
		return;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		pthread_mutex_lock(&vf->lock);
		ring = vf->applied[qid];
		pthread_mutex_unlock(&vf->lock);
		/* one that was quiet at a loss before has not been started since */
		pending = ring.enabled && !ring.quiet ? ring_pending(vf, &ring) : 0;
		total += pending;
		pthread_mutex_lock(&vf->lock);
		vf->applied[qid].quiet =
			ring.enabled && pending == 0 && vf->applied[qid].used == ring.used;
		pthread_cond_broadcast(&vf->changed);
		pthread_mutex_unlock(&vf->lock);
	}
	VDPA_LOG(NOTICE, run, vf->name, "lost with %u requests in flight", total);
}

int
vdpa_inflight_check(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring,
	uint16_t first, struct vfe_error *err)
{
	uint16_t avail, pending, known;
	int rc;

	rc = vdpa_domain_avail_index(vf->domain, ring->avail, &avail);
	if (rc < 0)
		return vfe_error_set(err, rc, "queue %u: available ring cannot be read", qid);
	pending = (uint16_t)(avail - ring->start_idx);
	if (pending == 0)
		return 0;
	if (pending > ring->size)
		return vfe_error_set(err, -EPROTO,
			"queue %u: available index %u, used index %u, but %u entries", qid, avail,
			ring->start_idx, ring->size);
	/* both rings hold [avail - size, used); before @first is nothing of that device */
	known = (uint16_t)(ring->size - pending);
	if (known > (uint16_t)(ring->start_idx - first))
		known = (uint16_t)(ring->start_idx - first);
	rc = compare(vf, ring, (uint16_t)(ring->start_idx - known), ring->start_idx);
	if (rc == 0)
		rc = check_distinct(vf, ring, ring->start_idx, avail);
	if (rc == -EUCLEAN)
		return vfe_error_set(err, rc,
			"queue %u: up to %u requests were in flight when the device was lost, and "
			"as it does not complete in order nobody knows which; it starts when the "
			"guest resets it (force_in_order avoids this)",
			qid, pending);
	return rc < 0 ? vfe_error_set(err, rc, "queue %u: rings cannot be read", qid) : 0;
}
