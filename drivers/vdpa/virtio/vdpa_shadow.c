/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Shadow rings: how a plain function goes on with a ring in the middle.
 *
 * Registers start a ring at index 0. So the device gets an available and a used ring of ours, in
 * the arena, which begin at 0, and the descriptor table of the guest itself: entries of both rings
 * are numbers of descriptors and fit as they are. What is relayed is 2 bytes per chain in one
 * direction and 8 in the other; descriptors, indirect tables and buffers are the guest's, checked
 * by the device as ever. Of a device that is physical they are ours, too: vdpa_trans.c.
 *
 * As each used element passes here, a shadow ring can log what the device has written: with a log,
 * the buffers of the element and the guest's used ring are marked in it.
 *
 * The relay thread runs it, for kicks of the guest and for interrupts of the device. Both sides may
 * lie: an index that runs ahead of what the ring holds, or a descriptor that makes no sense, ends
 * the relaying of a guest's ring, and makes a device lost.
 */

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vdpa_priv.h"

/* Then others get their turn. */
enum { SHADOW_ROUNDS = 16, SHADOW_PIECES = 8192 };

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
	uint16_t base;     /* index of the guest's ring where ours is 0 */
	uint16_t taken;    /* available index of our ring */
	uint16_t given;    /* used index of our ring, as far as the guest knows */
	uint16_t *flights; /* by head: how often the device has it; max_size */
	const struct vfe_wire_vring_avail *guest_avail;
	struct vfe_wire_vring_used *guest_used;
	struct vdpa_chunk *chunks[3]; /* memory of the guest's ring, until it is stopped */
	uint64_t used_gpa;
	struct vdpa_chains chains_of;
	struct vdpa_trans *trans; /* NULL = the device gets the guest's descriptors; constant */
	struct vdpa_log *log;     /* NULL = what the device writes is not logged */
	struct vdpa_fd *call;

	/* What the device had when the ring was stopped, in the order of its coming. */
	struct shadow_left {
		struct vdpa_applied ring; /* which ring that was, and where it stood */
		uint32_t stops;
		uint16_t nr;
		uint16_t *heads; /* max_size */
	} left;
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

/* --- the log --- */

/* [@off, @off + @len) of the guest's used ring has been written, by us. */
static void
log_used(const struct vdpa_shadow *s, uint64_t off, uint64_t len)
{
	if (s->log != NULL)
		vfe_dirty_log_mark(&s->log->log, s->used_gpa + off, len);
}

