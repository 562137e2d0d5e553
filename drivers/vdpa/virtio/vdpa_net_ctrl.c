/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The control queue of a plain virtio-net function, which the front-end keeps from the device: it
 * is ours, and tells the receive mode and how many queue pairs are in use.
 */

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "vdpa_priv.h"

enum {
	CTRL_TIMEOUT_MS = 2000,
	CTRL_PAUSE_MAX_MS = 10,
	CTRL_SIZE = 4,      /* descriptors; a command has three */
	CTRL_DATA_MAX = 64, /* bytes */
};

/* The control queue in the arena. The device may write all of it: what it says is read once. */
struct vdpa_ctrl {
	struct vfe_wire_vring_desc desc[CTRL_SIZE];
	struct {
		uint16_t flags;
		uint16_t idx;
		uint16_t ring[CTRL_SIZE];
		uint16_t used_event;
	} avail;
	struct {
		uint16_t flags;
		uint16_t idx;
		struct vfe_wire_vring_used_elem ring[CTRL_SIZE];
		uint16_t avail_event;
	} used __attribute__((aligned(4)));
	struct vfe_wire_net_ctrl_hdr hdr;
	uint8_t data[CTRL_DATA_MAX];
	uint8_t ack;
};
static_assert(sizeof(struct vdpa_ctrl) <= VDPA_CTRL_SPACE, "control queue");

static bool
negotiated(const struct vdpa_vf *vf, unsigned int bit)
{
	return (vf->driver_features & VFE_BIT(bit)) != 0;
}

/* Section 5.1.2: it comes after the last queue pair, of which there is one without MQ. */
static unsigned int
ctrl_qid(const struct vdpa_vf *vf)
{
	return negotiated(vf, VFE_NET_F_MQ) ? 2u * le16toh(vf->config.net.max_virtqueue_pairs) : 2;
}

static int
ctrl_enable(struct vdpa_vf *vf, struct vfe_error *err)
{
	const uint64_t iova = vf->plain.ctrl_iova;
	const unsigned int qid = ctrl_qid(vf);
	const struct vfe_virtio_queue_cfg cfg = {
		.size = CTRL_SIZE,
		.msix_vector = VFE_VIRTIO_MSI_NO_VECTOR,
		.desc = iova + offsetof(struct vdpa_ctrl, desc),
		.driver = iova + offsetof(struct vdpa_ctrl, avail),
		.device = iova + offsetof(struct vdpa_ctrl, used),
	};
	int rc;

	if (qid >= vf->vdev.num_queues || vf->queues[qid].max_size < CTRL_SIZE)
		return vfe_error_set(err, -EPROTO,
			"control queue %u of %u queues, size %u, is not there or too small", qid,
			vf->vdev.num_queues,
			qid < vf->vdev.num_queues ? vf->queues[qid].max_size : 0);
	rc = vfe_pci_dma_addr_whole(vf->pci, iova, sizeof(*vf->plain.ctrl), &vf->plain.ctrl_bus);
	if (rc < 0)
		return vfe_error_set(err, -EFAULT,
			"memory of the service for the control queue cannot be reached");
	memset(vf->plain.ctrl, 0, sizeof(*vf->plain.ctrl));
	vf->plain.ctrl->avail.flags = htole16(VFE_VRING_AVAIL_F_NO_INTERRUPT);
	vf->plain.ctrl_idx = 0;
	vf->plain.ctrl_qid = (uint16_t)qid;
	rc = vfe_virtio_doorbell_get(
		&vf->vdev, (uint16_t)qid, vf->queues[qid].notify_off, &vf->plain.ctrl_bell, err);
	if (rc == 0)
		rc = vfe_virtio_queue_enable(&vf->vdev, (uint16_t)qid, &cfg, err);
	vf->plain.ctrl_works = rc == 0;
	return rc;
}

/*
 * The queue has no vector: a command is rare, and a device may have no vector left for it.
 * Growing pauses, which end at once when the device is lost.
 */
static int
ctrl_wait(struct vdpa_vf *vf, struct vfe_error *err)
{
	const struct vfe_deadline deadline = vfe_deadline_in_ms(CTRL_TIMEOUT_MS);
	struct pollfd lost = {
		.fd = vfe_pci_lost_fd(vf->pci),
		.events = (short)vfe_pci_lost_events(vf->pci),
	};
	int pause = 0, rc;
	uint16_t used;

	for (;;) {
		used = le16toh(__atomic_load_n(&vf->plain.ctrl->used.idx, __ATOMIC_ACQUIRE));
		if (used == vf->plain.ctrl_idx)
			return 0;
		if (used != (uint16_t)(vf->plain.ctrl_idx - 1))
			return vfe_error_set(err, -EPROTO, "its used index is %u, expected %u",
				used, vf->plain.ctrl_idx);
		rc = vfe_pci_error(vf->pci);
		if (rc < 0)
			return vfe_error_set(err, rc, "the device is lost");
		if (vfe_deadline_passed(deadline))
			return vfe_error_set(
				err, -ETIMEDOUT, "no answer in %d ms", CTRL_TIMEOUT_MS);
		poll(&lost, 1, pause);
		pause = pause < CTRL_PAUSE_MAX_MS ? pause + 1 : CTRL_PAUSE_MAX_MS;
	}
}

