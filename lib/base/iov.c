/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Copies to and from memory in pieces.
 */

#include "vfe_iov.h"

#include <string.h>

size_t
vfe_iov_read(const struct iovec *iov, uint32_t nr, uint64_t off, void *buf, size_t len)
{
	struct vfe_iov_walk walk = {iov, nr, off, len};
	uint8_t *from, *to = buf;
	uint64_t part;

	while ((part = vfe_iov_next(&walk, &from)) > 0) {
		memcpy(to, from, part);
		to += part;
	}
	return len - walk.len;
}

size_t
vfe_iov_write(const struct iovec *iov, uint32_t nr, uint64_t off, const void *buf, size_t len)
{
	struct vfe_iov_walk walk = {iov, nr, off, len};
	const uint8_t *from = buf;
	uint8_t *to;
	uint64_t part;

	while ((part = vfe_iov_next(&walk, &to)) > 0) {
		memcpy(to, from, part);
		from += part;
	}
	return len - walk.len;
}
