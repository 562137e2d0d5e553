/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Shadow rings: how a plain function goes on with a ring in the middle.
 *
 * Registers start a ring at index 0. So the device gets an available and a used ring of ours, in
 * the arena, which begin at 0, and the descriptor table of the guest itself: entries of both rings
 * are numbers of descriptors and fit as they are. What is relayed is 2 bytes per chain in one
 * direction and 8 in the other; descriptors, indirect tables and buffers are the guest's, checked
 * by the device as ever.
 *
 * The relay thread runs it, for kicks of the guest and for interrupts of the device. Both sides may
 * lie: an index that runs ahead of what the ring holds ends the relaying of a guest's ring, and
 * makes a device lost.
 */

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vdpa_priv.h"

enum { SHADOW_ROUNDS = 16 }; /* then others get their turn */

struct vdpa_shadow {
	struct vdpa_vf *vf;
	uint16_t qid;
	uint16_t max_size;
	struct vdpa_fd *irq; /* the device signals it */
	struct vfe_wire_vring_avail *avail;
	struct vfe_wire_vring_used *used;
	uint64_t avail_iova;
	uint64_t used_iova;
	atomic_uint_least64_t chains;
	atomic_uint_least64_t interrupts;

	pthread_mutex_t lock; /* protects what follows; held for moments only */
	bool on;
	bool broken; /* by the guest */
	bool owes_bell;
	bool event_idx;
	uint16_t size;
	uint16_t base;  /* index of the guest's ring where ours is 0 */
	uint16_t taken; /* available index of our ring */
	uint16_t given; /* used index of our ring, as far as the guest knows */
	const struct vfe_wire_vring_avail *guest_avail;
	struct vfe_wire_vring_used *guest_used;
	struct vdpa_fd *call;
};

/* --- what is shared is read and written once, as a whole --- */

static uint16_t
load16(const uint16_t *p)
{
	return le16toh(__atomic_load_n(p, __ATOMIC_ACQUIRE));
}

static void
store16(uint16_t *p, uint16_t value)
{
	__atomic_store_n(p, htole16(value), __ATOMIC_RELEASE);
}

/* Section 2.7.7.2 and 2.7.10: the fields behind the two rings. */
static uint16_t *
used_event(const struct vfe_wire_vring_avail *avail, uint16_t size)
{
	return (uint16_t *)(uintptr_t)&avail->ring[size];
}

static uint16_t *
avail_event(struct vfe_wire_vring_used *used, uint16_t size)
{
	return (uint16_t *)(void *)&used->ring[size];
}

/* --- from the device to the guest --- */

