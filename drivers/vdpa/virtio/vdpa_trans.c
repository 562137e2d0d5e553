/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Chains of descriptors for a device that reaches memory by physical addresses.
 *
 * Nothing translates what such a device is told, or keeps it from memory that is not the guest's.
 * So it never sees a descriptor of the guest. It gets a table of ours, in which the descriptor of
 * each head names an indirect table in a slot that belongs to this head. What the guest has there
 * is read once, looked up in the memory of the guest's front-end (the domain has more, our own
 * among it), cut where it is not contiguous, and written into the slot, which the guest cannot
 * reach: not by this device, and no other is in its domain. A slot is not written while the device
 * has its head.
 *
 * An address that the device has is good until the device is stopped: memory of the guest does not
 * go before that (see table_apply() in vdpa_ops.c).
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "vdpa_priv.h"

/* Descriptors of a slot. A driver's longest chain fits twice: each buffer may be in two pieces. */
enum { MIN_PIECES = 64, MAX_PIECES = 1024 };

struct vdpa_trans {
	struct vdpa_vf *vf;
	uint32_t pieces;
	uint16_t nr;                       /* heads */
	struct vfe_wire_vring_desc *desc;  /* one per head */
	struct vfe_wire_vring_desc *slots; /* @pieces per head */
	uint64_t desc_iova;
	uint64_t slots_iova;
	uint64_t *bus; /* of the slots, as the device has them */
};

/* A power of two, so that slots from a huge page's beginning on do not cross its end. */
static uint32_t
slot_pieces(const struct vdpa_vf *vf)
{
	const uint32_t want = vf->type->chain_max(&vf->config, vf->vdev.device_features);
	uint32_t n = MIN_PIECES;

	while (n < MAX_PIECES && n / 2 < want)
		n *= 2;
	return n;
}

static uint64_t
slots_bytes(const struct vdpa_vf *vf, uint16_t qid)
{
	return (uint64_t)vf->queues[qid].max_size * slot_pieces(vf) *
	       sizeof(struct vfe_wire_vring_desc);
}

static uint64_t
all_slots_bytes(const struct vdpa_vf *vf)
{
	uint64_t bytes = 0;
	uint16_t qid;

	for (qid = 0; qid < vf->nr_queues; qid++)
		bytes += slots_bytes(vf, qid);
	return bytes;
}

uint64_t
vdpa_trans_bytes(const struct vdpa_vf *vf)
{
	uint64_t bytes = all_slots_bytes(vf);
	uint16_t qid;

	/* twice: what does not fit into the rest of a huge page goes to the next one */
	for (qid = 0; qid < vf->nr_queues; qid++)
		bytes += 2 * vfe_align_up(vfe_vring_desc_bytes(vf->queues[qid].max_size), 64);
	return bytes;
}

/* --- of one ring, under the shadow's lock --- */

int
vdpa_trans_start(struct vdpa_trans *t, uint64_t *ret_desc, struct vfe_error *err)
{
	const uint64_t bytes = t->pieces * sizeof(t->slots[0]);
	uint16_t head;
	int rc = 0;

	for (head = 0; rc == 0 && head < t->nr; head++)
		rc = vfe_pci_dma_addr_whole(
			t->vf->pci, t->slots_iova + head * bytes, bytes, &t->bus[head]);
	if (rc < 0)
		return vfe_error_set(err, -EFAULT,
			"memory of the service for descriptors is not contiguous, or not there");
	*ret_desc = t->desc_iova;
	return 0;
}

/* The buffer @d in as many pieces as it takes, from @slot[*@n] on. */
static int
put_buffer(struct vdpa_trans *t, struct vfe_wire_vring_desc *slot, uint32_t *n,
	const struct vfe_wire_vring_desc *d, struct vfe_error *err)
{
	uint64_t addr = d->addr, left = d->len, bus, part;

	if (left == 0)
		return vfe_error_set(err, -EBADMSG, "a buffer of 0 bytes at %#" PRIx64, addr);
	for (; left > 0; left -= part) {
		if (*n == t->pieces)
			return vfe_error_set(err, -EBADMSG,
				"a chain of more than %u pieces of memory", t->pieces);
		if (vdpa_domain_bus(
			    t->vf->domain, &t->vf->member, t->vf->pci, addr, left, &bus, &part) < 0)
			return vfe_error_set(err, -EBADMSG,
				"a buffer of %u bytes at %#" PRIx64
				" is not in guest memory that the device can reach",
				d->len, d->addr);
		slot[*n] = (struct vfe_wire_vring_desc){
			.addr = htole64(bus),
			.len = htole32((uint32_t)part),
			.flags = htole16(
				(d->flags & VFE_VRING_DESC_F_WRITE) | VFE_VRING_DESC_F_NEXT),
			.next = htole16((uint16_t)(*n + 1)),
		};
		++*n;
		addr += part;
	}
	return 0;
}

