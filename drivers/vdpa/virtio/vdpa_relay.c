/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Relay of doorbells: kick eventfds of front-ends to doorbells of devices, on a thread of its own,
 * which also serves shadow rings.
 *
 * The eventfds are watched edge triggered and never read: each write wakes us up, the count in the
 * file does not matter, and a front-end that plays with the file's flags or its count cannot make
 * us wait in read().
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <rte_lcore.h>

#include "vdpa_priv.h"

enum {
	RELAY_BATCH = 64,
	RELAY_RETRY_MS = 1, /* when a device's transport was full */
	RELAY_GROW = 256,
};

struct relay_slot {
	struct vdpa_fd *kick; /* NULL = free */
	struct vfe_pci_doorbell doorbell;
	uint32_t value;
	int (*run)(void *arg); /* in place of the doorbell */
	void *arg;
	uint32_t generation; /* tells events of former owners of the slot */
	bool again;          /* ring as soon as the device can take it */
	const atomic_bool *gate;
	atomic_uint_least64_t *count;
};

static struct {
	pthread_mutex_t lock; /* protects the slots; held while doorbells are rung, never waits */
	struct relay_slot *slots;
	size_t nr_slots;
	unsigned int nr_again;
	bool woken; /* and it has not looked yet */
	bool stopping;
	bool started;
	pthread_t thread;
	int epoll_fd;
	int wake_fd;
} relay = {.lock = PTHREAD_MUTEX_INITIALIZER, .epoll_fd = -1, .wake_fd = -1};

static uint64_t
slot_tag(size_t slot, uint32_t generation)
{
	return (uint64_t)generation << 32 | (uint32_t)slot;
}

static const uint64_t wake_tag = UINT64_MAX;

static void
slot_ring_locked(struct relay_slot *s)
{
	int rc;

	if (s->again) {
		s->again = false;
		relay.nr_again--;
	}
	/* a device that does not run gets one ring when it starts */
	if (!atomic_load(s->gate))
		return;
	rc = s->run != NULL ? s->run(s->arg) : vfe_pci_doorbell_ring(&s->doorbell, s->value, 2);
	if (rc == -EAGAIN) {
		s->again = true;
		relay.nr_again++;
		return;
	}
	atomic_fetch_add_explicit(s->count, 1, memory_order_relaxed);
}

static void
relay_event_locked(uint64_t tag)
{
	struct relay_slot *s;
	uint64_t count;

	if (tag == wake_tag) {
		relay.woken = false;
		if (read(relay.wake_fd, &count, sizeof(count)) < 0)
			return;
		return;
	}
	if ((uint32_t)tag >= relay.nr_slots)
		return;
	s = &relay.slots[(uint32_t)tag];
	if (s->kick != NULL && s->generation == tag >> 32)
		slot_ring_locked(s);
}

static void *
relay_run(void *arg)
{
	struct epoll_event events[RELAY_BATCH];
	bool stopping = false;
	int timeout = -1, i, n;
	size_t slot;

	while (!stopping) {
		n = epoll_wait(relay.epoll_fd, events, RELAY_BATCH, timeout);
		pthread_mutex_lock(&relay.lock);
		for (slot = 0; n == 0 && relay.nr_again > 0 && slot < relay.nr_slots; slot++) {
			if (relay.slots[slot].again)
				slot_ring_locked(&relay.slots[slot]);
		}
		for (i = 0; i < n; i++)
			relay_event_locked(events[i].data.u64);
		timeout = relay.nr_again > 0 ? RELAY_RETRY_MS : -1;
		stopping = relay.stopping;
		pthread_mutex_unlock(&relay.lock);
	}
	return arg;
}

static void
relay_wake_locked(void)
{
	static const uint64_t one = 1;

	if (relay.woken)
		return;
	relay.woken = true;
	if (write(relay.wake_fd, &one, sizeof(one)) < 0)
		return; /* it is awake */
}

static int
relay_slot_alloc_locked(void)
{
	struct relay_slot *slots;
	size_t slot;

	for (slot = 0; slot < relay.nr_slots; slot++) {
		if (relay.slots[slot].kick == NULL)
			return (int)slot;
	}
	slots = realloc(relay.slots, (relay.nr_slots + RELAY_GROW) * sizeof(*slots));
	if (slots == NULL)
		return -ENOMEM;
	memset(slots + relay.nr_slots, 0, RELAY_GROW * sizeof(*slots));
	relay.slots = slots;
	relay.nr_slots += RELAY_GROW;
	return (int)slot;
}

/* A slot with what @wanted says of it. */
static int
relay_add(struct vdpa_fd *kick, const struct relay_slot *wanted)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	struct relay_slot *s;
	int slot;

	pthread_mutex_lock(&relay.lock);
	slot = relay_slot_alloc_locked();
	if (slot >= 0) {
		s = &relay.slots[slot];
		s->generation++;
		ev.data.u64 = slot_tag((size_t)slot, s->generation);
		if (epoll_ctl(relay.epoll_fd, EPOLL_CTL_ADD, kick->fd, &ev) < 0) {
			slot = -errno;
		} else {
			const uint32_t generation = s->generation;

			*s = *wanted;
			s->kick = vdpa_fd_get(kick);
			s->generation = generation;
		}
	}
	pthread_mutex_unlock(&relay.lock);
	return slot;
}

int
vdpa_relay_add(struct vdpa_fd *kick, const struct vfe_pci_doorbell *doorbell, uint32_t value,
	const atomic_bool *gate, atomic_uint_least64_t *count)
{
	const struct relay_slot wanted = {
		.doorbell = *doorbell,
		.value = value,
		.gate = gate,
		.count = count,
	};

	return relay_add(kick, &wanted);
}

