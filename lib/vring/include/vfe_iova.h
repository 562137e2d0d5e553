/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * From device addresses (iova) to pointers: an immutable, sorted table of memory regions.
 *
 * A table is built once and never changed; a new one replaces it (the owner sees to it that no
 * thread uses the old one any more before it is freed). The table owns no memory but itself.
 */

#ifndef VFE_IOVA_H
#define VFE_IOVA_H

#include <stdint.h>

#include "vfe_base.h"

enum {
	VFE_IOVA_READ = 1,  /* the device may read */
	VFE_IOVA_WRITE = 2, /* the device may write */
};

struct vfe_iova_region {
	uint64_t iova;
	uint64_t size;
	uint8_t *va;
	uint32_t prot; /* VFE_IOVA_* */
};

struct vfe_iova_map {
	uint32_t nr;
	struct vfe_iova_region regions[]; /* sorted by iova, not overlapping */
};

/*
 * Build a table of @n regions in any order. Returns 0, -EINVAL (empty or wrapping region),
 * -EEXIST (overlap), -ENOMEM. *@ret is freed by vfe_iova_map_free().
 */
int vfe_iova_map_create(const struct vfe_iova_region *regions, uint32_t n,
	struct vfe_iova_map **ret, struct vfe_error *err);
void vfe_iova_map_free(struct vfe_iova_map *map);

/* The region that holds @iova, by bisection, or NULL. */
const struct vfe_iova_region *vfe_iova_map_find(const struct vfe_iova_map *map, uint64_t iova);

/*
 * Pointer to [@iova, @iova + @len), or NULL when it is not inside one region with all of @prot.
 * *@hint (start with 0) remembers the last region, so that the common case is one compare.
 */
static inline void *
vfe_iova_translate(
	const struct vfe_iova_map *map, uint32_t *hint, uint64_t iova, uint64_t len, uint32_t prot)
{
	const struct vfe_iova_region *r;

	if (vfe_unlikely(map == NULL || map->nr == 0))
		return NULL;
	r = &map->regions[*hint < map->nr ? *hint : 0];
	if (vfe_unlikely(iova - r->iova >= r->size)) {
		r = vfe_iova_map_find(map, iova);
		if (r == NULL)
			return NULL;
		*hint = (uint32_t)(r - map->regions);
	}
	if (vfe_unlikely(len > r->size - (iova - r->iova) || (r->prot & prot) != prot))
		return NULL;
	return r->va + (iova - r->iova);
}

/*
 * The way back: the iova of @va, or false when it is in no region. *@hint as above; other regions
 * are searched one by one.
 */
bool
vfe_iova_of_other(const struct vfe_iova_map *map, uint32_t *hint, const void *va, uint64_t *ret);

static inline bool
vfe_iova_of(const struct vfe_iova_map *map, uint32_t *hint, const void *va, uint64_t *ret)
{
	const struct vfe_iova_region *r;

	if (vfe_unlikely(map == NULL || map->nr == 0))
		return false;
	r = &map->regions[*hint < map->nr ? *hint : 0];
	if (vfe_unlikely((uintptr_t)va - (uintptr_t)r->va >= r->size))
		return vfe_iova_of_other(map, hint, va, ret);
	*ret = r->iova + ((uintptr_t)va - (uintptr_t)r->va);
	return true;
}

#endif /* VFE_IOVA_H */