static bool
guest_wants_signal(const struct vdpa_shadow *s, uint16_t old, uint16_t new)
{
	uint16_t event;

	if (old == new)
		return false;
	if (!s->event_idx)
		return (load16(&s->guest_avail->flags) & VFE_VRING_AVAIL_F_NO_INTERRUPT) == 0;
	event = load16(used_event(s->guest_avail, s->size));
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* 0, -EAGAIN (there is more), -EPROTO (the device lies). */
static int
shadow_give(struct vdpa_shadow *s)
{
	const uint16_t old = (uint16_t)(s->base + s->given), mask = (uint16_t)(s->size - 1);
	unsigned int round;
	uint16_t idx, i;
	bool more = true;

	for (round = 0; more && round < SHADOW_ROUNDS; round++) {
		idx = load16(&s->used->idx);
		if ((uint16_t)(idx - s->given) > (uint16_t)(s->taken - s->given))
			return -EPROTO;
		for (i = s->given; i != idx; i++)
			memcpy(&s->guest_used->ring[(uint16_t)(s->base + i) & mask],
				&s->used->ring[i & mask], sizeof(s->used->ring[0]));
		atomic_fetch_add_explicit(
			&s->chains, (uint16_t)(idx - s->given), memory_order_relaxed);
		s->given = idx;
		store16(&s->guest_used->idx, (uint16_t)(s->base + idx));
		if (s->event_idx)
			store16(used_event(s->avail, s->size), idx);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		more = load16(&s->used->idx) != idx;
	}
	if (guest_wants_signal(s, old, (uint16_t)(s->base + s->given)))
		vdpa_fd_signal(s->call);
	return more ? -EAGAIN : 0;
}

/* --- from the guest to the device --- */

static int
shadow_bell(struct vdpa_shadow *s)
{
	int rc;

	if (!s->owes_bell)
		return 0;
	rc = vfe_pci_doorbell_ring(&s->vf->queues[s->qid].doorbell, s->qid, 2);
	s->owes_bell = rc == -EAGAIN;
	return rc == -EAGAIN ? rc : 0;
}

/* 0, -EAGAIN (come again), -EPROTO (the guest lies). */
static int
shadow_take(struct vdpa_shadow *s)
{
	const uint16_t mask = (uint16_t)(s->size - 1);
	unsigned int round;
	uint16_t idx, n, i;
	bool more = true;
	int rc;

	for (round = 0; more && round < SHADOW_ROUNDS; round++) {
		idx = load16(&s->guest_avail->idx);
		n = (uint16_t)(idx - s->base - s->taken);
		if (n > (uint16_t)(s->size - (uint16_t)(s->taken - s->given)))
			return -EPROTO;
		for (i = s->taken; n > 0; n--, i++)
			store16(&s->avail->ring[i & mask],
				load16(&s->guest_avail->ring[(uint16_t)(s->base + i) & mask]));
		s->owes_bell = s->owes_bell || i != s->taken;
		s->taken = i;
		store16(&s->avail->idx, i);
		if (s->event_idx)
			store16(avail_event(s->guest_used, s->size), idx);
		/* the guest looks at the event field after it has written its index */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		more = load16(&s->guest_avail->idx) != idx;
	}
	rc = shadow_bell(s);
	return more ? -EAGAIN : rc;
}

/* --- the relay --- */

int
vdpa_shadow_run(void *arg)
{
	struct vdpa_shadow *s = arg;
	int given = 0, taken = 0;

	pthread_mutex_lock(&s->lock);
	if (s->on && !s->broken) {
		given = shadow_give(s);
		taken = given == -EPROTO ? 0 : shadow_take(s);
		s->broken = given == -EPROTO || taken == -EPROTO;
	}
	pthread_mutex_unlock(&s->lock);
	if (given == -EPROTO)
		vdpa_vf_lost(s->vf, "the device has used more buffers than it was given");
	else if (taken == -EPROTO)
		VDPA_LOG(WARNING, run, s->vf->name,
			"queue %u: its available index is further ahead than its size; it is not "
			"served until it is started again",
			s->qid);
	return given == -EAGAIN || taken == -EAGAIN ? -EAGAIN : 0;
}

/* --- start and stop, on a worker --- */

static int
shadow_rings(struct vdpa_shadow *s, const struct vdpa_applied *a, struct vfe_error *err)
{
	void *avail = NULL, *used = NULL;
	int rc;

	rc = vdpa_domain_pointer(s->vf->domain, a->avail, vfe_vring_avail_bytes(a->size), &avail);
	if (rc == 0)
		rc = vdpa_domain_pointer(
			s->vf->domain, a->used, vfe_vring_used_bytes(a->size), &used);
	if (rc == 0 && a->size > s->max_size)
		rc = -ERANGE;
	if (rc < 0)
		return vfe_error_set(err, rc,
			"queue %u: its rings of size %u cannot be relayed: %s", s->qid, a->size,
			strerror(-rc));
	s->guest_avail = avail;
	s->guest_used = used;
	return 0;
}

int
vdpa_shadow_start(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *a,
	struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];
	int rc;

	pthread_mutex_lock(&s->lock);
	rc = shadow_rings(s, a, err);
	if (rc == 0) {
		s->size = a->size;
		s->base = a->start_idx;
		s->taken = 0;
		s->given = 0;
		s->broken = false;
		s->owes_bell = false;
		s->event_idx = (vf->driver_features & VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX)) != 0;
		memset(s->avail, 0, vfe_vring_avail_bytes(a->size));
		memset(s->used, 0, vfe_vring_used_bytes(a->size));
		store16(&s->guest_used->flags, 0); /* it shall kick */
		vdpa_fd_put(s->call);
		s->call = vdpa_fd_get(a->call);
		s->on = true;
		cfg->driver = s->avail_iova;
		cfg->device = s->used_iova;
	}
	pthread_mutex_unlock(&s->lock);
	return rc;
}