static void
ctrl_publish(struct vdpa_vf *vf, uint16_t len)
{
	const uint64_t at = vf->plain.ctrl_bus;
	struct vdpa_ctrl *c = vf->plain.ctrl;

	c->desc[0] = (struct vfe_wire_vring_desc){
		.addr = htole64(at + offsetof(struct vdpa_ctrl, hdr)),
		.len = htole32(sizeof(c->hdr)),
		.flags = htole16(VFE_VRING_DESC_F_NEXT),
		.next = htole16(1),
	};
	c->desc[1] = (struct vfe_wire_vring_desc){
		.addr = htole64(at + offsetof(struct vdpa_ctrl, data)),
		.len = htole32(len),
		.flags = htole16(VFE_VRING_DESC_F_NEXT),
		.next = htole16(2),
	};
	c->desc[2] = (struct vfe_wire_vring_desc){
		.addr = htole64(at + offsetof(struct vdpa_ctrl, ack)),
		.len = htole32(sizeof(c->ack)),
		.flags = htole16(VFE_VRING_DESC_F_WRITE),
	};
	c->avail.ring[vf->plain.ctrl_idx % CTRL_SIZE] = htole16(0);
	vf->plain.ctrl_idx++;
	__atomic_store_n(&c->avail.idx, htole16(vf->plain.ctrl_idx), __ATOMIC_RELEASE);
	/* the doorbell may be a store to device memory, after that of the index */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* One command, to its end. -EREMOTEIO: the device has refused it. */
static int
ctrl_command(struct vdpa_vf *vf, struct vfe_wire_net_ctrl_hdr hdr, const void *data, uint16_t len,
	struct vfe_error *err)
{
	struct vdpa_ctrl *c = vf->plain.ctrl;
	uint8_t ack;
	int rc;

	if (!vf->plain.ctrl_works)
		return vfe_error_set(err, -EIO, "the control queue does not answer any more");
	c->hdr = hdr;
	memcpy(c->data, data, len);
	c->ack = (uint8_t)~VFE_NET_CTRL_OK;
	ctrl_publish(vf, len);
	rc = vfe_pci_doorbell_ring(&vf->plain.ctrl_bell, vf->plain.ctrl_qid, 2);
	if (rc < 0)
		vfe_error_set(err, rc, "its doorbell cannot be rung");
	else
		rc = ctrl_wait(vf, err);
	vf->plain.ctrl_works = rc == 0;
	if (rc < 0)
		return vfe_error_prefix(err, rc, "control queue");
	ack = __atomic_load_n(&c->ack, __ATOMIC_RELAXED);
	if (ack != VFE_NET_CTRL_OK)
		return vfe_error_set(err, -EREMOTEIO,
			"control queue: class %u command %u is answered by %u", hdr.class_, hdr.cmd,
			ack);
	return 0;
}

/*
 * The front-end keeps the guest's receive filters to itself: let everything in. A device that may
 * not, as that of a VF that is not trusted, still lets its own address in, which the guest has.
 */
static int
ctrl_rx_mode(struct vdpa_vf *vf, struct vfe_error *err)
{
	static const struct vfe_wire_net_ctrl_hdr hdr = {
		.class_ = VFE_NET_CTRL_RX,
		.cmd = VFE_NET_CTRL_RX_PROMISC,
	};
	static const uint8_t on = 1;
	int rc;

	if (!negotiated(vf, VFE_NET_F_CTRL_RX))
		return 0;
	rc = ctrl_command(vf, hdr, &on, sizeof(on), err);
	if (rc != -EREMOTEIO)
		return rc;
	VDPA_LOG(WARNING, run, vf->name,
		"the device refuses to be promiscuous: the guest gets what is for its own address");
	return 0;
}

/* Up to the last pair of which the front-end has enabled a ring. */
static uint16_t
wanted_pairs(struct vdpa_vf *vf)
{
	uint16_t qid, pairs = 1;

	pthread_mutex_lock(&vf->lock);
	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].enabled && vf->rings[qid].enabled)
			pairs = qid / 2 + 1;
	}
	pthread_mutex_unlock(&vf->lock);
	return pairs;
}

static int
ctrl_pairs(struct vdpa_vf *vf, struct vfe_error *err)
{
	static const struct vfe_wire_net_ctrl_hdr hdr = {
		.class_ = VFE_NET_CTRL_MQ,
		.cmd = VFE_NET_CTRL_MQ_VQ_PAIRS_SET,
	};
	uint16_t pairs = wanted_pairs(vf), le = htole16(pairs);
	int rc;

	if (!negotiated(vf, VFE_NET_F_MQ) || pairs == vf->plain.pairs)
		return 0;
	rc = ctrl_command(vf, hdr, &le, sizeof(le), err);
	if (rc == 0)
		vf->plain.pairs = pairs;
	return rc;
}

/* --- the seam --- */

/* Until it is told otherwise, a device uses one pair (section 5.1.6.5.5). */
static int
net_ctrl_configure(struct vdpa_vf *vf, struct vfe_error *err)
{
	vf->plain.pairs = 1;
	vf->plain.ctrl_works = false;
	return negotiated(vf, VFE_NET_F_CTRL_VQ) ? ctrl_enable(vf, err) : 0;
}

static int
net_ctrl_started(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = ctrl_rx_mode(vf, err);

	return rc == 0 ? ctrl_pairs(vf, err) : rc;
}

/* Without MQ there is one pair, and where the next one would begin is the control queue. */
static uint16_t
net_ctrl_nr_rings(const struct vdpa_vf *vf, uint64_t features)
{
	return (features & VFE_BIT(VFE_NET_F_MQ)) != 0 ? vf->nr_queues : 2;
}

const struct vdpa_ctrl_ops vdpa_net_ctrl = {
	.features = VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_CTRL_RX),
	.nr_rings = net_ctrl_nr_rings,
	.configure = net_ctrl_configure,
	.started = net_ctrl_started,
	.tend = ctrl_pairs,
};
