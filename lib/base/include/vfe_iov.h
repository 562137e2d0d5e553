/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Bytes that lie in several pieces of memory.
 */

#ifndef VFE_IOV_H
#define VFE_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What is still to be visited: @len bytes from byte @off of the @nr pieces at @iov on. */
struct vfe_iov_walk {
	const struct iovec *iov;
	uint32_t nr;
	uint64_t off;
	uint64_t len;
};

/*
 * Go on to the next piece: *@ret_at is where its part of the bytes begins. Returns the length of
 * the part, or 0 when all have been visited or the pieces have no more.
 */
static inline uint64_t
vfe_iov_next(struct vfe_iov_walk *walk, uint8_t **ret_at)
{
	const struct iovec *piece;
	uint64_t part;

	while (walk->nr > 0 && walk->len > 0) {
		piece = walk->iov++;
		walk->nr--;
		if (walk->off >= piece->iov_len) {
			walk->off -= piece->iov_len;
			continue;
		}
		part = piece->iov_len - walk->off;
		if (part > walk->len)
			part = walk->len;
		*ret_at = (uint8_t *)piece->iov_base + walk->off;
		walk->off = 0;
		walk->len -= part;
		return part;
	}
	return 0;
}

/*
 * Copy @len bytes from byte @off of @iov on to @buf, or from @buf there. Returns the number of
 * bytes copied, which is smaller when the pieces have no more.
 */
size_t vfe_iov_read(const struct iovec *iov, uint32_t nr, uint64_t off, void *buf, size_t len);
size_t
vfe_iov_write(const struct iovec *iov, uint32_t nr, uint64_t off, const void *buf, size_t len);

#endif /* VFE_IOV_H */