void
vdpa_shadow_stop(struct vdpa_vf *vf)
{
	struct vdpa_shadow *s;
	uint16_t qid;

	for (qid = 0; vf->plain.shadows != NULL && qid < vf->nr_queues; qid++) {
		s = vf->plain.shadows[qid];
		pthread_mutex_lock(&s->lock);
		/* what the device has used last; a device that lies now has no more to say */
		while (s->on && shadow_give(s) == -EAGAIN)
			continue;
		s->on = false;
		vdpa_fd_put(s->call);
		s->call = NULL;
		pthread_mutex_unlock(&s->lock);
	}
}

void
vdpa_shadow_call(struct vdpa_vf *vf, uint16_t qid, struct vdpa_fd *call)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];
	struct vdpa_fd *old;

	pthread_mutex_lock(&s->lock);
	old = s->call;
	s->call = vdpa_fd_get(call);
	pthread_mutex_unlock(&s->lock);
	vdpa_fd_put(old);
}

struct vdpa_fd *
vdpa_shadow_irq(const struct vdpa_shadow *shadow)
{
	return shadow->irq;
}

uint64_t
vdpa_shadow_chains(const struct vdpa_shadow *shadow)
{
	return atomic_load(&shadow->chains);
}

atomic_uint_least64_t *
vdpa_shadow_interrupts(struct vdpa_shadow *shadow)
{
	return &shadow->interrupts;
}

/* --- allocation --- */

uint64_t
vdpa_shadow_bytes(const struct vdpa_vf *vf)
{
	uint64_t bytes = 0;
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++)
		bytes += vfe_align_up(vfe_vring_avail_bytes(vf->queues[qid].max_size), 64) +
			 vfe_align_up(vfe_vring_used_bytes(vf->queues[qid].max_size), 64);
	return bytes;
}

static struct vdpa_shadow *
shadow_create(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_shadow *s = calloc(1, sizeof(*s));
	int fd;

	if (s == NULL)
		return NULL;
	s->vf = vf;
	s->qid = qid;
	s->max_size = vf->queues[qid].max_size;
	pthread_mutex_init(&s->lock, NULL);
	s->avail = vfe_dma_arena_alloc(
		vf->plain.arena, vfe_vring_avail_bytes(s->max_size), 64, &s->avail_iova);
	s->used = vfe_dma_arena_alloc(
		vf->plain.arena, vfe_vring_used_bytes(s->max_size), 64, &s->used_iova);
	fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (fd >= 0)
		s->irq = vdpa_fd_create(fd);
	vfe_close(&fd);
	return s;
}

int
vdpa_shadow_init(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_shadow *s;
	uint16_t qid;

	vf->plain.shadows = calloc(vf->nr_queues, sizeof(vf->plain.shadows[0]));
	for (qid = 0; vf->plain.shadows != NULL && qid < vf->nr_queues; qid++) {
		s = shadow_create(vf, qid);
		vf->plain.shadows[qid] = s;
		if (s == NULL || s->avail == NULL || s->used == NULL || s->irq == NULL)
			return vfe_error_set(
				err, -ENOMEM, "no memory or eventfd for shadow ring %u", qid);
	}
	return vf->plain.shadows != NULL ? 0 : vfe_error_set(err, -ENOMEM, "out of memory");
}

void
vdpa_shadow_fini(struct vdpa_vf *vf)
{
	struct vdpa_shadow *s;
	uint16_t qid;

	for (qid = 0; vf->plain.shadows != NULL && qid < vf->nr_queues; qid++) {
		s = vf->plain.shadows[qid];
		if (s == NULL)
			break;
		vfe_dma_arena_free(vf->plain.arena, s->avail);
		vfe_dma_arena_free(vf->plain.arena, s->used);
		vdpa_fd_put(s->irq);
		vdpa_fd_put(s->call);
		pthread_mutex_destroy(&s->lock);
		free(s);
	}
	free(vf->plain.shadows);
	vf->plain.shadows = NULL;
}
