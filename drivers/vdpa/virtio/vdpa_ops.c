/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * What front-ends say: one handler per vhost-user message, before and after that of librte_vhost.
 *
 * The library's own idea of when a device is ready (all rings that it has allocated) does not fit
 * a guest that uses fewer queues than it could, and it reads rings in guest memory, which a hostile
 * front-end can truncate. So ring addresses are kept from it: it never maps a ring, never calls
 * dev_conf(), and is left with the protocol. Handlers run on the vhost thread.
 *
 * A refused message is answered with a negative acknowledgement if the front-end asked for one;
 * else the library disconnects it. The library does not close the fds of a message that a handler
 * refuses or takes over: that is done here.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <rte_vhost.h>
#include <vdpa_driver.h>

#include "vdpa_msg.h"
#include "vdpa_priv.h"

enum {
	COMPLAINTS_PER_SECOND = 5,
	HANDLED = 1,  /* by a handler before the library's, which is skipped */
	ANSWERED = 2, /* the same, and the message is now its answer */
	KNOWN = 1,    /* by a handler after the library's: it says nothing new */
	MAX_VIDS = RTE_MAX_VHOST_DEVICE,
};

/* An address that is in no region (see region_check()): the library cannot translate it. */
#define NO_ADDRESS UINT64_MAX

static _Atomic(struct vdpa_vf *) vf_of_vid[MAX_VIDS];

/*
 * Tell what a front-end did wrong, but not more often than a log can take. Returns -EINVAL. Not
 * with vf->lock.
 */
static int __attribute__((format(printf, 2, 3))) complain(struct vdpa_vf *vf, const char *fmt, ...)
{
	uint64_t now = vfe_clock_ns();
	char text[256];
	va_list ap;

	if (now - vf->complaints.window_ns > 1000000000) {
		vf->complaints.window_ns = now;
		vf->complaints.count = 0;
	}
	if (vf->complaints.count++ >= COMPLAINTS_PER_SECOND)
		return -EINVAL;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	VDPA_LOG(WARNING, vhost, vf->name, "front-end: %s", text);
	pthread_mutex_lock(&vf->lock);
	if (!vf->lost)
		vdpa_vf_set_error_locked(vf, text);
	pthread_mutex_unlock(&vf->lock);
	return -EINVAL;
}

static void
ring_clear(struct vdpa_ring *ring)
{
	vdpa_fd_put(ring->kick);
	vdpa_fd_put(ring->call);
	*ring = (struct vdpa_ring){
		.size = ring->size,
		.enabled = ring->enabled,
		.stops = ring->stops + 1,
	};
}

/* Something that the device must be told by a restore has changed. */
static void
config_changed_locked(struct vdpa_vf *vf)
{
	vf->full_seq = ++vf->seq;
}

/* The same for a ring, which matters to the device only if it is, or was, to run. */
static bool
ring_is_live(const struct vdpa_ring *ring)
{
	return vdpa_ring_started(ring) && ring->enabled;
}

static void
ring_replace_locked(struct vdpa_vf *vf, struct vdpa_ring *ring, const struct vdpa_ring *next)
{
	bool same = ring->size == next->size && ring->desc == next->desc &&
		    ring->avail == next->avail && ring->used == next->used;

	if (!vdpa_ring_started(ring) && vdpa_ring_started(next))
		vf->alone = 0;
	if (vdpa_vf_owns_ctrl(vf)) {
		if (vdpa_ring_started(ring) != vdpa_ring_started(next) ||
			(vdpa_ring_started(next) && !same))
			vf->seq++;
		else if (ring->enabled != next->enabled)
			vf->tend_seq++;
	} else if (ring_is_live(ring) != ring_is_live(next) || (ring_is_live(next) && !same)) {
		vf->seq++;
	}
	*ring = *next;
}

/* --- features, status --- */

/*
 * Before the library, which would only say that the bits are invalid. A guest that was migrated
 * from a VF that offers more ends here.
 */
static int
before_set_features(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint64_t missing = msg->payload.u64 & ~vdpa_vf_features_offered(vf);

	if (missing != 0)
		return complain(vf,
			"features %#" PRIx64 " are not offered by this VF; did the guest come from "
			"another kind of VF?",
			missing);
	return 0;
}

