/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Requests to the front-end on its back-end channel: doorbell pages for the guest
 * (VHOST_USER_SLAVE_VRING_HOST_NOTIFIER_MSG) and changes of the configuration space
 * (VHOST_USER_SLAVE_CONFIG_CHANGE_MSG).
 *
 * librte_vhost would send these and wait for the answer in recvmsg(), with no limit: a front-end
 * that does not answer could keep a thread, and the vhost thread behind it, for ever. So the
 * channel is ours. It lives on the reactor, one request at a time, without blocking; a front-end
 * that does not answer in time loses the channel, and its doorbells are relayed.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "vdpa_msg.h"
#include "vdpa_priv.h"

enum { NOTIFIER_PAGE = 4096 }; /* what a guest can map; the front-end wants exactly one page */

static void
notifier_set(struct vdpa_vf *vf, uint16_t qid, enum vdpa_notifier_state state)
{
	pthread_mutex_lock(&vf->lock);
	vf->bells[qid].notifier = state;
	pthread_mutex_unlock(&vf->lock);
}

void
vdpa_slave_close(struct vdpa_vf *vf)
{
	struct vdpa_slave *s = &vf->slave;
	uint16_t qid;

	vdpa_timer_cancel(&s->timer);
	vdpa_watch_remove(&s->watch);
	vfe_close(&s->fd);
	s->pending = 0;
	s->rx_len = 0;
	for (qid = 0; qid < vf->nr_queues; qid++)
		notifier_set(vf, qid, VDPA_NOTIFIER_NONE);
}

static void
slave_fail(struct vdpa_vf *vf, const char *why)
{
	VDPA_LOG(WARNING, vhost, vf->name,
		"back-end channel: %s; doorbells of this connection are relayed from now on", why);
	vdpa_slave_close(vf);
}

/* From now on the guest kicks by its eventfd; before, it may have rung where nobody listens. */
static void
notifier_taken(struct vdpa_vf *vf, uint16_t qid)
{
	notifier_set(vf, qid, VDPA_NOTIFIER_NONE);
	if (vf->bells[qid].relay >= 0)
		vdpa_relay_poke(vf->bells[qid].relay);
}

static void
slave_answered(struct vdpa_vf *vf, uint64_t result)
{
	struct vdpa_slave *s = &vf->slave;

	vdpa_timer_cancel(&s->timer);
	if (s->pending == VDPA_SLAVE_VRING_HOST_NOTIFIER &&
		vf->bells[s->pending_qid].notifier == VDPA_NOTIFIER_TAKEN) {
		notifier_taken(vf, s->pending_qid);
	} else if (s->pending == VDPA_SLAVE_VRING_HOST_NOTIFIER) {
		if (vf->bells[s->pending_qid].notifier == VDPA_NOTIFIER_SENT)
			notifier_set(vf, s->pending_qid,
				result == 0 ? VDPA_NOTIFIER_ON : VDPA_NOTIFIER_OFF);
		if (result != 0)
			VDPA_LOG(NOTICE, run, vf->name,
				"queue %u: the front-end cannot map the doorbell page (QEMU needs "
				"page-per-vq=on and a modern guest); its doorbell is relayed",
				s->pending_qid);
	}
	s->pending = 0;
}

static void
slave_readable(struct vdpa_watch *watch, uint32_t events)
{
	struct vdpa_slave *s = vfe_container_of(watch, struct vdpa_slave, watch);
	struct vdpa_vf *vf = vfe_container_of(s, struct vdpa_vf, slave);
	struct vdpa_msg_hdr hdr;
	uint64_t result;
	ssize_t n;

	(void)events;
	n = recv(s->fd, s->rx + s->rx_len, sizeof(hdr) + sizeof(result) - s->rx_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		vdpa_slave_close(vf); /* the connection itself ends as well, or goes on without */
		return;
	}
	s->rx_len += (size_t)n;
	if (s->rx_len < sizeof(hdr) + sizeof(result))
		return;
	s->rx_len = 0;
	memcpy(&hdr, s->rx, sizeof(hdr));
	memcpy(&result, s->rx + sizeof(hdr), sizeof(result));
	if (s->pending == 0 || hdr.request != s->pending || hdr.size != sizeof(result) ||
		(hdr.flags & VDPA_MSG_F_REPLY) == 0) {
		slave_fail(vf, "an answer that belongs to no request");
		return;
	}
	slave_answered(vf, result);
	vdpa_slave_sync(vf);
}

static void
slave_expired(struct vdpa_timer *timer)
{
	struct vdpa_slave *s = vfe_container_of(timer, struct vdpa_slave, timer);

	slave_fail(vfe_container_of(s, struct vdpa_vf, slave), "no answer in time");
}

/* Send a request, with @fd (-1 = none) beside it. */
static int
slave_send(struct vdpa_vf *vf, uint32_t request, const void *payload, uint32_t size, int fd)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	bool ack = (vf->slave.features & VFE_BIT(VDPA_PROTOCOL_F_REPLY_ACK)) != 0;
	struct vdpa_msg_hdr hdr = {
		request, VDPA_MSG_VERSION | (ack ? VDPA_MSG_F_NEED_REPLY : 0), size};
	struct iovec iov[2] = {{&hdr, sizeof(hdr)}, {(void *)(uintptr_t)payload, size}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1};
	struct cmsghdr *cmsg;
	ssize_t n;

	if (fd >= 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
	}
	n = sendmsg(vf->slave.fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n != (ssize_t)(sizeof(hdr) + size))
		return n < 0 ? -errno : -EAGAIN; /* it does not read: not worth waiting for */
	if (ack) {
		vf->slave.pending = request;
		vdpa_timer_set(&vf->slave.timer, vfe_deadline_in_ms(vdpa_globals.ms.slave));
	}
	return 0;
}

