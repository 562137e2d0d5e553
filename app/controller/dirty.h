/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * Dirty page tracking of a VF (vendor dialect, class 65): which pages of its driver's memory the
 * VF has written.
 *
 * A range of addresses has a map of one bit or one byte per page. In the pull modes the map is ours
 * and is asked for; in the push modes it is memory of the PF's driver, and we write it. Tracking
 * belongs to the PF: it survives a reset of the VF, and ends with STOP or with a reset of the PF.
 *
 * Ranges are added and removed on the control thread; workers mark. When a function here returns,
 * all workers do as it says.
 */

#ifndef CONTROLLER_DIRTY_H
#define CONTROLLER_DIRTY_H

#include <stdint.h>

#include <jansson.h>

#include "function.h"

enum {
	DIRTY_MAX_RANGES = 16,
	DIRTY_LOG_MAX_PAGES_BITMAP = 30, /* of all pull ranges of a VF: 128 MiB of address space */
	DIRTY_LOG_MAX_PAGES_BYTEMAP = 28,
	DIRTY_MIN_PAGE = 4096,
	DIRTY_MAX_PAGE = 1 << 30,
	DIRTY_MAX_SGES = 1024,
	DIRTY_MAX_REPORT = 16 << 20, /* bytes of a map in one report */
};

bool dirty_mode_is_push(uint16_t mode);

/* Feature bits of a PF for @modes, a mask with bit n for mode n. */
uint64_t dirty_features(uint32_t modes);

/* What IDENTITY answers with @modes. */
void dirty_identity(uint32_t modes, struct vfe_wire_admin_dirty_identity *ret);

/*
 * Start to track what @in says, with @nr SGEs of a push mode. Returns 0, or with a text -EINVAL
 * (mode, page size, range, SGEs), -EEXIST (overlaps a tracked range), -ENOSPC (too many ranges or
 * pages), -ENOMEM.
 */
int dirty_start(struct function *vf, const struct vfe_wire_admin_track_start *in,
	const struct vfe_wire_admin_sge *sges, uint32_t nr, struct vfe_error *err);

/*
 * Stop tracking the range at @addr. With one range only, it is that one whatever @addr says: the
 * incumbent driver names its end. Returns 0, -ENOENT, or -EIO when the tracking had failed before,
 * so that its map says nothing; it is stopped then, too.
 */
int dirty_stop(struct function *vf, uint64_t addr, struct vfe_error *err);

/* Stop all, silently. */
void dirty_stop_all(struct function *vf);

/*
 * Bytes of the map at @addr up to the last one that is not 0. Returns 0, -ENOENT, or -EINVAL (a
 * push mode).
 */
int dirty_pending(struct function *vf, uint64_t addr, uint64_t *ret, struct vfe_error *err);

/*
 * Take @len bytes of the map at @addr from @off on into @buf: what is reported is forgotten.
 * Errors as above; -EINVAL also when they are not inside the map.
 */
int dirty_report(struct function *vf, uint64_t addr, uint64_t off, uint8_t *buf, uint64_t len,
	struct vfe_error *err);

/* The inverse, for a report that did not get there. */
void
dirty_unreport(struct function *vf, uint64_t addr, uint64_t off, const uint8_t *buf, uint64_t len);

/* [@va, @va + @size) of the PF's memory goes away: tracking into it fails. */
void dirty_forget_memory(struct function *pf, const void *va, uint64_t size);

/* Fail tracking into memory of the PF behind which the file has shrunk. */
void dirty_check_memory(struct function *vf);

/* For virtnet query: an array with one object per range. */
json_t *dirty_describe(const struct function *vf);

void dirty_destroy(struct function *vf);

#endif /* CONTROLLER_DIRTY_H */
