/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Plain functions: VFs and PFs that nobody manages, driven by their own registers alone.
 *
 * Stopping is a reset, which leaves nothing behind: vf->plain.fresh. Starting programs features,
 * vectors and queues anew; the control queue, which the front-end keeps from the device, is ours:
 * it tells the receive mode and how many queue pairs are in use. Registers cannot say where a ring
 * stands: one that is not at its beginning goes through a shadow ring (vdpa_shadow.c).
 */

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "vdpa_priv.h"

enum {
	ARENA_SLOTS = 64,  /* plain functions of one VM */
	CTRL_SPACE = 4096, /* bytes, a page */
	CTRL_TIMEOUT_MS = 2000,
	CTRL_PAUSE_MAX_MS = 10,
	CTRL_SIZE = 4,      /* descriptors; a command has three */
	CTRL_DATA_MAX = 64, /* bytes */
	CONFIG_VECTOR = 0,  /* of the queues: queue index + 1, as vdpa_queue.c has it */
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

/* --- memory of our own, where no guest has any --- */

/*
 * The functions of a VM share its addresses, and those of the guest's memory come later: so the
 * arena goes below the end of what the IOMMU can, 47 bits or fewer. The domain says what is taken,
 * the kernel what its IOMMU refuses.
 */
static int
arena_create(struct vdpa_vf *vf, struct vfe_error *err)
{
	const uint64_t size = vfe_align_up(CTRL_SPACE + vdpa_shadow_bytes(vf), CTRL_SPACE);
	static const unsigned int bits[] = {47, 43, 39, 38, 36};
	uint64_t iova;
	unsigned int i, slot;
	int rc = -ENOSPC;

	for (i = 0; i < VFE_ARRAY_SIZE(bits); i++) {
		iova = UINT64_C(1) << bits[i];
		for (slot = 0; slot < ARENA_SLOTS; slot++) {
			iova -= size;
			rc = vfe_dma_arena_create(
				vdpa_domain_pci(vf->domain), iova, size, &vf->plain.arena, err);
			if (rc != -EEXIST)
				break;
		}
		if (rc == 0 || rc == -ENODEV || rc == -ENOMEM)
			break;
	}
	return rc;
}

int
vdpa_plain_init(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = arena_create(vf, err);

	if (rc < 0)
		return rc;
	vf->plain.ctrl = vfe_dma_arena_alloc(
		vf->plain.arena, sizeof(*vf->plain.ctrl), CTRL_SPACE, &vf->plain.ctrl_iova);
	if (vf->plain.ctrl == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for the control queue");
	return vdpa_shadow_init(vf, err);
}

void
vdpa_plain_fini(struct vdpa_vf *vf)
{
	vdpa_shadow_fini(vf);
	if (vf->plain.ctrl != NULL)
		vfe_dma_arena_free(vf->plain.arena, vf->plain.ctrl);
	vf->plain.ctrl = NULL;
	vfe_dma_arena_destroy(vf->plain.arena);
	vf->plain.arena = NULL;
}

/* --- the control queue --- */

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
	const uint64_t iova = vf->plain.ctrl_iova;
	struct vdpa_ctrl *c = vf->plain.ctrl;

	c->desc[0] = (struct vfe_wire_vring_desc){
		.addr = htole64(iova + offsetof(struct vdpa_ctrl, hdr)),
		.len = htole32(sizeof(c->hdr)),
		.flags = htole16(VFE_VRING_DESC_F_NEXT),
		.next = htole16(1),
	};
	c->desc[1] = (struct vfe_wire_vring_desc){
		.addr = htole64(iova + offsetof(struct vdpa_ctrl, data)),
		.len = htole32(len),
		.flags = htole16(VFE_VRING_DESC_F_NEXT),
		.next = htole16(2),
	};
	c->desc[2] = (struct vfe_wire_vring_desc){
		.addr = htole64(iova + offsetof(struct vdpa_ctrl, ack)),
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

/* --- jobs, on a worker --- */

static int
plain_stop(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc;

	rc = vfe_virtio_reset(&vf->vdev, vfe_deadline_in_ms(VDPA_STOP_TIMEOUT_MS), NULL, err);
	if (rc == 0)
		rc = vfe_virtio_status_add(
			&vf->vdev, VFE_VIRTIO_S_ACKNOWLEDGE | VFE_VIRTIO_S_DRIVER, err);
	vf->plain.fresh = rc == 0;
	vdpa_shadow_stop(vf);
	return rc;
}

static int
plain_queues(struct vdpa_vf *vf, struct vfe_error *err)
{
	const struct vdpa_applied *a;
	struct vfe_virtio_queue_cfg cfg;
	uint16_t qid;
	int rc = 0;

	for (qid = 0; rc == 0 && qid < vf->nr_queues; qid++) {
		a = &vf->applied[qid];
		if (!a->enabled)
			continue;
		cfg = (struct vfe_virtio_queue_cfg){
			.size = a->size,
			.msix_vector = (uint16_t)(qid + 1),
			.desc = a->desc,
			.driver = a->avail,
			.device = a->used,
		};
		if (a->shadow)
			rc = vdpa_shadow_start(vf, qid, a, &cfg, err);
		if (rc == 0)
			rc = vfe_virtio_queue_enable(&vf->vdev, qid, &cfg, err);
	}
	return rc;
}

static int
plain_configure(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = vf->plain.fresh ? 0 : plain_stop(vf, err);

	vf->plain.fresh = false;
	vf->plain.pairs = 1; /* section 5.1.6.5.5: until it is told otherwise */
	vf->plain.ctrl_works = false;
	if (rc == 0)
		rc = vfe_virtio_features_set(&vf->vdev, vf->driver_features, err);
	if (rc == 0)
		rc = vfe_virtio_config_vector_set(&vf->vdev, CONFIG_VECTOR, err);
	if (rc == 0)
		rc = plain_queues(vf, err);
	if (rc == 0 && negotiated(vf, VFE_NET_F_CTRL_VQ))
		rc = ctrl_enable(vf, err);
	return rc;
}

static int
plain_run(struct vdpa_vf *vf, struct vfe_error *err)
{
	int rc = vfe_virtio_status_add(&vf->vdev, VFE_VIRTIO_S_DRIVER_OK, err);

	if (rc == 0)
		rc = ctrl_rx_mode(vf, err);
	if (rc == 0)
		rc = ctrl_pairs(vf, err);
	return rc;
}

static int
plain_job(struct vdpa_vf *vf, struct vfe_error *err)
{
	switch (vf->state) {
	case VDPA_S_RESTORE:
		return plain_configure(vf, err);
	case VDPA_S_START:
		return plain_run(vf, err);
	default:
		return plain_stop(vf, err);
	}
}

static int
plain_tend(struct vdpa_vf *vf, struct vfe_error *err)
{
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (vf->applied[qid].shadow)
			vdpa_shadow_call(vf, qid, vf->applied[qid].call);
	}
	return ctrl_pairs(vf, err);
}

/* --- steps of the state machine, on the reactor --- */

static int
plain_halt(struct vdpa_vf *vf)
{
	return vf->plain.fresh ? 1 : vdpa_vf_job_post(vf);
}

static int
plain_nothing(struct vdpa_vf *vf)
{
	(void)vf;
	return 1;
}

static int
plain_restore(struct vdpa_vf *vf)
{
	pthread_mutex_lock(&vf->lock);
	vf->guest_blob = true; /* whatever becomes of it */
	pthread_mutex_unlock(&vf->lock);
	return vdpa_vf_job_post(vf);
}

/* Without MQ there is one pair, and where the next one would begin is the control queue. */
static void
plain_plan(struct vdpa_vf *vf, uint64_t features, struct vdpa_applied *rings)
{
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++) {
		if (qid >= 2 && (features & VFE_BIT(VFE_NET_F_MQ)) == 0)
			rings[qid].enabled = false;
		rings[qid].shadow = rings[qid].enabled && rings[qid].start_idx != 0;
	}
}

const struct vdpa_drive_ops vdpa_drive_plain = {
	.name = "plain",
	.own_features = VFE_BIT(VFE_NET_F_CTRL_VQ) | VFE_BIT(VFE_NET_F_CTRL_RX),
	.keeps_rings = true,
	.quiesce = plain_halt,
	.freeze = plain_nothing,
	.restore = plain_restore,
	.unquiesce = plain_nothing,
	.start = vdpa_vf_job_post,
	.park = plain_halt,
	.job = plain_job,
	.plan = plain_plan,
	.tend = plain_tend,
};
