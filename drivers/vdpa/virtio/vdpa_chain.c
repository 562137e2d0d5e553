/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * The guest's chains of descriptors: their buffers one by one, and which pages a device has written
 * through them.
 *
 * The guest may change a chain at any time, also after the device has checked it for itself. What
 * is found here is read once and believed in nothing: a loop, an index that is out of range or a
 * buffer that is not in guest memory ends the walk with an error.
 */

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "vdpa_priv.h"

static int
walk_read(const struct vdpa_chains *c, const struct vdpa_walk *w, struct vfe_wire_vring_desc *ret,
	struct vfe_error *err)
{
	struct vfe_wire_vring_desc raw;
	int rc = 0;

	if (w->next >= w->nr)
		return vfe_error_set(
			err, -EBADMSG, "descriptor %u of a table of %u", w->next, w->nr);
	if (w->indirect) {
		rc = vdpa_domain_read(
			c->domain, w->table + sizeof(raw) * (uint64_t)w->next, &raw, sizeof(raw));
	} else {
		raw = c->desc[w->next];
		/* no second look by the compiler */
		atomic_signal_fence(memory_order_seq_cst);
	}
	if (rc < 0)
		return vfe_error_set(err, -EBADMSG,
			"descriptor %u of the indirect table at %#" PRIx64
			" is not in guest memory",
			w->next, w->table);
	ret->addr = le64toh(raw.addr);
	ret->len = le32toh(raw.len);
	ret->flags = le16toh(raw.flags);
	ret->next = le16toh(raw.next);
	return 0;
}

static int
walk_enter(const struct vdpa_chains *c, struct vdpa_walk *w, const struct vfe_wire_vring_desc *d,
	struct vfe_error *err)
{
	const uint32_t size = sizeof(struct vfe_wire_vring_desc);

	if (w->indirect || !c->indirect || (d->flags & VFE_VRING_DESC_F_NEXT) != 0)
		return vfe_error_set(err, -EBADMSG, "an indirect table at %#" PRIx64 " %s", d->addr,
			w->indirect   ? "inside another one"
			: c->indirect ? "with a descriptor behind it"
				      : "was not negotiated");
	if (d->len == 0 || d->len % size != 0 || d->len / size > VFE_VIRTIO_QUEUE_MAX_SIZE)
		return vfe_error_set(err, -EBADMSG, "an indirect table of %u bytes", d->len);
	*w = (struct vdpa_walk){.indirect = true, .table = d->addr, .nr = d->len / size};
	return 0;
}

int
vdpa_chain_next(const struct vdpa_chains *c, struct vdpa_walk *w, struct vfe_wire_vring_desc *ret,
	struct vfe_error *err)
{
	int rc;

	while (!w->ended) {
		if (w->seen++ >= w->nr)
			return vfe_error_set(
				err, -EBADMSG, "a loop in a table of %u descriptors", w->nr);
		rc = walk_read(c, w, ret, err);
		if (rc == 0 && (ret->flags & VFE_VRING_DESC_F_INDIRECT) != 0) {
			rc = walk_enter(c, w, ret, err);
			if (rc == 0)
				continue;
		}
		if (rc < 0)
			return rc;
		w->ended = (ret->flags & VFE_VRING_DESC_F_NEXT) == 0;
		w->next = ret->next;
		return 1;
	}
	return 0;
}

int
vdpa_chain_mark(const struct vdpa_chains *c, uint16_t head, uint64_t len,
	const struct vfe_dirty_log *log, struct vfe_error *err)
{
	struct vdpa_walk w = {.nr = c->size, .next = head};
	struct vfe_wire_vring_desc d = {0};
	uint64_t part;
	int rc;

	while (len > 0) {
		rc = vdpa_chain_next(c, &w, &d, err);
		if (rc <= 0)
			return rc;
		if ((d.flags & VFE_VRING_DESC_F_WRITE) == 0)
			continue;
		part = d.len < len ? d.len : len;
		if (!vdpa_domain_has(c->domain, d.addr, part))
			return vfe_error_set(err, -EBADMSG,
				"a buffer of %" PRIu64 " bytes at %#" PRIx64
				" is not in guest memory",
				part, d.addr);
		vfe_dirty_log_mark(log, d.addr, part);
		len -= part;
	}
	return 0;
}
