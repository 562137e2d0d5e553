/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Packet headers and copies.
 */

#include "packet.h"

static bool
has(uint64_t features, unsigned int bit)
{
	return (features >> bit & 1) != 0;
}

/* The feature that a kind of segmentation needs, of the sender or of the receiver; -1: unknown. */
static int
gso_feature(uint8_t gso_type, bool sender)
{
	switch (gso_type & ~VFE_NET_HDR_GSO_ECN) {
	case VFE_NET_HDR_GSO_TCPV4:
		return sender ? VFE_NET_F_HOST_TSO4 : VFE_NET_F_GUEST_TSO4;
	case VFE_NET_HDR_GSO_TCPV6:
		return sender ? VFE_NET_F_HOST_TSO6 : VFE_NET_F_GUEST_TSO6;
	case VFE_NET_HDR_GSO_UDP:
		return sender ? VFE_NET_F_HOST_UFO : VFE_NET_F_GUEST_UFO;
	default:
		return -1;
	}
}

static bool
gso_allowed(const struct vfe_wire_net_hdr *hdr, uint64_t features, bool sender)
{
	int bit;

	if (hdr->gso_type == VFE_NET_HDR_GSO_NONE)
		return true;
	bit = gso_feature(hdr->gso_type, sender);
	if (bit < 0 || !has(features, (unsigned int)bit))
		return false;
	return (hdr->gso_type & VFE_NET_HDR_GSO_ECN) == 0 ||
	       has(features, sender ? VFE_NET_F_HOST_ECN : VFE_NET_F_GUEST_ECN);
}

bool
dp_hdr_valid(const struct vfe_wire_net_hdr *hdr, uint64_t features, uint64_t len)
{
	const bool csum = (hdr->flags & VFE_NET_HDR_F_NEEDS_CSUM) != 0;

	if (csum && !has(features, VFE_NET_F_CSUM))
		return false;
	if (csum && (uint64_t)hdr->csum_start + hdr->csum_offset + 2 > len)
		return false;
	if (!gso_allowed(hdr, features, true))
		return false;
	if (hdr->gso_type != VFE_NET_HDR_GSO_NONE && (!csum || hdr->gso_size == 0))
		return false;
	return true;
}

bool
dp_hdr_acceptable(const struct vfe_wire_net_hdr *hdr, uint64_t features)
{
	if ((hdr->flags & VFE_NET_HDR_F_NEEDS_CSUM) && !has(features, VFE_NET_F_GUEST_CSUM))
		return false;
	return gso_allowed(hdr, features, false);
}

uint64_t
dp_iov_len(const struct iovec *iov, uint32_t nr)
{
	uint64_t sum = 0;
	uint32_t i;

	for (i = 0; i < nr; i++)
		sum += iov[i].iov_len;
	return sum;
}

uint32_t
dp_iov_skip(const struct iovec *src, uint32_t nr, uint64_t off, struct iovec *dst)
{
	uint32_t i, n = 0;

	for (i = 0; i < nr; i++) {
		if (off >= src[i].iov_len) {
			off -= src[i].iov_len;
			continue;
		}
		dst[n].iov_base = (uint8_t *)src[i].iov_base + off;
		dst[n].iov_len = src[i].iov_len - off;
		off = 0;
		n++;
	}
	return n;
}

void
dp_iov_copy(const struct iovec *dst, const struct iovec *src, uint64_t len)
{
	uint64_t d_off = 0, s_off = 0, part;

	while (len > 0) {
		part = dst->iov_len - d_off;
		if (part > src->iov_len - s_off)
			part = src->iov_len - s_off;
		if (part > len)
			part = len;
		dp_packet_copy((uint8_t *)dst->iov_base + d_off,
			(const uint8_t *)src->iov_base + s_off, (uint32_t)part);
		len -= part;
		d_off += part;
		s_off += part;
		if (d_off == dst->iov_len) {
			dst++;
			d_off = 0;
		}
		if (s_off == src->iov_len) {
			src++;
			s_off = 0;
		}
	}
}
