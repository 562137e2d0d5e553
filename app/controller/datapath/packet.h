/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Packet headers and copies. Payload gets into guest memory only by dp_packet_copy(), by
 * vfe_iov_write(), and by the readv(2) of the TAP back end.
 */

#ifndef DP_PACKET_H
#define DP_PACKET_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

#include "vfe_base.h"
#include "vfe_wire_net.h"

/*
 * May a driver that negotiated @features send a packet of @len bytes (without header) with @hdr?
 * Section 5.1.6.2. @hdr is a private copy.
 */
bool dp_hdr_valid(const struct vfe_wire_net_hdr *hdr, uint64_t features, uint64_t len);

/* May a driver that negotiated @features receive it as it is? Section 5.1.6.4. */
bool dp_hdr_acceptable(const struct vfe_wire_net_hdr *hdr, uint64_t features);

/* No checksum and no segmentation asked for: valid and acceptable for everybody. */
static inline bool
dp_hdr_is_plain(const struct vfe_wire_net_hdr *hdr)
{
	return (hdr->flags & VFE_NET_HDR_F_NEEDS_CSUM) == 0 &&
	       hdr->gso_type == VFE_NET_HDR_GSO_NONE;
}

/* Bytes of @iov. */
uint64_t dp_iov_len(const struct iovec *iov, uint32_t nr);

/* @src without its first @off bytes into @dst (room for @nr entries); returns its entries. */
uint32_t dp_iov_skip(const struct iovec *src, uint32_t nr, uint64_t off, struct iovec *dst);

/* Copy @len bytes from @src to @dst; both begin at their first byte and have that much. */
void dp_iov_copy(const struct iovec *dst, const struct iovec *src, uint64_t len);

struct dp_block16 {
	uint64_t w[2];
} __attribute__((packed, may_alias));

/*
 * Copy a packet. A hostile guest can make the two overlap; then the result is anybody's guess,
 * but there is no undefined behaviour: all loads of a short copy come before its stores, and
 * memmove() does the rest.
 */
static inline void
dp_packet_copy(uint8_t *dst, const uint8_t *src, uint32_t len)
{
	struct dp_block16 a, b, c, d;

	if (vfe_unlikely(len < 16 || len > 64)) {
		memmove(dst, src, len);
		return;
	}
	/* the head and the tail; between 16 and 64 bytes they overlap */
	a = *(const struct dp_block16 *)(const void *)src;
	d = *(const struct dp_block16 *)(const void *)(src + len - 16);
	if (len > 32) {
		b = *(const struct dp_block16 *)(const void *)(src + 16);
		c = *(const struct dp_block16 *)(const void *)(src + len - 32);
		*(struct dp_block16 *)(void *)(dst + 16) = b;
		*(struct dp_block16 *)(void *)(dst + len - 32) = c;
	}
	*(struct dp_block16 *)(void *)dst = a;
	*(struct dp_block16 *)(void *)(dst + len - 16) = d;
}

#endif /* DP_PACKET_H */