int
vdpa_relay_add_run(struct vdpa_fd *kick, int (*run)(void *arg), void *arg, const atomic_bool *gate,
	atomic_uint_least64_t *count)
{
	const struct relay_slot wanted = {.run = run, .arg = arg, .gate = gate, .count = count};

	return relay_add(kick, &wanted);
}

void
vdpa_relay_del(int slot)
{
	struct relay_slot *s;
	struct vdpa_fd *kick;

	pthread_mutex_lock(&relay.lock);
	s = &relay.slots[slot];
	kick = s->kick;
	s->kick = NULL;
	if (s->again)
		relay.nr_again--;
	s->again = false;
	/* by hand: the front-end has the same file open, so closing ours would not end it */
	epoll_ctl(relay.epoll_fd, EPOLL_CTL_DEL, kick->fd, NULL);
	pthread_mutex_unlock(&relay.lock);
	vdpa_fd_put(kick);
}

void
vdpa_relay_poke(int slot)
{
	struct relay_slot *s;

	pthread_mutex_lock(&relay.lock);
	s = &relay.slots[slot];
	if (s->kick != NULL && !s->again) {
		s->again = true;
		relay.nr_again++;
	}
	relay_wake_locked();
	pthread_mutex_unlock(&relay.lock);
}

/* The shadow ring of @qid, if it has one now. */
static struct vdpa_shadow *
shadow_of(const struct vdpa_vf *vf, uint16_t qid)
{
	return vf->applied[qid].shadow ? vf->plain.shadows[qid] : NULL;
}

static int
kick_relay_add(struct vdpa_vf *vf, uint16_t qid, struct vdpa_fd *kick)
{
	struct vdpa_shadow *shadow = shadow_of(vf, qid);
	struct vdpa_bell *b = &vf->bells[qid];
	int slot;

	if (shadow != NULL)
		slot = vdpa_relay_add_run(kick, vdpa_shadow_run, shadow, &vf->running, &b->relayed);
	else
		slot = vdpa_relay_add(
			kick, &vf->queues[qid].doorbell, qid, &vf->running, &b->relayed);
	if (slot < 0)
		VDPA_LOG(ERR, run, vf->name, "queue %u: cannot relay doorbells: %s", qid,
			strerror(-slot));
	else
		vdpa_relay_poke(slot);
	return slot;
}

/* The interrupts of the device go to its shadow ring while that is used. */
static void
irq_relay_sync(struct vdpa_vf *vf, uint16_t qid, bool running)
{
	struct vdpa_shadow *shadow = running ? shadow_of(vf, qid) : NULL;
	struct vdpa_bell *b = &vf->bells[qid];

	if (shadow == NULL && b->irq_relay >= 0) {
		vdpa_relay_del(b->irq_relay);
		b->irq_relay = -1;
	} else if (shadow != NULL && b->irq_relay < 0) {
		b->irq_relay = vdpa_relay_add_run(vdpa_shadow_irq(shadow), vdpa_shadow_run, shadow,
			&vf->running, vdpa_shadow_interrupts(shadow));
		if (b->irq_relay < 0)
			VDPA_LOG(ERR, run, vf->name, "queue %u: cannot relay interrupts: %s", qid,
				strerror(-b->irq_relay));
		else
			vdpa_relay_poke(b->irq_relay);
	}
}

/* The ring's relay follows its kick eventfd while the ring runs, and ends with it. */
void
vdpa_vf_relay_sync(struct vdpa_vf *vf)
{
	bool runs = atomic_load(&vf->running), running;
	struct vdpa_fd *want;
	struct vdpa_bell *b;
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		running = runs && !vf->plain.change.which[qid];
		b = &vf->bells[qid];
		want = NULL;
		pthread_mutex_lock(&vf->lock);
		if (running && vf->applied[qid].enabled)
			want = vdpa_fd_get(vf->rings[qid].kick);
		pthread_mutex_unlock(&vf->lock);
		if (b->relay_fd != want) {
			if (b->relay >= 0)
				vdpa_relay_del(b->relay);
			b->relay = want == NULL ? -1 : kick_relay_add(vf, qid, want);
			vdpa_fd_put(b->relay_fd);
			b->relay_fd = vdpa_fd_get(want);
		}
		vdpa_fd_put(want);
		irq_relay_sync(vf, qid, running);
	}
}

int
vdpa_relay_start(struct vfe_error *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = wake_tag};
	int ret;

	relay.stopping = false;
	relay.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	relay.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (relay.epoll_fd < 0 || relay.wake_fd < 0 ||
		epoll_ctl(relay.epoll_fd, EPOLL_CTL_ADD, relay.wake_fd, &ev) < 0) {
		ret = vfe_error_set(
			err, -errno, "cannot set the doorbell relay up: %s", strerror(errno));
		goto err_stop;
	}
	ret = rte_ctrl_thread_create(&relay.thread, "vfe-relay", NULL, relay_run, NULL);
	if (ret != 0) {
		ret = vfe_error_set(err, ret < 0 ? ret : -ret, "cannot start the doorbell relay");
		goto err_stop;
	}
	relay.started = true;
	return 0;

err_stop:
	vdpa_relay_stop();
	return ret;
}

void
vdpa_relay_stop(void)
{
	pthread_mutex_lock(&relay.lock);
	relay.stopping = true;
	if (relay.started)
		relay_wake_locked();
	pthread_mutex_unlock(&relay.lock);
	if (relay.started)
		pthread_join(relay.thread, NULL);
	relay.started = false;
	relay.woken = false;
	free(relay.slots);
	relay.slots = NULL;
	relay.nr_slots = 0;
	vfe_close(&relay.epoll_fd);
	vfe_close(&relay.wake_fd);
}
