/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026 The vfe authors
 *
 * From device addresses (iova) to pointers: an immutable, sorted table of memory regions.
 */

#include "vfe_iova.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int
region_compare(const void *a, const void *b)
{
	const struct vfe_iova_region *x = a, *y = b;

	return x->iova < y->iova ? -1 : x->iova > y->iova;
}

/* A region may end exactly at 2^64, where iova + size is 0. */
static bool
region_wraps(const struct vfe_iova_region *r)
{
	return r->size - 1 > UINT64_MAX - r->iova;
}

static int
map_check(const struct vfe_iova_map *map, struct vfe_error *err)
{
	const struct vfe_iova_region *r;
	uint32_t i;

	for (i = 0; i < map->nr; i++) {
		r = &map->regions[i];
		if (r->size == 0 || region_wraps(r))
			return vfe_error_set(err, -EINVAL,
				"memory region at iova 0x%" PRIx64 " has a bad size 0x%" PRIx64,
				r->iova, r->size);
		if (i > 0 && r->iova - r[-1].iova < r[-1].size)
			return vfe_error_set(err, -EEXIST,
				"memory regions at iova 0x%" PRIx64 " and 0x%" PRIx64 " overlap",
				r[-1].iova, r->iova);
	}
	return 0;
}

int
vfe_iova_map_create(const struct vfe_iova_region *regions, uint32_t n, struct vfe_iova_map **ret,
	struct vfe_error *err)
{
	struct vfe_iova_map *map;
	int rc;

	map = malloc(sizeof(*map) + n * sizeof(map->regions[0]));
	if (map == NULL)
		return vfe_error_set(err, -ENOMEM, "no memory for a table of %u regions", n);

	map->nr = n;
	if (n > 0) {
		memcpy(map->regions, regions, n * sizeof(map->regions[0]));
		qsort(map->regions, n, sizeof(map->regions[0]), region_compare);
	}
	rc = map_check(map, err);
	if (rc < 0) {
		free(map);
		return rc;
	}
	*ret = map;
	return 0;
}

void
vfe_iova_map_free(struct vfe_iova_map *map)
{
	free(map);
}

const struct vfe_iova_region *
vfe_iova_map_find(const struct vfe_iova_map *map, uint64_t iova)
{
	uint32_t low = 0, high = map->nr, mid;

	/* the first region behind iova; the one before it is the only candidate */
	while (low < high) {
		mid = low + (high - low) / 2;
		if (map->regions[mid].iova <= iova)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == 0 || iova - map->regions[low - 1].iova >= map->regions[low - 1].size)
		return NULL;
	return &map->regions[low - 1];
}

bool
vfe_iova_of_other(const struct vfe_iova_map *map, uint32_t *hint, const void *va, uint64_t *ret)
{
	const struct vfe_iova_region *r;
	uint32_t i;

	for (i = 0; i < map->nr; i++) {
		r = &map->regions[i];
		if ((uintptr_t)va - (uintptr_t)r->va >= r->size)
			continue;
		*hint = i;
		*ret = r->iova + ((uintptr_t)va - (uintptr_t)r->va);
		return true;
	}
	return false;
}
