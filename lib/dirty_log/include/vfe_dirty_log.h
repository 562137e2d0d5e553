/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Maps of dirty pages: marking, and merging one map into another.
 *
 * A log is what a migration source reads and clears while others write it (vhost-user
 * SET_LOG_BASE): page n is bit n % 8 of byte n / 8, little-endian, so also bit n % 64 of 64-bit
 * word n / 64. All writes to a log here are atomic ORs; a clean word is never written. A page has
 * VFE_DIRTY_PAGE_SIZE bytes.
 *
 * No state, no allocation; any thread. What is written to a log is ordered behind the caller's
 * earlier stores (release), so that who sees the bit sees the data.
 */

#ifndef VFE_DIRTY_LOG_H
#define VFE_DIRTY_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "vfe_base.h"

enum { VFE_DIRTY_PAGE_SIZE = 4096, VFE_DIRTY_PAGE_SHIFT = 12 };

/* A log: @words 64-bit words at @map, page 0 of it is the page of address 0. */
struct vfe_dirty_log {
	uint64_t *map; /* aligned to 8 */
	size_t words;
};

/*
 * Mark the pages of [@addr, @addr + @len). What lies outside the log is not marked: returns 0, or
 * -ERANGE when that was the case (the rest is marked).
 */
int vfe_dirty_log_mark(const struct vfe_dirty_log *log, uint64_t addr, uint64_t len);

/*
 * OR the @words words of @map, a bitmap of ours whose first bit is page @first_page (a multiple of
 * 64) of the log, into @log. Returns the number of pages that were dirty in @map; what lies outside
 * the log is counted and not marked.
 */
uint64_t vfe_dirty_log_merge(
	const struct vfe_dirty_log *log, const uint64_t *map, size_t words, uint64_t first_page);

/*
 * The same for a map that a device still writes to: each word that is not clean is taken out
 * (exchanged for 0) before it is merged, so that no bit is lost and none is merged twice.
 */
uint64_t vfe_dirty_log_take(
	const struct vfe_dirty_log *log, uint64_t *map, size_t words, uint64_t first_page);

/*
 * As vfe_dirty_log_merge() for a map of @pages bytes, aligned to 8, one per page, dirty when not 0.
 */
uint64_t vfe_dirty_log_merge_bytes(
	const struct vfe_dirty_log *log, const uint8_t *map, size_t pages, uint64_t first_page);

/* As vfe_dirty_log_take() for a map of bytes. */
uint64_t vfe_dirty_log_take_bytes(
	const struct vfe_dirty_log *log, uint8_t *map, size_t pages, uint64_t first_page);

#endif /* VFE_DIRTY_LOG_H */