static int
on_set_features(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	const uint64_t ours =
		VFE_BIT(VFE_VHOST_F_LOG_ALL) | VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES);
	const uint64_t log_all = VFE_BIT(VFE_VHOST_F_LOG_ALL);
	uint64_t features = msg->payload.u64;
	bool log_changed, known;

	pthread_mutex_lock(&vf->lock);
	if (((vf->features ^ features) & ~ours) != 0)
		config_changed_locked(vf);
	log_changed = ((vf->features ^ features) & log_all) != 0 || !vf->dirty.greeted;
	known = vf->features == features && !log_changed;
	vf->features = features;
	pthread_mutex_unlock(&vf->lock);
	if (log_changed)
		vdpa_dirty_log_all(vf, (features & log_all) != 0);
	return known ? KNOWN : 0;
}

static int
on_set_protocol_features(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	pthread_mutex_lock(&vf->lock);
	vf->protocol_features = msg->payload.u64;
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

static int
on_set_status(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	pthread_mutex_lock(&vf->lock);
	vf->status = (uint8_t)msg->payload.u64;
	vf->failed_seq = 0; /* whatever has failed before: it is tried again now */
	vf->torn = vf->torn && vf->status != 0;
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

static int
on_net_set_mtu(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint16_t mtu;

	if (vf->type->mtu == NULL)
		return complain(vf, "an MTU for a %s device", vf->type->name);
	mtu = vf->type->mtu(&vf->config, vf->vdev.device_features);
	if (mtu != 0 && msg->payload.u64 > mtu)
		return complain(
			vf, "MTU %" PRIu64 " is above the device's %u", msg->payload.u64, mtu);
	return 0;
}

/*
 * The guest has arrived by migration and does not announce itself. The front-end wants the back
 * end to tell the network; the device does that when it starts.
 */
static int
on_send_rarp(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	const uint8_t *mac = msg->payload.room;

	if ((vf->type->protocol_features & VFE_BIT(VDPA_PROTOCOL_F_RARP)) == 0)
		return complain(vf, "RARP for a %s device", vf->type->name);
	VDPA_LOG(INFO, vhost, vf->name, "guest with MAC %02x:%02x:%02x:%02x:%02x:%02x has arrived",
		mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	return 0;
}

/* --- the log of dirty pages --- */

/*
 * Instead of the library, which would map whatever it gets. The answer has no payload: QEMU waits
 * for it and reads the log before this one for the last time then.
 *
 * A front-end that has negotiated nothing takes this connection for the one that it had before:
 * QEMU's disks do after a restart of the service that they did not notice, because no driver used
 * them. It would abort if its log were refused.
 */
static int
before_set_log_base(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	struct vfe_error err = {0};
	struct vdpa_log *log;

	if (vf->protocol_features != 0 &&
		(vf->protocol_features & VFE_BIT(VDPA_PROTOCOL_F_LOG_SHMFD)) == 0)
		return complain(vf, "SET_LOG_BASE without LOG_SHMFD");
	if (!vdpa_msg_has_fds(msg) || msg->nr_fds != 1 || msg->hdr.size != sizeof(msg->payload.log))
		return complain(
			vf, "SET_LOG_BASE of %u bytes with %d fds", msg->hdr.size, msg->nr_fds);
	if (vdpa_log_create(
		    msg->fds[0], msg->payload.log.size, msg->payload.log.offset, &log, &err) < 0)
		return complain(vf, "%s", err.text);
	if (vdpa_dirty_set_log(vf, log, &err) < 0) {
		vdpa_log_put(log);
		return complain(vf, "%s", err.text);
	}
	vdpa_msg_close_fds(msg);
	msg->hdr.size = 0;
	return ANSWERED;
}

/* --- memory --- */

/* Do the rings of a device that runs stay where they are when @table comes? */
static bool
rings_stay(struct vdpa_vf *vf, const struct vdpa_table *table)
{
	const struct vdpa_applied *a;
	struct vdpa_applied now;
	bool stay = true;
	uint16_t qid;

	pthread_mutex_lock(&vf->lock);
	for (qid = 0; stay && qid < vf->nr_queues; qid++) {
		a = &vf->applied[qid];
		if (!a->enabled)
			continue;
		stay = vdpa_ring_translate(table, &vf->rings[qid], &now, NULL) == 0 &&
		       now.desc == a->desc && now.avail == a->avail && now.used == a->used;
	}
	pthread_mutex_unlock(&vf->lock);
	return stay;
}

/*
 * Map @table. The VF runs on meanwhile, unless its rings move, it has no IOMMU, or other memory
 * takes the place of what is there. While memory of the last front-end is still to go, and
 * when it is another VF's that has to, mapping waits for the state machine.
 */
static int
table_apply(struct vdpa_vf *vf, struct vdpa_table *table, struct vfe_error *err)
{
	bool later, suspended = false;
	int rc;

	pthread_mutex_lock(&vf->lock);
	later = vf->needs_clean || vf->lost;
	pthread_mutex_unlock(&vf->lock);
	if (later)
		return 0;
	if (vf->physical || !rings_stay(vf, table)) {
		vdpa_vf_suspend_wait(vf);
		suspended = true;
	}
	rc = vdpa_domain_apply(vf->domain, &vf->member, table, err);
	if (rc == -EBUSY) {
		vdpa_vf_suspend_wait(vf);
		suspended = true;
		vdpa_domain_apply(vf->domain, &vf->member, NULL, NULL);
		rc = vdpa_domain_apply(vf->domain, &vf->member, table, err);
	}
	pthread_mutex_lock(&vf->lock);
	if (suspended) {
		vf->suspend = false;
		config_changed_locked(vf);
	}
	pthread_mutex_unlock(&vf->lock);
	return rc == -EAGAIN ? 0 : rc;
}

/* A table of what the message says, and of the fds beside it. */
static int
table_from_message(struct vdpa_msg *msg, struct vdpa_table **ret, struct vfe_error *err)
{
	struct vdpa_region regions[VDPA_MAX_REGIONS] = {0};
	const struct vdpa_msg_region *r;
	uint32_t i, n = msg->payload.memory.nr_regions;

	if (n > VDPA_MAX_REGIONS || msg->hdr.size != 8 + n * sizeof(*r) || msg->nr_fds != (int)n)
		return vfe_error_set(err, -EINVAL, "%u memory regions in %u bytes with %d fds", n,
			msg->hdr.size, msg->nr_fds);
	for (i = 0; i < n; i++) {
		r = &msg->payload.memory.regions[i];
		regions[i] = (struct vdpa_region){
			.gpa = r->gpa,
			.size = r->size,
			.uva = r->uva,
			.fd = msg->fds[i],
			.fd_offset = r->mmap_offset,
		};
	}
	return vdpa_table_create(regions, n, ret, err);
}

/* The same of what the library has made of the message, when it hides the fds. */
static int
table_from_library(int vid, struct vdpa_table **ret, struct vfe_error *err)
{
	struct vdpa_region regions[VDPA_MAX_REGIONS] = {0};
	const struct rte_vhost_mem_region *r;
	struct rte_vhost_memory *mem;
	uint32_t i;
	int rc;

	if (rte_vhost_get_mem_table(vid, &mem) < 0)
		return vfe_error_set(err, -EIO, "no memory table");
	for (i = 0; i < mem->nregions && i < VDPA_MAX_REGIONS; i++) {
		r = &mem->regions[i];
		regions[i] = (struct vdpa_region){
			.gpa = r->guest_phys_addr,
			.size = r->size,
			.uva = r->guest_user_addr,
			.fd = r->fd,
			.fd_offset = r->host_user_addr - (uint64_t)(uintptr_t)r->mmap_addr,
		};
	}
	rc = vdpa_table_create(regions, mem->nregions, ret, err);
	free(mem);
	return rc;
}

/*
 * Before the library, which would map whatever it gets, and loses the fd of a region that it
 * cannot map.
 */
static int
before_set_mem_table(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	struct vfe_error err = {0};

	vdpa_table_put(vf->table_msg);
	vf->table_msg = NULL;
	if (vdpa_msg_has_fds(msg) && table_from_message(msg, &vf->table_msg, &err) < 0)
		return complain(vf, "%s", err.text);
	return 0;
}

static int
on_set_mem_table(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	struct vdpa_table *table = vf->table_msg, *old;
	struct vfe_error err = {0};
	int rc;

	(void)msg;
	vf->table_msg = NULL;
	if (table == NULL && table_from_library(vf->vid, &table, &err) < 0)
		return complain(vf, "%s", err.text);
	pthread_mutex_lock(&vf->lock);
	old = vf->table;
	if (vdpa_table_equal(old, table)) {
		pthread_mutex_unlock(&vf->lock);
		vdpa_table_put(table);
		return 0;
	}
	vf->table = table;
	pthread_mutex_unlock(&vf->lock);
	rc = table_apply(vf, table, &err);
	if (rc < 0) {
		VDPA_LOG(ERR, mem, vf->name, "memory refused: %s", err.text);
		pthread_mutex_lock(&vf->lock);
		vdpa_vf_set_error_locked(vf, err.text);
		vf->table = old;
		pthread_mutex_unlock(&vf->lock);
		old = table;
	}
	vdpa_table_put(old);
	return rc;
}

/* --- rings --- */

static struct vdpa_ring *
ring_of_state(struct vdpa_vf *vf, const struct vdpa_msg *msg)
{
	return &vf->rings[msg->payload.state.index];
}

static int
on_set_vring_num(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	struct vdpa_ring *ring = ring_of_state(vf, msg), next = *ring;
	uint32_t num = msg->payload.state.num, qid = msg->payload.state.index;

	if (!vfe_is_pow2(num) || num > vf->queues[qid].max_size)
		return complain(vf, "ring %u: size %u, the device has at most %u", qid, num,
			vf->queues[qid].max_size);
	next.size = (uint16_t)num;
	pthread_mutex_lock(&vf->lock);
	ring_replace_locked(vf, ring, &next);
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

static int
on_set_vring_base(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	if (msg->payload.state.num > UINT16_MAX)
		return complain(
			vf, "ring %u: base %u", msg->payload.state.index, msg->payload.state.num);
	pthread_mutex_lock(&vf->lock);
	ring_of_state(vf, msg)->base = (uint16_t)msg->payload.state.num;
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

/* Before the library: keep the addresses to ourselves. */
static int
before_set_vring_addr(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	if ((msg->payload.addr.flags & ~(uint32_t)VDPA_MSG_VRING_F_LOG) != 0)
		return complain(vf, "ring %u: address flags %#x", msg->payload.addr.index,
			msg->payload.addr.flags);
	vf->addr_msg = msg->payload.addr;
	msg->payload.addr.flags = 0;
	msg->payload.addr.desc = NO_ADDRESS;
	msg->payload.addr.avail = NO_ADDRESS;
	msg->payload.addr.used = NO_ADDRESS;
	msg->payload.addr.log = 0;
	return 0;
}

static int
on_set_vring_addr(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	const struct vdpa_msg_addr *addr = &vf->addr_msg;
	struct vdpa_ring *ring = &vf->rings[msg->payload.addr.index], next = *ring;
	struct vfe_error err = {0};
	struct vdpa_applied where;

	next.desc = addr->desc;
	next.avail = addr->avail;
	next.used = addr->used;
	next.has_addr = true;
	if (ring->size == 0)
		return complain(vf, "ring %u: address before size", addr->index);
	if (vdpa_ring_translate(vf->table, &next, &where, &err) < 0)
		return complain(vf, "ring %u: %s", addr->index, err.text);
	pthread_mutex_lock(&vf->lock);
	ring_replace_locked(vf, ring, &next);
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

/* The eventfd that came with a KICK or CALL, as the library has stored it; NULL = none. */
static int
ring_fd(struct vdpa_vf *vf, struct vdpa_msg *msg, uint16_t qid, bool kick, struct vdpa_fd **ret)
{
	struct rte_vhost_vring vring;
	int fd;

	*ret = NULL;
	if ((msg->payload.u64 & VDPA_MSG_RING_NOFD) != 0)
		return 0;
	if (rte_vhost_get_vhost_vring(vf->vid, qid, &vring) < 0)
		return complain(vf, "ring %u: not there", qid);
	fd = kick ? vring.kickfd : vring.callfd;
	*ret = vdpa_fd_create(fd);
	if (*ret == NULL)
		return complain(vf, "ring %u: %s fd %d is no eventfd: %s", qid,
			kick ? "kick" : "call", fd, strerror(errno));
	return 0;
}

static int
on_set_vring_kick(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint16_t qid = msg->payload.u64 & VDPA_MSG_RING_MASK;
	struct vdpa_ring *ring = &vf->rings[qid], next = *ring;
	struct vdpa_fd *old = ring->kick;
	int rc;

	rc = ring_fd(vf, msg, qid, true, &next.kick);
	if (rc < 0)
		return rc;
	next.kicked = true;
	/* without protocol features a ring is enabled from its start */
	if ((vf->features & VFE_BIT(VFE_VHOST_USER_F_PROTOCOL_FEATURES)) == 0)
		next.enabled = true;
	pthread_mutex_lock(&vf->lock);
	ring_replace_locked(vf, ring, &next);
	pthread_mutex_unlock(&vf->lock);
	vdpa_fd_put(old);
	return 0;
}

static int
on_set_vring_call(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint16_t qid = msg->payload.u64 & VDPA_MSG_RING_MASK;
	struct vdpa_ring *ring = &vf->rings[qid];
	struct vdpa_fd *fd, *old;
	int rc;

	rc = ring_fd(vf, msg, qid, false, &fd);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&vf->lock);
	old = ring->call;
	ring->call = fd;
	vf->tend_seq++;
	pthread_mutex_unlock(&vf->lock);
	vdpa_fd_put(old);
	return 0;
}

static int
on_set_vring_enable(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	struct vdpa_ring *ring = ring_of_state(vf, msg), next = *ring;

	if (msg->payload.state.num > 1)
		return complain(
			vf, "ring %u: enable %u", msg->payload.state.index, msg->payload.state.num);
	next.enabled = msg->payload.state.num != 0;
	if (ring_is_live(ring) && !next.enabled)
		vdpa_vf_suspend_early(vf);
	pthread_mutex_lock(&vf->lock);
	ring_replace_locked(vf, ring, &next);
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

/*
 * Before the library, which answers with what we give it. See vdpa_suspend.c for what stops, and
 * for what comes after.
 */
static int
before_get_vring_base(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint16_t qid = (uint16_t)msg->payload.state.index, idx;
	bool all; /* the VF is stopped for it */

	pthread_mutex_lock(&vf->lock);
	all = vdpa_ring_started(&vf->rings[qid]);
	pthread_mutex_unlock(&vf->lock);
	all = all && !vdpa_vf_stop_ring(vf, qid);
	if (all) {
		vdpa_vf_suspend_guest(vf);
		vdpa_dirty_settle(vf);
	}
	vdpa_shadow_seal(vf, qid);
	idx = vdpa_ring_index(vf, qid);
	rte_vhost_set_vring_base(vf->vid, qid, idx, idx);
	VDPA_LOG(DEBUG, vhost, vf->name, "ring %u stands at %u", qid, idx);

	pthread_mutex_lock(&vf->lock);
	ring_clear(&vf->rings[qid]);
	vf->rings[qid].base = idx;
	if (all) {
		config_changed_locked(vf);
		vdpa_vf_suspend_done_locked(vf);
	}
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

/* Deprecated, and read in different ways; what all agree on is that the rings stop. */
static int
before_reset_owner(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	uint16_t qid;

	vdpa_msg_close_fds(msg);
	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++)
		ring_clear(&vf->rings[qid]);
	vf->status = 0;
	vf->torn = false;
	config_changed_locked(vf);
	pthread_mutex_unlock(&vf->lock);
	return HANDLED;
}

/* --- back-end channel, configuration space --- */

static int
before_set_slave_fd(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	socklen_t len = sizeof(int);
	int type, old;

	if ((vf->protocol_features & VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ)) == 0)
		return complain(vf, "a back-end channel that was not negotiated");
	if (!vdpa_msg_has_fds(msg))
		return 0; /* another librte_vhost: no doorbell pages with that one */
	if (msg->nr_fds != 1)
		return complain(vf, "%d fds for the back-end channel", msg->nr_fds);
	if (getsockopt(msg->fds[0], SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return complain(vf, "the back-end channel is no stream socket");
	pthread_mutex_lock(&vf->lock);
	old = vf->new_slave_fd;
	vf->new_slave_fd = msg->fds[0];
	pthread_mutex_unlock(&vf->lock);
	msg->fds[0] = -1;
	msg->nr_fds = 0;
	vfe_close(&old);
	vdpa_vf_post(vf);
	return HANDLED;
}

static int
config_check(struct vdpa_vf *vf, const struct vdpa_msg *msg)
{
	if (msg->payload.config.size > VDPA_MSG_CONFIG_MAX ||
		msg->hdr.size != VDPA_MSG_CONFIG_HDR + msg->payload.config.size)
		return complain(vf, "%u bytes of configuration space in %u bytes",
			msg->payload.config.size, msg->hdr.size);
	return 0;
}

/* The library passes no offset to get_config(). */
static int
before_get_config(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	vf->config_msg_off = msg->payload.config.offset;
	return config_check(vf, msg);
}

/* The device is told by a worker, or when it starts. */
static int
before_set_config(struct vdpa_vf *vf, struct vdpa_msg *msg)
{
	const struct vdpa_msg_config *config = &msg->payload.config;
	struct vfe_error err = {0};
	int rc;

	rc = config_check(vf, msg);
	if (rc < 0)
		return rc;
	if ((config->flags & ~(uint32_t)VDPA_MSG_CONFIG_F_MIGRATION) != 0)
		return complain(vf, "SET_CONFIG with flags %#x", config->flags);
	pthread_mutex_lock(&vf->lock);
	rc = vf->type->config_write(vf, config->offset, config->region, config->size, &err);
	if (rc == 0)
		vf->tend_seq++;
	pthread_mutex_unlock(&vf->lock);
	if (rc < 0)
		return complain(vf, "%s", err.text);
	vdpa_msg_close_fds(msg);
	vdpa_vf_post(vf);
	return HANDLED;
}

static int
ops_get_config(int vid, uint8_t *buf, uint32_t size)
{
	struct vdpa_vf *vf = vid >= 0 && vid < MAX_VIDS ? vf_of_vid[vid] : NULL;

	if (vf == NULL || !vfe_range_inside(vf->config_msg_off, size, vf->type->config_size))
		return -1;
	pthread_mutex_lock(&vf->lock);
	memcpy(buf, vf->config.bytes + vf->config_msg_off, size);
	pthread_mutex_unlock(&vf->lock);
	return 0;
}

/* --- the table --- */

/* Where a message has its ring index. */
enum ring_field {
	RING_NONE,
	RING_STATE, /* u32 index */
	RING_FILE,  /* low byte of a u64, with the flag for no fd */
};

static const struct message {
	const char *name; /* NULL = refused */
	uint32_t size;    /* least payload */
	enum ring_field ring;
	int (*before)(struct vdpa_vf *vf, struct vdpa_msg *msg); /* 0, HANDLED, ANSWERED, < 0 */
	int (*after)(struct vdpa_vf *vf, struct vdpa_msg *msg);  /* 0, KNOWN, < 0 = refused */
} messages[VDPA_MSG_MAX] = {
	[VDPA_MSG_GET_FEATURES] = {"GET_FEATURES", 0, RING_NONE, NULL, NULL},
	[VDPA_MSG_SET_FEATURES] = {"SET_FEATURES", 8, RING_NONE, before_set_features,
		on_set_features},
	[VDPA_MSG_SET_OWNER] = {"SET_OWNER", 0, RING_NONE, NULL, NULL},
	[VDPA_MSG_RESET_OWNER] = {"RESET_OWNER", 0, RING_NONE, before_reset_owner, NULL},
	[VDPA_MSG_SET_MEM_TABLE] = {"SET_MEM_TABLE", 8, RING_NONE, before_set_mem_table,
		on_set_mem_table},
	[VDPA_MSG_SET_LOG_BASE] = {"SET_LOG_BASE", 16, RING_NONE, before_set_log_base, NULL},
	[VDPA_MSG_SET_LOG_FD] = {"SET_LOG_FD", 0, RING_NONE, NULL, NULL},
	[VDPA_MSG_SET_VRING_NUM] = {"SET_VRING_NUM", 8, RING_STATE, NULL, on_set_vring_num},
	[VDPA_MSG_SET_VRING_ADDR] = {"SET_VRING_ADDR", 40, RING_STATE, before_set_vring_addr,
		on_set_vring_addr},
	[VDPA_MSG_SET_VRING_BASE] = {"SET_VRING_BASE", 8, RING_STATE, NULL, on_set_vring_base},
	[VDPA_MSG_GET_VRING_BASE] = {"GET_VRING_BASE", 8, RING_STATE, before_get_vring_base, NULL},
	[VDPA_MSG_SET_VRING_KICK] = {"SET_VRING_KICK", 8, RING_FILE, NULL, on_set_vring_kick},
	[VDPA_MSG_SET_VRING_CALL] = {"SET_VRING_CALL", 8, RING_FILE, NULL, on_set_vring_call},
	[VDPA_MSG_SET_VRING_ERR] = {"SET_VRING_ERR", 8, RING_FILE, NULL, NULL},
	[VDPA_MSG_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", 0, RING_NONE, NULL, NULL},
	[VDPA_MSG_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", 8, RING_NONE, NULL,
		on_set_protocol_features},
	[VDPA_MSG_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", 0, RING_NONE, NULL, NULL},
	[VDPA_MSG_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", 8, RING_STATE, NULL,
		on_set_vring_enable},
	[VDPA_MSG_SEND_RARP] = {"SEND_RARP", 8, RING_NONE, NULL, on_send_rarp},
	[VDPA_MSG_NET_SET_MTU] = {"NET_SET_MTU", 8, RING_NONE, NULL, on_net_set_mtu},
	[VDPA_MSG_SET_SLAVE_REQ_FD] = {"SET_SLAVE_REQ_FD", 0, RING_NONE, before_set_slave_fd, NULL},
	[VDPA_MSG_GET_CONFIG] = {"GET_CONFIG", VDPA_MSG_CONFIG_HDR, RING_NONE, before_get_config,
		NULL},
	[VDPA_MSG_SET_CONFIG] = {"SET_CONFIG", VDPA_MSG_CONFIG_HDR, RING_NONE, before_set_config,
		NULL},
	[VDPA_MSG_SET_STATUS] = {"SET_STATUS", 8, RING_NONE, NULL, on_set_status},
	[VDPA_MSG_GET_STATUS] = {"GET_STATUS", 0, RING_NONE, NULL, NULL},
};

static const struct message *
message_find(uint32_t request)
{
	if (request >= VDPA_MSG_MAX || messages[request].name == NULL)
		return NULL;
	return &messages[request];
}

/* Syntax: known, long enough, a ring that is there. */
static int
message_check(struct vdpa_vf *vf, const struct message *m, const struct vdpa_msg *msg)
{
	uint64_t ring = 0;

	if (m == NULL)
		return complain(vf, "request %u is not supported", msg->hdr.request);
	if ((msg->hdr.flags & VDPA_MSG_F_REPLY) != 0)
		return complain(vf, "%s is marked as an answer", m->name);
	if (msg->hdr.size < m->size || msg->hdr.size > sizeof(msg->payload))
		return complain(
			vf, "%s has %u bytes, expected %u", m->name, msg->hdr.size, m->size);
	if (m->ring == RING_STATE)
		ring = msg->payload.state.index;
	else if (m->ring == RING_FILE)
		ring = msg->payload.u64 & ~(uint64_t)VDPA_MSG_RING_NOFD;
	if (ring >= vf->nr_queues)
		return complain(
			vf, "%s for ring %#" PRIx64 ", there are %u", m->name, ring, vf->nr_queues);
	return 0;
}

static enum rte_vhost_msg_result
before_message(int vid, void *arg)
{
	struct vdpa_vf *vf = vid >= 0 && vid < MAX_VIDS ? vf_of_vid[vid] : NULL;
	struct vdpa_msg *msg = arg;
	const struct message *m = message_find(msg->hdr.request);
	int rc;

	if (vf == NULL)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	rc = message_check(vf, m, msg);
	if (rc == 0 && m->before != NULL)
		rc = m->before(vf, msg);
	if (rc == HANDLED)
		return RTE_VHOST_MSG_RESULT_OK;
	if (rc == ANSWERED)
		return RTE_VHOST_MSG_RESULT_REPLY;
	if (rc == 0)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	vdpa_msg_close_fds(msg);
	return RTE_VHOST_MSG_RESULT_ERR;
}

/*
 * Is the reactor to look at the VF after @m? What is said of rings before DRIVER_OK is for later:
 * the front-end of a guest that arrives by migration sends hundreds of these, and the guest waits.
 * vhost thread.
 */
static bool
wakes_reactor(const struct vdpa_vf *vf, const struct message *m)
{
	return m->ring == RING_NONE || (vf->status & VFE_VIRTIO_S_DRIVER_OK) != 0 ||
	       (vf->protocol_features & VFE_BIT(VDPA_PROTOCOL_F_STATUS)) == 0;
}

static enum rte_vhost_msg_result
after_message(int vid, void *arg)
{
	struct vdpa_vf *vf = vid >= 0 && vid < MAX_VIDS ? vf_of_vid[vid] : NULL;
	struct vdpa_msg *msg = arg;
	const struct message *m = message_find(msg->hdr.request);
	int rc = 0;

	if (vf == NULL || m == NULL)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	if (m->after != NULL) {
		rc = m->after(vf, msg);
		if (rc != KNOWN && wakes_reactor(vf, m))
			vdpa_vf_post(vf);
	}
	return rc < 0 ? RTE_VHOST_MSG_RESULT_ERR : RTE_VHOST_MSG_RESULT_OK;
}

static const struct rte_vhost_user_extern_ops extern_ops = {
	.pre_msg_handle = before_message,
	.post_msg_handle = after_message,
};

/* --- connections --- */

/*
 * The library may see the new connection of a front-end before the end of the old one: what has
 * hung up is over.
 */
static void
drop_dead_connection(struct vdpa_vf *vf)
{
	struct pollfd p = {.events = POLLRDHUP};
	int vid;

	pthread_mutex_lock(&vf->lock);
	vid = vf->vid;
	p.fd = vf->conn_fd;
	if (vid >= 0 && (p.fd < 0 || poll(&p, 1, 0) == 0))
		vid = -1;
	pthread_mutex_unlock(&vf->lock);
	vfe_vdpa_vf_disconnect(vid);
}

int
vfe_vdpa_vf_connect(const struct vfe_bdf *bdf, int vid, struct vfe_error *err)
{
	struct vdpa_vf *vf = vdpa_vf_find(bdf);
	char name[VFE_BDF_STR_SIZE];
	bool busy;

	if (vf == NULL)
		return vfe_error_set(
			err, -ENODEV, "VF %s is not managed", vfe_bdf_format(bdf, name));
	if (vid < 0 || vid >= MAX_VIDS)
		return vfe_error_set(err, -EINVAL, "vhost device %d is out of range", vid);
	drop_dead_connection(vf);
	pthread_mutex_lock(&vf->lock);
	busy = vf->vid >= 0 || vf->removing;
	if (!busy) {
		vf->vid = vid;
		vf->config_changed = false; /* it will read what is there now */
	}
	pthread_mutex_unlock(&vf->lock);
	if (busy)
		return vfe_error_set(
			err, -EBUSY, "%s has a front-end, or is being removed", vf->name);
	vf->conn_fd = vdpa_conn_find(vid);
	vf_of_vid[vid] = vf;
	if (rte_vhost_extern_callback_register(vid, &extern_ops, NULL) < 0) {
		vfe_vdpa_vf_disconnect(vid);
		return vfe_error_set(err, -EIO, "%s: cannot install message handlers", vf->name);
	}
	VDPA_LOG(INFO, vhost, vf->name, "front-end connected");
	vdpa_vf_post(vf);
	return 0;
}

void
vfe_vdpa_vf_disconnect(int vid)
{
	struct vdpa_table *table;
	struct vdpa_log *log;
	struct vdpa_vf *vf;
	int slave_fd, conn_fd;
	uint16_t qid;

	if (vid < 0 || vid >= MAX_VIDS)
		return;
	vf = atomic_exchange(&vf_of_vid[vid], NULL);
	if (vf == NULL)
		return;
	vdpa_domain_set_leaving(vf->domain, &vf->member, true);
	pthread_mutex_lock(&vf->lock);
	vf->vid = -1;
	vf->features = 0;
	vf->protocol_features = 0;
	vf->status = 0;
	for (qid = 0; qid < vf->nr_queues; qid++) {
		ring_clear(&vf->rings[qid]);
		vf->rings[qid].size = 0;
		vf->rings[qid].enabled = false;
	}
	table = vf->table;
	vf->table = NULL;
	log = vdpa_dirty_forget_locked(vf);
	vf->suspend = false;
	vf->torn = false;
	vf->writeback = (struct vdpa_writeback){0};
	vf->needs_clean = true;
	vf->drop_slave = true;
	slave_fd = vfe_fd_take(&vf->new_slave_fd);
	conn_fd = vfe_fd_take(&vf->conn_fd);
	config_changed_locked(vf);
	pthread_mutex_unlock(&vf->lock);
	vdpa_log_put(log);
	vdpa_table_put(table);
	vdpa_table_put(vf->table_msg);
	vf->table_msg = NULL;
	vfe_close(&slave_fd);
	vfe_close(&conn_fd);
	VDPA_LOG(INFO, vhost, vf->name, "front-end disconnected");
	vdpa_vf_post(vf);
}

/* --- rte_vdpa --- */

static int
ops_get_queue_num(struct rte_vdpa_device *dev, uint32_t *ret)
{
	struct vdpa_vf *vf = vdpa_vf_of_device(dev);

	if (vf == NULL)
		return -1;
	*ret = vf->nr_queues / vf->type->queue_unit;
	return 0;
}

static int
ops_get_features(struct rte_vdpa_device *dev, uint64_t *ret)
{
	struct vdpa_vf *vf = vdpa_vf_of_device(dev);

	if (vf == NULL)
		return -1;
	*ret = vdpa_vf_features_offered(vf);
	return 0;
}

static int
ops_get_protocol_features(struct rte_vdpa_device *dev, uint64_t *ret)
{
	struct vdpa_vf *vf = vdpa_vf_of_device(dev);

	if (vf == NULL)
		return -1;
	*ret = vf->type->protocol_features;
	return 0;
}

/* The library has these as a must; the message handlers do the work. */
static int
ops_nothing(int vid)
{
	(void)vid;
	return 0;
}

static int
ops_set_vring_state(int vid, int vring, int state)
{
	(void)vid;
	(void)vring;
	(void)state;
	return 0;
}

/* The connection's end when the socket is unregistered, which destroy_connection() is not told. */
static int
ops_dev_cleanup(int vid)
{
	vfe_vdpa_vf_disconnect(vid);
	return 0;
}

struct rte_vdpa_dev_ops vdpa_ops = {
	.get_queue_num = ops_get_queue_num,
	.get_features = ops_get_features,
	.get_protocol_features = ops_get_protocol_features,
	.dev_conf = ops_nothing,
	.dev_close = ops_nothing,
	.dev_cleanup = ops_dev_cleanup,
	.set_vring_state = ops_set_vring_state,
	.set_features = ops_nothing,
	.get_config = ops_get_config,
};