int
vdpa_trans_chain(struct vdpa_trans *t, const struct vdpa_chains *chains, uint16_t head,
	struct vfe_error *err)
{
	struct vfe_wire_vring_desc *slot = &t->slots[(size_t)head * t->pieces], d;
	struct vdpa_walk w = {.nr = chains->size, .next = head};
	uint32_t n = 0;
	int rc;

	do {
		rc = vdpa_chain_next(chains, &w, &d, err);
		if (rc > 0)
			rc = put_buffer(t, slot, &n, &d, err) < 0 ? -EBADMSG : 1;
	} while (rc > 0);
	if (rc < 0)
		return vfe_error_prefix(err, rc, "descriptor %u", head);
	/* a chain that was read has a buffer, and a buffer a piece */
	slot[n - 1].flags &= htole16((uint16_t)~VFE_VRING_DESC_F_NEXT);
	slot[n - 1].next = 0;
	t->desc[head] = (struct vfe_wire_vring_desc){
		.addr = htole64(t->bus[head]),
		.len = htole32(n * (uint32_t)sizeof(*slot)),
		.flags = htole16(VFE_VRING_DESC_F_INDIRECT),
	};
	return (int)n;
}

/* --- allocation --- */

static struct vdpa_trans *
trans_create(struct vdpa_vf *vf, uint16_t qid, uint64_t off)
{
	struct vdpa_trans *t = calloc(1, sizeof(*t));

	if (t == NULL)
		return NULL;
	t->vf = vf;
	t->pieces = slot_pieces(vf);
	t->nr = vf->queues[qid].max_size;
	t->slots = (void *)((uint8_t *)vf->plain.slots + off);
	t->slots_iova = vf->plain.slots_iova + off;
	t->bus = calloc(t->nr, sizeof(t->bus[0]));
	t->desc = vfe_dma_arena_alloc(
		vf->plain.arena, vfe_vring_desc_bytes(t->nr), 64, &t->desc_iova);
	return t;
}

int
vdpa_trans_init(struct vdpa_vf *vf, struct vfe_error *err)
{
	struct vdpa_trans *t;
	uint64_t off = 0;
	uint16_t qid;

	vf->plain.slots = vfe_dma_arena_alloc(
		vf->plain.arena, all_slots_bytes(vf), 4096, &vf->plain.slots_iova);
	vf->plain.trans = calloc(vf->nr_queues, sizeof(vf->plain.trans[0]));
	if (vf->plain.slots == NULL || vf->plain.trans == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for translated descriptors");
	for (qid = 0; qid < vf->nr_queues; qid++) {
		t = trans_create(vf, qid, off);
		vf->plain.trans[qid] = t;
		if (t == NULL || t->bus == NULL || t->desc == NULL)
			return vfe_error_set(
				err, -ENOMEM, "no memory for the descriptors of ring %u", qid);
		off += slots_bytes(vf, qid);
	}
	return 0;
}

void
vdpa_trans_fini(struct vdpa_vf *vf)
{
	struct vdpa_trans *t;
	uint16_t qid;

	for (qid = 0; vf->plain.trans != NULL && qid < vf->nr_queues; qid++) {
		t = vf->plain.trans[qid];
		if (t == NULL)
			break;
		vfe_dma_arena_free(vf->plain.arena, t->desc);
		free(t->bus);
		free(t);
	}
	free(vf->plain.trans);
	vf->plain.trans = NULL;
	vfe_dma_arena_free(vf->plain.arena, vf->plain.slots);
	vf->plain.slots = NULL;
}