/* The elements [@from, @to) and the index. */
static void
log_elements(const struct vdpa_shadow *s, uint16_t from, uint16_t to)
{
	const uint64_t elem = sizeof(struct vfe_wire_vring_used_elem);
	const uint16_t first = from & (uint16_t)(s->size - 1), n = (uint16_t)(to - from);
	const uint16_t part = n < s->size - first ? n : (uint16_t)(s->size - first);

	if (s->log == NULL || n == 0)
		return;
	log_used(s, 0, sizeof(*s->guest_used));
	log_used(s, offsetof(struct vfe_wire_vring_used, ring) + first * elem, part * elem);
	log_used(s, offsetof(struct vfe_wire_vring_used, ring), (uint64_t)(n - part) * elem);
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

/* Element @i: 0, -EPROTO (the device lies), -EBADMSG (the guest does). */
static int
give_one(struct vdpa_shadow *s, uint16_t i, struct vfe_error *err)
{
	const uint16_t mask = (uint16_t)(s->size - 1);
	const struct vfe_wire_vring_used_elem *from = &s->used->ring[i & mask];
	struct vfe_wire_vring_used_elem *to = &s->guest_used->ring[(uint16_t)(s->base + i) & mask];
	const uint32_t head = le32toh(__atomic_load_n(&from->id, __ATOMIC_RELAXED));
	const uint32_t len = le32toh(__atomic_load_n(&from->len, __ATOMIC_RELAXED));
	int rc;

	if (head >= s->size || s->flights[head] == 0)
		return vfe_error_set(err, -EPROTO,
			"the device has used buffer %u, which it does not have", head);
	if (s->log != NULL) {
		rc = vdpa_chain_mark(&s->chains_of, (uint16_t)head,
			s->vf->type->writes_unsaid ? UINT64_MAX : len, &s->log->log, err);
		if (rc < 0)
			return vfe_error_prefix(err, rc, "buffer %u", head);
	}
	s->flights[head]--;
	__atomic_store_n(&to->id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(&to->len, htole32(len), __ATOMIC_RELAXED);
	return 0;
}

/* All up to @idx, and tell the guest's index. */
static int
give_up_to(struct vdpa_shadow *s, uint16_t idx, struct vfe_error *err)
{
	const uint16_t from = (uint16_t)(s->base + s->given);
	int rc = 0;

	if ((uint16_t)(idx - s->given) > (uint16_t)(s->taken - s->given))
		return vfe_error_set(err, -EPROTO,
			"the device has used more buffers than it was given: used index %u, given "
			"%u",
			idx, s->taken);
	while (rc == 0 && s->given != idx) {
		rc = give_one(s, s->given, err);
		if (rc == 0)
			s->given++;
	}
	store16(&s->guest_used->idx, (uint16_t)(s->base + s->given));
	log_elements(s, from, (uint16_t)(s->base + s->given));
	atomic_fetch_add_explicit(
		&s->chains, (uint16_t)(s->base + s->given - from), memory_order_relaxed);
	return rc;
}

/* 0, -EAGAIN (there is more), -EPROTO, -EBADMSG as above. */
static int
shadow_give(struct vdpa_shadow *s, struct vfe_error *err)
{
	const uint16_t old = (uint16_t)(s->base + s->given);
	unsigned int round;
	bool more = true;
	uint16_t idx;
	int rc = 0;

	for (round = 0; rc == 0 && more && round < SHADOW_ROUNDS; round++) {
		idx = load16(&s->used->idx);
		rc = give_up_to(s, idx, err);
		if (s->event_idx)
			store16(used_event(s->avail, s->size), idx);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		more = load16(&s->used->idx) != idx;
	}
	if (guest_wants_signal(s, old, (uint16_t)(s->base + s->given)))
		vdpa_fd_signal(s->call);
	if (rc < 0)
		return rc;
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

/* The device gets @head, in as many pieces as are added to @pieces. 0 or -EBADMSG. */
static int
take_one(struct vdpa_shadow *s, uint16_t head, uint32_t *pieces, struct vfe_error *err)
{
	int rc = 0;

	if (head >= s->size)
		return vfe_error_set(err, -EBADMSG,
			"entry %u of its available ring is descriptor %u of %u",
			(uint16_t)(s->base + s->taken), head, s->size);
	if (s->trans != NULL && s->flights[head] != 0)
		return vfe_error_set(err, -EBADMSG,
			"entry %u of its available ring is descriptor %u, which the device has",
			(uint16_t)(s->base + s->taken), head);
	if (s->trans != NULL)
		rc = vdpa_trans_chain(s->trans, &s->chains_of, head, err);
	if (rc < 0)
		return rc;
	*pieces += (uint32_t)rc;
	s->flights[head]++;
	store16(&s->avail->ring[s->taken & (uint16_t)(s->size - 1)], head);
	s->taken++;
	return 0;
}

/* What the guest has made available up to @idx, or as much of it as is enough for now. */
static int
take_up_to(struct vdpa_shadow *s, uint16_t idx, uint32_t *pieces, struct vfe_error *err)
{
	const uint16_t mask = (uint16_t)(s->size - 1), from = s->taken;
	uint16_t n = (uint16_t)(idx - s->base - s->taken);
	int rc = 0;

	if (n > (uint16_t)(s->size - (uint16_t)(s->taken - s->given)))
		return vfe_error_set(err, -EBADMSG,
			"its available index %u is further ahead of %u than its size %u", idx,
			(uint16_t)(s->base + s->given), s->size);
	for (; rc == 0 && n > 0 && *pieces < SHADOW_PIECES; n--)
		rc = take_one(s,
			load16(&s->guest_avail->ring[(uint16_t)(s->base + s->taken) & mask]),
			pieces, err);
	s->owes_bell = s->owes_bell || from != s->taken;
	store16(&s->avail->idx, s->taken);
	return rc;
}

/* 0, -EAGAIN (come again), -EBADMSG (the guest lies). */
static int
shadow_take(struct vdpa_shadow *s, struct vfe_error *err)
{
	uint32_t pieces = 0;
	unsigned int round;
	bool more = true;
	uint16_t idx;
	int rc = 0;

	for (round = 0; rc == 0 && more && round < SHADOW_ROUNDS && pieces < SHADOW_PIECES;
		round++) {
		idx = load16(&s->guest_avail->idx);
		rc = take_up_to(s, idx, &pieces, err);
		if (s->event_idx) {
			store16(avail_event(s->guest_used, s->size), idx);
			log_used(s, offsetof(struct vfe_wire_vring_used, ring[s->size]), 2);
		}
		/* the guest looks at the event field after it has written its index */
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		more = load16(&s->guest_avail->idx) != (uint16_t)(s->base + s->taken);
	}
	if (rc == 0)
		rc = shadow_bell(s);
	return rc == 0 && more ? -EAGAIN : rc;
}

/* --- the relay --- */

static bool
is_lie(int rc)
{
	return rc == -EPROTO || rc == -EBADMSG;
}

/* Not with the shadow's lock. */
static void
shadow_blame(struct vdpa_shadow *s, int rc, struct vfe_error *err)
{
	vfe_error_prefix(err, rc, "queue %u", s->qid);
	if (rc == -EPROTO) {
		vdpa_vf_lost(s->vf, err->text);
		return;
	}
	VDPA_LOG(WARNING, run, s->vf->name, "%s; it is not served until it is started again",
		err->text);
	pthread_mutex_lock(&s->vf->lock);
	vdpa_vf_set_error_locked(s->vf, err->text);
	/* what the device has used is not looked at any more */
	vdpa_dirty_distrust_locked(s->vf);
	pthread_mutex_unlock(&s->vf->lock);
	vdpa_vf_post(s->vf);
}

int
vdpa_shadow_run(void *arg)
{
	struct vdpa_shadow *s = arg;
	int given = 0, taken = 0;
	struct vfe_error err;

	pthread_mutex_lock(&s->lock);
	if (s->on && !s->broken) {
		given = shadow_give(s, &err);
		taken = is_lie(given) ? 0 : shadow_take(s, &err);
		s->broken = is_lie(given) || is_lie(taken);
	}
	pthread_mutex_unlock(&s->lock);
	if (is_lie(given) || is_lie(taken))
		shadow_blame(s, is_lie(given) ? given : taken, &err);
	return given == -EAGAIN || taken == -EAGAIN ? -EAGAIN : 0;
}

bool
vdpa_shadow_drain(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];
	struct vfe_error err;
	bool empty = true;
	int rc = 0;

	pthread_mutex_lock(&s->lock);
	if (s->on && !s->broken) {
		rc = shadow_give(s, &err);
		s->broken = is_lie(rc);
		if (rc == 0)
			shadow_bell(s);
		empty = s->broken || s->given == s->taken;
	}
	pthread_mutex_unlock(&s->lock);
	if (is_lie(rc))
		shadow_blame(s, rc, &err);
	return empty;
}

/* --- start and stop, on a worker --- */

/* Where the parts of the guest's ring are in this process. */
struct parts {
	void *at[3];
	struct vdpa_chunk *chunks[3];
};

static void
parts_put(struct vdpa_chunk **chunks)
{
	unsigned int i;

	for (i = 0; i < 3; i++) {
		vdpa_chunk_put(chunks[i]);
		chunks[i] = NULL;
	}
}

static int
parts_find(struct vdpa_vf *vf, const struct vdpa_applied *a, struct parts *ret)
{
	const uint64_t gpa[] = {a->desc, a->avail, a->used};
	const uint64_t len[] = {
		vfe_vring_desc_bytes(a->size),
		vfe_vring_avail_bytes(a->size),
		vfe_vring_used_bytes(a->size),
	};
	unsigned int i;
	int rc = 0;

	memset(ret, 0, sizeof(*ret));
	for (i = 0; rc == 0 && i < 3; i++)
		rc = vdpa_domain_pointer(vf->domain, gpa[i], len[i], &ret->at[i], &ret->chunks[i]);
	if (rc < 0)
		parts_put(ret->chunks);
	return rc;
}

bool
vdpa_shadow_can(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *a)
{
	struct parts parts;

	if (a->size > vf->plain.shadows[qid]->max_size || parts_find(vf, a, &parts) < 0)
		return false;
	parts_put(parts.chunks);
	return true;
}

/* @indirect: the guest has negotiated it; a device may have it without that. */
static int
shadow_rings(
	struct vdpa_shadow *s, const struct vdpa_applied *a, bool indirect, struct vfe_error *err)
{
	const uint64_t features = s->vf->driver_features;
	struct parts parts;
	int rc = a->size > s->max_size ? -ERANGE : parts_find(s->vf, a, &parts);

	if (rc < 0)
		return vfe_error_set(err, rc,
			"queue %u: its rings of size %u cannot be relayed: %s", s->qid, a->size,
			strerror(-rc));
	parts_put(s->chunks);
	memcpy(s->chunks, parts.chunks, sizeof(s->chunks));
	s->guest_avail = parts.at[1];
	s->guest_used = parts.at[2];
	s->used_gpa = a->used;
	s->chains_of = (struct vdpa_chains){
		.domain = s->vf->domain,
		.desc = parts.at[0],
		.size = a->size,
		.indirect = indirect,
	};
	s->event_idx = (features & VFE_BIT(VFE_VIRTIO_F_RING_EVENT_IDX)) != 0;
	return 0;
}

static bool
goes_on(const struct vdpa_applied *a, const struct vdpa_applied *b)
{
	return vdpa_ring_same(a, b) && a->start_idx == b->start_idx;
}

/*
 * The device gets again what it had, if the ring goes on where it stopped: of one that does not
 * complete in order this is not what the available ring has in these places. 0, or -EBADMSG: what
 * the guest has there now makes no sense.
 */
static int
give_back_left(
	struct vdpa_shadow *s, const struct vdpa_applied *a, uint32_t stops, struct vfe_error *err)
{
	const uint16_t avail = (uint16_t)(load16(&s->guest_avail->idx) - s->base);
	uint32_t pieces = 0;
	uint16_t i;
	int rc = 0;

	if (goes_on(&s->left.ring, a) && s->left.stops == stops && s->left.nr <= avail) {
		for (i = 0; rc == 0 && i < s->left.nr; i++)
			rc = take_one(s, s->left.heads[i], &pieces, err);
		s->owes_bell = s->left.nr > 0;
		store16(&s->avail->idx, s->taken);
	}
	s->left.nr = 0;
	s->left.ring.size = 0;
	return rc < 0 ? vfe_error_prefix(err, rc, "queue %u", s->qid) : 0;
}

static uint32_t
ring_stops(struct vdpa_vf *vf, uint16_t qid)
{
	uint32_t stops;

	pthread_mutex_lock(&vf->lock);
	stops = vf->rings[qid].stops;
	pthread_mutex_unlock(&vf->lock);
	return stops;
}

bool
vdpa_shadow_knows(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *ring)
{
	const uint32_t stops = ring_stops(vf, qid);
	struct vdpa_shadow *s;
	bool knows;

	if (vf->plain.shadows == NULL)
		return false;
	s = vf->plain.shadows[qid];
	pthread_mutex_lock(&s->lock);
	knows = goes_on(&s->left.ring, ring) && s->left.stops == stops;
	pthread_mutex_unlock(&s->lock);
	return knows;
}

int
vdpa_shadow_start(struct vdpa_vf *vf, uint16_t qid, const struct vdpa_applied *a,
	struct vfe_virtio_queue_cfg *cfg, struct vfe_error *err)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];
	const uint32_t stops = ring_stops(vf, qid);
	bool indirect;
	int rc;

	pthread_mutex_lock(&vf->lock);
	indirect = (vf->features & vf->driver_features &
			   VFE_BIT(VFE_VIRTIO_F_RING_INDIRECT_DESC)) != 0;
	pthread_mutex_unlock(&vf->lock);
	pthread_mutex_lock(&s->lock);
	rc = shadow_rings(s, a, indirect, err);
	if (rc == 0 && s->trans != NULL)
		rc = vdpa_trans_start(s->trans, &cfg->desc, err);
	if (rc == 0) {
		s->size = a->size;
		s->base = a->start_idx;
		s->taken = 0;
		s->given = 0;
		s->broken = false;
		s->owes_bell = false;
		memset(s->flights, 0, s->max_size * sizeof(s->flights[0]));
		memset(s->avail, 0, vfe_vring_avail_bytes(a->size));
		memset(s->used, 0, vfe_vring_used_bytes(a->size));
		rc = give_back_left(s, a, stops, err);
	}
	if (rc == 0) {
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

/* Note what the device still has. */
static void
keep_left(struct vdpa_shadow *s, const struct vdpa_applied *a, uint32_t stops)
{
	const uint16_t mask = (uint16_t)(s->size - 1), n = (uint16_t)(s->taken - s->given);
	uint16_t i = s->taken, seen, head, at = n;

	/* the last coming of each is what counts, so from the end; our ring the device can write */
	for (seen = 0; at > 0 && seen < s->size; seen++) {
		head = load16(&s->avail->ring[--i & mask]);
		if (head >= s->size || s->flights[head] == 0)
			continue;
		s->flights[head]--;
		s->left.heads[--at] = head;
	}
	s->left.ring = *a;
	s->left.ring.start_idx = (uint16_t)(s->base + s->given);
	s->left.stops = stops;
	s->left.nr = at == 0 ? n : 0;
}

static void
shadow_stop(struct vdpa_shadow *s, const struct vdpa_applied *a)
{
	const uint32_t stops = ring_stops(s->vf, s->qid);
	struct vfe_error err;

	pthread_mutex_lock(&s->lock);
	/* what the device has used last; one that lies now has no more to say */
	while (s->on && !s->broken && shadow_give(s, &err) == -EAGAIN)
		continue;
	if (s->on && !s->broken)
		keep_left(s, a, stops);
	s->on = false;
	parts_put(s->chunks);
	vdpa_fd_put(s->call);
	s->call = NULL;
	pthread_mutex_unlock(&s->lock);
}

void
vdpa_shadow_stop_ring(struct vdpa_vf *vf, uint16_t qid)
{
	shadow_stop(vf->plain.shadows[qid], &vf->applied[qid]);
}

void
vdpa_shadow_stop(struct vdpa_vf *vf)
{
	uint16_t qid;

	for (qid = 0; vf->plain.shadows != NULL && qid < vf->nr_queues; qid++)
		vdpa_shadow_stop_ring(vf, qid);
}

void
vdpa_shadow_forget(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];

	pthread_mutex_lock(&s->lock);
	s->left.nr = 0;
	s->left.ring.size = 0;
	pthread_mutex_unlock(&s->lock);
}

void
vdpa_shadow_seal(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_shadow *s;

	if (vf->plain.shadows == NULL)
		return;
	s = vf->plain.shadows[qid];
	pthread_mutex_lock(&s->lock);
	s->on = false;
	pthread_mutex_unlock(&s->lock);
}

/* --- the log, from outside --- */

/* We write into the guest's used ring at a start, before there is a log: all of it is marked. */
static void
shadow_log(struct vdpa_shadow *s, struct vdpa_log *log)
{
	struct vdpa_log *old;

	pthread_mutex_lock(&s->lock);
	old = s->log;
	s->log = vdpa_log_get(log);
	if (s->on)
		log_used(s, 0, vfe_vring_used_bytes(s->size));
	pthread_mutex_unlock(&s->lock);
	vdpa_log_put(old);
}

void
vdpa_shadow_log(struct vdpa_vf *vf, struct vdpa_log *log)
{
	uint16_t qid;

	for (qid = 0; vf->plain.shadows != NULL && qid < vf->nr_queues; qid++)
		shadow_log(vf->plain.shadows[qid], log);
}

bool
vdpa_shadow_all_locked(const struct vdpa_vf *vf)
{
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].enabled && !vf->applied[qid].shadow)
			return false;
	}
	return true;
}