static int
send_notifier(struct vdpa_vf *vf, uint16_t qid)
{
	const struct vfe_pci_doorbell *db = &vf->queues[qid].doorbell;
	struct vdpa_msg_area area = {qid, NOTIFIER_PAGE, db->map_offset};
	int ret;

	vf->slave.pending_qid = qid;
	ret = slave_send(vf, VDPA_SLAVE_VRING_HOST_NOTIFIER, &area, sizeof(area), db->map_fd);
	if (ret == 0)
		notifier_set(
			vf, qid, vf->slave.pending != 0 ? VDPA_NOTIFIER_SENT : VDPA_NOTIFIER_ON);
	return ret;
}

/* The doorbell page is not for a shadow ring: have the front-end unmap it. */
static int
send_no_notifier(struct vdpa_vf *vf, uint16_t qid)
{
	struct vdpa_msg_area area = {qid | VDPA_MSG_RING_NOFD, NOTIFIER_PAGE, 0};
	int ret;

	vf->slave.pending_qid = qid;
	ret = slave_send(vf, VDPA_SLAVE_VRING_HOST_NOTIFIER, &area, sizeof(area), -1);
	if (ret == 0 && vf->slave.pending != 0)
		notifier_set(vf, qid, VDPA_NOTIFIER_TAKEN);
	else if (ret == 0)
		notifier_taken(vf, qid);
	return ret;
}

/* Take over a new channel, or end that of a front-end which has gone. */
static void
slave_take(struct vdpa_vf *vf)
{
	struct vdpa_slave *s = &vf->slave;
	bool drop;
	int fd;

	pthread_mutex_lock(&vf->lock);
	fd = vfe_fd_take(&vf->new_slave_fd);
	drop = vf->drop_slave;
	s->features = vf->protocol_features;
	vf->drop_slave = false;
	pthread_mutex_unlock(&vf->lock);
	if (fd < 0 && !drop)
		return;
	vdpa_slave_close(vf);
	s->fd = fd;
	if (fd >= 0 && vdpa_watch_add(&s->watch, fd, EPOLLIN) < 0)
		slave_fail(vf, "it cannot be watched");
}

/* A stopped ring loses its doorbell page in the front-end, and is offered it again. */
static void
notifiers_forget(struct vdpa_vf *vf)
{
	uint16_t qid;

	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->bells[qid].stops != vf->rings[qid].stops)
			vf->bells[qid].notifier = VDPA_NOTIFIER_NONE;
		vf->bells[qid].stops = vf->rings[qid].stops;
	}
	pthread_mutex_unlock(&vf->lock);
}

static bool
has_protocol(const struct vdpa_vf *vf, uint64_t bits)
{
	return (vf->slave.features & bits) == bits;
}

static bool
take_config_change(struct vdpa_vf *vf)
{
	bool changed;

	pthread_mutex_lock(&vf->lock);
	changed = vf->config_changed;
	vf->config_changed = false;
	pthread_mutex_unlock(&vf->lock);
	return changed;
}

/* Which doorbell pages the front-end has; one request at a time. */
static int
sync_notifiers(struct vdpa_vf *vf, bool running)
{
	const uint64_t bits = VFE_BIT(VDPA_PROTOCOL_F_SLAVE_REQ) |
			      VFE_BIT(VDPA_PROTOCOL_F_SLAVE_SEND_FD) |
			      VFE_BIT(VDPA_PROTOCOL_F_HOST_NOTIFIER);
	struct vdpa_slave *s = &vf->slave;
	uint16_t qid;
	int ret = 0;

	for (qid = 0; ret == 0 && qid < vf->nr_queues; qid++) {
		if (s->fd < 0 || s->pending != 0 || !has_protocol(vf, bits))
			break;
		if (vf->plain.change.which[qid])
			continue;
		if (vf->applied[qid].shadow || !running) {
			if (vf->bells[qid].notifier == VDPA_NOTIFIER_ON)
				ret = send_no_notifier(vf, qid);
		} else if (vf->queues[qid].page_mappable && vf->applied[qid].enabled &&
			   vf->bells[qid].notifier == VDPA_NOTIFIER_NONE) {
			ret = send_notifier(vf, qid);
		}
	}
	return ret;
}

static bool
is_lost(struct vdpa_vf *vf)
{
	bool lost;

	pthread_mutex_lock(&vf->lock);
	lost = vf->lost;
	pthread_mutex_unlock(&vf->lock);
	return lost;
}

/*
 * Pages of a lost device are taken back: they keep a function of the kernel open, so that neither
 * the kernel could have it nor we could open it again.
 */
void
vdpa_slave_sync(struct vdpa_vf *vf)
{
	bool running = atomic_load(&vf->running);
	struct vdpa_slave *s = &vf->slave;
	int ret = 0;

	slave_take(vf);
	notifiers_forget(vf);
	if (!running && !is_lost(vf))
		return;
	if (running && s->fd >= 0 && s->pending == 0 &&
		has_protocol(vf, VFE_BIT(VDPA_PROTOCOL_F_CONFIG)) && take_config_change(vf))
		ret = slave_send(vf, VDPA_SLAVE_CONFIG_CHANGE, NULL, 0, -1);
	if (ret == 0)
		ret = sync_notifiers(vf, running);
	if (ret < 0)
		slave_fail(vf, "it takes no request");
}

void
vdpa_slave_init(struct vdpa_vf *vf)
{
	vf->slave.fd = -1;
	vf->slave.watch.fd = -1;
	vf->slave.watch.ready = slave_readable;
	vf->slave.timer.expired = slave_expired;
}