bool
vdpa_shadow_begins(const struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_shadow *s = vf->plain.shadows[qid];
	bool begins;

	pthread_mutex_lock(&s->lock);
	begins = s->on && (uint16_t)(s->base + s->given) == 0;
	pthread_mutex_unlock(&s->lock);
	return begins;
}

/* A restart would stop all of them, for some. */
bool
vdpa_shadow_needless_locked(const struct vdpa_vf *vf)
{
	unsigned int nr = 0, begin = 0;
	uint16_t qid;

	if (vf->physical)
		return false;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (!vf->applied[qid].shadow)
			continue;
		nr++;
		begin += vdpa_shadow_begins(vf, qid);
	}
	return begin > 0 && (begin == nr || vdpa_rings_can_locked(vf));
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
	s->trans = vf->plain.trans != NULL ? vf->plain.trans[qid] : NULL;
	pthread_mutex_init(&s->lock, NULL);
	s->avail = vfe_dma_arena_alloc(
		vf->plain.arena, vfe_vring_avail_bytes(s->max_size), 64, &s->avail_iova);
	s->used = vfe_dma_arena_alloc(
		vf->plain.arena, vfe_vring_used_bytes(s->max_size), 64, &s->used_iova);
	s->flights = calloc(s->max_size, sizeof(s->flights[0]));
	s->left.heads = calloc(s->max_size, sizeof(s->left.heads[0]));
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
		if (s == NULL || s->avail == NULL || s->used == NULL || s->flights == NULL ||
			s->left.heads == NULL || s->irq == NULL)
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
		parts_put(s->chunks);
		vdpa_fd_put(s->irq);
		vdpa_fd_put(s->call);
		vdpa_log_put(s->log);
		free(s->flights);
		free(s->left.heads);
		pthread_mutex_destroy(&s->lock);
		free(s);
	}
	free(vf->plain.shadows);
	vf->plain.shadows = NULL;
}
